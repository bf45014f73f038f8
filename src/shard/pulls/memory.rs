//! What is kept of a source while nobody wants it: how often it has failed, what was said of that, and that UDP does not
//! reach us. So viewers that come and go do not have a camera tried, and a wrong password sent, over and over.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use corecast_hub::settings::PullSettings;

use crate::sources::rtsp_pull::{Backoff, Complaints};

/// Sources of a shard that are remembered; the oldest are forgotten.
const REMEMBERED_MAX: usize = 4096;
/// … and for how long.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);
/// Who asks for a source that has just failed waits no longer than this for the next attempt, unless it is about
/// credentials.
const PAUSE_MAX: Duration = Duration::from_secs(3);

/// Host and port of a source.
pub(super) type Place = (Arc<str>, u16);

/// How a source has fared.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub backoff: Backoff,
    pub complaints: Complaints,
    /// UDP brought nothing: TCP is asked for from now on.
    pub tcp_only: bool,
    /// Its last attempt came to nothing.
    pub suspect: bool,
    /// … because our credentials were refused. Cameras lock those out who go on trying.
    pub login_refused: bool,
    /// Why it last failed, while it does not run.
    pub error: Option<String>,
    pub failed_at: Option<Instant>,
}

impl Record {
    /// What has happened before will happen again, and is not news.
    pub fn is_chronic(&self) -> bool {
        self.backoff.failures() >= 4
    }

    fn is_blank(&self) -> bool {
        self.backoff.failures() == 0 && !self.tcp_only && self.error.is_none()
    }
}

/// A source as it was stopped.
#[derive(Debug)]
pub(super) struct Stopped {
    pub settings: Arc<PullSettings>,
    /// With what stands for its variables.
    pub url: String,
    pub place: Option<Place>,
    pub record: Record,
    /// It is not to be tried before.
    pub paused_until: Instant,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Memory {
    known: HashMap<Arc<str>, Known>,
    /// By when they were stopped.
    order: BTreeMap<u64, Arc<str>>,
    stops: u64,
}

#[derive(Debug)]
struct Known {
    stopped: Stopped,
    since: Instant,
    turn: u64,
}

impl Known {
    fn is_stale(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= REMEMBERED_FOR
    }
}

impl Memory {
    /// What nobody has to know any more is to be forgotten afterwards: see [`Self::pop_stale`].
    pub(super) fn keep(&mut self, path: &Arc<str>, stopped: Stopped, now: Instant) {
        self.forget(path);
        if !stopped.record.is_blank() {
            self.stops += 1;
            self.order.insert(self.stops, Arc::clone(path));
            self.known.insert(Arc::clone(path), Known { stopped, since: now, turn: self.stops });
        }
    }

    /// Takes out the next one that is too old, or one too many; gives its path, which needs no home for it any more.
    pub fn pop_stale(&mut self, now: Instant) -> Option<Arc<str>> {
        let (_, oldest) = self.order.first_key_value()?;
        let is_over = self.order.len() > REMEMBERED_MAX;
        if !is_over && self.known.get(oldest).is_some_and(|known| !known.is_stale(now)) {
            return None;
        }
        let (_, oldest) = self.order.pop_first()?;
        self.known.remove(&oldest);
        Some(oldest)
    }

    /// Something is remembered of the source of a path: it is to keep its home.
    pub fn holds(&self, path: &str) -> bool {
        self.known.contains_key(path)
    }

    /// The path is no more.
    pub fn drop_path(&mut self, path: &str) {
        self.forget(path);
    }

    fn forget(&mut self, path: &str) -> Option<Known> {
        let known = self.known.remove(path)?;
        self.order.remove(&known.turn);
        Some(known)
    }

    /// How the source of a path has fared, if it is the same still, and when it may be tried.
    pub(super) fn take(
        &mut self,
        path: &str,
        settings: &PullSettings,
        url: &str,
        now: Instant,
    ) -> Option<(Record, Instant)> {
        let known = self.forget(path)?;
        let is_stale = known.is_stale(now);
        let Stopped { settings: before, url: was, record, paused_until, .. } = known.stopped;
        if is_stale || *before != *settings || was != url {
            return None;
        }
        let latest = if record.login_refused { paused_until } else { paused_until.min(now + PAUSE_MAX) };
        Some((record, latest.max(now)))
    }

