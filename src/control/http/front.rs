//! What happens to every request before and after its router: origins, proxies, credentials, limits, the log.

use std::{fmt::Write as _, net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody as _},
    extract::DefaultBodyLimit,
    http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};
use tower::ServiceExt as _;
use tracing::{Level, debug, enabled, error, warn};

use super::{
    REQUEST_MAX, Site, Stopping,
    answer::{Failure, Logged, page_not_found, unauthorized},
    credentials,
};
use crate::{
    control::{
        auth::{Protocol, Question, Verdict},
        office::Office,
    },
    shard::web::{origins::Origins, proxies},
};

/// Largest body of a request, bytes (contract §2.1).
const BODY_BYTES_MAX: usize = 10 << 20;
/// What comes of a body that is too large is taken for at most this long.
const DISCARD_MAX: Duration = Duration::from_secs(2);
/// A body up to this many bytes is read without a ticket.
const SMALL_BODY_BYTES: u64 = 16 << 10;
/// Larger bodies that may be read at a time: with [`BODY_BYTES_MAX`], the memory that all clients together can take.
const LARGE_BODIES_MAX: usize = 8;
/// Header fields that no log may show.
const SECRET_HEADERS: &[&str] =
    &["authorization", "cookie", "proxy-authorization", "set-cookie", "x-api-key", "x-auth-token"];
/// Of a header field in the log, characters.
const LOGGED_VALUE_MAX: usize = 200;

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) ip: IpAddr,
    /// For the log.
    pub(super) name: String,
}

/// See the module.
pub(super) struct Front {
    pub(super) site: Site,
    pub(super) stopping: watch::Receiver<bool>,
    origins: Origins,
    router: Router,
    office: Arc<Office>,
    large_bodies: Semaphore,
}

impl Front {
    pub(super) fn new(
        site: Site,
        router: Router,
        office: Arc<Office>,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let origins = Origins::new(&site.settings.allow_origins);
        let large_bodies = Semaphore::new(LARGE_BODIES_MAX);
        // Bodies are measured here; axum's own limit is lower than the contract's.
        let router = router.layer(DefaultBodyLimit::disable());
        Self { site, stopping, origins, router, office, large_bodies }
    }

    /// Never fails: what goes wrong is an answer, too.
    pub(super) async fn answer(&self, peer: &Peer, request: Request<Body>) -> Response {
        let name = self.site.name;
        // Decided once: building the lines costs more than most requests.
        let shown = enabled!(Level::DEBUG);
        if shown {
            let (method, path) = (request.method(), request.uri().path());
            debug!("[{name}] [conn {}] [c->s] {method} {path}{}", peer.name, loggable(request.headers()));
        }
        let origin = self.origins.answer(request.headers().get(header::ORIGIN));
        let mut response = self.answer_without_origin(peer, request).await;
        if let Some(Logged(text)) = response.extensions_mut().remove() {
            error!("[{name}] {text}");
        }
        let headers = response.headers_mut();
        headers.insert(header::SERVER, HeaderValue::from_static("mediamtx"));
        // The router's word on other methods, which here are as unknown as other paths.
        headers.remove(header::ALLOW);
        if let Some(origin) = origin {
            if origin != "*" {
                headers.insert(header::VARY, HeaderValue::from_static("Origin"));
            }
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        }
        if shown {
            let status = response.status();
            debug!("[{name}] [conn {}] [s->c] {status}{}", peer.name, loggable(response.headers()));
        }
        response
    }

    async fn answer_without_origin(&self, peer: &Peer, request: Request<Body>) -> Response {
        let asks_first = request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if request.method() == Method::OPTIONS && asks_first {
            return self.preflight();
        }
        let (parts, body) = request.into_parts();
        if let Some(refusal) = self.refusal(peer, &parts).await {
            return refusal;
        }
        // Contract §2.1: HEAD is no method of any route, though it could be answered.
        if parts.method == Method::HEAD {
            return page_not_found();
        }
        self.office.settle().await;
        let body = match self.read(&parts.headers, body).await {
            Ok(body) => body,
            Err(failure) => return failure.into_response(),
        };
        let mut request = Request::from_parts(parts, Body::from(body));
        request.extensions_mut().insert(Stopping(self.stopping.clone()));
        match timeout(REQUEST_MAX, self.router.clone().oneshot(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(_) => Failure::busy(format!("not done within {} s", REQUEST_MAX.as_secs())).into_response(),
        }
    }

    fn preflight(&self) -> Response {
        let headers = [
            (header::ACCESS_CONTROL_ALLOW_METHODS, self.site.cors_methods),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, self.site.cors_headers),
        ];
        (StatusCode::NO_CONTENT, headers).into_response()
    }

