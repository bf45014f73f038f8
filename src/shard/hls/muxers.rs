//! Muxers: when each begins, what it is fed, when it ends (contract §5.3).
//!
//! A muxer outlives its stream by [`GAP_MAX`], and goes on in the same playlists when a stream with the same codecs comes
//! back: players see a discontinuity. It does not count as a reader, and keeps no source at work; its viewers do.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use corecast_hub::{
    roster::{HlsMuxerTraffic, News},
    settings::{HlsSettings, HlsVariant},
};
use corecast_packagers::hls::{self, Await, Muxer};
use tracing::{info, warn};

use super::held::Wait;
use crate::{
    readers::hls::{Fed, HlsReader},
    shard::{Asker, Shard, clock, ids, slots::Key, web::WebAnswer},
};

/// How long a muxer waits for the stream of its path to come back. Until then its playlists are served as they are.
pub const GAP_MAX: Duration = Duration::from_secs(10);

/// A stream that is being packaged.
pub struct HlsMuxer {
    pub path: Key,
    pub name: Arc<str>,
    pub muxer: Muxer,
    /// Names its files and, shortened, the viewers of this muxer and no other.
    pub prefix: String,
    pub traffic: Arc<HlsMuxerTraffic>,
    /// `None` while there is no stream.
    reader: Option<HlsReader>,
    /// Since when there is none.
    gap_since: Option<Instant>,
    /// It lasts as long as its stream, whether or not anybody asks for it.
    automatic: bool,
    last_request: Instant,
    /// It is among those that are fed next.
    pub due: bool,
    /// Revision of its playlists when those who wait for them were last looked at.
    revision: u64,
    /// Multivariant playlists written out.
    pub indexes_rendered: u64,
}

impl HlsMuxer {
    /// The part of the prefix that is in the ids of its viewers.
    pub fn tag(&self) -> &str {
        self.prefix.get(..ids::VIEWER_TAG_DIGITS).unwrap_or(&self.prefix)
    }

    /// A viewer has asked for something.
    pub fn touch(&mut self, now: Instant, wall: Duration) {
        self.last_request = now;
        self.traffic.last_request_unix_ms.set(wall.as_millis() as u64);
    }

    /// Target Duration.
    pub fn target(&self) -> Duration {
        Duration::from_secs(u64::from(self.muxer.target_duration()))
    }

    fn show(&self) {
        let totals = self.muxer.totals();
        self.traffic.playlists_rendered.set(totals.renders + self.indexes_rendered);
        self.traffic.outbound_frames_discarded.set(totals.dropped);
    }
}

/// What of the settings is baked into a muxer.
fn baked(settings: &HlsSettings, prefix: String, key_interval: Option<Duration>) -> hls::Settings {
    hls::Settings {
        variant: match settings.variant {
            HlsVariant::LowLatency => hls::Variant::LowLatency,
            HlsVariant::Fmp4 => hls::Variant::Fmp4,
            HlsVariant::MpegTs => hls::Variant::MpegTs,
        },
        segment_count: settings.segment_count.get(),
        segment_duration: settings.segment_duration,
        part_duration: settings.part_duration,
        segment_bytes_max: usize::try_from(settings.segment_bytes_max).unwrap_or(usize::MAX),
        prefix,
        key_interval,
    }
}

/// Whether a running muxer can go on under other settings.
fn is_same_packaging(one: &HlsSettings, other: &HlsSettings) -> bool {
    let plain = |settings| baked(settings, String::new(), None);
    plain(one) == plain(other) && one.session_mode == other.session_mode
}

