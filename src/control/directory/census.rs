//! Everything that is there at one moment, and what was there before, in sums.

use std::{collections::BTreeMap, sync::Arc};

use corecast_hub::roster::{Refusal, Slowness, SourceState, StreamTraffic};

use super::{Conn, Session, Stream};
use crate::control::tally::Retired;

/// Bytes of all publications that a path had; never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PathTotals {
    pub inbound_bytes: u64,
    pub outbound_bytes: u64,
    pub inbound_frames_in_error: u64,
}

impl PathTotals {
    pub(super) fn of(traffic: &StreamTraffic) -> Self {
        Self {
            inbound_bytes: traffic.inbound_bytes.get(),
            outbound_bytes: traffic.outbound_bytes.get(),
            inbound_frames_in_error: traffic.inbound_frames_in_error.get(),
        }
    }
}

impl std::ops::AddAssign for PathTotals {
    fn add_assign(&mut self, more: Self) {
        self.inbound_bytes += more.inbound_bytes;
        self.outbound_bytes += more.outbound_bytes;
        self.inbound_frames_in_error += more.inbound_frames_in_error;
    }
}

/// The totals of ended publications and those of live ones, path by path.
pub(super) fn with_live(
    past: Vec<(Arc<str>, PathTotals)>,
    live: &[Arc<Stream>],
) -> BTreeMap<Arc<str>, PathTotals> {
    let mut totals: BTreeMap<_, _> = past.into_iter().collect();
    for stream in live {
        *totals.entry(Arc::clone(&stream.path)).or_default() += PathTotals::of(&stream.traffic);
    }
    totals
}

/// See [`Directory::census`].
#[derive(Debug, Default)]
pub struct Census {
    pub conns: Vec<Arc<Conn>>,
    pub sessions: Vec<Arc<Session>>,
    pub streams: Vec<Arc<Stream>>,
    /// Paths that somebody wants, live or not.
    pub wanted: Vec<Arc<str>>,
    /// Sources that are not stopped.
    pub sources: Vec<(Arc<str>, SourceState)>,
    pub totals: BTreeMap<Arc<str>, PathTotals>,
    pub incidents: Incidents,
    /// Of connections and sessions that are no more: of the plain server, and of that for TLS.
    pub retired: [Retired; 2],
}

#[derive(Debug, Clone, Default)]
pub struct Incidents {
    pub refused: BTreeMap<Refusal, u64>,
    pub slow: BTreeMap<Slowness, u64>,
}
