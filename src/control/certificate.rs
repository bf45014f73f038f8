//! The certificate of a server: read at the start, and again when its files change, without a restart.

use std::{
    fs::{self, File},
    io::Read as _,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use tokio::{task::spawn_blocking, time::sleep};
use tracing::{info, warn};

use super::settings::TlsFiles;
use crate::shard::tls::CurrentCertificate;

/// Between two looks at the files. They are read when two looks in a row find the same change, so that a key and its
/// certificate which are replaced one after the other are not met half-way.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Largest file that is read, bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// See the module.
#[derive(Debug)]
pub struct Certificate {
    files: TlsFiles,
    /// What the server shows to who connects.
    current: Arc<CurrentCertificate>,
    /// The files that it was read from.
    stamps: Stamps,
}

/// Time of the last change and length of the key and the certificate; `None` of a file that is not there.
type Stamps = [Option<(SystemTime, u64)>; 2];

impl Certificate {
    /// Reads the files, and puts what is in them into `current`.
    ///
    /// # Errors
    /// A sentence for the operator on which file cannot be used, and why; `current` is as it was.
    pub fn load(files: TlsFiles, current: Arc<CurrentCertificate>) -> Result<Self, String> {
        let stamps = stamps(&files);
        current.set(read(&files, &ring::default_provider())?);
        Ok(Self { files, current, stamps })
    }

    pub fn files(&self) -> &TlsFiles {
        &self.files
    }

    /// Reads the files again whenever they change; what is wrong with them is logged, and the old ones stay in use.
    /// `name` is the server's.
    pub async fn watch(self: Arc<Self>, name: &str) {
        let (mut known, mut seen) = (self.stamps, self.stamps);
        loop {
            sleep(LOOK_INTERVAL).await;
            let this = Arc::clone(&self);
            let Ok(now) = spawn_blocking(move || stamps(&this.files)).await else { return };
            let settled = now == seen;
            seen = now;
            if now == known || !settled {
                continue;
            }
            known = now;
            let this = Arc::clone(&self);
            match spawn_blocking(move || read(&this.files, &ring::default_provider())).await {
                Ok(Ok(fresh)) => {
                    self.current.set(fresh);
                    info!("[{name}] certificate reloaded after change to {}", self.files.cert.display());
                }
                Ok(Err(reason)) => {
                    warn!("[{name}] the changed certificate is not used, the old one stays: {reason}");
                }
                Err(_) => return,
            }
        }
    }
}

fn stamps(files: &TlsFiles) -> Stamps {
    [&files.key, &files.cert].map(|path| {
        let found = fs::metadata(path).ok()?;
        Some((found.modified().ok()?, found.len()))
    })
}

fn read(files: &TlsFiles, provider: &CryptoProvider) -> Result<CertifiedKey, String> {
    let pem = read_file(&files.cert)?;
    let shown = files.cert.display();
    let chain = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("{shown} is no PEM file: {error}"))?;
    if chain.is_empty() {
        return Err(format!("{shown} holds no certificate: expected a PEM file with the server's first"));
    }
    let key = PrivateKeyDer::from_pem_slice(&read_file(&files.key)?)
        .map_err(|error| format!("{} holds no private key in PEM form: {error}", files.key.display()))?;
    CertifiedKey::from_der(chain, key, provider)
        .map_err(|error| format!("{} and {shown} do not go together: {error}", files.key.display()))
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes))
        .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    Ok(bytes)
}
