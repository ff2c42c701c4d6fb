//! Sources as conversations: a closure answers, the requests come out as text, the facts as values.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::empirical::Empirical;
use super::sample_platform::SamplePlatform;
use super::*;
use crate::model::{CaseOutcome, CaseResult, Run, RunOutcome, Snooze};

const NOW: &str = "2026-11-22T01:10:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn ago(minutes: i64) -> String {
    (now() - SignedDuration::from_mins(minutes)).to_string()
}

fn settings(kind: Kind, discovery: Discovery) -> Settings {
    Settings {
        kind,
        lookback: Duration::from_secs(30 * 86_400),
        series_ttl: Duration::from_secs(14 * 86_400),
        branches: Branches::new(vec![
            BranchRule::Exact("main".into()),
            BranchRule::Exact("master".into()),
        ]),
        environments: BTreeMap::new(),
        run_duration_unit: DurationUnit::Auto,
        snoozes: None,
        cases: CaseSettings {
            enabled: true,
            discovery,
            ids: Vec::new(),
            include: Vec::new(),
            exclude: Vec::new(),
            max: 10_000,
            batch_size: 50,
            analytics_lag: Duration::from_secs(180),
        },
    }
}

/// What a round said: its requests, a line each, and everything learned.
#[derive(Default)]
struct Said {
    requests: Vec<String>,
    learned: Learned,
    failure: Option<Rejection>,
}

impl Said {
    fn runs(&self) -> Vec<&Run> {
        self.learned
            .facts
            .iter()
            .filter_map(|fact| if let Fact::Run(run) = fact { Some(run) } else { None })
            .collect()
    }

    fn results(&self) -> Vec<&CaseResult> {
        self.learned
            .facts
            .iter()
            .filter_map(|fact| {
                if let Fact::Result(result) = fact {
                    Some(result)
                } else {
                    None
                }
            })
            .collect()
    }

    fn active(&self) -> Vec<String> {
        let active = |fact: &Fact| {
            if let Fact::Active(active) = fact {
                Some(active.clone())
            } else {
                None
            }
        };
        let last = self
            .learned
            .facts
            .iter()
            .filter_map(active)
            .next_back()
            .unwrap_or_default();
        last.iter()
            .map(|run| format!("{} {} {}", run.id, run.environment, run.state.label()))
            .collect()
    }
}

fn line(request: &Request) -> String {
    let query: Vec<_> = request
        .query()
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let mark = if query.is_empty() { "" } else { "?" };
    let body = request.body().map(|body| format!(" {body}")).unwrap_or_default();
    format!("{} {}{mark}{}{body}", request.method(), request.path(), query.join("&"))
}

/// One round at `at` with room for `allowance` requests beyond the list, none of them for what is known.
fn round_at(
    source: &mut impl Source,
    at: Timestamp,
    allowance: usize,
    answer: &mut dyn FnMut(&Request) -> Result<Value, Rejection>,
) -> Said {
    let (requests, rereads) = (allowance, 0);
    round_within(source, at, Allowance { requests, rereads }, answer)
}

/// One round so many hours after the first, with room for so many re-reads.
fn round_after(
    source: &mut impl Source,
    hours: i64,
    rereads: usize,
    answer: &mut dyn FnMut(&Request) -> Result<Value, Rejection>,
) -> Said {
    let at = now() + SignedDuration::from_hours(hours);
    let requests = 1000;
    round_within(source, at, Allowance { requests, rereads }, answer)
}

fn round_within(
    source: &mut impl Source,
    at: Timestamp,
    allowance: Allowance,
    answer: &mut dyn FnMut(&Request) -> Result<Value, Rejection>,
) -> Said {
    let mut said = Said::default();
    source.begin(at, allowance);
    while let Some(request) = source.next() {
        assert!(
            said.requests.len() < 1000,
            "the round has no end: {:?}",
            &said.requests[990..]
        );
        said.requests.push(line(&request));
        let learned = match answer(&request) {
            Ok(body) => {
                let body = Bytes::from(body.to_string());
                source
                    .accept(&Reply {
                        status: 200,
                        headers: HeaderMap::new(),
                        body,
                    })
                    .or_else(|rejection| source.reject(rejection))
            }
            Err(rejection) => source.reject(rejection),
        };
        match learned {
            Ok(learned) => {
                said.learned.facts.extend(learned.facts);
                said.learned.notices.extend(learned.notices);
            }
            Err(rejection) => {
                said.failure = Some(rejection);
                break;
            }
        }
    }
    said
}

fn round(source: &mut impl Source, answer: &mut dyn FnMut(&Request) -> Result<Value, Rejection>) -> Said {
    round_at(source, now(), 1000, answer)
}

