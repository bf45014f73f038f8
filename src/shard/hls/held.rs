//! Requests that wait: for the control plane, for a stream, for a part that is not complete.
//!
//! What waits for media stands under exactly that, so that a part wakes those who wait for it and nobody else. Told the
//! time; knows neither shard nor sockets.

use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

use corecast_packagers::hls::Await;

use crate::shard::{slots::Key, web::Ticket};

/// Requests that may wait on one shard.
pub const HELD_MAX: usize = 16_384;

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// The control plane says whether it is allowed.
    Verdict,
    /// There is a stream on its path.
    Stream,
    /// This muxer has made that.
    Media { muxer: Key, what: Await },
}

/// Who waits for what; `V` is all that is known of a request.
#[derive(Debug)]
pub struct Held<V> {
    visits: HashMap<Ticket, (V, Wait, Option<Instant>)>,
    by_media: HashMap<Key, HashMap<Await, HashSet<Ticket>>>,
}

impl<V> Default for Held<V> {
    fn default() -> Self {
        Self { visits: HashMap::new(), by_media: HashMap::new() }
    }
}

impl<V> Held<V> {
    pub fn is_full(&self) -> bool {
        self.visits.len() >= HELD_MAX
    }

    /// Lets a request wait, no longer than `until`.
    pub fn hold(&mut self, ticket: Ticket, visit: V, wait: Wait, until: Option<Instant>) {
        if let Wait::Media { muxer, what } = wait {
            self.by_media.entry(muxer).or_default().entry(what).or_default().insert(ticket);
        }
        self.visits.insert(ticket, (visit, wait, until));
    }

    /// A request does not wait any more.
    pub fn take(&mut self, ticket: Ticket) -> Option<(V, Wait)> {
        let (visit, wait, _) = self.visits.remove(&ticket)?;
        if let Wait::Media { muxer, what } = wait
            && let Some(waiting) = self.by_media.get_mut(&muxer)
            && let Some(tickets) = waiting.get_mut(&what)
        {
            tickets.remove(&ticket);
            if tickets.is_empty() {
                waiting.remove(&what);
            }
        }
        Some((visit, wait))
    }

    pub fn get_mut(&mut self, ticket: Ticket) -> Option<(&mut V, Wait)> {
        self.visits.get_mut(&ticket).map(|(visit, wait, _)| (visit, *wait))
    }

    /// Those who wait for what a muxer has now; they are still held.
    pub fn ready(&self, muxer: Key, has: impl Fn(Await) -> bool, into: &mut Vec<Ticket>) {
        let Some(waiting) = self.by_media.get(&muxer) else { return };
        for (_, tickets) in waiting.iter().filter(|(what, _)| has(**what)) {
            into.extend(tickets);
        }
    }

    /// Somebody waits for something of this muxer.
    pub fn waits_for(&self, muxer: Key) -> bool {
        self.by_media.get(&muxer).is_some_and(|waiting| !waiting.is_empty())
    }

    /// A muxer is no more; nobody may wait for it.
    pub fn forget_muxer(&mut self, muxer: Key) {
        self.by_media.remove(&muxer);
    }

    /// Those of whom this is true.
    pub fn find(&self, is_meant: impl Fn(&V, Wait) -> bool) -> Vec<Ticket> {
        let meant = self.visits.iter().filter(|(_, (visit, wait, _))| is_meant(visit, *wait));
        meant.map(|(&ticket, _)| ticket).collect()
    }

    /// Those who have waited for as long as they may.
    pub fn late(&self, now: Instant) -> Vec<Ticket> {
        let late = self.visits.iter().filter(|(_, (_, _, until))| until.is_some_and(|until| until <= now));
        late.map(|(&ticket, _)| ticket).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ticket(request: u64) -> Ticket {
        Ticket { shard: 0, connection: Key::from_bits(1), request }
    }

    fn part(number: u64) -> Wait {
        let what = Await::Part { rendition: 0, msn: number, part: 0 };
        Wait::Media { muxer: Key::from_bits(7), what }
    }

    fn ready(held: &Held<()>, msn_max: u64) -> Vec<u64> {
        let mut tickets = Vec::new();
        let has = |what: Await| matches!(what, Await::Part { msn, .. } if msn <= msn_max);
        held.ready(Key::from_bits(7), has, &mut tickets);
        let mut requests: Vec<_> = tickets.iter().map(|ticket| ticket.request).collect();
        requests.sort_unstable();
        requests
    }

    #[test]
    fn a_part_wakes_who_waits_for_it_and_nobody_else() {
        let mut held = Held::default();
        for request in 0..100 {
            held.hold(ticket(request), (), part(request % 2), None);
        }
        held.hold(ticket(100), (), Wait::Stream, None);
        let even: Vec<u64> = (0..100).step_by(2).collect();
        assert_eq!(ready(&held, 0), even);
        for &request in &even {
            assert!(held.take(ticket(request)).is_some());
        }
        assert_eq!((ready(&held, 0), ready(&held, 1).len()), (vec![], 50));
    }

    #[test]
    fn who_is_gone_leaves_nothing_behind() {
        let mut held = Held::default();
        for request in 0..1000 {
            held.hold(ticket(request), (), part(request), None);
        }
        assert!(held.waits_for(Key::from_bits(7)));
        for request in 0..1000 {
            held.take(ticket(request));
            assert!(held.take(ticket(request)).is_none());
        }
        assert_eq!((held.visits.len(), held.waits_for(Key::from_bits(7))), (0, false));
        assert!(held.by_media[&Key::from_bits(7)].is_empty());
    }

    #[test]
    fn nobody_waits_longer_than_allowed() {
        let (mut held, t0) = (Held::default(), Instant::now());
        held.hold(ticket(1), (), part(1), Some(t0 + Duration::from_secs(3)));
        held.hold(ticket(2), (), Wait::Verdict, None);
        assert_eq!(held.late(t0 + Duration::from_millis(2999)), []);
        assert_eq!(held.late(t0 + Duration::from_secs(3)), [ticket(1)]);
        assert_eq!(held.find(|(), wait| wait == Wait::Verdict), [ticket(2)]);
    }
}
