//! The rules of the room, one by one, then all of them at once on random histories.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::budget::Width;
use super::*;
use crate::health;
use crate::model::{
    ActiveRun, ActiveState, CaseInfo, CaseOutcome, CaseResult, ErrorCode, Fact, Group, OTHER, RoundResult, Run,
    RunOutcome, Verdict,
};
use CaseOutcome::{Failed, Flaky, MissingOutput, Passed, Skipped};

pub(super) const DAY: Duration = Duration::from_secs(86_400);
pub(super) const NOW: i64 = 1_800_000_000;

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(NOW + seconds).unwrap()
}

pub(super) fn spec(name: &str) -> SourceSpec {
    SourceSpec {
        name: name.into(),
        error_codes: ErrorCode::ALL,
        active_states: ActiveState::ALL,
        limits: Limits {
            cases_max: 100,
            retention: 30 * DAY,
            series_ttl: 14 * DAY,
        },
        promotion: None,
        health: health::Settings::default(),
        created_timestamps: false,
    }
}

pub(super) fn group(environment: &str, branch: &str) -> Group {
    Group {
        environment: environment.into(),
        branch: branch.into(),
    }
}

/// A run that ended `id` seconds from the start.
pub(super) fn run(id: u64, outcome: RunOutcome) -> Run {
    let end = i64::try_from(id).unwrap();
    let mut counts = [None; CaseOutcome::COUNT];
    counts[Passed.index()] = Some(2);
    Run {
        id,
        group: group("prod", "main"),
        outcome,
        error_code: None,
        created: Some(at(end - 30)),
        started: Some(at(end - 20)),
        ended: Some(at(end)),
        duration_seconds: Some(20.0),
        counts,
        commit: Some(format!("commit {}", id / 2).into()),
        build_url: None,
    }
}

fn passed(id: u64) -> Fact {
    Fact::Run(run(id, RunOutcome::Passed))
}

fn active(ids: &[u64]) -> Fact {
    let run = |id: &u64| ActiveRun {
        id: *id,
        environment: "prod".into(),
        state: ActiveState::Started,
    };
    Fact::Active(ids.iter().map(run).collect())
}

pub(super) fn result(run: u64, case: &str, outcome: CaseOutcome) -> Fact {
    Fact::Result(CaseResult {
        run,
        case: case.into(),
        outcome,
        executed: None,
        duration_seconds: Some(1.5),
        retries: Some(1),
        failure_signature: None,
    })
}

/// A store of one source that is scraped after every round.
struct Bench {
    store: Store,
    seconds: i64,
    scraped: u64,
}

impl Bench {
    fn new() -> Self {
        Self {
            store: Store::new(vec![spec("shop")], 1_000_000),
            seconds: 100_000,
            scraped: 0,
        }
    }

    /// Another series budget holds from the next round on.
    fn have_room(&mut self, series_budget: usize) {
        let known = Next::Known {
            place: 0,
            spec: Box::new(spec("shop")),
        };
        self.store.reconfigure(vec![known], series_budget, at(self.seconds));
    }

    fn facts(&mut self, facts: Vec<Fact>) {
        assert!(
            self.store
                .update(0, Update::Facts(facts), at(self.seconds), self.scraped)
                .is_none()
        );
    }

    fn end(&mut self, result: RoundResult) -> Option<Arc<Snapshot>> {
        self.seconds += 5;
        let now = at(self.seconds);
        self.store
            .update(0, Update::RoundEnded { result, at: now }, now, self.scraped)
    }

    /// A good round, before any release.
    fn publish(&mut self, facts: Vec<Fact>) -> Arc<SourceSnapshot> {
        self.facts(facts);
        Arc::clone(
            &self
                .end(RoundResult::Success)
                .expect("a good round is published")
                .sources[0],
        )
    }

    /// A good round, scraped, and what is shown then.
    fn round(&mut self, facts: Vec<Fact>) -> Arc<SourceSnapshot> {
        let shown = self.publish(facts);
        self.scrape().unwrap_or(shown)
    }

    fn scrape(&mut self) -> Option<Arc<SourceSnapshot>> {
        self.scraped = self.store.generation;
        self.store
            .tick(at(self.seconds), self.scraped)
            .map(|snapshot| Arc::clone(&snapshot.sources[0]))
    }
}

fn runs_counted(snapshot: &SourceSnapshot) -> u64 {
    snapshot.groups.iter().flat_map(|row| row.runs).sum()
}

fn results_counted(snapshot: &SourceSnapshot) -> u64 {
    snapshot.cases.iter().flat_map(|row| row.counts.results).sum()
}

/// What is counted of `facts` after a baseline of the runs 10 (finished), 8 and 11 (active).
fn check_counted(facts: Vec<Fact>, runs: u64, results: u64) {
    let mut bench = Bench::new();
    bench.round(vec![passed(10), result(10, "a", Failed), active(&[8, 11])]);
    let shown = bench.round(facts);
    assert_eq!((runs_counted(&shown), results_counted(&shown)), (runs, results));
}

#[test]
fn the_baseline_is_remembered_and_not_counted() {
    let mut bench = Bench::new();
    let shown = bench.round(vec![passed(1), result(1, "a", Failed), active(&[])]);
    assert_eq!((runs_counted(&shown), results_counted(&shown)), (0, 0));
    assert_eq!(shown.groups[0].last.as_ref().map(|run| run.id), Some(1));
    assert_eq!(shown.cases[0].consecutive_failures, 1);
}

#[test]
fn what_failed_rounds_learned_before_the_first_good_one_is_baseline_too() {
    let mut bench = Bench::new();
    bench.facts(vec![passed(3), active(&[7])]);
    assert!(bench.end(RoundResult::Unreachable).is_none());
    bench.round(vec![active(&[])]);
    assert_eq!(
        runs_counted(&bench.round(vec![passed(3), passed(7)])),
        0,
        "7 had finished before the baseline was complete"
    );
    assert_eq!(runs_counted(&bench.round(vec![passed(8)])), 1);
}

