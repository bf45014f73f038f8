//! `publishUser`, `readPass` and their kind, which older files keep in paths, as rules of today (contract §1.6).
//!
//! Each rule holds for the paths that its entry serves, found by look-up: an entry without credentials that matches
//! every name does not open the paths of another one. Addresses that are left out are all addresses, of both families.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use ipnet::IpNet;

use super::{
    credential,
    error::{At, Report},
    expand::Environment,
    section::Layers,
    typed,
};
use crate::control::settings::{Action, Credential, PathScope, Permission, User, UserName};

const KEYS: [&str; 6] = ["publishUser", "publishPass", "publishIPs", "readUser", "readPass", "readIPs"];

/// The credentials of one entry.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PathCredentials {
    publish: Side,
    read: Side,
}

/// Who may do one thing.
#[derive(Debug, Clone, PartialEq, Default)]
struct Side {
    /// `None`: anybody.
    user: Option<Credential>,
    password: Option<Credential>,
    ips: Vec<IpNet>,
}

/// Reads an entry's; `None` when it has none of the keys.
pub(super) fn read(path: Layers<'_>, env: &Environment, report: &mut Report) -> Option<PathCredentials> {
    let at = KEYS.iter().find_map(|key| path.written(key)).map(|setting| &setting.at)?;
    let publish = side(path, ["publishUser", "publishPass", "publishIPs"], env, report);
    let read = side(path, ["readUser", "readPass", "readIPs"], env, report);
    for (one, other, what) in [(&publish, &read, "publish: reading"), (&read, &publish, "read: publishing")] {
        if one.user.is_some() && *other == Side::default() {
            report.warn_once(what, at, || {
                format!("credentials are asked of those who {what} stays open to everybody")
            });
        }
    }
    Some(PathCredentials { publish, read })
}

/// What can be said of each value alone: for `pathDefaults`, over which a path may set the other ones.
pub(super) fn check_values(defaults: Layers<'_>, env: &Environment, report: &mut Report) {
    for key in ["publishUser", "publishPass", "readUser", "readPass"] {
        if let Some(setting) = defaults.written(key)
            && let typed::Typed::Text(text) = &setting.value
        {
            credential::read(key, text, &setting.at, env, report);
        }
    }
}

fn side(path: Layers<'_>, keys: [&str; 3], env: &Environment, report: &mut Report) -> Side {
    let [user_key, password_key, ips_key] = keys;
    let text = |key: &str| match path.written(key).map(|setting| &setting.value) {
        Some(typed::Typed::Text(text)) => text.as_str(),
        _ => "",
    };
    let at = |key: &str| path.written(key).map_or(&At::Nowhere, |setting| &setting.at);
    let password = credential::read(password_key, text(password_key), at(password_key), env, report);
    let user = match text(user_key) {
        "" | "any" => {
            // MediaMTX takes it and lets everybody in.
            if !text(password_key).is_empty() {
                let message =
                    format!("'{password_key}' is set without a name: expected '{user_key}' beside it");
                report.error(at(password_key), message);
            }
            None
        }
        name => credential::read(user_key, name, at(user_key), env, report),
    };
    let ips = path.written(ips_key).map(|setting| setting.value.texts()).into_iter().flatten();
    Side { user, password, ips: ips.filter_map(typed::parsed_network).collect() }
}

/// Adds the rules for entries with credentials to those of `authInternalUsers`. A rule there that lets anybody do
/// anything leaves out what an entry protects; one that names somebody, or a path, holds as it did.
pub(super) fn users<'a>(
    entries: impl Iterator<Item = (&'a Arc<str>, Option<&'a PathCredentials>)>,
    listed: Vec<User>,
) -> Vec<User> {
    let mut users = listed;
    let (mut groups, mut open): ([Groups; 2], [HashSet<Arc<str>>; 2]) = Default::default();
    let nobody_asked = PathCredentials { publish: Side::default(), read: Side::default() };
    for (key, credentials) in entries {
        let credentials = credentials.unwrap_or(&nobody_asked);
        for (at, side) in [&credentials.publish, &credentials.read].into_iter().enumerate() {
            let entries = if *side == Side::default() {
                &mut open[at]
            } else {
                &mut groups[at].entry(side.sort_key()).or_insert_with(|| (side.clone(), HashSet::new())).1
            };
            entries.insert(Arc::clone(key));
        }
    }
    for ((action, groups), open) in [Action::Publish, Action::Read].into_iter().zip(groups).zip(open) {
        if groups.is_empty() {
            continue;
        }
        let all_alike = groups.len() == 1 && open.is_empty();
        confine(&mut users, action, open);
        for (side, entries) in groups.into_values() {
            // The same for every path there is.
            let path = if all_alike { PathScope::Any } else { PathScope::Entries(Arc::new(entries)) };
            users.push(User {
                name: side.user.map_or(UserName::Any, UserName::Is),
                password: side.password,
                ips: side.ips,
                permissions: vec![Permission { action, path }],
            });
        }
    }
    users
}

/// Who lets anybody do `action` anywhere means the `open` entries.
fn confine(users: &mut [User], action: Action, open: HashSet<Arc<str>>) {
    let open = Arc::new(open);
    for user in users.iter_mut().filter(|user| matches!(user.name, UserName::Any)) {
        let means_all = |permission: &Permission| {
            permission.action == action && matches!(permission.path, PathScope::Any)
        };
        if open.is_empty() {
            user.permissions.retain(|permission| !means_all(permission));
        }
        for permission in user.permissions.iter_mut().filter(|permission| means_all(permission)) {
            permission.path = PathScope::Entries(Arc::clone(&open));
        }
    }
}

/// Entries with the same credentials, so that a thousand of them are one rule.
type Groups = BTreeMap<SideKey, (Side, HashSet<Arc<str>>)>;
type SideKey = ([(u8, Vec<u8>); 2], Vec<IpNet>);

impl Side {
    fn sort_key(&self) -> SideKey {
        let key = |credential: &Option<Credential>| match credential {
            None => (0, Vec::new()),
            Some(Credential::Plain(text)) => (1, text.clone().into_bytes()),
            Some(Credential::Sha256(hash)) => (2, hash.to_vec()),
            Some(Credential::Argon2(phc)) => (3, phc.clone().into_bytes()),
        };
        ([key(&self.user), key(&self.password)], self.ips.clone())
    }
}
