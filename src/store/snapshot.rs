//! What is published: plain values, complete and consistent, shared by reference and never changed.
//! No logic lives here beyond a histogram's arithmetic.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::health::Health;
use crate::model::{
    ActiveState, CaseInfo, CaseOutcome, CaseResult, ErrorCode, Group, Name, Run, RunId, RunOutcome, Verdict,
};
use crate::promotion::Standing;

/// All sources' data at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Grows by one with each publication.
    pub generation: u64,
    /// By source name.
    pub sources: Vec<Arc<SourceSnapshot>>,
}

/// One source's data as of its last complete round.
#[derive(Debug, Clone)]
pub struct SourceSnapshot {
    /// The `source` label.
    pub source: Name,
    /// The platform's name of the project, if it has told.
    pub project: Option<Name>,
    /// By group.
    pub groups: Vec<GroupRow>,
    /// Runs that ended in an error, by environment and code. Pre-created: every code of `error_codes` is present.
    pub run_errors: BTreeMap<Name, ErrorCounts>,
    /// The codes that this platform can tell, the only ones shown.
    pub error_codes: &'static [ErrorCode],
    /// The states that this platform has, the only ones shown.
    pub active_states: &'static [ActiveState],
    /// Runs that are not finished, by environment.
    pub runs_active: BTreeMap<Name, [u64; ActiveState::COUNT]>,
    /// By (environment, branch, case), within the series budget.
    pub cases: Vec<CaseRow>,
    /// The text of the cases in `cases`, by case.
    pub case_infos: Vec<CaseInfo>,
    /// Cases by environment, current outcome and verdict: exact, whatever the budget leaves out.
    pub case_outcomes: BTreeMap<Name, [[u64; Verdict::COUNT]; CaseOutcome::COUNT]>,
    /// Snoozes by environment, those that hold everywhere under the empty name; empty if nobody knows of snoozes.
    pub snoozes: BTreeMap<Name, SnoozeRow>,
    /// What speaks against a promotion.
    pub promotion: Promotion,
    /// Cases (rows) without series of their own, for want of room. What they count is in rows of the case [`OTHER`](crate::model::OTHER).
    pub cases_folded: u64,
    /// When the round that this is the result of ended.
    pub as_of: Timestamp,
}

impl SourceSnapshot {
    /// These gauges with the counters of an earlier snapshot, for as long as these may not be told. A row that was not there
    /// is at 0.
    #[must_use]
    pub fn with_counters_of(&self, earlier: Option<&Self>) -> Self {
        let mut shown = self.clone();
        let groups = earlier.map_or(&[][..], |earlier| &earlier.groups);
        let groups: HashMap<&Group, &GroupRow> = groups.iter().map(|row| (&row.group, row)).collect();
        for row in &mut shown.groups {
            let before = groups.get(&row.group);
            row.runs = before.map_or([0; RunOutcome::COUNT], |before| before.runs);
            row.cases = before.map_or([0; CaseOutcome::COUNT], |before| before.cases);
            row.duration = before.map_or_else(|| Histogram::new(row.duration.bounds), |before| before.duration.clone());
            row.counted = before.map_or_else(Default::default, |before| before.counted.clone());
            row.queue = before.map_or_else(|| Histogram::new(row.queue.bounds), |before| before.queue.clone());
            row.created = before.map_or(row.created, |before| before.created);
        }
        for (environment, counts) in &mut shown.run_errors {
            let before = earlier.and_then(|earlier| earlier.run_errors.get(environment));
            *counts = before.copied().unwrap_or(ErrorCounts {
                counts: [0; ErrorCode::COUNT],
                ..*counts
            });
        }
        let cases = earlier.map_or(&[][..], |earlier| &earlier.cases);
        let cases: HashMap<(&Group, &Name), &CaseRow> =
            cases.iter().map(|row| ((&row.group, &row.case), row)).collect();
        for row in &mut shown.cases {
            match cases.get(&(&row.group, &row.case)) {
                Some(before) => {
                    row.counts = before.counts.clone();
                    row.counted.clone_from(&before.counted);
                    row.created = before.created;
                }
                None => {
                    row.counts = row.came_back_at.as_deref().cloned().unwrap_or_default();
                    row.counted = Default::default();
                }
            }
        }
        shown
    }
}

