//! A bounded queue from one thread to one other, and the doorbell that wakes its reader.
//!
//! Invariants:
//! * I1. `head <= tail <= head + capacity` (both count up for ever and wrap; compared by difference).
//! * I2. Exactly the slots in `head..tail` are initialised.
//! * I3. Only [`Sender`] writes `tail`, only [`Receiver`] writes `head`; neither is `Clone`.
//! * I4. The `Release` store of `tail` publishes a slot; that of `head` hands it back.

use std::mem::MaybeUninit;

use crate::sync::{Arc, AtomicBool, AtomicUsize, Ordering, UnsafeCell, fence};

struct Shared<T> {
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
    head: AtomicUsize,
    tail: AtomicUsize,
}

// SAFETY: a slot is touched by one side at a time (I2, I3) and passes between them by I4, so a value only moves
// from one thread to another, which `T: Send` allows.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above: shared references are used only through the two unique ends.
unsafe impl<T: Send> Sync for Shared<T> {}

/// The sending end.
pub struct Sender<T>(Arc<Shared<T>>);

/// The receiving end.
pub struct Receiver<T>(Arc<Shared<T>>);

/// Makes a mailbox that holds up to `capacity` values; `capacity` is rounded up to a power of two.
pub fn mailbox<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let slots = (0..capacity.next_power_of_two()).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
    let shared = Arc::new(Shared { slots, head: AtomicUsize::new(0), tail: AtomicUsize::new(0) });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

impl<T> Shared<T> {
    fn slot(&self, position: usize) -> &UnsafeCell<MaybeUninit<T>> {
        &self.slots[position & (self.slots.len() - 1)]
    }
}

impl<T> Sender<T> {
    /// Posts `value`, or gives it back when the mailbox is full. Ring the reader's [`Doorbell`] afterwards.
    pub fn post(&mut self, value: T) -> Result<(), T> {
        let tail = self.0.tail.load(Ordering::Relaxed);
        let head = self.0.head.load(Ordering::Acquire);
        if tail.wrapping_sub(head) == self.0.slots.len() {
            return Err(value);
        }
        self.0.slot(tail).with_mut(|slot| {
            // SAFETY: not full, so slot `tail` is vacant (I1, I2); only this end may touch it (I3) and the
            // reader handed it back by its release of `head`, which the acquire above saw (I4).
            unsafe { (*slot).write(value) };
        });
        self.0.tail.store(tail.wrapping_add(1), Ordering::Release);
        Ok(())
    }
}

impl<T> Receiver<T> {
    /// Takes the oldest value, if there is one.
    pub fn take(&mut self) -> Option<T> {
        let head = self.0.head.load(Ordering::Relaxed);
        if head == self.0.tail.load(Ordering::Acquire) {
            return None;
        }
        let value = self.0.slot(head).with_mut(|slot| {
            // SAFETY: slot `head` is initialised (I2) and was published by the release that the acquire above
            // saw (I4); `head` moves past it right below, so it is read once.
            unsafe { (*slot).assume_init_read() }
        });
        self.0.head.store(head.wrapping_add(1), Ordering::Release);
        Some(value)
    }

    /// True when nothing waits to be taken.
    pub fn is_empty(&self) -> bool {
        self.0.head.load(Ordering::Relaxed) == self.0.tail.load(Ordering::Acquire)
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let tail = self.tail.load(Ordering::Acquire);
        let mut head = self.head.load(Ordering::Acquire);
        while head != tail {
            // SAFETY: both ends are gone, so nobody else touches the slots; `head..tail` is initialised (I2).
            self.slot(head).with_mut(|slot| unsafe { (*slot).assume_init_drop() });
            head = head.wrapping_add(1);
        }
    }
}

/// Tells senders whether the reader sleeps, so that a wake-up is paid for only when one is needed.
///
/// The reader: [`Doorbell::about_to_sleep`], look at every mailbox once more, then sleep until rung.
/// A sender: post, then [`Doorbell::must_ring`]; when true, wake the reader by whatever it sleeps on.
#[derive(Debug, Default)]
pub struct Doorbell {
    asleep: AtomicBool,
}

