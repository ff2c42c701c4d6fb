//! Empirical's API over a world: its routes, its strictness, its shapes. Reads the world, never changes it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::platform::{Asked, Page, Route, Served};
use super::run::{Attempt, CaseRun, End, Ms, Run, Snooze};
use super::wire::{Count, Id, Iso, Style};
use super::world::World;
use crate::model::CaseOutcome;

const DAY: Ms = 86_400_000;
const LIST: &str = "/api/test-runs";
const DETAILS: &str = "/api/test-runs/{id}";
const CASES: &str = "/api/v2/analytics/test-cases";
const REGISTRY: &str = "/api/v2/test-cases";
const HISTORY: &str = "/api/v2/analytics/test-case-history/batch";
const LAST_PASS: &str = "/api/v2/analytics/test-case-last-pass-per-env";
const SNOOZES: &str = "/api/snoozes";
/// The project's id: a number here, a text in the analytics.
const PROJECT_ID: u64 = 7;
/// Environments have ids of their own, which are neither slugs nor places in a list.
const ENVIRONMENT_ID_FIRST: usize = 31;
const LIST_PARAMS: &[&str] = &[
    "id",
    "per_page",
    "page",
    "branch",
    "interval_in_days",
    "state",
    "result",
    "environment_ids",
];
const CASES_PARAMS: &[&str] = &[
    "days",
    "start_date",
    "end_date",
    "environment_id",
    "search",
    "tags",
    "order_by",
    "order",
    "limit",
    "limit_history",
    "test_case_id",
    "is_active",
];
const REGISTRY_PARAMS: &[&str] = &[
    "ids",
    "file_path",
    "playwright_project",
    "tags",
    "search",
    "first_seen_commit_sha",
    "last_seen_commit_sha",
    "is_active",
    "page",
    "per_page",
];
const SNOOZES_PARAMS: &[&str] = &["page", "per_page", "environment_id", "status"];
const HISTORY_FIELDS: &[&str] = &[
    "test_case_ids",
    "project_id",
    "days",
    "start_date",
    "end_date",
    "environment_id",
    "limit_per_test_case",
];
const LAST_PASS_FIELDS: &[&str] = &["test_case_id", "project_id", "days", "before"];

pub(super) fn route(path: &str) -> Option<Route<'_>> {
    let get = |template, params| Route {
        method: "GET",
        template,
        params,
        id: "",
    };
    let post = |template| Route {
        method: "POST",
        template,
        params: &[],
        id: "",
    };
    Some(match path {
        LIST => get(LIST, LIST_PARAMS),
        CASES => get(CASES, CASES_PARAMS),
        REGISTRY => get(REGISTRY, REGISTRY_PARAMS),
        SNOOZES => get(SNOOZES, SNOOZES_PARAMS),
        HISTORY => post(HISTORY),
        LAST_PASS => post(LAST_PASS),
        _ => {
            let id = path
                .strip_prefix("/api/test-runs/")
                .filter(|id| !id.is_empty() && !id.contains('/'))?;
            Route {
                id,
                ..get(DETAILS, &[])
            }
        }
    })
}

pub(super) fn error(message: &str) -> Value {
    json!({"data": null, "error": {"message": message}})
}

/// The analytics have error bodies of their own.
fn analytics_error(status: u16, message: &str) -> Page {
    Page::new(status, &json!({"error": message}))
}

pub(super) fn answer(world: &World, route: &Route<'_>, asked: &Asked) -> Page {
    let answered = match route.template {
        LIST => list(world, asked),
        DETAILS => details(world, route.id),
        CASES => analytics_cases(world, asked),
        REGISTRY => registry(world, asked),
        SNOOZES => snoozes(world, asked),
        HISTORY => history(world, &asked.body),
        _ => last_pass(world, &asked.body),
    };
    answered.unwrap_or_else(|refusal| refusal)
}

