//! Which commands events and reloads run, with what, and in which order.

use std::time::SystemTime;

use corecast_hub::roster::{Origin, SessionFacts, SessionState};
use uuid::Uuid;

use super::*;
use crate::control::{
    directory::{Conn, Demand, HlsSession, Reader, Session, Stream},
    settings::{Hook, PathHooks},
};

/// One configuration for all paths that begin with `cam`.
#[derive(Clone, Default)]
struct Fake {
    connect: Hook,
    disconnect: Hook,
    port: u16,
    cam: PathHooks,
    /// With their `runOnInit`.
    statics: BTreeMap<Arc<str>, PathHooks>,
}

impl Definitions for Fake {
    fn on_connect(&self) -> &Hook {
        &self.connect
    }

    fn on_disconnect(&self) -> &Hook {
        &self.disconnect
    }

    fn rtsp_port(&self) -> u16 {
        self.port
    }

    fn serving(&self, name: &str) -> Option<(&PathHooks, Variables)> {
        if let Some(hooks) = self.statics.get(name) {
            return Some((hooks, Vec::new()));
        }
        let group = name.strip_prefix("cam")?.to_owned();
        Some((&self.cam, vec![("G1".into(), group), ("MTX_PATH".into(), "of a pattern".into())]))
    }

    fn static_paths(&self) -> Vec<Arc<str>> {
        self.statics.keys().rev().cloned().collect()
    }
}

impl Fake {
    fn with_statics(statics: &[(&str, &str)]) -> Self {
        let hooks = |command: &str| PathHooks { init: hook(command), ..PathHooks::default() };
        let statics = statics.iter().map(|(path, command)| ((*path).into(), hooks(command))).collect();
        Self { port: 8554, statics, ..Self::default() }
    }
}

fn hook(command: &str) -> Hook {
    Hook { command: command.to_owned(), restart: false }
}

fn start(fake: &Fake) -> Hooks {
    Hooks::with(Arc::new(fake.clone()), Handle::current(), quick())
}

fn conn() -> Arc<Conn> {
    Arc::new(Conn {
        id: Uuid::from_u128(1),
        created: SystemTime::UNIX_EPOCH,
        remote: "10.0.0.1:40000".parse().unwrap(),
        encrypted: false,
        session: None,
        traffic: Arc::default(),
    })
}

fn demand(path: &str, query: &str) -> Arc<Demand> {
    Arc::new(Demand { path: path.into(), since: SystemTime::UNIX_EPOCH, query: query.to_owned() })
}

fn stream(path: &str) -> Arc<Stream> {
    Arc::new(Stream {
        path: path.into(),
        since: SystemTime::UNIX_EPOCH,
        origin: Origin::RtspSession(Uuid::from_u128(2)),
        query: "a=b&d=e%20f\"g'+é;$(x)~!*().-_:/@,= z".into(),
        tracks: Vec::new(),
        traffic: Arc::default(),
        shard: 0,
    })
}

fn session(path: &str) -> Arc<Session> {
    Arc::new(Session {
        id: Uuid::from_u128(0x124e_a3da << 96),
        created: SystemTime::UNIX_EPOCH,
        remote: "10.0.0.1:40000".parse().unwrap(),
        encrypted: false,
        facts: SessionFacts {
            state: SessionState::Read,
            path: path.into(),
            query: "q=1".into(),
            user: String::new(),
            user_agent: String::new(),
            transport: None,
            conn: None,
        },
        traffic: Arc::default(),
        shard: 0,
    })
}

fn gone(stream: &Arc<Stream>) -> Event {
    Event::Unavailable { stream: Arc::clone(stream), reason: "over".into() }
}

fn left(session: &Arc<Session>) -> Event {
    Event::ReaderLeft { reader: Reader::Rtsp(Arc::clone(session)), reason: "over".into() }
}

const REPORT: &str =
    r#"echo "$1 $(env | grep -E '^(MTX_[PQSRC]|RTSP_|G[0-9])' | sort | tr '\n' ' ')" >> $OUT"#;

