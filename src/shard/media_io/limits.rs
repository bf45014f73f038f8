//! What the process may use: cores and descriptors. Here because asking takes raw calls.

use std::mem;

/// The cores this process may run on, by number (`sched_getaffinity(2)`).
pub fn available_cores() -> Vec<usize> {
    // SAFETY: plain bits, for which all zeros is a value.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: a writable set of the size that is told.
    let result = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    if result != 0 {
        return vec![0];
    }
    let limit = libc::CPU_SETSIZE as usize;
    // SAFETY: the index is below the size of the set.
    (0..limit).filter(|&core| unsafe { libc::CPU_ISSET(core, &set) }).collect()
}

/// Raises the limit on open descriptors to the most that is allowed. Returns what it is now.
pub fn raise_descriptor_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a writable limit structure.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return 0;
    }
    let most = libc::rlimit { rlim_cur: limit.rlim_max, rlim_max: limit.rlim_max };
    // SAFETY: a readable limit structure.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const most) } {
        0 => most.rlim_cur,
        _ => limit.rlim_cur,
    }
}
