//! `authMethod: http`.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Json, Router, http::StatusCode, response::Redirect, routing::post};
use serde_json::{Value, json};

use super::*;

fn asking(url: String, timeout: Duration) -> Auth {
    let exclude =
        vec![may(Action::Api, PathScope::Any), may(Action::Read, PathScope::Exact("open".to_owned()))];
    let method = AuthMethod::Http { url, fingerprint: None, exclude };
    let settings = AuthSettings { method, timeout };
    Auth { penalties: Penalties::with_delay(Duration::from_millis(1)), ..Auth::new(Arc::new(settings)) }
}

/// Lets in whose password is `secret`, and never answers `hang`; what it was asked.
async fn server() -> (String, Arc<Mutex<Vec<Value>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let answer = move |Json(body): Json<Value>| {
        let seen = Arc::clone(&seen);
        async move {
            seen.lock().unwrap().push(body.clone());
            match body["password"].as_str() {
                Some("hang") => std::future::pending().await,
                Some("secret") => (StatusCode::NO_CONTENT, String::new()),
                _ => (StatusCode::UNAUTHORIZED, format!("not\n you\r\n{}", "x".repeat(1 << 20))),
            }
        }
    };
    let router = Router::new()
        .route("/auth", post(answer))
        .route("/moved", post(|| async { Redirect::temporary("/auth") }));
    (serve(router).await, asked)
}

