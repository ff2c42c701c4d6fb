//! Upstream is down, stalls, lies or asks for patience: scrapes are answered at once with the last good data, the reason
//! is in `testrun_up`, in the counters and in the log, and recovery loses nothing.

use std::time::Duration;

use serde_json::{Value, json};
use testrun_exporter::model::{CaseOutcome, RunOutcome};
use testrun_exporter::simulate::{Fault, FaultPlan, Platform, RunTruth, When, WorldOptions};
use testrun_exporter::sources::Kind;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use crate::harness::{Exporter, Files, Samples, Upstream, quiet_world, short_world, wait_for, wall};
use crate::numbers::{all_right, at_rest, truth};

/// A platform in trouble, and what must be said about that.
struct Trouble {
    fault: Fault,
    result: &'static str,
    words: &'static str,
}

/// A source whose requests wait no longer than the shortest time that can be configured.
async fn impatient(kind: Kind) -> (Upstream, Exporter) {
    let upstream = Upstream::start(short_world(kind, 3), kind, "token").await;
    let files = Files::new(&[upstream.source("it", "token: token", "    request_timeout: 1s\n")]);
    let exporter = Exporter::start(&files).await;
    exporter.had_round("it", "success").await;
    (upstream, exporter)
}

fn trouble(upstream: &Upstream, fault: Fault) {
    upstream.platform().set_faults(FaultPlan::random(1.0, vec![fault]));
}

fn end_of_trouble(upstream: &Upstream) {
    upstream.platform().set_faults(FaultPlan::none());
}

