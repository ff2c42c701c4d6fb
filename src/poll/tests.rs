//! The poller in virtual time, on a scripted platform: each test is a script and the timeline that must come of it.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::mpsc;

use super::*;
use crate::model::Fact;
use crate::status::{Shared, SourceStatus};

const EPOCH: i64 = 1_795_310_000;

/// What the platform does with one request: seconds that it takes, then the outcome.
#[derive(Clone)]
struct Answer(u64, Result<Reply, TransportError>);

/// `200`, `429 retry-after=30`, `timeout`, `refused`, `+5 200` (slow).
fn answer(line: &str) -> Answer {
    let (delay, line) = match line.strip_prefix('+').and_then(|rest| rest.split_once(' ')) {
        Some((seconds, rest)) => (seconds.parse().unwrap(), rest),
        None => (0, line),
    };
    let mut words = line.split(' ');
    let outcome = match words.next().unwrap() {
        "timeout" => Err(TransportError::Timeout { seconds: 30 }),
        "refused" => Err(TransportError::Connection("the connection was refused".to_owned())),
        "no-token" => Err(TransportError::Credential("token file t: it is empty".to_owned())),
        status => {
            let headers = words.map(|word| {
                let (name, value) = word.split_once('=').unwrap();
                (
                    name.parse::<HeaderName>().unwrap(),
                    value.parse::<HeaderValue>().unwrap(),
                )
            });
            Ok(Reply {
                status: status.parse().unwrap(),
                headers: headers.collect::<HeaderMap>(),
                body: Bytes::new(),
            })
        }
    };
    Answer(delay, outcome)
}

type Log = Arc<Mutex<Vec<String>>>;

fn note(log: &Log, started: Instant, what: &str) {
    let line = format!("{:>5} {what}", started.elapsed().as_secs());
    log.lock().unwrap().push(line);
}

struct Platform {
    script: Mutex<VecDeque<Answer>>,
    /// Answers when the script is over.
    rest: Answer,
    credential: Arc<AtomicU64>,
    busy: AtomicBool,
    started: Instant,
    log: Log,
}

impl Transport for Platform {
    async fn send(&self, _request: &Request) -> Result<Reply, TransportError> {
        assert!(!self.busy.swap(true, Ordering::SeqCst), "one request at a time");
        let Answer(delay, outcome) = self
            .script
            .lock()
            .unwrap()
            .pop_front()
            .unwrap_or_else(|| self.rest.clone());
        let word = match &outcome {
            Ok(reply) => reply.status.to_string(),
            Err(error) => code(&Err(error.clone())),
        };
        note(&self.log, self.started, &word);
        tokio::time::sleep(Duration::from_secs(delay)).await;
        self.busy.store(false, Ordering::SeqCst);
        outcome
    }

    async fn credential_version(&self) -> u64 {
        self.credential.load(Ordering::SeqCst)
    }
}

/// Wants the same number of requests in each round and gives a fact for each answer.
struct Toy {
    per_round: usize,
    left: usize,
}

impl Source for Toy {
    fn begin(&mut self, _now: Timestamp, _allowance: Allowance) {
        self.left = self.per_round;
    }

    fn next(&mut self) -> Option<Request> {
        (self.left > 0).then(|| Request::get("/runs", "/runs".to_owned(), Vec::new()))
    }

    fn accept(&mut self, _reply: &Reply) -> Result<Learned, Rejection> {
        self.left -= 1;
        Ok(Learned {
            facts: vec![Fact::Active(Vec::new())],
            notices: Vec::new(),
        })
    }

    fn reject(&mut self, rejection: Rejection) -> Result<Learned, Rejection> {
        Err(rejection)
    }

    fn progress(&self) -> Progress {
        Progress::default()
    }

    fn memory(&self) -> Result<Vec<u8>, MemoryError> {
        Ok(vec![7])
    }

    fn restore(&mut self, _memory: &[u8]) -> Result<(), MemoryError> {
        Ok(())
    }
}

struct Watch(Log, Instant);