impl Shard {
    /// The muxer of a path; it is begun if there is a stream and none yet. `by`: who asks for it.
    ///
    /// # Errors
    /// Why there is none, in a sentence.
    pub(super) fn muxer_of(&mut self, path_key: Key, by: Option<SocketAddr>) -> Result<Key, String> {
        let no_stream = |name: &str| format!("no stream is available on path '{name}'");
        let Some(path) = self.paths.get_mut(path_key) else { return Err(no_stream("")) };
        if let Some(muxer) = path.hls {
            return Ok(muxer);
        }
        let (Some(live), Some(settings)) = (&path.live, &self.settings.hls) else {
            return Err(no_stream(&path.name));
        };
        let (name, now) = (Arc::clone(&path.name), self.now);
        let publication = &live.publication;
        let prefix = format!("{:012x}", ids::random_number() >> 16);
        let requested = by.map_or("created automatically".to_owned(), |by| {
            format!("created (requested by {})", crate::shard::plain(by))
        });
        info!("[HLS] [muxer {name}] {requested}");
        let baked = baked(settings, prefix.clone(), publication.key_interval());
        let tracks = publication.tracks.list();
        let (muxer, skipped) = match Muxer::new(baked, &tracks) {
            Ok(made) => made,
            Err(error) => {
                warn!("[HLS] [muxer {name}] destroyed: {error}");
                return Err(error.to_string());
            }
        };
        for track in &skipped {
            warn!("[HLS] [muxer {name}] {}", track.reason);
        }
        let taken = (0..tracks.len()).filter(|&index| skipped.iter().all(|track| track.track != index));
        info!("[HLS] [muxer {name}] is converting into HLS, {}", publication.tracks.labels(taken));
        let traffic = Arc::<HlsMuxerTraffic>::default();
        let entry = HlsMuxer {
            path: path_key,
            name: Arc::clone(&name),
            muxer,
            prefix,
            traffic: Arc::clone(&traffic),
            reader: Some(HlsReader::join(publication)),
            gap_since: None,
            automatic: settings.remuxes_always(&path.settings),
            last_request: now.instant,
            due: false,
            revision: 0,
            indexes_rendered: 0,
        };
        let key = self.hls.muxers.insert(entry);
        path.hls = Some(key);
        self.hls.mark_due(key);
        let created = clock::system_time(now.wall);
        self.tell(News::HlsMuxerOpened { path: name, created, by: by.map(crate::shard::plain), traffic });
        Ok(key)
    }

    /// Ends the muxer of a path, with all who watch it.
    pub(in crate::shard) fn end_muxer(&mut self, path_key: Key, reason: &str) {
        let Some(path) = self.paths.get_mut(path_key) else { return };
        let (name, key, viewers) = (Arc::clone(&path.name), path.hls.take(), path.viewers.clone());
        if let Some(key) = key {
            self.forget_muxer(key, &name, reason);
        }
        for viewer in viewers {
            self.end_viewer(viewer, reason);
        }
        self.release_path(path_key);
    }

    fn forget_muxer(&mut self, key: Key, name: &Arc<str>, reason: &str) {
        let of_muxer = |wait| matches!(wait, Wait::Media { muxer, .. } if muxer == key);
        for ticket in self.hls.held.find(|_, wait| of_muxer(wait)) {
            self.end_visit(ticket, WebAnswer::failure(http::StatusCode::NOT_FOUND, "the muxer is closed"));
        }
        self.hls.held.forget_muxer(key);
        if let Some(entry) = self.hls.muxers.remove(key) {
            entry.show();
            info!("[HLS] [muxer {name}] destroyed: {reason}");
            self.tell(News::HlsMuxerClosed { path: Arc::clone(name), reason: reason.to_owned() });
        }
    }

    /// A stream has begun on a path.
    pub(in crate::shard) fn hls_stream_began(&mut self, path_key: Key) {
        let Some(path) = self.paths.get(path_key) else { return };
        let Some(live) = &path.live else { return };
        let automatic = self.settings.hls.as_ref().is_some_and(|hls| hls.remuxes_always(&path.settings));
        if let Some(key) = path.hls
            && let Some(entry) = self.hls.muxers.get_mut(key)
        {
            if entry.muxer.restart(&live.publication.tracks.list()) {
                entry.reader = Some(HlsReader::join(&live.publication));
                entry.gap_since = None;
                info!("[HLS] [muxer {}] goes on with the new stream", entry.name);
                self.hls.mark_due(key);
                // They were not counted while there was nothing to read.
                return self.readers_changed(path_key);
            }
            self.end_muxer(path_key, "the stream that came back has other tracks");
        }
        if automatic {
            // Why not is in the log.
            let _ = self.muxer_of(path_key, None);
        }
    }

    /// The stream of a path has ended. It may come back; who is kept waiting for its next part wants it to.
    pub(in crate::shard) fn hls_stream_ended(&mut self, path_key: Key) {
        let now = self.now.instant;
        let Some(path) = self.paths.get_mut(path_key) else { return };
        let Some(key) = path.hls else { return };
        let Some(entry) = self.hls.muxers.get_mut(key) else { return };
        (entry.reader, entry.gap_since) = (None, Some(now));
        if path.settings.demand.is_some() {
            let of_muxer = |wait| matches!(wait, Wait::Media { muxer, .. } if muxer == key);
            for ticket in self.hls.held.find(|_, wait| of_muxer(wait)) {
                self.want_again(path_key, Asker::Web(ticket));
            }
        }
    }

