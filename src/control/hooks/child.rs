//! One process of a hook, with its whole process group, from its start to the moment when nothing of it is left.

use std::{
    io,
    os::unix::process::ExitStatusExt as _,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::{
    io::Errno,
    process::{Pid, Signal, kill_process_group, test_kill_process_group},
};
use tokio::{
    process::{Child as Process, Command},
    sync::watch,
    task::{JoinError, JoinSet},
    time::{sleep, timeout},
};

use super::{
    Spec,
    command::{CommandError, words},
    output::{self, LastLine},
};

/// Between two looks at a process group that was told to end.
const GROUP_POLL: Duration = Duration::from_millis(50);
/// Between two looks at what a command left behind of itself.
const REMNANT_POLL: Duration = Duration::from_secs(1);
/// Time for the last words of a process to arrive; somebody else may hold its pipes for ever.
const LAST_WORDS_WAIT: Duration = Duration::from_millis(250);
/// Time the kernel has to end a process that was killed; one that hangs in a driver is left to it.
pub(super) const KILL_WAIT: Duration = Duration::from_secs(5);

/// Why there is no process.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error("program '{program}' cannot be started: {reason}")]
    Spawn { program: String, reason: io::Error },
    #[error("the thread that was to start it ended: {0}")]
    Thread(JoinError),
}

/// What the owner of a child wants of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// SIGINT, and SIGKILL to what does not heed it.
    Stop,
    /// SIGKILL.
    Kill,
}

/// Where orders come from; they hold for ever once given.
#[derive(Debug)]
pub(super) struct Orders {
    /// `None` for a child that nobody stops.
    pub(super) stop: Option<watch::Receiver<bool>>,
    pub(super) kill: watch::Receiver<bool>,
}

impl Orders {
    pub(super) async fn next(&mut self) -> Order {
        let stopped = async {
            match &mut self.stop {
                // An owner that is gone has no use for it either.
                Some(stop) => drop(stop.wait_for(|stop| *stop).await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = self.kill.wait_for(|kill| *kill) => Order::Kill,
            () = stopped => Order::Stop,
        }
    }

    async fn killed(&mut self) {
        let _ = self.kill.wait_for(|kill| *kill).await;
    }
}

/// How the end of a child came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Nothing of it was left after SIGINT.
    Heeded,
    Killed,
}

/// `exit status 3`, `signal 9`: as Go says it.
pub(super) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Child {
    process: Process,
    group: Pid,
    last_line: LastLine,
    /// One per pipe; they end with this.
    readers: JoinSet<()>,
}

impl Child {
    /// Starts the command of `spec`. Blocks for as long as the system takes to load a program.
    pub(super) fn spawn(spec: &Spec) -> Result<Self, StartError> {
        let words = words(&spec.command, &spec.variables)?;
        let (program, arguments) = words.split_first().ok_or(CommandError::Empty)?;
        let failed = |reason| StartError::Spawn { program: program.clone(), reason };
        let mut process = Command::new(program)
            .args(arguments)
            .envs(spec.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let group = process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let group = group.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        let label: Arc<str> = format!("{} {}", spec.prefix, spec.kind.as_str()).into();
        let last_line = LastLine::default();
        let mut readers = JoinSet::new();
        if let Some(pipe) = process.stdout.take() {
            readers.spawn(output::read(pipe, Arc::clone(&label), None));
        }
        if let Some(pipe) = process.stderr.take() {
            readers.spawn(output::read(pipe, label, Some(last_line.clone())));
        }
        Ok(Self { process, group, last_line, readers })
    }

    /// Waits until it ends by itself, or `order` comes, which is then returned.
    pub(super) async fn wait(&mut self, orders: &mut Orders) -> Result<io::Result<ExitStatus>, Order> {
        tokio::select! {
            biased;
            order = orders.next() => Err(order),
            status = self.process.wait() => Ok(status),
        }
    }

    /// The last line of its standard error, once it has ended.
    pub(super) async fn last_line(&mut self) -> String {
        let ended = async { while self.readers.join_next().await.is_some() {} };
        let _ = timeout(LAST_WORDS_WAIT, ended).await;
        self.last_line.get()
    }

    /// Once it has ended: waits until nothing of its group is left, or an order comes, which is then returned.
    pub(super) async fn remnants(&self, orders: &mut Orders) -> Option<Order> {
        while self.group_lives() {
            tokio::select! {
                order = orders.next() => return Some(order),
                () = sleep(REMNANT_POLL) => {}
            }
        }
        None
    }

    /// Ends all of the group: SIGINT, then, after `patience` or when the order to kill comes, SIGKILL.
    pub(super) async fn end(&mut self, order: Order, patience: Duration, orders: &mut Orders) -> End {
        if order == Order::Stop {
            if self.over() {
                return End::Heeded;
            }
            // It may be gone by now, which is what we want, or beyond our rights, and then SIGKILL fails as well.
            let _ = kill_process_group(self.group, Signal::INT);
            tokio::select! {
                biased;
                () = self.gone() => return End::Heeded,
                () = orders.killed() => {}
                () = sleep(patience) => {}
            }
        }
        self.kill().await;
        End::Killed
    }

    /// SIGKILL to all of the group.
    pub(super) async fn kill(&mut self) {
        if !self.over() {
            let _ = kill_process_group(self.group, Signal::KILL);
            let _ = timeout(KILL_WAIT, self.gone()).await;
        }
    }

    /// Whether the process is reaped and nobody is left in its group, whose number may then soon be another's.
    fn over(&self) -> bool {
        self.process.id().is_none() && !self.group_lives()
    }

    /// Returns when the process is reaped and nobody is left in its group.
    async fn gone(&mut self) {
        let _ = self.process.wait().await;
        while self.group_lives() {
            sleep(GROUP_POLL).await;
        }
    }

    /// Asked only while the number cannot belong to others: the process is not reaped, or was a moment ago, or the
    /// group had somebody in it a moment ago.
    fn group_lives(&self) -> bool {
        match test_kill_process_group(self.group) {
            Ok(()) => true,
            Err(error) => error == Errno::INTR,
        }
    }
}

impl Drop for Child {
    /// For a runtime that ends; else nothing is left here.
    fn drop(&mut self) {
        if self.process.id().is_some() {
            let _ = kill_process_group(self.group, Signal::KILL);
        }
    }
}
