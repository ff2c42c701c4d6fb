//! Which of Empirical's cases are tracked, and which of them are worth asking about now.
//! Analytics lag behind a run's end, so a finished run's results are awaited case by case; never builds a request.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::runs::Runs;
use crate::model::{CaseInfo, CaseOutcome, CaseResult, Group, Name, Run, RunId};
use crate::sources::CaseSettings;
use crate::sources::sweep::{self, Sweep};

/// Results that analytics has not shown this long after the run's end will not come any more.
const GIVE_UP: SignedDuration = SignedDuration::from_hours(2);

/// How many times a case of a run that lists it is asked about, while other cases of the run have results, before the
/// run's own word for it is taken.
const TRIES_MAX: u32 = 5;

/// Entries asked for per case at the first refresh, at a follow-up, and at the most (the platform's own limit).
pub(super) const FIRST_LIMIT: u64 = 50;
const FOLLOW_UP_LIMIT: u64 = 10;
pub(super) const LIMIT_MAX: u64 = 1000;

/// Entries asked for in one request at the most, so that an answer stays near a megabyte.
const ENTRIES_MAX: usize = 5_000;

/// What makes a case worth asking about, in order of worth: new in a run that has finished; known, and in such a run; in such
/// a run, and its newest entries do not reach back to it; never asked about; without a known pass in its newest entries.
const CLASSES: usize = 5;
const NEW: usize = 0;
const AWAITED: usize = 1;
const MISSED: usize = 2;
const UNASKED: usize = 3;
const PASSLESS: usize = 4;

/// By so many minutes a case of a class stands behind one of the first class that has waited as long. That, and not the class
/// alone, is the order: were it the class, a budget that never catches up with the runs would never come to the others. Of a
/// case that only lacks an older pass nothing about the present is missing, and its requests are large: it has a day.
const HANDICAP_MINUTES: [i64; CLASSES] = [0, 15, 30, 45, 24 * 60];

/// Cases are looked through for dead ones at most so often.
const FORGET_PAUSE: SignedDuration = SignedDuration::from_hours(1);

/// A tracked case.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Tracked {
    info: Option<CaseInfo>,
    #[serde(with = "crate::packed")]
    first_seen: Timestamp,
    /// The newest end of a finished run that has listed it or told a result of it.
    #[serde(with = "crate::packed")]
    listed: Option<Timestamp>,
    #[serde(with = "crate::packed")]
    refreshed: Option<Timestamp>,
    /// Set when an answer was cut too early: ask again for so many entries.
    deeper: Option<u64>,
    /// Whether that is for the sake of an awaited run, and not of a pass.
    missed: bool,
    /// Not before then: the server could not answer for this case.
    #[serde(with = "crate::packed")]
    not_before: Option<Timestamp>,
    /// Where it has results, and whether a pass is known there.
    passed_in: BTreeMap<Group, bool>,
    last_pass_asked: bool,
    /// Its history was read back to the lookback, or as far as the platform lets us: no older pass can be found there.
    whole: bool,
    /// Its class and place in the queue, if it is there.
    #[serde(skip)]
    queued: Option<(usize, Timestamp)>,
}

impl Tracked {
    /// No pass of it is known somewhere where it has results, and nobody has been asked.
    fn lacks_pass(&self) -> bool {
        !self.last_pass_asked && self.deeper.is_none() && self.passed_in.values().any(|passed| !passed)
    }
}

/// One case's result in one run that analytics has not shown yet.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Wait {
    tries: u32,
    #[serde(with = "crate::packed")]
    next: Timestamp,
    /// What the run's details say about the case. `None`: they do not list it, it may not have run.
    listed: Option<CaseOutcome>,
}

/// The results of a finished run that are still to come.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Awaited {
    #[serde(with = "crate::packed")]
    from: Timestamp,
    #[serde(with = "crate::packed")]
    ended: Timestamp,
    arrived: bool,
    cases: BTreeMap<Name, Wait>,
}

