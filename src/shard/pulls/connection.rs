//! The connection of one attempt: how it is made, what is said on it, and its end.

use std::{
    io::{self, Read},
    net::{Shutdown, SocketAddr, TcpStream},
    os::fd::{AsRawFd, RawFd},
    time::{Duration, Instant},
};

use corecast_hub::gauges::PullPhase;
use corecast_proto::{
    rtsp::{
        Status,
        client::{self, Client, SourceUrl, Step},
    },
    sdp::SessionDescription,
};
use tracing::debug;

use super::{Elsewhere, dial::Dialled, media::Flow, talk};
use crate::{
    shard::{Kind, Shard, connection::send_plain, media_io::Event, paths::Origin, slots::Key, tls::Tls},
    sources::{
        in_place,
        pull_sockets::PulledSockets,
        rtsp_pull::{Messages, Noise, Said, SourceBytesError},
    },
};

/// What a source has sent that is not understood yet, bytes: one message of the largest size allowed, and a packet.
const INBOX_BYTES_MAX: usize = 256 * 1024;
/// Requests that the source does not take, bytes.
const OUTBOX_BYTES_MAX: usize = 64 * 1024;
/// Receives per connection and turn.
const RECEIVES_PER_TURN: usize = 4;
/// Messages per connection and turn.
const MESSAGES_PER_TURN: usize = 32;

/// See the module.
pub struct PullConnection {
    pub(super) pull: Key,
    pub(super) path: Key,
    pub(super) url: Box<SourceUrl>,
    pub(super) address: SocketAddr,
    pub(super) socket: TcpStream,
    /// `None` when it is not encrypted. All bytes here are those inside.
    pub(super) tls: Option<Box<Tls>>,
    pub(super) stage: Stage,
    inbox: Vec<u8>,
    pub(super) out: Vec<u8>,
    /// So much of `out` was sent.
    out_sent: usize,
    pub(super) awaits_room: bool,
    /// The peer has closed its side: read until the end.
    hung_up: bool,
    /// It has answered or asked something.
    spoke: bool,
    login_refused: bool,
    pub(super) noise: Noise,
    pub(super) description: Option<SessionDescription>,
    /// Ports of tracks that are being set up.
    pub(super) sockets: Vec<(usize, PulledSockets)>,
    pub(super) flow: Flow,
    pub(super) phase: PullPhase,
    /// Since when the phase lasts.
    pub(super) since: Instant,
    /// When the first packet came.
    pub(super) first_packet: Option<Instant>,
    /// When packets were seen last, and how many there were.
    pub(super) heard: Instant,
    pub(super) packets_seen: u64,
    pub(super) reports_due: Instant,
    /// Where the stream stood before.
    pub(super) began_at: u64,
}

pub(super) enum Stage {
    /// The connect is under way, until it is given up; then the last of these is tried.
    Connecting {
        rest: Vec<SocketAddr>,
        give_up: Instant,
    },
    Encrypting,
    /// `None` only while the client works.
    Talking(Option<Box<Client>>),
}

/// What a connection had come to when it was closed.
pub(super) struct Closed {
    pub url: Box<SourceUrl>,
    pub phase: PullPhase,
    /// For how long media has flowed.
    pub ran: Option<Duration>,
    pub login_refused: bool,
}

impl PullConnection {
    /// One that is being made.
    pub(super) fn new(made: Dialled, since: Instant, now: Instant) -> Self {
        let Dialled { pull, path, url, address, socket, rest, give_up } = made;
        Self {
            pull,
            path,
            url,
            address,
            socket,
            tls: None,
            stage: Stage::Connecting { rest, give_up },
            inbox: Vec::new(),
            out: Vec::new(),
            out_sent: 0,
            // It is told when it is connected.
            awaits_room: true,
            hung_up: false,
            spoke: false,
            login_refused: false,
            noise: Noise::default(),
            description: None,
            sockets: Vec::new(),
            flow: Flow::None,
            phase: PullPhase::Dial,
            since,
            first_packet: None,
            heard: now,
            packets_seen: 0,
            reports_due: now,
            began_at: 0,
        }
    }

    pub(super) fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Ours.
    pub(super) fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn is_flushed(&self) -> bool {
        self.out.is_empty() && self.tls.as_ref().is_none_or(|tls| tls.is_flushed())
    }

