//! The seam to the executor: no glommio type appears outside this file, so that another local executor can stand in
//! where io_uring is refused. What is asked of one is little: run a future pinned to a core, and, when a shard parks
//! there instead of in its media ring, wait for a descriptor.

use std::{
    future::{Future, poll_fn},
    io,
    os::fd::OwnedFd,
    pin::pin,
    task::Poll,
    thread,
    time::Duration,
};

use glommio::{LocalExecutorBuilder, Placement, io::BufferedFile};

use super::media_io::adopt;

/// A running shard thread.
pub struct Joiner(thread::JoinHandle<io::Result<()>>);

impl Joiner {
    /// Waits for the thread's end.
    ///
    /// # Errors
    /// What ended it: the executor could not start, or the thread panicked.
    pub fn join(self) -> io::Result<()> {
        self.0.join().unwrap_or_else(|_| Err(io::Error::other("the shard's thread panicked")))
    }
}

/// Runs the future that `make` gives on a new thread pinned to `core`.
///
/// # Errors
/// When the thread cannot be started. What stops the executor itself from starting is told by [`Joiner::join`].
pub fn start<F>(core: usize, name: &str, make: impl FnOnce() -> F + Send + 'static) -> io::Result<Joiner>
where
    F: Future<Output = io::Result<()>> + 'static,
{
    let name = name.to_owned();
    let builder = thread::Builder::new().name(name.clone());
    let thread = builder.spawn(move || {
        // Media does not pass through the executor's rings, so they and its buffers stay small.
        let executor = LocalExecutorBuilder::new(Placement::Fixed(core))
            .name(&name)
            .ring_depth(128)
            .io_memory(256 * 1024)
            .make()
            .map_err(|error| io::Error::other(explain(&error.to_string(), core)))?;
        executor.run(make())
    })?;
    Ok(Joiner(thread))
}

/// An event counter awaited through the executor's own reactor: the price of a wake-up is the executor's.
pub struct Readiness(BufferedFile);

impl Readiness {
    /// `eventfd` must be an event counter (`eventfd(2)`).
    pub fn of_eventfd(eventfd: OwnedFd) -> Self {
        Self(adopt(eventfd))
    }

    /// Waits until it counts something, and resets it.
    pub async fn wait(&self) -> io::Result<()> {
        self.0
            .read_at(0, size_of::<u64>())
            .await
            .map(drop)
            .map_err(|error| io::Error::other(error.to_string()))
    }
}

/// Waits for `readiness`, but no longer than `at_most`.
pub async fn wait_at_most(readiness: impl Future<Output = io::Result<()>>, at_most: Duration) {
    let (mut readiness, mut timer) = (pin!(readiness), pin!(glommio::timer::sleep(at_most)));
    poll_fn(|context| {
        if readiness.as_mut().poll(context).is_ready() || timer.as_mut().poll(context).is_ready() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

/// What an operator has to change when the executor does not start.
fn explain(error: &str, core: usize) -> String {
    let advice = if error.contains("emlock") {
        "raise the limit on locked memory to 8 MiB or more (LimitMEMLOCK= in the unit, `ulimit -l` in a shell)"
    } else {
        "allow io_uring: sysctl kernel.io_uring_disabled=0, and a seccomp profile with io_uring_setup, io_uring_enter \
         and io_uring_register (Docker's default profile refuses them)"
    };
    format!("the executor of core {core} does not start: {error}; {advice}")
}
