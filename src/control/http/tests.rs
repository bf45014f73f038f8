//! Real sockets, and clients that behave badly.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Extension, Router,
    body::{Body, Bytes},
    response::sse::{Event, Sse},
    routing::{get, post},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
    time::{sleep, timeout},
};
use tokio_stream::{StreamExt as _, wrappers::WatchStream};

use super::*;
use crate::control::{
    api::tests::{office_with, user},
    settings::TlsFiles,
};

/// Nothing takes this long on a healthy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn site(address: HttpAddress) -> Site {
    Site {
        name: "API",
        action: Action::Api,
        cors_methods: "OPTIONS, GET",
        cors_headers: "Authorization",
        settings: HttpSettings {
            address,
            tls: None,
            allow_origins: vec!["https://rta.ae".to_owned()],
            trusted_proxies: vec!["127.0.0.1/32".parse().unwrap()],
        },
        read_timeout: Duration::from_secs(20),
        write_timeout: Duration::from_secs(20),
    }
}

fn any_port() -> HttpAddress {
    HttpAddress::Tcp("127.0.0.1:0".parse().unwrap())
}

fn router() -> Router {
    let until_stop = async |Extension(Stopping(stopping)): Extension<Stopping>| {
        let ticks = WatchStream::new(stopping).map(|stop| (!stop).then(|| Event::default().data("tick")));
        Sse::new(ticks.map_while(|event| event).map(Ok::<_, std::convert::Infallible>))
    };
    Router::new()
        .route("/ok", get(async || "fine"))
        .route("/length", post(async |body: Bytes| body.len().to_string()))
        .route("/slow", get(async || sleep(Duration::from_millis(700)).await))
        .route("/begun", get(begun))
        .route("/large", get(async || Body::from(vec![b'x'; 64 << 20])))
        .route("/events", get(until_stop))
        .fallback(async || answer::page_not_found())
}

static BEGUN: AtomicBool = AtomicBool::new(false);

async fn begun() {
    BEGUN.store(true, Ordering::Relaxed);
    sleep(Duration::from_millis(700)).await;
}

fn start(site: Site, users: &[String]) -> Server {
    Server::start(site, router(), office_with(users)).unwrap()
}

fn open() -> Vec<String> {
    vec![user(None, &[], &[Action::Api])]
}

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.address().unwrap()).await.unwrap()
}

/// Everything until the peer closes.
async fn rest(mut stream: impl AsyncRead + Unpin) -> String {
    let mut text = Vec::new();
    // A connection that is reset has ended, too.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut text)).await.expect("the connection is not closed");
    String::from_utf8_lossy(&text).into_owned()
}

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    rest(stream).await
}

/// One request on a connection of its own, with these header lines.
async fn get_with(server: &Server, path: &str, headers: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    ask(connect(server).await, &request).await
}

fn has_line(answer: &str, line: &str) -> bool {
    answer.lines().any(|found| found.eq_ignore_ascii_case(line))
}

/// But for the one that is kept for the next connection.
async fn all_seats_free(server: &Server) {
    let all = u32::try_from(CONNECTIONS_MAX - 1).unwrap();
    drop(timeout(PATIENCE, server.seats.acquire_many(all)).await.expect("a connection is kept").unwrap());
}

