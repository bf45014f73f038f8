//! What the fuzzers run: one function per parser. Each must not panic on any input and asserts what must hold
//! for all of them. The fuzz targets under `fuzz/` call these, and so does the test below on stable Rust.

use std::time::{Duration, Instant};

use corecast_media::codec::aac::AudioSpecificConfig;
use corecast_media::codec::{av1, h264, h265, opus, vp9};
use corecast_media::{ClockRate, Codec, Kind, Track};

use crate::rtp::payload::units::{Depacketizer, UNIT_BYTES_MAX, Unit};
use crate::rtp::reorder::Reorder;
use crate::rtp::sequence::Receiver;
use crate::rtp::timeline::Timeline;
use crate::rtp::{header, payload, rtcp};
use crate::rtsp::auth::Authorization;
use crate::rtsp::client::{ClientSettings, SourceUrl, Wanted, watched::Watched};
use crate::rtsp::headers::{parse_session, parse_transports};
use crate::rtsp::interleaved::{HEADER, next_frame, write_header};
use crate::rtsp::url::{match_control, parse_url, split_track, strip_trailing_slash};
use crate::rtsp::{Limits, MessageError, Parsed, parse_request, parse_response};
use crate::{rtsp, sdp};

/// A request that parses is written so that it reads back equal; a message never depends on what follows it.
pub fn rtsp_request(input: &[u8]) {
    check_message(
        input,
        parse_request,
        |request, out| request.write_to(out),
        |request| {
            // What the writer settles: the length, and folded or odd names.
            (request.method.clone(), request.url.clone(), request.body.clone())
        },
    );
}

/// As [`rtsp_request`].
pub fn rtsp_response(input: &[u8]) {
    check_message(
        input,
        parse_response,
        |response, out| response.write_to(out),
        |response| (response.status, response.body.clone()),
    );
}

fn check_message<T, K: PartialEq + std::fmt::Debug>(
    input: &[u8],
    parse: fn(&[u8], &Limits) -> Result<Parsed<T>, MessageError>,
    write: fn(&T, &mut Vec<u8>),
    key: fn(&T) -> K,
) {
    let limits = Limits::default();
    let Ok(Parsed::Complete { value, consumed }) = parse(input, &limits) else { return };
    assert!((1..=input.len()).contains(&consumed));
    let alone = parse(&input[..consumed], &limits);
    assert!(matches!(alone, Ok(Parsed::Complete { consumed: again, .. }) if again == consumed));
    assert!(!matches!(parse(&input[..consumed - 1], &limits), Ok(Parsed::Complete { .. })));
    let mut out = Vec::new();
    write(&value, &mut out);
    // Bytes that were not UTF-8 grow threefold when they are written.
    let roomy = Limits { head_bytes_max: 4 * limits.head_bytes_max, ..limits };
    match parse(&out, &roomy) {
        Ok(Parsed::Complete { value: again, consumed }) => {
            assert_eq!(consumed, out.len());
            assert_eq!(key(&again), key(&value));
        }
        other => panic!("written message does not parse: {:?}", other.map(|_| "incomplete")),
    }
}

/// Frames lie inside the input and carry the header we would write.
pub fn interleaved(input: &[u8]) {
    let mut rest = input;
    loop {
        match next_frame(rest) {
            rtsp::interleaved::Frame::Media { channel, payload, consumed } => {
                assert_eq!(payload.end, consumed);
                assert_eq!(rest[..HEADER], write_header(channel, payload.len() as u16));
                rest = &rest[consumed..];
            }
            rtsp::interleaved::Frame::NeedMore(missing) => return assert!(missing > 0),
            rtsp::interleaved::Frame::NotMedia => return assert_ne!(rest[0], b'$'),
        }
    }
}

/// What a transport is written as reads back equal.
pub fn transport_header(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Ok(session) = parse_session(&text) {
        assert!(!session.id.is_empty());
    }
    for transport in parse_transports(&text).unwrap_or_default() {
        // Destination and source may hold separators if they came in quotes; we never send such back.
        let clean = |value: &Option<String>| value.as_ref().is_none_or(|v| !v.contains([',', ';', '"', '=']));
        if clean(&transport.destination) && clean(&transport.source) {
            assert_eq!(parse_transports(&transport.to_string()), Ok(vec![transport]));
        }
    }
}

