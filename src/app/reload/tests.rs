//! The plan as a table: a configuration that runs, another one, and what becomes of each source.

use super::*;
use crate::app::unit::{Difference, difference, identity};
use crate::config::{Overrides, load};

/// A source in a line: `shop: poll_interval: 5s`. What is not said is the same for all.
fn config(sources: &str) -> Config {
    let directory = tempfile::tempdir().unwrap();
    let mut text = "sources:\n".to_owned();
    for line in sources.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (name, more) = line.split_once(':').unwrap();
        let has = |key: &str| more.contains(&format!("{key}:"));
        text += &format!("  {name}:\n");
        for (key, value) in [
            ("kind", "empirical"),
            ("base_url", "https://platform.example"),
            ("token", name),
        ] {
            if !has(key) {
                text += &format!("    {key}: {value}\n");
            }
        }
        for word in more.split(';').map(str::trim).filter(|word| !word.is_empty()) {
            text += &format!("    {word}\n");
        }
    }
    std::fs::write(directory.path().join("c.yaml"), &text).unwrap();
    load(
        Some(&directory.path().join("c.yaml")),
        std::iter::empty(),
        &Overrides::default(),
    )
    .unwrap_or_else(|problems| panic!("{problems}\n{text}"))
}

/// What becomes of each source, in words.
fn check(running: &str, next: &str, expected: &str) {
    let (running, next) = (config(running), config(next));
    let of = |source: &SourceConfig, at: usize| difference(source, &next.sources[at]);
    let plan = plan(&running.sources, &next.sources, |source| &source.name, of);
    let name = |place: usize| running.sources[place].name.to_string();
    let mut lines: Vec<_> = plan
        .steps
        .iter()
        .zip(&next.sources)
        .map(|(step, source)| match step {
            Step::Keep(place) => format!("{} stays {}", name(*place), source.name),
            Step::Change {
                place,
                connection,
                reading,
            } => {
                assert_eq!(name(*place), *source.name);
                let what = [(*connection, " connection"), (*reading, " reading")];
                let what: String = what.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect();
                format!("{} changes{what}", source.name)
            }
            Step::Add => format!("{} comes", source.name),
        })
        .collect();
    lines.extend(plan.gone.iter().map(|place| format!("{} goes", name(*place))));
    let expected: Vec<_> = expected
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    assert_eq!(lines, expected, "{running:?}\n{next:?}");
}

#[test]
fn what_is_the_same_stays_and_the_rest_comes_and_goes() {
    check("a:\nb:", "a:\nb:", "a stays a\nb stays b");
    check("a:", "a:\nb:", "a stays a\nb comes");
    check("a:\nb:", "b:", "b stays b\na goes");
    check("a:", "b:", "b comes\na goes");
    check("b:\nc:", "a:\nc:\nd:", "a comes\nc stays c\nd comes\nb goes");
}

#[test]
fn a_changed_source_learns_no_more_than_has_changed() {
    for (key, expected) in [
        ("poll_interval: 5s", "a changes"),
        ("rate_limit: { requests_per_minute: 1 }", "a changes"),
        ("rate_limit: { burst: 1 }", "a changes"),
        ("stale_after: 1h", "a changes"),
        ("token: another", "a changes connection"),
        ("request_timeout: 5s", "a changes connection"),
        ("response_bytes_max: 70000", "a changes connection"),
        ("lookback: 2d", "a changes reading"),
        ("branches: [main]", "a changes reading"),
        ("branches: ['~^release/']", "a changes reading"),
        ("environments: { '1': x }", "a changes reading"),
        ("run_duration_unit: s", "a changes reading"),
        ("cases: { include: [x] }", "a changes reading"),
        ("cases: { exclude: [x] }", "a changes reading"),
        ("cases: { ids: [x] }", "a changes reading"),
        ("cases: { max: 5 }", "a changes reading"),
        ("cases: { enabled: false }", "a changes reading"),
        ("cases: { discovery: static, ids: [x] }", "a changes reading"),
        ("cases: { batch_size: 5 }", "a changes reading"),
        ("snoozes: { enabled: true }", "a changes reading"),
        ("gate: { enabled: true }", "a changes"),
        ("health: { quiet_after: 1d }", "a changes"),
        ("token: another; lookback: 2d", "a changes connection reading"),
    ] {
        check("a:", &format!("a: {key}"), expected);
        check(&format!("a: {key}"), "a:", expected);
        check(&format!("a: {key}"), &format!("a: {key}"), "a stays a");
    }
    check("a: branches: ['~x']", "a: branches: ['~y']", "a changes reading");
    let (now, mut next) = (config("a:"), config("a:"));
    next.sources[0].created_timestamps = true;
    let expected = Difference::Changed {
        connection: false,
        reading: false,
    };
    assert_eq!(difference(&now.sources[0], &next.sources[0]), expected);
}

#[test]
fn another_project_or_platform_under_the_same_name_is_another_source() {
    for key in [
        "kind: sample_platform",
        "base_url: https://other.example",
        "base_url: https://platform.example/v2",
        "project: { id: 7 }",
        "project: { slug: shop }",
    ] {
        check("a:", &format!("a: {key}"), "a comes\na goes");
        check(&format!("a: {key}"), &format!("a: {key}"), "a stays a");
    }
    check("a: project: { id: 7 }", "a: project: { slug: '7' }", "a comes\na goes");
}

#[test]
fn the_past_of_a_source_without_a_project_is_found_under_its_url() {
    let url = |line: &str| identity(&config(line).sources[0]).base_url;
    assert_eq!(url("a:"), "https://platform.example/");
    assert_eq!(url("a: project: { id: 7 }"), "https://platform.example/#7/");
    assert_eq!(url("a: project: { slug: shop }"), "https://platform.example/#/shop");
}
