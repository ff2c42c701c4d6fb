//! What the web server is shown: the newest exposition, and the sources' states in words.
//! Every call returns at once, and nothing here changes anything but the note that a scrape happened; a reload is
//! asked for, and waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::publish::Publication;
use super::reload::{Asked, Views};
use super::wall;
use crate::config::SourceConfig;
use crate::metrics::Format;
use crate::metrics::ends::{Body, Complete, Ends};
use crate::metrics::own::SourceOwn;
use crate::model::{Condition, Name, RoundResult};
use crate::status::{Health, Problem, Report, Shared, Trouble, Troubles};
use crate::web;

/// So many gates of one source are shown on the page, which is for people. The status as JSON has all of them.
const GATES_MAX: usize = 20;

/// What the server needs of the application.
pub(super) struct AppView {
    publication: Arc<Publication>,
    ends: Ends,
    sources: Views,
    healthy: Arc<AtomicBool>,
    /// Once ready, ready for good: a source that a reload brings must not take the service away.
    was_ready: AtomicBool,
    reloads: mpsc::Sender<Asked>,
    troubles: Troubles,
    wall: fn() -> Timestamp,
}

impl AppView {
    pub(super) fn new(
        publication: Arc<Publication>,
        ends: Ends,
        sources: Views,
        healthy: Arc<AtomicBool>,
        reloads: mpsc::Sender<Asked>,
        troubles: Troubles,
    ) -> Self {
        Self {
            publication,
            ends,
            sources,
            healthy,
            was_ready: AtomicBool::new(false),
            reloads,
            troubles,
            wall,
        }
    }
}

/// One source as people see it.
#[derive(Clone)]
pub(super) struct SourceView {
    kind: &'static str,
    base_url: String,
    status: Shared,
    /// Knows what a scrape would tell of the gate.
    own: SourceOwn,
    has_gate: bool,
}

impl SourceView {
    pub(super) fn new(source: &SourceConfig, status: Shared, own: SourceOwn) -> Self {
        Self {
            kind: source.source.kind.label(),
            base_url: source.transport.base_url.to_string(),
            status,
            own,
            has_gate: source.promotion.is_some(),
        }
    }

    /// It goes on under another configuration. Kind and URL are the same, or it would be another source.
    pub(super) fn changed(&mut self, source: &SourceConfig) {
        self.has_gate = source.promotion.is_some();
    }

    /// `None`: no gate is asked for.
    fn gates(&self, now: Timestamp) -> Option<Vec<GateRow>> {
        let row = |(environment, blocked): (Name, Vec<Condition>)| GateRow {
            environment: environment.to_string(),
            promotable: blocked.is_empty(),
            blocked: blocked.into_iter().map(Condition::label).collect(),
        };
        self.has_gate
            .then(|| self.own.gates(now).into_iter().map(row).collect())
    }

    /// A former process has read the source at that time.
    pub(super) fn restored(&self, as_of: Timestamp) {
        self.status.change(|status| status.last_success = Some(as_of));
    }

    fn row(&self, now: Timestamp) -> web::LandingRow {
        let Report { health, status } = self.status.report(now);
        let (level, words) = health_words(health);
        let last = status.last_round.as_ref();
        web::LandingRow {
            source: status.source.clone(),
            kind: self.kind.replace('_', " "),
            base_url: self.base_url.clone(),
            project: status.project.clone(),
            health: level,
            health_words: words.to_owned(),
            last_round: last.map_or_else(
                || "none yet".to_owned(),
                |round| {
                    let (ago, result, requests) = (ago(round.ended_at, now), round.result, requests(round.requests));
                    format!("{ago}, {result}, {requests} in {}", took(round.seconds))
                },
            ),
            next_round: status
                .next_round_at
                .map_or_else(|| "running now".to_owned(), |at| ahead(at, now)),
            waiting_for: status
                .waiting
                .as_ref()
                .map(|wait| format!("{} ({})", wait_words(wait.reason), ahead(wait.until, now))),
            budget: budget_words(&status.budget),
            cases_tracked: match status.backlog {
                0 => status.cases_tracked.to_string(),
                backlog => format!("{} ({} behind)", status.cases_tracked, requests(backlog)),
            },
            last_error: status.last_error.as_ref().map(|error| {
                let recovered = if status.last_result == Some(RoundResult::Success) {
                    " (recovered)"
                } else {
                    ""
                };
                format!("{}: {}{recovered}", ago(error.at, now), error.what)
            }),
            advice: status.advice,
            gates: self.gates(now).map(landing_gates).unwrap_or_default(),
        }
    }
}

