//! One session: its sockets, its handshake, its checker.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::num::NonZeroU8;
use std::sync::atomic::{AtomicU16, Ordering};

use socket2::{Domain, Protocol, Socket, Type};

use super::serve::Manner;
use super::{Engine, Id, Options, Transport};
use crate::check::Checker;
use crate::clip::Clip;
use crate::rtsp::{Client, Message, Next, Role, Step, Via, sdp};
use crate::sys::{self, Epoll, mono_ns};

/// Length of the floor server's hello and of its answer.
pub const HELLO: usize = 16;
pub const HELLO_MAGIC: &[u8; 4] = b"FLR1";
/// The byte that tells how many more hellos follow.
pub const HELLO_MORE: usize = 5;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Connecting,
    Opening,
    /// the server under test has connected and does not play yet
    Served,
    Live,
    Leaving,
}

pub struct Ports {
    pub rtp: UdpSocket,
    /// bound so that the server's reports do not come back as ICMP errors; never read
    _rtcp: UdpSocket,
    pub to: SocketAddr,
}

pub struct Conn {
    pub id: Id,
    pub role: Role,
    pub stream: u32,
    pub state: State,
    pub tcp: TcpStream,
    pub udp: Option<Ports>,
    pub rtsp: Client,
    pub check: Checker,
    /// bytes the socket has not taken yet
    pub out: Vec<u8>,
    /// the beginning of an item whose end has not come
    pub carry: Vec<u8>,
    hello: Option<[u8; HELLO]>,
    /// as a camera
    pub manner: Manner,
    /// connect called / PLAY or RECORD sent / answered
    pub open_ns: u64,
    pub start_ns: u64,
    pub ready_ns: u64,
}

pub struct Opening<'a> {
    pub o: &'a Options,
    pub clip: &'a Clip,
    pub role: Role,
    pub stream: u32,
}

impl Conn {
    pub fn open(w: &Opening, ep: &Epoll, id: Id) -> io::Result<Self> {
        let open_ns = mono_ns();
        let s = Socket::new(Domain::for_address(w.o.addr), Type::STREAM, Some(Protocol::TCP))?;
        s.set_nonblocking(true)?;
        s.set_tcp_nodelay(true)?;
        if w.role == Role::Publish {
            // a whole keyframe in one write; the kernel caps it at net.core.wmem_max
            s.set_send_buffer_size((4 * w.clip.max_bytes).max(1 << 20))?;
        }
        match s.connect(&w.o.addr.into()) {
            Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => return Err(e),
            _ => {}
        }
        let tcp = TcpStream::from(s);
        let transport = if w.role == Role::Publish { w.o.publish } else { w.o.read };
        let udp = match transport {
            Transport::Tcp => None,
            Transport::Udp => Some(Ports::bind(w.o.addr)?),
        };
        let port = udp.as_ref().map(|u| u.rtp.local_addr()).transpose()?.map(|a| a.port());
        Engine::register(ep, &tcp, id, false)?;
        if let (Some(u), Role::Read) = (&udp, w.role) {
            Engine::register(ep, &u.rtp, id, true)?;
        }
        let hello = w.o.floor_hellos.map(|count| hello(w.role, count, port, w.stream));
        let url = format!("{}{}", w.o.url, w.stream);
        let sdp = if w.role == Role::Publish { sdp(&w.clip.sps, &w.clip.pps) } else { String::new() };
        let rtsp = Client::new(w.role, port.map_or(Via::Tcp, Via::Udp), url, sdp);
        let check = Checker::new(w.stream, w.clip.frame_ns());
        let mut c = Self::plain(tcp, id, w.role, rtsp, check);
        (c.stream, c.udp, c.hello, c.open_ns) = (w.stream, udp, hello, open_ns);
        Ok(c)
    }

    pub(super) fn plain(tcp: TcpStream, id: Id, role: Role, rtsp: Client, check: Checker) -> Self {
        Self {
            id,
            role,
            stream: 0,
            state: State::Connecting,
            tcp,
            udp: None,
            rtsp,
            check,
            out: Vec::new(),
            carry: Vec::new(),
            hello: None,
            manner: Manner::Serve,
            open_ns: 0,
            start_ns: 0,
            ready_ns: 0,
        }
    }