/// Credentials that can be read have what they need, and a response of chance is not right.
pub fn authorization(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    for value in [text.clone(), format!("Digest {text}").into(), format!("Basic {text}").into()] {
        if let Ok(Authorization::Digest(digest)) = Authorization::parse(&value) {
            let (user, wrong) = (digest.username.clone(), "no password of the corpus");
            assert!(!digest.verify(&user, wrong, "DESCRIBE"));
            let _ = digest.is_about("SETUP", &digest.uri);
            assert!(digest.is_about("DESCRIBE", &digest.uri));
        }
    }
}

/// A URL is put together as it came, and a control we append is found again.
pub fn url(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let Ok(url) = parse_url(&text) else { return };
    assert_eq!(parse_url(&url.to_string()), Ok(url.clone()));
    let _ = url.name();
    let stripped = strip_trailing_slash(url.clone());
    let setup = parse_url(&format!("{stripped}/trackID=7")).expect("longer URL parses");
    if let Ok((_, track)) = split_track(&setup) {
        assert_eq!(track, 7);
    }
    assert_eq!(match_control(&setup, &url, ["trackID=6", "trackID=7"]), Some(1));
    let _ = split_track(&url);
}

/// The first byte chooses transport and credentials, the rest is what a server says: `@` in front of a message lets a
/// minute pass, `!` ends the session. See [`Watched`] for what must hold.
#[expect(clippy::disallowed_methods, reason = "a fuzzer needs some instant to start from")]
pub fn rtsp_client(input: &[u8]) {
    let Some((&choice, mut rest)) = input.split_first() else { return };
    let url = if choice & 4 == 0 { "rtsp://cam/live?a=b" } else { "rtsp://admin:pass%20word@cam/live?a=b" };
    let transport =
        [Wanted::UdpThenTcp, Wanted::Udp, Wanted::Multicast, Wanted::Tcp][usize::from(choice & 3)];
    let url = SourceUrl::parse(url).expect("a URL");
    let settings = ClientSettings { url, transport, range: None, scale: None };
    let mut watched = Watched::new(settings, Instant::now());
    loop {
        match rest.first() {
            Some(b'@') => watched.wait(60),
            Some(b'!') => watched.teardown(),
            _ => match watched.hear(rest) {
                Some(left) => {
                    rest = left;
                    continue;
                }
                None => break,
            },
        }
        rest = &rest[1..];
    }
    watched.teardown();
}

/// What we write from any description reads back as the same tracks.
pub fn sdp(input: &[u8]) {
    let Ok(description) = sdp::parse_with(input, sdp::Options { keep_back_channels: true }) else { return };
    for track in &description.tracks {
        assert!(track.clock_rate > 0 && track.payload_type < 128);
        for key in ["sprop-parameter-sets", "sprop-sps"] {
            sdp::fmtp::parameter_sets(&track.fmtp, key).iter().for_each(|unit| sps(unit));
        }
    }
    let written = sdp::write(&description.title, &description.tracks);
    if description.tracks.is_empty() {
        return;
    }
    let again = sdp::parse(written.as_bytes()).expect("written description parses");
    assert_eq!(again.skipped, []);
    assert_eq!(again.tracks.len(), description.tracks.len());
    for (index, (again, track)) in again.tracks.iter().zip(&description.tracks).enumerate() {
        assert_eq!(again.control, format!("trackID={index}"));
        assert_eq!(
            (again.kind, again.codec, again.payload_type, again.clock_rate),
            (track.kind, track.codec, track.payload_type, track.clock_rate)
        );
    }
    assert_eq!(sdp::write(&again.title, &again.tracks), written);
}

