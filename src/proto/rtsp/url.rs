//! Request URLs, and the two ways clients append a track to them.
//!
//! With a query in the URL, GStreamer puts the control attribute after the path and FFmpeg puts it after the
//! query.

use std::borrow::Cow;
use std::fmt;

use nom::bytes::complete::{tag, tag_no_case, take_till};
use nom::combinator::{opt, recognize};
use nom::{IResult, Parser};

/// Why a URL cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    #[error("URL scheme is not rtsp")]
    Scheme,
    #[error("URL has no host")]
    Host,
    #[error("URL names no track")]
    Track,
}

/// A request URL in its parts; `to_string` puts them together again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathAndQuery {
    /// Without the leading slash, as received; may be empty. See [`Self::name`].
    pub path: String,
    /// Without the `?`, as received; may be empty.
    pub query: String,
    /// `scheme://host:port` as received, without user and password.
    pub base: String,
}

impl PathAndQuery {
    /// The path with percent-encoding resolved once: what to look up.
    pub fn name(&self) -> Cow<'_, str> {
        percent_decode(&self.path)
    }

    /// Everything after the base and its slash.
    fn tail(&self) -> String {
        match self.query.as_str() {
            "" => self.path.clone(),
            query => format!("{}?{query}", self.path),
        }
    }
}

impl fmt::Display for PathAndQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.tail())
    }
}

/// Splits a request URL: `rtsp://`, `rtsps://` or `rtspu://` in any case. `*` is for the caller to handle.
///
/// # Errors
/// [`UrlError::Scheme`] or [`UrlError::Host`].
pub fn parse_url(url: &str) -> Result<PathAndQuery, UrlError> {
    let (rest, scheme) = scheme(url).map_err(|_| UrlError::Scheme)?;
    let (rest, authority) = authority(rest).map_err(|_| UrlError::Host)?;
    // RFC 3986 §3.2.1; passwords with an unencoded `@` exist, so the last one counts.
    let host = authority.rsplit('@').next().unwrap_or_default();
    if host.is_empty() {
        return Err(UrlError::Host);
    }
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    Ok(PathAndQuery {
        path: path.strip_prefix('/').unwrap_or(path).to_owned(),
        query: query.to_owned(),
        base: format!("{scheme}{host}"),
    })
}

fn scheme(i: &str) -> IResult<&str, &str> {
    let (i, scheme) =
        recognize((tag_no_case("rtsp"), opt(tag_no_case("s")), opt(tag_no_case("u")), tag("://")))
            .parse(i)?;
    Ok((i, scheme))
}

fn authority(i: &str) -> IResult<&str, &str> {
    take_till(|c| c == '/' || c == '?').parse(i)
}

/// Strips one trailing slash: from the query if it ends in one (FFmpeg), else from the path. `cam/` works as
/// `cam`.
pub fn strip_trailing_slash(mut url: PathAndQuery) -> PathAndQuery {
    let part = if url.query.ends_with('/') { &mut url.query } else { &mut url.path };
    if part.ends_with('/') {
        part.pop();
    }
    url
}

/// Splits the URL of a SETUP for play into the stream and the index of the track: the last `/trackID=N` in
/// the query (FFmpeg) or in the path (GStreamer). Without one, a trailing slash means track 0.
///
/// # Errors
/// [`UrlError::Track`] if there is neither, or `N` is not a number up to 65,535.
pub fn split_track(url: &PathAndQuery) -> Result<(PathAndQuery, usize), UrlError> {
    let index_of = |word: &str| word.parse::<u16>().map(usize::from).map_err(|_| UrlError::Track);
    let mut stream = url.clone();
    let index = if let Some((query, number)) = url.query.rsplit_once(TRACK) {
        stream.query = query.to_owned();
        index_of(number)?
    } else if let Some((path, number)) = url.path.rsplit_once(TRACK) {
        stream.path = path.to_owned();
        index_of(number)?
    } else if url.query.ends_with('/') || url.path.ends_with('/') {
        0
    } else {
        return Err(UrlError::Track);
    };
    Ok((strip_trailing_slash(stream), index))
}

/// What separates a stream from a track number in the URLs we hand out.
const TRACK: &str = "/trackID=";

/// Finds which announced media the URL of a SETUP for record means: its control attribute is an absolute URL
/// equal to `setup`, or is appended to the announced URL, after the query or after the path. An empty control
/// means the announced URL itself. Returns the index into `controls`.
pub fn match_control<'a>(
    setup: &PathAndQuery,
    announced: &PathAndQuery,
    controls: impl IntoIterator<Item = &'a str>,
) -> Option<usize> {
    let announced = strip_trailing_slash(announced.clone());
    let wanted = setup.tail();
    controls.into_iter().position(|control| {
        // Hosts are not compared: an encoder behind NAT may know us by another name than its URL says.
        if let Ok(absolute) = parse_url(control) {
            return absolute.tail() == wanted;
        }
        let control = control.trim_start_matches('/');
        if control.is_empty() || control == "*" {
            return strip_trailing_slash(setup.clone()).tail() == announced.tail();
        }
        let after_query = format!("{}/{control}", announced.tail());
        let after_path = PathAndQuery { path: format!("{}/{control}", announced.path), ..announced.clone() };
        wanted == after_query || wanted == after_path.tail()
    })
}

