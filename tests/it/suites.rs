//! Simulated suites that know the truth about themselves, and what the verdicts and odds of `health` are worth on them.
//! Used by the tests and by the benchmark. All dice are seeded: a seed is a suite.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use testrun_exporter::health::infrastructure::{RunTally, spoilt};
use testrun_exporter::health::{Observation, Settings, WINDOW_MAX, judge};
use testrun_exporter::model::{CaseOutcome, Verdict};

/// How a suite is drawn. What is `None` is drawn from the seed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// From so many to so many, by the seed.
    pub(crate) cases: (usize, usize),
    pub(crate) days: u32,
    pub(crate) commits_a_day: Option<u32>,
    pub(crate) runs_a_commit: Option<u32>,
    pub(crate) retries: Option<u32>,
    pub(crate) signatures: Option<bool>,
    /// The flake rate of all cases that flake.
    pub(crate) flake_rate: Option<f64>,
}

impl Plan {
    pub(crate) const fn varied(cases: (usize, usize), days: u32) -> Self {
        Self {
            cases,
            days,
            commits_a_day: None,
            runs_a_commit: None,
            retries: None,
            signatures: None,
            flake_rate: None,
        }
    }
}

/// The flake rate at which false alarms are counted.
pub(crate) const RATE_OF_ALARMS: f64 = 0.02;
/// Cases that flake at least so often are to be found; those that never do are not.
pub(crate) const RATE_OF_FLAKY: f64 = 0.05;
/// After so many results of a case its flakiness is asked for.
const RESULTS_TO_FIND: usize = 50;
/// Commits of a break on which it may fail before it is detected too late; breaks that fail on fewer do not count.
const COMMITS_TO_DETECT: usize = 2;

/// A case's truth.
struct Case {
    rate: f64,
    signatures: u64,
    /// The number of the break that it is broken by.
    broken: Option<u64>,
    results: VecDeque<Observation>,
    decisive: usize,
    verdict: Verdict,
    /// Commits in a row that the present break has made fail, the last of them, and how many there were when it was detected.
    failing_commits: usize,
    last_failing: u64,
    detected: Option<usize>,
    /// Whether it had passed within the window when it broke.
    passed_before: bool,
    judged_flaky: Option<bool>,
    /// What was said before the result that comes now: the flake probability.
    said: Option<f64>,
}

/// A forecast's worth: the sum of squared errors, and a table of what was said against what came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Forecast {
    count: u64,
    squares: f64,
    said: f64,
    came: u64,
    pub(crate) bins: Vec<Bin>,
}

/// Forecasts of about the same value.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bin {
    pub(crate) below: f64,
    pub(crate) count: u64,
    pub(crate) said: f64,
    pub(crate) came: u64,
}

impl Bin {
    pub(crate) fn mean_said(&self) -> f64 {
        self.said / self.count.max(1) as f64
    }

    pub(crate) fn rate(&self) -> f64 {
        self.came as f64 / self.count.max(1) as f64
    }
}

impl Forecast {
    fn new(edges: &[f64]) -> Self {
        let bins = edges.iter().map(|below| Bin {
            below: *below,
            ..Bin::default()
        });
        Self {
            bins: bins.collect(),
            ..Self::default()
        }
    }

    fn add(&mut self, said: f64, came: bool) {
        self.count += 1;
        self.squares += (said - f64::from(u8::from(came))).powi(2);
        self.said += said;
        self.came += u64::from(came);
        if let Some(bin) = self.bins.iter_mut().find(|bin| said < bin.below) {
            bin.count += 1;
            bin.said += said;
            bin.came += u64::from(came);
        }
    }

    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.squares += other.squares;
        self.said += other.said;
        self.came += other.came;
        for (mine, theirs) in self.bins.iter_mut().zip(&other.bins) {
            mine.count += theirs.count;
            mine.said += theirs.said;
            mine.came += theirs.came;
        }
    }

    pub(crate) fn brier(&self) -> f64 {
        self.squares / self.count.max(1) as f64
    }

    /// The score of one who always says how often it comes.
    pub(crate) fn brier_of_base_rate(&self) -> f64 {
        let rate = self.came as f64 / self.count.max(1) as f64;
        rate * (1.0 - rate)
    }
}

