//! The rules that are written down, executed: who imports whom, what a room never names, and that the documents, the
//! examples and the deployment files say what the code does. Reads the repository's own files; runs nothing.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test, as its own lines do")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use regex::Regex;
use serde_json::Value;
use testrun_exporter::config::{self, Overrides};

// ---- who imports whom -----------------------------------------------------------------------------------------------

/// A room, the rooms of ours that it may name, and the words that do not occur in its code.
struct Room {
    name: &'static str,
    may_name: &'static [&'static str],
    never_names: &'static [&'static str],
}

/// Words that mean input, output, time or the outside: absent from everything that only computes.
const IMPURE: &[&str] = &[
    "tokio",
    "tracing",
    "reqwest",
    "hyper",
    "prometheus",
    "rand",
    "Instant",
    "SystemTime",
    "async",
    "await",
    "env",
];

/// The import diagram of ARCHITECTURE.md. A room that is not listed here fails the test: say first what it may name.
const ROOMS: &[Room] = &[
    Room {
        name: "model",
        may_name: &["packed"],
        never_names: IMPURE,
    },
    Room {
        name: "packed",
        may_name: &[],
        never_names: IMPURE,
    },
    Room {
        name: "health",
        may_name: &["model"],
        never_names: IMPURE,
    },
    Room {
        name: "transport",
        may_name: &[],
        never_names: &["prometheus", "tracing", "rand", "SystemTime"],
    },
    Room {
        name: "sources",
        may_name: &["model", "packed", "transport"],
        never_names: IMPURE,
    },
    Room {
        name: "promotion",
        may_name: &["model"],
        never_names: IMPURE,
    },
    Room {
        name: "store",
        may_name: &["health", "model", "packed", "promotion"],
        never_names: IMPURE,
    },
    Room {
        name: "poll",
        may_name: &["model", "sources", "status", "transport"],
        never_names: &["prometheus", "reqwest", "hyper", "rand", "serde_json"],
    },
    Room {
        name: "metrics",
        may_name: &["health", "model", "promotion", "store"],
        never_names: &["tokio", "reqwest", "hyper", "async", "await", "rand"],
    },
    Room {
        name: "web",
        may_name: &[],
        never_names: &["prometheus", "reqwest", "rand", "SystemTime"],
    },
    Room {
        name: "status",
        may_name: &["model"],
        never_names: IMPURE,
    },
    Room {
        name: "logging",
        may_name: &[],
        never_names: &["tokio", "reqwest", "hyper", "prometheus"],
    },
    Room {
        name: "config",
        may_name: &[
            "health",
            "logging",
            "model",
            "poll",
            "promotion",
            "sources",
            "transport",
            "web",
        ],
        never_names: &["tokio", "reqwest", "hyper", "prometheus", "async", "await", "rand"],
    },
    Room {
        name: "cli",
        may_name: &["config"],
        never_names: &["tokio", "reqwest", "hyper", "prometheus", "async"],
    },
    Room {
        name: "simulate",
        may_name: &["model", "sources", "transport"],
        never_names: &["reqwest", "prometheus", "SystemTime"],
    },
    Room {
        name: "app",
        may_name: &[
            "cli",
            "config",
            "logging",
            "metrics",
            "model",
            "poll",
            "simulate",
            "sources",
            "status",
            "store",
            "transport",
            "web",
        ],
        never_names: &["prometheus"],
    },
    Room {
        name: "fuzz",
        may_name: &["poll", "sources", "transport", "web"],
        never_names: &[
            "tokio",
            "tracing",
            "reqwest",
            "prometheus",
            "rand",
            "SystemTime",
            "async",
            "await",
        ],
    },
    Room {
        name: "main",
        may_name: &["app", "cli", "config", "logging"],
        never_names: &["prometheus", "reqwest"],
    },
];

