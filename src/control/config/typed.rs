//! A node of the file read as the type its key has (contract §1.2).

use std::net::IpAddr;

use super::{
    duration,
    error::{At, Report},
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
    /// Each record: the keys it sets, in the order of the table.
    Records(Vec<Vec<(&'static str, Typed)>>),
}

/// Reads `node` as the value of `key`; reports why it cannot be and gives `None`.
pub(super) fn read(key: &Key, node: &Node, report: &mut Report) -> Option<Typed> {
    read_kind(key.name, &key.kind, node, report)
}

/// The default of a key, as a typed value.
pub(super) fn default_of(key: &Key) -> Typed {
    let Some(node) = default_node(key) else { return Typed::Unset };
    let mut report = Report::default();
    read(key, &node, &mut report).unwrap_or(Typed::Unset)
}

/// The default of a key as it would stand in a file; `None` when it is absent by default.
pub(super) fn default_node(key: &Key) -> Option<Node> {
    if key.default.is_empty() {
        return None;
    }
    match key.kind {
        Kind::List(_) | Kind::Records(_) => {
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
        Kind::List(item_kind) => {
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
                let shown = if matches!(kind, Kind::Secret) { "…" } else { &scalar.text };
                let quotes = quoting_hint(kind, scalar);
                report.error(&node.at, format!("'{name}' is '{shown}': expected {}{quotes}", expected(kind)));
            }
            typed
        }
    }
}

fn list<'node>(name: &str, kind: &Kind, node: &'node Node, report: &mut Report) -> Option<&'node [Node]> {
    if let Value::List(items) = &node.value {
        return Some(items);
    }
    let shape = if node.is_null() { "empty" } else { shape(node) };
    report.error(&node.at, format!("'{name}' is {shape}: expected {} (none: [])", expected(kind)));
    None
}

fn record(
    name: &str,
    table: &'static [Key],
    node: &Node,
    report: &mut Report,
) -> Option<Vec<(&'static str, Typed)>> {
    let Value::Map(entries) = &node.value else {
        report.error(&node.at, format!("an element of '{name}' is {}: expected a map", shape(node)));
        return None;
    };
    let mut values = Vec::with_capacity(entries.len());
    let mut complete = true;
    for entry in entries {
        let Some(key) = keys::find(table, &entry.key) else {
            let known: Vec<_> = table.iter().map(|key| key.name).collect();
            let message = format!("unknown key '{name}.{}': known are {}", entry.key, known.join(", "));
            report.error(&entry.key_at, message);
            complete = false;
            continue;
        };
        match read(key, &entry.value, report) {
            // Written out or left out, a default is the same record.
            Some(value) if is_default(key, &value) => {}
            Some(value) => values.push((key.name, value)),
            None => complete = false,
        }
    }
    values.sort_by_key(|(name, _)| table.iter().position(|key| key.name == *name));
    complete.then_some(values)
}

fn read_scalar(kind: &Kind, scalar: &Scalar) -> Option<Typed> {
    let text = scalar.text.as_str();
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
        Kind::Text | Kind::Secret => Some(Typed::Text(text.to_owned())),
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
        Kind::Cores | Kind::List(_) | Kind::Records(_) => None,
    }
}

/// YAML 1.1 booleans, which operators write out of habit; a quoted one is text.
fn boolean(scalar: &Scalar) -> Option<bool> {
    match (scalar.style, scalar.text.as_str()) {
        (Style::Quoted, _) => None,
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

/// What `kind` allows, for the end of "expected …".
fn expected(kind: &Kind) -> String {
    match kind {
        Kind::Bool => "yes or no".to_owned(),
        Kind::Int(0, max) if *max >= i64::from(u32::MAX) => "a whole number, 0 or more".to_owned(),
        Kind::Int(min, max) => format!("a whole number from {min} to {max}"),
        Kind::Float => "a number".to_owned(),
        Kind::Duration => "a duration such as 200ms, 10s, 1m30s or 1d12h".to_owned(),
        Kind::Size => "a size such as 64K, 16M or 1G".to_owned(),
        Kind::Text | Kind::Secret => "text".to_owned(),
        Kind::Network => "an IP address or a network such as 10.0.0.0/8".to_owned(),
        Kind::Word(words) => {
            let shown: Vec<_> = words.iter().map(|word| if word.is_empty() { "''" } else { word }).collect();
            one_of(&shown)
        }
        Kind::Encryption => one_of(&["no", "optional", "strict"]),
        Kind::List(item) => format!("a list, each element {}", expected(item)),
        Kind::Records(_) => "a list of maps".to_owned(),
        Kind::Cores => "auto, or a list of core numbers such as [2, 3]".to_owned(),
    }
}

fn one_of(words: &[&str]) -> String {
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
