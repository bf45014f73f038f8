//! `GET /metrics` of a relay at work: three sets of names agree, promtool reads the page, no counter goes back.

use std::{
    collections::HashMap,
    io::Write,
    process::{Command, Stdio},
};

use crate::support::{Camera, CameraPlan, PATIENCE, Server, flow::Watcher, ours_or_say_skipped, wait_for};

struct Relay {
    server: Server,
}

impl Relay {
    fn start() -> Self {
        Self { server: Server::with_api("", "  all_others:\n  idle:\n") }
    }

    /// The page, which must be there and be what it says.
    #[track_caller]
    fn scrape(&self, query: &str) -> Page {
        let answer = self.server.metrics(&format!("/metrics?{query}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        Page(answer.body)
    }
}

struct Page(String);

impl Page {
    /// Each sample by how it is written.
    fn samples(&self) -> HashMap<&str, f64> {
        let lines = self.0.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines
            .map(|line| {
                let (series, value) = line.rsplit_once(' ').unwrap();
                (series, value.parse().unwrap())
            })
            .collect()
    }

    #[track_caller]
    fn value(&self, series: &str) -> f64 {
        *self.samples().get(series).unwrap_or_else(|| panic!("no {series} in\n{}", self.0))
    }

    /// The samples that only grow, by how they are written.
    fn growing(&self) -> HashMap<&str, f64> {
        let gauges: Vec<&str> =
            self.0.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" gauge")).collect();
        let mut samples = self.samples();
        samples.retain(|series, _| {
            let name = series.split('{').next().unwrap();
            let count = name.starts_with("mediamtx_") && name.ends_with("_count");
            !(count || gauges.contains(&name))
        });
        samples
    }
}

/// A camera, a reader of it, and a page that knows of both and of what they moved.
fn relay_at_work(relay: &Relay) -> (Camera, Watcher, Page) {
    let camera = Camera::publish(&relay.server, "cam", CameraPlan::default());
    camera.wait_frames(1);
    let watcher = Watcher::start(&relay.server, "cam", &camera);
    watcher.wait_more(50);
    let page = wait_for("the reader and its bytes are counted", PATIENCE, || {
        let page = relay.scrape("");
        let sent = page.samples().get("rtsp_sessions_outbound_bytes{state=\"read\"}").copied();
        let readers = page.samples().get("rtsp_sessions{state=\"read\"}").copied();
        (readers == Some(1.0) && sent > Some(0.0)).then_some(page)
    });
    (camera, watcher, page)
}

#[test]
fn three_sets_of_names_tell_the_same() {
    if !ours_or_say_skipped("metrics under the customer's names") {
        return;
    }
    let relay = Relay::start();
    let (_camera, _watcher, page) = relay_at_work(&relay);
    assert_eq!(page.value("mediamtx_paths_count"), 1.0);
    assert_eq!(page.value("paths{name=\"cam\",state=\"ready\"}"), 1.0);
    assert_eq!(page.value("paths{name=\"idle\",state=\"notReady\"}"), 1.0);
    assert_eq!(page.value("paths_readers{name=\"cam\",readerType=\"rtspSession\",state=\"ready\"}"), 1.0);
    assert_eq!(page.value("rtsp_sessions{state=\"publish\"}"), 1.0);
    assert_eq!(page.value("mediamtx_rtsp_conns_count"), page.value("rtsp_conns"));
    for (ours, new, old) in [
        ("mediamtx_path_bytes_received", "paths_inbound_bytes", "paths_bytes_received"),
        ("mediamtx_path_bytes_sent", "paths_outbound_bytes", "paths_bytes_sent"),
    ] {
        let bytes = page.value(&format!("{ours}{{path=\"cam\"}}"));
        assert!(bytes > 10_000.0, "{ours}: {bytes}");
        assert_eq!(page.value(&format!("{new}{{name=\"cam\",state=\"ready\"}}")), bytes);
        assert_eq!(page.value(&format!("{old}{{name=\"cam\",state=\"ready\"}}")), bytes);
    }
    assert!(page.value("corecast_relay_latency_seconds_count") > 0.0);
    assert!(page.value("corecast_time_to_first_frame_seconds_count") > 0.0);
    assert!(page.value("corecast_shard_ring_bytes{shard=\"0\"}") >= 0.0);
    assert_eq!(page.value("corecast_config_reload_success"), 1.0);
    assert!(page.value("process_open_fds") > 3.0);
    assert!(!page.0.contains("id=\""), "no series per session unless asked for");
}

