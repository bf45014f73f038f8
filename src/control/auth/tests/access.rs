//! `authMethod: internal`.

use argon2::{Argon2, Params, PasswordHasher as _};
use corecast_proto::rtsp::auth::{Algorithm, Hash};
use sha2::{Digest as _, Sha256};

use super::*;

fn plain(text: &str) -> Credential {
    Credential::Plain(text.to_owned())
}

fn sha256(text: &str) -> Credential {
    Credential::Sha256(Sha256::digest(text).into())
}

fn argon2(text: &str) -> Credential {
    let params = Params::new(64, 1, 1, None).unwrap();
    Credential::Argon2(Argon2::from(params).hash_password(text.as_bytes()).unwrap().to_string())
}

fn user(name: Credential, password: Option<Credential>, permissions: Vec<Permission>) -> User {
    User { name: UserName::Is(name), password, ips: Vec::new(), permissions }
}

fn internal(users: Vec<User>) -> Auth {
    auth(AuthMethod::Internal { users })
}

fn reader(name: Credential, password: Credential) -> User {
    user(name, Some(password), vec![may(Action::Read, PathScope::Any)])
}

#[tokio::test]
async fn every_kind_of_credential_fits_what_it_was_made_of_and_nothing_else() {
    for kind in [plain, sha256, argon2] {
        let auth = internal(vec![reader(kind("jo"), kind("secret"))]);
        assert_eq!(auth.decide(question(basic("jo", "secret"))).await, allowed("jo"));
        for (name, password) in
            [("jo", "Secret"), ("jo", ""), ("Jo", "secret"), ("", "secret"), ("secret", "jo")]
        {
            let verdict = auth.decide(question(basic(name, password))).await;
            assert_denied(&verdict, "");
        }
        let verdict = auth.decide(question(Credentials::Bearer("secret".to_owned()))).await;
        assert_denied(&verdict, "");
        assert_eq!(auth.decide(question(Credentials::None)).await, Verdict::Challenge);
        assert_eq!(auth.decide(question(basic("", ""))).await, Verdict::Challenge);
    }
}

#[tokio::test]
async fn the_first_user_counts_for_whom_all_holds() {
    let read = |path: PathScope| vec![may(Action::Read, path)];
    let exact = |path: &str| PathScope::Exact(path.to_owned());
    let auth = internal(vec![
        user(plain("jo"), Some(plain("one")), read(exact("cam"))),
        user(plain("jo"), Some(plain("two")), read(exact("cam"))),
        user(plain("jo"), None, read(exact("lobby"))),
        User { ips: vec!["10.1.0.0/16".parse().unwrap()], ..reader(plain("ann"), plain("p")) },
        user(plain("pat"), Some(plain("p")), read(PathScope::Pattern(regex::Regex::new("am$").unwrap()))),
        user(plain("old"), Some(plain("p")), read(PathScope::Entries(Arc::new([Arc::from("cam")].into())))),
        user(plain("ops"), Some(plain("p")), vec![may(Action::Api, exact("cam"))]),
    ]);
    let mut asked = question(Credentials::None);
    for (name, password, path, entry, ip, fits) in [
        ("jo", "one", "cam", "cam", "10.0.0.1", true),
        // A user of the same name whose password is another ends no search.
        ("jo", "two", "cam", "cam", "10.0.0.1", true),
        ("jo", "three", "cam", "cam", "10.0.0.1", false),
        ("jo", "three", "lobby", "lobby", "10.0.0.1", true),
        ("ann", "p", "any", "any", "10.1.2.3", true),
        ("ann", "p", "any", "any", "::ffff:10.1.2.3", true),
        ("ann", "p", "any", "any", "10.2.0.1", false),
        ("pat", "p", "webcam", "~^web", "10.0.0.1", true),
        ("pat", "p", "cam2", "cam2", "10.0.0.1", false),
        ("old", "p", "cam", "cam", "10.0.0.1", true),
        // Another entry serves it, whatever its name.
        ("old", "p", "cam", "all_others", "10.0.0.1", false),
        ("ops", "p", "cam", "cam", "10.0.0.1", false),
    ] {
        asked.credentials = basic(name, password);
        (asked.path, asked.entry, asked.ip) = (path.to_owned(), Some(entry.into()), ip.parse().unwrap());
        let verdict = auth.decide(asked.clone()).await;
        assert_eq!(verdict == allowed(name), fits, "{name}:{password} on {path} from {ip}: {verdict:?}");
    }
    // The API is about no path, whatever the permission says.
    let asked =
        Question { action: Action::Api, path: String::new(), entry: None, ..question(basic("ops", "p")) };
    assert_eq!(auth.at_once(&asked), Some(allowed("ops")));
    let counts = auth.counters();
    assert_eq!((counts.allowed, counts.denied, counts.challenged), (8, 5, 0));
}

