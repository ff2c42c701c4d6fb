use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::SignedDuration;
use tempfile::TempDir;
use tracing::level_filters::LevelFilter;

use super::*;
use crate::sources::{Discovery, DurationUnit, Kind};
use crate::transport::http::Credential;

/// A directory with a configuration and a few token files: `good`, `empty`, `two-lines`, `umlaut`.
struct Setup {
    directory: TempDir,
}

impl Setup {
    fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let setup = Self { directory };
        setup.write("c.yaml", text);
        setup.write("good", "file-secret\n");
        setup.write("empty", "\n");
        setup.write("two-lines", "one-secret\ntwo-secret\n");
        setup.write("umlaut", "gehäim-secret");
        setup
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn load(&self, environment: &[(&str, &str)], overrides: &Overrides) -> Result<Config, Problems> {
        load(Some(&self.path("c.yaml")), pairs(environment), overrides)
    }

    /// The problems, with the directory's name taken out.
    fn problems(&self, environment: &[(&str, &str)], overrides: &Overrides) -> Vec<String> {
        let directory = format!("{}/", self.directory.path().display());
        let problems = self.load(environment, overrides).map(|_| ()).unwrap_err();
        problems
            .iter()
            .map(|problem| problem.to_string().replace(&directory, ""))
            .collect()
    }
}

fn pairs(environment: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
    environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect::<Vec<_>>()
        .into_iter()
}

fn ok(text: &str) -> Config {
    ok_with(text, &[])
}

fn ok_with(text: &str, environment: &[(&str, &str)]) -> Config {
    Setup::new(text)
        .load(environment, &Overrides::default())
        .unwrap_or_else(|problems| panic!("{problems}"))
}

/// An Empirical source called `a` with these lines added.
fn empirical(lines: &str) -> String {
    source("empirical", lines)
}

/// A Sample Platform source called `a` with these lines added.
fn sample_platform(lines: &str) -> String {
    source("sample_platform", lines)
}

fn source(kind: &str, lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    format!("sources:\n  a:\n    kind: {kind}\n    base_url: https://x.example\n    token: inline-secret\n{lines}")
}

/// A good source with these lines before it.
fn beside(lines: &str) -> String {
    format!("{lines}\n{}", empirical(""))
}

/// A source with these lines only.
fn bare(lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    format!("sources:\n  a:\n{lines}")
}

fn with_url(url: &str) -> String {
    bare(&format!("kind: empirical\ntoken: inline-secret\nbase_url: {url}"))
}

fn with_token(line: &str) -> String {
    bare(&format!("kind: empirical\nbase_url: https://x.example\n{line}"))
}

fn check(text: &str, expected: &[&str]) {
    check_with(text, &[], expected);
}

fn check_with(text: &str, environment: &[(&str, &str)], expected: &[&str]) {
    let problems = Setup::new(text).problems(environment, &Overrides::default());
    assert_eq!(problems, expected, "for:\n{text}");
    for problem in problems {
        assert!(!problem.contains("secret"), "{problem}");
        assert!(!problem.contains('\n'), "{problem}");
    }
}

#[test]
fn unknown_keys_are_named_with_the_nearest_known_one_at_each_level() {
    check(
        &beside("sorces: {}"),
        &["c.yaml: sorces: unknown key; did you mean sources?"],
    );
    check(
        &beside("zzz: 1"),
        &["c.yaml: zzz: unknown key; expected web, log, state, series_budget or sources"],
    );
    check(
        &beside("web: { listen_adress: x }"),
        &["c.yaml: web.listen_adress: unknown key; did you mean listen_address?"],
    );
    check(
        &beside("log: { colour: x }"),
        &["c.yaml: log.colour: unknown key; expected level or format"],
    );
    check(
        &beside("state: { dir: x }"),
        &["c.yaml: state.dir: unknown key; expected directory"],
    );
    check(
        &empirical("base-url: x"),
        &["c.yaml: sources.a.base-url: unknown key; did you mean base_url?"],
    );
    check(
        &empirical("project: { idd: 1 }"),
        &["c.yaml: sources.a.project.idd: unknown key; did you mean id?"],
    );
    check(
        &empirical("rate_limit: { request_per_minute: 1 }"),
        &["c.yaml: sources.a.rate_limit.request_per_minute: unknown key; did you mean requests_per_minute?"],
    );
    check(
        &empirical("cases: { min: 1 }"),
        &[
            "c.yaml: sources.a.cases.min: unknown key; expected enabled, discovery, ids, include, exclude, max, batch_size or analytics_lag",
        ],
    );
    check(
        "sources: [a]",
        &["c.yaml: sources: a list is not a mapping; expected keys and values"],
    );
    check(
        "sources: { a: { kind: x, base_url: 'https://a.example', token: t, cases: { discovery: z } } }",
        &[
            "c.yaml: sources.a.kind: \"x\" is not known; expected empirical or sample_platform",
            "c.yaml: sources.a.cases.discovery: \"z\" is not known; expected run_details, analytics, registry, static, runs or samples",
        ],
    );
    check(
        &empirical("cases: { exlude: [] }"),
        &["c.yaml: sources.a.cases.exlude: unknown key; did you mean exclude?"],
    );
}

