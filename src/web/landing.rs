//! The landing page: a card for each source as plain HTML, for people. No script, no asset from elsewhere.
//! Never formats a time or a number: it is handed words.

use std::fmt::Write as _;

/// What the page shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Landing {
    /// The exporter's version.
    pub version: String,
    /// What is wrong with the process itself.
    pub notes: Vec<LandingNote>,
    /// By source.
    pub rows: Vec<LandingRow>,
}

/// Something that is wrong with the process itself, in words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LandingNote {
    /// What it is about.
    pub about: String,
    /// How that is.
    pub state: String,
    /// What follows from it, and since when.
    pub words: String,
    /// What is wrong, piece by piece.
    pub problems: Vec<String>,
}

/// How a source is, for the colour of a word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Health {
    /// No round has ended yet.
    #[default]
    Starting,
    /// The last round succeeded.
    Up,
    /// It works, but not as wished: throttled, or catching up.
    Slow,
    /// The last round failed, or its data is too old.
    Down,
}

impl Health {
    const fn class(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Slow => "slow",
            Self::Down => "down",
        }
    }
}

/// One source, in words. What is not known is empty or `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LandingRow {
    /// Its name.
    pub source: String,
    /// Its platform.
    pub kind: String,
    /// Where that is, for a link.
    pub base_url: String,
    /// The platform's name of the project.
    pub project: Option<String>,
    /// How it is.
    pub health: Health,
    /// The same in words.
    pub health_words: String,
    /// When the last round ended and how.
    pub last_round: String,
    /// When the next one begins.
    pub next_round: String,
    /// What a request waits for now.
    pub waiting_for: Option<String>,
    /// What is left of the rate budget.
    pub budget: String,
    /// How many cases are asked about.
    pub cases_tracked: String,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// What a person should do about it.
    pub advice: Vec<String>,
    /// Whether what runs in its environments may be promoted; empty if nobody asks.
    pub gates: Vec<LandingGate>,
}

/// The gate of one environment, or a word about all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LandingGate {
    /// Which; empty: all.
    pub environment: String,
    /// Whether it lets through; `None`: there is nothing to tell.
    pub open: Option<bool>,
    /// The same in words, with what speaks against it.
    pub words: String,
}

/// The style is allowed by its hash, so that nothing that upstream might smuggle in can bring another one.
pub(super) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'sha256-VmoAwUCREOkw+tB5nKCejIfE8MnVWXbPIRsnqeKcJoI='; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) const STYLE: &str = "\
:root{color-scheme:light dark;--ink:light-dark(#1b1f24,#e8eaed);--soft:light-dark(#5a6370,#a3abb6);--line:light-dark(#d8dde3,#363c45);\
--page:light-dark(#f6f7f9,#14171b);--card:light-dark(#fff,#1d2127);--link:light-dark(#0b57b8,#8ab8ff);\
--up:light-dark(#176b2c,#7bd88f);--slow:light-dark(#7a5200,#f0c35e);--down:light-dark(#a3121b,#ff9a9a)}\
*{box-sizing:border-box}\
body{font:1rem/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:68rem;margin:0 auto;padding:1.5rem 1rem}\
header{display:flex;flex-wrap:wrap;align-items:baseline;gap:.25rem 1rem;margin-bottom:1rem}\
h1{font-size:1.5rem;margin:0}\
header p{margin:0;color:var(--soft)}\
nav{display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;margin-bottom:1.25rem}\
a{color:var(--link);text-underline-offset:.15em}\
nav a{padding:.25rem 0}\
main{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:1rem;align-items:start}\
article{background:var(--card);border:1px solid var(--line);border-top:3px solid var(--tone,var(--line));border-radius:.5rem;padding:1rem}\
h2{font-size:1.15rem;margin:0 0 .75rem;display:flex;flex-wrap:wrap;justify-content:space-between;align-items:center;gap:.25rem .75rem;overflow-wrap:anywhere}\
h2 span{font-size:.875rem;color:var(--tone);border:1px solid;border-radius:1rem;padding:.05rem .65rem}\
dl{display:grid;grid-template-columns:8rem 1fr;gap:.3rem .75rem;margin:0}\
dt{color:var(--soft)}\
dd{margin:0;overflow-wrap:anywhere;grid-column:2}\
.note{grid-column:1/-1;border-left:3px solid var(--slow);padding-left:.6rem;margin-top:.3rem}\
.note b{display:block;font-weight:600}\
.gate.up,.gate.down{color:var(--tone)}.gate b{color:var(--ink);font-weight:600}\
.up{--tone:var(--up)}.slow,.starting{--tone:var(--slow)}.down{--tone:var(--down)}\
@media(max-width:26rem){dl{grid-template-columns:6.5rem 1fr}}";