#[tokio::test]
async fn anybody_needs_no_credentials_and_may_have_some() {
    let anybody = User {
        name: UserName::Any,
        password: None,
        ips: vec!["10.0.0.0/8".parse().unwrap()],
        permissions: vec![may(Action::Read, PathScope::Any)],
    };
    let auth = internal(vec![reader(argon2("jo"), argon2("p")), anybody]);
    for credentials in [Credentials::None, basic("who", "ever"), Credentials::Bearer("x".to_owned())] {
        assert_eq!(auth.at_once(&question(credentials)), Some(allowed("")));
    }
    let from = |ip: &str| Question { ip: ip.parse().unwrap(), ..question(Credentials::None) };
    assert_eq!(auth.at_once(&from("192.0.2.1")), Some(Verdict::Challenge));
    let publish = Question { action: Action::Publish, ..question(Credentials::None) };
    assert_eq!(auth.at_once(&publish), Some(Verdict::Challenge));
}

/// As an HLS front asks: a read of a path, with what HTTP carries.
#[tokio::test]
async fn a_viewer_over_hls_needs_what_any_reader_needs() {
    let old = PathScope::Entries(Arc::new([Arc::from("cam_~id")].into()));
    let auth = internal(vec![
        reader(plain("viewer"), plain("p")),
        user(plain("old"), Some(sha256("p")), vec![may(Action::Read, old)]),
        user(plain("encoder"), Some(plain("p")), vec![may(Action::Publish, PathScope::Any)]),
    ]);
    let hls = |credentials, entry: &str| Question {
        protocol: Protocol::Hls,
        entry: Some(entry.into()),
        ..question(credentials)
    };
    assert_eq!(auth.decide(hls(basic("viewer", "p"), "any")).await, allowed("viewer"));
    // The credentials of a path (readUser, readPass) hold for what its entry serves.
    assert_eq!(auth.decide(hls(basic("old", "p"), "cam_~id")).await, allowed("old"));
    assert_denied(&auth.decide(hls(basic("old", "p"), "any")).await, "");
    assert_denied(&auth.decide(hls(basic("encoder", "p"), "any")).await, "");
    assert_denied(&auth.decide(hls(Credentials::Bearer("p".to_owned()), "any")).await, "");
    assert_eq!(auth.at_once(&hls(Credentials::None, "any")), Some(Verdict::Challenge));
    // Who failed waits, and whoever asks for them does not have to.
    assert_eq!(auth.at_once(&hls(basic("viewer", "wrong"), "any")), None);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A response by MD5.
fn digest(user: &str, password: &str, nonce: &str, realm: &str, uri: &str) -> String {
    let hash = |text: String| hex(&md5::Md5::digest(text));
    let secret = hash(format!("{user}:{realm}:{password}"));
    let request = hash(format!("DESCRIBE:{uri}"));
    let response = hash(format!("{secret}:{nonce}:{request}"));
    format!(
        "Digest username=\"{user}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", response=\"{response}\""
    )
}

fn over_rtsp(authorization: &str) -> Question {
    question(Credentials::Rtsp {
        authorization: Some(authorization.to_owned()),
        method: "DESCRIBE".to_owned(),
        url: "rtsp://host:8554/cam".to_owned(),
        nonce: "n0".to_owned(),
        realm: "ipcam".to_owned(),
    })
}

#[tokio::test]
async fn a_digest_fits_our_challenge_only() {
    assert_eq!(Algorithm { hash: Hash::Md5, session: false }.hash, Hash::Md5);
    let auth = internal(vec![
        reader(plain("jo"), plain("secret")),
        reader(sha256("ann"), plain("secret")),
        reader(plain("bob"), sha256("secret")),
        user(plain("eve"), None, vec![may(Action::Read, PathScope::Any)]),
    ]);
    let url = "rtsp://host:8554/cam";
    for (user, password) in [("jo", "secret"), ("eve", "whatever")] {
        for uri in [url, "/cam", "rtsp://host:8554/cam/"] {
            let authorization = digest(user, password, "n0", "ipcam", uri);
            assert_eq!(auth.at_once(&over_rtsp(&authorization)), Some(allowed(user)), "{uri}");
        }
    }
    for (user, password) in [("jo", "Secret"), ("ann", "secret"), ("bob", "secret"), ("mia", "")] {
        let verdict = auth.decide(over_rtsp(&digest(user, password, "n0", "ipcam", url))).await;
        assert_denied(&verdict, "");
    }
    // It answers another question, of somebody else or of long ago: here is ours.
    for (nonce, realm, uri) in [("n1", "ipcam", url), ("n0", "home", url), ("n0", "ipcam", "/lobby")] {
        let authorization = digest("jo", "secret", nonce, realm, uri);
        assert_eq!(auth.at_once(&over_rtsp(&authorization)), Some(Verdict::Challenge), "{authorization}");
    }
    for nonsense in ["", "Digest", "Digest x", "Basic !", "Bearer abc"] {
        assert_eq!(auth.at_once(&over_rtsp(nonsense)), Some(Verdict::Challenge), "{nonsense}");
    }
    // `jo:secret`
    assert_eq!(auth.at_once(&over_rtsp("Basic am86c2VjcmV0")), Some(allowed("jo")));
}

#[tokio::test]
async fn only_slow_hashes_and_failures_are_waited_for() {
    let auth = internal(vec![reader(plain("jo"), argon2("secret")), reader(plain("ann"), sha256("secret"))]);
    assert_eq!(auth.at_once(&question(basic("ann", "secret"))), Some(allowed("ann")));
    assert_eq!(auth.at_once(&question(basic("ann", "wrong"))), None);
    assert_eq!(auth.at_once(&question(basic("jo", "secret"))), None);
    assert_eq!(auth.decide(question(basic("jo", "secret"))).await, allowed("jo"));
    // It is known now.
    assert_eq!(auth.at_once(&question(basic("jo", "secret"))), Some(allowed("jo")));
    assert_eq!(auth.at_once(&question(basic("jo", "Secret"))), None);
    // A hash that replaces it is another.
    let users = vec![reader(plain("jo"), argon2("secret"))];
    let settings = AuthSettings { method: AuthMethod::Internal { users }, timeout: Duration::from_secs(5) };
    auth.reconfigure(Arc::new(settings));
    assert_eq!(auth.at_once(&question(basic("jo", "secret"))), None);
}

#[tokio::test]
async fn after_many_failures_nothing_costly_is_done_and_the_right_get_in() {
    let auth = internal(vec![
        reader(plain("jo"), argon2("secret")),
        reader(plain("eve"), argon2("other")),
        reader(plain("ann"), plain("secret")),
    ]);
    assert_eq!(auth.decide(question(basic("jo", "secret"))).await, allowed("jo"));
    for n in 0..15 {
        let verdict = auth.decide(question(basic("jo", &n.to_string()))).await;
        assert_denied(&verdict, if n < 10 { "" } else { "too many attempts" });
    }
    assert_eq!(auth.counters().limited, 5);
    // Found right before, or right at once.
    assert_eq!(auth.decide(question(basic("jo", "secret"))).await, allowed("jo"));
    assert_eq!(auth.decide(question(basic("ann", "secret"))).await, allowed("ann"));
    assert_denied(&auth.decide(question(basic("eve", "other"))).await, "too many attempts");
    let elsewhere = Question { ip: "10.0.0.2".parse().unwrap(), ..question(basic("eve", "other")) };
    assert_eq!(auth.decide(elsewhere).await, allowed("eve"));
}

#[tokio::test]
async fn many_readers_with_one_password_are_let_in_together() {
    let auth = Arc::new(internal(vec![reader(plain("jo"), argon2("secret"))]));
    let waiting: Vec<_> = (0..500)
        .map(|_| {
            let auth = Arc::clone(&auth);
            tokio::spawn(async move { auth.decide(question(basic("jo", "secret"))).await })
        })
        .collect();
    for reader in waiting {
        assert_eq!(reader.await.unwrap(), allowed("jo"));
    }
}
