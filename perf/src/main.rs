//! Load harness: what a relay costs, beside the bare loop that moves the same bytes. See README.md.

mod api;
mod check;
mod clip;
mod compare;
mod engine;
mod floor;
mod http;
mod json;
mod load;
mod make_clip;
mod probe;
mod pulls;
mod report;
mod rtsp;
mod sessions;
mod stamp;
mod sys;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};

use floor::Mode;
use load::Load;
use probe::Server;

#[derive(Parser)]
#[command(name = "perf", about = "Measures RTSP relays from outside", version)]
struct Cli {
    #[command(subcommand)]
    command: Cmd,
}

#[derive(Subcommand)]
enum Cmd {
    /// Publish and read streams of one server, and measure it
    Load(LoadCmd),
    /// The same load against the bare loop
    Floor(FloorCmd),
    /// Run loads against several targets in turn, and print medians and ratios to the bare loop
    Compare(compare::Compare),
    /// Connect, play and leave again and again, and look at what the server keeps
    Churn(sessions::Churn),
    /// Publishers and readers that all come within seconds
    Storm(sessions::Storm),
    /// How long a reader waits for its first keyframe, and until it is live
    Join(sessions::Join),
    /// Poll the API and the metrics of a server
    Api(api::Api),
    /// Streams with and without somebody who polls the API, in turn: relay latency of both
    ApiAb(api::ApiAb),
    /// Be the cameras that a server pulls, good and dead ones
    Pulls(pulls::Pulls),
    /// The bare loop itself (started by `perf floor`)
    FloorServer {
        #[arg(long)]
        port: u16,
        #[arg(long, value_enum, default_value = "frame")]
        mode: Mode,
        #[arg(long)]
        pin: Option<usize>,
    },
}

/// Which server, and where results go.
#[derive(clap::Args)]
pub struct Target {
    /// Base URL; the stream's path name is appended
    #[arg(long, default_value = "rtsp://127.0.0.1:8554")]
    url: String,
    /// The server's process
    #[arg(long, conflicts_with = "spawn", required_unless_present = "spawn")]
    pid: Option<i32>,
    /// Start the server with this command line (no shell; leading NAME=value go to its environment), stop it after
    #[arg(long)]
    spawn: Option<String>,
    /// Pin the server started by --spawn to this CPU
    #[arg(long, requires = "spawn")]
    server_cpu: Option<usize>,
    /// Path name of the streams, before their number
    #[arg(long, default_value = "load")]
    path: String,
}

/// What every measuring command takes.
#[derive(clap::Args)]
pub struct Output {
    /// Pin the loader to this CPU
    #[arg(long)]
    pin: Option<usize>,
    /// Nice value of the loader and of a server started here; below zero (root) holds off other work on the machine
    #[arg(long, allow_hyphen_values = true)]
    nice: Option<i32>,
    /// Append the result to this file, one JSON object a line
    #[arg(long)]
    json: Option<PathBuf>,
    #[arg(long, default_value = "")]
    label: String,
}

#[derive(clap::Args)]
struct LoadCmd {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Args)]
struct FloorCmd {
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    output: Output,
    #[arg(long, value_enum, default_value = "frame")]
    mode: Mode,
    /// CPU of the floor server
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    #[arg(long, default_value_t = 18990)]
    port: u16,
}

impl Target {
    /// The server, running and answering.
    pub fn server(&self) -> Result<Server, String> {
        let addr = probe::address(&self.url)?;
        let mut s = match (&self.spawn, self.pid) {
            (Some(line), _) => Server::spawn(line, self.server_cpu)?,
            (None, Some(pid)) => Server::attach(pid)?,
            _ => return Err("--pid or --spawn is needed".into()),
        };
        s.wait_rtsp(addr)?;
        Ok(s)
    }
}

impl Output {
    pub fn write(&self, table: &str, json: &json::Json) -> Result<(), String> {
        println!("{table}");
        let Some(path) = &self.json else { return Ok(()) };
        append(path, json)
    }
}

/// Adds a line to a JSON-lines file.
pub fn append(path: &std::path::Path, json: &json::Json) -> Result<(), String> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    }
    let f = std::fs::OpenOptions::new().append(true).create(true).open(path);
    f.and_then(|mut f| writeln!(f, "{json}")).map_err(|e| format!("{}: {e}", path.display()))
}

/// Starts the bare loop and waits until it listens.
pub fn floor_server(port: u16, mode: Mode, cpu: usize) -> Result<Server, String> {
    let exe = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut c = Command::new(exe);
    let mode = if mode == Mode::Packet { "packet" } else { "frame" };
    c.args(["floor-server", "--port", &port.to_string(), "--mode", mode]);
    let mut s = Server::start(c, Some(cpu))?;
    s.wait("does not listen", |_| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;
    Ok(s)
}

fn run(cmd: Cmd) -> Result<(), String> {
    match cmd {
        Cmd::Load(c) => {
            load::pin(c.output.pin)?;
            load::nice(c.output.nice)?;
            let clip = c.load.media.clip()?;
            let server = c.target.server()?;
            let o = c.load.media.options(c.load.streams, &c.target.url, &c.target.path, false)?;
            let r = load::run(&c.load, o, clip, &server, c.output.label.clone())?;
            c.output.write(&r.table(), &r.json())
        }
        Cmd::Floor(c) => {
            load::pin(c.output.pin)?;
            load::nice(c.output.nice)?;
            if c.load.media.publish_transport == engine::Transport::Udp {
                return Err("the bare loop takes publishers over TCP only".into());
            }
            let clip = c.load.media.clip()?;
            let server = floor_server(c.port, c.mode, c.server_cpu)?;
            let o = c.load.media.options(
                c.load.streams,
                &format!("rtsp://127.0.0.1:{}", c.port),
                "load",
                true,
            )?;
            let label = if c.output.label.is_empty() {
                format!("floor, {:?}", c.mode)
            } else {
                c.output.label.clone()
            };
            let r = load::run(&c.load, o, clip, &server, label)?;
            c.output.write(&r.table(), &r.json())
        }
        Cmd::Compare(c) => c.run(),
        Cmd::Churn(c) => c.run(),
        Cmd::Storm(c) => c.run(),
        Cmd::Join(c) => c.run(),
        Cmd::Api(c) => c.run(),
        Cmd::ApiAb(c) => c.run(),
        Cmd::Pulls(c) => c.run(),
        Cmd::FloorServer { port, mode, pin } => {
            load::pin(pin)?;
            floor::serve(port, mode).map_err(|e| e.to_string())
        }
    }
}

fn main() -> ExitCode {
    let result = run(Cli::parse().command);
    load::un_nice();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("perf: {e}");
            ExitCode::FAILURE
        }
    }
}
