//! Users, and the credentials that older files keep in paths.

use std::time::Duration;

use corecast_hub::settings::Challenge;

use super::{assert_one_error, load, load_with, view, warnings};
use crate::control::settings::{
    Action, AuthMethod, AuthSettings, Credential, HttpAddress, PathScope, User, UserName,
};

fn users(auth: &AuthSettings) -> &[User] {
    match &auth.method {
        AuthMethod::Internal { users } => users,
        other => panic!("{other:?}"),
    }
}

/// Whether anybody, or who brings these credentials, may do `action` on a path that the entry `key` serves.
fn may(auth: &AuthSettings, key: &str, action: Action, ip: &str, presented: Option<(&str, &str)>) -> bool {
    let plain =
        |credential: &Credential, text: &str| matches!(credential, Credential::Plain(it) if it == text);
    users(auth).iter().any(|user| {
        let here = user.ips.is_empty()
            || user.ips.iter().any(|net| net.contains(&ip.parse::<std::net::IpAddr>().unwrap()));
        let permitted = user.permissions.iter().any(|permission| {
            permission.action == action
                && match &permission.path {
                    PathScope::Any => true,
                    PathScope::Exact(name) => name == key,
                    PathScope::Pattern(pattern) => pattern.is_match(key),
                    PathScope::Entries(entries) => entries.contains(key),
                }
        });
        let known = match (&user.name, presented) {
            (UserName::Any, _) => true,
            (UserName::Is(_), None) => false,
            (UserName::Is(name), Some((user_name, password))) => {
                plain(name, user_name) && user.password.as_ref().is_none_or(|it| plain(it, password))
            }
        };
        here && permitted && known
    })
}

#[test]
fn an_empty_file_is_open_for_media_and_closed_for_the_api() {
    let view = view("");
    assert!(view.settings.access.publish_open && view.settings.access.read_open);
    assert_eq!(view.settings.access.challenges, [Challenge::Basic]);
    let auth = &view.control.auth;
    assert_eq!(auth.timeout, Duration::from_secs(10));
    assert!(may(auth, "", Action::Api, "127.0.0.1", None) && may(auth, "", Action::Api, "::1", None));
    assert!(!may(auth, "", Action::Api, "10.0.0.1", None));
    assert!(view.control.api.is_none() && view.control.metrics.is_none());
}

#[test]
fn users_are_open_only_without_names_addresses_and_paths() {
    for (user, open) in [
        ("{user: any, permissions: [{action: read}]}", true),
        ("{user: any, permissions: [{action: read, path: x}]}", false),
        ("{user: any, permissions: [{action: read, path: '~.*'}]}", false),
        ("{user: any, ips: [10.0.0.0/8], permissions: [{action: read}]}", false),
        ("{user: a, permissions: [{action: read}]}", false),
        ("{user: any, permissions: [{action: publish}]}", false),
    ] {
        assert_eq!(view(&format!("authInternalUsers: [{user}]")).settings.access.read_open, open, "{user}");
    }
    let http = "authMethod: http\nauthHTTPAddress: http://h/\n";
    assert!(!view(http).settings.access.read_open);
    assert!(view(&format!("{http}authHTTPExclude: [{{action: read}}]")).settings.access.read_open);
}

#[test]
fn credentials_are_plain_hashed_or_from_the_environment() {
    let loaded = load_with(
        "authInternalUsers:\n\
         - {user: a$b, pass: $notAVariable}\n\
         - {user: 'sha256:jDux4JPR5V1NqM5fTXXJVkNNbWPHGU2oaGRtXFb5iPw=', pass: '${SECRET}'}\n\
         - {user: c, pass: 'argon2:$argon2id$v=19$m=4096,t=3,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA'}\n",
        &[("SECRET", "s3cret")],
    )
    .unwrap();
    let users = users(&loaded.view.control.auth);
    assert!(matches!(&users[0].password, Some(Credential::Plain(text)) if text == "$notAVariable"));
    assert!(matches!(&users[1].name, UserName::Is(Credential::Sha256(_))));
    assert!(matches!(&users[1].password, Some(Credential::Plain(text)) if text == "s3cret"));
    assert!(matches!(&users[2].password, Some(Credential::Argon2(phc)) if phc.starts_with("$argon2id$")));
    assert!(!format!("{:?}", loaded.view).contains("s3cret"));
}

