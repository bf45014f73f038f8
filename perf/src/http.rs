//! A client for GET over one HTTP/1.1 connection that is kept alive. Knows only what an API on loopback needs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);
/// No answer of a relay is longer than that; a length that claims more is an error, not an allocation.
const BODY_MAX: u64 = 256 << 20;

/// Where an `http://host:port/path` URL leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    pub addr: SocketAddr,
    pub host: String,
    /// Begins with `/`, unless it is empty
    pub path: String,
}

impl Location {
    pub fn of(url: &str) -> Result<Self, String> {
        let rest = url.strip_prefix("http://").ok_or(format!("{url}: not an http:// URL"))?;
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let port = host.rsplit(':').next().is_some_and(|p| p.parse::<u16>().is_ok());
        let full = if port { host.to_owned() } else { format!("{host}:80") };
        let mut all = full.to_socket_addrs().map_err(|e| format!("{url}: {e}"))?;
        let addr = all.next().ok_or(format!("{url}: no address"))?;
        Ok(Self { addr, host: host.to_owned(), path: path.to_owned() })
    }
}

/// Reconnects when the server has closed the connection or an answer made no sense.
pub struct Client {
    to: Location,
    connection: Option<BufReader<TcpStream>>,
    body: Vec<u8>,
}

impl Client {
    pub fn new(to: Location) -> Self {
        Self { to, connection: None, body: Vec::new() }
    }

    /// Status and body.
    pub fn get(&mut self, path: &str) -> Result<(u16, &[u8]), String> {
        let mut connection = match self.connection.take() {
            Some(open) => open,
            None => self.connect()?,
        };
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.to.host);
        connection.get_mut().write_all(request.as_bytes()).map_err(|e| format!("write: {e}"))?;
        let (status, keep) = answer(&mut connection, &mut self.body)?;
        self.connection = keep.then_some(connection);
        Ok((status, &self.body))
    }

    fn connect(&self) -> Result<BufReader<TcpStream>, String> {
        let connected = TcpStream::connect_timeout(&self.to.addr, PATIENCE).and_then(|stream| {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(stream)
        });
        connected.map(|stream| BufReader::with_capacity(1 << 16, stream)).map_err(|e| format!("connect: {e}"))
    }
}

/// Reads one answer; its status, and whether the connection can carry another.
fn answer(from: &mut impl BufRead, body: &mut Vec<u8>) -> Result<(u16, bool), String> {
    let status_line = line(from)?;
    let status = status_line
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .ok_or(format!("not HTTP/1.1: {status_line}"))?;
    let (mut length, mut chunked, mut keep) = (None, false, true);
    loop {
        let header = line(from)?.to_ascii_lowercase();
        let Some((name, value)) = header.split_once(':') else { break };
        match (name, value.trim()) {
            ("content-length", n) => length = Some(n.parse::<u64>().map_err(|_| format!("length {n}"))?),
            ("transfer-encoding", "chunked") => chunked = true,
            ("connection", "close") => keep = false,
            _ => {}
        }
    }
    body.clear();
    if chunked {
        loop {
            let size = line(from)?;
            let n = u64::from_str_radix(size.split(';').next().unwrap_or(&size).trim(), 16);
            let n = n.map_err(|_| format!("chunk size {size}"))?;
            exactly(from, n, body)?;
            // the end of the chunk; of the last one, and of trailers, which nobody sends
            line(from)?;
            if n == 0 {
                break;
            }
        }
    } else {
        exactly(from, length.ok_or("an answer without a length")?, body)?;
    }
    Ok((status, keep))
}

fn line(from: &mut impl BufRead) -> Result<String, String> {
    let mut text = String::new();
    from.take(1 << 16).read_line(&mut text).map_err(|e| format!("read: {e}"))?;
    if !text.ends_with('\n') {
        return Err("the server closed the connection".into());
    }
    text.truncate(text.trim_end().len());
    Ok(text)
}

fn exactly(from: &mut impl BufRead, n: u64, body: &mut Vec<u8>) -> Result<(), String> {
    if body.len() as u64 + n > BODY_MAX {
        return Err(format!("an answer of over {BODY_MAX} bytes"));
    }
    let got = from.take(n).read_to_end(body).map_err(|e| format!("read: {e}"))?;
    if (got as u64) < n { Err("the server closed the connection".into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(u16, bool, String), String> {
        let mut body = Vec::new();
        let (status, keep) = answer(&mut text.as_bytes(), &mut body)?;
        Ok((status, keep, String::from_utf8(body).unwrap()))
    }

    #[test]
    fn answers() {
        let plain = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody";
        assert_eq!(read(plain), Ok((200, true, "body".into())));
        let chunked = "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
                       3\r\nabc\r\nA;x\r\n0123456789\r\n0\r\n\r\n";
        assert_eq!(read(chunked), Ok((404, false, "abc0123456789".into())));
        for bad in ["", "RTSP/1.0 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", &plain[..plain.len() - 1]] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(read("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n").is_err());
    }

    #[test]
    fn locations() {
        let found = Location::of("http://127.0.0.1:9998/metrics?type=paths").unwrap();
        assert_eq!((found.addr.port(), found.path.as_str()), (9998, "/metrics?type=paths"));
        assert_eq!(Location::of("http://127.0.0.1").unwrap().addr.port(), 80);
        assert!(Location::of("127.0.0.1:9997").is_err());
    }
}
