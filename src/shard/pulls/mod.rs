//! Sources that are pulled over RTSP: when each is tried, and what becomes of its path.
//!
//! A [`Pull`] lasts as long as its source is wanted; every attempt has a [`PullConnection`] of its own ([`dial`],
//! [`connection`]), whose requests and answers are the affair of the protocol's client, and whose media goes into the path's publication
//! ([`media`]). [`phases`] ends what takes too long.
//!
//! An attempt waits for its turn with the control plane, which resolves the host's name and lets only so many dials out
//! at a time; the turn is given back as soon as the source has answered anything, when the attempt failed, or after
//! [`TURN_MAX`].

use std::{
    net::SocketAddr,
    os::fd::RawFd,
    sync::Arc,
    time::{Duration, Instant},
};

use corecast_hub::{
    gauges::PullPhase,
    roster::{News, SourceState},
    settings::{PullSettings, PullTransport},
};
use corecast_proto::rtsp::{
    Lower,
    client::{SourceUrl, Wanted},
};
use tracing::{debug, error, info, warn};

use super::{Mail, Shard, ids, paths::Origin, slots::Key};

mod connection;
mod dial;
mod media;
mod memory;
mod phases;
mod talk;

pub use connection::PullConnection;
pub use memory::Memory;
use memory::{Place, Record, Stopped};

/// A turn among the dials to a host is given back after this long, so that a host that hangs holds up no other source.
const TURN_MAX: Duration = Duration::from_secs(3);
/// A source that has run for this long is tried at once when it is lost.
const RAN_WELL: Duration = Duration::from_secs(10);
/// Who asks for a path has its source tried, unless it was tried within this time.
const ASKED_PAUSE: Duration = Duration::from_secs(1);
/// When a source is back, the others of its host and port are tried within this time.
const COMES_BACK_WITHIN: Duration = Duration::from_secs(1);
/// Redirects that are followed within one attempt.
const REDIRECTS_MAX: u32 = 5;

/// A source that is pulled for a path.
pub struct Pull {
    path: Key,
    settings: Arc<PullSettings>,
    name: Arc<str>,
    /// Of who wanted it.
    query: String,
    state: State,
    turn: Turn,
    /// Where its URL leads; [`None`] when that makes no sense.
    place: Option<Place>,
    record: Record,
    redirects: u32,
    told: Option<(SourceState, Option<String>)>,
    /// Bytes that said nothing, of connections that are closed; and how many of all were told of.
    noise_bytes: u64,
    noise_told: u64,
    /// It is lost, and its readers wait for it until then.
    kept_until: Option<Instant>,
}

enum State {
    /// Until the next attempt.
    Paused { until: Instant },
    /// It waits for its turn among the dials to the host of that URL.
    Queued { since: Instant, url: Box<SourceUrl> },
    /// It has this connection.
    Connected(Key),
}

/// Its turn among the dials to a host.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    None,
    Asked,
    Held { since: Instant },
}

/// Why an attempt ended that is to be followed by another at once.
enum Elsewhere {
    /// Its stream is there.
    At(SourceUrl),
    /// In the same place, over this.
    Over(Lower),
}

impl Pull {
    /// Whether TCP may be tried when UDP brings nothing.
    fn may_change_to_tcp(&self, url: &SourceUrl) -> bool {
        self.wanted(url) == Ok(Wanted::UdpThenTcp)
    }

    /// How its media is to travel; [`Err`] when that cannot be.
    fn wanted(&self, url: &SourceUrl) -> Result<Wanted, String> {
        match (self.settings.transport, url.encrypted) {
            (PullTransport::Tcp, _) | (PullTransport::Automatic | PullTransport::Udp, true) => Ok(Wanted::Tcp),
            (PullTransport::Automatic, false) if self.record.tcp_only => Ok(Wanted::Tcp),
            (PullTransport::Automatic, false) => Ok(Wanted::UdpThenTcp),
            (PullTransport::Udp, false) => Ok(Wanted::Udp),
            (PullTransport::Multicast, false) => Ok(Wanted::Multicast),
            (PullTransport::Multicast, true) => Err(
                "packets beside rtsps would have to be encrypted too, which is not served: set rtspTransport to tcp"
                    .to_owned(),
            ),
        }
    }
}

