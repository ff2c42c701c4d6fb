//! The rules one by one, what never changes a verdict, and the recorded histories of a platform. What the odds are worth is
//! examined on simulated suites in `tests/it/health.rs`.

use proptest::prelude::*;
use serde_json::Value;

use super::infrastructure::{RunTally, spoilt};
use super::*;

const DAY: i64 = 86_400;

fn second(at: i64) -> Timestamp {
    Timestamp::from_second(at).unwrap()
}

fn now() -> Timestamp {
    second(1_800_000_000)
}

/// Results as a line of words, oldest first, the newest an hour old: `P` passed, `F` failed, `M` missing output, `K` flaky, `S` skipped,
/// `U` unknown, `!` before them for a spoilt run, `:n` behind them for signature n, `@n` for commit n; without it each has its own commit,
/// and with `@?` none that is known.
fn results(line: &str) -> Vec<Observation> {
    let words: Vec<_> = line.split_whitespace().collect();
    let mut results = Vec::new();
    for (place, word) in words.iter().enumerate() {
        let (infrastructure, word) = match word.strip_prefix('!') {
            Some(word) => (true, word),
            None => (false, *word),
        };
        let (word, commit) = word.split_once('@').unwrap_or((word, ""));
        let (word, signature) = word.split_once(':').unwrap_or((word, "0"));
        let age = i64::try_from(words.len() - place).unwrap() * 3_600;
        results.push(Observation {
            ended: Some(now() - jiff::SignedDuration::from_secs(age)),
            commit: match commit {
                "" => Some(1_000 + place as u64),
                "?" => None,
                number => Some(number.parse().unwrap()),
            },
            outcome: match word {
                "P" => CaseOutcome::Passed,
                "F" => CaseOutcome::Failed,
                "M" => CaseOutcome::MissingOutput,
                "K" => CaseOutcome::Flaky,
                "S" => CaseOutcome::Skipped,
                "U" => CaseOutcome::Unknown,
                other => panic!("{other}"),
            },
            signature: signature.parse().unwrap(),
            retries: u32::from(word == "K"),
            infrastructure,
        });
    }
    results
}

fn health(line: &str) -> Health {
    judge(&results(line), &Settings::default(), now())
}

fn verdict_of(line: &str) -> Verdict {
    health(line).verdict
}

/// Twenty passes on as many commits, and then.
fn passing_then(line: &str) -> String {
    format!("{}{line}", "P ".repeat(20))
}

#[test]
fn a_case_that_passes_is_healthy() {
    assert_eq!(verdict_of("P"), Verdict::Healthy);
    assert_eq!(verdict_of(&passing_then("")), Verdict::Healthy);
    // One break, repaired, is no flakiness.
    assert_eq!(verdict_of(&passing_then("F F F P P P")), Verdict::Healthy);
    assert_eq!(verdict_of(&passing_then("F P P P")), Verdict::Healthy);
}

#[test]
fn a_case_without_a_decisive_result_is_unknown() {
    assert_eq!(verdict_of(""), Verdict::Unknown);
    assert_eq!(verdict_of("S U S"), Verdict::Unknown);
    assert_eq!(verdict_of("!F !P"), Verdict::Unknown);
}

#[test]
fn a_case_is_regressed_on_the_second_commit_that_fails() {
    assert_eq!(
        verdict_of(&passing_then("F")),
        Verdict::Unknown,
        "the first failure tells nothing yet"
    );
    assert_eq!(verdict_of(&passing_then("F F")), Verdict::Regressed);
    assert_eq!(verdict_of(&passing_then("F S F")), Verdict::Regressed);
    assert_eq!(verdict_of(&passing_then("F:1 F:1")), Verdict::Regressed);
    assert_eq!(verdict_of(&passing_then("F@7 F@7")), Verdict::Unknown, "one commit");
    assert_eq!(verdict_of(&passing_then("F@7 F@7 F@8")), Verdict::Regressed);
    assert_eq!(verdict_of(&passing_then("F F P")), Verdict::Healthy, "repaired");
}

