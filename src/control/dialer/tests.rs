//! Turns and names with time that is made up: nothing here waits for real, and no name is looked up for real.

use std::{
    collections::HashMap,
    io,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::sleep;

use super::*;

/// How a name behaves.
#[derive(Clone)]
enum Name {
    Has(Vec<SocketAddr>),
    Fails,
    Hangs,
    Takes(Duration),
}

#[derive(Clone, Default)]
struct Fake {
    names: Arc<HashMap<&'static str, Name>>,
    lookups: Arc<AtomicUsize>,
}

fn on(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

impl Resolve for Fake {
    async fn resolve(&self, host: &str) -> io::Result<Vec<SocketAddr>> {
        self.lookups.fetch_add(1, Ordering::Relaxed);
        match self.names.get(host) {
            Some(Name::Has(addresses)) => Ok(addresses.clone()),
            Some(Name::Takes(time)) => {
                sleep(*time).await;
                Ok(vec![on("192.0.2.9:0")])
            }
            Some(Name::Hangs) => std::future::pending().await,
            Some(Name::Fails) | None => Err(io::Error::other("no such name")),
        }
    }
}

type Answer = (u64, Result<Vec<SocketAddr>, String>);

struct Bench {
    dialer: Dialer,
    answers: Arc<Mutex<Vec<Answer>>>,
    resolver: Fake,
}

impl Bench {
    fn new(per_host: usize, names: impl IntoIterator<Item = (&'static str, Name)>) -> Self {
        let resolver = Fake { names: Arc::new(names.into_iter().collect()), ..Fake::default() };
        let (dialer, requests) = Dialer::new();
        let answers = Arc::<Mutex<Vec<Answer>>>::default();
        let log = Arc::clone(&answers);
        let per_host = NonZeroUsize::new(per_host).unwrap();
        tokio::spawn(requests.serve(per_host, resolver.clone(), move |shard, pull, addresses| {
            assert_eq!(shard, 3);
            log.lock().unwrap().push((pull.to_bits(), addresses));
        }));
        Self { dialer, answers, resolver }
    }

    fn wanted(&self, pull: u64, host: &str, urgent: bool) {
        self.want(pull, host, urgent, false);
    }

    fn want(&self, pull: u64, host: &str, urgent: bool, suspect: bool) {
        let (pull, host) = (Key::from_bits(pull), host.into());
        self.dialer.take(DialRequest::Wanted { shard: 3, pull, host, port: 554, urgent, suspect });
    }

    fn done(&self, pull: u64) {
        self.dialer.take(DialRequest::Done { shard: 3, pull: Key::from_bits(pull) });
    }

    /// Everything that was answered since the last call, once nothing moves any more.
    async fn answers(&self) -> Vec<Answer> {
        // Time only goes on when every task waits.
        sleep(Duration::from_micros(10)).await;
        std::mem::take(&mut self.answers.lock().unwrap())
    }

    async fn answered(&self) -> Vec<u64> {
        self.answers().await.into_iter().map(|(pull, _)| pull).collect()
    }

    fn lookups(&self) -> usize {
        self.resolver.lookups.load(Ordering::Relaxed)
    }
}

const CAM: &str = "192.0.2.1";

#[tokio::test(start_paused = true)]
async fn so_many_are_on_their_way_to_a_host_and_the_next_follow_in_order() {
    let bench = Bench::new(2, []);
    for pull in 0..5 {
        bench.wanted(pull, CAM, false);
    }
    // Another host, and another port of the same one, are other places.
    bench.wanted(10, "2001:db8::1", false);
    let (pull, host) = (Key::from_bits(11), CAM.into());
    bench.dialer.take(DialRequest::Wanted {
        shard: 3,
        pull,
        host,
        port: 8554,
        urgent: false,
        suspect: false,
    });
    let mut answers = bench.answers().await;
    answers.sort_by_key(|(pull, _)| *pull);
    let want = [
        (0, Ok(vec![on("192.0.2.1:554")])),
        (1, Ok(vec![on("192.0.2.1:554")])),
        (10, Ok(vec![on("[2001:db8::1]:554")])),
        (11, Ok(vec![on("192.0.2.1:8554")])),
    ];
    assert_eq!(answers, want);
    assert_eq!(bench.lookups(), 0, "addresses need no look-up");
    bench.done(1);
    assert_eq!(bench.answered().await, [2]);
    bench.done(0);
    bench.done(2);
    assert_eq!(bench.answered().await, [3, 4]);
}

#[tokio::test(start_paused = true)]
async fn who_is_waited_for_comes_first_even_when_that_is_told_later() {
    let bench = Bench::new(1, []);
    for (pull, urgent) in [(0, false), (1, false), (2, true), (3, false), (4, true)] {
        bench.wanted(pull, CAM, urgent);
    }
    bench.wanted(3, CAM, true);
    // It is not less urgent because it asks again, and does not lose its place.
    bench.wanted(2, CAM, false);
    let mut order = bench.answered().await;
    while let Some(&last) = order.last()
        && order.len() < 5
    {
        bench.done(last);
        order.extend(bench.answered().await);
    }
    assert_eq!(order, [0, 2, 3, 4, 1]);
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_is_not_answered_and_strangers_change_nothing() {
    let bench = Bench::new(1, []);
    for pull in 0..4 {
        bench.wanted(pull, CAM, pull == 3);
    }
    assert_eq!(bench.answered().await, [0]);
    for gone in [1, 3, 77, 1] {
        bench.done(gone);
    }
    assert_eq!(bench.answered().await, [] as [u64; 0], "the one place is taken");
    bench.done(0);
    assert_eq!(bench.answered().await, [2]);
    bench.done(0);
    bench.wanted(5, CAM, false);
    assert_eq!(bench.answered().await, [] as [u64; 0], "given back twice is given back once");
}

#[tokio::test(start_paused = true)]
async fn who_asks_again_in_its_turn_is_told_again_and_who_goes_elsewhere_gives_its_place_back() {
    let bench = Bench::new(1, []);
    bench.wanted(0, CAM, false);
    bench.wanted(1, CAM, false);
    assert_eq!(bench.answered().await, [0]);
    bench.wanted(0, CAM, true);
    assert_eq!(bench.answered().await, [0]);
    bench.wanted(0, "192.0.2.2", false);
    let mut answers = bench.answers().await;
    answers.sort_by_key(|(pull, _)| *pull);
    let want = [(0, Ok(vec![on("192.0.2.2:554")])), (1, Ok(vec![on("192.0.2.1:554")]))];
    assert_eq!(answers, want);
}

#[tokio::test(start_paused = true)]
async fn suspects_have_half_of_the_turns_and_come_after_the_others() {
    let bench = Bench::new(4, []);
    for pull in 0..40 {
        bench.want(pull, CAM, true, true);
    }
    assert_eq!(bench.answered().await, [0, 1], "they do not get all");
    bench.wanted(100, CAM, false);
    bench.wanted(101, CAM, true);
    bench.wanted(102, CAM, true);
    bench.wanted(103, CAM, false);
    let mut first = bench.answered().await;
    first.sort_unstable();
    assert_eq!(first, [100, 101], "though none of the suspects is done");
    bench.done(0);
    assert_eq!(bench.answered().await, [102], "before the suspects that wait");
    bench.done(1);
    assert_eq!(bench.answered().await, [2], "who is urgent comes before who is not");
    for pull in [100, 101, 102, 2] {
        bench.done(pull);
    }
    let mut next = bench.answered().await;
    next.sort_unstable();
    assert_eq!(next, [3, 4, 103]);
    // One place is for everybody.
    let bench = Bench::new(1, []);
    bench.want(0, CAM, false, true);
    bench.want(1, CAM, false, true);
    bench.wanted(2, CAM, false);
    assert_eq!(bench.answered().await, [0]);
    bench.done(0);
    assert_eq!(bench.answered().await, [2]);
    bench.done(2);
    assert_eq!(bench.answered().await, [1]);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_pulls_all_get_their_turn_and_never_too_many_at_once() {
    let bench = Bench::new(10, []);
    let hosts: Vec<_> = (0..4).map(|n| format!("192.0.2.{n}")).collect();
    for pull in 0..10_000 {
        bench.wanted(pull, &hosts[pull as usize % 4], pull % 3 == 0);
        // Some change their mind at once.
        if pull % 10 == 7 {
            bench.done(pull);
        }
    }
    let (mut out, mut order) = (bench.answered().await, Vec::new());
    while !out.is_empty() {
        for host in 0..4 {
            let here = out.iter().filter(|&&pull| pull % 4 == host).count();
            assert!(here <= 10, "{here} on their way to one host");
        }
        order.append(&mut out);
        for &pull in order.iter().rev().take(40) {
            bench.done(pull);
        }
        out = bench.answered().await;
    }
    // Those that were let in at once may have changed their mind afterwards.
    let all: std::collections::HashSet<_> = order.iter().copied().collect();
    assert_eq!(all.len(), order.len(), "nobody is answered twice");
    assert!((0..10_000).filter(|pull| pull % 10 != 7).all(|pull| all.contains(&pull)));
    assert!(all.iter().filter(|&&pull| pull % 10 == 7).count() <= 40);
    for host in 0..4 {
        for urgent in [true, false] {
            // Once all had asked.
            let late: Vec<_> =
                order.iter().skip(40).filter(|&&p| p % 4 == host && (p % 3 == 0) == urgent).collect();
            assert!(late.is_sorted(), "first come, first served");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn another_limit_holds_at_once_and_nobody_on_the_way_is_called_back() {
    let bench = Bench::new(1, []);
    for pull in 0..6 {
        bench.wanted(pull, CAM, false);
    }
    assert_eq!(bench.answered().await, [0]);
    bench.dialer.set_per_host(NonZeroUsize::new(3).unwrap());
    assert_eq!(bench.answered().await, [1, 2]);
    bench.dialer.set_per_host(NonZeroUsize::new(1).unwrap());
    bench.done(0);
    bench.done(1);
    assert_eq!(bench.answered().await, [] as [u64; 0]);
    bench.done(2);
    assert_eq!(bench.answered().await, [3]);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_hangs_holds_up_nobody_else_and_is_given_up() {
    let names = [("dead", Name::Hangs), ("slow", Name::Takes(Duration::from_secs(7))), ("none", Name::Fails)];
    let bench = Bench::new(2, names.into_iter().chain([("alive", Name::Has(vec![on("192.0.2.5:0")]))]));
    for pull in 0..4 {
        bench.wanted(pull, "dead", false);
    }
    bench.wanted(10, "alive", false);
    bench.wanted(11, "none", false);
    bench.wanted(12, "slow", false);
    let mut answers = bench.answers().await;
    answers.sort_by_key(|(pull, _)| *pull);
    let want = [
        (10, Ok(vec![on("192.0.2.5:554")])),
        (11, Err("the name none cannot be resolved: no such name".to_owned())),
    ];
    assert_eq!(answers, want);
    sleep(Duration::from_millis(4900)).await;
    assert_eq!(bench.answered().await, [] as [u64; 0]);
    sleep(Duration::from_millis(100)).await;
    let mut answers = bench.answers().await;
    answers.sort_by_key(|(pull, _)| *pull);
    // Who waited for its turn is told as well, at once.
    let reason = |name| Err(format!("the name {name} was not resolved within 5 seconds"));
    let want = [0, 1, 2, 3].map(|pull| (pull, reason("dead")));
    assert_eq!(answers[..4], want);
    assert_eq!(answers[4..], [(12, reason("slow"))]);
    // A failure gives the place back by itself: no Done was sent. That name is still being looked up, once.
    let before = bench.lookups();
    sleep(Duration::from_secs(3)).await;
    bench.wanted(0, "dead", false);
    bench.wanted(12, "slow", false);
    assert_eq!(bench.answers().await, [(12, Ok(vec![on("192.0.2.9:554")]))], "its late answer counts");
    sleep(Duration::from_secs(5)).await;
    assert_eq!(bench.answered().await, [0]);
    assert_eq!(bench.lookups(), before);
}

#[tokio::test(start_paused = true)]
async fn answers_are_remembered_for_ten_seconds_and_failures_for_two() {
    let bench = Bench::new(100, [("a", Name::Has(vec![on("192.0.2.5:0")])), ("b", Name::Fails)]);
    let ask = async |name: &'static str| {
        for pull in 0..50 {
            bench.wanted(pull, name, false);
        }
        assert_eq!(bench.answered().await.len(), 50);
        for pull in 0..50 {
            bench.done(pull);
        }
        bench.lookups()
    };
    assert_eq!(ask("a").await, 1, "one look-up for all who wait");
    assert_eq!(ask("b").await, 2);
    sleep(Duration::from_millis(1900)).await;
    assert_eq!(ask("b").await, 2);
    sleep(Duration::from_millis(200)).await;
    assert_eq!(ask("b").await, 3);
    sleep(Duration::from_millis(7700)).await;
    assert_eq!(ask("a").await, 3);
    sleep(Duration::from_millis(300)).await;
    assert_eq!(ask("a").await, 4);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_too_late_is_nobodys() {
    let bench = Bench::new(1, [("dead", Name::Hangs)]);
    bench.wanted(0, "dead", false);
    bench.done(0);
    bench.wanted(0, CAM, false);
    bench.wanted(1, CAM, false);
    assert_eq!(bench.answers().await, [(0, Ok(vec![on("192.0.2.1:554")]))]);
    sleep(Duration::from_secs(20)).await;
    assert_eq!(
        bench.answered().await,
        [] as [u64; 0],
        "the failure is not pull 0's, and its place is its own"
    );
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_is_never_given_back_is_taken_back() {
    let bench = Bench::new(1, []);
    bench.wanted(0, CAM, false);
    bench.wanted(1, CAM, false);
    assert_eq!(bench.answered().await, [0]);
    sleep(turns::TURN_MAX).await;
    assert_eq!(bench.answered().await, [1]);
    bench.done(0);
    bench.wanted(2, CAM, false);
    assert_eq!(bench.answered().await, [] as [u64; 0]);
}

#[tokio::test(start_paused = true)]
async fn the_families_take_turns_and_eight_addresses_are_enough() {
    let v4 = |n: u8| SocketAddr::from(([192, 0, 2, n], 0));
    let v6 = |n: u16| SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, n], 0));
    let both = vec![v6(1), v6(2), v6(3), v4(1), v4(2)];
    let many = (0..20).map(v4).collect();
    let bench =
        Bench::new(9, [("both", Name::Has(both)), ("many", Name::Has(many)), ("empty", Name::Has(vec![]))]);
    for (pull, host) in ["both", "many", "empty"].into_iter().enumerate() {
        bench.wanted(pull as u64, host, false);
    }
    let answers: HashMap<_, _> = bench.answers().await.into_iter().collect();
    let at_554 = |addresses: &[SocketAddr]| {
        let with_port = |address: &SocketAddr| SocketAddr::new(address.ip(), 554);
        Ok(addresses.iter().map(with_port).collect::<Vec<_>>())
    };
    assert_eq!(answers[&0], at_554(&[v6(1), v4(1), v6(2), v4(2), v6(3)]));
    assert_eq!(answers[&1], at_554(&(0..8).map(v4).collect::<Vec<_>>()));
    assert_eq!(answers[&2], Err("the name empty has no addresses".to_owned()));
}

#[tokio::test]
async fn this_hosts_own_name_is_resolved_as_it_is_configured() {
    let found = SystemResolver.resolve("localhost").await.unwrap();
    assert!(!found.is_empty() && found.iter().all(|address| address.ip().is_loopback()), "{found:?}");
}
