//! `paths:` to the table that lookups use: keys become names or patterns, sources become kinds.

use std::{num::NonZeroU32, sync::Arc};

use corecast_hub::settings::{PathSettings, PathTable, Source, check_name};
use regex::Regex;

use super::{
    conf::ranges,
    error::{At, Report},
    section::{self, Layers, Scope, Section, Setting},
    typed::Typed,
    yaml::Entry,
};

/// Kinds of source, by how they start, that MediaMTX has and this version does not serve.
const UNSERVED_SCHEMES: &[&str] = &[
    "rtsp",
    "rtsps",
    "rtsp+http",
    "rtsps+http",
    "rtsp+ws",
    "rtsps+ws",
    "rtmp",
    "rtmps",
    "http",
    "https",
    "udp",
    "udp+mpegts",
    "unix+mpegts",
    "udp+rtp",
    "unix+rtp",
    "srt",
    "moqt",
    "whep",
    "wheps",
];

/// What the key of an entry names.
enum PathKey {
    /// One path.
    Exact,
    /// Every path the pattern matches.
    Pattern(Regex),
    /// `all`, `all_others`, `~^.*$`: every path nothing else serves.
    CatchAll(Regex),
}

/// Reads all entries. `defaults` are `pathDefaults` over the built-in ones, `cores` those of the engine.
pub(super) fn table(
    entries: &[Entry],
    defaults: [&Section; 2],
    cores: &[usize],
    report: &mut Report,
) -> PathTable {
    let mut exact = Vec::with_capacity(entries.len());
    let mut patterns = Vec::new();
    let mut catch_all: Option<&Entry> = None;
    for entry in entries {
        let body = section::entries(&entry.key, &entry.value, report);
        let own = Section::read(Scope::Path, body, None, report);
        let layers = [&own, defaults[0], defaults[1]];
        let Some(key) = path_key(entry, report) else { continue };
        let settings = path(&entry.key, &key, Layers(&layers), cores, report);
        match key {
            PathKey::Exact => exact.push(settings),
            PathKey::Pattern(pattern) => patterns.push((pattern, settings)),
            PathKey::CatchAll(pattern) => {
                if let Some(first) = catch_all {
                    let message = format!(
                        "path '{}' means every other path, and so does '{}': keep one of them",
                        entry.key, first.key
                    );
                    report.error(&entry.key_at, message);
                }
                catch_all.get_or_insert(entry);
                patterns.push((pattern, settings));
            }
        }
    }
    // Contract §1.5: by key, but `all` and `all_others` behind the rest.
    patterns.sort_by(|(_, a), (_, b)| {
        let last = |path: &PathSettings| matches!(&*path.conf_name, "all" | "all_others");
        (last(a), &a.conf_name).cmp(&(last(b), &b.conf_name))
    });
    warn_of_hidden(&patterns, report);
    PathTable::new(exact, patterns)
}

/// `~^.*$` is sorted like any pattern, as in MediaMTX, and then hides those that sort behind it.
fn warn_of_hidden(patterns: &[(Regex, Arc<PathSettings>)], report: &mut Report) {
    let Some(hider) = patterns.iter().position(|(_, path)| &*path.conf_name == "~^.*$") else { return };
    let hidden = patterns[hider + 1..].iter().filter(|(_, path)| path.conf_name.starts_with('~'));
    for (_, path) in hidden {
        report.warn_once("hidden by ~^.*$", &At::Nowhere, || {
            format!(
                "path '{}' is never reached, since '~^.*$' sorts before it: write 'all_others' for that one",
                path.conf_name
            )
        });
    }
}

fn path(
    name: &str,
    key: &PathKey,
    layers: Layers<'_>,
    cores: &[usize],
    report: &mut Report,
) -> Arc<PathSettings> {
    Arc::new(PathSettings {
        conf_name: name.into(),
        source: source(name, key, layers.get("source"), report),
        readers_max: u32::try_from(layers.int("maxReaders")).ok().and_then(NonZeroU32::new),
        override_publisher: layers.bool("overridePublisher"),
        gop_cache: layers.bool("gopCache"),
        core: core(layers.get("core"), cores, report),
    })
}

fn core(setting: &Setting, cores: &[usize], report: &mut Report) -> Option<usize> {
    let Typed::Int(core) = setting.value else { return None };
    let core = usize::try_from(core).ok()?;
    if !cores.contains(&core) {
        let message = format!("'core' is {core}: expected one of engine.cores ({})", ranges(cores));
        report.error(&setting.at, message);
    }
    Some(core)
}

fn source(name: &str, key: &PathKey, setting: &Setting, report: &mut Report) -> Source {
    let Typed::Text(text) = &setting.value else { return Source::Publisher };
    let kind = match text.as_str() {
        "publisher" => return Source::Publisher,
        "demo" => {
            if !matches!(key, PathKey::Exact) {
                let message = format!(
                    "'source' of path '{name}' is demo, but this entry serves many paths: \
                     a built-in camera needs an entry that names one"
                );
                report.error(&setting.at, message);
            }
            return Source::Demo;
        }
        "redirect" | "rpiCamera" => text.as_str(),
        url => match url.split_once("://") {
            Some((scheme, rest)) if UNSERVED_SCHEMES.contains(&scheme) && !rest.is_empty() => scheme,
            // What follows a scheme may hold a password, which must not come to the log.
            Some((scheme, _)) => {
                unknown_source(&format!("{scheme}://…"), &setting.at, report);
                return Source::Publisher;
            }
            None => {
                unknown_source(url, &setting.at, report);
                return Source::Publisher;
            }
        },
    };
    report.warn_once(&format!("source {kind}"), &setting.at, || {
        format!("'source' of path '{name}' is of kind {kind}, which is accepted but not served by this version yet")
    });
    Source::Unserved(kind.into())
}

fn unknown_source(shown: &str, at: &At, report: &mut Report) {
    let message = format!(
        "'source' is '{shown}': expected publisher, demo, redirect, rpiCamera or a URL that starts with one of {}",
        UNSERVED_SCHEMES.iter().map(|scheme| format!("{scheme}://")).collect::<Vec<_>>().join(", ")
    );
    report.error(at, message);
}

/// Reads a key of `paths:` (contract §1.5 and §0). `None` after an error.
fn path_key(entry: &Entry, report: &mut Report) -> Option<PathKey> {
    let key = entry.key.as_str();
    let at = &entry.key_at;
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
        return captured(key, prefix, variable, at, report).map(PathKey::Pattern);
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
            // The last line of a syntax error says what is wrong; the others draw it.
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default().trim().trim_start_matches("error: ");
            report.error(at, format!("path '{key}' has an invalid regular expression: {reason}"));
            None
        }
    }
}
