//! Which commands of `runOnDemand` are served by a pull, and which are run.

use std::time::Duration;

use corecast_hub::settings::{BroughtBy, PullSettings, PullTransport};
use serde_json::json;

use super::{
    super::store::{Edit, View},
    body, load, load_with, view,
};

/// What an entry does with a command: pulls a URL for the path `name` over a transport, or runs it.
fn verdict(key: &str, command: &str, name: &str) -> Option<(String, PullTransport)> {
    // Single quotes inside are doubled in YAML.
    let text = format!("paths:\n  '{key}':\n    runOnDemand: '{}'\n", command.replace('\'', "''"));
    let env = [("SRC", "rtsp://u:p@cam/env"), ("DOLLAR", "pa$G1"), ("EMPTY", "")];
    let view = load_with(&text, &env).unwrap().view;
    let (path, _) = view.serving(name).unwrap();
    match &path.settings.demand.as_ref().unwrap().brought_by {
        BroughtBy::Pull(pull) => {
            assert!(path.hooks.demand.command.is_empty(), "{command}");
            Some((pull.url.expand(name, "q=1"), pull.transport))
        }
        BroughtBy::Command => {
            assert_eq!(path.hooks.demand.command, command);
            None
        }
    }
}

/// Under the key `cam1`.
const PULLED: &[(&str, &str, PullTransport)] = {
    use PullTransport::{Automatic, Multicast, Tcp, Udp};
    &[
        ("ffmpeg -i rtsp://h/1 -c copy -f rtsp rtsp://localhost:8554/cam1", "rtsp://h/1", Automatic),
        ("ffmpeg -i rtsp://h/1 -c copy -f rtsp rtsp://127.0.0.1:8554/cam1", "rtsp://h/1", Automatic),
        ("ffmpeg -i rtsp://h/1 -c copy -f rtsp rtsp://[::1]:8554/cam1", "rtsp://h/1", Automatic),
        ("ffmpeg -i rtsp://h/1 -c copy -f rtsp rtsp://localhost:$RTSP_PORT/cam1", "rtsp://h/1", Automatic),
        (
            "ffmpeg -i rtsp://h/1 -c copy -f rtsp rtsp://localhost:${RTSP_PORT}/$MTX_PATH",
            "rtsp://h/1",
            Automatic,
        ),
        ("ffmpeg -i rtsp://h/1 -c copy -f rtsp rtsp://localhost:8554/$RTSP_PATH", "rtsp://h/1", Automatic),
        (
            "ffmpeg -i rtsp://h/$MTX_PATH -c copy -f rtsp rtsp://localhost:8554/cam1",
            "rtsp://h/cam1",
            Automatic,
        ),
        ("ffmpeg -i $SRC -c copy -f rtsp rtsp://localhost:8554/cam1", "rtsp://u:p@cam/env", Automatic),
        (
            "ffmpeg -i rtsp://u:p@h:5/1?a=b -c copy -f rtsp rtsp://localhost:8554/cam1",
            "rtsp://u:p@h:5/1?a=b",
            Automatic,
        ),
        (
            "ffmpeg -i \"rtsp://h/1?a=1&b=2\" -c copy -f rtsp 'rtsp://localhost:8554/cam1'",
            "rtsp://h/1?a=1&b=2",
            Automatic,
        ),
        ("/usr/bin/ffmpeg -i rtsp://h/1 -c copy -f rtsp rtsp://localhost:8554/cam1", "rtsp://h/1", Automatic),
        (
            "ffmpeg -rtsp_transport tcp -i rtsp://h/1 -c copy -f rtsp rtsp://localhost:8554/cam1",
            "rtsp://h/1",
            Tcp,
        ),
        (
            "ffmpeg -rtsp_transport udp -i rtsp://h/1 -c copy -f rtsp rtsp://localhost:8554/cam1",
            "rtsp://h/1",
            Udp,
        ),
        (
            "ffmpeg -rtsp_transport udp_multicast -i rtsp://h/1 -c copy -f rtsp rtsp://localhost:8554/cam1",
            "rtsp://h/1",
            Multicast,
        ),
        (
            "ffmpeg -rtsp_flags prefer_tcp -rtsp_transport udp -i rtsp://h/1 -c copy -f rtsp rtsp://localhost:8554/cam1",
            "rtsp://h/1",
            Udp,
        ),
        (
            "ffmpeg -max_delay 500000 -reorder_queue_size -1 -i rtsp://h/1 -c copy -f rtsp rtsp://localhost:8554/cam1",
            "rtsp://h/1",
            Automatic,
        ),
        (
            "ffmpeg -rtsp_flags prefer_tcp -i rtsp://h/1 -c copy -f rtsp rtsp://localhost:8554/cam1",
            "rtsp://h/1",
            Tcp,
        ),
        (
            "ffmpeg -i rtsp://h/1 -c:v copy -c:a copy -f rtsp -rtsp_transport tcp rtsp://localhost:8554/cam1",
            "rtsp://h/1",
            Automatic,
        ),
        (
            "ffmpeg -i rtsp://h/1 -vcodec copy -acodec copy -f rtsp rtsp://localhost:8554/cam1",
            "rtsp://h/1",
            Automatic,
        ),
        ("ffmpeg -i rtsp://h/1 -codec copy -f rtsp rtsp://localhost:8554/cam1", "rtsp://h/1", Automatic),
        (
            "ffmpeg -i rtsp://h/1 -f rtsp -codec:v copy -codec:a copy rtsp://localhost:8554/cam1",
            "rtsp://h/1",
            Automatic,
        ),
        (
            "ffmpeg -i rtsp://h/1 -map 0 -c copy -muxdelay 0.1 -f rtsp rtsp://localhost:8554/cam1",
            "rtsp://h/1",
            Automatic,
        ),
        (
            "ffmpeg -hide_banner -nostdin -loglevel error -nostats -re -fflags +nobuffer+genpts -flags low_delay \
             -stimeout 5000000 -rtsp_transport tcp -use_wallclock_as_timestamps 1 -analyzeduration 1M -probesize 32 \
             -i rtsp://h/1 -c copy -y -f rtsp rtsp://localhost:8554/cam1",
            "rtsp://h/1",
            Tcp,
        ),
        (
            "ffmpeg -v warning -f rtsp -timeout 3 -i rtsp://h/1 -c copy -f rtsp rtsp://localhost:8554/cam1",
            "rtsp://h/1",
            Automatic,
        ),
        (
            "ffmpeg -i rtsp://h/1 -c copy -f rtsp rtsp://u:$DOLLAR@localhost:8554/cam1",
            "rtsp://h/1",
            Automatic,
        ),
        (
            "ffmpeg -tls_verify 1 -i rtsps://h/1 -c copy -f rtsp rtsp://localhost:8554/cam1",
            "rtsps://h/1",
            Automatic,
        ),
    ]
};

