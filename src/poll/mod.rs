//! When to ask: one poller per source, one gate in front of every request, pure rules for pauses, retries and pace.
//! Never reads a reply's body (`sources` does), never counts a result (`store` does).

pub mod budget;
mod desk;
pub mod retry;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc::Sender;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::budget::{Admission, Budget, Moment, Pause, Tenth, Told};
use self::desk::Bell;
use self::retry::{ATTEMPTS_MAX, Hour, RETRIES_PER_ROUND_MAX};
use crate::model::{Fact, Name, Notice, RoundResult, Update};
use crate::sources::{Allowance, Learned, MemoryError, Progress, Rejection, Source};
use crate::status::{self, BudgetStatus, LastError, LastRound, Waiting};
use crate::transport::{Reply, Request, Transport, TransportError};

pub use self::desk::{Desk, Orders};

/// Beyond the run list, a round makes no more requests than this, whatever the budget: rounds should end and be published.
pub const ALLOWANCE_MAX: usize = 600;
/// A source limits itself by its allowance; a round of so many requests is a bug and is stopped. Far above any real round:
/// two hundred thousand runs at a hundred a page.
pub const ROUND_REQUESTS_MAX: usize = 2_000;
/// A pause up to this long (or the poll interval, if longer) is waited for within the round; a longer one ends it.
const PAUSE_WITHIN_ROUND_MAX: Duration = Duration::from_secs(60);
/// A refused credential is tried again after ten intervals, at the earliest after this.
const PROBE_MIN: Duration = Duration::from_secs(300);
/// How many intervals make a slow probe.
const PROBE_INTERVALS: u32 = 10;
/// How often, at the least, the local credential is looked at while it is refused.
const CREDENTIAL_CHECK_MAX: Duration = Duration::from_secs(30);

/// How a source is polled.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// From the start of one round to the start of the next.
    pub interval: Duration,
    /// Without a complete round for so long, the source is down rather than slow.
    pub stale_after: Duration,
    /// The user's own ceiling.
    pub requests_per_minute: f64,
    /// How many requests may leave at once after a quiet time.
    pub burst: u32,
}

/// What a poller tells the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// The source's number: [`Parts::index`].
    pub source: usize,
    /// What happened.
    pub update: Update,
    /// With the end of a round that succeeded, if state is kept: what the source remembers then. Everything that it has
    /// told is on its way already, so this is never ahead of the store.
    pub memory: Option<Vec<u8>>,
}

/// What the calendar says; handed in, so that tests own it.
pub type Wall = Arc<dyn Fn() -> Timestamp + Send + Sync>;
/// A number in [0, 1); handed in, so that tests own it.
pub type Dice = Box<dyn FnMut() -> f64 + Send>;

