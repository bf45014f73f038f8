//! The settings a shard runs on: already checked, so that none of them can be illegal.
//!
//! The control plane builds them from the configuration file; this crate only gives them their shape.

mod url_template;
mod web;

use std::{
    collections::HashMap,
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
    time::Duration,
};

use regex::{Regex, RegexSet, RegexSetBuilder};

pub use self::{
    url_template::UrlTemplate,
    web::{CdnSecret, HlsSessionMode, HlsSettings, HlsVariant, WebSettings},
};
use crate::quota::Quota;

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
    /// `None` when `hls: no`.
    pub hls: Option<HlsSettings>,
    pub engine: EngineSettings,
    pub access: Access,
    pub paths: PathTable,
}

/// Whom the shards let in without asking the control plane, and how they ask a client for credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Anybody may publish anywhere.
    pub publish_open: bool,
    /// Anybody may read anything.
    pub read_open: bool,
    /// `rtspAuthMethods`: the challenges of a 401, in this order.
    pub challenges: Vec<Challenge>,
}

/// A way to present credentials over RTSP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Challenge {
    Basic,
    /// RFC 2617, MD5.
    DigestMd5,
    /// RFC 7616, SHA-256.
    DigestSha256,
}

/// The RTSP server (contract §1.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RtspSettings {
    /// Where plain RTSP listens; `None` when `rtsp: no` or `rtspEncryption: strict`.
    pub address: Option<SocketAddr>,
    /// Where RTSP over TLS listens; `None` when `rtsp: no` or `rtspEncryption: no`.
    pub tls_address: Option<SocketAddr>,
    pub rtp_address: SocketAddr,
    pub rtcp_address: SocketAddr,
    /// `rtspTransports` holds `udp`.
    pub udp: bool,
    /// `rtspTransports` holds `tcp`.
    pub tcp: bool,
}

/// The `engine:` block, which is ours.
#[derive(Debug, Clone, PartialEq)]
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
    /// Live streams in the whole relay (`engine.maxStreams`).
    pub streams_max: Option<NonZeroU32>,
    pub streams: Quota,
    /// Readers in the whole relay (`engine.maxReaders`).
    pub readers_max: Option<NonZeroU32>,
    pub readers: Quota,
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

/// One entry of `paths:`, defaults laid under it. Two that are equal are the same to a shard.
#[derive(Debug, Clone, PartialEq)]
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
    /// Live streams that the entry may have at once, over all shards (`maxActive`, ours).
    pub active_max: Option<NonZeroU32>,
    pub active: Quota,
    /// Nobody can publish or read while it is off (`enabled`, ours).
    pub enabled: bool,
    /// Media comes only while somebody wants it (`sourceOnDemand`, `runOnDemand`).
    pub demand: Option<DemandSettings>,
    /// Where clients are sent that describe it while there is no stream (`fallback`).
    pub fallback: Option<Arc<str>>,
    /// Instead of [`HlsSettings::always_remux`] (`hlsAlwaysRemux` of the path, ours).
    pub hls_always_remux: Option<bool>,
}

impl PathSettings {
    /// Whether its media is pulled: by its source, or by what stands for its command.
    pub fn is_pulled(&self) -> bool {
        let by_demand = self.demand.as_ref().map(|demand| &demand.brought_by);
        matches!(self.source, Source::Rtsp(_)) || matches!(by_demand, Some(BroughtBy::Pull(_)))
    }
}

/// Who brings a path's media in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A client that publishes to us.
    Publisher,
    /// The built-in camera.
    Demo,
    /// Pulled from a camera or another server over RTSP.
    Rtsp(Arc<PullSettings>),
    /// Clients that describe it are sent there: a path of ours with its slash, or a URL (`sourceRedirect`).
    Redirect(Arc<str>),
    /// A kind of source that this version accepts in a file but does not serve yet.
    Unserved(Arc<str>),
}

