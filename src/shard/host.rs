//! What RTSP sessions ask of their shard: paths, places among readers and publishers, the flow of media.

use std::{net::SocketAddr, num::NonZeroU32, sync::Arc};

use corecast_hub::{
    cursor::Cursor,
    roster::{Refusal as Reason, rtsp_server},
    settings::{PathSettings, Source},
};
use corecast_proto::{
    rtsp::{
        Lower, Status, interleaved,
        server::{Delivery, Host, Media, Refusal, StartPoint},
        url::PathAndQuery,
    },
    sdp::SessionDescription,
};
use tracing::info;

use super::{
    Shard,
    connection::Role,
    fan_out::{Seating, TcpSeat, UdpSeat},
    paths::{Origin, Path},
    plain,
    sessions::Flow,
    slots::Key,
};
use crate::{
    readers::{self, rtsp_tcp::TcpReader, rtsp_udp::UdpReader},
    sources::{
        in_place::ChannelMap,
        publication::{Plane, channel_of},
    },
};

/// What a session asks of its shard while it answers one request.
pub struct SessionHost<'shard> {
    pub shard: &'shard mut Shard,
    pub key: Key,
    pub connection: Key,
    pub peer: SocketAddr,
    pub encrypted: bool,
    /// For the log and the id of what is logged.
    pub short_id: String,
    /// Of its stream's URL.
    pub query: String,
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

    /// Turned away for a limit; counted.
    fn refused(&mut self, path: &str, why: Reason, reason: &str) -> Refusal {
        self.shard.tell_refused(path, self.peer, why);
        Refusal::new(Status::NOT_ENOUGH_BANDWIDTH, format!("path '{path}': {reason}"))
    }

    /// What a new seat has to know of its session.
    fn seating(&self) -> Seating {
        let entry = self.shard.sessions.get(self.key);
        Seating {
            session: self.key,
            before: entry.map(|entry| entry.sent).unwrap_or_default(),
            traffic: entry.map(|entry| Arc::clone(&entry.traffic)).unwrap_or_default(),
            asked: Some(self.shard.now.instant),
        }
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
        let seating = self.seating();
        let mut reader = TcpReader::new(cursor, medias, tracks);
        if let Some(live) = self.shard.paths.get(path).and_then(|path| path.live.as_ref()) {
            reader.settle(&live.publication.stream, live.publication.tracks.inbound.rtcp_packets);
        }
        let seat = self.shard.tcp_seats.insert(TcpSeat {
            reader,
            seating,
            connection: self.connection,
            path,
            fd,
            encrypted: self.encrypted,
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
        let seating = self.seating();
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
        let seat = shard.udp_seats.insert(UdpSeat { reader, path, seating });
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
            // Datagrams beside TLS would have to be SRTP.
            Lower::Udp => rtsp.udp && self.shard.ports.is_some() && !self.encrypted,
        }
    }

    fn server_ports(&self) -> (u16, u16) {
        let rtsp = &self.shard.settings.rtsp;
        (rtsp.rtp_address.port(), rtsp.rtcp_address.port())
    }

    fn announce(&mut self, stream: &PathAndQuery) -> Result<(), Refusal> {
        let name = stream.name();
        let settings = self.configured(&name)?;
        if settings.source != Source::Publisher {
            let reason = format!("path '{name}' has a source of its own: nobody can publish to it");
            return Err(Refusal::bad_request(reason));
        }
        let path = self.shard.path_names.get(&*name).and_then(|&key| self.shard.paths.get(key));
        // Who takes the place of another publisher needs no place of its own.
        if path.is_none_or(|path| path.live.is_none()) {
            let full = |now: u32, max: Option<NonZeroU32>| max.is_some_and(|max| now >= max.get());
            let engine = &self.shard.settings.engine;
            if full(settings.active.now(), settings.active_max) {
                return Err(self.refused(
                    &name,
                    Reason::MaxActive,
                    "maximum number of active streams reached",
                ));
            }
            if full(engine.streams.now(), engine.streams_max) {
                return Err(self.refused(&name, Reason::MaxStreams, "engine.maxStreams reached"));
            }
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
        if path.settings.readers_max.is_some_and(|max| path.reader_count() >= max.get() as usize) {
            return Err(self.refused(&name, Reason::MaxReaders, "maximum reader count reached"));
        }
        let tracks = live.publication.tracks.count();
        let engine = &self.shard.settings.engine;
        let Some(pass) = engine.readers.enter(engine.readers_max) else {
            return Err(self.refused(&name, Reason::EngineMaxReaders, "engine.maxReaders reached"));
        };
        self.attach(key, |path| &mut path.readers);
        self.shard.readers_changed(key);
        if let Some(entry) = self.shard.sessions.get_mut(self.key) {
            entry.pass = Some(pass);
        }
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
        let (server, id) = (rtsp_server(self.encrypted), &self.short_id);
        info!("[{server}] [session {id}] is reading from path '{name}', with {lower}, {labels}");
        Ok(starts)
    }

    fn record(&mut self, description: &SessionDescription, medias: &[Media]) -> Result<(), Refusal> {
        let key = self.own_path()?;
        let by_udp = matches!(medias.first(), Some(Media { delivery: Delivery::Udp { .. }, .. }));
        let query = self.query.clone();
        let origin = Origin::Session(self.key);
        self.shard.publish(key, &description.title, &query, &description.tracks, origin)?;
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
            "[{}] [session {}] is publishing to path '{name}', with {lower}, {count} track{} ({})",
            rtsp_server(self.encrypted),
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
