//! Futures without an executor: each says by a flag that it can go on, and is polled only then.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
};

/// Up when a future can go on. Wakers have to be `Send`; this one never leaves its shard in fact.
#[derive(Debug)]
pub struct Flag(AtomicBool);

impl Flag {
    /// A future has to be polled once before it can say anything, so it begins up.
    pub fn new() -> Arc<Self> {
        Arc::new(Self(AtomicBool::new(true)))
    }

    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_up(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether it was up; it is down afterwards.
    pub fn lower(&self) -> bool {
        self.is_up() && self.0.swap(false, Ordering::Relaxed)
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.raise();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.raise();
    }
}

type Work = Pin<Box<dyn Future<Output = ()>>>;

/// Where an HTTP/2 connection puts the futures of its streams.
#[derive(Clone, Default)]
pub struct Spawner(Rc<RefCell<Vec<Work>>>);

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Spawner {
    fn execute(&self, future: F) {
        self.0.borrow_mut().push(Box::pin(future));
    }
}

/// The futures of one connection's streams; they end with it.
#[derive(Default)]
pub struct Tasks {
    spawner: Spawner,
    running: Vec<Task>,
}

struct Task {
    work: Work,
    flag: Arc<Flag>,
    waker: Waker,
}

impl Tasks {
    pub fn spawner(&self) -> Spawner {
        self.spawner.clone()
    }

    /// Polls those that can go on. False when there was none.
    pub fn poll(&mut self) -> bool {
        let new = std::mem::take(&mut *self.spawner.0.borrow_mut());
        self.running.extend(new.into_iter().map(|work| {
            let flag = Flag::new();
            Task { work, waker: Waker::from(Arc::clone(&flag)), flag }
        }));
        let mut went_on = false;
        let mut at = 0;
        while let Some(task) = self.running.get_mut(at) {
            if !task.flag.lower() {
                at += 1;
                continue;
            }
            went_on = true;
            match task.work.as_mut().poll(&mut Context::from_waker(&task.waker)) {
                std::task::Poll::Ready(()) => drop(self.running.swap_remove(at)),
                std::task::Poll::Pending => at += 1,
            }
        }
        if self.running.is_empty() {
            self.running.shrink_to(4);
        }
        went_on
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::poll_fn, task::Poll};

    use hyper::rt::Executor as _;

    use super::*;

    #[test]
    fn only_futures_that_were_woken_are_polled() {
        let mut tasks = Tasks::default();
        let (polls, waker) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(None::<Waker>)));
        for _ in 0..3 {
            let (polls, waker) = (Rc::clone(&polls), Rc::clone(&waker));
            let mut first = true;
            tasks.spawner().execute(poll_fn(move |cx| {
                polls.set(polls.get() + 1);
                *waker.borrow_mut() = Some(cx.waker().clone());
                if std::mem::take(&mut first) { Poll::Pending } else { Poll::Ready(()) }
            }));
        }
        assert!(tasks.poll());
        assert!(!tasks.poll());
        assert_eq!(polls.get(), 3);
        waker.take().unwrap().wake();
        assert!(tasks.poll());
        assert_eq!((polls.get(), tasks.running.len()), (4, 2));
        assert!(!tasks.poll());
    }
}
