//! Viewers as the rest of a shard sees them: readers of a path, and sessions that an operator can end.

use std::{net::SocketAddr, num::NonZeroU32, sync::Arc};

use corecast_hub::roster::{News, Refusal as Reason};
use http::StatusCode;
use tracing::info;
use uuid::Uuid;

use super::{
    sessions::{Change, HlsSession, Mark, NewSession},
    visits::{Visit, Way, What, stop},
};
use crate::shard::{Shard, clock, ids, plain, slots::Key, web::WebAnswer};

impl Shard {
    /// A new viewer of a path for whom `visit` came, if there is room for one; else the answer is 503.
    pub(super) fn open_viewer(&mut self, visit: &Visit, path_key: Key, mark: Mark) -> Way<Key> {
        let remote = plain(visit.request.remote);
        let full = self.paths.get(path_key).and_then(|path| {
            let full = |max: NonZeroU32| path.reader_count() >= max.get() as usize;
            path.settings.readers_max.is_some_and(full).then_some(Arc::clone(&path.name))
        });
        if let Some(name) = full {
            return self.no_room(&name, remote, Reason::MaxReaders, "maximum reader count reached");
        }
        let engine = &self.settings.engine;
        let pass = engine.readers.enter(engine.readers_max);
        let Some(name) = self.paths.get(path_key).map(|path| Arc::clone(&path.name)) else {
            return stop(WebAnswer::failure(StatusCode::NOT_FOUND, "the path is gone"));
        };
        let Some(pass) = pass else {
            return self.no_room(&name, remote, Reason::EngineMaxReaders, "engine.maxReaders reached");
        };
        let (id, is_cdn) = (visit.id, matches!(mark, Mark::Cdn(_)));
        let new = NewSession { id, mark, path: path_key, remote, pass };
        let key = self.hls.sessions.insert(new, self.now.instant);
        if let Some(path) = self.paths.get_mut(path_key) {
            path.viewers.push(key);
        }
        info!("[HLS] [session {}] created by {remote}", ids::short(id));
        info!("[HLS] [session {}] is reading from muxer '{name}'", ids::short(id));
        let traffic = self.hls.sessions.get(key).map(|session| Arc::clone(&session.traffic));
        let user_agent = visit.request.header(&http::header::USER_AGENT).unwrap_or_default().to_owned();
        self.tell(News::HlsSessionOpened {
            id,
            created: clock::system_time(self.now.wall),
            remote,
            path: name,
            query: visit.request.query().to_owned(),
            user: visit.user.clone().unwrap_or_default(),
            user_agent,
            is_cdn,
            traffic: traffic.unwrap_or_default(),
        });
        self.readers_changed(path_key);
        Ok(key)
    }

    /// Refuses somebody for a limit; counted.
    pub(super) fn no_room<T>(&mut self, path: &str, remote: SocketAddr, why: Reason, limit: &str) -> Way<T> {
        self.tell_refused(path, remote, why);
        stop(WebAnswer::busy(&format!("path '{path}': {limit}")))
    }

    /// Ends a viewer's session; its requests that wait are answered.
    pub(super) fn end_viewer(&mut self, key: Key, reason: &str) {
        if self.hls.sessions.get(key).is_some_and(HlsSession::is_held) {
            for ticket in self.hls.held.find(|visit, _| visit.session == Some(key)) {
                self.end_visit(ticket, session_not_found());
            }
        }
        let Some(session) = self.hls.sessions.remove(key) else { return };
        info!("[HLS] [session {}] destroyed: {reason}", ids::short(session.id));
        self.tell(News::HlsSessionClosed { id: session.id, reason: reason.to_owned() });
        if let Some(path) = self.paths.get_mut(session.path) {
            path.viewers.retain(|&other| other != key);
        }
        self.readers_changed(session.path);
        self.release_path(session.path);
    }

    /// Ends a session because an operator wants it. False when there is no such session.
    pub(in crate::shard) fn kick_viewer(&mut self, id: Uuid) -> bool {
        let Some(key) = self.hls.sessions.find_id(id) else { return false };
        if let Some(Mark::Url(url_id)) = self.hls.sessions.get(key).map(|session| session.mark.clone()) {
            self.hls.sessions.note_kicked(&url_id, self.now.instant);
        }
        self.end_viewer(key, "kicked");
        true
    }

    /// Viewers who have not asked for anything: after a while they keep no source at work, and then their sessions end.
    pub(super) fn check_viewers(&mut self) {
        let now = self.now.instant;
        let mut keys = std::mem::take(&mut self.hls.keys);
        self.hls.sessions.keys_into(&mut keys);
        for &key in &keys {
            let Some(path) = self.hls.sessions.get(key).map(|session| session.path) else { continue };
            let muxer = self.paths.get(path).and_then(|path| path.hls);
            let target = muxer.and_then(|muxer| self.hls.muxers.get(muxer)).map(|muxer| muxer.target());
            match self.hls.sessions.look_after(key, target.unwrap_or_default(), now) {
                Some(Change::Over(reason)) => self.end_viewer(key, reason),
                Some(Change::Presence) => self.readers_changed(path),
                None => {}
            }
        }
        keys.clear();
        self.hls.keys = keys;
    }

    /// Viewers on this shard.
    pub(in crate::shard) fn hls_viewers(&self) -> usize {
        self.hls.sessions.len()
    }

    /// Viewers of a path that keep its source at work.
    pub(in crate::shard) fn viewers_present(&self, viewers: &[Key]) -> usize {
        viewers.iter().filter(|&&viewer| self.hls.sessions.is_present(viewer)).count()
    }

    /// A session has asked for something.
    pub(super) fn touch_viewer(&mut self, visit: &Visit, path: Key) {
        let (now, wall) = (self.now.instant, self.now.wall);
        if let Some(session) = visit.session
            && self.hls.sessions.touch(session, visit.what == What::Index, now)
        {
            self.readers_changed(path);
        }
        let muxer = self.paths.get(path).and_then(|path| path.hls);
        if let Some(entry) = muxer.and_then(|muxer| self.hls.muxers.get_mut(muxer)) {
            entry.touch(now, wall);
        }
    }

    /// Counts what a viewer is sent.
    pub(super) fn count_hls_answer(&mut self, visit: &Visit, answer: &WebAnswer) {
        let Some(session) = visit.session.and_then(|session| self.hls.sessions.get(session)) else { return };
        let bytes = answer.body.iter().map(|piece| piece.len() as u64).sum();
        session.traffic.outbound_bytes.add(bytes);
        let Some(path) = self.paths.get_mut(session.path) else { return };
        if let Some(entry) = path.hls.and_then(|muxer| self.hls.muxers.get(muxer)) {
            entry.traffic.outbound_bytes.add(bytes);
        }
        if let Some(live) = &mut path.live {
            live.left_bytes += bytes;
        }
    }
}

/// The id in a URL names no session any more: the player has to begin with `index.m3u8`.
pub(super) fn session_not_found() -> WebAnswer {
    WebAnswer::failure(StatusCode::NOT_FOUND, "session not found: it has ended; index.m3u8 begins a new one")
}
