//! How many commands of each kind run, ran, failed and had to be killed.

use std::sync::atomic::{AtomicU64, Ordering};

use super::HookKind;

/// Commands of one kind; all but `running` since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HookCounts {
    /// Processes that are there now.
    pub running: u64,
    /// Processes that were started, restarts included.
    pub started: u64,
    /// That could not be started, or ended by themselves with an error.
    pub failed: u64,
    /// That got SIGKILL.
    pub killed: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Counters([OfKind; HookKind::ALL.len()]);

#[derive(Debug, Default)]
pub(super) struct OfKind {
    running: AtomicU64,
    started: AtomicU64,
    failed: AtomicU64,
    killed: AtomicU64,
}

/// A process that is counted as running until this is dropped.
#[derive(Debug)]
pub(super) struct Running<'c>(&'c OfKind);

impl Counters {
    pub fn snapshot(&self) -> Vec<(HookKind, HookCounts)> {
        HookKind::ALL.iter().map(|kind| (*kind, self.of(*kind).snapshot())).collect()
    }

    pub(super) fn of(&self, kind: HookKind) -> &OfKind {
        &self.0[kind as usize]
    }
}

impl OfKind {
    pub(super) fn started(&self) -> Running<'_> {
        self.started.fetch_add(1, Ordering::Relaxed);
        self.running.fetch_add(1, Ordering::Relaxed);
        Running(self)
    }

    pub(super) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    fn snapshot(&self) -> HookCounts {
        HookCounts {
            running: self.running.load(Ordering::Relaxed),
            started: self.started.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            killed: self.killed.load(Ordering::Relaxed),
        }
    }
}

impl Running<'_> {
    pub(super) fn killed(&self) {
        self.0.killed.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}
