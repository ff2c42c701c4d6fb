//! The platforms' own tests: shapes, strictness, determinism, limits, faults and truth.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderValue};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::run::{Attempt, CaseRun, End, Results};
use super::world::World;
use super::*;
use crate::model::{CaseOutcome, RunOutcome};
use crate::sources::Kind;
use crate::transport::{Analytics, Request, Transport, TransportError};

pub(super) const HOUR: Duration = Duration::from_hours(1);

pub(super) fn start() -> Timestamp {
    "2026-11-22T00:00:00Z".parse().unwrap()
}

pub(super) fn after(duration: Duration) -> Timestamp {
    start().saturating_add(duration).unwrap()
}

fn asked(method: &str, target: &str, body: &Value) -> Asked {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer right"));
    let query = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect();
    Asked {
        method: method.to_owned(),
        path: path.to_owned(),
        query,
        headers,
        body: body.to_string().into(),
    }
}

/// A world and a client of it.
pub(super) struct Client {
    pub(super) platform: Platform,
    pub(super) now: Timestamp,
}

impl Client {
    pub(super) fn new(kind: Kind, options: WorldOptions) -> Self {
        let mut platform = Platform::new(kind, options, "right");
        platform.set_limit(None);
        Self { platform, now: start() }
    }

    fn quiet(kind: Kind) -> Self {
        Self::new(kind, WorldOptions::new(kind, 7, start()))
    }

    fn ask(&mut self, method: &str, target: &str, body: &Value) -> (u16, Value) {
        let answer = self.platform.answer(self.now, &asked(method, target, body));
        assert_eq!(answer.fault, None, "{target}");
        (answer.status, serde_json::from_slice(&answer.body).unwrap())
    }

    pub(super) fn get(&mut self, target: &str) -> Value {
        let (status, body) = self.ask("GET", target, &Value::Null);
        assert_eq!(status, 200, "{target}: {body}");
        body
    }

    pub(super) fn post(&mut self, target: &str, body: &Value) -> (u16, Value) {
        self.ask("POST", target, body)
    }

    pub(super) fn status(&mut self, target: &str) -> u16 {
        self.ask("GET", target, &Value::Null).0
    }
}

fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .map(|fields| fields.keys().map(String::as_str).collect())
        .unwrap_or_default()
}

/// Every Sample Platform run, over all pages.
pub(super) fn all_runs(client: &mut Client) -> Vec<Value> {
    let (mut rows, mut offset) = (vec![], Some(0));
    while let Some(at) = offset {
        let page = client.get(&format!("/api/v1/runs?limit=100&sort=run_id&offset={at}"));
        rows.extend(page["data"].as_array().unwrap().clone());
        offset = page["pagination"]["next_offset"].as_u64();
    }
    rows
}

pub(super) const HISTORY: &str = "/api/v2/analytics/test-case-history/batch";

#[test]
fn the_same_seed_gives_the_same_history_whatever_the_moments_of_the_calls() {
    for kind in [Kind::Empirical, Kind::SamplePlatform] {
        let mut options = WorldOptions::exam(kind, 3, start());
        (options.late_edits, options.restarts) = (0.0, 0.0);
        let at_once = {
            let mut client = Client::new(kind, options.clone());
            client.platform.advance(after(10 * HOUR));
            client
                .platform
                .truth(start(), |branch| branch.unwrap_or("none").to_owned())
        };
        let mut client = Client::new(kind, options);
        for step in 0..600_u64 {
            client.platform.advance(after(Duration::from_millis(step * 59_999)));
        }
        client.platform.advance(after(10 * HOUR));
        let in_steps = client
            .platform
            .truth(start(), |branch| branch.unwrap_or("none").to_owned());
        assert!(at_once.counted > 50, "{}", at_once.counted);
        assert_eq!(at_once, in_steps);
    }
}

#[test]
fn sample_platform_answers_have_exactly_the_recorded_keys() {
    let mut options = WorldOptions::new(Kind::SamplePlatform, 7, start());
    (options.errors, options.cancels) = (0.0, 0.0);
    let mut client = Client::new(Kind::SamplePlatform, options);
    let page = client.get("/api/v1/runs?limit=1");
    assert_eq!(keys(&page), ["data", "meta", "pagination"]);
    assert_eq!(keys(&page["pagination"]), ["limit", "next_offset", "offset", "total"]);
    let run_keys = [
        "branch",
        "commit_sha",
        "completed_at",
        "created_at",
        "github_link",
        "platform",
        "pr_number",
        "queued_at",
        "repository",
        "run_id",
        "started_at",
        "status",
        "test_type",
    ];
    assert_eq!(keys(&page["data"][0]), run_keys);
    assert_eq!(keys(&client.get("/api/v1/runs/1")), run_keys);
    let summary = client.get("/api/v1/runs/1/summary");
    let summary_keys = [
        "duration_ms",
        "error_count",
        "fail_count",
        "missing_output_count",
        "pass_count",
        "run_id",
        "skipped_count",
        "status",
        "total_samples",
    ];
    assert_eq!(keys(&summary), summary_keys);
    let results = client.get("/api/v1/runs/1/samples");
    let result_keys = [
        "categories",
        "command",
        "exit_code",
        "expected_rc",
        "outputs",
        "regression_test_id",
        "runtime_ms",
        "sample_id",
        "sample_name",
        "status",
    ];
    assert_eq!(keys(&results["data"][0]), result_keys);
    assert_eq!(
        keys(&results["data"][0]["outputs"][0]),
        ["filename", "output_id", "status"]
    );
    let samples = client.get("/api/v1/samples");
    let sample_keys = [
        "active",
        "extension",
        "filename",
        "original_name",
        "regression_test_count",
        "sample_id",
        "sha",
        "tags",
    ];
    assert_eq!(keys(&samples["data"][0]), sample_keys);
    let history = client.get("/api/v1/samples/1/history?regression_test_id=1");
    let entry_keys = [
        "branch",
        "commit_sha",
        "failure_signature",
        "platform",
        "regression_test_id",
        "run_id",
        "status",
        "tested_at",
    ];
    assert_eq!(keys(&history["data"][0]), entry_keys);
    let tests = client.get("/api/v1/regression-tests");
    let test_keys = [
        "active",
        "categories",
        "command",
        "description",
        "expected_rc",
        "input_type",
        "output_type",
        "regression_test_id",
        "sample_id",
        "sample_name",
    ];
    assert_eq!(keys(&tests["data"][0]), test_keys);
}

