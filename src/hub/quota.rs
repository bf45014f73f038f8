//! Limits that hold over all shards: streams of a pattern, streams and readers of the whole relay.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

/// How many there are now. Lives as long as anything counted by it, over reloads too; the limit is a setting.
#[derive(Debug, Clone, Default)]
pub struct Quota(Arc<AtomicU32>);

/// Counted until dropped.
#[derive(Debug)]
pub struct Pass(Arc<AtomicU32>);

/// Two are equal when they count the same things.
impl PartialEq for Quota {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Quota {
    /// One more, if there are fewer than `max` now.
    pub fn enter(&self, max: Option<NonZeroU32>) -> Option<Pass> {
        let below = |now: u32| max.is_none_or(|max| now < max.get()).then_some(now + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below).ok()?;
        Some(Pass(Arc::clone(&self.0)))
    }

    pub fn now(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_allowed_come_in_and_one_more_when_one_leaves() {
        let quota = Quota::default();
        let max = NonZeroU32::new(2);
        let first = quota.enter(max).unwrap();
        let _second = quota.enter(max).unwrap();
        assert!(quota.enter(max).is_none());
        drop(first);
        assert!(quota.enter(max).is_some());
        assert!(quota.enter(None).is_some());
        assert_eq!(quota.now(), 1);
    }
}
