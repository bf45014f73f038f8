//! Starts commands, keeps those that are to be kept running, and ends them: a bounded number, each in a task of its own.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    task::spawn_blocking,
    time::{Instant, sleep_until, timeout},
};
use tracing::{debug, error, info, warn};

use super::{
    HookKind, Spec,
    child::{Child, End, KILL_WAIT, Order, Orders, StartError, describe},
    counters::{Counters, Running},
};

/// Between two lines about commands that are not started because there are too many.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// How many and how patiently.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Commands at a time, those that wait for their restart included.
    pub commands_max: usize,
    /// Time between SIGINT and SIGKILL.
    pub kill_after: Duration,
    /// Pause before a restart; doubled each time that a command lives for less than this, up to `restart_after_max`.
    pub restart_after: Duration,
    pub restart_after_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            commands_max: 4096,
            kill_after: Duration::from_secs(5),
            restart_after: Duration::from_secs(5),
            restart_after_max: Duration::from_secs(60),
        }
    }
}

/// See the module. When it is dropped, all that runs is killed; [`Self::shutdown`] is kinder.
#[derive(Debug)]
pub struct Supervisor {
    shared: Arc<Shared>,
    runtime: Handle,
    slots: Arc<Semaphore>,
    kill: watch::Sender<bool>,
    closed: AtomicBool,
    refused: Mutex<Refused>,
}

#[derive(Debug)]
struct Shared {
    limits: Limits,
    counters: Arc<Counters>,
    launches: mpsc::UnboundedSender<Launch>,
    /// Whose turn it is of commands that must not run beside each other, by the beginning of their lines in the log.
    turns: Mutex<HashMap<String, Turn>>,
}

/// Held by a command from before its start until nothing of it is left; taken in the order of asking.
type Turn = Arc<tokio::sync::Mutex<()>>;

/// Commands that were not started since the last line about it.
#[derive(Debug, Default)]
struct Refused {
    count: u64,
    logged: Option<std::time::Instant>,
}

/// A process to be started, in its turn. There are never more of them than slots.
#[derive(Debug)]
struct Launch {
    spec: Arc<Spec>,
    unwanted: Arc<AtomicBool>,
    reply: oneshot::Sender<Result<Child, StartError>>,
}

/// The other end of it; answered without a child when it became unwanted in time.
#[derive(Debug)]
struct Launched {
    unwanted: Arc<AtomicBool>,
    reply: oneshot::Receiver<Result<Child, StartError>>,
}

/// A command that is kept until it is stopped, though its process may have ended. Stopped when dropped.
#[derive(Debug)]
pub struct Instance {
    pub spec: Arc<Spec>,
    stop: watch::Sender<bool>,
}

impl Supervisor {
    /// Runs on `runtime`.
    pub fn new(runtime: Handle, limits: Limits, counters: Arc<Counters>) -> Self {
        let (launches, queue) = mpsc::unbounded_channel();
        runtime.spawn(launch_in_order(queue));
        Self {
            shared: Arc::new(Shared { limits, counters, launches, turns: Mutex::default() }),
            runtime,
            slots: Arc::new(Semaphore::new(limits.commands_max)),
            kill: watch::Sender::new(false),
            closed: AtomicBool::new(false),
            refused: Mutex::default(),
        }
    }

    /// Starts a command that is to run until it is stopped. Commands start in the order of the calls; a failure is
    /// logged, and tried again when `spec` says so. `None` when too many run already.
    pub fn start(&self, spec: Arc<Spec>) -> Option<Instance> {
        let slot = self.slot(&spec)?;
        info!("{spec} command started");
        let stop = watch::Sender::new(false);
        self.run(Arc::clone(&spec), Some(stop.subscribe()), slot);
        Some(Instance { spec, stop })
    }

    /// Starts a command that ends by itself.
    pub fn launch(&self, spec: Arc<Spec>) {
        if let Some(slot) = self.slot(&spec) {
            info!("{spec} command launched");
            self.run(spec, None, slot);
        }
    }

