//! The exam: hard worlds, polled in virtual time until they come to rest; then every number must equal the truth.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use testrun_exporter::health;
use testrun_exporter::model::{
    ActiveState, CaseOutcome, ErrorCode, Name, Notice, OTHER, RoundResult, RunOutcome, Update, Verdict,
};
use testrun_exporter::poll::{self, Message, Observer, Orders, Poller, budget, retry};
use testrun_exporter::promotion;
use testrun_exporter::simulate::{
    CaseTruth, Entry, Fault, FaultPlan, InProcess, Limit, NowFn, Platform, RunTruth, SnoozeTruth, Truth, When,
    WorldOptions,
};
use testrun_exporter::sources::empirical::Empirical;
use testrun_exporter::sources::sample_platform::SamplePlatform;
use testrun_exporter::sources::{
    BranchRule, Branches, CaseSettings, Discovery, DurationUnit, Kind, Progress, Settings, Source,
};
use testrun_exporter::status::{Shared, SourceStatus};
use testrun_exporter::store::{CaseRow, GroupRow, Limits, Next, Snapshot, SourceSnapshot, SourceSpec, Store};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub(crate) const START: &str = "2026-11-01T00:00:00Z";

pub(crate) fn settings(kind: Kind, discovery: Discovery) -> Settings {
    Settings {
        kind,
        lookback: Duration::from_secs(30 * 86_400),
        series_ttl: Duration::from_secs(14 * 86_400),
        branches: branches(),
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

pub(crate) fn branches() -> Branches {
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

/// Everything in which the snapshot is not the truth. In a calm world nothing is edited, and the gauges are exact too.
pub(crate) fn differences(truth: &Truth, snapshot: &Snapshot, discovery: Discovery, calm: bool) -> Vec<String> {
    let mut wrong = Differences(Vec::new());
    let source = &snapshot.sources[0];
    let group = |row: &GroupRow| (row.group.environment.to_string(), row.group.branch.to_string());
    let groups: BTreeMap<_, _> = source.groups.iter().map(|row| (group(row), row)).collect();
    for (key, expected) in &truth.runs {
        match groups.get(key) {
            Some(row) => wrong.in_group(key, expected, row, truth, discovery),
            None => wrong.0.push(format!("{key:?} is missing")),
        }
    }
    let case = |row: &CaseRow| {
        (
            row.group.environment.to_string(),
            row.group.branch.to_string(),
            row.case.to_string(),
        )
    };
    let rows: BTreeMap<_, _> = source.cases.iter().map(|row| (case(row), row)).collect();
    if calm {
        wrong.in_snoozes(truth, source);
    }
    for (key, expected) in &truth.cases {
        match rows.get(key) {
            Some(row) => wrong.in_case(key, expected, row, discovery, calm),
            None if expected.results.iter().sum::<u64>() > 0 => wrong.0.push(format!("{key:?} is missing")),
            None => {}
        }
    }
    for (key, row) in &groups {
        let counted: u64 = row.runs.iter().chain(&row.cases).sum();
        if counted > 0 && !truth.runs.contains_key(key) {
            wrong.0.push(format!("{key:?} counts what never happened: {row:?}"));
        }
    }
    for (key, row) in &rows {
        if row.counts.results.iter().sum::<u64>() > 0 && !truth.cases.contains_key(key) {
            wrong.0.push(format!("{key:?} counts what never happened: {row:?}"));
        }
    }
    for (environment, errors) in &truth.errors {
        let got = source.run_errors.get(environment.as_str()).copied().unwrap_or_default();
        wrong.unless_equal(&format!("{environment} errors"), errors, &got.counts);
    }
    for (environment, active) in &source.runs_active {
        wrong.unless_equal(
            &format!("{environment} active at rest"),
            &[0; ActiveState::COUNT],
            active,
        );
    }
    wrong.0
}

struct Differences(Vec<String>);

impl Differences {
    fn unless_equal<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, expected: &T, got: &T) {
        if expected != got {
            self.0.push(format!("{what}: expected {expected:?}, got {got:?}"));
        }
    }

    /// Sums of thousands of floats may differ in the last bits; the truth's are in whole milliseconds.
    fn unless_close(&mut self, what: &str, expected: f64, got: f64) {
        if (expected - got).abs() >= 0.001 {
            self.0.push(format!("{what}: expected {expected}, got {got}"));
        }
    }

    fn in_group(
        &mut self,
        key: &(String, String),
        expected: &RunTruth,
        row: &GroupRow,
        truth: &Truth,
        discovery: Discovery,
    ) {
        self.unless_equal(&format!("{key:?} runs"), &expected.runs, &row.runs);
        let mut cases = expected.cases;
        if discovery == Discovery::Runs {
            // Here the Sample Platform's runs have no counts of their own: they are those of their results, which do not
            // tell what was skipped.
            let of_group = truth
                .cases
                .iter()
                .filter(|((environment, branch, _), _)| (environment, branch) == (&key.0, &key.1));
            cases[CaseOutcome::Unknown.index()] = of_group
                .map(|(_, case)| case.results[CaseOutcome::Unknown.index()])
                .sum();
            cases[CaseOutcome::Skipped.index()] = 0;
        }
        self.unless_equal(&format!("{key:?} cases"), &cases, &row.cases);
        self.unless_equal(
            &format!("{key:?} durations"),
            &expected.duration.count,
            &row.duration.count(),
        );
        self.unless_close(
            &format!("{key:?} duration sum"),
            expected.duration.seconds(),
            row.duration.sum,
        );
        self.unless_equal(
            &format!("{key:?} queue waits"),
            &expected.queue.count,
            &row.queue.count(),
        );
        self.unless_close(
            &format!("{key:?} queue wait sum"),
            expected.queue.seconds(),
            row.queue.sum,
        );
        let seconds = row.last.as_ref().and_then(|run| run.duration_seconds);
        let told = expected.last.and_then(|last| last.duration).zip(seconds);
        if let Some((millis, seconds)) =
            told.filter(|_| row.last.as_ref().map(|run| run.id) == expected.last.map(|last| last.id))
        {
            self.unless_close(&format!("{key:?} last duration"), millis as f64 / 1000.0, seconds);
        }
        let last = row.last.as_ref().map(|run| (run.id, run.outcome));
        self.unless_equal(
            &format!("{key:?} last"),
            &expected.last.map(|last| (last.id, last.outcome)),
            &last,
        );
    }

    /// Only what holds now; a source that reads no snoozes says nothing of them.
    fn in_snoozes(&mut self, truth: &Truth, source: &SourceSnapshot) {
        if source.snoozes.is_empty() {
            return;
        }
        let now = source.as_of.as_millisecond();
        let holding: Vec<_> = truth
            .snoozes
            .iter()
            .filter(|it| (it.from..it.until).contains(&now))
            .collect();
        let holds_in = |snooze: &&&SnoozeTruth, environment: &str| {
            let scope = snooze.environment.as_deref();
            scope.is_none_or(|scope| scope == environment)
        };
        for (environment, row) in &source.snoozes {
            let what = format!("snoozes of {environment:?}");
            let own = Some(&**environment).filter(|name| !name.is_empty());
            let active = holding.iter().filter(|it| it.environment.as_deref() == own).count();
            self.unless_equal(&what, &(active as u64), &row.active);
            let next = holding
                .iter()
                .filter(|it| holds_in(it, environment))
                .map(|it| it.until)
                .min();
            self.unless_equal(&what, &next, &row.next_expiry.map(|at| at.as_millisecond()));
        }
        let mut snoozed: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for row in &source.cases {
            let environment = &*row.group.environment;
            let mut there = holding.iter().filter(|it| holds_in(it, environment));
            let expected = there.any(|it| it.cases.iter().any(|case| **case == *row.case));
            self.unless_equal(
                &format!("{environment:?} {} snoozed", row.case),
                &expected,
                &row.snoozed,
            );
            let cases = snoozed.entry(environment).or_default();
            if expected {
                cases.insert(&row.case);
            }
        }
        for (environment, cases) in snoozed {
            let count = source.snoozes.get(environment).and_then(|row| row.cases);
            let what = format!("{environment:?} snoozed cases");
            self.unless_equal(&what, &Some(cases.len() as u64), &count);
        }
        // Where a run has not told its environment, the truth is elsewhere.
        let named = source.groups.iter().filter(|row| !row.group.environment.is_empty());
        for row in named {
            let key = (row.group.environment.to_string(), row.group.branch.to_string());
            let expected = truth.runs.get(&key).and_then(|group| group.last);
            let expected = expected.and_then(|last| last.failed_after_snooze);
            self.unless_equal(&format!("{key:?} after snooze"), &expected, &row.failed_after_snooze);
        }
    }

    fn in_case(
        &mut self,
        key: &(String, String, String),
        expected: &CaseTruth,
        row: &CaseRow,
        discovery: Discovery,
        calm: bool,
    ) {
        self.unless_equal(&format!("{key:?} results"), &expected.results, &row.counts.results);
        self.unless_equal(&format!("{key:?} retries"), &expected.retries, &row.counts.retries);
        let told = !matches!(discovery, Discovery::Samples | Discovery::Static) || expected.retries > 0;
        if told {
            self.unless_equal(
                &format!("{key:?} durations"),
                &expected.duration.count,
                &row.counts.duration_count,
            );
            self.unless_close(
                &format!("{key:?} duration sum"),
                expected.duration.seconds(),
                row.counts.duration_sum,
            );
        }
        if calm {
            self.unless_equal(
                &format!("{key:?} last"),
                &expected.last,
                &row.last.as_ref().map(|last| last.outcome),
            );
            self.unless_equal(&format!("{key:?} streak"), &expected.streak, &row.consecutive_failures);
            self.unless_equal(
                &format!("{key:?} last pass"),
                &expected.last_pass,
                &row.last_pass.map(|at| at.as_millisecond()),
            );
        }
    }
}

/// What an exam is like.
#[derive(Clone, Copy)]
pub(crate) struct Exam {
    pub(crate) kind: Kind,
    pub(crate) discovery: Discovery,
    pub(crate) seed: u64,
    pub(crate) world: fn(Kind, u64, Timestamp) -> WorldOptions,
    /// How likely each request is to fail in one of all the ways.
    pub(crate) faults: f64,
    /// The platform's own limit.
    pub(crate) limit: Option<Limit>,
    /// The client's.
    pub(crate) requests_per_minute: f64,
    pub(crate) burst: u32,
    pub(crate) interval: Duration,
    /// How many days are read.
    pub(crate) lookback_days: u64,
    /// For how many days a case that no run lists is kept.
    pub(crate) series_ttl_days: u64,
    /// How many rounds without anything to do make the end.
    pub(crate) rest: usize,
    /// How likely the configuration changes with each message of the poller.
    pub(crate) reloads: f64,
}

impl Exam {
    pub(crate) fn of(kind: Kind, seed: u64) -> Self {
        let discovery = if kind == Kind::Empirical {
            Discovery::RunDetails
        } else {
            Discovery::Runs
        };
        Self {
            kind,
            discovery,
            seed,
            world: WorldOptions::exam,
            faults: 0.05,
            limit: Some(Limit::per_minute(120)),
            requests_per_minute: 60.0,
            burst: 10,
            reloads: 0.0,
            interval: Duration::from_secs(60),
            lookback_days: 30,
            series_ttl_days: 14,
            rest: REST,
        }
    }

    pub(crate) fn platform(self, start: Timestamp) -> Arc<Mutex<Platform>> {
        let mut platform = Platform::new(self.kind, (self.world)(self.kind, self.seed, start), "secret");
        platform.set_limit(self.limit);
        platform.expect_budget(self.requests_per_minute, self.burst);
        Arc::new(Mutex::new(platform))
    }

    /// Polls until the world is at rest and everything is read; then compares.
    async fn sit(self) {
        let mut sitting = self.begin().await;
        let snapshot = sitting.watch(self.faults, |rest| rest > self.rest).await;
        let truth = sitting.truth().await;
        let world = (self.world)(self.kind, self.seed, sitting.met);
        assert_eq!(
            Some(truth.counted),
            world.runs_after.map(|runs| runs as u64),
            "every run after the first meeting"
        );
        // Where there are edits, the gauges follow with the next slow re-read.
        let calm = world.late_edits == 0.0 || self.rest > REST;
        let wrong = differences(&truth, &snapshot, self.discovery, calm);
        assert!(
            wrong.is_empty(),
            "seed {}: {} differences:\n{}",
            self.seed,
            wrong.len(),
            wrong[..wrong.len().min(40)].join("\n")
        );
        assert_eq!(
            sitting.platform.lock().unwrap().violations(),
            [] as [String; 0],
            "seed {}",
            self.seed
        );
    }

    /// The platform, and a poller on it.
    pub(crate) async fn begin(self) -> Sitting {
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
                interval: self.interval,
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
        let mut settings = settings(self.kind, self.discovery);
        settings.lookback = Duration::from_secs(self.lookback_days * 86_400);
        settings.series_ttl = Duration::from_secs(self.series_ttl_days * 86_400);
        let has_snoozes = platform.lock().unwrap().options().snoozes > 0.0;
        settings.snoozes = has_snoozes.then_some(SNOOZES_INTERVAL);
        if self.discovery == Discovery::Static {
            settings.cases.ids = every_id(&platform.lock().unwrap(), met);
        }
        let stop = shutdown.clone();
        let reloads = Reloads {
            likely: self.reloads,
            dice: StdRng::seed_from_u64(self.seed),
            poll: parts.settings.clone(),
            settings: settings.clone(),
        };
        let (poller, change) = match self.kind {
            Kind::Empirical => at_work(Empirical::new, settings, transport, parts, sender, stop),
            Kind::SamplePlatform => at_work(SamplePlatform::new, settings, transport, parts, sender, stop),
        };
        let store = Store::new(vec![spec(self.lookback_days, self.series_ttl_days)], usize::MAX);
        Sitting {
            now,
            met,
            platform,
            status,
            updates,
            shutdown,
            poller: Some(poller),
            reloads,
            change,
            store,
            newest: Arc::default(),
            left: Left::default(),
            memory_bytes: 0,
        }
    }
}

/// Tells a poller of another configuration.
type ChangeFn = Box<dyn Fn(poll::Settings, bool, Option<Settings>)>;

/// A poller at work, and where it is told of another configuration.
fn at_work<S: Source>(
    make: fn(Settings) -> S,
    settings: Settings,
    transport: InProcess,
    parts: poll::Parts,
    sender: mpsc::Sender<Message>,
    stop: CancellationToken,
) -> (tokio::task::JoinHandle<()>, ChangeFn) {
    let mut poller = Poller::new(make(settings), transport.clone(), parts);
    poller.keep_memory();
    let desk = poller.desk();
    let change = move |settings, connection: bool, reading: Option<Settings>| {
        desk.change(Orders {
            settings,
            transport: connection.then(|| transport.clone()),
            source: reading.map(make),
        });
    };
    let task = tokio::spawn(async move { drop(poller.run(sender, stop).await) });
    (task, Box::new(change))
}

/// Configurations that change nothing about what is to be counted.
struct Reloads {
    likely: f64,
    dice: StdRng,
    poll: poll::Settings,
    settings: Settings,
}

impl Reloads {
    fn next(&mut self) -> Option<(poll::Settings, bool, Option<Settings>)> {
        if !self.dice.random_bool(self.likely) {
            return None;
        }
        let dice = &mut self.dice;
        let mut poll = self.poll.clone();
        poll.interval = Duration::from_secs(dice.random_range(40..80));
        poll.requests_per_minute *= dice.random_range(0.5..1.0);
        poll.burst = dice.random_range(1..=poll.burst);
        let mut settings = self.settings.clone();
        settings.cases.batch_size = dice.random_range(20..100);
        settings.cases.analytics_lag = Duration::from_secs(dice.random_range(60..180));
        let (connection, reading) = (dice.random_bool(0.5), dice.random_bool(0.5));
        Some((poll, connection, reading.then_some(settings)))
    }
}

/// How many rounds without anything to do make the end: long enough for every result that was asked for in vain to be
/// asked for again.
pub(crate) const REST: usize = 20;

/// How often snoozes are read, where there are any.
const SNOOZES_INTERVAL: Duration = Duration::from_secs(600);

/// Days of rounds: who needs more does not come to rest.
const ROUNDS_MAX: usize = 5_000;

/// The ids that a person would configure.
fn every_id(platform: &Platform, now: Timestamp) -> Vec<String> {
    match platform.kind() {
        Kind::Empirical => {
            let truth = platform.truth(now, |_| String::new());
            truth
                .cases
                .keys()
                .map(|(_, _, case)| case.clone())
                .collect::<std::collections::BTreeSet<_>>()
                .into_iter()
                .collect()
        }
        Kind::SamplePlatform => (1..=400).map(|id: u32| id.to_string()).collect(),
    }
}

/// A poller at work on a platform, and the store that the application would keep. Every snapshot is scraped at once.
pub(crate) struct Sitting {
    pub(crate) now: NowFn,
    pub(crate) met: Timestamp,
    pub(crate) platform: Arc<Mutex<Platform>>,
    pub(crate) status: Shared,
    updates: mpsc::Receiver<Message>,
    shutdown: CancellationToken,
    poller: Option<tokio::task::JoinHandle<()>>,
    reloads: Reloads,
    change: ChangeFn,
    pub(crate) store: Store,
    newest: Arc<Snapshot>,
    pub(crate) left: Left,
    /// The size of what the source remembers.
    pub(crate) memory_bytes: usize,
}

impl Sitting {
    /// Until enough rounds in a row had nothing to do in a world at rest. Faults begin after the first meeting.
    async fn watch(&mut self, faults: f64, enough: impl Fn(usize) -> bool) -> Arc<Snapshot> {
        let (mut rest, mut rounds) = (0, 0);
        while !enough(rest) {
            rounds += 1;
            assert!(
                rounds < ROUNDS_MAX,
                "no rest after {rounds} rounds: {:?}",
                self.status.report((self.now)()).status
            );
            if self.round().await == RoundResult::Success {
                self.set_faults(faults);
                rest = if self.is_idle() { rest + 1 } else { 0 };
            }
        }
        self.last_snapshot()
    }

    pub(crate) fn set_faults(&self, faults: f64) {
        let plan = FaultPlan::random(faults, every_fault());
        self.platform.lock().unwrap().set_faults(plan);
    }

    /// Nothing happens in the world, and nothing of it is left to be read.
    pub(crate) fn is_idle(&self) -> bool {
        let now = (self.now)();
        self.platform.lock().unwrap().settled(now) && self.status.report(now).status.backlog == 0
    }

    /// What is shown when no count is held back any more.
    pub(crate) fn last_snapshot(&mut self) -> Arc<Snapshot> {
        let later = (self.now)() + SignedDuration::from_mins(5);
        if let Some(snapshot) = self.store.tick(later, u64::MAX) {
            never_less(&self.newest, &snapshot, &mut self.left);
            self.newest = snapshot;
        }
        verdicts_agree(&self.newest);
        Arc::clone(&self.newest)
    }

    /// One round.
    pub(crate) async fn round(&mut self) -> RoundResult {
        loop {
            let Message { update, memory, .. } = self.updates.recv().await.expect("the poller has ended");
            self.memory_bytes = memory.map_or(self.memory_bytes, |memory| memory.len());
            if let Some((poll, connection, reading)) = self.reloads.next() {
                (self.change)(poll, connection, reading);
                let spec = self.store.sources()[0].spec().clone();
                let known = Next::Known {
                    place: 0,
                    spec: Box::new(spec),
                };
                self.store.reconfigure(vec![known], usize::MAX, (self.now)());
            }
            let ended = if let Update::RoundEnded { result, .. } = &update {
                Some(*result)
            } else {
                None
            };
            let (now, scraped) = ((self.now)(), self.newest.generation);
            let published = self
                .store
                .update(0, update, now, scraped)
                .or_else(|| self.store.tick(now, scraped));
            if let Some(snapshot) = published {
                never_less(&self.newest, &snapshot, &mut self.left);
                self.newest = snapshot;
            }
            if let Some(result) = ended {
                return result;
            }
        }
    }

    /// What must have been counted by now.
    fn truth_now(&self) -> Truth {
        let label = branches();
        let mut platform = self.platform.lock().unwrap();
        platform.advance((self.now)());
        platform.truth(self.met, |branch| label.label(branch).to_string())
    }

    /// Stops the poller; gives what must have been counted.
    pub(crate) async fn truth(&mut self) -> Truth {
        self.shutdown.cancel();
        self.poller.take().expect("stopped once").await.unwrap();
        let label = branches();
        let mut platform = self.platform.lock().unwrap();
        platform.advance((self.now)());
        platform.truth(self.met, |branch| label.label(branch).to_string())
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

/// What rows had counted when they left, because nothing was left to tell of them. One that returns begins at 0 again, as after
/// a restart: what happened is the sum.
#[derive(Default)]
pub(crate) struct Left {
    groups: BTreeMap<(String, String), ([u64; RunOutcome::COUNT], [u64; CaseOutcome::COUNT])>,
    cases: BTreeMap<(String, String, String), [u64; CaseOutcome::COUNT]>,
}

impl Left {
    fn group(&mut self, row: &GroupRow) {
        let key = (row.group.environment.to_string(), row.group.branch.to_string());
        let (runs, cases) = self.groups.entry(key).or_default();
        add(runs, &row.runs);
        add(cases, &row.cases);
    }

    fn case(&mut self, row: &CaseRow) {
        let group = (row.group.environment.to_string(), row.group.branch.to_string());
        let key = (group.0, group.1, row.case.to_string());
        add(self.cases.entry(key).or_default(), &row.counts.results);
    }

    /// How many rows have left.
    pub(crate) fn len(&self) -> usize {
        self.groups.len() + self.cases.len()
    }

    /// What remains of the differences: those of rows that never left, and those of sums.
    pub(crate) fn explain(&self, mut wrong: Vec<String>, truth: &Truth, snapshot: &Snapshot) -> Vec<String> {
        let is_of = |line: &str, key: &str| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(' '));
        let mut keys: Vec<String> = self.groups.keys().map(|key| format!("{key:?}")).collect();
        keys.extend(self.cases.keys().map(|key| format!("{key:?}")));
        keys.sort_unstable();
        wrong.retain(|line| {
            // The key is the one that sorts last before the line.
            let at = keys.partition_point(|key| key.as_str() <= line.as_str());
            at == 0 || !is_of(line, &keys[at - 1])
        });
        let mut sums = Self {
            groups: self.groups.clone(),
            cases: self.cases.clone(),
        };
        let source = &snapshot.sources[0];
        source.groups.iter().for_each(|row| sums.group(row));
        source.cases.iter().for_each(|row| sums.case(row));
        for key in self.groups.keys() {
            let expected = truth.runs.get(key).map(|row| (row.runs, row.cases));
            if expected.unwrap_or_default() != sums.groups[key] {
                wrong.push(format!(
                    "{key:?} in all: expected {expected:?}, got {:?}",
                    sums.groups[key]
                ));
            }
        }
        for key in self.cases.keys() {
            let expected = truth.cases.get(key).map(|row| row.results);
            if expected.unwrap_or_default() != sums.cases[key] {
                wrong.push(format!(
                    "{key:?} in all: expected {expected:?}, got {:?}",
                    sums.cases[key]
                ));
            }
        }
        wrong
    }
}

fn add<const N: usize>(to: &mut [u64; N], from: &[u64; N]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
}

/// No counter ever goes back, and none is first seen above 0. Rows are in the order of their keys.
fn never_less(before: &Snapshot, after: &Snapshot, left: &mut Left) {
    let Some(after) = after.sources.first() else { return };
    let before = before.sources.first();
    let mut known = before.map_or(&[][..], |source| &source.groups).iter().peekable();
    for row in &after.groups {
        while let Some(gone) = known.next_if(|known| known.group < row.group) {
            left.group(gone);
        }
        let before = known.next_if(|known| known.group == row.group).map(|known| known.runs);
        no_less(before.as_ref(), &row.runs, || format!("{:?}", row.group));
    }
    known.for_each(|gone| left.group(gone));
    let mut known = before.map_or(&[][..], |source| &source.cases).iter().peekable();
    for row in &after.cases {
        let is_before = |known: &&CaseRow| (&known.group, &known.case) < (&row.group, &row.case);
        while let Some(gone) = known.next_if(is_before) {
            left.case(gone);
        }
        let before = known.next_if(|known| known.case == row.case && known.group == row.group);
        no_less(before.map(|before| &before.counts.results), &row.counts.results, || {
            row.case.to_string()
        });
    }
    known.for_each(|gone| left.case(gone));
}

/// Every case with a result has one verdict, made of as many results as there are, and `testrun_cases` has each case once in an
/// environment, with the outcome and the verdict of one of its branches.
fn verdicts_agree(snapshot: &Snapshot) {
    // By case, of each of its branches.
    type Told<'a> = BTreeMap<&'a Name, Vec<(CaseOutcome, Verdict)>>;
    let Some(source) = snapshot.sources.first() else { return };
    let mut told: BTreeMap<&Name, Told<'_>> = BTreeMap::new();
    for row in source.cases.iter().filter(|row| &*row.case != OTHER) {
        let Some(last) = &row.last else {
            assert_eq!(row.health, None, "{} has no result", row.case);
            continue;
        };
        let health = row.health.as_ref().expect("a case with a result has been judged");
        let results: u32 = health.window.iter().sum();
        assert!(
            (1..=50).contains(&results) && health.window[last.outcome.index()] > 0,
            "{row:?}"
        );
        assert_eq!(row.failing_since.is_some(), row.consecutive_failures > 0, "{row:?}");
        let in_environment = told.entry(&row.group.environment).or_default();
        in_environment
            .entry(&row.case)
            .or_default()
            .push((last.outcome, health.verdict));
    }
    for (environment, counts) in &source.case_outcomes {
        let cases = told.remove(environment).unwrap_or_default();
        let all: u64 = counts.as_flattened().iter().sum();
        assert_eq!(all, cases.len() as u64, "each case of {environment} once");
        for outcome in CaseOutcome::ALL {
            for verdict in Verdict::ALL {
                let count = counts[outcome.index()][verdict.index()];
                let is = |told: &&Vec<_>| told.contains(&(*outcome, *verdict));
                let certain = |told: &&Vec<_>| told.iter().all(|one| *one == (*outcome, *verdict));
                let most = cases.values().filter(is).count() as u64;
                let least = cases.values().filter(certain).count() as u64;
                assert!(
                    (least..=most).contains(&count),
                    "{environment} {outcome:?} {verdict:?}: {count}"
                );
            }
        }
    }
    assert!(told.is_empty(), "environments that are not counted: {told:?}");
}

fn no_less<const N: usize>(before: Option<&[u64; N]>, after: &[u64; N], what: impl Fn() -> String) {
    assert!(before.is_some() || after == &[0; N], "{} begins at {after:?}", what());
    let before = before.unwrap_or(&[0; N]);
    let less = before.iter().zip(after).any(|(before, after)| before > after);
    assert!(!less, "{} went back", what());
}

fn spec(lookback_days: u64, series_ttl_days: u64) -> SourceSpec {
    SourceSpec {
        created_timestamps: false,
        name: Name::from("exam"),
        error_codes: ErrorCode::ALL,
        active_states: ActiveState::ALL,
        limits: Limits {
            cases_max: 10_000,
            retention: Duration::from_secs((lookback_days + 2) * 86_400),
            series_ttl: Duration::from_secs(series_ttl_days * 86_400),
        },
        promotion: None,
        health: health::Settings::default(),
    }
}

/// Every seed on its own paused clock.
fn sit_all(exams: impl IntoIterator<Item = Exam>) {
    on_paused_clocks(exams, Exam::sit);
}

/// Each on its own paused clock, two at a time: the machine that runs this has two cores.
pub(crate) fn on_paused_clocks<T: Send, F: Future<Output = ()>>(
    all: impl IntoIterator<Item = T>,
    work: impl Fn(T) -> F + Sync,
) {
    let all = Mutex::new(all.into_iter().collect::<Vec<_>>());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(one) = { all.lock().unwrap().pop() } {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_time()
                        .start_paused(true)
                        .build();
                    runtime.unwrap().block_on(work(one));
                }
            });
        }
    });
}

