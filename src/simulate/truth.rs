//! What a reader of a platform must have counted, computed from the world and not from what was served.
//! Counters take a run's first finished version, whatever was rewritten later; gauges take the newest one.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::run::{Attempt, End, Ms, Run};
use super::world::World;
use super::{empirical, sample_platform};
use crate::model::{ActiveState, CaseOutcome, ErrorCode, RunId, RunOutcome};
use crate::sources::Kind;

/// How many, and their sum in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sum {
    /// How many values there were.
    pub count: u64,
    /// Milliseconds, so that sums are exact.
    pub millis: i64,
}

impl Sum {
    fn add(&mut self, millis: i64) {
        self.count += 1;
        self.millis += millis;
    }

    fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.millis += other.millis;
    }

    /// The sum in seconds.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 ms")]
        let millis = self.millis as f64;
        millis / 1000.0
    }
}

/// The runs of one environment and branch label.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunTruth {
    /// Counted runs by [`RunOutcome`].
    pub runs: [u64; RunOutcome::COUNT],
    /// Their own counts by [`CaseOutcome`]; nulls add nothing. The Sample Platform's `skipped` is its summary's.
    pub cases: [u64; CaseOutcome::COUNT],
    /// Start to end.
    pub duration: Sum,
    /// Creation to start, where both are told.
    pub queue: Sum,
    /// The run that ended last, counted or not.
    pub last: Option<LastRun>,
}

/// The run that ended last.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LastRun {
    /// Which.
    pub id: RunId,
    /// How.
    pub outcome: RunOutcome,
    /// When, in milliseconds since the epoch.
    pub ended: i64,
    /// Start to end, in milliseconds.
    pub duration: Option<i64>,
    /// Failures that were not snoozed. `None`: the platform does not tell.
    pub failed_after_snooze: Option<u64>,
}

/// Failures that somebody knows of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnoozeTruth {
    /// The cases' ids.
    pub cases: Vec<String>,
    /// `None`: everywhere.
    pub environment: Option<String>,
    /// From when it holds, in milliseconds since the epoch.
    pub from: i64,
    /// When it is over.
    pub until: i64,
}

/// One case in one environment and branch label.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CaseTruth {
    /// Counted results by [`CaseOutcome`].
    pub results: [u64; CaseOutcome::COUNT],
    /// Counted retries; nulls add nothing.
    pub retries: u64,
    /// Durations that were told. The Sample Platform tells them in a run's results, not in a sample's history.
    pub duration: Sum,
    /// The outcome in the run that ended last, counted or not.
    pub last: Option<CaseOutcome>,
    /// When that was, in milliseconds since the epoch.
    pub last_at: Option<i64>,
    /// Failures since the last pass.
    pub streak: u64,
    /// When it last passed, flaky or not, in milliseconds since the epoch.
    pub last_pass: Option<i64>,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Truth {
    /// By environment and branch label.
    pub runs: BTreeMap<(String, String), RunTruth>,
    /// Counted runs that ended in an error, by environment and [`ErrorCode`].
    pub errors: BTreeMap<String, [u64; ErrorCode::COUNT]>,
    /// By environment, branch label and case.
    pub cases: BTreeMap<(String, String, String), CaseTruth>,
    /// Runs that are not finished, by environment and [`ActiveState`].
    pub active: BTreeMap<String, [u64; ActiveState::COUNT]>,
    /// Snoozes that have been made, be they over or not.
    pub snoozes: Vec<SnoozeTruth>,
    /// How many runs have been counted.
    pub counted: u64,
    /// Runs that have been edited or restarted since they were first served.
    pub rewritten: Vec<RunId>,
}

