//! What is wrong with a configuration, and exactly where.

use std::{borrow::Cow, fmt, path::PathBuf, sync::Arc};

/// Most errors printed at once: beyond, it is one mistake repeated.
const SHOWN_MAX: usize = 100;
/// Most errors collected: a large file of another program must not cost minutes of looking for similar keys.
const COLLECTED_MAX: usize = 1000;

/// Longest message.
const MESSAGE_BYTES_MAX: usize = 2048;

/// Where a value came from: shown in front of every message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// A place in the file, both counted from 1.
    File { line: usize, column: usize },
    /// An environment variable, by name.
    Env(Arc<str>),
    /// A change through the API.
    Api,
    /// The built-in default, or the configuration as a whole.
    Nowhere,
}

/// One thing that must be corrected before the configuration can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    pub at: At,
    pub message: String,
}

/// Everything that is wrong, so that an operator corrects a file once and not once per mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors {
    /// The file as it was named to us.
    pub file: Option<PathBuf>,
    /// Never empty.
    pub errors: Vec<ConfigError>,
}

impl ConfigErrors {
    pub(super) fn one(file: Option<PathBuf>, message: String) -> Self {
        Self { file, errors: vec![ConfigError { at: At::Nowhere, message }] }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().take(SHOWN_MAX).enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            let place = Place { file: self.file.as_ref(), at: &error.at };
            write!(f, "{place}{}", error.message)?;
        }
        match self.errors.len().saturating_sub(SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, "\n… and {more} more errors"),
        }
    }
}

/// `file:line:column: `, `environment variable MTX_X: `, `file: ` or nothing.
pub(super) struct Place<'a> {
    pub file: Option<&'a PathBuf>,
    pub at: &'a At,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.at, self.file) {
            (At::Env(name), _) => write!(f, "environment variable {name}: "),
            (At::File { line, column }, Some(file)) => write!(f, "{}:{line}:{column}: ", file.display()),
            (At::File { line, column }, None) => write!(f, "{line}:{column}: "),
            (At::Api, _) => f.write_str("set through the API: "),
            (At::Nowhere, Some(file)) => write!(f, "{}: ", file.display()),
            (At::Nowhere, None) => Ok(()),
        }
    }
}

/// Most characters of a value that a message repeats.
const VALUE_SHOWN_MAX: usize = 200;

/// A value as a message repeats it: whole, unless somebody put a file where a word belongs.
pub(super) fn shown(value: &str) -> Cow<'_, str> {
    match value.char_indices().nth(VALUE_SHOWN_MAX) {
        Some((end, _)) => Cow::Owned(format!("{}…", &value[..end])),
        None => Cow::Borrowed(value),
    }
}

/// Collects errors and warnings while a configuration is read.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub errors: Vec<ConfigError>,
    warnings: Vec<Warning>,
}

/// A warning that may hold at many places and is printed once.
#[derive(Debug)]
struct Warning {
    at: At,
    message: String,
    /// What makes two warnings the same one; empty for a warning that is never repeated.
    topic: String,
    more: usize,
}

impl Report {
    /// Whether further errors are thrown away, so that looking for them is of no use.
    pub fn is_full(&self) -> bool {
        self.errors.len() >= COLLECTED_MAX
    }

    pub fn error(&mut self, at: &At, message: impl Into<String>) {
        if self.is_full() {
            return;
        }
        let mut message = message.into();
        if message.len() > MESSAGE_BYTES_MAX {
            message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
            message.push('…');
        }
        let error = ConfigError { at: at.clone(), message };
        // A bad value in `pathDefaults` is met again by every path.
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    /// A key that is none; `hint` may be empty. The API begins as MediaMTX does.
    pub fn unknown_field(&mut self, at: &At, name: &str, hint: &str) {
        let json = if *at == At::Api { "json: " } else { "" };
        let colon = if hint.is_empty() { "" } else { ": " };
        let name = shown(name);
        self.error(at, format!("{json}unknown field \"{name}\"{colon}{hint}"));
    }

    pub fn warn(&mut self, at: &At, message: impl Into<String>) {
        let message = message.into();
        self.warnings.push(Warning { at: at.clone(), message, topic: String::new(), more: 0 });
    }

    /// Warns at the first place of a `topic` and counts the others: ten thousand paths with the same key
    /// are one line of log.
    pub fn warn_once(&mut self, topic: &str, at: &At, message: impl FnOnce() -> String) {
        match self.warnings.iter_mut().find(|known| known.topic == topic) {
            Some(known) => known.more += 1,
            None => {
                let topic = topic.to_owned();
                self.warnings.push(Warning { at: at.clone(), message: message(), topic, more: 0 });
            }
        }
    }

    /// The finished warnings, or all the errors.
    pub fn finish(self, file: Option<&PathBuf>) -> Result<Vec<String>, ConfigErrors> {
        if self.errors.is_empty() {
            return Ok(self.warnings.iter().map(|warning| warning.line(file)).collect());
        }
        Err(self.fail(file))
    }

    /// The errors in the order of the file, after at least one was reported.
    pub fn fail(mut self, file: Option<&PathBuf>) -> ConfigErrors {
        self.errors.sort_by_key(|error| match error.at {
            At::File { line, column } => (0, line, column),
            At::Env(_) => (1, 0, 0),
            At::Api => (2, 0, 0),
            At::Nowhere => (3, 0, 0),
        });
        ConfigErrors { file: file.cloned(), errors: self.errors }
    }
}

impl Warning {
    fn line(&self, file: Option<&PathBuf>) -> String {
        let place = Place { file, at: &self.at };
        match self.more {
            0 => format!("{place}{}", self.message),
            1 => format!("{place}{} (and in 1 more place)", self.message),
            more => format!("{place}{} (and in {more} more places)", self.message),
        }
    }
}
