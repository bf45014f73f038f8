//! The shape media leaves in: access units in, what players fetch out. Knows no sockets and no clocks.

pub mod hls;
