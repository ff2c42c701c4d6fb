use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Read as _;
use std::sync::Arc;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::metrics::catalog::{FAMILIES, Half};
use crate::model::{ActiveState, CaseInfo, ErrorCode, Run};
use crate::store::{Counts, ErrorCounts, Histogram, LastResult, Promotion};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_795_300_000 + second).unwrap()
}

fn group(environment: &str, branch: &str) -> Group {
    Group {
        environment: environment.into(),
        branch: branch.into(),
    }
}

fn group_row(group: Group, last: Option<Run>) -> GroupRow {
    let mut duration = Histogram::new(&[60.0, 600.0]);
    duration.observe(59.5);
    duration.observe(3600.0);
    GroupRow {
        group,
        runs: [2, 1, 0, 0, 0],
        cases: [20, 1, 2, 3, 0, 0],
        duration,
        queue: Histogram::new(&[1.5]),
        counted: Default::default(),
        created: None,
        last,
        failed_after_snooze: None,
    }
}

fn run(group: Group) -> Run {
    Run {
        id: 7,
        group,
        outcome: RunOutcome::Failed,
        error_code: None,
        created: Some(at(0)),
        started: Some(at(10)),
        ended: Some(at(70)),
        duration_seconds: Some(60.0),
        counts: [Some(10), Some(1), Some(0), None, None, None],
        commit: Some("69fdd62".into()),
        build_url: None,
    }
}

/// Something of everything.
fn health() -> Health {
    Health {
        verdict: Verdict::Flaky,
        newest: Some(at(5)),
        flips: 4,
        contradictory_commits: 2,
        streak_commits: 3,
        streak_signatures: 1,
        window_size: 50,
        window: [20, 5, 1, 0, 0, 0],
        window_retries: 3,
        flake_probability: Some(0.125),
        regression_probability: Some(0.75),
    }
}

fn case_row(group: Group, case: &str, last: Option<LastResult>) -> CaseRow {
    CaseRow {
        group,
        case: case.into(),
        counts: Counts {
            results: [5, 1, 1, 0, 0, 0],
            retries: 2,
            duration_sum: 12.25,
            duration_count: 7,
        },
        came_back_at: None,
        last,
        last_pass: Some(at(-86_400)),
        consecutive_failures: 1,
        snoozed: false,
        failing_since: None,
        health: None,
        counted: Default::default(),
        created: None,
    }
}

fn source(name: &str, groups: Vec<GroupRow>, cases: Vec<CaseRow>) -> SourceSnapshot {
    SourceSnapshot {
        source: name.into(),
        project: None,
        groups,
        run_errors: BTreeMap::new(),
        error_codes: &[ErrorCode::Unknown],
        active_states: &[ActiveState::Queued, ActiveState::Started],
        runs_active: BTreeMap::new(),
        cases,
        case_infos: Vec::new(),
        case_outcomes: BTreeMap::new(),
        snoozes: BTreeMap::new(),
        promotion: Promotion::default(),
        cases_folded: 0,
        as_of: at(100),
    }
}

fn rendered(sources: Vec<SourceSnapshot>) -> Rendered {
    render(&Snapshot {
        generation: 3,
        sources: sources.into_iter().map(Arc::new).collect(),
    })
}

fn text(sources: Vec<SourceSnapshot>) -> String {
    String::from_utf8(rendered(sources).text.to_text()).unwrap()
}

fn by(run: u64, url: Option<&str>) -> Option<Arc<CountedRun>> {
    Some(Arc::new(CountedRun {
        run,
        url: url.map(Into::into),
        at: Some(at(70)),
    }))
}

fn open_metrics(sources: Vec<SourceSnapshot>) -> String {
    let mut text = String::from_utf8(rendered(sources).open_metrics.to_text()).unwrap();
    text.push_str(Format::OpenMetrics.end());
    text
}

/// The samples alone: HELP and TYPE are the catalog's tests' business.
fn samples(text: &str) -> String {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .fold(String::new(), |mut all, line| {
            let _ = writeln!(all, "{line}");
            all
        })
}

#[test]
fn an_empty_snapshot_is_an_empty_text() {
    let rendered = rendered(Vec::new());
    assert!(rendered.text.to_text().is_empty() && rendered.series.is_empty());
    assert_eq!(rendered.generation, 3);
}

