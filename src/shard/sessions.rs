//! RTSP sessions: they belong to a path, and outlive their connection when media flows in datagrams.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use corecast_hub::{
    cursor::Cursor,
    settings::{PathSettings, Source},
};
use corecast_proto::{
    rtsp::{
        Lower, Status, interleaved,
        server::{Delivery, Host, Media, Refusal, Session, StartPoint},
        url::PathAndQuery,
    },
    sdp::SessionDescription,
};
use tracing::info;

use super::{
    Shard,
    connection::Role,
    fan_out::{TcpSeat, UdpSeat},
    paths::{Origin, Path},
    plain,
    slots::Key,
};
use crate::{
    readers::{self, rtsp_tcp::TcpReader, rtsp_udp::UdpReader},
    sources::{
        publication::{Plane, channel_of},
        rtsp_publish::ChannelMap,
    },
};

/// A UDP reader that was told 55 s is given twice that: players are late with their keep-alives (pain 41).
pub const UDP_READER_SILENCE_MAX: Duration = Duration::from_secs(110);

/// A session and what it holds here.
pub struct SessionEntry {
    /// Taken out while it answers a request.
    pub session: Option<Session>,
    pub connection: Option<Key>,
    pub peer: SocketAddr,
    pub path: Option<Key>,
    pub flow: Flow,
    /// When the client was last heard of: a request, or RTCP of a UDP reader, or packets of a UDP publisher.
    pub last_heard: Instant,
}

/// Media that flows for a session.
#[derive(Debug, Clone)]
pub enum Flow {
    None,
    TcpReader(Key),
    UdpReader(Key),
    TcpPublisher,
    /// Its sockets, one entry per track.
    UdpPublisher(Vec<Key>),
}

impl SessionEntry {
    /// The session goes on without its connection.
    fn survives_connection(&self) -> bool {
        matches!(self.flow, Flow::UdpReader(_) | Flow::UdpPublisher(_))
    }
}

/// The first digits of a session's id, as in logs.
pub fn short(id: &str) -> &str {
    id.get(2..10).unwrap_or(id)
}

/// Shards that can be told apart in a session id.
const SHARDS_MAX: usize = 256;

/// A new session id: the shard in its first two digits, so that a request on any connection finds its session.
fn new_id(shard: usize) -> String {
    use std::hash::{BuildHasher, Hasher, RandomState};
    // The standard hasher's keys are random per instance, from the system's own source.
    let random = || RandomState::new().build_hasher().finish();
    let bits = u128::from(random()) << 64 | u128::from(random());
    format!("{:02x}{:030x}", shard % SHARDS_MAX, bits >> 8)
}

/// The shard that a session id names.
pub fn shard_of(id: &str) -> Option<usize> {
    usize::from_str_radix(id.get(..2)?, 16).ok()
}

impl Shard {
    pub(super) fn new_session(&mut self, connection: Key) -> Option<Key> {
        let peer = self.connections.get(connection)?.peer;
        let id = new_id(self.id);
        info!("[RTSP] [session {}] created by {}", short(&id), plain(peer));
        let key = self.sessions.insert(SessionEntry {
            session: Some(Session::new(id.clone())),
            connection: Some(connection),
            peer,
            path: None,
            flow: Flow::None,
            last_heard: self.now.instant,
        });
        self.session_ids.insert(id, key);
        if let Some(connection) = self.connections.get_mut(connection) {
            connection.session = Some(key);
        }
        Some(key)
    }

    /// A session's connection is gone.
    pub(super) fn connection_left_session(&mut self, session: Key, connection: Key, reason: &str) {
        let Some(entry) = self.sessions.get_mut(session) else { return };
        if entry.connection != Some(connection) {
            return;
        }
        entry.connection = None;
        if !entry.survives_connection() {
            self.end_session(session, reason);
        }
    }

