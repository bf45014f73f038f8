//! A path that is brought to life by the first who wants it: who waits for it, when what brings it is started, and when
//! that is stopped again (contract §7).
//!
//! One machine per path, the same for whatever way its readers come and its media is brought. It knows no socket, no
//! process and no clock: it is told what happened and when, and answers with [`Order`]s. What is kept is always the
//! moment at which something began, so that other [`Timing`] holds at once.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Requests that may wait on one path.
pub const HELD_MAX: usize = 4096;

/// See the module. `W` names a request that waits.
#[derive(Debug, Clone)]
pub struct Demand<W> {
    pub timing: Timing,
    /// What was started brings the stream again by itself when that is lost.
    pub revives: bool,
    state: State,
    /// There is a stream, whoever brought it.
    live: bool,
    readers: usize,
    /// Requests that wait, each with the moment since when; the oldest first.
    held: VecDeque<(W, Instant)>,
}

/// How patient a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timing {
    /// A request waits no longer than this, and what nobody came to see is given up after it.
    pub start_timeout: Duration,
    /// Without readers for this long, it is stopped.
    pub close_after: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was started. A stream may be there all the same: somebody brought it without being asked.
    Idle,
    /// Started, and no stream yet. `wanted` is when somebody last came to wait for it.
    Starting { since: Instant, wanted: Instant },
    /// Started, and read.
    Running,
    /// Started, and not read.
    Closing { since: Instant },
}

/// What is to be done now, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order<W> {
    /// Begin to bring the stream.
    Start,
    /// Stop bringing it.
    Stop(StopReason),
    /// The stream that this request waits for is there.
    Release(W),
    /// This request waits in vain.
    Fail(W, FailReason),
}

/// Why it is stopped; shown as logs have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    NotNeeded,
    TimedOut,
    SourceFailed,
    PathDestroyed,
    Terminated,
}

impl StopReason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotNeeded => "not needed by anyone",
            Self::TimedOut => "timed out",
            Self::SourceFailed => "an error occurred",
            Self::PathDestroyed => "path destroyed",
            Self::Terminated => "terminated",
        }
    }
}

/// Why a request is refused that has waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailReason {
    /// Nothing came within the start timeout.
    TimedOut,
    /// The path is no more, or the relay ends.
    Terminated,
}

