//! Histories at random, judged twice: by the store, and by whoever has written them.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use regex::Regex;

use crate::model::{
    CaseInfo, CaseOutcome, CaseResult, Condition, Fact, Group, Name, RoundResult, Run, RunOutcome, Snooze, Unread,
};
use crate::promotion::{Settings, is_fresh, is_promotable};
use crate::store::tests::spec;
use crate::store::{Promotion, SourceState};

const CASES: usize = 4;
const MAX_AGE: SignedDuration = SignedDuration::from_hours(4);
const STALE_AFTER: SignedDuration = SignedDuration::from_mins(15);

fn at(minute: i64) -> Timestamp {
    Timestamp::from_second(1_795_300_000 + 60 * minute).unwrap()
}

fn case(index: usize) -> Name {
    format!("c{index}").into()
}

fn gate(required: &[&str]) -> Settings {
    Settings {
        branches: vec!["main".into()],
        run_max_age: MAX_AGE,
        required: required.iter().map(|rule| Regex::new(rule).unwrap()).collect(),
        all_cases: true,
    }
}

fn state(required: &[&str]) -> SourceState {
    let mut spec = spec("shop");
    spec.promotion = Some(gate(required));
    SourceState::new(spec)
}

/// A run that has happened, whatever is known of it.
#[derive(Debug, Clone)]
struct TrueRun {
    id: u64,
    ended: i64,
    is_main: bool,
    outcome: RunOutcome,
    tells_counts: bool,
    results: Vec<Option<CaseOutcome>>,
}

impl TrueRun {
    fn passed(id: u64, ended: i64) -> Self {
        Self {
            id,
            ended,
            is_main: true,
            outcome: RunOutcome::Passed,
            tells_counts: true,
            results: vec![Some(CaseOutcome::Passed); CASES],
        }
    }

    fn with(self, index: usize, outcome: CaseOutcome) -> Self {
        let mut changed = self;
        changed.results[index] = Some(outcome);
        if outcome.is_failure() {
            changed.outcome = RunOutcome::Failed;
        }
        changed
    }

    fn group(&self) -> Group {
        Group {
            environment: "prod".into(),
            branch: if self.is_main { "main" } else { "__other__" }.into(),
        }
    }

    fn fact(&self) -> Fact {
        let count = |wanted: &[CaseOutcome]| {
            let found = self.results.iter().flatten().filter(|outcome| wanted.contains(outcome));
            self.tells_counts.then_some(found.count() as u64)
        };
        Fact::Run(Run {
            id: self.id,
            group: self.group(),
            outcome: self.outcome,
            error_code: None,
            created: None,
            started: None,
            ended: Some(at(self.ended)),
            duration_seconds: None,
            counts: [
                count(&[CaseOutcome::Passed, CaseOutcome::Flaky]),
                count(&[CaseOutcome::Failed]),
                count(&[CaseOutcome::Flaky]),
                count(&[CaseOutcome::Skipped]),
                count(&[CaseOutcome::MissingOutput]),
                None,
            ],
            commit: None,
            build_url: None,
        })
    }

    fn result(&self, index: usize) -> Option<Fact> {
        Some(Fact::Result(CaseResult {
            run: self.id,
            case: case(index),
            outcome: self.results[index]?,
            executed: None,
            duration_seconds: None,
            retries: None,
            failure_signature: None,
        }))
    }

    fn whole(&self) -> Vec<Fact> {
        let results = (0..CASES).filter_map(|index| self.result(index));
        std::iter::once(self.fact()).chain(results).collect()
    }
}

fn snooze(cases: &[usize], until: i64) -> Snooze {
    Snooze {
        cases: cases.iter().map(|index| case(*index)).collect(),
        environment: Some("prod".into()),
        until: at(until),
    }
}

/// A good round at this minute, and what it publishes.
fn publish(state: &mut SourceState, facts: Vec<Fact>, minute: i64) -> Promotion {
    state.apply(facts, at(minute));
    assert!(state.round_ended(RoundResult::Success, at(minute)));
    // No room for any case: what is judged is what is known.
    state.snapshot(at(minute), 1, 0, 0).promotion.clone()
}

