//! Our own words for what the platforms tell us: runs, case results, outcomes, facts.
//! Never a wire format, a metric name, a clock or an I/O type; imports std, the time type and serde only.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A short text that many facts share: an environment's slug, a branch label, a case id.
pub type Name = Arc<str>;

/// A platform's own number of a run. Both platforms number runs upwards as they are created.
pub type RunId = u64;

/// The label that a value gets when it may not keep its own name: branches outside of the configured list.
pub const OTHER: &str = "__other__";

macro_rules! closed_set {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident => $label:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            /// Every member, in the order in which labels are shown.
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];
            /// How many members there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The member's label value.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $($name::$variant => $label,)+ }
            }

            /// The member's place in [`Self::ALL`], for tables of counts.
            #[must_use]
            pub const fn index(self) -> usize { self as usize }
        }
    };
}

closed_set! {
    /// How a finished run ended.
    RunOutcome {
        /// It ended and no case failed.
        Passed => "passed",
        /// It ended and at least one case failed.
        Failed => "failed",
        /// The platform could not run it to its end.
        Error => "error",
        /// Somebody, or a newer run, stopped it.
        Cancelled => "cancelled",
        /// The platform said something that we do not know.
        Unknown => "unknown",
    }
}

closed_set! {
    /// What a run that has not finished is doing.
    ActiveState {
        /// Behind other runs, because of a limit on concurrent ones.
        Pending => "pending",
        /// Waiting to start.
        Queued => "queued",
        /// Executing.
        Started => "started",
        /// Being stopped.
        Cancelling => "cancelling",
    }
}

closed_set! {
    /// How one case went in one run.
    CaseOutcome {
        /// Passed at the first try.
        Passed => "passed",
        /// Failed.
        Failed => "failed",
        /// Failed, then passed on a retry.
        Flaky => "flaky",
        /// Did not run.
        Skipped => "skipped",
        /// Ran without leaving the output that was to be compared (Sample Platform).
        MissingOutput => "missing_output",
        /// The platform said something that we do not know.
        Unknown => "unknown",
    }
}

closed_set! {
    /// Why a run ended in [`RunOutcome::Error`].
    ErrorCode {
        /// The test branch could not be merged.
        MergeConflict => "merge_conflict",
        /// The run could not be handed to the workers.
        DispatchFailed => "dispatch_failed",
        /// No report came out of it.
        ReportNotGenerated => "report_not_generated",
        /// It failed while executing.
        RunFailedWithError => "run_failed_with_error",
        /// A worker was interrupted.
        WorkerInterrupted => "worker_interrupted",
        /// The shards' reports could not be merged.
        MergeReportsFailed => "merge_reports_failed",
        /// The platform did not tell, or told a code that we do not know.
        Unknown => "unknown",
    }
}

closed_set! {
    /// How a round of polling ended: the only words that a failure may become as a label.
    RoundResult {
        /// Everything that the round set out to read was read.
        Success => "success",
        /// No answer: name resolution, connection, TLS, time-out.
        Unreachable => "unreachable",
        /// The platform told us to wait for longer than a round.
        Throttled => "throttled",
        /// 401 or 403, or no usable token.
        Unauthorized => "unauthorized",
        /// Another 4xx, or a redirect.
        Refused => "refused",
        /// 5xx.
        ServerError => "server_error",
        /// An answer that is not what the platform documents, or too large.
        Unreadable => "unreadable",
    }
}

closed_set! {
    /// What speaks against a promotion of what runs in an environment.
    Condition {
        /// What is known is too old, or was read by another process.
        Stale => "stale",
        /// No finished run is known.
        NoRun => "no_run",
        /// The newest run is too old, or nobody knows when it ended.
        RunOverdue => "run_overdue",
        /// The newest run did not pass.
        RunNotPassed => "run_not_passed",
        /// Something that has finished is not read, or cannot be.
        Partial => "partial",
        /// A required case failed last, and nobody has snoozed that.
        CaseFailing => "case_failing",
        /// A required case has not passed lately.
        CaseMissing => "case_missing",
    }
}

closed_set! {
    /// What a case's recent results say about it; the rules are those of `health`.
    Verdict {
        /// It passes, and nothing speaks against it.
        Healthy => "healthy",
        /// It passes and fails without a change that would explain it.
        Flaky => "flaky",
        /// It passed, and now it fails on one commit after the other.
        Regressed => "regressed",
        /// It has not passed in the whole window.
        Broken => "broken",
        /// It has not run lately.
        Quiet => "quiet",
        /// There is too little to tell, or it is too early.
        Unknown => "unknown",
    }
}

impl CaseOutcome {
    /// Whether it lengthens a streak of failures.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::MissingOutput)
    }

    /// Whether it ends a streak of failures and counts as the last pass.
    #[must_use]
    pub const fn is_pass(self) -> bool {
        matches!(self, Self::Passed | Self::Flaky)
    }
}

/// What runs are grouped by: every count and every gauge of runs belongs to one group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Group {
    /// Empirical's environment slug, Sample Platform's platform. Empty where upstream names none.
    pub environment: Name,
    /// The branch's label; empty when the source does not tell branches apart.
    pub branch: Name,
}

/// A run's own counts of its cases, by outcome. `None`: upstream did not say, which is not 0.
pub type CaseCounts = [Option<u64>; CaseOutcome::COUNT];

