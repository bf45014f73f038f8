//! What paths moved in the past.

use std::{
    collections::{BTreeMap, HashMap},
    ops::AddAssign,
    sync::Arc,
};

/// Totals of this many paths are kept that have nothing live any more; the oldest are forgotten.
pub(super) const PAST_PATHS_MAX: usize = 20_000;

/// Totals, by path, of what has ended.
#[derive(Debug, Default)]
pub(super) struct Past<T> {
    /// With when the last of it ended.
    totals: HashMap<Arc<str>, (T, u64)>,
    /// Paths with nothing live, by when that ended.
    idle: BTreeMap<u64, Arc<str>>,
    ends: u64,
}

impl<T: AddAssign + Copy + Default> Past<T> {
    /// Something is live on `path`: what is known of its past is kept for as long.
    pub fn begun(&mut self, path: &str) {
        if let Some((_, ended)) = self.totals.get(path) {
            self.idle.remove(ended);
        }
    }

    /// Nothing is live there any more; `moved` is what that has moved.
    pub fn ended(&mut self, path: &Arc<str>, moved: T) {
        self.ends += 1;
        let (totals, ended) = self.totals.entry(Arc::clone(path)).or_default();
        *totals += moved;
        *ended = self.ends;
        self.idle.insert(self.ends, Arc::clone(path));
        if self.idle.len() > PAST_PATHS_MAX
            && let Some((_, oldest)) = self.idle.pop_first()
        {
            self.totals.remove(&oldest);
        }
    }

    pub fn totals(&self) -> Vec<(Arc<str>, T)> {
        self.totals.iter().map(|(path, &(totals, _))| (Arc::clone(path), totals)).collect()
    }

    #[cfg(test)]
    pub fn idle_count(&self) -> usize {
        self.idle.len()
    }
}
