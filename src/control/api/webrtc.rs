//! WebRTC sessions. This version has none, so the list is empty; it exists when `webrtc` is on, since a dashboard that
//! polls it must not break.

use axum::{
    extract::State,
    response::{IntoResponse as _, Response},
};

use super::{Api, Id, is_on, paging::Paging};
use crate::control::http::answer::{Failure, page_not_found};

pub(super) async fn list(State(api): State<Api>, paging: Paging) -> Response {
    match is_on(&api.office.view(), "webrtc") {
        true => paging.page(Vec::<()>::new(), |()| ()).await,
        false => page_not_found(),
    }
}

pub(super) async fn session(State(api): State<Api>, Id(_): Id) -> Response {
    match is_on(&api.office.view(), "webrtc") {
        true => Failure::not_found("session not found").into_response(),
        false => page_not_found(),
    }
}
