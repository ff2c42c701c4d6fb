//! Sharing the room, and what must hold however little of it there is.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::model::{Fact, Group, Name, OTHER, RoundResult, Run, RunOutcome, Update};
use crate::store::tests::{at, case_series, counted_as, counters, group, result, room_for, run, spec};
use crate::store::{Next, Snapshot, SourceSnapshot, SourceSpec, SourceState, Store};
use CaseOutcome::{Failed, Passed};

#[test]
fn modest_sources_get_what_they_need_and_the_others_share_the_rest() {
    let step = 64 * SERIES_PER_CASE;
    assert_eq!(shares(&[], 100), Vec::<usize>::new());
    assert_eq!(shares(&[5 * step], 3 * step), [3 * step]);
    assert_eq!(shares(&[9 * step, 8 * step], 10 * step), [5 * step, 5 * step]);
    assert_eq!(
        shares(&[9 * step, step, 7 * step], 10 * step + 1),
        [4 * step + step / 2 + 1, step, 4 * step + step / 2]
    );
    assert_eq!(
        shares(&[9 * step, step - 5], 4 * step),
        shares(&[9 * step, step - 6], 4 * step)
    );
}

#[test]
fn shares_never_exceed_the_whole() {
    for whole in [0, 1, 14, 1_000, 100_000] {
        for needs in [&[1, 2, 3][..], &[100_000, 1], &[0, 0], &[5_000; 30]] {
            assert!(shares(needs, whole).iter().sum::<usize>() <= whole, "{needs:?} {whole}");
        }
    }
}

#[test]
fn sums_of_the_others_wait_for_cases_that_nobody_has_seen_and_for_nothing_else() {
    use Other::{IsThere, Needed, NeededIfFolded, NotNeeded};
    let check = |allowed: usize, cases: usize, unseen: usize, needs: &[Other], slots_for: usize, others: &[bool]| {
        let expected = Slots {
            cases: slots_for,
            others: others.to_vec(),
        };
        assert_eq!(
            slots(allowed, Width::of(false), cases, unseen, needs),
            expected,
            "{allowed} {cases} {unseen} {needs:?}"
        );
    };
    let two = 2 * SERIES_PER_CASE;
    check(two, 2, 2, &[NeededIfFolded], 2, &[false]);
    check(two, 3, 0, &[NeededIfFolded], 1, &[true]);
    check(two, 3, 2, &[NeededIfFolded], 2, &[false]);
    check(two, 3, 1, &[NeededIfFolded], 1, &[true]);
    check(two + SERIES_PER_OTHER, 2, 0, &[Needed], 2, &[true]);
    check(two + SERIES_PER_OTHER - 1, 2, 0, &[Needed], 1, &[true]);
    check(
        two + SERIES_PER_OTHER,
        9,
        2,
        &[IsThere, NeededIfFolded],
        2,
        &[true, false],
    );
    check(
        two + SERIES_PER_OTHER,
        9,
        0,
        &[IsThere, NeededIfFolded],
        1,
        &[true, true],
    );
    check(
        0,
        9,
        0,
        &[IsThere, Needed, NeededIfFolded, NotNeeded],
        0,
        &[true, true, true, false],
    );
    check(SERIES_PER_CASE - 1, 9, 5, &[NotNeeded], 0, &[false]);
}

/// A day of a suite: how long after the one before, what each case did in it, and what befell the exporter afterwards.
#[derive(Debug, Clone)]
struct Step {
    hours: i64,
    group: usize,
    outcomes: Vec<Option<CaseOutcome>>,
    scraped: bool,
    released: bool,
    restarted: bool,
    /// Another budget, and whether counters tell when they began from then on.
    budget: Option<(usize, bool)>,
}

const CASES: usize = 10;
const GROUPS: [[&str; 2]; 3] = [["prod", "main"], ["prod", OTHER], ["stage", "main"]];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Mostly passing, so that there are cases to be displaced.
    let outcome = prop_oneof![
        3 => Just(None),
        5 => Just(Some(Passed)),
        2 => prop::sample::select(CaseOutcome::ALL).prop_map(Some),
    ];
    let step = (
        0..30_i64,
        0..GROUPS.len(),
        prop::collection::vec(outcome, CASES),
        any::<bool>(),
        any::<bool>(),
        prop::bool::weighted(0.1),
        prop::option::weighted(0.1, (0..300_usize, any::<bool>())),
    );
    let step = step.prop_map(|(hours, group, outcomes, scraped, released, restarted, budget)| Step {
        hours,
        group,
        outcomes,
        scraped,
        released,
        restarted,
        budget,
    });
    prop::collection::vec(step, 24)
}

