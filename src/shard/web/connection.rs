//! An HTTP connection: from the handshake to its last answer.

use std::{
    future::Future as _,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use hyper::server::conn::{http1, http2};
use tracing::{debug, warn};

use super::{
    Ticket, Web, WebAnswer, WebService,
    handover::Newcomer,
    lobby::Lobby,
    tasks::{Flag, Spawner, Tasks},
    visit::{Door, Guest},
    wire::{Link, Wire},
};
use crate::shard::{Kind, connection::HANDSHAKES_PER_TURN, media_io::MediaIo, slots::Key};

/// Largest head of a request over HTTP/1.1, bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Bytes that an HTTP/1.1 connection collects of an answer before it sends.
const SEND_BYTES: usize = 256 << 10;
/// Largest header list of a request over HTTP/2, bytes.
const HEADER_LIST_BYTES_MAX: u32 = 16 << 10;
/// Requests under way at a time, over HTTP/2.
const STREAMS_MAX: u32 = 100;
/// Streams that a client may have reset before we have looked at them, and those that we have reset for its mistakes:
/// beyond, the connection is closed.
const RESETS_MAX: usize = 50;
/// What a client may send of bodies before it has to wait for us, over HTTP/2: bytes per stream and per connection.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 256 << 10;
/// Bytes of answers that wait in an HTTP/2 connection, per stream.
const STREAM_SEND_BYTES: usize = 64 << 10;
/// Times that a connection is polled in one turn.
const POLLS_PER_TURN: usize = 8;
/// A client has this long to read our last answer and close.
const LINGER: Duration = Duration::from_secs(1);

/// See the module.
pub struct WebConnection {
    pub service: WebService,
    pub peer: SocketAddr,
    pub link: Rc<Link>,
    pub opened: Instant,
    pub state: State,
    /// Up when the connection itself can go on.
    flag: Arc<Flag>,
    waker: Waker,
    /// It is in the list of those that are polled next.
    is_due: bool,
    awaits_room: bool,
}

pub enum State {
    Handshaking,
    /// The first line of its first request tells where it belongs.
    Peeking,
    /// That is being asked for.
    AwaitingHome,
    Serving {
        guest: Rc<Guest>,
        protocol: Protocol,
    },
    /// Nothing more is answered; the client is given the time to read our last answer.
    Lingering {
        until: Instant,
    },
}

pub enum Protocol {
    Http1(Pin<Box<http1::Connection<Wire, Door>>>),
    Http2(Pin<Box<http2::Connection<Wire, Door, Spawner>>>, Tasks),
}

/// What came of polling a connection.
enum Step {
    Waits,
    /// It can go on, but others have to.
    GoesOn,
    Ended(hyper::Result<()>),
}

impl WebConnection {
    pub fn new(service: WebService, peer: SocketAddr, link: Link, lobby: &Rc<Lobby>) -> Self {
        let flag = Flag::new();
        Self {
            service,
            peer,
            link: Rc::new(link),
            opened: lobby.now(),
            state: State::Handshaking,
            waker: Waker::from(Arc::clone(&flag)),
            flag,
            is_due: false,
            awaits_room: false,
        }
    }

    pub fn speaks_http2(&self) -> bool {
        matches!(self.state, State::Serving { protocol: Protocol::Http2(..), .. })
    }

    pub fn guest(&self) -> Option<&Rc<Guest>> {
        match &self.state {
            State::Serving { guest, .. } => Some(guest),
            State::Handshaking | State::Peeking | State::AwaitingHome | State::Lingering { .. } => None,
        }
    }

    /// Lets hyper at it.
    pub(super) fn serve(&mut self, key: Key, http2: bool, lobby: &Rc<Lobby>) {
        let guest = Guest::new(self.service, key, self.peer, Rc::clone(&self.link), Rc::clone(lobby));
        let (wire, door) = (Wire(Rc::clone(&self.link)), Door(Rc::clone(&guest)));
        let protocol = match http2 {
            false => {
                let connection = http1::Builder::new()
                    .max_header_size(HEAD_BYTES_MAX)
                    .max_buf_size(SEND_BYTES)
                    // The shard's upkeep knows better what a connection waits for.
                    .header_read_timeout(None)
                    .serve_connection(wire, door);
                Protocol::Http1(Box::pin(connection))
            }
            true => {
                let tasks = Tasks::default();
                let connection = http2::Builder::new(tasks.spawner())
                    .max_concurrent_streams(STREAMS_MAX)
                    .max_pending_accept_reset_streams(RESETS_MAX)
                    .max_local_error_reset_streams(RESETS_MAX)
                    .max_header_list_size(HEADER_LIST_BYTES_MAX)
                    .initial_stream_window_size(STREAM_WINDOW)
                    .initial_connection_window_size(CONNECTION_WINDOW)
                    .max_send_buf_size(STREAM_SEND_BYTES)
                    .serve_connection(wire, door);
                Protocol::Http2(Box::pin(connection), tasks)
            }
        };
        self.flag.raise();
        self.state = State::Serving { guest, protocol };
    }

    /// Ends after the answers that are under way; takes no more requests.
    fn end_gracefully(&mut self) {
        if let State::Serving { protocol, .. } = &mut self.state {
            match protocol {
                Protocol::Http1(connection) => connection.as_mut().graceful_shutdown(),
                Protocol::Http2(connection, _) => connection.as_mut().graceful_shutdown(),
            }
            self.flag.raise();
        }
    }

    fn poll(&mut self) -> Step {
        let State::Serving { protocol, .. } = &mut self.state else { return Step::Waits };
        let mut context = Context::from_waker(&self.waker);
        for _ in 0..POLLS_PER_TURN {
            let mut went_on = self.flag.lower();
            if went_on {
                let polled = match protocol {
                    Protocol::Http1(connection) => connection.as_mut().poll(&mut context),
                    Protocol::Http2(connection, _) => connection.as_mut().poll(&mut context),
                };
                if let Poll::Ready(result) = polled {
                    return Step::Ended(result);
                }
            }
            if let Protocol::Http2(_, tasks) = protocol {
                went_on |= tasks.poll();
            }
            if !went_on {
                return Step::Waits;
            }
        }
        Step::GoesOn
    }
}

impl Web {
    /// The media ring says that a connection's socket is ready.
    pub fn on_ready(&mut self, key: Key, hung_up: bool, has_room: bool) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        match has_room {
            true => connection.awaits_room = false,
            false => connection.link.is_readable(hung_up),
        }
        connection.flag.raise();
        self.make_due(key);
    }

    /// The connection is polled next time.
    pub(super) fn make_due(&mut self, key: Key) {
        if let Some(connection) = self.connections.get_mut(key)
            && !std::mem::replace(&mut connection.is_due, true)
        {
            self.due.push(key);
        }
    }

    /// Gives an answer to a request of a connection here, if it is still waited for.
    pub fn answer(&mut self, ticket: Ticket, answer: WebAnswer) {
        let connection = self.connections.get(ticket.connection);
        let Some(guest) = connection.and_then(WebConnection::guest) else { return };
        if guest.answer(ticket.request, answer) {
            self.make_due(ticket.connection);
        }
    }

    /// Takes a connection in, if its socket can be watched.
    pub(super) fn adopt(&mut self, io: &mut MediaIo, connection: WebConnection) -> Option<Key> {
        let (fd, peer, service) = (connection.link.fd(), connection.peer, connection.service);
        let key = self.connections.insert(connection);
        if let Err(error) = io.watch(fd, Kind::Web.token(key)) {
            warn!("[{}] [conn {peer}] closed: cannot be watched: {error}", service.name());
            self.connections.remove(key);
            return None;
        }
        self.opened(service);
        self.make_due(key);
        Some(key)
    }

    /// Goes on with a connection as far as it can.
    pub(super) fn poll(&mut self, io: &mut MediaIo, key: Key, handshakes: &mut u32) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.is_due = false;
        match connection.state {
            State::Handshaking if !connection.link.is_encrypted() => connection.state = State::Peeking,
            State::Handshaking if *handshakes >= HANDSHAKES_PER_TURN => return self.make_due(key),
            State::Handshaking => {
                *handshakes += 1;
                match connection.link.shake_hands() {
                    Ok(Some(true)) => connection.serve(key, true, &self.lobby),
                    Ok(Some(false)) => connection.state = State::Peeking,
                    Ok(None) => {}
                    Err(error) => return self.close(io, key, &error.to_string()),
                }
            }
            State::Peeking | State::AwaitingHome | State::Serving { .. } => {}
            State::Lingering { .. } => {
                if connection.link.discard() {
                    self.drop(io, key);
                }
                return;
            }
        }
        match connection.state {
            State::Peeking if !self.has_other_shards => connection.serve(key, false, &self.lobby),
            State::Peeking => match connection.link.peek() {
                Ok(Some(line)) => {
                    connection.state = State::AwaitingHome;
                    self.newcomers.push(Newcomer::new(key, &line));
                }
                Ok(None) => {}
                Err(error) => return self.close(io, key, &error.to_string()),
            },
            _ => {}
        }
        match connection.poll() {
            Step::Waits => {}
            Step::GoesOn => self.make_due(key),
            Step::Ended(result) => return self.ended(io, key, result),
        }
        self.await_room(io, key);
    }

    /// Asks to be told when the connection has room, if it needs some.
    fn await_room(&mut self, io: &mut MediaIo, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if !connection.link.take_wants_room() || std::mem::replace(&mut connection.awaits_room, true) {
            return;
        }
        let fd = connection.link.fd();
        if let Err(error) = io.watch_writable_once(fd, Kind::Web.token(key)) {
            self.close(io, key, &format!("cannot be watched: {error}"));
        }
    }

    fn ended(&mut self, io: &mut MediaIo, key: Key, result: hyper::Result<()>) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if let Err(error) = result {
            let (server, peer) = (connection.service.name(), connection.peer);
            debug!("[{server}] [conn {peer}] closed: {error}");
        }
        // Bytes that it still sends would take our last answer from it, were the socket closed now.
        connection.link.end();
        connection.state = State::Lingering { until: self.lobby.now() + LINGER };
        if connection.link.discard() {
            self.drop(io, key);
        }
    }

    /// Ends a connection at once, with what it waits for.
    pub(super) fn close(&mut self, io: &mut MediaIo, key: Key, reason: &str) {
        if let Some(connection) = self.connections.get(key) {
            let (server, peer) = (connection.service.name(), connection.peer);
            debug!("[{server}] [conn {peer}] closed: {reason}");
        }
        self.drop(io, key);
    }

    pub(super) fn drop(&mut self, io: &mut MediaIo, key: Key) {
        let Some(connection) = self.connections.remove(key) else { return };
        io.unwatch(connection.link.fd(), Kind::Web.token(key));
        connection.link.close();
        self.closed(connection.service);
    }

    /// No more requests are taken of a connection; it ends when it has been answered.
    pub(super) fn end_gracefully(&mut self, key: Key) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.end_gracefully();
            self.make_due(key);
        }
    }
}
