//! The configuration as it is kept and edited: what the file says, what the API changed, and what both amount to.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use corecast_hub::settings::{PathSettings, Settings};
use serde_json::{Map, Value};

use super::{
    ConfigErrors, Loaded, edit,
    error::At,
    expand::Environment,
    json::{self, Secrets},
    keys,
    legacy::PathCredentials,
    paths::PathKey,
    section::{Layers, Scope, Section},
    state,
};
use crate::control::settings::{ControlSettings, PathHooks};

/// A configuration that can run, immutable; an edit makes another one.
#[derive(Clone)]
pub struct View {
    pub settings: Arc<Settings>,
    pub control: Arc<ControlSettings>,
    /// By key of `paths:`.
    pub paths: BTreeMap<Arc<str>, Arc<PathConf>>,
    pub(super) documents: Documents,
    pub(super) origin: Origin,
}

/// What was written, as opposed to what it amounts to: what an edit changes.
#[derive(Debug, Clone, Default)]
pub(super) struct Documents {
    pub global: Arc<Section>,
    pub engine: Arc<Section>,
    pub path_defaults: Arc<Section>,
}

/// Where a configuration came from, to go there again.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    /// As it was named; `None`: the usual places.
    pub explicit: Option<PathBuf>,
    pub env: Environment,
    /// Cores this process may use.
    pub available: Arc<[usize]>,
    /// The state file could not be understood: it is set aside before it is written over.
    pub is_state_broken: Arc<AtomicBool>,
}

/// The documents hold secrets.
impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<_> = self.paths.keys().collect();
        f.debug_struct("View").field("settings", &self.settings).field("paths", &keys).finish_non_exhaustive()
    }
}

/// One entry of `paths:` as the control plane needs it.
pub struct PathConf {
    pub settings: Arc<PathSettings>,
    pub hooks: PathHooks,
    /// Added or changed through the API.
    pub from_api: bool,
    pub(super) key: PathKey,
    pub(super) key_at: At,
    /// What the entry sets itself.
    pub(super) own: Arc<Section>,
    /// Those of older files.
    pub(super) credentials: Option<PathCredentials>,
}

/// What it sets may be secret.
impl fmt::Debug for PathConf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PathConf")
            .field("settings", &self.settings)
            .field("from_api", &self.from_api)
            .finish_non_exhaustive()
    }
}

/// A change through the API (contract §2.2). Bodies are JSON objects.
#[derive(Debug, Clone)]
pub enum Edit {
    PatchGlobal(Map<String, Value>),
    PatchPathDefaults(Map<String, Value>),
    AddPath { name: String, body: Map<String, Value> },
    PatchPath { name: String, body: Map<String, Value> },
    ReplacePath { name: String, body: Map<String, Value> },
    RemovePath { name: String },
}

/// Why an edit is refused; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// 400
    #[error("path already exists")]
    PathExists,
    /// 404
    #[error("path not found")]
    PathNotFound,
    /// 400; a sentence for the operator.
    #[error("{0}")]
    Invalid(String),
}

/// Names and values for a hook's environment.
pub type Variables = Vec<(String, String)>;

impl View {
    /// Loads the configuration: the file at `explicit`, else the first of the usual places, then the variables in `env`
    /// over it, then the paths that the API had added (`engine.stateDir`). `available` are the cores this process may
    /// use. Writes nothing.
    ///
    /// # Errors
    /// Everything that is wrong with the file and the variables.
    pub fn load(
        explicit: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
        available: &[usize],
    ) -> Result<Loaded, ConfigErrors> {
        let origin = Origin {
            explicit: explicit.map(Path::to_owned),
            env: Environment::new(env.into_iter().collect()),
            available: available.into(),
            is_state_broken: Arc::default(),
        };
        super::load_file(&origin, None)
    }

    /// Loads the file again, as [`Self::load`] did; the environment is still that of the start. What is counted goes on
    /// being counted. Paths of the API stay when `engine.stateDir` is set, and are discarded without it, as all its other
    /// changes are.
    ///
    /// # Errors
    /// Everything that is wrong with the file; this view goes on being right.
    pub fn reload(&self) -> Result<Loaded, ConfigErrors> {
        super::load_file(&self.origin, Some(self))
    }

    /// What it would be after all of `edits`, or why the first that cannot be is refused.
    ///
    /// # Errors
    /// Nothing is changed by any of them.
    pub fn edited(&self, edits: &[Edit]) -> Result<Self, EditError> {
        edit::apply(self, edits)
    }

    /// All global keys (contract §2.2): older ones only if set, secrets as `<redacted>`; the `engine` block at the end.
    pub fn global_json(&self) -> Value {
        Value::Object(self.global_object(Secrets::Hidden))
    }

    pub fn path_defaults_json(&self) -> Value {
        Value::Object(self.path_defaults_object(Secrets::Hidden))
    }

    /// The whole path object, defaults merged in; `None` when there is no such entry.
    pub fn path_json(&self, key: &str) -> Option<Value> {
        Some(Value::Object(self.path_object(key, Secrets::Hidden)?))
    }

    pub(super) fn global_object(&self, secrets: Secrets) -> Map<String, Value> {
        let mut object = json::object(Layers::new(Scope::Global, &self.documents.global), secrets);
        let engine = json::object(Layers::new(Scope::Engine, &self.documents.engine), secrets);
        object.insert(keys::ENGINE_BLOCK.to_owned(), Value::Object(engine));
        object
    }

    pub(super) fn path_defaults_object(&self, secrets: Secrets) -> Map<String, Value> {
        let mut object = json::object(Layers::new(Scope::Path, &self.documents.path_defaults), secrets);
        object.insert(keys::PATH_NAME.to_owned(), "".into());
        object
    }

    pub(super) fn path_object(&self, key: &str, secrets: Secrets) -> Option<Map<String, Value>> {
        let path = self.paths.get(key)?;
        let mut object = json::object(Layers::path(&path.own, &self.documents.path_defaults), secrets);
        object.insert(keys::PATH_NAME.to_owned(), key.into());
        if path.from_api {
            object.insert(keys::FROM_API.to_owned(), true.into());
        }
        Some(object)
    }

    /// The entry that serves the path `name`, and the groups of its pattern (`G1`…, and the name of a `prefix_~name`
    /// key) as variables for hooks.
    pub fn serving(&self, name: &str) -> Option<(&Arc<PathConf>, Variables)> {
        let settings = self.settings.paths.lookup(name).ok()?;
        let path = self.paths.get(&settings.conf_name)?;
        let mut variables = Variables::new();
        if let Some(pattern) = path.key.pattern()
            && let Some(groups) = pattern.captures(name)
        {
            let text = |group: Option<regex::Match<'_>>| {
                group.map_or_else(String::new, |group| group.as_str().to_owned())
            };
            variables.extend(
                groups.iter().enumerate().skip(1).map(|(number, group)| (format!("G{number}"), text(group))),
            );
            if let PathKey::Captured(_, variable) = &path.key {
                variables.push((variable.to_string(), text(groups.get(1))));
            }
        }
        Some((path, variables))
    }
}

/// Writes the paths that the API added or changed to the state file, when `engine.stateDir` is set. Blocks.
///
/// # Errors
/// When the directory or the file cannot be written; the old file is whole then.
pub fn save_state(view: &View) -> std::io::Result<()> {
    state::save(view)
}