#[test]
fn after_the_baseline_newer_runs_and_those_that_were_active_count() {
    check_counted(vec![passed(12)], 1, 0);
    check_counted(vec![passed(8), passed(11)], 2, 0);
    check_counted(vec![passed(9), passed(10)], 0, 0);
    check_counted(vec![passed(12), passed(12), passed(12)], 1, 0);
}

#[test]
fn an_empty_first_round_makes_every_later_run_count() {
    let mut bench = Bench::new();
    bench.round(vec![active(&[])]);
    assert_eq!(runs_counted(&bench.round(vec![passed(1)])), 1);
}

#[test]
fn a_result_counts_once_and_only_with_a_counted_run() {
    check_counted(vec![passed(12), result(12, "a", Failed), result(12, "a", Failed)], 1, 1);
    check_counted(vec![result(12, "a", Failed), result(12, "b", Failed), passed(12)], 1, 2);
    check_counted(vec![result(12, "a", Failed)], 0, 0);
    check_counted(vec![result(10, "a", Failed), result(10, "b", Failed)], 0, 0);
}

#[test]
fn results_that_came_before_the_baseline_of_a_run_that_was_active_then_count() {
    let mut bench = Bench::new();
    bench.round(vec![active(&[5]), result(5, "a", Failed)]);
    let shown = bench.round(vec![passed(5)]);
    assert_eq!((runs_counted(&shown), results_counted(&shown)), (1, 1));
    assert_eq!(
        (
            shown.cases[0].counts.retries,
            shown.cases[0].counts.duration_sum,
            shown.cases[0].counts.duration_count
        ),
        (1, 1.5, 1)
    );
}

#[test]
fn an_edit_moves_gauges_and_never_counters() {
    let mut bench = Bench::new();
    bench.round(vec![active(&[])]);
    bench.round(vec![
        passed(1),
        result(1, "a", Passed),
        passed(2),
        result(2, "a", Passed),
    ]);
    let mut edited = run(1, RunOutcome::Failed);
    edited.ended = Some(at(50));
    let shown = bench.round(vec![Fact::Run(edited), result(1, "a", Failed), active(&[2])]);
    assert_eq!(shown.groups[0].runs, [2, 0, 0, 0, 0]);
    assert_eq!(
        shown.groups[0].last.as_ref().map(|run| (run.id, run.outcome)),
        Some((1, RunOutcome::Failed))
    );
    assert_eq!(shown.cases[0].counts.results[Passed.index()], 2);
    assert_eq!(
        (shown.cases[0].consecutive_failures, shown.cases[0].last_pass),
        (1, Some(at(2)))
    );
    assert_eq!(bench.store.sources()[0].late_edits(), 2);
    assert_eq!(
        runs_counted(&bench.round(vec![passed(2)])),
        2,
        "a restarted run is not counted again"
    );
}

#[test]
fn a_failed_round_publishes_nothing_and_loses_nothing() {
    let mut bench = Bench::new();
    bench.round(vec![active(&[]), passed(1)]);
    bench.facts(vec![passed(2)]);
    assert!(bench.end(RoundResult::Throttled).is_none());
    assert!(bench.scrape().is_none());
    assert_eq!(runs_counted(&bench.round(vec![])), 1);
}

#[test]
fn a_new_row_is_served_at_zero_until_that_was_scraped() {
    let mut bench = Bench::new();
    bench.round(vec![active(&[])]);
    let mut error = run(1, RunOutcome::Error);
    error.error_code = Some(ErrorCode::MergeConflict);
    let shown = bench.publish(vec![Fact::Run(error), result(1, "a", Failed)]);
    assert_eq!((runs_counted(&shown), results_counted(&shown)), (0, 0));
    assert_eq!(shown.run_errors["prod"].counts.iter().sum::<u64>(), 0);
    assert_eq!(shown.groups[0].duration.count() + shown.groups[0].queue.count(), 0);
    assert_eq!(shown.cases[0].consecutive_failures, 1, "gauges are real at once");
    assert!(bench.store.sources()[0].holds_back());

    bench.facts(vec![passed(2)]);
    let shown = bench.scrape().expect("a release does not wait for the round");
    assert_eq!(
        (runs_counted(&shown), results_counted(&shown)),
        (1, 1),
        "and shows nothing of a round that goes on"
    );
    assert_eq!(shown.groups[0].duration.count(), 1);
    assert_eq!(shown.run_errors["prod"].counts[ErrorCode::MergeConflict.index()], 1);
    assert!(bench.store.next_release().is_none());
    let shown = bench.publish(vec![]);
    assert_eq!(runs_counted(&shown), 2, "a row that is known never lags");
}

#[test]
fn zeros_that_nobody_scrapes_are_over_after_a_minute() {
    let mut bench = Bench::new();
    bench.round(vec![active(&[])]);
    bench.publish(vec![passed(1)]);
    let due = bench.store.next_release().expect("something waits");
    assert_eq!(due, at(bench.seconds + ZEROS_SECONDS_MAX));
    assert!(
        bench
            .store
            .tick(due - SignedDuration::from_secs(1), bench.scraped)
            .is_none()
    );
    let shown = bench.store.tick(due, bench.scraped).expect("a minute is over");
    assert_eq!(runs_counted(&shown.sources[0]), 1);
}

#[test]
fn nobody_has_seen_what_was_withdrawn_before_it_was_scraped() {
    let mut bench = Bench::new();
    bench.round(vec![active(&[])]);
    let before = bench.scraped;
    bench.publish(vec![passed(1), result(1, "a", Passed)]);
    bench.store.withdraw(0, before);
    bench.seconds += ZEROS_SECONDS_MAX;
    assert_eq!(bench.scrape().map(|shown| runs_counted(&shown)), None);
    assert!(bench.store.next_release().is_none());
    let shown = bench.publish(vec![passed(2), result(2, "a", Passed)]);
    assert_eq!((runs_counted(&shown), results_counted(&shown)), (0, 0), "zeros again");
    let shown = bench.scrape().unwrap();
    assert_eq!((runs_counted(&shown), results_counted(&shown)), (2, 2));

    // And a last step does not leave before it was seen.
    let before = bench.scraped;
    bench.publish(vec![passed(3), result(3, "a", Passed)]);
    bench.store.withdraw(0, before);
    bench.scrape();
    bench.have_room(SERIES_PER_OTHER);
    let shown = bench.publish(vec![]);
    assert_eq!(results_counted(&shown), 3);
    let shown = bench.scrape().unwrap();
    assert_eq!(shown.cases_folded, 1);
}

