//! The stream ring: one writer's bytes, read in place by many cursors, the oldest overwritten.
//!
//! The memory is mapped twice, back to back, so that any span of up to the capacity is contiguous. Positions are
//! `u64` byte counts since the stream began and never wrap; what they mean survives [`ByteRing::grow`].
//!
//! ```text
//!        floor                    head              written
//! …------|########################|~~~~~~~~~~~~~~~~~|
//! overwritten   committed: readers may have it   received, not yet looked at
//! ```
//!
//! Invariants:
//! * I1. `floor <= head <= written` and `written - floor <= capacity`.
//! * I2. `base` maps `2 * capacity` readable and writable bytes; byte `i` and byte `i + capacity` are the same.
//! * I3. The mapping belongs to this value alone and is unmapped in `drop` only: a `&[u8]` out of it borrows the
//!   ring, so nothing can write while a reader looks.

use std::{io, ops::Range, ptr, ptr::NonNull, slice};

/// A ring of bytes; see the module's picture.
#[derive(Debug)]
pub struct ByteRing {
    base: NonNull<u8>,
    capacity: usize,
    floor: u64,
    head: u64,
    written: u64,
}

// SAFETY: the mapping is owned (I3) and plain memory: it may move to another thread with its owner.
unsafe impl Send for ByteRing {}

impl ByteRing {
    /// Maps a ring of at least `capacity` bytes, rounded up to a power of two of at least one page.
    pub fn new(capacity: usize) -> io::Result<Self> {
        let capacity = capacity.next_power_of_two().max(page_size());
        Ok(Self { base: map_twice(capacity)?, capacity, floor: 0, head: 0, written: 0 })
    }

    /// Bytes it can hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Position of the oldest byte still held.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Position after the newest committed byte.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// The bytes at `range`, or `None` when part of it is overwritten or not there yet.
    pub fn get(&self, range: Range<u64>) -> Option<&[u8]> {
        if range.start < self.floor || range.end > self.written || range.start > range.end {
            return None;
        }
        let length = (range.end - range.start) as usize;
        // SAFETY: `length <= capacity` by I1, so offset + length <= 2 * capacity is mapped (I2); nobody writes
        // while the borrow lives (I3).
        Some(unsafe { slice::from_raw_parts(self.base.as_ptr().add(self.offset(range.start)), length) })
    }

    /// Received bytes that are not committed yet.
    pub fn pending(&self) -> &[u8] {
        // SAFETY: as in `get`: `head..written` is inside the ring by I1.
        unsafe {
            slice::from_raw_parts(
                self.base.as_ptr().add(self.offset(self.head)),
                (self.written - self.head) as usize,
            )
        }
    }

