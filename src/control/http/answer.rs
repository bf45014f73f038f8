//! Answers that all services give in the same form.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// A request that is not done, and why. Logged by the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub status: StatusCode,
    /// Said to the client and to the log.
    pub text: String,
}

/// On the answer of a [`Failure`], for the log.
#[derive(Debug, Clone)]
pub(super) struct Logged(pub(super) String);

#[derive(Serialize)]
struct ErrorBody<'a> {
    status: &'static str,
    error: &'a str,
}

impl Failure {
    pub fn bad_request(text: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, text: text.into() }
    }

    pub fn not_found(text: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, text: text.into() }
    }

    pub fn internal(text: impl Into<String>) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, text: text.into() }
    }

    /// For later: the client may try again.
    pub fn busy(text: impl Into<String>) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, text: text.into() }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = error_body(self.status, &self.text);
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response.extensions_mut().insert(Logged(self.text));
        response
    }
}

/// `{"status":"ok"}`
pub fn done() -> Response {
    rendered(br#"{"status":"ok"}"#.to_vec())
}

pub fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => rendered(body),
        Err(error) => Failure::internal(format!("the answer cannot be written: {error}")).into_response(),
    }
}

/// JSON that is written already.
pub fn rendered(body: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, JSON)], Body::from(body)).into_response()
}

/// Contract §2.1: what is no route, or not with this method.
pub fn page_not_found() -> Response {
    let text = [(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"))];
    (StatusCode::NOT_FOUND, text, "404 page not found").into_response()
}

/// Contract §2.1: asks for credentials only when none were given.
pub(super) fn unauthorized(ask: bool) -> Response {
    let mut response = error_body(StatusCode::UNAUTHORIZED, "authentication error");
    if ask {
        let challenge = HeaderValue::from_static(r#"Basic realm="mediamtx""#);
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

fn error_body(status: StatusCode, text: &str) -> Response {
    let mut response = json(&ErrorBody { status: "error", error: text });
    *response.status_mut() = status;
    response
}
