//! Test health: what the recent results of one case say about it, as counts, as odds and as one word.
//! Pure functions of results that are handed in; never counts for a counter, never sees a clock, never knows where results come from.
//!
//! [`judge`] takes the results of one case in one environment and branch, oldest first, and gives its [`Health`]. The rules, with
//! the names of their thresholds in [`Settings`]; the first that applies decides:
//!
//! 1. No decisive result (passed, flaky, failed, missing output) is known: **unknown**.
//! 2. The newest one is older than `quiet_after`: **quiet**.
//! 3. It fails now, without a pass in the window, and at least `broken_results` results say so: **broken**.
//! 4. It fails now, has passed before, and its newest failures, as far as they have one signature, are on at least
//!    `regressed_commits` commits that have no pass (or are at least `regressed_runs` runs whose commits are not known), and the odds
//!    that it is no flake are at least `regression_probability`: **regressed**.
//! 5. There is evidence that it is unsteady: **flaky**. Evidence is any of these: a result reported as flaky; a commit with
//!    a pass and a failure; `flaky_flips` flips between passing and failing, if the flake probability is at least
//!    `flaky_probability`; a streak whose last failures each have another signature.
//! 6. It fails now: **unknown**, because it is too early to tell.
//! 7. **healthy**.
//!
//! Results of runs that the infrastructure has spoilt ([`infrastructure`]) are kept out of all of this, and so are skipped and unknown
//! ones. The counts of outcomes in the window hold everything.

pub mod infrastructure;
mod odds;
#[cfg(test)]
mod tests;
mod window;

use std::time::Duration;

use jiff::Timestamp;

use crate::model::{CaseOutcome, Verdict};

use window::Measures;

/// The largest window: as many results of a case are held one by one.
pub const WINDOW_MAX: usize = 50;

/// One result of a case, as much as its health needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observation {
    /// When its run ended, if that is known.
    pub ended: Option<Timestamp>,
    /// A number that stands for the commit: equal for equal commits.
    pub commit: Option<u64>,
    /// How it went.
    pub outcome: CaseOutcome,
    /// A number that stands for the kind of failure: equal for equal failures, 0 if none is known.
    pub signature: u64,
    /// Attempts beyond the first.
    pub retries: u32,
    /// Whether the infrastructure has spoilt its run, so that the result says nothing about the case.
    pub infrastructure: bool,
}

impl Observation {
    /// Whether it says that the case passes, or that it fails.
    const fn is_decisive(&self) -> bool {
        !self.infrastructure && (self.outcome.is_pass() || self.outcome.is_failure())
    }
}

/// The thresholds of the verdicts.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How many of the newest results are looked at, at most [`WINDOW_MAX`].
    pub window: usize,
    /// A case whose newest decisive result is older is quiet.
    pub quiet_after: Duration,
    /// How many decisive results without a pass make a case broken.
    pub broken_results: usize,
    /// On how many commits a case that passed must fail to be regressed.
    pub regressed_commits: usize,
    /// The same in runs, for failures whose commits are not known.
    pub regressed_runs: usize,
    /// How sure it must be that the failure is no flake.
    pub regression_probability: f64,
    /// How many flips between passing and failing are evidence of flakiness.
    pub flaky_flips: usize,
    /// How large the flake probability must be for flips to be evidence: below it they were honest breaks and repairs.
    pub flaky_probability: f64,
    /// How many decisive results it takes to speak of a flake probability.
    pub min_results: usize,
    /// What makes a run one that says nothing about its cases.
    pub infrastructure: infrastructure::Settings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            window: WINDOW_MAX,
            quiet_after: Duration::from_secs(7 * 86_400),
            broken_results: 3,
            regressed_commits: 2,
            regressed_runs: 4,
            regression_probability: 0.8,
            flaky_flips: 4,
            flaky_probability: 0.02,
            min_results: 10,
            infrastructure: infrastructure::Settings::default(),
        }
    }
}

