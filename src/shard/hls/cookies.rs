//! `hlsSessionMode: cookie`: MediaMTX's way to know a viewer again (contract §5.2). A client is sent to fetch a cookie
//! first; if it does not show it, a secret goes into the query of all URLs, and so does what else is in that.

use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::shard::web::{WebAnswer, WebRequest};

const CHECK: &str = "cookieCheck";
const COOKIE: &str = "hlsSession";
const PARAMETER: &str = "session";

/// Whether the client was sent to fetch the cookie and has come back.
pub fn was_checked(query: &str) -> bool {
    parameter(query, CHECK) == Some("1")
}

/// Whether it keeps cookies.
pub fn keeps_cookies(headers: &HeaderMap) -> bool {
    cookie(headers, CHECK) == Some("1")
}

/// Sends a client to fetch the cookie.
pub fn check(request: &WebRequest) -> WebAnswer {
    let path = request.uri.path();
    let query = with(&without(request.query(), |name| name == CHECK), CHECK, "1");
    match HeaderValue::try_from(format!("{path}?{query}")) {
        Ok(location) => WebAnswer::new(StatusCode::FOUND)
            .header(header::LOCATION, location)
            .header(header::SET_COOKIE, value(CHECK, "1")),
        Err(_) => WebAnswer::page_not_found(),
    }
}

/// The secret of its session that a client shows: in its cookie, or else in its query.
pub fn secret<'request>(headers: &'request HeaderMap, query: &'request str) -> Option<&'request str> {
    cookie(headers, COOKIE).or_else(|| parameter(query, PARAMETER))
}

/// `Set-Cookie` with a session's secret.
pub fn give(secret: &str) -> HeaderValue {
    value(COOKIE, secret)
}

/// What is put after each URI of a playlist: the parameters of the request for it, with the secret if that is given, and
/// a question mark. Empty when there are none.
pub fn suffix(query: &str, secret: Option<&str>) -> String {
    let query = without(query, |name| name == CHECK || name.starts_with("_HLS_"));
    let query = match secret {
        Some(secret) => with(&without(&query, |name| name == PARAMETER), PARAMETER, secret),
        None => query,
    };
    if query.is_empty() { query } else { format!("?{query}") }
}

/// A query without the parameters of which `drop` is true, in its order, and with nothing in it that would end a quoted
/// string or a line.
pub fn without(query: &str, drop: impl Fn(&str) -> bool) -> String {
    let mut kept = String::with_capacity(query.len());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        if drop(pair.split('=').next().unwrap_or_default()) {
            continue;
        }
        if !kept.is_empty() {
            kept.push('&');
        }
        for byte in pair.bytes() {
            match byte {
                b'!' | b'#'..=b'~' if !matches!(byte, b'<' | b'>' | b'#' | b'\\' | b'^' | b'`') => {
                    kept.push(char::from(byte));
                }
                _ => kept.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    kept
}

fn with(query: &str, name: &str, value: &str) -> String {
    let separator = if query.is_empty() { "" } else { "&" };
    format!("{query}{separator}{name}={value}")
}

fn parameter<'query>(query: &'query str, name: &str) -> Option<&'query str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

fn cookie<'headers>(headers: &'headers HeaderMap, name: &str) -> Option<&'headers str> {
    let values = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = values.flat_map(|value| value.split(';'));
    pairs.find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

fn value(name: &str, value: &str) -> HeaderValue {
    let text = format!("{name}={value}; HttpOnly; Secure; SameSite=None; Partitioned");
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookies(value: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, HeaderValue::from_static(value));
        headers
    }

    #[test]
    fn what_a_client_shows_is_found_among_the_rest() {
        assert!(was_checked("a=1&cookieCheck=1"));
        assert!(!was_checked("xcookieCheck=1"));
        assert!(!was_checked("cookieCheck="));
        assert!(keeps_cookies(&cookies("a=b; cookieCheck=1")));
        assert!(!keeps_cookies(&cookies("a=b; cookieCheck=0")));
        assert_eq!(secret(&cookies("x=1;hlsSession=00ff"), "session=11"), Some("00ff"));
        assert_eq!(secret(&HeaderMap::new(), "a=1&session=11"), Some("11"));
        assert_eq!(secret(&HeaderMap::new(), "a=1&xsession=11"), None);
    }

    #[test]
    fn parameters_are_handed_on_without_those_of_hls() {
        let query = "a=1&_HLS_msn=7&_HLS_part=1&b=%20&cookieCheck=1&_HLS_skip=YES";
        assert_eq!(suffix(query, None), "?a=1&b=%20");
        assert_eq!(suffix(query, Some("00ff")), "?a=1&b=%20&session=00ff");
        assert_eq!(suffix("session=1&a", Some("00ff")), "?a&session=00ff");
        assert_eq!(suffix("_HLS_msn=7", None), "");
        assert_eq!(suffix("", Some("00ff")), "?session=00ff");
    }

    #[test]
    fn a_query_cannot_break_out_of_a_playlist() {
        assert_eq!(suffix("a=\"\n#EXT-X-ENDLIST", None), "?a=%22%0A%23EXT-X-ENDLIST");
        assert_eq!(suffix("ä=<&&x", None), "?%C3%A4=%3C&x");
    }

    #[test]
    fn cookies_are_of_mediamtx_s_form() {
        assert_eq!(give("00ff"), "hlsSession=00ff; HttpOnly; Secure; SameSite=None; Partitioned");
    }
}
