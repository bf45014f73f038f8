//! Log lines in MediaMTX's shape, written by a thread of their own.
//!
//! The code logs finished sentences with their prefixes (`info!("[RTSP] [conn {addr}] opened")`). A shard only
//! formats the line and hands it over; when the queue is full the line is dropped and counted, since no line
//! is worth a stalled camera. Level and destinations change while it runs, without a lost line.

mod line;
mod sink;
mod subscriber;
#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use jiff::{Timestamp, tz::TimeZone};
use tracing::subscriber::set_global_default;
use tracing_appender::non_blocking::WorkerGuard;

use self::{
    sink::{Sink, Target},
    subscriber::{Active, Log},
};

/// Where the system's log daemon listens.
const SYSLOG_SOCKET: &str = "/dev/log";
/// Longest wait for threads that are in the middle of a line when the destinations change.
const SWAP_WAIT_MAX: Duration = Duration::from_secs(1);

/// How much is logged and where to (`logLevel`, `logDestinations`, …).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    pub level: Level,
    pub destinations: Vec<Destination>,
    /// One JSON object per line (`logStructured`); syslog has lines of its own kind.
    pub structured: bool,
    /// Opened for appending when the destinations hold a file (`logFile`).
    pub file: PathBuf,
    /// Tag of the lines for syslog (`sysLogPrefix`).
    pub syslog_prefix: String,
}

impl Default for LogSettings {
    /// What a process logs with until its configuration is known.
    fn default() -> Self {
        Self {
            level: Level::Info,
            destinations: vec![Destination::Stdout],
            structured: false,
            file: "mediamtx.log".into(),
            syslog_prefix: "mediamtx".to_owned(),
        }
    }
}

/// The least important lines that are still written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    Stdout,
    File,
    /// The local daemon, at `/dev/log`.
    Syslog,
}

/// Why logging cannot start, or cannot change.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    #[error("log file {} cannot be opened: {reason}", path.display())]
    File { path: PathBuf, reason: io::Error },
    #[error("no socket for syslog: {0}")]
    Syslog(io::Error),
    #[error("logging is already running")]
    AlreadyRunning,
}

/// Keeps the writing threads alive; its drop waits, for a second per destination at most, until all lines are out.
#[must_use = "lines are only written while the guard lives"]
#[derive(Debug)]
pub struct Guard {
    handle: Handle,
}

impl Guard {
    /// To change the log with.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.handle.log.report_drops(Timestamp::now(), true);
        let workers = self.handle.running().workers.take();
        drop(workers);
    }
}

/// Changes the log while it runs.
#[derive(Debug, Clone)]
pub struct Handle {
    log: Log,
    running: Arc<Mutex<Running>>,
}

#[derive(Debug)]
struct Running {
    /// `None` once the guard is gone.
    workers: Option<Vec<(Arc<Sink>, WorkerGuard)>>,
    syslog: PathBuf,
}

impl Handle {
    /// Logs by `settings` from now on. Destinations that stay keep running; those that go are emptied first, which takes
    /// a few seconds when one is stuck, so call this where waiting is allowed.
    ///
    /// # Errors
    /// A destination cannot be opened; then nothing was changed.
    pub fn reconfigure(&self, settings: &LogSettings) -> Result<(), LogError> {
        let mut running = self.running();
        let syslog = running.syslog.clone();
        let Some(workers) = running.workers.as_mut() else { return Ok(()) };
        let mut sinks = Vec::new();
        let mut opened = Vec::new();
        for target in Target::all(settings) {
            if let Some((sink, _)) = workers.iter().find(|(sink, _)| sink.target == target) {
                sinks.push(Arc::clone(sink));
            } else {
                let (sink, worker) = Sink::open(target, &syslog)?;
                let sink = Arc::new(sink);
                sinks.push(Arc::clone(&sink));
                opened.push((sink, worker));
            }
        }
        let (kept, gone): (Vec<_>, Vec<_>) =
            workers.drain(..).partition(|(sink, _)| sinks.iter().any(|kept| Arc::ptr_eq(kept, sink)));
        *workers = kept;
        workers.extend(opened);
        let former = self.log.swap(Active::new(settings.level, settings.structured, sinks));
        // What others still write with it is in the queues before their threads are told to finish.
        let patience = Instant::now() + SWAP_WAIT_MAX;
        while Arc::strong_count(&former) > 1 && Instant::now() < patience {
            thread::sleep(Duration::from_millis(1));
        }
        drop(gone);
        Ok(())
    }

    /// Lines dropped so far because a destination was too slow, all destinations together.
    pub fn dropped_lines(&self) -> usize {
        self.log.dropped_lines()
    }

    fn start(
        settings: &LogSettings,
        sinks: Vec<(Sink, WorkerGuard)>,
        time_zone: TimeZone,
        syslog: &Path,
    ) -> Self {
        let workers: Vec<_> = sinks.into_iter().map(|(sink, worker)| (Arc::new(sink), worker)).collect();
        let sinks = workers.iter().map(|(sink, _)| Arc::clone(sink)).collect();
        let log = Log::new(Active::new(settings.level, settings.structured, sinks), time_zone);
        let running = Running { workers: Some(workers), syslog: syslog.to_owned() };
        Self { log, running: Arc::new(Mutex::new(running)) }
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts logging for the whole process.
///
/// # Errors
/// A destination cannot be opened, or logging runs already.
pub fn init(settings: &LogSettings) -> Result<Guard, LogError> {
    let syslog = Path::new(SYSLOG_SOCKET);
    let sinks = Target::all(settings).into_iter().map(|target| Sink::open(target, syslog));
    let sinks = sinks.collect::<Result<Vec<_>, _>>()?;
    let handle = Handle::start(settings, sinks, TimeZone::system(), syslog);
    set_global_default(handle.log.clone()).map_err(|_| LogError::AlreadyRunning)?;
    Ok(Guard { handle })
}
