//! Which of Empirical's cases are tracked, and which of them are worth asking about now.
//! Analytics lag behind a run's end, so a finished run's results are awaited case by case; never builds a request.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::model::{CaseInfo, CaseOutcome, CaseResult, Group, Name, Run, RunId};
use crate::sources::CaseSettings;

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

/// A tracked case.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Tracked {
    info: Option<CaseInfo>,
    #[serde(with = "crate::packed")]
    first_seen: Timestamp,
    #[serde(with = "crate::packed")]
    refreshed: Option<Timestamp>,
    /// Set when an answer was cut too early: ask again for so many entries.
    deeper: Option<u64>,
    /// Not before then: the server could not answer for this case.
    #[serde(with = "crate::packed")]
    not_before: Option<Timestamp>,
    /// Where it has results, and whether a pass is known there.
    passed_in: BTreeMap<Group, bool>,
    last_pass_asked: bool,
    /// Its history was read back to the lookback, or as far as the platform lets us: no older pass can be found there.
    whole: bool,
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

/// What outlives the process.
#[derive(Serialize, Deserialize)]
pub(super) struct Memory<'a> {
    tracked: Cow<'a, BTreeMap<Name, Tracked>>,
    awaited: Cow<'a, BTreeMap<RunId, Awaited>>,
    patient: bool,
}

/// One history request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Batch {
    pub(super) ids: Vec<String>,
    pub(super) days: u64,
    pub(super) limit: u64,
}

