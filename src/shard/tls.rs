//! RTSP over TLS: what an encrypted connection has between its socket and its requests.
//!
//! rustls as a state machine: it is given what was received and asked for what to send, and never touches a socket by
//! itself. So a handshake takes its steps when the socket is ready, as everything here, and goes with its connection
//! from shard to shard. Media is encrypted straight out of the stream's ring, for each reader anew; rustls takes memory
//! for each record (of 16 KiB at most), which is freed when the record has gone out.
//!
//! Connections that we are the client of, those of pulls, are the same from then on; which servers they believe is in
//! [`trust`].

use std::{
    fmt,
    io::{self, IoSlice, Read, Write},
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use rustls::{
    ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection,
    crypto::ring,
    pki_types::ServerName,
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
};

pub mod trust;

/// The certificate that new connections are shown, and its key. The control plane replaces it while connections come:
/// those that are there keep theirs.
#[derive(Debug, Default)]
pub struct CurrentCertificate(ArcSwapOption<CertifiedKey>);

impl CurrentCertificate {
    pub fn set(&self, certificate: CertifiedKey) {
        self.0.store(Some(Arc::new(certificate)));
    }
}

impl ResolvesServerCert for CurrentCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

/// What all shards' encrypted connections have in common: TLS 1.2 and 1.3, without client certificates. Sessions are
/// not resumed: RTSP clients stay, and memory of sessions would be shared by the shards, under a lock.
///
/// # Errors
/// When the cryptography in use cannot serve those versions.
pub fn server_config(certificate: Arc<CurrentCertificate>) -> Result<Arc<ServerConfig>, rustls::Error> {
    configured(certificate).map(Arc::new)
}

fn configured(certificate: Arc<CurrentCertificate>) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// As [`server_config`], for HTTP/2 and HTTP/1.1.
///
/// # Errors
/// As of [`server_config`].
pub fn web_server_config(certificate: Arc<CurrentCertificate>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = configured(certificate)?;
    config.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// As it is agreed on in a handshake.
const HTTP2: &[u8] = b"h2";

/// See the module. Holds at most 64 KiB that did not go out, and one message that is not complete.
pub struct Tls {
    session: Connection,
    since: Instant,
    heard: bool,
    peer_closed: bool,
}

/// Why a connection cannot go on.
#[derive(Debug)]
pub struct TlsError {
    error: rustls::Error,
    handshaking: bool,
    is_client: bool,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.error {
            rustls::Error::InvalidMessage(_) if self.handshaking => {
                let advice = match self.is_client {
                    true => "the URL of a source that does not encrypt begins with rtsp://",
                    false => "clients that do not encrypt belong on rtspAddress",
                };
                write!(f, "it does not speak TLS ({}): {advice}", self.error)
            }
            // A certificate that is not believed: the reason is a sentence of ours.
            rustls::Error::Other(reason) if self.handshaking => write!(f, "TLS handshake failed: {reason}"),
            error if self.handshaking => write!(f, "TLS handshake failed: {error}"),
            error => write!(f, "TLS: {error}"),
        }
    }
}

impl std::error::Error for TlsError {}

impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> Self {
        Self::other(error)
    }
}

impl Tls {
    /// Of a connection that was accepted at `now`.
    ///
    /// # Errors
    /// When `config` cannot serve anybody.
    pub fn server(config: &Arc<ServerConfig>, now: Instant) -> Result<Self, rustls::Error> {
        let session = ServerConnection::new(Arc::clone(config))?.into();
        Ok(Self { session, since: now, heard: false, peer_closed: false })
    }

    /// Of a connection to `host`, a name or an address, that was made at `now`. The first message waits to be sent.
    ///
    /// # Errors
    /// A sentence for the operator: a host of that name cannot have a certificate.
    pub fn client(config: &Arc<ClientConfig>, host: &str, now: Instant) -> Result<Self, String> {
        // The interface of a link-local address is nothing that a certificate knows.
        let bare = host.split('%').next().unwrap_or(host).to_owned();
        let name = ServerName::try_from(bare);
        let name = name.map_err(|_| format!("'{host}' is no name that a certificate could be for"))?;
        let session = ClientConnection::new(Arc::clone(config), name).map_err(|error| error.to_string())?;
        Ok(Self { session: session.into(), since: now, heard: false, peer_closed: false })
    }

    pub fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    /// For how long it has been shaking hands; `None` when that is done.
    pub fn handshaking_for(&self, now: Instant) -> Option<Duration> {
        self.is_handshaking().then(|| now.duration_since(self.since))
    }

    /// The peer has sent something.
    pub fn has_heard(&self) -> bool {
        self.heard
    }

    /// The peer has said that nothing more comes from it.
    pub fn is_peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// Nothing waits for room in the socket.
    pub fn is_flushed(&self) -> bool {
        !self.session.wants_write()
    }

    /// Takes in bytes from the socket and appends what they say to `plain`, never more bytes than there were. There may
    /// be something to send afterwards: [`Self::send`].
    ///
    /// # Errors
    /// When it makes no sense; what to tell the peer of it is sent by [`Self::end`].
    pub fn take(&mut self, mut received: &[u8], plain: &mut Vec<u8>) -> Result<(), TlsError> {
        let (handshaking, is_client) = (self.is_handshaking(), matches!(self.session, Connection::Client(_)));
        self.heard |= !received.is_empty();
        while !received.is_empty() && !self.peer_closed {
            let fed = self.session.read_tls(&mut received);
            let fed = fed.map_err(|error| rustls::Error::General(error.to_string()));
            let state = fed.and_then(|_| self.session.process_new_packets());
            let state = state.map_err(|error| TlsError { error, handshaking, is_client })?;
            self.peer_closed = state.peer_has_closed();
            let ready = state.plaintext_bytes_to_read() as u64;
            // All of it is there, so that it cannot fail.
            let _ = self.session.reader().take(ready).read_to_end(plain);
        }
        Ok(())
    }

    /// Sends what is waiting, then `plain`, as far as the socket takes it. Returns how much of `plain` was taken over:
    /// all that is left is to be given again once the socket has room. What was taken over may wait here for room too:
    /// [`Self::is_flushed`].
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn send(&mut self, socket: &TcpStream, plain: &[u8]) -> io::Result<usize> {
        let mut taken = 0;
        while self.flush(socket)? && taken < plain.len() {
            taken += self.write(&[IoSlice::new(&plain[taken..])])?;
        }
        Ok(taken)
    }

    /// Encrypts some of `pieces`, of which there is at least a byte, as one run. Returns how many bytes were taken over;
    /// they wait here until [`Self::flush`] has sent them. To be called when nothing waits.
    ///
    /// # Errors
    /// When the session is over.
    pub fn write(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.session.writer().write_vectored(pieces)? {
            0 => Err(io::Error::other("the TLS session is over")),
            count => Ok(count),
        }
    }

    /// Sends what is waiting, as far as the socket takes it. True when nothing is left.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn flush(&mut self, socket: &TcpStream) -> io::Result<bool> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut &*socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// HTTP/2 was agreed on (RFC 7540 §3.3).
    pub fn speaks_http2(&self) -> bool {
        self.session.alpn_protocol() == Some(HTTP2)
    }

    /// Says that nothing more comes, if the socket has room for it.
    pub fn end(&mut self, socket: &TcpStream) {
        self.session.send_close_notify();
        let _ = self.send(socket, &[]);
    }
}

#[cfg(test)]
mod tests;
