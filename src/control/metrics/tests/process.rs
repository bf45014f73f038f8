//! What is read from `/proc`.

use super::*;

#[test]
fn figures_are_taken_from_the_right_places() {
    let stat = "4711 (a) b (c) S 1 4711 4711 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 7 0 12345 1000 2000 3000";
    let status = "Name:\ta b\nVmRSS:\t    2048 kB\nThreads:\t7\n";
    let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                  Max open files            1024                 4096                 files     \n";
    let system = "cpu  1 2 3\nbtime 1700000000\nprocesses 5\n";
    let found = Process::parse(stat, status, limits, system, 12).unwrap();
    let expected = Process {
        cpu_seconds: 3.0,
        resident_bytes: 2 << 20,
        open_fds: 12,
        max_fds: Some(1024),
        start_seconds: 1_700_000_123.45,
        threads: 7,
    };
    assert_eq!(found, expected);
    let unlimited = limits.replace("1024 ", "unlimited ");
    assert_eq!(Process::parse(stat, status, &unlimited, system, 12).unwrap().max_fds, None);
    for broken in ["", "4711 (x", "4711 (x) S 1"] {
        assert_eq!(Process::parse(broken, status, limits, system, 12), None);
    }
}

#[test]
fn this_process_has_figures() {
    let found = Process::read().unwrap();
    assert!(found.resident_bytes > 1 << 20 && found.open_fds >= 3 && found.threads >= 1, "{found:?}");
    assert!(found.start_seconds > 1.6e9, "{found:?}");
}
