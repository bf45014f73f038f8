//! Relaying a packet allocates nothing, for no reader: after a warm-up, not one allocation from the publisher's bytes
//! to the kernel's, over TCP and UDP and through both back ends.
//!
//! A binary of its own, because a global allocator counts for a whole binary.

#![allow(unsafe_code, reason = "a global allocator is unsafe to be one")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends where it stands")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    io::Read,
    net::{SocketAddr, UdpSocket},
    os::{fd::AsRawFd, unix::net::UnixStream},
    time::{Duration, Instant},
};

use corecast::{
    readers::{
        rtsp_tcp::TcpReader,
        rtsp_udp::{Run, Sockets, UdpReader, group_runs},
    },
    shard::media_io::{BackendKind, Event, MediaIo},
    sources::{
        in_place::{self, ChannelMap},
        publication::{Now, Plane, Publication},
        rtsp_publish::Requests,
        rtsp_pull::{Messages, Noise},
    },
};
use corecast_hub::{cursor::Cursor, stream::StreamLimits};
use corecast_media::{Codec, Kind, Track};
use corecast_proto::{
    rtp::{header, reorder::Reorder},
    rtsp::{
        Limits, interleaved,
        server::{Delivery, Media},
    },
};

thread_local! {
    /// Of this thread alone, so that the test runner's own threads do not count.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is handed to the system's allocator as it came; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller promised us.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised us.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as the caller promised us.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn count() {
    // A thread that is ending has no counter any more.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

const READERS: usize = 20;
const PACKETS: usize = 17;
/// `udpMaxPayloadSize`, as it is by default.
const PAYLOAD_MAX: usize = 1_452;
const WARM_UP_FRAMES: usize = 2_000;
const FRAMES: usize = 1_000;

/// A camera's frames of [`PACKETS`] packets, written into the same memory again and again.
struct Camera {
    frame: u32,
    sequence: u16,
    packets: Vec<Vec<u8>>,
    framed: Vec<u8>,
    now: Now,
}

impl Camera {
    fn new() -> Self {
        Self {
            frame: 0,
            sequence: 65_000,
            packets: vec![vec![0xA5; 1_212]; PACKETS],
            framed: Vec::with_capacity(PACKETS * 1_216),
            now: Now { instant: Instant::now(), wall: Duration::from_secs(1_700_000_000) },
        }
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
            self.framed.extend_from_slice(&interleaved::write_header(0, packet.len() as u16));
            self.framed.extend_from_slice(packet);
        }
        self.frame += 1;
        let step = Duration::from_millis(40);
        (self.now.instant, self.now.wall) = (self.now.instant + step, self.now.wall + step);
    }
}

fn track() -> Track {
    Track {
        kind: Kind::Video,
        codec: Codec::H264,
        payload_type: 96,
        clock_rate: 90_000,
        channels: None,
        encoding: "H264".to_owned(),
        fmtp: String::new(),
        control: String::new(),
    }
}

fn publication() -> Publication {
    let limits = StreamLimits {
        flush_bytes: 64 << 10,
        flush_after: Duration::from_millis(5),
        ring_bytes_max: 16 << 20,
    };
    Publication::new("test", &[track()], limits).unwrap()
}

fn tcp_media() -> [Media; 1] {
    [Media { track: 0, delivery: Delivery::Tcp { channel: 0 } }]
}

/// Runs `turn` on warm-up frames, then on [`FRAMES`] that must not allocate.
#[track_caller]
fn assert_no_allocation(mut turn: impl FnMut(&mut Camera)) {
    let mut camera = Camera::new();
    (0..WARM_UP_FRAMES).for_each(|_| turn(&mut camera));
    let made = allocations(|| (0..FRAMES).for_each(|_| turn(&mut camera)));
    assert_eq!(made, 0, "allocations for {} packets", FRAMES * PACKETS);
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1_u8; 100]))), 1);
    assert_eq!(allocations(|| ()), 0);
}

fn receive(publication: &mut Publication, channels: &ChannelMap, camera: &Camera) {
    in_place::receive(publication, &camera.framed[..]).unwrap();
    in_place::take_pending(publication, channels, &mut Requests(&Limits::default()), camera.now).unwrap();
    publication.stream.flush(camera.now.instant);
}

/// Twenty readers over TCP, and a publisher over TCP.
fn over_tcp(backend: BackendKind) {
    let Ok(mut io) = MediaIo::new(backend) else {
        assert_eq!(backend, BackendKind::IoUring, "epoll is everywhere");
        eprintln!("*** NOT RUN: this kernel refuses io_uring");
        return;
    };
    let (mut publication, channels) = (publication(), ChannelMap::new(&tcp_media()));
    let mut pairs: Vec<_> = (0..READERS).map(|_| UnixStream::pair().unwrap()).collect();
    pairs.iter().for_each(|(ours, _)| ours.set_nonblocking(true).unwrap());
    let mut readers: Vec<_> = (0..READERS)
        .map(|_| TcpReader::new(Cursor::join(&publication.stream, true, true), &tcp_media(), 1))
        .collect();
    let (mut events, mut sink) = (Vec::with_capacity(64), vec![0; PACKETS * 1_216]);
    assert_no_allocation(|camera| {
        camera.next_frame();
        receive(&mut publication, &channels, camera);
        let stream = &publication.stream;
        let mut batch = io.batch();
        for (reader, (ours, _)) in readers.iter_mut().zip(&pairs) {
            let bytes = reader.take(stream, camera.now.instant).unwrap();
            assert_eq!(bytes.len(), camera.framed.len());
            batch.send(ours.as_raw_fd(), 2, bytes);
            assert!(!reader.has_more(stream));
        }
        batch.submit_and_wait(Some(Duration::ZERO), &mut events).unwrap();
        assert!(!events.iter().any(|event| matches!(event, Event::Unsent { .. })), "{events:?}");
        events.clear();
        for (_, theirs) in &mut pairs {
            theirs.read_exact(&mut sink).unwrap();
            assert!(sink == camera.framed);
        }
    });
}

