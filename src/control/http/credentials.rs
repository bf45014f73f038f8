//! What a client says it is, in the `Authorization` header (contract §1.3).

use axum::http::HeaderValue;
use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::control::auth::Credentials;

/// What cannot be read counts as nothing, so that the client is asked.
pub fn presented(authorization: Option<&HeaderValue>) -> Credentials {
    let value = authorization.and_then(|value| value.to_str().ok());
    let Some((scheme, rest)) = value.and_then(|value| value.split_once(' ')) else {
        return Credentials::None;
    };
    let rest = rest.trim();
    let pair = |text: &str| {
        text.split_once(':').map(|(user, password)| Credentials::Basic {
            user: user.to_owned(),
            password: password.to_owned(),
        })
    };
    if scheme.eq_ignore_ascii_case("basic") {
        let decoded = BASE64_STANDARD.decode(rest).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        return decoded.and_then(|text| pair(&text)).unwrap_or(Credentials::None);
    }
    if scheme.eq_ignore_ascii_case("bearer") && !rest.is_empty() {
        return match rest.matches(':').count() {
            1 => pair(rest).unwrap_or(Credentials::None),
            _ => Credentials::Bearer(rest.to_owned()),
        };
    }
    Credentials::None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str) -> String {
        match presented(Some(&value.parse().unwrap())) {
            Credentials::None => "none".to_owned(),
            Credentials::Basic { user, password } => format!("{user} {password}"),
            Credentials::Bearer(token) => format!("token {token}"),
            Credentials::Rtsp { .. } => panic!("not over HTTP"),
        }
    }

    #[test]
    fn each_form_is_read_and_nonsense_is_nothing() {
        assert_eq!(of("Basic YWRtOnNlOmNyZXQ="), "adm se:cret");
        assert_eq!(of("basic YWRtOg=="), "adm ");
        assert_eq!(of("Bearer adm:secret"), "adm secret");
        assert_eq!(of("Bearer a:b:c"), "token a:b:c");
        assert_eq!(of("BEARER eyJh.b.c"), "token eyJh.b.c");
        for nothing in ["Basic", "Basic !!", "Basic YWRt", "Bearer ", "Digest a=b", ""] {
            assert_eq!(of(nothing), "none", "{nothing}");
        }
        assert_eq!(format!("{:?}", presented(None)), "None");
    }
}
