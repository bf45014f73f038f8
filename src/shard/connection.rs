//! A client's TCP connection: what was received and not understood yet, what was answered and not sent yet.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::fd::{AsRawFd, RawFd},
    sync::Arc,
    time::{Duration, Instant},
};

use corecast_hub::roster::{self, ConnTraffic, News};
use corecast_proto::rtsp::{Method, Request};
use tracing::info;
use uuid::Uuid;

use super::{
    Kind, Shard, access::Standing, handover::Identity, media_io::Event, paths::Origin, plain, slots::Key,
    tls::Tls,
};
use crate::sources::{
    in_place::{self, ChannelMap},
    rtsp_publish::{IngestError, Requests},
};

/// A connection holds at most this much that it has not understood, bytes: one message of the largest size allowed,
/// and a packet.
const INBOX_BYTES_MAX: usize = 256 * 1024;
/// … and at most this much that it could not send. A client that asks without reading is closed.
const OUTBOX_BYTES_MAX: usize = 512 * 1024;
/// Receives per connection and turn.
const RECEIVES_PER_TURN: usize = 4;
/// Requests answered per connection and turn.
const REQUESTS_PER_TURN: usize = 32;
/// Receives per turn of all connections together that are still shaking hands: such a step can take milliseconds.
pub const HANDSHAKES_PER_TURN: u32 = 8;
/// After an error is answered, how long the client may take to close, so that it gets to read the answer.
const LINGER: Duration = Duration::from_secs(1);

/// See the module.
pub struct Connection {
    pub id: Uuid,
    /// Since the Unix epoch.
    pub created: Duration,
    pub traffic: Arc<ConnTraffic>,
    pub received_bytes: u64,
    /// Without what its present reader was sent.
    pub sent_bytes: u64,
    /// Who its client is, as far as that was asked.
    pub standing: Standing,
    pub socket: TcpStream,
    /// As the socket tells it.
    pub peer: SocketAddr,
    /// `None` when it is not encrypted. All bytes here are those inside.
    pub tls: Option<Box<Tls>>,
    pub inbox: Vec<u8>,
    pub out: Vec<u8>,
    /// So much of `out` was sent.
    pub out_sent: usize,
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
    /// Its request waits for the control plane to say whether it is allowed.
    AwaitingVerdict {
        since: Instant,
    },
    /// Its request waits for the stream of a path that is brought on demand.
    AwaitingStream(Key),
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

impl Connection {
    pub fn new(identity: Identity, socket: TcpStream, peer: SocketAddr, now: Instant) -> Self {
        let Identity { id, created, traffic, received_bytes, sent_bytes, standing, tls } = identity;
        Self {
            id,
            created,
            traffic,
            received_bytes,
            sent_bytes,
            standing,
            socket,
            peer,
            tls,
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

    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// The server that it belongs to, as logs name it.
    pub fn server(&self) -> &'static str {
        roster::rtsp_server(self.is_encrypted())
    }

    fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Everything was sent.
    pub fn is_flushed(&self) -> bool {
        self.out.is_empty() && self.tls.as_ref().is_none_or(|tls| tls.is_flushed())
    }

    /// Sends `bytes` at once, as far as the socket takes them; nothing else may be waiting. Returns how many were taken
    /// over. Over TLS they may still wait for room then: see [`Self::is_flushed`].
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => tls.send(&self.socket, bytes),
            None => send_plain(&self.socket, bytes),
        }
    }

    /// Sends what is waiting, as far as the socket takes it.
    fn flush(&mut self) -> io::Result<()> {
        let waiting = &self.out[self.out_sent..];
        self.out_sent += match &mut self.tls {
            Some(tls) => tls.send(&self.socket, waiting)?,
            None => send_plain(&self.socket, waiting)?,
        };
        if self.out_sent == self.out.len() {
            // An idle connection costs no buffer.
            (self.out, self.out_sent) = (Vec::new(), 0);
        }
        Ok(())
    }

    /// Tells the peer that nothing more comes, unless something that should have come before it did not go out.
    fn end_encryption(&mut self) {
        if let Some(tls) = &mut self.tls
            && self.out.is_empty()
        {
            tls.end(&self.socket);
        }
    }
}

