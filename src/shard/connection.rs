//! A client's TCP connection: what was received and not understood yet, what was answered and not sent yet.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::fd::{AsRawFd, RawFd},
    time::{Duration, Instant},
};

use tracing::info;

use super::{Kind, Mail, Shard, listen, media_io::Event, plain, slots::Key};
use crate::sources::rtsp_publish::{self, ChannelMap, Taken};

/// A connection holds at most this much that it has not understood, bytes: one message of the largest size allowed,
/// and a packet.
const INBOX_BYTES_MAX: usize = 256 * 1024;
/// … and at most this much that it could not send. A client that asks without reading is closed.
const OUTBOX_BYTES_MAX: usize = 512 * 1024;
/// Receives per connection and turn.
const RECEIVES_PER_TURN: usize = 4;
/// Connections accepted per turn.
const ACCEPTS_PER_TURN: usize = 64;
/// After an error is answered, how long the client may take to close, so that it gets to read the answer.
const LINGER: Duration = Duration::from_secs(1);

/// See the module.
pub struct Connection {
    pub socket: TcpStream,
    /// As the socket tells it.
    pub peer: SocketAddr,
    pub inbox: Vec<u8>,
    pub out: Vec<u8>,
    out_sent: usize,
    pub phase: Phase,
    pub session: Option<Key>,
    pub role: Role,
    pub last_heard: Instant,
    /// It has sent something at least once.
    pub spoke: bool,
    awaits_room: bool,
}

/// What the connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Open,
    /// Its request waits for the answer where its path lives.
    AwaitingHome,
    /// Closed from our side; the client is given the time to read our last answer.
    Lingering {
        until: Instant,
    },
}

/// What flows over the connection beside requests.
pub enum Role {
    Signalling,
    /// Interleaved packets from a publisher of `path`.
    Publishing {
        path: Key,
        channels: Box<ChannelMap>,
    },
    /// Interleaved packets to a reader.
    Playing {
        seat: Key,
    },
}

/// A connection on its way to another shard.
pub struct Handover {
    pub socket: TcpStream,
    pub peer: SocketAddr,
    /// Everything received from the unanswered request on.
    pub inbox: Vec<u8>,
    /// Answers that did not go out yet.
    pub out: Vec<u8>,
    /// The claim that led it there, for the path that it asks for.
    pub claim: Option<(std::sync::Arc<str>, u64)>,
}

impl Connection {
    fn new(socket: TcpStream, peer: SocketAddr, now: Instant) -> Self {
        Self {
            socket,
            peer,
            inbox: Vec::new(),
            out: Vec::new(),
            out_sent: 0,
            phase: Phase::Open,
            session: None,
            role: Role::Signalling,
            last_heard: now,
            spoke: false,
            awaits_room: false,
        }
    }

    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Everything was sent.
    pub fn is_flushed(&self) -> bool {
        self.out.is_empty()
    }

