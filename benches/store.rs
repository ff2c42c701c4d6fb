//! What a round costs the store: 1,000 new results against 10,000 cases and 90 days of runs, and a whole snapshot.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion};
use jiff::Timestamp;
use testrun_exporter::health;
use testrun_exporter::model::{
    ActiveState, CaseCounts, CaseOutcome, CaseResult, ErrorCode, Fact, Group, Name, RoundResult, Run, RunOutcome,
};
use testrun_exporter::store::{Limits, SERIES_PER_CASE, SourceSpec, SourceState};

const CASES: usize = 10_000;
const RUNS: u64 = 90 * 50;
const HOUR: i64 = 3_600;

fn at(id: u64) -> Timestamp {
    let hours = i64::try_from(id).unwrap_or(0) / 2;
    Timestamp::from_second(1_800_000_000 + hours * HOUR).unwrap_or(Timestamp::MAX)
}

fn run(id: u64) -> Fact {
    let counts: CaseCounts = [Some(1_000), Some(0), None, None, None, None];
    let group = Group {
        environment: "production".into(),
        branch: "main".into(),
    };
    let (outcome, ended) = (RunOutcome::Passed, Some(at(id)));
    let times = (Some(at(id)), Some(at(id)));
    Fact::Run(Run {
        id,
        group,
        outcome,
        error_code: None,
        created: times.0,
        started: times.1,
        ended,
        duration_seconds: Some(60.0),
        counts,
        commit: None,
        build_url: None,
    })
}

/// A thousand cases of a run, other ones in every run.
fn results(id: u64, names: &[Name]) -> impl Iterator<Item = Fact> {
    let first = usize::try_from(id).unwrap_or(0) * 1_000;
    (first..first + 1_000).map(move |place| {
        Fact::Result(CaseResult {
            run: id,
            case: names[place % CASES].clone(),
            outcome: CaseOutcome::ALL[place % 3],
            executed: None,
            duration_seconds: Some(1.0),
            retries: Some(0),
            failure_signature: None,
        })
    })
}

fn main() {
    let names: Vec<Name> = (0..CASES).map(|case| format!("case-{case:05}").into()).collect();
    let limits = Limits {
        cases_max: CASES,
        retention: Duration::from_secs(3_650 * 86_400),
        series_ttl: Duration::from_secs(3_650 * 86_400),
    };
    let name = "shop".into();
    let (error_codes, active_states) = (ErrorCode::ALL, ActiveState::ALL);
    let mut state = SourceState::new(SourceSpec {
        created_timestamps: false,
        name,
        error_codes,
        active_states,
        limits,
        promotion: None,
        health: health::Settings::default(),
    });
    state.round_ended(RoundResult::Success, at(0));
    for id in 1..=RUNS {
        state.apply(std::iter::once(run(id)).chain(results(id, &names)).collect(), at(id));
    }
    state.round_ended(RoundResult::Success, at(RUNS));
    state.snapshot(at(RUNS), 1, 0, usize::MAX);

    let round: Vec<Fact> = std::iter::once(run(RUNS + 1))
        .chain(results(RUNS + 1, &names))
        .collect();
    let mut criterion = Criterion::default().configure_from_args();
    criterion.bench_function("apply a round of 1,000 new results", |bencher| {
        bencher.iter_batched_ref(
            || (state.clone(), Some(round.clone())),
            |(state, round)| {
                state.apply(round.take().unwrap_or_default(), at(RUNS + 1));
                state.round_ended(RoundResult::Success, at(RUNS + 1))
            },
            BatchSize::LargeInput,
        );
    });
    criterion.bench_function("snapshot of 10,000 cases", |bencher| {
        bencher.iter(|| black_box(state.snapshot(at(RUNS), 2, 2, usize::MAX)));
    });
    criterion.bench_function("snapshot of 10,000 cases with room for 5,000", |bencher| {
        bencher.iter(|| black_box(state.snapshot(at(RUNS), 2, 2, 5_000 * SERIES_PER_CASE)));
    });
    criterion.final_summary();
}
