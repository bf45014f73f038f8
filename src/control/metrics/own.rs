//! What only this relay measures: `corecast_…`, and the process.

use std::time::UNIX_EPOCH;

use corecast_hub::{
    gauges::{BUCKETS_US, PullPhase},
    roster::{Refusal, Slowness, SourceState},
};
use prometheus::proto::LabelPair;

use super::{
    process::Process,
    sheet::{
        Curve, Family,
        Number::{Real, Whole},
        Rows, Sheet, counter, gauge, label,
    },
    snapshot::{Durations, Hls, ShardRow, Snapshot},
};
use crate::control::hooks::HookCounts;

const SLOW: Family =
    counter("corecast_slow_readers_total", "Readers that could not keep up, by what became of them.");
const AUTH: Family = counter(
    "corecast_auth_total",
    "Questions who may do what, by their answer; errors and limited are denied, too.",
);
const HOOKS_RUNNING: Family = gauge("corecast_hooks_running", "Commands of hooks that run.");
const HOOK_FAILURES: Family =
    counter("corecast_hook_failures_total", "Commands of hooks that could not be started, or failed.");
const REFUSED: Family =
    counter("corecast_refused_total", "Publishers and readers turned away, by the limit that was reached.");

const PLAYLISTS: Family = counter(
    "corecast_hls_playlists_rendered_total",
    "HLS playlists that were written out; however many viewers fetch one, it is once.",
);
const HTTP_CONNS: Family =
    gauge("corecast_http_connections", "Open connections to the HTTP servers of the shards.");
const HTTP_ANSWERS: Family = counter(
    "corecast_http_answers_total",
    "Answers of the HTTP servers of the shards, by the first digit of their status.",
);
const SOURCES: Family = gauge(
    "corecast_sources",
    "Sources that are pulled, by what is done for them; stopped are those of paths that are configured by name.",
);
const DEMANDS: Family =
    gauge("corecast_demands", "Paths on demand that somebody wants, or that go on for a while after that.");
const PULL_FAILURES: Family =
    counter("corecast_pull_failures_total", "Pulls that failed, by the phase they were in.");

pub fn write(sheet: &mut Sheet, snapshot: &Snapshot) {
    sheet.section("Media");
    write_durations(
        sheet,
        "corecast_relay_latency_seconds",
        "From the arrival of media to the end of its sending on to all readers that could take it; once per path and round.",
        &snapshot.relay_latency,
    );
    write_durations(
        sheet,
        "corecast_time_to_first_frame_seconds",
        "From PLAY to the first media sent to the reader.",
        &snapshot.first_media,
    );
    let told = |slow| snapshot.incidents.slow.get(&slow).copied().unwrap_or(0);
    counts(sheet, SLOW, "reason", SLOWNESS.map(|(slow, word)| (word, told(slow))).into());
    let told = |refusal| snapshot.incidents.refused.get(&refusal).copied().unwrap_or(0);
    counts(sheet, REFUSED, "reason", REFUSALS.map(|(refusal, word)| (word, told(refusal))).into());
    sheet.section("Sources");
    write_sources(sheet, snapshot);
    if let Some(hls) = &snapshot.hls {
        sheet.section("HLS");
        write_hls(sheet, hls);
    }
    sheet.section("Control");
    write_control(sheet, snapshot);
    sheet.section("Shards");
    write_shards(sheet, &snapshot.shards);
    sheet.section("Relay");
    write_relay(sheet, snapshot);
    if let Some(process) = &snapshot.process {
        sheet.section("Process");
        write_process(sheet, process);
    }
}

const SLOWNESS: [(Slowness, &str); 2] = [(Slowness::Skipped, "skipped"), (Slowness::Closed, "closed")];

const REFUSALS: [(Refusal, &str); 4] = [
    (Refusal::MaxReaders, "max_readers"),
    (Refusal::MaxActive, "max_active"),
    (Refusal::MaxStreams, "max_streams"),
    (Refusal::EngineMaxReaders, "engine_max_readers"),
];

/// A series per value of `name`, those at zero too: a rate needs a first value.
fn counts(sheet: &mut Sheet, family: Family, name: &'static str, counts: Vec<(&'static str, u64)>) {
    let rows = Rows::new(counts, |&mut (value, _)| vec![label(name, value)]);
    sheet.family(family, &rows, |&(_, count)| Whole(count));
}

fn write_hls(sheet: &mut Sheet, hls: &Hls) {
    sheet.single(PLAYLISTS, Whole(hls.all_muxers.playlists_rendered));
    let server = || label("server", "hls");
    let conns = Rows::new(vec![hls.connections], |_| vec![server()]);
    sheet.family(HTTP_CONNS, &conns, |&count| Whole(count));
    let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().zip(hls.answers).collect();
    let answers = Rows::new(classes, |&mut (class, _)| vec![label("code", class), server()]);
    sheet.family(HTTP_ANSWERS, &answers, |&(_, count)| Whole(count));
}

