//! The state file: paths that the API added or changed, for the next start (`engine.stateDir`).
//!
//! Written as a whole beside the old one and put in its place, so that there is one whole file at any moment.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use serde_json::{Map, Value, json};

use super::{edit, json, keys, store::View};

const FILE_NAME: &str = "paths.json";
const FORMAT: u64 = 1;
/// Keys of paths and what each sets.
type Entries = Vec<(String, Map<String, Value>)>;

/// Largest file that is read, bytes.
const BYTES_MAX: u64 = 64 << 20;

fn path(view: &View) -> Option<PathBuf> {
    Some(view.control.state_dir.as_ref()?.join(FILE_NAME))
}

pub(super) fn save(view: &View) -> io::Result<()> {
    let Some(target) = path(view) else { return Ok(()) };
    let dir = target.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(dir)?;
    if view.origin.is_state_broken.swap(false, Ordering::Relaxed) {
        fs::rename(&target, target.with_extension("json.broken"))?;
    }
    let ours = view.paths.iter().filter(|(_, path)| path.from_api);
    let paths: Map<_, _> = ours
        .map(|(key, path)| (key.to_string(), Value::Object(json::written(&path.own, keys::PATH))))
        .collect();
    let text = serde_json::to_vec_pretty(&json!({"format": FORMAT, "paths": paths}))?;
    let fresh = target.with_extension("json.new");
    // It holds passwords.
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&fresh, &target)?;
    File::open(dir)?.sync_all()
}

/// Lays the paths of the state file over `view`. One that cannot be understood is left out: never a reason not to
/// start.
pub(super) fn restore(view: View, warnings: &mut Vec<String>) -> View {
    let Some(file) = path(&view) else { return view };
    let shown = file.display();
    let paths = match read(&file) {
        Ok(None) => return view,
        Ok(Some(paths)) => paths,
        Err(why) => {
            view.origin.is_state_broken.store(true, Ordering::Relaxed);
            warnings.push(format!(
                "{shown}: {why}: the paths that were added through the API are NOT there; the file is renamed to \
                 {FILE_NAME}.broken when the API changes a path"
            ));
            return view;
        }
    };
    lay_over(view, paths, &format!("{shown}: "), warnings)
}

/// Lays the paths that the API made in `before` over `view`.
pub(super) fn carry_over(view: View, before: &View, warnings: &mut Vec<String>) -> View {
    if view.control.state_dir.is_none() {
        return view;
    }
    let ours = before.paths.iter().filter(|(_, path)| path.from_api);
    let paths = ours.map(|(key, path)| (key.to_string(), json::written(&path.own, keys::PATH))).collect();
    lay_over(view, paths, "", warnings)
}

fn read(file: &Path) -> Result<Option<Entries>, String> {
    let mut text = String::new();
    match File::open(file) {
        Ok(file) => {
            file.take(BYTES_MAX + 1)
                .read_to_string(&mut text)
                .map_err(|error| format!("cannot be read: {error}"))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("cannot be read: {error}")),
    }
    if text.len() as u64 > BYTES_MAX {
        return Err(format!("larger than {} MiB", BYTES_MAX >> 20));
    }
    let root: Value = serde_json::from_str(&text).map_err(|error| format!("is damaged: {error}"))?;
    if root.get("format").and_then(Value::as_u64) != Some(FORMAT) {
        return Err("is of another version".to_owned());
    }
    let Some(Value::Object(paths)) = root.get("paths") else {
        return Err("is damaged: no 'paths'".to_owned());
    };
    let body = |(name, value): (&String, &Value)| match value {
        Value::Object(body) => Ok((name.clone(), body.clone())),
        _ => Err(format!("is damaged: path '{name}'")),
    };
    paths.iter().map(body).collect::<Result<_, _>>().map(Some)
}

fn lay_over(view: View, paths: Entries, place: &str, warnings: &mut Vec<String>) -> View {
    if paths.is_empty() {
        return view;
    }
    let mut replaced = paths.iter().filter(|(name, _)| view.paths.contains_key(name.as_str()));
    if let Some((first, _)) = replaced.next() {
        let more = match replaced.count() {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        warnings.push(format!(
            "{place}path '{first}'{more} is as the API changed it, not as the configuration file has it; remove it \
             through the API, and load the file again, to go by the file"
        ));
    }
    let laid = edit::lay_over(&view, paths);
    for (name, why) in &laid.left_out {
        warnings.push(format!("{place}path '{name}' of the API is NOT there: {why}"));
    }
    if !laid.left_out.is_empty() || laid.view.is_err() {
        view.origin.is_state_broken.store(true, Ordering::Relaxed);
    }
    match laid.view {
        Ok(view) => view,
        Err(error) => {
            warnings.push(format!(
                "{place}the paths of the API do not fit the configuration and are NOT there: {error}"
            ));
            view
        }
    }
}