impl Truth {
    pub(super) fn of(world: &World, first_met: jiff::Timestamp, label: impl Fn(Option<&str>) -> String) -> Self {
        let mut truth = Self::default();
        let first_met = first_met.as_millisecond();
        let known: Vec<&Run> = world.runs.iter().filter(|run| !run.poisoned).collect();
        for run in &known {
            let key = (
                world.options.environments[run.environment].clone(),
                label(run.branch.as_deref()),
            );
            if run.first.is_some() {
                truth.rewritten.push(run.id);
            }
            if let Some(state) = active_state(world, run) {
                truth.active.entry(key.0.clone()).or_default()[state.index()] += 1;
            }
            if let Some(version) = counted(world, run, first_met) {
                truth.count(world, run, version, &key);
            }
        }
        let mut finished: Vec<&Run> = known
            .into_iter()
            .filter(|run| run.current.is_finished(world.now))
            .collect();
        if first_met < world.folded_until {
            for (branch, folded) in &world.folded {
                truth.absorb(folded, &label(branch.as_deref()));
            }
        }
        finished.sort_by_key(|run| (run.current.finished, run.id));
        let made = world.snoozes.iter().filter(|snooze| snooze.created <= world.now);
        truth.snoozes = made
            .map(|snooze| SnoozeTruth {
                cases: snooze.cases.iter().map(|case| world.cases[*case].id.clone()).collect(),
                environment: snooze
                    .environment
                    .map(|index| world.options.environments[index].clone()),
                from: snooze.created,
                until: snooze.until,
            })
            .collect();
        for run in finished {
            let key = (
                world.options.environments[run.environment].clone(),
                label(run.branch.as_deref()),
            );
            truth.show(world, run, &key);
        }
        truth
    }

    /// Adds what has been counted of a run that will not be told any more. Its gauges are gone with it.
    pub(super) fn fold(folded: &mut BTreeMap<Option<String>, Self>, world: &World, run: &Run) {
        let version = counted(world, run, world.options.start.as_millisecond());
        if let Some(version) = version.filter(|_| !run.poisoned) {
            let key = (world.options.environments[run.environment].clone(), String::new());
            folded
                .entry(run.branch.clone())
                .or_default()
                .count(world, run, version, &key);
        }
    }

    /// Takes over the counts of forgotten runs, under this branch label.
    fn absorb(&mut self, folded: &Self, label: &str) {
        self.counted += folded.counted;
        for ((environment, _), theirs) in &folded.runs {
            let ours = self.runs.entry((environment.clone(), label.to_owned())).or_default();
            add(&mut ours.runs, &theirs.runs);
            add(&mut ours.cases, &theirs.cases);
            ours.duration.merge(theirs.duration);
            ours.queue.merge(theirs.queue);
        }
        for (environment, theirs) in &folded.errors {
            add(self.errors.entry(environment.clone()).or_default(), theirs);
        }
        for ((environment, _, case), theirs) in &folded.cases {
            let key = (environment.clone(), label.to_owned(), case.clone());
            let ours = self.cases.entry(key).or_default();
            add(&mut ours.results, &theirs.results);
            ours.retries += theirs.retries;
            ours.duration.merge(theirs.duration);
        }
    }

    fn count(&mut self, world: &World, run: &Run, attempt: &Attempt, key: &(String, String)) {
        self.counted += 1;
        let group = self.runs.entry(key.clone()).or_default();
        group.runs[outcome(world.kind, attempt).index()] += 1;
        for (outcome, count) in own_counts(world, run, attempt) {
            group.cases[outcome.index()] += count;
        }
        if let Some(started) = attempt.started.filter(|_| !hides_times(world, attempt)) {
            group.duration.add(attempt.finished - started);
            group.queue.add(started - created(world.kind, run, attempt));
        }
        if let (Kind::Empirical, End::Error(code)) = (world.kind, attempt.end) {
            self.errors.entry(key.0.clone()).or_default()[error_code(code).index()] += 1;
        } else if outcome(world.kind, attempt) == RunOutcome::Error {
            self.errors.entry(key.0.clone()).or_default()[ErrorCode::Unknown.index()] += 1;
        }
        if attempt.finished + run.lag > world.now {
            return;
        }
        for result in attempt.results.iter() {
            let case = self.case(world, key, result.case);
            case.results[result.outcome.index()] += 1;
            if let Some(duration) = result.duration {
                case.duration.add(i64::from(duration));
            }
            if world.kind == Kind::Empirical {
                case.retries += u64::from(result.retries.unwrap_or(0));
            }
        }
    }

