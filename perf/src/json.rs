//! Just enough JSON to write results down.

use std::fmt;

#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Num(f64),
    Str(String),
    List(Vec<Json>),
    Map(Vec<(String, Json)>),
}

impl Json {
    pub fn map<const N: usize>(items: [(&str, Json); N]) -> Self {
        Self::Map(items.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
    }
}

macro_rules! from {
    ($($t:ty => |$v:ident| $e:expr),* $(,)?) => { $(impl From<$t> for Json { fn from($v: $t) -> Self { $e } })* };
}
from! {
    bool => |v| Json::Bool(v),
    f64 => |v| Json::Num(v),
    u64 => |v| Json::Num(v as f64),
    usize => |v| Json::Num(v as f64),
    u32 => |v| Json::Num(f64::from(v)),
    i32 => |v| Json::Num(f64::from(v)),
    &str => |v| Json::Str(v.to_owned()),
    String => |v| Json::Str(v),
    Vec<Json> => |v| Json::List(v),
}

impl<T: Into<Json>> From<Option<T>> for Json {
    fn from(v: Option<T>) -> Self {
        v.map_or(Json::Null, Into::into)
    }
}

fn string(f: &mut fmt::Formatter, s: &str) -> fmt::Result {
    f.write_str("\"")?;
    for c in s.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            c if (c as u32) < 0x20 => write!(f, "\\u{:04x}", c as u32)?,
            c => write!(f, "{c}")?,
        }
    }
    f.write_str("\"")
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Json::Null => f.write_str("null"),
            Json::Bool(b) => write!(f, "{b}"),
            Json::Num(n) if !n.is_finite() => f.write_str("null"),
            Json::Num(n) if n.fract() == 0.0 && n.abs() < 9e15 => write!(f, "{n:.0}"),
            Json::Num(n) => write!(f, "{:.6}", n),
            Json::Str(s) => string(f, s),
            Json::List(l) => {
                f.write_str("[")?;
                for (i, v) in l.iter().enumerate() {
                    write!(f, "{}{v}", if i > 0 { "," } else { "" })?;
                }
                f.write_str("]")
            }
            Json::Map(m) => {
                f.write_str("{")?;
                for (i, (k, v)) in m.iter().enumerate() {
                    f.write_str(if i > 0 { "," } else { "" })?;
                    string(f, k)?;
                    write!(f, ":{v}")?;
                }
                f.write_str("}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_as_json() {
        let j = Json::map([
            ("a", 1u64.into()),
            ("b", vec![0.5.into(), Json::Null, true.into()].into()),
            ("c", "q\"\\\n".into()),
            ("d", f64::NAN.into()),
        ]);
        assert_eq!(j.to_string(), r#"{"a":1,"b":[0.500000,null,true],"c":"q\"\\\u000a","d":null}"#);
    }
}
