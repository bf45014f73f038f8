//! Two ends of ours shake hands, with certificates made for it.

use std::{
    io::Read as _,
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ServerConfig, SupportedProtocolVersion, pki_types::PrivateKeyDer, version};

use super::*;
use crate::shard::tls::{Tls, TlsError};

const PATIENCE: Duration = Duration::from_secs(20);

/// A server's certificate and key, and what vouches for it.
struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    authority: CertificateDer<'static>,
}

/// A certificate for `names` that an authority has signed.
fn identity(names: &[&str]) -> Identity {
    let authority_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&authority_key).unwrap().der().clone();
    let key = KeyPair::generate().unwrap();
    let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    let issuer = Issuer::new(params, authority_key);
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap().der().clone();
    Identity { certificate, key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(), authority }
}

impl Identity {
    fn server(&self, versions: &[&'static SupportedProtocolVersion]) -> Arc<ServerConfig> {
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key());
        Arc::new(config.unwrap())
    }

    fn trusted(&self) -> TlsClients {
        TlsClients::trusting(vec![self.authority.clone()])
    }

    fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(&self.certificate).into()
    }
}

struct Ends {
    client: Tls,
    near: TcpStream,
    server: Tls,
    far: TcpStream,
}

/// What has come on a socket, into `tls`.
fn take(tls: &mut Tls, mut socket: &TcpStream) -> Result<Vec<u8>, TlsError> {
    let (mut buffer, mut plain) = ([0; 4096], Vec::new());
    while let Ok(count @ 1..) = socket.read(&mut buffer) {
        tls.take(&buffer[..count], &mut plain)?;
    }
    Ok(plain)
}

fn take_until(tls: &mut Tls, socket: &TcpStream, is_enough: impl Fn(&[u8], &Tls) -> bool) -> Vec<u8> {
    let (began, mut plain) = (Instant::now(), Vec::new());
    while !is_enough(&plain, tls) {
        assert!(began.elapsed() < PATIENCE, "nothing more comes");
        plain.extend(take(tls, socket).unwrap());
    }
    plain
}

impl Ends {
    fn new(server: &Arc<ServerConfig>, config: &Arc<ClientConfig>, host: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        far.set_nonblocking(true).unwrap();
        let client = Tls::client(config, host, Instant::now()).unwrap();
        Self { client, near, server: Tls::server(server, Instant::now()).unwrap(), far }
    }

