//! The customer's own document, line by line: its commands as they are written, host and placeholders filled in.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Camera, CameraPlan, PATIENCE, Rtsp, Server, wait_for};

/// Runs a command line as an operator types it.
#[track_caller]
fn shell(line: &str) -> String {
    let ran = Command::new("bash").args(["-o", "pipefail", "-c", line]).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{line}\n{said}");
    String::from_utf8(ran.stdout).unwrap()
}

#[track_caller]
fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

const OK: &str = r#"{"status":"ok"}"#;

#[test]
fn every_curl_of_the_document_works_as_written() {
    let server = Server::with_api("", "  milestone_~cameraId: {}\n");
    let (api, name) = (format!("http://127.0.0.1:{}", server.api_port), "gate_7");
    let camera = Camera::publish(&server, "milestone_17", CameraPlan::default());
    camera.wait_frames(2);
    let _reader = Rtsp::play_tcp(&server, "milestone_17");

    let paths = parsed(&shell(&format!("curl -s {api}/v3/paths/list")));
    assert_eq!(paths["itemCount"], 1, "{paths}");
    assert_eq!(paths["items"][0]["name"], "milestone_17");
    assert_eq!(paths["items"][0]["confName"], "milestone_~cameraId");
    assert_eq!(paths["items"][0]["ready"], true);

    let path = parsed(&shell(&format!("curl -s {api}/v3/paths/get/milestone_17")));
    assert_eq!(path["source"]["type"], "rtspSession");
    assert_eq!(path["readers"][0]["type"], "rtspSession");

    let added = shell(&format!(
        r#"curl -s -X POST {api}/v3/config/paths/add/{name} \
  -H "Content-Type: application/json" \
  -d '{{
    "source": "publisher",
    "runOnDemand": "ffmpeg -i rtsp://milestone:554/{{camera_id}} -c copy -f rtsp rtsp://localhost:8554/{name}",
    "runOnDemandRestart": true,
    "runOnDemandCloseAfter": "10s"
  }}'"#
    ));
    assert_eq!(added, OK);
    let conf = parsed(&shell(&format!("curl -s {api}/v3/config/paths/get/{name}")));
    assert_eq!(conf["runOnDemandCloseAfter"], "10s");
    assert_eq!(
        conf["runOnDemand"],
        "ffmpeg -i rtsp://milestone:554/{camera_id} -c copy -f rtsp rtsp://localhost:8554/gate_7"
    );

    let conns = parsed(&shell(&format!("curl -s {api}/v3/rtspconns/list")));
    assert_eq!(conns["itemCount"], 2, "{conns}");

    let removed = shell(&format!("curl -s -X POST {api}/v3/config/paths/remove/{name}"));
    assert_eq!(removed, OK);
    assert_eq!(server.get(&format!("/v3/config/paths/get/{name}")).status, 404);

    let variant = shell(&format!("curl -s {api}/v3/config/get | jq .hlsVariant"));
    assert_eq!(variant.trim(), r#""lowLatency""#);

    let metrics = shell(&format!("curl -s http://127.0.0.1:{}/metrics", server.metrics_port));
    for line in [
        "mediamtx_paths_count 1",
        "mediamtx_rtsp_conns_count 2",
        "mediamtx_hls_sessions_count 0",
        "mediamtx_webrtc_sessions_count 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "no line '{line}' in\n{metrics}");
    }
    for name in ["mediamtx_path_bytes_received", "mediamtx_path_bytes_sent"] {
        assert!(metrics.contains(&format!("\n{name}{{path=\"milestone_17\"}} ")), "{name}:\n{metrics}");
    }
}

