//! A client for the API and the metrics, small enough to be wrong in no clever way.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use serde_json::Value;

use super::{PATIENCE, Server};

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The answer to a change that was made.
    #[track_caller]
    pub fn assert_ok(&self) {
        assert_eq!((self.status, self.body.as_str()), (200, r#"{"status":"ok"}"#));
    }
}

/// One request on a connection of its own.
pub fn request(port: u16, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut conn = TcpStream::connect(("127.0.0.1", port)).unwrap();
    conn.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() {
        text += &format!("Content-Length: {}\r\n", body.len());
    }
    conn.write_all(format!("{text}\r\n{body}").as_bytes()).unwrap();
    let mut answer = Vec::new();
    conn.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    let body = if chunked { unchunk(body) } else { body.to_owned() };
    Answer { status: status.unwrap_or_else(|| panic!("no status: {head}")), headers, body }
}

fn unchunk(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.split(';').next().unwrap_or("").trim(), 16).unwrap();
        if size == 0 {
            break;
        }
        body += &after[..size];
        rest = &after[size + 2..];
    }
    body
}

impl Server {
    pub fn get(&self, target: &str) -> Answer {
        request(self.api_port, "GET", target, &[], "")
    }

    pub fn api(&self, method: &str, target: &str, body: &str) -> Answer {
        request(self.api_port, method, target, &[], body)
    }

    pub fn hls(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
        request(self.hls_port, "GET", target, headers, "")
    }

    pub fn metrics(&self, target: &str) -> Answer {
        request(self.metrics_port, "GET", target, &[], "")
    }
}
