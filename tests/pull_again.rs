//! Sources that fail, and what follows: how soon they are tried again, how often, and what is said of it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    Camera, CameraPlan, Mock, PATIENCE, Rtsp, Server, camera::prepare_on, mock::Plan, ours_or_say_skipped,
    server::OWN_PORT, wait_for,
};

#[test]
fn a_host_that_was_down_is_live_soon_after_somebody_asks_for_one_of_its_cameras() {
    if !ours_or_say_skipped("pauses that end when a host is back") {
        return;
    }
    const CAMERAS: usize = 8;
    // A port of ours on which nobody listens yet.
    let port = Mock::start("listen refuse").port;
    let entry =
        |n| format!("  cam{n}:\n    source: rtsp://127.0.0.1:{port}/cam{n}\n    rtspTransport: tcp\n");
    let mut server = Server::with_api("", &(0..CAMERAS).map(entry).collect::<String>());
    // By now they are tried every five to ten seconds.
    thread::sleep(Duration::from_secs(16));
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let _mock = Mock::with(&Plan::read(""), None, at);
    let began = Instant::now();
    assert_eq!(Rtsp::connect(&server).describe("cam0").status, 404, "it is not there yet");
    (0..CAMERAS).for_each(|n| server.wait_live(&format!("cam{n}")));
    let took = began.elapsed();
    assert!(took < Duration::from_secs(4), "all are back after {took:?}");
    server.assert_alive();
}

#[test]
fn a_camera_that_dies_at_once_is_not_started_over_and_over_by_who_asks_for_it() {
    if !ours_or_say_skipped("pauses of sources on demand") {
        return;
    }
    let short = Mock::start("cut after 200ms fin");
    let wrong = Mock::start("auth md5\nrefuse login");
    let entry = |name: &str, url: String| {
        format!(
            "  {name}:\n    source: {url}\n    rtspTransport: tcp\n    sourceOnDemand: yes\n    \
             sourceOnDemandStartTimeout: 1s\n"
        )
    };
    let paths = entry("short", short.url("short")) + &entry("wrong", wrong.url("wrong"));
    let mut server = Server::with_api("", &paths);
    let until = Instant::now() + Duration::from_secs(10);
    thread::scope(|scope| {
        for name in ["short", "wrong"] {
            let server = &server;
            scope.spawn(move || {
                while Instant::now() < until {
                    let mut client = Rtsp::connect(server);
                    if client.describe(name).status == 200 {
                        // It may be gone again.
                        thread::sleep(Duration::from_millis(50));
                    }
                    thread::sleep(Duration::from_millis(20));
                }
            });
        }
    });
    // Pauses of at most 1, 2, 3, 3 s and so on, and of at least half of that.
    assert!((2..=10).contains(&short.connections()), "{} connections in 10 s", short.connections());
    assert!((2..=7).contains(&wrong.connections()), "{} attempts with a wrong password", wrong.connections());
    let log = server.log_lines();
    for name in ["short", "wrong"] {
        let errors = log.iter().filter(|line| line.contains(name) && line.contains(" ERR ")).count();
        assert!((1..=4).contains(&errors), "{errors} errors of {name} in the log");
    }
    server.assert_alive();
}

/// Somebody publishes where a pull is at work that has not brought anything yet.
#[test]
fn a_publisher_that_is_not_let_in_leaves_the_pull_alone_and_one_that_is_serves_who_waits() {
    if !ours_or_say_skipped("engine.maxStreams, engine.nativePull") {
        return;
    }
    let mock = Mock::start("on DESCRIBE hang");
    let paths = format!(
        "  native:\n    runOnDemand: ffmpeg -i {} -c copy -f rtsp rtsp://{OWN_PORT}/native\n    \
         runOnDemandStartTimeout: 60s\n  all_others:\n",
        mock.url("cam")
    );
    let mut server = Server::with_api("readTimeout: 60s\nengine:\n  maxStreams: 1\n", &paths);
    thread::scope(|scope| {
        let server = &server;
        let held = scope.spawn(|| Rtsp::connect(server).describe("native").status);
        wait_for("the pull is at work", PATIENCE, || (mock.count("DESCRIBE") > 0).then_some(()));
        let mut publisher = Rtsp::connect(server);
        prepare_on(&mut publisher, "native");
        let other = Camera::publish(server, "other", CameraPlan::default());
        let url = publisher.url("native");
        assert_eq!(publisher.request("RECORD", &url, &[], "").status, 453);
        assert_eq!(mock.open(), 1, "the pull has gone");
        assert!(!server.log_text().contains("replaced by a publisher"));
        assert!(!held.is_finished());
        other.leave();
        server.wait_log(&["[path other] stream is not available anymore"], PATIENCE);
        let _camera = Camera::publish(server, "native", CameraPlan::default());
        assert_eq!(held.join().unwrap(), 200);
        wait_for("the pull has given way", PATIENCE, || (mock.open() == 0).then_some(()));
    });
    server.assert_alive();
}

#[test]
fn the_talk_with_a_source_is_in_the_log_at_level_debug() {
    if !ours_or_say_skipped("the talk with a source in the log") {
        return;
    }
    let mock = Mock::start("auth md5");
    let path = format!(
        "  cam:\n    source: {}?token=t0ken\n    rtspTransport: tcp\n    sourceOnDemand: yes\n",
        mock.url("cam")
    );
    let server = Server::with_api("", &path);
    server.api("PATCH", "/v3/config/global/patch", r#"{"logLevel": "debug"}"#).assert_ok();
    assert!(Rtsp::play_tcp(&server, "cam").frame(PATIENCE).is_some());
    server.api("POST", "/v3/config/paths/remove/cam", "").assert_ok();
    let url = mock.bare_url("cam");
    for said in [
        format!("connecting to 127.0.0.1:{}", mock.port),
        format!("[c->s] DESCRIBE {url}"),
        "[s->c] 401".to_owned(),
        format!("[c->s] TEARDOWN {url}"),
    ] {
        server.wait_log(&[" DEB ", "[path cam] [RTSP source]", &said], PATIENCE);
    }
    let log = server.log_text();
    let log: String = log.lines().filter(|line| line.contains("[RTSP source]")).collect();
    assert!(!log.contains("t0ken") && !log.contains("secret") && !log.contains("Digest"), "{log}");
}
