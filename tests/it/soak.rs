//! The soak: thirty days of both platforms with ten thousand cases each and every fault there is, in virtual time. Exact
//! counters at the end, and a state that does not grow once its windows are full.
//!
//! `cargo test --test it soak:: -- --ignored`: in a process of its own, because what it measures is the process's memory.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use testrun_exporter::model::RoundResult;
use testrun_exporter::simulate::{Limit, WorldOptions};
use testrun_exporter::sources::Kind;

use crate::exam::{Exam, REST, differences, on_paused_clocks};

const CASES: usize = 10_000;
const DAYS: i64 = 30;
/// Four runs a day, and as many as happen in thirty days.
const RUN_INTERVAL: Duration = Duration::from_secs(6 * 3600);
const RUNS: usize = 120;
/// The windows are full by then: three days of lookback and what is kept beyond it, and 32 results of each case, which take
/// two weeks because some runs are of some cases only.
const FULL: i64 = 15;
/// What is compared: the most of so many days.
const SPAN: i64 = 5;
/// The growth that is measurement: allocators and hash tables keep what they had at their fullest.
const GROWTH_MAX: f64 = 1.10;

/// What can grow, in bytes or in rows.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    source: usize,
    store: usize,
    rows: usize,
    cases: usize,
}

impl Size {
    fn most(self, other: Self) -> Self {
        Self {
            source: self.source.max(other.source),
            store: self.store.max(other.store),
            rows: self.rows.max(other.rows),
            cases: self.cases.max(other.cases),
        }
    }
}

/// A world that forgets as a reader does, so that the simulation itself stays as large as it is.
fn world(kind: Kind, seed: u64, start: Timestamp) -> WorldOptions {
    let world = WorldOptions::exam(kind, seed, start);
    WorldOptions {
        environments: world.environments[..1].to_vec(),
        cases: CASES,
        runs_before: 12,
        history: Duration::from_secs(2 * 86_400),
        runs_after: Some(RUNS),
        run_interval: RUN_INTERVAL,
        run_duration: Duration::from_secs(1_800),
        queue_wait: Duration::from_secs(300),
        branches: vec![("main".into(), 1)],
        keep_for: Duration::from_secs(4 * 86_400),
        reruns: 0.1,
        created_ties: 0.0,
        // A run without a branch makes a row for each of its cases. A few of them are enough.
        nulls: 0.02,
        ..world
    }
}

/// Both platforms begin each day together: the process's memory is then that of both on the same day.
#[derive(Default)]
struct Lockstep {
    days: Mutex<[i64; 2]>,
    moved: Condvar,
    resident: Mutex<BTreeMap<i64, u64>>,
}

impl Lockstep {
    /// Gives what the process occupies, once the other is there too.
    fn begin(&self, kind: Kind, day: i64) -> u64 {
        self.arrive(kind, day);
        let is_ahead = |days: &mut [i64; 2]| days.iter().any(|other| *other < day);
        drop(self.moved.wait_while(self.days.lock().unwrap(), is_ahead).unwrap());
        let kib = resident_kib();
        let mut resident = self.resident.lock().unwrap();
        let most = resident.entry(day).or_default();
        *most = kib.max(*most);
        kib
    }

    fn arrive(&self, kind: Kind, day: i64) {
        self.days.lock().unwrap()[kind as usize] = day;
        self.moved.notify_all();
    }
}

/// Whoever ends, in whatever way, is not waited for.
struct Walker<'a>(&'a Lockstep, Kind);

impl Drop for Walker<'_> {
    fn drop(&mut self) {
        self.0.arrive(self.1, i64::MAX);
    }
}

#[test]
#[ignore = "measures the process's memory, so it needs a process of its own; and takes minutes"]
fn thirty_days_of_ten_thousand_cases_count_exactly_and_grow_by_nothing() {
    let lockstep = Lockstep::default();
    on_paused_clocks([Kind::Empirical, Kind::SamplePlatform], |kind| live(kind, &lockstep));
    let resident = lockstep.resident.into_inner().unwrap();
    eprintln!("resident, KiB by day: {resident:?}");
    let most = |days: std::ops::Range<i64>| resident.range(days).map(|(_, kib)| *kib).max().unwrap();
    let (full, end) = (most(FULL..FULL + SPAN), most(DAYS - SPAN..DAYS));
    assert!(
        is_flat(full, end),
        "resident memory has grown from {full} KiB to {end} KiB"
    );
}

