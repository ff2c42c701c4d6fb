//! Empirical as a state machine: what is worth a request in a round, in which order, and what an answer means.
//! Never reads JSON by hand (`wire`), never decides what counts (`store`).
//!
//! A round: the list of runs, newest first, down to what is known; the state of the runs that are not finished (the list
//! does not tell it); the details of those that have finished; the history of the cases that those ran; and, while the
//! round's allowance lasts, the last pass of cases without one. When nothing of that is left, what is known of recent runs
//! is read again, slowly. At the first meeting the finished runs are only
//! presumed so by elimination: a few requests for the active ones instead of one for each of a month's runs.

mod batch_size;
mod cases;
mod runs;
mod snoozes;
mod wire;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use self::batch_size::BatchSize;
use self::cases::{Batch, Cases};
use self::runs::{LIFECYCLE, Runs, Told, case_outcome, told};
use self::snoozes::{Snoozes, name_of};
use super::loose::{self, missing, read};
use super::pager::{Pager, known_from_here};
use super::sweep::{self, Sweep};
use super::{Allowance, Discovery, Learned, MemoryError, Progress, Rejection, Settings, Source};
use crate::model::{ActiveRun, CaseInfo, CaseOutcome, CaseResult, Fact, Group, Name, Notice, RunId, Unread};
use crate::sources::table::Standing;
use crate::transport::{Analytics, Reply, Request};

const LIST: &str = "/api/test-runs";
const DETAILS: &str = "/api/test-runs/{id}";
const ANALYTICS_CASES: &str = "/api/v2/analytics/test-cases";
const REGISTRY: &str = "/api/v2/test-cases";
const SNOOZES: &str = "/api/snoozes";

/// The platform's largest page of runs; one such page is what an idle round costs.
const PAGE: usize = 100;
/// A walk ends here at the latest: 20,000 runs.
const PAGES_MAX: usize = 200;
/// Up to so many runs are asked about one by one; above, four filtered lists tell all of them.
const ONE_BY_ONE_MAX: usize = LIFECYCLE.len();
/// Newest finished runs of a group whose details are read at the first meeting: one of them ended last, and together they
/// list the cases that run nowadays.
const FIRST_DETAILS: usize = 3;
/// Single answers that may be missing without the round failing: one sick row must not blind the source.
const FORGIVEN_MAX: u32 = 3;
/// Last passes asked for in one round: a slow cadence, there is one request for each case.
const LAST_PASSES_PER_ROUND: u32 = 3;
/// Details that were asked for so often in vain are given up.
const DETAILS_TRIES_MAX: u32 = 8;
/// How far back a last pass is looked for. The platform names no maximum.
const LAST_PASS_DAYS: u64 = 365;
/// The listings of cases are read anew at most so often, and only after a run has finished.
const DISCOVERY_PAUSE: SignedDuration = SignedDuration::from_hours(1);
/// Runs that ended so recently at the first meeting may not be in the analytics yet.
const RECENT: SignedDuration = SignedDuration::from_mins(15);

/// The question that is out.
#[derive(Debug, Clone, PartialEq)]
enum Ask {
    List,
    State(usize),
    Details(RunId),
    Discover,
    History(Batch),
    LastPass(Name),
    Foreign(RunId),
    Snoozes,
    /// The details of a run that was read long ago.
    Again(RunId),
}

/// How far the round has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    List,
    States(usize),
    Rest,
}

/// A last pass in a run that is not in the table: its group must be learned from its details.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct ForeignPass {
    run: RunId,
    case: Name,
    #[serde(with = "crate::packed")]
    at: Timestamp,
}

/// What outlives the process: everything but the round at hand and what the configuration tells. What was learned about the
/// server's limits (the size of a batch, the list's filter) is learned anew: the server may have changed.
#[derive(Serialize, Deserialize)]
struct Memory<'a> {
    runs: Cow<'a, Runs>,
    #[serde(borrow)]
    cases: cases::Memory<'a>,
    project: Option<Name>,
    met: bool,
    candidates: Cow<'a, BTreeSet<RunId>>,
    unnamed: Cow<'a, BTreeSet<RunId>>,
    #[serde(with = "crate::packed")]
    discovered: Option<Timestamp>,
    discovery_wanted: bool,
    foreign: Cow<'a, [ForeignPass]>,
    sweep: Cow<'a, Sweep<RunId>>,
}

/// What stands behind [`Memory`], in memories that know of it: those of before end there.
#[derive(Default, Serialize, Deserialize)]
struct Appendix<'a> {
    snoozes: Cow<'a, snoozes::Memory>,
}

/// Empirical, as one source sees it.
pub struct Empirical {
    settings: Settings,
    runs: Runs,
    cases: Cases,
    project: Option<Name>,
    /// Whether a first round has classified everything: what was finished before is the baseline.
    met: bool,
    /// Whether the list's `state` filter is believed.
    state_filter: bool,
    /// Runs finished before the first meeting whose details are read all the same.
    candidates: BTreeSet<RunId>,
    /// Finished runs whose environment nobody has named yet: they are told when the analytics' id for it is understood.
    unnamed: BTreeSet<RunId>,
    /// Open runs whose details the server could not serve.
    detail_less: BTreeSet<RunId>,
    batch_size: BatchSize,
    /// Of the re-reads, which are other questions: what is refused there says nothing about what is new.
    again_size: BatchSize,
    discovered: Option<Timestamp>,
    discovery_wanted: bool,
    foreign: Vec<ForeignPass>,
    /// Where the slow re-read of runs is, and the runs that go before it because their rows in the list have changed.
    sweep: Sweep<RunId>,
    suspects: BTreeSet<RunId>,
    /// When a changed row has last made a suspect of a run: a list and details that contradict each other shall not cost a
    /// request a round.
    suspected: BTreeMap<RunId, Timestamp>,
    snoozes: Snoozes,
    /// How many failures of runs are left after snoozes, as far as the store has heard of it, and what it has not heard yet.
    after_snooze: BTreeMap<RunId, u64>,
    after_snooze_news: BTreeMap<RunId, u64>,
    told_unread: Option<Unread>,
    failures_in_a_row: u32,
    // One round:
    /// Whether a row was passed over.
    row_skipped: bool,
    now: Timestamp,
    allowance: Allowance,
    stage: Stage,
    pager: Pager,
    pages: usize,
    classified: BTreeSet<RunId>,
    listed: BTreeSet<RunId>,
    highest: Option<RunId>,
    last_state_list: BTreeSet<RunId>,
    first_state_list: BTreeSet<RunId>,
    told_active: Option<Vec<ActiveRun>>,
    forgiven: u32,
    last_passes: u32,
    /// Whether the last re-read was one of a run: runs and histories take turns.
    run_again: bool,
    discovery_page: usize,
    backlog: usize,
    ask: Option<Ask>,
}

