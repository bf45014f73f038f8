//! Time made fit for players: stamps of any source onto one line that only goes forward.
//!
//! A source's clock may jump by hours, go backwards, or stop. What leaves here is contiguous: a jump, and a hole of
//! more than [`HOLE_MAX`], become one ordinary step, so that no player meets a gap and no duration is absurd.

use std::time::Duration;

use corecast_media::TimestampUnwrapper;

/// Longer holes are closed up. Shorter ones keep their length.
pub(super) const HOLE_MAX: Duration = Duration::from_secs(1);
/// Where the line begins, so that decoding times may precede it.
pub(super) const START: Duration = Duration::from_secs(10);
/// B-pictures deeper than this are no real stream's.
const REORDER_MAX: usize = 16;

/// Ticks of a span of time.
pub(super) fn ticks(span: Duration, timescale: u32) -> i64 {
    (span.as_nanos() * u128::from(timescale) / 1_000_000_000) as i64
}

/// Nanoseconds of some ticks; rounded down.
pub(super) fn nanos(ticks: i64, timescale: u32) -> i64 {
    let hz = i64::from(timescale.max(1));
    (ticks / hz) * 1_000_000_000 + (ticks % hz) * 1_000_000_000 / hz
}

/// The presentation times of pictures, in ticks.
#[derive(Debug)]
pub(super) struct PictureClock {
    timescale: u32,
    unwrapper: TimestampUnwrapper,
    /// What is added to the source's time; `None` before the first picture.
    offset: Option<i64>,
    /// The latest presentation time so far.
    highest: i64,
    /// An ordinary step from one picture to the next.
    pub step: i64,
    /// Jumps and holes that were closed up.
    pub jumps: u64,
}

impl PictureClock {
    pub(super) fn new(timescale: u32) -> Self {
        Self {
            timescale,
            unwrapper: TimestampUnwrapper::default(),
            offset: None,
            highest: 0,
            step: i64::from(timescale) / 25,
            jumps: 0,
        }
    }

    /// Places a picture. `may_reorder`: it may be shown before pictures that came before it.
    pub(super) fn place(&mut self, timestamp_wrapped: u32, may_reorder: bool) -> i64 {
        let source = self.unwrapper.unwrap(timestamp_wrapped);
        let Some(offset) = self.offset else {
            self.highest = ticks(START, self.timescale);
            self.offset = Some(self.highest.wrapping_sub(source));
            return self.highest;
        };
        let time = source.wrapping_add(offset);
        let ahead = time.wrapping_sub(self.highest);
        let hole_max = ticks(HOLE_MAX, self.timescale).max(2 * self.step);
        let placed = if ahead > hole_max || ahead < -hole_max {
            self.jumps += 1;
            let placed = self.highest + self.step;
            self.offset = Some(offset.wrapping_add(placed.wrapping_sub(time)));
            placed
        } else if ahead <= 0 && !may_reorder {
            // A stamp that is repeated or a little too early: the picture goes between this one and the next.
            self.highest + (self.step / 4).max(1)
        } else {
            time
        };
        self.highest = self.highest.max(placed);
        placed
    }

    /// Another source follows: its first stamp is a jump by definition.
    pub(super) fn restart(&mut self) {
        if let Some(offset) = &mut self.offset {
            *offset = i64::MIN / 2;
            self.unwrapper = TimestampUnwrapper::default();
        }
    }

    /// Closes up by `by` ticks what is to come.
    pub(super) fn pull(&mut self, by: i64) {
        if let Some(offset) = &mut self.offset {
            *offset -= by;
            self.highest -= by;
        }
    }
}

/// Decoding times from presentation times, pictures being given in the order of decoding.
///
/// With pictures that are shown up to `depth` places before their turn, the k-th decoding time is the presentation
/// time that is k-`depth`-th in order of showing: a line with the same steps. A stream that reorders more deeply than
/// it says only gets smaller steps for a while, and negative composition offsets.
#[derive(Debug, Default)]
pub(super) struct DecodeOrder {
    depth: usize,
    /// Presentation times that were not used yet, in order.
    waiting: Vec<i64>,
    last: Option<i64>,
}

impl DecodeOrder {
    /// From now on the stream says this of itself.
    pub(super) fn set_depth(&mut self, depth: Option<u32>) {
        let depth = depth.map_or(self.depth, |depth| depth as usize);
        self.depth = depth.min(REORDER_MAX);
    }

