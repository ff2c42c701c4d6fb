//! The Sample Platform's API over a world: its routes, its strictness, its shapes. Reads the world, never changes it.

use std::ops::Range;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::case::{Case, extension, sample_name};
use super::dice::mix;
use super::platform::{Asked, Page, Route, Served};
use super::run::{CaseRun, End, Ms, Run};
use super::wire::{Count, Id, Iso, Style};
use super::world::World;
use crate::model::CaseOutcome;

const RUNS: &str = "/runs";
const RUN: &str = "/runs/{run_id}";
const SUMMARY: &str = "/runs/{run_id}/summary";
const RESULTS: &str = "/runs/{run_id}/samples";
const SAMPLES: &str = "/samples";
const HISTORY: &str = "/samples/{sample_id}/history";
const TESTS: &str = "/regression-tests";
/// Ids are checked against the database's integer.
const ID_MAX: u64 = 2_147_483_647;
const RUNS_PARAMS: &[&str] = &[
    "limit",
    "offset",
    "sort",
    "status",
    "platform",
    "branch",
    "commit_sha",
    "repository",
    "ccx_version",
    "created_after",
    "created_before",
];
const RESULTS_PARAMS: &[&str] = &["limit", "offset", "status", "name", "tag", "category"];
const SAMPLES_PARAMS: &[&str] = &["limit", "offset", "status", "name", "tag", "sha256", "extension"];
const HISTORY_PARAMS: &[&str] = &[
    "limit",
    "offset",
    "regression_test_id",
    "status",
    "branch",
    "platform",
    "created_after",
    "created_before",
];
const TESTS_PARAMS: &[&str] = &["limit", "offset", "active", "category", "tag", "sample_id"];

pub(super) fn route(path: &str) -> Option<Route<'_>> {
    let route = |template, params, id| {
        Some(Route {
            method: "GET",
            template,
            params,
            id,
        })
    };
    let parts: Vec<&str> = path.strip_prefix("/api/v1/")?.split('/').collect();
    match parts.as_slice() {
        ["runs"] => route(RUNS, RUNS_PARAMS, ""),
        ["runs", id] if !id.is_empty() => route(RUN, &[], id),
        ["runs", id, "summary"] => route(SUMMARY, &[], id),
        ["runs", id, "samples"] => route(RESULTS, RESULTS_PARAMS, id),
        ["samples"] => route(SAMPLES, SAMPLES_PARAMS, ""),
        ["samples", id, "history"] => route(HISTORY, HISTORY_PARAMS, id),
        ["regression-tests"] => route(TESTS, TESTS_PARAMS, ""),
        _ => None,
    }
}

pub(super) fn error(status: u16, message: &str) -> Value {
    let (code, details) = match status {
        400 => ("validation_error", json!({})),
        401 => ("unauthorized", json!({})),
        403 => {
            let needed = ["runs:read"];
            (
                "forbidden",
                json!({"required_scopes": needed, "missing_scopes": needed, "token_scopes": ["system:read"]}),
            )
        }
        404 => ("not_found", json!({})),
        405 => ("method_not_allowed", json!({})),
        _ => ("internal_error", json!({})),
    };
    json!({"code": code, "details": details, "message": message})
}

pub(super) fn answer(world: &World, route: &Route<'_>, asked: &Asked) -> Page {
    let answered = match route.template {
        RUNS => runs(world, asked),
        RUN => run(world, route.id),
        SUMMARY => summary(world, route.id),
        RESULTS => results(world, route.id, asked),
        SAMPLES => samples(world, asked),
        HISTORY => history(world, route.id, asked),
        _ => regression_tests(world, asked),
    };
    answered.unwrap_or_else(|refusal| refusal)
}

fn invalid(message: &str) -> Page {
    Page::new(400, &error(400, message))
}

fn not_found(what: &str, id: u64) -> Page {
    Page::new(404, &error(404, &format!("{what} {id} not found.")))
}

fn broken() -> Page {
    Page::new(500, &error(500, "An unexpected error occurred."))
}

/// A filter; an empty value is none.
fn filter<'a>(asked: &'a Asked, name: &str) -> Option<&'a str> {
    asked.param(name).filter(|value| !value.is_empty())
}

