//! One reader's place in a stream: a position, and the rule for what happens when it falls behind.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use crate::stream::Stream;

/// Where a reader stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Has everything before this position; always between packets.
    At(u64),
    /// Gets nothing before the next key unit, which starts after this position.
    AwaitingKey { after: u64 },
}

/// See the module. Costs nothing while its reader is stuck.
#[derive(Debug, Clone, Copy)]
pub struct Cursor {
    place: Place,
    /// Set while the reader is stuck: what was true of its place when the stream still knew.
    stuck: Option<Stuck>,
}

#[derive(Debug, Clone, Copy)]
struct Stuck {
    /// When the bytes at the place arrived.
    arrival: Instant,
    /// Packets of the stream before the place.
    packets_before: u64,
}

/// A reader fell so far behind that it lost packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lapse {
    /// How far behind it was; at least this for a reader that was never seen to be stuck.
    pub behind: Duration,
    /// Packets it will never get.
    pub packets: u64,
}

impl Cursor {
    /// The place of a new reader: at the newest key unit when `cached`, else at the next one to come. A stream
    /// that has no notion of keys starts at once.
    pub fn join(stream: &Stream, cached: bool, has_keys: bool) -> Self {
        let place = match stream.newest_key() {
            Some(key) if cached => Place::At(key),
            _ if has_keys && !stream.lacks_keys() => Place::AwaitingKey { after: stream.flushed() },
            _ => Place::At(stream.flushed()),
        };
        Self { place, stuck: None }
    }

    /// The first position it will get, when that is known.
    pub fn position(&self) -> Option<u64> {
        match self.place {
            Place::At(position) => Some(position),
            Place::AwaitingKey { .. } => None,
        }
    }

    /// What may be sent next: flushed, not yet sent, at most `bytes_max` unless a packet is longer.
    ///
    /// Ends between packets only when it ends at [`Stream::flushed`]; what was cut is known to the caller.
    pub fn due(&mut self, stream: &Stream, bytes_max: u64) -> Option<Range<u64>> {
        if let Place::AwaitingKey { after } = self.place {
            let key = stream.newest_key().filter(|&key| key >= after && key < stream.flushed());
            let live = stream.lacks_keys().then(|| stream.flushed());
            self.place = Place::At(key.or(live)?);
        }
        let Place::At(start) = self.place else { return None };
        (start < stream.flushed()).then(|| start..stream.flushed().min(start.saturating_add(bytes_max)))
    }

    /// Everything before `position` is sent.
    pub fn advance(&mut self, position: u64) {
        self.place = Place::At(position);
    }

    /// The reader takes nothing any more: notes what a later [`Self::catch_up`] has to tell.
    pub fn stick(&mut self, stream: &Stream, now: Instant) {
        if let (None, Place::At(position)) = (self.stuck, self.place) {
            let arrival = now.checked_sub(stream.age(position, now)).unwrap_or(now);
            self.stuck = Some(Stuck { arrival, packets_before: stream.packets_before(position) });
        }
    }

    /// Whether the reader has kept up: checked when it can take bytes again. A reader that is lapped, or further
    /// behind than `lag_max` while a newer key unit is there, jumps to that.
    pub fn catch_up(&mut self, stream: &Stream, now: Instant, lag_max: Duration) -> Option<Lapse> {
        let stuck = self.stuck.take();
        let Place::At(position) = self.place else { return None };
        let behind =
            stuck.map_or_else(|| stream.age(position, now), |stuck| now.duration_since(stuck.arrival));
        let lapped = position < stream.floor();
        let newer_key = stream.newest_key().filter(|&key| key > position);
        let jump_to = match newer_key {
            Some(key) if lapped || behind > lag_max => Place::At(key),
            _ if lapped => Place::AwaitingKey { after: stream.flushed() },
            _ => return None,
        };
        self.place = jump_to;
        let resumes_at = self.position().unwrap_or(stream.flushed());
        let had = stuck.map_or_else(|| stream.packets_before(position), |stuck| stuck.packets_before);
        let packets = stream.packets_before(resumes_at).saturating_sub(had);
        Some(Lapse { behind, packets })
    }
}

