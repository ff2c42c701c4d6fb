//! One source's numbers: facts in, snapshots out. Plain data without locks, channels or clock.
//! Never drops a true fact because of the round that it came in, never shows one before its round is complete.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::budget::{self, Claim, Width};
use super::cases::{Cases, Row};
use super::keep;
use super::recent::{Entry, Order, Reread};
use super::release::{Held, Released, Shown, Truth, Zeros};
use super::renames::{Link, Renames};
use super::runs::{Admission, CaseIndex, CaseSet, KnownRun, Orphans, Runs};
use super::snapshot::{CaseRow, CountedRun, Counts, ErrorCounts, GroupRow, Histogram, Promotion, SourceSnapshot};
use super::snoozes::Snoozed;
use super::verdicts::Judge;
use crate::health::{self, Observation, WINDOW_MAX};
use crate::model::{
    ActiveRun, ActiveState, CaseInfo, CaseOutcome, CaseResult, ErrorCode, Fact, Group, Name, OTHER, RoundResult, Run,
    RunId, RunOutcome, Snooze, Unread, Verdict,
};
use crate::promotion;

/// Groups per source. Far above what people configure; a branch expression that matches every branch must not grow
/// memory without end. Runs of further groups are counted under [`OTHER`].
pub const GROUPS_MAX: usize = 1_000;

/// Bounds of a run's duration in seconds: from a smoke test to a night's work.
pub const RUN_DURATION_BOUNDS: &[f64] = &[
    10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1_200.0, 1_800.0, 2_700.0, 3_600.0, 7_200.0, 14_400.0, 28_800.0,
];

/// Bounds of a run's wait in seconds: from a free worker to a queue of hours.
pub const RUN_QUEUE_BOUNDS: &[f64] = &[
    1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 7_200.0,
];

/// What bounds a source's memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Cases that are tracked; facts about further ones are passed over.
    pub cases_max: usize,
    /// How long finished runs are remembered: the lookback and a margin, so that nothing is forgotten while upstream is
    /// still asked about it.
    pub retention: Duration,
    /// How long after its last result a case is still shown.
    pub series_ttl: Duration,
}

/// What the store must know of a source before it has told anything.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SourceSpec {
    /// The `source` label.
    pub name: Name,
    /// The codes that its platform can tell.
    pub error_codes: &'static [ErrorCode],
    /// The states that its platform has.
    pub active_states: &'static [ActiveState],
    /// Its bounds.
    pub limits: Limits,
    /// What has to hold for a promotion; `None`: nobody asks.
    pub promotion: Option<promotion::Settings>,
    /// The thresholds of its cases' verdicts.
    pub health: health::Settings,
    /// Whether counters tell when they began.
    pub created_timestamps: bool,
}

/// One (environment, branch).
#[derive(Debug, Clone, Serialize, Deserialize)]
struct GroupState {
    runs: [u64; RunOutcome::COUNT],
    cases: [u64; CaseOutcome::COUNT],
    #[serde(serialize_with = "keep::histogram", deserialize_with = "keep::run_duration")]
    duration: Histogram,
    #[serde(serialize_with = "keep::histogram", deserialize_with = "keep::run_queue")]
    queue: Histogram,
    counted: [Option<Arc<CountedRun>>; RunOutcome::COUNT],
    shown: Shown,
    /// Boxed: a table has room for twice as many as there are, and rows are large.
    rows: HashMap<CaseIndex, Box<Row>>,
    /// What was counted of cases that had no series of their own. Once there, it stays.
    other: Option<Box<Row>>,
    /// Which cases go on under other ids; the links are kept in the [`Appendix`].
    #[serde(skip)]
    renames: Renames,
    /// The keys of `rows` by the cases' names; empty when it has to be made again.
    #[serde(skip)]
    sorted: Vec<CaseIndex>,
    /// When its counters began at 0; kept in the [`Beginnings`].
    #[serde(skip)]
    created: Option<Timestamp>,
}

impl GroupState {
    fn new(clock: Timestamp) -> Self {
        Self {
            created: Some(clock),
            runs: [0; RunOutcome::COUNT],
            cases: [0; CaseOutcome::COUNT],
            duration: Histogram::new(RUN_DURATION_BOUNDS),
            queue: Histogram::new(RUN_QUEUE_BOUNDS),
            counted: Default::default(),
            shown: Shown::Never,
            rows: HashMap::new(),
            other: None,
            renames: Renames::default(),
            sorted: Vec::new(),
        }
    }

    fn count(&mut self, run: &Run) {
        let length = |seconds: &f64| seconds.is_finite() && *seconds >= 0.0;
        let counted = Arc::new(CountedRun::new(run));
        self.runs[run.outcome.index()] += 1;
        counted.remember_in(&mut self.counted[run.outcome.index()]);
        for (sum, count) in self.cases.iter_mut().zip(run.counts) {
            *sum = sum.saturating_add(count.unwrap_or(0));
        }
        if let Some(seconds) = run.duration_seconds.filter(length) {
            self.duration.observe_run(seconds, &counted);
        }
        if let Some(seconds) = run.queue_seconds().filter(length) {
            self.queue.observe_run(seconds, &counted);
        }
    }

    /// The row of a case; new, with all counts 0, at its first fact.
    fn row(&mut self, case: CaseIndex, clock: Timestamp) -> &mut Row {
        let row = self.rows.entry(case).or_insert_with(|| {
            self.sorted.clear();
            self.renames.appears(case);
            Box::new(Row::new(clock))
        });
        row.touched = clock;
        row
    }

    /// A case's rows under all its ids, the newest first: the one place where a case's past is put together.
    fn under_all_ids(&self, case: CaseIndex) -> impl Iterator<Item = &Row> {
        let ids = std::iter::successors(Some(case), |case| self.renames.before(*case, &self.rows));
        // No chain is longer than there are links.
        ids.take(1 + self.renames.links().len())
            .map_while(|case| self.rows.get(&case).map(Box::as_ref))
    }

