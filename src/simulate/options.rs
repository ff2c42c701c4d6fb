//! What kind of world it is: how much history, how fast it lives, how badly its platform behaves.

use std::time::Duration;

use jiff::Timestamp;

use crate::model::RunId;
use crate::sources::Kind;

const MINUTE: Duration = Duration::from_secs(60);

/// Everything that decides a world's history. Equal options give equal histories.
#[derive(Debug, Clone)]
pub struct WorldOptions {
    /// Decides every draw.
    pub seed: u64,
    /// The world's present when it begins; history lies before it.
    pub start: Timestamp,
    /// Environment slugs (Empirical) or platforms (Sample Platform).
    pub environments: Vec<String>,
    /// How many cases there are.
    pub cases: usize,
    /// Runs that finished before the start.
    pub runs_before: usize,
    /// How far back they are spread.
    pub history: Duration,
    /// How many runs are created after the start; `None`: without end.
    pub runs_after: Option<usize>,
    /// Mean time between the creations of two runs.
    pub run_interval: Duration,
    /// Mean time of execution.
    pub run_duration: Duration,
    /// Mean time between creation and execution.
    pub queue_wait: Duration,
    /// Branches and how often each is tested.
    pub branches: Vec<(String, u32)>,
    /// Empirical: how long after a run's end the analytics know of it, least and most.
    pub analytics_lag: (Duration, Duration),
    /// How likely a finished run's results are edited later. Never before they were served in full.
    pub late_edits: f64,
    /// Sample Platform: how likely a finished run is started again under the same id. Never before it was served in full.
    pub restarts: f64,
    /// At least so long after the results were served in full, an edit or a restart happens.
    pub edit_grace: Duration,
    /// How likely a run ends in an error.
    pub errors: f64,
    /// How likely an errored run names its error code (Empirical).
    pub error_code_told: f64,
    /// How likely a run is cancelled.
    pub cancels: f64,
    /// How likely a run tests a part of the cases only.
    pub reruns: f64,
    /// How likely each nullable value is null.
    pub nulls: f64,
    /// How likely a status or an error code is one that nobody documented.
    pub unknown_values: f64,
    /// Empirical: list items carry the undocumented `state`.
    pub list_tells_state: bool,
    /// Empirical: the run's `duration` is in seconds, against its documentation.
    pub duration_in_seconds: bool,
    /// Empirical: `success_count` includes the flaky cases.
    pub flaky_in_success: bool,
    /// Empirical: more ids in one history request are answered with `batch_status`.
    pub batch_max: usize,
    /// 413 or 400.
    pub batch_status: u16,
    /// Counts and lengths of time are written as 12.0. The truth is that of 12.
    pub counts_as_floats: bool,
    /// Ids are written as texts. The truth is that of the numbers.
    pub ids_as_text: bool,
    /// How likely a run is told as "paused", a state that nobody documented, for the middle third of its execution. No
    /// filter on a state finds it then. In truth it is started all the while.
    pub undocumented_states: f64,
    /// Empirical: how likely a run's environment slug is null; if it can happen, details carry `environment_id`, as
    /// histories always do. The truth is the slug: a reader must resolve it before it counts the run.
    pub null_environments: f64,
    /// Empirical: cancelled runs tell neither start nor end nor duration. In truth they are counted as cancelled, without
    /// durations, and are never the run that ended last, because nobody told when they ended.
    pub null_cancelled_times: bool,
    /// Empirical: the list ignores its `state` filter. The truth is what the details tell.
    pub ignores_state_filter: bool,
    /// Empirical: details list only the cases that did not pass. The truth is that of the histories, where all are.
    pub details_list_failures_only: bool,
    /// How likely a run is created in the same instant as the one before; Empirical's list shows such runs in the wrong
    /// order. The truth is that of runs in any order.
    pub created_ties: f64,
    /// How likely an entry of a history is told twice in the same answer. In truth it is one result.
    pub history_duplicates: f64,
    /// Sample Platform: how likely a cancelled run that has results becomes passed or failed, and completed later, by a
    /// late row of its worker. Never before it was served in full. In truth it is counted once, as cancelled.
    pub late_verdicts: f64,
    /// Empirical: how likely somebody snoozes failures when a run has finished. If it can happen, runs tell how many failures
    /// are left.
    pub snoozes: f64,
    /// On a socket: bodies are compressed for readers that accept gzip.
    pub gzip: bool,
    /// So long after its creation a finished run is forgotten: no answer tells it any more. Its counts stay in the truth
    /// of a reader that has looked since the world's start; gauges are those of runs that are still told.
    pub keep_for: Duration,
    /// Something to see within two minutes of the start: a case regresses, others flip, and every so often more runs are
    /// created at once than are executed. Empirical's cases have tags, and some of them are or were snoozed.
    pub showcase: bool,
    /// Sample Platform: every page that holds this run answers 500. The truth knows nothing of it.
    pub poisoned: Option<RunId>,
}