    /// The same, writable: to drop what is no media before it is committed (see [`Self::shrink_pending`]).
    pub fn pending_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `get`, and `&mut self` makes us the only one to look (I3).
        unsafe {
            slice::from_raw_parts_mut(
                self.base.as_ptr().add(self.offset(self.head)),
                (self.written - self.head) as usize,
            )
        }
    }

    /// Room for up to `want` bytes after the pending ones. Handing it out gives up as many of the oldest bytes.
    pub fn spare(&mut self, want: usize) -> &mut [u8] {
        let pending = (self.written - self.head) as usize;
        let length = want.min(self.capacity - pending);
        self.floor = self.floor.max((self.written + length as u64).saturating_sub(self.capacity as u64));
        self.floor = self.floor.min(self.head);
        // SAFETY: `offset < capacity` and `length <= capacity` (I2); `&mut self` (I3). The bytes given up were
        // taken out of `floor..` above, so no position that `get` accepts overlaps the slice.
        unsafe { slice::from_raw_parts_mut(self.base.as_ptr().add(self.offset(self.written)), length) }
    }

    /// Declares that the first `count` bytes of [`Self::spare`] were filled.
    ///
    /// # Panics
    /// When that is more than the spare room was.
    pub fn fill(&mut self, count: usize) {
        let end = self.written + count as u64;
        assert!(end - self.floor <= self.capacity as u64, "filled more than the spare room");
        self.written = end;
    }

    /// Moves `count` pending bytes under the readers' eyes.
    ///
    /// # Panics
    /// When fewer are pending.
    pub fn commit(&mut self, count: usize) {
        assert!(count as u64 <= self.written - self.head, "committed more than was pending");
        self.head += count as u64;
    }

    /// Forgets the last `count` pending bytes.
    ///
    /// # Panics
    /// When fewer are pending.
    pub fn shrink_pending(&mut self, count: usize) {
        assert!(count as u64 <= self.written - self.head, "dropped more than was pending");
        self.written -= count as u64;
    }

    /// Appends and commits `bytes` at once. Only while nothing is pending.
    ///
    /// # Panics
    /// When bytes are pending, or `bytes` exceeds the capacity.
    pub fn append(&mut self, bytes: &[u8]) {
        assert!(self.written == self.head, "append between a packet's halves");
        let spare = self.spare(bytes.len());
        spare[..bytes.len()].copy_from_slice(bytes);
        self.fill(bytes.len());
        self.commit(bytes.len());
    }

    /// Moves to a ring of at least `capacity` bytes; every position keeps its meaning.
    pub fn grow(&mut self, capacity: usize) -> io::Result<()> {
        let mut larger = Self::new(capacity)?;
        if larger.capacity <= self.capacity {
            return Ok(());
        }
        (larger.floor, larger.head, larger.written) = (self.floor, self.head, self.written);
        let mut from = self.floor;
        while from < self.written {
            // In pieces that end at the first mapping's end, so that the second one's pages stay untouched.
            let offset = larger.offset(from);
            let length = ((self.written - from) as usize).min(larger.capacity - offset);
            let source = self.get(from..from + length as u64).unwrap_or_default();
            // SAFETY: `offset + length <= capacity` of the new mapping (I2), which only we know (I3); the two
            // mappings are different memory.
            unsafe { ptr::copy_nonoverlapping(source.as_ptr(), larger.base.as_ptr().add(offset), length) };
            from += length as u64;
        }
        *self = larger;
        Ok(())
    }

    fn offset(&self, position: u64) -> usize {
        position as usize & (self.capacity - 1)
    }
}

impl Drop for ByteRing {
    fn drop(&mut self) {
        // SAFETY: exactly what `map_twice` mapped (I2), and nobody borrows it any more (I3).
        unsafe { libc::munmap(self.base.as_ptr().cast(), 2 * self.capacity) };
    }
}

