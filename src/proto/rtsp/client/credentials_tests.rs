//! Challenges as cameras write them, and what is answered, judged by the server's half.

use super::{
    super::super::auth::{Authorization, Digest as Presented},
    *,
};

const URL: &str = "rtsp://cam:554/live";

fn login(user: &str, password: &str) -> Login {
    Login::new(Some(Credentials { user: user.to_owned(), password: password.to_owned() }))
}

fn headers(challenges: &[&str]) -> Headers {
    let mut headers = Headers::new();
    challenges.iter().for_each(|value| headers.push("www-authenticate", *value));
    headers
}

fn presented(login: &mut Login, method: &str) -> Presented {
    let value = login.authorization(method, URL).unwrap();
    match Authorization::parse(&value).unwrap_or_else(|error| panic!("{value}: {error}")) {
        Authorization::Digest(digest) => digest,
        Authorization::Basic { .. } => panic!("basic, not digest: {value}"),
    }
}

/// RFC 7616 §3.9.1: both algorithms, and RFC 2617 §3.5 without an algorithm.
#[test]
fn the_examples_of_the_rfcs() {
    let mufasa = |password: &str| Credentials { user: "Mufasa".to_owned(), password: password.to_owned() };
    let digest = |value: &str| match challenges(value).remove(0) {
        Challenge::Digest(digest) => digest,
        Challenge::Basic => panic!("{value}"),
    };
    for (algorithm, response) in [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ] {
        let challenge = digest(&format!(
            "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm={algorithm}, \
             nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", \
             opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""
        ));
        let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
        let value = challenge.answer(&mufasa("Circle of Life"), "GET", "/dir/index.html", 1, cnonce);
        for part in [
            format!("response=\"{response}\""),
            format!("algorithm={algorithm}"),
            "qop=auth, nc=00000001".to_owned(),
            "opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"".to_owned(),
        ] {
            assert!(value.contains(&part), "{part}: {value}");
        }
    }
    let old = digest(
        "Digest realm=\"testrealm@host.com\", qop=\"auth,auth-int\", \
         nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"",
    );
    let value = old.answer(&mufasa("Circle Of Life"), "GET", "/dir/index.html", 1, "0a4f113b");
    assert!(value.contains("response=\"6629fae49393a05397450978507c4ef1\""), "{value}");
    assert!(!value.contains("algorithm"), "{value}");
}

#[test]
fn every_challenge_that_cameras_write_is_answered_as_the_server_expects() {
    for (challenges, realm, algorithm) in [
        // Hikvision: both, Digest first or last, in two fields or in one
        (
            &[
                "Digest realm=\"IP Camera(C1234)\", nonce=\"n1\", stale=\"FALSE\"",
                "Basic realm=\"IP Camera\"",
            ][..],
            "IP Camera(C1234)",
            "MD5",
        ),
        (&["Basic realm=\"IP Camera\"", "Digest realm=\"IP Camera\", nonce=\"n1\""], "IP Camera", "MD5"),
        (&["Basic realm=\"a, b\", Digest realm=\"c\", nonce=\"n1\", Bearer"], "c", "MD5"),
        (&["Digest realm=\"c\", nonce=\"n1\", Basic realm=\"c\""], "c", "MD5"),
        // three algorithms, one of them unknown
        (
            &[
                "Digest realm=\"m\", nonce=\"n1\", algorithm=MD5, qop=\"auth\"",
                "Digest realm=\"m\", nonce=\"n1\", algorithm=SHA-512-256, qop=\"auth\"",
                "Digest realm=\"m\", nonce=\"n1\", algorithm=SHA-256, qop=\"auth\"",
            ],
            "m",
            "SHA-256",
        ),
        (&["Digest realm=\"m\", nonce=\"n1\", algorithm=\"md5-sess\", qop=auth"], "m", "MD5-sess"),
        (&["Digest realm=\"m\", nonce=\"n1\", algorithm=SHA-256-sess"], "m", "SHA-256-sess"),
        (&["Digest realm=\"m\", nonce=\"n1\", algorithm="], "m", "MD5"),
        // spelling
        (&["digest REALM = \"AXIS_00408C\" ,NONCE=n1,algorithm=md5"], "AXIS_00408C", "MD5"),
        (&["Digest realm=Hikvision IP Camera, nonce=\"n1\""], "Hikvision IP Camera", "MD5"),
        (&["Digest realm=\"\", nonce=\"n1\""], "", "MD5"),
        (&["Digest nonce=\"n1\""], "", "MD5"),
        (&["Digest realm=\"say \\\"hi\\\"\", nonce=\"n1\""], "say \"hi\"", "MD5"),
        (&["Digest realm=\"a\" nonce=\"n1\" opaque=\"\""], "a", "MD5"),
        (&["Digest nonce=\"n1\",,realm=\"open"], "open", "MD5"),
        (&["Digest\trealm=\"a=b, c\", nonce=\"n1\", domain=\"/\""], "a=b, c", "MD5"),
    ] {
        for (user, password) in [("admin", "pass:w\"ord"), ("admin", ""), ("", ""), ("us\\er\"", "ü")] {
            let mut login = login(user, password);
            assert_eq!(login.authorization("OPTIONS", URL), None, "nobody asked yet");
            login.on_unauthorized(&headers(challenges), 1).unwrap();
            let digest = presented(&mut login, "DESCRIBE");
            assert!(digest.verify(user, password, "DESCRIBE"), "{challenges:?} {user}");
            assert!(!digest.verify(user, "other", "DESCRIBE"));
            assert_eq!((digest.realm.as_str(), digest.nonce.as_str()), (realm, "n1"), "{challenges:?}");
            assert_eq!(digest.uri, URL);
            let shown = format!("{:?}", digest.algorithm);
            assert_eq!(shown.contains("Sha256"), algorithm.starts_with("SHA"), "{challenges:?}");
            assert_eq!(digest.algorithm.session, algorithm.ends_with("sess"), "{challenges:?}");
        }
    }
}

