//! `perf pulls`: the loader is the cameras, and the server under test pulls them. Good cameras and dead ones, many at
//! once, over and over, natively and through a process each.

mod cost;
mod dead;
mod demand;
mod rig;
mod start;

use std::fmt::Write as _;

use clap::Subcommand;

use crate::json::Json;

#[derive(clap::Args)]
pub struct Pulls {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Many pulls at once, of hosts that let in few a second
    Start(start::Start),
    /// Dead cameras beside healthy ones: what they cost, and whether they do harm
    Dead(dead::Dead),
    /// The server's own pulls against a process of ffmpeg for each
    Cost(cost::Cost),
    /// How long the first viewer of a path on demand waits
    First(demand::First),
    /// Paths on demand that begin and end, over and over
    Cycles(demand::Cycles),
}

impl Pulls {
    pub fn run(self) -> Result<(), String> {
        match self.what {
            What::Start(c) => c.run(),
            What::Dead(c) => c.run(),
            What::Cost(c) => c.run(),
            What::First(c) => c.run(),
            What::Cycles(c) => c.run(),
        }
    }
}

/// A result as a table and as JSON.
struct Sheet {
    table: String,
    json: Vec<(String, Json)>,
}

impl Sheet {
    fn new(kind: &str, label: &str) -> Self {
        let json = vec![("kind".into(), format!("pulls {kind}").into()), ("label".into(), label.into())];
        Self { table: format!("pulls {kind} {label}\n"), json }
    }

    fn row(&mut self, name: &str, value: impl AsRef<str>) {
        let _ = writeln!(self.table, "  {name:<28} {}", value.as_ref());
    }

    fn set(&mut self, name: &str, value: impl Into<Json>) {
        self.json.push((name.into(), value.into()));
    }

    /// What must be, and whether it is.
    fn verdict(&mut self, what: &str, holds: bool) {
        self.row(if holds { "holds" } else { "DOES NOT HOLD" }, what);
        let name = format!("holds: {what}");
        self.json.push((name, holds.into()));
    }
}