    /// What has been of a case under all its ids.
    fn past(&self, case: CaseIndex) -> Past {
        let mut past = Past::default();
        for row in self.under_all_ids(case) {
            let (failures, passed) = row.recent.streak();
            past.streak += failures;
            past.failing_since = failing_since(row).or(past.failing_since);
            past.last_pass = past.last_pass.max(passed).max(row.told_pass);
            if row.recent.has_passed() {
                break;
            }
        }
        past
    }

    /// The results, under all their ids, of renamed cases that have to be judged: what they were judged by has changed under one
    /// of the ids.
    fn results_of_renamed(
        &self,
        judge: &Judge,
        settings: &health::Settings,
        now: Timestamp,
    ) -> HashMap<CaseIndex, Vec<Observation>> {
        let mut renamed = HashMap::new();
        for case in self.renames.links().keys() {
            let rows: Vec<_> = self.under_all_ids(*case).collect();
            if rows.iter().all(|row| row.judged.holds(settings, now)) {
                continue;
            }
            let mut results = Vec::new();
            rows.iter().rev().for_each(|row| judge.observe(row, &mut results));
            renamed.insert(*case, results);
        }
        renamed
    }

    /// Whether something is counted under `__other__` even if there is room for all that is alive.
    fn needs_other(&self, alive: Timestamp, impostor: Option<CaseIndex>) -> bool {
        self.other.is_some()
            || impostor.is_some_and(|case| self.rows.contains_key(&case))
            || self.rows.values().any(|row| row.seen() < alive && row.owes())
    }

    fn sort(&mut self, cases: &Cases) {
        if self.sorted.len() != self.rows.len() {
            self.sorted = self.rows.keys().copied().collect();
            self.sorted.sort_unstable_by(|a, b| cases.name(*a).cmp(&cases.name(*b)));
        }
    }
}

/// What a case that goes on under another id takes along.
#[derive(Debug, Clone, Copy, Default)]
struct Past {
    streak: u64,
    failing_since: Option<Timestamp>,
    last_pass: Option<Timestamp>,
}

/// What is known of one environment beside its groups.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Environment {
    errors: [u64; ErrorCode::COUNT],
    active: [u64; ActiveState::COUNT],
    shown: Shown,
    #[serde(with = "crate::packed")]
    touched: Timestamp,
    /// When its counters began at 0; kept in the [`Beginnings`].
    #[serde(skip)]
    created: Option<Timestamp>,
}

/// What is kept behind the state, in ledgers that know of it: those of before end there, and it is empty. Whoever adds to it
/// puts another one behind it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Appendix<'a> {
    after_snooze: Cow<'a, BTreeMap<RunId, u64>>,
    tags: BTreeMap<CaseIndex, Name>,
    renames: Vec<(Group, BTreeMap<CaseIndex, Link>)>,
}

