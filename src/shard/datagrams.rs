//! The UDP side: the shared RTP and RTCP ports, and the connected sockets of publishers.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    os::fd::AsRawFd,
};

use corecast_proto::rtsp::server::{Delivery, Media};
use tracing::warn;

use super::{
    Kind, Mail, Shard,
    media_io::{DatagramSocket, Event},
    paths::Origin,
    plain,
    slots::Key,
};
use crate::{
    readers::{
        reported_losses,
        rtsp_udp::{Sockets, UdpReader},
    },
    sources::{
        publication::{Plane, track_of},
        udp_track::UdpTrack,
    },
};

/// Receives per socket and turn.
const RECEIVES_PER_TURN: usize = 16;

/// Our RTP and RTCP ports, from which readers get their packets and to which they report.
pub struct SharedPorts {
    rtp: DatagramSocket,
    rtcp: DatagramSocket,
    is_ipv6: bool,
}

/// The sockets of one track of a UDP publisher, and where its packets go.
pub struct UdpSource {
    pub track: UdpTrack,
    pub path: Key,
    /// Whose packets they are.
    pub owner: Origin,
    /// It is in the list of sources with a hole in their sequence.
    waits: bool,
}

/// A port of `peer`, in IPv6 clothes or without.
fn as_family(mut peer: SocketAddr, port: u16, is_ipv6: bool) -> SocketAddr {
    match peer.ip().to_canonical() {
        IpAddr::V4(v4) if is_ipv6 => peer.set_ip(IpAddr::V6(v4.to_ipv6_mapped())),
        canonical => peer.set_ip(canonical),
    }
    peer.set_port(port);
    peer
}

impl SharedPorts {
    pub fn bind(rtp: SocketAddr, rtcp: SocketAddr, receive_buffer: Option<NonZeroUsize>) -> io::Result<Self> {
        Ok(Self {
            rtp: DatagramSocket::bind(rtp, receive_buffer)?,
            rtcp: DatagramSocket::bind(rtcp, receive_buffer)?,
            is_ipv6: rtp.is_ipv6(),
        })
    }

    pub fn sockets(&self) -> Sockets {
        Sockets { rtp: self.rtp.as_raw_fd(), rtcp: self.rtcp.as_raw_fd() }
    }

    /// A port of `peer`, as an address in the family of our sockets.
    pub fn as_destination(&self, peer: SocketAddr, port: u16) -> SocketAddr {
        as_family(peer, port, self.is_ipv6)
    }

    /// Sends one packet to a reader now, or never.
    pub fn send_now(&self, reader: &UdpReader, channel: u8, packet: &[u8]) {
        let Some(to) = reader.address_of(channel) else { return };
        match track_of(channel).1 {
            Plane::Rtp => self.rtp.send_now(packet, Some(to)),
            Plane::Rtcp => self.rtcp.send_now(packet, Some(to)),
        }
    }

    pub fn watch(&self, io: &mut super::media_io::MediaIo) -> io::Result<()> {
        io.watch(self.rtp.as_raw_fd(), Kind::RtpPort.only())?;
        io.watch(self.rtcp.as_raw_fd(), Kind::RtcpPort.only())
    }

    pub fn unwatch(&self, io: &mut super::media_io::MediaIo) {
        io.unwatch(self.rtp.as_raw_fd(), Kind::RtpPort.only());
        io.unwatch(self.rtcp.as_raw_fd(), Kind::RtcpPort.only());
    }
}

impl Shard {
    /// Something came in on a shared port: a reader's report, or a packet that opens a firewall.
    pub(super) fn receive_shared(&mut self, plane: Plane) {
        let mut buffer = std::mem::take(&mut self.work.scratch);
        let mut received = 0;
        while let Some(ports) = &self.ports {
            let socket = match plane {
                Plane::Rtp => &ports.rtp,
                Plane::Rtcp => &ports.rtcp,
            };
            match socket.receive(&mut buffer) {
                Ok(datagram) if plane == Plane::Rtcp => {
                    // A port is of one track: its reports are about one source.
                    let loss = reported_losses(&buffer[..datagram.length]).next();
                    self.heard_from(plain(datagram.from), loss, true);
                }
                Ok(datagram) => self.heard_from(plain(datagram.from), None, false),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // A reader's port that is closed comes back as an error of an earlier send.
                Err(_) => {}
            }
            received += 1;
            if received == RECEIVES_PER_TURN {
                let kind = if plane == Plane::Rtp { Kind::RtpPort } else { Kind::RtcpPort };
                self.work.events.push(Event::Readable(kind.only()));
                break;
            }
        }
        self.work.scratch = buffer;
    }

    /// A reader lives, and may report a loss. If it is none of ours, the other shards are asked, once.
    pub(super) fn heard_from(&mut self, from: SocketAddr, loss: Option<(u32, u32)>, first_hand: bool) {
        match self.udp_addresses.get(&from) {
            Some(&session) => {
                self.heard(session);
                if let Some((ssrc, lost)) = loss {
                    self.on_reported_loss(session, ssrc, lost);
                }
            }
            None if first_hand && self.has_other_shards() => {
                for node in 0..self.control() {
                    if node != self.id {
                        self.mesh.send_if_room(node, Mail::Heard { from, loss });
                    }
                }
            }
            None => {}
        }
    }

