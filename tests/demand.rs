//! Paths that a command brings to life when somebody wants them (contract §7.1), and clients that are sent elsewhere
//! (§4.3).

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use crate::support::{
    Camera, CameraPlan, PATIENCE, Rtsp, Server, media, ours_or_say_skipped, rtsp::Response, scratch_dir,
    tools::Tool, wait_for,
};

/// Longer than a wait that has no end of its own should take to show.
const SOON: Duration = Duration::from_millis(300);

/// What publishes to a path on demand, and notes each of its processes.
struct Publisher {
    dir: PathBuf,
}

impl Publisher {
    fn new(name: &str) -> Self {
        let dir = scratch_dir(name);
        let clip = &media::h264_aac().file;
        // `exec`: what is stopped is ffmpeg itself.
        let script = format!(
            "echo $$ $MTX_PATH $MTX_QUERY $G1 >> {dir}/starts\nif [ -e {dir}/hangs ]; then exec sleep 1000; fi\n\
             exec ffmpeg -loglevel error -re -stream_loop -1 -i {clip} -c copy -rtsp_transport tcp \
             -f rtsp \"rtsp://127.0.0.1:$RTSP_PORT/$MTX_PATH\"\n",
            dir = dir.display(),
            clip = clip.display()
        );
        fs::write(dir.join("publish.sh"), script).unwrap();
        fs::write(dir.join("after.sh"), format!("echo $MTX_PATH $MTX_QUERY >> {}/ends\n", dir.display()))
            .unwrap();
        Self { dir }
    }

    /// The lines of a path that this brings, with these timeouts.
    fn path(&self, name: &str, start_timeout: &str, close_after: &str) -> String {
        format!(
            "  {name}:\n    runOnDemand: sh {0}/publish.sh\n    runOnDemandRestart: yes\n    \
             runOnDemandStartTimeout: {start_timeout}\n    runOnDemandCloseAfter: {close_after}\n    \
             runOnUnDemand: sh {0}/after.sh\n",
            self.dir.display()
        )
    }

    /// From now on it publishes nothing.
    fn hangs(&self) {
        fs::write(self.dir.join("hangs"), "").unwrap();
    }

    fn works(&self) {
        fs::remove_file(self.dir.join("hangs")).unwrap();
    }