#[test]
fn one_sources_release_does_not_show_anothers_round() {
    let mut store = Store::new(vec![spec("b"), spec("a")], 1_000_000);
    let end = |seconds| Update::RoundEnded {
        result: RoundResult::Success,
        at: at(seconds),
    };
    store.update(0, end(0), at(0), 0);
    store.update(1, end(0), at(0), 0);
    store.update(0, Update::Facts(vec![passed(1)]), at(1), 2);
    let shown = store.update(1, end(2), at(2), 2).expect("published");
    assert_eq!(
        shown.sources.iter().map(|source| &*source.source).collect::<Vec<_>>(),
        ["a", "b"]
    );
    assert!(shown.sources[1].groups.is_empty());
}

#[test]
fn the_streak_follows_the_order_of_runs_whatever_the_order_of_arrival() {
    let outcomes = [
        Passed,
        Failed,
        Skipped,
        MissingOutput,
        Flaky,
        Failed,
        Skipped,
        MissingOutput,
    ];
    for rotation in 0..outcomes.len() {
        let mut bench = Bench::new();
        let mut facts: Vec<Fact> = (1..)
            .zip(outcomes)
            .map(|(id, outcome)| result(id, "a", outcome))
            .collect();
        facts.rotate_left(rotation);
        facts.extend((1..=8).map(passed));
        facts.rotate_left(rotation * 2);
        let row = bench.round(facts).cases[0].clone();
        assert_eq!((row.consecutive_failures, row.last_pass), (2, Some(at(5))));
        assert_eq!(
            row.last.map(|last| (last.outcome, last.at)),
            Some((MissingOutput, Some(at(8))))
        );
    }
}

#[test]
fn the_streak_outlives_the_window() {
    let mut bench = Bench::new();
    let mut facts: Vec<Fact> = (1..=100).flat_map(|id| [passed(id), result(id, "a", Failed)]).collect();
    facts.extend([passed(101), result(101, "a", Skipped)]);
    assert_eq!(bench.round(facts).cases[0].consecutive_failures, 100);
    let late = bench.round(vec![
        Fact::Run(Run {
            ended: Some(at(0)),
            ..run(500, RunOutcome::Passed)
        }),
        result(500, "a", Passed),
    ]);
    assert_eq!(
        (late.cases[0].consecutive_failures, late.cases[0].last_pass),
        (100, Some(at(0)))
    );
}

#[test]
fn a_told_last_pass_fills_in_and_never_goes_back() {
    let told = |seconds| Fact::LastPass {
        case: "a".into(),
        group: group("prod", "main"),
        at: at(seconds),
    };
    let mut bench = Bench::new();
    assert_eq!(bench.round(vec![told(-500)]).cases[0].last_pass, Some(at(-500)));
    assert_eq!(
        bench.round(vec![passed(4), result(4, "a", Passed), told(-900)]).cases[0].last_pass,
        Some(at(4))
    );
}

#[test]
fn unfinished_runs_are_replaced_and_known_environments_show_zeros() {
    let mut bench = Bench::new();
    let shown = bench.round(vec![passed(1), active(&[2, 3])]);
    assert_eq!(shown.runs_active["prod"], [0, 0, 2, 0]);
    assert_eq!(bench.round(vec![active(&[])]).runs_active["prod"], [0; 4]);
}

#[test]
fn each_case_is_one_of_its_environments_cases_as_it_went_last() {
    let mut bench = Bench::new();
    let elsewhere = |id| {
        Fact::Run(Run {
            group: group("prod", OTHER),
            ..run(id, RunOutcome::Failed)
        })
    };
    let shown = bench.round(vec![
        passed(1),
        elsewhere(2),
        result(1, "a", Passed),
        result(2, "a", Failed),
    ]);
    assert_eq!(shown.cases.len(), 2);
    assert_eq!(shown.case_outcomes["prod"][Failed.index()].iter().sum::<u64>(), 1);
    assert_eq!(shown.case_outcomes["prod"].as_flattened().iter().sum::<u64>(), 1);
}

/// The cases that are shown, in order.
fn names(shown: &SourceSnapshot) -> Vec<&str> {
    shown.cases.iter().map(|row| &*row.case).collect()
}

/// Results counted under a case's name.
pub(super) fn counted_as(shown: &SourceSnapshot, case: &str) -> Option<u64> {
    let row = shown.cases.iter().find(|row| &*row.case == case)?;
    Some(row.counts.results.iter().sum())
}

/// Most series that the rows of cases become, reckoned row by row.
pub(super) fn case_series(shown: &SourceSnapshot) -> usize {
    let series = shown.cases.iter().map(|row| {
        let Width { case, other } = Width::of(row.created.is_some());
        if &*row.case == OTHER { other } else { case }
    });
    series.sum()
}

/// Room for so many cases and one group's `__other__`.
pub(super) fn room_for(cases: usize) -> usize {
    cases * SERIES_PER_CASE + SERIES_PER_OTHER
}

