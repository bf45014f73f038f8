//! Connections over real sockets on both back ends of the media ring, without a shard around them.

mod http2;

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use bytes::Bytes;
use corecast_hub::{gauges::ShardGauges, settings::WebSettings};
use http::{HeaderValue, StatusCode, header};

use super::*;
use crate::shard::{
    Kind, clock,
    media_io::{BackendKind, Event},
    tls,
};

const TURN: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(20);

/// What of a shard an HTTP server needs.
struct Host {
    io: MediaIo,
    web: Web,
    gauges: Arc<ShardGauges>,
    listener: TcpListener,
    /// Added to the clock.
    later: Duration,
    events: Vec<Event>,
    gone: Vec<Ticket>,
}

impl Host {
    fn new(kind: BackendKind) -> Self {
        let (gauges, now) = (Arc::<ShardGauges>::default(), clock::instant());
        let lobby = Lobby::new(0, now, Arc::clone(&gauges));
        let settings = WebSettings {
            address: ([127, 0, 0, 1], 0).into(),
            encrypted: false,
            allow_origins: vec!["https://a.example".to_owned()],
            trusted_proxies: vec!["127.0.0.1/32".parse().unwrap()],
        };
        lobby.set_site(WebService::Hls, Some(&settings));
        let tls = tls::web_server_config(Arc::default()).unwrap();
        Self {
            io: MediaIo::new(kind).unwrap(),
            web: Web::new(lobby, [tls], false, usize::MAX),
            gauges,
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            later: Duration::ZERO,
            events: Vec::new(),
            gone: Vec::new(),
        }
    }

    fn connect(&mut self) -> TcpStream {
        let client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        let (socket, peer) = self.listener.accept().unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        self.web.welcome(&mut self.io, WebService::Hls, socket, peer, false).unwrap();
        client
    }

    /// One turn of a loop; the requests that came of it.
    fn turn(&mut self) -> Vec<WebRequest> {
        let wait = if self.web.has_work() { Duration::ZERO } else { TURN };
        self.io.wait(Some(wait), &mut self.events).unwrap();
        self.web.set_now(clock::instant() + self.later);
        for event in self.events.drain(..) {
            let (token, hung_up, has_room) = match event {
                Event::Readable(token) => (token, false, false),
                Event::Hangup(token) => (token, true, false),
                Event::Writable(token) => (token, false, true),
                Event::Rewatch(_) | Event::Unsent { .. } => continue,
            };
            match Kind::of(token) {
                Some((Kind::Web, key)) => self.web.on_ready(key, hung_up, has_room),
                other => panic!("an event of {other:?}"),
            }
        }
        self.web.go_on(&mut self.io, &mut 0);
        while let Some(ticket) = self.web.next_gone() {
            self.gone.push(ticket);
        }
        std::iter::from_fn(|| self.web.next_request()).collect()
    }

    fn requests(&mut self, count: usize) -> Vec<WebRequest> {
        let (began, mut requests) = (clock::instant(), Vec::new());
        while requests.len() < count {
            requests.extend(self.turn());
            assert!(began.elapsed() < PATIENCE, "{} of {count} requests came", requests.len());
        }
        requests
    }

    fn request(&mut self) -> WebRequest {
        self.requests(1).remove(0)
    }

    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let began = clock::instant();
        while !done(self) {
            assert_eq!(self.turn().len(), 0, "a request that nobody sent");
            assert!(began.elapsed() < PATIENCE, "{what} did not happen");
        }
    }

    /// Upkeep as it would be when so much time had passed.
    fn check_after(&mut self, time: Duration) {
        self.later += time;
        self.web.set_now(clock::instant() + self.later);
        self.web.check(&mut self.io, READ_TIMEOUT, WRITE_TIMEOUT);
        assert!(self.turn().is_empty());
    }

    fn connections(&self) -> u64 {
        self.gauges.hls.connections.get()
    }
}

const READ_TIMEOUT: Duration = Duration::from_secs(10);
const WRITE_TIMEOUT: Duration = Duration::from_secs(12);

