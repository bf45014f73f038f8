//! The operator's desk, on threads of its own: configuration, and which shard each path lives on.
//!
//! Only `main` uses this module; shards know it by mail alone.

pub mod config;
pub mod desk;
