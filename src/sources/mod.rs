//! The platforms: what to ask next, and how to read the answer. One file per platform plus its private wire types.
//! A source never awaits, never sees a clock (it is told the time), never logs, and never knows about pauses or retries.

pub mod empirical;
mod loose;
mod pager;
pub mod sample_platform;
mod sweep;
mod table;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use regex::Regex;

use crate::model::{Fact, Name, Notice, OTHER};
use crate::transport::{Reply, Request};

/// The platforms that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Empirical: Playwright end-to-end runs.
    Empirical,
    /// The CCExtractor Sample Platform: regression runs.
    SamplePlatform,
}

impl Kind {
    /// The word in the configuration and in the `kind` label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Empirical => "empirical",
            Self::SamplePlatform => "sample_platform",
        }
    }
}

/// How a source is read. Checked by `config`: every number here is within its documented range.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which platform.
    pub kind: Kind,
    /// How far back runs and history are read.
    pub lookback: Duration,
    /// How long a case that no finished run has listed is asked about.
    pub series_ttl: Duration,
    /// Which branches keep their name.
    pub branches: Branches,
    /// Environment id to name, where the platform's runs do not tell.
    pub environments: BTreeMap<String, String>,
    /// The unit of a run's `duration` field (Empirical).
    pub run_duration_unit: DurationUnit,
    /// How often snoozes are read; `None`: never (Empirical).
    pub snoozes: Option<Duration>,
    /// Per-case reading.
    pub cases: CaseSettings,
}

/// The unit of Empirical's `duration`, on which its documents disagree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DurationUnit {
    /// From the run's start and end alone; the field only where those are missing, in the unit that start and end of
    /// other runs have proved.
    #[default]
    Auto,
    /// Milliseconds.
    Milliseconds,
    /// Seconds.
    Seconds,
}

/// Where the case ids come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discovery {
    /// Empirical: the cases that the details of finished runs list.
    RunDetails,
    /// Empirical: the analytics' list of cases, at most 500.
    Analytics,
    /// Empirical: the registry of cases synced from the repository.
    Registry,
    /// Sample Platform: the results of finished runs.
    Runs,
    /// Sample Platform: the list of samples, then each one's history.
    Samples,
    /// Only the configured ids (Sample Platform: sample ids).
    Static,
}

/// Per-case reading.
#[derive(Debug, Clone)]
pub struct CaseSettings {
    /// Off: runs only.
    pub enabled: bool,
    /// Where ids come from.
    pub discovery: Discovery,
    /// Always tracked, whatever discovery finds.
    pub ids: Vec<String>,
    /// On the case's name or id; empty means all.
    pub include: Vec<Regex>,
    /// On the case's name or id; wins over `include`.
    pub exclude: Vec<Regex>,
    /// How many cases are tracked at the most.
    pub max: usize,
    /// Case ids in one history request (Empirical).
    pub batch_size: usize,
    /// How long after a run's end its results are first asked for (Empirical): analytics lag behind.
    pub analytics_lag: Duration,
}

impl CaseSettings {
    /// Whether the filters let a case through. Ids under `ids` are not asked.
    #[must_use]
    pub fn admits(&self, id: &str, name: &str) -> bool {
        let any = |rules: &[Regex]| rules.iter().any(|rule| rule.is_match(id) || rule.is_match(name));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }
}

/// Which branches keep their name in the `branch` label. Pull requests must not blur the trunk's streaks.
#[derive(Debug, Clone)]
pub struct Branches {
    rules: Vec<BranchRule>,
}

/// One entry of the configured list.
#[derive(Debug, Clone)]
pub enum BranchRule {
    /// This very name.
    Exact(String),
    /// Any name that the expression finds (written `~expression`).
    Pattern(Regex),
}

impl Branches {
    /// An empty list means: no `branch` label, all branches together.
    #[must_use]
    pub fn new(rules: Vec<BranchRule>) -> Self {
        Self { rules }
    }