impl Shard {
    /// Pulls a source for a path, again and again with pauses, until [`Self::stop_pull`]. `query` is that of who wants it.
    /// Nothing of it comes to an end within this call.
    pub(super) fn start_pull(&mut self, path_key: Key, settings: Arc<PullSettings>, query: &str) {
        let now = self.now.instant;
        let Some(path) = self.paths.get_mut(path_key) else { return };
        let url = settings.url.expand(&path.name, query);
        let place = SourceUrl::parse(&url).ok().map(|url| (url.host.into(), url.port));
        let known = self.pull_memory.take(&path.name, &settings, &url, now);
        let (record, until) = known.unwrap_or_else(|| (Record::default(), now));
        let is_chronic = record.is_chronic();
        let pull = self.pulls.insert(Pull {
            path: path_key,
            settings,
            name: Arc::clone(&path.name),
            query: query.to_owned(),
            state: State::Paused { until },
            turn: Turn::None,
            place,
            record,
            redirects: 0,
            told: None,
            noise_bytes: 0,
            noise_told: 0,
            kept_until: None,
        });
        path.pull = Some(pull);
        let on_demand = if path.settings.demand.is_some() { " on demand" } else { "" };
        match is_chronic {
            false => info!("[path {}] [RTSP source] started{on_demand}", path.name),
            true => debug!("[path {}] [RTSP source] started{on_demand}", path.name),
        }
        self.tell_source(pull, SourceState::Connecting, None);
        self.pulls_due_by(until);
    }

    /// Ends the pull of a path, and its publication. `reason` is for the log. `in_vain`: it was wanted still, but had
    /// not come; why, is told and remembered.
    pub(super) fn stop_pull(&mut self, path_key: Key, reason: &str, in_vain: bool) {
        let now = self.now.instant;
        let Some(key) = self.paths.get_mut(path_key).and_then(|path| path.pull.take()) else { return };
        let connection = match self.pulls.get(key) {
            Some(Pull { state: State::Connected(connection), .. }) => Some(*connection),
            _ => None,
        };
        let was_at = connection.and_then(|connection| self.pull_connections.get(connection));
        let was_at = was_at.map(|connection| connection.instead("the start timeout has passed"));
        if let Some(connection) = connection {
            self.close_pull_connection(connection);
        }
        self.give_back_turn(key);
        let Some(pull) = self.pulls.get_mut(key) else { return };
        let error = match in_vain {
            true => pull.record.error.clone().or_else(|| was_at.clone()),
            false => None,
        };
        pull.record.error.clone_from(&error);
        pull.record.suspect |= in_vain && was_at.is_some();
        self.tell_source(key, SourceState::Stopped, error.as_deref());
        let Some(pull) = self.pulls.remove(key) else { return };
        match pull.record.is_chronic() {
            false => info!("[path {}] [RTSP source] stopped: {reason}", pull.name),
            true => debug!("[path {}] [RTSP source] stopped: {reason}", pull.name),
        }
        let paused_until = match pull.state {
            State::Paused { until } if in_vain => until,
            _ => now,
        };
        let url = pull.settings.url.expand(&pull.name, &pull.query);
        let Pull { name, settings, place, record, .. } = pull;
        self.pull_memory.keep(&name, Stopped { settings, url, place, record, paused_until }, now);
        self.end_own_stream(path_key, key, reason);
        self.release_path(path_key);
    }

    /// Forgets what stopped sources were like, of those that are too old or too many; their paths may go.
    pub(super) fn forget_stopped_pulls(&mut self) {
        while let Some(path) = self.pull_memory.pop_stale(self.now.instant) {
            if let Some(&path) = self.path_names.get(&path) {
                self.release_path(path);
            }
        }
    }

    /// Begins an attempt: it waits for its turn.
    fn try_pull(&mut self, key: Key) {
        let now = self.now.instant;
        let Some(pull) = self.pulls.get_mut(key) else { return };
        pull.redirects = 0;
        let url = SourceUrl::parse(&pull.settings.url.expand(&pull.name, &pull.query));
        match url.map_err(|error| error.to_string()).and_then(|url| pull.wanted(&url).map(|_| url)) {
            Ok(url) => {
                pull.record.tcp_only |= self.without_udp.holds(&url.host, url.port, now);
                self.queue_pull(key, url);
            }
            Err(reason) => self.fail_pull(key, &reason),
        }
    }

