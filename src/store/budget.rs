//! Which cases have series of their own while there is room for some only, and how the sources share that room.
//! Never counts: what a case without series of its own has counted is its group's `__other__` (`source_state`).

use std::cmp::Reverse;

use jiff::{SignedDuration, Timestamp};

use super::cases::Row;
use super::recent::Order;
use crate::model::CaseOutcome;

/// Series that one case row can become: six outcomes, retries, duration sum and count, last outcome, last run, last pass,
/// last duration, streak, snoozed, and the case's text; and what its newest results say. Most cases have half as many of the
/// latter, and less: what is not there is not shown.
pub const SERIES_PER_CASE: usize = SERIES_PER_OTHER + 1 + 1 + 1 + 1 + 1 + 1 + 1 + SERIES_OF_HEALTH;

/// Verdict, flake and regression probability, beginning, commits and signatures of the streak, the six outcomes of the
/// window, its retries, flips, contradictory commits.
const SERIES_OF_HEALTH: usize = 1 + 2 + 3 + 6 + 3;

/// Series of a group's `__other__`: the counters alone, for the rest has no sum.
pub const SERIES_PER_OTHER: usize = 6 + 1 + 2;

/// Counters of a case, or of an `__other__`, that can tell when they began: six outcomes, retries, the duration.
const SERIES_OF_CREATED: usize = 6 + 1 + 1;

/// How many series a row can become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Width {
    /// One case.
    pub(super) case: usize,
    /// A group's `__other__`.
    pub(super) other: usize,
}

impl Width {
    /// `created`: where counters tell when they began.
    pub(super) const fn of(created: bool) -> Self {
        let more = if created { SERIES_OF_CREATED } else { 0 };
        Self {
            case: SERIES_PER_CASE + more,
            other: SERIES_PER_OTHER + more,
        }
    }
}

/// How long a failure or a flake keeps its case in front of those that only pass. A case that fails now and then has
/// thereby one set of series all the time, instead of a new one for each failure.
const TROUBLE: SignedDuration = SignedDuration::from_hours(24);

/// How long ago a case may have run to be a recent one; one that has series of its own is given twice as long, so that a
/// nightly run that comes a little late does not cost it its place.
const RECENT: SignedDuration = SignedDuration::from_hours(25);

/// A case row's claim to series of its own; the smaller one wins. Rows of one class keep what they have: being a little
/// newer displaces nobody. Before all others come those whose last step nobody has seen yet: they leave a scrape later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    class: Class,
    newcomer: bool,
    newest: Reverse<Option<Order>>,
    place: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Unseen,
    Failing,
    Troubled,
    Recent,
    Resting,
}

impl Claim {
    /// Of the row at `place`, as of `now`; `scraped` is the newest generation that a scrape has taken.
    pub(super) fn new(row: &Row, now: Timestamp, scraped: u64, place: usize) -> Self {
        let Row { recent, admitted, .. } = row;
        let newest = recent.newest();
        let since = |age: SignedDuration| now.checked_sub(age).unwrap_or(Timestamp::MIN);
        let recently = since(if *admitted { RECENT * 2 } else { RECENT });
        let class = if row.is_unseen(scraped) {
            Class::Unseen
        } else if recent.streak().0 > 0 {
            Class::Failing
        } else if recent.outcome() == Some(CaseOutcome::Flaky) || recent.was_in_trouble(since(TROUBLE)) {
            Class::Troubled
        } else if newest.is_some_and(|(ended, _)| ended >= recently) {
            Class::Recent
        } else {
            Class::Resting
        };
        Self {
            class,
            newcomer: !*admitted,
            newest: Reverse(newest),
            place,
        }
    }
}

/// What a group has to do with `__other__`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Other {
    /// It has one, for good.
    IsThere,
    /// Something has to be counted there.
    Needed,
    /// It has cases; if there is room for some only, these may be the others.
    NeededIfFolded,
    /// It has no cases.
    NotNeeded,
}

/// How much room there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slots {
    /// For so many cases.
    pub(super) cases: usize,
    /// Whether a group may have a sum of the others. Where not, what has to be counted there waits for the next round.
    pub(super) others: Vec<bool>,
}

/// Divides the series that are allowed between cases and the groups' sums of the others. Cases whose last step nobody has seen
/// stay where they are as long as there is room at all, and the sums that are missing wait until then. Where no such case is in
/// the way, the sums are made even beyond what is allowed: what has been counted has to be somewhere.
pub(super) fn slots(allowed: usize, width: Width, cases: usize, unseen: usize, needs: &[Other]) -> Slots {
    let count = |other| needs.iter().filter(|need| **need == other).count();
    let there = count(Other::IsThere);
    if cases * width.case + (there + count(Other::Needed)) * width.other <= allowed {
        let others = needs.iter().map(|need| matches!(need, Other::IsThere | Other::Needed));
        return Slots {
            cases,
            others: others.collect(),
        };
    }
    let for_cases = allowed.saturating_sub(there * width.other);
    let mut room = for_cases.saturating_sub(unseen * width.case);
    let mut others = |need: &Other| match need {
        Other::IsThere => true,
        Other::NotNeeded => false,
        Other::Needed | Other::NeededIfFolded if room >= width.other => {
            room -= width.other;
            true
        }
        Other::Needed | Other::NeededIfFolded => unseen == 0,
    };
    let others = needs.iter().map(&mut others).collect();
    Slots {
        cases: (unseen + room / width.case).min(for_cases / width.case),
        others,
    }
}

/// The places of the `slots` best claims.
pub(super) fn best(mut claims: Vec<Claim>, slots: usize) -> impl Iterator<Item = usize> {
    if slots > 0 && slots < claims.len() {
        claims.select_nth_unstable(slots - 1);
    }
    claims.truncate(slots);
    claims.into_iter().map(|claim| claim.place)
}

/// Shares what there is between sources that need more than there is: the modest ones get what they need, the others as
/// much as each other. Needs are rounded up to whole steps, so that one more case of one source moves no other one's share.
pub(super) fn shares(needs: &[usize], whole: usize) -> Vec<usize> {
    const STEP: usize = 64 * SERIES_PER_CASE;
    let mut shares = vec![0; needs.len()];
    let mut order: Vec<_> = (0..needs.len()).collect();
    order.sort_by_key(|source| needs[*source]);
    let mut left = whole;
    for (done, source) in order.into_iter().enumerate() {
        let need = needs[source].next_multiple_of(STEP);
        shares[source] = need.min(left / (needs.len() - done));
        left -= shares[source];
    }
    shares
}

#[cfg(test)]
mod tests;
