//! How media travels: bytes and time in, bytes and events out. No sockets, no clock.

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod rtp;
pub mod rtsp;
pub mod sdp;