impl Observer for Watch {
    fn request_sent(&mut self, _endpoint: &'static str, _code: &str, _seconds: f64) {}
    fn retried(&mut self, reason: retry::Reason) {
        note(&self.0, self.1, &format!("retry: {}", reason.label()));
    }
    fn throttled(&mut self, reason: budget::Reason, seconds: f64) {
        if reason != budget::Reason::Budget {
            note(
                &self.0,
                self.1,
                &format!("throttled: {} {seconds:.0} s", reason.label()),
            );
        }
    }
    fn rate_limit_told(&mut self, _told: Told) {}
    fn round_started(&mut self, _at: Timestamp) {
        note(&self.0, self.1, "round");
    }
    fn round_ended(&mut self, result: RoundResult, _at: Timestamp, _seconds: f64) {
        note(&self.0, self.1, result.label());
    }
    fn progress(&mut self, _progress: Progress) {}
    fn notice(&mut self, _notice: &Notice) {}
}

struct Scene {
    script: &'static str,
    rest: &'static str,
    interval: u64,
    rpm: f64,
    burst: u32,
    per_round: usize,
    /// Shutdown comes after so many seconds.
    seconds: u64,
    /// The credential changes after so many seconds.
    rotated: Option<u64>,
    /// What the poller is told at its desk, and in which second: `leave`, or settings that change.
    told: &'static [(u64, &'static str)],
}

/// `interval=30 per_round=2`, as orders; what is not named stays.
fn orders(words: &str, settings: &mut Settings) -> Orders<Toy, Platform> {
    let mut source = None;
    for word in words.split(' ') {
        let (key, value) = word.split_once('=').unwrap();
        match key {
            "interval" => settings.interval = Duration::from_secs(value.parse().unwrap()),
            "rpm" => settings.requests_per_minute = value.parse().unwrap(),
            "burst" => settings.burst = value.parse().unwrap(),
            _ => {
                source = Some(Toy {
                    per_round: value.parse().unwrap(),
                    left: 0,
                });
            }
        }
    }
    Orders {
        settings: settings.clone(),
        transport: None,
        source,
    }
}

const SCENE: Scene = Scene {
    script: "",
    rest: "200",
    interval: 60,
    rpm: 60.0,
    burst: 10,
    per_round: 1,
    seconds: 150,
    rotated: None,
    told: &[],
};

/// Runs a scene and gives what happened, a line each: the second and the event.
async fn timeline(scene: Scene) -> String {
    let (started, log) = (Instant::now(), Log::default());
    let credential = Arc::new(AtomicU64::new(1));
    let script = scene
        .script
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(answer)
        .collect();
    let platform = Platform {
        script: Mutex::new(script),
        rest: answer(scene.rest),
        credential: credential.clone(),
        busy: AtomicBool::new(false),
        started,
        log: log.clone(),
    };
    let interval = Duration::from_secs(scene.interval);
    let wall: Wall = Arc::new(move || later(Timestamp::from_second(EPOCH).unwrap(), started.elapsed()));
    let status = Shared::new(SourceStatus::new("toy", wall(), interval));
    let parts = Parts {
        index: 0,
        name: "toy".into(),
        settings: Settings {
            interval,
            stale_after: interval,
            requests_per_minute: scene.rpm,
            burst: scene.burst,
        },
        wall,
        dice: Box::new(|| 0.0),
        observer: Box::new(Watch(log.clone(), started)),
        status,
    };
    let (updates, mut received) = mpsc::channel(8);
    let shutdown = CancellationToken::new();
    let poller = Poller::new(
        Toy {
            per_round: scene.per_round,
            left: 0,
        },
        platform,
        parts,
    );
    let desk = poller.desk();
    let mut settings = poller.parts.settings.clone();
    let task = tokio::spawn(poller.run(updates, shutdown.clone()));
    tokio::spawn(async move { while received.recv().await.is_some() {} });
    for (second, what) in scene.told {
        tokio::time::sleep_until(started + Duration::from_secs(*second)).await;
        match *what {
            "leave" => desk.leave(),
            words => desk.change(orders(words, &mut settings)),
        }
    }
    if let Some(second) = scene.rotated {
        tokio::time::sleep_until(started + Duration::from_secs(second)).await;
        credential.store(2, Ordering::SeqCst);
    }
    tokio::time::sleep_until(started + Duration::from_secs(scene.seconds)).await;
    shutdown.cancel();
    task.await.unwrap();
    assert_eq!(started.elapsed().as_secs(), scene.seconds, "the poller stops at once");
    log.lock().unwrap().join("\n")
}

