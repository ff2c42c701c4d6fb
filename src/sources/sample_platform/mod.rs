//! The Sample Platform as a state machine: what is worth a request in a round, in which order, and what an answer means.
//! Never reads JSON by hand (`wire`), never decides what counts (`store`).
//!
//! A round: the list of runs, newest first, down to what is known; open runs that the list no longer shows; the results
//! of the runs that have finished (`discovery: runs`: from the run itself; otherwise from the samples' histories). At the
//! first meeting the newest runs of each platform and branch are read until every case has shown a pass, and the history
//! of the few that have not. When nothing of that is left, recent runs are read again, slowly.

mod runs;
mod wire;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use self::runs::{Known, Runs, case_outcome};
use super::loose::{self, missing, read};
use super::pager::{Pager, known_from_here};
use super::sweep::{self, Sweep};
use super::{Allowance, Discovery, Learned, MemoryError, Progress, Rejection, Settings, Source};
use crate::model::{
    ActiveRun, CaseCounts, CaseInfo, CaseOutcome, CaseResult, Fact, Group, Name, Notice, Run, RunId, Unread,
};
use crate::sources::table::Standing;
use crate::transport::{Reply, Request};

const LIST: &str = "/runs";
const DETAILS: &str = "/runs/{run_id}";
const SUMMARY: &str = "/runs/{run_id}/summary";
const RESULTS: &str = "/runs/{run_id}/samples";
const SAMPLES: &str = "/samples";
const HISTORY: &str = "/samples/{sample_id}/history";

/// A page of the list costs the server about 10 ms a run: half of the largest page, except at the first meeting.
const PAGE: usize = 50;
const PAGE_MAX: usize = 100;
/// A walk ends here at the latest.
const PAGES_MAX: usize = 200;
/// How far one sample's history is read at the most: 1,000 rows.
const HISTORY_PAGES_MAX: usize = 10;
/// Newest runs of a group that are read at the first meeting before single cases' histories are the cheaper way.
const FIRST_RUNS: usize = 3;
/// Single answers that may be missing without the round failing.
const FORGIVEN_MAX: u32 = 3;
/// Failed results of one run whose signature is looked up in the history, because the run's own results cannot tell it.
const SIGNATURES_MAX: usize = 5;
/// Results that could not be read so often are given up; the run is counted without them.
const TRIES_MAX: u32 = 8;
/// Cases are looked through for dead ones at most so often.
const FORGET_PAUSE: SignedDuration = SignedDuration::from_hours(1);
/// The samples are listed anew at most so often, and only after a run has finished.
const DISCOVERY_PAUSE: SignedDuration = SignedDuration::from_hours(1);
/// A sample whose history the server cannot serve is left alone for so long.
const HISTORY_PAUSE: SignedDuration = SignedDuration::from_mins(10);

/// The statuses of open runs that the list can be filtered by, in the order in which a run goes through them.
const OPEN_STATUSES: [&str; 2] = ["queued", "running"];

/// The question that is out.
#[derive(Debug, Clone, PartialEq)]
enum Ask {
    List,
    /// The open runs by status, one of [`OPEN_STATUSES`].
    Open(usize),
    Details(RunId),
    Summary(RunId),
    Results(RunId),
    Samples,
    History {
        sample: u64,
        why: Why,
    },
    /// A run that was read before: its times and status, then what else is read of a run.
    Again(RunId),
    AgainSummary(RunId),
    AgainResults(RunId),
}

/// Why a sample's history is read.
#[derive(Debug, Clone, PartialEq)]
enum Why {
    /// For all its results: the run's own are not read in this mode.
    Results,
    /// For one case's last pass.
    Settle(Name),
    /// For one result's failure signature.
    Signature(Box<CaseResult>),
    /// The newest of its results, which were read before.
    Again,
}

/// A case that is tracked.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Tracked {
    info: Option<CaseInfo>,
    sample: Option<u64>,
    /// Where it has results, and whether a pass is known there.
    passed_in: BTreeMap<Group, bool>,
    /// First seen in a run from before the first meeting: older results may tell a pass.
    settle: bool,
    /// The newest end of a finished run that has a result of it, or when it was first seen, if that is later.
    #[serde(with = "crate::packed")]
    listed: Option<Timestamp>,
}

/// A sample that is tracked, in the modes that read histories.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Sample {
    name: Option<Name>,
    #[serde(skip)]
    tags: Option<Name>,
    /// The number of finished runs that its history was last read after.
    read_after: u64,
    #[serde(with = "crate::packed")]
    refreshed: Option<Timestamp>,
    #[serde(with = "crate::packed")]
    not_before: Option<Timestamp>,
    /// How often rows were stepped over.
    tries: u32,
    #[serde(with = "crate::packed")]
    first_seen: Option<Timestamp>,
    /// When it was last listed by the platform or had a result in a finished run.
    #[serde(with = "crate::packed")]
    listed: Option<Timestamp>,
}

/// The pages of one list that are being read.
#[derive(Debug)]
struct Reading {
    pager: Pager,
    pages: usize,
    rows: Vec<wire::ResultRow>,
}

impl Reading {
    fn new(size: usize) -> Self {
        Self {
            pager: Pager::new(size),
            pages: 0,
            rows: Vec::new(),
        }
    }
}

/// The results of a run that are being read again, a page at a time, over as many rounds as that takes.
#[derive(Debug)]
struct Again {
    id: RunId,
    pager: Pager,
    counts: CaseCounts,
    told: BTreeSet<u64>,
}

/// What outlives the process: everything but the round at hand and what the configuration tells.
#[derive(Serialize, Deserialize)]
struct Memory<'a> {
    runs: Cow<'a, Runs>,
    cases: Cow<'a, BTreeMap<Name, Tracked>>,
    samples: Cow<'a, BTreeMap<u64, Sample>>,
    met: bool,
    finished: Cow<'a, [(u64, RunId)]>,
    finished_count: u64,
    first_runs: Cow<'a, BTreeMap<Group, usize>>,
    signatures: Cow<'a, [CaseResult]>,
    #[serde(with = "crate::packed")]
    listed: Option<Timestamp>,
    listing_wanted: bool,
    sweep: Cow<'a, Sweep<RunId>>,
    sample_sweep: Cow<'a, Sweep<u64>>,
}

