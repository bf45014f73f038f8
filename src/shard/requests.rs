//! Requests of RTSP clients: where each belongs, and its answer.

use std::sync::Arc;

use corecast_hub::settings::Source;
use corecast_proto::rtsp::{
    Method, Parsed, Request, Response, Status,
    headers::session_id,
    interleaved, parse_request,
    server::{PUBLIC_METHODS, Refusal, Session, stream_of, stream_url},
    url::{PathAndQuery, strip_trailing_slash},
};
use tracing::debug;

use super::{
    Asker, Mail, Shard,
    access::Admission,
    connection::Phase,
    demand::Stream,
    host::{SessionHost, no_stream},
    ids::shard_of,
    plain,
    sessions::Flow,
    slots::Key,
};
use crate::{
    readers,
    sources::publication::{Plane, track_of},
};

/// The product's name in the `Server` header.
const SERVER: &str = "corecast";

/// Whether a request may be answered here and now.
enum Next {
    Go,
    Wait,
}

impl Shard {
    /// Takes the next whole request out of a connection's inbox, if it may be answered here and now.
    pub(super) fn take_request(&mut self, key: Key) -> Option<Request> {
        loop {
            self.take_reports(key);
            let connection = self.connections.get_mut(key)?;
            if connection.inbox.first().is_none_or(|&first| first == interleaved::MAGIC) {
                return None;
            }
            let (request, consumed) = match parse_request(&connection.inbox, &self.limits) {
                Ok(Parsed::Incomplete) => return None,
                Ok(Parsed::Complete { value, consumed }) => (value, consumed),
                Err(error) => {
                    self.refuse(key, None, error.status(), &error.to_string());
                    return None;
                }
            };
            if let Next::Wait = self.find_session(key, &request) {
                return None;
            }
            let cseq = request.headers.get("CSeq");
            match self.admit(key, &request) {
                Admission::Go => {}
                Admission::Wait => return None,
                Admission::Denied { reason } => {
                    self.refuse_denied(key, cseq, &reason);
                    return None;
                }
                Admission::Challenge => {
                    // The client is to try again, on this connection.
                    self.connections.get_mut(key)?.inbox.drain(..consumed);
                    let challenge = self.challenge(key);
                    self.send_response(key, cseq, &challenge);
                    self.flush_out(key);
                    continue;
                }
            }
            if let Next::Wait = self.find_home(key, &request) {
                return None;
            }
            match self.find_stream(key, &request) {
                Stream::Go => {}
                Stream::Wait => return None,
                Stream::Refused(refusal) => {
                    self.refuse(key, cseq, refusal.status, &refusal.reason);
                    return None;
                }
            }
            self.connections.get_mut(key)?.inbox.drain(..consumed);
            return Some(request);
        }
    }

    /// Takes a reader's reports out of its connection's inbox: it lives, and may have lost packets on the way.
    fn take_reports(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let length = readers::whole_packets(&connection.inbox, usize::MAX);
        if length == 0 {
            return;
        }
        let reports = readers::packets(&connection.inbox[..length]);
        let rtcp = reports.filter(|&(channel, _)| track_of(channel).1 == Plane::Rtcp);
        let losses: Vec<_> = rtcp.flat_map(|(_, packet)| readers::reported_losses(packet)).collect();
        connection.inbox.drain(..length);
        if let Some(session) = connection.session {
            self.heard(session);
            for (ssrc, lost) in losses {
                self.on_reported_loss(session, ssrc, lost);
            }
        }
    }

    /// Brings a connection to the shard where the session lives that its request names.
    fn find_session(&mut self, key: Key, request: &Request) -> Next {
        let Some(connection) = self.connections.get(key) else { return Next::Wait };
        if !self.has_other_shards() || connection.session.is_some() {
            return Next::Go;
        }
        let Some(header) = request.headers.get("Session") else { return Next::Go };
        let shard = shard_of(session_id(header)).filter(|&shard| shard != self.id);
        match shard.filter(|&shard| shard < self.control()) {
            Some(shard) => {
                self.hand_over(key, shard, None);
                Next::Wait
            }
            None => Next::Go,
        }
    }

