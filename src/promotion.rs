//! Whether what runs in an environment may be promoted: the conditions against it, each by itself, and the verdict that none
//! holds. Never looks anything up, never sees a clock; whoever asks brings the evidence and the time.
//!
//! Everything here errs on one side: what is not known speaks against a promotion.

use jiff::{SignedDuration, Timestamp};
use regex::Regex;

use crate::model::{Condition, Name, RunOutcome};

/// A clock that was set back by more than this cannot say how old anything is.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(60);

/// What has to hold in an environment.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The labels of the branches whose runs count. Runs without a branch label always do.
    pub branches: Vec<Name>,
    /// How old the newest run may be, and the newest pass of a required case.
    pub run_max_age: SignedDuration,
    /// On a case's name or id: which cases are required. Empty: all that run.
    pub required: Vec<Regex>,
    /// Whether every case of a run is read, so that its own counts tell whether all results are there.
    pub all_cases: bool,
}

impl PartialEq for Settings {
    fn eq(&self, other: &Self) -> bool {
        let texts = |rules: &[Regex]| rules.iter().map(|rule| rule.as_str().to_owned()).collect::<Vec<_>>();
        (&self.branches, self.run_max_age, self.all_cases) == (&other.branches, other.run_max_age, other.all_cases)
            && texts(&self.required) == texts(&other.required)
    }
}

impl Eq for Settings {}

impl Settings {
    /// Whether runs of a branch count.
    #[must_use]
    pub fn counts(&self, branch: &Name) -> bool {
        branch.is_empty() || self.branches.contains(branch)
    }

    /// Whether cases are required by name, and not just all that run.
    #[must_use]
    pub fn names_cases(&self) -> bool {
        !self.required.is_empty()
    }
}

/// One flag for each [`Condition`].
pub type Blocked = [bool; Condition::COUNT];

/// Nothing speaks against it.
#[must_use]
pub fn is_promotable(blocked: &Blocked) -> bool {
    blocked.iter().all(|holds| !holds)
}

/// What is known of an environment's newest run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunEvidence {
    /// How it ended.
    pub outcome: RunOutcome,
    /// Whether it told how many cases passed and how many failed.
    pub is_counted: bool,
    /// Whether as many results of it are known as it says.
    pub is_complete: bool,
    /// Whether each of its failures is known, and is snoozed or of a case that is not required.
    pub is_excused: bool,
}

/// What is known of an environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence {
    /// The run that ended last.
    pub run: Option<RunEvidence>,
    /// Something finished that could change the verdict is not read.
    pub is_unread: bool,
    /// A required case that is not snoozed failed last.
    pub is_failing: bool,
    /// A required case has no pass to show.
    pub is_missing: bool,
}

#[cfg(test)]
impl Evidence {
    /// With nothing against a promotion.
    pub(crate) fn good() -> Self {
        let run = RunEvidence {
            outcome: RunOutcome::Passed,
            is_counted: true,
            is_complete: true,
            is_excused: false,
        };
        Self {
            run: Some(run),
            is_unread: false,
            is_failing: false,
            is_missing: false,
        }
    }
}

/// What time alone will change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// When the newest run ended.
    pub run_ended: Option<Timestamp>,
    /// The least recent of the passes of the cases that are required by name.
    pub oldest_pass: Option<Timestamp>,
    /// When the first snooze ends without which a case would be failing.
    pub failing_from: Option<Timestamp>,
    /// When the first snooze ends without which a case would be missing.
    pub missing_from: Option<Timestamp>,
}

/// An environment as of a round, with what time alone will change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Which.
    pub environment: Name,
    known: Blocked,
    has_run: bool,
    /// When the newest run ended, and from when on it is too old; `None`: nobody knows.
    run: Option<(Timestamp, Timestamp)>,
    /// From then on some case is failing.
    failing_from: Option<Timestamp>,
    /// From then on the pass of some required case is too old, or it is missing and no longer snoozed.
    cases_until: Option<Timestamp>,
}

