//! `authMethod: http`: another server decides (contract §1.3).
//!
//! As many are asked about at a time as there is room for; a server that hangs makes those wait who depend on it, for
//! as long as its limit says, and nobody else.

use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::{
    sync::Semaphore,
    time::{Instant as Deadline, timeout_at},
};
use uuid::Uuid;

use super::{
    Finding, Protocol, Question, complaints::Complaints, jwt::token_of_query, presented::Presented,
    remembered::Remembered, web,
};

/// Requests at a time.
const RUNNING_MAX: usize = 64;
/// Requests that run or wait for their turn.
const PLACES: usize = RUNNING_MAX + 1024;
/// Of the body of a refusal, bytes (contract §1.3).
const REASON_BYTES_MAX: usize = 128 << 10;

/// See the module.
pub(super) struct AuthServer {
    url: String,
    timeout: Duration,
    web: web::Web,
    places: Semaphore,
    running: Semaphore,
    /// Who was let in: who is asked about even when others of the same address have failed.
    right: Remembered,
    complaints: Complaints,
}

/// As MediaMTX writes it.
#[derive(Serialize)]
struct Body<'q> {
    ip: String,
    user: &'q str,
    password: &'q str,
    token: Cow<'q, str>,
    action: &'q str,
    path: &'q str,
    protocol: &'q str,
    id: Option<Uuid>,
    query: &'q str,
    #[serde(rename = "userAgent")]
    user_agent: &'q str,
}

impl<'q> Body<'q> {
    fn new(question: &'q Question, presented: &'q Presented<'_>) -> Self {
        let of_query = || match question.protocol {
            Protocol::Rtsp => token_of_query(&question.query).unwrap_or_default(),
            Protocol::Http | Protocol::Hls | Protocol::WebRtc => Cow::default(),
        };
        let (user, password, token): (&str, &str, Cow<'_, str>) = match presented {
            // A digest holds no password that another server could check.
            Presented::Nothing | Presented::Digest { .. } => ("", "", of_query()),
            Presented::Password { user, password } => (user, password, Cow::Borrowed(password)),
            Presented::Token(token) => ("", "", Cow::Borrowed(token)),
        };
        Self {
            ip: question.ip.to_canonical().to_string(),
            user,
            password,
            token,
            action: question.action.as_str(),
            path: &question.path,
            protocol: match question.protocol {
                Protocol::Rtsp => "rtsp",
                Protocol::Http => "",
                Protocol::Hls => "hls",
                Protocol::WebRtc => "webrtc",
            },
            id: question.id,
            query: &question.query,
            user_agent: &question.user_agent,
        }
    }
}

impl AuthServer {
    pub(super) fn new(url: &str, fingerprint: Option<[u8; 32]>, timeout: Duration) -> Self {
        Self {
            url: url.to_owned(),
            timeout,
            web: web::Web::new(url, fingerprint, timeout),
            places: Semaphore::new(PLACES),
            running: Semaphore::new(RUNNING_MAX),
            right: Remembered::default(),
            complaints: Complaints::default(),
        }
    }

    /// `limited` is asked before the server is.
    pub(super) async fn ask(
        &self,
        question: &Question,
        presented: &Presented<'_>,
        limited: &(impl Fn() -> bool + Sync),
    ) -> Finding {
        let body = Body::new(question, presented);
        let who = [body.user, body.password, &*body.token];
        // Who presents nothing is only told to: it is no attempt.
        let exempt = || presented.is_nothing() || self.right.knows(&who, Instant::now());
        if limited() && !exempt() {
            return Finding::Limited;
        }
        let Ok(_place) = self.places.try_acquire() else {
            let reason = "more clients wait for the authentication server than can be kept waiting";
            return self.unknown(reason.to_owned());
        };
        let turn = timeout_at(Deadline::now() + self.timeout, self.running.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return self.unknown("the authentication server is too slow for all who ask".to_owned());
        };
        if limited() && !exempt() {
            return Finding::Limited;
        }
        match self.request(&body).await {
            Ok(None) => {
                self.right.remember(&who, Instant::now());
                Finding::Allowed { user: body.user.to_owned() }
            }
            Ok(Some(refusal)) => Finding::Refused(refusal),
            Err(failure) => self.unknown(format!("the authentication server cannot be asked: {failure}")),
        }
    }

    /// `None` when the server lets the client in, else what it says.
    async fn request(&self, body: &Body<'_>) -> Result<Option<String>, String> {
        let request = self.web.client()?.post(&self.url).json(body);
        let response = request.send().await.map_err(web::reason)?;
        let status = response.status();
        if status.is_success() {
            return Ok(None);
        }
        // What it says beside the status is not worth failing for.
        let text = web::body(response, REASON_BYTES_MAX).await.unwrap_or_default();
        let text = one_line(&String::from_utf8_lossy(&text));
        let said = if text.is_empty() { String::new() } else { format!(": {text}") };
        Ok(Some(format!("the authentication server answered {}{said}", status.as_u16())))
    }

    fn unknown(&self, reason: String) -> Finding {
        self.complaints.say(&reason);
        Finding::Unknown(reason)
    }
}

/// A line of the log is one line.
fn one_line(text: &str) -> String {
    text.split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}
