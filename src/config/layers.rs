//! Where values come from: the file, the environment, the flags, merged by figment, which remembers each value's origin.
//! The environment is handed in. Nothing here knows which keys exist.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use figment::providers::Format;
use figment::value::{Dict, Map, Tag, Value};
use figment::{Figment, Metadata, Profile, Provider};
use regex::Regex;
use serde_saphyr::figment::Yaml;

use super::problems::Problem;

/// What every variable's name starts with.
pub const ENVIRONMENT_PREFIX: &str = "TESTRUN_EXPORTER_";

/// A configuration for a thousand sources is well below this; a larger file is a mistaken path.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

const FILE: &str = "file";
const ENVIRONMENT: &str = "environment";
const FLAGS: &str = "flags";

/// What the command line says. A flag beats everything else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--web.listen-address`
    pub listen_address: Option<String>,
    /// `--web.telemetry-path`
    pub telemetry_path: Option<String>,
    /// `--web.config.file`
    pub web_config_file: Option<String>,
    /// `--web.enable-lifecycle`; when it is not given, the environment and the file decide.
    pub enable_lifecycle: bool,
    /// `--web.created-timestamps`; the same.
    pub created_timestamps: bool,
    /// `--log.level`
    pub log_level: Option<String>,
    /// `--log.format`
    pub log_format: Option<String>,
}

/// A value as somebody wrote it: who to name, and the text before it was given a type.
#[derive(Debug)]
struct Written {
    place: String,
    text: String,
}

type KeyPath = Vec<String>;

/// The merged values and their origins.
pub(super) struct Layers {
    figment: Figment,
    file: Option<PathBuf>,
    environment: BTreeMap<KeyPath, Written>,
    flags: BTreeMap<KeyPath, Written>,
    variables: BTreeMap<String, String>,
}

impl Layers {
    pub(super) fn gather(
        file: Option<&Path>,
        variables: BTreeMap<String, String>,
        overrides: &Overrides,
    ) -> Result<Self, Problem> {
        let file_values = file.map(read_file).transpose()?.unwrap_or_default();
        let (environment, environment_values) = from_environment(&variables);
        let (flags, flag_values) = from_flags(overrides);
        let figment = Figment::from(Layer {
            name: FILE,
            values: file_values,
        })
        .merge(Layer {
            name: ENVIRONMENT,
            values: environment_values,
        })
        .merge(Layer {
            name: FLAGS,
            values: flag_values,
        });
        Ok(Self {
            figment,
            file: file.map(Path::to_owned),
            environment,
            flags,
            variables,
        })
    }

    /// The whole merged configuration.
    pub(super) fn root(&self) -> Dict {
        self.figment
            .find_value("")
            .ok()
            .and_then(Value::into_dict)
            .unwrap_or_default()
    }

    /// Who to name for a problem with a value.
    pub(super) fn place(&self, path: &[String], tag: Tag) -> String {
        match self.written(path, tag) {
            Some(written) => written.place.clone(),
            None => self.default_place(),
        }
    }

    /// Who to name for something that is missing.
    pub(super) fn default_place(&self) -> String {
        self.file
            .as_ref()
            .map_or_else(|| "configuration".to_owned(), |file| file.display().to_string())
    }

    /// The text of a variable or a flag, if that is where this very value comes from. `007` is a fine token, and no number.
    pub(super) fn text(&self, path: &[String], tag: Tag) -> Option<&str> {
        let written = self.layer(tag)?.get(path)?;
        Some(&written.text)
    }

    /// A relative path in the file starts at the file's directory, any other at the working directory.
    pub(super) fn resolve(&self, text: &str, tag: Tag) -> PathBuf {
        let directory = self
            .file
            .as_deref()
            .and_then(Path::parent)
            .filter(|_| self.layer(tag).is_none());
        directory.map_or_else(|| PathBuf::from(text), |directory| directory.join(text))
    }

    /// Any variable of the environment, for `token_env`.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// The variable's name, if the value comes from one.
    pub(super) fn variable_name(&self, path: &[String], tag: Tag) -> Option<String> {
        let place = self.place(path, tag);
        place.strip_prefix("environment variable ").map(str::to_owned)
    }

    fn written(&self, path: &[String], tag: Tag) -> Option<&Written> {
        let layer = self.layer(tag)?;
        // A variable may hold a list or a map, whose members are found under the variable's own, shorter path; and a map
        // may come from several variables, of which the first stands for all.
        let inherited = (0..=path.len()).rev().find_map(|length| layer.get(&path[..length]));
        inherited.or_else(|| {
            layer
                .iter()
                .find(|(known, _)| known.starts_with(path))
                .map(|(_, written)| written)
        })
    }

    fn layer(&self, tag: Tag) -> Option<&BTreeMap<KeyPath, Written>> {
        match self.figment.get_metadata(tag)?.name.as_ref() {
            ENVIRONMENT => Some(&self.environment),
            FLAGS => Some(&self.flags),
            _ => None,
        }
    }
}

