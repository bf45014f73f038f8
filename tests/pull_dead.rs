//! Upstreams that are not what they should be beside those that are: they cost little, say little, and harm nobody. And
//! paths that begin and end all the time leave nothing behind.

use std::{
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    Mock, PATIENCE, Rtsp, Server, flow::Watcher, mock::Plan, ours_or_say_skipped, wait_for,
};

/// What is wrong, and what the API must say of it.
const DEAD: [(&str, &str); 5] = [
    ("listen refuse", "refused"),
    ("listen blackhole", "connect"),
    ("listen mute", "OPTIONS"),
    ("auth md5\nrefuse login", "401"),
    ("listen garbage", "does not speak RTSP"),
];
const OF_EACH: usize = 10;
const WATCHED_FOR: Duration = Duration::from_secs(12);

#[test]
fn fifty_dead_upstreams_do_not_harm_ten_healthy_ones() {
    if !ours_or_say_skipped("sourceError, pauses that grow") {
        return;
    }
    let mut mocks: Vec<(String, Mock)> = Vec::new();
    // Each is a host of its own, as cameras are.
    let mut host = 0;
    let mut add = |name: String, plan: &str| {
        host += 1;
        let at = SocketAddr::from((Ipv4Addr::new(127, 0, 77, host), 0));
        mocks.push((name, Mock::with(&Plan::read(plan), None, at)));
    };
    for n in 0..OF_EACH {
        DEAD.iter().enumerate().for_each(|(kind, (plan, _))| add(format!("dead_{kind}_{n}"), plan));
        add(format!("healthy_{n}"), "auth md5");
    }
    let entry = |(name, mock): &(String, Mock)| {
        format!("  {name}:\n    source: {}\n    rtspTransport: tcp\n", mock.url("cam"))
    };
    let paths: String = mocks.iter().map(entry).collect();
    let mut server = Server::with_api("readTimeout: 4s\n", &paths);
    let healthy = || mocks.iter().filter(|(name, _)| name.starts_with("healthy"));
    let watchers: Vec<_> = healthy()
        .map(|(name, mock)| {
            server.wait_live(name);
            let record = wait_for("it plays", PATIENCE, || mock.record("cam"));
            Watcher::on_record(Rtsp::play_tcp(&server, name), record)
        })
        .collect();
    thread::sleep(WATCHED_FOR);
    for (watcher, (name, mock)) in watchers.into_iter().zip(healthy()) {
        watcher.finish().assert_lossless(500);
        assert_eq!(mock.played("cam").len(), 1, "{name} was begun anew");
    }
    let log = server.log_lines();
    for (name, mock) in mocks.iter().filter(|(name, _)| name.starts_with("dead")) {
        let kind: usize = name.split('_').nth(1).unwrap().parse().unwrap();
        let wanted = DEAD[kind].1;
        let what = format!("{name} says {wanted:?}");
        wait_for(&what, PATIENCE, || {
            let path = server.get(&format!("/v3/paths/get/{name}")).json();
            let said = path["sourceError"].as_str().is_some_and(|error| error.contains(wanted));
            (said && path["sourceState"] == "connecting").then_some(())
        });
        let lines = log.iter().filter(|line| line.contains(name.as_str())).count();
        assert!(lines <= 10, "{lines} lines about {name}");
        assert!(mock.connections() <= 8, "{} connections to {name}", mock.connections());
    }
    assert!(!log.iter().any(|line| line.contains("secret")), "a password in the log");
    server.assert_alive();
}

