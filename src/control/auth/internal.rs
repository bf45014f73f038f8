//! `authMethod: internal`: the users of the configuration (contract §1.3).
//!
//! Of all users, the first counts for whom everything holds: address, permission, credentials. A user whose name fits
//! and whose password does not ends no search.

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{
    Finding, Question,
    hashes::{Hashes, Unchecked},
    permissions,
    presented::Presented,
};
use crate::control::settings::{Credential, User, UserName};

/// Whether credentials are those of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    No,
    Yes,
    /// Only a slow hash tells.
    Slow,
}

impl Fit {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            _ => Self::Slow,
        }
    }
}

impl From<bool> for Fit {
    fn from(fits: bool) -> Self {
        if fits { Self::Yes } else { Self::No }
    }
}

/// The name under which a client is let in, as far as that needs no slow hash. One who comes in without a name needs
/// none, though an earlier user might have known it.
pub(super) fn at_once(
    users: &[User],
    question: &Question,
    presented: &Presented<'_>,
    hashes: &Hashes,
) -> Option<String> {
    let found = concerned(users, question).find(|user| fit(user, presented, hashes) == Fit::Yes)?;
    Some(name(found, presented))
}

/// As [`at_once`], with every hash that may decide it.
pub(super) async fn search(
    users: &[User],
    question: &Question,
    presented: &Presented<'_>,
    hashes: &Hashes,
    limited: &(impl Fn() -> bool + Sync),
) -> Finding {
    for user in concerned(users, question) {
        let fits = match fit(user, presented, hashes) {
            Fit::No => continue,
            Fit::Yes => Ok(true),
            Fit::Slow if limited() => Err(Unchecked::GivenUp),
            Fit::Slow => fit_slowly(user, presented, hashes, limited).await,
        };
        match fits {
            Ok(true) => return Finding::Allowed { user: name(user, presented) },
            Ok(false) => {}
            Err(Unchecked::GivenUp) => return Finding::Limited,
            Err(Unchecked::Busy) => {
                return Finding::Unknown("too many passwords are being checked".to_owned());
            }
        }
    }
    Finding::Refused(String::new())
}

/// Those who may do what is asked, whoever they are.
fn concerned<'u>(users: &'u [User], question: &Question) -> impl Iterator<Item = &'u User> {
    let ip = question.ip.to_canonical();
    users.iter().filter(move |user| {
        (user.ips.is_empty() || user.ips.iter().any(|net| net.contains(&ip)))
            && permissions::permit(&user.permissions, question)
    })
}

/// Empty for `any`, who need not say who they are.
fn name(user: &User, presented: &Presented<'_>) -> String {
    match (&user.name, presented) {
        (UserName::Is(_), Presented::Password { user, .. }) => user.to_string(),
        // It may have come hashed.
        (UserName::Is(Credential::Plain(name)), Presented::Digest { .. }) => name.clone(),
        _ => String::new(),
    }
}

fn fit(user: &User, presented: &Presented<'_>, hashes: &Hashes) -> Fit {
    let UserName::Is(known) = &user.name else { return Fit::Yes };
    match presented {
        Presented::Nothing | Presented::Token(_) => Fit::No,
        Presented::Password { user: name, password } => {
            let password = user.password.as_ref().map_or(Fit::Yes, |known| fit_one(known, password, hashes));
            fit_one(known, name, hashes).and(password)
        }
        Presented::Digest { digest, method } => match (known, &user.password) {
            (Credential::Plain(name), Some(Credential::Plain(password))) => {
                digest.verify(name, password, method).into()
            }
            (Credential::Plain(name), None) => (digest.username == *name).into(),
            _ => Fit::No,
        },
    }
}

fn fit_one(known: &Credential, given: &str, hashes: &Hashes) -> Fit {
    match known {
        Credential::Plain(text) => bool::from(text.as_bytes().ct_eq(given.as_bytes())).into(),
        Credential::Sha256(hash) => bool::from(Sha256::digest(given)[..].ct_eq(hash)).into(),
        Credential::Argon2(phc) if hashes.remember(phc, given) => Fit::Yes,
        Credential::Argon2(_) => Fit::Slow,
    }
}

/// Of a user who does not fit for another reason, no hash is checked.
async fn fit_slowly(
    user: &User,
    presented: &Presented<'_>,
    hashes: &Hashes,
    limited: &(impl Fn() -> bool + Sync),
) -> Result<bool, Unchecked> {
    let (UserName::Is(name), Presented::Password { user: given_name, password: given }) =
        (&user.name, presented)
    else {
        return Ok(false);
    };
    for (known, given) in [(Some(name), given_name), (user.password.as_ref(), given)] {
        if let Some(Credential::Argon2(phc)) = known
            && !hashes.check(phc, given, limited).await?
        {
            return Ok(false);
        }
    }
    Ok(true)
}
