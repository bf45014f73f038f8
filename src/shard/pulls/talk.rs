//! The talk with a source in the log, at level debug: a line per message, without anything that may hold a password.

use corecast_proto::rtsp::client::SourceUrl;
use tracing::debug;

/// Tells what we say to the source of `path`: `messages` without bodies, one after the other.
pub(super) fn tell_said(path: &str, messages: &[u8]) {
    if !tracing::event_enabled!(tracing::Level::DEBUG) {
        return;
    }
    for line in first_lines(messages) {
        debug!("[path {path}] [RTSP source] [c->s] {line}");
    }
}

/// The first line of each message, as people see it.
fn first_lines(messages: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(messages);
    let heads = text.split("\r\n\r\n").filter_map(|head| head.lines().next());
    heads.filter(|line| !line.is_empty()).map(shown).collect()
}

fn shown(line: &str) -> String {
    if let Some(answer) = line.strip_prefix("RTSP/1.0 ") {
        return answer.to_owned();
    }
    let (method, rest) = line.split_once(' ').unwrap_or((line, ""));
    let url = rest.strip_suffix(" RTSP/1.0").unwrap_or(rest);
    let url = SourceUrl::parse(url).map_or_else(|_| "…".to_owned(), |url| url.shown());
    format!("{method} {url}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_without_headers_and_queries() {
        let messages =
            b"OPTIONS rtsp://cam:554/a?password=p RTSP/1.0\r\nCSeq: 1\r\nAuthorization: Basic x\r\n\r\n\
            RTSP/1.0 200 OK\r\nCSeq: 7\r\n\r\nTEARDOWN rtsp://cam/a/trackID=1 RTSP/1.0\r\nCSeq: 2\r\n\r\n";
        let told = first_lines(messages);
        assert_eq!(told, ["OPTIONS rtsp://cam:554/a", "200 OK", "TEARDOWN rtsp://cam:554/a/trackID=1"]);
        assert_eq!(first_lines(b""), [] as [&str; 0]);
    }
}
