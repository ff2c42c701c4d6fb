//! The exam: hard worlds, polled in virtual time until they come to rest; then every number must equal the truth.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use testrun_exporter::model::{ActiveState, CaseOutcome, ErrorCode, Name, Notice, RoundResult, RunOutcome, Update};
use testrun_exporter::poll::{self, Message, Observer, Poller, budget, retry};
use testrun_exporter::simulate::{Fault, FaultPlan, InProcess, Limit, NowFn, Platform, Truth, WorldOptions};
use testrun_exporter::sources::empirical::Empirical;
use testrun_exporter::sources::sample_platform::SamplePlatform;
use testrun_exporter::sources::{
    BranchRule, Branches, CaseSettings, Discovery, DurationUnit, Kind, Progress, Settings,
};
use testrun_exporter::status::{Shared, SourceStatus};
use testrun_exporter::store::{Limits, Snapshot, SourceSpec, Store};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

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

/// A poller that counts nothing of its own: the exam reads the platform's journal instead.
struct Unobserved;

impl Observer for Unobserved {
    fn request_sent(&mut self, _: &'static str, _: &str, _: f64) {}
    fn retried(&mut self, _: retry::Reason) {}
    fn throttled(&mut self, _: budget::Reason, _: f64) {}
    fn rate_limit_told(&mut self, _: budget::Told) {}
    fn round_started(&mut self, _: Timestamp) {}
    fn round_ended(&mut self, _: RoundResult, _: Timestamp, _: f64) {}
    fn progress(&mut self, _: Progress) {}
    fn notice(&mut self, _: &Notice) {}
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

/// What an exam is like.
#[derive(Clone, Copy)]
struct Exam {
    kind: Kind,
    discovery: Discovery,
    seed: u64,
    /// How likely each request is to fail in one of all the ways.
    faults: f64,
    /// The platform's own limit.
    limit: Option<Limit>,
    /// The client's.
    requests_per_minute: f64,
    burst: u32,
}

impl Exam {
    fn of(kind: Kind, seed: u64) -> Self {
        let discovery = if kind == Kind::Empirical {
            Discovery::RunDetails
        } else {
            Discovery::Runs
        };
        Self {
            kind,
            discovery,
            seed,
            faults: 0.05,
            limit: Some(Limit::per_minute(120)),
            requests_per_minute: 60.0,
            burst: 10,
        }
    }

    fn platform(self, start: Timestamp) -> Arc<Mutex<Platform>> {
        let mut platform = Platform::new(self.kind, WorldOptions::exam(self.kind, self.seed, start), "secret");
        platform.set_limit(self.limit);
        platform.expect_budget(self.requests_per_minute, self.burst);
        Arc::new(Mutex::new(platform))
    }

    /// Polls until the world is at rest and everything is read; then compares.
    async fn sit(self) {
        let start: Timestamp = START.parse().unwrap();
        let now = world_clock(start);
        let met = quiet_moment(self, start);
        tokio::time::sleep(met.duration_since(start).unsigned_abs()).await;
        let platform = self.platform(start);
        let transport = InProcess::new(Arc::clone(&platform), Arc::clone(&now));
        let parts = poll::Parts {
            index: 0,
            name: Name::from("exam"),
            settings: poll::Settings {
                interval: Duration::from_secs(60),
                stale_after: Duration::from_secs(900),
                requests_per_minute: self.requests_per_minute,
                burst: self.burst,
            },
            wall: Arc::clone(&now),
            dice: Box::new(|| 0.5),
            observer: Box::new(Unobserved),
            status: Shared::new(SourceStatus::new("exam", start, Duration::from_secs(900))),
        };
        let status = parts.status.clone();
        let (sender, updates) = mpsc::channel(64);
        let shutdown = CancellationToken::new();
        let settings = settings(self.kind, self.discovery);
        let stop = shutdown.clone();
        let poller = match self.kind {
            Kind::Empirical => {
                let poller = Poller::new(Empirical::new(settings), transport, parts);
                tokio::spawn(async move { drop(poller.run(sender, stop).await) })
            }
            Kind::SamplePlatform => {
                let poller = Poller::new(SamplePlatform::new(settings), transport, parts);
                tokio::spawn(async move { drop(poller.run(sender, stop).await) })
            }
        };
        let snapshot = watch(updates, &platform, self.faults, &status, &now).await;
        shutdown.cancel();
        poller.await.unwrap();
        let label = branches();
        let mut platform = platform.lock().unwrap();
        platform.advance(now());
        let truth = platform.truth(met, |branch| label.label(branch).to_string());
        assert_eq!(truth.counted, 300, "every run after the first meeting");
        compare(&truth, &snapshot, self.kind == Kind::Empirical, self.seed);
        assert_eq!(platform.violations(), [] as [String; 0], "seed {}", self.seed);
    }
}

fn every_fault() -> Vec<Fault> {
    vec![
        Fault::status(429),
        Fault::Status {
            code: 429,
            retry_after: Some("7".into()),
        },
        Fault::Status {
            code: 503,
            retry_after: Some("Sat, 01 Nov 2025 00:00:00 GMT".into()),
        },
        Fault::Status {
            code: 500,
            retry_after: Some("soon".into()),
        },
        Fault::status(500),
        Fault::status(502),
        Fault::status(504),
        Fault::Reset,
        Fault::Stall,
        Fault::Truncated,
        Fault::NotJson,
        Fault::SlowBody,
        Fault::HugeBody,
        Fault::GzipBomb,
        Fault::RedirectOffOrigin,
        Fault::WrongShape,
    ]
}

/// Keeps the store, as the application does, until the world is at rest and nothing is left to ask. Every snapshot is
/// scraped at once. Faults begin after the first meeting. Gives the last snapshot.
async fn watch(
    mut updates: mpsc::Receiver<Message>,
    platform: &Mutex<Platform>,
    faults: f64,
    status: &Shared,
    now: &NowFn,
) -> Arc<Snapshot> {
    let mut store = Store::new(vec![spec()], usize::MAX);
    let (mut rest, mut newest) = (0, Arc::new(Snapshot::default()));
    while let Some(Message { update, .. }) = updates.recv().await {
        let ended = match &update {
            Update::RoundEnded { result, .. } => Some(*result),
            Update::Facts(_) => None,
        };
        let published = store.update(0, update, now(), newest.generation);
        let published = published.or_else(|| store.tick(now(), newest.generation));
        if let Some(snapshot) = published {
            never_less(&newest, &snapshot);
            newest = snapshot;
        }
        let Some(result) = ended else { continue };
        if result == RoundResult::Success {
            platform
                .lock()
                .unwrap()
                .set_faults(FaultPlan::random(faults, every_fault()));
            let idle = platform.lock().unwrap().settled(now()) && status.report(now()).status.backlog == 0;
            rest = if idle { rest + 1 } else { 0 };
            // Long enough for every result that was asked for in vain to be asked for again.
            if rest > 20 {
                break;
            }
        }
    }
    let later = now() + SignedDuration::from_mins(5);
    store.tick(later, u64::MAX).unwrap_or(newest)
}

/// The first moment from which on no run finishes for a while: what is unfinished when the platform is first met is then
/// one question with one answer, however many requests the meeting takes. A twin of the world is asked.
fn quiet_moment(exam: Exam, start: Timestamp) -> Timestamp {
    let twin = exam.platform(start);
    let mut twin = twin.lock().unwrap();
    let counted = |twin: &Platform, since| twin.truth(since, |_| String::new()).counted;
    (1..10_000)
        .map(|second| start + SignedDuration::from_secs(second))
        .find(|moment| {
            twin.advance(*moment + SignedDuration::from_secs(30));
            counted(&twin, *moment - SignedDuration::from_secs(1)) == 0
        })
        .expect("a world that never rests for half a minute")
}

/// No counter ever goes back, and none is first seen above 0.
fn never_less(before: &Snapshot, after: &Snapshot) {
    let Some(after) = after.sources.first() else { return };
    let empty = Vec::new();
    let groups = before.sources.first().map_or(&empty, |source| &source.groups);
    let known: BTreeMap<_, _> = groups.iter().map(|row| (&row.group, row)).collect();
    for row in &after.groups {
        let zeros = [0; RunOutcome::COUNT];
        let before = known.get(&row.group).map_or(&zeros, |before| &before.runs);
        assert!(
            known.contains_key(&row.group) || row.runs == zeros,
            "{:?} begins at {:?}",
            row.group,
            row.runs
        );
        assert!(
            before.iter().zip(&row.runs).all(|(before, after)| before <= after),
            "{:?} went back",
            row.group
        );
    }
    let empty = Vec::new();
    let cases = before.sources.first().map_or(&empty, |source| &source.cases);
    let known: BTreeMap<_, _> = cases.iter().map(|row| ((&row.group, &row.case), row)).collect();
    for row in &after.cases {
        let zeros = [0; CaseOutcome::COUNT];
        let before = known.get(&(&row.group, &row.case)).map(|before| &before.results);
        assert!(
            before.is_some() || row.results == zeros,
            "{} begins at {:?}",
            row.case,
            row.results
        );
        assert!(
            before
                .unwrap_or(&zeros)
                .iter()
                .zip(&row.results)
                .all(|(before, after)| before <= after),
            "{} went back",
            row.case
        );
    }
}

fn spec() -> SourceSpec {
    SourceSpec {
        name: Name::from("exam"),
        error_codes: ErrorCode::ALL,
        active_states: ActiveState::ALL,
        limits: Limits {
            cases_max: 10_000,
            retention: Duration::from_secs(32 * 86_400),
        },
    }
}

/// Every seed on its own paused clock, two at a time: the machine that runs this has two cores.
fn sit_all(exams: impl IntoIterator<Item = Exam>) {
    let exams = Mutex::new(exams.into_iter().collect::<Vec<_>>());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(exam) = { exams.lock().unwrap().pop() } {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_time()
                        .start_paused(true)
                        .build();
                    runtime.unwrap().block_on(exam.sit());
                }
            });
        }
    });
}

fn seeds() -> std::ops::RangeInclusive<u64> {
    1..=std::env::var_os("EXAM_SEEDS")
        .and_then(|n| n.into_string().ok()?.parse().ok())
        .unwrap_or(50)
}

#[test]
fn every_number_of_empirical_equals_the_truth_for_every_seed() {
    sit_all(seeds().map(|seed| Exam::of(Kind::Empirical, seed)));
}

#[test]
fn every_number_of_the_sample_platform_equals_the_truth_for_every_seed() {
    sit_all(seeds().map(|seed| Exam::of(Kind::SamplePlatform, seed)));
}
