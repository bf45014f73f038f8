//! What is known of one track: its clock, its losses, its parameter sets, and where it stands.

use std::time::{Duration, Instant};

use corecast_media::{ClockRate, Codec, Track};
use corecast_proto::{
    rtp::{
        header::Header,
        payload::{self, ParameterSet},
        rtcp,
        sequence::Receiver,
        timeline::Timeline,
    },
    sdp,
};

use super::{Mismatch, Now, Plane};
use crate::sources::continuity::{Continuity, Standing};

/// A time stamp that is further than this from where the clock should be is a jump, not jitter.
const CLOCK_JUMP: Duration = Duration::from_secs(5);
/// The time of a track goes on for so long without a packet.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// See the module. Numbers are those that readers get; [`Self::receiver`] alone goes by the source's own.
#[derive(Debug)]
pub(super) struct TrackState {
    pub track: Track,
    pub receiver: Receiver,
    pub timeline: Option<Timeline>,
    pub last: Option<LastPacket>,
    clock: Option<Clock>,
    /// Time stamps that were far from where they should be.
    pub clock_jumps: u64,
    pub packets: u32,
    pub octets: u32,
    parameter_sets: [Vec<u8>; 3],
    /// Since the source has been connected to anew.
    continuity: Option<Box<Continuity>>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct LastPacket {
    pub ssrc: u32,
    sequence: u16,
    timestamp_wrapped: u32,
    arrival: Instant,
}

/// Where the RTP clock was, by the last packet whose time stamp can be believed: one that is hours off stands alone, the
/// next one would confirm it.
#[derive(Debug, Clone, Copy)]
struct Clock {
    timestamp_wrapped: u32,
    arrival: Instant,
    /// Of all since the clock last jumped: pictures come in another order than they are shown.
    highest_wrapped: u32,
}

/// What RTCP of the source said.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The time.
    pub time: bool,
    /// Something that readers are better not told.
    pub amiss: bool,
}

impl TrackState {
    pub fn new(track: Track) -> Self {
        Self {
            receiver: Receiver::new(),
            timeline: ClockRate::new(track.clock_rate).map(Timeline::new),
            last: None,
            clock: None,
            clock_jumps: 0,
            packets: 0,
            octets: 0,
            parameter_sets: Default::default(),
            continuity: None,
            track,
        }
    }

    /// Whether packets have to be rewritten before they are looked at.
    pub fn is_continued(&self) -> bool {
        self.continuity.is_some()
    }

    /// Rewrites a packet that continues an earlier session. False: it must not go on.
    pub fn carry_on(&mut self, plane: Plane, packet: &mut [u8], now: Instant) -> bool {
        let (last, clock, rate) = (self.last, self.clock, ClockRate::new(self.track.clock_rate));
        let Some(continuity) = &mut self.continuity else { return true };
        match plane {
            Plane::Rtcp => continuity.rewrite_rtcp(packet, self.packets, self.octets),
            Plane::Rtp => {
                continuity.rewrite(packet, || {
                    let (last, clock) = last.zip(clock)?;
                    let gone = now.saturating_duration_since(clock.arrival);
                    let by_now =
                        clock.timestamp_wrapped.wrapping_add(rate.map_or(0, |rate| rate.ticks_wrapped(gone)));
                    let after_all = clock.highest_wrapped.wrapping_add(1);
                    let behind = i64::from(after_all.wrapping_sub(by_now) as i32);
                    let behind = rate.map_or(behind, |rate| rate.ticks_to_nanos(behind));
                    let is_behind = behind > 0 && behind.unsigned_abs() <= CLOCK_JUMP.as_nanos() as u64;
                    Some(Standing {
                        sequence: last.sequence.wrapping_add(1),
                        timestamp_wrapped: if is_behind { after_all } else { by_now },
                    })
                });
                true
            }
        }
    }

