//! What viewers ask for, and how far each request gets (contract §5.1, §5.2).
//!
//! A request walks the same way again after each wait: whoever may, to a path, to a stream, to a muxer, to what is asked
//! of that. What it has on the way stays with it ([`Visit`]).

use std::time::Duration;

use corecast_hub::settings::{HlsSessionMode, HlsSettings};
use corecast_packagers::hls::{Answer, Await, Directives, Encoded, FileKind};
use http::{HeaderMap, StatusCode, header};
use subtle::ConstantTimeEq as _;

use super::{
    answers::{self, Caching},
    cookies,
    held::Wait,
    sessions::{Grant, Mark},
    viewers::session_not_found,
    visits::{Visit, Way, What, stop, wait},
};
use crate::shard::{
    Asker, Shard,
    access::AccessTo,
    demand::Wanted,
    ids,
    slots::Key,
    web::{WebAnswer, WebRequest, pages},
};

/// A first playlist is waited for no longer than this.
const BEGINNING_MAX: Duration = Duration::from_secs(20);
/// What is announced is waited for no longer than this many Target Durations (rfc8216bis §6.2.5.2).
const TARGETS_MAX: u32 = 3;

impl Shard {
    /// A request for a playlist or for media, on the shard where its path lives, or anywhere if that is not configured.
    pub(in crate::shard) fn on_hls_request(&mut self, request: WebRequest) {
        let what = match request.place().file {
            "index.m3u8" => What::Index,
            file if file.ends_with(".m3u8") => What::Playlist,
            _ => What::File,
        };
        self.visit(Visit { request, what, id: ids::new_uuid(), user: None, path: None, session: None });
    }

    /// A request for the page with a player, or for what that needs; on the shard of its connection.
    pub(in crate::shard) fn on_hls_page(&mut self, request: WebRequest) {
        let what = What::Page;
        self.visit(Visit { request, what, id: ids::new_uuid(), user: None, path: None, session: None });
    }

