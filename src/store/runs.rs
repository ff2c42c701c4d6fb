//! Which runs are known, and which of them count: the baseline, the table of finished runs, the results that wait for one.
//! Never reads what a run's numbers are, except for its place in time.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::recent::Order;
use crate::model::{CaseResult, Group, Run, RunId};

/// Finished runs remembered per source, whatever the retention says: 90 days of more than 500 runs a day. Beyond it the
/// oldest leave first. A run of 10,000 cases costs about 1.8 kB here, most of it its set of cases.
pub(super) const RUNS_MAX: usize = 50_000;

/// Unfinished runs remembered per source. A platform that has more of them than this at once is not being tested but stuck.
pub(super) const OPEN_MAX: usize = 10_000;

/// Results per source that wait for their run. A round reads runs before results, so only what an interrupted round left
/// behind waits; the bound is ten runs of 5,000 cases.
pub(super) const ORPHANS_MAX: usize = 50_000;

/// A place of a case in its source's table.
pub(super) type CaseIndex = u32;

/// Words of a [`Chunk`], of 64 cases each. With fewer, a run of all cases costs more for the chunks' numbers; with more, a run
/// of few cases costs more for those that it has not.
const CHUNK_WORDS: usize = 8;

/// Some neighbouring cases of a set.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    number: u32,
    words: [u64; CHUNK_WORDS],
}

/// A set of cases: one bit a case, so that every result of the retention can be remembered exactly. Only where it has members:
/// a renamed case gets another place, and after a year the cases of one suite are anywhere. In a ledger it is the bits of all
/// cases up to the highest member.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(into = "AllWords", from = "AllWords")]
pub(super) struct CaseSet {
    /// By number.
    chunks: Vec<Chunk>,
}

#[derive(Serialize, Deserialize)]
struct AllWords {
    words: Vec<u64>,
}

impl From<CaseSet> for AllWords {
    fn from(set: CaseSet) -> Self {
        let mut words = Vec::new();
        for chunk in &set.chunks {
            words.resize(chunk.number as usize * CHUNK_WORDS, 0);
            words.extend_from_slice(&chunk.words);
        }
        words.truncate(words.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1));
        Self { words }
    }
}

impl From<AllWords> for CaseSet {
    fn from(all: AllWords) -> Self {
        let chunks = all.words.chunks(CHUNK_WORDS).zip(0..).map(|(some, number)| {
            let mut words = [0; CHUNK_WORDS];
            words[..some.len()].copy_from_slice(some);
            Chunk { number, words }
        });
        let mut chunks: Vec<_> = chunks.filter(|chunk| chunk.words != [0; CHUNK_WORDS]).collect();
        chunks.shrink_to_fit();
        Self { chunks }
    }
}

impl CaseSet {
    /// Where a case is: its chunk's number, its word there, its bit.
    fn place(case: CaseIndex) -> (u32, usize, u64) {
        let word = case as usize / 64;
        let number = case / (64 * CHUNK_WORDS as u32);
        (number, word % CHUNK_WORDS, 1 << (case % 64))
    }

    /// A chunk, to be changed; a new one if need be.
    fn chunk(&mut self, number: u32) -> &mut Chunk {
        let place = self.chunks.binary_search_by_key(&number, |chunk| chunk.number);
        let place = place.unwrap_or_else(|place| {
            // There are few, and there are very many sets: none has more room than it needs.
            self.chunks.reserve_exact(1);
            let words = [0; CHUNK_WORDS];
            self.chunks.insert(place, Chunk { number, words });
            place
        });
        &mut self.chunks[place]
    }

    /// Adds a case; true if it was not there.
    pub(super) fn insert(&mut self, case: CaseIndex) -> bool {
        let (number, word, bit) = Self::place(case);
        let word = &mut self.chunk(number).words[word];
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    /// Whether a case is in it.
    pub(super) fn contains(&self, case: CaseIndex) -> bool {
        let (number, word, bit) = Self::place(case);
        let place = self.chunks.binary_search_by_key(&number, |chunk| chunk.number);
        place.is_ok_and(|place| self.chunks[place].words[word] & bit != 0)
    }

    /// Adds every member of another set.
    pub(super) fn add(&mut self, other: &Self) {
        for theirs in &other.chunks {
            let mine = self.chunk(theirs.number);
            for (mine, theirs) in mine.words.iter_mut().zip(theirs.words) {
                *mine |= theirs;
            }
        }
    }

    /// The members, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = CaseIndex> + '_ {
        let words = self.chunks.iter().flat_map(|chunk| {
            let first = chunk.number * CHUNK_WORDS as u32;
            (first..).zip(chunk.words)
        });
        words.flat_map(|(at, word)| {
            (0..64_u32)
                .filter(move |bit| word & (1_u64 << bit) != 0)
                .map(move |bit| at * 64 + bit)
        })
    }
}

