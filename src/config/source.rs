//! One source's section: ranges, defaults, and what each kind of platform allows.
//! Never shows a token or a URL, whatever is wrong with it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::SignedDuration;
use secrecy::{ExposeSecret, SecretString};
use url::{Host, Url};

use super::SourceConfig;
use super::layers;
use super::read::{Item, Section, either, quoted, shown_duration};
use crate::health::{self, WINDOW_MAX};
use crate::model::Name;
use crate::poll;
use crate::promotion;
use crate::sources::{self, BranchRule, Branches, CaseSettings, Discovery, DurationUnit, Kind};
use crate::transport::http::{self, Credential};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

const KINDS: &[(&str, Kind)] = &[
    ("empirical", Kind::Empirical),
    ("sample_platform", Kind::SamplePlatform),
];

/// Upstream's rate limits are counted by the minute: more than one round a second only ever hits them.
const POLL_INTERVAL: RangeInclusive<Duration> = SECOND..=DAY;
const POLL_INTERVAL_DEFAULT: Duration = MINUTE;

/// No request of either platform is worth ten minutes.
const REQUEST_TIMEOUT: RangeInclusive<Duration> = SECOND..=Duration::from_secs(600);
const REQUEST_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// Empirical's analytics look back 90 days at the most.
const LOOKBACK_EMPIRICAL: RangeInclusive<Duration> = DAY..=Duration::from_secs(90 * 24 * 60 * 60);
const LOOKBACK_SAMPLE_PLATFORM: RangeInclusive<Duration> = DAY..=Duration::from_secs(365 * 24 * 60 * 60);
const LOOKBACK_DEFAULT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A case that runs once a week, or only before a release, outlives the pause; a renamed one should not stay for ever.
const SERIES_TTL: RangeInclusive<Duration> = DAY..=Duration::from_secs(365 * 24 * 60 * 60);
const SERIES_TTL_DEFAULT: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// Data older than a month is history, not state.
const STALE_AFTER: RangeInclusive<Duration> = SECOND..=Duration::from_secs(30 * 24 * 60 * 60);
const STALE_AFTER_DEFAULT: Duration = Duration::from_secs(15 * 60);
/// A slow source may miss a round or two before its data goes.
const STALE_AFTER_ROUNDS: u32 = 3;
/// A slow budget stretches a round far beyond its interval: its data must outlast so many requests.
const STALE_AFTER_REQUESTS: f64 = 10.0;

/// From one request in a hundred minutes to a hundred in a second.
const REQUESTS_PER_MINUTE: RangeInclusive<f64> = 0.01..=6000.0;
const REQUESTS_PER_MINUTE_DEFAULT: f64 = 60.0;
const BURST: RangeInclusive<u64> = 1..=1000;
const BURST_DEFAULT: u64 = 10;

/// Bytes of one answer. The least still holds a page of runs.
const RESPONSE_BYTES: RangeInclusive<u64> = 64 * 1024..=256 * 1024 * 1024;
const RESPONSE_BYTES_DEFAULT: u64 = 16 * 1024 * 1024;

const CASES: RangeInclusive<u64> = 1..=100_000;
const CASES_DEFAULT: u64 = 10_000;
/// Empirical refuses larger batches.
const BATCH_SIZE: RangeInclusive<u64> = 1..=500;
const BATCH_SIZE_DEFAULT: u64 = 50;
/// Longer than an hour, and results would be given up before they are asked for twice.
const ANALYTICS_LAG: RangeInclusive<Duration> = SECOND..=HOUR;
const ANALYTICS_LAG_DEFAULT: Duration = Duration::from_secs(3 * 60);

/// Headers as long as this are refused by most servers.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Snoozes are made by people, for days.
const SNOOZES_INTERVAL: RangeInclusive<Duration> = MINUTE..=DAY;
const SNOOZES_INTERVAL_DEFAULT: Duration = Duration::from_secs(10 * 60);

