//! Wrong, early, late and malformed requests get the documented status (contract §4.3, errata) or a closed
//! connection, and a stream that runs beside them loses no packet.

use std::{net::Ipv4Addr, time::Duration};

use crate::support::{
    Camera, CameraPlan, PATIENCE, Rtsp, Server,
    camera::{self, SDP},
    flow::Watcher,
    rtsp::Response,
};

/// The connection ended without an answer.
const CLOSED: u16 = 0;

const PATHS: &str = "  beside:\n  cam:\n  victim:\n  two:\n  ~^pattern_:\n";

struct Case {
    name: &'static str,
    /// All but the last must be answered with 200. `{s}` is the session, `{u}` the URL of the server.
    requests: &'static [&'static str],
    /// What may answer the last one.
    statuses: &'static [u16],
    /// The connection must be closed after it.
    closes: bool,
}

const DESCRIBE_CAM: &str = "DESCRIBE {u}cam RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n";
const SETUP_CAM: &str =
    "SETUP {u}cam/trackID=0 RTSP/1.0\r\nCSeq: 2\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n";
const PLAY_CAM: &str = "PLAY {u}cam/ RTSP/1.0\r\nCSeq: 3\r\nSession: {s}\r\n\r\n";
const ANNOUNCE_TWO: &str = "ANNOUNCE {u}two RTSP/1.0\r\nCSeq: 1\r\nContent-Type: application/sdp\r\nContent-Length: {len}\r\n\r\n\
    v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n\
    m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:streamid=0\r\n\
    m=audio 0 RTP/AVP 97\r\na=rtpmap:97 opus/48000/2\r\na=control:streamid=1\r\n";
const SETUP_TWO_0: &str = "SETUP {u}two/streamid=0 RTSP/1.0\r\nCSeq: 2\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1;mode=record\r\n\r\n";
const SETUP_TWO_1: &str = "SETUP {u}two/streamid=1 RTSP/1.0\r\nCSeq: 3\r\nSession: {s}\r\n\
    Transport: RTP/AVP/TCP;unicast;interleaved=2-3;mode=record\r\n\r\n";
const RECORD_TWO: &str = "RECORD {u}two RTSP/1.0\r\nCSeq: 4\r\nSession: {s}\r\n\r\n";

const fn case(
    name: &'static str,
    requests: &'static [&'static str],
    statuses: &'static [u16],
    closes: bool,
) -> Case {
    Case { name, requests, statuses, closes }
}