/// What polling costs, for the exporter's own metrics. Every text is from a closed set.
pub trait Observer: Send {
    /// A request was sent and answered, or not. `code` is the status, or timeout, connection, too_large, encoding.
    fn request_sent(&mut self, endpoint: &'static str, code: &str, seconds: f64);
    /// A request is sent again.
    fn retried(&mut self, reason: retry::Reason);
    /// A request, or a round, has waited.
    fn throttled(&mut self, reason: budget::Reason, seconds: f64);
    /// The server told something about its limit; what it never told stays absent.
    fn rate_limit_told(&mut self, told: Told);
    /// A round begins.
    fn round_started(&mut self, at: Timestamp);
    /// A round is over.
    fn round_ended(&mut self, result: RoundResult, at: Timestamp, seconds: f64);
    /// How much is known.
    fn progress(&mut self, progress: Progress);
    /// Something to count.
    fn notice(&mut self, notice: &Notice);
}

/// What a poller is made of, beside its source and its transport.
pub struct Parts {
    /// The source's number, which its messages carry.
    pub index: usize,
    /// The source's name.
    pub name: Name,
    /// Pace.
    pub settings: Settings,
    /// The calendar.
    pub wall: Wall,
    /// The dice.
    pub dice: Dice,
    /// The exporter's own metrics.
    pub observer: Box<dyn Observer>,
    /// For people.
    pub status: status::Shared,
}

/// Polls one source until it is told to stop. Nothing that a platform answers ends it.
pub struct Poller<S, T> {
    source: S,
    transport: T,
    parts: Parts,
    budget: Budget,
    hour: Hour,
    rereads: Tenth,
    started: Instant,
    keeps_memory: bool,
    desk: Desk<S, T>,
    /// Reads the platform from the next round on.
    heir: Option<S>,
    round: Round,
}

/// What must outlive a poller, so that the next one on the same platform neither forgets a pause nor gets a fresh burst.
#[derive(Debug)]
pub struct Gate {
    budget: Budget,
    hour: Hour,
    rereads: Tenth,
    started: Instant,
}

impl Gate {
    /// Whether it lets pass no less than a new one would.
    #[must_use]
    pub fn is_rested(&self) -> bool {
        let now = self.started.elapsed();
        self.budget.is_rested(now) && self.hour.is_over(now)
    }
}

/// What the round at hand has used.
#[derive(Default)]
struct Round {
    requests: usize,
    retries: u32,
    facts: usize,
    notices: Vec<String>,
    /// By endpoint: what was wrong with the first row that was passed over, and how many more there were.
    skipped: BTreeMap<&'static str, (String, u64)>,
    credential: u64,
}

/// Why a round did not come to its end.
enum Stop {
    /// The process stops, or nobody listens any more.
    Ended,
    /// The round failed.
    Failed { result: RoundResult, why: String },
}

/// One request's outcome, and the stop that the answer asked for.
struct Sent {
    outcome: Result<Reply, TransportError>,
    pause: Option<Pause>,
}

/// Where updates go and what stops the poller.
struct Line<'a> {
    updates: &'a Sender<Message>,
    shutdown: &'a CancellationToken,
    bell: &'a Bell,
}

/// Why a wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Woken {
    /// Its time is over.
    InTime,
    /// There may be orders, which may change what is waited for.
    Rung,
}

impl Line<'_> {
    async fn or_shutdown<F: Future>(&self, work: F) -> Result<F::Output, Stop> {
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Err(Stop::Ended),
            output = work => Ok(output),
        }
    }

    /// A wait that is worth less than the request it leads to: only leaving ends it early.
    async fn sleep(&self, wait: Duration) -> Result<(), Stop> {
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Err(Stop::Ended),
            () = self.bell.left() => Err(Stop::Ended),
            () = tokio::time::sleep(wait) => Ok(()),
        }
    }

    /// A wait that another configuration may make shorter or longer.
    async fn rest(&self, wait: Duration) -> Result<Woken, Stop> {
        tokio::select! {
            biased;
            () = self.bell.rung() => Ok(Woken::Rung),
            slept = self.sleep(wait) => slept.map(|()| Woken::InTime),
        }
    }

    async fn tell(&self, message: Message) -> Result<(), Stop> {
        self.or_shutdown(self.updates.send(message))
            .await?
            .map_err(|_| Stop::Ended)
    }
}

impl<S: Source, T: Transport> Poller<S, T> {
    /// A poller that has not asked anything. Must be called within a tokio runtime, whose clock it keeps.
    #[must_use]
    pub fn new(source: S, transport: T, parts: Parts) -> Self {
        let budget = Budget::new(&parts.settings);
        let rereads = Tenth::new(&parts.settings);
        let poller = Self {
            source,
            transport,
            parts,
            budget,
            hour: Hour::default(),
            rereads,
            started: Instant::now(),
            keeps_memory: false,
            desk: Desk::new(),
            heir: None,
            round: Round::default(),
        };
        poller.show_budget();
        poller
    }

    /// From now on each round that succeeds tells what the source remembers, for [`Self::restore`] of another process.
    pub fn keep_memory(&mut self) {
        self.keeps_memory = true;
    }

    /// Goes on where the memory of another process ends; see [`Source::restore`].
    ///
    /// # Errors
    /// It is no memory of such a source; nothing has changed.
    pub fn restore(&mut self, memory: &[u8]) -> Result<(), MemoryError> {
        self.source.restore(memory)
    }

    /// Where it is told of another configuration while it runs.
    #[must_use]
    pub fn desk(&self) -> Desk<S, T> {
        self.desk.clone()
    }