#[tokio::test]
async fn the_server_is_told_all_and_decides() {
    let (base, asked) = server().await;
    let auth = asking(format!("{base}/auth"), Duration::from_secs(5));
    let mut question = Question { query: "a=1".to_owned(), ..question(basic("jo", "secret")) };
    question.ip = "::ffff:10.0.0.1".parse().unwrap();
    assert_eq!(auth.decide(question.clone()).await, allowed("jo"));
    let expected = json!({
        "ip": "10.0.0.1", "user": "jo", "password": "secret", "token": "secret", "action": "read",
        "path": "cam", "protocol": "rtsp", "id": "00000000-0000-0000-0000-000000000007", "query": "a=1",
        "userAgent": "player"
    });
    assert_eq!(asked.lock().unwrap().pop().unwrap(), expected);
    question.credentials = Credentials::Bearer("tok".to_owned());
    (question.protocol, question.id) = (Protocol::Http, None);
    let verdict = auth.decide(question.clone()).await;
    assert_denied(&verdict, "answered 401: not you xxx");
    let Verdict::Denied { reason } = verdict else { panic!() };
    assert!(reason.len() <= (128 << 10) + 100, "{}", reason.len());
    let last = asked.lock().unwrap().pop().unwrap();
    let found = [&last["user"], &last["password"], &last["token"], &last["protocol"], &last["id"]];
    assert_eq!(found, [&json!(""), &json!(""), &json!("tok"), &json!(""), &Value::Null]);
    // One who presents nothing is asked about, too, and then asked.
    question.credentials = Credentials::None;
    assert_eq!(auth.decide(question.clone()).await, Verdict::Challenge);
    assert_eq!(asked.lock().unwrap().len(), 1);
    for (action, path) in [(Action::Api, ""), (Action::Read, "open")] {
        let excluded = Question { action, path: path.to_owned(), ..question.clone() };
        assert_eq!(auth.at_once(&excluded), Some(allowed("")));
    }
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn of_a_viewer_over_hls_the_server_is_told_the_query_and_no_token_of_it() {
    let (base, asked) = server().await;
    let auth = asking(format!("{base}/auth"), Duration::from_secs(5));
    let hls = |credentials| Question {
        protocol: Protocol::Hls,
        query: "token=t&_HLS_msn=3".to_owned(),
        ..question(credentials)
    };
    assert_eq!(auth.decide(hls(basic("jo", "secret"))).await, allowed("jo"));
    let told = asked.lock().unwrap().pop().unwrap();
    let of = |key: &str| told[key].as_str().unwrap().to_owned();
    assert_eq!([of("protocol"), of("action"), of("query")], ["hls", "read", "token=t&_HLS_msn=3"]);
    assert_eq!([of("id"), of("userAgent")], ["00000000-0000-0000-0000-000000000007", "player"]);
    assert_eq!(auth.decide(hls(Credentials::None)).await, Verdict::Challenge);
    assert_eq!(asked.lock().unwrap().pop().unwrap()["token"], json!(""), "it judges the query for itself");
    assert_denied(&auth.decide(hls(Credentials::Bearer("t".to_owned()))).await, "answered 401");
    assert_eq!(asked.lock().unwrap().pop().unwrap()["token"], json!("t"));
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (base, asked) = server().await;
    let auth = asking(format!("{base}/moved"), Duration::from_secs(5));
    assert_denied(&auth.decide(question(basic("jo", "secret"))).await, "answered 307");
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn one_who_hangs_delays_nobody_else_and_a_dead_server_is_nobodys_failure() {
    let (base, _) = server().await;
    let auth = Arc::new(asking(format!("{base}/auth"), Duration::from_secs(2)));
    let hanging: Vec<_> = (0..50)
        .map(|_| {
            let auth = Arc::clone(&auth);
            tokio::spawn(async move { auth.decide(question(basic("jo", "hang"))).await })
        })
        .collect();
    assert_eq!(auth.decide(question(basic("jo", "secret"))).await, allowed("jo"));
    assert!(hanging.iter().all(|task| !task.is_finished()));
    for task in hanging {
        assert_denied(&task.await.unwrap(), "did not answer in time");
    }
    assert_eq!(auth.counters().errors, 50);
    assert!(!auth.penalties.is_limited("10.0.0.1".parse().unwrap()));
    let dead = asking("http://user:secret@127.0.0.1:1/auth".to_owned(), Duration::from_secs(2));
    let verdict = dead.decide(question(basic("jo", "x"))).await;
    assert_denied(&verdict, "cannot be asked");
    let Verdict::Denied { reason } = verdict else { panic!() };
    assert!(!reason.contains("secret"), "{reason}");
    assert_eq!(dead.decide(question(Credentials::None)).await, Verdict::Challenge);
}

#[tokio::test]
async fn more_than_there_is_room_for_are_turned_away_at_once() {
    let (base, _) = server().await;
    let auth = Arc::new(asking(format!("{base}/auth"), Duration::from_secs(2)));
    let refused = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..1100)
        .map(|_| {
            let (auth, refused) = (Arc::clone(&auth), Arc::clone(&refused));
            tokio::spawn(async move {
                let verdict = auth.decide(question(basic("jo", "hang"))).await;
                if format!("{verdict:?}").contains("more clients wait") {
                    refused.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(refused.load(Ordering::SeqCst), 1100 - 1088);
    assert_eq!(auth.decide(question(basic("jo", "secret"))).await, allowed("jo"));
}

#[tokio::test]
async fn one_who_fails_often_is_not_asked_about_but_one_who_was_right_is() {
    let (base, asked) = server().await;
    let auth = asking(format!("{base}/auth"), Duration::from_secs(5));
    assert_eq!(auth.decide(question(basic("jo", "secret"))).await, allowed("jo"));
    for n in 0..12 {
        let verdict = auth.decide(question(basic("jo", &n.to_string()))).await;
        assert_denied(&verdict, if n < 10 { "answered 401" } else { "too many attempts" });
    }
    assert_eq!(asked.lock().unwrap().len(), 11);
    assert_eq!(auth.decide(question(basic("jo", "secret"))).await, allowed("jo"));
    assert_eq!(auth.decide(question(Credentials::None)).await, Verdict::Challenge);
    assert_eq!(asked.lock().unwrap().len(), 13);
}

/// A TLS server with a certificate of its own making; its address, and the certificate's fingerprint.
async fn tls_server() -> (String, [u8; 32]) {
    use sha2::Digest as _;
    let made = rcgen::generate_simple_self_signed(["elsewhere.example".to_owned()]).unwrap();
    let fingerprint = sha2::Sha256::digest(made.cert.der()).into();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let Ok((conn, _)) = listener.accept().await else { return };
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(conn) = acceptor.accept(conn).await else { return };
                let router = Router::new().route("/auth", post(|| async { StatusCode::OK }));
                let service = hyper_util::service::TowerToHyperService::new(router);
                let io = hyper_util::rt::TokioIo::new(conn);
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
            });
        }
    });
    (format!("https://{address}/auth"), fingerprint)
}

#[tokio::test]
async fn a_fingerprint_takes_the_place_of_authorities() {
    let (url, right) = tls_server().await;
    let asking = |fingerprint| auth(AuthMethod::Http { url: url.clone(), fingerprint, exclude: Vec::new() });
    assert_eq!(asking(Some(right)).decide(question(basic("jo", "x"))).await, allowed("jo"));
    let verdict = asking(Some([0; 32])).decide(question(basic("jo", "x"))).await;
    assert_denied(&verdict, "another fingerprint");
    assert_denied(
        &asking(None).decide(question(basic("jo", "x"))).await,
        "the authentication server cannot be asked",
    );
}