async fn live(kind: Kind, lockstep: &Lockstep) {
    let walker = Walker(lockstep, kind);
    let exam = Exam {
        world,
        faults: 0.01,
        limit: Some(Limit::per_minute(120)),
        // A run is 200 requests on Empirical and 100 on the Sample Platform: between one and two hours.
        requests_per_minute: 2.0,
        burst: 4,
        interval: Duration::from_secs(3600),
        lookback_days: 3,
        series_ttl_days: 60,
        ..Exam::of(kind, 31)
    };
    let mut sitting = exam.begin().await;
    let (mut rest, mut day, mut sizes) = (0, 0, BTreeMap::<i64, Size>::new());
    let (mut rounds, mut failed, mut requests) = (0, 0, 0);
    while rest <= REST {
        let result = sitting.round().await;
        rounds += 1;
        if result == RoundResult::Success {
            sitting.set_faults(exam.faults);
            rest = if sitting.is_idle() { rest + 1 } else { 0 };
        } else {
            failed += 1;
        }
        let today = (sitting.now)().duration_since(sitting.met).as_hours() / 24;
        if today > day {
            day = today;
            {
                let mut platform = sitting.platform.lock().unwrap();
                requests += platform.journal().entries().len();
                platform.forget_requests();
            }
            let kib = lockstep.begin(kind, day);
            if day % 10 == 0 {
                eprintln!(
                    "{kind:?}, day {day}: {rounds} rounds, {failed} failed; {requests} requests; {kib} KiB resident"
                );
            }
        }
        if (sitting.now)().duration_since(sitting.met) < SignedDuration::from_hours(24 * DAYS) {
            let state = &sitting.store.sources()[0];
            let size = Size {
                source: sitting.memory_bytes,
                store: 0,
                rows: state.case_rows(),
                cases: state.cases_known(),
            };
            let most = sizes.entry(today).or_default();
            let store = if most.store == 0 {
                state.keep().unwrap().len()
            } else {
                0
            };
            *most = most.most(Size { store, ..size });
        }
    }
    drop(walker);
    let snapshot = sitting.last_snapshot();
    let truth = sitting.truth().await;
    assert_eq!(truth.counted, RUNS as u64);
    let wrong = differences(&truth, &snapshot, exam.discovery, false);
    let wrong = sitting.left.explain(wrong, &truth, &snapshot);
    eprintln!(
        "{kind:?}: {} cases, {} of them left and returned or not; {} differences",
        truth.cases.len(),
        sitting.left.len(),
        wrong.len()
    );
    assert!(
        wrong.is_empty(),
        "{kind:?}: {} differences:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
    assert_eq!(sitting.platform.lock().unwrap().violations(), [] as [String; 0]);
    eprintln!(
        "{kind:?}: {day} days, {} late edits, {sizes:?}",
        sitting.store.sources()[0].late_edits()
    );
    let most = |days: std::ops::Range<i64>| {
        sizes
            .range(days)
            .map(|(_, size)| *size)
            .fold(Size::default(), Size::most)
    };
    let (full, end) = (most(FULL..FULL + SPAN), most(DAYS - SPAN..DAYS));
    assert!(
        is_flat(full.source as u64, end.source as u64) && is_flat(full.store as u64, end.store as u64),
        "{kind:?} has grown: {full:?}, and in the end {end:?}"
    );
    // Some run so rarely that they have left.
    assert!(full.cases.min(end.cases) > CASES * 99 / 100, "{kind:?}: {end:?}");
}

#[expect(clippy::cast_precision_loss, reason = "a test's sizes")]
fn is_flat(full: u64, end: u64) -> bool {
    end as f64 <= full as f64 * GROWTH_MAX
}

/// What the process occupies, from the system's own account of it.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}