async fn check(scene: Scene, expected: &str) {
    let tidy = |text: &str| {
        text.lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert_eq!(tidy(&timeline(scene).await), tidy(expected));
}

#[tokio::test(start_paused = true)]
async fn rounds_start_at_once_and_then_every_interval() {
    check(
        SCENE,
        "0 round\n0 200\n0 success\n60 round\n60 200\n60 success\n120 round\n120 200\n120 success",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_server_makes_late_rounds_but_no_burst_of_them() {
    let scene = Scene {
        script: "+130 200",
        seconds: 200,
        ..SCENE
    };
    check(
        scene,
        "0 round\n0 200\n130 success\n130 round\n130 200\n130 success\n190 round\n190 200\n190 success",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_short_pause_is_waited_for_within_the_round() {
    let scene = Scene {
        script: "200 x-ratelimit-remaining=0 x-ratelimit-reset=20",
        per_round: 2,
        seconds: 50,
        ..SCENE
    };
    check(scene, "0 round\n0 200\n21 throttled: quota 21 s\n21 200\n21 success").await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_without_retries_left_ends_the_round_and_the_next_waits_for_the_pause() {
    let scene = Scene {
        script: "429 retry-after=300",
        seconds: 310,
        ..SCENE
    };
    check(
        scene,
        "0 round\n0 429\n0 throttled: retry_after 301 s\n0 throttled\n301 round\n301 200\n301 success",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_pause_longer_than_the_interval_ends_the_round_that_has_more_to_ask() {
    let scene = Scene {
        script: "200 retry-after=100",
        per_round: 2,
        seconds: 105,
        ..SCENE
    };
    check(
        scene,
        "0 round\n0 200\n0 throttled: retry_after 101 s\n0 throttled\n101 round\n101 200\n101 200\n101 success",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn shutdown_in_the_middle_of_a_pause_is_immediate() {
    let scene = Scene {
        script: "200 retry-after=soon",
        interval: 3600,
        per_round: 2,
        seconds: 7,
        ..SCENE
    };
    check(scene, "0 round\n0 200\n7 throttled: retry_after 7 s").await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_probed_slowly_and_a_rotated_one_at_once() {
    let slow = Scene {
        script: "401",
        seconds: 601,
        ..SCENE
    };
    check(slow, "0 round\n0 401\n0 unauthorized\n600 round\n600 200\n600 success").await;
    let rotated = Scene {
        script: "403",
        seconds: 100,
        rotated: Some(40),
        ..SCENE
    };
    check(rotated, "0 round\n0 403\n0 unauthorized\n60 round\n60 200\n60 success").await;
    let empty = Scene {
        script: "no-token",
        seconds: 50,
        rotated: Some(10),
        ..SCENE
    };
    check(
        empty,
        "0 round\n0 credential\n0 unauthorized\n30 round\n30 200\n30 success",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_tenth_request_earns_a_retry_and_a_failing_server_gets_no_more() {
    let scene = Scene {
        script: "200\n200\n200\n200\n200\n200\n200\n200\n200\n503",
        rest: "refused",
        per_round: 11,
        seconds: 65,
        ..SCENE
    };
    let nine = "0 200\n".repeat(9);
    let expected = format!(
        "0 round\n{nine}0 503\n1 retry: unavailable\n1 connection\n1 unreachable\n60 round\n60 connection\n60 unreachable"
    );
    let got = timeline(scene).await;
    assert_eq!(got.lines().map(str::trim).collect::<Vec<_>>().join("\n"), expected);
}

#[tokio::test(start_paused = true)]
async fn every_failure_ends_the_round_with_its_own_word() {
    for (script, word) in [
        ("timeout", "unreachable"),
        ("refused", "unreachable"),
        ("404", "refused"),
        ("302 location=http://elsewhere/", "refused"),
        ("500", "server_error"),
        ("503", "server_error"),
        ("503 retry-after=1", "throttled"),
        ("429", "throttled"),
    ] {
        let got = timeline(Scene {
            script,
            seconds: 1,
            ..SCENE
        })
        .await;
        assert_eq!(
            got.lines().last().map(|line| line.trim().split_once(' ').unwrap().1),
            Some(word),
            "{script}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_budget_far_smaller_than_the_work_is_kept_exactly() {
    let times = |text: String| -> Vec<u64> {
        let requests = text.lines().filter(|line| line.ends_with(" 200"));
        requests
            .map(|line| line.split_whitespace().next().unwrap().parse().unwrap())
            .collect()
    };
    let scarce = Scene {
        rpm: 0.2,
        burst: 1,
        per_round: 4,
        seconds: 1000,
        ..SCENE
    };
    assert_eq!(times(timeline(scarce).await), [0, 300, 600, 900]);
    let fifty = Scene {
        rpm: 6.0,
        burst: 1,
        per_round: 50,
        seconds: 495,
        ..SCENE
    };
    assert_eq!(
        times(timeline(fifty).await),
        (0..50).map(|number| number * 10).collect::<Vec<_>>()
    );
}

#[tokio::test(start_paused = true)]
async fn server_workers_that_count_separately_only_ever_make_it_slower() {
    let scene = Scene {
        script: "200 x-ratelimit-remaining=119 x-ratelimit-reset=60
                 200 x-ratelimit-remaining=0 x-ratelimit-reset=30
                 200 x-ratelimit-remaining=118 x-ratelimit-reset=29",
        per_round: 3,
        seconds: 40,
        ..SCENE
    };
    check(
        scene,
        "0 round\n0 200\n0 200\n31 throttled: quota 31 s\n31 200\n31 success",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn another_interval_counts_from_the_start_of_the_last_round() {
    let told = &[(10, "interval=30")];
    check(
        Scene {
            told,
            seconds: 50,
            ..SCENE
        },
        "0 round\n0 200\n0 success\n30 round\n30 200\n30 success",
    )
    .await;
    let told = &[(40, "interval=20")];
    check(
        Scene {
            told,
            seconds: 50,
            ..SCENE
        },
        "0 round\n0 200\n0 success\n40 round\n40 200\n40 success",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn no_reload_is_a_way_round_a_pause_or_to_a_fresh_burst() {
    let told = &[(10, "interval=20 rpm=6000 burst=100"), (50, "interval=20 per_round=2")];
    let scene = Scene {
        script: "429 retry-after=100",
        told,
        seconds: 110,
        ..SCENE
    };
    check(
        scene,
        "0 round\n0 429\n0 throttled: retry_after 101 s\n0 throttled\n101 round\n101 200\n101 200\n101 success",
    )
    .await;
    // Two permits are spent; one and a half are missing when the wait for the third becomes shorter.
    let told = &[(5, "rpm=60 burst=10")];
    let scene = Scene {
        rpm: 6.0,
        burst: 2,
        per_round: 5,
        told,
        seconds: 10,
        ..SCENE
    };
    check(scene, "0 round\n0 200\n0 200\n5 200\n6 200\n7 200\n7 success").await;
}

#[tokio::test(start_paused = true)]
async fn a_hundred_reloads_in_a_round_make_no_request_and_the_next_round_is_read_in_the_new_way() {
    let told = &[(1, "per_round=1"); 100];
    let scene = Scene {
        rpm: 30.0,
        burst: 1,
        per_round: 3,
        told,
        seconds: 70,
        ..SCENE
    };
    check(
        scene,
        "0 round\n0 200\n2 200\n4 200\n4 success\n60 round\n60 200\n60 success",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_hears_the_answer_to_his_last_request_and_asks_nothing_more() {
    let scene = Scene {
        script: "+9 429 retry-after=100",
        told: &[(1, "leave")],
        per_round: 2,
        ..SCENE
    };
    check(scene, "0 round\n0 429\n9 throttled: retry_after 101 s\n9 throttled").await;
    let scene = Scene {
        rpm: 6.0,
        burst: 1,
        per_round: 2,
        told: &[(1, "leave")],
        ..SCENE
    };
    check(scene, "0 round\n0 200").await;
    let scene = Scene {
        told: &[(1, "leave")],
        ..SCENE
    };
    check(scene, "0 round\n0 200\n0 success").await;
}

#[tokio::test(start_paused = true)]
async fn a_successor_stands_at_the_gate_of_the_one_before() {
    let mut poller = quiet(6.0, 2);
    while poller.budget.admit(poller.elapsed()) == Admission::Go {}
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut next = quiet(6.0, 2).succeed(poller.into_gate());
    let wait = |seconds| Admission::Wait {
        for_: Duration::from_secs(seconds),
        reason: budget::Reason::Budget,
    };
    assert_eq!(next.budget.admit(next.elapsed()), wait(5));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(next.budget.admit(next.elapsed()), Admission::Go);
    assert_eq!(next.budget.admit(next.elapsed()), wait(10));
    let gate = next.into_gate();
    assert!(!gate.is_rested());
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(gate.is_rested(), "it is as good as new");
}

proptest::proptest! {
    #[test]
    fn no_sequence_of_paces_lets_more_pass_than_the_most_generous_of_them(
        steps in proptest::collection::vec((0_u64..5_000, proptest::option::of((1_u32..600, 1_u32..20)), 0_usize..30), 1..60),
    ) {
        let pace = |(rpm, burst): (u32, u32)| Settings {
            interval: Duration::from_secs(60),
            stale_after: Duration::from_secs(60),
            requests_per_minute: f64::from(rpm),
            burst,
        };
        let first = (60, 5);
        let (mut rpm_max, mut burst_max) = first;
        let (mut budget, mut now, mut passed) = (Budget::new(&pace(first)), Duration::ZERO, 0_u32);
        for (millis, other, tries) in steps {
            now += Duration::from_millis(millis);
            if let Some(other) = other {
                let before = budget.at_once(now);
                let mut next = Budget::new(&pace(other));
                next.inherit(budget, now);
                budget = next;
                proptest::prop_assert!(budget.at_once(now) <= before.saturating_add(1), "a part of one may round up");
                rpm_max = rpm_max.max(other.0);
                burst_max = burst_max.max(other.1);
            }
            for _ in 0..tries {
                passed += u32::from(budget.admit(now) == Admission::Go);
            }
            let allowed = f64::from(5.max(burst_max)) + now.as_secs_f64() * f64::from(rpm_max) / 60.0;
            proptest::prop_assert!(f64::from(passed) <= allowed + 1e-3, "{passed} of {allowed}");
        }
    }
}

fn quiet(rpm: f64, burst: u32) -> Poller<Toy, Platform> {
    let status = Shared::new(SourceStatus::new("toy", Timestamp::UNIX_EPOCH, Duration::ZERO));
    let interval = Duration::from_secs(60);
    let started = Instant::now();
    let parts = Parts {
        index: 0,
        name: "toy".into(),
        settings: Settings {
            interval,
            stale_after: interval,
            requests_per_minute: rpm,
            burst,
        },
        wall: Arc::new(|| Timestamp::UNIX_EPOCH),
        dice: Box::new(|| 0.0),
        observer: Box::new(Watch(Log::default(), started)),
        status,
    };
    let platform = Platform {
        script: Mutex::default(),
        rest: answer("200"),
        credential: Arc::default(),
        busy: AtomicBool::new(false),
        started,
        log: Log::default(),
    };
    let toy = Toy { per_round: 1, left: 0 };
    Poller::new(toy, platform, parts)
}

/// What a round may ask beyond the run list, in the first round and after one that has used up the burst.
async fn check_allowance(rpm: f64, burst: u32, expected: (usize, usize)) {
    let mut poller = quiet(rpm, burst);
    let first = poller.allowance();
    while poller.budget.admit(poller.elapsed()) == Admission::Go {}
    assert_eq!((first, poller.allowance()), expected, "{rpm} a minute, burst {burst}");
}

#[tokio::test(start_paused = true)]
async fn a_round_may_ask_what_fits_its_interval_and_the_burst_only_while_it_is_there() {
    check_allowance(60.0, 10, (69, 59)).await;
    check_allowance(6.0, 1, (6, 5)).await;
    check_allowance(0.2, 10, (9, 1)).await;
    check_allowance(0.2, 1, (1, 1)).await;
    check_allowance(6000.0, 1000, (ALLOWANCE_MAX, ALLOWANCE_MAX)).await;
}

#[tokio::test(start_paused = true)]
async fn rows_that_are_passed_over_are_one_line_a_round_and_endpoint() {
    let mut poller = quiet(60.0, 1);
    let row = |why: &str| Notice::RowSkipped {
        endpoint: "/runs",
        why: why.to_owned(),
    };
    for expected in [
        "/runs: a row was passed over: no id, and 2 more",
        "/runs: a row was passed over: no id",
    ] {
        poller.hear(&row("no id"));
        if expected.ends_with("more") {
            poller.hear(&row("no state"));
            poller.hear(&row("no id"));
        }
        poller.conclude(RoundResult::Success, None, Duration::ZERO);
        let advice = poller.parts.status.report(Timestamp::UNIX_EPOCH).status.advice;
        assert_eq!(advice, [expected]);
    }
}

#[tokio::test(start_paused = true)]
async fn facts_come_as_they_are_learned_then_the_end_of_the_round_and_people_can_see_it() {
    let started = Instant::now();
    let platform = Platform {
        script: Mutex::new([answer("200 x-ratelimit-limit=120"), answer("404")].into()),
        rest: answer("200"),
        credential: Arc::default(),
        busy: AtomicBool::new(false),
        started,
        log: Log::default(),
    };
    let interval = Duration::from_secs(60);
    let at = Timestamp::from_second(EPOCH).unwrap();
    let status = Shared::new(SourceStatus::new("toy", at, interval));
    let parts = Parts {
        index: 3,
        name: "toy".into(),
        settings: Settings {
            interval,
            stale_after: interval,
            requests_per_minute: 60.0,
            burst: 10,
        },
        wall: Arc::new(move || at),
        dice: Box::new(|| 0.0),
        observer: Box::new(Watch(Log::default(), started)),
        status: status.clone(),
    };
    let mut poller = Poller::new(Toy { per_round: 2, left: 0 }, platform, parts);
    let (updates, mut received) = mpsc::channel(8);
    let shutdown = CancellationToken::new();

    assert_eq!(poller.one_round(&updates, &shutdown).await, Some(RoundResult::Refused));
    let facts = Message {
        source: 3,
        update: Update::Facts(vec![Fact::Active(Vec::new())]),
        memory: None,
    };
    assert_eq!(received.recv().await, Some(facts));
    let end = Message {
        source: 3,
        update: Update::RoundEnded {
            result: RoundResult::Refused,
            at,
        },
        memory: None,
    };
    assert_eq!(received.recv().await, Some(end));
    let report = status.report(at);
    assert_eq!(report.health, crate::status::Health::Failing);
    assert_eq!(
        report.status.last_error.unwrap().what,
        "/runs: the server answered 404; is base_url right?"
    );
    assert_eq!(report.status.budget.told_limit, Some(120.0));
    assert_eq!(report.status.last_round.unwrap().requests, 2);

    drop(received);
    assert_eq!(poller.one_round(&updates, &shutdown).await, None, "nobody receives");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_never_ends_its_round_is_stopped() {
    let scene = Scene {
        rpm: 1e6,
        burst: 100_000,
        per_round: usize::MAX,
        seconds: 30,
        ..SCENE
    };
    let text = timeline(scene).await;
    assert_eq!(
        text.lines().filter(|line| line.ends_with(" 200")).count(),
        ROUND_REQUESTS_MAX
    );
    assert!(text.ends_with("unreadable"), "the round has failed");
}