/// The Sample Platform, as one source sees it.
pub struct SamplePlatform {
    settings: Settings,
    runs: Runs,
    cases: BTreeMap<Name, Tracked>,
    samples: BTreeMap<u64, Sample>,
    /// Whether a first round has seen all runs: what was finished before is the baseline.
    met: bool,
    /// Finished runs in the order in which they were found finished, until every sample was read after them.
    finished: Vec<(u64, RunId)>,
    finished_count: u64,
    /// How many of the newest runs of each group were read at the first meeting.
    first_runs: BTreeMap<Group, usize>,
    signatures: Vec<CaseResult>,
    listed: Option<Timestamp>,
    listing_wanted: bool,
    clean: Option<usize>,
    failures_in_a_row: u32,
    refused: u64,
    /// Where the slow re-read of runs and of samples is.
    sweep: Sweep<RunId>,
    sample_sweep: Sweep<u64>,
    again: Option<Again>,
    forgotten_at: Option<Timestamp>,
    // One round:
    now: Timestamp,
    allowance: Allowance,
    walking: bool,
    seen: BTreeSet<RunId>,
    status_lists: usize,
    highest: Option<RunId>,
    told_active: Option<Vec<ActiveRun>>,
    told_unread: Option<Unread>,
    /// Runs that were told although rows of their results could not be read.
    incomplete: BTreeSet<RunId>,
    /// Whether a row was passed over in this round.
    row_skipped: bool,
    forgiven: u32,
    backlog: usize,
    reading: Reading,
    ask: Option<Ask>,
}

