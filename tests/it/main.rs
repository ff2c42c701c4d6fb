//! The integration tests, one binary: rooms together, in virtual time; the shipped binary on real sockets.

mod exam;
mod scrape;
