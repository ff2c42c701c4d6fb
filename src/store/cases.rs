//! The cases of a source: their places, their texts, and what is known of each one in each group.
//! Never decides whether a result counts (`runs` does), never decides what is shown (`release` and the budget do).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::release::Shown;
use super::runs::{CaseIndex, CaseSet};
use super::snapshot::{CountedRun, Counts, LastResult};
use crate::model::{CaseInfo, CaseOutcome, CaseResult, Name, Run, RunId};

/// Results per case and group that are held one by one, so that they can come in any order and can be edited: 32 runs of
/// one branch in one environment, most of a day's work at one run an hour. Older ones are folded into a summary.
pub(super) const RECENT_MAX: usize = 32;

/// A run's place in time; see [`Run::order`].
pub(super) type Order = (Timestamp, RunId);

/// One result, as much as the gauges need.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    #[serde(with = "crate::packed")]
    order: Order,
    outcome: CaseOutcome,
    /// Whether `at` is the case's own time; else it follows its run's.
    own_time: bool,
    #[serde(with = "crate::packed")]
    at: Option<Timestamp>,
    duration_seconds: Option<f64>,
}

impl Entry {
    pub(super) fn new(result: &CaseResult, run: &Run) -> Self {
        Self {
            order: run.order(),
            outcome: result.outcome,
            own_time: result.executed.is_some(),
            at: result.executed.or(run.ended),
            duration_seconds: result.duration_seconds,
        }
    }
}

/// The results that are older than the window, in so few words that late ones can still be added.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Folded {
    last: Option<Entry>,
    #[serde(with = "crate::packed")]
    pass: Option<(Order, Option<Timestamp>)>,
    streak: u64,
    #[serde(with = "crate::packed")]
    streak_from: Option<Order>,
}