impl SamplePlatform {
    /// A source that has not met its platform yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let sample_ids = settings.cases.ids.iter().filter_map(|id| id.parse().ok());
        let samples = if settings.cases.discovery == Discovery::Runs {
            BTreeMap::new()
        } else {
            sample_ids.map(|id| (id, Sample::default())).collect()
        };
        Self {
            settings,
            runs: Runs::default(),
            cases: BTreeMap::new(),
            samples,
            met: false,
            finished: Vec::new(),
            finished_count: 1,
            first_runs: BTreeMap::new(),
            signatures: Vec::new(),
            listed: None,
            listing_wanted: true,
            clean: None,
            failures_in_a_row: 0,
            refused: 0,
            sweep: Sweep::default(),
            sample_sweep: Sweep::default(),
            again: None,
            forgotten_at: None,
            now: Timestamp::UNIX_EPOCH,
            allowance: Allowance::default(),
            walking: true,
            seen: BTreeSet::new(),
            status_lists: 0,
            highest: None,
            told_active: None,
            told_unread: None,
            incomplete: BTreeSet::new(),
            row_skipped: false,
            forgiven: 0,
            backlog: 0,
            reading: Reading::new(PAGE_MAX),
            ask: None,
        }
    }

    fn lookback(&self) -> SignedDuration {
        SignedDuration::try_from(self.settings.lookback).unwrap_or(SignedDuration::from_hours(30 * 24))
    }

    /// Whether results are read from the runs themselves.
    fn by_runs(&self) -> bool {
        self.settings.cases.enabled && self.settings.cases.discovery == Discovery::Runs
    }

    /// Whether results are read from the samples' histories.
    fn by_history(&self) -> bool {
        self.settings.cases.enabled && self.settings.cases.discovery != Discovery::Runs
    }

    // ---- planning ---------------------------------------------------------------------------------------------------

    fn plan(&mut self) -> Option<Ask> {
        if self.walking {
            return Some(Ask::List);
        }
        // Open runs behind the first page: two lists tell all of them, if asking one by one is not cheaper.
        let unseen = self.runs.unseen(&self.seen);
        if unseen.len() > OPEN_STATUSES.len() && self.status_lists < OPEN_STATUSES.len() {
            self.reading = Reading::new(PAGE_MAX);
            return Some(Ask::Open(self.status_lists));
        }
        if let Some(id) = unseen.first() {
            return Some(Ask::Details(*id));
        }
        let due = self.runs.table.due(self.now);
        let samples = self.samples_due().0;
        self.backlog = due.len() + self.signatures.len() + samples;
        if self.allowance.requests == 0 {
            return None;
        }
        let ask = due
            .first()
            .map(|id| self.read_run(*id))
            .or_else(|| self.plan_results())
            .or_else(|| self.plan_again())?;
        self.allowance.requests -= 1;
        self.reading = Reading::new(PAGE_MAX);
        Some(ask)
    }

    /// What was read already, when there is nothing else to do: upstream may have changed its mind.
    fn plan_again(&mut self) -> Option<Ask> {
        if self.allowance.rereads == 0 || !self.met {
            return None;
        }
        let again = self.again.take();
        self.again = again.filter(|again| self.is_read(again.id));
        let ask = match &self.again {
            Some(again) if self.by_runs() => Some(Ask::AgainResults(again.id)),
            Some(again) => Some(Ask::AgainSummary(again.id)),
            None => {
                let (runs, from) = (&self.runs, self.now - sweep::WINDOW);
                let next = |last: Option<&RunId>| runs.table.read_before(last.copied(), from);
                let run = self.sweep.next(self.now, sweep::RUNS_PAUSE, next);
                run.map(Ask::Again)
            }
        };
        let ask = ask.or_else(|| {
            let (samples, now) = (&self.samples, self.now);
            let ready =
                |sample: &Sample| sample.refreshed.is_some() && sample.not_before.is_none_or(|time| time <= now);
            let next = |last: Option<&u64>| {
                let from = last.map_or(0, |last| last.saturating_add(1));
                samples
                    .range(from..)
                    .find(|(_, sample)| ready(sample))
                    .map(|(id, _)| *id)
            };
            let sample = self.sample_sweep.next(now, sweep::HISTORIES_PAUSE, next)?;
            Some(Ask::History {
                sample,
                why: Why::Again,
            })
        })?;
        self.allowance.rereads -= 1;
        Some(ask)
    }

    fn is_read(&self, id: RunId) -> bool {
        self.runs
            .table
            .get(id)
            .is_some_and(|known| known.standing == Standing::Read)
    }

    fn read_run(&self, id: RunId) -> Ask {
        if self.by_runs() {
            Ask::Results(id)
        } else {
            Ask::Summary(id)
        }
    }

    fn plan_results(&mut self) -> Option<Ask> {
        // In order of worth: what new runs lack, then what the first meeting lacks.
        if self.by_runs() {
            let signature = self.signatures.pop().and_then(|result| {
                let sample = self.cases.get(&result.case)?.sample?;
                Some(Ask::History {
                    sample,
                    why: Why::Signature(Box::new(result)),
                })
            });
            return signature
                .or_else(|| self.plan_first_runs())
                .or_else(|| self.plan_settling());
        }
        let newest = self.plan_newest_summary();
        if newest.is_some() || !self.by_history() {
            return newest;
        }
        let pause_over = self
            .listed
            .is_none_or(|at| self.now.duration_since(at) >= DISCOVERY_PAUSE);
        if self.settings.cases.discovery == Discovery::Samples && self.listing_wanted && pause_over {
            return Some(Ask::Samples);
        }
        self.samples_due().1.map(|sample| Ask::History {
            sample,
            why: Why::Results,
        })
    }

    /// How many samples have not been read since a run finished, and among those that can be read now the one with the oldest
    /// refresh.
    fn samples_due(&self) -> (usize, Option<u64>) {
        if !self.by_history() {
            return (0, None);
        }
        let mut count = 0;
        let behind = self
            .samples
            .iter()
            .filter(|(_, sample)| sample.read_after < self.finished_count);
        let due = behind
            .inspect(|_| count += 1)
            .filter(|(_, sample)| sample.not_before.is_none_or(|time| time <= self.now));
        let oldest = due.map(|(id, sample)| (sample.refreshed, *id)).min();
        (count, oldest.map(|(_, id)| id))
    }

    /// The newest run of each group that was finished at the first meeting, by its end.
    fn newest_presumed(&self, wanted: impl Fn(&Group, usize) -> bool) -> Option<RunId> {
        let mut newest: BTreeMap<&Group, &Run> = BTreeMap::new();
        for run in self.runs.presumed() {
            let slot = newest.entry(&run.group).or_insert(run);
            if slot.order() < run.order() {
                *slot = run;
            }
        }
        let wanted = |group: &Group| wanted(group, self.first_runs.get(group).copied().unwrap_or(0));
        newest
            .into_iter()
            .find(|(group, _)| wanted(group))
            .map(|(_, run)| run.id)
    }

    fn plan_newest_summary(&self) -> Option<Ask> {
        self.newest_presumed(|_, read| read == 0).map(Ask::Summary)
    }

    fn plan_first_runs(&self) -> Option<Ask> {
        let unsettled = |group: &Group| {
            self.cases
                .values()
                .any(|case| case.settle && case.passed_in.get(group) == Some(&false))
        };
        let run = self.newest_presumed(|group, read| read == 0 || read < FIRST_RUNS && unsettled(group));
        run.map(Ask::Results)
    }

    /// The history of a case that has shown no pass: one request instead of one for every older run.
    fn plan_settling(&self) -> Option<Ask> {
        // Without older runs there is nothing that a history could add.
        self.runs.presumed().next()?;
        let unsettled = |case: &Tracked| case.settle && case.passed_in.values().any(|passed| !passed);
        let ask = |(id, case): (&Name, &Tracked)| {
            let sample = case.sample.filter(|_| unsettled(case))?;
            Some(Ask::History {
                sample,
                why: Why::Settle(id.clone()),
            })
        };
        self.cases.iter().find_map(ask)
    }

    /// A case's history was read, or is not to be had: it is not asked for again.
    fn settled(&mut self, sample: u64, why: &Why) {
        match why {
            Why::Settle(case) => {
                if let Some(case) = self.cases.get_mut(case) {
                    case.settle = false;
                }
            }
            Why::Again => self.sample_sweep.passed(sample, self.now),
            Why::Results | Why::Signature(_) => {}
        }
    }

    fn request(&self, ask: &Ask) -> Request {
        let pager = match (ask, &self.again) {
            (Ask::AgainResults(_), Some(again)) => &again.pager,
            _ => &self.reading.pager,
        };
        let (limit, offset) = (pager.limit().to_string(), pager.offset().to_string());
        let mut page = vec![("limit", limit), ("offset", offset)];
        match ask {
            Ask::List => Request::get(LIST, LIST.into(), page),
            Ask::Open(status) => {
                page.push(("status", OPEN_STATUSES[*status].into()));
                Request::get(LIST, LIST.into(), page)
            }
            Ask::Details(id) | Ask::Again(id) => Request::get(DETAILS, format!("/runs/{id}"), Vec::new()),
            Ask::Summary(id) | Ask::AgainSummary(id) => {
                Request::get(SUMMARY, format!("/runs/{id}/summary"), Vec::new())
            }
            Ask::Results(id) | Ask::AgainResults(id) => Request::get(RESULTS, format!("/runs/{id}/samples"), page),
            Ask::Samples => {
                page.push(("status", "active".into()));
                Request::get(SAMPLES, SAMPLES.into(), page)
            }
            Ask::History { sample, why } => {
                match why {
                    Why::Results | Why::Again => {}
                    Why::Settle(case) => page.push(("regression_test_id", case.to_string())),
                    Why::Signature(result) => page.push(("regression_test_id", result.case.to_string())),
                }
                Request::get(HISTORY, format!("/samples/{sample}/history"), page)
            }
        }
    }

    /// The rows of a page, and whether there is a page behind it.
    fn page<T: for<'a> Deserialize<'a>>(
        &mut self,
        what: &str,
        body: &[u8],
    ) -> Result<(Vec<Option<T>>, bool), Rejection> {
        let (rows, more) = page_of(what, body, &mut self.reading.pager)?;
        self.reading.pages += 1;
        Ok((rows, more && self.reading.pages < PAGES_MAX))
    }

    // ---- the list of runs -------------------------------------------------------------------------------------------

    fn accept_list(&mut self, body: &[u8], learned: &mut Learned) -> Result<(), Rejection> {
        let (rows, more) = self.page::<wire::RunRow>("the list of runs", body)?;
        let oldest = self.now - self.lookback();
        let mut ids = Vec::with_capacity(rows.len());
        let mut all_old = !rows.is_empty();
        for row in rows {
            let row = row.unwrap_or_default();
            let Some(id) = row.run_id.id() else {
                let why = "a run without a usable run_id".into();
                learned.notices.push(Notice::RowSkipped { endpoint: LIST, why });
                continue;
            };
            ids.push(id);
            let created = row.created_at.time(|| ());
            let old = created.is_some_and(|created| created < oldest);
            all_old &= old;
            if old && self.runs.table.get(id).is_none() {
                continue;
            }
            self.accept_run(id, &row, learned);
        }
        let known_from_here = known_from_here(&ids, self.runs.walked_to);
        if !more || known_from_here || all_old {
            self.walking = false;
            self.clean = self
                .reading
                .pager
                .clean_size()
                .or_else(|| self.clean.filter(|_| known_from_here));
        }
        Ok(())
    }

    /// Says whether all open runs of this status have been told.
    fn accept_open(&mut self, body: &[u8], learned: &mut Learned) -> Result<bool, Rejection> {
        let (rows, more) = self.page::<wire::RunRow>("the list of open runs", body)?;
        for row in rows.into_iter().flatten() {
            if let Some(id) = row.run_id.id() {
                self.accept_run(id, &row, learned);
            }
        }
        if !more {
            self.status_lists += 1;
        }
        Ok(!more)
    }

    fn accept_run(&mut self, id: RunId, row: &wire::RunRow, learned: &mut Learned) {
        self.highest = self.highest.max(Some(id));
        self.seen.insert(id);
        let edited = self
            .runs
            .learn(id, row, self.met, self.now, &self.settings, &mut learned.notices);
        learned.facts.extend(edited.map(Fact::Run));
    }

    /// Every run is seen: what was finished before this moment is the baseline.
    fn meet(&mut self, learned: &mut Learned) {
        if self.walking || !self.runs.unseen(&self.seen).is_empty() {
            return;
        }
        self.runs.walked_to = self.highest.max(self.runs.walked_to);
        if !self.met {
            self.met = true;
            self.sweep.rest(self.now);
            self.sample_sweep.rest(self.now);
            learned.facts.extend(self.runs.presumed().cloned().map(Fact::Run));
        }
        let active = self.runs.active();
        if self.told_active.as_ref() != Some(&active) {
            learned.facts.push(Fact::Active(active.clone()));
            self.told_active = Some(active);
        }
    }

    fn accept_details(&mut self, id: RunId, body: &[u8], learned: &mut Learned) -> Result<(), Rejection> {
        let row: loose::Object<wire::RunRow> = read("a run", body)?;
        let row = row.0.filter(|row| row.run_id.id() == Some(id));
        let row = row.ok_or_else(|| Rejection::Unreadable("a run: the answer is not that run".into()))?;
        self.accept_run(id, &row, learned);
        Ok(())
    }

    // ---- results ----------------------------------------------------------------------------------------------------

    /// A finished run is read to its end: it is told, and whatever waits for finished runs is due.
    fn tell_run(&mut self, id: RunId, counts: Option<CaseCounts>, learned: &mut Learned) {
        let before = self.runs.table.get(id).map(|known| known.standing.clone());
        let Some(run) = self.runs.settle(id, counts) else {
            return;
        };
        if before == Some(Standing::Presumed) {
            *self.first_runs.entry(run.group.clone()).or_default() += 1;
        } else {
            self.finished_count += 1;
            self.listing_wanted = true;
            if self.by_history() {
                self.finished.push((self.finished_count, id));
            }
        }
        learned.facts.push(Fact::Run(run));
    }

    fn accept_summary(&mut self, id: RunId, body: &[u8], learned: &mut Learned) -> Result<(), Rejection> {
        let counts = summary(id, body)?;
        self.tell_run(id, Some(counts), learned);
        Ok(())
    }

    fn accept_results(&mut self, id: RunId, body: &[u8], learned: &mut Learned) -> Result<bool, Rejection> {
        let (rows, more) = self.page::<wire::ResultRow>("the results of a run", body)?;
        self.reading.rows.extend(rows.into_iter().flatten());
        if more {
            return Ok(false);
        }
        if self.reading.pager.skipped() > 0 && !self.last_try(id) {
            // A row that could not be served now may be served later; the run is counted once, with all its results.
            return Ok(true);
        }
        if self.reading.pager.skipped() > 0 {
            self.incomplete.insert(id);
        }
        let rows = std::mem::take(&mut self.reading.rows);
        let mut counts = no_results();
        let old = self
            .runs
            .table
            .get(id)
            .is_some_and(|known| known.standing == Standing::Presumed);
        // There is no order in the server's query: a row may come on two pages.
        let mut told = BTreeSet::new();
        let results: Vec<CaseResult> = rows
            .iter()
            .filter(|row| told.insert(row.regression_test_id.id()) || row.regression_test_id.id().is_none())
            .filter_map(|row| self.accept_result(id, row, old, &mut counts, learned))
            .collect();
        self.tell_run(id, Some(counts), learned);
        for result in results {
            let untold = result.outcome == CaseOutcome::Failed && result.failure_signature.is_none() && !old;
            if untold && self.signatures.iter().filter(|wanted| wanted.run == id).count() < SIGNATURES_MAX {
                self.signatures.push(result.clone());
            }
            self.tell_result(result, learned);
        }
        Ok(true)
    }

    // ---- the slow re-read -------------------------------------------------------------------------------------------

    /// A run that was read before. If it was started again, or ended otherwise than was known, it is open or due again;
    /// else its results may have changed all the same.
    fn accept_again(&mut self, id: RunId, body: &[u8], learned: &mut Learned) -> Result<(), Rejection> {
        self.accept_details(id, body, learned)?;
        if !self.is_read(id) {
            self.sweep.passed(id, self.now);
            return Ok(());
        }
        self.again = Some(Again {
            id,
            pager: Pager::new(PAGE_MAX),
            counts: no_results(),
            told: BTreeSet::new(),
        });
        Ok(())
    }

    fn accept_again_summary(&mut self, id: RunId, body: &[u8], learned: &mut Learned) -> Result<(), Rejection> {
        let counts = summary(id, body)?;
        self.read_again(id, Some(counts), learned);
        Ok(())
    }

    fn accept_again_results(&mut self, id: RunId, body: &[u8], learned: &mut Learned) -> Result<(), Rejection> {
        let Some(mut again) = self.again.take() else {
            return Ok(());
        };
        let page = page_of::<wire::ResultRow>("the results of a run", body, &mut again.pager);
        let (rows, more) = match page {
            Ok(page) => page,
            Err(rejection) => {
                self.again = Some(again);
                return Err(rejection);
            }
        };
        for row in rows.into_iter().flatten() {
            // There is no order in the server's query: a row may come on two pages.
            if row.regression_test_id.id().is_some_and(|case| !again.told.insert(case)) {
                continue;
            }
            if let Some(result) = self.accept_result(id, &row, false, &mut again.counts, learned) {
                self.tell_result(result, learned);
            }
        }
        if more && again.pager.offset() < PAGES_MAX * PAGE_MAX {
            self.again = Some(again);
        } else {
            self.read_again(id, Some(again.counts), learned);
        }
        Ok(())
    }

    /// A run is read again to its end, or is not to be had.
    fn read_again(&mut self, id: RunId, counts: Option<CaseCounts>, learned: &mut Learned) {
        self.again = None;
        self.sweep.passed(id, self.now);
        let known = self.runs.table.finished(id).map(|known| known.run.counts);
        if counts.is_some() && known.is_some() && counts != known {
            learned.facts.extend(self.runs.settle(id, counts).map(Fact::Run));
        }
    }

    /// One result of a run: counted with the run, and told if its case is tracked.
    fn accept_result(
        &mut self,
        run: RunId,
        row: &wire::ResultRow,
        old: bool,
        counts: &mut CaseCounts,
        learned: &mut Learned,
    ) -> Option<CaseResult> {
        let Some(case) = row.regression_test_id.id().map(|id| Name::from(id.to_string())) else {
            let why = "a result without a usable regression_test_id".into();
            learned.notices.push(Notice::RowSkipped { endpoint: RESULTS, why });
            return None;
        };
        let outcome = case_outcome(row.status.as_deref());
        if outcome == CaseOutcome::Unknown {
            learned.notices.push(Notice::UnknownValue { field: "status" });
        }
        *counts[outcome.index()].get_or_insert(0) += 1;
        let info = CaseInfo {
            case: case.clone(),
            name: row.sample_name.name().unwrap_or_else(|| Name::from("")),
            suite: loose::name(&row.categories.0.join(", ")),
            file: row.command.name().unwrap_or_else(|| Name::from("")),
            tags: None,
        };
        let sample = row.sample_id.id();
        if !self.track(&case, sample, Some(info), old, learned) {
            return None;
        }
        let failure_signature = signature(outcome, row);
        let result = CaseResult {
            run,
            case,
            outcome,
            executed: None,
            duration_seconds: row.runtime_ms.milliseconds(),
            retries: None,
            failure_signature,
        };
        Some(result)
    }

    /// Takes a case into the table if the settings let it in. Says whether it is there.
    fn track(
        &mut self,
        case: &Name,
        sample: Option<u64>,
        info: Option<CaseInfo>,
        old: bool,
        learned: &mut Learned,
    ) -> bool {
        let cases = &self.settings.cases;
        if !self.cases.contains_key(case) {
            let named = sample.is_some_and(|id| cases.ids.iter().any(|wanted| wanted.parse() == Ok(id)));
            if !named && !cases.admits(case, info.as_ref().map_or("", |info| &info.name)) {
                return false;
            }
            if self.cases.len() >= cases.max {
                self.refused += 1;
                return false;
            }
        }
        let new = || Tracked {
            settle: old,
            listed: Some(self.now),
            ..Tracked::default()
        };
        let tracked = self.cases.entry(case.clone()).or_insert_with(new);
        tracked.sample = sample.or(tracked.sample);
        if info.is_some() && tracked.info != info {
            tracked.info = info;
            learned.facts.extend(tracked.info.clone().map(Fact::Case));
        }
        true
    }

    fn tell_result(&mut self, result: CaseResult, learned: &mut Learned) {
        let Some(known) = self.runs.table.finished(result.run) else {
            return;
        };
        if let Some(case) = self.cases.get_mut(&result.case) {
            *case.passed_in.entry(known.run.group.clone()).or_insert(false) |= result.outcome.is_pass();
            case.listed = case.listed.max(known.run.ended);
            if let Some(sample) = case.sample.and_then(|id| self.samples.get_mut(&id)) {
                sample.listed = sample.listed.max(known.run.ended);
            }
        }
        learned.facts.push(Fact::Result(result));
    }

    // ---- samples and their histories --------------------------------------------------------------------------------

    fn accept_samples(&mut self, body: &[u8]) -> Result<bool, Rejection> {
        let (rows, more) = self.page::<wire::SampleRow>("the list of samples", body)?;
        for row in rows.into_iter().flatten() {
            let Some(id) = row.sample_id.id() else { continue };
            let tested = row.regression_test_count.count().is_none_or(|count| count > 0);
            if (tested || self.samples.contains_key(&id)) && self.samples.len() < self.settings.cases.max {
                let sample = self.samples.entry(id).or_default();
                sample.name = row.original_name.name();
                sample.tags = Some(loose::tags(&row.tags));
                sample.listed = Some(self.now);
            } else if tested && !self.samples.contains_key(&id) {
                self.refused += 1;
            }
        }
        if !more {
            self.listed = Some(self.now);
            self.listing_wanted = false;
        }
        Ok(!more)
    }

    /// Says whether the history is read to its end.
    fn accept_history(
        &mut self,
        sample: u64,
        why: &Why,
        body: &[u8],
        learned: &mut Learned,
    ) -> Result<bool, Rejection> {
        let (rows, more) = self.page::<wire::HistoryRow>("the history of a sample", body)?;
        let rows: Vec<wire::HistoryRow> = rows.into_iter().flatten().collect();
        let mut oldest = None;
        for row in &rows {
            let Some(run) = row.run_id.id() else {
                let why = "a history entry without a usable run_id".into();
                learned.notices.push(Notice::RowSkipped { endpoint: HISTORY, why });
                continue;
            };
            oldest = [oldest, Some(run)].into_iter().flatten().min();
            self.accept_entry(sample, run, row, why, learned);
        }
        let enough = match why {
            Why::Results => self.history_reaches(sample, oldest),
            Why::Settle(case) => {
                let settled = self
                    .cases
                    .get(case)
                    .is_none_or(|case| case.passed_in.values().all(|passed| *passed));
                settled || oldest.is_none_or(|run| self.runs.table.get(run).is_none())
            }
            Why::Signature(_) | Why::Again => true,
        };
        let done = enough || !more || self.reading.pages >= HISTORY_PAGES_MAX;
        if done && *why == Why::Results {
            self.history_read(sample, self.reading.pager.skipped() > 0);
        } else if done {
            self.settled(sample, why);
        }
        Ok(done)
    }

    fn accept_entry(&mut self, sample: u64, run: RunId, row: &wire::HistoryRow, why: &Why, learned: &mut Learned) {
        let Some(case) = row.regression_test_id.id().map(|id| Name::from(id.to_string())) else {
            return;
        };
        if let Why::Signature(wanted) = why {
            if wanted.run == run && wanted.case == case && row.failure_signature.0.is_some() {
                let told = CaseResult {
                    failure_signature: row.failure_signature.name(),
                    ..(**wanted).clone()
                };
                self.tell_result(told, learned);
            }
            return;
        }
        // Entries of runs that are not finished come again when they are. What was read from the run itself says more.
        let Some(known) = self.runs.table.finished(run) else {
            return;
        };
        if self.by_runs() && known.standing == Standing::Read {
            return;
        }
        let known = self.samples.get(&sample);
        let tags = known.and_then(|sample| sample.tags.clone());
        let name = known.and_then(|sample| sample.name.clone());
        let info = name.map(|name| CaseInfo {
            case: case.clone(),
            name,
            suite: Name::from(""),
            file: Name::from(""),
            tags,
        });
        if !self.track(&case, Some(sample), info.filter(|_| self.by_history()), false, learned) {
            return;
        }
        let outcome = case_outcome(row.status.as_deref());
        if outcome == CaseOutcome::Unknown {
            learned.notices.push(Notice::UnknownValue { field: "status" });
        }
        let executed = row
            .tested_at
            .time(|| learned.notices.push(Notice::UnknownValue { field: "tested_at" }));
        let failure_signature = row.failure_signature.name();
        let result = CaseResult {
            run,
            case,
            outcome,
            executed,
            duration_seconds: None,
            retries: None,
            failure_signature,
        };
        self.tell_result(result, learned);
    }

    /// Whether everything that has happened since the sample was last read is on the pages read so far.
    fn history_reaches(&self, sample: u64, oldest: Option<RunId>) -> bool {
        let id = sample;
        let (Some(sample), Some(oldest)) = (self.samples.get(&id), oldest) else {
            return true;
        };
        if sample.read_after == 0 {
            let of_sample = self.cases.values().filter(|case| case.sample == Some(id));
            let settled = of_sample.flat_map(|case| case.passed_in.values()).all(|passed| *passed);
            return settled || self.runs.table.get(oldest).is_none();
        }
        let since = self
            .finished
            .iter()
            .filter(|(count, _)| *count > sample.read_after)
            .map(|(_, run)| *run);
        // A sample has several tests, so what is behind the first row of a run may be of the same run.
        since.min().is_none_or(|first| oldest < first)
    }

    fn history_read(&mut self, id: u64, in_part: bool) {
        let (count, now) = (self.finished_count, self.now);
        if let Some(sample) = self.samples.get_mut(&id) {
            if in_part && sample.tries < TRIES_MAX {
                sample.tries += 1;
                sample.not_before = Some(now + HISTORY_PAUSE);
                return;
            }
            sample.tries = 0;
            sample.read_after = count;
            sample.refreshed = Some(now);
        }
        let all_after = self
            .samples
            .values()
            .map(|sample| sample.read_after)
            .min()
            .unwrap_or(count);
        self.finished.retain(|(count, _)| *count > all_after);
    }

    // ---- when there is no answer ------------------------------------------------------------------------------------

    fn forgive(&mut self, rejection: &Rejection) -> bool {
        self.forgiven += 1;
        self.forgiven <= FORGIVEN_MAX && !matches!(rejection, Rejection::Status(400..=499))
    }

    /// Smaller pages around a row that the server cannot serve. Says whether there is something left to try.
    fn shrink(&mut self, endpoint: &'static str, rejection: &Rejection, learned: &mut Learned) -> bool {
        let sick = matches!(rejection, Rejection::Status(500 | 413) | Rejection::TooLarge);
        // Not tried round after round against a server that is down.
        if !sick || self.failures_in_a_row > 1 && !self.failures_in_a_row.is_multiple_of(10) {
            return false;
        }
        let shrunk = self.reading.pager.shrink();
        if shrunk == Some(true) {
            let why = "the server cannot serve one row of a page; it is left out".into();
            learned.notices.push(Notice::RowSkipped { endpoint, why });
        }
        shrunk.is_some()
    }

    /// `Ok(true)`: the question is done with; `Ok(false)`: it is asked again, for less.
    fn route_around(&mut self, ask: &Ask, rejection: Rejection, learned: &mut Learned) -> Result<bool, Rejection> {
        let gone = matches!(rejection, Rejection::Status(404 | 410));
        match ask {
            Ask::List if self.shrink(LIST, &rejection, learned) => Ok(false),
            Ask::Open(_) if matches!(rejection, Rejection::Status(400..=499)) || self.forgive(&rejection) => {
                self.status_lists = OPEN_STATUSES.len();
                Ok(true)
            }
            Ask::Results(_) if self.shrink(RESULTS, &rejection, learned) => Ok(false),
            // A re-read that fails costs one request.
            Ask::History { why, .. } if *why != Why::Again && self.shrink(HISTORY, &rejection, learned) => Ok(false),
            Ask::Samples if self.shrink(SAMPLES, &rejection, learned) => Ok(false),
            Ask::Details(id) | Ask::Summary(id) | Ask::Results(id) if gone => {
                self.runs.table.remove(*id);
                learned.notices.push(Notice::RowSkipped {
                    endpoint: DETAILS,
                    why: format!("run {id} is gone"),
                });
                Ok(true)
            }
            Ask::Details(id) if self.forgive(&rejection) => {
                self.seen.insert(*id);
                let why = format!("run {id} is not to be had; it is asked for again later");
                learned.notices.push(Notice::RowSkipped { endpoint: DETAILS, why });
                Ok(true)
            }
            Ask::Summary(id) | Ask::Results(id) if self.forgive(&rejection) => {
                self.postpone(*id, learned);
                Ok(true)
            }
            Ask::Samples if matches!(rejection, Rejection::Status(400..=499)) || self.forgive(&rejection) => {
                let hint = "the list of samples is refused; the other modes of discovery are runs, static";
                learned.notices.push(Notice::Advice(hint.into()));
                self.listed = Some(self.now);
                Ok(true)
            }
            Ask::Again(id) | Ask::AgainSummary(id) | Ask::AgainResults(id) => {
                self.without_again(*id, gone, &rejection, learned);
                Ok(true)
            }
            Ask::History {
                sample,
                why: Why::Results,
            } if gone => {
                // It has no history, or none any more: the next run that finishes may bring one.
                self.history_read(*sample, false);
                Ok(true)
            }
            Ask::History { sample, why } if gone || *why == Why::Again || self.forgive(&rejection) => {
                self.settled(*sample, why);
                let why = format!("the history of sample {sample} is not to be had; it is asked for again later");
                learned.notices.push(Notice::RowSkipped { endpoint: HISTORY, why });
                if let Some(sample) = self.samples.get_mut(sample) {
                    sample.not_before = Some(self.now + HISTORY_PAUSE);
                }
                Ok(true)
            }
            _ => Err(rejection),
        }
    }

    /// What was read before is not to be had now. It does not end the round, and is not asked for again before the next walk.
    fn without_again(&mut self, id: RunId, gone: bool, rejection: &Rejection, learned: &mut Learned) {
        let sick = matches!(rejection, Rejection::Status(500 | 413) | Rejection::TooLarge);
        if let Some(again) = self.again.as_mut().filter(|_| sick)
            && again.pager.shrink() == Some(false)
        {
            return;
        }
        if gone && !self.seen.contains(&id) {
            // What it has counted stays, and so do the gauges: it did happen.
            self.runs.table.remove(id);
            let why = format!("run {id} is gone");
            learned.notices.push(Notice::RowSkipped { endpoint: DETAILS, why });
        }
        self.read_again(id, None, learned);
    }

    /// The results of a run are asked for again later; after many tries the run is told without them.
    fn postpone(&mut self, id: RunId, learned: &mut Learned) {
        if self.last_try(id) {
            self.tell_run(id, None, learned);
        }
        let why = format!("the results of run {id} are not to be had");
        learned.notices.push(Notice::RowSkipped { endpoint: RESULTS, why });
    }

    /// Puts the results of a run off, unless that was done often enough. What finished before the first meeting is not
    /// worth a second try.
    fn last_try(&mut self, id: RunId) -> bool {
        let old = self
            .runs
            .table
            .get(id)
            .is_some_and(|known| known.standing == Standing::Presumed);
        old || self.runs.table.postpone(id, self.now) >= TRIES_MAX
    }

    /// Forgets cases and samples that no finished run has listed for so long, but for those that the configuration names. One
    /// that comes back is a new one here; the store knows which of its results it has counted.
    fn forget(&mut self) {
        let now = self.now;
        for sample in self.samples.values_mut() {
            sample.first_seen.get_or_insert(now);
        }
        if self
            .forgotten_at
            .is_some_and(|at| now.duration_since(at) < FORGET_PAUSE)
        {
            return;
        }
        self.forgotten_at = Some(now);
        let ttl = SignedDuration::try_from(self.settings.series_ttl).unwrap_or(SignedDuration::MAX);
        let ids = &self.settings.cases.ids;
        let named = |sample: u64| ids.iter().any(|wanted| wanted.parse() == Ok(sample));
        let alive = |since: Option<Timestamp>| since.is_none_or(|since| now.duration_since(since) <= ttl);
        self.samples
            .retain(|id, sample| alive(sample.first_seen.max(sample.listed)) || named(*id));
        self.cases
            .retain(|_, case| alive(case.listed) || case.sample.is_some_and(named));
        let groups = self.runs.table.groups();
        for case in self.cases.values_mut() {
            case.passed_in.retain(|group, _| groups.contains(group));
        }
        self.first_runs.retain(|group, _| groups.contains(group));
    }

    /// After every answer: what it means for the round.
    fn go_on(&mut self, answered: bool, learned: &mut Learned) {
        self.row_skipped |= learned.skips_rows("");
        self.meet(learned);
        let cases = std::mem::take(&mut self.refused);
        if cases > 0 {
            let max = self.settings.cases.max;
            learned.notices.push(Notice::CasesRefused { cases, max });
        }
        if answered {
            self.ask = self.plan();
        } else if !self.walking {
            // The pages of one answer are requests like others.
            self.allowance.requests = self.allowance.requests.saturating_sub(1);
        }
        if self.ask.is_some() {
            return;
        }
        self.failures_in_a_row = 0;
        let none = self.cases.is_empty() && self.samples.is_empty();
        if self.settings.cases.enabled && none {
            let hint = match self.settings.cases.discovery {
                Discovery::Samples => {
                    "discovery: samples has found no sample with tests; the other modes are runs, static"
                }
                Discovery::Static => "discovery: static has no ids; the other modes are runs, samples",
                _ => "discovery: runs has found no result; the other modes are samples, static",
            };
            learned.notices.push(Notice::NoCases { hint: hint.into() });
        }
        self.tell_unread(learned);
    }

    /// Says what has finished and is not read, when the round is over and it has changed.
    fn tell_unread(&mut self, learned: &mut Learned) {
        let table = &self.runs.table;
        self.incomplete.retain(|id| table.get(*id).is_some());
        let is_due = |known: &Known| matches!(known.standing, Standing::Due { .. });
        let runs = table.known.iter();
        let runs = runs.filter(|(id, known)| is_due(known) || self.incomplete.contains(id));
        let tracked = self.cases.len().max(self.samples.len());
        let full = self.settings.cases.enabled && tracked >= self.settings.cases.max;
        let unread = Unread {
            runs: runs.map(|(id, known)| (*id, known.run.group.clone())).collect(),
            elsewhere: self.row_skipped || full || self.samples_due().0 > 0,
        };
        if self.told_unread.as_ref() != Some(&unread) {
            learned.facts.push(Fact::Unread(unread.clone()));
            self.told_unread = Some(unread);
        }
    }
}

