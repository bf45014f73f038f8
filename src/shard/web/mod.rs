//! The HTTP servers of a shard: hyper over our own sockets, driven by the shard's loop.
//!
//! There is no executor. A connection is hyper's future and what its requests wait for ([`carrier`]); it is polled when
//! its socket is ready or an answer is there, and never otherwise. Its input and output ([`wire`]) are the shard's
//! sockets, watched by the media ring. What a connection is asked comes out as a [`WebRequest`] with a [`Ticket`]; the
//! answer may be given at once, later, or by another shard ([`Shard::web_answer`]), and is sent from the [`Bytes`] that it
//! holds. A request that waits costs its memory and nothing else.

mod access;
mod answer;
mod connection;
mod finish;
mod handover;
mod listen;
mod lobby;
pub mod origins;
pub mod pages;
pub mod proxies;
mod request;
mod route;
mod tasks;
mod upkeep;
mod visit;
mod wire;

use std::{collections::HashMap, rc::Rc, sync::Arc, time::Instant};

use corecast_hub::registry::ShardId;
use rustls::ServerConfig;

pub use self::{
    answer::WebAnswer,
    handover::WebHandover,
    lobby::Lobby,
    request::{Place, WebRequest},
};
use self::{connection::WebConnection, handover::Newcomer, listen::Listening};
use super::{
    Shard, boot,
    media_io::MediaIo,
    slots::{Key, Slots},
};

/// How often, in one turn, it is looked at what became of what was done.
const ROUNDS_PER_TURN: usize = 4;

/// One of the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WebService {
    Hls,
}

impl WebService {
    pub const ALL: [Self; 1] = [Self::Hls];

    /// As the log calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hls => "HLS",
        }
    }
}

/// Names a request that waits for its answer, on any shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// Where its connection is.
    pub shard: ShardId,
    pub connection: Key,
    /// Counts the requests of the connection.
    pub request: u64,
}

/// What a shard knows of its HTTP servers.
pub struct Web {
    lobby: Rc<Lobby>,
    listening: [Option<Listening>; WebService::ALL.len()],
    /// What encrypted connections of each have in common.
    tls: [Arc<ServerConfig>; WebService::ALL.len()],
    connections: Slots<WebConnection>,
    /// Connections that are polled next.
    due: Vec<Key>,
    /// Connections whose first request tells where they belong, if there are other shards.
    newcomers: Vec<Newcomer>,
    has_other_shards: bool,
    /// Most connections at a time.
    connections_max: usize,
    /// Connections wait in the backlog because one could not be accepted.
    is_full: bool,
    /// Listeners with somebody to accept.
    knocked: Vec<WebService>,
    /// Requests of connections here, by where they went.
    away: HashMap<Ticket, ShardId>,
    /// Requests whose path's home is being asked for.
    homeless: HashMap<Ticket, WebRequest>,
    /// Requests that wait for the control plane to say whether they are allowed.
    asked: HashMap<Ticket, access::Asked>,
}

impl Web {
    /// None listens yet.
    pub fn new(
        lobby: Lobby,
        tls: [Arc<ServerConfig>; WebService::ALL.len()],
        has_other_shards: bool,
        connections_max: usize,
    ) -> Self {
        Self {
            lobby: Rc::new(lobby),
            listening: Default::default(),
            tls,
            connections: Slots::default(),
            due: Vec::new(),
            newcomers: Vec::new(),
            has_other_shards,
            connections_max,
            is_full: false,
            knocked: Vec::new(),
            away: HashMap::new(),
            homeless: HashMap::new(),
            asked: HashMap::new(),
        }
    }

    pub fn set_now(&self, now: Instant) {
        self.lobby.set_now(now);
    }

    /// Something is left to do that no event will tell of.
    pub fn has_work(&self) -> bool {
        let Lobby { arrived, gone, .. } = &*self.lobby;
        !(self.knocked.is_empty()
            && self.due.is_empty()
            && self.newcomers.is_empty()
            && arrived.borrow().is_empty()
            && gone.borrow().is_empty())
    }

    /// Takes in who came and goes on with the connections that are ready. `handshakes` counts those that have made a
    /// step of their handshake in this turn, of all servers.
    pub fn go_on(&mut self, io: &mut MediaIo, handshakes: &mut u32) {
        for service in std::mem::take(&mut self.knocked) {
            self.accept(io, service);
        }
        for key in std::mem::take(&mut self.due) {
            self.poll(io, key, handshakes);
        }
    }

    /// The next request that has arrived.
    pub fn next_request(&self) -> Option<WebRequest> {
        self.lobby.arrived.borrow_mut().pop_front()
    }

    /// The next request that nobody waits for any more.
    pub fn next_gone(&self) -> Option<Ticket> {
        self.lobby.gone.borrow_mut().pop()
    }
}

impl Shard {
    /// Goes on with what can: connections that are ready, requests that came of them, and what became of those. Some of
    /// it is left for the next turn when there is much.
    pub(super) fn run_web(&mut self) {
        for _ in 0..ROUNDS_PER_TURN {
            if !self.web.has_work() {
                return;
            }
            self.web.go_on(&mut self.io, &mut self.work.handshakes);
            self.forget_gone();
            for newcomer in std::mem::take(&mut self.web.newcomers) {
                self.route_newcomer(newcomer);
            }
            while let Some(request) = self.web.next_request() {
                self.route_web(request);
            }
        }
    }

    fn forget_gone(&mut self) {
        while let Some(ticket) = self.web.next_gone() {
            self.web_gone(ticket);
        }
    }

    pub(super) fn check_web(&mut self) {
        self.check_web_verdicts();
        self.web.check(&mut self.io, self.settings.read_timeout, self.settings.write_timeout);
    }

    /// See [`Web::rebind`].
    ///
    /// # Errors
    /// When an address cannot be had.
    pub(super) fn rebind_web(&mut self) -> Result<(), boot::BootError> {
        let result = self.web.rebind(&mut self.io, &self.settings, self.id == 0);
        self.forget_gone();
        result
    }

    /// The end of all servers.
    pub(super) fn end_web(&mut self) {
        self.web.end(&mut self.io);
        self.forget_gone();
    }
}

#[cfg(test)]
mod tests;
