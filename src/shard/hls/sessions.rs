//! Viewers: how each is known from request to request, and whether it is still there.
//!
//! Knows neither paths nor muxers; is told the time.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use corecast_hub::{quota::Pass, roster::HlsSessionTraffic};
use http::HeaderValue;
use uuid::Uuid;

use crate::shard::slots::{Key, Slots};

/// Without a request for this long, a session ends (contract §5.2).
pub const IDLE_MAX: Duration = Duration::from_secs(30);
/// … and one that fetched the multivariant playlist and nothing after it, earlier: a check, or a player that gave up.
const UNUSED_MAX: Duration = Duration::from_secs(10);
/// Who has asked for nothing for this long does not keep a source at work any more; or for two Target Durations, if
/// that is longer.
const PRESENCE_MIN: Duration = Duration::from_secs(10);
/// Ids of sessions that were ended by an operator are not taken up again for this long …
const KICKED_FOR: Duration = Duration::from_secs(60);
/// … of so many.
const KICKED_MAX: usize = 1024;
/// What was allowed to a viewer without a session holds for this long.
const GRANT_MAX: Duration = Duration::from_secs(30);

/// How a session is found.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Mark {
    /// By an id in the path of its URLs.
    Url(String),
    /// By a secret in a cookie, or else in the query of its URLs.
    Secret(String),
    /// A client that shows neither: by its address and name, on this path.
    Client { path: Key, ip: IpAddr, user_agent: String },
    /// All requests of a content delivery network for this path.
    Cdn(Key),
}

/// A viewer of a path, or several behind a content delivery network.
#[derive(Debug)]
pub struct HlsSession {
    /// As operators know it.
    pub id: Uuid,
    pub mark: Mark,
    pub path: Key,
    pub remote: SocketAddr,
    pub traffic: Arc<HlsSessionTraffic>,
    /// What was allowed last, for a client that is known by its address only.
    pub grant: Option<Grant>,
    last_request: Instant,
    /// Requests of it that are held.
    held: usize,
    /// More than the multivariant playlist was asked for.
    used: bool,
    /// It keeps its source at work.
    present: bool,
    /// Its place among the readers of the relay.
    _pass: Pass,
}

impl HlsSession {
    /// Requests of it wait.
    pub fn is_held(&self) -> bool {
        self.held > 0
    }
}

/// Credentials that were let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub authorization: Option<HeaderValue>,
    /// Of the URL, without the directives of HLS.
    pub query: String,
    pub at: Instant,
}

impl Grant {
    /// Whether it holds for a request with what `other` was presented.
    pub fn covers(&self, other: &Self) -> bool {
        let same = self.authorization == other.authorization && self.query == other.query;
        same && other.at.saturating_duration_since(self.at) <= GRANT_MAX
    }
}

/// What a new session is made of.
#[derive(Debug)]
pub struct NewSession {
    pub id: Uuid,
    pub mark: Mark,
    pub path: Key,
    pub remote: SocketAddr,
    pub pass: Pass,
}

/// What time has done to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is not there any more, or is again.
    Presence,
    /// Nobody has asked for anything for too long.
    Over(&'static str),
}

/// All sessions of a shard.
#[derive(Debug, Default)]
pub struct Sessions {
    slots: Slots<HlsSession>,
    marks: HashMap<Mark, Key>,
    kicked: VecDeque<(Instant, String)>,
}

