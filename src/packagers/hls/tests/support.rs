//! A source of RTP packets and a watcher of playlists, joined by a muxer, in made-up time.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use corecast_media::{Codec, Kind, Track};

use super::super::check::{self, Finding, Fragments, MediaPlaylist, Severity};
use super::super::{Answer, Arrival, Directives, FileKind, Muxer, Settings, Variant};

/// x264, 640x360, Main, no reordering.
pub const SPS: [u8; 25] = [
    0x67, 0x4d, 0x40, 0x1e, 0xda, 0x02, 0x80, 0xbf, 0xe5, 0xc0, 0x44, 0x00, 0x00, 0x03, 0x00, 0x04, 0x00,
    0x00, 0x03, 0x00, 0xc8, 0x3c, 0x58, 0xba, 0x80,
];
/// 1280x720, Baseline.
pub const OTHER_SPS: [u8; 25] = [
    0x67, 0x42, 0xc0, 0x1f, 0xd9, 0x00, 0x50, 0x05, 0xbb, 0x01, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00,
    0x00, 0x03, 0x03, 0x20, 0xf1, 0x83, 0x24, 0x80,
];
pub const PPS: [u8; 4] = [0x68, 0xef, 0x3c, 0x80];
/// Noon of some day.
pub const WALL: Duration = Duration::from_secs(1_800_000_000);

pub fn settings(variant: Variant) -> Settings {
    Settings {
        variant,
        segment_count: 7,
        segment_duration: Duration::from_secs(1),
        part_duration: Duration::from_millis(200),
        segment_bytes_max: 50 << 20,
        prefix: "0123456789ab".to_owned(),
        key_interval: Some(Duration::from_secs(1)),
    }
}

pub fn track(codec: Codec, clock_rate: u32, fmtp: &str) -> Track {
    let sound = matches!(codec, Codec::Mpeg4Audio | Codec::Opus | Codec::G711 | Codec::Ac3);
    Track {
        kind: if sound { Kind::Audio } else { Kind::Video },
        codec,
        payload_type: 96,
        clock_rate,
        channels: sound.then_some(2),
        encoding: String::new(),
        fmtp: fmtp.to_owned(),
        control: String::new(),
    }
}

pub fn h264() -> Track {
    track(Codec::H264, 90_000, "packetization-mode=1")
}

pub fn aac() -> Track {
    track(Codec::Mpeg4Audio, 48_000, "sizelength=13;indexlength=3;indexdeltalength=3;config=1190")
}

/// xorshift64.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound.max(1)
    }
}

/// Sends RTP into a muxer.
pub struct Source {
    pub muxer: Muxer,
    pub now: Duration,
    sequence: HashMap<usize, u16>,
    pub ssrc: u32,
    pub sps: Vec<u8>,
}

impl Source {
    pub fn new(settings: Settings, tracks: &[Track]) -> Self {
        let muxer = Muxer::new(settings, tracks).unwrap().0;
        Self { muxer, now: Duration::from_secs(100), sequence: HashMap::new(), ssrc: 1, sps: SPS.to_vec() }
    }

    /// An RTCP packet that arrives now.
    pub fn rtcp(&mut self, track: usize, packet: &[u8]) {
        self.muxer.rtcp(track, packet, Arrival { monotonic: self.now, wall: WALL + self.now });
    }

    pub fn packet(&mut self, track: usize, timestamp: u32, marker: bool, payload: &[u8]) {
        let sequence = self.sequence.entry(track).or_default();
        *sequence = sequence.wrapping_add(1);
        let mut packet = vec![0x80, 96 | if marker { 0x80 } else { 0 }];
        packet.extend_from_slice(&sequence.to_be_bytes());
        packet.extend_from_slice(&timestamp.to_be_bytes());
        packet.extend_from_slice(&self.ssrc.to_be_bytes());
        packet.extend_from_slice(payload);
        let arrival = Arrival { monotonic: self.now, wall: WALL + self.now };
        self.muxer.rtp(track, &packet, arrival);
    }

    /// Packets of a track that never come.
    pub fn lose(&mut self, track: usize) {
        let sequence = self.sequence.entry(track).or_default();
        *sequence = sequence.wrapping_add(1);
    }

