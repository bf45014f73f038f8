//! Who gets in, and who does not: every way to present credentials against every way to be wrong.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};
use base64::{Engine, prelude::BASE64_STANDARD};
use jsonwebtoken::{EncodingKey, Header, jwk::Jwk};
use md5::{Digest, Md5};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::support::{
    Camera, CameraPlan, PATIENCE, Rtsp, Server,
    camera::{SDP, announce_on},
    http::request,
    ours_or_say_skipped,
    rtsp::Response,
};

/// `cam` is published by `enc`; who may read what is each test's affair.
const USERS: &str = "\
authInternalUsers:
- {user: enc, pass: enc, permissions: [{action: publish}]}
- {user: viewer, pass: 'pa$s', permissions: [{action: read, path: cam}, {action: api}]}
- {user: nopass, permissions: [{action: read, path: cam}]}
- {user: 'sha256:n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=', pass: 'sha256:n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=', permissions: [{action: read}]}
- {user: elsewhere, pass: p, ips: [127.0.0.9, 10.0.0.0/8], permissions: [{action: read}, {action: api}]}
- {user: metro, pass: p, permissions: [{action: read, path: '~^metro_[0-9]+$'}]}
- {user: scraper, pass: p, permissions: [{action: metrics}]}
";
// The hash is that of "test".

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hash(algorithm: &str, text: &str) -> String {
    match algorithm {
        "SHA-256" => hex(&Sha256::digest(text)),
        _ => hex(&Md5::digest(text)),
    }
}

/// A field of a challenge: `nonce="…"`.
fn field<'a>(challenge: &'a str, name: &str) -> &'a str {
    let start = challenge.find(&format!("{name}=\"")).unwrap() + name.len() + 2;
    &challenge[start..start + challenge[start..].find('"').unwrap()]
}

/// Answers the challenge for `algorithm` in a 401.
fn digest(
    refused: &Response,
    algorithm: &str,
    user: &str,
    password: &str,
    method: &str,
    url: &str,
) -> String {
    let challenges = refused.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("WWW-Authenticate"));
    let challenge = challenges
        .map(|(_, value)| value)
        .find(|value| value.starts_with("Digest") && (algorithm == "SHA-256") == value.contains("SHA-256"))
        .unwrap_or_else(|| panic!("no {algorithm} challenge in {refused:?}"));
    let (realm, nonce) = (field(challenge, "realm"), field(challenge, "nonce"));
    let ha1 = hash(algorithm, &format!("{user}:{realm}:{password}"));
    let ha2 = hash(algorithm, &format!("{method}:{url}"));
    let response = hash(algorithm, &format!("{ha1}:{nonce}:{ha2}"));
    let extra = if algorithm == "SHA-256" { ", algorithm=SHA-256" } else { "" };
    format!(
        "Digest username=\"{user}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{url}\", response=\"{response}\"{extra}"
    )
}

fn publish(server: &Server, path: &str) -> Camera {
    let mut client = Rtsp::connect(server);
    client.authorization = Some(basic("enc", "enc"));
    let recording = announce_on(&mut client, path);
    assert_eq!(recording.status, 200, "{recording:?}");
    let camera = Camera::from(client, CameraPlan::default());
    camera.wait_frames(2);
    camera
}

/// DESCRIBE by Basic: the status.
fn basic_read(server: &Server, from: Ipv4Addr, path: &str, user: &str, password: &str) -> u16 {
    let mut client = Rtsp::connect_from(server, from, None);
    client.authorization = Some(basic(user, password));
    client.describe(path).status
}

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

