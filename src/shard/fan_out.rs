//! How one becomes many: what was flushed goes to every reader of its path, in one batch per turn.

use std::{
    io,
    ops::Range,
    os::fd::RawFd,
    sync::Arc,
    time::{Duration, Instant},
};

use corecast_hub::{
    cursor::Lapse,
    roster::{SessionTraffic, Slowness},
};
use corecast_proto::rtp::header::FIXED_LENGTH;
use tracing::{info, warn};

use super::{
    Kind, Shard, clock,
    connection::Role,
    datagrams::SharedPorts,
    media_io::{Errno, MediaIo},
    paths::{Live, Path},
    plain,
    slots::{Key, Slots},
};
use crate::readers::{
    Outbound,
    rtsp_tcp::TcpReader,
    rtsp_udp::{PACE_INTERVAL, Run, Sockets, UdpReader, group_runs, oversize_channels},
    whole_packets,
};

/// A reader that is too slow is named this often at most.
const LAPSE_INTERVAL: Duration = Duration::from_secs(1);
/// Packets of their own for UDP readers are sent when they come to this, bytes.
const REWRITTEN_BYTES: usize = 256 * 1024;

/// Why a reader is closed whose packet can neither be finished nor left out.
const OVERWRITTEN: &str = "its place was overwritten in the middle of a packet";

/// A reader over TCP at its place in a shard.
pub struct TcpSeat {
    pub reader: TcpReader,
    pub connection: Key,
    pub path: Key,
    pub seating: Seating,
    pub fd: RawFd,
    /// Its connection is; the stream's bytes cannot go out as they are.
    pub encrypted: bool,
    /// The last turn in which it got something: one send per turn.
    pub turn: u64,
    /// When the log last named it as too slow.
    pub lapse_told: Option<Instant>,
}

/// A reader over UDP.
pub struct UdpSeat {
    pub reader: UdpReader,
    pub path: Key,
    pub seating: Seating,
}

/// What a reader's seat knows of its session.
pub struct Seating {
    pub session: Key,
    /// What the session was sent before it took this seat.
    pub before: Outbound,
    pub traffic: Arc<SessionTraffic>,
    /// When it asked for media, until it gets some.
    pub asked: Option<Instant>,
}

/// What UDP readers get that need packets of their own; buffers are kept from turn to turn.
#[derive(Default)]
pub struct Rewriting {
    /// Who gets what of its stream in this turn.
    due: Vec<(Key, Range<u64>)>,
    /// Packets ready to be sent, and whose they are.
    bytes: Vec<u8>,
    pieces: Vec<(Key, Range<usize>)>,
    /// One packet.
    pub packet: Vec<u8>,
}

