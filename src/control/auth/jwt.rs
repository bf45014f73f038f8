//! `authMethod: jwt`: the client brings a token that says what it may do (contract §1.3).

use std::{borrow::Cow, sync::Arc, time::Duration};

use jsonwebtoken::{Header, TokenData, Validation, decode, decode_header, errors::ErrorKind};
use percent_encoding::percent_decode_str;
use regex::RegexBuilder;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    Finding, Protocol, Question,
    keys::{KeySet, Keys},
    permissions,
    presented::Presented,
};

/// A longer token is not looked at, bytes.
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// Memory that a pattern of a token may take when it is compiled, bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// See the module.
pub(super) struct TokenCheck {
    keys: Keys,
}

/// What is expected of a token's claims.
pub(super) struct Claims<'r> {
    /// Name of the claim that holds the permissions.
    pub(super) permissions: &'r str,
    pub(super) issuer: Option<&'r str>,
    pub(super) audience: Option<&'r str>,
}

/// The token of a client: its bearer token, else its password, else what the query of the URL holds.
pub(super) fn token<'q>(
    question: &'q Question,
    presented: &'q Presented<'_>,
    in_http_query: bool,
) -> Option<Cow<'q, str>> {
    match presented {
        Presented::Token(token) => return Some((*token).into()),
        Presented::Password { password, .. } if !password.is_empty() => {
            return Some(password.as_ref().into());
        }
        _ => {}
    }
    if question.protocol != Protocol::Rtsp && !in_http_query {
        return None;
    }
    token_of_query(&question.query)
}

/// `?token=`, else the older `?jwt=`.
pub(super) fn token_of_query(query: &str) -> Option<Cow<'_, str>> {
    let of = |wanted: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let value = pairs.filter(|(name, _)| *name == wanted).map(|(_, value)| value).next()?;
        percent_decode_str(value).decode_utf8().ok().filter(|token| !token.is_empty())
    };
    of("token").or_else(|| of("jwt"))
}

impl TokenCheck {
    pub(super) fn new(jwks_url: &str, fingerprint: Option<[u8; 32]>, timeout: Duration) -> Self {
        Self { keys: Keys::new(jwks_url, fingerprint, timeout) }
    }

    /// # Errors
    /// A sentence for the operator.
    pub(super) async fn refresh(&self) -> Result<(), String> {
        self.keys.refresh().await
    }

    pub(super) async fn judge(&self, token: &str, expected: &Claims<'_>, question: &Question) -> Finding {
        if token.len() > TOKEN_BYTES_MAX {
            return Finding::Refused(format!("the token is longer than {TOKEN_BYTES_MAX} bytes"));
        }
        // Before a key set is fetched for it.
        let Ok(header) = decode_header(token) else {
            return Finding::Refused("the token is no JWT of a known algorithm".to_owned());
        };
        let mut keys = match self.keys.get().await {
            Ok(keys) => keys,
            Err(reason) => return Finding::Unknown(reason),
        };
        if !keys.has(header.kid.as_deref()) {
            keys = self.keys.search(Arc::clone(&keys)).await;
        }
        match verify(token, &header, &keys, expected) {
            Ok(claims) => match permitted(&claims, expected.permissions, question) {
                Ok(()) => {
                    let user = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
                    Finding::Allowed { user: user.to_owned() }
                }
                Err(reason) => Finding::Refused(reason),
            },
            Err(reason) => Finding::Refused(reason),
        }
    }
}

fn verify(
    token: &str,
    header: &Header,
    keys: &KeySet,
    expected: &Claims<'_>,
) -> Result<Map<String, Value>, String> {
    let validation = validation(header, expected);
    let mut reason = "no key of the key set is the token's".to_owned();
    for key in keys.candidates(header.kid.as_deref(), header.alg) {
        match decode::<Map<String, Value>>(token, &key.key, &validation) {
            Ok(TokenData { claims, .. }) => return Ok(claims),
            Err(error) => reason = refusal(error.kind()),
        }
    }
    Err(reason)
}

fn validation(header: &Header, expected: &Claims<'_>) -> Validation {
    let mut validation = Validation::new(header.alg);
    validation.leeway = 0;
    validation.validate_nbf = true;
    // As in MediaMTX: a token need not end, but one that says so does.
    validation.required_spec_claims.clear();
    if let Some(issuer) = expected.issuer {
        validation.set_issuer(&[issuer]);
        validation.required_spec_claims.insert("iss".to_owned());
    }
    validation.validate_aud = expected.audience.is_some();
    if let Some(audience) = expected.audience {
        validation.set_audience(&[audience]);
        validation.required_spec_claims.insert("aud".to_owned());
    }
    validation
}

fn refusal(error: &ErrorKind) -> String {
    match error {
        ErrorKind::ExpiredSignature => "the token has expired".to_owned(),
        ErrorKind::ImmatureSignature => "the token is not valid yet".to_owned(),
        ErrorKind::InvalidSignature => "the token's signature is wrong".to_owned(),
        ErrorKind::InvalidIssuer => "the token is of another issuer".to_owned(),
        ErrorKind::InvalidAudience => "the token is for another audience".to_owned(),
        ErrorKind::MissingRequiredClaim(claim) => format!("the token has no claim '{claim}'"),
        _ => "the token cannot be read".to_owned(),
    }
}

#[derive(Deserialize)]
struct Granted {
    action: String,
    #[serde(default)]
    path: String,
}

/// Whether the permissions in the claim, a list or a string that holds one, cover the question.
fn permitted(claims: &Map<String, Value>, claim: &str, question: &Question) -> Result<(), String> {
    let granted: Result<Vec<Granted>, _> = match claims.get(claim) {
        None => return Err(format!("the token has no claim '{claim}'")),
        Some(Value::String(text)) => serde_json::from_str(text),
        Some(list) => serde_json::from_value(list.clone()),
    };
    let Ok(granted) = granted else {
        return Err(format!(
            "the token's claim '{claim}' is no list of permissions, each with action and path"
        ));
    };
    let action = question.action.as_str();
    let covers = |granted: &Granted| granted.action == action && covers(&granted.path, question);
    if granted.iter().any(covers) {
        return Ok(());
    }
    Err(format!("the token's claim '{claim}' does not permit it"))
}

fn covers(path: &str, question: &Question) -> bool {
    if path.is_empty() || !permissions::is_about_paths(question.action) {
        return true;
    }
    match path.strip_prefix('~') {
        None => path == question.path,
        Some(pattern) => RegexBuilder::new(pattern)
            .size_limit(PATTERN_BYTES_MAX)
            .build()
            .is_ok_and(|pattern| pattern.is_match(&question.path)),
    }
}
