//! The evidence for and against a promotion, from everything that is known and not only from what is shown: the series budget
//! hides no failure here. Never judges it (`promotion` does).

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use super::{GroupState, SourceState};
use crate::model::{CaseOutcome, Group, Name, OTHER, Run};
use crate::promotion::{Evidence, RunEvidence, Settings, Standing, Times};
use crate::store::recent::Order;
use crate::store::runs::{CaseIndex, KnownRun};
use crate::store::snoozes::Snoozed;

/// The newest result of a case in an environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Newest {
    order: Order,
    outcome: CaseOutcome,
}

/// What the cases of an environment say.
#[derive(Debug, Default)]
struct Cases {
    is_failing: bool,
    is_missing: bool,
    times: Times,
    /// By the newest run's results: how many passed or failed, how many of them failed, and how many of those are nobody's
    /// business.
    known: u64,
    failed: u64,
    excused: u64,
}

impl SourceState {
    /// How each environment stands in which a run of the gate's branches is known.
    pub(super) fn standings(&self, snoozed: &Snoozed<'_>) -> Vec<Standing> {
        let Some(settings) = &self.spec.promotion else {
            return Vec::new();
        };
        let mut runs: HashMap<&Name, Vec<&KnownRun>> = HashMap::new();
        for known in self
            .runs
            .values()
            .filter(|known| settings.counts(&known.run.group.branch))
        {
            runs.entry(&known.run.group.environment).or_default().push(known);
        }
        let mut environments: BTreeMap<&Name, Vec<(&Group, &GroupState)>> = BTreeMap::new();
        for (name, group) in self.groups.iter().filter(|(name, _)| settings.counts(&name.branch)) {
            environments.entry(&name.environment).or_default().push((name, group));
        }
        let stand = |(environment, groups): (&Name, Vec<(&Group, &GroupState)>)| {
            let runs = runs.get(environment).map_or(&[][..], Vec::as_slice);
            let run = runs
                .iter()
                .map(|known| -> &Run { &known.run })
                .max_by_key(|run| run.order());
            let cases = self.weigh(settings, environment, &groups, run, snoozed);
            let evidence = Evidence {
                run: run.map(|run| run_evidence(run, &cases, settings)),
                is_unread: self.is_unread(settings, environment) || self.hides_failures(settings, runs),
                is_failing: cases.is_failing,
                is_missing: cases.is_missing || run.is_some_and(|run| counted(run, CaseOutcome::is_pass) == 0),
            };
            let times = Times {
                run_ended: run.and_then(|run| run.ended),
                ..cases.times
            };
            Standing::of(environment.clone(), evidence, times, settings.run_max_age)
        };
        environments.into_iter().map(stand).collect()
    }

    /// Whether something that could change the verdict is not read: a run, or results of one, be it older than the newest: it
    /// may have the last word on a case. What has no place, or no name of it yet, could be anywhere.
    fn is_unread(&self, settings: &Settings, environment: &Name) -> bool {
        let matters = |(_, group): &(u64, Group)| {
            let is_here = group.environment.is_empty() || group.environment == *environment;
            is_here && settings.counts(&group.branch)
        };
        // A group that there was no room for could have been one of this environment.
        self.groups.keys().any(|group| &*group.environment == OTHER)
            || self.unread.elsewhere
            || self.unread.runs.iter().any(matters)
    }

    /// Whether a run counts failures of cases that nothing is known of: the histories that were read at the first meeting did not
    /// reach back to it. As long as it is young enough to be asked for, and no newer run that is known whole is as large.
    fn hides_failures(&self, settings: &Settings, runs: &[&KnownRun]) -> bool {
        if !settings.all_cases {
            return false;
        }
        let oldest = self.as_of.checked_sub(settings.run_max_age).unwrap_or(Timestamp::MIN);
        let is_young = |known: &&KnownRun| known.run.ended.is_none_or(|ended| ended >= oldest);
        let mut runs: Vec<_> = runs.iter().copied().filter(is_young).collect();
        runs.sort_unstable_by_key(|known| Reverse(known.run.order()));
        let mut largest = 0;
        runs.into_iter().any(|KnownRun { run, seen, .. }| {
            // Flaky results may be among the passed ones.
            let all = counted(run, |outcome| outcome != CaseOutcome::Flaky);
            if seen.iter().count() as u64 >= all {
                largest = largest.max(all);
            }
            all > largest && counted(run, CaseOutcome::is_failure) > 0
        })
    }

