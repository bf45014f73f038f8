//! One live publication: the stream that readers share, and what is known of its tracks.

use std::{
    io,
    ops::Range,
    time::{Duration, Instant},
};

use corecast_hub::{
    roster::TrackFacts,
    stream::{LeadFacts, PacketFacts, Stream, StreamLimits},
};
use corecast_media::{ClockRate, Codec, Kind, Track, codec::props::CodecProps};
use corecast_proto::{
    rtp::{
        header,
        payload::{self, ParameterSet},
        rtcp::{self, ReportBlock, SenderReport},
        sequence::Receiver,
        timeline::Timeline,
    },
    rtsp::interleaved,
    sdp,
};

/// Readers are told the time this often when the publisher does not tell it itself.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// The first report of ours comes this long after the first packet, to leave the publisher's own the chance.
const FIRST_REPORT_AFTER: Duration = Duration::from_millis(900);
/// Our name in reports (RFC 3550 §6.5.1).
const CNAME: &str = "corecast";

/// The time, as a shard reads it once per turn.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    pub instant: Instant,
    /// Since the Unix epoch.
    pub wall: Duration,
}

/// Media, or what is told about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plane {
    Rtp,
    Rtcp,
}

/// What was counted of a publication; never goes back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Inbound {
    /// RTP and RTCP bytes, without framing.
    pub bytes: u64,
    pub rtp_packets: u64,
    pub rtcp_packets: u64,
    /// Packets that were no RTP and went nowhere.
    pub packets_in_error: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Publication {
    pub stream: Stream,
    pub tracks: Tracks,
    next_report: Option<Instant>,
    /// Scratch for packets of ours.
    report: Vec<u8>,
}

/// What is known of a publication's tracks.
#[derive(Debug)]
pub struct Tracks {
    pub inbound: Inbound,
    title: String,
    states: Vec<TrackState>,
    lead: Option<usize>,
    /// As readers get it.
    description: String,
    /// How often the description has changed.
    revision: u32,
    first_packet: Option<Instant>,
    /// The publisher last told the time then.
    time_told: Option<Instant>,
}

#[derive(Debug)]
struct TrackState {
    track: Track,
    receiver: Receiver,
    timeline: Option<Timeline>,
    last: Option<LastPacket>,
    packets: u32,
    octets: u32,
    parameter_sets: [Vec<u8>; 3],
}

#[derive(Debug, Clone, Copy)]
struct LastPacket {
    ssrc: u32,
    sequence: u16,
    timestamp_wrapped: u32,
    arrival: Instant,
}

impl Publication {
    /// A publication of the announced tracks. Tracks of no clock rate are kept; their time is not told.
    pub fn new(title: &str, tracks: &[Track], limits: StreamLimits) -> io::Result<Self> {
        let lead = tracks.iter().position(|track| track.kind == Kind::Video);
        Ok(Self {
            stream: Stream::new(limits, lead.is_none())?,
            tracks: Tracks {
                inbound: Inbound::default(),
                title: title.to_owned(),
                states: tracks.iter().cloned().map(TrackState::new).collect(),
                lead,
                description: sdp::write(title, tracks),
                revision: 0,
                first_packet: None,
                time_told: None,
            },
            next_report: None,
            report: Vec::new(),
        })
    }

    /// Looks at the packet that lies at `range` of the stream's pending bytes. `None`: it is not one, and has to be
    /// taken out.
    pub fn inspect_pending(
        &mut self,
        track: usize,
        plane: Plane,
        range: Range<usize>,
        now: Now,
    ) -> Option<PacketFacts> {
        self.tracks.inspect(track, plane, &self.stream.pending()[range], now)
    }

    /// Takes in a packet that was not received in place.
    pub fn append(&mut self, track: usize, plane: Plane, packet: &[u8], now: Now) {
        if let Some(facts) = self.tracks.inspect(track, plane, packet, now) {
            self.stream.append(channel_of(track, plane), packet, facts, now.instant);
        }
    }

