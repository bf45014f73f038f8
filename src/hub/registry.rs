//! Which shard each path lives on. Owned by the control plane alone; shards ask.

use std::{collections::HashMap, sync::Arc};

/// Index of a shard.
pub type ShardId = usize;

/// What one path's claim on a shard costs while its measured load is not in yet, in permille of a core.
const ASSUMED_LOAD_PERMILLE: u64 = 3;

/// A path's home, and how often it was claimed: a release of an older claim must not undo a newer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Home {
    pub shard: ShardId,
    pub claim: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Registry {
    homes: HashMap<Arc<str>, Home>,
    shards: Vec<Load>,
    claims: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Load {
    measured_permille: u64,
    paths: u64,
    /// Paths placed since the load was measured.
    placed_since: u64,
}

impl Registry {
    /// A registry over `shards` shards (at least one).
    pub fn new(shards: usize) -> Self {
        Self { homes: HashMap::new(), shards: vec![Load::default(); shards.max(1)], claims: 0 }
    }

    /// The home of `path`, if it has one.
    pub fn home(&self, path: &str) -> Option<Home> {
        self.homes.get(path).copied()
    }

    /// The home of `path`; a path that has none is placed on `pinned`, else on the least loaded shard.
    pub fn claim(&mut self, path: &str, pinned: Option<ShardId>) -> Home {
        self.claims += 1;
        let claim = self.claims;
        if let Some(home) = self.homes.get_mut(path) {
            home.claim = claim;
            return *home;
        }
        let pinned = pinned.filter(|&shard| shard < self.shards.len());
        let shard = pinned.unwrap_or_else(|| {
            let load = |load: &Load| load.measured_permille + load.placed_since * ASSUMED_LOAD_PERMILLE;
            (0..self.shards.len())
                .min_by_key(|&shard| (load(&self.shards[shard]), self.shards[shard].paths))
                .unwrap_or_default()
        });
        self.shards[shard].paths += 1;
        self.shards[shard].placed_since += 1;
        let home = Home { shard, claim };
        self.homes.insert(path.into(), home);
        home
    }

    /// The shard has nothing of `path` any more, and had no claim after `claim`.
    pub fn release(&mut self, path: &str, claim: u64) {
        if let Some(home) = self.home(path)
            && home.claim <= claim
        {
            self.homes.remove(path);
            self.shards[home.shard].paths -= 1;
        }
    }

    /// A shard's share of its core over the last interval.
    pub fn measured(&mut self, shard: ShardId, permille: u64) {
        let load = &mut self.shards[shard];
        (load.measured_permille, load.placed_since) = (permille, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_keeps_its_home_until_it_is_released() {
        let mut registry = Registry::new(2);
        let home = registry.claim("a", None);
        assert_eq!(registry.claim("b", None).shard, 1 - home.shard);
        assert_eq!(registry.claim("a", Some(1 - home.shard)).shard, home.shard);
        registry.release("a", home.claim);
        assert!(registry.home("a").is_some(), "a release of an old claim undid a newer one");
        let claim = registry.home("a").unwrap().claim;
        registry.release("a", claim);
        assert_eq!(registry.home("a"), None);
    }

    #[test]
    fn the_least_loaded_shard_is_chosen_and_a_burst_is_spread_before_it_is_measured() {
        let mut registry = Registry::new(2);
        registry.measured(0, 500);
        registry.measured(1, 491);
        let homes: Vec<_> = (0..5).map(|n| registry.claim(&format!("p{n}"), None).shard).collect();
        assert_eq!(homes, [1, 1, 1, 0, 1]);
    }

    #[test]
    fn a_pinned_path_goes_where_it_is_pinned_if_that_exists() {
        let mut registry = Registry::new(2);
        assert_eq!(registry.claim("a", Some(1)).shard, 1);
        assert_eq!(registry.claim("b", Some(7)).shard, 0);
    }
}