#[test]
fn sample_platform_refuses_what_the_real_one_refuses() {
    let mut client = Client::quiet(Kind::SamplePlatform);
    let (status, body) = client.ask("GET", "/api/v1/runs?limit=101", &Value::Null);
    let recorded = json!({"code": "validation_error", "details": {"fields": {"limit": "Must be between 1 and 100."}},
        "message": "limit must be between 1 and 100."});
    assert_eq!((status, body), (400, recorded));
    let (status, body) = client.ask("GET", "/api/v1/runs?status=pass", &Value::Null);
    let recorded = json!({"code": "validation_error", "details": {},
        "message": "Filtering by status \"pass\" is not supported. Supported: queued, running, canceled."});
    assert_eq!((status, body), (400, recorded));
    let (status, body) = client.ask("GET", "/api/v1/runs/9999", &Value::Null);
    assert_eq!(
        (status, body),
        (
            404,
            json!({"code": "not_found", "details": {}, "message": "Run 9999 not found."})
        )
    );
    for bad in [
        "limit=0",
        "limit=x",
        "offset=-1",
        "cursor=a",
        "platform=Linux",
        "created_after=5",
        "sort=name",
    ] {
        assert_eq!(client.status(&format!("/api/v1/runs?{bad}")), 400, "{bad}");
    }
    assert_eq!(client.status("/api/v1/samples/1/history?regression_test_id="), 400);
    assert_eq!(client.status("/api/v1/samples/1/history?status=running"), 400);
    assert_eq!(client.status("/api/v1/samples/99999/history"), 404);
    assert_eq!(client.status("/api/v1/runs/"), 404);
}

#[test]
fn empirical_refuses_what_its_documents_forbid() {
    let mut client = Client::quiet(Kind::Empirical);
    for bad in [
        "per_page=101",
        "per_page=0",
        "page=0",
        "result=ended",
        "interval_in_days=0",
    ] {
        assert_eq!(client.status(&format!("/api/test-runs?{bad}")), 400, "{bad}");
    }
    assert_eq!(client.status("/api/test-runs/1"), 404);
    assert_eq!(client.status("/api/v2/analytics/test-cases?limit=501"), 400);
    for bad in [
        json!([]),
        json!({}),
        json!({"test_case_ids": []}),
        json!({"test_case_ids": [1]}),
        json!({"test_case_ids": ["a"], "days": 91}),
        json!({"test_case_ids": ["a"], "limit_per_test_case": 1001}),
        json!({"test_case_ids": ["a"], "start_date": "2026-11-01T00:00:00Z"}),
    ] {
        assert_eq!(client.post(HISTORY, &bad).0, 400, "{bad}");
    }
    let (status, body) = client.post(HISTORY, &json!({"test_case_ids": ["a"], "limit": 5}));
    assert_eq!(status, 400);
    assert_eq!(body["unknown_fields"], json!(["limit"]));
    assert_eq!(body["allowed_fields"].as_array().unwrap().len(), 7);
    let many: Vec<String> = (0..501).map(|id| id.to_string()).collect();
    assert_eq!(client.post(HISTORY, &json!({"test_case_ids": many})).0, 413);
}