/// A promotion that rests on a run of last month rests on nothing.
const RUN_MAX_AGE: RangeInclusive<Duration> = MINUTE..=Duration::from_secs(30 * 24 * 60 * 60);
const RUN_MAX_AGE_DEFAULT: Duration = DAY;
/// Of fewer results nothing is learned, more are not held.
const HEALTH_WINDOW: RangeInclusive<u64> = 10..=WINDOW_MAX as u64;
const QUIET_AFTER: RangeInclusive<Duration> = HOUR..=Duration::from_secs(365 * 24 * 60 * 60);
/// A number of results, commits or flips: no window holds more.
const RESULTS: RangeInclusive<u64> = 1..=WINDOW_MAX as u64;
const FAILURE_SHARE: RangeInclusive<f64> = 0.0..=1.0;
const INFRASTRUCTURE_RESULTS: RangeInclusive<u64> = 1..=100_000;
/// With 1 no mass failure is ever put down to the infrastructure.
const BELIEVED_AFTER: RangeInclusive<u64> = 1..=100;

const BRANCHES_DEFAULT: [&str; 2] = ["main", "master"];
const TOKEN_EXPECTED: &str = "the platform's API token";
const EMPIRICAL_ONLY: &str = "only empirical sources have this key; expected it to be left out";

const DISCOVERIES_EMPIRICAL: &[(&str, Discovery)] = &[
    ("run_details", Discovery::RunDetails),
    ("analytics", Discovery::Analytics),
    ("registry", Discovery::Registry),
    ("static", Discovery::Static),
];
const DISCOVERIES_SAMPLE_PLATFORM: &[(&str, Discovery)] = &[
    ("runs", Discovery::Runs),
    ("samples", Discovery::Samples),
    ("static", Discovery::Static),
];

/// The word in the configuration.
pub(super) fn discovery_word(discovery: Discovery) -> &'static str {
    let mut all = DISCOVERIES_EMPIRICAL.iter().chain(DISCOVERIES_SAMPLE_PLATFORM);
    all.find(|(_, known)| *known == discovery).map_or("", |(word, _)| word)
}

/// The source, and its token as of now. `None`: a key without a default is missing or wrong.
pub(super) fn read_source(name: &str, mut source: Section<'_>) -> Option<(SourceConfig, SecretString)> {
    let kind = read_kind(&mut source);
    let base_url = read_base_url(&mut source);
    let credential = read_credential(&mut source);
    let (project_id, project_slug) = read_project(&mut source, kind);
    let request_timeout = source
        .take("request_timeout")
        .and_then(|item| item.duration(&REQUEST_TIMEOUT));
    let body_bytes_max = source
        .take("response_bytes_max")
        .and_then(|item| item.whole(&RESPONSE_BYTES));
    let ca_file = source.take("ca_file").and_then(|item| readable_file(&item));
    let poll = read_poll(&mut source);
    let settings = read_settings(&mut source, kind);
    let promotion = read_gate(source.switched_section("gate"), &settings);
    let health = read_health(source.section("health"));
    source.finish();

    let (kind, base_url, (credential, token)) = (kind?, base_url?, credential?);
    let transport = http::Settings {
        base_url,
        credential,
        project_id,
        project_slug,
        request_timeout: request_timeout.unwrap_or(REQUEST_TIMEOUT_DEFAULT),
        body_bytes_max: body_bytes_max.unwrap_or(RESPONSE_BYTES_DEFAULT),
        ca_file,
    };
    let source = sources::Settings { kind, ..settings };
    Some((
        SourceConfig {
            name: Name::from(name),
            transport,
            poll,
            source,
            promotion,
            health,
            created_timestamps: false,
        },
        token,
    ))
}

fn read_kind(source: &mut Section<'_>) -> Option<Kind> {
    let Some(item) = source.take("kind") else {
        source.missing("kind", "this is missing; expected empirical or sample_platform");
        return None;
    };
    item.choice(KINDS)
}

fn read_base_url(source: &mut Section<'_>) -> Option<Url> {
    const EXPECTED: &str = "the URL of the platform's API such as https://api.empirical.run";
    let insecure = source
        .take("allow_insecure")
        .and_then(|item| item.truth())
        .unwrap_or_default();
    let Some(item) = source.take("base_url") else {
        source.missing("base_url", format!("this is missing; expected {EXPECTED}"));
        return None;
    };
    let text = item.secret(EXPECTED)?;
    match check_url(&text, insecure) {
        Ok(url) => Some(url),
        Err(Wrong::NotUrl) => {
            item.problem(format!("this is not a URL; expected {EXPECTED}"));
            None
        }
        Err(Wrong::Part(message)) => {
            item.problem(message);
            None
        }
    }
}

