//! Cases that go on under another id: a test that is renamed in the platform's eyes, though its file, its suite and its title are
//! the same. Its streak and its last pass go on; its counters do not, for they belong to ids.
//!
//! The rule, which is the same whatever the order in which results arrive within a round:
//!
//! - A case *appears* in a group (an environment and a branch) with its first result there.
//! - It continues another case of the group if that has the same name, suite and file, has stopped (its newest result is older
//!   than the first one of the case that appears) and is not continued already.
//! - If two cases could be continued, or two that appear could continue the same one, nothing is.
//! - A case that has a result after all, no older than its successor's first, had not stopped: it is continued no longer.
//!
//! Never looks at outcomes, never moves a result: whoever wants to know asks for the case that came before.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::cases::{Cases, Row};
use super::recent::Order;
use super::runs::{CaseIndex, CaseSet};
use crate::model::Name;

/// A case that goes on under another id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Link {
    /// What it was.
    pub(super) old: CaseIndex,
    /// The first result under the new id.
    #[serde(with = "crate::packed")]
    from: Order,
}

/// Among more cases of the same text nobody knows which was which; looking at all of them for each would take too long.
const ALIKE_MAX: usize = 16;

/// The successions of a group, by successor, and the cases about which nothing is decided yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Renames {
    links: BTreeMap<CaseIndex, Link>,
    appeared: Vec<CaseIndex>,
}

/// What makes two cases one in people's eyes. Without a name and a file nothing does.
fn text(cases: &Cases, case: CaseIndex) -> Option<(&Name, &Name, &Name)> {
    let info = cases.info(case)?;
    let is_told = !info.name.is_empty() && !info.file.is_empty();
    is_told.then_some((&info.name, &info.suite, &info.file))
}

impl Renames {
    /// What was kept.
    pub(super) fn of(links: BTreeMap<CaseIndex, Link>) -> Self {
        Self {
            links,
            appeared: Vec::new(),
        }
    }

    pub(super) fn links(&self) -> &BTreeMap<CaseIndex, Link> {
        &self.links
    }

    /// A case has its first fact here.
    pub(super) fn appears(&mut self, case: CaseIndex) {
        self.appeared.push(case);
    }

    /// A round has ended: decides about the cases that have appeared in it.
    pub(super) fn decide(&mut self, rows: &HashMap<CaseIndex, Box<Row>>, cases: &Cases) {
        if self.appeared.is_empty() {
            return;
        }
        let first = |case: CaseIndex| rows.get(&case)?.recent.oldest();
        let appeared = std::mem::take(&mut self.appeared);
        let (mut news, waiting): (Vec<_>, Vec<_>) = appeared
            .into_iter()
            .filter(|case| rows.contains_key(case))
            .partition(|case| first(*case).is_some());
        // Of a case whose first result is no longer held nobody knows what came before it.
        news.retain(|case| !rows.get(case).is_some_and(|row| row.recent.has_folded()));
        // A last pass may be told before the first result.
        self.appeared = waiting;
        if news.is_empty() {
            return;
        }
        news.sort_by_key(|case| first(*case));
        let mut alike: HashMap<(&Name, &Name, &Name), Vec<CaseIndex>> = HashMap::new();
        for case in rows.keys() {
            if let Some(text) = text(cases, *case) {
                alike.entry(text).or_default().push(*case);
            }
        }
        let mut continued = CaseSet::default();
        for link in self.links.values() {
            continued.insert(link.old);
        }
        for same_time in news.chunk_by(|a, b| first(*a) == first(*b)) {
            let mut claims: Vec<(CaseIndex, Link)> = Vec::new();
            for case in same_time {
                let known = text(cases, *case).and_then(|text| alike.get(&text));
                let known = known.filter(|known| known.len() <= ALIKE_MAX);
                let Some((known, from)) = known.zip(first(*case)) else {
                    continue;
                };
                let has_stopped = |old: &&CaseIndex| {
                    let newest = rows.get(*old).and_then(|row| row.recent.newest());
                    **old != *case && newest.is_some_and(|newest| newest < from) && !continued.contains(**old)
                };
                let mut stopped = known.iter().filter(has_stopped);
                if let (Some(old), None) = (stopped.next(), stopped.next()) {
                    claims.push((*case, Link { old: *old, from }));
                }
            }
            for (case, link) in &claims {
                if claims.iter().filter(|(_, other)| other.old == link.old).count() == 1 {
                    self.links.insert(*case, *link);
                    continued.insert(link.old);
                }
            }
        }
    }

    /// Forgets what is no longer there.
    pub(super) fn forget(&mut self, rows: &HashMap<CaseIndex, Box<Row>>) {
        self.links
            .retain(|case, link| rows.contains_key(case) && rows.contains_key(&link.old));
    }

    /// What a case was before, if that still holds.
    pub(super) fn before(&self, case: CaseIndex, rows: &HashMap<CaseIndex, Box<Row>>) -> Option<CaseIndex> {
        let link = self.links.get(&case)?;
        let newest = rows.get(&link.old)?.recent.newest();
        newest.is_some_and(|newest| newest < link.from).then_some(link.old)
    }

    /// The cases that are kept for the sake of what they have become, as far as `lives` says so.
    pub(super) fn kept_by(&self, lives: impl Fn(CaseIndex) -> bool) -> CaseSet {
        let mut kept = CaseSet::default();
        for successor in self.links.keys().filter(|successor| lives(**successor)) {
            let mut case = *successor;
            // No chain is longer than there are links.
            for _ in 0..self.links.len() {
                let Some(link) = self.links.get(&case) else { break };
                kept.insert(link.old);
                case = link.old;
            }
        }
        kept
    }
}

#[cfg(test)]
mod tests;
