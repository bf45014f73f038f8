//! Configured user names and passwords (contract §1.2).

use argon2::password_hash::phc::PasswordHash;
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    error::{At, Report},
    expand::{self, Environment},
};
use crate::control::settings::Credential;

/// Characters beside letters and digits.
const SPECIAL: &str = "!$()*+.;<=>[]^_-{}@#&";
/// Most memory one check of an argon2 hash may take, KiB.
const ARGON2_KIB_MAX: u32 = 1 << 20;

/// Reads the value of `key`: expands variables, then checks the form. `None` when it is empty, or after an error.
pub(super) fn read(
    key: &str,
    text: &str,
    at: &At,
    env: &Environment,
    report: &mut Report,
) -> Option<Credential> {
    if text.is_empty() {
        return None;
    }
    let expanded = match env.expand(text, |_| false) {
        Ok(expanded) => expanded,
        Err(name) => {
            report.error(at, expand::missing(key, name));
            return None;
        }
    };
    match parse(&expanded) {
        Ok(credential) => Some(credential),
        Err(rule) => {
            report.error(at, format!("'{key}' {rule}"));
            None
        }
    }
}

/// The error is the rule that is broken, and does not repeat the text.
pub(super) fn parse(text: &str) -> Result<Credential, String> {
    if let Some(hash) = text.strip_prefix("sha256:") {
        let bytes = STANDARD.decode(hash).ok().and_then(|bytes| bytes.try_into().ok());
        let rule = "is no sha256 hash: expected 'sha256:' and the base64 of the 32 bytes of a SHA-256";
        return bytes.map(Credential::Sha256).ok_or_else(|| rule.to_owned());
    }
    if let Some(phc) = text.strip_prefix("argon2:") {
        return argon2(phc).map(|()| Credential::Argon2(phc.to_owned())).map_err(|why| {
            format!(
                "is no argon2 hash ({why}): expected such as 'argon2:$argon2id$v=19$m=4096,t=3,p=1$salt$hash'"
            )
        });
    }
    if is_plain(text) {
        return Ok(Credential::Plain(text.to_owned()));
    }
    Err(charset_rule())
}

pub(super) fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || SPECIAL.as_bytes().contains(&byte))
}

pub(super) fn charset_rule() -> String {
    format!("contains unsupported characters: supported are A-Z, a-z, 0-9 and {SPECIAL}")
}

fn argon2(phc: &str) -> Result<(), &'static str> {
    let hash = PasswordHash::new(phc).map_err(|_| "malformed")?;
    if !matches!(hash.algorithm.as_str(), "argon2id" | "argon2i") {
        return Err("neither argon2id nor argon2i");
    }
    if hash.version.is_some_and(|version| version != 19) {
        return Err("its version is not 19");
    }
    let params = argon2::Params::try_from(&hash).map_err(|_| "its parameters are out of range")?;
    if params.m_cost() > ARGON2_KIB_MAX {
        return Err("it would take more than 1 GiB to check");
    }
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err("salt or hash is missing");
    }
    Ok(())
}
