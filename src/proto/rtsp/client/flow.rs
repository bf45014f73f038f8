//! What follows from each answer: the way from OPTIONS to media that flows.

use std::time::{Duration, Instant};

use corecast_media::Kind;

use super::{
    super::{Lower, Method, Response, Status, headers::session_id},
    Client, ClientError, Host, Phase, PulledMedia, Route, Step, Wanted,
    control::Urls,
    exchange::{Pending, Purpose},
    sentences,
    transport::{Asked, route},
};
use crate::sdp;

/// Between keep-alives when the server does not say how long it waits; well below RFC 2326's minute.
pub(super) const KEEP_ALIVE_DEFAULT: Duration = Duration::from_secs(30);
/// Bounds of what a server can make of it.
const KEEP_ALIVE_MIN: Duration = Duration::from_secs(1);
const KEEP_ALIVE_MAX: Duration = Duration::from_secs(3600);

/// What live servers are asked for; some begin with a recording when nothing is said.
const USUAL_RANGE: &str = "npt=0.000-";

/// The tracks of a description and how far setting them up has come.
#[derive(Debug)]
pub(super) struct Plan {
    /// In the order of the description.
    tracks: Vec<Planned>,
    /// The next one to be set up.
    next: usize,
    way: Way,
    medias: Vec<PulledMedia>,
    /// Why the first video was refused, else the first track.
    refusal: Option<(Kind, String)>,
    /// UDP was refused on this connection.
    fell_back: bool,
    /// The server has a session of ours over UDP that we have left behind.
    left_behind: bool,
}

#[derive(Debug)]
struct Planned {
    kind: Kind,
    /// `None` when its control attribute is no URL.
    url: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Udp,
    Multicast,
    Tcp,
}

impl Plan {
    fn new(wanted: Wanted, tracks: Vec<Planned>) -> Self {
        let way = match wanted {
            Wanted::UdpThenTcp | Wanted::Udp => Way::Udp,
            Wanted::Multicast => Way::Multicast,
            Wanted::Tcp => Way::Tcp,
        };
        Self { tracks, next: 0, way, medias: Vec::new(), refusal: None, fell_back: false, left_behind: false }
    }

    /// Before there is a description.
    pub fn nothing() -> Self {
        Self::new(Wanted::Tcp, Vec::new())
    }

    /// UDP was refused, and nothing was set up over TCP since.
    pub fn awaits_tcp(&self) -> bool {
        self.fell_back && self.medias.is_empty()
    }

    /// An even channel that no track uses, nor its neighbours.
    fn free_channel(&self) -> Option<u8> {
        let used = |channel: u8| {
            let near = |other: u8| other.abs_diff(channel) < 2;
            self.medias.iter().any(|it| matches!(it.route, Route::Tcp { channel } if near(channel)))
        };
        (0..u8::MAX).step_by(2).find(|channel| !used(*channel))
    }

    fn refuse(&mut self, kind: Kind, sentence: String) {
        let is_first_video =
            kind == Kind::Video && self.refusal.as_ref().is_none_or(|(first, _)| *first != Kind::Video);
        if is_first_video || self.refusal.is_none() {
            self.refusal = Some((kind, sentence));
        }
    }

    /// What was set up is worth to be played: one of the videos, if there are any.
    fn is_worth_playing(&self) -> bool {
        let has_video = self.tracks.iter().any(|track| track.kind == Kind::Video);
        self.medias.iter().any(|it| !has_video || self.tracks[it.track].kind == Kind::Video)
    }
}

impl Client {
    pub(super) fn follow(
        &mut self,
        pending: Pending,
        response: &Response,
        now: Instant,
        host: &mut impl Host,
    ) -> Result<Step, ClientError> {
        let status = response.status;
        if pending.purpose == Purpose::KeepAlive {
            return self.on_kept_alive(pending, response);
        }
        if status == Status::UNAUTHORIZED {
            self.exchange.ask_again(pending, response)?;
            return Ok(Step::GoOn);
        }
        if status.0 / 100 == 3 {
            return self.on_redirect(&pending, response);
        }
        match pending.purpose {
            Purpose::Options => self.on_options(response),
            Purpose::Describe => self.on_described(&pending, response, host),
            Purpose::Setup { track, asked } => self.on_set_up(&pending, track, asked, response, host),
            Purpose::Play { usual_range } => self.on_play(&pending, usual_range, response, now),
            Purpose::KeepAlive => Ok(Step::GoOn),
        }
    }

    pub(super) fn ask_options(&mut self) {
        let url = self.urls.aggregate().to_owned();
        self.exchange.ask(Purpose::Options, Method::Options, &url, Vec::new());
    }

    /// Not every camera knows it: what the source is worth, the answer to DESCRIBE will say.
    fn on_options(&mut self, response: &Response) -> Result<Step, ClientError> {
        let public = response.headers.get_all("Public").flat_map(|list| list.split([',', ' ']));
        self.has_get_parameter = response.status.is_success()
            && public.map(str::trim).any(|method| method.eq_ignore_ascii_case("GET_PARAMETER"));
        let accept = ("Accept", "application/sdp".to_owned());
        let url = self.urls.aggregate().to_owned();
        self.exchange.ask(Purpose::Describe, Method::Describe, &url, vec![accept]);
        Ok(Step::GoOn)
    }

