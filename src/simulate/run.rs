//! One run: everything that will ever happen to it, drawn when it is created. What is true of it at a moment is then a
//! pure function of that moment, so a history does not depend on when anybody looked.

use std::ops::Deref;

use super::case::{Case, Character};
use super::dice::{Dice, Stream, scale};
use super::options::WorldOptions;
use crate::model::{CaseOutcome, RunId};
use crate::sources::Kind;

/// Milliseconds since the epoch: the unit of every time inside of the world.
pub(super) type Ms = i64;

/// How an attempt ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Ended,
    /// With the error code that the platform tells, if it tells one.
    Error(Option<&'static str>),
    Cancelled,
}

/// One case's result within an attempt.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CaseRun {
    /// Index into the world's cases.
    pub(super) case: usize,
    pub(super) outcome: CaseOutcome,
    /// When the case was done.
    pub(super) executed: Ms,
    /// `None` is served as null.
    pub(super) duration: Option<u32>,
    pub(super) retries: Option<u8>,
    pub(super) exit_code: i32,
    /// The first output differs (Sample Platform).
    pub(super) differs: bool,
}

/// One execution of a run. A restarted run has two, one after the other.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Attempt {
    pub(super) queued: Ms,
    /// Until then it waits behind other runs (Empirical).
    pub(super) pending_until: Ms,
    /// Preparation of the machine (Sample Platform).
    pub(super) prepared: Option<Ms>,
    pub(super) started: Option<Ms>,
    pub(super) cancelling: Option<Ms>,
    pub(super) finished: Ms,
    pub(super) end: End,
    pub(super) results: Results,
}

/// The results of an attempt, ascending by case; only those that are done before its end. Counted when they are written,
/// because every list of runs asks for the counts.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Results {
    rows: Vec<CaseRun>,
    counts: [u64; CaseOutcome::COUNT],
}

impl From<Vec<CaseRun>> for Results {
    fn from(rows: Vec<CaseRun>) -> Self {
        let mut counts = [0; CaseOutcome::COUNT];
        for result in &rows {
            counts[result.outcome.index()] += 1;
        }
        Self { rows, counts }
    }
}

impl Deref for Results {
    type Target = [CaseRun];

    fn deref(&self) -> &[CaseRun] {
        &self.rows
    }
}

impl Results {
    /// Writes one result anew.
    pub(super) fn change(&mut self, place: usize, change: impl FnOnce(&mut CaseRun)) {
        let mut rows = std::mem::take(&mut self.rows);
        rows.get_mut(place).map(change);
        *self = rows.into();
    }

    pub(super) fn all_passed(&self) -> bool {
        self.counts[CaseOutcome::Passed.index()] == self.rows.len() as u64
    }
}

impl Attempt {
    pub(super) fn is_finished(&self, now: Ms) -> bool {
        self.finished <= now
    }

    pub(super) fn count(&self, outcome: CaseOutcome) -> u64 {
        self.results.counts[outcome.index()]
    }
}

/// Which of a run's nullable fields are null.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Nulls {
    pub(super) skipped_count: bool,
    pub(super) flaky_count: bool,
    pub(super) duration: bool,
    pub(super) commit: bool,
    pub(super) build_url: bool,
}

/// What is told of a run against all documents.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Odd {
    /// "paused" for a part of its execution.
    pub(super) paused: bool,
    /// No environment slug.
    pub(super) nameless: bool,
}

/// A run and its future.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) id: RunId,
    /// Its place in the whole history, from 0.
    pub(super) index: usize,
    /// Index into the world's environments.
    pub(super) environment: usize,
    pub(super) branch: Option<String>,
    pub(super) commit: String,
    pub(super) created: Ms,
    /// What is served now.
    pub(super) current: Attempt,
    /// What was served first, if the run has been edited or restarted since.
    pub(super) first: Option<Box<Attempt>>,
    /// After its end, the analytics know of it so much later (Empirical).
    pub(super) lag: Ms,
    pub(super) nulls: Nulls,
    pub(super) odd: Odd,
    /// The set of cases that it was created for; `None` is all.
    pub(super) custom: Option<Vec<usize>>,
    pub(super) poisoned: bool,
    /// So long after its end it will be edited or restarted, if it has been served in full.
    pub(super) edit_after: Option<Ms>,
    pub(super) restart_after: Option<Ms>,
    /// So long after its end a cancelled run gets another verdict.
    pub(super) verdict_after: Option<Ms>,
    /// Whether its finished state has been served.
    pub(super) served_run: bool,
    /// Results that have been served after its end.
    pub(super) served_cases: Marks,
    /// When the last of it was served.
    pub(super) served_in_full: Option<Ms>,
}

