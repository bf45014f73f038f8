//! Path entries: their names, patterns, sources and order.

use corecast_hub::settings::Source;

use super::{assert_one_error, assert_one_warning, errors, load, view, warnings};

#[test]
fn an_entry_is_laid_over_the_path_defaults() {
    let loaded = load(
        "pathDefaults:\n  maxReaders: 7\n  gopCache: no\npaths:\n  cam1:\n  cam2: {maxReaders: 0, core: 2, source: demo}\n  3: {}\n",
    )
    .unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let cam1 = loaded.view.settings.paths.lookup("cam1").unwrap();
    assert_eq!(&*cam1.conf_name, "cam1");
    assert_eq!(cam1.readers_max.map(u32::from), Some(7));
    assert_eq!((cam1.gop_cache, cam1.override_publisher, cam1.core), (false, true, None));
    assert_eq!(cam1.source, Source::Publisher);
    let cam2 = loaded.view.settings.paths.lookup("cam2").unwrap();
    assert_eq!((cam2.readers_max, cam2.core), (None, Some(2)));
    assert_eq!(cam2.source, Source::Demo);
    assert!(loaded.view.settings.paths.lookup("3").is_ok());
}

#[test]
fn patterns_are_tried_by_key_and_catch_alls_last() {
    let loaded = load("paths:\n  all_others:\n  ~^cam_b:\n  ~^cam:\n  cam1:\n  metro_~id:\n").unwrap();
    let found = |name| loaded.view.settings.paths.lookup(name).unwrap().conf_name.to_string();
    assert_eq!(found("cam1"), "cam1");
    assert_eq!(found("cam_b7"), "~^cam");
    assert_eq!(found("metro_987f6543-e21b"), "metro_~id");
    assert_eq!(found("metro_a/b"), "all_others");
    assert_eq!(found("x/y"), "all_others");
}

#[test]
fn a_name_with_a_variable_is_explained_and_anchored() {
    let text = "paths:\n  bus.1_~id:";
    assert_one_warning(
        text,
        "c.yml:2:3: path 'bus.1_~id' serves every path 'bus.1_<id>' (read as '~^bus\\.1_(?P<id>[^/]+)$')",
    );
    let settings = view(text).settings;
    let paths = &settings.paths;
    assert!(paths.lookup("bus.1_7").is_ok());
    for other in ["bus.1_", "busx1_7", "xbus.1_7", "bus.1_7/x"] {
        assert!(paths.lookup(other).is_err(), "{other}");
    }
}

#[test]
fn names_that_cannot_be_are_refused() {
    for (key, rule) in [
        ("/a", "can't begin with a slash"),
        ("a/", "can't end with a slash"),
        ("a b", "can contain only alphanumeric characters, underscore, dot, minus, slash"),
        ("a/../b", "can't contain dot path segments"),
        ("''", "cannot be empty"),
    ] {
        let name = key.trim_matches('\'');
        assert_one_error(
            &format!("paths:\n  {key}:"),
            &format!("c.yml:2:3: invalid path name '{name}': {rule}"),
        );
    }
    assert_one_error(
        "paths:\n  ~cam(:",
        "c.yml:2:3: path '~cam(' has an invalid regular expression: unclosed group",
    );
    assert!(errors("paths:\n  cam_~1x:")[0].starts_with("c.yml:2:3: invalid path name 'cam_~1x': after '~'"));
    assert!(
        errors("paths:\n  a b_~id:")[0].starts_with("c.yml:2:3: invalid path name 'a b_~id': can contain")
    );
    assert!(errors("paths:\n  cam_~a~b:")[0].starts_with("c.yml:2:3: invalid path name"));
}

#[test]
fn there_is_one_catch_all() {
    for (first, second) in [("all", "all_others"), ("~^.*$", "all"), ("all_others", "~^.*$")] {
        assert_one_error(
            &format!("paths:\n  {first}:\n  {second}:"),
            &format!(
                "c.yml:3:3: path '{second}' means every other path, and so does '{first}': keep one of them"
            ),
        );
    }
    assert_one_warning(
        "paths:\n  ~^.*$:\n  ~^cam:",
        "c.yml: path '~^cam' is never reached, since '~^.*$' sorts before it: write 'all_others' for that one",
    );
}

#[test]
fn sources_of_later_versions_are_accepted_and_garbage_is_not() {
    let loaded = load(
        "paths:\n  a: {source: 'rtmp://user:secret@camera/1'}\n  b: {source: 'rtmp://other/1'}\n  \
         c: {source: 'rtsp+http://u:secret@h/1'}\n",
    )
    .unwrap();
    assert_eq!(loaded.view.settings.paths.lookup("a").unwrap().source, Source::Unserved("rtmp".into()));
    assert_eq!(
        loaded.warnings,
        [
            "c.yml:2:15: 'source' is of kind rtmp, which is accepted but not served by this version yet \
             (and in 1 more place)",
            "c.yml:4:15: 'source' is of kind rtsp+http, which is accepted but not served by this version yet",
        ]
    );
    let error = errors("paths: {a: {source: 'rstp://user:secret@camera'}}").pop().unwrap();
    assert!(error.starts_with("c.yml:1:21: 'source' is 'rstp://…': expected publisher, demo,"), "{error}");
    assert!(!error.contains("secret"));
    assert!(errors("paths: {a: {source: camera}}")[0].contains("'source' is 'camera'"));
}

#[test]
fn the_built_in_camera_needs_one_name() {
    for key in ["all_others", "~^cam", "cam_~id"] {
        let error = errors(&format!("paths:\n  {key}: {{source: demo}}")).pop().unwrap();
        assert!(error.contains("'source' is demo, but this entry serves many paths"), "{error}");
    }
}

#[test]
fn a_mistake_in_the_defaults_is_one_error_for_all_paths() {
    assert_one_error(
        "pathDefaults: {core: 8}\npaths: {a: , b: , c: }",
        "c.yml:1:22: 'core' is 8: expected one of engine.cores (0-3)",
    );
    assert_one_error(
        "pathDefaults: {core: 8}",
        "c.yml:1:22: 'core' is 8: expected one of engine.cores (0-3)",
    );
    assert_eq!(errors("engine: {cores: [1]}\npaths: {a: {core: 2}}").len(), 1);
}

#[test]
fn a_long_list_of_errors_is_cut() {
    let mut text = "paths:\n".to_owned();
    for number in 0..150 {
        text += &format!("  cam{number}: {{maxReaders: many}}\n");
    }
    let errors = errors(&text);
    assert_eq!(errors.len(), 101);
    assert_eq!(errors[100], "… and 50 more errors");
}

#[test]
fn ten_thousand_paths_load() {
    let mut text = "paths:\n".to_owned();
    for number in 0..10_000 {
        text += &format!("  cam{number}:\n    source: publisher\n    maxReaders: 10\n    runOnReady: echo\n");
    }
    let started = std::time::Instant::now();
    let loaded = load(&text).unwrap();
    assert_eq!(loaded.view.settings.paths.exact().count(), 10_000);
    assert_eq!(loaded.warnings.len(), 1);
    // Far more than it takes even without optimisation: catches a square, not a slow machine.
    assert!(started.elapsed().as_secs() < 20);
    assert!(warnings("paths: {cam1: {name: cam1, record: no}}").is_empty());
}
