//! Paths that are brought to life by the first who wants them: requests that wait for a stream, and what is started and
//! stopped for them.
//!
//! What is to happen when is decided by [`corecast_hub::demand`]. A request that waits stays in its connection's inbox,
//! and is looked at anew when the stream is there.

use std::{collections::BTreeSet, num::NonZeroU32, time::Instant};

use corecast_hub::{
    demand::{Demand, FailReason, Full, Order, StopReason, Timing},
    roster::{News, Refusal as Reason},
    settings::{BroughtBy, DemandSettings, PathSettings},
};
use corecast_proto::rtsp::{
    Method, Parsed, Request, Status,
    headers::session_id,
    parse_request,
    server::{Refusal, stream_of},
};
use http::StatusCode;
use tracing::debug;

use super::{Asker, Shard, connection::Phase, plain, slots::Key, web::WebAnswer};

/// What a path knows of who wants it.
#[derive(Debug)]
pub struct PathDemand {
    machine: Demand<Asker>,
    /// Of whoever wanted it first.
    query: String,
    /// The moment under which it stands among [`Timers`].
    armed: Option<Instant>,
}

/// Paths by the moment at which something is to happen to them.
#[derive(Debug, Default)]
pub struct Timers(BTreeSet<(Instant, u64)>);

impl Timers {
    pub fn next(&self) -> Option<Instant> {
        self.0.first().map(|&(at, _)| at)
    }

    fn pop_due(&mut self, now: Instant) -> Option<Key> {
        self.0.first().filter(|&&(at, _)| at <= now)?;
        self.0.pop_first().map(|(_, path)| Key::from_bits(path))
    }
}

/// Whether the request at the front of an inbox may go on.
pub enum Stream {
    /// It is there, or is not to be waited for.
    Go,
    /// It is waited for.
    Wait,
    Refused(Refusal),
}

/// What becomes of somebody who wants a stream.
pub enum Wanted {
    /// It is there.
    Live,
    /// It is not, and will be brought.
    Waits,
    /// It is not, and nobody brings it on demand.
    Never,
    /// There would be one too many: of what, and in a sentence.
    Limit(Reason, &'static str),
    /// Too many wait already.
    Crowded,
}

impl Stream {
    fn full(path: &str, reason: &str) -> Self {
        Self::Refused(Refusal::new(Status::NOT_ENOUGH_BANDWIDTH, format!("path '{path}': {reason}")))
    }
}

fn timing(demand: Option<&DemandSettings>) -> Timing {
    demand.map_or_else(Timing::default, |demand| Timing {
        start_timeout: demand.start_timeout,
        close_after: demand.close_after,
    })
}

fn revives(demand: Option<&DemandSettings>) -> bool {
    demand.is_none_or(|demand| demand.revives)
}

impl PathDemand {
    pub fn new(settings: Option<&DemandSettings>) -> Self {
        let mut machine = Demand::new(timing(settings));
        machine.revives = revives(settings);
        Self { machine, query: String::new(), armed: None }
    }

