//! Whole sessions with servers that bend the rules, each a file in `transcripts/`, written from what is known of the
//! maker's cameras.
//!
//! A file begins with what it is about (`#`), then `url:`, `transport:` (as in the configuration; automatic when
//! absent), `range:`, `scale:`, and `ends:`, the end that must come: `playing` with the routes, `redirected` with the
//! URL, `again tcp`, `closed`, or `error` with parts of its sentence between `|`. Messages follow, parted by empty lines:
//!
//! `> ` the client must say: the first line as it stands, each listed header field with that value; `Name: -` must not
//! be there. `Authorization: Basic` and `Digest MD5` or `Digest SHA-256` are checked against user and password.
//! `< ` the server says; `{cseq}` is the number of the last request, the body's length is added unless given.
//! `@ 24` that many seconds pass. `! teardown` the owner has had enough. `! closed` the server closes the connection.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use crate::rtsp::{
    Limits, Parsed,
    auth::Authorization,
    client::{watched::Owner, *},
    parse_request, parse_response,
};

pub(super) struct Transcript {
    pub name: String,
    pub settings: ClientSettings,
    ends: String,
    /// In order: the sigil, and its lines without it.
    pub messages: Vec<(char, Vec<String>)>,
}

pub(super) fn transcripts() -> Vec<Transcript> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("rtsp/client/transcripts");
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
        .iter()
        .map(|file| {
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            Transcript::read(&name, &fs::read_to_string(file).unwrap())
        })
        .collect()
}

impl Transcript {
    fn read(name: &str, text: &str) -> Self {
        let (mut url, mut ends) = (None, None);
        let (mut transport, mut range, mut scale) = (Wanted::UdpThenTcp, None, None);
        let mut messages: Vec<(char, Vec<String>)> = Vec::new();
        let mut fresh = true;
        for line in text.lines() {
            let at = format!("{name}: {line:?}");
            match line.chars().next() {
                None => fresh = true,
                Some('#') => {}
                Some(sigil @ ('>' | '<' | '@' | '!')) => {
                    let said = line[1..].trim_start().to_owned();
                    match messages.last_mut() {
                        Some((last, lines)) if !fresh => {
                            assert_eq!(*last, sigil, "an empty line must part them: {at}");
                            lines.push(said);
                        }
                        _ => messages.push((sigil, vec![said])),
                    }
                    fresh = false;
                }
                Some(_) => {
                    let (key, value) = line.split_once(": ").unwrap_or_else(|| panic!("{at}"));
                    match (key, value) {
                        ("url", url_text) => url = Some(SourceUrl::parse(url_text).expect(&at)),
                        ("transport", "automatic") => transport = Wanted::UdpThenTcp,
                        ("transport", "udp") => transport = Wanted::Udp,
                        ("transport", "multicast") => transport = Wanted::Multicast,
                        ("transport", "tcp") => transport = Wanted::Tcp,
                        ("range", value) => range = Some(value.to_owned()),
                        ("scale", value) => scale = Some(value.to_owned()),
                        ("ends", value) => ends = Some(value.to_owned()),
                        _ => panic!("{at}"),
                    }
                }
            }
        }
        let settings = ClientSettings { url: url.expect(name), transport, range, scale };
        Self { name: name.to_owned(), settings, ends: ends.expect(name), messages }
    }
}

/// The bytes of what the server says.
pub(super) fn server_bytes(lines: &[String], cseq: &str) -> Vec<u8> {
    let (head, body) = match lines.iter().position(String::is_empty) {
        Some(at) => (&lines[..at], lines[at + 1..].join("\r\n") + "\r\n"),
        None => (lines, String::new()),
    };
    let mut text = head.join("\r\n").replace("{cseq}", cseq) + "\r\n";
    if !body.is_empty() && !text.to_ascii_lowercase().contains("content-length") {
        write!(text, "Content-Length: {}\r\n", body.len()).unwrap();
    }
    (text + "\r\n" + &body).into_bytes()
}

/// One run of a transcript.
struct Replay<'a> {
    transcript: &'a Transcript,
    client: Client,
    now: Instant,
    owner: Owner,
    outgoing: Vec<u8>,
    cseq: String,
    end: String,
}