/// What is kept behind the appendix: when counters began. They are kept whether or not they are told, so that they are right
/// when somebody asks for them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Beginnings {
    groups: Vec<GroupBegan>,
    environments: Vec<(Name, Began)>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct GroupBegan {
    group: Group,
    began: Began,
    rows: Vec<(CaseIndex, Began)>,
    other: Option<Began>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Began(#[serde(with = "crate::packed")] Option<Timestamp>);

/// The state of one source. See the room's documentation for its rules. What is serialized is what outlives the process:
/// everything but what is configured and what is published.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SourceState {
    #[serde(skip)]
    spec: SourceSpec,
    project: Option<Name>,
    runs: Runs,
    orphans: Orphans,
    cases: Cases,
    groups: BTreeMap<Group, GroupState>,
    environments: BTreeMap<Name, Environment>,
    /// When the last facts came.
    #[serde(with = "crate::packed")]
    clock: Timestamp,
    /// The end of the last good round.
    #[serde(with = "crate::packed")]
    as_of: Timestamp,
    /// The snoozes that were told last. Not kept: the source tells them anew.
    #[serde(skip)]
    snoozes: Option<Vec<Snooze>>,
    /// Failures without the snoozed ones, of runs that told them; kept in the [`Appendix`].
    #[serde(skip)]
    after_snooze: BTreeMap<RunId, u64>,
    /// What the source has not read. Not kept: it says so anew with its first round.
    #[serde(skip)]
    unread: Unread,
    /// Whether this process has read it: what a ledger tells may have changed since.
    #[serde(skip)]
    is_read: bool,
    /// What its cases are judged by.
    #[serde(skip)]
    judge: Judge,
    /// The run whose results were counted last, for the next one of them.
    #[serde(skip)]
    counted: Option<Arc<CountedRun>>,
    #[serde(skip)]
    published: Option<Arc<SourceSnapshot>>,
    /// What `published` shows as zeros and is more.
    #[serde(skip)]
    held: Vec<Held>,
    /// What of that has been shown since the last round.
    #[serde(skip)]
    released: Vec<Released>,
}

impl SourceState {
    /// A source that has told nothing.
    #[must_use]
    pub fn new(spec: SourceSpec) -> Self {
        Self {
            cases: Cases::new(spec.limits.cases_max),
            spec,
            project: None,
            runs: Runs::default(),
            orphans: Orphans::default(),
            groups: BTreeMap::new(),
            environments: BTreeMap::new(),
            clock: Timestamp::MIN,
            as_of: Timestamp::MIN,
            snoozes: None,
            after_snooze: BTreeMap::new(),
            unread: Unread::default(),
            is_read: false,
            judge: Judge::default(),
            counted: None,
            published: None,
            held: Vec::new(),
            released: Vec::new(),
        }
    }

    /// What is kept beside the state itself.
    pub(super) fn appendix(&self) -> Appendix<'_> {
        Appendix {
            after_snooze: Cow::Borrowed(&self.after_snooze),
            tags: self.cases.tags(),
            renames: self
                .groups
                .iter()
                .filter(|(_, group)| !group.renames.links().is_empty())
                .map(|(name, group)| (name.clone(), group.renames.links().clone()))
                .collect(),
        }
    }

    /// What is kept beside both.
    pub(super) fn beginnings(&self) -> Beginnings {
        let of_group = |(name, group): (&Group, &GroupState)| GroupBegan {
            group: name.clone(),
            began: Began(group.created),
            rows: group
                .rows
                .iter()
                .map(|(case, row)| (*case, Began(row.created)))
                .collect(),
            other: group.other.as_ref().map(|other| Began(other.created)),
        };
        let environments = self.environments.iter();
        Beginnings {
            groups: self.groups.iter().map(of_group).collect(),
            environments: environments
                .map(|(name, known)| (name.clone(), Began(known.created)))
                .collect(),
        }
    }

    fn begin(&mut self, beginnings: Beginnings) {
        for known in beginnings.groups {
            let Some(group) = self.groups.get_mut(&known.group) else {
                continue;
            };
            group.created = known.began.0;
            if let Some((row, Began(created))) = group.other.as_mut().zip(known.other) {
                row.created = created;
            }
            for (case, Began(created)) in known.rows {
                if let Some(row) = group.rows.get_mut(&case) {
                    row.created = created;
                }
            }
        }
        for (name, Began(created)) in beginnings.environments {
            if let Some(environment) = self.environments.get_mut(&name) {
                environment.created = created;
            }
        }
    }

    /// Makes what is kept whole again, under the bounds that hold now. `released`: what was shown after it was kept.
    pub(super) fn reopen(
        &mut self,
        spec: SourceSpec,
        appendix: Appendix<'_>,
        beginnings: Beginnings,
        released: Vec<Released>,
    ) {
        self.begin(beginnings);
        self.after_snooze = appendix.after_snooze.into_owned();
        self.cases.set_tags(appendix.tags);
        for (name, links) in appendix.renames {
            if let Some(group) = self.groups.get_mut(&name) {
                group.renames = Renames::of(links);
            }
        }
        self.cases.reopen(spec.limits.cases_max);
        self.spec = spec;
        self.share_counted_runs();
        for row in released {
            if let Some(shown) = self.shown_of(&row, None) {
                *shown = Shown::Truth;
            }
        }
    }

    /// Takes what was learned. Nothing of it is shown before a round succeeds.
    pub fn apply(&mut self, facts: Vec<Fact>, now: Timestamp) {
        self.clock = now;
        for fact in facts {
            match fact {
                Fact::Project(name) => self.project = Some(name),
                Fact::Run(run) => self.take_run(run),
                Fact::Active(runs) => self.take_active(&runs),
                Fact::Result(result) => self.take_result(result),
                Fact::Case(info) => {
                    if self.cases.describe(info, self.clock) {
                        self.judge.doubt();
                    }
                }
                Fact::Snoozes(snoozes) => self.snoozes = snoozes,
                Fact::Unread(unread) => self.unread = unread,
                Fact::FailedAfterSnooze { run, failed } => {
                    if self.runs.get(run).is_some() {
                        self.after_snooze.insert(run, failed);
                    }
                }
                Fact::LastPass { case, group, at } => self.take_last_pass(&case, group, at),
            }
        }
    }

    /// Ends a round; true if there is something to publish.
    pub fn round_ended(&mut self, result: RoundResult, at: Timestamp) -> bool {
        if result != RoundResult::Success {
            return false;
        }
        self.as_of = at;
        self.is_read = true;
        self.runs.end_baseline();
        for group in self.groups.values_mut() {
            group.renames.decide(&group.rows, &self.cases);
        }
        self.forget();
        true
    }

    /// When the last good round ended; `Timestamp::MIN` before the first one.
    #[must_use]
    pub fn as_of(&self) -> Timestamp {
        self.as_of
    }

    /// What was published last.
    #[must_use]
    pub fn published(&self) -> Option<&Arc<SourceSnapshot>> {
        self.published.as_ref()
    }

    /// Whether counts wait behind zeros.
    #[must_use]
    pub fn holds_back(&self) -> bool {
        !self.held.is_empty()
    }

    /// When the first of them no longer waits for a scrape.
    #[must_use]
    pub fn next_release(&self) -> Option<Timestamp> {
        self.held.iter().map(|held| held.since.end()).min()
    }

    /// Case rows, shown or not.
    #[must_use]
    pub fn case_rows(&self) -> usize {
        self.groups.values().map(|group| group.rows.len()).sum()
    }

    /// Series that would show all that is alive of its cases.
    #[must_use]
    pub fn series_needed(&self) -> usize {
        let (alive, impostor, width) = (self.alive_since(), self.impostor(), self.width());
        let series = self.groups.values().map(|group| {
            let rows = group.rows.values().filter(|row| row.seen() >= alive).count();
            rows * width.case + usize::from(group.needs_other(alive, impostor)) * width.other
        });
        series.sum()
    }

    /// Series of cases whose last step no scrape has taken.
    #[must_use]
    pub fn series_unseen(&self, scraped: u64) -> usize {
        let width = self.width();
        let unseen = self.groups.values().map(|group| {
            let rows = group.rows.values().filter(|row| row.is_unseen(scraped)).count();
            rows * width.case + usize::from(group.other.is_some()) * width.other
        });
        unseen.sum()
    }

    fn width(&self) -> Width {
        Width::of(self.spec.created_timestamps)
    }

    /// What is shown may have been built under another configuration, and is built under this one next.
    fn width_shown(&self, published: &SourceSnapshot) -> Width {
        Width::of(self.spec.created_timestamps || published.cases.iter().any(|row| row.created.is_some()))
    }

    /// Most series that the cases on the page become, now or with the next round.
    #[must_use]
    pub fn series_shown(&self) -> usize {
        let Some(published) = &self.published else { return 0 };
        let width = self.width_shown(published);
        let others = published.cases.iter().filter(|row| &*row.case == OTHER).count();
        (published.cases.len() - others) * width.case + others * width.other
    }

    /// A case that has the name of the sum of the others is one of the others.
    fn impostor(&self) -> Option<CaseIndex> {
        self.cases.find(&OTHER.into())
    }

    /// Cases that were seen last before this are no longer shown.
    fn alive_since(&self) -> Timestamp {
        let ttl = SignedDuration::try_from(self.spec.limits.series_ttl).unwrap_or(SignedDuration::MAX);
        self.as_of.checked_sub(ttl).unwrap_or(Timestamp::MIN)
    }

    /// Cases that have a place, with or without results.
    #[must_use]
    pub fn cases_known(&self) -> usize {
        self.cases.known()
    }

    /// Runs and results that upstream has changed after they were known. They move gauges, never counters.
    #[must_use]
    pub fn late_edits(&self) -> u64 {
        self.runs.late_edits()
    }

    /// Facts that were passed over because a bound was reached: cases beyond the limit, results whose run never came.
    #[must_use]
    pub fn passed_over(&self) -> u64 {
        self.cases.refused() + self.orphans.dropped()
    }

    /// Keeps what is known under new bounds; see [`super::Store::reconfigure`].
    pub(super) fn respecify(&mut self, spec: SourceSpec) {
        self.cases.set_max(spec.limits.cases_max);
        if spec.promotion != self.spec.promotion
            && let Some(published) = &mut self.published
        {
            // What was found by other rules is no answer, and what has been learned since the last round is not shown yet.
            Arc::make_mut(published).promotion = Promotion::default();
        }
        if spec.health != self.spec.health {
            self.judge.doubt();
            let rows = self.groups.values_mut().flat_map(|group| group.rows.values_mut());
            rows.for_each(|row| row.judged.forget());
        }
        self.spec = spec;
    }

    /// What it was made from.
    #[must_use]
    pub fn spec(&self) -> &SourceSpec {
        &self.spec
    }

    fn take_run(&mut self, mut run: Run) {
        run.group = self.place(run.group);
        let id = run.id;
        let admission = self.runs.admit(run, self.clock);
        let Some(known) = self.runs.get(id) else { return };
        match admission {
            Admission::Same => {}
            Admission::Edited => self.follow_edit(id),
            Admission::First { counted } => {
                let clock = self.clock;
                let group = self
                    .groups
                    .entry(known.run.group.clone())
                    .or_insert_with(|| GroupState::new(clock));
                let environment = environment(&mut self.environments, &known.run.group.environment, clock);
                if counted {
                    group.count(&known.run);
                    if known.run.outcome == RunOutcome::Error {
                        let told = known.run.error_code.filter(|code| self.spec.error_codes.contains(code));
                        environment.errors[told.unwrap_or(ErrorCode::Unknown).index()] += 1;
                    }
                }
                for (case, result) in self.orphans.take(id) {
                    self.record(case, &result);
                }
            }
        }
    }

    /// A group that there is room for.
    fn place(&self, group: Group) -> Group {
        if self.groups.len() < GROUPS_MAX || self.groups.contains_key(&group) {
            return group;
        }
        let branch = if group.branch.is_empty() {
            group.branch
        } else {
            OTHER.into()
        };
        Group {
            environment: OTHER.into(),
            branch,
        }
    }

    /// Puts the results of an edited run where the run is now.
    fn follow_edit(&mut self, id: u64) {
        let Some(KnownRun { run, seen, .. }) = self.runs.get(id) else {
            return;
        };
        let Some(group) = self.groups.get_mut(&run.group) else {
            return;
        };
        for case in seen.iter() {
            if let Some(row) = group.rows.get_mut(&case) {
                row.recent.move_run(run);
                row.judged.forget();
            }
        }
    }

    fn take_active(&mut self, runs: &[ActiveRun]) {
        self.runs.replace_active(runs.iter().map(|run| run.id));
        for environment in self.environments.values_mut() {
            environment.active = [0; ActiveState::COUNT];
        }
        for run in runs {
            let room = self.environments.len() < GROUPS_MAX || self.environments.contains_key(&run.environment);
            let name = if room { run.environment.clone() } else { OTHER.into() };
            environment(&mut self.environments, &name, self.clock).active[run.state.index()] += 1;
        }
    }

    fn take_result(&mut self, result: CaseResult) {
        let Some(case) = self.cases.place(&result.case, self.clock) else {
            return;
        };
        if self.runs.get(result.run).is_some() {
            self.record(case, &result);
        } else {
            self.orphans.keep(case, result);
        }
    }

    /// A result of a known run: counted at its first sight if its run is, an edit of the gauges afterwards.
    fn record(&mut self, case: CaseIndex, result: &CaseResult) {
        let Some(known) = self.runs.get_mut(result.run) else {
            return;
        };
        let Some(group) = self.groups.get_mut(&known.run.group) else {
            return;
        };
        let entry = Entry::new(result, &known.run);
        let where_it_ran = known.run.group.clone();
        if known.seen.insert(case) {
            let row = group.row(case, self.clock);
            row.recent.insert(entry);
            row.judged.forget();
            if known.counted {
                // Results come run by run: one copy of what is remembered of a run will do for all of its cases.
                let counted = CountedRun::new(&known.run);
                if self.counted.as_deref() != Some(&counted) {
                    self.counted = Some(Arc::new(counted));
                }
                if let Some(counted) = &self.counted {
                    row.pending.get_or_insert_default().count(result, counted);
                }
            }
        } else if let Some(row) = group.rows.get_mut(&case) {
            match row.recent.replace(entry) {
                Reread::Same => return,
                Reread::Told => {}
                Reread::Edited => self.runs.note_late_edit(),
            }
            row.judged.forget();
        }
        self.runs.note_result(&where_it_ran);
    }

    fn take_last_pass(&mut self, case: &Name, group: Group, at: Timestamp) {
        let Some(case) = self.cases.place(case, self.clock) else {
            return;
        };
        let group = self.place(group);
        environment(&mut self.environments, &group.environment, self.clock);
        let clock = self.clock;
        let row = self
            .groups
            .entry(group)
            .or_insert_with(|| GroupState::new(clock))
            .row(case, clock);
        row.told_pass = row.told_pass.max(Some(at));
    }

    /// Lets go of what lies before the retention: runs, then the rows that tell of nothing newer, then groups and
    /// environments without runs and rows, then cases without a trace. What comes back later starts as new, at 0.
    fn forget(&mut self) {
        let retention = SignedDuration::try_from(self.spec.limits.retention).unwrap_or(SignedDuration::MAX);
        let Ok(cutoff) = self.as_of.checked_sub(retention) else {
            return;
        };
        self.runs.forget_before(cutoff);
        let runs = &self.runs;
        self.after_snooze.retain(|run, _| runs.get(*run).is_some());
        let rows_cutoff = cutoff.min(self.alive_since());
        let alive: HashSet<&Group> = self.runs.values().map(|known| &known.run.group).collect();
        let mut used = CaseSet::default();
        self.groups.retain(|name, group| {
            let rows = group.rows.len();
            let lives = |row: &Row| {
                row.touched >= rows_cutoff
                    || row.pending.is_some()
                    || row.recent.newest().is_some_and(|(ended, _)| ended >= rows_cutoff)
            };
            let kept = group
                .renames
                .kept_by(|case| group.rows.get(&case).is_some_and(|row| lives(row)));
            group.rows.retain(|case, row| lives(row) || kept.contains(*case));
            if group.rows.len() != rows {
                group.sorted.clear();
                group.renames.forget(&group.rows);
            }
            for case in group.rows.keys() {
                used.insert(*case);
            }
            alive.contains(name) || !group.rows.is_empty()
        });
        let with_groups: HashSet<&Name> = self.groups.keys().map(|group| &group.environment).collect();
        self.environments.retain(|name, known| {
            known.touched >= cutoff || with_groups.contains(name) || known.active.iter().any(|count| *count > 0)
        });
        for known in self.runs.values() {
            used.add(&known.seen);
        }
        for case in self.orphans.cases() {
            used.insert(case);
        }
        self.cases.forget_before(cutoff, &used);
    }

    /// Builds what is to be published after a round, as `generation`. `scraped` is the newest generation that a scrape
    /// has taken. Its cases have at most `series_allowed` series, and a group's `__other__` if it needs one.
    pub fn snapshot(
        &mut self,
        now: Timestamp,
        generation: u64,
        scraped: u64,
        series_allowed: usize,
    ) -> Arc<SourceSnapshot> {
        for group in self.groups.values_mut() {
            group.sort(&self.cases);
        }
        self.judge();
        let cases_folded = self.settle(series_allowed, generation, scraped);
        let case_outcomes = self.case_outcomes();
        let mut moment = Moment {
            created_timestamps: self.spec.created_timestamps,
            now,
            generation,
            scraped,
            held: Vec::new(),
        };
        let snoozes = self.snoozes.take();
        let snoozed = Snoozed::at(snoozes.as_deref(), self.as_of);
        let (cases, case_infos) = self.case_rows_shown(&mut moment, &snoozed);
        // All cases are looked through only where there is something to find.
        let environments = snoozes.as_ref().map(|_| self.cases_alive()).unwrap_or_default();
        let snooze_rows = snoozed.rows(environments);
        let promotion = Promotion {
            as_of: self.is_read.then_some(self.as_of),
            standings: self.standings(&snoozed).into(),
        };
        self.snoozes = snoozes;
        let groups = self.group_rows_shown(&mut moment);
        let run_errors = self.run_errors_shown(&mut moment);
        self.held = moment.held;
        self.released.clear();
        let snapshot = Arc::new(SourceSnapshot {
            source: self.spec.name.clone(),
            project: self.project.clone(),
            groups,
            run_errors,
            error_codes: self.spec.error_codes,
            active_states: self.spec.active_states,
            runs_active: self
                .environments
                .iter()
                .map(|(name, known)| (name.clone(), known.active))
                .collect(),
            snoozes: snooze_rows,
            promotion,
            cases_folded,
            cases,
            case_infos,
            case_outcomes,
            as_of: self.as_of,
        });
        self.published = Some(Arc::clone(&snapshot));
        snapshot
    }

    /// Shows the truth of rows whose zeros have been seen, as `generation`: the published round's, whatever has been applied
    /// since.
    pub fn release(&mut self, now: Timestamp, generation: u64, scraped: u64) -> Option<Arc<SourceSnapshot>> {
        if !self.held.iter().any(|held| held.since.are_over(now, scraped)) {
            return None;
        }
        let mut snapshot = SourceSnapshot::clone(self.published.as_deref()?);
        let (over, held) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|held| held.since.are_over(now, scraped));
        self.held = held;
        for Held { truth, .. } in over {
            let row = Released::from(&truth);
            if let Some(shown) = self.shown_of(&row, Some(generation)) {
                *shown = Shown::Truth;
            }
            self.released.push(row);
            match truth {
                Truth::Group { place, row } => snapshot.groups[place] = *row,
                Truth::Case { place, row } => snapshot.cases[place] = *row,
                Truth::Errors { environment, counts } => {
                    if let Some(shown) = snapshot.run_errors.get_mut(&environment) {
                        shown.counts = counts;
                    }
                }
            }
        }
        let snapshot = Arc::new(snapshot);
        self.published = Some(Arc::clone(&snapshot));
        Some(snapshot)
    }

    /// Takes series of cases away until `allowed` are left, those with the weakest claims first, between two rounds: what a
    /// round that goes on has told is not shown, and not counted anywhere. `scraped`: what no scrape has taken stays, and more
    /// series with it than are allowed.
    pub fn shrink(&mut self, allowed: usize, scraped: Option<u64>) -> Option<Arc<SourceSnapshot>> {
        let published = self.published.clone()?;
        if self.series_shown() <= allowed {
            return None;
        }
        let mut stays = vec![true; published.cases.len()];
        let as_of = self.as_of;
        let (mut claims, mut unseen, mut others) = (Vec::new(), 0, 0);
        for (place, shown) in published.cases.iter().enumerate() {
            if &*shown.case == OTHER {
                others += 1;
            } else if let Some(row) = self.row_of(shown) {
                stays[place] = false;
                unseen += usize::from(scraped.is_some_and(|scraped| row.is_unseen(scraped)));
                claims.push(Claim::new(row, as_of, scraped.unwrap_or(u64::MAX), place));
            }
        }
        let width = self.width_shown(&published);
        let slots = allowed.saturating_sub(others * width.other) / width.case;
        let (rows, slots) = (claims.len(), slots.max(unseen));
        if slots >= rows {
            return None;
        }
        for place in budget::best(claims, slots) {
            stays[place] = true;
        }
        let mut snapshot = SourceSnapshot::clone(&published);
        snapshot.cases_folded += (rows - slots) as u64;
        let left = published.cases.iter().zip(&stays).filter(|(_, stays)| !**stays);
        for (shown, _) in left {
            if let Some(row) = self.row_of(shown) {
                row.leave();
            }
        }
        let mut is_left = stays.iter();
        snapshot.cases.retain(|_| is_left.next().copied().unwrap_or_default());
        let shown: HashSet<&Name> = snapshot.cases.iter().map(|row| &row.case).collect();
        snapshot.case_infos.retain(|info| shown.contains(&info.case));
        self.held.retain_mut(|held| match &mut held.truth {
            Truth::Case { place, .. } => {
                let stayed = stays[*place];
                *place = stays[..*place].iter().filter(|stays| **stays).count();
                stayed
            }
            Truth::Group { .. } | Truth::Errors { .. } => true,
        });
        let snapshot = Arc::new(snapshot);
        self.published = Some(Arc::clone(&snapshot));
        Some(snapshot)
    }

    fn row_of(&mut self, shown: &CaseRow) -> Option<&mut Row> {
        let case = self.cases.find(&shown.case)?;
        self.groups.get_mut(&shown.group)?.rows.get_mut(&case).map(Box::as_mut)
    }

    /// It is no longer on the page. What has not been seen by now is not seen before it is there again: zeros are shown anew,
    /// and a step stays the newest one.
    pub fn withdraw(&mut self, scraped: u64) {
        for group in self.groups.values_mut() {
            group.shown.leave_out();
            for row in group.rows.values_mut() {
                row.withdraw(scraped);
            }
            if let Some(other) = &mut group.other {
                other.withdraw(scraped);
            }
        }
        for environment in self.environments.values_mut() {
            environment.shown.leave_out();
        }
        self.held.clear();
    }

    /// A run that has moved many counts is kept with each of them; in memory it is one again.
    fn share_counted_runs(&mut self) {
        let mut known: HashSet<Arc<CountedRun>> = HashSet::new();
        let mut share = |run: &mut Arc<CountedRun>| {
            if let Some(same) = known.get(run) {
                *run = Arc::clone(same);
            } else {
                known.insert(Arc::clone(run));
            }
        };
        for group in self.groups.values_mut() {
            group.counted.iter_mut().flatten().for_each(&mut share);
            for histogram in [&mut group.duration, &mut group.queue] {
                let runs = histogram.counted.iter_mut().flatten();
                runs.for_each(|(run, _)| share(run));
            }
            for row in group.rows.values_mut().chain(group.other.as_mut()) {
                row.own.newest.iter_mut().flatten().for_each(&mut share);
            }
        }
    }

    /// Where it is noted what of a row has been shown. Its series change as `generation`, if that is known.
    fn shown_of(&mut self, row: &Released, generation: Option<u64>) -> Option<&mut Shown> {
        match row {
            Released::Group(group) => Some(&mut self.groups.get_mut(group)?.shown),
            Released::Errors(environment) => Some(&mut self.environments.get_mut(environment)?.shown),
            Released::Case(group, case) if &**case == OTHER => {
                Some(&mut self.groups.get_mut(group)?.other.as_mut()?.shown)
            }
            Released::Case(group, case) => {
                let case = self.cases.find(case)?;
                let row = self.groups.get_mut(group)?.rows.get_mut(&case)?;
                row.changed = generation;
                Some(&mut row.shown)
            }
        }
    }

    /// What was released since the last round.
    pub(super) fn released(&self) -> &[Released] {
        &self.released
    }

    /// Judges the cases about which something has changed, as of the end of the last good round.
    fn judge(&mut self) {
        let (settings, groups) = (&self.spec.health, &self.groups);
        let rows = |group: &Group| groups.get(group).map(|group| &group.rows);
        let differ = self
            .judge
            .review(&mut self.runs, &settings.infrastructure, &self.cases, rows);
        for (name, group) in &mut self.groups {
            if let Some(last) = differ.get(name) {
                let rows = group.rows.values_mut();
                rows.for_each(|row| Judge::doubt_row(row, *last));
            }
            let mut continued = group.results_of_renamed(&self.judge, settings, self.as_of);
            let mut results = Vec::with_capacity(WINDOW_MAX);
            for (case, row) in &mut group.rows {
                if let Some(results) = continued.remove(case) {
                    self.judge.judge(row, &results, settings, self.as_of);
                } else if !row.judged.holds(settings, self.as_of) {
                    results.clear();
                    self.judge.observe(row, &mut results);
                    self.judge.judge(row, &results, settings, self.as_of);
                }
            }
        }
    }

    /// Decides which cases have series of their own, and puts what was counted since the last round where it belongs. Gives
    /// how many cases have none for want of room.
    fn settle(&mut self, series_allowed: usize, generation: u64, scraped: u64) -> u64 {
        let alive = self.alive_since();
        let Room { cases, others } = self.room(series_allowed, alive, scraped);
        let mut admitted = cases.iter();
        let mut folded = 0;
        for (group, has_other) in self.groups.values_mut().zip(others) {
            for case in &group.sorted {
                let Some(row) = group.rows.get_mut(case) else { continue };
                if admitted.next().copied().unwrap_or(false) {
                    row.admit(generation, scraped);
                    continue;
                }
                let has_no_room = row.seen() >= alive;
                folded += u64::from(has_no_room);
                if !has_other {
                    row.leave();
                    continue;
                }
                let uncounted = row.fold();
                if has_no_room || uncounted.is_some() {
                    let other = group.other.get_or_insert_with(|| Box::new(Row::new(self.clock)));
                    other.admitted = true;
                    other.own.merge(uncounted.unwrap_or_default());
                }
            }
        }
        folded
    }

    /// Who has room.
    fn room(&self, series_allowed: usize, alive: Timestamp, scraped: u64) -> Room {
        let impostor = self.impostor();
        let mut claims = Vec::new();
        let mut needs = Vec::with_capacity(self.groups.len());
        let mut rows = 0;
        for group in self.groups.values() {
            let before = claims.len();
            for case in &group.sorted {
                let Some(row) = group.rows.get(case) else { continue };
                if row.seen() >= alive && Some(*case) != impostor {
                    claims.push((&**row, rows));
                }
                rows += 1;
            }
            needs.push(if group.other.is_some() {
                budget::Other::IsThere
            } else if group.needs_other(alive, impostor) {
                budget::Other::Needed
            } else if claims.len() > before {
                budget::Other::NeededIfFolded
            } else {
                budget::Other::NotNeeded
            });
        }
        let unseen = claims.iter().filter(|(row, _)| row.is_unseen(scraped)).count();
        let budget::Slots { cases: slots, others } =
            budget::slots(series_allowed, self.width(), claims.len(), unseen, &needs);
        let mut cases = vec![false; rows];
        if slots >= claims.len() {
            for (_, place) in claims {
                cases[place] = true;
            }
        } else {
            let claims = claims
                .into_iter()
                .map(|(row, place)| Claim::new(row, self.as_of, scraped, place))
                .collect();
            for place in budget::best(claims, slots) {
                cases[place] = true;
            }
        }
        Room { cases, others }
    }

    /// The cases of each environment, as long as they are shown.
    fn cases_alive(&self) -> BTreeMap<Name, HashSet<&Name>> {
        let alive = self.alive_since();
        let mut cases: BTreeMap<Name, HashSet<&Name>> = BTreeMap::new();
        for (name, group) in &self.groups {
            let rows = group.rows.iter().filter(|(_, row)| row.seen() >= alive);
            let names = rows.filter_map(|(case, _)| self.cases.name(*case));
            cases.entry(name.environment.clone()).or_default().extend(names);
        }
        cases
    }

    fn case_rows_shown(&mut self, moment: &mut Moment, snoozed: &Snoozed<'_>) -> (Vec<CaseRow>, Vec<CaseInfo>) {
        let other_name = Name::from(OTHER);
        let rows = self
            .groups
            .values()
            .flat_map(|group| group.rows.values().chain(&group.other));
        let mut rows = Vec::with_capacity(rows.filter(|row| row.admitted).count());
        let mut shown_cases = CaseSet::default();
        for (name, group) in &mut self.groups {
            let place_of_other = group
                .sorted
                .partition_point(|case| self.cases.name(*case).is_some_and(|case| **case < *OTHER));
            let renamed = group.renames.links().keys();
            let pasts: HashMap<CaseIndex, _> = renamed.map(|case| (*case, group.past(*case))).collect();
            let (before, after) = group.sorted.split_at(place_of_other);
            let places = before.iter().map(Some).chain([None]).chain(after.iter().map(Some));
            for place in places {
                let row = match place {
                    Some(case) => group.rows.get_mut(case).map(Box::as_mut).zip(self.cases.name(*case)),
                    None => group.other.as_deref_mut().zip(Some(&other_name)),
                };
                if let Some((row, case_name)) = row.filter(|(row, _)| row.admitted) {
                    if let Some(case) = place {
                        shown_cases.insert(*case);
                    }
                    let is_snoozed = place.is_some() && snoozed.covers(&name.environment, case_name);
                    let past = place.and_then(|case| pasts.get(case)).copied();
                    moment.show_case(&mut rows, (name, case_name), row, past, is_snoozed);
                }
            }
        }
        let mut infos: Vec<_> = shown_cases
            .iter()
            .filter_map(|case| self.cases.info(case).cloned())
            .collect();
        infos.sort_unstable_by(|a, b| a.case.cmp(&b.case));
        (rows, infos)
    }

    fn group_rows_shown(&mut self, moment: &mut Moment) -> Vec<GroupRow> {
        let mut last: HashMap<&Group, &Run> = HashMap::new();
        for KnownRun { run, .. } in self.runs.values() {
            let newest = last.entry(&run.group).or_insert(run);
            if run.order() > newest.order() {
                *newest = run;
            }
        }
        let mut rows = Vec::with_capacity(self.groups.len());
        for (name, group) in &mut self.groups {
            let truth = GroupRow {
                group: name.clone(),
                runs: group.runs,
                cases: group.cases,
                duration: group.duration.clone(),
                queue: group.queue.clone(),
                counted: group.counted.clone(),
                created: moment.created(group.created),
                last: last.get(name).map(|run| Run::clone(run)),
                failed_after_snooze: last.get(name).and_then(|run| self.after_snooze.get(&run.id).copied()),
            };
            let Some(since) = group.shown.show(moment.now, moment.generation, moment.scraped) else {
                rows.push(truth);
                continue;
            };
            let moved = truth.runs.iter().any(|count| *count > 0);
            rows.push(GroupRow {
                runs: [0; RunOutcome::COUNT],
                cases: [0; CaseOutcome::COUNT],
                duration: Histogram::new(RUN_DURATION_BOUNDS),
                queue: Histogram::new(RUN_QUEUE_BOUNDS),
                counted: Default::default(),
                ..truth.clone()
            });
            moment.hold(moved, since, || Truth::Group {
                place: rows.len() - 1,
                row: Box::new(truth),
            });
        }
        rows
    }

    fn run_errors_shown(&mut self, moment: &mut Moment) -> BTreeMap<Name, ErrorCounts> {
        let mut rows = BTreeMap::new();
        for (name, known) in &mut self.environments {
            let since = known.shown.show(moment.now, moment.generation, moment.scraped);
            let counts = if since.is_some() {
                [0; ErrorCode::COUNT]
            } else {
                known.errors
            };
            let created = moment.created(known.created);
            rows.insert(name.clone(), ErrorCounts { counts, created });
            if let Some(since) = since {
                let moved = known.errors.iter().any(|count| *count > 0);
                let counts = known.errors;
                moment.hold(moved, since, || Truth::Errors {
                    environment: name.clone(),
                    counts,
                });
            }
        }
        rows
    }

    /// Each case once per environment: where several branches have it, as it went in the newest of their runs.
    fn case_outcomes(&self) -> BTreeMap<Name, [[u64; Verdict::COUNT]; CaseOutcome::COUNT]> {
        let mut counts: BTreeMap<Name, [[u64; Verdict::COUNT]; CaseOutcome::COUNT]> = BTreeMap::new();
        let mut newest: Vec<Option<(Order, CaseOutcome, Verdict)>> = vec![None; self.cases.places()];
        let alive = self.alive_since();
        let mut groups = self.groups.iter().peekable();
        while let Some((name, group)) = groups.next() {
            for (case, row) in group.rows.iter().filter(|(_, row)| row.seen() >= alive) {
                let this = row.recent.newest().zip(row.recent.outcome());
                let this = this.map(|(order, outcome)| (order, outcome, row.judged.verdict()));
                let known = &mut newest[*case as usize];
                *known = (*known).max(this);
            }
            if groups
                .peek()
                .is_some_and(|(next, _)| next.environment == name.environment)
            {
                continue;
            }
            for (_, outcome, verdict) in newest.iter_mut().filter_map(Option::take) {
                counts.entry(name.environment.clone()).or_default()[outcome.index()][verdict.index()] += 1;
            }
        }
        counts
    }
}