/// What is awaited of one case at one moment.
#[derive(Debug, Clone, Copy, Default)]
struct Waits {
    /// The oldest end of the runs whose results are asked for now.
    due: Option<Timestamp>,
    /// When the next of the others will be.
    later: Option<Timestamp>,
}

impl Waits {
    fn add(&mut self, run: &Awaited, wait: &Wait, now: Timestamp) {
        let (known, time) = if wait.next <= now {
            (&mut self.due, run.ended)
        } else {
            (&mut self.later, wait.next)
        };
        *known = Some(known.map_or(time, |known| known.min(time)));
    }
}

/// What outlives the process.
#[derive(Serialize, Deserialize)]
pub(super) struct Memory<'a> {
    tracked: Cow<'a, BTreeMap<Name, Tracked>>,
    awaited: Cow<'a, BTreeMap<RunId, Awaited>>,
    patient: bool,
    sweep: Cow<'a, Sweep<Name>>,
}

/// The cases that are due, so that a request costs no look at all the others. Holds for one moment; see `Cases::prepare`.
#[derive(Debug, Default)]
struct Queue {
    made: bool,
    /// Until then nothing becomes due by itself.
    until: Timestamp,
    due: [BTreeSet<(Timestamp, Name)>; CLASSES],
    /// Cases that lack a pass.
    passless: BTreeSet<Name>,
    /// How often all cases were looked at.
    looks: u64,
}

impl Queue {
    /// Puts a case where it belongs.
    fn put(&mut self, id: &Name, tracked: &mut Tracked, waits: Waits, patient: bool, now: Timestamp) {
        let mut until = waits.later.unwrap_or(Timestamp::MAX);
        let class = match (waits.due, tracked.refreshed) {
            _ if tracked.not_before.is_some_and(|time| time > now) => {
                until = tracked.not_before.unwrap_or(until);
                None
            }
            (Some(_), None) => Some(NEW),
            (Some(_), Some(_)) if tracked.missed => Some(MISSED),
            (Some(_), Some(_)) => Some(AWAITED),
            (None, None) if !patient || waits.later.is_none() => Some(UNASKED),
            _ if tracked.deeper.is_some() => Some(PASSLESS),
            _ => None,
        };
        let since = tracked.refreshed.unwrap_or(tracked.first_seen);
        // A case that has not run for a night is as fresh as one that was read just now, up to the end of the next run.
        let since = waits.due.map_or(since, |ended| since.max(ended));
        let place = class.map(|class| (class, since));
        let before = std::mem::replace(&mut tracked.queued, place);
        self.until = self.until.min(until);
        if before != place {
            if let Some((class, since)) = before {
                self.due[class].remove(&(since, id.clone()));
            }
            if let Some((class, since)) = place {
                self.due[class].insert((since, id.clone()));
            }
        }
        if tracked.lacks_pass() {
            self.passless.insert(id.clone());
        } else {
            self.passless.remove(id);
        }
    }

    /// The class that is to be asked about first.
    fn first(&self) -> Option<usize> {
        let head = |class: usize| Some((handicapped(class, self.due[class].first()?.0), class));
        (0..CLASSES).filter_map(head).min().map(|(_, class)| class)
    }
}

fn handicapped(class: usize, since: Timestamp) -> Timestamp {
    since + SignedDuration::from_mins(HANDICAP_MINUTES[class])
}

/// One history request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Batch {
    pub(super) ids: Vec<String>,
    pub(super) days: u64,
    pub(super) limit: u64,
    /// Everything in it was read before.
    pub(super) again: bool,
}

/// All tracked cases and all awaited results.
#[derive(Debug)]
pub(super) struct Cases {
    tracked: BTreeMap<Name, Tracked>,
    awaited: BTreeMap<RunId, Awaited>,
    queue: Queue,
    /// Where the slow re-read is, and the cases that go before it: not before then.
    sweep: Sweep<Name>,
    suspects: BTreeMap<Name, Timestamp>,
    forgotten_at: Option<Timestamp>,
    max: usize,
    refused: u64,
    /// After the first round: a new case of a run whose results are about to come is asked about once, when they have come.
    patient: bool,
    lag: SignedDuration,
    lookback_days: u64,
}