/// All of them in CI; fewer for a quick look.
#[expect(clippy::disallowed_methods, reason = "a test's own knob")]
fn seeds() -> std::ops::RangeInclusive<u64> {
    1..=std::env::var("EXAM_SEEDS")
        .ok()
        .and_then(|seeds| seeds.parse().ok())
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

/// A world in which nothing is edited or started again.
fn calm(kind: Kind, seed: u64, start: Timestamp) -> WorldOptions {
    WorldOptions {
        late_edits: 0.0,
        restarts: 0.0,
        ..WorldOptions::exam(kind, seed, start)
    }
}

#[test]
fn configurations_that_change_all_the_time_change_no_number() {
    sit_all((201..=200 + (*seeds().end()).min(2)).flat_map(|seed| {
        [Kind::Empirical, Kind::SamplePlatform].map(|kind| Exam {
            world: calm,
            reloads: 0.1,
            ..Exam::of(kind, seed)
        })
    }));
}

/// A calm world in which failures are snoozed.
fn snoozing(kind: Kind, seed: u64, start: Timestamp) -> WorldOptions {
    WorldOptions {
        snoozes: 0.4,
        ..calm(kind, seed, start)
    }
}

#[test]
fn snoozes_are_those_that_hold_and_cost_a_request_an_interval() {
    on_paused_clocks(301..=303, |seed| async move {
        let exam = Exam {
            world: snoozing,
            ..Exam::of(Kind::Empirical, seed)
        };
        let mut sitting = exam.begin().await;
        let began = (sitting.now)();
        let snapshot = sitting.watch(exam.faults, |rest| rest > exam.rest).await;
        let seconds = (sitting.now)().duration_since(began).as_secs();
        let truth = sitting.truth().await;
        let wrong = differences(&truth, &snapshot, exam.discovery, true);
        assert_eq!(wrong, [] as [String; 0], "seed {seed}");
        let platform = sitting.platform.lock().unwrap();
        assert_eq!(platform.violations(), [] as [String; 0], "seed {seed}");
        assert!(truth.snoozes.len() > 50, "seed {seed}: {} snoozes", truth.snoozes.len());
        let is_told = |row: &CaseRow| row.snoozed;
        assert!(
            snapshot.sources[0].cases.iter().any(is_told),
            "seed {seed}: none holds in the end"
        );
        let answered = |entry: &&Entry| entry.endpoint == "/api/snoozes" && entry.status == 200;
        let asked = platform.journal().entries().iter().filter(answered).count();
        let most = usize::try_from(seconds / 600).unwrap() + 2;
        // More than a hundred snoozes are two pages; answers that cannot be read come again.
        assert!((most / 2..=3 * most).contains(&asked), "seed {seed}: {asked} of {most}");
    });
}

#[test]
fn a_key_that_may_not_read_snoozes_is_good_for_all_the_rest() {
    on_paused_clocks([311], |seed| async move {
        let exam = Exam {
            world: snoozing,
            ..Exam::of(Kind::Empirical, seed)
        };
        let mut sitting = exam.begin().await;
        let snoozes = When::Endpoint("/api/snoozes".into(), 1);
        sitting
            .platform
            .lock()
            .unwrap()
            .script_fault(snoozes, Fault::status(403));
        for _ in 0..30 {
            assert_eq!(sitting.round().await, RoundResult::Success);
        }
        let snapshot = sitting.last_snapshot();
        assert!(snapshot.sources[0].snoozes.is_empty() && !snapshot.sources[0].cases.is_empty());
        drop(sitting.truth().await);
        let platform = sitting.platform.lock().unwrap();
        assert_eq!(platform.violations(), [] as [String; 0]);
        let asked = platform
            .journal()
            .entries()
            .iter()
            .filter(|entry| entry.endpoint == "/api/snoozes");
        assert_eq!(asked.map(|entry| entry.status).collect::<Vec<_>>(), [403]);
    });
}

/// A small suite of which most runs pass, so that there is something to promote now and then.
fn healthy(kind: Kind, seed: u64, start: Timestamp) -> WorldOptions {
    WorldOptions {
        cases: 4,
        runs_after: Some(200),
        snoozes: if kind == Kind::Empirical { 0.4 } else { 0.0 },
        ..calm(kind, seed, start)
    }
}

/// Why an environment must not be promoted, by the platform's own truth.
fn objections(
    truth: &Truth,
    source: &SourceSnapshot,
    environment: &str,
    met: Timestamp,
    now: Timestamp,
) -> Vec<String> {
    let is_here = |of: &str, branch: &str| of == environment && ["main", "master"].contains(&branch);
    let as_of = source.as_of.as_millisecond();
    let runs = truth.runs.iter().filter(|((of, branch), _)| is_here(of, branch));
    let newest = runs
        .filter_map(|(_, group)| group.last)
        .max_by_key(|last| (last.ended, last.id));
    let mut objections = Vec::new();
    match newest {
        None => objections.push("no run".to_owned()),
        Some(last) => {
            if !matches!(last.outcome, RunOutcome::Passed | RunOutcome::Failed) {
                objections.push(format!("the newest run: {last:?}"));
            }
            if now.as_millisecond() - last.ended >= 24 * 3_600_000 {
                objections.push(format!("overdue: {last:?}"));
            }
        }
    }
    let mut cases: BTreeMap<&str, &CaseTruth> = BTreeMap::new();
    for ((_, _, case), told) in truth.cases.iter().filter(|((of, branch, _), _)| is_here(of, branch)) {
        let known = cases.entry(case).or_insert(told);
        if told.last_at > known.last_at {
            *known = told;
        }
    }
    for (case, told) in cases {
        // What ran before the first meeting and in none of the runs that were read then is nobody's.
        let is_read = source
            .cases
            .iter()
            .any(|row| &*row.case == case && &*row.group.environment == environment);
        if !is_read && told.last_at < Some(met.as_millisecond()) {
            continue;
        }
        let covers = |snooze: &&SnoozeTruth| {
            let scope = snooze.environment.as_deref();
            (snooze.from..snooze.until).contains(&as_of)
                && scope.is_none_or(|scope| scope == environment)
                && snooze.cases.iter().any(|known| known == case)
        };
        let fits = told
            .last
            .is_none_or(|last| last.is_pass() || last == CaseOutcome::Skipped);
        if !fits && !truth.snoozes.iter().any(|snooze| covers(&snooze)) {
            objections.push(format!("{case}: {told:?}"));
        }
    }
    objections
}

#[test]
fn what_is_promotable_is_fresh_complete_and_passing_by_the_platforms_own_truth() {
    let opened = Mutex::new((0_u32, 0_u32));
    let exams = (401..=405).flat_map(|seed| {
        [Kind::Empirical, Kind::SamplePlatform].map(|kind| Exam {
            world: healthy,
            ..Exam::of(kind, seed)
        })
    });
    on_paused_clocks(exams, async |exam: Exam| {
        let mut sitting = exam.begin().await;
        let gated = SourceSpec {
            promotion: Some(promotion::Settings {
                branches: vec!["main".into(), "master".into()],
                run_max_age: SignedDuration::from_hours(24),
                required: Vec::new(),
                all_cases: true,
            }),
            ..spec(exam.lookback_days, exam.series_ttl_days)
        };
        let known = Next::Known {
            place: 0,
            spec: Box::new(gated),
        };
        sitting.store.reconfigure(vec![known], usize::MAX, (sitting.now)());
        for round in 0..400 {
            // An hour or so without the platform.
            sitting.platform.lock().unwrap().set_down((150..180).contains(&round));
            let before = sitting.truth_now();
            let result = sitting.round().await;
            let (after, now) = (sitting.truth_now(), (sitting.now)());
            if result == RoundResult::Success {
                sitting.set_faults(0.03);
            }
            let Some(source) = sitting.newest.sources.first() else {
                continue;
            };
            let stale_after = SignedDuration::from_mins(15);
            let is_fresh = promotion::is_fresh(source.promotion.as_of, stale_after, now);
            for standing in source.promotion.standings.iter() {
                let mut opened = opened.lock().unwrap();
                if !promotion::is_promotable(&standing.blocked(now, is_fresh)) {
                    opened.1 += 1;
                    continue;
                }
                opened.0 += 1;
                assert!(now.duration_since(source.as_of) < stale_after, "seed {}", exam.seed);
                // What the platform says while things change can be both.
                let is_still = before.runs == after.runs && before.cases == after.cases;
                if result == RoundResult::Success && is_still {
                    let wrong = objections(&after, source, &standing.environment, sitting.met, now);
                    assert_eq!(
                        wrong,
                        [] as [String; 0],
                        "{:?} seed {} {}",
                        exam.kind,
                        exam.seed,
                        standing.environment
                    );
                }
            }
        }
        drop(sitting.truth().await);
    });
    let (open, closed) = opened.into_inner().unwrap();
    assert!(open > 200 && closed > 200, "{open} times open, {closed} times closed");
}

#[test]
fn in_a_calm_world_the_gauges_are_exact_too() {
    sit_all((101..=103).flat_map(|seed| {
        [Kind::Empirical, Kind::SamplePlatform].map(|kind| Exam {
            world: calm,
            ..Exam::of(kind, seed)
        })
    }));
}

/// Calm: where results come from histories, the platform serves those of a run before its end is known, and takes that
/// for a licence to edit it.
#[test]
fn every_way_of_discovery_counts_the_same() {
    let exam = |kind, discovery| Exam {
        discovery,
        world: calm,
        ..Exam::of(kind, 7)
    };
    let empirical = [Discovery::Analytics, Discovery::Registry, Discovery::Static];
    let sample = [Discovery::Samples, Discovery::Static];
    let empirical = empirical.map(|discovery| exam(Kind::Empirical, discovery));
    let sample = sample.map(|discovery| exam(Kind::SamplePlatform, discovery));
    sit_all(empirical.into_iter().chain(sample));
}

/// Calm: the platform serves single results in histories before a scarce budget comes to read their run, and takes that
/// for a licence to edit it.
#[test]
fn a_budget_far_smaller_than_the_work_loses_nothing() {
    let scarce = |kind| Exam {
        world: calm,
        requests_per_minute: 6.0,
        burst: 2,
        ..Exam::of(kind, 11)
    };
    sit_all([Kind::Empirical, Kind::SamplePlatform].map(scarce));
}

/// Results are edited, and nothing but the slow re-read can notice it in most cases.
fn edited(kind: Kind, seed: u64, start: Timestamp) -> WorldOptions {
    WorldOptions {
        restarts: 0.0,
        late_verdicts: 0.0,
        late_edits: 0.1,
        ..WorldOptions::exam(kind, seed, start)
    }
}

/// Long enough for every recent run and every history to be read again.
#[test]
fn in_time_the_gauges_follow_every_edit_and_no_counter_does() {
    sit_all((201..=202).flat_map(|seed| {
        [Kind::Empirical, Kind::SamplePlatform].map(|kind| Exam {
            world: edited,
            rest: 900,
            ..Exam::of(kind, seed)
        })
    }));
}

/// A world where nothing happens after the first meeting, with three days of runs to read again.
fn idle(kind: Kind, seed: u64, start: Timestamp) -> WorldOptions {
    WorldOptions {
        cases: 500,
        runs_before: 200,
        history: Duration::from_hours(4 * 24),
        runs_after: Some(0),
        ..WorldOptions::new(kind, seed, start)
    }
}

/// By the platform's own count: in a world at rest everything beside the list was read before.
#[test]
fn what_was_read_before_takes_at_most_a_tenth_of_any_hour() {
    on_paused_clocks([Kind::Empirical, Kind::SamplePlatform], |kind| async move {
        let exam = Exam {
            world: idle,
            requests_per_minute: 6.0,
            burst: 3,
            ..Exam::of(kind, 3)
        };
        let mut sitting = exam.begin().await;
        sitting.watch(0.0, |rest| rest > REST).await;
        let settled = sitting.platform.lock().unwrap().journal().entries().len();
        sitting.watch(0.0, |rest| rest > 24 * 60).await;
        let platform = sitting.platform.lock().unwrap();
        assert_eq!(platform.violations(), [] as [String; 0]);
        let list = if kind == Kind::Empirical {
            "/api/test-runs"
        } else {
            "/runs"
        };
        let again = platform.journal().entries().iter().skip(settled).filter(|entry| {
            // A few a round, left over from the first meeting.
            entry.endpoint != list && entry.endpoint != "/api/v2/analytics/test-case-last-pass-per-env"
        });
        let again: Vec<Timestamp> = again.map(|entry| entry.at).collect();
        let hour = |from: &Timestamp| {
            again
                .iter()
                .filter(|at| *at >= from && at.duration_since(*from).as_secs() < 3600)
                .count()
        };
        let busiest = again.iter().map(hour).max().unwrap_or_default();
        assert!(
            busiest <= 36,
            "{kind:?}: {busiest} re-reads within an hour of 360 requests"
        );
        assert!(again.len() > 24 * 8, "{kind:?}: only {} re-reads in a day", again.len());
    });
}

/// Two thousand cases that all run every five minutes. On Empirical that asks for twelve times 41 requests an hour, and six
/// a minute are 360: they suffice because a request for fifty cases brings the results of all runs that have finished since
/// the one before. On the Sample Platform it asks for twelve times twenty.
fn large(kind: Kind, seed: u64, start: Timestamp) -> WorldOptions {
    let world = WorldOptions::new(kind, seed, start);
    WorldOptions {
        environments: world.environments[..1].to_vec(),
        branches: vec![("main".into(), 3), ("feature".into(), 1)],
        cases: 2_000,
        runs_before: 30,
        runs_after: Some(SCARCE_RUNS),
        run_interval: Duration::from_secs(5 * 60),
        analytics_lag: (Duration::from_secs(20), Duration::from_secs(120)),
        ..world
    }
}

const SCARCE_RUNS: usize = 60;
/// What a round of such a source may take: its pace and its burst, the list, a run of twenty pages, and some waiting.
const SCARCE_ROUND: SignedDuration = SignedDuration::from_mins(8);
/// How long a case may wait: while all the others are read, which takes forty requests of five a minute, since one is the
/// list's; and as long again for what is asked in vain, or fails.
const SCARCE_WAIT: SignedDuration = SignedDuration::from_mins(20);

#[test]
fn six_requests_a_minute_serve_two_thousand_cases_new_runs_first_and_nobody_starves() {
    on_paused_clocks([Kind::Empirical, Kind::SamplePlatform], |kind| async move {
        let exam = Exam {
            world: large,
            faults: 0.02,
            requests_per_minute: 6.0,
            burst: 6,
            ..Exam::of(kind, 21)
        };
        let mut sitting = exam.begin().await;
        let (mut rest, mut last, mut longest, mut oldest) = (0, None, SignedDuration::ZERO, SignedDuration::ZERO);
        let (mut rounds, mut behind) = (0, 0);
        while rest <= REST {
            let result = sitting.round().await;
            let now = (sitting.now)();
            // A round that failed is followed by one that does not, so both bounds are of rounds of either kind.
            longest = longest.max(last.map_or(SignedDuration::ZERO, |last| now.duration_since(last)));
            last = Some(now);
            let status = sitting.status.report(now).status;
            if let Some(since) = status.oldest_refresh {
                oldest = oldest.max(now.duration_since(since));
            }
            (rounds, behind) = (rounds + 1, behind + usize::from(status.backlog > 0));
            if result == RoundResult::Success {
                sitting.set_faults(exam.faults);
                rest = if sitting.is_idle() { rest + 1 } else { 0 };
            }
        }
        eprintln!("{kind:?}: {rounds} rounds, {behind} ended behind, the longest took {longest:#}; waited {oldest:#}");
        assert!(
            longest <= SCARCE_ROUND,
            "{kind:?}: {longest:#} between the ends of two rounds"
        );
        assert!(oldest <= SCARCE_WAIT, "{kind:?}: a case has waited {oldest:#}");
        let snapshot = sitting.last_snapshot();
        let truth = sitting.truth().await;
        assert_eq!(truth.counted, SCARCE_RUNS as u64);
        let wrong = differences(&truth, &snapshot, exam.discovery, true);
        assert!(
            wrong.is_empty(),
            "{kind:?}: {} differences:\n{}",
            wrong.len(),
            wrong[..wrong.len().min(20)].join("\n")
        );
        let platform = sitting.platform.lock().unwrap();
        assert_eq!(platform.violations(), [] as [String; 0]);
        if kind == Kind::Empirical {
            new_runs_come_first(platform.journal().entries().iter());
        }
    });
}

/// Within a round the details of runs that were never read come before every history.
fn new_runs_come_first<'a>(entries: impl Iterator<Item = &'a Entry>) {
    let (mut read, mut histories) = (std::collections::BTreeSet::new(), 0);
    for entry in entries {
        match entry.endpoint {
            "/api/test-runs" => histories = 0,
            "/api/v2/analytics/test-case-history/batch" => histories += 1,
            // A failed answer, or one that says that the run is still open, is followed by another.
            "/api/test-runs/{id}" if read.insert(entry.path.clone()) => {
                assert_eq!(histories, 0, "{} was left behind histories", entry.path);
            }
            _ => {}
        }
    }
}

