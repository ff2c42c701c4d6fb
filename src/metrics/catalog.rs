//! Every metric family: its name, type, labels, HELP, and where its value comes from. The one place that spells a name.
//! Never holds a value. METRICS.md is generated from here, and a golden file shows every change of this interface.

use std::fmt::Write as _;

/// A family's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// Only grows, but for a restart.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Text about something; always 1. A gauge in the text format 0.0.4, which has no word for it.
    Info,
    /// Cumulative buckets, a sum and a count.
    Histogram,
    /// A sum and a count; we have no quantiles to tell.
    Summary,
}

impl Type {
    /// The word in a TYPE line of the text format 0.0.4.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge | Self::Info => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
        }
    }
}

/// Which half of an exposition a family is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// Rendered from the snapshot, when that changes.
    Snapshot,
    /// The exporter's own health, rendered for each scrape.
    Own,
}

/// The chapters of METRICS.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chapter {
    /// What the sources are and whether they answer.
    Sources,
    /// Finished and active runs.
    Runs,
    /// The run that ended last.
    LastRun,
    /// Single cases.
    Cases,
    /// Whether what runs somewhere may be promoted.
    Gate,
    /// The exporter itself.
    Exporter,
    /// The operating system's view of the process.
    Process,
}

impl Chapter {
    /// In the order of the document.
    const ALL: [Self; 7] = [
        Self::Sources,
        Self::Runs,
        Self::LastRun,
        Self::Cases,
        Self::Gate,
        Self::Exporter,
        Self::Process,
    ];

    const fn title(self) -> &'static str {
        match self {
            Self::Sources => "Sources",
            Self::Runs => "Runs",
            Self::LastRun => "The last run",
            Self::Cases => "Cases",
            Self::Gate => "The gate",
            Self::Exporter => "The exporter itself",
            Self::Process => "The process",
        }
    }
}

/// Where an upstream family's value comes from, in the platforms' own words. `None`: that platform does not tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Fields of Empirical's replies.
    pub empirical: Option<&'static str>,
    /// Fields of Sample Platform's replies.
    pub sample_platform: Option<&'static str>,
}

/// One metric family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Type,
    /// Its labels, in the order in which they are written; `le` is not among them.
    pub labels: &'static [&'static str],
    /// Its HELP text: one line, without anything that needs escaping.
    pub help: &'static str,
    /// The unit of its value; empty for plain numbers.
    pub unit: &'static str,
    /// Which half of the exposition it is in.
    pub half: Half,
    /// Where METRICS.md tells of it.
    pub chapter: Chapter,
    /// The fields that it is made of; `None` for our own health.
    pub origin: Option<Origin>,
    /// A sample, or a query that shows what it is for.
    pub example: &'static str,
}

/// Ends the HELP of every family whose values are a platform's: they are older than the scrape.
macro_rules! as_of_last_round {
    ($text:literal) => {
        concat!(
            $text,
            " As of the last complete round, whose age is time() - testrun_exporter_last_success_timestamp_seconds."
        )
    };
}

/// The table: each entry becomes a constant, and all of them together become [`FAMILIES`], in the order written.
macro_rules! families {
    (@half upstream) => { Half::Snapshot };
    (@half kept) => { Half::Snapshot };
    (@half own) => { Half::Own };
    (@help upstream $text:literal) => { as_of_last_round!($text) };
    (@help kept $text:literal) => { $text };
    (@help own $text:literal) => { $text };
    (@origin) => { None };
    (@origin $empirical:expr, $sample_platform:expr) => {
        Some(Origin { empirical: $empirical, sample_platform: $sample_platform })
    };
    ($(
        $id:ident: $chapter:ident, $half:ident, $kind:ident $name:literal [$($label:literal),*] $unit:literal
            $help:literal
            from ($($origin:expr),*)
            eg $example:literal;
    )+) => {
        $(
            #[doc = concat!("`", $name, "`")]
            pub const $id: Family = Family {
                name: $name,
                kind: Type::$kind,
                labels: &[$($label),*],
                help: families!(@help $half $help),
                unit: $unit,
                half: families!(@half $half),
                chapter: Chapter::$chapter,
                origin: families!(@origin $($origin),*),
                example: $example,
            };
        )+

        /// Every family, in the order in which they are documented and rendered.
        pub const FAMILIES: &[Family] = &[$($id),+];
    };
}

