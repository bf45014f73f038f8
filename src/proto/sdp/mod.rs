//! Session descriptions (RFC 8866).

pub mod base64;
pub mod fmtp;
pub mod parse;
pub mod write;

#[cfg(test)]
mod tests;

pub use parse::{Options, SdpError, SessionDescription, SkippedMedia, parse, parse_with};
pub use write::write;
