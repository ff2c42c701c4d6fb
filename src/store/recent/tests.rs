//! What fits into few bytes comes out of them as it was; what arrives in any order stands in the order of the runs.

use proptest::prelude::*;

use super::*;
use crate::store::tests::{at, run};
use CaseOutcome::{Failed, Flaky, MissingOutput, Passed, Skipped};

fn result(run: RunId, outcome: CaseOutcome) -> CaseResult {
    CaseResult {
        run,
        case: "a".into(),
        outcome,
        executed: None,
        duration_seconds: None,
        retries: None,
        failure_signature: None,
    }
}

fn finished(id: RunId) -> Run {
    run(id, crate::model::RunOutcome::Passed)
}

fn entry(run: RunId, outcome: CaseOutcome) -> Entry {
    Entry::new(&result(run, outcome), &finished(run))
}

fn failed_like(run: RunId, signature: &str) -> Entry {
    let result = CaseResult {
        failure_signature: Some(signature.into()),
        ..result(run, Failed)
    };
    Entry::new(&result, &finished(run))
}

fn recent(entries: impl IntoIterator<Item = Entry>) -> Recent {
    let mut recent = Recent::default();
    for entry in entries {
        recent.insert(entry);
    }
    recent
}

/// The first version's form of an entry, as its types wrote it.
#[derive(Serialize, Deserialize)]
struct FirstVersion {
    #[serde(with = "crate::packed")]
    order: Order,
    outcome: CaseOutcome,
    own_time: bool,
    #[serde(with = "crate::packed")]
    at: Option<Timestamp>,
    duration_seconds: Option<f64>,
}

fn times() -> impl Strategy<Value = Option<Timestamp>> {
    let times = prop_oneof![
        Just(Timestamp::MIN),
        Just(Timestamp::MAX),
        Just("1677-09-21T00:12:43.145224193Z".parse().unwrap()),
        Just("2262-04-11T23:47:16.854775807Z".parse().unwrap()),
        (-4_000_000_000_i64..4_000_000_000, 0..1_000_000_000).prop_map(|(seconds, nanoseconds)| Timestamp::new(
            seconds,
            nanoseconds
        )
        .unwrap()),
    ];
    prop::option::of(times)
}

proptest! {
    #[test]
    fn a_result_is_held_and_kept_as_it_was(
        ended in times(),
        executed in times(),
        id in any::<u64>(),
        place in 0..CaseOutcome::COUNT,
        duration_seconds in prop::option::of(0.0..1e9_f64),
        retries in prop::option::of(0..1_000_u64),
        told in prop::option::of("[a-z]{0,8}"),
    ) {
        let run = Run { id, ended, started: None, created: None, ..finished(1) };
        let outcome = CaseOutcome::ALL[place];
        let result = CaseResult {
            executed,
            duration_seconds,
            retries,
            failure_signature: told.as_deref().map(Into::into),
            ..result(id, outcome)
        };
        let held = Entry::new(&result, &run);
        let within = |time: Timestamp| {
            time.as_nanosecond() > i128::from(i64::MIN) && time.as_nanosecond() <= i128::from(i64::MAX)
        };
        if run.order().0 == Timestamp::MIN || within(run.order().0) {
            prop_assert_eq!(held.order(), run.order());
        }
        if let Some(time) = executed.or(ended).filter(|time| within(*time)) {
            prop_assert_eq!(held.at.time(), Some(time));
        }
        prop_assert_eq!(held.outcome(), outcome);
        prop_assert_eq!(held.duration.told(), duration_seconds);
        prop_assert_eq!(u64::from(held.retries()), retries.unwrap_or(0).min(254));
        prop_assert_eq!(held.failure_signature().is_some(), told.is_some());
        let kept = postcard::to_stdvec(&held).unwrap();
        prop_assert_eq!(&postcard::from_bytes::<Entry>(&kept).unwrap(), &held);
        if retries.is_none() && told.is_none() {
            let first: FirstVersion = postcard::from_bytes(&kept).unwrap();
            prop_assert_eq!((first.order, first.outcome, first.duration_seconds), (held.order(), outcome, duration_seconds));
            prop_assert_eq!((first.at, first.own_time), (held.at.time(), executed.is_some()));
            prop_assert_eq!(postcard::to_stdvec(&first).unwrap(), kept, "as the first version kept it");
        }
    }

    #[test]
    fn what_comes_in_any_order_says_the_same(
        outcomes in prop::collection::vec(0..CaseOutcome::COUNT, 1..=RECENT_MAX),
        shuffle in prop::collection::vec(any::<prop::sample::Index>(), RECENT_MAX),
    ) {
        let entries: Vec<_> = (1..).zip(&outcomes).map(|(run, place)| entry(run, CaseOutcome::ALL[*place])).collect();
        let mut shuffled = entries.clone();
        for (here, there) in shuffle.iter().enumerate().take(entries.len()) {
            shuffled.swap(here, there.index(entries.len()));
        }
        let (one, other) = (recent(entries.clone()), recent(shuffled));
        prop_assert_eq!(one.standing(), other.standing());
        prop_assert_eq!(one.streak_since(), other.streak_since());
        prop_assert!(one.results().eq(&entries) && other.results().eq(&entries), "newest last");
    }
}