/// A finished run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its identity within the source.
    pub id: RunId,
    /// Where it belongs.
    pub group: Group,
    /// How it ended.
    pub outcome: RunOutcome,
    /// Why, if it ended in an error.
    pub error_code: Option<ErrorCode>,
    /// When it was created.
    #[serde(with = "crate::packed")]
    pub created: Option<Timestamp>,
    /// When it began to execute.
    #[serde(with = "crate::packed")]
    pub started: Option<Timestamp>,
    /// When it ended.
    #[serde(with = "crate::packed")]
    pub ended: Option<Timestamp>,
    /// Seconds of execution; from start and end where both are known.
    pub duration_seconds: Option<f64>,
    /// Its own counts.
    pub counts: CaseCounts,
    /// The commit under test.
    pub commit: Option<Name>,
    /// A link to what was tested or to the run.
    pub build_url: Option<Name>,
}

impl Run {
    /// What the last run is chosen by: the end, then the id. A run whose end is unknown is placed by its creation.
    #[must_use]
    pub fn order(&self) -> (Timestamp, RunId) {
        (
            self.ended.or(self.started).or(self.created).unwrap_or(Timestamp::MIN),
            self.id,
        )
    }

    /// Seconds from creation to start, if both are known and in order.
    #[must_use]
    pub fn queue_seconds(&self) -> Option<f64> {
        let wait = self.started?.duration_since(self.created?).as_secs_f64();
        (wait >= 0.0).then_some(wait)
    }
}

/// A run that has not finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveRun {
    /// Its identity within the source.
    pub id: RunId,
    /// Where it runs.
    pub environment: Name,
    /// What it is doing.
    pub state: ActiveState,
}

/// One case's result in one finished run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaseResult {
    /// The run that it belongs to.
    pub run: RunId,
    /// The case.
    pub case: Name,
    /// How it went.
    pub outcome: CaseOutcome,
    /// When the case was executed, if upstream tells.
    #[serde(with = "crate::packed")]
    pub executed: Option<Timestamp>,
    /// Seconds, all attempts together.
    pub duration_seconds: Option<f64>,
    /// Attempts beyond the first.
    pub retries: Option<u64>,
    /// What kind of failure it was; equal for equal failures (Sample Platform).
    pub failure_signature: Option<Name>,
}

/// The text of a case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaseInfo {
    /// The case.
    pub case: Name,
    /// Its title (Sample Platform: the sample's name).
    pub name: Name,
    /// Its suite (Sample Platform: the categories).
    pub suite: Name,
    /// Its file (Sample Platform: the command).
    pub file: Name,
    /// Its tags (Sample Platform: the sample's), sorted, with commas between them; only lists of cases tell them. `None`: nobody
    /// has. Not among what is serialized here, so that what was kept before there were tags can be read.
    #[serde(skip)]
    pub tags: Option<Name>,
}

/// Somebody has said that the failures of some cases are known, until a time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Snooze {
    /// The cases that it covers.
    pub cases: Vec<Name>,
    /// Where it holds; `None`: everywhere.
    pub environment: Option<Name>,
    /// When it is over.
    pub until: Timestamp,
}

/// What a source knows to have finished and has not read, or cannot read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unread {
    /// Runs that are still to be read, or results of which are still to come, and where they belong as far as is known.
    pub runs: Vec<(RunId, Group)>,
    /// Something that could belong anywhere: rows that were passed over in this round, more cases than are tracked.
    pub elsewhere: bool,
}

/// One thing that a source has learned. Facts may be repeated and may come in any order.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// The platform's name of the project that the credential belongs to.
    Project(Name),
    /// A run has finished, or is read again after it had.
    Run(Run),
    /// The runs that are not finished, all of them: replaces what was said before.
    Active(Vec<ActiveRun>),
    /// A case's result in a run.
    Result(CaseResult),
    /// The text of a case.
    Case(CaseInfo),
    /// What is not read: replaces what was said before.
    Unread(Unread),
    /// The snoozes, all of them: replaces what was said before. `None`: nobody knows any more.
    Snoozes(Option<Vec<Snooze>>),
    /// How many failures of a run are left when the snoozed ones are taken away. No part of what the run is: it changes when
    /// somebody snoozes a case after the run has ended.
    FailedAfterSnooze {
        /// The run.
        run: RunId,
        /// The failures.
        failed: u64,
    },
    /// The last pass of a case that no known result tells.
    LastPass {
        /// The case.
        case: Name,
        /// Where it passed.
        group: Group,
        /// When.
        at: Timestamp,
    },
}

/// What the poller tells the store about one source, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// Something was learned.
    Facts(Vec<Fact>),
    /// The round is over. Only a success is published.
    RoundEnded {
        /// How it ended.
        result: RoundResult,
        /// When.
        at: Timestamp,
    },
}

/// Something that a person or a counter should hear of while a round goes on; it never ends the round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A value outside of a documented set; read as `unknown`.
    UnknownValue {
        /// The field's name in the reply.
        field: &'static str,
    },
    /// Histories that were cut at the limit.
    HistoryTruncated {
        /// How many cases'.
        cases: u64,
    },
    /// Cases that were passed over because as many as `cases.max` are tracked.
    CasesRefused {
        /// How many, told again each time that they are met.
        cases: u64,
        /// The limit.
        max: usize,
    },
    /// A row that could not be read, or that the server cannot serve; passed over.
    RowSkipped {
        /// The route template.
        endpoint: &'static str,
        /// What was wrong with it, in plain words, without upstream text.
        why: String,
    },
    /// Discovery has found no case: cases are on, but there is nothing to ask about.
    NoCases {
        /// What to do about it, naming the other discovery modes.
        hint: String,
    },
    /// Something else worth a line in the log and on the status page.
    Advice(String),
}
