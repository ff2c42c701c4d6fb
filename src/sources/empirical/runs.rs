//! What is known of Empirical's runs: which are open, which are finished, which details are still to be read.
//! Reads rows into our words; never plans a request.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::wire::RunRow;
use crate::model::{
    ActiveRun, ActiveState, CaseCounts, CaseOutcome, ErrorCode, Group, Name, Notice, Run, RunId, RunOutcome,
};
use crate::sources::table::{self, Standing, Table};
use crate::sources::{DurationUnit, Settings, loose};

/// A run in a state that nobody knows, with no end told, counts as finished when it is this old.
const UNKNOWN_STATE_MAX: SignedDuration = SignedDuration::from_hours(24);

/// The states of runs that are not finished, in the order in which a run goes through them. Asked in this order, a run
/// that moves on between two requests is seen at least once.
pub(super) const LIFECYCLE: [ActiveState; 4] = [
    ActiveState::Pending,
    ActiveState::Queued,
    ActiveState::Started,
    ActiveState::Cancelling,
];

/// What a run's `state` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Active(ActiveState),
    Finished(State),
    Unknown,
}

/// How a finished run finished; the counts decide between passed and failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Ended,
    Error,
    Cancelled,
}

/// What is known of a run. While it is open: its state, once somebody has told it.
pub(super) type Known = table::Known<Option<ActiveState>>;

/// All of them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Runs {
    pub(super) table: Table<Option<ActiveState>>,
    /// The highest id of the last whole walk: everything below it is known.
    pub(super) walked_to: Option<RunId>,
    /// Environment ids whose slug a run has told.
    pub(super) environments: BTreeMap<String, Name>,
    /// Runs that told both times and `duration`: how many of them in seconds, in milliseconds.
    unit_votes: (u32, u32),
}

pub(super) fn told(state: &str) -> Told {
    match state {
        "pending" => Told::Active(ActiveState::Pending),
        "queued" => Told::Active(ActiveState::Queued),
        "started" => Told::Active(ActiveState::Started),
        "cancelling" => Told::Active(ActiveState::Cancelling),
        "ended" => Told::Finished(State::Ended),
        "error" => Told::Finished(State::Error),
        "cancelled" => Told::Finished(State::Cancelled),
        _ => Told::Unknown,
    }
}

/// The history's words are documented; the details say the same in another tense.
pub(super) fn case_outcome(status: Option<&str>) -> CaseOutcome {
    match status {
        Some("pass" | "passed") => CaseOutcome::Passed,
        Some("fail" | "failed") => CaseOutcome::Failed,
        Some("flaky") => CaseOutcome::Flaky,
        Some("skip" | "skipped") => CaseOutcome::Skipped,
        _ => CaseOutcome::Unknown,
    }
}

fn error_code(text: Option<&str>) -> ErrorCode {
    let known = ErrorCode::ALL.iter().find(|code| Some(code.label()) == text);
    known.copied().unwrap_or(ErrorCode::Unknown)
}

fn counts(row: &RunRow) -> CaseCounts {
    let mut counts = CaseCounts::default();
    counts[CaseOutcome::Passed.index()] = row.success_count.count();
    counts[CaseOutcome::Failed.index()] = row.failed_count.count();
    counts[CaseOutcome::Flaky.index()] = row.flaky_count.count();
    counts[CaseOutcome::Skipped.index()] = row.skipped_count.count();
    counts
}

impl Runs {
    /// The run, if its results may be told: it is finished and the store has heard of it.
    pub(super) fn finished(&self, id: RunId) -> Option<&Run> {
        self.table.finished(id).map(|known| &known.run)
    }

    /// Takes a run into the table, or brings up to date what the row tells. The standing stays.
    pub(super) fn learn(
        &mut self,
        id: RunId,
        row: &RunRow,
        settings: &Settings,
        notices: &mut Vec<Notice>,
    ) -> &mut Known {
        let run = self.read(id, row, settings, notices);
        let known = self.table.known.entry(id).or_insert_with(|| Known {
            run: run.clone(),
            standing: Standing::Open(None),
        });
        merge(&mut known.run, run, row);
        known
    }

