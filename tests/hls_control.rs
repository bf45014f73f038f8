//! What an operator sees of HLS, and can do about it: API, metrics, hooks, credentials, reload.

use std::{fs, net::TcpStream};

use serde_json::{Value, json};

use crate::{
    metrics::checked_page,
    support::{PATIENCE, Server, http::Answer, ours_or_say_skipped, scratch_dir, wait_for},
};

const DEMO: &str = "  demo: {source: demo}\n";

fn start(globals: &str, paths: &str) -> Server {
    Server::with_api(&format!("hls: yes\n{globals}"), paths)
}

/// A viewer's first request; where its media playlist is.
fn watch(server: &Server, path: &str) -> String {
    let answer = server.hls(&format!("/{path}/index.m3u8?who=me"), &[("User-Agent", "Safari")]);
    assert_eq!(answer.status, 200, "{answer:?}");
    let playlist = answer.body.lines().rfind(|line| !line.starts_with('#') && !line.is_empty());
    format!("/{path}/{}", playlist.unwrap_or_else(|| panic!("{answer:?}")))
}

fn items(server: &Server, list: &str) -> Vec<Value> {
    let answer = server.get(&format!("/v3/{list}/list"));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["items"].as_array().unwrap().clone()
}

#[track_caller]
fn assert_error(answer: &Answer, status: u16, error: &str) {
    assert_eq!((answer.status, answer.json()), (status, json!({"status": "error", "error": error})));
}

