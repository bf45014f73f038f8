//! What the API shows, against what MediaMTX shows for the same file.

use serde_json::{Map, Value};

use super::{body, load, view};

const FILE: &str = include_str!("fixtures/mediamtx.yml");
const GLOBAL: &str = include_str!("fixtures/global.json");
const PATH: &str = include_str!("fixtures/path.json");
const OLDER_FILE: &str = include_str!("fixtures/older.yml");
const OLDER_GLOBAL: &str = include_str!("fixtures/older_global.json");
const OLDER_PATH: &str = include_str!("fixtures/older_path.json");

fn theirs(text: &str) -> Map<String, Value> {
    body(serde_json::from_str(text).unwrap())
}

#[test]
fn every_key_is_shown_as_mediamtx_shows_it_and_in_its_order() {
    let view = view(FILE);
    for (ours, theirs, extra) in [
        (view.global_json(), theirs(GLOBAL), &["hlsSessionMode", "engine"][..]),
        (
            view.path_json("cam1").unwrap(),
            theirs(PATH),
            &["gopCache", "core", "maxActive", "enabled", "sourceReconnectGrace", "hlsAlwaysRemux"],
        ),
    ] {
        let ours = body(ours);
        for ((our_key, our_value), (their_key, their_value)) in ours.iter().zip(&theirs) {
            assert_eq!((our_key, our_value), (their_key, their_value));
        }
        let rest: Vec<_> = ours.keys().skip(theirs.len()).collect();
        assert_eq!(rest, extra);
    }
    let mut defaults = theirs(PATH);
    defaults.insert("name".into(), "".into());
    let ours = body(view.path_defaults_json());
    assert!(defaults.iter().all(|(key, value)| ours.get(key) == Some(value)));
    assert_eq!(view.path_json("nobody"), None);
}

#[test]
fn older_keys_are_shown_when_they_are_used() {
    let view = load(OLDER_FILE).unwrap().view;
    // Secrets MediaMTX shows, a size it rounds, servers it moves, and a key that is shown where it went.
    let differ = [
        "hlsSegmentMaxSize",
        "hlsCDNSecret",
        "webrtcICEServers2",
        "webrtcICEServers",
        "authHTTPAddress",
        "record",
    ];
    let ours = body(view.global_json());
    for (key, value) in theirs(OLDER_GLOBAL).iter().filter(|(key, _)| !differ.contains(&key.as_str())) {
        assert_eq!(ours.get(key), Some(value), "{key}");
    }
    assert_eq!(ours["hlsSegmentMaxSize"], "1500K");
    assert_eq!(ours["hlsCDNSecret"], "<redacted>");
    assert_eq!(ours["authHTTPAddress"], "http://u:<redacted>@h/?t=x");
    assert_eq!(ours["webrtcICEServers"][0], "turn:u:<redacted>:h:1");
    let ours = body(view.path_json("cam1").unwrap());
    for (key, value) in &theirs(OLDER_PATH) {
        match key.as_str() {
            "forward" | "srtReadPassphrase" => assert!(ours[key].to_string().contains("<redacted>")),
            _ => assert_eq!(ours.get(key), Some(value), "{key}"),
        }
    }
}

#[test]
fn what_is_shown_can_be_loaded_again() {
    let first = view("engine: {cores: [1, 2]}\npaths:\n  a: {maxReaders: 3, core: 1}\n");
    let path = first.path_json("a").unwrap();
    let global = first.global_json();
    // JSON is YAML.
    let mut file = body(global);
    file.insert("paths".into(), serde_json::json!({"a": path}));
    let again = view(&Value::Object(file).to_string());
    assert_eq!(again.settings.engine.cores, [1, 2]);
    assert_eq!(again.path_json("a"), first.path_json("a"));
}