    /// Tells a command to end and does not wait for it. `reason` is for the log, and may be empty.
    pub fn stop(&self, instance: Instance, reason: &str) {
        match reason {
            "" => info!("{} command stopped", instance.spec),
            reason => info!("{} command stopped: {reason}", instance.spec),
        }
        instance.stop.send_replace(true);
    }

    /// Starts nothing any more, waits for `grace` until all has ended, then kills what has not. Takes a few seconds more
    /// than `grace` at most. What was started with [`Self::start`] should have been stopped before.
    pub async fn shutdown(&self, grace: Duration) {
        self.closed.store(true, Ordering::Relaxed);
        if self.running() > 0 {
            info!("waiting for running hooks");
        }
        if timeout(grace, self.ended()).await.is_err() {
            self.kill.send_replace(true);
            if timeout(2 * KILL_WAIT, self.ended()).await.is_err() {
                warn!("{} hook commands did not end even though they were killed", self.running());
            }
        }
    }

    /// Commands that take up room.
    pub(super) fn running(&self) -> usize {
        self.shared.limits.commands_max - self.slots.available_permits()
    }

    /// Commands that keep others from running beside them, and those that wait for them.
    #[cfg(test)]
    pub(super) fn turns(&self) -> usize {
        self.shared.turns.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    async fn ended(&self) {
        let all = u32::try_from(self.shared.limits.commands_max).unwrap_or(u32::MAX);
        // Only fails when the semaphore is closed, which it never is.
        drop(self.slots.acquire_many(all).await);
    }

    fn slot(&self, spec: &Spec) -> Option<OwnedSemaphorePermit> {
        if self.closed.load(Ordering::Relaxed) {
            return None;
        }
        let slot = Arc::clone(&self.slots).try_acquire_owned().ok();
        if slot.is_none() {
            self.shared.counters.of(spec.kind).failed();
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            refused.count += 1;
            if refused.logged.is_none_or(|logged| logged.elapsed() >= REFUSAL_LOG_INTERVAL) {
                error!(
                    "{spec} command is not started: {} hook commands run already, which is the limit ({} refused \
                     since this was last said); look for commands that do not end",
                    self.shared.limits.commands_max, refused.count
                );
                *refused = Refused { count: 0, logged: Some(std::time::Instant::now()) };
            }
        }
        slot
    }

    fn run(&self, spec: Arc<Spec>, stop: Option<watch::Receiver<bool>>, slot: OwnedSemaphorePermit) {
        let orders = Orders { stop, kill: self.kill.subscribe() };
        let shared = Arc::clone(&self.shared);
        // One that publishes to a path would fight over it with its successor.
        if spec.kind == HookKind::Demand {
            let turn = shared.turn(&spec);
            self.runtime.spawn(keep_in_turn(shared, spec, orders, turn, slot));
            return;
        }
        // Queued here and not in the task, so that commands start in the order of the calls.
        let launched = shared.queue(&spec);
        self.runtime.spawn(async move { keep(&shared, spec, orders, launched, slot).await });
    }
}

impl Shared {
    fn queue(&self, spec: &Arc<Spec>) -> Launched {
        let unwanted = Arc::<AtomicBool>::default();
        let (sender, reply) = oneshot::channel();
        // When the queue is gone so is the sender, which says it all.
        let _ = self.launches.send(Launch {
            spec: Arc::clone(spec),
            unwanted: Arc::clone(&unwanted),
            reply: sender,
        });
        Launched { unwanted, reply }
    }

    fn turn(&self, spec: &Spec) -> Turn {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(spec.prefix.clone()).or_default())
    }

    fn give_back_turn(&self, spec: &Spec, turn: &Turn) {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody but this table and the caller has it.
        if Arc::strong_count(turn) <= 2 {
            turns.remove(&spec.prefix);
        }
    }
}

/// Starts processes one by one, off the threads on which tasks run.
async fn launch_in_order(mut queue: mpsc::UnboundedReceiver<Launch>) {
    while let Some(Launch { spec, unwanted, reply }) = queue.recv().await {
        if unwanted.load(Ordering::Relaxed) {
            continue;
        }
        let child = spawn_blocking(move || Child::spawn(&spec)).await;
        // Whoever asked waits for the answer, unless the runtime ends.
        let _ = reply.send(child.unwrap_or_else(|failure| Err(StartError::Thread(failure))));
    }
}

