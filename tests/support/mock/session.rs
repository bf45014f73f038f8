//! One client of a mock camera: its requests, their answers, and the media that follows.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use socket2::SockRef;

use super::{
    Asked, Played, Shared, TICK,
    door::{Door, Verdict},
    is_late,
    plan::{Change, CutBy, Plan, Udp},
    tracks::{Plane, Show, describe},
};
use crate::support::camera::Record;

const PUBLIC: &str = "OPTIONS, DESCRIBE, SETUP, TEARDOWN, PLAY, PAUSE, GET_PARAMETER";

pub struct Session<'mock> {
    socket: TcpStream,
    shared: &'mock Arc<Shared>,
    plan: Plan,
    number: usize,
    door: Door,
    unread: Vec<u8>,
    ways: Vec<(usize, Way)>,
    path: String,
    show: Option<Show>,
    /// Its place among [`super::Seen::played`].
    played: Option<usize>,
    heard: Instant,
    /// Counts packets over UDP, for those that are to be dropped.
    datagrams: u32,
    swapped: Option<(usize, Vec<u8>)>,
}

/// How a track's packets travel.
enum Way {
    Tcp { channel: u8 },
    Udp { rtp: UdpSocket, rtcp: UdpSocket },
}

struct Request {
    method: String,
    url: String,
    headers: Vec<(String, String)>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Answer {
    fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new() }
    }

    fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    fn text(&self) -> String {
        let reason = if self.status == 200 { "OK" } else { "No" };
        let mut text = format!("RTSP/1.0 {} {reason}\r\n", self.status);
        self.headers.iter().for_each(|(name, value)| text += &format!("{name}: {value}\r\n"));
        text + "\r\n" + &self.body
    }
}

/// What becomes of the connection.
#[derive(PartialEq, Eq)]
enum Next {
    GoOn,
    End,
}

impl<'mock> Session<'mock> {
    pub fn new(socket: TcpStream, shared: &'mock Arc<Shared>, plan: Plan, number: usize) -> Self {
        socket.set_nodelay(true).unwrap();
        socket.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        Self {
            socket,
            shared,
            plan,
            number,
            door: Door::new(number),
            unread: Vec::new(),
            ways: Vec::new(),
            path: String::new(),
            show: None,
            played: None,
            heard: Instant::now(),
            datagrams: 0,
            swapped: None,
        }
    }

    pub fn run(mut self) {
        while self.turn() == Next::GoOn && !self.shared.stopping() {}
        if let Some(place) = self.played {
            self.shared.seen().played[place].0.ended.get_or_insert_with(Instant::now);
        }
    }

    fn turn(&mut self) -> Next {
        if self.receive() == Next::End {
            return Next::End;
        }
        while let Some(request) = self.take_request() {
            self.heard = Instant::now();
            if self.serve(&request) == Next::End {
                return Next::End;
            }
        }
        self.listen_to_ports();
        if self.plan.timeout_enforced && self.heard.elapsed() > Duration::from_secs(self.plan.timeout_s) {
            return Next::End;
        }
        self.send_media()
    }

    /// Waits for something to read until the next packet is due.
    fn receive(&mut self) -> Next {
        let due =
            self.show.as_ref().and_then(|show| Some(show.next_due(&self.plan)?.saturating_sub(show.age())));
        let wait = due.unwrap_or(TICK).clamp(Duration::from_millis(1), TICK);
        self.socket.set_read_timeout(Some(wait)).unwrap();
        let mut chunk = [0; 4_096];
        match self.socket.read(&mut chunk) {
            Ok(0) => Next::End,
            Ok(n) => {
                self.unread.extend_from_slice(&chunk[..n]);
                Next::GoOn
            }
            Err(error) if is_late(&error) => Next::GoOn,
            Err(_) => Next::End,
        }
    }

