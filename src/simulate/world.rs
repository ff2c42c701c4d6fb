//! A world: cases, runs and the present. It only moves forward, and moves itself to whatever time it is told.
//! Knows nothing of HTTP, JSON, tokens or limits.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use super::case::{Case, Character, cases, showcase};
use super::dice::{Dice, Stream, scale};
use super::options::WorldOptions;
use super::run::{CaseRun, End, Ms, Planner, Run, Snooze, millis, peak};
use super::truth::Truth;
use crate::model::{CaseOutcome, RunId};
use crate::sources::Kind;

/// The first run's id: not 1 for Empirical, so that a mixed-up index is noticed.
const EMPIRICAL_RUN_ID_FIRST: RunId = 4001;

/// Runs are forgotten in batches: so many in one time of keeping.
const PRUNES: Ms = 16;
/// In a peak, runs are created so quickly one after the other.
const PEAK_GAP: Ms = 300;

const MINUTE: Ms = 60_000;
const HOUR: Ms = 60 * MINUTE;
/// The ids of a showcase's own snoozes, far from those that follow runs.
const SHOWN_SNOOZE_ID_FIRST: u64 = 900_001;
/// So many broken cases are snoozed in a showcase at the most; the others stay in sight.
const SHOWN_BROKEN: usize = 2;

#[derive(Debug)]
pub(super) struct World {
    pub(super) kind: Kind,
    pub(super) options: WorldOptions,
    pub(super) cases: Vec<Case>,
    /// Places of the cases, by id.
    case_ids: HashMap<String, usize>,
    /// Ascending by id and by creation; ids have no gaps.
    pub(super) runs: Vec<Run>,
    /// Where each case's results are. Empirical: in the order in which they were executed; Sample Platform: of the runs.
    by_case: Vec<Vec<Place>>,
    /// Those that have been made or will be, by the runs that are created.
    pub(super) snoozes: Vec<Snooze>,
    /// Runs that may be edited or restarted one day.
    rewritable: Vec<RunId>,
    /// How many runs have been forgotten, all of them older than those that are left.
    forgotten: usize,
    /// What a reader has counted of them that has looked since the start, by branch (within: by none).
    pub(super) folded: BTreeMap<Option<String>, Truth>,
    /// When the last of them was finished.
    pub(super) folded_until: Ms,
    pub(super) now: Ms,
    /// When the next run is created.
    next: Ms,
    /// No run is created after this.
    stop: Ms,
}

/// Where a result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// When it was executed (Empirical; 0 elsewhere, where it does not order anything).
    executed: Ms,
    /// The run's place in the whole history.
    run: u32,
    /// The place in the run's results.
    result: u32,
}

impl World {
    pub(super) fn new(kind: Kind, options: WorldOptions) -> Self {
        let mut cases = cases(
            kind,
            options.seed,
            options.cases,
            options.environments.len(),
            options.runs_before,
        );
        if options.showcase {
            showcase(&mut cases, options.runs_before);
        }
        let start = options.start.as_millisecond();
        let case_ids = cases.iter().enumerate().map(|(place, case)| (case.id.clone(), place));
        let mut world = Self {
            kind,
            case_ids: case_ids.collect(),
            by_case: vec![vec![]; cases.len()],
            cases,
            runs: vec![],
            snoozes: vec![],
            rewritable: vec![],
            forgotten: 0,
            folded: BTreeMap::new(),
            folded_until: i64::MIN,
            now: start,
            next: 0,
            stop: i64::MAX,
            options,
        };
        if world.options.showcase && kind == Kind::Empirical {
            world.snoozes = shown_snoozes(&world.cases, start);
        }
        world.write_history(start);
        world.next = start + world.gap();
        world
    }

    /// The runs before the start, evenly spread, all of them finished and known to the analytics.
    fn write_history(&mut self, start: Ms) {
        let options = &self.options;
        let margin =
            8 * (millis(options.queue_wait) + millis(options.run_duration)) + millis(options.analytics_lag.1) + 10_000;
        let last = start - margin;
        let first = (start - millis(options.history)).min(last);
        let count = options.runs_before;
        let step = (last - first) / (count as i64).max(1);
        for index in 0..count {
            let jitter = Dice::new(self.options.seed, Stream::Gap, index as u64).between(0, step.max(1));
            self.create(first + step * index as i64 + jitter);
        }
    }

    fn create(&mut self, created: Ms) {
        let index = self.created();
        let first = if self.kind == Kind::Empirical {
            EMPIRICAL_RUN_ID_FIRST
        } else {
            1
        };
        let planner = Planner {
            kind: self.kind,
            options: &self.options,
            cases: &self.cases,
        };
        let run = planner.run(index, first + index as u64, created);
        if run.will_be_rewritten() {
            self.rewritable.push(run.id);
        }
        self.snoozes.extend(planner.snooze(&run));
        note_results(&mut self.by_case, self.kind, &run);
        self.runs.push(run);
    }

