//! The few system calls std and socket2 do not offer: epoll, GSO and GRO on UDP, CPU clocks, pinning.
//! All `unsafe` of this crate is here.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use socket2::SockAddr;

/// Segments of one GSO send: the kernel takes 64 everywhere, and 65,507 bytes of payload in all.
pub const GSO_SEGMENTS: usize = 64;
pub const GSO_BYTES: usize = 65_000;
const UDP_SEGMENT: libc::c_int = 103;
const UDP_GRO: libc::c_int = 104;

fn check(rc: libc::c_int) -> io::Result<libc::c_int> {
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc) }
}

fn clock(id: libc::clockid_t) -> io::Result<u64> {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `ts` is a valid, writable timespec for the whole call.
    check(unsafe { libc::clock_gettime(id, &mut ts) })?;
    Ok(ts.tv_sec as u64 * 1_000_000_000 + ts.tv_nsec as u64)
}

/// CLOCK_MONOTONIC in nanoseconds; the same for every process of this machine.
pub fn mono_ns() -> u64 {
    clock(libc::CLOCK_MONOTONIC).unwrap_or(0)
}

/// CPU time of the calling thread.
pub fn thread_cpu_ns() -> u64 {
    clock(libc::CLOCK_THREAD_CPUTIME_ID).unwrap_or(0)
}

/// CPU time of a process, all its threads, also those that have ended, in nanoseconds.
pub fn process_cpu_ns(pid: i32) -> io::Result<u64> {
    let mut id: libc::clockid_t = 0;
    // SAFETY: `id` is valid and writable for the whole call.
    let rc = unsafe { libc::clock_getcpuclockid(pid, &mut id) };
    if rc != 0 {
        return Err(io::Error::from_raw_os_error(rc));
    }
    clock(id)
}

/// Pins a process or thread (0: the caller) to one CPU. Async-signal-safe.
pub fn pin(pid: i32, cpu: usize) -> io::Result<()> {
    // SAFETY: cpu_set_t is plain bits, all zero is the empty set; CPU_SET checks nothing, so the bound is checked here.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: `set` is a live cpu_set_t and `cpu` is below CPU_SETSIZE; the kernel only reads the set.
    check(unsafe {
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(pid, size_of::<libc::cpu_set_t>(), &set)
    })?;
    Ok(())
}

/// Sets the nice value of the calling thread; children inherit it.
pub fn nice(value: i32) -> io::Result<()> {
    // SAFETY: setpriority touches no memory; 0 is the caller.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, value) })?;
    Ok(())
}

/// The CPUs a process may run on.
pub fn affinity(pid: i32) -> io::Result<Vec<usize>> {
    // SAFETY: all-zero is the empty set; the kernel writes at most the size passed.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is valid and writable for the size passed.
    check(unsafe { libc::sched_getaffinity(pid, size_of::<libc::cpu_set_t>(), &mut set) })?;
    // SAFETY: every index is below CPU_SETSIZE.
    Ok((0..libc::CPU_SETSIZE as usize).filter(|&c| unsafe { libc::CPU_ISSET(c, &set) }).collect())
}

/// Raises the soft limit of open files to the hard one (and the hard one, if we may, to `want`).
pub fn raise_nofile(want: u64) -> io::Result<u64> {
    let mut l = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `l` is valid and writable.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut l) })?;
    let big = libc::rlimit { rlim_cur: want.max(l.rlim_max), rlim_max: want.max(l.rlim_max) };
    // SAFETY: the kernel only reads `big`.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &big) } == 0 {
        return Ok(big.rlim_cur);
    }
    let l = libc::rlimit { rlim_cur: l.rlim_max, rlim_max: l.rlim_max };
    // SAFETY: the kernel only reads `l`.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &l) })?;
    Ok(l.rlim_cur)
}

/// Timer slack of the calling thread: the default of 50 us would make every frame late.
pub fn tight_timers() {
    // SAFETY: PR_SET_TIMERSLACK takes one integer and touches no memory.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_000usize) };
}

/// Makes a child start pinned to `cpu`, and end when this program ends, however that comes about.
pub fn prepare_child(c: &mut std::process::Command, cpu: Option<usize>) {
    use std::os::unix::process::CommandExt;
    let ready = move || {
        // SAFETY: PR_SET_PDEATHSIG takes one integer and touches no memory.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM as usize) };
        cpu.map_or(Ok(()), |cpu| pin(0, cpu))
    };
    // SAFETY: between fork and exec the closure makes two system calls, no allocation, no lock.
    unsafe { c.pre_exec(ready) };
}