#[test]
fn runs_are_shown_with_every_member_of_each_closed_set() {
    let mut shop = source(
        "shop",
        vec![group_row(group("staging", "main"), Some(run(group("staging", "main"))))],
        Vec::new(),
    );
    shop.runs_active.insert("production".into(), [0, 4, 1, 0]);
    insta::assert_snapshot!(samples(&text(vec![shop])), @r#"
    testrun_runs_total{source="shop",environment="staging",branch="main",outcome="passed"} 2
    testrun_runs_total{source="shop",environment="staging",branch="main",outcome="failed"} 1
    testrun_runs_total{source="shop",environment="staging",branch="main",outcome="error"} 0
    testrun_runs_total{source="shop",environment="staging",branch="main",outcome="cancelled"} 0
    testrun_runs_total{source="shop",environment="staging",branch="main",outcome="unknown"} 0
    testrun_runs_active{source="shop",environment="production",state="queued"} 4
    testrun_runs_active{source="shop",environment="production",state="started"} 1
    testrun_runs_active{source="shop",environment="staging",state="queued"} 0
    testrun_runs_active{source="shop",environment="staging",state="started"} 0
    testrun_run_errors_total{source="shop",environment="production",error_code="unknown"} 0
    testrun_run_errors_total{source="shop",environment="staging",error_code="unknown"} 0
    testrun_run_duration_seconds_bucket{source="shop",environment="staging",branch="main",le="60"} 1
    testrun_run_duration_seconds_bucket{source="shop",environment="staging",branch="main",le="600"} 1
    testrun_run_duration_seconds_bucket{source="shop",environment="staging",branch="main",le="+Inf"} 2
    testrun_run_duration_seconds_sum{source="shop",environment="staging",branch="main"} 3659.5
    testrun_run_duration_seconds_count{source="shop",environment="staging",branch="main"} 2
    testrun_run_queue_duration_seconds_bucket{source="shop",environment="staging",branch="main",le="1.5"} 0
    testrun_run_queue_duration_seconds_bucket{source="shop",environment="staging",branch="main",le="+Inf"} 0
    testrun_run_queue_duration_seconds_sum{source="shop",environment="staging",branch="main"} 0
    testrun_run_queue_duration_seconds_count{source="shop",environment="staging",branch="main"} 0
    testrun_run_cases_total{source="shop",environment="staging",branch="main",outcome="passed"} 20
    testrun_run_cases_total{source="shop",environment="staging",branch="main",outcome="failed"} 1
    testrun_run_cases_total{source="shop",environment="staging",branch="main",outcome="flaky"} 2
    testrun_run_cases_total{source="shop",environment="staging",branch="main",outcome="skipped"} 3
    testrun_run_cases_total{source="shop",environment="staging",branch="main",outcome="missing_output"} 0
    testrun_run_cases_total{source="shop",environment="staging",branch="main",outcome="unknown"} 0
    testrun_last_run_outcome{source="shop",environment="staging",branch="main",outcome="passed"} 0
    testrun_last_run_outcome{source="shop",environment="staging",branch="main",outcome="failed"} 1
    testrun_last_run_outcome{source="shop",environment="staging",branch="main",outcome="error"} 0
    testrun_last_run_outcome{source="shop",environment="staging",branch="main",outcome="cancelled"} 0
    testrun_last_run_outcome{source="shop",environment="staging",branch="main",outcome="unknown"} 0
    testrun_last_run_timestamp_seconds{source="shop",environment="staging",branch="main"} 1795300070
    testrun_last_run_duration_seconds{source="shop",environment="staging",branch="main"} 60
    testrun_last_run_cases{source="shop",environment="staging",branch="main",outcome="passed"} 10
    testrun_last_run_cases{source="shop",environment="staging",branch="main",outcome="failed"} 1
    testrun_last_run_cases{source="shop",environment="staging",branch="main",outcome="flaky"} 0
    testrun_last_run_info{source="shop",environment="staging",branch="main",run_id="7",commit="69fdd62"} 1
    testrun_exporter_series_folded{source="shop"} 0
    testrun_exporter_series{family="testrun_last_run_cases"} 3
    testrun_exporter_series{family="testrun_last_run_duration_seconds"} 1
    testrun_exporter_series{family="testrun_last_run_info"} 1
    testrun_exporter_series{family="testrun_last_run_outcome"} 5
    testrun_exporter_series{family="testrun_last_run_timestamp_seconds"} 1
    testrun_exporter_series{family="testrun_run_cases_total"} 6
    testrun_exporter_series{family="testrun_run_duration_seconds"} 5
    testrun_exporter_series{family="testrun_run_errors_total"} 2
    testrun_exporter_series{family="testrun_run_queue_duration_seconds"} 4
    testrun_exporter_series{family="testrun_runs_active"} 4
    testrun_exporter_series{family="testrun_runs_total"} 5
    "#);
}

#[test]
fn cases_are_shown_with_their_current_outcome_alone() {
    let last = LastResult {
        outcome: CaseOutcome::Flaky,
        at: Some(at(5)),
        duration_seconds: Some(0.25),
    };
    let mut linux = source("cc", Vec::new(), vec![case_row(group("linux", ""), "12", Some(last))]);
    let mut counts = [[0; Verdict::COUNT]; CaseOutcome::COUNT];
    counts[CaseOutcome::Flaky.index()][Verdict::Flaky.index()] = 1;
    linux.case_outcomes.insert("linux".into(), counts);
    linux.cases[0].health = Some(Arc::new(health()));
    linux.cases_folded = 9;
    linux.case_infos = vec![CaseInfo {
        tags: None,
        case: "12".into(),
        name: "--out=srt".into(),
        suite: "".into(),
        file: "a \"b\".mpg".into(),
    }];
    let shown = samples(&text(vec![linux]));
    let shown: String = shown
        .split_inclusive('\n')
        .filter(|line| !(line.contains("family=") || line.contains("testrun_cases") && line.ends_with(" 0\n")))
        .collect();
    insta::assert_snapshot!(shown, @r#"
    testrun_cases{source="cc",environment="linux",outcome="flaky",verdict="flaky"} 1
    testrun_case_info{source="cc",case="12",name="--out=srt",file="a \"b\".mpg"} 1
    testrun_case_results_total{source="cc",environment="linux",case="12",outcome="passed"} 5
    testrun_case_results_total{source="cc",environment="linux",case="12",outcome="failed"} 1
    testrun_case_results_total{source="cc",environment="linux",case="12",outcome="flaky"} 1
    testrun_case_results_total{source="cc",environment="linux",case="12",outcome="skipped"} 0
    testrun_case_results_total{source="cc",environment="linux",case="12",outcome="missing_output"} 0
    testrun_case_results_total{source="cc",environment="linux",case="12",outcome="unknown"} 0
    testrun_case_retries_total{source="cc",environment="linux",case="12"} 2
    testrun_case_duration_seconds_sum{source="cc",environment="linux",case="12"} 12.25
    testrun_case_duration_seconds_count{source="cc",environment="linux",case="12"} 7
    testrun_case_last_outcome{source="cc",environment="linux",case="12",outcome="flaky"} 1
    testrun_case_last_run_timestamp_seconds{source="cc",environment="linux",case="12"} 1795300005
    testrun_case_last_pass_timestamp_seconds{source="cc",environment="linux",case="12"} 1795213600
    testrun_case_last_duration_seconds{source="cc",environment="linux",case="12"} 0.25
    testrun_case_consecutive_failures{source="cc",environment="linux",case="12"} 1
    testrun_case_verdict{source="cc",environment="linux",case="12",verdict="flaky"} 1
    testrun_case_flake_probability{source="cc",environment="linux",case="12"} 0.125
    testrun_case_regression_probability{source="cc",environment="linux",case="12"} 0.75
    testrun_case_streak_commits{source="cc",environment="linux",case="12"} 3
    testrun_case_streak_signatures{source="cc",environment="linux",case="12"} 1
    testrun_case_window_results{source="cc",environment="linux",case="12",outcome="passed",window="50"} 20
    testrun_case_window_results{source="cc",environment="linux",case="12",outcome="failed",window="50"} 5
    testrun_case_window_results{source="cc",environment="linux",case="12",outcome="flaky",window="50"} 1
    testrun_case_window_retries{source="cc",environment="linux",case="12"} 3
    testrun_case_flips{source="cc",environment="linux",case="12"} 4
    testrun_case_contradictory_commits{source="cc",environment="linux",case="12"} 2
    testrun_exporter_series_folded{source="cc"} 9
    "#);
}

#[test]
fn what_is_not_known_is_absent() {
    let mut unknown = run(group("", ""));
    (unknown.ended, unknown.duration_seconds, unknown.counts) = (None, None, [None; CaseOutcome::COUNT]);
    let mut case = case_row(group("", ""), "c", None);
    case.last_pass = None;
    let shown = text(vec![source(
        "s",
        vec![group_row(group("", ""), Some(unknown))],
        vec![case],
    )]);
    for absent in [
        "last_run_timestamp",
        "last_run_duration",
        "last_run_cases",
        "case_last",
        "consecutive",
        "testrun_cases",
    ] {
        assert!(!shown.contains(absent), "{absent} in {shown}");
    }
    assert!(
        shown.contains("testrun_runs_total{source=\"s\",outcome=\"passed\"} 2\n"),
        "{shown}"
    );
}

#[test]
fn two_sources_share_one_head_and_stand_in_order() {
    let one = |name: &str| {
        source(
            name,
            vec![group_row(group("e", "b"), None), group_row(group("a", "b"), None)],
            Vec::new(),
        )
    };
    let text = text(vec![one("z"), one("a")]);
    assert_eq!(text.matches("# TYPE testrun_runs_total counter\n").count(), 1);
    parse(&text, true);
}

#[test]
fn a_full_snapshot_shows_every_family_of_this_half_in_the_catalogs_order() {
    let last = LastResult {
        outcome: CaseOutcome::Passed,
        at: Some(at(5)),
        duration_seconds: Some(0.25),
    };
    let here = || group("e", "b");
    let mut full = source(
        "s",
        vec![group_row(here(), Some(run(here())))],
        vec![case_row(here(), "c", Some(last))],
    );
    full.groups[0].failed_after_snooze = Some(0);
    full.cases[0].snoozed = true;
    let snoozes = SnoozeRow {
        active: 1,
        cases: Some(1),
        next_expiry: Some(at(200)),
    };
    full.snoozes.insert("e".into(), snoozes);
    full.case_outcomes
        .insert("e".into(), [[1; Verdict::COUNT]; CaseOutcome::COUNT]);
    full.cases[0].health = Some(Arc::new(health()));
    full.cases[0].failing_since = Some(at(1));
    full.case_infos = vec![CaseInfo {
        case: "c".into(),
        name: "n".into(),
        suite: "s".into(),
        file: "f".into(),
        tags: Some("slow,smoke".into()),
    }];
    let text = text(vec![full]);
    let shown: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' '))
        .map(|(name, _)| name)
        .collect();
    let expected: Vec<_> = FAMILIES
        .iter()
        .filter(|family| family.half == Half::Snapshot)
        .map(|family| family.name)
        .collect();
    assert_eq!(shown, expected);
    assert_eq!(parse(&text, true).len(), expected.len());
}

