//! An RTSP client without sockets: what to send next, given what came back; and the cut of a byte stream into
//! interleaved packets and messages.

pub enum Item<'a> {
    Media { channel: u8, packet: &'a [u8] },
    Message(Message<'a>),
}

pub struct Message<'a> {
    pub head: &'a str,
    pub body: &'a [u8],
}

impl Message<'_> {
    /// The status code; None for a request from the server.
    pub fn status(&self) -> Option<u16> {
        let rest = self.head.strip_prefix("RTSP/1.0 ")?;
        rest.split_whitespace().next()?.parse().ok()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let line = |l: &'_ str| l.split_once(':').is_some_and(|(n, _)| n.trim().eq_ignore_ascii_case(name));
        let l = self.head.lines().skip(1).find(|l| line(l))?;
        l.split_once(':').map(|(_, v)| v.trim())
    }
}

/// The next item of `buf` and its length; None: more bytes are needed.
pub fn next_item(buf: &[u8]) -> Result<Option<(Item<'_>, usize)>, String> {
    match buf {
        [b'$', channel, a, b, rest @ ..] => {
            let n = usize::from(u16::from_be_bytes([*a, *b]));
            Ok(rest.get(..n).map(|packet| (Item::Media { channel: *channel, packet }, n + 4)))
        }
        [b'$', ..] | [] => Ok(None),
        [b'A'..=b'Z', ..] => {
            let Some(end) = buf.windows(4).position(|w| w == b"\r\n\r\n") else {
                return if buf.len() > 65_536 { Err("endless RTSP header".into()) } else { Ok(None) };
            };
            let head = std::str::from_utf8(&buf[..end]).map_err(|_| "RTSP header is not UTF-8".to_owned())?;
            let m = Message { head, body: &[] };
            let n: usize = m.header("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
            let at = end + 4;
            Ok(buf.get(at..at + n).map(|body| (Item::Message(Message { head, body }), at + n)))
        }
        [b, ..] => Err(format!("lost step: neither '$' nor a message but byte {b:#04x}")),
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    Publish,
    Read,
    /// We are the camera: the server under test has connected to us.
    Serve,
}

/// How the media goes: interleaved, or the client's two UDP ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Via {
    Tcp,
    Udp(u16),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    Options,
    Describe,
    Announce,
    Setup,
    Start,
    Done,
    Leaving,
}

pub enum Next {
    Send(Vec<u8>),
    Ready,
    /// a reply that changes nothing (keep-alive)
    Nothing,
    Left,
}

pub struct Client {
    role: Role,
    via: Via,
    url: String,
    sdp: String,
    pub step: Step,
    cseq: u32,
    session: String,
    control: String,
    aggregate: String,
    pub rtp_channel: u8,
    pub server_port: u16,
}

impl Client {
    pub fn new(role: Role, via: Via, url: String, sdp: String) -> Self {
        Self {
            role,
            via,
            aggregate: url.clone(),
            control: String::new(),
            url,
            sdp,
            step: Step::Options,
            cseq: 0,
            session: String::new(),
            rtp_channel: 0,
            server_port: 0,
        }
    }

    fn request(&mut self, method: &str, url: &str, headers: &str, body: &str) -> Vec<u8> {
        self.cseq += 1;
        let mut s =
            format!("{method} {url} RTSP/1.0\r\nCSeq: {}\r\nUser-Agent: corecast-perf\r\n", self.cseq);
        if !self.session.is_empty() {
            s += &format!("Session: {}\r\n", self.session);
        }
        s += headers;
        if !body.is_empty() {
            s += &format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n", body.len());
        }
        s += "\r\n";
        s += body;
        s.into_bytes()
    }

    pub fn first(&mut self) -> Vec<u8> {
        let url = self.url.clone();
        self.request("OPTIONS", &url, "", "")
    }

    pub fn keep_alive(&mut self) -> Vec<u8> {
        let url = self.aggregate.clone();
        self.request("GET_PARAMETER", &url, "", "")
    }

    pub fn leave(&mut self) -> Vec<u8> {
        self.step = Step::Leaving;
        let url = self.aggregate.clone();
        self.request("TEARDOWN", &url, "", "")
    }

    pub fn on_message(&mut self, m: &Message) -> Result<Next, String> {
        let Some(status) = m.status() else { return Ok(Next::Nothing) };
        if self.step == Step::Done {
            return Ok(Next::Nothing);
        }
        if self.step == Step::Leaving {
            let ours = m.header("cseq").and_then(|c| c.parse().ok()) == Some(self.cseq);
            return Ok(if ours { Next::Left } else { Next::Nothing });
        }
        if status != 200 {
            return Err(format!("{:?}: {}", self.step, m.head.lines().next().unwrap_or("")));
        }
        let url = self.url.clone();
        Ok(Next::Send(match (self.step, self.role) {
            (Step::Options, Role::Publish) => {
                self.step = Step::Announce;
                let sdp = self.sdp.clone();
                self.request("ANNOUNCE", &url, "", &sdp)
            }
            (Step::Options, Role::Read) => {
                self.step = Step::Describe;
                self.request("DESCRIBE", &url, "Accept: application/sdp\r\n", "")
            }
            (Step::Announce, _) => self.setup(format!("{url}/streamid=0")),
            (Step::Describe, _) => {
                let base = m.header("content-base").or(m.header("content-location")).unwrap_or(&url);
                let sdp = String::from_utf8_lossy(m.body);
                let control = video_control(&sdp).ok_or("the SDP has no video")?;
                self.aggregate = base.to_owned();
                let url = resolve(base, &control);
                self.setup(url)
            }
            (Step::Setup, _) => {
                self.on_setup(m)?;
                self.step = Step::Start;
                let url = self.aggregate.clone();
                let method = if self.role == Role::Publish { "RECORD" } else { "PLAY" };
                self.request(method, &url, "Range: npt=0.000-\r\n", "")
            }
            _ => {
                self.step = Step::Done;
                return Ok(Next::Ready);
            }
        }))
    }

    fn setup(&mut self, url: String) -> Vec<u8> {
        self.step = Step::Setup;
        self.control = url.clone();
        let mode = if self.role == Role::Publish { ";mode=record" } else { "" };
        let t = match self.via {
            Via::Tcp => format!("Transport: RTP/AVP/TCP;unicast;interleaved=0-1{mode}\r\n"),
            Via::Udp(p) => format!("Transport: RTP/AVP/UDP;unicast;client_port={p}-{}{mode}\r\n", p + 1),
        };
        self.request("SETUP", &url, &t, "")
    }

    fn on_setup(&mut self, m: &Message) -> Result<(), String> {
        let s = m.header("session").ok_or("SETUP without Session")?;
        self.session = s.split(';').next().unwrap_or(s).trim().to_owned();
        let t = m.header("transport").ok_or("SETUP without Transport")?;
        let first = |name: &str| -> Option<u16> {
            let v = t.split(';').find_map(|p| p.trim().strip_prefix(name))?;
            v.split('-').next()?.parse().ok()
        };
        match self.via {
            Via::Tcp => self.rtp_channel = first("interleaved=").ok_or(format!("no channels in {t}"))? as u8,
            Via::Udp(_) => {
                self.server_port = first("server_port=").unwrap_or(0);
                if self.role == Role::Publish && self.server_port == 0 {
                    return Err(format!("no server_port in {t}"));
                }
            }
        }
        Ok(())
    }
}

/// The control attribute of the first video of an SDP.
fn video_control(sdp: &str) -> Option<String> {
    let mut video = false;
    let mut found = false;
    for l in sdp.lines().map(str::trim) {
        if let Some(m) = l.strip_prefix("m=") {
            if video {
                break;
            }
            video = m.starts_with("video");
            found |= video;
        } else if let (true, Some(c)) = (video, l.strip_prefix("a=control:")) {
            return Some(c.to_owned());
        }
    }
    found.then(|| "*".to_owned())
}

fn resolve(base: &str, control: &str) -> String {
    if control == "*" {
        return base.to_owned();
    }
    if control.contains("://") {
        return control.to_owned();
    }
    if let Some(path) = control.strip_prefix('/') {
        let host = base.split('/').take(3).collect::<Vec<_>>().join("/");
        return format!("{host}/{path}");
    }
    format!("{}/{control}", base.trim_end_matches('/'))
}

fn base64(b: &[u8]) -> String {
    const T: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut s = String::new();
    for c in b.chunks(3) {
        let v = u32::from(c[0]) << 16
            | u32::from(*c.get(1).unwrap_or(&0)) << 8
            | u32::from(*c.get(2).unwrap_or(&0));
        for i in 0..4 {
            s.push(if i <= c.len() { T[(v >> (18 - 6 * i)) as usize & 63] as char } else { '=' });
        }
    }
    s
}

pub fn sdp(sps: &[u8], pps: &[u8]) -> String {
    let level = sps.get(1..4).map_or(String::new(), |l| format!("{:02X}{:02X}{:02X}", l[0], l[1], l[2]));
    format!(
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=perf\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n\
         a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1; sprop-parameter-sets={},{}; \
         profile-level-id={level}\r\na=control:streamid=0\r\n",
        base64(sps),
        base64(pps)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_at_every_cut() {
        let stream =
            b"$\x00\x00\x03abcRTSP/1.0 200 OK\r\nCSeq: 3\r\nContent-Length: 2\r\n\r\nhi$\x01\x00\x01z";
        for cut in 0..=stream.len() {
            let (mut buf, mut got) = (Vec::new(), Vec::new());
            for part in [&stream[..cut], &stream[cut..]] {
                buf.extend_from_slice(part);
                while let Some((item, n)) = next_item(&buf).unwrap() {
                    got.push(match item {
                        Item::Media { channel, packet } => format!("{channel}:{}", packet.len()),
                        Item::Message(m) => format!("{:?} {:?}", m.status(), m.body),
                    });
                    buf.drain(..n);
                }
            }
            assert_eq!(got, ["0:3", "Some(200) [104, 105]", "1:1"], "cut at {cut}");
            assert!(buf.is_empty());
        }
        assert!(next_item(b"\x00\x01").is_err());
    }

    #[test]
    fn control_is_resolved() {
        assert_eq!(resolve("rtsp://h:1/a/", "trackID=0"), "rtsp://h:1/a/trackID=0");
        assert_eq!(resolve("rtsp://h:1/a", "trackID=0"), "rtsp://h:1/a/trackID=0");
        assert_eq!(resolve("rtsp://h:1/a", "rtsp://x/b"), "rtsp://x/b");
        assert_eq!(resolve("rtsp://h:1/a/", "/b/c"), "rtsp://h:1/b/c");
        assert_eq!(resolve("rtsp://h:1/a/", "*"), "rtsp://h:1/a/");
        let s = "v=0\r\na=control:*\r\nm=audio 0 RTP/AVP 97\r\na=control:t=1\r\nm=video 0 RTP/AVP 96\r\na=control:t=0\r\n";
        assert_eq!(video_control(s).as_deref(), Some("t=0"));
        assert_eq!(video_control("m=audio 0 RTP/AVP 97\r\n"), None);
    }

    #[test]
    fn a_reader_goes_through_its_steps() {
        let mut c = Client::new(Role::Read, Via::Udp(5000), "rtsp://h:1/a".into(), String::new());
        assert!(c.first().starts_with(b"OPTIONS rtsp://h:1/a RTSP/1.0\r\n"));
        let mut tell = |head: &str, body: &str| -> String {
            match c.on_message(&Message { head, body: body.as_bytes() }).unwrap() {
                Next::Send(b) => String::from_utf8(b).unwrap(),
                Next::Ready => "ready".into(),
                _ => "other".into(),
            }
        };
        assert!(tell("RTSP/1.0 200 OK", "").starts_with("DESCRIBE rtsp://h:1/a "));
        let s = tell(
            "RTSP/1.0 200 OK\r\nContent-Base: rtsp://h:1/a/",
            "m=video 0 RTP/AVP 96\r\na=control:trackID=0",
        );
        assert!(
            s.starts_with("SETUP rtsp://h:1/a/trackID=0 ") && s.contains("client_port=5000-5001\r\n"),
            "{s}"
        );
        let s =
            tell("RTSP/1.0 200 OK\r\nSession: ab;timeout=60\r\nTransport: RTP/AVP;server_port=8000-8001", "");
        assert!(s.starts_with("PLAY rtsp://h:1/a/ ") && s.contains("Session: ab\r\n"), "{s}");
        assert_eq!(tell("RTSP/1.0 200 OK", ""), "ready");
        assert_eq!(c.server_port, 8000);
        assert!(
            Client::new(Role::Read, Via::Tcp, String::new(), String::new())
                .on_message(&Message { head: "RTSP/1.0 404 Not Found", body: b"" })
                .is_err()
        );
    }

    #[test]
    fn base64_of_all_lengths() {
        assert_eq!(
            (base64(b"M"), base64(b"Ma"), base64(b"Man")),
            ("TQ==".into(), "TWE=".into(), "TWFu".into())
        );
    }
}
