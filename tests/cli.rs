//! The command line: what an operator types, reads, and scripts against.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::support::{
    PATIENCE, Rtsp, Server, ours_or_say_skipped, scratch_dir, server, tools,
    tools::{Ended, Tool},
    wait_for,
};

fn run(args: &[&str]) -> Ended {
    Tool::run(server::binary().to_str().unwrap(), args).ended()
}

fn config(text: &str) -> PathBuf {
    let file = scratch_dir("cli").join("config.yml");
    fs::write(&file, text).unwrap();
    file
}

fn check(text: &str) -> Ended {
    run(&["--check", config(text).to_str().unwrap()])
}

#[test]
fn version_is_one_line_and_success() {
    let ended = run(&["--version"]);
    ended.assert_success();
    let said = ended.stdout.trim();
    assert!(said.lines().count() == 1 && said.contains('.'), "{said:?}");
    if server::is_ours() {
        assert_eq!(said, format!("corecast {}", env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn help_names_every_flag() {
    if !ours_or_say_skipped("help_names_every_flag") {
        return;
    }
    let ended = run(&["--help"]);
    ended.assert_success();
    for flag in ["--demo", "--check", "--version", "--help", "config"] {
        assert!(ended.stdout.to_lowercase().contains(flag), "{flag} is not in\n{}", ended.stdout);
    }
}

#[test]
fn an_unknown_flag_is_refused() {
    let ended = run(&["--frobnicate"]);
    assert!(!ended.status.success());
    assert!((ended.stdout + &ended.stderr).contains("--frobnicate"));
}

#[test]
fn check_accepts_a_good_file() {
    if !ours_or_say_skipped("check_accepts_a_good_file") {
        return;
    }
    check("rtspAddress: 127.0.0.1:18554\npaths:\n  cam:\n  all_others:\n").assert_success();
}

#[test]
fn check_accepts_the_file_we_ship() {
    if !ours_or_say_skipped("check_accepts_the_file_we_ship") {
        return;
    }
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/corecast.yml");
    run(&["--check", shipped.to_str().unwrap()]).assert_success();
}

#[test]
fn check_refuses_a_bad_file_and_says_where() {
    if !ours_or_say_skipped("check_refuses_a_bad_file_and_says_where") {
        return;
    }
    for (text, line_column, word) in [
        ("rtspAddress: :8554\nrtspAdress: :8554\n", "2:1", "rtspAdress"),
        ("paths:\n  cam:\n    overridePubliser: no\n", "3:5", "overridePubliser"),
        ("readTimeout: soon\n", "1:14", "soon"),
        ("logLevel: shout\n", "1:11", "shout"),
        ("paths:\n  cam: [\n", "", "config.yml:"),
    ] {
        let ended = check(text);
        assert!(!ended.status.success(), "accepted: {text}");
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert!(
            said.contains(&format!("config.yml:{line_column}")),
            "no config.yml:{line_column} in {said:?}"
        );
        assert!(said.contains(word), "no {word:?} in {said:?}");
    }
}

#[test]
fn check_refuses_a_file_that_is_not_there() {
    if !ours_or_say_skipped("check_refuses_a_file_that_is_not_there") {
        return;
    }
    let ended = run(&["--check", "/nowhere/corecast.yml"]);
    assert!(!ended.status.success());
    assert!((ended.stdout + &ended.stderr).contains("/nowhere/corecast.yml"));
}

#[test]
fn check_warns_once_for_each_mediamtx_key_that_is_not_served_yet() {
    if !ours_or_say_skipped("check_warns_once_for_each_mediamtx_key_that_is_not_served_yet") {
        return;
    }
    let ended = check("rtmp: yes\nrtmpAddress: :11935\nsrt: no\npaths:\n  all_others:\n");
    ended.assert_success();
    let said = format!("{}{}", ended.stdout, ended.stderr);
    for key in ["rtmp", "rtmpAddress"] {
        let whole_word = |line: &&str| line.split(|c: char| !c.is_alphanumeric()).any(|word| word == key);
        assert_eq!(said.lines().filter(whole_word).count(), 1, "warnings about {key} in\n{said}");
    }
}

#[test]
fn the_server_refuses_to_start_on_a_bad_file() {
    let file = config("rtspAdress: :8554\n");
    let ended = run(&[file.to_str().unwrap()]);
    assert!(!ended.status.success());
    assert!((ended.stdout + &ended.stderr).contains("rtspAdress"));
}

#[test]
fn a_taken_port_is_named_and_ends_the_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let file = config(&format!(
        "rtspAddress: {address}\nrtspTransports: [tcp]\nrtmp: no\nhls: no\nwebrtc: no\nsrt: no\nmoq: no\npaths:\n  all_others:\n"
    ));
    let ended = run(&[file.to_str().unwrap()]);
    assert!(!ended.status.success());
    let said = ended.stdout + &ended.stderr;
    assert!(said.contains(&address.port().to_string()), "{said}");
}

#[test]
fn sigterm_and_sigint_end_the_server_at_once_and_cleanly() {
    use std::process::Command;
    for signal in ["-TERM", "-INT"] {
        let (port, udp) = server::free_ports();
        let file = config(&format!(
            "rtspAddress: 127.0.0.1:{port}\nrtpAddress: 127.0.0.1:{udp}\nrtcpAddress: 127.0.0.1:{}\n\
             rtmp: no\nhls: no\nwebrtc: no\nsrt: no\nmoq: no\npaths:\n  all_others:\n",
            udp + 1
        ));
        let tool = Tool::run(server::binary().to_str().unwrap(), [file]);
        wait_for("it listens", PATIENCE, || TcpStream::connect(("127.0.0.1", port)).ok());
        let idle = TcpStream::connect(("127.0.0.1", port)).unwrap();
        assert!(Command::new("kill").args([signal, &tool.pid().to_string()]).status().unwrap().success());
        tool.ended_within(Duration::from_secs(15)).assert_success();
        drop(idle);
    }
}

/// `--demo` on a free port, through the environment, as an operator may set it.
fn demo() -> (Tool, String) {
    let (port, udp) = server::free_ports();
    let tool = Tool::run_with_env(
        server::binary().to_str().unwrap(),
        ["--demo"],
        &[
            ("MTX_RTSPADDRESS", format!("127.0.0.1:{port}")),
            ("MTX_RTPADDRESS", format!("127.0.0.1:{udp}")),
            ("MTX_RTCPADDRESS", format!("127.0.0.1:{}", udp + 1)),
        ],
    );
    wait_for("the demo listens", PATIENCE, || TcpStream::connect(("127.0.0.1", port)).ok());
    (tool, format!("rtsp://127.0.0.1:{port}/demo"))
}

#[test]
fn demo_shows_both_tracks_and_decodes_cleanly_over_tcp_and_udp() {
    if !ours_or_say_skipped("demo_shows_both_tracks_and_decodes_cleanly_over_tcp_and_udp") {
        return;
    }
    let (mut server, url) = demo();
    for transport in ["tcp", "udp"] {
        let probe = Tool::run(
            "ffprobe",
            [
                "-v",
                "error",
                "-rtsp_transport",
                transport,
                "-show_entries",
                "stream=codec_name",
                "-of",
                "csv=p=0",
                &url,
            ],
        )
        .ended();
        probe.assert_success();
        assert_eq!(probe.stdout.split_whitespace().collect::<Vec<_>>(), ["h264", "opus"], "{transport}");
        let decode = tools::ffmpeg_decode(&url, transport, "50").ended();
        decode.assert_success();
        assert_eq!(decode.stderr, "", "{transport}: ffmpeg complains while decoding");
    }
    assert!(server.is_running());
}

/// The clip is 10 s long: 12 s go over its seam wherever they start.
#[test]
fn demo_loops_without_a_seam() {
    if !ours_or_say_skipped("demo_loops_without_a_seam") {
        return;
    }
    let server = Server::with("", "  demo:\n    source: demo\n");
    server.wait_live("demo");
    let mut reader = Rtsp::play_tcp(&server, "demo");
    let mut packets = [Vec::new(), Vec::new()];
    while packets[1].len() < 12 * 50 || packets[0].len() < 12 * 25 {
        let frame = reader.frame(PATIENCE).expect("the demo ended");
        if frame.channel.is_multiple_of(2) {
            let rtp = &frame.data;
            let sequence = u16::from_be_bytes([rtp[2], rtp[3]]);
            let timestamp = u32::from_be_bytes([rtp[4], rtp[5], rtp[6], rtp[7]]);
            packets[usize::from(frame.channel / 2)].push((sequence, timestamp));
        }
    }
    for (track, packets, steps) in [("video", &packets[0], [0, 3_600]), ("audio", &packets[1], [960, 960])] {
        for pair in packets.windows(2) {
            assert_eq!(pair[1].0, pair[0].0.wrapping_add(1), "{track}: a packet is missing");
            let step = pair[1].1.wrapping_sub(pair[0].1);
            assert!(steps.contains(&step), "{track}: the time jumps by {step} at {}", pair[1].0);
        }
    }
    let span = |track: &[(u16, u32)]| track.last().unwrap().1.wrapping_sub(track[0].1);
    assert!(span(&packets[0]) > 11 * 90_000 && span(&packets[1]) > 11 * 48_000, "not over the seam");
}