    /// `None` when the client may do what this service is for.
    async fn refusal(&self, peer: &Peer, request: &Parts) -> Option<Response> {
        let headers = &request.headers;
        let user_agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        let question = Question {
            action: self.site.action,
            path: String::new(),
            entry: None,
            query: request.uri.query().unwrap_or_default().to_owned(),
            ip: proxies::client(peer.ip, headers, &self.site.settings.trusted_proxies),
            protocol: Protocol::Http,
            id: None,
            user_agent: user_agent.unwrap_or_default().to_owned(),
            credentials: credentials::presented(headers.get(header::AUTHORIZATION)),
        };
        let ip = question.ip;
        let verdict = match self.office.auth.at_once(&question) {
            Some(verdict) => verdict,
            None => self.office.auth.decide(question).await,
        };
        match verdict {
            Verdict::Allowed { .. } => None,
            Verdict::Challenge => Some(unauthorized(true)),
            Verdict::Denied { reason } => {
                // Through a proxy, the address to ban is not the peer's.
                let who = if ip == peer.ip { peer.name.clone() } else { ip.to_string() };
                warn!("[{}] [conn {who}] failed to authenticate: {reason}", self.site.name);
                Some(unauthorized(false))
            }
        }
    }

    /// The whole body, or why it is not taken.
    async fn read(&self, headers: &HeaderMap, mut body: Body) -> Result<Bytes, Failure> {
        if body.is_end_stream() {
            return Ok(Bytes::new());
        }
        let length = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
            .unwrap_or(u64::MAX);
        let limit: Duration = self.site.read_timeout;
        if length != u64::MAX && length > BODY_BYTES_MAX as u64 {
            discard(body).await;
            return Err(too_large());
        }
        let read = async {
            let _ticket = match length {
                0..=SMALL_BODY_BYTES => None,
                _ => self.large_bodies.acquire().await.ok(),
            };
            Limited::new(&mut body, BODY_BYTES_MAX).collect().await
        };
        match timeout(limit, read).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                discard(body).await;
                Err(too_large())
            }
            Ok(Err(_)) => Err(Failure::bad_request("the body of the request is broken off")),
            Err(_) => Err(Failure {
                status: StatusCode::REQUEST_TIMEOUT,
                text: format!("the body of the request did not arrive within {} s", limit.as_secs_f32()),
            }),
        }
    }
}

/// Takes what a client still sends, as much again as is allowed: one that is busy writing does not read why it should not.
async fn discard(mut body: Body) {
    let taken = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > BODY_BYTES_MAX {
                break;
            }
        }
    };
    // Out of time is as good as out of patience.
    let _ = timeout(DISCARD_MAX, taken).await;
}

fn too_large() -> Failure {
    Failure {
        status: StatusCode::PAYLOAD_TOO_LARGE,
        text: format!("the body of the request is larger than {} MiB", BODY_BYTES_MAX >> 20),
    }
}

/// Header fields for the log, a line each. The query of a URL is not logged: it may hold a token.
fn loggable(headers: &HeaderMap) -> String {
    let mut text = String::new();
    for (name, value) in headers {
        let value = match SECRET_HEADERS.contains(&name.as_str()) {
            true => "<redacted>".into(),
            false => String::from_utf8_lossy(value.as_bytes()),
        };
        let cut: String = value.chars().take(LOGGED_VALUE_MAX).collect();
        // Writing to a string cannot fail.
        let _ = write!(text, "\n{name}: {cut}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_logged() {
        let mut headers = HeaderMap::new();
        for name in SECRET_HEADERS {
            headers.insert(*name, "hunter2".parse().unwrap());
        }
        headers.insert(header::ACCEPT, "x".repeat(1000).parse().unwrap());
        let text = loggable(&headers);
        assert!(!text.contains("hunter2"), "{text}");
        assert_eq!(text.matches("<redacted>").count(), SECRET_HEADERS.len());
        assert!(text.contains("accept: xxx") && text.len() < 500);
    }
}