    /// What the client says to it when it comes to nothing.
    fn shake_hands(&mut self) -> Result<(), String> {
        let began = Instant::now();
        while self.client.is_handshaking() || self.server.is_handshaking() {
            assert!(began.elapsed() < PATIENCE, "the handshake does not end");
            self.client.send(&self.near, &[]).unwrap();
            // A client that has gone tells why; that is for the server's log.
            let _ = take(&mut self.server, &self.far);
            let _ = self.server.send(&self.far, &[]);
            take(&mut self.client, &self.near).map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

fn outcome(
    identity: &Identity,
    clients: &TlsClients,
    pin: Option<[u8; 32]>,
    host: &str,
) -> Result<(), String> {
    let server = identity.server(rustls::ALL_VERSIONS);
    Ends::new(&server, &clients.config(pin).unwrap(), host).shake_hands()
}

#[test]
fn requests_and_answers_go_both_ways_over_either_version() {
    let identity = identity(&["cam.example"]);
    for version in [&version::TLS12, &version::TLS13] {
        let config = identity.trusted().config(None).unwrap();
        let mut ends = Ends::new(&identity.server(&[version]), &config, "cam.example");
        assert!(ends.client.handshaking_for(Instant::now()).is_some());
        ends.shake_hands().unwrap();
        assert!(ends.client.handshaking_for(Instant::now()).is_none());
        ends.client.send(&ends.near, b"OPTIONS").unwrap();
        assert_eq!(take_until(&mut ends.server, &ends.far, |plain, _| plain.len() >= 7), b"OPTIONS");
        ends.server.send(&ends.far, b"RTSP/1.0 200 OK").unwrap();
        let answer = take_until(&mut ends.client, &ends.near, |plain, _| plain.len() >= 15);
        assert_eq!(answer, b"RTSP/1.0 200 OK");
        ends.server.end(&ends.far);
        take_until(&mut ends.client, &ends.near, |_, tls| tls.is_peer_closed());
    }
}

#[test]
fn an_authority_vouches_for_names_and_addresses_and_for_no_others() {
    let identity = identity(&["cam.example", "192.0.2.1", "2001:db8::1", "fe80::1"]);
    let clients = identity.trusted();
    for host in ["cam.example", "CAM.example", "192.0.2.1", "2001:db8::1", "fe80::1%eth0"] {
        assert_eq!(outcome(&identity, &clients, None, host), Ok(()), "{host}");
    }
    for host in ["other.example", "192.0.2.2"] {
        let error = outcome(&identity, &clients, None, host).unwrap_err();
        assert!(error.contains("not to be trusted") && error.contains("sourceFingerprint"), "{error}");
    }
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_refused_with_the_fingerprint_that_would_do() {
    let (own, other) = (identity(&["cam.example"]), identity(&["other.example"]));
    let error = outcome(&own, &other.trusted(), None, "cam.example").unwrap_err();
    let (_, digits) = error.split_once("set sourceFingerprint: ").expect(&error);
    let mut fingerprint = [0; 32];
    for (byte, digits) in fingerprint.iter_mut().zip(digits.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
    }
    assert_eq!(fingerprint, own.fingerprint());
    // It counts whatever the host is called, and however old the certificate is.
    for host in ["cam.example", "another.example", "192.0.2.77", "2001:db8::77", "a_b"] {
        assert_eq!(outcome(&own, &other.trusted(), Some(fingerprint), host), Ok(()), "{host}");
    }
    let error = outcome(&other, &other.trusted(), Some(fingerprint), "other.example").unwrap_err();
    assert!(error.contains("another fingerprint than the configured one"), "{error}");
}

#[test]
fn a_certificate_that_is_its_own_authority_counts_where_it_is_installed() {
    let own = |names: &[&str]| {
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Identity { authority: certificate.clone(), certificate, key }
    };
    let (cam, other) = (own(&["cam.example"]), own(&["cam.example"]));
    assert_eq!(outcome(&cam, &cam.trusted(), None, "cam.example"), Ok(()));
    let error = outcome(&cam, &cam.trusted(), None, "other.example").unwrap_err();
    assert!(error.contains("another name"), "{error}");
    let error = outcome(&cam, &other.trusted(), None, "cam.example").unwrap_err();
    assert!(error.contains("self-signed") && !error.contains("CaUsed"), "{error}");
}

#[test]
fn without_authorities_only_fingerprints_count() {
    let (own, none) = (identity(&["cam.example"]), TlsClients::trusting(Vec::new()));
    let error = none.config(None).unwrap_err();
    assert!(error.contains("sourceFingerprint") && error.contains("ca-certificates"), "{error}");
    assert_eq!(outcome(&own, &none, Some(own.fingerprint()), "cam.example"), Ok(()));
}

#[test]
fn a_server_that_does_not_encrypt_and_a_host_that_is_no_name_are_told() {
    let config = identity(&["cam.example"]).trusted().config(None).unwrap();
    let mut client = Tls::client(&config, "cam.example", Instant::now()).unwrap();
    let error = client.take(b"RTSP/1.0 400 Bad Request\r\n\r\n", &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("does not speak TLS") && error.contains("rtsp://"), "{error}");
    let Err(error) = Tls::client(&config, "no name", Instant::now()) else { panic!("a session with nobody") };
    assert!(error.contains("'no name'"), "{error}");
}

#[test]
fn the_authorities_of_this_host_can_be_read() {
    // Whether there are any is the host's affair.
    let _ = TlsClients::load().config(None);
}