#[test]
fn the_budget_shows_failing_then_flaky_then_recent_cases_and_folds_the_others() {
    let mut bench = Bench::new();
    bench.store = Store::new(vec![spec("shop")], room_for(3));
    let results = [
        (1, "flaky", Flaky),
        (3, "new", Passed),
        (2, "old", Passed),
        (1, "bad", Failed),
        (1, "gone", Passed),
    ];
    let mut facts: Vec<Fact> = results.map(|(id, case, outcome)| result(id, case, outcome)).to_vec();
    facts.extend([
        passed(1),
        passed(2),
        passed(3),
        Fact::Case(CaseInfo {
            tags: None,
            case: "old".into(),
            name: "n".into(),
            suite: "s".into(),
            file: "f".into(),
        }),
    ]);
    let shown = bench.round(facts);
    assert_eq!(names(&shown), [OTHER, "bad", "flaky", "new"]);
    assert_eq!((shown.cases_folded, shown.case_infos.len()), (2, 0));
    assert_eq!(shown.case_outcomes["prod"].as_flattened().iter().sum::<u64>(), 5);
    let other = &shown.cases[0];
    assert_eq!(
        (&other.last, other.last_pass),
        (&None, None),
        "only what can be added up"
    );

    let shown = bench.publish(vec![
        passed(4),
        result(4, "old", Failed),
        result(4, "gone", Failed),
        result(4, "bad", Passed),
    ]);
    assert_eq!(
        names(&shown),
        [OTHER, "flaky", "gone", "old"],
        "what failed days ago is not in front of what flakes"
    );
    assert_eq!(
        (results_counted(&shown), shown.case_infos.len()),
        (1, 1),
        "served at 0 first"
    );
    let shown = bench.scrape().expect("scraped");
    assert_eq!((results_counted(&shown), counted_as(&shown, "old")), (3, Some(1)));
}

#[test]
fn a_result_stays_where_it_was_counted_when_its_case_leaves_and_returns() {
    let mut bench = Bench::new();
    bench.store = Store::new(vec![spec("shop")], room_for(1));
    bench.publish(vec![passed(1), result(1, "a", Passed), result(1, "b", Passed)]);
    let counted = |bench: &mut Bench, run: u64, a: CaseOutcome, b: CaseOutcome| {
        let day = 2 * 86_400;
        bench.seconds += day;
        let mut finished = self::run(run, RunOutcome::Failed);
        finished.ended = Some(at(bench.seconds));
        bench.round(vec![Fact::Run(finished), result(run, "a", a), result(run, "b", b)]);
        // What has come back is shown where it was, until that is seen.
        bench.round(vec![]);
        let shown = bench.store.newest().sources[0].clone();
        ["a", "b", OTHER].map(|case| counted_as(&shown, case))
    };
    assert_eq!(counted(&mut bench, 2, Failed, Passed), [Some(1), None, Some(1)]);
    assert_eq!(counted(&mut bench, 3, Failed, Passed), [Some(2), None, Some(2)]);
    assert_eq!(
        counted(&mut bench, 4, Passed, Failed),
        [None, Some(1), Some(3)],
        "the failing one has its own first failure"
    );
    assert_eq!(counted(&mut bench, 5, Passed, Failed), [None, Some(2), Some(4)]);
    assert_eq!(
        counted(&mut bench, 6, Failed, Passed),
        [Some(3), None, Some(5)],
        "goes on where it was"
    );
    let back = bench.store.newest().sources[0].clone();
    let nothing_written = back.with_counters_of(None);
    assert_eq!(
        counted_as(&nothing_written, "a"),
        Some(2),
        "what was shown before it left was written then"
    );
}

#[test]
fn a_case_that_leaves_before_its_zeros_were_seen_gives_its_counts_to_the_others() {
    let mut bench = Bench::new();
    bench.store = Store::new(vec![spec("shop")], room_for(1));
    bench.publish(vec![passed(1), result(1, "a", Passed)]);
    bench.publish(vec![passed(2), result(2, "b", Failed), result(2, "a", Passed)]);
    bench.have_room(0);
    bench.seconds += ZEROS_SECONDS_MAX;
    bench.publish(vec![passed(3), result(3, "b", Passed), result(3, "c", Failed)]);
    bench.have_room(room_for(1));
    bench.publish(vec![passed(4), result(4, "c", Failed)]);
    bench.scrape();
    let shown = bench.store.newest().sources[0].clone();
    assert_eq!([counted_as(&shown, "c"), counted_as(&shown, OTHER)], [Some(1), Some(4)]);
}

#[test]
fn a_case_named_like_the_others_is_one_of_them() {
    let mut bench = Bench::new();
    bench.round(vec![passed(1), result(1, OTHER, Failed), result(1, "a", Failed)]);
    bench.round(vec![passed(2), result(2, OTHER, Failed), result(2, "a", Failed)]);
    let shown = bench.store.newest().sources[0].clone();
    assert_eq!(names(&shown), [OTHER, "a"]);
    assert_eq!([counted_as(&shown, "a"), counted_as(&shown, OTHER)], [Some(1), Some(1)]);
}

#[test]
fn a_case_unseen_for_its_time_leaves_and_goes_on_where_it_was_when_it_returns() {
    let mut bench = Bench::new();
    let day = 86_400;
    bench.round(vec![passed(1), result(1, "a", Passed), result(1, "b", Passed)]);
    let ended_now = |bench: &Bench, id: u64| {
        Fact::Run(Run {
            ended: Some(at(bench.seconds)),
            ..run(id, RunOutcome::Passed)
        })
    };
    bench.seconds = 10 * day;
    let told = vec![ended_now(&bench, 2), result(2, "a", Passed), result(2, "b", Failed)];
    bench.round(told);
    bench.seconds = 20 * day;
    let told = vec![ended_now(&bench, 3), result(3, "a", Passed)];
    let shown = bench.round(told);
    assert_eq!(names(&shown), ["a", "b"]);
    bench.seconds = 25 * day;
    let told = vec![ended_now(&bench, 4), result(4, "a", Passed)];
    let shown = bench.round(told);
    assert_eq!((names(&shown), shown.cases_folded), (vec!["a"], 0));
    assert_eq!(
        shown.case_outcomes["prod"].as_flattened().iter().sum::<u64>(),
        1,
        "it is no longer a case"
    );
    let told = vec![ended_now(&bench, 5), result(5, "b", Passed)];
    let shown = bench.round(told);
    assert_eq!(
        (names(&shown), counted_as(&shown, "b")),
        (vec!["a", "b"], Some(1)),
        "where it was, first"
    );
    let shown = bench.round(vec![]);
    assert_eq!(counted_as(&shown, "b"), Some(2));
    assert_eq!(shown.cases[1].consecutive_failures, 0);
}

