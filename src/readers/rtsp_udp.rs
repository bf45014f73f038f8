//! A reader over RTSP/UDP: one GSO send per run of equal packets, straight out of the ring. Once a packet for it was
//! too long for a datagram, copies of its own: long packets cut, and all that follow numbered on.

use std::{
    net::SocketAddr,
    ops::Range,
    time::{Duration, Instant},
};

use corecast_hub::{cursor::Cursor, stream::Stream};
use corecast_media::Codec;
use corecast_proto::{
    rtp::payload::refragment::{self, refragment},
    rtsp::{
        interleaved,
        server::{Delivery, Media},
    },
};

use super::{Outbound, packets, whole_packets};
use crate::{
    shard::media_io::{Batch, GSO_BYTES_MAX, Group, SEGMENTS_MAX},
    sources::publication::{Plane, Tracks, channel_of, track_of},
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
    /// How far this reader's sequence numbers are ahead of the stream's: by the packets that its long ones became,
    /// less one each. Wraps; none at its start, so that RTP-Info is right.
    ahead: u16,
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
    packets: u32,
}

impl UdpReader {
    /// `to_address` gives the address of a port of the client.
    pub fn new(cursor: Cursor, medias: &[Media], to_address: impl Fn(u16) -> SocketAddr) -> Self {
        let mut destinations = Vec::new();
        for media in medias {
            if let Delivery::Udp { rtp_port, rtcp_port } = media.delivery {
                for (plane, port) in [(Plane::Rtp, rtp_port), (Plane::Rtcp, rtcp_port)] {
                    let (channel, address) = (channel_of(media.track, plane), to_address(port));
                    destinations.push(Destination { channel, address, plane, ahead: 0 });
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

    /// It cannot take packets as they are: some of the `oversize` channels are its, or its numbers have moved.
    pub fn needs_rewrite(&self, oversize: u128) -> bool {
        self.destinations
            .iter()
            .any(|destination| destination.ahead != 0 || oversize & bit(destination.channel) != 0)
    }

    /// Appends the packets of `bytes` that are for this reader to `out`, framed as they were, none that can be cut
    /// longer than `payload_max`, numbered without a gap. Gives the length of the first that was cut. `packet` is
    /// room for one.
    pub fn rewrite(
        &mut self,
        bytes: &[u8],
        tracks: &Tracks,
        payload_max: usize,
        packet: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        let mut cut = None;
        for (channel, whole) in packets(bytes) {
            let Some(destination) = self.destinations.iter_mut().find(|one| one.channel == channel) else {
                continue;
            };
            let mut append = |packet: &[u8]| {
                out.extend_from_slice(&interleaved::write_header(channel, packet.len() as u16));
                out.extend_from_slice(packet);
            };
            let (Some(codec), Some(&[_, _, high, low])) =
                (codec_to_cut(tracks, channel), whole.first_chunk())
            else {
                append(whole);
                continue;
            };
            let sequence = u16::from_be_bytes([high, low]).wrapping_add(destination.ahead);
            let count = refragment(codec, whole, sequence, payload_max, packet, &mut append);
            if count > 1 {
                destination.ahead = destination.ahead.wrapping_add((count - 1) as u16);
                cut.get_or_insert(whole.len());
            }
        }
        cut
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
                match destination.plane {
                    Plane::Rtp => self.outbound.rtp_packets += u64::from(run.packets),
                    Plane::Rtcp => self.outbound.rtcp_packets += u64::from(run.packets),
                }
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

/// The channels on which `bytes` have a packet that is longer than `payload_max` and may be cut, as bits.
pub fn oversize_channels(bytes: &[u8], tracks: &Tracks, payload_max: usize) -> u128 {
    let oversize = packets(bytes)
        .filter(|&(channel, packet)| packet.len() > payload_max && codec_to_cut(tracks, channel).is_some());
    oversize.fold(0, |channels, (channel, _)| channels | bit(channel))
}

fn bit(channel: u8) -> u128 {
    1_u128.checked_shl(channel.into()).unwrap_or(0)
}

/// The codec of a channel whose packets can be cut.
fn codec_to_cut(tracks: &Tracks, channel: u8) -> Option<Codec> {
    match track_of(channel) {
        (track, Plane::Rtp) => tracks.codec(track).filter(|&codec| refragment::is_supported(codec)),
        (_, Plane::Rtcp) => None,
    }
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
        packets: ranges.len() as u32,
    }
}

#[cfg(test)]
mod tests {
    use corecast_hub::stream::StreamLimits;
    use corecast_media::{Kind, Track};
    use corecast_proto::rtp::header;

    use super::*;
    use crate::sources::publication::Publication;

    const MAX: usize = 1_452;

    fn publication() -> Publication {
        let track = |kind, codec| Track {
            kind,
            codec,
            payload_type: 96,
            clock_rate: 90_000,
            channels: None,
            encoding: String::new(),
            fmtp: String::new(),
            control: String::new(),
        };
        let limits = StreamLimits {
            flush_bytes: 1 << 16,
            flush_after: Duration::from_millis(5),
            ring_bytes_max: 1 << 22,
        };
        let tracks = [
            track(Kind::Video, Codec::H264),
            track(Kind::Video, Codec::Mjpeg),
            track(Kind::Video, Codec::H265),
        ];
        Publication::new("test", &tracks, limits).unwrap()
    }

    fn reader(publication: &Publication) -> UdpReader {
        let medias: Vec<_> = (0..3)
            .map(|track| {
                let port = 5_000 + 2 * track as u16;
                Media { track, delivery: Delivery::Udp { rtp_port: port, rtcp_port: port + 1 } }
            })
            .collect();
        let cursor = Cursor::join(&publication.stream, true, true);
        UdpReader::new(cursor, &medias, |port| SocketAddr::from(([127, 0, 0, 1], port)))
    }

    fn framed(channel: u8, sequence: u16, length: usize) -> Vec<u8> {
        let mut frame = interleaved::write_header(channel, length as u16).to_vec();
        frame.extend_from_slice(&[0x80, 96]);
        frame.extend_from_slice(&sequence.to_be_bytes());
        frame.extend_from_slice(&[0; 8]);
        frame.resize(interleaved::HEADER + length, 0x26);
        frame
    }

    fn rewrite(reader: &mut UdpReader, publication: &Publication, bytes: &[u8]) -> (Option<usize>, Vec<u8>) {
        let mut out = Vec::new();
        let cut = reader.rewrite(bytes, &publication.tracks, MAX, &mut Vec::new(), &mut out);
        (cut, out)
    }

    fn numbers(bytes: &[u8], channel: u8) -> Vec<u16> {
        let packets = packets(bytes).filter(|&(at, _)| at == channel);
        packets.map(|(_, packet)| header::parse(packet).unwrap().sequence).collect()
    }

    #[test]
    fn only_long_packets_that_can_be_cut_keep_a_reader_from_the_shared_way() {
        let publication = publication();
        let reader = reader(&publication);
        for (channel, length, oversize) in [
            (0, MAX, 0),
            (0, MAX + 1, 1),
            (1, MAX + 1, 0), // RTCP
            (2, MAX + 1, 0), // another codec
            (4, MAX + 1, 1 << 4),
            (6, MAX + 1, 0), // no track
            (200, MAX + 1, 0),
        ] {
            let bytes = framed(channel, 1, length);
            assert_eq!(oversize_channels(&bytes, &publication.tracks, MAX), oversize, "{channel}");
            assert_eq!(reader.needs_rewrite(oversize), oversize != 0);
        }
        // Someone else's.
        assert!(!reader.needs_rewrite(1 << 8));
    }

    #[test]
    fn numbers_go_on_without_a_gap_on_each_channel_by_itself() {
        let publication = publication();
        let mut reader = reader(&publication);
        let bytes = [
            framed(0, 65_533, 100),
            framed(0, 65_534, 4_000), // becomes three
            framed(4, 7, 2_000),      // becomes two
            framed(2, 9, 4_000),
            framed(1, 3, 1_500),
            framed(0, 65_535, 100),
            framed(8, 1, 4_000),
        ]
        .concat();
        let (cut, out) = rewrite(&mut reader, &publication, &bytes);
        assert_eq!(cut, Some(4_000));
        assert_eq!(numbers(&out, 0), [65_533, 65_534, 65_535, 0, 1]);
        assert_eq!(numbers(&out, 4), [7, 8]);
        assert!(numbers(&out, 8).is_empty());
        for (channel, sequence, length) in [(2, 9, 4_000), (1, 3, 1_500)] {
            let unchanged = framed(channel, sequence, length);
            let found = packets(&out).find(|&(at, _)| at == channel).unwrap().1;
            assert_eq!(found, &unchanged[interleaved::HEADER..]);
        }
        assert!(packets(&out).all(|(channel, packet)| packet.len() <= MAX || channel <= 2 && channel != 0));
        // From now on every range, whatever is in it.
        assert!(reader.needs_rewrite(0));
        let next = [framed(0, 0, 50), framed(4, 8, 50), framed(2, 10, 50), framed(1, 4, 50)].concat();
        let (cut, out) = rewrite(&mut reader, &publication, &next);
        assert_eq!(cut, None);
        assert_eq!((numbers(&out, 0), numbers(&out, 4)), (vec![2], vec![9]));
        assert_eq!((numbers(&out, 2), numbers(&out, 1)), (vec![10], vec![4]));
    }
}