families! {
    SOURCE_INFO: Sources, own, Info "testrun_source_info" ["source", "kind", "project", "base_url"] ""
        "What a source is; always 1. The project is absent until the platform has told its name."
        from ()
        eg "testrun_up * on (source) group_left (kind, project) testrun_source_info";
    UP: Sources, own, Gauge "testrun_up" ["source"] ""
        "1 if the last round of polling succeeded, or had to wait for the platform's rate limit, and the last success is younger than stale_after; else 0."
        from ()
        eg "testrun_up == 0";

    RUNS_TOTAL: Runs, upstream, Counter "testrun_runs_total" ["source", "environment", "branch", "outcome"] ""
        "Runs that have finished since the source was first met, by outcome."
        from (Some("`state`, `failed_count`"), Some("`status`"))
        eg "increase(testrun_runs_total{outcome=\"failed\"}[1d])";
    RUNS_ACTIVE: Runs, upstream, Gauge "testrun_runs_active" ["source", "environment", "state"] ""
        "Runs that have not finished, by what they are doing."
        from (Some("`state`"), Some("`status`: queued, running"))
        eg "testrun_runs_active{state=\"queued\"} > 10";
    RUN_ERRORS_TOTAL: Runs, upstream, Counter "testrun_run_errors_total" ["source", "environment", "error_code"] ""
        "Finished runs that the platform could not run to their end, by its error code; unknown if it told none."
        from (Some("`error_code`, where it is sent"), Some("`status`: error"))
        eg "increase(testrun_run_errors_total{error_code=\"worker_interrupted\"}[1h]) > 0";
    RUN_DURATION_SECONDS: Runs, upstream, Histogram "testrun_run_duration_seconds" ["source", "environment", "branch"] "seconds"
        "Seconds from the start to the end of finished runs."
        from (Some("`run_started_at`, `run_ended_at`; else `duration`"), Some("`started_at`, `completed_at`"))
        eg "histogram_quantile(0.9, sum by (le) (rate(testrun_run_duration_seconds_bucket[1d])))";
    RUN_QUEUE_DURATION_SECONDS: Runs, upstream, Histogram "testrun_run_queue_duration_seconds" ["source", "environment", "branch"] "seconds"
        "Seconds from the creation to the start of finished runs."
        from (Some("`created_at`, `run_started_at`"), Some("`created_at`, `started_at`"))
        eg "rate(testrun_run_queue_duration_seconds_sum[1h]) / rate(testrun_run_queue_duration_seconds_count[1h])";
    RUN_CASES_TOTAL: Runs, upstream, Counter "testrun_run_cases_total" ["source", "environment", "branch", "outcome"] ""
        "Case results summed over finished runs, from the runs' own counts."
        from (Some("`success_count`, `failed_count`, `flaky_count`, `skipped_count`"), Some("results of the run, by `status`"))
        eg "rate(testrun_run_cases_total{outcome=\"flaky\"}[1d])";

    LAST_RUN_OUTCOME: LastRun, upstream, Gauge "testrun_last_run_outcome" ["source", "environment", "branch", "outcome"] ""
        "1 for the outcome of the run that ended last, 0 for every other outcome."
        from (Some("`state`, `failed_count`"), Some("`status`"))
        eg "testrun_last_run_outcome{outcome=\"passed\"} == 0";
    LAST_RUN_TIMESTAMP_SECONDS: LastRun, upstream, Gauge "testrun_last_run_timestamp_seconds" ["source", "environment", "branch"] "seconds since 1970"
        "When the run that ended last ended, in seconds since 1970. Absent if the platform does not tell."
        from (Some("`run_ended_at`"), Some("`completed_at`"))
        eg "time() - testrun_last_run_timestamp_seconds > 86400";
    LAST_RUN_DURATION_SECONDS: LastRun, upstream, Gauge "testrun_last_run_duration_seconds" ["source", "environment", "branch"] "seconds"
        "Seconds from the start to the end of the run that ended last. Absent if the platform does not tell."
        from (Some("`run_started_at`, `run_ended_at`; else `duration`"), Some("`started_at`, `completed_at`"))
        eg "testrun_last_run_duration_seconds > 3600";
    LAST_RUN_CASES: LastRun, upstream, Gauge "testrun_last_run_cases" ["source", "environment", "branch", "outcome"] ""
        "Cases of the run that ended last, by outcome, from its own counts. Absent where the platform does not tell."
        from (Some("`success_count`, `failed_count`, `flaky_count`, `skipped_count`"), Some("results of the run, by `status`"))
        eg "testrun_last_run_cases{outcome=\"failed\"}";
    LAST_RUN_CASES_FAILED_AFTER_SNOOZE: LastRun, upstream, Gauge "testrun_last_run_cases_failed_after_snooze" ["source", "environment", "branch"] ""
        "Cases that failed in the run that ended last and are not snoozed, from its own count. Absent where the platform does not tell."
        from (Some("`failed_count_after_snoozing`, where it is sent"), None)
        eg "testrun_last_run_cases_failed_after_snooze > 0";
    LAST_RUN_INFO: LastRun, upstream, Info "testrun_last_run_info" ["source", "environment", "branch", "run_id", "commit", "build_url"] ""
        "The run that ended last; always 1. Replaced by the next one, and the only place of its labels."
        from (Some("`id`, `commit`, `build_url`"), Some("`run_id`, `commit_sha`, `github_link`"))
        eg "testrun_last_run_outcome{outcome=\"failed\"} * on (source, environment, branch) group_left (run_id, commit) testrun_last_run_info == 1";

    CASES: Cases, upstream, Gauge "testrun_cases" ["source", "environment", "outcome", "verdict"] ""
        "Cases by their current outcome and their verdict, in whatever branch they ran last. Complete, even if the series budget leaves cases out."
        from (Some("`status` of the case's history"), Some("`status` of the run's results"))
        eg "sum by (outcome) (testrun_cases)";
    SNOOZES_ACTIVE: Cases, upstream, Gauge "testrun_snoozes_active" ["source", "environment"] ""
        "Snoozes that are not over, by the environment that they are for; those that hold everywhere have no environment. Absent unless snoozes are read."
        from (Some("`snooze_until`, `scoped_to_environment_id` of the snoozes"), None)
        eg "sum by (source) (testrun_snoozes_active)";
    SNOOZED_CASES: Cases, upstream, Gauge "testrun_snoozed_cases" ["source", "environment"] ""
        "Cases of an environment that are snoozed there or everywhere. Absent unless snoozes are read."
        from (Some("`test_ids` of the snoozes"), None)
        eg "testrun_snoozed_cases > 20";
    SNOOZE_NEXT_EXPIRY_TIMESTAMP_SECONDS: Cases, upstream, Gauge "testrun_snooze_next_expiry_timestamp_seconds" ["source", "environment"] "seconds since 1970"
        "When the next snooze that holds in an environment is over, in seconds since 1970; without environment: of those that hold everywhere. Absent if there is none."
        from (Some("`snooze_until` of the snoozes"), None)
        eg "testrun_snooze_next_expiry_timestamp_seconds - time() < 86400";
    CASE_INFO: Cases, upstream, Info "testrun_case_info" ["source", "case", "name", "suite", "file", "tags"] ""
        "The text of a case; always 1. Tags are sorted, with commas between them, and known where cases are discovered from a list."
        from (Some("the case's id, name, suite and file; `tags` of the analytics and the registry"), Some("`regression_test_id`, `command`, `categories`, `sample_name`; `tags` of the samples"))
        eg "testrun_case_consecutive_failures * on (job, instance, source, case) group_left (name, file) testrun_case_info";
    CASE_RESULTS_TOTAL: Cases, upstream, Counter "testrun_case_results_total" ["source", "environment", "branch", "case", "outcome"] ""
        "Results of a case in finished runs since the source was first met, by outcome. Above the series budget those of cases without series of their own are counted under case=\"__other__\"."
        from (Some("`status`: pass, fail, flaky, skip"), Some("`status`: pass, fail, missing_output"))
        eg "topk(10, increase(testrun_case_results_total{outcome=\"flaky\"}[7d]))";
    CASE_RETRIES_TOTAL: Cases, upstream, Counter "testrun_case_retries_total" ["source", "environment", "branch", "case"] ""
        "Attempts of a case beyond the first."
        from (Some("`retries`"), None)
        eg "increase(testrun_case_retries_total[1d]) > 5";
    CASE_DURATION_SECONDS: Cases, upstream, Summary "testrun_case_duration_seconds" ["source", "environment", "branch", "case"] "seconds"
        "Seconds that a case took, all attempts together: their sum, and the count of results that told one."
        from (Some("`duration_total`"), Some("`runtime_ms`"))
        eg "rate(testrun_case_duration_seconds_sum[1d]) / rate(testrun_case_duration_seconds_count[1d])";
    CASE_LAST_OUTCOME: Cases, upstream, Gauge "testrun_case_last_outcome" ["source", "environment", "branch", "case", "outcome"] ""
        "The outcome of a case in the run that ended last; always 1. Only the current outcome is present."
        from (Some("`status`"), Some("`status`"))
        eg "testrun_case_last_outcome{outcome=~\"failed|missing_output\"}";
    CASE_LAST_RUN_TIMESTAMP_SECONDS: Cases, upstream, Gauge "testrun_case_last_run_timestamp_seconds" ["source", "environment", "branch", "case"] "seconds since 1970"
        "When a case was last executed, in seconds since 1970; when its run ended, if the platform does not tell."
        from (Some("`executed_at`"), Some("`completed_at` of the run"))
        eg "time() - testrun_case_last_run_timestamp_seconds > 7 * 86400";
    CASE_LAST_PASS_TIMESTAMP_SECONDS: Cases, upstream, Gauge "testrun_case_last_pass_timestamp_seconds" ["source", "environment", "branch", "case"] "seconds since 1970"
        "When a case last passed, be it on a retry, in seconds since 1970. Absent if no pass is known."
        from (Some("`executed_at` of the history and of the last pass"), Some("`completed_at` of the run"))
        eg "time() - testrun_case_last_pass_timestamp_seconds > 3 * 86400";
    CASE_LAST_DURATION_SECONDS: Cases, upstream, Gauge "testrun_case_last_duration_seconds" ["source", "environment", "branch", "case"] "seconds"
        "Seconds that a case took in the run that ended last. Absent if the platform does not tell."
        from (Some("`duration_total`"), Some("`runtime_ms`"))
        eg "topk(10, testrun_case_last_duration_seconds)";
    CASE_CONSECUTIVE_FAILURES: Cases, upstream, Gauge "testrun_case_consecutive_failures" ["source", "environment", "branch", "case"] ""
        "Failures of a case since its last pass; skipped and unknown results are passed over. Absent if no result is known."
        from (Some("`status`"), Some("`status`"))
        eg "testrun_case_consecutive_failures >= 3";
    CASE_SNOOZED: Cases, upstream, Gauge "testrun_case_snoozed" ["source", "environment", "branch", "case"] ""
        "1 if somebody has snoozed a case in the environment or everywhere: its failures are known. Absent if not."
        from (Some("`test_ids`, `scoped_to_environment_id`, `snooze_until` of the snoozes"), None)
        eg "testrun_case_consecutive_failures >= 3 unless on (job, instance, source, environment, branch, case) testrun_case_snoozed";
    CASE_FAILING_SINCE_TIMESTAMP_SECONDS: Cases, upstream, Gauge "testrun_case_failing_since_timestamp_seconds" ["source", "environment", "branch", "case"] "seconds since 1970"
        "When the run ended that a case failed in first since its last pass, in seconds since 1970. Present only while the case fails."
        from (Some("`status`, `run_ended_at`"), Some("`status`, `completed_at` of the run"))
        eg "time() - testrun_case_failing_since_timestamp_seconds > 86400";
    CASE_VERDICT: Cases, upstream, Gauge "testrun_case_verdict" ["source", "environment", "branch", "case", "verdict"] ""
        "What the newest results of a case say: healthy, flaky, regressed, broken, quiet or unknown; always 1. Only the current verdict is present. docs/health.md has the rules."
        from (Some("`status`, `retries`; `commit` of the run"), Some("`status`, `failure_signature`; `commit_sha` of the run"))
        eg "testrun_case_verdict{verdict=\"regressed\"}";
    CASE_FLAKE_PROBABILITY: Cases, upstream, Gauge "testrun_case_flake_probability" ["source", "environment", "branch", "case"] ""
        "How likely the next result of a case is failed or flaky while what it tests works: 0 to 1. Absent while there are too few results."
        from (Some("`status`, `retries`; `commit` of the run"), Some("`status`, `failure_signature`; `commit_sha` of the run"))
        eg "topk(10, testrun_case_flake_probability)";
    CASE_REGRESSION_PROBABILITY: Cases, upstream, Gauge "testrun_case_regression_probability" ["source", "environment", "branch", "case"] ""
        "How likely the present failure of a case is a real one and no flake: 0 to 1. Present only while the case fails."
        from (Some("`status`, `retries`; `commit` of the run"), Some("`status`, `failure_signature`; `commit_sha` of the run"))
        eg "testrun_case_regression_probability > 0.9";
    CASE_STREAK_COMMITS: Cases, upstream, Gauge "testrun_case_streak_commits" ["source", "environment", "branch", "case"] ""
        "Known commits that a case has failed on since its last pass, without those that it has passed on as well. Present only while the case fails."
        from (Some("`commit` of the run"), Some("`commit_sha` of the run"))
        eg "testrun_case_streak_commits >= 2";
    CASE_STREAK_SIGNATURES: Cases, upstream, Gauge "testrun_case_streak_signatures" ["source", "environment", "branch", "case"] ""
        "Different kinds of failure of a case since its last pass. Present only while the case fails, and only if the platform has told one."
        from (None, Some("`failure_signature`"))
        eg "testrun_case_streak_signatures > 1";
    CASE_WINDOW_RESULTS: Cases, upstream, Gauge "testrun_case_window_results" ["source", "environment", "branch", "case", "outcome", "window"] ""
        "How many of the newest results of a case, at most as many as the label window says, went how. Outcomes that there are none of are absent."
        from (Some("`status`"), Some("`status`"))
        eg "sum without (outcome) (testrun_case_window_results{outcome=~\"failed|flaky\"})";
    CASE_WINDOW_RETRIES: Cases, upstream, Gauge "testrun_case_window_retries" ["source", "environment", "branch", "case"] ""
        "Attempts beyond the first in the newest results of a case. Absent if there are none."
        from (Some("`retries`"), None)
        eg "topk(10, testrun_case_window_retries)";
    CASE_FLIPS: Cases, upstream, Gauge "testrun_case_flips" ["source", "environment", "branch", "case"] ""
        "Changes between passing and failing in the newest results of a case. Absent if there are none."
        from (Some("`status`"), Some("`status`"))
        eg "testrun_case_flips >= 4";
    CASE_CONTRADICTORY_COMMITS: Cases, upstream, Gauge "testrun_case_contradictory_commits" ["source", "environment", "branch", "case"] ""
        "Commits on which a case has passed and failed, among its newest results. Absent if there are none."
        from (Some("`status`; `commit` of the run"), Some("`status`; `commit_sha` of the run"))
        eg "testrun_case_contradictory_commits";

    ENVIRONMENT_BLOCKED: Gate, own, Gauge "testrun_environment_blocked" ["source", "environment", "condition"] ""
        "1 if a condition speaks against a promotion of what runs in the environment, else 0. Reckoned anew for each scrape. Absent without gate.enabled."
        from ()
        eg "testrun_environment_blocked{environment=\"staging\"} == 1";
    ENVIRONMENT_PROMOTABLE: Gate, own, Gauge "testrun_environment_promotable" ["source", "environment"] ""
        "1 if no condition speaks against a promotion of what runs in the environment, else 0: never 1 on stale, partial or failing data. Reckoned anew for each scrape. Absent without gate.enabled."
        from ()
        eg "testrun_environment_promotable{environment=\"staging\"} == 1";

    BUILD_INFO: Exporter, own, Info "testrun_exporter_build_info" ["version", "revision", "rustc_version"] ""
        "What this exporter was built from; always 1."
        from ()
        eg "count by (version) (testrun_exporter_build_info)";
    ROUNDS_TOTAL: Exporter, own, Counter "testrun_exporter_rounds_total" ["source", "result"] ""
        "Rounds of polling that have ended, by how."
        from ()
        eg "increase(testrun_exporter_rounds_total{result!=\"success\"}[1h])";
    ROUND_DURATION_SECONDS: Exporter, own, Histogram "testrun_exporter_round_duration_seconds" ["source"] "seconds"
        "Seconds from the start to the end of a round of polling, waits for the rate limit included."
        from ()
        eg "rate(testrun_exporter_round_duration_seconds_sum[1h]) / rate(testrun_exporter_round_duration_seconds_count[1h])";
    LAST_SUCCESS_TIMESTAMP_SECONDS: Exporter, own, Gauge "testrun_exporter_last_success_timestamp_seconds" ["source"] "seconds since 1970"
        "When the last complete round ended, in seconds since 1970: the age of all of a source's data. Absent until one has."
        from ()
        eg "time() - testrun_exporter_last_success_timestamp_seconds > 3 * testrun_exporter_poll_interval_seconds";
    LAST_ATTEMPT_TIMESTAMP_SECONDS: Exporter, own, Gauge "testrun_exporter_last_attempt_timestamp_seconds" ["source"] "seconds since 1970"
        "When the last round began, in seconds since 1970. Absent until one has."
        from ()
        eg "time() - testrun_exporter_last_attempt_timestamp_seconds";
    POLL_INTERVAL_SECONDS: Exporter, own, Gauge "testrun_exporter_poll_interval_seconds" ["source"] "seconds"
        "The configured seconds from the start of one round to the start of the next, so that alerts need no constant."
        from ()
        eg "testrun_exporter_poll_interval_seconds{source=\"shop\"}";
    REQUESTS_TOTAL: Exporter, own, Counter "testrun_exporter_requests_total" ["source", "endpoint", "code"] ""
        "Requests sent to a platform, retries included, by route template and by HTTP status or kind of failure."
        from ()
        eg "sum by (source) (rate(testrun_exporter_requests_total[5m])) * 60";
    REQUEST_DURATION_SECONDS: Exporter, own, Histogram "testrun_exporter_request_duration_seconds" ["source", "endpoint"] "seconds"
        "Seconds from sending a request to the end of its answer, by route template."
        from ()
        eg "histogram_quantile(0.9, sum by (le, endpoint) (rate(testrun_exporter_request_duration_seconds_bucket[1h])))";
    RETRIES_TOTAL: Exporter, own, Counter "testrun_exporter_retries_total" ["source", "reason"] ""
        "Requests that were sent again, by why."
        from ()
        eg "rate(testrun_exporter_retries_total[1h])";
    THROTTLED_TOTAL: Exporter, own, Counter "testrun_exporter_throttled_total" ["source", "reason"] ""
        "Times that a request had to wait, by whose word: our own budget, the platform's Retry-After, or its used-up quota."
        from ()
        eg "increase(testrun_exporter_throttled_total{reason!=\"budget\"}[1h]) > 0";
    THROTTLE_SECONDS_TOTAL: Exporter, own, Counter "testrun_exporter_throttle_seconds_total" ["source"] "seconds"
        "Seconds that requests had to wait."
        from ()
        eg "rate(testrun_exporter_throttle_seconds_total[1h])";
    RATE_LIMIT_LIMIT: Exporter, own, Gauge "testrun_exporter_rate_limit_limit" ["source"] ""
        "Requests that the platform allows in its window. Absent until a reply has told."
        from ()
        eg "testrun_exporter_rate_limit_limit{source=\"ccextractor\"}";
    RATE_LIMIT_REMAINING: Exporter, own, Gauge "testrun_exporter_rate_limit_remaining" ["source"] ""
        "Requests that the platform said are left in its window. Absent until a reply has told."
        from ()
        eg "testrun_exporter_rate_limit_remaining / testrun_exporter_rate_limit_limit < 0.1";
    RATE_LIMIT_RESET_TIMESTAMP_SECONDS: Exporter, own, Gauge "testrun_exporter_rate_limit_reset_timestamp_seconds" ["source"] "seconds since 1970"
        "When the platform said that its window starts anew, in seconds since 1970. Absent until a reply has told."
        from ()
        eg "testrun_exporter_rate_limit_reset_timestamp_seconds - time()";
    CASES_TRACKED: Exporter, own, Gauge "testrun_exporter_cases_tracked" ["source"] ""
        "Cases that are asked about."
        from ()
        eg "testrun_exporter_cases_tracked{source=\"shop\"}";
    OLDEST_CASE_REFRESH_TIMESTAMP_SECONDS: Exporter, own, Gauge "testrun_exporter_oldest_case_refresh_timestamp_seconds" ["source"] "seconds since 1970"
        "When the case that has waited longest was last brought up to date, in seconds since 1970. Absent if none was."
        from ()
        eg "time() - testrun_exporter_oldest_case_refresh_timestamp_seconds";
    UNKNOWN_VALUES_TOTAL: Exporter, own, Counter "testrun_exporter_unknown_values_total" ["source", "field"] ""
        "Values outside of a field's documented set, shown as unknown."
        from ()
        eg "increase(testrun_exporter_unknown_values_total[1d]) > 0";
    HISTORY_TRUNCATED_TOTAL: Exporter, own, Counter "testrun_exporter_history_truncated_total" ["source"] ""
        "Histories of cases that the platform cut at its limit, so that results may be missing."
        from ()
        eg "increase(testrun_exporter_history_truncated_total[1d]) > 0";
    CASES_REFUSED_TOTAL: Exporter, own, Counter "testrun_exporter_cases_refused_total" ["source"] ""
        "Times that a case was met and not tracked, because there are as many as cases.max: of such a case nothing is known."
        from ()
        eg "increase(testrun_exporter_cases_refused_total[1d]) > 0";
    LATE_EDITS_TOTAL: Exporter, own, Counter "testrun_exporter_late_edits_total" ["source"] ""
        "Runs and results that the platform has changed after they were counted. Gauges follow, counters do not."
        from ()
        eg "increase(testrun_exporter_late_edits_total[1d]) > 0";
    ROWS_SKIPPED_TOTAL: Exporter, own, Counter "testrun_exporter_rows_skipped_total" ["source", "endpoint"] ""
        "Rows of a platform's answer that could not be read and were passed over, by route template."
        from ()
        eg "increase(testrun_exporter_rows_skipped_total[1d]) > 0";
    CONFIG_LAST_RELOAD_SUCCESSFUL: Exporter, own, Gauge "testrun_exporter_config_last_reload_successful" [] ""
        "1 if the configuration was last read without an error, 0 if the one before is still in use."
        from ()
        eg "testrun_exporter_config_last_reload_successful == 0";
    CONFIG_LAST_RELOAD_SUCCESS_TIMESTAMP_SECONDS: Exporter, own, Gauge "testrun_exporter_config_last_reload_success_timestamp_seconds" [] "seconds since 1970"
        "When the configuration was last read without an error, in seconds since 1970."
        from ()
        eg "time() - testrun_exporter_config_last_reload_success_timestamp_seconds";
    WEB_CONFIG_LAST_RELOAD_SUCCESSFUL: Exporter, own, Gauge "testrun_exporter_web_config_last_reload_successful" [] ""
        "1 if the web configuration (TLS, passwords) was last read without an error, 0 if the one before is still in use. Absent without one."
        from ()
        eg "testrun_exporter_web_config_last_reload_successful == 0";
    WEB_CONFIG_LAST_RELOAD_SUCCESS_TIMESTAMP_SECONDS: Exporter, own, Gauge "testrun_exporter_web_config_last_reload_success_timestamp_seconds" [] "seconds since 1970"
        "When the web configuration, or a certificate that it names, was last found changed and read without an error, in seconds since 1970."
        from ()
        eg "time() - testrun_exporter_web_config_last_reload_success_timestamp_seconds";
    LEDGER_WRITES_TOTAL: Exporter, own, Counter "testrun_exporter_ledger_writes_total" [] ""
        "Writes of a source's ledger that are safe on the disk. Absent, like all ledger families, without state.directory."
        from ()
        eg "rate(testrun_exporter_ledger_writes_total[5m])";
    LEDGER_WRITE_FAILURES_TOTAL: Exporter, own, Counter "testrun_exporter_ledger_write_failures_total" [] ""
        "Writes of a source's ledger that failed, retries included."
        from ()
        eg "increase(testrun_exporter_ledger_write_failures_total[15m]) > 0";
    LEDGER_WRITE_DURATION_SECONDS: Exporter, own, Histogram "testrun_exporter_ledger_write_duration_seconds" [] "seconds"
        "How long a write took that succeeded, flushes included, in seconds."
        from ()
        eg "histogram_quantile(0.99, rate(testrun_exporter_ledger_write_duration_seconds_bucket[1h]))";
    LEDGER_HEALTHY: Exporter, own, Gauge "testrun_exporter_ledger_healthy" [] ""
        "1 if everything that is known is on the disk. 0: the disk cannot be written; gauges go on, counters stand still and catch up when it can."
        from ()
        eg "testrun_exporter_ledger_healthy == 0";
    LEDGER_SIZE_BYTES: Exporter, own, Gauge "testrun_exporter_ledger_size_bytes" ["source"] "bytes"
        "Size of a source's ledger when it was last written."
        from ()
        eg "sum(testrun_exporter_ledger_size_bytes)";
    LEDGER_LAST_WRITE_TIMESTAMP_SECONDS: Exporter, own, Gauge "testrun_exporter_ledger_last_write_timestamp_seconds" ["source"] "seconds since 1970"
        "When a source's ledger was last written, in seconds since 1970. Absent until this process has written it."
        from ()
        eg "time() - testrun_exporter_ledger_last_write_timestamp_seconds";
    LEDGER_RESTORED: Exporter, own, Gauge "testrun_exporter_ledger_restored" ["source"] ""
        "1 if the source's counters go on where a former process left them, 0 if this process began with a new baseline."
        from ()
        eg "testrun_exporter_ledger_restored == 0";
    LEDGER_SET_ASIDE_TOTAL: Exporter, own, Counter "testrun_exporter_ledger_set_aside_total" ["source", "reason"] ""
        "Ledgers that could not be read and were set aside, by reason: foreign, damaged, newer, other_source. What was finished then is a new baseline."
        from ()
        eg "testrun_exporter_ledger_set_aside_total > 0";
    LOST_SECONDS_TOTAL: Exporter, own, Counter "testrun_exporter_lost_seconds_total" ["source"] "seconds"
        "Seconds that fell out of the lookback before a round could read them, because the process or the platform was away: runs that finished in them are not counted."
        from ()
        eg "increase(testrun_exporter_lost_seconds_total[1d]) > 0";
    SERIES_FOLDED: Exporter, kept, Gauge "testrun_exporter_series_folded" ["source"] ""
        "Cases (in an environment and a branch) without series of their own, because the series budget has no room. Their results are counted under case=\"__other__\"."
        from ()
        eg "testrun_exporter_series_folded > 0";
    SERIES: Exporter, kept, Gauge "testrun_exporter_series" ["family"] ""
        "Series shown of a family of upstream data, buckets counted one by one."
        from ()
        eg "sum(testrun_exporter_series)";

    PROCESS_CPU_SECONDS_TOTAL: Process, own, Counter "process_cpu_seconds_total" [] "seconds"
        "Total user and system CPU time spent in seconds."
        from ()
        eg "rate(process_cpu_seconds_total[5m])";
    PROCESS_MAX_FDS: Process, own, Gauge "process_max_fds" [] ""
        "Maximum number of open file descriptors. Absent if unlimited."
        from ()
        eg "process_open_fds / process_max_fds > 0.8";
    PROCESS_OPEN_FDS: Process, own, Gauge "process_open_fds" [] ""
        "Number of open file descriptors."
        from ()
        eg "process_open_fds";
    PROCESS_RESIDENT_MEMORY_BYTES: Process, own, Gauge "process_resident_memory_bytes" [] "bytes"
        "Resident memory size in bytes."
        from ()
        eg "process_resident_memory_bytes";
    PROCESS_START_TIME_SECONDS: Process, own, Gauge "process_start_time_seconds" [] "seconds since 1970"
        "Start time of the process since unix epoch in seconds."
        from ()
        eg "time() - process_start_time_seconds";
    PROCESS_THREADS: Process, own, Gauge "process_threads" [] ""
        "Number of OS threads in the process."
        from ()
        eg "process_threads";
    PROCESS_VIRTUAL_MEMORY_BYTES: Process, own, Gauge "process_virtual_memory_bytes" [] "bytes"
        "Virtual memory size in bytes."
        from ()
        eg "process_virtual_memory_bytes";
}