#[rustfmt::skip] // one row, one promise
const CASES: &[Case] = &[
    // Requests that are not understood
    case("no CSeq", &["OPTIONS {u}cam RTSP/1.0\r\n\r\n"], &[400], true),
    case("CSeq is not a number", &["OPTIONS {u}cam RTSP/1.0\r\nCSeq:\r\n\r\n"], &[200, 400, CLOSED], false),
    case("short unknown method", &["FOO {u}cam RTSP/1.0\r\nCSeq: 1\r\n\r\n"], &[501, CLOSED], false),
    case("long unknown method", &["FROBNICATE {u}cam RTSP/1.0\r\nCSeq: 1\r\n\r\n"], &[501], false),
    case("binary garbage", &["\u{1}\u{2}\u{3}{long}\r\n\r\n"], &[400, CLOSED], true),
    case("a line without an end", &["OPTIONS {long}"], &[400, 414, CLOSED], true),
    case("headers of 64 KB", &["OPTIONS {u}cam RTSP/1.0\r\nCSeq: 1\r\nX-Long: {long}\r\n\r\n"], &[400, CLOSED], true),
    case("5000 headers", &["OPTIONS {u}cam RTSP/1.0\r\nCSeq: 1\r\n{many}\r\n"], &[400, CLOSED], true),
    case("negative body length", &["ANNOUNCE {u}two RTSP/1.0\r\nCSeq: 1\r\nContent-Length: -1\r\n\r\n"], &[400, CLOSED], true),
    case("a body of 4 GB", &["ANNOUNCE {u}two RTSP/1.0\r\nCSeq: 1\r\nContent-Length: 4294967295\r\n\r\n"], &[400, 413, CLOSED], true),
    case("another protocol version", &["OPTIONS {u}cam RTSP/7.0\r\nCSeq: 1\r\n\r\n"], &[400, 505, CLOSED], true),
    case("not a URL", &["DESCRIBE :::: RTSP/1.0\r\nCSeq: 1\r\n\r\n"], &[400, CLOSED], true),
    case("no path in the URL", &["DESCRIBE {u} RTSP/1.0\r\nCSeq: 1\r\n\r\n"], &[400], true),
    // Paths
    case("nobody publishes", &["DESCRIBE {u}two RTSP/1.0\r\nCSeq: 1\r\n\r\n"], &[404], true),
    case("nobody publishes to a pattern's path", &["DESCRIBE {u}pattern_7 RTSP/1.0\r\nCSeq: 1\r\n\r\n"], &[404], true),
    case("not configured", &["DESCRIBE {u}elsewhere RTSP/1.0\r\nCSeq: 1\r\n\r\n"], &[400], true),
    case("not configured, to publish", &["ANNOUNCE {u}elsewhere RTSP/1.0\r\nCSeq: 1\r\nContent-Type: application/sdp\r\nContent-Length: {len}\r\n\r\n{sdp}"], &[400], true),
    case("characters no path has", &["DESCRIBE {u}pattern_$ RTSP/1.0\r\nCSeq: 1\r\n\r\n"], &[400], true),
    case("dot segments", &["DESCRIBE {u}pattern_/../cam RTSP/1.0\r\nCSeq: 1\r\n\r\n"], &[400], true),
    case("SETUP where nobody publishes", &["SETUP {u}two/trackID=0 RTSP/1.0\r\nCSeq: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n"], &[404], true),
    // SETUP to play
    case("SETUP without a track", &["SETUP {u}cam RTSP/1.0\r\nCSeq: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n"], &[400], true),
    case("SETUP of a track that is not there", &["SETUP {u}cam/trackID=9 RTSP/1.0\r\nCSeq: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n"], &[400, 404], true),
    case("SETUP of track zebra", &["SETUP {u}cam/trackID=zebra RTSP/1.0\r\nCSeq: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n"], &[400], true),
    case("SETUP without Transport", &["SETUP {u}cam/trackID=0 RTSP/1.0\r\nCSeq: 1\r\n\r\n"], &[400], true),
    case("SETUP with nonsense for Transport", &["SETUP {u}cam/trackID=0 RTSP/1.0\r\nCSeq: 1\r\nTransport: pigeon\r\n\r\n"], &[400, 461], false),
    case("SETUP of multicast, which is off", &["SETUP {u}cam/trackID=0 RTSP/1.0\r\nCSeq: 1\r\nTransport: RTP/AVP;multicast\r\n\r\n"], &[461], false),
    case("SETUP of SRTP on the plain port", &["SETUP {u}cam/trackID=0 RTSP/1.0\r\nCSeq: 1\r\nTransport: RTP/SAVP/TCP;unicast;interleaved=0-1\r\n\r\n"], &[400, 461], false),
    case("SETUP of UDP without ports", &["SETUP {u}cam/trackID=0 RTSP/1.0\r\nCSeq: 1\r\nTransport: RTP/AVP;unicast\r\n\r\n"], &[400, 461], false),
    case("SETUP of one track twice", &[SETUP_CAM, "SETUP {u}cam/trackID=0 RTSP/1.0\r\nCSeq: 3\r\nSession: {s}\r\nTransport: RTP/AVP/TCP;unicast;interleaved=2-3\r\n\r\n"], &[400], true),
    case("SETUP on another path", &[SETUP_CAM, "SETUP {u}beside/trackID=0 RTSP/1.0\r\nCSeq: 3\r\nSession: {s}\r\nTransport: RTP/AVP/TCP;unicast;interleaved=2-3\r\n\r\n"], &[400], true),
    case("SETUP while playing", &[SETUP_CAM, PLAY_CAM, "SETUP {u}cam/trackID=0 RTSP/1.0\r\nCSeq: 4\r\nSession: {s}\r\nTransport: RTP/AVP/TCP;unicast;interleaved=2-3\r\n\r\n"], &[400], true),
    // Sessions
    case("PLAY without a session", &["PLAY {u}cam/ RTSP/1.0\r\nCSeq: 1\r\n\r\n"], &[454, 501], false),
    case("PAUSE without a session", &["PAUSE {u}cam/ RTSP/1.0\r\nCSeq: 1\r\n\r\n"], &[454, 501], false),
    case("RECORD without a session", &["RECORD {u}two RTSP/1.0\r\nCSeq: 1\r\n\r\n"], &[454, 501], false),
    case("TEARDOWN without a session", &["TEARDOWN {u}cam/ RTSP/1.0\r\nCSeq: 1\r\n\r\n"], &[454, 501], false),
    case("PLAY in a session nobody opened", &["PLAY {u}cam/ RTSP/1.0\r\nCSeq: 1\r\nSession: 0123456789abcdef0123456789abcdef\r\n\r\n"], &[454], true),
    case("SETUP in a session nobody opened", &["SETUP {u}cam/trackID=0 RTSP/1.0\r\nCSeq: 1\r\nSession: 0123456789abcdef0123456789abcdef\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n"], &[200, 454], false),
    case("GET_PARAMETER in a session nobody opened", &["GET_PARAMETER {u}cam/ RTSP/1.0\r\nCSeq: 1\r\nSession: 0123456789abcdef0123456789abcdef\r\n\r\n"], &[454], true),
    case("a torn down session", &[SETUP_CAM, PLAY_CAM, "TEARDOWN {u}cam/ RTSP/1.0\r\nCSeq: 4\r\nSession: {s}\r\n\r\n", "PLAY {u}cam/ RTSP/1.0\r\nCSeq: 5\r\nSession: {s}\r\n\r\n"], &[454, CLOSED], true),
    // States
    case("RECORD in a session that plays", &[SETUP_CAM, PLAY_CAM, "RECORD {u}cam RTSP/1.0\r\nCSeq: 4\r\nSession: {s}\r\n\r\n"], &[400, 455], true),
    case("ANNOUNCE in a session that plays", &[SETUP_CAM, PLAY_CAM, "ANNOUNCE {u}two RTSP/1.0\r\nCSeq: 4\r\nSession: {s}\r\nContent-Type: application/sdp\r\nContent-Length: {len}\r\n\r\n{sdp}"], &[400, 455], true),
    case("PLAY in a session that records", &[ANNOUNCE_TWO, SETUP_TWO_0, SETUP_TWO_1, RECORD_TWO, "PLAY {u}two RTSP/1.0\r\nCSeq: 5\r\nSession: {s}\r\n\r\n"], &[400, 455], true),
    case("PLAY twice is allowed", &[SETUP_CAM, PLAY_CAM, "PLAY {u}cam/ RTSP/1.0\r\nCSeq: 4\r\nSession: {s}\r\n\r\n"], &[200], false),
    // Publishing
    case("ANNOUNCE without Content-Type", &["ANNOUNCE {u}two RTSP/1.0\r\nCSeq: 1\r\nContent-Length: {len}\r\n\r\n{sdp}"], &[400], true),
    case("ANNOUNCE of another type", &["ANNOUNCE {u}two RTSP/1.0\r\nCSeq: 1\r\nContent-Type: text/plain\r\nContent-Length: {len}\r\n\r\n{sdp}"], &[400], true),
    case("ANNOUNCE without a body", &["ANNOUNCE {u}two RTSP/1.0\r\nCSeq: 1\r\nContent-Type: application/sdp\r\n\r\n"], &[400], true),
    case("ANNOUNCE of an SDP without media", &["ANNOUNCE {u}two RTSP/1.0\r\nCSeq: 1\r\nContent-Type: application/sdp\r\nContent-Length: {len}\r\n\r\nv=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\n"], &[400], true),
    case("ANNOUNCE of what is no SDP", &["ANNOUNCE {u}two RTSP/1.0\r\nCSeq: 1\r\nContent-Type: application/sdp\r\nContent-Length: {len}\r\n\r\nhello, is this the camera shop?\r\n"], &[400], true),
    case("RECORD right after ANNOUNCE", &[ANNOUNCE_TWO, "RECORD {u}two RTSP/1.0\r\nCSeq: 2\r\n\r\n"], &[400, 454, 501], false),
    case("RECORD with one of two tracks set up", &[ANNOUNCE_TWO, SETUP_TWO_0, "RECORD {u}two RTSP/1.0\r\nCSeq: 3\r\nSession: {s}\r\n\r\n"], &[400], true),
    case("SETUP of a track that was not announced", &[ANNOUNCE_TWO, "SETUP {u}two/streamid=7 RTSP/1.0\r\nCSeq: 2\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1;mode=record\r\n\r\n"], &[400, 404], true),
    case("SETUP to record without mode=record", &[ANNOUNCE_TWO, "SETUP {u}two/streamid=0 RTSP/1.0\r\nCSeq: 2\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n"], &[400], true),
    case("multicast to record", &[ANNOUNCE_TWO, "SETUP {u}two/streamid=0 RTSP/1.0\r\nCSeq: 2\r\nTransport: RTP/AVP;multicast;mode=record\r\n\r\n"], &[461], false),
    // What every client may ask at any time
    case("OPTIONS", &["OPTIONS {u}cam RTSP/1.0\r\nCSeq: 1\r\n\r\n"], &[200], false),
    case("OPTIONS *", &["OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n"], &[200, 400, CLOSED], false),
    case("GET_PARAMETER without a session", &["GET_PARAMETER {u}cam RTSP/1.0\r\nCSeq: 1\r\n\r\n"], &[200, 501], false),
    case("GET_PARAMETER while playing", &[SETUP_CAM, PLAY_CAM, "GET_PARAMETER {u}cam/ RTSP/1.0\r\nCSeq: 4\r\nSession: {s}\r\n\r\n"], &[200], false),
    case("SET_PARAMETER while playing", &[SETUP_CAM, PLAY_CAM, "SET_PARAMETER {u}cam/ RTSP/1.0\r\nCSeq: 4\r\nSession: {s}\r\n\r\n"], &[200, 501], false),
    case("DESCRIBE while playing", &[DESCRIBE_CAM, SETUP_CAM, PLAY_CAM, DESCRIBE_CAM], &[200, 400, 455], false),
];

