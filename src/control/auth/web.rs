//! Requests to the servers that authentication depends on.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use reqwest::{Client, Response, redirect};
use rustls::{ClientConfig, RootCertStore, crypto::ring};

use crate::shard::tls::trust;

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
            Some(fingerprint) => {
                builder.tls_backend_preconfigured(trust::pinned(fingerprint).map_err(|e| e.to_string())?)
            }
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

fn without_authorities() -> Result<ClientConfig, String> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    Ok(config)
}
