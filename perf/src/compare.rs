//! `perf compare`: several targets in turn, in one run, in shuffled order, and what each costs beside the bare loop.

use std::fmt::Write as _;
use std::num::NonZeroU8;
use std::path::PathBuf;
use std::time::Duration;

use crate::engine::{Phase, Transport};
use crate::floor::Mode;
use crate::json::Json;
use crate::load::{self, Load, Media, duration};
use crate::probe::{self, Server, machine_line};
use crate::report::Report;
use crate::sessions::Random;
use crate::{append, floor_server};

#[derive(clap::Args)]
pub struct Compare {
    /// `design`, `udp`, `quick`, a file with one load a line, or loads such as 20x10x4,1x200x4
    #[arg(long, default_value = "design")]
    loads: String,
    /// floor, floor-packet, NAME=COMMAND; comma-separated, or given again. {port}, {rtp}, {rtcp} are replaced
    #[arg(long, required = true)]
    targets: Vec<String>,
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Append raw results here, one JSON object a line
    #[arg(long)]
    out: Option<PathBuf>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    #[arg(long, default_value_t = 5.0)]
    warmup: f64,
    #[arg(long, default_value_t = 25.0)]
    fps: f64,
    #[arg(long, default_value = "2s", value_parser = duration)]
    gop: Duration,
    #[arg(long)]
    file: Option<PathBuf>,
    /// Exchanges that open a connection to the floor server; RTSP has four
    #[arg(long, default_value = "4")]
    hellos: NonZeroU8,
    /// CPU of the servers
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// CPU of the loader
    #[arg(long, default_value_t = 1)]
    pin: usize,
    /// Nice value of the loader and the servers; below zero (root) holds off other work on the machine
    #[arg(long, allow_hyphen_values = true)]
    nice: Option<i32>,
    /// First port; every run takes the next sixteen
    #[arg(long, default_value_t = 18600)]
    base_port: u16,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Floor(Mode),
    Command(String),
}

#[derive(Clone, Debug, PartialEq)]
struct Contender {
    name: String,
    kind: Kind,
}

/// Cuts the list at commas that begin a new target; commas inside a command stay.
fn contenders(args: &[String]) -> Result<Vec<Contender>, String> {
    let mut out: Vec<Contender> = Vec::new();
    for arg in args {
        let mut first = true;
        for part in arg.split(',') {
            let named = part.split_once('=').filter(|(n, _)| {
                n.starts_with(|c: char| c.is_ascii_lowercase())
                    && n.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c))
            });
            let kind = match (part.trim(), named) {
                ("floor" | "floor-gso", _) => Kind::Floor(Mode::Frame),
                ("floor-packet", _) => Kind::Floor(Mode::Packet),
                (_, Some((_, command))) => Kind::Command(command.to_owned()),
                _ => match out.last_mut() {
                    Some(Contender { kind: Kind::Command(c), .. }) if !first => {
                        c.push(',');
                        c.push_str(part);
                        continue;
                    }
                    _ => return Err(format!("{part}: neither floor, floor-packet nor NAME=COMMAND")),
                },
            };
            first = false;
            out.push(Contender { name: named.map_or(part.trim(), |n| n.0).to_owned(), kind });
        }
    }
    for (i, c) in out.iter().enumerate() {
        if out[..i].iter().any(|o| o.name == c.name) {
            return Err(format!("two targets are called {}", c.name));
        }
    }
    Ok(out)
}

const PRESETS: [(&str, &str); 3] =
    [("design", "20x10x4,100x5x2,1x200x4,200x1x2,50x20x4"), ("udp", "20x10x4 udp"), ("quick", "20x10x4")];