fn id(text: &str) -> Result<u64, Page> {
    text.parse()
        .ok()
        .filter(|id| (1..=ID_MAX).contains(id))
        .ok_or_else(|| invalid("id must be an integer between 1 and 2147483647."))
}

/// `limit` and `offset` within their documented ranges.
fn paging(asked: &Asked) -> Result<(usize, usize), Page> {
    let number = |name: &str, default: u64, low: u64, high: u64| {
        let Some(text) = asked.param(name) else {
            return Ok(default);
        };
        text.parse()
            .ok()
            .filter(|value| (low..=high).contains(value))
            .ok_or_else(|| {
                let said = format!("ust be between {low} and {high}.");
                let fields = json!({"fields": {name: format!("M{said}")}});
                Page::new(
                    400,
                    &json!({"code": "validation_error", "details": fields, "message": format!("{name} m{said}")}),
                )
            })
    };
    let (limit, offset) = (number("limit", 50, 1, 100)?, number("offset", 0, 0, ID_MAX)?);
    if asked.param("cursor").is_some() {
        return Err(invalid("cursor pagination is not supported."));
    }
    Ok((
        usize::try_from(limit).unwrap_or(50),
        usize::try_from(offset).unwrap_or(usize::MAX),
    ))
}

#[derive(Serialize)]
struct Rows<T> {
    data: Vec<T>,
    meta: Meta,
    pagination: Pagination,
}

/// Always empty.
#[derive(Serialize)]
struct Meta {}

#[derive(Serialize)]
struct Pagination {
    limit: Count,
    next_offset: Option<Count>,
    offset: Count,
    total: Count,
}

/// One page of rows.
fn page<T: Serialize>(world: &World, data: Vec<T>, total: usize, (limit, offset): (usize, usize)) -> Rows<T> {
    let (next, style) = (offset.saturating_add(limit), Style::of(&world.options));
    let pagination = Pagination {
        limit: style.size(limit),
        next_offset: (next < total).then(|| style.size(next)),
        offset: style.size(offset),
        total: style.size(total),
    };
    Rows {
        data,
        meta: Meta {},
        pagination,
    }
}

fn platform_filter(asked: &Asked) -> Result<Option<&str>, Page> {
    match filter(asked, "platform") {
        Some(name) if !matches!(name, "linux" | "windows") => Err(invalid("platform must be one of: linux, windows.")),
        name => Ok(name),
    }
}

/// An ISO 8601 time or date of the query.
fn time_filter(asked: &Asked, name: &str) -> Result<Option<Ms>, Page> {
    let Some(text) = filter(asked, name) else {
        return Ok(None);
    };
    let dated = if text.len() == 10 {
        format!("{text}T00:00:00Z")
    } else {
        text.to_owned()
    };
    let parsed = dated
        .parse::<Timestamp>()
        .map_err(|_| invalid(&format!("{name} must be an ISO 8601 datetime.")))?;
    Ok(Some(parsed.as_millisecond()))
}

fn window(asked: &Asked) -> Result<(Option<Ms>, Option<Ms>), Page> {
    let (after, before) = (
        time_filter(asked, "created_after")?,
        time_filter(asked, "created_before")?,
    );
    if after.zip(before).is_some_and(|(after, before)| after > before) {
        return Err(invalid("created_after must not be later than created_before."));
    }
    Ok((after, before))
}

fn is_within(at: Ms, (after, before): (Option<Ms>, Option<Ms>)) -> bool {
    after.is_none_or(|after| at >= after) && before.is_none_or(|before| at <= before)
}

/// What the run is doing or how it ended, in the platform's words.
pub(super) fn state(run: &Run, now: Ms) -> &'static str {
    let attempt = &run.current;
    if !attempt.is_finished(now) {
        return if run.is_paused(now) {
            "paused"
        } else if attempt.prepared.is_some_and(|at| at <= now) {
            "running"
        } else {
            "queued"
        };
    }
    match attempt.end {
        End::Cancelled => "canceled",
        _ if attempt.results.is_empty() => "error",
        _ if attempt.results.all_passed() => "pass",
        _ => "fail",
    }
}