/// Under the key `cam1`, each for one reason.
const RUN: &[&str] = &[
    // Other programs, and wrappers.
    "ffmpegx -i rtsp://h/1 -c copy -f rtsp rtsp://localhost:8554/cam1",
    "/opt/ours/ffmpeg -i rtsp://h/1 -c copy -f rtsp rtsp://localhost:8554/cam1",
    "sh -c 'ffmpeg -i rtsp://h/1 -c copy -f rtsp rtsp://localhost:8554/cam1'",
    "gst-launch-1.0 rtspsrc location=rtsp://h/1 ! rtspclientsink location=rtsp://localhost:8554/cam1",
    "ffmpeg",
    "ffmpeg -i",
    "ffmpeg -i rtsp://h/1",
    "ffmpeg -i rtsp://h/1 rtsp://localhost:8554/cam1",
    // Other inputs.
    "ffmpeg -re -i test.mp4 -c copy -f rtsp rtsp://localhost:8554/cam1",
    "ffmpeg -i rtmp://h/1 -c copy -f rtsp rtsp://localhost:8554/cam1",
    "ffmpeg -i http://h/1 -c copy -f rtsp rtsp://localhost:8554/cam1",
    "ffmpeg -i rtsp:// -c copy -f rtsp rtsp://localhost:8554/cam1",
    "ffmpeg -i rtsp://h:x/1 -c copy -f rtsp rtsp://localhost:8554/cam1",
    "ffmpeg -i 'rtsp://h/a b' -c copy -f rtsp rtsp://localhost:8554/cam1",
    "ffmpeg -i rtsp://h/1?tcp -c copy -f rtsp rtsp://localhost:8554/cam1",
    "ffmpeg -i rtsp://u:$DOLLAR@h/1 -c copy -f rtsp rtsp://localhost:8554/cam1",
    "ffmpeg -i rtsp://u:p$@h/1 -c copy -f rtsp rtsp://localhost:8554/cam1",
    "ffmpeg -i rtsp://h/1?$MTX_QUERY -c copy -f rtsp rtsp://localhost:8554/cam1",
    "ffmpeg -i $EMPTY -c copy -f rtsp rtsp://localhost:8554/cam1",
    "ffmpeg -i rtsp://h/1 -i rtsp://h/2 -c copy -f rtsp rtsp://localhost:8554/cam1",
    "ffmpeg -stream_loop -1 -i rtsp://h/1 -c copy -f rtsp rtsp://localhost:8554/cam1",
    "ffmpeg -ss 10 -i rtsp://h/1 -c copy -f rtsp rtsp://localhost:8554/cam1",
    "ffmpeg -rtsp_transport http -i rtsp://h/1 -c copy -f rtsp rtsp://localhost:8554/cam1",
    "ffmpeg -rtsp_flags listen -i rtsp://h/1 -c copy -f rtsp rtsp://localhost:8554/cam1",
    "ffmpeg -allowed_media_types video -i rtsp://h/1 -c copy -f rtsp rtsp://localhost:8554/cam1",
    "ffmpeg -user_agent x -i rtsp://h/1 -c copy -f rtsp rtsp://localhost:8554/cam1",
    "ffmpeg -fflags igndts -i rtsp://h/1 -c copy -f rtsp rtsp://localhost:8554/cam1",
    "ffmpeg -probesize big -i rtsp://h/1 -c copy -f rtsp rtsp://localhost:8554/cam1",
    "ffmpeg -c copy -i rtsp://h/1 -f rtsp rtsp://localhost:8554/cam1",
    // ffmpeg takes any certificate.
    "ffmpeg -i rtsps://h/1 -c copy -f rtsp rtsp://localhost:8554/cam1",
    "ffmpeg -tls_verify 0 -i rtsps://h/1 -c copy -f rtsp rtsp://localhost:8554/cam1",
    // Not a copy of all there is.
    "ffmpeg -i rtsp://h/1 -f rtsp rtsp://localhost:8554/cam1",
    "ffmpeg -i rtsp://h/1 -c:v copy -f rtsp rtsp://localhost:8554/cam1",
    "ffmpeg -i rtsp://h/1 -c:v copy -an -f rtsp rtsp://localhost:8554/cam1",
    "ffmpeg -i rtsp://h/1 -c copy -an -f rtsp rtsp://localhost:8554/cam1",
    "ffmpeg -i rtsp://h/1 -c:v copy -c:a aac -f rtsp rtsp://localhost:8554/cam1",
    "ffmpeg -i rtsp://h/1 -c:v libx264 -c:a copy -f rtsp rtsp://localhost:8554/cam1",
    "ffmpeg -i rtsp://h/1 -c copy -map 0:v -f rtsp rtsp://localhost:8554/cam1",
    "ffmpeg -i rtsp://h/1 -c copy -t 60 -f rtsp rtsp://localhost:8554/cam1",
    "ffmpeg -i rtsp://h/1 -vf scale=1:1 -c copy -f rtsp rtsp://localhost:8554/cam1",
    "ffmpeg -i rtsp://h/1 -c copy -bsf:v dump_extra -f rtsp rtsp://localhost:8554/cam1",
    // Elsewhere, or somebody else's path.
    "ffmpeg -i rtsp://h/1 -c copy rtsp://localhost:8554/cam1",
    "ffmpeg -i rtsp://h/1 -c copy -f flv rtmp://localhost:1935/cam1",
    "ffmpeg -i rtsp://h/1 -c copy -f rtsp rtsp://localhost:8555/cam1",
    "ffmpeg -i rtsp://h/1 -c copy -f rtsp rtsp://localhost/cam1",
    "ffmpeg -i rtsp://h/1 -c copy -f rtsp rtsp://mediamtx:8554/cam1",
    "ffmpeg -i rtsp://h/1 -c copy -f rtsp rtsps://localhost:8554/cam1",
    "ffmpeg -i rtsp://h/1 -c copy -f rtsp rtsp://localhost:8554/cam2",
    "ffmpeg -i rtsp://h/1 -c copy -f rtsp rtsp://localhost:8554/cam1/",
    "ffmpeg -i rtsp://h/1 -c copy -f rtsp rtsp://localhost:8554/cam1?user=a",
    "ffmpeg -i rtsp://h/1 -c copy -f rtsp rtsp://localhost:8554/{name}",
    "ffmpeg -i rtsp://h/1 -c copy -f rtsp rtsp://localhost:8554/cam$G1",
    "ffmpeg -i rtsp://h/1 -c copy -f rtsp rtsp://localhost:8554/cam1 -f rtsp rtsp://other/cam1",
    "ffmpeg -i rtsp://h/1 -c copy -f rtsp rtsp://localhost:8554/cam1 out.mp4",
    "ffmpeg -i rtsp://h/1 -c copy -f rtsp rtsp://localhost:8554/cam1 -y",
];

