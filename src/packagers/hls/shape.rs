//! Where parts begin: none is longer than the part target, and none but the last of a segment is shorter than 85% of
//! it (rfc8216bis §4.4.4.9), whatever the frame rate does.
//!
//! Presentation times are never touched; the *decoding* times, by which durations are counted, give way: the last
//! picture of a part that would come out too short is decoded a little longer, and what would run over the target is
//! cut back to it and made up for by the parts that follow.

use std::time::Duration;

use super::clock::ticks;

/// Part targets beyond this help nobody: a stream of so few pictures has no low latency.
const TARGET_MAX: Duration = Duration::from_secs(5);

/// What the next picture does to the part that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placement {
    /// Its decoding time, in ticks.
    pub time: i64,
    /// It begins a part of its own.
    pub begins: bool,
}

#[derive(Debug)]
pub(super) struct Shaper {
    timescale: u32,
    /// What the operator asked for, ticks.
    wanted: i64,
    /// The part target, ticks, once enough pictures were seen to choose it.
    target: Option<i64>,
    /// Steps between pictures since the last plan.
    steps: Vec<i64>,
}

impl Shaper {
    pub(super) fn new(part_duration: Duration, timescale: u32) -> Self {
        let wanted = ticks(part_duration.min(TARGET_MAX), timescale).max(1);
        Self { timescale, wanted, target: None, steps: Vec::new() }
    }

    /// For frames that all last `step` ticks.
    pub(super) fn of_frames(part_duration: Duration, timescale: u32, step: i64) -> Self {
        let mut shaper = Self::new(part_duration, timescale);
        // One frame less than asked for is enough, where it fills the part.
        let fewer = shaper.wanted / step.max(1) * step;
        shaper.target = Some(if fewer * 100 >= shaper.wanted * 85 {
            shaper.wanted
        } else {
            plan(&[step], shaper.wanted, timescale)
        });
        shaper
    }

    /// The part target, ticks.
    pub(super) fn target(&self) -> Option<i64> {
        self.target
    }

    /// Places a picture: its decoding time should be `time`; the one before it is at `last`, and the part that is open
    /// began at `part_start`. `step` is how long it is likely to last.
    pub(super) fn place(&mut self, part_start: i64, last: i64, time: i64, step: i64) -> Placement {
        if self.steps.len() < 256 {
            self.steps.push(step.max(1));
        }
        let target = match self.target {
            Some(target) => target,
            None if time - part_start + step / 8 >= self.wanted => self.choose(),
            None => return Placement { time, begins: false },
        };
        let time = time.clamp(last + 1, (part_start + target).max(last + 1));
        let lasted = time - part_start;
        if lasted + step <= target {
            return Placement { time, begins: false };
        }
        let enough = (target * 85).div_euclid(100) + 1;
        Placement { time: time.max(part_start + enough.min(target)), begins: true }
    }

    /// Chooses the part target by what was seen so far, if that was not done yet.
    pub(super) fn choose(&mut self) -> i64 {
        if let Some(target) = self.target {
            return target;
        }
        let target = plan(&self.steps, self.wanted, self.timescale);
        self.steps.clear();
        self.target = Some(target);
        target
    }

    /// Whether the pictures of late take longer than a part may: then a larger target has to be announced, which the
    /// RFC does not foresee (§6.2.1), but a part over its target would be worse. To be asked when a segment begins.
    pub(super) fn outgrown(&mut self) -> bool {
        let Some(target) = self.target else { return false };
        let steps = std::mem::take(&mut self.steps);
        let long = steps.iter().filter(|step| **step > target).count();
        let outgrown = steps.len() > 1 && 2 * long > steps.len();
        if outgrown {
            self.target = Some(plan(&steps, self.wanted, self.timescale).max(target));
        }
        outgrown
    }
}

