//! RTSP over TLS: the same promises as without it, and what is only its own.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use rustls::pki_types::CertificateDer;

use crate::support::{
    Camera, CameraPlan, Flow, PATIENCE, Rtsp, Server,
    camera::announce_on,
    flow::Watcher,
    media::{self, FPS},
    ours_or_say_skipped, scratch_dir, server,
    tls::{self, Identity, Wire},
    tools::{self, Tool},
    wait_for,
};

/// 20 Mbps: kernel buffers fill soon when nobody reads.
const HEAVY: CameraPlan = CameraPlan { fps: 25, gop: 25, frame_bytes: 96_000, key_bytes: 200_000 };
const READ_SECONDS: &str = "3";
const PICTURES_MIN: usize = 2 * FPS;

fn publish_tls(server: &Server, path: &str, trusted: &CertificateDer<'static>, plan: CameraPlan) -> Camera {
    let mut client = Rtsp::connect_tls(server, trusted);
    let answer = announce_on(&mut client, path);
    assert_eq!(answer.status, 200, "RECORD {path}: {answer:?}");
    Camera::from(client, plan)
}

fn plain_port_is_closed(server: &Server) -> bool {
    TcpStream::connect(("127.0.0.1", server.port)).is_err()
}

#[test]
fn real_clients_publish_and_read_over_tls_and_get_every_picture() {
    let identity = Identity::make();
    let server = Server::with(&(identity.globals("optional") + "rtspTransports: [tcp]\n"), "  all_others:\n");
    let (clip, dir) = (media::h264_aac(), scratch_dir("tls"));
    let _encrypted = tools::ffmpeg_publish_to(&server.tls_url("safe"), &clip.file, "tcp");
    let _plain = tools::ffmpeg_publish(&server, "plain", &clip.file, "tcp");
    server.wait_live("safe");
    server.wait_live("plain");
    let readers = [server.tls_url("safe"), server.tls_url("plain"), server.url("safe")].map(|url| {
        let out = dir.join(url.replace(['/', ':'], "_"));
        (tools::ffmpeg_framemd5_of(&url, clip.codec, "tcp", READ_SECONDS, &out), out, url)
    });
    let elementary = dir.join("gstreamer");
    let frames = PICTURES_MIN as u32 + 2;
    let gstreamer =
        tools::gstreamer_video_of(&server.tls_url("safe"), clip.codec, "tcp", frames, &elementary);
    for (reader, out, url) in readers {
        reader.ended().assert_success();
        let [video, audio] = media::framemd5(&out);
        media::assert_run_of(&clip.video, &video, PICTURES_MIN, &format!("{url}, video"));
        media::assert_run_of(&clip.audio, &audio, 2 * 45, &format!("{url}, audio"));
    }
    let said = gstreamer.ended().stderr;
    let video = media::elementary_framemd5(&elementary, clip.codec);
    media::assert_run_of(&clip.video, &video, PICTURES_MIN, &format!("GStreamer ({said})"));
    let _ = fs::remove_dir_all(dir);
}

#[test]
fn the_customers_three_lines_encrypt_and_close_the_plain_port() {
    let identity = Identity::make();
    let server = Server::with(
        &format!(
            "encryption: \"yes\"\nserverKey: {}\nserverCert: {}\n",
            identity.key().display(),
            identity.cert().display()
        ),
        "  all_others:\n",
    );
    server.wait_log(
        &["INF [RTSPS] started with listener", &format!(" on 127.0.0.1:{} (TCP/RTSPS)", server.tls_port)],
        PATIENCE,
    );
    assert!(plain_port_is_closed(&server));
    let camera = publish_tls(&server, "cam", &identity.certificate, CameraPlan::default());
    camera.wait_frames(2);
    let mut reader = Rtsp::play_tls(&server, "cam", &identity.certificate);
    let me = reader.local();
    let mut flow = Flow::of(&camera);
    flow.read(&mut reader, 200);
    flow.assert_lossless(200);
    server.wait_log(&[&format!(" INF [RTSPS] [conn {me}] opened")], PATIENCE);
    server.wait_log(&[" INF [RTSPS] [session ", &format!("] created by {me}")], PATIENCE);
    server.wait_log(&[" INF [RTSPS] [session ", "] is publishing to path 'cam'"], PATIENCE);
    server.wait_log(
        &[" INF [RTSPS] [session ", "] is reading from path 'cam', with TCP, 1 track (H264)"],
        PATIENCE,
    );
    assert_eq!(reader.teardown().status, 200);
    drop(reader);
    server.wait_log(&[&format!(" INF [RTSPS] [conn {me}] closed: ")], PATIENCE);
    assert!(!server.log_text().contains("[RTSP] "), "nothing of it is plain:\n{}", server.log_text());
}

