//! What a source's own work costs after an outage: 200 runs of 2,000 of 10,000 cases have finished since the round before. Prints how
//! long the answers of a round took to read, by what was asked; what the platform takes to make them is not in it.
//! `cargo bench --bench sources -- [RUNS] [CASES]`.

#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use testrun_exporter::sources::empirical::Empirical;
use testrun_exporter::sources::{
    Allowance, BranchRule, Branches, CaseSettings, Discovery, DurationUnit, Kind, Settings, Source,
};
use testrun_exporter::transport::{Reply, Request};

/// Each run has a fifth of the cases, the next one those that follow.
const PART: usize = 5;
/// More than a round ever makes.
const REQUESTS_MAX: usize = 20_000;

/// A platform on which every run passes.
struct Shop {
    cases: usize,
    runs: usize,
    now: Timestamp,
}

impl Shop {
    /// The runs are ten minutes apart, the newest one is an hour old.
    fn ended(&self, run: usize) -> Timestamp {
        let minutes = 60 + 10 * (self.runs - run);
        self.now - SignedDuration::from_mins(i64::try_from(minutes).unwrap())
    }

    fn name(case: usize) -> String {
        format!("bd4f0c1e96a2d88f31c0{case:012}")
    }

    fn has(&self, run: usize, case: usize) -> bool {
        case * PART / self.cases == run % PART
    }

    fn row(&self, run: usize) -> Value {
        let ended = self.ended(run).to_string();
        json!({"id": run, "state": "ended", "success_count": self.cases / PART, "failed_count": 0, "flaky_count": 0,
            "environment_slug": "production", "test_run_branch": "main", "created_at": ended, "run_started_at": ended,
            "run_ended_at": ended})
    }

    fn answer(&self, request: &Request) -> Value {
        match request.endpoint() {
            "/api/test-runs" => {
                let query: BTreeMap<_, _> = request.query().iter().map(|(key, value)| (*key, value)).collect();
                let number = |key: &str| query[key].parse::<usize>().unwrap();
                let (size, page) = (number("per_page"), number("page"));
                let shown = (1..=self.runs).rev().filter(|_| !query.contains_key("state"));
                let rows: Vec<_> = shown
                    .skip((page - 1) * size)
                    .take(size)
                    .map(|run| self.row(run))
                    .collect();
                json!({"data": {"project": {"slug": "shop"}, "test_runs": {"items": rows}},
                    "pagination": {"total": self.runs}})
            }
            "/api/test-runs/{id}" => {
                let run = request.path().rsplit('/').next().unwrap().parse().unwrap();
                let cases = (0..self.cases).filter(|case| self.has(run, *case)).map(|case| {
                    json!({"pw_test_id": Self::name(case), "status": "passed", "nesting": ["a.spec.ts", "suite", "title"]})
                });
                let cases: Vec<_> = cases.collect();
                json!({"data": {"test_run": {"testRun": self.row(run), "flattenedSummaryDetails": cases}}})
            }
            "/api/v2/analytics/test-case-history/batch" => {
                let query: Value = serde_json::from_str(request.body().unwrap()).unwrap();
                let limit = usize::try_from(query["limit_per_test_case"].as_u64().unwrap()).unwrap();
                let history = query["test_case_ids"].as_array().unwrap().iter().map(|id| {
                    let id = id.as_str().unwrap();
                    let case: usize = id[20..].parse().unwrap();
                    let runs = (1..=self.runs).rev().filter(|run| self.has(*run, case)).take(limit);
                    let rows: Vec<_> = runs
                        .map(|run| {
                            json!({"status": "pass", "test_run_id": run.to_string(), "environment_id": "7",
                                "executed_at": self.ended(run).to_string(), "duration_total": 1500, "retries": 0})
                        })
                        .collect();
                    (id.to_owned(), Value::Array(rows))
                });
                let history: serde_json::Map<_, _> = history.collect();
                json!({"data": {"history_by_test_case_id": history}, "meta": {"truncated_test_case_ids": []}})
            }
            _ => json!({"data": []}),
        }
    }
}

/// By what was asked: how often, how long all answers took to read, and the longest of them.
type Times = BTreeMap<&'static str, (u32, Duration, Duration)>;

fn round(source: &mut Empirical, shop: &Shop) -> Times {
    let mut times = Times::new();
    let mut note = |what, began: Instant| {
        let (count, all, longest) = times.entry(what).or_default();
        let took = began.elapsed();
        *count += 1;
        *all += took;
        *longest = took.max(*longest);
    };
    let began = Instant::now();
    source.begin(
        shop.now,
        Allowance {
            requests: REQUESTS_MAX,
            rereads: 0,
        },
    );
    note("begin", began);
    while let Some(request) = source.next() {
        let body = Bytes::from(shop.answer(&request).to_string());
        let reply = Reply {
            status: 200,
            headers: HeaderMap::new(),
            body,
        };
        let began = Instant::now();
        drop(source.accept(&reply).unwrap());
        note(request.endpoint(), began);
    }
    times
}

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let (runs, cases) = (
        numbers.first().copied().unwrap_or(200),
        numbers.get(1).copied().unwrap_or(10_000),
    );
    let mut source = Empirical::new(Settings {
        kind: Kind::Empirical,
        lookback: Duration::from_secs(30 * 86_400),
        series_ttl: Duration::from_secs(14 * 86_400),
        branches: Branches::new(vec![BranchRule::Exact("main".into())]),
        environments: BTreeMap::new(),
        run_duration_unit: DurationUnit::Auto,
        snoozes: None,
        cases: CaseSettings {
            enabled: true,
            discovery: Discovery::RunDetails,
            ids: Vec::new(),
            include: Vec::new(),
            exclude: Vec::new(),
            max: cases,
            batch_size: 50,
            analytics_lag: Duration::from_secs(180),
        },
    });
    let met = Timestamp::from_second(1_795_300_000).unwrap();
    let minutes = |runs: usize| SignedDuration::from_mins(10 * i64::try_from(runs).unwrap());
    for (what, runs) in [("the first meeting", 10), ("after the outage", 10 + runs)] {
        let now = met + minutes(runs);
        println!("{what}, {runs} runs of {} cases:", cases / PART);
        for (asked, (count, all, longest)) in round(&mut source, &Shop { cases, runs, now }) {
            println!(
                "  {asked}: {count}, {all:.1?} in all, {:.2?} each, {longest:.1?} at the most",
                all / count
            );
        }
    }
}