/// A small Empirical: runs by id with their state, everything else made from that.
#[derive(Clone)]
struct Shop {
    runs: BTreeMap<u64, (&'static str, i64)>,
    cases: Vec<&'static str>,
    shown: Vec<u64>,
    tells_state: bool,
}

impl Shop {
    /// `(id, state, minutes ago that it was created)`; a finished run took five minutes.
    fn new(runs: &[(u64, &'static str, i64)]) -> Self {
        let runs: BTreeMap<_, _> = runs
            .iter()
            .map(|(id, state, minutes)| (*id, (*state, *minutes)))
            .collect();
        Self {
            shown: runs.keys().copied().collect(),
            runs,
            cases: vec!["a", "b"],
            tells_state: false,
        }
    }

    fn row(&self, id: u64) -> Value {
        let (state, minutes) = self.runs[&id];
        let mut row = json!({"id": id, "total_count": 2, "success_count": 1, "failed_count": 1, "flaky_count": null,
            "environment_slug": "prod", "test_run_branch": "main", "created_at": ago(minutes)});
        if self.tells_state {
            row["state"] = state.into();
        }
        row
    }

    fn page(&self, request: &Request) -> Value {
        let query: BTreeMap<_, _> = request
            .query()
            .iter()
            .map(|(key, value)| (*key, value.as_str()))
            .collect();
        let number = |key: &str| query[key].parse::<usize>().unwrap();
        let (size, page) = (number("per_page"), number("page"));
        let state = query.get("state");
        let matching: Vec<u64> = self
            .runs
            .iter()
            .rev()
            .filter(|(_, (s, _))| state.is_none_or(|state| state == s))
            .map(|(id, _)| *id)
            .collect();
        let items: Vec<Value> = matching
            .iter()
            .skip((page - 1) * size)
            .take(size)
            .map(|id| self.row(*id))
            .collect();
        json!({"data": {"project": {"slug": "shop"}, "test_runs": {"items": items}},
            "pagination": {"total": matching.len(), "page": page, "per_page": size}})
    }

    fn details(&self, id: u64) -> Value {
        let (state, minutes) = self.runs[&id];
        let mut run = self.row(id);
        run["state"] = state.into();
        let done = ["ended", "error", "cancelled"].contains(&state);
        if done {
            run["run_started_at"] = ago(minutes).into();
            run["run_ended_at"] = ago(minutes - 5).into();
        }
        let case =
            |case: &&str| json!({"pw_test_id": case, "status": "passed", "nesting": ["cart.spec.ts", "cart", case]});
        let cases: Vec<Value> = if done {
            self.cases.iter().map(case).collect()
        } else {
            Vec::new()
        };
        json!({"data": {"test_run": {"project": {"id": 1}, "testRun": run, "flattenedSummaryDetails": cases}}})
    }

    fn history(&self, request: &Request) -> Value {
        let query: Value = serde_json::from_str(request.body().unwrap()).unwrap();
        let mut by_case = serde_json::Map::new();
        for case in query["test_case_ids"].as_array().unwrap() {
            let entries: Vec<Value> = self.shown.iter().rev().filter(|id| self.runs[id].0 == "ended").map(|id| json!({
                "status": if case == "b" { "fail" } else { "pass" }, "test_run_id": id.to_string(), "environment_id": "7",
                "executed_at": ago(self.runs[id].1 - 1), "timestamp": ago(self.runs[id].1 - 1), "duration_total": 1500, "retries": 1
            })).collect();
            by_case.insert(case.as_str().unwrap().to_owned(), Value::Array(entries));
        }
        json!({"data": {"history_by_test_case_id": by_case}, "meta": {"truncated_test_case_ids": []}})
    }

    fn answer(&self, request: &Request) -> Result<Value, Rejection> {
        Ok(match request.endpoint() {
            "/api/test-runs" => self.page(request),
            "/api/test-runs/{id}" => {
                let id = request.path().rsplit('/').next().unwrap().parse().unwrap();
                if !self.runs.contains_key(&id) {
                    return Err(Rejection::Status(404));
                }
                self.details(id)
            }
            "/api/v2/analytics/test-case-history/batch" => self.history(request),
            "/api/v2/analytics/test-case-last-pass-per-env" => json!({"data": [
                {"environment_id": "7", "test_run_id": "1", "executed_at": 1_760_000_000_000_i64}]}),
            other => panic!("unexpected {other}"),
        })
    }
}

fn empirical() -> Empirical {
    Empirical::new(settings(Kind::Empirical, Discovery::RunDetails))
}

/// A month of runs: 300 finished, two active.
fn month() -> Shop {
    let mut runs: Vec<(u64, &'static str, i64)> = (1..=300).map(|id| (id, "ended", 40_000 - 100 * id as i64)).collect();
    runs.extend([(301, "started", 6), (302, "queued", 1)]);
    Shop::new(&runs)
}

#[test]
fn a_first_round_over_a_month_asks_for_the_active_runs_and_not_for_each_finished_one() {
    let shop = month();
    let mut source = empirical();
    let said = round(&mut source, &mut |request| shop.answer(request));
    insta::assert_snapshot!(said.requests.join("\n"), @r#"
    GET /api/test-runs?per_page=100&page=1&interval_in_days=30
    GET /api/test-runs?per_page=100&page=2&interval_in_days=30
    GET /api/test-runs?per_page=100&page=3&interval_in_days=30
    GET /api/test-runs?per_page=100&page=4&interval_in_days=30
    GET /api/test-runs?state=pending&per_page=100&page=1
    GET /api/test-runs?state=queued&per_page=100&page=1
    GET /api/test-runs?state=started&per_page=100&page=1
    GET /api/test-runs?state=cancelling&per_page=100&page=1
    GET /api/test-runs/298
    GET /api/test-runs/299
    GET /api/test-runs/300
    POST /api/v2/analytics/test-case-history/batch {"test_case_ids":["a","b"],"days":30,"limit_per_test_case":50}
    POST /api/v2/analytics/test-case-last-pass-per-env {"test_case_id":"b","days":365}
    "#);
    assert_eq!(said.active(), ["301 prod started", "302 prod queued"]);
    assert_eq!(
        said.results().len(),
        600,
        "the history of both cases in all finished runs"
    );
    let last = said.runs().into_iter().rfind(|run| run.id == 300).unwrap().clone();
    assert_eq!((last.outcome, last.duration_seconds), (RunOutcome::Failed, Some(300.0)));
    assert_eq!(
        source.progress(),
        Progress {
            cases_tracked: 2,
            oldest_refresh: Some(now()),
            backlog: 0
        }
    );
}

#[test]
fn an_idle_round_is_one_request() {
    let shop = Shop::new(&[(1, "ended", 500), (2, "cancelled", 400)]);
    let mut source = empirical();
    round(&mut source, &mut |request| shop.answer(request));
    let said = round(&mut source, &mut |request| shop.answer(request));
    assert_eq!(
        said.requests,
        ["GET /api/test-runs?per_page=100&page=1&interval_in_days=30"]
    );
    assert_eq!(said.runs(), Vec::<&Run>::new());
}

#[test]
fn one_finished_run_costs_the_list_its_details_and_its_cases_once_the_analytics_have_them() {
    let mut shop = Shop::new(&[(1, "ended", 500)]);
    let mut source = empirical();
    round(&mut source, &mut |request| shop.answer(request));
    shop.runs.insert(2, ("ended", 6));
    let said = round(&mut source, &mut |request| shop.answer(request));
    assert_eq!(
        said.requests[1..],
        ["GET /api/test-runs/2"],
        "its results are not there yet: analytics lag"
    );
    shop.shown.push(2);
    let later = round_at(
        &mut source,
        now() + SignedDuration::from_mins(3),
        1000,
        &mut |request| shop.answer(request),
    );
    let batch = r#"POST /api/v2/analytics/test-case-history/batch {"test_case_ids":["a","b"],"days":2,"limit_per_test_case":10}"#;
    assert_eq!(later.requests[1..], [batch]);
    assert!(
        later
            .results()
            .iter()
            .any(|result| result.run == 2 && result.case == Name::from("a"))
    );
    let idle = round_at(
        &mut source,
        now() + SignedDuration::from_mins(4),
        1000,
        &mut |request| shop.answer(request),
    );
    assert_eq!(
        idle.requests.len(),
        1,
        "nothing is awaited any more: {:?}",
        idle.requests
    );
}

#[test]
fn however_many_runs_and_histories_a_round_reads_it_looks_at_all_cases_a_few_times() {
    let mut shop = Shop::new(&[(1, "ended", 500)]);
    let mut settings = settings(Kind::Empirical, Discovery::RunDetails);
    settings.cases.batch_size = 1;
    let mut source = Empirical::new(settings);
    round(&mut source, &mut |request| shop.answer(request));
    shop.cases = vec!["a", "b", "c", "d", "e", "f", "g", "h"];
    shop.runs.extend((2..=41).map(|id| (id, ("ended", 15))));
    let looks = source.looks();
    let said = round(&mut source, &mut |request| shop.answer(request));
    let asked = |what: &str| said.requests.iter().filter(|request| request.contains(what)).count();
    assert_eq!((asked("/api/test-runs/"), asked("test-case-history")), (40, 8));
    let looks = source.looks() - looks;
    assert!(looks <= 2, "{looks} times");
}

#[test]
fn a_run_that_was_cancelled_before_anything_ran_has_no_results_to_ask_for() {
    let mut shop = Shop::new(&[(1, "ended", 500)]);
    let mut source = empirical();
    round(&mut source, &mut |request| shop.answer(request));
    shop.runs.insert(2, ("cancelled", 6));
    let mut requests = Vec::new();
    for minute in 0..60 {
        let at = now() + SignedDuration::from_mins(minute);
        let said = round_at(&mut source, at, 1000, &mut |request| {
            let mut reply = shop.answer(request)?;
            if request.path() == "/api/test-runs/2" {
                let body = &mut reply["data"]["test_run"];
                body["flattenedSummaryDetails"] = json!([]);
                for count in ["success_count", "failed_count", "total_count"] {
                    body["testRun"][count] = 0.into();
                }
            }
            Ok(reply)
        });
        requests.extend(said.requests.into_iter().skip(1));
    }
    assert_eq!(requests, ["GET /api/test-runs/2"]);
}

#[test]
fn details_that_are_never_to_be_had_neither_fail_the_rounds_nor_lose_the_run() {
    let mut shop = Shop::new(&[(1, "ended", 500)]);
    let mut source = empirical();
    round(&mut source, &mut |request| shop.answer(request));
    shop.runs.extend([
        (2, ("ended", 6)),
        (3, ("started", 5)),
        (4, ("started", 5)),
        (5, ("started", 5)),
    ]);
    let (mut told, mut details) = (Vec::new(), 0);
    for minute in 0..600 {
        let at = now() + SignedDuration::from_mins(minute);
        let said = round_at(&mut source, at, 1000, &mut |request| {
            if request.endpoint() == "/api/test-runs/{id}" {
                details += 1;
                return Err(Rejection::Status(500));
            }
            shop.answer(request)
        });
        assert_eq!(said.failure, None, "minute {minute}: {:?}", said.requests);
        assert_eq!(said.active().len(), 3, "minute {minute}: {:?}", said.requests);
        told.extend(said.runs().iter().map(|run| (run.id, run.outcome)));
    }
    assert_eq!(
        told,
        [(2, RunOutcome::Failed)],
        "at last its row in the list is all that is known of it"
    );
    assert!(details < 20, "{details} requests for details that were never served");
}

#[test]
fn a_run_that_does_not_name_its_environment_is_told_when_the_analytics_do() {
    let mut shop = Shop::new(&[(1, "ended", 500), (2, "ended", 400)]);
    let mut source = empirical();
    let nameless = |shop: &Shop, request: &Request| {
        let mut reply = shop.answer(request)?;
        if request.endpoint() == "/api/test-runs" {
            for row in reply["data"]["test_runs"]["items"].as_array_mut().unwrap() {
                if row["id"] != 1 {
                    row["environment_slug"] = Value::Null;
                }
            }
        } else if request.path() == "/api/test-runs/2" || request.path() == "/api/test-runs/3" {
            reply["data"]["test_run"]["testRun"]["environment_slug"] = Value::Null;
        }
        Ok(reply)
    };
    let first = round(&mut source, &mut |request| nameless(&shop, request));
    let told: BTreeMap<u64, Name> = first
        .runs()
        .iter()
        .map(|run| (run.id, run.group.environment.clone()))
        .collect();
    assert_eq!(told, BTreeMap::from([(1, "prod".into()), (2, "prod".into())]));
    shop.runs.insert(3, ("ended", 6));
    let said = round(&mut source, &mut |request| nameless(&shop, request));
    assert_eq!(said.runs(), Vec::<&Run>::new(), "nobody has said where it ran");
    shop.shown.push(3);
    let later = now() + SignedDuration::from_mins(3);
    let said = round_at(&mut source, later, 1000, &mut |request| nameless(&shop, request));
    assert_eq!(
        said.runs()
            .iter()
            .map(|run| (run.id, &*run.group.environment))
            .collect::<Vec<_>>(),
        [(3, "prod")]
    );
    assert!(said.results().iter().any(|result| result.run == 3));
}

#[test]
fn results_that_lag_are_asked_for_again_ever_later_and_at_last_taken_from_the_run() {
    let mut shop = Shop::new(&[(1, "ended", 500)]);
    let mut source = empirical();
    round(&mut source, &mut |request| shop.answer(request));
    shop.runs.insert(2, ("ended", 5));
    let (mut asked, mut own_word) = (Vec::new(), Vec::new());
    for minute in 0..200 {
        let at = now() + SignedDuration::from_mins(minute);
        let said = round_at(&mut source, at, 1000, &mut |request| shop.answer(request));
        asked.extend(
            said.requests
                .iter()
                .filter(|request| request.contains("history"))
                .map(|_| minute),
        );
        own_word.extend(said.results().into_iter().filter(|result| result.run == 2).cloned());
    }
    assert_eq!(asked, [3, 5, 7, 11, 19, 35, 67, 131]);
    let told: Vec<_> = own_word
        .iter()
        .map(|result| (&*result.case, result.outcome, result.duration_seconds))
        .collect();
    assert_eq!(
        told,
        [("a", CaseOutcome::Passed, None), ("b", CaseOutcome::Passed, None)]
    );
}

#[test]
fn a_list_that_tells_the_state_needs_no_other_request() {
    let mut shop = month();
    shop.tells_state = true;
    let mut source = empirical();
    let said = round(&mut source, &mut |request| shop.answer(request));
    assert!(
        !said.requests.iter().any(|request| request.contains("state=")),
        "{:?}",
        said.requests
    );
    assert_eq!(said.active(), ["301 prod started", "302 prod queued"]);
    shop.runs.insert(301, ("ended", 6));
    let said = round(&mut source, &mut |request| shop.answer(request));
    assert_eq!(said.requests[1..], ["GET /api/test-runs/301"]);
    assert_eq!(said.active(), ["302 prod queued"]);
}

#[test]
fn a_server_that_ignores_the_state_filter_is_noticed() {
    let mut shop = month();
    shop.runs.retain(|id, _| *id > 280);
    shop.shown.retain(|id| *id > 280);
    let mut source = empirical();
    let said = round(&mut source, &mut |request| {
        let plain: Vec<_> = request
            .query()
            .iter()
            .filter(|(key, _)| *key != "state")
            .cloned()
            .collect();
        match request.endpoint() {
            "/api/test-runs" => shop.answer(&Request::get("/api/test-runs", request.path().into(), plain)),
            _ => shop.answer(request),
        }
    });
    assert_eq!(said.failure, None);
    assert_eq!(said.active(), ["301 prod started", "302 prod queued"]);
    assert_eq!(said.runs().iter().filter(|run| run.ended.is_some()).count(), 20);
}

#[test]
fn many_open_runs_are_told_apart_by_four_lists() {
    let mut shop = Shop::new(&[(1, "ended", 500)]);
    let mut source = empirical();
    round(&mut source, &mut |request| shop.answer(request));
    shop.runs
        .extend((2..=31).map(|id| (id, (if id == 7 { "ended" } else { "pending" }, 5))));
    let said = round(&mut source, &mut |request| shop.answer(request));
    assert_eq!(said.requests.len(), 1 + 4 + 1, "{:?}", said.requests);
    assert_eq!(said.active().len(), 29);
    assert_eq!(said.runs().iter().map(|run| run.id).collect::<Vec<_>>(), [7]);
}

#[test]
fn a_backlog_larger_than_the_allowance_is_spread_over_rounds_new_runs_first() {
    let mut shop = Shop::new(&[(1, "ended", 500)]);
    let mut source = empirical();
    round(&mut source, &mut |request| shop.answer(request));
    shop.runs.extend((2..=31).map(|id| (id, ("ended", 5))));
    let first = round_at(&mut source, now(), 4, &mut |request| shop.answer(request));
    assert_eq!(first.runs().iter().map(|run| run.id).collect::<Vec<_>>(), [2, 3, 4, 5]);
    assert_eq!(source.progress().backlog, 26);
    let mut counted = 4;
    for _ in 0..7 {
        counted += round_at(&mut source, now(), 4, &mut |request| shop.answer(request))
            .runs()
            .len();
    }
    assert_eq!(counted, 30);
}

#[test]
fn a_batch_that_is_too_large_is_halved_and_those_after_it_are_no_larger() {
    let mut shop = Shop::new(&[(1, "ended", 500)]);
    shop.cases = vec!["c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8"];
    let mut source = empirical();
    let mut sizes = Vec::new();
    let said = round(&mut source, &mut |request| {
        if let Some(body) = request.body().filter(|body| body.contains("test_case_ids")) {
            let query: Value = serde_json::from_str(body).unwrap();
            sizes.push(query["test_case_ids"].as_array().unwrap().len());
            if sizes.last() > Some(&2) {
                return Err(Rejection::Status(413));
            }
        }
        shop.answer(request)
    });
    assert_eq!(sizes, [8, 4, 2, 2, 2, 2]);
    assert_eq!((said.failure, source.progress().cases_tracked), (None, 8));
}

#[test]
fn an_outage_costs_one_request_a_round() {
    let shop = Shop::new(&[(1, "ended", 500)]);
    let mut source = empirical();
    round(&mut source, &mut |request| shop.answer(request));
    let mut down = |_: &Request| Err(Rejection::Status(500));
    let first = round(&mut source, &mut down);
    assert_eq!(
        (first.requests.len(), first.failure),
        (3, Some(Rejection::Status(500))),
        "at first: is it one row?"
    );
    for _ in 0..5 {
        assert_eq!(round(&mut source, &mut down).requests.len(), 1);
    }
    assert_eq!(round(&mut source, &mut |request| shop.answer(request)).failure, None);
}

#[test]
fn rows_of_any_shape_never_end_the_round() {
    let odd = json!({"data": {"project": null, "test_runs": {"items": [
        null, 5, "x", {}, {"id": "12", "created_at": ago(10), "success_count": "3", "failed_count": 0.0, "state": "partial"},
        {"id": -4}, {"id": 13, "created_at": "soon", "environment_slug": null, "state": "ended"}]}}, "pagination": null});
    let mut source = empirical();
    let said = round(&mut source, &mut |request| match request.endpoint() {
        "/api/test-runs" if !request.query().iter().any(|(key, _)| *key == "state") => Ok(odd.clone()),
        "/api/test-runs" => Ok(json!({"data": {"test_runs": {"items": []}}})),
        _ => Err(Rejection::Status(404)),
    });
    assert_eq!(said.failure, None);
    assert!(
        said.learned
            .notices
            .iter()
            .any(|notice| matches!(notice, Notice::NoCases { hint }
        if hint == "discovery: run_details has found no case; the other modes are analytics, registry, static"))
    );
}

#[test]
fn a_body_of_another_shape_fails_the_round_and_says_where() {
    let mut source = empirical();
    let said = round(&mut source, &mut |_| Ok(json!({"data": {"test_runs": {}}})));
    let place = "the list of runs: `data.test_runs.items` is missing or not an array";
    assert_eq!(said.failure, Some(Rejection::Unreadable(place.into())));
}

// ---- Sample Platform, on recorded answers --------------------------------------------------------------------------------

const LIST_OF_RUNS: &str = "GET /api/test-runs?per_page=100&page=1&interval_in_days=30";

/// A shop whose newest runs were read when they finished, and its source.
fn read_shop() -> (Shop, Empirical) {
    let mut shop = Shop::new(&[(1, "ended", 5000), (2, "started", 300), (3, "started", 200)]);
    let mut source = empirical();
    round(&mut source, &mut |request| shop.answer(request));
    for id in [2, 3] {
        shop.runs.get_mut(&id).unwrap().0 = "ended";
    }
    shop.shown = vec![1, 2, 3];
    let said = round(&mut source, &mut |request| shop.answer(request));
    assert_eq!(said.runs().len(), 2, "{:?}", said.requests);
    round(&mut source, &mut |request| shop.answer(request));
    (shop, source)
}

#[test]
fn recent_runs_are_read_again_newest_first_and_histories_in_turn_within_what_is_granted() {
    let (shop, mut source) = read_shop();
    let mut round = |hours, rereads| {
        let said = round_after(&mut source, hours, rereads, &mut |request| shop.answer(request));
        assert_eq!(said.failure, None);
        assert_eq!(said.runs().len(), 0, "nothing has changed");
        assert_eq!(said.requests[0], LIST_OF_RUNS);
        said.requests[1..].to_vec()
    };
    assert_eq!(
        round(0, 9),
        [] as [String; 0],
        "what was read just now is not read again"
    );
    assert_eq!(round(1, 0), [] as [String; 0], "nor what nothing is granted for");
    assert_eq!(round(1, 1), ["GET /api/test-runs/3"]);
    assert_eq!(round(1, 9), ["GET /api/test-runs/2"], "run 1 finished too long ago");
    assert_eq!(round(1, 9), [] as [String; 0], "once an hour is enough");
    let history = r#"POST /api/v2/analytics/test-case-history/batch {"test_case_ids":["a","b"],"days":4,"limit_per_test_case":50}"#;
    assert_eq!(round(6, 2), [history, "GET /api/test-runs/3"], "they take turns");
    assert_eq!(round(6, 9), ["GET /api/test-runs/2"]);
}

#[test]
fn a_run_whose_row_was_edited_is_told_anew_and_its_results_are_read_again_within_what_is_granted() {
    let (shop, mut source) = read_shop();
    let edited = |request: &Request| {
        let mut answer = shop.answer(request)?;
        match request.endpoint() {
            "/api/test-runs" => answer["data"]["test_runs"]["items"][1]["failed_count"] = 2.into(),
            "/api/test-runs/{id}" => answer["data"]["test_run"]["testRun"]["failed_count"] = 2.into(),
            _ => {}
        }
        Ok(answer)
    };
    let at = |minutes| now() + SignedDuration::from_mins(minutes);
    let mut round = |minutes, rereads| {
        let requests = 1000;
        let said = round_within(
            &mut source,
            at(minutes),
            Allowance { requests, rereads },
            &mut |request| edited(request),
        );
        (
            said.runs().iter().map(|run| run.id).collect::<Vec<_>>(),
            said.requests.len(),
            said.requests.last().unwrap().clone(),
        )
    };
    assert_eq!(
        round(5, 0),
        (vec![2], 1, LIST_OF_RUNS.into()),
        "the list tells it for nothing"
    );
    assert_eq!(round(6, 1), (vec![], 2, "GET /api/test-runs/2".into()));
    assert_eq!(round(7, 9).1, 1, "the analytics have their time");
    let (runs, count, last) = round(10, 9);
    assert_eq!((runs, count), (vec![], 2));
    assert!(last.contains(r#"{"test_case_ids":["a","b"],"days":4"#), "{last}");
    assert_eq!(round(11, 9).1, 1);
}

#[test]
fn a_run_that_was_started_again_is_active_and_told_again_when_it_ends() {
    let (mut shop, mut source) = read_shop();
    shop.runs.get_mut(&3).unwrap().0 = "started";
    let mut emptied = shop.clone();
    emptied.shown = vec![1, 2];
    let said = round_after(&mut source, 2, 1, &mut |request| emptied.answer(request));
    assert_eq!(said.active(), ["3 prod started"]);
    assert_eq!(said.runs().len(), 0, "an open run has no outcome");
    shop.runs.insert(3, ("ended", 20));
    let said = round_after(&mut source, 3, 0, &mut |request| shop.answer(request));
    assert_eq!(said.active(), [] as [String; 0]);
    assert_eq!(said.runs()[0].ended, Some(ago(15).parse().unwrap()));
    assert!(
        said.results().iter().any(|result| result.run == 3),
        "{:?}",
        said.requests
    );
}

#[test]
fn a_row_that_tells_no_results_any_more_is_a_reason_to_ask_and_not_an_outcome() {
    let (shop, mut source) = read_shop();
    let started_again = |request: &Request| {
        let mut answer = shop.answer(request)?;
        if request.endpoint() == "/api/test-runs" {
            for field in ["success_count", "failed_count"] {
                answer["data"]["test_runs"]["items"][0][field] = 0.into();
            }
        } else {
            answer["data"]["test_run"]["testRun"]["state"] = "queued".into();
        }
        Ok(answer)
    };
    let said = round_after(&mut source, 0, 1, &mut |request| started_again(request));
    assert_eq!(said.requests, [LIST_OF_RUNS, "GET /api/test-runs/3"]);
    assert_eq!(
        (said.runs().len(), said.active()),
        (0, vec!["3 prod queued".to_owned()])
    );
}

#[test]
fn a_list_and_details_that_contradict_each_other_for_ever_cost_a_request_an_hour() {
    let (shop, mut source) = read_shop();
    let odd = |request: &Request| {
        let mut answer = shop.answer(request)?;
        if request.endpoint() == "/api/test-runs" {
            answer["data"]["test_runs"]["items"][0]["failed_count"] = 2.into();
        }
        Ok(answer)
    };
    let mut details = 0;
    for minute in 0..120 {
        let (requests, rereads) = (1000, 9);
        let at = now() + SignedDuration::from_mins(minute);
        let said = round_within(&mut source, at, Allowance { requests, rereads }, &mut |request| {
            odd(request)
        });
        details += said.requests.iter().filter(|line| line.ends_with("/3")).count();
    }
    assert!(details <= 4, "{details}");
}

#[test]
fn a_run_that_upstream_has_deleted_is_let_go_without_a_fuss() {
    let (mut shop, mut source) = read_shop();
    shop.runs.remove(&3);
    shop.shown = vec![1, 2];
    let said = round_after(&mut source, 2, 1, &mut |request| shop.answer(request));
    let is_news = |fact: &&Fact| !matches!(fact, Fact::Unread(_));
    let news = said.learned.facts.iter().filter(is_news).count();
    assert_eq!((said.failure.clone(), said.requests.len(), news), (None, 2, 1));
    assert!(
        matches!(&said.learned.notices[..], [Notice::RowSkipped { why, .. }] if why == "run 3 is gone"),
        "{:?}",
        said.learned.notices
    );
    let said = round_after(&mut source, 2, 9, &mut |request| shop.answer(request));
    assert_eq!(
        said.requests,
        [LIST_OF_RUNS, "GET /api/test-runs/2"],
        "it is not asked for again"
    );
    // It returns: read as a new one, and the store knows that it was counted.
    shop.runs.insert(3, ("ended", 200));
    let said = round_after(&mut source, 3, 0, &mut |request| shop.answer(request));
    assert_eq!(said.runs()[0].id, 3);
}

#[test]
fn re_reads_that_fail_neither_end_the_round_nor_come_again_at_once() {
    let (shop, mut source) = read_shop();
    let mut round = |hours| {
        let said = round_after(&mut source, hours, 9, &mut |request| match request.endpoint() {
            "/api/test-runs" => shop.answer(request),
            _ => Err(Rejection::Status(500)),
        });
        assert_eq!(said.failure, None);
        said.requests.len()
    };
    assert_eq!([round(6), round(6)], [4, 1], "two runs, one batch");
}

#[test]
fn a_case_that_no_run_lists_any_more_is_forgotten_and_taken_up_again_when_it_returns() {
    let mut shop = Shop::new(&[(1, "ended", 5000), (2, "ended", 300)]);
    let mut settings = settings(Kind::Empirical, Discovery::RunDetails);
    settings.cases.ids = vec!["kept".into()];
    let mut source = Empirical::new(settings);
    round(&mut source, &mut |request| shop.answer(request));
    assert_eq!(source.progress().cases_tracked, 3);
    shop.cases = vec!["a", "c"];
    shop.shown.clear();
    shop.runs.insert(3, ("ended", -10_000));
    let day = |days: i64| now() + SignedDuration::from_hours(24 * days);
    for days in [8, 13] {
        round_at(&mut source, day(days), 1000, &mut |request| shop.answer(request));
        assert_eq!(source.progress().cases_tracked, 4, "day {days}");
    }
    let said = round_at(&mut source, day(15), 1000, &mut |request| shop.answer(request));
    assert_eq!(source.progress().cases_tracked, 3, "b is not: {:?}", said.requests);
    shop.cases = vec!["a", "b"];
    shop.runs.insert(4, ("ended", -25_000));
    let said = round_at(&mut source, day(18), 1000, &mut |request| shop.answer(request));
    let asked = said.requests.iter().any(|line| line.contains(r#""b""#));
    assert_eq!(
        (source.progress().cases_tracked, asked),
        (4, true),
        "{:?}",
        said.requests
    );
}

#[test]
fn cases_beyond_the_limit_are_told_each_time_that_they_are_met() {
    let mut shop = Shop::new(&[(1, "ended", 500)]);
    shop.cases = vec!["a", "b", "c", "d"];
    let mut settings = settings(Kind::Empirical, Discovery::RunDetails);
    settings.cases.max = 3;
    let mut source = Empirical::new(settings);
    let said = round(&mut source, &mut |request| shop.answer(request));
    assert_eq!(source.progress().cases_tracked, 3);
    let refused = Notice::CasesRefused { cases: 1, max: 3 };
    assert_eq!(said.learned.notices, [refused]);
}

#[test]
fn cases_are_asked_about_in_the_order_of_their_wait_and_none_is_overtaken_for_ever() {
    let names: Vec<String> = (0..30).map(|case| format!("{case:02}")).collect();
    let mut shop = Shop::new(&[(1, "ended", 500)]);
    shop.cases = names.iter().map(|name| &*name.clone().leak()).collect();
    let mut settings = settings(Kind::Empirical, Discovery::RunDetails);
    settings.cases.batch_size = 5;
    settings.cases.ids = vec!["never listed".into()];
    let mut source = Empirical::new(settings);
    // A run of all cases every minute, and two requests a minute beside its details: six would be needed.
    let mut last_asked: BTreeMap<String, i64> = BTreeMap::new();
    let mut longest = 0;
    for minute in 0..240 {
        let id = 2 + u64::try_from(minute).unwrap();
        shop.runs.insert(id, ("ended", 10 - minute));
        shop.shown = vec![1, id];
        let at = now() + SignedDuration::from_mins(minute);
        let said = round_at(&mut source, at, 3, &mut |request| shop.answer(request));
        for line in said
            .requests
            .iter()
            .filter(|line| line.starts_with("POST") && line.contains("test_case_ids"))
        {
            let body: Value = serde_json::from_str(
                line.split_once(" {")
                    .map(|(_, body)| format!("{{{body}"))
                    .as_ref()
                    .unwrap(),
            )
            .unwrap();
            for case in body["test_case_ids"].as_array().unwrap() {
                let before = last_asked.insert(case.as_str().unwrap().to_owned(), minute);
                longest = longest.max(minute - before.unwrap_or(0));
            }
        }
    }
    assert_eq!(last_asked.len(), 31, "every case was asked about: {last_asked:?}");
    assert!(
        longest <= 63,
        "none waited longer than the handicap and a turn: {longest} minutes"
    );
}

#[test]
fn a_sample_platforms_recent_runs_are_read_again_a_page_at_a_time() {
    let mut runs: Vec<WholeRun> = vec![(1, "pass", 100, vec![(1, "pass")]), (2, "running", 2, vec![])];
    let mut source = sample_platform(Discovery::Runs);
    let answer = platform(runs.clone());
    round(&mut source, &mut |request| answer(request));
    let results: Vec<_> = (1..=150).map(|test| (test, "pass")).collect();
    runs[1] = (2, "fail", 1, results);
    let paged = |runs: Vec<WholeRun>| {
        let all = platform(runs.clone());
        move |request: &Request| {
            if request.endpoint() == "/runs/{run_id}" {
                let id: u64 = request.path().rsplit('/').next().unwrap().parse().unwrap();
                let rows = platform(runs.clone())(&Request::get(
                    "/runs",
                    "/runs".into(),
                    vec![("limit", "100".into()), ("offset", "0".into())],
                ))?;
                let row = rows["data"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .find(|row| row["run_id"] == id)
                    .cloned();
                return row.ok_or(Rejection::Status(404));
            }
            let mut answer = all(request)?;
            if request.endpoint() == "/runs/{run_id}/samples" {
                let number = |key: &str| -> usize {
                    request
                        .query()
                        .iter()
                        .find(|(name, _)| *name == key)
                        .unwrap()
                        .1
                        .parse()
                        .unwrap()
                };
                let rows = answer["data"].as_array().unwrap().clone();
                let total = rows.len();
                answer["data"] = rows
                    .into_iter()
                    .skip(number("offset"))
                    .take(number("limit"))
                    .collect::<Vec<_>>()
                    .into();
                answer["pagination"]["total"] = total.into();
            }
            Ok(answer)
        }
    };
    let answer = paged(runs.clone());
    let said = round(&mut source, &mut |request| answer(request));
    assert_eq!(said.results().len(), 150);
    // One result flips, as after an approval; the run's row stays what it was.
    runs[1].3[120].1 = "fail";
    let answer = paged(runs.clone());
    let (mut requests, mut facts) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let said = round_after(&mut source, 1, 1, &mut |request| answer(request));
        assert_eq!(said.failure, None);
        requests.extend(said.requests.into_iter().filter(|line| !line.starts_with("GET /runs?")));
        facts.extend(said.learned.facts);
    }
    // Run 1 was read at the first meeting, and is older than the window.
    assert_eq!(
        requests,
        [
            "GET /runs/2",
            "GET /runs/2/samples?limit=100&offset=0",
            "GET /runs/2/samples?limit=100&offset=100"
        ]
    );
    let flipped = |fact: &Fact| matches!(fact, Fact::Result(result) if &*result.case == "121" && result.outcome == CaseOutcome::Failed);
    assert!(facts.iter().any(flipped));
    let counted = |fact: &Fact| matches!(fact, Fact::Run(run) if run.id == 2 && run.counts[CaseOutcome::Failed.index()] == Some(1));
    assert!(facts.iter().any(counted), "its counts are those of its results");
    // It is deleted, and then everything fails: neither ends a round.
    runs.pop();
    let answer = paged(runs);
    let said = round_after(&mut source, 3, 9, &mut |request| answer(request));
    assert_eq!((said.failure, said.requests.len()), (None, 2), "{:?}", said.requests);
    let said = round_after(&mut source, 3, 9, &mut |request| answer(request));
    assert_eq!(said.requests.len(), 1);
}

fn recorded(name: &str) -> Value {
    let path = format!(
        "{}/tests/fixtures/sample-platform/{name}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// As if it were that of the run in the path.
fn recorded_summary(path: &str) -> Value {
    let mut summary = recorded("run_summary_fail");
    summary["run_id"] = path.split('/').nth(2).unwrap().parse::<u64>().unwrap().into();
    summary
}

fn page(data: &[Value]) -> Value {
    json!({"data": data, "meta": {}, "pagination": {"limit": 100, "next_offset": null, "offset": 0, "total": data.len()}})
}

#[test]
fn the_recorded_runs_are_read_as_they_are() {
    let mut settings = settings(Kind::SamplePlatform, Discovery::Runs);
    settings.lookback = Duration::from_secs(365 * 86_400);
    settings.cases.enabled = false;
    let mut source = SamplePlatform::new(settings);
    let said = round(&mut source, &mut |request| match request.endpoint() {
        "/runs" => Ok(recorded("runs")),
        "/runs/{run_id}/summary" => Ok(recorded_summary(request.path())),
        other => panic!("{other}"),
    });
    assert_eq!(said.active().len(), 9, "{:?}", said.active());
    let told: BTreeMap<u64, RunOutcome> = said.runs().iter().map(|run| (run.id, run.outcome)).collect();
    let count = |outcome| told.values().filter(|told| **told == outcome).count();
    let counts: Vec<_> = RunOutcome::ALL
        .iter()
        .map(|outcome| (outcome.label(), count(*outcome)))
        .collect();
    assert_eq!(
        counts,
        [
            ("passed", 11),
            ("failed", 58),
            ("error", 2),
            ("cancelled", 3),
            ("unknown", 0)
        ]
    );
    let run = said.runs().into_iter().find(|run| run.id == 2).unwrap().clone();
    assert_eq!((run.duration_seconds, run.queue_seconds()), (Some(1890.0), Some(240.0)));
    assert_eq!((&*run.group.environment, &*run.group.branch), ("windows", "master"));
}

/// A whole run: id, status, hours ago, results as (test, status).
type WholeRun = (u64, &'static str, i64, Vec<(u64, &'static str)>);

/// A Sample Platform of whole runs.
fn platform(runs: Vec<WholeRun>) -> impl Fn(&Request) -> Result<Value, Rejection> {
    let row = |(id, status, hours, _): &(u64, &str, i64, Vec<_>)| {
        json!({"run_id": id, "status": status, "platform": "linux",
        "branch": "master", "created_at": ago(hours * 60 + 10), "started_at": ago(hours * 60 + 8),
        "completed_at": if *status == "running" { Value::Null } else { ago(hours * 60).into() }})
    };
    move |request: &Request| {
        let id = request.path().split('/').nth(2).and_then(|id| id.parse::<u64>().ok());
        let query: BTreeMap<_, _> = request
            .query()
            .iter()
            .map(|(key, value)| (*key, value.clone()))
            .collect();
        match request.endpoint() {
            "/runs" => {
                let (limit, offset) = (query["limit"].parse().unwrap(), query["offset"].parse().unwrap());
                let mut list = page(&runs.iter().rev().skip(offset).take(limit).map(row).collect::<Vec<_>>());
                list["pagination"]["total"] = runs.len().into();
                Ok(list)
            }
            "/runs/{run_id}/samples" => {
                let run = runs.iter().find(|run| Some(run.0) == id).unwrap();
                let result = |(test, status): &(u64, &str)| {
                    json!({"regression_test_id": test, "sample_id": test * 10,
                    "sample_name": format!("sample {test}"), "status": status, "exit_code": 0, "expected_rc": 0,
                    "runtime_ms": 2500, "command": "--out=srt", "categories": ["DVB"], "outputs": []})
                };
                Ok(page(&run.3.iter().map(result).collect::<Vec<_>>()))
            }
            "/samples/{sample_id}/history" => {
                let test = query
                    .get("regression_test_id")
                    .map_or(id.unwrap() / 10, |test| test.parse().unwrap());
                let entries: Vec<Value> = runs.iter().rev().flat_map(|run| {
                    run.3.iter().filter(|(t, _)| *t == test).map(|(t, status)| json!({"run_id": run.0, "regression_test_id": t,
                        "status": status, "platform": "linux", "branch": "master", "tested_at": ago(run.2 * 60),
                        "failure_signature": if *status == "fail" { "diff_mismatch:output:1".into() } else { Value::Null }}))
                }).collect();
                Ok(page(&entries))
            }
            "/samples" => Ok(page(&[
                json!({"sample_id": 10, "original_name": "ten", "regression_test_count": 1}),
                json!({"sample_id": 20, "original_name": "twenty", "regression_test_count": 1}),
            ])),
            "/runs/{run_id}/summary" => Ok(
                json!({"run_id": id, "pass_count": 1, "fail_count": 1, "skipped_count": 0, "missing_output_count": 0}),
            ),
            other => panic!("unexpected {other}"),
        }
    }
}

fn sample_platform(discovery: Discovery) -> SamplePlatform {
    SamplePlatform::new(settings(Kind::SamplePlatform, discovery))
}

#[test]
fn a_first_round_reads_newest_runs_until_every_case_has_shown_a_pass_and_then_single_histories() {
    let mut runs: Vec<_> = (1..=40)
        .map(|id| (id, "fail", 100 - id as i64, vec![(1, "pass"), (2, "fail")]))
        .collect();
    runs[38].3[0].1 = "fail";
    runs[39].3[0].1 = "fail";
    let answer = platform(runs);
    let said = round(&mut sample_platform(Discovery::Runs), &mut |request| answer(request));
    insta::assert_snapshot!(said.requests.join("\n"), @r"
    GET /runs?limit=100&offset=0
    GET /runs/40/samples?limit=100&offset=0
    GET /runs/39/samples?limit=100&offset=0
    GET /runs/38/samples?limit=100&offset=0
    GET /samples/20/history?limit=100&offset=0&regression_test_id=2
    ");
    let failures = said
        .results()
        .iter()
        .filter(|result| &*result.case == "2")
        .map(|result| result.run)
        .collect::<Vec<_>>();
    assert_eq!(failures.len(), 40, "every failure of the case is known: {failures:?}");
}

#[test]
fn a_finished_run_costs_the_list_and_its_results_and_the_history_only_for_a_signature() {
    let mut runs: Vec<_> = (1..=3)
        .map(|id| (id, "pass", 100 - id as i64, vec![(1, "pass"), (2, "pass")]))
        .collect();
    let mut source = sample_platform(Discovery::Runs);
    let answer = platform(runs.clone());
    round(&mut source, &mut |request| answer(request));
    let idle = round(&mut source, &mut |request| answer(request));
    assert_eq!(idle.requests, ["GET /runs?limit=50&offset=0"]);
    runs.push((4, "fail", 1, vec![(1, "pass"), (2, "fail")]));
    let answer = platform(runs);
    let said = round(&mut source, &mut |request| answer(request));
    let history = "GET /samples/20/history?limit=100&offset=0&regression_test_id=2";
    assert_eq!(said.requests[1..], ["GET /runs/4/samples?limit=100&offset=0", history]);
    assert_eq!(said.runs()[0].counts[CaseOutcome::Failed.index()], Some(1));
    let told = said
        .results()
        .into_iter()
        .rfind(|result| &*result.case == "2")
        .unwrap()
        .clone();
    assert_eq!(told.failure_signature.as_deref(), Some("diff_mismatch:output:1"));
    assert_eq!(told.duration_seconds, Some(2.5), "what the run itself told is kept");
}

#[test]
fn the_other_modes_work_with_nothing_but_the_histories() {
    for discovery in [Discovery::Samples, Discovery::Static] {
        let mut settings = settings(Kind::SamplePlatform, discovery);
        if discovery == Discovery::Static {
            settings.cases.ids = vec!["10".into(), "20".into()];
        }
        let mut source = SamplePlatform::new(settings);
        let mut runs: Vec<_> = (1..=3)
            .map(|id| (id, "pass", 100 - id as i64, vec![(1, "pass"), (2, "fail")]))
            .collect();
        runs.push((4, "running", 1, vec![(1, "pass")]));
        let answer = platform(runs.clone());
        let first = round(&mut source, &mut |request| answer(request));
        assert_eq!(
            first.results().len(),
            6,
            "entries of the running run wait for its end: {:?}",
            first.results()
        );
        assert!(
            !first
                .requests
                .iter()
                .any(|request| request.contains("/samples?limit=100") && request.contains("/runs/"))
        );
        assert_eq!(
            round(&mut source, &mut |request| answer(request)).requests.len(),
            1,
            "idle"
        );
        runs[3].1 = "fail";
        let answer = platform(runs);
        let said = round(&mut source, &mut |request| answer(request));
        let new: Vec<_> = said.results().into_iter().filter(|result| result.run == 4).collect();
        assert_eq!(new.len(), 1, "{:?}", said.requests);
        let history = |id| format!("GET /samples/{id}/history?limit=100&offset=0");
        assert_eq!(
            said.requests[1..],
            ["GET /runs/4/summary".into(), history(10), history(20)]
        );
    }
}

#[test]
fn one_poisoned_row_is_left_out_and_costs_nothing_in_later_rounds() {
    let runs: Vec<_> = (1..=60)
        .map(|id| (id, "pass", 100 - id as i64, vec![(1, "pass")]))
        .collect();
    let answer = platform(runs);
    let mut source = sample_platform(Discovery::Runs);
    let mut poisoned = |request: &Request| {
        let reply = answer(request)?;
        let holds = |row: &Value| row["run_id"] == 50;
        let bad = request.endpoint() == "/runs" && reply["data"].as_array().unwrap().iter().any(holds);
        if bad { Err(Rejection::Status(500)) } else { Ok(reply) }
    };
    let first = round(&mut source, &mut poisoned);
    assert_eq!(first.failure, None, "{:?}", first.requests);
    assert_eq!(
        first
            .runs()
            .iter()
            .map(|run| run.id)
            .collect::<std::collections::BTreeSet<_>>()
            .len(),
        59
    );
    assert!(
        first
            .learned
            .notices
            .iter()
            .any(|notice| matches!(notice, Notice::RowSkipped { .. }))
    );
    let idle = round(&mut source, &mut poisoned);
    assert_eq!(idle.requests, ["GET /runs?limit=5&offset=0"]);
}

#[test]
fn open_runs_behind_the_first_page_are_told_by_two_lists() {
    let mut runs: Vec<_> = (1..=10).map(|id| (id, "running", 90, Vec::new())).collect();
    runs.extend((11..=80).map(|id| (id, "pass", 80, vec![(1, "pass")])));
    let answer = platform(runs);
    let mut source = sample_platform(Discovery::Runs);
    let mut filtered = |request: &Request| {
        let mut reply = answer(request)?;
        if let Some((_, status)) = request.query().iter().find(|(key, _)| *key == "status") {
            let all = Request::get(
                "/runs",
                "/runs".into(),
                vec![("limit", "100".into()), ("offset", "0".into())],
            );
            let rows: Vec<Value> = answer(&all)?["data"].as_array().unwrap().clone();
            reply = page(
                &rows
                    .into_iter()
                    .filter(|row| row["status"] == **status)
                    .collect::<Vec<_>>(),
            );
        }
        Ok(reply)
    };
    round(&mut source, &mut filtered);
    let idle = round(&mut source, &mut filtered);
    let open = |status| format!("GET /runs?limit=100&offset=0&status={status}");
    assert_eq!(
        idle.requests,
        [
            "GET /runs?limit=50&offset=0".to_owned(),
            open("queued"),
            open("running")
        ]
    );
    assert_eq!(idle.active().len(), 10);
}

#[test]
fn a_restarted_run_is_active_again_and_read_again() {
    let mut runs: Vec<_> = (1..=2)
        .map(|id| (id, "pass", 100 - id as i64, vec![(1, "pass")]))
        .collect();
    let mut source = sample_platform(Discovery::Runs);
    let answer = platform(runs.clone());
    round(&mut source, &mut |request| answer(request));
    runs[1].1 = "running";
    let answer = platform(runs.clone());
    let said = round(&mut source, &mut |request| answer(request));
    assert_eq!(
        (said.active(), said.requests.len()),
        (vec!["2 linux started".to_owned()], 1)
    );
    runs[1] = (2, "fail", 1, vec![(1, "missing_output")]);
    let answer = platform(runs);
    let said = round(&mut source, &mut |request| answer(request));
    assert_eq!(said.requests[1..], ["GET /runs/2/samples?limit=100&offset=0"]);
    let result = said.results()[0].clone();
    assert_eq!((result.run, result.outcome), (2, CaseOutcome::MissingOutput));
    assert_eq!(result.failure_signature.as_deref(), Some("missing_output"));
}

#[test]
fn recorded_results_add_up_to_the_recorded_summary_and_tell_the_signature() {
    let run = recorded("run_fail");
    let mut source = {
        let mut settings = settings(Kind::SamplePlatform, Discovery::Runs);
        settings.lookback = Duration::from_secs(365 * 86_400);
        SamplePlatform::new(settings)
    };
    let said = round(&mut source, &mut |request| match request.endpoint() {
        "/runs" => Ok(page(std::slice::from_ref(&run))),
        "/runs/{run_id}/samples" => Ok(recorded("run_samples_fail")),
        other => panic!("{other}"),
    });
    let summary = recorded("run_summary_fail");
    let counts = said.runs().last().unwrap().counts;
    assert_eq!(counts[CaseOutcome::Passed.index()], summary["pass_count"].as_u64());
    assert_eq!(counts[CaseOutcome::Failed.index()], summary["fail_count"].as_u64());
    assert_eq!(
        counts[CaseOutcome::Skipped.index()],
        None,
        "the results do not tell what was skipped"
    );
    let failed: Vec<_> = said
        .results()
        .into_iter()
        .filter(|result| result.outcome == CaseOutcome::Failed)
        .collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(
        failed[0].failure_signature.as_deref(),
        Some("exit_code_mismatch:rc:137")
    );
    let info = |fact: &Fact| matches!(fact, Fact::Case(info) if &*info.case == "29" && &*info.name == "sample_16.asf");
    assert!(said.learned.facts.iter().any(info));
}

#[test]
fn cases_that_are_turned_off_are_let_go_with_all_that_was_to_come_of_them() {
    let (mut shop, mut source) = read_shop();
    shop.runs.insert(4, ("ended", 10));
    // Its results are awaited, and whoever names its environment with them.
    let nameless = |request: &Request| {
        let mut answer = shop.answer(request)?;
        match request.endpoint() {
            "/api/test-runs" => answer["data"]["test_runs"]["items"][0]["environment_slug"] = Value::Null,
            "/api/test-runs/{id}" => answer["data"]["test_run"]["testRun"]["environment_slug"] = Value::Null,
            _ => {}
        }
        Ok(answer)
    };
    let said = round(&mut source, &mut |request| nameless(request));
    assert_eq!((said.runs().len(), source.progress().cases_tracked), (0, 2));
    let mut settings = settings(Kind::Empirical, Discovery::RunDetails);
    settings.cases.enabled = false;
    let mut off = Empirical::new(settings);
    off.restore(&source.memory().unwrap()).unwrap();
    let said = round_after(&mut off, 9, 0, &mut |request| nameless(request));
    assert_eq!(said.requests, [LIST_OF_RUNS], "no history any more");
    assert_eq!(said.runs().iter().map(|run| run.id).collect::<Vec<_>>(), [4]);
    assert_eq!((off.progress().cases_tracked, off.progress().oldest_refresh), (0, None));
}

#[test]
fn a_sample_platforms_cases_are_turned_off_in_every_mode() {
    let runs: Vec<_> = (1..=3)
        .map(|id| (id, "pass", 100 - id as i64, vec![(1, "pass"), (2, "fail")]))
        .collect();
    let answer = platform(runs);
    for discovery in [Discovery::Runs, Discovery::Samples, Discovery::Static] {
        let mut settings = settings(Kind::SamplePlatform, discovery);
        settings.cases.ids = vec!["10".into(), "20".into()];
        let mut source = SamplePlatform::new(settings.clone());
        round(&mut source, &mut |request| answer(request));
        assert_eq!(source.progress().cases_tracked, 2);
        settings.cases.enabled = false;
        let mut off = SamplePlatform::new(settings);
        off.restore(&source.memory().unwrap()).unwrap();
        let said = round_after(&mut off, 9, 9, &mut |request| answer(request));
        let histories = said.requests.iter().filter(|line| line.contains("/samples"));
        assert_eq!((histories.count(), said.results().len()), (0, 0), "{:?}", said.requests);
        assert_eq!((off.progress().cases_tracked, off.progress().backlog), (0, 0));
    }
}

#[test]
fn other_branches_in_the_settings_are_no_reason_to_read_finished_runs_again() {
    let mut runs: Vec<_> = (1..=2).map(|id| (id, "pass", 90, vec![(1, "pass")])).collect();
    let mut source = sample_platform(Discovery::Runs);
    let answer = platform(runs.clone());
    round(&mut source, &mut |request| answer(request));
    runs.push((3, "pass", 1, vec![(1, "pass")]));
    let answer = platform(runs.clone());
    round(&mut source, &mut |request| answer(request));
    let mut settings = settings(Kind::SamplePlatform, Discovery::Runs);
    settings.branches = Branches::new(vec![BranchRule::Exact("release".into())]);
    let mut changed = SamplePlatform::new(settings);
    changed.restore(&source.memory().unwrap()).unwrap();
    let said = round(&mut changed, &mut |request| answer(request));
    // Run 1 is the first that is read under the new label.
    let again = said.requests.iter().any(|line| line.contains("/runs/3/"));
    assert!(!again, "{:?}", said.requests);
    runs.push((4, "pass", 0, vec![(1, "pass")]));
    let answer = platform(runs);
    let said = round(&mut changed, &mut |request| answer(request));
    assert_eq!((said.runs()[0].id, &*said.runs()[0].group.branch), (4, "__other__"));
}

#[test]
fn a_re_read_that_fails_costs_one_request_and_leaves_the_size_of_a_batch_alone() {
    let runs: Vec<_> = (1..=3).map(|id| (id, "pass", 100, vec![(1, "pass")])).collect();
    let answer = platform(runs);
    let mut settings = settings(Kind::SamplePlatform, Discovery::Static);
    settings.cases.ids = vec!["10".into()];
    let mut source = SamplePlatform::new(settings);
    round(&mut source, &mut |request| answer(request));
    let said = round_after(&mut source, 9, 9, &mut |request| match request.endpoint() {
        "/samples/{sample_id}/history" => Err(Rejection::Status(500)),
        _ => answer(request),
    });
    let histories = said.requests.iter().filter(|line| line.starts_with("GET /samples/10"));
    assert_eq!(
        (said.failure.clone(), histories.count()),
        (None, 1),
        "{:?}",
        said.requests
    );

    let (mut shop, mut source) = read_shop();
    let said = round_after(&mut source, 9, 9, &mut |request| match request.body() {
        Some(_) => Err(Rejection::Status(413)),
        None => shop.answer(request),
    });
    let batches = said.requests.iter().filter(|line| line.starts_with("POST")).count();
    assert_eq!(
        (said.failure.clone(), batches),
        (None, 3),
        "both cases, then each: {:?}",
        said.requests
    );
    shop.runs.insert(4, ("ended", 0));
    shop.shown = vec![1, 2, 3, 4];
    let said = round_after(&mut source, 10, 0, &mut |request| shop.answer(request));
    assert!(
        said.requests.last().unwrap().contains(r#"["a","b"]"#),
        "{:?}",
        said.requests
    );
}

/// A shop, and a source that reads its snoozes.
fn snoozing() -> (Shop, Empirical) {
    let settings = Settings {
        snoozes: Some(Duration::from_secs(600)),
        ..settings(Kind::Empirical, Discovery::RunDetails)
    };
    (Shop::new(&[(1, "ended", 500)]), Empirical::new(settings))
}

const SNOOZES: &str = "GET /api/snoozes?status=active&per_page=100&page=1";

fn snooze_list(rows: &[Value]) -> Value {
    json!({"data": {"snoozes": rows}, "pagination": {"page": 1, "per_page": 100, "total": rows.len(), "total_pages": 1}})
}

/// What was told of snoozes, in order.
fn told_snoozes(said: &Said) -> Vec<Option<Vec<Snooze>>> {
    let snoozes = |fact: &Fact| {
        if let Fact::Snoozes(snoozes) = fact {
            Some(snoozes.clone())
        } else {
            None
        }
    };
    said.learned.facts.iter().filter_map(snoozes).collect()
}

fn advice(said: &Said) -> String {
    let advice = said.learned.notices.iter();
    advice
        .filter_map(|notice| match notice {
            Notice::Advice(text) => Some(text.as_str()),
            _ => None,
        })
        .collect::<Vec<_>>()
        .join("; ")
}

/// Rounds a minute apart; gives the minutes in which snoozes were asked for.
fn minutes_with_snoozes(
    source: &mut Empirical,
    minutes: std::ops::Range<i64>,
    answer: &mut dyn FnMut(&Request) -> Result<Value, Rejection>,
) -> Vec<i64> {
    let mut asked = Vec::new();
    for minute in minutes {
        let said = round_at(source, now() + SignedDuration::from_mins(minute), 1000, answer);
        assert_eq!(said.failure, None, "minute {minute}");
        if said.requests.iter().any(|line| line.starts_with("GET /api/snoozes")) {
            asked.push(minute);
        }
    }
    asked
}

#[test]
fn snoozes_are_asked_for_once_an_interval_and_told_when_they_change() {
    let (shop, mut source) = snoozing();
    let until = "2026-11-23T00:00:00Z";
    let mut rows =
        vec![json!({"id": 1, "test_ids": ["a", "b"], "snooze_until": until, "scoped_to_environment_id": null})];
    let mut told = Vec::new();
    for minute in 0..25 {
        if minute == 15 {
            rows.push(json!({"id": 2, "test_ids": ["c"], "snooze_until": until}));
            rows.push(json!({"id": 3, "test_ids": ["d"], "snooze_until": "soon"}));
        }
        let at = now() + SignedDuration::from_mins(minute);
        let said = round_at(&mut source, at, 1000, &mut |request| match request.path() {
            "/api/snoozes" => Ok(snooze_list(&rows)),
            _ => shop.answer(request),
        });
        assert_eq!(
            said.requests.contains(&SNOOZES.to_owned()),
            minute % 10 == 0,
            "minute {minute}"
        );
        told.extend(
            told_snoozes(&said)
                .into_iter()
                .map(|snoozes| (minute, snoozes.unwrap().len())),
        );
    }
    assert_eq!(told, [(0, 1), (20, 2)], "a row without a time is passed over");
    let memory = source.memory().unwrap();
    let mut next = snoozing().1;
    next.restore(&memory).unwrap();
    let at = now() + SignedDuration::from_mins(25);
    let said = round_at(&mut next, at, 1000, &mut |request| shop.answer(request));
    assert_eq!(
        said.requests.len(),
        1,
        "a restart asks for nothing: {:?}",
        said.requests
    );
    assert_eq!(
        told_snoozes(&said)[0].as_ref().map(Vec::len),
        Some(2),
        "but tells what it remembers"
    );
}

#[test]
fn snoozes_are_not_asked_for_unless_that_is_wanted_and_taken_back_when_it_is_no_longer() {
    let (shop, mut source) = snoozing();
    let row = json!({"id": 1, "test_ids": ["a"], "snooze_until": "2026-11-23T00:00:00Z"});
    round(&mut source, &mut |request| match request.path() {
        "/api/snoozes" => Ok(snooze_list(std::slice::from_ref(&row))),
        _ => shop.answer(request),
    });
    let mut without = empirical();
    without.restore(&source.memory().unwrap()).unwrap();
    let said = round(&mut without, &mut |request| shop.answer(request));
    assert_eq!(told_snoozes(&said), [None]);
    let said = round(&mut without, &mut |request| shop.answer(request));
    assert_eq!((told_snoozes(&said), said.requests.len()), (vec![], 1));
}

#[test]
fn a_platform_that_refuses_snoozes_is_asked_once_a_day_and_the_rounds_go_on() {
    for status in [400, 403, 404] {
        let (shop, mut source) = snoozing();
        let mut answer = |request: &Request| match request.path() {
            "/api/snoozes" => {
                assert!(request.may_be_forbidden());
                Err(Rejection::Status(status))
            }
            _ => shop.answer(request),
        };
        let asked = minutes_with_snoozes(&mut source, 0..1500, &mut answer);
        assert_eq!(asked, [0, 1440], "{status}");
        let said = round_at(&mut source, now() + SignedDuration::from_mins(1500), 1000, &mut answer);
        assert!(
            advice(&said).contains("refuses to tell the snoozes"),
            "{}",
            advice(&said)
        );
    }
}

#[test]
fn snoozes_that_were_told_are_taken_back_when_the_platform_refuses_them() {
    let (shop, mut source) = snoozing();
    let row = json!({"id": 1, "test_ids": ["a"], "snooze_until": "2026-12-23T00:00:00Z"});
    let mut told = Vec::new();
    for minute in 0..60 {
        let at = now() + SignedDuration::from_mins(minute);
        let said = round_at(&mut source, at, 1000, &mut |request| match request.path() {
            "/api/snoozes" if minute >= 5 => Err(Rejection::Status(403)),
            "/api/snoozes" => Ok(snooze_list(std::slice::from_ref(&row))),
            _ => shop.answer(request),
        });
        told.extend(
            told_snoozes(&said)
                .into_iter()
                .map(|snoozes| (minute, snoozes.is_some())),
        );
    }
    assert_eq!(told, [(0, true), (10, false)]);
}

#[test]
fn where_there_is_room_for_one_request_in_a_round_snoozes_and_histories_take_turns() {
    let (shop, mut source) = snoozing();
    let mut asked = String::new();
    for round in 0..7 {
        // Snoozes are due in each of them.
        let at = now() + SignedDuration::from_mins(10 * round);
        let said = round_at(&mut source, at, 1, &mut |request| match request.path() {
            "/api/snoozes" => Ok(snooze_list(&[])),
            _ => shop.answer(request),
        });
        asked.extend(said.requests.iter().map(|request| match request.as_str() {
            SNOOZES => 's',
            request if request.starts_with("POST") => 'h',
            _ => '.',
        }));
    }
    let turns: String = asked.chars().filter(|asked| *asked != '.').collect();
    assert!(turns.starts_with("sh"), "{asked}");
    assert!(!turns.contains("ssh"), "{asked}");
}

#[test]
fn snoozes_that_cannot_be_read_for_long_are_let_go_and_no_round_fails_for_their_sake() {
    let (shop, mut source) = snoozing();
    let row = json!({"id": 1, "test_ids": ["a"], "snooze_until": "2026-12-23T00:00:00Z"});
    let mut told = Vec::new();
    for minute in 0..120 {
        let said = round_at(
            &mut source,
            now() + SignedDuration::from_mins(minute),
            1000,
            &mut |request| match request.path() {
                "/api/snoozes" if (5..80).contains(&minute) => Err(Rejection::Status(500)),
                "/api/snoozes" => Ok(snooze_list(std::slice::from_ref(&row))),
                _ => shop.answer(request),
            },
        );
        assert_eq!(said.failure, None, "minute {minute}");
        told.extend(
            told_snoozes(&said)
                .into_iter()
                .map(|snoozes| (minute, snoozes.is_some())),
        );
    }
    assert_eq!(told, [(0, true), (31, false), (80, true)]);
}

#[test]
fn a_snooze_for_an_environment_that_nobody_has_named_holds_nowhere_until_somebody_does() {
    let (shop, mut source) = snoozing();
    let row =
        json!({"id": 1, "test_ids": ["a"], "snooze_until": "2026-11-23T00:00:00Z", "scoped_to_environment_id": 35});
    let mut answer = |request: &Request| match request.path() {
        "/api/snoozes" => Ok(snooze_list(std::slice::from_ref(&row))),
        _ => shop.answer(request),
    };
    let said = round(&mut source, &mut answer);
    assert_eq!(told_snoozes(&said), [Some(vec![])]);
    assert!(advice(&said).contains("(id 35)"), "{}", advice(&said));
    let mut named = settings(Kind::Empirical, Discovery::RunDetails);
    named.environments.insert("35".into(), "staging".into());
    named.snoozes = Some(Duration::from_secs(600));
    let mut named = Empirical::new(named);
    named.restore(&source.memory().unwrap()).unwrap();
    let said = round(&mut named, &mut answer);
    let snoozes = told_snoozes(&said).remove(0).unwrap();
    assert_eq!(snoozes[0].environment.as_deref(), Some("staging"));
    assert_eq!(advice(&said), "");
}

#[test]
fn many_snoozes_are_read_page_by_page_and_told_when_all_are_there() {
    let (shop, mut source) = snoozing();
    let mut lines = Vec::new();
    // One request beyond the list in each round.
    for minute in 0..8 {
        let said = round_at(
            &mut source,
            now() + SignedDuration::from_mins(minute),
            1,
            &mut |request| {
                if request.path() != "/api/snoozes" {
                    return shop.answer(request);
                }
                let page: usize = request.query()[2].1.parse().unwrap();
                let rows: Vec<Value> = (0..if page < 3 { 100 } else { 7 })
                .map(|id| json!({"id": id, "test_ids": [format!("{page}-{id}")], "snooze_until": "2026-11-23T00:00:00Z"}))
                .collect();
                let mut list = snooze_list(&rows);
                list["pagination"]["total_pages"] = 3.into();
                Ok(list)
            },
        );
        let told = told_snoozes(&said).into_iter().map(|snoozes| snoozes.unwrap().len());
        lines.extend(said.requests.into_iter().filter(|line| line.contains("snoozes")));
        lines.extend(told.map(|count| format!("{count} told")));
    }
    let page = |page: usize| format!("GET /api/snoozes?status=active&per_page=100&page={page}");
    assert_eq!(lines, [page(1), page(2), page(3), "207 told".to_owned()]);
}

#[test]
fn failures_that_are_left_after_snoozes_are_told_when_they_change_and_make_no_run_suspect() {
    let shop = Shop::new(&[(1, "ended", 500)]);
    let mut source = empirical();
    let mut left = 1;
    let mut told = Vec::new();
    for minute in 0..4 {
        if minute == 2 {
            left = 0;
        }
        let said = round_after(&mut source, minute, 10, &mut |request| {
            let mut reply = shop.answer(request)?;
            if let Some(row) = reply.pointer_mut("/data/test_runs/items/0") {
                row["failed_count_after_snoozing"] = left.into();
            }
            Ok(reply)
        });
        let after = |fact: &Fact| {
            if let Fact::FailedAfterSnooze { run, failed } = fact {
                Some((minute, *run, *failed))
            } else {
                None
            }
        };
        told.extend(said.learned.facts.iter().filter_map(after));
        assert!(minute == 0 || said.runs().is_empty(), "{:?}", said.requests);
    }
    assert_eq!(told, [(0, 1, 1), (2, 1, 0)]);
}

#[test]
fn tags_are_told_sorted_where_a_list_tells_them_and_details_do_not_take_them_away() {
    let shop = Shop::new(&[(1, "ended", 500)]);
    let odd = json!(["slow", "@smoke", "slow", ""]);
    // Each as its platform's documents show it.
    let analytics = json!({"data": {"test_cases": [{"test_case_id": "a", "test_name": "a", "file_path": "cart.spec.ts",
        "project_name": "chromium", "tags": odd}], "summary": {"total_test_cases": 1}}});
    let registry = json!({"data": {"test_cases": [{"id": "a", "name": "a", "file_path": "cart.spec.ts", "suites": ["cart"],
        "playwright_project": "chromium", "tags": odd, "created_at": ago(9_000), "updated_at": ago(9_000),
        "first_seen_commit_sha": null, "last_seen_commit_sha": null}], "sync_error": null},
        "pagination": {"page": 1, "per_page": 100, "total": 1, "total_pages": 1, "has_more": false}});
    let lists = [
        (Discovery::Analytics, "/api/v2/analytics/test-cases", analytics),
        (Discovery::Registry, "/api/v2/test-cases", registry),
    ];
    for (discovery, path, list) in lists {
        let listed = Settings {
            cases: CaseSettings {
                ids: vec!["a".into()],
                ..settings(Kind::Empirical, discovery).cases
            },
            ..settings(Kind::Empirical, discovery)
        };
        let mut source = Empirical::new(listed);
        let mut said = round(&mut source, &mut |request| {
            if request.path() == path {
                Ok(list.clone())
            } else {
                shop.answer(request)
            }
        });
        let last = told_tags(&said).last().map(|(_, tags)| tags.clone());
        assert_eq!(last, Some(Some("@smoke,slow".into())), "{:?}", said.requests);
        said = round_after(&mut source, 30, 10, &mut |request| shop.answer(request));
        let tags = told_tags(&said);
        assert!(tags.iter().all(|(_, tags)| tags.as_deref() == Some("@smoke,slow")));
    }
}

/// By case, in the order in which they were told.
fn told_tags(said: &Said) -> Vec<(Name, Option<Name>)> {
    let info = |fact: &Fact| {
        if let Fact::Case(info) = fact {
            Some((info.case.clone(), info.tags.clone()))
        } else {
            None
        }
    };
    said.learned.facts.iter().filter_map(info).collect()
}

#[test]
fn the_recorded_samples_lend_their_tags_to_the_tests_that_read_them() {
    let mut settings = settings(Kind::SamplePlatform, Discovery::Samples);
    settings.lookback = Duration::from_secs(365 * 86_400);
    let mut source = SamplePlatform::new(settings);
    let said = round(&mut source, &mut |request| match request.endpoint() {
        "/runs" => Ok(recorded("runs")),
        "/runs/{run_id}/summary" => Ok(recorded_summary(request.path())),
        "/samples" => Ok(recorded("samples")),
        "/samples/{sample_id}/history" => match request.path().split('/').nth(2) {
            Some("15") => Ok(recorded("history_s15_rt25")),
            Some("20") => Ok(recorded("history_s20_rt34")),
            _ => Ok(page(&[])),
        },
        other => panic!("{other}"),
    });
    let told: BTreeMap<Name, Option<Name>> = told_tags(&said).into_iter().collect();
    let expected = [("25", "hardsubx,teletext"), ("34", "")];
    let expected = expected.map(|(case, tags)| (Name::from(case), Some(Name::from(tags))));
    assert_eq!(told, expected.into(), "{:?}", said.requests);
}