#[test]
fn the_budget_holds_for_all_sources_together() {
    let budget = 2 * room_for(2);
    let mut store = Store::new(vec![spec("a"), spec("b")], budget);
    let mut scraped = 0;
    for round in 0..4 {
        for source in [0, 1] {
            let rows = if source == 0 || round > 0 { 6 } else { 0 };
            let mut facts: Vec<Fact> = (0..rows).map(|case| result(1, &case.to_string(), Passed)).collect();
            facts.push(passed(1));
            store.update(source, Update::Facts(facts), at(round), scraped);
            let ended = Update::RoundEnded {
                result: RoundResult::Success,
                at: at(round),
            };
            let shown = store.update(source, ended, at(round), scraped).expect("published");
            scraped = shown.generation;
            assert!(shown.sources.iter().map(|source| case_series(source)).sum::<usize>() <= budget);
        }
    }
    let shares: Vec<_> = store
        .sources()
        .iter()
        .filter_map(|source| Some(source.published()?.cases.len()))
        .collect();
    assert_eq!(shares, [3, 3], "two cases and the others");
}

#[test]
fn what_the_retention_lets_go_is_never_counted_again() {
    let days = |days: i64| days * 86_400;
    let end = |bench: &mut Bench, seconds| {
        let ended = Update::RoundEnded {
            result: RoundResult::Success,
            at: at(seconds),
        };
        Arc::clone(
            &bench
                .store
                .update(0, ended, at(seconds), u64::MAX)
                .expect("published")
                .sources[0],
        )
    };
    let mut bench = Bench::new();
    end(&mut bench, 0);
    bench.facts(vec![passed(5), result(5, "a", Failed), active(&[3])]);
    end(&mut bench, 10);
    let shown = end(&mut bench, days(40));
    assert!(
        shown.groups.is_empty() && shown.cases.is_empty(),
        "nothing is known within the retention"
    );
    assert_eq!(
        bench.store.sources()[0].cases_known(),
        0,
        "the case's place is free again"
    );

    bench.facts(vec![passed(5), result(5, "a", Failed), active(&[5])]);
    bench.facts(vec![Fact::Run(Run {
        ended: Some(at(days(40))),
        ..run(3, RunOutcome::Passed)
    })]);
    end(&mut bench, days(40) + 5);
    let shown = end(&mut bench, days(40) + 10);
    assert_eq!(
        (runs_counted(&shown), results_counted(&shown)),
        (1, 0),
        "only 3, which had been active all along"
    );
}

#[test]
fn a_run_without_times_does_not_hide_the_runs_before_it() {
    let mut bench = Bench::new();
    bench.round(vec![active(&[])]);
    let timeless = Run {
        created: None,
        started: None,
        ended: None,
        ..run(9, RunOutcome::Error)
    };
    bench.round(vec![Fact::Run(timeless)]);
    bench.round(vec![]);
    assert_eq!(runs_counted(&bench.round(vec![passed(8)])), 2);
}

#[test]
fn bounds_hold_against_endless_groups_cases_and_orphans() {
    let mut bench = Bench::new();
    bench.round(vec![active(&[])]);
    let far = GROUPS_MAX as u64 + 50;
    let runs = (1..=far).map(|id| {
        Fact::Run(Run {
            group: group("e", &id.to_string()),
            ..run(id, RunOutcome::Passed)
        })
    });
    let shown = bench.round(runs.collect());
    assert_eq!((shown.groups.len(), runs_counted(&shown)), (GROUPS_MAX + 1, far));
    let shown = bench.round((0..150).map(|case| result(1, &case.to_string(), Passed)).collect());
    assert_eq!(shown.cases.len(), 100);
    assert_eq!(bench.store.sources()[0].passed_over(), 50);
    bench.facts((0..60_000).map(|id| result(10_000 + id, "1", Passed)).collect());
    assert_eq!(bench.store.sources()[0].passed_over(), 50 + 10_000);
}

#[test]
fn a_new_configuration_keeps_what_is_known_of_a_source() {
    let mut bench = Bench::new();
    bench.round(vec![active(&[])]);
    bench.round(vec![passed(1)]);
    let new = |name| Next::New(Box::new(SourceState::new(spec(name))));
    let known = |place, name| Next::Known {
        place,
        spec: Box::new(spec(name)),
    };
    let now = at(0);
    let shown = bench
        .store
        .reconfigure(vec![new("other"), known(0, "shop")], 1_000_000, now);
    assert_eq!(shown.sources.len(), 1);
    assert_eq!(runs_counted(&shown.sources[0]), 1);
    let shown = bench
        .store
        .reconfigure(vec![known(1, "shop"), new("third")], 1_000_000, now);
    assert_eq!(runs_counted(&shown.sources[0]), 1, "in another place");
    let kept = SourceState::restored(
        spec("shop"),
        &bench.store.sources()[0].keep().unwrap(),
        &bench.store.sources()[0].keep_released().unwrap(),
    )
    .unwrap();
    let shown = bench.store.reconfigure(vec![new("shop")], 1_000_000, now);
    assert_eq!(shown.sources.len(), 0, "what is not named as known begins anew");
    let shown = bench.store.reconfigure(vec![Next::New(Box::new(kept))], 1_000_000, now);
    assert_eq!(runs_counted(&shown.sources[0]), 1, "what was kept is shown at once");
}

/// One whose counters tell when they began.
fn telling_bench() -> Bench {
    let mut bench = Bench::new();
    let spec = SourceSpec {
        created_timestamps: true,
        ..spec("shop")
    };
    bench.store = Store::new(vec![spec], 1_000_000);
    bench
}

/// When the counters of the first group, of its runs' errors, and of the cases began.
fn beginnings(shown: &SourceSnapshot) -> (Option<Timestamp>, Option<Timestamp>, Vec<Option<Timestamp>>) {
    (
        shown.groups[0].created,
        shown.run_errors["prod"].created,
        shown.cases.iter().map(|row| row.created).collect(),
    )
}