    /// Brings a connection to the shard where its path lives. `Wait`: it is on its way, or the question is; the request
    /// stays in the inbox.
    fn find_home(&mut self, key: Key, request: &Request) -> Next {
        if !self.has_other_shards() {
            return Next::Go;
        }
        let Some(connection) = self.connections.get_mut(key) else { return Next::Wait };
        if let Some(session) = connection.session {
            let Some(entry) = self.sessions.get(session) else { return Next::Go };
            if entry.path.is_some() || stream_of(request).is_none() {
                return Next::Go;
            }
            // Nothing came of it yet, a refused transport at most: the path may live elsewhere.
            self.end_session(session, "never had a path");
        }
        if request.headers.get("Session").is_some() {
            return Next::Go;
        }
        let Some(stream) = stream_of(request) else { return Next::Go };
        let name = stream.name();
        if self.path_names.contains_key(&*name) {
            return Next::Go;
        }
        // A name that is not configured is refused right here.
        let Ok(settings) = self.settings.paths.lookup(&name) else { return Next::Go };
        let pinned =
            settings.core.and_then(|core| self.settings.engine.cores.iter().position(|&c| c == core));
        let Some(connection) = self.connections.get_mut(key) else { return Next::Wait };
        connection.phase = Phase::AwaitingHome;
        let control = self.control();
        self.mesh
            .send(control, Mail::Claim { path: Arc::from(&*name), pinned, asker: Asker::Connection(key) });
        Next::Wait
    }

    /// Answers one request.
    pub(super) fn answer(&mut self, key: Key, request: &Request) {
        let Some(connection) = self.connections.get(key) else { return };
        let (server, peer) = (connection.server(), plain(connection.peer));
        debug!("[{server}] [conn {peer}] [c->s] {} {}", request.method.as_str(), request.url);
        let Some(cseq) = request.headers.get("CSeq").map(str::to_owned) else {
            return self.refuse(key, None, Status::BAD_REQUEST, "CSeq is missing");
        };
        let named = request.headers.get("Session").map(session_id);
        let own = connection.session;
        let has_session = own.is_some() || named.is_some();
        let mut addressed = None;
        let result = match &request.method {
            Method::Options if !has_session => {
                Ok((Response::new(Status::OK).header("Public", PUBLIC_METHODS), Vec::new()))
            }
            Method::Describe => self.describe(key, request).map(|response| (response, Vec::new())),
            Method::Other(method) => {
                Err(Refusal::new(Status::NOT_IMPLEMENTED, format!("unsupported method '{method}'")))
            }
            Method::GetParameter | Method::SetParameter if !has_session => {
                Err(Refusal::new(Status::NOT_IMPLEMENTED, "outside of a session"))
            }
            method => self
                .session_of(key, own, named, matches!(method, Method::Setup | Method::Announce))
                .and_then(|session| {
                    addressed = Some(session);
                    self.answer_in_session(key, session, request)
                }),
        };
        match result {
            Ok((response, after_answer)) => {
                self.send_response(key, Some(&cseq), &response);
                if let Some(connection) = self.connections.get_mut(key) {
                    connection.sent_bytes += after_answer.len() as u64;
                    connection.out.extend_from_slice(&after_answer);
                }
                // Told before the client knows: whoever asks the API after an answer finds what it was about.
                if let Some(session) = addressed {
                    self.tell_session(session);
                }
                self.end_if_torn_down(addressed, key);
                self.flush_out(key);
            }
            Err(refusal) if refusal.status == Status::UNSUPPORTED_TRANSPORT => {
                // The client may ask for another transport.
                self.send_response(key, Some(&cseq), &Response::new(refusal.status));
                self.flush_out(key);
            }
            Err(refusal) => self.refuse(key, Some(&cseq), refusal.status, &refusal.reason),
        }
    }

    /// Answers with an error and ends the connection (contract §4.1).
    pub(super) fn refuse(&mut self, key: Key, cseq: Option<&str>, status: Status, reason: &str) {
        self.send_response(key, cseq, &Response::new(status));
        self.close_after_answer(key, reason);
    }