#[test]
fn a_regression_has_one_signature_on_two_commits() {
    assert_eq!(
        verdict_of(&passing_then("F:1 F:2")),
        Verdict::Unknown,
        "two failures of two kinds"
    );
    assert_eq!(verdict_of(&passing_then("F:1 F:2 F:2")), Verdict::Regressed);
    assert_eq!(
        verdict_of(&passing_then("F:1 F")),
        Verdict::Regressed,
        "an unknown signature goes with any"
    );
}

#[test]
fn failures_without_a_known_commit_need_more_runs() {
    assert_eq!(verdict_of(&passing_then("F@? F@? F@?")), Verdict::Unknown);
    assert_eq!(verdict_of(&passing_then("F@? F@? F@? F@?")), Verdict::Regressed);
    assert_eq!(
        verdict_of(&passing_then("F@7 F@?")),
        Verdict::Unknown,
        "it may be the same commit"
    );
}

#[test]
fn a_commit_that_has_passed_as_well_is_no_failing_commit() {
    let health = health(&passing_then("P@7 F@7 F@8"));
    assert_eq!((health.contradictory_commits, health.streak_commits), (1, 1));
    assert_eq!(health.verdict, Verdict::Flaky);
}

#[test]
fn a_flaky_case_that_fails_twice_is_not_yet_regressed_but_one_that_goes_on_is() {
    let flaky = "P P F P P P P F P P P F P P P P P F P P ";
    assert_eq!(verdict_of(&format!("{flaky} F F")), Verdict::Flaky);
    assert_eq!(
        verdict_of(&format!("{flaky} F F F F F F F F F F F F")),
        Verdict::Regressed
    );
}

#[test]
fn each_kind_of_evidence_makes_a_case_flaky() {
    assert_eq!(verdict_of(&passing_then("K P P")), Verdict::Flaky, "reported");
    assert_eq!(
        verdict_of(&passing_then("F@7 P@7 P")),
        Verdict::Flaky,
        "both on one commit"
    );
    assert_eq!(
        verdict_of(&passing_then("F@? P@? P")),
        Verdict::Healthy,
        "unknown commits contradict nothing"
    );
    assert_eq!(verdict_of(&passing_then("F P P F P")), Verdict::Flaky, "four flips");
    assert_eq!(
        verdict_of("P F P P F P"),
        Verdict::Healthy,
        "four flips, but too few results to tell"
    );
    assert_eq!(
        verdict_of(&passing_then("F:1 F:2 F:3")),
        Verdict::Flaky,
        "signatures change from run to run"
    );
}

#[test]
fn honest_breaks_are_no_flips_of_a_flaky_case() {
    let two = passing_then("F F F F F F P P P P P P P P F F F F F F P");
    assert_eq!(health(&two).flips, 4);
    assert_eq!(verdict_of(&two), Verdict::Healthy);
}

#[test]
fn a_case_is_broken_if_it_has_not_passed_in_the_window() {
    assert_eq!(verdict_of("F F"), Verdict::Unknown, "too few");
    assert_eq!(verdict_of("F F F"), Verdict::Broken);
    assert_eq!(verdict_of("M M F S"), Verdict::Broken);
    assert_eq!(verdict_of(&format!("P {}", "F ".repeat(49))), Verdict::Regressed);
    assert_eq!(verdict_of(&format!("P {}", "F ".repeat(50))), Verdict::Broken);
}

#[test]
fn a_case_that_has_not_run_for_longer_than_a_week_is_quiet() {
    let mut results = results("P F P");
    let newest = results[2].ended.unwrap();
    let after = |seconds| newest + jiff::SignedDuration::from_secs(seconds);
    let settings = Settings::default();
    assert_eq!(judge(&results, &settings, after(7 * DAY)).verdict, Verdict::Healthy);
    assert_eq!(judge(&results, &settings, after(7 * DAY + 1)).verdict, Verdict::Quiet);
    // Skips are no runs, and a result from the future is not old.
    results.push(Observation {
        ended: Some(after(7 * DAY)),
        outcome: CaseOutcome::Skipped,
        ..results[2]
    });
    assert_eq!(judge(&results, &settings, after(7 * DAY + 1)).verdict, Verdict::Quiet);
    assert_eq!(judge(&results, &settings, after(-30 * DAY)).verdict, Verdict::Healthy);
    results[2].ended = None;
    assert_eq!(
        judge(&results, &settings, after(30 * DAY)).verdict,
        Verdict::Healthy,
        "nobody knows when it ran"
    );
}