impl WorldOptions {
    /// A quiet world: some history, a run every few minutes, no bad behaviour.
    #[must_use]
    pub fn new(kind: Kind, seed: u64, start: Timestamp) -> Self {
        Self {
            seed,
            start,
            environments: environments(kind),
            cases: 20,
            runs_before: 30,
            history: Duration::from_hours(20 * 24),
            runs_after: None,
            run_interval: 5 * MINUTE,
            run_duration: 5 * MINUTE,
            queue_wait: MINUTE,
            branches: branches(kind),
            analytics_lag: (Duration::ZERO, Duration::ZERO),
            late_edits: 0.0,
            restarts: 0.0,
            edit_grace: 5 * MINUTE,
            errors: 0.05,
            error_code_told: 0.8,
            cancels: 0.05,
            reruns: 0.1,
            nulls: 0.0,
            unknown_values: 0.0,
            list_tells_state: false,
            duration_in_seconds: false,
            flaky_in_success: false,
            batch_max: 500,
            batch_status: 413,
            counts_as_floats: false,
            ids_as_text: false,
            undocumented_states: 0.0,
            null_environments: 0.0,
            null_cancelled_times: false,
            ignores_state_filter: false,
            details_list_failures_only: false,
            created_ties: 0.0,
            history_duplicates: 0.0,
            late_verdicts: 0.0,
            snoozes: 0.0,
            gzip: false,
            // The longest lookback of any answer is 90 days.
            keep_for: Duration::from_hours(92 * 24),
            showcase: false,
            poisoned: None,
        }
    }

    /// A lively world for the real clock: runs of seconds, one of them finished with nearly every look, and all that an
    /// exporter is there to show within two minutes. Forgets soon, because a demo may be left running.
    #[must_use]
    pub fn demo(kind: Kind, start: Timestamp) -> Self {
        Self {
            cases: 42,
            runs_before: 120,
            history: Duration::from_hours(36),
            run_interval: Duration::from_secs(6),
            run_duration: Duration::from_secs(20),
            queue_wait: Duration::from_secs(4),
            analytics_lag: (Duration::from_secs(2), Duration::from_secs(8)),
            late_edits: 0.02,
            gzip: true,
            keep_for: Duration::from_hours(48),
            showcase: true,
            ..Self::new(kind, 42, start)
        }
    }

    /// A hard world that ends: 100 runs of history, then 300 runs with all that real platforms do to their readers.
    #[must_use]
    pub fn exam(kind: Kind, seed: u64, start: Timestamp) -> Self {
        Self {
            cases: 200,
            runs_before: 100,
            runs_after: Some(300),
            run_interval: 4 * MINUTE,
            run_duration: 6 * MINUTE,
            queue_wait: 2 * MINUTE,
            analytics_lag: (Duration::from_secs(20), 4 * MINUTE),
            late_edits: 0.05,
            restarts: 0.05,
            errors: 0.08,
            cancels: 0.08,
            reruns: 0.2,
            nulls: 0.1,
            unknown_values: 0.002,
            counts_as_floats: seed % 3 == 1,
            ids_as_text: seed % 3 == 2,
            undocumented_states: 0.1,
            null_environments: 0.05,
            ignores_state_filter: seed % 4 == 3,
            created_ties: 0.1,
            history_duplicates: 0.05,
            late_verdicts: 0.3,
            ..Self::new(kind, seed, start)
        }
    }
}

fn environments(kind: Kind) -> Vec<String> {
    let names: &[&str] = match kind {
        Kind::Empirical => &["production", "staging", "preview"],
        Kind::SamplePlatform => &["linux", "windows"],
    };
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn branches(kind: Kind) -> Vec<(String, u32)> {
    let weighted: &[(&str, u32)] = match kind {
        Kind::Empirical => &[
            ("main", 60),
            ("master", 5),
            ("feature/checkout-v2", 15),
            ("fix/login \"sso\"\\x", 10),
            ("release/24.11", 10),
        ],
        Kind::SamplePlatform => &[
            ("master", 50),
            ("pull_request", 35),
            ("develop", 10),
            ("feature \"quoted\"\\x", 5),
        ],
    };
    weighted
        .iter()
        .map(|(name, weight)| ((*name).to_owned(), *weight))
        .collect()
}