    fn send_response(&mut self, key: Key, cseq: Option<&str>, response: &Response) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let (server, peer) = (connection.server(), plain(connection.peer));
        debug!("[{server}] [conn {peer}] [s->c] {}", response.status.0);
        let mut framed = Response::new(response.status);
        if let Some(cseq) = cseq {
            framed = framed.header("CSeq", cseq);
        }
        framed = framed.header("Server", SERVER);
        for (name, value) in response.headers.iter() {
            framed = framed.header(name, value);
        }
        framed.body.clone_from(&response.body);
        let before = connection.out.len();
        framed.write_to(&mut connection.out);
        connection.sent_bytes += (connection.out.len() - before) as u64;
    }

    fn describe(&mut self, key: Key, request: &Request) -> Result<Response, Refusal> {
        let stream = strip_trailing_slash(stream_url(request)?);
        let name = stream.name();
        let settings = self.settings.paths.lookup(&name);
        let settings = Arc::clone(settings.map_err(|error| Refusal::bad_request(error.to_string()))?);
        if !self.may_describe(key, &stream, request) {
            return Err(Refusal::new(Status::UNAUTHORIZED, "a description cannot be had while publishing"));
        }
        let path = self.path_names.get(&*name).and_then(|&key| self.paths.get(key));
        if let Source::Redirect(to) = &settings.source {
            return Ok(redirect(&stream, to));
        }
        let Some(live) = path.and_then(|path| path.live.as_ref()) else {
            return settings
                .fallback
                .as_ref()
                .map(|to| redirect(&stream, to))
                .ok_or_else(|| no_stream(&name));
        };
        Ok(Response::new(Status::OK)
            .header("Content-Base", format!("{stream}/"))
            .body("application/sdp", live.publication.tracks.description()))
    }

    /// The session that a request belongs to: the one it names, else its connection's, else a new one.
    fn session_of(
        &mut self,
        key: Key,
        own: Option<Key>,
        named: Option<&str>,
        may_create: bool,
    ) -> Result<Key, Refusal> {
        let not_found = || Refusal::new(Status::SESSION_NOT_FOUND, "session not found");
        let Some(id) = named else {
            return match own {
                Some(own) => Ok(own),
                None if may_create => self.new_session(key).ok_or_else(not_found),
                None => Err(not_found()),
            };
        };
        let found = *self.session_ids.get(id).ok_or_else(not_found)?;
        if own.is_some_and(|own| own != found) {
            return Err(Refusal::bad_request("the connection belongs to another session"));
        }
        let (Some(connection), Some(entry)) = (self.connections.get_mut(key), self.sessions.get_mut(found))
        else {
            return Err(not_found());
        };
        // The two servers know nothing of each other.
        if entry.encrypted != connection.is_encrypted() {
            return Err(not_found());
        }
        if plain(entry.peer).ip() != plain(connection.peer).ip() {
            return Err(Refusal::bad_request("the session belongs to another client"));
        }
        if own.is_none() {
            // A client whose connection broke goes on with its session on a new one. While media flows and the old
            // one is there, it stays where it is.
            if entry.connection.is_some() && !matches!(entry.flow, Flow::None) {
                return Ok(found);
            }
            connection.session = Some(found);
            let old = entry.connection.replace(key);
            if let Some(old) = old.and_then(|old| self.connections.get_mut(old)) {
                old.session = None;
            }
            self.tell_session(found);
        }
        Ok(found)
    }

    fn answer_in_session(
        &mut self,
        key: Key,
        session_key: Key,
        request: &Request,
    ) -> Result<(Response, Vec<u8>), Refusal> {
        let gone = || Refusal::new(Status::SESSION_NOT_FOUND, "session not found");
        let entry = self.sessions.get_mut(session_key).ok_or_else(gone)?;
        entry.last_heard = self.now.instant;
        if entry.path.is_none() {
            let standing = self.connections.get(key).map(|connection| &connection.standing);
            entry.user = standing.map(|standing| standing.user().to_owned()).unwrap_or_default();
        }
        if let Some(user_agent) = request.headers.get("User-Agent").filter(|name| *name != entry.user_agent) {
            user_agent.clone_into(&mut entry.user_agent);
        }
        let (short_id, encrypted) = (entry.short_id(), entry.encrypted);
        let (peer, mut session) = (entry.peer, entry.session.take().ok_or_else(gone)?);
        let mut host = SessionHost {
            shard: self,
            key: session_key,
            connection: key,
            peer,
            encrypted,
            short_id,
            query: session.stream().map(|stream| stream.query.clone()).unwrap_or_default(),
            after_answer: Vec::new(),
        };
        let result = session.handle(request, &mut host);
        let after_answer = std::mem::take(&mut host.after_answer);
        self.give_back(session_key, session);
        match result {
            Ok(response) => Ok((response, after_answer)),
            // The client may try SETUP again with another transport.
            Err(refusal) if refusal.status == Status::UNSUPPORTED_TRANSPORT => Err(refusal),
            Err(refusal) => {
                self.end_session(session_key, &refusal.reason);
                Err(refusal)
            }
        }
    }

    fn give_back(&mut self, key: Key, session: Session) {
        match self.sessions.get_mut(key) {
            Some(entry) => entry.session = Some(session),
            None => {
                self.session_ids.remove(session.id());
            }
        }
    }

    fn end_if_torn_down(&mut self, session: Option<Key>, connection: Key) {
        let Some(session) = session else { return };
        let entry = self.sessions.get(session);
        if entry.and_then(|entry| entry.session.as_ref()).is_some_and(Session::is_ended) {
            let peer = self.connections.get(connection).map(|connection| plain(connection.peer));
            let by = peer.map_or_else(String::new, |peer| format!(" by {peer}"));
            self.end_session(session, &format!("torn down{by}"));
        }
    }
}

/// Sends a client elsewhere: to a path of ours, which is made a URL with the scheme and host of its own, or to a URL.
fn redirect(from: &PathAndQuery, to: &str) -> Response {
    let base = if to.starts_with('/') { from.base.as_str() } else { "" };
    Response::new(Status::MOVED_TEMPORARILY).header("Location", format!("{base}{to}"))
}
