//! Errors that come with every request are said once in a while.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::error;

/// Between two lines of the log about the same server.
const INTERVAL: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Complaints(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    said: Option<Instant>,
    unsaid: u64,
}

impl Complaints {
    pub(super) fn say(&self, text: &str) {
        match self.due(Instant::now()) {
            Some(0) => error!("{text}"),
            Some(unsaid) => error!("{text} (and {unsaid} times before that)"),
            None => {}
        }
    }

    /// How many were left out since the last one; `None` when this one is to be left out too.
    fn due(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.said.is_some_and(|said| now.duration_since(said) < INTERVAL) {
            state.unsaid += 1;
            return None;
        }
        state.said = Some(now);
        Some(std::mem::take(&mut state.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_said_and_then_one_in_a_while() {
        let (complaints, now) = (Complaints::default(), Instant::now());
        assert_eq!(complaints.due(now), Some(0));
        assert_eq!(complaints.due(now), None);
        assert_eq!(complaints.due(now + INTERVAL / 2), None);
        assert_eq!(complaints.due(now + INTERVAL), Some(2));
        assert_eq!(complaints.due(now + 2 * INTERVAL), Some(0));
    }
}
