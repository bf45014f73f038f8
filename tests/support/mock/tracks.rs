//! What a mock camera shows: the description of its tracks, and their packets as they fall due.

use std::time::{Duration, Instant};

use super::plan::{Kind, Plan};
use crate::support::camera::{FIRST_SEQUENCE, FIRST_TIMESTAMP, PPS, Record, SPS, frame_payloads};

/// Of another size than [`SPS`]: 640x360.
const OTHER_SPS: [u8; 25] = [
    0x67, 0x4d, 0x40, 0x1e, 0xd9, 0x00, 0xa0, 0x2f, 0xf9, 0x70, 0x11, 0x00, 0x00, 0x03, 0x00, 0x01, 0x00,
    0x00, 0x03, 0x00, 0x32, 0x0f, 0x16, 0x2e, 0x48,
];
const OTHER_PPS: [u8; 5] = [0x68, 0xeb, 0xc3, 0xcb, 0x20];

/// Silence in AAC-LC at 48 kHz in stereo, and in Opus.
const AAC_SILENCE: [u8; 9] = [0x21, 0x00, 0x49, 0x90, 0x02, 0x19, 0x00, 0x23, 0x80];
const OPUS_SILENCE: [u8; 3] = [0xF8, 0xFF, 0xFE];

const SSRC: u32 = 0xCA3E_4A00;
/// Seconds from the epoch of NTP to that of a made-up clock (RFC 3550 §4).
const NTP_START_S: u32 = 3_900_000_000;
const REPORT_EVERY: Duration = Duration::from_secs(2);

pub fn describe(plan: &Plan, host: &str) -> String {
    let mut sdp = format!(
        "v=0\r\no=- 0 0 IN IP4 {host}\r\ns=mock camera\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\na=control:*\r\n"
    );
    for (n, kind) in plan.tracks.iter().enumerate() {
        let media = match kind {
            Kind::H264 => {
                "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n\
                 a=fmtp:96 packetization-mode=1; profile-level-id=4D401F; sprop-parameter-sets=Z01AH6YRAoC/5cBEAAADAAQAAAMAyDxgyEY=,aOhDMsg=\r\n"
            }
            Kind::Aac => {
                "m=audio 0 RTP/AVP 97\r\na=rtpmap:97 mpeg4-generic/48000/2\r\n\
                 a=fmtp:97 profile-level-id=1; mode=AAC-hbr; sizelength=13; indexlength=3; indexdeltalength=3; config=1190\r\n"
            }
            Kind::Pcma => "m=audio 0 RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\n",
            Kind::Opus => "m=audio 0 RTP/AVP 98\r\na=rtpmap:98 opus/48000/2\r\n",
            Kind::BackChannel => "m=audio 0 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=sendonly\r\n",
            Kind::Metadata => "m=application 0 RTP/AVP 107\r\na=rtpmap:107 vnd.onvif.metadata/90000\r\n",
        };
        sdp += &format!("{media}a=control:trackID={n}\r\n");
    }
    sdp
}

pub enum Plane {
    Rtp,
    Rtcp,
}

/// The tracks of a session that plays.
pub struct Show {
    start: Instant,
    tracks: Vec<Track>,
    /// What was sent of the video.
    record: Record,
}

struct Track {
    place: usize,
    kind: Kind,
    clock_hz: u32,
    period: Duration,
    sequence: u16,
    /// Of pictures or audio packets.
    count: u32,
    /// Pictures since the last keyframe; none yet.
    since_key: Option<u32>,
    packets: u32,
    bytes: u32,
    last_timestamp: u32,
    next_report: Duration,
}

impl Show {
    /// `wanted`: places of the tracks that were set up.
    pub fn start(plan: &Plan, wanted: impl Iterator<Item = usize>, record: Record) -> Self {
        let tracks = wanted.filter_map(|place| Track::new(plan, place, plan.tracks[place])).collect();
        Self { start: Instant::now(), tracks, record }
    }

    pub fn age(&self) -> Duration {
        self.start.elapsed()
    }

    /// When the next packet falls due, counted from the start.
    pub fn next_due(&self, plan: &Plan) -> Option<Duration> {
        self.tracks.iter().map(|track| track.due(plan)).min()
    }

    /// Gives `send` all packets that are due: the track's place, the plane, the packet. False once `send` has failed.
    pub fn run(&mut self, plan: &Plan, mut send: impl FnMut(usize, Plane, &[u8]) -> bool) -> bool {
        let age = self.age();
        let record = &self.record;
        self.tracks.iter_mut().all(|track| {
            while track.due(plan) <= age {
                if !track.emit(plan, age, record, &mut send) {
                    return false;
                }
            }
            true
        })
    }
}