#[test]
fn empirical_details_and_history_tell_the_same_results() {
    let mut client = Client::quiet(Kind::Empirical);
    let list = client.get("/api/test-runs?per_page=100");
    let items = list["data"]["test_runs"]["items"].as_array().unwrap().clone();
    let item_keys = [
        "build_branch",
        "build_url",
        "commit",
        "created_at",
        "duration",
        "environment_name",
        "environment_slug",
        "failed_count",
        "flaky_count",
        "id",
        "skipped_count",
        "success_count",
        "test_run_branch",
        "total_count",
    ];
    assert_eq!(keys(&items[0]), item_keys);
    let ids: Vec<u64> = items.iter().map(|item| item["id"].as_u64().unwrap()).collect();
    assert!(ids.is_sorted_by(|a, b| a > b), "newest first");
    let mut from_details = BTreeSet::new();
    for id in ids {
        let details = client.get(&format!("/api/test-runs/{id}"));
        for row in details["data"]["test_run"]["flattenedSummaryDetails"]
            .as_array()
            .unwrap()
        {
            let status = match row["status"].as_str().unwrap() {
                "passed" => "pass",
                "failed" => "fail",
                "skipped" => "skip",
                other => other,
            };
            from_details.insert((
                row["pw_test_id"].as_str().unwrap().to_owned(),
                id.to_string(),
                status.to_owned(),
            ));
        }
    }
    let registry = client.get("/api/v2/test-cases?per_page=100");
    let cases: Vec<Value> = registry["data"]["test_cases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|case| case["id"].clone())
        .collect();
    let (status, history) = client.post(
        HISTORY,
        &json!({"test_case_ids": cases, "days": 90, "limit_per_test_case": 1000}),
    );
    assert_eq!(status, 200);
    assert_eq!(history["meta"]["truncated_test_case_ids"], json!([]));
    let mut from_history = BTreeSet::new();
    for (case, rows) in history["data"]["history_by_test_case_id"].as_object().unwrap() {
        let times: Vec<&str> = rows
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["executed_at"].as_str().unwrap())
            .collect();
        assert!(times.is_sorted_by(|a, b| a >= b), "newest first");
        for row in rows.as_array().unwrap() {
            let text = |name: &str| row[name].as_str().unwrap().to_owned();
            from_history.insert((case.clone(), text("test_run_id"), text("status")));
        }
    }
    assert!(from_details.len() > 200);
    assert_eq!(from_details, from_history);
    assert_eq!(client.platform.violations(), [""; 0]);
}