#[test]
fn a_command_that_only_copies_is_a_pull() {
    for (command, url, transport) in PULLED {
        assert_eq!(verdict("cam1", command, "cam1"), Some(((*url).to_owned(), *transport)), "{command}");
    }
    assert!(PULLED.len() + RUN.len() >= 60);
}

#[test]
fn a_command_that_does_anything_else_is_run_as_written() {
    for command in RUN {
        assert_eq!(verdict("cam1", command, "cam1"), None, "{command}");
    }
}

#[test]
fn the_output_must_be_the_path_whichever_it_is() {
    const TO: &str = "ffmpeg -i rtsp://h/$G1 -c copy -f rtsp rtsp://localhost:8554/";
    for (key, output, name, url) in [
        ("milestone_~cameraId", "milestone_${cameraId}", "milestone_7-f", Some("rtsp://h/7-f")),
        ("milestone_~cameraId", "milestone_$G1", "milestone_7-f", Some("rtsp://h/7-f")),
        ("milestone_~cameraId", "$MTX_PATH", "milestone_7-f", Some("rtsp://h/7-f")),
        ("milestone_~cameraId", "other_${cameraId}", "milestone_7-f", None),
        ("milestone_~cameraId", "milestone_${camera}", "milestone_7-f", None),
        ("milestone_~cameraId", "milestone_{cameraId}", "milestone_7-f", None),
        ("milestone_~cameraId", "milestone_7-f", "milestone_7-f", None),
        ("~^milestone_(.+)$", "milestone_$G1", "milestone_7-f", Some("rtsp://h/7-f")),
        ("~^a/([0-9]+)/main$", "a/${G1}/main", "a/12/main", Some("rtsp://h/12")),
        ("~^v1\\.(?P<n>\\d+)$", "v1.$G1", "v1.5", Some("rtsp://h/5")),
        ("~^(.+)$", "$G1", "x", Some("rtsp://h/x")),
        ("~^(.+)$", "$MTX_PATH", "x", Some("rtsp://h/x")),
        // Not anchored, or more than one group, or something that is not in the group.
        ("~milestone_(.+)", "milestone_$G1", "milestone_7", None),
        ("~^milestone_(.+)", "milestone_$G1", "milestone_7", None),
        ("~^(a|b)_(.+)$", "$G1_$G2", "a_7", None),
        ("~^cam.(.+)$", "cam.$G1", "cam_7", None),
        ("~^cam(.)?$", "cam$G1", "cam1", None),
        ("~^cam(?:x)?(.)$", "cam$G1", "cam1", None),
        ("all_others", "cam$G1", "cam1", None),
        ("all_others", "$MTX_PATH", "x", Some("rtsp://h/")),
    ] {
        let found = verdict(key, &format!("{TO}{output}"), name).map(|(url, _)| url);
        assert_eq!(found.as_deref(), url, "{key} {output}");
    }
}

