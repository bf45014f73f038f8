//! Many paths, a million events in random order at random times; after each of them what must hold is looked at, by a
//! bookkeeping that knows nothing of the machine's states.

use super::*;

const PATHS: usize = 200;
const EVENTS: usize = 1_200_000;

/// SplitMix64: the same seed, the same run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// A path and what is expected of it.
struct Subject {
    demand: Demand<u32>,
    now: Instant,
    started: bool,
    live: bool,
    readers: usize,
    /// Who waits, in their order.
    waiting: Vec<(u32, Instant)>,
    /// When there last was somebody: a reader, a wait, a look.
    wanted: Instant,
    /// Somebody came to wait since the last stream. They may have left, and then whoever it was may come back.
    awaited: bool,
    next: u32,
    seen: Seen,
}

/// That the run came by everything.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    starts: u64,
    stops: [u64; 5],
    released: u64,
    timed_out: u64,
    terminated: u64,
    left: u64,
    unasked: u64,
    fresh_starts: u64,
}

impl Subject {
    fn new(start: Instant, random: &mut Random) -> Self {
        let mut demand = Demand::new(timing(random));
        demand.revives = random.below(2) == 0;
        Self {
            demand,
            now: start,
            started: false,
            live: false,
            readers: 0,
            waiting: Vec::new(),
            wanted: start,
            awaited: false,
            next: 0,
            seen: Seen::default(),
        }
    }

    fn event(&mut self, random: &mut Random) {
        let mut orders = Vec::new();
        let now = self.now;
        match random.below(100) {
            0..30 => {
                let who = self.next;
                self.next += 1;
                let is_late = self.demand.held() >= HELD_MAX;
                assert_eq!(self.demand.want(who, now, &mut orders).is_err(), is_late);
                self.wanted = now;
                if self.live {
                    assert_eq!(orders, [Order::Release(who)]);
                    orders.clear();
                } else if !is_late {
                    self.waiting.push((who, now));
                    self.awaited = true;
                }
            }
            30..37 if !self.waiting.is_empty() => {
                let index = random.below(self.waiting.len() as u64) as usize;
                self.demand.leave(self.waiting.remove(index).0);
                self.seen.left += 1;
            }
            37..52 if !self.live && (self.started || random.below(20) == 0) => {
                self.seen.unasked += u64::from(!self.started);
                self.live = true;
                // Who waited until now begins to read, or does not.
                if std::mem::take(&mut self.awaited) {
                    self.wanted = now;
                }
                self.demand.stream_began(now, &mut orders);
            }
            52..58 if self.live => self.lose(random, &mut orders),
            58..74 if self.live => {
                self.readers += 1;
                self.wanted = now;
                self.demand.set_readers(self.readers, now);
            }
            74..90 if self.readers > 0 => {
                self.readers -= 1;
                self.wanted = now;
                self.demand.set_readers(self.readers, now);
            }
            90..93 if !self.live => self.demand.source_failed(&mut orders),
            93..95 if self.live => {
                self.wanted = now;
                self.demand.touch(now);
            }
            95 if random.below(10) == 0 => {
                self.demand.end(StopReason::PathDestroyed, &mut orders);
                assert!(self.demand.is_idle());
            }
            96 if random.below(10) == 0 => {
                self.demand.timing = timing(random);
                // What is over by that is so now.
                self.demand.tick(now, &mut orders);
            }
            _ => {}
        }
        self.obey(&orders);
        self.check();
    }

    fn lose(&mut self, random: &mut Random, orders: &mut Vec<Order<u32>>) {
        if self.readers > 0 {
            self.wanted = self.now;
        }
        (self.live, self.readers) = (false, 0);
        self.demand.stream_ended(self.now);
        // A pull says so, a command does not.
        if random.below(2) == 0 {
            let was_started = self.started;
            self.demand.source_failed(orders);
            assert!(!self.demand.is_started());
            assert_eq!(orders.len(), usize::from(was_started));
        }
    }

    fn obey(&mut self, orders: &[Order<u32>]) {
        for (index, order) in orders.iter().enumerate() {
            match *order {
                Order::Start => {
                    assert!(!self.started && !self.live, "{:?}", self.demand);
                    assert!(!self.waiting.is_empty(), "started for nobody");
                    self.started = true;
                    self.seen.starts += 1;
                    self.seen.fresh_starts += u64::from(index > 0);
                }
                Order::Stop(reason) => {
                    assert!(self.started, "{:?}", self.demand);
                    (self.started, self.awaited) = (false, !self.waiting.is_empty());
                    self.seen.stops[reason as usize] += 1;
                }
                Order::Release(who) => {
                    assert!(self.live);
                    assert_eq!(self.waiting.remove(0).0, who);
                    self.seen.released += 1;
                }
                Order::Fail(who, reason) => {
                    let (first, since) = self.waiting.remove(0);
                    assert_eq!(first, who);
                    match reason {
                        FailReason::TimedOut => {
                            assert!(since + self.demand.timing.start_timeout <= self.now, "gave up early");
                            self.seen.timed_out += 1;
                        }
                        FailReason::Terminated => self.seen.terminated += 1,
                    }
                }
            }
        }
    }