/// Sends a signal to one process that this program started.
pub fn signal(pid: i32, sig: i32) {
    if pid > 1 {
        // SAFETY: kill touches no memory; pid > 1 rules out groups and init.
        unsafe { libc::kill(pid, sig) };
    }
}

pub struct Epoll(OwnedFd);

pub use libc::epoll_event as Event;
pub const IN: u32 = libc::EPOLLIN as u32;
pub const OUT: u32 = libc::EPOLLOUT as u32;
pub const HUP: u32 = (libc::EPOLLHUP | libc::EPOLLERR | libc::EPOLLRDHUP) as u32;
/// Edge triggered, everything: registered once per socket.
pub const EDGE: u32 = (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP) as u32 | libc::EPOLLET as u32;
pub const EDGE_IN: u32 = (libc::EPOLLIN | libc::EPOLLRDHUP) as u32 | libc::EPOLLET as u32;

impl Epoll {
    pub fn new() -> io::Result<Self> {
        // SAFETY: no memory is passed; the descriptor returned is ours alone.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: `fd` was just made and nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub fn add(&self, fd: RawFd, events: u32, token: u64) -> io::Result<()> {
        let mut ev = Event { events, u64: token };
        // SAFETY: the kernel copies `ev` during the call; a stale `fd` gives EBADF, no memory is touched.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut ev) })?;
        Ok(())
    }

    /// Waits up to `ns`; None waits for ever.
    pub fn wait(&self, events: &mut [Event], ns: Option<u64>) -> io::Result<usize> {
        let ts = ns.map(|ns| libc::timespec {
            tv_sec: (ns / 1_000_000_000) as i64,
            tv_nsec: (ns % 1_000_000_000) as i64,
        });
        let tsp = ts.as_ref().map_or(std::ptr::null(), |t| t as *const libc::timespec);
        // SAFETY: `events` is writable for its length, `tsp` is null or points to `ts`, which outlives the call;
        // the signal mask is null (size ignored).
        let n = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.0.as_raw_fd(),
                events.as_mut_ptr(),
                events.len() as libc::c_int,
                tsp,
                std::ptr::null::<libc::sigset_t>(),
                0usize,
            )
        };
        if n < 0 {
            let e = io::Error::last_os_error();
            return if e.kind() == io::ErrorKind::Interrupted { Ok(0) } else { Err(e) };
        }
        Ok(n as usize)
    }
}

