//! One live publication: its bytes in a ring, and the access units that lie in it.
//!
//! The bytes are interleaved-framed packets (`$ channel length packet`, RFC 2326 §10.12), exactly as readers get
//! them: track `n` on channels `2n` (RTP) and `2n + 1` (RTCP). They become visible to readers up to
//! [`Stream::flushed`], which moves by the flush rule: at the end of an access unit, or when a part of one has
//! grown large or has waited long.

use std::{
    collections::VecDeque,
    io,
    ops::Range,
    time::{Duration, Instant},
};

use corecast_fanout::ring::ByteRing;

/// The ring a stream starts with, bytes; it grows to hold a GOP.
const RING_BYTES_MIN: usize = 256 * 1024;
/// The ring holds at least this much time, so that a reader may stumble without losing its place.
const HISTORY_MIN: Duration = Duration::from_secs(1);
/// A stream without a key unit for this long is taken to have none (gradual refresh): readers start anywhere.
const KEY_WAIT_MAX: Duration = Duration::from_secs(10);
/// Distances between key units that are remembered.
const KEY_DISTANCES: usize = 8;
/// Key units that are further apart are so by a jump of the clock, RTP ticks.
const KEY_DISTANCE_MAX: u32 = 60 * 90_000;
/// Bound on the index of access units, for streams of many tiny ones.
const UNITS_MAX: usize = 16_384;

/// How a stream keeps and releases its bytes; from the `engine:` settings.
#[derive(Debug, Clone, Copy)]
pub struct StreamLimits {
    /// See [`crate::settings::EngineSettings::flush_bytes`].
    pub flush_bytes: usize,
    /// See [`crate::settings::EngineSettings::flush_after`].
    pub flush_after: Duration,
    /// See [`crate::settings::EngineSettings::ring_bytes_max`].
    pub ring_bytes_max: usize,
}

/// What the stream needs to know of a packet that lies at the front of its pending bytes.
#[derive(Debug, Clone, Copy)]
pub struct PacketFacts {
    /// Its length with the interleaved header, bytes.
    pub framed_bytes: usize,
    /// `None` for RTCP and for tracks that do not lead.
    pub lead: Option<LeadFacts>,
}

/// Facts of a packet of the leading track: the one whose access units pace the stream.
#[derive(Debug, Clone, Copy)]
pub struct LeadFacts {
    /// RTP time stamp, as on the wire.
    pub timestamp_wrapped: u32,
    /// The marker bit: last packet of its access unit.
    pub marker: bool,
    /// It carries the start of a picture that needs no other.
    pub key: bool,
}

/// An access unit of the leading track, with what else arrived during it.
#[derive(Debug, Clone, Copy)]
struct Unit {
    start: u64,
    arrival: Instant,
    timestamp_wrapped: u32,
    /// Packets of the stream before this unit.
    packets_before: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Stream {
    ring: ByteRing,
    limits: StreamLimits,
    /// No track paces it: every packet is a unit (audio only).
    leaderless: bool,
    units: VecDeque<Unit>,
    /// The last unit in `units` has not ended yet.
    unit_open: bool,
    /// Where the newest key unit starts, while the ring still holds it.
    key_start: Option<u64>,
    /// Everything before this may go to readers once it is flushed: no unit of the leading track is cut by it.
    whole_until: u64,
    flushed: u64,
    /// Arrival of the oldest packet that is not flushed.
    unflushed_since: Option<Instant>,
    packets: u64,
    /// When the newest key unit arrived, else the first packet.
    key_arrival: Option<Instant>,
    last_arrival: Option<Instant>,
    /// RTP time of the newest key unit, and how far apart the ones before were, RTP ticks; zero for none.
    key_timestamp_wrapped: Option<u32>,
    key_distances: [u32; KEY_DISTANCES],
    /// The GOP outgrew the largest ring: to be said once.
    gop_too_large: Said,
}

/// Something that the operator is told once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Never,
    Due,
    Done,
}