/// As [`keep`], when nothing is left of the command before it.
async fn keep_in_turn(
    shared: Arc<Shared>,
    spec: Arc<Spec>,
    mut orders: Orders,
    turn: Turn,
    slot: OwnedSemaphorePermit,
) {
    let mine = tokio::select! {
        biased;
        _ = orders.next() => None,
        mine = turn.lock() => Some(mine),
    };
    if let Some(mine) = mine {
        let launched = shared.queue(&spec);
        keep(&shared, Arc::clone(&spec), orders, launched, slot).await;
        drop(mine);
    }
    shared.give_back_turn(&spec, &turn);
}

/// Runs a command from its start to its end, again and again if so configured.
async fn keep(
    shared: &Shared,
    spec: Arc<Spec>,
    mut orders: Orders,
    mut launched: Launched,
    _slot: OwnedSemaphorePermit,
) {
    let mut pause = Pause::new(shared.limits);
    loop {
        let child = tokio::select! {
            biased;
            child = &mut launched.reply => child,
            _ = orders.next() => {
                launched.unwanted.store(true, Ordering::Relaxed);
                // It may be on its way already; then it is ended as one that runs.
                launched.reply.await
            }
        };
        let began = Instant::now();
        let ended = match child {
            Ok(Ok(child)) => {
                let running = shared.counters.of(spec.kind).started();
                attend(shared, &spec, child, &mut orders, running).await
            }
            Ok(Err(failure)) => {
                shared.counters.of(spec.kind).failed();
                warn!("{spec} command exited: {failure}");
                Instant::now()
            }
            // Unwanted, or the runtime is ending.
            Err(_) => return,
        };
        if !spec.restart {
            return;
        }
        tokio::select! {
            biased;
            _ = orders.next() => return,
            () = sleep_until(ended + pause.after(ended - began)) => {}
        }
        launched = shared.queue(&spec);
    }
}

/// Stays with a process until nothing of it is left; returns when it ended.
async fn attend(
    shared: &Shared,
    spec: &Spec,
    mut child: Child,
    orders: &mut Orders,
    running: Running<'_>,
) -> Instant {
    let (order, ended) = match child.wait(orders).await {
        Err(order) => (Some(order), Instant::now()),
        Ok(status) => {
            let ended = Instant::now();
            let clean = status.as_ref().is_ok_and(|status| status.success());
            let status = status.map_or_else(|error| error.to_string(), describe);
            let text = match child.last_line().await {
                last if last.is_empty() || clean => status,
                last => format!("{status} (last line: {last})"),
            };
            if !clean {
                shared.counters.of(spec.kind).failed();
            }
            // That a command which is launched has done its work is no news.
            if clean && orders.stop.is_none() {
                debug!("{spec} command exited: {text}");
            } else {
                info!("{spec} command exited: {text}");
            }
            // What it left behind goes before its successor comes, and else may stay for as long as the hook.
            let order = if spec.restart { Some(Order::Stop) } else { child.remnants(orders).await };
            (order, ended)
        }
    };
    let kill_after = shared.limits.kill_after;
    if let Some(order) = order
        && child.end(order, kill_after, orders).await == End::Killed
    {
        running.killed();
        warn!(
            "{spec} command, or what it started, was killed: it did not end by itself after SIGINT, or the server ends"
        );
    }
    ended
}

/// How long to wait before a restart.
#[derive(Debug)]
pub(super) struct Pause {
    limits: Limits,
    next: Duration,
}

impl Pause {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, next: limits.restart_after }
    }

    pub(super) fn after(&mut self, lived: Duration) -> Duration {
        if lived >= self.limits.restart_after {
            self.next = self.limits.restart_after;
        }
        let pause = self.next;
        self.next = (2 * pause).min(self.limits.restart_after_max);
        pause
    }
}