#[test]
fn every_way_from_publisher_to_reader_loses_nothing_wherever_connections_land() {
    if !ours_or_say_skipped("every_way_from_publisher_to_reader_loses_nothing_wherever_connections_land") {
        return;
    }
    let identity = Identity::make();
    let trusted = &identity.certificate;
    let globals = identity.globals("optional") + "engine:\n  cores: [0, 1]\n";
    let mut server = Server::with(&globals, "  all_others:\n");
    let plan = CameraPlan { frame_bytes: 20_000, key_bytes: 90_000, ..CameraPlan::default() };
    let cameras: Vec<_> = (0..6)
        .map(|n| match n % 2 {
            0 => publish_tls(&server, &format!("cam{n}"), trusted, plan),
            _ => Camera::publish(&server, &format!("cam{n}"), plan),
        })
        .collect();
    let mut watchers = Vec::new();
    for (n, camera) in cameras.iter().enumerate() {
        camera.wait_frames(2);
        for _ in 0..3 {
            watchers.push(Watcher::on(Rtsp::play_tls(&server, &format!("cam{n}"), trusted), camera));
            watchers.push(Watcher::start(&server, &format!("cam{n}"), camera));
        }
    }
    // Connections that die in the middle of a hand-over take nobody with them.
    for n in 0..24 {
        let mut client = Rtsp::connect_tls(&server, trusted);
        let url = server.tls_url(&format!("cam{}", n % 6));
        let request = format!("DESCRIBE {url} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n");
        assert!(client.send_raw(&request.as_bytes()[..request.len() - n % 3]));
    }
    for watcher in watchers {
        watcher.wait_more(500);
        watcher.finish().assert_lossless(500);
    }
    assert!(cameras.iter().all(|camera| !camera.was_closed()));
    server.assert_alive();
}

#[test]
fn bytes_sent_right_behind_a_request_survive_the_hand_over() {
    if !ours_or_say_skipped("bytes_sent_right_behind_a_request_survive_the_hand_over, over TLS") {
        return;
    }
    let identity = Identity::make();
    let server =
        Server::with(&(identity.globals("optional") + "engine:\n  cores: [0, 1]\n"), "  all_others:\n");
    let camera = Camera::publish(&server, "cam", CameraPlan::default());
    camera.wait_frames(2);
    for n in 0..20 {
        let mut client = Rtsp::connect_tls(&server, &identity.certificate);
        let url = client.url("cam");
        let mut burst = Vec::new();
        for cseq in 1..=5 {
            let method = if cseq == 1 { "DESCRIBE" } else { "OPTIONS" };
            write!(burst, "{method} {url} RTSP/1.0\r\nCSeq: {cseq}\r\n\r\n").unwrap();
        }
        assert!(client.send_raw(&burst));
        for cseq in 1..=5 {
            let answer = client.response();
            let expected = (200, Some(cseq.to_string()));
            assert_eq!((answer.status, answer.header("CSeq").map(str::to_owned)), expected, "client {n}");
        }
    }
}