/// All tracked cases and all awaited results.
#[derive(Debug)]
pub(super) struct Cases {
    tracked: BTreeMap<Name, Tracked>,
    awaited: BTreeMap<RunId, Awaited>,
    max: usize,
    left_out: bool,
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
            max: settings.max,
            left_out: false,
            patient: false,
            lag: SignedDuration::try_from(settings.analytics_lag).unwrap_or(SignedDuration::from_mins(3)),
            lookback_days: lookback.as_secs().div_ceil(86_400).clamp(1, 90),
        }
    }

    pub(super) fn is_tracked(&self, id: &Name) -> bool {
        self.tracked.contains_key(id)
    }

    pub(super) fn first_round_is_over(&mut self) {
        self.patient = true;
    }

    pub(super) fn len(&self) -> usize {
        self.tracked.len()
    }

    /// Whether cases were left out because `cases.max` is reached; true once.
    pub(super) fn take_left_out(&mut self) -> bool {
        std::mem::take(&mut self.left_out)
    }

    /// Takes a case into the table. The info comes back if it is news.
    pub(super) fn track(&mut self, id: &Name, info: Option<CaseInfo>, now: Timestamp) -> Option<CaseInfo> {
        if !self.tracked.contains_key(id) && self.tracked.len() >= self.max {
            self.left_out = true;
            return None;
        }
        let tracked = self.tracked.entry(id.clone()).or_insert_with(|| Tracked {
            info: None,
            first_seen: now,
            refreshed: None,
            deeper: None,
            not_before: None,
            passed_in: BTreeMap::new(),
            last_pass_asked: false,
            whole: false,
        });
        let news = info.is_some() && tracked.info != info;
        if news {
            tracked.info = info;
        }
        news.then(|| tracked.info.clone()).flatten()
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
        }
    }

    /// Whether results of this run are still to come.
    pub(super) fn awaits(&self, run: RunId) -> bool {
        self.awaited.contains_key(&run)
    }

    /// The cases worth asking about now: those of new runs first, then the ones that have waited longest.
    fn due(&self, now: Timestamp) -> Vec<(u8, Timestamp, &Name)> {
        let mut waiting: BTreeSet<&Name> = BTreeSet::new();
        let mut awaited: BTreeSet<&Name> = BTreeSet::new();
        for (id, wait) in self.awaited.values().flat_map(|run| &run.cases) {
            if wait.next <= now {
                awaited.insert(id);
            } else {
                waiting.insert(id);
            }
        }
        let class = |id: &Name, tracked: &Tracked| match (awaited.contains(id), tracked.refreshed) {
            _ if tracked.not_before.is_some_and(|time| time > now) => None,
            (true, None) => Some(0),
            (true, Some(_)) if tracked.deeper.is_none() => Some(1),
            (false, None) if !self.patient || !waiting.contains(id) => Some(2),
            _ if tracked.deeper.is_some() => Some(3),
            _ => None,
        };
        let mut due: Vec<_> = self
            .tracked
            .iter()
            .filter_map(|(id, case)| Some((class(id, case)?, case.refreshed.unwrap_or(case.first_seen), id)))
            .collect();
        due.sort_unstable();
        due
    }

    /// The next history request, and how many more there are.
    pub(super) fn batch(&self, size: usize, now: Timestamp) -> Option<(Batch, usize)> {
        let due = self.due(now);
        let deep = due.first()?.0 == 3;
        let limit = |id: &Name| match self.tracked.get(id) {
            Some(Tracked {
                deeper: Some(limit), ..
            }) => *limit,
            Some(Tracked { refreshed: Some(_), .. }) => FOLLOW_UP_LIMIT,
            _ => FIRST_LIMIT,
        };
        let chosen = due.iter().take_while(|(class, ..)| deep || *class < 3).take(size);
        let chosen: Vec<&Name> = chosen.map(|(_, _, id)| *id).collect();
        let limit = chosen.iter().map(|id| limit(id)).max()?;
        let room = (ENTRIES_MAX / usize::try_from(limit).unwrap_or(1)).max(1);
        let ids: Vec<String> = chosen.into_iter().take(room).map(|id| id.to_string()).collect();
        let rest = (due.len() - ids.len()).div_ceil(size.max(1));
        let days = if limit == FOLLOW_UP_LIMIT {
            self.days(&ids, now)
        } else {
            self.lookback_days
        };
        Some((Batch { ids, days, limit }, rest))
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
        }
    }

    /// Goes on with what was kept, but for the cases that the settings of now do not let in.
    pub(super) fn restore(&mut self, memory: Memory<'_>, admits: impl Fn(&str, &str) -> bool) {
        self.tracked = memory.tracked.into_owned();
        self.awaited = memory.awaited.into_owned();
        self.patient = memory.patient;
        self.tracked
            .retain(|id, case| admits(id, case.info.as_ref().map_or("", |info| &info.name)));
        for run in self.awaited.values_mut() {
            run.cases.retain(|id, _| self.tracked.contains_key(id));
        }
        self.awaited.retain(|_, run| !run.cases.is_empty());
    }

    /// A result of a finished run was shown.
    pub(super) fn arrived(&mut self, result: &CaseResult, group: &Group) {
        if let Some(tracked) = self.tracked.get_mut(&result.case) {
            *tracked.passed_in.entry(group.clone()).or_insert(false) |= result.outcome.is_pass();
        }
        if let Some(run) = self.awaited.get_mut(&result.run) {
            run.arrived = true;
            run.cases.remove(&result.case);
        }
    }

    /// A batch was answered. `cut` are the cases of which the answer shows only the newest entries, with the oldest run
    /// shown. Gives the cases whose history stays cut, and the results that are taken from the runs' own word.
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
            tracked.deeper = None;
            let shown_from = cut.get(id.as_str());
            let to_the_end = shown_from.is_none() || batch.limit >= LIMIT_MAX;
            tracked.whole |= to_the_end && batch.days >= self.lookback_days;
            let no_pass = tracked.passed_in.values().any(|passed| !passed);
            let missed =
                shown_from.is_some_and(|from| wanted.is_some_and(|run| from.is_none_or(|oldest| oldest > run)));
            if missed || no_pass && !tracked.whole {
                still_cut += 1;
                tracked.deeper = (batch.limit < LIMIT_MAX).then_some((batch.limit * 10).min(LIMIT_MAX));
            }
        }
        (still_cut, self.settle(batch, now))
    }

    /// What was asked for and did not come is asked for again later, or is taken from the run's own word.
    fn settle(&mut self, batch: &Batch, now: Timestamp) -> Vec<CaseResult> {
        let mut own_word = Vec::new();
        for (run, awaited) in &mut self.awaited {
            let patience = if awaited.arrived { TRIES_MAX } else { u32::MAX };
            let late = now.duration_since(awaited.ended) > GIVE_UP;
            for id in &batch.ids {
                if self.tracked.get(id.as_str()).is_some_and(|case| case.deeper.is_some()) {
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
    }

    /// A case of which no pass is known somewhere where it has results, and that was never asked about.
    pub(super) fn without_pass(&self) -> Option<&Name> {
        let candidate = |case: &Tracked| {
            !case.last_pass_asked && case.deeper.is_none() && case.passed_in.values().any(|passed| !passed)
        };
        self.tracked.iter().find(|(_, case)| candidate(case)).map(|(id, _)| id)
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
        }
    }

    /// When the case that is due and has waited longest was brought up to date; now, if none is due.
    pub(super) fn oldest_refresh(&self, now: Timestamp) -> Option<Timestamp> {
        if self.tracked.is_empty() {
            return None;
        }
        Some(self.due(now).iter().map(|(_, since, _)| *since).min().unwrap_or(now))
    }
}