/// The smallest target of at least `wanted` that a whole number of pictures fills.
fn plan(steps: &[i64], wanted: i64, timescale: u32) -> i64 {
    let mut sorted = steps.to_vec();
    sorted.sort_unstable();
    let Some(&typical) = sorted.get(sorted.len() / 2) else { return wanted };
    let typical = typical.max(1);
    // A picture count that misses `wanted` by less than a twentieth of a picture is near enough.
    let count = (wanted - typical / 20 + typical - 1) / typical;
    let exact = count.max(1) * typical;
    // Stamps that are rounded, or not even, need a little room.
    let uneven = sorted.iter().any(|step| step.abs_diff(typical) > 2);
    let roomy = if uneven { exact + exact / 50 } else { exact };
    // Playlists tell the target in milliseconds.
    let ms = (roomy * 1000 + i64::from(timescale) - 1) / i64::from(timescale);
    let target = (ms * i64::from(timescale)).div_euclid(1000).max(roomy);
    target.max(wanted).min(ticks(TARGET_MAX, timescale))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 90_000;

    /// Durations of the parts that pictures with these steps give, and the largest lag of decoding behind showing.
    fn parts(steps: impl Iterator<Item = i64>) -> (i64, Vec<i64>, i64) {
        let mut shaper = Shaper::new(Duration::from_millis(200), RATE);
        let (mut show, mut last, mut start, mut out, mut lag) = (0, 0, 0, Vec::new(), 0);
        for step in steps {
            show += step;
            let placed = shaper.place(start, last, show, step);
            lag = lag.max(show - placed.time);
            last = placed.time;
            if placed.begins {
                out.push(placed.time - start);
                start = placed.time;
            }
        }
        (shaper.target().unwrap(), out, lag)
    }

    #[test]
    fn even_frame_rates_give_even_parts() {
        for (step, target) in [
            (3_600, 18_000),
            (3_000, 18_000),
            (3_003, 18_090),
            (1_800, 18_000),
            (1_500, 18_000),
            (7_200, 21_600),
            (90_000, 90_000),
        ] {
            let (got, parts, lag) = parts(std::iter::repeat_n(step, 200));
            assert_eq!(got, target, "{step}");
            assert!(
                parts.iter().all(|part| part % step == 0 && *part * 100 >= target * 85),
                "{step}: {parts:?}"
            );
            assert_eq!(lag, 0);
        }
    }

    #[test]
    fn uneven_frame_rates_keep_to_the_rule_too() {
        let mut random = 7u64;
        for (least, most) in [(3_590, 3_610), (1_800, 10_800), (2_900, 3_100), (500, 17_000)] {
            let steps = std::iter::from_fn(|| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                Some(least + (random % (most - least) as u64) as i64)
            });
            let (target, parts, lag) = parts(steps.take(5_000));
            assert!(parts.len() > 500);
            assert!(
                parts.iter().all(|part| *part <= target && *part * 100 >= target * 85),
                "{least}..{most}"
            );
            assert!(lag <= target, "{lag}");
        }
    }

    #[test]
    fn a_pause_is_made_up_for() {
        let steps = std::iter::repeat_n(3_600, 50).chain([80_000]).chain(std::iter::repeat_n(3_600, 50));
        let (target, parts, lag) = parts(steps);
        assert!(parts.iter().all(|part| *part <= target && *part * 100 >= target * 85), "{parts:?}");
        assert!(lag > 0 && lag < 80_000);
    }

    #[test]
    fn a_rate_that_falls_below_one_picture_a_part_is_noticed() {
        let mut shaper = Shaper::new(Duration::from_millis(200), RATE);
        for n in 1..20 {
            shaper.place(0, 3_600 * (n - 1), 3_600 * n, 3_600);
        }
        assert!(!shaper.outgrown());
        for n in 1..20 {
            shaper.place(0, 30_000 * (n - 1), 30_000 * n, 30_000);
        }
        assert!(shaper.outgrown());
        assert_eq!(shaper.target(), Some(30_060));
        assert!(!shaper.outgrown());
    }

    #[test]
    fn frames_of_sound_fill_their_parts() {
        let target = |rate, step| Shaper::of_frames(Duration::from_millis(200), rate, step).target().unwrap();
        assert_eq!(target(48_000, 1_024), 9_600); // 9 frames are 192 ms
        assert_eq!(target(48_000, 960), 9_600);
        assert_eq!(target(8_000, 1_024), 2_048); // one frame is 128 ms: too little
    }
}