#[test]
fn basic_over_rtsp_lets_in_whom_the_users_name_and_nobody_else() {
    let server = Server::with(USERS, "  all_others:\n");
    let _cameras = [publish(&server, "cam"), publish(&server, "metro_12"), publish(&server, "metro_x")];
    let mut stranger = Rtsp::connect(&server);
    let refused = stranger.describe("cam");
    assert_eq!(refused.status, 401);
    assert!(refused.header("WWW-Authenticate").unwrap().starts_with("Basic realm="), "{refused:?}");
    // The connection is open for the second attempt.
    stranger.authorization = Some(basic("viewer", "pa$s"));
    assert_eq!(stranger.describe("cam").status, 200);
    for (from, path, user, password, status) in [
        (HERE, "cam", "viewer", "pa$s", 200),
        (HERE, "cam", "viewer", "pa$S", 401),
        (HERE, "cam", "viewer", "", 401),
        (HERE, "cam", "viewer2", "pa$s", 401),
        (HERE, "metro_12", "viewer", "pa$s", 401),
        (HERE, "cam", "nopass", "", 200),
        (HERE, "cam", "nopass", "anything", 200),
        (HERE, "cam", "test", "test", 200),
        (HERE, "cam", "test", "tesT", 401),
        (HERE, "cam", "elsewhere", "p", 401),
        (ELSEWHERE, "cam", "elsewhere", "p", 200),
        (HERE, "metro_12", "metro", "p", 200),
        (HERE, "metro_x", "metro", "p", 401),
        (HERE, "cam", "scraper", "p", 401),
        (HERE, "cam", "enc", "enc", 401),
    ] {
        assert_eq!(
            basic_read(&server, from, path, user, password),
            status,
            "{user}:{password} from {from} on {path}"
        );
    }
    let line = server.wait_log(&[" WAR ", "failed to authenticate"], PATIENCE);
    assert!(line.contains("[RTSP] [conn 127.0.0.1:"), "fail2ban reads the address: {line}");
    assert!(!server.log_text().contains("pa$"), "a password in the log");
    // A publisher without the right to is refused too.
    let mut thief = Rtsp::connect(&server);
    thief.authorization = Some(basic("viewer", "pa$s"));
    let url = thief.url("other");
    let refused = thief.request("ANNOUNCE", &url, &[("Content-Type", "application/sdp")], SDP);
    assert_eq!(refused.status, 401);
}

#[test]
fn digest_over_rtsp_by_md5_and_sha_256() {
    if !ours_or_say_skipped("digest_over_rtsp_by_md5_and_sha_256") {
        return;
    }
    let users = "\
rtspAuthMethods: [basic, digest]
authInternalUsers:
- {user: enc, pass: enc, permissions: [{action: publish}]}
- {user: viewer, pass: 'pa$s', permissions: [{action: read, path: cam}]}
- {user: nopass, permissions: [{action: read, path: cam}]}
- {user: elsewhere, pass: p, ips: [127.0.0.9], permissions: [{action: read}]}
- {user: metro, pass: p, permissions: [{action: read, path: '~^metro_[0-9]+$'}]}
";
    let server = Server::with(users, "  all_others:\n");
    let _cameras = [publish(&server, "cam"), publish(&server, "metro_12")];
    for algorithm in ["MD5", "SHA-256"] {
        for (from, path, user, password, status) in [
            (HERE, "cam", "viewer", "pa$s", 200),
            (HERE, "cam", "viewer", "wrong", 401),
            (HERE, "cam", "viewer", "", 401),
            (HERE, "metro_12", "viewer", "pa$s", 401),
            (HERE, "cam", "elsewhere", "p", 401),
            (ELSEWHERE, "cam", "elsewhere", "p", 200),
            (HERE, "metro_12", "metro", "p", 200),
            (HERE, "cam", "enc", "enc", 401),
        ] {
            let mut client = Rtsp::connect_from(&server, from, None);
            let refused = client.describe(path);
            assert_eq!(refused.status, 401);
            let url = client.url(path);
            client.authorization = Some(digest(&refused, algorithm, user, password, "DESCRIBE", &url));
            let found = client.describe(path).status;
            assert_eq!(found, status, "{algorithm} {user}:{password} from {from} on {path}");
        }
        // A response to another connection's challenge is worth nothing.
        let refused = Rtsp::connect(&server).describe("cam");
        let mut client = Rtsp::connect(&server);
        client.describe("cam");
        let url = client.url("cam");
        client.authorization = Some(digest(&refused, algorithm, "viewer", "pa$s", "DESCRIBE", &url));
        assert_eq!(client.describe("cam").status, 401, "{algorithm}: a foreign nonce");
    }
}

