//! Requests of RTSP clients: where each belongs, and its answer.

use std::sync::Arc;

use corecast_proto::rtsp::{
    Method, Parsed, Request, Response, Status,
    headers::session_id,
    interleaved, parse_request,
    server::{PUBLIC_METHODS, Refusal, Session, stream_of, stream_url},
    url::strip_trailing_slash,
};
use tracing::{debug, info};

use super::{
    Mail, Shard,
    connection::{Phase, Role},
    plain,
    sessions::{Desk, no_stream, shard_of, short},
    slots::Key,
};

/// The product's name in the `Server` header.
const SERVER: &str = "corecast";

/// Whether the rest of an inbox may be looked at now.
enum Next {
    Go,
    Wait,
}

impl Shard {
    /// Answers the whole requests in a connection's inbox, one after the other.
    pub(super) fn work_inbox(&mut self, key: Key) {
        loop {
            let Some(connection) = self.connections.get_mut(key) else { return };
            if connection.phase != Phase::Open {
                return;
            }
            let frames = reports_before_request(&connection.inbox);
            if frames > 0 {
                // Reports of a reader: it lives. What they say about loss comes with the statistics.
                connection.inbox.drain(..frames);
                if let Some(session) = connection.session {
                    self.heard(session);
                }
            }
            let Some(connection) = self.connections.get_mut(key) else { return };
            if connection.inbox.is_empty() {
                return;
            }
            if let Role::Publishing { path, .. } = connection.role {
                // The answer to RECORD is out: what came behind it is media.
                let inbox = std::mem::take(&mut connection.inbox);
                return self.put_back_into_stream(key, path, inbox);
            }
            if connection.inbox.first() == Some(&interleaved::MAGIC) {
                // Half a frame.
                return;
            }
            match parse_request(&connection.inbox, &self.limits) {
                Ok(Parsed::Incomplete) => return,
                Ok(Parsed::Complete { value: request, consumed }) => {
                    if let Next::Wait = self.find_home(key, &request) {
                        return;
                    }
                    if let Some(connection) = self.connections.get_mut(key) {
                        connection.inbox.drain(..consumed);
                    }
                    self.answer(key, &request);
                }
                Err(error) => {
                    return self.refuse(key, None, error.status(), &error.to_string());
                }
            }
        }
    }

