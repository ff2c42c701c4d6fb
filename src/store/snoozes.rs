//! Which cases are snoozed where, as of a moment. Never asks when something is snoozed again, never sees a clock.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;

use super::snapshot::SnoozeRow;
use crate::model::{Name, Snooze};

/// The snoozes that hold at one moment.
#[derive(Debug, Default)]
pub(super) struct Snoozed<'a> {
    /// `None`: nobody knows of snoozes.
    active: Option<Vec<&'a Snooze>>,
    /// By case: when the last of its snoozes ends.
    everywhere: HashMap<&'a Name, Timestamp>,
    by_environment: HashMap<&'a Name, HashMap<&'a Name, Timestamp>>,
}

impl<'a> Snoozed<'a> {
    /// Of all that are known, those that are not over.
    pub(super) fn at(known: Option<&'a [Snooze]>, moment: Timestamp) -> Self {
        let Some(known) = known else { return Self::default() };
        let active: Vec<_> = known.iter().filter(|snooze| snooze.until > moment).collect();
        let mut snoozed = Self::default();
        for snooze in &active {
            let cases = match &snooze.environment {
                None => &mut snoozed.everywhere,
                Some(environment) => snoozed.by_environment.entry(environment).or_default(),
            };
            for case in &snooze.cases {
                let until = cases.entry(case).or_insert(snooze.until);
                *until = snooze.until.max(*until);
            }
        }
        snoozed.active = Some(active);
        snoozed
    }

    /// Whether a case's failures are known and put up with in an environment.
    pub(super) fn covers(&self, environment: &Name, case: &Name) -> bool {
        self.until(environment, case).is_some()
    }

    /// Until when they are.
    pub(super) fn until(&self, environment: &Name, case: &Name) -> Option<Timestamp> {
        let here = self.by_environment.get(environment).and_then(|cases| cases.get(case));
        here.max(self.everywhere.get(case)).copied()
    }

    /// Counts by environment; `cases` are those that each environment has.
    pub(super) fn rows(&self, cases: BTreeMap<Name, HashSet<&Name>>) -> BTreeMap<Name, SnoozeRow> {
        let Some(active) = &self.active else {
            return BTreeMap::new();
        };
        let everywhere = Name::from("");
        let mut rows: BTreeMap<Name, SnoozeRow> = BTreeMap::from([(everywhere.clone(), SnoozeRow::default())]);
        for (environment, cases) in cases {
            let snoozed = cases.iter().filter(|case| self.covers(&environment, case)).count();
            rows.entry(environment).or_default().cases = Some(snoozed as u64);
        }
        for snooze in active {
            let environment = snooze.environment.as_ref().unwrap_or(&everywhere);
            rows.entry(environment.clone()).or_default().active += 1;
        }
        for (environment, row) in &mut rows {
            let holds = |snooze: &&&Snooze| {
                let scope = snooze.environment.as_ref();
                scope.is_none_or(|scope| scope == environment)
            };
            row.next_expiry = active.iter().filter(holds).map(|snooze| snooze.until).min();
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn snooze(cases: &[&str], environment: Option<&str>, until: i64) -> Snooze {
        Snooze {
            cases: cases.iter().map(|case| Name::from(*case)).collect(),
            environment: environment.map(Name::from),
            until: at(until),
        }
    }

    fn row(active: u64, cases: Option<u64>, next_expiry: Option<i64>) -> SnoozeRow {
        SnoozeRow {
            active,
            cases,
            next_expiry: next_expiry.map(at),
        }
    }

    #[test]
    fn a_snooze_holds_in_its_environment_until_its_end_and_one_without_holds_everywhere() {
        let known = [
            snooze(&["a", "b"], Some("staging"), 100),
            snooze(&["b"], None, 200),
            snooze(&["c"], Some("production"), 50),
        ];
        let (staging, production) = (Name::from("staging"), Name::from("production"));
        let (a, b, c) = (Name::from("a"), Name::from("b"), Name::from("c"));
        let covered = |moment| {
            let snoozed = Snoozed::at(Some(&known), at(moment));
            let mut covered = String::new();
            for environment in [&staging, &production] {
                for case in [&a, &b, &c] {
                    covered.push(if snoozed.covers(environment, case) { 'x' } else { '.' });
                }
            }
            let cases = || HashSet::from([&a, &b, &c]);
            let environments = BTreeMap::from([(staging.clone(), cases()), (production.clone(), cases())]);
            (covered, snoozed.rows(environments))
        };
        let rows = |everywhere, staging_row, production_row| {
            BTreeMap::from([
                (Name::from(""), everywhere),
                (staging.clone(), staging_row),
                (production.clone(), production_row),
            ])
        };
        let expected = rows(
            row(1, None, Some(200)),
            row(1, Some(2), Some(100)),
            row(1, Some(2), Some(50)),
        );
        assert_eq!(covered(49), ("xx..xx".into(), expected));
        let expected = rows(
            row(1, None, Some(200)),
            row(1, Some(2), Some(100)),
            row(0, Some(1), Some(200)),
        );
        assert_eq!(
            covered(50),
            ("xx..x.".into(), expected),
            "over at its end, not after it"
        );
        let expected = rows(row(0, None, None), row(0, Some(0), None), row(0, Some(0), None));
        assert_eq!(covered(200), ("......".into(), expected));
    }

    #[test]
    fn nothing_is_said_where_nobody_knows_of_snoozes() {
        let snoozed = Snoozed::at(None, at(0));
        let (environment, case) = (Name::from("staging"), Name::from("a"));
        assert!(!snoozed.covers(&environment, &case));
        assert!(
            snoozed
                .rows(BTreeMap::from([(environment, HashSet::from([&case]))]))
                .is_empty()
        );
    }
}