#[test]
fn tcp_through_epoll() {
    over_tcp(BackendKind::Epoll);
}

#[test]
fn tcp_through_io_uring() {
    over_tcp(BackendKind::IoUring);
}

/// Twenty readers over UDP; `gso` as one send each, else as one per packet.
fn over_udp(backend: BackendKind, gso: bool) {
    let Ok(mut io) = MediaIo::new(backend) else { return };
    let (mut publication, channels) = (publication(), ChannelMap::new(&tcp_media()));
    let (from, to) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    to.set_nonblocking(true).unwrap();
    let address = to.local_addr().unwrap();
    let (rtp_port, rtcp_port) = (address.port(), address.port());
    let medias = [Media { track: 0, delivery: Delivery::Udp { rtp_port, rtcp_port } }];
    let sockets = Sockets { rtp: from.as_raw_fd(), rtcp: from.as_raw_fd() };
    let mut readers: Vec<_> = (0..READERS)
        .map(|_| {
            let cursor = Cursor::join(&publication.stream, true, true);
            UdpReader::new(cursor, &medias, |port| SocketAddr::from((address.ip(), port)))
        })
        .collect();
    let (mut ranges, mut runs): (Vec<_>, Vec<Run>) = (Vec::new(), Vec::new());
    let (mut events, mut sink) = (Vec::with_capacity(64), [0; 2_048]);
    let mut arrived = 0;
    assert_no_allocation(|camera| {
        camera.next_frame();
        receive(&mut publication, &channels, camera);
        let stream = &publication.stream;
        let mut batch = io.batch();
        let mut grouped = None;
        for reader in &mut readers {
            let range = reader.take_live(stream, camera.now.instant).unwrap();
            if grouped.as_ref() != Some(&range) {
                let bytes = stream.get(range.clone()).unwrap();
                group_runs(bytes, gso, PAYLOAD_MAX, &mut batch, &mut ranges, &mut runs);
                grouped = Some(range);
            }
            reader.send(&mut batch, &sockets, 2, &runs);
        }
        batch.submit_and_wait(Some(Duration::ZERO), &mut events).unwrap();
        events.clear();
        while to.recv(&mut sink).is_ok() {
            arrived += 1;
        }
    });
    // The one socket at the far end drops what does not fit in it; that they arrive at all shows they were sent.
    assert!(arrived > FRAMES, "{arrived} datagrams arrived");
}

#[test]
fn udp_with_gso_through_epoll() {
    over_udp(BackendKind::Epoll, true);
}

#[test]
fn udp_one_by_one_through_epoll() {
    over_udp(BackendKind::Epoll, false);
}

#[test]
fn udp_with_gso_through_io_uring() {
    over_udp(BackendKind::IoUring, true);
}

/// Also when it has come back, and its packets are rewritten to go on where they stopped.
#[test]
fn packets_of_a_source_that_is_pulled() {
    let (mut publication, channels) = (publication(), ChannelMap::of([(0, 0)]));
    let mut noise = Noise::default();
    assert_no_allocation(|camera| {
        if camera.frame == 100 {
            publication.resume(&[track()]).unwrap();
        }
        camera.next_frame();
        in_place::receive(&mut publication, &camera.framed[..]).unwrap();
        let limits = &Limits::default();
        let mut messages =
            Messages { limits, channels: Some(&channels), noise: &mut noise, is_strict: false };
        in_place::take_pending(&mut publication, &channels, &mut messages, camera.now).unwrap();
        // As if they had come as datagrams.
        publication.append(0, Plane::Rtp, &camera.packets[0], camera.now);
        publication.stream.flush(camera.now.instant);
    });
    assert_eq!(noise, Noise::default());
}

#[test]
fn datagrams_of_a_publisher_in_and_out_of_order() {
    let mut publication = publication();
    let mut reorder = Reorder::new(Duration::from_millis(100), 256 << 10);
    assert_no_allocation(|camera| {
        camera.next_frame();
        // The first packet first, the others in pairs that changed places on the way.
        camera.packets[1..].chunks_exact_mut(2).for_each(|pair| pair.swap(0, 1));
        let now = camera.now;
        for packet in &camera.packets {
            let sequence = header::parse(packet).unwrap().sequence;
            let out = &mut |packet: &[u8]| publication.append(0, Plane::Rtp, packet, now);
            reorder.push(now.instant, sequence, packet, out);
        }
        publication.stream.flush(now.instant);
    });
    assert!(reorder.counters.reordered > 0 && reorder.counters.lost == 0, "{:?}", reorder.counters);
}
