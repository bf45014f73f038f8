//! HLS muxers and their viewers, those that have ended in sums.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    ops::AddAssign,
    sync::Arc,
    time::SystemTime,
};

use corecast_hub::{
    registry::ShardId,
    roster::{HlsMuxerTraffic, HlsSessionTraffic},
};
use uuid::Uuid;

use super::{Event, HlsCensus, past::Past};

/// A stream that is packaged for HLS.
#[derive(Debug)]
pub struct HlsMuxer {
    pub path: Arc<str>,
    pub created: SystemTime,
    /// Who asked for it first, if anybody had to.
    pub by: Option<SocketAddr>,
    pub traffic: Arc<HlsMuxerTraffic>,
    pub shard: ShardId,
}

/// A viewer.
#[derive(Debug)]
pub struct HlsSession {
    pub id: Uuid,
    pub created: SystemTime,
    pub remote: SocketAddr,
    pub path: Arc<str>,
    /// Of its first request, without `?`.
    pub query: String,
    pub user: String,
    pub user_agent: String,
    /// Stands for all viewers behind a content delivery network.
    pub is_cdn: bool,
    pub traffic: Arc<HlsSessionTraffic>,
    pub shard: ShardId,
}

/// What muxers moved; never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MuxerTotals {
    pub outbound_bytes: u64,
    pub outbound_frames_discarded: u64,
    pub playlists_rendered: u64,
}

impl MuxerTotals {
    pub(super) fn of(traffic: &HlsMuxerTraffic) -> Self {
        Self {
            outbound_bytes: traffic.outbound_bytes.get(),
            outbound_frames_discarded: traffic.outbound_frames_discarded.get(),
            playlists_rendered: traffic.playlists_rendered.get(),
        }
    }
}

impl AddAssign for MuxerTotals {
    fn add_assign(&mut self, more: Self) {
        self.outbound_bytes += more.outbound_bytes;
        self.outbound_frames_discarded += more.outbound_frames_discarded;
        self.playlists_rendered += more.playlists_rendered;
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Hls {
    pub muxers: BTreeMap<Arc<str>, Arc<HlsMuxer>>,
    pub sessions: HashMap<Uuid, Arc<HlsSession>>,
    past: Past<MuxerTotals>,
    /// Of all muxers that have ended, those too whose paths are forgotten.
    muxers_retired: MuxerTotals,
    /// Of all sessions that have ended.
    session_bytes_retired: u64,
}

impl Hls {
    pub fn muxer_opened(&mut self, muxer: HlsMuxer) -> Vec<Event> {
        // The end of the one before it comes first; should it not have, it counts all the same.
        let before = self.muxer_closed(&muxer.path, "replaced".to_owned());
        self.past.begun(&muxer.path);
        let muxer = Arc::new(muxer);
        self.muxers.insert(Arc::clone(&muxer.path), Arc::clone(&muxer));
        before.into_iter().chain([Event::HlsMuxerCreated(muxer)]).collect()
    }

    pub fn muxer_closed(&mut self, path: &Arc<str>, reason: String) -> Option<Event> {
        let muxer = self.muxers.remove(path)?;
        let moved = MuxerTotals::of(&muxer.traffic);
        self.past.ended(path, moved);
        self.muxers_retired += moved;
        Some(Event::HlsMuxerDestroyed { muxer, reason })
    }

    pub fn session_opened(&mut self, session: HlsSession) -> Arc<HlsSession> {
        let session = Arc::new(session);
        self.sessions.insert(session.id, Arc::clone(&session));
        session
    }

    pub fn session_closed(&mut self, id: Uuid) -> Option<Arc<HlsSession>> {
        let session = self.sessions.remove(&id)?;
        self.session_bytes_retired += session.traffic.outbound_bytes.get();
        Some(session)
    }

    /// Totals of muxers that have ended, by path.
    pub fn past_muxers(&self) -> Vec<(Arc<str>, MuxerTotals)> {
        self.past.totals()
    }

    /// All but the totals, for which [`HlsCensus::settle`] needs no lock.
    pub fn census(&self) -> HlsCensus {
        HlsCensus {
            muxers: self.muxers.values().cloned().collect(),
            sessions: self.sessions.values().cloned().collect(),
            totals: BTreeMap::new(),
            all_muxers: self.muxers_retired,
            session_bytes_retired: self.session_bytes_retired,
        }
    }
}
