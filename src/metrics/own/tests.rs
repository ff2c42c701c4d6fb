use super::*;
use crate::promotion::{Evidence, Standing, Times};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_795_300_000 + second).unwrap()
}

fn own() -> Own {
    Own::new(BuildInfo {
        version: "1.2.3",
        revision: "abc",
        rustc_version: "1.95.0",
    })
    .unwrap()
}

fn shop(own: &Own) -> SourceOwn {
    let info = SourceInfo {
        kind: "empirical",
        base_url: "https://user:secret@api.example.test/v1?token=secret#secret"
            .parse()
            .unwrap(),
        poll_interval: Duration::from_secs(60),
        stale_after: Duration::from_secs(900),
    };
    own.source("shop", &info)
}

/// Everything but the process's own families, which no test can foresee.
fn text(own: &Own, now: Timestamp) -> String {
    let text = own.render(now, Format::Text);
    text.lines()
        .filter(|line| line.contains("testrun_"))
        .map(|line| format!("{line}\n"))
        .collect()
}

fn samples(own: &Own, family: &str, now: Timestamp) -> String {
    text(own, now)
        .lines()
        .filter(|line| line.starts_with(family))
        .map(|line| format!("{line}\n"))
        .collect()
}

#[test]
fn before_the_first_round_counters_are_at_zero_and_the_rest_is_absent() {
    let own = own();
    let _source = shop(&own);
    let lines: String = text(&own, at(0))
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| format!("{line}\n"))
        .collect();
    insta::assert_snapshot!(lines, @r#"
    testrun_exporter_build_info{revision="abc",rustc_version="1.95.0",version="1.2.3"} 1
    testrun_exporter_cases_refused_total{source="shop"} 0
    testrun_exporter_history_truncated_total{source="shop"} 0
    testrun_exporter_late_edits_total{source="shop"} 0
    testrun_exporter_lost_seconds_total{source="shop"} 0
    testrun_exporter_poll_interval_seconds{source="shop"} 60
    testrun_exporter_round_duration_seconds_bucket{source="shop",le="0.5"} 0
    testrun_exporter_round_duration_seconds_bucket{source="shop",le="1"} 0
    testrun_exporter_round_duration_seconds_bucket{source="shop",le="2.5"} 0
    testrun_exporter_round_duration_seconds_bucket{source="shop",le="5"} 0
    testrun_exporter_round_duration_seconds_bucket{source="shop",le="10"} 0
    testrun_exporter_round_duration_seconds_bucket{source="shop",le="30"} 0
    testrun_exporter_round_duration_seconds_bucket{source="shop",le="60"} 0
    testrun_exporter_round_duration_seconds_bucket{source="shop",le="120"} 0
    testrun_exporter_round_duration_seconds_bucket{source="shop",le="300"} 0
    testrun_exporter_round_duration_seconds_bucket{source="shop",le="600"} 0
    testrun_exporter_round_duration_seconds_bucket{source="shop",le="+Inf"} 0
    testrun_exporter_round_duration_seconds_sum{source="shop"} 0
    testrun_exporter_round_duration_seconds_count{source="shop"} 0
    testrun_exporter_rounds_total{result="refused",source="shop"} 0
    testrun_exporter_rounds_total{result="server_error",source="shop"} 0
    testrun_exporter_rounds_total{result="success",source="shop"} 0
    testrun_exporter_rounds_total{result="throttled",source="shop"} 0
    testrun_exporter_rounds_total{result="unauthorized",source="shop"} 0
    testrun_exporter_rounds_total{result="unreachable",source="shop"} 0
    testrun_exporter_rounds_total{result="unreadable",source="shop"} 0
    testrun_exporter_throttle_seconds_total{source="shop"} 0
    testrun_exporter_throttled_total{reason="budget",source="shop"} 0
    testrun_exporter_throttled_total{reason="quota",source="shop"} 0
    testrun_exporter_throttled_total{reason="retry_after",source="shop"} 0
    testrun_source_info{base_url="https://api.example.test/v1",kind="empirical",source="shop"} 1
    testrun_up{source="shop"} 0
    "#);
}