    fn case(&mut self, world: &World, key: &(String, String), case: usize) -> &mut CaseTruth {
        self.cases
            .entry((key.0.clone(), key.1.clone(), world.cases[case].id.clone()))
            .or_default()
    }

    /// The gauges; runs come in the order of their ends.
    fn show(&mut self, world: &World, run: &Run, key: &(String, String)) {
        let attempt = &run.current;
        let group = self.runs.entry(key.clone()).or_default();
        if !hides_times(world, attempt) {
            group.last = Some(LastRun {
                id: run.id,
                outcome: outcome(world.kind, attempt),
                ended: attempt.finished,
                duration: attempt.started.map(|started| attempt.finished - started),
                failed_after_snooze: (world.kind == Kind::Empirical && world.has_snoozes())
                    .then(|| world.failed_after_snooze(run)),
            });
        }
        if !run.is_visible(world.now) {
            return;
        }
        for result in attempt.results.iter() {
            let at = if world.kind == Kind::Empirical {
                result.executed
            } else {
                attempt.finished
            };
            let case = self.case(world, key, result.case);
            (case.last, case.last_at) = (Some(result.outcome), Some(at));
            if result.outcome.is_failure() {
                case.streak += 1;
            } else if result.outcome.is_pass() {
                case.streak = 0;
                case.last_pass = Some(at);
            }
        }
    }

    /// As JSON, for whoever compares from outside of the process.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let runs: Vec<Value> = self.runs.iter().map(|((environment, branch), group)| {
            json!({
                "environment": environment, "branch": branch,
                "runs": named(RunOutcome::ALL.iter().map(|outcome| outcome.label()), &group.runs),
                "cases": named(CaseOutcome::ALL.iter().map(|outcome| outcome.label()), &group.cases),
                "duration_seconds": {"count": group.duration.count, "sum": group.duration.seconds()},
                "queue_seconds": {"count": group.queue.count, "sum": group.queue.seconds()},
                "last": group.last.map(|last| json!({"run_id": last.id, "outcome": last.outcome.label(), "ended_ms": last.ended})),
            })
        }).collect();
        let cases: Vec<Value> = self
            .cases
            .iter()
            .map(|((environment, branch, case), truth)| {
                json!({
                    "environment": environment, "branch": branch, "case": case,
                    "results": named(CaseOutcome::ALL.iter().map(|outcome| outcome.label()), &truth.results),
                    "retries": truth.retries,
                    "duration_seconds": {"count": truth.duration.count, "sum": truth.duration.seconds()},
                    "last": truth.last.map(CaseOutcome::label), "streak": truth.streak, "last_pass_ms": truth.last_pass,
                })
            })
            .collect();
        let errors: BTreeMap<&str, Value> = self
            .errors
            .iter()
            .map(|(name, counts)| {
                (
                    name.as_str(),
                    named(ErrorCode::ALL.iter().map(|code| code.label()), counts),
                )
            })
            .collect();
        let active: BTreeMap<&str, Value> = self
            .active
            .iter()
            .map(|(name, counts)| {
                (
                    name.as_str(),
                    named(ActiveState::ALL.iter().map(|state| state.label()), counts),
                )
            })
            .collect();
        json!({"runs": runs, "cases": cases, "errors": errors, "active": active, "counted": self.counted, "rewritten": self.rewritten})
    }
}