/// How a path is brought to life by the first who wants it (contract §7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DemandSettings {
    pub brought_by: BroughtBy,
    /// Who waits for longer is told that it has timed out (`sourceOnDemandStartTimeout`, `runOnDemandStartTimeout`).
    pub start_timeout: Duration,
    /// Without readers for this long, it ends (`sourceOnDemandCloseAfter`, `runOnDemandCloseAfter`).
    pub close_after: Duration,
    /// What was started brings the stream again by itself when that is lost: a pull, or a command with
    /// `runOnDemandRestart`.
    pub revives: bool,
}

/// What is started when somebody wants a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BroughtBy {
    /// A pull: that of `source`, or one that stands for a `runOnDemand` which does nothing else.
    Pull(Arc<PullSettings>),
    /// The control plane runs the command of `runOnDemand`, which is to publish.
    Command,
}

/// A source that is pulled over RTSP (contract §1.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullSettings {
    pub url: UrlTemplate,
    /// SHA-256 of the certificate of a source over TLS; replaces the check against authorities (`sourceFingerprint`).
    pub fingerprint: Option<[u8; 32]>,
    /// `rtspTransport`
    pub transport: PullTransport,
    /// Packets may come from any port of the source (`rtspAnyPort`).
    pub any_port: bool,
    /// Value of the `Range` header of PLAY, if it is to have one (`rtspRangeType`, `rtspRangeStart`).
    pub range: Option<Arc<str>>,
    /// Value of its `Scale` header (`rtspScale`).
    pub scale: Option<Arc<str>>,
    /// Our ports for its packets, first and last (`rtspUDPSourcePortRange`).
    pub udp_ports: (u16, u16),
    /// `SO_RCVBUF` of its sockets, bytes, instead of that of the other ones (`rtspUDPReadBufferSize`).
    pub udp_read_buffer_bytes: Option<NonZeroUsize>,
    /// Readers outlive a loss of the source that is mended within this time (`sourceReconnectGrace`, ours).
    pub reconnect_grace: Duration,
}

/// How media is to come from a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullTransport {
    /// UDP, and TCP when that fails.
    Automatic,
    Udp,
    Multicast,
    Tcp,
}

/// Patterns up to this many are tried one after the other; more of them are searched for all at once.
const TRIED_SINGLY_MAX: usize = 8;
/// Memory that the search for all patterns at once may take, bytes. Patterns that need more are tried singly.
const PATTERN_SET_BYTES_MAX: usize = 64 << 20;
/// … and what a thread may remember of earlier searches, bytes. A thousand patterns that are not anchored fill a few
/// megabytes; with too little, every lookup takes ten times as long.
const PATTERN_MEMORY_BYTES_MAX: usize = 32 << 20;

/// The path entries, ready for lookup: exact names first, then patterns in order (contract §1.5).
#[derive(Debug, Clone, Default)]
pub struct PathTable {
    exact: HashMap<Arc<str>, Arc<PathSettings>>,
    patterns: Vec<(Regex, Arc<PathSettings>)>,
    /// All of `patterns`, when there are many. Dear to make, so that tables of the same patterns share it.
    set: Option<Arc<RegexSet>>,
}

/// Why a requested path cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("invalid path name: {0} ({1})")]
    InvalidName(&'static str, String),
    #[error("path '{0}' is not configured")]
    NotConfigured(String),
    #[error("path '{0}' is disabled")]
    Disabled(String),
}

impl PathTable {
    /// `patterns` in the order they are tried: by key, catch-alls last.
    pub fn new(
        exact: impl IntoIterator<Item = Arc<PathSettings>>,
        patterns: Vec<(Regex, Arc<PathSettings>)>,
    ) -> Self {
        Self::succeeding(&Self::default(), exact, patterns)
    }

