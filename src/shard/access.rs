//! Who may do what, as far as a shard knows: what is open to all is let through, for the rest the control plane is
//! asked, and the request waits in its connection's inbox for the answer.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use corecast_hub::settings::{Access, Challenge};
use corecast_proto::rtsp::{Method, Request, Response, Status, server::stream_of, url::PathAndQuery};
use http::HeaderValue;
use tracing::warn;
use uuid::Uuid;

use super::{Asker, Mail, Shard, connection::Phase, ids, plain, slots::Key, web::WebService};

/// The realm of our challenges: MediaMTX's, so that players find the passwords they have stored.
pub const REALM: &str = "ipcam";

/// The control plane answers within its own time limits. When it does not, the client is refused after this long.
pub const VERDICT_WAIT_MAX: Duration = Duration::from_secs(30);

/// An answer holds for this long: for the requests that follow each other when a client begins.
const GRANT_MAX: Duration = Duration::from_secs(30);

/// What a client wants to do with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessTo {
    Publish,
    Read,
}

/// A shard asks whether a client may have something. No `Debug`: it holds credentials.
#[derive(Clone)]
pub struct AccessQuestion {
    pub to: AccessTo,
    pub path: String,
    /// Of the URL, without `?`.
    pub query: String,
    pub ip: IpAddr,
    /// Of the session that is to be, or of the connection for a mere DESCRIBE.
    pub id: Uuid,
    /// Empty for a mere DESCRIBE.
    pub user_agent: String,
    pub presented: Presented,
}

/// What a client presents, in the terms of its protocol.
#[derive(Clone)]
pub enum Presented {
    Rtsp {
        /// Value of `Authorization`, if there was one.
        authorization: Option<String>,
        method: String,
        url: String,
        /// Of the challenges that this connection gets; their realm is [`REALM`].
        nonce: String,
    },
    Web {
        service: WebService,
        authorization: Option<HeaderValue>,
    },
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessOutcome {
    /// `user` is empty when nobody had to say who they are.
    Allowed { user: String },
    /// Not without credentials, and there were none.
    Challenge,
    /// The reason is for the log.
    Denied { reason: String },
}

/// What a connection may do, and what is asked about it. It goes with the connection from shard to shard.
pub struct Standing {
    nonce: String,
    /// The id of its next session, once that was told in a question.
    session: Option<Uuid>,
    /// What was allowed last.
    grant: Option<Grant>,
    /// The answer to the request at the front of its inbox.
    outcome: Option<AccessOutcome>,
}

struct Grant {
    matter: Matter,
    user: String,
    at: Instant,
}

/// What is allowed to whom; later requests of the same need not ask again.
#[derive(Debug, PartialEq, Eq)]
struct Matter {
    to: AccessTo,
    /// For a session, and not for a mere DESCRIBE: asked about once more, so that an authentication server hears the
    /// id by which the session can be found (contract §4.3).
    for_session: bool,
    path: String,
    query: String,
    who: Who,
}

#[derive(Debug, PartialEq, Eq)]
enum Who {
    Nobody,
    /// The user of Digest credentials, which differ from request to request.
    Digest(String),
    /// Anything else, as sent.
    Header(String),
}

impl Who {
    fn of(authorization: Option<&str>) -> Self {
        let Some(value) = authorization else { return Self::Nobody };
        let is_digest = value.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("digest "));
        let user = is_digest.then(|| digest_user(&value[7..])).flatten();
        user.map_or_else(|| Self::Header(value.to_owned()), |user| Self::Digest(user.to_owned()))
    }
}

/// The `username` among the parameters of Digest credentials, quotes and all.
fn digest_user(parameters: &str) -> Option<&str> {
    let named =
        |part: &str| part.trim_start().get(..9).is_some_and(|name| name.eq_ignore_ascii_case("username="));
    parameters.split(',').find(|part| named(part)).map(str::trim)
}

/// What became of looking at a request.
pub enum Admission {
    Go,
    /// The control plane is asked.
    Wait,
    Challenge,
    Denied {
        reason: String,
    },
}

impl Default for Standing {
    fn default() -> Self {
        Self { nonce: ids::new_nonce(), session: None, grant: None, outcome: None }
    }
}

impl Standing {
    /// The id of the connection's next session.
    pub fn take_session_id(&mut self) -> Uuid {
        self.session.take().unwrap_or_else(ids::new_uuid)
    }

    /// Who was let in last; empty when nobody had to say who they are.
    pub fn user(&self) -> &str {
        self.grant.as_ref().map_or("", |grant| grant.user.as_str())
    }