fn fill(template: &str, server: &Server, session: Option<&str>) -> Vec<u8> {
    let body_at = template.find("\r\n\r\n").map_or(template.len(), |at| at + 4);
    let body = template[body_at..].replace("{sdp}", SDP);
    let head = template[..body_at]
        .replace("{u}", &server.url(""))
        .replace("{s}", session.unwrap_or("none"))
        .replace("{len}", &body.len().to_string())
        .replace("{long}", &"a".repeat(65_536))
        .replace("{many}", &"X-Many: 1\r\n".repeat(5_000));
    (head + &body).into_bytes()
}

fn ask(client: &mut Rtsp, server: &Server, template: &str) -> Option<Response> {
    let session = client.session.clone();
    // A server that closes early may reset us while we send: then there is no answer.
    client.send_raw(&fill(template, server, session.as_deref()));
    client.response_within(Duration::from_secs(10))
}

/// What the stream beside carries and who watches it.
fn beside(server: &Server) -> (Camera, Watcher) {
    let camera = Camera::publish(server, "beside", CameraPlan::default());
    camera.wait_frames(1);
    let watcher = Watcher::start(server, "beside", &camera);
    (camera, watcher)
}

#[test]
fn wrong_requests_get_the_documented_status_and_harm_no_stream() {
    let mut server = Server::with("", PATHS);
    let (_camera, watcher) = beside(&server);
    let cam = Camera::publish(&server, "cam", CameraPlan::default());
    cam.wait_frames(1);
    let mut wrong = Vec::new();
    for case in CASES {
        let mut client = Rtsp::connect(&server);
        let (last, first) = case.requests.split_last().unwrap();
        for request in first {
            let answer = ask(&mut client, &server, request);
            let status = answer.as_ref().map(|a| a.status);
            assert_eq!(status, Some(200), "{}: {request:?} {answer:?}", case.name);
        }
        let Some(answer) = ask(&mut client, &server, last) else {
            if case.name == "binary garbage" && !crate::support::server::is_ours() {
                continue; // MediaMTX waits for more of it
            }
            wrong.push(format!("{}: neither an answer nor the end", case.name));
            continue;
        };
        if !case.statuses.contains(&answer.status) {
            wrong.push(format!("{}: {} instead of {:?}", case.name, answer.status, case.statuses));
        } else if case.closes && answer.status != CLOSED && !client.closed_within(Duration::from_secs(5)) {
            wrong.push(format!("{}: the connection stays open after {}", case.name, answer.status));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), CASES.len(), wrong.join("\n"));
    watcher.wait_more(100);
    watcher.finish().assert_lossless(100);
    server.assert_alive();
}