/// Authentication and hooks.
fn write_control(sheet: &mut Sheet, snapshot: &Snapshot) {
    let auth = snapshot.auth;
    let answers = vec![
        ("allowed", auth.allowed),
        ("denied", auth.denied),
        ("challenged", auth.challenged),
        ("error", auth.errors),
        ("limited", auth.limited),
    ];
    counts(sheet, AUTH, "result", answers);
    let of = |count: fn(&HookCounts) -> u64| -> Vec<_> {
        snapshot.hooks.iter().map(move |(kind, counts)| (kind.as_str(), count(counts))).collect()
    };
    counts(sheet, HOOKS_RUNNING, "hook", of(|counts| counts.running));
    counts(sheet, HOOK_FAILURES, "hook", of(|counts| counts.failed));
}

/// Sources that are pulled, and who wants them.
fn write_sources(sheet: &mut Sheet, snapshot: &Snapshot) {
    let states = [SourceState::Stopped, SourceState::Connecting, SourceState::Running];
    let sources = states.map(SourceState::as_str).into_iter().zip(snapshot.sources).collect();
    counts(sheet, SOURCES, "state", sources);
    sheet.single(DEMANDS, Whole(snapshot.demands));
    // Nobody measures how long media flows.
    let ended = snapshot.pulls.iter().filter(|pull| pull.phase != PullPhase::Running);
    let curves = ended.map(|pull| curve(&pull.took, vec![label("phase", pull.phase.as_str())]));
    sheet.histograms(
        "corecast_pull_phase_seconds",
        "How long a phase of a pull took that came to its end.",
        curves.collect(),
    );
    let failures = snapshot.pulls.iter().map(|pull| (pull.phase.as_str(), pull.failures));
    counts(sheet, PULL_FAILURES, "phase", failures.collect());
}

fn write_durations(sheet: &mut Sheet, name: &'static str, help: &'static str, durations: &Durations) {
    sheet.histograms(name, help, vec![curve(durations, Vec::new())]);
}

fn curve(durations: &Durations, labels: Vec<LabelPair>) -> Curve {
    let [within @ .., above] = &durations.buckets;
    let buckets = BUCKETS_US.iter().map(|&us| seconds(us)).zip(within.iter().copied()).collect();
    Curve { labels, buckets, above: *above, sum: seconds(durations.sum_us) }
}

fn write_shards(sheet: &mut Sheet, shards: &[ShardRow]) {
    let numbered: Vec<_> = shards.iter().copied().enumerate().collect();
    let rows = Rows::new(numbered, |(shard, _)| vec![label("shard", shard.to_string())]);
    sheet.family(
        gauge("corecast_shard_busy_ratio", "Share of its core that a shard used over the last second."),
        &rows,
        |(_, shard)| Real(shard.busy_permille as f64 / 1000.0),
    );
    sheet.family(
        counter("corecast_shard_cpu_seconds_total", "CPU time used by a shard."),
        &rows,
        |(_, shard)| Real(seconds(shard.cpu_us)),
    );
    sheet.family(gauge("corecast_shard_streams", "Live streams of a shard."), &rows, |(_, shard)| {
        Whole(shard.streams)
    });
    sheet.family(gauge("corecast_shard_readers", "Readers of a shard's streams."), &rows, |(_, shard)| {
        Whole(shard.readers)
    });
    sheet.family(
        gauge("corecast_shard_ring_bytes", "Memory of the rings of a shard's streams."),
        &rows,
        |(_, shard)| Whole(shard.ring_bytes),
    );
}

fn write_relay(sheet: &mut Sheet, snapshot: &Snapshot) {
    sheet.single(
        gauge("corecast_config_reload_success", "1 when the last reload of the configuration succeeded."),
        Whole(u64::from(snapshot.reload.success)),
    );
    let reloaded = snapshot.reload.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    sheet.single(
        gauge(
            "corecast_config_last_reload_success_timestamp_seconds",
            "When a configuration was last put into effect.",
        ),
        Real(reloaded.as_secs_f64()),
    );
    sheet.single(
        gauge("corecast_uptime_seconds", "Since the relay started."),
        Real(snapshot.uptime.as_secs_f64()),
    );
    sheet.family(
        gauge("corecast_build_info", "Always 1; the labels tell what is running."),
        &Rows::new(vec![snapshot.version], |version| vec![label("version", *version)]),
        |_| Whole(1),
    );
}

fn write_process(sheet: &mut Sheet, process: &Process) {
    sheet.single(
        counter("process_cpu_seconds_total", "User and system CPU time used."),
        Real(process.cpu_seconds),
    );
    sheet.single(gauge("process_resident_memory_bytes", "Resident memory."), Whole(process.resident_bytes));
    sheet.single(gauge("process_open_fds", "Open file descriptors."), Whole(process.open_fds));
    if let Some(max) = process.max_fds {
        sheet.single(gauge("process_max_fds", "Most file descriptors that may be open."), Whole(max));
    }
    sheet.single(
        gauge("process_start_time_seconds", "When the process started, since the epoch."),
        Real(process.start_seconds),
    );
    sheet.single(gauge("process_threads", "Threads."), Whole(process.threads));
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}
