//! The platforms' rate limit: a fixed window that starts at a bucket's first request, counted by each server worker alone.

use std::collections::HashMap;
use std::time::Duration;

use super::run::{Ms, millis};

/// How many requests a bucket may make in one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Requests in one window.
    pub requests: u32,
    /// The window's length; the Sample Platform's is 60 s.
    pub window: Duration,
    /// Server workers that take turns and count separately. Each forgets nothing of its own and knows nothing of the others.
    pub workers: usize,
}

impl Limit {
    /// `requests` a minute, one worker.
    #[must_use]
    pub const fn per_minute(requests: u32) -> Self {
        Self {
            requests,
            window: Duration::from_secs(60),
            workers: 1,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Window {
    start: Ms,
    count: u32,
}

/// What the limiter says to one request, in the words of its headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) allowed: bool,
    pub(super) limit: u32,
    pub(super) remaining: u32,
    /// Seconds since the epoch, cut.
    pub(super) reset: i64,
    /// Whole seconds, cut: up to one second too short.
    pub(super) retry_after: i64,
}

#[derive(Debug)]
pub(super) struct Limiter {
    pub(super) limit: Limit,
    windows: HashMap<(String, usize), Window>,
    turn: usize,
}

impl Limiter {
    pub(super) fn new(limit: Limit) -> Self {
        Self {
            limit,
            windows: HashMap::new(),
            turn: 0,
        }
    }

    pub(super) fn take(&mut self, bucket: &str, now: Ms) -> Verdict {
        let length = millis(self.limit.window);
        let worker = self.turn % self.limit.workers.max(1);
        self.turn += 1;
        let window = self
            .windows
            .entry((bucket.to_owned(), worker))
            .or_insert(Window { start: now, count: 0 });
        if now - window.start >= length {
            *window = Window { start: now, count: 0 };
        }
        let allowed = window.count < self.limit.requests;
        if allowed {
            window.count += 1;
        }
        let reset = (window.start + length).div_euclid(1000);
        let retry_after = (reset - now.div_euclid(1000)).max(1);
        Verdict {
            allowed,
            limit: self.limit.requests,
            remaining: self.limit.requests - window.count,
            reset,
            retry_after,
        }
    }
}
