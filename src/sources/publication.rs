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
use corecast_media::{Codec, Kind, Track, codec::props::CodecProps};
use corecast_proto::{
    rtp::{
        header, payload,
        rtcp::{self, ReportBlock, SenderReport},
    },
    rtsp::interleaved,
    sdp,
};

mod track;

use track::TrackState;

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

impl Inbound {
    /// Everything that was understood. Reports of our own are not among it.
    pub fn packets(&self) -> u64 {
        self.rtp_packets + self.rtcp_packets
    }
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

/// Why a new session with a source cannot go on where the one before stopped: its readers would not understand it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    #[error("the source has {after} tracks now instead of {before}")]
    Count { before: usize, after: usize },
    #[error("track {track} of the source is {after} now instead of {before}")]
    Codec { track: usize, before: &'static str, after: &'static str },
    #[error("track {track} of the source, {codec}, is described differently now")]
    Format { track: usize, codec: &'static str },
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

    /// Looks at the packet that lies at `range` of the stream's pending bytes. `None`: it is nothing for readers, and
    /// has to be taken out.
    pub fn inspect_pending(
        &mut self,
        track: usize,
        plane: Plane,
        range: Range<usize>,
        now: Now,
    ) -> Option<PacketFacts> {
        let packet = &mut self.stream.pending_mut()[range];
        let goes_on = self.tracks.carry_on(track, plane, packet, now.instant);
        if goes_on { self.tracks.inspect(track, plane, packet, now) } else { None }
    }

    /// Takes in a packet that was not received in place.
    pub fn append(&mut self, track: usize, plane: Plane, packet: &[u8], now: Now) {
        if !self.tracks.states.get(track).is_some_and(TrackState::is_continued) {
            return self.append_as_is(track, plane, packet, now);
        }
        let mut copy = std::mem::take(&mut self.report);
        copy.clear();
        copy.extend_from_slice(packet);
        if self.tracks.carry_on(track, plane, &mut copy, now.instant) {
            self.append_as_is(track, plane, &copy, now);
        }
        self.report = copy;
    }

    fn append_as_is(&mut self, track: usize, plane: Plane, packet: &[u8], now: Now) {
        if let Some(facts) = self.tracks.inspect(track, plane, packet, now) {
            self.stream.append(channel_of(track, plane), packet, facts, now.instant);
        }
    }

    /// Goes on with what another session with the same source brings, described as `tracks`: readers see one stream,
    /// with a pause. What was received by halves is dropped.
    ///
    /// # Errors
    /// When readers could not understand what comes; all is as it was, and the publication should end.
    pub fn resume(&mut self, tracks: &[Track]) -> Result<(), Mismatch> {
        self.tracks.resume(tracks)?;
        let half = self.stream.pending().len();
        self.stream.shrink_pending(half);
        Ok(())
    }

    /// Time between key pictures: the longest of late, when there were any.
    pub fn key_interval(&self) -> Option<Duration> {
        let clock_rate = self.tracks.states.get(self.tracks.lead?)?.track.clock_rate;
        let ticks = f64::from(self.stream.key_distance()?);
        (clock_rate > 0).then(|| Duration::from_secs_f64(ticks / f64::from(clock_rate)))
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

    /// The tracks, as they are known by now.
    pub fn list(&self) -> Vec<Track> {
        self.states.iter().map(|state| state.track.clone()).collect()
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

    /// Time stamps that were far from where they should be, over all tracks: the source's clock has jumped.
    pub fn clock_jumps(&self) -> u64 {
        self.states.iter().map(|state| state.clock_jumps).sum()
    }

    /// How often a source began anew within a session, over all tracks: another SSRC, or sequence number.
    pub fn restarts(&self) -> u64 {
        self.states.iter().map(|state| state.receiver.counters.restarts).sum()
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
        self.states.get(track)?.next_packet(now)
    }

    /// Packets that never came, over all tracks.
    pub fn lost(&self) -> u64 {
        self.states.iter().map(|state| state.receiver.counters.lost).sum()
    }

    fn carry_on(&mut self, track: usize, plane: Plane, packet: &mut [u8], now: Instant) -> bool {
        self.states.get_mut(track).is_some_and(|state| state.carry_on(plane, packet, now))
    }

    fn resume(&mut self, tracks: &[Track]) -> Result<(), Mismatch> {
        let (before, after) = (self.states.len(), tracks.len());
        if before != after {
            return Err(Mismatch::Count { before, after });
        }
        for (index, (state, track)) in self.states.iter().zip(tracks).enumerate() {
            state.check_successor(index, track)?;
        }
        let mut changed = false;
        for (state, track) in self.states.iter_mut().zip(tracks) {
            changed |= state.resume(track);
        }
        if changed {
            self.describe();
        }
        Ok(())
    }

    /// The tracks have changed.
    fn describe(&mut self) {
        let tracks: Vec<_> = self.states.iter().map(|state| state.track.clone()).collect();
        self.description = sdp::write(&self.title, &tracks);
        self.revision = self.revision.wrapping_add(1);
    }

    /// Looks at a packet of `track`. `None`: it is nothing for readers, and goes nowhere.
    fn inspect(&mut self, track: usize, plane: Plane, packet: &[u8], now: Now) -> Option<PacketFacts> {
        let state = self.states.get_mut(track)?;
        let mut lead = None;
        match plane {
            Plane::Rtcp => {
                let told = state.on_rtcp(packet, now);
                self.inbound.rtcp_packets += 1;
                if told.amiss {
                    return None;
                }
                if told.time {
                    self.time_told = Some(now.instant);
                }
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
                        self.describe();
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
        let Some(rtp_timestamp) = state.timestamp_at(now.instant) else { return false };
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
pub(super) mod tests;
