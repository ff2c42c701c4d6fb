//! testrun-exporter: hosted test runs as Prometheus metrics.
//!
//! Facts flow one way, from a platform to a scrape:
//!
//! ```text
//! main -> app -> config, poll, store, metrics, web, simulate
//! poll -> sources -> transport (Request, Reply)      what to ask, when to ask
//! poll -> transport (trait)                          how it is sent
//! app: poll::Observer -> metrics::own                what it cost
//! store -> model                                     what is counted, once
//! metrics::render -> store::Snapshot, model, catalog what is shown
//! web -> nothing of ours                             how it is served
//! ```
//!
//! ARCHITECTURE.md says what each room refuses to do; a test holds the rooms to it.

#![forbid(unsafe_code)]

pub mod app;
pub mod cli;
pub mod config;
#[doc(hidden)]
pub mod fuzz;
pub mod health;
pub mod logging;
pub mod metrics;
pub mod model;
mod packed;
pub mod poll;
pub mod promotion;
pub mod simulate;
pub mod sources;
pub mod status;
pub mod store;
pub mod transport;
pub mod web;
