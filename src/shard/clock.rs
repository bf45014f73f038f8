//! The sole reader of time: once per turn of the loop, everything else is told.

use std::time::{Duration, Instant, SystemTime};

use crate::sources::publication::Now;

/// Now, on both clocks.
pub fn now() -> Now {
    Now {
        instant: Instant::now(),
        wall: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO),
    }
}

/// The time on the steady clock within a turn, for measuring what the turn itself took.
pub fn instant() -> Instant {
    Instant::now()
}

/// A moment of [`Now::wall`] as the system writes it.
pub fn system_time(wall: Duration) -> SystemTime {
    SystemTime::UNIX_EPOCH + wall
}
