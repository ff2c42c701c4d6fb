//! What `health` is told of a case: its newest results with the commits of their runs, and which runs are spoilt. Keeps what was
//! judged until something that it was made of changes. Never serialized: what is kept of runs and results gives the same again.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use jiff::Timestamp;

use super::cases::{Cases, Row};
use super::recent::Order;
use super::runs::{CaseIndex, KnownRun, Runs};
use crate::health::infrastructure::{self, RunTally};
use crate::health::{self, Health, Observation, Settings};
use crate::model::{CaseOutcome, Group, Name, RunId, RunOutcome, Verdict};

/// A row's health, as long as nothing has changed.
#[derive(Debug, Clone, Default)]
pub(super) struct Judged(Option<Arc<Health>>);

impl Judged {
    /// A result has come, or changed.
    pub(super) fn forget(&mut self) {
        self.0 = None;
    }

    pub(super) fn health(&self) -> Option<&Arc<Health>> {
        self.0.as_ref()
    }

    pub(super) fn verdict(&self) -> Verdict {
        self.health().map_or(Verdict::Unknown, |health| health.verdict)
    }

    /// Whether it holds as of `now`. Only being quiet comes with time alone.
    pub(super) fn holds(&self, settings: &Settings, now: Timestamp) -> bool {
        self.health().is_some_and(|health| {
            let quiet = health
                .newest
                .is_some_and(|newest| health::is_quiet(newest, settings, now));
            quiet == (health.verdict == Verdict::Quiet)
        })
    }
}

/// What a result's run says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RunFacts {
    commit: Option<u64>,
    spoilt: bool,
}

/// What was found out of the runs.
#[derive(Debug, Clone, Default)]
pub(super) struct Judge {
    runs: HashMap<RunId, RunFacts>,
    /// Whether all of it has to be found out: at first, and when another suite of a case or other thresholds have come.
    is_ready: bool,
}

impl Judge {
    /// What was found out may no longer be so.
    pub(super) fn doubt(&mut self) {
        self.is_ready = false;
    }

    /// Looks at the runs of those groups again where something has changed. `rows`: of a group. Gives the groups whose results
    /// mean something else now than when they were judged, and up to where.
    pub(super) fn review<'a>(
        &mut self,
        runs: &mut Runs,
        settings: &infrastructure::Settings,
        cases: &Cases,
        rows: impl Fn(&Group) -> Option<&'a HashMap<CaseIndex, Box<Row>>>,
    ) -> HashMap<Group, Order> {
        let changes = runs.take_changes();
        if self.is_ready && changes.is_empty() {
            return HashMap::new();
        }
        let mut by_group: BTreeMap<&Group, Vec<&KnownRun>> = BTreeMap::new();
        for known in runs.values() {
            let group = &known.run.group;
            if !self.is_ready || changes.contains_key(group) {
                by_group.entry(group).or_default().push(known);
            }
        }
        // A run that is forgotten takes its commit with it.
        let gone = changes
            .iter()
            .filter_map(|(group, last)| Some((group.clone(), (*last)?)));
        let mut differ: HashMap<Group, Order> = gone.collect();
        if !differ.is_empty() {
            self.runs.retain(|id, _| runs.get(*id).is_some());
        }
        for (group, mut known) in by_group {
            known.sort_unstable_by_key(|known| known.run.order());
            let rows = rows(group);
            let tallies: Vec<_> = known.iter().map(|known| tally(known, settings, cases, rows)).collect();
            for (known, spoilt) in known.into_iter().zip(infrastructure::spoilt(&tallies, settings)) {
                let facts = RunFacts {
                    commit: known.run.commit.as_deref().map(number),
                    spoilt,
                };
                let before = self.runs.insert(known.run.id, facts);
                if before.is_some_and(|before| before != facts) {
                    differ.insert(group.clone(), (Timestamp::MAX, RunId::MAX));
                }
            }
        }
        self.is_ready = true;
        differ
    }

    /// A row's results up to there may mean something else.
    pub(super) fn doubt_row(row: &mut Row, last: Order) {
        if row.recent.results().next().is_some_and(|oldest| oldest.order() <= last) {
            row.judged.forget();
        }
    }

    /// Adds what is held of a row, oldest first.
    pub(super) fn observe(&self, row: &Row, results: &mut Vec<Observation>) {
        results.extend(row.recent.results().map(|entry| {
            let (ended, run) = entry.order();
            let facts = self.runs.get(&run);
            Observation {
                ended: (ended > Timestamp::MIN).then_some(ended),
                commit: facts.and_then(|facts| facts.commit),
                outcome: entry.outcome(),
                signature: entry.failure_signature().map_or(0, |signature| signature.get().into()),
                retries: entry.retries().into(),
                infrastructure: facts.is_some_and(|facts| facts.spoilt),
            }
        }));
    }

    /// Judges a row by these results, its own and those of what it was before.
    pub(super) fn judge(&self, row: &mut Row, results: &[Observation], settings: &Settings, now: Timestamp) {
        row.judged = Judged(Some(Arc::new(health::judge(results, settings, now))));
    }
}

/// Of a commit only whether it is the same one is of interest, within one process.
fn number(commit: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    commit.hash(&mut hasher);
    hasher.finish()
}

/// By the run's own counts, which are complete whatever cases are read; a run that does not tell them is too small to judge. Suites
/// are looked for only where so many failed that it matters, and no further than the second one.
fn tally(
    known: &KnownRun,
    settings: &infrastructure::Settings,
    cases: &Cases,
    rows: Option<&HashMap<CaseIndex, Box<Row>>>,
) -> RunTally {
    let sum = |which: fn(CaseOutcome) -> bool| {
        let counts = CaseOutcome::ALL.iter().filter(|outcome| which(**outcome));
        let sum = counts.fold(0_u64, |sum, outcome| {
            sum.saturating_add(known.run.counts[outcome.index()].unwrap_or(0))
        });
        u32::try_from(sum).unwrap_or(u32::MAX)
    };
    let failed = sum(CaseOutcome::is_failure);
    let mut tally = RunTally {
        errored: known.run.outcome == RunOutcome::Error,
        decisive: sum(CaseOutcome::is_pass).saturating_add(failed),
        failed,
        failed_suites: 0,
    };
    if let Some(rows) = rows.filter(|_| tally.is_mass(settings)) {
        tally.failed_suites = failed_suites(known, cases, rows);
    }
    tally
}

/// One suite, or two if there are more: of the failures that are still held one by one.
fn failed_suites(known: &KnownRun, cases: &Cases, rows: &HashMap<CaseIndex, Box<Row>>) -> u32 {
    let mut first: Option<Suite<'_>> = None;
    for case in known.seen.iter() {
        let result = rows.get(&case).and_then(|row| row.recent.outcome_in(known.run.id));
        if !result.is_some_and(CaseOutcome::is_failure) {
            continue;
        }
        let suite = Suite::of(case, cases);
        if *first.get_or_insert(suite) != suite {
            return 2;
        }
    }
    u32::from(first.is_some())
}

/// What a case belongs to: its suite, else its file, else itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Suite<'a> {
    Named(&'a Name),
    InFile(&'a Name),
    Alone(CaseIndex),
}

impl<'a> Suite<'a> {
    fn of(case: CaseIndex, cases: &'a Cases) -> Self {
        match cases.info(case) {
            Some(info) if !info.suite.is_empty() => Self::Named(&info.suite),
            Some(info) if !info.file.is_empty() => Self::InFile(&info.file),
            _ => Self::Alone(case),
        }
    }
}
