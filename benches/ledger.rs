//! What keeping costs: a source of 10,000 and of 100,000 cases as bytes, on the disk, and back; beside a plain flushed write of
//! the same bytes, so that one run tells the ratio.

use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use criterion::Criterion;
use jiff::Timestamp;
use testrun_exporter::health;
use testrun_exporter::metrics::render::render;
use testrun_exporter::model::{
    ActiveState, CaseCounts, CaseOutcome, CaseResult, ErrorCode, Fact, Group, Name, RoundResult, Run, RunOutcome,
};
use testrun_exporter::store::ledger::{Directory, Found, Identity, Kept, Ledger};
use testrun_exporter::store::{Limits, Next, SourceSpec, SourceState, Store};

/// A run every 43 minutes for a month; each runs a tenth of the cases, so that every window of recent results is full.
const RUNS: u64 = 1_000;
const PART: usize = 10;

fn at(id: u64) -> Timestamp {
    let minutes = i64::try_from(id).unwrap_or(0) * 43;
    Timestamp::from_second(1_800_000_000 + minutes * 60).unwrap_or(Timestamp::MAX)
}

fn round(id: u64, names: &[Name]) -> Vec<Fact> {
    let counts: CaseCounts = [Some(1_000), Some(0), None, None, None, None];
    let run = Run {
        id,
        group: Group {
            environment: "production".into(),
            branch: "main".into(),
        },
        outcome: RunOutcome::Passed,
        error_code: None,
        created: Some(at(id)),
        started: Some(at(id)),
        ended: Some(at(id)),
        duration_seconds: Some(60.0),
        counts,
        commit: Some("0123456789abcdef0123456789abcdef01234567".into()),
        build_url: None,
    };
    let (count, first) = (names.len() / PART, usize::try_from(id).unwrap_or(0));
    let result = |place: usize| CaseResult {
        run: id,
        case: names[(first * count + place) % names.len()].clone(),
        outcome: CaseOutcome::ALL[place % 3],
        executed: Some(at(id)),
        duration_seconds: Some(1.25),
        retries: Some(0),
        failure_signature: None,
    };
    std::iter::once(Fact::Run(run))
        .chain((0..count).map(|place| Fact::Result(result(place))))
        .collect()
}

fn spec(cases: usize) -> SourceSpec {
    SourceSpec {
        name: "shop".into(),
        error_codes: ErrorCode::ALL,
        active_states: ActiveState::ALL,
        limits: Limits {
            cases_max: cases,
            retention: Duration::from_secs(3_650 * 86_400),
            series_ttl: Duration::from_secs(3_650 * 86_400),
        },
        promotion: None,
        health: health::Settings::default(),
        created_timestamps: false,
    }
}

fn names(cases: usize) -> Vec<Name> {
    (0..cases)
        .map(|case| format!("5e41ab087439611e5cc1-{case:020}").into())
        .collect()
}

fn state_of(cases: usize) -> SourceState {
    let names = names(cases);
    let mut state = SourceState::new(spec(cases));
    state.round_ended(RoundResult::Success, at(0));
    for id in 1..=RUNS {
        state.apply(round(id, &names), at(id));
    }
    state.round_ended(RoundResult::Success, at(RUNS));
    state.snapshot(at(RUNS), 1, 0, usize::MAX);
    state
}

fn plain(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[expect(clippy::print_stderr, reason = "the size belongs to the figures")]
fn measure(criterion: &mut Criterion, cases: usize) -> Result<(), Box<dyn std::error::Error>> {
    let state = state_of(cases);
    let directory = tempfile::tempdir()?;
    let ledger = Ledger::new(Directory::take(directory.path())?);
    let identity = Identity {
        name: "shop".to_owned(),
        kind: "empirical",
        base_url: "https://api.example.test/".to_owned(),
    };
    let kept = Kept {
        state: state.keep()?.into(),
        memory: Bytes::new(),
        released: state.keep_released()?.into(),
    };
    eprintln!("{cases} cases: {} bytes", ledger.save(&identity, &kept)?);
    let mut group = criterion.benchmark_group(format!("{cases} cases"));
    group.sample_size(10);
    group.bench_function("encode", |bencher| {
        bencher.iter(|| state.keep().map(|bytes| bytes.len()))
    });
    // A run of a tenth of the cases: with 10,000 of them, 1,000 new results.
    let names: Vec<Name> = names(cases);
    let mut id = RUNS;
    let mut commit_to = state.clone();
    group.bench_function("commit a round of a tenth of the cases", |bencher| {
        bencher.iter(|| -> Result<usize, Box<dyn std::error::Error>> {
            id += 1;
            commit_to.apply(round(id, &names), at(id));
            commit_to.round_ended(RoundResult::Success, at(id));
            commit_to.snapshot(at(id), id, id - 1, usize::MAX);
            let kept = Kept {
                state: commit_to.keep()?.into(),
                memory: Bytes::new(),
                released: commit_to.keep_released()?.into(),
            };
            Ok(ledger.save(&identity, &kept)?)
        });
    });
    group.bench_function("save", |bencher| bencher.iter(|| ledger.save(&identity, &kept)));
    let path = directory.path().join("plain");
    group.bench_function("plain flushed write", |bencher| {
        bencher.iter(|| plain(&path, black_box(&kept.state)))
    });
    group.bench_function("load", |bencher| {
        bencher.iter(|| match ledger.load(&identity) {
            Ok(Found::Kept(kept)) => SourceState::restored(spec(cases), &kept.state, &kept.released).ok(),
            _ => None,
        });
    });
    group.bench_function("load and show", |bencher| {
        bencher.iter(|| {
            let mut store = Store::new(Vec::new(), 0);
            let Ok(Found::Kept(kept)) = ledger.load(&identity) else {
                return None;
            };
            let state = SourceState::restored(spec(cases), &kept.state, &kept.released).ok()?;
            Some(store.reconfigure(vec![Next::New(Box::new(state))], usize::MAX, at(RUNS)))
        });
    });
    group.bench_function("load, show and render", |bencher| {
        bencher.iter(|| {
            let Ok(Found::Kept(kept)) = ledger.load(&identity) else {
                return None;
            };
            let state = SourceState::restored(spec(cases), &kept.state, &kept.released).ok()?;
            let mut store = Store::new(Vec::new(), 0);
            let shown = store.reconfigure(vec![Next::New(Box::new(state))], usize::MAX, at(RUNS));
            Some(render(&shown))
        });
    });
    group.finish();
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut criterion = Criterion::default().configure_from_args();
    for cases in [10_000, 100_000] {
        measure(&mut criterion, cases)?;
    }
    criterion.final_summary();
    Ok(())
}
