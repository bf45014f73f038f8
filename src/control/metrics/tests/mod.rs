//! Each file a promise about the page: what it looks like, that a parser reads it, what a request can ask for, that
//! sums do not go back.

mod filters;
mod golden;
mod hls;
mod parsed;
mod process;
mod sums;

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use corecast_hub::{
    gauges::PullPhase,
    roster::{Refusal, SessionState, Slowness},
};
use uuid::Uuid;

use super::{
    Filter, page,
    process::Process,
    snapshot::{
        ConnRow, Durations, Hls, HlsMuxerRow, HlsSessionRow, PathRow, PullRow, Rtsp, SessionRow, ShardRow,
        Snapshot,
    },
};
use crate::control::{
    auth::AuthCounts,
    directory::{Incidents, MuxerTotals, PathTotals},
    hooks::{HookCounts, HookKind},
    office::ReloadStatus,
    tally::Retired,
};

/// Two paths, one of them live with four readers, two of them over HLS; everything has a number of its own.
fn small() -> Snapshot {
    let total =
        |n: u64| PathTotals { inbound_bytes: 1000 * n, outbound_bytes: 2000 * n, inbound_frames_in_error: n };
    Snapshot {
        paths: vec![PathRow { readers: [2, 2, 0], ..path("cam/1", true, 2) }, path("idle", false, 0)],
        totals: [(Arc::from("cam/1"), total(3)), (Arc::from("gone"), total(5))].into(),
        rtsp: Some(Rtsp {
            conns: vec![conn(1), conn(2)],
            sessions: vec![
                session(1, "cam/1", SessionState::Publish),
                session(2, "cam/1", SessionState::Read),
                session(3, "cam/1", SessionState::Read),
            ],
            retired: Retired::default(),
        }),
        rtsps: None,
        hls: Some(Hls {
            sessions: vec![hls_session(7, "cam/1"), hls_session(8, "cam/1")],
            session_bytes_retired: 50,
            muxers: vec![HlsMuxerRow { path: "cam/1".into(), totals: muxed(3) }],
            all_muxers: muxed(5),
            connections: 6,
            answers: [0, 900, 20, 7, 1],
        }),
        incidents: Incidents {
            refused: [(Refusal::MaxActive, 4)].into(),
            slow: [(Slowness::Skipped, 7)].into(),
        },
        auth: AuthCounts { allowed: 21, denied: 8, challenged: 13, errors: 2, limited: 1 },
        hooks: vec![(HookKind::Read, HookCounts { running: 2, started: 9, failed: 3, killed: 1 })],
        shards: vec![
            ShardRow { busy_permille: 250, cpu_us: 1_500_000, streams: 1, readers: 2, ring_bytes: 1 << 20 },
            ShardRow::default(),
        ],
        relay_latency: Durations {
            buckets: [1, 2, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            sum_us: 11_234_567,
        },
        first_media: Durations::default(),
        pulls: PullPhase::ALL
            .iter()
            .zip(1..)
            .map(|(&phase, n)| PullRow { phase, took: Durations::default(), failures: 10 * n })
            .collect(),
        sources: [3, 1, 2],
        demands: 4,
        reload: ReloadStatus { success: true, at: UNIX_EPOCH + Duration::from_millis(1_700_000_000_500) },
        uptime: Duration::from_millis(90_250),
        process: Some(Process {
            cpu_seconds: 12.5,
            resident_bytes: 64 << 20,
            open_fds: 40,
            max_fds: Some(1_048_576),
            start_seconds: 1_700_000_000.25,
            threads: 5,
        }),
        version: "1.2.3",
    }
}

/// A relay that nobody has used.
fn unused() -> Snapshot {
    Snapshot {
        paths: Vec::new(),
        totals: Default::default(),
        rtsp: Some(Rtsp::default()),
        hls: Some(Hls::default()),
        incidents: Incidents::default(),
        ..small()
    }
}

fn path(name: &str, ready: bool, rtsp_readers: usize) -> PathRow {
    PathRow { name: name.into(), ready, readers: [0, rtsp_readers, 0] }
}

fn muxed(n: u64) -> MuxerTotals {
    MuxerTotals { outbound_bytes: 10_000 * n, outbound_frames_discarded: 10 * n, playlists_rendered: 100 * n }
}

fn hls_session(n: u64, path: &str) -> HlsSessionRow {
    HlsSessionRow {
        id: Uuid::from_u64_pair(0, n),
        path: path.into(),
        remote: ([192, 0, 2, n as u8], 5000 + n as u16).into(),
        outbound_bytes: 1000 * n,
    }
}

fn id(n: u64) -> String {
    Uuid::from_u64_pair(0, n).to_string()
}

fn conn(n: u64) -> ConnRow {
    ConnRow { id: Uuid::from_u64_pair(0, n), numbers: [100 * n, 200 * n] }
}

fn session(n: u64, path: &str, state: SessionState) -> SessionRow {
    SessionRow {
        id: Uuid::from_u64_pair(0, n),
        path: path.into(),
        remote: ([192, 0, 2, n as u8], 5000 + n as u16).into(),
        state,
        numbers: std::array::from_fn(|at| 100 * n + at as u64),
        jitter_milli: 1500 * n,
    }
}

fn scrape(snapshot: &Snapshot, query: &str) -> String {
    let filter = Filter::parse(query);
    page(snapshot, &filter, filter.sessions)
}

/// Lines that carry a sample.
fn samples(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

/// The value of the sample that is written `series`.
#[track_caller]
fn value(text: &str, series: &str) -> f64 {
    let found: Vec<_> =
        samples(text).into_iter().filter_map(|line| line.strip_prefix(series)?.strip_prefix(' ')).collect();
    assert_eq!(found.len(), 1, "{series} in\n{text}");
    found[0].parse().unwrap()
}
