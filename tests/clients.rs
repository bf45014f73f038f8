//! Each client of the field is answered as it needs, request by request, from the recorded habits in
//! `fixtures/clients/`.

use std::{fs, path::Path};

use crate::support::{Server, media, tools, transcript::Replay};

fn fixture(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/clients").join(name);
    fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// The client plays a stream with a video and an audio track.
fn plays(name: &str, answers: usize) {
    let server = Server::start();
    let _publisher = tools::ffmpeg_publish(&server, "cam", &media::h264_aac().file, "tcp");
    server.wait_live("cam");
    let replay = Replay::run(&server, name, &fixture(name), "cam");
    assert_eq!(replay.answers, answers, "answers checked in {name}");
}

/// The client publishes, and another reader sees its pictures.
fn publishes(name: &str, answers: usize) {
    let server = Server::start();
    let replay = Replay::run(&server, name, &fixture(name), "pub");
    assert_eq!(replay.answers, answers, "answers checked in {name}");
    server.wait_gone("pub");
}

#[test]
fn ffmpeg_plays_over_tcp() {
    plays("ffmpeg-play-tcp.txt", 5);
}

#[test]
fn ffmpeg_plays_over_udp() {
    plays("ffmpeg-play-udp.txt", 6);
}

#[test]
fn ffmpeg_publishes_over_tcp() {
    publishes("ffmpeg-publish-tcp.txt", 5);
}

#[test]
fn ffmpeg_publishes_over_udp() {
    publishes("ffmpeg-publish-udp.txt", 5);
}

#[test]
fn gstreamer_plays_over_tcp() {
    plays("gstreamer-play-tcp.txt", 6);
}

#[test]
fn gstreamer_plays_over_udp() {
    plays("gstreamer-play-udp.txt", 7);
}

#[test]
fn gstreamer_publishes_over_tcp() {
    publishes("gstreamer-publish-tcp.txt", 5);
}

#[test]
fn vlc_plays_over_tcp() {
    plays("live555-vlc-play-tcp.txt", 6);
}

#[test]
fn vlc_plays_over_udp() {
    plays("live555-vlc-play-udp.txt", 6);
}

#[test]
fn go2rtc_pulls() {
    plays("go2rtc-pull.txt", 5);
}

#[test]
fn mediamtx_pulls() {
    plays("mediamtx-pull-tcp.txt", 5);
}

#[test]
fn every_recorded_client_has_a_test() {
    let tests = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients.rs")).unwrap();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/clients");
    let names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.len() >= 11, "{names:?}");
    for name in names {
        assert!(
            tests.contains(&format!("(\"{name}\", ")),
            "tests/fixtures/clients/{name} is replayed by no test"
        );
    }
}
