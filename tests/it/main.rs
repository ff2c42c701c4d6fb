//! The integration tests, one binary: rooms together, in virtual time; the shipped binary on real sockets.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on has failed, and says what it did"
)]

mod counters;
mod crash;
mod exam;
mod ledger;