    fn check(&self) {
        let Timing { start_timeout, close_after } = self.demand.timing;
        assert_eq!(self.demand.is_started(), self.started);
        assert_eq!(self.demand.held(), self.waiting.len());
        assert!(
            self.waiting.is_empty() || (self.started && !self.live),
            "waits for nothing: {:?}",
            self.demand
        );
        for &(_, since) in &self.waiting {
            assert!(self.now <= since + start_timeout, "waits beyond its time: {:?}", self.demand);
        }
        let has_reason = self.readers > 0 || !self.waiting.is_empty();
        if self.started && !has_reason {
            // Before its first picture it has the time that a request has, and after that the time to be closed.
            let longest = if self.live { close_after } else { start_timeout.max(close_after) };
            assert!(self.now <= self.wanted + longest, "runs for nobody: {:?}", self.demand);
        }
        // Whatever may end by itself has a time for it.
        let ends_by_itself = self.started && self.readers == 0;
        assert_eq!(self.demand.deadline().is_some(), ends_by_itself, "{:?}", self.demand);
    }

    /// Lets time pass until `end`; timers go off at their time.
    fn pass(&mut self, end: Instant) {
        while let Some(deadline) = self.demand.deadline().filter(|&deadline| deadline <= end) {
            self.now = self.now.max(deadline);
            let mut orders = Vec::new();
            self.demand.tick(self.now, &mut orders);
            assert!(!orders.is_empty(), "a timer for nothing: {:?}", self.demand);
            self.obey(&orders);
            self.check();
        }
        self.now = end;
    }

    /// Nobody comes and nothing happens any more.
    fn comes_to_rest(&self) {
        let mut demand = self.demand.clone();
        let end = self.now + demand.timing.start_timeout + demand.timing.close_after;
        let mut orders = Vec::new();
        for _ in 0..10_000 {
            let Some(deadline) = demand.deadline() else { return };
            assert!(deadline <= end, "not at rest in time: {demand:?}");
            demand.tick(deadline, &mut orders);
        }
        panic!("never at rest: {demand:?}");
    }
}

fn timing(random: &mut Random) -> Timing {
    let mut some = || Duration::from_millis([0, 300, 2_000, 5_000, 9_999][random.below(5) as usize]);
    Timing { start_timeout: some(), close_after: some() }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
fn a_million_events_leave_nobody_waiting_and_nothing_running() {
    let mut random = Random(0x00C0_FFEE);
    let mut now = Instant::now();
    let mut subjects: Vec<_> = (0..PATHS).map(|_| Subject::new(now, &mut random)).collect();
    for event in 0..EVENTS {
        // Now crowded, now quiet.
        let longest_ms = if event / 40_000 % 2 == 0 { 4 } else { 100 };
        now += Duration::from_micros(random.below(longest_ms * 1000));
        let index = random.below(PATHS as u64) as usize;
        let subject = &mut subjects[index];
        subject.pass(now);
        subject.event(&mut random);
        if event % 8 == 0 {
            subject.comes_to_rest();
        }
    }
    let sum = |count: fn(&Seen) -> u64| subjects.iter().map(|subject| count(&subject.seen)).sum::<u64>();
    for (what, count) in [
        ("starts", sum(|seen| seen.starts)),
        ("not needed", sum(|seen| seen.stops[StopReason::NotNeeded as usize])),
        ("start timeouts", sum(|seen| seen.stops[StopReason::TimedOut as usize])),
        ("failures", sum(|seen| seen.stops[StopReason::SourceFailed as usize])),
        ("destroyed", sum(|seen| seen.stops[StopReason::PathDestroyed as usize])),
        ("released", sum(|seen| seen.released)),
        ("timed out", sum(|seen| seen.timed_out)),
        ("terminated", sum(|seen| seen.terminated)),
        ("left", sum(|seen| seen.left)),
        ("unasked", sum(|seen| seen.unasked)),
        ("fresh starts", sum(|seen| seen.fresh_starts)),
    ] {
        assert!(count > 100, "{what}: only {count}");
    }
}