/// A numeric query parameter within its documented range; a refusal otherwise.
fn number(asked: &Asked, name: &str, default: i64, low: i64, high: i64) -> Result<i64, Page> {
    let Some(text) = asked.param(name) else {
        return Ok(default);
    };
    text.parse::<i64>()
        .ok()
        .filter(|value| (low..=high).contains(value))
        .ok_or_else(|| Page::new(400, &error(&format!("{name} must be between {low} and {high}"))))
}

fn environment_id(index: usize) -> Id {
    Id::text(environment_number(index))
}

fn environment_number(index: usize) -> u64 {
    (ENVIRONMENT_ID_FIRST + index) as u64
}

fn title(slug: &str) -> String {
    let mut letters = slug.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().collect::<String>() + letters.as_str()
    })
}

/// What the run is doing, in the platform's words.
pub(super) fn state(run: &Run, now: Ms) -> &'static str {
    let attempt = &run.current;
    if attempt.is_finished(now) {
        return match attempt.end {
            End::Ended => "ended",
            End::Error(_) => "error",
            End::Cancelled => "cancelled",
        };
    }
    match attempt {
        _ if attempt.cancelling.is_some_and(|at| at <= now) => "cancelling",
        _ if run.is_paused(now) => "paused",
        _ if attempt.started.is_some_and(|at| at <= now) => "started",
        _ if now < attempt.pending_until => "pending",
        _ => "queued",
    }
}

/// The run's own counts: passed, failed, flaky, skipped. Nothing is counted before the end.
fn counts(world: &World, run: &Run) -> [u64; 4] {
    if !run.current.is_finished(world.now) {
        return [0; 4];
    }
    let count = |outcome| run.current.count(outcome);
    let flaky = count(CaseOutcome::Flaky);
    let passed = count(CaseOutcome::Passed) + if world.options.flaky_in_success { flaky } else { 0 };
    [passed, count(CaseOutcome::Failed), flaky, count(CaseOutcome::Skipped)]
}

/// A run, in the list and in its details. `Some(None)` is served as null, `None` not at all.
#[derive(Serialize)]
struct Item<'a> {
    build_branch: Option<&'a str>,
    build_url: Option<String>,
    commit: Option<&'a str>,
    created_at: Iso,
    duration: Option<Count>,
    #[serde(skip_serializing_if = "Option::is_none")]
    environment_id: Option<Id>,
    environment_name: Option<String>,
    environment_slug: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<&'a str>,
    failed_count: Count,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed_count_after_snoozing: Option<Count>,
    flaky_count: Option<Count>,
    id: Id,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_ended_at: Option<Option<Iso>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_started_at: Option<Option<Iso>>,
    skipped_count: Option<Count>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'a str>,
    success_count: Count,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary_url: Option<Option<String>>,
    test_run_branch: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    test_run_head_sha: Option<Option<&'a str>>,
    total_count: Count,
}

/// Whether the run's times are not told.
pub(super) fn hides_times(world: &World, attempt: &Attempt) -> bool {
    world.options.null_cancelled_times && attempt.end == End::Cancelled && attempt.is_finished(world.now)
}

/// What the list and the details have in common.
fn item<'a>(world: &'a World, run: &'a Run) -> Item<'a> {
    let (now, attempt, style) = (world.now, &run.current, Style::of(&world.options));
    let [passed, failed, flaky, skipped] = counts(world, run);
    let total = if attempt.is_finished(now) {
        attempt.results.len() as u64 - attempt.count(CaseOutcome::Skipped)
    } else {
        0
    };
    let duration = attempt
        .started
        .filter(|_| attempt.is_finished(now) && !run.nulls.duration && !hides_times(world, attempt))
        .map(|started| attempt.finished - started);
    let duration = duration.map(|ms| {
        if world.options.duration_in_seconds {
            (ms + 500) / 1000
        } else {
            ms
        }
    });
    let slug = &world.options.environments[run.environment];
    let count = |number: u64| style.count(number.cast_signed());
    Item {
        build_branch: run.branch.as_deref(),
        build_url: (!run.nulls.build_url).then(|| format!("https://{slug}.shop.example.com/builds/{}", run.index)),
        commit: (!run.nulls.commit).then_some(&run.commit),
        created_at: Iso::millis(run.created),
        duration: duration.map(|ms| style.count(ms)),
        environment_id: None,
        environment_name: (!run.odd.nameless).then(|| title(slug)),
        environment_slug: (!run.odd.nameless).then_some(slug),
        error_code: None,
        failed_count: count(failed),
        failed_count_after_snoozing: world.has_snoozes().then(|| {
            let finished = attempt.is_finished(now);
            count(if finished { world.failed_after_snooze(run) } else { 0 })
        }),
        flaky_count: (!run.nulls.flaky_count).then(|| count(flaky)),
        id: style.id(run.id),
        run_ended_at: None,
        run_started_at: None,
        skipped_count: (!run.nulls.skipped_count).then(|| count(skipped)),
        state: None,
        success_count: count(passed),
        summary_url: None,
        test_run_branch: run.branch.as_deref(),
        test_run_head_sha: None,
        total_count: count(total),
    }
}

