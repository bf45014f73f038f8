//! How questions were answered, for the metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// Answers since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AuthCounts {
    pub allowed: u64,
    /// Wrong credentials, those of `limited` and most of `errors` among them.
    pub denied: u64,
    /// Asked for credentials.
    pub challenged: u64,
    /// Nobody could tell: an authentication server that is down, more to check than can be.
    pub errors: u64,
    /// Not looked at, for too many of the same address had failed.
    pub limited: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Counters([AtomicU64; 5]);

#[derive(Debug, Clone, Copy)]
pub(super) enum Counted {
    Allowed,
    Denied,
    Challenged,
    Error,
    Limited,
}

impl Counters {
    pub(super) fn count(&self, what: Counted) {
        self.0[what as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> AuthCounts {
        let of = |what: Counted| self.0[what as usize].load(Ordering::Relaxed);
        AuthCounts {
            allowed: of(Counted::Allowed),
            denied: of(Counted::Denied),
            challenged: of(Counted::Challenged),
            errors: of(Counted::Error),
            limited: of(Counted::Limited),
        }
    }
}