    /// Sends what is waiting, as far as the socket takes it.
    fn flush(&mut self) -> io::Result<()> {
        let waiting = &self.out[self.out_sent..];
        self.out_sent += match &mut self.tls {
            Some(tls) => tls.send(&self.socket, waiting)?,
            None => send_plain(&self.socket, waiting)?,
        };
        if self.out_sent == self.out.len() {
            // A quiet connection costs no buffer.
            (self.out, self.out_sent) = (Vec::new(), 0);
        }
        Ok(())
    }

    /// Gives back what only the first answers needed.
    pub(super) fn forget_answers(&mut self) {
        self.description = None;
        self.sockets = Vec::new();
        self.inbox.shrink_to_fit();
    }

    pub(super) fn client(&mut self) -> Option<&mut Client> {
        match &mut self.stage {
            Stage::Talking(client) => client.as_deref_mut(),
            Stage::Connecting { .. } | Stage::Encrypting => None,
        }
    }

    /// For the operator: `what` happened while something else was due.
    pub(super) fn instead(&self, what: &str) -> String {
        let awaited = match self.phase {
            PullPhase::Queue | PullPhase::Dial if self.tls.as_ref().is_some_and(|tls| !tls.has_heard()) => {
                return format!(
                    "{what} before it said anything: if it does not speak TLS, its URL begins with rtsp://"
                );
            }
            PullPhase::Queue | PullPhase::Dial if self.tls.is_none() => "it was connected",
            PullPhase::Queue | PullPhase::Dial => "the TLS handshake was done",
            PullPhase::Describe if !self.spoke && self.noise.bytes > 0 => {
                return "the source does not speak RTSP: check host and port of its URL".to_owned();
            }
            PullPhase::Describe => "OPTIONS and DESCRIBE were answered",
            PullPhase::Setup => "SETUP was answered",
            PullPhase::Play => "PLAY was answered",
            PullPhase::FirstPacket => "a packet came",
            PullPhase::FirstKey | PullPhase::Running => return what.to_owned(),
        };
        format!("{what} before {awaited}")
    }

    /// The phase that begins with this one's end is begun.
    pub(super) fn enter(&mut self, phase: PullPhase, now: Instant) {
        (self.phase, self.since) = (phase, now);
    }
}

impl Shard {
    /// Something happened on the connection of a pull.
    pub(in crate::shard) fn on_pull_event(&mut self, key: Key, event: Event) {
        let Some(connection) = self.pull_connections.get_mut(key) else { return };
        match event {
            Event::Writable(_) => connection.awaits_room = false,
            Event::Hangup(_) => connection.hung_up = true,
            _ => {}
        }
        match (&connection.stage, event) {
            (Stage::Connecting { .. }, _) => self.check_connect(key),
            (_, Event::Writable(_)) => self.flush_pull(key),
            (_, _) => self.receive_pull(key),
        }
    }

    fn receive_pull(&mut self, key: Key) {
        for _ in 0..RECEIVES_PER_TURN {
            match self.receive_pull_once(key) {
                // A short read emptied the socket: more is told by the next edge. After a hang-up none comes.
                Ok(false) => return,
                Ok(true) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.on_pull_closed(key, &error),
            }
        }
        self.work.events.push(Event::Readable(Kind::Pull.token(key)));
    }

    fn on_pull_closed(&mut self, key: Key, error: &io::Error) {
        let Some(connection) = self.pull_connections.get_mut(key) else { return };
        let what = match error.kind() {
            io::ErrorKind::UnexpectedEof => "the source closed the connection",
            io::ErrorKind::ConnectionReset => "the source reset the connection",
            // A sentence of ours already, or of TLS.
            _ => return self.fail_connection(key, &error.to_string()),
        };
        let reason = connection.instead(what);
        match connection.client().and_then(Client::on_closed) {
            Some(Step::Again(lower)) => {
                let pull = connection.pull;
                self.pull_elsewhere(pull, Elsewhere::Over(lower));
            }
            _ => self.fail_connection(key, &reason),
        }
    }