#[test]
fn options_lists_every_method_a_client_may_use() {
    let server = Server::start();
    let mut client = Rtsp::connect(&server);
    let url = client.url("cam");
    let answer = client.request("OPTIONS", &url, &[], "");
    let public: Vec<_> = answer.header("Public").expect("Public").split(',').map(str::trim).collect();
    for method in ["DESCRIBE", "ANNOUNCE", "SETUP", "PLAY", "RECORD", "PAUSE", "GET_PARAMETER", "TEARDOWN"] {
        assert!(public.contains(&method), "{method} is not in {public:?}");
    }
}

#[test]
fn a_transport_that_is_switched_off_is_refused_with_461_and_the_other_one_then_works() {
    for (on, refused, accepted) in [
        ("tcp", "RTP/AVP;unicast;client_port=41000-41001", "RTP/AVP/TCP;unicast;interleaved=0-1"),
        ("udp", "RTP/AVP/TCP;unicast;interleaved=0-1", "RTP/AVP;unicast;client_port=41000-41001"),
    ] {
        let server = Server::with(&format!("rtspTransports: [{on}]\n"), "  all_others:\n");
        let publisher_transport = if on == "tcp" { "tcp" } else { "udp" };
        let clip = crate::support::media::h264_aac();
        let _publisher =
            crate::support::tools::ffmpeg_publish(&server, "cam", &clip.file, publisher_transport);
        server.wait_live("cam");
        let mut client = Rtsp::connect(&server);
        client.describe("cam");
        let control = client.controls[0].clone();
        assert_eq!(client.setup(&control, refused).status, 461, "only {on} is on");
        // 461 is how a client learns to try the next transport: the connection must stay.
        assert_eq!(client.setup(&control, accepted).status, 200, "{on} is on");
    }
}