const INTRODUCTION: &str = "\
# Metrics

Generated from `src/metrics/catalog.rs` by `cargo run --example metrics_md > METRICS.md`; a test compares the two.
Names, types, labels and HELP texts are an interface.

## How to read them

**A scrape shows what the last complete round of polling has found.** It never asks a platform. The age of a source's
data is `time() - testrun_exporter_last_success_timestamp_seconds`. A round that fails changes nothing but
`testrun_up` and the counters of the exporter itself. Without a complete round for `stale_after`, a source's own series
are withdrawn. No sample carries a timestamp; when things happened upstream is in the `_timestamp_seconds` gauges, and
ages are the query's business.

**Counters start at 0.** What a platform already holds when a source is first met is the baseline: remembered, not
counted. Every outcome of a known group is there at 0 before it first moves, and a new group is shown at 0 before its
first events are counted, so that `increase()` does not lose them. With `state.directory` counters go on after a restart;
without it a restart is a counter reset like any other. A run is counted once, when it is first seen finished, and a
result once, when its run is finished; what a platform changes afterwards moves gauges, never counters.

**A gauge that a platform does not tell is absent**, never 0 and never -1; a counter that it never moves stays at 0. A
label without a value is left out. The Sample Platform lists no skipped results of a run: with `discovery: runs`,
the outcome `skipped` of `testrun_run_cases_total` stays at 0 and that of `testrun_last_run_cases` is absent.

