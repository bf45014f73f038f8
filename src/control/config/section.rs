//! One map of the file (the top level, `pathDefaults`, a path, `engine`) read against its table of keys.

use std::{collections::HashMap, sync::LazyLock};

use super::{
    error::{At, Report},
    keys::{self, Key, Kind, Legacy, Status},
    typed::{self, Record, Typed},
    yaml::{Entry, Node, Scalar, Style, Value},
};

/// The keys that a map sets, older spellings translated.
#[derive(Debug, Clone, Default)]
pub(super) struct Section {
    values: Vec<(&'static str, Setting)>,
}

/// A value and where it was given.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub value: Typed,
    pub at: At,
    /// The older spelling that was used.
    pub older: Option<&'static Key>,
}

/// Which map is read: decides the hint for a key that stands in the wrong one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Global,
    Path,
    Engine,
}

impl Scope {
    pub fn table(self) -> &'static [Key] {
        match self {
            Self::Global => keys::GLOBAL,
            Self::Path => keys::PATH,
            Self::Engine => keys::ENGINE,
        }
    }
}

impl Section {
    /// Reads a map. Top-level `record*` keys go to `moved`, the section of `pathDefaults`.
    pub fn read<'node>(
        scope: Scope,
        entries: impl IntoIterator<Item = &'node Entry>,
        mut moved: Option<&mut Self>,
        report: &mut Report,
    ) -> Self {
        let mut section = Self::default();
        let mut translated = Vec::new();
        for entry in entries {
            if report.is_full() {
                break;
            }
            // Files are made from answers of the API.
            if scope == Scope::Path && entry.key == keys::FROM_API {
                continue;
            }
            let Some(key) = keys::find(scope.table(), &entry.key) else {
                report.unknown_field(&entry.key_at, &entry.key, &hint(scope, &entry.key));
                continue;
            };
            let Some(value) = typed::read(key, &entry.value, report) else { continue };
            // Keys that are unset by default can be unset again.
            let is_value =
                matches!(key.status, Status::Served) && key.default.is_empty() && !key.kind.is_text();
            if value == Typed::Unset && !is_value && !matches!(key.kind, Kind::Cores) {
                continue;
            }
            let setting = Setting { value, at: entry.value.at.clone(), older: None };
            match key.status {
                Status::Legacy(legacy) => translated.push((key, legacy, setting, &entry.key_at)),
                _ => {
                    warn_if_later(key, &setting.value, &entry.key_at, report);
                    section.set(key.name, setting);
                }
            }
        }
        // After the others: in MediaMTX an older spelling wins over the newer one.
        for (key, legacy, setting, key_at) in translated {
            section.translate(scope, key, legacy, setting, key_at, moved.as_deref_mut(), report);
        }
        section
    }

    #[expect(clippy::too_many_arguments, reason = "one row of the translation table, unpacked")]
    fn translate(
        &mut self,
        scope: Scope,
        key: &'static Key,
        legacy: Legacy,
        setting: Setting,
        key_at: &At,
        moved: Option<&mut Self>,
        report: &mut Report,
    ) {
        let old = key.name;
        let (table, target) = match legacy {
            Legacy::Renamed(new)
            | Legacy::RenamedWith(new, _)
            | Legacy::Negated(new)
            | Legacy::OneElement(new) => (scope.table(), new),
            Legacy::PathDefault => (keys::PATH, old),
            Legacy::Alone => {
                report.warn_once(old, key_at, || {
                    format!("key '{old}' is deprecated and not served by this version yet")
                });
                return self.set(old, setting);
            }
            Legacy::Obeyed => {
                report.warn_once(old, key_at, || format!("key '{old}' is deprecated, and obeyed"));
                return self.set(old, setting);
            }
            Legacy::NoEffect => {
                report.warn_once(old, key_at, || format!("key '{old}' is deprecated and has no effect"));
                return;
            }
        };
        let Some(new_key) = keys::find(table, target) else { return };
        let value = match (legacy, setting.value) {
            (Legacy::Negated(_), Typed::Bool(value)) => Typed::Bool(!value),
            (Legacy::OneElement(_), value) => Typed::List(vec![value]),
            (_, value) => value,
        };
        let suffix =
            unserved(new_key, &value).map(|why| format!("; it is not served by this version yet{why}"));
        let suffix = suffix.unwrap_or_default();
        report.warn_once(old, key_at, || match legacy {
            Legacy::PathDefault => {
                format!("key '{old}' at the top level is deprecated, read as 'pathDefaults.{old}'{suffix}")
            }
            Legacy::Negated(_) => {
                format!("key '{old}' is deprecated, read as the opposite of '{target}'{suffix}")
            }
            Legacy::RenamedWith(_, (key, word)) => {
                format!("key '{old}' is deprecated, read as '{target}' and '{key}: {word}'{suffix}")
            }
            _ => format!("key '{old}' is deprecated, read as '{target}'{suffix}"),
        });
        let destination = if matches!(legacy, Legacy::PathDefault) { moved } else { Some(self) };
        if let Some(section) = destination {
            let older = (!matches!(legacy, Legacy::PathDefault)).then_some(key);
            if let Legacy::RenamedWith(_, (key, word)) = legacy {
                let word = Typed::Text(word.to_owned());
                section.set(key, Setting { value: word, at: setting.at.clone(), older: None });
            }
            section.set(new_key.name, Setting { value, at: setting.at, older });
        }
    }

    fn set(&mut self, name: &'static str, setting: Setting) {
        self.values.retain(|(known, _)| *known != name);
        self.values.push((name, setting));
    }

    /// Lays what `newer` sets over this one.
    pub fn overlay(&mut self, newer: Self) {
        for (name, setting) in newer.values {
            self.set(name, setting);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub fn get(&self, name: &str) -> Option<&Setting> {
        self.values.iter().find(|(known, _)| *known == name).map(|(_, setting)| setting)
    }
}

fn warn_if_later(key: &Key, value: &Typed, at: &At, report: &mut Report) {
    let name = key.name;
    if let Some(why) = unserved(key, value) {
        report.warn_once(name, at, || {
            format!("key '{name}' is accepted but not served by this version yet{why}")
        });
    }
}

/// Whether a value that was written down asks for something this version does not do; what to add to the warning.
fn unserved(key: &Key, value: &Typed) -> Option<String> {
    match key.status {
        Status::Later => (!typed::is_default(key, value)).then(String::new),
        Status::LaterSwitch => (*value == Typed::Bool(true)).then(String::new),
        Status::LaterBecause(why) => (!typed::is_default(key, value)).then(|| format!(": {why}")),
        Status::Served | Status::Quiet | Status::Legacy(_) => None,
    }
}

/// What to say of a key that is not known here; may be empty.
fn hint(scope: Scope, name: &str) -> String {
    let elsewhere = [
        (Scope::Path, "it belongs under 'pathDefaults' or into a path"),
        (Scope::Global, "it belongs to the top level"),
        (Scope::Engine, "it belongs under 'engine'"),
    ];
    for (other, hint) in elsewhere {
        if other != scope && keys::find(other.table(), name).is_some() {
            return hint.to_owned();
        }
    }
    match keys::closest(scope.table(), name) {
        Some(close) => format!("did you mean \"{close}\"?"),
        None => String::new(),
    }
}

/// The entries of a map that may also be left empty (`cam1:`, or the variable `MTX_PATHS_CAM1=`).
pub(super) fn entries<'node>(name: &str, node: &'node Node, report: &mut Report) -> &'node [Entry] {
    match &node.value {
        Value::Map(entries) => entries,
        Value::Scalar(Scalar { text, style: Style::Env }) if text.is_empty() => &[],
        _ if node.is_null() => &[],
        _ => {
            report.error(&node.at, format!("'{name}' must be a map of keys, or empty"));
            &[]
        }
    }
}