/// The filters of the list, read once.
struct Wanted<'a> {
    since: Option<Ms>,
    id: Option<&'a str>,
    branch: Option<&'a str>,
    state: Option<&'a str>,
    failed: Option<bool>,
    environments: Option<Vec<&'a str>>,
}

impl<'a> Wanted<'a> {
    fn read(world: &World, asked: &'a Asked) -> Self {
        let days = asked
            .param("interval_in_days")
            .and_then(|text| text.parse::<i64>().ok());
        Self {
            since: days.map(|days| world.now.saturating_sub(days.saturating_mul(DAY))),
            id: asked.param("id"),
            branch: asked.param("branch"),
            state: asked.param("state").filter(|_| !world.options.ignores_state_filter),
            failed: asked.param("result").map(|result| result == "failed"),
            environments: asked.param("environment_ids").map(|ids| ids.split(',').collect()),
        }
    }

    fn matches(&self, world: &World, run: &Run) -> bool {
        let now = world.now;
        self.since.is_none_or(|since| run.created >= since)
            && self.id.is_none_or(|id| id == run.id.to_string())
            && self.branch.is_none_or(|branch| run.branch.as_deref() == Some(branch))
            && self.state.is_none_or(|wanted| state(run, now) == wanted)
            && self
                .failed
                .is_none_or(|failed| state(run, now) == "ended" && (counts(world, run)[1] > 0) == failed)
            && self
                .environments
                .as_ref()
                .is_none_or(|ids| ids.contains(&environment_number(run.environment).to_string().as_str()))
    }
}

#[derive(Serialize)]
struct List<'a> {
    data: ListData<'a>,
    pagination: Pagination,
}

#[derive(Serialize)]
struct ListData<'a> {
    project: Project,
    test_runs: Items<'a>,
}

#[derive(Serialize)]
struct Items<'a> {
    items: Vec<Item<'a>>,
}

#[derive(Serialize)]
struct Project {
    id: Id,
    name: &'static str,
    repo_name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    slug: Option<&'static str>,
}

#[derive(Serialize)]
struct Pagination {
    #[serde(skip_serializing_if = "Option::is_none")]
    has_more: Option<bool>,
    page: Count,
    per_page: Count,
    total: Count,
    total_pages: Count,
}

fn project(style: Style, slug: Option<&'static str>) -> Project {
    Project {
        id: style.id(PROJECT_ID),
        name: "Shop",
        repo_name: "shop-tests",
        slug,
    }
}

