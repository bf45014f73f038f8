//! The `Authorization` header: Basic (RFC 7617) and Digest (RFC 2617, RFC 7616), as clients present them to us.
//!
//! Nothing here knows users: [`Digest::verify`] answers whether a response was made from a given name and password.

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use md5::{Digest as _, Md5};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

/// Parameters of one header that are looked at; a digest has at most a dozen.
const PARAMETERS_MAX: usize = 32;

/// Some clients leave the padding out.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why credentials cannot be read. None of them repeats what the client sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorizationError {
    #[error("the scheme is neither Basic nor Digest")]
    Scheme,
    #[error("the Basic credentials are no base64 of user:password")]
    Basic,
    #[error("the parameters of the Digest credentials cannot be read")]
    Parameters,
    #[error("the Digest credentials lack username, realm, nonce, uri or response")]
    Missing,
    #[error("the Digest algorithm is none of MD5, MD5-sess, SHA-256 and SHA-256-sess")]
    Algorithm,
    #[error("the Digest quality of protection is not auth")]
    Qop,
}

/// The credentials of a request.
#[derive(Clone, PartialEq, Eq)]
pub enum Authorization {
    Basic { user: String, password: String },
    Digest(Digest),
}

/// A response to a challenge.
#[derive(Clone, PartialEq, Eq)]
pub struct Digest {
    pub username: String,
    /// `username` is the hash of user and realm (RFC 7616 §3.4.4).
    pub user_is_hashed: bool,
    pub realm: String,
    pub nonce: String,
    /// As sent: a URL, or the path of one.
    pub uri: String,
    pub algorithm: Algorithm,
    response: String,
    /// Of `qop=auth`: the count and the client's nonce.
    counted: Option<(String, String)>,
    cnonce: String,
}

/// What a digest is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Algorithm {
    pub hash: Hash,
    /// `-sess`: both nonces are part of the secret.
    pub session: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    Md5,
    Sha256,
}

/// It shows no secret.
impl std::fmt::Debug for Authorization {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Basic { .. } => "Basic(…)",
            Self::Digest(_) => "Digest(…)",
        })
    }
}

impl Authorization {
    /// Reads the value of an `Authorization` header.
    ///
    /// # Errors
    /// When it is of another scheme or broken.
    pub fn parse(value: &str) -> Result<Self, AuthorizationError> {
        let value = value.trim();
        let (scheme, rest) =
            value.split_once(|c: char| c.is_ascii_whitespace()).ok_or(AuthorizationError::Scheme)?;
        if scheme.eq_ignore_ascii_case("basic") {
            let (user, password) = basic(rest.trim()).ok_or(AuthorizationError::Basic)?;
            Ok(Self::Basic { user, password })
        } else if scheme.eq_ignore_ascii_case("digest") {
            Digest::parse(rest).map(Self::Digest)
        } else {
            Err(AuthorizationError::Scheme)
        }
    }
}