fn summary(id: RunId, body: &[u8]) -> Result<CaseCounts, Rejection> {
    let summary: loose::Object<wire::Summary> = read("the summary of a run", body)?;
    let summary = summary.0.filter(|summary| summary.run_id.id() == Some(id));
    let summary =
        summary.ok_or_else(|| Rejection::Unreadable("the summary of a run: the answer is not that run's".into()))?;
    let mut counts = CaseCounts::default();
    counts[CaseOutcome::Passed.index()] = summary.pass_count.count();
    counts[CaseOutcome::Failed.index()] = summary.fail_count.count();
    counts[CaseOutcome::Skipped.index()] = summary.skipped_count.count();
    counts[CaseOutcome::MissingOutput.index()] = summary.missing_output_count.count();
    Ok(counts)
}

/// The counts of a run of which no result has been read yet. Its results do not tell what was skipped.
fn no_results() -> CaseCounts {
    let mut counts = CaseCounts::default();
    for outcome in [CaseOutcome::Passed, CaseOutcome::Failed, CaseOutcome::MissingOutput] {
        counts[outcome.index()] = Some(0);
    }
    counts
}

/// The rows of a page, and whether there is a page behind it.
fn page_of<T: for<'a> Deserialize<'a>>(
    what: &str,
    body: &[u8],
    pager: &mut Pager,
) -> Result<(Vec<Option<T>>, bool), Rejection> {
    let page: wire::Page<T> = read(what, body)?;
    let rows = page.data.0.ok_or_else(|| missing(what, "data"))?;
    let total = page.pagination.0.and_then(|pagination| pagination.total.count());
    let full = rows.len() >= pager.limit();
    pager.advance();
    let more = full && total.is_none_or(|total| (pager.offset() as u64) < total);
    Ok((rows, more))
}