/// A finished run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct KnownRun {
    /// As it was read last; its group is the one that it was counted in.
    pub(super) run: Run,
    /// Whether results that are told now are counted with it. A run of the baseline is not counted; a run that was
    /// started again is a new version of what has been counted, and what only the new version has is no news.
    pub(super) counted: bool,
    /// The cases whose result in it is known.
    pub(super) seen: CaseSet,
    /// When it was first seen; a run of the baseline is as old as it says.
    #[serde(with = "crate::packed")]
    since: Timestamp,
}

/// What a finished run that was told of is to us.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Admission {
    /// Met for the first time.
    First {
        /// Whether it counts.
        counted: bool,
    },
    /// Known, and something about it has changed.
    Edited,
    /// Known as it is.
    Same,
}

/// The finished runs of a source, and the line between those that count and those that do not.
///
/// Run ids only grow. A run that is not in the table therefore counts if its id lies above the line, or if it has been
/// seen unfinished while its id did. The line is the highest id of the baseline, and it rises over every run that leaves
/// the table. So neither a page that was lost while the baseline was read nor a run that is forgotten and met again is
/// ever counted.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Runs {
    table: HashMap<RunId, KnownRun>,
    baseline_done: bool,
    line: RunId,
    open: BTreeSet<RunId>,
    active: BTreeSet<RunId>,
    late_edits: u64,
    /// Groups of runs that have come, changed or gone since somebody asked, with the last place in time of those that have gone.
    #[serde(skip)]
    changes: BTreeMap<Group, Option<Order>>,
}

impl Runs {
    /// Takes the ids of the unfinished runs, all of them.
    pub(super) fn replace_active(&mut self, ids: impl Iterator<Item = RunId>) {
        self.active = ids.take(OPEN_MAX).collect();
        if !self.baseline_done {
            self.line = self.line.max(self.active.last().copied().unwrap_or(0));
            return;
        }
        for id in &self.active {
            if let Some(restarted) = self.table.get_mut(id) {
                restarted.counted = false;
            }
        }
        let news = self
            .active
            .iter()
            .filter(|id| **id > self.line && !self.table.contains_key(id));
        self.open.extend(news);
        while self.open.len() > OPEN_MAX {
            self.open.pop_first();
        }
    }

    /// Takes a finished run. The group of a run is part of what it was counted as, so a later reading does not move it.
    pub(super) fn admit(&mut self, mut run: Run, clock: Timestamp) -> Admission {
        if let Some(known) = self.table.get_mut(&run.id) {
            run.group = known.run.group.clone();
            if known.run == run {
                return Admission::Same;
            }
            // Started again and finished between two rounds: nobody has seen it active.
            // Less than a second apart is the same end told in another precision.
            let ends = known.run.ended.zip(run.ended);
            known.counted &= ends.is_none_or(|(before, now)| now.duration_since(before).abs().as_secs() == 0);
            known.run = run;
            self.late_edits += 1;
            self.changes.entry(known.run.group.clone()).or_default();
            return Admission::Edited;
        }
        let was_open = self.open.remove(&run.id);
        let counted = self.baseline_done && (was_open || run.id > self.line);
        if !self.baseline_done {
            self.line = self.line.max(run.id);
        }
        self.changes.entry(run.group.clone()).or_default();
        self.table.insert(
            run.id,
            KnownRun {
                run,
                counted,
                seen: CaseSet::default(),
                since: clock,
            },
        );
        if self.table.len() > RUNS_MAX {
            self.shrink();
        }
        Admission::First { counted }
    }

    /// The first successful round has ended: what is finished by now is the baseline, what is active is not.
    pub(super) fn end_baseline(&mut self) {
        if self.baseline_done {
            return;
        }
        self.baseline_done = true;
        self.open = self
            .active
            .iter()
            .copied()
            .filter(|id| !self.table.contains_key(id))
            .collect();
    }

    /// Forgets the finished runs that ended, and were first seen, before `cutoff`. A run without any time of its own is
    /// thereby kept for as long as the others, and the line does not rise too early.
    pub(super) fn forget_before(&mut self, cutoff: Timestamp) {
        let (line, changes) = (&mut self.line, &mut self.changes);
        self.table.retain(|id, known| {
            let keep = known.run.order().0.max(known.since) >= cutoff;
            if !keep {
                *line = (*line).max(*id);
                note_gone(changes, &known.run);
            }
            keep
        });
    }

    /// Makes room by a sixteenth, so that the sort is rare.
    fn shrink(&mut self) {
        let mut orders: Vec<_> = self.table.values().map(|known| known.run.order()).collect();
        orders.sort_unstable();
        for (_, id) in orders.into_iter().take(RUNS_MAX / 16) {
            if let Some(known) = self.table.remove(&id) {
                note_gone(&mut self.changes, &known.run);
            }
            self.line = self.line.max(id);
        }
    }

