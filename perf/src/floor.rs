//! The bare loop: the least a relay can do for the same bytes on the same sockets. One thread, edge-triggered epoll,
//! one buffer. A publisher or reader says hello in 16 bytes, as often as RTSP has requests (the kernel treats a connection
//! that has had a dialogue in another way); after that there is no protocol.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;

use crate::clip::gso_runs;
use crate::engine::conn::{HELLO, HELLO_MAGIC, HELLO_MORE};
use crate::sys::{self, Epoll};

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Mode {
    /// TCP: what one recv gave is one send per reader; UDP: one GSO send per reader and frame
    #[value(alias = "gso")]
    Frame,
    /// one send per packet and reader
    Packet,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Unknown,
    Publisher(u32),
    Reader(u32),
}

struct Peer {
    tcp: TcpStream,
    addr: SocketAddr,
    part: Part,
    /// bytes a reader's socket has not taken
    out: Vec<u8>,
    carry: Vec<u8>,
}

#[derive(Default)]
struct Stream {
    tcp: Vec<usize>,
    udp: Vec<(usize, SocketAddr)>,
    /// the frame in progress, packets one behind the other without interleaved headers
    frame: Vec<u8>,
    lens: Vec<usize>,
}

const LISTENER: u64 = u64::MAX;
/// A reader that is this far behind is closed.
const BACKLOG: usize = 16 << 20;

struct Floor {
    mode: Mode,
    ep: Epoll,
    peers: Vec<Option<Peer>>,
    streams: HashMap<u32, Stream>,
    udp: UdpSocket,
    buf: Box<[u8]>,
}

/// Serves until killed.
pub fn serve(port: u16, mode: Mode) -> io::Result<()> {
    sys::raise_nofile(200_000)?;
    let ep = Epoll::new()?;
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    // the backlog of std's bind is enough: the loader opens 16 sessions at a time
    listener.set_nonblocking(true)?;
    ep.add(listener.as_raw_fd(), sys::EDGE_IN, LISTENER)?;
    let udp = UdpSocket::bind("127.0.0.1:0")?;
    udp.set_nonblocking(true)?;
    socket2::SockRef::from(&udp).set_send_buffer_size(4 << 20)?;
    let mut f = Floor {
        mode,
        ep,
        peers: Vec::new(),
        streams: HashMap::new(),
        udp,
        buf: vec![0; 1 << 20].into_boxed_slice(),
    };
    let mut events = vec![sys::Event { events: 0, u64: 0 }; 256];
    loop {
        let n = f.ep.wait(&mut events, None)?;
        for e in &events[..n] {
            let (token, bits) = (e.u64, e.events);
            if token == LISTENER { f.accept(&listener) } else { f.on_event(token as usize, bits) }
        }
    }
}

impl Floor {
    fn accept(&mut self, l: &TcpListener) {
        while let Ok((tcp, addr)) = l.accept() {
            let id = self.peers.len();
            if tcp.set_nonblocking(true).and(tcp.set_nodelay(true)).is_ok()
                && self.ep.add(tcp.as_raw_fd(), sys::EDGE, id as u64).is_ok()
            {
                let peer = Peer { tcp, addr, part: Part::Unknown, out: Vec::new(), carry: Vec::new() };
                self.peers.push(Some(peer));
            }
        }
    }

    fn on_event(&mut self, id: usize, bits: u32) {
        let Some(mut p) = self.peers.get_mut(id).and_then(Option::take) else { return };
        let mut alive = true;
        if bits & sys::OUT != 0 && !p.out.is_empty() {
            let out = std::mem::take(&mut p.out);
            alive = send(&mut p, &out);
        }
        if alive && bits & (sys::IN | sys::HUP) != 0 {
            alive = (p.part != Part::Unknown || self.hello(&mut p, id))
                && (p.part == Part::Unknown || self.receive(&mut p, bits));
        }
        if alive {
            self.peers[id] = Some(p);
            return;
        }
        if let Part::Reader(s) = p.part
            && let Some(s) = self.streams.get_mut(&s)
        {
            s.tcp.retain(|&r| r != id);
            s.udp.retain(|r| r.0 != id);
        }
    }