#[test]
fn a_platform_of_many_workers_that_count_separately_loses_nothing() {
    let limit = Some(Limit {
        requests: 20,
        window: Duration::from_secs(60),
        workers: 4,
    });
    let throttled = |kind| Exam {
        limit,
        requests_per_minute: 100.0,
        burst: 20,
        ..Exam::of(kind, 12)
    };
    sit_all([Kind::Empirical, Kind::SamplePlatform].map(throttled));
}

/// A quiet world: one more run after the first meeting, of 120 cases, and then nothing.
fn one_more_run(kind: Kind, seed: u64, start: Timestamp) -> WorldOptions {
    WorldOptions {
        cases: 120,
        runs_after: Some(1),
        reruns: 0.0,
        errors: 0.0,
        cancels: 0.0,
        list_tells_state: true,
        analytics_lag: (Duration::ZERO, Duration::from_secs(120)),
        ..WorldOptions::new(kind, seed, start)
    }
}

/// What was asked after the first round, as `count endpoint`, with the number of rounds.
async fn requests_after_the_first_round(exam: Exam) -> (usize, Vec<String>) {
    let mut sitting = exam.begin().await;
    assert_eq!(sitting.round().await, RoundResult::Success);
    let first = sitting.platform.lock().unwrap().journal().entries().len();
    sitting.watch(0.0, |rest| rest > REST).await;
    let truth = sitting.truth().await;
    assert_eq!(truth.counted, 1);
    let platform = sitting.platform.lock().unwrap();
    assert_eq!(platform.violations(), [] as [String; 0]);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in platform.journal().entries().iter().skip(first) {
        *counts.entry(entry.endpoint).or_default() += 1;
    }
    let list = if exam.kind == Kind::Empirical {
        "/api/test-runs"
    } else {
        "/runs"
    };
    let rounds = counts.remove(list).unwrap_or_default();
    // Left over from the first meeting, a few a round: one for each case that has never passed.
    let last_passes = counts
        .remove("/api/v2/analytics/test-case-last-pass-per-env")
        .unwrap_or_default();
    assert!(last_passes <= 20, "{last_passes} of 120 cases have never passed");
    (
        rounds,
        counts
            .into_iter()
            .map(|(endpoint, count)| format!("{count} {endpoint}"))
            .collect(),
    )
}

#[tokio::test(start_paused = true)]
async fn an_idle_round_is_one_request_and_a_finished_run_its_details_and_a_batch_for_each_fifty_cases() {
    let exam = Exam {
        world: one_more_run,
        faults: 0.0,
        ..Exam::of(Kind::Empirical, 5)
    };
    let (rounds, others) = requests_after_the_first_round(exam).await;
    assert!(rounds > REST, "{rounds} rounds");
    assert_eq!(
        others,
        ["1 /api/test-runs/{id}", "3 /api/v2/analytics/test-case-history/batch"]
    );
}

#[tokio::test(start_paused = true)]
async fn an_idle_round_is_one_request_and_a_finished_run_a_page_for_each_hundred_results() {
    let exam = Exam {
        world: one_more_run,
        faults: 0.0,
        ..Exam::of(Kind::SamplePlatform, 5)
    };
    let (rounds, others) = requests_after_the_first_round(exam).await;
    assert!(rounds > REST, "{rounds} rounds");
    assert_eq!(others, ["2 /runs/{run_id}/samples"]);
}
