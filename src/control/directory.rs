//! Who is connected and what is live, over all shards, as their news tell it. Never asks a shard.

mod census;
mod sources;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use corecast_hub::{
    registry::ShardId,
    roster::{
        ConnTraffic, News, Origin, Refusal, SessionFacts, SessionState, SessionTraffic, Slowness,
        SourceState, StreamTraffic, TrackFacts,
    },
};
use uuid::Uuid;

use self::{census::with_live, sources::Sources};
pub use self::{
    census::{Census, Incidents, PathTotals},
    sources::SourceFacts,
};
use super::tally::Retired;

/// An RTSP connection.
#[derive(Debug)]
pub struct Conn {
    pub id: Uuid,
    pub created: SystemTime,
    pub remote: SocketAddr,
    /// It came to the server for TLS.
    pub encrypted: bool,
    /// The session it belongs to.
    pub session: Option<Uuid>,
    pub traffic: Arc<ConnTraffic>,
}

/// An RTSP session.
#[derive(Debug)]
pub struct Session {
    pub id: Uuid,
    pub created: SystemTime,
    pub remote: SocketAddr,
    pub encrypted: bool,
    pub facts: SessionFacts,
    pub traffic: Arc<SessionTraffic>,
    pub shard: ShardId,
}

/// A live publication.
#[derive(Debug)]
pub struct Stream {
    pub path: Arc<str>,
    pub since: SystemTime,
    pub origin: Origin,
    /// The publisher's.
    pub query: String,
    pub tracks: Vec<TrackFacts>,
    pub traffic: Arc<StreamTraffic>,
    pub shard: ShardId,
}

/// A path that somebody wants, for as long as what was started for it lasts.
#[derive(Debug)]
pub struct Demand {
    pub path: Arc<str>,
    pub since: SystemTime,
    /// Of whoever wanted it first.
    pub query: String,
}

/// What happened, for hooks and for `GET /v3/events`.
#[derive(Debug, Clone)]
pub enum Event {
    ConnOpened(Arc<Conn>),
    ConnClosed {
        conn: Arc<Conn>,
        reason: String,
    },
    Available(Arc<Stream>),
    Unavailable {
        stream: Arc<Stream>,
        reason: String,
    },
    /// A session began to play.
    ReaderJoined(Arc<Session>),
    ReaderLeft {
        session: Arc<Session>,
        reason: String,
    },
    DemandBegan(Arc<Demand>),
    DemandEnded {
        demand: Arc<Demand>,
        reason: String,
    },
    SourceChanged {
        path: Arc<str>,
        state: SourceState,
        error: Option<String>,
    },
    SlowReader {
        session: Uuid,
        encrypted: bool,
        path: Arc<str>,
        what: Slowness,
        behind_ms: u64,
        packets: u64,
    },
    Refused {
        path: Arc<str>,
        remote: SocketAddr,
        why: Refusal,
    },
}

/// Totals of this many paths are kept that have no stream any more; the oldest are forgotten.
const PAST_PATHS_MAX: usize = 20_000;
/// Connections whose end is told before their beginning, because two shards tell it, are remembered so far back.
const EARLY_ENDS_MAX: usize = 1024;

/// See the module. Written by the control thread, read by everybody on the control plane.
#[derive(Debug, Default)]
pub struct Directory {
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    conns: HashMap<Uuid, Arc<Conn>>,
    /// The session of each connection that has one, whichever of the two is told first.
    conn_sessions: HashMap<Uuid, Uuid>,
    early_ends: VecDeque<(Uuid, String)>,
    sessions: HashMap<Uuid, Arc<Session>>,
    /// Sessions that read each path.
    readers: HashMap<Arc<str>, BTreeSet<Uuid>>,
    streams: BTreeMap<Arc<str>, Arc<Stream>>,
    demands: BTreeMap<Arc<str>, Arc<Demand>>,
    sources: Sources,
    /// Totals of publications that have ended, with when the last one did.
    past: HashMap<Arc<str>, (PathTotals, u64)>,
    /// Paths without a stream in `past`, by when their last one ended.
    past_order: BTreeMap<u64, Arc<str>>,
    ends: u64,
    incidents: Incidents,
    /// Of connections and sessions that are no more: of the plain server, and of that for TLS.
    retired: [Retired; 2],
}

