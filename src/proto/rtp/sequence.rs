//! What a receiver knows about one source: loss, reordering, restarts, jitter (RFC 3550 §6.4.1, §A.1, §A.3,
//! §A.8). Hot: once per packet.

use std::time::{Duration, Instant};

use corecast_media::{ClockRate, NtpTime};

use super::header::Header;
use super::rtcp::ReportBlock;

/// A step ahead of this many packets is no longer taken for loss (§A.1).
const MAX_DROPOUT: u16 = 3000;
/// A step back of this many packets is no longer taken for reordering (§A.1).
const MAX_MISORDER: u16 = 100;

/// What one packet is, seen from those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The first packet of the source.
    First,
    /// The packet after the highest one so far.
    InOrder,
    /// `missing` packets before this one have not come (yet).
    Gap { missing: u16 },
    /// Older than the highest one and not seen before: it fills a gap, or came before the first one.
    Late,
    /// Seen before, or too old to tell.
    Duplicate,
    /// Far from the highest one. Taken for a restart only if the next packet follows it.
    Jump,
    /// The source began anew: another SSRC, or a jump that the next packet confirmed.
    Restarted,
}

/// Counters of one track's source. They survive restarts of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Packets, duplicates left out.
    pub received: u64,
    /// Packets missing in gaps and not come late.
    pub lost: u64,
    pub duplicates: u64,
    /// Packets that came after a newer one.
    pub reordered: u64,
    pub restarts: u64,
}

/// Reception state of one track.
#[derive(Debug, Clone, Default)]
pub struct Receiver {
    pub counters: Counters,
    source: Option<Source>,
}

#[derive(Debug, Clone)]
struct Source {
    ssrc: u32,
    /// Extended: cycles in the upper half. Starts one cycle up, so that late packets before the first do not
    /// go below 0.
    highest: u64,
    base: u64,
    /// Bit `n` is set when `highest - n` was received.
    seen: u64,
    /// The sequence number that would confirm a jump.
    after_jump: Option<u16>,
    received: u64,
    at_last_report: ReportedAt,
    jitter: Jitter,
    last_sender_report: Option<(NtpTime, Instant)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct ReportedAt {
    expected: u64,
    received: u64,
}

/// §A.8, in ticks of the RTP clock, scaled by 16.
#[derive(Debug, Clone, Copy)]
struct Jitter {
    first_arrival: Instant,
    transit: Option<u32>,
    scaled: u64,
}

impl Receiver {
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one packet. `clock_rate` is in Hz; zero leaves jitter out.
    pub fn on_packet(&mut self, header: &Header, arrival: Instant, clock_rate: u32) -> Verdict {
        let verdict = self.place(header, arrival);
        let counters = &mut self.counters;
        match verdict {
            Verdict::First | Verdict::InOrder | Verdict::Jump => {}
            Verdict::Gap { missing } => counters.lost += u64::from(missing),
            Verdict::Late => counters.reordered += 1,
            Verdict::Duplicate => {
                counters.duplicates += 1;
                return verdict;
            }
            Verdict::Restarted => counters.restarts += 1,
        }
        counters.received += 1;
        if let (Some(source), Some(clock_rate)) = (&mut self.source, ClockRate::new(clock_rate))
            && verdict != Verdict::Jump
        {
            source.received += 1;
            source.jitter.update(header.timestamp, arrival, clock_rate);
        }
        verdict
    }

    fn place(&mut self, header: &Header, arrival: Instant) -> Verdict {
        let Some(source) = self.source.as_mut() else {
            self.source = Some(Source::starting_at(header, arrival));
            return Verdict::First;
        };
        if source.ssrc != header.ssrc {
            *source = Source::starting_at(header, arrival);
            return Verdict::Restarted;
        }
        let ahead = header.sequence.wrapping_sub(source.highest as u16);
        let behind = ahead.wrapping_neg();
        if ahead == 0 {
            return Verdict::Duplicate;
        }
        if ahead < MAX_DROPOUT {
            source.after_jump = None;
            source.highest += u64::from(ahead);
            source.seen = source.seen.checked_shl(u32::from(ahead)).unwrap_or(0) | 1;
            return if ahead == 1 { Verdict::InOrder } else { Verdict::Gap { missing: ahead - 1 } };
        }
        if behind <= MAX_MISORDER {
            let bit = 1u64.checked_shl(u32::from(behind)).unwrap_or(0);
            if bit == 0 || source.seen & bit != 0 {
                return Verdict::Duplicate;
            }
            source.seen |= bit;
            let extended = source.highest - u64::from(behind);
            if extended < source.base {
                // It came before the first one; those between the two are a gap of their own.
                self.counters.lost += source.base - extended - 1;
                source.base = extended;
            } else {
                self.counters.lost -= 1; // counted when the gap opened
            }
            return Verdict::Late;
        }
        // §A.1: two packets in a row make a restart, one is noise
        if source.after_jump == Some(header.sequence) {
            let last_sender_report = source.last_sender_report;
            *source = Source { last_sender_report, ..Source::starting_at(header, arrival) };
            return Verdict::Restarted;
        }
        source.after_jump = Some(header.sequence.wrapping_add(1));
        Verdict::Jump
    }