    /// The decoding time of the next picture; always later than the one before.
    pub(super) fn push(&mut self, presentation: i64, step: i64) -> i64 {
        if self.last.is_some_and(|last| presentation < last) && self.depth < REORDER_MAX {
            self.depth += 1;
        }
        let at = self.waiting.partition_point(|waiting| *waiting <= presentation);
        self.waiting.insert(at, presentation);
        let time = if self.waiting.len() > self.depth {
            self.waiting.remove(0)
        } else {
            let missing = (self.depth + 1 - self.waiting.len()) as i64;
            match self.last {
                None => presentation - step * missing,
                Some(last) => last + ((self.waiting[0] - last) / (missing + 1)).max(1),
            }
        };
        while self.waiting.len() > self.depth.max(1) {
            self.waiting.remove(0);
        }
        let time = self.last.map_or(time, |last| time.max(last + 1));
        self.last = Some(time);
        time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place_all(clock: &mut PictureClock, stamps: &[i64]) -> Vec<i64> {
        stamps.iter().map(|stamp| clock.place(*stamp as u32, false) - 900_000).collect()
    }

    #[test]
    fn ordinary_stamps_are_kept_to_the_tick() {
        let mut clock = PictureClock::new(90_000);
        let base = i64::from(u32::MAX) - 4_000; // over the wrap
        let stamps = [base, base + 3_003, base + 6_006, base + 20_000];
        assert_eq!(place_all(&mut clock, &stamps), [0, 3_003, 6_006, 20_000]);
        assert_eq!(clock.jumps, 0);
    }

    #[test]
    fn jumps_either_way_become_one_step() {
        let hour = 3_600 * 90_000;
        let mut clock = PictureClock::new(90_000);
        let stamps = [0, 3_600, hour, hour + 3_600, 10_800, 14_400, 14_400 + 95_000];
        assert_eq!(place_all(&mut clock, &stamps), [0, 3_600, 7_200, 10_800, 14_400, 18_000, 21_600]);
        assert_eq!(clock.jumps, 3);
    }

    #[test]
    fn a_stamp_a_little_too_early_does_not_stop_the_line() {
        let mut clock = PictureClock::new(90_000);
        assert_eq!(
            place_all(&mut clock, &[0, 3_600, 3_600, 3_500, 7_200, 10_800]),
            [0, 3_600, 4_500, 5_400, 7_200, 10_800]
        );
    }

    #[test]
    fn another_source_goes_on_one_step_later() {
        let mut clock = PictureClock::new(90_000);
        place_all(&mut clock, &[0, 3_600]);
        clock.restart();
        assert_eq!(place_all(&mut clock, &[5_000, 8_600]), [7_200, 10_800]);
    }

    #[test]
    fn decoding_times_of_pictures_in_order_are_their_own() {
        let mut order = DecodeOrder::default();
        assert_eq!([0, 10, 25].map(|time| order.push(time, 10)), [0, 10, 25]);
    }

    #[test]
    fn decoding_times_of_b_pictures_are_an_even_line() {
        // I P B B P B B, depth 1: decoding order 0 3 1 2 6 4 5
        let mut order = DecodeOrder::default();
        order.set_depth(Some(1));
        assert_eq!(
            [0, 30, 10, 20, 60, 40, 50].map(|time| order.push(time, 10)),
            [-10, 0, 10, 20, 30, 40, 50]
        );
        // A pyramid: depth 2.
        let mut order = DecodeOrder::default();
        order.set_depth(Some(2));
        assert_eq!([0, 40, 20, 10, 30, 80].map(|time| order.push(time, 10)), [-20, -10, 0, 10, 20, 30]);
    }

    #[test]
    fn b_pictures_that_were_not_announced_are_lived_with() {
        let mut order = DecodeOrder::default();
        let times = [0, 40, 20, 10, 30, 80, 60, 50, 70, 120, 100, 90, 110].map(|time| order.push(time, 10));
        assert!(times.windows(2).all(|pair| pair[1] > pair[0]), "{times:?}");
        // In the end the line is even, and nothing is decoded after it is shown.
        assert!(times.last().unwrap() <= &110, "{times:?}");
    }
}