#[test]
fn every_verb_moves_its_own_family() {
    let own = own();
    let source = shop(&own);
    source.round_started(at(0));
    source.request_sent("/api/test-runs", "200", 0.2);
    source.request_sent("/api/test-runs", "200", 0.3);
    source.retried("503");
    source.throttled(Throttle::RetryAfter, 12.5);
    source.rate_limit_told(Some(120), Some(80), None);
    source.progress(7, Some(at(-50)));
    source.unknown_value("state");
    source.history_truncated(3);
    source.row_skipped("/api/test-runs");
    source.round_ended(RoundResult::Success, at(3), 3.0);
    own.config_loaded(at(1), true);
    own.config_loaded(at(2), false);
    let check = |line: &str| {
        let text = text(&own, at(4));
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    };
    check(r#"testrun_exporter_last_attempt_timestamp_seconds{source="shop"} 1795300000"#);
    check(r#"testrun_exporter_last_success_timestamp_seconds{source="shop"} 1795300003"#);
    check(r#"testrun_exporter_requests_total{code="200",endpoint="/api/test-runs",source="shop"} 2"#);
    check(r#"testrun_exporter_request_duration_seconds_sum{endpoint="/api/test-runs",source="shop"} 0.5"#);
    check(r#"testrun_exporter_retries_total{reason="503",source="shop"} 1"#);
    check(r#"testrun_exporter_throttled_total{reason="retry_after",source="shop"} 1"#);
    check(r#"testrun_exporter_throttle_seconds_total{source="shop"} 12.5"#);
    check(r#"testrun_exporter_rate_limit_limit{source="shop"} 120"#);
    check(r#"testrun_exporter_rate_limit_remaining{source="shop"} 80"#);
    check(r#"testrun_exporter_cases_tracked{source="shop"} 7"#);
    check(r#"testrun_exporter_oldest_case_refresh_timestamp_seconds{source="shop"} 1795299950"#);
    check(r#"testrun_exporter_unknown_values_total{field="state",source="shop"} 1"#);
    check(r#"testrun_exporter_history_truncated_total{source="shop"} 3"#);
    check(r#"testrun_exporter_rows_skipped_total{endpoint="/api/test-runs",source="shop"} 1"#);
    check(r#"testrun_exporter_rounds_total{result="success",source="shop"} 1"#);
    check(r#"testrun_exporter_round_duration_seconds_bucket{source="shop",le="5"} 1"#);
    check("testrun_exporter_config_last_reload_successful 0");
    check("testrun_exporter_config_last_reload_success_timestamp_seconds 1795300001");
    assert_eq!(
        samples(&own, "testrun_exporter_rate_limit_reset", at(4)),
        "",
        "no reply has told of it"
    );
    source.progress(7, None);
    assert_eq!(
        samples(&own, "testrun_exporter_oldest", at(4)),
        "",
        "no case has been refreshed"
    );
}

#[test]
fn a_source_is_up_while_its_last_success_is_young_and_only_throttling_followed() {
    let check = |rounds: &[(RoundResult, i64)], now: i64, expected: &str| {
        let own = own();
        let source = shop(&own);
        for (result, second) in rounds {
            source.round_ended(*result, at(*second), 1.0);
        }
        let expected = format!("testrun_up{{source=\"shop\"}} {expected}\n");
        assert_eq!(samples(&own, "testrun_up", at(now)), expected, "{rounds:?} at {now}");
    };
    use RoundResult::{Refused, Success, Throttled, Unreachable};
    check(&[], 0, "0");
    check(&[(Success, 0)], 1, "1");
    check(&[(Success, 0), (Throttled, 60)], 899, "1");
    check(&[(Success, 0), (Throttled, 60)], 900, "0");
    check(&[(Throttled, 60)], 61, "0");
    check(&[(Success, 0)], 900, "0");
    check(&[(Success, 0), (Unreachable, 60)], 61, "0");
    check(&[(Success, 0), (Unreachable, 60), (Throttled, 120)], 121, "1");
    check(&[(Refused, 0), (Success, 60)], 61, "1");
}

#[test]
fn one_series_describes_a_source_whatever_its_project_is_called() {
    let own = own();
    let source = shop(&own);
    source.project_told("Shop");
    source.project_told("Sh\u{0}op \"2\"");
    source.project_told("Sh\u{0}op \"2\"");
    assert_eq!(
        samples(&own, "testrun_source_info", at(0)),
        "testrun_source_info{base_url=\"https://api.example.test/v1\",kind=\"empirical\",project=\"Shop \\\"2\\\"\",source=\"shop\"} 1\n"
    );
}

#[test]
fn every_family_of_this_half_is_in_the_catalog_with_its_help_and_type_and_once() {
    let own = own();
    let source = shop(&own);
    source.round_started(at(0));
    source.request_sent("/e", "200", 1.0);
    source.retried("timeout");
    source.rate_limit_told(Some(1), Some(1), Some(at(0)));
    source.progress(1, Some(at(0)));
    source.unknown_value("state");
    source.row_skipped("/e");
    source.round_ended(RoundResult::Success, at(0), 1.0);
    own.config_loaded(at(0), true);
    own.web_config_loaded(at(0), true);
    let ledger = own.ledger();
    ledger.written(0.1);
    source.kept(1, at(0));
    source.found_in_ledger(true);
    source.set_aside("newer");
    source.promotion(&Promotion {
        as_of: Some(at(0)),
        standings: [good("staging", at(0))].into(),
    });
    let text = own.render(at(0), Format::Text);
    let mut names = Vec::new();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("# HELP ") else {
            continue;
        };
        let (name, help) = rest.split_once(' ').unwrap();
        let family = catalog::FAMILIES.iter().find(|family| family.name == name).unwrap();
        assert_eq!((family.help, family.half), (help, catalog::Half::Own));
        assert!(
            text.contains(&format!("# TYPE {name} {}\n", family.kind.word())),
            "{name}"
        );
        names.push(name);
    }
    assert!(names.is_sorted(), "{names:?}");
    let mut unique = names.clone();
    unique.dedup();
    assert_eq!(names, unique);
    for family in catalog::FAMILIES
        .iter()
        .filter(|family| family.half == catalog::Half::Own)
    {
        // What the operating system does not tell is absent.
        let optional = family.chapter == catalog::Chapter::Process;
        assert!(
            optional || names.contains(&family.name),
            "{} is never shown",
            family.name
        );
    }
}

#[test]
fn the_process_tells_of_itself_with_fractions_of_a_second() {
    let mut page = Page::new(Format::Text);
    process::write(&mut page);
    let text = page.into_text();
    let value = |name: &str| -> f64 {
        let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(value("process_cpu_seconds_total") >= 0.0);
    assert!(value("process_resident_memory_bytes") > 100_000.0);
    assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
    assert!(value("process_open_fds") >= 3.0);
    assert!(value("process_threads") >= 1.0);
    assert!(value("process_start_time_seconds") > 1.5e9);
}

#[test]
fn cpu_seconds_do_not_wait_for_a_whole_one() {
    let cpu_seconds = || -> f64 {
        let mut page = Page::new(Format::Text);
        process::write(&mut page);
        let text = page.into_text();
        let line = text
            .lines()
            .find(|line| line.starts_with("process_cpu_seconds_total "))
            .unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    // Reading is work enough to move it.
    let (mut before, mut after) = (0.0, 0.0);
    while before == after {
        (before, after) = (cpu_seconds(), cpu_seconds());
    }
    assert!(after > before && after - before < 1.0, "{before} {after}");
}

#[test]
fn the_web_configuration_is_absent_without_one_and_tells_of_its_last_reading() {
    let own = own();
    let told = |own: &Own| samples(own, "testrun_exporter_web_config", at(0));
    assert_eq!(told(&own), "");
    own.web_config_loaded(at(5), true);
    own.web_config_loaded(at(9), false);
    let expected = format!(
        "testrun_exporter_web_config_last_reload_success_timestamp_seconds {}\n\
         testrun_exporter_web_config_last_reload_successful 0\n",
        unix_seconds(at(5))
    );
    assert_eq!(told(&own), expected);
}

#[test]
fn a_restored_source_is_up_as_long_as_its_data_are_fresh() {
    let own = own();
    let source = shop(&own);
    source.restored(at(0));
    let up = |second| samples(&own, "testrun_up", at(second));
    assert_eq!(up(100), "testrun_up{source=\"shop\"} 1\n");
    assert_eq!(up(901), "testrun_up{source=\"shop\"} 0\n");
    source.round_ended(RoundResult::Unreachable, at(100), 1.0);
    assert_eq!(up(100), "testrun_up{source=\"shop\"} 0\n");
}

#[test]
fn the_ledger_is_healthy_until_it_cannot_be_written() {
    let own = own();
    assert_eq!(
        samples(&own, "testrun_exporter_ledger", at(0)),
        "",
        "absent without a directory"
    );
    let ledger = own.ledger();
    let healthy = || samples(&own, "testrun_exporter_ledger_healthy", at(0));
    assert_eq!(healthy(), "testrun_exporter_ledger_healthy 1\n");
    ledger.write_failed();
    ledger.healthy(false);
    assert_eq!(healthy(), "testrun_exporter_ledger_healthy 0\n");
    let failures = samples(&own, "testrun_exporter_ledger_write_failures_total", at(0));
    assert_eq!(failures, "testrun_exporter_ledger_write_failures_total 1\n");
}

#[test]
fn a_source_that_vanishes_leaves_nothing_and_another_pace_loses_nothing() {
    let own = own();
    let info = SourceInfo {
        kind: "empirical",
        base_url: "https://api.example.test".parse().unwrap(),
        poll_interval: Duration::from_secs(60),
        stale_after: Duration::from_secs(900),
    };
    let other = own.source("shop2", &info);
    let alone = text(&own, at(0));
    let source = own.prepare("shop", &info);
    assert_eq!(text(&own, at(0)), alone, "it does not show before it appears");
    source.appear(&info);
    source.request_sent("/api/test-runs", "200", 0.25);
    source.retried("503");
    source.throttled(Throttle::RetryAfter, 12.5);
    source.rate_limit_told(Some(120), Some(80), Some(at(9)));
    source.round_started(at(0));
    source.round_ended(RoundResult::Success, at(3), 3.0);
    source.progress(7, Some(at(-50)));
    source.unknown_value("state");
    source.history_truncated(3);
    source.row_skipped("/api/test-runs");
    source.lost(3.0);
    source.project_told("shop \"1\"");
    let ledger = own.ledger();
    source.found_in_ledger(true);
    source.set_aside("damaged");
    source.kept(10, at(2));
    ledger.written(1.0);
    source.paced(Duration::from_secs(5), Duration::from_secs(10));
    let shown = text(&own, at(4));
    for line in [
        r#"testrun_exporter_poll_interval_seconds{source="shop"} 5"#,
        r#"testrun_exporter_rounds_total{result="success",source="shop"} 1"#,
        r#"testrun_up{source="shop"} 1"#,
    ] {
        assert!(shown.lines().any(|found| found == line), "{line} is not in\n{shown}");
    }
    assert_eq!(
        samples(&own, r#"testrun_up{source="shop"}"#, at(14)),
        "testrun_up{source=\"shop\"} 0\n"
    );
    source.vanish();
    let left = text(&own, at(4));
    assert!(!left.contains(r#"source="shop""#), "{left}");
    assert!(left.contains(r#"source="shop2""#) && other.name() == "shop2");
}

#[test]
fn what_is_told_of_a_source_that_has_vanished_is_not_heard_even_if_another_one_has_its_name() {
    let own = own();
    let empty = text(&own, at(0));
    let former = shop(&own);
    let tell = |source: &SourceOwn| {
        source.paced(Duration::from_secs(1), Duration::from_secs(1));
        source.round_started(at(0));
        source.round_ended(RoundResult::Success, at(3), 3.0);
        source.request_sent("/api/test-runs", "200", 0.25);
        source.retried("503");
        source.throttled(Throttle::Quota, 1.0);
        source.rate_limit_told(Some(120), Some(80), Some(at(9)));
        source.restored(at(1));
        source.progress(7, Some(at(-50)));
        source.unknown_value("state");
        source.history_truncated(3);
        source.cases_refused(3);
        source.row_skipped("/api/test-runs");
        source.late_edits(5);
        source.lost(3.0);
        source.project_told("former");
        source.promotion(&Promotion {
            as_of: Some(at(4)),
            standings: [good("staging", at(4))].into(),
        });
        source.kept(10, at(2));
        source.found_in_ledger(true);
        source.set_aside("damaged");
    };
    former.vanish();
    tell(&former.clone());
    assert_eq!(text(&own, at(4)), empty);
    let info = SourceInfo {
        kind: "sample_platform",
        base_url: "https://other.example.test/".parse().unwrap(),
        poll_interval: Duration::from_secs(60),
        stale_after: Duration::from_secs(900),
    };
    let _successor = own.source("shop", &info);
    let alone = text(&own, at(4));
    tell(&former);
    assert_eq!(text(&own, at(4)), alone);
}

fn gates(own: &Own, now: Timestamp) -> String {
    samples(own, "testrun_environment_", now)
}

fn good(environment: &str, ended: Timestamp) -> Standing {
    let times = Times {
        run_ended: Some(ended),
        ..Times::default()
    };
    Standing::of(
        environment.into(),
        Evidence::good(),
        times,
        SignedDuration::from_hours(24),
    )
}

#[test]
fn the_gate_closes_by_itself_when_nothing_new_is_told_and_stays_there_at_0() {
    let own = own();
    let source = shop(&own);
    assert_eq!(gates(&own, at(0)), "", "absent until something is known");
    let promotion = |as_of: Option<Timestamp>| Promotion {
        as_of,
        standings: [good("staging", at(-60))].into(),
    };
    source.promotion(&promotion(None));
    let verdict = |now: i64| {
        let text = gates(&own, at(now));
        let value = |line: &str| {
            let labels = format!("testrun_environment_{line} ");
            text.lines()
                .find_map(|line| line.strip_prefix(&labels))
                .map(str::to_owned)
                .unwrap()
        };
        (
            value("promotable{source=\"shop\",environment=\"staging\"}"),
            value("blocked{source=\"shop\",environment=\"staging\",condition=\"stale\"}"),
        )
    };
    let (open, closed) = (("1".to_owned(), "0".to_owned()), ("0".to_owned(), "1".to_owned()));
    assert_eq!(verdict(0), closed, "another process's word is stale");
    source.promotion(&promotion(Some(at(0))));
    assert_eq!(verdict(0), open);
    assert_eq!(verdict(899), open);
    assert_eq!(verdict(900), closed, "nobody has told it to");
    source.paced(Duration::from_secs(60), Duration::from_secs(1000));
    assert_eq!(verdict(900), open, "how old data may be is asked at each scrape");
    assert_eq!(verdict(86_400 * 7), closed, "there it stays");
    source.vanish();
    assert_eq!(gates(&own, at(900)), "");
}