/// What the page says of the gates, if there are any to be asked.
fn landing_gates(gates: Vec<GateRow>) -> Vec<web::LandingGate> {
    if gates.is_empty() {
        let words = "nothing is known yet: no run on its branches, or no complete round since it was set up".to_owned();
        return vec![web::LandingGate {
            words,
            ..web::LandingGate::default()
        }];
    }
    let more = gates.len().saturating_sub(GATES_MAX);
    let shown = gates.into_iter().take(GATES_MAX).map(|gate| web::LandingGate {
        words: if gate.promotable {
            "promotable".to_owned()
        } else {
            format!("blocked by {}", gate.blocked.join(", "))
        },
        environment: gate.environment,
        open: Some(gate.promotable),
    });
    let rest = (more > 0).then(|| web::LandingGate {
        words: format!("and {more} more: see the status as JSON"),
        ..web::LandingGate::default()
    });
    shown.chain(rest).collect()
}

fn note(problem: &Problem, now: Timestamp) -> web::LandingNote {
    let (about, state, words) = match problem.trouble {
        Trouble::Configuration => ("Configuration", "refused", "The former one stays in use"),
        Trouble::WebConfiguration => ("Web configuration", "refused", "The former one stays in use"),
        Trouble::Ledger => ("Ledger", "not written", "Counters stand still until it can be written"),
    };
    web::LandingNote {
        about: about.to_owned(),
        state: state.to_owned(),
        words: format!("{words}; first noticed {}.", ago(problem.since, now)),
        problems: problem.what.lines().map(str::to_owned).collect(),
    }
}

fn health_words(health: Health) -> (web::Health, &'static str) {
    match health {
        Health::Starting => (web::Health::Starting, "starting"),
        Health::Ok => (web::Health::Up, "up"),
        Health::Throttled => (web::Health::Slow, "throttled by the platform"),
        Health::Unauthorized => (web::Health::Down, "the token is refused"),
        Health::Failing => (web::Health::Slow, "the last round failed; data are still fresh"),
        Health::Down => (web::Health::Down, "down: no complete round for too long"),
    }
}

fn wait_words(reason: &str) -> &'static str {
    match reason {
        "budget" => "the configured rate limit",
        "retry_after" => "the platform's Retry-After",
        "quota" => "the platform's rate limit to be reset",
        "credential" => "a changed token file (looked at every 30 s); the old token is tried again",
        _ => "a retry",
    }
}

fn requests(number: usize) -> String {
    match number {
        1 => "1 request".to_owned(),
        _ => format!("{number} requests"),
    }
}

/// A length of time that is often very short.
fn took(seconds: f64) -> String {
    if seconds < 0.1 {
        "under 0.1 s".to_owned()
    } else {
        format!("{seconds:.1} s")
    }
}

fn budget_words(budget: &crate::status::BudgetStatus) -> String {
    let own = format!(
        "{} requests a minute, burst {}",
        budget.requests_per_minute, budget.burst
    );
    match (budget.told_remaining, budget.told_limit) {
        (Some(remaining), Some(limit)) => format!("{own}; the platform says {remaining} of {limit} are left"),
        (Some(remaining), None) => format!("{own}; the platform says {remaining} are left"),
        _ => own,
    }
}

fn ago(time: Timestamp, now: Timestamp) -> String {
    format!("{} ago", short(now.duration_since(time)))
}

fn ahead(time: Timestamp, now: Timestamp) -> String {
    format!("in {}", short(time.duration_since(now)))
}

/// A length of time as people say it: its largest unit.
fn short(length: SignedDuration) -> String {
    match length.as_secs().max(0) {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// `/api/v1/status`.
#[derive(Serialize)]
struct StatusDocument<'a> {
    version: &'static str,
    revision: &'static str,
    now: Timestamp,
    problems: Vec<Problem>,
    sources: Vec<StatusRow<'a>>,
}

#[derive(Serialize)]
struct StatusRow<'a> {
    kind: &'static str,
    base_url: &'a str,
    #[serde(flatten)]
    report: Report,
    gate: Option<Vec<GateRow>>,
}