impl Standing {
    /// Weighs the evidence.
    #[must_use]
    pub fn of(environment: Name, evidence: Evidence, times: Times, run_max_age: SignedDuration) -> Self {
        let mut known = [false; Condition::COUNT];
        let mut set = |condition: Condition, holds: bool| known[condition.index()] = holds;
        set(Condition::NoRun, evidence.run.is_none());
        set(
            Condition::Partial,
            evidence.is_unread || evidence.run.is_some_and(|run| !run.is_counted || !run.is_complete),
        );
        let passed = |run: RunEvidence| match run.outcome {
            RunOutcome::Passed => true,
            RunOutcome::Failed => run.is_excused,
            RunOutcome::Error | RunOutcome::Cancelled | RunOutcome::Unknown => false,
        };
        set(Condition::RunNotPassed, evidence.run.is_some_and(|run| !passed(run)));
        set(Condition::CaseFailing, evidence.is_failing);
        set(Condition::CaseMissing, evidence.is_missing);
        // Too far away to be told is never: a bound that cannot be reckoned is over at once.
        let until = |from: Timestamp| from.checked_add(run_max_age).unwrap_or(Timestamp::MIN);
        Self {
            environment,
            known,
            has_run: evidence.run.is_some(),
            run: times.run_ended.map(|ended| (ended, until(ended))),
            failing_from: times.failing_from,
            cases_until: times.oldest_pass.map(until).into_iter().chain(times.missing_from).min(),
        }
    }

    /// What speaks against a promotion now. `is_fresh`: whether what is known may be believed.
    #[must_use]
    pub fn blocked(&self, now: Timestamp, is_fresh: bool) -> Blocked {
        let is_over = |until: Timestamp| now >= until;
        let mut blocked = self.known;
        blocked[Condition::Stale.index()] = !is_fresh;
        // What ended ahead of the clock hides what ends now.
        let is_from_now_on = |(ended, until)| is_over(until) || ended > now.checked_add(CLOCK_TOLERANCE).unwrap_or(now);
        blocked[Condition::RunOverdue.index()] = self.has_run && self.run.is_none_or(is_from_now_on);
        blocked[Condition::CaseFailing.index()] |= self.failing_from.is_some_and(is_over);
        blocked[Condition::CaseMissing.index()] |= self.cases_until.is_some_and(is_over);
        blocked
    }
}

