//! `perf load`: N streams, M readers each, one server, one window.

use std::num::NonZeroU8;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use crate::clip::Clip;
use crate::engine::{Engine, Options, Phase, Transport};
use crate::make_clip;
use crate::probe::{self, Server};
use crate::report::{Report, Snapshot};
use crate::rtsp::Role;
use crate::sys::{self, mono_ns};

pub const SECOND: u64 = 1_000_000_000;

/// What is published, and how it goes.
#[derive(Clone, Debug, clap::Args)]
pub struct Media {
    /// Bit rate of a stream, Mbit/s of RTP packets (RTP headers included)
    #[arg(long, default_value_t = 4.0)]
    pub mbps: f64,
    #[arg(long, default_value_t = 25.0)]
    pub fps: f64,
    /// Distance of keyframes, such as 2s or 500ms [default: 2s; join: 10s]
    #[arg(long, value_parser = duration)]
    pub gop: Option<Duration>,
    /// How readers receive
    #[arg(long, value_enum, default_value = "tcp")]
    pub transport: Transport,
    /// How publishers send
    #[arg(long, value_enum, default_value = "tcp")]
    pub publish_transport: Transport,
    #[arg(long, value_enum, default_value = "spread")]
    pub phase: Phase,
    /// H.264 Annex B file to publish; else one is made by ffmpeg (or made up)
    #[arg(long)]
    pub file: Option<PathBuf>,
    /// Exchanges that open a connection to the floor server; RTSP has four
    #[arg(long, default_value = "4")]
    pub hellos: NonZeroU8,
}

/// N streams, M readers each.
#[derive(Clone, Debug, clap::Args)]
pub struct Load {
    /// Streams published
    #[arg(long, default_value_t = 20)]
    pub streams: u32,
    /// Readers of each stream
    #[arg(long, default_value_t = 10)]
    pub readers: u32,
    #[command(flatten)]
    pub media: Media,
    /// Measured time
    #[arg(long, default_value_t = 20.0)]
    pub seconds: f64,
    /// Time after the last reader has joined, before the measured time
    #[arg(long, default_value_t = 5.0)]
    pub warmup: f64,
}

pub fn duration(s: &str) -> Result<Duration, String> {
    let (n, unit) = s.split_at(s.find(|c: char| c.is_alphabetic()).unwrap_or(s.len()));
    let n: f64 = n.parse().map_err(|_| format!("{s}: not a duration"))?;
    let s = match unit {
        "" | "s" => n,
        "ms" => n / 1e3,
        "m" => n * 60.0,
        _ => return Err(format!("{s}: unknown unit {unit}")),
    };
    Duration::try_from_secs_f64(s).map_err(|e| e.to_string())
}

impl Media {
    pub fn gop_s(&self) -> f64 {
        self.gop.map_or(2.0, |g| g.as_secs_f64())
    }

    pub fn clip(&self) -> Result<Clip, String> {
        if !(self.fps > 0.0 && self.mbps > 0.0) {
            return Err("fps and mbps must be above zero".into());
        }
        make_clip::obtain(self.file.as_deref(), self.mbps, self.fps, self.gop_s())
    }

    pub fn options(&self, streams: u32, url: &str, path: &str, floor: bool) -> Result<Options, String> {
        if streams == 0 {
            return Err("at least one stream is needed".into());
        }
        Ok(Options {
            addr: probe::address(url)?,
            url: format!("{}/{path}", url.trim_end_matches('/')),
            publish: self.publish_transport,
            read: self.transport,
            phase: self.phase,
            streams,
            floor_hellos: floor.then_some(self.hellos),
        })
    }
}

impl Load {
    pub fn name(&self) -> String {
        let m = &self.media;
        let t = if m.transport == Transport::Udp { " udp" } else { "" };
        let p = if m.publish_transport == Transport::Udp { " published over udp" } else { "" };
        let k = if m.phase == Phase::Ticked { " ticked" } else { "" };
        format!("{} x {} x {} Mbps{t}{p}{k}", self.streams, self.readers, m.mbps)
    }
}

/// Publishes `n` streams and waits until the server has taken them all.
pub fn publish(e: &mut Engine, n: u32) -> Result<(), String> {
    (0..n).for_each(|s| e.enqueue(Role::Publish, s));
    let until = mono_ns() + 30 * SECOND + u64::from(n) * SECOND / 50;
    e.run(until, |e| e.settled());
    if e.live_publishers < n as usize {
        return Err(format!("{} of {n} publishers: {:?}", e.live_publishers, e.errors));
    }
    Ok(())
}

