//! `perf api`: polls a relay's API and metrics as a backend and Prometheus do. `perf api-ab`: what that does to media.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::check::{Counters, histogram};
use crate::compare::{cell, spread};
use crate::engine::Engine;
use crate::http::{Client, Location};
use crate::json::Json;
use crate::load::{self, Load, pass};
use crate::probe::{self, machine, machine_line};
use crate::report::{quantile_line, quantiles};
use crate::sys;
use crate::{Output, Target};

/// What is polled, and how often.
#[derive(Clone, Debug, clap::Args)]
pub struct Polls {
    /// The API
    #[arg(long, default_value = "http://127.0.0.1:9997")]
    api: String,
    /// The metrics, read once a second; empty: not at all
    #[arg(long, default_value = "http://127.0.0.1:9998/metrics")]
    metrics: String,
    /// Requests to the API a second: lists of paths, pages of the list of RTSP sessions, and the summary, in turn
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    /// Pin the polling threads to this CPU [default: that of the loader]
    #[arg(long)]
    poll_cpu: Option<usize>,
}

#[derive(clap::Args)]
pub struct Api {
    #[command(flatten)]
    polls: Polls,
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Args)]
pub struct ApiAb {
    #[command(flatten)]
    target: Target,
    /// `--seconds` is the length of each window
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    polls: Polls,
    /// Pairs of windows, one with polling and one without
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    #[command(flatten)]
    output: Output,
}

/// One endpoint's figures.
#[derive(Clone)]
struct Figures {
    /// From when the request was due to the last byte of its answer, microseconds
    latency: Histogram<u64>,
    bytes: u64,
    /// Status codes other than 200, and failures of the connection
    errors: BTreeMap<String, u64>,
}

type Results = BTreeMap<&'static str, Figures>;

const PATHS: &str = "/v3/paths/list";
const ALL_PATHS: &str = "/v3/paths/list, 1000";
const SESSIONS: &str = "/v3/rtspsessions/list";
const SUMMARY: &str = "/v3/summary";
const METRICS: &str = "metrics";

/// Polls from threads of its own until it is finished.
struct Poller {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Results>>,
}

impl Poller {
    fn start(polls: &Polls) -> Result<Self, String> {
        if !(polls.rate > 0.0 && polls.rate <= 10_000.0) {
            return Err("--rate must be above 0 and at most 10000".into());
        }
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        let mut go = |url: &str, rate: f64, next: fn(&mut Turn) -> (&'static str, String)| {
            let to = Location::of(url)?;
            let (stop, cpu) = (Arc::clone(&stop), polls.poll_cpu);
            threads.push(thread::spawn(move || {
                if let Some(cpu) = cpu
                    && let Err(e) = sys::pin(0, cpu)
                {
                    eprintln!("perf: --poll-cpu {cpu}: {e}");
                }
                poll(to, Duration::from_secs_f64(1.0 / rate), &stop, next)
            }));
            Ok::<(), String>(())
        };
        go(&polls.api, polls.rate, Turn::of_api)?;
        if !polls.metrics.is_empty() {
            go(&polls.metrics, 1.0, Turn::of_metrics)?;
        }
        Ok(Self { stop, threads })
    }

    fn finish(self) -> Result<Results, String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Results::new();
        for thread in self.threads {
            merge(&mut all, thread.join().map_err(|_| "a polling thread panicked")?);
        }
        Ok(all)
    }
}

/// Which request is next.
struct Turn {
    number: u64,
    /// Of the list of sessions, as the last answer told
    pages: u64,
    base: String,
}

impl Turn {
    fn of_api(&mut self) -> (&'static str, String) {
        const NAMES: [&str; 4] = [PATHS, SESSIONS, SUMMARY, ALL_PATHS];
        let (name, round) = (NAMES[(self.number % 4) as usize], self.number / 4);
        let request = match name {
            PATHS => format!("{PATHS}?itemsPerPage=100&page={}", round % 5),
            ALL_PATHS => format!("{PATHS}?itemsPerPage=1000"),
            SESSIONS => format!("{SESSIONS}?itemsPerPage=100&page={}", round % self.pages.max(1)),
            other => other.to_owned(),
        };
        (name, format!("{}{request}", self.base.trim_end_matches('/')))
    }

    fn of_metrics(&mut self) -> (&'static str, String) {
        (METRICS, self.base.clone())
    }
}