#[test]
fn counters_tell_when_they_began_if_they_are_asked_to() {
    let mut bench = telling_bench();
    bench.round(vec![passed(1), result(1, "b", Passed), active(&[])]);
    let (first, second) = (at(100_000), at(bench.seconds));
    let zeros = bench.publish(vec![passed(2), result(2, "a", Passed), result(2, "b", Passed)]);
    let expected = (Some(first), Some(first), vec![Some(second), Some(first)]);
    assert_eq!(beginnings(&zeros), expected, "the zeros have the same beginning");
    let shown = bench.scrape().expect("counts follow zeros");
    assert_eq!((results_counted(&shown), beginnings(&shown)), (2, expected.clone()));

    let keep = |bench: &Bench| {
        let state = &bench.store.sources()[0];
        (state.keep().unwrap(), state.keep_released().unwrap())
    };
    let restored = |(state, released): &(Vec<u8>, Vec<u8>), created_timestamps: bool| {
        let spec = SourceSpec {
            created_timestamps,
            ..spec("shop")
        };
        let state = SourceState::restored(spec, state, released).unwrap();
        let mut store = Store::new(Vec::new(), 0);
        let shown = store.reconfigure(vec![Next::New(Box::new(state))], 1_000_000, at(200_000));
        (store, Arc::clone(&shown.sources[0]))
    };
    let kept = keep(&bench);
    let (mut store, shown) = restored(&kept, true);
    assert_eq!(beginnings(&shown), expected, "another process, the same counters");
    assert_eq!(
        store.sources()[0].keep().unwrap().len(),
        kept.0.len(),
        "and it keeps them again"
    );

    // Nobody asks, and then somebody does: they were kept all the while.
    let (quiet, shown) = restored(&kept, false);
    assert_eq!(beginnings(&shown), (None, None, vec![None; 2]));
    let again = (quiet.sources()[0].keep().unwrap(), kept.1.clone());
    assert_eq!(beginnings(&restored(&again, true).1), expected);

    // What has been forgotten is 0 when it comes back, and began then.
    let later = 100_000 + 40 * 86_400;
    let end = |store: &mut Store, facts: Vec<Fact>, seconds: i64| {
        store.update(0, Update::Facts(facts), at(seconds), u64::MAX);
        let (result, at) = (RoundResult::Success, at(seconds));
        store.update(0, Update::RoundEnded { result, at }, at, u64::MAX)
    };
    end(&mut store, Vec::new(), later);
    let run = Run {
        ended: Some(at(later)),
        ..run(3, RunOutcome::Passed)
    };
    let shown = end(&mut store, vec![Fact::Run(run), result(3, "a", Passed)], later + 10).expect("published");
    let now = Some(at(later + 10));
    assert_eq!(beginnings(&shown.sources[0]), (now, now, vec![now]));
}

#[test]
fn what_a_ledger_does_not_know_the_beginning_of_tells_none() {
    let mut bench = telling_bench();
    bench.round(vec![passed(1), result(1, "a", Passed), active(&[])]);
    let state = &bench.store.sources()[0];
    // As they were written before beginnings were kept.
    let former = postcard::to_stdvec(&(state, state.appendix())).unwrap();
    let mut restored = SourceState::restored(state.spec().clone(), &former, &[0]).unwrap();
    let shown = restored.snapshot(at(bench.seconds), 1, 0, 1_000);
    assert_eq!(beginnings(&shown), (None, None, vec![None]));
    restored.apply(vec![passed(2), result(2, "b", Passed)], at(bench.seconds));
    let shown = restored.snapshot(at(bench.seconds), 1, 0, 1_000);
    assert_eq!(shown.cases[1].created, Some(at(bench.seconds)), "new ones do");
    // A later version may put more behind them; its ledger can be read again when it is taken back.
    let mut later = state.keep().unwrap();
    later.push(7);
    let mut restored = SourceState::restored(state.spec().clone(), &later, &[0]).unwrap();
    let shown = restored.snapshot(at(bench.seconds), 1, 0, 1_000);
    assert_eq!(shown.cases[0].created, Some(at(100_000)));
}

/// Every counter series, by a name that holds all of its labels.
pub(super) fn counters(snapshot: &SourceSnapshot) -> BTreeMap<String, f64> {
    let mut series = BTreeMap::new();
    let mut put = |name: String, values: &[u64]| {
        for (place, value) in values.iter().enumerate() {
            series.insert(format!("{name} {place}"), *value as f64);
        }
    };
    for row in &snapshot.groups {
        put(format!("runs {:?}", row.group), &row.runs);
        put(format!("cases {:?}", row.group), &row.cases);
        put(format!("duration {:?}", row.group), &row.duration.counts);
        put(format!("queue {:?}", row.group), &row.queue.counts);
    }
    for (environment, errors) in &snapshot.run_errors {
        put(format!("errors {environment}"), &errors.counts);
    }
    for row in &snapshot.cases {
        let name = format!("{:?} {}", row.group, row.case);
        put(format!("results {name}"), &row.counts.results);
        put(
            format!("rest {name}"),
            &[
                row.counts.retries,
                row.counts.duration_count,
                row.counts.duration_sum as u64,
            ],
        );
    }
    series
}

fn gauges(snapshot: &SourceSnapshot) -> String {
    let groups: Vec<_> = snapshot.groups.iter().map(|row| (&row.group, &row.last)).collect();
    let case = |row: &CaseRow| {
        format!(
            "{:?} {} {:?} {:?} {} {:?} {:?}",
            row.group, row.case, row.last, row.last_pass, row.consecutive_failures, row.failing_since, row.health
        )
    };
    let cases: Vec<_> = snapshot.cases.iter().map(case).collect();
    format!("{groups:#?} {cases:#?} {:#?}", snapshot.case_outcomes)
}

// ---- what the newest results say ----------------------------------------------------------------------------------------

/// A run in which so many passed and failed, on a commit of its own.
fn tested(id: u64, passed: u64, failed: u64) -> Fact {
    let mut run = run(id, RunOutcome::Failed);
    run.counts[Passed.index()] = Some(passed);
    run.counts[Failed.index()] = Some(failed);
    run.commit = Some(format!("of its own {id}").into());
    Fact::Run(run)
}

fn verdict(shown: &SourceSnapshot, case: &str) -> Verdict {
    let row = shown.cases.iter().find(|row| &*row.case == case).unwrap();
    row.health.as_ref().unwrap().verdict
}