fn named<'a>(labels: impl Iterator<Item = &'a str>, counts: &[u64]) -> Value {
    Value::Object(
        labels
            .zip(counts)
            .map(|(label, count)| (label.to_owned(), Value::from(*count)))
            .collect(),
    )
}

/// The version of a run that a reader counts who has first looked at `first_met`, if it counts the run at all.
fn counted<'a>(world: &World, run: &'a Run, first_met: Ms) -> Option<&'a Attempt> {
    let (first, current) = (run.first(), &run.current);
    // The first one; the second one if the reader has first met the run when it had been restarted.
    let was_restarted = first.queued != current.queued;
    let version = if first.finished > first_met || !was_restarted {
        first
    } else {
        current
    };
    let was_unfinished = version.queued <= first_met || run.created > first_met;
    (was_unfinished && version.finished > first_met && version.is_finished(world.now)).then_some(version)
}

fn add(ours: &mut [u64], theirs: &[u64]) {
    for (ours, theirs) in ours.iter_mut().zip(theirs) {
        *ours += theirs;
    }
}

fn hides_times(world: &World, attempt: &Attempt) -> bool {
    world.kind == Kind::Empirical && empirical::hides_times(world, attempt)
}

fn active_state(world: &World, run: &Run) -> Option<ActiveState> {
    let word = match world.kind {
        Kind::Empirical => empirical::state(run, world.now),
        Kind::SamplePlatform => sample_platform::state(run, world.now),
    };
    match word {
        "pending" => Some(ActiveState::Pending),
        "queued" => Some(ActiveState::Queued),
        // Nobody documented "paused"; such a run is still being executed.
        "started" | "running" | "paused" => Some(ActiveState::Started),
        "cancelling" => Some(ActiveState::Cancelling),
        _ => None,
    }
}

fn outcome(kind: Kind, attempt: &Attempt) -> RunOutcome {
    match (kind, attempt.end) {
        (_, End::Cancelled) => RunOutcome::Cancelled,
        (_, End::Error(_)) => RunOutcome::Error,
        (Kind::Empirical, End::Ended) if attempt.count(CaseOutcome::Failed) == 0 => RunOutcome::Passed,
        (Kind::SamplePlatform, End::Ended) if attempt.results.is_empty() => RunOutcome::Error,
        (Kind::SamplePlatform, End::Ended) if attempt.results.all_passed() => RunOutcome::Passed,
        (_, End::Ended) => RunOutcome::Failed,
    }
}

/// The Sample Platform knows no creation, only the beginning of the preparation.
fn created(kind: Kind, run: &Run, attempt: &Attempt) -> Ms {
    match kind {
        Kind::Empirical => run.created,
        Kind::SamplePlatform => attempt.prepared.unwrap_or(attempt.finished),
    }
}

fn own_counts(world: &World, run: &Run, attempt: &Attempt) -> Vec<(CaseOutcome, u64)> {
    use CaseOutcome::{Failed, Flaky, MissingOutput, Passed, Skipped};
    let count = |outcome| attempt.count(outcome);
    if world.kind == Kind::SamplePlatform {
        let skipped = sample_platform::planned(world, run) - attempt.results.len();
        return vec![
            (Passed, count(Passed)),
            (Failed, count(Failed)),
            (MissingOutput, count(MissingOutput)),
            (Skipped, skipped as u64),
        ];
    }
    let inside = if world.options.flaky_in_success {
        count(Flaky)
    } else {
        0
    };
    let mut counts = vec![(Passed, count(Passed) + inside), (Failed, count(Failed))];
    if !run.nulls.flaky_count {
        counts.push((Flaky, count(Flaky)));
    }
    if !run.nulls.skipped_count {
        counts.push((Skipped, count(Skipped)));
    }
    counts
}

fn error_code(told: Option<&str>) -> ErrorCode {
    let known = ErrorCode::ALL.iter().find(|code| told == Some(code.label()));
    known.copied().unwrap_or(ErrorCode::Unknown)
}
