//! The exam: hard worlds, polled in virtual time until they come to rest; then every number must equal the truth.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use testrun_exporter::model::{ActiveState, CaseOutcome, ErrorCode, Name, RoundResult, Update};
use testrun_exporter::simulate::{Fault, FaultPlan, InProcess, NowFn, Platform, Truth, WorldOptions};
use testrun_exporter::sources::empirical::Empirical;
use testrun_exporter::sources::sample_platform::SamplePlatform;
use testrun_exporter::sources::{
    BranchRule, Branches, CaseSettings, Discovery, DurationUnit, Kind, Rejection, Settings, Source,
};
use testrun_exporter::store::{Limits, Snapshot, SourceSpec, Store};
use testrun_exporter::transport::{Transport, TransportError};

const START: &str = "2026-11-01T00:00:00Z";

fn settings(kind: Kind, discovery: Discovery) -> Settings {
    Settings {
        kind,
        lookback: Duration::from_secs(30 * 86_400),
        branches: branches(),
        environments: BTreeMap::new(),
        run_duration_unit: DurationUnit::Auto,
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

fn branches() -> Branches {
    Branches::new(vec![
        BranchRule::Exact("main".into()),
        BranchRule::Exact("master".into()),
    ])
}

/// The world's clock: tokio's, from the world's start on.
fn world_clock(start: Timestamp) -> NowFn {
    let origin = tokio::time::Instant::now();
    Arc::new(move || start + SignedDuration::try_from(origin.elapsed()).unwrap())
}

async fn one_round(source: &mut impl Source, transport: &InProcess, now: &NowFn, store: &mut Store) -> RoundResult {
    source.begin(now(), 600);
    while let Some(request) = source.next() {
        let learned = match transport.send(&request).await {
            Ok(reply) if (200..300).contains(&reply.status) => {
                source.accept(&reply).or_else(|rejection| source.reject(rejection))
            }
            Ok(reply) => source.reject(Rejection::Status(reply.status)),
            Err(TransportError::Timeout { .. }) => source.reject(Rejection::Timeout),
            Err(TransportError::TooLarge { .. }) => source.reject(Rejection::TooLarge),
            Err(_) => return RoundResult::Unreachable,
        };
        match learned {
            Ok(learned) => drop(store.update(0, Update::Facts(learned.facts), now(), u64::MAX)),
            Err(_) => return RoundResult::ServerError,
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    RoundResult::Success
}

fn compare(truth: &Truth, snapshot: &Snapshot, skipped_told: bool, seed: u64) {
    let source = &snapshot.sources[0];
    let mut wrong = Vec::new();
    let mut check = |what: String, expected: String, got: String| {
        // Sums of thousands of floats may differ in the last bit; the truth's are in whole milliseconds.
        let close = expected
            .parse()
            .ok()
            .zip(got.parse().ok())
            .is_some_and(|(a, b): (f64, f64)| (a - b).abs() < 0.001);
        if expected != got && !close {
            wrong.push(format!("{what}: expected {expected}, got {got}"));
        }
    };
    let groups: BTreeMap<_, _> = source
        .groups
        .iter()
        .map(|row| ((row.group.environment.to_string(), row.group.branch.to_string()), row))
        .collect();
    let all_cases = &truth.cases;
    for (key, truth) in &truth.runs {
        let Some(row) = groups.get(key) else {
            check(format!("{key:?}"), "a group".into(), "none".into());
            continue;
        };
        check(
            format!("{key:?} runs"),
            format!("{:?}", truth.runs),
            format!("{:?}", row.runs),
        );
        for outcome in CaseOutcome::ALL
            .iter()
            .filter(|outcome| skipped_told || **outcome != CaseOutcome::Skipped)
        {
            let (mut expected, got) = (truth.cases[outcome.index()], row.cases[outcome.index()]);
            if *outcome == CaseOutcome::Unknown && !skipped_told {
                // The Sample Platform's runs have no counts of their own: they are those of its results.
                let of_group = all_cases
                    .iter()
                    .filter(|((environment, branch, _), _)| (environment, branch) == (&key.0, &key.1));
                expected = of_group.map(|(_, case)| case.results[outcome.index()]).sum();
            }
            check(
                format!("{key:?} cases {}", outcome.label()),
                expected.to_string(),
                got.to_string(),
            );
        }
        check(
            format!("{key:?} durations"),
            truth.duration.count.to_string(),
            row.duration.count().to_string(),
        );
        check(
            format!("{key:?} duration sum"),
            truth.duration.seconds().to_string(),
            row.duration.sum.to_string(),
        );
        check(
            format!("{key:?} queues"),
            truth.queue.count.to_string(),
            row.queue.count().to_string(),
        );
        check(
            format!("{key:?} queue sum"),
            truth.queue.seconds().to_string(),
            row.queue.sum.to_string(),
        );
        let last = row.last.as_ref().map(|run| (run.id, run.outcome.label()));
        check(
            format!("{key:?} last"),
            format!("{:?}", truth.last.map(|l| (l.id, l.outcome.label()))),
            format!("{last:?}"),
        );
    }
    let rows: BTreeMap<_, _> = source
        .cases
        .iter()
        .map(|row| {
            (
                (
                    row.group.environment.to_string(),
                    row.group.branch.to_string(),
                    row.case.to_string(),
                ),
                row,
            )
        })
        .collect();
    for (key, truth) in &truth.cases {
        let Some(row) = rows.get(key) else {
            if truth.results.iter().sum::<u64>() > 0 {
                check(format!("{key:?}"), "a row".into(), "none".into());
            }
            continue;
        };
        check(
            format!("{key:?} results"),
            format!("{:?}", truth.results),
            format!("{:?}", row.results),
        );
        check(
            format!("{key:?} retries"),
            truth.retries.to_string(),
            row.retries.to_string(),
        );
        check(
            format!("{key:?} durations"),
            truth.duration.count.to_string(),
            row.duration_count.to_string(),
        );
        check(
            format!("{key:?} duration sum"),
            truth.duration.seconds().to_string(),
            row.duration_sum.to_string(),
        );
    }
    for (environment, errors) in &truth.errors {
        let got = source.run_errors.get(environment.as_str()).copied().unwrap_or_default();
        check(
            format!("{environment} errors"),
            format!("{errors:?}"),
            format!("{got:?}"),
        );
    }
    assert!(
        wrong.is_empty(),
        "seed {seed}: {} differences:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(40)].join("\n")
    );
}

async fn sit(kind: Kind, discovery: Discovery, seed: u64, faults: bool) {
    let start: Timestamp = START.parse().unwrap();
    let now = world_clock(start);
    let options = WorldOptions::exam(kind, seed, start);
    let platform = Arc::new(Mutex::new(Platform::new(kind, options, "secret")));
    platform.lock().unwrap().set_limit(None);
    if faults {
        let kinds = vec![
            Fault::status(500),
            Fault::status(503),
            Fault::Reset,
            Fault::Stall,
            Fault::Truncated,
            Fault::NotJson,
            Fault::HugeBody,
            Fault::WrongShape,
            Fault::status(429),
        ];
        platform.lock().unwrap().set_faults(FaultPlan::random(0.05, kinds));
    }
    let transport = InProcess::new(Arc::clone(&platform), Arc::clone(&now));
    let spec = SourceSpec {
        name: Name::from("exam"),
        error_codes: ErrorCode::ALL,
        active_states: ActiveState::ALL,
        limits: Limits {
            cases_max: 10_000,
            retention: Duration::from_secs(32 * 86_400),
        },
    };
    let mut store = Store::new(vec![spec], usize::MAX);
    let mut empirical = Empirical::new(settings(Kind::Empirical, discovery));
    let mut sample = SamplePlatform::new(settings(Kind::SamplePlatform, discovery));
    let (mut met, mut quiet) = (None, 0);
    while quiet < 10 {
        let begun = now();
        let result = match kind {
            Kind::Empirical => one_round(&mut empirical, &transport, &now, &mut store).await,
            Kind::SamplePlatform => one_round(&mut sample, &transport, &now, &mut store).await,
        };
        if result == RoundResult::Success {
            met.get_or_insert(begun);
        }
        drop(store.update(0, Update::RoundEnded { result, at: now() }, now(), u64::MAX));
        if platform.lock().unwrap().settled(now()) {
            quiet += 1;
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    let end = now() + SignedDuration::from_hours(1);
    let snapshot = store.tick(end, u64::MAX);
    drop(snapshot);
    drop(store.update(
        0,
        Update::RoundEnded {
            result: RoundResult::Success,
            at: end,
        },
        end,
        u64::MAX,
    ));
    let snapshot = store.tick(end, u64::MAX).or_else(|| {
        store.update(
            0,
            Update::RoundEnded {
                result: RoundResult::Success,
                at: end,
            },
            end,
            u64::MAX,
        )
    });
    let label = branches();
    let truth = platform
        .lock()
        .unwrap()
        .truth(met.unwrap(), |branch| label.label(branch).to_string());
    eprintln!(
        "{} counted runs, {} requests",
        truth.counted,
        platform.lock().unwrap().journal().entries().len()
    );
    compare(&truth, &snapshot.unwrap(), kind == Kind::Empirical, seed);
    assert_eq!(platform.lock().unwrap().violations(), [] as [String; 0]);
}

#[tokio::test(start_paused = true)]
async fn empirical_without_faults() {
    sit(Kind::Empirical, Discovery::RunDetails, 1, false).await;
}

#[tokio::test(start_paused = true)]
async fn sample_platform_without_faults() {
    sit(Kind::SamplePlatform, Discovery::Runs, 1, false).await;
}
