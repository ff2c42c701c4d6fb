//! What the benchmarks show: a suite that mostly passes, as a snapshot; and the same series in the `prometheus` crate.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use prometheus::{GaugeVec, Opts, Registry};
use testrun_exporter::health::{Observation, Settings, WINDOW_MAX, judge};
use testrun_exporter::model::{ActiveState, CaseInfo, CaseOutcome, ErrorCode, Group};
use testrun_exporter::store::{CaseRow, CountedRun, Counts, LastResult, Promotion, Snapshot, SourceSnapshot};

/// 17 or 18 series each: 14 of any case, three of the health of a case that passes, and more of one that fails or has failed.
/// 100 000 in all.
pub(crate) const CASES: usize = 5_762;

fn at(second: u64) -> Timestamp {
    Timestamp::from_second(1_795_300_000 + second as i64).unwrap()
}

/// The same dice in every run.
pub(crate) fn dice(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Cases with random identifiers. Of a hundred one fails and four have failed or flaked lately; of ten one is young.
pub(crate) fn case_rows(count: usize) -> Vec<CaseRow> {
    let mut dice = dice(1);
    let mut rows: Vec<_> = (0..count).map(|_| case_row(&mut dice)).collect();
    rows.sort_by(|a, b| a.case.cmp(&b.case));
    rows
}

fn case_row(dice: &mut impl FnMut() -> u64) -> CaseRow {
    let kind = dice() % 100;
    let young = dice().is_multiple_of(10);
    let known = if young { 10 + dice() % 40 } else { WINDOW_MAX as u64 };
    let streak = if kind == 0 { 1 + dice() % 9 } else { 0 };
    let mut results: Vec<_> = (0..known)
        .map(|place| Observation {
            ended: Some(at(place * 60)),
            commit: Some(place / 2),
            outcome: match place < known - streak {
                true => CaseOutcome::Passed,
                false => CaseOutcome::Failed,
            },
            signature: u64::from(place >= known - streak),
            retries: 0,
            infrastructure: false,
        })
        .collect();
    if (1..5).contains(&kind) {
        for _ in 0..1 + dice() % 3 {
            let result = &mut results[(dice() % (known - 1)) as usize];
            (result.outcome, result.retries) = match dice() % 2 {
                0 => (CaseOutcome::Flaky, 1),
                _ => (CaseOutcome::Failed, 0),
            };
        }
    }
    let health = judge(&results, &Settings::default(), at(4_000));
    let last = &results[results.len() - 1];
    let last_pass = results.iter().rfind(|result| result.outcome.is_pass());
    let mut counts = Counts {
        results: health.window.map(u64::from),
        retries: health.window_retries,
        duration_sum: (dice() % 1_000_000) as f64 / 1000.0,
        duration_count: known,
    };
    if !young {
        counts.results[CaseOutcome::Passed.index()] += dice() % 250;
    }
    let mut row = CaseRow {
        snoozed: false,
        created: None,
        group: Group {
            environment: "staging".into(),
            branch: "main".into(),
        },
        case: format!("{:016x}{:016x}", dice(), dice()).into(),
        counts,
        came_back_at: None,
        last: Some(LastResult {
            outcome: last.outcome,
            at: last.ended,
            duration_seconds: Some(1.234),
        }),
        last_pass: last_pass.and_then(|result| result.ended),
        consecutive_failures: streak,
        failing_since: (streak > 0).then(|| at((known - streak) * 60)),
        health: Some(Arc::new(health)),
        counted: Default::default(),
    };
    change(&mut row, &run(0));
    row
}

/// One that ended after all others.
pub(crate) fn run(number: u64) -> Arc<CountedRun> {
    Arc::new(CountedRun {
        run: 4711 + number,
        url: Some(format!("https://github.com/example/shop/actions/runs/{}", 4711 + number).into()),
        at: Some(at(4_000 + number)),
    })
}

/// The case was in one more run, and did what it did before. What a full window holds does not change by that.
pub(crate) fn change(row: &mut CaseRow, by: &Arc<CountedRun>) {
    let Some(last) = &mut row.last else { return };
    let outcome = last.outcome.index();
    last.at = by.at;
    last.duration_seconds = Some(1.234 + (by.run % 100) as f64);
    row.counts.results[outcome] += 1;
    row.counts.duration_sum += 1.234;
    row.counts.duration_count += 1;
    row.counted[outcome] = Some(Arc::clone(by));
    if last.outcome.is_pass() {
        row.last_pass = by.at;
    } else {
        row.consecutive_failures += 1;
    }
    if let Some(health) = &mut row.health
        && health.window.iter().sum::<u32>() < WINDOW_MAX as u32
    {
        Arc::make_mut(health).window[outcome] += 1;
    }
}

pub(crate) fn snapshot(cases: Vec<CaseRow>) -> Snapshot {
    let source = SourceSnapshot {
        snoozes: BTreeMap::new(),
        promotion: Promotion::default(),
        source: "shop".into(),
        project: None,
        groups: Vec::new(),
        run_errors: BTreeMap::new(),
        error_codes: ErrorCode::ALL,
        active_states: ActiveState::ALL,
        runs_active: BTreeMap::new(),
        case_infos: Vec::<CaseInfo>::new(),
        case_outcomes: BTreeMap::new(),
        cases_folded: 0,
        as_of: Timestamp::UNIX_EPOCH,
        cases,
    };
    Snapshot {
        generation: 1,
        sources: vec![Arc::new(source)],
    }
}

/// The series of a text in the prometheus crate; their types do not matter to the cost. No value of a label has a comma.
pub(crate) fn registry(text: &str) -> Registry {
    let registry = Registry::new();
    let mut vectors = BTreeMap::new();
    for (name, sample) in text.lines().filter_map(|line| line.split_once('{')) {
        let (labels, value) = sample.rsplit_once("} ").unwrap();
        let (names, values): (Vec<_>, Vec<_>) = labels
            .split(',')
            .map(|label| label.split_once('=').unwrap())
            .map(|(name, value)| (name, value.trim_matches('"')))
            .unzip();
        let vector = vectors.entry(name).or_insert_with(|| {
            let vector = GaugeVec::new(Opts::new(name, "Help."), &names).unwrap();
            registry.register(Box::new(vector.clone())).unwrap();
            vector
        });
        vector.with_label_values(&values).set(value.parse().unwrap());
    }
    registry
}
