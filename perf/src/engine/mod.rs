//! The load generator: one thread, one edge-triggered epoll, one reused buffer. It publishes frames when they are due,
//! drives the handshakes of all sessions, and reads everything the server sends.

pub mod conn;
mod publish;
pub mod serve;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::num::NonZeroU8;
use std::os::fd::AsRawFd;

use hdrhistogram::Histogram;

use crate::check::{Counters, histogram};
use crate::clip::{Clip, Cursor};
use crate::rtsp::{Item, Role, next_item};
use crate::sys::{self, Epoll, RecvBatch, mono_ns};
use conn::{Conn, Opening, State};
use serve::Door;

const BUF: usize = 1 << 20;
const TICK: u64 = 4_000_000;
/// Sessions in their handshake at once.
pub const IN_FLIGHT: usize = 16;
const KEEP_ALIVE: u64 = 25_000_000_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Transport {
    Tcp,
    Udp,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Phase {
    /// each stream has its own place in the frame interval
    Spread,
    /// frames of all streams are sent on 4 ms ticks
    Ticked,
}

#[derive(Clone)]
pub struct Options {
    pub addr: SocketAddr,
    /// `rtsp://host:port/load`; the stream's number is appended
    pub url: String,
    pub publish: Transport,
    pub read: Transport,
    pub phase: Phase,
    /// how many streams there will be: sets their phases
    pub streams: u32,
    /// speak the floor server's hello, this many times, instead of RTSP
    pub floor_hellos: Option<NonZeroU8>,
}

pub type Id = usize;

/// A publisher's stream.
pub struct Stream {
    conn: Id,
    cursor: Cursor,
    base: u64,
    n: u64,
}

pub struct Engine {
    pub o: Options,
    pub clip: Clip,
    ep: Epoll,
    events: Vec<sys::Event>,
    buf: Box<[u8]>,
    batch: RecvBatch,
    scratch: Vec<u8>,
    conns: Vec<Option<Box<Conn>>>,
    queue: VecDeque<(Role, u32)>,
    pub in_flight: usize,
    pub live_publishers: usize,
    pub live_readers: usize,
    /// cameras that are being pulled
    pub live_served: usize,
    /// where the server under test finds cameras
    pub doors: Vec<Door>,
    /// cameras send nothing while it is set
    pub hushed: bool,
    streams: BTreeMap<u32, Stream>,
    due: BinaryHeap<Reverse<(u64, u32)>>,
    next_alive: u64,
    /// frames are sent as soon as a publisher is ready
    pub auto_start: bool,
    /// set once everything is being taken down: closing is no error any more
    leaving: bool,
    pub latency: Histogram<u64>,
    /// how late frames were sent, in microseconds
    pub late: Histogram<u64>,
    pub sent: Sent,
    /// counters of readers that have gone
    pub gone: Counters,
    pub errors: BTreeMap<String, u64>,
    /// time from connect to ready of every session made
    pub ready_us: Histogram<u64>,
}

#[derive(Clone, Copy, Default)]
pub struct Sent {
    pub frames: u64,
    pub packets: u64,
    pub bytes: u64,
    /// frames not sent because the publisher's socket had been full for long
    pub skipped: u64,
    /// frames of which a part had to wait for the socket
    pub blocked: u64,
}

impl Engine {
    pub fn new(o: Options, clip: Clip) -> io::Result<Self> {
        sys::tight_timers();
        sys::raise_nofile(200_000)?;
        Ok(Self {
            auto_start: o.floor_hellos.is_none(),
            o,
            clip,
            ep: Epoll::new()?,
            events: vec![sys::Event { events: 0, u64: 0 }; 256],
            buf: vec![0; BUF].into_boxed_slice(),
            batch: RecvBatch::new(),
            scratch: Vec::with_capacity(1 << 20),
            conns: Vec::new(),
            queue: VecDeque::new(),
            in_flight: 0,
            live_publishers: 0,
            live_readers: 0,
            live_served: 0,
            doors: Vec::new(),
            hushed: false,
            streams: BTreeMap::new(),
            due: BinaryHeap::new(),
            next_alive: mono_ns() + KEEP_ALIVE,
            leaving: false,
            latency: histogram(),
            late: histogram(),
            sent: Sent::default(),
            gone: Counters::default(),
            errors: BTreeMap::new(),
            ready_us: histogram(),
        })
    }

    /// Opens a session when its turn comes (`IN_FLIGHT` at once).
    pub fn enqueue(&mut self, role: Role, stream: u32) {
        self.queue.push_back((role, stream));
    }

    /// Opens a session now.
    pub fn open(&mut self, role: Role, stream: u32) -> Id {
        let id = self.conns.len();
        self.conns.push(None);
        let opening = Opening { o: &self.o, clip: &self.clip, role, stream };
        match Conn::open(&opening, &self.ep, id) {
            Ok(c) => {
                self.conns[id] = Some(Box::new(c));
                self.in_flight += 1;
            }
            Err(e) => self.error(role, &format!("open: {e}")),
        }
        id
    }

    fn error(&mut self, role: Role, what: &str) {
        *self.errors.entry(format!("{role:?}: {what}")).or_default() += 1;
    }

    pub fn conn(&self, id: Id) -> Option<&Conn> {
        self.conns.get(id)?.as_deref()
    }

    pub fn readers(&self) -> impl Iterator<Item = &Conn> {
        self.conns.iter().flatten().map(|c| &**c).filter(|c| c.role == Role::Read)
    }

    /// Gives up on sessions that wait for their turn or are in their handshake.
    pub fn give_up_opening(&mut self) {
        self.queue.clear();
        let opening = |c: &Conn| matches!(c.state, State::Connecting | State::Opening);
        for slot in &mut self.conns {
            if slot.as_ref().is_some_and(|c| opening(c)) {
                *slot = None;
                self.in_flight -= 1;
                *self.errors.entry("gave up: no answer in time".into()).or_default() += 1;
            }
        }
    }

    pub fn settled(&self) -> bool {
        self.queue.is_empty() && self.in_flight == 0
    }

    /// Sum of all readers' counters since the last `mark`.
    pub fn counters(&self) -> Counters {
        let mut sum = self.gone;
        self.readers().for_each(|c| sum.add(&c.check.c));
        sum
    }

    /// Begins a new window: counters, histograms and what was sent start at zero. Returns the sums so far.
    pub fn mark(&mut self) -> Counters {
        let sum = self.counters();
        self.gone = Counters::default();
        self.conns.iter_mut().flatten().for_each(|c| c.check.c = Counters::default());
        self.latency.reset();
        self.late.reset();
        self.sent = Sent::default();
        sum
    }

    /// Turns the loop until `deadline` (CLOCK_MONOTONIC) or until `stop` says so.
    pub fn run(&mut self, deadline: u64, mut stop: impl FnMut(&mut Self) -> bool) {
        loop {
            let now = mono_ns();
            if now >= deadline || stop(self) {
                return;
            }
            self.turn(deadline - now);
        }
    }

    /// One turn: what is due is sent, what has come is read, at most `wait` ns are slept.
    pub fn turn(&mut self, wait: u64) {
        while self.in_flight < IN_FLIGHT {
            let Some((role, stream)) = self.queue.pop_front() else { break };
            self.open(role, stream);
        }
        let wait = wait.min(self.open_doors(mono_ns()));
        let mut now = self.publish_due(mono_ns());
        if now >= self.next_alive {
            self.keep_alive(now);
        }
        let next = self.due.peek().map_or(u64::MAX, |d| d.0.0);
        let wait = wait.min(next.saturating_sub(now)).min(50_000_000);
        let mut events = std::mem::take(&mut self.events);
        let n = self.ep.wait(&mut events, Some(wait)).unwrap_or(0);
        for e in &events[..n] {
            let (token, bits) = (e.u64, e.events);
            if let Some(t) = self.on_event(token as usize >> 1, token & 1 == 1, bits) {
                now = t;
            }
            if self.due.peek().is_some_and(|d| d.0.0 <= now) {
                now = self.publish_due(now);
            }
        }
        self.events = events;
    }

    fn on_event(&mut self, id: Id, udp: bool, bits: u32) -> Option<u64> {
        let mut c = self.conns.get_mut(id)?.take()?;
        let r = if udp { self.on_udp(&mut c) } else { self.on_tcp(&mut c, bits) };
        match r {
            Ok(now) => {
                self.conns[id] = Some(c);
                now
            }
            Err(why) => {
                self.drop_conn(*c, &why);
                None
            }
        }
    }

    fn drop_conn(&mut self, c: Conn, why: &str) {
        match c.state {
            State::Connecting | State::Opening => self.in_flight -= 1,
            State::Live => match c.role {
                Role::Publish => self.live_publishers -= 1,
                Role::Read => self.live_readers -= 1,
                Role::Serve => self.live_served -= 1,
            },
            State::Served | State::Leaving => {}
        }
        self.end_stream(&c);
        if !(self.leaving || c.state == State::Leaving) {
            self.error(c.role, why);
        }
        self.gone.add(&c.check.c);
    }

    /// Its pictures end, if it sends any. (Another session may send that stream by now.)
    fn end_stream(&mut self, c: &Conn) {
        if self.streams.get(&c.stream).is_some_and(|s| s.conn == c.id) {
            self.streams.remove(&c.stream);
        }
    }

    fn on_tcp(&mut self, c: &mut Conn, bits: u32) -> Result<Option<u64>, String> {
        if c.state == State::Connecting {
            if bits & (sys::OUT | sys::HUP) == 0 {
                return Ok(None);
            }
            c.connected()?;
        }
        if bits & sys::OUT != 0 && !c.out.is_empty() {
            c.flush()?;
        }
        if bits & (sys::IN | sys::HUP) == 0 {
            return Ok(None);
        }
        let to_the_end = bits & sys::HUP != 0;
        loop {
            let had = c.carry.len();
            self.buf[..had].copy_from_slice(&c.carry);
            let n = match (&c.tcp).read(&mut self.buf[had..]) {
                Ok(0) => return Err("closed by the server".into()),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(format!("receive: {e}")),
            };
            let now = mono_ns();
            let buf = std::mem::take(&mut self.buf);
            let r = self.consume(c, &buf[..had + n], now);
            let full = had + n == buf.len();
            if let Ok(used) = &r {
                c.carry.clear();
                c.carry.extend_from_slice(&buf[*used..had + n]);
            }
            self.buf = buf;
            r?;
            // edge triggered: a short read of a stream socket means it is drained
            if !full && !to_the_end {
                return Ok(Some(now));
            }
        }
    }

    /// Takes all whole items of `b`; returns the bytes used.
    fn consume(&mut self, c: &mut Conn, b: &[u8], now: u64) -> Result<usize, String> {
        let mut at = 0;
        if self.o.floor_hellos.is_some() && c.state == State::Opening {
            if b.len() < conn::HELLO {
                return Ok(0);
            }
            at = conn::HELLO;
            if !c.on_hello()? {
                return Ok(at);
            }
            self.ready(c, now);
        }
        while let Some((item, n)) = next_item(&b[at..])? {
            at += n;
            match item {
                Item::Media { channel, packet } => {
                    if c.role == Role::Read && channel == c.rtsp.rtp_channel {
                        c.check.packet(packet, now, &mut self.latency);
                    }
                }
                Item::Message(m) if c.role == Role::Serve => self.serve(c, &m, now)?,
                Item::Message(m) => {
                    if c.on_message(&m)? {
                        self.ready(c, now);
                    }
                }
            }
        }
        Ok(at)
    }

    fn on_udp(&mut self, c: &mut Conn) -> Result<Option<u64>, String> {
        let Some(ports) = &c.udp else { return Ok(None) };
        let mut last = None;
        loop {
            let n = match self.batch.recv(&ports.rtp) {
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(last),
                // an ICMP error of an earlier send: the session itself tells what is wrong
                Err(_) => return Ok(last),
            };
            let now = mono_ns();
            last = Some(now);
            for i in 0..n {
                let (bytes, segment) = self.batch.message(i);
                for p in bytes.chunks(segment) {
                    c.check.packet(p, now, &mut self.latency);
                }
            }
            if n < RecvBatch::LEN {
                return Ok(last);
            }
        }
    }

    /// A session's handshake is complete.
    fn ready(&mut self, c: &mut Conn, now: u64) {
        c.state = State::Live;
        c.ready_ns = now;
        self.in_flight -= 1;
        self.ready_us.saturating_record(((now - c.open_ns) / 1000).max(1));
        match c.role {
            Role::Read => self.live_readers += 1,
            Role::Publish => {
                self.live_publishers += 1;
                self.begin_stream(c, now);
            }
            Role::Serve => {}
        }
    }

    fn begin_stream(&mut self, c: &Conn, now: u64) {
        let s = Stream {
            conn: c.id,
            cursor: Cursor::new(c.stream, self.o.streams, self.clip.gop),
            base: 0,
            n: 0,
        };
        self.streams.insert(c.stream, s);
        if self.auto_start {
            self.start_stream(c.stream, now);
        }
    }

    /// Asks a session to leave; it is closed when the server has answered.
    pub fn leave(&mut self, id: Id) {
        let Some(mut c) = self.conns.get_mut(id).and_then(Option::take) else { return };
        if c.state == State::Live {
            match c.role {
                Role::Publish => self.live_publishers -= 1,
                Role::Read => self.live_readers -= 1,
                Role::Serve => self.live_served -= 1,
            }
        } else if c.state != State::Leaving {
            self.in_flight -= 1;
        }
        self.end_stream(&c);
        c.state = State::Leaving;
        if self.o.floor_hellos.is_some() || c.leave().is_err() {
            self.gone.add(&c.check.c);
            return; // closed by the drop
        }
        self.conns[id] = Some(c);
    }

    /// Takes all sessions down, readers first, and waits up to two seconds for the answers.
    pub fn leave_all(&mut self) {
        self.leaving = true;
        self.queue.clear();
        for role in [Role::Read, Role::Publish] {
            let ids: Vec<Id> = self.conns.iter().flatten().filter(|c| c.role == role).map(|c| c.id).collect();
            for part in ids.chunks(IN_FLIGHT) {
                part.iter().for_each(|&id| self.leave(id));
                let until = mono_ns() + 2_000_000_000;
                self.run(until, |e| part.iter().all(|&id| e.conns[id].is_none()));
                part.iter().for_each(|&id| self.conns[id] = None);
            }
        }
    }

    fn keep_alive(&mut self, now: u64) {
        self.next_alive = now + KEEP_ALIVE;
        if self.o.floor_hellos.is_some() {
            return;
        }
        for id in 0..self.conns.len() {
            if let Some(c) = &mut self.conns[id]
                && c.state == State::Live
                && c.role != Role::Serve
                && c.keep_alive().is_err()
                && let Some(c) = self.conns[id].take()
            {
                self.drop_conn(*c, "keep-alive: send");
            }
            if id % 64 == 63 {
                self.publish_due(mono_ns());
            }
        }
    }

    /// Sockets open now, UDP pairs included.
    pub fn sockets(&self) -> usize {
        self.conns.iter().flatten().map(|c| 1 + 2 * usize::from(c.udp.is_some())).sum()
    }

    fn register(ep: &Epoll, fd: &impl AsRawFd, id: Id, udp: bool) -> io::Result<()> {
        let events = if udp { sys::EDGE_IN } else { sys::EDGE };
        ep.add(fd.as_raw_fd(), events, (id as u64) << 1 | u64::from(udp))
    }
}
