//! Changes through the API, all or none. Only what they touch is made anew.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value};

use super::{
    assemble::{self, Draft, Globals},
    error::{At, Report},
    json::{self, Secrets},
    keys,
    paths::{self, Context, PathKey, Written},
    redact,
    section::{Scope, Section},
    store::{Documents, Edit, EditError, PathConf, View},
};

/// The state between the first edit and the last.
struct Session<'a> {
    view: &'a View,
    documents: Documents,
    paths: BTreeMap<Arc<str>, Arc<PathConf>>,
    /// Entries that an edit wrote and that are not made yet; they hide those in `paths`.
    written: BTreeMap<Arc<str>, Arc<Section>>,
}

pub(super) fn apply(view: &View, edits: &[Edit]) -> Result<View, EditError> {
    let mut session = Session {
        view,
        documents: view.documents.clone(),
        paths: view.paths.clone(),
        written: BTreeMap::new(),
    };
    for edit in edits {
        session.apply(edit).map_err(|error| match (error, path_of(edit)) {
            (EditError::Invalid(why), Some(name)) if edits.len() > 1 => of_path(name, &why),
            (error, _) => error,
        })?;
    }
    session.finish(edits.len() > 1)
}

fn path_of(edit: &Edit) -> Option<&str> {
    match edit {
        Edit::PatchGlobal(_) | Edit::PatchPathDefaults(_) => None,
        Edit::AddPath { name, .. }
        | Edit::PatchPath { name, .. }
        | Edit::ReplacePath { name, .. }
        | Edit::RemovePath { name } => Some(name),
    }
}

/// A mistake of a path that the client did not name, or not alone.
fn of_path(name: &str, why: &str) -> EditError {
    EditError::Invalid(format!("path '{name}': {why}"))
}

/// Entries of the API laid over a file.
pub(super) struct LaidOver {
    pub view: Result<View, EditError>,
    /// Names of those that cannot be, and why.
    pub left_out: Vec<(String, String)>,
}

/// As [`Edit::ReplacePath`] for each of `entries`, but those that cannot be are left out.
pub(super) fn lay_over(view: &View, entries: Vec<(String, Map<String, Value>)>) -> LaidOver {
    let mut paths = view.paths.clone();
    let mut left_out = Vec::new();
    let defaults = &view.documents.path_defaults;
    let context = Context {
        defaults,
        cores: &view.settings.engine.cores,
        env: &view.origin.env,
        native: assemble::native(&view.documents, &view.origin.env),
    };
    for (name, body) in entries {
        let made = read_path(body, &Map::new(), &Map::new()).and_then(|own| {
            let mut report = Report::default();
            let key: Arc<str> = name.as_str().into();
            let entry =
                Written { key: Arc::clone(&key), key_at: At::Api, own: Arc::new(own), from_api: true };
            let path = paths::path(entry, &context, view.paths.get(&key), &mut report);
            refuse(&report)?;
            let Some(path) = path else { return Ok(()) };
            if let (PathKey::CatchAll(_), Some(other)) = (&path.key, other_catch_all(&paths, &key)) {
                return Err(EditError::Invalid(format!("'{other}' means every other path already")));
            }
            paths.insert(key, path);
            Ok(())
        });
        if let Err(error) = made {
            left_out.push((name, error.to_string()));
        }
    }
    let draft = Draft {
        documents: view.documents.clone(),
        paths,
        globals: Globals::Like(view),
        origin: view.origin.clone(),
    };
    let mut report = Report::default();
    let made = assemble::view(draft, &mut report);
    LaidOver { view: refuse(&report).map(|()| made), left_out }
}

/// The entry but `key` that serves what no other does.
fn other_catch_all(paths: &BTreeMap<Arc<str>, Arc<PathConf>>, key: &str) -> Option<Arc<str>> {
    let is_other = |name: &str, path: &PathConf| name != key && matches!(path.key, PathKey::CatchAll(_));
    paths.iter().find(|(name, path)| is_other(name, path)).map(|(name, _)| Arc::clone(name))
}

