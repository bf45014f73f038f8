//! The settings the control plane runs on: already checked. Those of the shards are in `corecast_hub::settings`.

use std::{
    collections::HashSet, net::SocketAddr, num::NonZeroUsize, path::PathBuf, sync::Arc, time::Duration,
};

use ipnet::IpNet;
use regex::Regex;

use crate::observe::log::LogSettings;

/// Everything but what the shards run on.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlSettings {
    pub log: LogSettings,
    /// `None` when `api: no`.
    pub api: Option<HttpSettings>,
    pub metrics: Option<HttpSettings>,
    pub auth: Arc<AuthSettings>,
    /// `runOnConnect`, `runOnConnectRestart`, `runOnDisconnect`.
    pub on_connect: Hook,
    pub on_disconnect: Hook,
    /// Port of `rtspAddress`, for hooks.
    pub rtsp_port: u16,
    /// `rtspServerKey` and `rtspServerCert`, when RTSP is served over TLS.
    pub rtsp_tls: Option<TlsFiles>,
    /// `hlsServerKey` and `hlsServerCert`, when HLS is served over TLS.
    pub hls_tls: Option<TlsFiles>,
    /// `engine.dialsPerHost`: sources at one host that are being reached at a time.
    pub dials_per_host: NonZeroUsize,
    /// `engine.stateDir`: where paths added through the API are kept.
    pub state_dir: Option<PathBuf>,
    /// `engine.metricsSessions`: series per session in every scrape.
    pub metrics_sessions: bool,
    /// Limit of a request to an HTTP server, of an authentication request, and the like.
    pub read_timeout: Duration,
    pub write_timeout: Duration,
}

/// Where an HTTP server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpAddress {
    Tcp(SocketAddr),
    /// `unix:///path`
    Unix(PathBuf),
}

/// One of the HTTP servers (contract §1.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSettings {
    pub address: HttpAddress,
    /// PEM files of key and certificate chain when encrypted.
    pub tls: Option<TlsFiles>,
    pub allow_origins: Vec<String>,
    /// Peers whose `X-Forwarded-For` and `-Proto` are believed.
    pub trusted_proxies: Vec<IpNet>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    pub key: PathBuf,
    pub cert: PathBuf,
}

/// Who may do what (contract §1.3, §1.6).
#[derive(Debug, Clone, PartialEq)]
pub struct AuthSettings {
    pub method: AuthMethod,
    /// Time an authentication server has to answer (`readTimeout`).
    pub timeout: Duration,
}

#[derive(Clone, PartialEq)]
pub enum AuthMethod {
    Internal {
        users: Vec<User>,
    },
    Http {
        url: String,
        /// SHA-256 of the server's certificate; replaces the check against authorities.
        fingerprint: Option<[u8; 32]>,
        exclude: Vec<Permission>,
    },
    Jwt {
        jwks_url: String,
        fingerprint: Option<[u8; 32]>,
        claim: String,
        exclude: Vec<Permission>,
        /// Checked when set.
        issuer: Option<String>,
        audience: Option<String>,
        /// `authJWTInHTTPQuery`: HTTP clients may carry the token in the query.
        in_http_query: bool,
    },
}

/// A URL may hold a password.
impl std::fmt::Debug for AuthMethod {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Internal { users } => f.debug_struct("Internal").field("users", users).finish(),
            Self::Http { exclude, .. } => {
                f.debug_struct("Http").field("exclude", exclude).finish_non_exhaustive()
            }
            Self::Jwt { exclude, .. } => {
                f.debug_struct("Jwt").field("exclude", exclude).finish_non_exhaustive()
            }
        }
    }
}

/// An entry of `authInternalUsers`, or what an older file's credentials became.
#[derive(Debug, Clone, PartialEq)]
pub struct User {
    pub name: UserName,
    /// `None`: any password.
    pub password: Option<Credential>,
    /// Empty: any address.
    pub ips: Vec<IpNet>,
    pub permissions: Vec<Permission>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum UserName {
    /// `any`: credentials are not looked at.
    Any,
    Is(Credential),
}

/// A configured user name or password (contract §1.2). Its `Debug` shows no secret. Its equality is for comparing
/// configurations: it is no check of what a client presents, for it takes a time that depends on the secret.
#[derive(Clone, PartialEq)]
pub enum Credential {
    Plain(String),
    /// SHA-256 of it.
    Sha256([u8; 32]),
    /// A PHC string of argon2id or argon2i.
    Argon2(String),
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain(…)",
            Self::Sha256(_) => "Sha256(…)",
            Self::Argon2(_) => "Argon2(…)",
        })
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Permission {
    pub action: Action,
    pub path: PathScope,
}

/// Which paths a permission is about; API, metrics and pprof do not ask.
#[derive(Debug, Clone)]
pub enum PathScope {
    Any,
    Exact(String),
    /// Not anchored unless written so.
    Pattern(Regex),
    /// The paths that one of these entries of `paths:` serves, by key (`PathSettings::conf_name`, which
    /// `View::serving` and the shards' look-up find): older credentials protect an entry, whatever else matches the
    /// name too.
    Entries(Arc<HashSet<Arc<str>>>),
}

/// Two patterns that read the same are the same.
impl PartialEq for PathScope {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, Self::Any) => true,
            (Self::Exact(one), Self::Exact(two)) => one == two,
            (Self::Pattern(one), Self::Pattern(two)) => one.as_str() == two.as_str(),
            (Self::Entries(one), Self::Entries(two)) => one == two,
            (Self::Any | Self::Exact(_) | Self::Pattern(_) | Self::Entries(_), _) => false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    Publish,
    Read,
    Playback,
    Api,
    Metrics,
    Pprof,
}

impl Action {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Read => "read",
            Self::Playback => "playback",
            Self::Api => "api",
            Self::Metrics => "metrics",
            Self::Pprof => "pprof",
        }
    }
}

/// A command to run; nothing is run when it is empty (contract §7.3).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hook {
    pub command: String,
    pub restart: bool,
}

/// The hooks of one path entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PathHooks {
    pub init: Hook,
    /// Empty where a pull does what `runOnDemand` would.
    pub demand: Hook,
    pub un_demand: Hook,
    pub available: Hook,
    pub unavailable: Hook,
    pub online: Hook,
    pub offline: Hook,
    pub read: Hook,
    pub unread: Hook,
}
