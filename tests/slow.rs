//! A slow reader costs the others nothing, and itself as little as can be.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    Camera, CameraPlan, Flow, PATIENCE, Rtsp, Server, flow::Watcher, ours_or_say_skipped, wait_for,
};

/// 20 Mbps: kernel buffers fill soon when nobody reads.
const HEAVY: CameraPlan = CameraPlan { fps: 25, gop: 25, frame_bytes: 96_000, key_bytes: 200_000 };

fn stalled(server: &Server, path: &str) -> Rtsp {
    let mut client = Rtsp::connect_from(server, std::net::Ipv4Addr::LOCALHOST, Some(8_192));
    client.setup_all_tcp(path);
    assert_eq!(client.play().status, 200);
    client
}

#[test]
fn nine_readers_lose_nothing_while_the_tenth_stalls_and_it_is_closed_after_write_timeout() {
    let mut server = Server::with("writeTimeout: 3s\n", "  all_others:\n");
    let camera = Camera::publish(&server, "cam", HEAVY);
    camera.wait_frames(5);
    let watchers: Vec<_> = (0..9).map(|_| Watcher::start(&server, "cam", &camera)).collect();
    let mut tenth = stalled(&server, "cam");
    let me = tenth.local();
    let before = server.open_files();
    server.wait_log(&[&format!("[conn {me}] closed: ")], PATIENCE);
    wait_for("its file is closed", PATIENCE, || (server.open_files() < before).then_some(()));
    assert!(tenth.closed_within(PATIENCE), "what was in flight, then the end");
    for watcher in watchers {
        watcher.wait_more(200);
        watcher.finish().assert_lossless(500);
    }
    server.assert_alive();
}

#[test]
fn a_lapped_reader_resumes_at_a_keyframe_and_the_log_names_it() {
    if !ours_or_say_skipped("a_lapped_reader_resumes_at_a_keyframe_and_the_log_names_it") {
        return;
    }
    let server = Server::with("writeTimeout: 120s\n", "  all_others:\n");
    let camera = Camera::publish(&server, "cam", HEAVY);
    camera.wait_frames(5);
    let watchers: Vec<_> = (0..9).map(|_| Watcher::start(&server, "cam", &camera)).collect();
    let mut tenth = stalled(&server, "cam");
    let me = tenth.local();
    let session = server.session_name(&me);
    let mut flow = Flow::of(&camera);
    flow.read(&mut tenth, 50);
    // Stalls for longer than any buffer on the way lasts: 20 s are 50 MB.
    thread::sleep(Duration::from_secs(20));
    let give_up = Instant::now() + PATIENCE;
    while flow.holes.is_empty() {
        assert!(Instant::now() < give_up, "20 s late and never lapped");
        let frame = tenth.frame(PATIENCE).expect("the stream ended: it should have resumed");
        flow.take(&frame);
    }
    let (_, resumed) = flow.holes[0];
    assert!(
        camera.record().begins_key(resumed),
        "it resumes at packet {resumed}, keyframes are {:?}",
        camera.keys()
    );
    flow.read(&mut tenth, 300);
    assert_eq!(flow.holes.len(), 1, "one jump and then all of it: {:?}", flow.holes);
    wait_for("the log names the slow reader", PATIENCE, || {
        let named = |line: &String| {
            line.contains(" WAR ")
                && line.contains("behind")
                && (line.contains(&me) || line.contains(&session))
        };
        server.log_lines().iter().any(named).then_some(())
    });
    for watcher in watchers {
        watcher.finish().assert_lossless(1_000);
    }
}

#[test]
fn a_frozen_ffmpeg_among_nine_readers_costs_them_nothing() {
    let mut server = Server::start();
    let camera = Camera::publish(&server, "cam", CameraPlan::default());
    camera.wait_frames(5);
    let watchers: Vec<_> = (0..9).map(|_| Watcher::start(&server, "cam", &camera)).collect();
    let url = server.url("cam");
    let mut frozen = crate::support::tools::ffmpeg(&[
        "-rtsp_transport",
        "tcp",
        "-i",
        &url,
        "-c",
        "copy",
        "-f",
        "null",
        "-",
    ]);
    server.wait_log(&["[session ", "is reading from path 'cam'"], PATIENCE);
    frozen.freeze();
    for watcher in &watchers {
        watcher.wait_more(300);
    }
    assert!(frozen.is_running());
    for watcher in watchers {
        watcher.finish().assert_lossless(300);
    }
    server.assert_alive();
}
