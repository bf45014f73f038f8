//! The media ring: every socket that carries media, and the listeners, of one shard.
//!
//! Three moves, the same over io_uring and over epoll: sockets are [`MediaIo::watch`]ed, what is to be sent is put
//! in a [`Batch`], and one call per loop turn submits the batch and waits for what happens next. It knows nothing
//! of the executor beside it; [`MediaIo::eventfd`] lets one wait for it.
//!
//! Sending never blocks and **never outlives the submit**: a socket that is full takes what it can, and the rest
//! comes back as [`Event::Unsent`]. So bytes are lent for one call, there is at most one send in flight per
//! socket, and a ring may be overwritten, grown or dropped at any other moment.
//!
//! Invariants of the `unsafe` below this folder:
//! * U1. A send operation is made from borrowed bytes by [`Batch`], whose lifetime keeps them borrowed until it is
//!   submitted. A batch that is dropped or forgotten is never submitted: the next [`MediaIo::batch`] clears it.
//! * U2. All sends carry `MSG_DONTWAIT`, so that the kernel finishes with their memory inside the submitting call.
//! * U3. Addresses, control data and I/O vectors of datagrams live in vectors that do not change between the
//!   moment pointers into them are taken and the end of the submitting call.

#![allow(unsafe_code)]

use std::{
    io,
    marker::PhantomData,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd},
    time::Duration,
};

mod datagram;
mod epoll;
mod interface;
pub mod limits;
mod uring;

pub use datagram::{DatagramSocket, RECEIVE_BYTES_MAX, Received};

use crate::shard::media_io::datagram::Address;

/// Largest number of segments in one GSO send (the kernel's `UDP_MAX_SEGMENTS` on all versions we run on).
pub const SEGMENTS_MAX: usize = 64;
/// Largest GSO send in bytes: one IP datagram's worth of payload.
pub const GSO_BYTES_MAX: usize = 65_000;

/// Names a watched socket or a send to its owner; the upper four bits must be zero.
pub type Token = u64;

/// What a turn of the loop brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// There may be something to receive (or an error, or the end): read until it would block.
    Readable(Token),
    /// As [`Event::Readable`], and the peer has closed its side or the connection is broken: read until the end, for
    /// nothing more will be reported.
    Hangup(Token),
    /// As [`Event::Readable`], but the watch has ended and must be set again.
    Rewatch(Token),
    /// A socket for which [`MediaIo::watch_writable_once`] was asked has room again.
    Writable(Token),
    /// A send did not go out whole: `sent` bytes did (0 when the socket was full), or it failed for good.
    Unsent { token: Token, sent: Result<usize, Errno> },
}

/// An operating system error number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl From<Errno> for io::Error {
    fn from(error: Errno) -> Self {
        Self::from_raw_os_error(error.0)
    }
}

/// One send, as plain pointers; only a [`Batch`] makes one (U1).
enum Operation {
    Stream { fd: RawFd, token: Token, bytes: *const u8, length: usize },
    Datagram { fd: RawFd, token: Token, head: usize },
}

enum Backend {
    Uring(uring::Uring),
    Epoll(epoll::Epoll),
}

/// The media ring of one shard.
pub struct MediaIo {
    backend: Backend,
    operations: Vec<Operation>,
    datagrams: datagram::Arena,
}

/// Which back end runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendKind {
    IoUring,
    Epoll,
}

impl MediaIo {
    /// Opens the back end asked for. The io_uring one is proven by a small exchange before it is trusted.
    pub fn new(kind: BackendKind) -> io::Result<Self> {
        let backend = match kind {
            BackendKind::IoUring => Backend::Uring(uring::Uring::new()?),
            BackendKind::Epoll => Backend::Epoll(epoll::Epoll::new()?),
        };
        let mut media_io =
            Self { backend, operations: Vec::with_capacity(1024), datagrams: datagram::Arena::default() };
        if kind == BackendKind::IoUring {
            media_io.prove()?;
        }
        Ok(media_io)
    }

    /// Fills a socket pair and checks that the short send is reported as such, at once: some kernels and sandboxes
    /// offer the ring but not what we build on.
    fn prove(&mut self) -> io::Result<()> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        const PROBE: Token = 1;
        let block = vec![0_u8; 1 << 20];
        let mut events = Vec::new();
        self.watch(ours.as_raw_fd(), PROBE)?;
        let mut batch = self.batch();
        for _ in 0..4 {
            batch.send(ours.as_raw_fd(), PROBE, &block);
        }
        batch.submit_and_wait(Some(Duration::from_secs(1)), &mut events)?;
        let full = events.iter().any(|event| matches!(event, Event::Unsent { sent: Ok(_), .. }));
        drop(theirs);
        while !events.contains(&Event::Hangup(PROBE)) {
            events.clear();
            self.wait(Some(Duration::from_secs(1)), &mut events)?;
            if events.is_empty() {
                return Err(io::Error::other("the ring does not report a socket's end"));
            }
        }
        self.unwatch(ours.as_raw_fd(), PROBE);
        self.wait(Some(Duration::ZERO), &mut Vec::new())?;
        if full { Ok(()) } else { Err(io::Error::other("the ring does not report a full socket")) }
    }

    /// Reports readability of `fd` under `token` from now on, edge by edge.
    pub fn watch(&mut self, fd: RawFd, token: Token) -> io::Result<()> {
        debug_assert_eq!(token >> 60, 0);
        match &mut self.backend {
            Backend::Uring(uring) => uring.watch(fd, token),
            Backend::Epoll(epoll) => epoll.watch(fd, token),
        }
    }

    /// Reports once when a watched `fd` has room to send again.
    pub fn watch_writable_once(&mut self, fd: RawFd, token: Token) -> io::Result<()> {
        match &mut self.backend {
            Backend::Uring(uring) => uring.watch_writable_once(fd, token),
            Backend::Epoll(epoll) => epoll.watch_writable_once(fd, token),
        }
    }

    /// Ends all watching of `fd`; to be called before it is closed. Events already under way may still come.
    pub fn unwatch(&mut self, fd: RawFd, token: Token) {
        match &mut self.backend {
            Backend::Uring(uring) => uring.unwatch(token),
            Backend::Epoll(epoll) => epoll.unwatch(fd, token),
        }
    }

    /// Starts a batch of sends. The bytes given to it stay borrowed until it is submitted.
    pub fn batch<'bytes>(&mut self) -> Batch<'_, 'bytes> {
        self.operations.clear();
        self.datagrams.clear();
        Batch { media_io: self, _bytes: PhantomData }
    }

    /// Waits until something happens or `timeout` has passed, and appends what happened to `events`.
    pub fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        match &mut self.backend {
            Backend::Uring(uring) => uring.submit_and_wait(timeout, events),
            Backend::Epoll(epoll) => epoll.wait(timeout, events),
        }
    }

    /// An event counter that counts when [`MediaIo::wait`] would return at once, for an executor that sleeps
    /// elsewhere. `None` where the back end has no such thing (epoll).
    pub fn eventfd(&mut self) -> io::Result<Option<OwnedFd>> {
        match &mut self.backend {
            Backend::Uring(uring) => uring.eventfd().map(Some),
            Backend::Epoll(_) => Ok(None),
        }
    }
}