impl Folded {
    /// Adds a result at any place.
    ///
    /// Exact for every result that is newer than what is folded, for every failure, and for a pass that is older than
    /// the last known pass or than the oldest failure since. A pass that comes so late that it falls between folded
    /// failures moves the last pass, which stays right, but not the streak: how many of the failures came after it is no
    /// longer known, and a streak that is too long does not hide a failing case.
    fn add(&mut self, entry: Entry) {
        let since_pass = self.pass.is_none_or(|(order, _)| entry.order > order);
        if since_pass && entry.outcome.is_failure() {
            self.streak += 1;
            self.streak_from = Some(self.streak_from.map_or(entry.order, |from| from.min(entry.order)));
        }
        let newest = self.last.as_ref().is_none_or(|last| entry.order > last.order);
        if since_pass && entry.outcome.is_pass() {
            self.pass = Some((entry.order, entry.at));
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

/// What [`Recent`] says of now.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Standing {
    pub(super) last: Option<LastResult>,
    pub(super) order: Option<Order>,
    pub(super) last_pass: Option<Timestamp>,
    pub(super) streak: u64,
}

impl Recent {
    /// Adds a result of a run that has none here.
    pub(super) fn insert(&mut self, entry: Entry) {
        if self.folded.last.as_ref().is_some_and(|last| entry.order < last.order) {
            self.folded.add(entry);
            return;
        }
        let mut place = self.entries.partition_point(|other| other.order < entry.order);
        if self.entries.len() == RECENT_MAX {
            if place == 0 {
                self.folded.add(entry);
                return;
            }
            self.folded.add(self.entries.remove(0));
            place -= 1;
        }
        self.entries.insert(place, entry);
    }

    /// Replaces the result of a run by an edited one; false if it is the same, or too old to be changed.
    pub(super) fn replace(&mut self, entry: Entry) -> bool {
        let Some(known) = self
            .entries
            .iter_mut()
            .rev()
            .find(|known| known.order.1 == entry.order.1)
        else {
            return false;
        };
        if *known == entry {
            return false;
        }
        *known = entry;
        true
    }

    /// Follows a run whose times were edited.
    pub(super) fn move_run(&mut self, run: &Run) {
        let Some(place) = self.entries.iter().rposition(|known| known.order.1 == run.id) else {
            return;
        };
        let mut entry = self.entries.remove(place);
        entry.order = run.order();
        if !entry.own_time {
            entry.at = run.ended;
        }
        self.insert(entry);
    }

    /// The newest result's place in time.
    pub(super) fn newest(&self) -> Option<Order> {
        self.newest_entry().map(|entry| entry.order)
    }

    /// How the case went last.
    pub(super) fn outcome(&self) -> Option<CaseOutcome> {
        self.newest_entry().map(|entry| entry.outcome)
    }

    fn newest_entry(&self) -> Option<&Entry> {
        self.entries.last().or(self.folded.last.as_ref())
    }

    /// The oldest result that is held one by one.
    pub(super) fn oldest(&self) -> Option<Order> {
        self.entries.first().map(|entry| entry.order)
    }

    /// Whether any known result is a pass.
    pub(super) fn has_passed(&self) -> bool {
        self.folded.pass.is_some() || self.entries.iter().any(|entry| entry.outcome.is_pass())
    }

    /// Failures since the last pass, and that pass. Outcomes that are neither are passed over.
    pub(super) fn streak(&self) -> (u64, Option<Timestamp>) {
        let mut streak = 0;
        for entry in self.entries.iter().rev() {
            if entry.outcome.is_pass() {
                return (streak, entry.at);
            }
            streak += u64::from(entry.outcome.is_failure());
        }
        (streak + self.folded.streak, self.folded.pass.and_then(|(_, at)| at))
    }

    /// Whether a result since `since` was a failure or a flake, as far as single results are held.
    pub(super) fn was_in_trouble(&self, since: Timestamp) -> bool {
        let mut since_then = self.entries.iter().rev().take_while(|entry| entry.order.0 >= since);
        since_then.any(|entry| entry.outcome.is_failure() || entry.outcome == CaseOutcome::Flaky)
    }

    pub(super) fn standing(&self) -> Standing {
        let (streak, last_pass) = self.streak();
        let last = self.newest_entry().map(|entry| LastResult {
            outcome: entry.outcome,
            at: entry.at,
            duration_seconds: entry.duration_seconds,
        });
        Standing {
            last,
            order: self.newest(),
            last_pass,
            streak,
        }
    }
}

/// What is counted, and the newest run counted under each outcome.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Tally {
    pub(super) counts: Counts,
    pub(super) newest: [Option<Arc<CountedRun>>; CaseOutcome::COUNT],
}

impl Tally {
    /// Counts a result of a run.
    pub(super) fn count(&mut self, result: &CaseResult, run: &Arc<CountedRun>) {
        self.counts.add(result);
        run.remember_in(&mut self.newest[result.outcome.index()]);
    }

    /// Adds all of another one.
    pub(super) fn merge(&mut self, other: Self) {
        self.counts.merge(&other.counts);
        for (known, run) in self.newest.iter_mut().zip(other.newest) {
            if let Some(run) = run {
                run.remember_in(known);
            }
        }
    }
}

/// One case in one group.
///
/// Each result is counted in one place for good: in the case's own series, or in its group's `__other__` if the case had none
/// when the round ended. So neither runs backwards when a case comes and goes, and their increases add up to the truth.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Row {
    /// What its own series count. While the case has none, this stands still.
    pub(super) own: Tally,
    /// What was counted since the last round ended, and is in neither place yet.
    pub(super) pending: Option<Box<Tally>>,
    /// Whether it had series of its own when the last round ended.
    pub(super) admitted: bool,
    /// The generation in which its series changed last; `None`: not known, so that it counts as now.
    #[serde(skip)]
    pub(super) changed: Option<u64>,
    /// Its series have come back, and nobody has seen yet where they go on: what is counted now has to wait, or those who
    /// add up increases would not see it happen.
    pub(super) returning: bool,
    /// What its series counted when they came back last.
    pub(super) came_back_at: Option<Arc<Counts>>,
    pub(super) recent: Recent,
    /// The last pass as upstream tells it, which may be older than any result that is known.
    #[serde(with = "crate::packed")]
    pub(super) told_pass: Option<Timestamp>,
    pub(super) shown: Shown,
    /// When something was last learned of it.
    #[serde(with = "crate::packed")]
    pub(super) touched: Timestamp,
}

