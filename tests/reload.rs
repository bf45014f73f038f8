//! A changed configuration takes effect where it differs, and nowhere else.

use std::time::Duration;

use crate::support::{
    Camera, CameraPlan, PATIENCE, Rtsp, Server, flow::Watcher, ours_or_say_skipped, server::API, wait_for,
};

const STREAMS: usize = 6;
const READERS: usize = 3;

fn numbered(prefix: &str, numbers: std::ops::Range<usize>, body: &str) -> String {
    numbers.map(|n| format!("  {prefix}{n}: {body}\n")).collect()
}

/// Publishes `cam0…` and reads each; gives the cameras and their watchers.
fn estate(server: &Server) -> (Vec<Camera>, Vec<Watcher>) {
    let cameras: Vec<_> =
        (0..STREAMS).map(|n| Camera::publish(server, &format!("cam{n}"), CameraPlan::default())).collect();
    let mut watchers = Vec::new();
    for (n, camera) in cameras.iter().enumerate() {
        camera.wait_frames(2);
        watchers.extend((0..READERS).map(|_| Watcher::start(server, &format!("cam{n}"), camera)));
    }
    (cameras, watchers)
}

#[test]
fn a_reload_touches_only_what_it_changes() {
    let before = numbered("cam", 0..STREAMS, "{}") + &numbered("old", 0..10, "{}");
    let server = Server::with_api("", &before);
    let (cameras, watchers) = estate(&server);
    // cam0 gets another source, ten paths go, ten come.
    let after = "  cam0: {source: rtsp://127.0.0.1:1/none, sourceOnDemand: yes}\n".to_owned()
        + &numbered("cam", 1..STREAMS, "{}")
        + &numbered("new", 0..10, "{}");
    server.rewrite(API, &after);
    wait_for("the new paths are there", PATIENCE, || {
        (server.get("/v3/config/paths/get/new9").status == 200).then_some(())
    });
    assert_eq!(server.get("/v3/config/paths/get/old3").status, 404);
    assert_eq!(server.get("/v3/paths/get/old3").status, 404);
    wait_for("the changed path has lost its publisher", PATIENCE, || cameras[0].was_closed().then_some(()));
    for (n, watcher) in watchers.into_iter().enumerate() {
        if n < READERS {
            watcher.wait_closed();
        } else {
            watcher.wait_more(50);
            watcher.finish().assert_lossless(50);
        }
    }
    assert!(cameras[1..].iter().all(|camera| !camera.was_closed()));
    let mut publisher = Camera::publish(&server, "new4", CameraPlan::default());
    publisher.wait_frames(2);
    assert!(!publisher.was_closed());
    publisher = Camera::publish(&server, "cam5", CameraPlan::default());
    publisher.wait_frames(2);
}

#[test]
fn an_invalid_file_is_refused_and_the_old_configuration_goes_on() {
    if !ours_or_say_skipped("an_invalid_file_is_refused_and_the_old_configuration_goes_on") {
        return;
    }
    let paths = numbered("cam", 0..STREAMS, "{}");
    let mut server = Server::with_api("", &paths);
    let (cameras, watchers) = estate(&server);
    let success = |value: &str| {
        server.metrics("/metrics").body.contains(&format!("\ncorecast_config_reload_success {value}"))
    };
    assert!(success("1"));
    server.rewrite(&format!("{API}readTimeuot: 3s\n"), "  nothing:\n");
    let line = server.wait_log(&[" ERR ", "readTimeuot"], PATIENCE);
    assert!(line.contains("config.yml:"), "{line}");
    wait_for("the metrics tell", PATIENCE, || success("0").then_some(()));
    assert_eq!(server.get("/v3/config/paths/get/cam1").status, 200);
    server.api("POST", "/v3/config/paths/add/more", "{}").assert_ok();
    assert!(success("0"), "a change through the API does not mend the file");
    for watcher in watchers {
        watcher.wait_more(50);
        watcher.finish().assert_lossless(50);
    }
    assert!(cameras.iter().all(|camera| !camera.was_closed()));
    // Mended, and asked for in words.
    server.rewrite(&format!("{API}readTimeout: 13s\n"), &paths);
    server.signal("-HUP");
    wait_for("the mended file is in effect", PATIENCE, || {
        (server.get("/v3/config/global/get").json()["readTimeout"] == "13s").then_some(())
    });
    wait_for("the metrics tell", PATIENCE, || success("1").then_some(()));
    server.assert_alive();
}

