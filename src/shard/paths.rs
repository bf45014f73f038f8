//! The paths that live on this shard, and the publications on them.

use std::{io::Write, sync::Arc, time::Instant};

use corecast_hub::{
    quota::Pass,
    registry::ShardId,
    roster::{self, News, Refusal as Reason, StreamTraffic},
    settings::{BroughtBy, EngineSettings, PathSettings, Source},
    stream::StreamLimits,
};
use corecast_media::Track;
use corecast_proto::rtsp::{Status, server::Refusal};
use tracing::{debug, info, warn};

use super::{Mail, Shard, clock, demand::PathDemand, seldom::Seldom, slots::Key};
use crate::{
    readers::{self, rtsp_udp::oversize_channels},
    sources::{
        demo::Demo,
        publication::{Inbound, Publication},
    },
};

/// A path of which something is here: a publication, or sessions that are about it.
pub struct Path {
    pub name: Arc<str>,
    pub settings: Arc<PathSettings>,
    /// Claims that reached it; they are given back with the release.
    claims: u64,
    pub live: Option<Live>,
    /// Sessions that read it, from their first SETUP on.
    pub readers: Vec<Key>,
    /// HLS viewers.
    pub viewers: Vec<Key>,
    /// Its muxer for HLS.
    pub hls: Option<Key>,
    /// HTTP requests about it that wait.
    pub visits: usize,
    /// Sessions that announced it; one of them may publish it.
    pub publishers: Vec<Key>,
    /// Its source is pulled, or will be again after a pause.
    pub pull: Option<Key>,
    pub demand: PathDemand,
}

/// A publication and who gets it.
pub struct Live {
    pub publication: Publication,
    pub origin: Origin,
    pub tcp: Vec<Key>,
    pub udp: Vec<Key>,
    /// It is in this turn's list of paths with new packets.
    pub dirty: bool,
    /// It is in the list of paths that wait for the flush rule's time limit.
    pub unflushed: bool,
    /// What was said in the log so far.
    pub lost_told: Seldom,
    pub errors_told: Seldom,
    pub oversize_told: bool,
    /// The tracks as the control plane was told of them.
    pub revision_told: u32,
    pub traffic: Arc<StreamTraffic>,
    /// What readers got that have left.
    pub left_bytes: u64,
    /// Its place among the streams of its entry, and of the relay.
    pub active: Option<Pass>,
    pass: Option<Pass>,
    began: Instant,
}

/// How streams keep and release their bytes.
pub fn stream_limits(engine: &EngineSettings) -> StreamLimits {
    StreamLimits {
        flush_bytes: engine.flush_bytes,
        flush_after: engine.flush_after,
        ring_bytes_max: engine.ring_bytes_max,
    }
}

impl Path {
    /// It is pulled when somebody wants it.
    pub fn is_pulled_on_demand(&self) -> bool {
        let demand = self.settings.demand.as_ref();
        demand.is_some_and(|demand| matches!(demand.brought_by, BroughtBy::Pull(_)))
    }

    /// Who reads it, over whatever protocol.
    pub fn reader_count(&self) -> usize {
        self.readers.len() + self.viewers.len()
    }

    /// Nothing of it is left.
    fn is_idle(&self) -> bool {
        self.live.is_none()
            && self.readers.is_empty()
            && self.viewers.is_empty()
            && self.hls.is_none()
            && self.visits == 0
            && self.publishers.is_empty()
            && self.pull.is_none()
            && self.demand.is_idle()
    }
}

impl Live {
    /// Its stream has something new: puts the path called `key` on this turn's list, once.
    pub fn mark_dirty(&mut self, key: Key, list: &mut Vec<Key>) {
        if !std::mem::replace(&mut self.dirty, true) {
            list.push(key);
        }
    }
}

/// Who brings the media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Session(Key),
    Pull(Key),
    Demo,
}

/// The built-in camera on a path.
pub struct DemoCamera {
    pub demo: Demo,
    pub path: Key,
}

