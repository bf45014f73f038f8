//! A node of the file read as the type its key has (contract §1.2).

use std::{borrow::Cow, net::IpAddr};

use ipnet::IpNet;

use super::{
    duration,
    error::{self, At, Report},
    keys::{self, Key, Kind},
    size,
    yaml::{self, Node, Scalar, Style, Value},
};

/// A value of the right type.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Typed {
    /// Nothing: a key whose default is to be absent.
    Unset,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// Nanoseconds; older files hold negative ones in places where they do no harm.
    Duration(i64),
    /// Bytes.
    Size(u64),
    Text(String),
    List(Vec<Typed>),
    Records(Vec<Record>),
}

/// A map in a list.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub at: At,
    /// What it sets to something else than its default, in the order of the table.
    values: Vec<(&'static str, Typed, At)>,
}

/// Where they stand makes no difference.
impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        let values = |record: &Self| record.values.len();
        values(self) == values(other)
            && self.values.iter().zip(&other.values).all(|(one, two)| (one.0, &one.1) == (two.0, &two.1))
    }
}

impl Record {
    pub fn get(&self, name: &str) -> Option<&Typed> {
        self.values.iter().find(|(known, ..)| *known == name).map(|(_, value, _)| value)
    }

    /// Text that is empty by default.
    pub fn text(&self, name: &str) -> &str {
        match self.get(name) {
            Some(Typed::Text(text)) => text,
            _ => "",
        }
    }

    /// Where `name` is set, else where the record begins.
    pub fn at(&self, name: &str) -> &At {
        self.values.iter().find(|(known, ..)| *known == name).map_or(&self.at, |(_, _, at)| at)
    }

    pub fn texts(&self, name: &str) -> impl Iterator<Item = &str> {
        self.get(name).map(Typed::texts).into_iter().flatten()
    }

    pub fn records(&self, name: &str) -> &[Record] {
        self.get(name).map_or(&[], Typed::records)
    }
}

impl Typed {
    /// The elements of a list of texts.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let items = if let Self::List(items) = self { items.as_slice() } else { &[] };
        items.iter().filter_map(|item| match item {
            Self::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    pub fn records(&self) -> &[Record] {
        if let Self::Records(records) = self { records } else { &[] }
    }
}

/// Reads `node` as the value of `key`; reports why it cannot be and gives `None`.
pub(super) fn read(key: &Key, node: &Node, report: &mut Report) -> Option<Typed> {
    read_kind(key.name, &key.kind, node, report)
}

/// The default of a key, as a typed value.
pub(super) fn default_of(key: &Key) -> Typed {
    let Some(node) = default_node(key) else {
        return if key.kind.is_text() { Typed::Text(String::new()) } else { Typed::Unset };
    };
    let mut report = Report::default();
    read(key, &node, &mut report).unwrap_or(Typed::Unset)
}

/// The default of a key as it would stand in a file; `None` when it is absent by default.
pub(super) fn default_node(key: &Key) -> Option<Node> {
    if key.default.is_empty() {
        return None;
    }
    match key.kind {
        Kind::List(_) | Kind::Set(_) | Kind::Records(_) => {
            let mut node = yaml::parse(key.default, &mut Report::default())?;
            place_nowhere(&mut node);
            Some(node)
        }
        _ => {
            let scalar = Scalar { text: key.default.to_owned(), style: Style::Plain };
            Some(Node { at: At::Nowhere, value: Value::Scalar(scalar) })
        }
    }
}

/// Positions inside of a built-in default mean nothing to an operator.
fn place_nowhere(node: &mut Node) {
    node.at = At::Nowhere;
    match &mut node.value {
        Value::Scalar(_) => {}
        Value::List(items) => items.iter_mut().for_each(place_nowhere),
        Value::Map(entries) => {
            for entry in entries {
                entry.key_at = At::Nowhere;
                place_nowhere(&mut entry.value);
            }
        }
    }
}

/// Whether setting `key` to `value` changes nothing.
pub(super) fn is_default(key: &Key, value: &Typed) -> bool {
    let empty = match value {
        Typed::Unset => true,
        Typed::Text(text) => text.is_empty(),
        Typed::List(items) => items.is_empty(),
        Typed::Records(records) => records.is_empty(),
        _ => false,
    };
    if key.default.is_empty() { empty } else { *value == default_of(key) }
}

fn read_kind(name: &str, kind: &Kind, node: &Node, report: &mut Report) -> Option<Typed> {
    match kind {
        Kind::List(item_kind) | Kind::Set(item_kind) => {
            let items = list(name, kind, node, report)?;
            let read: Vec<_> = items.iter().map(|item| read_kind(name, item_kind, item, report)).collect();
            Some(Typed::List(read.into_iter().collect::<Option<_>>()?))
        }
        Kind::Records(table) => {
            let items = list(name, kind, node, report)?;
            let read: Vec<_> = items.iter().map(|item| record(name, table, item, report)).collect();
            Some(Typed::Records(read.into_iter().collect::<Option<_>>()?))
        }
        Kind::Cores if matches!(node.value, Value::List(_)) => {
            read_kind(name, &Kind::List(&Kind::Int(0, u16::MAX as i64)), node, report)
        }
        _ => {
            let Value::Scalar(scalar) = &node.value else {
                report.error(&node.at, format!("'{name}' is {}: expected {}", shape(node), expected(kind)));
                return None;
            };
            if node.is_null() {
                return Some(Typed::Unset);
            }
            let typed = read_scalar(kind, scalar);
            if typed.is_none() {
                let shown = if kind.is_private() { Cow::Borrowed("…") } else { error::shown(&scalar.text) };
                let quotes = quoting_hint(kind, scalar);
                report.error(&node.at, format!("'{name}' is '{shown}': expected {}{quotes}", expected(kind)));
            }
            typed
        }
    }
}

fn list<'node>(name: &str, kind: &Kind, node: &'node Node, report: &mut Report) -> Option<&'node [Node]> {
    match &node.value {
        Value::List(items) => return Some(items),
        // In a file it may be a forgotten value; in JSON it says that there is none.
        Value::Scalar(Scalar { style: Style::Json, .. }) if node.is_null() => return Some(&[]),
        _ => {}
    }
    let shape = if node.is_null() { "empty" } else { shape(node) };
    report.error(&node.at, format!("'{name}' is {shape}: expected {} (none: [])", expected(kind)));
    None
}