    /// RFC 2326 §11.3.
    fn on_redirect(&mut self, pending: &Pending, response: &Response) -> Result<Step, ClientError> {
        let told = sentences::refused(&pending.method, response);
        let Some(location) = response.headers.get("Location").filter(|it| !it.trim().is_empty()) else {
            return Err(ClientError(format!("{told} without a Location to go to")));
        };
        let url = self.settings.url.redirected(location);
        url.map(Step::Redirected)
            .map_err(|error| ClientError(format!("{told} to where we cannot go: {error}")))
    }

    fn on_described(
        &mut self,
        pending: &Pending,
        response: &Response,
        host: &mut impl Host,
    ) -> Result<Step, ClientError> {
        if !response.status.is_success() {
            return Err(ClientError(sentences::refused_with_advice(&pending.method, response)));
        }
        if response.body.trim_ascii().is_empty() {
            return Err(ClientError("DESCRIBE was answered without a description of the stream".to_owned()));
        }
        // Whatever the Content-Type says or does not say: what reads as a description is one.
        let description = sdp::parse(&response.body).map_err(|error| {
            let kind = response.headers.get("Content-Type").map(sentences::repeated);
            let kind = kind.map_or("without a Content-Type".to_owned(), |kind| format!("of type {kind}"));
            ClientError(format!("DESCRIBE was answered with a body {kind} that is no usable SDP: {error}"))
        })?;
        if description.tracks.is_empty() {
            return Err(ClientError(sentences::no_track(&description)));
        }
        let control = description.session_control.as_deref();
        self.urls = Urls::of_description(&self.settings.url, &response.headers, control);
        let planned = |track: &corecast_media::Track| Planned {
            kind: track.kind,
            url: self.urls.track(&track.control),
        };
        let tracks = description.tracks.iter().map(planned).collect();
        host.described(&description).map_err(ClientError)?;
        self.phase = Phase::Setup;
        self.plan = Plan::new(self.settings.transport, tracks);
        self.set_up_next(host)
    }

    /// Asks for the next track; PLAY when all were asked for.
    fn set_up_next(&mut self, host: &mut impl Host) -> Result<Step, ClientError> {
        loop {
            let track = self.plan.next;
            let Some(planned) = self.plan.tracks.get(track) else { return self.play(host) };
            self.plan.next += 1;
            let Some(url) = planned.url.clone() else {
                let kind = planned.kind;
                self.plan.refuse(kind, "the control attribute of a track is too long for a URL".to_owned());
                continue;
            };
            let asked = match self.plan.way {
                Way::Udp => Asked::Udp { ours: host.udp_ports(track).map_err(ClientError)? },
                Way::Multicast => Asked::Multicast,
                Way::Tcp => match self.plan.free_channel() {
                    Some(channel) => Asked::Tcp { channel },
                    None => return self.play(host),
                },
            };
            let transport = ("Transport", asked.header());
            self.exchange.ask(Purpose::Setup { track, asked }, Method::Setup, &url, vec![transport]);
            return Ok(Step::GoOn);
        }
    }

    fn on_set_up(
        &mut self,
        pending: &Pending,
        track: usize,
        asked: Asked,
        response: &Response,
        host: &mut impl Host,
    ) -> Result<Step, ClientError> {
        if !response.status.is_success() {
            return self.on_set_up_refused(pending, track, response, host);
        }
        self.note_session(response);
        let transport = response.headers.get("Transport");
        match route(asked, transport, &self.plan.medias) {
            Ok(route) => {
                self.plan.medias.push(PulledMedia { track, route });
                self.set_up_next(host)
            }
            // The server has a session that is half of what it should be: it is easier to begin anew.
            Err(_) if self.may_fall_back() => Ok(Step::Again(Lower::Tcp)),
            Err(mismatch) => Err(ClientError(sentences::mismatch(mismatch).to_owned())),
        }
    }

    fn may_fall_back(&self) -> bool {
        self.settings.transport == Wanted::UdpThenTcp && self.plan.way == Way::Udp
    }

    fn on_set_up_refused(
        &mut self,
        pending: &Pending,
        track: usize,
        response: &Response,
        host: &mut impl Host,
    ) -> Result<Step, ClientError> {
        let status = response.status;
        if status == Status::UNSUPPORTED_TRANSPORT && self.may_fall_back() {
            self.plan.left_behind = self.exchange.session.take().is_some();
            self.plan.fell_back = true;
            self.plan.way = Way::Tcp;
            self.plan.next = 0;
            self.plan.medias.clear();
            self.plan.refusal = None;
            return self.set_up_next(host);
        }
        // Not all servers know 461: before anything is set up, any refusal may be about the transport unless it says
        // what else it is about. Who refuses like that often closes the connection, too.
        let says_else = matches!(
            status,
            Status::FORBIDDEN
                | Status::NOT_FOUND
                | Status::NOT_ENOUGH_BANDWIDTH
                | Status::SESSION_NOT_FOUND
                | Status::SERVICE_UNAVAILABLE
        );
        if self.plan.medias.is_empty() && !says_else && self.may_fall_back() {
            return Ok(Step::Again(Lower::Tcp));
        }
        let about_state = matches!(
            status,
            Status::SESSION_NOT_FOUND
                | Status::METHOD_NOT_VALID_IN_THIS_STATE
                | Status::AGGREGATE_OPERATION_NOT_ALLOWED
        );
        if about_state && self.plan.left_behind {
            return Ok(Step::Again(Lower::Tcp));
        }
        let sentence = sentences::refused_with_advice(&pending.method, response);
        if status == Status::SESSION_NOT_FOUND {
            return Err(ClientError(sentence));
        }
        self.plan.refuse(self.plan.tracks[track].kind, sentence);
        self.set_up_next(host)
    }