impl Rewriting {
    /// Sends what is ready.
    fn submit(
        &mut self,
        io: &mut MediaIo,
        seats: &mut Slots<UdpSeat>,
        sockets: &Sockets,
        payload_max: usize,
        ranges: &mut Vec<Range<usize>>,
        runs: &mut Vec<Run>,
    ) -> io::Result<()> {
        let mut batch = io.batch();
        for (key, piece) in self.pieces.drain(..) {
            let Some(seat) = seats.get_mut(key) else { continue };
            group_runs(&self.bytes[piece], seat.reader.uses_gso(), payload_max, &mut batch, ranges, runs);
            seat.reader.send(&mut batch, sockets, Kind::UdpSeat.token(key), runs);
        }
        batch.submit()?;
        self.bytes.clear();
        Ok(())
    }
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
        match seat.reader.unsent(&publication.stream, sent, self.now.instant) {
            Some(rest) => {
                connection.out.extend_from_slice(rest);
                self.await_room(key);
            }
            None => self.close(key, OVERWRITTEN),
        }
    }

    /// A reader's connection took everything: it goes on, after a jump if it was too slow.
    pub(super) fn resume_seat(&mut self, key: Key) {
        let Some(seat) = self.tcp_seats.get_mut(key) else { return };
        let Some(live) = self.paths.get(seat.path).and_then(|path| path.live.as_ref()) else { return };
        seat.reader.unblock(&live.publication.stream, self.now.instant, self.settings.engine.reader_lag_max);
        self.work.behind.push(key);
    }

    fn tell_of_lapse(&self, seat: &TcpSeat, Lapse { behind, packets }: Lapse) {
        let (Some(path), Some(connection)) =
            (self.paths.get(seat.path), self.connections.get(seat.connection))
        else {
            return;
        };
        warn!(
            "[{}] [conn {}] reader of path '{}' is too slow: {:.1} s behind, {packets} packets skipped, goes on at \
             the next keyframe",
            connection.server(),
            plain(connection.peer),
            path.name,
            behind.as_secs_f64(),
        );
    }

    /// Applies the flush rule, sends to all who get something, and waits for what happens next.
    ///
    /// # Errors
    /// When the media ring itself fails, which ends the shard.
    pub(super) fn send_and_wait(&mut self, wait: Option<Duration>) -> io::Result<()> {
        self.apply_flush_rule();
        self.work.turn += 1;
        self.list_due_seats();
        let Self { io, paths, tcp_seats, udp_seats, ports, work, now, settings, gauges, hls, .. } = self;
        let mut batch = io.batch();
        for &key in &work.due {
            let Some(seat) = tcp_seats.get_mut(key) else { continue };
            let Some(live) = paths.get(seat.path).and_then(|path| path.live.as_ref()) else { continue };
            let stream = &live.publication.stream;
            if let Some(bytes) = seat.reader.take(stream, now.instant) {
                batch.send(seat.fd, Kind::Connection.token(seat.connection), bytes);
                work.plays.extend(seat.seating.asked.take());
                if seat.reader.has_more(stream) {
                    work.behind.push(key);
                }
            }
            if seat.reader.has_lapsed() {
                work.lapsed.push(key);
            }
        }
        if let Some(ports) = ports {
            let sockets = ports.sockets();
            let payload_max = usize::from(settings.udp_payload_bytes_max);
            let (ranges, runs) = (&mut work.ranges, &mut work.runs);
            for &path in &work.flushed {
                let Some(live) = paths.get(path).and_then(|path| path.live.as_ref()) else { continue };
                let (stream, tracks) = (&live.publication.stream, &live.publication.tracks);
                // Live readers all stand at the same place: what goes to one is looked at and grouped once for all.
                let mut looked_at: Option<(Range<u64>, u128)> = None;
                let mut grouped: Option<(Range<u64>, bool)> = None;
                for &key in &live.udp {
                    let Some(seat) = udp_seats.get_mut(key) else { continue };
                    if seat.reader.is_pacing() {
                        continue;
                    }
                    let Some(range) = seat.reader.take_live(stream, now.instant) else { continue };
                    work.plays.extend(seat.seating.asked.take());
                    let oversize = match &looked_at {
                        Some((of, oversize)) if *of == range => *oversize,
                        _ => {
                            let bytes = stream.get(range.clone()).unwrap_or_default();
                            let oversize = oversize_channels(bytes, tracks, payload_max);
                            looked_at = Some((range.clone(), oversize));
                            oversize
                        }
                    };
                    if seat.reader.needs_rewrite(oversize) {
                        work.rewriting.due.push((key, range));
                        continue;
                    }
                    let gso = seat.reader.uses_gso();
                    if grouped.as_ref() != Some(&(range.clone(), gso)) {
                        let bytes = stream.get(range.clone()).unwrap_or_default();
                        group_runs(bytes, gso, payload_max, &mut batch, ranges, runs);
                        grouped = Some((range, gso));
                    }
                    seat.reader.send(&mut batch, &sockets, Kind::UdpSeat.token(key), runs);
                }
            }
            work.paces = false;
            work.pacing.retain(|&key| {
                let Some(seat) = udp_seats.get_mut(key) else { return false };
                let Some(live) = paths.get(seat.path).and_then(|path| path.live.as_ref()) else {
                    return false;
                };
                let (stream, tracks) = (&live.publication.stream, &live.publication.tracks);
                if let Some(range) = seat.reader.take_paced(stream, now.instant) {
                    work.plays.extend(seat.seating.asked.take());
                    let bytes = stream.get(range.clone()).unwrap_or_default();
                    if seat.reader.needs_rewrite(oversize_channels(bytes, tracks, payload_max)) {
                        work.rewriting.due.push((key, range));
                    } else {
                        group_runs(bytes, seat.reader.uses_gso(), payload_max, &mut batch, ranges, runs);
                        seat.reader.send(&mut batch, &sockets, Kind::UdpSeat.token(key), runs);
                    }
                }
                work.paces |= seat.reader.paces(stream);
                seat.reader.is_pacing()
            });
        }
        work.flushed.clear();
        if !work.arrivals.is_empty() || !work.plays.is_empty() {
            let sent = clock::instant();
            let us = |since: Instant| sent.saturating_duration_since(since).as_micros() as u64;
            work.arrivals.drain(..).for_each(|arrival| gauges.relay_latency.observe_us(us(arrival)));
            work.plays.drain(..).for_each(|asked| gauges.first_media.observe_us(us(asked)));
        }
        let mut wait = wait;
        if !work.behind.is_empty() {
            wait = Some(Duration::ZERO);
        } else if work.paces {
            wait = Some(wait.map_or(PACE_INTERVAL, |wait| wait.min(PACE_INTERVAL)));
        }
        if work.rewriting.due.is_empty() && work.single.is_empty() && !hls.has_work() {
            batch.submit_and_wait(wait, &mut work.events)?;
        } else {
            // Those who need more work do not keep the others waiting.
            batch.submit()?;
            self.send_rewritten()?;
            self.send_singly();
            let answers = self.feed_muxers();
            if answers {
                self.run_web();
            }
            let busy = answers || !self.work.behind.is_empty() || self.hls.has_work();
            let wait = if busy { Some(Duration::ZERO) } else { wait };
            self.io.wait(wait, &mut self.work.events)?;
        }
        self.tell_of_lapses();
        Ok(())
    }

    /// UDP readers of packets that are too long for a datagram get copies, cut and numbered on: the slower, correct
    /// way, and so many bytes at a time that memory stays small.
    fn send_rewritten(&mut self) -> io::Result<()> {
        let Self { io, paths, udp_seats, ports, work, settings, .. } = self;
        let (rewriting, ranges, runs) = (&mut work.rewriting, &mut work.ranges, &mut work.runs);
        let mut due = std::mem::take(&mut rewriting.due);
        let payload_max = usize::from(settings.udp_payload_bytes_max);
        let Some(sockets) = ports.as_ref().map(SharedPorts::sockets) else { return Ok(()) };
        for (key, range) in due.drain(..) {
            let Some(path) = udp_seats.get(key).and_then(|seat| paths.get_mut(seat.path)) else { continue };
            let Path { name, live: Some(live), .. } = path else { continue };
            let tracks = &live.publication.tracks;
            let mut rest = live.publication.stream.get(range).unwrap_or_default();
            loop {
                let (packets, after) = rest.split_at(whole_packets(rest, REWRITTEN_BYTES));
                let Some(seat) = udp_seats.get_mut(key).filter(|_| !packets.is_empty()) else { break };
                rest = after;
                let start = rewriting.bytes.len();
                let (packet, out) = (&mut rewriting.packet, &mut rewriting.bytes);
                let cut = seat.reader.rewrite(packets, tracks, payload_max, packet, out);
                rewriting.pieces.push((key, start..rewriting.bytes.len()));
                if let Some(bytes) = cut
                    && !std::mem::replace(&mut live.oversize_told, true)
                {
                    // MediaMTX's line, which counts payloads.
                    let (is, may_be) = (bytes - FIXED_LENGTH, payload_max - FIXED_LENGTH);
                    info!(
                        "[path {name}] RTP packets are too big ({is} > {may_be}), remuxing them into \
                         smaller ones"
                    );
                }
                if rewriting.bytes.len() >= REWRITTEN_BYTES {
                    rewriting.submit(io, udp_seats, &sockets, payload_max, ranges, runs)?;
                }
            }
        }
        rewriting.due = due;
        rewriting.submit(io, udp_seats, &sockets, payload_max, ranges, runs)
    }

    /// Collects the readers over TCP that get something in this turn, each once: one send per socket and batch.
    fn list_due_seats(&mut self) {
        let Self { work, paths, tcp_seats, .. } = self;
        work.due.clear();
        work.single.clear();
        let behind = work.behind.drain(..);
        let live = work.flushed.iter().filter_map(|&path| paths.get(path)?.live.as_ref());
        for key in live.flat_map(|live| live.tcp.iter().copied()).chain(behind) {
            let Some(seat) = tcp_seats.get_mut(key) else { continue };
            if seat.reader.is_blocked() || std::mem::replace(&mut seat.turn, work.turn) == work.turn {
                continue;
            }
            let single = seat.encrypted || seat.reader.is_remapped();
            if single { &mut work.single } else { &mut work.due }.push(key);
        }
    }

    fn tell_of_lapses(&mut self) {
        while let Some(key) = self.work.lapsed.pop() {
            let now = self.now.instant;
            let Some(seat) = self.tcp_seats.get_mut(key) else { continue };
            let Some(lapse) = seat.reader.take_lapse() else { continue };
            if seat.lapse_told.is_some_and(|told| now.duration_since(told) < LAPSE_INTERVAL) {
                continue;
            }
            seat.lapse_told = Some(now);
            let (session, path) = (seat.seating.session, seat.path);
            if let Some(seat) = self.tcp_seats.get(key) {
                self.tell_of_lapse(seat, lapse);
            }
            let behind_ms = lapse.behind.as_millis() as u64;
            self.tell_slow(session, path, Slowness::Skipped, behind_ms, lapse.packets);
        }
    }

    fn apply_flush_rule(&mut self) {
        let now = self.now.instant;
        let Self { work, paths, hls, .. } = self;
        work.unflushed.retain(|&key| {
            let Some(live) = paths.get_mut(key).and_then(|path| path.live.as_mut()) else { return false };
            if live.publication.stream.flush_deadline().is_some_and(|deadline| deadline <= now) {
                live.mark_dirty(key, &mut work.dirty);
            }
            live.unflushed = live.publication.stream.flush_deadline().is_some();
            live.unflushed
        });
        for key in work.dirty.drain(..) {
            let Some(Path { live: Some(live), hls: muxer, .. }) = paths.get_mut(key) else { continue };
            live.dirty = false;
            let stream = &mut live.publication.stream;
            let arrival = stream.unflushed_since();
            if stream.flush(now) {
                work.flushed.push(key);
                if let Some(muxer) = *muxer {
                    hls.mark_due(muxer);
                }
                if !(live.tcp.is_empty() && live.udp.is_empty()) {
                    work.arrivals.extend(arrival);
                }
            }
            if stream.flush_deadline().is_some() && !std::mem::replace(&mut live.unflushed, true) {
                work.unflushed.push(key);
            }
        }
    }

    /// Readers that want other channels, or not all tracks, get a copy of their own; for those over TLS the stream's
    /// bytes are encrypted. The slower, correct way.
    fn send_singly(&mut self) {
        let mut copy = std::mem::take(&mut self.work.copy);
        while let Some(key) = self.work.single.pop() {
            let Some(seat) = self.tcp_seats.get_mut(key) else { continue };
            let connection_key = seat.connection;
            let Some(live) = self.paths.get(seat.path).and_then(|path| path.live.as_ref()) else { continue };
            let Some(connection) = self.connections.get_mut(connection_key) else { continue };
            let (stream, now) = (&live.publication.stream, self.now.instant);
            copy.clear();
            let copies = seat.reader.is_remapped();
            let bytes = match copies {
                true => seat.reader.copy_next(stream, now, &mut copy).then_some(copy.as_slice()),
                false => seat.reader.take(stream, now),
            };
            if seat.reader.has_lapsed() {
                self.work.lapsed.push(key);
            }
            let Some(bytes) = bytes else { continue };
            self.work.plays.extend(seat.seating.asked.take());
            let sent = match connection.send(bytes) {
                Ok(sent) => sent,
                Err(error) => {
                    self.close(connection_key, &error.to_string());
                    continue;
                }
            };
            if sent == bytes.len() && connection.is_flushed() {
                if seat.reader.has_more(stream) {
                    self.work.behind.push(key);
                }
                continue;
            }
            let rest = match copies || sent == bytes.len() {
                true => Some(&bytes[sent..]),
                false => seat.reader.unsent(stream, sent, now),
            };
            match rest {
                Some(rest) => {
                    connection.out.extend_from_slice(rest);
                    seat.reader.block(stream, now);
                    self.await_room(connection_key);
                }
                None => self.close(connection_key, OVERWRITTEN),
            }
        }
        self.work.copy = copy;
        if !self.work.plays.is_empty() {
            let sent = clock::instant();
            let first_media = &self.gauges.first_media;
            let us = |asked: Instant| sent.saturating_duration_since(asked).as_micros() as u64;
            self.work.plays.drain(..).for_each(|asked| first_media.observe_us(us(asked)));
        }
    }

    /// When the fan-out has something to do although nothing happens.
    pub(super) fn fan_out_deadline(&self) -> Option<Instant> {
        let flush = self
            .work
            .unflushed
            .iter()
            .filter_map(|&key| self.paths.get(key)?.live.as_ref()?.publication.stream.flush_deadline());
        flush.min()
    }
}