impl Cases {
    pub(super) fn new(settings: &CaseSettings, lookback: Duration) -> Self {
        Self {
            tracked: BTreeMap::new(),
            awaited: BTreeMap::new(),
            queue: Queue::default(),
            sweep: Sweep::default(),
            suspects: BTreeMap::new(),
            forgotten_at: None,
            max: settings.max,
            refused: 0,
            patient: false,
            lag: SignedDuration::try_from(settings.analytics_lag).unwrap_or(SignedDuration::from_mins(3)),
            lookback_days: lookback.as_secs().div_ceil(86_400).clamp(1, 90),
        }
    }

    pub(super) fn is_tracked(&self, id: &Name) -> bool {
        self.tracked.contains_key(id)
    }

    pub(super) fn first_round_is_over(&mut self, now: Timestamp) {
        if !self.patient {
            self.patient = true;
            self.queue.made = false;
            self.sweep.rest(now);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.tracked.len()
    }

    /// How many cases were refused since the last look because `cases.max` is reached.
    pub(super) fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }

    /// Takes a case into the table. The info comes back if it is news.
    pub(super) fn track(&mut self, id: &Name, info: Option<CaseInfo>, now: Timestamp) -> Option<CaseInfo> {
        if !self.tracked.contains_key(id) {
            if self.tracked.len() >= self.max {
                self.refused += 1;
                return None;
            }
            let new = Tracked {
                info: None,
                first_seen: now,
                listed: None,
                refreshed: None,
                deeper: None,
                missed: false,
                not_before: None,
                passed_in: BTreeMap::new(),
                last_pass_asked: false,
                whole: false,
                queued: None,
            };
            self.tracked.insert(id.clone(), new);
            self.requeue(id, now);
        }
        let tracked = self.tracked.get_mut(id)?;
        // Who tells no tags does not say that there are none.
        let known_tags = || tracked.info.as_ref().and_then(|known| known.tags.clone());
        let info = info.map(|info| CaseInfo {
            tags: info.tags.clone().or_else(known_tags),
            ..info
        });
        let news = info.is_some() && tracked.info != info;
        if news {
            tracked.info = info;
        }
        news.then(|| tracked.info.clone()).flatten()
    }

    /// A finished run, or a list of what there is, tells that the case lives.
    pub(super) fn listed(&mut self, id: &str, at: Timestamp) {
        if let Some(tracked) = self.tracked.get_mut(id) {
            tracked.listed = tracked.listed.max(Some(at));
        }
    }

    /// Forgets the cases that no finished run has listed for so long, but for those that are `kept`. One that comes back
    /// is a new one here; the store knows which of its results it has counted. The same for where they had results, once no
    /// run of there is known.
    pub(super) fn forget(&mut self, now: Timestamp, ttl: SignedDuration, kept: impl Fn(&str) -> bool, runs: &Runs) {
        if self
            .forgotten_at
            .is_some_and(|at| now.duration_since(at) < FORGET_PAUSE)
        {
            return;
        }
        self.forgotten_at = Some(now);
        let alive = |tracked: &Tracked| {
            now.duration_since(tracked.first_seen.max(tracked.listed.unwrap_or(Timestamp::MIN))) <= ttl
        };
        let before = self.tracked.len();
        self.tracked.retain(|id, tracked| alive(tracked) || kept(id));
        if self.tracked.len() != before {
            self.drop_untracked();
        }
        let groups = runs.table.groups();
        for tracked in self.tracked.values_mut() {
            tracked.passed_in.retain(|group, _| groups.contains(group));
        }
        self.queue.made = false;
    }

    /// Lets go of whatever is about cases that are not tracked any more.
    fn drop_untracked(&mut self) {
        for run in self.awaited.values_mut() {
            run.cases.retain(|id, _| self.tracked.contains_key(id));
        }
        self.awaited.retain(|_, run| !run.cases.is_empty());
        self.suspects.retain(|id, _| self.tracked.contains_key(id));
        self.queue.made = false;
    }

