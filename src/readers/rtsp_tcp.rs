//! A reader over RTSP/TCP: the stream's bytes as they lie in the ring, one send per turn, nothing copied.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use corecast_hub::{
    cursor::{Cursor, Lapse},
    stream::Stream,
};
use corecast_proto::rtsp::{
    interleaved,
    server::{Delivery, Media},
};

use super::{Outbound, packets, whole_packets};
use crate::sources::publication::{Plane, channel_of, track_of};

/// A reader that starts or catches up gets this much per turn at most, bytes, so that it delays nobody.
const BURST_BYTES: u64 = 256 * 1024;

/// What is kept of an access unit that a full socket has cut, bytes.
const REST_BYTES_MAX: usize = 256 * 1024;

/// See the module.
#[derive(Debug)]
pub struct TcpReader {
    pub cursor: Cursor,
    pub outbound: Outbound,
    /// `None`: all tracks on the channels of the stream itself. Else the client's channel for each of ours.
    remap: Option<Box<[Option<u8>; 256]>>,
    in_flight: Range<u64>,
    /// Packets of the stream before the first that it was sent; `None` until then.
    packets_before: Option<u64>,
    /// RTCP packets of the stream before it joined.
    rtcp_before: Option<u64>,
    /// It lost its place and nobody was told yet.
    lapse: Option<Lapse>,
    /// Since when its socket takes nothing.
    blocked_since: Option<Instant>,
}

impl TcpReader {
    /// A reader of the tracks in `medias`, out of `tracks`.
    pub fn new(cursor: Cursor, medias: &[Media], tracks: usize) -> Self {
        let same =
            |media: &Media| media.delivery == Delivery::Tcp { channel: channel_of(media.track, Plane::Rtp) };
        let remap = (medias.len() < tracks || !medias.iter().all(same)).then(|| {
            let mut remap = Box::new([None; 256]);
            for media in medias {
                if let Delivery::Tcp { channel } = media.delivery {
                    remap[usize::from(channel_of(media.track, Plane::Rtp))] = Some(channel);
                    remap[usize::from(channel_of(media.track, Plane::Rtcp))] = Some(channel + 1);
                }
            }
            remap
        });
        Self {
            cursor,
            outbound: Outbound::default(),
            remap,
            in_flight: 0..0,
            packets_before: None,
            rtcp_before: None,
            lapse: None,
            blocked_since: None,
        }
    }

    /// Brings its packet counts up to date; once a second will do. `rtcp_packets` are those of the stream so far. What
    /// is sent as it lies in the ring is not looked at packet by packet: the stream knows how many there were.
    pub fn settle(&mut self, stream: &Stream, rtcp_packets: u64) {
        if self.is_remapped() {
            return;
        }
        let rtcp_before = *self.rtcp_before.get_or_insert(rtcp_packets);
        let (Some(position), Some(packets_before)) = (self.cursor.position(), self.packets_before) else {
            return;
        };
        let passed = stream.packets_before(position).saturating_sub(packets_before);
        let sent = passed.saturating_sub(self.outbound.packets_discarded);
        let rtcp = rtcp_packets.saturating_sub(rtcp_before).min(sent);
        self.outbound.rtcp_packets = self.outbound.rtcp_packets.max(rtcp);
        self.outbound.rtp_packets = self.outbound.rtp_packets.max(sent - rtcp);
    }

    /// It wants other channels than the stream's, or not all tracks: its bytes have to be copied.
    pub fn is_remapped(&self) -> bool {
        self.remap.is_some()
    }

    /// Its socket has no room.
    pub fn is_blocked(&self) -> bool {
        self.blocked_since.is_some()
    }

    /// How long its socket has taken nothing.
    pub fn blocked_for(&self, now: Instant) -> Duration {
        self.blocked_since.map_or(Duration::ZERO, |since| now.duration_since(since))
    }

    /// Its socket has no room, or something else has to go out first.
    pub fn block(&mut self, stream: &Stream, now: Instant) {
        self.blocked_since.get_or_insert(now);
        self.cursor.stick(stream, now);
    }

    /// The socket took something, but not all.
    pub fn progress(&mut self, now: Instant) {
        if let Some(since) = &mut self.blocked_since {
            *since = now;
        }
    }

    /// Its socket has room again: looks whether it lost its place meanwhile.
    pub fn unblock(&mut self, stream: &Stream, now: Instant, lag_max: Duration) {
        self.blocked_since = None;
        self.catch_up(stream, now, lag_max);
    }