**Text is made safe.** Control characters are taken out of label values, and values are cut at 256 characters. Where the
value is an identity (`environment`, `branch`, `case`), `~` and a checksum of the whole follow a value that was changed,
so that two of them never become one.

**Two formats.** The text format 0.0.4, and OpenMetrics 1.0 for who asks for it (Prometheus does). Names and values of series
are the same in both, so that a query need not know (but `testrun_exporter_series` counts what its format shows, `_created`
among it). What differs is beside them: OpenMetrics tells a counter's TYPE and HELP
under its name without `_total`, calls `_info` metrics info and not gauges, tells units, and writes bounds of buckets like
`le=\"60.0\"`, which Prometheus 3 makes of `le=\"60\"` too. It alone has exemplars: a counter by outcome and a bucket of
`testrun_run_duration_seconds` and `testrun_run_queue_duration_seconds` name the run that moved them last (`run_id`, and
`build_url` where it fits into the 128 characters that the format allows), with the time that it ended. When a
platform's counter began (`_created`) is told in OpenMetrics if `web.created_timestamps` says so; without that counters are
still shown at 0 before they move, which is what most want it for. One-hot gauges are gauges in both, because a state set would have to name its label like itself.

## Labels

| label | value |
|---|---|
| `source` | the source's name in the configuration |
| `environment` | Empirical: the environment's slug. Sample Platform: the platform, `linux` or `windows`. Left out where the platform names none |
| `branch` | a branch that the source's `branches` lists by name or expression; `__other__` for every other one. Left out if `branches` is empty |
| `case` | Empirical: the test case's id. Sample Platform: the regression test's id. `__other__`: those that the series budget has no room for, together |
| `tags` of a case | where its list of cases tells them (Empirical: `discovery: analytics` and `registry`; Sample Platform: those of the sample, `samples`): sorted, with commas between them. Left out if there are none |
| `outcome` of a run | RUN_OUTCOMES |
| `outcome` of a case | CASE_OUTCOMES |
| `verdict` | VERDICTS; [docs/health.md](docs/health.md) has the rules |
| `window` | `health.window` of the source: how many of a case's newest results are counted at the most |
| `state` | ACTIVE_STATES; only those that the platform has |
| `error_code` | ERROR_CODES; only those that the platform has |
| `condition` of the gate | CONDITIONS |
| `result` of a round | ROUND_RESULTS |
| `endpoint` | the route template, never a path with an id in it |