/// The first progress row: the preparation, or the cancellation of a run that never got so far.
pub(super) fn first_progress(run: &Run, now: Ms) -> Option<Ms> {
    let attempt = &run.current;
    attempt
        .prepared
        .filter(|at| *at <= now)
        .or_else(|| attempt.is_finished(now).then_some(attempt.finished))
}

/// The results that are there by now.
fn done<'a>(world: &World, run: &'a Run) -> impl Iterator<Item = &'a CaseRun> {
    let now = world.now;
    run.current.results.iter().filter(move |result| result.executed <= now)
}

fn pull_request(run: &Run) -> Option<usize> {
    (run.branch.as_deref() == Some("pull_request")).then(|| 1200 + run.index / 3)
}

#[derive(Serialize)]
struct RunObject<'a> {
    branch: &'a str,
    commit_sha: &'a str,
    completed_at: Option<Iso>,
    created_at: Option<Iso>,
    github_link: String,
    platform: &'a str,
    pr_number: Option<Count>,
    queued_at: Option<Iso>,
    repository: &'static str,
    run_id: Id,
    started_at: Option<Iso>,
    status: &'static str,
    test_type: &'static str,
}

const REPOSITORY: &str = "CCExtractor/ccextractor";

fn run_object<'a>(world: &'a World, run: &'a Run) -> RunObject<'a> {
    let (now, style) = (world.now, Style::of(&world.options));
    let first = first_progress(run, now).map(Iso::seconds);
    let pr = pull_request(run);
    RunObject {
        branch: run.branch.as_deref().unwrap_or_default(),
        commit_sha: &run.commit,
        completed_at: run
            .current
            .is_finished(now)
            .then_some(Iso::seconds(run.current.finished)),
        created_at: first,
        github_link: pr.map_or_else(
            || format!("https://github.com/{REPOSITORY}/commit/{}", run.commit),
            |number| format!("https://github.com/{REPOSITORY}/pull/{number}"),
        ),
        platform: &world.options.environments[run.environment],
        pr_number: pr.map(|number| style.size(number)),
        queued_at: first,
        repository: REPOSITORY,
        run_id: style.id(run.id),
        started_at: run.current.started.filter(|at| *at <= now).map(Iso::seconds),
        status: state(run, now),
        test_type: if pr.is_some() { "pr" } else { "commit" },
    }
}

/// What a reader knows of a run who has been shown it; of interest only where it will be rewritten.
fn served_run(run: &Run) -> Option<Served> {
    run.will_be_rewritten().then_some(Served::Run(run.id))
}

fn served_case(run: &Run, result: &CaseRun) -> Option<Served> {
    run.will_be_rewritten().then_some(Served::Case(run.id, result.case))
}

fn runs(world: &World, asked: &Asked) -> Result<Page, Page> {
    let paging = paging(asked)?;
    let status = filter(asked, "status");
    if let Some(other) = status.filter(|status| !matches!(*status, "queued" | "running" | "canceled")) {
        return Err(invalid(&format!(
            "Filtering by status \"{other}\" is not supported. Supported: queued, running, canceled."
        )));
    }
    let ascending = match filter(asked, "sort").unwrap_or("-created_at") {
        "-created_at" | "-run_id" => false,
        "created_at" | "run_id" => true,
        _ => {
            return Err(invalid(
                "sort must be one of: created_at, -created_at, run_id, -run_id.",
            ));
        }
    };
    let platform = platform_filter(asked)?;
    let window = window(asked)?;
    let (branch, commit) = (filter(asked, "branch"), filter(asked, "commit_sha"));
    let is_wanted = |run: &&Run| {
        status.is_none_or(|status| state(run, world.now) == status)
            && platform.is_none_or(|name| world.options.environments[run.environment] == name)
            && branch.is_none_or(|name| run.branch.as_deref() == Some(name))
            && commit.is_none_or(|sha| run.commit == sha)
            // Runs without any progress are in every window.
            && first_progress(run, world.now).is_none_or(|at| is_within(at, window))
    };
    let mut wanted: Vec<&Run> = world.runs.iter().filter(is_wanted).collect();
    if !ascending {
        wanted.reverse();
    }
    let shown: Vec<&Run> = wanted.iter().skip(paging.1).take(paging.0).copied().collect();
    if shown.iter().any(|run| run.poisoned) {
        return Err(broken());
    }
    let data = shown.iter().map(|run| run_object(world, run)).collect();
    let served = shown.iter().filter_map(|run| served_run(run)).collect();
    Ok(Page::found(&page(world, data, wanted.len(), paging), served))
}