    fn allows(&self, matter: &Matter, now: Instant) -> bool {
        let grant = self.grant.as_ref().filter(|grant| now.duration_since(grant.at) <= GRANT_MAX);
        grant.is_some_and(|grant| grant.matter == *matter)
    }
}

pub(super) fn is_open(access: &Access, to: AccessTo) -> bool {
    match to {
        AccessTo::Publish => access.publish_open,
        AccessTo::Read => access.read_open,
    }
}

fn matter_of(to: AccessTo, for_session: bool, stream: &PathAndQuery, authorization: Option<&str>) -> Matter {
    let (path, query) = (stream.name().into_owned(), stream.query.clone());
    Matter { to, for_session, path, query, who: Who::of(authorization) }
}

/// A 401 that asks for credentials, in the order of `challenges`, spelt as MediaMTX spells them.
pub fn challenge(challenges: &[Challenge], nonce: &str) -> Response {
    challenges.iter().fold(Response::new(Status::UNAUTHORIZED), |response, challenge| {
        let digest =
            |algorithm| format!("Digest realm=\"{REALM}\", nonce=\"{nonce}\", algorithm=\"{algorithm}\"");
        let value = match challenge {
            Challenge::Basic => format!("Basic realm=\"{REALM}\""),
            Challenge::DigestMd5 => digest("MD5"),
            Challenge::DigestSha256 => digest("SHA-256"),
        };
        response.header("WWW-Authenticate", value)
    })
}

impl Shard {
    /// Whether the request at the front of a connection's inbox may be worked on.
    pub(super) fn admit(&mut self, key: Key, request: &Request) -> Admission {
        // Whatever comes of it, the answer is for this request only.
        let outcome = self.connections.get_mut(key).and_then(|connection| connection.standing.outcome.take());
        let to = match request.method {
            Method::Describe => AccessTo::Read,
            Method::Setup if self.has_registered(key, request) => return Admission::Go,
            Method::Setup => AccessTo::Read,
            Method::Announce => AccessTo::Publish,
            _ => return Admission::Go,
        };
        if is_open(&self.settings.access, to) {
            return Admission::Go;
        }
        let Some(stream) = stream_of(request) else { return Admission::Go };
        let authorization = request.headers.get("Authorization");
        let matter = matter_of(to, request.method != Method::Describe, &stream, authorization);
        // A path that does not exist is refused for that, whoever asks.
        if self.settings.paths.lookup(&matter.path).is_err() {
            return Admission::Go;
        }
        let Some(connection) = self.connections.get_mut(key) else { return Admission::Wait };
        let standing = &mut connection.standing;
        match outcome {
            Some(AccessOutcome::Allowed { user }) => {
                standing.grant = Some(Grant { matter, user, at: self.now.instant });
                return Admission::Go;
            }
            Some(AccessOutcome::Challenge) => return Admission::Challenge,
            Some(AccessOutcome::Denied { reason }) => return Admission::Denied { reason },
            None if standing.allows(&matter, self.now.instant) => return Admission::Go,
            None => {}
        }
        let (id, user_agent) = match request.method {
            Method::Describe => (connection.id, String::new()),
            _ => {
                let user_agent = request.headers.get("User-Agent").unwrap_or_default().to_owned();
                (*standing.session.get_or_insert_with(ids::new_uuid), user_agent)
            }
        };
        let question = AccessQuestion {
            to,
            path: matter.path,
            query: matter.query,
            ip: plain(connection.peer).ip(),
            id,
            user_agent,
            presented: Presented::Rtsp {
                authorization: authorization.map(str::to_owned),
                method: request.method.as_str().to_owned(),
                url: request.url.clone(),
                nonce: standing.nonce.clone(),
            },
        };
        connection.phase = Phase::AwaitingVerdict { since: self.now.instant };
        let control = self.control();
        self.mesh.send(
            control,
            Mail::Authenticate { asker: Asker::Connection(key), question: Box::new(question) },
        );
        Admission::Wait
    }

    /// The session that a SETUP is about has been let in: it is a reader, or has announced itself.
    fn has_registered(&self, key: Key, request: &Request) -> bool {
        let named = request.headers.get("Session").map(corecast_proto::rtsp::headers::session_id);
        let session = match named {
            Some(id) => self.session_ids.get(id).copied(),
            None => self.connections.get(key).and_then(|connection| connection.session),
        };
        session.and_then(|session| self.sessions.get(session)).is_some_and(|entry| entry.path.is_some())
    }