#[test]
fn the_listener_moves_to_another_port_and_back_without_a_restart() {
    let mut server = Server::with_api("", "  all_others:\n");
    let camera = Camera::publish(&server, "cam", CameraPlan::default());
    camera.wait_frames(2);
    let (port, _) = crate::support::server::free_ports();
    let moved = |port: u16| format!(r#"{{"rtspAddress": "127.0.0.1:{port}"}}"#);
    server.api("PATCH", "/v3/config/global/patch", &moved(port)).assert_ok();
    wait_for("the old connections end", PATIENCE, || camera.was_closed().then_some(()));
    let old = std::mem::replace(&mut server.port, port);
    let camera = Camera::publish(&server, "cam", CameraPlan::default());
    camera.wait_frames(2);
    let mut reader = Rtsp::play_tcp(&server, "cam");
    assert!(reader.frame(PATIENCE).is_some());
    server.api("PATCH", "/v3/config/global/patch", &moved(old)).assert_ok();
    assert!(reader.closed_within(PATIENCE));
    server.port = old;
    wait_for("the first port serves again", PATIENCE, || {
        let mut client = std::net::TcpStream::connect(("127.0.0.1", old)).ok()?;
        client.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
        std::io::Write::write_all(&mut client, b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n").ok()?;
        let mut answer = [0; 12];
        std::io::Read::read_exact(&mut client, &mut answer).ok()?;
        (&answer == b"RTSP/1.0 200").then_some(())
    });
    server.assert_alive();
}

#[test]
fn a_port_that_is_taken_is_refused_and_nobody_is_disconnected() {
    if !ours_or_say_skipped("a_port_that_is_taken_is_refused_and_nobody_is_disconnected") {
        return;
    }
    let mut server = Server::with_api("", "  all_others:\n");
    let camera = Camera::publish(&server, "cam", CameraPlan::default());
    camera.wait_frames(2);
    let watcher = Watcher::start(&server, "cam", &camera);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for key in ["rtspAddress", "apiAddress", "metricsAddress"] {
        let body = format!(r#"{{"{key}": "127.0.0.1:{port}"}}"#);
        let answer = server.api("PATCH", "/v3/config/global/patch", &body);
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.body.contains(&port.to_string()), "{answer:?}");
        watcher.wait_more(20);
    }
    let lines = server.log_lines().len();
    let answer = server.api(
        "PATCH",
        "/v3/config/global/patch",
        r#"{"apiEncryption": true, "apiServerCert": "none.crt"}"#,
    );
    assert_eq!(answer.status, 400, "{answer:?}");
    let started = server.log_lines()[lines..].iter().any(|line| line.contains("[API] started"));
    assert!(!started, "the API was restarted for nothing");
    // The same by the file; then one that was emptied by somebody who goes on writing it.
    server.rewrite(
        &format!("{API}runOnConnect: 'true'\nrtspDisable: no\nrtspsAddress: ':1'\nreadTimeout: 0s\n"),
        "  all_others:\n",
    );
    server.wait_log(&[" ERR ", "readTimeout"], PATIENCE);
    std::fs::write(server.dir().join("config.yml"), "").unwrap();
    server.wait_log(&[" ERR ", "is empty"], PATIENCE);
    assert_eq!(server.get("/v3/paths/get/cam").status, 200);
    watcher.wait_more(20);
    watcher.finish().assert_lossless(80);
    server.assert_alive();
}
