//! The newest results of one case in one group, in the order in which their runs ended, in few bytes: there are as many of
//! them as of nothing else. Never decides what a result counts as (`runs` and `cases` do), never judges a case.

use std::fmt;
use std::num::NonZeroU32;

use jiff::Timestamp;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeTuple as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::snapshot::LastResult;
use crate::model::{CaseOutcome, CaseResult, Run, RunId};
use crate::packed::Packed;

/// Results per case and group that are held one by one, so that they can come in any order and can be edited, and so that a
/// case can be judged by them: with fewer than 50, a test that fails once in twenty runs without reason is not told from one
/// that was broken and mended. At a run an hour they are two days' work. Older ones are folded into a summary.
pub(super) const RECENT_MAX: usize = 50;

/// A row that has just begun holds so many before it grows: most cases run again.
const RECENT_FIRST: usize = 4;

/// A run's place in time; see [`Run::order`].
pub(super) type Order = (Timestamp, RunId);

/// A time in eight bytes: nanoseconds since 1970, exactly. What lies beyond the years 1677 to 2262 is taken for the nearest
/// time within.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Moment(i64);

impl Moment {
    /// Before all others.
    const UNKNOWN: Self = Self(i64::MIN);

    fn time(self) -> Option<Timestamp> {
        (self != Self::UNKNOWN).then(|| Timestamp::from_nanosecond(self.0.into()).unwrap_or(Timestamp::MAX))
    }
}

impl From<Timestamp> for Moment {
    fn from(time: Timestamp) -> Self {
        if time == Timestamp::MIN {
            return Self::UNKNOWN;
        }
        let nearest = if time < Timestamp::UNIX_EPOCH {
            i64::MIN + 1
        } else {
            i64::MAX
        };
        Self(i64::try_from(time.as_nanosecond()).unwrap_or(nearest))
    }
}

impl From<Option<Timestamp>> for Moment {
    fn from(time: Option<Timestamp>) -> Self {
        time.map_or(Self::UNKNOWN, Self::from)
    }
}

/// In the form of an optional time.
impl Packed for Moment {
    type Short = <Option<Timestamp> as Packed>::Short;

    fn pack(&self) -> Self::Short {
        self.time().pack()
    }

    fn unpack(short: Self::Short) -> Option<Self> {
        Option::<Timestamp>::unpack(short).map(Self::from)
    }
}

/// An [`Order`] in sixteen bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    at: Moment,
    run: RunId,
}

impl Place {
    fn order(self) -> Order {
        (self.at.time().unwrap_or(Timestamp::MIN), self.run)
    }
}

impl From<Order> for Place {
    fn from((at, run): Order) -> Self {
        Self { at: at.into(), run }
    }
}

/// In the form of an [`Order`].
impl Packed for Place {
    type Short = <Order as Packed>::Short;

    fn pack(&self) -> Self::Short {
        self.order().pack()
    }

    fn unpack(short: Self::Short) -> Option<Self> {
        Order::unpack(short).map(Self::from)
    }
}

/// Seconds, if somebody has told them.
#[derive(Debug, Clone, Copy)]
struct Seconds(f64);

impl Seconds {
    const UNTOLD: f64 = f64::NAN;

    fn told(self) -> Option<f64> {
        (!self.0.is_nan()).then_some(self.0)
    }
}

impl From<Option<f64>> for Seconds {
    fn from(seconds: Option<f64>) -> Self {
        Self(seconds.unwrap_or(Self::UNTOLD))
    }
}

impl PartialEq for Seconds {
    fn eq(&self, other: &Self) -> bool {
        self.told() == other.told()
    }
}

/// Attempts beyond the first, up to 254.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Retries(u8);

impl Retries {
    const UNTOLD: Self = Self(u8::MAX);
    const MOST: u8 = u8::MAX - 1;
}

