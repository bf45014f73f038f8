//! Scripts of requests and what a session answers.

use super::*;
use corecast_media::track::{Codec, Kind};

#[derive(Default)]
struct Relay {
    tcp_off: bool,
    udp_off: bool,
    /// Refuses everything that asks for the path.
    closed: bool,
    log: Vec<String>,
}

impl Host for Relay {
    fn offers(&self, lower: Lower) -> bool {
        match lower {
            Lower::Tcp => !self.tcp_off,
            Lower::Udp => !self.udp_off,
        }
    }

    fn server_ports(&self) -> (u16, u16) {
        (8000, 8001)
    }

    fn announce(&mut self, stream: &PathAndQuery) -> Result<(), Refusal> {
        self.log.push(format!("announce {}", stream.path));
        if self.closed { Err(Refusal::bad_request("closed")) } else { Ok(()) }
    }

    fn join(&mut self, stream: &PathAndQuery) -> Result<usize, Refusal> {
        self.log.push(format!("join {}", stream.path));
        if self.closed { Err(Refusal::new(Status::NOT_FOUND, "nobody publishes")) } else { Ok(2) }
    }

    fn ssrc(&self, _: usize) -> Option<u32> {
        Some(0x1e7e_04ed)
    }

    fn play(&mut self, medias: &[Media]) -> Result<Vec<StartPoint>, Refusal> {
        self.log.push(format!("play {}", medias.len()));
        let start = StartPoint { sequence: Some(7), rtp_time: Some(9000) };
        Ok(vec![start; medias.len()])
    }

    fn record(&mut self, description: &sdp::SessionDescription, medias: &[Media]) -> Result<(), Refusal> {
        assert_eq!(description.tracks.len(), medias.len());
        self.log.push(format!("record {}", medias.len()));
        Ok(())
    }

    fn pause(&mut self) {
        self.log.push("pause".into());
    }
}

const SDP: &str = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\n\
    m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:streamid=0\r\n\
    m=audio 0 RTP/AVP 97\r\na=rtpmap:97 opus/48000/2\r\na=control:streamid=1\r\n";

fn session() -> Session {
    Session::new("0123456789abcdef0123456789abcdef".into())
}

fn request(method: Method, url: &str) -> Request {
    Request::new(method, url)
}

fn setup(url: &str, transport: &str) -> Request {
    request(Method::Setup, url).header("Transport", transport)
}

fn announce() -> Request {
    request(Method::Announce, "rtsp://h/cam").body("application/sdp", SDP)
}

fn status(answer: Result<Response, Refusal>) -> u16 {
    answer.map_or_else(|refusal| refusal.status.0, |response| response.status.0)
}

/// A session that has both tracks set up over TCP.
fn reader(relay: &mut Relay) -> Session {
    let mut session = session();
    for track in 0..2 {
        let channels = format!("RTP/AVP/TCP;unicast;interleaved={}-{}", 2 * track, 2 * track + 1);
        let answer =
            session.handle(&setup(&format!("rtsp://h/cam/trackID={track}"), &channels), relay).unwrap();
        assert_eq!(answer.headers.get("Transport"), Some(&*format!("{channels};ssrc=1E7E04ED")));
        assert_eq!(answer.headers.get("Session"), Some("0123456789abcdef0123456789abcdef;timeout=55"));
    }
    session
}

#[test]
fn a_reader_sets_up_plays_pauses_and_plays_again() {
    let mut relay = Relay::default();
    let mut session = reader(&mut relay);
    assert!(!session.is_playing());
    let answer = session.handle(&request(Method::Play, "rtsp://h/cam/"), &mut relay).unwrap();
    assert_eq!(
        answer.headers.get("RTP-Info"),
        Some("url=rtsp://h/cam/trackID=0;seq=7;rtptime=9000,url=rtsp://h/cam/trackID=1;seq=7;rtptime=9000")
    );
    assert!(session.is_playing());
    assert_eq!(status(session.handle(&request(Method::Play, "rtsp://h/cam/"), &mut relay)), 200);
    assert_eq!(status(session.handle(&request(Method::Pause, "rtsp://h/cam/"), &mut relay)), 200);
    assert!(!session.is_playing());
    assert_eq!(status(session.handle(&request(Method::Play, "rtsp://h/cam"), &mut relay)), 200);
    assert_eq!(status(session.handle(&request(Method::Teardown, "rtsp://h/cam/"), &mut relay)), 200);
    assert!(session.is_ended());
    assert_eq!(relay.log, ["join cam", "play 2", "pause", "play 2", "pause"]);
}

