//! What a real publisher sends is what real readers get: packet for packet, over TCP and UDP.

use crate::support::{
    Server,
    media::{self, Clip, FPS},
    scratch_dir, tools, wait_for,
};

/// A reader that is there for 3 s has at least this many pictures, wherever it came in.
const PICTURES_MIN: usize = 2 * FPS;
const READ_SECONDS: &str = "3";

fn three_ffmpeg_readers_and_gstreamer_get_the_packets(clip: &Clip, publish: &str, read: &str) {
    let server = Server::start();
    let dir = scratch_dir("read");
    let lines_at_start = server.log_lines().len();
    let _publisher = tools::ffmpeg_publish(&server, "cam", &clip.file, publish);
    server.wait_live("cam");

    let sums: Vec<_> = (0..3).map(|n| dir.join(format!("reader{n}"))).collect();
    let readers: Vec<_> = sums
        .iter()
        .map(|out| tools::ffmpeg_framemd5(&server, "cam", clip.codec, read, READ_SECONDS, out))
        .collect();
    let elementary = dir.join("gstreamer");
    let gstreamer =
        tools::gstreamer_video(&server, "cam", clip.codec, read, PICTURES_MIN as u32 + 2, &elementary);

    for (n, (reader, out)) in readers.into_iter().zip(&sums).enumerate() {
        let ended = reader.ended();
        ended.assert_success();
        let [video, audio] = media::framemd5(out);
        media::assert_run_of(&clip.video, &video, PICTURES_MIN, &format!("ffmpeg {n}, video"));
        media::assert_run_of(&clip.audio, &audio, 2 * 45, &format!("ffmpeg {n}, audio"));
    }
    // Its exit code tells nothing: at its own end it may find the server gone first. What it wrote does.
    let said = gstreamer.ended().stderr;
    let video = media::elementary_framemd5(&elementary, clip.codec);
    media::assert_run_of(&clip.video, &video, PICTURES_MIN, &format!("GStreamer ({said})"));
    server.assert_no_warning_since(lines_at_start);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn h264_with_b_frames_and_aac_over_tcp_arrives_unchanged() {
    three_ffmpeg_readers_and_gstreamer_get_the_packets(media::h264_aac(), "tcp", "tcp");
}

#[test]
fn h264_with_b_frames_and_aac_over_udp_arrives_unchanged() {
    three_ffmpeg_readers_and_gstreamer_get_the_packets(media::h264_aac(), "udp", "udp");
}

#[test]
fn h265_and_opus_over_tcp_arrives_unchanged() {
    three_ffmpeg_readers_and_gstreamer_get_the_packets(media::h265_opus(), "tcp", "tcp");
}

#[test]
fn h265_and_opus_over_udp_arrives_unchanged() {
    three_ffmpeg_readers_and_gstreamer_get_the_packets(media::h265_opus(), "udp", "udp");
}

#[test]
fn a_udp_publisher_is_read_over_tcp_and_a_tcp_publisher_over_udp() {
    three_ffmpeg_readers_and_gstreamer_get_the_packets(media::h264_aac(), "udp", "tcp");
    three_ffmpeg_readers_and_gstreamer_get_the_packets(media::h264_aac(), "tcp", "udp");
}

#[test]
fn mpv_plays_h264_and_h265() {
    for clip in [media::h264_aac(), media::h265_opus()] {
        let server = Server::start();
        let dir = scratch_dir("mpv");
        let _publisher = tools::ffmpeg_publish(&server, "cam", &clip.file, "tcp");
        server.wait_live("cam");
        tools::mpv_pictures(&server, "cam", 50, &dir).ended().assert_success();
        let pictures = std::fs::read_dir(&dir).unwrap().count();
        assert!(pictures >= 40, "mpv showed {pictures} pictures of 50 ({})", clip.codec);
        std::fs::remove_dir_all(dir).unwrap();
    }
}

#[test]
fn url_spellings_of_real_clients_reach_the_same_path() {
    let server = Server::start();
    let camera = crate::support::Camera::publish(&server, "cam", Default::default());
    camera.wait_frames(1);
    for spelling in ["cam", "cam?token=abc", "cam?a=1&b=2"] {
        let mut watcher = crate::support::Rtsp::connect(&server);
        watcher.setup_all_tcp(spelling);
        assert_eq!(watcher.play().status, 200, "{spelling}");
        let mut flow = crate::support::Flow::of(&camera);
        flow.read(&mut watcher, 20);
        flow.assert_lossless(20);
    }
    if crate::support::ours_or_say_skipped("a trailing slash in DESCRIBE is harmless") {
        let mut client = crate::support::Rtsp::connect(&server);
        client.setup_all_tcp("cam/");
        assert_eq!(client.play().status, 200);
        assert!(client.frame(crate::support::PATIENCE).is_some());
    }
}

#[test]
fn the_log_names_publisher_reader_and_listeners_as_mediamtx_does() {
    use crate::support::PATIENCE;
    let server = Server::start();
    server.wait_log(
        &[" INF ", "started with listeners on ", "(TCP/RTSP)", "(UDP/RTP)", "(UDP/RTCP)"],
        PATIENCE,
    );
    let camera = crate::support::Camera::publish(&server, "cam", Default::default());
    camera.wait_frames(1);
    server.wait_log(&[" INF [RTSP] [session ", "] is publishing to path 'cam'"], PATIENCE);
    server.wait_log(&[" INF [path cam] stream is available and online, 1 track (H264)"], PATIENCE);
    let mut reader = crate::support::Rtsp::play_tcp(&server, "cam");
    let me = reader.local();
    server.wait_log(&[&format!(" INF [RTSP] [conn {me}] opened")], PATIENCE);
    server.wait_log(&["INF [RTSP] [session ", &format!("] created by {me}")], PATIENCE);
    server.wait_log(
        &["INF [RTSP] [session ", "] is reading from path 'cam', with TCP, 1 track (H264)"],
        PATIENCE,
    );
    assert_eq!(reader.teardown().status, 200);
    drop(reader);
    server.wait_log(&[&format!(" INF [RTSP] [conn {me}] closed: ")], PATIENCE);
    wait_for("a session is destroyed", PATIENCE, || {
        server
            .log_lines()
            .iter()
            .any(|l| l.contains("[RTSP] [session ") && l.contains("] destroyed: "))
            .then_some(())
    });
}