enum Wrong {
    NotUrl,
    Part(&'static str),
}

fn check_url(text: &str, insecure: bool) -> Result<Url, Wrong> {
    let mut url = Url::parse(text).map_err(|_| Wrong::NotUrl)?;
    let host = url.host().ok_or(Wrong::NotUrl)?;
    let loopback = match host {
        Host::Domain(name) => name == "localhost" || name.ends_with(".localhost"),
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    };
    match url.scheme() {
        "https" => {}
        "http" if loopback || insecure => {}
        "http" => {
            let message = "the token would be sent unencrypted; expected an https URL (or allow_insecure: true)";
            return Err(Wrong::Part(message));
        }
        _ => {
            return Err(Wrong::Part(
                "the scheme is neither https nor http; expected an https URL",
            ));
        }
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Wrong::Part(
            "the URL holds a user name or password; expected a URL without (see token_file)",
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(Wrong::Part(
            "the URL holds a query or a fragment; expected a URL that ends with its path",
        ));
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

fn read_credential(source: &mut Section<'_>) -> Option<(Credential, SecretString)> {
    const EXPECTED: &str = "exactly one of token_file, token_env and token";
    let given = [
        ("token_file", source.take("token_file")),
        ("token_env", source.take("token_env")),
        ("token", source.take("token")),
    ];
    let given: Vec<_> = given.into_iter().filter_map(|(key, item)| Some((key, item?))).collect();
    // Told before anything else: a variable that is named here is no configuration key, whatever else is wrong.
    for (_, item) in given.iter().filter(|(key, _)| *key == "token_env") {
        if let Some(name) = item.secret("the name of a variable that holds the token") {
            item.reader.token_variable(&name);
        }
    }
    match given.as_slice() {
        [("token_file", item)] => token_from_file(item),
        [("token_env", item)] => token_from_variable(item),
        [(_, item)] => fixed(item, &item.secret(TOKEN_EXPECTED)?),
        [] => {
            source.missing("", format!("there is no token; expected {EXPECTED}"));
            None
        }
        several => {
            let keys = several.iter().map(|(key, _)| *key).collect::<Vec<_>>().join(" and ");
            source.missing("", format!("{keys} are set at once; expected {EXPECTED}"));
            None
        }
    }
}

fn token_from_file(item: &Item<'_>) -> Option<(Credential, SecretString)> {
    let text = item.secret("the path of a file that holds the token")?;
    if text.is_empty() {
        item.problem("the path is empty; expected the path of a file that holds the token");
        return None;
    }
    // Neither the path nor the content is shown: people have been seen to put the token in the path's place.
    let path = item.reader.layers.resolve(&text, item.tag());
    item.reader.file_read(path.clone());
    let content = match read_token_file(&path) {
        Ok(content) => content,
        Err(why) => {
            item.problem(format!(
                "the file cannot be read: {why}; expected a file that holds the token"
            ));
            return None;
        }
    };
    let (_, token) = fixed(item, one_line(content.expose_secret()))?;
    Some((Credential::File(path), token))
}

/// Without the line break that editors and `echo` leave.
fn one_line(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

fn read_token_file(path: &Path) -> Result<SecretString, String> {
    let file = open_file(path)?;
    let mut bytes = Vec::new();
    file.take(TOKEN_BYTES_MAX as u64 + 3)
        .read_to_end(&mut bytes)
        .map_err(|error| layers::reason(&error))?;
    Ok(SecretString::from(String::from_utf8_lossy(&bytes).into_owned()))
}

fn open_file(path: &Path) -> Result<File, String> {
    let metadata = std::fs::metadata(path).map_err(|error| layers::reason(&error))?;
    // Asked before it is opened, because opening a pipe waits for somebody at its other end.
    if !metadata.is_file() {
        return Err("it is not a file".to_owned());
    }
    File::open(path).map_err(|error| layers::reason(&error))
}

fn readable_file(item: &Item<'_>) -> Option<PathBuf> {
    let path = item.file()?;
    item.reader.file_read(path.clone());
    match open_file(&path) {
        Ok(_) => Some(path),
        Err(why) => {
            let shown = quoted(&path.display().to_string());
            item.problem(format!("{shown} cannot be read: {why}; expected a readable file"));
            None
        }
    }
}

fn token_from_variable(item: &Item<'_>) -> Option<(Credential, SecretString)> {
    let name = item.secret("the name of a variable that holds the token")?;
    let Some(text) = item.reader.layers.variable(&name) else {
        item.problem("the environment variable that this names is not set; expected it to hold the token");
        return None;
    };
    fixed(item, one_line(text))
}

fn fixed(item: &Item<'_>, token: &str) -> Option<(Credential, SecretString)> {
    let wrong = if token.is_empty() {
        Some("the token is empty; expected the platform's API token")
    } else if token.len() > TOKEN_BYTES_MAX {
        Some("the token is longer than 8192 bytes; expected the platform's API token")
    } else if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        Some(
            "the token holds a space, a line break or a character that is not ASCII; expected one line of visible ASCII",
        )
    } else {
        None
    };
    if let Some(wrong) = wrong {
        item.problem(wrong);
        return None;
    }
    Some((Credential::Fixed(SecretString::from(token)), SecretString::from(token)))
}

fn read_project(source: &mut Section<'_>, kind: Option<Kind>) -> (Option<u64>, Option<String>) {
    if kind == Some(Kind::SamplePlatform) {
        source.refuse("project", EMPIRICAL_ONLY);
        return (None, None);
    }
    let mut project = source.section("project");
    let (id, slug) = (project.take("id"), project.take("slug"));
    if id.is_some() && slug.is_some() {
        project.missing("", "id and slug are set at once; expected one of them");
    }
    let id = id.and_then(|item| item.whole(&(1..=u64::MAX)));
    let slug = slug.and_then(|item| {
        let text = item.text("the project's slug")?;
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            item.problem(format!(
                "{} is not a slug; expected visible ASCII without spaces",
                quoted(&text)
            ));
            return None;
        }
        Some(text)
    });
    project.finish();
    (id, slug)
}

fn read_poll(source: &mut Section<'_>) -> poll::Settings {
    let interval = source
        .take("poll_interval")
        .and_then(|item| item.duration(&POLL_INTERVAL));
    let interval = interval.unwrap_or(POLL_INTERVAL_DEFAULT);
    let stale_after = source.take("stale_after").and_then(|item| {
        let stale_after = item.duration(&STALE_AFTER)?;
        if stale_after < interval {
            let (short, least) = (shown_duration(stale_after), shown_duration(interval));
            item.problem(format!(
                "{short} is shorter than poll_interval; expected at least {least}"
            ));
        }
        Some(stale_after)
    });
    let mut rate_limit = source.section("rate_limit");
    let requests_per_minute = rate_limit
        .take("requests_per_minute")
        .and_then(|item| item.number(&REQUESTS_PER_MINUTE))
        .unwrap_or(REQUESTS_PER_MINUTE_DEFAULT);
    let burst = rate_limit
        .take("burst")
        .and_then(|item| item.whole(&BURST))
        .unwrap_or(BURST_DEFAULT);
    rate_limit.finish();
    let requests = Duration::from_secs_f64(STALE_AFTER_REQUESTS * 60.0 / requests_per_minute);
    let stale_default = STALE_AFTER_DEFAULT.max(interval * STALE_AFTER_ROUNDS).max(requests);
    poll::Settings {
        interval,
        stale_after: stale_after.unwrap_or(stale_default),
        requests_per_minute,
        burst: u32::try_from(burst).unwrap_or(u32::MAX),
    }
}

/// While the kind is not known, the keys and ranges of either are let through.
fn read_settings(source: &mut Section<'_>, kind: Option<Kind>) -> sources::Settings {
    let lookback = match kind {
        Some(Kind::Empirical) => LOOKBACK_EMPIRICAL,
        Some(Kind::SamplePlatform) | None => LOOKBACK_SAMPLE_PLATFORM,
    };
    let lookback = source.take("lookback").and_then(|item| item.duration(&lookback));
    let series_ttl = source.take("series_ttl").and_then(|item| item.duration(&SERIES_TTL));
    let branches = read_branches(source);
    let (environments, run_duration_unit, snoozes) = if kind == Some(Kind::SamplePlatform) {
        source.refuse("environments", EMPIRICAL_ONLY);
        source.refuse("run_duration_unit", EMPIRICAL_ONLY);
        source.refuse("snoozes", EMPIRICAL_ONLY);
        (BTreeMap::new(), DurationUnit::Auto, None)
    } else {
        let environments = read_environments(source);
        let unit = read_duration_unit(source);
        (environments, unit, read_snoozes(source.switched_section("snoozes")))
    };
    sources::Settings {
        kind: kind.unwrap_or(Kind::Empirical),
        lookback: lookback.unwrap_or(LOOKBACK_DEFAULT),
        series_ttl: series_ttl.unwrap_or(SERIES_TTL_DEFAULT),
        branches,
        environments,
        run_duration_unit,
        snoozes,
        cases: read_cases(source.switched_section("cases"), kind),
    }
}

fn read_health(mut health: Section<'_>) -> health::Settings {
    let mut settings = health::Settings::default();
    take_count(&mut health, "window", &HEALTH_WINDOW, &mut settings.window);
    if let Some(quiet_after) = health.take("quiet_after").and_then(|item| item.duration(&QUIET_AFTER)) {
        settings.quiet_after = quiet_after;
    }
    let counts = [
        ("broken_results", &mut settings.broken_results),
        ("regressed_commits", &mut settings.regressed_commits),
        ("regressed_runs", &mut settings.regressed_runs),
        ("flaky_flips", &mut settings.flaky_flips),
        ("min_results", &mut settings.min_results),
    ];
    for (key, setting) in counts {
        let Some(item) = take_count(&mut health, key, &RESULTS, setting) else {
            continue;
        };
        if *setting > settings.window {
            item.problem(format!(
                "{setting} is more than the window holds; expected at most {}",
                settings.window
            ));
        }
    }
    let odds = [
        ("regression_probability", &mut settings.regression_probability),
        ("flaky_probability", &mut settings.flaky_probability),
    ];
    for (key, setting) in odds {
        take_share(&mut health, key, setting);
    }
    let mut infrastructure = health.section("infrastructure");
    let spoilt = &mut settings.infrastructure;
    take_count(
        &mut infrastructure,
        "min_results",
        &INFRASTRUCTURE_RESULTS,
        &mut spoilt.min_results,
    );
    take_share(&mut infrastructure, "failed_share", &mut spoilt.failed_share);
    take_share(&mut infrastructure, "sudden_share", &mut spoilt.sudden_share);
    take_count(
        &mut infrastructure,
        "believed_after",
        &BELIEVED_AFTER,
        &mut spoilt.believed_after,
    );
    infrastructure.finish();
    health.finish();
    settings
}

/// Takes a whole number, if there is one; gives where it stands.
fn take_count<'a, N: TryFrom<u64>>(
    section: &mut Section<'a>,
    key: &'static str,
    range: &RangeInclusive<u64>,
    setting: &mut N,
) -> Option<Item<'a>> {
    let item = section.take(key)?;
    *setting = N::try_from(item.whole(range)?).ok()?;
    Some(item)
}

fn take_share(section: &mut Section<'_>, key: &'static str, setting: &mut f64) {
    if let Some(share) = section.take(key).and_then(|item| item.number(&FAILURE_SHARE)) {
        *setting = share;
    }
}

fn read_branches(source: &mut Section<'_>) -> Branches {
    const EXPECTED: &str = "a branch's name, or ~ and a regular expression";
    let Some(item) = source.take("branches") else {
        return Branches::new(BRANCHES_DEFAULT.map(|name| BranchRule::Exact(name.to_owned())).to_vec());
    };
    let rule = |item: Item<'_>| {
        let text = item.text(EXPECTED)?;
        if text.is_empty() {
            item.problem(format!("the name is empty; expected {EXPECTED}"));
            return None;
        }
        match text.strip_prefix('~') {
            Some(expression) => item.compile(expression).map(BranchRule::Pattern),
            None => Some(BranchRule::Exact(text)),
        }
    };
    Branches::new(
        item.list("a list such as [main, ~^release/]")
            .into_iter()
            .filter_map(rule)
            .collect(),
    )
}

