//! A camera or another server that we pull from: what lies between its packets, when it is tried again after a failure,
//! and how often a failure is told.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use corecast_proto::rtsp::{
    Limits, MessageError, Parsed, Request, Response, interleaved, parse_request, parse_response,
};

use super::in_place::{Between, ChannelMap, Reading};

/// A source may send so many bytes in a row that are neither packets nor messages.
const NOISE_BYTES_MAX: usize = 64 * 1024;
/// The pause after a first failure, and the longest one.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// The longest one where credentials were refused: cameras lock accounts.
const PAUSE_REFUSED_MAX: Duration = Duration::from_secs(30);
/// The pause after the loss of a source that has run well is this at most: many may be lost at the same moment.
const PAUSE_AFTER_LOSS_MAX: Duration = Duration::from_millis(500);
/// A host that brought nothing over UDP is asked over TCP for so long, then UDP has another chance.
const WITHOUT_UDP_FOR: Duration = Duration::from_secs(3600);
/// So many such hosts are kept in mind.
const WITHOUT_UDP_MAX: usize = 1024;
/// Failures of a source that are told within [`TOLD_WITHIN`], whatever they are.
const TOLD_MAX: u32 = 4;
const TOLD_WITHIN: Duration = Duration::from_secs(60);

/// Requests that a server may send (RFC 2326 §10), as far as anything is known to send them.
const METHODS: [&[u8]; 7] = [
    b"OPTIONS ",
    b"ANNOUNCE ",
    b"GET_PARAMETER ",
    b"SET_PARAMETER ",
    b"REDIRECT ",
    b"TEARDOWN ",
    b"DESCRIBE ",
];
const RESPONSE: &[u8] = b"RTSP/";
const HTTP: &[u8] = b"HTTP/1.";

/// What a source says, beside media.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    Response(Response),
    Request(Request),
}

/// Why the bytes of a source cannot be understood any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SourceBytesError {
    #[error("sends something that is not RTSP: {0} bytes without a packet or a message")]
    Noise(usize),
    #[error("sends a message that is too large: {0}")]
    TooLarge(MessageError),
    #[error("answers with a message that cannot be read: {0}")]
    Unreadable(MessageError),
    #[error("answers with HTTP, not RTSP: check host and port of its URL")]
    Http,
}

/// What was met between the packets of a source; never fatal by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Noise {
    /// Bytes that were skipped, in all.
    pub bytes: u64,
    /// … since something was understood last.
    in_a_row: usize,
}

/// How a source's bytes are read: answers to our requests lie between the packets, requests of its own too, and now and
/// then something that is neither. Then the next thing that looks like one is searched for.
#[derive(Debug)]
pub struct Messages<'connection> {
    pub limits: &'connection Limits,
    /// Once media is expected.
    pub channels: Option<&'connection ChannelMap>,
    pub noise: &'connection mut Noise,
    /// Answers are awaited, and one that cannot be read will not be replaced by another. While media flows, it is
    /// skipped instead.
    pub is_strict: bool,
}

impl Messages<'_> {
    fn skip_noise(&mut self, bytes: &[u8]) -> Result<usize, SourceBytesError> {
        let skipped = 1 + self.next_plausible(&bytes[1..]);
        self.noise.bytes += skipped as u64;
        self.noise.in_a_row += skipped;
        match self.noise.in_a_row {
            length if length > NOISE_BYTES_MAX => Err(SourceBytesError::Noise(length)),
            _ => Ok(skipped),
        }
    }

    /// Where the next thing begins that may be a packet or a message; the end, if there is none.
    fn next_plausible(&self, bytes: &[u8]) -> usize {
        let found = (0..bytes.len()).find(|&at| match bytes[at] {
            interleaved::MAGIC => self.is_plausible_frame(&bytes[at..]),
            b'R' => begins(&bytes[at..], b"RTSP/1."),
            _ => false,
        });
        found.unwrap_or(bytes.len())
    }

    /// As far as can be seen already: a channel that is known, and RTP or RTCP of version 2 in it (RFC 3550 §5.1).
    fn is_plausible_frame(&self, bytes: &[u8]) -> bool {
        let channel = bytes.get(1).zip(self.channels);
        channel.is_none_or(|(&channel, channels)| channels.knows(channel))
            && bytes.get(interleaved::HEADER).is_none_or(|first| first >> 6 == 2)
    }
}

/// Whether `bytes` begin with `word`, as far as they are there.
fn begins(bytes: &[u8], word: &[u8]) -> bool {
    let length = bytes.len().min(word.len());
    bytes[..length] == word[..length]
}