fn find<'a>(world: &'a World, text: &str) -> Result<&'a Run, Page> {
    let id = id(text)?;
    world.find(id).ok_or_else(|| not_found("Run", id))
}

fn run(world: &World, text: &str) -> Result<Page, Page> {
    let run = find(world, text)?;
    if run.poisoned {
        return Err(broken());
    }
    Ok(Page::found(
        &run_object(world, run),
        served_run(run).into_iter().collect(),
    ))
}

/// How many tests the run was created for.
pub(super) fn planned(world: &World, run: &Run) -> usize {
    run.custom.as_ref().map_or(world.cases.len(), Vec::len)
}

#[derive(Serialize)]
struct Summary {
    duration_ms: Option<Count>,
    error_count: Count,
    fail_count: Count,
    missing_output_count: Count,
    pass_count: Count,
    run_id: Id,
    skipped_count: Count,
    status: &'static str,
    total_samples: Count,
}

fn summary(world: &World, text: &str) -> Result<Page, Page> {
    let run = find(world, text)?;
    if run.poisoned {
        return Err(broken());
    }
    let (mut counts, mut runtime) = ([0_usize; CaseOutcome::COUNT], 0);
    for result in done(world, run) {
        counts[result.outcome.index()] += 1;
        runtime += result.duration.map_or(0, i64::from);
    }
    let (failed, missing) = (
        counts[CaseOutcome::Failed.index()],
        counts[CaseOutcome::MissingOutput.index()],
    );
    let (total, style) = (planned(world, run), Style::of(&world.options));
    let body = Summary {
        duration_ms: (runtime > 0).then_some(style.count(runtime)),
        // Error items, not tests: a missing output also has a wrong exit code here.
        error_count: style.size(failed + 2 * missing),
        fail_count: style.size(failed),
        missing_output_count: style.size(missing),
        pass_count: style.size(counts[CaseOutcome::Passed.index()]),
        run_id: style.id(run.id),
        skipped_count: style.size(total - counts.iter().sum::<usize>()),
        status: state(run, world.now),
        total_samples: style.size(total),
    };
    Ok(Page::found(&body, vec![]))
}

fn word(outcome: CaseOutcome) -> &'static str {
    match outcome {
        CaseOutcome::Passed | CaseOutcome::Flaky => "pass",
        CaseOutcome::Failed => "fail",
        CaseOutcome::MissingOutput => "missing_output",
        CaseOutcome::Skipped => "skipped",
        CaseOutcome::Unknown => "crashed",
    }
}

/// The first output of a test; output ids are unique over all tests.
fn output_id(case: usize) -> usize {
    case + 1
}

fn signature(result: &CaseRun) -> Option<String> {
    match result.outcome {
        CaseOutcome::Failed if result.differs => Some(format!("diff_mismatch:output:{}", output_id(result.case))),
        CaseOutcome::Failed => Some(format!("exit_code_mismatch:rc:{}", result.exit_code)),
        CaseOutcome::MissingOutput => Some("missing_output".to_owned()),
        _ => None,
    }
}

fn status_filter(asked: &Asked) -> Result<Option<&str>, Page> {
    match filter(asked, "status") {
        Some(other) if !matches!(other, "pass" | "fail" | "missing_output" | "not_started") => {
            Err(invalid(&format!("Filtering by status \"{other}\" is not supported.")))
        }
        status => Ok(status),
    }
}

fn results(world: &World, text: &str, asked: &Asked) -> Result<Page, Page> {
    let run = find(world, text)?;
    let paging = paging(asked)?;
    let status = status_filter(asked)?;
    let wanted: Vec<&CaseRun> = done(world, run)
        .filter(|result| status.is_none_or(|status| word(result.outcome) == status))
        .collect();
    let shown = || wanted.iter().skip(paging.1).take(paging.0);
    let data = shown().map(|result| result_object(world, result)).collect();
    let served = shown().filter_map(|result| served_case(run, result)).collect();
    Ok(Page::found(&page(world, data, wanted.len(), paging), served))
}