/// Connects the readers, waits until the server has taken them, and lets the streams run.
pub fn read(e: &mut Engine, load: &Load) -> Result<(), String> {
    for _ in 0..load.readers {
        (0..load.streams).for_each(|s| e.enqueue(Role::Read, s));
    }
    let readers = load.streams as usize * load.readers as usize;
    let until = mono_ns() + 30 * SECOND + readers as u64 * SECOND / 50;
    e.run(until, |e| e.settled());
    // a server that cannot take them all is measured with those it took; the report says so
    e.give_up_opening();
    if e.live_readers == 0 && readers > 0 {
        return Err(format!("none of {readers} readers plays: {:?}", e.errors));
    }
    e.start_all();
    Ok(())
}

/// Turns the loop for that long.
pub fn pass(e: &mut Engine, seconds: f64) {
    e.run(mono_ns() + (seconds * 1e9) as u64, |_| false);
}

/// Runs the load against a server that is up. `floor`: it is the floor server.
pub fn run(load: &Load, o: Options, clip: Clip, server: &Server, label: String) -> Result<Report, String> {
    let floor = o.floor_hellos.is_some();
    let mut e = Engine::new(o, clip).map_err(|e| format!("loader: {e}"))?;
    let load_before = probe::load_average();
    std::thread::sleep(Duration::from_millis(300));
    let idle = server.memory();

    publish(&mut e, load.streams)?;
    // long enough that a server which keeps a GOP holds one
    pass(&mut e, if floor { 0.2 } else { load.media.gop_s().clamp(1.0, 10.0) });
    let published = server.memory();

    read(&mut e, load)?;
    pass(&mut e, load.warmup);

    let before = e.mark();
    let start = Snapshot::take(server)?;
    pass(&mut e, load.seconds);
    let end = Snapshot::take(server)?;
    let delivered = e.counters();
    let memory = server.memory();
    let report = Report {
        label,
        load: load.clone(),
        clip: e.clip.source.clone(),
        gop_frames: e.clip.gop,
        mean_packets: e.clip.mean_packets,
        mean_bytes: e.clip.mean_bytes,
        key_bytes: e.clip.key_bytes,
        server_cpus: server.cpus(),
        wall_ns: end.at - start.at,
        cpu_ns: end.cpu.process - start.cpu.process,
        softirq_ns: end.cpu.softirq - start.cpu.softirq,
        loader_ns: end.loader - start.loader,
        loader_wait_ns: end.loader_wait.saturating_sub(start.loader_wait),
        busy_ns: end.busy.zip(start.busy).map(|(e, s)| e.saturating_sub(s)),
        threads: server.threads(),
        fds: server.fds(),
        sockets: e.sockets(),
        idle,
        published,
        memory,
        live_publishers: e.live_publishers,
        live_readers: e.live_readers,
        key_first: e.readers().filter(|c| c.check.first_is_key == Some(true)).count(),
        delivered,
        warmup: before,
        sent: e.sent,
        latency: e.latency.clone(),
        late: e.late.clone(),
        ready: e.ready_us.clone(),
        errors: e.errors.iter().map(|(k, v)| (k.clone(), *v)).collect(),
        load_average: load_before,
    };
    e.leave_all();
    Ok(report)
}

/// Pins the calling thread, which is the loader's only one.
pub fn pin(cpu: Option<usize>) -> Result<(), String> {
    cpu.map_or(Ok(()), |c| sys::pin(0, c).map_err(|e| format!("--pin {c}: {e}")))
}

const AUTOGROUP: &str = "/proc/self/autogroup";
static AUTOGROUP_BEFORE: OnceLock<String> = OnceLock::new();

/// Raises (or lowers) the priority of the loader and of the servers it starts. Where the kernel groups tasks by session
/// (sched_autogroup), a nice value counts only inside the session, so the session's own is set too, until `un_nice`.
pub fn nice(value: Option<i32>) -> Result<(), String> {
    let Some(n) = value else { return Ok(()) };
    sys::nice(n).map_err(|e| format!("--nice {n}: {e}"))?;
    if let Ok(now) = std::fs::read_to_string(AUTOGROUP)
        && let Some(before) = now.split_whitespace().last()
        && std::fs::write(AUTOGROUP, n.to_string()).is_ok()
    {
        AUTOGROUP_BEFORE.get_or_init(|| before.to_owned());
    }
    Ok(())
}

/// Gives the session its priority back.
pub fn un_nice() {
    if let Some(before) = AUTOGROUP_BEFORE.get() {
        let _ = std::fs::write(AUTOGROUP, before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5"), Ok(Duration::from_millis(1500)));
        assert!(duration("x").is_err() && duration("3h").is_err() && duration("-1s").is_err());
    }
}