fn read_environments(source: &mut Section<'_>) -> BTreeMap<String, String> {
    let members = source.section("environments").members();
    let name = |(id, item): (String, Item<'_>)| {
        let name = item.text("the environment's name")?;
        if name.is_empty() {
            item.problem("the name is empty; expected the environment's name");
        }
        Some((id, name))
    };
    members.into_iter().filter_map(name).collect()
}

fn read_duration_unit(source: &mut Section<'_>) -> DurationUnit {
    let units = [
        ("auto", DurationUnit::Auto),
        ("ms", DurationUnit::Milliseconds),
        ("s", DurationUnit::Seconds),
    ];
    source
        .take("run_duration_unit")
        .and_then(|item| item.choice(&units))
        .unwrap_or_default()
}

/// What has to hold for a promotion, if anybody asks.
fn read_gate(mut gate: Section<'_>, settings: &sources::Settings) -> Option<promotion::Settings> {
    let enabled = gate.take("enabled").and_then(|item| item.truth()).unwrap_or_default();
    let is_kept = |name: &str| {
        let label = settings.branches.label(Some(name));
        label.is_empty() || *label == *name
    };
    let branches = match gate.take("branches") {
        None => BRANCHES_DEFAULT
            .into_iter()
            .filter(|name| is_kept(name))
            .map(Name::from)
            .collect(),
        Some(item) => {
            let mut names = Vec::new();
            for item in item.list("a list of branches") {
                let Some(name) = item.text("a branch's name") else {
                    continue;
                };
                // No branch can be called so; taken for a name, it would be waited for without end.
                if name.starts_with('~') {
                    let name = quoted(&name);
                    item.problem(format!(
                        "{name} is an expression, and no expressions are taken here; expected the full name of a branch that `branches` keeps"
                    ));
                } else if !is_kept(&name) {
                    let name = quoted(&name);
                    item.problem(format!(
                        "{name} has no label of its own; expected a branch that `branches` keeps"
                    ));
                }
                names.push(Name::from(name));
            }
            names
        }
    };
    let run_max_age = gate.take("run_max_age").and_then(|item| item.duration(&RUN_MAX_AGE));
    let required = gate.take("required").map(read_rules).unwrap_or_default();
    let cases = &settings.cases;
    if enabled && branches.is_empty() && !settings.branches.label(None).is_empty() {
        gate.missing(
            "branches",
            "no branch is named; expected at least one that `branches` keeps",
        );
    }
    if enabled && !required.is_empty() && !cases.enabled {
        gate.missing(
            "required",
            "cases are named, but cases.enabled is false; expected it to be true",
        );
    }
    gate.finish();
    let all_cases = cases.enabled
        && cases.include.is_empty()
        && cases.exclude.is_empty()
        && matches!(
            cases.discovery,
            Discovery::RunDetails | Discovery::Registry | Discovery::Runs
        );
    let run_max_age = run_max_age.unwrap_or(RUN_MAX_AGE_DEFAULT);
    enabled.then(|| promotion::Settings {
        branches,
        run_max_age: SignedDuration::try_from(run_max_age).unwrap_or(SignedDuration::MAX),
        required,
        all_cases,
    })
}