/// The platform's own rule, from a run's result: a missing output, else the first output that differs, else the exit code.
fn signature(outcome: CaseOutcome, row: &wire::ResultRow) -> Option<Name> {
    match outcome {
        CaseOutcome::MissingOutput => Some(Name::from("missing_output")),
        CaseOutcome::Failed => {
            let outputs = row.outputs.0.as_deref().unwrap_or_default();
            let differs = outputs
                .iter()
                .flatten()
                .find(|output| output.status.as_deref() == Some("fail"));
            if let Some(id) = differs.and_then(|output| output.output_id.id()) {
                return Some(Name::from(format!("diff_mismatch:output:{id}")));
            }
            let (code, expected) = (row.exit_code.0?, row.expected_rc.0?);
            (code != expected).then(|| Name::from(format!("exit_code_mismatch:rc:{code:.0}")))
        }
        _ => None,
    }
}

impl Source for SamplePlatform {
    fn begin(&mut self, now: Timestamp, allowance: Allowance) {
        self.now = now;
        self.allowance = allowance;
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        self.runs.prune(now, self.lookback());
        self.finished.retain(|(_, id)| self.runs.table.get(*id).is_some());
        self.forget();
        self.walking = true;
        self.seen.clear();
        self.status_lists = 0;
        self.told_active = None;
        self.row_skipped = false;
        self.forgiven = 0;
        let size = if self.met { PAGE } else { PAGE_MAX };
        self.reading = Reading {
            pager: Pager::cautious(size, self.clean),
            ..Reading::new(size)
        };
        self.ask = self.plan();
    }

