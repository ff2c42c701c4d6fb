//! The table of a platform's runs, as far as it is the same on every platform: who is worth a request and since when, what is
//! put off and for how long, what may be read again, and what is forgotten. Never reads a row, never plans a request.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::model::{Group, Run, RunId};

/// Runs that are remembered at the most, whatever a platform lists: 90 days of more than 500 a day.
const RUNS_MAX: usize = 50_000;

/// Finished runs are forgotten this long after the lookback: nothing upstream returns them any more.
const RETENTION_MARGIN: SignedDuration = SignedDuration::from_hours(48);

/// What the server cannot serve of a run is tried again, less and less often, up to this pause.
const RETRY_MAX: SignedDuration = SignedDuration::from_hours(1);

/// So many runs in a row that are not worth reading again end the walk over the recent ones: what is behind them is old.
const REREAD_SKIPS_MAX: usize = 1_000;

/// Where a run stands. `O` is what is known of an open one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Standing<O> {
    /// Not finished, or not known to be.
    Open(O),
    /// Finished, and what it tells of itself is worth a request.
    Due {
        tries: u32,
        #[serde(with = "crate::packed")]
        not_before: Timestamp,
    },
    /// Finished before this source was first met; it is read only where it tells something.
    Presumed,
    /// Finished, and read.
    Read,
}

impl<O> Standing<O> {
    fn is_told(&self) -> bool {
        matches!(self, Self::Read | Self::Presumed)
    }
}

/// A run as far as it is known.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Known<O> {
    pub(super) run: Run,
    pub(super) standing: Standing<O>,
}

/// All of them, by id.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Table<O> {
    pub(super) known: BTreeMap<RunId, Known<O>>,
}

impl<O> Default for Table<O> {
    fn default() -> Self {
        Self { known: BTreeMap::new() }
    }
}

impl<O> Table<O> {
    pub(super) fn get(&self, id: RunId) -> Option<&Known<O>> {
        self.known.get(&id)
    }

    pub(super) fn remove(&mut self, id: RunId) {
        self.known.remove(&id);
    }

    pub(super) fn set(&mut self, id: RunId, standing: Standing<O>) {
        if let Some(known) = self.known.get_mut(&id) {
            known.standing = standing;
        }
    }

    /// The run, if its results may be told: it is finished and the store has heard of it.
    pub(super) fn finished(&self, id: RunId) -> Option<&Known<O>> {
        self.get(id).filter(|known| known.standing.is_told())
    }

    /// The ids of some, in the order in which they were created.
    pub(super) fn ids(&self, which: impl Fn(RunId, &Known<O>) -> bool) -> Vec<RunId> {
        self.known
            .iter()
            .filter(|(id, known)| which(**id, known))
            .map(|(id, _)| *id)
            .collect()
    }

    /// The runs that are to be read now, in the order in which they were created.
    pub(super) fn due(&self, now: Timestamp) -> Vec<RunId> {
        self.ids(|_, known| matches!(known.standing, Standing::Due { not_before, .. } if not_before <= now))
    }

    /// When the run that has waited longest to be read was found to be finished, or put off.
    pub(super) fn waiting_since(&self) -> Option<Timestamp> {
        let since = |known: &Known<O>| match known.standing {
            Standing::Due { not_before, .. } => Some(not_before),
            _ => None,
        };
        self.known.values().filter_map(since).min()
    }

    /// The newest run that was read, is not older than `from` and comes before `last` in a walk from the newest one.
    pub(super) fn read_before(&self, last: Option<RunId>, from: Timestamp) -> Option<RunId> {
        let recent = |known: &Known<O>| {
            let time = known.run.ended.or(known.run.created);
            matches!(known.standing, Standing::Read) && time.is_some_and(|time| time >= from)
        };
        let older = self.known.range(..last.unwrap_or(RunId::MAX)).rev();
        let mut older = older.take(REREAD_SKIPS_MAX);
        older.find(|(_, known)| recent(known)).map(|(id, _)| *id)
    }

    /// What is to be read of a run is not to be had now; it is tried again, ever later. Gives how often that was so.
    pub(super) fn postpone(&mut self, id: RunId, now: Timestamp) -> u32 {
        match self.known.get_mut(&id).map(|known| &mut known.standing) {
            Some(Standing::Due { tries, not_before }) => {
                *tries = (*tries + 1).min(16);
                *not_before = now + SignedDuration::from_mins(1 << (*tries - 1).min(10)).min(RETRY_MAX);
                *tries
            }
            _ => 0,
        }
    }

    /// Where they ran.
    pub(super) fn groups(&self) -> BTreeSet<&Group> {
        self.known.values().map(|known| &known.run.group).collect()
    }

    /// Forgets finished runs that nothing upstream returns any more, by the time that the platform goes by. A run without
    /// that time cannot be told from a new one once it is forgotten: it stays.
    pub(super) fn prune(&mut self, now: Timestamp, lookback: SignedDuration, time: impl Fn(&Run) -> Option<Timestamp>) {
        let oldest = now - lookback - RETENTION_MARGIN;
        self.known
            .retain(|_, known| !known.standing.is_told() || time(&known.run).is_none_or(|time| time >= oldest));
        // Whatever a platform invents: the oldest leave.
        while self.known.len() > RUNS_MAX {
            self.known.pop_first();
        }
    }
}