    /// Stops a session's media; the session stays. A publisher's path loses its stream.
    pub(super) fn stop_flow(&mut self, key: Key, reason: &str) {
        let Some(entry) = self.sessions.get_mut(key) else { return };
        let (connection, path) = (entry.connection, entry.path);
        match std::mem::replace(&mut entry.flow, Flow::None) {
            Flow::None => {}
            Flow::TcpReader(seat) => {
                self.signalling_again(connection);
                self.drop_tcp_seat(seat);
            }
            Flow::UdpReader(seat) => {
                if let Some(seat) = self.udp_seats.remove(seat) {
                    for address in seat.reader.addresses().map(plain) {
                        if self.udp_addresses.get(&address) == Some(&key) {
                            self.udp_addresses.remove(&address);
                        }
                    }
                }
                if let Some(live) =
                    path.and_then(|path| self.paths.get_mut(path)).and_then(|path| path.live.as_mut())
                {
                    live.udp.retain(|&other| other != seat);
                }
            }
            Flow::TcpPublisher => {
                self.signalling_again(connection);
                self.end_own_publication(path, key, reason);
            }
            Flow::UdpPublisher(sources) => {
                for source in sources {
                    self.close_udp_source(source);
                }
                self.end_own_publication(path, key, reason);
            }
        }
    }

    fn signalling_again(&mut self, connection: Option<Key>) {
        if let Some(connection) = connection.and_then(|key| self.connections.get_mut(key)) {
            connection.role = Role::Signalling;
        }
    }

    /// Removes a reader's seat, if it is still there.
    pub(super) fn drop_tcp_seat(&mut self, key: Key) {
        let Some(seat) = self.tcp_seats.remove(key) else { return };
        if let Some(live) = self.paths.get_mut(seat.path).and_then(|path| path.live.as_mut()) {
            live.tcp.retain(|&other| other != key);
        }
    }

    fn end_own_publication(&mut self, path: Option<Key>, session: Key, reason: &str) {
        let Some(path) = path else { return };
        let live = self.paths.get(path).and_then(|path| path.live.as_ref());
        if live.is_some_and(|live| live.origin == Origin::Session(session)) {
            self.end_publication(path, reason);
        }
    }

    /// Ends a session; its connection, if it has one, stays.
    pub(super) fn end_session(&mut self, key: Key, reason: &str) {
        self.stop_flow(key, reason);
        let Some(entry) = self.sessions.remove(key) else { return };
        if let Some(session) = &entry.session {
            info!("[RTSP] [session {}] destroyed: {reason}", short(session.id()));
            self.session_ids.remove(session.id());
        }
        if let Some(connection) = entry.connection.and_then(|key| self.connections.get_mut(key))
            && connection.session == Some(key)
        {
            connection.session = None;
        }
        if let Some(path_key) = entry.path {
            if let Some(path) = self.paths.get_mut(path_key) {
                path.readers.retain(|&other| other != key);
                path.publishers.retain(|&other| other != key);
            }
            self.release_path(path_key);
        }
    }

    /// Ends a session and the connection it came on.
    pub(super) fn end_session_and_connection(&mut self, key: Key, reason: &str) {
        let connection = self.sessions.get(key).and_then(|entry| entry.connection);
        self.end_session(key, reason);
        if let Some(connection) = connection {
            self.close_after_answer(connection, reason);
        }
    }

    /// The client of a session was heard of, on whatever way.
    pub(super) fn heard(&mut self, session: Key) {
        if let Some(entry) = self.sessions.get_mut(session) {
            entry.last_heard = self.now.instant;
        }
    }
}

/// What a session asks of its shard while it answers one request.
pub struct SessionHost<'shard> {
    pub shard: &'shard mut Shard,
    pub key: Key,
    pub connection: Key,
    pub peer: SocketAddr,
    /// For the log and the id of what is logged.
    pub short_id: String,
    /// Goes out right after the answer: the first reports of a reader over TCP.
    pub after_answer: Vec<u8>,
}