#[test]
fn a_publisher_announces_sets_up_and_records() {
    let mut relay = Relay::default();
    let mut session = session();
    assert_eq!(session.handle(&announce(), &mut relay).unwrap().headers.get("Session"), None);
    assert_eq!(session.announced()[0].codec, Codec::H264);
    assert_eq!(session.announced()[1].kind, Kind::Audio);
    let record = request(Method::Record, "rtsp://h/cam");
    for (track, ports) in ["26010-26011", "26012-26013"].into_iter().enumerate() {
        let transport = format!("RTP/AVP/UDP;unicast;client_port={ports};mode=record");
        let answer =
            session.handle(&setup(&format!("rtsp://h/cam/streamid={track}"), &transport), &mut relay);
        let expected = format!("RTP/AVP;unicast;client_port={ports};server_port=8000-8001");
        assert_eq!(answer.unwrap().headers.get("Transport"), Some(&*expected));
    }
    assert_eq!(status(session.handle(&record, &mut relay)), 200);
    assert!(session.is_recording());
    assert_eq!(session.lower(), Some(Lower::Udp));
    assert_eq!(status(session.handle(&request(Method::Pause, "rtsp://h/cam"), &mut relay)), 200);
    assert_eq!(status(session.handle(&record, &mut relay)), 200);
    assert_eq!(relay.log, ["announce cam", "record 2", "pause", "record 2"]);
}

#[test]
fn recording_before_all_medias_are_set_up_is_refused() {
    let mut relay = Relay::default();
    let mut session = session();
    session.handle(&announce(), &mut relay).unwrap();
    let transport = "RTP/AVP/TCP;unicast;interleaved=0-1;mode=record";
    session.handle(&setup("rtsp://h/cam/streamid=0", transport), &mut relay).unwrap();
    assert_eq!(status(session.handle(&request(Method::Record, "rtsp://h/cam"), &mut relay)), 400);
}

#[test]
fn the_clients_first_transport_that_is_enabled_is_taken() {
    let both = "RTP/AVP;unicast;client_port=5000-5001,RTP/AVP/TCP;unicast;interleaved=0-1";
    for (relay, expected) in [
        (Relay::default(), "RTP/AVP;unicast;client_port=5000-5001;server_port=8000-8001;ssrc=1E7E04ED"),
        (Relay { udp_off: true, ..Relay::default() }, "RTP/AVP/TCP;unicast;interleaved=0-1;ssrc=1E7E04ED"),
    ] {
        let mut relay = relay;
        let answer = session().handle(&setup("rtsp://h/cam/trackID=0", both), &mut relay).unwrap();
        assert_eq!(answer.headers.get("Transport"), Some(expected));
    }
}

#[test]
fn channels_are_the_clients_if_they_are_a_pair_else_the_next_free_ones() {
    let mut relay = Relay::default();
    for (wanted, got) in [("interleaved=6-7", "6-7"), ("interleaved=3-9", "0-1"), ("", "0-1")] {
        let mut session = session();
        let transport = format!("RTP/AVP/TCP;unicast;{wanted}");
        let answer = session.handle(&setup("rtsp://h/cam/trackID=0", &transport), &mut relay).unwrap();
        let expected = format!("RTP/AVP/TCP;unicast;interleaved={got};ssrc=1E7E04ED");
        assert_eq!(answer.headers.get("Transport"), Some(&*expected), "{wanted}");
    }
}

