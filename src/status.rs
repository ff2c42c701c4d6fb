//! How each source is doing, and what is wrong with the process itself, for people: the landing page and `/api/v1/status`.
//! Written by who has the trouble, read by anyone.
//! Never holds a token, a URL or upstream data but the project's name, and nothing is decided by reading it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::model::RoundResult;

/// How many pieces of advice are shown: a person reads a few, and a source that skips rows must not fill the page.
pub const ADVICE_MAX: usize = 20;

/// How a source is doing, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Its first round has not ended.
    Starting,
    /// Its last round was complete.
    Ok,
    /// The platform told us to wait; the data are still fresh enough.
    Throttled,
    /// The credential is refused.
    Unauthorized,
    /// Its last round failed; the data are still fresh enough.
    Failing,
    /// No round was complete for longer than `stale_after`.
    Down,
}

/// A round that has ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LastRound {
    /// How, by its label.
    pub result: &'static str,
    /// When.
    pub ended_at: Timestamp,
    /// How long it took, waits included.
    pub seconds: f64,
    /// How many requests it made.
    pub requests: usize,
}

/// A wait that is going on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Waiting {
    /// For what: budget, retry_after, quota, backoff or credential.
    pub reason: &'static str,
    /// Until when.
    pub until: Timestamp,
}

/// The rate budget: the user's ceiling and what the server has told.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct BudgetStatus {
    /// The ceiling.
    pub requests_per_minute: f64,
    /// At once after a quiet time.
    pub burst: u32,
    /// The server's limit, if told.
    pub told_limit: Option<f64>,
    /// What the server said is left, if told.
    pub told_remaining: Option<f64>,
    /// When the server's window ends in epoch seconds, if told.
    pub told_reset: Option<f64>,
}

/// What went wrong last.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LastError {
    /// In plain words.
    pub what: String,
    /// When.
    pub at: Timestamp,
}

/// One source.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SourceStatus {
    /// Its name.
    pub source: String,
    /// The platform's name of the project, if it has told.
    pub project: Option<String>,
    /// Since when it is polled.
    pub since: Timestamp,
    /// The last round.
    pub last_round: Option<LastRound>,
    /// When the last complete round ended.
    pub last_success: Option<Timestamp>,
    /// When the next round is due; nothing while one goes on.
    pub next_round_at: Option<Timestamp>,
    /// What is being waited for.
    pub waiting: Option<Waiting>,
    /// The rate budget.
    pub budget: BudgetStatus,
    /// Cases that are asked about.
    pub cases_tracked: usize,
    /// Requests that wait for a later round.
    pub backlog: usize,
    /// When the case that has waited longest was brought up to date.
    pub oldest_refresh: Option<Timestamp>,
    /// What went wrong last. Stays when it is over: its time tells.
    pub last_error: Option<LastError>,
    /// What a person should know or do; each piece until a round succeeds without it.
    pub advice: Vec<String>,
    /// Kept out of the page: it is configuration.
    #[serde(skip)]
    pub stale_after: Duration,
    /// The last result as the model's word.
    #[serde(skip)]
    pub last_result: Option<RoundResult>,
}

impl SourceStatus {
    /// A source that has not been asked anything.
    #[must_use]
    pub fn new(source: &str, since: Timestamp, stale_after: Duration) -> Self {
        Self {
            source: source.to_owned(),
            project: None,
            since,
            last_round: None,
            last_success: None,
            next_round_at: None,
            waiting: None,
            budget: BudgetStatus::default(),
            cases_tracked: 0,
            backlog: 0,
            oldest_refresh: None,
            last_error: None,
            advice: Vec::new(),
            stale_after,
            last_result: None,
        }
    }

    /// One word for it, as of `now`.
    #[must_use]
    pub fn health(&self, now: Timestamp) -> Health {
        let fresh_until = self
            .last_success
            .unwrap_or(self.since)
            .saturating_add(span(self.stale_after));
        let stale = fresh_until.is_ok_and(|until| until < now);
        match self.last_result {
            Some(RoundResult::Unauthorized) => Health::Unauthorized,
            _ if stale => Health::Down,
            None => Health::Starting,
            Some(RoundResult::Success) => Health::Ok,
            Some(RoundResult::Throttled) => Health::Throttled,
            Some(_) => Health::Failing,
        }
    }

    /// Adds a piece of advice, unless it is there already or there are enough of them. Says whether it is new.
    pub fn advise(&mut self, text: &str) -> bool {
        let new = self.advice.len() < ADVICE_MAX && !self.advice.iter().any(|known| known == text);
        if new {
            self.advice.push(text.to_owned());
        }
        new
    }
}

/// What is wrong with the process itself rather than with a platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// The configuration as it is now is refused, and the former one stays.
    Configuration,
    /// The same of the file for TLS and passwords.
    WebConfiguration,
    /// The ledger cannot be written, and counters stand still.
    Ledger,
}

/// A trouble that is there now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Which.
    pub trouble: Trouble,
    /// Since when.
    pub since: Timestamp,
    /// What it was found by last, in plain words.
    pub what: String,
}