impl SessionHost<'_> {
    fn configured(&self, name: &str) -> Result<Arc<PathSettings>, Refusal> {
        let found = self.shard.settings.paths.lookup(name);
        found.cloned().map_err(|error| Refusal::bad_request(error.to_string()))
    }

    fn attach(&mut self, path_key: Key, to: fn(&mut Path) -> &mut Vec<Key>) {
        if let Some(path) = self.shard.paths.get_mut(path_key) {
            to(path).push(self.key);
        }
        if let Some(entry) = self.shard.sessions.get_mut(self.key) {
            entry.path = Some(path_key);
        }
    }

    fn own_path(&self) -> Result<Key, Refusal> {
        let entry = self.shard.sessions.get(self.key);
        entry.and_then(|entry| entry.path).ok_or_else(|| Refusal::bad_request("the session has no path"))
    }

    fn set_flow(&mut self, flow: Flow) {
        if let Some(entry) = self.shard.sessions.get_mut(self.key) {
            entry.flow = flow;
        }
    }

    fn play_tcp(
        &mut self,
        path: Key,
        medias: &[Media],
        cursor: Cursor,
        tracks: usize,
    ) -> Result<(), Refusal> {
        let fd = self
            .shard
            .connections
            .get(self.connection)
            .map(|connection| connection.fd())
            .ok_or_else(|| Refusal::bad_request("the connection is gone"))?;
        let seat = self.shard.tcp_seats.insert(TcpSeat {
            reader: TcpReader::new(cursor, medias, tracks),
            connection: self.connection,
            path,
            fd,
            turn: 0,
            lapse_told: None,
        });
        for media in medias {
            let report = self.shard.time_report(path, media.track);
            if let Delivery::Tcp { channel } = media.delivery
                && !report.is_empty()
            {
                let header = interleaved::write_header(channel + 1, report.len() as u16);
                self.after_answer.extend_from_slice(&header);
                self.after_answer.extend_from_slice(&report);
            }
        }
        if let Some(connection) = self.shard.connections.get_mut(self.connection) {
            connection.role = Role::Playing { seat };
        }
        if let Some(live) = self.shard.paths.get_mut(path).and_then(|path| path.live.as_mut()) {
            live.tcp.push(seat);
        }
        self.set_flow(Flow::TcpReader(seat));
        Ok(())
    }

    fn play_udp(&mut self, path: Key, medias: &[Media], cursor: Cursor) -> Result<(), Refusal> {
        let shard = &mut *self.shard;
        let Some(ports) = &shard.ports else {
            return Err(Refusal::new(Status::UNSUPPORTED_TRANSPORT, "UDP is off"));
        };
        let reader = UdpReader::new(cursor, medias, |port| ports.as_destination(self.peer, port));
        let addresses: Vec<_> = reader.addresses().map(plain).collect();
        for &address in &addresses {
            // A client that comes back on the ports of a session which it left without a word.
            if let Some(&other) = shard.udp_addresses.get(&address)
                && other != self.key
            {
                shard.end_session(other, "its ports belong to a newer session");
            }
            shard.udp_addresses.insert(address, self.key);
        }
        for media in medias {
            let report = shard.time_report(path, media.track);
            if !report.is_empty()
                && let Some(ports) = &shard.ports
            {
                ports.send_now(&reader, channel_of(media.track, Plane::Rtcp), &report);
            }
        }
        let seat = shard.udp_seats.insert(UdpSeat { reader, path });
        shard.work.pacing.push(seat);
        if let Some(live) = shard.paths.get_mut(path).and_then(|path| path.live.as_mut()) {
            live.udp.push(seat);
        }
        self.set_flow(Flow::UdpReader(seat));
        Ok(())
    }
}

