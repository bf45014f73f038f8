//! Requests to the servers that authentication depends on.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use reqwest::{Client, Response, redirect};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Connections that are kept for the next request, and for how long: not until the server gets tired of them, when a
/// request might meet its end of the connection.
const IDLE_MAX: usize = 16;
const IDLE_TIME_MAX: Duration = Duration::from_secs(2);

/// A client for one server. It is made when it is first needed: reading the system's authorities takes a while.
pub(super) struct Web {
    fingerprint: Option<[u8; 32]>,
    timeout: Duration,
    secure: bool,
    client: OnceLock<Result<Client, String>>,
}

impl Web {
    /// `timeout` is that of a whole request.
    pub(super) fn new(url: &str, fingerprint: Option<[u8; 32]>, timeout: Duration) -> Self {
        Self { fingerprint, timeout, secure: url.starts_with("https://"), client: OnceLock::new() }
    }

    /// # Errors
    /// A sentence for the operator.
    pub(super) fn client(&self) -> Result<&Client, String> {
        self.client.get_or_init(|| self.make()).as_ref().map_err(Clone::clone)
    }

    /// Redirects are not followed and no proxy is used: credentials go where the configuration says.
    fn make(&self) -> Result<Client, String> {
        let builder = Client::builder()
            .timeout(self.timeout)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .pool_max_idle_per_host(IDLE_MAX)
            .pool_idle_timeout(IDLE_TIME_MAX);
        let builder = match self.fingerprint {
            Some(fingerprint) => builder.tls_backend_preconfigured(pinned(fingerprint)?),
            None if self.secure => {
                // What reqwest then takes; another that is installed already does as well.
                let _ = ring::default_provider().install_default();
                builder
            }
            // No certificate is ever looked at.
            None => builder.tls_backend_preconfigured(without_authorities()?),
        };
        builder.build().map_err(|error| format!("no connections can be made: {}", chain(&error)))
    }
}

/// The body as far as `bytes_max`.
///
/// # Errors
/// When it breaks off.
pub(super) async fn body(mut response: Response, bytes_max: usize) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = bytes_max - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == bytes_max {
            break;
        }
    }
    Ok(body)
}

/// What went wrong, without the URL, which may hold a password.
pub(super) fn reason(error: reqwest::Error) -> String {
    if error.is_timeout() {
        return "it did not answer in time".to_owned();
    }
    chain(&error.without_url())
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn pinned(fingerprint: [u8; 32]) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(Pinned { fingerprint, provider: Arc::clone(&provider) });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(config)
}

fn without_authorities() -> Result<ClientConfig, String> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    Ok(config)
}

/// Knows a server by its certificate, whoever issued it, to whatever name, and however old.
#[derive(Debug)]
struct Pinned {
    /// SHA-256.
    fingerprint: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if bool::from(Sha256::digest(certificate)[..].ct_eq(&self.fingerprint)) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::General(
            "the certificate has another fingerprint than the configured one".to_owned(),
        ))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
