//! HTTP on the shards: what is true of it whatever it serves.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, TcpStream},
    thread,
    time::Duration,
};

use rustls::pki_types::CertificateDer;

use crate::support::{
    PATIENCE, Server,
    http::request,
    server::{HLS, free_ports},
    tls::{Identity, Wire, client},
    tools::Tool,
    wait_for,
};

fn curl(args: &[&str]) -> String {
    let ended = Tool::run("curl", ["-sS", "--max-time", "20"].iter().chain(args)).ended();
    ended.assert_success();
    ended.stdout
}

fn tls_globals(identity: &Identity) -> String {
    let (key, cert) = (identity.key(), identity.cert());
    format!("{HLS}hlsEncryption: yes\nhlsServerKey: {}\nhlsServerCert: {}\n", key.display(), cert.display())
}

fn descriptors(server: &Server) -> usize {
    fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count()
}

/// Descriptors that a server may have opened for itself after its first answer.
const SLACK: usize = 20;

fn connect(server: &Server) -> TcpStream {
    let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, server.hls_port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn is_closed(mut socket: &TcpStream) -> bool {
    loop {
        match socket.read(&mut [0; 1024]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}

#[test]
fn what_is_about_no_stream_is_answered_as_mediamtx_does() {
    let server =
        Server::with(&format!("{HLS}hlsAllowOrigins: ['https://*.example.com']\n"), "  all_others:\n");
    let ask = |method: &str, target: &str, headers: &[(&str, &str)]| {
        request(server.hls_port, method, target, headers, if method == "POST" { "x" } else { "" })
    };
    for (method, target) in [
        ("GET", "/"),
        ("GET", "/favicon.ico"),
        ("GET", "/index.m3u8"),
        ("GET", "/cam/hls.min.js.map"),
        ("POST", "/cam/"),
        ("DELETE", "/cam/index.m3u8"),
        ("OPTIONS", "/cam/"),
        ("FOO", "/cam/"),
    ] {
        let answer = ask(method, target, &[]);
        assert_eq!((answer.status, answer.body.as_str()), (404, "404 page not found"), "{method} {target}");
        assert_eq!(answer.header("server"), Some("mediamtx"));
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    let answer = ask("HEAD", "/", &[("Origin", "https://a.example.com")]);
    assert_eq!((answer.status, answer.header("content-length")), (404, Some("18")));
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://a.example.com"));
    for (target, location) in [
        ("/cam", "/cam/"),
        ("/a/b?x=1&y", "/a/b/?x=1&y"),
        ("//evil.example/x", "/evil.example/x/"),
        ("/\\evil.example", "/evil.example/"),
        ("/a%20b", "/a%20b/"),
    ] {
        let answer = ask("GET", target, &[]);
        assert_eq!((answer.status, answer.header("location")), (302, Some(location)), "{target}");
    }
    let answer =
        ask("OPTIONS", "/cam/", &[("Access-Control-Request-Method", "GET"), ("Origin", "https://x.org")]);
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    assert_eq!(answer.header("access-control-allow-methods"), Some("OPTIONS, GET"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("Authorization, Range"));
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

#[test]
fn curl_keeps_its_connection() {
    let server = Server::with(HLS, "  all_others:\n");
    let url = format!("http://127.0.0.1:{}/cam", server.hls_port);
    let counted = ["-o", "/dev/null", "-w", "%{http_version} %{http_code} %{num_connects}\n"];
    let mut args = counted.to_vec();
    args.extend([&*url, "-o", "/dev/null", &*url, "-o", "/dev/null", &*url]);
    assert_eq!(curl(&args), "1.1 302 1\n1.1 302 0\n1.1 302 0\n");
}

#[test]
fn requests_find_the_shard_of_their_path_over_any_connection() {
    let server = Server::with(HLS, "  all_others:\n");
    let sockets: Vec<_> = (0..40).map(|_| connect(&server)).collect();
    for (number, mut socket) in sockets.iter().enumerate() {
        let ask =
            |name: usize, rest: &str| format!("GET /cam{name}/index.m3u8 HTTP/1.1\r\nHost: h\r\n{rest}\r\n");
        let text =
            [ask(number, ""), ask(number + 1, ""), ask(number, ""), ask(number + 2, "Connection: close\r\n")];
        let text = text.concat();
        let (first, rest) = text.split_at(number + 1);
        socket.write_all(first.as_bytes()).unwrap();
        thread::sleep(Duration::from_millis(2));
        socket.write_all(rest.as_bytes()).unwrap();
    }
    for mut socket in sockets {
        let mut answers = String::new();
        socket.read_to_string(&mut answers).unwrap();
        assert_eq!(answers.matches("HTTP/1.1 404").count(), 4, "{answers}");
    }
}

#[test]
fn http_2_is_spoken_over_tls_and_many_streams_share_a_connection() {
    let identity = Identity::make();
    let server = Server::with(&tls_globals(&identity), "  all_others:\n");
    let url = format!("https://localhost:{}/cam", server.hls_port);
    let cert = identity.cert();
    let with = |version: &str| {
        let form = "%{http_version} %{http_code}";
        curl(&["--cacert", cert.to_str().unwrap(), version, "-o", "/dev/null", "-w", form, &url])
    };
    assert_eq!((with("--http2"), with("--http1.1")), ("2 302".to_owned(), "1.1 302".to_owned()));
    let url = format!("https://localhost:{}/cam/index.m3u8", server.hls_port);
    let load = Tool::run("h2load", ["-n", "3000", "-c", "8", "-m", "40", &*url]).ended();
    load.assert_success();
    assert!(load.stdout.contains("3000 done, 0 succeeded, 3000 failed, 0 errored"), "{}", load.stdout);
    assert!(load.stdout.contains("0 2xx, 0 3xx, 3000 4xx, 0 5xx"), "{}", load.stdout);
    // Plain HTTP is not for this port, and does it no harm.
    let mut plain = connect(&server);
    plain.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    assert!(is_closed(&plain));
    assert_eq!(with("--http2"), "2 302");
}

/// Frames of HTTP/2 (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u32;
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Connects over TLS and agrees on HTTP/2.
fn http2(server: &Server, trusted: &CertificateDer<'static>) -> Wire {
    let mut wire = Wire::encrypted_by(client(trusted, &[b"h2"]), connect(server)).unwrap();
    wire.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    wire.write_all(&frame(4, 0, 0, &[])).unwrap();
    wire
}

#[test]
fn rapid_resets_end_their_connection_and_nothing_else() {
    let identity = Identity::make();
    let server = Server::with(&tls_globals(&identity), "  all_others:\n");
    let before = descriptors(&server);
    for _ in 0..4 {
        let mut wire = http2(&server, &identity.certificate);
        // GET https /, as the static table has them (RFC 7541 appendix A).
        let head = [0x82, 0x87, 0x84];
        let sent = (0..20_000_u32).try_for_each(|number| {
            let stream = 2 * number + 1;
            let burst = [frame(1, 5, stream, &head), frame(3, 0, stream, &8_u32.to_be_bytes())].concat();
            wire.write_all(&burst)
        });
        let mut rest = Vec::new();
        let ended = wire.read_to_end(&mut rest);
        assert!(sent.is_err() || ended.is_err() || rest.len() < 1 << 20, "20,000 resets were taken");
    }
    let url = format!("https://localhost:{}/cam", server.hls_port);
    let status = curl(&["-k", "--http2", "-o", "/dev/null", "-w", "%{http_code}", &url]);
    assert_eq!(status, "302");
    wait_for("all descriptors are back", PATIENCE, || (descriptors(&server) < before + SLACK).then_some(()));
}

#[test]
fn slow_and_silent_clients_are_closed_and_others_do_not_notice() {
    let server = Server::with(&format!("{HLS}readTimeout: 2s\n"), "  all_others:\n");
    let before = descriptors(&server);
    let sockets: Vec<_> = (0..300)
        .map(|number| {
            let mut socket = connect(&server);
            let text: &[u8] = if number % 2 == 0 { b"" } else { b"GET /cam/index.m3u8 HTTP/1.1\r\nX-Slow: " };
            socket.write_all(text).unwrap();
            socket
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(request(server.hls_port, "GET", "/cam", &[], "").status, 302);
        for mut socket in sockets.iter().skip(1).step_by(2) {
            let _ = socket.write_all(b"x");
        }
        thread::sleep(Duration::from_millis(50));
    }
    assert!(sockets.iter().all(is_closed));
    wait_for("all descriptors are back", PATIENCE, || (descriptors(&server) < before + SLACK).then_some(()));
}

#[test]
fn a_thousand_clients_that_leave_leave_nothing_behind() {
    let server = Server::with(HLS, "  all_others:\n");
    let before = descriptors(&server);
    for round in 0..2 {
        let mut sockets: Vec<_> = (0..500).map(|_| connect(&server)).collect();
        for (number, socket) in sockets.iter_mut().enumerate() {
            let text = format!("GET /cam{round}-{number}/index.m3u8 HTTP/1.1\r\nHost: h\r\n\r\n");
            socket.write_all(text.repeat(1 + number % 3).as_bytes()).unwrap();
        }
    }
    assert_eq!(request(server.hls_port, "GET", "/cam", &[], "").status, 302);
    wait_for("all descriptors are back", PATIENCE, || (descriptors(&server) < before + SLACK).then_some(()));
}

#[test]
fn a_thousand_who_are_held_and_leave_are_forgotten_and_one_who_stays_is_answered() {
    let paths = "  slow:\n    runOnDemand: sleep 100\n    runOnDemandStartTimeout: 8s\n  all_others:\n";
    let server = Server::with(HLS, paths);
    let before = descriptors(&server);
    let hold = || {
        let mut socket = connect(&server);
        socket.write_all(b"GET /slow/index.m3u8 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
        socket
    };
    let mut stays = hold();
    let leaving: Vec<_> = (0..1000).map(|_| hold()).collect();
    wait_for("all are held", PATIENCE, || (descriptors(&server) > before + 1000 - SLACK).then_some(()));
    drop(leaving);
    wait_for("all descriptors are back", PATIENCE, || (descriptors(&server) < before + SLACK).then_some(()));
    let mut answer = String::new();
    stays.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 500") && answer.contains("timed out"), "{answer}");
}

#[test]
fn the_server_moves_and_its_origins_and_certificate_change_while_it_runs() {
    let mut identity = Identity::make();
    let globals = tls_globals(&identity);
    let server = Server::with(&globals, "  all_others:\n");
    let shows = |port: u16, trusted: &CertificateDer<'static>| {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .is_ok_and(|socket| Wire::encrypted(socket, trusted).is_ok())
    };
    let old = identity.certificate.clone();
    assert!(shows(server.hls_port, &old));
    identity.renew();
    wait_for("the new certificate is shown", PATIENCE, || {
        shows(server.hls_port, &identity.certificate).then_some(())
    });
    assert!(!shows(server.hls_port, &old));
    let kept = http2(&server, &identity.certificate);
    let (elsewhere, _) = free_ports();
    server.rewrite(&format!("{HLS}hlsAddress: 127.0.0.1:{elsewhere}\n"), "  all_others:\n");
    let line = format!("INF [HLS] started with listener on 127.0.0.1:{elsewhere} (TCP/HTTP)");
    server.wait_log(&[&line], PATIENCE);
    assert!(is_closed(kept.socket()));
    wait_for("every shard has gone", PATIENCE, || {
        TcpStream::connect((Ipv4Addr::LOCALHOST, server.hls_port)).is_err().then_some(())
    });
    let origin = || {
        let answer = request(elsewhere, "GET", "/cam", &[("Origin", "https://a.org")], "");
        answer.header("access-control-allow-origin").map(str::to_owned)
    };
    assert_eq!(origin().as_deref(), Some("*"));
    let mut kept = TcpStream::connect((Ipv4Addr::LOCALHOST, elsewhere)).unwrap();
    let globals = format!("{HLS}hlsAddress: 127.0.0.1:{elsewhere}\nhlsAllowOrigins: ['https://a.org']\n");
    server.rewrite(&globals, "  all_others:\n");
    wait_for("the new origins hold", PATIENCE, || {
        (origin().as_deref() == Some("https://a.org")).then_some(())
    });
    // Who is connected stays so.
    kept.write_all(b"GET /cam HTTP/1.1\r\nHost: h\r\nConnection: close\r\nOrigin: https://b.org\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    kept.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 302") && !answer.contains("access-control"), "{answer}");
    server.rewrite("", "  all_others:\n");
    wait_for("the server is off", PATIENCE, || {
        TcpStream::connect((Ipv4Addr::LOCALHOST, elsewhere)).is_err().then_some(())
    });
}

#[test]
fn a_taken_address_is_said_and_the_old_one_stays() {
    let server = Server::with(HLS, "  all_others:\n");
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let line = format!("HLS listener {address} is not to be had");
    wait_for("the refusal", PATIENCE, || {
        // One that is made before the file is looked at for the first time is not seen.
        server.rewrite(&format!("{HLS}hlsAddress: {address}\n"), "  all_others:\n");
        thread::sleep(Duration::from_secs(2));
        server.log_text().contains(&line).then_some(())
    });
    assert_eq!(request(server.hls_port, "GET", "/cam", &[], "").status, 302);
}