/// Whether data may be believed: a round of this process has read them, and not too long ago.
#[must_use]
pub fn is_fresh(as_of: Option<Timestamp>, stale_after: SignedDuration, now: Timestamp) -> bool {
    as_of.is_some_and(|as_of| {
        let age = now.duration_since(as_of);
        age < stale_after && age >= -CLOCK_TOLERANCE
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: usize = 9;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Every combination of what can be known, and what must follow from it: a condition holds exactly if its reason does,
    /// whatever else is so, and only the one combination without any reason is promotable.
    #[test]
    fn each_condition_holds_for_its_own_reason_and_any_of_them_blocks() {
        let runs = std::iter::once(None).chain(RunOutcome::ALL.iter().copied().map(Some));
        let mut promotable = Vec::new();
        let mut combinations = 0;
        for outcome in runs {
            for bits in 0..1_u32 << FLAGS {
                let flag = |place: usize| bits & (1 << place) != 0;
                let [
                    counted,
                    complete,
                    excused,
                    unread,
                    failing,
                    missing,
                    fresh,
                    recent,
                    passes_recent,
                ] = std::array::from_fn(flag);
                let run = outcome.map(|outcome| RunEvidence {
                    outcome,
                    is_counted: counted,
                    is_complete: complete,
                    is_excused: excused,
                });
                let evidence = Evidence {
                    run,
                    is_unread: unread,
                    is_failing: failing,
                    is_missing: missing,
                };
                let ended = at(if recent { 950 } else { 900 });
                let oldest_pass = at(if passes_recent { 901 } else { 899 });
                let max_age = SignedDuration::from_secs(100);
                let times = Times {
                    run_ended: Some(ended),
                    oldest_pass: Some(oldest_pass),
                    ..Times::default()
                };
                let standing = Standing::of("e".into(), evidence, times, max_age);
                let blocked = standing.blocked(at(1000), fresh);

                let expected = |condition: Condition| match condition {
                    Condition::Stale => !fresh,
                    Condition::NoRun => outcome.is_none(),
                    Condition::RunOverdue => outcome.is_some() && !recent,
                    Condition::RunNotPassed => match outcome {
                        None | Some(RunOutcome::Passed) => false,
                        Some(RunOutcome::Failed) => !excused,
                        Some(_) => true,
                    },
                    Condition::Partial => unread || outcome.is_some() && !(counted && complete),
                    Condition::CaseFailing => failing,
                    Condition::CaseMissing => missing || !passes_recent,
                };
                for condition in Condition::ALL {
                    let what = format!("{} of {evidence:?}, {bits:b}", condition.label());
                    assert_eq!(blocked[condition.index()], expected(*condition), "{what}");
                }
                combinations += 1;
                if is_promotable(&blocked) {
                    promotable.push((outcome, bits));
                }
            }
        }
        assert_eq!(combinations, 6 << FLAGS);
        // counted, complete; unread, failing and missing not; fresh, recent, passes recent. `excused` is of no account to a
        // run that passed, and all that lets one through that failed.
        let all_good = 0b1_1100_0011;
        let excused = 1 << 2;
        assert_eq!(
            promotable,
            [
                (Some(RunOutcome::Passed), all_good),
                (Some(RunOutcome::Passed), all_good | excused),
                (Some(RunOutcome::Failed), all_good | excused),
            ]
        );
    }

    #[test]
    fn a_run_whose_end_nobody_knows_is_overdue_and_a_bound_beyond_time_is_over() {
        let evidence = Evidence::good();
        let overdue = |ended, max_age| {
            let times = Times {
                run_ended: ended,
                ..Times::default()
            };
            let standing = Standing::of("e".into(), evidence, times, max_age);
            standing.blocked(at(1000), true)[Condition::RunOverdue.index()]
        };
        let hour = SignedDuration::from_hours(1);
        assert!(!overdue(Some(at(1000)), hour));
        assert!(!overdue(Some(at(1060)), hour), "clocks are put right by seconds");
        assert!(
            overdue(Some(at(1061)), hour),
            "a run from the future is newer than all that end now"
        );
        assert!(overdue(None, hour));
        assert!(overdue(Some(at(1000)), SignedDuration::MAX));
    }

    #[test]
    fn a_case_is_failing_or_missing_from_the_end_of_its_snooze_on_whoever_reads_nothing_new() {
        let evidence = Evidence {
            run: None,
            is_unread: false,
            is_failing: false,
            is_missing: false,
        };
        let times = Times {
            oldest_pass: Some(at(1000)),
            failing_from: Some(at(1010)),
            missing_from: Some(at(1020)),
            ..Times::default()
        };
        let standing = Standing::of("e".into(), evidence, times, SignedDuration::from_hours(1));
        let blocked = |now| {
            let blocked = standing.blocked(at(now), true);
            (
                blocked[Condition::CaseFailing.index()],
                blocked[Condition::CaseMissing.index()],
            )
        };
        assert_eq!(blocked(1009), (false, false));
        assert_eq!(blocked(1010), (true, false));
        assert_eq!(blocked(1020), (true, true));
    }

    #[test]
    fn data_are_fresh_from_their_round_until_they_are_too_old_and_never_before_a_round() {
        let fresh = |as_of: Option<i64>, now: i64| is_fresh(as_of.map(at), SignedDuration::from_secs(100), at(now));
        assert!(fresh(Some(1000), 1000));
        assert!(fresh(Some(1000), 1099));
        assert!(!fresh(Some(1000), 1100));
        assert!(!fresh(None, 1000), "restored, or not met yet");
        assert!(fresh(Some(1000), 940), "clocks are put right by seconds");
        assert!(!fresh(Some(1000), 939), "a clock that was set back knows no age");
    }
}