impl Stream {
    /// A stream paced by the access units of a leading track, or by every packet when `leaderless`.
    pub fn new(limits: StreamLimits, leaderless: bool) -> io::Result<Self> {
        Ok(Self {
            ring: ByteRing::new(RING_BYTES_MIN)?,
            limits,
            leaderless,
            units: VecDeque::new(),
            unit_open: false,
            key_start: None,
            whole_until: 0,
            flushed: 0,
            unflushed_since: None,
            packets: 0,
            key_arrival: None,
            last_arrival: None,
            key_timestamp_wrapped: None,
            key_distances: [0; KEY_DISTANCES],
            gop_too_large: Said::Never,
        })
    }

    /// Room for received bytes, contiguous, after those that are pending. Gives up old bytes, but grows first when
    /// they belong to the current GOP.
    pub fn spare(&mut self, want: usize) -> &mut [u8] {
        self.make_room(want);
        self.ring.spare(want)
    }

    /// Declares `count` bytes of [`Self::spare`] received.
    pub fn fill(&mut self, count: usize) {
        self.ring.fill(count);
    }

    /// Received bytes that no packet was taken from yet.
    pub fn pending(&self) -> &[u8] {
        self.ring.pending()
    }

    /// The same, to close gaps where something else than media was received.
    pub fn pending_mut(&mut self) -> &mut [u8] {
        self.ring.pending_mut()
    }

    /// Forgets the last `count` pending bytes.
    pub fn shrink_pending(&mut self, count: usize) {
        self.ring.shrink_pending(count);
    }

    /// Takes the packet at the front of the pending bytes into the stream.
    pub fn push(&mut self, facts: PacketFacts, now: Instant) {
        let start = self.ring.head();
        self.ring.commit(facts.framed_bytes);
        self.note(facts, start, now);
    }

    /// Copies a packet in, framed as `channel`. For packets that were not received in place; nothing may be
    /// pending.
    pub fn append(&mut self, channel: u8, packet: &[u8], facts: PacketFacts, now: Instant) {
        self.make_room(facts.framed_bytes);
        let start = self.ring.head();
        let length = u16::try_from(packet.len()).unwrap_or(u16::MAX);
        let [high, low] = length.to_be_bytes();
        self.ring.append(&[b'$', channel, high, low]);
        self.ring.append(&packet[..usize::from(length)]);
        self.note(facts, start, now);
    }

    fn note(&mut self, facts: PacketFacts, start: u64, now: Instant) {
        let packets_before = self.packets;
        self.packets += 1;
        self.unflushed_since.get_or_insert(now);
        self.key_arrival.get_or_insert(now);
        self.last_arrival = Some(now);
        match facts.lead {
            Some(lead) => {
                let begins = !self.unit_open
                    || self.units.back().is_none_or(|unit| unit.timestamp_wrapped != lead.timestamp_wrapped);
                if begins {
                    if self.unit_open {
                        // The end that the marker should have told.
                        self.whole_until = start;
                    }
                    self.begin_unit(start, lead, packets_before, now);
                }
                if lead.key
                    && let Some(unit) = self.units.back()
                    && self.key_start != Some(unit.start)
                {
                    self.key_start = Some(unit.start);
                    self.key_arrival = Some(now);
                    self.note_key_distance(lead.timestamp_wrapped);
                    self.forget_overwritten();
                    self.keep_history(now);
                }
                if lead.marker {
                    self.unit_open = false;
                    self.whole_until = self.ring.head();
                }
            }
            None if self.leaderless => {
                let lead = LeadFacts { timestamp_wrapped: 0, marker: true, key: true };
                self.begin_unit(start, lead, packets_before, now);
                (self.unit_open, self.whole_until) = (false, self.ring.head());
            }
            // Rides along: with the unit it lies in, or with the last one that ended.
            None if !self.unit_open => self.whole_until = self.ring.head(),
            None => {}
        }
    }

    fn begin_unit(&mut self, start: u64, lead: LeadFacts, packets_before: u64, arrival: Instant) {
        // Before the index grows: what it can forget, and whether the ring is what is too small.
        if self.units.len() == self.units.capacity() {
            self.forget_overwritten();
            self.keep_history(arrival);
            if self.units.len() >= UNITS_MAX {
                self.units.pop_front();
            }
        }
        let timestamp_wrapped = lead.timestamp_wrapped;
        self.units.push_back(Unit { start, arrival, timestamp_wrapped, packets_before });
        self.unit_open = true;
    }