#[test]
fn where_only_digests_are_wanted_a_password_is_not_taken() {
    let users = "\
rtspAuthMethods: [digest]
authInternalUsers:
- {user: any, permissions: [{action: publish}]}
- {user: viewer, pass: p, permissions: [{action: read}]}
";
    let server = Server::with(users, "  all_others:\n");
    let camera = Camera::publish(&server, "cam", CameraPlan::default());
    camera.wait_frames(2);
    assert_eq!(basic_read(&server, HERE, "cam", "viewer", "p"), 401);
    let mut client = Rtsp::connect(&server);
    let refused = client.describe("cam");
    assert_eq!(refused.status, 401);
    client.authorization = Some(digest(&refused, "MD5", "viewer", "p", "DESCRIBE", &client.url("cam")));
    assert_eq!(client.describe("cam").status, 200);
}

#[test]
fn basic_and_bearer_over_http() {
    let server = Server::with_api(USERS, "  all_others:\n");
    let api = |headers: &[(&str, &str)]| request(server.api_port, "GET", "/v3/info", headers, "");
    let refused = api(&[]);
    assert_eq!(refused.status, 401);
    assert_eq!(refused.json()["error"], "authentication error");
    assert_eq!(refused.header("www-authenticate"), Some("Basic realm=\"mediamtx\""));
    for (authorization, status) in [
        (basic("viewer", "pa$s"), 200),
        ("Bearer viewer:pa$s".to_owned(), 200),
        (basic("viewer", "wrong"), 401),
        (basic("viewer", ""), 401),
        ("Bearer viewer:wrong".to_owned(), 401),
        ("Bearer token".to_owned(), 401),
        (basic("elsewhere", "p"), 401),
        (basic("scraper", "p"), 401),
        ("Basic !!!".to_owned(), 401),
    ] {
        let answer = api(&[("Authorization", &authorization)]);
        assert_eq!(answer.status, status, "{authorization}");
    }
    let metrics = |credentials: &str| {
        request(server.metrics_port, "GET", "/metrics", &[("Authorization", credentials)], "").status
    };
    assert_eq!(metrics(&basic("scraper", "p")), 200);
    assert_eq!(metrics(&basic("viewer", "pa$s")), 401);
}

/// A little authentication server: lets in whose body holds `secret`, and never answers who says `hang`.
fn auth_server() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    thread::spawn(move || {
        for conn in listener.incoming() {
            let (mut conn, count) = (conn.unwrap(), Arc::clone(&count));
            thread::spawn(move || {
                let mut request = Vec::new();
                let mut chunk = [0; 4096];
                let body = loop {
                    let n = conn.read(&mut chunk).unwrap_or(0);
                    request.extend_from_slice(&chunk[..n]);
                    let text = String::from_utf8_lossy(&request).into_owned();
                    if n == 0 || text.ends_with('}') {
                        break text;
                    }
                };
                count.fetch_add(1, Ordering::SeqCst);
                if body.contains("hang") {
                    thread::sleep(Duration::from_secs(60));
                }
                let status = if body.contains("secret") { "200 OK" } else { "401 Unauthorized" };
                let _ = write!(conn, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            });
        }
    });
    (port, asked)
}

/// Everything but publishing, the API and the metrics is asked about.
fn with_auth_server(port: u16) -> (Server, Camera) {
    let globals = format!(
        "authMethod: http\nauthHTTPAddress: http://127.0.0.1:{port}/auth\nauthHTTPExclude:\n- action: publish\n- action: api\n- action: metrics\n"
    );
    let server = Server::with_api(&globals, "  all_others:\n");
    let camera = Camera::publish(&server, "cam", CameraPlan::default());
    camera.wait_frames(2);
    (server, camera)
}

#[test]
fn an_http_server_decides() {
    let (port, asked) = auth_server();
    let (server, _camera) = with_auth_server(port);
    assert_eq!(asked.load(Ordering::SeqCst), 0, "publishing is excluded");
    assert_eq!(Rtsp::connect(&server).describe("cam").status, 401);
    assert_eq!(basic_read(&server, HERE, "cam", "viewer", "secret"), 200);
    assert_eq!(basic_read(&server, HERE, "cam", "viewer", "wrong"), 401);
    // A reader is asked about when it looks, and when it becomes a session; not for each request.
    let before = asked.load(Ordering::SeqCst);
    assert!(before >= 3);
    let mut reader = Rtsp::connect(&server);
    reader.authorization = Some(basic("viewer", "secret"));
    reader.setup_all_tcp("cam");
    assert_eq!(reader.play().status, 200);
    assert_eq!(asked.load(Ordering::SeqCst), before + 2);
}