    /// Sends what is waiting, as far as the socket takes it.
    fn flush(&mut self) -> io::Result<()> {
        while self.out_sent < self.out.len() {
            match (&self.socket).write(&self.out[self.out_sent..]) {
                Ok(count) => self.out_sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // An idle connection costs no buffer.
        (self.out, self.out_sent) = (Vec::new(), 0);
        Ok(())
    }
}

impl Shard {
    pub(super) fn accept(&mut self) {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(listener) = &self.listener else { return };
            match listener.accept() {
                Ok((socket, peer)) => {
                    if listen::prepare(&socket).is_ok() {
                        info!("[RTSP] [conn {}] opened", plain(peer));
                        let connection = Connection::new(socket, peer, self.now.instant);
                        self.adopt(connection);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    // Out of descriptors, most likely: the backlog holds the others until upkeep tries again.
                    tracing::warn!("[RTSP] accept failed: {error}; raise LimitNOFILE if this repeats");
                    self.work.accept_stalled = true;
                    return;
                }
            }
        }
        self.work.events.push(Event::Readable(Kind::Listener.only()));
    }

    fn adopt(&mut self, connection: Connection) -> Option<Key> {
        let (fd, peer) = (connection.fd(), connection.peer);
        let key = self.connections.insert(connection);
        if let Err(error) = self.io.watch(fd, Kind::Connection.token(key)) {
            tracing::warn!("[RTSP] [conn {}] closed: cannot be watched: {error}", plain(peer));
            self.connections.remove(key);
            return None;
        }
        Some(key)
    }

    /// Takes over a connection from another shard and goes on with its request.
    pub(super) fn take_over(&mut self, handover: Handover) {
        let Handover { socket, peer, inbox, out, claim } = handover;
        if let Some((path, claim)) = claim {
            self.path_at_home(&path, claim);
        }
        let mut connection = Connection::new(socket, peer, self.now.instant);
        (connection.inbox, connection.out, connection.spoke) = (inbox, out, true);
        if let Some(key) = self.adopt(connection) {
            self.flush_out(key);
            self.work_inbox(key);
        }
    }

    /// Sends a connection with all that it has not been answered to another shard.
    pub(super) fn hand_over(&mut self, key: Key, to: usize, claim: Option<(std::sync::Arc<str>, u64)>) {
        let Some(connection) = self.connections.remove(key) else { return };
        self.io.unwatch(connection.fd(), Kind::Connection.token(key));
        let Connection { socket, peer, inbox, mut out, out_sent, .. } = connection;
        out.drain(..out_sent);
        self.mesh.send(to, Mail::Connection(Box::new(Handover { socket, peer, inbox, out, claim })));
    }

    /// The socket has something, or its end.
    pub(super) fn receive(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.last_heard = self.now.instant;
        connection.spoke = true;
        match (&connection.role, connection.phase) {
            (_, Phase::Lingering { .. }) => self.discard(key),
            (Role::Publishing { .. }, _) => self.receive_media(key),
            (Role::Signalling | Role::Playing { .. }, _) => self.receive_requests(key),
        }
    }

    fn receive_requests(&mut self, key: Key) {
        for _ in 0..RECEIVES_PER_TURN {
            let Some(connection) = self.connections.get_mut(key) else { return };
            let buffer = &mut self.work.scratch;
            let full = match (&connection.socket).read(buffer) {
                Ok(0) => return self.close(key, "EOF"),
                Ok(count) if connection.inbox.len() + count > INBOX_BYTES_MAX => {
                    return self.close(key, "sent more than a request may hold");
                }
                Ok(count) => {
                    connection.inbox.extend_from_slice(&buffer[..count]);
                    count == buffer.len()
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return self.close(key, &error.to_string()),
            };
            self.work_inbox(key);
            if !full {
                return;
            }
        }
        self.work.unread.push(key);
    }

    fn receive_media(&mut self, key: Key) {
        for _ in 0..RECEIVES_PER_TURN {
            let Some(connection) = self.connections.get_mut(key) else { return };
            let Role::Publishing { path, .. } = connection.role else {
                // A request ended the publishing; the rest is signalling again.
                self.work.unread.push(key);
                return;
            };
            let Some(live) = self.paths.get_mut(path).and_then(|path| path.live.as_mut()) else { return };
            match rtsp_publish::receive(&mut live.publication, &connection.socket) {
                Ok(more) => {
                    self.take_media(key);
                    if !more {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return self.close(key, "EOF"),
                Err(error) => return self.close(key, &error.to_string()),
            }
        }
        self.work.unread.push(key);
    }

    /// Moves a publisher's received bytes into the stream; answers requests among them.
    pub(super) fn take_media(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Role::Publishing { path: path_key, channels } = &connection.role else { return };
        let path_key = *path_key;
        let Some(live) = self.paths.get_mut(path_key).and_then(|path| path.live.as_mut()) else { return };
        let taken = rtsp_publish::take_pending(&mut live.publication, channels, &self.limits, self.now);
        if !std::mem::replace(&mut live.dirty, true) {
            self.work.dirty.push(path_key);
        }
        match taken {
            Ok(Taken::All) => {}
            Ok(Taken::Request(request)) => {
                // What follows the request waits in the inbox: the answer may end the stream, and its ring with it.
                let rest = live.publication.stream.pending();
                connection.inbox.extend_from_slice(rest);
                let length = rest.len();
                live.publication.stream.shrink_pending(length);
                self.answer(key, &request);
                self.work_inbox(key);
            }
            Err(rtsp_publish::IngestError::Garbage(error)) => {
                self.refuse(key, None, error.status(), &format!("garbage between packets: {error}"));
            }
        }
    }

    /// Room to send again: first what was cut or answered, then media.
    pub(super) fn writable(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.awaits_room = false;
        if let Role::Playing { seat } = connection.role
            && let Some(seat) = self.tcp_seats.get_mut(seat)
        {
            seat.reader.progress(self.now.instant);
        }
        self.flush_out(key);
    }

    /// Sends what is waiting on a connection. While something is left, its reader gets nothing new.
    pub(super) fn flush_out(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if let Err(error) = connection.flush() {
            return self.close(key, &error.to_string());
        }
        if connection.out.len() - connection.out_sent > OUTBOX_BYTES_MAX {
            return self.close(key, "does not read its answers");
        }
        let (flushed, seat) = (
            connection.is_flushed(),
            match connection.role {
                Role::Playing { seat } => Some(seat),
                Role::Signalling | Role::Publishing { .. } => None,
            },
        );
        if !flushed {
            self.await_room(key);
        }
        match (flushed, seat) {
            (true, Some(seat)) => self.resume_seat(seat),
            (false, Some(seat)) => {
                if let Some(seat) = self.tcp_seats.get_mut(seat)
                    && let Some(live) = self.paths.get(seat.path).and_then(|path| path.live.as_ref())
                {
                    seat.reader.block(&live.publication.stream, self.now.instant);
                }
            }
            (_, None) => {}
        }
    }

    /// Asks to be told when the connection has room.
    pub(super) fn await_room(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if std::mem::replace(&mut connection.awaits_room, true) {
            return;
        }
        let fd = connection.fd();
        if let Err(error) = self.io.watch_writable_once(fd, Kind::Connection.token(key)) {
            self.close(key, &format!("cannot be watched: {error}"));
        }
    }

    /// Ends a connection in good order: the last answer gets out, then the client closes or is closed.
    pub(super) fn close_after_answer(&mut self, key: Key, reason: &str) {
        self.flush_out(key);
        let Some(connection) = self.connections.get_mut(key) else { return };
        if matches!(connection.phase, Phase::Lingering { .. }) {
            return;
        }
        info!("[RTSP] [conn {}] closed: {reason}", plain(connection.peer));
        connection.phase = Phase::Lingering { until: self.now.instant + LINGER };
        connection.role = Role::Signalling;
        connection.inbox = Vec::new();
        // A full socket keeps its answer; the linger time ends it all the same.
        if connection.is_flushed() {
            let _ = connection.socket.shutdown(Shutdown::Write);
        }
        if let Some(session) = connection.session.take() {
            self.connection_left_session(session, key, reason);
        }
        self.discard(key);
    }

    fn discard(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let mut buffer = [0; 4096];
        for _ in 0..64 {
            match (&connection.socket).read(&mut buffer) {
                Ok(0) => return self.drop_connection(key),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.drop_connection(key),
            }
        }
        self.work.unread.push(key);
    }

    /// Ends a connection at once.
    pub(super) fn close(&mut self, key: Key, reason: &str) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if !matches!(connection.phase, Phase::Lingering { .. }) {
            info!("[RTSP] [conn {}] closed: {reason}", plain(connection.peer));
        }
        let session = connection.session.take();
        if let Some(session) = session {
            self.connection_left_session(session, key, reason);
        }
        self.drop_connection(key);
    }

    pub(super) fn drop_connection(&mut self, key: Key) {
        if let Some(connection) = self.connections.remove(key) {
            self.io.unwatch(connection.fd(), Kind::Connection.token(key));
            // The watch may keep the socket for another moment: the peer is told now.
            let _ = connection.socket.shutdown(Shutdown::Both);
        }
    }
}
