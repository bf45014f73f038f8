//! What a shard looks after once a second: who is silent, who is stuck, who has to be told the time.

use std::time::Duration;

use corecast_hub::roster::Slowness;
use tracing::warn;

use super::{
    Kind, Mail, Shard,
    connection::Phase,
    media_io::thread_cpu_time,
    paths::Origin,
    plain,
    sessions::{Flow, UDP_READER_SILENCE_MAX},
};

/// How often.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// A connection without a session may be silent this long after a request (contract §4.5).
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Publishers over UDP are told how their packets arrive every so many rounds (contract §4.6).
const RECEPTION_ROUNDS: u64 = 10;

impl Shard {
    /// One round, if it is due.
    pub(super) fn upkeep(&mut self) {
        let now = self.now.instant;
        if self.work.next_upkeep.is_some_and(|at| at > now) {
            return;
        }
        self.work.next_upkeep = Some(now + INTERVAL);
        self.work.upkeep_round += 1;
        if std::mem::take(&mut self.work.accept_stalled) {
            self.accept(Kind::Listener);
            self.accept(Kind::TlsListener);
        }
        self.check_connections();
        self.check_web();
        self.check_hls();
        self.check_sessions();
        self.check_seats();
        self.look_after_publications();
        self.forget_stopped_pulls();
        self.measure();
    }

    fn check_connections(&mut self) {
        let now = self.now.instant;
        let mut keys = std::mem::take(&mut self.work.keys);
        self.connections.keys_into(&mut keys);
        for &key in &keys {
            let Some(connection) = self.connections.get(key) else { continue };
            let silent = now.duration_since(connection.last_heard);
            let tls = connection.tls.as_ref();
            if tls
                .and_then(|tls| tls.handshaking_for(now))
                .is_some_and(|time| time > self.settings.read_timeout)
            {
                self.close(key, "no TLS handshake within readTimeout");
                continue;
            }
            self.count_connection(key);
            match connection.phase {
                Phase::Lingering { until } if until <= now => self.drop_connection(key),
                Phase::Lingering { .. } => {}
                Phase::AwaitingVerdict { since } => self.check_verdict(key, since),
                // Its path looks after it.
                Phase::AwaitingStream(_) => {}
                Phase::AwaitingHome | Phase::Open if connection.session.is_some() => {}
                // A client that never says anything is not waited for.
                Phase::AwaitingHome | Phase::Open if !connection.spoke => {
                    if silent > self.settings.read_timeout {
                        self.close(key, "no request within readTimeout");
                    }
                }
                Phase::AwaitingHome | Phase::Open => {
                    if silent > IDLE_MAX {
                        self.close(key, "idle for 60 s");
                    }
                }
            }
        }
        self.work.keys = keys;
    }

    fn check_sessions(&mut self) {
        let now = self.now.instant;
        let read_timeout = self.settings.read_timeout;
        let mut keys = std::mem::take(&mut self.work.keys);
        self.sessions.keys_into(&mut keys);
        for &key in &keys {
            let Some(entry) = self.sessions.get(key) else { continue };
            let silent = now.duration_since(entry.last_heard);
            let reason = match &entry.flow {
                Flow::TcpPublisher => {
                    let connection = entry.connection.and_then(|connection| self.connections.get(connection));
                    let silent = connection.map(|connection| now.duration_since(connection.last_heard));
                    (silent > Some(read_timeout)).then_some("no packets within readTimeout")
                }
                Flow::UdpPublisher(_) => (silent > read_timeout).then_some("no packets within readTimeout"),
                Flow::UdpReader(_) => {
                    (silent > UDP_READER_SILENCE_MAX).then_some("neither a request nor RTCP for 110 s")
                }
                // Its connection is open; a peer that takes nothing is found by writeTimeout.
                Flow::TcpReader(_) => None,
                Flow::None if entry.connection.is_none() => Some("its connection is gone"),
                Flow::None => (silent > UDP_READER_SILENCE_MAX).then_some("set up but not used for 110 s"),
            };
            if let Some(reason) = reason {
                self.end_session_and_connection(key, reason);
            }
        }
        self.work.keys = keys;
    }

    fn check_seats(&mut self) {
        let now = self.now.instant;
        let mut keys = std::mem::take(&mut self.work.keys);
        self.tcp_seats.keys_into(&mut keys);
        for &key in &keys {
            let Some(seat) = self.tcp_seats.get(key) else { continue };
            let stuck = seat.reader.blocked_for(now);
            if stuck <= self.settings.write_timeout {
                continue;
            }
            let (connection, path, session) = (seat.connection, seat.path, seat.seating.session);
            if let (Some(path), Some(connection)) = (self.paths.get(path), self.connections.get(connection)) {
                warn!(
                    "[{}] [conn {}] reader of path '{}' took nothing for {:.1} s: closed",
                    connection.server(),
                    plain(connection.peer),
                    path.name,
                    stuck.as_secs_f64(),
                );
            }
            self.tell_slow(session, path, Slowness::Closed, 0, 0);
            self.close(connection, "nothing could be written within writeTimeout");
        }
        self.work.keys = keys;
    }

    fn look_after_publications(&mut self) {
        let now = self.now;
        let mut keys = std::mem::take(&mut self.work.keys);
        self.paths.keys_into(&mut keys);
        for &key in &keys {
            self.count_stream(key);
            self.tell_tracks(key);
            let Some(path) = self.paths.get_mut(key) else { continue };
            let Some(live) = &mut path.live else { continue };
            if live.publication.report_time(now) {
                live.mark_dirty(key, &mut self.work.dirty);
            }
            if live.publication.stream.take_gop_too_large() {
                warn!(
                    "[path {}] a GOP is larger than engine.ringMax ({} bytes): new readers wait for the next \
                     keyframe; raise engine.ringMax, or shorten the camera's keyframe interval",
                    path.name, self.settings.engine.ring_bytes_max
                );
            }
            let (lost, errors) =
                (live.publication.tracks.lost(), live.publication.tracks.inbound.packets_in_error);
            if let Some(lost) = live.lost_told.tell(lost, now.instant) {
                warn!("[path {}] {lost} RTP packets lost", path.name);
            }
            if let Some(errors) = live.errors_told.tell(errors, now.instant) {
                warn!("[path {}] {errors} packets that are no RTP", path.name);
            }
        }
        if self.work.upkeep_round.is_multiple_of(RECEPTION_ROUNDS) {
            self.udp_sources.keys_into(&mut keys);
            for &key in &keys {
                let Some(source) = self.udp_sources.get_mut(key) else { continue };
                if matches!(source.owner, Origin::Pull(_)) {
                    continue;
                }
                let live = self.paths.get_mut(source.path).and_then(|path| path.live.as_mut());
                if let Some(live) = live {
                    source.track.report_reception(&mut live.publication, now.instant);
                }
            }
        }
        self.work.keys = keys;
    }

    /// Tells the control thread how busy this core is, by which new paths are placed.
    fn measure(&mut self) {
        let spent = thread_cpu_time();
        let used = spent.saturating_sub(self.work.cpu_at_upkeep);
        self.work.cpu_at_upkeep = spent;
        let permille = (used.as_micros() / INTERVAL.as_millis()) as u64;
        self.show_gauges(permille, spent);
        if self.has_other_shards() {
            let control = self.control();
            self.mesh.send(control, Mail::Load { permille });
        }
    }
}
