//! A history under two ids, and the same one under one id.

use jiff::Timestamp;
use proptest::prelude::*;

use crate::model::{CaseInfo, CaseOutcome, CaseResult, Fact, Group, Name, RoundResult, Run, RunOutcome};
use crate::store::tests::spec;
use crate::store::{CaseRow, SourceState};

fn at(minute: i64) -> Timestamp {
    Timestamp::from_second(1_795_300_000 + 60 * minute).unwrap()
}

fn group() -> Group {
    Group {
        environment: "prod".into(),
        branch: "main".into(),
    }
}

fn run(id: u64) -> Fact {
    Fact::Run(Run {
        id,
        group: group(),
        outcome: RunOutcome::Passed,
        error_code: None,
        created: None,
        started: None,
        ended: Some(at(id.cast_signed())),
        duration_seconds: None,
        counts: Default::default(),
        commit: None,
        build_url: None,
    })
}

fn result(run: u64, case: &str, outcome: CaseOutcome) -> Fact {
    Fact::Result(CaseResult {
        run,
        case: case.into(),
        outcome,
        executed: None,
        duration_seconds: None,
        retries: None,
        failure_signature: None,
    })
}

fn text(case: &str, name: &str) -> Fact {
    Fact::Case(CaseInfo {
        case: case.into(),
        name: name.into(),
        suite: "suite".into(),
        file: "a.spec.ts".into(),
        tags: None,
    })
}

fn restarted(state: &SourceState) -> SourceState {
    let (kept, released) = (state.keep().unwrap(), state.keep_released().unwrap());
    SourceState::restored(state.spec().clone(), &kept, &released).unwrap()
}

/// The row of a case after a good round.
fn row(state: &mut SourceState, case: &str, minute: i64) -> CaseRow {
    assert!(state.round_ended(RoundResult::Success, at(minute)));
    let snapshot = state.snapshot(at(minute), 1, 1, usize::MAX);
    let row = snapshot.cases.iter().find(|row| *row.case == *case);
    row.unwrap_or_else(|| panic!("{case} is not shown")).clone()
}

/// Results of cases by run, one round a run; all cases are called the same. Gives the streak of the case in the end.
fn streak(results: &[&[(&str, CaseOutcome)]], case: &str) -> u64 {
    let mut state = SourceState::new(spec("shop"));
    for (id, results) in (1..).zip(results) {
        let mut facts = vec![run(id)];
        facts.extend(
            results
                .iter()
                .flat_map(|(case, outcome)| [text(case, "title"), result(id, case, *outcome)]),
        );
        state.apply(facts, at(id.cast_signed()));
        assert!(state.round_ended(RoundResult::Success, at(id.cast_signed())));
        state = restarted(&state);
    }
    row(&mut state, case, 100).consecutive_failures
}

use CaseOutcome::{Failed, Passed};

#[test]
fn a_renamed_case_goes_on_and_a_chain_of_renames_does() {
    assert_eq!(streak(&[&[("a", Failed)], &[("a", Failed)], &[("b", Failed)]], "b"), 3);
    assert_eq!(streak(&[&[("a", Failed)], &[("b", Failed)], &[("c", Failed)]], "c"), 3);
    assert_eq!(streak(&[&[("a", Failed)], &[("b", Passed)], &[("c", Failed)]], "c"), 1);
    assert_eq!(
        streak(&[&[("a", Failed)], &[("b", Failed)]], "a"),
        1,
        "the old one stands still"
    );
}

#[test]
fn nothing_goes_on_where_it_is_not_clear_what() {
    let two_stopped: &[&[_]] = &[&[("a", Failed), ("b", Failed)], &[("c", Failed)]];
    assert_eq!(streak(two_stopped, "c"), 1);
    let two_appear: &[&[_]] = &[&[("a", Failed)], &[("b", Failed), ("c", Failed)]];
    assert_eq!((streak(two_appear, "b"), streak(two_appear, "c")), (1, 1));
    let later: &[&[_]] = &[&[("a", Failed)], &[("b", Failed)], &[("b", Failed), ("c", Failed)]];
    assert_eq!(
        (streak(later, "b"), streak(later, "c")),
        (3, 1),
        "it is continued already"
    );
    let runs_on: &[&[_]] = &[&[("a", Failed)], &[("a", Failed), ("b", Failed)]];
    assert_eq!(streak(runs_on, "b"), 1);
}