#[test]
fn a_reader_may_have_other_channels() {
    let identity = Identity::make();
    let server = Server::with(&identity.globals("optional"), "  all_others:\n");
    let camera = Camera::publish(&server, "cam", CameraPlan::default());
    camera.wait_frames(2);
    let mut reader = Rtsp::connect_tls(&server, &identity.certificate);
    assert_eq!(reader.describe("cam").status, 200);
    let control = reader.controls[0].clone();
    assert_eq!(reader.setup(&control, "RTP/AVP/TCP;unicast;interleaved=6-7").status, 200);
    assert_eq!(reader.play().status, 200);
    let mut flow = Flow::of(&camera);
    while flow.packets < 200 {
        let frame = reader.frame(PATIENCE).expect("the stream goes on");
        match frame.channel {
            6 => flow.take_rtp(&frame.data),
            channel => assert_eq!(channel, 7),
        }
    }
    flow.assert_lossless(200);
}

#[test]
fn media_in_datagrams_is_refused_and_the_client_may_ask_again() {
    let identity = Identity::make();
    let server = Server::with(&identity.globals("optional"), "  all_others:\n");
    let camera = Camera::publish(&server, "cam", CameraPlan::default());
    camera.wait_frames(2);
    let mut client = Rtsp::connect_tls(&server, &identity.certificate);
    assert_eq!(client.describe("cam").status, 200);
    let control = client.controls[0].clone();
    assert_eq!(client.setup(&control, "RTP/AVP;unicast;client_port=5000-5001").status, 461);
    if ours_or_say_skipped("another transport on the same connection") {
        client.session = None;
        assert_eq!(client.setup(&control, "RTP/AVP/TCP;unicast;interleaved=0-1").status, 200);
        assert_eq!(client.play().status, 200);
        assert!(client.frame(PATIENCE).is_some());
    }
}

#[test]
fn a_session_stays_on_the_server_that_it_came_to() {
    let identity = Identity::make();
    let server = Server::with(&identity.globals("optional"), "  all_others:\n");
    let camera = Camera::publish(&server, "cam", CameraPlan::default());
    camera.wait_frames(2);
    let mut encrypted = Rtsp::play_tls(&server, "cam", &identity.certificate);
    let mut plain = Rtsp::connect(&server);
    plain.session.clone_from(&encrypted.session);
    let url = plain.url("cam");
    assert_eq!(plain.request("TEARDOWN", &url, &[], "").status, 454);
    assert!(encrypted.frame(PATIENCE).is_some(), "it was none of the other's business");
}

#[test]
fn a_stalled_reader_costs_the_others_nothing_and_is_closed_after_write_timeout() {
    let identity = Identity::make();
    let trusted = &identity.certificate;
    let mut server = Server::with(&(identity.globals("optional") + "writeTimeout: 3s\n"), "  all_others:\n");
    let camera = publish_tls(&server, "cam", trusted, HEAVY);
    camera.wait_frames(5);
    let watchers: Vec<_> = (0..3)
        .flat_map(|_| {
            let encrypted = Watcher::on(Rtsp::play_tls(&server, "cam", trusted), &camera);
            [encrypted, Watcher::start(&server, "cam", &camera)]
        })
        .collect();
    let mut stalled = Rtsp::connect_tls_with(&server, trusted, Some(8_192));
    stalled.setup_all_tcp("cam");
    assert_eq!(stalled.play().status, 200);
    let me = stalled.local();
    server.wait_log(&["[RTSPS] ", &format!("[conn {me}] closed: ")], PATIENCE);
    assert!(stalled.closed_within(PATIENCE), "what was in flight, then the end");
    for watcher in watchers {
        watcher.wait_more(200);
        watcher.finish().assert_lossless(500);
    }
    server.assert_alive();
}

