//! What HTTP connections are looked at for once a second: who keeps us waiting.

use std::time::{Duration, Instant};

use super::{
    Web,
    connection::{State, WebConnection},
    visit::{Guest, Stage},
};
use crate::shard::media_io::MediaIo;

/// A connection without a request is closed after this (contract §8).
const IDLE_MAX: Duration = Duration::from_secs(30);

/// What becomes of a connection.
enum Fate {
    Stays,
    /// It has nothing to do any more.
    Ends,
    Closes(&'static str),
}

impl Web {
    /// One round. `read` and `write` are how long a client may take for a request, and without taking any of an answer.
    pub fn check(&mut self, io: &mut MediaIo, read: Duration, write: Duration) {
        self.try_accepting();
        let limits = Limits { now: self.lobby.now(), read, write };
        let mut keys = Vec::new();
        self.connections.keys_into(&mut keys);
        for key in keys {
            let Some(connection) = self.connections.get(key) else { continue };
            match limits.judge(connection) {
                Fate::Stays => {}
                Fate::Ends => self.end_gracefully(key),
                Fate::Closes(reason) => self.close(io, key, reason),
            }
        }
    }
}

struct Limits {
    now: Instant,
    read: Duration,
    write: Duration,
}

impl Limits {
    fn is_late(&self, since: Instant, most: Duration) -> bool {
        self.now.duration_since(since) > most
    }

    fn judge(&self, connection: &WebConnection) -> Fate {
        let link = &connection.link;
        match &connection.state {
            State::Handshaking if self.is_late(connection.opened, self.read) => {
                Fate::Closes("no TLS handshake within readTimeout")
            }
            State::Peeking if self.is_late(connection.opened, self.read) => {
                Fate::Closes("no request within readTimeout")
            }
            State::Handshaking | State::Peeking | State::AwaitingHome => Fate::Stays,
            State::Lingering { until } if *until <= self.now => Fate::Closes("did not close"),
            State::Lingering { .. } => Fate::Stays,
            State::Serving { .. }
                if link.stuck_since.get().is_some_and(|at| self.is_late(at, self.write)) =>
            {
                Fate::Closes("nothing could be written within writeTimeout")
            }
            State::Serving { guest, .. } if guest.is_idle() => self.judge_idle(connection, guest),
            State::Serving { guest, .. } => {
                let late = |stage| match stage {
                    Stage::Arriving { since } => self.is_late(since, self.read),
                    Stage::Waiting => false,
                    Stage::Sending { moved_at } => {
                        self.is_late(moved_at, self.write) && self.is_late(link.wrote_at.get(), self.write)
                    }
                };
                match guest.any_stage(late) {
                    true => Fate::Closes("a request or its answer made no progress in time"),
                    false => Fate::Stays,
                }
            }
        }
    }

    /// Between requests.
    fn judge_idle(&self, connection: &WebConnection, guest: &Guest) -> Fate {
        let arriving = connection.link.request_since.get();
        match guest.answered_at.get() {
            None if self.is_late(connection.opened, self.read) => {
                Fate::Closes("no request within readTimeout")
            }
            Some(at) if self.is_late(at, IDLE_MAX + self.write) => Fate::Closes("idle"),
            Some(at) if self.is_late(at, IDLE_MAX) => Fate::Ends,
            // Over HTTP/2 something may come at any time that is no request.
            Some(_) if connection.speaks_http2() => Fate::Stays,
            Some(_) if arriving.is_some_and(|since| self.is_late(since, self.read)) => {
                Fate::Closes("a request did not arrive within readTimeout")
            }
            None | Some(_) => Fate::Stays,
        }
    }
}