#[tokio::test]
async fn every_hook_has_the_variables_of_the_contract() {
    let (lines, _guard) = Lines::collect();
    let scratch = Scratch::new();
    let report = scratch.script("report", REPORT);
    let hook = |name: &str| hook(&format!("{report} {name}"));
    let hooks = start(&Fake {
        connect: hook("connect"),
        disconnect: hook("disconnect"),
        port: 8554,
        cam: PathHooks {
            init: hook("init"),
            demand: hook("demand"),
            un_demand: hook("undemand"),
            available: hook("available"),
            unavailable: hook("unavailable"),
            online: hook("online"),
            offline: hook("offline"),
            read: hook("read"),
            unread: hook("unread"),
        },
        statics: BTreeMap::from([("st".into(), PathHooks { init: hook("init"), ..PathHooks::default() })]),
    });
    let source = "MTX_QUERY=a%3Db%26d%3De%2520f%22g%27%2B%C3%A9%3B%24%28x%29~%21%2A%28%29.-_%3A%2F%40%2C%3D+z \
                  MTX_SOURCE_ID=00000000-0000-0000-0000-000000000002 MTX_SOURCE_TYPE=rtspSession";
    let reader =
        "MTX_QUERY=q%3D1 MTX_READER_ID=124ea3da-0000-0000-0000-000000000000 MTX_READER_TYPE=rtspSession";
    let path = "G1=1 MTX_PATH=cam1";
    let conn_line = "MTX_CONN_ID=00000000-0000-0000-0000-000000000001 MTX_CONN_TYPE=rtspConn RTSP_PORT=8554";
    let (conn, stream, session) = (conn(), stream("cam1"), session("cam1"));
    let definitions = Arc::clone(&hooks.state().definitions);
    hooks.redefine(definitions);
    let demand = demand("cam1", "a=b&c=d e");
    let wanted = "MTX_PATH=cam1 MTX_QUERY=a%3Db%26c%3Dd+e RTSP_PATH=cam1 RTSP_PORT=8554 ";
    let steps: [(Option<Event>, Vec<String>); 9] = [
        (None, vec!["init MTX_PATH=st RTSP_PATH=st RTSP_PORT=8554 ".into()]),
        (Some(Event::ConnOpened(Arc::clone(&conn))), vec![format!("connect {conn_line} ")]),
        (Some(Event::DemandBegan(Arc::clone(&demand))), vec![format!("demand G1=1 {wanted}")]),
        (
            Some(Event::Available(Arc::clone(&stream))),
            vec![
                format!("available {path} {source} RTSP_PATH=cam1 RTSP_PORT=8554 "),
                format!("online {path} {source} RTSP_PATH=cam1 RTSP_PORT=8554 "),
            ],
        ),
        (
            Some(Event::ReaderJoined(Reader::Rtsp(Arc::clone(&session)))),
            vec![format!("read {path} {reader} RTSP_PATH=cam1 RTSP_PORT=8554 ")],
        ),
        (Some(left(&session)), vec![format!("unread {path} {reader} RTSP_PATH=cam1 RTSP_PORT=8554 ")]),
        (
            Some(gone(&stream)),
            vec![
                format!("offline {path} {source} RTSP_PATH=cam1 RTSP_PORT=8554 "),
                format!("unavailable {path} {source} RTSP_PATH=cam1 RTSP_PORT=8554 "),
            ],
        ),
        (
            Some(Event::DemandEnded { demand, reason: "not needed by anyone".into() }),
            vec![format!("undemand G1=1 {wanted}")],
        ),
        (Some(Event::ConnClosed { conn, reason: "EOF".into() }), vec![format!("disconnect {conn_line} ")]),
    ];
    let mut so_far = 0;
    for (event, expected) in steps {
        if let Some(event) = &event {
            hooks.on_event(event);
        }
        eventually("the hooks ran", || scratch.out().lines().count() == so_far + expected.len()).await;
        // Two that begin together may end in any order.
        let mut written: Vec<_> = scratch.out().lines().skip(so_far).map(str::to_owned).collect();
        written.sort();
        let mut expected = expected;
        expected.sort();
        assert_eq!(written, expected);
        so_far += expected.len();
    }
    let told = lines.all().into_iter().filter(|line| !line.contains("exited")).collect::<Vec<_>>();
    assert_eq!(
        told,
        [
            "INFO [path st] runOnInit command started",
            "INFO [RTSP] [conn 10.0.0.1:40000] runOnConnect command started",
            "INFO [path cam1] runOnDemand command started",
            "INFO [path cam1] runOnAvailable command started",
            "INFO [path cam1] runOnOnline command started",
            "INFO [RTSP] [session 124ea3da] runOnRead command started",
            "INFO [RTSP] [session 124ea3da] runOnRead command stopped",
            "INFO [RTSP] [session 124ea3da] runOnUnread command launched",
            "INFO [path cam1] runOnOnline command stopped",
            "INFO [path cam1] runOnOffline command launched",
            "INFO [path cam1] runOnAvailable command stopped",
            "INFO [path cam1] runOnUnavailable command launched",
            "INFO [path cam1] runOnDemand command stopped: not needed by anyone",
            "INFO [path cam1] runOnUnDemand command launched",
            "INFO [RTSP] [conn 10.0.0.1:40000] runOnConnect command stopped",
            "INFO [RTSP] [conn 10.0.0.1:40000] runOnDisconnect command launched",
        ]
    );
}

