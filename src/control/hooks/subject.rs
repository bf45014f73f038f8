//! Whom hooks are about, and which commands that means: their variables, their place in the log, their order.

use std::sync::Arc;

use corecast_hub::roster::{Origin, rtsp_server};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use uuid::Uuid;

use super::{HookKind, Spec};
use crate::control::{
    config::store::{PathConf, Variables, View},
    directory::{Conn, Demand, Reader, ReaderKind, Stream},
    settings::{Hook, PathHooks},
};

/// What Go's `url.QueryEscape` leaves as it is; a space becomes `+`.
const QUERY_ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What hooks need to know of the configuration.
pub(super) trait Definitions: Send + Sync {
    fn on_connect(&self) -> &Hook;
    fn on_disconnect(&self) -> &Hook;
    fn rtsp_port(&self) -> u16;
    /// The hooks of the path `name`, with the groups of its pattern; `None` when it is not configured.
    fn serving(&self, name: &str) -> Option<(&PathHooks, Variables)>;
    /// Paths that are there without anybody asking for them, and have a command for that.
    fn static_paths(&self) -> Vec<Arc<str>>;
}

impl Definitions for View {
    fn on_connect(&self) -> &Hook {
        &self.control.on_connect
    }

    fn on_disconnect(&self) -> &Hook {
        &self.control.on_disconnect
    }

    fn rtsp_port(&self) -> u16 {
        self.control.rtsp_port
    }

    fn serving(&self, name: &str) -> Option<(&PathHooks, Variables)> {
        Self::serving(self, name).map(|(conf, variables)| (&conf.hooks, variables))
    }

    fn static_paths(&self) -> Vec<Arc<str>> {
        let is_pattern = |key: &str| key.contains('~') || matches!(key, "all" | "all_others");
        let is_run = |conf: &PathConf| conf.settings.enabled && !conf.hooks.init.command.is_empty();
        let paths = self.paths.iter().filter(|(key, conf)| is_run(conf) && !is_pattern(key));
        paths.map(|(key, _)| Arc::clone(key)).collect()
    }
}

/// In the order in which they are ended when the server ends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Reader(Uuid),
    Stream(Arc<str>),
    Demand(Arc<str>),
    Conn(Uuid),
    StaticPath(Arc<str>),
}

/// Whom hooks are about.
#[derive(Debug, Clone)]
pub(super) enum Subject {
    Reader(Reader),
    Stream(Arc<Stream>),
    Demand(Arc<Demand>),
    Conn(Arc<Conn>),
    StaticPath(Arc<str>),
}

/// A command that runs while something lasts, and one that is run when that has ended. Either may be absent.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) during: Option<Arc<Spec>>,
    pub(super) after: Option<Arc<Spec>>,
}

impl Subject {
    pub(super) fn key(&self) -> Key {
        match self {
            Self::Reader(reader) => Key::Reader(reader.id()),
            Self::Stream(stream) => Key::Stream(Arc::clone(&stream.path)),
            Self::Demand(demand) => Key::Demand(Arc::clone(&demand.path)),
            Self::Conn(conn) => Key::Conn(conn.id),
            Self::StaticPath(path) => Key::StaticPath(Arc::clone(path)),
        }
    }

