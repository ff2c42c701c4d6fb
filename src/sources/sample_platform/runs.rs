//! What is known of the Sample Platform's runs: which are open, which are finished, whose results are still to be read.
//! The list tells every run's status and times, so nothing here is guessed; never plans a request.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::wire::RunRow;
use crate::model::{
    ActiveRun, ActiveState, CaseCounts, CaseOutcome, ErrorCode, Group, Name, Notice, Run, RunId, RunOutcome,
};
use crate::sources::table::{self, Standing, Table};
use crate::sources::{Settings, loose};

/// What a run's `status` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Active(ActiveState),
    Finished(RunOutcome),
}

/// What is known of a run, and of an open one its state.
pub(super) type Known = table::Known<ActiveState>;

/// All of them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Runs {
    pub(super) table: Table<ActiveState>,
    /// The highest id of the last whole walk: everything below it is known.
    pub(super) walked_to: Option<RunId>,
}

/// `incomplete` is documented and never sent; it would mean that the platform did not run it to its end.
fn told(row: &RunRow, completed: bool, notices: &mut Vec<Notice>) -> Told {
    match row.status.as_deref() {
        Some("queued") => Told::Active(ActiveState::Queued),
        Some("running") => Told::Active(ActiveState::Started),
        Some("pass") => Told::Finished(RunOutcome::Passed),
        Some("fail") => Told::Finished(RunOutcome::Failed),
        Some("canceled" | "cancelled") => Told::Finished(RunOutcome::Cancelled),
        Some("error" | "incomplete") => Told::Finished(RunOutcome::Error),
        _ => {
            notices.push(Notice::UnknownValue { field: "status" });
            if completed {
                Told::Finished(RunOutcome::Unknown)
            } else {
                Told::Active(ActiveState::Started)
            }
        }
    }
}

pub(super) fn case_outcome(status: Option<&str>) -> CaseOutcome {
    match status {
        Some("pass") => CaseOutcome::Passed,
        Some("fail") => CaseOutcome::Failed,
        Some("missing_output") => CaseOutcome::MissingOutput,
        Some("skipped" | "not_started") => CaseOutcome::Skipped,
        _ => CaseOutcome::Unknown,
    }
}

impl Runs {
    /// A row, in our words.
    fn read(id: RunId, row: &RunRow, settings: &Settings, notices: &mut Vec<Notice>) -> (Run, Told) {
        let mut time = |text: &loose::Text, field| text.time(|| notices.push(Notice::UnknownValue { field }));
        let created = time(&row.created_at, "created_at");
        let started = time(&row.started_at, "started_at");
        let ended = time(&row.completed_at, "completed_at");
        let told = told(row, ended.is_some(), notices);
        let outcome = match told {
            Told::Finished(outcome) => outcome,
            Told::Active(_) => RunOutcome::Unknown,
        };
        let seconds = ended
            .zip(started)
            .map(|(end, start)| end.duration_since(start).as_secs_f64());
        let run = Run {
            id,
            group: Group {
                environment: row.platform.name().unwrap_or_else(|| Name::from("")),
                branch: settings.branches.label(row.branch.as_deref()),
            },
            outcome,
            error_code: (outcome == RunOutcome::Error).then_some(ErrorCode::Unknown),
            created,
            started,
            ended,
            duration_seconds: seconds.and_then(loose::length),
            counts: CaseCounts::default(),
            commit: row.commit_sha.name(),
            build_url: row.github_link.name(),
        };
        (run, told)
    }

    /// A run as the server shows it now. Gives the run if it had been told to the store and reads differently.
    pub(super) fn learn(
        &mut self,
        id: RunId,
        row: &RunRow,
        met: bool,
        now: Timestamp,
        settings: &Settings,
        notices: &mut Vec<Notice>,
    ) -> Option<Run> {
        let (mut run, told) = Self::read(id, row, settings, notices);
        let due = Standing::Due {
            tries: 0,
            not_before: now,
        };
        let Some(known) = self.table.known.get_mut(&id) else {
            let standing = match told {
                Told::Active(state) => Standing::Open(state),
                Told::Finished(_) if met => due,
                Told::Finished(_) => Standing::Presumed,
            };
            self.table.known.insert(id, Known { run, standing });
            return None;
        };
        run.counts = known.run.counts;
        if known.standing == Standing::Read && matches!(told, Told::Finished(_)) {
            // It counts where it was counted: `branches` that have changed since are no news of it.
            run.group = known.run.group.clone();
        }
        let same = known.run == run;
        // A restarted run is open again; a finished one that ended otherwise or later has new results.
        match (&known.standing, told) {
            (_, Told::Active(state)) => known.standing = Standing::Open(state),
            (Standing::Open(_), Told::Finished(_)) if met => known.standing = due,
            (Standing::Open(_), Told::Finished(_)) => known.standing = Standing::Presumed,
            (Standing::Read, Told::Finished(_)) if !same => known.standing = due,
            _ => {}
        }
        known.run = run;
        (!same && known.standing == Standing::Presumed && met).then(|| known.run.clone())
    }

    /// Open runs that this round has not shown.
    pub(super) fn unseen(&self, seen: &BTreeSet<RunId>) -> Vec<RunId> {
        self.table
            .ids(|id, known| matches!(known.standing, Standing::Open(_)) && !seen.contains(&id))
    }

    /// Everything about a finished run is read.
    pub(super) fn settle(&mut self, id: RunId, counts: Option<CaseCounts>) -> Option<Run> {
        let known = self.table.known.get_mut(&id)?;
        known.run.counts = counts.unwrap_or(known.run.counts);
        known.standing = Standing::Read;
        Some(known.run.clone())
    }

    /// All finished runs whose results have not been read.
    pub(super) fn presumed(&self) -> impl Iterator<Item = &Run> {
        self.table
            .known
            .values()
            .filter(|known| known.standing == Standing::Presumed)
            .map(|known| &known.run)
    }

    /// The runs that are not finished.
    pub(super) fn active(&self) -> Vec<ActiveRun> {
        let active = self.table.known.iter().filter_map(|(id, known)| match known.standing {
            Standing::Open(state) => Some(ActiveRun {
                id: *id,
                environment: known.run.group.environment.clone(),
                state,
            }),
            _ => None,
        });
        active.collect()
    }

    /// Forgets finished runs that no window shows any more.
    pub(super) fn prune(&mut self, now: Timestamp, lookback: SignedDuration) {
        let time = |run: &Run| run.ended.or(run.started).or(run.created);
        self.table.prune(now, lookback, time);
    }
}