    /// NAL units, in fragments where they are long.
    pub fn nals(&mut self, track: usize, timestamp: u32, nals: &[&[u8]]) {
        for (n, nal) in nals.iter().enumerate() {
            let last = n + 1 == nals.len();
            if nal.len() <= 1200 {
                self.packet(track, timestamp, last, nal);
                continue;
            }
            let count = (nal.len() - 1).div_ceil(1100);
            for (index, chunk) in nal[1..].chunks(1100).enumerate() {
                let start = if index == 0 { 0x80 } else { 0 };
                let end = if index + 1 == count { 0x40 } else { 0 };
                let head = [nal[0] & 0xe0 | 28, start | end | nal[0] & 0x1f];
                self.packet(track, timestamp, last && end != 0, &[&head[..], chunk].concat());
            }
        }
    }

    /// A made-up picture of H.264.
    pub fn picture(&mut self, timestamp: u32, key: bool, bytes: usize) {
        let mut slice = vec![0x55; bytes.max(2)];
        slice[0] = if key { 0x65 } else { 0x41 };
        let sps = self.sps.clone();
        if key {
            self.nals(0, timestamp, &[&sps, &PPS, &slice]);
        } else {
            self.nals(0, timestamp, &[&slice]);
        }
    }

    /// A frame of AAC on `track`.
    pub fn frame(&mut self, track: usize, timestamp: u32, data: &[u8]) {
        let size = (data.len() as u16) << 3;
        self.packet(track, timestamp, true, &[&[0, 16][..], &size.to_be_bytes(), data].concat());
    }
}

/// Fetches everything and has it judged.
#[derive(Default)]
pub struct Watcher {
    last: HashMap<usize, MediaPlaylist>,
    fragments: HashMap<usize, Fragments>,
    inits: HashMap<usize, String>,
    seen: HashSet<String>,
    /// Parts that were seen of a segment of a rendition.
    partly: HashMap<(usize, u64), usize>,
    /// Bytes by name, of segments.
    pub media: HashMap<usize, Vec<u8>>,
    pub keep_media: bool,
    pub errors: Vec<String>,
    pub warnings: usize,
    pub parts: usize,
    pub segments: usize,
    pub discontinuities: usize,
    /// Errors whose text has this in it are expected.
    pub allow: Vec<&'static str>,
    revision: u64,
}