impl Shard {
    /// The path called `name`, which lives here. `None` when it is not configured any more.
    pub(super) fn path_at_home(&mut self, name: &str) -> Option<Key> {
        if let Some(&key) = self.path_names.get(name) {
            return Some(key);
        }
        let settings = Arc::clone(self.settings.paths.lookup(name).ok()?);
        let name: Arc<str> = name.into();
        let (readers, publishers) = (Vec::new(), Vec::new());
        let demand = PathDemand::new(settings.demand.as_ref());
        let path = Path {
            name: Arc::clone(&name),
            settings,
            claims: 0,
            live: None,
            readers,
            viewers: Vec::new(),
            hls: None,
            visits: 0,
            publishers,
            pull: None,
            demand,
        };
        let key = self.paths.insert(path);
        self.path_names.insert(name, key);
        Some(key)
    }

    /// As [`Self::path_at_home`], for one claim that has arrived here.
    pub(super) fn claimed_path(&mut self, name: &Arc<str>) -> Option<Key> {
        let key = self.path_at_home(name);
        match key.and_then(|key| self.paths.get_mut(key)) {
            Some(path) => path.claims += 1,
            None => self.give_back_claims(name, 1),
        }
        key
    }

    /// A claim has arrived that nobody uses any more.
    pub(super) fn take_orphan(&mut self, name: &Arc<str>) {
        if let Some(path) = self.claimed_path(name) {
            self.release_path(path);
        }
    }

    fn give_back_claims(&mut self, path: &Arc<str>, claims: u64) {
        if claims > 0 {
            let control = self.control();
            self.mesh.send(control, Mail::Release { path: Arc::clone(path), claims });
        }
    }

    /// Forgets a path of which nothing is left.
    pub(super) fn release_path(&mut self, key: Key) {
        let is_idle = |path: &Path| path.is_idle() && !self.pull_memory.holds(&path.name);
        if !self.paths.get(key).is_some_and(is_idle) {
            return;
        }
        if let Some(Path { name, claims, .. }) = self.paths.remove(key) {
            self.path_names.remove(&name);
            self.give_back_claims(&name, claims);
        }
    }

    /// The answer of the control thread to a claim.
    pub(super) fn on_home(&mut self, connection: Key, path: &Arc<str>, home: ShardId) {
        if home == self.id {
            let key = self.claimed_path(path);
            if let Some(waiting) = self.connections.get_mut(connection) {
                waiting.phase = super::connection::Phase::Open;
                self.progress(connection);
            }
            if let Some(key) = key {
                self.release_path(key);
            }
        } else if self.connections.get(connection).is_some() {
            self.hand_over(connection, home, Some(Arc::clone(path)));
        } else {
            // Nobody waits any more. The claim goes the way of all: to the home, which gives it back.
            self.mesh.send(home, Mail::Orphan { path: Arc::clone(path) });
        }
    }

