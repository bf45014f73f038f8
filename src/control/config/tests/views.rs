//! Look-ups and comparisons of whole configurations.

use std::sync::Arc;

use super::{super::diff::Changes, reload, view};

#[test]
fn the_serving_entry_gives_its_groups_to_hooks() {
    let view = view("paths:\n  cam1:\n  ~^a(\\d+)(x)?_(.+)$:\n  milestone_~cameraId:\n  all_others:\n");
    let serving = |name: &str| {
        let (path, variables) = view.serving(name).unwrap();
        let variables: Vec<_> = variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
        (path.settings.conf_name.to_string(), variables.join(" "))
    };
    let expected = |key: &str, variables: &str| (key.to_owned(), variables.to_owned());
    assert_eq!(serving("cam1"), expected("cam1", ""));
    assert_eq!(serving("a12_b/c"), expected("~^a(\\d+)(x)?_(.+)$", "G1=12 G2= G3=b/c"));
    assert_eq!(serving("milestone_7-f"), expected("milestone_~cameraId", "G1=7-f cameraId=7-f"));
    assert_eq!(serving("x"), expected("all_others", ""));
    assert!(view.serving("a b").is_none());
}

const BASE: &str = "\
api: yes
paths:
  same:
  changed:
  hooked: {runOnRead: a}
  gone:
";

#[test]
fn a_diff_names_what_is_touched_and_nothing_else() {
    let first = view(BASE);
    assert_eq!(first.diff(&reload(&first, BASE)), Changes::default());
    let second = reload(
        &first,
        "api: yes\npaths:\n  same:\n  changed: {maxReaders: 1}\n  hooked: {runOnRead: b}\n  fresh:\n",
    );
    let keys = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect::<Vec<Arc<str>>>();
    let expected = Changes {
        paths_added: keys(&["fresh"]),
        paths_removed: keys(&["gone"]),
        paths_changed: keys(&["changed"]),
        hooks_changed: keys(&["hooked"]),
        ..Changes::default()
    };
    assert_eq!(first.diff(&second), expected);
    assert!(Arc::ptr_eq(&first.paths["same"].settings, &second.paths["same"].settings));
}

#[test]
fn each_part_is_told_apart() {
    let first = view(BASE);
    let changes = |line: &str| first.diff(&reload(&first, &format!("{line}\n{BASE}")));
    let none = Changes::default;
    for (line, expected) in [
        ("logLevel: debug", Changes { log: true, ..none() }),
        ("apiAddress: :1", Changes { api: true, ..none() }),
        ("metrics: yes", Changes { metrics: true, ..none() }),
        ("authInternalUsers: []", Changes { auth: true, ..none() }),
        ("rtspAuthMethods: [digest]", Changes { auth: true, ..none() }),
        ("rtspAddress: :1", Changes { rtsp: true, ..none() }),
        ("rtspTransports: [tcp]", Changes { rtsp: true, ..none() }),
        ("runOnConnect: x", Changes { connect_hooks: true, ..none() }),
        (
            "engine: {cores: [1], park: executor}",
            Changes { needs_restart: vec!["engine.cores", "engine.park"], ..none() },
        ),
        ("writeTimeout: 5s", none()),
    ] {
        assert_eq!(changes(line), expected, "{line}");
    }
}