impl Empirical {
    /// A source that has not met its platform yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let cases = Cases::new(&settings.cases, settings.lookback);
        let batch = settings.cases.batch_size;
        Self {
            runs: Runs::default(),
            cases,
            project: None,
            met: false,
            state_filter: true,
            candidates: BTreeSet::new(),
            unnamed: BTreeSet::new(),
            detail_less: BTreeSet::new(),
            batch_size: BatchSize::new(batch),
            again_size: BatchSize::new(batch),
            discovered: None,
            discovery_wanted: true,
            foreign: Vec::new(),
            sweep: Sweep::default(),
            suspects: BTreeSet::new(),
            suspected: BTreeMap::new(),
            snoozes: Snoozes::new(settings.snoozes),
            after_snooze: BTreeMap::new(),
            after_snooze_news: BTreeMap::new(),
            told_unread: None,
            row_skipped: false,
            failures_in_a_row: 0,
            now: Timestamp::UNIX_EPOCH,
            allowance: Allowance::default(),
            stage: Stage::List,
            pager: Pager::new(PAGE),
            pages: 0,
            classified: BTreeSet::new(),
            listed: BTreeSet::new(),
            highest: None,
            last_state_list: BTreeSet::new(),
            first_state_list: BTreeSet::new(),
            told_active: None,
            forgiven: 0,
            last_passes: 0,
            run_again: false,
            discovery_page: 1,
            backlog: 0,
            ask: None,
            settings,
        }
    }

    /// How often all cases were looked at.
    #[cfg(test)]
    pub(super) fn looks(&self) -> u64 {
        self.cases.looks()
    }

    fn lookback(&self) -> SignedDuration {
        SignedDuration::try_from(self.settings.lookback).unwrap_or(SignedDuration::from_hours(30 * 24))
    }

    /// The next question. Everything that is worth one is looked at in order of worth.
    fn plan(&mut self) -> Option<Ask> {
        match self.stage {
            Stage::List => return Some(Ask::List),
            Stage::States(index) => return Some(Ask::State(index)),
            Stage::Rest => {}
        }
        // What is not classified is new or running: the store must know which, whatever the allowance.
        if let Some(id) = self.runs.unclassified(&self.classified).first() {
            return Some(Ask::Details(*id));
        }
        let due = self.runs.table.due(self.now);
        if let Some(id) = due.first().filter(|_| self.allowance.requests > 0) {
            self.allowance.requests -= 1;
            return Some(Ask::Details(*id));
        }
        self.cases.prepare(self.now);
        let batch = self.cases.batch(self.batch_size.get(), self.now);
        self.backlog = due.len() + batch.as_ref().map_or(0, |(_, rest)| rest + 1);
        if self.allowance.requests == 0 {
            return None;
        }
        // Before the histories, whose backlog may never end; but not twice in a row.
        let ask = if self.snoozes.are_due(self.now) && !self.snoozes.had_a_turn() {
            Some(Ask::Snoozes)
        } else {
            let batch = batch.map(|(batch, _)| batch);
            let cases = self.settings.cases.enabled.then(|| self.plan_cases(batch)).flatten();
            cases.or_else(|| self.snoozes.are_due(self.now).then_some(Ask::Snoozes))
        };
        let ask = ask.or_else(|| self.plan_again())?;
        self.allowance.requests -= 1;
        if matches!(ask, Ask::Snoozes) {
            self.snoozes.take_a_turn();
        }
        Some(ask)
    }

    /// What is known already, when there is nothing else to do: upstream may have changed its mind.
    fn plan_again(&mut self) -> Option<Ask> {
        if self.allowance.rereads == 0 || !self.met {
            return None;
        }
        let run = |this: &mut Self| {
            let from = this.now - sweep::WINDOW;
            let runs = &this.runs;
            let next = this.sweep.next(this.now, sweep::RUNS_PAUSE, |last| {
                runs.table.read_before(last.copied(), from)
            });
            next.map(Ask::Again)
        };
        let history = |this: &mut Self| {
            let enabled = this.settings.cases.enabled;
            let size = this.batch_size.get().min(this.again_size.get());
            let batch = enabled.then(|| this.cases.batch_again(size, this.now)).flatten();
            batch.map(Ask::History)
        };
        let ask = match self.suspects.first() {
            Some(id) => Some(Ask::Again(*id)),
            None if self.run_again => history(self).or_else(|| run(self)),
            None => run(self).or_else(|| history(self)),
        }?;
        self.run_again = matches!(ask, Ask::Again(_));
        self.allowance.rereads -= 1;
        Some(ask)
    }

    /// `batch`: the next histories.
    fn plan_cases(&self, batch: Option<Batch>) -> Option<Ask> {
        let listed = matches!(
            self.settings.cases.discovery,
            Discovery::Analytics | Discovery::Registry
        );
        let pause_over = self
            .discovered
            .is_none_or(|at| self.now.duration_since(at) >= DISCOVERY_PAUSE);
        if listed && self.discovery_wanted && pause_over {
            return Some(Ask::Discover);
        }
        if let Some(batch) = batch {
            return Some(Ask::History(batch));
        }
        if let Some(pass) = self.foreign.first() {
            return Some(Ask::Foreign(pass.run));
        }
        if self.last_passes < LAST_PASSES_PER_ROUND
            && let Some(case) = self.cases.without_pass()
        {
            return Some(Ask::LastPass(case.clone()));
        }
        None
    }

    fn request(&self, ask: &Ask) -> Request {
        let text = |n: usize| n.to_string();
        match ask {
            Ask::List => {
                let days = self.settings.lookback.as_secs().div_ceil(86_400).to_string();
                let (limit, page) = (self.pager.limit(), self.pager.page());
                let query = vec![
                    ("per_page", text(limit)),
                    ("page", text(page)),
                    ("interval_in_days", days),
                ];
                Request::get(LIST, LIST.into(), query)
            }
            Ask::State(index) => {
                let state = LIFECYCLE[*index].label().to_owned();
                let (limit, page) = (self.pager.limit(), self.pager.page());
                let query = vec![("state", state), ("per_page", text(limit)), ("page", text(page))];
                Request::get(LIST, LIST.into(), query)
            }
            Ask::Details(id) | Ask::Foreign(id) | Ask::Again(id) => {
                Request::get(DETAILS, format!("{LIST}/{id}"), Vec::new())
            }
            Ask::Discover => self.discovery_request(),
            Ask::Snoozes => {
                let query = vec![
                    ("status", "active".into()),
                    ("per_page", text(snoozes::PAGE)),
                    ("page", text(self.snoozes.page())),
                ];
                Request::get(SNOOZES, SNOOZES.into(), query).that_may_be_forbidden()
            }
            Ask::History(batch) => {
                let query = wire::HistoryQuery {
                    test_case_ids: &batch.ids,
                    days: batch.days,
                    limit_per_test_case: batch.limit,
                };
                Request::analytics(
                    Analytics::HistoryBatch,
                    serde_json::to_string(&query).unwrap_or_default(),
                )
            }
            Ask::LastPass(case) => {
                let query = wire::LastPassQuery {
                    test_case_id: case,
                    days: LAST_PASS_DAYS,
                };
                Request::analytics(
                    Analytics::LastPassPerEnv,
                    serde_json::to_string(&query).unwrap_or_default(),
                )
            }
        }
    }

    fn discovery_request(&self) -> Request {
        if self.settings.cases.discovery == Discovery::Analytics {
            let days = self
                .settings
                .lookback
                .min(self.settings.series_ttl)
                .as_secs()
                .div_ceil(86_400)
                .clamp(1, 90)
                .to_string();
            let query = vec![("days", days), ("limit", "500".into()), ("order_by", "last_run".into())];
            Request::get(ANALYTICS_CASES, ANALYTICS_CASES.into(), query)
        } else {
            let page = self.discovery_page.to_string();
            let query = vec![("is_active", "true".into()), ("per_page", "100".into()), ("page", page)];
            Request::get(REGISTRY, REGISTRY.into(), query)
        }
    }

    // ---- the list of runs -------------------------------------------------------------------------------------------

    fn accept_list(&mut self, body: &[u8], learned: &mut Learned) -> Result<(), Rejection> {
        let list: wire::RunList = read("the list of runs", body)?;
        let total = list.pagination.0.and_then(|pagination| pagination.total.count());
        let data = list.data.0.unwrap_or_default();
        let project = data.project.0.unwrap_or_default();
        if let Some(name) = project.slug.name().or_else(|| project.name.name())
            && self.project.as_ref() != Some(&name)
        {
            self.project = Some(name.clone());
            learned.facts.push(Fact::Project(name));
        }
        let rows = data.test_runs.0.and_then(|runs| runs.items.0);
        let rows = rows.ok_or_else(|| missing("the list of runs", "data.test_runs.items"))?;
        let full = rows.len() >= self.pager.limit();
        let mut ids = Vec::with_capacity(rows.len());
        for row in rows {
            ids.extend(self.accept_row(row, learned));
        }
        self.pager.advance();
        self.pages += 1;
        let more = full && total.is_none_or(|total| (self.pager.offset() as u64) < total);
        if !more || known_from_here(&ids, self.runs.walked_to) || self.pages >= PAGES_MAX {
            self.walked();
        }
        Ok(())
    }

    /// One row: its id if it can be read.
    fn accept_row(&mut self, row: Option<wire::RunRow>, learned: &mut Learned) -> Option<RunId> {
        let row = row.unwrap_or_default();
        let Some(id) = row.id.id() else {
            learned.notices.push(Notice::RowSkipped {
                endpoint: LIST,
                why: "a run without a usable id".into(),
            });
            return None;
        };
        let created = row.created_at.time(|| ());
        if self.runs.table.get(id).is_none() && created.is_some_and(|created| created < self.now - self.lookback()) {
            // Older than is asked for: it is known and forgotten, or none of our business.
            return Some(id);
        }
        self.highest = self.highest.max(Some(id));
        self.listed.insert(id);
        if self.runs.looks_emptied(id, &row) {
            // Its details say whether it was started again; until then its counts are what they were.
            self.suspect(id);
            return Some(id);
        }
        self.learn_after_snooze(id, &row);
        let before = self.runs.table.get(id).map(|known| known.run.clone());
        let known = self.runs.learn(id, &row, &self.settings, &mut learned.notices);
        let told = row.state.as_deref().map(told);
        match (&known.standing, told) {
            (_, Some(Told::Active(state))) => {
                known.standing = Standing::Open(Some(state));
                self.classified.insert(id);
            }
            (Standing::Open(_), Some(Told::Finished(_))) => {
                let due = Standing::Due {
                    tries: 0,
                    not_before: self.now,
                };
                known.standing = if self.met { due } else { Standing::Presumed };
                self.classified.insert(id);
            }
            // Its counts have been edited: the gauges follow.
            (Standing::Read, _) if before.as_ref() != Some(&known.run) && !self.unnamed.contains(&id) => {
                learned.facts.push(Fact::Run(known.run.clone()));
                self.suspect(id);
            }
            _ => {}
        }
        Some(id)
    }

    /// The list tells something else about a run that was read: its details and results are read again soon.
    fn suspect(&mut self, id: RunId) {
        if !self.suspected.contains_key(&id) {
            self.suspected.insert(id, self.now);
            self.suspects.insert(id);
        }
    }

    /// The list is read down to what is known.
    fn walked(&mut self) {
        let open = self.runs.unclassified(&self.classified);
        let blind = open.iter().any(|id| self.detail_less.contains(id));
        let open = open.len();
        let by_list = self.state_filter && (open > ONE_BY_ONE_MAX || open > 0 && (!self.met || blind));
        self.stage = if by_list { Stage::States(0) } else { Stage::Rest };
        self.pager = Pager::new(PAGE);
        self.last_state_list.clear();
        self.first_state_list.clear();
    }

    // ---- the states of runs that are not finished -------------------------------------------------------------------

    fn accept_states(&mut self, index: usize, body: &[u8], learned: &mut Learned) -> Result<(), Rejection> {
        let list: wire::RunList = read("the list of runs by state", body)?;
        let rows = list
            .data
            .0
            .and_then(|data| data.test_runs.0)
            .and_then(|runs| runs.items.0);
        let rows = rows.ok_or_else(|| missing("the list of runs by state", "data.test_runs.items"))?;
        let full = rows.len() >= self.pager.limit();
        let state = LIFECYCLE[index];
        let honest = |row: &wire::RunRow| {
            row.state
                .as_deref()
                .is_none_or(|text| told(text) == Told::Active(state))
        };
        let ids: BTreeSet<RunId> = rows.iter().flatten().filter_map(|row| row.id.id()).collect();
        // A server that ignores the filter answers every question alike. A few runs may really have moved on in between.
        let alike = ids.intersection(&self.last_state_list).count();
        let alike = alike > 1 && alike > ids.len() / 2 || alike > 0 && index > 1 && self.in_every_list(&ids);
        if !rows.iter().flatten().all(honest) || alike {
            self.state_filter = false;
            self.classified.clear();
            self.stage = Stage::Rest;
            learned.notices.push(Notice::Advice(
                "the list's `state` filter is not honoured: runs are asked about one by one".into(),
            ));
            return Ok(());
        }
        for row in rows.into_iter().flatten() {
            let Some(id) = row.id.id() else { continue };
            self.highest = self.highest.max(Some(id));
            let known = self.runs.learn(id, &row, &self.settings, &mut learned.notices);
            known.standing = Standing::Open(Some(state));
            self.classified.insert(id);
        }
        if index == 0 {
            self.first_state_list.extend(ids.iter().copied());
        }
        self.last_state_list.extend(ids);
        self.pager.advance();
        if !full || self.pager.page() > PAGES_MAX {
            self.pager = Pager::new(PAGE);
            self.stage = Stage::States(index + 1);
        }
        if self.stage == Stage::States(LIFECYCLE.len()) {
            self.eliminate();
        }
        Ok(())
    }

    /// Whether some run is in all of the lists so far: nothing moves that fast.
    fn in_every_list(&self, ids: &BTreeSet<RunId>) -> bool {
        let pending_before = |id: &RunId| self.first_state_list.contains(id);
        ids.iter().any(pending_before)
    }

    /// In none of the lists of active runs: finished.
    fn eliminate(&mut self) {
        self.stage = Stage::Rest;
        for id in self.runs.unclassified(&self.classified) {
            let due = Standing::Due {
                tries: 0,
                not_before: self.now,
            };
            self.runs.table.set(id, if self.met { due } else { Standing::Presumed });
            self.classified.insert(id);
        }
    }

    /// Every run is classified: what was finished before this moment is the baseline.
    fn meet(&mut self, learned: &mut Learned) {
        if self.met || self.stage != Stage::Rest || !self.runs.unclassified(&self.classified).is_empty() {
            return;
        }
        self.met = true;
        self.sweep.rest(self.now);
        for id in self.runs.newest_presumed(usize::MAX) {
            self.tell_run(id, learned);
        }
        for id in self.runs.newest_presumed(FIRST_DETAILS) {
            self.runs.table.set(
                id,
                Standing::Due {
                    tries: 0,
                    not_before: self.now,
                },
            );
            self.candidates.insert(id);
        }
    }

    /// Says which runs are active, once that is known and whenever it changes.
    fn tell_active(&mut self, learned: &mut Learned) {
        if self.stage != Stage::Rest || !self.runs.unclassified(&self.classified).is_empty() {
            return;
        }
        self.runs.walked_to = self.highest.max(self.runs.walked_to);
        let active = self.runs.active();
        if self.told_active.as_ref() != Some(&active) {
            learned.facts.push(Fact::Active(active.clone()));
            self.told_active = Some(active);
        }
    }

    // ---- details ----------------------------------------------------------------------------------------------------

    fn accept_details(&mut self, id: RunId, body: &[u8], learned: &mut Learned) -> Result<(), Rejection> {
        let details: wire::RunDetails = read("the details of a run", body)?;
        let body = details.data.0.and_then(|data| data.test_run.0).unwrap_or_default();
        let row = body.test_run.0.filter(|row| row.id.id() == Some(id));
        let row = row.ok_or_else(|| {
            Rejection::Unreadable("the details of a run: `data.test_run.testRun` is not that run".into())
        })?;
        self.classified.insert(id);
        self.learn_after_snooze(id, &row);
        let known = self.runs.learn(id, &row, &self.settings, &mut learned.notices);
        let told = row.state.as_deref().map_or(Told::Unknown, told);
        if told == Told::Unknown {
            learned.notices.push(Notice::UnknownValue { field: "state" });
        }
        let unfinished = match told {
            Told::Active(state) => Some(state),
            Told::Unknown if !Runs::finished_by_age(&known.run, self.now) => Some(crate::model::ActiveState::Started),
            _ => None,
        };
        if let Some(state) = unfinished {
            known.standing = Standing::Open(Some(state));
            return Ok(());
        }
        if known.run.error_code == Some(crate::model::ErrorCode::Unknown) && row.error_code.0.is_some() {
            learned.notices.push(Notice::UnknownValue { field: "error_code" });
        }
        known.standing = Standing::Read;
        let run = known.run.clone();
        self.discovery_wanted = true;
        self.tell_run(id, learned);
        if self.settings.cases.enabled {
            self.accept_cases(&run, body.flattened_summary_details.0.unwrap_or_default(), learned);
        }
        Ok(())
    }

    /// The details of a run that was read before. If it was started again it is open again; if it was edited its results
    /// are read again too.
    fn accept_again(&mut self, id: RunId, body: &[u8], learned: &mut Learned) -> Result<(), Rejection> {
        // Its cases are many, and nearly always what they were.
        let details: wire::RunDetailsOnly = read("the details of a run", body)?;
        let row = details.data.0.and_then(|data| data.test_run.0);
        let row = row
            .and_then(|details| details.test_run.0)
            .filter(|row| row.id.id() == Some(id));
        let row = row.ok_or_else(|| {
            Rejection::Unreadable("the details of a run: `data.test_run.testRun` is not that run".into())
        })?;
        let doubted = self.suspects.contains(&id);
        self.passed_again(id);
        self.learn_after_snooze(id, &row);
        let before = self.runs.table.get(id).map(|known| known.run.clone());
        let known = self.runs.learn(id, &row, &self.settings, &mut learned.notices);
        if let Some(Told::Active(state)) = row.state.as_deref().map(told) {
            known.standing = Standing::Open(Some(state));
            self.classified.insert(id);
            self.cases.forget_run(id);
            return Ok(());
        }
        let run = known.run.clone();
        let edited = before.as_ref() != Some(&run);
        if edited && !self.unnamed.contains(&id) {
            self.tell_run(id, learned);
        }
        if (edited || doubted) && self.settings.cases.enabled {
            let details: wire::RunDetails = read("the details of a run", body)?;
            let details = details.data.0.and_then(|data| data.test_run.0).unwrap_or_default();
            let rows = details.flattened_summary_details.0.unwrap_or_default();
            let (listed, whole) = self.read_cases(&run, rows, learned);
            self.cases.suspect(listed.into_keys(), self.now);
            if !whole {
                self.cases.suspect_all(self.now);
            }
        }
        Ok(())
    }

    /// The run was read again, or is not to be had.
    fn passed_again(&mut self, id: RunId) {
        if !self.suspects.remove(&id) {
            self.sweep.passed(id, self.now);
        }
    }

    /// Tells a finished run, unless its environment has no name yet: a run is counted where it belongs, or later.
    fn tell_run(&mut self, id: RunId, learned: &mut Learned) {
        let Some(run) = self.runs.finished(id) else { return };
        if run.group.environment.is_empty() && self.settings.cases.enabled {
            self.unnamed.insert(id);
        } else {
            self.unnamed.remove(&id);
            learned.facts.push(Fact::Run(run.clone()));
        }
    }

    /// History entries carry environment ids: those of named runs teach what an id stands for, and that names the others.
    fn learn_environments(&mut self, row: &wire::HistoryRow, learned: &mut Learned) {
        let (Some(run), Some(environment)) = (row.test_run_id.id(), row.environment_id.as_deref()) else {
            return;
        };
        if let Some(slug) = self.runs.finished(run).map(|run| run.group.environment.clone()) {
            self.runs.learn_environment(environment, &slug);
        }
        if self.unnamed.contains(&run)
            && let Some(slug) = self.runs.environment_of(environment, &self.settings)
        {
            self.runs.name_environment(run, slug);
            self.tell_run(run, learned);
        }
    }

    /// Runs that nothing will name any more are told without an environment: they happened.
    fn tell_nameless(&mut self, learned: &mut Learned) {
        let read = |id: &RunId| {
            self.runs
                .table
                .get(*id)
                .is_none_or(|known| known.standing == Standing::Read)
        };
        let hopeless: Vec<RunId> = self
            .unnamed
            .iter()
            .copied()
            .filter(|id| read(id) && !self.cases.awaits(*id))
            .collect();
        for id in hopeless {
            self.unnamed.remove(&id);
            learned.facts.extend(self.runs.finished(id).cloned().map(Fact::Run));
        }
    }

    /// The cases that a finished run lists: they are discovered, and their results awaited.
    fn accept_cases(&mut self, run: &crate::model::Run, rows: Vec<Option<wire::CaseRow>>, learned: &mut Learned) {
        let (listed, whole) = self.read_cases(run, rows, learned);
        let recent = run.ended.is_none_or(|ended| self.now.duration_since(ended) < RECENT);
        if self.candidates.remove(&run.id) && !recent {
            // It finished before the platform was met, long enough for the analytics to have it.
            return;
        }
        self.cases.await_run(run, listed, whole, self.now);
    }

    /// The tracked ones among the cases that a finished run lists, and whether it lists all that it had.
    fn read_cases(
        &mut self,
        run: &crate::model::Run,
        rows: Vec<Option<wire::CaseRow>>,
        learned: &mut Learned,
    ) -> (BTreeMap<Name, CaseOutcome>, bool) {
        let ended = run.ended.unwrap_or(self.now).min(self.now);
        let mut listed = BTreeMap::new();
        let mut seen: u64 = 0;
        for row in rows.into_iter().flatten() {
            let Some(id) = row.pw_test_id.name() else { continue };
            seen += 1;
            let info = info_of(&id, &row.nesting.0);
            if self.is_wanted(&id)
                || self.settings.cases.discovery == Discovery::RunDetails && self.settings.cases.admits(&id, &info.name)
            {
                self.track(&id, Some(info), learned);
            }
            if self.cases.is_tracked(&id) {
                self.cases.listed(&id, ended);
                listed.insert(id, case_outcome(row.status.as_deref()));
            }
        }
        // Whether the details list every case or only those that did not pass is not documented: the counts tell. A run
        // that says that nothing ran, as one that was cancelled while it waited, has no results to wait for.
        let count = |outcome: CaseOutcome| run.counts[outcome.index()];
        let ran = count(CaseOutcome::Passed)
            .zip(count(CaseOutcome::Failed))
            .map(|(passed, failed)| passed + failed);
        let whole = match ran {
            Some(0) => seen > 0 || count(CaseOutcome::Flaky).unwrap_or(0) == 0,
            Some(ran) => seen >= ran,
            None => seen > 0,
        };
        (listed, whole)
    }

    /// Whether the configuration names the case.
    fn is_wanted(&self, id: &str) -> bool {
        self.settings.cases.ids.iter().any(|wanted| wanted == id)
    }

    fn track(&mut self, id: &Name, info: Option<CaseInfo>, learned: &mut Learned) {
        let news = self.cases.track(id, info, self.now);
        learned.facts.extend(news.map(Fact::Case));
    }

    // ---- history ----------------------------------------------------------------------------------------------------

    fn accept_history(&mut self, batch: &Batch, body: &[u8], learned: &mut Learned) -> Result<(), Rejection> {
        let history: wire::History = read("the history of cases", body)?;
        let by_case = history.data.0.and_then(|data| data.history_by_test_case_id.0);
        let by_case = by_case.ok_or_else(|| missing("the history of cases", "data.history_by_test_case_id"))?;
        let truncated = history.meta.0.unwrap_or_default().truncated_test_case_ids.0;
        let mut cut: BTreeMap<&str, Option<Timestamp>> = truncated.iter().map(|id| (id.as_str(), None)).collect();
        // Twice: an id may be understood at one case's newest entry only and be needed at another's oldest.
        for _ in 0..2 {
            for row in by_case.values().filter_map(|rows| rows.0.as_ref()).flatten().flatten() {
                self.learn_environments(row, learned);
            }
        }
        for id in &batch.ids {
            let rows = by_case.get(id).and_then(|rows| rows.0.as_deref()).unwrap_or_default();
            let mut oldest = None;
            for row in rows.iter().flatten() {
                let at = self.accept_entry(id, row, learned);
                oldest = [oldest, at].into_iter().flatten().min();
            }
            if let Some(cut) = cut.get_mut(id.as_str()) {
                *cut = oldest;
            }
        }
        if batch.again {
            self.again_size.served(batch.ids.len());
            self.cases.passed_again(batch, self.now);
            self.cases.requeue_all(&batch.ids, self.now);
            return Ok(());
        }
        self.batch_size.served(batch.ids.len());
        let (still_cut, own_word) = self.cases.answered(batch, &cut, self.now);
        if still_cut > 0 {
            learned.notices.push(Notice::HistoryTruncated { cases: still_cut });
        }
        for result in own_word {
            self.tell_result(result, learned);
        }
        self.cases.requeue_all(&batch.ids, self.now);
        Ok(())
    }

    /// One entry of a case's history: a result, if its run is finished and known. Gives when it was executed.
    fn accept_entry(&mut self, case: &str, row: &wire::HistoryRow, learned: &mut Learned) -> Option<Timestamp> {
        let mut odd = |field| learned.notices.push(Notice::UnknownValue { field });
        let executed = row
            .executed_at
            .time(|| odd("executed_at"))
            .or_else(|| row.timestamp.time(|| odd("timestamp")));
        let Some(run) = row.test_run_id.id() else {
            let why = "a history entry without a usable test_run_id".into();
            learned.notices.push(Notice::RowSkipped {
                endpoint: Analytics::HistoryBatch.path(),
                why,
            });
            return executed;
        };
        // An entry of a run that is not finished, or not listed yet, comes again when it is.
        if self.runs.finished(run).is_none() || self.unnamed.contains(&run) {
            return executed;
        }
        let outcome = case_outcome(row.status.as_deref());
        if outcome == CaseOutcome::Unknown {
            learned.notices.push(Notice::UnknownValue { field: "status" });
        }
        let result = CaseResult {
            run,
            case: loose::name(case),
            outcome,
            executed,
            duration_seconds: row.duration_total.milliseconds(),
            retries: row.retries.count(),
            failure_signature: None,
        };
        self.tell_result(result, learned);
        executed
    }

    fn tell_result(&mut self, result: CaseResult, learned: &mut Learned) {
        let Some(run) = self.runs.finished(result.run) else {
            return;
        };
        self.cases.arrived(&result, run);
        learned.facts.push(Fact::Result(result));
    }

    // ---- discovery --------------------------------------------------------------------------------------------------

    fn accept_discovery(&mut self, body: &[u8], learned: &mut Learned) -> Result<(), Rejection> {
        let list: wire::CaseList = read("the list of cases", body)?;
        let data = list.data.0.unwrap_or_default();
        let rows = data
            .test_cases
            .0
            .ok_or_else(|| missing("the list of cases", "data.test_cases"))?;
        let count = rows.len();
        for row in rows.into_iter().flatten() {
            let Some(id) = row.test_case_id.name().or_else(|| row.id.name()) else {
                continue;
            };
            let info = CaseInfo {
                case: id.clone(),
                name: row
                    .test_name
                    .name()
                    .or_else(|| row.name.name())
                    .unwrap_or_else(|| Name::from("")),
                suite: loose::name(&row.suites.0.join(" › ")),
                file: row.file_path.name().unwrap_or_else(|| Name::from("")),
                tags: Some(loose::tags(&row.tags)),
            };
            if self.settings.cases.admits(&id, &info.name) || self.is_wanted(&id) {
                self.track(&id, Some(info), learned);
                self.cases.listed(&id, self.now);
            }
        }
        let analytics = self.settings.cases.discovery == Discovery::Analytics;
        let total = data.summary.0.and_then(|summary| summary.total_test_cases.count());
        if analytics && total.is_some_and(|total| total > count as u64) {
            let hint = "the analytics list only 500 of the cases: `discovery: registry` or `run_details` finds all";
            learned.notices.push(Notice::Advice(hint.into()));
        }
        let pages = list.pagination.0.and_then(|pagination| pagination.total_pages.count());
        let more = pages.map_or(count >= 100, |pages| (self.discovery_page as u64) < pages);
        if analytics || !more || count == 0 || self.discovery_page >= PAGES_MAX {
            self.discovery_done();
        } else {
            self.discovery_page += 1;
        }
        Ok(())
    }

    fn discovery_done(&mut self) {
        self.discovered = Some(self.now);
        self.discovery_wanted = false;
        self.discovery_page = 1;
    }

    // ---- snoozes ----------------------------------------------------------------------------------------------------

    fn accept_snoozes(&mut self, body: &[u8], learned: &mut Learned) -> Result<(), Rejection> {
        let list: wire::SnoozeList = read("the list of snoozes", body)?;
        let rows = list.data.0.and_then(|data| data.snoozes.0);
        let rows = rows.ok_or_else(|| missing("the list of snoozes", "data.snoozes"))?;
        let pages = list.pagination.0.and_then(|pagination| pagination.total_pages.count());
        self.snoozes.accept(rows, pages, self.now, |why| {
            learned.notices.push(Notice::RowSkipped {
                endpoint: SNOOZES,
                why: why.into(),
            });
        });
        Ok(())
    }

    /// Tells the store of the snoozes what is new about them, and people what is wrong with them.
    fn tell_snoozes(&mut self, learned: &mut Learned) {
        let name_of = name_of(&self.runs.environments, &self.settings.environments);
        learned
            .facts
            .extend(self.snoozes.news(self.now, &name_of).map(Fact::Snoozes));
        if self.ask.is_some() {
            return;
        }
        if self.snoozes.are_refused() {
            let text = "the platform refuses to tell the snoozes: nothing is shown of them, and they are asked for again a day later";
            learned.notices.push(Notice::Advice(text.into()));
        }
        for id in self.snoozes.nameless(&name_of) {
            // A number is shown; any other text could be anything.
            let id = id
                .parse::<u64>()
                .map_or_else(|_| "that is no number".to_owned(), |id| id.to_string());
            learned.notices.push(Notice::Advice(format!(
                "a snooze is for an environment whose name no run has told (id {id}): it holds nowhere until one does, or `environments` names it"
            )));
        }
    }

    /// What a row says of the failures that are left after snoozes. It may change at any time after the run's end, so it is
    /// no part of the run: a run is not suspect because somebody has snoozed a case.
    fn learn_after_snooze(&mut self, id: RunId, row: &wire::RunRow) {
        if let Some(failed) = row.failed_count_after_snoozing.count() {
            if self.after_snooze.get(&id) == Some(&failed) {
                self.after_snooze_news.remove(&id);
            } else {
                self.after_snooze_news.insert(id, failed);
            }
        }
    }

    /// Tells it of the runs that the store knows.
    fn tell_after_snooze(&mut self, learned: &mut Learned) {
        let (runs, unnamed) = (&self.runs, &self.unnamed);
        let is_told = |id: &RunId| runs.finished(*id).is_some() && !unnamed.contains(id);
        for (run, failed) in self.after_snooze_news.extract_if(.., |id, _| is_told(id)) {
            self.after_snooze.insert(run, failed);
            learned.facts.push(Fact::FailedAfterSnooze { run, failed });
        }
    }

    // ---- last passes ------------------------------------------------------------------------------------------------

    fn accept_last_pass(&mut self, case: &Name, body: &[u8], learned: &mut Learned) -> Result<(), Rejection> {
        let passes: wire::LastPasses = read("the last passes of a case", body)?;
        let rows = passes
            .data
            .0
            .ok_or_else(|| missing("the last passes of a case", "data"))?;
        self.cases.last_pass_asked(case);
        self.last_passes += 1;
        for row in rows.into_iter().flatten() {
            let (Some(run), Some(at)) = (row.test_run_id.id(), row.executed_at.epoch_ms()) else {
                learned.notices.push(Notice::UnknownValue { field: "executed_at" });
                continue;
            };
            if let Some(known) = self.runs.finished(run) {
                // What its results tell is placed by the run's end; only where they tell nothing this is news.
                if self.cases.has_passed(case, &known.group) {
                    continue;
                }
                learned.facts.push(Fact::LastPass {
                    case: case.clone(),
                    group: known.group.clone(),
                    at,
                });
            } else if let (Some(environment), "") = (
                row.environment_id
                    .as_deref()
                    .and_then(|id| self.runs.environment_of(id, &self.settings)),
                &*self.settings.branches.label(None),
            ) {
                let group = Group {
                    environment,
                    branch: Name::from(""),
                };
                learned.facts.push(Fact::LastPass {
                    case: case.clone(),
                    group,
                    at,
                });
            } else if self.runs.table.get(run).is_none() {
                // Older than the lookback: only its details tell the branch, and the environment by its slug.
                self.foreign.push(ForeignPass {
                    run,
                    case: case.clone(),
                    at,
                });
            }
        }
        Ok(())
    }

    fn accept_foreign(&mut self, id: RunId, body: &[u8], learned: &mut Learned) -> Result<(), Rejection> {
        let details: wire::RunDetails = read("the details of a run", body)?;
        let row = details
            .data
            .0
            .and_then(|data| data.test_run.0)
            .and_then(|body| body.test_run.0);
        let row = row.filter(|row| row.id.id() == Some(id));
        let row =
            row.ok_or_else(|| Rejection::Unreadable("the details of a run: the answer is not that run".into()))?;
        let known = self.runs.table.get(id).is_some();
        let run = self
            .runs
            .learn(id, &row, &self.settings, &mut learned.notices)
            .run
            .clone();
        if !known {
            self.runs.table.remove(id);
        }
        for pass in self.foreign.extract_if(.., |pass| pass.run == id) {
            learned.facts.push(Fact::LastPass {
                case: pass.case,
                group: run.group.clone(),
                at: pass.at,
            });
        }
        Ok(())
    }

    // ---- when there is no answer ------------------------------------------------------------------------------------

    /// Whether the round may go on without this answer.
    fn forgive(&mut self, rejection: &Rejection) -> bool {
        self.forgiven += 1;
        self.forgiven <= FORGIVEN_MAX && !matches!(rejection, Rejection::Status(400..=499))
    }

    fn route_around(&mut self, ask: &Ask, rejection: Rejection, learned: &mut Learned) -> Result<(), Rejection> {
        let gone = matches!(rejection, Rejection::Status(404 | 410));
        match ask {
            Ask::List => self.shrink_list(rejection, learned),
            Ask::State(_) if matches!(rejection, Rejection::Status(400 | 404 | 422)) => {
                self.state_filter = false;
                self.classified.clear();
                self.stage = Stage::Rest;
                Ok(())
            }
            Ask::Details(id) if gone && !self.listed.contains(id) => {
                self.runs.table.remove(*id);
                let why = format!("run {id} is gone");
                learned.notices.push(Notice::RowSkipped { endpoint: DETAILS, why });
                Ok(())
            }
            Ask::Details(id) if gone || self.forgive(&rejection) => {
                self.without_details(*id, learned);
                Ok(())
            }
            Ask::Again(id) => {
                if gone && !self.listed.contains(id) {
                    // What it has counted stays, and so do the gauges: it did happen.
                    self.runs.table.remove(*id);
                    self.cases.forget_run(*id);
                    let why = format!("run {id} is gone");
                    learned.notices.push(Notice::RowSkipped { endpoint: DETAILS, why });
                }
                self.passed_again(*id);
                Ok(())
            }
            Ask::History(batch) if batch.again => {
                let lasting = is_too_much(&rejection);
                if lasting {
                    self.again_size.refused(batch.ids.len(), lasting);
                }
                if !lasting || batch.ids.len() == 1 {
                    self.cases.passed_again(batch, self.now);
                }
                Ok(())
            }
            Ask::History(batch) => self.shrink_batch(batch, rejection, learned),
            Ask::Discover if matches!(rejection, Rejection::Status(400..=499)) => {
                let word = if self.settings.cases.discovery == Discovery::Analytics {
                    "analytics"
                } else {
                    "registry"
                };
                learned.notices.push(Notice::Advice(format!(
                    "discovery by {word} is refused; the other modes are {}",
                    other_modes(word)
                )));
                self.discovery_done();
                Ok(())
            }
            Ask::Discover if self.forgive(&rejection) => {
                self.discovered = Some(self.now);
                Ok(())
            }
            Ask::Snoozes => {
                let refused = matches!(rejection, Rejection::Status(400..=407 | 409..=428 | 430..=499));
                if !refused && !self.forgive(&rejection) {
                    return Err(rejection);
                }
                self.snoozes.failed(refused, self.now);
                Ok(())
            }
            Ask::LastPass(case) if matches!(rejection, Rejection::Status(400..=499)) || self.forgive(&rejection) => {
                self.cases.last_pass_asked(case);
                self.last_passes += 1;
                Ok(())
            }
            Ask::Foreign(id) if gone || self.forgive(&rejection) => {
                self.foreign.retain(|pass| pass.run != *id);
                Ok(())
            }
            _ => Err(rejection),
        }
    }

    /// The details of a run are not to be had now. A finished run is asked for again, ever later, and at last told from
    /// its row in the list; for an open one the filtered lists say whether it has finished.
    fn without_details(&mut self, id: RunId, learned: &mut Learned) {
        let why = format!("the details of run {id} are not to be had; they are asked for again later");
        learned.notices.push(Notice::RowSkipped { endpoint: DETAILS, why });
        self.candidates.remove(&id);
        let open = self
            .runs
            .table
            .get(id)
            .is_some_and(|known| matches!(known.standing, Standing::Open(_)));
        if open {
            let first = self.detail_less.insert(id);
            if first && self.state_filter {
                self.stage = Stage::States(0);
                self.pager = Pager::new(PAGE);
                self.last_state_list.clear();
                self.first_state_list.clear();
            } else {
                self.classified.insert(id);
            }
        } else if self.runs.table.postpone(id, self.now) >= DETAILS_TRIES_MAX {
            self.runs.table.set(id, Standing::Read);
            self.tell_run(id, learned);
        }
    }

    /// The list is not served: perhaps for one row's sake. Not tried round after round against a server that is down.
    fn shrink_list(&mut self, rejection: Rejection, learned: &mut Learned) -> Result<(), Rejection> {
        let sick = matches!(rejection, Rejection::Status(500 | 413) | Rejection::TooLarge);
        if !sick || self.failures_in_a_row > 1 && !self.failures_in_a_row.is_multiple_of(10) {
            return Err(rejection);
        }
        match self.pager.shrink() {
            Some(skipped) => {
                if skipped {
                    let why = "the server cannot serve one row of the list".into();
                    learned.notices.push(Notice::RowSkipped { endpoint: LIST, why });
                }
                Ok(())
            }
            None => Err(rejection),
        }
    }

    /// A batch is not served: half of it, down to one case, which is left for later.
    fn shrink_batch(&mut self, batch: &Batch, rejection: Rejection, learned: &mut Learned) -> Result<(), Rejection> {
        let lasting = is_too_much(&rejection);
        if !lasting && !self.forgive(&rejection) {
            return Err(rejection);
        }
        self.batch_size.refused(batch.ids.len(), lasting);
        if batch.ids.len() > 1 {
            return Ok(());
        }
        self.cases.postpone(&batch.ids, self.now);
        let why = "the history of one case is not to be had; it is asked for again later".into();
        learned.notices.push(Notice::RowSkipped {
            endpoint: Analytics::HistoryBatch.path(),
            why,
        });
        Ok(())
    }

    /// Says what has finished and is not read, when the round is over and it has changed.
    fn tell_unread(&mut self, learned: &mut Learned) {
        let due = self
            .runs
            .table
            .ids(|_, known| matches!(known.standing, Standing::Due { .. }));
        let group = |id: RunId| self.runs.table.get(id).map(|known| known.run.group.clone());
        let runs: BTreeMap<RunId, Group> = (due
            .into_iter()
            .chain(self.cases.awaited())
            .chain(self.unnamed.iter().copied()))
        .filter_map(|id| Some((id, group(id)?)))
        .collect();
        let full = self.settings.cases.enabled && self.cases.len() >= self.settings.cases.max;
        let unread = Unread {
            runs: runs.into_iter().collect(),
            elsewhere: self.row_skipped || full,
        };
        if self.told_unread.as_ref() != Some(&unread) {
            learned.facts.push(Fact::Unread(unread.clone()));
            self.told_unread = Some(unread);
        }
    }

    /// After every answer: what it means for the round.
    fn go_on(&mut self, learned: &mut Learned) {
        self.row_skipped |= learned.skips_rows(SNOOZES);
        self.meet(learned);
        self.tell_active(learned);
        let cases = self.cases.take_refused();
        if cases > 0 {
            let max = self.settings.cases.max;
            learned.notices.push(Notice::CasesRefused { cases, max });
        }
        self.ask = self.plan();
        self.tell_after_snooze(learned);
        self.tell_snoozes(learned);
        if self.ask.is_some() {
            return;
        }
        self.failures_in_a_row = 0;
        self.cases.first_round_is_over(self.now);
        self.cases.prepare(self.now);
        if self.cases.nothing_is_due() {
            self.tell_nameless(learned);
        }
        if self.settings.cases.enabled && self.cases.len() == 0 {
            let word = match self.settings.cases.discovery {
                Discovery::Analytics => "analytics",
                Discovery::Registry => "registry",
                Discovery::Static => "static",
                _ => "run_details",
            };
            let hint = format!(
                "discovery: {word} has found no case; the other modes are {}",
                other_modes(word)
            );
            learned.notices.push(Notice::NoCases { hint });
        }
        self.tell_unread(learned);
    }
}

