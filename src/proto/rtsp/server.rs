//! A client's session at the server: what ANNOUNCE, SETUP, PLAY and RECORD make of it (RFC 2326 §10, appendix
//! A.2).
//!
//! Knows what may follow what and what each answer has to say. What a path is, who may have it and how
//! packets get there is the [`Host`]'s affair. Statuses are MediaMTX's (contract §4.3), so that its clients
//! see no difference.

use corecast_media::track::Track;

use super::{
    Lower, Method, Mode, Profile, Request, Response, Status, Transport,
    headers::{RtpInfo, RtpInfoEntry, parse_transports},
    url::{PathAndQuery, match_control, parse_url, split_track, strip_trailing_slash},
};
use crate::sdp;

/// What OPTIONS answers in `Public`.
pub const PUBLIC_METHODS: &str =
    "DESCRIBE, ANNOUNCE, SETUP, PLAY, RECORD, PAUSE, GET_PARAMETER, SET_PARAMETER, TEARDOWN";

/// Seconds within which a client should be heard of, as told in every `Session` header. We wait longer (pain
/// 41 of the field: players that are late with their keep-alives).
pub const SESSION_TIMEOUT_TOLD: u32 = 55;

/// A request that cannot be granted: its status, and the reason for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub status: Status,
    pub reason: String,
}

impl Refusal {
    pub fn new(status: Status, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into() }
    }

    pub fn bad_request(reason: impl Into<String>) -> Self {
        Self::new(Status::BAD_REQUEST, reason)
    }
}

/// How one track gets to or from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Interleaved; RTP on this channel, RTCP on the next.
    Tcp { channel: u8 },
    /// Ports of the client.
    Udp { rtp_port: u16, rtcp_port: u16 },
}

impl Delivery {
    fn lower(self) -> Lower {
        match self {
            Self::Tcp { .. } => Lower::Tcp,
            Self::Udp { .. } => Lower::Udp,
        }
    }
}

/// One track that was set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Media {
    pub track: usize,
    pub delivery: Delivery,
}

/// Where a track stands when a reader starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StartPoint {
    pub sequence: Option<u16>,
    pub rtp_time: Option<u32>,
}

/// What a session asks of the relay. Everything is answered at once.
pub trait Host {
    /// Which lower transports are on.
    fn offers(&self, lower: Lower) -> bool;
    /// Our UDP ports, RTP and RTCP.
    fn server_ports(&self) -> (u16, u16);
    /// A publisher announces itself: may it have this path?
    fn announce(&mut self, stream: &PathAndQuery) -> Result<(), Refusal>;
    /// Registers the session as a reader. Returns how many tracks there are.
    fn join(&mut self, stream: &PathAndQuery) -> Result<usize, Refusal>;
    /// SSRC of a track, once known.
    fn ssrc(&self, track: usize) -> Option<u32>;
    /// Media may flow to the client; where does each of its tracks start?
    fn play(&mut self, medias: &[Media]) -> Result<Vec<StartPoint>, Refusal>;
    /// Media may flow from the client.
    fn record(&mut self, description: &sdp::SessionDescription, medias: &[Media]) -> Result<(), Refusal>;
    /// Media stops, the session stays: a reader keeps its registration, a publisher loses the path.
    fn pause(&mut self);
}

#[derive(Debug)]
enum State {
    Initial,
    /// A registered reader of a path with `tracks` tracks.
    Reading {
        tracks: usize,
        medias: Vec<Media>,
        playing: bool,
    },
    /// A publisher; `medias` by announced track.
    Publishing {
        description: sdp::SessionDescription,
        medias: Vec<Option<Media>>,
        recording: bool,
    },
    Ended,
}

/// See the module.
#[derive(Debug)]
pub struct Session {
    /// As in the `Session` header: 32 hexadecimal digits.
    id: String,
    state: State,
    stream: Option<PathAndQuery>,
}