    fn note_key_distance(&mut self, timestamp_wrapped: u32) {
        let before = self.key_timestamp_wrapped.replace(timestamp_wrapped);
        let distance = before.map_or(0, |before| timestamp_wrapped.wrapping_sub(before));
        if (1..=KEY_DISTANCE_MAX).contains(&distance) {
            self.key_distances.rotate_right(1);
            self.key_distances[0] = distance;
        }
    }

    fn forget_overwritten(&mut self) {
        let kept_from = self.units.partition_point(|unit| unit.start < self.ring.floor());
        self.units.drain(..kept_from);
    }

    /// Grows the ring where `want` more bytes would overwrite the current GOP.
    fn make_room(&mut self, want: usize) {
        let Some(key_start) = self.key_start else { return };
        let end = self.ring.head() + (self.ring.pending().len() + want) as u64;
        while key_start < end.saturating_sub(self.ring.capacity() as u64) {
            if !self.double_ring() {
                self.key_start = None;
                if self.gop_too_large == Said::Never {
                    self.gop_too_large = Said::Due;
                }
                return;
            }
        }
    }

    /// Grows a full ring that holds too little time. Asked now and then: at key units, and when the index is full.
    fn keep_history(&mut self, now: Instant) {
        let overwrites = self.ring.floor() > 0;
        let oldest = self.units.front().map(|unit| now.duration_since(unit.arrival));
        if overwrites && oldest.is_some_and(|age| age < HISTORY_MIN) {
            self.double_ring();
        }
    }

    fn double_ring(&mut self) -> bool {
        let capacity = 2 * self.ring.capacity();
        capacity <= self.limits.ring_bytes_max && self.ring.grow(capacity).is_ok()
    }

    /// Applies the flush rule: true when readers may have more than before.
    pub fn flush(&mut self, now: Instant) -> bool {
        let head = self.ring.head();
        let overdue = self.unflushed_since.is_some_and(|since| now >= since + self.limits.flush_after);
        let large = head - self.flushed >= self.limits.flush_bytes as u64;
        let until = if overdue || large { head } else { self.whole_until };
        if until <= self.flushed {
            return false;
        }
        self.flushed = until;
        self.unflushed_since = (until < head).then_some(now);
        true
    }

    /// When [`Self::flush`] has to be called although nothing more arrives.
    pub fn flush_deadline(&self) -> Option<Instant> {
        self.unflushed_since.map(|since| since + self.limits.flush_after)
    }

    /// When the oldest packet arrived that [`Self::flush`] has not released yet.
    pub fn unflushed_since(&self) -> Option<Instant> {
        self.unflushed_since
    }

    /// From now on other limits hold. A ring that is larger than allowed by them stays as it is.
    pub fn set_limits(&mut self, limits: StreamLimits) {
        self.limits = limits;
    }

    /// Position after the newest packet, whether or not readers may have it yet.
    pub fn head(&self) -> u64 {
        self.ring.head()
    }

    /// Position up to which readers may have bytes; always between packets.
    pub fn flushed(&self) -> u64 {
        self.flushed
    }

    /// Where the newest key unit starts, if the ring still holds it.
    pub fn newest_key(&self) -> Option<u64> {
        self.key_start.filter(|&start| start >= self.ring.floor())
    }

    /// The longest of the last few distances between key units, RTP ticks of the leading track. `None` before the second
    /// key unit.
    pub fn key_distance(&self) -> Option<u32> {
        self.key_distances.iter().copied().max().filter(|&distance| distance > 0)
    }

    /// The stream goes on without key units: nobody should wait for one.
    pub fn lacks_keys(&self) -> bool {
        let gone =
            self.last_arrival.zip(self.key_arrival).map(|(last, key)| last.saturating_duration_since(key));
        gone.is_some_and(|gone| gone > KEY_WAIT_MAX)
    }

    /// The bytes at `range`, or `None` when they are overwritten.
    pub fn get(&self, range: Range<u64>) -> Option<&[u8]> {
        self.ring.get(range)
    }

