//! Puts the packets of one UDP track back in order. Packets that come in order pass straight through.

use std::time::{Duration, Instant};

/// How many packets ahead of the next expected one may be kept: MediaMTX's window.
pub const WINDOW: usize = 64;

/// A sequence number this far from the expected one starts anew.
const JUMP: u16 = 1000;

/// So many late packets in a row, each following the one before, are a source that went back rather than the
/// network.
const LATE_RUN_MAX: u8 = 32;

/// Buffers up to this size stay in their slot; larger ones, which only a hostile or broken source needs, are freed.
const BUFFER_KEPT_BYTES_MAX: usize = 2048;

/// What happened so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Packets handed on after waiting in the window.
    pub reordered: u64,
    /// Sequence numbers given up.
    pub lost: u64,
    /// Packets already waiting or already handed on, or too late: dropped.
    pub late_or_duplicate: u64,
    /// Jumps after which the order began anew.
    pub resyncs: u64,
}

/// The reorder window of one track: at most [`WINDOW`] packets and a given number of bytes, and no packet
/// waits longer than a given time for one before it.
#[derive(Debug)]
pub struct Reorder {
    pub counters: Counters,
    wait: Duration,
    bytes_max: usize,
    expected: Option<u16>,
    /// The packet with sequence number `n` waits in slot `n % WINDOW`.
    slots: Vec<Slot>,
    held: usize,
    held_bytes: usize,
    /// Since when the oldest waiting packet waits: `Some` exactly when `held > 0`.
    waiting_since: Option<Instant>,
    late_run: Option<(u16, u8)>,
}

/// The buffer of a slot is kept when its packet has left.
#[derive(Debug, Default)]
struct Slot {
    packet: Vec<u8>,
    arrival: Option<Instant>,
}

impl Reorder {
    /// `wait`: how long a hole may hold up the packets behind it. `bytes_max`: bytes of waiting packets.
    pub fn new(wait: Duration, bytes_max: usize) -> Self {
        Self {
            counters: Counters::default(),
            wait,
            bytes_max,
            expected: None,
            slots: Vec::new(),
            held: 0,
            held_bytes: 0,
            waiting_since: None,
            late_run: None,
        }
    }

    /// Takes one packet and hands on, in order, all that can go.
    pub fn push(&mut self, now: Instant, sequence: u16, packet: &[u8], out: &mut impl FnMut(&[u8])) {
        let expected = *self.expected.get_or_insert(sequence);
        let ahead = sequence.wrapping_sub(expected);
        if ahead == 0 && self.held == 0 {
            self.late_run = None;
            self.expected = Some(sequence.wrapping_add(1));
            return out(packet);
        }
        self.push_out_of_order(now, sequence, packet, out);
    }

    fn push_out_of_order(&mut self, now: Instant, sequence: u16, packet: &[u8], out: &mut impl FnMut(&[u8])) {
        let expected = self.expected.unwrap_or(sequence);
        let (ahead, behind) = (sequence.wrapping_sub(expected), expected.wrapping_sub(sequence));
        if ahead.min(behind) >= JUMP || (behind > 0 && behind < JUMP && self.went_back(sequence)) {
            self.counters.resyncs += 1;
            self.reset(out);
            self.expected = Some(sequence.wrapping_add(1));
            return out(packet);
        }
        if behind > 0 && behind < JUMP {
            self.counters.late_or_duplicate += 1;
            return;
        }
        self.late_run = None;
        if ahead == 0 {
            self.expected = Some(sequence.wrapping_add(1));
            out(packet);
            self.release_run(out);
            return;
        }
        if usize::from(ahead) < WINDOW && self.is_held(sequence) {
            self.counters.late_or_duplicate += 1;
            return;
        }
        // Room is made by giving up the oldest hole, but never past the packet at hand.
        while self.held > 0 && self.needs_room(sequence, packet.len()) {
            self.skip_hole(Some(sequence), out);
        }
        match self.distance(sequence) {
            0 => {
                self.expected = Some(sequence.wrapping_add(1));
                out(packet);
                self.release_run(out);
            }
            far if far >= WINDOW || packet.len() > self.bytes_max => {
                self.counters.lost += far as u64;
                self.expected = Some(sequence.wrapping_add(1));
                out(packet);
            }
            _ => self.hold(now, sequence, packet),
        }
    }

    fn hold(&mut self, now: Instant, sequence: u16, packet: &[u8]) {
        if self.slots.is_empty() {
            self.slots.resize_with(WINDOW, Slot::default);
        }
        let slot = &mut self.slots[usize::from(sequence) % WINDOW];
        slot.packet.clear();
        slot.packet.extend_from_slice(packet);
        slot.arrival = Some(now);
        self.held += 1;
        self.held_bytes += packet.len();
        self.waiting_since.get_or_insert(now);
    }

