//! Who is connected and what is live, over all shards, as their news tell it. Never asks a shard.

mod census;
mod hls;
mod past;
mod reader;
mod sources;
mod tables;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use corecast_hub::{
    registry::ShardId,
    roster::{
        ConnTraffic, News, Origin, Refusal, SessionFacts, SessionTraffic, Slowness, SourceState,
        StreamTraffic, TrackFacts,
    },
};
use uuid::Uuid;

use self::{census::with_live, tables::Tables};
pub use self::{
    census::{Census, HlsCensus, Incidents, PathTotals},
    hls::{HlsMuxer, HlsSession, MuxerTotals},
    reader::{Reader, ReaderKind},
    sources::SourceFacts,
};

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
    ReaderJoined(Reader),
    ReaderLeft {
        reader: Reader,
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
    HlsMuxerCreated(Arc<HlsMuxer>),
    HlsMuxerDestroyed {
        muxer: Arc<HlsMuxer>,
        reason: String,
    },
    SlowReader {
        session: Uuid,
        kind: ReaderKind,
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

/// See the module. Written by the control thread, read by everybody on the control plane.
#[derive(Debug, Default)]
pub struct Directory {
    tables: Mutex<Tables>,
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

    /// Those who read `path`, by id.
    pub fn readers(&self, path: &str) -> Vec<Reader> {
        let tables = self.tables();
        let ids = tables.readers.get(path).into_iter().flatten();
        ids.filter_map(|&id| tables.reader(id)).collect()
    }

    /// How many read each path, for paths that have any readers.
    pub fn reader_counts(&self) -> HashMap<Arc<str>, usize> {
        self.tables().reader_counts()
    }

    /// By time of their beginning.
    pub fn hls_muxers(&self) -> Vec<Arc<HlsMuxer>> {
        let mut muxers: Vec<_> = self.tables().hls.muxers.values().cloned().collect();
        // Those of a moment stay in the order of their paths.
        muxers.sort_by_key(|muxer| muxer.created);
        muxers
    }

    /// That of a path.
    pub fn hls_muxer(&self, path: &str) -> Option<Arc<HlsMuxer>> {
        self.tables().hls.muxers.get(path).cloned()
    }

    /// By time of their beginning.
    pub fn hls_sessions(&self) -> Vec<Arc<HlsSession>> {
        let mut sessions: Vec<_> = self.tables().hls.sessions.values().cloned().collect();
        sessions.sort_unstable_by_key(|session| (session.created, session.id));
        sessions
    }

    pub fn hls_session(&self, id: Uuid) -> Option<Arc<HlsSession>> {
        self.tables().hls.sessions.get(&id).cloned()
    }

    /// How many muxers and HLS sessions there are.
    pub fn hls_counts(&self) -> (usize, usize) {
        let tables = self.tables();
        (tables.hls.muxers.len(), tables.hls.sessions.len())
    }

    /// Where a session is, of whatever kind.
    pub fn shard_of(&self, session: Uuid) -> Option<ShardId> {
        let tables = self.tables();
        let of_hls = || tables.hls.sessions.get(&session).map(|session| session.shard);
        tables.sessions.get(&session).map(|session| session.shard).or_else(of_hls)
    }

    /// By path, for all that ever had a stream and are still known.
    pub fn totals(&self) -> BTreeMap<Arc<str>, PathTotals> {
        let (past, live) = {
            let tables = self.tables();
            (tables.past.totals(), tables.streams.values().cloned().collect::<Vec<_>>())
        };
        with_live(past, live.iter().map(|stream| (&stream.path, PathTotals::of(&stream.traffic))))
    }

    /// Refusals and slow readers since the start.
    pub fn incidents(&self) -> Incidents {
        self.tables().incidents.clone()
    }

    /// Everything at one moment, for the metrics: sums over it do not go back while things end.
    pub fn census(&self) -> Census {
        let (past, muxers_past, mut census) = {
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
                hls: tables.hls.census(),
            };
            (tables.past.totals(), tables.hls.past_muxers(), census)
        };
        census.conns.sort_unstable_by_key(|conn| (conn.created, conn.id));
        census.sessions.sort_unstable_by_key(|session| (session.created, session.id));
        let streams = census.streams.iter();
        census.totals =
            with_live(past, streams.map(|stream| (&stream.path, PathTotals::of(&stream.traffic))));
        census.hls.settle(muxers_past);
        census
    }
}

#[cfg(test)]
mod tests;
