//! A run's figures, as a table for people and as JSON.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

use crate::check::Counters;
use crate::engine::{Sent, Transport};
use crate::json::Json;
use crate::load::Load;
use crate::probe::{Cpu, Memory, Server, machine, machine_line, thread_wait_ns};
use crate::sys::{mono_ns, thread_cpu_ns};

pub struct Snapshot {
    pub at: u64,
    pub cpu: Cpu,
    pub loader: u64,
    pub loader_wait: u64,
    pub busy: Option<u64>,
}

impl Snapshot {
    pub fn take(s: &Server) -> Result<Self, String> {
        Ok(Self {
            at: mono_ns(),
            cpu: s.cpu()?,
            loader: thread_cpu_ns(),
            loader_wait: thread_wait_ns(),
            busy: s.cpu_busy_ns(),
        })
    }
}

pub struct Report {
    pub label: String,
    pub load: Load,
    pub clip: String,
    pub gop_frames: usize,
    pub mean_packets: f64,
    pub mean_bytes: f64,
    pub key_bytes: f64,
    pub server_cpus: Vec<usize>,
    pub wall_ns: u64,
    pub cpu_ns: u64,
    pub softirq_ns: u64,
    pub loader_ns: u64,
    pub loader_wait_ns: u64,
    /// busy time of the server's CPU, whoever used it
    pub busy_ns: Option<u64>,
    pub threads: usize,
    pub fds: usize,
    pub sockets: usize,
    pub idle: Memory,
    pub published: Memory,
    pub memory: Memory,
    pub live_publishers: usize,
    pub live_readers: usize,
    pub key_first: usize,
    pub delivered: Counters,
    pub warmup: Counters,
    pub sent: Sent,
    pub latency: Histogram<u64>,
    pub late: Histogram<u64>,
    pub ready: Histogram<u64>,
    pub errors: Vec<(String, u64)>,
    pub load_average: f64,
}

pub const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)];

pub fn quantiles(h: &Histogram<u64>) -> Json {
    let mut m: Vec<(String, Json)> = vec![("count".into(), h.len().into())];
    m.extend(QUANTILES.map(|(n, q)| (n.to_owned(), h.value_at_quantile(q).into())));
    m.push(("max".into(), h.max().into()));
    Json::Map(m)
}

pub fn quantile_line(h: &Histogram<u64>) -> String {
    if h.is_empty() {
        return "none".into();
    }
    let q: Vec<String> =
        QUANTILES.iter().map(|(n, q)| format!("{n} {:.3}", h.value_at_quantile(*q) as f64 / 1e3)).collect();
    format!("{}, max {:.3} ms (n {})", q.join(", "), h.max() as f64 / 1e3, h.len())
}

impl Report {
    pub fn wall_s(&self) -> f64 {
        self.wall_ns as f64 / 1e9
    }

    /// The server's CPU seconds: the process, and ksoftirqd of its CPU when it has one of its own.
    pub fn cpu_s(&self) -> f64 {
        (self.cpu_ns + self.softirq_ns) as f64 / 1e9
    }

    pub fn cpu_per_gb(&self) -> Option<f64> {
        (self.delivered.bytes > 0).then(|| self.cpu_s() / (self.delivered.bytes as f64 / 1e9))
    }

    pub fn cpu_per_mpkt(&self) -> Option<f64> {
        (self.delivered.packets > 0).then(|| self.cpu_s() / (self.delivered.packets as f64 / 1e6))
    }

    pub fn core_share(&self) -> f64 {
        self.cpu_s() / self.wall_s()
    }

    pub fn loader_share(&self) -> f64 {
        self.loader_ns as f64 / self.wall_ns as f64
    }

    /// Share of the window in which the loader was ready but had no CPU.
    pub fn loader_wait(&self) -> f64 {
        self.loader_wait_ns as f64 / self.wall_ns as f64
    }

