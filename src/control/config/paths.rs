//! One entry of `paths:`: its key becomes a name or a pattern, its values settings and hooks.

use std::sync::Arc;

use corecast_hub::{
    quota::Quota,
    settings::{BroughtBy, DemandSettings, PathSettings, PathTable, PullSettings, Source, check_name},
};
use regex::Regex;

use super::{
    conf::{self, limit, ranges},
    error::{At, Report},
    expand::Environment,
    ffmpeg_shape::{self, Server},
    legacy, path_checks,
    section::{Layers, Section, Setting},
    sources,
    store::PathConf,
    typed::Typed,
};
use crate::control::settings::{Hook, PathHooks};

/// What the key of an entry names.
#[derive(Debug, Clone)]
pub(super) enum PathKey {
    /// One path.
    Exact,
    /// Every path the pattern matches.
    Pattern(Regex),
    /// `prefix_~name`: the pattern, and the name of its only group.
    Captured(Regex, Arc<str>),
    /// `all`, `all_others`, `~^.*$`: every path nothing else serves.
    CatchAll(Regex),
}

impl PathKey {
    pub fn pattern(&self) -> Option<&Regex> {
        match self {
            Self::Exact => None,
            Self::Pattern(pattern) | Self::Captured(pattern, _) | Self::CatchAll(pattern) => Some(pattern),
        }
    }
}

/// An entry as it was written.
#[derive(Debug)]
pub(super) struct Written {
    pub key: Arc<str>,
    pub key_at: At,
    pub own: Arc<Section>,
    pub from_api: bool,
}

/// What all entries are read with.
pub(super) struct Context<'a> {
    pub defaults: &'a Section,
    /// Those of the engine.
    pub cores: &'a [usize],
    pub env: &'a Environment,
    pub native: Server<'a>,
}

/// Makes an entry that can run; `None` when its key is none. What `before` counts goes on being counted, and what is
/// as it was is not made again.
pub(super) fn path(
    written: Written,
    context: &Context<'_>,
    before: Option<&Arc<PathConf>>,
    report: &mut Report,
) -> Option<Arc<PathConf>> {
    let key = match before {
        // Compiling a pattern is the dear part.
        Some(before) => before.key.clone(),
        None => path_key(&written.key, &written.key_at, report)?,
    };
    let layers = Layers::path(&written.own, context.defaults);
    path_checks::entry(layers, &key, context.env, report);
    let source = sources::source(layers, &key, context.env, report);
    let native = native_pull(layers, &key, &written, context, report);
    let settings = PathSettings {
        conf_name: Arc::clone(&written.key),
        demand: demand(layers, &source, native.as_ref()),
        source,
        readers_max: limit(layers, "maxReaders"),
        override_publisher: layers.bool("overridePublisher"),
        gop_cache: layers.bool("gopCache"),
        core: core(layers.get("core"), context.cores, report),
        active_max: limit(layers, "maxActive"),
        active: before.map_or_else(Quota::default, |before| before.settings.active.clone()),
        enabled: layers.bool("enabled"),
        fallback: fallback(layers),
        hls_always_remux: match layers.get("hlsAlwaysRemux").value {
            Typed::Bool(always) => Some(always),
            _ => None,
        },
    };
    let hooks = hooks(layers, native.is_some());
    let credentials = legacy::read(layers, context.env, report);
    let settings = match before {
        Some(before) if *before.settings == settings => Arc::clone(&before.settings),
        _ => Arc::new(settings),
    };
    let Written { key: _, key_at, own, from_api } = written;
    if let Some(before) = before
        && Arc::ptr_eq(&before.settings, &settings)
        && Arc::ptr_eq(&before.own, &own)
        && (&before.hooks, &before.credentials, before.from_api) == (&hooks, &credentials, from_api)
    {
        return Some(Arc::clone(before));
    }
    Some(Arc::new(PathConf { settings, hooks, from_api, key, key_at, own, credentials }))
}

