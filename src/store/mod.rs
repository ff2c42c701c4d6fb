//! The only writer of what the platforms' numbers are: drops what it has seen, counts the rest, publishes immutable snapshots.
//! Never asks a platform, never knows that pollers exist, never sees a clock (it is told the time), never renders.
//!
//! One task owns the [`Store`] and drives it:
//!
//! - [`Store::update`] for everything that a poller says, in the order in which it says it;
//! - [`Store::tick`] after a scrape has taken a snapshot, and at [`Store::next_release`];
//! - what these return is the snapshot to publish: complete, consistent, never changed again.
//!
//! The rules, each of which is a test:
//!
//! - What is known when the first round succeeds is the baseline: remembered, not counted (`runs`).
//! - A finished run is counted once, a case result once and together with its run's standing, in whatever order, how often
//!   and in whatever rounds they come. Later edits move gauges, never counters.
//! - Only a successful round is published; facts of failed rounds show with the next success.
//! - A new row is served at 0 until that has been scraped (`release`).
//! - When there is room for some of the cases only, the others count in `__other__` (`budget`).
//! - Gauges follow the order in which runs ended, not the order of arrival (`recent`).
//! - Everything is bounded: runs by retention and a maximum, cases, groups, and results that wait for their run. What is
//!   let go is never counted again when it is met again.
//!
//! # What survives a crash
//!
//! All state is plain data. The state after a round and the snapshot that shows it exist together when
//! [`Store::update`] or [`Store::tick`] returns, and nobody has seen the snapshot yet. There the state is kept
//! ([`SourceState::keep`] after a round, [`SourceState::keep_released`] after a tick) and written to the [`ledger`], before
//! the snapshot is handed to scrapes: persist, then publish. A counter that has been scraped can then not go back.
//!
//! What is kept is the end of a round, together with what the source itself remembers at that moment. The next process
//! restores both ([`SourceState::restored`]), shows what was shown ([`Store::reconfigure`]), and reads what came after as if it had only
//! been slow. Zeros that may not have been scraped are shown again; counts that may have been are never hidden again.

mod budget;
mod cases;
mod keep;
pub mod ledger;
mod recent;
mod release;
mod renames;
mod runs;
mod snapshot;
mod snoozes;
mod source_state;
#[cfg(test)]
mod tests;
mod verdicts;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::model::Update;

pub use budget::{SERIES_PER_CASE, SERIES_PER_OTHER};
pub use keep::KeepError;
pub use release::ZEROS_SECONDS_MAX;
pub use snapshot::{
    CaseRow, CountedRun, Counts, ErrorCounts, GroupRow, Histogram, LastResult, Promotion, Snapshot, SnoozeRow,
    SourceSnapshot,
};
pub use source_state::{GROUPS_MAX, Limits, RUN_DURATION_BOUNDS, RUN_QUEUE_BOUNDS, SourceSpec, SourceState};

/// One source of another configuration.
#[derive(Debug)]
pub enum Next {
    /// It goes on from where it is.
    Known {
        /// Its number now.
        place: usize,
        /// What holds from now on.
        spec: Box<SourceSpec>,
    },
    /// It begins here: with nothing, or with what was kept of it.
    New(Box<SourceState>),
}

/// All sources' states, and what is published of them.
#[derive(Debug, Clone)]
pub struct Store {
    sources: Vec<SourceState>,
    series_budget: usize,
    generation: u64,
    /// Since when more series are shown than there is room for: the budget has become smaller.
    crowded_since: Option<Timestamp>,
}

impl Store {
    /// A store that has learned nothing. A source's place in `specs` is the number that its updates carry;
    /// `series_budget` bounds the per-case series of all sources together.
    #[must_use]
    pub fn new(specs: Vec<SourceSpec>, series_budget: usize) -> Self {
        let sources = specs.into_iter().map(SourceState::new).collect();
        Self {
            sources,
            series_budget,
            generation: 0,
            crowded_since: None,
        }
    }

    /// Continues under another configuration, with these sources in this order. What is not among them is forgotten. The
    /// caller sees to it that no update of the old numbering follows. Returns what is to be shown; where the budget has become
    /// smaller, [`Self::tick`] makes the room.
    pub fn reconfigure(&mut self, sources: Vec<Next>, series_budget: usize, now: Timestamp) -> Arc<Snapshot> {
        let mut known: Vec<_> = std::mem::take(&mut self.sources).into_iter().map(Some).collect();
        self.series_budget = series_budget;
        for next in sources {
            self.sources.push(match next {
                Next::Known { place, spec } => match known.get_mut(place).and_then(Option::take) {
                    Some(mut state) => {
                        state.respecify(*spec);
                        state
                    }
                    None => SourceState::new(*spec),
                },
                Next::New(state) => *state,
            });
        }
        self.generation += 1;
        let shown = self.reopen(now).unwrap_or_else(|| self.gather());
        self.crowded_since = (self.series_shown() > self.series_budget).then_some(now);
        shown
    }

