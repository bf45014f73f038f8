//! YAML text to a small tree that remembers where each key and value stands.
//!
//! Built on the event parser and not on serde: a reader that reports every mistake of a file at once needs
//! the position of each key, whether a scalar was quoted (`yes` and `"yes"` differ) and its text as written,
//! and must go on after a duplicate key. None of these survive a trip through serde's data model.

use std::{collections::HashMap, iter::Peekable};

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span};

use super::error::{At, Report};

/// Deepest nesting of maps and lists; the deepest legal configuration needs 6.
const DEPTH_MAX: usize = 32;
/// Most nodes of a tree, expanded aliases included: bounds memory whatever the file says.
const NODES_MAX: usize = 1_000_000;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub at: At,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub key: String,
    pub key_at: At,
    pub value: Node,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scalar {
    pub text: String,
    pub style: Style,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Unquoted: may be a number, a boolean or nothing at all.
    Plain,
    /// Quoted or a block: always text.
    Quoted,
    /// From an environment variable: text that may stand for anything.
    Env,
    /// A number, a boolean or null in JSON: never text.
    Json,
}

impl Node {
    pub fn empty_map(at: At) -> Self {
        Self { at, value: Value::Map(Vec::new()) }
    }

    /// `key:` without a value, `~` or `null`.
    pub fn is_null(&self) -> bool {
        let Value::Scalar(scalar) = &self.value else { return false };
        match scalar.style {
            Style::Plain => matches!(scalar.text.as_str(), "" | "~" | "null" | "Null" | "NULL"),
            Style::Json => scalar.text == "null",
            Style::Quoted | Style::Env => false,
        }
    }
}

/// Parses a file. Duplicate keys go to `report` and the first one counts; `None` when the text is no YAML.
pub(super) fn parse(text: &str, report: &mut Report) -> Option<Node> {
    let options = granit_parser::options! {
        emit_comments: false,
        flow_nesting_limit: 2 * DEPTH_MAX,
        block_nesting_limit: 2 * DEPTH_MAX,
    };
    let events = Parser::new_from_str_with_options(text, options).peekable();
    let mut builder = Builder { events, anchors: HashMap::new(), nodes: 0, report };
    match builder.document() {
        Ok(node) => Some(node),
        Err(Stop { at, message }) => {
            report.error(&at, message);
            None
        }
    }
}

/// A mistake after which the rest of the file cannot be understood.
struct Stop {
    at: At,
    message: String,
}

impl From<ScanError> for Stop {
    fn from(error: ScanError) -> Self {
        let mark = error.marker();
        let at = At::File { line: mark.line(), column: mark.col() + 1 };
        Self { at, message: format!("invalid YAML: {}", error.kind()) }
    }
}

struct Builder<'text, 'report, I: Iterator<Item = Result<(Event<'text>, Span), ScanError>>> {
    events: Peekable<I>,
    /// Subtrees that were given a name, by the parser's number for it.
    anchors: HashMap<usize, Node>,
    nodes: usize,
    report: &'report mut Report,
}

impl<'text, I: Iterator<Item = Result<(Event<'text>, Span), ScanError>>> Builder<'text, '_, I> {
    /// The only document of the stream; an empty stream is an empty map.
    fn document(&mut self) -> Result<Node, Stop> {
        let mut root = None;
        while let Some(next) = self.events.next() {
            let (event, span) = next?;
            match event {
                Event::DocumentStart(..) if root.is_some() => {
                    return stop(
                        at(&span),
                        "a configuration is exactly one YAML document, here starts another",
                    );
                }
                Event::DocumentStart(..) => root = Some(self.node(0)?),
                _ => {}
            }
        }
        Ok(root.unwrap_or_else(|| Node::empty_map(At::Nowhere)))
    }

