//! Each rule by itself, then all of them under a million random events.

mod simulation;

use super::*;

const TIMING: Timing = Timing { start_timeout: Duration::from_secs(10), close_after: Duration::from_secs(4) };

/// A machine with a clock.
struct Path {
    demand: Demand<u32>,
    begin: Instant,
    now: Instant,
}

impl Path {
    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
    fn new() -> Self {
        let now = Instant::now();
        Self { demand: Demand::new(TIMING), begin: now, now }
    }

    /// Lets time pass, up to so many seconds after the beginning.
    fn at(&mut self, seconds: u64) -> Vec<Order<u32>> {
        let (end, mut orders) = (self.begin + Duration::from_secs(seconds), Vec::new());
        while let Some(deadline) = self.demand.deadline().filter(|&deadline| deadline <= end) {
            self.now = deadline;
            self.demand.tick(deadline, &mut orders);
        }
        self.now = end;
        orders
    }

    fn want(&mut self, who: u32) -> Vec<Order<u32>> {
        self.order(|demand, now, orders| demand.want(who, now, orders).unwrap())
    }

    fn begun(&mut self) -> Vec<Order<u32>> {
        self.order(Demand::stream_began)
    }

    fn failed(&mut self) -> Vec<Order<u32>> {
        self.order(|demand, _, orders| demand.source_failed(orders))
    }

    fn order(
        &mut self,
        tell: impl FnOnce(&mut Demand<u32>, Instant, &mut Vec<Order<u32>>),
    ) -> Vec<Order<u32>> {
        let mut orders = Vec::new();
        tell(&mut self.demand, self.now, &mut orders);
        orders
    }
}

fn timed_out(who: u32) -> Order<u32> {
    Order::Fail(who, FailReason::TimedOut)
}

#[test]
fn the_first_starts_it_and_all_who_wait_go_on_in_their_order() {
    let mut path = Path::new();
    assert_eq!(path.want(3), [Order::Start]);
    assert_eq!(path.want(1), []);
    assert_eq!(path.want(2), []);
    assert_eq!(path.want(1), []);
    path.demand.leave(3);
    assert_eq!(path.begun(), [Order::Release(1), Order::Release(2)]);
    assert_eq!(path.want(4), [Order::Release(4)]);
    path.demand.set_readers(2, path.now);
    assert_eq!(path.at(1000), []);
    path.demand.set_readers(0, path.now);
    assert_eq!(path.at(1003), []);
    assert_eq!(path.at(1004), [Order::Stop(StopReason::NotNeeded)]);
    assert!(path.demand.is_idle());
}

#[test]
fn each_waits_for_as_long_as_the_others() {
    let mut path = Path::new();
    path.want(1);
    path.want(2);
    path.at(6);
    path.want(3);
    assert_eq!(path.at(9), []);
    assert_eq!(path.at(10), [timed_out(1), timed_out(2)]);
    assert_eq!(path.at(16), [timed_out(3), Order::Stop(StopReason::TimedOut)]);
    assert_eq!(path.want(4), [Order::Start]);
}

#[test]
fn what_hangs_is_started_anew_though_there_is_always_somebody_who_waits() {
    let mut path = Path::new();
    for second in 0..20 {
        path.at(second);
        path.want(second as u32);
    }
    let orders = path.at(20);
    assert!(orders.ends_with(&[Order::Stop(StopReason::TimedOut), Order::Start]), "{orders:?}");
    assert_eq!(path.demand.held(), 9);
    assert_eq!(path.at(29).last(), Some(&Order::Stop(StopReason::TimedOut)));
}

#[test]
fn a_look_keeps_it_and_a_look_only() {
    let mut path = Path::new();
    path.want(1);
    path.begun();
    path.at(3);
    path.demand.touch(path.now);
    assert_eq!(path.at(6), []);
    assert_eq!(path.at(7), [Order::Stop(StopReason::NotNeeded)]);
}

#[test]
fn a_lost_command_may_come_back_but_is_not_waited_for_longer_than_without_readers() {
    let mut path = Path::new();
    path.want(1);
    path.begun();
    path.demand.set_readers(1, path.now);
    path.at(100);
    path.demand.stream_ended(path.now);
    path.at(102);
    // No second start: it is running.
    assert_eq!(path.want(2), []);
    assert_eq!(path.at(111), []);
    assert_eq!(path.begun(), [Order::Release(2)]);
    // One that comes and goes with nobody to see it does not go on for ever.
    for second in 112..115 {
        assert_eq!(path.at(second), []);
        path.demand.stream_ended(path.now);
        path.begun();
    }
    assert_eq!(path.at(115), [Order::Stop(StopReason::NotNeeded)]);
}

#[test]
fn a_command_that_is_not_run_again_is_started_anew_by_the_next() {
    let mut path = Path::new();
    path.demand.revives = false;
    path.want(1);
    path.begun();
    path.demand.set_readers(1, path.now);
    path.demand.stream_ended(path.now);
    assert_eq!(path.want(2), [Order::Stop(StopReason::SourceFailed), Order::Start]);
    assert_eq!(path.want(3), []);
    assert_eq!(path.begun(), [Order::Release(2), Order::Release(3)]);
}

#[test]
fn a_lost_source_is_stopped_at_once_and_started_by_the_next() {
    let mut path = Path::new();
    path.want(1);
    assert_eq!(path.failed(), []);
    path.begun();
    path.demand.set_readers(1, path.now);
    assert_eq!(path.failed(), []);
    path.demand.stream_ended(path.now);
    assert_eq!(path.failed(), [Order::Stop(StopReason::SourceFailed)]);
    assert_eq!(path.want(2), [Order::Start]);
    path.demand.leave(2);
    assert_eq!(path.failed(), [Order::Stop(StopReason::SourceFailed)]);
}

#[test]
fn a_stream_that_nobody_asked_for_is_let_be() {
    let mut path = Path::new();
    path.begun();
    assert_eq!(path.want(1), [Order::Release(1)]);
    path.demand.set_readers(1, path.now);
    path.demand.set_readers(0, path.now);
    assert_eq!(path.at(1000), []);
    path.demand.stream_ended(path.now);
    assert_eq!(path.want(2), [Order::Start]);
}

#[test]
fn the_end_of_a_path_answers_who_waits() {
    let mut path = Path::new();
    path.want(1);
    path.want(2);
    let orders = path.order(|demand, _, orders| demand.end(StopReason::PathDestroyed, orders));
    let failed = |who| Order::Fail(who, FailReason::Terminated);
    assert_eq!(orders, [failed(1), failed(2), Order::Stop(StopReason::PathDestroyed)]);
    assert!(path.demand.is_idle());
}

#[test]
fn other_timeouts_hold_at_once() {
    let mut path = Path::new();
    path.want(1);
    path.at(5);
    path.demand.timing.start_timeout = Duration::from_secs(6);
    assert_eq!(path.at(6), [timed_out(1), Order::Stop(StopReason::TimedOut)]);
    path.want(2);
    path.begun();
    path.demand.timing.close_after = Duration::from_secs(100);
    assert_eq!(path.at(105), []);
    assert_eq!(path.at(106), [Order::Stop(StopReason::NotNeeded)]);
}

#[test]
fn a_crowd_has_an_end() {
    let mut path = Path::new();
    for who in 0..HELD_MAX as u32 {
        path.want(who);
    }
    let full = path.demand.want(u32::MAX, path.now, &mut Vec::new());
    assert_eq!(full, Err(Full));
    path.want(7);
    path.demand.leave(8);
    path.want(u32::MAX);
}