    fn next(&mut self) -> Option<Request> {
        self.ask.as_ref().map(|ask| self.request(ask))
    }

    fn accept(&mut self, reply: &Reply) -> Result<Learned, Rejection> {
        let mut learned = Learned::default();
        let body = &reply.body;
        let Some(ask) = self.ask.clone() else {
            return Ok(learned);
        };
        let answered = match &ask {
            Ask::List => self.accept_list(body, &mut learned).map(|()| true),
            Ask::Open(_) => self.accept_open(body, &mut learned),
            Ask::Details(id) => self.accept_details(*id, body, &mut learned).map(|()| true),
            Ask::Summary(id) => self.accept_summary(*id, body, &mut learned).map(|()| true),
            Ask::Results(id) => self.accept_results(*id, body, &mut learned),
            Ask::Samples => self.accept_samples(body),
            Ask::History { sample, why } => self.accept_history(*sample, why, body, &mut learned),
            Ask::Again(id) => self.accept_again(*id, body, &mut learned).map(|()| true),
            Ask::AgainSummary(id) => self.accept_again_summary(*id, body, &mut learned).map(|()| true),
            Ask::AgainResults(id) => self.accept_again_results(*id, body, &mut learned).map(|()| true),
        }?;
        self.go_on(answered, &mut learned);
        Ok(learned)
    }

