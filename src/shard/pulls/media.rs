//! The media of a pull: where it comes in, and the publication that it goes into.

use corecast_hub::{gauges::PullPhase, roster::SourceState};
use corecast_media::Track;
use corecast_proto::{
    rtp::rtcp,
    rtsp::client::{Host, PulledMedia, Route},
    rtsp::interleaved,
    sdp::SessionDescription,
};

use super::{PullConnection, State};
use crate::{
    shard::{Shard, paths::Origin, slots::Key},
    sources::{in_place::ChannelMap, pull_sockets::PulledSockets, udp_track::UdpTrack},
};

/// Our name in reports (RFC 3550 §6.5.1).
const CNAME: &str = "corecast";

/// How media comes in.
pub(super) enum Flow {
    /// Not yet.
    None,
    /// On the connection, between the messages.
    Tcp {
        channels: Box<ChannelMap>,
        /// Where the source sends the RTP of each track.
        of_tracks: Vec<u8>,
    },
    /// On sockets of their own.
    Udp(Vec<Key>),
}

/// What a client asks of its shard while it takes in one answer.
pub(super) struct PullHost<'shard> {
    pub shard: &'shard mut Shard,
    /// Of the connection.
    pub key: Key,
}

impl Host for PullHost<'_> {
    fn described(&mut self, description: &SessionDescription) -> Result<(), String> {
        if let Some(connection) = self.shard.pull_connections.get_mut(self.key) {
            connection.description = Some(description.clone());
        }
        Ok(())
    }

    fn udp_ports(&mut self, track: usize) -> Result<(u16, u16), String> {
        let shard = &mut *self.shard;
        let gone = || "its connection is gone".to_owned();
        let connection = shard.pull_connections.get_mut(self.key).ok_or_else(gone)?;
        let settings = &shard.pulls.get(connection.pull).ok_or_else(gone)?.settings;
        let buffer = settings.udp_read_buffer_bytes.or(shard.settings.udp_read_buffer_bytes);
        let ours = connection.local_address().map_err(|error| error.to_string())?;
        let sockets = PulledSockets::open(track, settings.udp_ports, ours, buffer);
        let sockets = sockets.map_err(|error| format!("its UDP sockets cannot be opened: {error}"))?;
        let ports = sockets.ports();
        // Asked again, when the request had to be sent again.
        connection.sockets.retain(|(of, _)| *of != track);
        connection.sockets.push((track, sockets));
        Ok(ports)
    }

    fn set_up(&mut self, medias: &[PulledMedia]) -> Result<(), String> {
        self.shard.close_flow(self.key);
        self.shard.publish_pull(self.key, medias)?;
        let channels = medias.iter().map(|media| match media.route {
            Route::Tcp { channel } => Some(channel),
            Route::Udp { .. } | Route::Multicast { .. } => None,
        });
        let flow = match channels.collect::<Option<Vec<_>>>() {
            Some(of_tracks) => {
                let channels = Box::new(ChannelMap::of(of_tracks.iter().copied().zip(0..)));
                Flow::Tcp { channels, of_tracks }
            }
            None => Flow::Udp(self.open_tracks(medias)?),
        };
        if let Some(connection) = self.shard.pull_connections.get_mut(self.key) {
            connection.flow = flow;
            // Those of tracks that were refused over UDP.
            connection.sockets.clear();
        }
        Ok(())
    }
}

impl PullHost<'_> {
    /// Opens the ways of tracks that do not come over the connection, and watches them.
    fn open_tracks(&mut self, medias: &[PulledMedia]) -> Result<Vec<Key>, String> {
        let shard = &mut *self.shard;
        let gone = || "its connection is gone".to_owned();
        let connection = shard.pull_connections.get_mut(self.key).ok_or_else(gone)?;
        let settings = &shard.pulls.get(connection.pull).ok_or_else(gone)?.settings;
        let buffer = settings.udp_read_buffer_bytes.or(shard.settings.udp_read_buffer_bytes);
        let wait = shard.settings.engine.reorder_wait;
        let (ours, server) =
            (connection.local_address().map_err(|error| error.to_string())?, connection.address);
        let mut tracks = Vec::new();
        for (index, media) in medias.iter().enumerate() {
            let opened = match media.route {
                Route::Tcp { .. } => {
                    return Err("the source sends some tracks over TCP and some not".to_owned());
                }
                Route::Udp { theirs, source, .. } => {
                    let at = connection.sockets.iter().position(|(track, _)| *track == media.track);
                    let (_, sockets) = connection.sockets.swap_remove(at.ok_or_else(gone)?);
                    let mut from = server;
                    if let Some(source) = source {
                        from.set_ip(source);
                    }
                    sockets.into_track(from, theirs, settings.any_port, wait)
                }
                Route::Multicast { group, ports, source } => {
                    UdpTrack::join(index, (group, ports), ours, source, buffer, wait)
                }
            };
            let mut track = opened.map_err(|error| format!("its UDP sockets cannot be opened: {error}"))?;
            track.track = index;
            tracks.push(track);
        }
        let (path, owner) = (connection.path, Origin::Pull(connection.pull));
        let watched = shard.watch_udp_tracks(path, owner, tracks);
        watched.map_err(|error| format!("its UDP sockets cannot be watched: {error}"))
    }
}

