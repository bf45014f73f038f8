//! The form of answers: types, caching, compression (contract §5.5).

use corecast_packagers::hls::{Body, Encoded};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::shard::web::{WebAnswer, pages::Page};

const PLAYLIST: &str = "application/vnd.apple.mpegurl";

/// How long an answer may be kept, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caching {
    /// By nobody: it is one viewer's.
    Private,
    /// By a content delivery network, seconds; zero: only after it has asked.
    Shared(u32),
}

impl Caching {
    /// A multivariant playlist or an initialisation section.
    pub fn seldom_changes(is_cdn: bool) -> Self {
        if is_cdn { Self::Shared(30) } else { Self::Private }
    }

    /// A media playlist.
    pub fn changes(is_cdn: bool) -> Self {
        if is_cdn { Self::Shared(0) } else { Self::Private }
    }

    /// A segment or a part.
    pub fn never_changes(is_cdn: bool) -> Self {
        if is_cdn { Self::Shared(3600) } else { Self::Private }
    }

    fn value(self) -> HeaderValue {
        match self {
            Self::Private => HeaderValue::from_static("private, no-cache"),
            Self::Shared(0) => HeaderValue::from_static("no-cache"),
            Self::Shared(30) => HeaderValue::from_static("max-age=30"),
            Self::Shared(_) => HeaderValue::from_static("max-age=3600"),
        }
    }
}

/// A playlist.
pub fn playlist(Encoded { body, gzip }: Encoded, caching: Caching) -> WebAnswer {
    let answer = WebAnswer::new(StatusCode::OK)
        .body(PLAYLIST, body)
        .header(header::CACHE_CONTROL, caching.value())
        .header(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    match gzip {
        true => answer.header(header::CONTENT_ENCODING, HeaderValue::from_static("gzip")),
        false => answer,
    }
}

/// An initialisation section, a segment or a part; parts of it can be asked for.
pub fn file(Body(pieces): Body, is_transport_stream: bool, caching: Caching) -> WebAnswer {
    let content_type = if is_transport_stream { "video/MP2T" } else { "video/mp4" };
    let mut answer = WebAnswer::new(StatusCode::OK)
        .header(header::CONTENT_TYPE, HeaderValue::from_static(content_type))
        .header(header::CACHE_CONTROL, caching.value())
        .header(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    answer.body = pieces;
    answer
}

/// The page with a player, or its library, in the form that the client takes; 304 when it has it already
/// (RFC 9110 §13.1.2).
pub fn page(page: Page, headers: &HeaderMap) -> WebAnswer {
    let gzip = takes_gzip(headers);
    let (body, etag) = if gzip { (page.gzip, page.etag_gzip) } else { (page.body, page.etag) };
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let is_known = known.is_some_and(|known| known.split(',').any(|tag| tag.trim() == etag));
    let answer = match is_known {
        true => WebAnswer::new(StatusCode::NOT_MODIFIED),
        false => WebAnswer::new(StatusCode::OK).body(page.content_type, body),
    };
    let answer = match HeaderValue::try_from(etag) {
        Ok(etag) => answer.header(header::ETAG, etag),
        Err(_) => answer,
    };
    let answer = answer
        .header(header::CACHE_CONTROL, HeaderValue::from_static(page.cache_control))
        .header(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    match gzip && !is_known {
        true => answer.header(header::CONTENT_ENCODING, HeaderValue::from_static("gzip")),
        false => answer,
    }
}

/// Whether a client takes gzip (RFC 9110 §12.5.3).
pub fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().strip_prefix("q=").and_then(|q| q.trim().parse::<f32>().ok());
        name.trim().eq_ignore_ascii_case("gzip") && weight.is_none_or(|weight| weight > 0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_goes_to_those_who_take_it() {
        let takes = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(value));
            takes_gzip(&headers)
        };
        assert!(takes("gzip"));
        assert!(takes("deflate, GZIP ; q=0.5, br"));
        assert!(!takes("gzip;q=0"));
        assert!(!takes("gzip;q=0.0, br"));
        assert!(!takes("br, identity"));
        assert!(!takes(""));
        assert!(!takes_gzip(&HeaderMap::new()));
    }

    #[test]
    fn only_what_a_cdn_gets_may_be_kept() {
        let of = |caching: Caching| caching.value().to_str().unwrap().to_owned();
        assert_eq!(of(Caching::changes(false)), "private, no-cache");
        assert_eq!(of(Caching::never_changes(false)), "private, no-cache");
        assert_eq!(of(Caching::changes(true)), "no-cache");
        assert_eq!(of(Caching::seldom_changes(true)), "max-age=30");
        assert_eq!(of(Caching::never_changes(true)), "max-age=3600");
    }
}