/// A page, checked by promtool; its samples by how they are written.
#[track_caller]
pub fn checked_page(server: &Server, query: &str) -> HashMap<String, f64> {
    let page = Page(server.metrics(&format!("/metrics?{query}")).body);
    assert_eq!(promtool(&page).iter().find(|line| !of_label_names(line)), None, "{}", page.0);
    page.samples().into_iter().map(|(series, value)| (series.to_owned(), value)).collect()
}

#[test]
fn promtool_finds_nothing_but_the_label_names_that_mediamtx_chose() {
    if !ours_or_say_skipped("promtool on the metrics") {
        return;
    }
    let relay = Relay::start();
    let unused = relay.scrape("");
    assert_eq!(promtool(&unused).iter().find(|line| !of_label_names(line)), None);
    let (_camera, _watcher, page) = relay_at_work(&relay);
    for page in [page, relay.scrape("sessions=1")] {
        assert_eq!(promtool(&page).iter().find(|line| !of_label_names(line)), None, "{}", page.0);
    }
    // Proof that it looks.
    assert!(!promtool(&Page("# TYPE a_total gauge\na_total 1\n".to_owned())).is_empty());
    assert!(!promtool(&Page("a{b=\"\\x\"} 1\n".to_owned())).is_empty());
}

/// `readerType` and `remoteAddr` of contract §3.
fn of_label_names(complaint: &str) -> bool {
    let metric = complaint.strip_suffix(" label names should be written in 'snake_case' not 'camelCase'");
    let is_theirs = |metric: &str| {
        metric == "paths_readers" || metric.starts_with("rtsp_sessions") || metric.starts_with("hls_sessions")
    };
    metric.is_some_and(is_theirs)
}

/// What `promtool check metrics` says.
fn promtool(page: &Page) -> Vec<String> {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("promtool is needed by this test: {e}"));
    // It reads everything before it says anything.
    child.stdin.take().unwrap().write_all(page.0.as_bytes()).unwrap();
    let said = child.wait_with_output().unwrap();
    let text = String::from_utf8(said.stdout).unwrap() + &String::from_utf8(said.stderr).unwrap();
    assert_eq!(said.status.success(), text.is_empty(), "{}: {text}", said.status);
    text.lines().map(str::to_owned).collect()
}

#[test]
fn no_counter_goes_back_when_a_stream_ends_and_comes_again() {
    if !ours_or_say_skipped("counters that do not go back") {
        return;
    }
    let relay = Relay::start();
    let (camera, watcher, first) = relay_at_work(&relay);
    camera.leave();
    watcher.wait_closed();
    relay.server.wait_gone("cam");
    let between = wait_for("the sessions are gone", PATIENCE, || {
        let page = relay.scrape("");
        (page.value("rtsp_sessions{state=\"read\"}") == 0.0).then_some(page)
    });
    let (_camera, _watcher, second) = relay_at_work(&relay);
    for (before, after) in [(&first, &between), (&between, &second)] {
        let after = after.growing();
        for (series, value) in before.growing() {
            // A path's series carries its state and ends with it.
            let Some(&now) = after.get(series) else {
                assert!(series.starts_with("paths_"), "{series} is gone");
                continue;
            };
            assert!(now >= value, "{series} went from {value} to {now}");
        }
    }
    let received = "mediamtx_path_bytes_received{path=\"cam\"}";
    wait_for("the path counts on", PATIENCE, || {
        (relay.scrape("").value(received) > first.value(received)).then_some(())
    });
}

#[test]
fn sessions_have_series_of_their_own_when_asked_for() {
    if !ours_or_say_skipped("series per session on request") {
        return;
    }
    let relay = Relay::start();
    let (_camera, _watcher, _) = relay_at_work(&relay);
    let page = relay.scrape("type=rtsp_sessions");
    let samples = page.samples();
    let of_cam = |state: &str| {
        samples
            .keys()
            .filter(|s| {
                s.starts_with("rtsp_sessions{id=\"") && s.contains("path=\"cam\"") && s.contains(state)
            })
            .count()
    };
    assert_eq!([of_cam("state=\"publish\""), of_cam("state=\"read\"")], [1, 1], "{}", page.0);
    assert!(samples.keys().all(|series| series.starts_with("rtsp_sessions")), "{}", page.0);
}
