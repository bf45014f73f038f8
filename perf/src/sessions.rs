//! What sessions cost beside their media: `churn`, `storm` and `join`.

use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::check::histogram;
use crate::engine::conn::State;
use crate::engine::{Engine, Id};
use crate::json::Json;
use crate::load::{self, Media, SECOND, duration, pass, publish};
use crate::probe::{Memory, Server, machine, machine_line};
use crate::report::{quantile_line, quantiles};
use crate::rtsp::Role;
use crate::sys::{mono_ns, thread_cpu_ns};
use crate::{Output, Target};

#[derive(clap::Args)]
pub struct Churn {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    media: Media,
    #[command(flatten)]
    output: Output,
    /// Cycles of connect, play, leave
    #[arg(long, default_value_t = 1000)]
    cycles: u32,
    /// Cycles going on at once
    #[arg(long, default_value_t = 4)]
    parallel: usize,
    /// When a reader leaves
    #[arg(long, value_enum, default_value = "frame")]
    leave_at: LeaveAt,
    /// Time for the server to tidy up before it is looked at
    #[arg(long, default_value = "3s", value_parser = duration)]
    settle: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum LeaveAt {
    /// as soon as PLAY is answered
    Play,
    /// after the first whole frame
    Frame,
}

#[derive(clap::Args)]
pub struct Storm {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    media: Media,
    #[command(flatten)]
    output: Output,
    #[arg(long, default_value_t = 100)]
    publishers: u32,
    /// Publishers connect evenly within this time
    #[arg(long, default_value = "2s", value_parser = duration)]
    publishers_over: Duration,
    #[arg(long, default_value_t = 1000)]
    readers: u32,
    /// Readers connect evenly within this time, after the publishers
    #[arg(long, default_value = "2s", value_parser = duration)]
    readers_over: Duration,
    /// How long to wait for the last first byte
    #[arg(long, default_value = "20s", value_parser = duration)]
    timeout: Duration,
}

#[derive(clap::Args)]
pub struct Join {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    media: Media,
    #[command(flatten)]
    output: Output,
    /// Readers that join, at random times
    #[arg(long, default_value_t = 40)]
    joins: u32,
    /// Within this time [default: two GOPs, or half a second for each join]
    #[arg(long, value_parser = duration)]
    over: Option<Duration>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What the server holds.
#[derive(Clone, Copy)]
pub struct Holdings {
    pub fds: usize,
    pub threads: usize,
    pub memory: Memory,
}

impl Holdings {
    pub fn of(s: &Server) -> Self {
        Self { fds: s.fds(), threads: s.threads(), memory: s.memory() }
    }

    pub fn json(&self) -> Json {
        Json::map([
            ("fds", self.fds.into()),
            ("threads", self.threads.into()),
            ("rss_kb", self.memory.rss_kb.into()),
            ("pss_kb", self.memory.pss_kb.into()),
        ])
    }

    pub fn line(&self) -> String {
        let m = self.memory;
        format!("{} fds, {} threads, PSS {} KiB, RSS {} KiB", self.fds, self.threads, m.pss_kb, m.rss_kb)
    }
}

/// A small random generator (SplitMix64), so that runs can be repeated.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.next() % n }
    }
}

struct Table(String);

impl Table {
    fn row(&mut self, name: &str, value: impl AsRef<str>) {
        let _ = writeln!(self.0, "  {name:<28} {}", value.as_ref());
    }

    fn tail(&mut self, e: &Engine) {
        for (what, n) in &e.errors {
            self.row("error", format!("{n} x {what}"));
        }
        self.row("machine", machine_line());
    }
}

fn errors(e: &Engine) -> Json {
    Json::Map(e.errors.iter().map(|(k, v)| (k.clone(), (*v).into())).collect())
}

fn command() -> Json {
    std::env::args().collect::<Vec<_>>().join(" ").into()
}

fn us(from: u64, to: u64) -> u64 {
    (to.saturating_sub(from) / 1000).max(1)
}