/// The one place where this crate's tests read the clock.
#[cfg(test)]
#[allow(clippy::disallowed_methods)]
pub(crate) fn test_origin() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::{LeadFacts, PacketFacts, StreamLimits};

    const FRAME: u64 = 10_000;
    const LAG: Duration = Duration::from_secs(10);

    /// 25 frames a second, a key unit every `gop` frames, in a ring of 256 KiB that may not grow.
    struct Camera {
        stream: Stream,
        now: Instant,
        frames: u32,
        gop: u32,
    }

    impl Camera {
        fn new(gop: u32) -> Self {
            let limits = StreamLimits {
                flush_bytes: 1 << 16,
                flush_after: Duration::from_millis(5),
                ring_bytes_max: 1 << 18,
            };
            Self { stream: Stream::new(limits, false).unwrap(), now: test_origin(), frames: 0, gop }
        }

        fn run(&mut self, frames: u32) {
            for _ in 0..frames {
                let lead = LeadFacts {
                    timestamp_wrapped: self.frames,
                    marker: true,
                    key: self.frames.is_multiple_of(self.gop),
                };
                let facts = PacketFacts { framed_bytes: FRAME as usize, lead: Some(lead) };
                self.stream.append(0, &[0; FRAME as usize - 4], facts, self.now);
                self.stream.flush(self.now);
                self.frames += 1;
                self.now += Duration::from_millis(40);
            }
        }
    }

    #[test]
    fn a_new_reader_starts_at_the_newest_key_unit() {
        let mut camera = Camera::new(10);
        camera.run(15);
        let mut cursor = Cursor::join(&camera.stream, true, true);
        assert_eq!(cursor.position(), Some(10 * FRAME));
        assert_eq!(cursor.due(&camera.stream, u64::MAX / 2), Some(10 * FRAME..15 * FRAME));
        cursor.advance(15 * FRAME);
        assert_eq!(cursor.due(&camera.stream, u64::MAX / 2), None);
    }

    #[test]
    fn without_the_cache_it_waits_for_the_next_key_unit() {
        let mut camera = Camera::new(10);
        camera.run(15);
        let mut cursor = Cursor::join(&camera.stream, false, true);
        assert_eq!((cursor.position(), cursor.due(&camera.stream, 1 << 30)), (None, None));
        camera.run(4);
        assert_eq!(cursor.due(&camera.stream, 1 << 30), None);
        camera.run(2);
        assert_eq!(cursor.due(&camera.stream, 1 << 30), Some(20 * FRAME..21 * FRAME));
    }

    #[test]
    fn a_lapped_reader_jumps_to_the_newest_key_unit_and_knows_what_it_lost() {
        let mut camera = Camera::new(10);
        camera.run(1);
        let mut cursor = Cursor::join(&camera.stream, true, true);
        cursor.advance(FRAME);
        camera.run(1);
        cursor.stick(&camera.stream, camera.now);
        camera.run(60);
        assert!(camera.stream.floor() > FRAME, "the test needs a lapped reader");
        let lapse = cursor.catch_up(&camera.stream, camera.now, LAG).unwrap();
        assert_eq!(cursor.position(), Some(60 * FRAME));
        assert_eq!(lapse, Lapse { behind: Duration::from_millis(61 * 40), packets: 59 });
        assert_eq!(cursor.catch_up(&camera.stream, camera.now, LAG), None);
    }

    #[test]
    fn a_late_reader_jumps_although_its_bytes_are_still_there() {
        let mut camera = Camera::new(10);
        camera.run(1);
        let mut cursor = Cursor::join(&camera.stream, true, true);
        camera.run(20);
        assert_eq!(cursor.catch_up(&camera.stream, camera.now, LAG), None);
        let lapse = cursor.catch_up(&camera.stream, camera.now, Duration::from_millis(500)).unwrap();
        assert_eq!(lapse, Lapse { behind: Duration::from_millis(21 * 40), packets: 20 });
        assert_eq!(cursor.position(), Some(20 * FRAME));
    }

    #[test]
    fn a_lapped_reader_of_a_gop_that_is_not_held_waits_for_the_next_key() {
        let mut camera = Camera::new(1000);
        camera.run(1);
        let mut cursor = Cursor::join(&camera.stream, true, true);
        camera.run(100);
        assert!(cursor.catch_up(&camera.stream, camera.now, LAG).is_some());
        assert_eq!(cursor.due(&camera.stream, 1 << 30), None);
        camera.run(900);
        assert_eq!(cursor.due(&camera.stream, 1 << 30), Some(1000 * FRAME..1001 * FRAME));
    }

    #[test]
    fn a_burst_is_given_out_in_bounded_pieces() {
        let mut camera = Camera::new(10);
        camera.run(8);
        let mut cursor = Cursor::join(&camera.stream, true, true);
        assert_eq!(cursor.due(&camera.stream, 25_000), Some(0..25_000));
    }
}
