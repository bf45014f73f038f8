//! The HTTP servers of the control plane: what the API and the metrics have in common.
//!
//! A [`Server`] owns a listener and its connections. Every request passes [`front`], which knows about origins, proxies
//! and credentials, and then a router, which knows about none of them. Everything a client can make us hold is bounded:
//! connections, headers, bodies, and the time each of them may take.

mod accept;
pub mod answer;
pub(super) mod credentials;
mod front;
mod listen;
mod stream;
#[cfg(test)]
mod tests;
mod tls;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinHandle,
};
use tracing::info;

use super::{
    office::Office,
    settings::{Action, HttpAddress, HttpSettings, TlsFiles},
};
use front::Front;
use listen::Listener;
use tls::Certificate;

/// Connections of one server; others wait in the kernel.
const CONNECTIONS_MAX: usize = 4096;
/// A connection without a request is closed after this (contract §8).
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Longest a request may take once it is read; an answer that is a stream of events may go on.
const REQUEST_MAX: Duration = Duration::from_secs(60);
/// What is under way when a server stops has this long to end (contract §8).
const GRACE: Duration = Duration::from_secs(2);

/// One of the HTTP services.
#[derive(Debug, Clone)]
pub struct Site {
    /// As the log calls it: `API`, `metrics`.
    pub name: &'static str,
    /// What a client must be allowed to do, for every request.
    pub action: Action,
    /// Answers to preflight requests.
    pub cors_methods: &'static str,
    pub cors_headers: &'static str,
    pub settings: HttpSettings,
    /// Limit of reading a request, and of a TLS handshake.
    pub read_timeout: Duration,
    /// Limit of a write that makes no progress.
    pub write_timeout: Duration,
}

/// Why a server cannot start: nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    #[error("[{name}] cannot listen on {address}: {reason}")]
    Listen { name: &'static str, address: String, reason: io::Error },
    #[error("[{name}] cannot encrypt: {reason}")]
    Certificate { name: &'static str, reason: String },
}

/// Put into every request; becomes true when the server stops, so that an answer without an end finds one.
#[derive(Debug, Clone)]
pub struct Stopping(pub watch::Receiver<bool>);

/// A running HTTP server. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct Server {
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
    seats: Arc<Semaphore>,
    address: Option<SocketAddr>,
}

impl Server {
    /// Listens and serves. To be called on the runtime that shall carry the connections.
    ///
    /// # Errors
    /// When the address cannot be had, or the certificate cannot be read.
    pub fn start(site: Site, router: Router, office: Arc<Office>) -> Result<Self, StartError> {
        let name = site.name;
        let certificate = Self::certificate(&site)?;
        let listener = Listener::bind(&site.settings.address).map_err(|reason| StartError::Listen {
            name,
            address: listen::display(&site.settings.address),
            reason,
        })?;
        let scheme = if certificate.is_some() { "HTTPS" } else { "HTTP" };
        let shown = match (&site.settings.address, listener.address()) {
            (HttpAddress::Tcp(_), Some(address)) => listen::display(&HttpAddress::Tcp(address)),
            (address, _) => listen::display(address),
        };
        info!("[{name}] started with listener on {shown} (TCP/{scheme})");
        let (stop, stopping) = watch::channel(false);
        let address = listener.address();
        let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let front = Arc::new(Front::new(site, router, office, stopping.clone()));
        let accepting = tokio::spawn(accept::run(listener, certificate, front, Arc::clone(&seats), stopping));
        Ok(Self { stop, accepting, seats, address })
    }

    /// Fails as [`Self::start`] would for a certificate that cannot be read. Starts nothing.
    ///
    /// # Errors
    /// As of [`Self::start`].
    pub fn check(site: &Site) -> Result<(), StartError> {
        Self::certificate(site).map(drop)
    }

    fn certificate(site: &Site) -> Result<Option<Arc<Certificate>>, StartError> {
        let load = |files: &TlsFiles| {
            Certificate::load(files.clone())
                .map_err(|reason| StartError::Certificate { name: site.name, reason })
        };
        site.settings.tls.as_ref().map(load).transpose()
    }

    /// Where it listens, with the port the system chose when it was 0; `None` for a unix socket.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Returns when the address is free again. What is under way goes on in the background for at most two seconds, so
    /// that a request which makes its own server restart still gets its answer.
    pub async fn retire(self) {
        self.retired().await;
    }

    /// Ends, and returns when every connection is closed: after two seconds at most.
    pub async fn stop(self) {
        let seats = self.retired().await;
        let all = u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX);
        // Connections give up by themselves after GRACE; a second more covers a busy machine.
        let _ = tokio::time::timeout(GRACE + Duration::from_secs(1), seats.acquire_many(all)).await;
    }

    async fn retired(self) -> Arc<Semaphore> {
        self.stop.send_replace(true);
        // It fails only when the task panicked, and then it is over as well.
        let _ = self.accepting.await;
        self.seats
    }
}
