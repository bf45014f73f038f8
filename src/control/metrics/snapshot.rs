//! What a scrape shows, gathered once: nothing of the relay is looked at, and no lock held, while it is printed.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use corecast_hub::{
    gauges::{BUCKETS_US, Histogram, PullPhase, ShardGauges},
    roster::{SessionState, SourceState},
    settings::{PathSettings, PathTable},
};
use uuid::Uuid;

use super::process::Process;
use crate::control::{
    auth::AuthCounts,
    directory::{Census, HlsCensus, Incidents, MuxerTotals, PathTotals, ReaderKind},
    hooks::{HookCounts, HookKind},
    office::{Office, ReloadStatus},
    tally::{self, ConnNumbers, Retired, SessionNumbers},
};

/// See the module.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// That exist: live, or configured by name. By name.
    pub paths: Vec<PathRow>,
    /// Of paths that exist and of those that did; by name.
    pub totals: BTreeMap<Arc<str>, PathTotals>,
    /// `None` when RTSP without TLS is off.
    pub rtsp: Option<Rtsp>,
    /// Of RTSP over TLS; `None` when that is off.
    pub rtsps: Option<Rtsp>,
    /// `None` when it is off.
    pub hls: Option<Hls>,
    pub incidents: Incidents,
    pub auth: AuthCounts,
    /// By kind of hook.
    pub hooks: Vec<(HookKind, HookCounts)>,
    pub shards: Vec<ShardRow>,
    /// Of all shards together.
    pub relay_latency: Durations,
    pub first_media: Durations,
    /// By phase, in order.
    pub pulls: Vec<PullRow>,
    /// Sources that are stopped, connecting, running.
    pub sources: [u64; 3],
    pub demands: u64,
    pub reload: ReloadStatus,
    pub uptime: Duration,
    pub process: Option<Process>,
    pub version: &'static str,
}

/// Connections and sessions of one of the two RTSP servers.
#[derive(Debug, Clone, Default)]
pub struct Rtsp {
    pub conns: Vec<ConnRow>,
    pub sessions: Vec<SessionRow>,
    pub retired: Retired,
}

#[derive(Debug, Clone)]
pub struct PathRow {
    pub name: Arc<str>,
    /// It can be read.
    pub ready: bool,
    /// In the order of [`ReaderKind::ALL`].
    pub readers: [usize; ReaderKind::ALL.len()],
}

/// HLS muxers and sessions.
#[derive(Debug, Clone, Default)]
pub struct Hls {
    pub sessions: Vec<HlsSessionRow>,
    /// Sent to sessions that are no more.
    pub session_bytes_retired: u64,
    /// By path.
    pub muxers: Vec<HlsMuxerRow>,
    /// Of all muxers since the start.
    pub all_muxers: MuxerTotals,
    /// Open connections to the server.
    pub connections: u64,
    /// Answers of the server by the first digit of their status, from 1 to 5.
    pub answers: [u64; 5],
}

#[derive(Debug, Clone)]
pub struct HlsSessionRow {
    pub id: Uuid,
    pub path: Arc<str>,
    pub remote: std::net::SocketAddr,
    pub outbound_bytes: u64,
}

#[derive(Debug, Clone)]
pub struct HlsMuxerRow {
    pub path: Arc<str>,
    /// Those of earlier muxers of the path among them.
    pub totals: MuxerTotals,
}

#[derive(Debug, Clone)]
pub struct ConnRow {
    pub id: Uuid,
    pub numbers: ConnNumbers,
}

#[derive(Debug, Clone)]
pub struct SessionRow {
    pub id: Uuid,
    pub path: Arc<str>,
    pub remote: std::net::SocketAddr,
    pub state: SessionState,
    pub numbers: SessionNumbers,
    /// Thousandths of a timestamp unit.
    pub jitter_milli: u64,
}

/// A phase of all pulls, over all shards.
#[derive(Debug, Clone)]
pub struct PullRow {
    pub phase: PullPhase,
    pub took: Durations,
    pub failures: u64,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct ShardRow {
    pub busy_permille: u64,
    pub cpu_us: u64,
    pub streams: u64,
    pub readers: u64,
    pub ring_bytes: u64,
}

/// A histogram as read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Durations {
    pub buckets: [u64; BUCKETS_US.len() + 1],
    pub sum_us: u64,
}

impl Durations {
    fn of_all<'a>(histograms: impl Iterator<Item = &'a Histogram>) -> Self {
        histograms.fold(Self::default(), |all, one| {
            let (buckets, sum_us) = one.read();
            Self { buckets: tally::plus(all.buckets, buckets), sum_us: all.sum_us.wrapping_add(sum_us) }
        })
    }
}

