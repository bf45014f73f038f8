//! Settings to the JSON of the API and of the state file, and bodies of the API to the tree that files become.

use ipnet::IpNet;
use serde_json::{Map, Number, Value};

use super::{
    duration,
    error::At,
    keys::{Key, Kind, Legacy, Status},
    redact,
    section::{Layers, Section, Setting},
    size,
    typed::{self, Record, Typed},
    yaml::{self, Entry, Node, Scalar, Style},
};

/// Whether secrets are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrets {
    /// As `<redacted>`.
    Hidden,
    /// For the state file, and to put them back.
    Plain,
}

/// All keys of a scope in the order of its table; older ones only if they were used.
pub(super) fn object(layers: Layers<'_>, secrets: Secrets) -> Map<String, Value> {
    let mut object = Map::new();
    for key in layers.scope.table() {
        match key.status {
            Status::Legacy(legacy) => {
                if let Some(value) = older(layers, key, legacy, secrets) {
                    object.insert(key.name.to_owned(), value);
                }
            }
            _ => {
                object.insert(key.name.to_owned(), value(&key.kind, &layers.get(key.name).value, secrets));
            }
        }
    }
    object
}

/// Only what a section sets, in names of today.
pub(super) fn written(section: &Section, table: &'static [Key]) -> Map<String, Value> {
    let set = table.iter().filter_map(|key| Some((key, section.get(key.name)?)));
    set.map(|(key, setting)| (key.name.to_owned(), value(&key.kind, &setting.value, Secrets::Plain)))
        .collect()
}

/// The value of an older key, if it was the one that was used.
fn older(layers: Layers<'_>, key: &'static Key, legacy: Legacy, secrets: Secrets) -> Option<Value> {
    let is_used = |setting: &&Setting| setting.older.is_some_and(|older| older.name == key.name);
    match legacy {
        Legacy::Renamed(new) | Legacy::RenamedWith(new, _) => {
            let setting = layers.written(new).filter(is_used)?;
            Some(value(&key.kind, &setting.value, secrets))
        }
        Legacy::Negated(new) => match layers.written(new).filter(is_used)?.value {
            Typed::Bool(is_set) => Some(Value::Bool(!is_set)),
            _ => None,
        },
        Legacy::OneElement(new) => match &layers.written(new).filter(is_used)?.value {
            Typed::List(items) => Some(value(&key.kind, items.first()?, secrets)),
            _ => None,
        },
        Legacy::Alone | Legacy::Obeyed => Some(value(&key.kind, &layers.written(key.name)?.value, secrets)),
        // Shown where it went; without effect.
        Legacy::PathDefault | Legacy::NoEffect => None,
    }
}

fn value(kind: &Kind, typed: &Typed, secrets: Secrets) -> Value {
    match (kind, typed) {
        (Kind::Cores, Typed::Unset) => "auto".into(),
        (_, Typed::Unset) => Value::Null,
        (_, Typed::Bool(is_set)) => Value::Bool(*is_set),
        (_, Typed::Int(number)) => (*number).into(),
        // Without a point when there is nothing behind it, as Go writes.
        (_, Typed::Float(number)) if number.fract() == 0.0 && number.abs() < 1e15 => (*number as i64).into(),
        (_, Typed::Float(number)) => Number::from_f64(*number).map_or(Value::Null, Value::Number),
        (_, Typed::Duration(ns)) => duration::to_text(*ns).into(),
        (_, Typed::Size(bytes)) => size::to_text(*bytes).into(),
        (Kind::Network, Typed::Text(text)) => typed::parsed_network(text)
            .map_or_else(|| text.clone(), |network: IpNet| network.to_string())
            .into(),
        (Kind::Secret, Typed::Text(text)) if secrets == Secrets::Hidden && !text.is_empty() => {
            redact::REDACTED.into()
        }
        (Kind::Url | Kind::Command, Typed::Text(text)) if secrets == Secrets::Hidden => {
            redact::text(text).into()
        }
        (_, Typed::Text(text)) => text.clone().into(),
        (Kind::List(item), Typed::List(items)) => {
            items.iter().map(|typed| value(item, typed, secrets)).collect()
        }
        (Kind::Set(item), Typed::List(items)) => {
            let mut words: Vec<_> = items.iter().map(|typed| value(item, typed, secrets)).collect();
            words.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
            words.dedup();
            Value::Array(words)
        }
        (Kind::Cores, Typed::List(items)) => {
            items.iter().map(|typed| value(&Kind::Int(0, 0), typed, secrets)).collect()
        }
        (Kind::Records(table), Typed::Records(records)) => {
            records.iter().map(|one| Value::Object(record(table, one, secrets))).collect()
        }
        (_, Typed::List(_) | Typed::Records(_)) => Value::Null,
    }
}

fn record(table: &'static [Key], record: &Record, secrets: Secrets) -> Map<String, Value> {
    let field = |key: &'static Key| match record.get(key.name) {
        Some(typed) => value(&key.kind, typed, secrets),
        None => value(&key.kind, &typed::default_of(key), secrets),
    };
    table.iter().map(|key| (key.name.to_owned(), field(key))).collect()
}

/// A body as the tree that a file would be, so that both are read by the same rules.
pub(super) fn entries(body: Map<String, Value>) -> Vec<Entry> {
    body.into_iter().map(|(key, value)| Entry { key, key_at: At::Api, value: node(value) }).collect()
}

fn node(value: Value) -> Node {
    let scalar = |text: String, style| yaml::Value::Scalar(Scalar { text, style });
    let value = match value {
        Value::Null => scalar("null".to_owned(), Style::Json),
        Value::Bool(is_set) => scalar(is_set.to_string(), Style::Json),
        Value::Number(number) => scalar(number.to_string(), Style::Json),
        Value::String(text) => scalar(text, Style::Quoted),
        Value::Array(items) => yaml::Value::List(items.into_iter().map(node).collect()),
        Value::Object(fields) => yaml::Value::Map(entries(fields)),
    };
    Node { at: At::Api, value }
}
