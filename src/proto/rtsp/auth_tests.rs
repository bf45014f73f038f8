//! Credentials in every form that clients write, and the examples of the RFCs.

use super::*;

fn digest(value: &str) -> Digest {
    match Authorization::parse(value).unwrap() {
        Authorization::Digest(digest) => digest,
        Authorization::Basic { .. } => panic!("{value}"),
    }
}

#[test]
fn basic_with_and_without_padding_and_in_any_case() {
    for value in ["Basic YWRtOnNlOmNyZXQ=", "basic  YWRtOnNlOmNyZXQ= ", "BASIC YWRtOnNlOmNyZXQ"] {
        let expected = Authorization::Basic { user: "adm".to_owned(), password: "se:cret".to_owned() };
        assert!(Authorization::parse(value) == Ok(expected), "{value}");
    }
    for (value, error) in [
        ("Basic", AuthorizationError::Scheme),
        ("Basic !!!", AuthorizationError::Basic),
        ("Basic YWRt", AuthorizationError::Basic),
        ("Basic //4=", AuthorizationError::Basic),
        ("Bearer x", AuthorizationError::Scheme),
        ("", AuthorizationError::Scheme),
    ] {
        assert_eq!(Authorization::parse(value).unwrap_err(), error, "{value}");
    }
}

/// RFC 2617 §3.5.
#[test]
fn the_example_of_rfc_2617() {
    let found = digest(
        "Digest username=\"Mufasa\", realm=\"testrealm@host.com\", \
         nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", uri=\"/dir/index.html\", qop=auth, nc=00000001, \
         cnonce=\"0a4f113b\", response=\"6629fae49393a05397450978507c4ef1\", \
         opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"",
    );
    assert!(found.verify("Mufasa", "Circle Of Life", "GET"));
    assert!(!found.verify("Mufasa", "Circle Of Life", "POST"));
    assert!(!found.verify("Mufasa", "circle of life", "GET"));
    assert!(!found.verify("mufasa", "Circle Of Life", "GET"));
    assert!(!found.verify("Mufasa", "", "GET"));
}

/// RFC 7616 §3.9.1, both algorithms.
#[test]
fn the_examples_of_rfc_7616() {
    let with = |algorithm: &str, response: &str| {
        digest(&format!(
            "Digest username=\"Mufasa\", realm=\"http-auth@example.org\", uri=\"/dir/index.html\", \
             algorithm={algorithm}, nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", nc=00000001, \
             cnonce=\"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ\", qop=auth, response=\"{response}\", \
             opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""
        ))
    };
    let md5 = with("MD5", "8ca523f5e9506fed4657c9700eebdbec");
    let sha = with("SHA-256", "753927FA0E85D155564E2E272A28D1802CA10DAF4496794697CF8DB5856CB6C1");
    for found in [md5, sha] {
        assert!(found.verify("Mufasa", "Circle of Life", "GET"), "{:?}", found.algorithm);
        assert!(!found.verify("Mufasa", "Circle of life", "GET"));
    }
    assert!(!with("MD5", "").verify("Mufasa", "Circle of Life", "GET"));
}

#[test]
fn a_session_digest_is_bound_to_both_nonces() {
    let hash = |text: &str| Hash::Sha256.hex(text);
    let secret = hash(&format!("{}:n:c", hash("u:r:p")));
    let response = hash(&format!("{secret}:n:{}", hash("PLAY:rtsp://h/cam")));
    let value = |cnonce: &str| {
        digest(&format!(
            "Digest username=u, realm=r, nonce=n, uri=\"rtsp://h/cam\", algorithm=\"sha-256-SESS\", \
             cnonce={cnonce}, response={response}"
        ))
    };
    assert!(value("c").verify("u", "p", "PLAY"));
    assert!(!value("d").verify("u", "p", "PLAY"));
}

