//! HLS (draft-pantos-hls-rfc8216bis): RTP packets of a stream in, playlists, initialisation sections, segments and
//! parts out. Dry: told the time, asked by name; what is not there yet is answered with what to wait for.
//!
//! One [`Muxer`] serves one path. Its work does not depend on the number of viewers: media is muxed once into shared
//! [`Bytes`], text is rendered once per part, on the first request that wants it.

mod boxes;
pub mod check;
mod clock;
pub mod codec;
mod core;
mod mpegts;
mod muxer;
mod picture;
mod playlist;
mod rendition;
mod request;
mod shape;
mod silence;
mod sound;

#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use corecast_media::Codec;

pub use muxer::{Muxer, MuxerError, Skipped, Totals};
pub use playlist::Text;
pub use rendition::Position;
pub use request::{Answer, Await, Directives, DirectivesError, Encoded, FileKind};

/// What is made of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// Fragmented MP4 with parts.
    LowLatency,
    /// Fragmented MP4, whole segments.
    Fmp4,
    /// MPEG transport stream: H.264 and AAC only.
    MpegTs,
}

/// How a stream is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub variant: Variant,
    /// Complete segments in a playlist, at least; more where three Target Durations need them.
    pub segment_count: usize,
    /// Segments last at least this long, and go on to the next key picture.
    pub segment_duration: Duration,
    /// Parts last about this long: a whole number of pictures that is not less.
    pub part_duration: Duration,
    /// A segment that has more bytes is cut, at a key picture or not.
    pub segment_bytes_max: usize,
    /// Precedes the names of all files: random, so that those of an earlier muxer are never mistaken for this one's.
    pub prefix: String,
    /// Time between key pictures, where it is known. The Target Duration must never change, so it is chosen by it.
    pub key_interval: Option<Duration>,
}

impl Settings {
    /// `EXT-X-TARGETDURATION`, seconds. It must hold for all segments to come (§6.2.1).
    fn target_seconds(&self) -> u32 {
        /// What a source of unknown key interval is given; longer segments are cut without a key picture.
        const UNKNOWN: u32 = 4;
        let wanted = self.segment_duration.as_secs_f64();
        let rounded_up = wanted.ceil() as u32;
        let likely =
            match self.key_interval.map(|interval| interval.as_secs_f64()).filter(|interval| *interval > 0.0)
            {
                Some(interval) => {
                    // Segments are whole groups of pictures; a tenth more, as intervals vary.
                    let groups = ((wanted - 0.05) / interval).ceil().max(1.0);
                    (groups * interval * 1.1).round() as u32
                }
                None => UNKNOWN,
            };
        rounded_up.max(likely).clamp(1, 60)
    }
}

/// When something arrived. A muxer that is made on demand is fed the group of pictures that the ring still holds with
/// the times at which it arrived, not with that of the feeding: dates come of it until the source tells its own time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// From any origin; never goes back.
    pub monotonic: Duration,
    /// Since the Unix epoch.
    pub wall: Duration,
}

/// A response body, to be sent piece by piece as it lies in memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Body(pub Vec<Bytes>);

impl Body {
    /// Bytes of all pieces.
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Bytes> for Body {
    fn from(piece: Bytes) -> Self {
        Self(vec![piece])
    }
}

/// Which video track is taken, most wanted first (contract §5.4).
const VIDEO_PREFERENCE: [Codec; 4] = [Codec::Av1, Codec::Vp9, Codec::H265, Codec::H264];
