//! How the connection of an attempt is made: the host's addresses one after the other, then TLS if the URL asks for it.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use corecast_hub::gauges::PullPhase;
use corecast_proto::rtsp::client::{Client, ClientSettings, SourceUrl};
use socket2::{Domain, Protocol, Socket, Type};
use tracing::debug;

use super::{
    State,
    connection::{PullConnection, Stage},
};
use crate::shard::{Kind, Shard, listen, media_io::Event, slots::Key, tls::Tls};

/// When a host has several addresses, each is given at least this long.
const PER_ADDRESS_MIN: Duration = Duration::from_secs(1);

/// A connection on its way.
pub(super) struct Dialled {
    pub pull: Key,
    pub path: Key,
    pub url: Box<SourceUrl>,
    pub address: SocketAddr,
    pub socket: TcpStream,
    /// Tried after it, the last first.
    pub rest: Vec<SocketAddr>,
    pub give_up: Instant,
}

/// A socket that is on its way to `address`.
fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    let socket = TcpStream::from(socket);
    listen::prepare(&socket)?;
    Ok(socket)
}

fn unreachable(address: SocketAddr, error: &io::Error) -> String {
    format!("cannot connect to {address}: {error}")
}

impl Shard {
    /// Tries the addresses of a host, in their order, until one answers.
    pub(super) fn connect_pull(&mut self, pull: Key, url: Box<SourceUrl>, mut addresses: Vec<SocketAddr>) {
        addresses.reverse();
        let nothing = || "its host has no address".to_owned();
        self.connect_next(pull, url, addresses, self.now.instant, nothing);
    }

    /// Tries the last of `rest`, and the others after it. `failure` is what the one before came to.
    fn connect_next(
        &mut self,
        pull: Key,
        url: Box<SourceUrl>,
        mut rest: Vec<SocketAddr>,
        since: Instant,
        failure: impl FnOnce() -> String,
    ) {
        let now = self.now.instant;
        let Some(path) = self.pulls.get(pull).map(|pull| pull.path) else { return };
        let mut last = None;
        while let Some(address) = rest.pop() {
            if let Some(pull) = self.pulls.get(pull) {
                debug!("[path {}] [RTSP source] connecting to {address} for {}", pull.name, url.shown());
            }
            let left = (since + self.settings.read_timeout).saturating_duration_since(now);
            let give_up = now + (left / (rest.len() + 1) as u32).max(PER_ADDRESS_MIN);
            let socket = match dial(address) {
                Ok(socket) => socket,
                Err(error) => {
                    last = Some(unreachable(address, &error));
                    continue;
                }
            };
            let fd = socket.as_raw_fd();
            let (url, rest) = (url.clone(), rest.clone());
            let made = Dialled { pull, path, url, address, socket, rest, give_up };
            let key = self.pull_connections.insert(PullConnection::new(made, since, now));
            let token = Kind::Pull.token(key);
            match self.io.watch(fd, token).and_then(|()| self.io.watch_writable_once(fd, token)) {
                Ok(()) => {
                    if let Some(pull) = self.pulls.get_mut(pull) {
                        pull.state = State::Connected(key);
                    }
                    return self.pulls_due_by(give_up);
                }
                Err(error) => {
                    self.pull_connections.remove(key);
                    last = Some(format!("its connection cannot be watched: {error}"));
                }
            }
        }
        let reason = last.unwrap_or_else(failure);
        self.fail_pull(pull, &reason);
    }

    /// A connect has come to something, or has taken too long.
    pub(super) fn connect_elsewhere(&mut self, key: Key, error: &io::Error) {
        let Some(connection) = self.pull_connections.get_mut(key) else { return };
        let Stage::Connecting { rest, .. } = &mut connection.stage else { return };
        let rest = std::mem::take(rest);
        let (pull, since, address) = (connection.pull, connection.since, connection.address);
        if rest.is_empty() {
            // Its phase is counted with the connection.
            return self.fail_pull(pull, &unreachable(address, error));
        }
        let url = connection.url.clone();
        self.close_pull_connection(key);
        self.connect_next(pull, url, rest, since, || unreachable(address, error));
    }

    pub(super) fn check_connect(&mut self, key: Key) {
        let Some(connection) = self.pull_connections.get_mut(key) else { return };
        match connection.socket.take_error() {
            Ok(Some(error)) | Err(error) => self.connect_elsewhere(key, &error),
            Ok(None) if connection.socket.peer_addr().is_ok() => self.on_connected(key),
            // Not yet.
            Ok(None) if !connection.awaits_room => self.await_room_of_pull(key),
            Ok(None) => {}
        }
    }

    fn on_connected(&mut self, key: Key) {
        let now = self.now.instant;
        // What has come already, or its end, is not told again.
        self.work.events.push(Event::Readable(Kind::Pull.token(key)));
        let Some(connection) = self.pull_connections.get_mut(key) else { return };
        if !connection.url.encrypted {
            return self.begin_talking(key);
        }
        let Some(pull) = self.pulls.get(connection.pull) else { return };
        let config = self.tls_clients.config(pull.settings.fingerprint);
        match config.and_then(|config| Tls::client(&config, &connection.url.host, now)) {
            Ok(tls) => {
                connection.tls = Some(Box::new(tls));
                connection.stage = Stage::Encrypting;
                self.flush_pull(key);
            }
            Err(reason) => self.fail_connection(key, &reason),
        }
    }

    /// The connection is there, and encrypted if it has to be: the first request goes out.
    pub(super) fn begin_talking(&mut self, key: Key) {
        let now = self.now.instant;
        let Some(connection) = self.pull_connections.get_mut(key) else { return };
        let Some(pull) = self.pulls.get(connection.pull) else { return };
        let wanted = match pull.wanted(&connection.url) {
            Ok(wanted) => wanted,
            Err(reason) => {
                let pull = connection.pull;
                return self.fail_pull(pull, &reason);
            }
        };
        let settings = ClientSettings {
            url: (*connection.url).clone(),
            transport: wanted,
            range: pull.settings.range.as_deref().map(str::to_owned),
            scale: pull.settings.scale.as_deref().map(str::to_owned),
        };
        connection.stage = Stage::Talking(Some(Box::new(Client::new(settings, now))));
        let since = connection.since;
        connection.enter(PullPhase::Describe, now);
        self.observe_phase(PullPhase::Dial, since);
        self.flush_pull(key);
    }
}