#[test]
fn a_lapped_reader_resumes_at_a_keyframe() {
    if !ours_or_say_skipped("a_lapped_reader_resumes_at_a_keyframe, over TLS") {
        return;
    }
    let identity = Identity::make();
    let globals = identity.globals("optional") + "writeTimeout: 120s\nengine: {readerLagMax: 3s}\n";
    let server = Server::with(&globals, "  all_others:\n");
    let camera = Camera::publish(&server, "cam", HEAVY);
    camera.wait_frames(5);
    let watcher = Watcher::on(Rtsp::play_tls(&server, "cam", &identity.certificate), &camera);
    let mut slow = Rtsp::connect_tls_with(&server, &identity.certificate, Some(8_192));
    slow.setup_all_tcp("cam");
    assert_eq!(slow.play().status, 200);
    let mut flow = Flow::of(&camera);
    flow.read(&mut slow, 50);
    thread::sleep(Duration::from_secs(12));
    let give_up = Instant::now() + PATIENCE;
    while flow.holes.is_empty() {
        assert!(Instant::now() < give_up, "12 s late and never lapped");
        flow.take(&slow.frame(PATIENCE).expect("the stream ended: it should have resumed"));
    }
    let (_, resumed) = flow.holes[0];
    assert!(camera.record().begins_key(resumed), "it resumes at packet {resumed}: {:?}", camera.keys());
    flow.read(&mut slow, 300);
    assert_eq!(flow.holes.len(), 1, "one jump and then all of it: {:?}", flow.holes);
    let me = slow.local();
    server.wait_log(&[" WAR [RTSPS] ", &format!("[conn {me}]"), "behind"], PATIENCE);
    watcher.finish().assert_lossless(1_000);
}

#[test]
fn who_speaks_no_tls_or_only_begins_to_is_closed_and_costs_only_itself() {
    let identity = Identity::make();
    let trusted = &identity.certificate;
    let mut server = Server::with(&(identity.globals("optional") + "readTimeout: 2s\n"), "  all_others:\n");
    let camera = publish_tls(&server, "cam", trusted, CameraPlan::default());
    camera.wait_frames(2);
    let watcher = Watcher::on(Rtsp::play_tls(&server, "cam", trusted), &camera);
    let before = server.open_files();

    let mut hello = Vec::new();
    tls::client(trusted, &[]).write_tls(&mut hello).unwrap();
    let noise: Vec<u8> = (0..200_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut oversized = vec![22, 3, 1, 0xff, 0xff];
    oversized.resize(70_000, 1);
    let plain = format!("OPTIONS {} RTSP/1.0\r\nCSeq: 1\r\n\r\n", server.tls_url(""));
    let mut openings: Vec<&[u8]> = vec![plain.as_bytes(), &noise, &oversized];
    if ours_or_say_skipped("a handshake that does not go on is given up after readTimeout") {
        openings.extend([b"", &hello[..hello.len() / 2], &hello, &b"\x16\x03\x01"[..]]);
    }
    let mut strangers: Vec<_> = openings
        .iter()
        .map(|opening| {
            let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, server.tls_port)).unwrap();
            // The server may have closed before all of it was written.
            let _ = socket.write_all(opening);
            socket
        })
        .collect();
    for (n, stranger) in strangers.iter_mut().enumerate() {
        stranger.set_read_timeout(Some(PATIENCE)).unwrap();
        let closed = loop {
            match stranger.read(&mut [0; 4096]) {
                Ok(0) => break true,
                Ok(_) => {}
                Err(error) => break error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        };
        assert!(closed, "stranger {n} is not closed");
    }
    if ours_or_say_skipped("the log says why") {
        let me = strangers[0].local_addr().unwrap();
        let said = ["INF [RTSPS] ", &format!("[conn {me}] closed: it does not speak TLS")];
        server.wait_log(&said, PATIENCE);
        server.wait_log(&["no TLS handshake within readTimeout"], PATIENCE);
    }
    // Somebody who encrypts on the plain port is no better off.
    let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port)).unwrap();
    assert!(Wire::encrypted(socket, trusted).is_err());
    drop(strangers);
    wait_for("their files are closed", PATIENCE, || (server.open_files() <= before).then_some(()));
    watcher.wait_more(50);
    watcher.finish().assert_lossless(50);
    server.assert_alive();
}

