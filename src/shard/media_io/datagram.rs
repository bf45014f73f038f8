//! Datagrams: what a send points to, GSO and GRO control data, and the UDP socket itself.

use std::{
    io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    num::NonZeroUsize,
    os::fd::{AsRawFd, RawFd},
    ptr,
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{Group, interface};

/// `UDP_GRO` hands over at most this much at once.
pub const RECEIVE_BYTES_MAX: usize = 65_536;
const CONTROL_BYTES: usize = 64;

/// A socket address in the kernel's form.
#[derive(Clone, Copy)]
pub struct Address {
    storage: libc::sockaddr_in6,
    length: libc::socklen_t,
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        // SAFETY: plain integers, for which all zeros is a value.
        let mut storage: libc::sockaddr_in6 = unsafe { mem::zeroed() };
        let length = match address {
            SocketAddr::V6(v6) => {
                storage.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                storage.sin6_port = v6.port().to_be();
                storage.sin6_addr.s6_addr = v6.ip().octets();
                storage.sin6_scope_id = v6.scope_id();
                size_of::<libc::sockaddr_in6>()
            }
            SocketAddr::V4(v4) => {
                let short = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from(*v4.ip()).to_be() },
                    sin_zero: [0; 8],
                };
                // SAFETY: `sockaddr_in` is smaller than `sockaddr_in6` and both are plain bytes.
                unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write_unaligned(short) };
                size_of::<libc::sockaddr_in>()
            }
        };
        Self { storage, length: length as libc::socklen_t }
    }
}

#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL_BYTES]);

struct Head {
    header: libc::msghdr,
    address: Option<Address>,
    control: Control,
    group: Group,
    segment: Option<u16>,
}

/// What the datagram sends of one batch point to (U3).
#[derive(Default)]
pub struct Arena {
    buffers: Vec<libc::iovec>,
    heads: Vec<Head>,
}

impl Arena {
    pub fn clear(&mut self) {
        self.buffers.clear();
        self.heads.clear();
    }

    pub fn group<'bytes>(&mut self, buffers: impl IntoIterator<Item = &'bytes [u8]>) -> Group {
        let first = self.buffers.len();
        self.buffers.extend(
            buffers.into_iter().map(|bytes| libc::iovec {
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: bytes.len(),
            }),
        );
        Group { first, count: self.buffers.len() - first }
    }

    pub fn push(&mut self, address: Option<Address>, group: Group, segment: Option<u16>) -> usize {
        assert!(group.first + group.count <= self.buffers.len(), "a group of another batch");
        // SAFETY: plain integers and pointers, for which all zeros is a value.
        let header: libc::msghdr = unsafe { mem::zeroed() };
        self.heads.push(Head { header, address, control: Control([0; CONTROL_BYTES]), group, segment });
        self.heads.len() - 1
    }

    /// Sets every pointer, once nothing moves any more (U3).
    pub fn point(&mut self) {
        let buffers = self.buffers.as_mut_ptr();
        for head in &mut self.heads {
            if let Some(address) = &mut head.address {
                head.header.msg_name = (&raw mut address.storage).cast();
                head.header.msg_namelen = address.length;
            }
            // SAFETY: the group lies within `buffers`, as `push` checked.
            head.header.msg_iov = unsafe { buffers.add(head.group.first) };
            head.header.msg_iovlen = head.group.count as _;
            if let Some(segment) = head.segment {
                head.header.msg_control = head.control.0.as_mut_ptr().cast();
                // SAFETY: the control buffer is large enough for one `u16` and aligned for its header.
                unsafe {
                    head.header.msg_controllen = libc::CMSG_SPACE(2) as _;
                    let control = libc::CMSG_FIRSTHDR(&raw const head.header);
                    (*control).cmsg_level = libc::SOL_UDP;
                    (*control).cmsg_type = libc::UDP_SEGMENT;
                    (*control).cmsg_len = libc::CMSG_LEN(2) as _;
                    libc::CMSG_DATA(control).cast::<u16>().write_unaligned(segment);
                }
            }
        }
    }

    pub fn header(&self, head: usize) -> *const libc::msghdr {
        &raw const self.heads[head].header
    }
}

/// One receive: `length` bytes from `from`, cut into datagrams of `segment` bytes (the last may be shorter).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    pub from: SocketAddr,
    pub length: usize,
    pub segment: usize,
}

/// A UDP socket of ours: non-blocking, shared port, GRO where the kernel has it.
#[derive(Debug)]
pub struct DatagramSocket(Socket);

impl DatagramSocket {
    /// Binds to `address`, beside other sockets of ours on it (`SO_REUSEPORT`).
    ///
    /// `receive_buffer` asks for `SO_RCVBUF` bytes; the kernel may clip it, see [`Self::shortfall`].
    pub fn bind(address: SocketAddr, receive_buffer: Option<NonZeroUsize>) -> io::Result<Self> {
        Self::bind_as(address, receive_buffer, |socket| socket.set_reuse_port(true))
    }

    /// Binds to `address`, and to no port that anybody has.
    pub fn bind_alone(address: SocketAddr, receive_buffer: Option<NonZeroUsize>) -> io::Result<Self> {
        Self::bind_as(address, receive_buffer, |_| Ok(()))
    }