/// What was found out on suites.
#[derive(Debug, Clone)]
pub(crate) struct Score {
    /// Breaks of cases by their flake rate (never, up to 2 %, above), and how many were detected in time.
    pub(crate) breaks: [u64; 3],
    pub(crate) in_time: [u64; 3],
    /// Times that a working case became regressed, and months of working, by the same; and of the cases at 2 % alone.
    pub(crate) alarms: [u64; 3],
    pub(crate) months: [f64; 3],
    pub(crate) alarms_at_rate: u64,
    pub(crate) months_at_rate: f64,
    /// Cases that flake often, that never do and in between, and how many of each are called flaky.
    pub(crate) flaky: [u64; 3],
    pub(crate) called_flaky: [u64; 3],
    /// The flake probability against the next result while the case works.
    pub(crate) flake: Forecast,
    /// The regression probability against whether the case is broken.
    pub(crate) regression: Forecast,
    pub(crate) judged: u64,
}

impl Score {
    fn new() -> Self {
        Self {
            breaks: [0; 3],
            in_time: [0; 3],
            alarms: [0; 3],
            months: [0.0; 3],
            alarms_at_rate: 0,
            months_at_rate: 0.0,
            flaky: [0; 3],
            called_flaky: [0; 3],
            flake: Forecast::new(&[0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.01]),
            regression: Forecast::new(&[0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.01]),
            judged: 0,
        }
    }

    /// Over suites.
    pub(crate) fn of(plan: Plan, seeds: std::ops::Range<u64>, settings: &Settings) -> Self {
        let mut all = Self::new();
        for seed in seeds {
            let mut suite = Suite::new(plan, seed);
            suite.live(settings);
            all.merge(&suite.score);
        }
        all
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for class in 0..3 {
            self.breaks[class] += other.breaks[class];
            self.in_time[class] += other.in_time[class];
            self.alarms[class] += other.alarms[class];
            self.months[class] += other.months[class];
            self.flaky[class] += other.flaky[class];
            self.called_flaky[class] += other.called_flaky[class];
        }
        self.alarms_at_rate += other.alarms_at_rate;
        self.months_at_rate += other.months_at_rate;
        self.flake.merge(&other.flake);
        self.regression.merge(&other.regression);
        self.judged += other.judged;
    }

    pub(crate) fn in_time_share(&self, classes: std::ops::Range<usize>) -> f64 {
        let sum = |counts: &[u64; 3]| counts[classes.clone()].iter().sum::<u64>() as f64;
        sum(&self.in_time) / sum(&self.breaks)
    }

    pub(crate) fn alarms_a_month(&self) -> f64 {
        self.alarms_at_rate as f64 / self.months_at_rate
    }

    pub(crate) fn recall(&self) -> f64 {
        self.called_flaky[2] as f64 / self.flaky[2] as f64
    }

    pub(crate) fn precision(&self) -> f64 {
        self.called_flaky[2] as f64 / (self.called_flaky[2] + self.called_flaky[0]) as f64
    }
}

fn class(rate: f64) -> usize {
    if rate == 0.0 {
        0
    } else if rate <= RATE_OF_ALARMS {
        1
    } else {
        2
    }
}

struct Suite {
    dice: Xoshiro256PlusPlus,
    plan: Plan,
    commits_a_day: u32,
    runs_a_commit: u32,
    retries: u32,
    signatures: bool,
    /// How likely a retry of a flake fails, at the least.
    lasting: f64,
    breaks: f64,
    repairs: f64,
    outages: f64,
    errors: f64,
    skips: f64,
    cases: Vec<Case>,
    runs: Vec<RunTally>,
    score: Score,
}

impl Suite {
    fn new(plan: Plan, seed: u64) -> Self {
        let mut dice = Xoshiro256PlusPlus::seed_from_u64(seed ^ 0x7e57_4ea1);
        let commits_a_day = plan.commits_a_day.unwrap_or_else(|| dice.random_range(1..=4));
        let runs_a_commit = plan.runs_a_commit.unwrap_or_else(|| dice.random_range(1..=3));
        let retries = plan.retries.unwrap_or_else(|| dice.random_range(0..=2));
        let signatures = plan.signatures.unwrap_or_else(|| dice.random());
        let lasting = if dice.random() { 0.0 } else { 0.3 };
        let breaks = log_uniform(&mut dice, 0.001, 0.008);
        let repairs = 1.0 / dice.random_range(2.0..10.0);
        let (outages, errors) = (dice.random_range(0.0..0.02), dice.random_range(0.0..0.03));
        let skips = dice.random_range(0.0..0.05);
        // By dice of its own: a larger suite begins like a smaller one.
        let size = Xoshiro256PlusPlus::seed_from_u64(seed).random_range(plan.cases.0..=plan.cases.1);
        let cases = (0..size).map(|_| {
            let kind = dice.random_range(0..20);
            let drawn = match kind {
                0..10 => 0.0,
                10..14 => RATE_OF_ALARMS,
                14..16 => log_uniform(&mut dice, 0.005, RATE_OF_FLAKY),
                _ => log_uniform(&mut dice, RATE_OF_FLAKY, 0.4),
            };
            Case::new(
                if kind < 10 {
                    0.0
                } else {
                    plan.flake_rate.unwrap_or(drawn)
                },
                dice.random_range(1..=3),
            )
        });
        let cases = cases.collect();
        Self {
            dice,
            plan,
            commits_a_day,
            runs_a_commit,
            retries,
            signatures,
            lasting,
            breaks,
            repairs,
            outages,
            errors,
            skips,
            cases,
            runs: Vec::new(),
            score: Score::new(),
        }
    }