/// Requests at a steady pace. One that is late delays those after it, and their figures say so.
fn poll(
    to: Location,
    every: Duration,
    stop: &AtomicBool,
    next: fn(&mut Turn) -> (&'static str, String),
) -> Results {
    let mut results = Results::new();
    let mut turn = Turn { number: 0, pages: 1, base: to.path.clone() };
    let mut client = Client::new(to);
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let (name, path) = next(&mut turn);
        let figures = results.entry(name).or_insert_with(Figures::new);
        match client.get(&path) {
            Ok((200, body)) => {
                figures.bytes += body.len() as u64;
                if let (SESSIONS, Some(pages)) = (name, page_count(body)) {
                    turn.pages = pages;
                }
            }
            Ok((status, _)) => *figures.errors.entry(status.to_string()).or_default() += 1,
            Err(e) => *figures.errors.entry(e).or_default() += 1,
        }
        figures.latency.saturating_record(due.elapsed().as_micros().max(1) as u64);
        turn.number += 1;
        due += every;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    results
}

/// `pageCount` of a list, which stands near its beginning.
fn page_count(body: &[u8]) -> Option<u64> {
    let head = String::from_utf8_lossy(&body[..body.len().min(200)]);
    let (_, rest) = head.split_once("\"pageCount\":")?;
    let rest = rest.trim_start();
    rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())].parse().ok()
}

impl Figures {
    fn new() -> Self {
        Self { latency: histogram(), bytes: 0, errors: BTreeMap::new() }
    }

    fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    fn json(&self) -> Json {
        let errors = self.errors.iter().map(|(what, n)| (what.clone(), Json::from(*n))).collect();
        Json::map([
            ("latency_us", quantiles(&self.latency)),
            ("bytes", self.bytes.into()),
            ("errors", Json::Map(errors)),
        ])
    }
}

fn merge(all: &mut Results, more: Results) {
    for (name, figures) in more {
        let sum = all.entry(name).or_insert_with(Figures::new);
        sum.latency += &figures.latency;
        sum.bytes += figures.bytes;
        figures.errors.into_iter().for_each(|(what, n)| *sum.errors.entry(what).or_default() += n);
    }
}

fn table(results: &Results) -> String {
    let mut text = String::new();
    for (name, figures) in results {
        let answered = (figures.latency.len() - figures.failed()).max(1);
        let (line, kb) = (quantile_line(&figures.latency), figures.bytes as f64 / answered as f64 / 1e3);
        let _ = writeln!(text, "  {name:<28} {line}, {kb:.1} kB each");
        for (what, n) in &figures.errors {
            let _ = writeln!(text, "  {:<28} {n} x {what}", "  error");
        }
    }
    text
}

fn json(results: &Results) -> Json {
    Json::Map(results.iter().map(|(name, figures)| ((*name).to_owned(), figures.json())).collect())
}

/// Fails when an endpoint that is there never answered, or when none is: such a run polled nothing.
fn check(results: &Results) -> Result<(), String> {
    let silent = |figures: &Figures| figures.failed() == figures.latency.len();
    let absent = |figures: &Figures| figures.errors.keys().all(|what| what == "404");
    let broken = results.iter().find(|(_, figures)| silent(figures) && !absent(figures));
    match broken.or_else(|| results.first_key_value().filter(|_| results.values().all(silent))) {
        Some((name, figures)) => Err(format!("{name} never answered with 200: {:?}", figures.errors)),
        None => Ok(()),
    }
}

impl Api {
    pub fn run(&self) -> Result<(), String> {
        load::pin(self.output.pin)?;
        load::nice(self.output.nice)?;
        let poller = Poller::start(&self.polls)?;
        thread::sleep(Duration::try_from_secs_f64(self.seconds).map_err(|e| e.to_string())?);
        let results = poller.finish()?;
        let text =
            format!("{}\n{}  {:<28} {}", self.output.label, table(&results), "machine", machine_line());
        let json = Json::map([
            ("label", self.output.label.as_str().into()),
            ("api", json(&results)),
            ("rate", self.polls.rate.into()),
            ("machine", machine()),
        ]);
        self.output.write(&text, &json)?;
        check(&results)
    }
}

/// Windows of one kind.
struct Windows {
    latency: Histogram<u64>,
    /// Milliseconds, a value for each window
    p50: Vec<f64>,
    p99: Vec<f64>,
    counters: Counters,
}

impl Windows {
    fn new() -> Self {
        Self { latency: histogram(), p50: Vec::new(), p99: Vec::new(), counters: Counters::default() }
    }

    fn measure(&mut self, engine: &mut Engine, seconds: f64) {
        engine.mark();
        pass(engine, seconds);
        let ms = |q| engine.latency.value_at_quantile(q) as f64 / 1e3;
        self.p50.push(ms(0.5));
        self.p99.push(ms(0.99));
        self.latency += &engine.latency;
        self.counters.add(&engine.counters());
    }

    fn json(&self) -> Json {
        let list = |values: &[f64]| Json::List(values.iter().map(|ms| (*ms).into()).collect());
        Json::map([
            ("latency_us", quantiles(&self.latency)),
            ("p50_ms", list(&self.p50)),
            ("p99_ms", list(&self.p99)),
            ("packets", self.counters.packets.into()),
            ("lost", self.counters.lost.into()),
        ])
    }
}