    /// Whether a description may be given without asking: it is open, or was granted for this connection. Requests
    /// that come among a publisher's packets are not kept waiting, so that they are not asked for.
    pub(super) fn may_describe(&self, key: Key, stream: &PathAndQuery, request: &Request) -> bool {
        let matter = || matter_of(AccessTo::Read, false, stream, request.headers.get("Authorization"));
        self.settings.access.read_open
            || self
                .connections
                .get(key)
                .is_some_and(|connection| connection.standing.allows(&matter(), self.now.instant))
    }

    /// The challenges for a connection.
    pub(super) fn challenge(&self, key: Key) -> Response {
        let nonce = self.connections.get(key).map_or("", |connection| &connection.standing.nonce);
        challenge(&self.settings.access.challenges, nonce)
    }

    /// The control plane has answered.
    pub(super) fn on_verdict(&mut self, key: Key, outcome: AccessOutcome) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        // A late one finds the client refused already.
        if let Phase::AwaitingVerdict { .. } = connection.phase {
            connection.phase = Phase::Open;
            connection.standing.outcome = Some(outcome);
            self.progress(key);
        }
    }

    /// Refuses a client whose question stays unanswered.
    pub(super) fn check_verdict(&mut self, key: Key, since: Instant) {
        if self.now.instant.duration_since(since) > VERDICT_WAIT_MAX {
            let reason = format!("no answer within {} s", VERDICT_WAIT_MAX.as_secs());
            self.on_verdict(key, AccessOutcome::Denied { reason });
        }
    }

    /// Says so for intrusion detectors, and refuses.
    pub(super) fn refuse_denied(&mut self, key: Key, cseq: Option<&str>, reason: &str) {
        let reason = format!("failed to authenticate: {reason}");
        if let Some(connection) = self.connections.get(key) {
            warn!("[{}] [conn {}] {reason}", connection.server(), plain(connection.peer));
        }
        self.refuse(key, cseq, Status::UNAUTHORIZED, &reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_spelt_as_players_know_them() {
        let response = challenge(&[Challenge::Basic, Challenge::DigestMd5, Challenge::DigestSha256], "00ff");
        let values: Vec<_> = response.headers.get_all("WWW-Authenticate").collect();
        assert_eq!(
            values,
            [
                "Basic realm=\"ipcam\"",
                "Digest realm=\"ipcam\", nonce=\"00ff\", algorithm=\"MD5\"",
                "Digest realm=\"ipcam\", nonce=\"00ff\", algorithm=\"SHA-256\"",
            ]
        );
    }

    #[test]
    fn what_was_granted_holds_for_the_same_client_and_matter_only() {
        let digest = |user: &str, response: &str| {
            format!("Digest username=\"{user}\", realm=\"ipcam\", response=\"{response}\"")
        };
        let matter = |to, path: &str, query: &str, authorization: Option<&str>| {
            let stream = PathAndQuery {
                path: path.to_owned(),
                query: query.to_owned(),
                base: "rtsp://host".to_owned(),
            };
            matter_of(to, false, &stream, authorization)
        };
        let (describe, setup, other) = (digest("a", "1"), digest("a", "2"), digest("b", "2"));
        let (mut standing, now) = (Standing::default(), Instant::now());
        let granted = matter(AccessTo::Read, "cam", "x=1", Some(&describe));
        assert!(!standing.allows(&granted, now));
        standing.grant = Some(Grant { matter: granted, user: "a".to_owned(), at: now });
        let late = matter(AccessTo::Read, "cam", "x=1", Some(&setup));
        assert!(!standing.allows(&late, now + 2 * GRANT_MAX));
        for (allowed, asked) in [
            (true, matter(AccessTo::Read, "cam", "x=1", Some(&setup))),
            (false, matter(AccessTo::Read, "cam", "x=1", Some(&other))),
            (false, matter(AccessTo::Read, "cam", "x=1", None)),
            (false, matter(AccessTo::Read, "cam", "x=1", Some("Basic YTph"))),
            (false, matter(AccessTo::Read, "cam", "", Some(&setup))),
            (false, matter(AccessTo::Read, "cam2", "x=1", Some(&setup))),
            (false, matter(AccessTo::Publish, "cam", "x=1", Some(&setup))),
        ] {
            assert_eq!(standing.allows(&asked, now), allowed, "{asked:?}");
        }
        assert_eq!(standing.user(), "a");
    }

    #[test]
    fn odd_credentials_are_compared_as_they_are() {
        for value in ["", "é", "Digest", "Digest é", "digest nonce=\"x\"", "Bearer abc"] {
            assert_eq!(Who::of(Some(value)), Who::Header(value.to_owned()));
        }
        assert_eq!(Who::of(None), Who::Nobody);
    }
}