#[test]
fn the_counts_hold_everything_and_the_measures_what_is_decisive() {
    let health = health("P F:5@1 !F S U K@2 F:6@2 M:7@3 !P F:7@4");
    let counted = |outcome: CaseOutcome| health.window[outcome.index()];
    assert_eq!(health.window.iter().sum::<u32>(), 10);
    assert_eq!((counted(CaseOutcome::Failed), counted(CaseOutcome::Passed)), (4, 2));
    assert_eq!((counted(CaseOutcome::Skipped), counted(CaseOutcome::Unknown)), (1, 1));
    assert_eq!((health.flips, health.window_retries), (3, 1));
    assert_eq!(
        (
            health.contradictory_commits,
            health.streak_commits,
            health.streak_signatures
        ),
        (1, 2, 2)
    );
    assert_eq!(health.flake_probability, None, "six results are too few");
    assert!(health.regression_probability.is_some());
}

#[test]
fn the_odds_of_a_break_are_there_while_it_fails_and_grow_with_each_failure() {
    assert_eq!(health(&passing_then("")).regression_probability, None);
    let odds: Vec<_> = (1..6)
        .map(|failures| {
            health(&passing_then(&"F ".repeat(failures)))
                .regression_probability
                .unwrap()
        })
        .collect();
    assert!(odds.is_sorted() && odds[0] < 0.8 && odds[4] > 0.99, "{odds:?}");
    let with_retries = |retries| {
        let mut results = results(&passing_then("F"));
        results[20].retries = retries;
        judge(&results, &Settings::default(), now())
            .regression_probability
            .unwrap()
    };
    assert!(
        with_retries(2) > with_retries(0),
        "a failure that was tried three times is more likely real"
    );
}

#[test]
fn the_flake_probability_of_many_results_is_about_the_share_that_was_not_clean() {
    let line = "P P P F P P P P P P ".repeat(5);
    let odds = health(&line).flake_probability.unwrap();
    assert!((odds - 0.1).abs() < 0.03, "{odds}");
    let clean = health(&"P ".repeat(50)).flake_probability.unwrap();
    assert!(clean < 0.005, "{clean}");
}

// ---- Playwright ----------------------------------------------------------------------------------------------------------

/// How Playwright sums up the attempts of a test (`computeTestCaseOutcome` of its reporters): attempts that were
/// interrupted do not count, and a skip is one only if it was expected.
fn playwright(attempts: &[&str], expected: &str) -> &'static str {
    let counted: Vec<_> = attempts.iter().filter(|status| **status != "interrupted").collect();
    let as_expected = counted
        .iter()
        .any(|status| **status != "skipped" && **status == expected);
    let skipped = expected == "skipped" && counted.iter().any(|status| **status == "skipped");
    let unexpected = counted
        .iter()
        .any(|status| **status != "skipped" && **status != expected);
    match (as_expected, unexpected, skipped) {
        (false, false, _) => "skipped",
        (_, false, _) => "expected",
        (false, true, false) => "unexpected",
        _ => "flaky",
    }
}

/// Attempts, the status that was expected, Playwright's word, and our verdict on the case by this one run, and by this run after twenty
/// clean ones.
const PLAYWRIGHT: &[(&[&str], &str, &str, Verdict, Verdict)] = &[
    (&["passed"], "passed", "expected", Verdict::Healthy, Verdict::Healthy),
    (&["failed"], "failed", "expected", Verdict::Healthy, Verdict::Healthy),
    (&["failed"], "passed", "unexpected", Verdict::Unknown, Verdict::Unknown),
    (
        &["timedOut", "timedOut", "failed"],
        "passed",
        "unexpected",
        Verdict::Unknown,
        Verdict::Unknown,
    ),
    (&["passed"], "failed", "unexpected", Verdict::Unknown, Verdict::Unknown),
    (&["failed", "passed"], "passed", "flaky", Verdict::Flaky, Verdict::Flaky),
    (
        &["timedOut", "failed", "passed"],
        "passed",
        "flaky",
        Verdict::Flaky,
        Verdict::Flaky,
    ),
    (
        &["interrupted", "passed"],
        "passed",
        "expected",
        Verdict::Healthy,
        Verdict::Healthy,
    ),
    (
        &["interrupted"],
        "passed",
        "skipped",
        Verdict::Unknown,
        Verdict::Healthy,
    ),
    (&["skipped"], "skipped", "skipped", Verdict::Unknown, Verdict::Healthy),
    (&["skipped"], "passed", "skipped", Verdict::Unknown, Verdict::Healthy),
    (&[], "passed", "skipped", Verdict::Unknown, Verdict::Healthy),
];