    /// Share of the server's CPU that others used, as far as ticks can tell.
    pub fn foreign(&self) -> Option<f64> {
        let others = self.busy_ns? as f64 - (self.cpu_ns + self.softirq_ns) as f64;
        Some((others / self.wall_ns as f64).max(0.0))
    }

    /// CPU milliseconds per second and stream.
    pub fn cpu_ms_per_stream(&self) -> f64 {
        self.core_share() * 1e3 / f64::from(self.load.streams)
    }

    /// Share of the frames that were due in the window and were sent.
    pub fn offering(&self) -> f64 {
        let due = self.load.media.fps * self.wall_s() * f64::from(self.load.streams);
        self.sent.frames as f64 / due
    }

    /// Share of what the readers should have got that they did get. A frame not sent counts as not delivered.
    pub fn delivery(&self) -> Option<f64> {
        let sent = self.sent.bytes as f64 * f64::from(self.load.readers);
        (sent > 0.0).then(|| self.delivered.bytes as f64 / sent * self.offering().min(1.0))
    }

    /// Why the figures of this run may not be the server's own.
    pub fn flags(&self) -> Vec<String> {
        let mut f = Vec::new();
        let at = format!("server at {:.0}% of a core", self.core_share() * 100.0);
        if self.loader_share() > 0.9 {
            f.push(format!("loader-bound: loader thread {:.0}% busy, {at}", self.loader_share() * 100.0));
        }
        if self.loader_wait() > 0.05 {
            f.push(format!(
                "disturbed: the loader waited {:.0}% of the time for its CPU",
                self.loader_wait() * 100.0
            ));
        }
        if let Some(o) = self.foreign().filter(|o| *o > 0.15) {
            f.push(format!("disturbed: others used {:.0}% of the server's CPU", o * 100.0));
        }
        if self.offering() < 0.98 {
            f.push(format!("loader-bound: {:.1}% of the frames were sent, {at}", self.offering() * 100.0));
        }
        if let Some(d) = self.delivery().filter(|d| *d < 0.98) {
            let who = if self.loader_share() > 0.9 { "loader-bound" } else { "under-delivered" };
            f.push(format!("{who}: {:.1}% of the offered bytes arrived, {at}", d * 100.0));
        }
        let d = &self.delivered;
        if d.bad + d.wrong_stream > 0 {
            f.push(format!("wrong content: {} bad packets, {} of another stream", d.bad, d.wrong_stream));
        }
        if self.live_readers < (self.load.streams * self.load.readers) as usize {
            let all = self.load.streams * self.load.readers;
            f.push(format!("only {} of {all} readers play", self.live_readers));
        }
        if self.live_publishers < self.load.streams as usize {
            f.push(format!("{} publishers were dropped", self.load.streams as usize - self.live_publishers));
        }
        f
    }

    fn per(a: u64, b: u64, n: f64) -> f64 {
        if n > 0.0 { (a as f64 - b as f64) / n } else { 0.0 }
    }

    fn per_stream_kb(&self) -> f64 {
        Self::per(self.published.pss_kb, self.idle.pss_kb, f64::from(self.load.streams))
    }

    pub fn per_reader_kb(&self) -> f64 {
        let n = f64::from(self.load.streams) * f64::from(self.load.readers);
        Self::per(self.memory.pss_kb, self.published.pss_kb, n)
    }