    /// Puts a publication on a path, in the place of another if that is allowed.
    pub(super) fn publish(
        &mut self,
        key: Key,
        title: &str,
        query: &str,
        tracks: &[Track],
        origin: Origin,
    ) -> Result<(), Refusal> {
        let path = self.paths.get(key).ok_or_else(|| Refusal::bad_request("the path is gone"))?;
        let current = match path.live {
            Some(Live { origin: Origin::Session(current), .. }) => Some(current),
            _ => None,
        };
        let gives_way = matches!(origin, Origin::Session(_)) && path.pull.is_some();
        if (current.is_some() || gives_way) && !path.settings.override_publisher {
            return Err(Refusal::bad_request("someone is already publishing to this path"));
        }
        // Before anything gives way: the place of what gives way is taken over, and no other path can get it meanwhile.
        let (active, pass) = self.admit_stream(key, origin)?;
        if current.is_some() || gives_way {
            if let Some(path) = self.paths.get(key) {
                info!("[path {}] closing existing publisher", path.name);
            }
            if let Some(current) = current {
                self.end_session_and_connection(current, "replaced by another publisher");
            }
            self.give_way(key);
        }
        let limits = stream_limits(&self.settings.engine);
        let publication = Publication::new(title, tracks, limits)
            .map_err(|error| Refusal::bad_request(format!("no memory for the stream: {error}")))?;
        let labels = publication.tracks.labels(0..tracks.len());
        let brought_by = match origin {
            Origin::Demo => roster::Origin::Demo,
            Origin::Pull(_) => roster::Origin::RtspSource,
            Origin::Session(session) => {
                let entry = self.sessions.get_mut(session);
                let entry = entry.ok_or_else(|| Refusal::bad_request("the session is gone"))?;
                // Counts of an earlier RECORD go on from where they were.
                let traffic = &entry.traffic;
                entry.received = Inbound {
                    bytes: traffic.inbound_bytes.get(),
                    rtp_packets: traffic.inbound_rtp_packets.get(),
                    rtcp_packets: traffic.inbound_rtcp_packets.get(),
                    packets_in_error: traffic.inbound_rtp_packets_in_error.get(),
                };
                entry.lost_before = traffic.inbound_rtp_packets_lost.get();
                match entry.encrypted {
                    true => roster::Origin::RtspsSession(entry.id),
                    false => roster::Origin::RtspSession(entry.id),
                }
            }
        };
        let path = self.paths.get_mut(key).ok_or_else(|| Refusal::bad_request("the path is gone"))?;
        let traffic = Arc::<StreamTraffic>::default();
        let news = News::StreamUp {
            path: Arc::clone(&path.name),
            at: clock::system_time(self.now.wall),
            origin: brought_by,
            query: query.to_owned(),
            tracks: publication.tracks.facts(),
            traffic: Arc::clone(&traffic),
        };
        path.live = Some(Live {
            publication,
            origin,
            tcp: Vec::new(),
            udp: Vec::new(),
            dirty: false,
            unflushed: false,
            lost_told: Seldom::default(),
            errors_told: Seldom::default(),
            oversize_told: false,
            revision_told: 0,
            traffic,
            left_bytes: 0,
            active: Some(active),
            pass: Some(pass),
            began: self.now.instant,
        });
        info!("[path {}] stream is available and online, {labels}", path.name);
        debug!("[path {}] lives on core {}", path.name, self.core);
        self.tell(news);
        self.stream_began(key);
        self.hls_stream_began(key);
        Ok(())
    }

    /// A place among the streams of a path's entry, and one among those of the relay: those of the stream that it takes
    /// the place of, if there is one.
    fn admit_stream(&mut self, key: Key, origin: Origin) -> Result<(Pass, Pass), Refusal> {
        let path = self.paths.get_mut(key).ok_or_else(|| Refusal::bad_request("the path is gone"))?;
        if let Some(live) = &mut path.live
            && let (Some(active), Some(pass)) = (live.active.take(), live.pass.take())
        {
            return Ok((active, pass));
        }
        let (name, settings, engine) = (&path.name, &path.settings, &self.settings.engine);
        let active = settings.active.enter(settings.active_max);
        let pass = engine.streams.enter(engine.streams_max);
        let (why, limit) = match (active, pass) {
            (Some(active), Some(pass)) => return Ok((active, pass)),
            (None, _) => (Reason::MaxActive, "maximum number of active streams reached"),
            (Some(_), None) => (Reason::MaxStreams, "engine.maxStreams reached"),
        };
        let name = Arc::clone(name);
        if let Origin::Session(session) = origin
            && let Some(entry) = self.sessions.get(session)
        {
            let peer = entry.peer;
            self.tell_refused(&name, peer, why);
        }
        Err(Refusal::new(Status::NOT_ENOUGH_BANDWIDTH, format!("path '{name}': {limit}")))
    }

    /// Ends the publication on a path: its readers get what is still unsent, then they are closed.
    pub(super) fn end_publication(&mut self, key: Key, reason: &str) {
        self.flush_last(key);
        self.count_stream(key);
        let Some(path) = self.paths.get_mut(key) else { return };
        let Some(live) = path.live.take() else { return };
        let name = Arc::clone(&path.name);
        let readers = std::mem::take(&mut path.readers);
        let inbound = live.publication.tracks.inbound;
        info!("[path {name}] stream is not available anymore: {reason}");
        debug!(
            "[path {name}] core {}: {} RTP packets and {} bytes in over {:?}, {} lost, {} in error",
            self.core,
            inbound.rtp_packets,
            inbound.bytes,
            self.now.instant.duration_since(live.began),
            live.publication.tracks.lost(),
            inbound.packets_in_error,
        );
        // Before the readers are closed: nothing of it can be reached through them any more.
        drop(live);
        self.tell(News::StreamDown { path: name, reason: reason.to_owned() });
        self.stream_ended(key);
        self.hls_stream_ended(key);
        for reader in readers {
            self.end_session_and_connection(reader, "the stream has ended");
        }
        self.release_path(key);
    }