/// Takes the input as packets with a one-byte length each through header, sequence, reorder and timeline.
#[expect(clippy::disallowed_methods, reason = "a fuzzer needs some instant to start from")]
pub fn rtp(input: &[u8]) {
    if let Ok(header) = header::parse(input) {
        assert!(header.payload.start >= header::FIXED_LENGTH && header.payload.end <= input.len());
    }
    let mut now = Instant::now();
    let mut arrival = Duration::from_secs(1_800_000_000);
    let mut receiver = Receiver::new();
    let mut reorder = Reorder::new(Duration::from_millis(100), 4096);
    let mut timeline = Timeline::new(ClockRate::new(90_000).expect("not zero"));
    let (mut pushed, mut handed_on) = (0, 0);
    let mut rest = input;
    while let Some((&length, after)) = rest.split_first() {
        let (packet, after) = after.split_at(after.len().min(usize::from(length)));
        rest = after;
        let Ok(header) = header::parse(packet) else { continue };
        now += Duration::from_millis(u64::from(length));
        arrival += Duration::from_millis(u64::from(length));
        receiver.on_packet(&header, now, 90_000);
        timeline.on_packet(header.timestamp, arrival);
        pushed += 1;
        reorder.push(now, header.sequence, packet, &mut |packet: &[u8]| {
            assert!(!packet.is_empty());
            handed_on += 1;
        });
        reorder.expire(now, &mut |_: &[u8]| handed_on += 1);
        assert!(reorder.poll_timeout().is_none_or(|at| now < at && at <= now + Duration::from_millis(100)));
        let _ = receiver.report(now);
    }
    reorder.reset(&mut |_: &[u8]| handed_on += 1);
    assert_eq!(handed_on + reorder.counters.late_or_duplicate, pushed);
}

/// Reports that parse are written so that they read back equal.
pub fn rtcp(input: &[u8]) {
    let mut timeline = Timeline::new(ClockRate::new(90_000).expect("not zero"));
    let mut packets = 0;
    for packet in rtcp::parse(input) {
        packets += 1;
        let mut out = Vec::new();
        match &packet {
            Ok(rtcp::Packet::SenderReport(report)) => {
                timeline.on_sender_report(report, Duration::from_secs(1));
                timeline.on_packet(report.rtp_timestamp ^ 0x8000_0000, Duration::from_secs(1));
                rtcp::write_sender_report(report, "x", &mut out);
            }
            Ok(rtcp::Packet::ReceiverReport(report)) => {
                rtcp::write_receiver_report(report.ssrc, &report.blocks, "x", &mut out);
            }
            _ => continue,
        }
        assert_eq!(rtcp::parse(&out).next(), Some(packet));
    }
    assert!(packets <= input.len() / 4 + 1);
}

/// The first byte chooses the codec. Parameter sets that are handed out were announced by the facts.
pub fn payload(input: &[u8]) {
    let Some((&codec, payload)) = input.split_first() else { return };
    let codec =
        [Codec::H264, Codec::H265, Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::Mpeg4Video, Codec::Mpeg12Video]
            [usize::from(codec) % 7];
    let facts = payload::inspect(codec, payload);
    let mut sets = 0;
    payload::for_each_parameter_set(codec, payload, &mut |_, unit| {
        assert!(!unit.is_empty());
        sets += 1;
    });
    assert!(sets == 0 || facts.parameter_sets);
}

/// The first byte chooses the codec, the second the longest packet. However it is cut: the numbers follow each other,
/// what fits stays as it is, and the units in it are the same.
pub fn refragment(input: &[u8]) {
    let Some((&[codec, bytes_max], packet)) = input.split_first_chunk() else { return };
    let codec = [Codec::H264, Codec::H265, Codec::Vp8][usize::from(codec) % 3];
    let bytes_max = usize::from(bytes_max);
    let first = u16::from_be_bytes([bytes_max as u8, 0xff]);
    let (mut scratch, mut packets) = (Vec::new(), Vec::new());
    let emit = &mut |packet: &[u8]| packets.push(packet.to_vec());
    let count = payload::refragment::refragment(codec, packet, first, bytes_max, &mut scratch, emit);
    assert_eq!(count, packets.len());
    let Ok(original) = header::parse(packet) else { return assert_eq!(packets, [packet]) };
    let last = packets.len() - 1;
    let (mut before, mut after) = (NalReader::new(codec), NalReader::new(codec));
    let readable = before.take(&packet[original.payload.clone()]);
    for (n, packet) in packets.iter().enumerate() {
        let header = header::parse(packet).expect("an RTP packet");
        assert_eq!(header.sequence, first.wrapping_add(n as u16));
        assert_eq!((header.timestamp, header.ssrc), (original.timestamp, original.ssrc));
        assert_eq!(header.payload_type, original.payload_type);
        assert_eq!(header.marker, original.marker && n == last);
        assert!(last == 0 || packet.len() <= bytes_max);
        assert_eq!(after.take(&packet[header.payload]), readable);
    }
    if packet.len() <= bytes_max {
        assert_eq!((&packets[0][..2], &packets[0][4..]), (&packet[..2], &packet[4..]));
    }
    if readable {
        assert_eq!((before.units, before.open), (after.units, after.open));
    }
}

