//! The certificates that the shards' encrypted connections are shown, one for each of their servers.
//!
//! The shards hold the places where they lie from their start on; what lies there is changed from here, so that a new
//! certificate needs no word to them.

use std::sync::Arc;

use rustls::ServerConfig;
use tokio::{
    sync::Mutex,
    task::{JoinHandle, spawn_blocking},
};

use super::{
    certificate::Certificate,
    settings::{ControlSettings, TlsFiles},
};
use crate::shard::{
    boot::ServerTls,
    tls::{self, CurrentCertificate},
};

/// See the module.
pub struct ShardTls {
    rtsps: Server,
    hls: Server,
}

/// What one server shows.
struct Server {
    /// As the log calls it.
    name: &'static str,
    files: fn(&ControlSettings) -> Option<&TlsFiles>,
    config: Arc<ServerConfig>,
    current: Arc<CurrentCertificate>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// `None` while nothing is encrypted.
    certificate: Option<Arc<Certificate>>,
    watch: Option<JoinHandle<()>>,
}

impl Drop for State {
    fn drop(&mut self) {
        self.stop_watching();
    }
}

impl State {
    fn stop_watching(&mut self) {
        if let Some(watch) = self.watch.take() {
            watch.abort();
        }
    }
}

impl ShardTls {
    /// Reads the certificates that are asked for: before the shards start.
    ///
    /// # Errors
    /// A sentence for the operator on which file cannot be used, and why.
    pub fn load(control: &ControlSettings) -> Result<Self, String> {
        Ok(Self {
            rtsps: Server::load("RTSPS", |control| control.rtsp_tls.as_ref(), tls::server_config, control)?,
            hls: Server::load("HLS", |control| control.hls_tls.as_ref(), tls::web_server_config, control)?,
        })
    }

    /// What the shards' encrypted connections have in common.
    pub fn configs(&self) -> ServerTls {
        ServerTls { rtsps: Arc::clone(&self.rtsps.config), hls: Arc::clone(&self.hls.config) }
    }

    /// Goes by these settings, and looks after their files from now on. To be called before the shards listen by them.
    ///
    /// # Errors
    /// A sentence for the operator on which file cannot be used, and why; that server's is as it was.
    pub async fn follow(&self, control: &ControlSettings) -> Result<(), String> {
        self.rtsps.follow(control).await?;
        self.hls.follow(control).await
    }
}

impl Server {
    fn load(
        name: &'static str,
        files: fn(&ControlSettings) -> Option<&TlsFiles>,
        config: fn(Arc<CurrentCertificate>) -> Result<Arc<ServerConfig>, rustls::Error>,
        control: &ControlSettings,
    ) -> Result<Self, String> {
        let current = Arc::<CurrentCertificate>::default();
        let config = config(Arc::clone(&current)).map_err(|error| explained(name, &error.to_string()))?;
        let certificate = match files(control) {
            Some(files) => Some(load(name, files.clone(), &current)?),
            None => None,
        };
        Ok(Self { name, files, config, current, state: Mutex::new(State { certificate, watch: None }) })
    }

    async fn follow(&self, control: &ControlSettings) -> Result<(), String> {
        let (name, wanted) = (self.name, (self.files)(control));
        let mut state = self.state.lock().await;
        if state.certificate.as_ref().map(|certificate| certificate.files()) != wanted {
            let certificate = match wanted.cloned() {
                Some(files) => {
                    let current = Arc::clone(&self.current);
                    let loaded = spawn_blocking(move || load(name, files, &current)).await;
                    Some(loaded.map_err(|failure| failure.to_string())??)
                }
                None => None,
            };
            state.stop_watching();
            state.certificate = certificate;
        }
        if let (Some(certificate), None) = (&state.certificate, &state.watch) {
            let certificate = Arc::clone(certificate);
            state.watch = Some(tokio::spawn(certificate.watch(name)));
        }
        Ok(())
    }
}

fn load(name: &str, files: TlsFiles, current: &Arc<CurrentCertificate>) -> Result<Arc<Certificate>, String> {
    Certificate::load(files, Arc::clone(current)).map(Arc::new).map_err(|reason| explained(name, &reason))
}

fn explained(name: &str, reason: &str) -> String {
    format!("[{name}] cannot encrypt: {reason}")
}
