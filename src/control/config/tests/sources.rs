//! Sources that are pulled: where they are, how they are asked, and that a change touches no other.

use std::{sync::Arc, time::Duration};

use corecast_hub::settings::{BroughtBy, PathSettings, PullSettings, PullTransport, Source};
use serde_json::json;

use super::{
    super::store::{Edit, View},
    body, load, load_with, reload, view,
};

fn settings(view: &View, name: &str) -> Arc<PathSettings> {
    Arc::clone(&view.serving(name).unwrap().0.settings)
}

fn pull(view: &View, name: &str) -> Arc<PullSettings> {
    match &settings(view, name).source {
        Source::Rtsp(pull) => Arc::clone(pull),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_source_is_pulled_as_its_keys_say() {
    let loaded = load(&format!(
        "paths:\n  a: {{source: 'rtsp://h/1'}}\n  b:\n    source: rtsps://u:p@h:99/1\n    sourceFingerprint: {}\n    \
         sourceOnDemand: yes\n    sourceOnDemandStartTimeout: 3s\n    sourceOnDemandCloseAfter: 4s\n    \
         sourceReconnectGrace: 6s\n    rtspTransport: tcp\n    rtspAnyPort: yes\n    rtspScale: '-2.5'\n    \
         rtspUDPSourcePortRange: [5000, 5099]\n",
        "0f".repeat(32)
    ))
    .unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let a = pull(&loaded.view, "a");
    assert_eq!((a.transport, a.any_port, a.fingerprint), (PullTransport::Automatic, false, None));
    assert_eq!((&a.range, &a.scale, a.udp_ports), (&None, &None, (32768, 60999)));
    assert_eq!((a.udp_read_buffer_bytes, a.reconnect_grace), (None, Duration::ZERO));
    assert_eq!(settings(&loaded.view, "a").demand, None);

    let b = pull(&loaded.view, "b");
    assert_eq!(b.url.expand("b", ""), "rtsps://u:p@h:99/1");
    assert_eq!((b.transport, b.any_port, b.fingerprint), (PullTransport::Tcp, true, Some([15; 32])));
    assert_eq!((b.scale.as_deref(), b.udp_ports), (Some("-2.5"), (5000, 5099)));
    assert_eq!(b.reconnect_grace, Duration::from_secs(6));
    let demand = settings(&loaded.view, "b").demand.clone().unwrap();
    assert_eq!(demand.brought_by, BroughtBy::Pull(b));
    assert_eq!((demand.start_timeout, demand.close_after), (Duration::from_secs(3), Duration::from_secs(4)));

    let older =
        load("paths: {a: {source: 'rtsp://h/1', sourceProtocol: udp, rtspUDPReadBufferSize: 4096}}").unwrap();
    assert_eq!(pull(&older.view, "a").transport, PullTransport::Udp);
    assert_eq!(pull(&older.view, "a").udp_read_buffer_bytes.map(usize::from), Some(4096));
    assert_eq!(
        older.warnings,
        [
            "c.yml:1:35: key 'sourceProtocol' is deprecated, read as 'rtspTransport'",
            "c.yml:1:56: key 'rtspUDPReadBufferSize' is deprecated, and obeyed",
        ]
    );
    let redirect = view("paths: {a: {source: redirect, sourceRedirect: /b}}");
    assert_eq!(settings(&redirect, "a").source, Source::Redirect("/b".into()));
}

/// What MediaMTX 1.20.1 sends for the same keys.
#[test]
fn a_range_is_written_as_mediamtx_writes_it() {
    for (kind, start, range) in [
        ("clock", "20260131T235959Z", "clock=20260131T235959Z-"),
        ("npt", "12s500ms", "npt=12.5-"),
        ("npt", "1h", "npt=3600-"),
        ("npt", "1234567ns", "npt=0.001234567-"),
        ("npt", "0s", "npt=0-"),
        ("npt", "10m", "npt=600-"),
        ("smpte", "1h2m3.5s", "smpte=1:02:03-"),
        ("smpte", "0s", "smpte=0:00:00-"),
    ] {
        let text = format!(
            "paths: {{a: {{source: 'rtsp://h/1', rtspRangeType: {kind}, rtspRangeStart: '{start}'}}}}"
        );
        assert_eq!(pull(&view(&text), "a").range.as_deref(), Some(range), "{kind} {start}");
    }
}

#[test]
fn a_url_is_filled_in_from_the_environment_now_and_from_the_name_later() {
    let env = [("HOST", "vms:554"), ("PASS", "p@ss"), ("cameraId", "never")];
    for (key, url, name, expected) in [
        ("a", "rtsp://u:${PASS}@${HOST}/1", "a", "rtsp://u:p@ss@vms:554/1"),
        ("a", "rtsp://admin:@h/1", "a", "rtsp://admin:@h/1"),
        ("a", "rtsp://u:pa$$w0rd@h/$x", "a", "rtsp://u:pa$$w0rd@h/$x"),
        ("a", "rtsp://h/with space", "a", "rtsp://h/with%20space"),
        ("a", "rtsp://h/$MTX_PATH?$MTX_QUERY", "a", "rtsp://h/a?q=1"),
        ("~^c(.)/(.+)$", "rtsp://$G1:554/${G2}_sub", "c7/x", "rtsp://7:554/x_sub"),
        ("~^c(.)/(.+)$", "rtsp://h/$G2_sub", "c7/x", "rtsp://h/x_sub"),
        ("m_~cameraId", "rtsp://u:${PASS}@h/live/${cameraId}", "m_1-2", "rtsp://u:p@ss@h/live/1-2"),
    ] {
        let text = format!("paths:\n  '{key}': {{source: '{url}', sourceOnDemand: yes}}\n");
        let view = load_with(&text, &env).unwrap().view;
        assert_eq!(pull(&view, name).url.expand(name, "q=1"), expected, "{url}");
        assert!(!format!("{:?}", settings(&view, name)).contains("p@ss"));
    }
}

const TWO: &str = "\
paths:
  a: {source: 'rtsp://u:secret1@h/1', sourceOnDemand: yes}
  b: {source: 'rtsp://u:secret2@h/2'}
  c: {runOnDemand: 'ffmpeg -i rtsp://u:secret3@h/3 -c copy -f rtsp rtsp://localhost:8554/c'}
";

#[test]
fn a_secret_goes_out_redacted_and_stays_when_it_comes_back_so() {
    let first = view(TWO);
    let shown = first.path_json("a").unwrap();
    assert_eq!(shown["source"], "rtsp://u:<redacted>@h/1");
    assert_eq!(
        first.path_json("c").unwrap()["runOnDemand"],
        "ffmpeg -i rtsp://u:<redacted>@h/3 -c copy -f rtsp rtsp://localhost:8554/c"
    );
    let patch = |name: &str, change| Edit::PatchPath { name: name.into(), body: body(change) };
    let back = first.edited(&[patch("a", json!({"source": shown["source"], "sourceReconnectGrace": "2s"}))]);
    let back = pull(&back.unwrap(), "a");
    assert_eq!(back.url.expand("a", ""), "rtsp://u:secret1@h/1");
    assert_eq!(back.reconnect_grace, Duration::from_secs(2));
    let command = first.path_json("c").unwrap()["runOnDemand"].clone();
    let back = first.edited(&[patch("c", json!({ "runOnDemand": command, "maxReaders": 3 }))]).unwrap();
    assert_eq!(settings(&back, "c").demand, settings(&first, "c").demand);
    // Never to another host.
    assert!(first.edited(&[patch("a", json!({"source": "rtsp://u:<redacted>@other/1"}))]).is_err());
    let told =
        first.edited(&[patch("a", json!({"source": "rtsp://u:secret4@h:x/1"}))]).unwrap_err().to_string();
    assert!(told.starts_with("'source' has a port that is no number") && !told.contains("secret4"), "{told}");
}

#[test]
fn a_change_of_one_source_leaves_the_others_as_they_are() {
    let first = view(TWO);
    let same = reload(&first, TWO);
    let other = reload(&first, &TWO.replace("h/2", "h/5"));
    let through_api = first
        .edited(&[Edit::PatchPath { name: "b".into(), body: body(json!({"source": "rtsp://h/5"})) }])
        .unwrap();
    for name in ["a", "c"] {
        for view in [&same, &other, &through_api] {
            assert!(Arc::ptr_eq(&settings(&first, name), &settings(view, name)), "{name}");
        }
    }
    assert!(Arc::ptr_eq(&settings(&first, "b"), &settings(&same, "b")));
    assert_eq!(first.diff(&other).paths_changed, ["b".into()]);
    assert_eq!(first.diff(&through_api).paths_changed, ["b".into()]);
    assert_eq!(pull(&through_api, "b").url.expand("b", ""), "rtsp://h/5");
}

#[test]
fn dials_per_host_are_counted_and_bounded() {
    assert_eq!(view("").control.dials_per_host.get(), 10);
    assert_eq!(view("engine: {dialsPerHost: 3}").control.dials_per_host.get(), 3);
}

#[test]
fn what_would_have_to_be_encrypted_beside_the_connection_is_told() {
    for (transport, told) in [("udp", 1), ("automatic", 1), ("tcp", 0)] {
        let text = format!(
            "paths: {{a: {{source: 'rtsps://h/1', rtspTransport: {transport}}}, b: {{source: 'rtsp://h/1', \
             rtspTransport: udp}}}}"
        );
        let warnings = load_with(&text, &[]).unwrap().warnings;
        let about = warnings.iter().filter(|warning| warning.to_string().contains("SRTP"));
        assert_eq!(about.count(), told, "{transport}: {warnings:?}");
    }
    let text = "paths: {a: {source: 'rtsps://h/1', rtspTransport: multicast}}";
    let error = load_with(text, &[]).unwrap_err().to_string();
    assert!(error.contains("rtspTransport") && error.contains("rtsps"), "{error}");
    assert!(load_with("paths: {a: {source: 'rtsps://h/1'}}", &[]).unwrap().warnings.is_empty());
}