/// Sends as far as the socket takes it; returns how much that was.
pub(super) fn send_plain(mut socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match socket.write(&bytes[sent..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

impl Shard {
    /// The socket has something, or its end.
    pub(super) fn receive(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.last_heard = self.now.instant;
        // What is said over TLS is not known yet.
        connection.spoke |= !connection.is_encrypted();
        if let Phase::Lingering { .. } = connection.phase {
            return self.discard(key);
        }
        if connection.is_handshaking() {
            if self.work.handshakes == HANDSHAKES_PER_TURN {
                return self.put_off(key);
            }
            self.work.handshakes += 1;
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
            Role::Publishing { path, .. } if connection.inbox.is_empty() && !connection.is_encrypted() => {
                let live = self.paths.get_mut(path).and_then(|path| path.live.as_mut());
                let Some(live) = live else { return Ok(More::No) };
                let before = live.publication.stream.pending().len();
                let full = in_place::receive(&mut live.publication, &connection.socket)?;
                connection.received_bytes += (live.publication.stream.pending().len() - before) as u64;
                full
            }
            _ => {
                let buffer = &mut self.work.scratch;
                match (&connection.socket).read(buffer)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    count if connection.inbox.len() + count > INBOX_BYTES_MAX => {
                        return Err(io::Error::other("sent more than a request may hold"));
                    }
                    count => {
                        let before = connection.inbox.len();
                        match &mut connection.tls {
                            Some(tls) => tls.take(&buffer[..count], &mut connection.inbox)?,
                            None => connection.inbox.extend_from_slice(&buffer[..count]),
                        }
                        let said = connection.inbox.len() - before;
                        connection.received_bytes += said as u64;
                        connection.spoke |= said > 0;
                        count == buffer.len()
                    }
                }
            }
        };
        if connection.tls.as_ref().is_some_and(|tls| !tls.is_flushed()) {
            // The next step of a handshake, for one.
            self.flush_out(key);
        }
        self.progress(key);
        let tls = self.connections.get(key).and_then(|connection| connection.tls.as_ref());
        if tls.is_some_and(|tls| tls.is_peer_closed()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(if full || hung_up { More::Yes } else { More::No })
    }

    /// The connection goes on in the next turn.
    pub(super) fn put_off(&mut self, key: Key) {
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
            let Some(request) = request else { return };
            self.answer(key, &request);
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
            // What came behind RECORD was received with it.
            let moved = in_place::move_in(&mut live.publication, &mut connection.inbox);
            let mut requests = Requests(&self.limits);
            let taken = in_place::take_pending(&mut live.publication, channels, &mut requests, self.now);
            live.mark_dirty(path_key, &mut self.work.dirty);
            match taken {
                Ok(None) if moved > 0 && !connection.inbox.is_empty() => {}
                Ok(None) => return None,
                Ok(Some(request)) => {
                    if matches!(request.method, Method::Pause | Method::Teardown) {
                        // The answer ends the stream, and its ring with what follows the request.
                        in_place::move_out(&mut live.publication, &mut connection.inbox);
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
        let flushed = connection.is_flushed();
        let seat = match connection.role {
            Role::Playing { seat } => Some(seat),
            Role::Signalling | Role::Publishing { .. } => None,
        };
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
        self.leave_queue(key);
        let Some(connection) = self.connections.get_mut(key) else { return };
        if matches!(connection.phase, Phase::Lingering { .. }) {
            return;
        }
        info!("[{}] [conn {}] closed: {reason}", connection.server(), plain(connection.peer));
        connection.phase = Phase::Lingering { until: self.now.instant + LINGER };
        let id = connection.id;
        connection.inbox = Vec::new();
        let role = std::mem::replace(&mut connection.role, Role::Signalling);
        // A full socket keeps its answer; the linger time ends it all the same.
        if connection.is_flushed() {
            connection.end_encryption();
            let _ = connection.socket.shutdown(Shutdown::Write);
        }
        let session = connection.session.take();
        if let Role::Playing { seat } = role {
            self.drop_tcp_seat(seat);
        }
        if let Some(session) = session {
            self.connection_left_session(session, key, reason);
        }
        self.count_connection(key);
        self.tell(News::ConnClosed { id, reason: reason.to_owned() });
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
        let lingers = matches!(connection.phase, Phase::Lingering { .. });
        if !lingers {
            info!("[{}] [conn {}] closed: {reason}", connection.server(), plain(connection.peer));
        }
        let (id, session) = (connection.id, connection.session.take());
        if let Some(session) = session {
            self.connection_left_session(session, key, reason);
        }
        if !lingers {
            self.count_connection(key);
            self.tell(News::ConnClosed { id, reason: reason.to_owned() });
        }
        self.drop_connection(key);
    }

    pub(super) fn drop_connection(&mut self, key: Key) {
        self.leave_queue(key);
        let Some(mut connection) = self.connections.remove(key) else { return };
        self.io.unwatch(connection.fd(), Kind::Connection.token(key));
        connection.end_encryption();
        // The watch may keep the socket for another moment: the peer is told now.
        let _ = connection.socket.shutdown(Shutdown::Both);
        // A seat knows its descriptor by number: it must not outlive it.
        if let Role::Playing { seat } = connection.role {
            self.drop_tcp_seat(seat);
        }
        if std::mem::take(&mut self.work.accept_stalled) {
            let listeners = [Kind::Listener, Kind::TlsListener];
            self.work.events.extend(listeners.map(|kind| Event::Readable(kind.only())));
        }
    }
}
