//! The configuration: figment in, a checked `Config` out, or every problem with its place and what was expected.
//! Never reads the environment itself (it is handed in) and never starts anything.
//!
//! A value comes from a flag, else from the environment, else from the file, else it is the default that stands here in
//! the code; `null` means the default. Names of sources that come from the environment are in lower case.

mod layers;
mod problems;
mod read;
mod source;
mod watch;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

pub use layers::{ENVIRONMENT_PREFIX, Overrides};
pub use problems::{Problem, Problems};
pub use watch::{Fingerprint, Watch};

use crate::health;
use crate::model::Name;
use crate::web::access::Access;
use crate::{logging, poll, promotion, sources, transport};
use layers::Layers;
use read::{Item, Reader, Section, quoted};

/// Where to listen unless told otherwise.
pub const LISTEN_ADDRESS_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 10955);

const TELEMETRY_PATH_DEFAULT: &str = "/metrics";
const SERIES_BUDGET_DEFAULT: u64 = 100_000;

/// Ten million series are several gigabytes of text for each scrape: no Prometheus takes that from one target.
const SERIES_BUDGET: RangeInclusive<u64> = 1..=10_000_000;

/// Prometheus labels may be longer, but a source's name is typed by people into queries.
const SOURCE_NAME_CHARS_MAX: usize = 64;

/// Everything that `run` needs to know, within its documented ranges.
#[derive(Debug, Clone)]
pub struct Config {
    /// How it is served.
    pub web: WebSettings,
    /// How it is logged.
    pub log: logging::Settings,
    /// What survives a restart.
    pub state: StateSettings,
    /// The ceiling for per-case series, all sources together.
    pub series_budget: usize,
    /// By name; never empty.
    pub sources: Vec<SourceConfig>,
}

impl Config {
    /// Whether a running process can go on under another configuration. `place`: where that comes from, for people. Flags and
    /// the environment are the same as long as it runs, so it is the file that has changed.
    ///
    /// # Errors
    /// The keys that a restart is needed for. Nothing is taken over then: a process that obeys half of its file is
    /// worse than one that obeys the last file that it could.
    pub fn admits(&self, next: &Self, place: &str) -> Result<(), Problems> {
        let fixed = [
            ("web.listen_address", self.web.listen_address != next.web.listen_address),
            ("web.telemetry_path", self.web.telemetry_path != next.web.telemetry_path),
            ("web.config_file", self.web.config_file != next.web.config_file),
            (
                "web.enable_lifecycle",
                self.web.enable_lifecycle != next.web.enable_lifecycle,
            ),
            ("log.format", self.log.format != next.log.format),
            ("state.directory", self.state.directory != next.state.directory),
        ];
        let changed: Vec<_> = fixed
            .into_iter()
            .filter(|(_, changed)| *changed)
            .map(|(key, _)| {
                let message = "this cannot change while the process runs; expected the former value, or a restart";
                Problem::new(place, key, message)
            })
            .collect();
        if changed.is_empty() {
            Ok(())
        } else {
            Err(Problems::new(changed, Vec::new()))
        }
    }

    /// The files that it was made from, beside the configuration file and those that are read whenever they are used.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.sources
            .iter()
            .filter_map(|source| source.transport.ca_file.as_deref())
    }
}

/// How the exporter is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSettings {
    /// The socket.
    pub listen_address: SocketAddr,
    /// The path of the metrics.
    pub telemetry_path: String,
    /// TLS and passwords.
    pub config_file: Option<PathBuf>,
    /// Whether `POST /-/reload` is there.
    pub enable_lifecycle: bool,
    /// Whether counters tell when they began.
    pub created_timestamps: bool,
}

impl WebSettings {
    /// What the file for TLS and passwords says and what does nothing here, or not what it seems.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.config_file.as_deref().map(Access::warnings).unwrap_or_default()
    }
}

/// What survives a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateSettings {
    /// The ledger's directory; none: memory only.
    pub directory: Option<PathBuf>,
}

/// One source: each room's own settings, and the name that binds them.
#[derive(Debug, Clone)]
pub struct SourceConfig {
    /// The `source` label.
    pub name: Name,
    /// How it is reached.
    pub transport: transport::http::Settings,
    /// When it is asked.
    pub poll: poll::Settings,
    /// What it is asked.
    pub source: sources::Settings,
    /// What has to hold for a promotion; `None`: nobody asks.
    pub promotion: Option<promotion::Settings>,
    /// How its cases are judged.
    pub health: health::Settings,
    /// [`WebSettings::created_timestamps`], for the store to know.
    pub created_timestamps: bool,
}

