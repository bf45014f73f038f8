//! A server that pulls from us: its configuration, its ports, its CPU with that of its children, its log.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::Command;

use super::Sheet;
use crate::Output;
use crate::engine::serve::{Door, Manner};
use crate::engine::{Engine, Options};
use crate::http::{Client, Location};
use crate::load::{self, Media};
use crate::probe::{Server, machine, machine_line};
use crate::sys;

/// What every measurement of pulls takes.
#[derive(clap::Args)]
pub struct Bench {
    /// The program of the server under test
    #[arg(long, default_value = "target/release/corecast")]
    server: PathBuf,
    /// Pin it to this CPU, and the processes that it starts
    #[arg(long)]
    server_cpu: Option<usize>,
    #[command(flatten)]
    pub media: Media,
    #[command(flatten)]
    pub output: Output,
}

/// A server and its cameras.
pub struct Rig {
    pub server: Server,
    pub engine: Engine,
    metrics: Client,
}

/// Ports of loopback that were free a moment ago.
fn free_ports<const N: usize>() -> Result<[u16; N], String> {
    let held: Vec<TcpListener> = (0..N)
        .map(|_| TcpListener::bind(("127.0.0.1", 0)))
        .collect::<Result<_, _>>()
        .map_err(|e| e.to_string())?;
    let ports: Vec<u16> = held.iter().filter_map(|l| Some(l.local_addr().ok()?.port())).collect();
    ports.try_into().map_err(|_| "no ports".to_owned())
}

impl Bench {
    /// Cameras behind these doors (host number on loopback, connections let in a second, manner), and a server whose
    /// paths `entries` writes, given the doors and its own RTSP port. `streams` is how many cameras there are.
    pub fn rig(
        &self,
        streams: u32,
        doors: &[(u8, u32, Manner)],
        globals: &str,
        entries: impl FnOnce(&[Door], u16) -> String,
    ) -> Result<Rig, String> {
        load::pin(self.output.pin)?;
        load::nice(self.output.nice)?;
        let clip = self.media.clip()?;
        let [rtsp, api, metrics] = free_ports()?;
        let options: Options =
            self.media.options(streams, &format!("rtsp://127.0.0.1:{rtsp}"), "cam", false)?;
        let mut engine = Engine::new(options, clip).map_err(|e| format!("loader: {e}"))?;
        for &(host, per_second, manner) in doors {
            let ip = Ipv4Addr::new(127, 0, 88, host);
            let door = Door::open(ip, per_second, manner).map_err(|e| format!("{ip}: {e}"))?;
            engine.doors.push(door);
        }
        let paths = entries(&engine.doors, rtsp);
        let config = format!(
            "logLevel: info\nrtspTransports: [tcp]\nrtspAddress: 127.0.0.1:{rtsp}\napi: yes\napiAddress: 127.0.0.1:{api}\n\
             metrics: yes\nmetricsAddress: 127.0.0.1:{metrics}\nrtmp: no\nhls: no\nwebrtc: no\nsrt: no\nmoq: no\n\
             {globals}paths:\n{paths}"
        );
        let file = std::env::temp_dir().join(format!("perf-pulls-{}.yml", std::process::id()));
        fs::write(&file, config).map_err(|e| format!("{}: {e}", file.display()))?;
        let mut command = Command::new(&self.server);
        command.arg(&file);
        let server = Server::start(command, self.server_cpu)?;
        let metrics = Location::of(&format!("http://127.0.0.1:{metrics}"))?;
        Ok(Rig { server, engine, metrics: Client::new(metrics) })
    }
}

impl Rig {
    /// Waits until the server answers; cameras that it pulls from the start are let in meanwhile.
    pub fn wait(&mut self) -> Result<(), String> {
        let addr = self.engine.o.addr;
        let until = sys::mono_ns() + 15 * load::SECOND;
        let mut up = false;
        self.engine.run(until, |_| {
            up = std::net::TcpStream::connect(addr).is_ok();
            up
        });
        if up { self.server.wait_rtsp(addr) } else { Err("the server does not listen".into()) }
    }

    /// CPU of the server and of all processes that it has started and not reaped, ns.
    pub fn tree_cpu_ns(&self) -> Result<u64, String> {
        let own = self.server.cpu()?.process;
        Ok(own + self.children().iter().filter_map(|&pid| sys::process_cpu_ns(pid).ok()).sum::<u64>())
    }

    pub fn children(&self) -> Vec<i32> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.server.pid)).into_iter().flatten().flatten();
        let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        lists
            .flat_map(|l| l.split_whitespace().filter_map(|w| w.parse().ok()).collect::<Vec<i32>>())
            .collect()
    }

    /// The sum of a metric over its labels.
    pub fn metric(&mut self, name: &str) -> Result<f64, String> {
        let (status, body) = self.metrics.get("/metrics")?;
        if status != 200 {
            return Err(format!("the metrics answer {status}"));
        }
        let text = String::from_utf8_lossy(body);
        let of = |line: &str| {
            let rest = line.strip_prefix(name)?;
            rest.starts_with(['{', ' ']).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
        };
        Ok(text.lines().filter_map(of).sum())
    }

    /// Lines that the server has logged.
    pub fn log_lines(&self) -> usize {
        fs::read_to_string(&self.server.log).map_or(0, |text| text.lines().count())
    }

    /// Takes everything down, readers first, and writes the result.
    pub fn finish(mut self, mut r: Sheet, output: &Output) -> Result<(), String> {
        for (what, n) in &self.engine.errors {
            r.row("error", format!("{n} x {what}"));
        }
        let errors = self.engine.errors.iter().map(|(k, v)| (k.clone(), (*v).into())).collect();
        r.json.push(("errors".into(), crate::json::Json::Map(errors)));
        r.row("machine", machine_line());
        r.set("machine", machine());
        r.set("command", std::env::args().collect::<Vec<_>>().join(" "));
        self.engine.leave_all();
        self.engine.close_doors();
        output.write(&r.table, &crate::json::Json::Map(r.json))
    }
}

/// A path that pulls stream `n` from a door.
pub fn entry(text: &mut String, name: &str, door: &Door, n: u32, more: &str) {
    let _ = write!(text, "  {name}:\n    source: rtsp://{}/{n}\n    rtspTransport: tcp\n{more}", door.addr);
}
