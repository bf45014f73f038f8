//! The end-to-end tests: the built server, real clients, real sockets. One binary, a file per promise.
//!
//! The server under test is the one cargo built, or `CORECAST_TEST_SERVER=/path/to/another`: MediaMTX passes
//! every test that is not about something only Corecast has (those say so and return).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends where it stands")]

mod support;

mod api;
mod auth;
mod browser;
mod cli;
mod clients;
mod control_thread;
mod customer;
mod demand;
mod hls;
mod hls_control;
mod hooks;
mod join;
mod lifecycle;
mod methods;
mod metrics;
mod milestone;
mod mocks;
mod oversize;
mod publish_read;
mod pull;
mod pull_again;
mod pull_basic;
mod pull_dead;
mod pull_wire;
mod reload;
mod secrets;
mod shards;
mod sim;
mod slow;
mod tidy;
mod tls;
mod web;
