//! RTSP 1.0 (RFC 2326).

pub mod auth;
pub mod client;
pub mod headers;
pub mod interleaved;
pub mod message;
pub mod parse;
pub mod server;
pub mod url;

pub use headers::{Lower, Mode, Profile, Transport};
pub use message::{Headers, Method, Request, Response, Status};
pub use parse::{Limits, MessageError, Parsed, parse_request, parse_response};