    /// Tells readers the time of every track, in the stream itself, if the publisher does not and nothing
    /// half-received is in the way. True when something was added. To be called about once a second.
    pub fn report_time(&mut self, now: Now) -> bool {
        let due = self.next_report.or(self.tracks.first_packet.map(|first| first + FIRST_REPORT_AFTER));
        let told = self.tracks.time_told.map(|told| told + REPORT_INTERVAL);
        if due.max(told).is_none_or(|due| due > now.instant) || !self.stream.is_between_packets() {
            return false;
        }
        self.next_report = Some(now.instant + REPORT_INTERVAL);
        let mut report = std::mem::take(&mut self.report);
        let mut added = false;
        for track in 0..self.tracks.count() {
            report.clear();
            if self.tracks.write_report(track, now, &mut report) {
                let facts = PacketFacts { framed_bytes: report.len() + interleaved::HEADER, lead: None };
                self.stream.append(channel_of(track, Plane::Rtcp), &report, facts, now.instant);
                added = true;
            }
        }
        self.report = report;
        added
    }
}

impl Tracks {
    /// The SDP that readers get.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Another one whenever the tracks are described differently.
    pub fn revision(&self) -> u32 {
        self.revision
    }

    /// The tracks as the API shows them.
    pub fn facts(&self) -> Vec<TrackFacts> {
        let of = |TrackState { track, .. }: &TrackState| {
            let key = if track.codec == Codec::H265 { "sprop-sps" } else { "sprop-parameter-sets" };
            let sps = match track.codec {
                Codec::H264 | Codec::H265 => sdp::fmtp::parameter_sets(&track.fmtp, key),
                _ => Vec::new(),
            };
            let props = CodecProps::of(track, |name| sdp::fmtp::get(&track.fmtp, name), sps);
            TrackFacts { codec: track.codec.label(), props }
        };
        self.states.iter().map(of).collect()
    }

    /// Interarrival jitter in thousandths of a tick, the mean of the tracks that have any packets.
    pub fn jitter_milli(&self) -> u64 {
        let (mut sum, mut count) = (0, 0);
        for jitter in self.states.iter().filter_map(|state| state.receiver.jitter_milli()) {
            (sum, count) = (sum + jitter, count + 1);
        }
        sum.checked_div(count).unwrap_or(0)
    }

    /// How many tracks there are.
    pub fn count(&self) -> usize {
        self.states.len()
    }

    /// The codecs of some tracks, as logs name them: `2 tracks (H264, MPEG-4 Audio)`.
    pub fn labels(&self, of: impl IntoIterator<Item = usize>) -> String {
        let of = of.into_iter().filter_map(|track| self.states.get(track));
        let labels: Vec<_> = of.map(|state| state.track.codec.label()).collect();
        format!("{} track{} ({})", labels.len(), if labels.len() == 1 { "" } else { "s" }, labels.join(", "))
    }

    /// The codec of a track.
    pub fn codec(&self, track: usize) -> Option<Codec> {
        Some(self.states.get(track)?.track.codec)
    }

    /// SSRC of a track, once a packet of it came.
    pub fn ssrc(&self, track: usize) -> Option<u32> {
        Some(self.states.get(track)?.last?.ssrc)
    }

    /// Whether the stream has pictures of which some need others, so that a reader should start at a key one.
    pub fn has_keys(&self) -> bool {
        self.lead.is_some()
    }

    /// Sequence number and RTP time of the next packet of a track: what a reader who starts now gets first.
    pub fn next_packet(&self, track: usize, now: Instant) -> Option<(u16, u32)> {
        let state = self.states.get(track)?;
        let last = state.last?;
        Some((last.sequence.wrapping_add(1), state.timestamp_at(last, now)))
    }

    /// Packets that never came, over all tracks.
    pub fn lost(&self) -> u64 {
        self.states.iter().map(|state| state.receiver.counters.lost).sum()
    }