#[test]
fn wrong_types_are_named_with_what_was_expected() {
    check(
        &beside("web: 5"),
        &["c.yaml: web: 5 is not a mapping; expected keys and values"],
    );
    check(
        &beside("web: [a]"),
        &["c.yaml: web: a list is not a mapping; expected keys and values"],
    );
    check(
        "sources: [a]",
        &["c.yaml: sources: a list is not a mapping; expected keys and values"],
    );
    check(
        &empirical("poll_interval: 60"),
        &["c.yaml: sources.a.poll_interval: 60 has no unit; expected a duration such as 60s, 15m, 1h30m or 30d"],
    );
    check(
        &empirical("poll_interval: soon"),
        &[
            "c.yaml: sources.a.poll_interval: \"soon\" is not a duration; expected a duration such as 60s, 15m, 1h30m or 30d",
        ],
    );
    check(
        &empirical("poll_interval: 1.5h"),
        &[
            "c.yaml: sources.a.poll_interval: \"1.5h\" is not a duration; expected a duration such as 60s, 15m, 1h30m or 30d",
        ],
    );
    check(
        &empirical("poll_interval: -5s"),
        &[
            "c.yaml: sources.a.poll_interval: \"-5s\" is not a duration; expected a duration such as 60s, 15m, 1h30m or 30d",
        ],
    );
    check(
        &empirical("branches: main"),
        &["c.yaml: sources.a.branches: \"main\" is not a list; expected a list such as [main, ~^release/]"],
    );
    check(
        &empirical("branches: [5]"),
        &["c.yaml: sources.a.branches[0]: 5 is not text; expected a branch's name, or ~ and a regular expression"],
    );
    check(
        &empirical("cases: { enabled: 1 }"),
        &["c.yaml: sources.a.cases.enabled: 1 is not a truth value; expected true or false"],
    );
    check(
        &empirical("cases: { max: many }"),
        &["c.yaml: sources.a.cases.max: \"many\" is not a whole number; expected a whole number from 1 to 100000"],
    );
    check(
        &empirical("cases: { max: 1.5 }"),
        &["c.yaml: sources.a.cases.max: 1.5 is not a whole number; expected a whole number from 1 to 100000"],
    );
    check(
        &empirical("project: { slug: 5 }"),
        &["c.yaml: sources.a.project.slug: 5 is not text; expected the project's slug"],
    );
    check(
        &empirical("run_duration_unit: min"),
        &["c.yaml: sources.a.run_duration_unit: \"min\" is not known; expected auto, ms or s"],
    );
    check(
        &beside("log: { level: loud, format: xml }"),
        &[
            "c.yaml: log.level: \"loud\" is not known; expected error, warn, info, debug or trace",
            "c.yaml: log.format: \"xml\" is not known; expected logfmt or json",
        ],
    );
}

#[test]
fn a_source_needs_a_kind_a_url_and_a_name() {
    check(
        &bare("token: inline-secret"),
        &[
            "c.yaml: sources.a.kind: this is missing; expected empirical or sample_platform",
            "c.yaml: sources.a.base_url: this is missing; expected the URL of the platform's API such as https://api.empirical.run",
        ],
    );
    check(
        &source("gitlab", ""),
        &["c.yaml: sources.a.kind: \"gitlab\" is not known; expected empirical or sample_platform"],
    );
    check(
        "sources: {}",
        &["c.yaml: sources: there are no sources; expected at least one, under its name"],
    );
    check(
        "log: { level: info }",
        &["c.yaml: sources: there are no sources; expected at least one, under its name"],
    );
    let name = "this is no name for a source; expected 1 to 64 letters, digits and _ . -";
    check(
        &empirical("").replace("  a:", "  a b:"),
        &[&format!("c.yaml: sources.a b: {name}")],
    );
    check(
        &empirical("").replace("  a:", "  \"\":"),
        &[&format!("c.yaml: sources.: {name}")],
    );
    check(
        &empirical("").replace("  a:", "  \"x\\ny\":"),
        &[&format!("c.yaml: sources.x\\ny: {name}")],
    );
    check(
        &empirical("").replace("  a:", &format!("  {}:", "n".repeat(65))),
        &[&format!("c.yaml: sources.{}: {name}", "n".repeat(65))],
    );
}

#[test]
fn there_is_exactly_one_usable_token_and_it_is_never_shown() {
    let exactly = "expected exactly one of token_file, token_env and token";
    let ascii =
        "the token holds a space, a line break or a character that is not ASCII; expected one line of visible ASCII";
    check(
        &with_token(""),
        &[&format!("c.yaml: sources.a: there is no token; {exactly}")],
    );
    check(
        &with_token("token: x-secret\ntoken_file: good"),
        &[&format!(
            "c.yaml: sources.a: token_file and token are set at once; {exactly}"
        )],
    );
    check(
        &with_token("token: x-secret\ntoken_file: good\ntoken_env: E"),
        &[&format!(
            "c.yaml: sources.a: token_file and token_env and token are set at once; {exactly}"
        )],
    );
    check(
        &with_token("token: ''"),
        &["c.yaml: sources.a.token: the token is empty; expected the platform's API token"],
    );
    check(
        &with_token("token: 12345"),
        &["c.yaml: sources.a.token: this is not text; expected the platform's API token"],
    );
    check(
        &with_token("token: \"my-secret\\n\""),
        &[&format!("c.yaml: sources.a.token: {ascii}")],
    );
    check(
        &with_token("token: gehäim-secret"),
        &[&format!("c.yaml: sources.a.token: {ascii}")],
    );
    check(
        &with_token(&format!("token: {}", "secret".repeat(2000))),
        &["c.yaml: sources.a.token: the token is longer than 8192 bytes; expected the platform's API token"],
    );
    check(
        &with_token("token_file: none-secret"),
        &[
            "c.yaml: sources.a.token_file: the file cannot be read: no such file or directory; expected a file that holds the token",
        ],
    );
    check(
        &with_token("token_file: ."),
        &[
            "c.yaml: sources.a.token_file: the file cannot be read: it is not a file; expected a file that holds the token",
        ],
    );
    check(
        &with_token("token_file: ''"),
        &["c.yaml: sources.a.token_file: the path is empty; expected the path of a file that holds the token"],
    );
    check(
        &with_token("token_file: empty"),
        &["c.yaml: sources.a.token_file: the token is empty; expected the platform's API token"],
    );
    check(
        &with_token("token_file: two-lines"),
        &[&format!("c.yaml: sources.a.token_file: {ascii}")],
    );
    check(
        &with_token("token_file: umlaut"),
        &[&format!("c.yaml: sources.a.token_file: {ascii}")],
    );
    check(
        &with_token("token_env: MY_secret"),
        &[
            "c.yaml: sources.a.token_env: the environment variable that this names is not set; expected it to hold the token",
        ],
    );
    check_with(
        &with_token("token_env: T"),
        &[("T", "")],
        &["c.yaml: sources.a.token_env: the token is empty; expected the platform's API token"],
    );
}

