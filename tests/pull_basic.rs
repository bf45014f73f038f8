//! One relay pulls from another: over every transport it comes to the same packets, and a source that comes back within
//! the grace goes on where it stopped.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::support::{
    Camera, CameraPlan, PATIENCE, Rtsp, Server, flow::Watcher, rtsp::Item, tls::Identity, wait_for,
};

const PLAN: CameraPlan = CameraPlan { fps: 25, gop: 25, frame_bytes: 8_000, key_bytes: 30_000 };
/// Some four seconds of it.
const PACKETS: usize = 600;

fn fingerprint(identity: &Identity) -> String {
    Sha256::digest(&identity.certificate).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_relay_pulls_from_another_over_every_transport() {
    let identity = Identity::make();
    let upstream = Server::with(&identity.globals("optional"), "  all_others:\n");
    let camera = Camera::publish(&upstream, "cam", PLAN);
    let (plain, tls) = (upstream.url("cam"), upstream.tls_url("cam"));
    let paths = format!(
        "  tcp:\n    source: {plain}\n    rtspTransport: tcp\n\
         \x20 udp:\n    source: {plain}\n    rtspTransport: udp\n\
         \x20 any:\n    source: {plain}\n\
         \x20 tls:\n    source: {tls}\n    sourceFingerprint: {}\n\
         \x20 forged:\n    source: {tls}\n    sourceFingerprint: {}\n",
        fingerprint(&identity),
        "00".repeat(32),
    );
    let mut server = Server::with_api("", &paths);
    let watchers: Vec<_> = ["tcp", "udp", "any", "tls"]
        .into_iter()
        .map(|path| {
            server.wait_live(path);
            (path, Watcher::start(&server, path, &camera))
        })
        .collect();
    for (_, watcher) in &watchers {
        watcher.wait_more(PACKETS);
    }
    for (path, watcher) in watchers {
        let flow = watcher.finish();
        let missing: usize = flow.holes.iter().map(|(before, after)| after - before - 1).sum();
        // Datagrams are lost where a machine under load does not get to read them; what came is in order all the same.
        let is_udp = ["udp", "any"].contains(&path);
        assert!(is_udp || missing == 0, "{path}: {missing} packets are missing: {:?}", flow.holes);
    }
    let line = server.wait_log(&["[path forged] [RTSP source]", "fingerprint"], PATIENCE);
    assert!(line.contains(" ERR "), "{line}");
    // Each is one session, however many read.
    let sessions =
        upstream.log_lines().into_iter().filter(|line| line.contains("is reading from path 'cam'"));
    assert_eq!(sessions.count(), 4);
    server.assert_alive();
}

#[test]
fn readers_outlive_a_source_that_comes_back_within_the_grace() {
    let upstream = Server::start();
    let camera = Camera::publish(&upstream, "cam", PLAN);
    let source = format!("    source: {}\n    rtspTransport: tcp\n", upstream.url("cam"));
    let paths = format!("  kept:\n{source}    sourceReconnectGrace: 30s\n  lost:\n{source}");
    let mut server = Server::with_api("", &paths);
    server.wait_live("kept");
    server.wait_live("lost");
    let mut kept = Rtsp::play_tcp(&server, "kept");
    let lost = Rtsp::play_tcp(&server, "lost");
    let mut last = rtp(&mut kept);
    for _ in 0..50 {
        last = rtp(&mut kept);
    }
    drop(camera);
    server.wait_log(&["[path kept] [RTSP source]", "ERR"], PATIENCE);
    assert!({ lost }.closed_within(PATIENCE), "without grace, the reader is closed");
    let _camera = Camera::publish(&upstream, "cam", PLAN);
    let give_up = std::time::Instant::now() + PATIENCE;
    for _ in 0..200 {
        let next = rtp_until(&mut kept, give_up);
        assert_eq!(next.0, last.0, "another SSRC");
        assert_eq!(next.1, last.1.wrapping_add(1), "a hole in the sequence");
        last = next;
    }
    // Its time went on too: a pause of a few seconds, and not the new camera's own clock.
    assert!(!server.log_text().contains("[path kept] stream is not available"), "{}", server.log_text());
    server.wait_live("lost");
    server.assert_alive();
}

/// SSRC and sequence number of the next video packet.
fn rtp(client: &mut Rtsp) -> (u32, u16) {
    rtp_until(client, std::time::Instant::now() + PATIENCE)
}

fn rtp_until(client: &mut Rtsp, until: std::time::Instant) -> (u32, u16) {
    loop {
        match client.item(until) {
            Item::Frame(frame) if frame.channel == 0 => {
                let word = |at: usize| u32::from_be_bytes(frame.data[at..at + 4].try_into().unwrap());
                return (word(8), word(0) as u16);
            }
            Item::Frame(_) | Item::Response(_) => {}
            Item::Closed => panic!("the reader was closed"),
            Item::TimedOut => panic!("no packet"),
        }
    }
}

#[test]
fn sources_begin_and_end_with_their_configuration_and_say_so() {
    let upstream = Server::start();
    let _camera = Camera::publish(&upstream, "cam", PLAN);
    let source = |path: &str| format!("  cam:\n    source: {}\n", upstream.url(path));
    let mut server = Server::with_api("", &source("absent"));
    let line = server.wait_log(&["[path cam] [RTSP source]", "404"], PATIENCE);
    assert!(line.contains(" ERR "), "{line}");
    server.rewrite("api: yes\nmetrics: yes\n", &source("cam"));
    server.wait_live("cam");
    server.rewrite("api: yes\nmetrics: yes\n", "  other:\n");
    server.wait_log(&["[path cam] [RTSP source] stopped: path configuration removed"], PATIENCE);
    wait_for("the session upstream is gone", PATIENCE, || {
        let log = upstream.log_text();
        let opened = log.matches("is reading from path 'cam'").count();
        (opened > 0 && log.matches("] destroyed: ").count() >= opened).then_some(())
    });
    // Nothing is left that keeps it busy.
    let before = server.cpu();
    std::thread::sleep(Duration::from_secs(2));
    let spent = server.cpu() - before;
    assert!(spent < Duration::from_millis(500), "{spent:?} of CPU in 2 s of rest");
    server.assert_alive();
}
