//! RTSP sessions: they belong to a path, and outlive their connection when media flows in datagrams.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use corecast_hub::{
    quota::Pass,
    roster::{self, News, SessionFacts, SessionTraffic},
};
use corecast_proto::rtsp::server::Session;
use tracing::info;
use uuid::Uuid;

use super::{
    Shard,
    connection::Role,
    fan_out::{TcpSeat, UdpSeat},
    ids,
    paths::Origin,
    plain,
    slots::Key,
};
use crate::{readers::Outbound, sources::publication::Inbound};

/// A UDP reader that was told 55 s is given twice that: players are late with their keep-alives (pain 41).
pub const UDP_READER_SILENCE_MAX: Duration = Duration::from_secs(110);

/// A session and what it holds here.
pub struct SessionEntry {
    /// As operators know it.
    pub id: Uuid,
    /// Taken out while it answers a request.
    pub session: Option<Session>,
    pub connection: Option<Key>,
    pub peer: SocketAddr,
    /// It came over TLS, and does not leave it.
    pub encrypted: bool,
    pub path: Option<Key>,
    pub flow: Flow,
    /// When the client was last heard of: a request, or RTCP of a UDP reader, or packets of a UDP publisher.
    pub last_heard: Instant,
    /// Who authenticated; empty when nobody had to.
    pub user: String,
    pub user_agent: String,
    /// What the control plane was told last.
    pub told: Option<SessionFacts>,
    pub traffic: Arc<SessionTraffic>,
    /// What it was sent before its present PLAY, and what came from it before its present RECORD.
    pub sent: Outbound,
    pub received: Inbound,
    pub lost_before: u64,
    /// By source: packets that it says it never got.
    pub reported_lost: Vec<(u32, u32)>,
    /// Its place among the readers of the relay.
    pub pass: Option<Pass>,
}

/// Media that flows for a session.
#[derive(Debug, Clone)]
pub enum Flow {
    None,
    TcpReader(Key),
    UdpReader(Key),
    TcpPublisher,
    /// Its sockets, one entry per track.
    UdpPublisher(Vec<Key>),
}

impl SessionEntry {
    /// The server that it belongs to, as logs name it.
    pub fn server(&self) -> &'static str {
        roster::rtsp_server(self.encrypted)
    }

    /// As in logs.
    pub fn short_id(&self) -> String {
        ids::short(self.id)
    }

    /// The session goes on without its connection.
    fn survives_connection(&self) -> bool {
        matches!(self.flow, Flow::UdpReader(_) | Flow::UdpPublisher(_))
    }
}

impl Shard {
    pub(super) fn new_session(&mut self, connection: Key) -> Option<Key> {
        let now = self.now.instant;
        let connection_entry = self.connections.get_mut(connection)?;
        let (peer, id) = (connection_entry.peer, connection_entry.standing.take_session_id());
        let (encrypted, server) = (connection_entry.is_encrypted(), connection_entry.server());
        let session_id = ids::new_session_id(self.id);
        info!("[{server}] [session {}] created by {}", ids::short(id), plain(peer));
        let key = self.sessions.insert(SessionEntry {
            id,
            session: Some(Session::new(session_id.clone())),
            connection: Some(connection),
            peer,
            encrypted,
            path: None,
            flow: Flow::None,
            last_heard: now,
            user: String::new(),
            user_agent: String::new(),
            told: None,
            traffic: Arc::default(),
            sent: Outbound::default(),
            received: Inbound::default(),
            lost_before: 0,
            reported_lost: Vec::new(),
            pass: None,
        });
        self.session_ids.insert(session_id, key);
        connection_entry.session = Some(key);
        self.tell_session_opened(key);
        Some(key)
    }

    /// A session's connection is gone.
    pub(super) fn connection_left_session(&mut self, session: Key, connection: Key, reason: &str) {
        let Some(entry) = self.sessions.get_mut(session) else { return };
        if entry.connection != Some(connection) {
            return;
        }
        entry.connection = None;
        if entry.survives_connection() {
            self.tell_session(session);
        } else {
            self.end_session(session, reason);
        }
    }