    fn live(&mut self, settings: &Settings) {
        let commits = u64::from(self.plan.days * self.commits_a_day);
        let gap = SignedDuration::from_secs(86_400 / i64::from(self.commits_a_day * self.runs_a_commit));
        let months = gap.as_secs_f64() / (30.0 * 86_400.0);
        let mut now = Timestamp::from_second(1_780_000_000).unwrap();
        // A row of outages longer than `believed_after` is believed by design: that is no error of the odds.
        let (mut outage, mut rest) = (0_u32, 0_u32);
        for commit in 1..=commits {
            self.commit(commit);
            for _ in 0..self.runs_a_commit {
                now += gap;
                if outage == 0 && rest == 0 && self.dice.random_bool(self.outages) {
                    outage = self.dice.random_range(1..=2);
                    rest = outage + 3;
                }
                let harm = (outage > 0).then(|| self.dice.random_range(0.6..1.0));
                (outage, rest) = (outage.saturating_sub(1), rest.saturating_sub(1));
                let errored = self.dice.random_bool(self.errors);
                self.run(commit, now, harm, errored);
                self.judge(commit, now, months, settings);
            }
        }
        for place in 0..self.cases.len() {
            self.end_of_break(place);
        }
    }

    fn commit(&mut self, commit: u64) {
        for place in 0..self.cases.len() {
            let broken = self.cases[place].broken;
            if broken.is_some() && self.dice.random_bool(self.repairs) {
                self.end_of_break(place);
                self.cases[place].broken = None;
            } else if broken.is_none() && self.dice.random_bool(self.breaks) {
                let case = &mut self.cases[place];
                case.broken = Some(commit);
                case.passed_before = case.results.iter().any(|result| result.outcome.is_pass());
            }
        }
    }

    fn end_of_break(&mut self, place: usize) {
        let case = &mut self.cases[place];
        if case.broken.is_some() && case.passed_before && case.failing_commits >= COMMITS_TO_DETECT {
            let class = class(case.rate);
            self.score.breaks[class] += 1;
            let in_time = case.detected.is_some_and(|commits| commits <= COMMITS_TO_DETECT);
            self.score.in_time[class] += u64::from(in_time);
        }
        case.failing_commits = 0;
        case.last_failing = 0;
        case.detected = None;
    }

    /// All results of a run, and the tally of it. `harm`: what share of the cases an outage takes down.
    fn run(&mut self, commit: u64, now: Timestamp, harm: Option<f64>, errored: bool) {
        let mut tally = RunTally {
            errored,
            failed_suites: 5,
            ..RunTally::default()
        };
        for place in 0..self.cases.len() {
            let (outcome, signature, retries) = self.result(place, harm, errored);
            tally.decisive += u32::from(outcome.is_pass() || outcome.is_failure());
            tally.failed += u32::from(outcome.is_failure());
            let results = &mut self.cases[place].results;
            if results.len() == WINDOW_MAX {
                results.pop_front();
            }
            results.push_back(Observation {
                ended: Some(now),
                commit: Some(commit),
                outcome,
                signature: if self.signatures { signature } else { 0 },
                retries,
                infrastructure: false,
            });
        }
        self.runs.push(tally);
    }

