//! A request on its way to its answer.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::held::Wait;
use crate::shard::{
    Asker, Shard,
    slots::Key,
    web::{Ticket, WebAnswer, WebRequest},
};

/// See the module.
pub struct Visit {
    pub request: WebRequest,
    pub what: What,
    /// Of the session that is to be: an authentication server hears of it before.
    pub id: Uuid,
    /// Who was let in by the control plane; empty for somebody who had no name to tell.
    pub user: Option<String>,
    /// The path that it is about, once that was found here.
    pub path: Option<Key>,
    pub session: Option<Key>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The page with a player.
    Page,
    /// The multivariant playlist.
    Index,
    /// A media playlist.
    Playlist,
    /// An initialisation section, a segment or a part.
    File,
}

/// How a request stops short of what it is about.
pub enum Stop {
    Answer(WebAnswer),
    Wait(Wait, Option<Instant>),
}

/// The way to an answer, or why it ends before.
pub type Way<T> = Result<T, Box<Stop>>;

/// Ends the way with an answer.
pub fn stop<T>(answer: WebAnswer) -> Way<T> {
    Err(Box::new(Stop::Answer(answer)))
}

/// Ends the way for now.
pub fn wait<T>(wait: Wait, until: Option<Instant>) -> Way<T> {
    Err(Box::new(Stop::Wait(wait, until)))
}

impl Shard {
    /// Goes with a request as far as that is possible now.
    pub(super) fn visit(&mut self, mut visit: Visit) {
        let ticket = visit.request.ticket;
        let way = self.walk(&mut visit);
        let stop = way.map_or_else(|stop| *stop, Stop::Answer);
        let path = visit.path;
        match stop {
            Stop::Answer(answer) => {
                self.answer_visit(&visit, answer);
                self.forget_wish(ticket, path);
            }
            Stop::Wait(..) if self.hls.held.is_full() => {
                self.answer_visit(&visit, WebAnswer::busy("too many requests wait already"));
                self.forget_wish(ticket, path);
            }
            Stop::Wait(wait, until) => self.hold_visit(visit, wait, until),
        }
        if let Some(path) = path {
            self.release_path(path);
        }
    }

    fn answer_visit(&mut self, visit: &Visit, answer: WebAnswer) {
        self.count_hls_answer(visit, &answer);
        self.web_answer(visit.request.ticket, answer);
    }

    fn hold_visit(&mut self, visit: Visit, wait: Wait, until: Option<Instant>) {
        if let Some(path) = visit.path.and_then(|path| self.paths.get_mut(path)) {
            path.visits += 1;
        }
        if let Some(session) = visit.session {
            self.hls.sessions.hold(session, true, self.now.instant);
        }
        self.hls.held.hold(visit.request.ticket, visit, wait, until);
    }

    /// Takes a request out of those that wait. Its path is to be released when it has been dealt with.
    fn take_visit(&mut self, ticket: Ticket) -> Option<Visit> {
        let (visit, _) = self.hls.held.take(ticket)?;
        if let Some(path) = visit.path.and_then(|path| self.paths.get_mut(path)) {
            path.visits = path.visits.saturating_sub(1);
        }
        if let Some(session) = visit.session {
            self.hls.sessions.hold(session, false, self.now.instant);
        }
        self.forget_wish(ticket, visit.path);
        Some(visit)
    }

    /// A request does not wait for the stream of its path any more, if it did.
    fn forget_wish(&mut self, ticket: Ticket, path: Option<Key>) {
        if let Some(path) = path {
            self.stop_wanting(path, Asker::Web(ticket));
        }
    }

    /// What a request has waited for is there, perhaps.
    pub(super) fn resume_visit(&mut self, ticket: Ticket) {
        if let Some(visit) = self.take_visit(ticket) {
            self.visit(visit);
        }
    }

    /// Answers a request that waits in vain.
    pub(in crate::shard) fn end_visit(&mut self, ticket: Ticket, answer: WebAnswer) {
        let Some(visit) = self.take_visit(ticket) else { return };
        self.web_answer(ticket, answer);
        if let Some(path) = visit.path {
            self.release_path(path);
        }
    }

    /// The client of a request is gone.
    pub(in crate::shard) fn hls_gone(&mut self, ticket: Ticket) {
        if let Some(path) = self.take_visit(ticket).and_then(|visit| visit.path) {
            self.release_path(path);
        }
    }

    /// The control plane lets a client in.
    pub(in crate::shard) fn hls_allowed(&mut self, ticket: Ticket, user: String) {
        if let Some((visit, Wait::Verdict)) = self.hls.held.get_mut(ticket) {
            visit.user = Some(user);
            self.resume_visit(ticket);
        }
    }

    /// It does not, and the client is told so already.
    pub(in crate::shard) fn hls_refused(&mut self, ticket: Ticket) {
        self.hls_gone(ticket);
    }

    /// The stream is there that a request waits for.
    pub(in crate::shard) fn hls_released(&mut self, ticket: Ticket) {
        // What waits for a part is woken by that.
        if let Some((_, Wait::Stream)) = self.hls.held.get_mut(ticket) {
            self.hls.ready.push_back(ticket);
        }
    }

    /// Goes on with requests that can.
    pub(super) fn resume_ready_visits(&mut self) {
        // Those that become ready by it have their turn, too.
        while let Some(ticket) = self.hls.ready.pop_front() {
            self.resume_visit(ticket);
        }
    }

    /// Answers those who have waited too long.
    pub(super) fn check_held_visits(&mut self) {
        for ticket in self.hls.held.late(self.now.instant) {
            self.end_visit(ticket, WebAnswer::busy("there is nothing new yet"));
        }
    }

    /// That much later than now.
    pub(super) fn later(&self, by: Duration) -> Option<Instant> {
        self.now.instant.checked_add(by)
    }
}