    /// `Ok(true)`: there may be more.
    fn receive_pull_once(&mut self, key: Key) -> io::Result<bool> {
        let Some(connection) = self.pull_connections.get_mut(key) else { return Ok(false) };
        let hung_up = connection.hung_up;
        let full = match connection.flow {
            Flow::Tcp { .. } if connection.inbox.is_empty() && connection.tls.is_none() => {
                let live = self.paths.get_mut(connection.path).and_then(|path| path.live.as_mut());
                let live = live.filter(|live| live.origin == Origin::Pull(connection.pull));
                let live = live.ok_or_else(|| io::Error::other("its path has another stream"))?;
                in_place::receive(&mut live.publication, &connection.socket)?
            }
            _ => {
                let buffer = &mut self.work.scratch;
                match (&connection.socket).read(buffer)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    count if connection.inbox.len() + count > INBOX_BYTES_MAX => {
                        return Err(io::Error::other("sent more than an answer may hold"));
                    }
                    count => {
                        match &mut connection.tls {
                            Some(tls) => tls.take(&buffer[..count], &mut connection.inbox)?,
                            None => connection.inbox.extend_from_slice(&buffer[..count]),
                        }
                        count == buffer.len()
                    }
                }
            }
        };
        if connection.tls.as_ref().is_some_and(|tls| !tls.is_flushed()) {
            // The next step of a handshake, for one.
            self.flush_pull(key);
        }
        self.listen_to_pull(key);
        let tls = self.pull_connections.get(key).and_then(|connection| connection.tls.as_ref());
        if tls.is_some_and(|tls| tls.is_peer_closed()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(full || hung_up)
    }

