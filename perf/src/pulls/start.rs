//! `pulls start`: all cameras at once, behind hosts that let in few connections a second.

use super::Sheet;
use super::rig::{Bench, Rig, entry};
use crate::engine::serve::Manner;
use crate::load::{SECOND, pass};
use crate::sys::mono_ns;

#[derive(clap::Args)]
pub struct Start {
    #[command(flatten)]
    bench: Bench,
    /// Cameras that are pulled from the server's start on
    #[arg(long, default_value_t = 500)]
    pulls: u32,
    /// Hosts that they are at, evenly
    #[arg(long, default_value_t = 5)]
    hosts: u8,
    /// Connections that a host lets in a second
    #[arg(long, default_value_t = 10)]
    accepts: u32,
    /// How long the measurement at rest takes, seconds
    #[arg(long, default_value_t = 10.0)]
    rest: f64,
}

impl Start {
    pub fn run(self) -> Result<(), String> {
        let hosts = self.hosts.max(1);
        let doors: Vec<_> = (1..=hosts).map(|host| (host, self.accepts, Manner::Serve)).collect();
        let mut rig = self.bench.rig(self.pulls, &doors, "readTimeout: 60s\n", |doors, _| {
            let mut text = String::new();
            for n in 0..self.pulls {
                entry(&mut text, &format!("cam{n}"), &doors[n as usize % doors.len()], n, "");
            }
            text
        })?;
        let t0 = mono_ns();
        let c0 = rig.server.cpu()?.process;
        // what the hosts need for it, and half as much again
        let needed = f64::from(self.pulls) / f64::from(hosts) / f64::from(self.accepts.max(1));
        let until = t0 + ((needed * 1.5 + 20.0) * 1e9) as u64;
        rig.engine.run(until, |e| e.live_served >= self.pulls as usize);
        let took = (mono_ns() - t0) as f64 / 1e9;
        let live = rig.engine.live_served;
        let came: u64 = rig.engine.doors.iter().map(|door| door.came).sum();
        let starting = (rig.server.cpu()?.process - c0) as f64 / 1e6;
        rig.server.wait_rtsp(rig.engine.o.addr)?;
        let failures = rig.metric("corecast_pull_failures_total")?;

        let flowing = share(&mut rig, self.rest)?;
        rig.engine.hushed = true;
        pass(&mut rig.engine, 3.0);
        let rest = share(&mut rig, self.rest)?;
        let still = rig.engine.live_served;

        let mut r = Sheet::new("start", &self.bench.output.label);
        r.row(
            "cameras",
            format!("{} at {hosts} hosts that let in {} a second each", self.pulls, self.accepts),
        );
        r.row(
            "all live",
            format!("{live} of {} after {took:.1} s; the hosts need {needed:.1} s", self.pulls),
        );
        r.row("connections", format!("{came}, {failures} failed pulls"));
        r.row(
            "CPU until then",
            format!("{starting:.0} ms, {:.2} ms a pull", starting / f64::from(self.pulls)),
        );
        r.row(
            "CPU with media",
            format!("{:.2}% of a core ({} Mbit/s each)", flowing * 100.0, self.bench.media.mbps),
        );
        r.row("CPU at rest", format!("{:.3}% of a core ({still} sessions, no media)", rest * 100.0));
        r.row("log", format!("{} lines", rig.log_lines()));
        r.verdict("all are live", live == self.pulls as usize);
        r.verdict("none was timed out by our own crowding", failures == 0.0 && came == u64::from(self.pulls));
        r.verdict("at rest it uses less than 5% of a core", rest < 0.05);
        r.set("pulls", self.pulls);
        r.set("live", live);
        r.set("seconds_to_live", took);
        r.set("seconds_needed", needed);
        r.set("connections", came);
        r.set("failures", failures);
        r.set("cpu_ms_start", starting);
        r.set("cpu_share_media", flowing);
        r.set("cpu_share_rest", rest);
        rig.finish(r, &self.bench.output)
    }
}

/// The server's share of a core over that time.
pub fn share(rig: &mut Rig, seconds: f64) -> Result<f64, String> {
    let (t0, c0) = (mono_ns(), rig.server.cpu()?.process);
    pass(&mut rig.engine, seconds);
    let wall = (mono_ns() - t0).max(SECOND / 1000);
    Ok((rig.server.cpu()?.process - c0) as f64 / wall as f64)
}