Sets of outcomes are closed: all members are shown for every group, at 0 if need be, also those that a platform never
tells. An outcome that we do not know is `unknown` and counts in `testrun_exporter_unknown_values_total`.
Gauges of single cases are the exception, because there are many cases: of `testrun_case_last_outcome` and
`testrun_case_verdict` only the current outcome and verdict are present, and of `testrun_case_window_results` only
outcomes that there are some of.

The **last** run or result is the one whose run ended last. A streak of failures counts `failed` and `missing_output`,
ends at `passed` or `flaky`, and passes over `skipped` and `unknown`.
";

/// The text of METRICS.md.
#[must_use]
pub fn markdown() -> String {
    use crate::model::{ActiveState, CaseOutcome, Condition, ErrorCode, RoundResult, RunOutcome, Verdict};
    let words = |labels: Vec<&str>| {
        labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let mut text = INTRODUCTION
        .replace(
            "RUN_OUTCOMES",
            &words(RunOutcome::ALL.iter().map(|it| it.label()).collect()),
        )
        .replace(
            "CASE_OUTCOMES",
            &words(CaseOutcome::ALL.iter().map(|it| it.label()).collect()),
        )
        .replace("VERDICTS", &words(Verdict::ALL.iter().map(|it| it.label()).collect()))
        .replace(
            "ACTIVE_STATES",
            &words(ActiveState::ALL.iter().map(|it| it.label()).collect()),
        )
        .replace(
            "ERROR_CODES",
            &words(ErrorCode::ALL.iter().map(|it| it.label()).collect()),
        )
        .replace(
            "CONDITIONS",
            &words(Condition::ALL.iter().map(|it| it.label()).collect()),
        )
        .replace(
            "ROUND_RESULTS",
            &words(RoundResult::ALL.iter().map(|it| it.label()).collect()),
        );
    for chapter in Chapter::ALL {
        write_chapter(&mut text, chapter);
    }
    text
}

fn write_chapter(text: &mut String, chapter: Chapter) {
    let families = || FAMILIES.iter().filter(|family| family.chapter == chapter);
    let upstream = families().any(|family| family.origin.is_some());
    // Writing to a string cannot fail, here and below.
    let _ = write!(
        text,
        "\n## {}\n\n| metric | type | labels | unit | meaning |",
        chapter.title()
    );
    text.push_str(if upstream { " Empirical | Sample Platform |" } else { "" });
    text.push_str("\n|---|---|---|---|---|");
    text.push_str(if upstream { "---|---|\n" } else { "\n" });
    for family in families() {
        let labels = family
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect::<Vec<_>>()
            .join(" ");
        // The sentence about age is said once, above.
        let meaning = family
            .help
            .split(" As of the last complete round")
            .next()
            .unwrap_or(family.help);
        let _ = write!(
            text,
            "| `{}` | {} | {labels} | {} | {meaning} |",
            family.name,
            family.kind.word(),
            family.unit
        );
        if upstream {
            let origin = family.origin.unwrap_or(Origin {
                empirical: None,
                sample_platform: None,
            });
            let cell = |fields: Option<&'static str>| fields.unwrap_or("does not tell");
            let _ = write!(text, " {} | {} |", cell(origin.empirical), cell(origin.sample_platform));
        }
        text.push('\n');
    }
    text.push_str("\n```promql\n");
    for family in families() {
        let _ = writeln!(text, "{}", family.example);
    }
    text.push_str("```\n");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn metrics_md_is_what_the_catalog_generates() {
        let committed = include_str!("../../METRICS.md");
        assert!(
            committed == markdown(),
            "METRICS.md is out of date: cargo run --example metrics_md > METRICS.md"
        );
    }

    #[test]
    fn names_types_labels_and_help_are_those_of_the_golden_file() {
        let mut actual = String::new();
        for family in FAMILIES {
            let labels = family.labels.join(",");
            let _ = writeln!(
                actual,
                "{} {{{labels}}} {}\n    {}",
                family.kind.word(),
                family.name,
                family.help
            );
        }
        let golden = include_str!("catalog.golden");
        assert!(
            actual == golden,
            "the interface has changed; if that is meant, put this into catalog.golden:\n{actual}"
        );
    }

    #[test]
    fn every_name_keeps_to_the_naming_rules() {
        let mut names = BTreeSet::new();
        for Family {
            name,
            kind,
            labels,
            help,
            chapter,
            unit,
            ..
        } in FAMILIES
        {
            assert!(names.insert(*name), "{name} twice");
            assert!(
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
                "{name}"
            );
            assert_eq!(name.ends_with("_total"), *kind == Type::Counter, "{name}");
            assert_eq!(name.starts_with("process_"), *chapter == Chapter::Process, "{name}");
            assert!(name.starts_with("testrun_") || name.starts_with("process_"), "{name}");
            assert_eq!(unit.contains("seconds"), name.contains("_seconds"), "{name} in {unit}");
            assert!(
                !help.is_empty() && !help.contains(['\\', '\n']) && help.ends_with('.'),
                "{name}: {help}"
            );
            assert!(
                !labels.contains(&"job") && !labels.contains(&"instance") && !labels.contains(&"le"),
                "{name}"
            );
        }
    }

    #[test]
    fn help_of_every_family_of_a_platforms_data_says_how_old_it_is() {
        for family in FAMILIES.iter().filter(|family| family.origin.is_some()) {
            assert_eq!(family.half, Half::Snapshot, "{}", family.name);
            assert_eq!(family.labels.first(), Some(&"source"), "{}", family.name);
            assert!(
                family
                    .help
                    .ends_with("time() - testrun_exporter_last_success_timestamp_seconds."),
                "{}: {}",
                family.name,
                family.help
            );
        }
    }

    #[test]
    fn every_example_names_its_family() {
        for family in FAMILIES {
            assert!(
                family.example.contains(family.name),
                "{}: {}",
                family.name,
                family.example
            );
        }
    }
}
