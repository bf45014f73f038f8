//! What the operator sees: the log.

pub mod log;