impl SourceConfig {
    /// The source in one line, for people.
    #[must_use]
    pub fn summary(&self) -> String {
        let cases = if self.source.cases.enabled {
            format!("cases from {}", source::discovery_word(self.source.cases.discovery))
        } else {
            "no cases".to_owned()
        };
        format!(
            "{}: {} at {}, {cases}, a round every {}, at most {} requests a minute",
            self.name,
            self.source.kind.label(),
            self.transport.base_url,
            read::shown_duration(self.poll.interval),
            self.poll.requests_per_minute,
        )
    }
}

/// Gathers, checks and returns the configuration.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    overrides: &Overrides,
) -> Result<Config, Problems> {
    let reader = open(file, environment, overrides)?;
    let mut root = reader.root();
    let (web, log) = read_process(&mut root);
    let state = read_state(root.section("state"));
    let series_budget = root.take("series_budget").and_then(|item| item.whole(&SERIES_BUDGET));
    let mut sources = read_sources(root.section("sources"));
    for source in &mut sources {
        source.created_timestamps = web.created_timestamps;
    }
    root.finish();
    checked(reader)?;
    Ok(Config {
        web,
        log,
        state,
        series_budget: usize::try_from(series_budget.unwrap_or(SERIES_BUDGET_DEFAULT)).unwrap_or(usize::MAX),
        sources,
    })
}

/// What the commands without a configuration file (`demo`, `simulate`) obey: the sections `web` and `log`, from flags and
/// environment. Sources that the environment describes are none of their business.
///
/// # Errors
/// Everything that is wrong with these two sections.
pub fn load_process(
    environment: impl Iterator<Item = (String, String)>,
    overrides: &Overrides,
) -> Result<(WebSettings, logging::Settings), Problems> {
    let reader = open(None, environment, overrides)?;
    let process = read_process(&mut reader.root());
    checked(reader)?;
    Ok(process)
}

fn open(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    overrides: &Overrides,
) -> Result<Reader, Problems> {
    let layers = Layers::gather(file, environment.collect::<BTreeMap<_, _>>(), overrides);
    layers
        .map(Reader::new)
        .map_err(|problem| Problems::new(vec![problem], Vec::new()))
}

fn checked(reader: Reader) -> Result<(), Problems> {
    match reader.into_problems() {
        Some(problems) => Err(problems),
        None => Ok(()),
    }
}

fn read_process(root: &mut Section<'_>) -> (WebSettings, logging::Settings) {
    (read_web(root.section("web")), read_log(root.section("log")))
}

fn read_web(mut web: Section<'_>) -> WebSettings {
    let listen_address = web.take("listen_address").and_then(|item| listen_address(&item));
    let telemetry_path = web.take("telemetry_path").and_then(|item| telemetry_path(&item));
    let config_file = web.take("config_file").and_then(|item| web_config_file(&item));
    let enable_lifecycle = web.take("enable_lifecycle").and_then(|item| item.truth());
    let created_timestamps = web.take("created_timestamps").and_then(|item| item.truth());
    web.finish();
    WebSettings {
        listen_address: listen_address.unwrap_or(LISTEN_ADDRESS_DEFAULT),
        telemetry_path: telemetry_path.unwrap_or_else(|| TELEMETRY_PATH_DEFAULT.to_owned()),
        config_file,
        enable_lifecycle: enable_lifecycle.unwrap_or_default(),
        created_timestamps: created_timestamps.unwrap_or_default(),
    }
}

/// The file has a format of its own, and its problems have their own place.
fn web_config_file(item: &Item<'_>) -> Option<PathBuf> {
    let file = item.file()?;
    let checked = Access::check(&file);
    for read in checked.files {
        item.reader.file_read(read);
    }
    for problem in checked.problems {
        let place = format!("{}{}", file.display(), problem.place());
        let key: Vec<_> = Some(problem.key).filter(|key| !key.is_empty()).into_iter().collect();
        item.reader.note(place, &key, problem.message);
    }
    Some(file)
}

