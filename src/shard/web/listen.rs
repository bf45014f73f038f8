//! Where the HTTP servers listen, and who comes to them.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd, RawFd},
    rc::Rc,
};

use corecast_hub::settings::{Settings, WebSettings};
use tracing::{info, warn};

use super::{Web, WebAnswer, WebService, connection::WebConnection, wire::Link};
use crate::shard::{
    Kind,
    boot::{self, BootError},
    connection::HANDSHAKES_PER_TURN,
    listen,
    media_io::MediaIo,
    plain,
    slots::Key,
    tls::Tls,
};

/// Connections accepted per turn.
const ACCEPTS_PER_TURN: usize = 64;

/// One of the servers, while it listens.
pub struct Listening {
    listener: TcpListener,
    /// With what it listens.
    settings: WebSettings,
}

impl WebService {
    /// What `settings` say of it; `None` when it is off.
    pub fn settings(self, settings: &Settings) -> Option<&WebSettings> {
        match self {
            Self::Hls => settings.hls.as_ref().map(|hls| &hls.web),
        }
    }

    pub(in crate::shard) fn listener_token(self) -> u64 {
        Kind::WebListener.token(Key::from_bits(self as u64))
    }

    pub(in crate::shard) fn of_listener(key: Key) -> Option<Self> {
        Self::ALL.into_iter().find(|&service| Key::from_bits(service as u64) == key)
    }
}

impl Web {
    /// Listens where the settings say, and as they say; closes what they do not have any more, with all who use it.
    /// Servers that are new are said in the log if `tells`.
    ///
    /// # Errors
    /// When an address cannot be had.
    pub fn rebind(&mut self, io: &mut MediaIo, settings: &Settings, tells: bool) -> Result<(), BootError> {
        for service in WebService::ALL {
            let wanted = service.settings(settings);
            let place = |settings: &WebSettings| (settings.address, settings.encrypted);
            let listens = self.listening[service as usize].as_ref().map(|listening| &listening.settings);
            if listens.map(place) != wanted.map(place) {
                self.close_server(io, service);
            }
            let Some(wanted) = wanted else { continue };
            self.lobby.set_site(service, Some(wanted));
            match &mut self.listening[service as usize] {
                Some(listening) => listening.settings = wanted.clone(),
                None => self.open_server(io, service, wanted, tells)?,
            }
        }
        Ok(())
    }

    fn open_server(
        &mut self,
        io: &mut MediaIo,
        service: WebService,
        settings: &WebSettings,
        tells: bool,
    ) -> Result<(), BootError> {
        let address = settings.address;
        let listener = listen::listen(address).map_err(|error| BootError::Address {
            what: boot::HLS_LISTENER,
            address,
            error,
        })?;
        io.watch(listener.as_raw_fd(), service.listener_token()).map_err(BootError::MediaIo)?;
        if tells && let Ok(address) = listener.local_addr() {
            let scheme = if settings.encrypted { "HTTPS" } else { "HTTP" };
            info!("[{}] started with listener on {} (TCP/{scheme})", service.name(), boot::port(address));
        }
        self.listening[service as usize] = Some(Listening { listener, settings: settings.clone() });
        Ok(())
    }

    fn close_server(&mut self, io: &mut MediaIo, service: WebService) {
        let Some(listening) = self.listening[service as usize].take() else { return };
        io.unwatch(listening.listener.as_raw_fd(), service.listener_token());
        let mut keys = Vec::new();
        self.connections.keys_into(&mut keys);
        keys.retain(|&key| self.connections.get(key).is_some_and(|web| web.service == service));
        for &key in &keys {
            self.turn_out(key);
        }
        // What their sockets take now goes out.
        for key in keys {
            let mut no_handshakes = HANDSHAKES_PER_TURN;
            self.poll(io, key, &mut no_handshakes);
            self.drop(io, key);
        }
        self.lobby.set_site(service, None);
    }

    /// Closes all servers.
    pub fn end(&mut self, io: &mut MediaIo) {
        WebService::ALL.into_iter().for_each(|service| self.close_server(io, service));
    }

    /// Answers what waits for an answer on a connection that is about to be closed.
    fn turn_out(&mut self, key: Key) {
        let Some(guest) = self.connections.get(key).and_then(WebConnection::guest) else { return };
        let guest = Rc::clone(guest);
        for request in guest.waiting() {
            self.lobby.gone.borrow_mut().push(guest.ticket(request));
            guest.answer(request, WebAnswer::busy("the server is closed"));
        }
        self.end_gracefully(key);
    }

    /// The descriptor behind a token, for a watch that has to be set again.
    pub fn listener_fd(&self, key: Key) -> Option<RawFd> {
        let service = WebService::of_listener(key)?;
        self.listening[service as usize].as_ref().map(|listening| listening.listener.as_raw_fd())
    }

    /// As [`Self::listener_fd`], of a connection.
    pub fn connection_fd(&self, key: Key) -> Option<RawFd> {
        self.connections.get(key).map(|connection| connection.link.fd())
    }

    /// The media ring says that somebody has come to a listener.
    pub fn on_knock(&mut self, key: Key) {
        self.knocked.extend(WebService::of_listener(key));
    }

    /// Takes in who came.
    pub(super) fn accept(&mut self, io: &mut MediaIo, service: WebService) {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(listening) = &self.listening[service as usize] else { return };
            if self.connections.len() >= self.connections_max {
                if !std::mem::replace(&mut self.is_full, true) {
                    warn!(
                        "[{}] {} connections: others wait until one ends; raise LimitNOFILE if this repeats",
                        service.name(),
                        self.connections_max
                    );
                }
                return;
            }
            match listening.listener.accept() {
                Ok((socket, peer)) => {
                    let (encrypted, peer) = (listening.settings.encrypted, plain(peer));
                    if let Err(error) = self.welcome(io, service, socket, peer, encrypted) {
                        warn!("[{}] [conn {peer}] refused: {error}", service.name());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The client gave up before its turn.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    // Out of descriptors, most likely: the backlog holds the others until upkeep tries again.
                    warn!("[{}] accept failed: {error}; raise LimitNOFILE if this repeats", service.name());
                    self.is_full = true;
                    return;
                }
            }
        }
        self.knocked.push(service);
    }

    pub(super) fn welcome(
        &mut self,
        io: &mut MediaIo,
        service: WebService,
        socket: TcpStream,
        peer: SocketAddr,
        encrypted: bool,
    ) -> io::Result<()> {
        listen::prepare(&socket)?;
        let config = &self.tls[service as usize];
        let tls = encrypted.then(|| Tls::server(config, self.lobby.now())).transpose();
        let tls = tls.map_err(io::Error::other)?.map(Box::new);
        let link = Link::new(socket, tls, Vec::new(), Rc::clone(&self.lobby));
        self.adopt(io, WebConnection::new(service, peer, link, &self.lobby));
        Ok(())
    }

    pub(super) fn opened(&self, service: WebService) {
        let connections = &self.lobby.gauges(service).connections;
        connections.set(connections.get() + 1);
    }

    pub(super) fn closed(&mut self, service: WebService) {
        let connections = &self.lobby.gauges(service).connections;
        connections.set(connections.get() - 1);
        // A descriptor is free again.
        self.try_accepting();
    }

    /// Those who wait to be accepted are looked at again.
    pub(super) fn try_accepting(&mut self) {
        if std::mem::take(&mut self.is_full) {
            self.knocked.extend(WebService::ALL);
        }
    }
}
