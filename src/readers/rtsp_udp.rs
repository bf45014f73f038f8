//! A reader over RTSP/UDP: one GSO send per run of equal packets, straight out of the ring.

use std::{
    net::SocketAddr,
    ops::Range,
    time::{Duration, Instant},
};

use corecast_hub::{cursor::Cursor, stream::Stream};
use corecast_proto::rtsp::server::{Delivery, Media};

use super::{Outbound, packets, whole_packets};
use crate::{
    shard::media_io::{Batch, GSO_BYTES_MAX, Group, SEGMENTS_MAX},
    sources::publication::{Plane, channel_of},
};

/// A new reader gets the cached GOP at this many times the stream's own rate …
const PACE_FACTOR: u64 = 8;
/// … but at least at this rate, bytes per second, …
const PACE_MIN: u64 = 1_000_000;
/// … and never more at once than a default receive buffer holds with room to spare, bytes.
const PACE_BYTES_MAX: u64 = 48 * 1024;
/// How often a paced reader is served.
pub const PACE_INTERVAL: Duration = Duration::from_millis(2);

/// Where one channel of the stream goes.
#[derive(Debug, Clone, Copy)]
struct Destination {
    channel: u8,
    address: SocketAddr,
    /// RTCP leaves from the RTCP port.
    plane: Plane,
}

/// See the module.
#[derive(Debug)]
pub struct UdpReader {
    pub cursor: Cursor,
    pub outbound: Outbound,
    destinations: Vec<Destination>,
    /// `None` once it is live.
    pacing: Option<Pacing>,
    /// The kernel refused GSO towards this reader; sticky.
    single: bool,
}

/// How far a reader has been brought to the present.
#[derive(Debug, Clone, Copy)]
struct Pacing {
    /// When it had its place: at once, or when the keyframe came that it waited for.
    since: Option<Instant>,
    /// Bytes since then.
    sent: u64,
}

/// A run of packets of one channel that can leave with one send.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    channel: u8,
    group: Group,
    segment: Option<u16>,
    bytes: u32,
}

impl UdpReader {
    /// `to_address` gives the address of a port of the client.
    pub fn new(cursor: Cursor, medias: &[Media], to_address: impl Fn(u16) -> SocketAddr) -> Self {
        let mut destinations = Vec::new();
        for media in medias {
            if let Delivery::Udp { rtp_port, rtcp_port } = media.delivery {
                for (plane, port) in [(Plane::Rtp, rtp_port), (Plane::Rtcp, rtcp_port)] {
                    let (channel, address) = (channel_of(media.track, plane), to_address(port));
                    destinations.push(Destination { channel, address, plane });
                }
            }
        }
        let pacing = Some(Pacing { since: None, sent: 0 });
        Self { cursor, outbound: Outbound::default(), destinations, pacing, single: false }
    }

    /// It is still being brought from the cached GOP to the present.
    pub fn is_pacing(&self) -> bool {
        self.pacing.is_some()
    }

    /// The kernel does not cut datagrams towards this reader (no checksum offload on the way): send them singly.
    pub fn give_up_gso(&mut self) {
        self.single = true;
    }

    pub fn uses_gso(&self) -> bool {
        !self.single
    }

    /// What a live reader gets: all that was flushed. The same for all live readers of the stream.
    pub fn take_live(&mut self, stream: &Stream, now: Instant) -> Option<Range<u64>> {
        let mut range = self.cursor.due(stream, u64::MAX >> 1)?;
        if stream.get(range.clone()).is_none() {
            // A publisher's burst went round the ring within one turn.
            let lapse = self.cursor.catch_up(stream, now, Duration::MAX)?;
            self.outbound.packets_discarded += lapse.packets;
            range = self.cursor.due(stream, u64::MAX >> 1)?;
        }
        self.cursor.advance(range.end);
        Some(range)
    }

    /// What a reader that is catching up gets now; `None` when it has to wait. Ends the pacing at the present.
    pub fn take_paced(&mut self, stream: &Stream, now: Instant) -> Option<Range<u64>> {
        let pacing = self.pacing.as_mut()?;
        let range = self.cursor.due(stream, u64::MAX >> 1)?;
        let Some(bytes) = stream.get(range.clone()) else {
            if let Some(lapse) = self.cursor.catch_up(stream, now, Duration::MAX) {
                self.outbound.packets_discarded += lapse.packets;
            }
            return None;
        };
        let age = stream.age(range.start, now).max(Duration::from_millis(100));
        let rate = ((bytes.len() as u64 * PACE_FACTOR * 1000) / age.as_millis() as u64).max(PACE_MIN);
        let elapsed = now.duration_since(*pacing.since.get_or_insert(now)) + PACE_INTERVAL;
        let allowed = rate * elapsed.as_micros() as u64 / 1_000_000;
        let allowance = allowed.saturating_sub(pacing.sent).min(PACE_BYTES_MAX);
        if allowance == 0 {
            return None;
        }
        let length = whole_packets(bytes, allowance as usize) as u64;
        pacing.sent += length;
        if length == bytes.len() as u64 {
            self.pacing = None;
        }
        self.cursor.advance(range.start + length);
        Some(range.start..range.start + length)
    }