fn on_both(test: impl Fn(&mut Host)) {
    for kind in [BackendKind::IoUring, BackendKind::Epoll] {
        // Some sandboxes have no io_uring; the relay does without it then.
        if kind == BackendKind::IoUring && MediaIo::new(kind).is_err() {
            continue;
        }
        test(&mut Host::new(kind));
    }
}

fn ok(body: &'static str) -> WebAnswer {
    WebAnswer::new(StatusCode::OK).body("text/plain", Bytes::from_static(body.as_bytes()))
}

/// Reads one answer: its head, in lower case, and its body.
fn read_answer(client: &mut TcpStream) -> (String, Vec<u8>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    client.read_exact(&mut body).unwrap();
    (head, body)
}

fn is_closed(client: &mut TcpStream) -> bool {
    matches!(client.read(&mut [0; 1]), Ok(0) | Err(_))
}

#[test]
fn a_request_is_held_without_a_poll_and_answered_when_its_answer_is_there() {
    on_both(|host| {
        let mut client = host.connect();
        client.write_all(b"GET /site/cam%201/a.m3u8?x=%20y HTTP/1.1\r\nHost: h:1\r\n\r\n").unwrap();
        let request = host.request();
        assert_eq!(
            (request.path.as_str(), request.query(), request.host()),
            ("/site/cam 1/a.m3u8", "x=%20y", "h:1")
        );
        assert_eq!(request.place(), Place { name: "site/cam 1", file: "a.m3u8", session: None });
        for _ in 0..3 {
            assert!(host.turn().is_empty() && !host.web.has_work());
        }
        host.web.answer(request.ticket, ok("held"));
        assert!(host.web.has_work());
        host.turn();
        let (head, body) = read_answer(&mut client);
        assert!(head.starts_with("http/1.1 200") && head.contains("server: mediamtx"), "{head}");
        assert!(
            !head.contains("access-control"),
            "no page may use it that does not say which one it is: {head}"
        );
        assert_eq!(body, b"held");
        // An answer too many is nobody's.
        host.web.answer(request.ticket, ok("again"));
        assert!(!host.web.has_work());
        assert_eq!((host.gauges.hls.answers(), host.connections()), ([0, 1, 0, 0, 0], 1));
    });
}

#[test]
fn pipelined_requests_are_answered_in_their_order_on_one_connection() {
    on_both(|host| {
        let mut client = host.connect();
        client.write_all("GET /a/1.ts HTTP/1.1\r\nHost: h\r\n\r\n".repeat(40).as_bytes()).unwrap();
        let mut request = host.request();
        for number in 1..=40 {
            assert_eq!(request.ticket.request, number);
            host.web.answer(request.ticket, ok("x"));
            // The next one comes in the moment in which this one is done.
            let mut next = host.turn();
            assert_eq!(read_answer(&mut client).1, b"x");
            match number {
                40 => assert!(next.is_empty()),
                _ => request = next.remove(0),
            }
        }
        client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
        let request = host.request();
        host.web.answer(request.ticket, ok("bye"));
        host.turn();
        assert_eq!(read_answer(&mut client).1, b"bye");
        assert!(is_closed(&mut client));
        drop(client);
        host.until("the end", |host| host.connections() == 0);
    });
}