impl Replay<'_> {
    fn step(&mut self, sigil: char, lines: &[String]) {
        self.client.take_outgoing(&mut self.outgoing);
        match sigil {
            '>' => self.expect(lines),
            '<' => {
                self.nothing_more_is_said();
                self.hear(&server_bytes(lines, &self.cseq));
            }
            '@' => {
                self.nothing_more_is_said();
                self.now += Duration::from_secs(lines[0].parse().unwrap());
                self.client.on_timeout(self.now);
            }
            _ => match lines[0].as_str() {
                "teardown" => self.client.teardown(),
                "closed" => {
                    let step = self.client.on_closed();
                    self.end = step.map_or("closed".to_owned(), |step| shown_step(&step));
                }
                other => panic!("{}: {other}", self.transcript.name),
            },
        }
    }

    fn hear(&mut self, bytes: &[u8]) {
        let name = &self.transcript.name;
        if !bytes.starts_with(b"RTSP/") {
            match parse_request(bytes, &Limits::default()) {
                Ok(Parsed::Complete { value, consumed }) if consumed == bytes.len() => {
                    return self.client.on_request(&value);
                }
                other => panic!("{name}: not a whole request: {other:?}"),
            }
        }
        let response = match parse_response(bytes, &Limits::default()) {
            Ok(Parsed::Complete { value, consumed }) if consumed == bytes.len() => value,
            other => panic!("{name}: not a whole response: {other:?}\n{}", bytes.escape_ascii()),
        };
        match self.client.on_response(&response, self.now, &mut self.owner) {
            Ok(Step::GoOn) => {}
            Ok(Step::Playing) => {
                assert_eq!(self.client.phase(), Phase::Playing, "{name}");
                self.end = self.owner.set_up.iter().fold("playing".to_owned(), |mut text, media| {
                    write!(text, " {}={}", media.track, shown(media.route)).unwrap();
                    text
                });
            }
            Ok(step) => self.end = shown_step(&step),
            Err(error) => self.end = format!("error {error}"),
        }
    }

    fn expect(&mut self, lines: &[String]) {
        let name = &self.transcript.name;
        let said = self.outgoing.escape_ascii().to_string();
        let who = format!("{name}: {lines:?} wanted, said: {said}");
        let end =
            self.outgoing.windows(4).position(|it| it == b"\r\n\r\n").unwrap_or_else(|| panic!("{who}"));
        let head = String::from_utf8(self.outgoing.drain(..end + 4).collect()).unwrap();
        let mut found = head.lines();
        assert_eq!(found.next(), Some(lines[0].as_str()), "{who}");
        let fields: Vec<(&str, &str)> = found.filter_map(|line| line.split_once(": ")).collect();
        let field = |name: &str| {
            let mut all = fields.iter().filter(|(found, _)| *found == name).map(|(_, value)| *value);
            let first = all.next();
            assert_eq!(all.next(), None, "{name} twice; {who}");
            first
        };
        if let Some(cseq) = field("CSeq") {
            self.cseq = cseq.to_owned();
        }
        assert_eq!(field("User-Agent"), Some("corecast"), "{who}");
        for line in &lines[1..] {
            let (key, wanted) = line.split_once(": ").unwrap_or_else(|| panic!("{who}"));
            match (wanted, field(key)) {
                ("-", value) => assert_eq!(value, None, "{key}; {who}"),
                (wanted, Some(value)) if key == "Authorization" => {
                    let (method, rest) = lines[0].split_once(' ').unwrap();
                    let url = rest.strip_suffix(" RTSP/1.0").unwrap();
                    self.check_authorization(wanted, value, (method, url), &who);
                }
                (wanted, value) => assert_eq!(value, Some(wanted), "{key}; {who}"),
            }
        }
    }

    fn check_authorization(&self, wanted: &str, value: &str, (method, url): (&str, &str), who: &str) {
        let mine = self.transcript.settings.url.credentials.clone().unwrap();
        match Authorization::parse(value).expect(who) {
            Authorization::Basic { user, password } => {
                assert_eq!((wanted, user, password), ("Basic", mine.user, mine.password), "{who}");
            }
            Authorization::Digest(digest) => {
                assert!(digest.verify(&mine.user, &mine.password, method), "{who}");
                assert_eq!(digest.uri, url, "{who}");
                let algorithm = wanted.strip_prefix("Digest ").expect(who).replace('-', "");
                let shown = format!("{:?}", digest.algorithm.hash);
                assert!(shown.eq_ignore_ascii_case(&algorithm), "{shown}; {who}");
            }
        }
    }

    fn nothing_more_is_said(&self) {
        let said = self.outgoing.escape_ascii();
        assert!(self.outgoing.is_empty(), "{}: nobody expects this: {said}", self.transcript.name);
    }
}

fn shown_step(step: &Step) -> String {
    match step {
        Step::Redirected(url) => {
            let user = url.credentials.as_ref().map_or("nobody", |it| it.user.as_str());
            format!("redirected {url} as {user}")
        }
        Step::Again(lower) => format!("again {lower:?}").to_lowercase(),
        Step::GoOn | Step::Playing => format!("{step:?}"),
    }
}

fn shown(route: Route) -> String {
    let from = |source: Option<IpAddr>| source.map_or(String::new(), |it| format!("@{it}"));
    match route {
        Route::Tcp { channel } => format!("tcp:{channel}"),
        Route::Udp { ours, theirs, source } => {
            let theirs = theirs.map_or("?".to_owned(), |(rtp, rtcp)| format!("{rtp}-{rtcp}"));
            format!("udp:{}<{theirs}{}", ours.0, from(source))
        }
        Route::Multicast { group, ports, source } => {
            format!("multicast:{group}:{}-{}{}", ports.0, ports.1, from(source))
        }
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
fn every_transcript_ends_as_it_says() {
    let transcripts = transcripts();
    assert!(transcripts.len() >= 25, "{} transcripts", transcripts.len());
    for transcript in &transcripts {
        let now = Instant::now();
        let mut replay = Replay {
            transcript,
            client: Client::new(transcript.settings.clone(), now),
            now,
            owner: Owner::default(),
            outgoing: Vec::new(),
            cseq: String::new(),
            end: "nowhere".to_owned(),
        };
        for (sigil, lines) in &transcript.messages {
            replay.step(*sigil, lines);
        }
        replay.client.take_outgoing(&mut replay.outgoing);
        replay.nothing_more_is_said();
        let (name, end) = (&transcript.name, &replay.end);
        match transcript.ends.strip_prefix("error ") {
            None => assert_eq!(*end, transcript.ends, "{name}"),
            Some(parts) => {
                assert!(end.starts_with("error "), "{name}: {end}");
                for part in parts.split('|').map(str::trim) {
                    assert!(end.contains(part), "{name}: {part:?} is not in {end:?}");
                }
                assert_eq!(replay.client.phase(), Phase::Ended, "{name}");
            }
        }
        if let Some(credentials) = &transcript.settings.url.credentials {
            let secret = &credentials.password;
            let shown = format!("{end} {:?}", replay.client);
            assert!(secret.is_empty() || !shown.contains(secret), "{name}: {shown}");
        }
    }
}