#[test]
fn those_who_wait_cost_no_cpu() {
    let identity = Identity::make();
    let server = Server::with(&(identity.globals("optional") + "writeTimeout: 60s\n"), "  all_others:\n");
    let camera = Camera::publish(&server, "cam", HEAVY);
    camera.wait_frames(5);
    let mut stalled = Rtsp::connect_tls_with(&server, &identity.certificate, Some(8_192));
    stalled.setup_all_tcp("cam");
    assert_eq!(stalled.play().status, 200);
    let mut hello = Vec::new();
    tls::client(&identity.certificate, &[]).write_tls(&mut hello).unwrap();
    let _waiting: Vec<_> = (0..20)
        .map(|n| {
            let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, server.tls_port)).unwrap();
            socket.write_all(&hello[..n * hello.len() / 20]).unwrap();
            socket
        })
        .collect();
    // Long enough for the stalled one's buffers to fill.
    thread::sleep(Duration::from_secs(3));
    let before = server.cpu();
    thread::sleep(Duration::from_secs(3));
    let spent = server.cpu() - before;
    assert!(
        spent < Duration::from_millis(1_500),
        "{spent:?} in 3 s for a camera that nobody takes anything of"
    );
}

#[test]
fn a_crowd_of_handshakes_delays_nobody_and_is_let_in() {
    let identity = Identity::make();
    let trusted = &identity.certificate;
    let server = Server::with(&identity.globals("optional"), "  all_others:\n");
    let camera = Camera::publish(&server, "cam", CameraPlan::default());
    camera.wait_frames(2);
    let watcher = Watcher::on(Rtsp::play_tls(&server, "cam", trusted), &camera);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let mut client = Rtsp::connect_tls(&server, trusted);
                    assert_eq!(client.describe("cam").status, 200);
                }
            });
        }
    });
    watcher.finish().assert_lossless(1);
}

#[test]
fn a_new_certificate_on_disk_is_for_new_connections_and_a_broken_one_for_nobody() {
    let mut identity = Identity::make();
    let old = identity.certificate.clone();
    let server = Server::with(&identity.globals("strict"), "  all_others:\n");
    let camera = publish_tls(&server, "cam", &old, CameraPlan::default());
    camera.wait_frames(2);
    let watcher = Watcher::on(Rtsp::play_tls(&server, "cam", &old), &camera);
    let shows = |trusted: &CertificateDer<'static>| {
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, server.tls_port)).unwrap();
        Wire::encrypted(socket, trusted).is_ok()
    };
    assert!(shows(&old));
    identity.renew();
    wait_for("the new certificate is shown", PATIENCE, || shows(&identity.certificate).then_some(()));
    assert!(!shows(&old));
    let reader = Watcher::on(Rtsp::play_tls(&server, "cam", &identity.certificate), &camera);
    reader.wait_more(50);
    if ours_or_say_skipped("a broken certificate") {
        server.wait_log(&["INF [RTSPS] certificate reloaded"], PATIENCE);
        fs::write(identity.cert(), "-----BEGIN CERTIFICATE-----\nnonsense\n").unwrap();
        let line = server.wait_log(&["WAR [RTSPS] ", "the old one stays"], PATIENCE);
        assert!(line.contains(identity.cert().to_str().unwrap()), "{line}");
        assert!(shows(&identity.certificate));
    }
    for watcher in [watcher, reader] {
        watcher.wait_more(50);
        watcher.finish().assert_lossless(50);
    }
}

