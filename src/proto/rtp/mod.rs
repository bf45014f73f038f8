//! RTP and RTCP (RFC 3550).

pub mod header;
pub mod payload;
pub mod reorder;
pub mod rtcp;
pub mod sequence;
pub mod timeline;

pub use header::{Header, HeaderError};