impl Compare {
    fn load(&self, line: &str) -> Result<Load, String> {
        let bad = || format!("{line}: a load is STREAMSxREADERSxMBPS [udp] [pub-udp] [ticked]");
        let mut words = line.split_whitespace();
        let n: Vec<&str> = words.next().unwrap_or("").split('x').collect();
        let [streams, readers, mbps] = n[..] else { return Err(bad()) };
        let mut media = Media {
            mbps: mbps.parse().map_err(|_| bad())?,
            fps: self.fps,
            gop: Some(self.gop),
            transport: Transport::Tcp,
            publish_transport: Transport::Tcp,
            phase: Phase::Spread,
            file: self.file.clone(),
            hellos: self.hellos,
        };
        for w in words {
            match w {
                "tcp" => media.transport = Transport::Tcp,
                "udp" => media.transport = Transport::Udp,
                "pub-udp" => media.publish_transport = Transport::Udp,
                "ticked" => media.phase = Phase::Ticked,
                _ => return Err(bad()),
            }
        }
        Ok(Load {
            streams: streams.parse().map_err(|_| bad())?,
            readers: readers.parse().map_err(|_| bad())?,
            media,
            seconds: self.seconds,
            warmup: self.warmup,
        })
    }

    fn loads(&self) -> Result<Vec<Load>, String> {
        if let Some((_, list)) = PRESETS.iter().find(|p| p.0 == self.loads) {
            return list.split(',').map(|l| self.load(l)).collect();
        }
        match std::fs::read_to_string(&self.loads) {
            Ok(text) => {
                let lines = text.lines().map(|l| l.split('#').next().unwrap_or("").trim());
                lines.filter(|l| !l.is_empty()).map(|l| self.load(l)).collect()
            }
            Err(_) => self.loads.split(',').map(|l| self.load(l.trim())).collect(),
        }
    }

    fn one(&self, load: &Load, c: &Contender, port: u16) -> Result<Report, String> {
        let clip = load.media.clip()?;
        let url = format!("rtsp://127.0.0.1:{port}");
        let floor = matches!(c.kind, Kind::Floor(_));
        if floor && load.media.publish_transport == Transport::Udp {
            return Err("the bare loop takes publishers over TCP only".into());
        }
        let server = match &c.kind {
            Kind::Floor(mode) => floor_server(port, *mode, self.server_cpu)?,
            Kind::Command(line) => {
                let line = line
                    .replace("{port}", &port.to_string())
                    .replace("{rtp}", &(port + 8).to_string())
                    .replace("{rtcp}", &(port + 9).to_string());
                let mut s = Server::spawn(&line, Some(self.server_cpu))?;
                s.wait_rtsp(probe::address(&url)?)?;
                s
            }
        };
        load::run(load, load.media.options(load.streams, &url, "load", floor)?, clip, &server, c.name.clone())
    }

    pub fn run(self) -> Result<(), String> {
        let (loads, targets) = (self.loads()?, contenders(&self.targets)?);
        // clips are encoded before anything is measured
        for l in &loads {
            l.media.clip()?;
        }
        load::pin(Some(self.pin))?;
        load::nice(self.nice)?;
        let mut random = Random(self.seed);
        let mut run = 0u16;
        let mut all = format!("{} rounds of {} s, {}\n", self.rounds, self.seconds, machine_line());
        for load in &loads {
            let mut results: Vec<Vec<(u32, Report)>> = targets.iter().map(|_| Vec::new()).collect();
            let mut failures: Vec<String> = Vec::new();
            for round in 0..self.rounds {
                let mut order: Vec<usize> = (0..targets.len()).collect();
                for i in (1..order.len()).rev() {
                    order.swap(i, random.below(i as u64 + 1) as usize);
                }
                for i in order {
                    let t = &targets[i];
                    let port = (self.base_port & !1) + run % 64 * 16;
                    run += 1;
                    let mut line = vec![
                        ("load".to_owned(), Json::from(load.name())),
                        ("target".into(), t.name.as_str().into()),
                        ("round".into(), round.into()),
                        ("target_command".into(), format!("{:?}", t.kind).into()),
                    ];
                    match self.one(load, t, port) {
                        Ok(r) => {
                            eprintln!("{}", progress(load, &t.name, round, &r));
                            if let Json::Map(m) = r.json() {
                                line.extend(m);
                            }
                            results[i].push((round, r));
                        }
                        Err(e) => {
                            eprintln!("{}, round {round}, {}: {e}", load.name(), t.name);
                            line.push(("error".into(), e.as_str().into()));
                            failures.push(format!("{}, round {round}: {e}", t.name));
                        }
                    }
                    if let Some(out) = &self.out {
                        append(out, &Json::Map(line))?;
                    }
                }
            }
            all += &markdown(load, &targets, &results, &failures);
        }
        println!("{all}");
        Ok(())
    }
}