/// The series of each family, and their values.
type Parsed = BTreeMap<String, Vec<(BTreeMap<String, String>, f64)>>;

/// What a strict reader of the format 0.0.4 finds: families, each with its series and their values. Values that had to be
/// changed to be shown stand where the unchanged ones would, so `sorted` is asked only of harmless ones.
fn parse(text: &str, sorted: bool) -> Parsed {
    let mut families: BTreeMap<String, Vec<_>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut current = String::new();
    let mut order = Vec::new();
    let mut lines = text.split_inclusive('\n').peekable();
    while let Some(line) = lines.next() {
        let line = line.strip_suffix('\n').expect("the last line ends with a line feed");
        assert!(!line.is_empty(), "a blank line");
        assert!(!line.chars().any(char::is_control), "a control character in {line:?}");
        if let Some(help) = line.strip_prefix("# HELP ") {
            current = help.split(' ').next().unwrap().to_owned();
            assert!(!families.contains_key(&current), "{current} twice");
            let kind = lines.next().unwrap();
            let words: Vec<_> = kind.trim_end().split(' ').collect();
            assert_eq!(words[..3], ["#", "TYPE", &current], "HELP is followed by its TYPE");
            assert!(
                lines.peek().is_some_and(|line| !line.starts_with('#')),
                "{current} has no sample"
            );
            families.insert(current.clone(), Vec::new());
            order.clear();
            continue;
        }
        let (name, labels, value) = parse_sample(line);
        let family = ["", "_bucket", "_sum", "_count"]
            .iter()
            .any(|suffix| name == format!("{current}{suffix}"));
        assert!(family, "{name} below the head of {current}");
        assert!(seen.insert((name, labels.clone())), "twice: {line}");
        let key =
            ["source", "environment", "branch", "case"].map(|label| labels.get(label).cloned().unwrap_or_default());
        order.push(key);
        assert!(!sorted || order.is_sorted(), "out of order: {line}");
        families.get_mut(&current).unwrap().push((labels, value));
    }
    families
}