    /// The run is not there any more.
    pub(super) fn forget_run(&mut self, run: RunId) {
        if self.awaited.remove(&run).is_some() {
            self.queue.made = false;
        }
    }

    /// A run is read: its results are awaited. `listed` are the tracked cases that its details list; unless that list is
    /// `whole`, every other tracked case may have a result too.
    pub(super) fn await_run(&mut self, run: &Run, listed: BTreeMap<Name, CaseOutcome>, whole: bool, now: Timestamp) {
        let ended = run.ended.unwrap_or(now).min(now);
        let next = ended + self.lag;
        let wait = |listed| Wait { tries: 0, next, listed };
        let mut cases: BTreeMap<Name, Wait> = if whole {
            BTreeMap::new()
        } else {
            self.tracked.keys().map(|id| (id.clone(), wait(None))).collect()
        };
        cases.extend(listed.into_iter().map(|(id, outcome)| (id, wait(Some(outcome)))));
        if !cases.is_empty() {
            let from = run.started.or(run.created).unwrap_or(ended);
            self.awaited.insert(
                run.id,
                Awaited {
                    from,
                    ended,
                    arrived: false,
                    cases,
                },
            );
            self.queue.made = false;
        }
    }

    /// Whether results of this run are still to come.
    pub(super) fn awaits(&self, run: RunId) -> bool {
        self.awaited.contains_key(&run)
    }