/// As it stands in the customer's document.
const CUSTOMER: &str = "\
paths:
  milestone_~cameraId:
    runOnDemand: ffmpeg -i rtsp://milestone:554/${cameraId} -c copy -f rtsp rtsp://localhost:8554/milestone_${cameraId}
    runOnDemandRestart: yes
    runOnDemandCloseAfter: 12s
    runOnDemandStartTimeout: 7s
    runOnUnDemand: echo
";

fn pull(view: &View, name: &str) -> Option<PullSettings> {
    match &view.serving(name).unwrap().0.settings.demand.as_ref().unwrap().brought_by {
        BroughtBy::Pull(pull) => Some(PullSettings::clone(pull)),
        BroughtBy::Command => None,
    }
}

#[test]
fn the_customers_command_is_served_by_a_pull_and_said_so_once() {
    let loaded = load(CUSTOMER).unwrap();
    let said: Vec<_> = loaded.warnings.iter().filter(|line| line.contains("native")).collect();
    assert_eq!(
        said,
        [
            "c.yml:3:18: 'runOnDemand' of path 'milestone_~cameraId' only copies a stream, and is served by the native \
             pull instead; engine.nativePull: no runs it as written"
        ]
    );
    let view = loaded.view;
    let (path, _) = view.serving("milestone_a-1").unwrap();
    let demand = path.settings.demand.as_ref().unwrap();
    assert_eq!((demand.start_timeout, demand.close_after), (Duration::from_secs(7), Duration::from_secs(12)));
    assert_eq!(path.hooks.un_demand.command, "echo");
    let pull = pull(&view, "milestone_a-1").unwrap();
    assert_eq!(pull.url.expand("milestone_a-1", ""), "rtsp://milestone:554/a-1");
    let shown = view.path_json("milestone_~cameraId").unwrap();
    assert!(shown["runOnDemand"].as_str().unwrap().starts_with("ffmpeg -i rtsp://milestone:554/${cameraId}"));

    let text = format!("{CUSTOMER}engine: {{nativePull: no}}\n");
    let loaded = load(&text).unwrap();
    assert!(!loaded.warnings.iter().any(|line| line.contains("native")));
    let (path, _) = loaded.view.serving("milestone_a-1").unwrap();
    assert!(path.hooks.demand.restart && path.hooks.demand.command.starts_with("ffmpeg "));
    assert_eq!(path.settings.demand.as_ref().unwrap().brought_by, BroughtBy::Command);
}

