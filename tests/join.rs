//! A reader sees a picture at once: it starts at the newest keyframe, however long ago that was.

use std::time::Duration;

use crate::support::{
    Camera, CameraPlan, Flow, PATIENCE, Rtsp, Server,
    media::{self, FPS},
    ours_or_say_skipped, scratch_dir, tools,
};

/// A keyframe every 10 s.
const LONG_GOP: CameraPlan = CameraPlan { fps: 25, gop: 250, frame_bytes: 3_000, key_bytes: 12_000 };

/// The NAL unit type that a packet carries or is a piece of, and whether it is the first of a fragmented one.
fn nal_type(rtp: &[u8]) -> (u8, bool) {
    match rtp[12] & 31 {
        28 => (rtp[13] & 31, rtp[13] & 0x80 != 0),
        other => (other, true),
    }
}

fn video(client: &mut Rtsp) -> Vec<u8> {
    loop {
        let frame = client.frame(PATIENCE).expect("the stream ended");
        if frame.channel == 0 {
            return frame.data;
        }
    }
}

#[test]
fn joining_in_the_middle_of_a_10_s_gop_starts_at_its_keyframe() {
    if !ours_or_say_skipped("joining_in_the_middle_of_a_10_s_gop_starts_at_its_keyframe") {
        return;
    }
    let server = Server::start();
    let camera = Camera::publish(&server, "cam", LONG_GOP);
    camera.wait_frames(60);
    let mut reader = Rtsp::play_tcp(&server, "cam");
    let frames_at_join = camera.frames();
    let mut flow = Flow::of(&camera);
    for (n, wanted) in [7, 8, 5].into_iter().enumerate() {
        let packet = video(&mut reader);
        assert_eq!(nal_type(&packet), (wanted, true), "packet {n}: parameter sets, then the picture");
        flow.take_rtp(&packet);
    }
    assert_eq!(flow.first, Some(0), "the newest keyframe is the first frame of all");
    // All of the GOP follows, without a hole into the live part.
    while camera.frames() < frames_at_join + 50 {
        flow.take_rtp(&video(&mut reader));
    }
    let sent = camera.record().packets();
    while flow.next < sent {
        flow.take_rtp(&video(&mut reader));
    }
    flow.assert_lossless(60 * 3);
}

#[test]
fn ffmpeg_joining_in_the_middle_of_a_10_s_gop_gets_it_whole_and_decodes_it_cleanly() {
    if !ours_or_say_skipped("ffmpeg_joining_in_the_middle_of_a_10_s_gop_gets_it_whole_and_decodes_it_cleanly")
    {
        return;
    }
    for transport in ["tcp", "udp"] {
        let server = Server::start();
        let clip = media::h264_long_gop();
        let dir = scratch_dir("join");
        let _publisher = tools::ffmpeg_publish(&server, "cam", &clip.file, "tcp");
        server.wait_live("cam");
        std::thread::sleep(Duration::from_secs(3));
        let out = dir.join("sums");
        let sums = tools::ffmpeg_framemd5(&server, "cam", clip.codec, transport, "4", &out);
        let decode = tools::ffmpeg_decode(&server.url("cam"), transport, "50").ended();
        decode.assert_success();
        assert_eq!(decode.stderr, "", "{transport}: ffmpeg complains while decoding");
        sums.ended().assert_success();
        let [video, _] = media::framemd5(&out);
        let first = media::assert_run_of(&clip.video, &video, 3 * FPS, transport);
        assert_eq!(first, 0, "{transport}: the first packet is the keyframe from before the join");
        std::fs::remove_dir_all(dir).unwrap();
    }
}

#[test]
fn rtp_info_announces_the_first_packet() {
    let server = Server::start();
    let camera = Camera::publish(&server, "cam", CameraPlan::default());
    camera.wait_frames(30);
    // MediaMTX knows them only once the stream has had a reader; we always do.
    if !crate::support::server::is_ours() {
        let mut earlier = Rtsp::play_tcp(&server, "cam");
        Flow::of(&camera).read(&mut earlier, 20);
    }
    let mut reader = Rtsp::connect(&server);
    reader.setup_all_tcp("cam");
    let answer = reader.play();
    let info = answer.header("RTP-Info").expect("RTP-Info").to_owned();
    let field = |name: &str| {
        let value = info.split([';', ',']).find_map(|part| part.trim().strip_prefix(name));
        value.unwrap_or_else(|| panic!("no {name} in {info}")).parse::<u32>().unwrap()
    };
    assert!(info.contains("url=rtsp://") && info.contains("/cam/"), "{info}");
    let first = video(&mut reader);
    let sequence = u32::from(u16::from_be_bytes([first[2], first[3]]));
    let timestamp = u32::from_be_bytes([first[4], first[5], first[6], first[7]]);
    if crate::support::server::is_ours() {
        assert_eq!((field("seq="), field("rtptime=")), (sequence, timestamp), "{info}");
    } else {
        // MediaMTX names the last packet that went out before, and extrapolates the time.
        assert!((sequence as u16).wrapping_sub(field("seq=") as u16) < 20, "{info}, first is {sequence}");
        assert!(
            field("rtptime=").wrapping_sub(timestamp).wrapping_add(90_000) < 180_000,
            "{info}, first is at {timestamp}"
        );
    }
}

#[test]
fn without_gop_cache_a_reader_waits_for_the_next_keyframe() {
    if !ours_or_say_skipped("without_gop_cache_a_reader_waits_for_the_next_keyframe") {
        return;
    }
    let server = Server::with("", "  cam:\n    gopCache: false\n");
    let plan = CameraPlan { gop: 75, ..LONG_GOP };
    let camera = Camera::publish(&server, "cam", plan);
    camera.wait_frames(10);
    let mut reader = Rtsp::play_tcp(&server, "cam");
    let mut flow = Flow::of(&camera);
    let packet = video(&mut reader);
    assert_eq!(nal_type(&packet).0, 7, "it starts with a keyframe's parameter sets");
    flow.take_rtp(&packet);
    let keys = camera.keys();
    assert!(
        keys.contains(&flow.first.unwrap()) && flow.first != Some(0),
        "it starts at a later keyframe: {keys:?}"
    );
    flow.read(&mut reader, 100);
    flow.assert_lossless(100);
}

#[test]
fn a_reader_that_was_there_first_gets_the_stream_from_its_first_packet() {
    let server = Server::start();
    let mut first = crate::support::camera::announce(&server, "cam");
    // Published, not yet sending.
    let mut reader = Rtsp::play_tcp(&server, "cam");
    let url = first.url("cam");
    assert_eq!(first.request("GET_PARAMETER", &url, &[], "").status, 200);
    let camera = Camera::from(first, CameraPlan::default());
    let mut flow = Flow::of(&camera);
    flow.read(&mut reader, 50);
    flow.assert_lossless(50);
    assert_eq!(flow.first, Some(0));
}