/// Twenty runs that both cases pass, in suites of their own.
fn twenty_passes(bench: &mut Bench) {
    let info = |case: &str| {
        Fact::Case(CaseInfo {
            tags: None,
            case: case.into(),
            name: case.into(),
            suite: format!("suite of {case}").into(),
            file: "one file".into(),
        })
    };
    let mut facts = vec![info("a"), info("b")];
    for id in 1..=20 {
        facts.extend([tested(id, 20, 0), result(id, "a", Passed), result(id, "b", Passed)]);
    }
    bench.round(facts);
}

#[test]
fn a_case_that_fails_on_two_commits_is_regressed_since_the_first_of_them() {
    let mut bench = Bench::new();
    twenty_passes(&mut bench);
    let facts = |id| vec![tested(id, 19, 1), result(id, "a", Failed), result(id, "b", Passed)];
    let shown = bench.round(facts(21));
    assert_eq!(
        (verdict(&shown, "a"), verdict(&shown, "b")),
        (Verdict::Unknown, Verdict::Healthy)
    );
    let shown = bench.round(facts(22));
    assert_eq!(verdict(&shown, "a"), Verdict::Regressed);
    assert_eq!(shown.cases[0].failing_since, Some(at(21)));
    let counts = &shown.case_outcomes["prod"];
    assert_eq!(counts[Failed.index()][Verdict::Regressed.index()], 1);
    assert_eq!(counts[Passed.index()][Verdict::Healthy.index()], 1);
    let shown = bench.round(vec![tested(23, 20, 0), result(23, "a", Passed)]);
    assert_eq!(
        (verdict(&shown, "a"), shown.cases[0].failing_since),
        (Verdict::Healthy, None)
    );
}

#[test]
fn two_runs_in_which_everything_fails_say_nothing_and_a_third_one_says_it_of_all() {
    let mut bench = Bench::new();
    twenty_passes(&mut bench);
    let facts = |id| vec![tested(id, 2, 18), result(id, "a", Failed), result(id, "b", Failed)];
    for id in [21, 22] {
        let shown = bench.round(facts(id));
        assert_eq!(verdict(&shown, "a"), Verdict::Healthy);
        assert_eq!(verdict(&restored(&bench), "a"), Verdict::Healthy);
        assert_eq!(
            shown.cases[0].consecutive_failures,
            id - 20,
            "the streak counts what happened"
        );
    }
    let shown = bench.round(facts(23));
    assert_eq!(
        (verdict(&shown, "a"), verdict(&shown, "b")),
        (Verdict::Regressed, Verdict::Regressed)
    );
}

#[test]
fn a_run_of_one_suite_or_with_an_unknown_count_is_believed() {
    let mut bench = Bench::new();
    twenty_passes(&mut bench);
    // Only "a" fails as far as results tell: one suite.
    let facts = |id| vec![tested(id, 2, 18), result(id, "a", Failed), result(id, "b", Passed)];
    bench.round(facts(21));
    let shown = bench.round(facts(22));
    assert_eq!(verdict(&shown, "a"), Verdict::Regressed);
    // It turns out that "b" failed in the first of them: that one is spoilt, the second no longer sudden but alone.
    let shown = bench.round(vec![result(21, "b", Failed)]);
    assert_eq!(verdict(&shown, "a"), Verdict::Unknown);
}

#[test]
fn a_run_that_ended_in_an_error_says_nothing() {
    let mut bench = Bench::new();
    twenty_passes(&mut bench);
    let failed = |id, outcome| {
        let run = Run {
            commit: Some(format!("of its own {id}").into()),
            ..run(id, outcome)
        };
        vec![Fact::Run(run), result(id, "a", Failed)]
    };
    bench.round(failed(21, RunOutcome::Error));
    let shown = bench.round(failed(22, RunOutcome::Error));
    assert_eq!(verdict(&shown, "a"), Verdict::Healthy);
    // One of them is read again, as something else.
    let shown = bench.round(failed(21, RunOutcome::Failed));
    assert_eq!(verdict(&shown, "a"), Verdict::Unknown);
    let shown = bench.round(failed(22, RunOutcome::Failed));
    assert_eq!(verdict(&shown, "a"), Verdict::Regressed);
}

#[test]
fn a_round_without_news_judges_nobody_until_a_case_falls_quiet() {
    let mut bench = Bench::new();
    twenty_passes(&mut bench);
    let health = |shown: &SourceSnapshot| Arc::clone(shown.cases[0].health.as_ref().unwrap());
    let before = health(&bench.round(Vec::new()));
    assert!(Arc::ptr_eq(&before, &health(&bench.round(Vec::new()))));
    let again = bench.round(vec![tested(20, 20, 0), result(20, "a", Passed)]);
    assert!(Arc::ptr_eq(&before, &health(&again)), "what was read again is no news");
    // A result of another case is no news of this one, whatever its run.
    let shown = bench.round(vec![tested(21, 20, 0), result(21, "b", Passed)]);
    assert!(Arc::ptr_eq(&before, &health(&shown)));
    bench.seconds = 8 * 86_400;
    assert_eq!(verdict(&bench.round(Vec::new()), "a"), Verdict::Quiet);
}

#[test]
fn other_thresholds_hold_from_the_next_round_on() {
    let mut bench = Bench::new();
    twenty_passes(&mut bench);
    let facts = |id| vec![tested(id, 19, 1), result(id, "a", Failed)];
    bench.round(facts(21));
    assert_eq!(verdict(&bench.round(facts(22)), "a"), Verdict::Regressed);
    let mut patient = spec("shop");
    patient.health.regressed_commits = 3;
    let known = Next::Known {
        place: 0,
        spec: Box::new(patient),
    };
    bench.store.reconfigure(vec![known], 1_000_000, at(bench.seconds));
    assert_eq!(verdict(&bench.round(Vec::new()), "a"), Verdict::Unknown);
}

/// A history after a baseline: original facts, then edited ones. Run 1 and 2 are baseline, 3 and 5 were active then.
#[derive(Debug, Clone)]
struct History {
    original: Vec<Fact>,
    edited: Vec<Fact>,
}

