//! `pulls first` and `pulls cycles`: paths on demand, whose camera is pulled for the first viewer and left after the last.

use hdrhistogram::Histogram;

use super::Sheet;
use super::rig::{Bench, Rig, entry};
use crate::check::histogram;
use crate::engine::serve::Manner;
use crate::engine::{Id, conn::State};
use crate::load::{SECOND, pass};
use crate::report::{quantile_line, quantiles};
use crate::rtsp::Role;
use crate::sessions::Holdings;
use crate::sys::mono_ns;

#[derive(clap::Args)]
pub struct First {
    #[command(flatten)]
    bench: Bench,
    /// Paths, each with one viewer, one after the other
    #[arg(long, default_value_t = 50)]
    paths: u32,
}

#[derive(clap::Args)]
pub struct Cycles {
    #[command(flatten)]
    bench: Bench,
    /// Starts and stops
    #[arg(long, default_value_t = 10_000)]
    cycles: u32,
    /// Paths on which they happen at once
    #[arg(long, default_value_t = 8)]
    parallel: u32,
    /// Time for the server to tidy up before it is looked at, seconds
    #[arg(long, default_value_t = 5.0)]
    settle: f64,
}

fn us(from: u64, to: u64) -> u64 {
    (to.saturating_sub(from) / 1000).max(1)
}

/// Paths that nobody pulls until somebody looks.
fn on_demand(bench: &Bench, paths: u32, close_after: &str) -> Result<Rig, String> {
    let more = format!("    sourceOnDemand: yes\n    sourceOnDemandCloseAfter: {close_after}\n");
    let mut rig = bench.rig(paths, &[(1, 0, Manner::Serve)], "", |doors, _| {
        let mut text = String::new();
        (0..paths).for_each(|n| entry(&mut text, &format!("cam{n}"), &doors[0], n, &more));
        text
    })?;
    rig.wait()?;
    Ok(rig)
}

impl First {
    pub fn run(self) -> Result<(), String> {
        let mut rig = on_demand(&self.bench, self.paths, "10s")?;
        let e = &mut rig.engine;
        let [mut handshake, mut playing, mut key, mut picture]: [Histogram<u64>; 4] =
            std::array::from_fn(|_| histogram());
        let mut missed = 0;
        for n in 0..self.paths {
            let id = e.open(Role::Read, n);
            e.run(mono_ns() + 20 * SECOND, |e| e.conn(id).is_none_or(|c| c.check.key_ns > 0));
            let camera = e.served(n).map(|c| (c.open_ns, c.ready_ns));
            let Some((c, (came, played))) = e.conn(id).filter(|c| c.check.key_ns > 0).zip(camera) else {
                missed += 1;
                continue;
            };
            handshake.saturating_record(us(came, played));
            playing.saturating_record(us(c.open_ns, c.ready_ns));
            key.saturating_record(us(c.check.key_sent_ns, c.check.key_ns));
            picture.saturating_record(us(c.open_ns, c.check.key_ns));
        }
        let mut r = Sheet::new("first", &self.bench.output.label);
        r.row("viewers", format!("{} of {} got a picture", self.paths - missed, self.paths));
        r.row("camera, connect to PLAY", quantile_line(&handshake));
        r.row("viewer, connect to playing", quantile_line(&playing));
        r.row("viewer, connect to picture", quantile_line(&picture));
        r.row("keyframe sent to received", quantile_line(&key));
        r.verdict(
            "the first picture is there 100 ms after the camera's first keyframe",
            missed == 0 && key.max() <= 100_000,
        );
        r.set("paths", self.paths);
        r.set("missed", missed);
        for (name, h) in
            [("camera_us", &handshake), ("playing_us", &playing), ("picture_us", &picture), ("key_us", &key)]
        {
            r.set(name, quantiles(h));
        }
        rig.finish(r, &self.bench.output)
    }
}

/// What happens on a path.
enum Turn {
    Idle,
    Viewed(Id),
    /// The viewer is asked to leave, or is gone; the camera is still pulled.
    Left(u64),
}