    fn node(&mut self, depth: usize) -> Result<Node, Stop> {
        let Some(next) = self.events.next() else { return stop(At::Nowhere, "invalid YAML: cut short") };
        let (event, span) = next?;
        let at = at(&span);
        self.count(1, &at)?;
        if depth > DEPTH_MAX {
            return stop(at, format!("nested deeper than {DEPTH_MAX} levels"));
        }
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let style = match (tag.as_deref(), style) {
                    (Some(tag), _) if tag.is_yaml_core_schema_tag("str") => Style::Quoted,
                    (Some(_), _) => return stop(at, "YAML tags other than !!str are not used here"),
                    (None, ScalarStyle::Plain) => Style::Plain,
                    (None, _) => Style::Quoted,
                };
                (Value::Scalar(Scalar { text: text.into_owned(), style }), anchor)
            }
            Event::SequenceStart(_, anchor, _) => (self.list(depth)?, anchor),
            Event::MappingStart(_, anchor, _) => (self.map(depth)?, anchor),
            Event::Alias(anchor) => {
                // Unknown here means an alias inside of its own anchor: the subtree is not complete yet.
                let Some(target) = self.anchors.get(&anchor) else {
                    return stop(at, "this alias refers to a block that contains it");
                };
                let (copy, size) = (target.value.clone(), target.size());
                self.count(size, &at)?;
                (copy, 0)
            }
            _ => return stop(at, "invalid YAML"),
        };
        let node = Node { at, value };
        if anchor != 0 {
            self.count(node.size(), &node.at)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Value, Stop> {
        let mut items = Vec::new();
        while !self.ends(|event| matches!(event, Event::SequenceEnd)) {
            items.push(self.node(depth + 1)?);
        }
        Ok(Value::List(items))
    }

    fn map(&mut self, depth: usize) -> Result<Value, Stop> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut index_by_key: HashMap<String, usize> = HashMap::new();
        let mut merged = Vec::new();
        while !self.ends(|event| matches!(event, Event::MappingEnd)) {
            let key = self.node(depth + 1)?;
            let Value::Scalar(Scalar { text, style }) = key.value else {
                return stop(key.at, "a key must be a word, not a list or a map");
            };
            let value = self.node(depth + 1)?;
            if text == "<<" && style == Style::Plain {
                merged.push(value);
                continue;
            }
            if let Some(&first) = index_by_key.get(&text) {
                let At::File { line, column } = entries[first].key_at else { continue };
                self.report.error(&key.at, format!("key '{text}' is already set at {line}:{column}"));
                continue;
            }
            index_by_key.insert(text.clone(), entries.len());
            entries.push(Entry { key: text, key_at: key.at, value });
        }
        for node in merged {
            merge(&mut entries, &mut index_by_key, node)?;
        }
        Ok(Value::Map(entries))
    }

    /// Takes the closing event off the stream if it is next. A scan error is left for [`Self::node`].
    fn ends(&mut self, is_end: impl Fn(&Event<'text>) -> bool) -> bool {
        self.events.next_if(|next| matches!(next, Ok((event, _)) if is_end(event))).is_some()
    }

    fn count(&mut self, more: usize, at: &At) -> Result<(), Stop> {
        self.nodes += more;
        if self.nodes > NODES_MAX {
            return stop(at.clone(), format!("more than {NODES_MAX} values, aliases expanded"));
        }
        Ok(())
    }
}

impl Node {
    fn size(&self) -> usize {
        1 + match &self.value {
            Value::Scalar(_) => 0,
            Value::List(items) => items.iter().map(Node::size).sum(),
            Value::Map(entries) => entries.iter().map(|entry| entry.value.size()).sum(),
        }
    }
}

/// `<<: *base`: the keys of another map, under those that stand here.
fn merge(
    entries: &mut Vec<Entry>,
    index_by_key: &mut HashMap<String, usize>,
    node: Node,
) -> Result<(), Stop> {
    match node.value {
        Value::Map(base) => {
            for entry in base {
                if !index_by_key.contains_key(&entry.key) {
                    index_by_key.insert(entry.key.clone(), entries.len());
                    entries.push(entry);
                }
            }
            Ok(())
        }
        Value::List(bases) => bases.into_iter().try_for_each(|base| merge(entries, index_by_key, base)),
        Value::Scalar(_) => stop(node.at, "'<<' takes the alias of a map"),
    }
}

fn stop<T>(at: At, message: impl Into<String>) -> Result<T, Stop> {
    Err(Stop { at, message: message.into() })
}

fn at(span: &Span) -> At {
    At::File { line: span.start.line(), column: span.start.col() + 1 }
}
