//! `POST /v3/config/paths/batch`: many changes of path entries as one, so that a backend with thousands of cameras waits
//! once, and never sees half of its change in effect.

use std::collections::{HashMap, HashSet};

use axum::{extract::State, response::Response};
use serde_json::{Map, Value};

use super::{
    Api,
    body::{Object, kind},
};
use crate::control::{config::store::Edit, http::answer::Failure};

/// The lists a body may hold, in the order in which they are carried out.
const LISTS: [&str; 4] = ["remove", "add", "replace", "patch"];

pub(super) async fn batch(State(api): State<Api>, Object(mut body): Object) -> Result<Response, Failure> {
    let mut edits = Vec::new();
    for list in LISTS {
        let items = match body.remove(list) {
            None | Some(Value::Null) => continue,
            Some(Value::Array(items)) => items,
            Some(other) => {
                let text = format!("'{list}' is {}: expected a list", kind(&other));
                return Err(Failure::bad_request(text));
            }
        };
        for (index, item) in items.into_iter().enumerate() {
            let edit = edit(list, item).map_err(|why| format!("'{list}', entry {index}: {why}"));
            edits.push(edit.map_err(Failure::bad_request)?);
        }
    }
    if let Some(unknown) = body.keys().next() {
        let text = format!("json: unknown field \"{unknown}\": expected {}", LISTS.join(", "));
        return Err(Failure::bad_request(text));
    }
    check_names(&edits, |name| api.office.view().paths.contains_key(name))?;
    api.change(&edits).await
}

fn edit(list: &str, item: Value) -> Result<Edit, String> {
    if list == "remove" {
        return match item {
            Value::String(name) if !name.is_empty() => Ok(Edit::RemovePath { name }),
            other => Err(format!("{}: expected the name of a path", kind(&other))),
        };
    }
    let Value::Object(mut body) = item else {
        return Err(format!("{}: expected a path with its 'name'", kind(&item)));
    };
    let name = name(&mut body)?;
    Ok(match list {
        "add" => Edit::AddPath { name, body },
        "replace" => Edit::ReplacePath { name, body },
        _ => Edit::PatchPath { name, body },
    })
}

fn name(body: &mut Map<String, Value>) -> Result<String, String> {
    match body.remove("name") {
        Some(Value::String(name)) if !name.is_empty() => Ok(name),
        Some(Value::String(_)) | None => Err("a path needs a 'name'".to_owned()),
        Some(other) => Err(format!("'name' is {}: expected a string", kind(&other))),
    }
}

/// That every path is there, or is not, as its change wants it. Whoever carries the changes out checks it too, but does
/// not say which of a thousand names was wrong.
fn check_names(edits: &[Edit], exists: impl Fn(&str) -> bool) -> Result<(), Failure> {
    let mut changed: HashMap<&str, bool> = HashMap::new();
    let mut touched: HashSet<(&str, &str)> = HashSet::new();
    for edit in edits {
        let (list, name, wanted, then) = match edit {
            Edit::RemovePath { name } => ("remove", name, Some(true), false),
            Edit::AddPath { name, .. } => ("add", name, Some(false), true),
            Edit::ReplacePath { name, .. } => ("replace", name, None, true),
            Edit::PatchPath { name, .. } => ("patch", name, Some(true), true),
            Edit::PatchGlobal(_) | Edit::PatchPathDefaults(_) => continue,
        };
        if !touched.insert((list, name)) {
            return Err(Failure::bad_request(format!("'{list}' names path '{name}' twice")));
        }
        let there = changed.get(name.as_str()).copied().unwrap_or_else(|| exists(name));
        match wanted {
            Some(true) if !there => return Err(Failure::not_found(format!("path not found: '{name}'"))),
            Some(false) if there => {
                return Err(Failure::bad_request(format!("path already exists: '{name}'")));
            }
            _ => {}
        }
        changed.insert(name, then);
    }
    Ok(())
}