    fn lines(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.dir.join(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Its processes so far.
    fn starts(&self) -> Vec<u32> {
        self.lines("starts").iter().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect()
    }

    fn wait_starts(&self, count: usize) -> u32 {
        let starts = wait_for(&format!("start {count} of the command"), PATIENCE, || {
            Some(self.starts()).filter(|starts| starts.len() >= count)
        });
        assert_eq!(starts.len(), count);
        starts[count - 1]
    }
}

fn is_gone(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

fn wait_end(pid: u32) {
    wait_for(&format!("process {pid} is gone"), PATIENCE, || is_gone(pid).then_some(()));
}

fn zombies(parent: u32) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let stats = processes.filter_map(|process| fs::read_to_string(process.path().join("stat")).ok());
    let is_zombie = |stat: &String| stat.rsplit_once(") ").unwrap().1.starts_with(&format!("Z {parent} "));
    stats.filter(is_zombie).count()
}

/// Asks for a description and does not wait for it.
fn ask(server: &Server, path: &str) -> Rtsp {
    let mut client = Rtsp::connect(server);
    let request =
        format!("DESCRIBE {} RTSP/1.0\r\nCSeq: 77\r\nAccept: application/sdp\r\n\r\n", server.url(path));
    client.send_raw(request.as_bytes());
    client
}

#[track_caller]
fn assert_answer(answer: &Response, status: u16) {
    assert_eq!((answer.status, answer.header("CSeq")), (status, Some("77")), "{answer:?}");
}

#[track_caller]
fn assert_waits(client: &mut Rtsp) {
    let answer = client.response_within(SOON);
    assert!(answer.is_none(), "{answer:?}");
}

#[test]
fn the_first_viewer_starts_it_and_the_last_one_ends_it() {
    let publisher = Publisher::new("demand");
    let server = Server::with("", &publisher.path("'~^cam_(.+)$'", "30s", "1s"));
    let mut first = ask(&server, "cam_7?a=b&c=d");
    let pid = publisher.wait_starts(1);
    assert_eq!(publisher.lines("starts"), [format!("{pid} cam_7 a%3Db%26c%3Dd 7")]);
    let mut others: Vec<_> = (0..4).map(|_| ask(&server, "cam_7")).collect();
    assert_answer(&first.response(), 200);
    for other in &mut others {
        assert_answer(&other.response(), 200);
    }
    // A SETUP without a DESCRIBE before it is as good.
    let mut viewer = Rtsp::play_tcp(&server, "cam_7");
    drop((first, others));
    viewer.frame(PATIENCE).unwrap();
    // The time without readers is over by far, had it not been stopped.
    let give_up = Instant::now() + Duration::from_secs(3);
    while Instant::now() < give_up {
        viewer.frame(PATIENCE).unwrap();
    }
    assert!(!is_gone(pid));
    viewer.teardown();
    wait_end(pid);
    wait_for("runOnUnDemand", PATIENCE, || (!publisher.lines("ends").is_empty()).then_some(()));
    assert_eq!(publisher.lines("ends"), ["cam_7 a%3Db%26c%3Dd"]);
    server.wait_log(&["[path cam_7] runOnDemand command started"], PATIENCE);
    server.wait_log(&["[path cam_7] runOnDemand command stopped: not needed by anyone"], PATIENCE);
    assert_eq!(publisher.starts(), [pid]);
    assert_eq!(zombies(server.pid()), 0);
    // And again.
    let viewer = Rtsp::play_tcp(&server, "cam_7");
    publisher.wait_starts(2);
    drop(viewer);
}

#[test]
fn a_setup_alone_is_held_too() {
    let publisher = Publisher::new("demand-setup");
    let server = Server::with("", &publisher.path("cam", "30s", "1s"));
    let mut viewer = Rtsp::connect(&server);
    let answer = viewer.setup(&server.url("cam/trackID=0"), "RTP/AVP/TCP;unicast;interleaved=0-1");
    assert_eq!(answer.status, 200, "{answer:?}");
    viewer.content_base = server.url("cam/");
    assert_eq!(viewer.play().status, 200);
    viewer.frame(PATIENCE).unwrap();
    publisher.wait_starts(1);
}

#[test]
fn a_look_without_more_keeps_it_for_a_while() {
    let publisher = Publisher::new("demand-look");
    let server = Server::with("", &publisher.path("cam", "30s", "2s"));
    assert_answer(&ask(&server, "cam").response(), 200);
    let answered = Instant::now();
    let pid = publisher.wait_starts(1);
    wait_end(pid);
    assert!(answered.elapsed() >= Duration::from_millis(1900), "{:?}", answered.elapsed());
}

#[test]
fn what_never_publishes_is_given_up() {
    let publisher = Publisher::new("demand-timeout");
    publisher.hangs();
    let server = Server::with("", &publisher.path("cam", "2s", "60s"));
    let asked = Instant::now();
    let mut clients: Vec<_> = (0..5).map(|_| ask(&server, "cam")).collect();
    let pid = publisher.wait_starts(1);
    for client in &mut clients {
        assert_answer(&client.response(), 400);
        assert!(asked.elapsed() >= Duration::from_millis(1900), "{:?}", asked.elapsed());
    }
    wait_end(pid);
    server.wait_log(&["closed: source of path 'cam' has timed out"], PATIENCE);
    server.wait_log(&["[path cam] runOnDemand command stopped: timed out"], PATIENCE);
    publisher.works();
    assert_answer(&ask(&server, "cam").response(), 200);
    publisher.wait_starts(2);
    assert_eq!(zombies(server.pid()), 0);
}

#[test]
fn who_leaves_while_waiting_is_forgotten() {
    if !ours_or_say_skipped("who_leaves_while_waiting_is_forgotten") {
        return;
    }
    let publisher = Publisher::new("demand-leave");
    publisher.hangs();
    let mut server = Server::with("", &publisher.path("cam", "3s", "1s"));
    let before = server.open_files();
    let mut clients: Vec<_> = (0..50).map(|_| ask(&server, "cam")).collect();
    let pid = publisher.wait_starts(1);
    assert_waits(&mut clients[0]);
    drop(clients);
    let mut last = ask(&server, "cam");
    assert_answer(&last.response(), 400);
    wait_end(pid);
    drop(last);
    // Pipes of the command were not there before, nor are they afterwards.
    wait_for("nothing is left", PATIENCE, || (server.open_files() <= before).then_some(()));
    assert_eq!(publisher.starts(), [pid]);
    server.assert_alive();
}

#[test]
fn a_killed_command_comes_back_with_the_stream() {
    let publisher = Publisher::new("demand-kill");
    let server = Server::with("", &publisher.path("cam", "60s", "60s"));
    let mut viewer = Rtsp::play_tcp(&server, "cam");
    viewer.frame(PATIENCE).unwrap();
    let pid = publisher.wait_starts(1);
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
    assert!(viewer.closed_within(PATIENCE));
    // Held until it is back.
    let mut viewer = Rtsp::play_tcp(&server, "cam");
    viewer.frame(PATIENCE).unwrap();
    assert_ne!(publisher.wait_starts(2), pid);
    let started = |line: &&String| line.contains("runOnDemand command started");
    assert_eq!(server.log_lines().iter().filter(started).count(), 1);
    assert_eq!(zombies(server.pid()), 0);
}

#[test]
fn one_that_is_not_run_again_is_started_by_the_next_viewer() {
    if !ours_or_say_skipped("one_that_is_not_run_again_is_started_by_the_next_viewer") {
        return;
    }
    let publisher = Publisher::new("demand-once");
    let path = publisher.path("cam", "600s", "600s").replace("Restart: yes", "Restart: no");
    let server = Server::with("", &path);
    let mut viewer = Rtsp::play_tcp(&server, "cam");
    let pid = publisher.wait_starts(1);
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
    assert!(viewer.closed_within(PATIENCE));
    let mut viewer = Rtsp::play_tcp(&server, "cam");
    viewer.frame(PATIENCE).unwrap();
    publisher.wait_starts(2);
}

#[test]
fn a_request_while_it_closes_is_answered() {
    let publisher = Publisher::new("demand-closing");
    let server = Server::with("", &publisher.path("cam", "30s", "1s"));
    // Closer and closer to the end of it, and beyond.
    for pause_ms in [0, 500, 900, 990, 1000, 1010, 1050, 1100] {
        let mut viewer = wait_for("the path is read", PATIENCE, || {
            let mut viewer = Rtsp::connect(&server);
            if viewer.describe("cam").status != 200 {
                return None;
            }
            let control = viewer.controls[0].clone();
            // What is stopped may go while we come.
            let answer = viewer.setup(&control, "RTP/AVP/TCP;unicast;interleaved=0-1");
            (answer.status == 200 && viewer.play().status == 200).then_some(viewer)
        });
        viewer.teardown();
        std::thread::sleep(Duration::from_millis(pause_ms));
    }
    let starts = publisher.starts();
    wait_end(starts[starts.len() - 1]);
    for pid in starts {
        assert!(is_gone(pid));
    }
    assert_eq!(zombies(server.pid()), 0);
}

#[test]
fn a_path_that_is_removed_lets_nobody_wait() {
    if !ours_or_say_skipped("a_path_that_is_removed_lets_nobody_wait") {
        return;
    }
    let publisher = Publisher::new("demand-removed");
    publisher.hangs();
    let server = Server::with_api("", &format!("{}  other:\n", publisher.path("cam", "60s", "60s")));
    let mut client = ask(&server, "cam");
    let pid = publisher.wait_starts(1);
    assert_waits(&mut client);
    // What has nothing to do with it changes nothing.
    server.api("POST", "/v3/config/paths/add/more", "{}").assert_ok();
    server.api("PATCH", "/v3/config/paths/patch/cam", r#"{"maxReaders":5}"#).assert_ok();
    assert_waits(&mut client);
    assert!(!is_gone(pid));
    server.api("DELETE", "/v3/config/paths/delete/cam", "").assert_ok();
    assert_answer(&client.response(), 400);
    wait_end(pid);
    server.wait_log(&["closed: terminated"], PATIENCE);
    server.wait_log(&["[path cam] runOnDemand command stopped"], PATIENCE);
}

#[test]
fn other_timeouts_hold_for_who_waits_already() {
    if !ours_or_say_skipped("other_timeouts_hold_for_who_waits_already") {
        return;
    }
    let publisher = Publisher::new("demand-patched");
    publisher.hangs();
    let server = Server::with_api("", &publisher.path("cam", "600s", "60s"));
    let mut client = ask(&server, "cam");
    let pid = publisher.wait_starts(1);
    assert_waits(&mut client);
    server.api("PATCH", "/v3/config/paths/patch/cam", r#"{"runOnDemandStartTimeout":"1s"}"#).assert_ok();
    assert_answer(&client.response(), 400);
    wait_end(pid);
}

#[test]
fn the_end_of_the_relay_is_the_end_of_the_wait() {
    if !ours_or_say_skipped("the_end_of_the_relay_is_the_end_of_the_wait") {
        return;
    }
    let publisher = Publisher::new("demand-end");
    publisher.hangs();
    let server = Server::with("", &publisher.path("cam", "600s", "600s"));
    let mut client = ask(&server, "cam");
    let pid = publisher.wait_starts(1);
    server.signal("-TERM");
    assert_answer(&client.response(), 400);
    wait_end(pid);
}

#[test]
fn it_is_the_same_on_two_cores() {
    if !ours_or_say_skipped("it_is_the_same_on_two_cores") {
        return;
    }
    let publisher = Publisher::new("demand-cores");
    let server = Server::with("engine:\n  cores: [0, 1]\n", &publisher.path("cam_~id", "30s", "1s"));
    let mut clients: Vec<_> = (0..24).map(|n| ask(&server, &format!("cam_{}", n % 4))).collect();
    for client in &mut clients {
        assert_answer(&client.response(), 200);
    }
    let mut viewers: Vec<_> = (0..8).map(|n| Rtsp::play_tcp(&server, &format!("cam_{}", n % 4))).collect();
    for viewer in &mut viewers {
        viewer.frame(PATIENCE).unwrap();
    }
    publisher.wait_starts(4);
    drop((viewers, clients));
    for pid in publisher.starts() {
        wait_end(pid);
    }
    assert_eq!(publisher.starts().len(), 4);
}

#[test]
fn who_may_not_read_starts_nothing() {
    let publisher = Publisher::new("demand-auth");
    let users = "authInternalUsers:\n- user: any\n  ips: ['127.0.0.1']\n  permissions: [{action: publish}]\n\
                 - user: eve\n  pass: word\n  permissions: [{action: read}]\n";
    let server = Server::with(users, &publisher.path("cam", "30s", "1s"));
    assert_eq!(Rtsp::connect(&server).describe("cam").status, 401);
    let mut wrong = Rtsp::connect(&server);
    wrong.authorization = Some("Basic ZXZlOndyb25n".into());
    assert_eq!(wrong.describe("cam").status, 401);
    assert_eq!(publisher.starts().len(), 0);
    let mut right = Rtsp::connect(&server);
    right.authorization = Some("Basic ZXZlOndvcmQ=".into());
    right.setup_all_tcp("cam");
    assert_eq!(right.play().status, 200);
    publisher.wait_starts(1);
}

#[test]
fn limits_are_looked_at_before_anything_is_started() {
    if !ours_or_say_skipped("limits_are_looked_at_before_anything_is_started") {
        return;
    }
    let publisher = Publisher::new("demand-limits");
    let paths = format!("{}    maxActive: 1\n", publisher.path("cam_~id", "30s", "30s"));
    let server = Server::with("", &paths);
    let viewer = Rtsp::play_tcp(&server, "cam_1");
    assert_answer(&ask(&server, "cam_2").response(), 453);
    publisher.wait_starts(1);
    drop(viewer);
}

#[test]
fn who_publishes_unasked_is_let_be() {
    let publisher = Publisher::new("demand-unasked");
    let server = Server::with("", &publisher.path("cam", "30s", "1s"));
    let camera = Camera::publish(&server, "cam", CameraPlan::default());
    camera.wait_frames(2);
    for _ in 0..2 {
        let mut viewer = Rtsp::play_tcp(&server, "cam");
        viewer.frame(PATIENCE).unwrap();
        viewer.teardown();
        std::thread::sleep(Duration::from_millis(1500));
    }
    assert!(!camera.was_closed());
    assert_eq!(publisher.starts().len(), 0);
    camera.leave();
    wait_for("the command takes over", PATIENCE, || {
        (ask(&server, "cam").response().status == 200).then_some(())
    });
    publisher.wait_starts(1);
}

#[test]
fn clients_are_sent_elsewhere() {
    let server = Server::with(
        "",
        "  cam:\n  there:\n    source: redirect\n    sourceRedirect: /cam\n  \
         far:\n    source: redirect\n    sourceRedirect: rtsp://192.0.2.1:8554/far\n  \
         spare:\n    fallback: /cam\n",
    );
    let location = |path: &str| {
        let answer = Rtsp::connect(&server).describe(path);
        assert_eq!(answer.status, 302, "{path}: {answer:?}");
        answer.header("Location").unwrap().to_owned()
    };
    assert_eq!(location("there"), server.url("cam"));
    assert_eq!(location("there?x=1"), server.url("cam"));
    assert_eq!(location("far"), "rtsp://192.0.2.1:8554/far");
    assert_eq!(location("spare"), server.url("cam"));
    for path in ["there", "spare"] {
        let mut client = Rtsp::connect(&server);
        let url = server.url(&format!("{path}/trackID=0"));
        assert_eq!(client.setup(&url, "RTP/AVP/TCP;unicast;interleaved=0-1").status, 404, "{path}");
    }
    let camera = Camera::publish(&server, "cam", CameraPlan::default());
    camera.wait_frames(2);
    for path in ["there", "spare"] {
        let args =
            ["-rtsp_transport", "tcp", "-i", &server.url(path), "-t", "1", "-c", "copy", "-f", "null", "-"];
        Tool::run("ffmpeg", args.map(str::to_owned)).ended().assert_success();
    }
    // With a stream of its own, it is that.
    let own = Camera::publish(&server, "spare", CameraPlan::default());
    own.wait_frames(2);
    server.wait_live("spare");
}

/// A camera behind another relay, and the lines of a path that pulls it on demand.
fn upstream(plan: CameraPlan) -> (Server, Camera) {
    let upstream = Server::start();
    let camera = Camera::publish(&upstream, "cam", plan);
    camera.wait_frames(2);
    (upstream, camera)
}

fn pulled(from: &Server, start_timeout: &str, close_after: &str) -> String {
    format!(
        "  cam:\n    source: {}\n    sourceOnDemand: yes\n    rtspTransport: tcp\n    \
         sourceOnDemandStartTimeout: {start_timeout}\n    sourceOnDemandCloseAfter: {close_after}\n",
        from.url("cam")
    )
}

fn count(server: &Server, part: &str) -> usize {
    server.log_lines().iter().filter(|line| line.contains(part)).count()
}

#[test]
fn a_source_on_demand_is_pulled_once_for_all_and_no_longer_than_that() {
    let (upstream, _camera) = upstream(CameraPlan::default());
    let server = Server::with("", &pulled(&upstream, "30s", "1s"));
    assert_eq!(count(&upstream, "is reading from path"), 0);
    let mut waiting: Vec<_> = (0..4).map(|_| ask(&server, "cam")).collect();
    for client in &mut waiting {
        assert_answer(&client.response(), 200);
    }
    let mut viewers: Vec<_> = (0..3).map(|_| Rtsp::play_tcp(&server, "cam")).collect();
    for viewer in &mut viewers {
        viewer.frame(PATIENCE).unwrap();
    }
    assert_eq!(count(&upstream, "is reading from path"), 1);
    drop((waiting, viewers));
    upstream.wait_log(&["[session ", "destroyed"], PATIENCE);
    server.wait_log(&["[path cam] [RTSP source] stopped: not needed by anyone"], PATIENCE);
    let mut viewer = Rtsp::play_tcp(&server, "cam");
    viewer.frame(PATIENCE).unwrap();
    assert_eq!(count(&upstream, "is reading from path"), 2);
}

#[test]
fn a_source_that_is_lost_is_pulled_again_for_the_next_viewer() {
    let (upstream, camera) = upstream(CameraPlan::default());
    let server = Server::with("", &pulled(&upstream, "3s", "600s"));
    let mut viewer = Rtsp::play_tcp(&server, "cam");
    viewer.frame(PATIENCE).unwrap();
    camera.leave();
    assert!(viewer.closed_within(PATIENCE));
    server.wait_log(&["[path cam] [RTSP source] stopped"], PATIENCE);
    // Nobody waits, nothing is tried. Who comes while it is away is told so in time.
    assert_answer(&ask(&server, "cam").response(), 400);
    server.wait_log(&["closed: source of path 'cam' has timed out"], PATIENCE);
    let camera = Camera::publish(&upstream, "cam", CameraPlan::default());
    camera.wait_frames(2);
    let mut viewer = Rtsp::play_tcp(&server, "cam");
    viewer.frame(PATIENCE).unwrap();
}

#[test]
fn a_publisher_takes_the_place_of_the_pull_that_stands_for_a_command() {
    if !ours_or_say_skipped("a_publisher_takes_the_place_of_the_pull_that_stands_for_a_command") {
        return;
    }
    let (upstream, _camera) = upstream(CameraPlan::default());
    let command =
        format!("ffmpeg -i {} -c copy -f rtsp rtsp://localhost:$RTSP_PORT/$MTX_PATH", upstream.url("cam"));
    let server =
        Server::with("", &format!("  cam:\n    runOnDemand: {command}\n    runOnDemandCloseAfter: 1s\n"));
    let mut viewer = Rtsp::play_tcp(&server, "cam");
    viewer.frame(PATIENCE).unwrap();
    let own = Camera::publish(&server, "cam", CameraPlan::default());
    own.wait_frames(2);
    assert!(viewer.closed_within(PATIENCE));
    server.wait_log(&["[path cam] [RTSP source] stopped: replaced by a publisher"], PATIENCE);
    // Nobody asked for it, and nobody ends it.
    Rtsp::play_tcp(&server, "cam").frame(PATIENCE).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    assert!(!own.was_closed());
    own.leave();
    let mut viewer = wait_for("the pull takes over", PATIENCE, || {
        let mut viewer = Rtsp::connect(&server);
        (viewer.describe("cam").status == 200).then_some(viewer)
    });
    let control = viewer.controls[0].clone();
    assert_eq!(viewer.setup(&control, "RTP/AVP/TCP;unicast;interleaved=0-1").status, 200);
    assert_eq!(count(&server, "[RTSP source] started on demand"), 2);
}