#[test]
fn the_first_acceptable_transport_of_a_list_is_taken() {
    let server = Server::with("rtspTransports: [tcp]\n", "  all_others:\n");
    let camera = Camera::publish(&server, "cam", CameraPlan::default());
    camera.wait_frames(1);
    let mut client = Rtsp::connect(&server);
    client.describe("cam");
    let control = client.controls[0].clone();
    let list = "RTP/AVP;unicast;client_port=41000-41001,RTP/AVP/TCP;unicast;interleaved=4-5";
    let answer = client.setup(&control, list);
    assert_eq!(answer.status, 200, "{answer:?}");
    let transport = answer.header("Transport").expect("Transport");
    assert!(transport.contains("interleaved=4-5"), "{transport}");
    assert_eq!(client.play().status, 200);
    let frame = client.frame(PATIENCE).expect("media");
    assert!(frame.channel == 4 || frame.channel == 5, "media on channel {}", frame.channel);
}

#[test]
fn both_tracks_on_one_channel_pair_are_refused_or_parted() {
    let server = Server::start();
    let clip = crate::support::media::h264_aac();
    let _publisher = crate::support::tools::ffmpeg_publish(&server, "cam", &clip.file, "tcp");
    server.wait_live("cam");
    let mut client = Rtsp::connect(&server);
    client.describe("cam");
    let [first, second] = [client.controls[0].clone(), client.controls[1].clone()];
    assert_eq!(client.setup(&first, "RTP/AVP/TCP;unicast;interleaved=0-1").status, 200);
    let answer = client.setup(&second, "RTP/AVP/TCP;unicast;interleaved=0-1");
    match answer.status {
        400 => assert!(client.closed_within(PATIENCE)),
        200 => assert!(!answer.header("Transport").unwrap().contains("interleaved=0-1"), "{answer:?}"),
        other => panic!("{other}"),
    }
}