#[test]
fn credentials_are_asked_for_as_without_tls() {
    let identity = Identity::make();
    let users = "authInternalUsers:\n- {user: enc, pass: enc, permissions: [{action: publish}]}\n\
                 - {user: viewer, pass: secret, permissions: [{action: read}]}\n";
    let server = Server::with(&(identity.globals("strict") + users), "  all_others:\n");
    let basic = |pair: &str| Some(format!("Basic {}", BASE64_STANDARD.encode(pair)));
    let mut publisher = Rtsp::connect_tls(&server, &identity.certificate);
    publisher.authorization = basic("enc:enc");
    assert_eq!(announce_on(&mut publisher, "cam").status, 200);
    let camera = Camera::from(publisher, CameraPlan::default());
    camera.wait_frames(2);
    let mut reader = Rtsp::connect_tls(&server, &identity.certificate);
    let refused = reader.describe("cam");
    assert_eq!(refused.status, 401);
    assert!(refused.header("WWW-Authenticate").unwrap().starts_with("Basic "));
    reader.authorization = basic("viewer:secret");
    reader.setup_all_tcp("cam");
    assert_eq!(reader.play().status, 200);
    assert!(reader.frame(PATIENCE).is_some());
    let mut wrong = Rtsp::connect_tls(&server, &identity.certificate);
    wrong.authorization = basic("viewer:guess");
    assert_eq!(wrong.describe("cam").status, 401);
    let url = server.tls_url("cam").replace("rtsps://", "rtsps://viewer:secret@");
    tools::ffmpeg(&["-rtsp_transport", "tcp", "-i", &url, "-t", "1", "-c", "copy", "-f", "null", "-"])
        .ended()
        .assert_success();
}

#[test]
fn the_api_the_metrics_and_the_kick_know_what_is_encrypted() {
    let identity = Identity::make();
    let server = Server::with_api(&identity.globals("optional"), "  all_others:\n");
    let camera = publish_tls(&server, "cam", &identity.certificate, CameraPlan::default());
    camera.wait_frames(2);
    let mut encrypted = Rtsp::play_tls(&server, "cam", &identity.certificate);
    let mut plain = Rtsp::play_tcp(&server, "cam");
    wait_for("both are read", PATIENCE, || {
        let count = |list: &str| server.get(&format!("/v3/{list}/list")).json()["itemCount"].as_u64();
        let found = ["rtspsconns", "rtspssessions", "rtspconns", "rtspsessions"].map(count);
        (found == [Some(2), Some(2), Some(1), Some(1)]).then_some(())
    });
    let path = server.get("/v3/paths/get/cam").json();
    assert_eq!(path["source"]["type"], "rtspsSession");
    let types: Vec<_> = path["readers"].as_array().unwrap().iter().map(|reader| &reader["type"]).collect();
    assert_eq!(types, ["rtspSession", "rtspsSession"]);
    let sessions = server.get("/v3/rtspssessions/list").json();
    let reader = sessions["items"].as_array().unwrap().iter().find(|item| item["state"] == "read").unwrap();
    assert_eq!(reader["remoteAddr"], encrypted.local());
    assert_eq!((&reader["transport"], &reader["profile"]), (&"TCP".into(), &"AVP".into()));
    let id = reader["id"].as_str().unwrap();
    let metrics = server.metrics("/metrics").body;
    for name in [
        "rtsps_conns",
        "rtsps_sessions",
        "rtsp_conns",
        "paths_readers{name=\"cam\",readerType=\"rtspsSession\"",
    ] {
        assert!(metrics.contains(&format!("\n{name}")), "{name} in\n{metrics}");
    }
    if ours_or_say_skipped("the customer's count has both") {
        assert!(metrics.contains("\nmediamtx_rtsp_conns_count 3\n"), "{metrics}");
    }
    assert_eq!(server.api("POST", &format!("/v3/rtspsessions/kick/{id}"), "").status, 404);
    server.api("POST", &format!("/v3/rtspssessions/kick/{id}"), "").assert_ok();
    assert!(encrypted.closed_within(PATIENCE));
    assert!(plain.frame(PATIENCE).is_some());
}