/// Values of one origin, as figment wants them.
struct Layer {
    name: &'static str,
    values: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

fn read_file(path: &Path) -> Result<Dict, Problem> {
    let place = path.display().to_string();
    let problem = |message: String| Problem::new(&place, "", message);
    let unreadable = |error: std::io::Error| {
        problem(format!(
            "the configuration file cannot be read: {}; expected a readable YAML file",
            reason(&error)
        ))
    };
    let file = File::open(path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.is_dir() {
        return Err(problem("this is a directory; expected a YAML file".to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(problem(format!(
            "the file is too large; expected at most {FILE_BYTES_MAX} bytes"
        )));
    }
    let text =
        String::from_utf8(bytes).map_err(|_| problem("the file is not UTF-8; expected a YAML file".to_owned()))?;
    match Yaml::from_str::<Value>(&text) {
        Ok(Value::Dict(_, values)) => Ok(values),
        Ok(Value::Empty(..)) => Err(problem("the file is empty; expected a mapping with sources".to_owned())),
        Ok(_) => Err(problem(
            "the file is not a mapping; expected a mapping with sources".to_owned(),
        )),
        Err(error) => Err(syntax_problem(&place, &error)),
    }
}

/// The parser's own words may quote the file, and a token with it, so they are told only where they are known to name
/// a key.
fn syntax_problem(place: &str, error: &serde_saphyr::Error) -> Problem {
    let error = error.without_snippet();
    let at = error
        .location()
        .map(|at| format!(":{}:{}", at.line(), at.column()))
        .unwrap_or_default();
    let message = match error {
        serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("the key {key:?} is there twice; expected each key once")
        }
        serde_saphyr::Error::DuplicateMappingKey { .. } => "a key is there twice; expected each key once".to_owned(),
        serde_saphyr::Error::MultipleDocuments { .. } => {
            "a second document begins here; expected one document in the file".to_owned()
        }
        _ => {
            "this is not readable as YAML; expected valid YAML (look at indentation, quotes and colons here)".to_owned()
        }
    };
    Problem::new(format!("{place}{at}"), "", message)
}

/// An operating system's error in its own words, without the number.
pub(super) fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

type WrittenValues = (BTreeMap<KeyPath, Written>, Dict);

/// `TESTRUN_EXPORTER_SOURCES__SHOP__BASE_URL` is `sources.shop.base_url`. Values get their type the way figment's own
/// environment provider gives it: `[a, b]` is a list, `5` a number, `true` a truth value, the rest text.
fn from_environment(variables: &BTreeMap<String, String>) -> WrittenValues {
    let mut written = BTreeMap::new();
    let mut values = Dict::new();
    for (name, text) in variables {
        let Some(key) = name
            .strip_prefix(ENVIRONMENT_PREFIX)
            .filter(|key| !is_service_link(key))
        else {
            continue;
        };
        let path: KeyPath = key.split("__").map(str::to_ascii_lowercase).collect();
        let value = text.parse().unwrap_or_else(|never| match never {});
        insert(&mut values, &path, value);
        written.insert(
            path,
            Written {
                place: format!("environment variable {name}"),
                text: text.clone(),
            },
        );
    }
    (written, values)
}

/// Kubernetes tells each pod of the services beside it: next to a service called `testrun-exporter` there is a
/// `TESTRUN_EXPORTER_SERVICE_HOST`, which nobody meant as configuration.
fn is_service_link(key: &str) -> bool {
    static LINK: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(
            "^([A-Z0-9_]+_)?(SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$",
        )
        .ok()
    });
    !key.contains("__") && LINK.as_ref().is_some_and(|link| link.is_match(key))
}

fn from_flags(overrides: &Overrides) -> WrittenValues {
    let yes = |given: bool| given.then(|| "true".to_owned());
    let (lifecycle, created) = (yes(overrides.enable_lifecycle), yes(overrides.created_timestamps));
    let given = [
        (
            "--web.listen-address",
            ["web", "listen_address"],
            &overrides.listen_address,
        ),
        (
            "--web.telemetry-path",
            ["web", "telemetry_path"],
            &overrides.telemetry_path,
        ),
        ("--web.config.file", ["web", "config_file"], &overrides.web_config_file),
        ("--web.enable-lifecycle", ["web", "enable_lifecycle"], &lifecycle),
        ("--web.created-timestamps", ["web", "created_timestamps"], &created),
        ("--log.level", ["log", "level"], &overrides.log_level),
        ("--log.format", ["log", "format"], &overrides.log_format),
    ];
    let mut written = BTreeMap::new();
    let mut values = Dict::new();
    for (flag, path, text) in given {
        let Some(text) = text else { continue };
        let path: KeyPath = path.map(str::to_owned).to_vec();
        let value = match flag {
            "--web.enable-lifecycle" | "--web.created-timestamps" => Value::from(true),
            _ => Value::from(text.as_str()),
        };
        insert(&mut values, &path, value);
        written.insert(
            path,
            Written {
                place: format!("flag {flag}"),
                text: text.clone(),
            },
        );
    }
    (written, values)
}

fn insert(dict: &mut Dict, path: &[String], value: Value) {
    match path {
        [] => {}
        [last] => {
            dict.insert(last.clone(), value);
        }
        [first, rest @ ..] => {
            let mut inner = dict.remove(first).and_then(Value::into_dict).unwrap_or_default();
            insert(&mut inner, rest, value);
            dict.insert(first.clone(), Value::from(inner));
        }
    }
}