/// Errors of one environment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ErrorCounts {
    /// By code.
    pub counts: [u64; ErrorCode::COUNT],
    /// See [`CaseRow::created`].
    pub created: Option<Timestamp>,
}

/// Runs of one group.
#[derive(Debug, Clone)]
pub struct GroupRow {
    /// Which.
    pub group: Group,
    /// Finished runs counted, by outcome.
    pub runs: [u64; RunOutcome::COUNT],
    /// Case results summed over them, from the runs' own counts.
    pub cases: [u64; CaseOutcome::COUNT],
    /// Start to end.
    pub duration: Histogram,
    /// Creation to start.
    pub queue: Histogram,
    /// The newest run counted under each outcome.
    pub counted: [Option<Arc<CountedRun>>; RunOutcome::COUNT],
    /// See [`CaseRow::created`].
    pub created: Option<Timestamp>,
    /// The run that ended last.
    pub last: Option<Run>,
    /// Its failures without the snoozed ones.
    pub failed_after_snooze: Option<u64>,
}

/// What speaks against a promotion, by environment.
#[derive(Debug, Clone, Default)]
pub struct Promotion {
    /// When the round ended that found this. `None`: it was another process's, or there was none by these rules.
    pub as_of: Option<Timestamp>,
    /// By environment.
    pub standings: Arc<[Standing]>,
}

/// Snoozes of one environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnoozeRow {
    /// Snoozes that hold in this environment alone.
    pub active: u64,
    /// Cases of the environment that are snoozed, there or everywhere. `None`: it is no environment.
    pub cases: Option<u64>,
    /// When the next one that holds there is over.
    pub next_expiry: Option<Timestamp>,
}

/// One case in one group, or, as the case [`OTHER`](crate::model::OTHER), the counts of a group's cases that had no room when they happened.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseRow {
    /// Where.
    pub group: Group,
    /// Which.
    pub case: Name,
    /// What is counted.
    pub counts: Counts,
    /// What these were when the case was given series of its own again. `None`: it never left.
    pub came_back_at: Option<Arc<Counts>>,
    /// The result of the run that ended last.
    pub last: Option<LastResult>,
    /// When it last passed, flaky or not.
    pub last_pass: Option<Timestamp>,
    /// Failures since then.
    pub consecutive_failures: u64,
    /// Whether its failures are snoozed there.
    pub snoozed: bool,
    /// When the run of the first of them ended.
    pub failing_since: Option<Timestamp>,
    /// What its newest results say. `None`: no result is known, or these are the counts of others.
    pub health: Option<Arc<Health>>,
    /// The newest run counted under each outcome.
    pub counted: [Option<Arc<CountedRun>>; CaseOutcome::COUNT],
    /// When its counters began at 0. `None`: that is not known, or not to be told.
    pub created: Option<Timestamp>,
}

/// What is counted of one case in one group, or of several.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// Results, by outcome.
    pub results: [u64; CaseOutcome::COUNT],
    /// Retries.
    pub retries: u64,
    /// Seconds of the results that told a duration.
    pub duration_sum: f64,
    /// How many told one.
    pub duration_count: u64,
}

impl Counts {
    /// Counts a result with all that belongs to it. A duration that is not a length of time is not one.
    pub(super) fn add(&mut self, result: &CaseResult) {
        self.results[result.outcome.index()] += 1;
        self.retries = self.retries.saturating_add(result.retries.unwrap_or(0));
        if let Some(seconds) = result
            .duration_seconds
            .filter(|seconds| seconds.is_finite() && *seconds >= 0.0)
        {
            self.duration_sum += seconds;
            self.duration_count += 1;
        }
    }

    /// Adds all of another one.
    pub(super) fn merge(&mut self, other: &Self) {
        for (sum, count) in self.results.iter_mut().zip(other.results) {
            *sum += count;
        }
        self.retries = self.retries.saturating_add(other.retries);
        self.duration_sum += other.duration_sum;
        self.duration_count += other.duration_count;
    }
}

/// A run that has moved a count: what a person who sees the count move wants to open.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CountedRun {
    /// Its identity within the source.
    pub run: RunId,
    /// A link to what was tested or to the run.
    pub url: Option<Name>,
    /// When it ended.
    #[serde(with = "crate::packed")]
    pub at: Option<Timestamp>,
}