#[test]
fn equal_failures_have_equal_signatures_in_every_process_and_version() {
    let signature = |text: &str| failed_like(1, text).failure_signature().map(NonZeroU32::get);
    // Fixed by CRC-32: these are in people's ledgers.
    assert_eq!(signature("123456789"), Some(0xcbf4_3926));
    assert_eq!(signature(""), Some(1), "a text that stands for nothing is still told");
    assert_ne!(signature("timeout"), signature("timeouts"));
    assert_eq!(entry(1, Failed).failure_signature(), None);
}

#[test]
fn a_time_out_of_range_is_the_nearest_one_and_keeps_its_place() {
    let ended = |id, time| {
        let run = Run {
            ended: Some(time),
            ..finished(id)
        };
        Entry::new(&result(id, Passed), &run)
    };
    let early: Timestamp = "0001-01-01T00:00:00Z".parse().unwrap();
    let entries = [
        ended(4, Timestamp::MIN),
        ended(3, early),
        ended(2, at(0)),
        ended(1, Timestamp::MAX),
    ];
    let recent = recent(entries.iter().rev().cloned());
    assert!(recent.results().eq(&entries));
    let times: Vec<_> = recent.results().map(|entry| entry.order().0.to_string()).collect();
    assert_eq!(times[1], "1677-09-21T00:12:43.145224193Z");
    assert_eq!(times[3], "2262-04-11T23:47:16.854775807Z");
    assert_eq!(recent.results().next().map(Entry::order), Some((Timestamp::MIN, 4)));
}

#[test]
fn no_row_has_room_for_more_than_the_window() {
    let mut recent = Recent::default();
    for id in 1..200 {
        recent.insert(entry(id, Passed));
        let (len, room) = (recent.entries.len(), recent.entries.capacity());
        assert!(
            room <= RECENT_MAX && room <= (2 * len).max(RECENT_FIRST),
            "{room} for {len}"
        );
    }
    assert_eq!(recent.results().len(), RECENT_MAX);
    let oldest = recent.results().next().map(Entry::order);
    assert_eq!(oldest, Some(finished(200 - 50).order()));
}

#[test]
fn a_streak_began_with_its_oldest_failure_however_long_ago() {
    let begins = |entries: Vec<Entry>| recent(entries).streak_since().map(|(_, run)| run);
    assert_eq!(begins(vec![]), None);
    assert_eq!(begins(vec![entry(1, Failed), entry(2, Passed)]), None);
    assert_eq!(begins(vec![entry(1, Failed), entry(2, Flaky), entry(3, Skipped)]), None);
    assert_eq!(
        begins(vec![
            entry(1, Passed),
            entry(2, Skipped),
            entry(3, MissingOutput),
            entry(4, Failed)
        ]),
        Some(3)
    );
    let long = |outcome| (1..=200).map(move |id| entry(id, if id == 7 { outcome } else { Failed }));
    assert_eq!(begins(long(Passed).collect()), Some(8));
    assert_eq!(begins(long(Failed).collect()), Some(1));
    assert_eq!(begins(long(Failed).chain([entry(201, Passed)]).collect()), None);
    let mended_in_the_window = long(Failed).chain([entry(201, Passed), entry(202, Skipped), entry(203, Failed)]);
    assert_eq!(begins(mended_in_the_window.collect()), Some(203));
}

#[test]
fn an_edit_brings_its_details_and_a_first_word_about_them_is_no_edit() {
    let with = |outcome, retries, signature: Option<&str>| {
        let result = CaseResult {
            retries,
            failure_signature: signature.map(Into::into),
            ..result(1, outcome)
        };
        Entry::new(&result, &finished(1))
    };
    let mut recent = recent([with(Failed, None, None)]);
    let mut check = |entry: Entry, edited: bool, expected: (CaseOutcome, u8, bool)| {
        assert_eq!(recent.replace(entry) == Reread::Edited, edited);
        let known = recent.results().next().unwrap();
        let signature = known.failure_signature().is_some();
        assert_eq!((known.outcome(), known.retries(), signature), expected);
    };
    check(with(Failed, None, None), false, (Failed, 0, false));
    check(with(Failed, None, Some("x")), false, (Failed, 0, true));
    check(with(Failed, Some(2), None), false, (Failed, 2, true));
    check(with(Failed, None, None), false, (Failed, 2, true));
    check(with(Failed, Some(3), None), true, (Failed, 3, true));
    check(with(Failed, Some(3), Some("y")), true, (Failed, 3, true));
    check(with(Passed, Some(1_000), None), true, (Passed, 254, false));
    check(with(Passed, Some(2_000), None), false, (Passed, 254, false));
}
