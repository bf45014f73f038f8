//! What an operator is told of a source that cannot be pulled: what was asked, what the answer was, what to do.

use super::super::{Method, Response, Status};
use super::transport::Mismatch;
use crate::sdp::SessionDescription;

/// Characters of a text of the server that are repeated.
const REPEATED_CHARS_MAX: usize = 80;
/// Medias of a description that are listed.
const LISTED_MAX: usize = 8;

/// `SETUP was answered 453 Not Enough Bandwidth`
pub(super) fn refused(method: &Method, response: &Response) -> String {
    format!("{method} was answered {} {}", response.status.0, repeated(response.reason()))
}

/// The same, with what to do about it.
pub(super) fn refused_with_advice(method: &Method, response: &Response) -> String {
    let advice = match response.status {
        Status::FORBIDDEN => ": this user may not see the stream, or from elsewhere only",
        Status::NOT_FOUND => ": the source has no such stream; check the path of its URL",
        Status::NOT_ENOUGH_BANDWIDTH | Status::SERVICE_UNAVAILABLE => {
            ": the source serves no more viewers at present"
        }
        Status::SESSION_NOT_FOUND => ": the source has ended the session",
        Status::UNSUPPORTED_TRANSPORT => {
            ": the source cannot send over this transport; choose another rtspTransport"
        }
        _ => "",
    };
    format!("{}{advice}", refused(method, response))
}

/// A text of the server, fit for a log line.
pub(super) fn repeated(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(REPEATED_CHARS_MAX).collect()
}

pub(super) fn mismatch(mismatch: Mismatch) -> &'static str {
    match mismatch {
        Mismatch::NotUdp => {
            "SETUP was answered with another transport than the UDP that was asked for; set rtspTransport to \
             automatic or tcp"
        }
        Mismatch::NotTcp => {
            "SETUP was answered with another transport than the TCP that was asked for; set rtspTransport to \
             automatic or udp"
        }
        Mismatch::NotMulticast => {
            "SETUP was answered without multicast; switch it on at the source, or choose another rtspTransport"
        }
        Mismatch::NoGroup => {
            "SETUP was answered without a multicast group and port to join; choose another rtspTransport"
        }
    }
}

/// A description without a track that can be had.
pub(super) fn no_track(description: &SessionDescription) -> String {
    let mut reasons: Vec<_> = description
        .skipped
        .iter()
        .take(LISTED_MAX)
        .map(|media| format!("line {}: {}", media.line, media.reason))
        .collect();
    let more = description.skipped.len().saturating_sub(LISTED_MAX);
    if more > 0 {
        reasons.push(format!("and {more} more"));
    }
    format!("the description has no track that can be relayed ({})", reasons.join("; "))
}