impl CountedRun {
    pub(super) fn new(run: &Run) -> Self {
        Self {
            run: run.id,
            url: run.build_url.clone(),
            at: run.ended,
        }
    }

    /// Runs may be counted in any order.
    fn is_newer_than(&self, other: &Self) -> bool {
        (self.at, self.run) > (other.at, other.run)
    }

    /// Puts itself where the newest run is remembered, unless a newer one is there.
    pub(super) fn remember_in(self: &Arc<Self>, newest: &mut Option<Arc<Self>>) {
        if newest.as_ref().is_none_or(|known| self.is_newer_than(known)) {
            *newest = Some(Arc::clone(self));
        }
    }
}

/// The newest result of a case in a group.
#[derive(Debug, Clone, PartialEq)]
pub struct LastResult {
    /// How it went.
    pub outcome: CaseOutcome,
    /// When it was executed; else when its run ended.
    pub at: Option<Timestamp>,
    /// Seconds.
    pub duration_seconds: Option<f64>,
}

/// Observations in buckets of fixed upper bounds, plus the one without a bound.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// Upper bounds in seconds, ascending, without +Inf.
    pub bounds: &'static [f64],
    /// Observations per bucket, not cumulated; one more than `bounds`.
    pub counts: Vec<u64>,
    /// Sum of the observations.
    pub sum: f64,
    /// The newest run counted in each bucket, and its observation.
    pub counted: Vec<Option<(Arc<CountedRun>, f64)>>,
}

impl Histogram {
    /// An empty one.
    #[must_use]
    pub fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            counts: vec![0; bounds.len() + 1],
            sum: 0.0,
            counted: vec![None; bounds.len() + 1],
        }
    }

    /// One that was kept, if it has these bounds.
    pub(super) fn kept(
        bounds: &'static [f64],
        counts: Vec<u64>,
        sum: f64,
        counted: Vec<Option<(Arc<CountedRun>, f64)>>,
    ) -> Option<Self> {
        let buckets = bounds.len() + 1;
        (counts.len() == buckets && counted.len() == buckets).then_some(Self {
            bounds,
            counts,
            sum,
            counted,
        })
    }

    /// Adds one observation.
    pub fn observe(&mut self, value: f64) {
        let bucket = self.bucket(value);
        self.counts[bucket] += 1;
        self.sum += value;
    }

    /// Adds what was observed of a run.
    pub(super) fn observe_run(&mut self, value: f64, run: &Arc<CountedRun>) {
        self.observe(value);
        let bucket = self.bucket(value);
        let newest = &mut self.counted[bucket];
        if newest.as_ref().is_none_or(|(known, _)| run.is_newer_than(known)) {
            *newest = Some((Arc::clone(run), value));
        }
    }

    fn bucket(&self, value: f64) -> usize {
        self.bounds
            .iter()
            .position(|bound| value <= *bound)
            .unwrap_or(self.bounds.len())
    }

    /// How many observations there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(run: RunId, second: i64) -> Arc<CountedRun> {
        Arc::new(CountedRun {
            run,
            url: None,
            at: Timestamp::from_second(second).ok(),
        })
    }

    #[test]
    fn the_newest_run_is_remembered_in_whatever_order_runs_are_counted() {
        let mut newest = None;
        for (run, expected) in [
            (counted(7, 100), 7),
            (counted(9, 50), 7),
            (counted(8, 100), 8),
            (counted(7, 100), 8),
        ] {
            run.remember_in(&mut newest);
            assert_eq!(newest.as_ref().map(|known| known.run), Some(expected));
        }
    }

    #[test]
    fn each_bucket_remembers_its_own_newest_run_and_what_was_observed_of_it() {
        let mut histogram = Histogram::new(&[10.0, 60.0]);
        for (seconds, run) in [(10.0, 1), (11.0, 3), (59.0, 2), (1e6, 4)] {
            histogram.observe_run(seconds, &counted(run, 100));
        }
        assert_eq!((&histogram.counts[..], histogram.count()), (&[1, 2, 1][..], 4));
        let remembered = histogram.counted.iter().flatten();
        let remembered: Vec<_> = remembered.map(|(run, seconds)| (run.run, *seconds)).collect();
        assert_eq!(remembered, [(1, 10.0), (3, 11.0), (4, 1e6)]);
    }
}
