//! The shared ports: every shard listens on them, and the kernel spreads the connections (`SO_REUSEPORT`). And who comes
//! to them.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use corecast_hub::roster::{News, rtsp_server};
use socket2::{Domain, Protocol, Socket, Type};
use tracing::{info, warn};

use super::{
    Kind, Shard, connection::Connection, handover::Identity, media_io::Event, plain, slots::Key, tls::Tls,
};

/// Connections that may wait to be accepted; the kernel clips it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Connections accepted per turn and listener.
const ACCEPTS_PER_TURN: usize = 64;

/// How often, and how long apart, an address that is taken is tried again.
const FREE_TRIES: u32 = 10;
const FREE_RETRY: Duration = Duration::from_millis(200);

/// Listens on `address`, which others of our shards do too. An IPv6 wildcard takes IPv4 as well.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Fails when somebody else than us listens on `address` already: `SO_REUSEPORT` would let two relays of one user
/// share the port, and each would get half of the cameras.
///
/// A relay that has just ended may still hold it for a moment.
pub fn check_free(address: SocketAddr) -> io::Result<()> {
    let mut tries = FREE_TRIES;
    loop {
        match bind_alone(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {
                tries -= 1;
                std::thread::sleep(FREE_RETRY);
            }
            result => return result,
        }
    }
}

fn bind_alone(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

/// Prepares an accepted connection: it never blocks, sends at once, and a vanished peer is noticed.
pub fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// Where a connection comes from.
#[derive(PartialEq, Eq)]
pub enum Adopted {
    New,
    FromOtherShard,
}

impl Shard {
    /// Takes in who came to the plain listener, or to the one of TLS.
    pub(super) fn accept(&mut self, kind: Kind) {
        for _ in 0..ACCEPTS_PER_TURN {
            let listener = match kind {
                Kind::TlsListener => &self.tls_listener,
                _ => &self.listener,
            };
            let Some(listener) = listener else { return };
            match listener.accept() {
                Ok((socket, peer)) => self.welcome(socket, peer, kind == Kind::TlsListener),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The client gave up before its turn.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    // Out of descriptors, most likely: the backlog holds the others until upkeep tries again.
                    let server = rtsp_server(kind == Kind::TlsListener);
                    warn!("[{server}] accept failed: {error}; raise LimitNOFILE if this repeats");
                    self.work.accept_stalled = true;
                    return;
                }
            }
        }
        self.work.events.push(Event::Readable(kind.only()));
    }

    fn welcome(&mut self, socket: TcpStream, peer: SocketAddr, encrypted: bool) {
        if prepare(&socket).is_err() {
            return;
        }
        let server = rtsp_server(encrypted);
        let tls = encrypted.then(|| Tls::server(&self.tls, self.now.instant)).transpose();
        let tls = match tls {
            Ok(tls) => tls.map(Box::new),
            Err(error) => return warn!("[{server}] [conn {}] refused: {error}", plain(peer)),
        };
        info!("[{server}] [conn {}] opened", plain(peer));
        let connection = Connection::new(Identity::new(self.now, tls), socket, peer, self.now.instant);
        if let Some(key) = self.adopt(connection, Adopted::New) {
            self.tell_conn_opened(key);
        }
    }

    /// Takes a connection in, if its socket can be watched.
    pub(super) fn adopt(&mut self, connection: Connection, from: Adopted) -> Option<Key> {
        let id = connection.id;
        let (fd, peer, server) = (connection.fd(), connection.peer, connection.server());
        let key = self.connections.insert(connection);
        if let Err(error) = self.io.watch(fd, Kind::Connection.token(key)) {
            warn!("[{server}] [conn {}] closed: cannot be watched: {error}", plain(peer));
            self.connections.remove(key);
            if from == Adopted::FromOtherShard {
                self.tell(News::ConnClosed { id, reason: format!("cannot be watched: {error}") });
            }
            return None;
        }
        Some(key)
    }
}
