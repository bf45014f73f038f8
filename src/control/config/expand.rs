//! `${NAME}` in credentials and URLs: taken from the environment, so that a file holds no secret.

use std::{borrow::Cow, fmt, sync::Arc};

/// The variables of the process, as they were at its start.
#[derive(Clone, Default)]
pub(super) struct Environment(Arc<[(String, String)]>);

/// They may be secrets.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Environment({} variables)", self.0.len())
    }
}

impl Environment {
    pub fn new(variables: Vec<(String, String)>) -> Self {
        Self(variables.into())
    }

    pub fn variables(&self) -> &[(String, String)] {
        &self.0
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Replaces every `${NAME}`; those that `is_kept` stay for whoever uses the text. A `$` without braces is only a
    /// character.
    ///
    /// # Errors
    /// The first name that stands for nothing. An empty variable counts as none: as a password it would match any.
    pub fn expand<'text>(
        &self,
        text: &'text str,
        is_kept: impl Fn(&str) -> bool,
    ) -> Result<Cow<'text, str>, &'text str> {
        if !text.contains("${") {
            return Ok(Cow::Borrowed(text));
        }
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            let (before, from) = rest.split_at(start);
            expanded.push_str(before);
            let name = from[2..].find('}').map(|end| &from[2..2 + end]).filter(|name| is_name(name));
            match name {
                Some(name) if !is_kept(name) => {
                    let value = self.get(name).filter(|value| !value.is_empty()).ok_or(name)?;
                    expanded.push_str(value);
                    rest = &from[name.len() + 3..];
                }
                Some(name) => {
                    expanded.push_str(&from[..name.len() + 3]);
                    rest = &from[name.len() + 3..];
                }
                None => {
                    expanded.push_str("${");
                    rest = &from[2..];
                }
            }
        }
        expanded.push_str(rest);
        Ok(Cow::Owned(expanded))
    }
}

/// What an operator reads when a variable is missing.
pub(super) fn missing(key: &str, name: &str) -> String {
    format!(
        "'{key}' uses ${{{name}}}, but the environment variable {name} is not set or empty: set it before the start"
    )
}

fn is_name(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env() -> Environment {
        Environment::new(vec![
            ("A".into(), "1".into()),
            ("B_2".into(), "$2}".into()),
            ("EMPTY".into(), "".into()),
        ])
    }

    #[test]
    fn names_in_braces_are_replaced_and_nothing_else() {
        let expand = |text| env().expand(text, |name| name.starts_with('G')).map(Cow::into_owned);
        for (text, expected) in [
            ("", ""),
            ("$A", "$A"),
            ("${A}", "1"),
            ("x${A}y${B_2}", "x1y$2}"),
            ("${G1}/${A}", "${G1}/1"),
            ("${}${ A}${1}", "${}${ A}${1}"),
            ("${A", "${A"),
            ("$${A}", "$1"),
        ] {
            assert_eq!(expand(text), Ok(expected.to_owned()), "{text}");
        }
        assert_eq!(expand("${A}${NOPE}"), Err("NOPE"));
        assert_eq!(expand("${EMPTY}"), Err("EMPTY"));
    }

    #[test]
    fn debug_shows_no_value() {
        assert_eq!(format!("{:?}", env()), "Environment(3 variables)");
    }
}