fn progress(load: &Load, name: &str, round: u32, r: &Report) -> String {
    let flags = r.flags();
    format!(
        "{}, round {round}, {name}: {}, {:.1}% of a core{}{}",
        load.name(),
        r.cpu_per_gb().map_or("no readers".into(), |v| format!("{v:.3} CPU-s/GB")),
        r.core_share() * 100.0,
        if flags.is_empty() { "" } else { "; " },
        flags.join("; ")
    )
}

/// Median and range.
pub fn spread(mut v: Vec<f64>) -> Option<(f64, f64, f64)> {
    v.sort_by(f64::total_cmp);
    let (&low, &high) = (v.first()?, v.last()?);
    let mid = v.len() / 2;
    Some((if v.len() % 2 == 1 { v[mid] } else { (v[mid - 1] + v[mid]) / 2.0 }, low, high))
}

pub fn cell(v: Vec<f64>, digits: usize) -> String {
    spread(v).map_or("-".into(), |(m, l, h)| format!("{m:.digits$} [{l:.digits$}..{h:.digits$}]"))
}

/// The measure compared: CPU per GB out, or per stream where nobody reads.
fn cost(r: &Report) -> f64 {
    r.cpu_per_gb().unwrap_or_else(|| r.cpu_ms_per_stream())
}

fn markdown(
    load: &Load,
    targets: &[Contender],
    results: &[Vec<(u32, Report)>],
    failures: &[String],
) -> String {
    let unit = if load.readers > 0 { "CPU-s/GB" } else { "CPU ms per s and stream" };
    let mut t = format!(
        "\n### {}\n\n| target | {unit} | ratio to floor, paired | core % | p50 ms | p99 ms | p99.9 ms | delivered % | \
         KiB per reader | flagged runs |\n|---|---|---|---|---|---|---|---|---|---|\n",
        load.name()
    );
    let floor = targets.iter().position(|c| c.kind == Kind::Floor(Mode::Frame));
    for (c, runs) in targets.iter().zip(results) {
        let col = |f: &dyn Fn(&Report) -> f64| -> Vec<f64> { runs.iter().map(|(_, r)| f(r)).collect() };
        let at = |q: f64| -> Vec<f64> {
            let heard = runs.iter().filter(|(_, r)| !r.latency.is_empty());
            heard.map(|(_, r)| r.latency.value_at_quantile(q) as f64 / 1e3).collect()
        };
        let ratio: Vec<f64> = runs
            .iter()
            .filter_map(|(round, r)| {
                let f = results[floor?].iter().find(|(k, _)| k == round)?;
                Some(cost(r) / cost(&f.1))
            })
            .collect();
        let _ = writeln!(
            t,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} of {} |",
            c.name,
            cell(col(&cost), 3),
            cell(ratio, 2),
            cell(col(&|r| r.core_share() * 100.0), 1),
            cell(at(0.5), 2),
            cell(at(0.99), 2),
            cell(at(0.999), 2),
            cell(runs.iter().filter_map(|(_, r)| r.delivery()).map(|d| d * 100.0).collect(), 1),
            cell(col(&Report::per_reader_kb), 1),
            runs.iter().filter(|(_, r)| !r.flags().is_empty()).count(),
            runs.len()
        );
    }
    for f in failures {
        let _ = writeln!(t, "\nfailed: {f}");
    }
    t
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_cut_at_the_right_commas() {
        let c = contenders(&["floor,floor-packet,a=X=1 b -o c,d {port},m2=z".to_owned()]).unwrap();
        let names: Vec<&str> = c.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["floor", "floor-packet", "a", "m2"]);
        assert_eq!(c[2].kind, Kind::Command("X=1 b -o c,d {port}".into()));
        assert!(contenders(&["nonsense".to_owned()]).is_err());
        assert!(contenders(&["floor,floor".to_owned()]).is_err());
    }

    #[test]
    fn medians() {
        assert_eq!(spread(vec![3.0, 1.0, 2.0]), Some((2.0, 1.0, 3.0)));
        assert_eq!(spread(vec![4.0, 1.0, 2.0, 3.0]), Some((2.5, 1.0, 4.0)));
        assert_eq!(spread(vec![]), None);
        assert_eq!(cell(vec![1.0], 2), "1.00 [1.00..1.00]");
    }
}