fn list(world: &World, asked: &Asked) -> Result<Page, Page> {
    let per_page = number(asked, "per_page", 20, 1, 100)?;
    let page = number(asked, "page", 1, 1, i64::MAX)?;
    number(asked, "interval_in_days", 1, 1, i64::MAX)?;
    number(asked, "id", 1, 1, i64::MAX)?;
    if asked
        .param("result")
        .is_some_and(|result| !matches!(result, "passed" | "failed"))
    {
        return Err(Page::new(400, &error("result must be passed or failed")));
    }
    let wanted = Wanted::read(world, asked);
    let (start, size) = (
        usize::try_from((page - 1).saturating_mul(per_page)).unwrap_or(usize::MAX),
        usize::try_from(per_page).unwrap_or(20),
    );
    let mut newest_first: Vec<&Run> = world.runs.iter().filter(|run| wanted.matches(world, run)).collect();
    if world.options.created_ties > 0.0 {
        // The sort is stable: runs of one instant stay in the order of their ids, which is the wrong one.
        newest_first.sort_by_key(|run| std::cmp::Reverse(run.created));
    } else {
        newest_first.reverse();
    }
    let total = newest_first.len();
    let shown = newest_first.into_iter().skip(start).take(size);
    let items = shown.map(|run| Item {
        state: world.options.list_tells_state.then(|| state(run, world.now)),
        ..item(world, run)
    });
    let items = items.collect();
    let style = Style::of(&world.options);
    let body = List {
        data: ListData {
            project: project(style, Some("shop")),
            test_runs: Items { items },
        },
        pagination: Pagination {
            has_more: None,
            page: style.count(page),
            per_page: style.count(per_page),
            total: style.size(total),
            total_pages: style.size(total.div_ceil(size)),
        },
    };
    Ok(Page::found(&body, vec![]))
}

#[derive(Serialize)]
struct Details<'a> {
    data: DetailsData<'a>,
}

#[derive(Serialize)]
struct DetailsData<'a> {
    test_run: DetailsBody<'a>,
}

#[derive(Serialize)]
struct DetailsBody<'a> {
    #[serde(rename = "flattenedSummaryDetails")]
    flattened_summary_details: Vec<Detail<'a>>,
    project: Project,
    #[serde(rename = "testRun")]
    test_run: Item<'a>,
}

#[derive(Serialize)]
struct Detail<'a> {
    nesting: Vec<&'a str>,
    pw_test_id: &'a str,
    status: &'static str,
    test_project: &'static str,
}

fn details(world: &World, id: &str) -> Result<Page, Page> {
    let found = id.parse().ok().and_then(|id| world.find(id));
    let run = found.ok_or_else(|| Page::new(404, &error("Test run not found")))?;
    let (now, attempt) = (world.now, &run.current);
    let finished = attempt.is_finished(now);
    let told = !hides_times(world, attempt);
    let item = Item {
        environment_id: (world.options.null_environments > 0.0).then(|| environment_id(run.environment)),
        state: Some(state(run, now)),
        test_run_head_sha: Some((!run.nulls.commit).then_some(&run.commit)),
        run_started_at: Some(attempt.started.filter(|at| told && *at <= now).map(Iso::millis)),
        run_ended_at: Some((told && finished).then_some(Iso::millis(attempt.finished))),
        summary_url: Some(finished.then(|| format!("https://reports.example.com/{}/summary.json", run.id))),
        error_code: match attempt.end {
            End::Error(code) if finished => code,
            _ => None,
        },
        ..item(world, run)
    };
    let results: &[CaseRun] = if finished { &attempt.results } else { &[] };
    let all = !world.options.details_list_failures_only;
    let shown = results
        .iter()
        .filter(|result| all || result.outcome != CaseOutcome::Passed);
    let body = Details {
        data: DetailsData {
            test_run: DetailsBody {
                flattened_summary_details: shown.map(|result| detail(world, result)).collect(),
                project: project(Style::of(&world.options), None),
                test_run: item,
            },
        },
    };
    Ok(Page::found(&body, vec![Served::Run(run.id)]))
}

fn detail<'a>(world: &'a World, result: &CaseRun) -> Detail<'a> {
    let case = &world.cases[result.case];
    let status = match result.outcome {
        CaseOutcome::Passed => "passed",
        CaseOutcome::Failed | CaseOutcome::MissingOutput => "failed",
        CaseOutcome::Flaky => "flaky",
        CaseOutcome::Skipped => "skipped",
        CaseOutcome::Unknown => "timedOut",
    };
    let mut nesting = vec![case.file.as_str()];
    nesting.extend(case.suites.iter().map(String::as_str));
    nesting.push(&case.name);
    Detail {
        nesting,
        pw_test_id: &case.id,
        status,
        test_project: case.project,
    }
}