    pub fn on_rtp(&mut self, header: &Header, now: Now) {
        match &self.continuity {
            None => self.receiver.on_packet(header, now.instant, self.track.clock_rate),
            Some(continuity) => {
                self.receiver.on_packet(&continuity.as_sent(header), now.instant, self.track.clock_rate)
            }
        };
        if self.last.is_some_and(|last| last.ssrc != header.ssrc) {
            // RFC 3550 §6.4.1: its counts begin anew, as its clock does.
            (self.packets, self.octets, self.clock) = (0, 0, None);
            if let Some(timeline) = &mut self.timeline {
                timeline.reset();
            }
        }
        let is_new =
            self.clock.is_none() || self.last.is_none_or(|last| last.timestamp_wrapped != header.timestamp);
        if is_new
            && self.follow_clock(header.timestamp, now.instant)
            && let Some(timeline) = &mut self.timeline
        {
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

    /// Takes a time stamp that differs from that of the packet before. False when it is not to be believed.
    fn follow_clock(&mut self, timestamp_wrapped: u32, arrival: Instant) -> bool {
        let highest_wrapped = match self.clock {
            None => timestamp_wrapped,
            Some(clock)
                if self.follows(timestamp_wrapped, clock.timestamp_wrapped, arrival, clock.arrival) =>
            {
                let ahead = (timestamp_wrapped.wrapping_sub(clock.highest_wrapped) as i32) > 0;
                if ahead { timestamp_wrapped } else { clock.highest_wrapped }
            }
            Some(_)
                if self.last.is_some_and(|last| {
                    self.follows(timestamp_wrapped, last.timestamp_wrapped, arrival, last.arrival)
                }) =>
            {
                timestamp_wrapped
            }
            Some(_) => {
                self.clock_jumps += 1;
                return false;
            }
        };
        self.clock = Some(Clock { timestamp_wrapped, arrival, highest_wrapped });
        true
    }

    /// Whether the clock can have come from `earlier_wrapped` to `timestamp_wrapped` between `then` and `now`.
    fn follows(&self, timestamp_wrapped: u32, earlier_wrapped: u32, now: Instant, then: Instant) -> bool {
        let Some(rate) = ClockRate::new(self.track.clock_rate) else { return true };
        let ticks = timestamp_wrapped.wrapping_sub(earlier_wrapped) as i32;
        let gone = i64::try_from(now.saturating_duration_since(then).as_nanos()).unwrap_or(i64::MAX);
        let off = rate.ticks_to_nanos(i64::from(ticks)).saturating_sub(gone);
        off.unsigned_abs() <= CLOCK_JUMP.as_nanos() as u64
    }

    pub fn on_rtcp(&mut self, packet: &[u8], now: Now) -> Told {
        let source = self.continuity.as_ref().and_then(|continuity| continuity.source_ssrc());
        let mut told = Told::default();
        for report in rtcp::parse(packet).map_while(Result::ok) {
            match report {
                // A source that has no clock says so by time 0 (RFC 3550 §6.4.1). One that tells another clock than that
                // of its packets would have readers show them hours off.
                rtcp::Packet::SenderReport(report)
                    if report.ntp.0 >> 32 == 0
                        || self.clock.is_some_and(|clock| {
                            let (timestamp, now) = (report.rtp_timestamp, now.instant);
                            !self.follows(timestamp, clock.timestamp_wrapped, now, clock.arrival)
                        }) =>
                {
                    told.amiss = true;
                }
                rtcp::Packet::SenderReport(report) => {
                    let ssrc = source.unwrap_or(report.ssrc);
                    self.receiver.on_sender_report(ssrc, report.ntp, now.instant);
                    if let Some(timeline) = &mut self.timeline {
                        timeline.on_sender_report(&report, now.wall);
                    }
                    told.time = true;
                }
                // Whether the stream is over is for us to say.
                rtcp::Packet::Goodbye(_) => told.amiss = true,
                rtcp::Packet::ReceiverReport(_)
                | rtcp::Packet::SourceDescription(_)
                | rtcp::Packet::Other { .. } => {}
            }
        }
        told
    }

    /// Sequence number and RTP time of the next packet.
    pub fn next_packet(&self, now: Instant) -> Option<(u16, u32)> {
        Some((self.last?.sequence.wrapping_add(1), self.timestamp_at(now)?))
    }

    /// RTP time at `now`, if the track's clock went on since its last packet.
    pub fn timestamp_at(&self, now: Instant) -> Option<u32> {
        let clock = self.clock?;
        let gone = now.saturating_duration_since(clock.arrival).min(SILENCE_MAX);
        let ticks = ClockRate::new(self.track.clock_rate).map_or(0, |rate| rate.ticks_wrapped(gone));
        Some(clock.timestamp_wrapped.wrapping_add(ticks))
    }

    /// Whether `track`, as a new session describes it, can take this one's place.
    pub fn check_successor(&self, index: usize, track: &Track) -> Result<(), Mismatch> {
        let now = &self.track;
        if now.codec != track.codec {
            let (before, after) = (now.codec.label(), track.codec.label());
            return Err(Mismatch::Codec { track: index, before, after });
        }
        let same = (now.kind, now.clock_rate, now.channels) == (track.kind, track.clock_rate, track.channels)
            && now.encoding.eq_ignore_ascii_case(&track.encoding)
            && (carries_parameter_sets(now.codec) || now.fmtp == track.fmtp);
        if same { Ok(()) } else { Err(Mismatch::Format { track: index, codec: now.codec.label() }) }
    }

    /// Goes on with a new session's `track`. True when the description changed.
    pub fn resume(&mut self, track: &Track) -> bool {
        let payload_type = (track.payload_type, self.track.payload_type);
        self.continuity = Some(Box::new(Continuity::new(self.last.map(|last| last.ssrc), payload_type)));
        self.receiver.forget_source();
        if !carries_parameter_sets(self.track.codec) {
            return false;
        }
        // What comes with the pictures counts, as at the beginning.
        self.parameter_sets = Default::default();
        let mut fmtp = self.track.fmtp.clone();
        for name in ["sprop-parameter-sets", "profile-level-id", "sprop-vps", "sprop-sps", "sprop-pps"] {
            if let Some(value) = sdp::fmtp::get(&track.fmtp, name) {
                fmtp = sdp::fmtp::set(&fmtp, name, value);
            }
        }
        let changed = self.track.fmtp != fmtp;
        self.track.fmtp = fmtp;
        changed
    }

    /// Takes over parameter sets that differ from the announced ones. True when the description changed.
    pub fn follow_parameter_sets(&mut self, payload: &[u8]) -> bool {
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

/// Codecs whose decoder is told in the stream what is in it: all else may differ between sessions.
fn carries_parameter_sets(codec: Codec) -> bool {
    matches!(codec, Codec::H264 | Codec::H265)
}

// `parameter_sets` is indexed by kind.
const _: () = assert!(
    ParameterSet::Vps as usize == 0 && ParameterSet::Sps as usize == 1 && ParameterSet::Pps as usize == 2
);
