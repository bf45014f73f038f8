//! Commands that the operator has run when something happens (`runOnInit`, `runOnRead` and their kind; contract §7.3).
//!
//! Events are taken in where they happen and never wait: what follows from them is decided at once, and everything
//! slow (starting a process, reading what it prints, seeing it end) is done by tasks, of which there is a bounded number.

mod child;
mod command;
mod counters;
mod output;
mod subject;
pub mod supervisor;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::runtime::Handle;

pub(super) use self::command::{can_be_split, expand, split};
pub use self::counters::{Counters, HookCounts};
use self::{
    subject::{Definitions, Key, Subject},
    supervisor::{Instance, Limits, Supervisor},
};
use super::{
    config::store::{Variables, View},
    directory::Event,
};

/// When a command is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HookKind {
    Init,
    Connect,
    Disconnect,
    Demand,
    UnDemand,
    Available,
    Unavailable,
    Online,
    Offline,
    Read,
    Unread,
}

impl HookKind {
    pub const ALL: [Self; 11] = [
        Self::Init,
        Self::Connect,
        Self::Disconnect,
        Self::Demand,
        Self::UnDemand,
        Self::Available,
        Self::Unavailable,
        Self::Online,
        Self::Offline,
        Self::Read,
        Self::Unread,
    ];

    /// Its key in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Init => "runOnInit",
            Self::Connect => "runOnConnect",
            Self::Disconnect => "runOnDisconnect",
            Self::Demand => "runOnDemand",
            Self::UnDemand => "runOnUnDemand",
            Self::Available => "runOnAvailable",
            Self::Unavailable => "runOnUnavailable",
            Self::Online => "runOnOnline",
            Self::Offline => "runOnOffline",
            Self::Read => "runOnRead",
            Self::Unread => "runOnUnread",
        }
    }
}

/// A command with all that it is run with. Shown as what its lines in the log begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    pub kind: HookKind,
    /// Of its lines in the log: `[path cam1]`.
    pub prefix: String,
    pub command: String,
    /// Run again when it ends.
    pub restart: bool,
    /// Added to the environment of this process, and filled in where the command names them.
    pub variables: Variables,
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.prefix, self.kind.as_str())
    }
}

/// See the module.
pub struct Hooks {
    supervisor: Supervisor,
    counters: Arc<Counters>,
    state: Mutex<State>,
}

struct State {
    definitions: Arc<dyn Definitions>,
    lasting: BTreeMap<Key, Lasting>,
    closed: bool,
}

/// Something that is there, with the commands that run while it is and those that are run when it has ended.
struct Lasting {
    subject: Subject,
    pairs: Vec<(Option<Instance>, Option<Arc<Spec>>)>,
}

impl Hooks {
    /// From now on events run the commands that `view` has for them; `runOnInit` begins with the first
    /// [`Self::reconfigure`], which should come when the servers listen.
    pub fn new(view: Arc<View>, runtime: Handle) -> Self {
        Self::with(view, runtime, Limits::default())
    }

    fn with(definitions: Arc<dyn Definitions>, runtime: Handle, limits: Limits) -> Self {
        let counters = Arc::new(Counters::default());
        let supervisor = Supervisor::new(runtime, limits, Arc::clone(&counters));
        let state = State { definitions, lasting: BTreeMap::new(), closed: false };
        Self { supervisor, counters, state: Mutex::new(state) }
    }

    /// Goes by `view` from now on: `runOnInit` starts for paths that are new and stops for those that are gone; a command
    /// that runs and reads otherwise now is replaced; one that is new is first run at the next event.
    pub fn reconfigure(&self, view: Arc<View>) {
        self.redefine(view);
    }