impl Session<'_> {
    fn apply(&mut self, edit: &Edit) -> Result<(), EditError> {
        match edit {
            Edit::PatchGlobal(body) => self.patch_global(body.clone()),
            Edit::PatchPathDefaults(body) => {
                let shown = self.view.path_defaults_object(Secrets::Hidden);
                let stored = self.view.path_defaults_object(Secrets::Plain);
                let newer = read_path(body.clone(), &shown, &stored)?;
                Arc::make_mut(&mut self.documents.path_defaults).overlay(newer);
                Ok(())
            }
            Edit::AddPath { name, body } => {
                let newer = read_path(body.clone(), &Map::new(), &Map::new())?;
                if self.own(name).is_some() {
                    return Err(EditError::PathExists);
                }
                self.write(name, newer);
                Ok(())
            }
            Edit::PatchPath { name, body } => {
                let own = self.own(name).ok_or(EditError::PathNotFound)?;
                let newer = self.read_known(name, body.clone())?;
                // A patch of nothing does not make it a path of the API.
                if !newer.is_empty() {
                    let mut own = Section::clone(&own);
                    own.overlay(newer);
                    self.write(name, own);
                }
                Ok(())
            }
            Edit::ReplacePath { name, body } => {
                let newer = self.read_known(name, body.clone())?;
                self.write(name, newer);
                Ok(())
            }
            Edit::RemovePath { name } => {
                self.own(name).ok_or(EditError::PathNotFound)?;
                let key: Arc<str> = name.as_str().into();
                self.paths.remove(&key);
                self.written.remove(&key);
                Ok(())
            }
        }
    }

    /// What an entry sets now.
    fn own(&self, name: &str) -> Option<Arc<Section>> {
        self.written.get(name).or_else(|| self.paths.get(name).map(|path| &path.own)).map(Arc::clone)
    }

    fn write(&mut self, name: &str, own: Section) {
        self.written.insert(name.into(), Arc::new(own));
    }

    /// Reads a body for an entry that may exist, whose secrets may come back as they were shown.
    fn read_known(&self, name: &str, body: Map<String, Value>) -> Result<Section, EditError> {
        if !body.values().any(redact::is_redacted) {
            return read_path(body, &Map::new(), &Map::new());
        }
        let shown = self.view.path_object(name, Secrets::Hidden).unwrap_or_default();
        let stored = self.view.path_object(name, Secrets::Plain).unwrap_or_default();
        read_path(body, &shown, &stored)
    }

    fn patch_global(&mut self, mut body: Map<String, Value>) -> Result<(), EditError> {
        if body.values().any(redact::is_redacted) {
            let shown = self.view.global_object(Secrets::Hidden);
            let stored = self.view.global_object(Secrets::Plain);
            redact::restore(&mut body, &shown, &stored).map_err(EditError::Invalid)?;
        }
        let mut report = Report::default();
        let mut path_defaults = Section::default();
        match body.shift_remove(keys::ENGINE_BLOCK) {
            None | Some(Value::Null) => {}
            Some(Value::Object(engine)) => {
                let newer = Section::read(Scope::Engine, &json::entries(engine), None, &mut report);
                Arc::make_mut(&mut self.documents.engine).overlay(newer);
            }
            Some(_) => report.error(&At::Api, "'engine' must be a map of keys, or empty"),
        }
        let newer = Section::read(Scope::Global, &json::entries(body), Some(&mut path_defaults), &mut report);
        refuse(&report)?;
        Arc::make_mut(&mut self.documents.global).overlay(newer);
        if !path_defaults.is_empty() {
            Arc::make_mut(&mut self.documents.path_defaults).overlay(path_defaults);
        }
        Ok(())
    }

    /// Makes what was touched, and what depends on it. With `many` edits, a mistake is told with the path it is in.
    fn finish(self, many: bool) -> Result<View, EditError> {
        let Self { view, documents, mut paths, mut written } = self;
        let mut report = Report::default();
        let is_same = |old: &Arc<Section>, new: &Arc<Section>| Arc::ptr_eq(old, new);
        let global_changed = !is_same(&view.documents.global, &documents.global)
            || !is_same(&view.documents.engine, &documents.engine);
        let globals = match global_changed {
            true => assemble::globals(&documents, &view.origin, Some(view), &mut report),
            false => Globals::Like(view),
        };
        let cores = &globals.settings().engine.cores;
        if !is_same(&view.documents.path_defaults, &documents.path_defaults) {
            assemble::check_defaults(&documents, cores, &view.origin.env, &mut report);
            remake_all(&paths, &mut written);
        } else if *cores != view.settings.engine.cores
            || !assemble::native(&documents, &view.origin.env)
                .is_like(&assemble::native(&view.documents, &view.origin.env))
        {
            remake_all(&paths, &mut written);
        }
        refuse(&report)?;
        let env = &view.origin.env;
        let native = assemble::native(&documents, env);
        let context = Context { defaults: &documents.path_defaults, cores, env, native };
        for (key, own) in written {
            let before = view.paths.get(&key);
            let untouched = before.is_some_and(|before| Arc::ptr_eq(&before.own, &own));
            let (key_at, from_api) = match before {
                Some(before) if untouched => (before.key_at.clone(), before.from_api),
                _ => (At::Api, true),
            };
            let entry = Written { key: Arc::clone(&key), key_at, own, from_api };
            let path = paths::path(entry, &context, before, &mut report);
            if let Some(error) = report.errors.first() {
                return Err(match untouched || many {
                    true => of_path(&key, &error.message),
                    false => EditError::Invalid(error.message.clone()),
                });
            }
            paths.extend(path.map(|path| (key, path)));
        }
        let draft = Draft { documents, paths, globals, origin: view.origin.clone() };
        let made = assemble::view(draft, &mut report);
        refuse(&report)?;
        Ok(made)
    }
}

/// Entries that no edit wrote are read again over new defaults.
fn remake_all(paths: &BTreeMap<Arc<str>, Arc<PathConf>>, written: &mut BTreeMap<Arc<str>, Arc<Section>>) {
    for (key, path) in paths {
        written.entry(Arc::clone(key)).or_insert_with(|| Arc::clone(&path.own));
    }
}

fn read_path(
    mut body: Map<String, Value>,
    shown: &Map<String, Value>,
    stored: &Map<String, Value>,
) -> Result<Section, EditError> {
    // The name is in the URL, and where an entry came from is not the client's to say.
    body.shift_remove(keys::PATH_NAME);
    body.shift_remove(keys::FROM_API);
    redact::restore(&mut body, shown, stored).map_err(EditError::Invalid)?;
    let mut report = Report::default();
    let section = Section::read(Scope::Path, &json::entries(body), None, &mut report);
    refuse(&report)?;
    Ok(section)
}

fn refuse(report: &Report) -> Result<(), EditError> {
    match report.errors.first() {
        Some(error) => Err(EditError::Invalid(error.message.clone())),
        None => Ok(()),
    }
}