    /// Nobody waits, and nothing was started.
    pub fn is_idle(&self) -> bool {
        self.machine.is_idle()
    }
}

impl Shard {
    /// Sees to it that there is a stream for a DESCRIBE, or for the first SETUP of a reader, if it is one that is brought
    /// on demand. The client has been let in already.
    pub(super) fn find_stream(&mut self, key: Key, request: &Request) -> Stream {
        let wants = match request.method {
            Method::Describe => true,
            Method::Setup => self.begins_to_read(key, request),
            _ => false,
        };
        // Without CSeq it is answered with an error.
        if !wants || request.headers.get("CSeq").is_none() {
            return Stream::Go;
        }
        let Some(stream) = stream_of(request) else { return Stream::Go };
        let name = stream.name();
        if request.method == Method::Describe
            && self.settings.paths.lookup(&name).is_ok_and(|settings| settings.demand.is_none())
        {
            self.hurry_pull(&name);
        }
        if !self.settings.paths.lookup(&name).is_ok_and(|settings| settings.demand.is_some()) {
            return Stream::Go;
        }
        let path = match self.has_other_shards() {
            // Its home was found before.
            true => self.path_names.get(&*name).copied(),
            false => self.path_at_home(&name),
        };
        let Some(path_key) = path else { return Stream::Go };
        match self.want_stream(path_key, Asker::Connection(key), &stream.query, false) {
            Wanted::Live | Wanted::Never => Stream::Go,
            Wanted::Limit(why, limit) => {
                let peer = self.connections.get(key).map(|connection| connection.peer);
                if let Some(peer) = peer {
                    self.tell_refused(&name, peer, why);
                }
                self.release_path(path_key);
                Stream::full(&name, limit)
            }
            Wanted::Crowded => Stream::full(&name, "too many clients wait for its stream already"),
            Wanted::Waits => {
                if let Some(connection) = self.connections.get_mut(key) {
                    connection.phase = Phase::AwaitingStream(path_key);
                    let (server, peer) = (connection.server(), plain(connection.peer));
                    debug!("[{server}] [conn {peer}] waits for a stream on path '{name}'");
                }
                Stream::Wait
            }
        }
    }

    /// Sees to it that there is a stream on a path, for somebody who may have it and whose URL has this query. Who waits is
    /// told of it. `is_counted`: they are among its readers already, so that no limit is reached by them.
    pub(super) fn want_stream(&mut self, path_key: Key, who: Asker, query: &str, is_counted: bool) -> Wanted {
        let now = self.now.instant;
        let Some(path) = self.paths.get_mut(path_key) else { return Wanted::Never };
        if path.live.is_some() {
            path.demand.machine.touch(now);
            self.arm(path_key);
            return Wanted::Live;
        }
        if path.settings.demand.is_none() {
            return Wanted::Never;
        }
        if !path.demand.machine.is_started() {
            if !is_counted && let Some((why, limit)) = self.fullness(path_key) {
                return Wanted::Limit(why, limit);
            }
            if let Some(path) = self.paths.get_mut(path_key) {
                query.clone_into(&mut path.demand.query);
            }
        }
        self.want_again(path_key, who)
    }

    /// As [`Self::want_stream`], for somebody who had it until now.
    pub(super) fn want_again(&mut self, path_key: Key, who: Asker) -> Wanted {
        let mut orders = Vec::new();
        let Some(path) = self.paths.get_mut(path_key) else { return Wanted::Never };
        if let Err(Full) = path.demand.machine.want(who, self.now.instant, &mut orders) {
            return Wanted::Crowded;
        }
        self.obey(path_key, orders);
        Wanted::Waits
    }

    /// A SETUP by which a session would become a reader.
    fn begins_to_read(&self, key: Key, request: &Request) -> bool {
        let session = match request.headers.get("Session").map(session_id) {
            Some(id) => match self.session_ids.get(id) {
                Some(&session) => Some(session),
                // It is refused.
                None => return false,
            },
            None => self.connections.get(key).and_then(|connection| connection.session),
        };
        session.and_then(|session| self.sessions.get(session)).is_none_or(|entry| entry.path.is_none())
    }

    /// The limit that a stream of this path, or its first reader, would be turned away for.
    fn fullness(&self, path: Key) -> Option<(Reason, &'static str)> {
        let (path, engine) = (self.paths.get(path)?, &self.settings.engine);
        let full = |now: u32, max: Option<NonZeroU32>| max.is_some_and(|max| now >= max.get());
        if full(path.reader_count() as u32, path.settings.readers_max) {
            Some((Reason::MaxReaders, "maximum reader count reached"))
        } else if full(engine.readers.now(), engine.readers_max) {
            Some((Reason::EngineMaxReaders, "engine.maxReaders reached"))
        } else if full(path.settings.active.now(), path.settings.active_max) {
            Some((Reason::MaxActive, "maximum number of active streams reached"))
        } else if full(engine.streams.now(), engine.streams_max) {
            Some((Reason::MaxStreams, "engine.maxStreams reached"))
        } else {
            None
        }
    }