#[test]
fn what_a_session_cannot_do_has_its_status() {
    let tcp = "RTP/AVP/TCP;unicast;interleaved=0-1";
    let record = "RTP/AVP/TCP;unicast;interleaved=0-1;mode=record";
    type Script = (&'static str, u16, fn(&mut Relay) -> Session, Request);
    let fresh: fn(&mut Relay) -> Session = |_| session();
    let announced: fn(&mut Relay) -> Session = |relay| {
        let mut session = session();
        session.handle(&announce(), relay).unwrap();
        session
    };
    let playing: fn(&mut Relay) -> Session = |relay| {
        let mut session = reader(relay);
        session.handle(&request(Method::Play, "rtsp://h/cam"), relay).unwrap();
        session
    };
    let scripts: Vec<Script> = vec![
        ("PLAY before SETUP", 400, fresh, request(Method::Play, "rtsp://h/cam")),
        ("RECORD before ANNOUNCE", 400, fresh, request(Method::Record, "rtsp://h/cam")),
        ("PAUSE before SETUP", 400, fresh, request(Method::Pause, "rtsp://h/cam")),
        ("SETUP without a Transport", 400, fresh, request(Method::Setup, "rtsp://h/cam/trackID=0")),
        ("SETUP with nonsense", 400, fresh, setup("rtsp://h/cam/trackID=0", "pigeons")),
        ("SETUP without a track", 400, fresh, setup("rtsp://h/cam", tcp)),
        ("SETUP of a track that is not there", 400, fresh, setup("rtsp://h/cam/trackID=2", tcp)),
        ("SETUP of no path", 400, fresh, setup("rtsp://h/", tcp)),
        ("SETUP of no URL", 400, fresh, setup("cam", tcp)),
        ("multicast", 461, fresh, setup("rtsp://h/cam/trackID=0", "RTP/AVP;multicast")),
        ("SRTP", 461, fresh, setup("rtsp://h/cam/trackID=0", "RTP/SAVP;unicast;client_port=1-2")),
        ("UDP without ports", 461, fresh, setup("rtsp://h/cam/trackID=0", "RTP/AVP;unicast")),
        ("record without ANNOUNCE", 400, fresh, setup("rtsp://h/cam/trackID=0", record)),
        ("track twice", 400, reader, setup("rtsp://h/cam/trackID=0", "RTP/AVP/TCP;unicast;interleaved=4-5")),
        ("another path", 400, reader, setup("rtsp://h/other/trackID=0", "RTP/AVP/TCP;unicast")),
        ("PLAY of another path", 400, reader, request(Method::Play, "rtsp://h/other")),
        ("ANNOUNCE by a reader", 400, reader, announce()),
        ("SETUP while playing", 400, playing, setup("rtsp://h/cam/trackID=0", tcp)),
        ("RECORD by a reader", 400, playing, request(Method::Record, "rtsp://h/cam")),
        ("ANNOUNCE twice", 400, announced, announce()),
        ("PLAY by a publisher", 400, announced, request(Method::Play, "rtsp://h/cam")),
        ("play mode after ANNOUNCE", 400, announced, setup("rtsp://h/cam/streamid=0", tcp)),
        ("unknown control", 400, announced, setup("rtsp://h/cam/streamid=7", record)),
        ("unknown method", 501, reader, request(Method::Other("DANCE".into()), "rtsp://h/cam")),
    ];
    for (name, expected, prepare, request) in scripts {
        let mut relay = Relay::default();
        let mut session = prepare(&mut relay);
        assert_eq!(status(session.handle(&request, &mut relay)), expected, "{name}");
    }
}

#[test]
fn one_session_keeps_to_one_transport_and_one_pair_per_track() {
    let mut relay = Relay::default();
    let mut session = session();
    session
        .handle(&setup("rtsp://h/cam/trackID=0", "RTP/AVP/TCP;unicast;interleaved=0-1"), &mut relay)
        .unwrap();
    for transport in ["RTP/AVP;unicast;client_port=5000-5001", "RTP/AVP/TCP;unicast;interleaved=1-2"] {
        assert_eq!(status(session.handle(&setup("rtsp://h/cam/trackID=1", transport), &mut relay)), 400);
    }
}

#[test]
fn announcements_that_cannot_be_published_are_refused() {
    let mut relay = Relay::default();
    for (name, body, content_type) in [
        ("no content type", SDP, ""),
        ("wrong content type", SDP, "text/html"),
        ("no media", "v=0\r\ns=x\r\nt=0 0\r\n", "application/sdp"),
        ("nonsense", "hello", "application/sdp"),
    ] {
        let request = request(Method::Announce, "rtsp://h/cam").body(content_type, body);
        assert_eq!(status(session().handle(&request, &mut relay)), 400, "{name}");
    }
    assert!(relay.log.is_empty(), "the path was asked for in vain");
    relay.closed = true;
    assert_eq!(status(session().handle(&announce(), &mut relay)), 400);
}

#[test]
fn a_path_that_refuses_gives_its_own_status() {
    let mut relay = Relay { closed: true, ..Relay::default() };
    let answer = session().handle(&setup("rtsp://h/cam/trackID=0", "RTP/AVP/TCP;unicast"), &mut relay);
    assert_eq!(status(answer), 404);
}

#[test]
fn keep_alives_are_answered_in_any_state() {
    let mut relay = Relay::default();
    for method in [Method::GetParameter, Method::SetParameter, Method::Options] {
        let mut session = reader(&mut relay);
        let answer = session.handle(&request(method, "rtsp://h/cam"), &mut relay).unwrap();
        assert_eq!(answer.status, Status::OK);
        assert!(answer.headers.get("Session").is_some());
    }
}

#[test]
fn queries_of_ffmpeg_and_gstreamer_come_back_in_track_urls() {
    let mut relay = Relay::default();
    for setup_url in ["rtsp://h/cam?token=x/trackID=0", "rtsp://h/cam/trackID=0?token=x"] {
        let mut session = session();
        session.handle(&setup(setup_url, "RTP/AVP/TCP;unicast"), &mut relay).unwrap();
        let answer = session.handle(&request(Method::Play, "rtsp://h/cam?token=x/"), &mut relay).unwrap();
        let info = answer.headers.get("RTP-Info").unwrap();
        assert!(info.starts_with("url=rtsp://h/cam?token=x/trackID=0"), "{info}");
    }
}

#[test]
fn the_stream_of_a_request_is_found_before_a_session_exists() {
    let name = |request: &Request| stream_of(request).map(|stream| stream.path);
    assert_eq!(name(&request(Method::Describe, "rtsp://h/cam/")), Some("cam".into()));
    assert_eq!(name(&setup("rtsp://h/a/b/trackID=1", "x")), Some("a/b".into()));
    assert_eq!(name(&request(Method::Play, "rtsp://h/cam")), None);
    assert_eq!(name(&request(Method::Describe, "rtsp://h")), None);
}