impl Session {
    pub fn new(id: String) -> Self {
        Self { id, state: State::Initial, stream: None }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// The stream it is about, once a request named one.
    pub fn stream(&self) -> Option<&PathAndQuery> {
        self.stream.as_ref()
    }

    /// Media flows to the client.
    pub fn is_playing(&self) -> bool {
        matches!(self.state, State::Reading { playing: true, .. })
    }

    /// Media flows from the client.
    pub fn is_recording(&self) -> bool {
        matches!(self.state, State::Publishing { recording: true, .. })
    }

    /// TEARDOWN was answered.
    pub fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Transport of what was set up, if anything was.
    pub fn lower(&self) -> Option<Lower> {
        match &self.state {
            State::Reading { medias, .. } => medias.first().map(|media| media.delivery.lower()),
            State::Publishing { medias, .. } => {
                medias.iter().flatten().next().map(|media| media.delivery.lower())
            }
            State::Initial | State::Ended => None,
        }
    }

    /// The tracks a publisher announced.
    pub fn announced(&self) -> &[Track] {
        match &self.state {
            State::Publishing { description, .. } => &description.tracks,
            _ => &[],
        }
    }

    /// Answers a request that belongs to the session. The caller adds `CSeq`, and ends a session (and its
    /// connection) whose answer is an error.
    pub fn handle(&mut self, request: &Request, host: &mut impl Host) -> Result<Response, Refusal> {
        let response = match request.method {
            Method::Announce => return self.announce(request, host),
            Method::Setup => self.setup(request, host)?,
            Method::Play => self.play(request, host)?,
            Method::Record => self.record(request, host)?,
            Method::Pause => self.pause(host)?,
            Method::Teardown => {
                self.pause(host).ok();
                self.state = State::Ended;
                return Ok(Response::new(Status::OK));
            }
            // Keep-alives (pain 42: both must be answered 200).
            Method::GetParameter | Method::SetParameter => {
                Response::new(Status::OK).header("Content-Type", "text/parameters")
            }
            Method::Options => Response::new(Status::OK).header("Public", PUBLIC_METHODS),
            Method::Describe | Method::Other(_) => {
                return Err(Refusal::new(Status::NOT_IMPLEMENTED, "method not served in a session"));
            }
        };
        Ok(response.header("Session", format!("{};timeout={SESSION_TIMEOUT_TOLD}", self.id)))
    }

    fn announce(&mut self, request: &Request, host: &mut impl Host) -> Result<Response, Refusal> {
        let State::Initial = self.state else { return Err(wrong_state("ANNOUNCE")) };
        let content_type = request.headers.get("Content-Type").unwrap_or_default();
        if !content_type.to_ascii_lowercase().starts_with("application/sdp") {
            return Err(Refusal::bad_request(format!("unsupported content type '{content_type}'")));
        }
        let description = sdp::parse(&request.body)
            .map_err(|error| Refusal::bad_request(format!("invalid SDP: {error}")))?;
        if description.tracks.is_empty() {
            return Err(Refusal::bad_request("invalid SDP: no media that can be published"));
        }
        let stream = strip_trailing_slash(stream_url(request)?);
        host.announce(&stream)?;
        self.stream = Some(stream);
        let medias = vec![None; description.tracks.len()];
        self.state = State::Publishing { description, medias, recording: false };
        Ok(Response::new(Status::OK))
    }

    fn setup(&mut self, request: &Request, host: &mut impl Host) -> Result<Response, Refusal> {
        let header = request.headers.get("Transport").unwrap_or_default();
        let offered =
            parse_transports(header).map_err(|error| Refusal::bad_request(format!("{error}: '{header}'")))?;
        match &mut self.state {
            State::Initial | State::Reading { playing: false, .. } => {
                self.setup_read(request, &offered, host)
            }
            State::Publishing { recording: false, .. } => self.setup_publish(request, &offered, host),
            State::Reading { .. } | State::Publishing { .. } | State::Ended => Err(wrong_state("SETUP")),
        }
    }

    fn setup_read(
        &mut self,
        request: &Request,
        offered: &[Transport],
        host: &mut impl Host,
    ) -> Result<Response, Refusal> {
        let (stream, track) = split_track(&stream_url(request)?)
            .map_err(|error| Refusal::bad_request(format!("{error}: '{}'", request.url)))?;
        if self.stream.as_ref().is_some_and(|ours| ours.name() != stream.name()) {
            return Err(Refusal::bad_request("all tracks of a session must belong to one path"));
        }
        let transport = choose(offered, host)?;
        if transport.mode == Some(Mode::Record) {
            return Err(Refusal::bad_request("SETUP to record without ANNOUNCE"));
        }
        if let State::Initial = self.state {
            // From here the session is a reader of the path, whether or not this track can be had.
            let tracks = host.join(&stream)?;
            self.stream = Some(stream);
            self.state = State::Reading { tracks, medias: Vec::new(), playing: false };
        }
        let State::Reading { tracks, medias, .. } = &mut self.state else { return Err(wrong_state("SETUP")) };
        if track >= *tracks {
            return Err(Refusal::bad_request(format!("there is no track {track}")));
        }
        if medias.iter().any(|media| media.track == track) {
            return Err(Refusal::bad_request(format!("track {track} is set up already")));
        }
        let delivery = deliver(transport, medias)?;
        medias.push(Media { track, delivery });
        let ssrc = host.ssrc(track);
        Ok(Response::new(Status::OK).header("Transport", transport_answer(delivery, host, ssrc)))
    }

    fn setup_publish(
        &mut self,
        request: &Request,
        offered: &[Transport],
        host: &mut impl Host,
    ) -> Result<Response, Refusal> {
        let State::Publishing { description, medias, .. } = &mut self.state else {
            return Err(wrong_state("SETUP"));
        };
        let Some(announced) = &self.stream else { return Err(wrong_state("SETUP")) };
        let setup = stream_url(request)?;
        let controls = description.tracks.iter().map(|track| track.control.as_str());
        let track = match_control(&setup, announced, controls).ok_or_else(|| {
            Refusal::bad_request(format!("no announced media has the control '{}'", request.url))
        })?;
        let transport = choose(offered, host)?;
        if transport.mode != Some(Mode::Record) {
            return Err(Refusal::bad_request("transport mode must be 'record' after ANNOUNCE"));
        }
        if medias[track].is_some() {
            return Err(Refusal::bad_request(format!("track {track} is set up already")));
        }
        let others: Vec<_> = medias.iter().flatten().copied().collect();
        let delivery = deliver(transport, &others)?;
        medias[track] = Some(Media { track, delivery });
        Ok(Response::new(Status::OK).header("Transport", transport_answer(delivery, host, None)))
    }

    fn play(&mut self, request: &Request, host: &mut impl Host) -> Result<Response, Refusal> {
        let State::Reading { medias, playing, .. } = &mut self.state else { return Err(wrong_state("PLAY")) };
        let Some(stream) = &self.stream else { return Err(wrong_state("PLAY")) };
        same_path(request, stream)?;
        if medias.is_empty() {
            return Err(Refusal::bad_request("PLAY without a track set up"));
        }
        let response = Response::new(Status::OK);
        if *playing {
            return Ok(response);
        }
        let starts = host.play(medias)?;
        *playing = true;
        let entries = medias.iter().zip(starts).map(|(media, start)| RtpInfoEntry {
            url: track_url(stream, media.track),
            sequence: start.sequence,
            rtp_time: start.rtp_time,
        });
        Ok(response.header("RTP-Info", RtpInfo(entries.collect()).to_string()))
    }

    fn record(&mut self, request: &Request, host: &mut impl Host) -> Result<Response, Refusal> {
        let State::Publishing { description, medias, recording } = &mut self.state else {
            return Err(wrong_state("RECORD"));
        };
        let Some(stream) = &self.stream else { return Err(wrong_state("RECORD")) };
        same_path(request, stream)?;
        if *recording {
            return Err(wrong_state("RECORD"));
        }
        let ready: Option<Vec<Media>> = medias.iter().copied().collect();
        let ready = ready.ok_or_else(|| Refusal::bad_request("not all announced medias have been set up"))?;
        host.record(description, &ready)?;
        *recording = true;
        Ok(Response::new(Status::OK))
    }

    fn pause(&mut self, host: &mut impl Host) -> Result<Response, Refusal> {
        match &mut self.state {
            State::Reading { playing: flowing, .. } | State::Publishing { recording: flowing, .. } => {
                if std::mem::take(flowing) {
                    host.pause();
                }
                Ok(Response::new(Status::OK))
            }
            State::Initial | State::Ended => Err(wrong_state("PAUSE")),
        }
    }
}

/// The request URL, which must name a path.
///
/// # Errors
/// 400 when it is no RTSP URL or names none.
pub fn stream_url(request: &Request) -> Result<PathAndQuery, Refusal> {
    let url = parse_url(&request.url)
        .map_err(|error| Refusal::bad_request(format!("invalid URL '{}': {error}", request.url)))?;
    if url.path.is_empty() { Err(Refusal::bad_request("empty path")) } else { Ok(url) }
}

/// The stream that a request is about, for finding the shard it lives on. `None` when it names none.
pub fn stream_of(request: &Request) -> Option<PathAndQuery> {
    let url = stream_url(request).ok()?;
    match request.method {
        Method::Setup => split_track(&url).map(|(stream, _)| stream).ok(),
        Method::Describe | Method::Announce => Some(strip_trailing_slash(url)),
        _ => None,
    }
}

/// URL of a track, as in RTP-Info; the form that a client resolves from `Content-Base` and `a=control`.
fn track_url(stream: &PathAndQuery, track: usize) -> String {
    let path = PathAndQuery { query: String::new(), ..stream.clone() };
    match stream.query.as_str() {
        "" => format!("{path}/trackID={track}"),
        query => format!("{path}?{query}/trackID={track}"),
    }
}

fn same_path(request: &Request, stream: &PathAndQuery) -> Result<(), Refusal> {
    let url = stream_url(request)?;
    let aggregate = strip_trailing_slash(url.clone());
    let named = |url: &PathAndQuery| url.name() == stream.name();
    // Some clients send PLAY for a track although the session has several (RFC 2326 §10.5 would refuse that).
    if named(&aggregate) || split_track(&url).is_ok_and(|(url, _)| named(&url)) {
        Ok(())
    } else {
        Err(Refusal::bad_request(format!(
            "path has changed: '{}' instead of '{}'",
            aggregate.path, stream.path
        )))
    }
}

fn wrong_state(method: &str) -> Refusal {
    Refusal::bad_request(format!("{method} is not possible in this state"))
}

/// The first of the client's transports that we have.
fn choose<'a>(offered: &'a [Transport], host: &impl Host) -> Result<&'a Transport, Refusal> {
    offered
        .iter()
        .find(|transport| {
            transport.profile == Profile::Avp
                && !transport.multicast
                && host.offers(transport.lower)
                && (transport.lower == Lower::Tcp || transport.client_port.is_some())
        })
        .ok_or_else(|| Refusal::new(Status::UNSUPPORTED_TRANSPORT, "no transport that is served and enabled"))
}

