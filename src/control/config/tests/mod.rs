//! Each file a promise about the configuration: what its values may be, which paths it makes, what variables
//! change, and that the files people have load.

mod credentials;
mod edits;
mod environment;
mod ffmpeg_shape;
mod files;
mod hls;
mod paths;
mod refused;
mod shown;
mod sources;
mod state;
mod values;
mod views;

use std::{path::PathBuf, sync::Arc};

use super::{
    ConfigErrors, Loaded,
    expand::Environment,
    load_text,
    store::{Origin, View},
};

const CORES: &[usize] = &[0, 1, 2, 3];

fn load(text: &str) -> Result<Loaded, ConfigErrors> {
    load_with(text, &[])
}

fn load_with(text: &str, env: &[(&str, &str)]) -> Result<Loaded, ConfigErrors> {
    let env: Vec<_> = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    load_text(text, Some(&PathBuf::from("c.yml")), &origin(env), None)
}

fn origin(env: Vec<(String, String)>) -> Origin {
    Origin {
        explicit: None,
        env: Environment::new(env),
        available: CORES.into(),
        is_state_broken: Arc::default(),
    }
}

/// `new` in place of `old`, as a reload does it.
fn reload(old: &View, new: &str) -> View {
    load_text(new, None, &old.origin, Some(old)).unwrap().view
}

/// A JSON object.
fn body(value: serde_json::Value) -> serde_json::Map<String, serde_json::Value> {
    value.as_object().unwrap().clone()
}

/// The messages of a configuration that must not load, as printed.
fn errors(text: &str) -> Vec<String> {
    load(text).unwrap_err().to_string().lines().map(str::to_owned).collect()
}

fn warnings(text: &str) -> Vec<String> {
    load(text).unwrap().warnings
}

#[track_caller]
fn assert_one_error(text: &str, expected: &str) {
    assert_eq!(errors(text), [expected], "{text}");
}

#[track_caller]
fn assert_one_warning(text: &str, expected: &str) {
    assert_eq!(warnings(text), [expected], "{text}");
}

fn view(text: &str) -> View {
    load(text).unwrap().view
}
