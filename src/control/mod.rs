//! The operator's desk, on threads of its own: configuration, which shard each path lives on, who may do what, and what
//! the operator sees of it.
//!
//! Only `main` uses this module; shards know it by mail alone.

pub mod api;
pub mod auth;
pub mod certificate;
pub mod check_hls;
pub mod config;
pub mod desk;
pub mod dialer;
pub mod directory;
pub mod hooks;
pub mod http;
pub mod metrics;
pub mod office;
pub mod plane;
pub mod servers;
pub mod settings;
pub mod shard_tls;
pub mod tally;