/// The results that the analytics know of, newest first, with the runs that they belong to.
fn known<'a>(
    world: &'a World,
    case: usize,
    since: Ms,
    until: Ms,
    environment: Option<&'a str>,
) -> impl Iterator<Item = (&'a Run, &'a CaseRun)> {
    let environment = environment.map(|id| {
        let mut all = 0..world.options.environments.len();
        all.find(|index| environment_number(*index).to_string() == id)
    });
    world
        .results(case)
        .take_while(move |(_, result)| result.executed >= since)
        .filter(move |(run, result)| {
            result.executed <= until
                && run.is_visible(world.now)
                && environment.is_none_or(|index| index == Some(run.environment))
        })
}

#[derive(Serialize)]
struct Analytics<'a> {
    data: AnalyticsData<'a>,
}

#[derive(Serialize)]
struct AnalyticsData<'a> {
    summary: AnalyticsSummary,
    test_cases: Vec<AnalyticsCase<'a>>,
}

#[derive(Serialize)]
struct AnalyticsSummary {
    test_cases_with_history: Count,
    total_test_cases: Count,
}

#[derive(Serialize)]
struct AnalyticsCase<'a> {
    file_path: &'a str,
    last_run_at: Iso,
    metrics: AnalyticsMetrics,
    project_name: &'a str,
    tags: &'a [&'a str],
    test_case_id: &'a str,
    test_name: &'a str,
}

#[derive(Serialize)]
struct AnalyticsMetrics {
    fail_count: Count,
    fail_rate: Count,
    flaky_count: Count,
    flaky_rate: Count,
    pass_count: Count,
    pass_rate: Count,
    total_runs: Count,
}

/// A case with history, and what the rows are ordered by.
fn analytics_case<'a>(world: &'a World, index: usize, since: Ms, asked: &Asked) -> Option<(i64, AnalyticsCase<'a>)> {
    let (case, style) = (world.cases.get(index)?, Style::of(&world.options));
    let (mut counts, mut newest) = ([0_i64; CaseOutcome::COUNT], None);
    for (_, result) in known(world, index, since, world.now, asked.param("environment_id")) {
        counts[result.outcome.index()] += 1;
        newest = newest.or(Some(result.executed));
    }
    let newest = newest?;
    let [pass, fail, flaky] =
        [CaseOutcome::Passed, CaseOutcome::Failed, CaseOutcome::Flaky].map(|outcome| counts[outcome.index()]);
    let total = pass + fail + flaky;
    let percent = |part: i64| (part * 100 + total / 2).checked_div(total).unwrap_or(0);
    let order = match asked.param("order_by") {
        Some("flaky_rate") => percent(flaky),
        Some("last_run") => newest,
        _ => percent(fail),
    };
    let row = AnalyticsCase {
        file_path: &case.file,
        last_run_at: Iso::millis(newest),
        metrics: AnalyticsMetrics {
            fail_count: style.count(fail),
            fail_rate: style.count(percent(fail)),
            flaky_count: style.count(flaky),
            flaky_rate: style.count(percent(flaky)),
            pass_count: style.count(pass),
            pass_rate: style.count(percent(pass)),
            total_runs: style.count(total),
        },
        project_name: case.project,
        tags: case.tags,
        test_case_id: &case.id,
        test_name: &case.name,
    };
    Some((order, row))
}

fn analytics_cases(world: &World, asked: &Asked) -> Result<Page, Page> {
    let days = number(asked, "days", 30, 1, 90)?;
    let limit = number(asked, "limit", 50, 1, 500)?;
    number(asked, "limit_history", 1, 1, 100)?;
    let since = world.now - days * DAY;
    let mut rows: Vec<(i64, AnalyticsCase<'_>)> = (0..world.cases.len())
        .filter_map(|index| analytics_case(world, index, since, asked))
        .collect();
    rows.sort_by_key(|(order, _)| std::cmp::Reverse(*order));
    let style = Style::of(&world.options);
    let summary = AnalyticsSummary {
        test_cases_with_history: style.size(rows.len()),
        total_test_cases: style.size(world.cases.len()),
    };
    let most = usize::try_from(limit).unwrap_or(50);
    let test_cases = rows.into_iter().map(|(_, row)| row).take(most).collect();
    let body = Analytics {
        data: AnalyticsData { summary, test_cases },
    };
    Ok(Page::found(&body, vec![]))
}

#[derive(Serialize)]
struct Registry<'a> {
    data: RegistryData<'a>,
    pagination: Pagination,
}

