//! What a shard tells the control plane: [`News`] when something changes, counters once a second.

use corecast_hub::roster::{self, News, Refusal as Reason, SessionFacts, SessionState, Slowness, Transport};
use corecast_proto::rtsp::{Lower, server::Session};

use super::{
    Mail, Shard, clock, connection::Role, fan_out::Seating, paths, plain, sessions::SessionEntry, slots::Key,
};
use crate::readers::Outbound;

/// Sources that one reader's reports are kept of.
const REPORTED_SOURCES_MAX: usize = 32;

/// Puts what was counted of a reader where the control plane sees it.
fn show(sent: Outbound, traffic: &roster::SessionTraffic) {
    // A send that turns out to be cut is counted back: what was shown stays.
    traffic.outbound_bytes.set(sent.bytes.max(traffic.outbound_bytes.get()));
    traffic.outbound_rtp_packets.set(sent.rtp_packets);
    traffic.outbound_rtcp_packets.set(sent.rtcp_packets);
    traffic.outbound_rtp_packets_discarded.set(sent.packets_discarded);
}

impl Shard {
    pub(super) fn tell(&mut self, news: News) {
        let control = self.control();
        self.mesh.send(control, Mail::News(Box::new(news)));
    }

    /// For what may come often and can be done without.
    fn tell_if_room(&mut self, news: News) {
        let control = self.control();
        self.mesh.send_if_room(control, Mail::News(Box::new(news)));
    }

    pub(super) fn tell_conn_opened(&mut self, key: Key) {
        let Some(connection) = self.connections.get(key) else { return };
        let news = News::ConnOpened {
            id: connection.id,
            created: clock::system_time(connection.created),
            remote: plain(connection.peer),
            encrypted: connection.is_encrypted(),
            traffic: connection.traffic.clone(),
        };
        self.tell(news);
    }

    pub(super) fn tell_session_opened(&mut self, key: Key) {
        let Some(entry) = self.sessions.get(key) else { return };
        let news = News::SessionOpened {
            id: entry.id,
            created: clock::system_time(self.now.wall),
            remote: plain(entry.peer),
            encrypted: entry.encrypted,
            traffic: entry.traffic.clone(),
        };
        self.tell(news);
    }

    /// Tells what is new about a session, if anything is.
    pub(super) fn tell_session(&mut self, key: Key) {
        let Some(entry) = self.sessions.get(key) else { return };
        let Some(session) = entry.session.as_ref().filter(|session| !session.is_ended()) else { return };
        let facts = self.facts_of(entry, session);
        if entry.told.as_ref() == Some(&facts) {
            return;
        }
        let id = entry.id;
        if let Some(entry) = self.sessions.get_mut(key) {
            entry.told = Some(facts.clone());
        }
        self.tell(News::SessionChanged { id, facts });
    }

    fn facts_of(&self, entry: &SessionEntry, session: &Session) -> SessionFacts {
        let state = match () {
            () if session.is_playing() => SessionState::Read,
            () if session.is_recording() => SessionState::Publish,
            () => SessionState::Idle,
        };
        let path = entry.path.and_then(|path| self.paths.get(path)).map(|path| path.name.clone());
        let stream = session.stream();
        let conn = entry.connection.and_then(|key| self.connections.get(key)).map(|connection| connection.id);
        SessionFacts {
            state,
            path: path.or_else(|| stream.map(|stream| stream.name().into())).unwrap_or_default(),
            query: stream.map(|stream| stream.query.clone()).unwrap_or_default(),
            user: entry.user.clone(),
            user_agent: entry.user_agent.clone(),
            transport: session.lower().map(|lower| match lower {
                Lower::Tcp => Transport::Tcp,
                Lower::Udp => Transport::Udp,
            }),
            conn,
        }
    }

    pub(super) fn tell_slow(
        &mut self,
        session: Key,
        path: Key,
        what: Slowness,
        behind_ms: u64,
        packets: u64,
    ) {
        let (Some(entry), Some(path)) = (self.sessions.get(session), self.paths.get(path)) else { return };
        let news = News::SlowReader { session: entry.id, path: path.name.clone(), what, behind_ms, packets };
        self.tell_if_room(news);
    }

    pub(super) fn tell_refused(&mut self, path: &str, remote: std::net::SocketAddr, why: Reason) {
        self.tell_if_room(News::Refused { path: path.into(), remote: plain(remote), why });
    }

    /// Tells what is newly known of a stream's tracks: a picture size, for one.
    pub(super) fn tell_tracks(&mut self, key: Key) {
        let Some(path) = self.paths.get_mut(key) else { return };
        let Some(live) = &mut path.live else { return };
        let tracks = &live.publication.tracks;
        if std::mem::replace(&mut live.revision_told, tracks.revision()) != tracks.revision() {
            let news = News::StreamTracks { path: path.name.clone(), tracks: tracks.facts() };
            self.tell(news);
        }
    }

