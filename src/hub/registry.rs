//! Which shard each path lives on. Owned by the control plane alone; shards ask.

use std::{collections::HashMap, sync::Arc};

/// Index of a shard.
pub type ShardId = usize;

/// What one path's claim on a shard costs while its measured load is not in yet, in permille of a core.
const ASSUMED_LOAD_PERMILLE: u64 = 3;

#[derive(Debug, Clone, Copy)]
struct Home {
    shard: ShardId,
    /// Claims that were granted and not given back: somebody is on the way to the home, or there.
    claims: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Registry {
    homes: HashMap<Arc<str>, Home>,
    shards: Vec<Load>,
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
        Self { homes: HashMap::new(), shards: vec![Load::default(); shards.max(1)] }
    }

    /// The home of `path`, if it has one.
    pub fn home(&self, path: &str) -> Option<ShardId> {
        self.homes.get(path).map(|home| home.shard)
    }

    /// The home of `path`; a path that has none is placed on `pinned`, else on the least loaded shard. The home keeps
    /// the path until it has given back every claim.
    pub fn claim(&mut self, path: &str, pinned: Option<ShardId>) -> ShardId {
        if let Some(home) = self.homes.get_mut(path) {
            home.claims += 1;
            return home.shard;
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
        self.homes.insert(path.into(), Home { shard, claims: 1 });
        shard
    }

    /// The home has nothing of `path` any more, and gives back the claims that reached it. A claim that is still on
    /// its way keeps the home where it is.
    pub fn release(&mut self, path: &str, claims: u64) {
        let Some(home) = self.homes.get_mut(path) else { return };
        home.claims = home.claims.saturating_sub(claims);
        if home.claims == 0 {
            self.shards[home.shard].paths -= 1;
            self.homes.remove(path);
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
    fn a_path_keeps_its_home_until_every_claim_is_given_back() {
        let mut registry = Registry::new(2);
        let home = registry.claim("a", None);
        assert_eq!(registry.claim("b", None), 1 - home);
        // A publisher's claim, overtaken on its way by one that came to nothing.
        assert_eq!(registry.claim("a", Some(1 - home)), home);
        registry.release("a", 1);
        assert_eq!(
            registry.home("a"),
            Some(home),
            "the claim on its way would find the path placed elsewhere"
        );
        registry.release("a", 1);
        assert_eq!(registry.home("a"), None);
    }

    #[test]
    fn the_least_loaded_shard_is_chosen_and_a_burst_is_spread_before_it_is_measured() {
        let mut registry = Registry::new(2);
        registry.measured(0, 500);
        registry.measured(1, 491);
        let homes: Vec<_> = (0..5).map(|n| registry.claim(&format!("p{n}"), None)).collect();
        assert_eq!(homes, [1, 1, 1, 0, 1]);
    }

    #[test]
    fn a_pinned_path_goes_where_it_is_pinned_if_that_exists() {
        let mut registry = Registry::new(2);
        assert_eq!(registry.claim("a", Some(1)), 1);
        assert_eq!(registry.claim("b", Some(7)), 0);
    }
}
