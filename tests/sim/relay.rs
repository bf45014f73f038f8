//! The relay without its sockets: the same dry parts in the same order as a shard drives them, one turn at a time.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use corecast::sources::publication::{Now, Plane, Publication};
use corecast_hub::stream::StreamLimits;
use corecast_proto::rtp::{header, reorder::Reorder};

use super::{
    camera::Camera,
    oracle::Oracle,
    random::Random,
    reader::{Pace, Seat},
};

const REORDER_BYTES_MAX: usize = 256 * 1024;

pub struct Relay {
    pub publication: Publication,
    pub oracle: Oracle,
    pub seats: Vec<Seat>,
    pub reorders: [Reorder; 2],
    pub now_us: u64,
    limits: StreamLimits,
    reorder_wait: Duration,
    lag_max: Duration,
    origin: Instant,
    /// When the first copy of each packet came in.
    arrivals: HashMap<(usize, u16), u64>,
    scratch: Vec<u8>,
}

impl Relay {
    pub fn new(random: &mut Random) -> Self {
        let limits = StreamLimits {
            flush_bytes: random.pick(&[2_048, 16_384, 65_536]),
            flush_after: Duration::from_micros(random.pick(&[0, 1_000, 5_000, 40_000])),
            ring_bytes_max: random.pick(&[1 << 18, 1 << 20, 3_000_000, 1 << 22]),
        };
        let reorder_wait = Duration::from_micros(random.pick(&[0, 20_000, 100_000]));
        Self {
            publication: Publication::new("sim", &Camera::tracks(), limits).expect("a ring"),
            oracle: Oracle::default(),
            seats: Vec::new(),
            reorders: [0, 1].map(|_| Reorder::new(reorder_wait, REORDER_BYTES_MAX)),
            now_us: 0,
            limits,
            reorder_wait,
            lag_max: Duration::from_millis(random.pick(&[200, 2_000, 10_000])),
            origin: Instant::now(),
            arrivals: HashMap::new(),
            scratch: Vec::new(),
        }
    }

    /// A network that moves packets needs a window that waits for them.
    pub fn wait_long_enough_for_jitter(&mut self) {
        self.reorder_wait = Duration::from_millis(100);
        self.reorders = [0, 1].map(|_| Reorder::new(self.reorder_wait, REORDER_BYTES_MAX));
    }

    fn now(&self) -> Now {
        let since_origin = Duration::from_micros(self.now_us);
        Now { instant: self.origin + since_origin, wall: Duration::from_secs(1_700_000_000) + since_origin }
    }

    fn micros(&self, instant: Instant) -> u64 {
        instant.duration_since(self.origin).as_micros() as u64
    }

    pub fn join(&mut self, pace: Pace, random: Random) {
        let seat = Seat::join(&self.publication, self.now().instant, pace, random);
        self.seats.push(seat);
    }

    pub fn tick(&mut self, seat: usize) {
        let now = (self.now_us, self.now().instant);
        let stream = &self.publication.stream;
        self.seats[seat].tick(stream, &self.oracle, now, self.lag_max);
    }

    pub fn receive(&mut self, track: usize, packet: &[u8]) {
        let sequence = header::parse(packet).expect("a camera's packet").sequence;
        self.arrivals.entry((track, sequence)).or_insert(self.now_us);
        self.reorder(track, |reorder, now, mut out| reorder.push(now, sequence, packet, &mut out));
    }

    /// When something is due although nothing comes in.
    pub fn deadline_us(&self) -> Option<u64> {
        let reorders = self.reorders.iter().filter_map(Reorder::poll_timeout);
        reorders.chain(self.publication.stream.flush_deadline()).min().map(|at| self.micros(at))
    }

    pub fn expire(&mut self) {
        for track in 0..2 {
            self.reorder(track, |reorder, now, mut out| reorder.expire(now, &mut out));
        }
    }

    pub fn report_time(&mut self) {
        let now = self.now();
        self.publication.report_time(now);
        self.oracle.absorb(&self.publication.stream, self.now_us);
    }

    fn reorder(&mut self, track: usize, act: impl FnOnce(&mut Reorder, Instant, &mut dyn FnMut(&[u8]))) {
        let now = self.now();
        let Self { publication, oracle, reorders, now_us, reorder_wait, arrivals, .. } = self;
        act(&mut reorders[track], now.instant, &mut |packet| {
            let sequence = u16::from_be_bytes([packet[2], packet[3]]);
            let waited = Duration::from_micros(*now_us - arrivals[&(track, sequence)]);
            assert!(waited <= *reorder_wait, "packet {sequence} waited {waited:?} for an earlier one");
            publication.append(track, Plane::Rtp, packet, now);
            oracle.absorb(&publication.stream, *now_us);
            let newest = oracle.entries.last().expect("it was appended");
            assert!(newest.packet == packet, "packet {sequence} is not the newest in the ring");
        });
    }

    /// The end of a turn: flush rule, then one send per reader, again while there is more.
    pub fn turn(&mut self) {
        let now = self.now().instant;
        let flushed_before = self.publication.stream.flushed();
        self.publication.stream.flush(now);
        let stream = &self.publication.stream;
        for _ in 0..10_000 {
            let mut more = false;
            for seat in &mut self.seats {
                more |= seat.serve((stream, flushed_before), &self.oracle, now, &mut self.scratch);
            }
            if !more {
                return self.check();
            }
        }
        panic!("the turns never end");
    }

    fn check(&self) {
        let stream = &self.publication.stream;
        assert!(stream.ring_bytes() <= self.limits.ring_bytes_max, "a ring of {}", stream.ring_bytes());
        assert!(stream.floor() <= stream.flushed() && stream.flushed() <= self.oracle.head);
        let entries = &self.oracle.entries;
        let unflushed = entries.partition_point(|entry| entry.start < stream.flushed());
        if let Some(oldest) = entries.get(unflushed) {
            assert_eq!(oldest.start, stream.flushed(), "flushed to the middle of a packet");
            let waits = Duration::from_micros(self.now_us - oldest.arrival_us);
            assert!(waits < self.limits.flush_after, "a packet waits for {waits:?} to be flushed");
        }
        assert!(self.deadline_us().is_none_or(|at| at > self.now_us), "a deadline that was not kept");
        for seat in &self.seats {
            seat.check_memory();
        }
    }
}
