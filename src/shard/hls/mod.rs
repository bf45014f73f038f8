//! HLS on the shard where a path lives: one muxer per path ([`muxers`]), viewers ([`sessions`]), and what they ask for
//! ([`requests`]), which may have to wait ([`held`]).
//!
//! A muxer is fed like a reader, from the stream's ring, after the flush rule ([`Shard::feed_muxers`]). What it makes is
//! shared by all viewers: a part is memory that is sent to each, a playlist is written out once per part. A viewer costs
//! an entry in a table and a request that waits.

mod answers;
mod cookies;
mod held;
mod muxers;
mod requests;
mod sessions;
mod viewers;
mod visits;

use std::{collections::VecDeque, time::Instant};

use self::{held::Held, visits::Visit};
pub use self::{muxers::HlsMuxer, sessions::Sessions};
use super::{
    slots::{Key, Slots},
    web::Ticket,
};

/// What a shard knows of HLS.
pub struct Hls {
    muxers: Slots<HlsMuxer>,
    sessions: Sessions,
    held: Held<Visit>,
    /// Requests that can go on.
    ready: VecDeque<Ticket>,
    /// Muxers whose streams have something new.
    due: Vec<Key>,
    /// Muxers with more to take than one turn allows.
    behind: Vec<Key>,
    /// Tickets and keys on their way from one list to another.
    tickets: Vec<Ticket>,
    keys: Vec<Key>,
    /// Where the clock of the muxers begins.
    origin: Instant,
}

impl Hls {
    pub fn new(now: Instant) -> Self {
        Self {
            muxers: Slots::default(),
            sessions: Sessions::default(),
            held: Held::default(),
            ready: VecDeque::new(),
            due: Vec::new(),
            behind: Vec::new(),
            tickets: Vec::new(),
            keys: Vec::new(),
            origin: now,
        }
    }

    /// A muxer's stream has flushed something.
    pub fn mark_due(&mut self, muxer: Key) {
        if let Some(entry) = self.muxers.get_mut(muxer)
            && !std::mem::replace(&mut entry.due, true)
        {
            self.due.push(muxer);
        }
    }

    /// There is something for [`super::Shard::feed_muxers`] to do.
    pub fn has_work(&self) -> bool {
        !(self.due.is_empty() && self.behind.is_empty() && self.ready.is_empty())
    }
}
