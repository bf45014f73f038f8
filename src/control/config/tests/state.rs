//! The state file: what the API added outlives the program.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use serde_json::json;

use super::{
    super::store::{Edit, View, save_state},
    CORES, body,
};

/// A directory of its own, gone with the test.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("corecast-state-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn config(&self, paths: &str) -> PathBuf {
        let file = self.0.join("c.yml");
        let state = self.0.join("state");
        fs::write(&file, format!("engine:\n  stateDir: {}\npaths:\n{paths}", state.display())).unwrap();
        file
    }

    fn state(&self) -> PathBuf {
        self.0.join("state/paths.json")
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn add(name: &str, value: serde_json::Value) -> Edit {
    Edit::AddPath { name: name.into(), body: body(value) }
}

#[test]
fn paths_of_the_api_outlive_a_restart_and_a_reload() {
    let dir = Dir::new("restart");
    let file = dir.config("  cam1:\n");
    let env = [("SECRET".to_owned(), "s3cret".to_owned())];
    let first = View::load(Some(&file), env.clone(), CORES).unwrap().view;
    let source = json!({"source": "rtsp://u:${SECRET}@h/1", "sourceOnDemand": true, "runOnReady": "echo", "maxReaders": 3});
    let edited = first.edited(&[add("cam2", source), add("cam_~id", json!({}))]).unwrap();
    save_state(&edited).unwrap();
    let saved = fs::read_to_string(dir.state()).unwrap();
    assert!(saved.contains("${SECRET}") && !saved.contains("s3cret") && !saved.contains("cam1"));
    assert_eq!(fs::metadata(dir.state()).unwrap().permissions().mode() & 0o777, 0o600);

    let loaded = View::load(Some(&file), env, CORES).unwrap();
    let again = &loaded.view;
    assert!(again.paths["cam2"].from_api && again.paths["cam_~id"].from_api && !again.paths["cam1"].from_api);
    assert_eq!(again.paths["cam2"].settings.readers_max.map(u32::from), Some(3));
    assert_eq!(again.paths["cam2"].hooks.available.command, "echo");
    assert!(again.serving("cam_7").is_some());

    fs::write(&file, fs::read_to_string(&file).unwrap() + "  cam3:\n").unwrap();
    let reloaded = again.reload().unwrap();
    assert!(reloaded.view.paths.contains_key("cam3") && reloaded.view.paths["cam2"].from_api);
    assert_eq!(reloaded.view.paths.len(), 4);
    let shown = reloaded.view.path_json("cam2").unwrap();
    assert_eq!((&shown["fromAPI"], &shown["source"]), (&json!(true), &json!("rtsp://u:<redacted>@h/1")));
    assert!(reloaded.view.path_json("cam1").unwrap().get("fromAPI").is_none());
}

#[test]
fn without_a_state_directory_a_reload_discards_them() {
    let dir = Dir::new("discard");
    let file = dir.0.join("c.yml");
    fs::write(&file, "paths:\n  cam1:\n").unwrap();
    let first = View::load(Some(&file), [], CORES).unwrap().view;
    let edited = first.edited(&[add("cam2", json!({}))]).unwrap();
    save_state(&edited).unwrap();
    assert_eq!(edited.reload().unwrap().view.paths.len(), 1);
}

#[test]
fn a_bad_file_is_refused_by_a_reload_and_the_view_stays() {
    let dir = Dir::new("bad");
    let file = dir.config("  cam1:\n");
    let view = View::load(Some(&file), [], CORES).unwrap().view;
    dir.config("  cam1: {maxReaders: many}\n");
    let error = view.reload().unwrap_err().to_string();
    assert!(error.contains("c.yml:4:22: 'maxReaders' is 'many'"), "{error}");
    assert!(view.serving("cam1").is_some());
}

#[test]
fn a_damaged_file_is_told_set_aside_and_never_fatal() {
    let dir = Dir::new("damaged");
    let file = dir.config("  cam1:\n");
    fs::create_dir_all(dir.state().parent().unwrap()).unwrap();
    for damaged in [
        "",
        "{",
        "[]",
        r#"{"format": 7, "paths": {}}"#,
        r#"{"format": 1}"#,
        r#"{"format": 1, "paths": {"a": 1}}"#,
    ] {
        fs::write(dir.state(), damaged).unwrap();
        let loaded = View::load(Some(&file), [], CORES).unwrap();
        assert!(
            loaded.warnings.iter().any(|warning| warning.contains("are NOT there")),
            "{damaged}: {:?}",
            loaded.warnings
        );
        assert_eq!(loaded.view.paths.len(), 1);
        // Loading writes nothing: `--check` is a load too.
        assert_eq!(fs::read_to_string(dir.state()).unwrap(), damaged);
        save_state(&loaded.view.edited(&[add("new", json!({}))]).unwrap()).unwrap();
        assert_eq!(fs::read_to_string(dir.state().with_extension("json.broken")).unwrap(), damaged);
        assert!(View::load(Some(&file), [], CORES).unwrap().view.paths.contains_key("new"));
    }
}

#[test]
fn one_path_that_no_longer_fits_is_left_out_alone() {
    let dir = Dir::new("one");
    let file = dir.config("  cam1:\n");
    let first = View::load(Some(&file), [], CORES).unwrap().view;
    save_state(
        &first
            .edited(&[
                add("pinned", json!({"core": 3})),
                add("free", json!({})),
                Edit::PatchPath { name: "cam1".into(), body: body(json!({"maxReaders": 2})) },
            ])
            .unwrap(),
    )
    .unwrap();
    let loaded = View::load(Some(&file), [], &CORES[..2]).unwrap();
    assert!(loaded.view.paths.contains_key("free") && !loaded.view.paths.contains_key("pinned"));
    let said = loaded.warnings.join("\n");
    assert!(
        said.contains(
            "path 'pinned' of the API is NOT there: 'core' is 3: expected one of engine.cores (0-1)"
        ),
        "{said}"
    );
    assert!(said.contains("path 'cam1' is as the API changed it"), "{said}");
}

#[test]
fn a_second_entry_for_every_other_path_is_left_out_alone() {
    let dir = Dir::new("all");
    let file = dir.config("  cam1:\n");
    let first = View::load(Some(&file), [], CORES).unwrap().view;
    save_state(&first.edited(&[add("all", json!({})), add("free", json!({}))]).unwrap()).unwrap();
    let file = dir.config("  all_others:\n");
    let loaded = View::load(Some(&file), [], CORES).unwrap();
    assert!(loaded.view.paths.contains_key("free") && !loaded.view.paths.contains_key("all"));
    let said = loaded.warnings.join("\n");
    assert!(
        said.contains("path 'all' of the API is NOT there: 'all_others' means every other path"),
        "{said}"
    );
}