async fn sits_out(kind: Kind, expected: Trouble) {
    let Trouble { fault, result, words } = expected;
    let (upstream, exporter) = impatient(kind).await;
    trouble(&upstream, fault);
    let first = exporter.had_round("it", result).await;
    // The world goes on, the numbers stand still.
    let second = exporter.rounds("it", result, 1).await;
    let (before, after) = (first.data("it"), second.data("it"));
    assert!(before.len() > 100, "the last good data are served");
    assert!(before == after, "they moved:\n{}", before.difference(&after));
    assert_eq!(second.up("it"), Some(0.0));
    let log = exporter.process.log();
    let told =
        |line: &&str| line.contains("source=it") && line.contains(&format!("result={result}")) && line.contains(words);
    assert!(
        log.lines().any(|line| told(&line)),
        "{words:?} is not in the log:\n{log}"
    );

    end_of_trouble(&upstream);
    let samples = exporter.rounds("it", "success", 1).await;
    assert_eq!(samples.up("it"), Some(1.0));
    at_rest(&upstream).await;
    all_right(&exporter, &upstream, "it").await;
    assert!(truth(&upstream).counted >= 15);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empirical_that_resets_connections() {
    let trouble = Trouble {
        fault: Fault::Reset,
        result: "unreachable",
        words: "/api/test-runs: the connection was reset",
    };
    sits_out(Kind::Empirical, trouble).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empirical_that_never_answers() {
    let trouble = Trouble {
        fault: Fault::Stall,
        result: "unreachable",
        words: "no complete answer in time",
    };
    sits_out(Kind::Empirical, trouble).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sample_platform_that_answers_with_a_page_for_people() {
    let trouble = Trouble {
        fault: Fault::NotJson,
        result: "unreadable",
        words: "the answer cannot be read",
    };
    sits_out(Kind::SamplePlatform, trouble).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empirical_that_answers_with_json_of_another_shape() {
    let trouble = Trouble {
        fault: Fault::WrongShape,
        result: "unreadable",
        words: "the answer cannot be read",
    };
    sits_out(Kind::Empirical, trouble).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sample_platform_whose_bodies_break_off() {
    let trouble = Trouble {
        fault: Fault::Truncated,
        result: "unreachable",
        words: "/runs: ",
    };
    sits_out(Kind::SamplePlatform, trouble).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sample_platform_with_an_internal_error() {
    let trouble = Trouble {
        fault: Fault::status(500),
        result: "server_error",
        words: "the server answered 500",
    };
    sits_out(Kind::SamplePlatform, trouble).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empirical_that_forbids() {
    let (upstream, exporter) = impatient(Kind::Empirical).await;
    upstream.platform().set_forbidden(true);
    let samples = exporter.had_round("it", "unauthorized").await;
    assert_eq!(samples.up("it"), Some(0.0));
    exporter.wait_for_log("the server answered 403").await;
    // No retry, and no further round until the token changes or a long time has passed.
    let asked = upstream.requests();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(upstream.requests(), asked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_after_is_obeyed_to_the_second_and_is_not_an_outage() {
    let (upstream, exporter) = impatient(Kind::SamplePlatform).await;
    upstream.platform().pause(wall(), Duration::from_secs(5));
    let reason = [("source", "it"), ("reason", "retry_after")];
    let samples = exporter
        .wait_until("a wait for Retry-After", |samples| {
            assert_eq!(samples.up("it"), Some(1.0), "being throttled is not being down");
            samples.sum("testrun_exporter_throttle_seconds_total", &[("source", "it")]) > 3.0
        })
        .await;
    assert!(samples.sum("testrun_exporter_throttled_total", &reason) >= 1.0);
    exporter.rounds("it", "success", 1).await;
    at_rest(&upstream).await;
    all_right(&exporter, &upstream, "it").await;
    // That no request came before its time is the simulator's verdict.
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_retry_after_ends_the_round_and_nothing_is_asked_meanwhile() {
    let (upstream, exporter) = impatient(Kind::Empirical).await;
    let fault = Fault::Status {
        code: 429,
        retry_after: Some("120".to_owned()),
    };
    upstream.platform().script_fault(When::Next(1), fault);
    let samples = exporter.had_round("it", "throttled").await;
    assert_eq!(samples.up("it"), Some(1.0));
    exporter.wait_for_log("told to wait for 12").await;
    let asked = upstream.requests();
    let status: serde_json::Value = serde_json::from_str(&exporter.get("/api/v1/status").await.body).unwrap();
    assert_eq!(status["sources"][0]["health"], "throttled", "{status}");
    assert_eq!(status["sources"][0]["waiting"]["reason"], "retry_after", "{status}");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(upstream.requests(), asked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_to_another_origin_is_refused_and_the_token_stays_here() {
    let trap = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let (upstream, exporter) = impatient(Kind::Empirical).await;
    let elsewhere = format!("http://{}/api/runs", trap.local_addr().unwrap());
    upstream.platform().set_redirect_to(&elsewhere);
    trouble(&upstream, Fault::RedirectOffOrigin);
    let samples = exporter.rounds("it", "refused", 2).await;
    assert_eq!(samples.up("it"), Some(0.0));
    // Whoever connects to the trap now is this test: nobody stood in line before it.
    let own = tokio::net::TcpStream::connect(trap.local_addr().unwrap())
        .await
        .unwrap();
    let own_address = own.local_addr().unwrap();
    drop(own);
    let (mut first, from) = trap.accept().await.unwrap();
    let mut read = Vec::new();
    first.read_to_end(&mut read).await.unwrap();
    assert_eq!((from, read), (own_address, vec![]), "the exporter went elsewhere");

    end_of_trouble(&upstream);
    exporter.rounds("it", "success", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_never_end_are_given_up_and_cost_no_memory() {
    let (upstream, exporter) = impatient(Kind::SamplePlatform).await;
    for fault in [Fault::HugeBody, Fault::GzipBomb] {
        trouble(&upstream, fault);
        exporter.rounds("it", "unreadable", 2).await;
    }
    exporter.wait_for_log("the answer is larger than is read").await;
    let peak = peak_memory(exporter.process.id());
    assert!(
        peak < 80 << 20,
        "{} MiB: the bodies are larger than that, and 16 MiB of them may be read",
        peak >> 20
    );
    end_of_trouble(&upstream);
    at_rest(&upstream).await;
    all_right(&exporter, &upstream, "it").await;
}

/// The most memory that a process has ever had, in bytes.
fn peak_memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_that_are_too_old_are_withdrawn_and_come_back() {
    let upstream = Upstream::start(short_world(Kind::Empirical, 4), Kind::Empirical, "token").await;
    let files = Files::new(&[upstream.source("it", "token: token", "    stale_after: 3s\n")]);
    let exporter = Exporter::start(&files).await;
    exporter.had_round("it", "success").await;
    upstream.platform().set_down(true);
    let stale = exporter
        .wait_until("the data vanish", |samples| {
            samples.of("testrun_runs_total", &[]).count() == 0
        })
        .await;
    assert_eq!(stale.up("it"), Some(0.0));
    assert!(stale.data("it").len() <= 1, "only testrun_source_info stays");
    upstream.platform().set_down(false);
    at_rest(&upstream).await;
    all_right(&exporter, &upstream, "it").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_in_trouble_does_not_touch_its_neighbour() {
    let well = Upstream::start(short_world(Kind::SamplePlatform, 5), Kind::SamplePlatform, "token-w").await;
    let ill = Upstream::quiet(Kind::Empirical, "token-i").await;
    trouble(&ill, Fault::Stall);
    let files = Files::new(&[
        ill.source("ill", "token: token-i", ""),
        well.source("well", "token: token-w", ""),
    ]);
    let exporter = Exporter::start(&files).await;
    at_rest(&well).await;
    all_right(&exporter, &well, "well").await;
    assert_eq!(exporter.scrape().await.up("ill"), Some(0.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_not_ready_before_the_first_round_has_ended_and_is_then_however_that_ended() {
    let upstream = Upstream::quiet(Kind::Empirical, "token").await;
    trouble(&upstream, Fault::Stall);
    let files = Files::new(&[upstream.source("it", "token: token", "    request_timeout: 3s\n")]);
    let exporter = Exporter::start(&files).await;
    wait_for("the first request", async || (upstream.requests() > 0).then_some(())).await;
    assert_eq!(exporter.get("/-/ready").await.status, 503);
    assert_eq!(exporter.get("/-/healthy").await.status, 200);
    exporter.scrape().await;
    wait_for("readiness", async || {
        (exporter.get("/-/ready").await.status == 200).then_some(())
    })
    .await;
    let samples = exporter.scrape().await;
    assert_eq!(samples.rounds("it", "unreachable"), 1.0);
    assert_eq!(samples.up("it"), Some(0.0));
    assert_eq!(exporter.get("/-/healthy").await.status, 200);
}

/// A quiet world in which everything has passed, as far as the gate looks.
fn passing_world(kind: Kind) -> WorldOptions {
    let world = |seed| WorldOptions {
        cases: 2,
        seed,
        branches: vec![("main".to_owned(), 1)],
        nulls: 0.0,
        ..quiet_world(kind)
    };
    let passes = |options: &WorldOptions| {
        let mut platform = Platform::new(kind, options.clone(), "token");
        platform.advance(wall());
        let truth = platform.truth(wall(), |_| "main".to_owned());
        let passed = |run: &RunTruth| run.last.is_some_and(|last| last.outcome == RunOutcome::Passed);
        let all = truth.cases.values().all(|case| case.last == Some(CaseOutcome::Passed));
        truth.runs.len() == options.environments.len() && truth.runs.values().all(passed) && all
    };
    (1..1_000)
        .map(world)
        .find(passes)
        .expect("a world in which all is well")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gate_is_closed_while_the_platform_is_away_and_after_a_restart_until_it_has_been_read() {
    for kind in [Kind::Empirical, Kind::SamplePlatform] {
        let world = passing_world(kind);
        let environments = f64::from(u32::try_from(world.environments.len()).unwrap());
        let upstream = Upstream::start(world, kind, "token").await;
        let files = Files::new(&[]);
        let state = files.path("state");
        let configure = |stale_after: &str| {
            let more = format!(
                "    request_timeout: 1s\n    stale_after: {stale_after}\n    gate: {{ enabled: true, run_max_age: 30d }}\n"
            );
            let source = upstream.source("it", "token: token", &more);
            let head = "web: { listen_address: '127.0.0.1:0' }\n";
            files.write(
                "config.yaml",
                &format!(
                    "{head}state: {{ directory: '{}' }}\nsources:\n{source}",
                    state.display()
                ),
            );
        };
        let gate = |samples: &Samples| {
            let stale = [("source", "it"), ("condition", "stale")];
            let shown = samples
                .of("testrun_environment_promotable", &[("source", "it")])
                .count();
            assert!(
                shown == 0 || f64::from(u32::try_from(shown).unwrap()) == environments,
                "{shown}"
            );
            (
                samples.sum("testrun_environment_promotable", &[("source", "it")]),
                samples.sum("testrun_environment_blocked", &stale),
            )
        };
        let (open, closed) = ((environments, 0.0), (0.0, environments));
        configure("4s");
        let mut exporter = Exporter::start(&files).await;
        exporter
            .wait_until("an open gate", |samples| gate(samples) == open)
            .await;
        upstream.platform().set_down(true);
        exporter
            .wait_until("a closed gate", |samples| gate(samples) == closed)
            .await;
        let samples = exporter.rounds("it", "unreachable", 1).await;
        assert_eq!(gate(&samples), closed, "it stays there, at 0");
        assert_eq!(gate_for_people(&exporter).await, Some((false, json!(["stale"]))));
        assert_eq!(
            samples.of("testrun_runs_total", &[("source", "it")]).count(),
            0,
            "the rest is withdrawn"
        );
        upstream.platform().set_down(false);
        exporter
            .wait_until("an open gate again", |samples| gate(samples) == open)
            .await;

        // Young enough, but another process's word.
        configure("1h");
        exporter.process.signal("TERM");
        exporter.process.ended(Duration::from_secs(20)).await;
        upstream.platform().set_down(true);
        let exporter = Exporter::start(&files).await;
        let samples = exporter.rounds("it", "unreachable", 1).await;
        assert_eq!(gate(&samples), closed, "{kind:?}");
        assert!(
            samples.of("testrun_runs_total", &[("source", "it")]).count() > 0,
            "what was kept is shown"
        );
        upstream.platform().set_down(false);
        exporter
            .wait_until("an open gate after a round", |samples| gate(samples) == open)
            .await;
        assert_eq!(gate_for_people(&exporter).await, Some((true, json!([]))));
    }
}

/// What the landing page and the status say of the gate. `None` unless they say the same of every environment.
async fn gate_for_people(exporter: &Exporter) -> Option<(bool, Value)> {
    let status: Value = serde_json::from_str(&exporter.get("/api/v1/status").await.body).unwrap();
    let page = exporter.get("/").await.body;
    let rows = status["sources"][0]["gate"].as_array().unwrap();
    let told = rows
        .first()
        .map(|row| (row["promotable"] == true, row["blocked"].clone()))?;
    for row in rows {
        let blocked: Vec<&str> = row["blocked"].as_array()?.iter().filter_map(Value::as_str).collect();
        let (class, words) = match row["promotable"].as_bool()? {
            true => ("up", "promotable".to_owned()),
            false => ("down", format!("blocked by {}", blocked.join(", "))),
        };
        let environment = row["environment"].as_str()?;
        let shown = format!("<dd class=\"gate {class}\"><b>{environment}</b> {words}</dd>");
        assert!(page.contains(&shown), "{shown} is not in {page}");
    }
    let same = rows
        .iter()
        .all(|row| row["promotable"] == told.0 && row["blocked"] == told.1);
    same.then_some(told)
}
