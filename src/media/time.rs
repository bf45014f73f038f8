//! The clocks of media, one type each, with explicit conversions.

use std::num::NonZeroU32;
use std::time::Duration;

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// NTP timestamp: 32 bits of seconds since 1900, 32 bits of fraction (RFC 3550 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NtpTime(pub u64);

impl NtpTime {
    /// Seconds from the NTP epoch (1900) to the Unix epoch (1970).
    const UNIX_EPOCH_SECONDS: u64 = 2_208_988_800;
    /// Length of an NTP era in seconds: the first one ends in February 2036.
    const ERA_SECONDS: u64 = 1 << 32;

    /// The NTP time of a wall-clock time given as the time since the Unix epoch. Eras wrap, as on the wire.
    pub fn from_unix(since_epoch: Duration) -> Self {
        let seconds = since_epoch.as_secs().wrapping_add(Self::UNIX_EPOCH_SECONDS);
        // Rounded up, so that a trip through the wire format gives the same nanosecond back.
        let fraction = (u64::from(since_epoch.subsec_nanos()) << 32).div_ceil(1_000_000_000);
        Self(seconds << 32 | fraction)
    }

    /// The time since the Unix epoch. As in RFC 4330 §3, a clear top bit means the era that begins in 2036.
    pub fn to_unix(self) -> Duration {
        let seconds = self.0 >> 32;
        let era = if seconds >= Self::ERA_SECONDS / 2 { 0 } else { Self::ERA_SECONDS };
        let since_1900 = seconds + era;
        let nanos = ((self.0 & 0xffff_ffff) * 1_000_000_000) >> 32;
        // Times from 1968 and 1969 have no place in a Duration since 1970: they read as the epoch itself.
        Duration::new(since_1900.saturating_sub(Self::UNIX_EPOCH_SECONDS), nanos as u32)
    }

    /// The middle 32 bits, as in the LSR field of a report block (RFC 3550 §6.4.1).
    pub fn middle(self) -> u32 {
        (self.0 >> 16) as u32
    }
}

/// Ticks per second of an RTP clock; never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClockRate(NonZeroU32);

impl ClockRate {
    /// `None` for zero.
    pub fn new(hz: u32) -> Option<Self> {
        NonZeroU32::new(hz).map(Self)
    }

    pub fn hz(self) -> u32 {
        self.0.get()
    }

    /// Nanoseconds that `ticks` last; saturates.
    pub fn ticks_to_nanos(self, ticks: i64) -> i64 {
        // Whole seconds apart: a 128-bit division per packet would cost more than all the rest.
        let hz = i64::from(self.hz());
        let (seconds, rest) = (ticks / hz, ticks % hz);
        seconds.saturating_mul(NANOS_PER_SECOND).saturating_add(rest * NANOS_PER_SECOND / hz)
    }

    /// Ticks of a span of time, wrapped to 32 bits as RTP timestamps are.
    pub fn ticks_wrapped(self, span: Duration) -> u32 {
        let whole = (span.as_secs() as u32).wrapping_mul(self.hz());
        let part = u64::from(span.subsec_nanos()) * u64::from(self.hz()) / NANOS_PER_SECOND as u64;
        whole.wrapping_add(part as u32)
    }
}

/// Turns 32-bit RTP timestamps into 64-bit ones that do not wrap. Steps of less than 2³¹ ticks, in either
/// direction, are followed.
#[derive(Debug, Clone, Copy, Default)]
pub struct TimestampUnwrapper {
    last: Option<i64>,
}

impl TimestampUnwrapper {
    /// The unwrapped value of `wrapped`, which becomes the reference for the next one.
    pub fn unwrap(&mut self, wrapped: u32) -> i64 {
        let ticks = self.near(wrapped);
        self.last = Some(ticks);
        ticks
    }

    /// The unwrapped value of `wrapped` nearest to the reference, which stays.
    pub fn near(&self, wrapped: u32) -> i64 {
        match self.last {
            None => i64::from(wrapped),
            Some(last) => last.wrapping_add(i64::from(wrapped.wrapping_sub(last as u32) as i32)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ntp_time_round_trips_every_nanosecond_kept() {
        for (seconds, nanos) in [(0, 0), (1, 1), (1_700_000_000, 999_999_999), (1_795_500_000, 123_456_789)] {
            let wall = Duration::new(seconds, nanos);
            assert_eq!(NtpTime::from_unix(wall).to_unix(), wall);
        }
    }

    #[test]
    fn ntp_time_survives_the_era_change_of_2036() {
        let wall = Duration::from_secs(2_085_978_496 + 10);
        assert_eq!(NtpTime::from_unix(wall).0 >> 32, 10);
        assert_eq!(NtpTime::from_unix(wall).to_unix(), wall);
    }

    #[test]
    fn timestamps_unwrap_in_both_directions() {
        let mut unwrapper = TimestampUnwrapper::default();
        assert_eq!(unwrapper.unwrap(0xffff_fff0), 0xffff_fff0);
        assert_eq!(unwrapper.unwrap(0x10), 0x1_0000_0010);
        assert_eq!(unwrapper.near(0xffff_fff0), 0xffff_fff0);
        assert_eq!(unwrapper.unwrap(0xffff_fff8), 0xffff_fff8);
        assert_eq!(unwrapper.unwrap(0x20), 0x1_0000_0020);
    }

    #[test]
    fn ticks_convert_exactly_and_never_overflow() {
        let video = ClockRate::new(90_000).unwrap();
        assert_eq!(video.ticks_to_nanos(90_000), 1_000_000_000);
        assert_eq!(video.ticks_to_nanos(-3_000), -33_333_333);
        assert_eq!(ClockRate::new(1).unwrap().ticks_to_nanos(i64::MAX), i64::MAX);
        assert_eq!(
            ClockRate::new(u32::MAX).unwrap().ticks_to_nanos(i64::from(u32::MAX) * 2 - 1),
            1_999_999_999
        );
        assert_eq!(video.ticks_wrapped(Duration::from_millis(2_500)), 225_000);
        assert_eq!(video.ticks_wrapped(Duration::from_secs(1 << 20)), ((1u64 << 20) * 90_000) as u32);
        assert!(ClockRate::new(0).is_none());
    }
}
