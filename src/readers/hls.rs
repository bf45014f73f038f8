//! What feeds an HLS muxer: a place in the stream like any reader's, and the packets behind it.

use std::time::{Duration, Instant};

use corecast_hub::{cursor::Cursor, stream::Stream};
use corecast_packagers::hls::{Arrival, Muxer};
use corecast_proto::rtsp::interleaved::{Frame, next_frame};

use crate::sources::publication::{Now, Plane, Publication, track_of};

/// Bytes that one turn feeds to a muxer that has fallen behind, or has just begun with the cached GOP.
pub const FEED_BYTES_MAX: usize = 256 * 1024;
/// Packets older than this came in another turn, and arrived when their access unit did.
const FRESH: Duration = Duration::from_millis(20);

/// All that is flushed, however much.
const FLUSHED: u64 = u64::MAX / 2;

/// See the module.
#[derive(Debug)]
pub struct HlsReader {
    cursor: Cursor,
    /// Arrival of the newest packet fed so far; the muxer's clock never goes back.
    fed_until: Duration,
}

/// What became of a turn's feeding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fed {
    /// Everything that readers may have.
    All,
    /// There is more for the next turn.
    Some,
}

impl HlsReader {
    /// Begins at the newest key picture that the ring still holds, else at the next one.
    pub fn join(publication: &Publication) -> Self {
        let cursor = Cursor::join(&publication.stream, true, publication.tracks.has_keys());
        Self { cursor, fed_until: Duration::ZERO }
    }

    /// Gives the muxer what was flushed and it has not had, [`FEED_BYTES_MAX`] at most. `origin` is where the muxer's
    /// clock begins. Where the ring has overtaken it, it goes on at the newest key picture.
    pub fn feed(&mut self, stream: &Stream, muxer: &mut Muxer, origin: Instant, now: Now) -> Fed {
        self.cursor.catch_up(stream, now.instant, Duration::MAX);
        let Some(range) = self.cursor.due(stream, FLUSHED) else { return Fed::All };
        let Some(bytes) = stream.get(range.clone()) else { return Fed::All };
        let is_fresh = stream.age(range.start, now.instant) <= FRESH;
        let mut at = 0;
        while at < bytes.len().min(FEED_BYTES_MAX) {
            let Frame::Media { channel, payload, consumed } = next_frame(&bytes[at..]) else { break };
            let age = match is_fresh {
                true => Duration::ZERO,
                false => stream.age(range.start + at as u64, now.instant),
            };
            let monotonic = now.instant.saturating_duration_since(origin).saturating_sub(age);
            self.fed_until = self.fed_until.max(monotonic);
            let arrival = Arrival { monotonic: self.fed_until, wall: now.wall.saturating_sub(age) };
            let packet = &bytes[at..][payload];
            match track_of(channel) {
                (track, Plane::Rtp) => muxer.rtp(track, packet, arrival),
                (track, Plane::Rtcp) => muxer.rtcp(track, packet, arrival),
            }
            at += consumed;
        }
        // What is flushed ends between packets, so that there is always one at the front.
        let end = if at == 0 { range.end } else { range.start + at as u64 };
        self.cursor.advance(end);
        if end < range.end { Fed::Some } else { Fed::All }
    }
}