/// How often they are read, if they are.
fn read_snoozes(mut snoozes: Section<'_>) -> Option<Duration> {
    let enabled = snoozes.take("enabled").and_then(|item| item.truth());
    let interval = snoozes
        .take("interval")
        .and_then(|item| item.duration(&SNOOZES_INTERVAL));
    snoozes.finish();
    enabled
        .unwrap_or_default()
        .then(|| interval.unwrap_or(SNOOZES_INTERVAL_DEFAULT))
}

fn read_cases(mut cases: Section<'_>, kind: Option<Kind>) -> CaseSettings {
    let enabled = cases.take("enabled").and_then(|item| item.truth()).unwrap_or(true);
    let discovery = cases.take("discovery").and_then(|item| read_discovery(&item, kind));
    let ids = cases.take("ids").map(|item| read_ids(item, kind)).unwrap_or_default();
    if enabled && discovery == Some(Discovery::Static) && ids.is_empty() {
        cases.missing(
            "ids",
            "discovery is static, but there are no ids; expected at least one",
        );
    }
    let include = cases.take("include").map(read_rules).unwrap_or_default();
    let exclude = cases.take("exclude").map(read_rules).unwrap_or_default();
    let max = cases
        .take("max")
        .and_then(|item| item.whole(&CASES))
        .unwrap_or(CASES_DEFAULT);
    let batch_size = if kind == Some(Kind::SamplePlatform) {
        cases.refuse("batch_size", EMPIRICAL_ONLY);
        None
    } else {
        cases.take("batch_size").and_then(|item| item.whole(&BATCH_SIZE))
    };
    let analytics_lag = if kind == Some(Kind::SamplePlatform) {
        cases.refuse("analytics_lag", EMPIRICAL_ONLY);
        None
    } else {
        cases
            .take("analytics_lag")
            .and_then(|item| item.duration(&ANALYTICS_LAG))
    };
    cases.finish();
    CaseSettings {
        enabled,
        discovery: discovery.unwrap_or(match kind {
            Some(Kind::SamplePlatform) => Discovery::Runs,
            Some(Kind::Empirical) | None => Discovery::RunDetails,
        }),
        ids,
        include,
        exclude,
        max: usize::try_from(max).unwrap_or(usize::MAX),
        batch_size: usize::try_from(batch_size.unwrap_or(BATCH_SIZE_DEFAULT)).unwrap_or(usize::MAX),
        analytics_lag: analytics_lag.unwrap_or(ANALYTICS_LAG_DEFAULT),
    }
}