/// Sends that go to the kernel together.
pub struct Batch<'io, 'bytes> {
    media_io: &'io mut MediaIo,
    _bytes: PhantomData<&'bytes [u8]>,
}

/// A run of buffers that several datagram sends of one batch share.
#[derive(Debug, Clone, Copy)]
pub struct Group {
    first: usize,
    count: usize,
}

impl<'bytes> Batch<'_, 'bytes> {
    /// True when nothing was added yet.
    pub fn is_empty(&self) -> bool {
        self.media_io.operations.is_empty()
    }

    /// Adds one contiguous stream send. Only one per socket and batch: a second would not know of the first's
    /// short count.
    pub fn send(&mut self, fd: RawFd, token: Token, bytes: &'bytes [u8]) {
        let operation = Operation::Stream { fd, token, bytes: bytes.as_ptr(), length: bytes.len() };
        self.media_io.operations.push(operation);
    }

    /// Adds the buffers of one datagram, or of several of equal length, for [`Batch::send_group`].
    pub fn group(&mut self, buffers: impl IntoIterator<Item = &'bytes [u8]>) -> Group {
        self.media_io.datagrams.group(buffers)
    }

    /// Sends a group to `to` (`None` on a connected socket): as one datagram, or cut into datagrams of `segment`
    /// bytes by the kernel (UDP GSO).
    pub fn send_group(
        &mut self,
        fd: RawFd,
        token: Token,
        to: Option<SocketAddr>,
        group: Group,
        segment: Option<u16>,
    ) {
        let head = self.media_io.datagrams.push(to.map(Address::from), group, segment);
        self.media_io.operations.push(Operation::Datagram { fd, token, head });
    }

    /// Submits and returns; short sends are reported by the next wait.
    pub fn submit(self) -> io::Result<()> {
        let Self { media_io, .. } = self;
        media_io.datagrams.point();
        match &mut media_io.backend {
            Backend::Uring(uring) => uring.submit(&media_io.operations, &media_io.datagrams),
            Backend::Epoll(epoll) => {
                epoll.send(&media_io.operations, &media_io.datagrams);
                Ok(())
            }
        }
    }

    /// Submits and waits as [`MediaIo::wait`] does, with one system call where the back end can.
    pub fn submit_and_wait(self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        let Self { media_io, .. } = self;
        media_io.datagrams.point();
        match &mut media_io.backend {
            Backend::Uring(uring) => {
                uring.push(&media_io.operations, &media_io.datagrams)?;
                uring.submit_and_wait(timeout, events)
            }
            Backend::Epoll(epoll) => {
                epoll.send(&media_io.operations, &media_io.datagrams);
                epoll.wait(timeout, events)
            }
        }
    }
}

/// What other threads ring to wake a shard out of its media ring.
#[derive(Debug)]
pub struct WakeFd(OwnedFd);

impl WakeFd {
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers are passed; the descriptor is checked and owned by nobody else.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh, valid descriptor.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Wakes the one who watches. Never blocks.
    pub fn ring(&self) {
        let one = 1_u64;
        // SAFETY: eight readable bytes; the descriptor is open. A full counter means it is readable anyway.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), size_of::<u64>()) };
    }

    /// Makes it unreadable again.
    pub fn reset(&self) {
        let mut count = 0_u64;
        // SAFETY: eight writable bytes; the descriptor is open and non-blocking.
        unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), size_of::<u64>()) };
    }
}

impl AsFd for WakeFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for WakeFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Makes something that owns a descriptor out of one: safe, because the ownership moves along.
pub fn adopt<T: FromRawFd>(fd: OwnedFd) -> T {
    // SAFETY: the descriptor is open and nobody else owns it.
    unsafe { T::from_raw_fd(fd.into_raw_fd()) }
}

/// CPU time this thread has used.
pub fn thread_cpu_time() -> Duration {
    let mut spent = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a writable timespec; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut spent) };
    Duration::new(spent.tv_sec as u64, spent.tv_nsec as u32)
}

#[cfg(test)]
mod tests;