impl Directory {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what a shard tells, and says what happened by it.
    pub fn apply(&self, shard: ShardId, news: News) -> Vec<Event> {
        self.tables().apply(shard, news)
    }

    /// By time of their beginning.
    pub fn conns(&self) -> Vec<Arc<Conn>> {
        let mut conns: Vec<_> = self.tables().conns.values().cloned().collect();
        conns.sort_unstable_by_key(|conn| (conn.created, conn.id));
        conns
    }

    pub fn conn(&self, id: Uuid) -> Option<Arc<Conn>> {
        self.tables().conns.get(&id).cloned()
    }

    /// By time of their beginning.
    pub fn sessions(&self) -> Vec<Arc<Session>> {
        let mut sessions: Vec<_> = self.tables().sessions.values().cloned().collect();
        sessions.sort_unstable_by_key(|session| (session.created, session.id));
        sessions
    }

    pub fn session(&self, id: Uuid) -> Option<Arc<Session>> {
        self.tables().sessions.get(&id).cloned()
    }

    /// By path.
    pub fn streams(&self) -> Vec<Arc<Stream>> {
        self.tables().streams.values().cloned().collect()
    }

    pub fn stream(&self, path: &str) -> Option<Arc<Stream>> {
        self.tables().streams.get(path).cloned()
    }

    /// What the source of `path` is doing; `None` when it is stopped and did not fail, or there is none.
    pub fn source(&self, path: &str) -> Option<SourceFacts> {
        self.tables().sources.get(path).cloned()
    }

    /// Paths that are live, wanted by somebody, or being pulled.
    pub fn present(&self) -> BTreeSet<Arc<str>> {
        let tables = self.tables();
        let active = tables.sources.active().map(|(path, _)| path);
        tables.streams.keys().chain(tables.demands.keys()).chain(active).cloned().collect()
    }

    /// Whether `path` is one of [`Self::present`].
    pub fn is_present(&self, path: &str) -> bool {
        let tables = self.tables();
        tables.streams.contains_key(path)
            || tables.demands.contains_key(path)
            || tables.sources.is_active(path)
    }

    /// Sessions that read `path`, by id.
    pub fn readers(&self, path: &str) -> Vec<Arc<Session>> {
        let tables = self.tables();
        let ids = tables.readers.get(path).into_iter().flatten();
        ids.filter_map(|id| tables.sessions.get(id).cloned()).collect()
    }

    /// How many sessions read each path, for paths that have any.
    pub fn reader_counts(&self) -> HashMap<Arc<str>, usize> {
        self.tables().reader_counts()
    }

    /// By path, for all that ever had a stream and are still known.
    pub fn totals(&self) -> BTreeMap<Arc<str>, PathTotals> {
        let (past, live) = {
            let tables = self.tables();
            (tables.past_totals(), tables.streams.values().cloned().collect::<Vec<_>>())
        };
        with_live(past, &live)
    }

    /// Refusals and slow readers since the start.
    pub fn incidents(&self) -> Incidents {
        self.tables().incidents.clone()
    }

    /// Everything at one moment, for the metrics: sums over it do not go back while things end.
    pub fn census(&self) -> Census {
        let (past, mut census) = {
            let tables = self.tables();
            let census = Census {
                conns: tables.conns.values().cloned().collect(),
                sessions: tables.sessions.values().cloned().collect(),
                streams: tables.streams.values().cloned().collect(),
                wanted: tables.demands.keys().cloned().collect(),
                sources: tables.sources.active().map(|(path, state)| (Arc::clone(path), state)).collect(),
                totals: BTreeMap::new(),
                incidents: tables.incidents.clone(),
                retired: tables.retired.clone(),
            };
            (tables.past_totals(), census)
        };
        census.conns.sort_unstable_by_key(|conn| (conn.created, conn.id));
        census.sessions.sort_unstable_by_key(|session| (session.created, session.id));
        census.totals = with_live(past, &census.streams);
        census
    }
}

