//! One track whose packets come as datagrams, of a publisher or of a source that is pulled: whose they are, and in which
//! order they go on.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use corecast_proto::rtp::{header, reorder::Reorder, rtcp};

use super::publication::{Now, Plane, Publication};
use crate::shard::media_io::DatagramSocket;

/// Bytes of datagrams that wait for an earlier one, per track.
const REORDER_BYTES_MAX: usize = 256 * 1024;

/// The sockets of a track.
#[derive(Debug)]
pub struct UdpTrack {
    pub track: usize,
    pub rtp: DatagramSocket,
    pub rtcp: DatagramSocket,
    sender: Sender,
    reorder: Reorder,
    ssrc: Option<u32>,
}

/// Whose datagrams are taken in.
#[derive(Debug)]
enum Sender {
    /// The sockets are connected to these, so that the kernel brings their datagrams here and nobody else's.
    Ports { rtp: SocketAddr, rtcp: SocketAddr },
    /// Any port of this host.
    Host {
        ip: IpAddr,
        /// Where reports go.
        rtcp: Option<SocketAddr>,
        /// It said so itself; else, it is where its own reports come from, or the port after that of its packets.
        named: bool,
    },
    /// Who sends to the group; this one only, if it was named.
    Group { source: Option<IpAddr> },
}

impl UdpTrack {
    /// Opens sockets on ports of ours that other publishers use too, and opens firewalls on the way.
    ///
    /// # Errors
    /// The system's.
    pub fn open(
        track: usize,
        ours: (SocketAddr, SocketAddr),
        theirs: (SocketAddr, SocketAddr),
        receive_buffer: Option<NonZeroUsize>,
        reorder_wait: Duration,
    ) -> io::Result<Self> {
        let sockets =
            (DatagramSocket::bind(ours.0, receive_buffer)?, DatagramSocket::bind(ours.1, receive_buffer)?);
        Self::connected(track, sockets, theirs, reorder_wait)
    }

