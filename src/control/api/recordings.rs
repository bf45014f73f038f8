//! Recordings. Nothing is recorded by this version: the answers are those of a MediaMTX that has recorded nothing.

use axum::{
    extract::{FromRequestParts, State},
    http::request::Parts,
    response::Response,
};
use jiff::Timestamp;
use serde_json::json;

use super::{
    Api, Name,
    paging::{Paging, query, value},
};
use crate::control::http::answer::{Failure, json as answer};

pub(super) async fn list(paging: Paging) -> Response {
    paging.page(Vec::<()>::new(), |()| ()).await
}

pub(super) async fn get(State(api): State<Api>, Name(name): Name) -> Result<Response, Failure> {
    known(&api, &name)?;
    Ok(answer(&json!({"name": name, "segments": []})))
}

/// A segment as a query names it: of which path, and when it began.
pub(super) struct Segment {
    path: String,
    start: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let query = query(parts, state).await?;
        let start = value(&query, "start").unwrap_or_default();
        if start.parse::<Timestamp>().is_err() {
            let text = format!("invalid 'start' parameter: {start:?} is no time as RFC 3339 writes it");
            return Err(Failure::bad_request(text));
        }
        let path = value(&query, "path").unwrap_or_default().to_owned();
        Ok(Self { path, start: start.to_owned() })
    }
}

pub(super) async fn delete_segment(State(api): State<Api>, segment: Segment) -> Result<Response, Failure> {
    known(&api, &segment.path)?;
    let text = format!("there is no recording of path '{}' from {}", segment.path, segment.start);
    Err(Failure::bad_request(text))
}

fn known(api: &Api, name: &str) -> Result<(), Failure> {
    match api.office.view().serving(name) {
        Some(_) => Ok(()),
        None => Err(Failure::bad_request(format!("path '{name}' is not configured"))),
    }
}