impl Watcher {
    /// One that expects errors with these words.
    pub fn allowing(words: &[&'static str]) -> Self {
        Self { allow: words.to_vec(), ..Self::default() }
    }

    /// One that keeps what it fetches.
    pub fn keeping() -> Self {
        Self { keep_media: true, ..Self::default() }
    }

    fn note(&mut self, findings: Vec<Finding>) {
        for finding in findings {
            if finding.severity == Severity::Warning
                || self.allow.iter().any(|text| finding.text.contains(text))
            {
                self.warnings += 1;
            } else if self.errors.len() < 20 {
                self.errors.push(finding.to_string());
            }
        }
    }

    /// Looks at all playlists, if anything changed.
    pub fn look(&mut self, source: &mut Source) {
        if source.muxer.revision() == self.revision {
            return;
        }
        self.revision = source.muxer.revision();
        let mut playlists = Vec::new();
        for rendition in 0..4 {
            let text = match source.muxer.playlist(rendition, Directives::default(), false) {
                Answer::Ready(text) => String::from_utf8(text.body.to_vec()).unwrap(),
                _ => continue,
            };
            let (playlist, findings) = check::parse(&text);
            self.note(findings);
            self.note(check::playlist(&playlist));
            if let Some(before) = self.last.get(&rendition) {
                let findings = check::update(before, &playlist);
                self.note(findings);
            }
            let skip = Directives { skip: true, ..Directives::default() };
            if let Answer::Ready(text) = source.muxer.playlist(rendition, skip, false) {
                let (delta, findings) = check::parse(std::str::from_utf8(&text.body).unwrap());
                self.note(findings);
                self.note(check::delta(&playlist, &delta));
            }
            self.fetch(source, rendition, &playlist);
            self.last.insert(rendition, playlist.clone());
            playlists.push((rendition, playlist));
        }
        let named: Vec<_> = playlists
            .iter()
            .map(|(rendition, playlist)| {
                (if *rendition == 0 { "video1_stream.m3u8" } else { "audio2_stream.m3u8" }, playlist)
            })
            .collect();
        if named.len() > 1 && named.iter().all(|(_, playlist)| playlist.segments.len() > 1) {
            self.note(check::renditions(&named));
        }
        if let Answer::Ready(text) = source.muxer.multivariant("", source.now) {
            self.note(check::multivariant(std::str::from_utf8(&text.plain).unwrap()).1);
        }
    }

    fn fetch(&mut self, source: &mut Source, rendition: usize, playlist: &MediaPlaylist) {
        for hint in &playlist.part_hints {
            let kind = source.muxer.kind_of(hint);
            let waits = kind.map(|kind| matches!(source.muxer.file(kind), Answer::Wait(_)));
            if waits != Some(true) {
                self.errors.push(format!("the hinted {hint} does not wait"));
            }
        }
        for (msn, segment) in playlist.numbered() {
            if let Some(map) = &segment.map
                && self.inits.get(&rendition) != Some(map)
                && !self.seen.contains(map)
            {
                let bytes = self.get(source, map);
                let findings = self.fragments.entry(rendition).or_default().init(&bytes);
                self.note(findings);
                self.inits.insert(rendition, map.clone());
                self.seen.insert(map.clone());
                if self.keep_media {
                    self.media.entry(rendition).or_default().extend_from_slice(&bytes);
                }
            }
            for part in &segment.parts {
                if self.seen.insert(part.uri.clone()) {
                    self.parts += 1;
                    *self.partly.entry((rendition, msn)).or_default() += 1;
                    let bytes = self.get(source, &part.uri);
                    let judge = self.fragments.entry(rendition).or_default();
                    let (media, findings) = judge.media(&part.uri, &bytes, part.duration);
                    self.note(findings);
                    if part.independent != media.has_independent {
                        self.errors.push(format!("INDEPENDENT of {} is wrong", part.uri));
                    }
                }
            }
            let Some(uri) = &segment.uri else { continue };
            if self.seen.insert(uri.clone()) {
                self.segments += 1;
                self.discontinuities += usize::from(segment.discontinuity);
                let bytes = self.get(source, uri);
                if self.keep_media {
                    self.media.entry(rendition).or_default().extend_from_slice(&bytes);
                }
                if playlist.part_target.is_some()
                    && segment.parts.is_empty()
                    && self.partly.contains_key(&(rendition, msn))
                {
                    // Some of its parts were seen, and the others came and went between two looks.
                    self.fragments.entry(rendition).or_default().break_here();
                } else if playlist.part_target.is_some() && !segment.parts.is_empty() {
                    let parts: Vec<u8> =
                        segment.parts.iter().flat_map(|part| self.get(source, &part.uri)).collect();
                    if parts != bytes {
                        self.errors.push(format!("{uri} is not what its parts are"));
                    }
                } else if uri.ends_with(".mp4") {
                    let judge = self.fragments.entry(rendition).or_default();
                    let (_, findings) = judge.media(uri, &bytes, segment.duration);
                    self.note(findings);
                }
            }
        }
    }

    pub fn get(&mut self, source: &Source, name: &str) -> Vec<u8> {
        match source.muxer.kind_of(name).map(|kind: FileKind| source.muxer.file(kind)) {
            Some(Answer::Ready(body)) => body.0.concat(),
            other => {
                self.errors.push(format!("{name}: {other:?}"));
                Vec::new()
            }
        }
    }

    #[track_caller]
    pub fn approve(&self) {
        assert!(self.errors.is_empty(), "{}", self.errors.join("\n"));
    }

    /// The text of a playlist as it is now.
    pub fn text(source: &mut Source, rendition: usize) -> String {
        match source.muxer.playlist(rendition, Directives::default(), false) {
            Answer::Ready(text) => String::from_utf8(text.body.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        }
    }
}
