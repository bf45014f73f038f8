//! The epoll back end, for hosts that refuse io_uring: edge-triggered readiness and plain sends.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    ptr,
    time::Duration,
};

use super::{Errno, Event, Operation, Token, datagram::Arena};

const EVENTS_PER_WAIT: usize = 1024;
/// Nothing more will come from the peer.
const HANGUP: u32 = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32;

pub struct Epoll {
    epoll: OwnedFd,
    ready: Vec<libc::epoll_event>,
    /// Short sends, reported by the next wait.
    unsent: Vec<Event>,
    /// Sockets whose watch also asks for room to send, by token.
    writable: HashMap<Token, RawFd>,
}

impl Epoll {
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers are passed; the descriptor is checked.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh, valid descriptor that nobody else owns.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        let ready = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_PER_WAIT];
        Ok(Self { epoll, ready, unsent: Vec::new(), writable: HashMap::new() })
    }

    pub fn watch(&mut self, fd: RawFd, token: Token) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN | libc::EPOLLRDHUP, token)
    }

    pub fn watch_writable_once(&mut self, fd: RawFd, token: Token) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLOUT, token)?;
        self.writable.insert(token, fd);
        Ok(())
    }

    pub fn unwatch(&mut self, fd: RawFd, token: Token) {
        self.writable.remove(&token);
        // Fails only for a descriptor that is not watched, which is what was asked for.
        let _ = self.control(libc::EPOLL_CTL_DEL, fd, 0, 0);
    }

    pub fn send(&mut self, operations: &[Operation], datagrams: &Arena) {
        for operation in operations {
            let (token, length, result) = match *operation {
                Operation::Stream { fd, token, bytes, length } => {
                    // SAFETY: `bytes..length` is borrowed by the batch being submitted (U1).
                    let result = unsafe {
                        libc::send(fd, bytes.cast(), length, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
                    };
                    (token, length, result)
                }
                Operation::Datagram { fd, token, head } => {
                    // SAFETY: the header and all it points to are alive and still until the end of this call (U3).
                    let result = unsafe {
                        libc::sendmsg(fd, datagrams.header(head), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
                    };
                    (token, 0, result)
                }
            };
            let sent = match usize::try_from(result) {
                Ok(sent) if sent >= length => continue,
                Ok(sent) => Ok(sent),
                Err(_) => match io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) {
                    libc::EAGAIN | libc::EINTR => Ok(0),
                    error => Err(Errno(error)),
                },
            };
            self.unsent.push(Event::Unsent { token, sent });
        }
    }

    pub fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        let timeout = if self.unsent.is_empty() { timeout } else { Some(Duration::ZERO) };
        events.append(&mut self.unsent);
        let timeout = timeout.map(|timeout| libc::timespec {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: `ready` holds as many writable entries as are announced; `timeout` is null or points to a live
        // value; the signal mask is null.
        let count = unsafe {
            libc::epoll_pwait2(
                self.epoll.as_raw_fd(),
                self.ready.as_mut_ptr(),
                EVENTS_PER_WAIT as libc::c_int,
                timeout,
                ptr::null(),
            )
        };
        let Ok(count) = usize::try_from(count) else {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) };
        };
        for at in 0..count {
            let libc::epoll_event { events: flags, u64: token } = self.ready[at];
            if flags & libc::EPOLLOUT as u32 != 0
                && let Some(fd) = self.writable.remove(&token)
            {
                // Should this fail, the socket reports room more often than asked for.
                let _ = self.control(libc::EPOLL_CTL_MOD, fd, libc::EPOLLIN | libc::EPOLLRDHUP, token);
                events.push(Event::Writable(token));
            }
            if flags & HANGUP != 0 {
                events.push(Event::Hangup(token));
            } else if flags & libc::EPOLLIN as u32 != 0 {
                events.push(Event::Readable(token));
            }
        }
        Ok(())
    }

    fn control(&self, operation: libc::c_int, fd: RawFd, flags: libc::c_int, token: Token) -> io::Result<()> {
        let mut event = libc::epoll_event { events: (flags | libc::EPOLLET) as u32, u64: token };
        // SAFETY: a live event structure; the kernel copies it.
        let result = unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &raw mut event) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl AsRawFd for Epoll {
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }
}
