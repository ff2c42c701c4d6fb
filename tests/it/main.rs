//! The integration tests, one binary: rooms together, in virtual time; the shipped binary on real sockets.

mod credentials;
mod exam;
mod harness;
mod numbers;
mod outages;
mod process;
mod prometheus;