    /// The connect has ended: sends the first request.
    pub fn connected(&mut self) -> Result<(), String> {
        match self.tcp.take_error() {
            Ok(None) => {}
            Ok(Some(e)) | Err(e) => return Err(format!("connect: {e}")),
        }
        self.state = State::Opening;
        self.start_ns = mono_ns();
        let first = match &self.hello {
            Some(h) => h.to_vec(),
            None => self.rtsp.first(),
        };
        self.send(&first)
    }

    pub(super) fn send(&mut self, b: &[u8]) -> Result<(), String> {
        self.out.extend_from_slice(b);
        self.flush()
    }

    /// Writes what waits, as far as the socket takes it.
    pub fn flush(&mut self) -> Result<(), String> {
        let mut done = 0;
        let r = loop {
            if done == self.out.len() {
                break Ok(());
            }
            match (&self.tcp).write(&self.out[done..]) {
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => break Err(format!("send: {e}")),
            }
        };
        self.out.drain(..done);
        r
    }

    /// The floor server has answered a hello: says the next one; true: that was the last.
    pub fn on_hello(&mut self) -> Result<bool, String> {
        let Some(h) = self.hello.as_mut().filter(|h| h[HELLO_MORE] > 0) else { return Ok(true) };
        h[HELLO_MORE] -= 1;
        let h = *h;
        self.send(&h).map(|()| false)
    }

    /// Takes an answer of the server; true: the session is ready.
    pub fn on_message(&mut self, m: &Message) -> Result<bool, String> {
        match self.rtsp.on_message(m)? {
            Next::Send(b) => {
                if self.rtsp.step == Step::Start {
                    if let Some(u) = &mut self.udp {
                        u.to.set_port(self.rtsp.server_port);
                    }
                    self.start_ns = mono_ns();
                }
                self.send(&b)?;
                Ok(false)
            }
            Next::Ready => Ok(true),
            Next::Nothing => Ok(false),
            Next::Left => Err("left".into()),
        }
    }

    pub fn keep_alive(&mut self) -> Result<(), String> {
        let b = self.rtsp.keep_alive();
        self.send(&b)
    }

    pub fn leave(&mut self) -> Result<(), String> {
        let b = self.rtsp.leave();
        self.send(&b)
    }
}

fn hello(role: Role, count: NonZeroU8, udp: Option<u16>, stream: u32) -> [u8; HELLO] {
    let mut h = [0; HELLO];
    h[..4].copy_from_slice(HELLO_MAGIC);
    h[4] = u8::from(role == Role::Read);
    h[HELLO_MORE] = count.get() - 1;
    h[6..8].copy_from_slice(&udp.unwrap_or(0).to_be_bytes());
    h[8..12].copy_from_slice(&stream.to_be_bytes());
    h
}

/// Below the kernel's range of ephemeral ports.
const FIRST_PORT: u16 = 20_000;
const LAST_PORT: u16 = 32_000;
static NEXT_PORT: AtomicU16 = AtomicU16::new(FIRST_PORT);

impl Ports {
    /// An even port and the next one, free now, on the address that reaches the server.
    fn bind(server: SocketAddr) -> io::Result<Self> {
        let ip: IpAddr = match server.ip() {
            IpAddr::V4(a) if a.is_loopback() => a.into(),
            IpAddr::V4(_) => IpAddr::from([0, 0, 0, 0]),
            IpAddr::V6(_) => IpAddr::from([0u16; 8]),
        };
        for _ in 0..(LAST_PORT - FIRST_PORT) / 2 {
            let p = NEXT_PORT.fetch_add(2, Ordering::Relaxed);
            if p + 2 >= LAST_PORT {
                NEXT_PORT.store(FIRST_PORT, Ordering::Relaxed);
            }
            let (Ok(rtp), Ok(rtcp)) = (UdpSocket::bind((ip, p)), UdpSocket::bind((ip, p + 1))) else {
                continue;
            };
            rtp.set_nonblocking(true)?;
            let s = socket2::SockRef::from(&rtp);
            s.set_recv_buffer_size(4 << 20)?;
            s.set_send_buffer_size(1 << 20)?;
            sys::enable_gro(&rtp)?;
            return Ok(Self { rtp, _rtcp: rtcp, to: server });
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, "no free pair of UDP ports"))
    }
}