impl Track {
    fn new(plan: &Plan, place: usize, kind: Kind) -> Option<Self> {
        let (clock_hz, period) = match kind {
            Kind::H264 => (90_000, Duration::from_secs(1) / plan.video.fps),
            Kind::Aac => (48_000, Duration::from_secs(1_024) / 48_000),
            Kind::Pcma => (8_000, Duration::from_millis(20)),
            Kind::Opus => (48_000, Duration::from_millis(20)),
            Kind::BackChannel | Kind::Metadata => return None,
        };
        Some(Self {
            place,
            kind,
            clock_hz,
            period,
            sequence: FIRST_SEQUENCE,
            count: 0,
            since_key: None,
            packets: 0,
            bytes: 0,
            last_timestamp: 0,
            next_report: Duration::ZERO,
        })
    }

    fn due(&self, plan: &Plan) -> Duration {
        plan.silent_for + self.period * self.count
    }

    fn emit(
        &mut self,
        plan: &Plan,
        age: Duration,
        record: &Record,
        send: &mut impl FnMut(usize, Plane, &[u8]) -> bool,
    ) -> bool {
        let ticks = (u64::from(self.count) * self.period.as_nanos() as u64 * u64::from(self.clock_hz)
            + 500_000_000)
            / 1_000_000_000;
        let timestamp =
            FIRST_TIMESTAMP.wrapping_add(ticks as u32).wrapping_add(self.fault_ticks(plan, age) as u32);
        self.last_timestamp = timestamp;
        if self.next_report <= age {
            let report = self.sender_report(plan, age);
            self.next_report += REPORT_EVERY;
            if !send(self.place, Plane::Rtcp, &report) {
                return false;
            }
        }
        let (payload_type, payloads, key) = self.payloads(plan, age);
        self.count += 1;
        let last = payloads.len() - 1;
        for (n, payload) in payloads.iter().enumerate() {
            let marker = if n == last && self.kind == Kind::H264 { 0x80 } else { 0 };
            let mut rtp = vec![0x80, payload_type | marker];
            rtp.extend_from_slice(&self.sequence.to_be_bytes());
            rtp.extend_from_slice(&timestamp.to_be_bytes());
            rtp.extend_from_slice(&self.ssrc(plan, age).to_be_bytes());
            rtp.extend_from_slice(payload);
            self.sequence = self.sequence.wrapping_add(1);
            self.packets += 1;
            self.bytes += payload.len() as u32;
            if self.kind == Kind::H264 {
                record.add(&rtp, key && n == 0);
            }
            if !send(self.place, Plane::Rtp, &rtp) {
                return false;
            }
        }
        true
    }

    fn payloads(&mut self, plan: &Plan, age: Duration) -> (u8, Vec<Vec<u8>>, bool) {
        match self.kind {
            Kind::H264 => {
                let due = self.since_key.is_none_or(|n| n + 1 >= plan.video.gop);
                let key = due && age >= plan.silent_for + plan.key_after;
                self.since_key = if key { Some(0) } else { self.since_key.map(|n| n + 1) };
                let other = plan.sps_change.is_some_and(|after| age >= after);
                let sets: [&[u8]; 2] = if other { [&OTHER_SPS, &OTHER_PPS] } else { [&SPS, &PPS] };
                (96, frame_payloads(self.count, key.then_some(sets), plan.video), key)
            }
            // RFC 3640 §3.2.1: 16 bits of AU headers, which are one of 13 bits size and 3 bits index.
            Kind::Aac => {
                let size = (AAC_SILENCE.len() as u16) << 3;
                let headers = [[0, 16], size.to_be_bytes()].concat();
                (97 | 0x80, vec![[&headers[..], &AAC_SILENCE].concat()], false)
            }
            Kind::Pcma => (8, vec![vec![0xD5; 160]], false),
            Kind::Opus => (98, vec![OPUS_SILENCE.to_vec()], false),
            Kind::BackChannel | Kind::Metadata => unreachable!("it sends nothing"),
        }
    }

    fn ssrc(&self, plan: &Plan, age: Duration) -> u32 {
        let changed = plan.ssrc_change.is_some_and(|after| age >= after);
        SSRC + self.place as u32 + if changed { 0x1000 } else { 0 }
    }

    /// How far its timestamp is off.
    fn fault_ticks(&self, plan: &Plan, age: Duration) -> i64 {
        let jump = plan.clock_jump.filter(|(_, after)| age >= *after).map_or(0, |(ms, _)| ms);
        let odd = plan.stamps.filter(|(_, every)| self.count % every == every - 1).map_or(0, |(ms, _)| ms);
        (jump + odd) * i64::from(self.clock_hz) / 1_000
    }

    /// RFC 3550 §6.4.1.
    fn sender_report(&self, plan: &Plan, age: Duration) -> Vec<u8> {
        let ntp = [
            NTP_START_S + age.as_secs() as u32,
            ((u64::from(age.subsec_nanos()) << 32) / 1_000_000_000) as u32,
        ];
        let mut report = vec![0x80, 200, 0, 6];
        for word in [self.ssrc(plan, age), ntp[0], ntp[1], self.last_timestamp, self.packets, self.bytes] {
            report.extend_from_slice(&word.to_be_bytes());
        }
        report
    }
}