mod promote;

/// Which cases have series of their own, in the order of the rows, and which groups may have a sum of the others.
struct Room {
    cases: Vec<bool>,
    others: Vec<bool>,
}

/// The circumstances of a snapshot, and what it holds back.
struct Moment {
    created_timestamps: bool,
    now: Timestamp,
    generation: u64,
    scraped: u64,
    held: Vec<Held>,
}

impl Moment {
    /// When counters began, if that is to be told.
    fn created(&self, at: Option<Timestamp>) -> Option<Timestamp> {
        at.filter(|_| self.created_timestamps)
    }

    /// Zeros that are the truth hold nothing back.
    fn hold(&mut self, moved: bool, since: Zeros, truth: impl FnOnce() -> Truth) {
        if moved {
            self.held.push(Held { since, truth: truth() });
        }
    }

    /// `past`: of a case that was another one before.
    fn show_case(
        &mut self,
        rows: &mut Vec<CaseRow>,
        (group, case): (&Group, &Name),
        row: &mut Row,
        past: Option<Past>,
        snoozed: bool,
    ) {
        let mut truth = CaseRow {
            snoozed,
            created: self.created(row.created),
            ..case_row(group, case, row)
        };
        if let Some(past) = past {
            truth.consecutive_failures = past.streak;
            truth.failing_since = past.failing_since;
            truth.last_pass = past.last_pass;
        }
        let was = row.shown;
        let zeros = row.shown.show(self.now, self.generation, self.scraped);
        if row.shown == Shown::Truth && was != Shown::Truth {
            row.changed = Some(self.generation);
        }
        let Some(since) = zeros else {
            rows.push(truth);
            return;
        };
        let moved = truth.counts.results.iter().any(|count| *count > 0);
        rows.push(CaseRow {
            counts: Counts::default(),
            counted: Default::default(),
            ..truth.clone()
        });
        self.hold(moved, since, || Truth::Case {
            place: rows.len() - 1,
            row: Box::new(truth),
        });
    }
}

