//! The text of 100 000 series: ours, and the same series through the prometheus crate, in one run so that the ratio holds
//! on whatever machine this is. `cargo bench --bench render`.

#![allow(dead_code, clippy::unwrap_used, missing_docs)]

mod suite;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use prometheus::{Encoder as _, TextEncoder};
use suite::{CASES, case_rows, registry, snapshot};
use testrun_exporter::metrics::render::render;

fn exposition(criterion: &mut Criterion) {
    let snapshot = snapshot(case_rows(CASES));
    let mut group = criterion.benchmark_group("exposition of 100k series");
    group.sample_size(20);
    group.bench_function("ours", |bencher| bencher.iter(|| render(black_box(&snapshot))));
    let text = render(&snapshot).text.to_text();
    let registry = registry(std::str::from_utf8(&text).unwrap());
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
    group.finish();
}

criterion_group!(benches, exposition);
criterion_main!(benches);
