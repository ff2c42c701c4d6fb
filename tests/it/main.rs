//! The integration tests, one binary: rooms together, in virtual time; the shipped binary on real sockets.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "all of this binary is tests: a panic is how a test says no, and what it prints is shown if it does"
)]

mod certificates;
mod counters;
mod crash;
mod credentials;
mod exam;
mod fuzz;
mod harness;
mod health;
mod hostile;
mod ledger;
mod numbers;
mod outages;
mod process;
mod prometheus;
mod reload;
mod rooms;
mod scrape;
mod soak;
mod suites;
mod web;
mod web_config;