    pub fn table(&self) -> String {
        let mut t = String::new();
        let mut row = |name: &str, value: String| {
            let _ = writeln!(t, "  {name:<26} {value}");
        };
        let d = &self.delivered;
        let s = self.wall_s();
        row(
            "load",
            format!(
                "{}, {} fps, GOP {} frames, {s:.1} s",
                self.load.name(),
                self.load.media.fps,
                self.gop_frames
            ),
        );
        row(
            "pictures",
            format!(
                "{}; per frame {:.1} packets, {:.1} KB; keyframes {:.1} KB",
                self.clip,
                self.mean_packets,
                self.mean_bytes / 1e3,
                self.key_bytes / 1e3
            ),
        );
        row("machine", machine_line());
        row("load average before", format!("{:.2}", self.load_average));
        let opt = |v: Option<f64>| v.map_or("-".into(), |v| format!("{v:.3}"));
        row("server CPU-s per GB", opt(self.cpu_per_gb()));
        row("server CPU-s per Mpkt", opt(self.cpu_per_mpkt()));
        row(
            "server CPU",
            format!(
                "{:.1}% of a core ({:.3} s process, {:.3} s ksoftirqd), {:.3} ms per second and stream, CPUs {:?}",
                self.core_share() * 100.0,
                self.cpu_ns as f64 / 1e9,
                self.softirq_ns as f64 / 1e9,
                self.cpu_ms_per_stream(),
                self.server_cpus
            ),
        );
        row(
            "delivered",
            format!(
                "{:.3} Gbit/s, {:.0} packets/s, {} of the offered bytes",
                d.bytes as f64 * 8.0 / 1e9 / s,
                d.packets as f64 / s,
                self.delivery().map_or("-".into(), |v| format!("{:.2}%", v * 100.0))
            ),
        );
        row(
            "published",
            format!(
                "{:.3} Gbit/s, {:.2}% of the frames due, {} frames blocked, {} skipped",
                self.sent.bytes as f64 * 8.0 / 1e9 / s,
                self.offering() * 100.0,
                self.sent.blocked,
                self.sent.skipped
            ),
        );
        row(
            "RTP packets",
            format!("{} lost, {} duplicated, {} reordered", d.lost, d.duplicated, d.reordered),
        );
        row(
            "frames",
            format!(
                "{} whole, {} broken, {} lost, {} bad packets, {} of another stream",
                d.frames, d.broken_frames, d.lost_frames, d.bad, d.wrong_stream
            ),
        );
        let w = &self.warmup;
        row(
            "while joining",
            format!("{} packets lost, {} duplicated, {} frames lost", w.lost, w.duplicated, w.lost_frames),
        );
        row("latency, send to receive", quantile_line(&self.latency));
        row("frames sent late by", quantile_line(&self.late));
        row("connect to ready", quantile_line(&self.ready));
        row("first frame a keyframe", format!("{} of {} readers", self.key_first, self.live_readers));
        let m = |m: Memory| format!("{:.1} / {:.1}", m.pss_kb as f64 / 1024.0, m.rss_kb as f64 / 1024.0);
        row(
            "PSS / RSS, MiB",
            format!("idle {}, publishers {}, all {}", m(self.idle), m(self.published), m(self.memory)),
        );
        row(
            "PSS per stream, reader",
            format!(
                "{:.0} KiB, {:.1} KiB; {} threads, {} fds",
                self.per_stream_kb(),
                self.per_reader_kb(),
                self.threads,
                self.fds
            ),
        );
        row(
            "loader",
            format!(
                "{:.1}% of a core, waited for it {:.1}% of the time; {} sockets",
                self.loader_share() * 100.0,
                self.loader_wait() * 100.0,
                self.sockets
            ),
        );
        row("others on server's CPU", self.foreign().map_or("-".into(), |o| format!("{:.0}%", o * 100.0)));
        for (e, n) in &self.errors {
            row("error", format!("{n} x {e}"));
        }
        let flags = self.flags();
        row("verdict", if flags.is_empty() { "clean".into() } else { flags.join("; ").to_uppercase() });
        format!("{}\n{t}", self.label)
    }

