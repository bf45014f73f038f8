//! Requests and responses as values, and how they are written (RFC 2326 §4).

use std::fmt;

/// Request method (RFC 2326 §10). Methods are case-sensitive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    Options,
    Describe,
    Announce,
    Setup,
    Play,
    Record,
    Pause,
    GetParameter,
    SetParameter,
    Teardown,
    /// A method we do not know, as received.
    Other(String),
}

impl Method {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Options => "OPTIONS",
            Self::Describe => "DESCRIBE",
            Self::Announce => "ANNOUNCE",
            Self::Setup => "SETUP",
            Self::Play => "PLAY",
            Self::Record => "RECORD",
            Self::Pause => "PAUSE",
            Self::GetParameter => "GET_PARAMETER",
            Self::SetParameter => "SET_PARAMETER",
            Self::Teardown => "TEARDOWN",
            Self::Other(name) => name,
        }
    }
}

impl From<&str> for Method {
    fn from(name: &str) -> Self {
        match name {
            "OPTIONS" => Self::Options,
            "DESCRIBE" => Self::Describe,
            "ANNOUNCE" => Self::Announce,
            "SETUP" => Self::Setup,
            "PLAY" => Self::Play,
            "RECORD" => Self::Record,
            "PAUSE" => Self::Pause,
            "GET_PARAMETER" => Self::GetParameter,
            "SET_PARAMETER" => Self::SetParameter,
            "TEARDOWN" => Self::Teardown,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Header fields in the order received, duplicates kept. Names compare without case (RFC 2326 §4.2).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    pub fn new() -> Self {
        Self::default()
    }

    /// Value of the first field called `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Values of all fields called `name`, in order.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub fn push(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.push((name.into(), value.into()));
    }

    /// `(name, value)` pairs in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Continues the value of the last field: a folded line (RFC 2326 §4.2, RFC 2616 §2.2).
    pub(super) fn extend_last(&mut self, more: &str) -> bool {
        let Some((_, value)) = self.0.last_mut() else { return false };
        if !value.is_empty() && !more.is_empty() {
            value.push(' ');
        }
        value.push_str(more);
        true
    }

    fn write_to(&self, body: &[u8], out: &mut Vec<u8>) {
        for (name, value) in self.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("Content-Length")) {
            write_line_part(name, out);
            out.extend_from_slice(b": ");
            write_line_part(value, out);
            out.extend_from_slice(b"\r\n");
        }
        if !body.is_empty() {
            out.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(body);
    }
}

/// Line ends inside a value would forge header lines, so they are left out.
fn write_line_part(text: &str, out: &mut Vec<u8>) {
    out.extend(text.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')));
}

/// One request (RFC 2326 §6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub method: Method,
    /// Request-URI as received; `*` is possible.
    pub url: String,
    pub headers: Headers,
    pub body: Vec<u8>,
}

impl Request {
    pub fn new(method: Method, url: impl Into<String>) -> Self {
        Self { method, url: url.into(), headers: Headers::default(), body: Vec::new() }
    }

    /// Adds a header field.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push(name, value);
        self
    }

    /// Sets the body and its `Content-Type`.
    pub fn body(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.headers.push("Content-Type", content_type);
        self.body = body.into();
        self
    }

    /// Appends the request to `out`; `Content-Length` is written from the body.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        write_line_part(self.method.as_str(), out);
        out.push(b' ');
        write_line_part(&self.url, out);
        out.extend_from_slice(b" RTSP/1.0\r\n");
        self.headers.write_to(&self.body, out);
    }
}

/// One response (RFC 2326 §7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: Status,
    /// Reason phrase as received; empty for the usual one.
    pub phrase: String,
    pub headers: Headers,
    pub body: Vec<u8>,
}

impl Response {
    pub fn new(status: Status) -> Self {
        Self { status, phrase: String::new(), headers: Headers::default(), body: Vec::new() }
    }

    /// Adds a header field.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push(name, value);
        self
    }

    /// Sets the body and its `Content-Type`.
    pub fn body(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.headers.push("Content-Type", content_type);
        self.body = body.into();
        self
    }

    /// The reason phrase as received, else the usual one.
    pub fn reason(&self) -> &str {
        if self.phrase.is_empty() { self.status.reason() } else { &self.phrase }
    }

    /// Appends the response to `out`; `Content-Length` is written from the body.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("RTSP/1.0 {:03} ", self.status.0).as_bytes());
        write_line_part(self.reason(), out);
        out.extend_from_slice(b"\r\n");
        self.headers.write_to(&self.body, out);
    }
}

/// Status code (RFC 2326 §7.1.1 and §11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub u16);