    fn put_back_into_stream(&mut self, key: Key, path: Key, bytes: Vec<u8>) {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let Some(live) = self.paths.get_mut(path).and_then(|path| path.live.as_mut()) else { return };
            let spare = live.publication.stream.spare(rest.len());
            let count = spare.len().min(rest.len());
            if count == 0 {
                return self.close(key, "sent a packet larger than the stream's ring");
            }
            spare[..count].copy_from_slice(&rest[..count]);
            live.publication.stream.fill(count);
            rest = &rest[count..];
            self.take_media(key);
        }
    }

    /// Brings a connection to the shard where its path or session lives. `Wait`: it is on its way, or the question
    /// is; the request stays in the inbox.
    fn find_home(&mut self, key: Key, request: &Request) -> Next {
        if !self.has_other_shards() {
            return Next::Go;
        }
        let Some(connection) = self.connections.get_mut(key) else { return Next::Wait };
        if connection.session.is_some() {
            return Next::Go;
        }
        if let Some(header) = request.headers.get("Session") {
            let shard = shard_of(session_id(header)).filter(|&shard| shard != self.id);
            return match shard.filter(|&shard| shard < self.control()) {
                Some(shard) => {
                    self.hand_over(key, shard, None);
                    Next::Wait
                }
                None => Next::Go,
            };
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
        connection.phase = Phase::AwaitingHome;
        let control = self.control();
        self.mesh.send(control, Mail::Claim { path: Arc::from(&*name), pinned, connection: key });
        Next::Wait
    }

    /// Answers one request.
    pub(super) fn answer(&mut self, key: Key, request: &Request) {
        let Some(connection) = self.connections.get(key) else { return };
        debug!("[RTSP] [conn {}] [c->s] {} {}", plain(connection.peer), request.method.as_str(), request.url);
        let Some(cseq) = request.headers.get("CSeq").map(str::to_owned) else {
            return self.refuse(key, None, Status::BAD_REQUEST, "CSeq is missing");
        };
        let named = request.headers.get("Session").map(session_id);
        let own = connection.session;
        let has_session = own.is_some() || named.is_some();
        let result = match &request.method {
            Method::Options if !has_session => {
                Ok((Response::new(Status::OK).header("Public", PUBLIC_METHODS), Vec::new()))
            }
            Method::Describe => self.describe(request).map(|response| (response, Vec::new())),
            Method::Other(method) => {
                Err(Refusal::new(Status::NOT_IMPLEMENTED, format!("unsupported method '{method}'")))
            }
            Method::GetParameter | Method::SetParameter if !has_session => {
                Err(Refusal::new(Status::NOT_IMPLEMENTED, "outside of a session"))
            }
            method => self
                .session_of(key, own, named, matches!(method, Method::Setup | Method::Announce))
                .and_then(|session| self.answer_in_session(key, session, request)),
        };
        match result {
            Ok((response, after_answer)) => {
                self.send_response(key, Some(&cseq), &response);
                if let Some(connection) = self.connections.get_mut(key) {
                    connection.out.extend_from_slice(&after_answer);
                    self.flush_out(key);
                }
                self.end_if_torn_down(key);
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
        debug!("[RTSP] [conn {}] [s->c] {}", plain(connection.peer), response.status.0);
        let mut framed = Response::new(response.status);
        if let Some(cseq) = cseq {
            framed = framed.header("CSeq", cseq);
        }
        framed = framed.header("Server", SERVER);
        for (name, value) in response.headers.iter() {
            framed = framed.header(name, value);
        }
        framed.body.clone_from(&response.body);
        framed.write_to(&mut connection.out);
    }

    fn describe(&mut self, request: &Request) -> Result<Response, Refusal> {
        let stream = strip_trailing_slash(stream_url(request)?);
        let name = stream.name();
        self.settings.paths.lookup(&name).map_err(|error| Refusal::bad_request(error.to_string()))?;
        let path = self.path_names.get(&*name).and_then(|&key| self.paths.get(key));
        let live = path.and_then(|path| path.live.as_ref()).ok_or_else(|| no_stream(&name))?;
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
        if plain(entry.peer).ip() != plain(connection.peer).ip() {
            return Err(Refusal::bad_request("the session belongs to another client"));
        }
        if own.is_none() {
            // A client whose connection broke goes on with its session on a new one, unless the old one carries
            // the media.
            if entry.connection.is_some() && !matches!(entry.flow, super::sessions::Flow::None) {
                return Ok(found);
            }
            entry.connection = Some(key);
            connection.session = Some(found);
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
        let (peer, mut session) = (entry.peer.ip(), entry.session.take().ok_or_else(gone)?);
        let short_id = short(session.id()).to_owned();
        let mut desk =
            Desk { shard: self, key: session_key, connection: key, peer, short_id, after_answer: Vec::new() };
        let result = session.handle(request, &mut desk);
        let after_answer = std::mem::take(&mut desk.after_answer);
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

    fn end_if_torn_down(&mut self, key: Key) {
        let Some(connection) = self.connections.get(key) else { return };
        let (Some(session), peer) = (connection.session, plain(connection.peer)) else { return };
        let entry = self.sessions.get(session);
        if entry.and_then(|entry| entry.session.as_ref()).is_some_and(Session::is_ended) {
            self.end_session(session, &format!("torn down by {peer}"));
        }
    }

    /// What was logged of a running relay at its start.
    pub(super) fn log_listeners(&self) {
        let Some(listener) = &self.listener else { return };
        let port = |address: std::net::SocketAddr| match address.ip().is_unspecified() {
            true => format!(":{}", address.port()),
            false => address.to_string(),
        };
        let mut listeners = Vec::new();
        if let Ok(address) = listener.local_addr() {
            listeners.push(format!("{} (TCP/RTSP)", port(address)));
        }
        if self.ports.is_some() {
            listeners.push(format!("{} (UDP/RTP)", port(self.settings.rtsp.rtp_address)));
            listeners.push(format!("{} (UDP/RTCP)", port(self.settings.rtsp.rtcp_address)));
        }
        let plural = if listeners.len() == 1 { "" } else { "s" };
        info!("[RTSP] started with listener{plural} on {}", listeners.join(", "));
    }
}

/// Length of the whole interleaved frames at the front of `inbox`.
fn reports_before_request(inbox: &[u8]) -> usize {
    crate::readers::whole_packets(inbox, usize::MAX)
}