    /// The label of a branch. A branch that upstream does not name is one of the others.
    #[must_use]
    pub fn label(&self, branch: Option<&str>) -> Name {
        if self.rules.is_empty() {
            return Name::from("");
        }
        let kept = branch.filter(|name| {
            self.rules.iter().any(|rule| match rule {
                BranchRule::Exact(exact) => exact == name,
                BranchRule::Pattern(pattern) => pattern.is_match(name),
            })
        });
        Name::from(kept.unwrap_or(OTHER))
    }
}

/// What an answer taught.
#[derive(Debug, Default, PartialEq)]
pub struct Learned {
    /// For the store.
    pub facts: Vec<Fact>,
    /// For the log, the counters and the status page.
    pub notices: Vec<Notice>,
}

impl Learned {
    /// Whether rows were passed over, but for those of `harmless`: something is not known that has happened.
    fn skips_rows(&self, harmless: &str) -> bool {
        let is_skip = |notice: &Notice| matches!(notice, Notice::RowSkipped { endpoint, .. } if *endpoint != harmless);
        self.notices.iter().any(is_skip)
    }
}

/// Why a request got no usable answer, after all retries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// A status that is not a success, and not 401 or 403.
    Status(u16),
    /// No complete answer in time.
    Timeout,
    /// Larger than is read.
    TooLarge,
    /// Not what the platform documents. The text names the place, never upstream's words.
    Unreadable(String),
}

/// How much is known, for the exporter's own metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Cases that are asked about.
    pub cases_tracked: usize,
    /// When the case that has waited longest was last brought up to date.
    pub oldest_refresh: Option<Timestamp>,
    /// Requests that are known to be worth making and wait for a later round.
    pub backlog: usize,
}

/// What a round may spend beyond the run list and what it takes to know which runs are finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Allowance {
    /// Requests; the rest of a backlog is left to later rounds.
    pub requests: usize,
    /// How many of them may ask again for what was read already.
    pub rereads: usize,
}

/// The bytes are not what a source of this kind and version remembers.
#[derive(Debug, thiserror::Error)]
#[error("the memory of the source cannot be read")]
pub struct MemoryError(#[from] postcard::Error);

/// A platform as a state machine without I/O. The poller calls `begin`, then `next` and one of `accept` and `reject` in
/// turn until `next` gives nothing: the round is complete. If the poller gives up instead, the next call is `begin`.
pub trait Source: Send + 'static {
    /// Starts a round.
    fn begin(&mut self, now: Timestamp, allowance: Allowance);

    /// The next request of this round; the same one again until it is answered or rejected.
    fn next(&mut self) -> Option<Request>;

    /// Reads the answer (a 2xx) to the request that `next` gave.
    ///
    /// # Errors
    /// The answer cannot be used: the poller turns to `reject` with the same reason.
    fn accept(&mut self, reply: &Reply) -> Result<Learned, Rejection>;

    /// The request that `next` gave has no usable answer. `Ok`: the source has a way round it (a smaller page, a smaller batch).
    ///
    /// # Errors
    /// There is no way round it: the round fails.
    fn reject(&mut self, rejection: Rejection) -> Result<Learned, Rejection>;

    /// How much is known.
    fn progress(&self) -> Progress;

    /// What it remembers of its platform, to be kept when a round has succeeded.
    ///
    /// # Errors
    /// None that the types allow.
    fn memory(&self) -> Result<Vec<u8>, MemoryError>;

    /// Goes on where the memory ends, as if there had been no pause. Must come before the first `begin`. The store has to
    /// be restored to the same moment: a source without its memory takes runs of old for the baseline, and a store that
    /// knows better would count them.
    ///
    /// # Errors
    /// It is no memory of such a source; nothing has changed.
    fn restore(&mut self, memory: &[u8]) -> Result<(), MemoryError>;
}

#[cfg(test)]
mod tests;