/// As many wait as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl<W: Copy + Eq> Demand<W> {
    pub fn new(timing: Timing) -> Self {
        let held = VecDeque::new();
        Self { timing, revives: true, state: State::Idle, live: false, readers: 0, held }
    }

    /// Nothing was started, and nobody waits.
    pub fn is_idle(&self) -> bool {
        self.state == State::Idle && self.held.is_empty()
    }

    /// Something was started and is not stopped yet.
    pub fn is_started(&self) -> bool {
        self.state != State::Idle
    }

    /// Requests that wait.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Somebody wants the stream. With a stream it is released at once, and what was started stays for another
    /// [`Timing::close_after`]; without one it waits, and its wait has an end of its own.
    ///
    /// # Errors
    /// When [`HELD_MAX`] wait already.
    pub fn want(&mut self, who: W, now: Instant, orders: &mut Vec<Order<W>>) -> Result<(), Full> {
        if self.live {
            self.touch(now);
            orders.push(Order::Release(who));
            return Ok(());
        }
        if self.held.iter().any(|&(held, _)| held == who) {
            return Ok(());
        }
        if self.held.len() >= HELD_MAX {
            return Err(Full);
        }
        self.held.push_back((who, now));
        match &mut self.state {
            State::Idle => {
                self.state = State::Starting { since: now, wanted: now };
                orders.push(Order::Start);
            }
            State::Starting { wanted, .. } => *wanted = now,
            // What brought it is at work still, and may bring it again; or is left over.
            State::Running | State::Closing { .. } => {
                if !self.revives {
                    self.stop(StopReason::SourceFailed, orders);
                    orders.push(Order::Start);
                }
                self.state = State::Starting { since: now, wanted: now };
            }
        }
        Ok(())
    }

    /// Somebody looked at the stream that is there, and will probably come to read it.
    pub fn touch(&mut self, now: Instant) {
        if let State::Closing { since } = &mut self.state
            && self.live
        {
            *since = now;
        }
    }

    /// Somebody does not wait any more.
    pub fn leave(&mut self, who: W) {
        self.held.retain(|&(held, _)| held != who);
    }

    /// The stream is there, whoever brought it.
    pub fn stream_began(&mut self, now: Instant, orders: &mut Vec<Order<W>>) {
        self.live = true;
        if let State::Starting { .. } = self.state {
            self.state = State::Closing { since: now };
        }
        orders.extend(self.held.drain(..).map(|(who, _)| Order::Release(who)));
        self.settle(now);
    }

    /// The stream is gone, and its readers will be. What brought it is left at work, in case that it brings it again,
    /// but not for longer than without readers: see [`Self::source_failed`] for when it is known that it does not.
    pub fn stream_ended(&mut self, now: Instant) {
        self.live = false;
        self.readers = 0;
        self.settle(now);
    }

    /// So many read it now.
    pub fn set_readers(&mut self, readers: usize, now: Instant) {
        self.readers = readers;
        self.settle(now);
    }

    /// An attempt to bring the stream has failed, or the source is lost. As long as somebody waits there may be another
    /// attempt; else it is stopped at once, and the next who comes starts it again.
    pub fn source_failed(&mut self, orders: &mut Vec<Order<W>>) {
        if !self.live && self.held.is_empty() {
            self.stop(StopReason::SourceFailed, orders);
        }
    }

    /// When [`Self::tick`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Idle | State::Running => None,
            State::Starting { since, wanted } => {
                let first = self.held.front().map_or(wanted, |&(_, since)| since);
                Some((first + self.timing.start_timeout).min(since + self.patience()))
            }
            State::Closing { since } => Some(since + self.timing.close_after),
        }
    }

    /// It is so late now.
    pub fn tick(&mut self, now: Instant, orders: &mut Vec<Order<W>>) {
        match self.state {
            State::Idle | State::Running => {}
            State::Starting { since, wanted } => {
                let start_timeout = self.timing.start_timeout;
                while let Some(&(who, since)) = self.held.front()
                    && since + start_timeout <= now
                {
                    self.held.pop_front();
                    orders.push(Order::Fail(who, FailReason::TimedOut));
                }
                if wanted + start_timeout > now && since + self.patience() > now {
                    return;
                }
                self.stop(StopReason::TimedOut, orders);
                if !self.held.is_empty() {
                    // Always somebody new to wait for it, and it never came: whatever hangs there gets a fresh start.
                    self.state = State::Starting { since: now, wanted };
                    orders.push(Order::Start);
                }
            }
            State::Closing { since } => {
                if since + self.timing.close_after <= now {
                    self.stop(StopReason::NotNeeded, orders);
                }
            }
        }
    }

    /// The path is no more, or is something else from now on.
    pub fn end(&mut self, reason: StopReason, orders: &mut Vec<Order<W>>) {
        orders.extend(self.held.drain(..).map(|(who, _)| Order::Fail(who, FailReason::Terminated)));
        self.stop(reason, orders);
    }

    fn stop(&mut self, reason: StopReason, orders: &mut Vec<Order<W>>) {
        if std::mem::replace(&mut self.state, State::Idle) != State::Idle {
            orders.push(Order::Stop(reason));
        }
    }

    /// How long one start may take while there is always somebody who waits.
    fn patience(&self) -> Duration {
        2 * self.timing.start_timeout
    }

    /// Whether what was started is read has changed, perhaps.
    fn settle(&mut self, now: Instant) {
        match self.state {
            State::Running if self.readers == 0 => self.state = State::Closing { since: now },
            State::Closing { .. } if self.readers > 0 => self.state = State::Running,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