/// The gate of one environment, in the words of the metrics.
#[derive(Serialize)]
struct GateRow {
    environment: String,
    promotable: bool,
    blocked: Vec<&'static str>,
}

fn pieces(body: Body) -> web::Pieces {
    match body {
        Body::Ready(pieces) => web::Pieces::Ready(pieces),
        Body::Text(exposition) => web::Pieces::Made {
            bytes: exposition.text_bytes(),
            pieces: Box::new(exposition.read()),
        },
    }
}

/// Our own health is read so often ahead of the scrapes: each of them finds it younger than a second.
const FRESHEN_EVERY: Duration = Duration::from_millis(500);

impl AppView {
    /// For as long as it is asked.
    pub(super) async fn keep_fresh(&self) {
        let mut turns = tokio::time::interval(FRESHEN_EVERY);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            let (rendered, now) = (self.publication.rendered.load_full(), (self.wall)());
            for format in self.publication.packed(now) {
                self.ends.freshen(&rendered, format, now);
            }
        }
    }
}

impl web::View for AppView {
    fn metrics(&self, wanted: web::Wanted) -> web::Scrape {
        let rendered = self.publication.rendered.load_full();
        let format = match wanted.format {
            web::Format::Text => Format::Text,
            web::Format::OpenMetrics => Format::OpenMetrics,
        };
        let now = (self.wall)();
        let Complete { body, end, gzipped } = self.ends.complete(&rendered, format, wanted.gzip, now);
        if wanted.gzip {
            let got = rendered.exposition(format).packed().is_some();
            self.publication.asked(format, now, got);
        }
        web::Scrape {
            generation: rendered.generation,
            body: pieces(body),
            end,
            gzipped,
        }
    }

    fn scraped(&self, generation: u64) {
        self.publication.scraped(generation);
    }

    fn ready(&self) -> bool {
        let now = (self.wall)();
        let ready = self.was_ready.load(Ordering::Relaxed)
            || self
                .sources
                .load()
                .iter()
                .map(|source| source.status.report(now).status)
                .all(|status| status.last_round.is_some() || status.last_success.is_some());
        self.was_ready.fetch_or(ready, Ordering::Relaxed);
        ready
    }

    fn healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    fn status_json(&self) -> String {
        let now = (self.wall)();
        let sources = self.sources.load();
        let rows = sources.iter().map(|source| StatusRow {
            kind: source.kind,
            base_url: &source.base_url,
            report: source.status.report(now),
            gate: source.gates(now),
        });
        let document = StatusDocument {
            version: env!("CARGO_PKG_VERSION"),
            revision: crate::cli::REVISION,
            now,
            problems: self.troubles.list(),
            sources: rows.collect(),
        };
        serde_json::to_string(&document).unwrap_or_default()
    }

    fn landing(&self) -> web::Landing {
        let now = (self.wall)();
        web::Landing {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            notes: self.troubles.list().iter().map(|problem| note(problem, now)).collect(),
            rows: self.sources.load().iter().map(|source| source.row(now)).collect(),
        }
    }