fn scratch_dir(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("corecast-http-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    dir
}

#[tokio::test]
async fn every_answer_says_who_answers_and_to_which_origin() {
    let server = start(site(any_port()), &open());
    let answer = get_with(&server, "/ok", "Origin: https://rta.ae\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nfine"), "{answer}");
    assert!(has_line(&answer, "Server: mediamtx"), "{answer}");
    assert!(has_line(&answer, "Access-Control-Allow-Origin: https://rta.ae"), "{answer}");
    let answer = get_with(&server, "/nope", "Origin: https://evil.example\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.ends_with("404 page not found"), "{answer}");
    assert!(!answer.to_lowercase().contains("allow-origin"), "{answer}");
    let head = "HEAD /ok HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert!(ask(connect(&server).await, head).await.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn preflight_needs_no_credentials() {
    let server = start(site(any_port()), &[user(Some("adm"), &[], &[Action::Api])]);
    let request = "OPTIONS /any HTTP/1.1\r\nHost: x\r\nConnection: close\r\nOrigin: https://rta.ae\r\n\
                   Access-Control-Request-Method: GET\r\n\r\n";
    let answer = ask(connect(&server).await, request).await;
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    for line in [
        "Access-Control-Allow-Methods: OPTIONS, GET",
        "Access-Control-Allow-Headers: Authorization",
        "Access-Control-Allow-Origin: https://rta.ae",
        "Server: mediamtx",
    ] {
        assert!(has_line(&answer, line), "{line} in {answer}");
    }
    let plain = "OPTIONS /any HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert!(ask(connect(&server).await, plain).await.starts_with("HTTP/1.1 401 "));
}

#[tokio::test]
async fn credentials_are_asked_for_once_and_checked_before_the_route() {
    let server = start(site(any_port()), &[user(Some("adm"), &[], &[Action::Api])]);
    let answer = get_with(&server, "/nope", "").await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(has_line(&answer, "WWW-Authenticate: Basic realm=\"mediamtx\""), "{answer}");
    assert!(answer.ends_with(r#"{"status":"error","error":"authentication error"}"#), "{answer}");
    // adm:wrong
    let answer = get_with(&server, "/ok", "Authorization: Basic YWRtOndyb25n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 401 ") && !answer.to_lowercase().contains("www-auth"), "{answer}");
    // adm:secret
    for right in ["Basic YWRtOnNlY3JldA==", "Bearer adm:secret"] {
        let answer = get_with(&server, "/ok", &format!("Authorization: {right}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

#[tokio::test]
async fn a_trusted_proxy_speaks_for_its_client() {
    let server = start(site(any_port()), &[user(None, &["198.51.100.7/32"], &[Action::Api])]);
    assert!(get_with(&server, "/ok", "").await.starts_with("HTTP/1.1 401 "));
    let answer = get_with(&server, "/ok", "X-Forwarded-For: 203.0.113.1, 198.51.100.7\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let answer = get_with(&server, "/ok", "X-Forwarded-For: 198.51.100.7, 203.0.113.1\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
}

#[tokio::test]
async fn a_connection_carries_many_requests() {
    let server = start(site(any_port()), &open());
    let mut stream = connect(&server).await;
    for _ in 0..3 {
        stream.write_all(b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"fine") {
            let mut some = [0; 512];
            let n = timeout(PATIENCE, stream.read(&mut some)).await.unwrap().unwrap();
            assert!(n > 0, "closed");
            seen.extend_from_slice(&some[..n]);
        }
    }
}

#[tokio::test]
async fn a_body_of_ten_mebibytes_is_the_limit() {
    let server = start(site(any_port()), &open());
    let head = "POST /length HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    let small = format!("{head}Content-Length: 5\r\n\r\n12345");
    assert!(ask(connect(&server).await, &small).await.ends_with("\r\n\r\n5"));

    let most = 10 << 20;
    let mut stream = connect(&server).await;
    stream.write_all(format!("{head}Content-Length: {most}\r\n\r\n").as_bytes()).await.unwrap();
    stream.write_all(&vec![b'x'; most]).await.unwrap();
    assert!(rest(stream).await.ends_with(&format!("\r\n\r\n{most}")));

    let said = format!("{head}Content-Length: {}\r\n\r\n", most + 1);
    let answer = ask(connect(&server).await, &said).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("larger than 10 MiB"), "{answer}");

    // Without a length: found out while it arrives.
    let (mut reading, mut writing) = connect(&server).await.into_split();
    let sending = tokio::spawn(async move {
        writing.write_all(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).await?;
        let chunk = [b"10000\r\n".as_slice(), &[b'x'; 0x10000], b"\r\n"].concat();
        for _ in 0..200 {
            writing.write_all(&chunk).await?;
        }
        io::Result::Ok(())
    });
    let mut first = [0; 12];
    timeout(PATIENCE, reading.read_exact(&mut first)).await.unwrap().unwrap();
    assert_eq!(&first, b"HTTP/1.1 413");
    sending.abort();
}

#[tokio::test]
async fn a_head_has_a_limit() {
    let server = start(site(any_port()), &open());
    let answer = get_with(&server, "/ok", &format!("X-Long: {}\r\n", "x".repeat(100 << 10))).await;
    assert!(answer.starts_with("HTTP/1.1 431 ") || answer.is_empty(), "{answer}");
    let answer = get_with(&server, "/ok", &"X: y\r\n".repeat(200)).await;
    assert!(answer.starts_with("HTTP/1.1 431 ") || answer.is_empty(), "{answer}");
    assert!(get_with(&server, "/ok", "").await.starts_with("HTTP/1.1 200 "), "others are served");
}

#[tokio::test]
async fn a_client_that_dawdles_is_let_go() {
    let read_timeout = Duration::from_millis(400);
    let server = start(Site { read_timeout, ..site(any_port()) }, &open());
    // Says nothing.
    assert_eq!(rest(connect(&server).await).await, "");
    // Says a byte at a time: the limit is on the whole.
    let (reading, mut writing) = connect(&server).await.into_split();
    let trickle = tokio::spawn(async move {
        while writing.write_all(b"G").await.is_ok() {
            sleep(Duration::from_millis(30)).await;
        }
    });
    rest(reading).await;
    trickle.abort();
    // Announces a body that does not come.
    let announced = "POST /length HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 9\r\n\r\n1";
    let answer = ask(connect(&server).await, announced).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    all_seats_free(&server).await;
    // A slow answer is not the client's fault.
    assert!(get_with(&server, "/slow", "").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_let_go() {
    let write_timeout = Duration::from_millis(300);
    let server = start(Site { write_timeout, ..site(any_port()) }, &open());
    let mut stream = connect(&server).await;
    stream.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    timeout(PATIENCE, stream.read_exact(&mut first)).await.unwrap().unwrap();
    all_seats_free(&server).await;
}

#[tokio::test]
async fn a_taken_address_is_named() {
    let server = start(site(any_port()), &open());
    let address = server.address().unwrap();
    let error = Server::start(site(HttpAddress::Tcp(address)), router(), office_with(&open())).unwrap_err();
    assert!(error.to_string().contains(&format!("cannot listen on {address}: ")), "{error}");
    server.stop().await;
    start(site(HttpAddress::Tcp(address)), &open());
}

#[tokio::test]
async fn stopping_ends_what_has_no_end_and_lets_the_rest_finish() {
    let server = start(site(any_port()), &open());
    let address = server.address().unwrap();
    let mut events = connect(&server).await;
    events.write_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut slow = connect(&server).await;
    slow.write_all(b"GET /begun HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    while !BEGUN.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(5)).await;
    }
    let mut seen = String::new();
    while !seen.contains("tick") {
        let mut some = [0; 512];
        let n = timeout(PATIENCE, events.read(&mut some)).await.unwrap().unwrap();
        seen.push_str(std::str::from_utf8(&some[..n]).unwrap());
    }
    server.retire().await;
    let _again = start(site(HttpAddress::Tcp(address)), &open());
    assert!(rest(slow).await.starts_with("HTTP/1.1 200 "), "the request was under way");
    assert!(rest(events).await.ends_with("0\r\n\r\n"), "the stream is ended, not cut");
}

#[tokio::test]
async fn a_unix_socket_replaces_a_stale_one_but_no_file() {
    let dir = scratch_dir("unix");
    let path = dir.join("api.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let server = start(site(HttpAddress::Unix(path.clone())), &open());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o755);
    let request = "GET /ok HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = ask(UnixStream::connect(&path).await.unwrap(), request).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    server.stop().await;
    assert!(!path.exists());
    fs::write(&path, "precious").unwrap();
    let error =
        Server::start(site(HttpAddress::Unix(path.clone())), router(), office_with(&open())).unwrap_err();
    assert!(error.to_string().contains("api.sock"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    fs::remove_dir_all(dir).unwrap();
}

fn write_certificate(files: &TlsFiles) -> rustls::pki_types::CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    fs::write(&files.cert, made.cert.pem()).unwrap();
    made.cert.der().clone()
}

/// The certificate that the server shows, after a request that worked.
async fn shown(server: &Server, trusted: &[&rustls::pki_types::CertificateDer<'static>]) -> Vec<u8> {
    let mut roots = rustls::RootCertStore::empty();
    for cert in trusted {
        roots.add((*cert).clone()).unwrap();
    }
    let config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = "localhost".try_into().unwrap();
    let mut stream = connector.connect(name, connect(server).await).await.unwrap();
    stream.write_all(b"GET /ok HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

async fn wait_shown(server: &Server, all: &[&rustls::pki_types::CertificateDer<'static>], which: usize) {
    let wait = async {
        while shown(server, all).await != all[which].as_ref() {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("the new certificate is not used");
}

fn files_in(dir: &Path) -> TlsFiles {
    TlsFiles { key: dir.join("server.key"), cert: dir.join("server.crt") }
}

#[tokio::test]
async fn a_new_certificate_is_used_at_once_and_a_broken_one_never() {
    let dir = scratch_dir("tls");
    let files = files_in(&dir);
    let first = write_certificate(&files);
    let mut site = site(any_port());
    site.settings.tls = Some(files.clone());
    let server = start(site, &open());
    assert_eq!(shown(&server, &[&first]).await, first.as_ref());

    let second = write_certificate(&files);
    wait_shown(&server, &[&first, &second], 1).await;

    fs::write(&files.cert, "-----BEGIN CERTIFICATE-----\nnonsense\n").unwrap();
    // Long enough for it to be looked at, twice.
    sleep(crate::control::certificate::LOOK_INTERVAL * 4).await;
    assert_eq!(shown(&server, &[&second]).await, second.as_ref());

    let third = write_certificate(&files);
    wait_shown(&server, &[&second, &third], 1).await;
    fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_a_reason_not_to_start() {
    let dir = scratch_dir("no-tls");
    let files = files_in(&dir);
    let fails = |expected: &str| {
        let mut site = site(any_port());
        site.settings.tls = Some(files.clone());
        let error = Server::start(site, router(), office_with(&open())).unwrap_err().to_string();
        assert!(error.starts_with("[API] cannot encrypt: ") && error.contains(expected), "{error}");
    };
    fails("server.crt cannot be read");
    write_certificate(&files);
    let other = files_in(&scratch_dir("no-tls-other"));
    write_certificate(&other);
    fs::copy(&other.key, &files.key).unwrap();
    fails("do not go together");
    fs::write(&files.cert, "").unwrap();
    fails("holds no certificate");
    fs::remove_dir_all(dir).unwrap();
    fs::remove_dir_all(other.key.parent().unwrap()).unwrap();
}