#[test]
fn who_leaves_is_not_waited_for() {
    on_both(|host| {
        let mut clients: Vec<_> = (0..200).map(|_| host.connect()).collect();
        for client in &mut clients {
            client.write_all(b"GET /a/b.m3u8 HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        }
        let requests = host.requests(200);
        drop(clients);
        host.until("their end", |host| host.gone.len() == 200 && host.connections() == 0);
        for request in requests {
            assert!(host.gone.contains(&request.ticket));
            host.web.answer(request.ticket, ok("late"));
        }
        assert!(!host.web.has_work());
    });
}

#[test]
fn large_answers_arrive_whole_from_shared_pieces_however_slow_their_reader() {
    on_both(|host| {
        let mut client = host.connect();
        client.write_all(b"GET /a/b.mp4 HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        let pieces: Vec<_> = (0..200_u8).map(|n| Bytes::from(vec![n; 100_001])).collect();
        let request = host.request();
        let mut answer = WebAnswer::new(StatusCode::OK);
        answer.body.clone_from(&pieces);
        host.web.answer(request.ticket, answer);
        client.set_nonblocking(true).unwrap();
        let (mut got, mut buffer) = (Vec::new(), vec![0; 300_000]);
        let length = pieces.iter().map(Bytes::len).sum::<usize>();
        let began = clock::instant();
        let body_of = |got: &[u8]| got.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
        while body_of(&got).is_none_or(|at| got.len() - at < length) {
            assert!(host.turn().is_empty() && began.elapsed() < PATIENCE);
            if let Ok(count) = client.read(&mut buffer) {
                got.extend_from_slice(&buffer[..count]);
            }
        }
        let at = body_of(&got).unwrap();
        assert!(got[at..] == pieces.concat());
        assert_eq!(host.connections(), 1);
    });
}

#[test]
fn head_ranges_and_origins_shape_an_answer() {
    on_both(|host| {
        let mut client = host.connect();
        let mut ask = |host: &mut Host, line: &str, fields: &str| {
            client.write_all(format!("{line} HTTP/1.1\r\nHost: h\r\n{fields}\r\n").as_bytes()).unwrap();
            let request = host.request();
            assert_eq!(request.method, http::Method::GET);
            let answer = ok("0123456789").header(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
            host.web.answer(request.ticket, answer);
            host.turn();
            if line.starts_with("HEAD") {
                // Its length is that of a body which does not follow.
                let mut head = vec![0; 4096];
                let count = client.read(&mut head).unwrap();
                return (String::from_utf8_lossy(&head[..count]).to_ascii_lowercase(), Vec::new());
            }
            read_answer(&mut client)
        };
        let (head, _) = ask(host, "HEAD /a/b.mp4", "");
        assert!(head.contains("content-length: 10") && head.ends_with("\r\n\r\n"), "{head}");
        let (head, body) = ask(host, "GET /a/b.mp4", "Range: bytes=2-4\r\nOrigin: https://a.example\r\n");
        assert!(head.starts_with("http/1.1 206") && head.contains("content-range: bytes 2-4/10"), "{head}");
        assert!(
            head.contains("access-control-allow-origin: https://a.example") && head.contains("vary: origin")
        );
        assert_eq!(body, b"234");
        let (head, body) = ask(host, "GET /a/b.mp4", "Range: bytes=20-\r\nOrigin: https://b.example\r\n");
        assert!(head.starts_with("http/1.1 416") && head.contains("content-range: bytes */10"), "{head}");
        assert!(body.is_empty() && !head.contains("access-control"));
    });
}

#[test]
fn a_trusted_proxy_tells_who_asks_and_how() {
    on_both(|host| {
        let mut client = host.connect();
        let text = "GET /a/b.ts HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n\r\n";
        client.write_all(text.as_bytes()).unwrap();
        let request = host.request();
        assert_eq!(request.remote.ip().to_string(), "192.0.2.7");
        assert_eq!(request.remote.port(), client.local_addr().unwrap().port());
        assert!(request.secure);
    });
}

#[test]
fn bodies_are_taken_up_to_their_limit() {
    on_both(|host| {
        let mut client = host.connect();
        let head =
            |length: usize| format!("POST /a/whep HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
        client.write_all((head(5) + "v=0\r\n").as_bytes()).unwrap();
        let request = host.request();
        assert_eq!((request.method, &request.body[..]), (http::Method::POST, &b"v=0\r\n"[..]));
        host.web.answer(request.ticket, ok("done"));
        host.turn();
        assert_eq!(read_answer(&mut client).1, b"done");
        client.write_all(head(129 << 10).as_bytes()).unwrap();
        host.until("the refusal", |host| host.gauges.hls.answers()[3] == 1);
        assert!(read_answer(&mut client).0.starts_with("http/1.1 413"));
        let mut client = host.connect();
        client.write_all(b"POST /a/whep HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        client.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
        for _ in 0..9 {
            // It may be refused before it has said all.
            let _ = client.write_all(chunk.as_bytes());
            host.turn();
        }
        host.until("the refusal", |host| host.gauges.hls.answers()[3] == 2);
        assert!(read_answer(&mut client).0.starts_with("http/1.1 413"));
    });
}

#[test]
fn heads_are_bounded_and_nonsense_is_answered() {
    on_both(|host| {
        for (sent, status) in [
            (format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(70_000)), "431"),
            (format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "X: y\r\n".repeat(150)), "431"),
            (format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(70_000)), "4"),
            ("GET /%ff/a.ts HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), "400"),
            ("nonsense\r\n\r\n".to_owned(), "400"),
            ("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n".to_owned(), "400"),
        ] {
            let mut client = host.connect();
            client.set_nonblocking(true).unwrap();
            let (mut sent, mut got) = (sent.as_bytes(), Vec::new());
            let began = clock::instant();
            while !got.ends_with(b"\r\n\r\n") && !String::from_utf8_lossy(&got).contains("error") {
                if !sent.is_empty() {
                    sent = &sent[client.write(sent).unwrap_or(0)..];
                }
                assert!(host.turn().is_empty() && began.elapsed() < PATIENCE);
                let mut buffer = [0; 4096];
                let count = client.read(&mut buffer).unwrap_or(0);
                got.extend_from_slice(&buffer[..count]);
            }
            let got = String::from_utf8_lossy(&got);
            assert!(got.starts_with(&format!("HTTP/1.1 {status}")), "expected {status}: {got}");
        }
    });
}

#[test]
fn those_who_keep_us_waiting_are_closed() {
    on_both(|host| {
        // Says nothing; says half of a request; is idle after one; does not take its answer; waits for its answer.
        let mut silent = host.connect();
        let mut slow = host.connect();
        let [mut idle, mut stuck, mut held] = [(); 3].map(|()| host.connect());
        for client in [&mut slow, &mut idle, &mut stuck, &mut held] {
            client.write_all(b"GET /a/b.mp4 HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        }
        let tickets: Vec<_> = host.requests(4).iter().map(|request| request.ticket).collect();
        host.web.answer(tickets[0], ok("x"));
        host.web.answer(tickets[1], ok("x"));
        let mut answer = WebAnswer::new(StatusCode::OK);
        answer.body = vec![Bytes::from(vec![0; 50 << 20])];
        host.web.answer(tickets[2], answer);
        host.until("a full socket", |host| host.gauges.hls.answers()[1] == 3 && !host.web.has_work());
        assert_eq!(read_answer(&mut slow).1, b"x");
        slow.write_all(b"GET /a/b.mp4 HTTP/1.1\r\nX-Slow").unwrap();
        host.turn();
        host.turn();
        assert_eq!(host.connections(), 5);
        host.check_after(READ_TIMEOUT - Duration::from_secs(5));
        assert_eq!(host.connections(), 5);
        host.check_after(Duration::from_secs(6));
        assert_eq!(host.connections(), 3, "one that says nothing and one that says it slowly");
        assert!(is_closed(&mut silent) && is_closed(&mut slow));
        host.check_after(WRITE_TIMEOUT - READ_TIMEOUT + Duration::from_secs(1));
        assert_eq!(host.connections(), 2, "one that does not read");
        host.check_after(Duration::from_secs(30));
        host.turn();
        assert_eq!(read_answer(&mut idle).1, b"x");
        assert!(is_closed(&mut idle));
        drop(idle);
        host.until("one that is idle", |host| host.connections() == 1);
        host.web.answer(tickets[3], ok("at last"));
        host.turn();
        assert_eq!(read_answer(&mut held).1, b"at last");
        assert_eq!(host.gone, []);
    });
}