/// The troubles of now, shared by those who have them and all readers.
#[derive(Debug, Clone, Default)]
pub struct Troubles(Arc<Mutex<Vec<Problem>>>);

impl Troubles {
    /// How it is now: `what` is wrong, or nothing any more.
    pub fn note(&self, trouble: Trouble, now: Timestamp, what: Option<String>) {
        let mut problems = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = problems.iter().position(|known| known.trouble == trouble);
        match (known, what) {
            (Some(place), Some(what)) => problems[place].what = what,
            (Some(place), None) => drop(problems.remove(place)),
            (None, Some(what)) => {
                problems.push(Problem {
                    trouble,
                    since: now,
                    what,
                });
                problems.sort_by_key(|problem| problem.trouble);
            }
            (None, None) => {}
        }
    }

    /// All of them.
    #[must_use]
    pub fn list(&self) -> Vec<Problem> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn span(duration: Duration) -> jiff::SignedDuration {
    jiff::SignedDuration::try_from(duration).unwrap_or(jiff::SignedDuration::MAX)
}

/// A source's status with its health, ready for a page.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// One word for it.
    pub health: Health,
    /// The rest.
    #[serde(flatten)]
    pub status: SourceStatus,
}

/// The status of one source, shared by its one writer and all readers.
#[derive(Debug, Clone)]
pub struct Shared(Arc<Mutex<SourceStatus>>);

impl Shared {
    /// Shares a status.
    #[must_use]
    pub fn new(status: SourceStatus) -> Self {
        Self(Arc::new(Mutex::new(status)))
    }

    /// Changes it and gives what the change gives. The lock is held for the change only.
    pub fn change<R>(&self, change: impl FnOnce(&mut SourceStatus) -> R) -> R {
        // A panic in a change cannot leave a half-written status that matters more than showing it.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A copy, with the health as of `now`.
    #[must_use]
    pub fn report(&self, now: Timestamp) -> Report {
        let status = self.change(|status| status.clone());
        Report {
            health: status.health(now),
            status,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn status() -> SourceStatus {
        SourceStatus::new("shop", at(1000), Duration::from_secs(900))
    }

    #[test]
    fn health_follows_the_last_round_until_the_data_are_stale() {
        let check = |result: Option<RoundResult>, success: Option<i64>, now: i64, expected: Health| {
            let status = SourceStatus {
                last_result: result,
                last_success: success.map(at),
                ..status()
            };
            assert_eq!(status.health(at(now)), expected, "{result:?} {success:?} {now}");
        };
        check(None, None, 1000, Health::Starting);
        check(None, None, 1901, Health::Down);
        check(Some(RoundResult::Success), Some(1100), 2000, Health::Ok);
        check(Some(RoundResult::Success), Some(1100), 2001, Health::Down);
        check(Some(RoundResult::Throttled), Some(1100), 1200, Health::Throttled);
        check(Some(RoundResult::ServerError), Some(1100), 1200, Health::Failing);
        check(Some(RoundResult::ServerError), None, 1901, Health::Down);
        check(Some(RoundResult::Unauthorized), None, 9999, Health::Unauthorized);
    }

    #[test]
    fn a_trouble_is_there_since_it_began_and_until_it_is_over() {
        let troubles = Troubles::default();
        let noted = |trouble: Trouble, now: i64, what: Option<&str>| {
            troubles.note(trouble, at(now), what.map(str::to_owned));
            let list = troubles.list();
            let words = list
                .iter()
                .map(|known| format!("{:?} {} {}", known.trouble, known.since.as_second(), known.what));
            words.collect::<Vec<_>>().join(", ")
        };
        assert_eq!(noted(Trouble::Ledger, 1, None), "");
        assert_eq!(noted(Trouble::Ledger, 2, Some("full")), "Ledger 2 full");
        assert_eq!(noted(Trouble::Ledger, 3, Some("gone")), "Ledger 2 gone");
        let both = "Configuration 4 bad, Ledger 2 gone";
        assert_eq!(noted(Trouble::Configuration, 4, Some("bad")), both);
        assert_eq!(noted(Trouble::Ledger, 5, None), "Configuration 4 bad");
        assert_eq!(noted(Trouble::Configuration, 6, None), "");
    }

    #[test]
    fn the_same_advice_is_new_once_and_the_list_is_bounded() {
        let mut status = status();
        assert!(status.advise("choose another discovery"));
        assert!(!status.advise("choose another discovery"));
        for number in 0..100 {
            status.advise(&format!("row {number}"));
        }
        assert_eq!(status.advice.len(), ADVICE_MAX);
    }

    #[test]
    fn the_report_is_flat_json_with_one_word_for_the_health() {
        let shared = Shared::new(status());
        shared.change(|status| {
            status.waiting = Some(Waiting {
                reason: "quota",
                until: at(1060),
            })
        });
        let json = serde_json::to_value(shared.report(at(1000))).unwrap();
        assert_eq!(json["health"], "starting");
        assert_eq!(json["source"], "shop");
        assert_eq!(json["waiting"]["until"], "1970-01-01T00:17:40Z");
        assert_eq!(json["last_round"], serde_json::Value::Null);
    }
}