    fn queue_pull(&mut self, key: Key, url: SourceUrl) {
        let Some(pull) = self.pulls.get_mut(key) else { return };
        let path = self.paths.get(pull.path);
        let urgent = path.is_some_and(|path| path.settings.demand.is_some() || path.reader_count() > 0);
        let (host, port) = (url.host.as_str().into(), url.port);
        pull.state = State::Queued { since: self.now.instant, url: Box::new(url) };
        pull.turn = Turn::Asked;
        let suspect = pull.record.suspect;
        let control = self.control();
        self.mesh.send(control, Mail::Dial { pull: key, host, port, urgent, suspect });
    }

    /// It is the turn of a pull to reach its host.
    pub(super) fn on_dialable(&mut self, key: Key, addresses: Result<Vec<SocketAddr>, String>) {
        let now = self.now.instant;
        let Some(pull) = self.pulls.get_mut(key) else { return };
        let State::Queued { since, ref url } = pull.state else { return };
        let url = url.clone();
        match addresses {
            Ok(addresses) => {
                pull.turn = Turn::Held { since: now };
                self.observe_phase(PullPhase::Queue, since);
                self.connect_pull(key, url, addresses);
            }
            Err(reason) => self.fail_pull(key, &reason),
        }
    }

    /// The control plane may let another dial out.
    fn give_back_turn(&mut self, key: Key) {
        let Some(pull) = self.pulls.get_mut(key) else { return };
        if std::mem::replace(&mut pull.turn, Turn::None) != Turn::None {
            let control = self.control();
            self.mesh.send(control, Mail::Dialed { pull: key });
        }
    }

    /// An attempt, or what it had led to, has come to an end. The next one follows after a pause.
    fn fail_pull(&mut self, key: Key, reason: &str) {
        let now = self.now.instant;
        let Some(pull) = self.pulls.get_mut(key) else { return };
        let (path, turn) = (pull.path, pull.turn);
        let closed = match std::mem::replace(&mut pull.state, State::Paused { until: now }) {
            State::Connected(connection) => self.close_pull_connection(connection),
            State::Paused { .. } | State::Queued { .. } => None,
        };
        let phase = match (&closed, turn) {
            (Some(closed), _) => closed.phase,
            (None, Turn::Held { .. }) => PullPhase::Dial,
            (None, Turn::None | Turn::Asked) => PullPhase::Queue,
        };
        self.gauges.pull_failures[phase as usize].add(1);
        self.give_back_turn(key);
        let Some(pull) = self.pulls.get_mut(key) else { return };
        let ran = closed.as_ref().and_then(|closed| closed.ran);
        let record = &mut pull.record;
        if let Some(closed) = &closed
            && record.tcp_only
            && matches!(phase, PullPhase::Setup | PullPhase::Play)
        {
            // TCP is no better.
            record.tcp_only = false;
            self.without_udp.forget(&closed.url.host, closed.url.port);
        }
        record.suspect = ran.is_none_or(|ran| ran < RAN_WELL);
        record.login_refused = closed.as_ref().is_some_and(|closed| closed.login_refused);
        record.error = Some(reason.to_owned());
        record.failed_at = Some(now);
        let random = ids::random_number();
        let pause = match record.suspect {
            false => {
                // What comes next is news again.
                record.complaints.reset();
                record.backoff.after_loss(random)
            }
            true if record.login_refused => record.backoff.after_refusal(random),
            true => record.backoff.after_failure(random),
        };
        pull.state = State::Paused { until: now + pause };
        if let Some(line) = record.complaints.tell(reason, now) {
            error!("[path {}] [RTSP source] {line}", pull.name);
        }
        let grace = pull.settings.reconnect_grace;
        if ran.is_some() && !grace.is_zero() {
            pull.kept_until.get_or_insert(now + grace);
        }
        let kept = pull.kept_until.is_some_and(|until| until > now);
        self.pulls_due_by(now + pause);
        self.tell_source(key, SourceState::Connecting, Some(reason));
        if !kept {
            self.end_own_stream(path, key, reason);
        }
        self.pull_failed(path);
    }