    /// Something waits for its time: not so while it waits for a keyframe.
    pub fn paces(&mut self, stream: &Stream) -> bool {
        self.pacing.is_some() && self.cursor.due(stream, 1).is_some()
    }

    /// Adds the sends of `runs` that concern this reader to `batch`.
    pub fn send(&mut self, batch: &mut Batch<'_, '_>, sockets: &Sockets, token: u64, runs: &[Run]) {
        for destination in &self.destinations {
            let fd = match destination.plane {
                Plane::Rtp => sockets.rtp,
                Plane::Rtcp => sockets.rtcp,
            };
            for run in runs.iter().filter(|run| run.channel == destination.channel) {
                batch.send_group(fd, token, Some(destination.address), run.group, run.segment);
                self.outbound.bytes += u64::from(run.bytes);
            }
        }
    }

    /// Where the packets of a channel go.
    pub fn address_of(&self, channel: u8) -> Option<SocketAddr> {
        self.destinations.iter().find(|destination| destination.channel == channel).map(|found| found.address)
    }

    /// Every address it may report from.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.destinations.iter().map(|destination| destination.address)
    }

    /// Some datagrams of it were dropped on the way out.
    pub fn dropped(&mut self) {
        self.outbound.packets_discarded += 1;
    }
}

/// Descriptors of our UDP ports.
#[derive(Debug, Clone, Copy)]
pub struct Sockets {
    pub rtp: std::os::fd::RawFd,
    pub rtcp: std::os::fd::RawFd,
}

/// Groups the packets of `bytes` into runs that one send each can carry: same channel, same length but for a
/// shorter last one, and none longer than `payload_max`. With `gso` off, one packet each.
pub fn group_runs<'bytes>(
    bytes: &'bytes [u8],
    gso: bool,
    payload_max: usize,
    batch: &mut Batch<'_, 'bytes>,
    scratch: &mut Vec<Range<usize>>,
    runs: &mut Vec<Run>,
) {
    runs.clear();
    let mut seen: u128 = 0;
    for (channel, _) in packets(bytes) {
        if usize::from(channel) < 128 {
            seen |= 1 << channel;
        }
    }
    for channel in (0..128_u8).filter(|&channel| seen & (1 << channel) != 0) {
        scratch.clear();
        let (mut total, mut closed) = (0, false);
        for (_, packet) in packets(bytes).filter(|&(at, _)| at == channel) {
            let start = packet.as_ptr() as usize - bytes.as_ptr() as usize;
            let range = start..start + packet.len();
            let segment = scratch.first().map_or(packet.len(), Range::len);
            let fits = gso
                && !closed
                && packet.len() <= segment
                // Longer ones go alone: the IP layer cuts them, which it does not do with segments.
                && packet.len() <= payload_max
                && scratch.len() < SEGMENTS_MAX
                && total + packet.len() <= GSO_BYTES_MAX;
            if !fits && !scratch.is_empty() {
                runs.push(run_of(channel, bytes, scratch, batch));
                scratch.clear();
                (total, closed) = (0, false);
            }
            // Only the last packet of a run may be shorter.
            closed |= scratch.first().is_some_and(|first| packet.len() < first.len());
            total += packet.len();
            scratch.push(range);
        }
        if !scratch.is_empty() {
            runs.push(run_of(channel, bytes, scratch, batch));
        }
    }
}

fn run_of<'bytes>(
    channel: u8,
    bytes: &'bytes [u8],
    ranges: &[Range<usize>],
    batch: &mut Batch<'_, 'bytes>,
) -> Run {
    let segment = ranges.first().map(Range::len).and_then(|length| u16::try_from(length).ok());
    Run {
        channel,
        group: batch.group(ranges.iter().map(|range| &bytes[range.clone()])),
        segment: segment.filter(|_| ranges.len() > 1),
        bytes: ranges.iter().map(Range::len).sum::<usize>() as u32,
    }
}
