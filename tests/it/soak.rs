//! The soak: thirty days of both platforms with ten thousand cases each and every fault there is, in virtual time. Exact
//! counters at the end, and a state that does not grow once its windows are full.
//!
//! `cargo test --test it soak -- --ignored`: in a process of its own, because what it measures is the process's memory.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use testrun_exporter::model::RoundResult;
use testrun_exporter::simulate::{Limit, WorldOptions};
use testrun_exporter::sources::Kind;

use crate::exam::{Exam, REST, differences, on_paused_clocks};

const CASES: usize = 10_000;
const DAYS: i64 = 30;
/// Six runs a day, and as many as happen in thirty days.
const RUN_INTERVAL: Duration = Duration::from_secs(4 * 3600);
const RUNS: usize = 180;
/// The windows are full by then: three days of lookback and what is kept beyond it, and 32 results of each case in either
/// branch, which take two weeks.
const FULL: i64 = 17;
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
        branches: vec![("main".into(), 50), ("feature".into(), 50)],
        keep_for: Duration::from_secs(4 * 86_400),
        reruns: 0.1,
        created_ties: 0.0,
        ..world
    }
}

#[test]
#[ignore = "takes too long for a step of its own in CI"]
fn thirty_days_of_ten_thousand_cases_count_exactly_and_grow_by_nothing() {
    let resident: Mutex<BTreeMap<(i64, &str), u64>> = Mutex::default();
    on_paused_clocks([Kind::Empirical, Kind::SamplePlatform], |kind| live(kind, &resident));
    let resident = resident.into_inner().unwrap();
    eprintln!("resident, KiB: {resident:?}");
    let most = |days: std::ops::Range<i64>| {
        resident
            .range((days.start, "")..(days.end, ""))
            .map(|(_, kib)| *kib)
            .max()
    };
    let (full, end) = (most(FULL..FULL + 6).unwrap(), most(DAYS - 6..DAYS + 1).unwrap());
    assert!(
        is_flat(full, end),
        "resident memory has grown from {full} KiB to {end} KiB"
    );
}

async fn live(kind: Kind, resident: &Mutex<BTreeMap<(i64, &'static str), u64>>) {
    let exam = Exam {
        world,
        faults: 0.01,
        limit: Some(Limit::per_minute(120)),
        requests_per_minute: 12.0,
        interval: Duration::from_secs(3600),
        lookback_days: 3,
        ..Exam::of(kind, 31)
    };
    let mut sitting = exam.begin().await;
    let (mut rest, mut day, mut sizes) = (0, 0, BTreeMap::<i64, Size>::new());
    while rest <= REST {
        if sitting.round().await == RoundResult::Success {
            sitting.set_faults(exam.faults);
            rest = if sitting.is_idle() { rest + 1 } else { 0 };
        }
        let today = (sitting.now)().duration_since(sitting.met).as_hours() / 24;
        if today > day {
            day = today;
            eprintln!("{kind:?}: day {day}");
            sitting.platform.lock().unwrap().forget_requests();
            resident.lock().unwrap().insert((today, kind.label()), resident_kib());
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
    let snapshot = sitting.last_snapshot();
    let truth = sitting.truth().await;
    assert_eq!(truth.counted, RUNS as u64);
    let wrong = differences(&truth, &snapshot, exam.discovery, false);
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
    let (full, end) = (most(FULL..FULL + 6), most(DAYS - 6..DAYS));
    assert!(
        is_flat(full.source as u64, end.source as u64) && is_flat(full.store as u64, end.store as u64),
        "{kind:?} has grown: {full:?}, and in the end {end:?}"
    );
    assert_eq!((end.rows, end.cases), (2 * CASES, CASES), "{kind:?}");
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