    /// Takes what a poller says of its source. `scraped` is the newest generation that a scrape has taken (0: none).
    /// Returns the snapshot to publish, if this ends a successful round. An unknown source's updates are passed over.
    pub fn update(&mut self, source: usize, update: Update, now: Timestamp, scraped: u64) -> Option<Arc<Snapshot>> {
        match update {
            Update::Facts(facts) => {
                self.sources.get_mut(source)?.apply(facts, now);
                None
            }
            Update::RoundEnded { result, at } => {
                if !self.sources.get_mut(source)?.round_ended(result, at) {
                    return None;
                }
                let allowed = self.series_allowed(source, now, scraped);
                self.generation += 1;
                self.sources[source].snapshot(now, self.generation, scraped, allowed);
                Some(self.gather())
            }
        }
    }

    /// What is to be shown of the sources that were restored, before any of them has ended a round. `None`: none was.
    fn reopen(&mut self, now: Timestamp) -> Option<Arc<Snapshot>> {
        let restored: Vec<_> = (0..self.sources.len())
            .filter(|source| {
                let state = &self.sources[*source];
                state.as_of() > Timestamp::MIN && state.published().is_none()
            })
            .collect();
        for source in &restored {
            let allowed = self.series_allowed(*source, now, 0);
            self.generation += 1;
            self.sources[*source].snapshot(now, self.generation, 0, allowed);
        }
        (!restored.is_empty()).then(|| self.gather())
    }

    /// Shows the counts behind zeros that have been scraped, or that nobody scrapes, and takes series away that there is no
    /// room for any more. Returns the snapshot to publish, if there is anything of that.
    pub fn tick(&mut self, now: Timestamp, scraped: u64) -> Option<Arc<Snapshot>> {
        let generation = self.generation + 1;
        // What leaves at 0 leaves before its counts are shown: they count with the others then.
        let mut is_another = self.make_room(now, scraped);
        for source in &mut self.sources {
            is_another |= source.release(now, generation, scraped).is_some();
        }
        is_another.then(|| {
            self.generation = generation;
            self.gather()
        })
    }

    /// A source is not on the page that is about to be published. Until it is again, no scrape has seen anything of it.
    /// `scraped` is the newest generation that a scrape has taken while it was there.
    pub fn withdraw(&mut self, source: usize, scraped: u64) {
        if let Some(source) = self.sources.get_mut(source) {
            source.withdraw(scraped);
        }
    }

    /// After the budget has become smaller: each source that shows more than its share gives the surplus away, at once and
    /// all of them together. A case whose last step no scrape has taken stays until one has, but not for longer than zeros do.
    fn make_room(&mut self, now: Timestamp, scraped: u64) -> bool {
        let Some(since) = self.crowded_since else { return false };
        let waited = now >= crowded_until(since);
        let needs: Vec<_> = self.sources.iter().map(SourceState::series_needed).collect();
        let shares = budget::shares(&needs, self.series_budget);
        let mut is_another = false;
        if self.series_shown() > self.series_budget {
            for (source, share) in self.sources.iter_mut().zip(shares) {
                is_another |= source.shrink(share, (!waited).then_some(scraped)).is_some();
            }
        }
        if waited || self.series_shown() <= self.series_budget {
            self.crowded_since = None;
        }
        is_another
    }

    fn series_shown(&self) -> usize {
        self.sources.iter().map(SourceState::series_shown).sum()
    }

    /// When `tick` has something to show even if nobody scrapes. `None`: nothing is held back, scrapes need no tick.
    #[must_use]
    pub fn next_release(&self) -> Option<Timestamp> {
        let crowded_until = self.crowded_since.map(crowded_until);
        let releases = self.sources.iter().filter_map(SourceState::next_release);
        releases.chain(crowded_until).min()
    }

    /// Everything that is published now.
    #[must_use]
    pub fn newest(&self) -> Arc<Snapshot> {
        self.gather()
    }

    /// The sources, by the number that their updates carry.
    #[must_use]
    pub fn sources(&self) -> &[SourceState] {
        &self.sources
    }

    fn gather(&self) -> Arc<Snapshot> {
        let mut sources: Vec<_> = self
            .sources
            .iter()
            .filter_map(|source| source.published().cloned())
            .collect();
        sources.sort_by(|a, b| a.source.cmp(&b.source));
        Arc::new(Snapshot {
            generation: self.generation,
            sources,
        })
    }

    /// The series that a source's cases may have: what they need if there is room for all, else the source's share. What the
    /// others have published stays until their next round, so the share of one that has grown is what they leave.
    fn series_allowed(&self, source: usize, now: Timestamp, scraped: u64) -> usize {
        let needs: Vec<_> = self.sources.iter().map(SourceState::series_needed).collect();
        let unseen = self.sources[source].series_unseen(scraped);
        let share = if needs.iter().sum::<usize>() <= self.series_budget {
            needs[source]
        } else {
            let share = budget::shares(&needs, self.series_budget)[source];
            // What nobody has seen yet does not leave, even if the others' share has grown.
            share.max(unseen)
        };
        let others: usize = (0..self.sources.len())
            .filter(|other| *other != source)
            .map(|other| self.sources[other].series_shown())
            .sum();
        let allowed = share.min(self.series_budget.saturating_sub(others));
        match self.crowded_since {
            Some(since) if now < crowded_until(since) => allowed.max(unseen),
            _ => allowed,
        }
    }
}

/// When a smaller budget holds whatever has been scraped.
fn crowded_until(since: Timestamp) -> Timestamp {
    since
        .checked_add(SignedDuration::from_secs(ZEROS_SECONDS_MAX))
        .unwrap_or(Timestamp::MAX)
}
