//! Which shard a request belongs to, and the way of its answer back.

use std::sync::Arc;

use corecast_hub::registry::ShardId;
use http::{HeaderValue, Method, StatusCode, header};

use super::{Ticket, WebAnswer, WebRequest, WebService};
use crate::shard::{Asker, Mail, Shard, ids};

impl Shard {
    /// A request of a connection here goes where its path lives.
    pub(super) fn route_web(&mut self, request: WebRequest) {
        if let Some(answer) = without_stream(&request) {
            return self.web_answer(request.ticket, answer);
        }
        let place = request.place();
        if !place.is_media() {
            return self.on_web_page(request);
        }
        if !self.has_other_shards() || self.path_names.contains_key(place.name) {
            return self.on_web_request(request);
        }
        let session = self.viewer_id(&request).and_then(ids::shard_of);
        if let Some(shard) = session.filter(|&shard| shard < self.control()) {
            return match shard == self.id {
                true => self.on_web_request(request),
                false => self.send_web_request(request, shard, None),
            };
        }
        // What is not configured is refused right here.
        if self.settings.paths.lookup(place.name).is_err() {
            return self.on_web_request(request);
        }
        self.claim_for_web(place.name, Asker::Web(request.ticket));
        self.web.homeless.insert(request.ticket, request);
    }

    /// Asks the control thread where the path `name` lives, which is configured.
    pub(super) fn claim_for_web(&mut self, name: &str, asker: Asker) {
        let core = self.settings.paths.lookup(name).ok().and_then(|settings| settings.core);
        let pinned = core.and_then(|core| self.settings.engine.cores.iter().position(|&c| c == core));
        let control = self.control();
        self.mesh.send(control, Mail::Claim { path: Arc::from(name), pinned, asker });
    }

    /// Nobody waits for a claim any more. It goes the way of all: to the home, which gives it back.
    pub(super) fn return_claim(&mut self, path: &Arc<str>, home: ShardId) {
        match home == self.id {
            true => self.take_orphan(path),
            false => self.mesh.send(home, Mail::Orphan { path: Arc::clone(path) }),
        }
    }

    /// The answer of the control thread to a claim.
    pub(in crate::shard) fn on_web_home(&mut self, ticket: Ticket, path: &Arc<str>, home: ShardId) {
        let request = self.web.homeless.remove(&ticket);
        match request {
            Some(request) if home == self.id => self.take_web_request(request, Some(Arc::clone(path))),
            Some(request) => self.send_web_request(request, home, Some(Arc::clone(path))),
            None => self.return_claim(path, home),
        }
    }

    fn send_web_request(&mut self, request: WebRequest, to: ShardId, claim: Option<Arc<str>>) {
        self.web.away.insert(request.ticket, to);
        self.mesh.send(to, Mail::WebRequest { request: Box::new(request), claim });
    }

    /// A request has come to where its path lives.
    pub(in crate::shard) fn take_web_request(&mut self, request: WebRequest, claim: Option<Arc<str>>) {
        let path = claim.and_then(|path| self.claimed_path(&path));
        self.on_web_request(request);
        if let Some(path) = path {
            self.release_path(path);
        }
    }

    /// A request for a playlist or for media, on the shard where its path lives, or anywhere if that is not configured.
    /// It is answered by [`Self::web_answer`], now or later.
    fn on_web_request(&mut self, request: WebRequest) {
        match request.service {
            WebService::Hls => self.on_hls_request(request),
        }
    }

    /// A request for a page about a path, or for what a page needs; on the shard of its connection.
    fn on_web_page(&mut self, request: WebRequest) {
        match request.service {
            WebService::Hls => self.on_hls_page(request),
        }
    }

    /// The client may have what it asked [`Self::ask_web`] about.
    pub(super) fn web_allowed(&mut self, ticket: Ticket, user: String) {
        self.hls_allowed(ticket, user);
    }

    /// The client may not, and is told so: what is kept for its request can be forgotten.
    pub(super) fn web_refused(&mut self, ticket: Ticket) {
        self.hls_refused(ticket);
    }

    /// Answers a request. Nothing happens when its client is gone.
    pub(in crate::shard) fn web_answer(&mut self, ticket: Ticket, answer: WebAnswer) {
        if ticket.shard != self.id {
            return self.mesh.send(ticket.shard, Mail::WebAnswer { ticket, answer: Box::new(answer) });
        }
        self.web.away.remove(&ticket);
        self.web.answer(ticket, answer);
    }

    /// Nobody waits for this answer any more: what is kept for the request can be forgotten.
    pub(in crate::shard) fn web_gone(&mut self, ticket: Ticket) {
        self.web.asked.remove(&ticket);
        self.web.homeless.remove(&ticket);
        self.hls_gone(ticket);
        if let Some(shard) = self.web.away.remove(&ticket) {
            self.mesh.send(shard, Mail::WebGone { ticket });
        }
    }
}

/// The shard that the session's id in a query names.
pub(super) fn session_shard(query: &str) -> Option<ShardId> {
    let session = query.split('&').find_map(|pair| pair.strip_prefix("session="))?;
    ids::shard_of(session)
}

/// The answer to what is about no stream, whatever streams there are (contract §5.1).
fn without_stream(request: &WebRequest) -> Option<WebAnswer> {
    let place = request.place();
    let is_nothing = request.method != Method::GET
        || (place.name.is_empty() && (matches!(place.file, "" | "favicon.ico") || place.is_media()))
        || place.file == "hls.min.js.map";
    if is_nothing {
        return Some(WebAnswer::page_not_found());
    }
    (!place.is_page() && !place.is_media()).then(|| with_slash(request))
}

/// `/cam` is `/cam/`. Never on another host: browsers would read `//evil` and `/\evil` as one.
fn with_slash(request: &WebRequest) -> WebAnswer {
    let path = request.uri.path().trim_start_matches(['/', '\\']);
    let query = request.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    match HeaderValue::try_from(format!("/{path}/{query}")) {
        Ok(location) => WebAnswer::new(StatusCode::FOUND).header(header::LOCATION, location),
        Err(_) => WebAnswer::page_not_found(),
    }
}