#[derive(Serialize)]
struct RegistryData<'a> {
    sync_error: Option<&'a str>,
    test_cases: Vec<RegistryCase<'a>>,
}

#[derive(Serialize)]
struct RegistryCase<'a> {
    created_at: Iso,
    file_path: &'a str,
    first_seen_commit_sha: Option<&'a str>,
    id: &'a str,
    last_seen_commit_sha: Option<&'a str>,
    name: &'a str,
    playwright_project: &'a str,
    suites: &'a [String],
    tags: &'a [&'a str],
    updated_at: Iso,
}

fn registry(world: &World, asked: &Asked) -> Result<Page, Page> {
    let per_page = number(asked, "per_page", 20, 1, 100)?;
    let page = number(asked, "page", 1, 1, i64::MAX)?;
    let size = usize::try_from(per_page).unwrap_or(20);
    let start = usize::try_from((page - 1).saturating_mul(per_page)).unwrap_or(usize::MAX);
    let total = world.cases.len();
    let created = Iso::millis(world.options.start.as_millisecond() - 90 * DAY);
    let shown = world.cases.iter().skip(start).take(size);
    let test_cases: Vec<RegistryCase<'_>> = shown
        .map(|case| RegistryCase {
            created_at: created,
            file_path: &case.file,
            first_seen_commit_sha: None,
            id: &case.id,
            last_seen_commit_sha: None,
            name: &case.name,
            playwright_project: case.project,
            suites: &case.suites,
            tags: case.tags,
            updated_at: created,
        })
        .collect();
    let style = Style::of(&world.options);
    let pagination = Pagination {
        has_more: Some(start.saturating_add(test_cases.len()) < total && !test_cases.is_empty()),
        page: style.count(page),
        per_page: style.count(per_page),
        total: style.size(total),
        total_pages: style.size(total.div_ceil(size)),
    };
    let data = RegistryData {
        sync_error: None,
        test_cases,
    };
    Ok(Page::found(&Registry { data, pagination }, vec![]))
}

#[derive(Serialize)]
struct Snoozes {
    data: SnoozesData,
    pagination: Pagination,
}

#[derive(Serialize)]
struct SnoozesData {
    snoozes: Vec<SnoozeRow>,
}

#[derive(Serialize)]
struct SnoozeRow {
    created_at: Iso,
    created_by: Option<Id>,
    created_from_test_run_id: Option<Id>,
    description: &'static str,
    id: Id,
    scoped_to_environment_id: Option<Id>,
    snooze_until: Iso,
    test_ids: Vec<String>,
    updated_at: Iso,
}