impl From<Option<u64>> for Retries {
    fn from(retries: Option<u64>) -> Self {
        retries.map_or(Self::UNTOLD, |retries| {
            Self(u8::try_from(retries).unwrap_or(Self::MOST).min(Self::MOST))
        })
    }
}

/// What stands for a failure's signature; 0 for one that was not told. Of a text only whether it is the same one is of
/// interest, within one row. CRC-32 is the same in every process and every version, and a ledger keeps it.
fn signature(text: Option<&str>) -> u32 {
    text.map_or(0, |text| crc32fast::hash(text.as_bytes()).max(1))
}

/// One result, as much of it as gauges and test health need.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    place: Place,
    /// When it happened.
    at: Moment,
    duration: Seconds,
    failure_signature: u32,
    outcome: CaseOutcome,
    /// Whether `at` is the case's own time; else it follows its run's.
    own_time: bool,
    retries: Retries,
}

/// Fifty of each of ten thousand cases are 20 MB of the 64 MiB that all of this is meant to fit in.
const _: () = assert!(size_of::<Entry>() <= 40 && size_of::<Option<Entry>>() <= 40);

impl Entry {
    pub(super) fn new(result: &CaseResult, run: &Run) -> Self {
        Self {
            place: run.order().into(),
            at: result.executed.or(run.ended).into(),
            duration: result.duration_seconds.into(),
            failure_signature: signature(result.failure_signature.as_deref()),
            outcome: result.outcome,
            own_time: result.executed.is_some(),
            retries: result.retries.into(),
        }
    }

    /// Its run's place in time.
    pub(super) fn order(&self) -> Order {
        self.place.order()
    }

    /// How it went.
    pub(super) fn outcome(&self) -> CaseOutcome {
        self.outcome
    }

    /// Equal for equal failures of one case. `None`: nobody told.
    pub(super) fn failure_signature(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.failure_signature)
    }

    /// Attempts beyond the first, as far as they were told, up to 254.
    pub(super) fn retries(&self) -> u8 {
        if self.retries == Retries::UNTOLD {
            0
        } else {
            self.retries.0
        }
    }

    /// Whether it tells more than the first version of the ledger has a place for.
    fn has_details(&self) -> bool {
        self.failure_signature != 0 || self.retries != Retries::UNTOLD
    }

    /// Takes over what an answer about the same outcome has told and this one has not: not every answer tells everything.
    fn keep_details_of(&mut self, known: &Self) {
        if self.outcome != known.outcome {
            return;
        }
        if self.failure_signature == 0 {
            self.failure_signature = known.failure_signature;
        }
        if self.retries == Retries::UNTOLD {
            self.retries = known.retries;
        }
    }
}

/// The place of an entry's outcome tells by this bit that details follow. Without them an entry is kept as the ledger's first
/// version kept it, so that version's entries are read as what they are.
const DETAILS: u8 = 1 << 6;

const _: () = assert!(CaseOutcome::COUNT < DETAILS as usize);

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let has_details = self.has_details();
        let mut tuple = serializer.serialize_tuple(if has_details { 7 } else { 5 })?;
        let details = if has_details { DETAILS } else { 0 };
        let outcome = CaseOutcome::ALL.iter().zip(0_u8..).find(|(it, _)| **it == self.outcome);
        tuple.serialize_element(&self.place.pack())?;
        tuple.serialize_element(&(outcome.map_or(0, |(_, place)| place) | details))?;
        tuple.serialize_element(&self.own_time)?;
        tuple.serialize_element(&self.at.pack())?;
        tuple.serialize_element(&self.duration.told())?;
        if has_details {
            tuple.serialize_element(&self.failure_signature)?;
            tuple.serialize_element(&self.retries.0)?;
        }
        tuple.end()
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_tuple(7, EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = Entry;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a result, with or without details")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Entry, A::Error> {
        fn next<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(parts: &mut A) -> Result<T, A::Error> {
            parts.next_element()?.ok_or_else(|| A::Error::custom("half a result"))
        }
        let place = Place::unpack(next(&mut parts)?).ok_or_else(|| A::Error::custom("no time"))?;
        let outcome: u8 = next(&mut parts)?;
        let has_details = outcome & DETAILS != 0;
        let mut entry = Entry {
            place,
            outcome: CaseOutcome::ALL
                .get(usize::from(outcome & !DETAILS))
                .copied()
                .ok_or_else(|| A::Error::custom("no outcome"))?,
            own_time: next(&mut parts)?,
            at: Moment::unpack(next(&mut parts)?).ok_or_else(|| A::Error::custom("no time"))?,
            duration: next::<Option<f64>, A>(&mut parts)?.into(),
            failure_signature: 0,
            retries: Retries::UNTOLD,
        };
        if has_details {
            entry.failure_signature = next(&mut parts)?;
            entry.retries = Retries(next(&mut parts)?);
        }
        Ok(entry)
    }
}