fn start(t: &Target, m: &Media, out: &Output, streams: u32) -> Result<(Server, Engine), String> {
    load::pin(out.pin)?;
    load::nice(out.nice)?;
    let clip = m.clip()?;
    let server = t.server()?;
    let o = m.options(streams, &t.url, &t.path, false)?;
    let e = Engine::new(o, clip).map_err(|e| format!("loader: {e}"))?;
    Ok((server, e))
}

impl Churn {
    pub fn run(self) -> Result<(), String> {
        let (server, mut e) = start(&self.target, &self.media, &self.output, 1)?;
        publish(&mut e, 1)?;
        pass(&mut e, self.media.gop_s().clamp(1.0, 10.0));
        // what the publisher alone costs, to be taken off
        let (t0, c0) = (mono_ns(), server.cpu()?);
        pass(&mut e, 2.0);
        let (t1, c1) = (mono_ns(), server.cpu()?);
        let publisher = (c1.process - c0.process) as f64 / (t1 - t0) as f64;
        let before = Holdings::of(&server);

        let (mut active, mut started, mut done, mut failed, mut slow) =
            (Vec::<(Id, bool)>::new(), 0, 0, 0, 0);
        let mut cycle = histogram();
        let loader0 = thread_cpu_ns();
        while done + failed < self.cycles {
            while started < self.cycles && active.len() < self.parallel.max(1) {
                active.push((e.open(Role::Read, 0), false));
                started += 1;
            }
            e.turn(10_000_000);
            let now = mono_ns();
            active.retain_mut(|(id, leaving)| {
                let Some(c) = e.conn(*id) else {
                    // gone: as asked, or not
                    *if *leaving { &mut done } else { &mut failed } += 1;
                    return false;
                };
                let age = now - c.open_ns;
                let enough =
                    c.state == State::Live && (self.leave_at == LeaveAt::Play || c.check.c.frames > 0);
                if !*leaving && (enough || age > 10 * SECOND) {
                    slow += u32::from(!enough);
                    cycle.saturating_record(us(0, age));
                    *leaving = true;
                    e.leave(*id);
                }
                true
            });
            if e.live_publishers == 0 {
                return Err(format!("the publisher was dropped: {:?}", e.errors));
            }
        }
        let (t2, c2) = (mono_ns(), server.cpu()?);
        let loader = (thread_cpu_ns() - loader0) as f64 / (t2 - t1) as f64;
        let spent = (c2.process - c1.process) as f64 - publisher * (t2 - t1) as f64;
        let per_cycle = spent / 1e6 / f64::from(self.cycles.max(1));
        pass(&mut e, self.settle.as_secs_f64());
        let after = Holdings::of(&server);
        let rate = f64::from(done) / ((t2 - t1) as f64 / 1e9);

        let mut t = Table(format!("churn {}\n", self.output.label));
        t.row(
            "cycles",
            format!("{done} done, {failed} failed, {slow} without a frame in 10 s, {rate:.0} per second"),
        );
        t.row(
            "server CPU per cycle",
            format!("{per_cycle:.3} ms (first frames included, publisher taken off)"),
        );
        t.row("connect to enough", quantile_line(&cycle));
        t.row("before", before.line());
        t.row("after", after.line());
        t.row("loader", format!("{:.0}% of a core", loader * 100.0));
        t.tail(&e);
        let j = Json::map([
            ("kind", "churn".into()),
            ("label", self.output.label.as_str().into()),
            ("cycles", self.cycles.into()),
            ("parallel", self.parallel.into()),
            ("done", f64::from(done).into()),
            ("failed", f64::from(failed).into()),
            ("without_frame", slow.into()),
            ("cycles_per_s", rate.into()),
            ("cpu_ms_per_cycle", per_cycle.into()),
            ("cycle_us", quantiles(&cycle)),
            ("before", before.json()),
            ("after", after.json()),
            ("loader_core_share", loader.into()),
            ("errors", errors(&e)),
            ("machine", machine()),
            ("command", command()),
        ]);
        e.leave_all();
        self.output.write(&t.0, &j)
    }
}

