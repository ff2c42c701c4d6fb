//! What is known of the Sample Platform's runs: which are open, which are finished, whose results are still to be read.
//! The list tells every run's status and times, so nothing here is guessed; never plans a request.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::wire::RunRow;
use crate::model::{
    ActiveRun, ActiveState, CaseCounts, CaseOutcome, ErrorCode, Group, Name, Notice, Run, RunId, RunOutcome,
};
use crate::sources::{Settings, loose};

/// Runs that are remembered at the most, whatever a platform lists: 90 days of more than 500 a day.
const RUNS_MAX: usize = 50_000;

/// Finished runs are forgotten this long after the lookback.
const RETENTION_MARGIN: SignedDuration = SignedDuration::from_hours(48);

/// Results that the server cannot serve are tried again, less and less often, up to this pause.
const RETRY_MAX: SignedDuration = SignedDuration::from_hours(1);

/// So many runs in a row that are not worth reading again end the walk over the recent ones: what is behind them is old.
const REREAD_SKIPS_MAX: usize = 1_000;

/// What a run's `status` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Active(ActiveState),
    Finished(RunOutcome),
}

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Standing {
    /// Not finished.
    Open(ActiveState),
    /// Finished, and its results are worth a request.
    Due {
        tries: u32,
        #[serde(with = "crate::packed")]
        not_before: Timestamp,
    },
    /// Finished before this source was first met; its results are read only where they tell something.
    Presumed,
    /// Finished, and told to the store with all that is known of it.
    Read,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) run: Run,
    pub(super) standing: Standing,
}

/// All of them, by id.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Runs {
    known: BTreeMap<RunId, Known>,
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
    pub(super) fn get(&self, id: RunId) -> Option<&Known> {
        self.known.get(&id)
    }

    pub(super) fn remove(&mut self, id: RunId) {
        self.known.remove(&id);
    }

    /// The run, if its results may be told.
    pub(super) fn finished(&self, id: RunId) -> Option<&Known> {
        self.known
            .get(&id)
            .filter(|known| matches!(known.standing, Standing::Read | Standing::Presumed))
    }

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
        let Some(known) = self.known.get_mut(&id) else {
            let standing = match told {
                Told::Active(state) => Standing::Open(state),
                Told::Finished(_) if met => due,
                Told::Finished(_) => Standing::Presumed,
            };
            self.known.insert(id, Known { run, standing });
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
        let open = self
            .known
            .iter()
            .filter(|(_, known)| matches!(known.standing, Standing::Open(_)));
        open.map(|(id, _)| *id).filter(|id| !seen.contains(id)).collect()
    }

    /// The runs whose results are to be read now, in the order in which they were created.
    pub(super) fn due(&self, now: Timestamp) -> Vec<RunId> {
        let due = |known: &Known| matches!(known.standing, Standing::Due { not_before, .. } if not_before <= now);
        self.known
            .iter()
            .filter(|(_, known)| due(known))
            .map(|(id, _)| *id)
            .collect()
    }

    /// When the run that has waited longest for its results was found to be finished, or put off.
    pub(super) fn waiting_since(&self) -> Option<Timestamp> {
        let since = |known: &Known| match known.standing {
            Standing::Due { not_before, .. } => Some(not_before),
            _ => None,
        };
        self.known.values().filter_map(since).min()
    }

    /// The newest run that was read, is not older than `from` and comes before `last` in a walk from the newest one.
    pub(super) fn read_before(&self, last: Option<RunId>, from: Timestamp) -> Option<RunId> {
        let recent = |known: &Known| {
            let time = known.run.ended.or(known.run.created);
            known.standing == Standing::Read && time.is_some_and(|time| time >= from)
        };
        let older = self.known.range(..last.unwrap_or(RunId::MAX)).rev();
        let mut older = older.take(REREAD_SKIPS_MAX);
        older.find(|(_, known)| recent(known)).map(|(id, _)| *id)
    }

    /// The results of a run are not to be had now. Gives how often that was so.
    pub(super) fn postpone(&mut self, id: RunId, now: Timestamp) -> u32 {
        match self.known.get_mut(&id).map(|known| &mut known.standing) {
            Some(Standing::Due { tries, not_before }) => {
                *tries = (*tries + 1).min(16);
                *not_before = now + SignedDuration::from_mins(1 << (*tries - 1).min(10)).min(RETRY_MAX);
                *tries
            }
            _ => 0,
        }
    }

    /// Everything about a finished run is read.
    pub(super) fn settle(&mut self, id: RunId, counts: Option<CaseCounts>) -> Option<Run> {
        let known = self.known.get_mut(&id)?;
        known.run.counts = counts.unwrap_or(known.run.counts);
        known.standing = Standing::Read;
        Some(known.run.clone())
    }

    /// All finished runs whose results have not been read.
    pub(super) fn presumed(&self) -> impl Iterator<Item = &Run> {
        self.known
            .values()
            .filter(|known| known.standing == Standing::Presumed)
            .map(|known| &known.run)
    }

    /// Where they ran.
    pub(super) fn groups(&self) -> BTreeSet<&Group> {
        self.known.values().map(|known| &known.run.group).collect()
    }

    /// The runs that are not finished.
    pub(super) fn active(&self) -> Vec<ActiveRun> {
        let active = self.known.iter().filter_map(|(id, known)| match known.standing {
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
        let oldest = now - lookback - RETENTION_MARGIN;
        self.known.retain(|_, known| {
            let time = known.run.ended.or(known.run.started).or(known.run.created);
            // A run without any time cannot be told from a new one once it is forgotten: it stays.
            !matches!(known.standing, Standing::Read | Standing::Presumed) || time.is_none_or(|time| time >= oldest)
        });
        // Whatever a platform invents: the oldest leave.
        while self.known.len() > RUNS_MAX {
            self.known.pop_first();
        }
    }
}
