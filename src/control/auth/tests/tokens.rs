//! `authMethod: jwt`.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Router, http::StatusCode, routing::get};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp, jwk::Jwk};
use serde_json::{Value, json};

use super::*;

struct Signer {
    key: EncodingKey,
    algorithm: Algorithm,
    id: &'static str,
    jwk: Value,
}

/// Of an Ed25519 key without its public half (RFC 8410 §7), before the secret.
const ED25519_BEGIN: [u8; 16] = [48, 46, 2, 1, 0, 48, 5, 6, 3, 43, 101, 112, 4, 34, 4, 32];

impl Signer {
    fn ed25519(id: &'static str) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let secret = &pair.serialize_der()[16..48];
        let key = EncodingKey::from_ed_der(&[&ED25519_BEGIN[..], secret].concat());
        let x = BASE64_URL_SAFE_NO_PAD.encode(pair.public_key_raw());
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": id, "use": "sig"});
        Self { key, algorithm: Algorithm::EdDSA, id, jwk }
    }

    fn es256(id: &'static str) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap()).unwrap();
        jwk["kid"] = json!(id);
        Self { key, algorithm: Algorithm::ES256, id, jwk }
    }

    fn jwk(&self) -> Value {
        self.jwk.clone()
    }

    fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.id.to_owned()), ..Header::new(self.algorithm) };
        encode(&header, claims, &self.key).unwrap()
    }
}

/// Serves what `set` holds; how often it was asked.
async fn key_server(set: Arc<Mutex<Value>>) -> (String, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let answer = move || {
        let (set, count) = (Arc::clone(&set), Arc::clone(&count));
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            let set = set.lock().unwrap().clone();
            match set.is_null() {
                true => (StatusCode::BAD_GATEWAY, String::new()),
                false => (StatusCode::OK, set.to_string()),
            }
        }
    };
    (serve(Router::new().route("/jwks", get(answer))).await, asked)
}

fn checking(base: &str) -> Auth {
    checking_with(base, false)
}

fn checking_with(base: &str, in_http_query: bool) -> Auth {
    auth(AuthMethod::Jwt {
        jwks_url: format!("{base}/jwks"),
        fingerprint: None,
        claim: "may".to_owned(),
        exclude: vec![may(Action::Metrics, PathScope::Any)],
        issuer: Some("https://issuer".to_owned()),
        audience: Some("relay".to_owned()),
        in_http_query,
    })
}