#[tokio::test]
async fn a_viewer_over_hls_runs_the_hooks_of_a_reader() {
    let (lines, _guard) = Lines::collect();
    let scratch = Scratch::new();
    let report = scratch.script("report", REPORT);
    let hook = |name: &str| hook(&format!("{report} {name}"));
    let cam = PathHooks { read: hook("read"), unread: hook("unread"), ..PathHooks::default() };
    let hooks = start(&Fake { port: 8554, cam, ..Fake::default() });
    let reader = Reader::Hls(Arc::new(HlsSession {
        id: Uuid::from_u128(0x5e55_1011 << 96),
        created: SystemTime::UNIX_EPOCH,
        remote: "10.0.0.1:40000".parse().unwrap(),
        path: "cam1".into(),
        query: "a=b c".into(),
        user: String::new(),
        user_agent: String::new(),
        is_cdn: false,
        traffic: Arc::default(),
        shard: 0,
    }));
    let expected = "G1=1 MTX_PATH=cam1 MTX_QUERY=a%3Db+c MTX_READER_ID=5e551011-0000-0000-0000-000000000000 \
                    MTX_READER_TYPE=hlsSession RTSP_PATH=cam1 RTSP_PORT=8554 ";
    hooks.on_event(&Event::ReaderJoined(reader.clone()));
    eventually("runOnRead ran", || scratch.out() == format!("read {expected}\n")).await;
    hooks.on_event(&Event::ReaderLeft { reader, reason: "over".into() });
    let both = format!("read {expected}\nunread {expected}\n");
    eventually("runOnUnread ran", || scratch.out() == both).await;
    assert_eq!(lines.all()[0], "INFO [HLS] [session 5e551011] runOnRead command started");
}

#[tokio::test]
async fn a_reload_touches_only_what_it_changes() {
    let (lines, _guard) = Lines::collect();
    let before = Fake::with_statics(&[("gone", "sleep 100"), ("other", "sleep 101"), ("same", "sleep 102")]);
    let hooks = start(&before);
    assert!(lines.all().is_empty(), "runOnInit waits for the servers");
    hooks.redefine(Arc::new(before.clone()));
    assert_eq!(lines.all().len(), 3);
    hooks.redefine(Arc::new(before.clone()));
    assert_eq!(lines.all().len(), 3, "nothing changed");

    let after = Fake::with_statics(&[("new", "sleep 103"), ("other", "sleep 104"), ("same", "sleep 102")]);
    hooks.redefine(Arc::new(after.clone()));
    assert_eq!(
        lines.all()[3..],
        [
            "INFO [path gone] runOnInit command stopped",
            "INFO [path other] runOnInit command stopped",
            "INFO [path other] runOnInit command started",
            "INFO [path new] runOnInit command started",
        ]
    );
    // A command that publishes to our port must learn of another one.
    hooks.redefine(Arc::new(Fake { port: 9000, ..after }));
    assert_eq!(lines.all().len(), 7 + 6);
    hooks.redefine(Arc::new(Fake::with_statics(&[("same", "")])));
    assert_eq!(lines.all().len(), 13 + 3);
    hooks.redefine(Arc::new(Fake::with_statics(&[("same", "sleep 105")])));
    assert_eq!(lines.all()[16..], ["INFO [path same] runOnInit command started"]);
    hooks.shutdown(PATIENCE).await;
}