#[test]
fn two_sources_may_not_share_url_and_token_in_whatever_form() {
    let twins = "sources:
  a: { kind: empirical, base_url: https://x.example/, token: file-secret }
  b: { kind: empirical, base_url: https://X.example, token_file: good }
  c: { kind: empirical, base_url: https://x.example, token: other-secret }
  d: { kind: empirical, base_url: https://y.example, token: file-secret }";
    check(
        twins,
        &[
            "c.yaml: sources.b: base_url and token are those of sources.a, so both would spend one rate budget; expected one source, or a token for each",
        ],
    );
}

#[test]
fn a_base_url_is_https_and_holds_no_credentials_query_or_fragment() {
    let url = |message: &str| format!("c.yaml: sources.a.base_url: {message}");
    let insecure = url("the token would be sent unencrypted; expected an https URL (or allow_insecure: true)");
    check(&with_url("http://x.example"), &[&insecure]);
    check(&with_url("http://127.0.0.1.x.example"), &[&insecure]);
    check(&with_url("http://10.0.0.1"), &[&insecure]);
    check(
        &with_url("ftp://x.example"),
        &[&url("the scheme is neither https nor http; expected an https URL")],
    );
    check(
        &with_url("api.empirical.run"),
        &[&url(
            "this is not a URL; expected the URL of the platform's API such as https://api.empirical.run",
        )],
    );
    let credentials = url("the URL holds a user name or password; expected a URL without (see token_file)");
    check(&with_url("https://me:my-secret@x.example"), &[&credentials]);
    check(&with_url("https://my-secret@x.example"), &[&credentials]);
    let tail = url("the URL holds a query or a fragment; expected a URL that ends with its path");
    check(&with_url("https://x.example/?token=my-secret"), &[&tail]);
    check(&with_url("https://x.example/#my-secret"), &[&tail]);
    check(
        &with_url("https://user:my-secret@"),
        &[&url(
            "this is not a URL; expected the URL of the platform's API such as https://api.empirical.run",
        )],
    );
}

#[test]
fn numbers_and_durations_have_ranges() {
    let rate = |message: &str| {
        format!("c.yaml: sources.a.rate_limit.requests_per_minute: {message}; expected a number from 0.01 to 6000")
    };
    let with_rate = |rate: &str| empirical(&format!("rate_limit: {{ requests_per_minute: {rate} }}"));
    check(&with_rate("0"), &[&rate("0 is out of range")]);
    check(&with_rate("-1"), &[&rate("-1 is out of range")]);
    check(&with_rate("6001"), &[&rate("6001 is out of range")]);
    for infinite in [".inf", ".nan"] {
        let problems = Setup::new(&with_rate(infinite)).problems(&[], &Overrides::default());
        assert!(
            problems.len() == 1 && problems[0].starts_with("c.yaml:6:40: "),
            "{problems:?}"
        );
    }
    check(&with_rate("NaN"), &[&rate("\"NaN\" is not a number")]);
    check(&with_rate("fast"), &[&rate("\"fast\" is not a number")]);
    check(
        &empirical("rate_limit: { burst: 0 }"),
        &["c.yaml: sources.a.rate_limit.burst: 0 is out of range; expected a whole number from 1 to 1000"],
    );
    check(
        &empirical("poll_interval: 500ms"),
        &["c.yaml: sources.a.poll_interval: 500ms is out of range; expected a duration from 1s to 1d"],
    );
    check(
        &empirical("request_timeout: 0s"),
        &["c.yaml: sources.a.request_timeout: 0s is out of range; expected a duration from 1s to 10m"],
    );
    check(
        &empirical("lookback: 12h"),
        &["c.yaml: sources.a.lookback: 12h is out of range; expected a duration from 1d to 90d"],
    );
    check(
        &empirical("lookback: 91d"),
        &["c.yaml: sources.a.lookback: 91d is out of range; expected a duration from 1d to 90d"],
    );
    check(
        &empirical("health: { window: 51 }"),
        &["c.yaml: sources.a.health.window: 51 is out of range; expected a whole number from 10 to 50"],
    );
    check(
        &empirical("health: { window: 20, flaky_flips: 21, regression_probability: 1.5, quiet_afer: 1d }"),
        &[
            "c.yaml: sources.a.health.flaky_flips: 21 is more than the window holds; expected at most 20",
            "c.yaml: sources.a.health.regression_probability: 1.5 is out of range; expected a number from 0 to 1",
            "c.yaml: sources.a.health.quiet_afer: unknown key; did you mean quiet_after?",
        ],
    );
    check(
        &sample_platform("health: { infrastructure: { believed_after: 0 } }"),
        &[
            "c.yaml: sources.a.health.infrastructure.believed_after: 0 is out of range; expected a whole number from 1 to 100",
        ],
    );
    check(
        &sample_platform("series_ttl: 366d"),
        &["c.yaml: sources.a.series_ttl: 366d is out of range; expected a duration from 1d to 365d"],
    );
    check(
        &sample_platform("lookback: 366d"),
        &["c.yaml: sources.a.lookback: 366d is out of range; expected a duration from 1d to 365d"],
    );
    check(
        &empirical("stale_after: 30s"),
        &["c.yaml: sources.a.stale_after: 30s is shorter than poll_interval; expected at least 1m"],
    );
    check(
        &empirical("response_bytes_max: 10"),
        &["c.yaml: sources.a.response_bytes_max: 10 is out of range; expected a whole number from 65536 to 268435456"],
    );
    check(
        &empirical("cases: { batch_size: 0 }"),
        &["c.yaml: sources.a.cases.batch_size: 0 is out of range; expected a whole number from 1 to 500"],
    );
    check(
        &empirical("cases: { batch_size: 501 }"),
        &["c.yaml: sources.a.cases.batch_size: 501 is out of range; expected a whole number from 1 to 500"],
    );
    check(
        &empirical("cases: { max: 0 }"),
        &["c.yaml: sources.a.cases.max: 0 is out of range; expected a whole number from 1 to 100000"],
    );
    check(
        &empirical("cases: { max: 100001 }"),
        &["c.yaml: sources.a.cases.max: 100001 is out of range; expected a whole number from 1 to 100000"],
    );
    check(
        &empirical("project: { id: 0 }"),
        &["c.yaml: sources.a.project.id: 0 is out of range; expected a whole number from 1 to 18446744073709551615"],
    );
    check(
        &beside("series_budget: 0"),
        &["c.yaml: series_budget: 0 is out of range; expected a whole number from 1 to 10000000"],
    );
}

#[test]
fn regular_expressions_are_compiled_and_the_reason_is_short() {
    check(
        &empirical("cases: { include: ['(a'] }"),
        &[
            "c.yaml: sources.a.cases.include[0]: \"(a\" is no regular expression: unclosed group; expected a regular expression",
        ],
    );
    check(
        &empirical("cases: { exclude: [b, '*'] }"),
        &[
            "c.yaml: sources.a.cases.exclude[1]: \"*\" is no regular expression: repetition operator missing expression; expected a regular expression",
        ],
    );
    check(
        &empirical("branches: ['~[']"),
        &[
            "c.yaml: sources.a.branches[0]: \"[\" is no regular expression: unclosed character class; expected a regular expression",
        ],
    );
    check(
        &empirical("branches: ['']"),
        &["c.yaml: sources.a.branches[0]: the name is empty; expected a branch's name, or ~ and a regular expression"],
    );
}

#[test]
fn each_kind_has_its_own_keys_discoveries_and_ids() {
    check(
        &empirical("cases: { discovery: runs }"),
        &[
            "c.yaml: sources.a.cases.discovery: \"runs\" is for the other kind of platform; expected run_details, analytics, registry or static",
        ],
    );
    check(
        &sample_platform("cases: { discovery: registry }"),
        &[
            "c.yaml: sources.a.cases.discovery: \"registry\" is for the other kind of platform; expected runs, samples or static",
        ],
    );
    check(
        &empirical("cases: { discovery: magic }"),
        &[
            "c.yaml: sources.a.cases.discovery: \"magic\" is not known; expected run_details, analytics, registry or static",
        ],
    );
    check(
        &empirical("cases: { discovery: static }"),
        &["c.yaml: sources.a.cases.ids: discovery is static, but there are no ids; expected at least one"],
    );
    check(
        &sample_platform("cases: { ids: [1, 0, -2, x, 1.5] }"),
        &[
            "c.yaml: sources.a.cases.ids[1]: \"0\" is not an id; expected a sample's id, a whole number above 0",
            "c.yaml: sources.a.cases.ids[2]: \"-2\" is not an id; expected a sample's id, a whole number above 0",
            "c.yaml: sources.a.cases.ids[3]: \"x\" is not an id; expected a sample's id, a whole number above 0",
            "c.yaml: sources.a.cases.ids[4]: 1.5 is not an id; expected a sample's id, a whole number above 0",
        ],
    );
    check(
        &empirical("cases: { ids: [''] }"),
        &["c.yaml: sources.a.cases.ids[0]: \"\" is not an id; expected a case's id"],
    );
    check(
        &empirical("project: { id: 1, slug: x }"),
        &["c.yaml: sources.a.project: id and slug are set at once; expected one of them"],
    );
    let only = "only empirical sources have this key; expected it to be left out";
    check(
        &sample_platform(
            "project: { id: 1 }\nenvironments: {}\nrun_duration_unit: s\nsnoozes: { enabled: true }\ncases: { batch_size: 5 }",
        ),
        &[
            &format!("c.yaml: sources.a.project: {only}"),
            &format!("c.yaml: sources.a.environments: {only}"),
            &format!("c.yaml: sources.a.run_duration_unit: {only}"),
            &format!("c.yaml: sources.a.snoozes: {only}"),
            &format!("c.yaml: sources.a.cases.batch_size: {only}"),
        ],
    );
}

#[test]
fn a_gate_names_branches_that_have_a_label_and_cases_that_are_read() {
    let gate = |lines: &str| ok(&empirical(lines)).sources[0].promotion.clone();
    assert_eq!(gate(""), None);
    assert_eq!(gate("gate: { run_max_age: 1h }"), None, "it has to be turned on");
    let told = gate("branches: [main, ~^release/]\ngate: { enabled: true }").unwrap();
    assert_eq!((&told.branches[..], told.all_cases), (&["main".into()][..], true));
    assert_eq!(told.run_max_age, SignedDuration::from_hours(24));
    let lines =
        "branches: [~^release/]\ngate: { enabled: true, branches: [release/2], required: [pay], run_max_age: 2h }";
    let told = gate(lines).unwrap();
    assert!(told.names_cases() && told.counts(&"release/2".into()) && !told.counts(&"main".into()));
    let all = gate("branches: []\ngate: { enabled: true }").unwrap();
    assert!(all.counts(&"".into()));
    for narrow in ["include: [a]", "exclude: [a]", "discovery: analytics", "enabled: false"] {
        let told = gate(&format!("cases: {{ {narrow} }}\ngate: {{ enabled: true }}")).unwrap();
        assert!(
            !told.all_cases,
            "{narrow}: a run's counts are of more cases than are read"
        );
    }
    check(
        &empirical("branches: [develop]\ngate: { enabled: true }"),
        &["c.yaml: sources.a.gate.branches: no branch is named; expected at least one that `branches` keeps"],
    );
    check(
        &empirical("gate: { enabled: true, branches: [develop], run_max_age: 5s }"),
        &[
            "c.yaml: sources.a.gate.branches[0]: \"develop\" has no label of its own; expected a branch that `branches` keeps",
            "c.yaml: sources.a.gate.run_max_age: 5s is out of range; expected a duration from 1m to 30d",
        ],
    );
    // As it is after `~.`, which keeps any name, after a list that does not, and without labels.
    for branches in ["~.", "main", ""] {
        check(
            &empirical(&format!(
                "branches: [{branches}]\ngate: {{ enabled: true, branches: [main, '~^release/'] }}"
            )),
            &[
                "c.yaml: sources.a.gate.branches[1]: \"~^release/\" is an expression, and no expressions are taken here; expected the full name of a branch that `branches` keeps",
            ],
        );
    }
    check(
        &empirical("cases: { enabled: false }\ngate: { enabled: true, required: [a] }"),
        &["c.yaml: sources.a.gate.required: cases are named, but cases.enabled is false; expected it to be true"],
    );
}

#[test]
fn who_writes_a_truth_value_for_a_section_is_shown_the_section() {
    for (lines, key, truth) in [
        ("snoozes: true", "snoozes", true),
        ("gate: true", "gate", true),
        ("cases: false", "cases", false),
    ] {
        check(
            &empirical(lines),
            &[&format!(
                "c.yaml: sources.a.{key}: {truth} is not a mapping; expected keys and values such as {key}: {{ enabled: {truth} }}"
            )],
        );
    }
    check(
        &empirical("snoozes: 10m"),
        &["c.yaml: sources.a.snoozes: \"10m\" is not a mapping; expected keys and values"],
    );
}

#[test]
fn the_web_section_is_checked() {
    let address = "expected an IP address and a port such as 0.0.0.0:10955, [::]:10955 or :10955";
    check(
        &beside("web: { listen_address: 'x.example:1' }"),
        &[&format!(
            "c.yaml: web.listen_address: \"x.example:1\" is not an address; {address}"
        )],
    );
    check(
        &beside("web: { listen_address: '1.2.3.4' }"),
        &[&format!(
            "c.yaml: web.listen_address: \"1.2.3.4\" is not an address; {address}"
        )],
    );
    check(
        &beside("web: { listen_address: ':70000' }"),
        &[&format!(
            "c.yaml: web.listen_address: \":70000\" is not an address; {address}"
        )],
    );
    check(
        &beside("web: { telemetry_path: metrics }"),
        &[
            "c.yaml: web.telemetry_path: \"metrics\" is not a path; expected one such as /metrics, of letters, digits and - _ . ~ /",
        ],
    );
    for path in ["/", "/-/healthy", "/-", "/api/v1/status"] {
        check(
            &beside(&format!("web: {{ telemetry_path: '{path}' }}")),
            &[&format!(
                "c.yaml: web.telemetry_path: \"{path}\" is taken; expected a path other than /, /-/... and /api/..."
            )],
        );
    }
    check(
        &beside("web: { config_file: /nowhere/web.yml }"),
        &["/nowhere/web.yml: the file cannot be read: no such file or directory; expected a readable file"],
    );
}

#[test]
fn a_file_that_cannot_be_used_is_one_clear_problem() {
    let unreadable = "this is not readable as YAML; expected valid YAML (look at indentation, quotes and colons here)";
    check("", &["c.yaml: the file is empty; expected a mapping with sources"]);
    check(
        "# only a comment\n",
        &["c.yaml: the file is empty; expected a mapping with sources"],
    );
    check(
        "- a\n",
        &["c.yaml: the file is not a mapping; expected a mapping with sources"],
    );
    check(
        "secret",
        &["c.yaml: the file is not a mapping; expected a mapping with sources"],
    );
    check(
        "log: {}\nlog: {}\n",
        &["c.yaml:2:1: the key \"log\" is there twice; expected each key once"],
    );
    check(
        "log: {}\n---\nlog: {}\n",
        &["c.yaml:3:1: a second document begins here; expected one document in the file"],
    );
    check("log:\n  level: [info\n", &[&format!("c.yaml:2:10: {unreadable}")]);
    check(
        "sources:\n  a:\n    token: *my-secret\n",
        &[&format!("c.yaml:3:12: {unreadable}")],
    );

    let setup = Setup::new("");
    setup.write("c.yaml", vec![b'#'; 1024 * 1024 + 1]);
    assert_eq!(
        setup.problems(&[], &Overrides::default()),
        ["c.yaml: the file is too large; expected at most 1048576 bytes"]
    );
    setup.write("c.yaml", [b'a', b':', 0xff]);
    assert_eq!(
        setup.problems(&[], &Overrides::default()),
        ["c.yaml: the file is not UTF-8; expected a YAML file"]
    );
    fs::remove_file(setup.path("c.yaml")).unwrap();
    assert_eq!(
        setup.problems(&[], &Overrides::default()),
        ["c.yaml: the configuration file cannot be read: no such file or directory; expected a readable YAML file"]
    );
    fs::create_dir(setup.path("c.yaml")).unwrap();
    assert_eq!(
        setup.problems(&[], &Overrides::default()),
        ["c.yaml: this is a directory; expected a YAML file"]
    );
}

#[test]
fn every_problem_is_told_at_once() {
    let text = "webb: {}\nlog: { level: loud }\nsources:\n  a: { kind: x, poll_interval: 5, lookback: y }\n  b: {}\n";
    let problems = Setup::new(text).problems(&[], &Overrides::default());
    assert_eq!(problems.len(), 10, "{problems:#?}");
}

#[test]
fn problems_name_the_variable_or_the_flag_that_they_come_from() {
    check_with(
        &empirical(""),
        &[("TESTRUN_EXPORTER_SOURCES__A__RATE_LIMIT__BURST", "0")],
        &[
            "environment variable TESTRUN_EXPORTER_SOURCES__A__RATE_LIMIT__BURST: sources.a.rate_limit.burst: 0 is out of range; expected a whole number from 1 to 1000",
        ],
    );
    check_with(
        &empirical(""),
        &[("TESTRUN_EXPORTER_LOGLEVEL", "x")],
        &[
            "environment variable TESTRUN_EXPORTER_LOGLEVEL: loglevel: unknown key; expected web, log, state, series_budget or sources",
        ],
    );
    check_with(
        &empirical(""),
        &[("TESTRUN_EXPORTER_SOURCES__A__CASES__IDS", "[ok, \"\"]")],
        &[
            "environment variable TESTRUN_EXPORTER_SOURCES__A__CASES__IDS: sources.a.cases.ids[1]: \"\" is not an id; expected a case's id",
        ],
    );
    let overrides = Overrides {
        log_level: Some("loud".to_owned()),
        ..Overrides::default()
    };
    assert_eq!(
        Setup::new(&empirical("")).problems(&[], &overrides),
        ["flag --log.level: log.level: \"loud\" is not known; expected error, warn, info, debug or trace",]
    );
    let none = load(None, pairs(&[]), &Overrides::default()).map(|_| ()).unwrap_err();
    assert_eq!(
        none.to_string(),
        "configuration: sources: there are no sources; expected at least one, under its name"
    );
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file() {
    let setup = Setup::new(&beside(
        "web: { listen_address: ':1', telemetry_path: /file }\nlog: { level: warn, format: json }",
    ));
    let environment = [
        ("TESTRUN_EXPORTER_WEB__LISTEN_ADDRESS", ":2"),
        ("TESTRUN_EXPORTER_WEB__TELEMETRY_PATH", "/environment"),
    ];
    let overrides = Overrides {
        listen_address: Some(":3".to_owned()),
        ..Overrides::default()
    };
    let config = setup.load(&environment, &overrides).unwrap();
    assert_eq!(config.web.listen_address, "0.0.0.0:3".parse().unwrap());
    assert_eq!(config.web.telemetry_path, "/environment");
    assert!(!config.web.created_timestamps && !config.sources[0].created_timestamps);
    assert_eq!(
        config.log,
        logging::Settings {
            level: LevelFilter::WARN,
            format: logging::Format::Json
        }
    );
}

#[test]
fn who_asks_when_counters_began_is_told_of_all_sources() {
    let asked = |head: &str, environment: &[(&str, &str)], created_timestamps: bool| {
        let overrides = Overrides {
            created_timestamps,
            ..Overrides::default()
        };
        let config = Setup::new(&beside(head)).load(environment, &overrides).unwrap();
        assert!(!config.sources.is_empty());
        assert!(
            config
                .sources
                .iter()
                .all(|source| source.created_timestamps == config.web.created_timestamps)
        );
        config.web.created_timestamps
    };
    let environment = [("TESTRUN_EXPORTER_WEB__CREATED_TIMESTAMPS", "false")];
    assert!(!asked("", &[], false));
    assert!(asked("web: { created_timestamps: true }", &[], false));
    assert!(!asked("web: { created_timestamps: true }", &environment, false));
    assert!(asked("web: { created_timestamps: false }", &environment, true));
}

#[test]
fn a_whole_source_can_come_from_the_environment() {
    let environment = [
        ("TESTRUN_EXPORTER_SOURCES__SHOP__KIND", "empirical"),
        ("TESTRUN_EXPORTER_SOURCES__SHOP__BASE_URL", "https://x.example"),
        ("TESTRUN_EXPORTER_SOURCES__SHOP__TOKEN", "007"),
        ("TESTRUN_EXPORTER_SOURCES__SHOP__RATE_LIMIT__REQUESTS_PER_MINUTE", "0.2"),
        ("TESTRUN_EXPORTER_SOURCES__SHOP__BRANCHES", "[main, ~^release/]"),
        ("TESTRUN_EXPORTER_SERIES_BUDGET", "5000"),
        ("OTHER", "x"),
    ];
    let config = load(None, pairs(&environment), &Overrides::default()).unwrap();
    let [source] = config.sources.as_slice() else {
        panic!("{:?}", config.sources)
    };
    assert_eq!(&*source.name, "shop");
    assert!((source.poll.requests_per_minute - 0.2).abs() < 1e-9);
    assert_eq!(&*source.source.branches.label(Some("release/1")), "release/1");
    assert_eq!(config.series_budget, 5000);
    let Credential::Fixed(token) = &source.transport.credential else {
        panic!("a fixed token")
    };
    assert_eq!(token.expose_secret(), "007");
}

#[test]
fn variables_that_kubernetes_sets_for_a_service_and_those_of_tokens_are_no_configuration() {
    let environment = [
        ("TESTRUN_EXPORTER_SERVICE_HOST", "10.0.0.1"),
        ("TESTRUN_EXPORTER_SERVICE_PORT_HTTP_METRICS", "10955"),
        ("TESTRUN_EXPORTER_PORT", "tcp://10.0.0.1:10955"),
        ("TESTRUN_EXPORTER_PORT_10955_TCP_ADDR", "10.0.0.1"),
        ("TESTRUN_EXPORTER_CANARY_SERVICE_PORT", "10955"),
        ("TESTRUN_EXPORTER_SHOP_TOKEN", "variable-secret\n"),
    ];
    let config = ok_with(&with_token("token_env: TESTRUN_EXPORTER_SHOP_TOKEN"), &environment);
    let Credential::Fixed(token) = &config.sources[0].transport.credential else {
        panic!("a fixed token")
    };
    assert_eq!(token.expose_secret(), "variable-secret");
}

#[test]
fn what_is_allowed_is_allowed() {
    let config = ok(&empirical(
        "project: { slug: shop }\npoll_interval: 1h\nenvironments: { 12: staging, x: live }\nrun_duration_unit: ms\n\
         branches: []\ncases: { ids: [7, abc, 7], discovery: static, include: ['^a'] }",
    ));
    let source = &config.sources[0];
    assert_eq!(source.transport.project_slug.as_deref(), Some("shop"));
    assert_eq!(
        source.poll.stale_after,
        Duration::from_secs(3 * 3600),
        "a slow source is not stale between its rounds"
    );
    let slow = ok(&empirical("rate_limit: { requests_per_minute: 0.2 }"));
    assert_eq!(
        slow.sources[0].poll.stale_after,
        Duration::from_secs(3000),
        "nor within a round that its budget stretches"
    );
    assert_eq!(
        source.source.environments.get("12").map(String::as_str),
        Some("staging")
    );
    assert_eq!(source.source.run_duration_unit, DurationUnit::Milliseconds);
    assert_eq!(source.source.cases.ids, ["7", "abc"]);
    assert_eq!(&*source.source.branches.label(Some("main")), "");
    let url = |text: &str| ok(&with_url(text)).sources[0].transport.base_url.to_string();
    assert_eq!(url("https://x.example/api/v1/"), "https://x.example/api/v1");
    assert_eq!(url("https://x.example"), "https://x.example/");
    for loopback in [
        "http://localhost:1",
        "http://127.0.0.1:1",
        "'http://[::1]:1'",
        "http://a.localhost:1",
    ] {
        url(loopback);
    }
    ok(&format!("{}\n    allow_insecure: true", with_url("http://x.example")));
    for (text, address) in [
        (":10955", "0.0.0.0:10955"),
        ("[::]:1", "[::]:1"),
        ("localhost:1", "127.0.0.1:1"),
    ] {
        let config = ok(&beside(&format!("web: {{ listen_address: '{text}' }}")));
        assert_eq!(config.web.listen_address, address.parse().unwrap());
    }
    let config = ok(&sample_platform("cases: { ids: ['7', 8] }"));
    assert_eq!(config.sources[0].source.cases.ids, ["7", "8"]);
    assert_eq!(config.sources[0].source.cases.discovery, Discovery::Runs);
}

#[test]
fn the_ledgers_directory_starts_at_the_files_own_and_need_not_be_there_yet() {
    let config = ok(&beside("state: { directory: ledger }"));
    let directory = config.state.directory.unwrap();
    assert!(
        directory.is_absolute() && directory.ends_with("ledger"),
        "{}",
        directory.display()
    );
    assert_eq!(
        ok(&beside("state: { directory: /var/lib/x }")).state.directory,
        Some(PathBuf::from("/var/lib/x"))
    );
    check(
        &beside("state: { directory: '' }"),
        &["c.yaml: state.directory: the path is empty; expected the path of a file"],
    );
}

#[test]
fn null_means_the_default_and_sections_may_be_empty() {
    let config = ok(&beside(
        "web:\nlog: { level: null }\nstate: { directory: null }\nseries_budget: null",
    ));
    assert_eq!(config.web.listen_address, LISTEN_ADDRESS_DEFAULT);
    assert_eq!(config.series_budget, 100_000);
    assert_eq!(config.log, logging::Settings::default());
}

#[test]
fn the_commands_without_a_file_obey_flags_and_environment_only() {
    let environment = [
        ("TESTRUN_EXPORTER_LOG__LEVEL", "debug"),
        ("TESTRUN_EXPORTER_SOURCES__A__KIND", "x"),
    ];
    let overrides = Overrides {
        listen_address: Some(":1".to_owned()),
        ..Overrides::default()
    };
    let (web, log) = load_process(pairs(&environment), &overrides).unwrap();
    assert_eq!(web.listen_address, "0.0.0.0:1".parse().unwrap());
    assert_eq!(log.level, LevelFilter::DEBUG);
}

#[test]
fn a_token_is_not_in_what_debugging_shows() {
    let setup = Setup::new(&format!(
        "{}  b: {{ kind: empirical, base_url: https://x.example, token_file: good }}",
        empirical("")
    ));
    let config = setup.load(&[], &Overrides::default()).unwrap();
    let shown = format!("{config:?}");
    assert!(shown.contains("REDACTED") && !shown.contains("secret"), "{shown}");
    assert!(!config.sources[0].summary().contains("secret"));
    assert!(matches!(&config.sources[1].transport.credential, Credential::File(path) if *path == setup.path("good")));
}

#[test]
fn durations_are_read_and_shown_in_one_form() {
    for text in ["1ms", "1500ms", "60d", "1s", "59m", "25h"] {
        let config = ok(&sample_platform("lookback: 60d"));
        assert_eq!(read::shown_duration(config.sources[0].source.lookback), "60d");
        let parsed = read::parse_duration(text).unwrap();
        assert_eq!(read::shown_duration(parsed), text);
    }
    assert_eq!(read::parse_duration("1h30m"), Some(Duration::from_secs(5400)));
    for text in [
        "",
        "5",
        "s",
        "1m1h",
        "1s1s",
        "1 s",
        "99999999999999999999s",
        "9999999999999999999d",
        "1w",
        "+1s",
    ] {
        assert_eq!(read::parse_duration(text), None, "{text:?}");
    }
}

/// The files under `config/`, with tokens in a directory of the test's own.
fn example(name: &str) -> Config {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)).unwrap();
    let setup = Setup::new("");
    for token in ["shop", "ccextractor"] {
        setup.write(token, format!("{token}-token\n"));
    }
    setup.write(
        "c.yaml",
        text.replace(
            "/var/run/secrets/testrun-exporter",
            &setup.directory.path().display().to_string(),
        ),
    );
    let mut config = setup
        .load(&[], &Overrides::default())
        .unwrap_or_else(|problems| panic!("{name}: {problems}"));
    for source in &mut config.sources {
        source.transport.credential = Credential::File(PathBuf::from("token"));
    }
    config
}

#[test]
fn every_example_loads() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.len() >= 4, "{names:?}");
    for name in names {
        assert!(!example(&name).sources.is_empty());
    }
}

#[test]
fn the_reference_shows_the_defaults_of_the_code_and_both_kinds() {
    let reference = example("reference.yaml");
    assert_eq!(
        format!("{reference:?}"),
        format!("{:?}", example("testrun-exporter.yaml"))
    );
    let kinds: Vec<Kind> = reference.sources.iter().map(|source| source.source.kind).collect();
    assert_eq!(kinds, [Kind::SamplePlatform, Kind::Empirical]);
}

#[test]
fn the_summary_is_one_line_for_people() {
    let summaries: Vec<String> = example("testrun-exporter.yaml")
        .sources
        .iter()
        .map(SourceConfig::summary)
        .collect();
    assert_eq!(
        summaries,
        [
            "ccextractor: sample_platform at https://sampleplatform.ccextractor.org/api/v1, cases from runs, a round every 1m, at most 60 requests a minute",
            "shop: empirical at https://api.empirical.run/, cases from run_details, a round every 1m, at most 60 requests a minute",
        ]
    );
}

#[test]
fn a_running_process_goes_on_under_other_sources_but_not_at_another_place() {
    let source = empirical("");
    let running = ok(&source);
    let check = |head: &str, expected: &[&str]| {
        let refused = running.admits(&ok(&format!("{head}\n{source}")), "c.yaml");
        let keys: Vec<_> = refused
            .err()
            .iter()
            .flat_map(Problems::iter)
            .map(ToString::to_string)
            .collect();
        let all = "this cannot change while the process runs; expected the former value, or a restart";
        let expected: Vec<_> = expected.iter().map(|key| format!("c.yaml: {key}: {all}")).collect();
        assert_eq!(keys, expected, "{head}");
    };
    check("", &[]);
    check("log: { level: debug }\nseries_budget: 7", &[]);
    check("web: { created_timestamps: true }", &[]);
    check("log: { format: json }", &["log.format"]);
    check("state: { directory: /ledger }", &["state.directory"]);
    check(
        "web: { listen_address: ':1', telemetry_path: /m, enable_lifecycle: true }",
        &["web.listen_address", "web.telemetry_path", "web.enable_lifecycle"],
    );
    running.admits(&ok(&sample_platform("poll_interval: 5s")), "").unwrap();
}
