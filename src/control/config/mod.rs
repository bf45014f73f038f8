//! The configuration file: MediaMTX's keys and defaults, so that a stock file loads; what comes out cannot
//! be illegal.
//!
//! A file passes these stages: [`yaml`] makes a tree with positions, [`env`] lays variables over it, [`section`]
//! reads its maps against the table in [`keys`], [`paths`] makes each entry, [`assemble`] the whole, and both check what
//! concerns more than one value. All stages report to one list, so a file is corrected in one go. An edit through the
//! API ([`edit`]) enters at the third stage, so that the same mistake is told in the same words.

mod access;
mod assemble;
mod checks;
mod conf;
mod credential;
pub mod diff;
mod duration;
mod edit;
mod env;
mod error;
mod expand;
mod ffmpeg_shape;
mod hls;
mod http;
mod json;
mod keys;
mod legacy;
mod path_checks;
mod paths;
mod redact;
mod search;
mod section;
mod size;
mod sources;
mod state;
pub mod store;
#[cfg(test)]
mod tests;
mod typed;
mod yaml;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use assemble::Draft;
use error::Report;
pub use error::{At, ConfigError, ConfigErrors};
use paths::{Context, Written};
use section::{Scope, Section};
use store::{Documents, Origin, View};
use yaml::{Entry, Node, Value};

/// Largest file, bytes: ten thousand paths with a page of settings each.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A configuration that can run.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub view: View,
    /// Lines for the operator: what was translated, and what this version does not serve.
    pub warnings: Vec<String>,
    /// The file, absolute; `None` when there was none to find.
    pub source: Option<PathBuf>,
}

impl Loaded {
    /// What `--check` prints for a file that can run.
    pub fn check_report(&self) -> String {
        let mut text = String::new();
        for warning in &self.warnings {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "warning: {warning}");
        }
        text.push_str("configuration is valid\n");
        text
    }
}

/// The variables of the process: settings, and what `${NAME}` in credentials stands for. Values that are no UTF-8 are
/// dropped: no setting takes them.
pub fn process_env() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Finds and loads the file; see [`View::load`] and [`View::reload`].
fn load_file(origin: &Origin, before: Option<&View>) -> Result<Loaded, ConfigErrors> {
    let found = match &origin.explicit {
        Some(path) => Some(path.clone()),
        None => search::first_existing(Path::is_file),
    };
    let mut loaded = match &found {
        None => {
            let mut loaded = load_text("", None, origin, before)?;
            loaded.warnings.insert(0, search::nothing_found());
            loaded
        }
        Some(path) => {
            let text = read_file(path)
                .map_err(|error| ConfigErrors::one(Some(path.clone()), format!("cannot be read: {error}")))?;
            // Somebody may have emptied it to write it anew: nobody means to lose all cameras at once.
            if before.is_some() && says_nothing(&text) {
                let message = "is empty: write 'paths:' to run without any".to_owned();
                return Err(ConfigErrors::one(Some(path.clone()), message));
            }
            load_text(&text, Some(path), origin, before)?
        }
    };
    loaded.source = found.map(|path| std::path::absolute(&path).unwrap_or(path));
    loaded.view = match before {
        Some(before) => state::carry_over(loaded.view, before, &mut loaded.warnings),
        None => state::restore(loaded.view, &mut loaded.warnings),
    };
    Ok(loaded)
}

fn says_nothing(text: &str) -> bool {
    text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
}

fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("larger than {} MiB", FILE_BYTES_MAX >> 20)));
    }
    Ok(text)
}

/// Loads the text of a file. `file` is how messages call it.
fn load_text(
    text: &str,
    file: Option<&PathBuf>,
    origin: &Origin,
    before: Option<&View>,
) -> Result<Loaded, ConfigErrors> {
    let variables = origin.env.variables();
    let is_key = |name: &str| matches!(name, "MTX_CONFKEY" | "RTSP_CONFKEY");
    if let Some((name, _)) = variables.iter().find(|(name, _)| is_key(name)) {
        let message = "encrypted configuration files are not supported by this version".to_owned();
        let at = At::Env(name.as_str().into());
        return Err(ConfigErrors { file: file.cloned(), errors: vec![ConfigError { at, message }] });
    }
    let mut report = Report::default();
    let Some(mut root) = yaml::parse(text, &mut report) else { return Err(report.fail(file)) };
    if root.is_null() {
        root = Node::empty_map(At::Nowhere);
    }
    env::apply(&mut root, variables);
    let Value::Map(entries) = &root.value else {
        report.error(&root.at, "a configuration is a map of keys, such as 'rtspAddress: :8554'");
        return Err(report.fail(file));
    };
    let view = interpret(entries, origin, before, &mut report);
    let warnings = report.finish(file)?;
    Ok(Loaded { view, warnings, source: None })
}

fn interpret(root: &[Entry], origin: &Origin, before: Option<&View>, report: &mut Report) -> View {
    let block = |name: &str, report: &mut Report| match root.iter().find(|entry| entry.key == name) {
        Some(entry) => section::entries(name, &entry.value, report),
        None => &[],
    };
    let is_block =
        |entry: &&Entry| matches!(entry.key.as_str(), "paths" | "pathDefaults" | keys::ENGINE_BLOCK);
    let mut path_defaults = Section::read(Scope::Path, block("pathDefaults", report), None, report);
    let global = root.iter().filter(|entry| !is_block(entry));
    let global = Section::read(Scope::Global, global, Some(&mut path_defaults), report);
    let engine = Section::read(Scope::Engine, block(keys::ENGINE_BLOCK, report), None, report);
    let documents =
        Documents { global: global.into(), engine: engine.into(), path_defaults: path_defaults.into() };

    let globals = assemble::globals(&documents, origin, before, report);
    let cores = &globals.settings().engine.cores;
    assemble::check_defaults(&documents, cores, &origin.env, report);
    let context = Context {
        defaults: &documents.path_defaults,
        cores,
        env: &origin.env,
        native: assemble::native(&documents, &origin.env),
    };
    let mut paths = BTreeMap::new();
    for entry in block("paths", report) {
        let body = section::entries(&entry.key, &entry.value, report);
        let own = Arc::new(Section::read(Scope::Path, body, None, report));
        let key: Arc<str> = entry.key.as_str().into();
        let before = before.and_then(|view| view.paths.get(&key));
        let written = Written { key: Arc::clone(&key), key_at: entry.key_at.clone(), own, from_api: false };
        if let Some(path) = paths::path(written, &context, before, report) {
            paths.insert(key, path);
        }
    }
    let draft = Draft { documents: documents.clone(), paths, globals, origin: origin.clone() };
    assemble::view(draft, report)
}