fn environment<'a>(
    environments: &'a mut BTreeMap<Name, Environment>,
    name: &Name,
    clock: Timestamp,
) -> &'a mut Environment {
    let known = environments.entry(name.clone()).or_insert_with(|| Environment {
        errors: [0; ErrorCode::COUNT],
        active: [0; ActiveState::COUNT],
        shown: Shown::Never,
        touched: clock,
        created: Some(clock),
    });
    known.touched = clock;
    known
}

/// When the present streak began, if that is known.
fn failing_since(row: &Row) -> Option<Timestamp> {
    let (since, _) = row.recent.streak_since()?;
    (since > Timestamp::MIN).then_some(since)
}

fn case_row(group: &Group, case: &Name, row: &Row) -> CaseRow {
    let standing = row.recent.standing();
    let health = standing.last.as_ref().and_then(|_| row.judged.health().cloned());
    CaseRow {
        group: group.clone(),
        case: case.clone(),
        counts: row.own.counts.clone(),
        came_back_at: row.came_back_at.clone(),
        last: standing.last,
        last_pass: standing.last_pass.max(row.told_pass),
        consecutive_failures: standing.streak,
        snoozed: false,
        failing_since: failing_since(row),
        health,
        counted: row.own.newest.clone(),
        created: None,
    }
}
