//! Answers to `WWW-Authenticate`: Basic (RFC 7617) and Digest (RFC 2617, RFC 7616), for any method.
//!
//! Cameras ask in every order and spelling: several challenges in one header field or in several, realms without
//! quotes, nonces that are good for one request. What is asked for is read leniently, and what is answered is the plain
//! form that all of them know.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use base64::Engine as _;

use super::super::{
    Headers,
    auth::{Algorithm, BASE64, Hash},
};
use super::Credentials;

/// Challenges of one answer that are looked at.
const CHALLENGES_MAX: usize = 16;
/// Parameters of one challenge that are looked at.
const PARAMETERS_MAX: usize = 32;

/// Why a 401 cannot be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum LoginError {
    #[error("the source asks for user and password, and its URL has none: write rtsp://user:password@host/…")]
    NoCredentials,
    #[error("wrong user or password: check those in the source's URL")]
    Refused,
    #[error("the source asks for neither Basic nor Digest authentication with MD5 or SHA-256")]
    UnknownScheme,
}

/// Who we are to a server, and how it wants to be told.
#[derive(Debug)]
pub(super) struct Login {
    credentials: Option<Credentials>,
    challenge: Option<Challenge>,
    /// Requests made with the nonce of the challenge.
    count: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Challenge {
    Basic,
    Digest(Digest),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Digest {
    realm: String,
    /// Texts as they came between the quotes: they are sent back like that, and those of nonce and opaque hold no
    /// escapes in practice.
    realm_raw: String,
    nonce: String,
    opaque: Option<String>,
    /// As it is to be repeated, if the server named it at all: the oldest know no such parameter.
    algorithm: Option<(Algorithm, String)>,
    qop: Option<Qop>,
    stale: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Qop {
    Auth,
    /// With the hash of the body; none of our requests has one.
    AuthInt,
}

impl Login {
    pub fn new(credentials: Option<Credentials>) -> Self {
        Self { credentials, challenge: None, count: 0 }
    }

    /// A request was answered 401 for the `refusals`th time, counted from 1; Ok when it is worth to ask again.
    ///
    /// # Errors
    /// When asking again is no use. It is no use when a nonce was refused that is not stale: cameras lock out who tries
    /// too often.
    pub fn on_unauthorized(&mut self, headers: &Headers, refusals: u8) -> Result<(), LoginError> {
        if self.credentials.is_none() {
            return Err(LoginError::NoCredentials);
        }
        let challenges = headers.get_all("WWW-Authenticate").flat_map(challenges).take(CHALLENGES_MAX);
        let Some(challenge) = challenges.max_by_key(Challenge::preference) else {
            // MediaMTX challenges whom it does not know, and refuses whom it does without another word.
            let knows_us = self.challenge.is_some();
            return Err(if knows_us { LoginError::Refused } else { LoginError::UnknownScheme });
        };
        let anew = match (&challenge, &self.challenge) {
            (_, None) => true,
            (Challenge::Digest(new), Some(Challenge::Digest(old))) => new.stale || new.nonce != old.nonce,
            (new, Some(old)) => new != old,
        };
        // The first refusal may only mean that we said nothing, or that a nonce has grown old.
        let stale = matches!(&challenge, Challenge::Digest(digest) if digest.stale);
        if !anew || refusals > if stale { 3 } else { 2 } {
            return Err(LoginError::Refused);
        }
        self.challenge = Some(challenge);
        self.count = 0;
        Ok(())
    }

    /// Value of `Authorization` for a request, once the server has asked for one.
    pub fn authorization(&mut self, method: &str, url: &str) -> Option<String> {
        let (credentials, challenge) = self.credentials.as_ref().zip(self.challenge.as_ref())?;
        match challenge {
            Challenge::Basic => {
                let plain = format!("{}:{}", credentials.user, credentials.password);
                Some(format!("Basic {}", BASE64.encode(plain)))
            }
            Challenge::Digest(digest) => {
                self.count = self.count.saturating_add(1);
                Some(digest.answer(credentials, method, url, self.count, &client_nonce()))
            }
        }
    }
}

/// A nonce of our own; what it hashes with is secret and new for every process.
fn client_nonce() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

impl Challenge {
    /// The largest is answered; of two equal ones it does not matter which.
    fn preference(&self) -> u8 {
        match self {
            Self::Basic => 0,
            Self::Digest(digest) => match digest.algorithm() {
                Algorithm { hash: Hash::Md5, session: true } => 1,
                Algorithm { hash: Hash::Md5, session: false } => 2,
                Algorithm { hash: Hash::Sha256, session: true } => 3,
                Algorithm { hash: Hash::Sha256, session: false } => 4,
            },
        }
    }

    /// `None` for a scheme or an algorithm we do not know.
    fn new(scheme: &str, parameters: &[Parameter<'_>]) -> Option<Self> {
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("digest") {
            return None;
        }
        let get =
            |name: &str| parameters.iter().find(|it| it.name.eq_ignore_ascii_case(name)).map(|it| it.raw);
        let algorithm = match get("algorithm").filter(|name| !name.is_empty()) {
            Some(name) => Some((Algorithm::parse(name).ok()?, name.to_owned())),
            None => None,
        };
        let qop = match get("qop").filter(|list| !list.trim().is_empty()) {
            None => None,
            Some(list) => {
                let has = |word: &str| list.split([',', ' ']).any(|it| it.trim().eq_ignore_ascii_case(word));
                match (has("auth"), has("auth-int")) {
                    (true, _) => Some(Qop::Auth),
                    (false, true) => Some(Qop::AuthInt),
                    (false, false) => return None,
                }
            }
        };
        let realm_raw = get("realm").unwrap_or_default();
        Some(Self::Digest(Digest {
            realm: unescape(realm_raw),
            realm_raw: realm_raw.to_owned(),
            nonce: get("nonce")?.to_owned(),
            opaque: get("opaque").map(str::to_owned),
            algorithm,
            qop,
            stale: get("stale").is_some_and(|value| value.eq_ignore_ascii_case("true")),
        }))
    }
}

impl Digest {
    fn algorithm(&self) -> Algorithm {
        self.algorithm.as_ref().map_or(Algorithm::DEFAULT, |(algorithm, _)| *algorithm)
    }

    /// RFC 7616 §3.4.
    fn answer(&self, who: &Credentials, method: &str, url: &str, count: u32, cnonce: &str) -> String {
        let algorithm = self.algorithm();
        let hash = |text: String| algorithm.hash.hex(&text);
        let nonce = &self.nonce;
        let mut secret = hash(format!("{}:{}:{}", who.user, self.realm, who.password));
        if algorithm.session {
            secret = hash(format!("{secret}:{nonce}:{cnonce}"));
        }
        let request = match self.qop {
            Some(Qop::AuthInt) => hash(format!("{method}:{url}:{}", hash(String::new()))),
            _ => hash(format!("{method}:{url}")),
        };
        let qop = self.qop.map(|qop| match qop {
            Qop::Auth => "auth",
            Qop::AuthInt => "auth-int",
        });
        let response = match qop {
            Some(qop) => hash(format!("{secret}:{nonce}:{count:08x}:{cnonce}:{qop}:{request}")),
            None => hash(format!("{secret}:{nonce}:{request}")),
        };
        let mut value = format!(
            "Digest username=\"{}\", realm=\"{}\", nonce=\"{nonce}\", uri=\"{url}\", response=\"{response}\"",
            escape(&who.user),
            self.realm_raw
        );
        if let Some(opaque) = &self.opaque {
            value += &format!(", opaque=\"{opaque}\"");
        }
        if let Some((_, name)) = &self.algorithm {
            value += &format!(", algorithm={name}");
        }
        if let Some(qop) = qop {
            value += &format!(", qop={qop}, nc={count:08x}");
        }
        if qop.is_some() || algorithm.session {
            value += &format!(", cnonce=\"{cnonce}\"");
        }
        value
    }
}

/// A parameter of a challenge; its value without the quotes around it, escapes as they are.
struct Parameter<'a> {
    name: &'a str,
    raw: &'a str,
}

/// The challenges of a header field that we can answer (RFC 7235 §4.1): a word that no `=` follows begins one.
fn challenges(field: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut scheme = "";
    let mut parameters = Vec::new();
    let mut rest = field;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let after = after.trim_start();
        if let Some(after) = after.strip_prefix('=') {
            let (raw, after) = parameter_value(after.trim_start());
            if parameters.len() < PARAMETERS_MAX {
                parameters.push(Parameter { name: word, raw });
            }
            rest = after;
            continue;
        }
        found.extend(Challenge::new(scheme, &parameters));
        if word.is_empty() || found.len() == CHALLENGES_MAX {
            return found;
        }
        (scheme, rest) = (word, after);
        parameters.clear();
    }
}

/// Up to the closing quote, or up to a comma when there is none in front; and what comes after it.
fn parameter_value(text: &str) -> (&str, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(',').unwrap_or(text.len());
        return (text[..end].trim_end(), &text[end..]);
    };
    let mut escaped = false;
    let end = quoted.find(|c| {
        let closes = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        closes
    });
    match end {
        Some(end) => (&quoted[..end], &quoted[end + 1..]),
        None => (quoted, ""),
    }
}

/// Only quotes and backslashes are taken for escaped: some realms hold `DOMAIN\user`.
fn unescape(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut chars = raw.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('\\', Some(&next @ ('"' | '\\'))) => {
                text.push(next);
                chars.next();
            }
            _ => text.push(c),
        }
    }
    text
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
#[path = "credentials_tests.rs"]
mod tests;
