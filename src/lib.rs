//! Corecast: a camera relay. The modules in the order in which a packet meets them.
//!
//! ARCHITECTURE.md draws the map; the dry half (formats, state machines, the ring) lives in the `corecast-*` crates
//! beside these modules.

pub mod shard;

pub mod sources;

pub mod readers;

pub mod control;

pub mod observe;
