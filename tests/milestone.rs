//! The customer's `milestone_~cameraId` block as it is written in their document, only the hosts changed: pulled natively,
//! and by ffmpeg as they do today; in front of the mock and of gst-rtsp-server.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use crate::support::{
    Flow, Mock, PATIENCE, Rtsp, Server, flow::Watcher, gst::GstCamera, media, ours_or_say_skipped,
    server::OWN_PORT, wait_for,
};

const BLOCK: &str = "  milestone_~cameraId:
    runOnDemand: ffmpeg -i rtsp://milestone:554/${cameraId} -c copy -f rtsp rtsp://localhost:8554/milestone_${cameraId}
    runOnDemandRestart: yes
    runOnDemandCloseAfter: 10s
";
const GUID: &str = "123e4567-e89b-12d3-a456-426614174000";
const PATH: &str = "milestone_123e4567-e89b-12d3-a456-426614174000";
const CLOSE_AFTER: Duration = Duration::from_secs(10);

/// A relay with the block; `upstream` in the place of `milestone:554`. Its own port is filled in as it starts.
fn relay(upstream: u16, globals: &str) -> Server {
    assert!(BLOCK.contains(OWN_PORT));
    Server::with_api(globals, &BLOCK.replace("milestone:554", &format!("127.0.0.1:{upstream}")))
}

/// The last viewer left at `left`; it took the relay ten seconds to end what `gone` tells of.
fn assert_closes_in_time(left: Instant, what: &str, gone: impl Fn() -> bool) {
    wait_for(what, PATIENCE, || gone().then_some(()));
    let took = left.elapsed();
    assert!(took >= CLOSE_AFTER - Duration::from_millis(500), "{what}: after {took:?} only");
    assert!(took <= CLOSE_AFTER * 2, "{what}: after {took:?}");
}

#[test]
fn ten_viewers_share_one_session_that_ends_ten_seconds_after_the_last_of_them() {
    if !ours_or_say_skipped("a runOnDemand that only copies is served by a pull") {
        return;
    }
    let mock = Mock::start(&format!("only {GUID}\ntracks h264"));
    let server = relay(mock.port, "");
    assert_eq!(mock.connections(), 0, "nobody has asked for it");
    // All come at once: the first one starts it, the others wait with it.
    let mut viewers: Vec<Rtsp> = std::thread::scope(|scope| {
        let coming: Vec<_> = (0..10).map(|_| scope.spawn(|| Rtsp::play_tcp(&server, PATH))).collect();
        coming.into_iter().map(|viewer| viewer.join().unwrap()).collect()
    });
    let record = mock.record(GUID).expect("the bridge plays");
    for viewer in &mut viewers {
        let mut flow = Flow::of_record(record.clone());
        flow.read(viewer, 100);
        flow.assert_lossless(100);
        assert!(record.begins_key(flow.first.unwrap()), "it does not begin with a keyframe");
    }
    assert_eq!(mock.played(GUID).len(), 1, "one session for ten viewers");
    assert_eq!(server.children(), [], "no process is needed");
    let last = viewers.pop().unwrap();
    drop(viewers);
    let watcher = Watcher::on_record(last, record);
    let nine_left = Instant::now();
    while nine_left.elapsed() < Duration::from_secs(2) {
        watcher.wait_more(10);
    }
    watcher.finish().assert_lossless(100);
    let left = Instant::now();
    assert_closes_in_time(left, "the session at the bridge ends", || mock.playing(GUID) == 0);
    assert!(mock.played(GUID)[0].torn_down, "it was not torn down");
    wait_for("the connection is closed", PATIENCE, || (mock.open() == 0).then_some(()));
    // … and the next one starts it again.
    assert!(Rtsp::play_tcp(&server, PATH).frame(PATIENCE).is_some());
    assert_eq!(mock.played(GUID).len(), 2);
    let told: Vec<_> = server.log_lines().into_iter().filter(|line| line.contains("nativePull")).collect();
    assert_eq!(told.len(), 1, "said once per pattern: {told:#?}");
}

#[test]
fn in_front_of_gst_rtsp_server_it_is_the_same() {
    if !ours_or_say_skipped("a runOnDemand that only copies is served by a pull") {
        return;
    }
    let camera = GstCamera::start(media::h264_two_minutes(), &[GUID]);
    let server = relay(camera.port, "");
    let viewers: Vec<Rtsp> = (0..10)
        .map(|_| {
            let mut viewer = Rtsp::play_tcp(&server, PATH);
            (0..30).for_each(|_| assert!(viewer.frame(PATIENCE).is_some()));
            viewer
        })
        .collect();
    assert_eq!(camera.count("play"), 1, "one session for ten viewers");
    drop(viewers);
    assert_closes_in_time(Instant::now(), "the session ends", || camera.count("teardown") == 1);
    wait_for("the connection is closed", PATIENCE, || {
        (camera.count("closed") == camera.count("connected")).then_some(())
    });
    assert_eq!(camera.count("play"), 1);
}

/// The id of the one ffmpeg that runs for the server.
#[track_caller]
fn the_ffmpeg(server: &Server) -> u32 {
    match &server.children()[..] {
        [(id, command)] if command.contains("ffmpeg") => *id,
        children => panic!("one ffmpeg was expected, there are {children:?}"),
    }
}

#[test]
fn with_the_native_pull_off_ffmpeg_does_it_and_is_kept_in_order() {
    let mock = Mock::start(&format!("only {GUID}\ntracks h264"));
    let globals = if crate::support::server::is_ours() { "engine:\n  nativePull: no\n" } else { "" };
    let server = relay(mock.port, globals);
    let play = || {
        let mut viewer = Rtsp::play_tcp(&server, PATH);
        (0..30).for_each(|_| assert!(viewer.frame(PATIENCE).is_some()));
        viewer
    };
    let mut viewers: Vec<Rtsp> = (0..10).map(|_| play()).collect();
    let first = the_ffmpeg(&server);
    assert_eq!(mock.playing(GUID), 1, "one session for ten viewers");

    assert!(Command::new("kill").args(["-9", &first.to_string()]).status().unwrap().success());
    for viewer in &mut viewers {
        assert!(viewer.closed_within(PATIENCE), "the stream is gone, and with it its viewers");
    }
    let viewer = play();
    let second = the_ffmpeg(&server);
    assert_ne!(second, first, "another one has taken its place, and nothing is left of the first");

    drop(viewer);
    let left = Instant::now();
    assert_closes_in_time(left, "ffmpeg is gone", || server.children().is_empty());
    wait_for("the bridge has no client", PATIENCE, || (mock.open() == 0).then_some(()));
}