#[test]
fn tracks_over_different_transports_are_refused() {
    let server = Server::start();
    let clip = crate::support::media::h264_aac();
    let _publisher = crate::support::tools::ffmpeg_publish(&server, "cam", &clip.file, "tcp");
    server.wait_live("cam");
    let mut client = Rtsp::connect(&server);
    client.describe("cam");
    let [first, second] = [client.controls[0].clone(), client.controls[1].clone()];
    assert_eq!(client.setup(&first, "RTP/AVP/TCP;unicast;interleaved=0-1").status, 200);
    assert_eq!(client.setup(&second, "RTP/AVP;unicast;client_port=41000-41001").status, 400);
    assert!(client.closed_within(PATIENCE));
}

#[test]
fn a_session_is_of_no_use_to_another_address() {
    let mut server = Server::start();
    let camera = Camera::publish(&server, "cam", CameraPlan::default());
    camera.wait_frames(1);
    let mut owner = Rtsp::connect(&server);
    owner.setup_all_tcp("cam");
    let mut thief = Rtsp::connect_from(&server, Ipv4Addr::new(127, 0, 0, 2), None);
    thief.session = owner.session.clone();
    let url = owner.content_base.clone();
    let answer = thief.request("PLAY", &url, &[], "");
    assert!(matches!(answer.status, 400 | 454), "{answer:?}");
    let answer = thief.request("TEARDOWN", &url, &[], "");
    assert!(matches!(answer.status, 400 | 454 | CLOSED), "{answer:?}");
    // The owner goes on as if nothing had happened.
    assert_eq!(owner.play().status, 200);
    let mut flow = crate::support::Flow::of(&camera);
    flow.read(&mut owner, 50);
    flow.assert_lossless(50);
    server.assert_alive();
}

/// A publisher that sends `bytes` in the middle of its stream. It may be closed or ignored; nobody else notices.
fn a_publisher_sends(server: &Server, what: &str, must_close: bool, bytes: &[u8]) {
    let mut victim = camera::announce(server, "victim");
    let mut good = vec![0x80, 0x80 | 96, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4, 0x65, 0x88, 0x84, 0x21];
    assert!(victim.send_frame(0, &good));
    victim.send_raw(bytes);
    good[3] = 2;
    victim.send_frame(0, &good);
    if must_close {
        assert!(victim.closed_within(PATIENCE), "{what}: the publisher is not closed");
    } else {
        let url = victim.url("victim");
        let answer = victim.request("GET_PARAMETER", &url, &[], "");
        assert!(matches!(answer.status, 200 | CLOSED), "{what}: {answer:?}");
    }
    drop(victim);
    server.wait_gone("victim");
}

fn interleaved(channel: u8, rtp: &[u8]) -> Vec<u8> {
    let mut frame = vec![b'$', channel, 0, rtp.len() as u8];
    frame.extend_from_slice(rtp);
    frame
}