fn parse_sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let end = line.find(['{', ' ']).unwrap();
    let name = line[..end].to_owned();
    let mut labels = BTreeMap::new();
    let mut rest = &line[end..];
    if let Some(mut inside) = rest.strip_prefix('{') {
        loop {
            let (label, after) = inside.split_once("=\"").unwrap();
            let mut value = String::new();
            let mut chars = after.char_indices();
            let close = loop {
                match chars.next().expect("an open quote") {
                    (_, '\\') => value.push(match chars.next().unwrap().1 {
                        'n' => '\n',
                        kept @ ('\\' | '"') => kept,
                        other => panic!("an unknown escape \\{other} in {line}"),
                    }),
                    (close, '"') => break close,
                    (_, other) => value.push(other),
                }
            };
            assert!(!value.is_empty(), "an empty label in {line}");
            assert!(
                labels.insert(label.to_owned(), value).is_none(),
                "{label} twice in {line}"
            );
            inside = &after[close + 1..];
            match inside.strip_prefix(',') {
                Some(more) => inside = more,
                None => break,
            }
        }
        rest = inside.strip_prefix('}').expect("a closing brace");
    }
    let value = rest.strip_prefix(' ').expect("one space before the value");
    (name, labels, value.parse().expect("a number"))
}

/// What a strict reader of OpenMetrics 1.0 demands, beyond what it shares with the text format.
fn check_open_metrics(text: &str) {
    let body = text.strip_suffix("# EOF\n").expect("it ends with # EOF");
    let (mut name, mut kind, mut names) = (String::new(), String::new(), BTreeSet::new());
    let mut series = BTreeSet::new();
    let (mut metrics, mut this) = (BTreeSet::new(), None);
    for line in body.split_inclusive('\n') {
        let line = line.strip_suffix('\n').expect("every line ends with a line feed");
        if let Some(head) = line.strip_prefix("# ") {
            let mut words = head.splitn(3, ' ');
            let (what, of, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            if what == "TYPE" {
                assert!(names.insert(of.to_owned()), "{of} twice");
                assert!(
                    ["counter", "gauge", "info", "histogram", "summary"].contains(&rest),
                    "{line}"
                );
                (name, kind) = (of.to_owned(), rest.to_owned());
                assert!(kind != "counter" || !name.ends_with("_total"), "{line}");
            }
            assert_eq!(of, name, "{line} is below the head of another family");
            assert!(what != "UNIT" || name.ends_with(&format!("_{rest}")), "{line}");
            assert!(["TYPE", "UNIT", "HELP"].contains(&what), "{line}");
            continue;
        }
        let (sample, exemplar) = line
            .split_once(" # ")
            .map_or((line, None), |(sample, more)| (sample, Some(more)));
        let (sample_name, labels, value) = parse_sample(sample);
        let suffix = sample_name.strip_prefix(&name).expect("the family's name");
        let allowed: &[&str] = match kind.as_str() {
            "counter" => &["_total", "_created"],
            "info" => &["_info"],
            "histogram" => &["_bucket", "_sum", "_count", "_created"],
            "summary" => &["_sum", "_count", "_created"],
            _ => &[""],
        };
        let mut metric = labels.clone();
        metric.remove("le");
        if kind != "gauge" && kind != "info" && this.as_ref() != Some(&(name.clone(), metric.clone())) {
            assert!(
                metrics.insert((name.clone(), metric.clone())),
                "{line}: not beside its like"
            );
            this = Some((name.clone(), metric));
        }
        assert!(allowed.contains(&suffix), "{line} in a {kind}");
        assert!(kind != "info" || value == 1.0, "{line}");
        if let Some(bound) = labels.get("le") {
            assert!(
                bound == "+Inf" || bound.contains(['.', 'e']),
                "{line}: the bound is no float"
            );
        }
        if let Some(exemplar) = exemplar {
            assert!(
                matches!(suffix, "_total" | "_bucket"),
                "{line} may not have an exemplar"
            );
            let (labels, numbers) = exemplar.split_once("} ").unwrap();
            let (_, labels, _) = parse_sample(&format!("x{labels}}} 1"));
            let chars: usize = labels
                .iter()
                .map(|(name, value)| name.chars().count() + value.chars().count())
                .sum();
            assert!(chars <= 128 && labels.contains_key("run_id"), "{line}");
            assert!(numbers.split(' ').all(|number| number.parse::<f64>().is_ok()), "{line}");
        }
        assert!(series.insert((sample_name, labels)), "twice: {line}");
    }
}

#[test]
fn open_metrics_names_families_without_suffixes_and_tells_units_and_exemplars() {
    let here = || group("staging", "main");
    let mut row = group_row(here(), Some(run(here())));
    row.counted[1] = by(7, Some("https://ci.example.test/7"));
    row.duration.counted[2] = by(8, None).map(|run| (run, 3600.0));
    let shown = open_metrics(vec![source("shop", vec![row], Vec::new())]);
    check_open_metrics(&shown);
    let lines = |part: &str| -> String { shown.split_inclusive('\n').filter(|line| line.contains(part)).collect() };
    insta::assert_snapshot!(lines("testrun_runs_total").replace(r#"source="shop",environment="staging",branch="main""#, "..."), @r#"
    testrun_runs_total{...,outcome="passed"} 2
    testrun_runs_total{...,outcome="failed"} 1 # {run_id="7",build_url="https://ci.example.test/7"} 1 1795300070
    testrun_runs_total{...,outcome="error"} 0
    testrun_runs_total{...,outcome="cancelled"} 0
    testrun_runs_total{...,outcome="unknown"} 0
    testrun_exporter_series{family="testrun_runs_total"} 5
    "#);
    insta::assert_snapshot!(lines("testrun_run_duration_seconds").replace(r#"source="shop",environment="staging",branch="main""#, "..."), @r#"
    # TYPE testrun_run_duration_seconds histogram
    # UNIT testrun_run_duration_seconds seconds
    # HELP testrun_run_duration_seconds Seconds from the start to the end of finished runs. As of the last complete round, whose age is time() - testrun_exporter_last_success_timestamp_seconds.
    testrun_run_duration_seconds_bucket{...,le="60.0"} 1
    testrun_run_duration_seconds_bucket{...,le="600.0"} 1
    testrun_run_duration_seconds_bucket{...,le="+Inf"} 2 # {run_id="8"} 3600 1795300070
    testrun_run_duration_seconds_sum{...} 3659.5
    testrun_run_duration_seconds_count{...} 2
    testrun_exporter_series{family="testrun_run_duration_seconds"} 5
    "#);
    assert!(
        shown.contains("# TYPE testrun_runs counter\n# HELP testrun_runs Runs"),
        "{shown}"
    );
    assert!(shown.contains("# TYPE testrun_last_run info\n"), "{shown}");
    assert!(
        shown.contains("# UNIT testrun_last_run_timestamp_seconds seconds\n"),
        "{shown}"
    );
    assert!(!text(vec![source("shop", vec![group_row(here(), None)], Vec::new())]).contains(" # "));
}

#[test]
fn open_metrics_tells_when_counters_began_and_the_text_format_does_not() {
    let here = || group("staging", "main");
    let snapshot = |created: Option<Timestamp>| {
        let group = GroupRow {
            created,
            ..group_row(here(), None)
        };
        let case = CaseRow {
            created,
            ..case_row(here(), "c", None)
        };
        let mut shop = source("shop", vec![group], vec![case]);
        let counts = [0; ErrorCode::COUNT];
        shop.run_errors
            .insert("staging".into(), ErrorCounts { counts, created });
        shop
    };
    let began = Timestamp::from_millisecond(at(1).as_millisecond() + 250).unwrap();
    let shown = open_metrics(vec![snapshot(Some(began))]);
    check_open_metrics(&shown);
    let lines = |part: &str| -> String { shown.split_inclusive('\n').filter(|line| line.contains(part)).collect() };
    let told = |part: &str| lines(part).replace(r#"source="shop",environment="staging""#, "...");
    // Of each family, beside the sample of the first outcome or code.
    let families = ["runs", "run_errors", "run_cases", "case_results"];
    let created: String = families
        .map(|family| {
            told(&format!("testrun_{family}_created"))
                .lines()
                .next()
                .unwrap()
                .to_owned()
                + "\n"
        })
        .concat();
    insta::assert_snapshot!(created, @r#"
    testrun_runs_created{...,branch="main",outcome="passed"} 1795300001.25
    testrun_run_errors_created{...,error_code="unknown"} 1795300001.25
    testrun_run_cases_created{...,branch="main",outcome="passed"} 1795300001.25
    testrun_case_results_created{...,branch="main",case="c",outcome="passed"} 1795300001.25
    "#);
    insta::assert_snapshot!(told("testrun_case_retries_"), @r#"
    testrun_case_retries_total{...,branch="main",case="c"} 2
    testrun_case_retries_created{...,branch="main",case="c"} 1795300001.25
    testrun_exporter_series{family="testrun_case_retries_total"} 2
    "#);
    insta::assert_snapshot!(told("testrun_case_duration_seconds_"), @r#"
    testrun_case_duration_seconds_sum{...,branch="main",case="c"} 12.25
    testrun_case_duration_seconds_count{...,branch="main",case="c"} 7
    testrun_case_duration_seconds_created{...,branch="main",case="c"} 1795300001.25
    "#);
    insta::assert_snapshot!(told("testrun_run_queue_duration_seconds_"), @r#"
    testrun_run_queue_duration_seconds_bucket{...,branch="main",le="1.5"} 0
    testrun_run_queue_duration_seconds_bucket{...,branch="main",le="+Inf"} 0
    testrun_run_queue_duration_seconds_sum{...,branch="main"} 0
    testrun_run_queue_duration_seconds_count{...,branch="main"} 0
    testrun_run_queue_duration_seconds_created{...,branch="main"} 1795300001.25
    "#);
    assert_eq!(
        lines("_created{").lines().count(),
        5 + 1 + 6 + 2 + 6 + 2,
        "and of nothing else"
    );

    let plain = |created| {
        let text = text(vec![snapshot(created)]);
        assert!(!text.contains("_created"), "{text}");
        text
    };
    assert_eq!(plain(Some(began)), plain(None));
    assert!(!open_metrics(vec![snapshot(None)]).contains("_created"));

    // What is written for one format must not be taken for the other.
    let mut renderer = Renderer::default();
    for created in [None, Some(began), None] {
        let rendered = renderer.render(&Snapshot {
            generation: 1,
            sources: vec![Arc::new(snapshot(created))],
        });
        check_packed(&rendered);
        assert_eq!(rendered.text.to_text(), plain(created).as_bytes());
    }
}

#[test]
fn an_exemplar_keeps_the_run_whatever_its_link_is() {
    let line = |url: Option<&str>| {
        let mut row = case_row(group("e", ""), "c", None);
        row.counted[1] = by(7, url);
        let shown = open_metrics(vec![source("s", Vec::new(), vec![row])]);
        check_open_metrics(&shown);
        let line = shown.lines().find(|line| line.contains(" # ")).unwrap().to_owned();
        line.split_once(" # ").unwrap().1.to_owned()
    };
    assert_eq!(line(None), r#"{run_id="7"} 1 1795300070"#);
    assert_eq!(line(Some("")), r#"{run_id="7"} 1 1795300070"#);
    assert_eq!(line(Some("a\nb")), r#"{run_id="7"} 1 1795300070"#);
    assert_eq!(line(Some(r#"a"\"#)), r#"{run_id="7",build_url="a\"\\"} 1 1795300070"#);
    // run_id, 7 and build_url take 16 of 128.
    assert!(line(Some(&"ß".repeat(112))).contains("build_url"));
    assert!(!line(Some(&"ß".repeat(113))).contains("build_url"));
}

#[test]
fn a_change_of_one_case_packs_its_own_block_and_leaves_the_others() {
    let rows = || {
        (0..1000)
            .map(|case| case_row(group("e", "b"), &format!("c{case:04}"), None))
            .collect::<Vec<_>>()
    };
    let snapshot = |rows| Snapshot {
        generation: 1,
        sources: vec![Arc::new(source("s", Vec::new(), rows))],
    };
    let mut renderer = Renderer::default();
    renderer.render(&snapshot(rows()));
    let before = renderer.packer.packed;
    let mut changed = rows();
    changed[500].counts.results[0] += 1;
    changed.insert(300, case_row(group("e", "b"), "c0299x", None));
    changed.remove(801);
    let after = renderer.render(&snapshot(changed.clone()));
    let new = renderer.packer.packed - before;
    // Five families of two blocks, one of a third, and the counts of series at the end: in both formats, of which one
    // takes over most of what the other has.
    assert!((1..=20).contains(&new), "{new} pieces");
    assert_eq!(after.text.to_text(), render(&snapshot(changed)).text.to_text());
}

#[test]
fn what_nobody_asks_for_is_not_compressed_and_can_be_later() {
    let snapshot = Snapshot {
        generation: 1,
        sources: vec![Arc::new(source(
            "s",
            Vec::new(),
            vec![case_row(group("e", "b"), "c", None)],
        ))],
    };
    let mut renderer = Renderer::default();
    let one = renderer.render_for(&snapshot, &[Format::OpenMetrics]);
    assert!(one.text.packed().is_none());
    assert_eq!(one.text.to_text(), render(&snapshot).text.to_text());
    let end = one.open_metrics.packed_end(b"").unwrap();
    let both = renderer.render_for(&snapshot, &Format::ALL);
    check_packed(&both);
    assert_eq!(both.open_metrics.packed_end(b"").unwrap(), end);
    let none = renderer.render_for(&snapshot, &[]);
    assert!(none.text.packed().is_none() && none.open_metrics.packed().is_none());
}

#[test]
fn a_publication_without_news_is_the_one_before() {
    let rows: Vec<_> = (0..1000)
        .map(|case| case_row(group("e", "b"), &format!("c{case:04}"), None))
        .collect();
    let snapshot = || Snapshot {
        generation: 1,
        sources: vec![Arc::new(source("s", Vec::new(), rows.clone()))],
    };
    let mut renderer = Renderer::default();
    let first = renderer.render(&snapshot());
    let second = renderer.render(&snapshot());
    for format in Format::ALL {
        let packed = |rendered: &Rendered| Arc::clone(rendered.exposition(format).packed().unwrap());
        assert!(Arc::ptr_eq(&packed(&first), &packed(&second)));
    }
    let fewer = renderer.render(&Snapshot {
        generation: 2,
        sources: Vec::new(),
    });
    assert_eq!(fewer.text.to_text(), render(&Snapshot::default()).text.to_text());
    check_packed(&fewer);
}

/// The text of a snapshot as a scrape gets it compressed, in each format that it was compressed in.
fn check_packed(rendered: &Rendered) {
    for format in Format::ALL {
        let exposition = rendered.exposition(format);
        let end = exposition.text_end("up 1\n");
        let Some((packed, packed_end)) = exposition.packed().zip(exposition.packed_end(&end)) else {
            continue;
        };
        let gzip = [&packed.concat()[..], &packed_end].concat();
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(&gzip[..]).read_to_end(&mut text).unwrap();
        assert!(text == [exposition.to_text(), end.to_vec()].concat(), "{format:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_changes_what_is_kept_reads_like_what_is_rendered_anew(
        steps in proptest::collection::vec(
            (proptest::collection::btree_map(0_u32..200, 0_u64..3, 0..150), any::<bool>(), 0_u64..3, 0_usize..4), 1..6),
    ) {
        let mut renderer = Renderer::default();
        for (cases, second, exemplars, asked) in steps {
            let rows = |branch: &str| cases.iter().map(|(case, count)| {
                let mut row = case_row(group("e", branch), &format!("case {case:03}"), None);
                row.counts.results[0] = *count;
                row.created = Some(at(1)).filter(|_| second && *count > 0);
                if *count > exemplars {
                    row.counted[0] = by(*count, None);
                }
                row
            }).collect::<Vec<_>>();
            let mut one = source("a", vec![group_row(group("e", "a"), None)], [rows("a"), rows("b")].concat());
            one.case_infos = cases.keys().map(|case| CaseInfo { tags: None,
                case: format!("case {case:03}").into(),
                name: "n".into(),
                suite: "s".into(),
                file: "f".into(),
            }).collect();
            let mut sources = vec![Arc::new(one)];
            if second {
                sources.push(Arc::new(source("b", Vec::new(), rows("a"))));
            }
            let snapshot = Snapshot { generation: 1, sources };
            let asked: &[Format] = match asked {
                0 => &[],
                1 => &[Format::Text],
                2 => &[Format::OpenMetrics],
                _ => &Format::ALL,
            };
            let kept = renderer.render_for(&snapshot, asked);
            let anew = render(&snapshot);
            prop_assert_eq!(&kept.series, &anew.series);
            for format in Format::ALL {
                let kept = kept.exposition(format);
                prop_assert!(kept.to_text() == anew.exposition(format).to_text());
                prop_assert_eq!(kept.text_bytes(), kept.to_text().len() as u64, "as long as it was said to be");
                prop_assert_eq!(kept.packed().is_some(), asked.contains(&format));
            }
            check_packed(&kept);
            parse(std::str::from_utf8(&kept.text.to_text()).unwrap(), true);
            let open = kept.open_metrics.to_text();
            check_open_metrics(&(String::from_utf8(open).unwrap() + "# EOF\n"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_upstream_calls_its_cases_the_text_reads_back(
        names in proptest::collection::btree_set("\\PC{0,4}[\u{0}-\u{9f}\\\\\"\n]{0,6}|x{250,300}[ab]|[a-c]", 1..12),
        environments in proptest::collection::btree_set("[a\"\\\\\n\u{7}é]{0,3}", 1..4),
        sum in any::<f64>(),
        big in any::<u64>(),
    ) {
        let rows: Vec<_> = environments.iter().flat_map(|environment| names.iter().map(|name| {
            let last = LastResult { outcome: CaseOutcome::Failed, at: Some(at(1)), duration_seconds: Some(sum.abs()) };
            let mut row = case_row(group(environment, "main"), name, Some(last));
            (row.counts.duration_sum, row.counts.results[0]) = (sum, big);
            row
        })).collect();
        let count = rows.len();
        let rendered = rendered(vec![source("s", Vec::new(), rows)]);
        check_packed(&rendered);
        check_open_metrics(&(String::from_utf8(rendered.open_metrics.to_text()).unwrap() + "# EOF\n"));
        let families = parse(std::str::from_utf8(&rendered.text.to_text()).unwrap(), false);
        prop_assert_eq!(families["testrun_case_results_total"].len(), count * CaseOutcome::COUNT);
        prop_assert_eq!(families["testrun_case_results_total"][0].1.to_bits(), (big as f64).to_bits());
        for (family, series) in &rendered.series {
            prop_assert_eq!(families[*family].len() as u64, *series);
            let family = FAMILIES.iter().find(|known| known.name == *family).unwrap();
            prop_assert_eq!(family.half, Half::Snapshot);
            for (labels, _) in &families[family.name] {
                prop_assert!(labels.keys().all(|label| family.labels.contains(&label.as_str()) || label == "le"));
                prop_assert!(labels.values().all(|value| value.chars().count() <= 256));
            }
        }
    }
}
