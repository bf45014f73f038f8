//! What a client is answered.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

/// An answer. It may go from shard to shard, and its bytes are shared with whoever made them.
///
/// The connection adds what all answers have: `Server`, `Date`, `Content-Length`, and who may use it from a browser. One
/// that has `Accept-Ranges: bytes` is cut to the range that was asked for.
#[derive(Debug)]
pub struct WebAnswer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<Bytes>,
}

impl WebAnswer {
    pub fn new(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: Vec::new() }
    }

    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    pub fn body(mut self, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        self.body.push(body.into());
        self.header(header::CONTENT_TYPE, HeaderValue::from_static(content_type))
    }

    /// Contract §2.1: what is no route, or not with this method.
    pub fn page_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND).body("text/plain", "404 page not found")
    }

    /// Contract §2.1: `{"status":"error","error":"…"}`.
    pub fn failure(status: StatusCode, reason: &str) -> Self {
        let reason = serde_json::Value::from(reason);
        let body = format!("{{\"status\":\"error\",\"error\":{reason}}}");
        Self::new(status).body("application/json; charset=utf-8", body)
    }

    /// For later: the client may try again in a second.
    pub fn busy(reason: &str) -> Self {
        let answer = Self::failure(StatusCode::SERVICE_UNAVAILABLE, reason);
        answer.header(header::RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// Contract §2.1: asks for credentials only when none were given.
    pub fn unauthorized(ask: bool) -> Self {
        let answer = Self::failure(StatusCode::UNAUTHORIZED, "authentication error");
        match ask {
            true => {
                let challenge = HeaderValue::from_static("Basic realm=\"mediamtx\"");
                answer.header(header::WWW_AUTHENTICATE, challenge)
            }
            false => answer,
        }
    }
}