    /// A row in our words. The outcome is what its state and its counts say.
    fn read(&mut self, id: RunId, row: &RunRow, settings: &Settings, notices: &mut Vec<Notice>) -> Run {
        let mut time = |text: &loose::Text, field| text.time(|| notices.push(Notice::UnknownValue { field }));
        let created = time(&row.created_at, "created_at");
        let started = time(&row.run_started_at, "run_started_at");
        let ended = time(&row.run_ended_at, "run_ended_at");
        let counts = counts(row);
        let failed = counts[CaseOutcome::Failed.index()].unwrap_or(0) > 0;
        let by_counts = if failed { RunOutcome::Failed } else { RunOutcome::Passed };
        let outcome = match row.state.as_deref().map(told) {
            None | Some(Told::Finished(State::Ended) | Told::Active(_)) => by_counts,
            Some(Told::Finished(State::Error)) => RunOutcome::Error,
            Some(Told::Finished(State::Cancelled)) => RunOutcome::Cancelled,
            Some(Told::Unknown) => RunOutcome::Unknown,
        };
        Run {
            id,
            group: Group {
                environment: self.environment(row, settings),
                branch: settings.branches.label(row.test_run_branch.as_deref()),
            },
            outcome,
            error_code: (outcome == RunOutcome::Error).then(|| error_code(row.error_code.as_deref())),
            created,
            started,
            ended,
            duration_seconds: self.duration(started, ended, row.duration.0, settings, notices),
            counts,
            commit: row.commit.name().or_else(|| row.test_run_head_sha.name()),
            build_url: row.build_url.name(),
        }
    }

    /// The slug; else what the id is known to stand for; else nothing. Never the id itself.
    fn environment(&mut self, row: &RunRow, settings: &Settings) -> Name {
        let id = row.environment_id.as_deref();
        if let Some(slug) = row.environment_slug.name() {
            if let Some(id) = id {
                self.environments.insert(id.to_owned(), slug.clone());
            }
            return slug;
        }
        id.and_then(|id| self.environment_of(id, settings))
            .unwrap_or_else(|| Name::from(""))
    }

    /// The name that an environment id stands for, by a run that told both or by the configuration.
    pub(super) fn environment_of(&self, id: &str, settings: &Settings) -> Option<Name> {
        let learned = self.environments.get(id).cloned();
        learned.or_else(|| settings.environments.get(id).map(|name| loose::name(name)))
    }

    /// A run has told which environment an id stands for. Bounded: only ids of runs that are in the table come here.
    pub(super) fn learn_environment(&mut self, id: &str, slug: &Name) {
        if !slug.is_empty() && !self.environments.contains_key(id) {
            self.environments.insert(id.to_owned(), slug.clone());
        }
    }

    /// What a run itself did not tell.
    pub(super) fn name_environment(&mut self, id: RunId, slug: Name) {
        if let Some(known) = self.table.known.get_mut(&id) {
            known.run.group.environment = slug;
        }
    }

    /// Start to end where both are told. The field `duration` is documented in milliseconds and used in seconds: it is
    /// believed only in the unit that is configured, or that other runs' start and end have proved.
    fn duration(
        &mut self,
        started: Option<Timestamp>,
        ended: Option<Timestamp>,
        field: Option<f64>,
        settings: &Settings,
        notices: &mut Vec<Notice>,
    ) -> Option<f64> {
        let wall = ended
            .zip(started)
            .map(|(end, start)| end.duration_since(start).as_secs_f64());
        let field = field.filter(|value| *value >= 0.0);
        if let Some(wall) = wall.and_then(loose::length) {
            if let Some(field) = field.filter(|_| wall >= 1.0) {
                self.vote(field / wall, settings, notices);
            }
            return Some(wall);
        }
        let unit = match settings.run_duration_unit {
            DurationUnit::Seconds => Some(1.0),
            DurationUnit::Milliseconds => Some(0.001),
            DurationUnit::Auto => match self.unit_votes {
                (seconds, 0) if seconds > 0 => Some(1.0),
                (0, milliseconds) if milliseconds > 0 => Some(0.001),
                _ => None,
            },
        };
        loose::length(field? * unit?)
    }

