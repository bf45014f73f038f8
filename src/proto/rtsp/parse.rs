//! Messages from bytes (RFC 2326 §4, §6, §7), lenient where cameras and players are careless.
//!
//! The head is found first and parsed as a whole. Until it is there, a call costs one scan of at most
//! [`Limits::head_bytes_max`] bytes, so a peer that trickles bytes cannot make us work more than that each
//! time.

use nom::branch::alt;
use nom::bytes::complete::{take_while, take_while1};
use nom::character::complete::{char, space0, space1};
use nom::combinator::{eof, rest, verify};
use nom::sequence::{preceded, terminated};
use nom::{IResult, Parser};

use super::message::{Headers, Method, Request, Response, Status};

/// What a peer may make us hold before it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of start line and header fields, with the empty line that ends them.
    pub head_bytes_max: usize,
    /// Header fields of one message.
    pub headers_max: usize,
    /// Bytes of a body.
    pub body_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { head_bytes_max: 16 * 1024, headers_max: 255, body_bytes_max: 128 * 1024 }
    }
}

/// How far parsing came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed<T> {
    /// Right so far; call again with the same bytes and more.
    Incomplete,
    /// One message; the next thing begins at `consumed`.
    Complete { value: T, consumed: usize },
}

/// Why bytes are not a message. The connection cannot be resynchronised after any of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    #[error("message head is longer than allowed")]
    HeadTooLarge,
    #[error("message has more header fields than allowed")]
    TooManyHeaders,
    #[error("message body is longer than allowed")]
    BodyTooLarge,
    #[error("malformed message at byte {offset}: {rule}")]
    Malformed { offset: usize, rule: &'static str },
    #[error("not RTSP/1.0")]
    UnsupportedVersion,
}

impl MessageError {
    /// The status to answer with before the connection is closed.
    pub fn status(self) -> Status {
        match self {
            Self::BodyTooLarge => Status::REQUEST_ENTITY_TOO_LARGE,
            // For a head that is too long RFC 2326 has no code; clients know MediaMTX's answer.
            Self::HeadTooLarge | Self::TooManyHeaders | Self::Malformed { .. } => Status::BAD_REQUEST,
            Self::UnsupportedVersion => Status::VERSION_NOT_SUPPORTED,
        }
    }
}

/// Parses one request from the front of `input` (RFC 2326 §6). Empty lines before it are skipped.
///
/// # Errors
/// See [`MessageError`]; a missing `CSeq` is not the parser's affair.
pub fn parse_request(input: &[u8], limits: &Limits) -> Result<Parsed<Request>, MessageError> {
    parse_message(input, limits, request_line, |(method, url), headers, body| Request {
        method: Method::from(method.as_str()),
        url,
        headers,
        body,
    })
}

/// Parses one response from the front of `input` (RFC 2326 §7). Empty lines before it are skipped.
///
/// # Errors
/// See [`MessageError`].
pub fn parse_response(input: &[u8], limits: &Limits) -> Result<Parsed<Response>, MessageError> {
    parse_message(input, limits, status_line, |(status, phrase), headers, body| Response {
        status,
        phrase,
        headers,
        body,
    })
}

fn parse_message<S, T>(
    input: &[u8],
    limits: &Limits,
    start_line: fn(&[u8]) -> Result<S, StartLineError>,
    build: fn(S, Headers, Vec<u8>) -> T,
) -> Result<Parsed<T>, MessageError> {
    let window = &input[..input.len().min(limits.head_bytes_max)];
    let Some(head) = find_head(window) else {
        if window.len() == limits.head_bytes_max {
            return Err(MessageError::HeadTooLarge);
        }
        return early_refusal(window).map_or(Ok(Parsed::Incomplete), Err);
    };
    let mut lines = Lines { input: window, at: head.start, end: head.end };
    let malformed = |offset, rule| MessageError::Malformed { offset, rule };

    let (offset, line) = lines.next().ok_or(malformed(head.start, "start line"))?;
    let start = start_line(line).map_err(|e| match e {
        StartLineError::Version => MessageError::UnsupportedVersion,
        StartLineError::Rule(rule) => malformed(offset, rule),
    })?;

    let mut headers = Headers::default();
    for (offset, line) in lines {
        if let Some(b' ' | b'\t') = line.first() {
            if !headers.extend_last(&text(line)) {
                return Err(malformed(offset, "folded line without a header"));
            }
            continue;
        }
        let (value, name) = header_name(line).map_err(|_| malformed(offset, "header name"))?;
        if headers.len() == limits.headers_max {
            return Err(MessageError::TooManyHeaders);
        }
        headers.push(text(name), text(value));
    }

    let body_length = content_length(&headers).map_err(|rule| malformed(head.start, rule))?;
    if body_length > limits.body_bytes_max {
        return Err(MessageError::BodyTooLarge);
    }
    let Some(body) = input[head.end..].get(..body_length) else { return Ok(Parsed::Incomplete) };
    let value = build(start, headers, body.to_vec());
    Ok(Parsed::Complete { value, consumed: head.end + body_length })
}