#[test]
fn a_viewer_is_seen_counted_and_kicked() {
    if !ours_or_say_skipped("HLS in API and metrics") {
        return;
    }
    let dir = scratch_dir("hls-hooks");
    let report = dir.join("report.sh");
    let text = format!("echo \"$1 $MTX_READER_TYPE $MTX_READER_ID $MTX_QUERY\" >> {}/told\n", dir.display());
    fs::write(&report, text).unwrap();
    let hook = |name: &str| format!("    runOn{name}: sh {} {name}\n", report.display());
    let paths = format!("  demo:\n    source: demo\n{}{}", hook("Read"), hook("Unread"));
    let server = start("", &paths);
    let told = |count: usize| {
        let read = || fs::read_to_string(dir.join("told")).ok().filter(|text| text.lines().count() == count);
        wait_for("hooks run", PATIENCE, read).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    server.wait_live("demo");
    assert!(items(&server, "hlsmuxers").is_empty() && items(&server, "hlssessions").is_empty());
    assert_eq!(checked_page(&server, "")["hls_sessions"], 0.0);

    let playlist = watch(&server, "demo");
    assert_eq!(server.hls(&playlist, &[]).status, 200);
    let sessions = items(&server, "hlssessions");
    let [session] = &sessions[..] else { panic!("{sessions:?}") };
    let id = session["id"].as_str().unwrap();
    for (key, value) in [("path", "demo"), ("query", "who=me"), ("userAgent", "Safari"), ("user", "")] {
        assert_eq!(session[key], json!(value), "{key}");
    }
    assert_eq!(server.get(&format!("/v3/hlssessions/get/{id}")).json()["id"], session["id"]);
    let muxer = server.get("/v3/hlsmuxers/get/demo").json();
    assert_eq!((&muxer["path"], &items(&server, "hlsmuxers").len()), (&json!("demo"), &1));
    let path = server.get("/v3/paths/get/demo").json();
    assert_eq!(path["readers"], json!([{"type": "hlsSession", "id": id}]));
    let summary = server.get("/v3/summary").json();
    assert_eq!((&summary["hlsMuxers"], &summary["hlsSessions"]), (&json!(1), &json!(1)));
    assert_eq!(told(1), [format!("Read hlsSession {id} who%3Dme")]);

    let sent = "hls_sessions_outbound_bytes";
    let before = wait_for("what was sent is counted", PATIENCE, || {
        let page = checked_page(&server, "");
        let answers = page["corecast_http_answers_total{code=\"2xx\",server=\"hls\"}"];
        let playlists = page["corecast_hls_playlists_rendered_total"];
        (page[sent] > 0.0 && playlists > 0.0 && answers >= 2.0).then_some(page)
    });
    for (series, value) in [
        ("hls_sessions", 1.0),
        ("mediamtx_hls_sessions_count", 1.0),
        ("hls_muxers{name=\"demo\"}", 1.0),
        ("paths_readers{name=\"demo\",readerType=\"hlsSession\",state=\"ready\"}", 1.0),
    ] {
        assert_eq!(before[series], value, "{series}");
    }
    let one_by_one = checked_page(&server, "sessions=1");
    let series = |series: &&String| series.starts_with(&format!("hls_sessions{{id=\"{id}\",path=\"demo\""));
    assert_eq!(one_by_one.keys().filter(series).count(), 1);

    server.api("POST", &format!("/v3/hlssessions/kick/{id}"), "").assert_ok();
    assert_error(&server.get(&format!("/v3/hlssessions/get/{id}")), 404, "session not found");
    assert_error(&server.api("POST", &format!("/v3/hlssessions/kick/{id}"), ""), 404, "session not found");
    assert!(matches!(server.hls(&playlist, &[]).status, 401 | 404), "its URLs are of no use any more");
    assert_eq!(told(2)[1], format!("Unread hlsSession {id} who%3Dme"));
    let after = checked_page(&server, "");
    assert_eq!((after["hls_sessions"], after["mediamtx_hls_sessions_count"]), (0.0, 0.0));
    assert!(after[sent] >= before[sent], "sums do not go back");
}

#[test]
fn the_credentials_of_a_path_protect_it_over_hls() {
    if !ours_or_say_skipped("credentials over HLS") {
        return;
    }
    let server =
        start("", "  open: {source: demo}\n  cam: {source: demo, readUser: viewer, readPass: secret}\n");
    let index = "/cam/index.m3u8";
    let unknown = server.hls(index, &[]);
    assert_error(&unknown, 401, "authentication error");
    assert_eq!(unknown.header("www-authenticate"), Some("Basic realm=\"mediamtx\""));
    // viewer:wrong; it may take 4 s, and nobody else waits meanwhile.
    let wrong = server.hls(index, &[("Authorization", "Basic dmlld2VyOndyb25n")]);
    assert_error(&wrong, 401, "authentication error");
    assert_eq!(wrong.header("www-authenticate"), None);
    server.wait_log(&["[HLS] [conn 127.0.0.1:", "failed to authenticate: authentication failed"], PATIENCE);
    server.wait_live("open");
    watch(&server, "open");
    // viewer:secret
    for credentials in ["Basic dmlld2VyOnNlY3JldA==", "Bearer viewer:secret"] {
        let answer = wait_for("the stream is there", PATIENCE, || {
            let answer = server.hls(index, &[("Authorization", credentials)]);
            (answer.status != 404).then_some(answer)
        });
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let users: Vec<_> = items(&server, "hlssessions").iter().map(|session| session["user"].clone()).collect();
    assert_eq!(users, [json!(""), json!("viewer"), json!("viewer")]);
}

#[test]
fn it_is_switched_off_and_on_while_running_and_a_path_is_always_packaged_on_demand() {
    if !ours_or_say_skipped("HLS switched off and on") {
        return;
    }
    let server = start("", DEMO);
    server.wait_live("demo");
    watch(&server, "demo");
    let listens = || TcpStream::connect(("127.0.0.1", server.hls_port)).is_ok();
    server.api("PATCH", "/v3/config/global/patch", r#"{"hls":false}"#).assert_ok();
    assert_eq!(server.get("/v3/hlsmuxers/list").status, 404);
    wait_for("nobody listens", PATIENCE, || (!listens()).then_some(()));
    assert!(!checked_page(&server, "").contains_key("hls_sessions"));
    server.api("PATCH", "/v3/config/global/patch", r#"{"hls":true}"#).assert_ok();
    wait_for("it listens", PATIENCE, || listens().then_some(()));
    assert!(items(&server, "hlsmuxers").is_empty() && items(&server, "hlssessions").is_empty());

    let patch = |body: &str| server.api("PATCH", "/v3/config/paths/patch/demo", body).assert_ok();
    patch(r#"{"hlsAlwaysRemux":true}"#);
    wait_for("the path is packaged", PATIENCE, || (items(&server, "hlsmuxers").len() == 1).then_some(()));
    server.wait_log(&["[HLS] [muxer demo] created automatically"], PATIENCE);
}
