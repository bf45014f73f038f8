//! Bodies of requests: JSON objects, whatever their content type says.

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
};
use serde_json::{Map, Value};

use crate::control::http::answer::Failure;

/// The object in a body.
pub(super) struct Object(pub(super) Map<String, Value>);

impl<S: Send + Sync> FromRequest<S> for Object {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| Failure { status: rejection.status(), text: rejection.body_text() })?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(Failure::bad_request("unexpected end of JSON input: send {} to change nothing"));
        }
        let value = serde_json::from_slice(&bytes)
            .map_err(|error| Failure::bad_request(format!("the body is no JSON: {error}")))?;
        match value {
            Value::Object(object) => Ok(Self(object)),
            // As MediaMTX takes it.
            Value::Null => Ok(Self(Map::new())),
            other => Err(Failure::bad_request(format!("the body is {}: expected an object", kind(&other)))),
        }
    }
}

/// What a value is, in a sentence.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
