//! Which servers are believed to be who they say, when we are their client: those whose certificate an authority of this
//! host vouches for, or the one whose certificate is the configured one.

use std::{collections::HashSet, error::Error as StdError, fmt::Write as _, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// How the shards know servers over TLS. The host's authorities are read once, before the shards start: that takes files
/// and a while. Others are known after the next start.
pub struct TlsClients {
    by_authority: Result<Arc<ClientConfig>, String>,
}

impl TlsClients {
    /// Reads the authorities of this host. Those that make no sense are left out; that there is none is an error only
    /// for who needs one.
    pub fn load() -> Self {
        let found = rustls_native_certs::load_native_certs();
        Self::trusting(found.certs)
    }

    /// Knows the servers that `trusted` are the certificates of, or vouch for, and no others.
    pub fn trusting(trusted: Vec<CertificateDer<'static>>) -> Self {
        Self { by_authority: by_authority(trusted).map(Arc::new) }
    }

    /// For a server with the certificate of this SHA-256, or, without one, for any that an authority of this host
    /// vouches for. Makes no file wait, and is cheap enough for every new connection.
    ///
    /// # Errors
    /// A sentence for the operator: this host has no authorities.
    pub fn config(&self, fingerprint: Option<[u8; 32]>) -> Result<Arc<ClientConfig>, String> {
        match fingerprint {
            Some(fingerprint) => pinned(fingerprint).map(Arc::new).map_err(|error| error.to_string()),
            None => self.by_authority.clone(),
        }
    }
}

/// For the one server whose certificate has this SHA-256, whoever issued it, to whatever name, and however old.
///
/// # Errors
/// When the cryptography in use has no TLS that we speak.
pub fn pinned(fingerprint: [u8; 32]) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Pinned { fingerprint, provider: Arc::clone(&provider) };
    believing(Arc::new(verifier), provider)
}

fn by_authority(trusted: Vec<CertificateDer<'static>>) -> Result<ClientConfig, String> {
    let known = trusted.iter().map(|certificate| Sha256::digest(certificate).into()).collect();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(trusted);
    if roots.is_empty() {
        return Err("this host has no certificates of authorities to check the source's by: install them \
                    (package ca-certificates) and restart, or set sourceFingerprint"
            .to_owned());
    }
    let provider = Arc::new(ring::default_provider());
    let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|error| error.to_string())?;
    believing(Arc::new(ByAuthority { authorities, known }), provider).map_err(|error| error.to_string())
}

/// TLS 1.2 and 1.3, without a certificate of ours. Sessions are not resumed: their memory would be shared by the shards,
/// under a lock.
fn believing(
    verifier: Arc<dyn ServerCertVerifier>,
    provider: Arc<CryptoProvider>,
) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Why a certificate is not believed.
#[derive(Debug, thiserror::Error)]
enum Untrusted {
    #[error("the certificate has another fingerprint than the configured one: {0}")]
    OtherFingerprint(String),
    #[error(
        "the certificate is not to be trusted ({reason}); if it is the right one, set sourceFingerprint: {fingerprint}"
    )]
    ByAuthority { reason: String, fingerprint: String },
}

fn refused(why: impl StdError + Send + Sync + 'static) -> Error {
    Error::Other(OtherError(Arc::new(why)))
}

/// SHA-256 in hexadecimal digits, as settings hold it.
fn shown(certificate: &CertificateDer<'_>) -> String {
    let mut digits = String::with_capacity(64);
    for byte in Sha256::digest(certificate) {
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

#[derive(Debug)]
struct Pinned {
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
    ) -> Result<ServerCertVerified, Error> {
        if bool::from(Sha256::digest(certificate)[..].ct_eq(&self.fingerprint)) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(refused(Untrusted::OtherFingerprint(shown(certificate))))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Why the usual check does not believe a certificate.
fn reason(error: &Error) -> String {
    let Error::InvalidCertificate(error) = error else { return "it cannot be checked".to_owned() };
    let reason = match error {
        CertificateError::BadEncoding => "it cannot be read",
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet: check this host's clock"
        }
        CertificateError::Revoked => "it has been revoked",
        CertificateError::UnknownIssuer => "no authority that this host trusts has issued it",
        CertificateError::BadSignature => "its signature is wrong",
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another name than the one in the URL"
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it is not for servers"
        }
        other if is_authority_itself(other) => "it is self-signed, and this host does not trust it",
        _ => "it does not hold what a server's must",
    };
    reason.to_owned()
}

/// The certificate is one that issues others, as those are that people sign themselves. That it has not expired was
/// found before.
fn is_authority_itself(error: &CertificateError) -> bool {
    // It has no variant of its own.
    matches!(error, CertificateError::Other(OtherError(error)) if error.to_string() == "CaUsedAsEndEntity")
}

/// The usual check, with an error that tells what to do; and a certificate that is itself among those of this host's
/// authorities is believed, as others do: it is one that was signed by itself and installed here.
#[derive(Debug)]
struct ByAuthority {
    authorities: Arc<WebPkiServerVerifier>,
    /// SHA-256 of their certificates.
    known: HashSet<[u8; 32]>,
}

impl ServerCertVerifier for ByAuthority {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let checked = self.authorities.verify_server_cert(certificate, intermediates, name, ocsp, now);
        let checked = match checked {
            Err(Error::InvalidCertificate(error))
                if is_authority_itself(&error)
                    && self.known.contains(&<[u8; 32]>::from(Sha256::digest(certificate))) =>
            {
                ParsedCertificate::try_from(certificate)
                    .and_then(|parsed| verify_server_name(&parsed, name))
                    .map(|()| ServerCertVerified::assertion())
            }
            checked => checked,
        };
        checked.map_err(|error| {
            refused(Untrusted::ByAuthority { reason: reason(&error), fingerprint: shown(certificate) })
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests;