fn read_discovery(item: &Item<'_>, kind: Option<Kind>) -> Option<Discovery> {
    let (own, foreign) = match kind {
        None => {
            let all: Vec<_> = [DISCOVERIES_EMPIRICAL, DISCOVERIES_SAMPLE_PLATFORM].concat();
            return item.choice(&all);
        }
        Some(Kind::Empirical) => (DISCOVERIES_EMPIRICAL, DISCOVERIES_SAMPLE_PLATFORM),
        Some(Kind::SamplePlatform) => (DISCOVERIES_SAMPLE_PLATFORM, DISCOVERIES_EMPIRICAL),
    };
    let expected = either(own.iter().map(|(word, _)| *word));
    let text = item.text(&expected)?;
    let is_foreign = !own.iter().any(|(word, _)| *word == text) && foreign.iter().any(|(word, _)| *word == text);
    if is_foreign {
        item.problem(format!(
            "{} is for the other kind of platform; expected {expected}",
            quoted(&text)
        ));
        return None;
    }
    item.choice(own)
}

fn read_ids(item: Item<'_>, kind: Option<Kind>) -> Vec<String> {
    let mut ids: Vec<String> = Vec::new();
    for item in item.list("a list of ids") {
        let id = match kind {
            Some(Kind::SamplePlatform) => read_sample_id(&item),
            Some(Kind::Empirical) | None => item.id("a case's id"),
        };
        // Ids may be repeated: asking twice would only cost requests.
        ids.extend(id.filter(|id| !ids.contains(id)));
    }
    ids
}

fn read_sample_id(item: &Item<'_>) -> Option<String> {
    const EXPECTED: &str = "a sample's id, a whole number above 0";
    let text = item.id(EXPECTED)?;
    let id = text.parse::<u64>().ok().filter(|id| *id > 0);
    if id.is_none() {
        item.problem(format!("{} is not an id; expected {EXPECTED}", quoted(&text)));
    }
    id.map(|id| id.to_string())
}

fn read_rules(item: Item<'_>) -> Vec<regex::Regex> {
    item.list("a list of regular expressions")
        .iter()
        .filter_map(Item::regex)
        .collect()
}
