//! Who may do what: the question that servers ask, and its answer.
//!
//! Most questions are answered where they are asked ([`Auth::at_once`]). What has to be waited for, a slow hash, another
//! server, the penalty of one who failed, waits in tasks, each kind within bounds of its own: whoever waits there holds
//! up nobody else.

mod complaints;
mod counters;
mod hashes;
mod http;
mod internal;
mod jwt;
mod keys;
mod penalties;
mod permissions;
mod presented;
mod remembered;
#[cfg(test)]
mod tests;
mod web;

use std::{net::IpAddr, sync::Arc};

use arc_swap::ArcSwap;
use uuid::Uuid;

pub use self::counters::AuthCounts;
use self::{
    counters::{Counted, Counters},
    hashes::Hashes,
    http::AuthServer,
    jwt::TokenCheck,
    penalties::Penalties,
    presented::Presented,
};
use super::settings::{Action, AuthMethod, AuthSettings};

/// What a client wants to do, and who it says it is.
#[derive(Debug, Clone)]
pub struct Question {
    pub action: Action,
    /// Empty for actions that are not about a path.
    pub path: String,
    /// Key of the entry of `paths:` that serves the path, if it is about one.
    pub entry: Option<Arc<str>>,
    /// Of the URL, without `?`.
    pub query: String,
    pub ip: IpAddr,
    pub protocol: Protocol,
    /// Of the session or connection.
    pub id: Option<Uuid>,
    pub user_agent: String,
    pub credentials: Credentials,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Rtsp,
    /// API, metrics.
    Http,
    Hls,
    WebRtc,
}

/// As presented by the client.
#[derive(Clone)]
pub enum Credentials {
    None,
    /// HTTP Basic, or `Bearer user:pass`.
    Basic {
        user: String,
        password: String,
    },
    Bearer(String),
    /// The fields of an RTSP request that credentials may be checked against.
    Rtsp {
        /// Value of `Authorization`, if there was one.
        authorization: Option<String>,
        method: String,
        url: String,
        /// The nonce of the challenge that the connection was given.
        nonce: String,
        realm: String,
    },
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Basic { .. } => "Basic(…)",
            Self::Bearer(_) => "Bearer(…)",
            Self::Rtsp { .. } => "Rtsp(…)",
        })
    }
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// `user` is empty when nobody had to say who they are.
    Allowed { user: String },
    /// Not without credentials, and none were given: ask for them.
    Challenge,
    /// Said to the log; the client is only told that it failed.
    Denied { reason: String },
}

/// The one who answers. Lives on the control plane; cheap to share.
pub struct Auth {
    rules: ArcSwap<Rules>,
    hashes: Hashes,
    penalties: Penalties,
    counters: Counters,
}

/// The rules that hold, and who else is asked about them.
struct Rules {
    settings: Arc<AuthSettings>,
    elsewhere: Elsewhere,
}

#[derive(Clone)]
enum Elsewhere {
    Nobody,
    Server(Arc<AuthServer>),
    Tokens(Arc<TokenCheck>),
}

/// What was found out about a client.
enum Finding {
    Allowed {
        user: String,
    },
    /// The credentials do not do; why, for the log.
    Refused(String),
    /// As before, but they were not even looked at: too many from there have failed.
    Limited,
    /// Nobody could tell, which is not the client's fault.
    Unknown(String),
}

impl Rules {
    /// What others have told so far stays, when the same ones are asked.
    fn new(settings: Arc<AuthSettings>, before: Option<&Self>) -> Self {
        let elsewhere = match before.filter(|before| *before.settings == *settings) {
            Some(before) => before.elsewhere.clone(),
            None => match &settings.method {
                AuthMethod::Internal { .. } => Elsewhere::Nobody,
                AuthMethod::Http { url, fingerprint, .. } => {
                    Elsewhere::Server(Arc::new(AuthServer::new(url, *fingerprint, settings.timeout)))
                }
                AuthMethod::Jwt { jwks_url, fingerprint, .. } => {
                    Elsewhere::Tokens(Arc::new(TokenCheck::new(jwks_url, *fingerprint, settings.timeout)))
                }
            },
        };
        Self { settings, elsewhere }
    }
}

impl Auth {
    pub fn new(settings: Arc<AuthSettings>) -> Self {
        Self {
            rules: ArcSwap::from_pointee(Rules::new(settings, None)),
            hashes: Hashes::default(),
            penalties: Penalties::default(),
            counters: Counters::default(),
        }
    }

