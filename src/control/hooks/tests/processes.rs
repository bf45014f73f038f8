//! Processes that do not do as they are told.

use super::{
    super::{child::StartError, supervisor::Pause},
    *,
};

struct Fixture {
    supervisor: Supervisor,
    counters: Arc<Counters>,
    scratch: Scratch,
    lines: Lines,
    _guard: DefaultGuard,
}

fn fixture(limits: Limits) -> Fixture {
    let (lines, guard) = Lines::collect();
    let counters = Arc::new(Counters::default());
    let supervisor = Supervisor::new(Handle::current(), limits, Arc::clone(&counters));
    Fixture { supervisor, counters, scratch: Scratch::new(), lines, _guard: guard }
}

impl Fixture {
    fn counts(&self) -> HookCounts {
        self.counters.snapshot()[HookKind::Init as usize].1
    }

    fn start(&self, command: String) -> Instance {
        self.supervisor.start(spec(command, false)).unwrap()
    }

    async fn all_ended(&self) {
        // A script may be faster than the task that counts it.
        eventually("something ran, and does not any more", || {
            let counts = self.counts();
            counts.started > 0 && counts.running == 0
        })
        .await;
    }
}

fn spec(command: String, restart: bool) -> Arc<Spec> {
    let prefix = "[path p]".to_owned();
    Arc::new(Spec { kind: HookKind::Init, prefix, command, restart, variables: Vec::new() })
}

#[tokio::test]
async fn sigint_ends_a_command_and_all_of_its_group() {
    let it = fixture(quick());
    let body = "trap 'exit 0' INT; sh -c 'trap \"exit 0\" INT; while :; do sleep 0.01; done' &\necho $! >> $OUT\nwait";
    let instance = it.start(it.scratch.script("a", body));
    let grandchild = it.scratch.pid().await;
    it.supervisor.stop(instance, "not needed by anyone");
    it.all_ended().await;
    eventually("the grandchild is gone", || !lives(grandchild)).await;
    assert_eq!(
        it.lines.all()[..2],
        [
            "INFO [path p] runOnInit command started",
            "INFO [path p] runOnInit command stopped: not needed by anyone",
        ]
    );
}

#[tokio::test]
async fn a_command_that_ignores_sigint_is_killed() {
    let it = fixture(quick());
    let instance = it.start(it.scratch.script("a", "trap '' INT; echo $$ >> $OUT; exec sleep 1000"));
    let pid = it.scratch.pid().await;
    it.supervisor.stop(instance, "");
    it.all_ended().await;
    assert!(!lives(pid));
    assert_eq!((it.counts().started, it.counts().killed), (1, 1));
    assert!(it.lines.has("WARN [path p] runOnInit command, or what it started, was killed"));
    assert!(!it.lines.has("exited"), "the end was asked for");
}

#[tokio::test]
async fn a_grandchild_that_ignores_sigint_is_killed_though_the_command_heeded_it() {
    let it = fixture(quick());
    // A shell lets its background commands ignore SIGINT.
    let instance = it.start(it.scratch.script("a", "sleep 1000 & echo $! >> $OUT; wait"));
    let grandchild = it.scratch.pid().await;
    it.supervisor.stop(instance, "");
    it.all_ended().await;
    eventually("the grandchild is gone", || !lives(grandchild)).await;
    assert_eq!(it.counts().killed, 1);
}

#[tokio::test]
async fn what_a_command_left_behind_ends_with_the_hook() {
    let it = fixture(quick());
    let instance = it.start(it.scratch.script("a", "sleep 1000 & echo $! >> $OUT"));
    let grandchild = it.scratch.pid().await;
    eventually("the command has exited", || it.lines.has("command exited: exit status 0")).await;
    assert!(lives(grandchild), "it may stay for as long as the hook");
    it.supervisor.stop(instance, "");
    it.all_ended().await;
    eventually("the grandchild is gone", || !lives(grandchild)).await;
}

