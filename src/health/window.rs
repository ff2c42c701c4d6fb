//! What is counted in a window of decisive results: flips, the streak, its commits and its signatures.
//! Never weighs one against another: `odds` does, and the rules are one room up.

use jiff::Timestamp;

use super::Observation;
use crate::model::CaseOutcome;

/// How many failures in a row, each with another signature than the one before, are signatures that change from run to run.
const CHANGING: usize = 3;

/// The counts that the rules ask for.
#[derive(Debug, Default)]
pub(super) struct Measures {
    /// When the newest result was; `None` if that is not known, or there is none.
    pub(super) newest: Option<Timestamp>,
    pub(super) passes: usize,
    pub(super) failures: usize,
    pub(super) reported_flaky: bool,
    pub(super) flips: u32,
    pub(super) contradictory_commits: u32,
    /// Failures since the last pass.
    pub(super) streak: usize,
    pub(super) streak_commits: u32,
    pub(super) streak_signatures: u32,
    /// The most commits without a pass that have failed with one signature since the last pass. Failures without a signature go
    /// with any.
    pub(super) steady_commits: usize,
    /// The same in failures whose commit is not known.
    pub(super) steady_strays: usize,
    pub(super) changes_signatures: bool,
}

impl Measures {
    /// Of decisive results, oldest first.
    pub(super) fn of(results: &[&Observation]) -> Self {
        let passing = commits(results.iter().filter(|result| result.outcome.is_pass()));
        let failing = commits(results.iter().filter(|result| result.outcome.is_failure()));
        let flips = results
            .windows(2)
            .filter(|pair| pair[0].outcome.is_pass() != pair[1].outcome.is_pass());
        let contradictory = failing.iter().filter(|commit| passing.contains(commit));
        let passes = results.iter().filter(|result| result.outcome.is_pass()).count();
        let mut measures = Self {
            newest: results.last().and_then(|newest| newest.ended),
            passes,
            failures: results.len() - passes,
            reported_flaky: results.iter().any(|result| result.outcome == CaseOutcome::Flaky),
            flips: number(flips.count()),
            contradictory_commits: number(contradictory.count()),
            ..Self::default()
        };
        measures.add_streak(results, &passing);
        measures
    }

    fn add_streak(&mut self, results: &[&Observation], passing: &[u64]) {
        let before = results.iter().rposition(|result| result.outcome.is_pass());
        let streak = &results[before.map_or(0, |place| place + 1)..];
        let without_pass = |failures: &[&Observation]| {
            let mut failed = commits(failures.iter());
            failed.retain(|commit| !passing.contains(commit));
            failed.len()
        };
        let signatures: Vec<_> = streak
            .iter()
            .map(|failure| failure.signature)
            .filter(|known| *known != 0)
            .collect();
        self.streak = streak.len();
        self.streak_commits = number(without_pass(streak));
        self.changes_signatures = signatures.len() >= CHANGING
            && signatures[signatures.len() - CHANGING..]
                .windows(2)
                .all(|pair| pair[0] != pair[1]);
        let mut kinds = distinct(signatures);
        self.streak_signatures = number(kinds.len());
        if kinds.is_empty() {
            kinds.push(0);
        }
        for kind in kinds {
            let of_kind = streak
                .iter()
                .filter(|failure| failure.signature == 0 || failure.signature == kind);
            let alike: Vec<_> = of_kind.copied().collect();
            self.steady_commits = self.steady_commits.max(without_pass(&alike));
            let strays = alike.iter().filter(|failure| failure.commit.is_none()).count();
            self.steady_strays = self.steady_strays.max(strays);
        }
    }
}

/// The known commits, each once, in order of their numbers.
fn commits<'a>(results: impl Iterator<Item = &'a &'a Observation>) -> Vec<u64> {
    distinct(results.filter_map(|result| result.commit).collect())
}

fn distinct(mut numbers: Vec<u64>) -> Vec<u64> {
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// There are never more than a window of them.
fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
