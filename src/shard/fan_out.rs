//! How one becomes many: what was flushed goes to every reader of its path, in one batch per turn.

use std::{
    io,
    io::Write,
    ops::Range,
    os::fd::RawFd,
    time::{Duration, Instant},
};

use corecast_hub::cursor::Lapse;
use tracing::warn;

use super::{Kind, Shard, connection::Role, media_io::Errno, paths::Live, plain, slots::Key};
use crate::readers::{
    rtsp_tcp::TcpReader,
    rtsp_udp::{PACE_INTERVAL, UdpReader, group_runs},
};

/// A reader over TCP at its place in a shard.
pub struct TcpSeat {
    pub reader: TcpReader,
    pub connection: Key,
    pub path: Key,
    pub fd: RawFd,
    /// The last turn in which it got something: one send per turn.
    pub turn: u64,
}

/// A reader over UDP.
pub struct UdpSeat {
    pub reader: UdpReader,
    pub path: Key,
}

impl Shard {
    /// A send did not go out whole. Must be worked on before anything is received, while the bytes are still there.
    pub(super) fn on_unsent(&mut self, token: u64, sent: Result<usize, Errno>) {
        match (Kind::of(token), sent) {
            (Some((Kind::Connection, key)), Ok(sent)) => self.keep_rest(key, sent),
            (Some((Kind::Connection, key)), Err(error)) => {
                self.close(key, &io::Error::from(error).to_string());
            }
            (Some((Kind::UdpSeat, key)), sent) => {
                let Some(seat) = self.udp_seats.get_mut(key) else { return };
                seat.reader.dropped();
                if let Err(Errno(libc::EIO | libc::EINVAL | libc::EOPNOTSUPP)) = sent
                    && seat.reader.uses_gso()
                {
                    seat.reader.give_up_gso();
                    warn!("[RTSP] the way to a UDP reader takes no GSO: its packets are sent one by one");
                }
            }
            _ => {}
        }
    }

    fn keep_rest(&mut self, key: Key, sent: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Role::Playing { seat } = connection.role else { return };
        let Some(seat) = self.tcp_seats.get_mut(seat) else { return };
        let live = self.paths.get(seat.path).and_then(|path| path.live.as_ref());
        let Some(Live { publication, .. }) = live else { return };
        let rest = seat.reader.unsent(&publication.stream, sent, self.now.instant);
        connection.out.extend_from_slice(rest);
        self.await_room(key);
    }

    /// A reader's connection took everything: it goes on, after a jump if it was too slow.
    pub(super) fn resume_seat(&mut self, key: Key) {
        let Some(seat) = self.tcp_seats.get_mut(key) else { return };
        let Some(path) = self.paths.get(seat.path) else { return };
        let Some(live) = &path.live else { return };
        let lag_max = self.settings.engine.reader_lag_max;
        let lapse = seat.reader.unblock(&live.publication.stream, self.now.instant, lag_max);
        self.work.behind.push(key);
        if let Some(Lapse { behind, packets }) = lapse
            && let Some(connection) = self.connections.get(seat.connection)
        {
            warn!(
                "[RTSP] [conn {}] reader of path '{}' is too slow: {:.1} s behind, {packets} packets skipped, goes on \
                 at the next keyframe",
                plain(connection.peer),
                path.name,
                behind.as_secs_f64(),
            );
        }
    }