impl Status {
    pub const OK: Self = Self(200);
    pub const MOVED_PERMANENTLY: Self = Self(301);
    pub const MOVED_TEMPORARILY: Self = Self(302);
    pub const BAD_REQUEST: Self = Self(400);
    pub const UNAUTHORIZED: Self = Self(401);
    pub const FORBIDDEN: Self = Self(403);
    pub const NOT_FOUND: Self = Self(404);
    pub const METHOD_NOT_ALLOWED: Self = Self(405);
    pub const NOT_ACCEPTABLE: Self = Self(406);
    pub const REQUEST_TIMEOUT: Self = Self(408);
    pub const REQUEST_ENTITY_TOO_LARGE: Self = Self(413);
    pub const UNSUPPORTED_MEDIA_TYPE: Self = Self(415);
    pub const PARAMETER_NOT_UNDERSTOOD: Self = Self(451);
    pub const NOT_ENOUGH_BANDWIDTH: Self = Self(453);
    pub const SESSION_NOT_FOUND: Self = Self(454);
    pub const METHOD_NOT_VALID_IN_THIS_STATE: Self = Self(455);
    pub const AGGREGATE_OPERATION_NOT_ALLOWED: Self = Self(459);
    pub const UNSUPPORTED_TRANSPORT: Self = Self(461);
    pub const INTERNAL_SERVER_ERROR: Self = Self(500);
    pub const NOT_IMPLEMENTED: Self = Self(501);
    pub const BAD_GATEWAY: Self = Self(502);
    pub const SERVICE_UNAVAILABLE: Self = Self(503);
    pub const VERSION_NOT_SUPPORTED: Self = Self(505);
    pub const OPTION_NOT_SUPPORTED: Self = Self(551);

    /// 2xx.
    pub fn is_success(self) -> bool {
        self.0 / 100 == 2
    }

    /// The reason phrase; `Unknown` for codes that have no constant here.
    pub fn reason(self) -> &'static str {
        match self {
            Self::OK => "OK",
            Self::MOVED_PERMANENTLY => "Moved Permanently",
            Self::MOVED_TEMPORARILY => "Moved Temporarily",
            Self::BAD_REQUEST => "Bad Request",
            Self::UNAUTHORIZED => "Unauthorized",
            Self::FORBIDDEN => "Forbidden",
            Self::NOT_FOUND => "Not Found",
            Self::METHOD_NOT_ALLOWED => "Method Not Allowed",
            Self::NOT_ACCEPTABLE => "Not Acceptable",
            Self::REQUEST_TIMEOUT => "Request Time-out",
            Self::REQUEST_ENTITY_TOO_LARGE => "Request Entity Too Large",
            Self::UNSUPPORTED_MEDIA_TYPE => "Unsupported Media Type",
            Self::PARAMETER_NOT_UNDERSTOOD => "Parameter Not Understood",
            Self::NOT_ENOUGH_BANDWIDTH => "Not Enough Bandwidth",
            Self::SESSION_NOT_FOUND => "Session Not Found",
            Self::METHOD_NOT_VALID_IN_THIS_STATE => "Method Not Valid in This State",
            Self::AGGREGATE_OPERATION_NOT_ALLOWED => "Aggregate Operation Not Allowed",
            Self::UNSUPPORTED_TRANSPORT => "Unsupported Transport",
            Self::INTERNAL_SERVER_ERROR => "Internal Server Error",
            Self::NOT_IMPLEMENTED => "Not Implemented",
            Self::BAD_GATEWAY => "Bad Gateway",
            Self::SERVICE_UNAVAILABLE => "Service Unavailable",
            Self::VERSION_NOT_SUPPORTED => "RTSP Version Not Supported",
            Self::OPTION_NOT_SUPPORTED => "Option Not Supported",
            _ => "Unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn response_is_written_with_its_content_length() {
        let mut out = Vec::new();
        Response::new(Status::OK).header("CSeq", "2").body("application/sdp", "v=0\r\n").write_to(&mut out);
        let want =
            "RTSP/1.0 200 OK\r\nCSeq: 2\r\nContent-Type: application/sdp\r\nContent-Length: 5\r\n\r\nv=0\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }

    #[test]
    fn header_value_cannot_forge_a_header_line() {
        let mut out = Vec::new();
        Response::new(Status::NOT_FOUND).header("Location", "x\r\nSession: stolen").write_to(&mut out);
        let want = "RTSP/1.0 404 Not Found\r\nLocation: xSession: stolen\r\n\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }

    #[test]
    fn header_lookup_ignores_case_and_takes_the_first() {
        let request =
            Request::new(Method::Options, "*").header("User-Agent", "one").header("user-agent", "two");
        assert_eq!(request.headers.get("USER-AGENT"), Some("one"));
        assert_eq!(request.headers.get_all("User-agent").collect::<Vec<_>>(), ["one", "two"]);
    }
}