#[tokio::test]
async fn a_process_that_left_the_group_holds_nothing_of_ours() {
    let it = fixture(quick());
    // It keeps the pipes open.
    let instance = it.start(
        it.scratch.script("a", "setsid sh -c \"echo \\$\\$ >> '$OUT'; exec sleep 1000\" & sleep 0.2; exit 4"),
    );
    let runaway = it.scratch.pid().await;
    it.all_ended().await;
    assert!(it.lines.has("command exited: exit status 4"));
    it.supervisor.stop(instance, "");
    it.supervisor.shutdown(Duration::ZERO).await;
    assert!(lives(runaway));
    if let Some(pid) = rustix::process::Pid::from_raw(i32::try_from(runaway).unwrap()) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

#[tokio::test]
async fn a_flood_on_stderr_is_read_and_hardly_logged() {
    let it = fixture(quick());
    let began = Instant::now();
    let body = "yes 'a line of a flood that never seems to end' | head -c 100000000 >&2
                # The flood ends within a line.
                echo >&2; echo the end >&2; exit 7";
    let _instance = it.start(it.scratch.script("a", body));
    eventually("it has exited", || it.lines.has("command exited")).await;
    assert!(it.lines.has("INFO [path p] runOnInit command exited: exit status 7 (last line: the end)"));
    let shown = it.lines.all().iter().filter(|line| line.contains("DEBUG")).count();
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 2;
    assert!(shown <= seconds * 21, "{shown} lines in {seconds} s");
    assert!(it.lines.has("more lines, not shown"));
}

#[tokio::test]
async fn a_command_that_dies_at_once_is_restarted_until_it_is_stopped() {
    let it = fixture(quick());
    let command = it.scratch.script("a", "echo x >> $OUT; echo 'no rtsp://u:secret@h' >&2; exit 3");
    let instance = it.supervisor.start(spec(command, true)).unwrap();
    eventually("it was restarted", || it.counts().started >= 4).await;
    it.supervisor.stop(instance, "");
    it.supervisor.shutdown(PATIENCE).await;
    let runs = it.scratch.out().lines().count();
    tokio::time::sleep(3 * quick().restart_after_max).await;
    assert_eq!(it.scratch.out().lines().count(), runs, "stopped is stopped");
    assert!(it.counts().failed >= 3);
    assert!(
        it.lines.has("INFO [path p] runOnInit command exited: exit status 3 (last line: no rtsp://***@h)")
    );
    assert_eq!(it.lines.all().iter().filter(|line| line.contains("command started")).count(), 1);
}

#[tokio::test]
async fn what_a_run_left_behind_is_gone_before_the_next() {
    let it = fixture(quick());
    let command = it.scratch.script("a", "sleep 1000 & echo $! >> $OUT");
    let instance = it.supervisor.start(spec(command, true)).unwrap();
    eventually("it was restarted", || it.scratch.out().lines().count() >= 3).await;
    let out = it.scratch.out();
    let mut left: Vec<u32> = out.lines().map(|line| line.parse().unwrap()).collect();
    left.pop();
    eventually("only the last is left", || !left.iter().any(|pid| lives(*pid))).await;
    it.supervisor.stop(instance, "");
    it.supervisor.shutdown(PATIENCE).await;
}

#[test]
fn pauses_grow_while_a_command_dies_at_once() {
    let mut pause = Pause::new(Limits::default());
    let mut after = |lived_s| pause.after(Duration::from_secs(lived_s)).as_secs();
    assert_eq!([0, 0, 1, 4, 0, 0].map(&mut after), [5, 10, 20, 40, 60, 60]);
    assert_eq!([3600, 0, 5, 5].map(&mut after), [5, 10, 5, 5]);
}

#[tokio::test]
async fn what_cannot_be_started_is_told_and_tried_again_if_so_configured() {
    let it = fixture(quick());
    let _a = it.start("/nonexistent/program --flag".into());
    let _b = it.start("sh -c \"unbalanced".into());
    let _c = it.supervisor.start(spec("/nonexistent/too".into(), true));
    eventually("all failed", || it.counts().failed >= 5).await;
    assert_eq!(it.counts().started, 0);
    let expected = "WARN [path p] runOnInit command exited: program '/nonexistent/program' cannot be started: No such \
                    file or directory (os error 2)";
    assert!(it.lines.has(expected), "{:?}", it.lines.all());
    assert!(it.lines.has("command exited: the command has an opening double quote without a closing one"));
    let nul = Spec { variables: vec![("A".into(), "\0".into())], ..(*spec("true".into(), false)).clone() };
    assert!(matches!(child::Child::spawn(&nul), Err(StartError::Spawn { .. })));
}

#[tokio::test]
async fn there_are_never_more_commands_than_the_limit() {
    let it = fixture(Limits { commands_max: 2, ..quick() });
    let first = it.start("sleep 1000".into());
    let _second = it.start("sleep 1000".into());
    for _ in 0..10 {
        assert!(it.supervisor.start(spec("sleep 1000".into(), false)).is_none());
        it.supervisor.launch(spec("sleep 1000".into(), false));
    }
    let told = |lines: &Lines| lines.all().iter().filter(|line| line.starts_with("ERROR")).count();
    assert_eq!(told(&it.lines), 1, "{:?}", it.lines.all());
    assert_eq!(it.counts().failed, 20);
    it.supervisor.stop(first, "");
    eventually("there is room again", || it.supervisor.start(spec("true".into(), false)).is_some()).await;
}

#[tokio::test]
async fn an_owner_that_is_gone_takes_its_commands_along() {
    let it = fixture(quick());
    let instance = it.start(it.scratch.script("a", "echo $$ >> $OUT; exec sleep 1000"));
    let pid = it.scratch.pid().await;
    drop(instance);
    eventually("the process is gone", || !lives(pid)).await;
    let Fixture { supervisor, counters, scratch, .. } = fixture(quick());
    supervisor.launch(spec(scratch.script("a", "trap '' INT; echo $$ >> $OUT; exec sleep 1000"), false));
    let pid = scratch.pid().await;
    drop(supervisor);
    eventually("the process is gone", || !lives(pid)).await;
    eventually("it is counted off", || counters.snapshot()[HookKind::Init as usize].1.running == 0).await;
}

#[tokio::test]
async fn shutdown_waits_for_its_grace_and_no_longer() {
    let it = fixture(quick());
    it.supervisor.launch(spec(it.scratch.script("a", "sleep 0.3; echo done >> $OUT"), false));
    it.supervisor.shutdown(PATIENCE).await;
    assert_eq!(it.scratch.out(), "done\n");
    assert!(it.lines.has("waiting for running hooks"));
    it.supervisor.launch(spec("sleep 1000".into(), false));
    assert!(it.supervisor.start(spec("sleep 1000".into(), false)).is_none(), "closed");

    let it = fixture(Limits { kill_after: PATIENCE, ..quick() });
    let command = it.scratch.script("a", "trap '' INT; echo $$ >> $OUT; exec sleep 1000");
    it.supervisor.launch(spec(command, false));
    let pid = it.scratch.pid().await;
    let deaf = it.start(it.scratch.script("b", "trap '' INT; sleep 1000"));
    it.supervisor.stop(deaf, "");
    it.supervisor.shutdown(Duration::from_millis(200)).await;
    assert!(!lives(pid));
    assert_eq!(it.counts().running, 0);
}

#[tokio::test]
async fn nothing_is_left_of_a_thousand_commands() {
    let it = fixture(Limits { commands_max: 32, ..quick() });
    let files = open_files();
    let command = it.scratch.script("a", "echo ready >&2; exec sleep 1001");
    for round in 0..1000 {
        eventually("there is room", || it.supervisor.running() < 16).await;
        let instance = it.start(command.clone());
        // Some end before they began, some just after, some later.
        if round % 3 > 0 {
            eventually("it runs", || it.counts().running > 0).await;
        }
        if round % 3 > 1 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        it.supervisor.stop(instance, "");
    }
    it.supervisor.shutdown(PATIENCE).await;
    assert_eq!(it.counts().running, 0);
    // Other tests have children and files of their own for a moment.
    eventually("no zombie", || zombies() == 0).await;
    eventually("files are closed", || open_files() < files + 100).await;
}