impl Tables {
    fn past_totals(&self) -> Vec<(Arc<str>, PathTotals)> {
        self.past.iter().map(|(path, &(totals, _))| (Arc::clone(path), totals)).collect()
    }

    fn reader_counts(&self) -> HashMap<Arc<str>, usize> {
        self.readers.iter().map(|(path, ids)| (Arc::clone(path), ids.len())).collect()
    }

    fn apply(&mut self, shard: ShardId, news: News) -> Vec<Event> {
        match news {
            News::ConnOpened { id, created, remote, encrypted, traffic } => {
                let session = self.conn_sessions.get(&id).copied();
                let conn = Arc::new(Conn { id, created, remote, encrypted, session, traffic });
                let mut events = vec![Event::ConnOpened(Arc::clone(&conn))];
                match self.early_ends.iter().position(|(ended, _)| *ended == id) {
                    Some(index) => {
                        self.retired[usize::from(conn.encrypted)].conn_closed(&conn.traffic);
                        let reason = self.early_ends.remove(index).map(|(_, reason)| reason);
                        events.push(Event::ConnClosed { conn, reason: reason.unwrap_or_default() });
                    }
                    None => drop(self.conns.insert(id, conn)),
                }
                events
            }
            News::ConnClosed { id, reason } => {
                self.conn_sessions.remove(&id);
                match self.conns.remove(&id) {
                    Some(conn) => {
                        self.retired[usize::from(conn.encrypted)].conn_closed(&conn.traffic);
                        vec![Event::ConnClosed { conn, reason }]
                    }
                    None => {
                        if self.early_ends.len() == EARLY_ENDS_MAX {
                            self.early_ends.pop_front();
                        }
                        self.early_ends.push_back((id, reason));
                        Vec::new()
                    }
                }
            }
            News::SessionOpened { id, created, remote, encrypted, traffic } => {
                let facts = SessionFacts {
                    state: SessionState::Idle,
                    path: Arc::default(),
                    query: String::new(),
                    user: String::new(),
                    user_agent: String::new(),
                    transport: None,
                    conn: None,
                };
                let session = Session { id, created, remote, encrypted, facts, traffic, shard };
                self.sessions.insert(id, Arc::new(session));
                Vec::new()
            }
            News::SessionChanged { id, facts } => self.session_changed(id, facts),
            News::SessionClosed { id, reason } => {
                let Some(session) = self.sessions.remove(&id) else { return Vec::new() };
                self.retired[usize::from(session.encrypted)]
                    .session_closed(session.facts.state, &session.traffic);
                self.link(session.facts.conn, None, id);
                self.leave(&session, reason).into_iter().collect()
            }
            News::DemandBegan { path, query } => {
                let demand = Arc::new(Demand { path: Arc::clone(&path), since: SystemTime::now(), query });
                self.demands.insert(path, Arc::clone(&demand));
                vec![Event::DemandBegan(demand)]
            }
            News::DemandEnded { path, reason } => {
                let demand = self.demands.remove(&path);
                demand.map(|demand| Event::DemandEnded { demand, reason }).into_iter().collect()
            }
            News::SourceChanged { path, state, error } => {
                self.sources.changed(&path, state, error.as_deref());
                vec![Event::SourceChanged { path, state, error }]
            }
            News::StreamUp { path, at, origin, query, tracks, traffic } => {
                let mut events = Vec::new();
                // The end of the one before it comes first; should it not have, it counts all the same.
                events.extend(self.stream_down(&path, "replaced".to_owned()));
                if let Some((_, ended)) = self.past.get(&path) {
                    self.past_order.remove(ended);
                }
                let stream = Arc::new(Stream {
                    path: Arc::clone(&path),
                    since: at,
                    origin,
                    query,
                    tracks,
                    traffic,
                    shard,
                });
                self.streams.insert(path, Arc::clone(&stream));
                events.push(Event::Available(stream));
                events
            }
            News::StreamTracks { path, tracks } => {
                if let Some(stream) = self.streams.get_mut(&path) {
                    let Stream { path, since, origin, query, traffic, shard, .. } = &**stream;
                    *stream = Arc::new(Stream {
                        path: Arc::clone(path),
                        since: *since,
                        origin: origin.clone(),
                        query: query.clone(),
                        tracks,
                        traffic: Arc::clone(traffic),
                        shard: *shard,
                    });
                }
                Vec::new()
            }
            News::StreamDown { path, reason } => self.stream_down(&path, reason).into_iter().collect(),
            News::SlowReader { session, path, what, behind_ms, packets } => {
                *self.incidents.slow.entry(what).or_default() += 1;
                let encrypted = self.sessions.get(&session).is_some_and(|session| session.encrypted);
                vec![Event::SlowReader { session, encrypted, path, what, behind_ms, packets }]
            }
            News::Refused { path, remote, why } => {
                *self.incidents.refused.entry(why).or_default() += 1;
                vec![Event::Refused { path, remote, why }]
            }
        }
    }

