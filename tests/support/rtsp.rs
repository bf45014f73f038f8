//! A client that says exactly what a test wants said: blocking, with a deadline on everything.

use std::{
    collections::VecDeque,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use rustls::pki_types::CertificateDer;
use socket2::{Domain, Socket, Type};

use super::{PATIENCE, Server, tls::Wire};

pub struct Rtsp {
    stream: Wire,
    unread: Vec<u8>,
    /// Bytes of `unread` that are done with.
    taken: usize,
    /// Interleaved frames that came while an answer was awaited.
    frames: VecDeque<Frame>,
    base: String,
    cseq: u32,
    pub session: Option<String>,
    /// From the last DESCRIBE: what the client must SETUP, one URL per track.
    pub controls: Vec<String>,
    pub content_base: String,
    /// Goes with every request.
    pub authorization: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Frame {
    pub channel: u8,
    pub data: Vec<u8>,
}

#[derive(Debug, Clone)]
pub struct Response {
    /// 0: the connection was closed without an answer.
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}

#[derive(Debug)]
pub enum Item {
    Frame(Frame),
    Response(Response),
    Closed,
    TimedOut,
}

impl Rtsp {
    pub fn connect(server: &Server) -> Self {
        Self::connect_from(server, Ipv4Addr::LOCALHOST, None)
    }

    /// From another address of this machine, and with a receive buffer of our choice (a stalled reader then
    /// stalls its server soon).
    pub fn connect_from(server: &Server, from: Ipv4Addr, receive_buffer: Option<usize>) -> Self {
        Self::dial(server.port, from, receive_buffer)
    }

    /// Over TLS, to a server that shows this certificate.
    pub fn connect_tls(server: &Server, trusted: &CertificateDer<'static>) -> Self {
        Self::connect_tls_with(server, trusted, None)
    }

    /// … and with a receive buffer of our choice.
    pub fn connect_tls_with(
        server: &Server,
        trusted: &CertificateDer<'static>,
        receive_buffer: Option<usize>,
    ) -> Self {
        let plain = Self::dial(server.tls_port, Ipv4Addr::LOCALHOST, receive_buffer);
        let Wire::Plain(socket) = plain.stream else { unreachable!("nobody encrypted it") };
        let stream = Wire::encrypted(socket, trusted).unwrap();
        let base = format!("rtsps://127.0.0.1:{}/", server.tls_port);
        Self { stream, base, ..plain }
    }

    /// To whoever listens on a port of this machine.
    pub fn connect_port(port: u16) -> Self {
        Self::dial(port, Ipv4Addr::LOCALHOST, None)
    }

    fn dial(port: u16, from: Ipv4Addr, receive_buffer: Option<usize>) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        if let Some(bytes) = receive_buffer {
            socket.set_recv_buffer_size(bytes).unwrap();
        }
        socket.bind(&SocketAddr::new(IpAddr::V4(from), 0).into()).unwrap();
        let to = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        socket.connect_timeout(&to.into(), PATIENCE).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream: Wire::Plain(stream),
            unread: Vec::new(),
            taken: 0,
            frames: VecDeque::new(),
            base: format!("rtsp://127.0.0.1:{port}/"),
            cseq: 0,
            session: None,
            controls: Vec::new(),
            content_base: String::new(),
            authorization: None,
        }
    }

    /// Our end, as the server's log names it.
    pub fn local(&self) -> String {
        self.stream.socket().local_addr().unwrap().to_string()
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Bytes as they are. False once the server has closed.
    pub fn send_raw(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    pub fn send_frame(&mut self, channel: u8, data: &[u8]) -> bool {
        let mut frame = vec![b'$', channel];
        frame.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(data);
        self.send_raw(&frame)
    }

    /// One request with CSeq and, once there is one, Session; waits for its answer.
    pub fn request(&mut self, method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Response {
        self.cseq += 1;
        let mut text = format!("{method} {url} RTSP/1.0\r\nCSeq: {}\r\n", self.cseq);
        if let Some(session) = &self.session {
            text += &format!("Session: {session}\r\n");
        }
        if let Some(authorization) = &self.authorization {
            text += &format!("Authorization: {authorization}\r\n");
        }
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            text += &format!("Content-Length: {}\r\n", body.len());
        }
        text += &format!("\r\n{body}");
        self.send_raw(text.as_bytes());
        let answer = self.response();
        if answer.status != 0 {
            assert_eq!(answer.header("CSeq"), Some(self.cseq.to_string().as_str()), "CSeq of {answer:?}");
        }
        answer
    }

    /// The next answer; frames on the way are kept for [`Self::frame`].
    pub fn response(&mut self) -> Response {
        self.response_within(PATIENCE).unwrap_or_else(|| panic!("no answer within {PATIENCE:?}"))
    }

    pub fn response_within(&mut self, limit: Duration) -> Option<Response> {
        let give_up = Instant::now() + limit;
        loop {
            match self.item(give_up) {
                Item::Response(answer) => {
                    if let Some(session) = answer.header("Session") {
                        self.session = Some(session.split(';').next().unwrap().to_owned());
                    }
                    return Some(answer);
                }
                Item::Frame(frame) => self.frames.push_back(frame),
                Item::Closed => {
                    return Some(Response { status: 0, headers: Vec::new(), body: String::new() });
                }
                Item::TimedOut => return None,
            }
        }
    }

    /// The next interleaved frame; `None` once the server has closed or nothing came in time.
    pub fn frame(&mut self, limit: Duration) -> Option<Frame> {
        if let Some(frame) = self.frames.pop_front() {
            return Some(frame);
        }
        let give_up = Instant::now() + limit;
        loop {
            match self.item(give_up) {
                Item::Frame(frame) => return Some(frame),
                Item::Response(_) => {}
                Item::Closed | Item::TimedOut => return None,
            }
        }
    }

    /// Reads on until the server closes; false if it has not within `limit`.
    pub fn closed_within(&mut self, limit: Duration) -> bool {
        let give_up = Instant::now() + limit;
        loop {
            match self.item(give_up) {
                Item::Closed => return true,
                Item::TimedOut => return false,
                Item::Frame(_) | Item::Response(_) => {}
            }
        }
    }

    /// Whatever comes next.
    pub fn item(&mut self, give_up: Instant) -> Item {
        loop {
            if let Some(item) = self.take_item() {
                return item;
            }
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Item::TimedOut;
            }
            self.stream.set_read_timeout(left);
            self.unread.drain(..std::mem::take(&mut self.taken));
            let mut chunk = [0; 65_536];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Item::Closed,
                Ok(n) => self.unread.extend_from_slice(&chunk[..n]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Item::TimedOut;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Item::Closed,
            }
        }
    }

    fn take_item(&mut self) -> Option<Item> {
        let unread = &self.unread[self.taken..];
        if *unread.first()? == b'$' {
            let head = unread.get(..4)?;
            let (channel, end) = (head[1], 4 + usize::from(u16::from_be_bytes([head[2], head[3]])));
            let data = unread.get(4..end)?.to_vec();
            self.taken += end;
            return Some(Item::Frame(Frame { channel, data }));
        }
        let head_end = unread.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
        let head = str::from_utf8(&unread[..head_end]).expect("answers are text");
        let mut lines = head.split("\r\n");
        let first = lines.next().unwrap();
        let status = first.strip_prefix("RTSP/1.0 ").and_then(|rest| rest.get(..3));
        let status =
            status.and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("not a status line: {first:?}"));
        let headers: Vec<_> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        let mut answer = Response { status, headers, body: String::new() };
        let length = answer.header("Content-Length").map_or(0, |n| n.parse().unwrap());
        let body = unread.get(head_end..head_end + length)?;
        answer.body = str::from_utf8(body).expect("descriptions are text").to_owned();
        self.taken += head_end + length;
        Some(Item::Response(answer))
    }

    pub fn describe(&mut self, path: &str) -> Response {
        let answer = self.request("DESCRIBE", &self.url(path), &[("Accept", "application/sdp")], "");
        self.note_description(&answer);
        answer
    }

    /// Resolves the control attributes as clients do: absolute, or appended to Content-Base.
    pub fn note_description(&mut self, answer: &Response) {
        if answer.status != 200 || answer.body.is_empty() {
            return;
        }
        self.content_base = answer.header("Content-Base").unwrap_or_default().to_owned();
        let media = answer.body.find("\nm=").map_or("", |at| &answer.body[at..]);
        self.controls = media
            .lines()
            .filter_map(|line| line.trim_end().strip_prefix("a=control:"))
            .map(|control| match control.starts_with("rtsp://") || control.starts_with("rtsps://") {
                true => control.to_owned(),
                false => format!("{}/{control}", self.content_base.trim_end_matches('/')),
            })
            .collect();
    }

    pub fn setup(&mut self, url: &str, transport: &str) -> Response {
        self.request("SETUP", url, &[("Transport", transport)], "")
    }

    /// DESCRIBE, and SETUP of every track over TCP on channels 0-1, 2-3, …
    pub fn setup_all_tcp(&mut self, path: &str) {
        let described = self.describe(path);
        assert_eq!(described.status, 200, "DESCRIBE {path}: {described:?}");
        assert!(!self.controls.is_empty(), "no track in {described:?}");
        for (n, control) in self.controls.clone().iter().enumerate() {
            let transport = format!("RTP/AVP/TCP;unicast;interleaved={}-{}", 2 * n, 2 * n + 1);
            let answer = self.setup(control, &transport);
            assert_eq!(answer.status, 200, "SETUP {control}: {answer:?}");
        }
    }

    pub fn play(&mut self) -> Response {
        let url = self.content_base.clone();
        self.request("PLAY", &url, &[("Range", "npt=0.000-")], "")
    }

    /// The same over TLS.
    pub fn play_tls(server: &Server, path: &str, trusted: &CertificateDer<'static>) -> Self {
        let mut client = Self::connect_tls(server, trusted);
        client.setup_all_tcp(path);
        let answer = client.play();
        assert_eq!(answer.status, 200, "PLAY {path}: {answer:?}");
        client
    }

    /// The whole way to a playing session over TCP.
    pub fn play_tcp(server: &Server, path: &str) -> Self {
        let mut client = Self::connect(server);
        client.setup_all_tcp(path);
        let answer = client.play();
        assert_eq!(answer.status, 200, "PLAY {path}: {answer:?}");
        client
    }

    pub fn teardown(&mut self) -> Response {
        let url = self.content_base.clone();
        self.request("TEARDOWN", &url, &[], "")
    }
}