/// Less of the same may be served.
fn is_too_much(rejection: &Rejection) -> bool {
    matches!(
        rejection,
        Rejection::Status(400 | 413 | 414 | 422) | Rejection::TooLarge
    )
}

fn other_modes(word: &str) -> String {
    let others = ["run_details", "analytics", "registry", "static"]
        .into_iter()
        .filter(|mode| *mode != word);
    others.collect::<Vec<_>>().join(", ")
}

/// A case's place in the suite: file, titles of the groups around it, its own title.
fn info_of(id: &Name, nesting: &[String]) -> CaseInfo {
    let (title, outer) = nesting
        .split_last()
        .map_or(("", nesting), |(title, outer)| (title.as_str(), outer));
    let (file, suites) = outer
        .split_first()
        .map_or(("", outer), |(file, suites)| (file.as_str(), suites));
    CaseInfo {
        case: id.clone(),
        name: loose::name(title),
        suite: loose::name(&suites.join(" › ")),
        file: loose::name(file),
        tags: None,
    }
}

impl Source for Empirical {
    fn begin(&mut self, now: Timestamp, allowance: Allowance) {
        self.now = now;
        self.allowance = allowance;
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        self.snoozes.begin();
        self.runs.prune(now, self.lookback());
        let runs = &self.runs;
        self.after_snooze.retain(|id, _| runs.table.get(*id).is_some());
        self.after_snooze_news.retain(|id, _| runs.table.get(*id).is_some());
        self.stage = Stage::List;
        self.pager = Pager::new(PAGE);
        self.pages = 0;
        self.classified.clear();
        self.listed.clear();
        self.detail_less.retain(|id| {
            self.runs
                .table
                .get(*id)
                .is_some_and(|known| matches!(known.standing, Standing::Open(_)))
        });
        self.told_active = None;
        self.row_skipped = false;
        self.forgiven = 0;
        self.last_passes = 0;
        if self.settings.cases.enabled {
            for id in self.settings.cases.ids.clone() {
                self.cases.track(&loose::name(&id), None, now);
            }
            let ids = &self.settings.cases.ids;
            let ttl = SignedDuration::try_from(self.settings.series_ttl).unwrap_or(SignedDuration::MAX);
            let named = |id: &str| ids.iter().any(|wanted| wanted == id);
            self.cases.forget(now, ttl, named, &self.runs);
        }
        self.suspects.retain(|id| self.runs.finished(*id).is_some());
        self.suspected
            .retain(|_, since| now.duration_since(*since) < sweep::RUNS_PAUSE);
        self.cases.prepare(now);
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
        match &ask {
            Ask::List => self.accept_list(body, &mut learned),
            Ask::State(index) => self.accept_states(*index, body, &mut learned),
            Ask::Details(id) => self.accept_details(*id, body, &mut learned),
            Ask::Discover => self.accept_discovery(body, &mut learned),
            Ask::History(batch) => self.accept_history(batch, body, &mut learned),
            Ask::LastPass(case) => self.accept_last_pass(case, body, &mut learned),
            Ask::Foreign(id) => self.accept_foreign(*id, body, &mut learned),
            Ask::Snoozes => self.accept_snoozes(body, &mut learned),
            Ask::Again(id) => self.accept_again(*id, body, &mut learned),
        }?;
        self.go_on(&mut learned);
        Ok(learned)
    }