    fn reject(&mut self, rejection: Rejection) -> Result<Learned, Rejection> {
        let mut learned = Learned::default();
        let Some(ask) = self.ask.clone() else {
            return Err(rejection);
        };
        let answered = self.route_around(&ask, rejection, &mut learned)?;
        self.go_on(answered, &mut learned);
        Ok(learned)
    }

    fn progress(&self) -> Progress {
        let due = self.samples_due().1.and_then(|id| self.samples.get(&id));
        let of_samples = due.and_then(|sample| sample.refreshed.or(sample.first_seen));
        let oldest = [of_samples, self.runs.table.waiting_since()]
            .into_iter()
            .flatten()
            .min();
        Progress {
            cases_tracked: self.cases.len(),
            oldest_refresh: (!self.cases.is_empty()).then(|| oldest.unwrap_or(self.now).min(self.now)),
            backlog: if self.ask.is_none() { self.backlog } else { 0 },
        }
    }

    fn memory(&self) -> Result<Vec<u8>, MemoryError> {
        let memory = Memory {
            runs: Cow::Borrowed(&self.runs),
            cases: Cow::Borrowed(&self.cases),
            samples: Cow::Borrowed(&self.samples),
            met: self.met,
            finished: Cow::Borrowed(&self.finished),
            finished_count: self.finished_count,
            first_runs: Cow::Borrowed(&self.first_runs),
            signatures: Cow::Borrowed(&self.signatures),
            listed: self.listed,
            listing_wanted: self.listing_wanted,
            sweep: Cow::Borrowed(&self.sweep),
            sample_sweep: Cow::Borrowed(&self.sample_sweep),
        };
        Ok(postcard::to_stdvec(&memory)?)
    }