/// Times of sessions, from the connect.
struct Times {
    ready: Histogram<u64>,
    first: Histogram<u64>,
    key: Histogram<u64>,
}

impl Storm {
    pub fn run(self) -> Result<(), String> {
        let (server, mut e) = start(&self.target, &self.media, &self.output, self.publishers)?;
        std::thread::sleep(Duration::from_millis(300));
        let before = Holdings::of(&server);
        let (c0, t0) = (server.cpu()?, mono_ns());
        let p_over = self.publishers_over.as_nanos() as u64;
        let at = |i: u32, n: u32, over: u64| over * u64::from(i) / u64::from(n.max(1));
        let mut plan: Vec<(u64, Role, u32)> =
            (0..self.publishers).map(|i| (t0 + at(i, self.publishers, p_over), Role::Publish, i)).collect();
        let r_over = self.readers_over.as_nanos() as u64;
        plan.extend(
            (0..self.readers)
                .map(|j| (t0 + p_over + at(j, self.readers, r_over), Role::Read, j % self.publishers)),
        );
        let last = t0 + p_over + r_over;
        let mut late = 0;
        for (when, role, stream) in plan {
            e.run(when, |_| false);
            late = late.max(mono_ns().saturating_sub(when));
            e.open(role, stream);
        }
        let until = last + self.timeout.as_nanos() as u64;
        e.run(until, |e| e.in_flight == 0 && e.readers().all(|c| c.check.first_ns > 0));
        let (c1, t1) = (server.cpu()?, mono_ns());
        let after = Holdings::of(&server);

        let mut times = Times { ready: histogram(), first: histogram(), key: histogram() };
        let (mut ready, mut first) = (0u32, 0u32);
        for c in e.readers() {
            if c.ready_ns > 0 {
                ready += 1;
                times.ready.saturating_record(us(c.open_ns, c.ready_ns));
            }
            if c.check.first_ns > 0 {
                first += 1;
                times.first.saturating_record(us(c.open_ns, c.check.first_ns));
            }
            if c.check.key_ns > 0 {
                times.key.saturating_record(us(c.open_ns, c.check.key_ns));
            }
        }
        let publishers = e.live_publishers;
        let cpu = (c1.process - c0.process) as f64 / 1e9;
        let mut t = Table(format!("storm {}\n", self.output.label));
        t.row(
            "publishers",
            format!("{publishers} of {} live, asked within {:?}", self.publishers, self.publishers_over),
        );
        t.row(
            "readers",
            format!(
                "{ready} of {} play, {first} got media, asked within {:?}",
                self.readers, self.readers_over
            ),
        );
        t.row("reader, connect to PLAY 200", quantile_line(&times.ready));
        t.row("reader, connect to first byte", quantile_line(&times.first));
        t.row("reader, connect to keyframe", quantile_line(&times.key));
        t.row("server CPU", format!("{cpu:.3} s in {:.3} s", (t1 - t0) as f64 / 1e9));
        t.row("before", before.line());
        t.row("after", after.line());
        t.row("loader late by at most", format!("{:.3} ms", late as f64 / 1e6));
        t.tail(&e);
        let j = Json::map([
            ("kind", "storm".into()),
            ("label", self.output.label.as_str().into()),
            ("publishers", self.publishers.into()),
            ("publishers_live", publishers.into()),
            ("readers", self.readers.into()),
            ("readers_playing", ready.into()),
            ("readers_with_media", first.into()),
            ("ready_us", quantiles(&times.ready)),
            ("first_byte_us", quantiles(&times.first)),
            ("keyframe_us", quantiles(&times.key)),
            ("server_cpu_s", cpu.into()),
            ("seconds", ((t1 - t0) as f64 / 1e9).into()),
            ("before", before.json()),
            ("after", after.json()),
            ("loader_late_ms", (late as f64 / 1e6).into()),
            ("errors", errors(&e)),
            ("machine", machine()),
            ("command", command()),
        ]);
        e.leave_all();
        self.output.write(&t.0, &j)
    }
}

