//! Replays what a real client says, and checks that it is answered as that client needs.
//!
//! A fixture has the form of a recorded conversation. `C->S` lines are sent as they stand; `S->C` lines are what the
//! answer must hold: the status, each named header with each of the listed parts of its value, and in a body each
//! line as the beginning of some line. An answer that is not listed is not waited for. In brackets:
//! `S->C ($ frames: 0, 2)` waits for media on these channels, `S->C (datagrams: 0, 1)` for UDP media of these tracks,
//! `S->C (closed)` for the end; `C->S ($ frames: 1, 3)` sends RTCP, `C->S (media: tcp)` and `C->S (media: udp)`
//! send pictures as a publisher, `C->S (punch)` an empty packet from each UDP port.
//!
//! Placeholders: `{url}` of the path, `{base}` of the DESCRIBE answer, `{track0}` the track's control URL,
//! `{session}`, `{port0}` and `{port0+1}` the client's UDP ports of track 0.

use std::{
    collections::HashMap,
    net::UdpSocket,
    time::{Duration, Instant},
};

use super::{PATIENCE, Rtsp, Server, rtsp::Response, udp_pair};

pub struct Replay<'a> {
    server: &'a Server,
    name: &'a str,
    client: Rtsp,
    path: &'a str,
    udp: Vec<[UdpSocket; 2]>,
    server_ports: HashMap<usize, [u16; 2]>,
    last_cseq: String,
    pub answers: usize,
}

enum Step {
    Request(Vec<String>),
    Answer(Vec<String>),
    /// `client` says it, or it is awaited from the server.
    Note {
        client: bool,
        text: String,
    },
}

fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut fresh = true;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if line.trim().is_empty() {
            fresh = true;
            continue;
        }
        let client = line.starts_with("C->S");
        assert!(client || line.starts_with("S->C"), "not a transcript line: {line:?}");
        let said = line[4..].trim_start().to_owned();
        if said.starts_with('(') {
            steps.push(Step::Note { client, text: said });
            fresh = true;
        } else if fresh {
            steps.push(if client { Step::Request(vec![said]) } else { Step::Answer(vec![said]) });
            fresh = false;
        } else {
            match (client, steps.last_mut()) {
                (true, Some(Step::Request(lines))) | (false, Some(Step::Answer(lines))) => lines.push(said),
                _ => panic!("an empty line must part request and answer: {line:?}"),
            }
        }
    }
    steps
}

impl<'a> Replay<'a> {
    pub fn run(server: &'a Server, name: &'a str, text: &str, path: &'a str) -> Self {
        let udp = (0..2).map(|_| udp_pair()).collect();
        let client = Rtsp::connect(server);
        let mut replay = Self {
            server,
            name,
            client,
            path,
            udp,
            server_ports: HashMap::new(),
            last_cseq: String::new(),
            answers: 0,
        };
        for step in steps(text) {
            match step {
                Step::Request(lines) => replay.send(&lines),
                Step::Answer(lines) => replay.check_answer(&lines),
                Step::Note { client, text } => replay.note(client, &text),
            }
        }
        replay
    }

    fn fill(&self, text: &str) -> String {
        let mut filled = text
            .replace("{url}", &self.client.url(self.path))
            .replace("{base}", &self.client.content_base)
            .replace("{session}", self.client.session.as_deref().unwrap_or("none"));
        for n in 0..2 {
            let [rtp, rtcp] = &self.udp[n];
            filled = filled
                .replace(&format!("{{port{n}}}"), &rtp.local_addr().unwrap().port().to_string())
                .replace(&format!("{{port{n}+1}}"), &rtcp.local_addr().unwrap().port().to_string());
            if let Some(control) = self.client.controls.get(n) {
                filled = filled.replace(&format!("{{track{n}}}"), control);
            }
        }
        assert!(!filled.contains('{'), "{}: nothing to fill in here: {filled:?}", self.name);
        filled
    }

    fn send(&mut self, lines: &[String]) {
        // The first empty line ends the head; the body's length is counted, whatever the recording said.
        let (head, body) = match lines.iter().position(String::is_empty) {
            Some(at) => (&lines[..at], lines[at + 1..].join("\r\n") + "\r\n"),
            None => (lines, String::new()),
        };
        let mut text = String::new();
        for line in head {
            let line = match line.starts_with("Content-Length:") {
                true => format!("Content-Length: {}", body.len()),
                false => self.fill(line),
            };
            if let Some(cseq) = line.strip_prefix("CSeq: ") {
                self.last_cseq = cseq.to_owned();
            }
            text += &format!("{line}\r\n");
        }
        assert!(
            self.client.send_raw(format!("{text}\r\n{body}").as_bytes()),
            "{}: closed before {text}",
            self.name
        );
    }