    /// Takes over the gate of the poller that was on the same platform before, so that a reload forgets no pause, and
    /// earns neither a burst nor a retry.
    #[must_use]
    pub fn succeed(mut self, gate: Gate) -> Self {
        self.started = gate.started;
        self.hour = gate.hour;
        let now = self.elapsed();
        self.budget.inherit(gate.budget, now);
        self.rereads.inherit(&gate.rereads);
        self.show_budget();
        self
    }

    /// What its successor has to know.
    #[must_use]
    pub fn into_gate(self) -> Gate {
        Gate {
            budget: self.budget,
            hour: self.hour,
            rereads: self.rereads,
            started: self.started,
        }
    }

    /// Does what was told at the desk. How the source is read changes with the next round only: what this one has learned
    /// so far was learned under the settings of before.
    fn take_orders(&mut self) {
        let Some(orders) = self.desk.take() else { return };
        let now = self.elapsed();
        let mut budget = Budget::new(&orders.settings);
        std::mem::swap(&mut self.budget, &mut budget);
        self.budget.inherit(budget, now);
        let rereads = std::mem::replace(&mut self.rereads, Tenth::new(&orders.settings));
        self.rereads.inherit(&rereads);
        self.parts.settings = orders.settings;
        if let Some(transport) = orders.transport {
            self.transport = transport;
        }
        self.heir = orders.source.or(self.heir.take());
        let stale_after = self.parts.settings.stale_after;
        self.parts.status.change(|status| status.stale_after = stale_after);
        self.show_budget();
    }

    /// The source of the next round: it remembers what the one before does.
    fn hand_over(&mut self) {
        let Some(mut heir) = self.heir.take() else { return };
        match self.source.memory().and_then(|memory| heir.restore(&memory)) {
            Ok(()) => self.source = heir,
            Err(error) => {
                tracing::error!(source = &*self.parts.name, %error, "the source is read as before: its memory cannot be handed over");
            }
        }
    }

    /// Round after round, until shutdown, until it is told to leave or until nobody receives. Gives itself back for
    /// [`Self::into_gate`].
    pub async fn run(mut self, updates: Sender<Message>, shutdown: CancellationToken) -> Self {
        let desk = self.desk();
        let line = Line {
            updates: &updates,
            shutdown: &shutdown,
            bell: desk.bell(),
        };
        loop {
            let began = self.elapsed();
            let Some(result) = self.one_round(&updates, &shutdown).await else {
                return self;
            };
            if self.rest(began, result, &line).await.is_err() {
                return self;
            }
        }
    }

    /// One round. `None`: stopped before its end, by shutdown or because nobody receives.
    pub async fn one_round(&mut self, updates: &Sender<Message>, shutdown: &CancellationToken) -> Option<RoundResult> {
        let desk = self.desk();
        let line = Line {
            updates,
            shutdown,
            bell: desk.bell(),
        };
        self.take_orders();
        self.hand_over();
        let began = self.elapsed();
        let at = (self.parts.wall)();
        self.parts.observer.round_started(at);
        self.parts.status.change(|status| status.next_round_at = None);
        self.round = Round {
            credential: self.transport.credential_version().await,
            ..Round::default()
        };
        let allowance = Allowance {
            requests: self.allowance(),
            rereads: self.rereads.take(self.elapsed()),
        };
        self.source.begin(at, allowance);
        let failure = match self.requests(&line).await {
            Ok(()) => None,
            Err(Stop::Failed { result, why }) => Some((result, why)),
            Err(Stop::Ended) => return None,
        };
        let result = failure.as_ref().map_or(RoundResult::Success, |(result, _)| *result);
        self.conclude(result, failure.map(|(_, why)| why), began);
        let at = (self.parts.wall)();
        let memory = self.memory(result);
        let update = Update::RoundEnded { result, at };
        line.tell(Message {
            source: self.parts.index,
            update,
            memory,
        })
        .await
        .ok()?;
        Some(result)
    }

    fn memory(&self, result: RoundResult) -> Option<Vec<u8>> {
        if !self.keeps_memory || result != RoundResult::Success {
            return None;
        }
        let memory = self.source.memory();
        memory
            .inspect_err(
                |error| tracing::error!(source = &*self.parts.name, %error, "the source's memory cannot be kept"),
            )
            .ok()
    }