    /// Stops a session's media; the session stays. A publisher's path loses its stream.
    pub(super) fn stop_flow(&mut self, key: Key, reason: &str) {
        let Some(entry) = self.sessions.get_mut(key) else { return };
        let (connection, path) = (entry.connection, entry.path);
        match std::mem::replace(&mut entry.flow, Flow::None) {
            Flow::None => {}
            Flow::TcpReader(seat) => {
                self.signalling_again(connection);
                self.drop_tcp_seat(seat);
            }
            Flow::UdpReader(seat) => {
                if let Some(UdpSeat { reader, path, seating }) = self.udp_seats.remove(seat) {
                    for address in reader.addresses().map(plain) {
                        if self.udp_addresses.get(&address) == Some(&key) {
                            self.udp_addresses.remove(&address);
                        }
                    }
                    self.keep_sent(path, &seating, reader.outbound);
                }
                if let Some(live) =
                    path.and_then(|path| self.paths.get_mut(path)).and_then(|path| path.live.as_mut())
                {
                    live.udp.retain(|&other| other != seat);
                }
            }
            Flow::TcpPublisher => {
                self.signalling_again(connection);
                self.end_own_publication(path, key, reason);
            }
            Flow::UdpPublisher(sources) => {
                for source in sources {
                    self.close_udp_source(source);
                }
                self.end_own_publication(path, key, reason);
            }
        }
    }

    fn signalling_again(&mut self, connection: Option<Key>) {
        if let Some(connection) = connection.and_then(|key| self.connections.get_mut(key)) {
            connection.role = Role::Signalling;
        }
    }

    /// Removes a reader's seat, if it is still there.
    pub(super) fn drop_tcp_seat(&mut self, key: Key) {
        let Some(TcpSeat { mut reader, path, connection, seating, .. }) = self.tcp_seats.remove(key) else {
            return;
        };
        if let Some(live) = self.paths.get_mut(path).and_then(|path| path.live.as_mut()) {
            live.tcp.retain(|&other| other != key);
            let rtcp_packets = live.publication.tracks.inbound.rtcp_packets;
            reader.settle(&live.publication.stream, rtcp_packets);
        }
        if let Some(connection) = self.connections.get_mut(connection) {
            connection.sent_bytes += reader.outbound.bytes;
        }
        self.keep_sent(path, &seating, reader.outbound);
    }

    fn end_own_publication(&mut self, path: Option<Key>, session: Key, reason: &str) {
        let Some(path) = path else { return };
        let live = self.paths.get(path).and_then(|path| path.live.as_ref());
        if live.is_some_and(|live| live.origin == Origin::Session(session)) {
            self.end_publication(path, reason);
        }
    }

    /// Ends a session; its connection, if it has one, stays.
    pub(super) fn end_session(&mut self, key: Key, reason: &str) {
        self.stop_flow(key, reason);
        let Some(entry) = self.sessions.remove(key) else { return };
        info!("[{}] [session {}] destroyed: {reason}", entry.server(), entry.short_id());
        if let Some(session) = &entry.session {
            self.session_ids.remove(session.id());
        }
        self.tell(News::SessionClosed { id: entry.id, reason: reason.to_owned() });
        if let Some(connection) = entry.connection.and_then(|key| self.connections.get_mut(key))
            && connection.session == Some(key)
        {
            connection.session = None;
        }
        if let Some(path_key) = entry.path {
            if let Some(path) = self.paths.get_mut(path_key) {
                path.readers.retain(|&other| other != key);
                path.publishers.retain(|&other| other != key);
            }
            self.readers_changed(path_key);
            self.release_path(path_key);
        }
    }

    /// Ends a session and the connection it came on.
    pub(super) fn end_session_and_connection(&mut self, key: Key, reason: &str) {
        let connection = self.sessions.get(key).and_then(|entry| entry.connection);
        self.end_session(key, reason);
        if let Some(connection) = connection {
            self.close_after_answer(connection, reason);
        }
    }

    /// The client of a session was heard of, on whatever way.
    pub(super) fn heard(&mut self, session: Key) {
        if let Some(entry) = self.sessions.get_mut(session) {
            entry.last_heard = self.now.instant;
        }
    }
}
