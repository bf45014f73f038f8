//! Who may be on the way to which host: a number of pulls per host and port, the urgent ones first, each kind in the
//! order in which they came.
//!
//! Behind one host and port there may be many cameras, as with a VMS, of which some hang whenever they are asked. Those
//! whose last attempt failed are suspects: they come after the others of their urgency, and never have more than half of
//! the turns.

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroUsize,
    sync::Arc,
    time::Duration,
};

use corecast_hub::registry::ShardId;
use tokio::time::Instant;

use crate::shard::slots::Key;

/// A pull that has its turn for so long does not know of it any more. Longer than reaching a host may ever take.
pub const TURN_MAX: Duration = Duration::from_secs(120);

/// A pull of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PullId {
    pub shard: ShardId,
    pub pull: Key,
}

/// What is to be reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    pub host: Arc<str>,
    pub port: u16,
}

/// What a pull wants.
#[derive(Debug, Clone)]
pub struct Want {
    pub place: Place,
    /// Somebody waits for it.
    pub urgent: bool,
    /// Its last attempt came to nothing.
    pub suspect: bool,
}

/// It is the turn of this pull.
#[derive(Debug, Clone)]
pub struct Granted {
    pub pull: PullId,
    pub place: Place,
    ticket: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Turns {
    per_host: NonZeroUsize,
    pulls: HashMap<PullId, Pull>,
    places: HashMap<Place, Queue>,
    /// Those that have their turn, by ticket: the oldest first.
    out: BTreeMap<u64, (PullId, Instant)>,
    tickets: u64,
}

#[derive(Debug)]
struct Pull {
    place: Place,
    suspect: bool,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Waits(Rank),
    /// With the ticket of its turn.
    Out(u64),
}

/// Smaller ones come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    patient: bool,
    came: u64,
}

#[derive(Debug, Default)]
struct Queue {
    /// Those that have their turn, and how many of them are suspects.
    out: usize,
    suspects_out: usize,
    waiting: BTreeMap<Rank, PullId>,
    suspects_waiting: BTreeMap<Rank, PullId>,
}

impl Queue {
    fn waiting(&mut self, suspect: bool) -> &mut BTreeMap<Rank, PullId> {
        if suspect { &mut self.suspects_waiting } else { &mut self.waiting }
    }

    /// Takes out whose turn is next, if there may be one more.
    fn next(&mut self, per_host: usize) -> Option<PullId> {
        if self.out >= per_host {
            return None;
        }
        let may_suspect = self.suspects_out < (per_host / 2).max(1);
        let first_is_patient = |waiting: &BTreeMap<Rank, PullId>| Some(waiting.first_key_value()?.0.patient);
        let suspect = match (first_is_patient(&self.suspects_waiting), first_is_patient(&self.waiting)) {
            (None, _) => false,
            (Some(_), None) => may_suspect,
            (Some(suspect), Some(other)) => may_suspect && !suspect && other,
        };
        let (_, id) = self.waiting(suspect).pop_first()?;
        self.out += 1;
        self.suspects_out += usize::from(suspect);
        Some(id)
    }
}

impl Turns {
    /// `per_host` pulls may be on their way to a host at a time.
    pub fn new(per_host: NonZeroUsize) -> Self {
        Self { per_host, pulls: HashMap::new(), places: HashMap::new(), out: BTreeMap::new(), tickets: 0 }
    }

    /// A pull wants to reach a place. Those whose turn it is by that are appended to `granted`, here and in all others.
    pub fn want(&mut self, id: PullId, want: Want, now: Instant, granted: &mut Vec<Granted>) {
        let Want { place, urgent, suspect } = want;
        let known = self.pulls.get(&id).map(|pull| (pull.place == place, pull.state));
        let rank = match known {
            // The answer may have been about something else that it wanted.
            Some((true, State::Out(ticket))) => return granted.push(Granted { pull: id, place, ticket }),
            Some((true, State::Waits(rank))) if urgent && rank.patient => {
                self.forget(id);
                Rank { patient: false, came: rank.came }
            }
            Some((true, State::Waits(_))) => return,
            Some((false, _)) => {
                self.done(id, now, granted);
                Rank { patient: !urgent, came: self.ticket() }
            }
            None => Rank { patient: !urgent, came: self.ticket() },
        };
        self.pulls.insert(id, Pull { place: place.clone(), suspect, state: State::Waits(rank) });
        self.places.entry(place.clone()).or_default().waiting(suspect).insert(rank, id);
        self.grant(&place, now, granted);
    }

    /// `pull` does not need its turn any more, or does not want one. One that is not known is left alone.
    pub fn done(&mut self, id: PullId, now: Instant, granted: &mut Vec<Granted>) {
        if let Some(place) = self.forget(id) {
            self.grant(&place, now, granted);
        }
    }

    /// Whether a turn has not been given back.
    pub fn is_current(&self, turn: &Granted) -> bool {
        self.out.contains_key(&turn.ticket)
    }

    /// From now on so many pulls may be on their way to a host. Those that are stay.
    pub fn set_per_host(&mut self, per_host: NonZeroUsize, now: Instant, granted: &mut Vec<Granted>) {
        self.per_host = per_host;
        let places: Vec<_> = self.places.keys().cloned().collect();
        for place in places {
            self.grant(&place, now, granted);
        }
    }

    /// When [`Self::expire`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.out.first_key_value().map(|(_, (_, since))| *since + TURN_MAX)
    }

    /// Takes turns back that nobody has given back for too long; gives where to.
    pub fn expire(&mut self, now: Instant, granted: &mut Vec<Granted>) -> Vec<Place> {
        let mut places = Vec::new();
        while self.deadline().is_some_and(|deadline| deadline <= now)
            && let Some((_, &(id, _))) = self.out.first_key_value()
            && let Some(place) = self.forget(id)
        {
            self.grant(&place, now, granted);
            places.push(place);
        }
        places
    }

    fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    /// Takes a pull out; gives where it was on its way to or wanted to.
    fn forget(&mut self, id: PullId) -> Option<Place> {
        let Pull { place, suspect, state } = self.pulls.remove(&id)?;
        if let Some(queue) = self.places.get_mut(&place) {
            match state {
                State::Waits(rank) => drop(queue.waiting(suspect).remove(&rank)),
                State::Out(ticket) => {
                    self.out.remove(&ticket);
                    queue.out -= 1;
                    queue.suspects_out -= usize::from(suspect);
                }
            }
            if queue.out == 0 && queue.waiting.is_empty() && queue.suspects_waiting.is_empty() {
                self.places.remove(&place);
            }
        }
        Some(place)
    }

    fn grant(&mut self, place: &Place, now: Instant, granted: &mut Vec<Granted>) {
        let Some(queue) = self.places.get_mut(place) else { return };
        while let Some(id) = queue.next(self.per_host.get()) {
            self.tickets += 1;
            let ticket = self.tickets;
            if let Some(pull) = self.pulls.get_mut(&id) {
                pull.state = State::Out(ticket);
            }
            self.out.insert(ticket, (id, now));
            granted.push(Granted { pull: id, place: place.clone(), ticket });
        }
    }
}