fn page_size() -> usize {
    // SAFETY: no pointers are passed.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// One memory file of `capacity` bytes, mapped at `base` and again at `base + capacity`.
fn map_twice(capacity: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: the calls are given a valid name, a descriptor we own, and addresses inside the range that the first
    // `mmap` reserved for us; every result is checked before it is used.
    unsafe {
        let file = libc::memfd_create(c"corecast-ring".as_ptr(), libc::MFD_CLOEXEC);
        if file < 0 {
            return Err(io::Error::last_os_error());
        }
        let file = FileGuard(file);
        if libc::ftruncate(file.0, capacity as libc::off_t) != 0 {
            return Err(io::Error::last_os_error());
        }
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let base = libc::mmap(ptr::null_mut(), 2 * capacity, libc::PROT_NONE, flags, -1, 0);
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        for half in 0..2 {
            let at = base.cast::<u8>().add(half * capacity).cast();
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let mapped = libc::mmap(at, capacity, protection, libc::MAP_SHARED | libc::MAP_FIXED, file.0, 0);
            if mapped == libc::MAP_FAILED {
                let error = io::Error::last_os_error();
                libc::munmap(base, 2 * capacity);
                return Err(error);
            }
        }
        // A page fault per page of the first round would cost more than all else that is done with it. Only the first
        // half: the second is touched by spans over the end alone. Older kernels refuse, and fault.
        libc::madvise(base, capacity, libc::MADV_POPULATE_WRITE);
        NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap gave address zero"))
    }
}

struct FileGuard(libc::c_int);

impl Drop for FileGuard {
    fn drop(&mut self) {
        // SAFETY: the descriptor is ours and is closed once; the mappings keep the memory alive.
        unsafe { libc::close(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_over_the_end_is_contiguous() {
        let mut ring = ByteRing::new(4096).unwrap();
        ring.append(&[1; 4000]);
        ring.append(&[2; 200]);
        assert_eq!(ring.get(4000..4200), Some(&[2; 200][..]));
        assert_eq!(ring.floor(), 104);
        assert_eq!(ring.get(103..110), None);
        assert_eq!(ring.get(4000..4201), None);
    }

    #[test]
    fn received_bytes_are_hidden_until_committed_and_can_be_dropped() {
        let mut ring = ByteRing::new(4096).unwrap();
        ring.spare(10)[..6].copy_from_slice(b"abcdef");
        ring.fill(6);
        assert_eq!(ring.head(), 0);
        assert_eq!(ring.pending(), b"abcdef");
        ring.pending_mut().copy_within(4.., 2);
        ring.shrink_pending(2);
        ring.commit(4);
        assert_eq!(ring.get(0..4), Some(&b"abef"[..]));
    }

    #[test]
    fn spare_room_gives_up_the_oldest_bytes_and_never_the_pending_ones() {
        let mut ring = ByteRing::new(4096).unwrap();
        ring.append(&[7; 4096]);
        ring.spare(96)[..].fill(8);
        ring.fill(96);
        assert_eq!(ring.floor(), 96);
        assert_eq!(ring.spare(usize::MAX).len(), 4000);
        ring.fill(4000);
        assert!(ring.spare(1).is_empty());
        assert_eq!(ring.pending().len(), 4096);
    }

    #[test]
    #[should_panic(expected = "filled more")]
    fn filling_more_than_was_handed_out_is_refused() {
        let mut ring = ByteRing::new(4096).unwrap();
        ring.fill(4097);
    }

    #[test]
    fn positions_mean_the_same_after_growing() {
        let mut ring = ByteRing::new(4096).unwrap();
        for chunk in 0..40_u8 {
            ring.append(&[chunk; 251]);
        }
        ring.spare(3)[..3].copy_from_slice(b"xyz");
        ring.fill(3);
        let (floor, head) = (ring.floor(), ring.head());
        let before = ring.get(floor..head).unwrap().to_vec();
        ring.grow(16384).unwrap();
        assert_eq!((ring.floor(), ring.head()), (floor, head));
        assert_eq!(ring.get(floor..head).unwrap(), &before[..]);
        assert_eq!(ring.pending(), b"xyz");
        ring.commit(3);
        ring.append(&[9; 9000]);
        assert_eq!(ring.get(floor..head).unwrap(), &before[..]);
    }

    /// Against a plain vector that never forgets: the ring must agree on everything that it still claims to hold.
    #[test]
    fn it_agrees_with_an_oracle_over_a_long_seeded_run() {
        let mut ring = ByteRing::new(4096).unwrap();
        let mut oracle: Vec<u8> = Vec::new();
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
        let mut pending: Vec<u8> = Vec::new();
        for step in 0..20_000_u64 {
            match random(5) {
                0 | 1 => {
                    let want = random(1500) as usize;
                    let spare = ring.spare(want);
                    let count = (random(want as u64 + 1) as usize).min(spare.len());
                    spare[..count].fill(step as u8);
                    ring.fill(count);
                    pending.extend(std::iter::repeat_n(step as u8, count));
                }
                2 => {
                    let count = random(pending.len() as u64 + 1) as usize;
                    ring.commit(count);
                    oracle.extend(pending.drain(..count));
                }
                3 if random(50) == 0 => {
                    let count = random(pending.len() as u64 + 1) as usize;
                    ring.shrink_pending(count);
                    pending.truncate(pending.len() - count);
                }
                4 if random(4000) == 0 => ring.grow(ring.capacity() * 2).unwrap(),
                _ => {
                    let from = ring.floor() + random(ring.head() - ring.floor() + 1);
                    let to = from + random(ring.head() - from + 1);
                    assert_eq!(ring.get(from..to).unwrap(), &oracle[from as usize..to as usize]);
                }
            }
            assert_eq!(ring.head() as usize, oracle.len());
            assert_eq!(ring.pending(), &pending[..]);
        }
    }
}
