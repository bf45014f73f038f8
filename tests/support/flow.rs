//! What a reader received of a [`Camera`](super::Camera): every packet checked against what was sent.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    Camera, PATIENCE, Rtsp, Server,
    camera::Record,
    rtsp::{Frame, Item},
};

pub struct Flow {
    record: Record,
    pub packets: usize,
    /// Indices (in the camera's own count) of the first packet and of the one expected next.
    pub first: Option<usize>,
    pub next: usize,
    /// The last packet before each hole, and the first one after it.
    pub holes: Vec<(usize, usize)>,
}

impl Flow {
    pub fn of(camera: &Camera) -> Self {
        Self::of_record(camera.record())
    }

    pub fn of_record(record: Record) -> Self {
        Self { record, packets: 0, first: None, next: 0, holes: Vec::new() }
    }

    /// Takes a packet of the video channel; others are ignored. Panics on one that the camera never sent, and on
    /// one that came before.
    pub fn take(&mut self, frame: &Frame) {
        if frame.channel == 0 {
            self.take_rtp(&frame.data);
        }
    }

    pub fn take_rtp(&mut self, rtp: &[u8]) {
        let Some(index) = self.record.find(rtp) else {
            let sequence = u16::from_be_bytes([rtp[2], rtp[3]]);
            panic!("packet with sequence number {sequence}, {} due, is not what the camera sent", self.next);
        };
        if self.first.is_none() {
            self.first = Some(index);
        } else if index != self.next {
            assert!(index > self.next, "packet {index} again, or out of order: {} was due", self.next);
            self.holes.push((self.next - 1, index));
        }
        self.next = index + 1;
        self.packets += 1;
    }

    /// Reads `count` more packets.
    pub fn read(&mut self, client: &mut Rtsp, count: usize) {
        let target = self.packets + count;
        while self.packets < target {
            let frame = client.frame(PATIENCE).unwrap_or_else(|| {
                panic!("the stream ended after {} packets, {target} were expected", self.packets)
            });
            self.take(&frame);
        }
    }

    #[track_caller]
    pub fn assert_lossless(&self, packets_min: usize) {
        assert!(self.holes.is_empty(), "packets lost: {:?}", self.holes);
        assert!(self.packets >= packets_min, "only {} packets came, {packets_min} expected", self.packets);
    }
}

/// A reader on a thread of its own, which reads until it is asked for its result or the server closes.
pub struct Watcher {
    stop: Arc<AtomicBool>,
    received: Arc<AtomicUsize>,
    thread: JoinHandle<(Flow, bool)>,
}

impl Watcher {
    pub fn start(server: &Server, path: &str, camera: &Camera) -> Self {
        Self::on(Rtsp::play_tcp(server, path), camera)
    }

    pub fn on(client: Rtsp, camera: &Camera) -> Self {
        Self::on_record(client, camera.record())
    }

    pub fn on_record(mut client: Rtsp, record: Record) -> Self {
        let mut flow = Flow::of_record(record);
        let (stop, received) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let thread = thread::spawn({
            let (stop, received) = (Arc::clone(&stop), Arc::clone(&received));
            move || {
                while !stop.load(Ordering::SeqCst) {
                    match client.item(Instant::now() + Duration::from_millis(100)) {
                        Item::Frame(frame) => flow.take(&frame),
                        Item::Closed => return (flow, true),
                        Item::Response(_) | Item::TimedOut => {}
                    }
                    received.store(flow.packets, Ordering::SeqCst);
                }
                (flow, false)
            }
        });
        Self { stop, received, thread }
    }

    /// Waits until `count` more packets have come.
    pub fn wait_more(&self, count: usize) {
        let target = self.received.load(Ordering::SeqCst) + count;
        super::wait_for(&format!("the watcher receives {count} packets more"), PATIENCE, || {
            assert!(!self.thread.is_finished(), "the watcher ended early");
            (self.received.load(Ordering::SeqCst) >= target).then_some(())
        });
    }

    /// The server closes this reader.
    pub fn wait_closed(self) -> Flow {
        super::wait_for("the reader is closed", PATIENCE, || self.thread.is_finished().then_some(()));
        let (flow, closed) = self.thread.join().expect("the watcher");
        assert!(closed);
        flow
    }

    /// What came so far; the server must not have closed it.
    pub fn finish(self) -> Flow {
        self.stop.store(true, Ordering::SeqCst);
        let (flow, closed) = self.thread.join().expect("the watcher");
        assert!(!closed, "the server closed this reader");
        flow
    }
}

/// The tests lean on this: it must see what it is there to see.
mod it_sees {
    use super::{Flow, Record};
    use crate::support::camera::{FIRST_SEQUENCE, digest};

    fn packet(n: u16) -> Vec<u8> {
        let [high, low] = FIRST_SEQUENCE.wrapping_add(n).to_be_bytes();
        vec![0x80, 96, high, low, 0, 0, 0, n as u8, 1, 2, 3, 4, 0x65, n as u8, 7, 7, 7, 7, 7, 7, 7, 7, 9]
    }

    fn flow(packets: &[Vec<u8>]) -> Flow {
        let sent = (0..100).map(|n| digest(&packet(n))).collect();
        let mut flow = Flow::of_record(Record::of_digests(sent));
        packets.iter().for_each(|packet| flow.take_rtp(packet));
        flow
    }

    #[test]
    fn a_stream_without_a_hole_over_the_wrap_of_the_sequence() {
        flow(&(10..90).map(packet).collect::<Vec<_>>()).assert_lossless(80);
    }

    #[test]
    #[should_panic(expected = "packets lost: [(2, 40003)]")]
    fn a_hole_of_more_than_half_the_sequence_numbers() {
        let sent = (0..100_000_u32).map(|n| digest(&long_packet(n))).collect();
        let mut flow = Flow::of_record(Record::of_digests(sent));
        [1, 2, 40_003, 40_004].iter().for_each(|&n| flow.take_rtp(&long_packet(n)));
        flow.assert_lossless(4);
    }

    fn long_packet(n: u32) -> Vec<u8> {
        let mut rtp = packet(n as u16);
        rtp[4..8].copy_from_slice(&n.to_be_bytes());
        rtp
    }

    #[test]
    fn another_ssrc_is_no_difference() {
        let mut other = packet(3);
        other[8..12].fill(0xEE);
        flow(&[packet(2), other]).assert_lossless(2);
    }

    #[test]
    #[should_panic(expected = "packets lost: [(41, 44)]")]
    fn a_hole() {
        flow(&[packet(40), packet(41), packet(44)]).assert_lossless(3);
    }

    #[test]
    #[should_panic(expected = "again, or out of order")]
    fn a_packet_that_comes_twice() {
        flow(&[packet(40), packet(41), packet(41)]);
    }

    #[test]
    #[should_panic(expected = "is not what the camera sent")]
    fn a_changed_byte() {
        let mut changed = packet(40);
        *changed.last_mut().unwrap() ^= 1;
        flow(&[changed]);
    }

    #[test]
    #[should_panic(expected = "is not what the camera sent")]
    fn a_changed_timestamp() {
        let mut changed = packet(40);
        changed[5] ^= 1;
        flow(&[changed]);
    }

    #[test]
    #[should_panic(expected = "only 2 packets")]
    fn too_little() {
        flow(&[packet(40), packet(41)]).assert_lossless(3);
    }
}
