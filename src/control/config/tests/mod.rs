//! Each file a promise about the configuration: what its values may be, which paths it makes, what variables
//! change, and that the files people have load.

mod environment;
mod files;
mod paths;
mod values;

use super::{ConfigErrors, Loaded, load_text};

const CORES: &[usize] = &[0, 1, 2, 3];

fn load(text: &str) -> Result<Loaded, ConfigErrors> {
    load_with(text, &[])
}

fn load_with(text: &str, env: &[(&str, &str)]) -> Result<Loaded, ConfigErrors> {
    let env: Vec<_> = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    load_text(text, Some(&"c.yml".into()), &env, CORES)
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