/// Where the head begins (after empty lines) and ends (after the empty line that closes it).
fn find_head(window: &[u8]) -> Option<std::ops::Range<usize>> {
    let start = window.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    let mut at = start;
    loop {
        at += window[at..].iter().position(|&byte| byte == b'\n')? + 1;
        match window[at..] {
            [b'\n', ..] => return Some(start..at + 1),
            [b'\r', b'\n', ..] => return Some(start..at + 2),
            _ => {}
        }
    }
}

/// Bytes that can never become a message are refused before a line end turns up: a client that speaks TLS or
/// HTTP/2 to this port gets its answer now, not at its timeout.
fn early_refusal(window: &[u8]) -> Option<MessageError> {
    let start = window.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    let word = window[start..].iter().take_while(|&&byte| byte != b' ');
    let bad = word.enumerate().find(|&(_, &byte)| !is_token_byte(byte) && byte != b'/')?.0;
    // A line end here only means that the head is not finished yet; the whole head will be judged.
    if matches!(window[start + bad], b'\r' | b'\n') {
        return None;
    }
    Some(MessageError::Malformed { offset: start + bad, rule: "start line" })
}

/// The lines of a head with their offsets; line ends are CR LF or LF and are left out.
struct Lines<'a> {
    input: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Iterator for Lines<'a> {
    type Item = (usize, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.at;
        let (rest, line) = line(&self.input[offset..self.end]).ok()?;
        self.at = self.end - rest.len();
        Some((offset, line)).filter(|(_, line)| !line.is_empty())
    }
}

fn line(i: &[u8]) -> IResult<&[u8], &[u8]> {
    let (i, line) = terminated(take_while(|byte| byte != b'\n'), char('\n')).parse(i)?;
    Ok((i, line.strip_suffix(b"\r").unwrap_or(line)))
}