fn record(name: &str, table: &'static [Key], node: &Node, report: &mut Report) -> Option<Record> {
    let Value::Map(entries) = &node.value else {
        report.error(&node.at, format!("an element of '{name}' is {}: expected a map", shape(node)));
        return None;
    };
    let mut values = Vec::with_capacity(entries.len());
    let mut complete = true;
    for entry in entries {
        let Some(key) = keys::find(table, &entry.key) else {
            let known: Vec<_> = table.iter().map(|key| key.name).collect();
            let hint = format!("known are {}", known.join(", "));
            report.unknown_field(&entry.key_at, &format!("{name}.{}", entry.key), &hint);
            complete = false;
            continue;
        };
        match read(key, &entry.value, report) {
            // Written out or left out, a default is the same record.
            Some(value) if value == Typed::Unset || is_default(key, &value) => {}
            Some(value) => values.push((key.name, value, entry.value.at.clone())),
            None => complete = false,
        }
    }
    values.sort_by_key(|(name, ..)| table.iter().position(|key| key.name == *name));
    complete.then_some(Record { at: node.at.clone(), values })
}

fn read_scalar(kind: &Kind, scalar: &Scalar) -> Option<Typed> {
    let text = scalar.text.as_str();
    if scalar.style == Style::Json
        && !matches!(kind, Kind::Bool | Kind::Int(..) | Kind::Float | Kind::Encryption)
    {
        return None;
    }
    match kind {
        Kind::Bool => boolean(scalar).map(Typed::Bool),
        Kind::Int(min, max) => {
            integer(scalar).filter(|number| (*min..=*max).contains(number)).map(Typed::Int)
        }
        Kind::Float => {
            let number = (scalar.style != Style::Quoted).then(|| text.parse::<f64>().ok()).flatten();
            number.filter(|number| number.is_finite()).map(Typed::Float)
        }
        Kind::Duration => duration::parse_ns(text).map(Typed::Duration),
        Kind::Size => size::parse_bytes(text).map(Typed::Size),
        Kind::Text | Kind::Secret | Kind::Url | Kind::User | Kind::Command => {
            Some(Typed::Text(text.to_owned()))
        }
        Kind::Network => network(text).map(Typed::Text),
        Kind::Word(words) => words.contains(&text).then(|| Typed::Text(text.to_owned())),
        Kind::Encryption => {
            let word = match text {
                "no" | "optional" | "strict" => text,
                "false" => "no",
                "yes" | "true" => "strict",
                // Unquoted words that are booleans in YAML 1.1.
                _ => match boolean(scalar)? {
                    true => "strict",
                    false => "no",
                },
            };
            Some(Typed::Text(word.to_owned()))
        }
        Kind::Cores if text == "auto" => Some(Typed::Unset),
        // One variable cannot hold a YAML list.
        Kind::Cores if scalar.style == Style::Env => {
            let cores = text.split(',').map(|core| core.trim().parse::<u16>().ok());
            cores.map(|core| core.map(|core| Typed::Int(core.into()))).collect::<Option<_>>().map(Typed::List)
        }
        Kind::Cores | Kind::List(_) | Kind::Set(_) | Kind::Records(_) => None,
    }
}

