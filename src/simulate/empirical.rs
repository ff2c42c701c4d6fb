//! Empirical's API over a world: its routes, its strictness, its shapes. Reads the world, never changes it.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::platform::{Asked, Page, Route, Served};
use super::run::{CaseRun, End, Ms, Run};
use super::world::World;
use crate::model::CaseOutcome;

const DAY: Ms = 86_400_000;
const LIST: &str = "/api/test-runs";
const DETAILS: &str = "/api/test-runs/{id}";
const CASES: &str = "/api/v2/analytics/test-cases";
const REGISTRY: &str = "/api/v2/test-cases";
const HISTORY: &str = "/api/v2/analytics/test-case-history/batch";
const LAST_PASS: &str = "/api/v2/analytics/test-case-last-pass-per-env";
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
    Page::new(status, json!({"error": message}))
}

pub(super) fn answer(world: &World, route: &Route<'_>, asked: &Asked) -> Page {
    let answered = match route.template {
        LIST => list(world, asked),
        DETAILS => details(world, route.id),
        CASES => analytics_cases(world, asked),
        REGISTRY => registry(world, asked),
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
        .ok_or_else(|| Page::new(400, error(&format!("{name} must be between {low} and {high}"))))
}

fn iso(time: Ms) -> String {
    format!("{:.3}", Timestamp::from_millisecond(time).unwrap_or_default())
}

fn environment_id(index: usize) -> String {
    (ENVIRONMENT_ID_FIRST + index).to_string()
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

/// What the list and the details have in common.
fn item(world: &World, run: &Run) -> Map<String, Value> {
    let now = world.now;
    let attempt = &run.current;
    let [passed, failed, flaky, skipped] = counts(world, run);
    let total = if attempt.is_finished(now) {
        attempt.results.len() as u64 - attempt.count(CaseOutcome::Skipped)
    } else {
        0
    };
    let duration = attempt
        .started
        .filter(|_| attempt.is_finished(now) && !run.nulls.duration)
        .map(|started| attempt.finished - started);
    let duration = duration.map(|ms| {
        if world.options.duration_in_seconds {
            (ms + 500) / 1000
        } else {
            ms
        }
    });
    let slug = &world.options.environments[run.environment];
    let commit = (!run.nulls.commit).then_some(&run.commit);
    let url = (!run.nulls.build_url).then(|| format!("https://{slug}.shop.example.com/builds/{}", run.index));
    let value = json!({
        "id": run.id,
        "total_count": total,
        "success_count": passed,
        "failed_count": failed,
        "skipped_count": (!run.nulls.skipped_count).then_some(skipped),
        "flaky_count": (!run.nulls.flaky_count).then_some(flaky),
        "duration": duration,
        "test_run_branch": run.branch,
        "environment_slug": slug,
        "environment_name": title(slug),
        "build_url": url,
        "build_branch": run.branch,
        "commit": commit,
        "created_at": iso(run.created),
    });
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn is_wanted(world: &World, run: &Run, asked: &Asked) -> bool {
    let [_, failed, ..] = counts(world, run);
    let days = asked
        .param("interval_in_days")
        .and_then(|text| text.parse::<i64>().ok());
    let matches = |name: &str, test: &dyn Fn(&str) -> bool| asked.param(name).is_none_or(test);
    days.is_none_or(|days| run.created >= world.now.saturating_sub(days.saturating_mul(DAY)))
        && matches("id", &|text| text == run.id.to_string())
        && matches("branch", &|text| run.branch.as_deref() == Some(text))
        && matches("state", &|text| state(run, world.now) == text)
        && matches("result", &|text| {
            state(run, world.now) == "ended" && (failed > 0) == (text == "failed")
        })
        && matches("environment_ids", &|text| {
            text.split(',').any(|id| id == environment_id(run.environment))
        })
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
        return Err(Page::new(400, error("result must be passed or failed")));
    }
    let wanted: Vec<&Run> = world
        .runs
        .iter()
        .rev()
        .filter(|run| is_wanted(world, run, asked))
        .collect();
    let (start, size) = (
        usize::try_from((page - 1).saturating_mul(per_page)).unwrap_or(usize::MAX),
        usize::try_from(per_page).unwrap_or(20),
    );
    let items: Vec<Value> = wanted
        .iter()
        .skip(start)
        .take(size)
        .map(|run| {
            let mut fields = item(world, run);
            if world.options.list_tells_state {
                fields.insert("state".into(), state(run, world.now).into());
            }
            Value::Object(fields)
        })
        .collect();
    Ok(Page::new(
        200,
        json!({
            "data": {"project": {"id": PROJECT_ID, "name": "Shop", "slug": "shop", "repo_name": "shop-tests"}, "test_runs": {"items": items}},
            "pagination": {"page": page, "per_page": per_page, "total": wanted.len(), "total_pages": wanted.len().div_ceil(size)},
        }),
    ))
}

fn details(world: &World, id: &str) -> Result<Page, Page> {
    let found = id.parse().ok().and_then(|id| world.find(id));
    let run = found.ok_or_else(|| Page::new(404, error("Test run not found")))?;
    let (now, attempt) = (world.now, &run.current);
    let finished = attempt.is_finished(now);
    let mut fields = item(world, run);
    fields.insert("state".into(), state(run, now).into());
    fields.insert(
        "test_run_head_sha".into(),
        json!((!run.nulls.commit).then_some(&run.commit)),
    );
    fields.insert(
        "run_started_at".into(),
        json!(attempt.started.filter(|at| *at <= now).map(iso)),
    );
    fields.insert("run_ended_at".into(), json!(finished.then(|| iso(attempt.finished))));
    fields.insert(
        "summary_url".into(),
        json!(finished.then(|| format!("https://reports.example.com/{}/summary.json", run.id))),
    );
    if let (true, End::Error(Some(code))) = (finished, attempt.end) {
        fields.insert("error_code".into(), code.into());
    }
    let results: &[CaseRun] = if finished { &attempt.results } else { &[] };
    let rows: Vec<Value> = results.iter().map(|result| detail(world, result)).collect();
    let body = json!({"data": {"test_run": {
        "project": {"id": PROJECT_ID, "name": "Shop", "repo_name": "shop-tests"},
        "testRun": fields,
        "flattenedSummaryDetails": rows,
    }}});
    Ok(Page {
        status: 200,
        body,
        served: vec![Served::Run(run.id)],
    })
}

fn detail(world: &World, result: &CaseRun) -> Value {
    let case = &world.cases[result.case];
    let status = match result.outcome {
        CaseOutcome::Passed => "passed",
        CaseOutcome::Failed | CaseOutcome::MissingOutput => "failed",
        CaseOutcome::Flaky => "flaky",
        CaseOutcome::Skipped => "skipped",
        CaseOutcome::Unknown => "timedOut",
    };
    let mut nesting = vec![case.file.clone()];
    nesting.extend(case.suites.iter().cloned());
    nesting.push(case.name.clone());
    json!({"pw_test_id": case.id, "status": status, "nesting": nesting, "test_project": case.project})
}

/// The results that the analytics know of, newest first, with the runs that they belong to.
fn known<'a>(
    world: &'a World,
    case: usize,
    since: Ms,
    until: Ms,
    environment: Option<&str>,
) -> Vec<(&'a Run, &'a CaseRun)> {
    let mut rows: Vec<(&'a Run, &'a CaseRun)> = world
        .runs
        .iter()
        .filter(|run| run.is_visible(world.now) && environment.is_none_or(|id| id == environment_id(run.environment)))
        .filter_map(|run| run.current.result(case).map(|result| (run, result)))
        .filter(|(_, result)| (since..=until).contains(&result.executed))
        .collect();
    rows.sort_by_key(|(run, result)| std::cmp::Reverse((result.executed, run.id)));
    rows
}

fn analytics_cases(world: &World, asked: &Asked) -> Result<Page, Page> {
    let days = number(asked, "days", 30, 1, 90)?;
    let limit = number(asked, "limit", 50, 1, 500)?;
    number(asked, "limit_history", 1, 1, 100)?;
    let since = world.now - days * DAY;
    let mut rows: Vec<(f64, Value)> = vec![];
    let mut with_history = 0;
    for (index, case) in world.cases.iter().enumerate() {
        let results = known(world, index, since, world.now, asked.param("environment_id"));
        let count = |outcome| results.iter().filter(|(_, result)| result.outcome == outcome).count();
        let (pass, fail, flaky) = (
            count(CaseOutcome::Passed),
            count(CaseOutcome::Failed),
            count(CaseOutcome::Flaky),
        );
        let total = pass + fail + flaky;
        let Some((_, newest)) = results.first() else { continue };
        with_history += 1;
        let percent = |part: usize| (part * 100 + total / 2).checked_div(total).unwrap_or(0);
        let order = match asked.param("order_by") {
            Some("flaky_rate") => percent(flaky) as i64,
            Some("last_run") => newest.executed,
            _ => percent(fail) as i64,
        };
        #[expect(clippy::cast_precision_loss, reason = "only an order")]
        rows.push((order as f64, json!({
            "test_case_id": case.id, "test_name": case.name, "file_path": case.file, "project_name": case.project, "tags": [],
            "last_run_at": iso(newest.executed),
            "metrics": {
                "total_runs": total, "pass_count": pass, "fail_count": fail, "flaky_count": flaky,
                "pass_rate": percent(pass), "fail_rate": percent(fail), "flaky_rate": percent(flaky),
            },
        })));
    }
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    let rows: Vec<Value> = rows
        .into_iter()
        .map(|(_, row)| row)
        .take(usize::try_from(limit).unwrap_or(50))
        .collect();
    Ok(Page::new(
        200,
        json!({"data": {
            "test_cases": rows,
            "summary": {"total_test_cases": world.cases.len(), "test_cases_with_history": with_history},
        }}),
    ))
}

fn registry(world: &World, asked: &Asked) -> Result<Page, Page> {
    let per_page = number(asked, "per_page", 20, 1, 100)?;
    let page = number(asked, "page", 1, 1, i64::MAX)?;
    let size = usize::try_from(per_page).unwrap_or(20);
    let start = usize::try_from((page - 1).saturating_mul(per_page)).unwrap_or(usize::MAX);
    let total = world.cases.len();
    let created = iso(world.options.start.as_millisecond() - 90 * DAY);
    let rows: Vec<Value> = world
        .cases
        .iter()
        .skip(start)
        .take(size)
        .map(|case| {
            json!({
                "id": case.id, "name": case.name, "file_path": case.file, "suites": case.suites, "playwright_project": case.project, "tags": [],
                "created_at": created, "updated_at": created, "first_seen_commit_sha": null, "last_seen_commit_sha": null,
            })
        })
        .collect();
    let more = start.saturating_add(rows.len()) < total && !rows.is_empty();
    Ok(Page::new(
        200,
        json!({
            "data": {"test_cases": rows, "sync_error": null},
            "pagination": {"page": page, "per_page": per_page, "total": total, "total_pages": total.div_ceil(size), "has_more": more},
        }),
    ))
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
        json!({"error": "Unknown field(s) in request body", "unknown_fields": unknown, "allowed_fields": allowed}),
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
    let (mut by_case, mut truncated, mut served) = (Map::new(), vec![], vec![]);
    for id in ids {
        let Some(index) = world.cases.iter().position(|case| case.id == id) else {
            continue;
        };
        let mut rows = known(world, index, since, until, environment);
        if rows.len() >= most {
            truncated.push(id);
        }
        rows.truncate(most);
        served.extend(rows.iter().map(|(run, _)| Served::Case(run.id, index)));
        by_case.insert(
            id.to_owned(),
            rows.iter().map(|(run, result)| entry(run, result)).collect(),
        );
    }
    let meta = json!({
        "project_id": PROJECT_ID.to_string(),
        "days": start.is_none().then_some(days),
        "start_date": start.map(iso),
        "end_date": end.map(iso),
        "environment_id": environment,
        "limit_per_test_case": limit,
        "truncated_test_case_ids": truncated,
    });
    Ok(Page {
        status: 200,
        body: json!({"data": {"history_by_test_case_id": by_case}, "meta": meta}),
        served,
    })
}

fn entry(run: &Run, result: &CaseRun) -> Value {
    let status = match result.outcome {
        CaseOutcome::Passed => "pass",
        CaseOutcome::Failed | CaseOutcome::MissingOutput => "fail",
        CaseOutcome::Flaky => "flaky",
        CaseOutcome::Skipped => "skip",
        CaseOutcome::Unknown => "timedOut",
    };
    json!({
        "timestamp": format!("{:.0}", Timestamp::from_millisecond(result.executed).unwrap_or_default()),
        "status": status,
        "test_run_id": run.id.to_string(),
        "environment_id": environment_id(run.environment),
        "executed_at": iso(result.executed),
        "duration_total": result.duration,
        "retries": result.retries,
    })
}

fn last_pass(world: &World, body: &[u8]) -> Result<Page, Page> {
    let fields = fields(body, LAST_PASS_FIELDS)?;
    let id = fields
        .get("test_case_id")
        .and_then(Value::as_str)
        .filter(|id| !id.is_empty());
    let id = id.ok_or_else(|| Page::new(400, error("test_case_id must be a non-empty string")))?;
    let days = field(&fields, "days", 30, 1, 36_500)?;
    let until = time(&fields, "before")?.unwrap_or(world.now);
    let found = world.cases.iter().position(|case| case.id == id);
    let rows = found
        .map(|index| known(world, index, until - days * DAY, until, None))
        .unwrap_or_default();
    let passes: Vec<Value> = (0..world.options.environments.len())
        .filter_map(|environment| {
            let (run, result) = rows.iter().find(|(run, result)| run.environment == environment && result.outcome == CaseOutcome::Passed)?;
            Some(json!({"environment_id": environment_id(environment), "test_run_id": run.id.to_string(), "executed_at": result.executed}))
        })
        .collect();
    Ok(Page::new(200, json!({"data": passes})))
}