fn snoozes(world: &World, asked: &Asked) -> Result<Page, Page> {
    let per_page = number(asked, "per_page", 20, 1, 100)?;
    let page = number(asked, "page", 1, 1, i64::MAX)?;
    let environment = match asked.param("environment_id") {
        None => None,
        Some(_) => Some(number(asked, "environment_id", 1, 1, i64::MAX)?),
    };
    let status = asked.param("status").unwrap_or("active");
    if !matches!(status, "active" | "expired" | "all") {
        return Err(Page::new(400, &error("status must be active, expired or all")));
    }
    let wanted = |snooze: &&Snooze| {
        let is_active = world.now < snooze.until;
        let scope = snooze.environment.map(|index| environment_number(index).cast_signed());
        snooze.created <= world.now
            && (status == "all" || is_active == (status == "active"))
            && environment.is_none_or(|id| scope == Some(id))
    };
    let size = usize::try_from(per_page).unwrap_or(20);
    let start = usize::try_from((page - 1).saturating_mul(per_page)).unwrap_or(usize::MAX);
    let found: Vec<&Snooze> = world.snoozes.iter().filter(wanted).collect();
    let style = Style::of(&world.options);
    let rows = found.iter().rev().skip(start).take(size).map(|snooze| SnoozeRow {
        created_at: Iso::millis(snooze.created),
        created_by: None,
        created_from_test_run_id: None,
        description: "known",
        id: style.id(snooze.id),
        scoped_to_environment_id: snooze.environment.map(|index| style.id(environment_number(index))),
        snooze_until: Iso::millis(snooze.until),
        test_ids: snooze.cases.iter().map(|case| world.cases[*case].id.clone()).collect(),
        updated_at: Iso::millis(snooze.created),
    });
    let body = Snoozes {
        data: SnoozesData {
            snoozes: rows.collect(),
        },
        pagination: Pagination {
            has_more: None,
            page: style.count(page),
            per_page: style.count(per_page),
            total: style.size(found.len()),
            total_pages: style.size(found.len().div_ceil(size)),
        },
    };
    Ok(Page::found(&body, vec![]))
}

/// The body as an object that has no other fields than these.
fn fields(body: &[u8], allowed: &[&str]) -> Result<Map<String, Value>, Page> {
    let Ok(Value::Object(fields)) = serde_json::from_slice(body) else {
        return Err(analytics_error(400, "The request body must be a JSON object"));
    };
    let unknown: Vec<&String> = fields.keys().filter(|name| !allowed.contains(&name.as_str())).collect();
    if unknown.is_empty() {
        return Ok(fields);
    }
    Err(Page::new(
        400,
        &json!({"error": "Unknown field(s) in request body", "unknown_fields": unknown, "allowed_fields": allowed}),
    ))
}

/// A whole number of the body within its documented range.
fn field(fields: &Map<String, Value>, name: &str, default: i64, low: i64, high: i64) -> Result<i64, Page> {
    let Some(value) = fields.get(name) else {
        return Ok(default);
    };
    let number = value.as_i64().filter(|number| (low..=high).contains(number));
    number.ok_or_else(|| analytics_error(400, &format!("{name} must be an integer between {low} and {high}")))
}

/// A time of the body.
fn time(fields: &Map<String, Value>, name: &str) -> Result<Option<Ms>, Page> {
    let Some(value) = fields.get(name) else { return Ok(None) };
    let parsed = value.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    parsed
        .map(|at| Some(at.as_millisecond()))
        .ok_or_else(|| analytics_error(400, &format!("{name} must be an ISO 8601 time")))
}

#[derive(Serialize)]
struct History<'a> {
    data: HistoryData<'a>,
    meta: HistoryMeta<'a>,
}

#[derive(Serialize)]
struct HistoryData<'a> {
    history_by_test_case_id: BTreeMap<&'a str, Vec<HistoryRow>>,
}

#[derive(Serialize)]
struct HistoryMeta<'a> {
    days: Option<Count>,
    end_date: Option<Iso>,
    environment_id: Option<&'a str>,
    limit_per_test_case: Count,
    project_id: Id,
    start_date: Option<Iso>,
    truncated_test_case_ids: Vec<&'a str>,
}

#[derive(Serialize)]
struct HistoryRow {
    duration_total: Option<Count>,
    environment_id: Id,
    executed_at: Iso,
    retries: Option<Count>,
    status: &'static str,
    test_run_id: Id,
    timestamp: Iso,
}

