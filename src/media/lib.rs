//! What flows: tracks, their clocks and the facts of their bitstreams. Knows no transport.

pub mod codec;
pub mod time;
pub mod track;

pub use time::{ClockRate, NtpTime, TimestampUnwrapper};
pub use track::{Codec, Kind, Track};
