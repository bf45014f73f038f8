//! Who shares it: one live publication ([`stream`]), one reader's place in it ([`cursor`]), which shard a path
//! lives on ([`registry`]), and the settings all of that runs on ([`settings`]).
//!
//! Knows no wire format and no socket: packets arrive here as facts about bytes that lie in the ring already.

pub mod cursor;
pub mod registry;
pub mod settings;
pub mod stream;