    /// What the budget allows within one interval, less the run list's own request. The burst counts only as far as it is
    /// there now: a slow budget that has just been used up would take hours over a round of a full burst.
    fn allowance(&self) -> usize {
        let minutes = self.parts.settings.interval.as_secs_f64() / 60.0;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a float's cast saturates"
        )]
        let paced = (self.parts.settings.requests_per_minute * minutes) as usize;
        let at_once = usize::try_from(self.budget.at_once(self.elapsed())).unwrap_or(usize::MAX);
        paced.saturating_add(at_once).saturating_sub(1).clamp(1, ALLOWANCE_MAX)
    }

    /// Asks what the source wants asked, one request after the other.
    async fn requests(&mut self, line: &Line<'_>) -> Result<(), Stop> {
        while let Some(request) = self.source.next() {
            let sent = self.ask(&request, line).await?;
            let learned = self.read(&request, sent);
            self.report_progress();
            let learned = learned?;
            for notice in &learned.notices {
                self.hear(notice);
            }
            self.show_project(&learned.facts);
            if !learned.facts.is_empty() {
                // Which runs are active is told each round, changed or not; what is unread is no news before it is read.
                let news = |fact: &&Fact| !matches!(fact, Fact::Active(_) | Fact::Unread(_));
                self.round.facts += learned.facts.iter().filter(news).count();
                line.tell(Message {
                    source: self.parts.index,
                    update: Update::Facts(learned.facts),
                    memory: None,
                })
                .await?;
            }
        }
        self.report_progress();
        Ok(())
    }

    /// Sends a request until it is answered for good or its retries are used up.
    async fn ask(&mut self, request: &Request, line: &Line<'_>) -> Result<Sent, Stop> {
        self.admission(line).await?;
        let mut sent = self.send(request, line).await?;
        for retry in 0..ATTEMPTS_MAX - 1 {
            let Some(reason) = retry::Reason::of(&sent.outcome) else {
                break;
            };
            if self.round.retries >= RETRIES_PER_ROUND_MAX || !self.hour.admits_retry(self.elapsed()) {
                break;
            }
            if sent.pause.is_none() {
                let wait = retry::backoff(retry, self.parts.settings.interval, (self.parts.dice)());
                self.waiting(Some(("backoff", wait)));
                line.sleep(wait).await?;
                self.waiting(None);
            }
            self.admission(line).await?;
            // The waits may have moved the requests that earned this retry out of the hour.
            if !self.hour.admits_retry(self.elapsed()) {
                break;
            }
            self.round.retries += 1;
            self.hour.record_retry(self.elapsed());
            self.parts.observer.retried(reason);
            sent = self.send(request, line).await?;
        }
        Ok(sent)
    }

    /// Waits at the gate. A pause that outlasts the round's patience ends the round instead.
    async fn admission(&mut self, line: &Line<'_>) -> Result<(), Stop> {
        if self.round.requests >= ROUND_REQUESTS_MAX {
            let why = format!("the round was stopped at {ROUND_REQUESTS_MAX} requests");
            return Err(Stop::Failed {
                result: RoundResult::Unreadable,
                why,
            });
        }
        loop {
            if line.bell.has_left() {
                return Err(Stop::Ended);
            }
            self.take_orders();
            let (for_, reason) = match self.budget.admit(self.elapsed()) {
                Admission::Go => return Ok(()),
                Admission::Wait { for_, reason } => (for_, reason),
            };
            let patience = self.parts.settings.interval.max(PAUSE_WITHIN_ROUND_MAX);
            if reason != budget::Reason::Budget && for_ > patience {
                return Err(self.told_to_wait(Pause { for_, reason }));
            }
            self.waiting(Some((reason.label(), for_)));
            let since = Instant::now();
            let woken = line.rest(for_).await;
            self.waiting(None);
            self.parts.observer.throttled(reason, since.elapsed().as_secs_f64());
            woken?;
        }
    }

    /// The end of a round that the server stopped. The whole pause is counted here: nothing is asked before it is over.
    fn told_to_wait(&mut self, pause: Pause) -> Stop {
        self.parts.observer.throttled(pause.reason, pause.for_.as_secs_f64());
        let why = format!("told to wait for {} s ({})", pause.for_.as_secs(), pause.reason.label());
        Stop::Failed {
            result: RoundResult::Throttled,
            why,
        }
    }

    async fn send(&mut self, request: &Request, line: &Line<'_>) -> Result<Sent, Stop> {
        let since = Instant::now();
        let outcome = line.or_shutdown(self.transport.send(request)).await?;
        if matches!(outcome, Err(TransportError::Credential(_))) {
            // Without a token nothing was sent.
            return Ok(Sent { outcome, pause: None });
        }
        self.round.requests += 1;
        self.hour.record_request(self.elapsed());
        self.parts
            .observer
            .request_sent(request.endpoint(), &code(&outcome), since.elapsed().as_secs_f64());
        let pause = outcome.as_ref().ok().and_then(|reply| self.obey(reply));
        Ok(Sent { outcome, pause })
    }

    /// Hands the server's word to the gate.
    fn obey(&mut self, reply: &Reply) -> Option<Pause> {
        let now = Moment {
            monotonic: self.elapsed(),
            wall: (self.parts.wall)(),
        };
        let jitter = (self.parts.dice)();
        let before = self.budget.told();
        let pause = self.budget.observe(reply.status, &reply.headers, now, jitter);
        let told = self.budget.told();
        if told != before {
            self.parts.observer.rate_limit_told(told);
            self.show_budget();
        }
        pause
    }

    fn show_budget(&self) {
        let (requests_per_minute, burst) = (self.parts.settings.requests_per_minute, self.parts.settings.burst);
        let Told {
            limit: told_limit,
            remaining: told_remaining,
            reset: told_reset,
        } = self.budget.told();
        let budget = BudgetStatus {
            requests_per_minute,
            burst,
            told_limit,
            told_remaining,
            told_reset,
        };
        self.parts.status.change(|status| status.budget = budget);
    }

    /// Turns an outcome into what it taught, by way of the source's own way round it, if it has one.
    fn read(&mut self, request: &Request, sent: Sent) -> Result<Learned, Stop> {
        let endpoint = request.endpoint();
        let fail = |result, what: &str| {
            Err(Stop::Failed {
                result,
                why: format!("{endpoint}: {what}"),
            })
        };
        let rejection = match sent.outcome {
            Ok(reply) if (200..300).contains(&reply.status) => match self.source.accept(&reply) {
                Ok(learned) => return Ok(learned),
                Err(rejection) => rejection,
            },
            Ok(reply) => match (reply.status, sent.pause) {
                (403, _) if request.may_be_forbidden() => Rejection::Status(403),
                (401 | 403, _) => return fail(RoundResult::Unauthorized, &answered(reply.status)),
                (429, Some(pause))
                | (
                    503,
                    Some(
                        pause @ Pause {
                            reason: budget::Reason::RetryAfter,
                            ..
                        },
                    ),
                ) => {
                    return Err(self.told_to_wait(pause));
                }
                // The platform as a whole is away: a smaller page would not help.
                (502 | 503, _) => return fail(RoundResult::ServerError, &answered(reply.status)),
                (status, _) => Rejection::Status(status),
            },
            Err(error @ TransportError::Connection(_)) => return fail(RoundResult::Unreachable, &error.to_string()),
            Err(error @ TransportError::Credential(_)) => return fail(RoundResult::Unauthorized, &error.to_string()),
            Err(TransportError::Timeout { .. }) => Rejection::Timeout,
            Err(TransportError::TooLarge { .. }) => Rejection::TooLarge,
            Err(TransportError::Encoding(why)) => Rejection::Unreadable(why),
        };
        self.source
            .reject(rejection)
            .or_else(|rejection| fail(result_of(&rejection), &words(&rejection)))
    }

    /// Counts a notice and says it. Rows that are passed over are said together, when the round is over.
    fn hear(&mut self, notice: &Notice) {
        self.parts.observer.notice(notice);
        match notice {
            Notice::RowSkipped { endpoint, why } => {
                let rows = self.round.skipped.entry(endpoint);
                rows.and_modify(|(_, more)| *more += 1)
                    .or_insert_with(|| (why.clone(), 0));
            }
            Notice::UnknownValue { field } => {
                let text = format!("the platform sent an unknown value of {field}; it is read as unknown");
                self.say(&text, "", true);
            }
            // How many changes from answer to answer; a metric counts them.
            Notice::HistoryTruncated { .. } => self.say(
                "histories were cut at the limit before all that is wanted was shown: they are asked for again with more results each, which costs further requests; nothing is to be done",
                "",
                false,
            ),
            Notice::CasesRefused { max, .. } => {
                self.say(
                    &format!("there are more cases than cases.max ({max}): the rest is not tracked"),
                    "",
                    true,
                );
            }
            Notice::NoCases { hint } => self.say(&format!("no case was found: {hint}"), "", true),
            Notice::Advice(text) => self.say(text, "", true),
        }
    }

    fn say_skipped(&mut self) {
        for (endpoint, (why, more)) in std::mem::take(&mut self.round.skipped) {
            let rest = match more {
                0 => String::new(),
                more => format!(", and {more} more"),
            };
            self.say(&format!("{endpoint}: a row was passed over: {why}"), &rest, false);
        }
    }

    /// Shows and logs a text, unless the same stands already, with whatever rest. What a person could act on is a warning.
    fn say(&mut self, text: &str, rest: &str, warning: bool) {
        let full = format!("{text}{rest}");
        let new = self.parts.status.change(|status| {
            let stands = status.advice.iter().any(|known| known.starts_with(text));
            !stands && status.advise(&full)
        });
        match (new, warning) {
            (true, true) => tracing::warn!(source = &*self.parts.name, "{full}"),
            (true, false) => tracing::info!(source = &*self.parts.name, "{full}"),
            (false, _) => {}
        }
        if self.round.notices.len() < status::ADVICE_MAX && !self.round.notices.contains(&full) {
            self.round.notices.push(full);
        }
    }

    fn show_project(&self, facts: &[Fact]) {
        for fact in facts {
            if let Fact::Project(name) = fact {
                self.parts
                    .status
                    .change(|status| status.project = Some(name.to_string()));
            }
        }
    }

    fn report_progress(&mut self) {
        let progress = self.source.progress();
        self.parts.observer.progress(progress);
        self.parts.status.change(|status| {
            status.cases_tracked = progress.cases_tracked;
            status.backlog = progress.backlog;
            status.oldest_refresh = progress.oldest_refresh;
        });
    }

    fn waiting(&self, wait: Option<(&'static str, Duration)>) {
        let now = (self.parts.wall)();
        let waiting = wait.map(|(reason, for_)| Waiting {
            reason,
            until: later(now, for_),
        });
        self.parts.status.change(|status| status.waiting = waiting);
    }

    /// Counts, shows and logs the round that is over.
    fn conclude(&mut self, result: RoundResult, why: Option<String>, began: Duration) {
        self.say_skipped();
        let seconds = self.elapsed().saturating_sub(began).as_secs_f64();
        let (at, requests, name) = ((self.parts.wall)(), self.round.requests, &*self.parts.name);
        self.parts.observer.round_ended(result, at, seconds);
        let label = result.label();
        match &why {
            // To be told to wait is everyday life.
            Some(why) if result == RoundResult::Throttled => {
                tracing::info!(source = name, result = label, requests, seconds, why, "round failed");
            }
            Some(why) => tracing::warn!(source = name, result = label, requests, seconds, why, "round failed"),
            None if self.round.facts > 0 => {
                tracing::info!(
                    source = name,
                    result = label,
                    requests,
                    seconds,
                    facts = self.round.facts,
                    "round complete"
                );
            }
            None => tracing::debug!(
                source = name,
                result = label,
                requests,
                seconds,
                "round complete, nothing new"
            ),
        }
        let notices = std::mem::take(&mut self.round.notices);
        self.parts.status.change(|status| {
            status.last_round = Some(LastRound {
                result: label,
                ended_at: at,
                seconds,
                requests,
            });
            status.last_result = Some(result);
            if let Some(what) = why {
                status.last_error = Some(LastError { what, at });
            } else {
                status.last_success = Some(at);
                status.advice = notices;
            }
        });
    }

    /// Waits for the next round: an interval from start to start, not before a pause is over, and rarely with a refused
    /// credential unless that has changed. Another configuration sets the alarm anew.
    async fn rest(&mut self, began: Duration, result: RoundResult, line: &Line<'_>) -> Result<(), Stop> {
        let mut counted = result == RoundResult::Throttled;
        loop {
            self.take_orders();
            let (now, interval) = (self.elapsed(), self.parts.settings.interval);
            let pause = self.budget.pause(now);
            let pace = match result {
                RoundResult::Unauthorized => interval.saturating_mul(PROBE_INTERVALS).max(PROBE_MIN),
                _ => interval,
            };
            let due = began.saturating_add(pace).max(now);
            let resume = pause.map_or(Duration::ZERO, |pause| now.saturating_add(pause.for_));
            if let Some(pause) = pause.filter(|_| resume > due && !counted) {
                counted = true;
                self.parts
                    .observer
                    .throttled(pause.reason, resume.saturating_sub(due).as_secs_f64());
            }
            let next = due.max(resume);
            let next_at = later((self.parts.wall)(), next.saturating_sub(now));
            self.parts.status.change(|status| status.next_round_at = Some(next_at));
            match (result, pause) {
                (RoundResult::Unauthorized, _) => self.waiting(Some(("credential", next.saturating_sub(now)))),
                (_, Some(pause)) => self.waiting(Some((pause.reason.label(), pause.for_))),
                (_, None) => {}
            }
            let rested = match result {
                RoundResult::Unauthorized => self.rest_until_credential(resume, next, line).await,
                _ => line.rest(next.saturating_sub(now)).await,
            };
            self.waiting(None);
            if rested? == Woken::InTime {
                return Ok(());
            }
        }
    }

    /// Looks at the local credential now and then; a changed one is tried at once, though not during a pause.
    async fn rest_until_credential(
        &mut self,
        resume: Duration,
        next: Duration,
        line: &Line<'_>,
    ) -> Result<Woken, Stop> {
        let step = self.parts.settings.interval.min(CREDENTIAL_CHECK_MAX);
        loop {
            let now = self.elapsed();
            if now >= next {
                return Ok(Woken::InTime);
            }
            if line.or_shutdown(self.transport.credential_version()).await? != self.round.credential {
                return line.rest(resume.saturating_sub(now)).await;
            }
            if line.rest(step.min(next.saturating_sub(now))).await? == Woken::Rung {
                return Ok(Woken::Rung);
            }
        }
    }

    /// Since the gate was built.
    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

fn later(now: Timestamp, wait: Duration) -> Timestamp {
    SignedDuration::try_from(wait)
        .ok()
        .and_then(|wait| now.checked_add(wait).ok())
        .unwrap_or(Timestamp::MAX)
}

fn code(outcome: &Result<Reply, TransportError>) -> String {
    let word = match outcome {
        Ok(reply) if (100..600).contains(&reply.status) => return reply.status.to_string(),
        Ok(_) => "other",
        Err(TransportError::Timeout { .. }) => "timeout",
        Err(TransportError::Connection(_)) => "connection",
        Err(TransportError::TooLarge { .. }) => "too_large",
        Err(TransportError::Encoding(_)) => "encoding",
        Err(TransportError::Credential(_)) => "credential",
    };
    word.to_owned()
}

fn result_of(rejection: &Rejection) -> RoundResult {
    match rejection {
        Rejection::Status(401 | 403) => RoundResult::Unauthorized,
        Rejection::Status(429) => RoundResult::Throttled,
        Rejection::Status(300..500) => RoundResult::Refused,
        Rejection::Status(500..600) => RoundResult::ServerError,
        Rejection::Status(_) | Rejection::TooLarge | Rejection::Unreadable(_) => RoundResult::Unreadable,
        Rejection::Timeout => RoundResult::Unreachable,
    }
}

/// With what a person should look at first.
fn answered(status: u16) -> String {
    let hint = match status {
        401 | 403 => "; the token is refused",
        404 => "; is base_url right?",
        _ => "",
    };
    format!("the server answered {status}{hint}")
}

fn words(rejection: &Rejection) -> String {
    match rejection {
        Rejection::Status(status) => answered(*status),
        Rejection::Timeout => "no complete answer in time".to_owned(),
        Rejection::TooLarge => "the answer is larger than is read".to_owned(),
        Rejection::Unreadable(why) => format!("the answer cannot be read: {why}"),
    }
}

#[cfg(test)]
mod tests;