#[test]
fn a_camera_lives_from_add_to_remove() {
    let server = Server::with_api("", "");
    assert_eq!(Rtsp::connect(&server).describe("cam").status, 400, "not configured yet");
    server.api("POST", "/v3/config/paths/add/cam", r#"{"maxReaders": 1}"#).assert_ok();
    // The change is in effect when it is answered.
    let camera = Camera::publish(&server, "cam", CameraPlan::default());
    camera.wait_frames(2);
    let mut reader = Rtsp::play_tcp(&server, "cam");
    assert!(reader.frame(PATIENCE).is_some());
    let sessions = server.get("/v3/rtspsessions/list").json();
    let states: Vec<_> = sessions["items"].as_array().unwrap().iter().map(|item| &item["state"]).collect();
    assert_eq!(states, ["publish", "read"], "{sessions}");

    let mut second = Rtsp::connect(&server);
    second.describe("cam");
    assert_eq!(second.setup(&second.url("cam/trackID=0"), "RTP/AVP/TCP;unicast;interleaved=0-1").status, 453);
    server.api("PATCH", "/v3/config/paths/patch/cam", r#"{"maxReaders": 2}"#).assert_ok();
    let mut second = Rtsp::play_tcp(&server, "cam");
    assert!(second.frame(PATIENCE).is_some());
    assert!(!camera.was_closed(), "a limit was changed, not the camera");

    let id = |peer: &str| {
        let sessions = server.get("/v3/rtspsessions/list").json();
        let found = sessions["items"].as_array().unwrap().iter().find(|item| item["remoteAddr"] == peer);
        found.map(|item| item["id"].as_str().unwrap().to_owned())
    };
    let kicked = id(&reader.local()).unwrap();
    server.api("POST", &format!("/v3/rtspsessions/kick/{kicked}"), "").assert_ok();
    assert!(reader.closed_within(PATIENCE));
    assert_eq!(id(&reader.local()), None);
    assert_eq!(server.api("POST", &format!("/v3/rtspsessions/kick/{kicked}"), "").status, 404);
    assert!(second.frame(PATIENCE).is_some());

    server.api("DELETE", "/v3/config/paths/delete/cam", "").assert_ok();
    assert!(second.closed_within(PATIENCE));
    wait_for("the publisher is closed too", PATIENCE, || camera.was_closed().then_some(()));
    assert_eq!(server.get("/v3/paths/get/cam").status, 404);
    assert_eq!(server.get("/v3/paths/list").json(), json!({"itemCount": 0, "pageCount": 0, "items": []}));
}

#[test]
fn a_change_that_cannot_be_is_refused_with_a_sentence_and_nothing_changes() {
    let server = Server::with_api("", "  cam: {maxReaders: 3}\n");
    let before = server.get("/v3/config/paths/get/cam").json();
    for (method, target, body, status, sentence) in [
        ("POST", "add/cam", "{}", 400, "path already exists"),
        ("POST", "add/other", r#"{"maxReader": 1}"#, 400, "unknown field \"maxReader\""),
        ("POST", "add/other", r#"{"maxReaders": -1}"#, 400, "maxReaders"),
        ("POST", "add/other", r#"{"source": "gopher://x"}"#, 400, "source"),
        ("POST", "add//x", "{}", 400, "can't begin with a slash"),
        ("POST", "add/", "{}", 400, "invalid name"),
        ("POST", "add/other", "", 400, ""),
        ("POST", "add/other", "{", 400, ""),
        ("PATCH", "patch/none", "{}", 404, "path not found"),
        ("PATCH", "patch/cam", r#"{"maxReaders": "many"}"#, 400, "maxReaders"),
        ("DELETE", "delete/none", "", 404, "path not found"),
        ("POST", "remove/none", "", 404, "path not found"),
    ] {
        let answer = server.api(method, &format!("/v3/config/paths/{target}"), body);
        assert_eq!(answer.status, status, "{method} {target} {body}: {answer:?}");
        let error = answer.json();
        assert_eq!(error["status"], "error");
        assert!(error["error"].as_str().unwrap().contains(sentence), "{error}, expected {sentence}");
    }
    assert_eq!(server.get("/v3/config/paths/get/cam").json(), before);
    assert_eq!(server.get("/v3/config/paths/list").json()["itemCount"], 1);
}

#[test]
fn paths_of_the_api_outlive_a_restart_with_a_state_directory() {
    let dir = crate::support::scratch_dir("state");
    let globals = format!("engine: {{stateDir: {}}}\n", dir.display());
    let server = Server::with_api(&globals, "  cam: {}\n");
    server.api("POST", "/v3/config/paths/add/added", r#"{"maxReaders": 7}"#).assert_ok();
    drop(server);
    let server = Server::with_api(&globals, "  cam: {}\n");
    assert_eq!(server.get("/v3/config/paths/get/added").json()["maxReaders"], 7);
    server.api("DELETE", "/v3/config/paths/delete/added", "").assert_ok();
    drop(server);
    let server = Server::with_api(&globals, "  cam: {}\n");
    assert_eq!(server.get("/v3/config/paths/get/added").status, 404);
    assert_eq!(server.get("/v3/config/paths/get/cam").status, 200);
}