#[test]
fn the_shipped_deployment_needs_no_ffmpeg() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/config/mediamtx-cctv.yml");
    let passwords = ["MILESTONE_RTSP_PASSWORD", "VIEWER_RTSP_PASSWORD", "BACKEND_API_PASSWORD"];
    let env = passwords.map(|name| (name.to_owned(), "pa$$w0rd@1".to_owned()));
    let view = View::load(Some(std::path::Path::new(file)), env, super::CORES).unwrap().view;
    let found = pull(&view, "milestone_7").unwrap();
    assert_eq!(found.url.expand("milestone_7", ""), "rtsp://milestone:554/7");
}

#[test]
fn ten_thousand_commands_are_one_line() {
    let entry = |n: u32| {
        format!(
            "  c{n}: {{runOnDemand: 'ffmpeg -i rtsp://h/{n} -c copy -f rtsp rtsp://localhost:8554/c{n}'}}\n"
        )
    };
    let text: String = std::iter::once("paths:\n".to_owned()).chain((0..10_000).map(entry)).collect();
    let said: Vec<_> =
        load(&text).unwrap().warnings.into_iter().filter(|line| line.contains("native")).collect();
    assert_eq!(said.len(), 1);
    assert!(said[0].ends_with("(and in 9999 more places)"), "{}", said[0]);
}