#[test]
fn challenges_end_with_the_one_that_every_client_knows() {
    let challenges = |text| view(text).settings.access.challenges.clone();
    assert_eq!(
        challenges("rtspAuthMethods: [digest, basic]"),
        [Challenge::Basic, Challenge::DigestSha256, Challenge::DigestMd5]
    );
    assert_eq!(challenges("authMethods: [digest]"), [Challenge::DigestSha256, Challenge::DigestMd5]);
}

#[test]
fn methods_and_servers_take_all_of_their_keys() {
    let fingerprint = "00ff".repeat(16);
    let view = view(&format!(
        "authMethod: jwt\nauthJWTJWKS: https://h/jwks\nauthJWTJWKSFingerprint: {fingerprint}\nauthJWTIssuer: me\n\
         authJWTInHTTPQuery: yes\nauthJWTExclude: [{{action: metrics}}]\nreadTimeout: 3s\n\
         api: yes\napiAddress: unix:///run/x.sock\napiAllowOrigins: [https://a]\napiTrustedProxies: [10.0.0.1]\n\
         metrics: yes\nmetricsAddress: 127.0.0.1:1\nmetricsEncryption: yes\nmetricsServerKey: k\nmetricsServerCert: c\n\
         runOnConnect: a b\nrunOnConnectRestart: yes\nrunOnDisconnect: c\nrtspAddress: :7554\n\
         engine: {{stateDir: /var/lib/x, metricsSessions: yes}}\n"
    ));
    let control = &view.control;
    let AuthMethod::Jwt { jwks_url, fingerprint, claim, exclude, issuer, audience, in_http_query } =
        &control.auth.method
    else {
        panic!("{:?}", control.auth)
    };
    assert_eq!((jwks_url.as_str(), claim.as_str()), ("https://h/jwks", "mediamtx_permissions"));
    assert_eq!(fingerprint.map(|bytes| (bytes[0], bytes[1])), Some((0, 255)));
    assert_eq!((issuer.as_deref(), audience, in_http_query), (Some("me"), &None, &true));
    assert_eq!(exclude[0].action, Action::Metrics);
    let api = control.api.as_ref().unwrap();
    assert_eq!(api.address, HttpAddress::Unix("/run/x.sock".into()));
    assert_eq!((api.allow_origins.len(), api.trusted_proxies[0].to_string()), (1, "10.0.0.1/32".to_owned()));
    let metrics = control.metrics.as_ref().unwrap();
    assert_eq!(metrics.address, HttpAddress::Tcp("127.0.0.1:1".parse().unwrap()));
    assert!(metrics.tls.is_some() && api.tls.is_none());
    assert_eq!((control.on_connect.command.as_str(), control.on_connect.restart), ("a b", true));
    assert_eq!((control.on_disconnect.command.as_str(), control.rtsp_port), ("c", 7554));
    assert_eq!(control.state_dir, Some("/var/lib/x".into()));
    assert!(control.metrics_sessions);
}

const OLDER: &str = "\
paths:
  all_others:
  cam_~id: {publishUser: pub, publishPass: pp, readUser: view, readPass: vp, readIPs: [10.0.0.0/8]}
  half: {publishUser: pub, publishPass: pp}
";

