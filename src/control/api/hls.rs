//! HLS muxers and viewers (contract §2.4). What is about them does not exist when `hls` is off.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    extract::State,
    response::{IntoResponse as _, Response},
};
use serde::Serialize;
use uuid::Uuid;

use super::{Api, Id, Name, paging::Paging, rfc3339};
use crate::control::{
    directory::{HlsMuxer, HlsSession},
    http::answer::{Failure, done, json, page_not_found},
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MuxerItem {
    path: Arc<str>,
    created: String,
    last_request: String,
    outbound_bytes: u64,
    outbound_frames_discarded: u64,
    /// The same as `outbound_bytes`, as older clients know it.
    bytes_sent: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SessionItem {
    id: Uuid,
    created: String,
    remote_addr: String,
    path: Arc<str>,
    query: String,
    user: String,
    user_agent: String,
    #[serde(rename = "isCDN")]
    is_cdn: bool,
    outbound_bytes: u64,
}

impl From<&HlsMuxer> for MuxerItem {
    fn from(muxer: &HlsMuxer) -> Self {
        let outbound_bytes = muxer.traffic.outbound_bytes.get();
        let asked = Duration::from_millis(muxer.traffic.last_request_unix_ms.get());
        // One that nobody has asked for is as if it had been when it was made, as with MediaMTX.
        let last_request = SystemTime::UNIX_EPOCH.checked_add(asked).unwrap_or(muxer.created);
        Self {
            path: Arc::clone(&muxer.path),
            created: rfc3339(muxer.created),
            last_request: rfc3339(last_request.max(muxer.created)),
            outbound_bytes,
            outbound_frames_discarded: muxer.traffic.outbound_frames_discarded.get(),
            bytes_sent: outbound_bytes,
        }
    }
}

impl From<&HlsSession> for SessionItem {
    fn from(session: &HlsSession) -> Self {
        Self {
            id: session.id,
            created: rfc3339(session.created),
            remote_addr: session.remote.to_string(),
            path: Arc::clone(&session.path),
            query: session.query.clone(),
            user: session.user.clone(),
            user_agent: session.user_agent.clone(),
            is_cdn: session.is_cdn,
            outbound_bytes: session.traffic.outbound_bytes.get(),
        }
    }
}

fn is_on(api: &Api) -> bool {
    api.office.view().settings.hls.is_some()
}

pub(super) async fn muxers(State(api): State<Api>, paging: Paging) -> Response {
    if !is_on(&api) {
        return page_not_found();
    }
    paging.page(api.office.directory.hls_muxers(), |muxer| MuxerItem::from(&*muxer)).await
}

pub(super) async fn muxer(State(api): State<Api>, Name(name): Name) -> Response {
    if !is_on(&api) {
        return page_not_found();
    }
    match api.office.directory.hls_muxer(&name) {
        Some(muxer) => json(&MuxerItem::from(&*muxer)),
        None => Failure::not_found("muxer not found").into_response(),
    }
}

pub(super) async fn sessions(State(api): State<Api>, paging: Paging) -> Response {
    if !is_on(&api) {
        return page_not_found();
    }
    paging.page(api.office.directory.hls_sessions(), |session| SessionItem::from(&*session)).await
}

pub(super) async fn session(State(api): State<Api>, Id(id): Id) -> Response {
    if !is_on(&api) {
        return page_not_found();
    }
    match api.office.directory.hls_session(id) {
        Some(session) => json(&SessionItem::from(&*session)),
        None => Failure::not_found("session not found").into_response(),
    }
}

pub(super) async fn kick(State(api): State<Api>, Id(id): Id) -> Response {
    if !is_on(&api) {
        return page_not_found();
    }
    match api.office.directory.hls_session(id).is_some() && api.office.kick(id).await {
        true => done(),
        false => Failure::not_found("session not found").into_response(),
    }
}
