//! The end-to-end tests: the built server, real clients, real sockets. One binary, a file per promise.
//!
//! The server under test is the one cargo built, or `CORECAST_TEST_SERVER=/path/to/another`: MediaMTX passes
//! every test that is not about something only Corecast has (those say so and return).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends where it stands")]

mod support;

mod cli;
mod clients;
mod join;
mod lifecycle;
mod methods;
mod oversize;
mod publish_read;
mod shards;
mod sim;
mod slow;
mod tidy;
