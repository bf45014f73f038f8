//! The mock cameras are what real clients take for cameras: else nothing that a relay does with them proves anything.

use std::{
    net::{Ipv4Addr, TcpStream},
    time::{Duration, Instant},
};

use crate::support::{
    Mock, PATIENCE,
    tools::{Tool, ffmpeg},
    wait_for,
};

/// ffprobe's view of the streams: `h264,video`, …
fn probe(url: &str, transport: &str) -> Vec<String> {
    let args = [
        "-v",
        "error",
        "-analyzeduration",
        "1000000",
        "-rtsp_transport",
        transport,
        "-show_entries",
        "stream=codec_name,codec_type",
        "-of",
        "csv=p=0",
        url,
    ];
    let ended = Tool::run("ffprobe", args).ended();
    ended.assert_success();
    ended.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn ffprobe_gets_through_every_kind_of_challenge_and_finds_every_track() {
    for (auth, login) in [
        ("auth basic", ""),
        ("auth md5\nprotect options", ""),
        ("auth md5\nqop", ""),
        ("auth basic md5", ""),
        ("auth md5 basic\nstale after 2", ""),
        ("auth md5", "login admin"),
    ] {
        let mock = Mock::start(&format!("tracks h264 aac\n{auth}\n{login}"));
        assert_eq!(probe(&mock.url("a/b"), "tcp"), ["h264,video", "aac,audio"], "{auth}");
        assert_eq!(mock.played("a/b").len(), 1);
        assert!(mock.asked().iter().any(|asked| asked.status == 401), "{auth}: it was never asked");
    }
    let mock = Mock::start("tracks h264 pcma backchannel metadata");
    assert_eq!(probe(&mock.url("cam"), "udp")[..2], ["h264,video", "pcm_alaw,audio"]);
    assert_eq!(mock.played("cam")[0].transport, "udp");
    let mock = Mock::start("tracks h264 opus\nudp refuse");
    assert_eq!(probe(&mock.url("cam"), "tcp"), ["h264,video", "opus,audio"]);
}

#[test]
fn ffmpeg_without_the_password_is_refused_and_told_what_is_not_there() {
    let mock = Mock::start("auth md5\nonly /live/a");
    for (url, why) in [
        (mock.bare_url("live/a"), "401"),
        (mock.url("live/a").replace("secret", "wrong"), "401"),
        (mock.url("live/b"), "404"),
    ] {
        let ended = ffmpeg(&["-i", &url, "-c", "copy", "-t", "1", "-f", "null", "-"]).ended();
        assert!(!ended.status.success() && ended.stderr.contains(why), "{}", ended.stderr);
    }
    assert!(mock.played("live/a").is_empty() && mock.played("live/b").is_empty());
}

#[test]
fn gstreamer_plays_over_udp_and_over_tcp() {
    let mock = Mock::start("auth md5\ntracks h264 aac");
    for transport in ["tcp", "udp"] {
        let pipeline = format!(
            "rtspsrc location={} protocols={transport} name=s s. ! application/x-rtp,media=video ! rtph264depay ! \
             video/x-h264,stream-format=byte-stream,alignment=au ! identity eos-after=30 ! fakesink",
            mock.url("cam")
        );
        Tool::run("gst-launch-1.0", ["-q"].into_iter().chain(pipeline.split_whitespace()))
            .ended()
            .assert_success();
        assert_eq!(mock.played("cam").last().unwrap().transport, transport);
    }
    assert!(mock.punches() > 0, "GStreamer opens firewalls");
    wait_for("both sessions end", PATIENCE, || (mock.playing("cam") == 0).then_some(()));
}

#[test]
fn what_ends_ends_and_what_is_silent_is_silent() {
    let decode = |mock: &Mock, more: &[&str]| {
        let start = Instant::now();
        let url = mock.url("cam");
        let head = ["-rtsp_transport", "tcp", "-analyzeduration", "1000000", "-i", &url, "-c", "copy"];
        let args = [&head[..], more, &["-f", "null", "-"]].concat();
        (ffmpeg(&args).ended(), start.elapsed())
    };
    let (_, took) = decode(&Mock::start("cut after 2s fin"), &[]);
    assert!(took >= Duration::from_secs(2), "ended after {took:?}");
    decode(&Mock::start("cut after 1s rst"), &[]);
    let (ended, took) = decode(&Mock::start("silent for 2s"), &["-frames:v", "10"]);
    ended.assert_success();
    assert!(took >= Duration::from_secs(2), "pictures after {took:?}");
    let mock = Mock::start("dribble\nvideo fps=10 gop=10 frame=300 key=900");
    decode(&mock, &["-frames:v", "10"]).0.assert_success();
    let mock = Mock::start("timeout 2 enforced");
    let (_, took) = decode(&mock, &["-t", "5"]);
    assert!(took >= Duration::from_secs(2));
}

#[test]
fn dead_cameras_are_dead() {
    let refuses = Mock::start("listen refuse");
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, refuses.port)).is_err());
    let black_hole = Mock::start("listen blackhole");
    let to = (Ipv4Addr::LOCALHOST, black_hole.port).into();
    let error = TcpStream::connect_timeout(&to, Duration::from_secs(2)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    let garbage = Mock::start("listen garbage");
    let ended = ffmpeg(&["-timeout", "2000000", "-i", &garbage.url("cam"), "-f", "null", "-"]).ended();
    assert!(!ended.status.success());
    let slow = Mock::start("accepts 5");
    let streams: Vec<_> =
        (0..6).map(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, slow.port)).unwrap()).collect();
    wait_for("all are let in", PATIENCE, || (slow.connections() == streams.len()).then_some(()));
    let at = slow.connected_at();
    assert!(at[5] - at[0] >= Duration::from_millis(900), "five a second: {:?}", at[5] - at[0]);
}