    fn catch_up(&mut self, stream: &Stream, now: Instant, lag_max: Duration) {
        if let Some(lapse) = self.cursor.catch_up(stream, now, lag_max) {
            self.outbound.packets_discarded += lapse.packets;
            self.lapse = Some(lapse);
        }
    }

    /// It lost its place since [`Self::take_lapse`] was last asked.
    pub fn has_lapsed(&self) -> bool {
        self.lapse.is_some()
    }

    /// What it lost since this was last asked.
    pub fn take_lapse(&mut self) -> Option<Lapse> {
        self.lapse.take()
    }

    /// What to send next, as it lies in the ring. Counted as sent; what was not is told by [`Self::unsent`].
    pub fn take<'stream>(&mut self, stream: &'stream Stream, now: Instant) -> Option<&'stream [u8]> {
        let (range, bytes) = self.due(stream, now)?;
        if self.packets_before.is_none() {
            self.packets_before = Some(stream.packets_before(range.start));
        }
        self.cursor.advance(range.end);
        self.outbound.bytes += range.end - range.start;
        self.in_flight = range;
        Some(bytes)
    }

    fn due<'stream>(&mut self, stream: &'stream Stream, now: Instant) -> Option<(Range<u64>, &'stream [u8])> {
        let mut range = self.cursor.due(stream, u64::MAX >> 1)?;
        if stream.get(range.clone()).is_none() {
            // A publisher's burst went round the ring within one turn.
            self.catch_up(stream, now, Duration::MAX);
            range = self.cursor.due(stream, u64::MAX >> 1)?;
        }
        let bytes = stream.get(range.clone())?;
        if range.end - range.start <= BURST_BYTES {
            return Some((range, bytes));
        }
        let length = whole_packets(bytes, BURST_BYTES as usize);
        Some((range.start..range.start + length as u64, &bytes[..length]))
    }

    /// There is more to send than [`Self::take`] gave.
    pub fn has_more(&mut self, stream: &Stream) -> bool {
        self.cursor.due(stream, 1).is_some()
    }

    /// Only `sent` bytes of the last taken ones went out. Gives the rest of the access unit that was cut, which has to
    /// go out before anything else: should the reader lose its place meanwhile, it still has whole pictures only. Of a
    /// very large one, the rest of the packet.
    ///
    /// `None` when the bytes are overwritten, so that a cut packet cannot be finished: the reader has to be closed. It
    /// does not happen while short sends are worked on before anything is received.
    pub fn unsent<'stream>(
        &mut self,
        stream: &'stream Stream,
        sent: usize,
        now: Instant,
    ) -> Option<&'stream [u8]> {
        let bytes = stream.get(self.in_flight.clone())?;
        let packet_end = whole_packets(bytes, sent);
        let unit_end = stream.unit_boundary(self.in_flight.start + packet_end as u64).min(self.in_flight.end);
        let unit_end = (unit_end - self.in_flight.start) as usize;
        let boundary = if unit_end - sent.min(unit_end) <= REST_BYTES_MAX { unit_end } else { packet_end };
        let place = self.in_flight.start + boundary as u64;
        self.outbound.bytes -= self.in_flight.end - place;
        self.cursor.advance(place);
        self.block(stream, now);
        Some(&bytes[sent.min(boundary)..boundary])
    }

    /// For a remapped reader: appends what to send next to `out`. False when there is nothing.
    pub fn copy_next(&mut self, stream: &Stream, now: Instant, out: &mut Vec<u8>) -> bool {
        let Some((range, bytes)) = self.due(stream, now) else { return false };
        self.cursor.advance(range.end);
        let Some(remap) = &self.remap else { return false };
        let before = out.len();
        for (ours, packet) in packets(bytes) {
            if let Some(theirs) = remap[usize::from(ours)] {
                out.extend_from_slice(&interleaved::write_header(theirs, packet.len() as u16));
                out.extend_from_slice(packet);
                match track_of(ours).1 {
                    Plane::Rtp => self.outbound.rtp_packets += 1,
                    Plane::Rtcp => self.outbound.rtcp_packets += 1,
                }
            }
        }
        self.outbound.bytes += (out.len() - before) as u64;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corecast_hub::stream::{LeadFacts, PacketFacts, StreamLimits};

    fn stream(frames: u32) -> Stream {
        let limits = StreamLimits {
            flush_bytes: 1 << 16,
            flush_after: Duration::from_millis(5),
            ring_bytes_max: 1 << 22,
        };
        let now = Instant::now();
        let mut stream = Stream::new(limits, false).unwrap();
        for frame in 0..frames {
            let lead = Some(LeadFacts { timestamp_wrapped: frame, marker: true, key: frame == 0 });
            stream.append(0, &[frame as u8; 996], PacketFacts { framed_bytes: 1000, lead }, now);
            stream.append(2, &[frame as u8; 96], PacketFacts { framed_bytes: 100, lead: None }, now);
        }
        stream.flush(now);
        stream
    }

    fn media(track: usize, channel: u8) -> Media {
        Media { track, delivery: Delivery::Tcp { channel } }
    }

    #[test]
    fn the_usual_channels_need_no_copy_and_others_do() {
        let cursor = Cursor::join(&stream(1), true, true);
        assert!(!TcpReader::new(cursor, &[media(0, 0), media(1, 2)], 2).is_remapped());
        assert!(TcpReader::new(cursor, &[media(0, 0)], 2).is_remapped());
        assert!(TcpReader::new(cursor, &[media(0, 2), media(1, 0)], 2).is_remapped());
    }

    #[test]
    fn a_cut_access_unit_is_finished_before_anything_else() {
        let (stream, now) = (stream(3), Instant::now());
        let cursor = Cursor::join(&stream, true, true);
        let mut reader = TcpReader::new(cursor, &[media(0, 0), media(1, 2)], 2);
        assert_eq!(reader.take(&stream, now).unwrap().len(), 3300);
        // Cut in the second picture: its audio rides along, the third waits.
        let rest = reader.unsent(&stream, 1450, now).unwrap();
        assert_eq!(rest, stream.get(1450..2200).unwrap());
        assert_eq!(reader.cursor.position(), Some(2200));
        assert_eq!(reader.outbound.bytes, 2200);
        assert!(reader.is_blocked());
        reader.unblock(&stream, now, Duration::from_secs(10));
        assert_eq!(reader.take_lapse(), None);
        assert_eq!(reader.take(&stream, now).unwrap(), stream.get(2200..3300).unwrap());
        assert_eq!(reader.unsent(&stream, 0, now), Some(&b""[..]));
        assert_eq!(reader.cursor.position(), Some(2200));
    }

    #[test]
    fn a_burst_ends_between_packets() {
        let stream = stream(1000);
        let mut reader = TcpReader::new(Cursor::join(&stream, true, true), &[media(0, 0), media(1, 2)], 2);
        let mut total = 0;
        while let Some(bytes) = reader.take(&stream, Instant::now()) {
            assert_eq!(whole_packets(bytes, usize::MAX), bytes.len());
            assert!(bytes.len() <= BURST_BYTES as usize + 1000);
            total += bytes.len();
        }
        assert_eq!(total, 1100 * 1000);
        assert!(!reader.has_more(&stream));
    }

    #[test]
    fn a_remapped_reader_gets_its_tracks_on_its_channels() {
        let stream = stream(2);
        let mut reader = TcpReader::new(Cursor::join(&stream, true, true), &[media(1, 4)], 2);
        let mut out = Vec::new();
        assert!(reader.copy_next(&stream, Instant::now(), &mut out));
        let got: Vec<_> = packets(&out).map(|(channel, packet)| (channel, packet.len(), packet[0])).collect();
        assert_eq!(got, [(4, 96, 0), (4, 96, 1)]);
        assert_eq!((reader.outbound.rtp_packets, reader.outbound.rtcp_packets), (2, 0));
        assert!(!reader.copy_next(&stream, Instant::now(), &mut out));
    }

    #[test]
    fn packets_sent_as_they_lie_are_counted_by_place() {
        let (stream, now) = (stream(10), Instant::now());
        let mut reader = TcpReader::new(Cursor::join(&stream, true, true), &[media(0, 0), media(1, 2)], 2);
        reader.settle(&stream, 3);
        assert_eq!(reader.outbound.rtp_packets, 0);
        assert!(reader.take(&stream, now).is_some());
        reader.settle(&stream, 5);
        assert_eq!((reader.outbound.rtp_packets, reader.outbound.rtcp_packets), (18, 2));
    }
}