impl Row {
    pub(super) fn new(clock: Timestamp) -> Self {
        Self {
            own: Tally::default(),
            pending: None,
            admitted: false,
            changed: None,
            returning: false,
            came_back_at: None,
            recent: Recent::default(),
            told_pass: None,
            shown: Shown::Never,
            touched: clock,
        }
    }

    /// When the case was last seen to exist: when its newest run ended, or, without any, when something was learned of it.
    pub(super) fn seen(&self) -> Timestamp {
        let newest = self.recent.newest().map(|(ended, _)| ended);
        newest.filter(|ended| *ended > Timestamp::MIN).unwrap_or(self.touched)
    }

    /// Whether it has counts that no series has shown, so that some series must.
    pub(super) fn owes(&self) -> bool {
        self.pending.is_some() || self.shown != Shown::Truth && self.own.counts != Counts::default()
    }

    /// Whether its series may show what no scrape has taken. They must not leave then: their last step would be lost to those
    /// who add up increases.
    pub(super) fn is_unseen(&self, scraped: u64) -> bool {
        self.admitted && self.changed.is_none_or(|changed| changed > scraped)
    }

    /// A round has ended as `generation`, and the case has series of its own. `scraped` is the newest generation that a
    /// scrape has taken.
    pub(super) fn admit(&mut self, generation: u64, scraped: u64) {
        if !self.admitted && self.shown == Shown::Truth {
            self.came_back_at = Some(Arc::new(self.own.counts.clone()));
            self.returning = true;
        }
        self.admitted = true;
        if self.changed.is_none() {
            self.changed = Some(generation);
        }
        self.returning &= self.is_unseen(scraped);
        if self.returning {
            return;
        }
        if let Some(pending) = self.pending.take() {
            self.own.merge(*pending);
            self.changed = Some(generation);
        }
    }

    /// A round has ended, and the case has no series of its own. What no series has counted yet goes on waiting.
    pub(super) fn leave(&mut self) {
        self.admitted = false;
        self.returning = false;
        self.changed = None;
        self.shown.leave_out();
    }

    /// The same, but gives what no series has counted yet.
    pub(super) fn fold(&mut self) -> Option<Tally> {
        self.leave();
        let pending = self.pending.take().map(|pending| *pending);
        if self.shown == Shown::Truth || self.own.counts == Counts::default() {
            return pending;
        }
        let mut uncounted = std::mem::take(&mut self.own);
        uncounted.merge(pending.unwrap_or_default());
        Some(uncounted)
    }
}

/// A case's place.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Slot {
    name: Name,
    info: Option<CaseInfo>,
    #[serde(with = "crate::packed")]
    touched: Timestamp,
}

/// The cases of a source. A place is given again only when nothing remembers its last owner.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Cases {
    slots: Vec<Option<Slot>>,
    refused: u64,
    // What follows is found again from the slots and the configuration, see `reopen`.
    #[serde(skip)]
    places: HashMap<Name, CaseIndex>,
    #[serde(skip)]
    free: BTreeSet<CaseIndex>,
    #[serde(skip)]
    max: usize,
}

impl Cases {
    pub(super) fn new(max: usize) -> Self {
        Self {
            places: HashMap::new(),
            slots: Vec::new(),
            free: BTreeSet::new(),
            max,
            refused: 0,
        }
    }

