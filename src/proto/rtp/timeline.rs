//! From RTP timestamps to wall-clock time.

use std::time::Duration;

use corecast_media::{ClockRate, NtpTime, TimestampUnwrapper};

use super::rtcp::SenderReport;

/// An estimate further in the past than this is pinned anew, as MediaMTX does; and the source's own clock where its time
/// stamps leave it by more.
pub const PAST_MAX: Duration = Duration::from_secs(5);

/// The wall clock of one track. Until the source sends a sender report, times are estimated: the first packet
/// is pinned to its arrival. From the first report on, the source's own clock counts (RFC 3550 §6.4.1); when its RTP
/// clock jumps, the time goes on, until the next report tells better.
#[derive(Debug, Clone)]
pub struct Timeline {
    clock_rate: ClockRate,
    unwrapper: TimestampUnwrapper,
    pin: Option<Pin>,
    reported: Option<Pin>,
    /// By how much the source's clock is ahead of ours, nanoseconds, as of its last report.
    ahead_ns: i64,
}

/// This timestamp belongs to this time.
#[derive(Debug, Clone, Copy)]
struct Pin {
    ticks: i64,
    /// Nanoseconds since the Unix epoch.
    wall_ns: i64,
}

impl Pin {
    fn at(self, ticks: i64, clock_rate: ClockRate) -> i64 {
        self.wall_ns.saturating_add(clock_rate.ticks_to_nanos(ticks.wrapping_sub(self.ticks)))
    }
}

impl Timeline {
    pub fn new(clock_rate: ClockRate) -> Self {
        Self { clock_rate, unwrapper: TimestampUnwrapper::default(), pin: None, reported: None, ahead_ns: 0 }
    }

    /// Takes a packet that arrived at `arrival` (time since the Unix epoch) and gives its wall-clock time. An
    /// estimate that lies in the future or more than [`PAST_MAX`] in the past is pinned anew to the arrival.
    pub fn on_packet(&mut self, timestamp_wrapped: u32, arrival: Duration) -> NtpTime {
        let ticks = self.unwrapper.unwrap(timestamp_wrapped);
        let arrival_ns = nanos(arrival);
        if let Some(reported) = self.reported {
            let wall_ns = reported.at(ticks, self.clock_rate);
            let expected = arrival_ns.saturating_add(self.ahead_ns);
            if wall_ns.abs_diff(expected) <= PAST_MAX.as_nanos() as u64 {
                return ntp(wall_ns);
            }
            self.reported = Some(Pin { ticks, wall_ns: expected });
            return ntp(expected);
        }
        let estimate = self.pin.map(|pin| pin.at(ticks, self.clock_rate));
        let plausible = arrival_ns.saturating_sub(nanos(PAST_MAX))..=arrival_ns;
        match estimate.filter(|wall_ns| plausible.contains(wall_ns)) {
            Some(wall_ns) => ntp(wall_ns),
            None => {
                self.pin = Some(Pin { ticks, wall_ns: arrival_ns });
                ntp(arrival_ns)
            }
        }
    }

    /// Takes a sender report of the source that arrived at `arrival` (time since the Unix epoch). One with NTP time 0
    /// comes from a source without a clock (RFC 3550 §6.4.1) and is left aside.
    pub fn on_sender_report(&mut self, report: &SenderReport, arrival: Duration) {
        if report.ntp.0 >> 32 != 0 {
            // Before the first packet the report itself is the reference for unwrapping.
            let ticks = match self.pin.or(self.reported) {
                None => self.unwrapper.unwrap(report.rtp_timestamp),
                Some(_) => self.unwrapper.near(report.rtp_timestamp),
            };
            let wall_ns = nanos(report.ntp.to_unix());
            self.ahead_ns = wall_ns.saturating_sub(nanos(arrival));
            self.reported = Some(Pin { ticks, wall_ns });
        }
    }

    /// Wall-clock time of a timestamp near the last packet's. `None` before the first packet and report.
    pub fn ntp(&self, timestamp_wrapped: u32) -> Option<NtpTime> {
        let pin = self.reported.or(self.pin)?;
        Some(ntp(pin.at(self.unwrapper.near(timestamp_wrapped), self.clock_rate)))
    }

    /// Whether times come from the source's own clock.
    pub fn is_absolute(&self) -> bool {
        self.reported.is_some()
    }

    /// Forgets everything; to be called when the source restarts.
    pub fn reset(&mut self) {
        *self = Self::new(self.clock_rate);
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

fn ntp(wall_ns: i64) -> NtpTime {
    NtpTime::from_unix(Duration::from_nanos(u64::try_from(wall_ns).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Duration = Duration::from_secs(1_800_000_000);

    fn timeline() -> Timeline {
        Timeline::new(ClockRate::new(90_000).unwrap())
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn report(wall: Duration, rtp_timestamp: u32) -> SenderReport {
        SenderReport { ntp: NtpTime::from_unix(wall), rtp_timestamp, ..SenderReport::default() }
    }

    #[test]
    fn first_packet_is_pinned_to_its_arrival_and_others_follow_their_timestamps() {
        let mut t = timeline();
        assert_eq!(t.ntp(0), None);
        // Across the wrap of the timestamp.
        assert_eq!(t.on_packet(u32::MAX - 4499, NOON).to_unix(), NOON);
        assert_eq!(t.on_packet(4500, NOON + ms(130)).to_unix(), NOON + ms(100));
        assert_eq!(t.ntp(9000).unwrap().to_unix(), NOON + ms(150));
        assert!(!t.is_absolute());
    }

    #[test]
    fn estimates_in_the_future_or_long_past_are_pinned_anew() {
        let mut t = timeline();
        t.on_packet(0, NOON);
        assert_eq!(t.on_packet(90_000, NOON + ms(999)).to_unix(), NOON + ms(999));
        assert_eq!(t.on_packet(180_000, NOON + ms(6_999)).to_unix(), NOON + ms(1_999));
        assert_eq!(t.on_packet(180_000, NOON + ms(7_000)).to_unix(), NOON + ms(7_000));
        // A DVR that stamps one frame hours off must not stop the clock.
        assert_eq!(t.on_packet(180_000 + 90_000 * 7200, NOON + ms(7_040)).to_unix(), NOON + ms(7_040));
        assert_eq!(t.on_packet(187_200, NOON + ms(7_080)).to_unix(), NOON + ms(7_080));
    }

    #[test]
    fn source_that_reports_keeps_its_own_clock() {
        let mut t = timeline();
        t.on_packet(1000, NOON);
        let camera = NOON - Duration::from_secs(3600); // its clock is an hour behind
        t.on_sender_report(&report(camera, 1000), NOON);
        assert!(t.is_absolute());
        assert_eq!(t.on_packet(91_000, NOON + ms(1_000)).to_unix(), camera + ms(1_000));
        t.reset();
        assert_eq!(t.on_packet(5, NOON).to_unix(), NOON);
    }

    #[test]
    fn report_before_the_first_packet_counts() {
        let mut t = timeline();
        t.on_sender_report(&report(NOON, u32::MAX), NOON);
        assert_eq!(t.on_packet(89_999, NOON).to_unix(), NOON + ms(1_000));
    }

    #[test]
    fn report_without_a_clock_is_left_aside() {
        let mut t = timeline();
        t.on_sender_report(&SenderReport { ntp: NtpTime(0), ..SenderReport::default() }, NOON);
        assert!(!t.is_absolute());
    }
}