#[test]
fn encryption_comes_and_goes_while_everything_runs() {
    if !ours_or_say_skipped("encryption_comes_and_goes_while_everything_runs") {
        return;
    }
    let identity = Identity::make();
    let trusted = &identity.certificate;
    let server = Server::with_api("", "  all_others:\n");
    let patch = |body: String| server.api("PATCH", "/v3/config/global/patch", &body);
    let with = |encryption: &str| {
        let (key, cert) = (identity.key(), identity.cert());
        format!(
            r#"{{"rtspEncryption": "{encryption}", "rtspServerKey": {key:?}, "rtspServerCert": {cert:?}}}"#
        )
    };
    let camera = Camera::publish(&server, "cam", CameraPlan::default());
    camera.wait_frames(2);
    let plain = Watcher::start(&server, "cam", &camera);
    // Without a certificate nothing changes.
    let refused = patch(r#"{"rtspEncryption": "optional", "rtspServerKey": "/nowhere/key.pem"}"#.to_owned());
    assert_eq!(refused.status, 400);
    assert!(refused.body.contains("server.crt"), "the file that cannot be read: {refused:?}");
    assert_eq!(server.get("/v3/rtspsconns/list").status, 404);
    patch(with("optional")).assert_ok();
    let encrypted = Watcher::on(Rtsp::play_tls(&server, "cam", trusted), &camera);
    encrypted.wait_more(50);
    plain.wait_more(50);
    plain.finish().assert_lossless(100);
    assert!(!camera.was_closed(), "it was only added to");
    let second = publish_tls(&server, "safe", trusted, CameraPlan::default());
    second.wait_frames(2);
    let stays = Watcher::on(Rtsp::play_tls(&server, "safe", trusted), &second);
    patch(with("strict")).assert_ok();
    wait_for("the plain publisher is closed", PATIENCE, || camera.was_closed().then_some(()));
    assert!(plain_port_is_closed(&server));
    stays.wait_more(50);
    stays.finish().assert_lossless(50);
    assert!(!second.was_closed());
    patch(with("no")).assert_ok();
    wait_for("the encrypted publisher is closed", PATIENCE, || second.was_closed().then_some(()));
    assert!(TcpStream::connect(("127.0.0.1", server.tls_port)).is_err());
    let camera = Camera::publish(&server, "cam", CameraPlan::default());
    camera.wait_frames(2);
}

#[test]
fn without_its_certificate_the_server_does_not_start_and_names_the_file() {
    if !ours_or_say_skipped("without_its_certificate_the_server_does_not_start_and_names_the_file") {
        return;
    }
    let (dir, identity) = (scratch_dir("nocert"), Identity::make());
    let other = Identity::make();
    let nonsense = dir.join("nonsense.pem");
    fs::write(&nonsense, "nonsense").unwrap();
    for (key, cert, named) in [
        (identity.key(), dir.join("missing.crt"), dir.join("missing.crt")),
        (dir.join("missing.key"), identity.cert(), dir.join("missing.key")),
        (identity.key(), nonsense.clone(), nonsense.clone()),
        (nonsense.clone(), identity.cert(), nonsense.clone()),
        (other.key(), identity.cert(), other.key()),
    ] {
        let file = dir.join("config.yml");
        let text = format!(
            "rtspEncryption: strict\nrtspServerKey: {}\nrtspServerCert: {}\nrtspsAddress: 127.0.0.1:{}\n",
            key.display(),
            cert.display(),
            server::free_ports().0
        );
        fs::write(&file, text).unwrap();
        let ended = Tool::run(server::binary().to_str().unwrap(), [file.to_str().unwrap()]).ended();
        assert_eq!(ended.status.code(), Some(2));
        let said = ended.stdout + &ended.stderr;
        let errors: Vec<_> = said.lines().filter(|line| line.contains(" ERR ")).collect();
        assert_eq!(errors.len(), 1, "{said}");
        assert!(
            errors[0].contains("[RTSPS] cannot encrypt: ") && errors[0].contains(named.to_str().unwrap()),
            "{said}"
        );
    }
    let _ = fs::remove_dir_all(dir);
}