/// The conditions that hold in the one environment.
fn blocked(promotion: &Promotion, minute: i64) -> Vec<&'static str> {
    let [standing] = &promotion.standings[..] else {
        panic!("{promotion:?}");
    };
    let blocked = standing.blocked(at(minute), is_fresh(promotion.as_of, STALE_AFTER, at(minute)));
    let holds = |condition: &&Condition| blocked[condition.index()];
    Condition::ALL.iter().filter(holds).map(|it| it.label()).collect()
}

fn check(required: &[&str], facts: Vec<Fact>, expected: &[&str]) {
    let mut state = state(required);
    let promotion = publish(&mut state, facts, 100);
    assert_eq!(blocked(&promotion, 101), expected);
}

#[test]
fn a_fresh_run_that_is_known_whole_and_passed_may_be_promoted() {
    check(&[], TrueRun::passed(1, 90).whole(), &[]);
    check(
        &["^c0$", "c[12]"],
        TrueRun::passed(1, 90).with(3, CaseOutcome::Skipped).whole(),
        &[],
    );
    let flaky = TrueRun::passed(1, 90).with(2, CaseOutcome::Flaky);
    check(&[], flaky.whole(), &[]);
}

#[test]
fn what_failed_last_blocks_be_it_in_an_older_run() {
    let failed = TrueRun::passed(1, 80).with(2, CaseOutcome::Failed);
    check(&[], failed.whole(), &["run_not_passed", "case_failing"]);
    let mut partial = TrueRun::passed(2, 90);
    partial.results[2] = None;
    let both = [failed.whole(), partial.whole()].concat();
    check(&[], both, &["case_failing"]);
    let both = [failed.whole(), TrueRun::passed(2, 90).whole()].concat();
    check(&[], both, &[]);
    let elsewhere = TrueRun {
        is_main: false,
        ..TrueRun::passed(2, 90).with(2, CaseOutcome::Failed)
    };
    check(&[], [TrueRun::passed(1, 80).whole(), elsewhere.whole()].concat(), &[]);
}

#[test]
fn a_failing_case_that_goes_on_under_another_id_is_judged_under_both() {
    let text = |case: &str| {
        Fact::Case(CaseInfo {
            case: case.into(),
            name: "title".into(),
            suite: "".into(),
            file: "a.spec.ts".into(),
            tags: None,
        })
    };
    let mut state = state(&[]);
    let failed = TrueRun::passed(1, 80).with(2, CaseOutcome::Failed);
    publish(&mut state, [failed.whole(), vec![text("c2")]].concat(), 85);
    let mut renamed = TrueRun::passed(2, 90);
    renamed.results[2] = None;
    let mut facts = renamed.whole();
    let Some(Fact::Result(result)) = TrueRun::passed(2, 90).result(2) else {
        panic!("a run without results");
    };
    facts.extend([
        text("new"),
        Fact::Result(CaseResult {
            case: "new".into(),
            ..result
        }),
    ]);
    let promotion = publish(&mut state, facts, 100);
    assert_eq!(blocked(&promotion, 101), ["case_failing"]);
}

#[test]
fn a_snoozed_failure_blocks_nothing_until_its_snooze_is_over() {
    let failed = TrueRun::passed(1, 80).with(2, CaseOutcome::Failed);
    let with = |snoozes: Vec<Snooze>| [failed.whole(), vec![Fact::Snoozes(Some(snoozes))]].concat();
    check(&[], with(vec![snooze(&[2], 200)]), &[]);
    check(&[], with(vec![snooze(&[2], 100)]), &["run_not_passed", "case_failing"]);
    check(&[], with(vec![snooze(&[1], 200)]), &["run_not_passed", "case_failing"]);
    let nobody_knows = [failed.whole(), vec![Fact::Snoozes(None)]].concat();
    check(&[], nobody_knows, &["run_not_passed", "case_failing"]);
}

