//! Whose turn it is to reach a host: pulls are let out a few at a time per host, those that somebody waits for first,
//! and with the addresses of the host, since shards resolve no names.
//!
//! A task of the control plane hears the requests, in order, and keeps [`turns`]; what waits for a name ([`names`])
//! waits in a task of its own.

use std::{net::SocketAddr, num::NonZeroUsize, sync::Arc};

use corecast_hub::registry::ShardId;
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::{Instant, sleep_until},
};
use tracing::warn;

use crate::shard::slots::Key;

mod names;
mod turns;

pub use names::SystemResolver;
use names::{Names, Resolve};
use turns::{Granted, Place, PullId, Turns, Want};

/// What shards tell of their pulls.
#[derive(Debug, Clone)]
pub enum DialRequest {
    /// A pull wants to reach a host. Answered through [`super::desk::DeskHandle::dialable`]. A pull that is known
    /// already wants to reach this host now, or has become urgent; one that has its turn is answered again.
    Wanted {
        shard: ShardId,
        pull: Key,
        host: Arc<str>,
        port: u16,
        /// Somebody waits for it.
        urgent: bool,
        /// Its last attempt came to nothing.
        suspect: bool,
    },
    /// It has reached it, or given up, or does not want to any more. Needless after an answer that there are no
    /// addresses.
    Done { shard: ShardId, pull: Key },
}

/// Where requests are left; never waits.
#[derive(Debug, Clone)]
pub struct Dialer(UnboundedSender<Message>);

#[derive(Debug)]
enum Message {
    Request(DialRequest),
    /// From now on so many pulls may be on their way to a host.
    PerHost(NonZeroUsize),
    /// What was found of a host that somebody may reach now.
    Found(Granted, Result<Vec<SocketAddr>, String>),
}

impl Dialer {
    /// Requests may be left at once; they are looked at once [`Requests::serve`] runs.
    pub fn new() -> (Self, Requests) {
        let (sender, receiver) = unbounded_channel();
        (Self(sender.clone()), Requests { receiver, sender })
    }

    /// Takes a request. There is at most one of each pull that is not done, so that what waits is bounded by them.
    pub fn take(&self, request: DialRequest) {
        // It fails when the control plane has ended, and nobody dials any more.
        let _ = self.0.send(Message::Request(request));
    }

    /// Goes by another `engine.dialsPerHost`.
    pub fn set_per_host(&self, per_host: NonZeroUsize) {
        let _ = self.0.send(Message::PerHost(per_host));
    }
}

/// Requests that have not been looked at.
#[derive(Debug)]
pub struct Requests {
    receiver: UnboundedReceiver<Message>,
    sender: UnboundedSender<Message>,
}

impl Requests {
    /// Answers requests for ever. `answer` must return at once.
    pub async fn serve(
        mut self,
        per_host: NonZeroUsize,
        resolver: impl Resolve,
        answer: impl Fn(ShardId, Key, Result<Vec<SocketAddr>, String>) + Send,
    ) {
        let names = Arc::new(Names::new(resolver));
        let mut turns = Turns::new(per_host);
        let mut granted = Vec::new();
        loop {
            let deadline = turns.deadline();
            let overdue = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let message = tokio::select! {
                message = self.receiver.recv() => message,
                () = overdue => None,
            };
            let now = Instant::now();
            match message {
                Some(Message::Request(DialRequest::Wanted { shard, pull, host, port, urgent, suspect })) => {
                    let want = Want { place: Place { host, port }, urgent, suspect };
                    turns.want(PullId { shard, pull }, want, now, &mut granted);
                }
                Some(Message::Request(DialRequest::Done { shard, pull })) => {
                    turns.done(PullId { shard, pull }, now, &mut granted);
                }
                // Whoever has given its turn back meanwhile waits for other answers, or for none.
                Some(Message::Found(turn, addresses)) if turns.is_current(&turn) => {
                    let PullId { shard, pull } = turn.pull;
                    if addresses.is_err() {
                        turns.done(turn.pull, now, &mut granted);
                    }
                    answer(shard, pull, addresses);
                }
                Some(Message::Found(..)) => {}
                Some(Message::PerHost(per_host)) => turns.set_per_host(per_host, now, &mut granted),
                None => {
                    for overdue in turns.expire(now, &mut granted) {
                        warn!("[dialer] {}: a pull did not say whether it was reached", overdue.host);
                    }
                }
            }
            for turn in granted.drain(..) {
                let (names, sender) = (Arc::clone(&names), self.sender.clone());
                tokio::spawn(async move {
                    let addresses = names.addresses(&turn.place).await;
                    let _ = sender.send(Message::Found(turn, addresses));
                });
            }
        }
    }
}

#[cfg(test)]
mod tests;