impl Snapshot {
    pub fn gather(office: &Office) -> Self {
        let census = office.directory.census();
        let view = office.view();
        let settings = &view.settings;
        let mut paths: BTreeMap<&Arc<str>, bool> =
            settings.paths.exact().map(|path| (&path.conf_name, false)).collect();
        let present = census.wanted.iter().chain(census.sources.iter().map(|(path, _)| path));
        for path in present {
            paths.entry(path).or_default();
        }
        paths.extend(census.streams.iter().map(|stream| (&stream.path, true)));
        let mut readers: HashMap<&Arc<str>, [usize; ReaderKind::ALL.len()]> = HashMap::new();
        let mut count = |path, kind: ReaderKind| readers.entry(path).or_default()[kind as usize] += 1;
        for session in census.sessions.iter().filter(|session| session.facts.state == SessionState::Read) {
            count(&session.facts.path, ReaderKind::of_rtsp(session.encrypted));
        }
        census.hls.sessions.iter().for_each(|session| count(&session.path, ReaderKind::Hls));
        let paths = paths
            .into_iter()
            .map(|(name, ready)| PathRow {
                name: Arc::clone(name),
                ready,
                readers: readers.get(name).copied().unwrap_or_default(),
            })
            .collect();
        let [plain, encrypted] = &census.retired;
        let rtsp = settings.rtsp.address.map(|_| Rtsp::gather(&census, false, plain));
        let rtsps = settings.rtsp.tls_address.map(|_| Rtsp::gather(&census, true, encrypted));
        let hls = settings.hls.as_ref().map(|_| Hls::gather(&census.hls, &office.gauges));
        let gauges = &office.gauges;
        let (sources, demands) = (count_sources(&census, &settings.paths), census.wanted.len() as u64);
        Self {
            paths,
            totals: census.totals,
            rtsp,
            rtsps,
            hls,
            incidents: census.incidents,
            auth: office.auth.counters(),
            hooks: office.plane().map(|plane| plane.hooks.counters().snapshot()).unwrap_or_default(),
            shards: gauges.iter().map(|gauges| ShardRow::read(gauges)).collect(),
            relay_latency: Durations::of_all(gauges.iter().map(|gauges| &gauges.relay_latency)),
            first_media: Durations::of_all(gauges.iter().map(|gauges| &gauges.first_media)),
            pulls: PullPhase::ALL
                .iter()
                .enumerate()
                .map(|(at, phase)| PullRow::of_all(at, *phase, gauges))
                .collect(),
            sources,
            demands,
            reload: office.reload_status(),
            uptime: SystemTime::now().duration_since(office.started).unwrap_or_default(),
            process: Process::read(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

/// Those that nobody wants are known by their configuration alone.
fn count_sources(census: &Census, paths: &PathTable) -> [u64; 3] {
    let active: HashSet<&str> = census.sources.iter().map(|(path, _)| &**path).collect();
    let is_stopped = |path: &&Arc<PathSettings>| path.is_pulled() && !active.contains(&*path.conf_name);
    let of = |wanted| census.sources.iter().filter(|(_, state)| *state == wanted).count();
    let stopped = paths.exact().filter(is_stopped).count();
    [stopped, of(SourceState::Connecting), of(SourceState::Running)].map(|count| count as u64)
}

impl PullRow {
    /// `at` is the place of `phase` among all.
    fn of_all(at: usize, phase: PullPhase, gauges: &[Arc<ShardGauges>]) -> Self {
        Self {
            phase,
            took: Durations::of_all(gauges.iter().map(|gauges| &gauges.pull_phases[at])),
            failures: gauges.iter().map(|gauges| gauges.pull_failures[at].get()).sum(),
        }
    }
}

impl Rtsp {
    fn gather(census: &Census, encrypted: bool, retired: &Retired) -> Self {
        let conns = census.conns.iter().filter(|conn| conn.encrypted == encrypted);
        let sessions = census.sessions.iter().filter(|session| session.encrypted == encrypted);
        Self {
            conns: conns
                .map(|conn| ConnRow { id: conn.id, numbers: tally::conn_numbers(&conn.traffic) })
                .collect(),
            sessions: sessions
                .map(|session| SessionRow {
                    id: session.id,
                    path: Arc::clone(&session.facts.path),
                    remote: session.remote,
                    state: session.facts.state,
                    numbers: tally::session_numbers(&session.traffic),
                    jitter_milli: session.traffic.inbound_rtp_jitter_milli.get(),
                })
                .collect(),
            retired: retired.clone(),
        }
    }
}

impl Hls {
    fn gather(census: &HlsCensus, gauges: &[Arc<ShardGauges>]) -> Self {
        let answers = gauges.iter().map(|gauges| gauges.hls.answers());
        Self {
            sessions: census
                .sessions
                .iter()
                .map(|session| HlsSessionRow {
                    id: session.id,
                    path: Arc::clone(&session.path),
                    remote: session.remote,
                    outbound_bytes: session.traffic.outbound_bytes.get(),
                })
                .collect(),
            session_bytes_retired: census.session_bytes_retired,
            muxers: census
                .muxers
                .iter()
                .map(|muxer| HlsMuxerRow {
                    path: Arc::clone(&muxer.path),
                    totals: census.totals.get(&muxer.path).copied().unwrap_or_default(),
                })
                .collect(),
            all_muxers: census.all_muxers,
            connections: gauges.iter().map(|gauges| gauges.hls.connections.get()).sum(),
            answers: answers.fold([0; 5], tally::plus),
        }
    }
}

impl ShardRow {
    fn read(gauges: &ShardGauges) -> Self {
        Self {
            busy_permille: gauges.busy_permille.get(),
            cpu_us: gauges.cpu_us.get(),
            streams: gauges.streams.get(),
            readers: gauges.readers.get(),
            ring_bytes: gauges.ring_bytes.get(),
        }
    }
}