impl Host for SessionHost<'_> {
    fn offers(&self, lower: Lower) -> bool {
        let rtsp = &self.shard.settings.rtsp;
        match lower {
            Lower::Tcp => rtsp.tcp,
            Lower::Udp => rtsp.udp && self.shard.ports.is_some(),
        }
    }

    fn server_ports(&self) -> (u16, u16) {
        let rtsp = &self.shard.settings.rtsp;
        (rtsp.rtp_address.port(), rtsp.rtcp_address.port())
    }

    fn announce(&mut self, stream: &PathAndQuery) -> Result<(), Refusal> {
        let name = stream.name();
        if self.configured(&name)?.source != Source::Publisher {
            let reason = format!("path '{name}' has a source of its own: nobody can publish to it");
            return Err(Refusal::bad_request(reason));
        }
        let key = self
            .shard
            .path_at_home(&name)
            .ok_or_else(|| Refusal::bad_request("the path is not configured any more"))?;
        self.attach(key, |path| &mut path.publishers);
        Ok(())
    }

    fn join(&mut self, stream: &PathAndQuery) -> Result<usize, Refusal> {
        let name = stream.name();
        self.configured(&name)?;
        let key = *self.shard.path_names.get(&*name).ok_or_else(|| no_stream(&name))?;
        let path = self.shard.paths.get(key);
        let live = path.and_then(|path| path.live.as_ref());
        let (Some(path), Some(live)) = (path, live) else { return Err(no_stream(&name)) };
        if path.settings.readers_max.is_some_and(|max| path.readers.len() >= max.get() as usize) {
            return Err(Refusal::bad_request("maximum reader count reached"));
        }
        let tracks = live.publication.tracks.count();
        self.attach(key, |path| &mut path.readers);
        Ok(tracks)
    }

    fn ssrc(&self, track: usize) -> Option<u32> {
        let path = self.shard.paths.get(self.own_path().ok()?)?;
        path.live.as_ref()?.publication.tracks.ssrc(track)
    }

    fn play(&mut self, medias: &[Media]) -> Result<Vec<StartPoint>, Refusal> {
        let key = self.own_path()?;
        let path = self.shard.paths.get(key).ok_or_else(|| Refusal::bad_request("the path is gone"))?;
        let live = path.live.as_ref().ok_or_else(|| no_stream(&path.name))?;
        let publication = &live.publication;
        let cursor =
            Cursor::join(&publication.stream, path.settings.gop_cache, publication.tracks.has_keys());
        let starts = readers::start_points(publication, &cursor, medias, self.shard.now.instant);
        let labels = publication.tracks.labels(medias.iter().map(|media| media.track));
        let (name, tracks) = (path.name.clone(), publication.tracks.count());
        let lower = match medias.first().map(|media| media.delivery) {
            Some(Delivery::Udp { .. }) => {
                self.play_udp(key, medias, cursor)?;
                "UDP"
            }
            _ => {
                self.play_tcp(key, medias, cursor, tracks)?;
                "TCP"
            }
        };
        info!("[RTSP] [session {}] is reading from path '{name}', with {lower}, {labels}", self.short_id);
        Ok(starts)
    }

    fn record(&mut self, description: &SessionDescription, medias: &[Media]) -> Result<(), Refusal> {
        let key = self.own_path()?;
        let by_udp = matches!(medias.first(), Some(Media { delivery: Delivery::Udp { .. }, .. }));
        self.shard.publish(key, &description.title, &description.tracks, Origin::Session(self.key))?;
        let flow = if by_udp {
            let sources = self.shard.open_udp_sources(key, self.key, self.peer, medias);
            match sources {
                Ok(sources) => Flow::UdpPublisher(sources),
                Err(error) => {
                    self.shard.end_publication(key, "the publisher's sockets cannot be opened");
                    return Err(Refusal::new(Status::INTERNAL_SERVER_ERROR, error.to_string()));
                }
            }
        } else {
            if let Some(connection) = self.shard.connections.get_mut(self.connection) {
                connection.role = Role::Publishing { path: key, channels: Box::new(ChannelMap::new(medias)) };
            }
            Flow::TcpPublisher
        };
        self.set_flow(flow);
        let name = self.shard.paths.get(key).map(|path| path.name.clone()).unwrap_or_default();
        let lower = if by_udp { "UDP" } else { "TCP" };
        let count = description.tracks.len();
        let labels: Vec<_> = description.tracks.iter().map(|track| track.codec.label()).collect();
        info!(
            "[RTSP] [session {}] is publishing to path '{name}', with {lower}, {count} track{} ({})",
            self.short_id,
            if count == 1 { "" } else { "s" },
            labels.join(", ")
        );
        Ok(())
    }

    fn pause(&mut self) {
        self.shard.stop_flow(self.key, "paused by its publisher");
    }
}

/// Nobody publishes there (contract §4.3).
pub fn no_stream(path: &str) -> Refusal {
    Refusal::new(Status::NOT_FOUND, format!("no stream is available on path '{path}'"))
}