    fn hello(&mut self, p: &mut Peer, id: usize) -> bool {
        let mut h = [0; HELLO];
        // one small segment: it comes whole or not at all
        match (&p.tcp).read(&mut h) {
            Ok(HELLO) if h.starts_with(HELLO_MAGIC) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
            _ => return false,
        }
        if h[HELLO_MORE] > 0 {
            return (&p.tcp).write(&h).is_ok();
        }
        let stream = u32::from_be_bytes([h[8], h[9], h[10], h[11]]);
        let s = self.streams.entry(stream).or_default();
        if h[4] == 0 {
            p.part = Part::Publisher(stream);
            *s = Stream {
                tcp: std::mem::take(&mut s.tcp),
                udp: std::mem::take(&mut s.udp),
                ..Stream::default()
            };
        } else {
            p.part = Part::Reader(stream);
            match u16::from_be_bytes([h[6], h[7]]) {
                0 => s.tcp.push(id),
                port => s.udp.push((id, SocketAddr::new(p.addr.ip(), port))),
            }
        }
        (&p.tcp).write(&h).is_ok()
    }

    fn receive(&mut self, p: &mut Peer, bits: u32) -> bool {
        loop {
            let had = p.carry.len();
            self.buf[..had].copy_from_slice(&p.carry);
            let n = match (&p.tcp).read(&mut self.buf[had..]) {
                Ok(0) => return false,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return false,
            };
            let end = had + n;
            if let Part::Publisher(s) = p.part {
                let used = self.forward(s, end);
                p.carry.clear();
                p.carry.extend_from_slice(&self.buf[used..end]);
            }
            if end < self.buf.len() && bits & sys::HUP == 0 {
                return true;
            }
        }
    }

    /// Hands the first `end` bytes of the buffer to the readers of a stream; returns the bytes used.
    fn forward(&mut self, stream: u32, end: usize) -> usize {
        let Some(s) = self.streams.get_mut(&stream) else { return end };
        if self.mode == Mode::Frame && s.udp.is_empty() {
            for &r in &s.tcp {
                to_reader(&mut self.peers, r, &self.buf[..end]);
            }
            return end;
        }
        let mut at = 0;
        while at + 4 <= end {
            let len = usize::from(u16::from_be_bytes([self.buf[at + 2], self.buf[at + 3]]));
            let next = at + 4 + len;
            if next > end {
                break;
            }
            let (framed, packet) = (&self.buf[at..next], &self.buf[at + 4..next]);
            at = next;
            for &r in &s.tcp {
                to_reader(&mut self.peers, r, framed);
            }
            if s.udp.is_empty() {
                continue;
            }
            if self.mode == Mode::Packet {
                for &(_, to) in &s.udp {
                    let _ = self.udp.send_to(packet, to);
                }
                continue;
            }
            s.frame.extend_from_slice(packet);
            s.lens.push(len);
            if packet.get(1).is_some_and(|m| m & 0x80 != 0) {
                for &(_, to) in &s.udp {
                    gso_runs(s.lens.iter().copied(), |a, n, segment| {
                        let _ = sys::send_gso(&self.udp, to, &s.frame[a..a + n], segment);
                    });
                }
                s.frame.clear();
                s.lens.clear();
            }
        }
        at
    }
}

fn to_reader(peers: &mut [Option<Peer>], id: usize, b: &[u8]) {
    // a reader whose socket fails is removed when its event comes
    if let Some(Some(p)) = peers.get_mut(id)
        && p.out.len() < BACKLOG
        && !send(p, b)
    {
        let _ = p.tcp.shutdown(std::net::Shutdown::Both);
    }
}

/// Sends, or keeps what the socket does not take. False: the peer is gone.
fn send(p: &mut Peer, mut b: &[u8]) -> bool {
    if p.out.is_empty() {
        while !b.is_empty() {
            match (&p.tcp).write(b) {
                Ok(n) => b = &b[n..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }
    p.out.extend_from_slice(b);
    true
}