#[test]
fn basic_is_answered_when_nothing_better_is_offered() {
    for challenges in [&["Basic realm=\"x\""][..], &["basic"], &["Digest realm=\"no nonce\"", "Basic"]] {
        let mut login = login("admin", "");
        login.on_unauthorized(&headers(challenges), 1).unwrap();
        assert_eq!(login.authorization("OPTIONS", URL).as_deref(), Some("Basic YWRtaW46"), "{challenges:?}");
    }
}

#[test]
fn a_realm_with_a_lone_backslash_is_sent_back_as_it_came() {
    let mut login = login("u", "p");
    login.on_unauthorized(&headers(&["Digest realm=\"DOMAIN\\cams\", nonce=\"1\""]), 1).unwrap();
    assert!(login.authorization("PLAY", URL).unwrap().contains("realm=\"DOMAIN\\cams\""));
}

#[test]
fn nonce_count_goes_up_with_every_request_and_begins_anew_with_the_nonce() {
    let mut login = login("u", "p");
    let challenge = |nonce: &str| headers(&[&format!("Digest realm=\"r\", nonce=\"{nonce}\", qop=\"auth\"")]);
    login.on_unauthorized(&challenge("a"), 1).unwrap();
    let value = login.authorization("OPTIONS", URL).unwrap();
    assert!(value.contains("nc=00000001"), "{value}");
    let again = login.authorization("DESCRIBE", URL).unwrap();
    assert!(again.contains("nc=00000002"), "{again}");
    login.on_unauthorized(&challenge("b"), 1).unwrap();
    assert!(login.authorization("DESCRIBE", URL).unwrap().contains("nc=00000001"));
}

#[test]
fn asking_again_ends_when_a_nonce_is_refused_or_too_many_are() {
    let challenge = |nonce: &str, stale| headers(&[&format!("Digest nonce=\"{nonce}\", stale={stale}")]);
    let refused = Err(LoginError::Refused);
    let mut first = login("u", "p");
    assert_eq!(first.on_unauthorized(&challenge("a", false), 1), Ok(()));
    assert_eq!(first.on_unauthorized(&challenge("a", false), 2), refused);
    let mut second = login("u", "p");
    assert_eq!(second.on_unauthorized(&challenge("a", false), 1), Ok(()));
    assert_eq!(second.on_unauthorized(&challenge("b", false), 2), Ok(()));
    assert_eq!(second.on_unauthorized(&challenge("c", false), 3), refused);
    let mut stale = login("u", "p");
    for refusals in 1..=3 {
        assert_eq!(stale.on_unauthorized(&challenge("a", true), refusals), Ok(()));
    }
    assert_eq!(stale.on_unauthorized(&challenge("a", true), 4), refused);
    let mut basic = login("u", "p");
    assert_eq!(basic.on_unauthorized(&headers(&["Basic"]), 1), Ok(()));
    assert_eq!(basic.on_unauthorized(&headers(&["Basic"]), 2), refused);
    assert_eq!(Login::new(None).on_unauthorized(&headers(&["Basic"]), 1), Err(LoginError::NoCredentials));
    for unknown in [&["NTLM"][..], &["Digest nonce=\"a\", algorithm=X"], &["Digest nonce=\"a\", qop=x"], &[]]
    {
        assert_eq!(
            login("u", "p").on_unauthorized(&headers(unknown), 1),
            Err(LoginError::UnknownScheme),
            "{unknown:?}"
        );
    }
}

#[test]
fn integrity_protection_covers_the_empty_body() {
    let mut login = login("u", "p");
    login.on_unauthorized(&headers(&["Digest realm=\"r\", nonce=\"n\", qop=\"auth-int\""]), 1).unwrap();
    let value = login.authorization("PLAY", URL).unwrap();
    let part = |name: &str| {
        let after = value.split_once(&format!("{name}=\"")).unwrap().1;
        after.split_once('"').unwrap().0.to_owned()
    };
    let md5 = |text: String| Hash::Md5.hex(&text);
    let (secret, body) = (md5("u:r:p".to_owned()), md5(String::new()));
    let request = md5(format!("PLAY:{URL}:{body}"));
    assert!(value.contains("qop=auth-int"), "{value}");
    assert_eq!(part("response"), md5(format!("{secret}:n:00000001:{}:auth-int:{request}", part("cnonce"))));
}

#[test]
fn nothing_shows_a_password() {
    let mut login = login("admin", "top secret");
    login.on_unauthorized(&headers(&["Basic"]), 1).unwrap();
    assert!(!format!("{login:?}").contains("secret"));
}
