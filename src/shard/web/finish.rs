//! What every answer has, and its body on the way out.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use hyper::body::{Body, Frame, SizeHint};

use super::{WebAnswer, visit::Stay};

/// Bytes of a body that are taken at a time: what a client does not read stays where it is.
const FRAME_BYTES_MAX: usize = 64 << 10;

/// What of a request decides on the form of its answer.
pub struct Manner {
    pub is_head: bool,
    pub range: Option<HeaderValue>,
    /// For `Access-Control-Allow-Origin`.
    pub origin: Option<HeaderValue>,
}

/// The body of an answer: pieces that others may hold too.
pub struct AnswerBody {
    /// The next one is the last.
    pieces: Vec<Bytes>,
    left: u64,
    stay: Stay,
}

/// Makes an answer hyper's.
pub fn finish(answer: WebAnswer, manner: Manner, stay: Stay) -> Response<AnswerBody> {
    let WebAnswer { mut status, mut headers, mut body } = answer;
    headers.insert(header::SERVER, HeaderValue::from_static("mediamtx"));
    if let Some(origin) = manner.origin {
        if origin != "*" {
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    body.retain(|piece| !piece.is_empty());
    let mut left = length_of(&body);
    if let Some(range) = manner.range
        && status == StatusCode::OK
        && headers.get(header::ACCEPT_RANGES).is_some_and(|unit| unit == "bytes")
    {
        status = cut_to_range(&range, &mut headers, &mut body, left);
        left = length_of(&body);
    }
    if manner.is_head {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(left));
        (body, left) = (Vec::new(), 0);
    }
    body.reverse();
    let mut response = Response::new(AnswerBody { pieces: body, left, stay });
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn length_of(pieces: &[Bytes]) -> u64 {
    pieces.iter().map(|piece| piece.len() as u64).sum()
}

/// Leaves of a body of `length` bytes what was asked for (RFC 9110 §14.2). Of several ranges it would take a form of its
/// own, so all of it is sent then, as of what cannot be read.
fn cut_to_range(
    range: &HeaderValue,
    headers: &mut HeaderMap,
    body: &mut Vec<Bytes>,
    length: u64,
) -> StatusCode {
    let Some(range) = range.to_str().ok().and_then(|range| Range::parse(range, length)) else {
        return StatusCode::OK;
    };
    let (first, end) = match range {
        Range::Within { first, end } => (first, end),
        Range::Outside => {
            body.clear();
            headers.remove(header::CONTENT_TYPE);
            if let Ok(value) = HeaderValue::try_from(format!("bytes */{length}")) {
                headers.insert(header::CONTENT_RANGE, value);
            }
            return StatusCode::RANGE_NOT_SATISFIABLE;
        }
    };
    if let Ok(value) = HeaderValue::try_from(format!("bytes {first}-{}/{length}", end - 1)) {
        headers.insert(header::CONTENT_RANGE, value);
    }
    let mut at = 0;
    for piece in body.iter_mut() {
        let (from, to) = (at, at + piece.len() as u64);
        at = to;
        let (first, end) = (first.clamp(from, to) - from, end.clamp(from, to) - from);
        *piece = piece.slice(first as usize..end as usize);
    }
    body.retain(|piece| !piece.is_empty());
    StatusCode::PARTIAL_CONTENT
}

#[derive(Debug, PartialEq, Eq)]
enum Range {
    Within { first: u64, end: u64 },
    Outside,
}

impl Range {
    /// `None` of what is not one range of bytes.
    fn parse(text: &str, length: u64) -> Option<Self> {
        let (unit, range) = text.split_once('=')?;
        let (first, last) = range.trim().split_once('-')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        // More digits than fit are more bytes than there are.
        let number = |digits: &str| {
            let are_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            are_digits.then(|| digits.parse().unwrap_or(u64::MAX))
        };
        let (first, end) = match (first, last) {
            ("", suffix) => (length.saturating_sub(number(suffix)?), length),
            (first, "") => (number(first)?, length),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                if last < first {
                    return None;
                }
                (first, last.saturating_add(1).min(length))
            }
        };
        Some(if first < end { Self::Within { first, end } } else { Self::Outside })
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        let Some(last) = this.pieces.last_mut() else { return Poll::Ready(None) };
        let piece = match last.len() > FRAME_BYTES_MAX {
            true => last.split_to(FRAME_BYTES_MAX),
            false => this.pieces.pop().unwrap_or_default(),
        };
        this.left -= piece.len() as u64;
        this.stay.moves();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_http_has_them() {
        let within = |first, end| Some(Range::Within { first, end });
        for (text, expected) in [
            ("bytes=0-0", within(0, 1)),
            ("bytes=2-5", within(2, 6)),
            ("Bytes=2-", within(2, 10)),
            ("bytes=-3", within(7, 10)),
            ("bytes=-30", within(0, 10)),
            ("bytes=0-99999999999999999999", within(0, 10)),
            ("bytes=10-", Some(Range::Outside)),
            ("bytes=99999999999999999999-", Some(Range::Outside)),
            ("bytes=-0", Some(Range::Outside)),
            ("bytes=5-2", None),
            ("bytes=0-1,4-5", None),
            ("bytes=", None),
            ("bytes=-", None),
            ("bytes=+1-2", None),
            ("parts=1-2", None),
        ] {
            assert_eq!(Range::parse(text, 10), expected, "{text}");
        }
        assert_eq!(Range::parse("bytes=0-", 0), Some(Range::Outside));
    }

    #[test]
    fn a_range_is_cut_out_of_shared_pieces() {
        let cut = |range: &'static str| {
            let mut body: Vec<_> =
                ["abc", "def", "ghi"].map(|piece| Bytes::from_static(piece.as_bytes())).to_vec();
            let mut headers = HeaderMap::new();
            let status = cut_to_range(&HeaderValue::from_static(range), &mut headers, &mut body, 9);
            let value = headers.get(header::CONTENT_RANGE).map(|value| value.to_str().unwrap().to_owned());
            (status.as_u16(), value.unwrap_or_default(), body.concat())
        };
        assert_eq!(cut("bytes=2-6"), (206, "bytes 2-6/9".to_owned(), b"cdefg".to_vec()));
        assert_eq!(cut("bytes=3-5"), (206, "bytes 3-5/9".to_owned(), b"def".to_vec()));
        assert_eq!(cut("bytes=-1"), (206, "bytes 8-8/9".to_owned(), b"i".to_vec()));
        assert_eq!(cut("bytes=9-"), (416, "bytes */9".to_owned(), Vec::new()));
        assert_eq!(cut("nonsense"), (200, String::new(), b"abcdefghi".to_vec()));
    }
}
