//! The text of 100 000 series: ours, and the same series through the prometheus crate, in one run so that the ratio holds
//! on whatever machine this is. `cargo bench --bench render`.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use jiff::Timestamp;
use prometheus::{Encoder as _, GaugeVec, Opts, Registry, TextEncoder};
use testrun_exporter::metrics::render::render;
use testrun_exporter::model::{ActiveState, CaseOutcome, ErrorCode, Group};
use testrun_exporter::store::{CaseRow, Counts, LastResult, Promotion, Snapshot, SourceSnapshot};

/// 14 series each: 100 000 in all.
const CASES: usize = 100_000 / 14;

fn case_row(number: usize) -> CaseRow {
    let at = Timestamp::from_second(1_795_300_000).unwrap_or_default();
    CaseRow {
        snoozed: false,
        created: None,
        group: Group {
            environment: "staging".into(),
            branch: "main".into(),
        },
        case: format!("checkout-{:032x}", number * 2_654_435_761).into(),
        counts: Counts {
            results: [number as u64, 3, 1, 0, 0, 0],
            retries: 2,
            duration_sum: 12.345 * number as f64,
            duration_count: number as u64,
        },
        came_back_at: None,
        last: Some(LastResult {
            outcome: CaseOutcome::Passed,
            at: Some(at),
            duration_seconds: Some(1.234),
        }),
        last_pass: Some(at),
        consecutive_failures: 0,
        failing_since: None,
        health: None,
        counted: Default::default(),
    }
}

fn snapshot() -> Snapshot {
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
        cases: (0..CASES).map(case_row).collect(),
        case_infos: Vec::new(),
        case_outcomes: BTreeMap::new(),
        cases_folded: 0,
        as_of: Timestamp::UNIX_EPOCH,
    };
    Snapshot {
        generation: 1,
        sources: vec![Arc::new(source)],
    }
}

/// As many series with the same labels and values; their types do not matter to the cost.
fn registry(snapshot: &Snapshot) -> prometheus::Result<Registry> {
    let registry = Registry::new();
    let vector = |name: &str, labels: &[&str]| -> prometheus::Result<GaugeVec> {
        let vector = GaugeVec::new(Opts::new(name, "Help."), labels)?;
        registry.register(Box::new(vector.clone()))?;
        Ok(vector)
    };
    let results = vector(
        "testrun_case_results_total",
        &["source", "environment", "branch", "case", "outcome"],
    )?;
    let others = (0..8)
        .map(|number| {
            let name = format!(
                "testrun_case_{}_seconds",
                ["a", "b", "c", "d", "e", "f", "g", "h"][number]
            );
            vector(&name, &["source", "environment", "branch", "case"])
        })
        .collect::<prometheus::Result<Vec<_>>>()?;
    for source in &snapshot.sources {
        for row in &source.cases {
            let labels = [&*source.source, &*row.group.environment, &*row.group.branch, &*row.case];
            for outcome in CaseOutcome::ALL {
                let [source, environment, branch, case] = labels;
                results
                    .with_label_values(&[source, environment, branch, case, outcome.label()])
                    .set(row.counts.results[outcome.index()] as f64);
            }
            for other in &others {
                other.with_label_values(&labels).set(row.counts.duration_sum);
            }
        }
    }
    Ok(registry)
}

fn exposition(criterion: &mut Criterion) {
    let snapshot = snapshot();
    let mut group = criterion.benchmark_group("exposition of 100k series");
    group.sample_size(20);
    group.bench_function("ours", |bencher| bencher.iter(|| render(black_box(&snapshot))));
    if let Ok(registry) = registry(&snapshot) {
        let encode = |text: &mut Vec<u8>| TextEncoder::new().encode(&registry.gather(), text);
        group.bench_function("prometheus crate, gather and encode", |bencher| {
            bencher.iter(|| {
                let mut text = Vec::new();
                black_box(encode(&mut text)).map(|()| text)
            });
        });
        let gathered = registry.gather();
        group.bench_function("prometheus crate, encode alone", |bencher| {
            bencher.iter(|| {
                let mut text = Vec::new();
                black_box(TextEncoder::new().encode(&gathered, &mut text)).map(|()| text)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, exposition);
criterion_main!(benches);