impl Shard {
    /// Puts the tracks that were set up on the path; a publication that waits for them goes on.
    fn publish_pull(&mut self, key: Key, medias: &[PulledMedia]) -> Result<(), String> {
        let gone = || "its path is gone".to_owned();
        let connection = self.pull_connections.get(key).ok_or_else(gone)?;
        let (pull, path_key) = (connection.pull, connection.path);
        let origin = Origin::Pull(pull);
        let description = connection.description.as_ref().ok_or_else(gone)?;
        let tracks = medias.iter().filter_map(|media| description.tracks.get(media.track).cloned());
        let (tracks, title) = (tracks.collect::<Vec<Track>>(), description.title.clone());
        let live = self.paths.get_mut(path_key).ok_or_else(gone)?.live.as_mut();
        let resumed = live.filter(|live| live.origin == origin).map(|live| live.publication.resume(&tracks));
        if let Some(Err(mismatch)) = &resumed {
            self.end_publication(path_key, &mismatch.to_string());
        }
        if !matches!(resumed, Some(Ok(()))) {
            self.publish(path_key, &title, "", &tracks, origin).map_err(|refusal| refusal.reason)?;
        }
        self.mark_media_so_far(key);
        Ok(())
    }

    /// What comes from now on is this connection's.
    fn mark_media_so_far(&mut self, key: Key) {
        let Some(connection) = self.pull_connections.get_mut(key) else { return };
        let live = self.paths.get(connection.path).and_then(|path| path.live.as_ref());
        if let Some(live) = live {
            connection.packets_seen = live.publication.tracks.inbound.packets();
            connection.began_at = live.publication.stream.head();
        }
    }

    /// Media has come in: is it the first, or its first key picture?
    pub(super) fn note_media(&mut self, key: Key) {
        let now = self.now.instant;
        let Some(connection) = self.pull_connections.get_mut(key) else { return };
        // Before the answer to PLAY, its own phases are measured.
        if !matches!(connection.phase, PullPhase::FirstPacket | PullPhase::FirstKey) {
            return;
        }
        let live = self.paths.get(connection.path).and_then(|path| path.live.as_ref());
        let Some(live) = live else { return };
        let (stream, tracks) = (&live.publication.stream, &live.publication.tracks);
        let (pull, since) = (connection.pull, connection.since);
        if connection.phase == PullPhase::FirstPacket && tracks.inbound.packets() > connection.packets_seen {
            connection.enter(PullPhase::FirstKey, now);
            connection.first_packet = Some(now);
            connection.heard = now;
            // Nothing is set up any more.
            connection.forget_answers();
            self.observe_phase(PullPhase::FirstPacket, since);
            self.on_pull_running(pull, key);
            return self.note_media(key);
        }
        if connection.phase == PullPhase::FirstKey {
            let has_key = stream.newest_key().is_some_and(|at| at >= connection.began_at);
            if has_key || !tracks.has_keys() {
                connection.enter(PullPhase::Running, now);
                if has_key {
                    self.observe_phase(PullPhase::FirstKey, since);
                }
            }
        }
    }

    /// Datagrams of a pull have come in.
    pub(in crate::shard) fn heard_from_source(&mut self, pull: Key) {
        let Some(State::Connected(connection)) = self.pulls.get(pull).map(|pull| &pull.state) else { return };
        self.note_media(*connection);
    }

    /// PLAY was answered.
    pub(super) fn on_pull_playing(&mut self, key: Key) {
        // Some came before the answer.
        self.note_media(key);
    }

    /// The first packet has come.
    fn on_pull_running(&mut self, key: Key, connection: Key) {
        let Some(pull) = self.pulls.get_mut(key) else { return };
        pull.kept_until = None;
        let was_down = std::mem::replace(&mut pull.record.suspect, false);
        (pull.record.login_refused, pull.record.error) = (false, None);
        if pull.record.tcp_only
            && let Some(PullConnection { url, .. }) = self.pull_connections.get(connection)
        {
            self.without_udp.note(&url.host, url.port, self.now.instant);
        }
        if was_down {
            self.place_came_back(key);
        }
        self.tell_source(key, SourceState::Running, None);
    }

    /// Tells a source how its packets arrive.
    pub(super) fn report_to_source(&mut self, key: Key) {
        let now = self.now.instant;
        let Some(connection) = self.pull_connections.get_mut(key) else { return };
        let live = self.paths.get_mut(connection.path).and_then(|path| path.live.as_mut());
        let Some(publication) = live.map(|live| &mut live.publication) else { return };
        match &connection.flow {
            Flow::None => {}
            Flow::Udp(sources) => {
                for &source in sources {
                    if let Some(source) = self.udp_sources.get(source) {
                        source.track.report_reception(publication, now);
                    }
                }
            }
            Flow::Tcp { of_tracks, .. } => {
                let mut report = Vec::new();
                for (track, channel) in of_tracks.iter().enumerate() {
                    let Some(channel) = channel.checked_add(1) else { continue };
                    let Some(block) = publication.tracks.reception(track, now) else { continue };
                    report.clear();
                    rtcp::write_receiver_report(block.ssrc.wrapping_add(1), &[block], CNAME, &mut report);
                    let header = interleaved::write_header(channel, report.len() as u16);
                    connection.out.extend_from_slice(&header);
                    connection.out.extend_from_slice(&report);
                }
                self.flush_pull(key);
            }
        }
    }

    /// Nothing more comes in on a connection.
    pub(super) fn close_flow(&mut self, key: Key) {
        let Some(connection) = self.pull_connections.get_mut(key) else { return };
        if let Flow::Udp(sources) = std::mem::replace(&mut connection.flow, Flow::None) {
            for source in sources {
                self.close_udp_source(source);
            }
        }
    }
}
