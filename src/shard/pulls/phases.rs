//! What takes too long is ended, what waits goes on.
//!
//! Each of reaching the source, DESCRIBE, SETUP, PLAY and the first packet may take `readTimeout`, and so long may a
//! source that runs be silent; RTCP counts as life. A source over UDP, when TCP may be tried too, has [`UDP_PATIENCE`] for
//! its first packet. Waiting for a turn has no limit of its own: the dials before it have theirs. The first key picture is
//! measured and not waited for: some cameras take minutes.

use std::{io, time::Duration};

use corecast_hub::gauges::PullPhase;
use tracing::warn;

use super::{State, TURN_MAX, Turn, connection::Stage, media::Flow};
use crate::shard::{Shard, paths::Origin, slots::Key};

/// As MediaMTX (contract §4.7).
const UDP_PATIENCE: Duration = Duration::from_secs(3);
/// Nothing of a pull is looked after less often than this.
const INTERVAL: Duration = Duration::from_secs(1);
/// A source is told this often how its packets arrive (contract §4.7).
const RECEPTION_INTERVAL: Duration = Duration::from_secs(5);

impl Shard {
    /// Looks after all pulls, if something is due.
    pub(in crate::shard) fn run_pulls(&mut self) {
        let now = self.now.instant;
        if self.work.pulls_due.is_none_or(|due| due > now) {
            return;
        }
        self.work.pulls_due = (!self.pulls.is_empty()).then_some(now + INTERVAL);
        let mut keys = std::mem::take(&mut self.work.keys);
        self.pulls.keys_into(&mut keys);
        for &key in &keys {
            self.look_after_pull(key);
        }
        self.work.keys = keys;
    }

    fn look_after_pull(&mut self, key: Key) {
        let now = self.now.instant;
        let Some(pull) = self.pulls.get_mut(key) else { return };
        if let Turn::Held { since } = pull.turn {
            match since + TURN_MAX {
                until if until <= now => self.give_back_turn(key),
                until => self.pulls_due_by(until),
            }
        }
        self.check_grace(key);
        let Some(pull) = self.pulls.get(key) else { return };
        match pull.state {
            State::Paused { until } if until <= now => self.try_pull(key),
            State::Paused { until } => self.pulls_due_by(until),
            State::Queued { .. } => {}
            State::Connected(connection) => self.look_after_connection(connection),
        }
    }

    /// Readers that waited for the source to come back have waited long enough.
    fn check_grace(&mut self, key: Key) {
        let Some(pull) = self.pulls.get_mut(key) else { return };
        let Some(until) = pull.kept_until else { return };
        let flows = match pull.state {
            State::Connected(connection) => {
                let connection = self.pull_connections.get(connection);
                connection.is_some_and(|connection| !matches!(connection.flow, Flow::None))
            }
            State::Paused { .. } | State::Queued { .. } => false,
        };
        if until > self.now.instant {
            self.pulls_due_by(until);
        } else if !flows {
            pull.kept_until = None;
            let path = pull.path;
            self.end_own_stream(path, key, "the source did not come back within sourceReconnectGrace");
            self.pull_failed(path);
        }
    }

    fn look_after_connection(&mut self, key: Key) {
        let now = self.now.instant;
        let patience = self.settings.read_timeout;
        let Some(connection) = self.pull_connections.get_mut(key) else { return };
        if let Stage::Connecting { give_up, .. } = connection.stage {
            if give_up > now {
                return self.pulls_due_by(give_up);
            }
            return self.connect_elsewhere(key, &io::ErrorKind::TimedOut.into());
        }
        if let Some(client) = connection.client()
            && let Some(due) = client.poll_timeout()
        {
            if due <= now {
                client.on_timeout(now);
                self.flush_pull(key);
            } else {
                self.pulls_due_by(due);
            }
        }
        self.report_noise(key);
        let Some(connection) = self.pull_connections.get(key) else { return };
        match connection.phase {
            PullPhase::FirstPacket => self.check_first_packet(key),
            PullPhase::FirstKey | PullPhase::Running => self.check_silence(key),
            _ if connection.since + patience <= now => {
                let reason = connection.instead("readTimeout has passed");
                self.fail_connection(key, &reason);
            }
            _ => {}
        }
    }

    fn check_first_packet(&mut self, key: Key) {
        let now = self.now.instant;
        let Some(connection) = self.pull_connections.get(key) else { return };
        let (pull_key, since) = (connection.pull, connection.since);
        let Some(pull) = self.pulls.get(pull_key) else { return };
        let may_change = matches!(connection.flow, Flow::Udp(_)) && pull.may_change_to_tcp(&connection.url);
        if may_change && since + UDP_PATIENCE <= now {
            return self.pull_over_tcp(pull_key);
        }
        if since + self.settings.read_timeout <= now {
            let reason = connection.instead("readTimeout has passed");
            return self.fail_connection(key, &reason);
        }
        if may_change {
            self.pulls_due_by(since + UDP_PATIENCE);
        }
    }

    fn check_silence(&mut self, key: Key) {
        let now = self.now.instant;
        let Some(connection) = self.pull_connections.get_mut(key) else { return };
        let live = self.paths.get(connection.path).and_then(|path| path.live.as_ref());
        let live = live.filter(|live| live.origin == Origin::Pull(connection.pull));
        let Some(live) = live else {
            return self.fail_connection(key, "its path has another stream");
        };
        let packets = live.publication.tracks.inbound.packets();
        if std::mem::replace(&mut connection.packets_seen, packets) != packets {
            connection.heard = now;
        } else if connection.heard + self.settings.read_timeout <= now {
            return self.fail_connection(key, "no packets within readTimeout");
        }
        if connection.reports_due <= now {
            connection.reports_due = now + RECEPTION_INTERVAL;
            self.report_to_source(key);
        }
    }

    fn report_noise(&mut self, key: Key) {
        let Some(connection) = self.pull_connections.get(key) else { return };
        let Some(pull) = self.pulls.get_mut(connection.pull) else { return };
        let skipped = pull.noise_bytes + connection.noise.bytes;
        // Ever more seldom: a source that is like that will stay so. One that says nothing else fails for it.
        if skipped >= 2 * pull.noise_told.max(1) && connection.phase > PullPhase::Describe {
            warn!(
                "[path {}] [RTSP source] {skipped} bytes skipped that are neither packets nor messages",
                pull.name
            );
            pull.noise_told = skipped;
        }
    }
}