#[test]
fn older_credentials_protect_their_entry_and_nothing_opens_it() {
    let view = view(OLDER);
    let auth = &view.control.auth;
    assert!(!view.settings.access.publish_open && !view.settings.access.read_open);
    let (v4, v6) = ("192.0.2.1", "2001:db8::1");
    for ip in [v4, v6] {
        // The catch-all is open, and opens only what it serves.
        assert!(may(auth, "all_others", Action::Publish, ip, None));
        assert!(!may(auth, "cam_~id", Action::Publish, ip, None));
        assert!(may(auth, "cam_~id", Action::Publish, ip, Some(("pub", "pp"))));
        assert!(!may(auth, "cam_~id", Action::Publish, ip, Some(("pub", "wrong"))));
        assert!(!may(auth, "cam_~id", Action::Publish, ip, Some(("view", "vp"))));
        assert!(!may(auth, "cam_~id", Action::Read, ip, Some(("view", "vp"))), "not from there");
        assert!(may(auth, "half", Action::Read, ip, None));
        assert!(!may(auth, "half", Action::Publish, ip, None));
    }
    assert!(may(auth, "cam_~id", Action::Read, "10.1.2.3", Some(("view", "vp"))));
    assert!(!may(auth, "cam_~id", Action::Read, "10.1.2.3", None));
    assert!(may(auth, "", Action::Api, "127.0.0.1", None) && !may(auth, "", Action::Api, v4, None));
    let said = warnings(OLDER);
    assert!(
        said.iter().any(|warning| warning
            .ends_with("credentials are asked of those who publish: reading stays open to everybody")),
        "{said:?}"
    );
}

#[test]
fn a_thousand_paths_with_the_same_credentials_are_one_rule() {
    let mut text = "pathDefaults: {readUser: v, readPass: p}\npaths:\n".to_owned();
    for number in 0..1000 {
        text += &format!("  cam{number}:\n");
    }
    let view = view(&text);
    assert_eq!(users(&view.control.auth).len(), 3);
    assert!(view.settings.access.publish_open && !view.settings.access.read_open);
    assert!(may(&view.control.auth, "cam7", Action::Read, "::1", Some(("v", "p"))));
}

#[test]
fn older_credentials_come_and_go_with_edits() {
    use serde_json::json;

    use super::{super::store::Edit, body};
    let open = view("paths:\n  a:\n");
    let add = Edit::AddPath { name: "b".into(), body: body(json!({"readUser": "v", "readPass": "p"})) };
    let closed = open.edited(&[add]).unwrap();
    assert!(!may(&closed.control.auth, "b", Action::Read, "::1", None));
    assert!(may(&closed.control.auth, "a", Action::Read, "::1", None));
    let again = closed.edited(&[Edit::RemovePath { name: "b".into() }]).unwrap();
    assert_eq!(again.control.auth, open.control.auth);
    assert!(again.settings.access.read_open);
}

#[test]
fn older_credentials_and_users_hold_beside_each_other() {
    let view = view(
        "authInternalUsers:\n- {user: any, permissions: [{action: read}]}\n\
         - {user: boss, pass: b, permissions: [{action: read}, {action: publish}]}\n\
         paths:\n  kept: {readUser: v, readPass: p}\n  open:\n",
    );
    let auth = &view.control.auth;
    assert!(may(auth, "open", Action::Read, "::1", None));
    assert!(!may(auth, "kept", Action::Read, "::1", None), "anybody may read, but not what a path protects");
    assert!(may(auth, "kept", Action::Read, "::1", Some(("v", "p"))));
    for path in ["kept", "open"] {
        assert!(may(auth, path, Action::Read, "::1", Some(("boss", "b"))));
        assert!(may(auth, path, Action::Publish, "::1", Some(("boss", "b"))));
        assert!(!may(auth, path, Action::Publish, "::1", Some(("v", "p"))));
        assert!(!may(auth, path, Action::Publish, "::1", None));
    }
}

#[test]
fn a_password_nobody_would_be_asked_for_is_refused() {
    assert_one_error(
        "paths: {a: {readPass: x}}",
        "c.yml:1:23: 'readPass' is set without a name: expected 'readUser' beside it",
    );
    assert!(load_with("paths: {a: {readUser: v, readPass: '${P}'}}", &[("P", "")]).is_err());
    assert!(load("paths: {a: {readIPs: [10.0.0.1]}}").is_ok());
}
