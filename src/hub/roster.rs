//! What shards tell the control plane: who is connected, what is live, and counters that both can see.
//!
//! A shard reports changes as [`News`], in order, through its mailbox. Counters are not reported: each is written by
//! one shard only, without a locked instruction, and may be read at any time.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use corecast_media::codec::props::CodecProps;
use uuid::Uuid;

/// A number with one writer and any number of readers.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// For the one writer.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// For the one writer: not atomic as a whole, and cheaper for it.
    pub fn add(&self, more: u64) {
        self.set(self.get().wrapping_add(more));
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The name of one of the two RTSP servers, as logs have it: the plain one, or that of connections over TLS.
pub fn rtsp_server(encrypted: bool) -> &'static str {
    if encrypted { "RTSPS" } else { "RTSP" }
}

/// What went over a TCP connection, bytes; over TLS, those inside it.
#[derive(Debug, Default)]
pub struct ConnTraffic {
    pub inbound_bytes: Counter,
    pub outbound_bytes: Counter,
}

/// What an RTSP session moved; brought up to date once a second and when the session ends.
#[derive(Debug, Default)]
pub struct SessionTraffic {
    pub inbound_bytes: Counter,
    pub inbound_rtp_packets: Counter,
    pub inbound_rtp_packets_lost: Counter,
    pub inbound_rtp_packets_in_error: Counter,
    /// Interarrival jitter (RFC 3550 §6.4.1) in thousandths of a timestamp unit.
    pub inbound_rtp_jitter_milli: Counter,
    pub inbound_rtcp_packets: Counter,
    pub inbound_rtcp_packets_in_error: Counter,
    pub outbound_bytes: Counter,
    pub outbound_rtp_packets: Counter,
    /// As the reader's receiver reports tell it.
    pub outbound_rtp_packets_reported_lost: Counter,
    /// Skipped because the reader was too slow.
    pub outbound_rtp_packets_discarded: Counter,
    pub outbound_rtcp_packets: Counter,
}

/// What an HLS muxer made and gave out.
#[derive(Debug, Default)]
pub struct HlsMuxerTraffic {
    /// Bytes of answers to all viewers together.
    pub outbound_bytes: Counter,
    /// Access units that were left out: damaged, or of no use without others.
    pub outbound_frames_discarded: Counter,
    /// When the last request came, milliseconds since the Unix epoch.
    pub last_request_unix_ms: Counter,
    /// Playlists that were written out; a viewer more costs none.
    pub playlists_rendered: Counter,
}

/// What an HLS viewer was sent.
#[derive(Debug, Default)]
pub struct HlsSessionTraffic {
    pub outbound_bytes: Counter,
}

/// What one publication moved, from its beginning on.
#[derive(Debug, Default)]
pub struct StreamTraffic {
    pub inbound_bytes: Counter,
    /// To all readers together.
    pub outbound_bytes: Counter,
    pub inbound_frames_in_error: Counter,
    /// Those whose numbers are missing.
    pub inbound_rtp_packets_lost: Counter,
    /// Memory of its ring, bytes.
    pub ring_bytes: Counter,
}

/// What a session does (contract §2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    Idle,
    Read,
    Publish,
}

/// How a session's media travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// The part of a session that changes with its requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionFacts {
    pub state: SessionState,
    /// Empty until a request named one.
    pub path: Arc<str>,
    /// Query of the URL, without `?`.
    pub query: String,
    /// Who authenticated; empty when nobody had to.
    pub user: String,
    pub user_agent: String,
    pub transport: Option<Transport>,
    /// The connection it came on, while that is there.
    pub conn: Option<Uuid>,
}

/// Who brings a stream in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// An RTSP session that publishes.
    RtspSession(Uuid),
    /// The same over TLS.
    RtspsSession(Uuid),
    /// A source that is pulled over RTSP.
    RtspSource,
    /// The built-in camera.
    Demo,
}

/// What a source that is pulled is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceState {
    /// Nobody wants it.
    Stopped,
    /// It is being reached, or waited for before the next attempt.
    Connecting,
    /// Media flows from it.
    Running,
}

impl SourceState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Connecting => "connecting",
            Self::Running => "running",
        }
    }
}

/// A track as the API shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct TrackFacts {
    pub codec: &'static str,
    pub props: CodecProps,
}

/// Why a reader or a publisher was turned away, for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    /// `maxReaders` of the path.
    MaxReaders,
    /// `maxActive` of the entry.
    MaxActive,
    /// `engine.maxStreams`.
    MaxStreams,
    /// `engine.maxReaders`.
    EngineMaxReaders,
}

/// What became of a reader that could not keep up, for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Slowness {
    /// It lost its place and went on at a keyframe.
    Skipped,
    /// It took nothing within `writeTimeout` and was closed.
    Closed,
}

/// One change on a shard. Per connection, session and path in the order in which things happened.
#[derive(Debug, Clone)]
pub enum News {
    ConnOpened {
        id: Uuid,
        created: SystemTime,
        remote: SocketAddr,
        encrypted: bool,
        traffic: Arc<ConnTraffic>,
    },
    ConnClosed {
        id: Uuid,
        reason: String,
    },
    SessionOpened {
        id: Uuid,
        created: SystemTime,
        remote: SocketAddr,
        encrypted: bool,
        traffic: Arc<SessionTraffic>,
    },
    SessionChanged {
        id: Uuid,
        facts: SessionFacts,
    },
    SessionClosed {
        id: Uuid,
        reason: String,
    },
    /// A publication begins; readers find it from now on.
    StreamUp {
        path: Arc<str>,
        at: SystemTime,
        origin: Origin,
        query: String,
        tracks: Vec<TrackFacts>,
        traffic: Arc<StreamTraffic>,
    },
    /// More is known of its tracks: a picture size, for one.
    StreamTracks {
        path: Arc<str>,
        tracks: Vec<TrackFacts>,
    },
    StreamDown {
        path: Arc<str>,
        reason: String,
    },
    /// Somebody wants a path that is brought to life by that; `query` is theirs. It lasts until [`News::DemandEnded`].
    DemandBegan {
        path: Arc<str>,
        query: String,
    },
    DemandEnded {
        path: Arc<str>,
        reason: String,
    },
    /// A source that is pulled does something else now. `error` says why the last attempt came to nothing.
    SourceChanged {
        path: Arc<str>,
        state: SourceState,
        error: Option<String>,
    },
    /// A path's stream is being packaged; `by` is who asked for it first, if anybody had to.
    HlsMuxerOpened {
        path: Arc<str>,
        created: SystemTime,
        by: Option<SocketAddr>,
        traffic: Arc<HlsMuxerTraffic>,
    },
    HlsMuxerClosed {
        path: Arc<str>,
        reason: String,
    },
    /// A viewer; it counts as a reader of the path.
    HlsSessionOpened {
        id: Uuid,
        created: SystemTime,
        remote: SocketAddr,
        path: Arc<str>,
        /// Of its first request, without `?`.
        query: String,
        user: String,
        user_agent: String,
        /// Stands for all viewers behind a content delivery network.
        is_cdn: bool,
        traffic: Arc<HlsSessionTraffic>,
    },
    HlsSessionClosed {
        id: Uuid,
        reason: String,
    },
    /// `behind_ms` and `packets` that were skipped, both zero for a reader that was closed.
    SlowReader {
        session: Uuid,
        path: Arc<str>,
        what: Slowness,
        behind_ms: u64,
        packets: u64,
    },
    Refused {
        path: Arc<str>,
        remote: SocketAddr,
        why: Refusal,
    },
}