/// Asks the kernel to hand over runs of datagrams whole.
pub fn enable_gro(s: &UdpSocket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the kernel reads `size_of(on)` bytes at `on`, which lives through the call.
    check(unsafe {
        libc::setsockopt(
            s.as_raw_fd(),
            libc::SOL_UDP,
            UDP_GRO,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    })?;
    Ok(())
}

#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 64]);

/// One sendmsg of equal datagrams of `segment` bytes (the last may be shorter), to `to`.
pub fn send_gso(s: &UdpSocket, to: SocketAddr, bytes: &[u8], segment: usize) -> io::Result<usize> {
    let to = SockAddr::from(to);
    let mut iov = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = Control([0; 64]);
    // SAFETY: msghdr is plain data, all zero is an empty message.
    let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
    msg.msg_name = to.as_ptr().cast_mut().cast();
    msg.msg_namelen = to.len();
    msg.msg_iov = &mut iov;
    msg.msg_iovlen = 1;
    if bytes.len() > segment {
        msg.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: `control` is 8-aligned and 64 bytes, more than CMSG_SPACE(2) = 24; CMSG_FIRSTHDR points into it,
        // and the data written is the two bytes of a u16.
        unsafe {
            msg.msg_controllen = libc::CMSG_SPACE(2) as usize;
            let c = libc::CMSG_FIRSTHDR(&msg);
            (*c).cmsg_level = libc::SOL_UDP;
            (*c).cmsg_type = UDP_SEGMENT;
            (*c).cmsg_len = libc::CMSG_LEN(2) as usize;
            libc::CMSG_DATA(c).cast::<u16>().write_unaligned(segment as u16);
        }
    }
    // SAFETY: every pointer in `msg` points to a local that outlives the call; sendmsg only reads them.
    let n = unsafe { libc::sendmsg(s.as_raw_fd(), &msg, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(n as usize) }
}

const BATCH: usize = 16;
const SLOT: usize = 65_536;

/// Buffers of one recvmmsg: up to 16 messages, each up to 64 KB (a GRO run).
pub struct RecvBatch {
    data: Box<[u8]>,
    control: Box<[Control]>,
    iov: Box<[libc::iovec]>,
    msgs: Box<[libc::mmsghdr]>,
    filled: usize,
}

impl RecvBatch {
    pub const LEN: usize = BATCH;

    pub fn new() -> Self {
        let mut data = vec![0u8; BATCH * SLOT].into_boxed_slice();
        let base = data.as_mut_ptr();
        let iov: Box<[_]> = (0..BATCH)
            // SAFETY: i * SLOT is inside `data`. The boxes live and stay in place as long as this value does.
            .map(|i| libc::iovec { iov_base: unsafe { base.add(i * SLOT) }.cast(), iov_len: SLOT })
            .collect();
        let control = vec![Control([0; 64]); BATCH].into_boxed_slice();
        // SAFETY: mmsghdr is plain data; all zero is an empty message.
        let msgs = vec![unsafe { std::mem::zeroed::<libc::mmsghdr>() }; BATCH].into_boxed_slice();
        Self { data, control, iov, msgs, filled: 0 }
    }

    /// Takes what the socket holds now. Fewer than `LEN` messages: the socket is drained.
    pub fn recv(&mut self, s: &UdpSocket) -> io::Result<usize> {
        self.filled = 0;
        for i in 0..BATCH {
            let h = &mut self.msgs[i].msg_hdr;
            h.msg_iov = &mut self.iov[i];
            h.msg_iovlen = 1;
            h.msg_control = self.control[i].0.as_mut_ptr().cast();
            h.msg_controllen = size_of::<Control>();
            h.msg_flags = 0;
        }
        // SAFETY: each header points to one slot of `data` and one of `control`, both owned by self, boxed (never
        // moved) and not touched until the call returns.
        let n = unsafe {
            libc::recvmmsg(
                s.as_raw_fd(),
                self.msgs.as_mut_ptr(),
                BATCH as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        self.filled = check(n)? as usize;
        Ok(self.filled)
    }

    /// Message `i` of the last `recv`: its bytes and the length of one datagram in it.
    pub fn message(&self, i: usize) -> (&[u8], usize) {
        assert!(i < self.filled);
        let len = (self.msgs[i].msg_len as usize).min(SLOT);
        let mut segment = len;
        let hdr = &self.msgs[i].msg_hdr;
        // SAFETY: the kernel filled `control` up to msg_controllen; CMSG_FIRSTHDR/NXTHDR stay inside it, and UDP_GRO
        // carries a c_int.
        unsafe {
            let mut c = libc::CMSG_FIRSTHDR(hdr);
            while !c.is_null() {
                if (*c).cmsg_level == libc::SOL_UDP && (*c).cmsg_type == UDP_GRO {
                    segment = libc::CMSG_DATA(c).cast::<libc::c_int>().read_unaligned() as usize;
                }
                c = libc::CMSG_NXTHDR(hdr, c);
            }
        }
        (&self.data[i * SLOT..i * SLOT + len], segment.clamp(1, len.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gso_run_arrives_as_the_datagrams_sent() {
        let rx = UdpSocket::bind("127.0.0.1:0").unwrap();
        let tx = UdpSocket::bind("127.0.0.1:0").unwrap();
        rx.set_read_timeout(Some(std::time::Duration::from_secs(2))).unwrap();
        let bytes: Vec<u8> = (0..2500u32).map(|i| i as u8).collect();
        assert_eq!(send_gso(&tx, rx.local_addr().unwrap(), &bytes, 1000).unwrap(), 2500);
        let mut buf = [0; 2000];
        for want in [&bytes[..1000], &bytes[1000..2000], &bytes[2000..]] {
            let n = rx.recv(&mut buf).unwrap();
            assert_eq!(&buf[..n], want);
        }
        enable_gro(&rx).unwrap();
        send_gso(&tx, rx.local_addr().unwrap(), &bytes, 1000).unwrap();
        let mut b = RecvBatch::new();
        let n = b.recv(&rx).unwrap();
        let mut all = Vec::new();
        for i in 0..n {
            let (d, seg) = b.message(i);
            assert!(seg <= 1000);
            all.extend_from_slice(d);
        }
        assert_eq!(all, bytes);
    }

    #[test]
    fn own_cpu_clock_moves() {
        let pid = std::process::id() as i32;
        let a = process_cpu_ns(pid).unwrap();
        let t = thread_cpu_ns();
        while thread_cpu_ns() < t + 3_000_000 {}
        assert!(process_cpu_ns(pid).unwrap() > a + 1_000_000);
        assert!(!affinity(0).unwrap().is_empty());
    }
}