    /// Opens the sockets that a UDP publisher's packets come in on.
    pub(super) fn open_udp_sources(
        &mut self,
        path: Key,
        session: Key,
        peer: SocketAddr,
        medias: &[Media],
    ) -> io::Result<Vec<Key>> {
        let rtsp = &self.settings.rtsp;
        let ours = (rtsp.rtp_address, rtsp.rtcp_address);
        let Some(ports) = &self.ports else { return Err(io::Error::other("UDP is off")) };
        let is_ipv6 = ports.is_ipv6;
        let mut tracks = Vec::new();
        for media in medias {
            let Delivery::Udp { rtp_port, rtcp_port } = media.delivery else { continue };
            let theirs = (as_family(peer, rtp_port, is_ipv6), as_family(peer, rtcp_port, is_ipv6));
            let buffer = self.settings.udp_read_buffer_bytes;
            let wait = self.settings.engine.reorder_wait;
            tracks.push(UdpTrack::open(media.track, ours, theirs, buffer, wait)?);
        }
        self.watch_udp_tracks(path, Origin::Session(session), tracks)
    }

    /// Takes in what comes on the sockets of these tracks from now on.
    pub(super) fn watch_udp_tracks(
        &mut self,
        path: Key,
        owner: Origin,
        tracks: Vec<UdpTrack>,
    ) -> io::Result<Vec<Key>> {
        let mut sources = Vec::with_capacity(tracks.len());
        for track in tracks {
            let (rtp, rtcp) = (track.rtp.as_raw_fd(), track.rtcp.as_raw_fd());
            let key = self.udp_sources.insert(UdpSource { track, path, owner, waits: false });
            sources.push(key);
            let watched = self.io.watch(rtp, Kind::UdpSourceRtp.token(key));
            let watched = watched.and_then(|()| self.io.watch(rtcp, Kind::UdpSourceRtcp.token(key)));
            if let Err(error) = watched {
                for key in sources {
                    self.close_udp_source(key);
                }
                return Err(error);
            }
        }
        Ok(sources)
    }

    pub(super) fn close_udp_source(&mut self, key: Key) {
        if let Some(source) = self.udp_sources.remove(key) {
            self.io.unwatch(source.track.rtp.as_raw_fd(), Kind::UdpSourceRtp.token(key));
            self.io.unwatch(source.track.rtcp.as_raw_fd(), Kind::UdpSourceRtcp.token(key));
        }
    }

    /// Packets of a UDP publisher.
    pub(super) fn receive_source(&mut self, key: Key, plane: Plane) {
        let Some(source) = self.udp_sources.get_mut(key) else { return };
        let (path, owner) = (source.path, source.owner);
        let Some(live) = self.paths.get_mut(path).and_then(|path| path.live.as_mut()) else { return };
        let buffer = &mut self.work.scratch;
        let mut any = false;
        for turn in 0.. {
            let socket = match plane {
                Plane::Rtp => &source.track.rtp,
                Plane::Rtcp => &source.track.rtcp,
            };
            match socket.receive(buffer) {
                // Of those that came before the socket was connected, one may be a stranger's.
                Ok(datagrams) if !source.track.hears(plane, datagrams.from) => {}
                Ok(datagrams) => {
                    let bytes = &buffer[..datagrams.length];
                    source.track.take(plane, bytes, datagrams.segment, &mut live.publication, self.now);
                    any = true;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Its port was closed for a moment (ICMP); packets may come again.
                Err(_) => {}
            }
            if turn + 1 == RECEIVES_PER_TURN {
                let kind = if plane == Plane::Rtp { Kind::UdpSourceRtp } else { Kind::UdpSourceRtcp };
                self.work.events.push(Event::Readable(kind.token(key)));
                break;
            }
        }
        if source.track.deadline().is_some() && !std::mem::replace(&mut source.waits, true) {
            self.work.reordering.push(key);
        }
        if any {
            live.mark_dirty(path, &mut self.work.dirty);
            match owner {
                Origin::Session(session) => self.heard(session),
                Origin::Pull(pull) => self.heard_from_source(pull),
                Origin::Demo => {}
            }
        }
    }

    /// Lets packets through that have waited long enough for an earlier one.
    pub(super) fn expire_reordering(&mut self) {
        let now = self.now;
        let Self { work, udp_sources, paths, .. } = self;
        work.reordering.retain(|&key| {
            let Some(source) = udp_sources.get_mut(key) else { return false };
            if source.track.deadline().is_some_and(|deadline| deadline <= now.instant)
                && let Some(live) = paths.get_mut(source.path).and_then(|path| path.live.as_mut())
                && source.track.expire(&mut live.publication, now)
            {
                live.mark_dirty(source.path, &mut work.dirty);
            }
            source.waits = source.track.deadline().is_some();
            source.waits
        });
    }

    /// Says so when the kernel gave less receive buffer than was asked for: the cause of most UDP loss (pain 44).
    pub(super) fn check_receive_buffer(&self) {
        let (Some(ports), Some(wanted)) = (&self.ports, self.settings.udp_read_buffer_bytes) else { return };
        if let Some(shortfall) = ports.rtp.shortfall(wanted) {
            warn!("[RTSP] udpReadBufferSize: {shortfall}");
        }
    }
}
