//! What a child prints: read as fast as it comes so that the child never waits, but little of it is kept or logged.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    time::Instant,
};
use tracing::debug;

/// Longest part of a line that is kept.
const LINE_BYTES_MAX: usize = 4 << 10;
const READ_BYTES: usize = 8 << 10;
/// Lines of one pipe that are logged per second; the rest is counted.
const LINES_PER_SECOND: u32 = 20;

/// The last line a child said on its standard error, filled in while it runs.
#[derive(Debug, Clone, Default)]
pub(super) struct LastLine(Arc<Mutex<String>>);

impl LastLine {
    pub(super) fn get(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, line: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = line;
    }
}

/// Reads `pipe` to its end, logging its lines under `label`.
pub(super) async fn read(mut pipe: impl AsyncRead + Unpin, label: Arc<str>, last: Option<LastLine>) {
    let mut lines = Lines { label, last, partial: Vec::new(), logged: 0, left_out: 0, since: Instant::now() };
    let mut buffer = vec![0; READ_BYTES];
    // An error is an end: there is nothing to be had from this pipe any more.
    while let Ok(length @ 1..) = pipe.read(&mut buffer).await {
        lines.take(&buffer[..length]);
    }
    lines.end_of_line();
    lines.report_left_out();
}

struct Lines {
    label: Arc<str>,
    last: Option<LastLine>,
    partial: Vec<u8>,
    /// In the second that began at `since`.
    logged: u32,
    left_out: u64,
    since: Instant,
}

impl Lines {
    fn take(&mut self, mut bytes: &[u8]) {
        // A progress display ends its lines with a carriage return.
        while let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.extend(&bytes[..end]);
            self.end_of_line();
            bytes = &bytes[end + 1..];
        }
        self.extend(bytes);
    }

    fn extend(&mut self, bytes: &[u8]) {
        let room = LINE_BYTES_MAX - self.partial.len();
        self.partial.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn end_of_line(&mut self) {
        let line = mem::take(&mut self.partial);
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        if self.since.elapsed() >= Duration::from_secs(1) {
            self.report_left_out();
            self.since = Instant::now();
            self.logged = 0;
        }
        let wanted = tracing::enabled!(tracing::Level::DEBUG) && self.logged < LINES_PER_SECOND;
        if !wanted {
            self.left_out += 1;
        }
        if wanted || self.last.is_some() {
            let text = without_credentials(String::from_utf8_lossy(&line).trim());
            if wanted {
                self.logged += 1;
                debug!("{}: {text}", self.label);
            }
            if let Some(last) = &self.last {
                last.set(text);
            }
        }
    }

    fn report_left_out(&mut self) {
        match mem::take(&mut self.left_out) {
            0 => {}
            lines => debug!("{}: {lines} more lines, not shown", self.label),
        }
    }
}

/// `rtsp://user:password@camera` as `rtsp://***@camera`: programs like to repeat the URL that failed.
fn without_credentials(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("://") {
        out.push_str(before);
        out.push_str("://");
        let end =
            after.find(|c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\'' | '<' | '>'));
        let (authority, others) = after.split_at(end.unwrap_or(after.len()));
        match authority.rsplit_once('@') {
            Some((_, host)) => {
                out.push_str("***@");
                out.push_str(host);
            }
            None => out.push_str(authority),
        }
        rest = others;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_line_is_kept_cut_and_without_passwords() {
        let read_all = async |text: &[u8]| {
            let last = LastLine::default();
            read(text, "x".into(), Some(last.clone())).await;
            last.get()
        };
        assert_eq!(read_all(b"").await, "");
        assert_eq!(read_all(b"one\ntwo\n\n  \n").await, "two");
        assert_eq!(read_all(b"frame=1\rframe=2\rno newline").await, "no newline");
        assert_eq!(read_all(b"\xff\xfe broken\n").await, "\u{fffd}\u{fffd} broken");
        let long = read_all(&[b'x'; 3 * READ_BYTES]).await;
        assert_eq!(long.len(), LINE_BYTES_MAX);
        assert_eq!(
            read_all(b"'rtsp://admin:s3cr@t@10.0.0.1/a' and http://u:p@h: refused").await,
            "'rtsp://***@10.0.0.1/a' and http://***@h: refused"
        );
        assert_eq!(read_all(b"see http://host/a@b").await, "see http://host/a@b");
    }
}
