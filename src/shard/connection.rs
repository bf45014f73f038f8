//! A client's TCP connection: what was received and not understood yet, what was answered and not sent yet.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::fd::{AsRawFd, RawFd},
    sync::Arc,
    time::{Duration, Instant},
};

use corecast_proto::rtsp::{Method, Request};
use tracing::info;

use super::{Kind, Mail, Shard, listen, media_io::Event, paths::Origin, plain, slots::Key};
use crate::sources::rtsp_publish::{self, ChannelMap, IngestError, Taken};

/// A connection holds at most this much that it has not understood, bytes: one message of the largest size allowed,
/// and a packet.
const INBOX_BYTES_MAX: usize = 256 * 1024;
/// … and at most this much that it could not send. A client that asks without reading is closed.
const OUTBOX_BYTES_MAX: usize = 512 * 1024;
/// Receives per connection and turn.
const RECEIVES_PER_TURN: usize = 4;
/// Requests answered per connection and turn.
const REQUESTS_PER_TURN: usize = 32;
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
    /// The peer has closed its side: read until the end.
    hung_up: bool,
    /// It is in the list of connections that go on in the next turn.
    put_off: bool,
}

/// Whether a receive should be followed by another.
enum More {
    Yes,
    No,
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
    /// The path whose claim led it there.
    pub claim: Option<Arc<str>>,
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
            hung_up: false,
            put_off: false,
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
                // The client gave up before its turn.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
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
        let path = claim.and_then(|path| self.claimed_path(&path));
        let mut connection = Connection::new(socket, peer, self.now.instant);
        (connection.inbox, connection.out, connection.spoke) = (inbox, out, true);
        if let Some(key) = self.adopt(connection) {
            self.flush_out(key);
            self.progress(key);
        }
        if let Some(path) = path {
            self.release_path(path);
        }
    }

    /// Sends a connection with all that it has not been answered to another shard.
    pub(super) fn hand_over(&mut self, key: Key, to: usize, claim: Option<Arc<str>>) {
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
        if let Phase::Lingering { .. } = connection.phase {
            return self.discard(key);
        }
        for _ in 0..RECEIVES_PER_TURN {
            match self.receive_once(key) {
                // A short read emptied the socket: more is told by the next edge. After a hang-up none comes.
                Ok(More::No) => return,
                Ok(More::Yes) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // What was put off to this turn was not on the socket.
                    return self.progress(key);
                }
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return self.close(key, "EOF"),
                Err(error) => return self.close(key, &error.to_string()),
            }
        }
        self.put_off(key);
    }

    fn receive_once(&mut self, key: Key) -> io::Result<More> {
        let Some(connection) = self.connections.get_mut(key) else { return Ok(More::No) };
        if matches!(connection.phase, Phase::Lingering { .. }) {
            return Ok(More::No);
        }
        let hung_up = connection.hung_up;
        let full = match connection.role {
            Role::Publishing { path, .. } if connection.inbox.is_empty() => {
                let live = self.paths.get_mut(path).and_then(|path| path.live.as_mut());
                let Some(live) = live else { return Ok(More::No) };
                rtsp_publish::receive(&mut live.publication, &connection.socket)?
            }
            _ => {
                let buffer = &mut self.work.scratch;
                match (&connection.socket).read(buffer)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    count if connection.inbox.len() + count > INBOX_BYTES_MAX => {
                        return Err(io::Error::other("sent more than a request may hold"));
                    }
                    count => {
                        connection.inbox.extend_from_slice(&buffer[..count]);
                        count == buffer.len()
                    }
                }
            }
        };
        self.progress(key);
        Ok(if full || hung_up { More::Yes } else { More::No })
    }

    /// The connection goes on in the next turn.
    fn put_off(&mut self, key: Key) {
        if let Some(connection) = self.connections.get_mut(key)
            && !std::mem::replace(&mut connection.put_off, true)
        {
            self.work.unread.push(key);
        }
    }

    /// A connection that was put off is worked on again.
    pub(super) fn resume(&mut self, key: Key) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.put_off = false;
            self.receive(key);
        }
    }

    /// Nothing more will be reported of the socket: it has to be read to its end.
    pub(super) fn hang_up(&mut self, key: Key) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.hung_up = true;
            self.receive(key);
        }
    }

    /// Works on what was received, a bounded number of requests per turn: packets go into the stream, requests are
    /// answered.
    pub(super) fn progress(&mut self, key: Key) {
        for _ in 0..REQUESTS_PER_TURN {
            let Some(connection) = self.connections.get(key) else { return };
            if connection.phase != Phase::Open {
                return;
            }
            let request = match connection.role {
                Role::Publishing { path, .. } => self.take_media(key, path),
                Role::Signalling | Role::Playing { .. } => self.take_request(key),
            };
            match request {
                Some(request) => self.answer(key, &request),
                None => return,
            }
        }
        self.put_off(key);
    }

    /// Moves a publisher's bytes into the stream, up to the next request among them.
    fn take_media(&mut self, key: Key, path_key: Key) -> Option<Request> {
        loop {
            let connection = self.connections.get_mut(key)?;
            let Role::Publishing { channels, .. } = &connection.role else { return None };
            let live = self.paths.get_mut(path_key)?.live.as_mut()?;
            if connection.session.map(Origin::Session) != Some(live.origin) {
                self.close(key, "publishes to a path that is not its own");
                return None;
            }
            let stream = &mut live.publication.stream;
            // What came behind RECORD was received with it.
            let spare = stream.spare(connection.inbox.len());
            let moved = spare.len();
            spare.copy_from_slice(&connection.inbox[..moved]);
            stream.fill(moved);
            connection.inbox.drain(..moved);
            let taken = rtsp_publish::take_pending(&mut live.publication, channels, &self.limits, self.now);
            live.mark_dirty(path_key, &mut self.work.dirty);
            match taken {
                Ok(Taken::All) if moved > 0 && !connection.inbox.is_empty() => {}
                Ok(Taken::All) => return None,
                Ok(Taken::Request(request)) => {
                    if matches!(request.method, Method::Pause | Method::Teardown) {
                        // The answer ends the stream, and its ring with what follows the request.
                        let stream = &mut live.publication.stream;
                        let rest = stream.pending().len();
                        connection.inbox.splice(0..0, stream.pending().iter().copied());
                        stream.shrink_pending(rest);
                    }
                    return Some(request);
                }
                Err(IngestError::Garbage(error)) => {
                    self.refuse(key, None, error.status(), &format!("garbage between packets: {error}"));
                    return None;
                }
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
        connection.inbox = Vec::new();
        let role = std::mem::replace(&mut connection.role, Role::Signalling);
        // A full socket keeps its answer; the linger time ends it all the same.
        if connection.is_flushed() {
            let _ = connection.socket.shutdown(Shutdown::Write);
        }
        let session = connection.session.take();
        if let Role::Playing { seat } = role {
            self.drop_tcp_seat(seat);
        }
        if let Some(session) = session {
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
        self.put_off(key);
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
        let Some(connection) = self.connections.remove(key) else { return };
        self.io.unwatch(connection.fd(), Kind::Connection.token(key));
        // The watch may keep the socket for another moment: the peer is told now.
        let _ = connection.socket.shutdown(Shutdown::Both);
        // A seat knows its descriptor by number: it must not outlive it.
        if let Role::Playing { seat } = connection.role {
            self.drop_tcp_seat(seat);
        }
        if self.work.accept_stalled {
            self.work.accept_stalled = false;
            self.work.events.push(Event::Readable(Kind::Listener.only()));
        }
    }
}