    fn session_changed(&mut self, id: Uuid, facts: SessionFacts) -> Vec<Event> {
        let Some(before) = self.sessions.get(&id).cloned() else { return Vec::new() };
        self.link(before.facts.conn, facts.conn, id);
        if before.facts.state != facts.state {
            let retired = &mut self.retired[usize::from(before.encrypted)];
            retired.session_changed(before.facts.state, facts.state, &before.traffic);
        }
        let reads = |facts: &SessionFacts| facts.state == SessionState::Read;
        let (read, reads) = (reads(&before.facts), reads(&facts));
        let Session { created, remote, encrypted, shard, .. } = *before;
        let traffic = Arc::clone(&before.traffic);
        let now = Arc::new(Session { id, created, remote, encrypted, facts, traffic, shard });
        self.sessions.insert(id, Arc::clone(&now));
        match (read, reads) {
            (false, true) => {
                self.readers.entry(Arc::clone(&now.facts.path)).or_default().insert(id);
                vec![Event::ReaderJoined(now)]
            }
            (true, false) => self.leave(&before, "paused".to_owned()).into_iter().collect(),
            _ => Vec::new(),
        }
    }

    /// A session does not read any more, if it did.
    fn leave(&mut self, session: &Arc<Session>, reason: String) -> Option<Event> {
        let path = &session.facts.path;
        if session.facts.state != SessionState::Read {
            return None;
        }
        if let Some(readers) = self.readers.get_mut(path) {
            readers.remove(&session.id);
            if readers.is_empty() {
                self.readers.remove(path);
            }
        }
        Some(Event::ReaderLeft { session: Arc::clone(session), reason })
    }

    /// A session goes from one connection to another.
    fn link(&mut self, from: Option<Uuid>, to: Option<Uuid>, session: Uuid) {
        if from == to {
            return;
        }
        if let Some(from) = from
            && self.conn_sessions.get(&from) == Some(&session)
        {
            self.conn_sessions.remove(&from);
            self.show_session(from, None);
        }
        if let Some(to) = to {
            self.conn_sessions.insert(to, session);
            self.show_session(to, Some(session));
        }
    }

    fn show_session(&mut self, conn: Uuid, session: Option<Uuid>) {
        if let Some(conn) = self.conns.get_mut(&conn) {
            let Conn { id, created, remote, encrypted, .. } = **conn;
            let traffic = Arc::clone(&conn.traffic);
            *conn = Arc::new(Conn { id, created, remote, encrypted, session, traffic });
        }
    }

    fn stream_down(&mut self, path: &Arc<str>, reason: String) -> Option<Event> {
        let stream = self.streams.remove(path)?;
        self.ends += 1;
        let (totals, ended) = self.past.entry(Arc::clone(path)).or_default();
        *totals += PathTotals::of(&stream.traffic);
        *ended = self.ends;
        self.past_order.insert(self.ends, Arc::clone(path));
        if self.past_order.len() > PAST_PATHS_MAX
            && let Some((_, oldest)) = self.past_order.pop_first()
        {
            self.past.remove(&oldest);
        }
        Some(Event::Unavailable { stream, reason })
    }
}

#[cfg(test)]
mod tests;
