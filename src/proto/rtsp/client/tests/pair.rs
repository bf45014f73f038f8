//! Our two halves, joined in memory: what the client asks for is what the server grants.

use std::time::Instant;

use corecast_media::{Kind, Track};

use crate::{
    rtsp::{
        Limits, Lower, Method, Parsed, Response, Status,
        client::{Client, ClientSettings, PulledMedia, Route, SourceUrl, Step, Wanted, watched::Owner},
        parse_request, parse_response,
        server::{Delivery, Host, Media, Refusal, Session, StartPoint},
        url::PathAndQuery,
    },
    sdp,
};

/// A relay with one stream, and what it was asked to play.
struct Relay {
    tracks: Vec<Track>,
    offers: &'static [Lower],
    playing: Vec<Media>,
}

impl Host for Relay {
    fn offers(&self, lower: Lower) -> bool {
        self.offers.contains(&lower)
    }

    fn server_ports(&self) -> (u16, u16) {
        (8000, 8001)
    }

    fn announce(&mut self, _: &PathAndQuery) -> Result<(), Refusal> {
        Err(Refusal::bad_request("nobody publishes here"))
    }

    fn join(&mut self, stream: &PathAndQuery) -> Result<usize, Refusal> {
        assert_eq!((stream.path.as_str(), stream.query.as_str()), ("cam", "a=b"));
        Ok(self.tracks.len())
    }

    fn ssrc(&self, _: usize) -> Option<u32> {
        None
    }

    fn play(&mut self, medias: &[Media]) -> Result<Vec<StartPoint>, Refusal> {
        self.playing = medias.to_vec();
        Ok(vec![StartPoint::default(); medias.len()])
    }

    fn record(&mut self, _: &sdp::SessionDescription, _: &[Media]) -> Result<(), Refusal> {
        Err(Refusal::bad_request("nobody publishes here"))
    }

    fn pause(&mut self) {
        self.playing.clear();
    }
}

/// Lets both talk until the client has nothing more to say.
fn talk(
    client: &mut Client,
    owner: &mut Owner,
    session: &mut Session,
    relay: &mut Relay,
    now: Instant,
) -> Step {
    let mut step = Step::GoOn;
    loop {
        let mut said = Vec::new();
        client.take_outgoing(&mut said);
        if said.is_empty() {
            return step;
        }
        let Ok(Parsed::Complete { value: request, consumed }) = parse_request(&said, &Limits::default())
        else {
            panic!("no request: {}", said.escape_ascii());
        };
        assert_eq!(consumed, said.len());
        let answer = match request.method {
            Method::Describe => Ok(Response::new(Status::OK)
                .header("Content-Base", format!("{}/", request.url))
                .body("application/sdp", sdp::write("pair", &relay.tracks))),
            _ => session.handle(&request, relay),
        };
        let answer = answer.unwrap_or_else(|refusal| Response::new(refusal.status));
        let mut bytes = Vec::new();
        answer.header("CSeq", request.headers.get("CSeq").unwrap()).write_to(&mut bytes);
        let Ok(Parsed::Complete { value, .. }) = parse_response(&bytes, &Limits::default()) else {
            panic!("no response: {}", bytes.escape_ascii());
        };
        step = client.on_response(&value, now, owner).unwrap();
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
fn client_and_server_agree_on_every_transport() {
    const BOTH: &[Lower] = &[Lower::Udp, Lower::Tcp];
    let description = b"m=video 0 RTP/AVP 96\na=rtpmap:96 H264/90000\nm=audio 0 RTP/AVP 0\n";
    for (transport, offers, lower) in [
        (Wanted::Tcp, BOTH, Lower::Tcp),
        (Wanted::Udp, BOTH, Lower::Udp),
        (Wanted::UdpThenTcp, BOTH, Lower::Udp),
        (Wanted::UdpThenTcp, &[Lower::Tcp][..], Lower::Tcp),
    ] {
        let tracks = sdp::parse(description).unwrap().tracks;
        assert_eq!(tracks[0].kind, Kind::Video);
        let mut relay = Relay { tracks, offers, playing: Vec::new() };
        let mut session = Session::new("0123456789abcdef0123456789abcdef".to_owned());
        let url = SourceUrl::parse("rtsp://relay:8554/cam?a=b").unwrap();
        let settings = ClientSettings { url, transport, range: None, scale: None };
        let (now, mut owner) = (Instant::now(), Owner::default());
        let mut client = Client::new(settings, now);
        let step = talk(&mut client, &mut owner, &mut session, &mut relay, now);
        assert_eq!(step, Step::Playing, "{transport:?}");
        assert!(session.is_playing() && session.lower() == Some(lower), "{transport:?}");
        let granted = relay.playing.iter().map(|media| {
            let route = match media.delivery {
                Delivery::Tcp { channel } => Route::Tcp { channel },
                Delivery::Udp { rtp_port, rtcp_port } => Route::Udp {
                    ours: (rtp_port, rtcp_port),
                    theirs: Some(relay.server_ports()),
                    source: None,
                },
            };
            PulledMedia { track: media.track, route }
        });
        assert_eq!(granted.collect::<Vec<_>>(), owner.set_up, "{transport:?}");
        assert_eq!(owner.set_up.len(), 2);
        client.on_timeout(client.poll_timeout().unwrap());
        talk(&mut client, &mut owner, &mut session, &mut relay, now);
        assert!(session.is_playing(), "kept alive");
        client.teardown();
        talk(&mut client, &mut owner, &mut session, &mut relay, now);
        assert!(session.is_ended() && relay.playing.is_empty());
    }
}