    /// A connection does not wait any more, if it did.
    pub(super) fn leave_queue(&mut self, key: Key) {
        if let Some(connection) = self.connections.get(key)
            && let Phase::AwaitingStream(path_key) = connection.phase
        {
            self.stop_waiting(key);
            self.stop_wanting(path_key, Asker::Connection(key));
        }
    }

    /// Somebody does not wait for the stream of a path any more.
    pub(super) fn stop_wanting(&mut self, path_key: Key, who: Asker) {
        if let Some(path) = self.paths.get_mut(path_key) {
            path.demand.machine.leave(who);
            self.arm(path_key);
        }
    }

    /// A stream is there: who waits for it goes on in the next turn, in the order in which they came.
    pub(super) fn stream_began(&mut self, key: Key) {
        self.tell_machine(key, Demand::stream_began);
    }

    /// The stream of a path is gone.
    pub(super) fn stream_ended(&mut self, key: Key) {
        self.tell_machine(key, |machine, now, _| machine.stream_ended(now));
        // What publishes in the place of a pull does not come back by itself.
        if self.paths.get(key).is_some_and(|path| path.is_pulled_on_demand() && path.pull.is_none()) {
            self.pull_failed(key);
        }
    }

    /// Sessions have begun to read a path, or have ended; or viewers have come back, or have not been heard of for a while.
    pub(super) fn readers_changed(&mut self, key: Key) {
        let live = self.paths.get(key).filter(|path| path.live.is_some());
        let readers = live.map_or(0, |path| path.readers.len() + self.viewers_present(&path.viewers));
        self.tell_machine(key, |machine, now, _| machine.set_readers(readers, now));
    }

    /// The pull of a path has failed, and its publication, if it had one, is ended.
    pub(super) fn pull_failed(&mut self, key: Key) {
        self.tell_machine(key, |machine, _, orders| machine.source_failed(orders));
    }

    /// A client publishes where a pull is at work or would be: the pull gives way.
    pub(super) fn give_way(&mut self, key: Key) {
        if self.paths.get(key).is_some_and(|path| path.is_pulled_on_demand() && path.pull.is_some()) {
            self.stop_pull(key, "replaced by a publisher", false);
            self.pull_failed(key);
        }
    }

    /// Whatever was started for a path is stopped, and who waits for it is refused.
    pub(super) fn end_demand(&mut self, key: Key, reason: StopReason) {
        self.tell_machine(key, |machine, _, orders| machine.end(reason, orders));
    }

    /// A path goes by other settings from now on; it has the old ones still.
    pub(super) fn change_demand(&mut self, key: Key, new: &PathSettings) {
        let Some(path) = self.paths.get_mut(key) else { return };
        let brought_by =
            |settings: &PathSettings| settings.demand.as_ref().map(|demand| demand.brought_by.clone());
        if brought_by(&path.settings) != brought_by(new) {
            self.end_demand(key, StopReason::PathDestroyed);
        }
        if let Some(path) = self.paths.get_mut(key) {
            path.demand.machine.timing = timing(new.demand.as_ref());
            path.demand.machine.revives = revives(new.demand.as_ref());
            self.arm(key);
        }
    }

    /// Does what is due.
    pub(super) fn run_demands(&mut self) {
        while let Some(key) = self.work.demands.pop_due(self.now.instant) {
            if let Some(path) = self.paths.get_mut(key) {
                path.demand.armed = None;
            }
            self.tell_machine(key, Demand::tick);
            self.release_path(key);
        }
    }

