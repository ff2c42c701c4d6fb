//! A world: cases, runs and the present. It only moves forward, and moves itself to whatever time it is told.
//! Knows nothing of HTTP, JSON, tokens or limits.

use jiff::Timestamp;

use super::case::{Case, cases};
use super::dice::{Dice, Stream};
use super::options::WorldOptions;
use super::run::{Ms, Planner, Run, millis};
use crate::model::{CaseOutcome, RunId};
use crate::sources::Kind;

/// The first run's id: not 1 for Empirical, so that a mixed-up index is noticed.
const EMPIRICAL_RUN_ID_FIRST: RunId = 4001;

#[derive(Debug)]
pub(super) struct World {
    pub(super) kind: Kind,
    pub(super) options: WorldOptions,
    pub(super) cases: Vec<Case>,
    /// Ascending by id and by creation.
    pub(super) runs: Vec<Run>,
    pub(super) now: Ms,
    /// When the next run is created.
    next: Ms,
    /// No run is created after this.
    stop: Ms,
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
        let mut world = Self {
            kind,
            cases,
            runs: vec![],
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
        self.runs.push(planner.run(index, first + index as u64, created));
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

    pub(super) fn find(&self, id: RunId) -> Option<&Run> {
        let place = self.runs.binary_search_by_key(&id, |run| run.id).ok()?;
        self.runs.get(place)
    }

    pub(super) fn find_mut(&mut self, id: RunId) -> Option<&mut Run> {
        let place = self.runs.binary_search_by_key(&id, |run| run.id).ok()?;
        self.runs.get_mut(place)
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
        for run in &mut self.runs {
            let Some(served) = run.served_in_full else { continue };
            let due = |after: Ms| (run.current.finished + after).max(served + grace) <= self.now;
            if run.restart_after.is_some_and(due) {
                let again = planner.restarted(run, self.now);
                run.restart_after = None;
                run.edit_after = None;
                run.first = Some(Box::new(std::mem::replace(&mut run.current, again)));
            } else if run.edit_after.is_some_and(due) {
                run.edit_after = None;
                edit(run, self.options.seed);
            }
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
    let result = &mut run.current.results[place];
    if result.outcome == CaseOutcome::Failed {
        (result.outcome, result.exit_code, result.differs) = (CaseOutcome::Passed, 0, false);
    } else {
        (result.outcome, result.differs) = (CaseOutcome::Failed, true);
    }
    run.first = Some(Box::new(original));
}