enum StartLineError {
    Version,
    Rule(&'static str),
}

/// `Method SP Request-URI SP RTSP-Version`, RFC 2326 §6.1. The URL may hold spaces: some players do not
/// encode them.
fn request_line(line: &[u8]) -> Result<(String, String), StartLineError> {
    let (i, method) = method(line).map_err(|_| StartLineError::Rule("method"))?;
    let i = i.trim_ascii_end();
    let cut = i.iter().rposition(|&byte| byte == b' ').ok_or(StartLineError::Rule("request line"))?;
    let (url, version_word) = (i[..cut].trim_ascii(), &i[cut + 1..]);
    version(version_word)?;
    if url.is_empty() || url.iter().any(u8::is_ascii_control) {
        return Err(StartLineError::Rule("request URL"));
    }
    Ok((text(method), text(url)))
}

fn method(i: &[u8]) -> IResult<&[u8], &[u8]> {
    terminated(take_while1(is_token_byte), space1).parse(i)
}

/// `RTSP-Version SP Status-Code SP Reason-Phrase`, RFC 2326 §7.1. Cameras leave out the phrase.
fn status_line(line: &[u8]) -> Result<(Status, String), StartLineError> {
    let cut = line.iter().position(|&byte| byte == b' ').unwrap_or(line.len());
    version(&line[..cut])?;
    let (phrase, code) = status_code(&line[cut..]).map_err(|_| StartLineError::Rule("status code"))?;
    let (status, phrase) = (Status(code), text(phrase));
    Ok((status, if phrase == status.reason() { String::new() } else { phrase }))
}

/// The status code; what is left is the phrase.
fn status_code(i: &[u8]) -> IResult<&[u8], u16> {
    let three_digits = verify(nom::character::complete::u16, |code| (100..=999).contains(code));
    let (i, code) = preceded(space0, three_digits).parse(i)?;
    let (_, phrase) = alt((preceded(space1, rest), eof)).parse(i)?;
    Ok((phrase, code))
}

fn version(word: &[u8]) -> Result<(), StartLineError> {
    match word {
        b"RTSP/1.0" => Ok(()),
        _ if word.starts_with(b"RTSP/") || word.starts_with(b"HTTP/") => Err(StartLineError::Version),
        _ => Err(StartLineError::Rule("RTSP version")),
    }
}

/// `field-name ":"`, RFC 2326 §4.2; what is left is the value. Spaces in or after a name are tolerated, a
/// stray CR is not: other parsers may take it for a line end and see other headers than we do.
fn header_name(i: &[u8]) -> IResult<&[u8], &[u8]> {
    let is_name = |name: &[u8]| !name.trim_ascii().is_empty() && !name.iter().any(u8::is_ascii_control);
    terminated(verify(take_while1(|byte| byte != b':'), is_name), char(':')).parse(i)
}

/// RFC 2326 §12.14. Several equal fields are tolerated, different ones are not: the framing would be a guess.
fn content_length(headers: &Headers) -> Result<usize, &'static str> {
    let mut length = None;
    for value in headers.get_all("Content-Length") {
        let bytes = value.parse::<u32>().map_err(|_| "Content-Length")?;
        if length.is_some_and(|earlier| earlier != bytes) {
            return Err("two Content-Length fields that differ");
        }
        length = Some(bytes);
    }
    Ok(length.unwrap_or(0) as usize)
}

/// `token` of RFC 2326 §15.1.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&byte)
}