    /// From now on other rules hold. Nobody is disconnected.
    pub fn reconfigure(&self, settings: Arc<AuthSettings>) {
        let rules = Rules::new(settings, Some(&self.rules.load()));
        self.rules.store(Arc::new(rules));
    }

    /// How many were let in, and how many not, since the start.
    pub fn counters(&self) -> AuthCounts {
        self.counters.read()
    }

    /// The answer, if it can be given at once: without a network, a slow hash or a penalty to wait for.
    pub fn at_once(&self, question: &Question) -> Option<Verdict> {
        let rules = self.rules.load();
        let presented = Presented::by(question);
        let verdict = match &rules.settings.method {
            AuthMethod::Internal { users } => {
                match internal::at_once(users, question, &presented, &self.hashes) {
                    Some(user) => Verdict::Allowed { user },
                    None if presented.is_nothing() => Verdict::Challenge,
                    None => return None,
                }
            }
            AuthMethod::Http { exclude, .. } | AuthMethod::Jwt { exclude, .. }
                if permissions::permit(exclude, question) =>
            {
                Verdict::Allowed { user: String::new() }
            }
            AuthMethod::Http { .. } => return None,
            AuthMethod::Jwt { in_http_query, .. } => match jwt::token(question, &presented, *in_http_query) {
                None if presented.is_nothing() => Verdict::Challenge,
                _ => return None,
            },
        };
        self.counters.count(match verdict {
            Verdict::Allowed { .. } => Counted::Allowed,
            _ => Counted::Challenged,
        });
        Some(verdict)
    }

    /// The answer; a client that failed waits for it.
    pub async fn decide(&self, question: Question) -> Verdict {
        if let Some(verdict) = self.at_once(&question) {
            return verdict;
        }
        let presented = Presented::by(&question);
        let rules = self.rules.load_full();
        let reason = match self.find_out(&rules, &question, &presented).await {
            Finding::Allowed { user } => {
                self.counters.count(Counted::Allowed);
                return Verdict::Allowed { user };
            }
            found if self.is_unasked(&rules, &question, &presented) => {
                if let Finding::Unknown(_) = found {
                    self.counters.count(Counted::Error);
                }
                self.counters.count(Counted::Challenged);
                return Verdict::Challenge;
            }
            Finding::Unknown(reason) => {
                self.counters.count(Counted::Error);
                reason
            }
            Finding::Limited => {
                self.counters.count(Counted::Limited);
                self.penalties.wait(question.ip).await;
                "too many attempts from this address have failed".to_owned()
            }
            Finding::Refused(reason) => {
                self.penalties.failed(question.ip);
                self.penalties.wait(question.ip).await;
                reason
            }
        };
        self.counters.count(Counted::Denied);
        // Word for word what fail2ban rules for MediaMTX look for.
        let detail = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        Verdict::Denied { reason: format!("authentication failed{detail}") }
    }

    async fn find_out(&self, rules: &Rules, question: &Question, presented: &Presented<'_>) -> Finding {
        let limited = || self.penalties.is_limited(question.ip);
        match (&rules.settings.method, &rules.elsewhere) {
            (AuthMethod::Internal { users }, _) => {
                internal::search(users, question, presented, &self.hashes, &limited).await
            }
            (AuthMethod::Http { .. }, Elsewhere::Server(server)) => {
                server.ask(question, presented, &limited).await
            }
            (AuthMethod::Jwt { claim, issuer, audience, in_http_query, .. }, Elsewhere::Tokens(check)) => {
                let rules = jwt::Claims {
                    permissions: claim,
                    issuer: issuer.as_deref(),
                    audience: audience.as_deref(),
                };
                match jwt::token(question, presented, *in_http_query) {
                    Some(token) => check.judge(&token, &rules, question).await,
                    None => Finding::Refused("there is no token".to_owned()),
                }
            }
            // `Rules::new` makes them fit.
            _ => Finding::Unknown("the rules are incomplete".to_owned()),
        }
    }

    /// Nothing was presented: the client may not know yet that it has to.
    fn is_unasked(&self, rules: &Rules, question: &Question, presented: &Presented<'_>) -> bool {
        let token = match &rules.settings.method {
            AuthMethod::Jwt { in_http_query, .. } => jwt::token(question, presented, *in_http_query),
            _ => None,
        };
        presented.is_nothing() && token.is_none()
    }

    /// Fetches the key set of `authMethod: jwt` anew. With other methods there is none, and nothing to do.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub async fn refresh_jwks(&self) -> Result<(), String> {
        let rules = self.rules.load_full();
        match &rules.elsewhere {
            Elsewhere::Tokens(check) => check.refresh().await,
            _ => Ok(()),
        }
    }
}
