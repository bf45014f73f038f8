//! Everything that is there at one moment, and what was there before, in sums.

use std::{collections::BTreeMap, ops::AddAssign, sync::Arc};

use corecast_hub::roster::{Refusal, Slowness, SourceState, StreamTraffic};

use super::{Conn, HlsMuxer, HlsSession, MuxerTotals, Session, Stream};
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

impl AddAssign for PathTotals {
    fn add_assign(&mut self, more: Self) {
        self.inbound_bytes += more.inbound_bytes;
        self.outbound_bytes += more.outbound_bytes;
        self.inbound_frames_in_error += more.inbound_frames_in_error;
    }
}

/// The totals of what has ended and those of what is live, path by path.
pub(super) fn with_live<'a, T: AddAssign + Default>(
    past: Vec<(Arc<str>, T)>,
    live: impl Iterator<Item = (&'a Arc<str>, T)>,
) -> BTreeMap<Arc<str>, T> {
    let mut totals: BTreeMap<_, _> = past.into_iter().collect();
    for (path, moved) in live {
        *totals.entry(Arc::clone(path)).or_default() += moved;
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
    pub hls: HlsCensus,
}

/// HLS muxers and sessions.
#[derive(Debug, Default)]
pub struct HlsCensus {
    pub muxers: Vec<Arc<HlsMuxer>>,
    pub sessions: Vec<Arc<HlsSession>>,
    /// By path, of all muxers that it had.
    pub totals: BTreeMap<Arc<str>, MuxerTotals>,
    /// Of all muxers since the start.
    pub all_muxers: MuxerTotals,
    /// Of sessions that are no more.
    pub session_bytes_retired: u64,
}

impl HlsCensus {
    /// Counts in what those that are there have moved; `past` are the totals of muxers that are not.
    pub(super) fn settle(&mut self, past: Vec<(Arc<str>, MuxerTotals)>) {
        self.sessions.sort_unstable_by_key(|session| (session.created, session.id));
        // Read once, so that the sum is that of its parts.
        let live: Vec<_> =
            self.muxers.iter().map(|muxer| (&muxer.path, MuxerTotals::of(&muxer.traffic))).collect();
        live.iter().for_each(|(_, moved)| self.all_muxers += *moved);
        self.totals = with_live(past, live.into_iter());
    }
}

#[derive(Debug, Clone, Default)]
pub struct Incidents {
    pub refused: BTreeMap<Refusal, u64>,
    pub slow: BTreeMap<Slowness, u64>,
}