/// RFC 3986 §2.1. A `%` without two hexadecimal digits stays as it is.
pub(super) fn percent_decode(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.first_chunk::<2>().filter(|_| byte == b'%');
        let decoded = digits.and_then(|&[high, low]| {
            let digit = |byte| char::from(byte).to_digit(16);
            u8::try_from(digit(high)? << 4 | digit(low)?).ok()
        });
        bytes.push(decoded.unwrap_or(byte));
        rest = if decoded.is_some() { &after[2..] } else { after };
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> PathAndQuery {
        parse_url(text).unwrap()
    }

    #[test]
    fn urls_are_split_into_base_path_and_query() {
        for (text, base, path, query) in [
            ("rtsp://h:8554/cam", "rtsp://h:8554", "cam", ""),
            ("RTSPS://h/a/b?x=1&y=2", "RTSPS://h", "a/b", "x=1&y=2"),
            ("rtspu://[::1]:554/cam?", "rtspu://[::1]:554", "cam", ""),
            ("rtsp://user:p@ss@h/cam", "rtsp://h", "cam", ""),
            ("rtsp://admin:@h/cam", "rtsp://h", "cam", ""),
            ("rtsp://h", "rtsp://h", "", ""),
            ("rtsp://h?x", "rtsp://h", "", "x"),
            ("rtsp://h//cam", "rtsp://h", "/cam", ""),
        ] {
            let want = PathAndQuery { path: path.into(), query: query.into(), base: base.into() };
            assert_eq!(parse_url(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn urls_we_cannot_serve_are_refused() {
        for (text, want) in [
            ("*", UrlError::Scheme),
            ("", UrlError::Scheme),
            ("/cam", UrlError::Scheme),
            ("http://h/cam", UrlError::Scheme),
            ("rtsp:/h/cam", UrlError::Scheme),
            ("rtsp:///cam", UrlError::Host),
            ("rtsp://user:pass@/cam", UrlError::Host),
        ] {
            assert_eq!(parse_url(text), Err(want), "{text}");
        }
    }

    #[test]
    fn url_is_put_together_as_received() {
        for text in ["rtsp://h:8554/cam", "rtsp://h/cam/?x=1", "rtsp://h/"] {
            assert_eq!(url(text).to_string(), text);
        }
    }

    #[test]
    fn one_trailing_slash_is_stripped_from_query_or_path() {
        for (text, want) in [
            ("rtsp://h/cam/", "rtsp://h/cam"),
            ("rtsp://h/cam", "rtsp://h/cam"),
            ("rtsp://h/cam?x=1/", "rtsp://h/cam?x=1"),
            ("rtsp://h/cam/?x=1/", "rtsp://h/cam/?x=1"),
            ("rtsp://h/cam/?x=1", "rtsp://h/cam?x=1"),
            ("rtsp://h/cam//", "rtsp://h/cam/"),
        ] {
            assert_eq!(strip_trailing_slash(url(text)).to_string(), want, "{text}");
        }
    }

    #[test]
    fn track_is_found_after_query_or_path() {
        for (text, stream, index) in [
            ("rtsp://h/cam/trackID=1", "rtsp://h/cam", 1),
            ("rtsp://h/cam//trackID=1", "rtsp://h/cam", 1),
            ("rtsp://h/cam?x=1/trackID=2", "rtsp://h/cam?x=1", 2),
            ("rtsp://h/cam/trackID=2?x=1", "rtsp://h/cam?x=1", 2),
            ("rtsp://h/a/trackID=9/b/trackID=0", "rtsp://h/a/trackID=9/b", 0),
            ("rtsp://h/cam/", "rtsp://h/cam", 0),
            ("rtsp://h/cam?x=1/", "rtsp://h/cam?x=1", 0),
        ] {
            let (found, track) = split_track(&url(text)).unwrap();
            assert_eq!((found.to_string().as_str(), track), (stream, index), "{text}");
        }
        for text in
            ["rtsp://h/cam", "rtsp://h/cam/trackID=", "rtsp://h/cam/trackID=-1", "rtsp://h/cam/trackID=70000"]
        {
            assert_eq!(split_track(&url(text)), Err(UrlError::Track), "{text}");
        }
    }

    #[test]
    fn setup_for_record_is_matched_to_its_announced_control() {
        let controls = ["streamid=0", "streamid=1", "rtsp://other/pub/x?k", "odd?q=1"];
        for (announced, setup, want) in [
            ("rtsp://h/pub", "rtsp://h/pub/streamid=1", Some(1)),
            ("rtsp://h/pub/", "rtsp://h/pub/streamid=0", Some(0)),
            ("rtsp://h/pub?u=1", "rtsp://h/pub?u=1/streamid=1", Some(1)),
            ("rtsp://h/pub?u=1", "rtsp://h/pub/streamid=1?u=1", Some(1)),
            ("rtsp://h/pub?u=1", "rtsp://h/pub/streamid=1", None),
            ("rtsp://h/pub", "rtsp://h/pub/x?k", Some(2)),
            ("rtsp://h/pub", "rtsp://h/pub/odd?q=1", Some(3)),
            ("rtsp://h/pub", "rtsp://h/pub", None),
            ("rtsp://h/pub", "rtsp://h/other/streamid=0", None),
        ] {
            assert_eq!(match_control(&url(setup), &url(announced), controls), want, "{setup}");
        }
        assert_eq!(match_control(&url("rtsp://h/pub/"), &url("rtsp://h/pub"), [""]), Some(0));
    }

    #[test]
    fn names_are_percent_decoded_once() {
        for (path, want) in
            [("cam%2D1", "cam-1"), ("%2541", "%41"), ("a%", "a%"), ("a%zz%4", "a%zz%4"), ("cam", "cam")]
        {
            assert_eq!(url(&format!("rtsp://h/{path}")).name(), want);
        }
    }
}
