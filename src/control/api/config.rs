//! The configuration: what is in effect, and changes to it (contract §2.2). A change is answered when it is in effect.

use std::sync::Arc;

use axum::{extract::State, response::Response};

use super::{Api, Name, body::Object, paging::Paging};
use crate::control::{
    config::store::{Edit, EditError},
    http::answer::{Failure, done, json},
};

pub(super) async fn global(State(api): State<Api>) -> Response {
    json(&api.office.view().global_json())
}

pub(super) async fn path_defaults(State(api): State<Api>) -> Response {
    json(&api.office.view().path_defaults_json())
}

pub(super) async fn list(State(api): State<Api>, paging: Paging) -> Response {
    let view = api.office.view();
    let keys: Vec<Arc<str>> = view.paths.keys().cloned().collect();
    paging.page(keys, move |key| view.path_json(&key)).await
}

pub(super) async fn get(State(api): State<Api>, Name(name): Name) -> Result<Response, Failure> {
    let found = api.office.view().path_json(&name);
    found.map(|path| json(&path)).ok_or_else(|| Failure::not_found("path configuration not found"))
}

pub(super) async fn patch_global(State(api): State<Api>, Object(body): Object) -> Result<Response, Failure> {
    api.change(&[Edit::PatchGlobal(body)]).await
}

pub(super) async fn patch_path_defaults(
    State(api): State<Api>,
    Object(body): Object,
) -> Result<Response, Failure> {
    api.change(&[Edit::PatchPathDefaults(body)]).await
}

pub(super) async fn add(
    State(api): State<Api>,
    Name(name): Name,
    Object(body): Object,
) -> Result<Response, Failure> {
    api.change(&[Edit::AddPath { name, body }]).await
}

pub(super) async fn patch(
    State(api): State<Api>,
    Name(name): Name,
    Object(body): Object,
) -> Result<Response, Failure> {
    api.change(&[Edit::PatchPath { name, body }]).await
}

pub(super) async fn replace(
    State(api): State<Api>,
    Name(name): Name,
    Object(body): Object,
) -> Result<Response, Failure> {
    api.change(&[Edit::ReplacePath { name, body }]).await
}

pub(super) async fn remove(State(api): State<Api>, Name(name): Name) -> Result<Response, Failure> {
    api.change(&[Edit::RemovePath { name }]).await
}

impl Api {
    /// All of `edits`, or none.
    pub(super) async fn change(&self, edits: &[Edit]) -> Result<Response, Failure> {
        self.office.edit(edits).await.map(|()| done()).map_err(|error| refused(&error))
    }
}

fn refused(error: &EditError) -> Failure {
    match error {
        EditError::PathNotFound => Failure::not_found(error.to_string()),
        EditError::PathExists | EditError::Invalid(_) => Failure::bad_request(error.to_string()),
    }
}
