//! The engine as a bank of cameras: a server that pulls connects to its doors, asks for `/N` and gets stream N.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use socket2::{Domain, Socket, Type};

use super::conn::{Conn, State};
use super::{Engine, Options};
use crate::check::Checker;
use crate::clip::Clip;
use crate::rtsp::{Client, Message, Role, Via, sdp};
use crate::sys::mono_ns;

/// How often doors are looked at, ns.
const LOOK: u64 = 2_000_000;

/// How those behind a door treat who comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    Serve,
    /// 401 for ever
    Deny,
    Garbage,
}

/// A listening address.
pub struct Door {
    listener: TcpListener,
    pub addr: SocketAddr,
    manner: Manner,
    /// ns between two that are let in; 0: no limit
    pause: u64,
    next: u64,
    /// who came so far
    pub came: u64,
}

impl Door {
    /// `per_second` 0: no limit.
    pub fn open(ip: Ipv4Addr, per_second: u32, manner: Manner) -> io::Result<Self> {
        let s = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        s.bind(&SocketAddr::from((ip, 0)).into())?;
        s.listen(4096)?;
        s.set_nonblocking(true)?;
        let listener = TcpListener::from(s);
        let addr = listener.local_addr()?;
        let pause = if per_second == 0 { 0 } else { 1_000_000_000 / u64::from(per_second) };
        Ok(Self { listener, addr, manner, pause, next: 0, came: 0 })
    }
}

impl Engine {
    /// Lets in who waits and may come; returns for how long nobody has to look again, ns.
    pub(super) fn open_doors(&mut self, now: u64) -> u64 {
        for n in 0..self.doors.len() {
            loop {
                let door = &mut self.doors[n];
                if now < door.next {
                    break;
                }
                let Ok((tcp, _)) = door.listener.accept() else { break };
                door.next = if door.pause == 0 { 0 } else { now + door.pause };
                door.came += 1;
                let manner = door.manner;
                if let Err(e) = self.admit(tcp, manner) {
                    self.error(Role::Serve, &format!("accept: {e}"));
                }
            }
        }
        if self.doors.is_empty() { u64::MAX } else { LOOK }
    }

    fn admit(&mut self, tcp: TcpStream, manner: Manner) -> io::Result<()> {
        let id = self.conns.len();
        tcp.set_nonblocking(true)?;
        tcp.set_nodelay(true)?;
        socket2::SockRef::from(&tcp).set_send_buffer_size((4 * self.clip.max_bytes).max(1 << 20))?;
        Self::register(&self.ep, &tcp, id, false)?;
        let mut c = Conn::served(tcp, id, manner, &self.o, &self.clip);
        if manner == Manner::Garbage {
            c.send(b"\x16\x03\x01 this is not RTSP\r\n\r\n").map_err(io::Error::other)?;
        }
        self.conns.push(Some(Box::new(c)));
        Ok(())
    }

    /// Answers a request.
    pub(super) fn serve(&mut self, c: &mut Conn, m: &Message, now: u64) -> Result<(), String> {
        let mut words = m.head.lines().next().unwrap_or("").split(' ');
        let (method, url) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let cseq = m.header("cseq").unwrap_or("0");
        let head = |status: &str| format!("RTSP/1.0 {status}\r\nCSeq: {cseq}\r\n");
        let session = "Session: 1;timeout=60\r\n";
        if c.manner == Manner::Garbage {
            return Ok(());
        }
        if c.manner == Manner::Deny {
            return c
                .send(format!("{}WWW-Authenticate: Basic realm=\"x\"\r\n\r\n", head("401 No")).as_bytes());
        }
        let ok = head("200 OK");
        match method {
            "OPTIONS" => {
                let public = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER, TEARDOWN";
                c.send(format!("{ok}{public}\r\n\r\n").as_bytes())
            }
            "DESCRIBE" => {
                let sdp = sdp(&self.clip.sps, &self.clip.pps);
                let head = format!(
                    "{ok}Content-Base: {}/\r\nContent-Type: application/sdp\r\n",
                    url.trim_end_matches('/')
                );
                c.send(format!("{head}Content-Length: {}\r\n\r\n{sdp}", sdp.len()).as_bytes())
            }
            "SETUP" => {
                let asked = m.header("transport").unwrap_or("");
                // the packets are made for these channels
                if !asked.contains("interleaved=0-1") {
                    return c.send(format!("{}\r\n", head("461 No")).as_bytes());
                }
                c.stream = stream_of(url).ok_or(format!("no stream in {url}"))?;
                c.send(
                    format!("{ok}{session}Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n").as_bytes(),
                )
            }
            "PLAY" => {
                c.send(format!("{ok}{session}\r\n").as_bytes())?;
                if c.state == State::Served {
                    c.state = State::Live;
                    c.ready_ns = now;
                    self.live_served += 1;
                    self.begin_stream(c, now);
                }
                Ok(())
            }
            "TEARDOWN" => {
                if c.state == State::Live {
                    self.live_served -= 1;
                }
                c.state = State::Leaving;
                c.send(format!("{ok}\r\n").as_bytes())?;
                Err("left".into())
            }
            _ => c.send(format!("{ok}{session}\r\n").as_bytes()),
        }
    }

    /// The camera that sends this stream, if it is pulled.
    pub fn served(&self, stream: u32) -> Option<&Conn> {
        self.conn(self.streams.get(&stream)?.conn)
    }

    /// Ends all cameras and closes the doors.
    pub fn close_doors(&mut self) {
        self.doors.clear();
        let ids: Vec<_> =
            self.conns.iter().flatten().filter(|c| c.role == Role::Serve).map(|c| c.id).collect();
        for id in ids {
            if let Some(c) = self.conns[id].take() {
                self.end_stream(&c);
                self.live_served -= usize::from(c.state == State::Live);
            }
        }
    }
}

impl Conn {
    fn served(tcp: TcpStream, id: usize, manner: Manner, o: &Options, clip: &Clip) -> Self {
        let rtsp = Client::new(Role::Serve, Via::Tcp, o.url.clone(), String::new());
        let check = Checker::new(0, clip.frame_ns());
        let mut c = Self::plain(tcp, id, Role::Serve, rtsp, check);
        (c.state, c.manner, c.open_ns) = (State::Served, manner, mono_ns());
        c
    }
}

/// `…/17` and `…/17/streamid=0` are stream 17.
fn stream_of(url: &str) -> Option<u32> {
    let path = url.split_once("/streamid=").map_or(url, |(path, _)| path);
    path.trim_end_matches('/').rsplit('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_in_the_url() {
        assert_eq!(stream_of("rtsp://127.0.0.1:1/17"), Some(17));
        assert_eq!(stream_of("rtsp://127.0.0.1:1/17/streamid=0"), Some(17));
        assert_eq!(stream_of("rtsp://127.0.0.1:1/x"), None);
    }
}