    /// Sends what the flush rule held back, as far as sockets take it without waiting.
    fn flush_last(&mut self, key: Key) {
        let Some(live) = self.paths.get_mut(key).and_then(|path| path.live.as_mut()) else { return };
        let stream = &mut live.publication.stream;
        stream.flush(self.now.instant + self.settings.engine.flush_after);
        for &seat in &live.tcp {
            let Some(seat) = self.tcp_seats.get_mut(seat) else { continue };
            let Some(connection) = self.connections.get(seat.connection) else { continue };
            if seat.reader.is_blocked() {
                continue;
            }
            self.work.copy.clear();
            let bytes = if !seat.reader.is_remapped() {
                seat.reader.take(stream, self.now.instant)
            } else if seat.reader.copy_next(stream, self.now.instant, &mut self.work.copy) {
                Some(&self.work.copy[..])
            } else {
                None
            };
            if let Some(bytes) = bytes {
                // A reader that cannot take the last bytes now will not get them: its connection ends.
                let _ = (&connection.socket).write(bytes);
            }
        }
        let Some(ports) = &self.ports else { return };
        let payload_max = usize::from(self.settings.udp_payload_bytes_max);
        for &seat in &live.udp {
            let Some(seat) = self.udp_seats.get_mut(seat) else { continue };
            if seat.reader.is_pacing() {
                continue;
            }
            let Some(mut bytes) =
                seat.reader.take_live(stream, self.now.instant).and_then(|range| stream.get(range))
            else {
                continue;
            };
            let tracks = &live.publication.tracks;
            if seat.reader.needs_rewrite(oversize_channels(bytes, tracks, payload_max)) {
                let (packet, copy) = (&mut self.work.rewriting.packet, &mut self.work.copy);
                copy.clear();
                seat.reader.rewrite(bytes, tracks, payload_max, packet, copy);
                bytes = copy;
            }
            for (channel, packet) in readers::packets(bytes) {
                ports.send_now(&seat.reader, channel, packet);
            }
        }
    }

    /// Begins what a path that was placed here has without being asked.
    pub(super) fn begin_path(&mut self, name: &Arc<str>) {
        let Some(path) = self.claimed_path(name) else { return };
        let Some(found) = self.paths.get(path) else { return };
        match &found.settings.source {
            Source::Demo if found.live.is_none() => self.start_demo(path),
            Source::Rtsp(pull) if found.pull.is_none() && found.settings.demand.is_none() => {
                let pull = Arc::clone(pull);
                self.start_pull(path, pull, "");
            }
            _ => self.release_path(path),
        }
    }

    fn start_demo(&mut self, path: Key) {
        let Some(name) = self.paths.get(path).map(|path| Arc::clone(&path.name)) else { return };
        let demo = match Demo::new(self.now.instant) {
            Ok(demo) => demo,
            Err(error) => {
                warn!("[path {name}] [demo source] {error}");
                return self.release_path(path);
            }
        };
        info!("[path {name}] [demo source] started");
        match self.publish(path, "Corecast demo", "", demo.tracks(), Origin::Demo) {
            Ok(()) => self.demos.push(DemoCamera { demo, path }),
            Err(refusal) => {
                warn!("[path {name}] [demo source] {}", refusal.reason);
                self.release_path(path);
            }
        }
    }

    /// Lets the built-in cameras publish what is due.
    pub(super) fn run_demos(&mut self) {
        for camera in &mut self.demos {
            if camera.demo.deadline() > self.now.instant {
                continue;
            }
            let Some(live) = self.paths.get_mut(camera.path).and_then(|path| path.live.as_mut()) else {
                continue;
            };
            if camera.demo.publish(&mut live.publication, self.now) {
                live.mark_dirty(camera.path, &mut self.work.dirty);
            }
        }
    }

    /// A packet for readers of one track as of now: where its clock stands. Empty when that is not known.
    pub(super) fn time_report(&self, path: Key, track: usize) -> Vec<u8> {
        let mut report = Vec::new();
        if let Some(live) = self.paths.get(path).and_then(|path| path.live.as_ref()) {
            live.publication.tracks.write_report(track, self.now, &mut report);
        }
        report
    }
}
