//! `MTX_*` variables laid over the file: the deployment's last word (contract §1.2).
//!
//! They edit the tree and not the finished settings, so that what a variable says is checked like a line of
//! the file, and a message names the variable.

use std::sync::Arc;

use super::{
    error::At,
    keys::{self, Key, Kind},
    typed,
    yaml::{Entry, Node, Scalar, Style, Value},
};

/// Applies all variables to the tree: those of the older prefix first, so that `MTX_` wins. Names that fit
/// no key are ignored, as in MediaMTX: container platforms add variables of their own.
pub(super) fn apply(root: &mut Node, variables: &[(String, String)]) {
    for prefix in ["RTSP_", "MTX_"] {
        let mut ours: Vec<_> = variables
            .iter()
            .filter_map(|(name, value)| Some((name.strip_prefix(prefix)?, name, value)))
            .collect();
        ours.sort_by_key(|(rest, ..)| natural_order(rest));
        for (rest, name, value) in ours {
            set_root(root, rest, &Variable { at: At::Env(name.as_str().into()), value });
        }
    }
}

struct Variable<'a> {
    at: At,
    value: &'a str,
}

/// Element 2 of a list before element 10, so that appending works.
fn natural_order(name: &str) -> Vec<(u32, Arc<str>)> {
    name.split('_').map(|part| (part.parse().unwrap_or(u32::MAX), part.into())).collect()
}

fn set_root(root: &mut Node, rest: &str, variable: &Variable<'_>) {
    if let Some(key) = rest.strip_prefix("PATHDEFAULTS_") {
        set_in_block(root, "pathDefaults", keys::PATH, key, variable);
    } else if let Some(key) = rest.strip_prefix("ENGINE_") {
        set_in_block(root, "engine", keys::ENGINE, key, variable);
    } else if let Some(path) = rest.strip_prefix("PATHS_") {
        set_path(root, path, variable);
    } else {
        set_key(root, keys::GLOBAL, rest, variable);
    }
}

fn set_in_block(root: &mut Node, block: &str, table: &'static [Key], rest: &str, variable: &Variable<'_>) {
    if names_a_key(table, rest)
        && let Some(node) = child_map(root, block, variable)
    {
        set_key(node, table, rest, variable);
    }
}

/// `CAM1_SOURCE`: the name of a path up to the next `_`, which is lower-cased, then its key.
fn set_path(root: &mut Node, rest: &str, variable: &Variable<'_>) {
    let Some((name, key)) = rest.split_once('_') else { return };
    if name.is_empty() || name.contains(|c: char| c.is_lowercase()) || !names_a_key(keys::PATH, key) {
        return;
    }
    if let Some(paths) = child_map(root, "paths", variable)
        && let Some(path) = child_map(paths, &name.to_lowercase(), variable)
    {
        set_key(path, keys::PATH, key, variable);
    }
}

fn names_a_key(table: &'static [Key], rest: &str) -> bool {
    table.iter().any(|key| match upper_rest(key, rest) {
        Some("") => true,
        Some(_) => matches!(key.kind, Kind::Records(_)),
        None => false,
    })
}

/// What follows the key's name in `rest`: nothing, or the rest of a deeper name.
fn upper_rest<'a>(key: &Key, rest: &'a str) -> Option<&'a str> {
    let after = rest.strip_prefix(key.name.to_ascii_uppercase().as_str())?;
    if after.is_empty() { Some(after) } else { after.strip_prefix('_').filter(|deeper| !deeper.is_empty()) }
}

/// Sets `rest` in a map whose keys are those of `table`.
fn set_key(node: &mut Node, table: &'static [Key], rest: &str, variable: &Variable<'_>) {
    let Value::Map(entries) = &mut node.value else { return };
    for key in table {
        match (upper_rest(key, rest), &key.kind) {
            (None, _) => continue,
            (Some(""), kind) => put(entries, key.name, variable_node(kind, variable), variable),
            (Some(deeper), Kind::Records(inner)) => {
                if !entries.iter().any(|entry| entry.key == key.name) {
                    // An index counts from the default list, as in MediaMTX.
                    let list = Node { at: variable.at.clone(), value: Value::List(Vec::new()) };
                    put(entries, key.name, typed::default_node(key).unwrap_or(list), variable);
                }
                if let Some(entry) = entries.iter_mut().find(|entry| entry.key == key.name) {
                    set_element(&mut entry.value, inner, deeper, variable);
                }
            }
            (Some(_), _) => continue,
        }
        return;
    }
}

/// `0_USER` in a list of maps: edits an element, or appends the next one.
fn set_element(list: &mut Node, table: &'static [Key], rest: &str, variable: &Variable<'_>) {
    let Value::List(items) = &mut list.value else { return };
    let Some((index, key)) = rest.split_once('_') else { return };
    let Ok(index) = index.parse::<usize>() else { return };
    if index == items.len() && names_a_key(table, key) {
        items.push(Node::empty_map(variable.at.clone()));
    }
    if let Some(item) = items.get_mut(index) {
        set_key(item, table, key, variable);
    }
}

fn variable_node(kind: &Kind, variable: &Variable<'_>) -> Node {
    let scalar = |text: &str| Node {
        at: variable.at.clone(),
        value: Value::Scalar(Scalar { text: text.to_owned(), style: Style::Env }),
    };
    match kind {
        Kind::List(_) | Kind::Set(_) | Kind::Records(_) if variable.value.is_empty() => {
            Node { at: variable.at.clone(), value: Value::List(Vec::new()) }
        }
        Kind::List(_) | Kind::Set(_) => {
            let items = variable.value.split(',').map(|item| scalar(item.trim())).collect();
            Node { at: variable.at.clone(), value: Value::List(items) }
        }
        _ => scalar(variable.value),
    }
}

fn put(entries: &mut Vec<Entry>, key: &str, value: Node, variable: &Variable<'_>) {
    let key_at = variable.at.clone();
    match entries.iter_mut().find(|entry| entry.key == key) {
        Some(entry) => (entry.key_at, entry.value) = (key_at, value),
        None => entries.push(Entry { key: key.to_owned(), key_at, value }),
    }
}

/// The map under `key`, made when it is missing or has an empty body (`cam1:`).
fn child_map<'node>(node: &'node mut Node, key: &str, variable: &Variable<'_>) -> Option<&'node mut Node> {
    let Value::Map(entries) = &mut node.value else { return None };
    let index = entries.iter().position(|entry| entry.key == key).unwrap_or_else(|| {
        let value = Node::empty_map(variable.at.clone());
        entries.push(Entry { key: key.to_owned(), key_at: variable.at.clone(), value });
        entries.len() - 1
    });
    let child = &mut entries[index].value;
    if child.is_null() {
        child.value = Value::Map(Vec::new());
    }
    Some(child)
}