    fn play(&mut self, host: &mut impl Host) -> Result<Step, ClientError> {
        if !self.plan.is_worth_playing() {
            if self.plan.left_behind {
                return Ok(Step::Again(Lower::Tcp));
            }
            let sentence = self.plan.refusal.take().map(|(_, sentence)| sentence);
            return Err(ClientError(sentence.unwrap_or_else(|| "no track can be set up".to_owned())));
        }
        host.set_up(&self.plan.medias).map_err(ClientError)?;
        self.phase = Phase::Play;
        let range = self.settings.range.clone();
        let usual_range = range.is_none();
        self.ask_play(range.or_else(|| Some(USUAL_RANGE.to_owned())), usual_range);
        Ok(Step::GoOn)
    }

    fn ask_play(&mut self, range: Option<String>, usual_range: bool) {
        let range = range.map(|range| ("Range", range));
        let scale = self.settings.scale.clone().map(|scale| ("Scale", scale));
        let headers = range.into_iter().chain(scale).collect();
        self.exchange.ask(Purpose::Play { usual_range }, Method::Play, self.urls.aggregate(), headers);
    }

    fn on_play(
        &mut self,
        pending: &Pending,
        usual_range: bool,
        response: &Response,
        now: Instant,
    ) -> Result<Step, ClientError> {
        if response.status.is_success() {
            self.note_session(response);
            self.phase = Phase::Playing;
            self.keep_alive_at = Some(now + self.keep_alive_interval);
            return Ok(Step::Playing);
        }
        if response.status == Status::UNSUPPORTED_TRANSPORT && self.may_fall_back() {
            return Ok(Step::Again(Lower::Tcp));
        }
        // Bad Request, Parameter Not Understood, Header Field Not Valid, Invalid Range, Not Implemented, Option Not
        // Supported: some live servers know no ranges at all.
        if usual_range && matches!(response.status.0, 400 | 451 | 456 | 457 | 501 | 551) {
            self.ask_play(None, false);
            return Ok(Step::GoOn);
        }
        Err(ClientError(sentences::refused_with_advice(&pending.method, response)))
    }

    /// RFC 2326 §12.37, as odd as it may be written.
    fn note_session(&mut self, response: &Response) {
        let Some(value) = response.headers.get("Session") else { return };
        let id = session_id(value);
        if !id.is_empty() {
            self.exchange.session = Some(id.to_owned());
        }
        let seconds = value.split(';').skip(1).find_map(|part| {
            let (name, value) = part.split_once(['=', ':'])?;
            let value = value.trim().trim_start_matches('"');
            let digits = &value[..value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len())];
            digits.parse::<u32>().ok().filter(|_| name.trim().eq_ignore_ascii_case("timeout"))
        });
        if let Some(seconds) = seconds.filter(|&seconds| seconds > 0) {
            let interval = Duration::from_secs(u64::from(seconds)) * 4 / 5;
            self.keep_alive_interval = interval.clamp(KEEP_ALIVE_MIN, KEEP_ALIVE_MAX);
        }
    }

    pub(super) fn keep_alive(&mut self) {
        let method = if self.has_get_parameter { Method::GetParameter } else { Method::Options };
        let url = self.urls.aggregate().to_owned();
        self.exchange.ask(Purpose::KeepAlive, method, &url, Vec::new());
    }

    /// As long as media comes, what a server thinks of being asked how it is does not matter.
    fn on_kept_alive(&mut self, pending: Pending, response: &Response) -> Result<Step, ClientError> {
        match response.status {
            Status::SESSION_NOT_FOUND => {
                self.exchange.session = None;
                return Err(ClientError(sentences::refused_with_advice(&pending.method, response)));
            }
            // The nonce has grown old; when that is not it, the next keep-alive tries again.
            Status::UNAUTHORIZED => drop(self.exchange.ask_again(pending, response)),
            status if status.0 >= 400 && pending.method == Method::GetParameter => {
                self.has_get_parameter = false;
                // The server has not counted it, so it is no sign of life.
                if matches!(status, Status::METHOD_NOT_ALLOWED | Status::NOT_IMPLEMENTED) {
                    self.keep_alive();
                }
            }
            _ => {}
        }
        Ok(Step::GoOn)
    }
}
