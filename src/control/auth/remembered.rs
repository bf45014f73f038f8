//! What was found to be right lately. Only keyed hashes are kept: a dump of the memory gives no password away that
//! a configured hash would have hidden.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sha2::{Digest as _, Sha256};

const ENTRIES_MAX: usize = 1000;
/// A success is remembered for this long.
const LIFETIME: Duration = Duration::from_secs(5 * 60);

/// See the module.
pub(super) struct Remembered {
    secret: [u8; 32],
    found: Mutex<HashMap<[u8; 32], Instant>>,
}

impl Default for Remembered {
    fn default() -> Self {
        let mut secret = [0; 32];
        // Without randomness from the system hardly anything would have started; hashes without a key are hashes still.
        let _ = getrandom::fill(&mut secret);
        Self { secret, found: Mutex::default() }
    }
}

impl Remembered {
    /// `parts` together are what was checked, with what it was checked against.
    pub(super) fn knows(&self, parts: &[&str], now: Instant) -> bool {
        let key = self.key(parts);
        self.lock().get(&key).is_some_and(|since| now.duration_since(*since) < LIFETIME)
    }

    pub(super) fn remember(&self, parts: &[&str], now: Instant) {
        let key = self.key(parts);
        let mut found = self.lock();
        if found.len() >= ENTRIES_MAX && !found.contains_key(&key) {
            found.retain(|_, since| now.duration_since(*since) < LIFETIME);
        }
        if found.len() >= ENTRIES_MAX && !found.contains_key(&key) {
            let oldest = found.iter().min_by_key(|(_, since)| **since).map(|(key, _)| *key);
            oldest.and_then(|key| found.remove(&key));
        }
        found.insert(key, now);
    }

    fn key(&self, parts: &[&str]) -> [u8; 32] {
        let mut hash = Sha256::new_with_prefix(self.secret);
        for part in parts {
            // With its length, so that no two lists of parts read the same.
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Instant>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_knows_what_it_was_told_and_not_for_ever() {
        let (remembered, now) = (Remembered::default(), Instant::now());
        remembered.remember(&["ab", "c"], now);
        assert!(remembered.knows(&["ab", "c"], now + LIFETIME / 2));
        assert!(!remembered.knows(&["ab", "c"], now + LIFETIME));
        assert!(!remembered.knows(&["a", "bc"], now));
        assert!(!Remembered::default().knows(&["ab", "c"], now));
    }

    #[test]
    fn the_oldest_makes_room() {
        let (remembered, now) = (Remembered::default(), Instant::now());
        for n in 0..=ENTRIES_MAX {
            remembered.remember(&[&n.to_string()], now + Duration::from_millis(n as u64));
        }
        let later = now + Duration::from_secs(2);
        assert_eq!(remembered.lock().len(), ENTRIES_MAX);
        assert!(!remembered.knows(&["0"], later) && remembered.knows(&["1"], later));
    }
}
