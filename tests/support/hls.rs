//! A viewer that fetches what it is told to, byte for byte, and knows nothing of rules.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use super::{PATIENCE, Server};

#[derive(Debug)]
pub struct Fetched {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub took: Duration,
}

impl Fetched {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub fn text(&self) -> &str {
        assert_eq!(self.status, 200, "{:?}", String::from_utf8_lossy(&self.body));
        std::str::from_utf8(&self.body).unwrap()
    }

    /// What the error says.
    pub fn error(&self) -> String {
        let json: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        json["error"].as_str().unwrap_or_default().to_owned()
    }
}

/// Sends a request and does not wait for its answer.
pub fn send(server: &Server, target: &str, headers: &[(&str, &str)]) -> TcpStream {
    let mut socket = TcpStream::connect(("127.0.0.1", server.hls_port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut text = format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    socket.write_all(format!("{text}\r\n").as_bytes()).unwrap();
    socket
}

/// The answer to a request that was sent at `since`.
pub fn receive(mut socket: TcpStream, since: Instant) -> Fetched {
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    let took = since.elapsed();
    let end = answer.windows(4).position(|at| at == b"\r\n\r\n").expect("the head of an answer");
    let head = std::str::from_utf8(&answer[..end]).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    Fetched { status, headers, body: answer[end + 4..].to_vec(), took }
}

pub fn fetch_with(server: &Server, target: &str, headers: &[(&str, &str)]) -> Fetched {
    let since = Instant::now();
    receive(send(server, target, headers), since)
}

pub fn fetch(server: &Server, target: &str) -> Fetched {
    fetch_with(server, target, &[])
}

/// Lines of a playlist that name something: URIs by themselves, and those in tags.
pub fn uris(playlist: &str) -> Vec<String> {
    let in_tag = |line: &str| line.split_once("URI=\"")?.1.split_once('"').map(|(uri, _)| uri.to_owned());
    let of = |line: &str| if line.starts_with('#') { in_tag(line) } else { Some(line.to_owned()) };
    playlist.lines().filter(|line| !line.is_empty()).filter_map(of).collect()
}

/// The value of a tag that occurs once.
pub fn tag<'playlist>(playlist: &'playlist str, name: &str) -> Option<&'playlist str> {
    playlist.lines().find_map(|line| line.strip_prefix("#EXT-X-")?.strip_prefix(name)?.strip_prefix(':'))
}

/// A session of a path: where its playlists are.
pub struct Viewer<'server> {
    server: &'server Server,
    /// With a slash at its end.
    pub directory: String,
    pub playlist: String,
}

impl<'server> Viewer<'server> {
    /// Fetches the multivariant playlist, waiting for its stream.
    pub fn begin(server: &'server Server, path: &str) -> Self {
        let index = super::wait_for("a multivariant playlist", PATIENCE, || {
            Some(fetch(server, &format!("/{path}/index.m3u8"))).filter(|index| index.status == 200)
        });
        let first = uris(index.text()).into_iter().find(|uri| uri.contains("video1") || uri.contains("main"));
        let (directory, playlist) =
            first.as_deref().and_then(|uri| uri.rsplit_once('/')).expect("a session in the URL");
        Self { server, directory: format!("/{path}/{directory}/"), playlist: playlist.to_owned() }
    }

    pub fn url(&self, file: &str) -> String {
        format!("{}{file}", self.directory)
    }

    pub fn get(&self, file: &str) -> Fetched {
        fetch(self.server, &self.url(file))
    }

    /// Its media playlist, with these directives (`?…`).
    pub fn playlist(&self, directives: &str) -> Fetched {
        self.get(&format!("{}{directives}", self.playlist))
    }

    /// Where the playlist ends: the segment that is open, and the parts that it has.
    pub fn position(playlist: &str) -> (u64, u64) {
        let first: u64 = tag(playlist, "MEDIA-SEQUENCE").unwrap().parse().unwrap();
        let complete = playlist.lines().filter(|line| line.starts_with("#EXTINF")).count() as u64;
        let open = playlist.rsplit("#EXTINF").next().unwrap();
        let parts = open.lines().filter(|line| line.starts_with("#EXT-X-PART:")).count() as u64;
        (first + complete, parts)
    }
}
