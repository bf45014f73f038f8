//! A client's session with a camera or another server, from the first request to media that flows (RFC 2326 §10,
//! appendix A.1).
//!
//! Knows what to ask, in which order, and how to read answers that bend the rules. It touches no socket and no clock:
//! whoever owns the connection gives it what arrived and sends what it wants to have sent.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{Lower, Method, Request, Response};
use crate::sdp::SessionDescription;

mod control;
mod credentials;
mod exchange;
mod flow;
mod sentences;
mod transport;
mod url;
#[cfg(any(test, fuzzing))]
pub mod watched;

use control::Urls;
use exchange::Exchange;
use flow::Plan;

pub use url::{Credentials, RedirectError, SourceUrl, SourceUrlError};

/// What is to be pulled, and how.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    pub url: SourceUrl,
    pub transport: Wanted,
    /// Value of `Range` in PLAY. Without it, it is `npt=0.000-` as of all players, which live sources take for now, and
    /// is left out for those that refuse it.
    pub range: Option<String>,
    /// Value of `Scale` in PLAY.
    pub scale: Option<String>,
}

/// How media is to travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// UDP; over TCP on the same connection when that is refused.
    UdpThenTcp,
    Udp,
    Multicast,
    Tcp,
}

/// A track that was set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PulledMedia {
    /// Its place among the tracks of the description.
    pub track: usize,
    pub route: Route,
}

/// How the packets of a track come here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Interleaved; RTP on this channel, RTCP on the next.
    Tcp {
        channel: u8,
    },
    /// To these ports of ours, from those of the server as far as it named them.
    Udp {
        ours: (u16, u16),
        theirs: Option<(u16, u16)>,
        /// As the server knows itself; behind NAT that is an address nobody else can reach.
        source: Option<IpAddr>,
    },
    Multicast {
        group: IpAddr,
        ports: (u16, u16),
        source: Option<IpAddr>,
    },
}

/// What the client asks of whoever owns the connection. Everything is answered at once; an error ends the pull, and is
/// a sentence for the operator.
pub trait Host {
    /// The stream was described; at least one track can be had.
    fn described(&mut self, description: &SessionDescription) -> Result<(), String>;
    /// A pair of ports of ours on which the packets of a track are awaited, RTP (even) and RTCP.
    fn udp_ports(&mut self, track: usize) -> Result<(u16, u16), String>;
    /// All tracks that can be had are set up, and PLAY is about to be sent: packets may come from now on. A track that
    /// the server refuses beside others is left out. May come twice: after UDP was refused.
    fn set_up(&mut self, medias: &[PulledMedia]) -> Result<(), String>;
}

/// What follows from something that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    GoOn,
    /// PLAY was answered: media flows.
    Playing,
    /// The stream is elsewhere: this connection is to be ended, and that URL to be tried. It has the credentials that
    /// belong to it.
    Redirected(SourceUrl),
    /// On a new connection, with this transport.
    Again(Lower),
}

/// How far the session has come; for deadlines and for what is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// OPTIONS and DESCRIBE.
    Describe,
    Setup,
    Play,
    Playing,
    Ended,
}

/// Why a source cannot be pulled: a sentence for the operator, without credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ClientError(pub String);

/// See the module.
#[derive(Debug)]
pub struct Client {
    settings: ClientSettings,
    phase: Phase,
    exchange: Exchange,
    urls: Urls,
    plan: Plan,
    /// The server names GET_PARAMETER among its methods, and has not refused it.
    has_get_parameter: bool,
    keep_alive_interval: Duration,
    keep_alive_at: Option<Instant>,
}

impl Client {
    /// A session on a new connection. The first request is ready to be sent. Over TLS, `UdpThenTcp` means TCP: UDP would
    /// carry in clear what the connection hides.
    pub fn new(mut settings: ClientSettings, _now: Instant) -> Self {
        if settings.url.encrypted && settings.transport == Wanted::UdpThenTcp {
            settings.transport = Wanted::Tcp;
        }
        let mut client = Self {
            phase: Phase::Describe,
            exchange: Exchange::new(settings.url.credentials.clone()),
            urls: Urls::of_request(&settings.url),
            plan: Plan::nothing(),
            has_get_parameter: false,
            keep_alive_interval: flow::KEEP_ALIVE_DEFAULT,
            keep_alive_at: None,
            settings,
        };
        client.ask_options();
        client
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Requests and answers that are to be sent, appended to `out`.
    pub fn take_outgoing(&mut self, out: &mut Vec<u8>) {
        self.exchange.take_outgoing(out);
    }

    /// An answer of the server. One that belongs to no request is left; see [`Self::stray_answers`].
    ///
    /// After an error, a redirection or [`Step::Again`] the phase is [`Phase::Ended`]; [`Self::teardown`] may still be
    /// called, to tell a server that has a session for us.
    ///
    /// # Errors
    /// When the pull has come to nothing.
    pub fn on_response(
        &mut self,
        response: &Response,
        now: Instant,
        host: &mut impl Host,
    ) -> Result<Step, ClientError> {
        // 1xx only says that the answer is still to come (RFC 2326 §7.1.1).
        if self.phase == Phase::Ended || response.status.0 < 200 {
            return Ok(Step::GoOn);
        }
        let Some(pending) = self.exchange.answered(response) else { return Ok(Step::GoOn) };
        let outcome = self.follow(pending, response, now, host);
        if !matches!(outcome, Ok(Step::GoOn | Step::Playing)) {
            self.end();
        }
        outcome
    }

    /// A request of the server: it is answered, and nothing else follows from it.
    pub fn on_request(&mut self, request: &Request) {
        self.exchange.answer(request);
    }

    /// The server has closed the connection. Some do so with every refusal, also with that of UDP: then there is still TCP.
    pub fn on_closed(&mut self) -> Option<Step> {
        let again = self.phase == Phase::Setup && self.plan.awaits_tcp();
        self.end();
        again.then_some(Step::Again(Lower::Tcp))
    }

    /// When [`Self::on_timeout`] has something to do: a keep-alive is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.keep_alive_at
    }

    pub fn on_timeout(&mut self, now: Instant) {
        if self.keep_alive_at.is_none_or(|at| now < at) {
            return;
        }
        self.keep_alive_at = Some(now + self.keep_alive_interval);
        // Who does not take what is sent has enough to read.
        if self.exchange.is_drained() {
            self.keep_alive();
        }
    }

    /// Asks the server to end the session, if there is one; the answer is not waited for.
    pub fn teardown(&mut self) {
        self.end();
        if self.exchange.session.is_some() {
            self.exchange.say(&Method::Teardown, self.urls.aggregate());
            self.exchange.session = None;
        }
    }

    /// Answers that belonged to no request.
    pub fn stray_answers(&self) -> u64 {
        self.exchange.strays
    }

    fn end(&mut self) {
        self.phase = Phase::Ended;
        self.keep_alive_at = None;
        self.exchange.forget_pending();
    }
}

#[cfg(test)]
mod tests;
