//! Configurations that cannot run: each refused at the right place, in words an operator can act on, and with the same
//! words when it comes through the API.

use serde_json::{Value, json};

use super::{
    super::{
        keys::{ENGINE, GLOBAL, PATH},
        store::{Edit, EditError, View},
    },
    body, load, view,
};

/// Blocks: a file, then its errors behind `=>`, then after `api` the same as a change through the API where there is
/// one.
const CASES: &str = include_str!("fixtures/refused.txt");

struct Case<'a> {
    file: String,
    errors: Vec<&'a str>,
    edit: Option<Value>,
}

fn cases() -> impl Iterator<Item = Case<'static>> {
    CASES.split("\n\n").filter(|block| !block.trim().is_empty()).map(|block| {
        let mut case = Case { file: String::new(), errors: Vec::new(), edit: None };
        for line in block.trim_matches('\n').lines() {
            if let Some(error) = line.strip_prefix("=> ") {
                case.errors.push(error);
            } else if let Some(edit) = line.strip_prefix("api ") {
                case.edit = Some(serde_json::from_str(edit).unwrap());
            } else {
                case.file += line;
                case.file += "\n";
            }
        }
        case
    })
}

fn edit(edit: &Value) -> Edit {
    if let Some(global) = edit.get("global") {
        return Edit::PatchGlobal(body(global.clone()));
    }
    if let Some(defaults) = edit.get("pathDefaults") {
        return Edit::PatchPathDefaults(body(defaults.clone()));
    }
    let (name, path) = edit["paths"].as_object().unwrap().iter().next().unwrap();
    Edit::AddPath { name: name.clone(), body: body(path.clone()) }
}

#[test]
fn each_mistake_is_told_with_its_place() {
    let mut count = 0;
    for case in cases() {
        let errors = load(&case.file).map(|_| ()).unwrap_err().to_string().replace("c.yml:", "");
        assert_eq!(errors.lines().collect::<Vec<_>>(), case.errors, "{}", case.file);
        count += 1;
    }
    assert!(count >= 120, "{count}");
}

#[test]
fn the_api_refuses_in_the_same_words_and_changes_nothing() {
    let before = view("paths:\n  z:\n");
    let shown =
        |view: &View| (view.global_json(), view.path_defaults_json(), view.path_json("z"), view.paths.len());
    let mut count = 0;
    for case in cases() {
        let Some(change) = &case.edit else { continue };
        // `line:column: ` goes before.
        let sentence = case.errors[0].splitn(3, ':').nth(2).unwrap().trim_start();
        let json = if sentence.starts_with("unknown field") { "json: " } else { "" };
        let told = before.edited(&[edit(change)]).map(|_| ()).unwrap_err();
        assert_eq!(told, EditError::Invalid(format!("{json}{sentence}")), "{change}");
        // Nor is a good edit beside it made.
        let good = Edit::AddPath { name: "good".into(), body: Default::default() };
        assert!(before.edited(&[good, edit(change)]).is_err(), "{change}");
        count += 1;
    }
    assert!(count >= 120, "{count}");
    assert_eq!(shown(&before), shown(&view("paths:\n  z:\n")));
}

/// Values of the wrong shape, and of the right one and too much of it.
fn hostile() -> Vec<Value> {
    vec![
        Value::Null,
        true.into(),
        (-1).into(),
        u64::MAX.into(),
        1e308.into(),
        "".into(),
        "~(".into(),
        "-9d9h".into(),
        "://:@".into(),
        "x".repeat(5_000).into(),
        json!([]),
        json!([null, 1, "x", [[]], {}]),
        json!({"": {"a": []}}),
        json!([{"user": null, "ips": null, "permissions": [{}], "url": 5, "codec": true, "dest": "rtsp://u:p@"}]),
    ]
}

#[test]
fn no_body_makes_it_panic() {
    let view = view("paths:\n  z: {source: 'rtsp://u:p@h/1'}\n");
    for value in hostile() {
        for (table, is_path) in [(GLOBAL, false), (PATH, true)] {
            for key in table {
                let change = body(json!({ key.name: value }));
                let edits = match is_path {
                    false => vec![Edit::PatchGlobal(change)],
                    true => vec![
                        Edit::PatchPathDefaults(change.clone()),
                        Edit::PatchPath { name: "z".into(), body: change.clone() },
                        Edit::AddPath { name: "~^new".into(), body: change },
                    ],
                };
                for edit in edits {
                    if let Ok(edited) = view.edited(&[edit]) {
                        let shown = [edited.global_json(), edited.path_json("z").unwrap()];
                        assert!(shown.iter().all(Value::is_object));
                        edited.diff(&view);
                    }
                }
            }
        }
        for key in ENGINE {
            let _ = view.edited(&[Edit::PatchGlobal(body(json!({"engine": {key.name: value}})))]);
        }
    }
}

#[test]
fn what_is_told_is_short_however_long_the_mistake() {
    let view = view("");
    let long = "x".repeat(1_000_000);
    for change in [
        json!({ &long: 1 }),
        json!({"logLevel": long}),
        json!({"apiAddress": long, "api": true}),
        json!({"authInternalUsers": [{ &long: 1 }]}),
    ] {
        let told = view.edited(&[Edit::PatchGlobal(body(change))]).unwrap_err().to_string();
        assert!(told.len() < 2100, "{}", told.len());
    }
}