/// The defaults of all keys of a scope that have one.
#[derive(Debug)]
struct Defaults(HashMap<&'static str, Setting>);

impl Defaults {
    fn of(scope: Scope) -> Self {
        let current = scope.table().iter().filter(|key| !matches!(key.status, Status::Legacy(_)));
        let setting = |key| Setting { value: typed::default_of(key), at: At::Nowhere, older: None };
        Self(current.map(|key| (key.name, setting(key))).collect())
    }
}

static GLOBAL_DEFAULTS: LazyLock<Defaults> = LazyLock::new(|| Defaults::of(Scope::Global));
static PATH_DEFAULTS: LazyLock<Defaults> = LazyLock::new(|| Defaults::of(Scope::Path));
static ENGINE_DEFAULTS: LazyLock<Defaults> = LazyLock::new(|| Defaults::of(Scope::Engine));

/// A section over another one, over the built-in defaults: the first that has a key wins.
#[derive(Clone, Copy)]
pub(super) struct Layers<'a> {
    pub scope: Scope,
    own: &'a Section,
    under: Option<&'a Section>,
}

impl<'a> Layers<'a> {
    pub fn new(scope: Scope, own: &'a Section) -> Self {
        Self { scope, own, under: None }
    }

    /// A path over `pathDefaults`.
    pub fn path(own: &'a Section, defaults: &'a Section) -> Self {
        Self { scope: Scope::Path, own, under: Some(defaults) }
    }

    /// What was written, here or below.
    pub fn written(self, name: &str) -> Option<&'a Setting> {
        self.own.get(name).or_else(|| self.under?.get(name))
    }

    pub fn get(self, name: &str) -> &'a Setting {
        let defaults = match self.scope {
            Scope::Global => &GLOBAL_DEFAULTS,
            Scope::Path => &PATH_DEFAULTS,
            Scope::Engine => &ENGINE_DEFAULTS,
        };
        match self.written(name).or_else(|| defaults.0.get(name)) {
            Some(setting) => setting,
            None => unreachable!("the table of keys gives '{name}' a default"),
        }
    }

    pub fn at(self, name: &str) -> &'a At {
        &self.get(name).at
    }

    pub fn bool(self, name: &str) -> bool {
        match self.get(name).value {
            Typed::Bool(value) => value,
            ref other => unreachable!("the table of keys makes '{name}' a boolean, not {other:?}"),
        }
    }

    pub fn int(self, name: &str) -> i64 {
        match self.get(name).value {
            Typed::Int(value) => value,
            ref other => unreachable!("the table of keys makes '{name}' a number, not {other:?}"),
        }
    }

    pub fn text(self, name: &str) -> &'a str {
        match &self.get(name).value {
            Typed::Text(value) => value,
            other => unreachable!("the table of keys makes '{name}' text, not {other:?}"),
        }
    }

    /// The elements of a list of words.
    pub fn words(self, name: &str) -> impl Iterator<Item = &'a str> {
        self.get(name).value.texts()
    }

    pub fn records(self, name: &str) -> &'a [Record] {
        self.get(name).value.records()
    }
}