#[test]
fn an_http_server_that_hangs_delays_nobody_else() {
    if !ours_or_say_skipped("an_http_server_that_hangs_delays_nobody_else") {
        return;
    }
    let (port, asked) = auth_server();
    let (server, _camera) = with_auth_server(port);
    // Fifty clients whose answer does not come, and others beside them.
    let mut waiting = Vec::new();
    for _ in 0..50 {
        let mut client = Rtsp::connect(&server);
        let text = format!(
            "DESCRIBE {} RTSP/1.0\r\nCSeq: 1\r\nAuthorization: {}\r\n\r\n",
            server.url("cam"),
            basic("hang", "hang")
        );
        assert!(client.send_raw(text.as_bytes()));
        waiting.push(client);
    }
    crate::support::wait_for("the server hangs", PATIENCE, || {
        (asked.load(Ordering::SeqCst) >= 50).then_some(())
    });
    let began = Instant::now();
    assert_eq!(basic_read(&server, HERE, "cam", "viewer", "secret"), 200);
    assert_eq!(server.get("/v3/paths/list").status, 200);
    // Its own limit is 10 s; whoever waited behind it would take longer.
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    let answer = waiting[0].response();
    assert_eq!(answer.status, 401);
}

#[test]
fn argon2_hashes_of_users_and_passwords() {
    let hash = |text: &str| {
        let params = Params::new(256, 1, 1, None).unwrap();
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        argon2.hash_password(text.as_bytes()).unwrap().to_string()
    };
    let users = format!(
        "authInternalUsers:\n\
         - {{user: enc, pass: enc, permissions: [{{action: publish}}]}}\n\
         - {{user: viewer, pass: 'argon2:{}', permissions: [{{action: read}}]}}\n\
         - {{user: 'argon2:{}', pass: 'argon2:{}', permissions: [{{action: read, path: cam}}]}}\n",
        hash("secret"),
        hash("hidden"),
        hash("word"),
    );
    let server = Server::with(&users, "  all_others:\n");
    let _camera = publish(&server, "cam");
    for (user, password, status) in [
        ("viewer", "secret", 200),
        ("viewer", "word", 401),
        ("hidden", "word", 200),
        ("hidden", "secret", 401),
        ("viewer", "", 401),
    ] {
        assert_eq!(basic_read(&server, HERE, "cam", user, password), status, "{user}:{password}");
    }
    // Many at a time, who are right.
    let mut waiting: Vec<_> = (0..100).map(|_| Rtsp::connect(&server)).collect();
    for client in &mut waiting {
        let text = format!(
            "DESCRIBE {} RTSP/1.0\r\nCSeq: 1\r\nAuthorization: {}\r\n\r\n",
            server.url("cam"),
            basic("viewer", "secret")
        );
        assert!(client.send_raw(text.as_bytes()));
    }
    for client in &mut waiting {
        assert_eq!(client.response().status, 200);
    }
}

#[test]
fn who_fails_often_still_gets_in_at_once_when_right() {
    let server = Server::with(USERS, "  all_others:\n");
    let _camera = publish(&server, "cam");
    let mut failing: Vec<_> = (0..15).map(|_| Rtsp::connect(&server)).collect();
    for client in &mut failing {
        let text = format!(
            "DESCRIBE {} RTSP/1.0\r\nCSeq: 1\r\nAuthorization: {}\r\n\r\n",
            server.url("cam"),
            basic("viewer", "wrong")
        );
        assert!(client.send_raw(text.as_bytes()));
    }
    let began = Instant::now();
    for client in &mut failing {
        assert_eq!(client.response().status, 401);
    }
    // Together, not one after the other.
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    let began = Instant::now();
    assert_eq!(basic_read(&server, HERE, "cam", "viewer", "pa$s"), 200);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

/// Serves a key set; the key that signs for it.
fn key_server() -> (u16, EncodingKey) {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let key = EncodingKey::from_ec_der(&pair.serialize_der());
    let mut jwk =
        serde_json::to_value(Jwk::from_encoding_key(&key, jsonwebtoken::Algorithm::ES256).unwrap()).unwrap();
    jwk["kid"] = json!("main");
    let body = json!({"keys": [jwk]}).to_string();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for conn in listener.incoming() {
            let mut conn = conn.unwrap();
            let _ = conn.read(&mut [0; 4096]);
            let length = body.len();
            let _ = write!(
                conn,
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
        }
    });
    (port, key)
}

