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
