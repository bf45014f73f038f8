//! The configuration file: MediaMTX's keys and defaults, so that a stock file loads; what comes out cannot
//! be illegal.
//!
//! A file passes four stages: [`yaml`] makes a tree with positions, [`env`] lays variables over it,
//! [`section`] reads its maps against the table in [`keys`], [`conf`] and [`paths`] check what concerns more
//! than one value. All stages report to one list, so a file is corrected in one go.

mod conf;
mod duration;
mod env;
mod error;
mod keys;
mod paths;
mod search;
mod section;
mod size;
#[cfg(test)]
mod tests;
mod typed;
mod yaml;

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use corecast_hub::settings::Settings;

use error::Report;
pub use error::{At, ConfigError, ConfigErrors};
use section::{Layers, Scope, Section};
use yaml::{Entry, Node, Value};

use crate::observe::log::LogSettings;

/// Largest file, bytes: ten thousand paths with a page of settings each.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A configuration that can run.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub settings: Settings,
    pub log: LogSettings,
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

/// The variables that may hold settings. Values that are no UTF-8 are dropped: no setting takes them.
pub fn process_env() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with("MTX_") || name.starts_with("RTSP_"))
        .collect()
}

/// Loads the configuration: the file at `explicit`, else the first of the usual places, then the variables in
/// `env` over it. `available` are the cores this process may use.
pub fn load(
    explicit: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
    available: &[usize],
) -> Result<Loaded, ConfigErrors> {
    let env: Vec<_> = env.into_iter().collect();
    let found = match explicit {
        Some(path) => Some(path.to_owned()),
        None => search::first_existing(Path::is_file),
    };
    let Some(path) = found else {
        let mut loaded = load_text("", None, &env, available)?;
        loaded.warnings.insert(0, search::nothing_found());
        return Ok(loaded);
    };
    let text = read_file(&path)
        .map_err(|error| ConfigErrors::one(Some(path.clone()), format!("cannot be read: {error}")))?;
    let mut loaded = load_text(&text, Some(&path), &env, available)?;
    loaded.source = Some(std::path::absolute(&path).unwrap_or(path));
    Ok(loaded)
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
pub(crate) fn load_text(
    text: &str,
    file: Option<&PathBuf>,
    env: &[(String, String)],
    available: &[usize],
) -> Result<Loaded, ConfigErrors> {
    if let Some((name, _)) =
        env.iter().find(|(name, _)| matches!(name.as_str(), "MTX_CONFKEY" | "RTSP_CONFKEY"))
    {
        let message = "encrypted configuration files are not supported by this version".to_owned();
        let at = At::Env(name.as_str().into());
        return Err(ConfigErrors { file: file.cloned(), errors: vec![ConfigError { at, message }] });
    }
    let mut report = Report::default();
    let Some(mut root) = yaml::parse(text, &mut report) else { return Err(report.fail(file)) };
    if root.is_null() {
        root = Node::empty_map(At::Nowhere);
    }
    env::apply(&mut root, env);
    let Value::Map(entries) = &root.value else {
        report.error(&root.at, "a configuration is a map of keys, such as 'rtspAddress: :8554'");
        return Err(report.fail(file));
    };
    let (settings, log) = interpret(entries, available, &mut report);
    let warnings = report.finish(file)?;
    Ok(Loaded { settings, log, warnings, source: None })
}

fn interpret(root: &[Entry], available: &[usize], report: &mut Report) -> (Settings, LogSettings) {
    let block = |name: &str, report: &mut Report| match root.iter().find(|entry| entry.key == name) {
        Some(entry) => section::entries(name, &entry.value, report),
        None => &[],
    };
    let global =
        root.iter().filter(|entry| !matches!(entry.key.as_str(), "paths" | "pathDefaults" | "engine"));
    let path_defaults_body = block("pathDefaults", report);
    let mut path_defaults = Section::read(Scope::Path, path_defaults_body, None, report);
    let global = Section::read(Scope::Global, global, Some(&mut path_defaults), report);
    let engine = Section::read(Scope::Engine, block("engine", report), None, report);

    let global_defaults = Section::defaults(Scope::Global);
    let engine_defaults = Section::defaults(Scope::Engine);
    let built_in = Section::defaults(Scope::Path);
    let global = [&global, &global_defaults];
    let global = Layers(&global);
    let engine = conf::engine(Layers(&[&engine, &engine_defaults]), available, report);
    let log = conf::log_settings(global, report);
    let mut settings = conf::settings(global, engine, report);
    settings.paths =
        paths::table(block("paths", report), [&path_defaults, &built_in], &settings.engine.cores, report);
    (settings, log)
}