    /// Looks at the newest result of each case of an environment. Results alone decide here; a verdict that tells flakes
    /// from regressions would be asked for in `is_failing`.
    fn weigh(
        &self,
        settings: &Settings,
        environment: &Name,
        groups: &[(&Group, &GroupState)],
        run: Option<&Run>,
        snoozed: &Snoozed<'_>,
    ) -> Cases {
        let alive = self.alive_since();
        let mut newest: HashMap<CaseIndex, Option<Newest>> = HashMap::new();
        for (_, group) in groups {
            // A case that goes on under another id is judged under both: that the two are one is a guess, be it a good one.
            for (case, row) in group.rows.iter().filter(|(_, row)| row.seen() >= alive) {
                let result = row.recent.newest().zip(row.recent.outcome());
                let result = result.map(|(order, outcome)| Newest { order, outcome });
                let known = newest.entry(*case).or_default();
                *known = (*known).max(result);
            }
        }
        let mut cases = Cases::default();
        let mut shown: Vec<bool> = vec![false; settings.required.len()];
        for (case, newest) in newest {
            let Some(id) = self.cases.name(case) else { continue };
            let name = self.cases.info(case).map_or("", |info| &*info.name);
            let named_by = |rule: &regex::Regex| rule.is_match(id) || rule.is_match(name);
            let is_required = !settings.names_cases() || settings.required.iter().any(named_by);
            let snoozed_until = snoozed.until(environment, id);
            let is_snoozed = snoozed_until.is_some();
            let is_failing = newest.is_some_and(|newest| newest.outcome.is_failure());
            let is_passing = newest.is_some_and(|newest| newest.outcome.is_pass());
            if newest.is_some_and(|newest| Some(newest.order.1) == run.map(|run| run.id)) {
                cases.known += u64::from(is_passing || is_failing);
                cases.failed += u64::from(is_failing);
                cases.excused += u64::from(is_failing && (is_snoozed || !is_required));
            }
            if !is_required {
                continue;
            }
            cases.is_failing |= is_failing && !is_snoozed;
            if is_failing {
                cases.times.failing_from = earliest(cases.times.failing_from, snoozed_until);
            }
            let is_unclear = newest.is_some_and(|newest| newest.outcome == CaseOutcome::Unknown);
            // A case that is skipped is none that runs; one that is required by name has to.
            let is_missing = is_unclear || settings.names_cases() && !is_passing && !is_failing;
            cases.is_missing |= is_missing && !is_snoozed;
            if is_missing {
                cases.times.missing_from = earliest(cases.times.missing_from, snoozed_until);
            }
            if !settings.names_cases() {
                continue;
            }
            for (shown, rule) in shown.iter_mut().zip(&settings.required) {
                *shown |= (is_passing || is_snoozed) && named_by(rule);
            }
            if let Some(newest) = newest.filter(|_| is_passing && !is_snoozed) {
                cases.times.oldest_pass = earliest(cases.times.oldest_pass, Some(newest.order.0));
            }
        }
        cases.is_missing |= shown.contains(&false);
        cases
    }
}

fn earliest(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    one.into_iter().chain(other).min()
}

/// How many cases had one of these outcomes, by the run's own count.
fn counted(run: &Run, of: impl Fn(CaseOutcome) -> bool) -> u64 {
    let outcomes = CaseOutcome::ALL.iter().filter(|outcome| of(**outcome));
    let counts = outcomes.filter_map(|outcome| run.counts[outcome.index()]);
    counts.fold(0, u64::saturating_add)
}

fn run_evidence(run: &Run, cases: &Cases, settings: &Settings) -> RunEvidence {
    let told = |outcome: CaseOutcome| run.counts[outcome.index()];
    let failed = told(CaseOutcome::Failed).map(|failed| failed + told(CaseOutcome::MissingOutput).unwrap_or(0));
    // Whether flaky results are among the passed ones is not the same everywhere: they are not asked for a second time.
    let ran = failed
        .zip(told(CaseOutcome::Passed))
        .map(|(failed, passed)| failed + passed);
    RunEvidence {
        outcome: run.outcome,
        is_counted: ran.is_some(),
        is_complete: !settings.all_cases || ran.is_some_and(|ran| cases.known >= ran),
        is_excused: failed.is_some_and(|failed| cases.failed >= failed) && cases.excused == cases.failed,
    }
}

#[cfg(test)]
mod tests;