    /// Shows what was counted of a publication, its publisher and its readers.
    pub(super) fn count_stream(&mut self, key: Key) {
        let Self { paths, sessions, tcp_seats, udp_seats, .. } = self;
        let Some(live) = paths.get_mut(key).and_then(|path| path.live.as_mut()) else { return };
        let (stream, tracks) = (&live.publication.stream, &live.publication.tracks);
        let mut bytes = live.left_bytes;
        for &seat in &live.tcp {
            let Some(seat) = tcp_seats.get_mut(seat) else { continue };
            seat.reader.settle(stream, tracks.inbound.rtcp_packets);
            bytes += seat.reader.outbound.bytes;
            show(seat.seating.before + seat.reader.outbound, &seat.seating.traffic);
        }
        for &seat in &live.udp {
            let Some(seat) = udp_seats.get(seat) else { continue };
            bytes += seat.reader.outbound.bytes;
            show(seat.seating.before + seat.reader.outbound, &seat.seating.traffic);
        }
        let inbound = tracks.inbound;
        live.traffic.inbound_bytes.set(inbound.bytes);
        live.traffic.outbound_bytes.set(bytes.max(live.traffic.outbound_bytes.get()));
        live.traffic.inbound_frames_in_error.set(inbound.packets_in_error);
        live.traffic.inbound_rtp_packets_lost.set(tracks.lost());
        live.traffic.ring_bytes.set(stream.ring_bytes() as u64);
        if let paths::Origin::Session(publisher) = live.origin
            && let Some(entry) = sessions.get(publisher)
        {
            let (traffic, before) = (&entry.traffic, entry.received);
            traffic.inbound_bytes.set(before.bytes + inbound.bytes);
            traffic.inbound_rtp_packets.set(before.rtp_packets + inbound.rtp_packets);
            traffic.inbound_rtcp_packets.set(before.rtcp_packets + inbound.rtcp_packets);
            traffic.inbound_rtp_packets_in_error.set(before.packets_in_error + inbound.packets_in_error);
            traffic.inbound_rtp_packets_lost.set(entry.lost_before + tracks.lost());
            traffic.inbound_rtp_jitter_milli.set(tracks.jitter_milli());
        }
    }

    /// A reader's seat is gone; what it was sent stays with its session and its stream.
    pub(super) fn keep_sent(&mut self, path: Key, seating: &Seating, sent: Outbound) {
        if let Some(live) = self.paths.get_mut(path).and_then(|path| path.live.as_mut()) {
            live.left_bytes += sent.bytes;
        }
        if let Some(entry) = self.sessions.get_mut(seating.session) {
            entry.sent = seating.before + sent;
            show(entry.sent, &entry.traffic);
        }
    }

    /// Shows what went over a connection.
    pub(super) fn count_connection(&self, key: Key) {
        let Some(connection) = self.connections.get(key) else { return };
        let playing = match connection.role {
            Role::Playing { seat } => self.tcp_seats.get(seat).map_or(0, |seat| seat.reader.outbound.bytes),
            Role::Signalling | Role::Publishing { .. } => 0,
        };
        let sent = connection.sent_bytes + playing;
        let shown = &connection.traffic.outbound_bytes;
        shown.set(sent.max(shown.get()));
        connection.traffic.inbound_bytes.set(connection.received_bytes);
    }

    /// A reader reports how many packets of a source it never got.
    pub(super) fn on_reported_loss(&mut self, session: Key, ssrc: u32, lost: u32) {
        let Some(entry) = self.sessions.get_mut(session) else { return };
        let known = entry.reported_lost.iter().position(|(of, _)| *of == ssrc);
        match known {
            Some(index) => entry.reported_lost[index].1 = lost,
            None if entry.reported_lost.len() < REPORTED_SOURCES_MAX => {
                entry.reported_lost.push((ssrc, lost))
            }
            None => {}
        }
        let total = entry.reported_lost.iter().map(|&(_, lost)| u64::from(lost)).sum();
        entry.traffic.outbound_rtp_packets_reported_lost.set(total);
    }

    /// Shows how the shard as a whole is doing.
    pub(super) fn show_gauges(&self, busy_permille: u64, cpu: std::time::Duration) {
        let gauges = &self.gauges;
        gauges.busy_permille.set(busy_permille);
        gauges.cpu_us.set(cpu.as_micros() as u64);
        let live = self.paths.iter().filter_map(|(_, path)| path.live.as_ref());
        let (mut streams, mut ring_bytes) = (0, 0);
        for live in live {
            (streams, ring_bytes) = (streams + 1, ring_bytes + live.publication.stream.ring_bytes() as u64);
        }
        gauges.streams.set(streams);
        gauges.ring_bytes.set(ring_bytes);
        gauges.readers.set((self.tcp_seats.len() + self.udp_seats.len() + self.hls_viewers()) as u64);
    }
}
