//! Tests of what is odd about worlds on demand, of what a demo shows, of forgetting, and of the trap.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::tests::{Client, HISTORY, HOUR, after, all_runs, start};
use super::*;
use crate::model::{CaseOutcome, RunOutcome};
use crate::sources::Kind;

fn truth(client: &mut Client) -> Truth {
    client.platform.advance(client.now);
    client
        .platform
        .truth(start(), |branch| branch.unwrap_or("none").to_owned())
}

fn items(page: &Value) -> Vec<Value> {
    page["data"]["test_runs"]["items"].as_array().unwrap().clone()
}

#[test]
fn a_demo_shows_a_regression_a_flip_and_a_queue_within_two_minutes_and_moves_all_the_while() {
    for kind in [Kind::Empirical, Kind::SamplePlatform] {
        let mut client = Client::new(kind, WorldOptions::demo(kind, start()));
        let mut seen: BTreeMap<String, BTreeSet<Option<CaseOutcome>>> = BTreeMap::new();
        let (mut regressed, mut queued, mut still) = (false, 0, vec![]);
        let mut before = truth(&mut client);
        let id = |place: usize| match kind {
            Kind::Empirical => client_case(kind, place),
            Kind::SamplePlatform => (place + 1).to_string(),
        };
        let (broken, flaky) = (id(0), [id(1), id(3)]);
        for second in (5..=120).step_by(5) {
            client.now = after(Duration::from_secs(second));
            let now = truth(&mut client);
            if now == before {
                still.push(second);
            }
            for (key, case) in &now.cases {
                let had = before.cases.get(key).and_then(|case| case.last_pass);
                regressed |= key.2 == broken && case.streak > 0 && had.is_some();
                if flaky.contains(&key.2) {
                    seen.entry(format!("{key:?}")).or_default().insert(case.last);
                }
            }
            let waiting: u64 = now.active.values().map(|states| states[0] + states[1]).sum();
            queued = queued.max(waiting);
            before = now;
        }
        assert!(regressed, "{kind:?}");
        assert!(seen.values().any(|outcomes| outcomes.len() > 1), "{kind:?}: {seen:?}");
        assert!(queued >= 5, "{kind:?}: {queued}");
        // The first runs take their time; of 24 looks nearly every one must show something new.
        assert!(still.len() <= 3, "{kind:?}: nothing new at {still:?}");
        assert!(before.counted > 15, "{kind:?}: {}", before.counted);
        let trunk = |branch: &str| matches!(branch, "main" | "master");
        let on_trunk: u64 = before
            .runs
            .iter()
            .filter(|((_, branch), _)| trunk(branch))
            .map(|(_, group)| group.runs.iter().sum::<u64>())
            .sum();
        assert!(
            on_trunk * 4 > before.counted,
            "{kind:?}: {on_trunk} of {}",
            before.counted
        );
    }
}

#[test]
fn a_demo_has_tags_and_snoozes_of_which_one_is_over_one_ends_soon_and_one_hides_failures() {
    let kind = Kind::Empirical;
    for seed in 1..=20 {
        let demo = WorldOptions {
            seed,
            ..WorldOptions::demo(kind, start())
        };
        let mut client = Client::new(kind, demo);
        let of = |client: &mut Client, status: &str| -> Vec<Value> {
            let list = client.get(&format!("/api/snoozes?status={status}"));
            list["data"]["snoozes"].as_array().unwrap().clone()
        };
        // The regression, which is snoozed where nothing else is broken, has begun by then.
        client.now = after(Duration::from_secs(120));
        let (over, active) = (of(&mut client, "expired"), of(&mut client, "active"));
        assert_eq!((over.len(), active.len()), (1, 2), "seed {seed}");
        let truth = truth(&mut client);
        let fails = |case: &str| truth.cases.iter().any(|(key, told)| key.2 == case && told.streak > 0);
        let hides = |snooze: &Value| {
            let mut cases = snooze["test_ids"].as_array().unwrap().iter();
            cases.any(|case| fails(case.as_str().unwrap()))
        };
        assert!(active.iter().any(hides), "seed {seed}: {active:?}");
        let items = items(&client.get("/api/test-runs?per_page=100"));
        let counts = |item: &Value| {
            (
                item["failed_count"].as_u64(),
                item["failed_count_after_snoozing"].as_u64(),
            )
        };
        let is_less = |(all, left): (Option<u64>, Option<u64>)| left.unwrap() < all.unwrap();
        assert!(items.iter().map(counts).any(is_less), "seed {seed}");
        client.now = after(Duration::from_secs(15 * 60));
        assert_eq!(of(&mut client, "active").len(), 1, "seed {seed}");

        let registry = client.get("/api/v2/test-cases?per_page=100");
        let analytics = client.get("/api/v2/analytics/test-cases?limit=500");
        for list in [registry, analytics] {
            let rows = list["data"]["test_cases"].as_array().unwrap();
            let tagged = rows.iter().filter(|row| row["tags"] != serde_json::json!([])).count();
            assert!(
                tagged > rows.len() / 2 && tagged < rows.len(),
                "{tagged} of {}",
                rows.len()
            );
        }
    }
}