#[test]
fn a_failure_that_is_not_required_blocks_nothing_and_one_that_is_unknown_does() {
    let failed = TrueRun::passed(1, 80).with(2, CaseOutcome::Failed);
    check(&["c0"], failed.whole(), &[]);
    let mut facts = failed.whole();
    facts.remove(3);
    check(&["c0"], facts, &["run_not_passed", "partial"]);
}

#[test]
fn a_case_that_is_required_by_name_has_to_pass_and_to_have_done_so_lately() {
    check(&["c0", "nobody"], TrueRun::passed(1, 90).whole(), &["case_missing"]);
    let skipped = TrueRun::passed(1, 90).with(0, CaseOutcome::Skipped);
    check(&["c0"], skipped.whole(), &["case_missing"]);
    let mut later = TrueRun::passed(2, 290);
    later.results[0] = None;
    let mut state = state(&["c0"]);
    let promotion = publish(
        &mut state,
        [TrueRun::passed(1, 60).whole(), later.whole()].concat(),
        295,
    );
    assert_eq!(blocked(&promotion, 299), [] as [&str; 0]);
    assert_eq!(
        blocked(&promotion, 300),
        ["case_missing"],
        "the time of a scrape decides"
    );
}

#[test]
fn what_is_not_read_and_what_cannot_be_read_is_partial() {
    let run = TrueRun::passed(1, 90);
    let unread = |runs: Vec<(u64, Group)>, elsewhere: bool| Fact::Unread(Unread { runs, elsewhere });
    let with = |fact: Fact| [run.whole(), vec![fact]].concat();
    check(&[], with(unread(vec![(2, run.group())], false)), &["partial"]);
    check(&[], with(unread(vec![], true)), &["partial"]);
    let nowhere = Group {
        environment: "".into(),
        branch: "main".into(),
    };
    check(&[], with(unread(vec![(2, nowhere)], false)), &["partial"]);
    let other = |environment: &str, branch: &str| Group {
        environment: environment.into(),
        branch: branch.into(),
    };
    check(&[], with(unread(vec![(2, other("staging", "main"))], false)), &[]);
    check(&[], with(unread(vec![(2, other("prod", "__other__"))], false)), &[]);
    check(&[], run.whole()[..4].to_vec(), &["partial"]);
    let uncounted = TrueRun {
        tells_counts: false,
        ..run.clone()
    };
    check(&[], uncounted.whole(), &["partial", "case_missing"]);
    let empty = TrueRun {
        results: vec![None; CASES],
        ..run
    };
    check(&[], empty.whole(), &["case_missing"]);
}

#[test]
fn a_failure_that_a_run_counts_and_no_history_shows_is_partial() {
    let failed = || TrueRun::passed(1, 0).with(3, CaseOutcome::Failed);
    // Read at the first meeting: the run, and the history of one of its cases.
    let hidden = || [failed().fact(), failed().result(0).unwrap()];
    let smaller = TrueRun {
        results: vec![Some(CaseOutcome::Passed), None, None, None],
        ..TrueRun::passed(2, 10)
    };
    let with = |run: &TrueRun| hidden().into_iter().chain(run.whole()).collect::<Vec<_>>();
    check(&[], with(&smaller), &["partial"]);
    let passed = TrueRun::passed(2, 10);
    check(&[], with(&passed), &[]);
    // What has not failed hides nothing, and what is known hides nothing either.
    let whole = failed().whole().into_iter().chain(smaller.whole()).collect();
    check(&[], whole, &["case_failing"]);
    let unread = TrueRun::passed(1, 0).fact();
    check(&[], [unread].into_iter().chain(smaller.whole()).collect(), &[]);
    // It is too old to be a reason in the end; a suite that does not come back would shut the gate for a month.
    let mut state = state(&[]);
    publish(&mut state, with(&smaller), 12);
    let later = TrueRun {
        ended: 300,
        id: 3,
        ..smaller
    };
    let promotion = publish(&mut state, later.whole(), 301);
    assert_eq!(blocked(&promotion, 301), [] as [&str; 0]);
}

