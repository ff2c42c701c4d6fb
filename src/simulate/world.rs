//! A world: cases, runs and the present. It only moves forward, and moves itself to whatever time it is told.
//! Knows nothing of HTTP, JSON, tokens or limits.

use std::collections::HashMap;

use jiff::Timestamp;

use super::case::{Case, cases};
use super::dice::{Dice, Stream};
use super::options::WorldOptions;
use super::run::{CaseRun, Ms, Planner, Run, millis};
use crate::model::{CaseOutcome, RunId};
use crate::sources::Kind;

/// The first run's id: not 1 for Empirical, so that a mixed-up index is noticed.
const EMPIRICAL_RUN_ID_FIRST: RunId = 4001;

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
    /// Runs that may be edited or restarted one day.
    rewritable: Vec<RunId>,
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
        let cases = cases(
            kind,
            options.seed,
            options.cases,
            options.environments.len(),
            options.runs_before,
        );
        let start = options.start.as_millisecond();
        let case_ids = cases.iter().enumerate().map(|(place, case)| (case.id.clone(), place));
        let mut world = Self {
            kind,
            case_ids: case_ids.collect(),
            by_case: vec![vec![]; cases.len()],
            cases,
            runs: vec![],
            rewritable: vec![],
            now: start,
            next: 0,
            stop: i64::MAX,
            options,
        };
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
        let index = self.runs.len();
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
        note_results(&mut self.by_case, self.kind, &run);
        self.runs.push(run);
    }

    fn gap(&self) -> Ms {
        let index = self.runs.len() as u64;
        Dice::new(self.options.seed, Stream::Gap, index)
            .wait(millis(self.options.run_interval))
            .max(1)
    }

    /// Moves the present. Time that lies in the past changes nothing.
    pub(super) fn advance(&mut self, now: Timestamp) {
        self.now = self.now.max(now.as_millisecond());
        while self.next <= self.now && self.will_create() {
            self.create(self.next);
            self.next += self.gap();
        }
        self.rewrite_served();
    }

    /// Whether the next run will ever be created.
    pub(super) fn will_create(&self) -> bool {
        let after = self.runs.len() - self.options.runs_before;
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
                run.first = Some(Box::new(std::mem::replace(&mut run.current, again)));
                note_results(by_case, kind, run);
            } else if run.edit_after.is_some_and(due) {
                run.edit_after = None;
                edit(run, planner.options.seed);
            }
            run.will_be_rewritten()
        });
    }
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
    run.first = Some(Box::new(original));
}