    /// Whether anything may ever be snoozed.
    pub(super) fn has_snoozes(&self) -> bool {
        self.options.snoozes > 0.0 || self.options.showcase && self.kind == Kind::Empirical
    }

    /// Failures of a run's attempt that nobody had snoozed when it was finished.
    pub(super) fn failed_after_snooze(&self, run: &Run) -> u64 {
        let attempt = &run.current;
        let holding: Vec<_> = self
            .snoozes
            .iter()
            .filter(|snooze| snooze.holds(attempt.finished))
            .collect();
        let covered = |case: usize| holding.iter().any(|snooze| snooze.covers(run.environment, case));
        let failed = attempt
            .results
            .iter()
            .filter(|result| result.outcome == CaseOutcome::Failed);
        failed.filter(|result| !covered(result.case)).count() as u64
    }

    fn gap(&self) -> Ms {
        let (options, index) = (&self.options, self.created());
        let interval = millis(options.run_interval);
        if Dice::new(options.seed, Stream::Tie, index as u64).chance(options.created_ties) {
            return 0;
        }
        if options.showcase {
            // Steady, so that there is something new at each look.
            let mut dice = Dice::new(options.seed, Stream::Show, index as u64);
            return peak(index, options.runs_before)
                .map_or_else(|| scale(interval, dice.fraction(0.7, 1.3)), |_| PEAK_GAP);
        }
        Dice::new(options.seed, Stream::Gap, index as u64).wait(interval).max(1)
    }

    /// How many runs have ever been created.
    fn created(&self) -> usize {
        self.forgotten + self.runs.len()
    }

    /// How often a history tells a result.
    pub(super) fn copies(&self, run: &Run, result: &CaseRun) -> usize {
        let rate = self.options.history_duplicates;
        // Asked for each row of each history: no dice where there is nothing to draw.
        let is_double = rate > 0.0
            && Dice::new(
                self.options.seed,
                Stream::Duplicate,
                (run.id << 20) ^ result.case as u64,
            )
            .chance(rate);
        1 + usize::from(is_double)
    }

    /// Moves the present. Time that lies in the past changes nothing.
    pub(super) fn advance(&mut self, now: Timestamp) {
        self.now = self.now.max(now.as_millisecond());
        while self.next <= self.now && self.will_create() {
            self.create(self.next);
            self.next += self.gap();
        }
        self.rewrite_served();
        self.forget();
    }

    /// Whether the next run will ever be created.
    pub(super) fn will_create(&self) -> bool {
        let after = self.created() - self.options.runs_before;
        self.next <= self.stop && self.options.runs_after.is_none_or(|max| after < max)
    }

    pub(super) fn stop_creating_at(&mut self, at: Timestamp) {
        self.stop = at.as_millisecond();
    }

    /// No run is unfinished or unknown to the analytics, and none is still to be created.
    pub(super) fn is_settled(&self) -> bool {
        !self.will_create()
            && self
                .runs
                .iter()
                .all(|run| run.current.is_finished(self.now) && run.is_visible(self.now))
    }

    fn place(&self, id: RunId) -> Option<usize> {
        usize::try_from(id.checked_sub(self.runs.first()?.id)?).ok()
    }

    pub(super) fn find(&self, id: RunId) -> Option<&Run> {
        self.runs.get(self.place(id)?)
    }

    pub(super) fn find_mut(&mut self, id: RunId) -> Option<&mut Run> {
        let place = self.place(id)?;
        self.runs.get_mut(place)
    }

    /// The place of the case with this id.
    pub(super) fn case(&self, id: &str) -> Option<usize> {
        self.case_ids.get(id).copied()
    }

    /// A case's results, done or not, newest first (Empirical: by execution; Sample Platform: by run).
    pub(super) fn results(&self, case: usize) -> impl Iterator<Item = (&Run, &CaseRun)> {
        let places = self.by_case.get(case).map(Vec::as_slice).unwrap_or_default();
        let gone = self.runs.first().map_or(0, |run| run.index);
        places.iter().rev().filter_map(move |place| {
            let run = self.runs.get((place.run as usize).checked_sub(gone)?)?;
            Some((run, run.current.results.get(place.result as usize)?))
        })
    }

    /// Forgets runs that are old enough, and keeps what has been counted of them.
    fn forget(&mut self) {
        let keep = millis(self.options.keep_for);
        let oldest = self.now.saturating_sub(keep);
        let is_time = |run: &Run| run.created < oldest.saturating_sub(keep / PRUNES);
        if !self.runs.first().is_some_and(is_time) {
            return;
        }
        let is_old = |run: &&Run| run.created < oldest && run.current.finished + run.lag < oldest;
        let count = self.runs.iter().take_while(is_old).count();
        let gone: Vec<Run> = self.runs.drain(..count).collect();
        self.forgotten += count;
        let mut folded = std::mem::take(&mut self.folded);
        for run in &gone {
            Truth::fold(&mut folded, self, run);
            self.folded_until = self.folded_until.max(run.current.finished);
        }
        self.folded = folded;
        self.snoozes.retain(|snooze| snooze.until >= oldest);
        let forgotten = self.forgotten;
        for places in &mut self.by_case {
            places.retain(|place| place.run as usize >= forgotten);
        }
    }