#[test]
fn bad_media_of_one_publisher_harms_no_other_stream() {
    let mut server = Server::with("", PATHS);
    let (_camera, watcher) = beside(&server);
    let rtp = |payload: &[u8]| {
        let mut packet = vec![0x80, 0x80 | 96, 0, 9, 0, 0, 1, 0, 1, 2, 3, 4];
        packet.extend_from_slice(payload);
        interleaved(0, &packet)
    };
    a_publisher_sends(
        &server,
        "garbage between frames",
        true,
        b"\x01\x02\x03 what is this \xff\xff\r\n\r\n\r\n",
    );
    a_publisher_sends(
        &server,
        "RTP version 1",
        false,
        &interleaved(0, &[0x40, 96, 0, 5, 0, 0, 0, 0, 1, 2, 3, 4, 0x65]),
    );
    a_publisher_sends(&server, "an empty frame", false, &interleaved(0, &[]));
    a_publisher_sends(&server, "half an RTP header", false, &interleaved(0, &[0x80, 96, 0, 5]));
    a_publisher_sends(
        &server,
        "more padding than packet",
        false,
        &interleaved(0, &[0xA0, 96, 0, 5, 0, 0, 0, 0, 1, 2, 3, 4, 0x65, 0xFF]),
    );
    a_publisher_sends(
        &server,
        "an extension beyond the end",
        false,
        &interleaved(0, &[0x90, 96, 0, 5, 0, 0, 0, 0, 1, 2, 3, 4, 0xBE, 0xDE, 0xFF, 0xFF]),
    );
    a_publisher_sends(
        &server,
        "15 CSRCs beyond the end",
        false,
        &interleaved(0, &[0x8F, 96, 0, 5, 0, 0, 0, 0, 1, 2, 3, 4, 0x65]),
    );
    a_publisher_sends(
        &server,
        "another payload type",
        false,
        &interleaved(0, &[0x80, 77, 0, 5, 0, 0, 0, 0, 1, 2, 3, 4, 0x65]),
    );
    a_publisher_sends(&server, "no payload", false, &rtp(&[]));
    a_publisher_sends(&server, "a truncated FU-A", false, &rtp(&[0x7C]));
    a_publisher_sends(&server, "an FU-A that never began", false, &rtp(&[0x7C, 0x45, 1, 2]));
    a_publisher_sends(&server, "a STAP-A longer than its packet", false, &rtp(&[0x78, 0xFF, 0xFF, 0x65]));
    a_publisher_sends(&server, "a NAL unit of type 0", false, &rtp(&[0x00, 1, 2]));
    a_publisher_sends(
        &server,
        "a channel nobody set up",
        false,
        &interleaved(77, &[0x80, 96, 0, 5, 0, 0, 0, 0, 1, 2, 3, 4]),
    );
    a_publisher_sends(&server, "a truncated sender report", false, &interleaved(1, &[0x80, 200, 0, 6, 1, 2]));
    a_publisher_sends(
        &server,
        "RTCP of odd length",
        false,
        &interleaved(1, &[0x81, 203, 0xFF, 0xFF, 1, 2, 3]),
    );
    watcher.wait_more(100);
    watcher.finish().assert_lossless(100);
    server.assert_alive();
}

#[test]
fn media_before_any_session_is_not_answered_with_harm() {
    let mut server = Server::with("", PATHS);
    let (_camera, watcher) = beside(&server);
    for _ in 0..20 {
        let mut client = Rtsp::connect(&server);
        client.send_raw(&interleaved(0, &[0x80, 96, 0, 5, 0, 0, 0, 0, 1, 2, 3, 4, 0x65]));
        client.send_raw(b"OPTIONS * RTSP/1.0\r\n"); // … and leaves in the middle of a request
    }
    watcher.wait_more(50);
    watcher.finish().assert_lossless(50);
    server.assert_alive();
}

#[test]
fn strangers_datagrams_on_the_media_ports_harm_no_stream() {
    let mut server = Server::with("", PATHS);
    let (_camera, watcher) = beside(&server);
    let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for n in 0..200_u16 {
        let mut noise = vec![0x80, 96, (n >> 8) as u8, n as u8];
        noise.resize(usize::from(n) * 7 + 1, 0xA5);
        for port in [server.rtp_port, server.rtp_port + 1] {
            stranger.send_to(&noise, ("127.0.0.1", port)).unwrap();
        }
    }
    watcher.wait_more(50);
    watcher.finish().assert_lossless(50);
    server.assert_alive();
}

#[test]
fn a_request_is_understood_however_it_is_cut() {
    let server = Server::start();
    let camera = Camera::publish(&server, "cam", CameraPlan::default());
    camera.wait_frames(1);
    let mut client = Rtsp::connect(&server);
    let text =
        format!("DESCRIBE {} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n", server.url("cam"));
    for byte in text.as_bytes().chunks(3) {
        assert!(client.send_raw(byte));
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(client.response().status, 200);
    // Two requests in one segment are two answers, in order.
    let two = format!(
        "OPTIONS {u} RTSP/1.0\r\nCSeq: 2\r\n\r\nOPTIONS {u} RTSP/1.0\r\nCSeq: 3\r\n\r\n",
        u = server.url("cam")
    );
    assert!(client.send_raw(two.as_bytes()));
    for cseq in ["2", "3"] {
        assert_eq!(client.response().header("CSeq"), Some(cseq));
    }
}
