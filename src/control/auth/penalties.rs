//! Who fails waits for the answer, and who fails often is not listened to for a while.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// An answer to wrong credentials takes up to this long, by chance, so that its time tells nothing.
const DELAY_MAX: Duration = Duration::from_secs(4);
/// Answers of one address that are kept waiting; more are given at once.
const WAITING_MAX: usize = 32;
/// This many failures within [`WINDOW`] …
const FAILURES_MAX: usize = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// … and nothing costly is done for the address for this long.
const LIMITED_FOR: Duration = Duration::from_secs(30);
/// Addresses that are kept in mind.
const ADDRESSES_MAX: usize = 10_000;

/// See the module.
pub(super) struct Penalties {
    addresses: Mutex<HashMap<IpAddr, Record>>,
    delay_max: Duration,
}

struct Record {
    /// The latest, oldest first.
    failures: VecDeque<Instant>,
    limited_until: Option<Instant>,
    waiting: usize,
    seen: Instant,
}

/// An answer that is kept waiting.
struct Waiting<'p> {
    penalties: &'p Penalties,
    address: IpAddr,
}

impl Default for Penalties {
    fn default() -> Self {
        Self::with_delay(DELAY_MAX)
    }
}

impl Penalties {
    pub(super) fn with_delay(delay_max: Duration) -> Self {
        Self { addresses: Mutex::default(), delay_max }
    }

    /// The credentials of a client were wrong.
    pub(super) fn failed(&self, ip: IpAddr) {
        self.failed_at(ip, Instant::now());
    }

    /// Whether too many of the same address have failed for anything costly to be done for it.
    pub(super) fn is_limited(&self, ip: IpAddr) -> bool {
        self.is_limited_at(ip, Instant::now())
    }

    /// Keeps the answer to one who failed waiting.
    pub(super) async fn wait(&self, ip: IpAddr) {
        if let Some(_waiting) = self.enter(ip, Instant::now()) {
            tokio::time::sleep(self.delay()).await;
        }
    }

    fn failed_at(&self, ip: IpAddr, now: Instant) {
        let mut addresses = self.lock();
        let record = record(&mut addresses, address(ip), now);
        record.failures.push_back(now);
        while record.failures.front().is_some_and(|then| now.duration_since(*then) > WINDOW) {
            record.failures.pop_front();
        }
        if record.failures.len() >= FAILURES_MAX {
            record.failures.clear();
            record.limited_until = Some(now + LIMITED_FOR);
        }
    }

    fn is_limited_at(&self, ip: IpAddr, now: Instant) -> bool {
        let addresses = self.lock();
        addresses.get(&address(ip)).and_then(|record| record.limited_until).is_some_and(|until| now < until)
    }

    /// `None` when as many as may be are waiting already.
    fn enter(&self, ip: IpAddr, now: Instant) -> Option<Waiting<'_>> {
        let address = address(ip);
        let mut addresses = self.lock();
        let record = record(&mut addresses, address, now);
        if record.waiting == WAITING_MAX {
            return None;
        }
        record.waiting += 1;
        Some(Waiting { penalties: self, address })
    }

    fn delay(&self) -> Duration {
        // Without randomness from the system it is always the longest.
        let chance = getrandom::u32().unwrap_or(u32::MAX);
        self.delay_max.mul_f64(f64::from(chance) / f64::from(u32::MAX))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Record>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(record) = self.penalties.lock().get_mut(&self.address) {
            record.waiting = record.waiting.saturating_sub(1);
        }
    }
}

/// The record of an address; room is made for it when there is none.
fn record(addresses: &mut HashMap<IpAddr, Record>, address: IpAddr, now: Instant) -> &mut Record {
    if addresses.len() >= ADDRESSES_MAX && !addresses.contains_key(&address) {
        addresses.retain(|_, record| record.waiting > 0 || now.duration_since(record.seen) <= WINDOW);
    }
    if addresses.len() >= ADDRESSES_MAX && !addresses.contains_key(&address) {
        let oldest = addresses.iter().min_by_key(|(_, record)| record.seen).map(|(address, _)| *address);
        oldest.and_then(|address| addresses.remove(&address));
    }
    let record = addresses.entry(address).or_insert_with(|| Record {
        failures: VecDeque::new(),
        limited_until: None,
        waiting: 0,
        seen: now,
    });
    record.seen = now;
    record
}

/// Of IPv6 the network: a client has as many addresses of it as it likes.
fn address(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn ten_failures_within_a_minute_limit_an_address_for_half_a_minute() {
        let (penalties, now) = (Penalties::default(), Instant::now());
        let second = Duration::from_secs(1);
        for n in 0..9 {
            penalties.failed_at(ip("10.0.0.1"), now + n * second);
        }
        assert!(!penalties.is_limited_at(ip("10.0.0.1"), now + 9 * second));
        // The first is forgotten by then.
        penalties.failed_at(ip("10.0.0.1"), now + 61 * second);
        assert!(!penalties.is_limited_at(ip("10.0.0.1"), now + 61 * second));
        for _ in 0..3 {
            penalties.failed_at(ip("::ffff:10.0.0.1"), now + 61 * second);
        }
        assert!(penalties.is_limited_at(ip("10.0.0.1"), now + 90 * second));
        assert!(!penalties.is_limited_at(ip("10.0.0.2"), now + 90 * second));
        assert!(!penalties.is_limited_at(ip("10.0.0.1"), now + 91 * second));
    }

    #[test]
    fn ipv6_is_counted_by_network() {
        let (penalties, now) = (Penalties::default(), Instant::now());
        for n in 0..10 {
            penalties.failed_at(ip(&format!("2001:db8::{n}")), now);
        }
        assert!(penalties.is_limited_at(ip("2001:db8::ffff"), now));
        assert!(!penalties.is_limited_at(ip("2001:db8:0:1::1"), now));
    }

    #[test]
    fn so_many_of_an_address_wait_and_no_more() {
        let (penalties, now) = (Penalties::default(), Instant::now());
        let mut waiting: Vec<_> = (0..WAITING_MAX).map(|_| penalties.enter(ip("10.0.0.1"), now)).collect();
        assert!(waiting.iter().all(Option::is_some));
        assert!(penalties.enter(ip("10.0.0.1"), now).is_none());
        assert!(penalties.enter(ip("10.0.0.2"), now).is_some());
        waiting.pop();
        assert!(penalties.enter(ip("10.0.0.1"), now).is_some());
    }

    #[test]
    fn only_so_many_addresses_are_kept() {
        let (penalties, now) = (Penalties::default(), Instant::now());
        for n in 0..ADDRESSES_MAX as u32 + 5 {
            penalties.failed_at(
                IpAddr::from((0x0a00_0000 + n).to_be_bytes()),
                now + Duration::from_micros(n.into()),
            );
        }
        let addresses = penalties.lock();
        assert_eq!(addresses.len(), ADDRESSES_MAX);
        assert!(!addresses.contains_key(&ip("10.0.0.0")) && addresses.contains_key(&ip("10.0.0.5")));
    }

    #[test]
    fn a_delay_is_within_its_bounds_and_not_always_the_same() {
        let penalties = Penalties::default();
        let delays: Vec<_> = (0..50).map(|_| penalties.delay()).collect();
        assert!(delays.iter().all(|delay| *delay <= DELAY_MAX));
        assert!(delays.windows(2).any(|pair| pair[0] != pair[1]));
    }
}
