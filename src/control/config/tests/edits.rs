//! Changes through the API.

use std::sync::Arc;

use corecast_hub::settings::Source;
use serde_json::{Value, json};

use super::{
    super::store::{Edit, EditError, View},
    body, view,
};

fn add(name: &str, value: Value) -> Edit {
    Edit::AddPath { name: name.into(), body: body(value) }
}

fn patch(name: &str, value: Value) -> Edit {
    Edit::PatchPath { name: name.into(), body: body(value) }
}

fn remove(name: &str) -> Edit {
    Edit::RemovePath { name: name.into() }
}

fn global(value: Value) -> Edit {
    Edit::PatchGlobal(body(value))
}

#[track_caller]
fn refused(view: &View, edit: Edit) -> String {
    view.edited(&[edit]).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn a_path_is_added_patched_replaced_and_removed() {
    let first = view("pathDefaults: {maxReaders: 3}\npaths:\n  cam1: {gopCache: no}\n");
    let added =
        first.edited(&[add("cam2", json!({"name": "other", "source": "demo", "fromAPI": false}))]).unwrap();
    let cam2 = &added.paths["cam2"];
    assert!(cam2.from_api && !added.paths["cam1"].from_api);
    assert_eq!((&cam2.settings.source, cam2.settings.readers_max.map(u32::from)), (&Source::Demo, Some(3)));
    assert!(added.settings.paths.lookup("cam2").is_ok() && first.settings.paths.lookup("cam2").is_err());

    let patched = added
        .edited(&[patch("cam1", json!({"maxReaders": 9})), patch("cam2", json!({"enabled": false}))])
        .unwrap();
    let cam1 = &patched.paths["cam1"];
    assert_eq!((cam1.settings.readers_max.map(u32::from), cam1.settings.gop_cache), (Some(9), false));
    assert!(cam1.from_api && !patched.paths["cam2"].settings.enabled);

    let replaced =
        patched.edited(&[Edit::ReplacePath { name: "cam1".into(), body: Default::default() }]).unwrap();
    assert_eq!(replaced.paths["cam1"].settings.readers_max.map(u32::from), Some(3));
    assert!(replaced.paths["cam1"].settings.gop_cache);
    let created =
        replaced.edited(&[Edit::ReplacePath { name: "cam3".into(), body: Default::default() }]).unwrap();
    assert!(created.paths.contains_key("cam3"));

    let removed = created.edited(&[remove("cam1"), remove("cam2"), remove("cam3")]).unwrap();
    assert!(removed.paths.is_empty() && removed.settings.paths.exact().next().is_none());
}

#[test]
fn paths_that_are_there_or_not_are_told() {
    let view = view("paths:\n  cam1:\n");
    assert_eq!(view.edited(&[add("cam1", json!({}))]).unwrap_err(), EditError::PathExists);
    assert_eq!(view.edited(&[patch("x", json!({}))]).unwrap_err(), EditError::PathNotFound);
    assert_eq!(view.edited(&[remove("x")]).unwrap_err(), EditError::PathNotFound);
    // Each sees what those before it did.
    assert!(view.edited(&[remove("cam1"), add("cam1", json!({})), patch("cam1", json!({}))]).is_ok());
    assert_eq!(
        view.edited(&[remove("cam1"), patch("cam1", json!({}))]).unwrap_err(),
        EditError::PathNotFound
    );
    assert_eq!(view.edited(&[add("y", json!({})), add("y", json!({}))]).unwrap_err(), EditError::PathExists);
    assert!(refused(&view, add("a b", json!({}))).starts_with("invalid path name 'a b'"));
    assert_eq!(
        refused(&view.edited(&[add("all", json!({}))]).unwrap(), add("all_others", json!({}))),
        "path 'all_others' means every other path, and so does 'all': keep one of them"
    );
}

#[test]
fn json_types_are_mediamtxs() {
    let view = view("");
    for (wrong, told) in [
        (json!({"record": "yes"}), "'record' is 'yes': expected yes or no, without quotes"),
        (
            json!({"maxReaders": "1"}),
            "'maxReaders' is '1': expected a whole number, 0 or more, without quotes",
        ),
        (json!({"maxReaders": 1.5}), "'maxReaders' is '1.5': expected a whole number, 0 or more"),
        (
            json!({"sourceOnDemandCloseAfter": 5}),
            "'sourceOnDemandCloseAfter' is '5': expected a duration such as 200ms, 10s, 1m30s or 1d12h",
        ),
        (json!({"source": 5}), "'source' is '…': expected a URL"),
        (
            json!({"rtspTransport": true}),
            "'rtspTransport' is 'true': expected automatic, udp, multicast or tcp",
        ),
        (
            json!({"recordMaxPartSize": 5}),
            "'recordMaxPartSize' is '5': expected a size such as 64K, 16M or 1G",
        ),
        (json!({"forward": "x"}), "'forward' is a single value: expected a list of maps (none: [])"),
        (json!({"foo": 1}), "json: unknown field \"foo\""),
        (json!({"maxReader": 1}), "json: unknown field \"maxReader\": did you mean \"maxReaders\"?"),
    ] {
        assert_eq!(refused(&view, add("a", wrong)), told);
    }
    for (wrong, told) in [
        (json!({"paths": {}}), "json: unknown field \"paths\""),
        (json!({"engine": 5}), "'engine' must be a map of keys, or empty"),
    ] {
        assert_eq!(refused(&view, global(wrong)), told);
    }
    // Null is as if it were not there, and an empty list.
    let nulls = json!({"source": null, "maxReaders": null, "forward": null, "core": null, "readUser": null});
    let view = view.edited(&[add("a", nulls)]).unwrap();
    assert_eq!(view.path_json("a").unwrap()["source"], "publisher");
}

#[test]
fn global_patches_reach_shards_control_and_defaults() {
    let first = view("protocols: [udp]\npaths:\n  a:\n");
    let edited = first
        .edited(&[global(json!({
            "readTimeout": "7s", "rtspDisable": true, "api": true, "apiAddress": ":1", "recordFormat": "mpegts",
            "engine": {"maxStreams": 4, "metricsSessions": true}
        }))])
        .unwrap();
    assert_eq!(edited.settings.read_timeout.as_secs(), 7);
    assert_eq!(edited.control.auth.timeout.as_secs(), 7);
    assert_eq!(edited.settings.rtsp.address, None);
    assert_eq!(edited.settings.engine.streams_max.map(u32::from), Some(4));
    assert!(edited.control.api.is_some() && edited.control.metrics_sessions);
    assert_eq!(edited.path_json("a").unwrap()["recordFormat"], "mpegts");
    assert!(Arc::ptr_eq(&edited.paths["a"], &first.paths["a"]));
    // A newer spelling ends the older one.
    assert_eq!(edited.global_json()["protocols"], json!(["udp"]));
    let edited = edited.edited(&[global(json!({"rtspTransports": ["tcp"]}))]).unwrap();
    assert!(edited.settings.rtsp.tcp && !edited.settings.rtsp.udp);
    assert!(edited.global_json().get("protocols").is_none());
}

#[test]
fn defaults_reach_the_paths_that_do_not_set_them() {
    let first = view("paths:\n  a:\n  b: {maxReaders: 1}\n");
    let edited = first.edited(&[Edit::PatchPathDefaults(body(json!({"maxReaders": 5})))]).unwrap();
    assert_eq!(edited.paths["a"].settings.readers_max.map(u32::from), Some(5));
    assert!(Arc::ptr_eq(&edited.paths["b"], &first.paths["b"]));
    assert!(!edited.paths["a"].from_api);
    assert_eq!(
        refused(&first, Edit::PatchPathDefaults(body(json!({"runOnDemand": "'x"})))),
        "'runOnDemand' has a quote that is not closed: expected a command"
    );
}

#[test]
fn one_of_ten_thousand_paths_is_edited_without_touching_the_others() {
    let mut text = "paths:\n".to_owned();
    for number in 0..10_000 {
        text += &format!("  cam{number}: {{maxReaders: 10}}\n");
    }
    let first = view(&text);
    for edit in [add("new", json!({})), patch("cam5", json!({"maxReaders": 1})), remove("cam7")] {
        let edited = first.edited(&[edit]).unwrap();
        let mut untouched = 0;
        for (key, path) in &edited.paths {
            if let Some(before) = first.paths.get(key)
                && Arc::ptr_eq(before, path)
            {
                let in_table = edited.settings.paths.lookup(key).unwrap();
                assert!(Arc::ptr_eq(in_table, &before.settings));
                untouched += 1;
            }
        }
        assert!(untouched >= 9_999, "{untouched}");
        assert!(Arc::ptr_eq(&edited.control.auth, &first.control.auth));
    }
}

#[test]
fn counts_survive_edits_and_reloads() {
    let first = view("engine: {maxStreams: 9}\npaths:\n  cam_~id: {maxActive: 2}\n");
    let pass = first.paths["cam_~id"].settings.active.enter(None).unwrap();
    let _stream = first.settings.engine.streams.enter(None).unwrap();
    let edited = first
        .edited(&[patch("cam_~id", json!({"maxActive": 3})), global(json!({"engine": {"maxStreams": 8}}))])
        .unwrap();
    assert_eq!((edited.paths["cam_~id"].settings.active.now(), edited.settings.engine.streams.now()), (1, 1));
    let again = super::reload(&edited, "paths:\n  cam_~id: {maxActive: 4}\n");
    assert_eq!((again.paths["cam_~id"].settings.active.now(), again.settings.engine.streams.now()), (1, 1));
    drop(pass);
    assert_eq!(again.paths["cam_~id"].settings.active.now(), 0);
}

#[test]
fn a_redacted_secret_that_comes_back_is_unchanged() {
    let first = view(
        "authInternalUsers:\n- {user: a, pass: p1, permissions: [{action: read}]}\n- {user: b, pass: p2}\n\
         hlsCDNSecret: cdn\nwebrtcICEServers2: [{url: 'turn:x', username: u, password: ice}]\n\
         paths:\n  a: {source: 'rtsp://user:cam@host/1', srtReadPassphrase: passphrase1, runOnRead: 'curl http://x:hook@h'}\n",
    );
    let shown = first.global_json();
    for secret in ["p1", "p2", "\"cdn\"", "\"ice\""] {
        assert!(!shown.to_string().contains(secret), "{secret}");
    }
    let path = first.path_json("a").unwrap();
    for secret in ["cam@", "passphrase1", "hook"] {
        assert!(!path.to_string().contains(secret), "{secret}");
    }
    let edits = [
        Edit::PatchGlobal(body(shown)),
        Edit::ReplacePath { name: "a".into(), body: body(path.clone()) },
        Edit::PatchPath { name: "a".into(), body: body(path) },
    ];
    for edit in edits {
        let back = first.edited(&[edit]).unwrap();
        assert_eq!(back.control.auth, first.control.auth);
        use super::super::json::Secrets::Plain;
        assert_eq!(back.global_object(Plain), first.global_object(Plain));
        let (mut one, two) = (back.path_object("a", Plain).unwrap(), first.path_object("a", Plain).unwrap());
        one.shift_remove("fromAPI");
        assert_eq!(one, two);
    }
    // It is never given to another host, user, or path.
    for edit in [
        patch("a", json!({"source": "rtsp://user:<redacted>@other/1"})),
        add("b", json!({"source": "rtsp://user:<redacted>@host/1"})),
        global(json!({"authInternalUsers": [{"user": "c", "pass": "<redacted>"}]})),
    ] {
        assert!(refused(&first, edit).contains("says <redacted>"));
    }
}

#[test]
fn a_mistake_names_its_path_when_the_client_did_not_name_it_alone() {
    let first = view("paths:\n  ~^cam: {gopCache: no}\n  b: {core: 3}\n");
    let two = [add("x", json!({})), add("y", json!({"core": 9}))];
    let told = first.edited(&two).unwrap_err().to_string();
    assert_eq!(told, "path 'y': 'core' is 9: expected one of engine.cores (0-3)");
    let two = [add("x", json!({})), add("y", json!({"cores": 9}))];
    assert!(
        first.edited(&two).unwrap_err().to_string().starts_with("path 'y': json: unknown field \"cores\"")
    );
    let defaults = Edit::PatchPathDefaults(body(json!({"source": "rtsp://h/x"})));
    assert!(refused(&first, defaults).starts_with("path '~^cam': 'source' is pulled"));
    assert_eq!(
        refused(&first, global(json!({"engine": {"cores": [1]}}))),
        "path 'b': 'core' is 3: expected one of engine.cores (1)"
    );
    // A patch of nothing changes nothing.
    let same = first.edited(&[patch("b", json!({"name": "b", "core": 3, "maxReaders": null}))]).unwrap();
    assert!(same.paths["b"].from_api);
    let same = first.edited(&[patch("b", json!({}))]).unwrap();
    assert!(Arc::ptr_eq(&same.paths["b"], &first.paths["b"]));
}
