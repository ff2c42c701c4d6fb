//! What the verdicts and the odds are worth on simulated suites that know the truth, and what they cost.
//! `cargo bench --bench health`; a number after `--` is how many seeds.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::disallowed_methods
)]

#[path = "../tests/it/suites.rs"]
mod suites;

use std::hint::black_box;
use std::time::Instant;

use jiff::Timestamp;
use suites::{Forecast, Plan, Score};
use testrun_exporter::health::{Observation, Settings, WINDOW_MAX, judge};
use testrun_exporter::model::CaseOutcome;

fn main() {
    let seeds = std::env::args()
        .filter_map(|word| word.parse().ok())
        .next_back()
        .unwrap_or(50);
    let settings = Settings::default();
    let started = Instant::now();
    let all = Score::of(Plan::varied((100, 100), 90), 0..seeds, &settings);
    let took = started.elapsed();
    println!(
        "{seeds} varied suites of 100 cases over 90 days, {} verdicts in {took:.1?}\n",
        all.judged
    );
    row_head();
    row("all varied", &all);
    for (name, plan) in combinations() {
        row(name, &Score::of(plan, 0..seeds.div_ceil(5), &settings));
    }
    table(
        "flake probability, against the next result while the case works",
        &all.flake,
    );
    table(
        "regression probability, against whether the case is broken",
        &all.regression,
    );
    cost(&settings);
}

fn combinations() -> [(&'static str, Plan); 5] {
    let plan = Plan::varied((100, 100), 90);
    let of = |runs, retries, signatures| Plan {
        commits_a_day: Some(4),
        runs_a_commit: Some(runs),
        retries: Some(retries),
        signatures: Some(signatures),
        ..plan
    };
    [
        ("worst: 1 run, 0 retries, no sign.", of(1, 0, false)),
        ("1 run, 0 retries, signatures", of(1, 0, true)),
        ("2 runs, 0 retries, no signatures", of(2, 0, false)),
        ("1 run, 1 retry, no signatures", of(1, 1, false)),
        ("2 runs, 2 retries, signatures", of(2, 2, true)),
    ]
}

fn row_head() {
    println!(
        "{:34} {:>26} {:>28} {:>9} {:>9} {:>22}",
        "", "detected in 2 commits of", "false alarms a case-month of", "recall", "precision", "called flaky between"
    );
    println!(
        "{:34} {:>8} {:>8} {:>8} {:>9} {:>8} {:>9}",
        "", "f = 0", "<= 2 %", "> 2 %", "f = 0", "2 %", "> 2 %"
    );
}

fn row(name: &str, score: &Score) {
    println!(
        "{name:34} {:7.1}% {:7.1}% {:7.1}% {:8.3}% {:7.2}% {:8.2}% {:8.1}% {:8.1}% {:12.1}% of {:5}   ({} breaks, {} months at 2 %)",
        100.0 * score.in_time_share(0..1),
        100.0 * score.in_time_share(1..2),
        100.0 * score.in_time_share(2..3),
        100.0 * score.alarms[0] as f64 / score.months[0],
        100.0 * score.alarms_a_month(),
        100.0 * score.alarms[2] as f64 / score.months[2],
        100.0 * score.recall(),
        100.0 * score.precision(),
        100.0 * score.called_flaky[1] as f64 / score.flaky[1] as f64,
        score.flaky[1],
        score.breaks.iter().sum::<u64>(),
        score.months_at_rate.round(),
    );
}

fn table(name: &str, forecast: &Forecast) {
    println!(
        "\n{name}\nBrier score {:.5}; of one who always says the average {:.5}",
        forecast.brier(),
        forecast.brier_of_base_rate()
    );
    println!("{:>8} {:>10} {:>10} {:>10}", "below", "forecasts", "said", "came");
    for bin in &forecast.bins {
        println!(
            "{:8.3} {:10} {:10.4} {:10.4}",
            bin.below.min(1.0),
            bin.count,
            bin.mean_said(),
            bin.rate()
        );
    }
}

fn cost(settings: &Settings) {
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let results: Vec<_> = (0..WINDOW_MAX)
        .map(|place| Observation {
            ended: Some(now),
            commit: u64::try_from(place / 2).ok(),
            outcome: if place % 7 == 0 {
                CaseOutcome::Failed
            } else {
                CaseOutcome::Passed
            },
            signature: u64::from(place % 7 == 0),
            retries: 0,
            infrastructure: false,
        })
        .collect();
    let rounds = 20_000;
    let started = Instant::now();
    for _ in 0..rounds {
        black_box(judge(black_box(&results), settings, now));
    }
    println!("\na verdict on a full window: {:.2?}", started.elapsed() / rounds);
}