fn claims() -> Value {
    json!({
        "sub": "jo", "iss": "https://issuer", "aud": ["relay", "other"], "exp": get_current_timestamp() + 600,
        "may": [{"action": "publish", "path": ""}, {"action": "read", "path": "~^cam"}],
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn bearer(token: String) -> Question {
    question(Credentials::Bearer(token))
}

#[tokio::test]
async fn claims_decide() {
    let signer = Signer::ed25519("a");
    let set = Arc::new(Mutex::new(json!({"keys": [signer.jwk()]})));
    let (base, asked) = key_server(set).await;
    let auth = checking(&base);
    let now = get_current_timestamp();
    for claims in [
        claims(),
        with("may", json!("[{\"action\": \"read\", \"path\": \"cam\"}]")),
        with("may", json!([{"action": "read"}])),
        with("aud", json!("relay")),
        without("exp"),
        with("nbf", json!(now - 5)),
    ] {
        let verdict = auth.decide(bearer(signer.sign(&claims))).await;
        assert_eq!(verdict, allowed("jo"), "{claims}");
    }
    for (claims, because) in [
        (with("exp", json!(now - 5)), "has expired"),
        (with("nbf", json!(now + 500)), "not valid yet"),
        (with("iss", json!("https://evil")), "another issuer"),
        (without("iss"), "no claim 'iss'"),
        (without("aud"), "no claim 'aud'"),
        (without("may"), "no claim 'may'"),
        (with("exp", json!("soon")), "cannot be read"),
        (with("aud", json!("other")), "another audience"),
        (with("may", json!([{"action": "publish"}])), "does not permit"),
        (with("may", json!([{"action": "read", "path": "ca"}])), "does not permit"),
        (with("may", json!([{"action": "read", "path": "~("}])), "does not permit"),
        (with("may", json!({"read": true})), "no list"),
        (with("may", json!("read")), "no list"),
    ] {
        assert_denied(&auth.decide(bearer(signer.sign(&claims))).await, because);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1, "the key set is kept");
    // Cheap to check, tokens are not limited.
    assert_eq!(auth.decide(bearer(signer.sign(&claims()))).await, allowed("jo"));
    let metrics = Question { action: Action::Metrics, ..question(Credentials::None) };
    assert_eq!(auth.at_once(&metrics), Some(allowed("")));
}

#[tokio::test]
async fn the_token_comes_as_bearer_password_or_in_the_query() {
    let signer = Signer::es256("a");
    let (base, _) = key_server(Arc::new(Mutex::new(json!({"keys": [signer.jwk()]})))).await;
    let auth = checking(&base);
    let token = signer.sign(&claims());
    assert_eq!(auth.decide(question(basic("anyone", &token))).await, allowed("jo"));
    let in_query = |query: String, protocol| Question { query, protocol, ..question(Credentials::None) };
    for query in [
        format!("token={token}"),
        format!("x=1&jwt={token}&y"),
        format!("token={}", token.replace('.', "%2E")),
    ] {
        assert_eq!(auth.decide(in_query(query, Protocol::Rtsp)).await, allowed("jo"));
    }
    let verdict = auth.decide(in_query("token=x.y.z".to_owned(), Protocol::Rtsp)).await;
    assert_denied(&verdict, "no JWT");
    for protocol in [Protocol::Http, Protocol::Hls, Protocol::WebRtc] {
        let verdict = auth.decide(in_query(format!("token={token}"), protocol)).await;
        assert_eq!(verdict, Verdict::Challenge);
    }
    assert_denied(&auth.decide(question(basic("jo", ""))).await, "no token");
    assert_eq!(auth.at_once(&question(Credentials::None)), Some(Verdict::Challenge));
}

/// `authJWTInHTTPQuery`, for players that cannot send a header.
#[tokio::test]
async fn a_viewer_over_hls_may_have_the_token_in_the_query_if_that_is_configured() {
    let signer = Signer::ed25519("a");
    let (base, _) = key_server(Arc::new(Mutex::new(json!({"keys": [signer.jwk()]})))).await;
    let token = signer.sign(&claims());
    let hls =
        |query: String, credentials| Question { query, protocol: Protocol::Hls, ..question(credentials) };
    for in_query in [true, false] {
        let auth = checking_with(&base, in_query);
        let bearer = Credentials::Bearer(token.clone());
        assert_eq!(auth.decide(hls(String::new(), bearer)).await, allowed("jo"));
        for name in ["token", "jwt"] {
            let verdict = auth.decide(hls(format!("{name}={token}"), Credentials::None)).await;
            assert_eq!(
                verdict,
                if in_query { allowed("jo") } else { Verdict::Challenge },
                "{name} {in_query}"
            );
        }
        let elsewhere =
            Question { path: "lobby".to_owned(), ..hls(format!("token={token}"), Credentials::None) };
        let verdict = auth.decide(elsewhere).await;
        match in_query {
            true => assert_denied(&verdict, "does not permit"),
            false => assert_eq!(verdict, Verdict::Challenge),
        }
    }
}

#[tokio::test]
async fn a_key_is_used_for_its_own_algorithm_only() {
    let (signer, other) = (Signer::es256("a"), Signer::es256("a"));
    let mut jwk = signer.jwk();
    let (base, _) = key_server(Arc::new(Mutex::new(json!({"keys": [{"kty": "what"}, jwk.clone()]})))).await;
    let auth = checking(&base);
    assert_denied(&auth.decide(bearer(other.sign(&claims()))).await, "signature is wrong");
    // The public key as a shared secret: an old trick.
    let secret = EncodingKey::from_secret(jwk["x"].take().as_str().unwrap().as_bytes());
    let forged = Signer { key: secret, algorithm: Algorithm::HS256, id: "a", jwk };
    assert_denied(&auth.decide(bearer(forged.sign(&claims()))).await, "no key");
    let token = signer.sign(&claims());
    let body = token.split_once('.').unwrap().1;
    // {"alg":"none"}
    assert_denied(&auth.decide(bearer(format!("eyJhbGciOiJub25lIn0.{body}"))).await, "no JWT");
    assert_denied(&auth.decide(bearer("x".repeat(20_000))).await, "longer");
    assert_eq!(auth.decide(bearer(token)).await, allowed("jo"));
}

#[tokio::test]
async fn keys_that_are_not_known_are_looked_for_once_in_a_while() {
    let (old, new) = (Signer::ed25519("old"), Signer::ed25519("new"));
    let set = Arc::new(Mutex::new(json!({"keys": [old.jwk()]})));
    let (base, asked) = key_server(Arc::clone(&set)).await;
    let auth = checking(&base);
    assert_eq!(auth.decide(bearer(old.sign(&claims()))).await, allowed("jo"));
    *set.lock().unwrap() = json!({"keys": [new.jwk()]});
    for _ in 0..3 {
        assert_denied(&auth.decide(bearer(new.sign(&claims()))).await, "no key");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1, "fetched a moment ago");
    auth.refresh_jwks().await.unwrap();
    assert_eq!(auth.decide(bearer(new.sign(&claims()))).await, allowed("jo"));
    assert_denied(&auth.decide(bearer(old.sign(&claims()))).await, "no key");
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_key_set_that_cannot_be_had_is_not_asked_for_by_everyone() {
    let signer = Signer::ed25519("a");
    let set = Arc::new(Mutex::new(Value::Null));
    let (base, asked) = key_server(Arc::clone(&set)).await;
    let auth = Arc::new(checking(&base));
    let token = signer.sign(&claims());
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let (auth, question) = (Arc::clone(&auth), bearer(token.clone()));
            tokio::spawn(async move { auth.decide(question).await })
        })
        .collect();
    for task in waiting {
        assert_denied(&task.await.unwrap(), "its server answered 502");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!(auth.counters().errors, 20);
    assert!(auth.refresh_jwks().await.unwrap_err().contains("502"));
    *set.lock().unwrap() = json!({"keys": []});
    assert!(auth.refresh_jwks().await.unwrap_err().contains("no key that can be used"));
    *set.lock().unwrap() = json!({"keys": [signer.jwk()]});
    auth.refresh_jwks().await.unwrap();
    assert_eq!(auth.decide(bearer(token)).await, allowed("jo"));
}