#[derive(Serialize)]
struct ResultObject<'a> {
    categories: &'a [String],
    command: &'a str,
    exit_code: i32,
    expected_rc: i32,
    outputs: Vec<Output>,
    regression_test_id: Id,
    runtime_ms: Option<Count>,
    sample_id: Id,
    sample_name: &'a str,
    status: &'static str,
}

#[derive(Serialize)]
struct Output {
    filename: String,
    output_id: Id,
    status: &'static str,
}

fn result_object<'a>(world: &'a World, result: &CaseRun) -> ResultObject<'a> {
    let (case, style) = (&world.cases[result.case], Style::of(&world.options));
    let outputs = if result.outcome == CaseOutcome::MissingOutput {
        vec![]
    } else {
        vec![Output {
            filename: format!("{}.srt", sha(result.case as u64 + 1_000_000)),
            output_id: style.place(output_id(result.case)),
            status: if result.differs { "fail" } else { "pass" },
        }]
    };
    ResultObject {
        categories: &case.suites,
        command: &case.name,
        exit_code: result.exit_code,
        expected_rc: 0,
        outputs,
        regression_test_id: style.place(result.case + 1),
        runtime_ms: result.duration.map(|ms| style.count(ms.into())),
        sample_id: style.id(case.sample),
        sample_name: &case.file,
        status: word(result.outcome),
    }
}

fn sha(number: u64) -> String {
    let (a, b) = (mix(number), mix(mix(number)));
    format!("{a:016x}{b:016x}{:016x}{:016x}", mix(a ^ 1), mix(b ^ 1))
}

fn sample_count(world: &World) -> u64 {
    world.cases.last().map_or(0, |case| case.sample)
}

fn samples(world: &World, asked: &Asked) -> Result<Page, Page> {
    let paging = paging(asked)?;
    // One sample without any test is always there.
    let all: Vec<u64> = (1..=sample_count(world) + 1)
        .filter(|_| filter(asked, "status") != Some("inactive"))
        .collect();
    let shown = all.iter().skip(paging.1).take(paging.0);
    let data = shown.map(|sample| sample_object(world, *sample)).collect();
    Ok(Page::found(&page(world, data, all.len(), paging), vec![]))
}

#[derive(Serialize)]
struct SampleObject {
    active: bool,
    extension: &'static str,
    filename: String,
    original_name: String,
    regression_test_count: Count,
    sample_id: Id,
    sha: String,
    tags: &'static [&'static str],
}

fn sample_object(world: &World, sample: u64) -> SampleObject {
    let (sha, extension, style) = (sha(sample), extension(sample), Style::of(&world.options));
    SampleObject {
        active: true,
        extension,
        filename: format!("{sha}.{extension}"),
        original_name: sample_name(sample),
        regression_test_count: style.size(tests_of(world, sample).len()),
        sample_id: style.id(sample),
        sha,
        tags: if sample.is_multiple_of(3) {
            &["dvb", "large"]
        } else {
            &[]
        },
    }
}

/// The indices of a sample's tests: samples ascend with their tests.
fn tests_of(world: &World, sample: u64) -> Range<usize> {
    let first = world.cases.partition_point(|case| case.sample < sample);
    first..world.cases.partition_point(|case| case.sample <= sample)
}

/// The indices of the tests that a history is asked for.
fn history_cases(world: &World, sample: u64, asked: &Asked) -> Result<Range<usize>, Page> {
    let own = tests_of(world, sample);
    let Some(text) = asked.param("regression_test_id") else {
        return Ok(own);
    };
    let index = text
        .parse::<usize>()
        .ok()
        .and_then(|id| id.checked_sub(1))
        .filter(|index| own.contains(index));
    let index = index.ok_or_else(|| invalid("regression_test_id must belong to the sample."))?;
    Ok(index..index + 1)
}

