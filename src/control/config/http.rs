//! Where the HTTP servers of the control plane listen, and which files a server encrypts with (contract §1.3).

use std::path::PathBuf;

use super::{conf, error::Report, section::Layers, typed};
use crate::control::settings::{HttpAddress, HttpSettings, TlsFiles};

/// The server whose keys begin with `name`; `None` when it is off.
pub(super) fn server(global: Layers<'_>, name: &str, report: &mut Report) -> Option<HttpSettings> {
    if !global.bool(name) {
        return None;
    }
    let key = |suffix: &str| format!("{name}{suffix}");
    let address_key = key("Address");
    let address = match global.text(&address_key).strip_prefix("unix://") {
        Some(path) => {
            if !path.starts_with('/') || path.len() == 1 {
                let message = format!(
                    "'{address_key}' is 'unix://{path}': expected an absolute path, such as unix:///run/{name}.sock"
                );
                report.error(global.at(&address_key), message);
            }
            HttpAddress::Unix(path.into())
        }
        None => HttpAddress::Tcp(conf::address(global, &address_key, true, report)),
    };
    let tls = global.bool(&key("Encryption")).then(|| tls_files(global, name, report));
    Some(HttpSettings {
        address,
        tls,
        allow_origins: global.words(&key("AllowOrigins")).map(str::to_owned).collect(),
        trusted_proxies: global.words(&key("TrustedProxies")).filter_map(typed::parsed_network).collect(),
    })
}

/// The key and the certificate of the server whose keys begin with `name`.
pub(super) fn tls_files(global: Layers<'_>, name: &str, report: &mut Report) -> TlsFiles {
    TlsFiles {
        key: file(global, &format!("{name}ServerKey"), report),
        cert: file(global, &format!("{name}ServerCert"), report),
    }
}

fn file(global: Layers<'_>, key: &str, report: &mut Report) -> PathBuf {
    let text = global.text(key);
    if text.is_empty() {
        report.error(global.at(key), format!("'{key}' is empty: expected the path of a PEM file"));
    }
    text.into()
}
