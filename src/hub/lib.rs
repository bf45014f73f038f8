//! Who shares it: one live publication ([`stream`]), one reader's place in it ([`cursor`]), which shard a path
//! lives on ([`registry`]), the settings all of that runs on ([`settings`]), how many may come in ([`quota`]), what is
//! brought only when somebody wants it ([`demand`]), and what the control plane gets to see of it ([`roster`],
//! [`gauges`]).
//!
//! Knows no wire format and no socket: packets arrive here as facts about bytes that lie in the ring already.

pub mod cursor;
pub mod demand;
pub mod gauges;
pub mod quota;
pub mod registry;
pub mod roster;
pub mod settings;
pub mod stream;