#[test]
fn a_history_that_reaches_its_limit_is_named_as_truncated() {
    let mut client = Client::quiet(Kind::Empirical);
    let registry = client.get("/api/v2/test-cases?per_page=1");
    let case = registry["data"]["test_cases"][0]["id"].clone();
    let (_, body) = client.post(
        HISTORY,
        &json!({"test_case_ids": [case.clone()], "limit_per_test_case": 3}),
    );
    assert_eq!(
        body["data"]["history_by_test_case_id"][case.as_str().unwrap()]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    assert_eq!(body["meta"]["truncated_test_case_ids"], json!([case]));
}

#[test]
fn the_analytics_learn_of_a_run_only_after_its_lag() {
    let lag = 30 * Duration::from_secs(60);
    let mut options = WorldOptions::new(Kind::Empirical, 5, start());
    options.analytics_lag = (lag, lag);
    (options.runs_after, options.runs_before) = (Some(1), 0);
    (options.errors, options.cancels, options.reruns) = (0.0, 0.0, 0.0);
    let mut client = Client::new(Kind::Empirical, options);
    client.now = after(2 * HOUR);
    let details = client.get("/api/test-runs/4001");
    let ended: Timestamp = details["data"]["test_run"]["testRun"]["run_ended_at"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let case = details["data"]["test_run"]["flattenedSummaryDetails"][0]["pw_test_id"].clone();
    for (wait, expected, settled) in [
        (lag - Duration::from_secs(1), 0, false),
        (lag + Duration::from_secs(1), 1, true),
    ] {
        let mut again = Client::new(Kind::Empirical, client_options(&client));
        again.now = ended.saturating_add(wait).unwrap();
        let (_, body) = again.post(HISTORY, &json!({"test_case_ids": [case.clone()]}));
        assert_eq!(
            body["data"]["history_by_test_case_id"][case.as_str().unwrap()]
                .as_array()
                .unwrap()
                .len(),
            expected
        );
        assert_eq!(again.platform.settled(again.now), settled);
    }
}

fn client_options(client: &Client) -> WorldOptions {
    client.platform.options().clone()
}

#[test]
fn pages_shift_while_runs_are_created() {
    let mut client = Client::quiet(Kind::Empirical);
    let ids = |page: &Value| -> BTreeSet<u64> {
        page["data"]["test_runs"]["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["id"].as_u64().unwrap())
            .collect()
    };
    let first = ids(&client.get("/api/test-runs?per_page=10&page=1"));
    client.now = after(HOUR / 4);
    let second = ids(&client.get("/api/test-runs?per_page=10&page=2"));
    assert!(
        first.intersection(&second).count() > 0,
        "rows that were shown must come again, not get lost"
    );
}

#[test]
fn a_running_run_shows_its_results_one_by_one() {
    let mut options = WorldOptions::new(Kind::SamplePlatform, 7, start());
    (options.errors, options.cancels) = (0.0, 0.0);
    let mut client = Client::new(Kind::SamplePlatform, options);
    let mut seen = BTreeMap::new();
    for minute in 0..90 {
        client.now = after(Duration::from_secs(minute * 20));
        let run = client.status("/api/v1/runs/31");
        if run == 404 {
            continue;
        }
        let state = client.get("/api/v1/runs/31");
        let rows = client.get("/api/v1/runs/31/samples?limit=100")["data"]
            .as_array()
            .unwrap()
            .len();
        if state["status"] == "queued" {
            assert_eq!(
                (&state["created_at"], &state["queued_at"], rows),
                (&Value::Null, &Value::Null, 0)
            );
        }
        seen.entry(state["status"].as_str().unwrap().to_owned())
            .or_insert_with(BTreeSet::new)
            .insert(rows);
    }
    assert!(seen["running"].len() > 3, "{seen:?}");
}

#[test]
fn a_poisoned_run_breaks_every_page_that_holds_it_and_no_other() {
    let mut options = WorldOptions::new(Kind::SamplePlatform, 7, start());
    options.poisoned = Some(25);
    let mut client = Client::new(Kind::SamplePlatform, options);
    assert_eq!(client.status("/api/v1/runs"), 500);
    assert_eq!(client.status("/api/v1/runs/25"), 500);
    assert_eq!(client.status("/api/v1/samples/1/history"), 500);
    assert_eq!(client.status("/api/v1/runs?limit=1"), 200);
    assert_eq!(client.status("/api/v1/runs?limit=1&offset=5"), 500);
    assert_eq!(client.status("/api/v1/runs?limit=5&offset=6"), 200);
}

#[test]
fn the_limit_is_a_window_from_the_first_request_with_whole_seconds_cut() {
    let mut client = Client::quiet(Kind::SamplePlatform);
    client.platform.set_limit(Some(Limit::per_minute(3)));
    let header = |answer: &Answer, name: &str| answer.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let mut at = |millis: u64| {
        let now = after(Duration::from_millis(millis));
        client
            .platform
            .answer(now, &asked("GET", "/api/v1/runs?limit=1", &Value::Null))
    };
    let remaining: Vec<_> = [10_900, 20_000, 30_000]
        .map(|ms| header(&at(ms), "x-ratelimit-remaining").unwrap())
        .into();
    assert_eq!(remaining, ["2", "1", "0"]);
    let refused = at(60_500);
    assert_eq!(refused.status, 429);
    assert_eq!(header(&refused, "retry-after").as_deref(), Some("10"));
    let body: Value = serde_json::from_slice(&refused.body).unwrap();
    let recorded = json!({"code": "rate_limited", "details": {"limit": 3, "retry_after": 10, "window": "60s"},
        "message": "Rate limit exceeded. Retry after 10 seconds."});
    assert_eq!(body, recorded);
    // Exactly what was told is too short by the cut fraction.
    assert_eq!(at(70_500).status, 429);
    assert_eq!(header(&at(70_800), "retry-after").as_deref(), Some("1"));
    assert_eq!(at(70_900).status, 200);
    assert_eq!(
        client.platform.violations().len(),
        3,
        "{:?}",
        client.platform.violations()
    );
}

#[test]
fn workers_count_separately() {
    let mut client = Client::quiet(Kind::SamplePlatform);
    client.platform.set_limit(Some(Limit {
        workers: 4,
        ..Limit::per_minute(5)
    }));
    let statuses: Vec<u16> = (0..24).map(|_| client.status("/api/v1/runs?limit=1")).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 20);
    assert_eq!(statuses[..20], [200; 20]);
}

#[test]
fn tokens_rotate_and_scopes_forbid() {
    let recorded =
        json!({"code": "unauthorized", "details": {}, "message": "Bearer token is missing, expired, or invalid."});
    let mut client = Client::quiet(Kind::SamplePlatform);
    assert_eq!(client.status("/api/v1/runs"), 200);
    client.platform.rotate_token("newer");
    assert_eq!(client.ask("GET", "/api/v1/runs", &Value::Null), (401, recorded));
    client.platform.rotate_token("right");
    client.platform.set_forbidden(true);
    let (status, body) = client.ask("GET", "/api/v1/runs", &Value::Null);
    assert_eq!((status, &body["code"]), (403, &json!("forbidden")));
}

#[test]
fn misconduct_is_recorded() {
    let mut client = Client::quiet(Kind::Empirical);
    client.platform.expect_budget(2.0, 1);
    client.status("/api/test-runs?per_pag=5");
    client.ask("PUT", "/api/test-runs", &Value::Null);
    client.status("/api/environments/list");
    client.status("/api/test-runs");
    client.platform.pause(start(), Duration::from_secs(30));
    client.now = after(Duration::from_secs(90));
    client.status("/api/test-runs");
    let violations = client.platform.violations().join("\n");
    for expected in [
        "no parameter per_pag",
        "PUT /api/test-runs",
        "not a known route",
        "4 requests within 60 s",
    ] {
        assert!(violations.contains(expected), "{expected} in {violations}");
    }
    assert_eq!(client.platform.violations().len(), 4, "{violations}");
}

/// Reads everything of every finished run, as an exporter does.
fn read_all(client: &mut Client) {
    for run in all_runs(client) {
        if run["completed_at"].is_string() {
            client.get(&format!("/api/v1/runs/{}/samples?limit=100", run["run_id"]));
        }
    }
}

#[test]
fn edits_and_restarts_wait_for_a_reader_and_never_change_what_counts() {
    let mut options = WorldOptions::new(Kind::SamplePlatform, 11, start());
    (options.late_edits, options.restarts, options.runs_after) = (0.5, 0.5, Some(20));
    let truth = |platform: &Platform| platform.truth(start(), |branch| branch.unwrap_or_default().to_owned());
    let mut unread = Client::new(Kind::SamplePlatform, options.clone());
    unread.platform.advance(after(30 * HOUR));
    assert_eq!(truth(&unread.platform).rewritten, [0_u64; 0]);

    let mut client = Client::new(Kind::SamplePlatform, options);
    client.now = after(10 * HOUR);
    read_all(&mut client);
    client.now = after(30 * HOUR);
    read_all(&mut client);
    client.now = after(60 * HOUR);
    client.platform.advance(client.now);
    let (before, rewritten) = (truth(&unread.platform), truth(&client.platform));
    assert!(rewritten.rewritten.len() > 5, "{:?}", rewritten.rewritten);
    let counters = |truth: &Truth| -> Vec<_> {
        truth
            .cases
            .iter()
            .filter(|(_, case)| case.results != [0; 6])
            .map(|(key, case)| (key.clone(), case.results))
            .collect()
    };
    assert_eq!(counters(&before), counters(&rewritten));
    assert_eq!(before.counted, rewritten.counted);
    assert_eq!(before.counted, 20);
}

#[test]
fn the_truth_is_what_a_full_crawl_adds_up_to() {
    let mut options = WorldOptions::new(Kind::SamplePlatform, 13, start());
    options.runs_after = Some(40);
    let mut client = Client::new(Kind::SamplePlatform, options);
    client.now = after(2 * 24 * HOUR);
    assert!(client.platform.settled(client.now));
    let (mut runs, mut results, mut queue) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for run in all_runs(&mut client) {
        let time = |name: &str| run[name].as_str().map(|text| text.parse::<Timestamp>().unwrap());
        if time("completed_at").unwrap() <= start() {
            continue;
        }
        let key = (
            run["platform"].as_str().unwrap().to_owned(),
            run["branch"].as_str().unwrap().to_owned(),
        );
        *runs
            .entry((key.clone(), run["status"].as_str().unwrap().to_owned()))
            .or_insert(0) += 1;
        if let (Some(created), Some(started)) = (time("created_at"), time("started_at")) {
            *queue.entry(key.clone()).or_insert(0) += started.duration_since(created).as_millis() as i64;
        }
        let rows = client.get(&format!("/api/v1/runs/{}/samples?limit=100", run["run_id"]));
        for row in rows["data"].as_array().unwrap() {
            let case = row["regression_test_id"].to_string();
            *results
                .entry((
                    key.0.clone(),
                    key.1.clone(),
                    case,
                    row["status"].as_str().unwrap().to_owned(),
                ))
                .or_insert(0) += 1;
        }
    }
    let truth = client
        .platform
        .truth(start(), |branch| branch.unwrap_or_default().to_owned());
    assert_eq!(truth.counted, 40);
    let word = |outcome: RunOutcome| match outcome {
        RunOutcome::Passed => "pass",
        RunOutcome::Failed => "fail",
        RunOutcome::Cancelled => "canceled",
        _ => "error",
    };
    for (key, group) in &truth.runs {
        for outcome in [
            RunOutcome::Passed,
            RunOutcome::Failed,
            RunOutcome::Cancelled,
            RunOutcome::Error,
        ] {
            let crawled = runs.get(&(key.clone(), word(outcome).to_owned())).copied().unwrap_or(0);
            assert_eq!(group.runs[outcome.index()], crawled, "{key:?} {outcome:?}");
        }
        assert_eq!(group.queue.millis, queue.get(key).copied().unwrap_or(0), "{key:?}");
    }
    for (key, case) in &truth.cases {
        for (outcome, word) in [
            (CaseOutcome::Passed, "pass"),
            (CaseOutcome::Failed, "fail"),
            (CaseOutcome::MissingOutput, "missing_output"),
        ] {
            let crawled = results
                .get(&(key.0.clone(), key.1.clone(), key.2.clone(), word.to_owned()))
                .copied()
                .unwrap_or(0);
            assert_eq!(case.results[outcome.index()], crawled, "{key:?}");
        }
    }
}

#[test]
fn a_run_counts_if_it_was_unfinished_when_its_reader_first_looked() {
    let mut options = WorldOptions::new(Kind::Empirical, 17, start());
    (options.runs_before, options.runs_after) = (10, Some(30));
    let mut client = Client::new(Kind::Empirical, options);
    client.now = after(24 * HOUR);
    client.platform.advance(client.now);
    let counted = |first_met| client.platform.truth(first_met, |_| String::new()).counted;
    assert_eq!(counted(after(Duration::ZERO)), 30);
    assert_eq!(counted(Timestamp::UNIX_EPOCH), 40);
    assert_eq!(counted(client.now), 0);
    let halfway = counted(after(HOUR));
    assert!((1..30).contains(&halfway), "{halfway}");
}

#[test]
fn faults_come_as_scripted_and_random_ones_by_the_seed() {
    let mut client = Client::quiet(Kind::Empirical);
    client.platform.script_fault(When::Request(2), Fault::Reset);
    client
        .platform
        .script_fault(When::Endpoint("/api/v2/test-cases".into(), 1), Fault::NotJson);
    client.platform.script_fault(
        When::Next(1),
        Fault::Status {
            code: 503,
            retry_after: Some("soon".into()),
        },
    );
    let mut ask = |target: &str| client.platform.answer(start(), &asked("GET", target, &Value::Null));
    let first = ask("/api/test-runs");
    assert_eq!(
        (first.status, first.headers["retry-after"].to_str().unwrap()),
        (503, "soon")
    );
    assert_eq!(ask("/api/test-runs").fault, Some(Fault::Reset));
    assert_eq!(
        ask("/api/v2/test-cases").headers["content-type"],
        "text/html; charset=utf-8"
    );
    assert_eq!(ask("/api/v2/test-cases").status, 200);
    let pattern = |seed| {
        let mut client = Client::new(Kind::Empirical, WorldOptions::new(Kind::Empirical, seed, start()));
        client
            .platform
            .set_faults(FaultPlan::random(0.3, vec![Fault::status(500)]));
        (0..100)
            .map(|_| client.status("/api/test-runs?per_page=1"))
            .collect::<Vec<_>>()
    };
    assert_eq!(pattern(1), pattern(1));
    assert_ne!(pattern(1), pattern(2));
    let failures = pattern(1).iter().filter(|status| **status == 500).count();
    assert!((15..=45).contains(&failures), "{failures}");
}

/// A transport whose clock is tokio's.
fn transport(kind: Kind) -> InProcess {
    let platform = Arc::new(Mutex::new(Platform::new(
        kind,
        WorldOptions::new(kind, 7, start()),
        "right",
    )));
    let origin = tokio::time::Instant::now();
    InProcess::new(platform, Arc::new(move || after(origin.elapsed())))
}

#[tokio::test(start_paused = true)]
async fn the_transport_takes_virtual_time_and_carries_faults() {
    let transport = transport(Kind::SamplePlatform);
    let request = Request::get("/runs", "/runs".into(), vec![("limit", "1".into())]);
    let reply = transport.send(&request).await.unwrap();
    assert_eq!(reply.status, 200);
    let expect = async |fault: Fault, expected: TransportError| {
        transport.platform().script_fault(When::Next(1), fault);
        assert_eq!(transport.send(&request).await.unwrap_err(), expected);
    };
    let before = tokio::time::Instant::now();
    expect(Fault::Stall, TransportError::Timeout { seconds: 30 }).await;
    assert!(before.elapsed() >= Duration::from_secs(30));
    expect(
        Fault::HugeBody,
        TransportError::TooLarge {
            limit: 16 * 1024 * 1024,
        },
    )
    .await;
    expect(
        Fault::Reset,
        TransportError::Connection("the connection was reset".into()),
    )
    .await;
    let version = transport.credential_version().await;
    transport.set_token("wrong");
    assert_ne!(transport.credential_version().await, version);
    assert_eq!(transport.send(&request).await.unwrap().status, 401);
    assert_eq!(transport.platform().violations(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn two_requests_at_once_are_a_violation() {
    let transport = transport(Kind::Empirical);
    let request = Request::analytics(Analytics::LastPassPerEnv, json!({"test_case_id": "x"}).to_string());
    let (one, two) = tokio::join!(transport.send(&request), transport.send(&request));
    assert_eq!((one.unwrap().status, two.unwrap().status), (200, 200));
    assert!(transport.platform().violations()[0].contains("2 requests at once"));
}

/// One raw request to a served platform: everything that comes back until the connection ends, or why it broke.
async fn raw(port: u16, target: &str, patience: Duration) -> Result<Vec<u8>, std::io::ErrorKind> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let head = format!("GET {target} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer right\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut bytes = vec![];
    match tokio::time::timeout(patience, stream.read_to_end(&mut bytes)).await {
        Ok(Ok(_)) => Ok(bytes),
        Ok(Err(error)) => Err(error.kind()),
        Err(_) => Err(std::io::ErrorKind::TimedOut),
    }
}

#[tokio::test]
async fn a_served_platform_answers_and_breaks_on_a_real_socket() {
    let platform = Arc::new(Mutex::new(Platform::new(
        Kind::SamplePlatform,
        WorldOptions::new(Kind::SamplePlatform, 7, start()),
        "right",
    )));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let shutdown = tokio_util::sync::CancellationToken::new();
    let server = tokio::spawn(serve(
        listener,
        Arc::clone(&platform),
        Arc::new(start),
        shutdown.clone(),
    ));
    let ask = async |fault: Option<Fault>| {
        if let Some(fault) = fault {
            platform.lock().unwrap().script_fault(When::Next(1), fault);
        }
        raw(
            port,
            "/api/v1/runs?limit=1&branch=feature%20%22quoted%22%5Cx",
            Duration::from_secs(2),
        )
        .await
    };
    let whole = String::from_utf8(ask(None).await.unwrap()).unwrap();
    assert!(
        whole.starts_with("HTTP/1.1 200 OK\r\n") && whole.contains("x-ratelimit-remaining: 119"),
        "{whole}"
    );
    assert!(whole.contains(r#"feature \"quoted\"\\x"#), "{whole}");
    assert_eq!(ask(Some(Fault::Reset)).await, Err(std::io::ErrorKind::ConnectionReset));
    let truncated = String::from_utf8(ask(Some(Fault::Truncated)).await.unwrap()).unwrap();
    let (head, body) = truncated.split_once("\r\n\r\n").unwrap();
    let told: usize = head
        .split_once("content-length: ")
        .unwrap()
        .1
        .split("\r\n")
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!(body.len() < told, "{truncated}");
    let bomb = ask(Some(Fault::GzipBomb)).await.unwrap();
    assert!(
        bomb.len() < 1024 * 1024 && bomb.windows(22).any(|line| line == b"content-encoding: gzip"),
        "{}",
        bomb.len()
    );
    let away = String::from_utf8(ask(Some(Fault::RedirectOffOrigin)).await.unwrap()).unwrap();
    assert!(away.contains("location: http://127.0.0.1:9/elsewhere"), "{away}");
    assert_eq!(ask(Some(Fault::SlowBody)).await, Err(std::io::ErrorKind::TimedOut));
    let huge = raw_after(&platform, port, Fault::HugeBody).await;
    assert!(huge > 64 * 1024 * 1024, "{huge}");
    let truth = String::from_utf8(raw(port, "/-/truth?since=2026-11-01T00:00:00Z", HOUR).await.unwrap()).unwrap();
    let truth: Value = serde_json::from_str(truth.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert!(
        truth["counted"].as_u64().unwrap() > 0 && truth["settled"] == false,
        "{truth}"
    );
    assert_eq!(
        platform.lock().unwrap().journal().entries().len(),
        7,
        "the truth is no part of the API"
    );
    assert_eq!(platform.lock().unwrap().violations(), [""; 0]);
    shutdown.cancel();
    server.await.unwrap().unwrap();
}

async fn raw_after(platform: &Mutex<Platform>, port: u16, fault: Fault) -> usize {
    platform.lock().unwrap().script_fault(When::Next(1), fault);
    raw(port, "/api/v1/runs?limit=1", HOUR).await.unwrap().len()
}

/// What details and history of every Empirical run after the start add up to.
#[test]
fn the_truth_of_a_hard_empirical_world_is_what_a_full_crawl_adds_up_to() {
    let mut options = WorldOptions::exam(Kind::Empirical, 19, start());
    (options.cases, options.runs_after, options.late_edits) = (30, Some(60), 0.0);
    // The crawl below reads plain spellings; the odd ones have tests of their own.
    (options.null_environments, options.history_duplicates) = (0.0, 0.0);
    (options.counts_as_floats, options.ids_as_text) = (false, false);
    let mut client = Client::new(Kind::Empirical, options);
    client.now = after(3 * 24 * HOUR);
    assert!(client.platform.settled(client.now));
    let truth = client
        .platform
        .truth(start(), |branch| branch.unwrap_or("none").to_owned());
    assert_eq!(truth.counted, 60);
    let (mut groups, mut waits) = (BTreeMap::new(), BTreeMap::new());
    let mut codes: BTreeMap<String, u64> = BTreeMap::new();
    for id in 4101..4161_u64 {
        let details = client.get(&format!("/api/test-runs/{id}"));
        let run = &details["data"]["test_run"]["testRun"];
        let text = |name: &str| run[name].as_str().map(str::to_owned);
        let key = (
            text("environment_slug").unwrap(),
            text("test_run_branch").unwrap_or("none".into()),
        );
        let time = |name: &str| text(name).map(|text| text.parse::<Timestamp>().unwrap().as_millisecond());
        if let Some(started) = time("run_started_at") {
            let wait: &mut (i64, i64) = waits.entry(key.clone()).or_default();
            wait.0 += started - time("created_at").unwrap();
            wait.1 += time("run_ended_at").unwrap() - started;
        }
        if run["state"] == "error" {
            *codes.entry(text("error_code").unwrap_or("untold".into())).or_default() += 1;
        }
        groups.insert(id.to_string(), key);
    }
    for (key, group) in &truth.runs {
        assert_eq!(
            (group.queue.millis, group.duration.millis),
            waits.get(key).copied().unwrap_or_default(),
            "{key:?}"
        );
    }
    let errors: u64 = truth.errors.values().flatten().sum();
    assert!(errors > 0 && errors == codes.values().sum::<u64>(), "{codes:?}");
    let cases: BTreeSet<String> = truth.cases.keys().map(|key| key.2.clone()).collect();
    let body = json!({"test_case_ids": cases, "days": 90, "limit_per_test_case": 1000});
    let (_, history) = client.post(HISTORY, &body);
    let mut crawled: BTreeMap<(String, String, String), (u64, u64, i64)> = BTreeMap::new();
    for (case, rows) in history["data"]["history_by_test_case_id"].as_object().unwrap() {
        for row in rows.as_array().unwrap() {
            let Some((environment, branch)) = groups.get(row["test_run_id"].as_str().unwrap()) else {
                continue;
            };
            let sums = crawled
                .entry((environment.clone(), branch.clone(), case.clone()))
                .or_default();
            sums.0 += 1;
            sums.1 += row["retries"].as_u64().unwrap_or(0);
            sums.2 += row["duration_total"].as_i64().unwrap_or(0);
        }
    }
    for (key, case) in &truth.cases {
        let sums = (case.results.iter().sum(), case.retries, case.duration.millis);
        assert_eq!(sums, crawled.get(key).copied().unwrap_or_default(), "{key:?}");
    }
}

#[test]
fn the_truth_of_a_small_world_is_as_computed_by_hand() {
    let mut options = WorldOptions::new(Kind::Empirical, 1, start());
    (options.runs_before, options.runs_after, options.cases, options.nulls) = (3, Some(0), 2, 0.0);
    options.environments = vec!["production".into()];
    let mut world = World::new(Kind::Empirical, options);
    let zero = start().as_millisecond();
    let result = |case, outcome, duration, retries| CaseRun {
        case,
        outcome,
        executed: zero + 5000,
        duration: Some(duration),
        retries: Some(retries),
        exit_code: 0,
        differs: false,
    };
    let attempt = |finished, end, results| Attempt {
        queued: zero - 1000,
        pending_until: zero,
        prepared: None,
        started: Some(zero + 1000),
        cancelling: None,
        finished: zero + finished,
        end,
        results: Results::from(results),
    };
    use CaseOutcome::{Failed, Flaky, Passed};
    let attempts = [
        attempt(
            6000,
            End::Ended,
            vec![result(0, Passed, 100, 0), result(1, Failed, 900, 2)],
        ),
        attempt(
            9000,
            End::Ended,
            vec![result(0, Flaky, 300, 1), result(1, Failed, 800, 2)],
        ),
        attempt(-500, End::Error(Some("merge_conflict")), vec![]),
    ];
    for (run, attempt) in world.runs.iter_mut().zip(attempts) {
        (run.created, run.lag, run.branch, run.current) = (zero - 1000, 0, Some("main".into()), attempt);
    }
    world.advance(after(HOUR));
    let truth = Truth::of(&world, start(), |branch| branch.unwrap_or_default().to_owned());
    let group = &truth.runs[&("production".to_owned(), "main".to_owned())];
    assert_eq!((truth.counted, group.runs), (2, [0, 2, 0, 0, 0]));
    assert_eq!(group.cases, [1, 2, 1, 0, 0, 0]);
    assert_eq!(
        (group.duration, group.queue),
        (
            Sum {
                count: 2,
                millis: 13_000
            },
            Sum { count: 2, millis: 4000 }
        )
    );
    let last = LastRun {
        id: 4002,
        outcome: RunOutcome::Failed,
        ended: zero + 9000,
        duration: Some(8000),
        failed_after_snooze: None,
    };
    assert_eq!(group.last, Some(last));
    let case = |index: usize| {
        &truth.cases[&(
            "production".to_owned(),
            "main".to_owned(),
            world.cases[index].id.clone(),
        )]
    };
    assert_eq!(
        (case(0).results, case(0).retries, case(0).streak),
        ([1, 0, 1, 0, 0, 0], 1, 0)
    );
    assert_eq!((case(0).last, case(0).last_pass), (Some(Flaky), Some(zero + 5000)));
    assert_eq!(
        (case(1).results, case(1).retries, case(1).streak),
        ([0, 2, 0, 0, 0, 0], 4, 2)
    );
    assert_eq!((case(1).duration.seconds(), case(1).last_pass), (1.7, None));
    assert!(truth.errors.is_empty(), "the error was there before");
}

#[test]
fn a_world_of_ten_thousand_cases_is_still_quick_to_ask() {
    let mut options = WorldOptions::exam(Kind::Empirical, 23, start());
    options.cases = 10_000;
    let mut client = Client::new(Kind::Empirical, options);
    client.now = after(6 * HOUR);
    let registry = client.get("/api/v2/test-cases?per_page=100");
    let ids: Vec<Value> = registry["data"]["test_cases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|case| case["id"].clone())
        .collect();
    let (status, body) = client.post(HISTORY, &json!({"test_case_ids": ids, "limit_per_test_case": 20}));
    assert_eq!(
        (
            status,
            body["data"]["history_by_test_case_id"].as_object().unwrap().len()
        ),
        (200, 100)
    );
}

#[test]
fn a_pause_may_be_announced_as_a_date() {
    let mut client = Client::quiet(Kind::Empirical);
    let retry_after = Some("Sun, 22 Nov 2026 00:02:00 GMT".to_owned());
    client
        .platform
        .script_fault(When::Next(1), Fault::Status { code: 503, retry_after });
    client.status("/api/test-runs");
    for (seconds, expected) in [(60, 1), (119, 2), (120, 2)] {
        client.now = after(Duration::from_secs(seconds));
        client.status("/api/test-runs");
        assert_eq!(
            client.platform.violations().len(),
            expected,
            "{seconds}: {:?}",
            client.platform.violations()
        );
    }
    client.platform.pause(client.now, HOUR);
    assert_eq!(client.status("/api/test-runs"), 429);
    client.platform.client_restarted();
    assert_eq!(client.status("/api/test-runs"), 429);
    assert_eq!(
        client.platform.violations().len(),
        2,
        "a new process knows nothing of old pauses"
    );
}

#[test]
fn the_exam_comes_to_rest_after_its_three_hundred_runs() {
    for kind in [Kind::Empirical, Kind::SamplePlatform] {
        let mut client = Client::new(kind, WorldOptions::exam(kind, 1, start()));
        assert!(!client.platform.settled(after(10 * HOUR)), "{kind:?}");
        assert!(client.platform.settled(after(30 * HOUR)), "{kind:?}");
        let truth = client
            .platform
            .truth(start(), |branch| branch.unwrap_or_default().to_owned());
        assert_eq!((truth.counted, truth.active.len()), (300, 0));
        let outcomes: BTreeSet<usize> = truth
            .runs
            .values()
            .flat_map(|group| (0..4).filter(|outcome| group.runs[*outcome] > 0))
            .collect();
        assert_eq!(outcomes, BTreeSet::from([0, 1, 2, 3]), "{kind:?}: every outcome occurs");
    }
}
