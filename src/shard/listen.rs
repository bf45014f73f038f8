//! The shared port: every shard listens on it, and the kernel spreads the connections (`SO_REUSEPORT`).

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted; the kernel clips it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

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
