//! `pulls dead`: healthy cameras with a reader each, without and with dead ones beside them.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

use super::Sheet;
use super::rig::{Bench, Rig, entry};
use super::start::share;
use crate::check::Counters;
use crate::engine::serve::Manner;
use crate::load::{SECOND, pass};
use crate::rtsp::Role;
use crate::sys::mono_ns;

#[derive(clap::Args)]
pub struct Dead {
    #[command(flatten)]
    bench: Bench,
    /// Cameras that work, with a reader each
    #[arg(long, default_value_t = 100)]
    healthy: u32,
    /// Cameras of each of five kinds that do not
    #[arg(long, default_value_t = 20)]
    of_each: u32,
    /// Measured time, seconds
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
}

/// The first host number of each kind of dead camera; each is a host of its own.
const REFUSE: u8 = 10;
const BLACK_HOLE: u8 = 60;
const MUTE: u8 = 110;
const DENY: u8 = 160;
const GARBAGE: u8 = 205;
const OF_EACH_MAX: u32 = 45;

struct Outcome {
    share: f64,
    got: Counters,
    lines_before: usize,
    lines: usize,
    failures: f64,
    dead_came: u64,
    live: usize,
}

impl Dead {
    pub fn run(self) -> Result<(), String> {
        if self.of_each > OF_EACH_MAX {
            return Err(format!("at most {OF_EACH_MAX} of each kind"));
        }
        let (alone, rig) = self.measure(0)?;
        drop(rig);
        let (beside, rig) = self.measure(self.of_each)?;
        let dead = 5 * self.of_each;
        let mut r = Sheet::new("dead", &self.bench.output.label);
        r.row("cameras", format!("{} healthy with a reader each; {dead} dead: {} each refuse, black-hole, accept and hang, answer 401, send garbage", self.healthy, self.of_each));
        for (name, o) in [("without the dead", &alone), ("with the dead", &beside)] {
            let g = &o.got;
            r.row(name, format!("{:.2}% of a core, {} packets, {} lost, {} frames broken, {} lost, {} pulls live, {} failures", o.share * 100.0, g.packets, g.lost, g.broken_frames, g.lost_frames, o.live, o.failures));
        }
        let cost = beside.share - alone.share;
        let lines = beside.lines - beside.lines_before;
        let per_minute = lines as f64 / f64::from(dead.max(1)) / (self.seconds / 60.0);
        r.row("CPU of the dead", format!("{:.3}% of a core", cost * 100.0));
        r.row(
            "log",
            format!("{lines} lines in {} s, {per_minute:.2} a minute and dead camera", self.seconds),
        );
        r.row("connects to 401, garbage", format!("{} from the start on", beside.dead_came));
        r.verdict(
            "the healthy lose no packet",
            beside.got.lost + beside.got.broken_frames + beside.got.lost_frames == 0
                && beside.live == self.healthy as usize,
        );
        r.verdict("the dead cost less than 1% of a core", cost < 0.01);
        r.verdict("at most four lines a minute about one", per_minute <= 4.0);
        r.set("healthy", self.healthy);
        r.set("dead", dead);
        r.set("cpu_share_without", alone.share);
        r.set("cpu_share_with", beside.share);
        r.set("packets", beside.got.packets);
        r.set("lost", beside.got.lost);
        r.set("log_lines", lines);
        r.set("failures", beside.failures);
        rig.finish(r, &self.bench.output)
    }

    fn measure(&self, of_each: u32) -> Result<(Outcome, Rig), String> {
        let mut doors = vec![(1, 0, Manner::Serve)];
        let host = |first: u8, n: u32| first + n as u8;
        doors.extend((0..of_each).map(|n| (host(DENY, n), 0, Manner::Deny)));
        doors.extend((0..of_each).map(|n| (host(GARBAGE, n), 0, Manner::Garbage)));
        let silent = Silent::open(of_each).map_err(|e| format!("dead cameras: {e}"))?;
        let mut rig = self.bench.rig(self.healthy, &doors, "", |doors, _| {
            let mut text = String::new();
            (0..self.healthy).for_each(|n| entry(&mut text, &format!("cam{n}"), &doors[0], n, ""));
            for (n, door) in doors[1..].iter().enumerate() {
                entry(&mut text, &format!("odd{n}"), door, 0, "");
            }
            for (n, at) in silent.addresses.iter().enumerate() {
                let _ = write!(text, "  silent{n}:\n    source: rtsp://u:p@{at}/0\n    rtspTransport: tcp\n");
            }
            text
        })?;
        rig.wait()?;
        let healthy = self.healthy as usize;
        rig.engine.run(mono_ns() + 60 * SECOND, |e| e.live_served >= healthy);
        (0..self.healthy).for_each(|n| rig.engine.enqueue(Role::Read, n));
        rig.engine.run(mono_ns() + 60 * SECOND, |e| e.settled());
        if rig.engine.live_readers < healthy {
            return Err(format!("{} of {healthy} readers: {:?}", rig.engine.live_readers, rig.engine.errors));
        }
        // The first attempts are over, and the pauses between them have grown.
        pass(&mut rig.engine, 15.0);
        rig.engine.mark();
        let lines_before = rig.log_lines();
        let share = share(&mut rig, self.seconds)?;
        let outcome = Outcome {
            share,
            got: rig.engine.counters(),
            lines_before,
            lines: rig.log_lines(),
            failures: rig.metric("corecast_pull_failures_total")?,
            dead_came: rig.engine.doors[1..].iter().map(|door| door.came).sum(),
            live: rig.engine.live_served,
        };
        Ok((outcome, rig))
    }
}

/// Hosts that need no attention to be dead.
struct Silent {
    addresses: Vec<SocketAddr>,
    _sockets: Vec<Socket>,
}

impl Silent {
    fn open(of_each: u32) -> std::io::Result<Self> {
        let (mut addresses, mut sockets) = (Vec::new(), Vec::new());
        for first in [REFUSE, BLACK_HOLE, MUTE] {
            for n in 0..of_each {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
                let ip = Ipv4Addr::new(127, 0, 88, first + n as u8);
                socket.bind(&SocketAddr::from((ip, 0)).into())?;
                let at = socket.local_addr()?.as_socket().ok_or(std::io::ErrorKind::AddrNotAvailable)?;
                match first {
                    REFUSE => {}
                    // the kernel drops what comes beyond the queue
                    BLACK_HOLE => {
                        socket.listen(0)?;
                        for _ in 0..4 {
                            let filler = Socket::new(Domain::IPV4, Type::STREAM, None)?;
                            filler.set_nonblocking(true)?;
                            let _ = filler.connect(&at.into());
                            sockets.push(filler);
                        }
                    }
                    // the kernel accepts, and nobody ever reads
                    _ => socket.listen(4096)?,
                }
                addresses.push(at);
                sockets.push(socket);
            }
        }
        Ok(Self { addresses, _sockets: sockets })
    }
}