/// The id of the demo's case of this place.
fn client_case(kind: Kind, place: usize) -> String {
    let mut client = Client::new(kind, WorldOptions::demo(kind, start()));
    let registry = client.get("/api/v2/test-cases?per_page=100");
    registry["data"]["test_cases"][place]["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_world_that_forgets_keeps_its_counts() {
    for kind in [Kind::Empirical, Kind::SamplePlatform] {
        let options = WorldOptions {
            run_interval: Duration::from_secs(20 * 60),
            ..WorldOptions::new(kind, 29, start())
        };
        let mut forgetful = Client::new(
            kind,
            WorldOptions {
                keep_for: 36 * HOUR,
                ..options.clone()
            },
        );
        let mut client = Client::new(kind, options);
        for day in 1..=10 {
            (forgetful.now, client.now) = (after(24 * day * HOUR), after(24 * day * HOUR));
            let (few, all) = (truth(&mut forgetful), truth(&mut client));
            assert_eq!(
                (few.counted, &few.errors),
                (all.counted, &all.errors),
                "{kind:?} day {day}"
            );
            let runs = |truth: &Truth| -> Vec<_> {
                let groups = truth.runs.iter().filter(|(_, group)| group.runs != [0; 5]);
                groups
                    .map(|(key, group)| (key.clone(), group.runs, group.cases, group.duration, group.queue))
                    .collect()
            };
            assert_eq!(runs(&few), runs(&all));
            let cases = |truth: &Truth| -> Vec<_> {
                let cases = truth.cases.iter().filter(|(_, case)| case.results != [0; 6]);
                cases
                    .map(|(key, case)| (key.clone(), case.results, case.retries, case.duration))
                    .collect()
            };
            assert_eq!(cases(&few), cases(&all));
        }
        let told = |client: &mut Client| match kind {
            Kind::Empirical => client.get("/api/test-runs")["pagination"]["total"].as_u64().unwrap(),
            Kind::SamplePlatform => all_runs(client).len() as u64,
        };
        assert!(told(&mut forgetful) < told(&mut client) / 3);
        let gone = if kind == Kind::Empirical {
            "/api/test-runs/4001"
        } else {
            "/api/v1/runs/1"
        };
        assert_eq!(client.status(gone), 200);
        assert_eq!(forgetful.status(gone), 404);
    }
}

#[test]
fn a_late_verdict_changes_a_cancelled_run_after_it_was_read_and_never_what_counts() {
    let mut options = WorldOptions::new(Kind::SamplePlatform, 31, start());
    (options.late_verdicts, options.cancels, options.runs_after) = (1.0, 0.6, Some(20));
    let mut unread = Client::new(Kind::SamplePlatform, options.clone());
    unread.now = after(60 * HOUR);
    let mut client = Client::new(Kind::SamplePlatform, options);
    client.now = after(10 * HOUR);
    let before = all_runs(&mut client);
    for run in &before {
        client.get(&format!("/api/v1/runs/{}/samples?limit=100", run["run_id"]));
    }
    client.now = after(60 * HOUR);
    let now = all_runs(&mut client);
    let changed: Vec<_> = before.iter().zip(&now).filter(|(old, new)| old != new).collect();
    assert!(changed.len() > 3, "{}", changed.len());
    for (old, new) in changed {
        assert_eq!(old["status"], "canceled");
        assert!(new["status"] == "pass" || new["status"] == "fail", "{new}");
        assert!(old["completed_at"].as_str() < new["completed_at"].as_str());
    }
    let (expected, got) = (truth(&mut unread), truth(&mut client));
    assert!(!got.rewritten.is_empty());
    let runs = |truth: &Truth| -> Vec<_> { truth.runs.values().map(|group| (group.runs, group.cases)).collect() };
    assert_eq!((expected.counted, runs(&expected)), (got.counted, runs(&got)));
    let cancelled: u64 = got.runs.values().map(|g| g.runs[RunOutcome::Cancelled.index()]).sum();
    assert!(cancelled > 3);
}

#[test]
fn runs_pause_in_a_state_that_nobody_documented_and_are_still_active() {
    for (kind, word) in [(Kind::Empirical, "queued"), (Kind::SamplePlatform, "running")] {
        let options = WorldOptions {
            undocumented_states: 1.0,
            ..WorldOptions::new(kind, 7, start())
        };
        let mut client = Client::new(kind, options);
        let mut words = BTreeSet::new();
        for minute in 0..60 {
            client.now = after(Duration::from_secs(60 * minute));
            let (mut open, mut paused) = (0, 0);
            for id in 31..45 {
                let target = match kind {
                    Kind::Empirical => format!("/api/test-runs/{}", 4000 + id),
                    Kind::SamplePlatform => format!("/api/v1/runs/{id}"),
                };
                if client.status(&target) == 404 {
                    continue;
                }
                let run = client.get(&target);
                let run = if kind == Kind::Empirical {
                    &run["data"]["test_run"]["testRun"]["state"]
                } else {
                    &run["status"]
                };
                let state = run.as_str().unwrap().to_owned();
                let ended = ["ended", "error", "cancelled", "canceled", "pass", "fail"];
                open += u64::from(!ended.contains(&state.as_str()));
                paused += u64::from(state == "paused");
                words.insert(state);
            }
            let active: u64 = truth(&mut client).active.values().flatten().sum();
            assert_eq!(active, open, "{kind:?}, {paused} paused");
        }
        assert!(words.contains("paused") && words.contains(word), "{words:?}");
    }
}

#[test]
fn an_odd_empirical_is_odd_as_asked() {
    let options = WorldOptions {
        null_environments: 0.5,
        null_cancelled_times: true,
        ignores_state_filter: true,
        details_list_failures_only: true,
        created_ties: 0.5,
        history_duplicates: 0.5,
        cancels: 0.5,
        counts_as_floats: true,
        ids_as_text: true,
        ..WorldOptions::new(Kind::Empirical, 7, start())
    };
    let mut client = Client::new(Kind::Empirical, options);
    client.now = after(3 * HOUR);
    let list = client.get("/api/test-runs?per_page=100&state=pending");
    let rows = items(&list);
    assert!(rows.len() > 50 && list["pagination"]["total"].is_f64(), "{list}");
    let slugs = rows.iter().filter(|row| row["environment_slug"].is_null()).count();
    assert!((20..80).contains(&slugs), "{slugs}");
    let times: Vec<&str> = rows.iter().map(|row| row["created_at"].as_str().unwrap()).collect();
    assert!(times.is_sorted_by(|a, b| a >= b));
    let ids: Vec<&str> = rows.iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert!(!ids.is_sorted_by(|a, b| a > b), "ties are in the wrong order");
    let mut untimed = 0;
    for id in ids {
        let details = client.get(&format!("/api/test-runs/{id}"));
        let details = &details["data"]["test_run"];
        assert!(details["testRun"]["environment_id"].is_string());
        if details["testRun"]["state"] == "cancelled" {
            assert_eq!(details["testRun"]["run_ended_at"], Value::Null);
            untimed += 1;
        }
        let results = details["flattenedSummaryDetails"].as_array().unwrap();
        assert!(results.iter().all(|row| row["status"] != "passed"));
    }
    assert!(untimed > 10);
    let cases = client.get("/api/v2/test-cases?per_page=10");
    let ids: Vec<&Value> = cases["data"]["test_cases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|case| &case["id"])
        .collect();
    let (_, history) = client.post(HISTORY, &json!({"test_case_ids": ids, "limit_per_test_case": 1000}));
    let (mut entries, mut runs) = (0, BTreeSet::new());
    for (case, rows) in history["data"]["history_by_test_case_id"].as_object().unwrap() {
        for row in rows.as_array().unwrap() {
            entries += 1;
            runs.insert((case.clone(), row["test_run_id"].as_str().unwrap().to_owned()));
        }
    }
    assert!(
        entries > runs.len() * 5 / 4 && entries < runs.len() * 2,
        "{entries} of {}",
        runs.len()
    );
    let known = truth(&mut client);
    let last: Vec<_> = known.runs.values().filter_map(|group| group.last).collect();
    assert!(last.iter().all(|last| last.outcome != RunOutcome::Cancelled));
    assert!(known.runs.keys().all(|(environment, _)| !environment.is_empty()));
}

#[tokio::test]
async fn a_served_platform_compresses_when_it_is_asked_to() {
    let options = WorldOptions {
        gzip: true,
        ..WorldOptions::new(Kind::SamplePlatform, 7, start())
    };
    let platform = Arc::new(Mutex::new(Platform::new(Kind::SamplePlatform, options, "right")));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let shutdown = tokio_util::sync::CancellationToken::new();
    let server = tokio::spawn(serve(listener, platform, Arc::new(start), shutdown.clone()));
    let ask = async |accept: &str| {
        let head = format!(
            "GET /api/v1/runs HTTP/1.1\r\nhost: x\r\nauthorization: Bearer right\r\naccept-encoding: {accept}\r\nconnection: close\r\n\r\n"
        );
        let (_, bytes) = exchange(port, &head).await;
        let end = bytes.windows(4).position(|end| end == b"\r\n\r\n").unwrap();
        (
            String::from_utf8_lossy(&bytes[..end]).into_owned(),
            bytes[end + 4..].to_vec(),
        )
    };
    let (head, plain) = ask("identity").await;
    assert!(!head.contains("content-encoding"), "{head}");
    let (head, small) = ask("br, gzip;q=0.8").await;
    assert!(head.contains("content-encoding: gzip"), "{head}");
    let mut inflated = vec![];
    flate2::read::GzDecoder::new(&*small)
        .read_to_end(&mut inflated)
        .unwrap();
    assert!(inflated == plain && small.len() < plain.len() / 2);
    shutdown.cancel();
    server.await.unwrap().unwrap();
}

async fn exchange(port: u16, text: &str) -> (tokio::net::TcpStream, Vec<u8>) {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut bytes = vec![];
    stream.read_to_end(&mut bytes).await.unwrap();
    (stream, bytes)
}

#[tokio::test]
async fn the_trap_knows_who_came_and_what_they_brought() {
    let trap = Trap::set().await.unwrap();
    assert!(!trap.was_reached() && !trap.saw_authorization());
    let port = trap
        .url()
        .rsplit(':')
        .next()
        .unwrap()
        .split('/')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let (_, answer) = exchange(port, "GET /elsewhere HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.starts_with(b"HTTP/1.1 200 OK"));
    assert!(trap.was_reached() && !trap.saw_authorization());
    exchange(port, "GET / HTTP/1.1\r\nAUTHORIZATION: Bearer x\r\n\r\n").await;
    assert!(trap.saw_authorization());
    assert_eq!(trap.heads().len(), 2);
}
