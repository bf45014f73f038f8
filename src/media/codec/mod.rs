//! Bitstream facts, one file per codec.

pub mod aac;
pub mod av1;
mod bits;
pub mod g711;
pub mod h264;
pub mod h265;
pub mod opus;
pub mod props;
pub mod vp9;
