//! `auth*` keys to the rules that hold (contract §1.3).

use std::collections::BTreeSet;

use corecast_hub::settings::{Access, Challenge};
use regex::Regex;

use super::{
    credential,
    error::{At, Report},
    expand::{self, Environment},
    section::Layers,
    typed::{self, Record, Typed},
};
use crate::control::settings::{
    Action, AuthMethod, AuthSettings, Credential, PathScope, Permission, User, UserName,
};

/// The rules, but for the credentials that older files keep in their paths.
pub(super) fn auth(global: Layers<'_>, env: &Environment, report: &mut Report) -> AuthSettings {
    // Checked whatever the method: a mistake in what is switched off waits for the day it is switched on.
    let users = users(global, env, report);
    let http_exclude = permissions("authHTTPExclude", global.records("authHTTPExclude"), report);
    let jwt_exclude = permissions("authJWTExclude", global.records("authJWTExclude"), report);
    let http_fingerprint = fingerprint(global, "authHTTPFingerprint", report);
    let jwt_fingerprint = fingerprint(global, "authJWTJWKSFingerprint", report);
    let optional = |name: &str| Some(global.text(name).to_owned()).filter(|text| !text.is_empty());
    let method = match global.text("authMethod") {
        "http" => AuthMethod::Http {
            url: http_url(global, "authHTTPAddress", "http", env, report),
            fingerprint: http_fingerprint,
            exclude: http_exclude,
        },
        "jwt" => {
            let claim = global.text("authJWTClaimKey");
            if claim.is_empty() {
                let message =
                    "'authJWTClaimKey' is empty: expected the name of a claim, such as mediamtx_permissions";
                report.error(global.at("authJWTClaimKey"), message);
            }
            let in_query = global.written("authJWTInHTTPQuery").map(|setting| &setting.value);
            AuthMethod::Jwt {
                jwks_url: http_url(global, "authJWTJWKS", "jwt", env, report),
                fingerprint: jwt_fingerprint,
                claim: claim.to_owned(),
                exclude: jwt_exclude,
                issuer: optional("authJWTIssuer"),
                audience: optional("authJWTAudience"),
                in_http_query: in_query == Some(&Typed::Bool(true)),
            }
        }
        _ => AuthMethod::Internal { users },
    };
    let timeout = super::conf::duration(global, "readTimeout");
    AuthSettings { method, timeout }
}

fn users(global: Layers<'_>, env: &Environment, report: &mut Report) -> Vec<User> {
    let records = global.records("authInternalUsers");
    records.iter().map(|record| user(record, env, report)).collect()
}

fn user(record: &Record, env: &Environment, report: &mut Report) -> User {
    let name = record.text("user");
    let password = credential::read("pass", record.text("pass"), record.at("pass"), env, report);
    let name = match name {
        "any" => {
            if !record.text("pass").is_empty() {
                let message =
                    "'pass' is set for user any, which stands for everybody: expected no password, or a name";
                report.error(record.at("pass"), message);
            }
            UserName::Any
        }
        "" => {
            report.error(record.at("user"), "'user' is empty: expected a name, or any for everybody");
            UserName::Any
        }
        name => match credential::read("user", name, record.at("user"), env, report) {
            Some(name) => UserName::Is(name),
            // An error was reported: nobody gets in by it.
            None => UserName::Is(Credential::Plain(String::new())),
        },
    };
    let ips = record.texts("ips").filter_map(typed::parsed_network).collect();
    User {
        name,
        password,
        ips,
        permissions: permissions("permissions", record.records("permissions"), report),
    }
}

fn permissions(key: &str, records: &[Record], report: &mut Report) -> Vec<Permission> {
    records.iter().filter_map(|record| permission(key, record, report)).collect()
}

fn permission(key: &str, record: &Record, report: &mut Report) -> Option<Permission> {
    let action = match record.text("action") {
        "publish" => Action::Publish,
        "read" => Action::Read,
        "playback" => Action::Playback,
        "api" => Action::Api,
        "metrics" => Action::Metrics,
        "pprof" => Action::Pprof,
        _ => {
            let message = format!(
                "an element of '{key}' has no 'action': expected publish, read, playback, api, metrics or pprof"
            );
            report.error(&record.at, message);
            return None;
        }
    };
    let path = match record.text("path") {
        "" => PathScope::Any,
        path => match path.strip_prefix('~') {
            None => PathScope::Exact(path.to_owned()),
            Some(pattern) => match Regex::new(pattern) {
                Ok(pattern) => PathScope::Pattern(pattern),
                Err(error) => {
                    let reason = super::paths::regex_reason(&error);
                    let message = format!("'path' is '{path}', an invalid regular expression: {reason}");
                    report.error(record.at("path"), message);
                    return None;
                }
            },
        },
    };
    Some(Permission { action, path })
}