/// Names differ from `__other__` on both sides of it in the order of names; one of them is it.
fn case_name(case: usize) -> String {
    match case {
        0 => OTHER.to_owned(),
        case if case % 2 == 0 => format!("a{case}"),
        case => format!("Z{case}"),
    }
}

/// Every snapshot that was scraped, with the budget that held then, and whether counters told when they began. A smaller
/// budget holds from the second one on, and so does a wider row.
fn play(steps: &[Step], mut budget: usize, mut created: bool) -> Vec<(usize, bool, SourceSnapshot)> {
    let spec = |created_timestamps| SourceSpec {
        created_timestamps,
        ..spec("shop")
    };
    let mut store = Store::new(vec![spec(created)], budget);
    let mut published = Vec::new();
    let mut seconds = 1_000;
    let (mut scraped, mut newest, mut former) = (0, 0, 0);
    let round = |store: &mut Store, facts: Vec<Fact>, seconds: i64, scraped: u64| -> Option<std::sync::Arc<Snapshot>> {
        store.update(0, Update::Facts(facts), at(seconds), scraped);
        let (result, at) = (RoundResult::Success, at(seconds));
        store.update(0, Update::RoundEnded { result, at }, at, scraped)
    };
    round(&mut store, Vec::new(), seconds, scraped);
    for (step, id) in steps.iter().zip(1..) {
        seconds += step.hours * 3_600 + 1;
        // What nobody scrapes within a minute is cut away all the same.
        if let Some((changed, tells)) = step.budget.filter(|_| scraped == newest || step.scraped) {
            // As many rows as there were room for, at their new width.
            former = if tells == created { budget } else { 2 * budget };
            (budget, created) = (changed, tells);
            let known = Next::Known {
                place: 0,
                spec: Box::new(spec(created)),
            };
            store.reconfigure(vec![known], budget, at(seconds));
            store.tick(at(seconds), scraped);
        }
        let [environment, branch] = GROUPS[step.group];
        let finished = Run {
            group: group(environment, branch),
            ended: Some(at(seconds)),
            ..run(id, RunOutcome::Passed)
        };
        let results = step.outcomes.iter().enumerate();
        let results = results.filter_map(|(case, outcome)| Some(result(id, &case_name(case), (*outcome)?)));
        let facts = [Fact::Run(finished)].into_iter().chain(results).collect();
        let shown = round(&mut store, facts, seconds, scraped).expect("published");
        newest = shown.generation;
        let mut scrape = |shown: &Snapshot| {
            published.push((budget.max(former), created, SourceSnapshot::clone(&shown.sources[0])));
            former = 0;
            shown.generation
        };
        if step.scraped {
            scraped = scrape(&shown);
        }
        let kept = store.sources()[0].keep().expect("kept");
        if step.released
            && let Some(shown) = store.tick(at(seconds + 30), scraped)
        {
            newest = shown.generation;
            if step.scraped {
                scraped = scrape(&shown);
            }
        }
        if step.restarted {
            let released = store.sources()[0].keep_released().expect("kept");
            let restored = SourceState::restored(spec(created), &kept, &released).expect("restored");
            store = Store::new(Vec::new(), 0);
            let shown = store.reconfigure(vec![Next::New(Box::new(restored))], budget, at(seconds + 40));
            newest = shown.generation;
            scraped = if step.scraped { scrape(&shown) } else { 0 };
        }
    }
    // What was held back or had to wait is shown after a scrape or two; what has left is not shown again.
    for _ in 0..6 {
        seconds += 61;
        let shown = round(&mut store, Vec::new(), seconds, scraped).expect("published");
        published.push((budget, created, SourceSnapshot::clone(&shown.sources[0])));
        scraped = shown.generation;
    }
    published
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_budget_holds_and_every_result_is_counted_once(
        steps in steps(),
        budget in 0..400_usize,
        created_timestamps: bool,
    ) {
        let mut began: BTreeMap<(Group, Name), Timestamp> = BTreeMap::new();
        let mut last: BTreeMap<String, f64> = BTreeMap::new();
        let mut there: BTreeMap<String, f64> = BTreeMap::new();
        let mut groups = BTreeSet::new();
        for (budget, created_timestamps, shown) in play(&steps, budget, created_timestamps) {
            groups.extend(shown.groups.iter().map(|row| row.group.clone()));
            // Each group's sum of the others has to be somewhere.
            let width = Width::of(created_timestamps);
            prop_assert!(case_series(&shown) <= budget.max(groups.len() * width.other));
            for row in &shown.cases {
                prop_assert_eq!(row.created.is_some(), created_timestamps);
                // Whatever leaves and returns, and whatever process counts: what goes on began when it began.
                if let Some(created) = row.created {
                    let known = began.entry((row.group.clone(), row.case.clone())).or_insert(created);
                    prop_assert_eq!(*known, created);
                    prop_assert!(created <= shown.as_of);
                }
            }
            let mut in_order = shown.cases.clone();
            in_order.sort_by(|a, b| (&a.group, &a.case).cmp(&(&b.group, &b.case)));
            prop_assert_eq!(&in_order, &shown.cases);
            let now_there = counters(&shown);
            for (series, value) in now_there.clone() {
                let known = last.insert(series.clone(), value);
                let before = known.unwrap_or(0.0);
                prop_assert!(
                    before == 0.0 || there.contains_key(&series) || before == value,
                    "{} returns with a step from {} to {}",
                    series,
                    before,
                    value
                );
                prop_assert!(before <= value, "{} falls from {} to {}", series, before, value);
            }
            there = now_there;
        }
        for outcome in CaseOutcome::ALL {
            let series = format!(" {}", outcome.index());
            let told = last.iter().filter(|(name, _)| name.starts_with("results") && name.ends_with(&series));
            let truth = steps.iter().flat_map(|step| &step.outcomes).filter(|told| **told == Some(*outcome));
            prop_assert_eq!(told.map(|(_, count)| *count).sum::<f64>(), truth.count() as f64);
        }
    }
}