    /// Position of the oldest byte still held.
    pub fn floor(&self) -> u64 {
        self.ring.floor()
    }

    /// How long ago the bytes at `position` arrived; the age of the oldest ones held when they are gone already.
    pub fn age(&self, position: u64, now: Instant) -> Duration {
        if position >= self.ring.head() {
            return Duration::ZERO;
        }
        let after = self.units.partition_point(|unit| unit.start <= position);
        let unit = self.units.get(after.saturating_sub(1));
        unit.map_or(Duration::ZERO, |unit| now.duration_since(unit.arrival))
    }

    /// The first start of an access unit at or after `position`; what is flushed ends one too.
    pub fn unit_boundary(&self, position: u64) -> u64 {
        let next = self.units.partition_point(|unit| unit.start < position);
        self.units.get(next).map_or(self.flushed, |unit| unit.start.min(self.flushed)).max(position)
    }

    /// Packets that were in the stream before the unit at `position`.
    pub fn packets_before(&self, position: u64) -> u64 {
        let after = self.units.partition_point(|unit| unit.start <= position);
        match self.units.get(after.saturating_sub(1)) {
            Some(unit) if position < self.ring.head() => unit.packets_before,
            _ => self.packets,
        }
    }

    /// Packets taken in so far, RTP and RTCP.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Nothing is received but not yet taken, so that [`Self::append`] is allowed.
    pub fn is_between_packets(&self) -> bool {
        self.ring.pending().is_empty()
    }

    /// Bytes the ring can hold.
    pub fn ring_bytes(&self) -> usize {
        self.ring.capacity()
    }