    pub(super) fn get(&self, id: RunId) -> Option<&KnownRun> {
        self.table.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: RunId) -> Option<&mut KnownRun> {
        self.table.get_mut(&id)
    }

    /// A result in a run of a group has come or changed.
    pub(super) fn note_result(&mut self, group: &Group) {
        if !self.changes.contains_key(group) {
            self.changes.insert(group.clone(), None);
        }
    }

    /// The groups whose runs, or results in them, are others than when this was asked last, and up to where runs have gone.
    pub(super) fn take_changes(&mut self) -> BTreeMap<Group, Option<Order>> {
        std::mem::take(&mut self.changes)
    }

    /// In no order: callers look for a maximum or a union.
    pub(super) fn values(&self) -> impl Iterator<Item = &KnownRun> {
        self.table.values()
    }

    /// Known runs or results that were read again and had changed.
    pub(super) fn late_edits(&self) -> u64 {
        self.late_edits
    }

    /// Notes that a known result has changed.
    pub(super) fn note_late_edit(&mut self) {
        self.late_edits += 1;
    }
}

fn note_gone(changes: &mut BTreeMap<Group, Option<Order>>, run: &Run) {
    let last = changes.entry(run.group.clone()).or_default();
    *last = (*last).max(Some(run.order()));
}

/// Results that came before their run. Until the run is known to be finished a later result of the same case replaces
/// the earlier one.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Orphans {
    by_run: BTreeMap<RunId, BTreeMap<CaseIndex, CaseResult>>,
    count: usize,
    dropped: u64,
}

impl Orphans {
    /// Keeps a result. Beyond [`ORPHANS_MAX`] the oldest run's results are dropped: it is the least likely to come.
    pub(super) fn keep(&mut self, case: CaseIndex, result: CaseResult) {
        if self
            .by_run
            .entry(result.run)
            .or_default()
            .insert(case, result)
            .is_none()
        {
            self.count += 1;
        }
        while self.count > ORPHANS_MAX {
            let Some((_, results)) = self.by_run.pop_first() else {
                return;
            };
            self.count -= results.len();
            self.dropped += results.len() as u64;
        }
    }

    /// Takes what has waited for a run.
    pub(super) fn take(&mut self, run: RunId) -> BTreeMap<CaseIndex, CaseResult> {
        let results = self.by_run.remove(&run).unwrap_or_default();
        self.count -= results.len();
        results
    }

    /// The cases that are waited for.
    pub(super) fn cases(&self) -> impl Iterator<Item = CaseIndex> + '_ {
        self.by_run.values().flat_map(|results| results.keys().copied())
    }

    /// Results that were dropped for want of room.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As it was kept before it had chunks.
    #[derive(Serialize, Deserialize)]
    struct Kept {
        words: Vec<u64>,
    }

    proptest! {
        #[test]
        fn a_set_of_cases_has_the_members_that_were_added_before_and_after_a_ledger(
            one in proptest::collection::btree_set(0_u32..3_000, 0..40),
            other in proptest::collection::btree_set(0_u32..3_000, 0..40),
            asked in proptest::collection::vec(0_u32..4_000, 40),
        ) {
            let set_of = |cases: &BTreeSet<u32>| {
                let mut set = CaseSet::default();
                // From the highest to the lowest: chunks come in any order.
                for case in cases.iter().rev() {
                    assert!(set.insert(*case));
                    assert!(!set.insert(*case));
                }
                set
            };
            let mut set = set_of(&one);
            set.add(&set_of(&other));
            let members: BTreeSet<_> = one.union(&other).copied().collect();
            let kept = postcard::to_stdvec(&set).unwrap();
            let mut words = vec![0_u64; members.last().map_or(0, |last| *last as usize / 64 + 1)];
            for case in &members {
                words[*case as usize / 64] |= 1 << (case % 64);
            }
            prop_assert_eq!(&kept, &postcard::to_stdvec(&Kept { words }).unwrap());
            for set in [set, postcard::from_bytes(&kept).unwrap()] {
                prop_assert!(set.iter().eq(members.iter().copied()));
                for case in &asked {
                    prop_assert_eq!(set.contains(*case), members.contains(case));
                }
            }
        }
    }

    #[test]
    fn what_a_run_remembers_of_its_cases_follows_how_many_there_are_and_not_where_they_are() {
        let mut cases = CaseSet::default();
        for case in 0..1_000 {
            cases.insert(1_000_000 + case);
        }
        assert_eq!(cases.chunks.len(), 3);
        assert_eq!(cases.chunks.capacity(), 3, "no room that is not needed");
        let again: CaseSet = postcard::from_bytes(&postcard::to_stdvec(&cases).unwrap()).unwrap();
        assert_eq!((again.chunks.len(), again.chunks.capacity()), (3, 3));
    }
}