/// A suite that runs every hour, with room for some of its cases.
struct Hourly {
    store: Store,
    hour: i64,
}

impl Hourly {
    fn with_room_for(cases: usize) -> Self {
        Self {
            store: Store::new(vec![spec("shop")], room_for(cases)),
            hour: 0,
        }
    }

    /// The names that are shown after a run.
    fn run(&mut self, outcomes: impl Iterator<Item = CaseOutcome>) -> BTreeSet<String> {
        self.hour += 1;
        let id = self.hour.unsigned_abs();
        let finished = Run {
            ended: Some(at(self.hour * 3_600)),
            ..run(id, RunOutcome::Passed)
        };
        let results = outcomes
            .enumerate()
            .map(|(case, outcome)| result(id, &format!("{case:03}"), outcome));
        let facts = [Fact::Run(finished)].into_iter().chain(results).collect();
        let now = at(self.hour * 3_600 + 60);
        self.store.update(0, Update::Facts(facts), now, id);
        let ended = Update::RoundEnded {
            result: RoundResult::Success,
            at: now,
        };
        let shown = self.store.update(0, ended, now, id).expect("published");
        shown.sources[0].cases.iter().map(|row| row.case.to_string()).collect()
    }
}

#[test]
fn a_quiet_suite_keeps_the_cases_that_it_shows() {
    let mut suite = Hourly::with_room_for(5);
    let first = suite.run([Passed; 20].into_iter());
    for hour in 0..100 {
        // Not every run has every case.
        let ran = (0..20).filter(|case| (case + hour) % 3 > 0).count();
        assert_eq!(suite.run(std::iter::repeat_n(Passed, ran)), first);
    }
}

#[test]
fn a_case_that_fails_now_and_then_comes_once() {
    let mut suite = Hourly::with_room_for(5);
    suite.run([Passed; 20].into_iter());
    let mut shown = Vec::new();
    for hour in 0..200 {
        let outcomes = (0..20).map(|case| if case == 15 && hour % 7 == 0 { Failed } else { Passed });
        shown.push(suite.run(outcomes));
    }
    assert!(shown[0].contains("015"), "a failing case is shown at once");
    shown.dedup();
    assert_eq!(shown.len(), 1, "{shown:?}");
}

#[test]
fn what_fails_has_room_before_all_that_passes() {
    let mut suite = Hourly::with_room_for(5);
    suite.run([Passed; 20].into_iter());
    let failing = [3, 8, 11, 19];
    let shown = suite.run((0..20).map(|case| if failing.contains(&case) { Failed } else { Passed }));
    assert!(
        failing.iter().all(|case| shown.contains(&format!("{case:03}"))),
        "{shown:?}"
    );
    let all = suite.run([Failed; 20].into_iter());
    assert_eq!(all, shown, "where all fail, nobody is displaced");
    let other = suite.store.newest().sources[0].clone();
    assert!(counted_as(&other, OTHER) > Some(0));
}

/// Two sources with ten cases each, one of which never ends a round again.
struct Pair {
    store: Store,
    seconds: i64,
}

impl Pair {
    const CASES: u64 = 10;

    fn new() -> Self {
        let mut pair = Self {
            store: Store::new(vec![spec("busy"), spec("down")], 1_000_000),
            seconds: 0,
        };
        for source in 0..2 {
            pair.round(source, Vec::new(), u64::MAX);
            pair.round(source, pair.results(1), u64::MAX);
            pair.store.tick(at(pair.seconds), u64::MAX);
        }
        pair
    }

