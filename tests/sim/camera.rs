//! A camera of H.264-like pictures and of sound, as RTP packets.

use corecast_media::{Codec, Kind, Track};

use super::random::Random;

pub const VIDEO: usize = 0;
pub const AUDIO: usize = 1;
/// Microseconds from one picture to the next, and from one piece of sound to the next.
pub const FRAME_US: u64 = 40_000;
pub const SOUND_US: u64 = 20_000;

const SPS: [u8; 9] = [0x67, 0x4d, 0x40, 0x1f, 0xa6, 0x11, 0x02, 0x80, 0xbf];
const PPS: [u8; 5] = [0x68, 0xe8, 0x43, 0x32, 0xc8];

pub struct Camera {
    random: Random,
    frame: u64,
    gop: u64,
    frame_bytes: u64,
    key_bytes: u64,
    /// Parameter sets before a key picture: none, two packets, or one that carries both.
    sets: u64,
    sequence: [u16; 2],
    timestamp: [u32; 2],
}

impl Camera {
    pub fn new(mut random: Random) -> Self {
        let frame_bytes = random.pick(&[200, 2_000, 8_000, 20_000]);
        Self {
            frame: 0,
            gop: random.pick(&[1, 5, 25, 50, 150]),
            frame_bytes,
            key_bytes: frame_bytes * random.between(1, 6),
            sets: random.between(0, 2),
            sequence: [random.between(0, 65_535) as u16, random.between(65_000, 65_535) as u16],
            timestamp: [random.between(0, u64::from(u32::MAX)) as u32, u32::MAX - 48_000],
            random,
        }
    }

    pub fn tracks() -> [Track; 2] {
        let track = |kind, codec, payload_type, clock_rate, encoding: &str| Track {
            kind,
            codec,
            payload_type,
            clock_rate,
            channels: None,
            encoding: encoding.to_owned(),
            fmtp: String::new(),
            control: String::new(),
        };
        [
            track(Kind::Video, Codec::H264, 96, 90_000, "H264"),
            track(Kind::Audio, Codec::Opus, 97, 48_000, "opus"),
        ]
    }

    /// The packets of the next picture.
    pub fn picture(&mut self) -> Vec<Vec<u8>> {
        let key = self.frame.is_multiple_of(self.gop);
        self.frame += 1;
        let size = if key { self.key_bytes } else { self.frame_bytes };
        let size = self.random.between(size / 2 + 1, size + 1) as usize;
        let nal_header = if key { 0x65 } else { 0x41 };
        let mut payloads = Vec::new();
        match self.sets {
            1 if key => payloads.extend([SPS.to_vec(), PPS.to_vec()]),
            2 if key => {
                let lengths = [SPS.len() as u8, PPS.len() as u8];
                payloads.push([&[0x78, 0, lengths[0]], &SPS[..], &[0, lengths[1]], &PPS[..]].concat());
            }
            _ => {}
        }
        if size <= 1_200 {
            let mut unit = vec![0xA5; size];
            unit[0] = nal_header;
            payloads.push(unit);
        } else {
            let pieces = size.div_ceil(1_200);
            for piece in 0..pieces {
                let length = if piece + 1 == pieces { size - piece * 1_200 } else { 1_200 };
                let start = if piece == 0 { 0x80 } else { 0 };
                let end = if piece + 1 == pieces { 0x40 } else { 0 };
                let mut fragment = vec![nal_header & 0xE0 | 28, start | end | nal_header & 0x1F];
                fragment.resize(2 + length, 0xA5);
                payloads.push(fragment);
            }
        }
        let last = payloads.len() - 1;
        let packets =
            payloads.iter().enumerate().map(|(n, payload)| self.packet(VIDEO, n == last, payload)).collect();
        self.timestamp[VIDEO] = self.timestamp[VIDEO].wrapping_add(3_600);
        packets
    }

    /// The packet of the next 20 ms of sound.
    pub fn sound(&mut self) -> Vec<u8> {
        let length = self.random.between(3, 200) as usize;
        let packet = self.packet(AUDIO, false, &vec![0x5A; length]);
        self.timestamp[AUDIO] = self.timestamp[AUDIO].wrapping_add(960);
        packet
    }

    fn packet(&mut self, track: usize, marker: bool, payload: &[u8]) -> Vec<u8> {
        let mut rtp = vec![0x80, (96 + track as u8) | if marker { 0x80 } else { 0 }];
        rtp.extend_from_slice(&self.sequence[track].to_be_bytes());
        rtp.extend_from_slice(&self.timestamp[track].to_be_bytes());
        rtp.extend_from_slice(&(0xCA3E_4A00 + track as u32).to_be_bytes());
        rtp.extend_from_slice(payload);
        self.sequence[track] = self.sequence[track].wrapping_add(1);
        rtp
    }
}