    /// Edits and restarts whose time has come. Only what was served in full is changed, so that what a reader who counts
    /// the first version must have counted stays defined.
    fn rewrite_served(&mut self) {
        let grace = millis(self.options.edit_grace);
        let planner = Planner {
            kind: self.kind,
            options: &self.options,
            cases: &self.cases,
        };
        let first = self.runs.first().map_or(0, |run| run.id);
        let (runs, by_case, kind, now) = (&mut self.runs, &mut self.by_case, self.kind, self.now);
        self.rewritable.retain(|id| {
            let place = id.checked_sub(first).and_then(|place| usize::try_from(place).ok());
            let Some(run) = place.and_then(|place| runs.get_mut(place)) else {
                return false;
            };
            let Some(served) = run.served_in_full else { return true };
            let due = |after: Ms| (run.current.finished + after).max(served + grace) <= now;
            if run.restart_after.is_some_and(due) {
                let again = planner.restarted(run, now);
                run.restart_after = None;
                run.edit_after = None;
                forget_results(by_case, run);
                run.verdict_after = None;
                let replaced = std::mem::replace(&mut run.current, again);
                run.first.get_or_insert(Box::new(replaced));
                note_results(by_case, kind, run);
            } else if run.verdict_after.is_some_and(due) {
                run.verdict_after = None;
                judge_late(run, now);
            } else if run.edit_after.is_some_and(due) {
                run.edit_after = None;
                edit(run, planner.options.seed);
            }
            run.will_be_rewritten()
        });
    }
}

/// What a showcase begins with: a snooze that is over, one that ends within the hour, and one of cases that fail behind it.
fn shown_snoozes(cases: &[Case], start: Ms) -> Vec<Snooze> {
    let broken = |case: &Case| matches!(case.character, Character::Broken(_) | Character::Outputless);
    let mut failing: Vec<usize> = (0..cases.len()).filter(|place| broken(&cases[*place])).collect();
    failing.truncate(SHOWN_BROKEN);
    if failing.is_empty() {
        // No case has been broken from the beginning; the first one will be soon.
        failing.push(0);
    }
    let snooze = |place: u64, cases: Vec<usize>, environment, created, until| Snooze {
        id: SHOWN_SNOOZE_ID_FIRST + place,
        cases,
        environment,
        created: start + created,
        until: start + until,
    };
    vec![
        snooze(0, vec![2], None, -30 * HOUR, -HOUR),
        snooze(1, failing, None, -20 * HOUR, 3 * 24 * HOUR),
        // Of a case that flips, in one environment.
        snooze(2, vec![1], Some(0), -2 * HOUR, 15 * MINUTE),
    ]
}

/// A row of the worker that comes after the cancellation: the run was tested after all, and is completed now.
fn judge_late(run: &mut Run, now: Ms) {
    run.first.get_or_insert(Box::new(run.current.clone()));
    run.current.end = End::Ended;
    run.current.finished = now.div_euclid(1000) * 1000;
}

fn note_results(by_case: &mut [Vec<Place>], kind: Kind, run: &Run) {
    let narrow = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
    for (place, result) in run.current.results.iter().enumerate() {
        let place = Place {
            executed: if kind == Kind::Empirical { result.executed } else { 0 },
            run: narrow(run.index),
            result: narrow(place),
        };
        if let Some(places) = by_case.get_mut(result.case) {
            // Nearly always at the end: runs come in the order of their creation.
            let at = places.partition_point(|other| *other < place);
            places.insert(at, place);
        }
    }
}

fn forget_results(by_case: &mut [Vec<Place>], run: &Run) {
    for result in run.current.results.iter() {
        if let Some(places) = by_case.get_mut(result.case) {
            places.retain(|place| place.run as usize != run.index);
        }
    }
}

/// Turns one failure into a pass, as an accepted variant does, or a pass into a failure.
fn edit(run: &mut Run, seed: u64) {
    let mut dice = Dice::new(seed, Stream::Edit, run.index as u64);
    let count = run.current.results.len();
    if count == 0 {
        return;
    }
    let original = run.current.clone();
    let place = run
        .current
        .results
        .iter()
        .position(|result| result.outcome == CaseOutcome::Failed)
        .unwrap_or_else(|| dice.index(count));
    run.current.results.change(place, |result| {
        if result.outcome == CaseOutcome::Failed {
            (result.outcome, result.exit_code, result.differs) = (CaseOutcome::Passed, 0, false);
        } else {
            (result.outcome, result.differs) = (CaseOutcome::Failed, true);
        }
    });
    run.first.get_or_insert(Box::new(original));
}
