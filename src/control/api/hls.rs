//! HLS muxers and viewers. This version has none, so the lists are empty; they exist when `hls` is on, since a dashboard
//! that polls them must not break.

use axum::{
    extract::State,
    response::{IntoResponse as _, Response},
};

use super::{Api, Id, Name, is_on, paging::Paging};
use crate::control::http::answer::{Failure, page_not_found};

pub(super) async fn list(State(api): State<Api>, paging: Paging) -> Response {
    match is_on(&api.office.view(), "hls") {
        true => paging.page(Vec::<()>::new(), |()| ()).await,
        false => page_not_found(),
    }
}

pub(super) async fn muxer(State(api): State<Api>, Name(_): Name) -> Response {
    match is_on(&api.office.view(), "hls") {
        true => Failure::not_found("muxer not found").into_response(),
        false => page_not_found(),
    }
}

pub(super) async fn session(State(api): State<Api>, Id(_): Id) -> Response {
    match is_on(&api.office.view(), "hls") {
        true => Failure::not_found("session not found").into_response(),
        false => page_not_found(),
    }
}