    /// The next packet is the first of another session: it may have any number without being a loss or a restart.
    pub fn forget_source(&mut self) {
        self.source = None;
    }

    /// Remembers a sender report of the source, for the round trip fields of the next [`Self::report`].
    pub fn on_sender_report(&mut self, ssrc: u32, ntp: NtpTime, arrival: Instant) {
        if let Some(source) = self.source.as_mut().filter(|source| source.ssrc == ssrc) {
            source.last_sender_report = Some((ntp, arrival));
        }
    }

    /// The report block on what came since the last one (§6.4.1, §A.3). `None` before the first packet.
    pub fn report(&mut self, now: Instant) -> Option<ReportBlock> {
        let source = self.source.as_mut()?;
        let expected = source.highest - source.base + 1;
        let expected_interval = expected - source.at_last_report.expected.min(expected);
        let received_interval = source.received - source.at_last_report.received;
        source.at_last_report = ReportedAt { expected, received: source.received };
        let lost_interval = expected_interval.saturating_sub(received_interval);
        let fraction_lost = (lost_interval * 256).checked_div(expected_interval).unwrap_or(0).min(255) as u8;
        // §6.4.1: 24 bits with sign, clamped
        let cumulative_lost = (expected as i64 - source.received as i64).clamp(-0x80_0000, 0x7f_ffff) as i32;
        let (last_sender_report, delay_since) = match source.last_sender_report {
            None => (0, Duration::ZERO),
            Some((ntp, arrival)) => (ntp.middle(), now.saturating_duration_since(arrival)),
        };
        Some(ReportBlock {
            ssrc: source.ssrc,
            fraction_lost,
            cumulative_lost,
            highest_sequence: (source.highest - FIRST_CYCLE) as u32,
            jitter: (source.jitter.scaled >> 4).min(u64::from(u32::MAX)) as u32,
            last_sender_report,
            // in 1/65536 of a second
            delay_since_last_sender_report: (delay_since.as_micros() * 65_536 / 1_000_000)
                .min(u128::from(u32::MAX)) as u32,
        })
    }

    /// Interarrival jitter (§6.4.1) in thousandths of a tick of the RTP clock. `None` before the first packet.
    pub fn jitter_milli(&self) -> Option<u64> {
        self.source.as_ref().map(|source| source.jitter.scaled * 1000 / 16)
    }