    pub fn json(&self) -> Json {
        let l = &self.load;
        let c = |c: &Counters| {
            Json::map([
                ("packets", c.packets.into()),
                ("bytes", c.bytes.into()),
                ("lost", c.lost.into()),
                ("duplicated", c.duplicated.into()),
                ("reordered", c.reordered.into()),
                ("bad", c.bad.into()),
                ("wrong_stream", c.wrong_stream.into()),
                ("frames", c.frames.into()),
                ("broken_frames", c.broken_frames.into()),
                ("lost_frames", c.lost_frames.into()),
            ])
        };
        let t = |t: Transport| if t == Transport::Udp { "udp" } else { "tcp" };
        let m = |m: Memory| Json::map([("rss_kb", m.rss_kb.into()), ("pss_kb", m.pss_kb.into())]);
        let sent = &self.sent;
        Json::map([
            ("label", self.label.as_str().into()),
            ("streams", l.streams.into()),
            ("readers", l.readers.into()),
            ("mbps", l.media.mbps.into()),
            ("fps", l.media.fps.into()),
            ("gop_frames", self.gop_frames.into()),
            ("transport", t(l.media.transport).into()),
            ("publish_transport", t(l.media.publish_transport).into()),
            ("phase", format!("{:?}", l.media.phase).to_lowercase().into()),
            ("pictures", self.clip.as_str().into()),
            ("packets_per_frame", self.mean_packets.into()),
            ("bytes_per_frame", self.mean_bytes.into()),
            ("bytes_per_keyframe", self.key_bytes.into()),
            ("window_s", self.wall_s().into()),
            ("server_cpu_s", self.cpu_s().into()),
            ("server_process_cpu_s", (self.cpu_ns as f64 / 1e9).into()),
            ("server_ksoftirqd_s", (self.softirq_ns as f64 / 1e9).into()),
            ("server_cpus", self.server_cpus.iter().map(|&c| c.into()).collect::<Vec<_>>().into()),
            ("server_core_share", self.core_share().into()),
            ("cpu_s_per_gb", self.cpu_per_gb().into()),
            ("cpu_s_per_mpkt", self.cpu_per_mpkt().into()),
            ("cpu_ms_per_stream_second", self.cpu_ms_per_stream().into()),
            ("delivered", c(&self.delivered)),
            ("while_joining", c(&self.warmup)),
            ("delivered_share", self.delivery().into()),
            ("delivered_gbps", (self.delivered.bytes as f64 * 8.0 / 1e9 / self.wall_s()).into()),
            ("packets_per_s", (self.delivered.packets as f64 / self.wall_s()).into()),
            (
                "sent",
                Json::map([
                    ("frames", sent.frames.into()),
                    ("packets", sent.packets.into()),
                    ("bytes", sent.bytes.into()),
                    ("skipped_frames", sent.skipped.into()),
                    ("blocked_frames", sent.blocked.into()),
                    ("share", self.offering().into()),
                ]),
            ),
            ("latency_us", quantiles(&self.latency)),
            ("late_us", quantiles(&self.late)),
            ("ready_us", quantiles(&self.ready)),
            ("key_first_readers", self.key_first.into()),
            ("live_readers", self.live_readers.into()),
            ("live_publishers", self.live_publishers.into()),
            ("memory_idle", m(self.idle)),
            ("memory_publishers", m(self.published)),
            ("memory_all", m(self.memory)),
            ("pss_kb_per_stream", self.per_stream_kb().into()),
            ("pss_kb_per_reader", self.per_reader_kb().into()),
            ("threads", self.threads.into()),
            ("fds", self.fds.into()),
            ("loader_core_share", self.loader_share().into()),
            ("loader_wait_share", self.loader_wait().into()),
            ("others_on_server_cpu_share", self.foreign().into()),
            ("loader_sockets", self.sockets.into()),
            ("errors", Json::Map(self.errors.iter().map(|(k, v)| (k.clone(), (*v).into())).collect())),
            ("flags", self.flags().into_iter().map(Json::from).collect::<Vec<_>>().into()),
            ("load_average_before", self.load_average.into()),
            ("machine", machine()),
            ("command", std::env::args().collect::<Vec<_>>().join(" ").into()),
        ])
    }
}