#[test]
fn a_case_that_had_not_stopped_after_all_is_continued_no_longer() {
    let late: &[&[_]] = &[&[("a", Failed)], &[("b", Failed)], &[("a", Failed), ("b", Failed)]];
    assert_eq!(streak(&late[..2], "b"), 2);
    assert_eq!(streak(late, "b"), 2, "its own two");
}

#[test]
fn counters_belong_to_ids_and_a_case_of_another_text_is_another_case() {
    let mut state = SourceState::new(spec("shop"));
    state.round_ended(RoundResult::Success, at(0));
    let facts = [run(1), text("a", "title"), result(1, "a", Failed)];
    state.apply(facts.to_vec(), at(1));
    row(&mut state, "a", 1);
    let facts = [
        run(2),
        text("b", "title"),
        text("c", "another"),
        result(2, "b", Failed),
        result(2, "c", Failed),
    ];
    state.apply(facts.to_vec(), at(2));
    let b = row(&mut state, "b", 2);
    assert_eq!(b.consecutive_failures, 2);
    state.snapshot(at(3), 2, 2, usize::MAX);
    let b = row(&mut state, "b", 3);
    assert_eq!(b.counts.results[Failed.index()], 1);
    assert_eq!(row(&mut state, "c", 3).consecutive_failures, 1);
}

#[test]
fn what_a_case_was_is_remembered_for_as_long_as_the_case_is() {
    let day = 24 * 60;
    let mut state = SourceState::new(spec("shop"));
    let passed = Fact::Run(Run {
        ended: Some(at(0)),
        ..match run(1) {
            Fact::Run(run) => run,
            _ => unreachable!(),
        }
    });
    state.apply(vec![passed, text("a", "title"), result(1, "a", Passed)], at(0));
    row(&mut state, "a", 1);
    for week in 1..10_u64 {
        let id = 7 * 24 * 60 * week;
        state.apply(
            vec![run(id), text("b", "title"), result(id, "b", Failed)],
            at(id.cast_signed()),
        );
        let b = row(&mut state, "b", id.cast_signed());
        assert_eq!(
            (b.consecutive_failures, b.last_pass),
            (week, Some(at(0))),
            "week {week}"
        );
        state = restarted(&state);
    }
    state.apply(vec![], at(400 * day));
    assert!(state.round_ended(RoundResult::Success, at(400 * day)));
    assert_eq!(state.case_rows(), 0, "both are forgotten together");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Batches are rounds: within one, facts come in any order. Other cases come and go beside them.
    #[test]
    fn a_history_under_several_ids_reads_like_one(
        outcomes in prop::collection::vec(prop::sample::select(CaseOutcome::ALL), 2..90),
        renames in prop::collection::btree_set(1..90_usize, 0..4),
        batches in prop::collection::vec(1..6_usize, 90),
        shuffles in prop::collection::vec(any::<u64>(), 90),
        restarts in prop::collection::vec(prop::bool::weighted(0.2), 90),
    ) {
        let ids: Vec<Name> = (0..outcomes.len())
            .map(|place| format!("id {}", renames.iter().filter(|rename| **rename <= place).count()).into())
            .collect();
        let (mut one, mut many) = (SourceState::new(spec("one")), SourceState::new(spec("many")));
        let mut place = 0;
        for ((batch, shuffle), restart) in batches.into_iter().zip(shuffles).zip(restarts) {
            let until = (place + batch).min(outcomes.len());
            if until == place {
                break;
            }
            let (mut of_one, mut of_many) = (Vec::new(), Vec::new());
            for at in place..until {
                let id = 1 + at as u64;
                of_one.extend([run(id), text("same", "title"), result(id, "same", outcomes[at])]);
                of_many.extend([run(id), text(&ids[at], "title"), result(id, &ids[at], outcomes[at])]);
                of_many.extend([text("beside", "other"), result(id, "beside", Failed)]);
            }
            let turn = usize::try_from(shuffle % of_many.len() as u64).unwrap();
            of_many.rotate_left(turn);
            place = until;
            let minute = until.cast_signed() as i64;
            one.apply(of_one, at(minute));
            many.apply(of_many, at(minute));
            let (one_row, many_row) = (row(&mut one, "same", minute), row(&mut many, &ids[until - 1], minute));
            prop_assert_eq!(many_row.consecutive_failures, one_row.consecutive_failures);
            prop_assert_eq!(many_row.last_pass, one_row.last_pass);
            prop_assert_eq!(many_row.failing_since, one_row.failing_since);
            prop_assert_eq!(many_row.last, one_row.last);
            prop_assert_eq!(many_row.health, one_row.health);
            if restart {
                many = restarted(&many);
            }
        }
    }
}