impl Reading for Messages<'_> {
    type Message = Said;
    type Error = SourceBytesError;

    fn between(&mut self, bytes: &[u8]) -> Result<Between<Said>, SourceBytesError> {
        let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        if blank > 0 {
            return Ok(Between::Noise(blank));
        }
        let parsed = if begins(bytes, RESPONSE) {
            parse_response(bytes, self.limits).map(|parsed| lift(parsed, Said::Response))
        } else if METHODS.iter().any(|method| begins(bytes, method)) {
            parse_request(bytes, self.limits).map(|parsed| lift(parsed, Said::Request))
        } else if self.is_strict && bytes.starts_with(HTTP) {
            return Err(SourceBytesError::Http);
        } else {
            return self.skip_noise(bytes).map(Between::Noise);
        };
        match parsed {
            Ok(between) => {
                if matches!(between, Between::Message { .. }) {
                    self.noise.in_a_row = 0;
                }
                Ok(between)
            }
            Err(error @ (MessageError::Malformed { .. } | MessageError::UnsupportedVersion)) => {
                // A response, whole but for what is wrong with it: not something that only begins like one.
                match self.is_strict && bytes.starts_with(RESPONSE) {
                    true => Err(SourceBytesError::Unreadable(error)),
                    false => self.skip_noise(bytes).map(Between::Noise),
                }
            }
            Err(error) => Err(SourceBytesError::TooLarge(error)),
        }
    }

    fn stray(&mut self, bytes: &[u8], length: usize) -> Result<usize, SourceBytesError> {
        // A frame of a track that we did not ask for is skipped. One that nothing sensible follows was none.
        let next = &bytes[length..];
        let goes_on = next.first().is_none_or(|&first| first == interleaved::MAGIC)
            || begins(next, RESPONSE)
            || METHODS.iter().any(|method| begins(next, method));
        if goes_on { Ok(length) } else { self.skip_noise(bytes) }
    }

    fn packet(&mut self) {
        self.noise.in_a_row = 0;
    }
}

fn lift<T>(parsed: Parsed<T>, wrap: fn(T) -> Said) -> Between<Said> {
    match parsed {
        Parsed::Incomplete => Between::Incomplete,
        Parsed::Complete { value, consumed } => Between::Message { value: wrap(value), consumed },
    }
}

/// How long to wait before a source is tried again: longer from failure to failure, and never the same for two.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// It ran well: its loss is not one failure more.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Attempts in a row that came to nothing.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The pause after another attempt that came to nothing. `random` is any number.
    pub fn after_failure(&mut self, random: u64) -> Duration {
        self.after(PAUSE_MAX, random)
    }

    /// The same, when our credentials were refused.
    pub fn after_refusal(&mut self, random: u64) -> Duration {
        self.after(PAUSE_REFUSED_MAX, random)
    }

    fn after(&mut self, max: Duration, random: u64) -> Duration {
        let longest = PAUSE_FIRST.saturating_mul(1 << self.failures.min(16)).min(max);
        self.failures = self.failures.saturating_add(1);
        longest / 2 + share(longest / 2, random)
    }

    /// The pause after the loss of a source that has run well.
    pub fn after_loss(&mut self, random: u64) -> Duration {
        self.reset();
        share(PAUSE_AFTER_LOSS_MAX, random)
    }
}

/// `random`'s share of `whole`.
fn share(whole: Duration, random: u64) -> Duration {
    whole.mul_f64((random >> 11) as f64 / (1_u64 << 53) as f64)
}

/// Hosts from which nothing comes over UDP although media does over TCP, so that whoever is pulled from them next need
/// not wait for it in vain.
#[derive(Debug, Default)]
pub struct WithoutUdp(HashMap<(String, u16), Instant>);

impl WithoutUdp {
    pub fn holds(&self, host: &str, port: u16, now: Instant) -> bool {
        let since = self.0.get(&(host.to_owned(), port));
        since.is_some_and(|&since| now.duration_since(since) < WITHOUT_UDP_FOR)
    }

    pub fn note(&mut self, host: &str, port: u16, now: Instant) {
        if self.0.len() >= WITHOUT_UDP_MAX {
            self.0.retain(|_, since| now.duration_since(*since) < WITHOUT_UDP_FOR);
        }
        if self.0.len() < WITHOUT_UDP_MAX {
            self.0.entry((host.to_owned(), port)).or_insert(now);
        }
    }

    /// TCP did not help.
    pub fn forget(&mut self, host: &str, port: u16) {
        self.0.remove(&(host.to_owned(), port));
    }
}

/// Which failures of a source are told: the first of a kind, of its repetitions the 2nd, 4th, 8th and so on, and never
/// more than a few a minute.
#[derive(Debug, Default)]
pub struct Complaints {
    last: String,
    in_a_row: u64,
    told: u32,
    since: Option<Instant>,
    untold: u64,
}

