//! The io_uring back end: multishot polls for readiness, sends batched into the one `io_uring_enter` of a turn.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    time::Duration,
};

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use super::{Errno, Event, Operation, Token, WakeFd, datagram::Arena};

const SUBMISSIONS: u32 = 4096;
const COMPLETIONS: u32 = 32_768;

/// Of a poll's result: nothing more will come from the peer.
const HANGUP: i32 = (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) as i32;

const TAG_SHIFT: u32 = 60;
const TAG_READABLE: u64 = 1 << TAG_SHIFT;
const TAG_WRITABLE: u64 = 2 << TAG_SHIFT;
const TAG_SEND: u64 = 3 << TAG_SHIFT;
const TAG_IGNORED: u64 = 4 << TAG_SHIFT;
const TAG_MASK: u64 = 0xf << TAG_SHIFT;

pub struct Uring {
    ring: IoUring,
    /// Reaped while making room in the middle of a submit; reported by the next wait.
    early: Vec<Event>,
    /// A submit failed: what it left queued points to bytes that are given back, so nothing is submitted any more.
    poisoned: bool,
}

impl Uring {
    pub fn new() -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)?;
        if !ring.params().is_feature_ext_arg() || !ring.params().is_feature_skip_cqe_on_success() {
            return Err(io::Error::other("the kernel's io_uring is too old"));
        }
        Ok(Self { ring, early: Vec::new(), poisoned: false })
    }

    pub fn watch(&mut self, fd: RawFd, token: Token) -> io::Result<()> {
        let events = (libc::POLLIN | libc::POLLRDHUP) as u32;
        let poll = opcode::PollAdd::new(types::Fd(fd), events).multi(true).build();
        self.queue(&poll.user_data(TAG_READABLE | token))
    }

    pub fn watch_writable_once(&mut self, fd: RawFd, token: Token) -> io::Result<()> {
        let poll = opcode::PollAdd::new(types::Fd(fd), libc::POLLOUT as u32).build();
        self.queue(&poll.user_data(TAG_WRITABLE | token))
    }

    pub fn unwatch(&mut self, token: Token) {
        // Not `PollRemove`: it fails for a watch that has just been woken, which would then hold its socket for ever.
        for tag in [TAG_READABLE, TAG_WRITABLE] {
            let remove = opcode::AsyncCancel::new(tag | token)
                .build()
                .flags(squeue::Flags::SKIP_SUCCESS)
                .user_data(TAG_IGNORED);
            // A full queue that cannot be submitted means a dying ring, which ends every watch anyway.
            let _ = self.queue(&remove);
        }
    }

    /// Sends, and returns when the kernel is done with their memory (U2).
    pub fn submit(&mut self, operations: &[Operation], datagrams: &Arena) -> io::Result<()> {
        self.push(operations, datagrams)?;
        self.submit_queued()
    }

    /// Queues sends; the caller submits before the operations' bytes are given back (U1).
    pub fn push(&mut self, operations: &[Operation], datagrams: &Arena) -> io::Result<()> {
        for operation in operations {
            let entry = match *operation {
                Operation::Stream { fd, token, bytes, length } => {
                    let length = u32::try_from(length).unwrap_or(u32::MAX);
                    // WAITALL makes a short send count as failed, so that it is reported in spite of SKIP_SUCCESS.
                    opcode::Send::new(types::Fd(fd), bytes, length)
                        .flags(libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
                        .build()
                        .user_data(TAG_SEND | token)
                }
                Operation::Datagram { fd, token, head } => {
                    opcode::SendMsg::new(types::Fd(fd), datagrams.header(head))
                        .flags((libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as u32)
                        .build()
                        .user_data(TAG_SEND | token)
                }
            };
            self.queue(&entry.flags(squeue::Flags::SKIP_SUCCESS))?;
        }
        Ok(())
    }

    pub fn submit_and_wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        self.check_sound()?;
        events.append(&mut self.early);
        // What is here already must not wait for more; the submission still happens.
        let want = if self.ring.completion().is_empty() && events.is_empty() { 1 } else { 0 };
        let result = match timeout {
            None => self.ring.submit_and_wait(want),
            Some(timeout) => {
                let timeout = types::Timespec::from(timeout);
                let arguments = types::SubmitArgs::new().timespec(&timeout);
                self.ring.submitter().submit_with_args(want, &arguments)
            }
        };
        match result {
            Ok(_) => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY)) => {}
            Err(error) => return self.poison(error),
        }
        // Sends left in the queue (an interrupted or overflowing submit) must not outlive their bytes (U1).
        self.submit_queued()?;
        self.reap();
        events.append(&mut self.early);
        Ok(())
    }

    pub fn eventfd(&mut self) -> io::Result<OwnedFd> {
        let wake = WakeFd::new()?;
        self.ring.submitter().register_eventfd(wake.as_raw_fd())?;
        wake.as_fd().try_clone_to_owned()
    }

    fn submit_queued(&mut self) -> io::Result<()> {
        while !self.ring.submission().is_empty() {
            match self.ring.submit() {
                Ok(_) => {}
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN)) => {}
                // The completion queue is full.
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => self.reap(),
                Err(error) => return self.poison(error),
            }
        }
        Ok(())
    }

    fn poison(&mut self, error: io::Error) -> io::Result<()> {
        self.poisoned = true;
        Err(error)
    }

    fn check_sound(&self) -> io::Result<()> {
        if self.poisoned { Err(io::Error::other("the ring has failed before")) } else { Ok(()) }
    }

    fn queue(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        self.check_sound()?;
        // SAFETY: polls point to nothing; what sends point to stays valid until submitted (U1, U3).
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            self.submit_queued()?;
        }
        Ok(())
    }

    fn reap(&mut self) {
        let mut completions = self.ring.completion();
        loop {
            completions.sync();
            if completions.is_empty() {
                break;
            }
            for completion in completions.by_ref() {
                note(&completion, &mut self.early);
            }
        }
    }
}

fn note(completion: &cqueue::Entry, events: &mut Vec<Event>) {
    let token = completion.user_data() & !TAG_MASK;
    let result = completion.result();
    match completion.user_data() & TAG_MASK {
        TAG_READABLE | TAG_WRITABLE if result == -libc::ECANCELED => {}
        TAG_READABLE => {
            let ended = !cqueue::more(completion.flags());
            if result & HANGUP != 0 {
                events.push(Event::Hangup(token));
            } else if !ended {
                events.push(Event::Readable(token));
            }
            if ended {
                events.push(Event::Rewatch(token));
            }
        }
        TAG_WRITABLE => events.push(Event::Writable(token)),
        TAG_SEND => {
            let sent = match result {
                sent if sent >= 0 => Ok(sent as usize),
                error if error == -libc::EAGAIN => Ok(0),
                error => Err(Errno(-error)),
            };
            events.push(Event::Unsent { token, sent });
        }
        _ => {}
    }
}
