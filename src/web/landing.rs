//! The landing page: one table of sources as plain HTML, for people. No script, no asset from elsewhere.
//! Never formats a time or a number: it is handed words.

use std::fmt::Write as _;

/// What the page shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Landing {
    /// The exporter's version.
    pub version: String,
    /// By source.
    pub rows: Vec<LandingRow>,
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
}

/// The style is allowed by its hash, so that nothing that upstream might smuggle in can bring another one.
pub(super) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'sha256-GnNQdZhNYxu4cgAnvQzlz4r+tmkB3LXnKhZxyz124ZY='; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:1rem/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:1rem}\
article{border:1px solid #8888;border-radius:.5rem;padding:0 1rem;margin:1rem 0}\
dl{display:grid;grid-template-columns:max-content 1fr;gap:.25rem 1rem}\
dt{opacity:.75}\
dd{margin:0;overflow-wrap:anywhere}\
a{margin-right:1rem}\
.up{color:light-dark(#176b2c,#7bd88f)}\
.slow,.starting{color:light-dark(#7a5200,#f0c35e)}\
.down{color:light-dark(#a3121b,#ff9a9a)}\
@media(max-width:30rem){dl{grid-template-columns:1fr}dt{margin-top:.5rem}}";

/// The page.
pub(super) fn page(landing: &Landing, telemetry_path: &str) -> String {
    let mut html = String::from("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    html.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    html.push_str("<title>testrun-exporter</title>\n<style>");
    html.push_str(STYLE);
    html.push_str("</style>\n</head>\n<body>\n<h1>testrun-exporter</h1>\n");
    // Writing to a string cannot fail, here and below.
    let _ = writeln!(
        html,
        "<p>Version {}. Hosted test runs as Prometheus metrics.</p>",
        Escaped(&landing.version)
    );
    let _ = write!(html, "<nav><a href=\"{}\">Metrics</a>", Escaped(telemetry_path));
    html.push_str("<a href=\"/-/healthy\">Health</a><a href=\"/-/ready\">Readiness</a>");
    html.push_str("<a href=\"/api/v1/status\">Status as JSON</a></nav>\n<main>\n");
    if landing.rows.is_empty() {
        html.push_str("<p>No source is configured.</p>\n");
    }
    for row in &landing.rows {
        push_row(&mut html, row);
    }
    html.push_str("</main>\n</body>\n</html>\n");
    html
}

fn push_row(html: &mut String, row: &LandingRow) {
    let _ = write!(html, "<article>\n<h2>{} ", Escaped(&row.source));
    let _ = writeln!(
        html,
        "<span class=\"{}\">{}</span></h2>\n<dl>",
        row.health.class(),
        Escaped(&row.health_words)
    );
    push_entry(html, "Platform", &row.kind);
    push_entry(html, "Project", row.project.as_deref().unwrap_or_default());
    push_entry(html, "Last round", &row.last_round);
    push_entry(html, "Next round", &row.next_round);
    push_entry(html, "Waiting for", row.waiting_for.as_deref().unwrap_or_default());
    push_entry(html, "Rate budget", &row.budget);
    push_entry(html, "Cases tracked", &row.cases_tracked);
    push_entry(html, "Last error", row.last_error.as_deref().unwrap_or_default());
    for advice in &row.advice {
        push_entry(html, "Advice", advice);
    }
    html.push_str("</dl>\n</article>\n");
}

fn push_entry(html: &mut String, term: &str, words: &str) {
    if !words.is_empty() {
        let _ = writeln!(html, "<dt>{term}</dt><dd>{}</dd>", Escaped(words));
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
