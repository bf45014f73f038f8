//! What shards tell, taken in piece by piece.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::SystemTime,
};

use corecast_hub::{
    registry::ShardId,
    roster::{News, SessionFacts, SessionState},
};
use uuid::Uuid;

use super::{
    Conn, Demand, Event, HlsMuxer, HlsSession, Incidents, PathTotals, Reader, ReaderKind, Session, Stream,
    hls::Hls, past::Past, sources::Sources,
};
use crate::control::tally::Retired;

/// Connections whose end is told before their beginning, because two shards tell it, are remembered so far back.
pub(super) const EARLY_ENDS_MAX: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) conns: HashMap<Uuid, Arc<Conn>>,
    /// The session of each connection that has one, whichever of the two is told first.
    pub(super) conn_sessions: HashMap<Uuid, Uuid>,
    pub(super) early_ends: VecDeque<(Uuid, String)>,
    pub(super) sessions: HashMap<Uuid, Arc<Session>>,
    /// Sessions that read each path, of all kinds.
    pub(super) readers: HashMap<Arc<str>, BTreeSet<Uuid>>,
    pub(super) streams: BTreeMap<Arc<str>, Arc<Stream>>,
    pub(super) demands: BTreeMap<Arc<str>, Arc<Demand>>,
    pub(super) sources: Sources,
    /// Of publications that have ended.
    pub(super) past: Past<PathTotals>,
    pub(super) hls: Hls,
    pub(super) incidents: Incidents,
    /// Of connections and sessions that are no more: of the plain server, and of that for TLS.
    pub(super) retired: [Retired; 2],
}

impl Tables {
    pub(super) fn reader_counts(&self) -> HashMap<Arc<str>, usize> {
        self.readers.iter().map(|(path, ids)| (Arc::clone(path), ids.len())).collect()
    }

    pub(super) fn reader(&self, id: Uuid) -> Option<Reader> {
        let of_hls = || self.hls.sessions.get(&id).cloned().map(Reader::Hls);
        self.sessions.get(&id).cloned().map(Reader::Rtsp).or_else(of_hls)
    }

    pub(super) fn apply(&mut self, shard: ShardId, news: News) -> Vec<Event> {
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
                match session.facts.state {
                    SessionState::Read => vec![self.leave(Reader::Rtsp(session), reason)],
                    SessionState::Idle | SessionState::Publish => Vec::new(),
                }
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
            News::HlsMuxerOpened { path, created, by, traffic } => {
                self.hls.muxer_opened(HlsMuxer { path, created, by, traffic, shard })
            }
            News::HlsMuxerClosed { path, reason } => {
                self.hls.muxer_closed(&path, reason).into_iter().collect()
            }
            News::HlsSessionOpened {
                id,
                created,
                remote,
                path,
                query,
                user,
                user_agent,
                is_cdn,
                traffic,
            } => {
                let session =
                    HlsSession { id, created, remote, path, query, user, user_agent, is_cdn, traffic, shard };
                // The end of one of the same name comes first; should it not have, it counts all the same.
                let before = self.hls_session_closed(id, "replaced".to_owned());
                let session = self.hls.session_opened(session);
                before.into_iter().chain([self.join(Reader::Hls(session))]).collect()
            }
            News::HlsSessionClosed { id, reason } => {
                self.hls_session_closed(id, reason).into_iter().collect()
            }
            News::SourceChanged { path, state, error } => {
                self.sources.changed(&path, state, error.as_deref());
                vec![Event::SourceChanged { path, state, error }]
            }
            News::StreamUp { path, at, origin, query, tracks, traffic } => {
                let mut events = Vec::new();
                // The end of the one before it comes first; should it not have, it counts all the same.
                events.extend(self.stream_down(&path, "replaced".to_owned()));
                self.past.begun(&path);
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
                let kind = self.reader(session).map_or(ReaderKind::Rtsp, |reader| reader.kind());
                vec![Event::SlowReader { session, kind, path, what, behind_ms, packets }]
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
            (false, true) => vec![self.join(Reader::Rtsp(now))],
            (true, false) => vec![self.leave(Reader::Rtsp(before), "paused".to_owned())],
            _ => Vec::new(),
        }
    }

    fn hls_session_closed(&mut self, id: Uuid, reason: String) -> Option<Event> {
        let session = self.hls.session_closed(id)?;
        Some(self.leave(Reader::Hls(session), reason))
    }

    fn join(&mut self, reader: Reader) -> Event {
        self.readers.entry(Arc::clone(reader.path())).or_default().insert(reader.id());
        Event::ReaderJoined(reader)
    }

    fn leave(&mut self, reader: Reader, reason: String) -> Event {
        if let Some(readers) = self.readers.get_mut(reader.path()) {
            readers.remove(&reader.id());
            if readers.is_empty() {
                self.readers.remove(reader.path());
            }
        }
        Event::ReaderLeft { reader, reason }
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
        self.past.ended(path, PathTotals::of(&stream.traffic));
        Some(Event::Unavailable { stream, reason })
    }
}