impl Complaints {
    /// What to log about a failure, if anything.
    pub fn tell(&mut self, reason: &str, now: Instant) -> Option<String> {
        if self.last == reason {
            self.in_a_row += 1;
        } else {
            self.last.clear();
            self.last.push_str(reason);
            self.in_a_row = 1;
        }
        if self.since.is_none_or(|since| now.duration_since(since) >= TOLD_WITHIN) {
            (self.since, self.told) = (Some(now), 0);
        }
        if !self.in_a_row.is_power_of_two() || self.told == TOLD_MAX {
            self.untold += 1;
            return None;
        }
        self.told += 1;
        let untold = std::mem::take(&mut self.untold);
        Some(match (self.in_a_row, untold) {
            (1, 0) => reason.to_owned(),
            (1, untold) => format!("{reason} ({untold} other failures before)"),
            (times, _) => format!("{reason} ({times} times in a row)"),
        })
    }

    /// It runs: what comes next is news again.
    pub fn reset(&mut self) {
        self.last.clear();
        (self.in_a_row, self.untold) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { head_bytes_max: 16 * 1024, headers_max: 255, body_bytes_max: 128 * 1024 };

    fn frame(channel: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = interleaved::write_header(channel, payload.len() as u16).to_vec();
        frame.extend_from_slice(payload);
        frame
    }

    /// What `between` and `stray` make of bytes, one after the other.
    fn read(bytes: Vec<u8>, channels: Option<&ChannelMap>) -> (Vec<String>, u64) {
        read_as(bytes, channels, false)
    }

    fn read_as(mut bytes: Vec<u8>, channels: Option<&ChannelMap>, is_strict: bool) -> (Vec<String>, u64) {
        let mut noise = Noise::default();
        let mut said = Vec::new();
        loop {
            let mut messages = Messages { limits: &LIMITS, channels, noise: &mut noise, is_strict };
            match super::super::in_place::take_message(&mut bytes, &mut messages) {
                Ok(Some(Said::Response(response))) => said.push(response.status.0.to_string()),
                Ok(Some(Said::Request(request))) => said.push(request.method.to_string()),
                Ok(None) => return (said, noise.bytes),
                Err(error) => {
                    said.push(error.to_string());
                    return (said, noise.bytes);
                }
            }
        }
    }

    #[test]
    fn answers_and_requests_are_found_between_noise() {
        let bytes = b"\r\nRTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\nrest of a body that was too long\r\n\
            OPTIONS * RTSP/1.0\r\nCSeq: 9\r\n\r\nRTSP/1.0 404 Not Found\r\nCSeq: 2\r\n\r\n";
        let (said, noise) = read(bytes.to_vec(), None);
        // The request is lost with the noise before it: only answers are worth a search.
        assert_eq!(said, ["200", "404"]);
        assert!(noise > 30, "{noise}");
        let (said, noise) =
            read(b"OPTIONS * RTSP/1.0\r\nCSeq: 9\r\n\r\nRTSP/1.0 200 OK\r\n\r\n".to_vec(), None);
        assert_eq!((said, noise), (vec!["OPTIONS".to_owned(), "200".to_owned()], 0));
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_told_while_answers_are_awaited() {
        for (answer, told) in [
            ("RTSP/1.0 200 OK\r\nContent-Length: -5\r\n\r\n", "Content-Length"),
            ("RTSP/1.0 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", "Content-Length"),
            ("RTSP/1.0 200 OK\r\nContent-Length: many\r\n\r\n", "Content-Length"),
            ("RTSP/1.0 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "Content-Length"),
            ("RTSP/1.0 OK\r\nCSeq: 1\r\n\r\n", "status"),
            ("RTSP/9.0 200 OK\r\nCSeq: 1\r\n\r\n", "not RTSP/1.0"),
            ("HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP"),
        ] {
            let (said, _) = read_as(answer.into(), None, true);
            assert!(said.len() == 1 && said[0].contains(told), "{answer:?}: {said:?}");
            let channels = ChannelMap::of([(0, 0)]);
            let (said, noise) = read_as(answer.into(), Some(&channels), false);
            assert_eq!((said.len(), noise), (0, answer.len() as u64), "{answer:?}");
        }
    }

    #[test]
    fn a_frame_whose_length_lies_does_not_swallow_what_follows() {
        let channels = ChannelMap::of([(0, 0)]);
        // A frame of an unknown channel that claims more than it has, then sense.
        let mut bytes = b"$\x09\x00\x20short".to_vec();
        bytes.extend(b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nServer: x\r\n\r\n");
        let (said, noise) = read(bytes, Some(&channels));
        assert_eq!((said, noise), (vec!["200".to_owned()], 9));
        // An honest one of an unknown channel is skipped whole, and is no noise.
        let mut bytes = frame(9, b"anything at all");
        bytes.extend(b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n");
        assert_eq!(read(bytes, Some(&channels)), (vec!["200".to_owned()], 0));
    }

    #[test]
    fn endless_noise_is_an_error_and_a_search_costs_no_more_than_its_bytes() {
        let (said, noise) = read(vec![0xaa; NOISE_BYTES_MAX + 1], None);
        assert_eq!(said.len(), 1);
        assert!(said[0].contains("not RTSP"), "{said:?}");
        assert_eq!(noise, NOISE_BYTES_MAX as u64 + 1);
        let (said, _) = read(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_vec(), None);
        assert!(said.is_empty());
    }

    #[test]
    fn only_known_channels_and_version_2_are_plausible() {
        let channels = ChannelMap::of([(4, 0)]);
        let mut noise = Noise::default();
        let messages =
            Messages { limits: &LIMITS, channels: Some(&channels), noise: &mut noise, is_strict: false };
        for (bytes, at) in [
            (&b"xx$\x04\x00\x10\x80"[..], 2),
            (b"xx$\x05\x00\x10\xa0", 2),
            (b"xx$\x04\x00\x10\x40$\x06\x00\x10\x80", 12),
            (b"xx$\x04\x00\x10\x40$", 7),
            (b"xxRTSP/1.0 200", 2),
            (b"xxRTSPRTS", 6),
            (b"xxxx", 4),
        ] {
            assert_eq!(messages.next_plausible(bytes), at, "{bytes:?}");
        }
    }

    #[test]
    fn pauses_grow_to_their_bound_and_differ() {
        let mut backoff = Backoff::default();
        let longest: Vec<_> = (0..6).map(|_| backoff.after_failure(u64::MAX)).collect();
        let mut refused = Backoff::default();
        let refused: Vec<_> = (0..7).map(|_| refused.after_refusal(u64::MAX)).collect();
        for (pauses, seconds) in [(longest, &[1, 2, 4, 8, 10, 10][..]), (refused, &[1, 2, 4, 8, 16, 30, 30])]
        {
            assert_eq!(pauses.len(), seconds.len());
            for (pause, seconds) in pauses.iter().zip(seconds) {
                let off = pause.abs_diff(Duration::from_secs(*seconds));
                assert!(off < Duration::from_millis(1), "{pauses:?}");
            }
        }
        assert_eq!(Backoff::default().after_failure(0), PAUSE_FIRST / 2);
        assert!(backoff.after_loss(u64::MAX) <= PAUSE_AFTER_LOSS_MAX);
        assert!(backoff.after_failure(u64::MAX) <= PAUSE_FIRST);
    }

    #[test]
    fn hosts_without_udp_are_kept_in_mind_for_a_while_and_not_without_bound() {
        let (mut hosts, t0) = (WithoutUdp::default(), Instant::now());
        hosts.note("cam", 554, t0);
        assert!(hosts.holds("cam", 554, t0) && !hosts.holds("cam", 555, t0));
        assert!(!hosts.holds("cam", 554, t0 + WITHOUT_UDP_FOR));
        hosts.forget("cam", 554);
        assert!(!hosts.holds("cam", 554, t0));
        (0..2 * WITHOUT_UDP_MAX).for_each(|n| hosts.note("cam", n as u16, t0));
        assert_eq!(hosts.0.len(), WITHOUT_UDP_MAX);
        hosts.note("other", 554, t0 + WITHOUT_UDP_FOR);
        assert_eq!(hosts.0.len(), 1);
    }

    #[test]
    fn a_source_that_fails_for_ever_is_told_of_ever_more_seldom() {
        let (mut complaints, t0) = (Complaints::default(), Instant::now());
        let lines =
            (0..2880_u32).filter_map(|n| complaints.tell("refused", t0 + Duration::from_secs(30) * n));
        let lines: Vec<_> = lines.collect();
        assert_eq!(lines.len(), 12, "{lines:#?}");
        assert_eq!(lines[0], "refused");
        assert_eq!(lines[3], "refused (8 times in a row)");
        complaints.reset();
        assert_eq!(complaints.tell("refused", t0 + Duration::from_secs(90_000)).as_deref(), Some("refused"));
        // Two that alternate are bounded too.
        let mut complaints = Complaints::default();
        let reasons = ["a", "b"].into_iter().cycle().take(600);
        let told = reasons
            .enumerate()
            .filter_map(|(n, it)| complaints.tell(it, t0 + Duration::from_millis(100) * n as u32));
        assert_eq!(told.count(), 4);
    }
}
