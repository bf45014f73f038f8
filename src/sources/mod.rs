//! Who brings media in: [`publication`] is what all of them feed, [`rtsp_publish`] an encoder that records to us,
//! [`rtsp_pull`] a camera that we ask, [`demo`] the built-in one. Bytes over TCP become packets [`in_place`]; datagrams
//! come in by [`udp_track`], for a source that is pulled on [`pull_sockets`]; [`continuity`] makes one stream of what
//! such a source sends in several sessions.

pub mod continuity;
pub mod demo;
pub mod in_place;
pub mod publication;
pub mod pull_sockets;
pub mod rtsp_publish;
pub mod rtsp_pull;
pub mod udp_track;
