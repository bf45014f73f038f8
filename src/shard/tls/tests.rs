//! What goes in and out of an encrypted connection, against rustls' client.

use std::net::TcpListener;

use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer},
};

use super::*;

/// A server's and a client's end, connected and not yet shaken hands.
struct Pair {
    server: Tls,
    socket: TcpStream,
    client: ClientConnection,
    theirs: TcpStream,
}

fn certified() -> (CertifiedKey, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let certificate = made.cert.der().clone();
    (CertifiedKey::from_der(vec![certificate.clone()], key, &ring::default_provider()).unwrap(), certificate)
}

fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_nonblocking(true).unwrap();
    (ours, theirs)
}

impl Pair {
    fn new() -> Self {
        let (key, certificate) = certified();
        let current = Arc::new(CurrentCertificate::default());
        current.set(key);
        let server = Tls::server(&server_config(current).unwrap(), Instant::now()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        let (socket, theirs) = sockets();
        Self { server, socket, client, theirs }
    }

    fn shaken() -> Self {
        let mut pair = Self::new();
        while pair.client.is_handshaking() || pair.server.is_handshaking() {
            pair.exchange(usize::MAX);
        }
        pair
    }

    /// What the client has to send, in pieces; and what the server has. Returns what the client said.
    fn exchange(&mut self, piece: usize) -> Vec<u8> {
        let (mut wire, mut said) = (Vec::new(), Vec::new());
        while self.client.wants_write() {
            self.client.write_tls(&mut wire).unwrap();
        }
        for piece in wire.chunks(piece.min(wire.len().max(1))) {
            self.server.take(piece, &mut said).unwrap();
        }
        assert_eq!(self.server.send(&self.socket, &[]).unwrap(), 0);
        self.receive();
        said
    }

    /// Everything that has come to the client.
    fn receive(&mut self) -> Vec<u8> {
        let mut heard = Vec::new();
        loop {
            match self.client.read_tls(&mut self.theirs) {
                Ok(0) => return heard,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return heard,
                Err(error) => panic!("{error}"),
            }
            let ready = self.client.process_new_packets().unwrap().plaintext_bytes_to_read();
            self.client.reader().take(ready as u64).read_to_end(&mut heard).unwrap();
        }
    }
}

#[test]
fn both_ways_in_pieces_of_any_size() {
    for piece in [1, 7, 1000, usize::MAX] {
        let mut pair = Pair::new();
        while pair.client.is_handshaking() || pair.server.is_handshaking() {
            assert_eq!(pair.exchange(piece), b"", "nothing is said before the handshake is over");
        }
        assert!(pair.server.handshaking_for(Instant::now()).is_none());
        // More than the received plaintext that rustls keeps, and than one record.
        let message: Vec<u8> = (0..50_000).map(|n| (n % 251) as u8).collect();
        pair.client.writer().write_all(&message).unwrap();
        assert_eq!(pair.exchange(piece), message);
        assert_eq!(pair.server.send(&pair.socket, &message).unwrap(), message.len());
        assert!(pair.server.is_flushed());
        assert_eq!(pair.receive(), message);
    }
}

#[test]
fn a_peer_that_takes_nothing_makes_it_hold_little_and_gets_all_of_it_later() {
    let mut pair = Pair::shaken();
    let message: Vec<u8> = (0..40_000_000_u32).map(|n| (n % 253) as u8).collect();
    let mut taken = pair.server.send(&pair.socket, &message).unwrap();
    assert!(taken < message.len() && !pair.server.is_flushed(), "the socket took {taken} bytes");
    // It is full: nothing more is taken over, however often it is asked.
    for _ in 0..100 {
        assert_eq!(pair.server.send(&pair.socket, &message[taken..]).unwrap(), 0);
    }
    let mut heard = pair.receive();
    while taken < message.len() || !pair.server.is_flushed() {
        assert!(taken - heard.len() <= 65_536 + 16_384, "{taken} taken over, {} arrived", heard.len());
        taken += pair.server.send(&pair.socket, &message[taken..]).unwrap();
        heard.extend(pair.receive());
    }
    heard.extend(pair.receive());
    assert!(heard == message);
}

#[test]
fn what_is_no_tls_is_told_apart_from_a_handshake_that_fails() {
    let mut pair = Pair::new();
    let request = b"OPTIONS rtsp://127.0.0.1:8322/ RTSP/1.0\r\nCSeq: 1\r\n\r\n";
    let error = pair.server.take(request, &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("does not speak TLS") && error.contains("rtspAddress"), "{error}");

    // A server without a certificate has nothing to show.
    let empty = server_config(Arc::default()).unwrap();
    pair.server = Tls::server(&empty, Instant::now()).unwrap();
    let mut hello = Vec::new();
    pair.client.write_tls(&mut hello).unwrap();
    let error = pair.server.take(&hello, &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("TLS handshake failed"), "{error}");
    // The peer is told.
    pair.server.end(&pair.socket);
    assert!(pair.client.read_tls(&mut pair.theirs).unwrap() > 0);
    assert!(matches!(pair.client.process_new_packets(), Err(rustls::Error::AlertReceived(_))));
}

#[test]
fn records_that_were_tampered_with_end_the_connection() {
    let mut pair = Pair::shaken();
    pair.client.writer().write_all(b"OPTIONS").unwrap();
    let mut wire = Vec::new();
    pair.client.write_tls(&mut wire).unwrap();
    *wire.last_mut().unwrap() ^= 1;
    let mut said = Vec::new();
    let error = pair.server.take(&wire, &mut said).unwrap_err().to_string();
    assert!(error.starts_with("TLS: ") && said.is_empty(), "{error}");
}

#[test]
fn a_record_that_is_too_long_ends_the_connection() {
    let mut pair = Pair::shaken();
    let mut record = vec![23, 3, 3, 0xff, 0xff];
    record.resize(66_000, 0);
    assert!(pair.server.take(&record, &mut Vec::new()).is_err());
}

#[test]
fn the_end_is_told_and_heard() {
    let mut pair = Pair::shaken();
    pair.client.writer().write_all(b"the last").unwrap();
    pair.client.send_close_notify();
    assert!(!pair.server.is_peer_closed());
    assert_eq!(pair.exchange(usize::MAX), b"the last");
    assert!(pair.server.is_peer_closed());
    pair.server.end(&pair.socket);
    pair.receive();
    assert!(pair.client.process_new_packets().unwrap().peer_has_closed());
}

#[test]
fn a_new_certificate_is_for_new_connections() {
    let current = Arc::new(CurrentCertificate::default());
    let config = server_config(Arc::clone(&current)).unwrap();
    for _ in 0..2 {
        let (key, certificate) = certified();
        current.set(key);
        let mut pair = Pair::new();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        pair.server = Tls::server(&config, Instant::now()).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        pair.client = ClientConnection::new(Arc::new(client), "localhost".try_into().unwrap()).unwrap();
        while pair.client.is_handshaking() || pair.server.is_handshaking() {
            pair.exchange(usize::MAX);
        }
        assert_eq!(pair.client.peer_certificates().unwrap(), [certificate]);
    }
}