#[test]
fn a_room_names_only_the_rooms_that_the_diagram_lets_it_name() {
    let mut wrong = Vec::new();
    for file in shipped() {
        let room = file.room();
        let Some(rule) = ROOMS.iter().find(|rule| rule.name == room) else {
            wrong.push(format!(
                "{}: the room {room} is not in the table of this test",
                file.path
            ));
            continue;
        };
        for named in file.rooms_named() {
            if named != room && !rule.may_name.contains(&named.as_str()) {
                wrong.push(format!("{}: {room} names {named}", file.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_room_does_not_contain_the_words_that_it_refuses() {
    let mut wrong = Vec::new();
    for file in shipped() {
        for rule in ROOMS.iter().filter(|rule| rule.name == file.room()) {
            for word in rule.never_names.iter().filter(|word| file.contains_word(word)) {
                wrong.push(format!("{}: {} says {word}", file.path, rule.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_room_of_the_table_is_in_the_code_and_in_the_architecture() {
    let rooms: BTreeSet<_> = shipped().iter().map(SourceFile::room).collect();
    let architecture = text("ARCHITECTURE.md");
    for room in ROOMS {
        assert!(rooms.contains(room.name), "{} is not in src/", room.name);
        assert!(
            architecture.contains(&format!("`{}`", room.name)),
            "ARCHITECTURE.md does not mention `{}`",
            room.name
        );
    }
}

/// A word, and the beginnings of the paths that may say it.
fn only_these_say(word: &str, places: &[&str]) {
    let wrong: Vec<_> = shipped()
        .into_iter()
        .filter(|file| file.contains_word(word) && !places.iter().any(|place| file.path.starts_with(place)))
        .map(|file| file.path)
        .collect();
    assert!(wrong.is_empty(), "only {places:?} may say {word}, but so do {wrong:?}");
}

#[test]
fn one_file_names_the_http_client_and_one_room_the_metrics_library() {
    only_these_say("reqwest", &["src/transport/http"]);
    only_these_say("prometheus", &["src/metrics/"]);
}

#[test]
fn only_the_application_reads_entropy_and_only_the_edge_reads_the_environment() {
    // The simulator's dice are seeded: they are no entropy.
    only_these_say("rand", &["src/app", "src/simulate/dice.rs"]);
    only_these_say("vars_os", &["src/main.rs"]);
}

/// What is only read has its shape from a platform, and belongs to the wire files. What is also written is state of ours.
#[test]
fn replies_are_given_types_by_the_wire_files_alone() {
    let derive = Regex::new(r"derive\(([^)]*)\)|\bDeserialize<'\w+>\s+for\b").unwrap();
    for file in shipped().iter().filter(|file| file.room() == "sources") {
        let door = file.path.ends_with("/wire.rs") || file.path.ends_with("/loose.rs");
        let only_read = derive.captures_iter(&file.code).any(|found| {
            found.get(1).is_none_or(|traits| {
                let traits: Vec<_> = traits.as_str().split(',').map(str::trim).collect();
                traits.contains(&"Deserialize") && !traits.contains(&"Serialize")
            })
        });
        assert!(door || !only_read, "{} has types that are only read", file.path);
        let reads = file.code.contains("serde_json::from_");
        assert!(
            !reads || file.path == "src/sources/loose.rs",
            "{} reads JSON by itself",
            file.path
        );
    }
}

#[test]
fn there_is_no_global_state() {
    let global = Regex::new(concat!(
        r"\bstatic\s+mut\b|lazy_static!|thread_local!|default_registry|prometheus::(gather|register)\b",
        r"|\bstatic\s+[A-Z_]+\s*:\s*[^=;]*\b(Mutex|RwLock|RefCell|Cell|OnceLock|OnceCell|Atomic\w+)\b",
    ))
    .unwrap();
    for file in shipped() {
        assert!(!global.is_match(&file.code), "{} has global state", file.path);
    }
}

#[test]
fn every_module_says_at_its_head_what_it_is() {
    for file in shipped() {
        assert!(
            file.source.starts_with("//! "),
            "{} does not begin with a module document",
            file.path
        );
    }
}

#[test]
fn the_reader_of_code_sees_through_comments_strings_and_nested_imports() {
    let file = SourceFile::new(
        "src/store/cases.rs",
        "//! Says tokio.\nuse crate::{model::Run, poll, web::{A, B}};\nuse super::super::metrics::own;\n\
         /* crate::app */ const A: &str = \"crate::cli\"; // crate::main\nlet c = '\"'; let r = r#\"\"crate::config\"\"#;\n\
         #[cfg(test)]\nmod tests { use crate::sources; }\n",
    );
    let named: Vec<_> = file.rooms_named().into_iter().collect();
    assert_eq!(named, ["metrics", "model", "poll", "web"]);
    assert!(!file.contains_word("tokio") && file.contains_word("Run"));
}

/// A file of the shipped code: without its tests, its comments and its strings.
struct SourceFile {
    path: String,
    source: String,
    code: String,
}

impl SourceFile {
    fn new(path: &str, source: &str) -> Self {
        let shipped = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        Self {
            path: path.to_owned(),
            source: source.to_owned(),
            code: without_comments_and_strings(shipped),
        }
    }

    /// `src/store/cases.rs` and `src/store.rs` are both the room `store`.
    fn room(&self) -> String {
        let inside = self.path.trim_start_matches("src/");
        let first = inside.split('/').next().unwrap_or_default();
        first.trim_end_matches(".rs").to_owned()
    }

    /// How many modules stand around this file's code.
    fn depth(&self) -> usize {
        let parts = self.path.trim_start_matches("src/").split('/').count();
        if self.path.ends_with("/mod.rs") {
            parts - 1
        } else {
            parts
        }
    }

    /// Every room that the code names, by `crate::`, by the library's name, or by climbing out with `super::`.
    fn rooms_named(&self) -> BTreeSet<String> {
        let paths = Regex::new(r"(crate|testrun_exporter|(?:\bsuper::)*super)::(\{)?").unwrap();
        let mut named = BTreeSet::new();
        for found in paths.captures_iter(&self.code) {
            let root = &found[1];
            if root.starts_with("super") && root.split("::").count() != self.depth() {
                continue;
            }
            let rest = &self.code[found.get(0).map_or(0, |all| all.end())..];
            let firsts = if found.get(2).is_some() {
                firsts_of_group(rest)
            } else {
                vec![first_word(rest)]
            };
            // What begins with a capital is an item that climbing out has reached, not a room.
            named.extend(
                firsts
                    .into_iter()
                    .filter(|word| word.starts_with(|c: char| c.is_ascii_lowercase())),
            );
        }
        named
    }

    fn contains_word(&self, word: &str) -> bool {
        Regex::new(&format!(r"\b{word}\b")).unwrap().is_match(&self.code)
    }
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The first word of each member of `a::b, c, d::{e, f}}`, up to the closing brace.
fn firsts_of_group(text: &str) -> Vec<String> {
    let (mut depth, mut begins, mut firsts) = (0, true, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '}' if depth == 0 => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            c if begins && !c.is_whitespace() => {
                firsts.push(first_word(&text[at..]));
                begins = false;
            }
            _ => {}
        }
    }
    firsts
}

fn without_comments_and_strings(source: &str) -> String {
    // In this order, so that a quote in a comment and two slashes in a string are what they are.
    let noise = concat!(
        r"(?s)//[^\n]*|/\*.*?\*/",
        r####"|b?r###".*?"###|b?r##".*?"##|b?r#".*?"#"####,
        r#"|'\\?[^\n]'|b?"(?:[^"\\]|\\.)*""#,
    );
    let noise = Regex::new(noise).unwrap();
    noise.replace_all(source, " ").into_owned()
}

/// All files of `src/` but the ones that hold tests.
fn shipped() -> Vec<SourceFile> {
    let files: Vec<_> = files_under("src", &["rs"])
        .into_iter()
        .filter(|path| !path.ends_with("tests.rs") && path != "src/lib.rs")
        .map(|path| SourceFile::new(&path, &text(&path)))
        .collect();
    assert!(files.len() > 30, "the walk over src/ found only {} files", files.len());
    files
}

// ---- documents ------------------------------------------------------------------------------------------------------

#[test]
fn the_reference_and_its_document_have_the_same_keys() {
    let reference = reference_keys();
    let documented = documented_keys();
    let names = |keys: &BTreeMap<String, String>| keys.keys().cloned().collect::<BTreeSet<_>>();
    let (reference_names, documented_names) = (names(&reference), names(&documented));
    let missing: Vec<_> = reference_names.difference(&documented_names).collect();
    let invented: Vec<_> = documented_names.difference(&reference_names).collect();
    assert!(missing.is_empty(), "docs/configuration.md lacks {missing:?}");
    assert!(invented.is_empty(), "config/reference.yaml lacks {invented:?}");
    for (key, default) in documented.iter().filter(|(_, default)| default.starts_with('`')) {
        assert_eq!(default.trim_matches('`'), reference[key], "the default of {key}");
    }
}

/// Every key of config/reference.yaml that is no section, with its value; a source's name is `<name>`.
fn reference_keys() -> BTreeMap<String, String> {
    let root: Value = serde_saphyr::from_str(&text("config/reference.yaml")).unwrap();
    let mut keys = BTreeMap::new();
    gather_keys("", &root, &mut keys);
    keys
}

fn gather_keys(path: &str, value: &Value, keys: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (key, value) in members {
                let key = if path == "sources" { "<name>" } else { key };
                let path = if path.is_empty() {
                    key.to_owned()
                } else {
                    format!("{path}.{key}")
                };
                gather_keys(&path, value, keys);
            }
        }
        value => {
            keys.entry(path.to_owned()).or_insert_with(|| yaml_of(value));
        }
    }
}

fn yaml_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(yaml_of).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

/// The rows of the tables in docs/configuration.md: `| key | default | range | meaning |`.
fn documented_keys() -> BTreeMap<String, String> {
    let row = Regex::new(r"(?m)^\| `([a-z_<>.]+)` \| ([^|]+) \|[^|]*\|[^|]*\|$").unwrap();
    let document = text("docs/configuration.md");
    row.captures_iter(&document)
        .map(|found| (found[1].to_owned(), found[2].trim().to_owned()))
        .collect()
}

#[test]
fn every_metric_that_a_document_or_a_deployment_file_mentions_exists() {
    let known = metrics();
    let recorded = recorded();
    let mention = Regex::new(r"(\b[a-z_]+:)?\btestrun_[a-z0-9_]+(:[a-z0-9_]+)?").unwrap();
    let mut wrong = Vec::new();
    for path in documents()
        .into_iter()
        .chain(files_under("deploy", &["yml", "yaml", "md", "json"]))
    {
        for found in mention.find_iter(&text(&path)) {
            let name = found.as_str();
            // The library's own name, and families by their common beginning.
            let whole = name == "testrun_exporter" || is_metric(&known, name) || recorded.contains(name);
            let family = name.ends_with('_') && known.iter().any(|metric| metric.starts_with(name));
            if !whole && !family {
                wrong.push(format!("{path}: {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn metrics() -> BTreeSet<String> {
    let row = Regex::new(r"(?m)^\| `((?:testrun|process)_[a-z_]+)` \|").unwrap();
    let names: BTreeSet<_> = row
        .captures_iter(&text("METRICS.md"))
        .map(|found| found[1].to_owned())
        .collect();
    assert!(names.len() > 40, "METRICS.md lists only {} metrics", names.len());
    names
}

/// What the recording rules make, by its name.
fn recorded() -> BTreeSet<String> {
    let record = Regex::new(r"(?m)^ *- record: (\S+)$").unwrap();
    let names: BTreeSet<_> = record
        .captures_iter(&text("deploy/prometheus/rules.yml"))
        .map(|found| found[1].to_owned())
        .collect();
    assert!(names.len() > 3, "rules.yml records only {} series", names.len());
    names
}

fn is_metric(known: &BTreeSet<String>, name: &str) -> bool {
    let base = ["_bucket", "_sum", "_count"]
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix));
    known.contains(name) || base.is_some_and(|base| known.contains(base))
}

#[test]
fn alerts_are_complete_and_ask_only_for_metrics_that_exist() {
    let known = metrics();
    let recorded = recorded();
    let word = Regex::new(r"(\b[a-z_]+:)?\b(?:testrun|process)_[a-z_]+(:[a-z0-9_]+)?").unwrap();
    let tests = ["alerts_test", "alerts_days_test"].map(|name| text(&format!("deploy/prometheus/{name}.yml")));
    let rules: Value = serde_saphyr::from_str(&text("deploy/prometheus/alerts.yml")).unwrap();
    let groups = rules["groups"].as_array().unwrap();
    let alerts: Vec<_> = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap())
        .collect();
    assert!(alerts.len() >= 7);
    for alert in alerts {
        let name = alert["alert"].as_str().unwrap();
        let expression = alert["expr"].as_str().unwrap();
        for found in word.find_iter(expression) {
            assert!(
                is_metric(&known, found.as_str()) || recorded.contains(found.as_str()),
                "{name}: {} does not exist",
                found.as_str()
            );
        }
        for field in [
            "/for",
            "/labels/severity",
            "/annotations/summary",
            "/annotations/description",
        ] {
            assert!(alert.pointer(field).is_some(), "{name} lacks {field}");
        }
        let runbook = alert
            .pointer("/annotations/runbook_url")
            .and_then(Value::as_str)
            .unwrap();
        let anchor = runbook.split_once("docs/alerts.md#").map(|(_, anchor)| anchor);
        let anchor = anchor.unwrap_or_else(|| panic!("{name}: the runbook is not in docs/alerts.md"));
        assert!(
            anchors("docs/alerts.md").contains(anchor),
            "{name}: docs/alerts.md has no section {anchor}"
        );
        let tested = format!("alertname: {name}");
        assert!(tests.iter().any(|text| text.contains(&tested)), "{name} has no test");
    }
}

#[test]
fn every_configuration_that_is_shown_loads() {
    let mut shown = Vec::new();
    for path in documents() {
        for block in code_blocks(&text(&path), "yaml") {
            if block.starts_with("sources:") || block.contains("\nsources:") {
                loads(&path, &block);
                shown.push(path.clone());
            }
        }
    }
    assert!(
        shown.contains(&"README.md".to_owned()),
        "the README's configuration is not found"
    );
    for path in files_under("deploy", &["yaml"]) {
        let content = text(&path);
        if content.contains("\nsources:") {
            loads(&path, &content);
        }
    }
}

/// With the token files that it names replaced: what is tested is the document, not this machine.
fn loads(place: &str, configuration: &str) {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "made-up\n").unwrap();
    let token_file = Regex::new(r"token_file: \S+").unwrap();
    let replacement = format!("token_file: {}", token.display());
    let configuration = token_file.replace_all(configuration, replacement.as_str());
    let file = directory.path().join("testrun-exporter.yaml");
    std::fs::write(&file, &*configuration).unwrap();
    let loaded = config::load(Some(&file), std::iter::empty(), &Overrides::default());
    if let Err(problems) = loaded {
        panic!("{place}: {problems}\n{configuration}");
    }
}

#[test]
fn the_readme_marks_the_commands_that_are_run() {
    let readme = text("README.md");
    for (mark, command) in [
        ("<!-- ci:run -->", "cargo run --release -- demo"),
        ("<!-- ci:test -->", "cargo test"),
    ] {
        let expected = format!("{mark}\n```sh\n{command}\n```\n");
        assert!(readme.contains(&expected), "README.md lacks\n{expected}");
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    let link = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    let mut wrong = Vec::new();
    for path in documents() {
        for found in link.captures_iter(&text(&path)) {
            let (target, anchor) = found[1].split_once('#').unwrap_or((&found[1], ""));
            if target.contains("://") {
                continue;
            }
            let directory = Path::new(&path).parent().unwrap_or(Path::new(""));
            let target = if target.is_empty() {
                path.clone()
            } else {
                resolved(directory, target)
            };
            let there = root().join(&target).exists();
            let section = anchor.is_empty() || there && anchors(&target).contains(anchor);
            if !there || !section {
                wrong.push(format!("{path}: {}", &found[1]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// `docs` and `../config/x` make `config/x`.
fn resolved(directory: &Path, target: &str) -> String {
    let mut parts: Vec<&str> = directory.iter().filter_map(|part| part.to_str()).collect();
    for part in target.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." | "" => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The names by which GitHub links to a document's headings.
fn anchors(path: &str) -> BTreeSet<String> {
    let content = text(path);
    let headings = content.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let words = line.trim_start_matches('#').trim().to_lowercase();
            let kept = words.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

fn code_blocks(markdown: &str, language: &str) -> Vec<String> {
    let block = Regex::new(&format!(r"(?s)```{language}\n(.*?)```")).unwrap();
    block.captures_iter(markdown).map(|found| found[1].to_owned()).collect()
}

/// The Markdown files that people read, METRICS.md aside: it is generated.
fn documents() -> Vec<String> {
    let top = [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "SECURITY.md",
    ]
    .map(str::to_owned);
    let mut all: Vec<_> = top.into_iter().collect();
    all.extend(files_under("docs", &["md"]));
    all.extend(files_under("deploy", &["md"]));
    all
}

// ---- files ----------------------------------------------------------------------------------------------------------

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Paths below the repository's root, sorted, with slashes.
fn files_under(directory: &str, extensions: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![root().join(directory)];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
            let path = entry.unwrap().path();
            let wanted = path
                .extension()
                .is_some_and(|extension| extensions.iter().any(|wanted| extension == *wanted));
            if path.is_dir() {
                waiting.push(path);
            } else if wanted {
                let inside = path.strip_prefix(root()).unwrap();
                found.push(
                    inside
                        .iter()
                        .filter_map(|part| part.to_str())
                        .collect::<Vec<_>>()
                        .join("/"),
                );
            }
        }
    }
    found.sort();
    found
}
