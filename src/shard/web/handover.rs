//! A connection over HTTP/1.1 goes to the shard where the path of its first request lives, and stays there: what it asks
//! for from then on needs no mail. HTTP/2 tells its first request in a form that only hyper reads, so those connections
//! stay where they were accepted, and their requests travel.

use std::{
    net::{SocketAddr, TcpStream},
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use corecast_hub::registry::ShardId;
use percent_encoding::percent_decode_str;

use super::{
    Web, WebService,
    connection::{State, WebConnection},
    request::Place,
    route::session_shard,
    wire::Link,
};
use crate::shard::{Asker, Kind, Mail, Shard, ids, media_io::MediaIo, slots::Key, tls::Tls};

/// A connection on its way to another shard.
pub struct WebHandover {
    pub service: WebService,
    pub socket: TcpStream,
    pub peer: SocketAddr,
    pub tls: Option<Box<Tls>>,
    /// Received and not understood.
    pub received: Vec<u8>,
    pub opened: Instant,
}

/// A connection whose first request has begun to arrive.
pub struct Newcomer {
    pub connection: Key,
    /// The path that it is about; empty for none.
    name: String,
    /// The shard of the session that it names.
    session: Option<ShardId>,
}

impl Newcomer {
    /// `line` is the first of its request (RFC 9112 §3). What cannot be read is about no path: hyper says what is wrong.
    pub fn new(connection: Key, line: &str) -> Self {
        let target = line.split(' ').nth(1).unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = percent_decode_str(path).decode_utf8().unwrap_or_default();
        let path = path.strip_prefix('/').unwrap_or_default();
        let place = Place::of(path);
        // `/cam` is about to be told that it is `/cam/`.
        let name = if place.is_media() || place.is_page() { place.name } else { path };
        let session = place.session.and_then(ids::shard_of).or_else(|| session_shard(query));
        Self { connection, name: name.to_owned(), session }
    }
}

impl Web {
    /// hyper has a connection from now on.
    fn serve_here(&mut self, key: Key) {
        if let Some(connection) = self.connections.get_mut(key)
            && matches!(connection.state, State::AwaitingHome)
        {
            connection.serve(key, false, &self.lobby);
            self.make_due(key);
        }
    }

    fn give_away(&mut self, io: &mut MediaIo, key: Key) -> Option<WebHandover> {
        let connection = self.connections.remove(key)?;
        io.unwatch(connection.link.fd(), Kind::Web.token(key));
        self.closed(connection.service);
        let WebConnection { service, peer, link, opened, .. } = connection;
        // Nobody else has it before hyper does.
        let (socket, tls, received) = Rc::into_inner(link)?.into_parts();
        Some(WebHandover { service, socket, peer, tls, received, opened })
    }

    fn take_over(&mut self, io: &mut MediaIo, handover: WebHandover) {
        let WebHandover { service, socket, peer, tls, received, opened } = handover;
        let link = Link::new(socket, tls, received, Rc::clone(&self.lobby));
        let mut connection = WebConnection::new(service, peer, link, &self.lobby);
        (connection.state, connection.opened) = (State::AwaitingHome, opened);
        if let Some(key) = self.adopt(io, connection) {
            self.serve_here(key);
        }
    }
}

impl Shard {
    /// Finds out where a connection belongs.
    pub(super) fn route_newcomer(&mut self, newcomer: Newcomer) {
        let Newcomer { connection, name, session } = newcomer;
        if name.is_empty() || self.path_names.contains_key(&*name) {
            return self.web.serve_here(connection);
        }
        match session.filter(|&shard| shard < self.control()) {
            Some(shard) if shard == self.id => return self.web.serve_here(connection),
            Some(shard) => return self.hand_web_over(connection, shard, None),
            None => {}
        }
        match self.settings.paths.lookup(&name) {
            // What is not configured is refused right here.
            Err(_) => self.web.serve_here(connection),
            Ok(_) => self.claim_for_web(&name, Asker::WebConnection(connection)),
        }
    }

    /// The answer of the control thread to a claim.
    pub(in crate::shard) fn on_web_connection_home(&mut self, key: Key, path: &Arc<str>, home: ShardId) {
        if self.web.connection_fd(key).is_none() {
            return self.return_claim(path, home);
        }
        if home != self.id {
            return self.hand_web_over(key, home, Some(Arc::clone(path)));
        }
        let path = self.claimed_path(path);
        self.web.serve_here(key);
        self.settle_web(path);
    }

    fn hand_web_over(&mut self, key: Key, to: ShardId, claim: Option<Arc<str>>) {
        match self.web.give_away(&mut self.io, key) {
            Some(handover) => {
                self.mesh.send(to, Mail::WebConnection { handover: Box::new(handover), claim });
            }
            None => {
                if let Some(path) = claim {
                    self.return_claim(&path, to);
                }
            }
        }
    }

    /// Takes over a connection from another shard.
    pub(in crate::shard) fn take_web_over(&mut self, handover: WebHandover, claim: Option<Arc<str>>) {
        let path = claim.and_then(|path| self.claimed_path(&path));
        self.web.take_over(&mut self.io, handover);
        self.settle_web(path);
    }

    /// Lets the request be seen for which the path was claimed, before the path is forgotten.
    fn settle_web(&mut self, path: Option<Key>) {
        self.run_web();
        if let Some(path) = path {
            self.release_path(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_a_request_tells_where_it_belongs() {
        let of = |line: &str| {
            let newcomer = Newcomer::new(Key::from_bits(1), line);
            (newcomer.name, newcomer.session)
        };
        let name = |name: &str| (name.to_owned(), None);
        assert_eq!(of("GET /site/cam%201/index.m3u8?x HTTP/1.1\r"), name("site/cam 1"));
        assert_eq!(of("GET /cam/ HTTP/1.1"), name("cam"));
        assert_eq!(of("HEAD /cam?a=/b HTTP/1.1"), name("cam"));
        assert_eq!(of("GET /cam/v_seg1.mp4?session=03ab&x HTTP/1.1"), ("cam".to_owned(), Some(3)));
        for nothing in
            ["", "GET", "GET / HTTP/1.1", "GET /index.m3u8 HTTP/1.1", "PRI * HTTP/2.0", "GET /%ff HTTP/1.1"]
        {
            assert_eq!(of(nothing), name(""), "{nothing}");
        }
    }
}