/// Trimmed; bytes that are not UTF-8 become U+FFFD.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.trim_ascii()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(input: &[u8]) -> Result<Parsed<Request>, MessageError> {
        parse_request(input, &Limits::default())
    }

    fn complete<T>(parsed: Result<Parsed<T>, MessageError>) -> (T, usize) {
        match parsed.unwrap() {
            Parsed::Complete { value, consumed } => (value, consumed),
            Parsed::Incomplete => panic!("incomplete"),
        }
    }

    const ANNOUNCE: &[u8] =
        b"ANNOUNCE rtsp://127.0.0.1:8555/pub1 RTSP/1.0\r\nContent-Type: application/sdp\r\n\
        CSeq: 2\r\nUser-Agent: Lavf59.27.100\r\nContent-Length: 5\r\n\r\nv=0\r\nOPTIONS";

    #[test]
    fn request_with_a_body_ends_where_the_next_one_begins() {
        let (request, consumed) = complete(request(ANNOUNCE));
        assert_eq!(request.method, Method::Announce);
        assert_eq!(request.url, "rtsp://127.0.0.1:8555/pub1");
        assert_eq!(request.headers.get("cseq"), Some("2"));
        assert_eq!(request.body, b"v=0\r\n");
        assert_eq!(&ANNOUNCE[consumed..], b"OPTIONS");
    }

    #[test]
    fn request_cut_anywhere_is_incomplete() {
        for length in 0..ANNOUNCE.len() - b"OPTIONS".len() {
            assert_eq!(request(&ANNOUNCE[..length]), Ok(Parsed::Incomplete), "{length} bytes");
        }
    }

    #[test]
    fn careless_spelling_is_tolerated() {
        let input = b"\r\n\n\r\nOPTIONS  rtsp://h/a b  RTSP/1.0\nCSeq:1\r\nX-Long: one\r\n  two\n\tthree\n\
            Empty:\nSpaced : \t value \t\nRaw: \xff\n\r\n";
        let (request, consumed) = complete(request(input));
        assert_eq!(consumed, input.len());
        assert_eq!((request.method, request.url.as_str()), (Method::Options, "rtsp://h/a b"));
        let got: Vec<_> = request.headers.iter().collect();
        let want = [
            ("CSeq", "1"),
            ("X-Long", "one two three"),
            ("Empty", ""),
            ("Spaced", "value"),
            ("Raw", "\u{fffd}"),
        ];
        assert_eq!(got, want);
    }

    #[test]
    fn unknown_methods_and_missing_cseq_are_for_the_caller() {
        let (request, _) = complete(request(b"FOO * RTSP/1.0\r\n\r\n"));
        assert_eq!((request.method, request.url.as_str()), (Method::Other("FOO".into()), "*"));
        assert!(request.headers.is_empty());
    }

    #[test]
    fn malformed_requests_are_refused_with_their_place() {
        let malformed = |offset, rule| MessageError::Malformed { offset, rule };
        for (input, want) in [
            (&b"OPTIONS\r\n\r\n"[..], malformed(0, "method")),
            (b"OPTIONS *\r\n\r\n", malformed(0, "request line")),
            (b"OPTIONS  RTSP/1.0\r\n\r\n", malformed(0, "request line")),
            (b"OPTIONS rtsp://h/a\rb RTSP/1.0\r\n\r\n", malformed(0, "request URL")),
            (b"OPTIONS * FTP\r\n\r\n", malformed(0, "RTSP version")),
            (b" OPTIONS * RTSP/1.0\r\n\r\n", malformed(0, "method")),
            (b"\r\nOPTIONS * RTSP/1.0\r\nCSeq\r\n\r\n", malformed(22, "header name")),
            (b"OPTIONS * RTSP/1.0\r\nConten\rt-Length: 1\r\n\r\n", malformed(20, "header name")),
            (b"OPTIONS * RTSP/1.0\r\n: 1\r\n\r\n", malformed(20, "header name")),
            (b"OPTIONS * RTSP/1.0\r\n CSeq: 1\r\n\r\n", malformed(20, "folded line without a header")),
            (b"A * RTSP/1.0\nContent-Length: -1\n\n", malformed(0, "Content-Length")),
            (b"A * RTSP/1.0\nContent-Length: 99999999999\n\n", malformed(0, "Content-Length")),
            (
                b"A * RTSP/1.0\nContent-Length: 1\nContent-Length: 2\n\n",
                malformed(0, "two Content-Length fields that differ"),
            ),
            (b"GET / HTTP/1.1\r\n\r\n", MessageError::UnsupportedVersion),
            (b"OPTIONS * RTSP/2.0\r\n\r\n", MessageError::UnsupportedVersion),
            (b"\x16\x03\x01\x02", malformed(0, "start line")), // TLS
            (b"OPT\0", malformed(3, "start line")),
        ] {
            assert_eq!(request(input), Err(want), "{}", input.escape_ascii());
        }
    }

    #[test]
    fn every_limit_is_enforced_at_its_value() {
        let limits = Limits { head_bytes_max: 40, headers_max: 2, body_bytes_max: 3 };
        let parse = |input: &str| parse_request(input.as_bytes(), &limits);
        // 18 bytes around the filling, 40 in all
        let head = |length: usize| format!("A * RTSP/1.0\nB: {}\n\n", "x".repeat(length - 18));
        assert_eq!(complete(parse(&head(40))).1, 40);
        assert_eq!(parse(&head(41)), Err(MessageError::HeadTooLarge));
        assert_eq!(parse(&"A".repeat(39)), Ok(Parsed::Incomplete));
        assert_eq!(parse(&"A".repeat(40)), Err(MessageError::HeadTooLarge));
        assert_eq!(parse(&"\n".repeat(40)), Err(MessageError::HeadTooLarge));
        assert_eq!(complete(parse("A * RTSP/1.0\nB:\nC:\n\n")).0.headers.len(), 2);
        assert_eq!(parse("A * RTSP/1.0\nB:\nC:\nD:\n\n"), Err(MessageError::TooManyHeaders));
        assert_eq!(complete(parse("A * RTSP/1.0\nContent-Length:3\n\nabc")).0.body, b"abc");
        assert_eq!(parse("A * RTSP/1.0\nContent-Length:4\n\n"), Err(MessageError::BodyTooLarge));
    }

    #[test]
    fn responses_of_cameras_are_read() {
        for (line, want) in [
            ("RTSP/1.0 200 OK", 200),
            ("RTSP/1.0 454 Session Not Found", 454),
            ("RTSP/1.0 401", 401),
            ("RTSP/1.0  200  OK", 200),
        ] {
            let input = format!("{line}\r\nCSeq: 1\r\n\r\n");
            let (response, _) = complete(parse_response(input.as_bytes(), &Limits::default()));
            assert_eq!(response.status, Status(want), "{line}");
        }
        for line in ["RTSP/1.0", "RTSP/1.0 OK", "RTSP/1.0 20", "RTSP/1.0 2000", "RTSP/1.0 200OK", "200 OK"] {
            let input = format!("{line}\r\n\r\n");
            assert!(parse_response(input.as_bytes(), &Limits::default()).is_err(), "{line}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let response = Response::new(Status::UNAUTHORIZED)
            .header("CSeq", "3")
            .header("WWW-Authenticate", "Basic realm=\"a\"")
            .header("WWW-Authenticate", "Digest realm=\"a\"");
        let mut out = Vec::new();
        response.write_to(&mut out);
        assert_eq!(complete(parse_response(&out, &Limits::default())), (response, out.len()));
    }

    /// Signalling of real clients against MediaMTX, recorded on loopback; frames are summed up in one line.
    const TRANSCRIPTS: [&str; 11] = [
        include_str!("transcripts/ffmpeg-play-tcp.txt"),
        include_str!("transcripts/ffmpeg-play-udp.txt"),
        include_str!("transcripts/ffmpeg-publish-tcp.txt"),
        include_str!("transcripts/ffmpeg-publish-udp.txt"),
        include_str!("transcripts/go2rtc-pull.txt"),
        include_str!("transcripts/gstreamer-play-tcp.txt"),
        include_str!("transcripts/gstreamer-play-udp.txt"),
        include_str!("transcripts/gstreamer-publish-tcp.txt"),
        include_str!("transcripts/live555-vlc-play-tcp.txt"),
        include_str!("transcripts/live555-vlc-play-udp.txt"),
        include_str!("transcripts/mediamtx-pull-tcp.txt"),
    ];

    /// The bytes that one side sent.
    fn sent(transcript: &str, side: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        for message in transcript.split("\n\n") {
            let lines: Vec<_> = message.lines().filter_map(|line| line.strip_prefix(side)).collect();
            if lines.is_empty() || lines.iter().any(|line| line.contains("$ frames")) {
                continue;
            }
            lines
                .iter()
                .for_each(|line| bytes.extend_from_slice(format!("{}\r\n", line.trim_start()).as_bytes()));
            if !lines.contains(&"") {
                bytes.extend_from_slice(b"\r\n");
            }
        }
        bytes
    }

    #[test]
    fn whole_conversations_of_real_clients_are_read_message_by_message() {
        for transcript in TRANSCRIPTS {
            let requests = sent(transcript, "C->S");
            let mut rest = requests.as_slice();
            let mut methods = Vec::new();
            while !rest.is_empty() {
                let (request, consumed) = complete(request(rest));
                assert!(request.headers.get("CSeq").is_some());
                methods.push(request.method);
                rest = &rest[consumed..];
            }
            assert!(methods.contains(&Method::Setup) && methods.contains(&Method::Teardown), "{methods:?}");

            let responses = sent(transcript, "S->C");
            let mut rest = responses.as_slice();
            let mut answers = 0;
            while !rest.is_empty() {
                let (response, consumed) = complete(parse_response(rest, &Limits::default()));
                assert!(response.status.is_success());
                if let Some(transport) = response.headers.get("Transport") {
                    let parsed = crate::rtsp::headers::parse_transports(transport).unwrap();
                    assert_eq!(parsed[0].to_string(), transport);
                }
                answers += 1;
                rest = &rest[consumed..];
            }
            // The answer to a TEARDOWN may have been cut off.
            assert!((methods.len() - 1..=methods.len()).contains(&answers));
        }
    }
}