/// The results that are older than the window, in so few words that late ones can still be added.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Folded {
    last: Option<Entry>,
    #[serde(with = "crate::packed")]
    pass: Option<(Place, Moment)>,
    streak: u64,
    #[serde(with = "crate::packed")]
    streak_from: Option<Place>,
}

impl Folded {
    /// Adds a result at any place.
    ///
    /// Exact for every result that is newer than what is folded, for every failure, and for a pass that is older than
    /// the last known pass or than the oldest failure since. A pass that comes so late that it falls between folded
    /// failures moves the last pass, which stays right, but not the streak: how many of the failures came after it is no
    /// longer known, and a streak that is too long does not hide a failing case.
    fn add(&mut self, entry: Entry) {
        let since_pass = self.pass.is_none_or(|(place, _)| entry.place > place);
        if since_pass && entry.outcome.is_failure() {
            self.streak += 1;
            self.streak_from = Some(self.streak_from.map_or(entry.place, |from| from.min(entry.place)));
        }
        let newest = self.last.as_ref().is_none_or(|last| entry.place > last.place);
        if since_pass && entry.outcome.is_pass() {
            self.pass = Some((entry.place, entry.at));
            if newest {
                self.streak = 0;
                self.streak_from = None;
            }
        }
        if newest {
            self.last = Some(entry);
        }
    }
}

/// The results of one case in one group, by the order of their runs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Recent {
    entries: Vec<Entry>,
    folded: Folded,
}

/// What a result that was read again is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reread {
    /// What is known.
    Same,
    /// What is known, and something about it that nobody had told.
    Told,
    /// Something else.
    Edited,
}

/// What [`Recent`] says of now.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Standing {
    pub(super) last: Option<LastResult>,
    pub(super) last_pass: Option<Timestamp>,
    pub(super) streak: u64,
}

impl Recent {
    /// Adds a result of a run that has none here.
    pub(super) fn insert(&mut self, entry: Entry) {
        if self.folded.last.as_ref().is_some_and(|last| entry.place < last.place) {
            self.folded.add(entry);
            return;
        }
        let mut place = self.entries.partition_point(|other| other.place < entry.place);
        if self.entries.len() >= RECENT_MAX {
            if place == 0 {
                self.folded.add(entry);
                return;
            }
            self.folded.add(self.entries.remove(0));
            place -= 1;
        }
        if self.entries.len() == self.entries.capacity() {
            // Never more room than there may be entries: left to itself the list would end at 64.
            let more = self.entries.len().clamp(RECENT_FIRST, RECENT_MAX);
            self.entries.reserve_exact(more.min(RECENT_MAX - self.entries.len()));
        }
        self.entries.insert(place, entry);
    }

