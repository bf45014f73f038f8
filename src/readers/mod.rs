//! Who takes media out: readers over RTSP, interleaved ([`rtsp_tcp`]) or in datagrams ([`rtsp_udp`]), and the muxers of
//! HLS ([`hls`]).

pub mod hls;
pub mod rtsp_tcp;
pub mod rtsp_udp;

use corecast_hub::cursor::Cursor;
use corecast_proto::{
    rtp::{header, rtcp},
    rtsp::{
        interleaved::{Frame, next_frame},
        server::{Media, StartPoint},
    },
};

use crate::sources::publication::{Plane, Publication, channel_of};

/// Packets looked at to find where a new reader's tracks start.
const START_SEARCH_MAX: usize = 2048;

/// The framed packets in `bytes`: channel and packet.
pub fn packets(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || match next_frame(rest) {
        Frame::Media { channel, payload, consumed } => {
            let packet = &rest[payload];
            rest = &rest[consumed..];
            Some((channel, packet))
        }
        Frame::NeedMore(_) | Frame::NotMedia => None,
    })
}

/// Length of the whole packets at the front of `bytes` that together reach `at_least` (all of them if they do not).
pub fn whole_packets(bytes: &[u8], at_least: usize) -> usize {
    let mut end = 0;
    while end < at_least {
        match next_frame(&bytes[end..]) {
            Frame::Media { consumed, .. } => end += consumed,
            Frame::NeedMore(_) | Frame::NotMedia => break,
        }
    }
    end
}

/// Where each track of a new reader starts, as RTP-Info tells it: the first packets that it will get.
pub fn start_points(
    publication: &Publication,
    cursor: &Cursor,
    medias: &[Media],
    now: std::time::Instant,
) -> Vec<StartPoint> {
    let stream = &publication.stream;
    let Some(position) = cursor.position() else {
        // It waits for a keyframe that has no number yet.
        return vec![StartPoint::default(); medias.len()];
    };
    let bytes = stream.get(position..stream.head()).unwrap_or_default();
    medias
        .iter()
        .map(|media| {
            let channel = channel_of(media.track, Plane::Rtp);
            let first = packets(bytes)
                .take(START_SEARCH_MAX)
                .find(|&(at, _)| at == channel)
                .and_then(|(_, packet)| header::parse(packet).ok())
                .map(|header| (header.sequence, header.timestamp));
            let first = first.or_else(|| publication.tracks.next_packet(media.track, now));
            StartPoint {
                sequence: first.map(|(sequence, _)| sequence),
                rtp_time: first.map(|(_, time)| time),
            }
        })
        .collect()
}

/// What a reader was sent; never goes back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outbound {
    /// Bytes as sent, with framing over TCP.
    pub bytes: u64,
    /// RTP and RTCP packets. For a reader over TCP that takes the stream's bytes as they are, as of when it was last
    /// settled.
    pub rtp_packets: u64,
    pub rtcp_packets: u64,
    /// Packets it never got because it was too slow.
    pub packets_discarded: u64,
}

impl std::ops::Add for Outbound {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            bytes: self.bytes + other.bytes,
            rtp_packets: self.rtp_packets + other.rtp_packets,
            rtcp_packets: self.rtcp_packets + other.rtcp_packets,
            packets_discarded: self.packets_discarded + other.packets_discarded,
        }
    }
}

/// What a reader's RTCP says about loss: the packets that it never got of each source that it reports on (RFC 3550
/// §6.4.1).
pub fn reported_losses(datagram: &[u8]) -> impl Iterator<Item = (u32, u32)> + '_ {
    let blocks = rtcp::parse(datagram).map_while(Result::ok).flat_map(|packet| match packet {
        rtcp::Packet::ReceiverReport(report) => report.blocks,
        rtcp::Packet::SenderReport(report) => report.blocks,
        _ => Vec::new(),
    });
    blocks.map(|block| (block.ssrc, u32::try_from(block.cumulative_lost).unwrap_or(0)))
}