    /// An attempt goes on with another connection; the publication stays, if there is one already.
    fn pull_elsewhere(&mut self, key: Key, elsewhere: Elsewhere) {
        let Some(pull) = self.pulls.get_mut(key) else { return };
        let State::Connected(connection) = pull.state else { return };
        let Some(here) = self.pull_connections.get(connection).map(|connection| connection.url.clone())
        else {
            return;
        };
        let url = match elsewhere {
            Elsewhere::At(url) => {
                pull.redirects += 1;
                if pull.redirects > REDIRECTS_MAX {
                    let reason =
                        format!("redirects more than {REDIRECTS_MAX} times, at last to {}", url.shown());
                    return self.fail_pull(key, &reason);
                }
                Box::new(url)
            }
            Elsewhere::Over(lower) => {
                pull.record.tcp_only |= lower == Lower::Tcp;
                here
            }
        };
        let possible = pull.wanted(&url);
        self.close_pull_connection(connection);
        self.give_back_turn(key);
        match possible {
            Ok(_) => self.queue_pull(key, *url),
            Err(reason) => self.fail_pull(key, &reason),
        }
    }

    /// Somebody asks for a path whose source is always pulled and is not there: it is tried at once, if the last attempt
    /// is not of just now.
    pub(super) fn hurry_pull(&mut self, path: &str) {
        let now = self.now.instant;
        let path = self.path_names.get(path).and_then(|&path| self.paths.get(path));
        let Some(key) = path.filter(|path| path.live.is_none()).and_then(|path| path.pull) else { return };
        let Some(pull) = self.pulls.get_mut(key) else { return };
        let is_old = pull.record.failed_at.is_none_or(|at| now.duration_since(at) >= ASKED_PAUSE);
        if let State::Paused { until } = &mut pull.state
            && is_old
            && !pull.record.login_refused
        {
            *until = now;
            self.pulls_due_by(now);
        }
    }

    /// A source runs again after failures: others at the same place, which may have been down with it, are tried soon.
    pub(super) fn place_came_back(&mut self, key: Key) {
        let now = self.now.instant;
        let Some(place) = self.pulls.get(key).and_then(|pull| pull.place.clone()) else { return };
        self.pull_memory.came_back(&place, now);
        let mut keys = Vec::new();
        self.pulls.keys_into(&mut keys);
        for key in keys {
            let Some(pull) = self.pulls.get_mut(key) else { continue };
            if let State::Paused { until } = &mut pull.state
                && pull.place.as_ref() == Some(&place)
                && !pull.record.login_refused
            {
                // Not all at once: also their packets would come at once from then on.
                let soon = now
                    + COMES_BACK_WITHIN.mul_f64(f64::from(ids::random_number() as u32) / f64::from(u32::MAX));
                *until = soon.min(*until);
                let until = *until;
                self.pulls_due_by(until);
            }
        }
    }

    /// UDP brings nothing: the next connection asks for TCP, and so do all after it.
    fn pull_over_tcp(&mut self, key: Key) {
        if let Some(pull) = self.pulls.get(key) {
            warn!("[path {}] [RTSP source] no UDP packets received, switching to TCP", pull.name);
        }
        self.pull_elsewhere(key, Elsewhere::Over(Lower::Tcp));
    }

    /// Ends the publication of a path, if it is this pull's.
    fn end_own_stream(&mut self, path: Key, pull: Key, reason: &str) {
        let live = self.paths.get(path).and_then(|path| path.live.as_ref());
        if live.is_some_and(|live| live.origin == Origin::Pull(pull)) {
            self.end_publication(path, reason);
        }
    }

    /// Tells what a source does now, unless that is known.
    fn tell_source(&mut self, key: Key, state: SourceState, error: Option<&str>) {
        let Some(pull) = self.pulls.get_mut(key) else { return };
        let known = pull.told.as_ref().is_some_and(|(told, why)| *told == state && why.as_deref() == error);
        if !known {
            let error = error.map(str::to_owned);
            pull.told = Some((state, error.clone()));
            let path = Arc::clone(&pull.name);
            self.tell(News::SourceChanged { path, state, error });
        }
    }

    fn observe_phase(&self, phase: PullPhase, since: Instant) {
        let took = self.now.instant.saturating_duration_since(since);
        self.gauges.pull_phases[phase as usize].observe_us(took.as_micros() as u64);
    }

    /// [`Self::run_pulls`] has something to do then.
    fn pulls_due_by(&mut self, at: Instant) {
        let due = self.work.pulls_due.map_or(at, |due| due.min(at));
        self.work.pulls_due = Some(due);
    }

    /// The descriptor of a pull's connection.
    pub(super) fn pull_fd(&self, connection: Key) -> Option<RawFd> {
        self.pull_connections.get(connection).map(PullConnection::fd)
    }
}