    /// Gives every muxer what its stream has flushed, and answers those who waited for what it made of that. True when
    /// there were any.
    pub(in crate::shard) fn feed_muxers(&mut self) -> bool {
        let (now, origin) = (self.now, self.hls.origin);
        let mut keys = std::mem::take(&mut self.hls.keys);
        keys.append(&mut self.hls.due);
        keys.append(&mut self.hls.behind);
        for &key in &keys {
            let Some(entry) = self.hls.muxers.get_mut(key) else { continue };
            entry.due = false;
            let live = self.paths.get(entry.path).and_then(|path| path.live.as_ref());
            let (Some(live), Some(reader)) = (live, &mut entry.reader) else { continue };
            if reader.feed(&live.publication.stream, &mut entry.muxer, origin, now) == Fed::Some {
                entry.due = true;
                self.hls.behind.push(key);
            }
            self.wake_visits(key);
        }
        keys.clear();
        self.hls.keys = keys;
        let answers = !self.hls.ready.is_empty();
        self.resume_ready_visits();
        answers
    }

    /// Finds those who waited for what a muxer has now.
    fn wake_visits(&mut self, key: Key) {
        let super::Hls { muxers, held, tickets, ready, origin, .. } = &mut self.hls;
        let Some(entry) = muxers.get_mut(key) else { return };
        let revision = entry.muxer.revision();
        if !held.waits_for(key) {
            entry.revision = revision;
            return;
        }
        let has_changed = std::mem::replace(&mut entry.revision, revision) != revision;
        let monotonic = self.now.instant.saturating_duration_since(*origin);
        // Sound that never comes is not waited for for ever, whatever the playlists do.
        let has =
            |what: Await| (has_changed || what == Await::Presentation) && entry.muxer.has(what, monotonic);
        held.ready(key, has, tickets);
        ready.extend(tickets.drain(..));
    }

    /// Looks after muxers, viewers and requests: once a second.
    pub(in crate::shard) fn check_hls(&mut self) {
        self.check_held_visits();
        self.check_viewers();
        let now = self.now.instant;
        let close_after = self.settings.hls.as_ref().map(|hls| hls.muxer_close_after);
        let mut keys = std::mem::take(&mut self.hls.keys);
        self.hls.muxers.keys_into(&mut keys);
        for &key in &keys {
            let Some(entry) = self.hls.muxers.get(key) else { continue };
            entry.show();
            let path = entry.path;
            let unused = now.saturating_duration_since(entry.last_request);
            if entry.gap_since.is_some_and(|since| now.saturating_duration_since(since) > GAP_MAX) {
                self.end_muxer(path, "the stream is gone");
            } else if !entry.automatic
                && !self.hls.held.waits_for(key)
                && close_after.is_some_and(|most| unused > most)
            {
                self.end_muxer(path, "not used anymore");
            }
        }
        keys.clear();
        self.hls.keys = keys;
    }

    /// Other settings hold from now on; `old` is what held before.
    pub(in crate::shard) fn hls_settings_changed(&mut self, old: Option<&HlsSettings>) {
        let Some(new) = self.settings.hls.clone() else {
            return self.end_all_muxers("HLS was switched off");
        };
        if old.is_some_and(|old| !is_same_packaging(old, &new)) {
            self.end_all_muxers("its settings have changed");
        }
        let mut keys = Vec::new();
        self.paths.keys_into(&mut keys);
        for key in keys {
            let Some(path) = self.paths.get(key) else { continue };
            let automatic = new.remuxes_always(&path.settings);
            match path.hls.and_then(|muxer| self.hls.muxers.get_mut(muxer)) {
                Some(entry) => entry.automatic = automatic,
                None if automatic && path.live.is_some() => drop(self.muxer_of(key, None)),
                None => {}
            }
        }
    }

    /// Ends everything about HLS, and answers whoever waits.
    pub(in crate::shard) fn end_all_muxers(&mut self, reason: &str) {
        let mut keys = Vec::new();
        self.paths.keys_into(&mut keys);
        for key in keys {
            self.end_muxer(key, reason);
        }
        for ticket in self.hls.held.find(|_, _| true) {
            self.end_visit(ticket, WebAnswer::busy(reason));
        }
    }
}