#[test]
fn time_alone_makes_it_overdue_and_stale() {
    let mut state = state(&[]);
    let promotion = publish(&mut state, TrueRun::passed(1, 90).whole(), 325);
    assert_eq!(blocked(&promotion, 329), [] as [&str; 0]);
    assert_eq!(blocked(&promotion, 330), ["run_overdue"]);
    assert_eq!(blocked(&promotion, 340), ["stale", "run_overdue"]);
}

#[test]
fn what_was_restored_or_judged_by_other_rules_is_stale_or_absent_until_the_next_round() {
    let mut before = state(&[]);
    publish(&mut before, TrueRun::passed(1, 90).whole(), 100);
    let kept = (before.keep().unwrap(), before.keep_released().unwrap());
    let mut restored = SourceState::restored(before.spec().clone(), &kept.0, &kept.1).unwrap();
    let shown = restored.snapshot(at(101), 1, 0, 0).promotion.clone();
    assert_eq!(blocked(&shown, 101), ["stale"]);
    assert_eq!(blocked(&publish(&mut restored, vec![], 102), 102), [] as [&str; 0]);

    let mut spec = before.spec().clone();
    before.respecify(spec.clone());
    assert_eq!(
        before.published().unwrap().promotion.standings.len(),
        1,
        "nothing has changed"
    );
    spec.promotion = Some(gate(&["c0"]));
    before.respecify(spec);
    let published = Arc::clone(before.published().unwrap());
    assert!(published.promotion.standings.is_empty() && published.promotion.as_of.is_none());
}

/// One step of a history: minutes since the last one, what happened, and what of it is told when.
#[derive(Debug, Clone)]
struct Step {
    minutes: i64,
    run: Option<(TrueRun, Vec<usize>)>,
    snooze: Option<(usize, i64)>,
    succeeds: bool,
}

