//! What a picture of 20 KB costs inside a shard, without the kernel: into the stream, and out to its readers.
//!
//! How much of this allocates is not measured but tested: `tests/allocations.rs` demands that nothing does.

use std::{
    hint::black_box,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use corecast::{
    readers::{
        rtsp_tcp::TcpReader,
        rtsp_udp::{Sockets, UdpReader, group_runs},
    },
    shard::media_io::{BackendKind, MediaIo},
    sources::{
        in_place::{self, ChannelMap},
        publication::{Now, Plane, Publication},
        rtsp_publish::Requests,
    },
};
use corecast_fanout::ring::ByteRing;
use corecast_hub::{cursor::Cursor, stream::StreamLimits};
use corecast_media::{Codec, Kind, Track};
use corecast_proto::rtsp::{
    Limits, interleaved,
    server::{Delivery, Media},
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const READERS: usize = 20;
const PACKETS: usize = 17;
const PACKET_BYTES: usize = 1_212;
/// `udpMaxPayloadSize`, as it is by default.
const PAYLOAD_MAX: usize = 1_452;

/// Pictures of one key picture in fifty, each [`PACKETS`] packets.
struct Camera {
    frame: u32,
    sequence: u16,
    packets: Vec<Vec<u8>>,
    framed: Vec<u8>,
}

impl Camera {
    fn new() -> Self {
        Self { frame: 0, sequence: 0, packets: vec![vec![0xA5; PACKET_BYTES]; PACKETS], framed: Vec::new() }
    }

    fn next_frame(&mut self) {
        let kind = if self.frame.is_multiple_of(50) { 5 } else { 1 };
        let timestamp = self.frame.wrapping_mul(3_600).to_be_bytes();
        self.framed.clear();
        for (n, packet) in self.packets.iter_mut().enumerate() {
            let marker = if n + 1 == PACKETS { 0x80 } else { 0 };
            let start = if n == 0 { 0x80 } else { 0 };
            packet[..2].copy_from_slice(&[0x80, 96 | marker]);
            packet[2..4].copy_from_slice(&self.sequence.to_be_bytes());
            packet[4..8].copy_from_slice(&timestamp);
            packet[12..14].copy_from_slice(&[0x7C, start | kind]);
            self.sequence = self.sequence.wrapping_add(1);
            self.framed.extend_from_slice(&interleaved::write_header(0, PACKET_BYTES as u16));
            self.framed.extend_from_slice(packet);
        }
        self.frame = self.frame.wrapping_add(1);
    }
}

fn medias() -> [Media; 1] {
    [Media { track: 0, delivery: Delivery::Tcp { channel: 0 } }]
}

fn publication() -> Publication {
    let track = Track {
        kind: Kind::Video,
        codec: Codec::H264,
        payload_type: 96,
        clock_rate: 90_000,
        channels: None,
        encoding: "H264".to_owned(),
        fmtp: String::new(),
        control: String::new(),
    };
    let limits = StreamLimits {
        flush_bytes: 64 << 10,
        flush_after: Duration::from_millis(5),
        ring_bytes_max: 16 << 20,
    };
    Publication::new("bench", &[track], limits).expect("a ring")
}

/// Each frame 40 ms after the one before, as far as the publication can tell.
struct Clock(Now);

impl Clock {
    fn new() -> Self {
        Self(Now { instant: Instant::now(), wall: Duration::from_secs(1_700_000_000) })
    }

    fn next(&mut self) -> Now {
        let step = Duration::from_millis(40);
        (self.0.instant, self.0.wall) = (self.0.instant + step, self.0.wall + step);
        self.0
    }
}

/// Times `work` on one new frame each; making the frame is not timed.
fn per_frame(b: &mut criterion::Bencher<'_>, mut work: impl FnMut(&Camera, Now)) {
    let (mut camera, mut clock) = (Camera::new(), Clock::new());
    b.iter_custom(|iterations| {
        let mut spent = Duration::ZERO;
        for _ in 0..iterations {
            camera.next_frame();
            let now = clock.next();
            let start = Instant::now();
            work(&camera, now);
            spent += start.elapsed();
        }
        spent
    });
}

fn into_the_stream(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame_of_17_packets_in");
    group.throughput(Throughput::Elements(PACKETS as u64));
    group.bench_function("ring_append", |b| {
        let mut ring = ByteRing::new(1 << 20).expect("a ring");
        per_frame(b, |camera, _| camera.packets.iter().for_each(|packet| ring.append(packet)));
    });
    group.bench_function("publication_append", |b| {
        let mut publication = publication();
        per_frame(b, |camera, now| {
            camera.packets.iter().for_each(|packet| publication.append(0, Plane::Rtp, packet, now));
            black_box(publication.stream.flush(now.instant));
        });
    });
    // The bytes are copied outside of the clock, by what stands for the kernel.
    group.bench_function("take_pending_in_place", |b| {
        let (mut publication, channels) = (publication(), ChannelMap::new(&medias()));
        let (mut camera, mut clock, limits) = (Camera::new(), Clock::new(), Limits::default());
        b.iter_custom(|iterations| {
            let mut spent = Duration::ZERO;
            for _ in 0..iterations {
                camera.next_frame();
                let now = clock.next();
                in_place::receive(&mut publication, &camera.framed[..]).expect("room");
                let start = Instant::now();
                black_box(
                    in_place::take_pending(&mut publication, &channels, &mut Requests(&limits), now)
                        .expect("whole packets"),
                );
                black_box(publication.stream.flush(now.instant));
                spent += start.elapsed();
            }
            spent
        });
    });
    group.finish();
}

/// A stream with one frame that nobody was sent yet, and where it starts.
fn stream_with_a_frame() -> (Publication, u64) {
    let (mut publication, mut camera, mut clock) = (publication(), Camera::new(), Clock::new());
    let mut start = 0;
    for _ in 0..100 {
        camera.next_frame();
        let now = clock.next();
        start = publication.stream.flushed();
        camera.packets.iter().for_each(|packet| publication.append(0, Plane::Rtp, packet, now));
        publication.stream.flush(now.instant);
    }
    (publication, start)
}

fn out_to_readers(criterion: &mut Criterion) {
    let (publication, start) = stream_with_a_frame();
    let (stream, now) = (&publication.stream, Instant::now());
    let mut group = criterion.benchmark_group("frame_of_17_packets_out_to_20_readers");
    group.throughput(Throughput::Elements(READERS as u64));
    group.bench_function("tcp_take", |b| {
        let cursor = Cursor::join(stream, true, true);
        let mut readers: Vec<_> = (0..READERS).map(|_| TcpReader::new(cursor, &medias(), 1)).collect();
        b.iter(|| {
            for reader in &mut readers {
                reader.cursor.advance(start);
                black_box(reader.take(stream, now));
                black_box(reader.has_more(stream));
            }
        });
    });
    group.bench_function("tcp_take_into_a_batch", |b| {
        let cursor = Cursor::join(stream, true, true);
        let mut readers: Vec<_> = (0..READERS).map(|_| TcpReader::new(cursor, &medias(), 1)).collect();
        let mut io = MediaIo::new(BackendKind::Epoll).expect("epoll");
        b.iter(|| {
            let mut batch = io.batch();
            for reader in &mut readers {
                reader.cursor.advance(start);
                if let Some(bytes) = reader.take(stream, now) {
                    batch.send(0, 0, bytes);
                }
            }
            black_box(batch.is_empty());
        });
    });
    let bytes = stream.get(start..stream.flushed()).expect("the newest frame");
    for (name, gso) in [("udp_group_once_gso", true), ("udp_group_once_single", false)] {
        group.bench_function(name, |b| {
            let mut io = MediaIo::new(BackendKind::Epoll).expect("epoll");
            let (mut ranges, mut runs) = (Vec::new(), Vec::new());
            b.iter(|| {
                let mut batch = io.batch();
                group_runs(black_box(bytes), gso, PAYLOAD_MAX, &mut batch, &mut ranges, &mut runs);
                black_box(&runs);
            });
        });
    }
    group.bench_function("udp_group_and_add_gso", |b| {
        let to_address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let medias = [Media { track: 0, delivery: Delivery::Udp { rtp_port: 40_000, rtcp_port: 40_001 } }];
        let cursor = Cursor::join(stream, true, true);
        let mut readers: Vec<_> = (0..READERS).map(|_| UdpReader::new(cursor, &medias, to_address)).collect();
        let mut io = MediaIo::new(BackendKind::Epoll).expect("epoll");
        let (mut ranges, mut runs) = (Vec::new(), Vec::new());
        let sockets = Sockets { rtp: 0, rtcp: 0 };
        b.iter(|| {
            let mut batch = io.batch();
            group_runs(bytes, true, PAYLOAD_MAX, &mut batch, &mut ranges, &mut runs);
            for reader in &mut readers {
                reader.cursor.advance(start);
                black_box(reader.take_live(stream, now));
                reader.send(&mut batch, &sockets, 0, &runs);
            }
            black_box(batch.is_empty());
        });
    });
    group.finish();
}

criterion_group!(benches, into_the_stream, out_to_readers);
criterion_main!(benches);
