//! URLs of sources that differ from path to path.

use std::sync::Arc;

use regex::Regex;

/// The URL of a source, in which parts of the path's name may be named: `$G1`, `${G1}`, `${cameraId}` of
/// `prefix_~cameraId`, `$MTX_PATH`, `$MTX_QUERY`. Variables of the environment are filled in already, so that it may
/// hold a password: it is never shown.
#[derive(Clone)]
pub struct UrlTemplate {
    text: Arc<str>,
    /// That of the entry, for its groups.
    pattern: Option<Regex>,
}

/// What a [`UrlTemplate`] may name.
enum Variable<'text> {
    Path,
    Query,
    Group(usize),
    NamedGroup(&'text str),
}

impl UrlTemplate {
    pub fn new(text: impl Into<Arc<str>>, pattern: Option<Regex>) -> Self {
        Self { text: text.into(), pattern }
    }

    /// The URL for the path `name`; `query` is that of whoever wants it. A name that means nothing here stays as it is:
    /// passwords hold a `$`, too.
    pub fn expand(&self, name: &str, query: &str) -> String {
        let groups = self.pattern.as_ref().and_then(|pattern| pattern.captures(name));
        let of_group = |group: Option<regex::Match<'_>>| group.map_or("", |group| group.as_str()).to_owned();
        self.expanded(|variable| match variable {
            Variable::Path => name.to_owned(),
            Variable::Query => query.to_owned(),
            Variable::Group(number) => of_group(groups.as_ref().and_then(|groups| groups.get(number))),
            Variable::NamedGroup(name) => of_group(groups.as_ref().and_then(|groups| groups.name(name))),
        })
    }

    /// Whether it is the same URL for every path.
    pub fn is_fixed(&self) -> bool {
        let mut is_fixed = true;
        self.expanded(|_| {
            is_fixed = false;
            String::new()
        });
        is_fixed
    }

    fn expanded(&self, mut value: impl FnMut(Variable<'_>) -> String) -> String {
        let mut out = String::with_capacity(self.text.len());
        let mut rest = &*self.text;
        while let Some((before, after)) = rest.split_once('$') {
            out.push_str(before);
            match self.variable(after) {
                Some((variable, behind)) => {
                    out.push_str(&value(variable));
                    rest = behind;
                }
                None => {
                    out.push('$');
                    rest = after;
                }
            }
        }
        out.push_str(rest);
        out
    }

    /// The variable that begins behind a `$`, and what follows it. Without braces, what follows a number or a name of
    /// MediaMTX's may touch it, as in `$G1_sub`.
    fn variable<'text>(&self, after: &'text str) -> Option<(Variable<'text>, &'text str)> {
        if let Some((name, behind)) = after.strip_prefix('{').and_then(|braced| braced.split_once('}')) {
            let number = name.strip_prefix('G').and_then(|number| number.parse().ok());
            let variable = match name {
                "MTX_PATH" => Variable::Path,
                "MTX_QUERY" => Variable::Query,
                _ if number.is_some_and(|number| self.has_group(number)) => Variable::Group(number?),
                _ => self.named_group(name)?,
            };
            return Some((variable, behind));
        }
        if let Some(behind) = after.strip_prefix("MTX_PATH") {
            return Some((Variable::Path, behind));
        }
        if let Some(behind) = after.strip_prefix("MTX_QUERY") {
            return Some((Variable::Query, behind));
        }
        if let Some(number) = after.strip_prefix('G') {
            let digits = number.bytes().take_while(u8::is_ascii_digit).count();
            let group = (1..=digits).rev().find_map(|length| {
                let group = number[..length].parse().ok().filter(|&group| self.has_group(group))?;
                Some((Variable::Group(group), &number[length..]))
            });
            if group.is_some() {
                return group;
            }
        }
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let (name, behind) = after.split_at(after.bytes().take_while(is_word).count());
        Some((self.named_group(name)?, behind))
    }

    fn has_group(&self, number: usize) -> bool {
        number > 0 && self.pattern.as_ref().is_some_and(|pattern| number < pattern.captures_len())
    }

    fn named_group<'text>(&self, name: &'text str) -> Option<Variable<'text>> {
        let mut names = self.pattern.iter().flat_map(Regex::capture_names).flatten();
        names.any(|known| known == name).then_some(Variable::NamedGroup(name))
    }
}

/// Two are equal when they give the same URLs.
impl PartialEq for UrlTemplate {
    fn eq(&self, other: &Self) -> bool {
        let pattern = |template: &Self| template.pattern.as_ref().map(|pattern| pattern.as_str().to_owned());
        self.text == other.text && pattern(self) == pattern(other)
    }
}

impl Eq for UrlTemplate {}

impl std::fmt::Debug for UrlTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UrlTemplate(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_made_of_parts_of_the_name() {
        let pattern = Regex::new("^milestone_(?P<cameraId>[^/]+)$").unwrap();
        let expand =
            |text: &str| UrlTemplate::new(text, Some(pattern.clone())).expand("milestone_a-1", "x=$G1");
        for (text, url) in [
            ("rtsp://u:p@m:554/live/${cameraId}", "rtsp://u:p@m:554/live/a-1"),
            ("rtsp://m/$G1", "rtsp://m/a-1"),
            ("rtsp://m/${G1}.sdp?$MTX_QUERY", "rtsp://m/a-1.sdp?x=$G1"),
            ("rtsp://m/$cameraId/$MTX_PATH", "rtsp://m/a-1/milestone_a-1"),
            ("rtsp://m/$G1_sub/$G12", "rtsp://m/a-1_sub/a-12"),
            ("rtsp://m/$G2${nope}x", "rtsp://m/$G2${nope}x"),
            ("rtsp://u:pa$word@m/$G0", "rtsp://u:pa$word@m/$G0"),
            ("rtsp://u:pa$$@m/$", "rtsp://u:pa$$@m/$"),
            ("rtsp://m/${G1", "rtsp://m/${G1"),
        ] {
            assert_eq!(expand(text), url, "{text}");
        }
        assert_eq!(UrlTemplate::new("rtsp://m/$G1", None).expand("x", ""), "rtsp://m/$G1");
        let is_fixed = |text: &str| UrlTemplate::new(text, Some(pattern.clone())).is_fixed();
        assert!(
            is_fixed("rtsp://u:pa$word@m/$G2")
                && !is_fixed("rtsp://m/${G1}")
                && !is_fixed("rtsp://m/$MTX_PATH")
        );
    }
}
