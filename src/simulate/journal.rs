//! What was asked of a platform, and whether the asker behaved: a platform is the best witness of its client's conduct.

use std::collections::VecDeque;

use jiff::Timestamp;

use super::run::Ms;

/// A demo runs for days; its journal keeps this many of the newest requests.
const ENTRIES_MAX: usize = 200_000;
/// One broken rule repeats with each request; the first ones tell the story.
const VIOLATIONS_MAX: usize = 100;

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When it arrived.
    pub at: Timestamp,
    /// `GET` or `POST`, if the client behaves.
    pub method: String,
    /// The path.
    pub path: String,
    /// The decoded query.
    pub query: Vec<(String, String)>,
    /// The route template; empty for a route that does not exist.
    pub endpoint: &'static str,
    /// The status of the answer; 0 where none was sent.
    pub status: u16,
}

/// The requests and the broken rules.
#[derive(Debug, Default)]
pub struct Journal {
    entries: VecDeque<Entry>,
    violations: Vec<String>,
    paused_until: Ms,
    budget: Option<(f64, u32)>,
    recent: VecDeque<Ms>,
    in_flight: usize,
}

impl Journal {
    /// The newest requests, oldest first.
    #[must_use]
    pub fn entries(&self) -> &VecDeque<Entry> {
        &self.entries
    }

    /// The rules that the client has broken.
    #[must_use]
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    pub(super) fn forget_entries(&mut self) {
        self.entries.clear();
    }

    pub(super) fn violate(&mut self, now: Ms, what: &str) {
        if self.violations.len() < VIOLATIONS_MAX {
            let at = Timestamp::from_millisecond(now).unwrap_or_default();
            self.violations.push(format!("{at}: {what}"));
        }
    }

    pub(super) fn expect_budget(&mut self, per_minute: f64, burst: u32) {
        self.budget = Some((per_minute, burst));
        self.recent.clear();
    }

    /// A client that has just started cannot know what was said before.
    pub(super) fn forget_promises(&mut self) {
        self.paused_until = 0;
        self.recent.clear();
        self.in_flight = 0;
    }

    pub(super) fn announce_pause(&mut self, until: Ms) {
        self.paused_until = self.paused_until.max(until);
    }

    /// Judges the moment of a request.
    pub(super) fn arrive(&mut self, now: Ms, path: &str) {
        if now < self.paused_until {
            let left = self.paused_until - now;
            self.violate(
                now,
                &format!("{path} was asked {left} ms before the end of an announced pause"),
            );
        }
        let Some((per_minute, burst)) = self.budget else { return };
        self.recent.push_back(now);
        while self.recent.front().is_some_and(|at| now - at >= 60_000) {
            self.recent.pop_front();
        }
        #[expect(clippy::cast_precision_loss, reason = "counts of requests are small")]
        let count = self.recent.len() as f64;
        if count > per_minute.ceil() + f64::from(burst) {
            self.violate(
                now,
                &format!("{count} requests within 60 s, promised {per_minute} + {burst}"),
            );
        }
    }

    pub(super) fn begin(&mut self, now: Ms) {
        self.in_flight += 1;
        if self.in_flight > 1 {
            let count = self.in_flight;
            self.violate(now, &format!("{count} requests at once"));
        }
    }

    pub(super) fn end(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    pub(super) fn record(&mut self, entry: Entry) {
        if self.entries.len() == ENTRIES_MAX {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }
}
