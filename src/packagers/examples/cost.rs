//! What muxing costs: prints CPU milliseconds per second of stream, muxed from RTP packets in memory, with nobody
//! watching and with a playlist and its compressed form rendered for every part.
//!
//! `cargo run --release -p corecast-packagers --example cost`

use std::hint::black_box;
use std::time::Duration;

use corecast_media::{Codec, Kind, Track};
use corecast_packagers::hls::{Answer, Arrival, Directives, Muxer, Settings, Variant};

const SPS: [u8; 25] = [
    0x67, 0x4d, 0x40, 0x1e, 0xda, 0x02, 0x80, 0xbf, 0xe5, 0xc0, 0x44, 0x00, 0x00, 0x03, 0x00, 0x04, 0x00,
    0x00, 0x03, 0x00, 0xc8, 0x3c, 0x58, 0xba, 0x80,
];
const STREAMS: usize = 20;
const SECONDS: u32 = 60;

fn main() {
    for (mbps, sound) in [(2, false), (4, false), (4, true)] {
        for watched in [false, true] {
            let (spent, bytes) = run(mbps, sound, watched);
            let per_second = spent.as_secs_f64() * 1000.0 / (STREAMS as f64 * f64::from(SECONDS));
            let bytes = bytes as f64 / STREAMS as f64 / 1e6;
            let (what, who) =
                (if sound { " and AAC" } else { "" }, if watched { "one viewer" } else { "nobody" });
            println!(
                "{mbps} Mbps H.264{what}, {who} watching: {per_second:.3} ms of CPU per second, {bytes:.1} MB held"
            );
        }
    }
}

/// CPU time of this thread.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat.split_whitespace().next().and_then(|word| word.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

fn track(kind: Kind, codec: Codec, clock_rate: u32, fmtp: &str) -> Track {
    Track {
        kind,
        codec,
        payload_type: 96,
        clock_rate,
        channels: None,
        encoding: String::new(),
        fmtp: fmtp.to_owned(),
        control: String::new(),
    }
}

fn run(mbps: usize, sound: bool, watched: bool) -> (Duration, usize) {
    let mut tracks = vec![track(Kind::Video, Codec::H264, 90_000, "packetization-mode=1")];
    if sound {
        let fmtp = "sizelength=13;indexlength=3;indexdeltalength=3;config=1190";
        tracks.push(track(Kind::Audio, Codec::Mpeg4Audio, 48_000, fmtp));
    }
    let settings = Settings {
        variant: Variant::LowLatency,
        segment_count: 7,
        segment_duration: Duration::from_secs(1),
        part_duration: Duration::from_millis(200),
        segment_bytes_max: 50 << 20,
        prefix: "0123456789ab".to_owned(),
        key_interval: Some(Duration::from_secs(1)),
    };
    let mut muxers: Vec<Muxer> =
        (0..STREAMS).filter_map(|_| Some(Muxer::new(settings.clone(), &tracks).ok()?.0)).collect();
    // A key picture has five times the bytes of the others.
    let small = mbps * 1_000_000 / 8 / 29;
    let (mut sequence, mut frames, mut spent) = (0u16, 0u32, Duration::ZERO);
    for n in 0..SECONDS * 25 {
        let key = n % 25 == 0;
        let mut packets = Vec::new();
        let mut push = |track: usize, marker: bool, timestamp: u32, payload: &[u8]| {
            sequence = sequence.wrapping_add(1);
            let mut packet = vec![0x80, 96 | if marker { 0x80 } else { 0 }];
            packet.extend_from_slice(&sequence.to_be_bytes());
            packet.extend_from_slice(&timestamp.to_be_bytes());
            packet.extend_from_slice(&[0, 0, 0, 1]);
            packet.extend_from_slice(payload);
            packets.push((track, packet));
        };
        if key {
            push(0, false, n * 3_600, &SPS);
            push(0, false, n * 3_600, &[0x68, 0xef, 0x3c, 0x80]);
        }
        let slice = vec![0x5a; if key { 5 * small } else { small }];
        let count = slice.len().div_ceil(1_400);
        for (index, chunk) in slice.chunks(1_400).enumerate() {
            let (start, end) = (if index == 0 { 0x80 } else { 0 }, if index + 1 == count { 0x40 } else { 0 });
            let head = [0x7c, start | end | if key { 5 } else { 1 }];
            push(0, end != 0, n * 3_600, &[&head[..], chunk].concat());
        }
        let video = packets.len();
        while sound && frames * 1_024 < (n + 1) * 1_920 {
            push_frame(&mut packets, frames);
            frames += 1;
        }
        debug_assert!(packets.len() >= video);
        let monotonic = Duration::from_millis(u64::from(n) * 40);
        let arrival = Arrival { monotonic, wall: Duration::from_secs(1_800_000_000) + monotonic };
        let before = cpu();
        for muxer in &mut muxers {
            let revision = muxer.revision();
            for (track, packet) in &packets {
                muxer.rtp(*track, packet, arrival);
            }
            if watched && muxer.revision() != revision {
                for gzip in [false, true] {
                    if let Answer::Ready(text) = muxer.playlist(0, Directives::default(), gzip) {
                        black_box(text);
                    }
                }
            }
        }
        spent += cpu() - before;
    }
    let held = muxers.iter().map(|muxer| muxer.totals().bytes).sum();
    (spent, held)
}

/// A frame of AAC of 128 kbps, with a sequence number of its own track.
fn push_frame(packets: &mut Vec<(usize, Vec<u8>)>, frame: u32) {
    let mut packet = vec![0x80, 0xe0];
    packet.extend_from_slice(&(frame as u16).to_be_bytes());
    packet.extend_from_slice(&(frame * 1_024).to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 2, 0, 16]);
    packet.extend_from_slice(&(341u16 << 3).to_be_bytes());
    packet.resize(packet.len() + 341, 7);
    packets.push((1, packet));
}