/// A recorder that lets in ten connections a second, and thirty cameras behind it: who waits there for longer than a
/// connect may take has been sent too early.
#[test]
fn a_host_that_lets_in_ten_a_second_is_not_crowded() {
    const CAMERAS: usize = 30;
    let mock = Mock::start("accepts 10\nauth md5\nprotect options");
    let entry = |n: usize| {
        format!("  cam{n}:\n    source: {}\n    rtspTransport: tcp\n", mock.url(&format!("live/{n}")))
    };
    let server = Server::with_api("readTimeout: 4s\n", &(0..CAMERAS).map(entry).collect::<String>());
    wait_for("all are pulled", PATIENCE, || {
        (0..CAMERAS).all(|n| mock.playing(&format!("live/{n}")) == 1).then_some(())
    });
    assert_eq!(mock.connections(), CAMERAS, "one connection each");
    let failed = |line: &String| line.contains(" WAR ") || line.contains(" ERR ");
    let failed: Vec<_> = server.log_lines().into_iter().filter(failed).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

/// As behind a VMS: all cameras are one host and port, and some never answer.
#[test]
fn forty_that_hang_do_not_hold_up_ten_healthy_ones_behind_the_same_port() {
    const HANGING: usize = 40;
    const HEALTHY: usize = 10;
    let mock = Mock::start("hang hang");
    let entry = |name: &str| {
        format!(
            "  {name}:\n    source: {}\n    sourceOnDemand: yes\n    rtspTransport: tcp\n",
            mock.url(name)
        )
    };
    let names = |kind: &'static str, count| (0..count).map(move |n| format!("{kind}{n}"));
    let paths: String = names("hang", HANGING).chain(names("ok", HEALTHY)).map(|name| entry(&name)).collect();
    let mut server = Server::with_api("", &paths);
    thread::scope(|scope| {
        let held: Vec<_> = names("hang", HANGING)
            .map(|name| {
                let server = &server;
                scope.spawn(move || Rtsp::connect(server).describe(&name).status)
            })
            .collect();
        wait_for("many of them hang", PATIENCE, || (mock.count("DESCRIBE") >= HANGING / 4).then_some(()));
        let healthy: Vec<_> = names("ok", HEALTHY)
            .map(|name| {
                let server = &server;
                scope.spawn(move || {
                    let began = Instant::now();
                    let status = Rtsp::connect(server).describe(&name).status;
                    (status, began.elapsed())
                })
            })
            .collect();
        for healthy in healthy {
            let (status, took) = healthy.join().unwrap();
            assert_eq!(status, 200);
            assert!(took < Duration::from_secs(2), "a healthy camera came after {took:?}");
        }
        assert!(held.into_iter().all(|held| held.join().unwrap() != 200));
    });
    server.assert_alive();
}

/// Four paths at once, each begun by a viewer and ended as soon as it has left, over and over.
#[test]
fn five_hundred_starts_and_stops_leave_nothing_behind() {
    const PATHS: usize = 4;
    let mock = Mock::start("auth md5");
    let entry = |n: usize| {
        format!(
            "  cam{n}:\n    source: {}\n    sourceOnDemand: yes\n    sourceOnDemandCloseAfter: 1ms\n    rtspTransport: tcp\n",
            mock.url(&format!("cam{n}"))
        )
    };
    let mut server = Server::with_api("", &(0..PATHS).map(entry).collect::<String>());
    let cycle = |n: usize, turn: usize| {
        let name = format!("cam{n}");
        let mut viewer = Rtsp::play_tcp(&server, &name);
        assert!(viewer.frame(PATIENCE).is_some());
        if turn.is_multiple_of(2) {
            assert_eq!(viewer.teardown().status, 200);
        }
        drop(viewer);
        wait_for("the camera is left alone", PATIENCE, || (mock.playing(&name) == 0).then_some(()));
    };
    let cycles = |count: usize| {
        thread::scope(|scope| {
            for n in 0..PATHS {
                let cycle = &cycle;
                scope.spawn(move || (0..count / PATHS).for_each(|turn| cycle(n, turn)));
            }
        });
    };
    cycles(60);
    let settled = |server: &Server| {
        let idle = |n| server.get(&format!("/v3/paths/get/cam{n}")).json()["sourceState"] == "stopped";
        wait_for("every path is idle", PATIENCE, || (0..PATHS).all(idle).then_some(()));
        wait_for("no connection is left", PATIENCE, || (mock.open() == 0).then_some(()));
        thread::sleep(Duration::from_secs(1));
    };
    settled(&server);
    let (files, threads, bytes) = (server.open_files(), server.threads(), server.rss_bytes());
    let began = Instant::now();
    cycles(500);
    let took = began.elapsed();
    settled(&server);
    wait_for("every file is closed again", PATIENCE, || (server.open_files() <= files).then_some(()));
    assert!(server.threads() <= threads + 2, "{} threads, {threads} before", server.threads());
    let grown = server.rss_bytes().saturating_sub(bytes);
    assert!(grown <= 6 << 20, "{} KiB more after 500 cycles in {took:?}", grown >> 10);
    server.assert_alive();
}
