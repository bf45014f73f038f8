//! Flags, configuration, start, wait for a signal, end. Nothing else.

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use clap::{Parser, Subcommand};
use corecast::{
    control::{
        check_hls,
        config::{self, Loaded, store::View},
        plane::ControlPlane,
        shard_tls::ShardTls,
    },
    observe::log,
    shard::{boot, media_io::limits, mesh, tls::trust::TlsClients},
};
use corecast_hub::gauges::ShardGauges;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
    iterator::Signals,
};
use tracing::{error, info, warn};

/// A camera relay: RTSP in, RTSP out, one core per camera.
#[derive(Debug, Parser)]
#[command(name = "corecast", version, about, args_conflicts_with_subcommands = true)]
struct Flags {
    #[command(subcommand)]
    command: Option<Command>,
    /// Configuration file, in MediaMTX's format. Without it, corecast.yml, mediamtx.yml and the usual places under
    /// /etc are looked at.
    config: Option<PathBuf>,
    /// Reads the configuration, says what is wrong with it or could be better, and ends: 0 when it can run, 1 when not.
    #[arg(long)]
    check: bool,
    /// Serves the built-in camera on the path `demo`, beside what the configuration says.
    #[arg(long)]
    demo: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watches a live HLS presentation, of any server, and says what is against rfc8216bis: 0 when nothing that it must
    /// keep is broken, 1 when something is.
    CheckHls {
        /// A multivariant playlist, or a media playlist.
        url: String,
        /// How long, seconds.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
}

/// Exit codes: 1 for a configuration that cannot run, 2 for a machine that refuses what it needs.
const EXIT_CONFIG: u8 = 1;
const EXIT_START: u8 = 2;

fn main() -> ExitCode {
    let flags = Flags::parse();
    if let Some(Command::CheckHls { url, seconds }) = &flags.command {
        return check_hls(url, Duration::from_secs(*seconds));
    }
    let mut env = config::process_env();
    if flags.demo {
        env.push(("MTX_PATHS_DEMO_SOURCE".to_owned(), "demo".to_owned()));
    }
    let loaded = match View::load(flags.config.as_deref(), env, &limits::available_cores()) {
        Ok(loaded) => loaded,
        Err(errors) => {
            eprintln!("ERR: {errors}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    if flags.check {
        print!("{}", loaded.check_report());
        return ExitCode::SUCCESS;
    }
    let log = match log::init(&loaded.view.control.log) {
        Ok(guard) => guard,
        Err(error) => {
            eprintln!("ERR: {error}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    info!("Corecast v{}, {}, {}", env!("CARGO_PKG_VERSION"), std::env::consts::OS, architecture());
    if let Some(file) = &loaded.source {
        info!("configuration loaded from {}", file.display());
    }
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    if let (true, Some(address)) = (flags.demo, loaded.view.settings.rtsp.address) {
        info!("the built-in camera will be at rtsp://127.0.0.1:{}/demo", address.port());
    }
    match run(loaded, log.handle()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!("{failure}");
            ExitCode::from(EXIT_START)
        }
    }
}

fn check_hls(url: &str, time: Duration) -> ExitCode {
    match check_hls::run(url, time) {
        Ok(report) => {
            println!("{report}");
            ExitCode::from(u8::from(report.has_errors()))
        }
        Err(reason) => {
            eprintln!("ERR: {reason}");
            ExitCode::from(EXIT_START)
        }
    }
}

/// The machine, as MediaMTX calls it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn run(loaded: Loaded, log: log::Handle) -> Result<(), Box<dyn std::error::Error>> {
    limits::raise_descriptor_limit();
    // The first signal ends the relay in good order, a second one at once.
    let ending = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, i32::from(EXIT_START), Arc::clone(&ending))?;
    }
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let Loaded { view, source, .. } = loaded;
    let settings = Arc::clone(&view.settings);
    let mut meshes = mesh::mesh(settings.engine.cores.len() + 1)?;
    let control_mesh = meshes.pop().ok_or("no node for the control thread")?;
    let gauges: Vec<_> = meshes.iter().map(|_| Arc::new(ShardGauges::default())).collect();
    let shard_tls = ShardTls::load(&view.control)?;
    let shards =
        boot::start(&settings, meshes, &gauges, &shard_tls.configs(), &Arc::new(TlsClients::load()))?;
    let control = ControlPlane::start(view, source, control_mesh, gauges, log, shard_tls)?;
    for signal in signals.forever() {
        if signal != SIGHUP {
            break;
        }
        control.reload("SIGHUP");
    }
    ending.store(true, Ordering::Relaxed);
    info!("shutting down gracefully");
    control.stop()?;
    shards.join()?;
    Ok(())
}
