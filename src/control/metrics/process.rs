//! The relay as the kernel sees it, under the names that every Prometheus client uses.

use std::fs;

/// Ticks a second of the times in `/proc`: USER_HZ, 100 on every Linux we run on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Of this process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Process {
    /// User and system time of all threads.
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
    pub open_fds: u64,
    /// The soft limit; `None` when there is none.
    pub max_fds: Option<u64>,
    /// Since the epoch.
    pub start_seconds: f64,
    pub threads: u64,
}

impl Process {
    /// `None` where `/proc` is not to be read.
    pub fn read() -> Option<Self> {
        let text = |file| fs::read_to_string(file).ok();
        Self::parse(
            &text("/proc/self/stat")?,
            &text("/proc/self/status")?,
            &text("/proc/self/limits")?,
            &text("/proc/stat")?,
            open_fds()?,
        )
    }

    /// From the texts of `/proc/self/{stat,status,limits}` and `/proc/stat`.
    pub fn parse(stat: &str, status: &str, limits: &str, system: &str, open_fds: u64) -> Option<Self> {
        // The second field is the program's name in brackets and may hold anything; the third is the first after it.
        let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().collect();
        let ticks = |field: usize| Some(fields.get(field - 3)?.parse::<u64>().ok()? as f64);
        let booted: u64 = after(system, "btime")?.trim().parse().ok()?;
        let resident_kib: u64 = after(status, "VmRSS:")?.split_ascii_whitespace().next()?.parse().ok()?;
        Some(Self {
            cpu_seconds: (ticks(14)? + ticks(15)?) / TICKS_PER_SECOND,
            resident_bytes: resident_kib * 1024,
            open_fds,
            max_fds: after(limits, "Max open files")?.split_ascii_whitespace().next()?.parse().ok(),
            start_seconds: booted as f64 + ticks(22)? / TICKS_PER_SECOND,
            threads: after(status, "Threads:")?.trim().parse().ok()?,
        })
    }
}

/// What follows `key` on the line that begins with it.
fn after<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key))
}

/// Newer kernels (6.2) tell the number as the size of the directory; on others it is counted.
fn open_fds() -> Option<u64> {
    const DIRECTORY: &str = "/proc/self/fd";
    match fs::metadata(DIRECTORY).ok()?.len() {
        // The directory itself is open while it is counted.
        0 => Some((fs::read_dir(DIRECTORY).ok()?.count() as u64).saturating_sub(1)),
        told => Some(told),
    }
}