    /// Takes in what comes from `theirs` only, and opens firewalls on the way.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn connected(
        track: usize,
        sockets: (DatagramSocket, DatagramSocket),
        theirs: (SocketAddr, SocketAddr),
        reorder_wait: Duration,
    ) -> io::Result<Self> {
        sockets.0.connect(theirs.0)?;
        sockets.1.connect(theirs.1)?;
        open_firewalls(&sockets, (None, None));
        let sender = Sender::Ports { rtp: theirs.0, rtcp: theirs.1 };
        Ok(Self::new(track, sockets, sender, reorder_wait))
    }

    /// Takes in what comes from any port of `host`, and opens firewalls on the way to the `ports` that it named.
    pub(super) fn of_host(
        track: usize,
        sockets: (DatagramSocket, DatagramSocket),
        host: SocketAddr,
        ports: Option<(u16, u16)>,
        reorder_wait: Duration,
    ) -> Self {
        let at = |port| {
            let mut address = host;
            address.set_port(port);
            address
        };
        if let Some((rtp, rtcp)) = ports {
            open_firewalls(&sockets, (Some(at(rtp)), Some(at(rtcp))));
        }
        let (ip, rtcp) = (host.ip().to_canonical(), ports.map(|(_, rtcp)| at(rtcp)));
        let sender = Sender::Host { ip, rtcp, named: ports.is_some() };
        Self::new(track, sockets, sender, reorder_wait)
    }

    /// Takes in what is sent to a multicast group, by `source` only if it is known; sends nothing. `ours` is an address
    /// of the interface to join on: that of the connection to the server.
    ///
    /// # Errors
    /// The system's, or that the group and `ours` are of different families.
    pub fn join(
        track: usize,
        (group, ports): (IpAddr, (u16, u16)),
        ours: SocketAddr,
        source: Option<IpAddr>,
        receive_buffer: Option<NonZeroUsize>,
        reorder_wait: Duration,
    ) -> io::Result<Self> {
        if !group.is_multicast() {
            return Err(io::Error::other(format!("{group} is no multicast group")));
        }
        let source = source.map(|source| source.to_canonical());
        let joined = |port| DatagramSocket::join(SocketAddr::new(group, port), ours, source, receive_buffer);
        let sockets = (joined(ports.0)?, joined(ports.1)?);
        Ok(Self::new(track, sockets, Sender::Group { source }, reorder_wait))
    }

    fn new(
        track: usize,
        (rtp, rtcp): (DatagramSocket, DatagramSocket),
        sender: Sender,
        reorder_wait: Duration,
    ) -> Self {
        let reorder = Reorder::new(reorder_wait, REORDER_BYTES_MAX);
        Self { track, rtp, rtcp, sender, reorder, ssrc: None }
    }

    /// Whether a datagram from there is the sender's: a stranger's may have come before a socket was connected, or to
    /// one that never is. Where it comes from is remembered if the sender did not say where our reports should go.
    pub fn hears(&mut self, plane: Plane, from: SocketAddr) -> bool {
        let ip = from.ip().to_canonical();
        match &mut self.sender {
            Sender::Ports { rtp, rtcp } => {
                let expected = if plane == Plane::Rtp { rtp } else { rtcp };
                (expected.ip().to_canonical(), expected.port()) == (ip, from.port())
            }
            Sender::Host { ip: expected, .. } if *expected != ip => false,
            Sender::Host { named: true, .. } => true,
            Sender::Host { rtcp, named: false, .. } => {
                match plane {
                    Plane::Rtcp => *rtcp = Some(from),
                    Plane::Rtp if rtcp.is_none() => {
                        let mut next = from;
                        next.set_port(from.port().saturating_add(1));
                        *rtcp = Some(next);
                    }
                    Plane::Rtp => {}
                }
                true
            }
            Sender::Group { source } => source.is_none_or(|source| source == ip),
        }
    }

    /// Takes in datagrams of `segment` bytes each (the last may be shorter).
    pub fn take(
        &mut self,
        plane: Plane,
        bytes: &[u8],
        segment: usize,
        publication: &mut Publication,
        now: Now,
    ) {
        let track = self.track;
        for packet in bytes.chunks(segment.max(1)) {
            match plane {
                Plane::Rtcp => publication.append(track, plane, packet, now),
                Plane::Rtp => match header::parse(packet) {
                    Ok(header) => {
                        let mut go_on = |packet: &[u8]| publication.append(track, plane, packet, now);
                        if self.ssrc.replace(header.ssrc).is_some_and(|before| before != header.ssrc) {
                            self.reorder.reset(&mut go_on);
                        }
                        self.reorder.push(now.instant, header.sequence, packet, &mut go_on);
                    }
                    Err(_) => publication.tracks.inbound.packets_in_error += 1,
                },
            }
        }
    }

    /// When [`Self::expire`] would do something.
    pub fn deadline(&self) -> Option<Instant> {
        self.reorder.poll_timeout()
    }

    /// Gives up packets that others have waited for long enough. True when some were let through.
    pub fn expire(&mut self, publication: &mut Publication, now: Now) -> bool {
        let mut any = false;
        let track = self.track;
        self.reorder.expire(now.instant, &mut |packet| {
            any = true;
            publication.append(track, Plane::Rtp, packet, now);
        });
        any
    }

    /// Tells the sender how its packets arrive. A group is not told.
    pub fn report_reception(&self, publication: &mut Publication, now: Instant) {
        let to = match self.sender {
            Sender::Ports { .. } => None,
            Sender::Host { rtcp: Some(rtcp), .. } => Some(rtcp),
            Sender::Host { rtcp: None, .. } | Sender::Group { .. } => return,
        };
        if let Some(block) = publication.tracks.reception(self.track, now) {
            let mut report = Vec::new();
            rtcp::write_receiver_report(block.ssrc.wrapping_add(1), &[block], "corecast", &mut report);
            self.rtcp.send_now(&report, to);
        }
    }
}

/// Sends an empty packet on each socket: to where it is connected, or there (contract §4.6).
fn open_firewalls(sockets: &(DatagramSocket, DatagramSocket), to: (Option<SocketAddr>, Option<SocketAddr>)) {
    // Version 2, nothing else: an RTP header, and a receiver report without blocks.
    sockets.0.send_now(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], to.0);
    sockets.1.send_now(&[0x80, 0xc9, 0, 1, 0, 0, 0, 0], to.1);
}

#[cfg(test)]
mod tests;
