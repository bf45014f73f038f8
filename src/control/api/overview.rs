//! Who we are and how we are: `GET /v3/info`, `GET /v3/summary`; and the key set of `authMethod: jwt`.

use std::time::SystemTime;

use axum::{extract::State, response::Response};
use corecast_hub::roster::{Refusal, SessionState, Slowness};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Api, paths::is_one_path, rfc3339};
use crate::control::http::answer::{Failure, done, json};

/// Clients read a `v` before the number.
const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"));

#[derive(Serialize)]
struct Info {
    version: &'static str,
    started: String,
}

/// Everything a poller counts, in one small answer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    version: &'static str,
    started: String,
    uptime_seconds: u64,
    paths: PathCounts,
    rtsp_conns: usize,
    rtsp_sessions: SessionCounts,
    hls_muxers: usize,
    hls_sessions: usize,
    /// Of all streams since the start.
    inbound_bytes: u64,
    outbound_bytes: u64,
    inbound_frames_in_error: u64,
    refused: Map<String, Value>,
    slow_readers: Map<String, Value>,
    reload: Reload,
    shards: Vec<Shard>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PathCounts {
    /// Entries that name one path.
    configured: usize,
    /// Entries that serve many.
    patterns: usize,
    available: usize,
}

#[derive(Serialize, Default)]
struct SessionCounts {
    idle: usize,
    read: usize,
    publish: usize,
}

#[derive(Serialize)]
struct Reload {
    success: bool,
    time: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shard {
    /// Share of its core in use, permille.
    busy_permille: u64,
    streams: u64,
    readers: u64,
    ring_bytes: u64,
}

pub(super) async fn info(State(api): State<Api>) -> Response {
    json(&Info { version: VERSION, started: rfc3339(api.office.started) })
}

pub(super) async fn summary(State(api): State<Api>) -> Response {
    let office = &api.office;
    let view = office.view();
    let configured = view.paths.keys().filter(|key| is_one_path(key)).count();
    let mut sessions = SessionCounts::default();
    for session in office.directory.sessions() {
        match session.facts.state {
            SessionState::Idle => sessions.idle += 1,
            SessionState::Read => sessions.read += 1,
            SessionState::Publish => sessions.publish += 1,
        }
    }
    let (hls_muxers, hls_sessions) = office.directory.hls_counts();
    let (mut inbound_bytes, mut outbound_bytes, mut inbound_frames_in_error) = (0, 0, 0);
    for totals in office.directory.totals().values() {
        inbound_bytes += totals.inbound_bytes;
        outbound_bytes += totals.outbound_bytes;
        inbound_frames_in_error += totals.inbound_frames_in_error;
    }
    let incidents = office.directory.incidents();
    let reload = office.reload_status();
    json(&Summary {
        version: VERSION,
        started: rfc3339(office.started),
        uptime_seconds: SystemTime::now().duration_since(office.started).unwrap_or_default().as_secs(),
        paths: PathCounts {
            configured,
            patterns: view.paths.len() - configured,
            available: office.directory.streams().len(),
        },
        rtsp_conns: office.directory.conns().len(),
        rtsp_sessions: sessions,
        hls_muxers,
        hls_sessions,
        inbound_bytes,
        outbound_bytes,
        inbound_frames_in_error,
        refused: counts(
            &[Refusal::MaxReaders, Refusal::MaxActive, Refusal::MaxStreams, Refusal::EngineMaxReaders],
            |why| (refusal(why), incidents.refused.get(&why)),
        ),
        slow_readers: counts(&[Slowness::Skipped, Slowness::Closed], |what| {
            (slowness(what), incidents.slow.get(&what))
        }),
        reload: Reload { success: reload.success, time: rfc3339(reload.at) },
        shards: office
            .gauges
            .iter()
            .map(|gauges| Shard {
                busy_permille: gauges.busy_permille.get(),
                streams: gauges.streams.get(),
                readers: gauges.readers.get(),
                ring_bytes: gauges.ring_bytes.get(),
            })
            .collect(),
    })
}

/// Every key of `all`, also what has not happened: a poller need not know that.
fn counts<'a, K: Copy>(
    all: &[K],
    count: impl Fn(K) -> (&'static str, Option<&'a u64>),
) -> Map<String, Value> {
    let one = |key: &K| {
        let (name, n) = count(*key);
        (name.to_owned(), Value::from(n.copied().unwrap_or(0)))
    };
    all.iter().map(one).collect()
}

/// By the setting that refused.
pub(super) fn refusal(why: Refusal) -> &'static str {
    match why {
        Refusal::MaxReaders => "maxReaders",
        Refusal::MaxActive => "maxActive",
        Refusal::MaxStreams => "engine.maxStreams",
        Refusal::EngineMaxReaders => "engine.maxReaders",
    }
}

pub(super) fn slowness(what: Slowness) -> &'static str {
    match what {
        Slowness::Skipped => "skipped",
        Slowness::Closed => "closed",
    }
}

pub(super) async fn refresh_jwks(State(api): State<Api>) -> Result<Response, Failure> {
    api.office.auth.refresh_jwks().await.map(|()| done()).map_err(Failure::internal)
}