    /// Binds to a multicast group, beside whoever else on this host hears it, and joins it on the interface that
    /// has the address `ours`. With `source`, only what that one sends comes in.
    pub fn join(
        group: SocketAddr,
        ours: SocketAddr,
        source: Option<IpAddr>,
        receive_buffer: Option<NonZeroUsize>,
    ) -> io::Result<Self> {
        let bind = |group| Self::bind_as(group, receive_buffer, |socket| socket.set_reuse_address(true));
        match (group, ours) {
            (SocketAddr::V4(group), SocketAddr::V4(ours)) => {
                let socket = bind(group.into())?;
                match source {
                    Some(IpAddr::V4(source)) => socket.0.join_ssm_v4(&source, group.ip(), ours.ip())?,
                    _ => socket.0.join_multicast_v4(group.ip(), ours.ip())?,
                }
                Ok(socket)
            }
            (SocketAddr::V6(mut group), SocketAddr::V6(ours)) => {
                // 0: as the routes say.
                let interface = interface::index_of(&ours).unwrap_or(0);
                // RFC 4007 §6: groups of a link are there once on each.
                group.set_scope_id(interface);
                let socket = bind(group.into())?;
                socket.0.join_multicast_v6(group.ip(), interface)?;
                Ok(socket)
            }
            (SocketAddr::V4(_), SocketAddr::V6(_)) | (SocketAddr::V6(_), SocketAddr::V4(_)) => {
                Err(io::Error::other("the group and the connection are of different address families"))
            }
        }
    }

    /// `share` says with whom, before the port is taken.
    fn bind_as(
        address: SocketAddr,
        receive_buffer: Option<NonZeroUsize>,
        share: impl FnOnce(&Socket) -> io::Result<()>,
    ) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_nonblocking(true)?;
        share(&socket)?;
        if let Some(bytes) = receive_buffer {
            socket.set_recv_buffer_size(bytes.get())?;
        }
        socket.bind(&address.into())?;
        let on: libc::c_int = 1;
        // SAFETY: an `int` and its size. A kernel without UDP_GRO refuses, and datagrams come one by one.
        unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_UDP,
                libc::UDP_GRO,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        Ok(Self(socket))
    }

    /// Takes datagrams from `peer` only, and those before any unconnected socket on the same port.
    pub fn connect(&self, peer: SocketAddr) -> io::Result<()> {
        self.0.connect(&peer.into())
    }

    /// What to do about it when the kernel granted less receive buffer than the `wanted` bytes, which is the cause of
    /// most loss over UDP; `None` when it did not.
    pub fn shortfall(&self, wanted: NonZeroUsize) -> Option<String> {
        // The kernel doubles what was asked for, to pay for its own bookkeeping.
        let granted = self.0.recv_buffer_size().ok()? / 2;
        (granted < wanted.get()).then(|| {
            format!(
                "the kernel granted {granted} of {wanted} bytes; raise it with sysctl net.core.rmem_max={wanted}"
            )
        })
    }

    /// Where it is bound.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()?.as_socket().ok_or_else(|| io::Error::other("not an internet address"))
    }

    /// Receives one datagram, or several of one sender that the kernel joined. `WouldBlock` when there is none.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        // SAFETY: plain integers and pointers, for which all zeros is a value.
        let (mut address, mut header): (libc::sockaddr_in6, libc::msghdr) = unsafe { mem::zeroed() };
        let mut control = Control([0; CONTROL_BYTES]);
        let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        header.msg_name = (&raw mut address).cast();
        header.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = CONTROL_BYTES as _;
        // SAFETY: all that the header points to is writable and alive during the call.
        let length = unsafe { libc::recvmsg(self.0.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT) };
        let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
        let mut segment = length;
        // SAFETY: the kernel filled `control` and set its length; CMSG_* stay within it.
        unsafe {
            let mut item = libc::CMSG_FIRSTHDR(&raw const header);
            while !item.is_null() {
                if (*item).cmsg_level == libc::SOL_UDP && (*item).cmsg_type == libc::UDP_GRO {
                    let size = libc::CMSG_DATA(item).cast::<libc::c_int>().read_unaligned();
                    segment = usize::try_from(size).unwrap_or(length).max(1);
                }
                item = libc::CMSG_NXTHDR(&raw const header, item);
            }
        }
        Ok(Received { from: to_socket_addr(&address)?, length, segment })
    }

    /// Sends one small datagram now, or drops it when the socket is full: for RTCP and hole punching.
    pub fn send_now(&self, bytes: &[u8], to: Option<SocketAddr>) {
        let _ = match to {
            Some(to) => self.0.send_to(bytes, &to.into()),
            None => self.0.send(bytes),
        };
    }
}

impl AsRawFd for DatagramSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

fn to_socket_addr(address: &libc::sockaddr_in6) -> io::Result<SocketAddr> {
    match libc::c_int::from(address.sin6_family) {
        libc::AF_INET6 => Ok(SocketAddrV6::new(
            Ipv6Addr::from(address.sin6_addr.s6_addr),
            u16::from_be(address.sin6_port),
            address.sin6_flowinfo,
            address.sin6_scope_id,
        )
        .into()),
        libc::AF_INET => {
            // SAFETY: the kernel wrote a `sockaddr_in` here, as the family says; it is smaller.
            let short: libc::sockaddr_in =
                unsafe { ptr::from_ref(address).cast::<libc::sockaddr_in>().read() };
            let ip = Ipv4Addr::from(u32::from_be(short.sin_addr.s_addr));
            Ok(SocketAddrV4::new(ip, u16::from_be(short.sin_port)).into())
        }
        _ => Err(io::Error::other("datagram from no internet address")),
    }
}
