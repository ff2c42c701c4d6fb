//! What the verdicts and the odds are worth: fifty simulated suites that know the truth, with rates and sizes that vary.
//! `cargo bench --bench health` prints the same for larger suites, and the worst combinations one by one.

use std::sync::LazyLock;

use testrun_exporter::health::Settings;

use crate::suites::{Forecast, Plan, Score};

/// Fifty suites of 20 to 60 cases over six weeks, judged after each run: half a million verdicts.
static SCORE: LazyLock<Score> = LazyLock::new(|| Score::of(Plan::varied((20, 60), 42), 0..50, &Settings::default()));

#[test]
fn nearly_every_regression_is_detected_within_two_failing_commits() {
    let (steady, rare) = (SCORE.in_time_share(0..1), SCORE.in_time_share(1..2));
    assert!(SCORE.breaks[0] > 200 && SCORE.breaks[1] > 100, "{:?}", SCORE.breaks);
    assert!(steady > 0.95, "of cases that never flake {steady}");
    assert!(rare > 0.85, "of cases that flake in up to 2 % {rare}");
}

#[test]
fn a_case_that_flakes_at_two_percent_is_called_regressed_less_than_once_in_a_hundred_months() {
    assert!(SCORE.months_at_rate > 400.0, "{}", SCORE.months_at_rate);
    assert!(SCORE.alarms_a_month() < 0.01, "{}", SCORE.alarms_a_month());
    let never = SCORE.alarms[0] as f64 / SCORE.months[0];
    assert!(never < 0.001, "of cases that never flake {never}");
    let often = SCORE.alarms[2] as f64 / SCORE.months[2];
    assert!(often < 0.05, "of cases that flake in more than 2 % {often}");
}

#[test]
fn flaky_cases_are_found_and_steady_ones_are_not_called_flaky() {
    assert!(SCORE.flaky[0] > 700 && SCORE.flaky[2] > 250, "{:?}", SCORE.flaky);
    assert!(SCORE.recall() > 0.9, "{}", SCORE.recall());
    assert!(SCORE.precision() > 0.95, "{}", SCORE.precision());
}

/// Every bin of enough forecasts is as far off as `margin` at the most, and what is said beats the average by `better`.
fn is_calibrated(forecast: &Forecast, margin: f64, better: f64) {
    let bins = forecast.bins.iter().filter(|bin| bin.count >= 200);
    let mut checked = 0;
    for bin in bins {
        let off = (bin.mean_said() - bin.rate()).abs();
        assert!(
            off < margin,
            "said {:.4}, came {:.4} ({} times)",
            bin.mean_said(),
            bin.rate(),
            bin.count
        );
        checked += 1;
    }
    assert!(checked >= 5, "only {checked} bins of 200 forecasts");
    let (score, average) = (forecast.brier(), forecast.brier_of_base_rate());
    assert!(
        score < average * (1.0 - better),
        "Brier score {score}, of the average {average}"
    );
}

#[test]
fn of_results_that_were_said_to_flake_with_a_probability_so_many_do() {
    is_calibrated(&SCORE.flake, 0.06, 0.1);
}

#[test]
fn of_failures_that_were_said_to_be_breaks_with_a_probability_so_many_are() {
    is_calibrated(&SCORE.regression, 0.2, 0.8);
    assert!(SCORE.regression.brier() < 0.05, "{}", SCORE.regression.brier());
}