/// YAML 1.1 booleans, which operators write out of habit; a quoted one is text.
fn boolean(scalar: &Scalar) -> Option<bool> {
    match (scalar.style, scalar.text.as_str()) {
        (Style::Quoted, _) => None,
        (Style::Json, text) => text.parse().ok(),
        (Style::Env, text) => match text.to_ascii_lowercase().as_str() {
            "yes" | "true" => Some(true),
            "no" | "false" => Some(false),
            _ => None,
        },
        (Style::Plain, "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON") => Some(true),
        (Style::Plain, "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF") => {
            Some(false)
        }
        (Style::Plain, _) => None,
    }
}

/// YAML's whole numbers; `5.0` and `1_000` are some too.
fn integer(scalar: &Scalar) -> Option<i64> {
    if scalar.style == Style::Quoted || scalar.text.starts_with('_') || scalar.text.ends_with('_') {
        return None;
    }
    let text = scalar.text.replace('_', "");
    match text.get(..2) {
        Some("0x") => i64::from_str_radix(&text[2..], 16).ok(),
        Some("0o") => i64::from_str_radix(&text[2..], 8).ok(),
        _ => text.strip_suffix(".0").unwrap_or(&text).parse().ok(),
    }
}

/// An address or a network; the mask of a single address is left out, since both mean the same.
fn network(text: &str) -> Option<String> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let bits_max = if address.is_ipv4() { 32 } else { 128 };
    match bits {
        Some(bits) if bits > bits_max => None,
        Some(bits) if bits < bits_max => Some(format!("{address}/{bits}")),
        _ => Some(address.to_string()),
    }
}

/// A value of kind [`Kind::Network`].
pub(super) fn parsed_network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// What `kind` allows, for the end of "expected …".
fn expected(kind: &Kind) -> String {
    match kind {
        Kind::Bool => "yes or no".to_owned(),
        Kind::Int(0, max) if *max >= i64::from(u32::MAX) => "a whole number, 0 or more".to_owned(),
        Kind::Int(min, max) => format!("a whole number from {min} to {max}"),
        Kind::Float => "a number".to_owned(),
        Kind::Duration => "a duration such as 200ms, 10s, 1m30s or 1d12h".to_owned(),
        Kind::Size => "a size such as 64K, 16M or 1G".to_owned(),
        Kind::Text | Kind::Secret | Kind::User => "text".to_owned(),
        Kind::Url => "a URL".to_owned(),
        Kind::Command => "a command".to_owned(),
        Kind::Network => "an IP address or a network such as 10.0.0.0/8".to_owned(),
        Kind::Word(words) => {
            let shown: Vec<_> = words.iter().map(|word| if word.is_empty() { "''" } else { word }).collect();
            one_of(&shown)
        }
        Kind::Encryption => one_of(&["no", "optional", "strict"]),
        Kind::List(item) | Kind::Set(item) => format!("a list, each element {}", expected(item)),
        Kind::Records(_) => "a list of maps".to_owned(),
        Kind::Cores => "auto, or a list of core numbers such as [2, 3]".to_owned(),
    }
}

pub(super) fn one_of(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// The mistake of quoting a number or a boolean deserves a word of its own.
fn quoting_hint(kind: &Kind, scalar: &Scalar) -> &'static str {
    let unquoted = Scalar { text: scalar.text.clone(), style: Style::Plain };
    if scalar.style == Style::Quoted && read_scalar(kind, &unquoted).is_some() {
        ", without quotes"
    } else {
        ""
    }
}

fn shape(node: &Node) -> &'static str {
    match node.value {
        Value::Scalar(_) => "a single value",
        Value::List(_) => "a list",
        Value::Map(_) => "a map",
    }
}