/// Puts NAL units together again, the plain way: to judge those who take them apart.
pub(crate) struct NalReader {
    codec: Codec,
    pub units: Vec<Vec<u8>>,
    /// The one that more fragments must follow.
    open: Option<Vec<u8>>,
}

impl NalReader {
    pub fn new(codec: Codec) -> Self {
        Self { codec, units: Vec::new(), open: None }
    }

    pub fn is_whole(&self) -> bool {
        self.open.is_none()
    }

    /// False for a payload that cannot be read. A fragment without a start begins a unit, too.
    pub fn take(&mut self, payload: &[u8]) -> bool {
        match (self.codec, payload) {
            (Codec::H264, &[head, ..]) => match head & 0x1f {
                1..=23 => self.units.push(payload.to_vec()),
                24 => return self.take_aggregate(&payload[1..], 1),
                28 if payload.len() > 2 => {
                    self.take_fragment(&[head & 0xe0 | payload[1] & 0x1f], payload[1], &payload[2..]);
                }
                _ => return false,
            },
            (Codec::H265, &[head, second, ..]) => match head >> 1 & 0x3f {
                0..=47 => self.units.push(payload.to_vec()),
                48 => return self.take_aggregate(&payload[2..], 2),
                49 if payload.len() > 3 => {
                    let head = head & 0x81 | (payload[2] & 0x3f) << 1;
                    self.take_fragment(&[head, second], payload[2], &payload[3..]);
                }
                _ => return false,
            },
            _ => return false,
        }
        true
    }

    fn take_aggregate(&mut self, mut rest: &[u8], header_bytes: usize) -> bool {
        let before = self.units.len();
        while let Some((length, after)) = rest.split_first_chunk() {
            let length = usize::from(u16::from_be_bytes(*length));
            let Some((unit, after)) = after.split_at_checked(length) else { return false };
            rest = after;
            let is_unit = match self.codec {
                Codec::H264 => unit.first().is_some_and(|head| (1..=23).contains(&(head & 0x1f))),
                _ => unit.len() >= header_bytes && unit[0] >> 1 & 0x3f < 48,
            };
            if is_unit {
                self.units.push(unit.to_vec());
            } else if !unit.is_empty() {
                return false;
            }
        }
        rest.is_empty() && self.units.len() > before
    }

    fn take_fragment(&mut self, header: &[u8], bits: u8, data: &[u8]) {
        if bits & 0x80 != 0 {
            self.open = None;
        }
        self.open.get_or_insert_with(|| header.to_vec()).extend_from_slice(data);
        if bits & 0x40 != 0 {
            self.units.extend(self.open.take());
        }
    }
}

/// The first byte chooses the codec; then packets: flags, length, payload. Units are well-formed and bounded.
pub fn units(input: &[u8]) {
    const AAC: &str = "config=1210;sizelength=13;indexlength=3;indexdeltalength=3";
    let Some((&codec, mut rest)) = input.split_first() else { return };
    let (codec, fmtp) = [
        (Codec::H264, ""),
        (Codec::H265, ""),
        (Codec::H265, "sprop-max-don-diff=1"),
        (Codec::Av1, ""),
        (Codec::Vp9, ""),
        (Codec::Mpeg4Audio, AAC),
        (Codec::Mpeg4AudioLatm, "cpresent=0;config=400024203fc0"),
        (Codec::Ac3, ""),
        (Codec::Opus, ""),
    ][usize::from(codec) % 9];
    let track = Track {
        kind: Kind::Video,
        codec,
        payload_type: 96,
        clock_rate: 90_000,
        channels: None,
        encoding: String::new(),
        fmtp: fmtp.to_owned(),
        control: String::new(),
    };
    let mut depacketizer = Depacketizer::new(&track).expect("a codec with units");
    let (mut sequence, mut timestamp, mut bytes_in) = (0u16, 0u32, 0);
    let mut emit = |unit: Unit<'_>| {
        assert!(!unit.data.is_empty() && unit.data.len() <= UNIT_BYTES_MAX);
        let mut left = unit.data;
        while matches!(codec, Codec::H264 | Codec::H265) && !left.is_empty() {
            let (length, after) = left.split_first_chunk().expect("a length");
            let length = u32::from_be_bytes(*length) as usize;
            assert!(length > 0);
            left = &after[length..];
        }
        while codec == Codec::Av1 && !left.is_empty() {
            let head = if left[0] & 4 != 0 { 2 } else { 1 };
            let size = (0..4).fold(0, |size, n| size | usize::from(left[head + n] & 0x7f) << (7 * n));
            left = &left[head + 4 + size..];
        }
    };
    while let Some((&[flags, length], after)) = rest.split_first_chunk() {
        let (payload, after) = after.split_at(usize::from(length).min(after.len()));
        rest = after;
        bytes_in += payload.len();
        sequence = sequence.wrapping_add(if flags & 0x20 != 0 { 2 } else { 1 });
        timestamp = timestamp.wrapping_add(u32::from(flags & 0x1f) * 3000);
        let marker = flags & 0x80 != 0;
        let ssrc = u32::from(flags & 0x40);
        let header = header::Header { marker, payload_type: 96, sequence, timestamp, ssrc, payload: 0..0 };
        depacketizer.push(&header, payload, &mut emit);
    }
    depacketizer.flush(&mut emit);
    if let Some(sets) = depacketizer.parameter_sets() {
        assert!(sets.sps.len() + sets.vps.len() + sets.pps.iter().map(Vec::len).sum::<usize>() <= bytes_in);
    }
}