#[tokio::test]
async fn a_changed_command_replaces_the_one_that_runs_and_a_new_one_waits_for_its_event() {
    let (lines, _guard) = Lines::collect();
    let fake = |read: &str, available: &str, unread: &str| {
        let cam = PathHooks {
            read: hook(read),
            available: hook(available),
            unread: hook(unread),
            ..PathHooks::default()
        };
        Fake { cam, ..Fake::default() }
    };
    let hooks = start(&fake("sleep 100", "", "true"));
    hooks.on_event(&Event::Available(stream("cam1")));
    hooks.on_event(&Event::ReaderJoined(Reader::Rtsp(session("cam1"))));
    hooks.redefine(Arc::new(fake("sleep 101", "sleep 102", "")));
    let read = "[RTSP] [session 124ea3da] runOnRead command";
    assert_eq!(
        lines.all(),
        [format!("INFO {read} started"), format!("INFO {read} stopped"), format!("INFO {read} started"),]
    );
    hooks.on_event(&Event::Available(stream("cam2")));
    assert_eq!(lines.all()[3..], ["INFO [path cam2] runOnAvailable command started"]);
    // A path that is not configured any more keeps what it had until its end is told.
    hooks.on_event(&left(&session("cam1")));
    hooks.on_event(&gone(&stream("cam1")));
    assert_eq!(lines.all()[4..], [format!("INFO {read} stopped")]);
    hooks.shutdown(PATIENCE).await;
}

#[tokio::test]
async fn the_end_runs_its_command_once_and_also_when_the_path_is_not_configured_any_more() {
    let (lines, _guard) = Lines::collect();
    let cam = PathHooks { unavailable: hook("true"), ..PathHooks::default() };
    let hooks = start(&Fake { cam, ..Fake::default() });
    hooks.on_event(&gone(&stream("cam1")));
    assert!(lines.all().is_empty(), "it had never begun");
    hooks.on_event(&Event::Available(stream("cam1")));
    // The end of the first was not told.
    hooks.on_event(&Event::Available(stream("cam1")));
    assert_eq!(lines.all(), ["INFO [path cam1] runOnUnavailable command launched"]);
    let nothing = Fake { cam: PathHooks::default(), ..Fake::default() };
    hooks.on_event(&Event::Available(stream("x")));
    hooks.on_event(&gone(&stream("x")));
    hooks.redefine(Arc::new(Unconfigured));
    hooks.on_event(&gone(&stream("cam1")));
    hooks.on_event(&gone(&stream("cam1")));
    assert_eq!(lines.all().iter().filter(|line| line.contains("launched")).count(), 2);
    hooks.redefine(Arc::new(nothing));
    hooks.shutdown(PATIENCE).await;
}

/// A configuration without paths.
struct Unconfigured;

impl Definitions for Unconfigured {
    fn on_connect(&self) -> &Hook {
        const { &Hook { command: String::new(), restart: false } }
    }

    fn on_disconnect(&self) -> &Hook {
        self.on_connect()
    }

    fn rtsp_port(&self) -> u16 {
        0
    }

    fn serving(&self, _: &str) -> Option<(&PathHooks, Variables)> {
        None
    }

    fn static_paths(&self) -> Vec<Arc<str>> {
        Vec::new()
    }
}

#[tokio::test]
async fn shutdown_ends_all_that_is_there_and_runs_what_belongs_to_its_end() {
    let (lines, _guard) = Lines::collect();
    let scratch = Scratch::new();
    let report = scratch.script("report", "sleep 0.2; echo $1 >> $OUT");
    let end = |name: &str| hook(&format!("{report} {name}"));
    let cam = PathHooks { unavailable: end("unavailable"), unread: end("unread"), ..PathHooks::default() };
    let statics = Fake::with_statics(&[("st", "sleep 100")]).statics;
    let fake = Fake { disconnect: end("disconnect"), cam, statics, ..Fake::default() };
    let hooks = start(&fake);
    hooks.redefine(Arc::new(fake.clone()));
    hooks.on_event(&Event::ConnOpened(conn()));
    hooks.on_event(&Event::Available(stream("cam1")));
    hooks.on_event(&Event::ReaderJoined(Reader::Rtsp(session("cam1"))));
    hooks.shutdown(PATIENCE).await;
    let mut ran: Vec<_> = scratch.out().lines().map(str::to_owned).collect();
    ran.sort();
    assert_eq!(ran, ["disconnect", "unavailable", "unread"]);
    assert!(lines.has("[path st] runOnInit command stopped"));
    let told = lines.all().len();
    hooks.on_event(&Event::ConnOpened(conn()));
    hooks.redefine(Arc::new(fake));
    assert_eq!(lines.all().len(), told, "nothing happens any more");
    assert!(hooks.counters().snapshot().iter().all(|(_, counts)| counts.running == 0));
}

