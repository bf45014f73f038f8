//! What a client presents, in one form for all protocols.

use std::borrow::Cow;

use corecast_proto::rtsp::auth::{Authorization, Digest};

use super::{Credentials, Question};

/// See the module.
pub(super) enum Presented<'q> {
    Nothing,
    Password {
        user: Cow<'q, str>,
        password: Cow<'q, str>,
    },
    Token(&'q str),
    /// A response to our challenge, for the request that it came with.
    Digest {
        digest: Box<Digest>,
        method: &'q str,
    },
}

impl<'q> Presented<'q> {
    /// What cannot be read is as good as nothing: the client is asked anew. So is the answer to another challenge than
    /// the one that the connection was given (RFC 7616 §3.3 calls it stale).
    pub(super) fn by(question: &'q Question) -> Self {
        match &question.credentials {
            Credentials::None => Self::Nothing,
            Credentials::Basic { user, password } => Self::password(user.into(), password.into()),
            Credentials::Bearer(token) if token.is_empty() => Self::Nothing,
            Credentials::Bearer(token) => Self::Token(token),
            Credentials::Rtsp { authorization, method, url, nonce, realm } => {
                match authorization.as_deref().map(Authorization::parse) {
                    Some(Ok(Authorization::Basic { user, password })) => {
                        Self::password(user.into(), password.into())
                    }
                    Some(Ok(Authorization::Digest(digest)))
                        if digest.nonce == *nonce
                            && digest.realm == *realm
                            && digest.is_about(method, url) =>
                    {
                        Self::Digest { digest: Box::new(digest), method }
                    }
                    None | Some(_) => Self::Nothing,
                }
            }
        }
    }

    fn password(user: Cow<'q, str>, password: Cow<'q, str>) -> Self {
        if user.is_empty() && password.is_empty() {
            return Self::Nothing;
        }
        Self::Password { user, password }
    }

    pub(super) fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }
}
