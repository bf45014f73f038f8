//! What an encrypted HTTP server has: its certificate, and what is agreed on with clients.

use std::sync::Arc;

use rustls::{ServerConfig, crypto::ring, server::ResolvesServerCert};
use tokio_rustls::TlsAcceptor;

use crate::{
    control::{certificate, settings::TlsFiles},
    shard::tls::CurrentCertificate,
};

/// See the module.
#[derive(Debug)]
pub(super) struct Certificate {
    config: Arc<ServerConfig>,
    files: Arc<certificate::Certificate>,
}

impl Certificate {
    /// Fails with a sentence for the operator.
    pub(super) fn load(files: TlsFiles) -> Result<Arc<Self>, String> {
        let current = Arc::<CurrentCertificate>::default();
        let files = Arc::new(certificate::Certificate::load(files, Arc::clone(&current))?);
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_no_client_auth()
            .with_cert_resolver(current as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(Self { config: Arc::new(config), files }))
    }

    pub(super) fn acceptor(self: &Arc<Self>) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }

    /// Keeps to the files as they change; never returns.
    pub(super) async fn watch(&self, name: &str) {
        Arc::clone(&self.files).watch(name).await;
    }
}