    /// Works on what was received: packets go into the stream, messages to the client, a bounded number of them per turn.
    fn listen_to_pull(&mut self, key: Key) {
        let Some(connection) = self.pull_connections.get(key) else { return };
        if matches!(connection.stage, Stage::Encrypting) {
            if connection.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
                return;
            }
            self.begin_talking(key);
        }
        for _ in 0..MESSAGES_PER_TURN {
            match self.next_said(key) {
                Ok(Some(said)) => self.on_said(key, said),
                Ok(None) => return,
                Err(error) => {
                    let Some(connection) = self.pull_connections.get(key) else { return };
                    let reason = connection.instead(&format!("the source {error}"));
                    return self.fail_connection(key, &reason);
                }
            }
        }
        self.work.events.push(Event::Readable(Kind::Pull.token(key)));
    }

    /// The next message of a source, packets before it taken in.
    fn next_said(&mut self, key: Key) -> Result<Option<Said>, SourceBytesError> {
        let Some(connection) = self.pull_connections.get_mut(key) else { return Ok(None) };
        let (limits, noise) = (&self.limits, &mut connection.noise);
        let is_strict = connection.phase < PullPhase::FirstPacket;
        let Flow::Tcp { channels, .. } = &connection.flow else {
            let mut messages = Messages { limits, channels: None, noise, is_strict };
            return in_place::take_message(&mut connection.inbox, &mut messages);
        };
        let path_key = connection.path;
        let live = self.paths.get_mut(path_key).and_then(|path| path.live.as_mut());
        let Some(live) = live.filter(|live| live.origin == Origin::Pull(connection.pull)) else {
            return Ok(None);
        };
        let mut messages = Messages { limits, channels: Some(channels), noise, is_strict };
        let said = loop {
            // What came behind the answers before media, or is decrypted.
            let moved = in_place::move_in(&mut live.publication, &mut connection.inbox);
            let said = in_place::take_pending(&mut live.publication, channels, &mut messages, self.now);
            if !matches!(said, Ok(None)) || moved == 0 || connection.inbox.is_empty() {
                break said;
            }
        };
        live.mark_dirty(path_key, &mut self.work.dirty);
        if connection.phase >= PullPhase::FirstPacket {
            self.note_media(key);
        }
        said
    }

    fn on_said(&mut self, key: Key, said: Said) {
        let now = self.now.instant;
        let Some(connection) = self.pull_connections.get_mut(key) else { return };
        let pull = connection.pull;
        if !std::mem::replace(&mut connection.spoke, true) {
            // It has taken the connection and serves it: others may come. What it makes of the request is its affair.
            self.give_back_turn(pull);
        }
        let Some(connection) = self.pull_connections.get_mut(key) else { return };
        let Stage::Talking(client) = &mut connection.stage else { return };
        let Some(mut client) = client.take() else { return };
        let name = self.pulls.get(pull).map(|pull| &*pull.name).unwrap_or_default();
        match &said {
            Said::Request(request) => debug!("[path {name}] [RTSP source] [s->c] {}", request.method),
            Said::Response(response) => {
                debug!("[path {name}] [RTSP source] [s->c] {}", response.status.0);
                connection.login_refused = response.status == Status::UNAUTHORIZED;
            }
        }
        let step = match said {
            Said::Request(request) => {
                client.on_request(&request);
                Ok(Step::GoOn)
            }
            Said::Response(response) => {
                let mut host = super::media::PullHost { shard: self, key };
                client.on_response(&response, now, &mut host)
            }
        };
        let phase = client.phase();
        let Some(connection) = self.pull_connections.get_mut(key) else { return };
        connection.stage = Stage::Talking(Some(client));
        self.follow_phase(key, phase);
        self.flush_pull(key);
        match step {
            Ok(Step::GoOn) => {}
            Ok(Step::Playing) => self.on_pull_playing(key),
            Ok(Step::Redirected(url)) => self.pull_elsewhere(pull, Elsewhere::At(url)),
            Ok(Step::Again(lower)) => self.pull_elsewhere(pull, Elsewhere::Over(lower)),
            Err(error) => self.fail_connection(key, &error.to_string()),
        }
    }

    fn follow_phase(&mut self, key: Key, of_client: client::Phase) {
        let phase = match of_client {
            client::Phase::Describe => PullPhase::Describe,
            client::Phase::Setup => PullPhase::Setup,
            client::Phase::Play => PullPhase::Play,
            client::Phase::Playing => PullPhase::FirstPacket,
            client::Phase::Ended => return,
        };
        let now = self.now.instant;
        let Some(connection) = self.pull_connections.get_mut(key) else { return };
        if phase <= connection.phase {
            return;
        }
        let (before, since) = (connection.phase, connection.since);
        connection.enter(phase, now);
        self.observe_phase(before, since);
    }

    /// Sends what the client wants to have sent.
    pub(super) fn flush_pull(&mut self, key: Key) {
        let Some(connection) = self.pull_connections.get_mut(key) else { return };
        if let Stage::Talking(Some(client)) = &mut connection.stage {
            let before = connection.out.len();
            client.take_outgoing(&mut connection.out);
            let name = self.pulls.get(connection.pull).map(|pull| &*pull.name).unwrap_or_default();
            talk::tell_said(name, &connection.out[before..]);
        }
        if let Err(error) = connection.flush() {
            return self.fail_connection(key, &error.to_string());
        }
        if connection.out.len() - connection.out_sent > OUTBOX_BYTES_MAX {
            return self.fail_connection(key, "the source does not take our requests");
        }
        if !connection.is_flushed() {
            self.await_room_of_pull(key);
        }
    }

    pub(super) fn await_room_of_pull(&mut self, key: Key) {
        let Some(connection) = self.pull_connections.get_mut(key) else { return };
        if std::mem::replace(&mut connection.awaits_room, true) {
            return;
        }
        let fd = connection.fd();
        if let Err(error) = self.io.watch_writable_once(fd, Kind::Pull.token(key)) {
            self.fail_connection(key, &format!("its connection cannot be watched: {error}"));
        }
    }

    /// Fails the pull whose connection this is.
    pub(super) fn fail_connection(&mut self, key: Key, reason: &str) {
        if let Some(pull) = self.pull_connections.get(key).map(|connection| connection.pull) {
            self.fail_pull(pull, reason);
        }
    }

    /// Ends a connection at once. The source is told, if it can be told without waiting.
    pub(super) fn close_pull_connection(&mut self, key: Key) -> Option<Closed> {
        let now = self.now.instant;
        self.close_flow(key);
        let mut connection = self.pull_connections.remove(key)?;
        self.io.unwatch(connection.fd(), Kind::Pull.token(key));
        if let Stage::Talking(Some(client)) = &mut connection.stage {
            client.teardown();
            let before = connection.out.len();
            client.take_outgoing(&mut connection.out);
            let name = self.pulls.get(connection.pull).map(|pull| &*pull.name).unwrap_or_default();
            talk::tell_said(name, &connection.out[before..]);
            // What is unread would have the kernel reset the connection, and the source might never read this.
            for _ in 0..RECEIVES_PER_TURN {
                if !matches!((&connection.socket).read(&mut self.work.scratch), Ok(1..)) {
                    break;
                }
            }
            let _ = connection.flush();
        }
        if let Some(pull) = self.pulls.get_mut(connection.pull) {
            pull.noise_bytes += connection.noise.bytes;
        }
        if let Some(tls) = &mut connection.tls {
            tls.end(&connection.socket);
        }
        // The watch may keep the socket for another moment: the peer is told now.
        let _ = connection.socket.shutdown(Shutdown::Both);
        let ran = connection.first_packet.map(|first| now.duration_since(first));
        let PullConnection { url, phase, login_refused, .. } = connection;
        Some(Closed { url, phase, ran, login_refused })
    }
}
