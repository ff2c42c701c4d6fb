//! When to ask: one poller per source, one gate in front of every request, pure rules for pauses, retries and pace.
//! Never reads a reply's body (`sources` does), never counts a result (`store` does).

pub mod budget;
pub mod retry;

use std::time::Duration;

/// How a source is polled.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// From the start of one round to the start of the next.
    pub interval: Duration,
    /// Without a complete round for so long, the source is down rather than slow.
    pub stale_after: Duration,
    /// The user's own ceiling.
    pub requests_per_minute: f64,
    /// How many requests may leave at once after a quiet time.
    pub burst: u32,
}