struct Cycling {
    done: u32,
    failed: u32,
    started: u32,
    picture: Histogram<u64>,
    stop: Histogram<u64>,
}

impl Cycles {
    pub fn run(self) -> Result<(), String> {
        let paths = self.parallel.max(1);
        let mut rig = on_demand(&self.bench, paths, "1ms")?;
        self.cycle(&mut rig, paths, (self.cycles / 20).max(paths));
        pass(&mut rig.engine, self.settle);
        let before = Holdings::of(&rig.server);
        let (t0, c0) = (mono_ns(), rig.server.cpu()?.process);
        let c = self.cycle(&mut rig, paths, self.cycles);
        let wall = (mono_ns() - t0) as f64 / 1e9;
        let cpu = (rig.server.cpu()?.process - c0) as f64 / 1e6 / f64::from(self.cycles.max(1));
        pass(&mut rig.engine, self.settle);
        let after = Holdings::of(&rig.server);
        let mut r = Sheet::new("cycles", &self.bench.output.label);
        r.row(
            "cycles",
            format!("{} done, {} failed, {:.0} per second", c.done, c.failed, f64::from(c.done) / wall),
        );
        r.row("connect to first frame", quantile_line(&c.picture));
        r.row("last viewer to no session", quantile_line(&c.stop));
        r.row("server CPU per cycle", format!("{cpu:.3} ms"));
        r.row("before", before.line());
        r.row("after", after.line());
        r.verdict("every cycle is whole", c.failed == 0 && c.done == self.cycles);
        r.verdict(
            "descriptors and threads are as before",
            after.fds <= before.fds && after.threads <= before.threads,
        );
        let grown = after.memory.rss_kb.saturating_sub(before.memory.rss_kb);
        r.verdict("memory grew by less than 2 MiB", grown < 2048);
        r.verdict("no camera is pulled any more", rig.engine.live_served == 0);
        r.set("done", c.done);
        r.set("failed", c.failed);
        r.set("per_second", f64::from(c.done) / wall);
        r.set("cpu_ms_per_cycle", cpu);
        r.set("picture_us", quantiles(&c.picture));
        r.set("stop_us", quantiles(&c.stop));
        r.set("before", before.json());
        r.set("after", after.json());
        rig.finish(r, &self.bench.output)
    }

    fn cycle(&self, rig: &mut Rig, paths: u32, count: u32) -> Cycling {
        let e = &mut rig.engine;
        let mut turns: Vec<Turn> = (0..paths).map(|_| Turn::Idle).collect();
        let mut c = Cycling { done: 0, failed: 0, started: 0, picture: histogram(), stop: histogram() };
        let give_up = mono_ns() + u64::from(count) * SECOND / 10 + 60 * SECOND;
        while c.done + c.failed < count && mono_ns() < give_up {
            for (n, turn) in (0..paths).zip(&mut turns) {
                let now = mono_ns();
                match turn {
                    Turn::Idle if c.started < count => {
                        c.started += 1;
                        *turn = Turn::Viewed(e.open(Role::Read, n));
                    }
                    Turn::Idle => {}
                    Turn::Viewed(id) => match e.conn(*id).map(|c| (c.state, c.check.c.frames, c.open_ns)) {
                        Some((State::Live, 1.., open)) => {
                            c.picture.saturating_record(us(open, now));
                            let id = *id;
                            e.leave(id);
                            *turn = Turn::Left(now);
                        }
                        Some((.., open)) if now - open < 10 * SECOND => {}
                        _ => {
                            c.failed += 1;
                            *turn = Turn::Idle;
                        }
                    },
                    Turn::Left(at) if e.served(n).is_none() => {
                        c.stop.saturating_record(us(*at, now));
                        c.done += 1;
                        *turn = Turn::Idle;
                    }
                    Turn::Left(_) => {}
                }
            }
            e.turn(2_000_000);
        }
        c
    }
}