    fn restore(&mut self, memory: &[u8]) -> Result<(), MemoryError> {
        let memory: Memory<'_> = postcard::from_bytes(memory)?;
        let settings = &self.settings.cases;
        let named = |sample: u64| settings.ids.iter().any(|wanted| wanted.parse() == Ok(sample));
        self.cases = memory.cases.into_owned();
        // What the settings of now do not let in is let go.
        let admits = |id: &Name, case: &Tracked| {
            case.sample.is_some_and(named) || settings.admits(id, case.info.as_ref().map_or("", |info| &info.name))
        };
        self.cases.retain(|id, case| settings.enabled && admits(id, case));
        let mut samples = memory.samples.into_owned();
        let wanted = |id: &u64| settings.discovery == Discovery::Samples || self.samples.contains_key(id);
        samples.retain(|id, _| settings.enabled && wanted(id));
        self.samples.extend(samples);
        self.runs = memory.runs.into_owned();
        self.met = memory.met;
        self.finished = memory.finished.into_owned();
        self.finished_count = memory.finished_count;
        self.first_runs = memory.first_runs.into_owned();
        self.signatures = memory.signatures.into_owned();
        self.signatures.retain(|result| self.cases.contains_key(&result.case));
        self.listed = memory.listed;
        self.listing_wanted = memory.listing_wanted;
        self.sweep = memory.sweep.into_owned();
        self.sample_sweep = memory.sample_sweep.into_owned();
        Ok(())
    }
}