    async fn reload(&self) -> Result<String, String> {
        let (asked, outcome) = oneshot::channel();
        if self.reloads.try_send(asked).is_err() {
            return Err("configuration not reloaded: others wait for theirs".to_owned());
        }
        let stopping = "configuration not reloaded: the process is stopping";
        outcome.await.unwrap_or_else(|_| Err(stopping.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::app::fixtures;
    use crate::promotion::{Evidence, Standing, Times};
    use crate::status::{LastError, LastRound, SourceStatus, Waiting};
    use crate::store::Promotion;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn row(result: RoundResult) -> web::LandingRow {
        let shared = Shared::new(SourceStatus::new("shop", at(0), Duration::from_secs(900)));
        shared.change(|status| {
            status.project = Some("web shop".to_owned());
            status.last_result = Some(result);
            status.last_round = Some(LastRound {
                result: result.label(),
                ended_at: at(100),
                seconds: 0.25,
                requests: 1,
            });
            status.last_error = Some(LastError {
                what: "it broke".to_owned(),
                at: at(90),
            });
            status.waiting = Some(Waiting {
                reason: "credential",
                until: at(400),
            });
        });
        view(shared, own(), false).row(at(112))
    }

    fn own() -> SourceOwn {
        fixtures::own().source("shop", &fixtures::info())
    }

    fn view(status: Shared, own: SourceOwn, has_gate: bool) -> SourceView {
        SourceView {
            kind: "empirical",
            base_url: "https://platform.example/".to_owned(),
            status,
            own,
            has_gate,
        }
    }

    fn standing(environment: &str, evidence: Evidence) -> Standing {
        let times = Times {
            run_ended: Some(at(50)),
            ..Times::default()
        };
        Standing::of(environment.into(), evidence, times, SignedDuration::from_hours(1))
    }

    /// What the page and the JSON say of the gates at that second.
    fn gates(view: &SourceView, now: i64) -> (Vec<String>, serde_json::Value) {
        let page = view.row(at(now)).gates;
        let words = |gate: web::LandingGate| format!("{:?} {}: {}", gate.open, gate.environment, gate.words);
        let json = serde_json::to_value(view.gates(at(now))).unwrap();
        (page.into_iter().map(words).collect(), json)
    }

    #[test]
    fn the_gate_of_each_environment_is_told_in_the_words_of_the_metrics_and_as_of_now() {
        let shared = Shared::new(SourceStatus::new("shop", at(0), Duration::from_secs(900)));
        let none = view(shared.clone(), own(), false);
        assert_eq!(gates(&none, 100), (vec![], json!(null)), "nobody has asked for one");
        let own = own();
        let view = view(shared, own.clone(), true);
        let nothing =
            "None : nothing is known yet: no run on its branches, or no complete round since it was set up".to_owned();
        assert_eq!(gates(&view, 100), (vec![nothing], json!([])));
        let failing = Evidence {
            is_unread: true,
            is_failing: true,
            ..Evidence::good()
        };
        own.promotion(&Promotion {
            as_of: Some(at(100)),
            standings: [standing("prod", Evidence::good()), standing("staging", failing)].into(),
        });
        let page = vec![
            "Some(true) prod: promotable".to_owned(),
            "Some(false) staging: blocked by partial, case_failing".to_owned(),
        ];
        let json = json!([
            {"environment": "prod", "promotable": true, "blocked": []},
            {"environment": "staging", "promotable": false, "blocked": ["partial", "case_failing"]},
        ]);
        assert_eq!(gates(&view, 999), (page, json));
        let (page, _) = gates(&view, 1000);
        assert_eq!(
            page[0], "Some(false) prod: blocked by stale",
            "no round has told it so, time has"
        );
    }

    #[test]
    fn the_page_shows_some_gates_and_the_json_all() {
        let own = own();
        let shared = Shared::new(SourceStatus::new("shop", at(0), Duration::from_secs(900)));
        let view = view(shared, own.clone(), true);
        let standings = (0..=GATES_MAX).map(|number| standing(&format!("e{number:02}"), Evidence::good()));
        own.promotion(&Promotion {
            as_of: Some(at(100)),
            standings: standings.collect(),
        });
        let (page, json) = gates(&view, 100);
        assert_eq!(page.len(), GATES_MAX + 1);
        assert_eq!(page[GATES_MAX], "None : and 1 more: see the status as JSON");
        assert_eq!(json.as_array().map(Vec::len), Some(GATES_MAX + 1));
    }

    #[test]
    fn a_note_says_since_when_and_what_follows() {
        let problem = Problem {
            trouble: Trouble::Configuration,
            since: at(100),
            what: "c.yaml: log: wrong\nc.yaml: web: wrong".to_owned(),
        };
        let note = note(&problem, at(400));
        assert_eq!((&*note.about, &*note.state), ("Configuration", "refused"));
        assert_eq!(note.words, "The former one stays in use; first noticed 5 min ago.");
        assert_eq!(note.problems, ["c.yaml: log: wrong", "c.yaml: web: wrong"]);
    }

    #[test]
    fn a_row_says_what_a_person_wants_to_know() {
        let failed = row(RoundResult::Unauthorized);
        assert_eq!(failed.project.as_deref(), Some("web shop"));
        assert_eq!(failed.last_round, "12 s ago, unauthorized, 1 request in 0.2 s");
        assert_eq!(failed.last_error.as_deref(), Some("22 s ago: it broke"));
        assert_eq!(
            failed.waiting_for.as_deref(),
            Some("a changed token file (looked at every 30 s); the old token is tried again (in 4 min)")
        );
        let recovered = row(RoundResult::Success);
        assert_eq!(recovered.last_error.as_deref(), Some("22 s ago: it broke (recovered)"));
    }
}
