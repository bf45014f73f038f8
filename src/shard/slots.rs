//! Things a shard owns, named by keys that are never mistaken for those of their successors.

use slab::Slab;

/// Names a value in a [`Slots`]. A key outlives its value harmlessly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    index: u32,
    generation: u32,
}

/// Generations are told apart over this many bits, so that a key fits in a ring token.
const GENERATION_BITS: u32 = 24;

impl Key {
    /// Index and generation in 56 bits.
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// The inverse of [`Self::to_bits`]; higher bits are ignored.
    pub fn from_bits(bits: u64) -> Self {
        Self { index: bits as u32, generation: (bits >> 32) as u32 & ((1 << GENERATION_BITS) - 1) }
    }
}

/// A slab whose keys carry a generation.
#[derive(Debug)]
pub struct Slots<T> {
    slab: Slab<(u32, T)>,
    generation: u32,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { slab: Slab::new(), generation: 0 }
    }
}

impl<T> Slots<T> {
    /// Keeps `value` and names it.
    pub fn insert(&mut self, value: T) -> Key {
        self.generation = (self.generation + 1) & ((1 << GENERATION_BITS) - 1);
        let index = self.slab.insert((self.generation, value));
        Key { index: index as u32, generation: self.generation }
    }

    pub fn get(&self, key: Key) -> Option<&T> {
        let (generation, value) = self.slab.get(key.index as usize)?;
        (*generation == key.generation).then_some(value)
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let (generation, value) = self.slab.get_mut(key.index as usize)?;
        (*generation == key.generation).then_some(value)
    }

    pub fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        let (_, value) = self.slab.remove(key.index as usize);
        if self.slab.is_empty() {
            self.slab.shrink_to_fit();
        }
        Some(value)
    }

    pub fn len(&self) -> usize {
        self.slab.len()
    }

    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.slab
            .iter()
            .map(|(index, (generation, value))| (Key { index: index as u32, generation: *generation }, value))
    }

    /// All keys at this moment, into a buffer that the caller reuses.
    pub fn keys_into(&self, keys: &mut Vec<Key>) {
        keys.clear();
        keys.extend(self.iter().map(|(key, _)| key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_does_not_name_the_next_value_in_its_place() {
        let mut slots = Slots::default();
        let first = slots.insert("a");
        assert_eq!(slots.remove(first), Some("a"));
        let second = slots.insert("b");
        assert_eq!((slots.get(first), slots.get(second)), (None, Some(&"b")));
        assert_eq!(slots.remove(first), None);
        assert_eq!(Key::from_bits(second.to_bits() | 3 << 56), second);
    }
}
