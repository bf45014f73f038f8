//! One map of the file (the top level, `pathDefaults`, a path, `engine`) read against its table of keys.

use super::{
    error::{At, Report},
    keys::{self, Key, Kind, Legacy, Status},
    typed::{self, Typed},
    yaml::{Entry, Node, Scalar, Style, Value},
};

/// The keys that a map sets, older spellings translated.
#[derive(Debug, Default)]
pub(super) struct Section {
    values: Vec<(&'static str, Setting)>,
}

/// A value and where it was given.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub value: Typed,
    pub at: At,
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
    /// The defaults of all keys this version serves: the layer under every other.
    pub fn defaults(scope: Scope) -> Self {
        let served = scope.table().iter().filter(|key| matches!(key.status, Status::Served));
        let values = served
            .map(|key| (key.name, Setting { value: typed::default_of(key), at: At::Nowhere }))
            .collect();
        Self { values }
    }

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
            let Some(key) = keys::find(scope.table(), &entry.key) else {
                report.error(&entry.key_at, unknown(scope, &entry.key));
                continue;
            };
            let Some(value) = typed::read(key, &entry.value, report) else { continue };
            if value == Typed::Unset && !matches!(key.kind, Kind::Cores) {
                continue;
            }
            let setting = Setting { value, at: entry.value.at.clone() };
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
            Legacy::Renamed(new) | Legacy::Negated(new) | Legacy::OneElement(new) => (scope.table(), new),
            Legacy::PathDefault => (keys::PATH, old),
            Legacy::Alone => {
                report.warn_once(old, key_at, || {
                    format!("key '{old}' is deprecated and not served by this version yet")
                });
                return;
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
            _ => format!("key '{old}' is deprecated, read as '{target}'{suffix}"),
        });
        let destination = if matches!(legacy, Legacy::PathDefault) { moved } else { Some(self) };
        if let Some(section) = destination {
            section.set(new_key.name, Setting { value, at: setting.at });
        }
    }

    fn set(&mut self, name: &'static str, setting: Setting) {
        self.values.retain(|(known, _)| *known != name);
        self.values.push((name, setting));
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

fn unknown(scope: Scope, name: &str) -> String {
    let elsewhere = [
        (Scope::Path, "it belongs under 'pathDefaults' or into a path"),
        (Scope::Global, "it belongs to the top level"),
        (Scope::Engine, "it belongs under 'engine'"),
    ];
    for (other, hint) in elsewhere {
        if other != scope && keys::find(other.table(), name).is_some() {
            return format!("unknown key '{name}' here: {hint}");
        }
    }
    match keys::closest(scope.table(), name) {
        Some(close) => format!("unknown key '{name}': did you mean '{close}'?"),
        None => format!("unknown key '{name}'"),
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

/// Sections on top of each other, the first that has a key wins; the last holds all defaults.
#[derive(Clone, Copy)]
pub(super) struct Layers<'a>(pub &'a [&'a Section]);

impl<'a> Layers<'a> {
    pub fn get(self, name: &str) -> &'a Setting {
        match self.0.iter().find_map(|section| section.get(name)) {
            Some(setting) => setting,
            None => unreachable!("the table of keys gives '{name}' a default"),
        }
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
        let Typed::List(items) = &self.get(name).value else {
            unreachable!("the table of keys makes '{name}' a list")
        };
        items.iter().filter_map(|item| match item {
            Typed::Text(word) => Some(word.as_str()),
            _ => None,
        })
    }
}
