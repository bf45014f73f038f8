//! The listening socket of an HTTP server: TCP or unix.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::control::settings::HttpAddress;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// See the module.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix { listener: UnixListener, _file: SocketFile },
}

/// Removed with its listener, unless another one has taken its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Listener {
    pub(super) fn bind(address: &HttpAddress) -> io::Result<Self> {
        match address {
            HttpAddress::Tcp(address) => bind_tcp(*address).map(Self::Tcp),
            HttpAddress::Unix(path) => bind_unix(path),
        }
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix { .. } => None,
        }
    }
}

/// As the configuration writes it: `:9997`, `127.0.0.1:9997`, `unix:///run/api.sock`.
pub(super) fn display(address: &HttpAddress) -> String {
    match address {
        HttpAddress::Tcp(address) if address.ip().is_unspecified() && address.is_ipv6() => {
            format!(":{}", address.port())
        }
        HttpAddress::Tcp(address) => address.to_string(),
        HttpAddress::Unix(path) => format!("unix://{}", path.display()),
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn bind_unix(path: &Path) -> io::Result<Listener> {
    // Only a socket is removed: a mistyped address must not cost the operator a file.
    if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    let found = fs::symlink_metadata(path)?;
    let file = SocketFile { path: path.to_owned(), device: found.dev(), inode: found.ino() };
    Ok(Listener::Unix { listener, _file: file })
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = |found: fs::Metadata| (found.dev(), found.ino()) == (self.device, self.inode);
        if fs::symlink_metadata(&self.path).is_ok_and(ours) {
            // Nothing is lost when it stays: the next start removes it.
            let _ = fs::remove_file(&self.path);
        }
    }
}
