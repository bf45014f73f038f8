//! The certificate that the shards' encrypted RTSP connections are shown.
//!
//! The shards hold the place where it lies from their start on; what lies there is changed from here, so that a new
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
use crate::shard::tls::{self, CurrentCertificate};

/// The server's name in the log.
const NAME: &str = "RTSPS";

/// See the module.
pub struct Rtsps {
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

impl Rtsps {
    /// Reads the certificate, if one is asked for: before the shards start.
    ///
    /// # Errors
    /// A sentence for the operator on which file cannot be used, and why.
    pub fn load(control: &ControlSettings) -> Result<Self, String> {
        let current = Arc::<CurrentCertificate>::default();
        let config =
            tls::server_config(Arc::clone(&current)).map_err(|error| explained(&error.to_string()))?;
        let certificate = match &control.rtsp_tls {
            Some(files) => Some(load(files.clone(), &current)?),
            None => None,
        };
        Ok(Self { config, current, state: Mutex::new(State { certificate, watch: None }) })
    }

    /// What the shards' encrypted connections have in common.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// Goes by these settings, and looks after their files from now on. To be called before the shards listen by them.
    ///
    /// # Errors
    /// A sentence for the operator on which file cannot be used, and why; all is as it was.
    pub async fn follow(&self, control: &ControlSettings) -> Result<(), String> {
        let mut state = self.state.lock().await;
        if state.certificate.as_ref().map(|certificate| certificate.files()) != control.rtsp_tls.as_ref() {
            let certificate = match control.rtsp_tls.clone() {
                Some(files) => {
                    let current = Arc::clone(&self.current);
                    let loaded = spawn_blocking(move || load(files, &current)).await;
                    Some(loaded.map_err(|failure| failure.to_string())??)
                }
                None => None,
            };
            state.stop_watching();
            state.certificate = certificate;
        }
        if let (Some(certificate), None) = (&state.certificate, &state.watch) {
            let certificate = Arc::clone(certificate);
            state.watch = Some(tokio::spawn(certificate.watch(NAME)));
        }
        Ok(())
    }
}

fn load(files: TlsFiles, current: &Arc<CurrentCertificate>) -> Result<Arc<Certificate>, String> {
    Certificate::load(files, Arc::clone(current)).map(Arc::new).map_err(|reason| explained(&reason))
}

fn explained(reason: &str) -> String {
    format!("[{NAME}] cannot encrypt: {reason}")
}