#[test]
fn a_token_says_what_its_bearer_may_do() {
    let (port, key) = key_server();
    let globals = format!(
        "authMethod: jwt\nauthJWTJWKS: http://127.0.0.1:{port}/jwks\nauthJWTAudience: relay\nauthJWTExclude:\n- action: publish\n"
    );
    let server = Server::with_api(&globals, "  all_others:\n");
    let camera = Camera::publish(&server, "cam", CameraPlan::default());
    camera.wait_frames(2);
    let now = jsonwebtoken::get_current_timestamp();
    let token = |audience: &str, expires: u64, permissions: Value| {
        let claims = json!({
            "sub": "jo", "aud": audience, "exp": expires, "mediamtx_permissions": permissions
        });
        let mut header = Header::new(jsonwebtoken::Algorithm::ES256);
        header.kid = Some("main".to_owned());
        jsonwebtoken::encode(&header, &claims, &key).unwrap()
    };
    let may = |action: &str, path: &str| json!([{"action": action, "path": path}]);
    let reader = token("relay", now + 600, may("read", "~^ca"));
    let as_text = token("relay", now + 600, may("read", "cam").to_string().into());
    let operator = token("relay", now + 600, may("api", ""));
    let expired = token("relay", now - 600, may("read", ""));
    let foreign = token("other", now + 600, may("read", ""));

    let api = |token: &str| {
        let bearer = format!("Bearer {token}");
        request(server.api_port, "GET", "/v3/paths/list", &[("Authorization", &bearer)], "").status
    };
    assert_eq!(server.get("/v3/paths/list").status, 401);
    assert_eq!(api(&operator), 200);
    assert_eq!(api(&reader), 401, "not what the token is for");
    assert_eq!(api("no.token.atall"), 401);
    // The query is for RTSP only.
    let target = format!("/v3/paths/list?token={operator}");
    assert_eq!(server.get(&target).status, 401);

    for (token, status) in
        [(&reader, 200), (&as_text, 200), (&operator, 401), (&expired, 401), (&foreign, 401)]
    {
        assert_eq!(basic_read(&server, HERE, "cam", "whoever", token), status, "as a password: {token}");
        let found = Rtsp::connect(&server).describe(&format!("cam?token={token}")).status;
        assert_eq!(found, status, "in the URL: {token}");
    }
    assert_eq!(Rtsp::connect(&server).describe(&format!("cam?jwt={reader}")).status, 200);
    let refused = Rtsp::connect(&server).describe("cam");
    assert_eq!(refused.status, 401);
    assert!(refused.header("WWW-Authenticate").is_some(), "{refused:?}");
    for token in [&reader, &expired] {
        assert!(!server.log_text().contains(token.as_str()), "a token in the log");
    }
}

#[test]
fn credentials_of_an_older_file_protect_their_own_entry_only() {
    if !ours_or_say_skipped("credentials_of_an_older_file_protect_their_own_entry_only") {
        return;
    }
    let server = Server::with("", "  cam: {readUser: viewer, readPass: p}\n  all_others:\n");
    let mut cameras = Vec::new();
    for path in ["cam", "cam2"] {
        let camera = Camera::publish(&server, path, CameraPlan::default());
        camera.wait_frames(2);
        cameras.push(camera);
    }
    assert_eq!(Rtsp::connect(&server).describe("cam").status, 401);
    assert_eq!(basic_read(&server, HERE, "cam", "viewer", "p"), 200);
    assert_eq!(basic_read(&server, HERE, "cam", "viewer", "q"), 401);
    assert_eq!(Rtsp::connect(&server).describe("cam2").status, 200);
}

#[test]
fn the_older_name_of_the_authentication_server_asks_it_too() {
    let globals = "externalAuthenticationURL: http://127.0.0.1:1/nobody\n";
    let server = Server::with(globals, "  all_others:\n");
    let mut client = Rtsp::connect(&server);
    let url = client.url("cam");
    let refused = client.request("ANNOUNCE", &url, &[("Content-Type", "application/sdp")], SDP);
    assert_eq!(refused.status, 401);
    assert!(server.log_text().contains("externalAuthenticationURL"));
}
