//! A week of answers, as one number: what is made faster must not say anything else. The numbers were taken from the
//! code before it was made faster; whoever changes a world on purpose takes new ones and says so.

use std::time::Duration;

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderValue};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::sources::Kind;

const MINUTE: Duration = Duration::from_secs(60);

/// FNV-1a, 64 bits.
struct Hash(u64);

impl Hash {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

/// The hard world as it was when the numbers were taken: spelled out, so that a harder exam leaves them alone.
fn hard(kind: Kind, start: Timestamp) -> WorldOptions {
    WorldOptions {
        cases: 60,
        runs_before: 100,
        runs_after: Some(1500),
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
        list_tells_state: kind == Kind::Empirical,
        ..WorldOptions::new(kind, 5, start)
    }
}

/// The calls of one step, which reach every endpoint, filter and refusal sooner or later.
fn calls(kind: Kind, step: u64, newest: u64, ids: &[String]) -> Vec<(&'static str, String, Value)> {
    let get = |target: String| ("GET", target, Value::Null);
    let page = step % 4 + 1;
    match kind {
        Kind::Empirical => {
            let run = newest.saturating_sub(step % 9);
            let part: Vec<&String> = ids.iter().skip((step % 50) as usize).take(12).collect();
            vec![
                get(format!("/api/test-runs?per_page=20&page={page}")),
                get("/api/test-runs?state=started&interval_in_days=2".to_owned()),
                get("/api/test-runs?result=failed&branch=main&per_page=5".to_owned()),
                get(format!("/api/test-runs?environment_ids=31,33&per_page=7&id={run}")),
                get(format!("/api/test-runs/{run}")),
                get(format!("/api/test-runs/{run}x")),
                get(format!(
                    "/api/v2/analytics/test-cases?days={}&limit=40&order_by=flaky_rate",
                    step % 95
                )),
                get(format!("/api/v2/test-cases?per_page=17&page={page}")),
                (
                    "POST",
                    "/api/v2/analytics/test-case-history/batch".to_owned(),
                    json!({"test_case_ids": part, "days": 30, "limit_per_test_case": 50 + step % 100}),
                ),
                (
                    "POST",
                    "/api/v2/analytics/test-case-history/batch".to_owned(),
                    json!({"test_case_ids": [ids[0], "nobody", ids[1], ids[0]], "start_date": "2026-11-20T00:00:00Z",
                        "end_date": "2026-11-24T00:00:00Z", "environment_id": "32"}),
                ),
                (
                    "POST",
                    "/api/v2/analytics/test-case-last-pass-per-env".to_owned(),
                    json!({"test_case_id": ids[(step % 60) as usize], "days": 40}),
                ),
                (
                    "POST",
                    "/api/v2/analytics/test-case-history/batch".to_owned(),
                    json!({"limit": 1}),
                ),
            ]
        }
        Kind::SamplePlatform => {
            let (run, sample) = (newest.saturating_sub(step % 9), step % 43);
            let status = ["queued", "running", "canceled", "pass"][(step % 4) as usize];
            vec![
                get(format!("/api/v1/runs?limit=50&offset={}", (step % 3) * 50)),
                get(format!("/api/v1/runs?status={status}&sort=created_at")),
                get("/api/v1/runs?platform=linux&branch=master&created_after=2026-11-21&limit=10".to_owned()),
                get(format!("/api/v1/runs/{run}")),
                get(format!("/api/v1/runs/{run}/summary")),
                get(format!("/api/v1/runs/{run}/samples?limit=100")),
                get(format!("/api/v1/runs/{run}/samples?status=fail&limit=20&offset=1")),
                get(format!("/api/v1/samples?limit=30&offset={}", step % 20)),
                get(format!("/api/v1/samples/{sample}/history?limit=100")),
                get(format!(
                    "/api/v1/samples/1/history?regression_test_id={}&status=pass&platform=windows",
                    step % 4
                )),
                get(format!(
                    "/api/v1/samples/{sample}/history?branch=master&created_after=2026-11-22T10:00:00Z"
                )),
                get(format!("/api/v1/regression-tests?sample_id={}&limit=9", step % 5)),
                get("/api/v1/regression-tests?category=DVB".to_owned()),
            ]
        }
    }
}

fn week(kind: Kind) -> (u64, usize, usize) {
    let start: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
    let mut platform = Platform::new(kind, hard(kind, start), "right");
    platform.set_limit(None);
    platform.set_faults(FaultPlan::random(0.02, vec![Fault::status(503), Fault::WrongShape]));
    let (mut hash, mut served) = (Hash(0xcbf2_9ce4_8422_2325), 0);
    let mut ask = |platform: &mut Platform, now, method: &str, target: &str, body: &Value| {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer right"));
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let asked = Asked {
            method: method.to_owned(),
            path: path.to_owned(),
            query: pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            headers,
            body: body.to_string().into(),
        };
        let answer = platform.answer(now, &asked);
        hash.add(&answer.status.to_be_bytes());
        hash.add(&answer.body);
        served += answer.body.len();
        answer.body
    };
    let ids: Vec<String> = match kind {
        Kind::Empirical => {
            let body = ask(
                &mut platform,
                start,
                "GET",
                "/api/v2/test-cases?per_page=100",
                &Value::Null,
            );
            let body: Value = serde_json::from_slice(&body).unwrap();
            let rows = body["data"]["test_cases"].as_array().unwrap();
            rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
        }
        Kind::SamplePlatform => vec![],
    };
    let mut newest = if kind == Kind::Empirical { 4100 } else { 100 };
    // 13 minutes: unrelated to every other rhythm of the world.
    for step in 0..776_u64 {
        let now = start
            .saturating_add(13 * MINUTE * u32::try_from(step).unwrap())
            .unwrap();
        for (method, target, body) in calls(kind, step, newest, &ids) {
            ask(&mut platform, now, method, &target, &body);
        }
        newest += 3;
    }
    let truth = platform.truth(start, |branch| branch.unwrap_or("none").to_owned());
    let rewritten = truth.rewritten.len();
    hash.add(truth.to_json().to_string().as_bytes());
    assert!(served > 10_000_000, "{served}");
    (hash.0, served, rewritten)
}

#[test]
fn a_week_of_empirical_says_what_it_has_always_said() {
    assert_eq!(week(Kind::Empirical), (8_248_761_779_006_793_786, 191_169_562, 16));
}

#[test]
fn a_week_of_the_sample_platform_says_what_it_has_always_said() {
    assert_eq!(week(Kind::SamplePlatform), (14_159_968_311_435_389_981, 68_969_533, 58));
}
