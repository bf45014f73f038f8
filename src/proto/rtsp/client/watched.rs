//! A client whose every word is judged, whatever the server says: for fuzzing and for what must hold of all sessions.

use std::time::{Duration, Instant};

use super::{
    super::{Limits, Parsed, parse_request, parse_response},
    Client, ClientSettings, Host, Phase, PulledMedia, Route, SourceUrl, Step,
};
use crate::sdp::SessionDescription;

/// Whoever owns the connection, as far as the client can tell.
#[derive(Debug, Default)]
pub struct Owner {
    pub set_up: Vec<PulledMedia>,
    tracks: usize,
}

impl Host for Owner {
    fn described(&mut self, description: &SessionDescription) -> Result<(), String> {
        assert!(!description.tracks.is_empty());
        self.tracks = description.tracks.len();
        Ok(())
    }

    fn udp_ports(&mut self, track: usize) -> Result<(u16, u16), String> {
        assert!(track < self.tracks);
        Ok((50_000 + 2 * track as u16, 50_001 + 2 * track as u16))
    }

    fn set_up(&mut self, medias: &[PulledMedia]) -> Result<(), String> {
        assert!(!medias.is_empty());
        let mut channels = [false; 256];
        for (n, media) in medias.iter().enumerate() {
            assert!(media.track < self.tracks && medias[..n].iter().all(|it| it.track < media.track));
            match media.route {
                Route::Tcp { channel } => {
                    for channel in [usize::from(channel), usize::from(channel) + 1] {
                        assert!(!channels[channel], "channel {channel} has two tracks");
                        channels[channel] = true;
                    }
                }
                Route::Udp { ours, theirs, .. } => {
                    assert_eq!(usize::from(ours.0), 50_000 + 2 * media.track);
                    assert!(theirs.is_none_or(|(rtp, rtcp)| rtp > 0 && rtcp > 0));
                }
                Route::Multicast { group, ports, .. } => assert!(group.is_multicast() && ports.0 > 0),
            }
        }
        self.set_up = medias.to_vec();
        Ok(())
    }
}

/// See the module.
#[derive(Debug)]
pub struct Watched {
    pub client: Client,
    pub owner: Owner,
    /// In how many requests it said what it wants.
    pub requests: usize,
    /// What the last of them was.
    pub last: Option<(String, String)>,
    /// `Ok` of a step that ends it, or the sentence.
    pub end: Option<Result<Step, String>>,
    place: String,
    password: Option<String>,
    phase: Phase,
    now: Instant,
}

impl Watched {
    pub fn new(settings: ClientSettings, now: Instant) -> Self {
        let place = SourceUrl { tail: String::new(), ..settings.url.clone() }.to_string();
        let password = settings.url.credentials.as_ref().map(|it| it.password.clone());
        let mut watched = Self {
            client: Client::new(settings, now),
            owner: Owner::default(),
            requests: 0,
            last: None,
            end: None,
            place,
            password: password.filter(|it| it.len() > 3),
            phase: Phase::Describe,
            now,
        };
        assert_eq!(watched.judge(), 1, "the first request is ready");
        watched
    }

    /// One message of the server from the front of `bytes`; gives what is left of them, `None` when it is none.
    pub fn hear<'a>(&mut self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let limits = Limits::default();
        let said: String = String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control()).collect();
        // It is no secret from whom it came.
        self.password.take_if(|secret| said.contains(secret.as_str()));
        if !bytes.trim_ascii_start().starts_with(b"RTSP/") {
            let Ok(Parsed::Complete { value, consumed }) = parse_request(bytes, &limits) else { return None };
            self.client.on_request(&value);
            assert!(self.judge() <= 1);
            return Some(&bytes[consumed..]);
        }
        let Ok(Parsed::Complete { value, consumed }) = parse_response(bytes, &limits) else { return None };
        let ended = self.phase == Phase::Ended;
        let outcome = self.client.on_response(&value, self.now, &mut self.owner);
        assert!(!ended || outcome == Ok(Step::GoOn), "nothing follows after the end");
        let is_playing = outcome == Ok(Step::Playing);
        assert!(!is_playing || self.phase == Phase::Play && self.client.phase() == Phase::Playing);
        if !matches!(outcome, Ok(Step::GoOn | Step::Playing)) {
            assert_eq!(self.client.phase(), Phase::Ended);
            let end = outcome.map_err(|error| error.to_string());
            let shown = format!("{end:?}");
            assert!(self.password.as_ref().is_none_or(|secret| !shown.contains(secret)), "{shown}");
            self.end = Some(end);
        }
        assert!(self.judge() <= 1, "one answer, one request");
        Some(&bytes[consumed..])
    }

    pub fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.client.on_timeout(self.now);
        assert!(self.judge() <= 1);
    }

    pub fn teardown(&mut self) {
        self.client.teardown();
        assert!(self.judge() <= 1);
        assert_eq!(self.client.phase(), Phase::Ended);
    }

    /// Judges what is said, and gives how many messages that are.
    fn judge(&mut self) -> usize {
        let phase = self.client.phase();
        assert!(phase >= self.phase, "{:?} after {:?}", phase, self.phase);
        self.phase = phase;
        assert_eq!(self.client.poll_timeout().is_some(), phase == Phase::Playing);
        assert!(self.client.poll_timeout().is_none_or(|at| at > self.now));
        let mut out = Vec::new();
        self.client.take_outgoing(&mut out);
        // The server's words make a URL longer than a head is to be for us.
        let limits = Limits { head_bytes_max: 1 << 18, ..Limits::default() };
        let (mut rest, mut messages) = (out.as_slice(), 0);
        while !rest.is_empty() {
            messages += 1;
            if rest.starts_with(b"RTSP/") {
                let Ok(Parsed::Complete { consumed, .. }) = parse_response(rest, &limits) else {
                    panic!("no response: {}", rest.escape_ascii());
                };
                rest = &rest[consumed..];
                continue;
            }
            let Ok(Parsed::Complete { value, consumed }) = parse_request(rest, &limits) else {
                panic!("no request: {}", rest.escape_ascii());
            };
            assert!(value.url.starts_with(&self.place), "{} is not at {}", value.url, self.place);
            let whole = String::from_utf8_lossy(&rest[..consumed]);
            assert!(self.password.as_ref().is_none_or(|secret| !whole.contains(secret)), "{whole}");
            self.requests += 1;
            self.last = Some((value.method.to_string(), value.headers.get("CSeq").unwrap_or("").to_owned()));
            rest = &rest[consumed..];
        }
        messages
    }
}