#[test]
fn what_came_over_tls_has_types_and_a_name_in_the_log_of_its_own() {
    let command = hook("true");
    let fake = Fake {
        connect: command.clone(),
        cam: PathHooks { available: command.clone(), read: command, ..PathHooks::default() },
        ..Fake::default()
    };
    let is_set = |subject: Subject, variable: &str, value: &str, prefix: &str| {
        let pairs = subject.pairs(&fake).unwrap();
        let spec = pairs[0].during.as_ref().unwrap();
        let expected = (variable.to_owned(), value.to_owned());
        assert!(spec.variables.contains(&expected), "{expected:?} in {:?}", spec.variables);
        assert!(spec.prefix.starts_with(prefix), "{}", spec.prefix);
    };
    for (encrypted, prefix, conn_type, session_type) in
        [(false, "[RTSP] ", "rtspConn", "rtspSession"), (true, "[RTSPS] ", "rtspsConn", "rtspsSession")]
    {
        let conn = Conn { encrypted, ..Arc::into_inner(conn()).unwrap() };
        is_set(Subject::Conn(Arc::new(conn)), "MTX_CONN_TYPE", conn_type, prefix);
        let reader = Session { encrypted, ..Arc::into_inner(session("cam1")).unwrap() };
        is_set(Subject::Reader(Reader::Rtsp(Arc::new(reader))), "MTX_READER_TYPE", session_type, prefix);
        let id = Uuid::from_u128(2);
        let origin = if encrypted { Origin::RtspsSession(id) } else { Origin::RtspSession(id) };
        let publisher = Stream { origin, ..Arc::into_inner(stream("cam1")).unwrap() };
        is_set(Subject::Stream(Arc::new(publisher)), "MTX_SOURCE_TYPE", session_type, "[path cam1]");
    }
}

#[tokio::test]
async fn a_command_on_demand_waits_until_nothing_is_left_of_the_one_before() {
    let scratch = Scratch::new();
    // Slow to end, as a publisher is that says goodbye to its camera.
    let slow = scratch.script(
        "slow",
        "trap 'sleep 0.2; echo end $MTX_PATH >> $OUT; exit' INT\necho begin $MTX_PATH >> $OUT\n\
         while :; do sleep 0.01; done",
    );
    let cam = PathHooks { demand: hook(&slow), ..PathHooks::default() };
    let limits = Limits { kill_after: PATIENCE, ..quick() };
    let hooks = Hooks::with(Arc::new(Fake { cam, ..Fake::default() }), Handle::current(), limits);
    let begin = |path: &str| hooks.on_event(&Event::DemandBegan(demand(path, "")));
    let end = |path: &str| {
        hooks.on_event(&Event::DemandEnded {
            demand: demand(path, ""),
            reason: "not needed by anyone".into(),
        });
    };
    let count = |what: &str| scratch.out().lines().filter(|line| *line == what).count();
    begin("cam1");
    eventually("it runs", || count("begin cam1") == 1).await;
    end("cam1");
    // One that is not wanted any more before its turn never runs.
    begin("cam1");
    end("cam1");
    begin("cam1");
    // Another path does not wait.
    begin("cam2");
    eventually("both run", || count("begin cam1") == 2 && count("begin cam2") == 1).await;
    end("cam1");
    end("cam2");
    eventually("all have ended", || hooks.supervisor.running() == 0).await;
    let of_cam1: Vec<_> =
        scratch.out().lines().filter(|line| line.ends_with("cam1")).map(str::to_owned).collect();
    assert_eq!(of_cam1, ["begin cam1", "end cam1", "begin cam1", "end cam1"]);
    assert_eq!(hooks.supervisor.turns(), 0);
    hooks.shutdown(PATIENCE).await;
}
