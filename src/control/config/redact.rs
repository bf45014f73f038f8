//! Secrets in what the API shows, and their way back: a value that comes back as it was shown is unchanged.

use std::{borrow::Cow, sync::LazyLock};

use regex::{Captures, Regex};
use serde_json::{Map, Value};

/// What stands for a secret.
pub(super) const REDACTED: &str = "<redacted>";

/// `user:password@` behind `://`; the last `@` of the authority ends it.
static USERINFO: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"://([^/?#\s:@]*):([^\s@]*(?:@[^/?#\s@]*)*)@").ok());
/// `password=…` and its like in queries, options and paths of cameras.
static NAMED: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r"(?i)((?:pass(?:word|wd|phrase)?|pwd|token|secret|jwt|api[_-]?key)=|bearer\s+)([^\s&#;'\x22]+)",
    )
    .ok()
});
/// An ICE server of older files, `turn:user:password:host:port`.
static ICE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^(turns?:[^:]*:)[^:]+(:[^:]*:\d+)$").ok());

/// `text` without the passwords it holds.
pub(super) fn text(text: &str) -> Cow<'_, str> {
    let mut shown = Cow::Borrowed(text);
    if let Some(userinfo) = &*USERINFO {
        shown = replaced(shown, userinfo, |found| {
            let (user, password) = (&found[1], &found[2]);
            // `://host:554/a@b`: a port and a path, not a password.
            let digits = password.trim_start_matches(|c: char| c.is_ascii_digit());
            if password.is_empty() || digits.len() < password.len() && digits.starts_with('/') {
                return found[0].to_owned();
            }
            format!("://{user}:{REDACTED}@")
        });
    }
    if let Some(named) = &*NAMED {
        shown = replaced(shown, named, |found| format!("{}{REDACTED}", &found[1]));
    }
    if let Some(ice) = &*ICE {
        shown = replaced(shown, ice, |found| format!("{}{REDACTED}{}", &found[1], &found[2]));
    }
    shown
}

fn replaced<'text>(
    text: Cow<'text, str>,
    pattern: &Regex,
    with: impl Fn(&Captures<'_>) -> String,
) -> Cow<'text, str> {
    if !pattern.is_match(&text) {
        return text;
    }
    Cow::Owned(pattern.replace_all(&text, |found: &Captures<'_>| with(found)).into_owned())
}

/// Puts the secrets back into `body`, wherever it holds what was `shown` for `stored`.
///
/// # Errors
/// The key of a value that says `<redacted>` and is not what was shown.
pub(super) fn restore(
    body: &mut Map<String, Value>,
    shown: &Map<String, Value>,
    stored: &Map<String, Value>,
) -> Result<(), String> {
    for (key, value) in body {
        let nothing = &Value::Null;
        restore_value(value, shown.get(key).unwrap_or(nothing), stored.get(key).unwrap_or(nothing));
        if is_redacted(value) {
            return Err(format!(
                "'{key}' says {REDACTED}, which stands for a secret that is not known for this value: write the secret"
            ));
        }
    }
    Ok(())
}

/// Whether a value, or a part of it, stands for a secret.
pub(super) fn is_redacted(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains(REDACTED),
        Value::Array(items) => items.iter().any(is_redacted),
        Value::Object(fields) => fields.values().any(is_redacted),
        _ => false,
    }
}

fn restore_value(value: &mut Value, shown: &Value, stored: &Value) {
    if value == shown {
        stored.clone_into(value);
        return;
    }
    match (value, shown, stored) {
        (Value::Array(items), Value::Array(shown), Value::Array(stored)) => {
            let mut taken = vec![false; shown.len()];
            for (index, item) in items.iter_mut().enumerate().filter(|(_, item)| is_redacted(item)) {
                // The element in its old place if it is the same one, else the first that is.
                let places = std::iter::once(index).chain(0..shown.len());
                let same = |&place: &usize| {
                    place < shown.len() && !taken[place] && is_same_element(item, &shown[place])
                };
                if let Some(place) = places.clone().find(same) {
                    taken[place] = true;
                    restore_value(item, &shown[place], stored.get(place).unwrap_or(&Value::Null));
                }
            }
        }
        (Value::Object(fields), Value::Object(shown), Value::Object(stored)) => {
            for (key, value) in fields {
                if let (Some(shown), Some(stored)) = (shown.get(key), stored.get(key)) {
                    restore_value(value, shown, stored);
                }
            }
        }
        _ => {}
    }
}

/// An element is told by whom or what it is about; a secret never moves to another one.
fn is_same_element(item: &Value, shown: &Value) -> bool {
    match (item, shown) {
        (Value::Object(item), Value::Object(shown)) => ["user", "url", "username", "dest"]
            .iter()
            .all(|key| item.get(*key).unwrap_or(&Value::Null) == shown.get(*key).unwrap_or(&Value::Null)),
        _ => item == shown,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn passwords_are_left_out_of_urls_and_commands() {
        for (hidden, shown) in [
            ("rtsp://user:pass@cam/1", "rtsp://user:<redacted>@cam/1"),
            ("rtsp://user:p@ss@cam/1", "rtsp://user:<redacted>@cam/1"),
            ("rtsp://user:${PASS}@cam/1", "rtsp://user:<redacted>@cam/1"),
            ("rtsp://u:p/w@cam/1", "rtsp://u:<redacted>@cam/1"),
            ("rtsp://cam:554/a@b", "rtsp://cam:554/a@b"),
            ("rtsp://user@cam/1", "rtsp://user@cam/1"),
            ("rtsp://cam/x?user=a&password=b&x=1", "rtsp://cam/x?user=a&password=<redacted>&x=1"),
            (
                "ffmpeg -i rtsp://u:p@a/1 -f rtsp rtsp://v:q@b/2",
                "ffmpeg -i rtsp://u:<redacted>@a/1 -f rtsp rtsp://v:<redacted>@b/2",
            ),
            (
                "curl -H 'Authorization: Bearer abc' --token=x http://h",
                "curl -H 'Authorization: Bearer <redacted>' --token=<redacted> http://h",
            ),
            ("turn:user:pass:host:3478", "turn:user:<redacted>:host:3478"),
            ("stun:host:3478", "stun:host:3478"),
            ("publisher", "publisher"),
        ] {
            assert_eq!(text(hidden), shown);
        }
    }

    #[test]
    fn a_secret_comes_back_to_the_element_it_belongs_to_and_to_no_other() {
        let object = |value: Value| value.as_object().unwrap().clone();
        let shown = object(
            json!({"users": [{"user": "a", "pass": "<redacted>"}, {"user": "b", "pass": "<redacted>"}], "source": "rtsp://u:<redacted>@h"}),
        );
        let stored = object(
            json!({"users": [{"user": "a", "pass": "1"}, {"user": "b", "pass": "2"}], "source": "rtsp://u:p@h"}),
        );
        let mut body = object(
            json!({"users": [{"user": "b", "pass": "<redacted>", "ips": []}, {"user": "c", "pass": "3"}], "source": "rtsp://u:<redacted>@h"}),
        );
        restore(&mut body, &shown, &stored).unwrap();
        assert_eq!(
            Value::Object(body),
            json!({"users": [{"user": "b", "pass": "2", "ips": []}, {"user": "c", "pass": "3"}], "source": "rtsp://u:p@h"})
        );
        for stranger in [
            json!({"users": [{"user": "c", "pass": "<redacted>"}]}),
            json!({"source": "rtsp://u:<redacted>@evil"}),
            json!({"new": "<redacted>"}),
        ] {
            assert!(restore(&mut object(stranger), &shown, &stored).is_err());
        }
    }
}
