//! The built-in camera: ten seconds of H.264 and Opus that begin again without a seam.
//!
//! The clip is a packet trace in rtpdump format (`make-demo.sh` makes it). Round after round, sequence numbers and
//! time stamps go on where the round before stopped.

use std::time::{Duration, Instant};

use corecast_media::Track;
use corecast_proto::{rtp::header, sdp};

use super::publication::{Now, Plane, Publication};

const TRACE: &[u8] = include_bytes!("demo.rtpdump");
const DESCRIPTION: &[u8] = include_bytes!("demo.sdp");
const ROUND: Duration = Duration::from_secs(10);
/// Packets sent at once when the shard was held up longer than this are not caught up with.
const LATE_MAX: Duration = Duration::from_secs(1);

/// A packet of the trace.
#[derive(Debug, Clone, Copy)]
struct Record {
    /// Since the round began.
    at: Duration,
    track: usize,
    packet: &'static [u8],
}

/// The clip cannot be read: the build is broken.
#[derive(Debug, thiserror::Error)]
#[error("the built-in clip is damaged: {0}")]
pub struct DemoError(&'static str);

/// See the module.
#[derive(Debug)]
pub struct Demo {
    records: Vec<Record>,
    tracks: Vec<Track>,
    /// Packets of each track in a round.
    packets_per_round: Vec<u16>,
    round_began: Instant,
    round: u32,
    next: usize,
    scratch: Vec<u8>,
}

impl Demo {
    /// Begins at `now`.
    pub fn new(now: Instant) -> Result<Self, DemoError> {
        let description = sdp::parse(DESCRIPTION).map_err(|_| DemoError("description"))?;
        let records = read_trace(TRACE, &description.tracks).ok_or(DemoError("trace"))?;
        let count = |track| records.iter().filter(|record| record.track == track).count() as u16;
        Ok(Self {
            packets_per_round: (0..description.tracks.len()).map(count).collect(),
            records,
            tracks: description.tracks,
            round_began: now,
            round: 0,
            next: 0,
            scratch: Vec::new(),
        })
    }

    /// The tracks of the clip.
    pub fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    /// When the next packet is due.
    pub fn deadline(&self) -> Instant {
        self.round_began + self.records[self.next].at
    }

    /// Publishes what is due. True when something was.
    pub fn publish(&mut self, publication: &mut Publication, now: Now) -> bool {
        let late = now.instant.saturating_duration_since(self.deadline());
        if late > LATE_MAX {
            self.round_began += late;
        }
        let mut any = false;
        while self.deadline() <= now.instant {
            let record = self.records[self.next];
            self.scratch.clear();
            self.scratch.extend_from_slice(record.packet);
            self.restamp(record.track);
            publication.append(record.track, Plane::Rtp, &self.scratch, now);
            any = true;
            self.next += 1;
            if self.next == self.records.len() {
                self.next = 0;
                self.round += 1;
                self.round_began += ROUND;
            }
        }
        any
    }

    /// Moves sequence number and time stamp of the scratch packet to the present round (RFC 3550 §5.1).
    fn restamp(&mut self, track: usize) {
        let ticks =
            self.tracks[track].clock_rate.wrapping_mul(ROUND.as_secs() as u32).wrapping_mul(self.round);
        let packets = self.packets_per_round[track].wrapping_mul(self.round as u16);
        let add_u16 = |bytes: [u8; 2]| u16::from_be_bytes(bytes).wrapping_add(packets).to_be_bytes();
        let add_u32 = |bytes: [u8; 4]| u32::from_be_bytes(bytes).wrapping_add(ticks).to_be_bytes();
        if let Some(head) = self.scratch.first_chunk_mut::<8>() {
            let [_, _, s0, s1, t0, t1, t2, t3] = *head;
            head[2..4].copy_from_slice(&add_u16([s0, s1]));
            head[4..8].copy_from_slice(&add_u32([t0, t1, t2, t3]));
        }
    }
}

/// Reads an rtpdump trace: a text line, a 16-byte file header, then records of `length, packet length, offset ms`.
fn read_trace(trace: &'static [u8], tracks: &[Track]) -> Option<Vec<Record>> {
    let line_end = trace.iter().position(|&byte| byte == b'\n')?;
    let mut rest = trace.get(line_end + 1 + 16..)?;
    let mut records = Vec::new();
    while let Some((head, body)) = rest.split_first_chunk::<8>() {
        let [l0, l1, _, _, o0, o1, o2, o3] = *head;
        let length = usize::from(u16::from_be_bytes([l0, l1])).checked_sub(8)?;
        let (packet, after) = body.split_at_checked(length)?;
        let payload_type = header::parse(packet).ok()?.payload_type;
        let track = tracks.iter().position(|track| track.payload_type == payload_type)?;
        let at = Duration::from_millis(u32::from_be_bytes([o0, o1, o2, o3]).into());
        records.push(Record { at, track, packet });
        rest = after;
    }
    (rest.is_empty() && !records.is_empty()).then_some(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use corecast_hub::stream::StreamLimits;
    use corecast_proto::rtsp::interleaved::{Frame, next_frame};

    #[test]
    fn rounds_join_without_a_seam() {
        let mut now = Now { instant: Instant::now(), wall: Duration::from_secs(1_700_000_000) };
        let limits = StreamLimits {
            flush_bytes: 1 << 16,
            flush_after: Duration::from_millis(5),
            ring_bytes_max: 1 << 24,
        };
        let mut demo = Demo::new(now.instant).unwrap();
        let mut publication = Publication::new("demo", demo.tracks(), limits).unwrap();
        let mut last: [Option<(u16, u32)>; 2] = [None; 2];
        let mut seen = 0;
        let mut position = 0;
        while demo.round < 3 {
            now.instant = demo.deadline();
            assert!(demo.publish(&mut publication, now));
            publication.stream.flush(now.instant + Duration::from_secs(1));
            let bytes = publication.stream.get(position..publication.stream.flushed()).unwrap();
            position = publication.stream.flushed();
            let mut at = 0;
            while let Frame::Media { channel, payload, consumed } = next_frame(&bytes[at..]) {
                let header = header::parse(&bytes[at + payload.start..at + payload.end]).unwrap();
                let track = usize::from(channel / 2);
                if let Some((sequence, timestamp)) = last[track] {
                    assert_eq!(header.sequence, sequence.wrapping_add(1), "packet {seen}");
                    let step = header.timestamp.wrapping_sub(timestamp);
                    assert!(
                        [[0, 3600], [960, 960]][track].contains(&step),
                        "track {track} stepped by {step}"
                    );
                }
                last[track] = Some((header.sequence, header.timestamp));
                (seen, at) = (seen + 1, at + consumed);
            }
        }
        assert!(seen > 2 * (250 + 500), "only {seen} packets");
    }

    #[test]
    fn a_long_stall_is_not_caught_up_with() {
        let start = Now { instant: Instant::now(), wall: Duration::from_secs(1) };
        let mut demo = Demo::new(start.instant).unwrap();
        let limits = StreamLimits { flush_bytes: 1, flush_after: Duration::ZERO, ring_bytes_max: 1 << 20 };
        let mut publication = Publication::new("demo", demo.tracks(), limits).unwrap();
        let late = Now { instant: start.instant + Duration::from_secs(60), ..start };
        demo.publish(&mut publication, late);
        assert!(publication.tracks.inbound.rtp_packets < 20, "{:?}", publication.tracks.inbound);
        assert!(demo.deadline() > late.instant);
    }
}
