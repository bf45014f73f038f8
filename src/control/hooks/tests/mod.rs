//! Hooks with real processes, made of `/bin/sh`.

mod commands;
mod events;
mod processes;

use std::{
    fmt::{self, Write as _},
    fs,
    path::{Path, PathBuf},
    sync::{
        Once,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use tracing::{
    Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::{DefaultGuard, set_default, set_global_default},
};

use super::*;

/// More than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something holds, and fails with `what` when it never does.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Everything but the patience between SIGINT and SIGKILL as short as it can be.
fn quick() -> Limits {
    Limits {
        commands_max: 64,
        kill_after: Duration::from_millis(300),
        restart_after: Duration::from_millis(20),
        restart_after_max: Duration::from_millis(80),
    }
}

/// A directory that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("corecast-hooks-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A script, and the file it may write to as `$OUT`.
    fn script(&self, name: &str, body: &str) -> String {
        let path = self.0.join(name);
        let out = self.0.join("out");
        fs::write(&path, format!("OUT='{}'\n{body}\n", out.display())).unwrap();
        format!("/bin/sh '{}'", path.display())
    }

    fn out(&self) -> String {
        fs::read_to_string(self.0.join("out")).unwrap_or_default()
    }

    /// The number on the first whole line that is written.
    async fn pid(&self) -> u32 {
        eventually("a pid is written", || self.out().contains('\n')).await;
        self.out().lines().next().unwrap().trim().parse().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// State and parent of a process.
fn state_of(process: &Path) -> Option<(char, u32)> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn lives(pid: u32) -> bool {
    state_of(&Path::new("/proc").join(pid.to_string())).is_some_and(|(state, _)| state != 'Z')
}

/// Zombies that are ours to reap.
fn zombies() -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let states = processes.filter_map(|process| state_of(&process.path()));
    states.filter(|(state, parent)| *state == 'Z' && *parent == std::process::id()).count()
}

fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Collects what this thread logs, as `LEVEL text`.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn collect() -> (Self, DefaultGuard) {
        // tracing remembers of each line of code whether anybody listens. With a listener for the whole process it never
        // remembers that nobody does, whichever thread comes to it first.
        static LISTENER: Once = Once::new();
        LISTENER.call_once(|| drop(set_global_default(Self::default())));
        let lines = Self::default();
        let guard = set_default(lines.clone());
        (lines, guard)
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn has(&self, text: &str) -> bool {
        self.all().iter().any(|line| line.contains(text))
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().starts_with("corecast::control::hooks")
    }

    fn event(&self, event: &tracing::Event<'_>) {
        struct Text(String);
        impl Visit for Text {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                if field.name() == "message" {
                    write!(self.0, "{value:?}").unwrap();
                }
            }
        }
        let mut text = Text(format!("{} ", event.metadata().level()));
        event.record(&mut text);
        self.0.lock().unwrap().push(text.0);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}