    /// Makes what is kept whole again.
    pub(super) fn reopen(&mut self, max: usize) {
        self.max = max;
        for (slot, place) in self.slots.iter().zip(0..) {
            match slot {
                Some(slot) => drop(self.places.insert(slot.name.clone(), place)),
                None => drop(self.free.insert(place)),
            }
        }
    }

    /// Fewer than there are now: the ones that are known stay.
    pub(super) fn set_max(&mut self, max: usize) {
        self.max = max;
    }

    /// The place of a case, a new one if need be. `None`: there are as many cases as are tracked.
    pub(super) fn place(&mut self, name: &Name, clock: Timestamp) -> Option<CaseIndex> {
        if let Some(&place) = self.places.get(name) {
            if let Some(slot) = &mut self.slots[place as usize] {
                slot.touched = clock;
            }
            return Some(place);
        }
        if self.places.len() >= self.max {
            self.refused += 1;
            return None;
        }
        let slot = Some(Slot {
            name: name.clone(),
            info: None,
            touched: clock,
        });
        let place = match self.free.pop_first() {
            Some(place) => {
                self.slots[place as usize] = slot;
                place
            }
            None => {
                let place = CaseIndex::try_from(self.slots.len()).ok()?;
                self.slots.push(slot);
                place
            }
        };
        self.places.insert(name.clone(), place);
        Some(place)
    }

    pub(super) fn find(&self, name: &Name) -> Option<CaseIndex> {
        self.places.get(name).copied()
    }

    pub(super) fn name(&self, place: CaseIndex) -> Option<&Name> {
        self.slots.get(place as usize)?.as_ref().map(|slot| &slot.name)
    }

    pub(super) fn info(&self, place: CaseIndex) -> Option<&CaseInfo> {
        self.slots.get(place as usize)?.as_ref()?.info.as_ref()
    }

    pub(super) fn describe(&mut self, info: CaseInfo, clock: Timestamp) {
        if let Some(place) = self.place(&info.case, clock)
            && let Some(slot) = &mut self.slots[place as usize]
        {
            // Who tells no tags does not say that there are none.
            let known_tags = || slot.info.as_ref().and_then(|known| known.tags.clone());
            slot.info = Some(CaseInfo {
                tags: info.tags.clone().or_else(known_tags),
                ..info
            });
        }
    }

    /// The tags of the cases that have some, by place.
    pub(super) fn tags(&self) -> BTreeMap<CaseIndex, Name> {
        let tags = |slot: &Option<Slot>| slot.as_ref()?.info.as_ref()?.tags.clone();
        let slots = self.slots.iter().zip(0..);
        slots
            .filter_map(|(slot, place)| Some((place, tags(slot)?)))
            .filter(|(_, tags)| !tags.is_empty())
            .collect()
    }

    /// Puts back what [`Self::tags`] gave.
    pub(super) fn set_tags(&mut self, tags: BTreeMap<CaseIndex, Name>) {
        for (place, tags) in tags {
            let slot = self.slots.get_mut(place as usize).and_then(Option::as_mut);
            if let Some(info) = slot.and_then(|slot| slot.info.as_mut()) {
                info.tags = Some(tags);
            }
        }
    }

    /// Forgets the cases that nothing uses and nothing has spoken of since `cutoff`.
    pub(super) fn forget_before(&mut self, cutoff: Timestamp, used: &CaseSet) {
        for (slot, place) in self.slots.iter_mut().zip(0..) {
            let Some(known) = slot.take_if(|known| known.touched < cutoff && !used.contains(place)) else {
                continue;
            };
            self.places.remove(&known.name);
            self.free.insert(place);
        }
    }

    /// One more than the highest place, given or free.
    pub(super) fn places(&self) -> usize {
        self.slots.len()
    }

    /// Cases that have a place.
    pub(super) fn known(&self) -> usize {
        self.places.len()
    }

    /// Facts that were passed over because there were as many cases as are tracked.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }
}
