//! How one becomes many: [`ring`] inside a shard (one writer, many cursors), [`mailbox`] between shards.
//!
//! Knows no protocol, no clock and no socket. With `shard/media_io` it is the only place with `unsafe`.

pub mod mailbox;
#[cfg(not(loom))]
pub mod ring;
mod sync;