impl Sessions {
    pub fn get(&self, key: Key) -> Option<&HlsSession> {
        self.slots.get(key)
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut HlsSession> {
        self.slots.get_mut(key)
    }

    /// The session that is known by `mark`.
    pub fn find(&self, mark: &Mark) -> Option<Key> {
        self.marks.get(mark).copied()
    }

    pub fn find_id(&self, id: Uuid) -> Option<Key> {
        self.slots.iter().find(|(_, session)| session.id == id).map(|(key, _)| key)
    }

    pub fn keys_into(&self, keys: &mut Vec<Key>) {
        self.slots.keys_into(keys);
    }

    /// A viewer has come; it counts as present.
    pub fn insert(&mut self, new: NewSession, now: Instant) -> Key {
        let NewSession { id, mark, path, remote, pass } = new;
        // Only who shows an id of ours comes back for more by necessity.
        let used = matches!(mark, Mark::Client { .. } | Mark::Cdn(_));
        let session = HlsSession {
            id,
            mark: mark.clone(),
            path,
            remote,
            traffic: Arc::default(),
            grant: None,
            last_request: now,
            held: 0,
            used,
            present: true,
            _pass: pass,
        };
        let key = self.slots.insert(session);
        self.marks.insert(mark, key);
        key
    }

    pub fn remove(&mut self, key: Key) -> Option<HlsSession> {
        let session = self.slots.remove(key)?;
        if self.marks.get(&session.mark) == Some(&key) {
            self.marks.remove(&session.mark);
        }
        Some(session)
    }

    /// A request of a session. True when it counts as present again by that.
    pub fn touch(&mut self, key: Key, is_index: bool, now: Instant) -> bool {
        let Some(session) = self.slots.get_mut(key) else { return false };
        session.last_request = now;
        session.used |= !is_index;
        !std::mem::replace(&mut session.present, true)
    }

    /// A request of a session is held, or not any more.
    pub fn hold(&mut self, key: Key, begins: bool, now: Instant) {
        let Some(session) = self.slots.get_mut(key) else { return };
        session.last_request = now;
        session.held = if begins { session.held + 1 } else { session.held.saturating_sub(1) };
    }

    pub fn is_present(&self, key: Key) -> bool {
        self.slots.get(key).is_some_and(|session| session.present)
    }

    /// What has become of a session by now. `target`: the Target Duration of what it watches.
    pub fn look_after(&mut self, key: Key, target: Duration, now: Instant) -> Option<Change> {
        let session = self.slots.get_mut(key)?;
        let idle = match session.held {
            0 => now.saturating_duration_since(session.last_request),
            _ => Duration::ZERO,
        };
        if !session.used && idle > UNUSED_MAX {
            return Some(Change::Over("asked for nothing but the multivariant playlist"));
        }
        if idle > IDLE_MAX.max(2 * target) {
            return Some(Change::Over("no request for 30 s"));
        }
        let present = idle <= PRESENCE_MIN.max(2 * target);
        let before = std::mem::replace(&mut session.present, present);
        (before != present).then_some(Change::Presence)
    }

    /// An operator has ended the session that had this id in its URLs.
    pub fn note_kicked(&mut self, url_id: &str, now: Instant) {
        self.kicked.retain(|(at, _)| now.saturating_duration_since(*at) <= KICKED_FOR);
        if self.kicked.len() == KICKED_MAX {
            self.kicked.pop_front();
        }
        self.kicked.push_back((now, url_id.to_owned()));
    }

    pub fn was_kicked(&self, url_id: &str, now: Instant) -> bool {
        let covers =
            |(at, id): &(Instant, String)| id == url_id && now.saturating_duration_since(*at) <= KICKED_FOR;
        self.kicked.iter().any(covers)
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use corecast_hub::quota::Quota;

    use super::*;

    const TARGET: Duration = Duration::from_secs(1);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn viewer(sessions: &mut Sessions, mark: Mark, now: Instant) -> Key {
        let pass = Quota::default().enter(None).unwrap();
        let remote = "192.0.2.1:1000".parse().unwrap();
        let new = NewSession { id: Uuid::nil(), mark, path: Key::from_bits(1), remote, pass };
        sessions.insert(new, now)
    }

    fn url_viewer(sessions: &mut Sessions, now: Instant) -> Key {
        viewer(sessions, Mark::Url("00ff".to_owned()), now)
    }

    #[test]
    fn a_viewer_that_asks_nothing_is_gone_after_10_s_and_over_after_30() {
        let (mut sessions, t0) = (Sessions::default(), Instant::now());
        let key = url_viewer(&mut sessions, t0);
        assert!(!sessions.touch(key, false, t0));
        assert_eq!(sessions.look_after(key, TARGET, t0 + seconds(10)), None);
        assert_eq!(sessions.look_after(key, TARGET, t0 + seconds(11)), Some(Change::Presence));
        assert!(!sessions.is_present(key));
        assert_eq!(sessions.look_after(key, TARGET, t0 + seconds(12)), None);
        assert!(sessions.touch(key, false, t0 + seconds(20)));
        assert!(sessions.is_present(key));
        let over = sessions.look_after(key, TARGET, t0 + seconds(51));
        assert!(matches!(over, Some(Change::Over(_))), "{over:?}");
    }

    #[test]
    fn long_segments_make_patient() {
        let (mut sessions, t0) = (Sessions::default(), Instant::now());
        let key = url_viewer(&mut sessions, t0);
        sessions.touch(key, false, t0);
        assert_eq!(sessions.look_after(key, seconds(8), t0 + seconds(16)), None);
        assert_eq!(sessions.look_after(key, seconds(8), t0 + seconds(17)), Some(Change::Presence));
    }

    #[test]
    fn who_is_kept_waiting_is_there() {
        let (mut sessions, t0) = (Sessions::default(), Instant::now());
        let key = url_viewer(&mut sessions, t0);
        sessions.touch(key, false, t0);
        sessions.hold(key, true, t0);
        assert_eq!(sessions.look_after(key, TARGET, t0 + seconds(60)), None);
        sessions.hold(key, false, t0 + seconds(60));
        assert_eq!(sessions.look_after(key, TARGET, t0 + seconds(70)), None);
        assert_eq!(sessions.look_after(key, TARGET, t0 + seconds(71)), Some(Change::Presence));
    }

    #[test]
    fn a_session_that_is_never_used_ends_early() {
        let (mut sessions, t0) = (Sessions::default(), Instant::now());
        let key = url_viewer(&mut sessions, t0);
        sessions.touch(key, true, t0);
        let over = sessions.look_after(key, TARGET, t0 + seconds(11));
        assert!(matches!(over, Some(Change::Over(_))), "{over:?}");
    }

    #[test]
    fn sessions_are_found_by_what_they_show_until_they_end() {
        let (mut sessions, t0) = (Sessions::default(), Instant::now());
        let client = |agent: &str| Mark::Client {
            path: Key::from_bits(1),
            ip: "192.0.2.1".parse().unwrap(),
            user_agent: agent.to_owned(),
        };
        let (url, walk_in) = (url_viewer(&mut sessions, t0), viewer(&mut sessions, client("curl"), t0));
        assert_eq!(sessions.find(&Mark::Url("00ff".to_owned())), Some(url));
        assert_eq!(sessions.find(&Mark::Secret("00ff".to_owned())), None);
        assert_eq!(sessions.find(&client("curl")), Some(walk_in));
        assert_eq!(sessions.find(&client("wget")), None);
        sessions.remove(url);
        assert_eq!(sessions.find(&Mark::Url("00ff".to_owned())), None);
        assert_eq!(sessions.len(), 1);
    }

    #[test]
    fn ids_of_kicked_sessions_are_refused_for_a_minute_and_only_so_many_are_kept() {
        let (mut sessions, t0) = (Sessions::default(), Instant::now());
        sessions.note_kicked("a", t0);
        assert!(sessions.was_kicked("a", t0 + seconds(60)));
        assert!(!sessions.was_kicked("b", t0));
        assert!(!sessions.was_kicked("a", t0 + seconds(61)));
        (0..2 * KICKED_MAX).for_each(|n| sessions.note_kicked(&n.to_string(), t0));
        assert_eq!(sessions.kicked.len(), KICKED_MAX);
    }

    #[test]
    fn a_grant_holds_for_the_same_credentials_and_half_a_minute() {
        let t0 = Instant::now();
        let grant = |header: Option<&'static str>, query: &str, at| Grant {
            authorization: header.map(HeaderValue::from_static),
            query: query.to_owned(),
            at,
        };
        let granted = grant(Some("Basic YTph"), "x=1", t0);
        assert!(granted.covers(&grant(Some("Basic YTph"), "x=1", t0 + seconds(30))));
        assert!(!granted.covers(&grant(Some("Basic YTph"), "x=1", t0 + seconds(31))));
        assert!(!granted.covers(&grant(Some("Basic YTpi"), "x=1", t0)));
        assert!(!granted.covers(&grant(None, "x=1", t0)));
        assert!(!granted.covers(&grant(Some("Basic YTph"), "", t0)));
    }
}