    /// In the order in which they begin, which is the reverse of that in which they end. `None` when its path is not
    /// configured.
    pub(super) fn pairs(&self, definitions: &dyn Definitions) -> Option<Vec<Pair>> {
        let port = variable("RTSP_PORT", definitions.rtsp_port());
        let of_path = |path: &Arc<str>| {
            let (hooks, mut variables) = definitions.serving(path)?;
            // Ours come later, so that no pattern can replace them. RTSP_PATH is deprecated, and still used.
            variables.extend([port.clone(), variable("MTX_PATH", path), variable("RTSP_PATH", path)]);
            Some((hooks, variables))
        };
        Some(match self {
            Self::StaticPath(path) => {
                let (hooks, variables) = of_path(path)?;
                vec![Pair { during: self.spec(HookKind::Init, &hooks.init, &variables), after: None }]
            }
            Self::Conn(conn) => {
                let kind = if conn.encrypted { "rtspsConn" } else { "rtspConn" };
                let variables = vec![port, variable("MTX_CONN_TYPE", kind), variable("MTX_CONN_ID", conn.id)];
                let during = self.spec(HookKind::Connect, definitions.on_connect(), &variables);
                let after = self.spec(HookKind::Disconnect, definitions.on_disconnect(), &variables);
                vec![Pair { during, after }]
            }
            Self::Demand(demand) => {
                let (hooks, mut variables) = of_path(&demand.path)?;
                variables.push(variable("MTX_QUERY", query_escape(&demand.query)));
                let during = self.spec(HookKind::Demand, &hooks.demand, &variables);
                vec![Pair { during, after: self.spec(HookKind::UnDemand, &hooks.un_demand, &variables) }]
            }
            Self::Reader(reader) => {
                let (hooks, mut variables) = of_path(reader.path())?;
                variables.extend([
                    variable("MTX_QUERY", query_escape(reader.query())),
                    variable("MTX_READER_TYPE", reader.kind().as_str()),
                    variable("MTX_READER_ID", reader.id()),
                ]);
                let during = self.spec(HookKind::Read, &hooks.read, &variables);
                vec![Pair { during, after: self.spec(HookKind::Unread, &hooks.unread, &variables) }]
            }
            Self::Stream(stream) => {
                let (hooks, mut variables) = of_path(&stream.path)?;
                let (kind, id) = match &stream.origin {
                    Origin::RtspSession(id) => (ReaderKind::Rtsp.as_str(), id.to_string()),
                    Origin::RtspsSession(id) => (ReaderKind::Rtsps.as_str(), id.to_string()),
                    Origin::RtspSource => ("rtspSource", String::new()),
                    Origin::Demo => ("demo", String::new()),
                };
                variables.extend([
                    variable("MTX_QUERY", query_escape(&stream.query)),
                    variable("MTX_SOURCE_TYPE", kind),
                    variable("MTX_SOURCE_ID", id),
                ]);
                let available = self.spec(HookKind::Available, &hooks.available, &variables);
                let unavailable = self.spec(HookKind::Unavailable, &hooks.unavailable, &variables);
                let online = self.spec(HookKind::Online, &hooks.online, &variables);
                let offline = self.spec(HookKind::Offline, &hooks.offline, &variables);
                vec![Pair { during: available, after: unavailable }, Pair { during: online, after: offline }]
            }
        })
    }

    fn spec(&self, kind: HookKind, hook: &Hook, variables: &Variables) -> Option<Arc<Spec>> {
        (!hook.command.is_empty()).then(|| {
            let (command, variables) = (hook.command.clone(), variables.clone());
            Arc::new(Spec { kind, prefix: self.prefix(), command, restart: hook.restart, variables })
        })
    }

    /// What its lines in the log begin with.
    fn prefix(&self) -> String {
        match self {
            Self::Reader(reader) => {
                let id = reader.id().simple().to_string();
                format!("[{}] [session {}]", reader.kind().server(), &id[..8])
            }
            Self::Stream(stream) => format!("[path {}]", stream.path),
            Self::Demand(demand) => format!("[path {}]", demand.path),
            Self::Conn(conn) => format!("[{}] [conn {}]", rtsp_server(conn.encrypted), conn.remote),
            Self::StaticPath(path) => format!("[path {path}]"),
        }
    }
}

fn variable(name: &str, value: impl ToString) -> (String, String) {
    (name.to_owned(), value.to_string())
}

fn query_escape(query: &str) -> String {
    // A percent sign of the query itself has become %25.
    utf8_percent_encode(query, QUERY_ESCAPED).to_string().replace("%20", "+")
}