#[test]
fn through_the_api_the_same_is_recognised_and_placeholders_of_a_document_are_not() {
    let first = view("");
    let add = |name: &str, id: &str, output: &str| Edit::AddPath {
        name: name.into(),
        body: body(json!({
            "source": "publisher",
            "runOnDemand": format!("ffmpeg -i rtsp://milestone:554/{id} -c copy -f rtsp rtsp://localhost:8554/{output}"),
            "runOnDemandRestart": true,
            "runOnDemandCloseAfter": "10s",
        })),
    };
    let literal = first.edited(&[add("x", "{camera_id}", "{name}")]).unwrap();
    assert_eq!(pull(&literal, "x"), None);
    let filled = first.edited(&[add("x", "17", "x")]).unwrap();
    assert_eq!(pull(&filled, "x").unwrap().url.expand("x", ""), "rtsp://milestone:554/17");

    let line = "'runOnDemand' of path 'x' only copies a stream, and is served by the native pull instead; \
                engine.nativePull: no runs it as written";
    assert_eq!(first.newly_pulled(&filled), line);
    assert_eq!((first.newly_pulled(&literal), filled.newly_pulled(&filled)), (String::new(), String::new()));
    let two = first.edited(&[add("x", "17", "x"), add("y", "17", "y")]).unwrap();
    assert_eq!(first.newly_pulled(&two), format!("{line} (and 1 more)"));

    // What decides it is in other keys: entries that nobody touched follow.
    let global = |change| Edit::PatchGlobal(body(change));
    for change in [json!({"rtspAddress": ":9554"}), json!({"engine": {"nativePull": false}})] {
        let other = filled.edited(&[global(change)]).unwrap();
        assert_eq!(pull(&other, "x"), None);
        assert_eq!(filled.diff(&other).paths_changed, ["x".into()]);
        assert_eq!(filled.diff(&other).hooks_changed, ["x".into()]);
    }
    let same = filled.edited(&[global(json!({"engine": {"dialsPerHost": 3}}))]).unwrap();
    assert!(std::sync::Arc::ptr_eq(&same.paths["x"], &filled.paths["x"]));
}

#[test]
fn keys_of_pulling_hold_for_it_but_for_what_the_command_says() {
    let entry = |more: &str| {
        let keys = "rtspTransport: udp, rtspRangeType: npt, rtspRangeStart: 3s, rtspScale: '2', rtspAnyPort: yes, \
                    sourceReconnectGrace: 5s";
        let command = "ffmpeg -i rtsps://h/1 -c copy -f rtsp rtsp://localhost:8554/cam1";
        view(&format!("paths: {{cam1: {{{keys}, {more}runOnDemand: '{command}'}}}}"))
    };
    assert_eq!(pull(&entry(""), "cam1"), None, "its certificate would be looked at");
    let found = pull(&entry(&format!("sourceFingerprint: {}, ", "ab".repeat(32))), "cam1").unwrap();
    assert_eq!((found.transport, found.range, found.scale), (PullTransport::Automatic, None, None));
    assert_eq!((found.any_port, found.reconnect_grace), (true, Duration::from_secs(5)));
    assert_eq!(found.fingerprint, Some([0xab; 32]));
}