    fn check_answer(&mut self, lines: &[String]) {
        let answer = self.client.response();
        let who = format!("{}: {lines:?} wanted, got {answer:?}", self.name);
        let status = lines[0].strip_prefix("RTSP/1.0 ").and_then(|rest| rest[..3].parse().ok());
        assert_eq!(status, Some(answer.status), "{who}");
        assert_eq!(answer.header("CSeq"), Some(self.last_cseq.as_str()), "{who}");
        self.client.note_description(&answer);
        self.note_ports(&answer);
        let (head, body) = match lines.iter().position(String::is_empty) {
            Some(at) => (&lines[1..at], &lines[at + 1..]),
            None => (&lines[1..], &[][..]),
        };
        for line in head {
            let (name, wanted) = line.split_once(':').unwrap();
            let found = answer.header(name).unwrap_or_else(|| panic!("no {name}; {who}"));
            let wanted = self.fill(wanted);
            let parts: Vec<&str> = found.split([';', ',']).map(str::trim).collect();
            for part in wanted.split([';', ',']).map(str::trim) {
                // `ssrc=` or `server_port=` alone asks for the part with any value.
                let there = parts.iter().any(|p| *p == part || part.ends_with('=') && p.starts_with(part));
                assert!(there, "{part:?} is not in {name}: {found}; {who}");
            }
        }
        for line in body {
            assert!(
                answer.body.lines().any(|l| l.starts_with(line.as_str())),
                "no {line:?} in the body; {who}"
            );
        }
        self.answers += 1;
    }

    fn note_ports(&mut self, answer: &Response) {
        let Some(transport) = answer.header("Transport") else { return };
        let pair = |name: &str| {
            let value = transport.split(';').find_map(|part| part.strip_prefix(name))?;
            let (rtp, rtcp) = value.split_once('-')?;
            Some([rtp.parse().ok()?, rtcp.parse().ok()?])
        };
        if let (Some(client), Some(server)) = (pair("client_port="), pair("server_port=")) {
            let own = |n: &usize| self.udp[*n][0].local_addr().unwrap().port() == client[0];
            let track = (0..self.udp.len()).find(own).expect("the server answers with our own ports");
            assert_eq!(server[0], self.server.rtp_port, "{}: server_port is rtpAddress's", self.name);
            self.server_ports.insert(track, server);
        }
    }

    fn note(&mut self, client: bool, text: &str) {
        let inner = text.trim_matches(['(', ')']);
        let (what, list) = inner.split_once(':').unwrap_or((inner, ""));
        let numbers: Vec<usize> = list.split(',').filter_map(|n| n.trim().parse().ok()).collect();
        match (client, what) {
            (false, "$ frames") => {
                let mut missing: Vec<u8> = numbers.iter().map(|n| *n as u8).collect();
                while !missing.is_empty() {
                    let frame = self.client.frame(PATIENCE);
                    let frame = frame.unwrap_or_else(|| panic!("{}: no media on {missing:?}", self.name));
                    missing.retain(|channel| *channel != frame.channel);
                }
            }
            (false, "datagrams") => {
                for track in numbers {
                    let mut packet = [0; 2048];
                    let got = self.udp[track][0].recv(&mut packet);
                    let got = got.unwrap_or_else(|e| panic!("{}: no media of track {track}: {e}", self.name));
                    assert!(got >= 12 && packet[0] >> 6 == 2, "{}: not RTP: {:?}", self.name, &packet[..got]);
                }
            }
            (false, "closed") => assert!(self.client.closed_within(PATIENCE), "{}: not closed", self.name),
            (true, "$ frames") => {
                for channel in numbers {
                    assert!(self.client.send_frame(channel as u8, &RECEIVER_REPORT), "{}: closed", self.name);
                }
            }
            (true, "punch") => {
                for (track, server) in &self.server_ports {
                    for (socket, port) in self.udp[*track].iter().zip(server) {
                        socket.send_to(&RECEIVER_REPORT, ("127.0.0.1", *port)).unwrap();
                    }
                }
            }
            (true, "media") => self.publish(list.trim() == "udp"),
            _ => panic!("{}: cannot do {text}", self.name),
        }
    }

    /// Sends pictures until another client sees some.
    fn publish(&mut self, udp: bool) {
        let mut reader: Option<Rtsp> = None;
        let give_up = Instant::now() + PATIENCE;
        for n in 0_u16.. {
            assert!(Instant::now() < give_up, "{}: nobody sees what it publishes", self.name);
            let mut rtp = vec![0x80, 0x80 | 96];
            rtp.extend_from_slice(&n.to_be_bytes());
            rtp.extend_from_slice(&(u32::from(n) * 3_600).to_be_bytes());
            rtp.extend_from_slice(&[0xCA, 0x3E, 0x4A, 0, 0x65, 0x88, 0x84, 0x21]);
            match udp {
                true => drop(self.udp[0][0].send_to(&rtp, ("127.0.0.1", self.server_ports[&0][0])).unwrap()),
                false => assert!(self.client.send_frame(0, &rtp), "{}: closed while publishing", self.name),
            }
            match &mut reader {
                None => reader = Some(Rtsp::play_tcp(self.server, self.path)),
                Some(reader) => {
                    let media = reader.frame(Duration::from_millis(40)).filter(|frame| frame.channel == 0);
                    if media.is_some_and(|frame| frame.data.ends_with(&[0x65, 0x88, 0x84, 0x21])) {
                        return;
                    }
                }
            }
        }
    }
}

/// An empty receiver report, RFC 3550 §6.4.2.
const RECEIVER_REPORT: [u8; 8] = [0x80, 201, 0, 1, 0xC1, 0x1E, 0x47, 0];