    fn vote(&mut self, ratio: f64, settings: &Settings, notices: &mut Vec<Notice>) {
        let unit = match ratio {
            0.2..5.0 => DurationUnit::Seconds,
            200.0..5000.0 => DurationUnit::Milliseconds,
            _ => return,
        };
        let (votes, word) = match unit {
            DurationUnit::Seconds => (&mut self.unit_votes.0, "seconds"),
            _ => (&mut self.unit_votes.1, "milliseconds"),
        };
        *votes = votes.saturating_add(1);
        if settings.run_duration_unit != DurationUnit::Auto && settings.run_duration_unit != unit {
            notices.push(Notice::Advice(format!(
                "run_duration_unit is not what the runs' own start and end show: `duration` is in {word}; start and end are used"
            )));
        }
    }

    /// Whether a row of the list tells that a run that is known with results has none: it may have been started again.
    pub(super) fn looks_emptied(&self, id: RunId, row: &RunRow) -> bool {
        let sum = |counts: &CaseCounts| counts.iter().flatten().sum::<u64>();
        let told = counts(row);
        let known = self
            .table
            .known
            .get(&id)
            .filter(|known| known.standing == Standing::Read);
        row.state.0.is_none()
            && told.iter().flatten().next().is_some()
            && sum(&told) == 0
            && known.is_some_and(|known| sum(&known.run.counts) > 0)
    }

    /// The ids that nobody has classified in this round.
    pub(super) fn unclassified(&self, classified: &BTreeSet<RunId>) -> Vec<RunId> {
        self.table
            .ids(|id, known| matches!(known.standing, Standing::Open(_)) && !classified.contains(&id))
    }

    /// The runs that are not finished.
    pub(super) fn active(&self) -> Vec<ActiveRun> {
        let state = |known: &Known| match known.standing {
            Standing::Open(state) => state,
            _ => None,
        };
        let active = self
            .table
            .known
            .iter()
            .filter_map(|(id, known)| Some((*id, known, state(known)?)));
        active
            .map(|(id, known, state)| ActiveRun {
                id,
                environment: known.run.group.environment.clone(),
                state,
            })
            .collect()
    }

    /// The newest `count` presumed runs of each group.
    pub(super) fn newest_presumed(&self, count: usize) -> Vec<RunId> {
        let mut seen: BTreeMap<&Group, usize> = BTreeMap::new();
        let mut ids = Vec::new();
        for (id, known) in self
            .table
            .known
            .iter()
            .rev()
            .filter(|(_, known)| known.standing == Standing::Presumed)
        {
            let seen = seen.entry(&known.run.group).or_default();
            if *seen < count {
                *seen += 1;
                ids.push(*id);
            }
        }
        ids
    }

    /// Whether a run whose state nobody knows is to be taken for finished.
    pub(super) fn finished_by_age(run: &Run, now: Timestamp) -> bool {
        run.ended.is_some()
            || run
                .created
                .is_some_and(|created| now.duration_since(created) > UNKNOWN_STATE_MAX)
    }

    /// Forgets finished runs that nothing upstream returns any more.
    pub(super) fn prune(&mut self, now: Timestamp, lookback: SignedDuration) {
        self.table.prune(now, lookback, |run| run.created.or(run.ended));
    }
}

/// What a newer row tells replaces what was known; what it leaves out stays.
fn merge(known: &mut Run, told: Run, row: &RunRow) {
    if !told.group.environment.is_empty() {
        known.group.environment = told.group.environment;
    }
    if row.test_run_branch.0.is_some() {
        known.group.branch = told.group.branch;
    }
    // The list does not tell the state: its counts can only choose between the two outcomes that counts decide.
    if row.state.0.is_some() || matches!(known.outcome, RunOutcome::Passed | RunOutcome::Failed) {
        known.outcome = told.outcome;
        known.error_code = told.error_code;
    }
    known.created = told.created.or(known.created);
    known.started = told.started.or(known.started);
    known.ended = told.ended.or(known.ended);
    // The list tells `duration` without start and end; what start and end have shown stands.
    let wall = known
        .ended
        .zip(known.started)
        .map(|(end, start)| end.duration_since(start).as_secs_f64());
    known.duration_seconds = wall
        .and_then(loose::length)
        .or(told.duration_seconds)
        .or(known.duration_seconds);
    for (known, told) in known.counts.iter_mut().zip(told.counts) {
        *known = told.or(*known);
    }
    known.commit = told.commit.or_else(|| known.commit.take());
    known.build_url = told.build_url.or_else(|| known.build_url.take());
}