    fn redefine(&self, definitions: Arc<dyn Definitions>) {
        let mut state = self.state();
        if state.closed {
            return;
        }
        state.definitions = Arc::clone(&definitions);
        let static_paths: BTreeSet<_> = definitions.static_paths().into_iter().map(Key::StaticPath).collect();
        let gone = |key: &Key| matches!(key, Key::StaticPath(_)) && !static_paths.contains(key);
        let gone: Vec<_> = state.lasting.keys().filter(|key| gone(key)).cloned().collect();
        for key in gone {
            self.end(&mut state, &key);
        }
        for lasting in state.lasting.values_mut() {
            // The end of what is not configured any more is about to be told.
            let Some(pairs) = lasting.subject.pairs(&*definitions) else { continue };
            for ((running, after), pair) in lasting.pairs.iter_mut().zip(pairs) {
                *after = pair.after;
                if let Some(instance) = running.take_if(|running| pair.during.as_ref() != Some(&running.spec))
                {
                    self.supervisor.stop(instance, "");
                    *running = pair.during.and_then(|spec| self.supervisor.start(spec));
                }
            }
        }
        for key in static_paths {
            // A path that had no command, or none that could be started, is as new as one that was not there.
            let idle = |lasting: &Lasting| lasting.pairs.iter().all(|(running, _)| running.is_none());
            if let Key::StaticPath(path) = &key
                && state.lasting.get(&key).is_none_or(idle)
            {
                self.begin(&mut state, Subject::StaticPath(Arc::clone(path)));
            }
        }
    }

    /// Does what is to be done about it. Never waits.
    pub fn on_event(&self, event: &Event) {
        let mut state = self.state();
        if state.closed {
            return;
        }
        match event {
            Event::ConnOpened(conn) => self.begin(&mut state, Subject::Conn(Arc::clone(conn))),
            Event::ConnClosed { conn, .. } => self.end(&mut state, &Key::Conn(conn.id)),
            Event::Available(stream) => self.begin(&mut state, Subject::Stream(Arc::clone(stream))),
            Event::Unavailable { stream, .. } => {
                self.end(&mut state, &Key::Stream(Arc::clone(&stream.path)));
            }
            Event::ReaderJoined(reader) => self.begin(&mut state, Subject::Reader(reader.clone())),
            Event::ReaderLeft { reader, .. } => self.end(&mut state, &Key::Reader(reader.id())),
            Event::DemandBegan(demand) => self.begin(&mut state, Subject::Demand(Arc::clone(demand))),
            Event::DemandEnded { demand, reason } => {
                self.end_because(&mut state, &Key::Demand(Arc::clone(&demand.path)), reason);
            }
            Event::SourceChanged { .. }
            | Event::HlsMuxerCreated(_)
            | Event::HlsMuxerDestroyed { .. }
            | Event::SlowReader { .. }
            | Event::Refused { .. } => {}
        }
    }

    /// Ends everything as if it had ended by itself, waits for `grace` until the commands are through, and kills those
    /// that are not. Takes a few seconds more than `grace` at most. What happens afterwards runs nothing.
    pub async fn shutdown(&self, grace: Duration) {
        {
            let mut state = self.state();
            state.closed = true;
            let keys: Vec<_> = state.lasting.keys().cloned().collect();
            for key in keys {
                self.end_because(&mut state, &key, if let Key::Demand(_) = key { "terminated" } else { "" });
            }
        }
        self.supervisor.shutdown(grace).await;
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn begin(&self, state: &mut State, subject: Subject) {
        let key = subject.key();
        // Had its end been told, it would not be there.
        self.end(state, &key);
        let pairs = subject.pairs(&*state.definitions).unwrap_or_default();
        let start = |spec| self.supervisor.start(spec);
        let pairs = pairs.into_iter().map(|pair| (pair.during.and_then(start), pair.after)).collect();
        state.lasting.insert(key, Lasting { subject, pairs });
    }

    fn end(&self, state: &mut State, key: &Key) {
        self.end_because(state, key, "");
    }

    fn end_because(&self, state: &mut State, key: &Key, reason: &str) {
        let Some(lasting) = state.lasting.remove(key) else { return };
        for (running, after) in lasting.pairs.into_iter().rev() {
            if let Some(instance) = running {
                self.supervisor.stop(instance, reason);
            }
            if let Some(spec) = after {
                self.supervisor.launch(spec);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