    fn result(&mut self, place: usize, harm: Option<f64>, errored: bool) -> (CaseOutcome, u64, u32) {
        let case = &self.cases[place];
        let place = u64::try_from(place).unwrap();
        if self.dice.random_bool(self.skips) {
            return (CaseOutcome::Skipped, 0, 0);
        }
        let harm = if errored { Some(0.3) } else { harm };
        if harm.is_some_and(|harm| self.dice.random_bool(harm)) {
            return (CaseOutcome::Failed, 1, self.retries);
        }
        if let Some(broken) = case.broken {
            let odd = self.dice.random_bool(0.03);
            let signature = 1_000_000 + place * 1_000 + broken * 2 + u64::from(odd);
            let passes = self.dice.random_bool(0.005);
            let outcome = if passes {
                CaseOutcome::Passed
            } else {
                CaseOutcome::Failed
            };
            return (
                outcome,
                if passes { 0 } else { signature },
                if passes { 0 } else { self.retries },
            );
        }
        if !self.dice.random_bool(case.rate) {
            return (CaseOutcome::Passed, 0, 0);
        }
        for retry in 1..=self.retries {
            if !self.dice.random_bool(case.rate.max(self.lasting)) {
                return (CaseOutcome::Flaky, 0, retry);
            }
        }
        let signature = 100 + place * 10 + self.dice.random_range(0..case.signatures);
        (CaseOutcome::Failed, signature, self.retries)
    }

    /// Judges every case, and keeps the score.
    fn judge(&mut self, commit: u64, now: Timestamp, months: f64, settings: &Settings) {
        // The flags of the newest runs may change with each run; those of older ones do not.
        let first = self.runs.len().saturating_sub(2 * WINDOW_MAX);
        let flags = spoilt(&self.runs[first..], &settings.infrastructure);
        for case in &mut self.cases {
            for (result, flag) in case.results.iter_mut().rev().zip(flags.iter().rev()) {
                result.infrastructure = *flag;
            }
            let newest = *case.results.back().unwrap();
            let decisive = !newest.infrastructure && (newest.outcome.is_pass() || newest.outcome.is_failure());
            let health = judge(case.results.make_contiguous(), settings, now);
            let was = std::mem::replace(&mut case.verdict, health.verdict);
            let class = class(case.rate);
            let score = &mut self.score;
            score.judged += 1;
            case.decisive += usize::from(decisive);
            if case.broken.is_none() {
                score.months[class] += months;
                let alarm = health.verdict == Verdict::Regressed && was != Verdict::Regressed;
                score.alarms[class] += u64::from(alarm);
                if (case.rate - RATE_OF_ALARMS).abs() < f64::EPSILON {
                    score.months_at_rate += months;
                    score.alarms_at_rate += u64::from(alarm);
                }
            } else if decisive && newest.outcome.is_failure() {
                case.failing_commits += usize::from(case.last_failing != commit);
                case.last_failing = commit;
            } else if decisive && case.detected.is_none() {
                // It is broken and has passed: that commit does not fail, and what follows is a new row of those that do.
                case.failing_commits = 0;
                case.last_failing = commit;
            }
            if case.broken.is_some() && health.verdict == Verdict::Regressed && case.detected.is_none() {
                case.detected = Some(case.failing_commits);
            }
            if !decisive {
                continue;
            }
            if let Some(odds) = health.regression_probability {
                score.regression.add(odds, case.broken.is_some());
            }
            if let Some(said) = case.said.filter(|_| case.broken.is_none()) {
                score.flake.add(said, newest.outcome != CaseOutcome::Passed);
            }
            case.said = health.flake_probability;
            if case.decisive >= RESULTS_TO_FIND && case.judged_flaky.is_none() && case.broken.is_none() {
                let called = health.verdict == Verdict::Flaky;
                case.judged_flaky = Some(called);
                let kind = if case.rate == 0.0 {
                    0
                } else if case.rate < RATE_OF_FLAKY {
                    1
                } else {
                    2
                };
                score.flaky[kind] += 1;
                score.called_flaky[kind] += u64::from(called);
            }
        }
    }
}

impl Case {
    fn new(rate: f64, signatures: u64) -> Self {
        Self {
            rate,
            signatures,
            broken: None,
            results: VecDeque::new(),
            decisive: 0,
            verdict: Verdict::Unknown,
            failing_commits: 0,
            last_failing: 0,
            detected: None,
            passed_before: false,
            judged_flaky: None,
            said: None,
        }
    }
}

/// A number between the two, each order of magnitude as likely as another.
fn log_uniform(dice: &mut Xoshiro256PlusPlus, low: f64, high: f64) -> f64 {
    dice.random_range(low.ln()..high.ln()).exp()
}