/// The page.
pub(super) fn page(landing: &Landing, telemetry_path: &str) -> String {
    let mut html = String::from("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    html.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    html.push_str("<title>testrun-exporter</title>\n<style>");
    html.push_str(STYLE);
    html.push_str("</style>\n</head>\n<body>\n<header>\n<h1>testrun-exporter</h1>\n");
    // Writing to a string cannot fail, here and below.
    let _ = writeln!(
        html,
        "<p>{} &middot; version {}</p>\n</header>",
        summary(&landing.rows),
        Escaped(&landing.version)
    );
    let _ = write!(html, "<nav><a href=\"{}\">Metrics</a>", Escaped(telemetry_path));
    html.push_str("<a href=\"/-/healthy\">Health</a><a href=\"/-/ready\">Readiness</a>");
    html.push_str("<a href=\"/api/v1/status\">Status as JSON</a></nav>\n<main>\n");
    for note in &landing.notes {
        let (about, state) = (Escaped(&note.about), Escaped(&note.state));
        let _ = writeln!(
            html,
            "<article class=\"down\">\n<h2>{about} <span>{state}</span></h2>\n<dl>"
        );
        for words in [&note.words].into_iter().chain(&note.problems) {
            let _ = writeln!(html, "<dd class=\"note\">{}</dd>", Escaped(words));
        }
        html.push_str("</dl>\n</article>\n");
    }
    if landing.rows.is_empty() {
        html.push_str("<p>No source is configured.</p>\n");
    }
    for row in &landing.rows {
        push_row(&mut html, row);
    }
    html.push_str("</main>\n</body>\n</html>\n");
    html
}

/// All of it in a few words.
fn summary(rows: &[LandingRow]) -> String {
    let up = rows.iter().filter(|row| row.health == Health::Up).count();
    match rows.len() {
        1 => format!("1 source, {up} up"),
        all => format!("{all} sources, {up} up"),
    }
}

fn push_row(html: &mut String, row: &LandingRow) {
    let class = row.health.class();
    let _ = write!(html, "<article class=\"{class}\">\n<h2>{} ", Escaped(&row.source));
    let _ = writeln!(html, "<span>{}</span></h2>\n<dl>", Escaped(&row.health_words));
    push_platform(html, row);
    push_entry(html, "Project", row.project.as_deref().unwrap_or_default());
    push_entry(html, "Last round", &row.last_round);
    push_entry(html, "Next round", &row.next_round);
    push_entry(html, "Waiting for", row.waiting_for.as_deref().unwrap_or_default());
    push_entry(html, "Rate budget", &row.budget);
    push_entry(html, "Cases", &row.cases_tracked);
    push_gates(html, &row.gates);
    push_note(html, "Last error", row.last_error.as_deref().unwrap_or_default());
    for advice in &row.advice {
        push_note(html, "Advice", advice);
    }
    html.push_str("</dl>\n</article>\n");
}

/// The configuration's own URL, as a link if it is one that a browser should follow.
fn push_platform(html: &mut String, row: &LandingRow) {
    let url = Escaped(&row.base_url);
    let is_web = ["https://", "http://"]
        .iter()
        .any(|scheme| row.base_url.starts_with(scheme));
    if is_web {
        let kind = Escaped(&row.kind);
        let _ = writeln!(
            html,
            "<dt>Platform</dt><dd>{kind}, <a href=\"{url}\" rel=\"noreferrer\">{url}</a></dd>"
        );
    } else {
        push_entry(html, "Platform", &row.kind);
    }
}

/// A line for each environment, under one term. The word says it as well as the colour.
fn push_gates(html: &mut String, gates: &[LandingGate]) {
    if !gates.is_empty() {
        html.push_str("<dt>Gate</dt>");
    }
    for gate in gates {
        let class = match gate.open {
            Some(true) => " up",
            Some(false) => " down",
            None => "",
        };
        let _ = write!(html, "<dd class=\"gate{class}\">");
        if !gate.environment.is_empty() {
            let _ = write!(html, "<b>{}</b> ", Escaped(&gate.environment));
        }
        let _ = writeln!(html, "{}</dd>", Escaped(&gate.words));
    }
}

fn push_entry(html: &mut String, term: &str, words: &str) {
    if !words.is_empty() {
        let _ = writeln!(html, "<dt>{term}</dt><dd>{}</dd>", Escaped(words));
    }
}

/// What somebody should read, over the whole width.
fn push_note(html: &mut String, term: &str, words: &str) {
    if !words.is_empty() {
        let _ = writeln!(html, "<dd class=\"note\"><b>{term}</b> {}</dd>", Escaped(words));
    }
}

/// Text that cannot end an element or an attribute.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => formatter.write_str("&amp;")?,
                '<' => formatter.write_str("&lt;")?,
                '>' => formatter.write_str("&gt;")?,
                '"' => formatter.write_str("&quot;")?,
                '\'' => formatter.write_str("&#39;")?,
                other => formatter.write_char(other)?,
            }
        }
        Ok(())
    }
}