    /// When [`Self::expire`] would do something.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.waiting_since.map(|since| since + self.wait)
    }

    /// Gives up the holes that packets have waited for long enough.
    pub fn expire(&mut self, now: Instant, out: &mut impl FnMut(&[u8])) {
        while self.poll_timeout().is_some_and(|at| at <= now) {
            self.skip_hole(None, out);
        }
    }

    /// Hands on all waiting packets and forgets where the source was. To be called when its SSRC changes.
    pub fn reset(&mut self, out: &mut impl FnMut(&[u8])) {
        while self.held > 0 {
            self.skip_hole(None, out);
        }
        self.expected = None;
        self.late_run = None;
    }

    fn distance(&self, sequence: u16) -> usize {
        usize::from(sequence.wrapping_sub(self.expected.unwrap_or(sequence)))
    }

    fn is_held(&self, sequence: u16) -> bool {
        self.held > 0 && self.slots[usize::from(sequence) % WINDOW].arrival.is_some()
    }

    fn needs_room(&self, sequence: u16, length: usize) -> bool {
        let distance = self.distance(sequence);
        distance > 0 && (distance >= WINDOW || self.held_bytes + length > self.bytes_max)
    }

    /// Gives up the sequence numbers before the oldest waiting packet, or before `stop_at` if that comes
    /// first, and lets waiting packets go.
    fn skip_hole(&mut self, stop_at: Option<u16>, out: &mut impl FnMut(&[u8])) {
        let Some(mut expected) = self.expected else { return };
        while Some(expected) != stop_at && !self.is_held(expected) {
            self.counters.lost += 1;
            expected = expected.wrapping_add(1);
        }
        self.expected = Some(expected);
        self.release_run(out);
    }

    fn release_run(&mut self, out: &mut impl FnMut(&[u8])) {
        while self.held > 0 {
            let Some(expected) = self.expected else { break };
            let slot = &mut self.slots[usize::from(expected) % WINDOW];
            if slot.arrival.take().is_none() {
                break;
            }
            out(&slot.packet);
            self.held -= 1;
            self.held_bytes -= slot.packet.len();
            if slot.packet.capacity() > BUFFER_KEPT_BYTES_MAX {
                slot.packet = Vec::new();
            }
            self.counters.reordered += 1;
            self.expected = Some(expected.wrapping_add(1));
        }
        self.waiting_since =
            if self.held == 0 { None } else { self.slots.iter().filter_map(|slot| slot.arrival).min() };
    }

    /// Whether late packets have come one after the other for so long that the source must have gone back.
    fn went_back(&mut self, sequence: u16) -> bool {
        let length = match self.late_run {
            Some((last, length)) if last.wrapping_add(1) == sequence => length + 1,
            _ => 1,
        };
        self.late_run = Some((sequence, length));
        length > LATE_RUN_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_millis(200);

    /// Packets are their own sequence number, so that the output shows the order.
    struct Bench {
        reorder: Reorder,
        now: Instant,
        out: Vec<u16>,
    }

    impl Bench {
        #[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
        fn new() -> Self {
            Self { reorder: Reorder::new(WAIT, 1 << 20), now: Instant::now(), out: Vec::new() }
        }

        fn push(&mut self, sequence: u16) {
            self.push_sized(sequence, 2);
        }

        fn push_sized(&mut self, sequence: u16, length: usize) {
            let mut packet = vec![0; length.max(2)];
            packet[..2].copy_from_slice(&sequence.to_be_bytes());
            let out = &mut self.out;
            self.reorder.push(self.now, sequence, &packet, &mut |p: &[u8]| {
                out.push(u16::from_be_bytes([p[0], p[1]]))
            });
        }

        fn expire(&mut self) {
            let out = &mut self.out;
            self.reorder.expire(self.now, &mut |p: &[u8]| out.push(u16::from_be_bytes([p[0], p[1]])));
        }

        fn take(&mut self) -> Vec<u16> {
            std::mem::take(&mut self.out)
        }
    }

    #[test]
    fn packets_in_order_pass_straight_through() {
        let mut b = Bench::new();
        for sequence in [65_534, 65_535, 0, 1] {
            b.push(sequence);
        }
        assert_eq!(b.take(), [65_534, 65_535, 0, 1]);
        assert_eq!((b.reorder.counters, b.reorder.poll_timeout()), (Counters::default(), None));
    }

    #[test]
    fn swapped_packets_come_out_in_order_across_the_wrap() {
        let mut b = Bench::new();
        for sequence in [65_533, 65_535, 1, 65_534, 0, 2] {
            b.push(sequence);
        }
        assert_eq!(b.take(), [65_533, 65_534, 65_535, 0, 1, 2]);
        assert_eq!(b.reorder.counters, Counters { reordered: 2, ..Counters::default() });
        assert_eq!(b.reorder.poll_timeout(), None);
    }

    #[test]
    fn hole_holds_packets_up_for_the_wait_and_no_longer() {
        let mut b = Bench::new();
        b.push(10);
        b.push(12);
        let opened = b.now;
        b.now += WAIT / 2;
        b.push(14);
        assert_eq!(b.reorder.poll_timeout(), Some(opened + WAIT));
        b.now = opened + WAIT - Duration::from_nanos(1);
        b.expire();
        assert_eq!(b.take(), [10]);
        b.now = opened + WAIT;
        b.expire();
        assert_eq!(b.take(), [12]);
        // The second hole opened later and gets its own time.
        assert_eq!(b.reorder.poll_timeout(), Some(opened + WAIT / 2 + WAIT));
        b.now += WAIT;
        b.expire();
        assert_eq!(b.take(), [14]);
        assert_eq!((b.reorder.counters.lost, b.reorder.poll_timeout()), (2, None));
    }

    #[test]
    fn duplicates_and_late_packets_are_dropped_and_counted() {
        let mut b = Bench::new();
        for sequence in [5, 5, 4, 7, 7, 6, 6] {
            b.push(sequence);
        }
        assert_eq!(b.take(), [5, 6, 7]);
        assert_eq!(b.reorder.counters.late_or_duplicate, 4);
    }

    #[test]
    fn full_window_gives_the_hole_up() {
        let mut b = Bench::new();
        b.push(0);
        (2..=64).for_each(|sequence| b.push(sequence));
        assert_eq!(b.take(), [0]);
        b.push(65);
        assert_eq!(b.take(), (2..=65).collect::<Vec<_>>());
        assert_eq!(b.reorder.counters.lost, 1);
    }

    #[test]
    fn bytes_are_bounded_and_order_is_kept_when_room_is_made() {
        let mut b = Bench::new();
        b.reorder = Reorder::new(WAIT, 3000);
        b.push(0);
        b.push_sized(3, 1400);
        b.push_sized(4, 1400);
        // No room for 2: hole 1 is given up, 2 goes itself and frees 3 and 4.
        b.push_sized(2, 1400);
        assert_eq!(b.take(), [0, 2, 3, 4]);
        b.push_sized(6, 4000); // larger than the bound: never kept
        assert_eq!(b.take(), [6]);
        assert_eq!(b.reorder.counters.lost, 2);
    }

    #[test]
    fn big_jumps_flush_and_begin_anew() {
        let mut b = Bench::new();
        for sequence in [100, 102, 5000, 5001, 3000, 3001] {
            b.push(sequence);
        }
        assert_eq!(b.take(), [100, 102, 5000, 5001, 3000, 3001]);
        assert_eq!(b.reorder.counters.resyncs, 2);
    }

    #[test]
    fn gap_wider_than_the_window_is_taken_as_loss() {
        let mut b = Bench::new();
        b.push(0);
        b.push(500);
        b.push(501);
        assert_eq!(b.take(), [0, 500, 501]);
        assert_eq!(b.reorder.counters.lost, 499);
    }

    #[test]
    fn source_that_goes_back_a_little_is_followed_after_a_run_of_late_packets() {
        let mut b = Bench::new();
        b.push(900);
        (100..100 + 40).for_each(|sequence| b.push(sequence));
        let first_again = 100 + u16::from(LATE_RUN_MAX);
        assert_eq!(b.take(), [vec![900], (first_again..140).collect()].concat());
        assert_eq!(b.reorder.counters.resyncs, 1);
    }

    #[test]
    fn reset_hands_on_what_waits_and_starts_anywhere() {
        let mut b = Bench::new();
        b.push(10);
        b.push(12);
        let out = &mut b.out;
        b.reorder.reset(&mut |p: &[u8]| out.push(u16::from_be_bytes([p[0], p[1]])));
        b.push(11);
        assert_eq!(b.take(), [10, 12, 11]);
    }

    #[test]
    fn no_packet_is_handed_on_twice_or_out_of_order_whatever_comes() {
        let mut b = Bench::new();
        b.reorder = Reorder::new(WAIT, 20_000);
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut sequence = 0u16;
        for _ in 0..20_000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            sequence = sequence.wrapping_add(1);
            b.now += Duration::from_millis(state & 7);
            let jitter = (state >> 8 & 0x3f) as u16 % 20;
            b.push_sized(sequence.wrapping_sub(jitter), 1000);
            b.expire();
        }
        let steps = b.out.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]));
        assert!(steps.into_iter().all(|step| step > 0 && step < JUMP));
        assert_eq!(b.reorder.counters.resyncs, 0);
    }
}