fn listen_address(item: &Item<'_>) -> Option<SocketAddr> {
    const EXPECTED: &str = "an IP address and a port such as 0.0.0.0:10955, [::]:10955 or :10955";
    let text = item.text(EXPECTED)?;
    let address = match text.rsplit_once(':') {
        Some(("", port)) => format!("{}:{port}", Ipv4Addr::UNSPECIFIED),
        Some(("localhost", port)) => format!("{}:{port}", Ipv4Addr::LOCALHOST),
        _ => text.clone(),
    };
    let address = address.parse().ok();
    if address.is_none() {
        item.problem(format!("{} is not an address; expected {EXPECTED}", quoted(&text)));
    }
    address
}

fn telemetry_path(item: &Item<'_>) -> Option<String> {
    let text = item.text("a path such as /metrics")?;
    let plain = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte));
    if !text.starts_with('/') || !plain {
        item.problem(format!(
            "{} is not a path; expected one such as /metrics, of letters, digits and - _ . ~ /",
            quoted(&text)
        ));
        return None;
    }
    if text == "/"
        || ["/-", "/api"]
            .iter()
            .any(|taken| text == *taken || text.starts_with(&format!("{taken}/")))
    {
        item.problem(format!(
            "{} is taken; expected a path other than /, /-/... and /api/...",
            quoted(&text)
        ));
        return None;
    }
    Some(text)
}

fn read_log(mut log: Section<'_>) -> logging::Settings {
    let level = log.take("level").and_then(|item| item.choice(logging::LEVELS));
    let format = log.take("format").and_then(|item| item.choice(logging::FORMATS));
    log.finish();
    let default = logging::Settings::default();
    logging::Settings {
        level: level.unwrap_or(default.level),
        format: format.unwrap_or(default.format),
    }
}

/// Whether the directory can be used is found out when it is, or by `check-config`, which must not make it.
fn read_state(mut state: Section<'_>) -> StateSettings {
    let directory = state.take("directory").and_then(|item| item.file());
    state.finish();
    StateSettings { directory }
}

/// A source that was read, and the token that it had at that moment.
struct Candidate {
    config: SourceConfig,
    token: SecretString,
    place: String,
    path: Vec<String>,
}

fn read_sources(sources: Section<'_>) -> Vec<SourceConfig> {
    let (reader, path) = (sources.reader, sources.path.clone());
    let is_broken = sources.is_broken();
    let members = sources.members();
    if members.is_empty() && !is_broken {
        reader.note(
            reader.layers.default_place(),
            &path,
            "there are no sources; expected at least one, under its name",
        );
    }
    let mut candidates: Vec<Candidate> = Vec::new();
    for (name, item) in members {
        check_name(&name, &item);
        let (place, path) = (reader.layers.place(&item.path, item.tag()), item.path.clone());
        let Some((config, token)) = source::read_source(&name, item.into_section()) else {
            continue;
        };
        candidates.push(Candidate {
            config,
            token,
            place,
            path,
        });
    }
    refuse_twins(reader, &candidates);
    candidates.into_iter().map(|candidate| candidate.config).collect()
}

fn check_name(name: &str, item: &Item<'_>) {
    let plain = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if name.is_empty() || name.len() > SOURCE_NAME_CHARS_MAX || !plain {
        item.problem(format!(
            "this is no name for a source; expected 1 to {SOURCE_NAME_CHARS_MAX} letters, digits and _ . -"
        ));
    }
}

/// Two sources with one URL and one token would spend one rate budget without knowing of each other.
fn refuse_twins(reader: &Reader, candidates: &[Candidate]) {
    for (index, later) in candidates.iter().enumerate() {
        let twin = candidates[..index].iter().find(|earlier| {
            earlier.config.transport.base_url == later.config.transport.base_url && same(&earlier.token, &later.token)
        });
        if let Some(twin) = twin {
            let message = format!(
                "base_url and token are those of {}, so both would spend one rate budget; expected one source, or a token for each",
                twin.path.join(".")
            );
            reader.note(later.place.clone(), &later.path, message);
        }
    }
}

/// Compares without stopping at the first difference.
fn same(left: &SecretString, right: &SecretString) -> bool {
    let (left, right) = (left.expose_secret().as_bytes(), right.expose_secret().as_bytes());
    left.len() == right.len() && left.iter().zip(right).fold(0, |seen, (a, b)| seen | (a ^ b)) == 0
}