    /// That place is well again: who asks for a source there does not wait.
    pub(super) fn came_back(&mut self, place: &Place, now: Instant) {
        let there = self.known.values_mut().map(|known| &mut known.stopped);
        for stopped in there.filter(|stopped| stopped.place.as_ref() == Some(place)) {
            if !stopped.record.login_refused {
                stopped.paused_until = stopped.paused_until.min(now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use corecast_hub::settings::{PullTransport, UrlTemplate};

    use super::*;

    fn settings(transport: PullTransport) -> Arc<PullSettings> {
        Arc::new(PullSettings {
            url: UrlTemplate::new("rtsp://cam/1".to_owned(), None),
            fingerprint: None,
            transport,
            any_port: false,
            range: None,
            scale: None,
            udp_ports: (10_000, 20_000),
            udp_read_buffer_bytes: None,
            reconnect_grace: Duration::ZERO,
        })
    }

    fn failed(times: usize, login_refused: bool) -> Record {
        let mut record = Record { login_refused, suspect: true, ..Record::default() };
        for _ in 0..times {
            record.backoff.after_failure(u64::MAX);
        }
        record
    }

    fn stopped(record: Record, paused_until: Instant) -> Stopped {
        let place = Some(("cam".into(), 554));
        Stopped { settings: settings(PullTransport::Tcp), url: "u".to_owned(), place, record, paused_until }
    }

    #[test]
    fn a_source_goes_on_as_it_stopped_unless_it_is_another() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        let (path, tcp, s) = ("cam".into(), settings(PullTransport::Tcp), Duration::from_secs(1));
        memory.keep(&path, stopped(failed(3, false), now + 2 * s), now);
        let (record, until) = memory.take("cam", &tcp, "u", now + s).unwrap();
        assert_eq!((record.backoff.failures(), until), (3, now + 2 * s));
        assert!(memory.take("cam", &tcp, "u", now).is_none(), "it is the pull's again");
        // Nobody waits for long, but where a password is wrong.
        memory.keep(&path, stopped(failed(9, false), now + 10 * s), now);
        assert_eq!(memory.take("cam", &tcp, "u", now).unwrap().1, now + PAUSE_MAX);
        memory.keep(&path, stopped(failed(9, true), now + 30 * s), now);
        assert_eq!(memory.take("cam", &tcp, "u", now).unwrap().1, now + 30 * s);
        for (other, url, at) in [
            (settings(PullTransport::Udp), "u", now),
            (Arc::clone(&tcp), "v", now),
            (Arc::clone(&tcp), "u", now + REMEMBERED_FOR),
        ] {
            memory.keep(&path, stopped(failed(1, false), now), now);
            assert!(memory.take("cam", &other, url, at).is_none());
        }
        memory.keep(&path, stopped(Record::default(), now), now);
        assert!(memory.known.is_empty(), "there is nothing to remember");
    }

    #[test]
    fn a_place_that_is_back_is_not_waited_for_and_wrong_passwords_stay_wrong() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        let (tcp, later) = (settings(PullTransport::Tcp), now + Duration::from_secs(2));
        for (path, login_refused) in [("a", false), ("b", true)] {
            memory.keep(&path.into(), stopped(failed(5, login_refused), later), now);
        }
        memory.came_back(&("other".into(), 554), now);
        memory.came_back(&("cam".into(), 554), now);
        assert_eq!(memory.take("a", &tcp, "u", now).unwrap().1, now);
        assert_eq!(memory.take("b", &tcp, "u", now).unwrap().1, later);
    }

    #[test]
    fn so_many_are_remembered_and_no_more() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        for n in 0..REMEMBERED_MAX + 10 {
            memory.keep(&format!("cam{n}").into(), stopped(failed(1, false), now), now);
        }
        let gone: Vec<_> = std::iter::from_fn(|| memory.pop_stale(now)).collect();
        assert_eq!((gone.len(), &*gone[9]), (10, "cam9"));
        assert_eq!((memory.known.len(), memory.order.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
        assert!(!memory.holds("cam9") && memory.holds("cam10"));
        let late = now + REMEMBERED_FOR;
        memory.keep(&"new".into(), stopped(failed(1, false), late), late);
        assert_eq!(std::iter::from_fn(|| memory.pop_stale(late)).count(), REMEMBERED_MAX);
        assert_eq!((memory.known.len(), memory.order.len()), (1, 1));
    }
}