impl ApiAb {
    pub fn run(&self) -> Result<(), String> {
        load::pin(self.output.pin)?;
        load::nice(self.output.nice)?;
        let clip = self.load.media.clip()?;
        let server = self.target.server()?;
        let o = self.load.media.options(self.load.streams, &self.target.url, &self.target.path, false)?;
        let mut engine = Engine::new(o, clip).map_err(|e| format!("loader: {e}"))?;
        load::publish(&mut engine, self.load.streams)?;
        load::read(&mut engine, &self.load)?;
        pass(&mut engine, self.load.warmup);
        let (mut quiet, mut polled, mut results) = (Windows::new(), Windows::new(), Results::new());
        for round in 0..self.rounds {
            // the one that comes first has no advantage over all rounds
            for with_polls in [round % 2 == 0, round % 2 != 0] {
                if with_polls {
                    let poller = Poller::start(&self.polls)?;
                    polled.measure(&mut engine, self.load.seconds);
                    merge(&mut results, poller.finish()?);
                } else {
                    quiet.measure(&mut engine, self.load.seconds);
                }
            }
        }
        let threads = server.threads();
        engine.leave_all();
        let text = self.table(&quiet, &polled, &results);
        let json = Json::map([
            ("label", self.output.label.as_str().into()),
            ("load", self.load.name().into()),
            ("rounds", self.rounds.into()),
            ("rate", self.polls.rate.into()),
            ("quiet", quiet.json()),
            ("polled", polled.json()),
            ("api", json(&results)),
            ("server_threads", threads.into()),
            ("load_average", probe::load_average().into()),
            ("machine", machine()),
        ]);
        self.output.write(&text, &json)?;
        check(&results)
    }

    fn table(&self, quiet: &Windows, polled: &Windows, results: &Results) -> String {
        let mut text = format!("{} {}\n", self.load.name(), self.output.label);
        let mut row = |name: &str, value: &str| {
            let _ = writeln!(text, "  {name:<28} {value}");
        };
        for (name, windows) in [("quiet", quiet), ("polled", polled)] {
            row(&format!("relay latency, {name}"), &quantile_line(&windows.latency));
            let (p50, p99) = (cell(windows.p50.clone(), 3), cell(windows.p99.clone(), 3));
            row("  median of windows", &format!("p50 {p50}, p99 {p99} ms"));
            row("  packets, lost", &format!("{}, {}", windows.counters.packets, windows.counters.lost));
        }
        let ratio = |quiet: &[f64], polled: &[f64]| {
            let ratios = quiet.iter().zip(polled).map(|(quiet, polled)| polled / quiet).collect();
            spread(ratios).map_or(String::new(), |(m, low, high)| format!("{m:.2} [{low:.2}..{high:.2}]"))
        };
        let (p50, p99) = (ratio(&quiet.p50, &polled.p50), ratio(&quiet.p99, &polled.p99));
        row("polled / quiet, by round", &format!("p50 {p50}, p99 {p99}"));
        row("machine", &machine_line());
        text + &table(results)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    #[test]
    fn the_number_of_pages_is_found() {
        assert_eq!(page_count(b"{\"itemCount\":250,\"pageCount\":3,\"items\":[]}"), Some(3));
        assert_eq!(page_count(b"{\"pageCount\": 12"), Some(12));
        assert_eq!(page_count(b"{}"), None);
    }

    #[test]
    fn endpoints_and_pages_take_turns() {
        let mut turn = Turn { number: 0, pages: 2, base: "/".into() };
        let mut paths = Vec::new();
        for number in 0..8 {
            turn.number = number;
            paths.push(turn.of_api().1);
        }
        assert_eq!(paths[0], "/v3/paths/list?itemsPerPage=100&page=0");
        assert_eq!(paths[1], "/v3/rtspsessions/list?itemsPerPage=100&page=0");
        assert_eq!(paths[2], "/v3/summary");
        assert_eq!(paths[3], "/v3/paths/list?itemsPerPage=1000");
        assert_eq!(paths[4], "/v3/paths/list?itemsPerPage=100&page=1");
        assert_eq!(paths[5], "/v3/rtspsessions/list?itemsPerPage=100&page=1");
    }

    #[test]
    fn answers_and_errors_are_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut conn, _) = listener.accept().unwrap();
            let mut buf = [0; 4096];
            // an answer of each kind, then the end
            for answer in ["200 OK", "404 Not Found"] {
                let _ = conn.read(&mut buf).unwrap();
                write!(conn, "HTTP/1.1 {answer}\r\nContent-Length: 2\r\n\r\n{{}}").unwrap();
            }
        });
        let stop = AtomicBool::new(false);
        let to = Location::of(&format!("http://{addr}/metrics")).unwrap();
        let results = thread::scope(|scope| {
            let polling = scope.spawn(|| poll(to, Duration::from_millis(1), &stop, Turn::of_metrics));
            server.join().unwrap();
            stop.store(true, Ordering::Relaxed);
            polling.join().unwrap()
        });
        let figures = &results[METRICS];
        assert_eq!((figures.bytes, figures.errors["404"]), (2, 1));
        assert!(check(&results).is_ok());
    }
}
