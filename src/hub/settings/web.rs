//! The HTTP servers that the shards themselves are: where they listen, whom they believe, what they serve.

use std::{fmt, net::SocketAddr, num::NonZeroUsize, sync::Arc, time::Duration};

use ipnet::IpNet;

use super::PathSettings;

/// What every HTTP server of the shards has (contract §1.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSettings {
    pub address: SocketAddr,
    /// Over TLS only; the certificate is the control plane's affair.
    pub encrypted: bool,
    /// Web pages that may use it from a browser.
    pub allow_origins: Vec<String>,
    /// Peers whose `X-Forwarded-For` and `-Proto` are believed.
    pub trusted_proxies: Vec<IpNet>,
}

/// The HLS server (contract §1.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HlsSettings {
    pub web: WebSettings,
    /// Streams are packaged from their start, and not from the first request for them; see [`Self::remuxes_always`].
    pub always_remux: bool,
    pub variant: HlsVariant,
    /// Segments in a playlist.
    pub segment_count: NonZeroUsize,
    /// A segment ends at the first keyframe after this.
    pub segment_duration: Duration,
    /// A part is at least this long.
    pub part_duration: Duration,
    /// Largest segment, bytes.
    pub segment_bytes_max: u64,
    /// Without a request for this long, what was begun for the first request ends.
    pub muxer_close_after: Duration,
    pub cdn_secret: Option<CdnSecret>,
    pub session_mode: HlsSessionMode,
}

impl HlsSettings {
    /// Whether the streams of `path` are packaged from their start. Streams that come only while somebody wants them are
    /// not, unless their path says so itself: their viewers come one at a time.
    pub fn remuxes_always(&self, path: &PathSettings) -> bool {
        path.hls_always_remux.unwrap_or(self.always_remux && path.demand.is_none())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HlsVariant {
    MpegTs,
    Fmp4,
    LowLatency,
}

/// How a viewer is known from request to request (`hlsSessionMode`, ours).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HlsSessionMode {
    /// By an id in the URLs of its playlists.
    Url,
    /// By a cookie that it is sent to fetch first, and by the URL where it keeps none, as MediaMTX does.
    Cookie,
}

/// What a content delivery network presents instead of credentials (`hlsCDNSecret`). Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct CdnSecret(pub Arc<str>);

impl fmt::Debug for CdnSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CdnSecret(…)")
    }
}