/// A set of cases.
#[derive(Debug, Clone, Default)]
pub(super) struct Marks {
    words: Vec<u64>,
    count: usize,
}

impl Marks {
    fn insert(&mut self, case: usize) {
        let (word, bit) = (case / 64, 1 << (case % 64));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let word = &mut self.words[word];
        self.count += usize::from(*word & bit == 0);
        *word |= bit;
    }
}

impl Run {
    /// What an observer who counts a run once has counted.
    pub(super) fn first(&self) -> &Attempt {
        self.first.as_deref().unwrap_or(&self.current)
    }

    /// Whether it is told as paused. In truth it is being executed.
    pub(super) fn is_paused(&self, now: Ms) -> bool {
        let during = |started: Ms| {
            let third = (self.current.finished - started) / 3;
            (started + third..started + 2 * third).contains(&now)
        };
        self.odd.paused && self.current.started.is_some_and(during)
    }

    /// Whether the analytics know of its (current) results.
    pub(super) fn is_visible(&self, now: Ms) -> bool {
        self.current.finished + self.lag <= now
    }

    pub(super) fn note_served_run(&mut self, now: Ms) {
        if self.will_be_rewritten() && self.current.is_finished(now) {
            self.served_run = true;
            self.note_served_in_full(now);
        }
    }

    pub(super) fn note_served_case(&mut self, case: usize, now: Ms) {
        if self.will_be_rewritten() && self.current.is_finished(now) {
            self.served_cases.insert(case);
            self.note_served_in_full(now);
        }
    }

    /// Only then it matters what of it has been served.
    pub(super) fn will_be_rewritten(&self) -> bool {
        self.edit_after.is_some() || self.restart_after.is_some() || self.verdict_after.is_some()
    }

    fn note_served_in_full(&mut self, now: Ms) {
        // Nothing but results of the current attempt is served, so as many marks as results are all of them.
        let all = self.served_run && self.served_cases.count == self.current.results.len();
        if all && self.served_in_full.is_none() {
            self.served_in_full = Some(now);
        }
    }
}

/// Somebody's word that failures of some cases are known.
#[derive(Debug, Clone)]
pub(super) struct Snooze {
    pub(super) id: u64,
    pub(super) cases: Vec<usize>,
    /// `None`: everywhere.
    pub(super) environment: Option<usize>,
    pub(super) created: Ms,
    pub(super) until: Ms,
}

impl Snooze {
    pub(super) fn holds(&self, now: Ms) -> bool {
        (self.created..self.until).contains(&now)
    }

    pub(super) fn covers(&self, environment: usize, case: usize) -> bool {
        self.environment.is_none_or(|scope| scope == environment) && self.cases.contains(&case)
    }
}

/// A snooze lasts between a quarter of an hour and two days.
const SNOOZE: std::ops::Range<Ms> = 900_000..172_800_000;
/// So many failures of one run are snoozed at the most.
const SNOOZED_FAILURES: usize = 2;

/// The error codes that the platform documents, and whether a run that ends so had been started and had a report.
const ERROR_CODES: &[(&str, bool, bool)] = &[
    ("merge_conflict", false, false),
    ("dispatch_failed", false, false),
    ("report_not_generated", true, false),
    ("run_failed_with_error", true, true),
    ("worker_interrupted", true, true),
    ("merge_reports_failed", true, false),
];

/// In a showcase, of so many runs in a row the ones of these places are created nearly at once.
const PEAK_PERIOD: usize = 24;
const PEAK: std::ops::Range<usize> = 5..14;
/// So many runs are executed side by side while a queue is built up.
const QUEUE_SLOTS: Ms = 3;

/// The place of a run in a peak of creations, if it is in one. History has none.
pub(super) fn peak(index: usize, runs_before: usize) -> Option<usize> {
    let place = index.checked_sub(runs_before)? % PEAK_PERIOD;
    PEAK.contains(&place).then(|| place - PEAK.start)
}

