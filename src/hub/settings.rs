//! The settings a shard runs on: already checked, so that none of them can be illegal.
//!
//! The control plane builds them from the configuration file; this crate only gives them their shape.

use std::{
    collections::HashMap,
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
    time::Duration,
};

use regex::Regex;

/// Everything a shard needs to know, handed to it at start and replaced as a whole by a reload.
#[derive(Debug, Clone)]
pub struct Settings {
    /// No progress from a publisher for this long ends it (`readTimeout`).
    pub read_timeout: Duration,
    /// No progress of a reader for this long ends it (`writeTimeout`).
    pub write_timeout: Duration,
    /// Largest UDP payload we send, bytes (`udpMaxPayloadSize`).
    pub udp_payload_bytes_max: u16,
    /// `SO_RCVBUF` of UDP sockets, bytes; `None` leaves the system's (`udpReadBufferSize`).
    pub udp_read_buffer_bytes: Option<NonZeroUsize>,
    pub rtsp: RtspSettings,
    pub engine: EngineSettings,
    pub paths: PathTable,
}

/// The RTSP server (contract §1.3).
#[derive(Debug, Clone)]
pub struct RtspSettings {
    /// `None` when `rtsp: no`.
    pub address: Option<SocketAddr>,
    pub rtp_address: SocketAddr,
    pub rtcp_address: SocketAddr,
    /// `rtspTransports` holds `udp`.
    pub udp: bool,
    /// `rtspTransports` holds `tcp`.
    pub tcp: bool,
}

/// The `engine:` block, which is ours.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// Cores to pin shards to; never empty.
    pub cores: Vec<usize>,
    pub media_io: MediaIoChoice,
    pub park: Park,
    /// A frame is sent on as soon as this much of it is here, bytes.
    pub flush_bytes: usize,
    /// … or when its oldest unsent packet has waited this long.
    pub flush_after: Duration,
    /// Largest stream ring, bytes; a GOP that does not fit is not cached.
    pub ring_bytes_max: usize,
    /// A reader further behind than this jumps to the newest keyframe.
    pub reader_lag_max: Duration,
    /// How long a UDP packet may wait for an earlier one that is missing.
    pub reorder_wait: Duration,
}

/// Which back end carries the media sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaIoChoice {
    Auto,
    IoUring,
    Epoll,
}

/// Where an idle shard sleeps: in its media ring, or in the executor's reactor (see ARCHITECTURE.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Park {
    Ring,
    Executor,
}

/// One entry of `paths:`, defaults laid under it.
#[derive(Debug, Clone)]
pub struct PathSettings {
    /// The key as written: `cam1`, `~^cam(.+)$`, `milestone_~cameraId`, `all_others`.
    pub conf_name: Arc<str>,
    pub source: Source,
    pub readers_max: Option<NonZeroU32>,
    /// A new publisher evicts the old one (`overridePublisher`).
    pub override_publisher: bool,
    /// New readers start at the newest keyframe (`gopCache`, ours).
    pub gop_cache: bool,
    /// Pins the path to this core's shard (`core`, ours).
    pub core: Option<usize>,
}

/// Who brings a path's media in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A client that publishes to us.
    Publisher,
    /// The built-in camera.
    Demo,
    /// A kind of source that this version accepts in a file but does not serve yet.
    Unserved(Arc<str>),
}

/// The path entries, ready for lookup: exact names first, then patterns in order (contract §1.5).
#[derive(Debug, Clone, Default)]
pub struct PathTable {
    exact: HashMap<Arc<str>, Arc<PathSettings>>,
    patterns: Vec<(Regex, Arc<PathSettings>)>,
}

/// Why a requested path cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("invalid path name: {0} ({1})")]
    InvalidName(&'static str, String),
    #[error("path '{0}' is not configured")]
    NotConfigured(String),
}

impl PathTable {
    /// `patterns` in the order they are tried: by key, catch-alls last.
    pub fn new(
        exact: impl IntoIterator<Item = Arc<PathSettings>>,
        patterns: Vec<(Regex, Arc<PathSettings>)>,
    ) -> Self {
        let exact = exact.into_iter().map(|path| (Arc::clone(&path.conf_name), path)).collect();
        Self { exact, patterns }
    }

    /// Finds the entry that serves `name`: the exact key, else the first pattern that matches.
    pub fn lookup(&self, name: &str) -> Result<&Arc<PathSettings>, PathError> {
        if let Some(found) = self.exact.get(name) {
            return Ok(found);
        }
        check_name(name).map_err(|rule| PathError::InvalidName(rule, name.to_owned()))?;
        self.patterns
            .iter()
            .find(|(pattern, _)| pattern.is_match(name))
            .map(|(_, path)| path)
            .ok_or_else(|| PathError::NotConfigured(name.to_owned()))
    }

    /// The entries that name one path each, in no order: those that exist from the start.
    pub fn exact(&self) -> impl Iterator<Item = &Arc<PathSettings>> {
        self.exact.values()
    }
}

/// The rules for a concrete path name (contract §1.5); the error is the rule that is broken.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("cannot be empty");
    }
    if name.starts_with('/') {
        return Err("can't begin with a slash");
    }
    if name.ends_with('/') {
        return Err("can't end with a slash");
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'/' | b'.')) {
        return Err("can contain only alphanumeric characters, underscore, dot, minus, slash");
    }
    if name.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err("can't contain dot path segments");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str) -> Arc<PathSettings> {
        Arc::new(PathSettings {
            conf_name: key.into(),
            source: Source::Publisher,
            readers_max: None,
            override_publisher: true,
            gop_cache: true,
            core: None,
        })
    }

    #[test]
    fn exact_key_wins_then_first_pattern() {
        let table = PathTable::new(
            [entry("cam1")],
            vec![
                (Regex::new("^cam").unwrap(), entry("~^cam")),
                (Regex::new("^.*$").unwrap(), entry("all_others")),
            ],
        );
        assert_eq!(&*table.lookup("cam1").unwrap().conf_name, "cam1");
        assert_eq!(&*table.lookup("cam2").unwrap().conf_name, "~^cam");
        assert_eq!(&*table.lookup("x/y").unwrap().conf_name, "all_others");
        assert_eq!(
            table.lookup("a/../b").unwrap_err(),
            PathError::InvalidName("can't contain dot path segments", "a/../b".into())
        );
        assert!(matches!(PathTable::default().lookup("x"), Err(PathError::NotConfigured(_))));
    }
}