    /// As [`Self::new`]; takes over from `before` what is dear to make, if the patterns are the same.
    pub fn succeeding(
        before: &Self,
        exact: impl IntoIterator<Item = Arc<PathSettings>>,
        patterns: Vec<(Regex, Arc<PathSettings>)>,
    ) -> Self {
        let exact = exact.into_iter().map(|path| (Arc::clone(&path.conf_name), path)).collect();
        let texts = || patterns.iter().map(|(pattern, _)| pattern.as_str());
        let set = if patterns.len() <= TRIED_SINGLY_MAX {
            None
        } else if before.patterns.iter().map(|(pattern, _)| pattern.as_str()).eq(texts()) {
            before.set.clone()
        } else {
            let mut set = RegexSetBuilder::new(texts());
            set.size_limit(PATTERN_SET_BYTES_MAX).dfa_size_limit(PATTERN_MEMORY_BYTES_MAX);
            set.build().ok().map(Arc::new)
        };
        Self { exact, patterns, set }
    }

    /// Finds the entry that serves `name`: the exact key, else the first pattern that matches.
    ///
    /// # Errors
    /// When there is none, or it is switched off.
    pub fn lookup(&self, name: &str) -> Result<&Arc<PathSettings>, PathError> {
        let found = match self.exact.get(name) {
            Some(found) => found,
            None => {
                check_name(name).map_err(|rule| PathError::InvalidName(rule, name.to_owned()))?;
                self.first_match(name).ok_or_else(|| PathError::NotConfigured(name.to_owned()))?
            }
        };
        if found.enabled { Ok(found) } else { Err(PathError::Disabled(name.to_owned())) }
    }

    fn first_match(&self, name: &str) -> Option<&Arc<PathSettings>> {
        let index = match &self.set {
            // The matches of a set come in the order of its patterns.
            Some(set) => set.matches(name).iter().next(),
            None => self.patterns.iter().position(|(pattern, _)| pattern.is_match(name)),
        };
        self.patterns.get(index?).map(|(_, path)| path)
    }

    /// The entry whose key is `name`, switched off or not.
    pub fn exact_entry(&self, name: &str) -> Option<&Arc<PathSettings>> {
        self.exact.get(name)
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
            active_max: None,
            active: Quota::default(),
            enabled: true,
            demand: None,
            fallback: None,
            hls_always_remux: None,
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

    #[test]
    fn of_many_patterns_the_first_that_matches_is_taken() {
        let patterns = |last: &str| {
            let mut patterns: Vec<_> = (0..1000)
                .map(|n| (Regex::new(&format!("^cam{n}_(.+)$")).unwrap(), entry(&format!("~cam{n}"))))
                .collect();
            patterns.push((Regex::new("_x$").unwrap(), entry("~x")));
            patterns.push((Regex::new(last).unwrap(), entry("all_others")));
            patterns
        };
        let table = PathTable::new((0..100).map(|n| entry(&format!("p{n}"))), patterns("^.*$"));
        assert!(table.set.is_some());
        for (name, key) in [
            ("p7", "p7"),
            ("cam7_x", "~cam7"),
            ("cam999_y", "~cam999"),
            ("y_x", "~x"),
            ("cam7", "all_others"),
        ] {
            assert_eq!(&*table.lookup(name).unwrap().conf_name, key, "{name}");
        }
        let same = PathTable::succeeding(&table, [entry("new")], patterns("^.*$"));
        assert!(Arc::ptr_eq(same.set.as_ref().unwrap(), table.set.as_ref().unwrap()));
        assert_eq!(&*same.lookup("p7").unwrap().conf_name, "all_others");
        let other = PathTable::succeeding(&table, [], patterns("^none$"));
        assert!(matches!(other.lookup("p7"), Err(PathError::NotConfigured(_))));
    }

    #[test]
    fn an_entry_that_is_off_is_found_and_refused() {
        let off = PathSettings { enabled: false, ..PathSettings::clone(&entry("cam")) };
        let table = PathTable::new([Arc::new(off)], vec![(Regex::new("^.*$").unwrap(), entry("all_others"))]);
        assert_eq!(table.lookup("cam").unwrap_err().to_string(), "path 'cam' is disabled");
        assert!(table.lookup("other").is_ok());
    }
}