    /// SSRC of the source, once it has sent.
    pub fn ssrc(&self) -> Option<u32> {
        self.source.as_ref().map(|source| source.ssrc)
    }
}

const FIRST_CYCLE: u64 = 1 << 16;

impl Source {
    fn starting_at(header: &Header, arrival: Instant) -> Self {
        let highest = FIRST_CYCLE + u64::from(header.sequence);
        Self {
            ssrc: header.ssrc,
            highest,
            base: highest,
            seen: 1,
            after_jump: None,
            received: 0,
            at_last_report: ReportedAt::default(),
            jitter: Jitter { first_arrival: arrival, transit: None, scaled: 0 },
            last_sender_report: None,
        }
    }
}

impl Jitter {
    fn update(&mut self, timestamp: u32, arrival: Instant, clock_rate: ClockRate) {
        let elapsed = arrival.saturating_duration_since(self.first_arrival);
        let transit = clock_rate.ticks_wrapped(elapsed).wrapping_sub(timestamp);
        if let Some(before) = self.transit.replace(transit) {
            let difference = (transit.wrapping_sub(before) as i32).unsigned_abs();
            self.scaled = self.scaled + u64::from(difference) - ((self.scaled + 8) >> 4);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HZ: u32 = 90_000;

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
    fn origin() -> Instant {
        Instant::now()
    }

    fn packet(ssrc: u32, sequence: u16, timestamp: u32) -> Header {
        Header { marker: false, payload_type: 96, sequence, timestamp, ssrc, payload: 12..12 }
    }

    fn verdicts(receiver: &mut Receiver, sequences: &[u16]) -> Vec<Verdict> {
        let at = origin();
        sequences.iter().map(|&sequence| receiver.on_packet(&packet(1, sequence, 0), at, HZ)).collect()
    }

    #[test]
    fn loss_reordering_and_duplicates_are_told_apart() {
        use Verdict::*;
        let mut receiver = Receiver::new();
        let got = verdicts(&mut receiver, &[65_534, 65_535, 2, 1, 1, 2, 3, 65_535, 0]);
        let want = [First, InOrder, Gap { missing: 2 }, Late, Duplicate, Duplicate, InOrder, Duplicate, Late];
        assert_eq!(got, want);
        let want = Counters { received: 6, lost: 0, duplicates: 3, reordered: 2, restarts: 0 };
        assert_eq!(receiver.counters, want);
    }

    #[test]
    fn packet_from_before_the_first_does_not_hide_a_loss() {
        let mut receiver = Receiver::new();
        verdicts(&mut receiver, &[10, 7, 9, 8]);
        assert_eq!((receiver.counters.lost, receiver.report(origin()).unwrap().cumulative_lost), (0, 0));
        let mut receiver = Receiver::new();
        verdicts(&mut receiver, &[10, 12, 9]);
        assert_eq!(receiver.counters.lost, 1);
        assert_eq!(receiver.report(origin()).unwrap().cumulative_lost, 1);
    }

    #[test]
    fn one_wild_packet_is_noise_and_two_in_a_row_are_a_restart() {
        use Verdict::*;
        let mut receiver = Receiver::new();
        let got = verdicts(&mut receiver, &[100, 30_000, 101, 40_000, 40_001, 40_002]);
        assert_eq!(got, [First, Jump, InOrder, Jump, Restarted, InOrder]);
        assert_eq!(receiver.counters.restarts, 1);
        assert_eq!(receiver.counters.lost, 0);
    }

    #[test]
    fn new_ssrc_is_a_restart_at_once() {
        let (mut receiver, at) = (Receiver::new(), origin());
        receiver.on_packet(&packet(1, 10, 0), at, HZ);
        assert_eq!(receiver.on_packet(&packet(2, 9000, 0), at, HZ), Verdict::Restarted);
        assert_eq!(receiver.ssrc(), Some(2));
        assert_eq!(receiver.report(at).unwrap().cumulative_lost, 0);
    }

    #[test]
    fn report_covers_the_interval_since_the_last_one() {
        let mut receiver = Receiver::new();
        assert_eq!(receiver.report(origin()), None);
        verdicts(&mut receiver, &[0, 1, 2, 7]); // 4 of 8
        let block = receiver.report(origin()).unwrap();
        assert_eq!((block.fraction_lost, block.cumulative_lost, block.highest_sequence), (128, 4, 7));
        verdicts(&mut receiver, &[8, 9]);
        let block = receiver.report(origin()).unwrap();
        assert_eq!((block.fraction_lost, block.cumulative_lost, block.highest_sequence), (0, 4, 9));
        // Nothing since: no division by zero.
        assert_eq!(receiver.report(origin()).unwrap().fraction_lost, 0);
    }

    #[test]
    fn highest_sequence_counts_cycles() {
        let mut receiver = Receiver::new();
        verdicts(&mut receiver, &[65_535, 0, 1]);
        assert_eq!(receiver.report(origin()).unwrap().highest_sequence, 0x1_0001);
    }

    #[test]
    fn report_echoes_the_last_sender_report() {
        let (mut receiver, at) = (Receiver::new(), origin());
        receiver.on_sender_report(1, NtpTime(0), at); // before any packet: nothing to tie it to
        receiver.on_packet(&packet(1, 0, 0), at, HZ);
        receiver.on_sender_report(1, NtpTime(0x1122_3344_5566_7788), at);
        receiver.on_sender_report(9, NtpTime(0), at);
        let block = receiver.report(at + Duration::from_millis(1500)).unwrap();
        assert_eq!(block.last_sender_report, 0x3344_5566);
        assert_eq!(block.delay_since_last_sender_report, 98_304);
    }

    #[test]
    fn steady_packets_have_no_jitter_and_uneven_ones_approach_theirs() {
        let (mut steady, mut uneven, at) = (Receiver::new(), Receiver::new(), origin());
        for n in 0..500u16 {
            let header = packet(1, n, (u32::from(n) * 3600).wrapping_add(0xffff_0000));
            let sent = at + Duration::from_millis(40) * u32::from(n);
            steady.on_packet(&header, sent, HZ);
            // Every other packet is 10 ms late: each differs from its neighbour by 900 ticks.
            uneven.on_packet(&header, sent + Duration::from_millis(u64::from(n % 2) * 10), HZ);
        }
        assert_eq!(steady.report(at).unwrap().jitter, 0);
        let jitter = uneven.report(at).unwrap().jitter;
        assert!((880..=900).contains(&jitter), "{jitter}");
        assert_eq!(uneven.jitter_milli().unwrap() / 1000, u64::from(jitter));
        assert_eq!(Receiver::new().jitter_milli(), None);
    }
}