#[test]
fn a_hashed_user_name_is_recognised() {
    let hash = |text: &str| Hash::Md5.hex(text);
    let response = hash(&format!("{}:n:{}", hash("u:r:p"), hash("PLAY:/cam")));
    let user = hash("u:r");
    let value = format!(
        "Digest userhash=true, username=\"{user}\", realm=r, nonce=n, uri=\"/cam\", response={response}"
    );
    assert!(digest(&value).verify("u", "p", "PLAY"));
    assert!(!digest(&value).verify("v", "p", "PLAY"));
}

#[test]
fn parameters_come_in_any_order_case_and_quoting() {
    let hash = |text: &str| Hash::Md5.hex(text);
    let response = hash(&format!("{}:n:{}", hash("a,\"b\\:r:p"), hash("PLAY:/cam")));
    for value in [
        format!("DIGEST response={response},uri=\"/cam\",nonce=\"n\",realm=r,username=\"a,\\\"b\\\\\""),
        format!(
            "Digest\tUserName = \"a,\\\"b\\\\\" ,, Realm= \"r\",NONCE=n , Uri=/cam, Response = \"{response}\","
        ),
        format!(
            "Digest username*=utf-8''a%2C%22b%5C, realm=r, nonce=n, uri=/cam, qop=\"\", response={response}"
        ),
    ] {
        let found = digest(&value);
        assert_eq!(found.username, "a,\"b\\", "{value}");
        assert!(found.verify("a,\"b\\", "p", "PLAY"), "{value}");
    }
    let whole = "username=u, realm=r, nonce=n, uri=/, response=0";
    for (value, error) in [
        ("username=u, realm=r, nonce=n, uri=/".to_owned(), AuthorizationError::Missing),
        ("username=\"u, realm=r".to_owned(), AuthorizationError::Parameters),
        ("username=\"u\"x, realm=r".to_owned(), AuthorizationError::Parameters),
        ("username".to_owned(), AuthorizationError::Parameters),
        (format!("{whole}, nonce=m"), AuthorizationError::Parameters),
        (format!("{whole}, algorithm=SHA-512-256"), AuthorizationError::Algorithm),
        (format!("{whole}, qop=auth-int, nc=1, cnonce=c"), AuthorizationError::Qop),
        (format!("{whole}, qop=auth"), AuthorizationError::Missing),
        (format!("{whole}, username*=latin1''u"), AuthorizationError::Parameters),
        (format!("{whole}, username*=utf-8''%e"), AuthorizationError::Parameters),
        ((0..40).map(|n| format!("p{n}=1,")).collect(), AuthorizationError::Parameters),
    ] {
        assert_eq!(Authorization::parse(&format!("Digest {value}")).unwrap_err(), error, "{value}");
    }
}

#[test]
fn the_uri_is_the_url_or_its_path() {
    let about = |method: &str, uri: &str, url: &str| {
        digest(&format!("Digest username=u, realm=r, nonce=n, uri=\"{uri}\", response=0"))
            .is_about(method, url)
    };
    let url = "rtsp://h:8554/a/cam?x=1";
    for uri in [url, "rtsp://h:8554/a/cam", "rtsp://10.0.0.1/a/cam/", "/a/cam", "/a/cam?x=1"] {
        assert!(about("DESCRIBE", uri, url), "{uri}");
    }
    for uri in ["/a", "/a/ca", "rtsp://h:8554/", "", "/b/cam", "a/cam"] {
        assert!(!about("DESCRIBE", uri, url), "{uri}");
    }
    let track = "rtsp://h:8554/a/cam/trackID=0";
    assert!(about("SETUP", "rtsp://h:8554/a/cam/", track));
    assert!(about("SETUP", track, track));
    assert!(!about("SETUP", "/a/ca", track));
    assert!(!about("DESCRIBE", "/a/cam", track));
}

#[test]
fn nothing_of_it_is_shown() {
    for value in ["Basic YWRtOnNlOmNyZXQ=", "Digest username=adm, realm=r, nonce=n, uri=/, response=0"] {
        assert!(!format!("{:?}", Authorization::parse(value)).contains("adm"));
    }
}
