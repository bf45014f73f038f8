//! A publisher that records to us: its interleaved packets, received in place, or its datagrams, put in order.

use std::{io, net::SocketAddr, num::NonZeroUsize, time::Instant};

use corecast_proto::{
    rtp::{header, reorder::Reorder, rtcp},
    rtsp::{
        Limits, MessageError, Parsed, Request,
        interleaved::{self, Frame},
        parse_request,
        server::{Delivery, Media},
    },
};

use super::publication::{Now, Plane, Publication, channel_of};
use crate::shard::media_io::DatagramSocket;

/// Received in one go at most, bytes: more than a frame of any camera between keyframes.
const RECEIVE_BYTES: usize = 64 * 1024;
/// Bytes of datagrams that wait for an earlier one, per track.
const REORDER_BYTES_MAX: usize = 256 * 1024;

/// Channels of a TCP publisher, each with its track.
#[derive(Debug)]
pub struct ChannelMap([Option<(u8, Plane)>; 256]);

impl ChannelMap {
    pub fn new(medias: &[Media]) -> Self {
        let mut map = [None; 256];
        for media in medias {
            if let (Delivery::Tcp { channel }, Ok(track)) = (media.delivery, u8::try_from(media.track)) {
                map[usize::from(channel)] = Some((track, Plane::Rtp));
                map[usize::from(channel) + 1] = Some((track, Plane::Rtcp));
            }
        }
        Self(map)
    }
}

/// Why a publisher's bytes cannot be understood any further.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    #[error("neither a packet nor a request between packets: {0}")]
    Garbage(#[from] MessageError),
}

/// What taking in received bytes came to.
#[derive(Debug)]
pub enum Taken {
    /// All whole packets are in the stream; the rest has not arrived.
    All,
    /// A request lay between the packets; what follows it is still pending.
    Request(Request),
}

/// Receives once into the stream's own memory. `Ok(true)`: there may be more.
pub fn receive(publication: &mut Publication, socket: impl io::Read) -> io::Result<bool> {
    let mut socket = socket;
    let spare = publication.stream.spare(RECEIVE_BYTES);
    let room = spare.len();
    match socket.read(spare)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count => {
            publication.stream.fill(count);
            Ok(count == room)
        }
    }
}

/// Takes all whole packets among the pending bytes into the stream. What is no media (answers and requests, unknown
/// channels, packets that are no RTP) is taken out, so that the ring holds only what readers may get.
pub fn take_pending(
    publication: &mut Publication,
    channels: &ChannelMap,
    limits: &Limits,
    now: Now,
) -> Result<Taken, IngestError> {
    // Bytes before the next packet that are to disappear.
    let mut gap = 0;
    let taken = loop {
        let pending = publication.stream.pending();
        let rest = &pending[gap..];
        match interleaved::next_frame(rest) {
            Frame::NeedMore(_) => break Ok(Taken::All),
            Frame::Media { channel, payload, consumed } => {
                let Some((track, plane)) = channels.0[usize::from(channel)] else {
                    gap += consumed;
                    continue;
                };
                let packet = gap + payload.start..gap + payload.end;
                let Some(facts) = publication.inspect_pending(usize::from(track), plane, packet, now) else {
                    gap += consumed;
                    continue;
                };
                let pending = publication.stream.pending_mut();
                if gap > 0 {
                    pending.copy_within(gap..gap + consumed, 0);
                }
                pending[1] = channel_of(usize::from(track), plane);
                publication.stream.push(facts, now.instant);
            }
            Frame::NotMedia => match parse_request(rest, limits) {
                Ok(Parsed::Incomplete) => break Ok(Taken::All),
                Ok(Parsed::Complete { value, consumed }) => {
                    gap += consumed;
                    break Ok(Taken::Request(value));
                }
                Err(error) => break Err(error.into()),
            },
        }
    };
    if gap > 0 {
        publication.stream.pending_mut().copy_within(gap.., 0);
        publication.stream.shrink_pending(gap);
    }
    taken
}

/// The sockets of one track of a UDP publisher, connected to it, so that the kernel brings its datagrams here and
/// nobody else's.
#[derive(Debug)]
pub struct UdpTrack {
    pub track: usize,
    pub rtp: DatagramSocket,
    pub rtcp: DatagramSocket,
    peers: (SocketAddr, SocketAddr),
    reorder: Reorder,
}

impl UdpTrack {
    /// Opens the sockets and sends an empty packet on each, which opens firewalls on the way (contract §4.6).
    pub fn open(
        track: usize,
        ours: (SocketAddr, SocketAddr),
        theirs: (SocketAddr, SocketAddr),
        receive_buffer: Option<NonZeroUsize>,
        reorder_wait: std::time::Duration,
    ) -> io::Result<Self> {
        let connected = |ours, theirs| {
            let socket = DatagramSocket::bind(ours, receive_buffer)?;
            socket.connect(theirs)?;
            Ok::<_, io::Error>(socket)
        };
        let (rtp, rtcp) = (connected(ours.0, theirs.0)?, connected(ours.1, theirs.1)?);
        // Version 2, nothing else: an RTP header, and a receiver report without blocks.
        rtp.send_now(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], None);
        rtcp.send_now(&[0x80, 0xc9, 0, 1, 0, 0, 0, 0], None);
        Ok(Self { track, rtp, rtcp, peers: theirs, reorder: Reorder::new(reorder_wait, REORDER_BYTES_MAX) })
    }

    /// Where its packets come from.
    pub fn peer(&self, plane: Plane) -> SocketAddr {
        match plane {
            Plane::Rtp => self.peers.0,
            Plane::Rtcp => self.peers.1,
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
        for packet in bytes.chunks(segment.max(1)) {
            match plane {
                Plane::Rtcp => publication.append(self.track, plane, packet, now),
                Plane::Rtp => match header::parse(packet) {
                    Ok(header) => {
                        let track = self.track;
                        self.reorder.push(now.instant, header.sequence, packet, &mut |packet| {
                            publication.append(track, plane, packet, now);
                        });
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

    /// Tells the publisher how its packets arrive.
    pub fn report_reception(&self, publication: &mut Publication, now: Instant) {
        if let Some(block) = publication.tracks.reception(self.track, now) {
            let mut report = Vec::new();
            rtcp::write_receiver_report(block.ssrc.wrapping_add(1), &[block], "corecast", &mut report);
            self.rtcp.send_now(&report, None);
        }
    }
}