fn history(world: &World, text: &str, asked: &Asked) -> Result<Page, Page> {
    let sample = id(text)?;
    if sample > sample_count(world) + 1 {
        return Err(not_found("Sample", sample));
    }
    let paging = paging(asked)?;
    let (status, platform, window) = (status_filter(asked)?, platform_filter(asked)?, window(asked)?);
    let cases = history_cases(world, sample, asked)?;
    let dated = window != (None, None);
    let branch = filter(asked, "branch");
    let is_wanted = |run: &Run| {
        platform.is_none_or(|name| world.options.environments[run.environment] == name)
            && branch.is_none_or(|name| run.branch.as_deref() == Some(name))
            && (!dated || first_progress(run, world.now).is_some_and(|at| is_within(at, window)))
    };
    let mut rows: Vec<(&Run, &CaseRun)> = vec![];
    for case in cases {
        let done = world.results(case).filter(|(run, result)| {
            result.executed <= world.now && status.is_none_or(|status| word(result.outcome) == status) && is_wanted(run)
        });
        rows.extend(done.flat_map(|(run, result)| std::iter::repeat_n((run, result), world.copies(run, result))));
    }
    // Newest run first; within a run, the tests stay in their order.
    rows.sort_by_key(|(run, _)| std::cmp::Reverse(run.id));
    let shown = || rows.iter().skip(paging.1).take(paging.0);
    if shown().any(|(run, _)| run.poisoned) {
        return Err(broken());
    }
    let data = shown().map(|(run, result)| entry(world, run, result)).collect();
    let served = shown().filter_map(|(run, result)| served_case(run, result)).collect();
    Ok(Page::found(&page(world, data, rows.len(), paging), served))
}

#[derive(Serialize)]
struct Entry<'a> {
    branch: &'a str,
    commit_sha: &'a str,
    failure_signature: Option<String>,
    platform: &'a str,
    regression_test_id: Id,
    run_id: Id,
    status: &'static str,
    tested_at: Option<Iso>,
}

fn entry<'a>(world: &'a World, run: &'a Run, result: &CaseRun) -> Entry<'a> {
    let tested = if run.current.is_finished(world.now) {
        Some(run.current.finished)
    } else {
        run.current.started
    };
    let style = Style::of(&world.options);
    Entry {
        branch: run.branch.as_deref().unwrap_or_default(),
        commit_sha: &run.commit,
        failure_signature: signature(result),
        platform: &world.options.environments[run.environment],
        regression_test_id: style.place(result.case + 1),
        run_id: style.id(run.id),
        status: word(result.outcome),
        tested_at: tested.map(Iso::seconds),
    }
}

#[derive(Serialize)]
struct Test<'a> {
    active: bool,
    categories: &'a [String],
    command: &'a str,
    description: Option<String>,
    expected_rc: i32,
    input_type: &'static str,
    output_type: &'static str,
    regression_test_id: Id,
    sample_id: Id,
    sample_name: &'a str,
}

fn regression_tests(world: &World, asked: &Asked) -> Result<Page, Page> {
    let paging = paging(asked)?;
    let active = match asked.param("active").unwrap_or("true") {
        "true" | "1" | "yes" => true,
        "false" | "0" | "no" => false,
        _ => return Err(invalid("active must be a boolean.")),
    };
    let sample = filter(asked, "sample_id").map(id).transpose()?;
    let is_wanted = |case: &Case| {
        active
            && sample.is_none_or(|sample| case.sample == sample)
            && filter(asked, "category").is_none_or(|name| case.suites.iter().any(|suite| suite == name))
    };
    let wanted: Vec<(usize, &Case)> = world
        .cases
        .iter()
        .enumerate()
        .filter(|(_, case)| is_wanted(case))
        .collect();
    let style = Style::of(&world.options);
    let shown = wanted.iter().skip(paging.1).take(paging.0);
    let data = shown
        .map(|(index, case)| Test {
            active: true,
            categories: &case.suites,
            command: &case.name,
            description: (index % 5 != 4).then(|| format!("regression test {}", index + 1)),
            expected_rc: 0,
            input_type: "file",
            output_type: "file",
            regression_test_id: style.place(index + 1),
            sample_id: style.id(case.sample),
            sample_name: &case.file,
        })
        .collect();
    Ok(Page::found(&page(world, data, wanted.len(), paging), vec![]))
}