    /// Looks at a packet of `track`. `None`: it is not one, and goes nowhere.
    fn inspect(&mut self, track: usize, plane: Plane, packet: &[u8], now: Now) -> Option<PacketFacts> {
        let state = self.states.get_mut(track)?;
        let mut lead = None;
        match plane {
            Plane::Rtcp => {
                if state.on_rtcp(packet, now.instant) {
                    self.time_told = Some(now.instant);
                }
                self.inbound.rtcp_packets += 1;
            }
            Plane::Rtp => {
                let Ok(header) = header::parse(packet) else {
                    self.inbound.packets_in_error += 1;
                    return None;
                };
                self.first_packet.get_or_insert(now.instant);
                state.on_rtp(&header, now);
                self.inbound.rtp_packets += 1;
                if self.lead == Some(track) {
                    let body = &packet[header.payload];
                    let facts = payload::inspect(state.track.codec, body);
                    if facts.parameter_sets && state.follow_parameter_sets(body) {
                        let tracks: Vec<_> = self.states.iter().map(|state| state.track.clone()).collect();
                        self.description = sdp::write(&self.title, &tracks);
                        self.revision = self.revision.wrapping_add(1);
                    }
                    let (timestamp_wrapped, marker, key) = (header.timestamp, header.marker, facts.key);
                    lead = Some(LeadFacts { timestamp_wrapped, marker, key });
                }
            }
        }
        self.inbound.bytes += packet.len() as u64;
        Some(PacketFacts { framed_bytes: packet.len() + interleaved::HEADER, lead })
    }

    /// Writes a sender report of `track` as of now (RFC 3550 §6.4.1). False when its time is not known yet.
    pub fn write_report(&self, track: usize, now: Now, out: &mut Vec<u8>) -> bool {
        let Some(state) = self.states.get(track) else { return false };
        let Some(last) = state.last else { return false };
        let rtp_timestamp = state.timestamp_at(last, now.instant);
        let Some(ntp) = state.timeline.as_ref().and_then(|timeline| timeline.ntp(rtp_timestamp)) else {
            return false;
        };
        let (packets, octets) = (state.packets, state.octets);
        let report =
            SenderReport { ssrc: last.ssrc, ntp, rtp_timestamp, packets, octets, blocks: Vec::new() };
        rtcp::write_sender_report(&report, CNAME, out);
        true
    }

    /// What to tell a publisher about how its packets of `track` arrive (RFC 3550 §6.4.2).
    pub fn reception(&mut self, track: usize, now: Instant) -> Option<ReportBlock> {
        self.states.get_mut(track)?.receiver.report(now)
    }
}

impl TrackState {
    fn new(track: Track) -> Self {
        Self {
            receiver: Receiver::new(),
            timeline: ClockRate::new(track.clock_rate).map(Timeline::new),
            last: None,
            packets: 0,
            octets: 0,
            parameter_sets: Default::default(),
            track,
        }
    }

    fn on_rtp(&mut self, header: &header::Header, now: Now) {
        self.receiver.on_packet(header, now.instant, self.track.clock_rate);
        if self.last.is_none_or(|last| last.timestamp_wrapped != header.timestamp)
            && let Some(timeline) = &mut self.timeline
        {
            if self.last.is_some_and(|last| last.ssrc != header.ssrc) {
                timeline.reset();
            }
            timeline.on_packet(header.timestamp, now.wall);
        }
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(header.payload.len() as u32);
        self.last = Some(LastPacket {
            ssrc: header.ssrc,
            sequence: header.sequence,
            timestamp_wrapped: header.timestamp,
            arrival: now.instant,
        });
    }

    /// True when the packet told the time.
    fn on_rtcp(&mut self, packet: &[u8], now: Instant) -> bool {
        let mut told = false;
        for report in rtcp::parse(packet).map_while(Result::ok) {
            if let rtcp::Packet::SenderReport(report) = report {
                self.receiver.on_sender_report(report.ssrc, report.ntp, now);
                if let Some(timeline) = &mut self.timeline {
                    timeline.on_sender_report(&report);
                }
                told = true;
            }
        }
        told
    }

    /// RTP time at `now`, if the track's clock went on since its last packet.
    fn timestamp_at(&self, last: LastPacket, now: Instant) -> u32 {
        let gone = now.saturating_duration_since(last.arrival).min(Duration::from_secs(60));
        let ticks = ClockRate::new(self.track.clock_rate).map_or(0, |rate| rate.ticks_wrapped(gone));
        last.timestamp_wrapped.wrapping_add(ticks)
    }