/// All bitstream headers.
pub fn sps(input: &[u8]) {
    if let Some(sps) = h264::Sps::parse(input) {
        let _ = (sps.profile(), sps.level());
    }
    if let Some(sps) = h265::Sps::parse(input) {
        let _ = (sps.profile(), sps.level());
    }
    let _ = AudioSpecificConfig::parse(input);
    let _ = av1::SequenceHeader::parse(input);
    let _ = vp9::KeyFrame::parse(input).map(|key| key.level());
    let _ = opus::packet_duration(input);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const MUTATIONS_PER_FILE: u32 = 1500;

    /// xorshift64: the same mutations on every run.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % bound.max(1) as u64) as usize
        }
    }

    fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
        const TELLING: &[u8] = b"\0\xff\x80\x7f\r\n \t:;=,-/\"$%?0919";
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len());
            match random.below(7) {
                _ if bytes.is_empty() => bytes.push(random.below(256) as u8),
                0 => bytes[at] = random.below(256) as u8,
                1 => bytes[at] = TELLING[random.below(TELLING.len())],
                2 => bytes[at] ^= 1 << random.below(8),
                3 => bytes.insert(at, TELLING[random.below(TELLING.len())]),
                4 => drop(bytes.remove(at)),
                5 => bytes.truncate(at),
                _ => {
                    let end = at + random.below(bytes.len() - at).min(64);
                    let copy = bytes[at..end].to_vec();
                    let to = random.below(bytes.len());
                    bytes.splice(to..to, copy);
                }
            }
        }
    }

    #[expect(clippy::type_complexity, reason = "a table of names and functions")]
    const TARGETS: [(&str, fn(&[u8])); 14] = [
        ("rtsp_request", rtsp_request),
        ("rtsp_response", rtsp_response),
        ("rtsp_client", rtsp_client),
        ("interleaved", interleaved),
        ("transport_header", transport_header),
        ("authorization", authorization),
        ("url", url),
        ("sdp", sdp),
        ("rtp", rtp),
        ("rtcp", rtcp),
        ("payload", payload),
        ("refragment", refragment),
        ("sps", sps),
        ("units", units),
    ];

    #[test]
    fn no_corpus_file_and_no_mutation_of_one_breaks_a_parser() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for (name, target) in TARGETS {
            let mut files: Vec<_> =
                std::fs::read_dir(fuzz.join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
            files.sort();
            assert!(!files.is_empty(), "{name} has no corpus");
            let mut random = Random(0x9e37_79b9_7f4a_7c15);
            for file in files {
                let seed = std::fs::read(&file).unwrap();
                target(&seed);
                for _ in 0..MUTATIONS_PER_FILE {
                    let mut input = seed.clone();
                    mutate(&mut random, &mut input);
                    let outcome = std::panic::catch_unwind(|| target(&input));
                    assert!(outcome.is_ok(), "{} mutated to {}", file.display(), input.escape_ascii());
                }
            }
        }
    }
}