    fn reject(&mut self, rejection: Rejection) -> Result<Learned, Rejection> {
        let mut learned = Learned::default();
        let Some(ask) = self.ask.clone() else {
            return Err(rejection);
        };
        self.route_around(&ask, rejection, &mut learned)?;
        self.go_on(&mut learned);
        Ok(learned)
    }

    fn progress(&self) -> Progress {
        Progress {
            cases_tracked: self.cases.len(),
            oldest_refresh: self.cases.oldest_refresh(self.now).map(|oldest| {
                self.runs
                    .table
                    .waiting_since()
                    .map_or(oldest, |since| since.min(oldest))
            }),
            backlog: if self.ask.is_none() { self.backlog } else { 0 },
        }
    }

    fn memory(&self) -> Result<Vec<u8>, MemoryError> {
        let memory = Memory {
            runs: Cow::Borrowed(&self.runs),
            cases: self.cases.memory(),
            project: self.project.clone(),
            met: self.met,
            candidates: Cow::Borrowed(&self.candidates),
            unnamed: Cow::Borrowed(&self.unnamed),
            discovered: self.discovered,
            discovery_wanted: self.discovery_wanted,
            foreign: Cow::Borrowed(&self.foreign),
            sweep: Cow::Borrowed(&self.sweep),
        };
        let appendix = Appendix {
            snoozes: Cow::Borrowed(self.snoozes.memory()),
        };
        Ok(postcard::to_stdvec(&(memory, appendix))?)
    }

    fn restore(&mut self, memory: &[u8]) -> Result<(), MemoryError> {
        let (memory, rest): (Memory<'_>, _) = postcard::take_from_bytes(memory)?;
        let appendix: Appendix<'_> = if rest.is_empty() {
            Appendix::default()
        } else {
            postcard::from_bytes(rest)?
        };
        let settings = &self.settings.cases;
        let admits = |id: &str, name: &str| {
            let named = || settings.ids.iter().any(|wanted| wanted == id);
            let found = || settings.discovery != Discovery::Static && settings.admits(id, name);
            settings.enabled && (named() || found())
        };
        self.cases.restore(memory.cases, admits);
        self.runs = memory.runs.into_owned();
        self.project = memory.project;
        self.met = memory.met;
        self.candidates = memory.candidates.into_owned();
        self.unnamed = memory.unnamed.into_owned();
        self.discovered = memory.discovered;
        self.discovery_wanted = memory.discovery_wanted;
        self.foreign = memory.foreign.into_owned();
        self.foreign.retain(|pass| self.cases.is_tracked(&pass.case));
        self.sweep = memory.sweep.into_owned();
        self.snoozes.restore(appendix.snoozes.into_owned());
        Ok(())
    }
}