fn basic(text: &str) -> Option<(String, String)> {
    let decoded = String::from_utf8(BASE64.decode(text).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

impl Digest {
    fn parse(text: &str) -> Result<Self, AuthorizationError> {
        let parameters = parameters(text).ok_or(AuthorizationError::Parameters)?;
        let get =
            |name: &str| parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let need = |name: &str| get(name).map(str::to_owned).ok_or(AuthorizationError::Missing);
        let username = match get("username*") {
            Some(extended) => extended_value(extended).ok_or(AuthorizationError::Parameters)?,
            None => need("username")?,
        };
        let cnonce = get("cnonce").unwrap_or_default().to_owned();
        let counted = match get("qop") {
            None | Some("") => None,
            Some(qop) if qop.eq_ignore_ascii_case("auth") => Some((need("nc")?, need("cnonce")?)),
            Some(_) => return Err(AuthorizationError::Qop),
        };
        Ok(Self {
            username,
            user_is_hashed: get("userhash").is_some_and(|value| value.eq_ignore_ascii_case("true")),
            realm: need("realm")?,
            nonce: need("nonce")?,
            uri: need("uri")?,
            algorithm: get("algorithm").map_or(Ok(Algorithm::DEFAULT), Algorithm::parse)?,
            response: need("response")?,
            counted,
            cnonce,
        })
    }

    /// Whether `user` with `password` made this response for a request with `method`. The nonce, the realm and the URI
    /// are those that the client names: they are to be compared with what it was given, and with what it asks for.
    pub fn verify(&self, user: &str, password: &str, method: &str) -> bool {
        let hash = |text: &str| self.algorithm.hash.hex(text);
        let named = match self.user_is_hashed {
            true => self.username.to_ascii_lowercase() == hash(&format!("{user}:{}", self.realm)),
            false => self.username == user,
        };
        let mut secret = hash(&format!("{user}:{}:{password}", self.realm));
        if self.algorithm.session {
            secret = hash(&format!("{secret}:{}:{}", self.nonce, self.cnonce));
        }
        let request = hash(&format!("{method}:{}", self.uri));
        let expected = match &self.counted {
            Some((count, cnonce)) => {
                hash(&format!("{secret}:{}:{count}:{cnonce}:auth:{request}", self.nonce))
            }
            None => hash(&format!("{secret}:{}:{request}", self.nonce)),
        };
        let response = self.response.to_ascii_lowercase();
        named & bool::from(response.as_bytes().ct_eq(expected.as_bytes()))
    }

    /// Whether the URI is that of a request for `url`. Only paths are compared: clients write a URL or its path, with
    /// and without what follows `?`. For a SETUP some (live555) name the stream and not the track.
    pub fn is_about(&self, method: &str, url: &str) -> bool {
        let (uri, url) = (path(&self.uri), path(url));
        let is_part =
            |rest: &str| !uri.is_empty() && rest.starts_with('/') && method.eq_ignore_ascii_case("SETUP");
        url.strip_prefix(uri).is_some_and(|rest| rest.is_empty() || is_part(rest))
    }
}

/// The path of a URL or of a mere path; slashes at its end do not count.
fn path(url: &str) -> &str {
    let absolute = url.split_once("://").map(|(_, rest)| rest.find('/').map_or("", |at| &rest[at..]));
    let path = absolute.unwrap_or(url);
    path[..path.find('?').unwrap_or(path.len())].trim_end_matches('/')
}

impl Algorithm {
    pub(super) const DEFAULT: Self = Self { hash: Hash::Md5, session: false };

    pub(super) fn parse(name: &str) -> Result<Self, AuthorizationError> {
        let name = name.to_ascii_lowercase();
        let (base, session) = match name.strip_suffix("-sess") {
            Some(base) => (base, true),
            None => (name.as_str(), false),
        };
        let hash = match base {
            "md5" => Hash::Md5,
            "sha-256" => Hash::Sha256,
            _ => return Err(AuthorizationError::Algorithm),
        };
        Ok(Self { hash, session })
    }
}

impl Hash {
    pub(super) fn hex(self, text: &str) -> String {
        match self {
            Self::Md5 => hex(&Md5::digest(text)),
            Self::Sha256 => hex(&Sha256::digest(text)),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// `name=value` or `name="value"`, separated by commas; names in lower case. `None` when that is not so, or when a name
/// comes twice: it could be read in two ways.
fn parameters(text: &str) -> Option<Vec<(String, String)>> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut rest = text.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let name = name.trim().to_ascii_lowercase();
        let is_token = |c: char| c.is_ascii_graphic() && !"\",;()<>@:/[]?{}\\".contains(c);
        if name.is_empty() || !name.chars().all(is_token) || found.len() == PARAMETERS_MAX {
            return None;
        }
        if found.iter().any(|(known, _)| *known == name) {
            return None;
        }
        let after = after.trim_start();
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = after.find(',').unwrap_or(after.len());
                (after[..end].trim().to_owned(), &after[end..])
            }
        };
        found.push((name, value));
        let after = after.trim_start();
        if !after.is_empty() && !after.starts_with(',') {
            return None;
        }
        rest = after.trim_start_matches([' ', '\t', ',']);
    }
    Some(found)
}

/// What comes before the closing quote, and what after it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

/// `UTF-8''…`, percent-encoded (RFC 5987).
fn extended_value(text: &str) -> Option<String> {
    let (charset, rest) = text.split_once('\'')?;
    let (_language, rest) = rest.split_once('\'')?;
    if !charset.eq_ignore_ascii_case("utf-8") {
        return None;
    }
    let mut bytes = Vec::new();
    let mut left = rest.bytes();
    while let Some(byte) = left.next() {
        match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(left.next())?, digit(left.next())?);
                bytes.push(u8::try_from(high << 4 | low).ok()?);
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
#[path = "auth_tests.rs"]
mod tests;