    fn results(&self, id: u64) -> Vec<Fact> {
        let finished = Run {
            ended: Some(at(self.seconds)),
            ..run(id, RunOutcome::Passed)
        };
        let results = (0..Self::CASES).map(|case| result(id, &format!("{case:03}"), Passed));
        [Fact::Run(finished)].into_iter().chain(results).collect()
    }

    fn round(&mut self, source: usize, facts: Vec<Fact>, scraped: u64) -> std::sync::Arc<Snapshot> {
        self.seconds += 5;
        let now = at(self.seconds);
        self.store.update(source, Update::Facts(facts), now, scraped);
        let result = RoundResult::Success;
        let ended = self
            .store
            .update(source, Update::RoundEnded { result, at: now }, now, scraped);
        ended.expect("published")
    }

    fn have_room(&mut self, series_budget: usize) {
        let known = |(place, name)| Next::Known {
            place,
            spec: Box::new(spec(name)),
        };
        let sources = [(0, "busy"), (1, "down")].map(known).into();
        self.store.reconfigure(sources, series_budget, at(self.seconds));
    }

    fn shown(&self) -> usize {
        let sources = &self.store.newest().sources;
        sources.iter().map(|source| case_series(source)).sum()
    }

    /// Results of a source that its series have counted.
    fn counted(&self, source: usize) -> u64 {
        let rows = &self.store.newest().sources[source].cases;
        rows.iter().flat_map(|row| row.counts.results).sum()
    }
}

#[test]
fn a_smaller_budget_holds_at_once_even_for_a_source_that_is_down() {
    let mut pair = Pair::new();
    let now = at(pair.seconds);
    let before = (pair.shown(), pair.counted(0), pair.counted(1));
    let cases = 2 * usize::try_from(Pair::CASES).unwrap();
    assert_eq!(before, (cases * SERIES_PER_CASE, Pair::CASES, Pair::CASES));
    // In the middle of a round.
    pair.store.update(0, Update::Facts(pair.results(2)), now, u64::MAX);
    let (room, generation) = (room_for(6), pair.store.newest().generation);
    pair.have_room(room);
    let shown = pair.store.tick(now, generation).expect("less is shown");
    assert!(shown.generation > generation);
    assert!(pair.shown() <= room, "{}", pair.shown());
    for source in &shown.sources {
        assert_eq!(source.cases.len() as u64 + source.cases_folded, Pair::CASES);
        assert!(source.cases.iter().all(|row| row.counts.results[Passed.index()] == 1));
        assert_eq!(source.case_infos.len(), 0);
    }
    assert!(pair.store.next_release().is_none());
    assert!(pair.store.tick(now, shown.generation).is_none());
    // What the others have counted is theirs still, and what comes counts beside them.
    pair.round(0, Vec::new(), shown.generation);
    let scraped = pair.store.newest().generation;
    pair.store.tick(at(pair.seconds), scraped);
    assert!(pair.shown() <= room);
    let own = pair.store.newest().sources[0].cases.len() as u64 - 1;
    assert_eq!(pair.counted(0), own + Pair::CASES);
    pair.have_room(1_000_000);
    for _ in 0..3 {
        let scraped = pair.store.newest().generation;
        pair.round(0, Vec::new(), scraped);
    }
    assert_eq!(pair.counted(0), 2 * Pair::CASES, "all of them have come back");
}

#[test]
fn what_nobody_has_seen_stays_under_a_smaller_budget_until_a_scrape_or_for_a_minute() {
    for is_scraped in [true, false] {
        let mut pair = Pair::new();
        let before = pair.store.newest().generation;
        pair.round(0, pair.results(2), before);
        let all = pair.shown();
        let (now, room) = (at(pair.seconds), room_for(6));
        pair.have_room(room);
        let shown = pair.store.tick(now, before).expect("the other source shows less");
        assert!(shown.sources[0].cases.len() as u64 == Pair::CASES && pair.shown() < all);
        assert_eq!(shown.sources[0].cases[0].counts.results[Passed.index()], 2);
        let until = pair.store.next_release().expect("it is waited for a scrape");
        assert_eq!(until, now + SignedDuration::from_secs(crate::store::ZEROS_SECONDS_MAX));
        assert!(pair.store.tick(until - SignedDuration::from_secs(1), before).is_none());
        // A round in between takes none of it away either.
        pair.round(0, Vec::new(), before);
        assert!(pair.store.newest().sources[0].cases.len() as u64 >= Pair::CASES);
        let shown = if is_scraped {
            let scraped = pair.store.newest().generation;
            pair.store.tick(now, scraped)
        } else {
            pair.store.tick(until, before)
        };
        assert!(shown.is_some() && pair.shown() <= room, "{}", pair.shown());
        assert!(pair.store.next_release().is_none());
    }
}
