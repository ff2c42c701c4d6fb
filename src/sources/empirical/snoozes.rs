//! Empirical's snoozes: which tests somebody has muted, where, and until when. Asked for by themselves, seldom, and only if
//! that is wanted. Never decides what a snooze means for a case (`store` does), never builds a request.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::wire::SnoozeRow;
use crate::model::{Name, Snooze};
use crate::sources::loose;

/// The platform's largest page of snoozes.
pub(super) const PAGE: usize = 100;

/// A reading ends here at the latest: 2,000 snoozes. Who snoozes more has turned the tests off.
const PAGES_MAX: usize = 20;

/// Tests that all snoozes together may name: as many as cases can be tracked.
const CASES_MAX: usize = 100_000;

/// A platform that refuses to tell its snoozes is asked again so much later: a key's rights change seldom.
const REFUSED_PAUSE: SignedDuration = SignedDuration::from_hours(24);

/// Snoozes that could not be read for so many intervals are let go: somebody may have ended them, and a failure that is
/// shown is better than one that is hidden.
const INTERVALS_MAX: i32 = 3;

/// A snooze as the platform told it: the environment by its id, whose name may be learned later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    cases: Vec<Name>,
    environment: Option<String>,
    #[serde(with = "crate::packed")]
    until: Timestamp,
}

/// What outlives the process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Memory {
    #[serde(with = "crate::packed")]
    asked: Option<Timestamp>,
    #[serde(with = "crate::packed")]
    read: Option<Timestamp>,
    refused: bool,
    rows: Vec<Told>,
}

/// What is known of them.
#[derive(Debug)]
pub(super) struct Snoozes {
    /// How often they are asked for; `None`: never.
    interval: Option<SignedDuration>,
    memory: Memory,
    /// The page that is asked for next, and what the pages before it told.
    page: usize,
    reading: Vec<Told>,
    /// Whether they were asked for in the round before, and in this one.
    had_a_turn: bool,
    has_a_turn: bool,
    /// What the store has been told. `None`: nothing yet, by this process.
    told: Option<Option<Vec<Snooze>>>,
}

impl Snoozes {
    pub(super) fn new(interval: Option<Duration>) -> Self {
        let interval = interval.map(|interval| SignedDuration::try_from(interval).unwrap_or(SignedDuration::MAX));
        Self {
            interval,
            memory: Memory::default(),
            page: 1,
            reading: Vec::new(),
            had_a_turn: false,
            has_a_turn: false,
            told: None,
        }
    }

    /// A round begins.
    pub(super) fn begin(&mut self) {
        self.had_a_turn = std::mem::take(&mut self.has_a_turn);
    }

    /// They are asked for in this round.
    pub(super) fn take_a_turn(&mut self) {
        self.has_a_turn = true;
    }

    /// Whether they were asked for in the round before: what waits comes first then, for a small budget may have room for one
    /// of the two only.
    pub(super) fn had_a_turn(&self) -> bool {
        self.had_a_turn
    }

    /// Whether they are worth a request.
    pub(super) fn are_due(&self, now: Timestamp) -> bool {
        let Some(interval) = self.interval else { return false };
        let pause = if self.memory.refused {
            interval.max(REFUSED_PAUSE)
        } else {
            interval
        };
        let over = |asked: Timestamp| now.duration_since(asked) >= pause;
        self.page > 1 || self.memory.asked.is_none_or(over)
    }

    /// Whether the platform does not want to tell them.
    pub(super) fn are_refused(&self) -> bool {
        self.interval.is_some() && self.memory.refused
    }

    /// The page to ask for.
    pub(super) fn page(&self) -> usize {
        self.page
    }

    /// Takes a page. `pages`: how many there are, if the platform says so. Rows that cannot be used are told to `odd`.
    pub(super) fn accept(
        &mut self,
        rows: Vec<Option<SnoozeRow>>,
        pages: Option<u64>,
        now: Timestamp,
        mut odd: impl FnMut(&'static str),
    ) {
        let full = rows.len() >= PAGE;
        let mut known: usize = self.reading.iter().map(|row| row.cases.len()).sum();
        for row in rows {
            let row = row.unwrap_or_default();
            let Some(until) = row.snooze_until.time(|| ()) else {
                odd("a snooze without a usable snooze_until");
                continue;
            };
            let cases: Vec<Name> = row.test_ids.0.iter().map(|id| loose::name(id)).collect();
            known += cases.len();
            if known > CASES_MAX {
                odd("a snooze beyond the number of tests that can be tracked");
                break;
            }
            self.reading.push(Told {
                cases,
                environment: row.scoped_to_environment_id.0,
                until,
            });
        }
        let more = pages.map_or(full, |pages| full && (self.page as u64) < pages);
        if more && self.page < PAGES_MAX {
            self.page += 1;
            return;
        }
        self.memory = Memory {
            asked: Some(now),
            read: Some(now),
            refused: false,
            rows: std::mem::take(&mut self.reading),
        };
        self.page = 1;
    }

    /// There was no answer. `refused`: nor will there be one soon.
    pub(super) fn failed(&mut self, refused: bool, now: Timestamp) {
        self.page = 1;
        self.reading.clear();
        self.memory.asked = Some(now);
        if refused {
            self.memory.refused = true;
            self.memory.read = None;
            self.memory.rows.clear();
        }
    }

    /// What is to be told to the store now, if it is news: `Some(None)` takes back what was told before.
    pub(super) fn news(
        &mut self,
        now: Timestamp,
        name_of: impl Fn(&str) -> Option<Name>,
    ) -> Option<Option<Vec<Snooze>>> {
        let Some(interval) = self.interval else {
            // They were asked for under another configuration.
            let were_known = std::mem::take(&mut self.memory) != Memory::default();
            return were_known.then_some(None);
        };
        let Some(read) = self.memory.read else {
            // Refused since: what was told before is not known any more.
            return self.told.as_mut()?.take().map(|_| None);
        };
        let age_max = interval.saturating_mul(INTERVALS_MAX);
        if now.duration_since(read) > age_max {
            self.memory.read = None;
            self.memory.rows.clear();
        }
        let known = self.memory.read.is_some().then(|| self.resolved(name_of));
        if self.told.as_ref() == Some(&known) {
            return None;
        }
        self.told = Some(known.clone());
        Some(known)
    }

    /// Those that have a place: one for an environment whose name is not known applies to nothing.
    fn resolved(&self, name_of: impl Fn(&str) -> Option<Name>) -> Vec<Snooze> {
        let resolve = |row: &Told| {
            let environment = match &row.environment {
                None => None,
                Some(id) => Some(name_of(id)?),
            };
            Some(Snooze {
                cases: row.cases.clone(),
                environment,
                until: row.until,
            })
        };
        self.memory.rows.iter().filter_map(resolve).collect()
    }

    /// The ids of environments that snoozes are for and nobody has named.
    pub(super) fn nameless(&self, name_of: impl Fn(&str) -> Option<Name>) -> BTreeSet<&str> {
        let ids = self.memory.rows.iter().filter_map(|row| row.environment.as_deref());
        ids.filter(|id| name_of(id).is_none()).collect()
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(super) fn restore(&mut self, memory: Memory) {
        self.memory = memory;
    }
}

/// The name of an environment id: what runs have told, then what is configured.
pub(super) fn name_of<'a>(
    learned: &'a BTreeMap<String, Name>,
    configured: &'a BTreeMap<String, String>,
) -> impl Fn(&str) -> Option<Name> + 'a {
    |id| {
        let learned = learned.get(id).cloned();
        learned.or_else(|| configured.get(id).map(|name| loose::name(name)))
    }
}