#[test]
fn a_run_that_playwright_sums_up_in_a_word_moves_the_verdict_as_the_table_says() {
    for (attempts, expected, word, alone, after_passes) in PLAYWRIGHT {
        assert_eq!(playwright(attempts, expected), *word, "{attempts:?}");
        let ours = match *word {
            "expected" => "P",
            "unexpected" => "F",
            "flaky" => "K",
            _ => "S",
        };
        assert_eq!(verdict_of(ours), *alone, "{attempts:?} alone");
        assert_eq!(
            verdict_of(&passing_then(ours)),
            *after_passes,
            "{attempts:?} after passes"
        );
    }
}

// ---- recorded answers of a Sample Platform ----------------------------------------------------------------------------------

/// The results of a recorded history in one branch and platform, oldest first.
fn recorded(name: &str, platform: &str) -> Vec<Observation> {
    let path = format!(
        "{}/tests/fixtures/sample-platform/{name}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    let answer: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let number = |text: &str| u64::from(crc32fast::hash(text.as_bytes()));
    let mut results = Vec::new();
    for row in answer["data"].as_array().unwrap() {
        if row["branch"] != "master" || row["platform"] != platform {
            continue;
        }
        let ended: Timestamp = row["tested_at"].as_str().unwrap().parse().unwrap();
        results.push(Observation {
            ended: Some(ended),
            commit: Some(number(row["commit_sha"].as_str().unwrap())),
            outcome: match row["status"].as_str().unwrap() {
                "pass" => CaseOutcome::Passed,
                "fail" => CaseOutcome::Failed,
                "missing_output" => CaseOutcome::MissingOutput,
                other => panic!("{other}"),
            },
            signature: row["failure_signature"].as_str().map_or(0, number),
            retries: 0,
            infrastructure: false,
        });
    }
    results.sort_by_key(|result| result.ended);
    results
}

fn recorded_verdict(name: &str, platform: &str) -> Verdict {
    let read_at: Timestamp = "2026-11-22T01:09:20Z".parse().unwrap();
    let results = recorded(name, platform);
    assert!(results.len() >= 19, "{} results", results.len());
    judge(&results, &Settings::default(), read_at).verdict
}

#[test]
fn the_recorded_test_that_fails_now_and_then_is_flaky() {
    assert_eq!(recorded_verdict("history_s15_rt25", "linux"), Verdict::Flaky);
    assert_eq!(recorded_verdict("history_s15_rt25", "windows"), Verdict::Flaky);
}

#[test]
fn the_recorded_test_whose_output_is_always_missing_is_broken() {
    assert_eq!(recorded_verdict("history_s20_rt34", "linux"), Verdict::Broken);
    assert_eq!(recorded_verdict("history_s20_rt34", "windows"), Verdict::Broken);
}

/// Three tests of one sample on the master branch, a commit each time, as the platform told them with `limit=100`.
#[test]
fn the_other_recorded_tests_have_the_verdict_of_what_happened_to_them() {
    for (test, line, verdict) in [
        (
            "11 on windows, since one commit",
            "P F:1 F:1 F:1 F:1 F:1 F:1 F:1 F:1 F:1 F:1",
            Verdict::Regressed,
        ),
        (
            "11 on linux, from the first on",
            "F:1 F:1 F:1 F:1 F:1 F:1 F:1 F:1 F:1 F:1 F:1",
            Verdict::Broken,
        ),
        ("12 on linux, in a bad run", "P P P P P P P P P M:2 P", Verdict::Healthy),
        ("12 on windows", "P P P P P P P P P P P", Verdict::Healthy),
        ("13 on linux", "P P P P P P P P P P P", Verdict::Healthy),
        ("38, never run", "", Verdict::Unknown),
    ] {
        assert_eq!(verdict_of(line), verdict, "{test}");
    }
}

// ---- infrastructure ---------------------------------------------------------------------------------------------------------

fn tally(decisive: u32, failed: u32, failed_suites: u32) -> RunTally {
    RunTally {
        errored: false,
        decisive,
        failed,
        failed_suites,
    }
}

fn spoilt_runs(runs: &[RunTally]) -> Vec<bool> {
    spoilt(runs, &infrastructure::Settings::default())
}

#[test]
fn a_run_in_which_most_of_unrelated_suites_fail_at_once_is_spoilt() {
    let good = tally(100, 3, 2);
    assert_eq!(spoilt_runs(&[good, tally(100, 60, 2), good]), [false, true, false]);
    assert_eq!(
        spoilt_runs(&[good, tally(100, 50, 2), good]),
        [false; 3],
        "not more than half"
    );
    assert_eq!(spoilt_runs(&[good, tally(100, 60, 1), good]), [false; 3], "one suite");
    assert_eq!(spoilt_runs(&[good, tally(9, 9, 9), good]), [false; 3], "too small");
    assert_eq!(spoilt_runs(&[tally(100, 60, 2), good]), [false; 2], "nothing before it");
    assert_eq!(
        spoilt_runs(&[tally(100, 40, 2), tally(100, 60, 2)]),
        [false; 2],
        "not suddenly"
    );
    assert_eq!(
        spoilt_runs(&[good, tally(9, 0, 0), tally(100, 60, 2)]),
        [false, false, true],
        "a small run is no measure"
    );
}

#[test]
fn a_run_that_ended_in_an_error_is_spoilt() {
    let error = RunTally {
        errored: true,
        ..RunTally::default()
    };
    assert_eq!(spoilt_runs(&[error]), [true]);
    let bad = tally(100, 90, 9);
    assert_eq!(
        spoilt_runs(&[tally(100, 1, 1), error, bad, error]),
        [false, true, true, true]
    );
}

#[test]
fn a_third_mass_failure_in_a_row_is_believed_and_the_ones_before_with_it() {
    let (good, bad) = (tally(100, 3, 2), tally(100, 90, 9));
    let error = RunTally {
        errored: true,
        ..RunTally::default()
    };
    assert_eq!(spoilt_runs(&[good, bad, bad]), [false, true, true]);
    assert_eq!(spoilt_runs(&[good, bad, bad, bad]), [false; 4]);
    assert_eq!(spoilt_runs(&[good, bad, bad, bad, bad]), [false; 5]);
    assert_eq!(
        spoilt_runs(&[good, bad, error, bad, tally(5, 5, 5), bad]),
        [false, false, true, false, false, false]
    );
    assert_eq!(
        spoilt_runs(&[good, bad, bad, good, bad, bad]),
        [false, true, true, false, true, true]
    );
}

#[test]
fn an_outage_makes_no_verdict() {
    let before = verdict_of(&passing_then("P F"));
    assert_eq!(verdict_of(&passing_then("P F !F !F")), before);
    assert_eq!(verdict_of(&passing_then("!F !F")), Verdict::Healthy);
}

// ---- properties -------------------------------------------------------------------------------------------------------------

prop_compose! {
    fn observation()(
        outcome in 0..CaseOutcome::COUNT,
        commit in proptest::option::weighted(0.8, 0_u64..12),
        signature in 0_u64..4,
        retries in 0_u32..6,
        infrastructure in proptest::bool::weighted(0.15),
        age in proptest::option::weighted(0.9, 0_i64..20 * DAY),
    ) -> Observation {
        Observation {
            ended: age.map(|age| now() - jiff::SignedDuration::from_secs(age)),
            commit,
            outcome: CaseOutcome::ALL[outcome],
            signature,
            retries,
            infrastructure,
        }
    }
}

fn in_unit(odds: Option<f64>) -> bool {
    odds.is_none_or(|odds| (0.0..=1.0).contains(&odds))
}

/// Without what counts everything.
fn judged(health: &Health) -> Health {
    Health {
        window: [0; CaseOutcome::COUNT],
        window_retries: 0,
        ..health.clone()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn odds_are_probabilities_and_counts_add_up(results in prop::collection::vec(observation(), 0..70), window in 1_usize..=50) {
        let settings = Settings { window, ..Settings::default() };
        let health = judge(&results, &settings, now());
        prop_assert!(in_unit(health.flake_probability) && in_unit(health.regression_probability), "{health:?}");
        prop_assert_eq!(health.window.iter().sum::<u32>() as usize, results.len().min(window));
        let failing = results.iter().rev().take(window).find(|result| result.is_decisive());
        prop_assert_eq!(health.regression_probability.is_some(), failing.is_some_and(|last| last.outcome.is_failure()));
    }

    #[test]
    fn a_long_row_of_anything_leaves_numbers(result in observation(), count in 1_usize..=50) {
        let health = judge(&vec![result; count], &Settings { min_results: 1, ..Settings::default() }, now());
        prop_assert!(in_unit(health.flake_probability) && in_unit(health.regression_probability), "{health:?}");
    }

    #[test]
    fn what_is_older_than_the_window_does_not_matter(
        older in prop::collection::vec(observation(), 0..20),
        newest in prop::collection::vec(observation(), 50),
    ) {
        let all: Vec<_> = older.into_iter().chain(newest.iter().copied()).collect();
        let settings = Settings::default();
        prop_assert_eq!(judge(&all, &settings, now()), judge(&newest, &settings, now()));
    }

    #[test]
    fn a_pass_as_the_newest_result_never_makes_a_case_regressed_or_broken(
        mut results in prop::collection::vec(observation(), 0..49),
        last in observation(),
    ) {
        results.push(Observation { outcome: CaseOutcome::Passed, infrastructure: false, ..last });
        let verdict = judge(&results, &Settings::default(), now()).verdict;
        prop_assert!(!matches!(verdict, Verdict::Regressed | Verdict::Broken), "{verdict:?}");
    }

    #[test]
    fn spoilt_and_skipped_results_change_nothing_but_the_counts(
        results in prop::collection::vec(observation(), 0..30),
        others in prop::collection::vec((observation(), any::<prop::sample::Index>(), any::<bool>()), 0..20),
    ) {
        let mut with = results.clone();
        for (other, place, spoilt) in others {
            let outcome = if spoilt { other.outcome } else { CaseOutcome::Skipped };
            let other = Observation { outcome, infrastructure: spoilt, ..other };
            with.insert(place.index(with.len() + 1), other);
        }
        let settings = Settings::default();
        let (without, with) = (judge(&results, &settings, now()), judge(&with, &settings, now()));
        prop_assert_eq!(judged(&without), judged(&with));
    }

    #[test]
    fn the_numbers_of_commits_and_signatures_mean_nothing_but_which_are_equal(
        results in prop::collection::vec(observation(), 0..50),
        key in any::<u64>(),
    ) {
        let mut renamed = results.clone();
        for result in &mut renamed {
            result.commit = result.commit.map(|commit| commit ^ key);
            result.signature = if result.signature == 0 { 0 } else { u64::MAX - result.signature };
        }
        let settings = Settings::default();
        prop_assert_eq!(judge(&results, &settings, now()), judge(&renamed, &settings, now()));
    }

    #[test]
    fn only_errors_and_mass_failures_are_spoilt(
        runs in prop::collection::vec((any::<bool>(), 0_u32..40, 0_u32..40, 0_u32..4), 0..60),
    ) {
        let runs: Vec<_> = runs
            .into_iter()
            .map(|(errored, decisive, failed, failed_suites)| RunTally { errored, ..tally(decisive, failed.min(decisive), failed_suites) })
            .collect();
        let flags = spoilt_runs(&runs);
        prop_assert_eq!(flags.len(), runs.len());
        let mut row = 0;
        for (run, spoilt) in runs.iter().zip(flags) {
            let mass = run.failed * 2 > run.decisive && run.failed_suites >= 2 && run.decisive >= 10;
            let may_be = run.errored || mass;
            prop_assert!(!spoilt || may_be);
            prop_assert!(spoilt || !run.errored);
            if !run.errored {
                row = if spoilt { row + 1 } else if run.decisive >= 10 { 0 } else { row };
            }
            prop_assert!(row < 3, "a third one would have been believed");
        }
    }
}