    /// Applies the flush rule, sends to all who get something, and waits for what happens next.
    ///
    /// # Errors
    /// When the media ring itself fails, which ends the shard.
    pub(super) fn send_and_wait(&mut self, wait: Option<Duration>) -> io::Result<()> {
        self.apply_flush_rule();
        let wait = if self.work.behind.is_empty() { wait } else { Some(Duration::ZERO) };
        self.send_remapped();
        let Self { io, paths, tcp_seats, udp_seats, ports, work, now, .. } = self;
        work.turn += 1;
        let mut batch = io.batch();
        let mut still_behind = std::mem::take(&mut work.keys);
        still_behind.clear();

        for &path in &work.flushed {
            let Some(live) = paths.get(path).and_then(|path| path.live.as_ref()) else { continue };
            let stream = &live.publication.stream;
            for &key in &live.tcp {
                let Some(seat) = tcp_seats.get_mut(key) else { continue };
                if seat.reader.is_blocked() || seat.reader.is_remapped() {
                    continue;
                }
                if let Some(bytes) = seat.reader.take(stream, now.instant) {
                    seat.turn = work.turn;
                    batch.send(seat.fd, Kind::Connection.token(seat.connection), bytes);
                    if seat.reader.has_more(stream) {
                        still_behind.push(key);
                    }
                }
            }
        }
        for &key in &work.behind {
            let Some(seat) = tcp_seats.get_mut(key) else { continue };
            if seat.reader.is_blocked() || seat.reader.is_remapped() || seat.turn == work.turn {
                continue;
            }
            let Some(live) = paths.get(seat.path).and_then(|path| path.live.as_ref()) else { continue };
            if let Some(bytes) = seat.reader.take(&live.publication.stream, now.instant) {
                seat.turn = work.turn;
                batch.send(seat.fd, Kind::Connection.token(seat.connection), bytes);
                if seat.reader.has_more(&live.publication.stream) {
                    still_behind.push(key);
                }
            }
        }
        if let Some(ports) = ports {
            let sockets = ports.sockets();
            let (ranges, runs) = (&mut work.ranges, &mut work.runs);
            for &path in &work.flushed {
                let Some(live) = paths.get(path).and_then(|path| path.live.as_ref()) else { continue };
                if live.udp.is_empty() {
                    continue;
                }
                let stream = &live.publication.stream;
                // Live readers all stand at the same place: what goes to one is grouped once for all.
                let mut grouped: Option<(Range<u64>, bool)> = None;
                for &key in &live.udp {
                    let Some(seat) = udp_seats.get_mut(key) else { continue };
                    if seat.reader.is_pacing() {
                        continue;
                    }
                    let Some(range) = seat.reader.take_live(stream, now.instant) else { continue };
                    let gso = seat.reader.uses_gso();
                    if grouped.as_ref() != Some(&(range.clone(), gso)) {
                        let Some(bytes) = stream.get(range.clone()) else { continue };
                        group_runs(bytes, |_| true, gso, &mut batch, ranges, runs);
                        grouped = Some((range, gso));
                    }
                    seat.reader.send(&mut batch, &sockets, Kind::UdpSeat.token(key), runs);
                }
            }
            work.pacing.retain(|&key| {
                let Some(seat) = udp_seats.get_mut(key) else { return false };
                let Some(live) = paths.get(seat.path).and_then(|path| path.live.as_ref()) else {
                    return false;
                };
                let stream = &live.publication.stream;
                if let Some(range) = seat.reader.take_paced(stream, now.instant)
                    && let Some(bytes) = stream.get(range)
                {
                    let gso = seat.reader.uses_gso();
                    group_runs(bytes, |_| true, gso, &mut batch, ranges, runs);
                    seat.reader.send(&mut batch, &sockets, Kind::UdpSeat.token(key), runs);
                }
                seat.reader.is_pacing()
            });
        }
        work.flushed.clear();
        std::mem::swap(&mut work.behind, &mut still_behind);
        work.keys = still_behind;
        let wait = if work.behind.is_empty() { wait } else { Some(Duration::ZERO) };
        batch.submit_and_wait(wait, &mut work.events)
    }

    fn apply_flush_rule(&mut self) {
        let now = self.now.instant;
        let Self { work, paths, .. } = self;
        work.unflushed.retain(|&key| {
            let Some(live) = paths.get_mut(key).and_then(|path| path.live.as_mut()) else { return false };
            if live.publication.stream.flush_deadline().is_some_and(|deadline| deadline <= now)
                && !std::mem::replace(&mut live.dirty, true)
            {
                work.dirty.push(key);
            }
            live.unflushed = live.publication.stream.flush_deadline().is_some();
            live.unflushed
        });
        for key in work.dirty.drain(..) {
            let Some(live) = paths.get_mut(key).and_then(|path| path.live.as_mut()) else { continue };
            live.dirty = false;
            let stream = &mut live.publication.stream;
            if stream.flush(now) {
                work.flushed.push(key);
            }
            if stream.flush_deadline().is_some() && !std::mem::replace(&mut live.unflushed, true) {
                work.unflushed.push(key);
            }
        }
    }

    /// Readers that want other channels, or not all tracks, get a copy of their own: the slower, correct way.
    fn send_remapped(&mut self) {
        let mut keys = std::mem::take(&mut self.work.keys);
        keys.clear();
        let remapped = |key: &Key| {
            self.tcp_seats
                .get(*key)
                .is_some_and(|seat| seat.reader.is_remapped() && !seat.reader.is_blocked())
        };
        keys.extend(self.work.behind.iter().copied().filter(remapped));
        for &path in &self.work.flushed {
            if let Some(live) = self.paths.get(path).and_then(|path| path.live.as_ref()) {
                keys.extend(live.tcp.iter().copied().filter(remapped));
            }
        }
        let mut copy = std::mem::take(&mut self.work.copy);
        for &key in &keys {
            let Some(seat) = self.tcp_seats.get_mut(key) else { continue };
            if seat.reader.is_blocked() {
                continue;
            }
            let (connection_key, path) = (seat.connection, seat.path);
            let Some(live) = self.paths.get(path).and_then(|path| path.live.as_ref()) else { continue };
            let Some(connection) = self.connections.get_mut(connection_key) else { continue };
            copy.clear();
            if !seat.reader.copy_next(&live.publication.stream, self.now.instant, &mut copy) {
                continue;
            }
            let more = seat.reader.has_more(&live.publication.stream);
            let sent = match (&connection.socket).write(&copy) {
                Ok(sent) => sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => {
                    self.close(connection_key, &error.to_string());
                    continue;
                }
            };
            if sent < copy.len() {
                connection.out.extend_from_slice(&copy[sent..]);
                seat.reader.block(&live.publication.stream, self.now.instant);
                self.await_room(connection_key);
            } else if more {
                self.work.behind.push(key);
            }
        }
        self.work.copy = copy;
        self.work.keys = keys;
    }

    /// When the fan-out has something to do although nothing happens.
    pub(super) fn fan_out_deadline(&self) -> Option<Instant> {
        let flush = self
            .work
            .unflushed
            .iter()
            .filter_map(|&key| self.paths.get(key)?.live.as_ref()?.publication.stream.flush_deadline());
        let pace = (!self.work.pacing.is_empty()).then(|| self.now.instant + PACE_INTERVAL);
        flush.chain(pace).min()
    }
}