    /// True once after the current GOP outgrew the largest ring, so that new readers must wait for a keyframe.
    pub fn take_gop_too_large(&mut self) -> bool {
        let due = self.gop_too_large == Said::Due;
        if due {
            self.gop_too_large = Said::Done;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::test_origin;

    const LIMITS: StreamLimits = StreamLimits {
        flush_bytes: 64 * 1024,
        flush_after: Duration::from_millis(5),
        ring_bytes_max: 1 << 20,
    };

    fn lead(timestamp_wrapped: u32, marker: bool, key: bool) -> Option<LeadFacts> {
        Some(LeadFacts { timestamp_wrapped, marker, key })
    }

    fn push(stream: &mut Stream, bytes: usize, lead: Option<LeadFacts>, now: Instant) {
        stream.append(0, &vec![0xab; bytes - 4], PacketFacts { framed_bytes: bytes, lead }, now);
    }

    #[test]
    fn bytes_are_released_at_the_end_of_an_access_unit() {
        let (mut stream, now) = (Stream::new(LIMITS, false).unwrap(), test_origin());
        push(&mut stream, 100, lead(1, false, true), now);
        assert!(!stream.flush(now));
        push(&mut stream, 50, lead(1, true, false), now);
        assert!(stream.flush(now));
        assert_eq!(stream.flushed(), 150);
        assert_eq!(stream.newest_key(), Some(0));
        assert_eq!(stream.get(0..4), Some(&[b'$', 0, 0, 96][..]));
    }

    #[test]
    fn a_new_time_stamp_ends_a_unit_whose_marker_never_came() {
        let (mut stream, now) = (Stream::new(LIMITS, false).unwrap(), test_origin());
        push(&mut stream, 100, lead(1, false, true), now);
        push(&mut stream, 100, lead(2, false, false), now);
        assert!(stream.flush(now));
        assert_eq!(stream.flushed(), 100);
    }

    #[test]
    fn audio_between_units_rides_along_but_never_waits_longer_than_allowed() {
        let (mut stream, now) = (Stream::new(LIMITS, false).unwrap(), test_origin());
        push(&mut stream, 100, lead(1, true, true), now);
        push(&mut stream, 20, None, now);
        assert!(stream.flush(now));
        assert_eq!(stream.flushed(), 120);
        push(&mut stream, 100, lead(2, false, false), now);
        push(&mut stream, 20, None, now);
        assert!(!stream.flush(now));
        assert_eq!(stream.flush_deadline(), Some(now + LIMITS.flush_after));
        assert!(stream.flush(now + LIMITS.flush_after));
        assert_eq!(stream.flushed(), 240);
        assert_eq!(stream.flush_deadline(), None);
    }

    #[test]
    fn a_large_part_of_a_unit_is_not_held_back() {
        let (mut stream, now) = (Stream::new(LIMITS, false).unwrap(), test_origin());
        for _ in 0..64 {
            push(&mut stream, 1024, lead(1, false, true), now);
        }
        assert!(stream.flush(now));
        assert_eq!(stream.flushed(), 64 * 1024);
    }

    #[test]
    fn the_ring_grows_to_hold_the_gop_and_gives_up_at_its_bound() {
        let (mut stream, mut now) = (Stream::new(LIMITS, false).unwrap(), test_origin());
        push(&mut stream, 10_000, lead(0, true, true), now);
        for frame in 1..=100 {
            now += Duration::from_millis(40);
            push(&mut stream, 8_000, lead(frame, true, false), now);
            assert_eq!(stream.newest_key(), Some(0), "frame {frame}");
        }
        assert_eq!(stream.ring_bytes(), 1 << 20);
        for frame in 101..=200 {
            now += Duration::from_millis(40);
            push(&mut stream, 8_000, lead(frame, true, false), now);
        }
        assert_eq!(stream.newest_key(), None);
        assert!(stream.take_gop_too_large());
        assert!(!stream.take_gop_too_large());
        push(&mut stream, 8_000, lead(201, true, true), now);
        assert!(stream.newest_key().is_some());
    }

    #[test]
    fn the_ring_holds_a_second_even_of_keyframes_only() {
        let (mut stream, mut now) = (Stream::new(LIMITS, false).unwrap(), test_origin());
        for frame in 0..100 {
            now += Duration::from_millis(40);
            push(&mut stream, 20_000, lead(frame, true, true), now);
        }
        assert!(stream.age(stream.floor(), now) >= HISTORY_MIN);
        assert_eq!(stream.ring_bytes(), 1 << 20);
    }

    #[test]
    fn a_stream_without_a_leader_releases_every_packet_and_starts_anywhere() {
        let (mut stream, now) = (Stream::new(LIMITS, true).unwrap(), test_origin());
        push(&mut stream, 20, None, now);
        assert!(stream.flush(now));
        assert_eq!((stream.flushed(), stream.newest_key()), (20, None));
    }

    #[test]
    fn the_distance_of_keys_is_the_longest_of_late_and_no_jump_of_the_clock() {
        let (mut stream, now) = (Stream::new(LIMITS, false).unwrap(), test_origin());
        push(&mut stream, 100, lead(0, true, true), now);
        assert_eq!(stream.key_distance(), None);
        for timestamp in [90_000, 270_000, 360_000, 0x8000_0000, 0x8000_0000 + 90_000] {
            push(&mut stream, 100, lead(timestamp, true, true), now);
        }
        assert_eq!(stream.key_distance(), Some(180_000));
        for key in 1..=8 {
            push(&mut stream, 100, lead(0x8000_0000 + 90_000 * (key + 1), true, true), now);
        }
        assert_eq!(stream.key_distance(), Some(90_000));
    }

    #[test]
    fn age_and_packet_counts_are_found_by_position() {
        let (mut stream, t0) = (Stream::new(LIMITS, false).unwrap(), test_origin());
        for frame in 0..10_u32 {
            push(&mut stream, 100, lead(frame, true, frame == 0), t0 + Duration::from_millis(40) * frame);
        }
        let now = t0 + Duration::from_millis(400);
        assert_eq!(stream.age(350, now), Duration::from_millis(400 - 120));
        assert_eq!(stream.packets_before(350), 3);
        assert_eq!(stream.age(1000, now), Duration::ZERO);
        assert_eq!(stream.packets_before(1000), 10);
        stream.flush(now);
        let boundaries = [0, 1, 100, 101, 901, 1000].map(|position| stream.unit_boundary(position));
        assert_eq!(boundaries, [0, 100, 100, 200, 1000, 1000]);
    }
}