impl Doorbell {
    /// Declares that the reader is going to sleep. Mailboxes must be looked at once more after this.
    pub fn about_to_sleep(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        // Pairs with the fence in `must_ring`: either we see the post, or its sender sees us asleep.
        fence(Ordering::SeqCst);
    }

    /// Declares that the reader is awake.
    pub fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Called after a post: true for the one sender that has to wake the reader.
    pub fn must_ring(&self) -> bool {
        fence(Ordering::SeqCst);
        self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn values_come_out_in_order_and_full_gives_the_value_back() {
        let (mut tx, mut rx) = mailbox(2);
        assert!(rx.is_empty());
        assert_eq!(tx.post(1), Ok(()));
        assert_eq!(tx.post(2), Ok(()));
        assert_eq!(tx.post(3), Err(3));
        assert_eq!(rx.take(), Some(1));
        assert_eq!(tx.post(3), Ok(()));
        assert_eq!((rx.take(), rx.take(), rx.take()), (Some(2), Some(3), None));
    }

    #[test]
    fn what_was_not_taken_is_dropped_with_the_mailbox() {
        struct Tally(#[allow(dead_code)] Arc<()>);
        let witness = Arc::new(());
        let (mut tx, mut rx) = mailbox(4);
        for _ in 0..3 {
            assert!(tx.post(Tally(witness.clone())).is_ok());
        }
        drop(rx.take());
        assert_eq!(Arc::strong_count(&witness), 3);
        drop((tx, rx));
        assert_eq!(Arc::strong_count(&witness), 1);
    }

    #[test]
    fn a_million_values_cross_two_threads_unharmed() {
        let (mut tx, mut rx) = mailbox(64);
        let sender = std::thread::spawn(move || {
            for value in 0..1_000_000_u64 {
                while tx.post(value).is_err() {
                    std::hint::spin_loop();
                }
            }
        });
        for expected in 0..1_000_000_u64 {
            let value = loop {
                match rx.take() {
                    Some(value) => break value,
                    None => std::hint::spin_loop(),
                }
            };
            assert_eq!(value, expected);
        }
        sender.join().unwrap();
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::thread;

    #[test]
    fn every_value_arrives_once_and_in_order() {
        loom::model(|| {
            let (mut tx, mut rx) = mailbox(2);
            let sender = thread::spawn(move || {
                for value in 0..3 {
                    while tx.post(value).is_err() {
                        thread::yield_now();
                    }
                }
            });
            let mut expected = 0;
            while expected < 3 {
                match rx.take() {
                    Some(value) => {
                        assert_eq!(value, expected);
                        expected += 1;
                    }
                    None => thread::yield_now(),
                }
            }
            sender.join().unwrap();
        });
    }

    #[test]
    fn values_left_behind_are_dropped_exactly_once() {
        loom::model(|| {
            let witness = Arc::new(());
            let (mut tx, mut rx) = mailbox(2);
            let sent = witness.clone();
            let sender = thread::spawn(move || {
                let _ = tx.post(sent.clone());
                let _ = tx.post(sent);
            });
            drop(rx.take());
            sender.join().unwrap();
            drop(rx);
            assert_eq!(Arc::strong_count(&witness), 1);
        });
    }

    #[test]
    fn a_sleeping_reader_is_always_rung() {
        loom::model(|| {
            let (mut tx, mut rx) = mailbox(2);
            let bell = Arc::new(Doorbell { asleep: AtomicBool::new(false) });
            let rung = Arc::new(AtomicBool::new(false));
            let (their_bell, their_ring) = (bell.clone(), rung.clone());
            let sender = thread::spawn(move || {
                tx.post(7).unwrap();
                if their_bell.must_ring() {
                    their_ring.store(true, Ordering::Release);
                }
            });
            bell.about_to_sleep();
            let seen = !rx.is_empty();
            sender.join().unwrap();
            // Asleep with mail and nobody rang: the lost wake-up.
            assert!(seen || rung.load(Ordering::Acquire), "lost wake-up");
            assert_eq!(rx.take(), Some(7));
        });
    }
}
