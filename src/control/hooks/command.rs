//! A command as the configuration has it, into words: quoting as in a POSIX shell, but no shell (contract §7.3).
//!
//! Splitting comes before expansion, so whatever a value holds (a path name that a client chose, for one) it stays one
//! word and cannot become a second command.

use std::{borrow::Cow, env};

use crate::control::config::store::Variables;

/// Why a command cannot be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::control) enum CommandError {
    #[error("the command has an opening {0} without a closing one; close it, or put a backslash before it")]
    Unterminated(&'static str),
    #[error("the command ends in a backslash; write \\\\ for a literal one")]
    TrailingBackslash,
    #[error("the command is empty: it must begin with the program to run")]
    Empty,
    #[error("the command's first word, the program to run, is empty once its variables are filled in")]
    NoProgram,
}

/// The program and its arguments, variables filled in from `variables`, else from the environment of this process, else
/// with nothing.
pub(super) fn words(command: &str, variables: &Variables) -> Result<Vec<String>, CommandError> {
    // Of two with one name the later counts, as it does for the environment.
    let lookup = |name: &str| match variables.iter().rev().find(|(key, _)| key == name) {
        Some((_, value)) => Cow::Borrowed(value.as_str()),
        None => Cow::Owned(env::var(name).unwrap_or_default()),
    };
    let words: Vec<_> = split(command)?.iter().map(|word| expand(word, lookup)).collect();
    match words.first().map(String::as_str) {
        None => Err(CommandError::Empty),
        Some("") => Err(CommandError::NoProgram),
        Some(_) => Ok(words),
    }
}

/// Whether quotes and backslashes are in order.
pub(in crate::control) fn can_be_split(command: &str) -> bool {
    split(command).is_ok()
}

/// POSIX Shell Command Language §2.2, quoting alone: no operators, and, as in MediaMTX, no comments.
pub(in crate::control) fn split(command: &str) -> Result<Vec<String>, CommandError> {
    let mut words = Vec::new();
    // `None` between words; quotes make a word even of nothing.
    let mut word: Option<String> = None;
    let mut chars = command.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' => words.extend(word.take()),
            '\'' => single_quoted(&mut chars, word.get_or_insert_default())?,
            '"' => double_quoted(&mut chars, word.get_or_insert_default())?,
            '\\' => match chars.next() {
                // A line goes on.
                Some('\n') => {}
                Some(c) => word.get_or_insert_default().push(c),
                None => return Err(CommandError::TrailingBackslash),
            },
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

fn single_quoted(chars: &mut impl Iterator<Item = char>, word: &mut String) -> Result<(), CommandError> {
    for c in chars {
        if c == '\'' {
            return Ok(());
        }
        word.push(c);
    }
    Err(CommandError::Unterminated("single quote"))
}

fn double_quoted(chars: &mut impl Iterator<Item = char>, word: &mut String) -> Result<(), CommandError> {
    while let Some(c) = chars.next() {
        match c {
            '"' => return Ok(()),
            '\\' => match chars.next() {
                Some('\n') => {}
                Some(c @ ('$' | '`' | '"' | '\\')) => word.push(c),
                Some(c) => word.extend(['\\', c]),
                None => break,
            },
            c => word.push(c),
        }
    }
    Err(CommandError::Unterminated("double quote"))
}

/// `$NAME` and `${NAME}`, by the rules of Go's `os.Expand`, which MediaMTX uses.
pub(in crate::control) fn expand<'v>(word: &str, lookup: impl Fn(&str) -> Cow<'v, str>) -> String {
    let mut out = String::with_capacity(word.len());
    let mut rest = word;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(braced) = after.strip_prefix('{') {
            match braced.split_once('}') {
                Some((name, after)) => {
                    out.push_str(&lookup(name));
                    rest = after;
                }
                // Never closed: the two characters are swallowed.
                None => rest = braced,
            }
            continue;
        }
        let length = match after.as_bytes().first() {
            Some(b'*' | b'#' | b'$' | b'@' | b'!' | b'?' | b'-' | b'0'..=b'9') => 1,
            _ => after.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count(),
        };
        if length == 0 {
            out.push('$');
        } else {
            out.push_str(&lookup(&after[..length]));
        }
        rest = &after[length..];
    }
    out.push_str(rest);
    out
}