    /// The id by which the viewer is known who makes a request, if it shows one.
    pub(in crate::shard) fn viewer_id<'request>(
        &self,
        request: &'request WebRequest,
    ) -> Option<&'request str> {
        match self.settings.hls.as_ref()?.session_mode {
            HlsSessionMode::Url => request.place().session,
            HlsSessionMode::Cookie => cookies::secret(&request.headers, request.query()),
        }
    }

    /// The way of a request to its answer.
    pub(super) fn walk(&mut self, visit: &mut Visit) -> Way<WebAnswer> {
        let Some(settings) = self.settings.hls.clone() else { return stop(WebAnswer::page_not_found()) };
        if visit.request.place().file == pages::LIBRARY_NAME {
            return Ok(answers::page(pages::library(), &visit.request.headers));
        }
        if let Err(error) = self.settings.paths.lookup(visit.request.place().name) {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            return stop(WebAnswer::failure(status, &error.to_string()));
        }
        match visit.what {
            What::Page => {
                self.let_in(visit)?;
                Ok(answers::page(pages::player(), &visit.request.headers))
            }
            What::Index => self.index(visit, &settings),
            What::Playlist | What::File => self.media(visit, &settings),
        }
    }

    /// Lets a client in that may read, asking the control plane if that has to be asked.
    fn let_in(&mut self, visit: &mut Visit) -> Way<()> {
        if visit.user.is_some() || self.web_is_open(AccessTo::Read) {
            return Ok(());
        }
        let Visit { request, id, .. } = &*visit;
        let query = cookies::without(request.query(), |name| name == "cookieCheck");
        self.ask_web(request, AccessTo::Read, request.place().name, &query, *id);
        wait(Wait::Verdict, None)
    }

    /// The multivariant playlist, with which a session begins.
    fn index(&mut self, visit: &mut Visit, settings: &HlsSettings) -> Way<WebAnswer> {
        let is_cdn = is_cdn(settings, &visit.request.headers);
        let by_cookie = settings.session_mode == HlsSessionMode::Cookie && !is_cdn;
        if by_cookie && !cookies::was_checked(visit.request.query()) {
            return Ok(cookies::check(&visit.request));
        }
        // Found first, so that it is not given up while the control plane is asked; told last.
        let path = self.hls_path(visit);
        if !is_cdn {
            self.let_in(visit)?;
        }
        let path = path?;
        self.need_stream(visit, path)?;
        let muxer = self.need_muxer(visit, path)?;
        let session = match visit.session {
            Some(session) if self.hls.sessions.get(session).is_some() => session,
            // It was ended while this request waited.
            Some(_) => return stop(session_not_found()),
            None => {
                let mark = match is_cdn {
                    true => Mark::Cdn(path),
                    false if by_cookie => Mark::Secret(ids::new_session_id(self.id)),
                    false => Mark::Url(self.new_url_id(muxer)),
                };
                match self.hls.sessions.find(&mark) {
                    Some(session) => session,
                    None => self.open_viewer(visit, path, mark)?,
                }
            }
        };
        visit.session = Some(session);
        self.touch_viewer(visit, path);
        let mark = self.hls.sessions.get(session).map(|session| session.mark.clone());
        let directory = match &mark {
            Some(Mark::Url(id)) => format!("~{id}/"),
            _ => String::new(),
        };
        let now = self.now.instant.saturating_duration_since(self.hls.origin);
        let Some(entry) = self.hls.muxers.get_mut(muxer) else { return stop(session_not_found()) };
        let text = match entry.muxer.multivariant(&directory, now) {
            Answer::Ready(text) => text,
            answer => return self.short_of(muxer, answer),
        };
        entry.indexes_rendered += 1;
        let caching = Caching::seldom_changes(is_cdn);
        let Some(Mark::Secret(secret)) = mark else {
            return Ok(answers::playlist(Encoded { body: text.plain, gzip: false }, caching));
        };
        let keeps_cookies = cookies::keeps_cookies(&visit.request.headers);
        let suffix = cookies::suffix(visit.request.query(), (!keeps_cookies).then_some(&secret));
        let answer = answers::playlist(Encoded { body: text.with_query(&suffix), gzip: false }, caching);
        match keeps_cookies {
            true => Ok(answer.header(header::SET_COOKIE, cookies::give(&secret))),
            false => Ok(answer),
        }
    }

    /// A media playlist, or what it names.
    fn media(&mut self, visit: &mut Visit, settings: &HlsSettings) -> Way<WebAnswer> {
        let directives = Directives::parse(visit.request.query());
        let is_cdn = is_cdn(settings, &visit.request.headers);
        let path = match settings.session_mode {
            _ if is_cdn => self.walk_in(visit, Some(Mark::Cdn))?,
            HlsSessionMode::Cookie => self.by_secret(visit)?,
            HlsSessionMode::Url if visit.request.place().session.is_some() => self.by_url(visit)?,
            HlsSessionMode::Url => self.walk_in(visit, None)?,
        };
        self.touch_viewer(visit, path);
        if visit.what == What::Playlist {
            self.need_stream(visit, path)?;
        }
        let muxer = self.need_muxer(visit, path)?;
        let caching = match is_cdn {
            true => Caching::changes(true),
            false => Caching::Private,
        };
        let gone = || WebAnswer::failure(StatusCode::NOT_FOUND, "there is no such file, or not any more");
        let Some(entry) = self.hls.muxers.get_mut(muxer) else { return stop(gone()) };
        let file = visit.request.place().file;
        // The name that MediaMTX gives the only playlist of some variants.
        let kind = entry
            .muxer
            .kind_of(file)
            .or((file == "main_stream.m3u8").then_some(FileKind::Playlist { rendition: 0 }));
        match kind {
            None => stop(gone()),
            Some(FileKind::Playlist { rendition }) => {
                let directives = match directives {
                    Ok(directives) => directives,
                    Err(error) => {
                        return stop(WebAnswer::failure(StatusCode::BAD_REQUEST, &error.to_string()));
                    }
                };
                let suffix = match settings.session_mode {
                    HlsSessionMode::Cookie => cookies::suffix(visit.request.query(), None),
                    HlsSessionMode::Url => String::new(),
                };
                let answer = match suffix.as_str() {
                    "" => {
                        let gzip = answers::takes_gzip(&visit.request.headers);
                        entry.muxer.playlist(rendition, directives, gzip)
                    }
                    suffix => with_text(entry.muxer.playlist_with_query(rendition, directives, suffix)),
                };
                match answer {
                    Answer::Ready(text) => Ok(answers::playlist(text, caching)),
                    answer => self.short_of(muxer, answer),
                }
            }
            Some(kind) => match entry.muxer.file(kind) {
                Answer::Ready(body) => {
                    let caching = match kind {
                        FileKind::Init { .. } => Caching::seldom_changes(is_cdn),
                        _ => Caching::never_changes(is_cdn),
                    };
                    Ok(answers::file(body, file.ends_with(".ts"), caching))
                }
                answer => self.short_of(muxer, answer),
            },
        }
    }

    /// What becomes of a request that a muxer has no answer for.
    fn short_of<T, A>(&self, muxer: Key, answer: Answer<A>) -> Way<T> {
        match answer {
            Answer::Ready(_) | Answer::NotFound => {
                stop(WebAnswer::failure(StatusCode::NOT_FOUND, "there is no such file, or not any more"))
            }
            Answer::Refused(error) => stop(WebAnswer::failure(StatusCode::BAD_REQUEST, &error.to_string())),
            Answer::Wait(what) => {
                let target = self.hls.muxers.get(muxer).map(|entry| entry.target()).unwrap_or_default();
                let patience = match what {
                    Await::Presentation | Await::Content { .. } => BEGINNING_MAX.max(TARGETS_MAX * target),
                    Await::Segment { .. } | Await::Part { .. } | Await::Hinted { .. } => TARGETS_MAX * target,
                };
                wait(Wait::Media { muxer, what }, self.later(patience))
            }
        }
    }

    /// The path that a request is about, here.
    fn hls_path(&mut self, visit: &mut Visit) -> Way<Key> {
        let name = visit.request.place().name.to_owned();
        let path = match self.has_other_shards() {
            // The request was sent here because the path lives here, or because its session does.
            true => self.path_names.get(&*name).copied(),
            false => self.path_at_home(&name),
        };
        match path {
            Some(path) => {
                visit.path = Some(path);
                Ok(path)
            }
            None => stop(no_stream(&name)),
        }
    }

    /// The viewer whose id is in the URL.
    fn by_url(&mut self, visit: &mut Visit) -> Way<Key> {
        let id = visit.request.place().session.unwrap_or_default().to_owned();
        let path = self.hls_path(visit)?;
        let found = self.hls.sessions.find(&Mark::Url(id.clone()));
        let session = match found {
            Some(key) if self.hls.sessions.get(key).is_some_and(|session| session.path == path) => key,
            Some(_) => return stop(session_not_found()),
            // Where everybody may watch, the id is but a name: who comes back after a pause goes on with it.
            None if self.may_return(&id, path) => self.open_viewer(visit, path, Mark::Url(id))?,
            None => return stop(session_not_found()),
        };
        visit.session = Some(session);
        Ok(path)
    }

    /// Whether the id of a session that is over can be taken up again: it is one of this path's muxer.
    fn may_return(&self, id: &str, path: Key) -> bool {
        let muxer = self.paths.get(path).and_then(|path| path.hls);
        let tag = muxer.and_then(|muxer| self.hls.muxers.get(muxer)).map(|entry| entry.tag());
        let is_ours = tag.is_some_and(|tag| ids::is_viewer_id(id, self.id, tag));
        is_ours && self.web_is_open(AccessTo::Read) && !self.hls.sessions.was_kicked(id, self.now.instant)
    }

    /// The viewer who shows the secret of its session, from where that began.
    fn by_secret(&mut self, visit: &mut Visit) -> Way<Key> {
        let Visit { request, .. } = &*visit;
        let secret = cookies::secret(&request.headers, request.query()).map(str::to_owned);
        let remote = crate::shard::plain(request.remote).ip();
        let key = secret.and_then(|secret| self.hls.sessions.find(&Mark::Secret(secret)));
        let session = key.and_then(|key| self.hls.sessions.get(key));
        let Some(session) = session.filter(|session| session.remote.ip() == remote) else {
            return stop(WebAnswer::unauthorized(false));
        };
        let of = session.path;
        if self.hls_path(visit)? != of {
            return stop(WebAnswer::unauthorized(false));
        }
        visit.session = key;
        Ok(of)
    }

    /// A viewer who shows no session: each request has to be let in by itself. `cdn` makes it one of those of a content
    /// delivery network, which is let in already.
    fn walk_in(&mut self, visit: &mut Visit, cdn: Option<fn(Key) -> Mark>) -> Way<Key> {
        let path = match self.hls_path(visit) {
            Ok(path) => Some(path),
            Err(stop) if self.web_is_open(AccessTo::Read) || visit.user.is_some() => return Err(stop),
            // What is not there is told to nobody who may not know it.
            Err(_) => None,
        };
        let request = &visit.request;
        let mark = path.map(|path| match cdn {
            Some(cdn) => cdn(path),
            None => Mark::Client {
                path,
                ip: crate::shard::plain(request.remote).ip(),
                user_agent: request.header(&header::USER_AGENT).unwrap_or_default().to_owned(),
            },
        });
        let found = mark.as_ref().and_then(|mark| self.hls.sessions.find(mark));
        let grant = Grant {
            authorization: request.headers.get(header::AUTHORIZATION).cloned(),
            query: cookies::without(request.query(), |name| name.starts_with("_HLS_")),
            at: self.now.instant,
        };
        let granted = found.and_then(|key| self.hls.sessions.get(key)?.grant.as_ref());
        if cdn.is_none() && !granted.is_some_and(|granted| granted.covers(&grant)) {
            self.let_in(visit)?;
        }
        let (Some(path), Some(mark)) = (path, mark) else {
            return stop(no_stream(visit.request.place().name));
        };
        let session = match found {
            Some(session) => session,
            None => {
                // Nobody is a viewer of what is not there.
                self.need_stream(visit, path)?;
                self.need_muxer(visit, path)?;
                self.open_viewer(visit, path, mark)?
            }
        };
        if visit.user.is_some()
            && let Some(session) = self.hls.sessions.get_mut(session)
        {
            session.grant = Some(grant);
        }
        visit.session = Some(session);
        Ok(path)
    }

    /// Sees to it that there is a stream, or one that will come back; waits for it if somebody brings it on demand.
    fn need_stream(&mut self, visit: &Visit, path_key: Key) -> Way<()> {
        let name = visit.request.place().name;
        let has_muxer = self.paths.get(path_key).is_some_and(|path| path.hls.is_some());
        let remote = crate::shard::plain(visit.request.remote);
        let asker = Asker::Web(visit.request.ticket);
        match self.want_stream(path_key, asker, visit.request.query(), visit.session.is_some()) {
            Wanted::Live => Ok(()),
            // Its playlists are there still; who asks for more than they have waits for that.
            Wanted::Waits if has_muxer => Ok(()),
            Wanted::Never if has_muxer => Ok(()),
            Wanted::Waits => wait(Wait::Stream, None),
            Wanted::Never => stop(no_stream(name)),
            Wanted::Limit(why, limit) => self.no_room(name, remote, why, limit),
            Wanted::Crowded => {
                stop(WebAnswer::busy(&format!("path '{name}': too many clients wait for its stream already")))
            }
        }
    }

    fn need_muxer(&mut self, visit: &Visit, path: Key) -> Way<Key> {
        let exists = self.paths.get(path).is_some_and(|path| path.hls.is_some());
        if !exists && visit.what == What::File {
            return stop(no_stream(visit.request.place().name));
        }
        let is_live = self.paths.get(path).is_some_and(|path| path.live.is_some());
        self.muxer_of(path, Some(visit.request.remote)).or_else(|reason| {
            let status = if is_live { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::NOT_FOUND };
            stop(WebAnswer::failure(status, &reason))
        })
    }

    /// An id for the URLs of a new viewer of a muxer.
    fn new_url_id(&self, muxer: Key) -> String {
        let tag = self.hls.muxers.get(muxer).map_or("", |entry| entry.tag());
        ids::new_viewer_id(self.id, tag)
    }
}

fn no_stream(name: &str) -> WebAnswer {
    let reason = format!("no stream is available on path '{name}'");
    WebAnswer::failure(StatusCode::NOT_FOUND, &reason)
}

fn with_text(answer: Answer<bytes::Bytes>) -> Answer<Encoded> {
    match answer {
        Answer::Ready(body) => Answer::Ready(Encoded { body, gzip: false }),
        Answer::Wait(what) => Answer::Wait(what),
        Answer::NotFound => Answer::NotFound,
        Answer::Refused(error) => Answer::Refused(error),
    }
}

/// Whether a content delivery network asks, which is let in for its secret.
fn is_cdn(settings: &HlsSettings, headers: &HeaderMap) -> bool {
    let Some(secret) = &settings.cdn_secret else { return false };
    let presented = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
    let presented = presented.and_then(|value| value.strip_prefix(b"Bearer "));
    presented.is_some_and(|presented| presented.ct_eq(secret.0.as_bytes()).into())
}