    fn take_request(&mut self) -> Option<Request> {
        while *self.unread.first()? == b'$' {
            let size = self.unread.get(2..4)?;
            let end = 4 + usize::from(u16::from_be_bytes([size[0], size[1]]));
            if self.unread.len() < end {
                return None;
            }
            self.unread.drain(..end);
            self.heard = Instant::now();
            self.shared.seen().receiver_reports += 1;
        }
        let end = self.unread.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = String::from_utf8(self.unread[..end].to_vec()).expect("requests are text");
        let mut lines = head.trim_end().split("\r\n");
        let mut first = lines.next().unwrap().split(' ');
        let (method, url) = (first.next().unwrap().to_owned(), first.next().unwrap_or_default().to_owned());
        assert_eq!(first.next(), Some("RTSP/1.0"), "a request line of {head:?}");
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(':').unwrap_or_else(|| panic!("no header: {line:?} in {head:?}")))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        let request = Request { method, url, headers };
        let body = request.header("Content-Length").map_or(0, |n| n.parse().unwrap());
        if self.unread.len() < end + body {
            return None;
        }
        self.unread.drain(..end + body);
        Some(request)
    }

    fn serve(&mut self, request: &Request) -> Next {
        let place = {
            let mut seen = self.shared.seen();
            seen.asked.push(Asked { method: request.method.clone(), url: request.url.clone(), status: 0 });
            seen.asked.len() - 1
        };
        let Some(answer) = self.answer(request) else { return Next::End };
        self.shared.seen().asked[place].status = answer.status;
        if !self.write(answer.text().as_bytes()) {
            return Next::End;
        }
        match (request.method.as_str(), answer.status) {
            ("PLAY", 200) => self.play(),
            ("TEARDOWN", 200) => {
                if let Some(place) = self.played {
                    self.shared.seen().played[place].0.torn_down = true;
                }
                return Next::End;
            }
            _ => {}
        }
        Next::GoOn
    }

    /// `None`: the connection ends without one.
    fn answer(&mut self, request: &Request) -> Option<Answer> {
        let cseq = request.header("CSeq").expect("a request has CSeq").to_owned();
        let verdict =
            self.door.ask(&self.plan, &request.method, &request.url, request.header("Authorization"));
        let mut answer = match verdict {
            Verdict::Open => self.handle(request),
            Verdict::Challenged(challenges) => challenges
                .into_iter()
                .fold(Answer::new(401), |answer, challenge| answer.with("WWW-Authenticate", challenge)),
        };
        let hangs = self.plan.hangs.as_ref().filter(|_| request.method == "DESCRIBE");
        if hangs.is_some_and(|prefix| self.path_of(&request.url).starts_with(prefix.as_str())) {
            super::hold(&self.socket, self.shared);
            return None;
        }
        answer.headers.insert(0, ("CSeq".to_owned(), cseq.clone()));
        if !answer.body.is_empty() {
            answer.headers.push(("Content-Length".to_owned(), answer.body.len().to_string()));
        }
        if answer.status == 401 {
            return Some(answer);
        }
        for change in self.plan.quirks_of(&request.method).collect::<Vec<_>>() {
            match change.clone() {
                Change::Drop(name) => answer.headers.retain(|(found, _)| *found != name),
                Change::Set(name, value) => {
                    answer.headers.retain(|(found, _)| *found != name);
                    answer.headers.push((name, value));
                }
                Change::Status(code) => answer = Answer::new(code).with("CSeq", cseq.clone()),
                Change::Redirect(code, url) => {
                    let turn = self.shared.seen().asked.len().to_string();
                    let to = url.replace("{self}", &self.shared.base).replace("{n}", &turn);
                    // Where it leads to this path, the client has arrived.
                    if to != request.url {
                        answer = Answer::new(code).with("CSeq", cseq.clone()).with("Location", to);
                    }
                }
                Change::Delay(time) => thread::sleep(time),
                Change::Hang => {
                    super::hold(&self.socket, self.shared);
                    return None;
                }
                Change::Close => return None,
            }
        }
        Some(answer)
    }

    fn handle(&mut self, request: &Request) -> Answer {
        let path = self.path_of(&request.url);
        match request.method.as_str() {
            "OPTIONS" => Answer::new(200).with("Public", PUBLIC),
            "GET_PARAMETER" | "SET_PARAMETER" => Answer::new(200),
            "TEARDOWN" => Answer::new(200),
            "DESCRIBE" if !self.has(&path) => Answer::new(404),
            "DESCRIBE" => {
                let mut answer = Answer::new(200)
                    .with("Content-Base", format!("{}{path}/", self.shared.base))
                    .with("Content-Type", "application/sdp");
                answer.body = describe(&self.plan, &self.local_ip().to_string());
                answer
            }
            "SETUP" => self.set_up(request, &path),
            "PLAY" if self.ways.is_empty() => Answer::new(455),
            "PLAY" => self
                .in_session(Answer::new(200))
                .with("Range", "npt=0.000-")
                .with("RTP-Info", format!("url={}{path}/trackID={}", self.shared.base, self.ways[0].0)),
            _ => Answer::new(501),
        }
    }

    fn in_session(&self, answer: Answer) -> Answer {
        answer.with("Session", format!("{:08}{:04};timeout={}", 7_310_000, self.number, self.plan.timeout_s))
    }

    fn local_ip(&self) -> Ipv4Addr {
        match self.socket.local_addr().map(|address| address.ip()) {
            Ok(std::net::IpAddr::V4(ip)) => ip,
            _ => Ipv4Addr::LOCALHOST,
        }
    }

    /// Without the base, credentials, and what the client appended for a track.
    fn path_of(&self, url: &str) -> String {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let path = rest.split_once('/').map_or("", |(_, path)| path);
        let path = path.split_once("/trackID=").map_or(path, |(path, _)| path);
        path.trim_end_matches('/').to_owned()
    }

    fn has(&self, path: &str) -> bool {
        let named = |known: &String| known.trim_start_matches('/') == path;
        self.plan.only.is_empty() || self.plan.only.iter().any(named)
    }

    fn set_up(&mut self, request: &Request, path: &str) -> Answer {
        let Some(track) = request.url.rsplit_once("trackID=").and_then(|(_, n)| n.parse::<usize>().ok())
        else {
            return Answer::new(400);
        };
        if !self.has(path) || track >= self.plan.tracks.len() {
            return Answer::new(404);
        }
        let asked = request.header("Transport").unwrap_or_default().to_owned();
        let part = |name: &str| asked.split(';').find_map(|part| part.trim().strip_prefix(name));
        let (way, said) = if asked.starts_with("RTP/AVP/TCP") {
            if !self.plan.tcp {
                return Answer::new(461);
            }
            let channel = part("interleaved=").and_then(|pair| pair.split('-').next()?.parse().ok());
            let channel = channel.unwrap_or(2 * track as u8);
            (Way::Tcp { channel }, format!("RTP/AVP/TCP;unicast;interleaved={channel}-{}", channel + 1))
        } else if asked.contains("multicast") {
            let Some(group) = self.plan.multicast else { return Answer::new(461) };
            let (way, ports) = self.multicast(group);
            (way, format!("RTP/AVP;multicast;destination={group};port={}-{};ttl=1", ports.0, ports.1))
        } else {
            let ports = part("client_port=").and_then(|pair| {
                let (rtp, rtcp) = pair.split_once('-')?;
                Some((rtp.parse::<u16>().ok()?, rtcp.parse::<u16>().ok()?))
            });
            let (Some(ports), true) = (ports, self.plan.udp != Udp::Refuse) else { return Answer::new(461) };
            let (way, own) = self.unicast(ports);
            let client = format!("client_port={}-{}", ports.0, ports.1);
            (way, format!("RTP/AVP;unicast;{client};server_port={own}-{};ssrc=CA3E4A0{track:X}", own + 1))
        };
        self.ways.retain(|(place, _)| *place != track);
        self.ways.push((track, way));
        path.clone_into(&mut self.path);
        self.in_session(Answer::new(200)).with("Transport", said)
    }

    /// A pair of ports that speaks to the client's; and the first one's number.
    fn unicast(&self, ports: (u16, u16)) -> (Way, u16) {
        let peer = self.socket.peer_addr().unwrap().ip();
        let [rtp, rtcp] = udp_pair_on(self.local_ip());
        for (socket, port) in [(&rtp, ports.0), (&rtcp, ports.1)] {
            socket.connect(SocketAddr::new(peer, port)).unwrap();
            socket.set_nonblocking(true).unwrap();
        }
        let own = rtp.local_addr().unwrap().port();
        (Way::Udp { rtp, rtcp }, own)
    }

    /// The same to a group; and the group's ports.
    fn multicast(&self, group: Ipv4Addr) -> (Way, (u16, u16)) {
        let [rtp, rtcp] = udp_pair_on(self.local_ip());
        let port = rtp.local_addr().unwrap().port();
        for (socket, port) in [(&rtp, port), (&rtcp, port + 1)] {
            SockRef::from(socket).set_multicast_if_v4(&self.local_ip()).unwrap();
            socket.connect(SocketAddr::from((group, port))).unwrap();
            socket.set_nonblocking(true).unwrap();
        }
        (Way::Udp { rtp, rtcp }, (port, port + 1))
    }

    fn play(&mut self) {
        if self.show.is_some() {
            return;
        }
        let record = Record::empty();
        let tracks: Vec<usize> = self.ways.iter().map(|(place, _)| *place).collect();
        self.show = Some(Show::start(&self.plan, tracks.iter().copied(), record.clone()));
        let transport = match &self.ways[0].1 {
            Way::Tcp { .. } => "tcp",
            Way::Udp { rtp, .. } if rtp.peer_addr().is_ok_and(|peer| peer.ip().is_multicast()) => "multicast",
            Way::Udp { .. } => "udp",
        };
        let path = self.path.clone();
        let played = Played { path, transport, tracks, ended: None, torn_down: false };
        let mut seen = self.shared.seen();
        self.played = Some(seen.played.len());
        seen.played.push((played, record));
    }

    /// Takes what came to the ports over UDP.
    fn listen_to_ports(&mut self) {
        let mut packet = [0; 2_048];
        for (_, way) in &self.ways {
            let Way::Udp { rtp, rtcp } = way else { continue };
            while rtp.recv(&mut packet).is_ok() {
                self.heard = Instant::now();
                self.shared.seen().punches += 1;
            }
            while rtcp.recv(&mut packet).is_ok() {
                self.heard = Instant::now();
                self.shared.seen().receiver_reports += 1;
            }
        }
    }

    fn send_media(&mut self) -> Next {
        let Some(mut show) = self.show.take() else { return Next::GoOn };
        if let Some((after, how)) = self.plan.cut
            && show.age() >= after
        {
            return self.cut(how);
        }
        let plan = self.plan.clone();
        let sent = plan.quiet_after.is_some_and(|after| show.age() >= after)
            || show.run(&plan, |place, plane, packet| self.send(place, &plane, packet));
        self.show = Some(show);
        if sent { Next::GoOn } else { Next::End }
    }

    fn cut(&mut self, how: CutBy) -> Next {
        match how {
            CutBy::Fin => {}
            CutBy::Rst => SockRef::from(&self.socket).set_linger(Some(Duration::ZERO)).unwrap(),
            CutBy::HalfOpen => {
                while !self.shared.stopping() {
                    thread::sleep(TICK);
                }
            }
        }
        Next::End
    }

    /// False once the client is gone.
    fn send(&mut self, place: usize, plane: &Plane, packet: &[u8]) -> bool {
        let Some((_, way)) = self.ways.iter().find(|(known, _)| *known == place) else { return true };
        let is_rtp = matches!(plane, Plane::Rtp);
        match way {
            Way::Tcp { channel } => {
                let mut frame = vec![b'$', channel + u8::from(!is_rtp)];
                frame.extend_from_slice(&(packet.len() as u16).to_be_bytes());
                frame.extend_from_slice(packet);
                self.write(&frame)
            }
            Way::Udp { rtp, rtcp } => {
                if self.plan.udp == Udp::Swallow {
                    return true;
                }
                // A port that is closed already says so with an error; the connection tells when the client is gone.
                if !is_rtp {
                    let _ = rtcp.send(packet);
                    return true;
                }
                self.datagrams += 1;
                let falls =
                    |every: Option<u32>| every.is_some_and(|every| self.datagrams.is_multiple_of(every));
                if falls(self.plan.udp_drop) {
                    return true;
                }
                if falls(self.plan.udp_swap) && self.swapped.is_none() {
                    self.swapped = Some((place, packet.to_vec()));
                    return true;
                }
                let _ = rtp.send(packet);
                if let Some((_, late)) = self.swapped.take_if(|(of, _)| *of == place) {
                    let _ = rtp.send(&late);
                }
                true
            }
        }
    }

    fn write(&self, bytes: &[u8]) -> bool {
        let mut socket = &self.socket;
        match self.plan.dribble {
            true => bytes.iter().all(|byte| socket.write_all(&[*byte]).is_ok()),
            false => socket.write_all(bytes).is_ok(),
        }
    }
}

/// An even UDP port and the next one.
fn udp_pair_on(ip: Ipv4Addr) -> [UdpSocket; 2] {
    loop {
        let rtp = UdpSocket::bind((ip, 0)).unwrap();
        let port = rtp.local_addr().unwrap().port();
        if port.is_multiple_of(2)
            && let Ok(rtcp) = UdpSocket::bind((ip, port + 1))
        {
            return [rtp, rtcp];
        }
    }
}