fn http_url(global: Layers<'_>, key: &str, method: &str, env: &Environment, report: &mut Report) -> String {
    let setting = global.get(key);
    let text = global.text(key);
    let expanded = match env.expand(text, |_| false) {
        Ok(expanded) => expanded,
        Err(name) => {
            report.error(&setting.at, expand::missing(key, name));
            return String::new();
        }
    };
    let host = expanded.strip_prefix("http://").or_else(|| expanded.strip_prefix("https://"));
    if host.is_none_or(|host| host.is_empty() || host.starts_with('/')) {
        let state = if text.is_empty() { "is empty" } else { "is no HTTP URL" };
        // The one who chose the method is to be shown, when the address was only left out.
        let at = if setting.at == At::Nowhere { global.at("authMethod") } else { &setting.at };
        report.error(
            at,
            format!("'{key}' {state}: with 'authMethod' {method} expected a URL that starts with http:// or https://"),
        );
    }
    expanded.into_owned()
}

/// `None` when it is empty, or after an error.
pub(super) fn fingerprint(layers: Layers<'_>, key: &str, report: &mut Report) -> Option<[u8; 32]> {
    let text = layers.text(key);
    if text.is_empty() {
        return None;
    }
    let bytes = parse_fingerprint(text);
    if bytes.is_none() {
        report.error(layers.at(key), fingerprint_rule(key, text));
    }
    bytes
}

pub(super) fn parse_fingerprint(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

pub(super) fn fingerprint_rule(key: &str, text: &str) -> String {
    format!("'{key}' is '{text}': expected the SHA-256 of a certificate, 64 hexadecimal digits")
}

/// What shards need to know of the rules.
///
/// With digest, clients that know one algorithm only (ffmpeg before 8, GStreamer, live555) take the last challenge of
/// that scheme; so MD5 ends the list, and RFC 7616 §3.7 wants the stronger one first.
pub(super) fn access(global: Layers<'_>, auth: &AuthSettings, report: &mut Report) -> Access {
    let mut challenges = Vec::new();
    let at = global.at("rtspAuthMethods");
    let methods: BTreeSet<_> = global.words("rtspAuthMethods").collect();
    if methods.contains("basic") {
        challenges.push(Challenge::Basic);
    }
    if methods.contains("digest") {
        challenges.extend([Challenge::DigestSha256, Challenge::DigestMd5]);
        check_digest(at, auth, report);
    }
    if challenges.is_empty() {
        report.error(at, "'rtspAuthMethods' is empty: expected basic, digest or both");
    }
    Access {
        publish_open: is_open(auth, Action::Publish),
        read_open: is_open(auth, Action::Read),
        challenges,
    }
}

fn check_digest(at: &At, auth: &AuthSettings, report: &mut Report) {
    let AuthMethod::Internal { users } = &auth.method else {
        report.error(
            at,
            "'rtspAuthMethods' has digest, which works only with 'authMethod' internal: expected basic",
        );
        return;
    };
    let is_hash = |credential: &Credential| !matches!(credential, Credential::Plain(_));
    let hashed = users.iter().any(|user| {
        user.password.as_ref().is_some_and(is_hash)
            || matches!(&user.name, UserName::Is(name) if is_hash(name))
    });
    if hashed {
        let message = "'rtspAuthMethods' has digest, which does not work with hashed credentials (sha256:, argon2:): \
                       expected basic, or plain credentials";
        report.error(at, message);
    }
}

/// Whether nobody is ever asked who they are, whatever the path.
fn is_open(auth: &AuthSettings, action: Action) -> bool {
    let everywhere = |permissions: &[Permission]| {
        permissions
            .iter()
            .any(|permission| permission.action == action && matches!(permission.path, PathScope::Any))
    };
    match &auth.method {
        AuthMethod::Internal { users } => users.iter().any(|user| {
            matches!(user.name, UserName::Any) && user.ips.is_empty() && everywhere(&user.permissions)
        }),
        AuthMethod::Http { exclude, .. } | AuthMethod::Jwt { exclude, .. } => everywhere(exclude),
    }
}
