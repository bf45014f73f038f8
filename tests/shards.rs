//! Two shards: wherever a connection lands, it is served by the shard of its path, and nothing is lost on the way.

use std::io::Write;

use crate::support::{Camera, CameraPlan, Rtsp, Server, flow::Watcher, ours_or_say_skipped};

const STREAMS: usize = 6;
const READERS: usize = 4;

#[test]
fn many_connections_over_two_shards_are_all_served_and_lose_nothing() {
    if !ours_or_say_skipped("many_connections_over_two_shards_are_all_served_and_lose_nothing") {
        return;
    }
    let mut server = Server::with("engine:\n  cores: [0, 1]\n", "  all_others:\n");
    let cameras: Vec<_> =
        (0..STREAMS).map(|n| Camera::publish(&server, &format!("cam{n}"), CameraPlan::default())).collect();
    let mut watchers = Vec::new();
    for (n, camera) in cameras.iter().enumerate() {
        camera.wait_frames(2);
        for _ in 0..READERS {
            watchers.push(Watcher::start(&server, &format!("cam{n}"), camera));
        }
    }
    // Connections that die in the middle of a hand-over take nobody with them.
    for n in 0..60 {
        let mut client = Rtsp::connect(&server);
        let url = server.url(&format!("cam{}", n % STREAMS));
        let request = format!("DESCRIBE {url} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n");
        let cut = if n % 3 == 0 { request.len() } else { request.len() - 1 - n % 20 };
        client.send_raw(&request.as_bytes()[..cut]);
        drop(client); // the answer is not waited for
    }
    for watcher in &watchers {
        watcher.wait_more(100);
    }
    assert_eq!(watchers.len(), STREAMS * READERS);
    for watcher in watchers {
        watcher.finish().assert_lossless(100);
    }
    assert!(cameras.iter().all(|camera| !camera.was_closed()));
    server.assert_alive();
}

#[test]
fn bytes_sent_right_behind_a_request_survive_the_hand_over() {
    if !ours_or_say_skipped("bytes_sent_right_behind_a_request_survive_the_hand_over") {
        return;
    }
    let server = Server::with("engine:\n  cores: [0, 1]\n", "  all_others:\n");
    let camera = Camera::publish(&server, "cam", CameraPlan::default());
    camera.wait_frames(2);
    for n in 0..20 {
        let mut client = Rtsp::connect(&server);
        let url = server.url("cam");
        let mut burst = Vec::new();
        for cseq in 1..=5 {
            let method = if cseq == 1 { "DESCRIBE" } else { "OPTIONS" };
            write!(burst, "{method} {url} RTSP/1.0\r\nCSeq: {cseq}\r\n\r\n").unwrap();
        }
        assert!(client.send_raw(&burst));
        for cseq in 1..=5 {
            let answer = client.response();
            assert_eq!(
                (answer.status, answer.header("CSeq")),
                (200, Some(cseq.to_string().as_str())),
                "client {n}"
            );
        }
    }
}