/// What the recent results of a case say.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// The one word.
    pub verdict: Verdict,
    /// When the newest decisive result was. `None`: there is none, or nobody knows.
    pub newest: Option<Timestamp>,
    /// Changes between passing and failing in the window.
    pub flips: u32,
    /// Commits of the window with a pass and a failure.
    pub contradictory_commits: u32,
    /// Known commits that have failed since the last pass, without those that have passed as well.
    pub streak_commits: u32,
    /// Different known signatures of the failures since the last pass.
    pub streak_signatures: u32,
    /// How many results the window may hold.
    pub window_size: usize,
    /// How the results of the window went, all of them, by [`CaseOutcome::index`].
    pub window: [u32; CaseOutcome::COUNT],
    /// Attempts beyond the first in the window.
    pub window_retries: u64,
    /// How likely the next result is no clean pass while what it tests works. `None`: too few results.
    pub flake_probability: Option<f64>,
    /// How likely the present failure is a real one, which stays until it is repaired. `None`: it does not fail.
    pub regression_probability: Option<f64>,
}

/// Judges a case by its results, oldest first; of more than `settings.window` the newest count.
#[must_use]
pub fn judge(results: &[Observation], settings: &Settings, now: Timestamp) -> Health {
    let results = &results[results.len().saturating_sub(settings.window)..];
    let mut window = [0; CaseOutcome::COUNT];
    let mut window_retries = 0;
    for result in results {
        window[result.outcome.index()] += 1;
        window_retries += u64::from(result.retries);
    }
    let decisive: Vec<_> = results.iter().filter(|result| result.is_decisive()).collect();
    let measures = Measures::of(&decisive);
    let odds = odds::weigh(&decisive);
    let mut health = Health {
        verdict: Verdict::Unknown,
        newest: measures.newest,
        flips: measures.flips,
        contradictory_commits: measures.contradictory_commits,
        streak_commits: measures.streak_commits,
        streak_signatures: measures.streak_signatures,
        window_size: settings.window,
        window,
        window_retries,
        flake_probability: (decisive.len() >= settings.min_results).then(|| rounded(odds.flake)),
        regression_probability: (measures.streak > 0).then(|| rounded(odds.broken)),
    };
    health.verdict = verdict(&measures, &health, settings, now);
    health
}

/// To four digits, before the rules see it: what is shown is what was compared, and digits that mean nothing make no change.
fn rounded(odds: f64) -> f64 {
    (odds * 10_000.0).round() / 10_000.0
}

/// The rules of the module's head, in their order.
fn verdict(measures: &Measures, health: &Health, settings: &Settings, now: Timestamp) -> Verdict {
    if measures.passes + measures.failures == 0 {
        return Verdict::Unknown;
    }
    if measures.newest.is_some_and(|newest| is_quiet(newest, settings, now)) {
        return Verdict::Quiet;
    }
    if measures.passes == 0 && measures.failures >= settings.broken_results {
        return Verdict::Broken;
    }
    let probability = health.regression_probability;
    if is_steady_failure(measures, settings) && probability.is_some_and(|odds| odds >= settings.regression_probability)
    {
        return Verdict::Regressed;
    }
    if is_unsteady(measures, health, settings) {
        return Verdict::Flaky;
    }
    if measures.streak > 0 {
        return Verdict::Unknown;
    }
    Verdict::Healthy
}

/// Whether a case whose newest decisive result is of `newest` has not run lately.
#[must_use]
pub fn is_quiet(newest: Timestamp, settings: &Settings, now: Timestamp) -> bool {
    now.duration_since(newest).unsigned_abs() > settings.quiet_after && newest < now
}

/// It has passed, and fails in one way on as many commits, or runs, as it takes.
fn is_steady_failure(measures: &Measures, settings: &Settings) -> bool {
    let enough =
        measures.steady_commits >= settings.regressed_commits || measures.steady_strays >= settings.regressed_runs;
    measures.passes > 0 && measures.streak > 0 && enough
}

fn is_unsteady(measures: &Measures, health: &Health, settings: &Settings) -> bool {
    let flips_by_itself = measures.flips as usize >= settings.flaky_flips
        && health
            .flake_probability
            .is_some_and(|odds| odds >= settings.flaky_probability);
    measures.reported_flaky || measures.contradictory_commits > 0 || flips_by_itself || measures.changes_signatures
}
