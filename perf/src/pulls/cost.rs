//! `pulls cost`: the same cameras and readers, once pulled by the server itself and once through a process of ffmpeg each.

use std::fmt::Write as _;

use super::Sheet;
use super::rig::{Bench, Rig, entry};
use crate::engine::serve::{Door, Manner};
use crate::load::{SECOND, pass};
use crate::rtsp::Role;
use crate::sys::{mono_ns, thread_cpu_ns};

#[derive(clap::Args)]
pub struct Cost {
    #[command(flatten)]
    bench: Bench,
    /// Cameras, with a reader each
    #[arg(long, default_value_t = 100)]
    pulls: u32,
    /// Measured time, seconds
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// How long the readers may take until they have media; ffmpeg looks at a stream for seconds
    #[arg(long, default_value_t = 120.0)]
    patience: f64,
}

struct Outcome {
    cpu_s: f64,
    share: f64,
    gigabytes: f64,
    /// of what the cameras sent, the readers got
    delivered: f64,
    children: usize,
    readers: usize,
    loader: f64,
}

impl Outcome {
    fn per_gb(&self) -> f64 {
        self.cpu_s / self.gigabytes.max(1e-9)
    }

    fn line(&self) -> String {
        format!(
            "{:.1}% of a core, {:.3} CPU-s per GB; {:.2}% delivered to {} readers; {} processes; loader {:.0}% of a core",
            self.share * 100.0,
            self.per_gb(),
            self.delivered * 100.0,
            self.readers,
            self.children,
            self.loader * 100.0
        )
    }
}

impl Cost {
    pub fn run(self) -> Result<(), String> {
        let demand = "    sourceOnDemand: yes\n    sourceOnDemandStartTimeout: 60s\n";
        let (native, rig) = self.measure("", |doors, _| {
            let mut text = String::new();
            (0..self.pulls).for_each(|n| entry(&mut text, &format!("cam{n}"), &doors[0], n, demand));
            text
        })?;
        drop(rig);
        let (piped, rig) = self.measure("engine:\n  nativePull: no\n", |doors, port| {
            let mut text = String::new();
            for n in 0..self.pulls {
                let from = format!("rtsp://{}/{n}", doors[0].addr);
                let _ = write!(
                    text,
                    "  cam{n}:\n    runOnDemand: ffmpeg -nostdin -loglevel error -rtsp_transport tcp -i {from} -c copy -f rtsp \
                     -rtsp_transport tcp rtsp://localhost:{port}/cam{n}\n    runOnDemandStartTimeout: 60s\n"
                );
            }
            text
        })?;
        let ratio = piped.per_gb() / native.per_gb().max(1e-9);
        let mut r = Sheet::new("cost", &self.bench.output.label);
        r.row(
            "cameras",
            format!("{} x {} Mbit/s, a reader each, {} s", self.pulls, self.bench.media.mbps, self.seconds),
        );
        r.row("native pulls", native.line());
        r.row("ffmpeg -c copy and relay", piped.line());
        r.row("ratio of CPU per GB", format!("{ratio:.1}"));
        r.verdict("ffmpeg costs at least ten times as much", ratio >= 10.0);
        r.set("pulls", self.pulls);
        r.set("mbps", self.bench.media.mbps);
        for (name, o) in [("native", &native), ("ffmpeg", &piped)] {
            r.set(&format!("{name}_share"), o.share);
            r.set(&format!("{name}_cpu_s_per_gb"), o.per_gb());
            r.set(&format!("{name}_delivered"), o.delivered);
            r.set(&format!("{name}_processes"), o.children);
        }
        r.set("ratio", ratio);
        rig.finish(r, &self.bench.output)
    }

    fn measure(
        &self,
        globals: &str,
        entries: impl FnOnce(&[Door], u16) -> String,
    ) -> Result<(Outcome, Rig), String> {
        let mut rig = self.bench.rig(self.pulls, &[(1, 0, Manner::Serve)], globals, entries)?;
        rig.wait()?;
        let pulls = self.pulls as usize;
        (0..self.pulls).for_each(|n| rig.engine.enqueue(Role::Read, n));
        let until = mono_ns() + (self.patience * SECOND as f64) as u64;
        rig.engine
            .run(until, |e| e.settled() && e.readers().filter(|c| c.check.first_ns > 0).count() >= pulls);
        rig.engine.give_up_opening();
        if rig.engine.live_readers == 0 {
            return Err(format!("no reader has media: {:?}", rig.engine.errors));
        }
        pass(&mut rig.engine, 3.0);
        rig.engine.mark();
        let (t0, c0, l0) = (mono_ns(), rig.tree_cpu_ns()?, thread_cpu_ns());
        pass(&mut rig.engine, self.seconds);
        let wall = (mono_ns() - t0) as f64 / 1e9;
        let cpu_s = rig.tree_cpu_ns()?.saturating_sub(c0) as f64 / 1e9;
        let got = rig.engine.counters();
        let outcome = Outcome {
            cpu_s,
            share: cpu_s / wall,
            gigabytes: got.bytes as f64 / 1e9,
            delivered: got.bytes as f64 / rig.engine.sent.bytes.max(1) as f64,
            children: rig.children().len(),
            readers: rig.engine.live_readers,
            loader: (thread_cpu_ns() - l0) as f64 / 1e9 / wall,
        };
        Ok((outcome, rig))
    }
}