impl Join {
    pub fn run(mut self) -> Result<(), String> {
        let gop = *self.media.gop.get_or_insert(Duration::from_secs(10));
        let (server, mut e) = start(&self.target, &self.media, &self.output, 1)?;
        publish(&mut e, 1)?;
        // a keyframe and some of the next GOP are behind us
        pass(&mut e, gop.as_secs_f64() * 1.2);
        let over = self.over.unwrap_or((2 * gop).max(Duration::from_millis(500) * self.joins));
        let mut random = Random(self.seed);
        let t0 = mono_ns();
        let mut plan: Vec<u64> = (0..self.joins).map(|_| t0 + random.below(over.as_nanos() as u64)).collect();
        plan.sort_unstable_by(|a, b| b.cmp(a));
        let limit = gop.as_nanos() as u64 + 5 * SECOND;

        let [mut play, mut first, mut key, mut live, mut both] = std::array::from_fn(|_| histogram());
        let (mut no_key, mut no_live, mut key_first, mut failed) = (0u32, 0u32, 0u32, 0u32);
        let mut active: Vec<(Id, bool)> = Vec::new();
        while !(plan.is_empty() && active.is_empty()) {
            let now = mono_ns();
            if plan.last().is_some_and(|&t| t <= now) {
                plan.pop();
                active.push((e.open(Role::Read, 0), false));
            }
            e.turn(plan.last().map_or(SECOND, |t| t.saturating_sub(now)));
            let now = mono_ns();
            active.retain_mut(|(id, leaving)| {
                let Some(c) = e.conn(*id) else {
                    failed += u32::from(!*leaving);
                    return false;
                };
                let k = &c.check;
                let complete = c.ready_ns > 0 && k.key_ns > 0 && k.live_ns > 0;
                if *leaving || !(complete || now - c.open_ns > limit) {
                    return true;
                }
                no_key += u32::from(k.key_ns == 0);
                no_live += u32::from(k.live_ns == 0);
                key_first += u32::from(k.first_is_key == Some(true));
                let ends = [c.ready_ns, k.first_ns, k.key_ns, k.live_ns, k.key_ns.max(k.live_ns)];
                for (h, end) in [&mut play, &mut first, &mut key, &mut live, &mut both].into_iter().zip(ends)
                {
                    if end > 0 {
                        h.saturating_record(us(c.start_ns, end));
                    }
                }
                *leaving = true;
                e.leave(*id);
                true
            });
            if e.live_publishers == 0 {
                return Err(format!("the publisher was dropped: {:?}", e.errors));
            }
        }
        let mut t = Table(format!("join {}\n", self.output.label));
        let n = self.joins - failed;
        t.row(
            "joins",
            format!("{n} of {}, GOP {gop:?}, {} Mbps, over {over:?}", self.joins, self.media.mbps),
        );
        t.row("PLAY to its answer", quantile_line(&play));
        t.row("PLAY to first packet", quantile_line(&first));
        t.row("PLAY to keyframe's last byte", quantile_line(&key));
        t.row("PLAY to live", quantile_line(&live));
        t.row("PLAY to keyframe and live", quantile_line(&both));
        t.row("began with a keyframe", format!("{key_first} of {n}"));
        t.row("timed out", format!("{no_key} without keyframe, {no_live} never live"));
        t.row("server", Holdings::of(&server).line());
        t.tail(&e);
        let j = Json::map([
            ("kind", "join".into()),
            ("label", self.output.label.as_str().into()),
            ("joins", self.joins.into()),
            ("failed", failed.into()),
            ("gop_s", gop.as_secs_f64().into()),
            ("mbps", self.media.mbps.into()),
            ("play_us", quantiles(&play)),
            ("first_packet_us", quantiles(&first)),
            ("keyframe_us", quantiles(&key)),
            ("live_us", quantiles(&live)),
            ("keyframe_and_live_us", quantiles(&both)),
            ("key_first", key_first.into()),
            ("no_keyframe", no_key.into()),
            ("never_live", no_live.into()),
            ("errors", errors(&e)),
            ("machine", machine()),
            ("command", command()),
        ]);
        e.leave_all();
        self.output.write(&t.0, &j)
    }
}
