//! How often something that goes on is told.

use std::time::{Duration, Instant};

/// The pause after the first line, and the longest one.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Quiet for this long, and it is news again.
const QUIET: Duration = Duration::from_secs(60);

/// A count that is told at once when it begins to grow, then ever more seldom while it goes on.
#[derive(Debug, Default)]
pub struct Seldom {
    seen: u64,
    told: u64,
    /// When it grew last.
    grew: Option<Instant>,
    /// Not told again before; and the pause after the next line.
    next: Option<Instant>,
    pause: Duration,
}

impl Seldom {
    /// How much came since the last line, if it is to be told now; `count` only grows.
    pub fn tell(&mut self, count: u64, now: Instant) -> Option<u64> {
        if count > self.seen {
            if self.grew.is_none_or(|grew| now.saturating_duration_since(grew) >= QUIET) {
                (self.next, self.pause) = (None, PAUSE_FIRST);
            }
            (self.seen, self.grew) = (count, Some(now));
        }
        if count == self.told || self.next.is_some_and(|next| next > now) {
            return None;
        }
        self.next = Some(now + self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Some(count - std::mem::replace(&mut self.told, count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_is_told_ever_more_seldom_and_nothing_is_left_out() {
        let (mut seldom, t0) = (Seldom::default(), Instant::now());
        let s = Duration::from_secs;
        assert_eq!(seldom.tell(0, t0), None);
        // Five a second, for an hour.
        let told: Vec<_> =
            (0..3600).filter_map(|n| Some((n, seldom.tell(5 * (n + 1), t0 + s(n))?))).collect();
        let when: Vec<_> = told.iter().map(|(n, _)| *n).take(8).collect();
        assert_eq!(when, [0, 1, 3, 7, 15, 31, 63, 123]);
        assert!(told.len() < 70, "{}", told.len());
        // The last of it is told though no more comes.
        let rest = (3600..3700).find_map(|n| seldom.tell(5 * 3600, t0 + s(n)));
        let sum: u64 = told.iter().map(|(_, count)| count).sum();
        assert_eq!(sum + rest.unwrap_or(0), 5 * 3600);
        // After a quiet minute it is news.
        assert_eq!(seldom.tell(5 * 3600 + 1, t0 + s(3800)), Some(1));
        assert_eq!(seldom.tell(5 * 3600 + 2, t0 + s(3801)), Some(1));
        assert_eq!(seldom.tell(5 * 3600 + 3, t0 + s(3802)), None);
    }
}
