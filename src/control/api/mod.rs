//! The control API: MediaMTX's v3 (contract §2), and what we add to it.
//!
//! Answers are made from the configuration in effect and from the directory; no shard is asked. `openapi.yaml` beside
//! this file describes every route, and a test holds the two together.

mod batch;
mod body;
mod config;
mod events;
mod hls;
mod overview;
mod paging;
mod paths;
mod recordings;
mod rtsp;
#[cfg(test)]
pub(in crate::control) mod tests;
mod webrtc;

use std::sync::Arc;

use axum::{
    Router,
    extract::{FromRequestParts, Path},
    http::{HeaderValue, Method, StatusCode, Uri, header, request::Parts},
    response::{IntoResponse as _, Response},
    routing::{MethodRouter, delete, get, patch, post},
};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::Semaphore;
use uuid::Uuid;

use self::rtsp::Server;
use super::{
    config::store::View,
    http::{
        Site,
        answer::{Failure, page_not_found},
    },
    office::Office,
    settings::{Action, ControlSettings, HttpSettings},
};

/// What tools make clients from.
const OPENAPI: &str = include_str!("openapi.yaml");

/// What handlers share.
#[derive(Clone)]
struct Api {
    office: Arc<Office>,
    /// One permit for each listener of `GET /v3/events`.
    listeners: Arc<Semaphore>,
}

/// The service that [`router`] is for.
pub fn site(settings: HttpSettings, control: &ControlSettings) -> Site {
    Site {
        name: "API",
        action: Action::Api,
        cors_methods: "OPTIONS, GET, POST, PATCH, DELETE",
        cors_headers: "Authorization, Content-Type",
        settings,
        read_timeout: control.read_timeout,
        write_timeout: control.write_timeout,
    }
}

/// All routes. Whoever may come here may do everything.
pub fn router(office: Arc<Office>) -> Router {
    let mut router = Router::new();
    for (path, method_router) in routes() {
        // A name may be forgotten, but not the slash before it.
        if let Some(before) = path.strip_suffix("{*name}") {
            router = router.route(before, method_router.clone());
        }
        router = router.route(path, method_router);
    }
    let listeners = Arc::new(Semaphore::new(events::LISTENERS_MAX));
    router.fallback(fallback).method_not_allowed_fallback(nowhere).with_state(Api { office, listeners })
}

fn routes() -> Vec<(&'static str, MethodRouter<Api>)> {
    vec![
        ("/openapi.yaml", get(openapi)),
        ("/v3/info", get(overview::info)),
        ("/v3/summary", get(overview::summary)),
        ("/v3/events", get(events::events)),
        ("/v3/auth/jwks/refresh", post(overview::refresh_jwks)),
        ("/v3/config/get", get(config::global)),
        ("/v3/config/global/get", get(config::global)),
        ("/v3/config/global/patch", patch(config::patch_global)),
        ("/v3/config/pathdefaults/get", get(config::path_defaults)),
        ("/v3/config/pathdefaults/patch", patch(config::patch_path_defaults)),
        ("/v3/config/paths/list", get(config::list)),
        ("/v3/config/paths/batch", post(batch::batch)),
        ("/v3/config/paths/get/{*name}", get(config::get)),
        ("/v3/config/paths/add/{*name}", post(config::add)),
        ("/v3/config/paths/patch/{*name}", patch(config::patch)),
        ("/v3/config/paths/replace/{*name}", post(config::replace)),
        ("/v3/config/paths/delete/{*name}", delete(config::remove)),
        ("/v3/config/paths/remove/{*name}", post(config::remove)),
        ("/v3/paths/list", get(paths::list)),
        ("/v3/paths/get/{*name}", get(paths::get)),
        ("/v3/paths/forward/list", get(paths::forward_list)),
        ("/v3/paths/forward/get", get(paths::forward_get)),
        ("/v3/rtspconns/list", Server::Rtsp.conns()),
        ("/v3/rtspconns/get/{id}", Server::Rtsp.conn()),
        ("/v3/rtspsessions/list", Server::Rtsp.sessions()),
        ("/v3/rtspsessions/get/{id}", Server::Rtsp.session()),
        ("/v3/rtspsessions/kick/{id}", Server::Rtsp.kick()),
        ("/v3/rtspsconns/list", Server::Rtsps.conns()),
        ("/v3/rtspsconns/get/{id}", Server::Rtsps.conn()),
        ("/v3/rtspssessions/list", Server::Rtsps.sessions()),
        ("/v3/rtspssessions/get/{id}", Server::Rtsps.session()),
        ("/v3/rtspssessions/kick/{id}", Server::Rtsps.kick()),
        ("/v3/hlsmuxers/list", get(hls::muxers)),
        ("/v3/hlsmuxers/get/{*name}", get(hls::muxer)),
        ("/v3/hlssessions/list", get(hls::sessions)),
        ("/v3/hlssessions/get/{id}", get(hls::session)),
        ("/v3/hlssessions/kick/{id}", post(hls::kick)),
        ("/v3/webrtcsessions/list", get(webrtc::list)),
        ("/v3/webrtcsessions/get/{id}", get(webrtc::session)),
        ("/v3/webrtcsessions/kick/{id}", post(webrtc::session)),
        ("/v3/recordings/list", get(recordings::list)),
        ("/v3/recordings/get/{*name}", get(recordings::get)),
        ("/v3/recordings/deletesegment", delete(recordings::delete_segment)),
    ]
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/yaml"))], OPENAPI).into_response()
}

/// A slash too many is forgiven, and one too few before a name, as MediaMTX does.
async fn fallback(method: Method, uri: Uri) -> Response {
    let path = uri.path();
    let meant = match path.strip_suffix('/') {
        Some(path) => path.to_owned(),
        None => format!("{path}/"),
    };
    let is_meant = |known: &str| known.strip_suffix("{*name}").unwrap_or(known) == meant;
    if method != Method::GET || !routes().iter().any(|(known, _)| is_meant(known)) {
        return page_not_found();
    }
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    (StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, meant + &query)]).into_response()
}

async fn nowhere() -> Response {
    page_not_found()
}

/// The rest of a URL as the name of a path: may hold slashes, decoded once.
struct Name(String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(name)) if !name.is_empty() => Ok(Self(name)),
            _ => Err(Failure::bad_request("invalid name")),
        }
    }
}

/// The last part of a URL as the id of a session or connection.
struct Id(Uuid);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(text)) => parse_id(&text).map(Self),
            Err(_) => Err(Failure::bad_request("invalid UUID format")),
        }
    }
}

fn parse_id(text: &str) -> Result<Uuid, Failure> {
    Uuid::parse_str(text).map_err(|_| {
        Failure::bad_request(match text.len() {
            32 | 36 | 38 | 45 => "invalid UUID format".to_owned(),
            other => format!("invalid UUID length: {other}"),
        })
    })
}

/// RFC 3339 with nanoseconds, in UTC.
fn rfc3339(time: std::time::SystemTime) -> String {
    Timestamp::try_from(time).unwrap_or_default().to_string()
}

/// Whether a server that this version does not have is switched on: its lists then exist, and are empty, so that a
/// dashboard made for MediaMTX finds them.
fn is_on(view: &View, key: &str) -> bool {
    match view.global_json().get(key) {
        Some(Value::Bool(on)) => *on,
        Some(Value::String(text)) => text != "no",
        _ => false,
    }
}