/// The pull that stands for `runOnDemand`, if it does what a pull does.
fn native_pull(
    layers: Layers<'_>,
    key: &PathKey,
    written: &Written,
    context: &Context<'_>,
    report: &mut Report,
) -> Option<Arc<PullSettings>> {
    if layers.text("source") != "publisher" {
        return None;
    }
    let pull = ffmpeg_shape::pull(layers, key, &written.key, &context.native)?;
    let (at, name) = (layers.at("runOnDemand"), &written.key);
    let message = || ffmpeg_shape::notice(name);
    match key {
        // Of ten thousand cameras, one line.
        PathKey::Exact => report.warn_once("nativePull", at, message),
        PathKey::Pattern(_) | PathKey::Captured(..) | PathKey::CatchAll(_) => report.warn(at, message()),
    }
    Some(Arc::new(pull))
}

/// Who brings the path to life, if somebody has to want it first.
fn demand(layers: Layers<'_>, source: &Source, native: Option<&Arc<PullSettings>>) -> Option<DemandSettings> {
    let (brought_by, prefix) = match source {
        Source::Rtsp(pull) if layers.bool("sourceOnDemand") => {
            (BroughtBy::Pull(Arc::clone(pull)), "sourceOnDemand")
        }
        Source::Publisher if !layers.text("runOnDemand").is_empty() => {
            let pull = native.map(|pull| BroughtBy::Pull(Arc::clone(pull)));
            (pull.unwrap_or(BroughtBy::Command), "runOnDemand")
        }
        _ => return None,
    };
    let duration = |name: &str| conf::duration(layers, &format!("{prefix}{name}"));
    let (start_timeout, close_after) = (duration("StartTimeout"), duration("CloseAfter"));
    let revives = brought_by != BroughtBy::Command || layers.bool("runOnDemandRestart");
    Some(DemandSettings { brought_by, start_timeout, close_after, revives })
}

fn fallback(layers: Layers<'_>) -> Option<Arc<str>> {
    match &layers.written("fallback")?.value {
        Typed::Text(to) if !to.is_empty() => Some(to.as_str().into()),
        _ => None,
    }
}

/// `is_native`: a pull does what `runOnDemand` would.
fn hooks(layers: Layers<'_>, is_native: bool) -> PathHooks {
    let hook = |command: &str| Hook { command: layers.text(command).to_owned(), restart: false };
    let restarting = |command: &str, restart: &str| Hook { restart: layers.bool(restart), ..hook(command) };
    let demand = if is_native { Hook::default() } else { restarting("runOnDemand", "runOnDemandRestart") };
    PathHooks {
        init: restarting("runOnInit", "runOnInitRestart"),
        demand,
        un_demand: hook("runOnUnDemand"),
        available: restarting("runOnAvailable", "runOnAvailableRestart"),
        unavailable: hook("runOnUnavailable"),
        online: restarting("runOnOnline", "runOnOnlineRestart"),
        offline: hook("runOnOffline"),
        read: restarting("runOnRead", "runOnReadRestart"),
        unread: hook("runOnUnread"),
    }
}

/// `core` of a path; `cores` are those of the engine.
pub(super) fn core(setting: &Setting, cores: &[usize], report: &mut Report) -> Option<usize> {
    let Typed::Int(core) = setting.value else { return None };
    let core = usize::try_from(core).ok()?;
    if !cores.contains(&core) {
        let message = format!("'core' is {core}: expected one of engine.cores ({})", ranges(cores));
        report.error(&setting.at, message);
    }
    Some(core)
}

/// Makes the table that lookups use.
pub(super) fn table<'a>(
    paths: impl Iterator<Item = &'a Arc<PathConf>>,
    before: &PathTable,
    report: &mut Report,
) -> PathTable {
    let mut exact = Vec::new();
    let mut patterns: Vec<(&Regex, &Arc<PathConf>)> = Vec::new();
    for path in paths {
        match path.key.pattern() {
            None => exact.push(Arc::clone(&path.settings)),
            Some(pattern) => patterns.push((pattern, path)),
        }
    }
    check_catch_alls(&patterns, report);
    // Contract §1.5: by key, but `all` and `all_others` behind the rest.
    let last = |path: &PathConf| matches!(&*path.settings.conf_name, "all" | "all_others");
    patterns
        .sort_by(|(_, a), (_, b)| (last(a), &a.settings.conf_name).cmp(&(last(b), &b.settings.conf_name)));
    warn_of_hidden(&patterns, report);
    let patterns = patterns.into_iter().map(|(pattern, path)| (pattern.clone(), Arc::clone(&path.settings)));
    PathTable::succeeding(before, exact, patterns.collect())
}