fn deliver(transport: &Transport, others: &[Media]) -> Result<Delivery, Refusal> {
    if others.first().is_some_and(|other| other.delivery.lower() != transport.lower) {
        return Err(Refusal::bad_request("all tracks of a session must use one transport"));
    }
    match (transport.lower, transport.client_port) {
        (Lower::Udp, Some((rtp_port, rtcp_port))) => Ok(Delivery::Udp { rtp_port, rtcp_port }),
        (Lower::Udp, None) => Err(Refusal::bad_request("UDP transport without client ports")),
        (Lower::Tcp, _) => {
            let taken = |wanted: u8| {
                others.iter().any(|other| match other.delivery {
                    Delivery::Tcp { channel } => channel.abs_diff(wanted) < 2,
                    Delivery::Udp { .. } => false,
                })
            };
            let channel = match transport.interleaved {
                Some((rtp, rtcp)) if rtp.checked_add(1) == Some(rtcp) => {
                    if taken(rtp) {
                        return Err(Refusal::bad_request(format!("channels {rtp}-{rtcp} are in use")));
                    }
                    rtp
                }
                _ => (0..=254)
                    .step_by(2)
                    .find(|&channel| !taken(channel))
                    .ok_or_else(|| Refusal::bad_request("no channel is left"))?,
            };
            Ok(Delivery::Tcp { channel })
        }
    }
}

fn transport_answer(delivery: Delivery, host: &impl Host, ssrc: Option<u32>) -> String {
    let answer = match delivery {
        Delivery::Tcp { channel } => Transport {
            lower: Lower::Tcp,
            interleaved: Some((channel, channel + 1)),
            ssrc,
            ..Transport::default()
        },
        Delivery::Udp { rtp_port, rtcp_port } => Transport {
            client_port: Some((rtp_port, rtcp_port)),
            server_port: Some(host.server_ports()),
            ssrc,
            ..Transport::default()
        },
    };
    answer.to_string()
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