fn history(world: &World, body: &[u8]) -> Result<Page, Page> {
    let fields = fields(body, HISTORY_FIELDS)?;
    let ids: Option<Vec<&str>> = fields
        .get("test_case_ids")
        .and_then(Value::as_array)
        .and_then(|ids| ids.iter().map(Value::as_str).collect());
    let ids = ids
        .filter(|ids| !ids.is_empty())
        .ok_or_else(|| analytics_error(400, "test_case_ids must be a non-empty array of strings"))?;
    if ids.len() > world.options.batch_max {
        return Err(analytics_error(
            world.options.batch_status,
            "Too many test cases in one request",
        ));
    }
    let days = field(&fields, "days", 30, 1, 90)?;
    let limit = field(&fields, "limit_per_test_case", 50, 1, 1000)?;
    let (start, end) = (time(&fields, "start_date")?, time(&fields, "end_date")?);
    if start.is_some() != end.is_some() {
        return Err(analytics_error(400, "start_date and end_date must come together"));
    }
    let (since, until) = start.zip(end).unwrap_or((world.now - days * DAY, world.now));
    let environment = fields.get("environment_id").and_then(Value::as_str);
    let most = usize::try_from(limit).unwrap_or(50);
    let style = Style::of(&world.options);
    let (mut by_case, mut truncated, mut served) = (BTreeMap::new(), vec![], vec![]);
    for id in ids {
        let Some(index) = world.case(id) else { continue };
        let mut rows = vec![];
        let told = known(world, index, since, until, environment)
            .flat_map(|(run, result)| std::iter::repeat_n((run, result), world.copies(run, result)));
        for (run, result) in told.take(most) {
            rows.push(row(style, run, result));
            if run.will_be_rewritten() {
                served.push(Served::Case(run.id, index));
            }
        }
        if rows.len() >= most {
            truncated.push(id);
        }
        by_case.insert(id, rows);
    }
    let meta = HistoryMeta {
        days: start.is_none().then_some(style.count(days)),
        end_date: end.map(Iso::millis),
        environment_id: environment,
        limit_per_test_case: style.count(limit),
        project_id: Id::text(PROJECT_ID),
        start_date: start.map(Iso::millis),
        truncated_test_case_ids: truncated,
    };
    let data = HistoryData {
        history_by_test_case_id: by_case,
    };
    Ok(Page::found(&History { data, meta }, served))
}

fn row(style: Style, run: &Run, result: &CaseRun) -> HistoryRow {
    let status = match result.outcome {
        CaseOutcome::Passed => "pass",
        CaseOutcome::Failed | CaseOutcome::MissingOutput => "fail",
        CaseOutcome::Flaky => "flaky",
        CaseOutcome::Skipped => "skip",
        CaseOutcome::Unknown => "timedOut",
    };
    HistoryRow {
        duration_total: result.duration.map(|ms| style.count(ms.into())),
        environment_id: environment_id(run.environment),
        executed_at: Iso::millis(result.executed),
        retries: result.retries.map(|retries| style.count(retries.into())),
        status,
        test_run_id: Id::text(run.id),
        timestamp: Iso::seconds(result.executed),
    }
}

#[derive(Serialize)]
struct LastPasses {
    data: Vec<LastPass>,
}

#[derive(Serialize)]
struct LastPass {
    environment_id: Id,
    executed_at: Count,
    test_run_id: Id,
}

fn last_pass(world: &World, body: &[u8]) -> Result<Page, Page> {
    let fields = fields(body, LAST_PASS_FIELDS)?;
    let id = fields
        .get("test_case_id")
        .and_then(Value::as_str)
        .filter(|id| !id.is_empty());
    let id = id.ok_or_else(|| Page::new(400, &error("test_case_id must be a non-empty string")))?;
    let days = field(&fields, "days", 30, 1, 36_500)?;
    let until = time(&fields, "before")?.unwrap_or(world.now);
    let style = Style::of(&world.options);
    let found = world.case(id);
    let pass = |environment: usize| {
        let mut rows = known(world, found?, until - days * DAY, until, None);
        let (run, result) =
            rows.find(|(run, result)| run.environment == environment && result.outcome == CaseOutcome::Passed)?;
        Some(LastPass {
            environment_id: environment_id(environment),
            executed_at: style.count(result.executed),
            test_run_id: Id::text(run.id),
        })
    };
    let data = (0..world.options.environments.len()).filter_map(pass).collect();
    Ok(Page::found(&LastPasses { data }, vec![]))
}