    fn tell_machine(
        &mut self,
        key: Key,
        tell: impl FnOnce(&mut Demand<Asker>, Instant, &mut Vec<Order<Asker>>),
    ) {
        let now = self.now.instant;
        let Some(path) = self.paths.get_mut(key) else { return };
        let mut orders = Vec::new();
        tell(&mut path.demand.machine, now, &mut orders);
        self.obey(key, orders);
    }

    fn obey(&mut self, key: Key, orders: Vec<Order<Asker>>) {
        self.arm(key);
        for order in orders {
            match order {
                Order::Start => self.start_demand(key),
                Order::Stop(reason) => self.stop_demand(key, reason),
                Order::Release(Asker::Connection(connection)) => {
                    self.stop_waiting(connection);
                    self.put_off(connection);
                }
                Order::Release(Asker::Web(ticket)) => self.hls_released(ticket),
                Order::Fail(Asker::Connection(connection), reason) => {
                    self.stop_waiting(connection);
                    self.refuse_waiting(key, connection, reason);
                }
                Order::Fail(Asker::Web(ticket), reason) => {
                    let reason = self.sentence(key, reason);
                    self.end_visit(ticket, WebAnswer::failure(StatusCode::INTERNAL_SERVER_ERROR, &reason));
                }
                // What waits for a stream is a request; a connection waits for its home only.
                Order::Release(Asker::WebConnection(_)) | Order::Fail(Asker::WebConnection(_), _) => {}
            }
        }
    }

    fn start_demand(&mut self, key: Key) {
        let Some(path) = self.paths.get(key) else { return };
        let Some(demand) = &path.settings.demand else { return };
        let (brought_by, query) = (demand.brought_by.clone(), path.demand.query.clone());
        self.tell(News::DemandBegan { path: path.name.clone(), query: query.clone() });
        if let BroughtBy::Pull(settings) = brought_by {
            self.start_pull(key, settings, &query);
        }
    }

    fn stop_demand(&mut self, key: Key, reason: StopReason) {
        let Some(path) = self.paths.get(key) else { return };
        let name = path.name.clone();
        if path.is_pulled_on_demand() {
            let in_vain = matches!(reason, StopReason::SourceFailed | StopReason::TimedOut);
            self.stop_pull(key, reason.as_str(), in_vain);
        }
        self.tell(News::DemandEnded { path: name, reason: reason.as_str().to_owned() });
    }

    fn stop_waiting(&mut self, connection: Key) {
        if let Some(connection) = self.connections.get_mut(connection)
            && let Phase::AwaitingStream(_) = connection.phase
        {
            connection.phase = Phase::Open;
        }
    }

    fn refuse_waiting(&mut self, path: Key, key: Key, reason: FailReason) {
        let Some(connection) = self.connections.get(key) else { return };
        let request = match parse_request(&connection.inbox, &self.limits) {
            Ok(Parsed::Complete { value, .. }) => Some(value),
            _ => None,
        };
        let cseq = request.as_ref().and_then(|request| request.headers.get("CSeq"));
        let reason = self.sentence(path, reason);
        self.refuse(key, cseq, Status::BAD_REQUEST, &reason);
    }

    /// Why somebody waited in vain for the stream of a path.
    fn sentence(&self, path: Key, reason: FailReason) -> String {
        match reason {
            FailReason::TimedOut => {
                let name = self.paths.get(path).map(|path| &*path.name).unwrap_or_default();
                format!("source of path '{name}' has timed out")
            }
            FailReason::Terminated => "terminated".to_owned(),
        }
    }

    /// Keeps a path's place among the timers.
    fn arm(&mut self, key: Key) {
        let Some(path) = self.paths.get_mut(key) else { return };
        let deadline = path.demand.machine.deadline();
        let armed = std::mem::replace(&mut path.demand.armed, deadline);
        if armed == deadline {
            return;
        }
        let timers = &mut self.work.demands.0;
        if let Some(armed) = armed {
            timers.remove(&(armed, key.to_bits()));
        }
        if let Some(deadline) = deadline {
            timers.insert((deadline, key.to_bits()));
        }
    }
}
