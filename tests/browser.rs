//! Chromium watches a camera: in a page of ours on another origin with nothing but hls.js, and in the server's own page.
//! The camera burns the time into its pictures (`browser/clock.mjs`), so that what is on the screen tells its age.
//!
//! The bounds are those of a machine with other things to do; `perf/browser/` measures.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use serde_json::Value;

use crate::support::{
    PATIENCE, Server,
    server::is_ours,
    tools::{Ended, Tool},
};

/// A whole visit, with the start of a browser.
const VISIT_MAX: Duration = Duration::from_secs(120);

fn script(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser").join(name);
    file.to_str().unwrap().to_owned()
}

/// Beside cargo's own files, where `tests/run` puts it too.
fn node_modules() -> &'static Path {
    static INSTALLED: OnceLock<PathBuf> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("browser");
        Tool::run(&script("install"), [&dir]).ended_within(VISIT_MAX).assert_success();
        dir
    })
}

fn node(name: &str, args: &[&str]) -> Tool {
    let modules = node_modules().to_str().unwrap().to_owned();
    let args = std::iter::once(script(name)).chain(args.iter().map(|arg| (*arg).to_owned()));
    Tool::run_with_env("node", args, &[("CORECAST_NODE_MODULES", modules)])
}

/// What a script printed at its end.
#[track_caller]
fn told(ended: &Ended) -> Value {
    ended.assert_success();
    let line = ended.stdout.lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {:?}", ended.stdout))
}

struct Site {
    server: Server,
    http: String,
}

fn site(globals: &str) -> Site {
    let server = Server::with(&format!("hls: yes\n{globals}"), "  all_others:\n");
    let http = format!("http://127.0.0.1:{}", server.hls_port);
    Site { server, http }
}

fn camera(server: &Server, path: &str) -> Tool {
    let camera = node("publish.mjs", &[&server.url(path)]);
    server.wait_live(path);
    camera
}

/// Where a picture of the page is left for people to look at.
fn screenshot(name: &str) -> String {
    let dir = node_modules().parent().unwrap().join("screenshots");
    std::fs::create_dir_all(&dir).unwrap();
    dir.join(name).to_str().unwrap().to_owned()
}

#[track_caller]
fn number(saw: &Value, pointer: &str) -> f64 {
    let value = saw.pointer(pointer).and_then(Value::as_f64);
    value.unwrap_or_else(|| panic!("no number at {pointer} of {saw:#}"))
}

/// Pictures came at a rate, in their order, with a clock that could be read, and not from long ago.
#[track_caller]
fn assert_plays(saw: &Value, seconds: f64) {
    assert!(number(saw, "/pictures") > seconds * 8.0, "too few pictures: {saw:#}");
    assert!(number(saw, "/distinct") > number(saw, "/pictures") * 0.8, "it stands still: {saw:#}");
    assert!(number(saw, "/unread") <= number(saw, "/pictures") * 0.1, "no clock to be read: {saw:#}");
    assert_eq!(number(saw, "/backwards"), 0.0, "time goes backwards: {saw:#}");
    assert!(number(saw, "/latency/median") < 4_000.0, "not live: {saw:#}");
    assert_eq!(saw.pointer("/sizes/0"), Some(&Value::from("640x360")), "{saw:#}");
}

#[test]
fn hls_js_on_another_origin_plays_live() {
    let site = site("");
    let _camera = camera(&site.server, "cam");
    let playlist = format!("{}/cam/index.m3u8", site.http);
    let shot = screenshot("hls-js.png");
    let visit = node("watch.mjs", &["own", &playlist, "--seconds", "6", "--screenshot", &shot]);
    let saw = told(&visit.ended_within(VISIT_MAX));
    assert_plays(&saw, 6.0);
    assert!(number(&saw, "/longestGap") < 4_000.0, "it stalls: {saw:#}");
    let fatal = |fault: &&Value| fault.get(2) == Some(&Value::from(true)) || fault.is_string();
    let faults = saw["faults"].as_array().unwrap();
    assert_eq!(faults.iter().find(fatal), None, "{saw:#}");
}

#[test]
fn the_page_waits_for_its_stream_plays_it_and_finds_it_again() {
    let site = site("");
    let (page, rtsp) = (format!("{}/cam/", site.http), site.server.url("cam"));
    let visit = node("page.mjs", &[&page, &rtsp, "--screenshot", &screenshot("page.png")]);
    let saw = told(&visit.ended_within(VISIT_MAX));
    assert_eq!(saw["absent"], "stream not found, retrying in some seconds", "{saw:#}");
    assert_eq!(saw["playing"], "", "{saw:#}");
    let video = serde_json::json!({"controls": true, "muted": true, "paused": false, "playsInline": true});
    assert_eq!(saw["video"], video, "{saw:#}");
    assert_plays(&saw, 4.0);
    for step in ["/started", "/again"] {
        assert!(number(&saw, step) < 20_000.0, "{step} took long: {saw:#}");
    }
    assert_eq!(saw["faults"], Value::Array(Vec::new()), "{saw:#}");
    if is_ours() {
        let shown = saw["readout"].as_str().unwrap();
        assert!(shown.starts_with("latency ") && shown.contains(" s"), "latency shown: {shown:?}");
    }
}

#[test]
fn the_page_takes_the_password_that_the_browser_was_given() {
    let users = "authInternalUsers:\n- user: any\n  permissions: [{action: publish}]\n\
                 - user: viewer\n  pass: secret\n  permissions: [{action: read}]\n";
    let site = site(users);
    let _camera = node("publish.mjs", &[&site.server.url("cam")]);
    site.server.wait_log(&["is publishing to path 'cam'"], PATIENCE);
    let page = format!("{}/cam/?controls=0", site.http);
    let with = ["builtin", &page, "--seconds", "3", "--user", "viewer", "--password", "secret"];
    assert_plays(&told(&node("watch.mjs", &with).ended_within(VISIT_MAX)), 3.0);
}