    /// Replaces the result of a run by one that was read again, unless it is too old to be changed.
    pub(super) fn replace(&mut self, mut entry: Entry) -> Reread {
        let mut known = self.entries.iter_mut().rev();
        let Some(known) = known.find(|known| known.place.run == entry.place.run) else {
            return Reread::Same;
        };
        let before = known.clone();
        entry.keep_details_of(known);
        known.keep_details_of(&entry);
        if *known == entry {
            return if before == entry { Reread::Same } else { Reread::Told };
        }
        *known = entry;
        Reread::Edited
    }

    /// Follows a run whose times were edited.
    pub(super) fn move_run(&mut self, run: &Run) {
        let Some(place) = self.entries.iter().rposition(|known| known.place.run == run.id) else {
            return;
        };
        let mut entry = self.entries.remove(place);
        entry.place = run.order().into();
        if !entry.own_time {
            entry.at = run.ended.into();
        }
        self.insert(entry);
    }

    /// The results that are held one by one, newest last: at most [`RECENT_MAX`].
    pub(super) fn results(&self) -> impl DoubleEndedIterator<Item = &Entry> + ExactSizeIterator {
        self.entries.iter()
    }

    /// The oldest result that is held one by one.
    pub(super) fn oldest(&self) -> Option<Order> {
        self.entries.first().map(Entry::order)
    }

    /// Whether there were more results than are held one by one.
    pub(super) fn has_folded(&self) -> bool {
        self.folded.last.is_some()
    }

    /// Whether any known result is a pass.
    pub(super) fn has_passed(&self) -> bool {
        self.folded.pass.is_some() || self.entries.iter().any(|entry| entry.outcome.is_pass())
    }

    /// How the case went in a run whose result is held by itself.
    pub(super) fn outcome_in(&self, run: RunId) -> Option<CaseOutcome> {
        let entry = self.results().rev().find(|entry| entry.place.run == run);
        entry.map(Entry::outcome)
    }

    /// The newest result's place in time.
    pub(super) fn newest(&self) -> Option<Order> {
        self.newest_entry().map(Entry::order)
    }

    /// How the case went last.
    pub(super) fn outcome(&self) -> Option<CaseOutcome> {
        self.newest_entry().map(Entry::outcome)
    }

    fn newest_entry(&self) -> Option<&Entry> {
        self.entries.last().or(self.folded.last.as_ref())
    }

    /// Failures since the last pass, and that pass. Outcomes that are neither are passed over.
    pub(super) fn streak(&self) -> (u64, Option<Timestamp>) {
        let mut streak = 0;
        for entry in self.results().rev() {
            if entry.outcome.is_pass() {
                return (streak, entry.at.time());
            }
            streak += u64::from(entry.outcome.is_failure());
        }
        let folded = &self.folded;
        (streak + folded.streak, folded.pass.and_then(|(_, at)| at.time()))
    }

    /// The place in time of the oldest failure since the last pass, however long ago that was. `None`: there is none.
    pub(super) fn streak_since(&self) -> Option<Order> {
        let mut since = None;
        for entry in self.results().rev() {
            if entry.outcome.is_pass() {
                return since;
            }
            if entry.outcome.is_failure() {
                since = Some(entry.order());
            }
        }
        self.folded.streak_from.map(Place::order).or(since)
    }

    /// Whether a result since `since` was a failure or a flake, as far as single results are held.
    pub(super) fn was_in_trouble(&self, since: Timestamp) -> bool {
        let since = Moment::from(since);
        let mut since_then = self.results().rev().take_while(|entry| entry.place.at >= since);
        since_then.any(|entry| entry.outcome.is_failure() || entry.outcome == CaseOutcome::Flaky)
    }

    pub(super) fn standing(&self) -> Standing {
        let (streak, last_pass) = self.streak();
        let last = self.newest_entry().map(|entry| LastResult {
            outcome: entry.outcome,
            at: entry.at.time(),
            duration_seconds: entry.duration.told(),
        });
        Standing {
            last,
            last_pass,
            streak,
        }
    }
}

#[cfg(test)]
mod tests;