/// Later than any history goes.
const NEVER: usize = 1_000;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let result = prop_oneof![
        2 => Just(None),
        12 => Just(Some(CaseOutcome::Passed)),
        3 => prop::sample::select(CaseOutcome::ALL).prop_map(Some),
    ];
    let ends = prop_oneof![
        12 => Just(RunOutcome::Passed),
        1 => Just(RunOutcome::Error),
        1 => Just(RunOutcome::Cancelled),
    ];
    let delay = prop_oneof![20 => Just(0_usize), 2 => 1..3_usize, 1 => Just(NEVER)];
    let run = (
        prop::collection::vec(result, CASES),
        ends,
        prop::collection::vec(delay, CASES),
        prop_oneof![4 => Just(0_i64), 1 => 0..90_i64],
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.95),
    );
    let run = run.prop_map(|(results, ends, delays, late, is_main, tells_counts)| {
        let failed = results.iter().flatten().any(|outcome| outcome.is_failure());
        let outcome = if ends == RunOutcome::Passed && failed {
            RunOutcome::Failed
        } else {
            ends
        };
        let run = TrueRun {
            id: 0,
            ended: -late,
            is_main,
            outcome,
            tells_counts,
            results,
        };
        (run, delays)
    });
    let step = (
        1..40_i64,
        prop::option::weighted(0.7, run),
        prop::option::weighted(0.2, (0..CASES, 1..200_i64)),
        prop::bool::weighted(0.9),
    );
    let step = step.prop_map(|(minutes, run, snooze, succeeds)| Step {
        minutes,
        run,
        snooze,
        succeeds,
    });
    prop::collection::vec(step, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// `lies`: the source does not say that results of the newest run are still to come; the run's own counts do.
    #[test]
    fn promotable_implies_fresh_complete_and_passing(
        steps in steps(), lies in any::<bool>(), named in any::<bool>(), look in 0..20_i64,
    ) {
        let mut state = state(if named { &["^c0$"] } else { &[] });
        let (mut now, mut runs, mut snoozes) = (1_000, Vec::<(TrueRun, Vec<usize>)>::new(), Vec::new());
        for (place, step) in steps.into_iter().enumerate() {
            now += step.minutes;
            let mut facts = Vec::new();
            if let Some((mut run, delays)) = step.run {
                run.id = 1 + place as u64;
                run.ended += now;
                facts.push(run.fact());
                // No count that is compared tells of these: who lies about them is not found out.
                let is_uncounted =
                    |index: usize| matches!(run.results[index], Some(CaseOutcome::Unknown | CaseOutcome::Skipped));
                let delays = delays.into_iter().enumerate();
                let told_at = delays
                    .map(|(index, delay)| place + if lies && is_uncounted(index) { 0 } else { delay })
                    .collect();
                runs.push((run, told_at));
            }
            for (run, told_at) in &runs {
                facts.extend((0..CASES).filter(|index| told_at[*index] == place).filter_map(|index| run.result(index)));
            }
            if let Some((index, minutes)) = step.snooze {
                snoozes.push((index, now + minutes));
                let told = snoozes.iter().map(|(index, until)| snooze(&[*index], *until)).collect();
                facts.push(Fact::Snoozes(Some(told)));
            }
            let newest = runs.iter().filter(|(run, _)| run.is_main).max_by_key(|(run, _)| (run.ended, run.id));
            let newest = newest.map(|(run, _)| run.clone());
            let waits = |(run, told_at): &&(TrueRun, Vec<usize>)| {
                let is_hidden = lies && newest.as_ref().is_some_and(|newest| newest.id == run.id);
                !is_hidden && (0..CASES).any(|index| run.results[index].is_some() && told_at[index] > place)
            };
            let unread = runs.iter().filter(waits).map(|(run, _)| (run.id, run.group())).collect();
            facts.push(Fact::Unread(Unread { runs: unread, elsewhere: false }));
            state.apply(facts, at(now));
            let result = if step.succeeds { RoundResult::Success } else { RoundResult::Unreachable };
            if !state.round_ended(result, at(now)) {
                continue;
            }
            let promotion = state.snapshot(at(now), 1, 0, 0).promotion.clone();
            let moment = now + look;
            let is_open = promotion.standings.iter().any(|standing| {
                let fresh = is_fresh(promotion.as_of, STALE_AFTER, at(moment));
                is_promotable(&standing.blocked(at(moment), fresh))
            });
            if !is_open {
                continue;
            }
            prop_assert!(at(moment).duration_since(at(now)) < STALE_AFTER, "stale");
            let newest = newest.expect("nothing can be promoted without a run");
            let told_at = &runs.iter().find(|(run, _)| run.id == newest.id).unwrap().1;
            prop_assert!(at(moment).duration_since(at(newest.ended)) < MAX_AGE, "overdue: {newest:?}");
            let is_snoozed = |index: usize| snoozes.iter().any(|(case, until)| *case == index && *until > moment);
            prop_assert!(matches!(newest.outcome, RunOutcome::Passed | RunOutcome::Failed), "{newest:?}");
            for (index, told_at) in told_at.iter().enumerate() {
                let is_told = |outcome: CaseOutcome| outcome == CaseOutcome::Skipped || *told_at <= place;
                prop_assert!(newest.results[index].is_none_or(is_told), "incomplete: {newest:?}");
                let mut main: Vec<&TrueRun> = runs.iter().map(|(run, _)| run).filter(|run| run.is_main).collect();
                main.sort_by_key(|run| (run.ended, run.id));
                let last = main.iter().rev().find_map(|run| Some((run.results[index]?, run.ended)));
                let is_required = !named || index == 0;
                let Some((outcome, ended)) = last.filter(|_| is_required && !is_snoozed(index)) else {
                    prop_assert!(!named || index != 0 || is_snoozed(0), "the case that is named has never run");
                    continue;
                };
                let fits = if named { outcome.is_pass() } else { outcome.is_pass() || outcome == CaseOutcome::Skipped };
                prop_assert!(fits, "case {index} ended as {outcome:?}");
                prop_assert!(!named || at(moment).duration_since(at(ended)) < MAX_AGE, "case {index} passed long ago");
            }
        }
    }
}