fn histories() -> impl Strategy<Value = History> {
    let outcome = || prop::sample::select(CaseOutcome::ALL);
    let one_run = (
        0..4_usize,
        prop::sample::select(RunOutcome::ALL),
        0..20_i64,
        prop::collection::vec(prop::option::of(outcome()), 4),
    );
    let edit = (
        any::<bool>(),
        0..20_i64,
        prop::collection::vec(prop::option::of(outcome()), 4),
    );
    prop::collection::vec((one_run, edit), 12).prop_map(|runs| {
        let mut history = History {
            original: Vec::new(),
            edited: Vec::new(),
        };
        for (id, ((place, outcome, ended, results), (edit, moved, changed))) in (1_u64..).zip(runs) {
            let group = group(["prod", "stage"][place / 2], ["main", OTHER][place % 2]);
            let mut original = Run {
                group,
                ended: Some(at(ended)),
                ..run(id, outcome)
            };
            // Some are outages, if their failures are of two cases.
            original.counts[Passed.index()] = Some(20);
            original.counts[Failed.index()] = Some(if ended % 3 == 0 { 60 } else { 1 });
            history.original.push(Fact::Run(original.clone()));
            for (case, (before, after)) in results.iter().zip(changed).enumerate() {
                let Some(before) = before else { continue };
                history.original.push(result(id, &case.to_string(), *before));
                if let Some(after) = after.filter(|_| edit) {
                    history.edited.push(result(id, &case.to_string(), after));
                }
            }
            if edit {
                history.edited.push(Fact::Run(Run {
                    ended: Some(at(moved)),
                    outcome: RunOutcome::Failed,
                    ..original
                }));
            }
        }
        history
    })
}

/// A way of telling a history: an order, repetitions, and where rounds end and how.
type Telling = (Vec<(prop::sample::Index, u8)>, Vec<prop::sample::Index>);

fn tellings() -> impl Strategy<Value = Telling> {
    let step = (any::<prop::sample::Index>(), 0..10_u8);
    (
        prop::collection::vec(step, 40..120),
        prop::collection::vec(any::<prop::sample::Index>(), 200),
    )
}

/// The facts shuffled; every one at least once, some more often.
fn shuffled(facts: &[Fact], swaps: &[prop::sample::Index], again: &[(prop::sample::Index, u8)]) -> Vec<Fact> {
    if facts.is_empty() {
        return Vec::new();
    }
    let mut told = facts.to_vec();
    told.extend(again.iter().map(|(place, _)| facts[place.index(facts.len())].clone()));
    for (here, there) in swaps.iter().enumerate() {
        let len = told.len();
        told.swap(here % len, there.index(len));
    }
    told
}

/// Tells a history and returns every snapshot that a scrape saw, the last one with everything released.
fn tell(history: &History, (steps, swaps): &Telling) -> Vec<Arc<SourceSnapshot>> {
    let mut bench = Bench::new();
    let baseline = history
        .original
        .iter()
        .filter(|fact| matches!(fact, Fact::Run(run) if run.id <= 2))
        .cloned();
    bench.facts(baseline.chain([active(&[3, 5])]).collect());
    bench.end(RoundResult::Success);
    let mut seen = Vec::new();
    let mut scrape = |bench: &mut Bench| {
        let published = Arc::clone(bench.store.sources()[0].published().expect("published"));
        seen.push(published);
        bench.scrape();
    };
    let told = [
        shuffled(&history.original, swaps, steps),
        shuffled(&history.edited, swaps, steps),
    ]
    .concat();
    for (place, fact) in told.into_iter().enumerate() {
        bench.facts(vec![fact]);
        match steps[place % steps.len()].1 {
            0 | 1 => drop(bench.end(RoundResult::Success)),
            2 => assert!(bench.end(RoundResult::ServerError).is_none()),
            3 | 4 => scrape(&mut bench),
            _ => {}
        }
        if place % 8 == 0 {
            scrape(&mut bench);
        }
    }
    for _ in 0..2 {
        bench.end(RoundResult::Success);
        scrape(&mut bench);
        scrape(&mut bench);
    }
    let last = seen.last().expect("published");
    assert_eq!(
        gauges(&restored(&bench)),
        gauges(last),
        "a restored ledger says the same"
    );
    seen
}

/// What the next process shows first.
fn restored(bench: &Bench) -> Arc<SourceSnapshot> {
    let state = &bench.store.sources()[0];
    let (kept, released) = (state.keep().unwrap(), state.keep_released().unwrap());
    let state = SourceState::restored(state.spec().clone(), &kept, &released).unwrap();
    let next = vec![Next::New(Box::new(state))];
    let shown = Store::new(Vec::new(), 1_000_000).reconfigure(next, 1_000_000, at(bench.seconds));
    Arc::clone(&shown.sources[0])
}

/// What is to be counted of a history, counted in the plainest way.
fn truth(history: &History) -> (u64, u64) {
    let counted = |id: u64| id > 5 || id == 3 || id == 5;
    let runs = history
        .original
        .iter()
        .filter(|fact| matches!(fact, Fact::Run(run) if counted(run.id)))
        .count();
    let results = history
        .original
        .iter()
        .filter(|fact| matches!(fact, Fact::Result(result) if counted(result.run)))
        .count();
    (runs as u64, results as u64)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_telling_of_a_history_gives_the_same_numbers(history in histories(), one in tellings(), other in tellings()) {
        let (one, other) = (tell(&history, &one), tell(&history, &other));
        let (one, other) = (one.last().unwrap(), other.last().unwrap());
        prop_assert_eq!((runs_counted(one), results_counted(one)), truth(&history));
        prop_assert_eq!(counters(one), counters(other));
        prop_assert_eq!(gauges(one), gauges(other));
    }

    #[test]
    fn a_scraper_sees_every_series_at_zero_first_and_never_fall(history in histories(), telling in tellings()) {
        let mut known: BTreeMap<String, f64> = BTreeMap::new();
        for snapshot in tell(&history, &telling) {
            for (series, value) in counters(&snapshot) {
                let before = known.insert(series.clone(), value);
                prop_assert!(before.is_some() || value == 0.0, "{} begins at {}", series, value);
                prop_assert!(before.is_none_or(|before| before <= value), "{} falls to {}", series, value);
            }
        }
    }
}
