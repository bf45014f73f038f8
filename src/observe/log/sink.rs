//! Where lines go: each destination with a queue and a thread of its own, so that no shard waits for a disk.

use std::{
    fs::OpenOptions,
    io::{self, IsTerminal as _, Write as _},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
};

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

use super::{Destination, LogError, LogSettings};

/// Lines that may wait for a slow destination.
pub(super) const QUEUED_LINES_MAX: usize = 4096;

/// A destination with all that makes it another one when it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Stdout,
    File(PathBuf),
    /// The tag of its lines.
    Syslog(String),
}

impl Target {
    /// Those of `settings`, each once.
    pub(super) fn all(settings: &LogSettings) -> Vec<Self> {
        let mut targets = Vec::new();
        for destination in &settings.destinations {
            let target = match destination {
                Destination::Stdout => Self::Stdout,
                Destination::File => Self::File(settings.file.clone()),
                Destination::Syslog => Self::Syslog(settings.syslog_prefix.clone()),
            };
            if !targets.contains(&target) {
                targets.push(target);
            }
        }
        targets
    }
}

/// A destination that runs.
#[derive(Debug)]
pub(super) struct Sink {
    pub(super) target: Target,
    pub(super) terminal: bool,
    queue: NonBlocking,
    counter: ErrorCounter,
}

impl Sink {
    /// `syslog` is the socket of the system's log daemon.
    pub(super) fn open(target: Target, syslog: &Path) -> Result<(Self, WorkerGuard), LogError> {
        let (writer, terminal): (Box<dyn io::Write + Send>, bool) = match &target {
            Target::Stdout => (Box::new(io::stdout()), io::stdout().is_terminal()),
            Target::File(path) => {
                let file = OpenOptions::new().create(true).append(true).open(path);
                let file = file.map_err(|reason| LogError::File { path: path.clone(), reason })?;
                (Box::new(file), false)
            }
            Target::Syslog(_) => {
                let socket = UnixDatagram::unbound().map_err(LogError::Syslog)?;
                (Box::new(Syslog::new(socket, syslog.to_owned(), to_stderr)), false)
            }
        };
        Ok(Self::start(target, terminal, writer))
    }

    pub(super) fn start(
        target: Target,
        terminal: bool,
        writer: Box<dyn io::Write + Send>,
    ) -> (Self, WorkerGuard) {
        let builder = NonBlockingBuilder::default().lossy(true).thread_name("log");
        let (queue, worker) = builder.buffered_lines_limit(QUEUED_LINES_MAX).finish(writer);
        (Self { target, terminal, counter: queue.error_counter(), queue }, worker)
    }

    /// Never waits: the line is dropped, and counted, when the queue is full.
    pub(super) fn push(&self, line: &str) {
        let _ = self.queue.clone().write(line.as_bytes());
    }

    pub(super) fn dropped_lines(&self) -> usize {
        self.counter.dropped_lines()
    }
}

/// The one place that never depends on the destinations themselves.
fn to_stderr(problem: &str) {
    let _ = writeln!(io::stderr(), "{problem}");
}

/// Sends each write as a datagram. Nothing is connected, so a daemon that comes back is found again.
pub(super) struct Syslog<W> {
    socket: UnixDatagram,
    path: PathBuf,
    warn: W,
    /// Said already.
    broken: bool,
}

impl<W: FnMut(&str)> Syslog<W> {
    pub(super) fn new(socket: UnixDatagram, path: PathBuf, warn: W) -> Self {
        Self { socket, path, warn, broken: false }
    }
}

impl<W: FnMut(&str)> io::Write for Syslog<W> {
    /// Does not fail: there is nobody who could do more about it than be told once.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.socket.send_to(line, &self.path) {
            Ok(_) => self.broken = false,
            Err(reason) if !self.broken => {
                self.broken = true;
                let path = self.path.display();
                (self.warn)(&format!(
                    "WAR lines for syslog are dropped until {path} takes them again: {reason}; start the system's log \
                     daemon or take syslog out of logDestinations"
                ));
            }
            Err(_) => {}
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
