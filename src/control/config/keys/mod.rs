//! The table of keys: every key MediaMTX has, with its type, its default and how far we serve it.
//!
//! A key starts to be served by changing its row from `later` to `served` and reading it where settings are made
//! (`conf.rs`, `access.rs`, `paths.rs`). The order of the rows is that of the API's answers.

mod engine;
mod global;
mod path;

pub(super) use engine::ENGINE;
pub(super) use global::GLOBAL;
pub(super) use path::PATH;

/// The block of our own keys at the top level.
pub(super) const ENGINE_BLOCK: &str = "engine";
/// In a path of the API: its key, and that the API made it. Both say nothing in a body.
pub(super) const PATH_NAME: &str = "name";
pub(super) const FROM_API: &str = "fromAPI";

/// One key of a section.
#[derive(Debug)]
pub(super) struct Key {
    pub name: &'static str,
    pub kind: Kind,
    /// The default, written as in a file; empty for keys that are unset by default.
    pub default: &'static str,
    pub status: Status,
}

/// The type of a value.
#[derive(Debug)]
pub(super) enum Kind {
    Bool,
    /// A whole number within bounds, both allowed.
    Int(i64, i64),
    Float,
    Duration,
    Size,
    Text,
    /// Text that neither a message nor the API may repeat.
    Secret,
    /// A URL: it may hold a password, so no message repeats it, and the API shows it without.
    Url,
    /// The name of a user: in the API, in no message.
    User,
    /// A command line: it may hold a password, which the API leaves out.
    Command,
    /// An IP address or a network in CIDR notation.
    Network,
    /// One of these words.
    Word(&'static [&'static str]),
    /// `no`, `optional` or `strict`; also the booleans of older files.
    Encryption,
    List(&'static Kind),
    /// A list in which order and repetition mean nothing.
    Set(&'static Kind),
    /// A list of maps with these keys.
    Records(&'static [Key]),
    /// `auto`, or a list of core numbers.
    Cores,
}

/// How far this version goes with a key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Status {
    /// Read and obeyed.
    Served,
    /// Checked and without effect; nobody needs to hear about it.
    Quiet,
    /// Checked, not obeyed yet: a warning says so when it is set to something else than its default.
    Later,
    /// As `Later`, of the switch of a whole service: a warning says so whenever it is switched on in words, even if
    /// that is the default, and never when it is switched off.
    LaterSwitch,
    /// As `Later`, where not obeying has a consequence that the warning must spell out.
    LaterBecause(&'static str),
    /// An older spelling.
    Legacy(Legacy),
}

/// What an older key means today (contract §1.6).
#[derive(Debug, Clone, Copy)]
pub(super) enum Legacy {
    /// The same value under a new name.
    Renamed(&'static str),
    /// The opposite value under a new name.
    Negated(&'static str),
    /// The same value under a new name, and this word for the key by which that one counts.
    RenamedWith(&'static str, (&'static str, &'static str)),
    /// The only element of a list.
    OneElement(&'static str),
    /// Moved from the top level into `pathDefaults`, same name.
    PathDefault,
    /// Still means what it meant, has no newer name, is not served yet.
    Alone,
    /// Still means what it meant, has no newer name.
    Obeyed,
    /// Means nothing any more.
    NoEffect,
}

const fn served(name: &'static str, kind: Kind, default: &'static str) -> Key {
    Key { name, kind, default, status: Status::Served }
}

const fn quiet(name: &'static str, kind: Kind, default: &'static str) -> Key {
    Key { name, kind, default, status: Status::Quiet }
}

const fn later(name: &'static str, kind: Kind, default: &'static str) -> Key {
    Key { name, kind, default, status: Status::Later }
}

const fn later_switch(name: &'static str, default: &'static str) -> Key {
    Key { name, kind: Kind::Bool, default, status: Status::LaterSwitch }
}

const fn later_because(name: &'static str, kind: Kind, default: &'static str, why: &'static str) -> Key {
    Key { name, kind, default, status: Status::LaterBecause(why) }
}

const fn legacy(name: &'static str, kind: Kind, legacy: Legacy) -> Key {
    Key { name, kind, default: "", status: Status::Legacy(legacy) }
}

/// Any port number; 0 lets the system choose.
const PORT: Kind = Kind::Int(0, 65_535);
/// A whole number that is not negative.
const COUNT: Kind = Kind::Int(0, u32::MAX as i64);
const TEXTS: Kind = Kind::List(&Kind::Text);
const NETWORKS: Kind = Kind::List(&Kind::Network);
const ENCRYPTION_IGNORED: &str = "this server does not listen with TLS";

impl Kind {
    /// Whether a value is written as text, which may be empty.
    pub fn is_text(&self) -> bool {
        matches!(self, Self::Text | Self::Secret | Self::Url | Self::User | Self::Command | Self::Word(_))
    }

    /// Whether a message must not repeat a value.
    pub fn is_private(&self) -> bool {
        matches!(self, Self::Secret | Self::Url | Self::User | Self::Command)
    }
}

/// The row of a key, by exact name.
pub(super) fn find(table: &'static [Key], name: &str) -> Option<&'static Key> {
    table.iter().find(|key| key.name == name)
}

/// The name that was probably meant: the same in another case, or a few letters away.
pub(super) fn closest(table: &'static [Key], name: &str) -> Option<&'static str> {
    // Longer than any key with any mistake in it; comparing costs the product of both lengths.
    if name.len() > 80 {
        return None;
    }
    let lower = name.to_ascii_lowercase();
    // A third of the letters may be wrong, so that short names do not match just anything.
    let allowed = (name.len() / 3).clamp(1, 3);
    table
        .iter()
        .map(|key| (edits(&lower, &key.name.to_ascii_lowercase()), key.name))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Levenshtein distance, by bytes.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, byte_a) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, byte_b) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(byte_a != byte_b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_names_are_suggested_and_far_ones_are_not() {
        assert_eq!(closest(GLOBAL, "rtspAdress"), Some("rtspAddress"));
        assert_eq!(closest(GLOBAL, "RTSPADDRESS"), Some("rtspAddress"));
        assert_eq!(closest(PATH, "maxReader"), Some("maxReaders"));
        assert_eq!(closest(GLOBAL, "somethingElse"), None);
    }

    #[test]
    fn names_are_unique_and_legacy_targets_exist() {
        for table in [GLOBAL, PATH, ENGINE] {
            for (index, key) in table.iter().enumerate() {
                assert!(table[..index].iter().all(|other| other.name != key.name), "{} twice", key.name);
                let target = match key.status {
                    Status::Legacy(
                        Legacy::Renamed(to)
                        | Legacy::RenamedWith(to, _)
                        | Legacy::Negated(to)
                        | Legacy::OneElement(to),
                    ) => find(table, to),
                    Status::Legacy(Legacy::PathDefault) => find(PATH, key.name),
                    _ => continue,
                };
                assert!(target.is_some(), "{} leads nowhere", key.name);
            }
        }
    }
}