/// What an attempt is an attempt of.
#[derive(Clone, Copy)]
struct What<'a> {
    index: usize,
    /// Everything passes: a branch where somebody has repaired it all.
    calm: bool,
    environment: usize,
    branch: Option<&'a str>,
    custom: Option<&'a [usize]>,
}

/// What the draws of one run have in common.
pub(super) struct Planner<'a> {
    pub(super) kind: Kind,
    pub(super) options: &'a WorldOptions,
    pub(super) cases: &'a [Case],
}

impl Planner<'_> {
    /// Draws a run: `index` is its place in the whole history.
    pub(super) fn run(&self, index: usize, id: RunId, created: Ms) -> Run {
        let options = self.options;
        let mut dice = Dice::new(options.seed, Stream::Run, index as u64);
        let environment = dice.index(options.environments.len());
        let branch = dice.weighted(&options.branches);
        let branch_null = self.kind == Kind::Empirical && dice.chance(options.nulls / 2.0);
        let custom = dice.chance(options.reruns).then(|| self.some_cases(&mut dice));
        let lag = (millis(options.analytics_lag.0), millis(options.analytics_lag.1));
        let mut null = || dice.chance(options.nulls);
        let nulls = Nulls {
            skipped_count: null(),
            flaky_count: null(),
            duration: null(),
            commit: null(),
            build_url: null(),
        };
        let edit_after = dice
            .chance(options.late_edits)
            .then(|| dice.wait(millis(options.edit_grace)));
        let restart = self.kind == Kind::SamplePlatform && dice.chance(options.restarts);
        let mut run = Run {
            id,
            index,
            environment,
            commit: commit(options.seed, index),
            created,
            lag: if self.kind == Kind::Empirical {
                dice.between(lag.0, lag.1 + 1)
            } else {
                0
            },
            nulls,
            odd: Odd::default(),
            verdict_after: None,
            edit_after,
            restart_after: restart.then(|| dice.wait(millis(options.edit_grace))),
            current: {
                let what = What {
                    index,
                    calm: false,
                    environment,
                    branch: Some(branch.as_str()),
                    custom: custom.as_deref(),
                };
                self.attempt(what, created, &mut dice)
            },
            branch: (!branch_null).then_some(branch),
            custom,
            first: None,
            poisoned: options.poisoned == Some(id),
            served_run: false,
            served_cases: Marks::default(),
            served_in_full: None,
        };
        self.make_odd(&mut run);
        run
    }

    /// Draws what somebody does about a run's failures when it has finished, from dice of its own.
    pub(super) fn snooze(&self, run: &Run) -> Option<Snooze> {
        let options = self.options;
        let mut dice = Dice::new(options.seed, Stream::Snooze, run.index as u64);
        if !dice.chance(options.snoozes) {
            return None;
        }
        let attempt = run.first();
        let failed = attempt.results.iter().filter(|result| result.outcome.is_failure());
        let mut cases: Vec<usize> = failed.map(|result| result.case).take(SNOOZED_FAILURES).collect();
        cases.push(dice.index(self.cases.len()));
        let created = attempt.finished + 1000;
        Some(Snooze {
            id: 1 + run.index as u64,
            cases,
            environment: (!dice.chance(0.3)).then_some(run.environment),
            created,
            until: created + dice.between(SNOOZE.start, SNOOZE.end),
        })
    }

    /// Draws what is odd about a run, from dice of their own: an odd world has the history of an ordinary one.
    fn make_odd(&self, run: &mut Run) {
        let options = self.options;
        let mut dice = Dice::new(options.seed, Stream::Odd, run.index as u64);
        run.odd = Odd {
            paused: dice.chance(options.undocumented_states),
            nameless: self.kind == Kind::Empirical && dice.chance(options.null_environments),
        };
        let judged = self.kind == Kind::SamplePlatform && dice.chance(options.late_verdicts);
        let later = dice.wait(millis(options.edit_grace));
        let has_verdict = run.current.end == End::Cancelled && !run.current.results.is_empty();
        run.verdict_after = (judged && has_verdict).then_some(later);
    }

    /// How much longer a run waits in a queue that has built up.
    fn queued_behind(&self, index: usize) -> Ms {
        let place = self.options.showcase.then(|| peak(index, self.options.runs_before));
        place
            .flatten()
            .map_or(0, |place| place as Ms * millis(self.options.run_duration) / QUEUE_SLOTS)
    }

    /// Draws the second attempt of a restarted run.
    pub(super) fn restarted(&self, run: &Run, now: Ms) -> Attempt {
        let mut dice = Dice::new(self.options.seed, Stream::Restart, run.index as u64);
        let (branch, custom) = (run.branch.as_deref(), run.custom.as_deref());
        self.attempt(
            What {
                index: run.index,
                calm: false,
                environment: run.environment,
                branch,
                custom,
            },
            now,
            &mut dice,
        )
    }

    fn some_cases(&self, dice: &mut Dice) -> Vec<usize> {
        let kept: Vec<usize> = (0..self.cases.len()).filter(|_| dice.chance(0.25)).collect();
        if kept.is_empty() { vec![0] } else { kept }
    }

    fn attempt(&self, mut what: What<'_>, queued: Ms, dice: &mut Dice) -> Attempt {
        let options = self.options;
        what.calm = dice.chance(if is_trunk(what.branch) { 0.04 } else { 0.25 });
        let part = if what.custom.is_some() { 0.4 } else { 1.0 };
        let duration = scale(millis(options.run_duration), part * dice.fraction(0.5, 1.5));
        let wait = dice.wait(millis(options.queue_wait)) + self.queued_behind(what.index);
        let mut attempt = Attempt {
            queued,
            pending_until: if dice.chance(0.3) {
                queued + wait * 6 / 10
            } else {
                queued
            },
            prepared: Some(queued + wait),
            started: Some(queued + wait),
            cancelling: None,
            finished: 0,
            end: End::Ended,
            results: Results::default(),
        };
        if self.kind == Kind::SamplePlatform {
            self.to_seconds(&mut attempt, duration, dice);
        }
        let started = attempt.started.unwrap_or(queued);
        let planned = self.round(duration).max(1000);
        attempt.finished = started + planned;
        let mut report = true;
        if dice.chance(options.errors) {
            report = self.end_in_error(&mut attempt, planned, dice);
        } else if dice.chance(options.cancels) {
            self.cancel(&mut attempt, planned, dice);
        }
        if report && attempt.started.is_some() {
            attempt.results = self.results(&attempt, what, planned, dice);
        }
        attempt
    }

    /// The Sample Platform tells whole seconds, and prepares a machine before it tests.
    fn to_seconds(&self, attempt: &mut Attempt, duration: Ms, dice: &mut Dice) {
        let prepared = self
            .round(attempt.prepared.unwrap_or(attempt.queued))
            .max(self.round(attempt.queued) + 1000);
        let preparation = self.round(scale(duration, dice.fraction(0.05, 0.2))).max(1000);
        attempt.prepared = Some(prepared);
        attempt.started = Some(prepared + preparation);
    }

    fn round(&self, time: Ms) -> Ms {
        if self.kind == Kind::SamplePlatform {
            time.div_euclid(1000) * 1000
        } else {
            time
        }
    }

    /// Lets it end in an error; whether there is a report of the cases.
    fn end_in_error(&self, attempt: &mut Attempt, planned: Ms, dice: &mut Dice) -> bool {
        let (code, started, report) = ERROR_CODES[dice.index(ERROR_CODES.len())];
        if self.kind == Kind::SamplePlatform {
            // Here an error is a completed run without any result.
            attempt.end = End::Error(None);
            if !started {
                attempt.finished = attempt.started.unwrap_or(attempt.finished);
                attempt.started = None;
            }
            return false;
        }
        let told = dice.chance(self.options.error_code_told);
        let code = if dice.chance(self.options.unknown_values * 10.0) {
            "quota_exceeded"
        } else {
            code
        };
        attempt.end = End::Error(told.then_some(code));
        if !started {
            attempt.finished = attempt.started.unwrap_or(attempt.finished);
            attempt.started = None;
        } else if report {
            attempt.finished = attempt.started.unwrap_or(attempt.queued) + scale(planned, dice.fraction(0.2, 0.9));
        }
        report && started
    }

    fn cancel(&self, attempt: &mut Attempt, planned: Ms, dice: &mut Dice) {
        attempt.end = End::Cancelled;
        let started = attempt.started.unwrap_or(attempt.queued);
        if dice.chance(0.4) {
            // Stopped before it began, for instance by a newer run.
            attempt.finished = match self.kind {
                Kind::Empirical => attempt.queued + (started - attempt.queued) / 2,
                Kind::SamplePlatform => self.round(attempt.queued) + 1000,
            };
            (attempt.prepared, attempt.started) = (None, None);
            return;
        }
        attempt.finished = started + self.round(scale(planned, dice.fraction(0.2, 0.9))).max(1000);
        attempt.cancelling = Some(attempt.finished - (planned / 20).min(attempt.finished - started));
    }

    fn results(&self, attempt: &Attempt, what: What<'_>, planned: Ms, dice: &mut Dice) -> Results {
        let started = attempt.started.unwrap_or(attempt.queued);
        let all: Vec<usize> = (0..self.cases.len()).collect();
        let chosen = what.custom.unwrap_or(&all);
        let mut results = Vec::with_capacity(chosen.len());
        for (place, &case) in chosen.iter().enumerate() {
            let executed = started + planned * (place as i64 + 1) / (chosen.len() as i64 + 1);
            let drawn = self.result(case, what, executed, dice);
            if let Some(result) = drawn.filter(|result| result.executed <= attempt.finished) {
                results.push(result);
            }
        }
        results.into()
    }

    fn outcome(&self, case: &Case, what: What<'_>, dice: &mut Dice) -> CaseOutcome {
        use CaseOutcome::{Failed, Flaky, MissingOutput, Passed, Skipped, Unknown};
        let playwright = self.kind == Kind::Empirical;
        let outcome = match case.character {
            Character::Skipping(rate) if dice.chance(rate) => Skipped,
            _ if what.calm => Passed,
            // Playwright tries again; the Sample Platform does not.
            Character::Flaky(rate) if dice.chance(rate) => {
                if playwright && dice.chance(0.7) {
                    Flaky
                } else {
                    Failed
                }
            }
            Character::Broken(place) if place.is_none_or(|place| place == what.environment) => Failed,
            Character::Regressing(from) if what.index >= from => Failed,
            Character::Outputless => {
                if playwright {
                    Failed
                } else {
                    MissingOutput
                }
            }
            _ => {
                if dice.chance(if is_trunk(what.branch) { 0.003 } else { 0.03 }) {
                    Failed
                } else {
                    Passed
                }
            }
        };
        if dice.chance(self.options.unknown_values) {
            Unknown
        } else {
            outcome
        }
    }

    fn result(&self, case: usize, what: What<'_>, executed: Ms, dice: &mut Dice) -> Option<CaseRun> {
        use CaseOutcome::{Failed, Flaky, MissingOutput, Skipped};
        let playwright = self.kind == Kind::Empirical;
        let about = &self.cases[case];
        let outcome = self.outcome(about, what, dice);
        if outcome == Skipped && !playwright {
            // The Sample Platform has no row for a test that did not run.
            return None;
        }
        let duration = if outcome == Skipped {
            0
        } else {
            scale(about.duration, dice.fraction(0.7, 1.4))
        };
        let retries = match outcome {
            Flaky => 1 + u8::from(dice.chance(0.3)),
            Failed if playwright => 2,
            _ => 0,
        };
        let differs = dice.chance(0.7);
        let exit_code = match outcome {
            Failed if !differs => [10, 139, 137, -1_073_741_819][dice.index(4)],
            MissingOutput => 139,
            _ => 0,
        };
        Some(CaseRun {
            case,
            outcome,
            executed,
            duration: (!dice.chance(self.options.nulls)).then_some(u32::try_from(duration).unwrap_or(u32::MAX)),
            retries: (!dice.chance(self.options.nulls)).then_some(retries),
            exit_code,
            differs: outcome == Failed && differs,
        })
    }
}

fn is_trunk(branch: Option<&str>) -> bool {
    matches!(branch, None | Some("main" | "master"))
}

fn commit(seed: u64, index: usize) -> String {
    // Neighbouring runs test the same commit, as on real platforms.
    let commit = super::dice::mix(seed ^ super::dice::mix(index as u64 / 2));
    format!("{commit:016x}{:016x}{:08x}", super::dice::mix(commit), commit >> 32)
}

pub(super) fn millis(duration: std::time::Duration) -> Ms {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
