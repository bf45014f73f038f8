//! No secret of the configuration is shown: not in the log, not by the API, not in the metrics.

use serde_json::{Value, json};

use crate::support::{
    Camera, CameraPlan, Mock, PATIENCE, Rtsp, Server, http::request, ours_or_say_skipped, server::API,
};

/// Every secret a configuration can hold; each would be found by this word.
const WORD: &str = "s3cr3t";

const SECRETS: &str = "\
authInternalUsers:
- {user: any, ips: [127.0.0.1], permissions: [{action: publish}, {action: api}, {action: metrics}]}
- {user: viewer, pass: s3cr3tA, permissions: [{action: read}]}
hlsCDNSecret: s3cr3tB
webrtcICEServers2:
- {url: 'turn:127.0.0.1:3478', username: u, password: s3cr3tC}
";
const PATHS: &str = "  cam: {}
  pulled: {source: 'rtsp://admin:s3cr3tD@127.0.0.1:1/x', sourceOnDemand: yes}
  pushed: {forward: [{dest: 'rtsp://admin:s3cr3tE@127.0.0.1:1/x'}]}
  run: {runOnRead: 'true rtsp://admin:s3cr3tF@127.0.0.1/x'}
  older: {publishUser: pub, publishPass: s3cr3tG}
  dead: {source: 'rtsp://admin:s3cr3tK@127.0.0.1:1/x?token=s3cr3tL', sourceReconnectGrace: 1s}
  native: {runOnDemand: 'ffmpeg -i rtsp://admin:s3cr3tM@127.0.0.1:1/x -c copy -f rtsp rtsp://u:s3cr3tN@localhost:$RTSP_PORT/native'}
  ran: {runOnDemand: 'true -i rtsp://admin:s3cr3tO@127.0.0.1:1/x', runOnDemandStartTimeout: 1s}
";

#[track_caller]
fn assert_hidden(what: &str, text: &str) {
    let found = text.lines().find(|line| line.contains(WORD));
    assert_eq!(found, None, "a secret in {what}");
}

#[test]
fn secrets_are_shown_nowhere() {
    if !ours_or_say_skipped("secrets_are_shown_nowhere") {
        return;
    }
    // A server that sends its viewers on with their password in the query, in circles.
    let upstream = Mock::start("on DESCRIBE redirect 302 {self}moved{n}?user=admin&password=s3cr3tV");
    let redirected =
        format!("  moved: {{source: '{}?pwd=s3cr3tW', rtspTransport: tcp}}\n", upstream.url("x"));
    let server = Server::with_api(SECRETS, &format!("{PATHS}{redirected}"));
    server.api("PATCH", "/v3/config/global/patch", r#"{"logLevel": "debug"}"#).assert_ok();
    server.wait_log(&["[path moved] [RTSP source]", "redirects more than"], PATIENCE);
    let camera = Camera::publish(&server, "cam", CameraPlan::default());
    camera.wait_frames(2);
    // Right, wrong, and in the URL, while the log is at its most talkative.
    for (authorization, query) in
        [("viewer:s3cr3tA", ""), ("viewer:s3cr3tX", ""), ("", "?pass=s3cr3tY&token=s3cr3tZ")]
    {
        use base64::{Engine, prelude::BASE64_STANDARD};
        let mut client = Rtsp::connect(&server);
        if !authorization.is_empty() {
            client.authorization = Some(format!("Basic {}", BASE64_STANDARD.encode(authorization)));
        }
        client.describe(&format!("cam{query}"));
    }
    for path in ["pulled", "dead", "native", "ran"] {
        Rtsp::connect(&server).describe(path);
    }
    for target in [
        "/v3/config/global/get",
        "/v3/config/get",
        "/v3/config/pathdefaults/get",
        "/v3/config/paths/list",
        "/v3/config/paths/get/pulled",
        "/v3/config/paths/get/pushed",
        "/v3/config/paths/get/dead",
        "/v3/config/paths/get/native",
        "/v3/config/paths/get/ran",
        "/v3/paths/list",
        "/v3/paths/get/dead",
        "/v3/paths/get/moved",
        "/v3/rtspsessions/list",
        "/v3/rtspconns/list",
        "/v3/summary",
    ] {
        let answer = server.get(target);
        assert_eq!(answer.status, 200, "{target}");
        assert_hidden(target, &answer.body);
    }
    for (method, target, body) in [
        ("POST", "/v3/config/paths/add/bad", json!({"source": "gopher://u:s3cr3tH@h"})),
        ("POST", "/v3/config/paths/add/bad", json!({"source": "rtsp://u:s3cr3tP@h:port/1"})),
        ("POST", "/v3/config/paths/add/bad", json!({"source": "rtsp://u:s3cr3tQ@h:0/1"})),
        ("POST", "/v3/config/paths/add/bad", json!({"source": "rtsp://u:s3cr3tR x@h/1"})),
        (
            "POST",
            "/v3/config/paths/add/bad",
            json!({"source": "rtsp://u:s3cr3tS@h/1", "runOnDemand": "echo s3cr3tT"}),
        ),
        ("PATCH", "/v3/config/paths/patch/dead", json!({"source": "rtsp://:s3cr3tU@h/1"})),
        (
            "PATCH",
            "/v3/config/global/patch",
            json!({"authInternalUsers": [{"user": "any", "pass": "s3cr3tI"}]}),
        ),
        ("PATCH", "/v3/config/global/patch", json!({"hlsCDNSecret": "s3cr3tJ not allowed"})),
    ] {
        let answer = server.api(method, target, &body.to_string());
        assert_eq!(answer.status, 400, "{body}");
        assert_hidden(target, &answer.body);
    }
    assert_hidden("the metrics", &server.metrics("/metrics?sessions=1").body);
    assert_hidden("the log", &server.log_text());
}

#[test]
fn what_was_hidden_and_comes_back_is_unchanged() {
    if !ours_or_say_skipped("what_was_hidden_and_comes_back_is_unchanged") {
        return;
    }
    let users = "\
authInternalUsers:
- {user: any, permissions: [{action: publish}, {action: read}]}
- {user: boss, pass: 's3cr3t', permissions: [{action: api}, {action: metrics}]}
";
    let server = Server::with(
        &format!("{API}{users}"),
        "  pulled: {source: 'rtsp://admin:s3cr3t@127.0.0.1:1/x', sourceOnDemand: yes}\n",
    );
    let boss = [("Authorization", "Bearer boss:s3cr3t")];
    let shown = request(server.api_port, "GET", "/v3/config/global/get", &boss, "").json();
    assert_eq!(shown["authInternalUsers"][1]["pass"], "<redacted>");
    let body = json!({"authInternalUsers": shown["authInternalUsers"], "readTimeout": "14s"}).to_string();
    let changed = request(server.api_port, "PATCH", "/v3/config/global/patch", &boss, &body);
    changed.assert_ok();
    let again: Value = request(server.api_port, "GET", "/v3/config/global/get", &boss, "").json();
    assert_eq!(again["readTimeout"], "14s", "the password still opens the door");
    let path = request(server.api_port, "GET", "/v3/config/paths/get/pulled", &boss, "").json();
    let body = json!({"source": path["source"], "maxReaders": 3}).to_string();
    request(server.api_port, "PATCH", "/v3/config/paths/patch/pulled", &boss, &body).assert_ok();
    let again = request(server.api_port, "GET", "/v3/config/paths/get/pulled", &boss, "").json();
    assert_eq!((&again["source"], &again["maxReaders"]), (&path["source"], &json!(3)));
}
