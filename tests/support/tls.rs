//! The client's side of TLS: a certificate that a test makes for its server, and a stream that trusts nothing else.

use std::{
    fs,
    io::{self, Read, Write},
    net::TcpStream,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto::ring, pki_types::CertificateDer,
};

use super::scratch_dir;

/// A certificate for `localhost` with its key, in files that a server can be pointed to.
pub struct Identity {
    dir: PathBuf,
    pub certificate: CertificateDer<'static>,
}

impl Identity {
    pub fn make() -> Self {
        let dir = scratch_dir("certificate");
        let certificate = write(&dir);
        Self { dir, certificate }
    }

    /// Puts another certificate in the place of this one, as renewal does.
    pub fn renew(&mut self) {
        self.certificate = write(&self.dir);
    }

    pub fn key(&self) -> PathBuf {
        self.dir.join("server.key")
    }

    pub fn cert(&self) -> PathBuf {
        self.dir.join("server.crt")
    }

    /// The lines of a configuration that make a server show it.
    pub fn globals(&self, encryption: &str) -> String {
        format!(
            "rtspEncryption: {encryption}\nrtspServerKey: {}\nrtspServerCert: {}\n",
            self.key().display(),
            self.cert().display()
        )
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn write(dir: &std::path::Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(dir.join("server.key"), made.signing_key.serialize_pem()).unwrap();
    fs::write(dir.join("server.crt"), made.cert.pem()).unwrap();
    made.cert.der().clone()
}

/// A client that trusts this certificate only, and speaks one of `protocols` over it if there are any.
pub fn client(trusted: &CertificateDer<'static>, protocols: &[&[u8]]) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap()
}

/// What an RTSP client talks over.
pub enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    /// The handshake is done when it returns.
    ///
    /// # Errors
    /// The server shows another certificate than the trusted one, or does not speak TLS.
    pub fn encrypted(socket: TcpStream, trusted: &CertificateDer<'static>) -> io::Result<Self> {
        Self::encrypted_by(client(trusted, &[]), socket)
    }

    /// As [`Self::encrypted`], with a session that has not begun.
    ///
    /// # Errors
    /// As of [`Self::encrypted`].
    pub fn encrypted_by(mut session: ClientConnection, mut socket: TcpStream) -> io::Result<Self> {
        socket.set_read_timeout(Some(super::PATIENCE))?;
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        Ok(Self::Tls(Box::new(StreamOwned::new(session, socket))))
    }

    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.sock,
        }
    }

    pub fn set_read_timeout(&self, limit: Duration) {
        self.socket().set_read_timeout(Some(limit)).unwrap();
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