    /// Takes over parameter sets that differ from the announced ones. True when the description changed.
    fn follow_parameter_sets(&mut self, payload: &[u8]) -> bool {
        let mut changed = false;
        payload::for_each_parameter_set(self.track.codec, payload, &mut |kind, nal| {
            let slot = &mut self.parameter_sets[kind as usize];
            if slot != nal {
                slot.clear();
                slot.extend_from_slice(nal);
                changed = true;
            }
        });
        if !changed {
            return false;
        }
        let [vps, sps, pps] = &self.parameter_sets;
        let mut fmtp = self.track.fmtp.clone();
        let mut set = |name: &str, value: &str| fmtp = sdp::fmtp::set(&fmtp, name, value);
        match self.track.codec {
            Codec::H264 if !sps.is_empty() && !pps.is_empty() => {
                let sets = [sps.as_slice(), pps.as_slice()];
                set("sprop-parameter-sets", &sdp::fmtp::encode_parameter_sets(sets));
                if let [_, profile, constraints, level, ..] = sps[..] {
                    set("profile-level-id", &format!("{profile:02X}{constraints:02X}{level:02X}"));
                }
            }
            Codec::H265 if !vps.is_empty() && !sps.is_empty() && !pps.is_empty() => {
                for (name, unit) in [("sprop-vps", vps), ("sprop-sps", sps), ("sprop-pps", pps)] {
                    set(name, &sdp::base64::encode(unit));
                }
            }
            _ => {}
        }
        let changed = self.track.fmtp != fmtp;
        self.track.fmtp = fmtp;
        changed
    }
}

// `parameter_sets` is indexed by kind.
const _: () = assert!(
    ParameterSet::Vps as usize == 0 && ParameterSet::Sps as usize == 1 && ParameterSet::Pps as usize == 2
);

/// The channel of a track in the stream: the pair that every client asks for (RFC 2326 §10.12).
pub fn channel_of(track: usize, plane: Plane) -> u8 {
    let rtp = u8::try_from(2 * track).unwrap_or(u8::MAX - 1);
    match plane {
        Plane::Rtp => rtp,
        Plane::Rtcp => rtp + 1,
    }
}

/// The inverse of [`channel_of`].
pub fn track_of(channel: u8) -> (usize, Plane) {
    (usize::from(channel / 2), if channel.is_multiple_of(2) { Plane::Rtp } else { Plane::Rtcp })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One H.264 NAL unit in a packet of its own (RFC 6184 §5.6).
    fn packet(sequence: u8, nal: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x80, 96, 0, sequence, 0, 0, 0, 1, 0, 0, 0, 9];
        packet.extend_from_slice(nal);
        packet
    }

    #[test]
    fn a_picture_size_that_comes_with_the_pictures_changes_what_is_told_of_the_track() {
        let track = Track {
            kind: Kind::Video,
            codec: Codec::H264,
            payload_type: 96,
            clock_rate: 90_000,
            channels: None,
            encoding: "H264".to_owned(),
            fmtp: "packetization-mode=1".to_owned(),
            control: String::new(),
        };
        let limits = StreamLimits {
            flush_bytes: 1 << 16,
            flush_after: Duration::from_millis(5),
            ring_bytes_max: 1 << 20,
        };
        let now = Now { instant: Instant::now(), wall: Duration::from_secs(1) };
        let mut publication = Publication::new("cam", &[track], limits).unwrap();
        let sps = sdp::base64::decode("Z01AHtoCgL/lwEQAAAMABAAAAwDIPFi6gA==").unwrap();
        publication.append(0, Plane::Rtp, &packet(1, &sps), now);
        let unknown = publication.tracks.facts();
        assert!(matches!(unknown[0].props, CodecProps::Video { width: 0, height: 0, .. }), "{unknown:?}");
        publication.append(0, Plane::Rtp, &packet(2, &[0x68, 0xef, 0x3c, 0x80]), now);
        let revision = publication.tracks.revision();
        assert_eq!(revision, 1);
        let want = CodecProps::Video { width: 640, height: 360, profile: "Main".into(), level: "3".into() };
        assert_eq!(publication.tracks.facts(), [TrackFacts { codec: "H264", props: want }]);
        // The same again is no news.
        publication.append(0, Plane::Rtp, &packet(3, &sps), now);
        assert_eq!(publication.tracks.revision(), revision);
    }
}