    /// The runs of which results are still to come.
    pub(super) fn awaited(&self) -> impl Iterator<Item = RunId> + '_ {
        self.awaited.keys().copied()
    }

    /// Looks which cases are due now, if that may have changed since the last look. That is a look at all cases and all that is
    /// awaited of them, so it is for the moment when histories are asked for, and not for each of the runs that are read before.
    pub(super) fn prepare(&mut self, now: Timestamp) {
        if self.queue.made && now < self.queue.until {
            return;
        }
        self.queue = Queue {
            made: true,
            until: Timestamp::MAX,
            looks: self.queue.looks + 1,
            ..Queue::default()
        };
        let mut waits: HashMap<&Name, Waits> = HashMap::new();
        for run in self.awaited.values() {
            for (id, wait) in &run.cases {
                waits.entry(id).or_default().add(run, wait, now);
            }
        }
        for (id, tracked) in &mut self.tracked {
            tracked.queued = None;
            let waits = waits.get(id).copied().unwrap_or_default();
            self.queue.put(id, tracked, waits, self.patient, now);
        }
    }

    /// Puts a case where it belongs in the queue.
    fn requeue(&mut self, id: &Name, now: Timestamp) {
        let Some(tracked) = self.tracked.get_mut(id) else {
            return;
        };
        let mut waits = Waits::default();
        for run in self.awaited.values() {
            if let Some(wait) = run.cases.get(id) {
                waits.add(run, wait, now);
            }
        }
        self.queue.put(id, tracked, waits, self.patient, now);
    }

    /// How often all cases were looked at.
    #[cfg(test)]
    pub(super) fn looks(&self) -> u64 {
        self.queue.looks
    }

    /// Whether no history is to be asked for now.
    pub(super) fn nothing_is_due(&self) -> bool {
        self.queue.first().is_none()
    }

    /// The next history request, and how many more there are.
    pub(super) fn batch(&self, size: usize, now: Timestamp) -> Option<(Batch, usize)> {
        let first = self.queue.first()?;
        // What is asked for in many words is asked for on its own: an answer has its bounds.
        let deep = [MISSED, PASSLESS].contains(&first);
        let classes: &[usize] = if deep {
            &[MISSED, PASSLESS]
        } else {
            &[NEW, AWAITED, UNASKED]
        };
        let limit = |id: &Name| match self.tracked.get(id) {
            Some(tracked) if deep => tracked.deeper.unwrap_or(FIRST_LIMIT),
            Some(Tracked { refreshed: Some(_), .. }) => FOLLOW_UP_LIMIT,
            _ => FIRST_LIMIT,
        };
        let mut chosen: Vec<(Timestamp, &Name)> = classes
            .iter()
            .flat_map(|class| {
                let head = self.queue.due[*class].iter().take(size);
                head.map(|(since, id)| (handicapped(*class, *since), id))
            })
            .collect();
        chosen.sort_unstable();
        chosen.truncate(size);
        let limit = chosen.iter().map(|(_, id)| limit(id)).max()?;
        let room = (ENTRIES_MAX / usize::try_from(limit).unwrap_or(1)).max(1);
        let ids: Vec<String> = chosen.into_iter().take(room).map(|(_, id)| id.to_string()).collect();
        let all: usize = self.queue.due.iter().map(BTreeSet::len).sum();
        let rest = (all - ids.len()).div_ceil(size.max(1));
        let days = if limit == FOLLOW_UP_LIMIT {
            self.days(&ids, now)
        } else {
            self.lookback_days
        };
        let again = false;
        Some((
            Batch {
                ids,
                days,
                limit,
                again,
            },
            rest,
        ))
    }

    /// A run turned out to be edited: its results are read again, before those of the others.
    pub(super) fn suspect(&mut self, ids: impl IntoIterator<Item = Name>, now: Timestamp) {
        let from = now + self.lag;
        for id in ids {
            self.suspects.entry(id).or_insert(from);
        }
    }

    /// The same, where it is not told which cases the run had.
    pub(super) fn suspect_all(&mut self, now: Timestamp) {
        let all: Vec<Name> = self.tracked.keys().cloned().collect();
        self.suspect(all, now);
    }

    /// The next history request of the slow re-read. Only for cases of which nothing is awaited.
    pub(super) fn batch_again(&mut self, size: usize, now: Timestamp) -> Option<Batch> {
        let size = size.min((ENTRIES_MAX as u64 / FIRST_LIMIT) as usize).max(1);
        let ready = |tracked: &Tracked| {
            tracked.refreshed.is_some() && tracked.queued.is_none() && tracked.not_before.is_none_or(|time| time <= now)
        };
        let suspects = self.suspects.iter().filter(|(_, from)| **from <= now);
        let mut ids: Vec<String> = suspects.take(size).map(|(id, _)| id.to_string()).collect();
        if ids.is_empty() {
            let tracked = &self.tracked;
            ids = self.sweep.next(now, sweep::HISTORIES_PAUSE, |last| {
                let from = last.map_or(Bound::Unbounded, |last| Bound::Excluded(last.clone()));
                let next = tracked.range((from, Bound::Unbounded)).filter(|(_, case)| ready(case));
                let ids: Vec<String> = next.take(size).map(|(id, _)| id.to_string()).collect();
                (!ids.is_empty()).then_some(ids)
            })?;
        }
        // Not the whole of it: the store follows edits of a case's newest results only.
        let days = u64::try_from(sweep::WINDOW.as_hours() / 24 + 1).unwrap_or(1);
        Some(Batch {
            ids,
            days: days.min(self.lookback_days),
            limit: FIRST_LIMIT,
            again: true,
        })
    }

    /// A batch of the slow re-read was answered, or is not to be had.
    pub(super) fn passed_again(&mut self, batch: &Batch, now: Timestamp) {
        // Suspects whose time has not come are no part of it: the analytics may not have shown their edit yet.
        let mut of_sweep = true;
        for id in &batch.ids {
            if self.suspects.get(id.as_str()).is_some_and(|from| *from <= now) {
                self.suspects.remove(id.as_str());
                of_sweep = false;
            }
        }
        if let Some(last) = batch.ids.last().filter(|_| of_sweep) {
            self.sweep.passed(Name::from(last.as_str()), now);
        }
    }

    /// How far back the awaited runs of these cases reach.
    fn days(&self, ids: &[String], now: Timestamp) -> u64 {
        let concerned = self
            .awaited
            .values()
            .filter(|run| ids.iter().any(|id| run.cases.contains_key(id.as_str())));
        let oldest = concerned.map(|run| run.from).min().unwrap_or(now);
        let seconds = now.duration_since(oldest).as_secs().max(0);
        // One day more than needed: what a day means to the platform (24 hours or a calendar day) is not said.
        u64::try_from(seconds / 86_400 + 2)
            .unwrap_or(1)
            .clamp(1, self.lookback_days)
    }

    /// What is kept of them; see [`super::Memory`].
    pub(super) fn memory(&self) -> Memory<'_> {
        Memory {
            tracked: Cow::Borrowed(&self.tracked),
            awaited: Cow::Borrowed(&self.awaited),
            patient: self.patient,
            sweep: Cow::Borrowed(&self.sweep),
        }
    }

    /// Goes on with what was kept, but for the cases that the settings of now do not let in.
    pub(super) fn restore(&mut self, memory: Memory<'_>, admits: impl Fn(&str, &str) -> bool) {
        self.tracked = memory.tracked.into_owned();
        self.awaited = memory.awaited.into_owned();
        self.patient = memory.patient;
        self.sweep = memory.sweep.into_owned();
        self.tracked
            .retain(|id, case| admits(id, case.info.as_ref().map_or("", |info| &info.name)));
        self.drop_untracked();
    }

    /// A result of a finished run was shown.
    pub(super) fn arrived(&mut self, result: &CaseResult, run: &Run) {
        if let Some(tracked) = self.tracked.get_mut(&result.case) {
            tracked.listed = tracked.listed.max(run.ended);
            let pass = result.outcome.is_pass();
            match tracked.passed_in.get_mut(&run.group) {
                Some(passed) => *passed |= pass,
                None => drop(tracked.passed_in.insert(run.group.clone(), pass)),
            }
        }
        if let Some(run) = self.awaited.get_mut(&result.run) {
            run.arrived = true;
            run.cases.remove(&result.case);
        }
    }

    /// A batch was answered; [`Self::requeue_all`] comes next. `cut` are the cases of which the answer shows only the newest
    /// entries, with the oldest run shown. Gives the cases whose history stays cut, and the results that are taken from the
    /// runs' own word.
    pub(super) fn answered(
        &mut self,
        batch: &Batch,
        cut: &BTreeMap<&str, Option<Timestamp>>,
        now: Timestamp,
    ) -> (u64, Vec<CaseResult>) {
        let mut still_cut = 0;
        for id in &batch.ids {
            let wanted = self
                .awaited
                .values()
                .filter(|run| run.cases.contains_key(id.as_str()))
                .map(|run| run.from)
                .min();
            let Some(tracked) = self.tracked.get_mut(id.as_str()) else {
                continue;
            };
            tracked.refreshed = Some(now);
            tracked.not_before = None;
            let shown_from = cut.get(id.as_str());
            let to_the_end = shown_from.is_none() || batch.limit >= LIMIT_MAX;
            tracked.whole |= to_the_end && batch.days >= self.lookback_days;
            let lacks_pass = tracked.passed_in.values().any(|passed| !passed) && !tracked.whole;
            tracked.missed =
                shown_from.is_some_and(|from| wanted.is_some_and(|run| from.is_none_or(|oldest| oldest > run)));
            let further = (batch.limit < LIMIT_MAX).then_some((batch.limit * 10).min(LIMIT_MAX));
            tracked.deeper = match tracked.deeper {
                _ if !tracked.missed && !lacks_pass => None,
                // It was asked about in few words meanwhile, for a run's sake.
                Some(wanted) if wanted > batch.limit => Some(wanted),
                _ => further,
            };
            tracked.missed &= tracked.deeper.is_some();
            still_cut += u64::from(tracked.missed || lacks_pass);
        }
        (still_cut, self.settle(batch, now))
    }

    /// After something about these cases has changed.
    pub(super) fn requeue_all(&mut self, ids: &[String], now: Timestamp) {
        for id in ids {
            self.requeue(&Name::from(id.as_str()), now);
        }
    }

    /// What was asked for and did not come is asked for again later, or is taken from the run's own word.
    fn settle(&mut self, batch: &Batch, now: Timestamp) -> Vec<CaseResult> {
        let mut own_word = Vec::new();
        for (run, awaited) in &mut self.awaited {
            let patience = if awaited.arrived { TRIES_MAX } else { u32::MAX };
            let late = now.duration_since(awaited.ended) > GIVE_UP;
            for id in &batch.ids {
                if self.tracked.get(id.as_str()).is_some_and(|case| case.missed) {
                    // The answer was cut before it came to this run: it says nothing about it.
                    continue;
                }
                let Some(wait) = awaited.cases.get_mut(id.as_str()).filter(|wait| wait.next <= now) else {
                    continue;
                };
                wait.tries += 1;
                // 1, 2, 4 ... minutes: lag is a matter of minutes, and a run without results must not cost many requests.
                wait.next = now + SignedDuration::from_mins(1 << (wait.tries - 1).min(6)).max(self.lag / 2);
                let done = match wait.listed {
                    None => awaited.arrived && wait.tries > 1 || wait.tries >= TRIES_MAX,
                    Some(CaseOutcome::Skipped) => awaited.arrived && wait.tries > 1 || late,
                    Some(_) => wait.tries >= patience || late,
                };
                if !done {
                    continue;
                }
                if let Some((
                    case,
                    Wait {
                        listed: Some(outcome), ..
                    },
                )) = awaited.cases.remove_entry(id.as_str())
                {
                    own_word.push(CaseResult {
                        run: *run,
                        case,
                        outcome,
                        executed: None,
                        duration_seconds: None,
                        retries: None,
                        failure_signature: None,
                    });
                }
            }
        }
        self.awaited.retain(|_, awaited| !awaited.cases.is_empty());
        own_word
    }

    /// The server could not answer for these cases: not before a while.
    pub(super) fn postpone(&mut self, ids: &[String], now: Timestamp) {
        for id in ids {
            if let Some(tracked) = self.tracked.get_mut(id.as_str()) {
                tracked.not_before = Some(now + SignedDuration::from_mins(10));
            }
        }
        self.requeue_all(ids, now);
    }

    /// A case of which no pass is known somewhere where it has results, and that was never asked about.
    pub(super) fn without_pass(&self) -> Option<&Name> {
        self.queue.passless.first()
    }

    /// Whether a pass of the case is known there from its results.
    pub(super) fn has_passed(&self, id: &Name, group: &Group) -> bool {
        self.tracked
            .get(id)
            .is_some_and(|case| case.passed_in.get(group) == Some(&true))
    }

    /// The platform was asked for the case's last pass. A later one will be seen as a result.
    pub(super) fn last_pass_asked(&mut self, id: &str) {
        if let Some(tracked) = self.tracked.get_mut(id) {
            tracked.last_pass_asked = true;
            self.queue.passless.remove(id);
        }
    }

    /// When the case that is due and has waited longest was brought up to date; now, if none is due.
    pub(super) fn oldest_refresh(&self, now: Timestamp) -> Option<Timestamp> {
        if self.tracked.is_empty() {
            return None;
        }
        // Nothing about the present is missing of a case that lacks an older pass.
        let heads = self.queue.due[..PASSLESS].iter().filter_map(|class| class.first());
        Some(heads.map(|(since, _)| *since).min().unwrap_or(now))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::RunOutcome;
    use crate::sources::Discovery;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes)
    }

    /// Cases that were asked about at minute 0.
    fn cases(ids: &[&str]) -> Cases {
        let settings = CaseSettings {
            enabled: true,
            discovery: Discovery::RunDetails,
            ids: Vec::new(),
            include: Vec::new(),
            exclude: Vec::new(),
            max: 100,
            batch_size: 50,
            analytics_lag: Duration::from_secs(180),
        };
        let mut cases = Cases::new(&settings, Duration::from_secs(30 * 86_400));
        for id in ids {
            cases.track(&Name::from(*id), None, at(0));
            cases.tracked.get_mut(*id).unwrap().refreshed = Some(at(0));
        }
        cases.prepare(at(0));
        cases
    }

    fn run(id: RunId, ended: i64) -> Run {
        Run {
            id,
            group: Group {
                environment: Name::from("review-1"),
                branch: Name::from("main"),
            },
            outcome: RunOutcome::Failed,
            error_code: None,
            created: None,
            started: None,
            ended: Some(at(ended)),
            duration_seconds: None,
            counts: crate::model::CaseCounts::default(),
            commit: None,
            build_url: None,
        }
    }

    fn failed(case: &str, run: RunId) -> CaseResult {
        CaseResult {
            run,
            case: Name::from(case),
            outcome: CaseOutcome::Failed,
            executed: None,
            duration_seconds: None,
            retries: None,
            failure_signature: None,
        }
    }

    #[test]
    fn a_suspect_whose_time_has_not_come_is_not_passed_with_the_others() {
        let mut cases = cases(&["a", "b", "c"]);
        cases.suspect([Name::from("b")], at(10));
        let batch = cases.batch_again(50, at(11)).unwrap();
        assert_eq!(batch.ids, ["a", "b", "c"], "the walk comes by");
        cases.passed_again(&batch, at(11));
        assert!(cases.batch_again(50, at(12)).is_none(), "the walk is over");
        assert_eq!(cases.batch_again(50, at(13)).unwrap().ids, ["b"]);
    }

    #[test]
    fn where_no_run_is_known_any_more_nothing_is_remembered_of_a_case() {
        let mut cases = cases(&["a"]);
        cases.arrived(&failed("a", 1), &run(1, 0));
        cases.requeue_all(&["a".to_owned()], at(0));
        assert!(cases.without_pass().is_some());
        cases.forget(at(1), SignedDuration::from_hours(24), |_| false, &Runs::default());
        cases.prepare(at(1));
        assert_eq!((cases.len(), cases.without_pass()), (1, None));
        assert!(cases.tracked["a"].passed_in.is_empty());
    }

    proptest! {
        #[test]
        fn kept_case_by_case_the_queue_is_what_a_look_at_all_cases_gives(
            steps in proptest::collection::vec((0_u8..6, 1_u64..4, any::<u8>(), 0_i64..30), 1..40),
        ) {
            let names = ["a", "b", "c", "d", "e"];
            let mut cases = cases(&names[..3]);
            let mut now = 0;
            for (what, id, which, minutes) in steps {
                let chosen = || names.iter().zip(0..).filter(|(_, bit)| which >> bit & 1 == 1).map(|(name, _)| *name);
                let size = 1 + usize::from(which % 4);
                match what {
                    0 => now += minutes,
                    1 => drop(cases.track(&Name::from(names[size]), None, at(now))),
                    2 => {
                        let listed = chosen().filter(|name| cases.tracked.contains_key(*name));
                        let listed = listed.map(|name| (Name::from(name), CaseOutcome::Failed)).collect();
                        cases.await_run(&run(id, now - minutes), listed, which >> 7 == 1, at(now));
                    }
                    3 => cases.forget_run(id),
                    _ => {}
                }
                cases.prepare(at(now));
                if let Some((batch, _)) = cases.batch(size, at(now)).filter(|_| what >= 4) {
                    if what == 4 {
                        for name in batch.ids.iter().filter(|name| chosen().any(|chosen| chosen == *name)) {
                            cases.arrived(&failed(name, id), &run(id, now));
                        }
                        let is_cut = which >> 6 & 1 == 1;
                        let cut = batch.ids.iter().take(usize::from(is_cut));
                        let cut = cut.map(|id| (id.as_str(), Some(at(now - minutes)))).collect();
                        cases.answered(&batch, &cut, at(now));
                        cases.requeue_all(&batch.ids, at(now));
                    } else {
                        cases.postpone(&batch.ids, at(now));
                    }
                }
                let (due, passless, until) = (cases.queue.due.clone(), cases.queue.passless.clone(), cases.queue.until);
                cases.queue.made = false;
                cases.prepare(at(now));
                prop_assert_eq!((&due, &passless), (&cases.queue.due, &cases.queue.passless));
                prop_assert!(until <= cases.queue.until, "what becomes due is seen in time");
            }
        }
    }
}