fn check_catch_alls(patterns: &[(&Regex, &Arc<PathConf>)], report: &mut Report) {
    let mut catch_alls: Vec<_> = patterns
        .iter()
        .map(|(_, path)| *path)
        .filter(|path| matches!(path.key, PathKey::CatchAll(_)))
        .collect();
    // The later one is to be blamed, and one that the API adds comes after the file.
    catch_alls.sort_by_key(|path| match path.key_at {
        At::File { line, column } => (0, line, column),
        At::Env(_) | At::Nowhere => (1, 0, 0),
        At::Api => (2, 0, 0),
    });
    let Some((first, others)) = catch_alls.split_first() else { return };
    for other in others {
        let message = format!(
            "path '{}' means every other path, and so does '{}': keep one of them",
            other.settings.conf_name, first.settings.conf_name
        );
        report.error(&other.key_at, message);
    }
}

/// `~^.*$` is sorted like any pattern, as in MediaMTX, and then hides those that sort behind it.
fn warn_of_hidden(patterns: &[(&Regex, &Arc<PathConf>)], report: &mut Report) {
    let Some(hider) = patterns.iter().position(|(_, path)| &*path.settings.conf_name == "~^.*$") else {
        return;
    };
    let names = patterns[hider + 1..].iter().map(|(_, path)| &path.settings.conf_name);
    for name in names.filter(|name| name.starts_with('~')) {
        report.warn_once("hidden by ~^.*$", &At::Nowhere, || {
            format!("path '{name}' is never reached, since '~^.*$' sorts before it: write 'all_others' for that one")
        });
    }
}

/// Reads a key of `paths:` (contract §1.5 and §0). `None` after an error.
pub(super) fn path_key(key: &str, at: &At, report: &mut Report) -> Option<PathKey> {
    if matches!(key, "all" | "all_others" | "~^.*$") {
        return compile("^.*$", key, at, report).map(PathKey::CatchAll);
    }
    if let Some(pattern) = key.strip_prefix('~') {
        if pattern.is_empty() {
            report.error(at, "path '~' has an empty pattern: write '~' and a regular expression");
            return None;
        }
        return compile(pattern, key, at, report).map(PathKey::Pattern);
    }
    if let Some((prefix, variable)) = key.split_once('~') {
        let pattern = captured(key, prefix, variable, at, report)?;
        return Some(PathKey::Captured(pattern, variable.into()));
    }
    if let Err(rule) = check_name(key) {
        report.error(at, format!("invalid path name '{key}': {rule}"));
        return None;
    }
    Some(PathKey::Exact)
}

/// `milestone_~cameraId`: a fixed beginning, then one segment with a name. MediaMTX refuses such keys, and
/// files that hold them exist.
fn captured(key: &str, prefix: &str, variable: &str, at: &At, report: &mut Report) -> Option<Regex> {
    // Anything may follow the prefix, so it is checked with a letter behind it.
    if let Err(rule) = check_name(&format!("{prefix}x")) {
        report.error(at, format!("invalid path name '{key}': {rule}"));
        return None;
    }
    let is_word = variable.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && variable.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !is_word {
        let message = format!(
            "invalid path name '{key}': after '~' comes the name of what it stands for \
             (letters, digits, underscore; a letter first), or begin the key with '~' for a regular expression"
        );
        report.error(at, message);
        return None;
    }
    let pattern = format!("^{}(?P<{variable}>[^/]+)$", regex::escape(prefix));
    report.warn(at, format!("path '{key}' serves every path '{prefix}<{variable}>' (read as '~{pattern}')"));
    compile(&pattern, key, at, report)
}

fn compile(pattern: &str, key: &str, at: &At, report: &mut Report) -> Option<Regex> {
    match Regex::new(pattern) {
        Ok(regex) => Some(regex),
        Err(error) => {
            let reason = regex_reason(&error);
            report.error(at, format!("path '{key}' has an invalid regular expression: {reason}"));
            None
        }
    }
}

/// The last line of a syntax error says what is wrong; the others draw it.
pub(super) fn regex_reason(error: &regex::Error) -> String {
    let text = error.to_string();
    text.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned()
}
