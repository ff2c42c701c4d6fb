//! The exporter's own health: counters and gauges behind verbs, on a private registry of the prometheus crate.
//! Never a platform's data (those are rendered from snapshots), never a clock, never a label that is not from a closed or
//! configured set.

mod process;

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::proto::{Metric, MetricFamily};
use prometheus::{CounterVec, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};
use url::Url;

use crate::metrics::catalog::{self, Family, Type};
use crate::metrics::text::{Format, Page, Samples, push_identity_label, push_text_label, safe_text, unix_seconds};
use crate::model::{Condition, Name, RoundResult};
use crate::promotion::{Blocked, is_fresh, is_promotable};
use crate::store::Promotion;

/// A round is one request when nothing has happened, and a backlog's worth of waiting for the budget at worst.
const ROUND_SECONDS_BOUNDS: &[f64] = &[0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];

/// Up to the default time-out of a request.
const REQUEST_SECONDS_BOUNDS: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// From a fast disk to one that is about to fail.
const WRITE_SECONDS_BOUNDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Whose word a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Throttle {
    /// The user's own ceiling.
    Budget,
    /// The platform's `Retry-After`.
    RetryAfter,
    /// The platform said that nothing is left in its window.
    Quota,
}

impl Throttle {
    /// Every member.
    pub const ALL: [Self; 3] = [Self::Budget, Self::RetryAfter, Self::Quota];

    /// The member's label value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Budget => "budget",
            Self::RetryAfter => "retry_after",
            Self::Quota => "quota",
        }
    }
}

/// What this binary was built from.
#[derive(Debug, Clone, Copy)]
pub struct BuildInfo {
    /// The package's version.
    pub version: &'static str,
    /// The commit, if the build was told.
    pub revision: &'static str,
    /// The compiler.
    pub rustc_version: &'static str,
}

/// What a source is.
#[derive(Debug, Clone)]
pub struct SourceInfo {
    /// The platform.
    pub kind: &'static str,
    /// Where it is. User info, query and fragment are never shown.
    pub base_url: Url,
    /// From the start of one round to the start of the next.
    pub poll_interval: Duration,
    /// Without a complete round for so long, the source is down.
    pub stale_after: Duration,
}

/// Our own metrics would not fit together: a mistake in the catalog, which a test would have found.
#[derive(Debug, thiserror::Error)]
#[error("the exporter's own metrics are inconsistent")]
pub struct CatalogError(#[from] prometheus::Error);

/// The exporter's own health. Clones share it.
#[derive(Clone)]
pub struct Own {
    shared: Arc<Shared>,
}

struct Shared {
    registry: Registry,
    families: Families,
    /// What `testrun_up` is computed from, for each scrape. Held for a few assignments at a time.
    sources: Mutex<BTreeMap<String, State>>,
}

/// A source as the scrape has to see it.
struct State {
    stale_after: Duration,
    /// Empty until told.
    project: String,
    last_result: Option<RoundResult>,
    last_success: Option<Timestamp>,
    /// What the newest snapshot says of a promotion.
    promotion: Promotion,
}

impl State {
    /// A pause can last for longer than anything that would tell us so: age is looked at for each scrape.
    fn is_up(&self, now: Timestamp) -> bool {
        let stale_after = SignedDuration::try_from(self.stale_after).unwrap_or(SignedDuration::MAX);
        let fresh = self.last_success.is_some_and(|at| now.duration_since(at) < stale_after);
        fresh && matches!(self.last_result, Some(RoundResult::Success | RoundResult::Throttled))
    }

    /// Each environment's standing at this moment, whatever became of the task that told it: by itself it grows stale.
    fn gates(&self, now: Timestamp) -> impl Iterator<Item = (&Name, Blocked)> {
        let stale_after = SignedDuration::try_from(self.stale_after).unwrap_or(SignedDuration::MAX);
        let is_fresh = is_fresh(self.promotion.as_of, stale_after, now);
        let standings = self.promotion.standings.iter();
        standings.map(move |standing| (&standing.environment, standing.blocked(now, is_fresh)))
    }
}

struct Families {
    source_info: GaugeVec,
    up: GaugeVec,
    rounds: IntCounterVec,
    round_duration: HistogramVec,
    last_success: GaugeVec,
    last_attempt: GaugeVec,
    poll_interval: GaugeVec,
    requests: IntCounterVec,
    request_duration: HistogramVec,
    retries: IntCounterVec,
    throttled: IntCounterVec,
    throttle_seconds: CounterVec,
    rate_limit_limit: GaugeVec,
    rate_limit_remaining: GaugeVec,
    rate_limit_reset: GaugeVec,
    cases_tracked: GaugeVec,
    oldest_case_refresh: GaugeVec,
    unknown_values: IntCounterVec,
    history_truncated: IntCounterVec,
    cases_refused: IntCounterVec,
    late_edits: IntCounterVec,
    rows_skipped: IntCounterVec,
    ledger_writes: IntCounterVec,
    ledger_write_failures: IntCounterVec,
    ledger_write_duration: HistogramVec,
    ledger_healthy: GaugeVec,
    ledger_size: GaugeVec,
    ledger_last_write: GaugeVec,
    ledger_restored: GaugeVec,
    ledger_set_aside: IntCounterVec,
    lost_seconds: CounterVec,
    config_successful: GaugeVec,
    config_success_timestamp: GaugeVec,
    web_config_successful: GaugeVec,
    web_config_success_timestamp: GaugeVec,
}

impl Families {
    fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |family: &Family| registered(registry, GaugeVec::new(opts(family), family.labels)?);
        let counter = |family: &Family| registered(registry, IntCounterVec::new(opts(family), family.labels)?);
        let histogram = |family: &Family, bounds: &[f64]| {
            let opts = HistogramOpts::new(family.name, family.help).buckets(bounds.to_vec());
            registered(registry, HistogramVec::new(opts, family.labels)?)
        };
        let throttle_seconds = &catalog::THROTTLE_SECONDS_TOTAL;
        let lost_seconds = &catalog::LOST_SECONDS_TOTAL;
        Ok(Self {
            source_info: gauge(&catalog::SOURCE_INFO)?,
            up: gauge(&catalog::UP)?,
            rounds: counter(&catalog::ROUNDS_TOTAL)?,
            round_duration: histogram(&catalog::ROUND_DURATION_SECONDS, ROUND_SECONDS_BOUNDS)?,
            last_success: gauge(&catalog::LAST_SUCCESS_TIMESTAMP_SECONDS)?,
            last_attempt: gauge(&catalog::LAST_ATTEMPT_TIMESTAMP_SECONDS)?,
            poll_interval: gauge(&catalog::POLL_INTERVAL_SECONDS)?,
            requests: counter(&catalog::REQUESTS_TOTAL)?,
            request_duration: histogram(&catalog::REQUEST_DURATION_SECONDS, REQUEST_SECONDS_BOUNDS)?,
            retries: counter(&catalog::RETRIES_TOTAL)?,
            throttled: counter(&catalog::THROTTLED_TOTAL)?,
            throttle_seconds: registered(
                registry,
                CounterVec::new(opts(throttle_seconds), throttle_seconds.labels)?,
            )?,
            rate_limit_limit: gauge(&catalog::RATE_LIMIT_LIMIT)?,
            rate_limit_remaining: gauge(&catalog::RATE_LIMIT_REMAINING)?,
            rate_limit_reset: gauge(&catalog::RATE_LIMIT_RESET_TIMESTAMP_SECONDS)?,
            cases_tracked: gauge(&catalog::CASES_TRACKED)?,
            oldest_case_refresh: gauge(&catalog::OLDEST_CASE_REFRESH_TIMESTAMP_SECONDS)?,
            unknown_values: counter(&catalog::UNKNOWN_VALUES_TOTAL)?,
            history_truncated: counter(&catalog::HISTORY_TRUNCATED_TOTAL)?,
            cases_refused: counter(&catalog::CASES_REFUSED_TOTAL)?,
            late_edits: counter(&catalog::LATE_EDITS_TOTAL)?,
            rows_skipped: counter(&catalog::ROWS_SKIPPED_TOTAL)?,
            ledger_writes: counter(&catalog::LEDGER_WRITES_TOTAL)?,
            ledger_write_failures: counter(&catalog::LEDGER_WRITE_FAILURES_TOTAL)?,
            ledger_write_duration: histogram(&catalog::LEDGER_WRITE_DURATION_SECONDS, WRITE_SECONDS_BOUNDS)?,
            ledger_healthy: gauge(&catalog::LEDGER_HEALTHY)?,
            ledger_size: gauge(&catalog::LEDGER_SIZE_BYTES)?,
            ledger_last_write: gauge(&catalog::LEDGER_LAST_WRITE_TIMESTAMP_SECONDS)?,
            ledger_restored: gauge(&catalog::LEDGER_RESTORED)?,
            ledger_set_aside: counter(&catalog::LEDGER_SET_ASIDE_TOTAL)?,
            lost_seconds: registered(registry, CounterVec::new(opts(lost_seconds), lost_seconds.labels)?)?,
            config_successful: gauge(&catalog::CONFIG_LAST_RELOAD_SUCCESSFUL)?,
            config_success_timestamp: gauge(&catalog::CONFIG_LAST_RELOAD_SUCCESS_TIMESTAMP_SECONDS)?,
            web_config_successful: gauge(&catalog::WEB_CONFIG_LAST_RELOAD_SUCCESSFUL)?,
            web_config_success_timestamp: gauge(&catalog::WEB_CONFIG_LAST_RELOAD_SUCCESS_TIMESTAMP_SECONDS)?,
        })
    }

    /// Removes every series of a source.
    fn forget(&self, source: &str) {
        for family in [
            &self.source_info,
            &self.up,
            &self.last_success,
            &self.last_attempt,
            &self.poll_interval,
            &self.rate_limit_limit,
            &self.rate_limit_remaining,
            &self.rate_limit_reset,
            &self.cases_tracked,
            &self.oldest_case_refresh,
            &self.ledger_size,
            &self.ledger_last_write,
            &self.ledger_restored,
        ] {
            forget(family, source);
        }
        for family in [
            &self.rounds,
            &self.requests,
            &self.retries,
            &self.throttled,
            &self.unknown_values,
            &self.history_truncated,
            &self.cases_refused,
            &self.late_edits,
            &self.rows_skipped,
            &self.ledger_set_aside,
        ] {
            forget(family, source);
        }
        for family in [&self.round_duration, &self.request_duration] {
            forget(family, source);
        }
        for family in [&self.throttle_seconds, &self.lost_seconds] {
            forget(family, source);
        }
    }
}

/// Removes every series of a source from a family.
fn forget<B: MetricVecBuilder>(family: &MetricVec<B>, source: &str) {
    for metric in family.collect().iter().flat_map(MetricFamily::get_metric) {
        let labels: HashMap<&str, &str> = metric
            .get_label()
            .iter()
            .map(|label| (label.name(), label.value()))
            .collect();
        if labels.get("source") == Some(&source) {
            // It was there a moment ago; if it is gone, all the better.
            let _ = family.remove(&labels);
        }
    }
}

/// Whether a file could be read, and when it last could.
fn loaded(successful: &GaugeVec, timestamp: &GaugeVec, at: Timestamp, ok: bool) {
    let none: &[&str] = &[];
    successful.with_label_values(none).set(f64::from(u8::from(ok)));
    if ok {
        timestamp.with_label_values(none).set(unix_seconds(at));
    }
}

fn opts(family: &Family) -> Opts {
    Opts::new(family.name, family.help)
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, family: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}

impl Own {
    /// Nothing has happened yet.
    ///
    /// # Errors
    /// The catalog contradicts itself.
    pub fn new(build: BuildInfo) -> Result<Self, CatalogError> {
        let registry = Registry::new();
        let families = Families::register(&registry)?;
        let info = &catalog::BUILD_INFO;
        registered(&registry, GaugeVec::new(opts(info), info.labels)?)?
            .with_label_values(&[build.version, build.revision, build.rustc_version])
            .set(1.0);
        Ok(Self {
            shared: Arc::new(Shared {
                registry,
                families,
                sources: Mutex::default(),
            }),
        })
    }

    /// A handle for one source's poller. What can be counted is there at 0 from now on; what has not been told is absent.
    #[must_use]
    pub fn source(&self, name: &str, info: &SourceInfo) -> SourceOwn {
        let own = self.prepare(name, info);
        own.appear(info);
        own
    }

    /// The same handle for a source that nothing is shown of before [`SourceOwn::appear`].
    #[must_use]
    pub fn prepare(&self, name: &str, info: &SourceInfo) -> SourceOwn {
        let identity = Arc::new(Identity {
            name: name.to_owned(),
            kind: info.kind,
            base_url: shown_url(info.base_url.clone()),
        });
        SourceOwn {
            shared: Arc::clone(&self.shared),
            identity,
            gone: Arc::default(),
        }
    }

    /// A handle for the ledger. Without this call its families are absent.
    #[must_use]
    pub fn ledger(&self) -> LedgerOwn {
        let none: &[&str] = &[];
        let families = &self.shared.families;
        families.ledger_writes.with_label_values(none);
        families.ledger_write_failures.with_label_values(none);
        families.ledger_write_duration.with_label_values(none);
        families.ledger_healthy.with_label_values(none).set(1.0);
        LedgerOwn {
            shared: Arc::clone(&self.shared),
        }
    }

    /// The configuration was read, at the start or anew.
    pub fn config_loaded(&self, at: Timestamp, ok: bool) {
        let families = &self.shared.families;
        loaded(&families.config_successful, &families.config_success_timestamp, at, ok);
    }

    /// The same for the web configuration, if there is one.
    pub fn web_config_loaded(&self, at: Timestamp, ok: bool) {
        let families = &self.shared.families;
        loaded(
            &families.web_config_successful,
            &families.web_config_success_timestamp,
            at,
            ok,
        );
    }

    /// Each environment's standing at this moment.
    fn gates(&self, now: Timestamp) -> Vec<Gate> {
        let mut gates = Vec::new();
        for (name, state) in self.shared.sources().iter() {
            for (environment, blocked) in state.gates(now) {
                let mut labels = String::new();
                push_identity_label(&mut labels, "source", name);
                push_identity_label(&mut labels, "environment", environment);
                gates.push((labels, blocked));
            }
        }
        gates
    }

    /// The text for one scrape: whole families in the order of their names, the process's own ones first.
    #[must_use]
    pub fn render(&self, now: Timestamp, format: Format) -> String {
        for (name, state) in self.shared.sources().iter() {
            let up = f64::from(u8::from(state.is_up(now)));
            self.shared.families.up.with_label_values(&[name]).set(up);
        }
        let mut page = Page::new(format);
        process::write(&mut page);
        let mut gates = Some(self.gates(now));
        for gathered in self.shared.registry.gather() {
            if let Some(gates) = gates.take_if(|_| gathered.name() > catalog::ENVIRONMENT_PROMOTABLE.name) {
                write_gates(&mut page, &gates);
            }
            // All that is registered was made from the catalog.
            if let Some(family) = catalog::FAMILIES.iter().find(|family| family.name == gathered.name()) {
                page.family(family, |out| write_gathered(out, &gathered, family.kind));
            }
        }
        page.into_text()
    }
}

/// An environment's labels, and what speaks against its promotion.
type Gate = (String, Blocked);

/// The two families of the gate. Nothing of them is held anywhere: what is shown depends on the moment.
fn write_gates(page: &mut Page, gates: &[Gate]) {
    page.family(&catalog::ENVIRONMENT_BLOCKED, |out| {
        for (labels, blocked) in gates {
            for condition in Condition::ALL {
                let holds = u64::from(blocked[condition.index()]);
                out.put_with(labels, "condition", condition.label(), holds);
            }
        }
    });
    page.family(&catalog::ENVIRONMENT_PROMOTABLE, |out| {
        for (labels, blocked) in gates {
            out.put(labels, u64::from(is_promotable(blocked)));
        }
    });
}

/// The prometheus crate's own encoder knows one format only, and escapes by its own rules.
fn write_gathered(out: &mut Samples<'_>, gathered: &MetricFamily, kind: Type) {
    let mut labels = String::new();
    for metric in gathered.get_metric() {
        labels.clear();
        for label in metric.get_label() {
            push_text_label(&mut labels, label.name(), label.value());
        }
        match kind {
            Type::Counter => out.put(&labels, metric.get_counter().get_value()),
            Type::Gauge | Type::Info => out.put(&labels, metric.get_gauge().get_value()),
            Type::Histogram => write_histogram(out, &labels, metric),
            // There is none among our own.
            Type::Summary => {}
        }
    }
}

fn write_histogram(out: &mut Samples<'_>, labels: &str, metric: &Metric) {
    let histogram = metric.get_histogram();
    for bucket in histogram.get_bucket() {
        out.put_bucket(labels, bucket.upper_bound(), bucket.cumulative_count(), None);
    }
    let count = histogram.get_sample_count();
    out.put_bucket(labels, f64::INFINITY, count, None);
    out.put_sum_and_count(labels, histogram.get_sample_sum(), count);
}

impl Shared {
    fn sources(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, State>> {
        // Every change is one assignment: a panic elsewhere leaves nothing half done.
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The URL without what could be a credential.
fn shown_url(mut url: Url) -> String {
    // These fail for URLs that cannot hold a user or a password, which is all we want.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

/// One source's share of our own health: what its poller tells. Clones share it.
#[derive(Clone)]
pub struct SourceOwn {
    shared: Arc<Shared>,
    identity: Arc<Identity>,
    gone: Arc<RwLock<bool>>,
}

/// The families, while nothing of them can be taken away.
struct Told<'a> {
    families: &'a Families,
    _here: RwLockReadGuard<'a, bool>,
}

impl Deref for Told<'_> {
    type Target = Families;

    fn deref(&self) -> &Families {
        self.families
    }
}

struct Identity {
    name: String,
    kind: &'static str,
    base_url: String,
}

impl SourceOwn {
    /// The source is polled from now on.
    pub fn appear(&self, info: &SourceInfo) {
        let Some(families) = self.families() else { return };
        let Identity { name, kind, base_url } = &*self.identity;
        let name = name.as_str();
        for result in RoundResult::ALL {
            families.rounds.with_label_values(&[name, result.label()]);
        }
        for reason in Throttle::ALL {
            families.throttled.with_label_values(&[name, reason.label()]);
        }
        families.round_duration.with_label_values(&[name]);
        families.throttle_seconds.with_label_values(&[name]);
        families.history_truncated.with_label_values(&[name]);
        families.cases_refused.with_label_values(&[name]);
        families.late_edits.with_label_values(&[name]);
        families.lost_seconds.with_label_values(&[name]);
        families
            .source_info
            .with_label_values(&[name, kind, "", base_url])
            .set(1.0);
        let state = State {
            stale_after: info.stale_after,
            project: String::new(),
            last_result: None,
            last_success: None,
            promotion: Promotion::default(),
        };
        self.shared.sources().insert(name.to_owned(), state);
        drop(families);
        self.paced(info.poll_interval, info.stale_after);
    }

    /// The source's pace is another one from now on.
    pub fn paced(&self, poll_interval: Duration, stale_after: Duration) {
        let Some(families) = self.families() else { return };
        families
            .poll_interval
            .with_label_values(&[self.name()])
            .set(poll_interval.as_secs_f64());
        if let Some(state) = self.shared.sources().get_mut(self.name()) {
            state.stale_after = stale_after;
        }
    }

    /// The source is no longer polled: all that was told of it goes, and whatever is told later, by this handle or a clone
    /// of it, is not heard. Another source may have the name by then.
    pub fn vanish(&self) {
        *self.gone.write().unwrap_or_else(PoisonError::into_inner) = true;
        // While this is held no scrape can put the source's `testrun_up` back.
        let mut sources = self.shared.sources();
        sources.remove(self.name());
        self.shared.families.forget(self.name());
    }

    /// A request has ended after `seconds`. `code`: the HTTP status, or a word from a closed set for no answer.
    pub fn request_sent(&self, endpoint: &'static str, code: &str, seconds: f64) {
        let Some(families) = self.families() else { return };
        families
            .requests
            .with_label_values(&[self.name(), endpoint, code])
            .inc();
        families
            .request_duration
            .with_label_values(&[self.name(), endpoint])
            .observe(seconds);
    }

    /// A request is sent again. `reason`: the HTTP status or a word from a closed set.
    pub fn retried(&self, reason: &str) {
        let Some(families) = self.families() else { return };
        families.retries.with_label_values(&[self.name(), reason]).inc();
    }

    /// A request had to wait, or has to.
    pub fn throttled(&self, reason: Throttle, seconds: f64) {
        let Some(families) = self.families() else { return };
        families
            .throttled
            .with_label_values(&[self.name(), reason.label()])
            .inc();
        // A counter only grows; the crate panics on less than nothing in debug builds.
        families
            .throttle_seconds
            .with_label_values(&[self.name()])
            .inc_by(seconds.max(0.0));
    }

    /// A reply told about the platform's limit; what it did not tell stays as it was.
    #[expect(clippy::cast_precision_loss, reason = "a limit beyond 2^53 requests is no limit")]
    pub fn rate_limit_told(&self, limit: Option<u64>, remaining: Option<u64>, reset: Option<Timestamp>) {
        let Some(families) = self.families() else { return };
        if let Some(limit) = limit {
            families
                .rate_limit_limit
                .with_label_values(&[self.name()])
                .set(limit as f64);
        }
        if let Some(remaining) = remaining {
            families
                .rate_limit_remaining
                .with_label_values(&[self.name()])
                .set(remaining as f64);
        }
        if let Some(reset) = reset {
            families
                .rate_limit_reset
                .with_label_values(&[self.name()])
                .set(unix_seconds(reset));
        }
    }

    /// A round begins.
    pub fn round_started(&self, at: Timestamp) {
        let Some(families) = self.families() else { return };
        families
            .last_attempt
            .with_label_values(&[self.name()])
            .set(unix_seconds(at));
    }

    /// A round has ended, after `seconds`.
    pub fn round_ended(&self, result: RoundResult, at: Timestamp, seconds: f64) {
        let Some(families) = self.families() else { return };
        families.rounds.with_label_values(&[self.name(), result.label()]).inc();
        families
            .round_duration
            .with_label_values(&[self.name()])
            .observe(seconds);
        if result == RoundResult::Success {
            families
                .last_success
                .with_label_values(&[self.name()])
                .set(unix_seconds(at));
        }
        if let Some(state) = self.shared.sources().get_mut(self.name()) {
            state.last_result = Some(result);
            if result == RoundResult::Success {
                state.last_success = Some(at);
            }
        }
    }

    /// A former process has read the source at that time, and nothing is known of what came after.
    pub fn restored(&self, at: Timestamp) {
        let Some(families) = self.families() else { return };
        families
            .last_success
            .with_label_values(&[self.name()])
            .set(unix_seconds(at));
        if let Some(state) = self.shared.sources().get_mut(self.name()) {
            state.last_result = Some(RoundResult::Success);
            state.last_success = Some(at);
        }
    }

    /// What a snapshot that is about to be shown says of a promotion.
    pub fn promotion(&self, promotion: &Promotion) {
        let Some(_here) = self.families() else { return };
        if let Some(state) = self.shared.sources().get_mut(self.name()) {
            state.promotion = promotion.clone();
        }
    }

    /// By environment, what speaks against a promotion at this moment: just what a scrape would show.
    #[must_use]
    pub fn gates(&self, now: Timestamp) -> Vec<(Name, Vec<Condition>)> {
        let Some(_here) = self.families() else {
            return Vec::new();
        };
        let sources = self.shared.sources();
        let holding = |blocked: Blocked| {
            let all = Condition::ALL.iter().copied();
            all.filter(|condition| blocked[condition.index()]).collect()
        };
        let gates = sources.get(self.name()).into_iter().flat_map(|state| state.gates(now));
        gates
            .map(|(environment, blocked)| (environment.clone(), holding(blocked)))
            .collect()
    }

    /// So much time can no longer be read.
    pub fn lost(&self, seconds: f64) {
        let Some(families) = self.families() else { return };
        families
            .lost_seconds
            .with_label_values(&[self.name()])
            .inc_by(seconds.max(0.0));
    }

    /// How much is known.
    #[expect(clippy::cast_precision_loss, reason = "bounded by the configured number of cases")]
    pub fn progress(&self, cases_tracked: usize, oldest_refresh: Option<Timestamp>) {
        let Some(families) = self.families() else { return };
        families
            .cases_tracked
            .with_label_values(&[self.name()])
            .set(cases_tracked as f64);
        match oldest_refresh {
            Some(at) => families
                .oldest_case_refresh
                .with_label_values(&[self.name()])
                .set(unix_seconds(at)),
            // It is an error to remove what is not there, and just what we want.
            None => drop(families.oldest_case_refresh.remove_label_values(&[self.name()])),
        }
    }

    /// A value outside of a field's documented set was read as `unknown`.
    pub fn unknown_value(&self, field: &'static str) {
        let Some(families) = self.families() else { return };
        families.unknown_values.with_label_values(&[self.name(), field]).inc();
    }

    /// The platform cut the histories of so many cases.
    pub fn history_truncated(&self, cases: u64) {
        let Some(families) = self.families() else { return };
        families
            .history_truncated
            .with_label_values(&[self.name()])
            .inc_by(cases);
    }

    /// So many cases were passed over because as many as are wanted are tracked.
    pub fn cases_refused(&self, cases: u64) {
        let Some(families) = self.families() else { return };
        families.cases_refused.with_label_values(&[self.name()]).inc_by(cases);
    }

    /// The edits that the store has seen up to now, those of a process before this one included.
    pub fn late_edits(&self, edits: u64) {
        let Some(families) = self.families() else { return };
        let told = families.late_edits.with_label_values(&[self.name()]);
        told.inc_by(edits.saturating_sub(told.get()));
    }

    /// A row was passed over.
    pub fn row_skipped(&self, endpoint: &'static str) {
        let Some(families) = self.families() else { return };
        families.rows_skipped.with_label_values(&[self.name(), endpoint]).inc();
    }

    /// So many bytes of it are on the disk.
    #[expect(clippy::cast_precision_loss, reason = "no ledger is petabytes long")]
    pub fn kept(&self, size: usize, at: Timestamp) {
        let Some(families) = self.families() else { return };
        families.ledger_size.with_label_values(&[self.name()]).set(size as f64);
        families
            .ledger_last_write
            .with_label_values(&[self.name()])
            .set(unix_seconds(at));
    }

    /// Whether it goes on where a former process left it.
    pub fn found_in_ledger(&self, found: bool) {
        let Some(families) = self.families() else { return };
        let found = f64::from(u8::from(found));
        families.ledger_restored.with_label_values(&[self.name()]).set(found);
    }

    /// What the ledger had for it could not be read. `reason`: a word from a closed set.
    pub fn set_aside(&self, reason: &'static str) {
        let Some(families) = self.families() else { return };
        families
            .ledger_set_aside
            .with_label_values(&[self.name(), reason])
            .inc();
    }

    /// The platform told the project's name, perhaps another one than before.
    pub fn project_told(&self, project: &str) {
        let Some(families) = self.families() else { return };
        let project = safe_text(project);
        let Identity { name, kind, base_url } = &*self.identity;
        let mut sources = self.shared.sources();
        let Some(state) = sources.get_mut(name) else { return };
        let info = &families.source_info;
        // Only one series describes a source: the one of the former name goes.
        let _ = info.remove_label_values(&[name.as_str(), kind, &state.project, base_url]);
        info.with_label_values(&[name.as_str(), kind, &project, base_url])
            .set(1.0);
        state.project = project;
    }

    /// For as long as it is there. Whoever vanishes waits for what is being told.
    fn families(&self) -> Option<Told<'_>> {
        let gone = self.gone.read().unwrap_or_else(PoisonError::into_inner);
        (!*gone).then(|| Told {
            families: &self.shared.families,
            _here: gone,
        })
    }

    /// The `source` label.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.identity.name
    }
}

/// The ledger's share of our own health.
#[derive(Clone)]
pub struct LedgerOwn {
    shared: Arc<Shared>,
}

impl LedgerOwn {
    /// A file is on the disk, after `seconds`.
    pub fn written(&self, seconds: f64) {
        let (none, families): (&[&str], _) = (&[], &self.shared.families);
        families.ledger_writes.with_label_values(none).inc();
        families.ledger_write_duration.with_label_values(none).observe(seconds);
    }

    /// A file could not be written.
    pub fn write_failed(&self) {
        let none: &[&str] = &[];
        self.shared.families.ledger_write_failures.with_label_values(none).inc();
    }

    /// Whether everything that is known is on the disk.
    pub fn healthy(&self, healthy: bool) {
        let none: &[&str] = &[];
        let healthy = f64::from(u8::from(healthy));
        self.shared.families.ledger_healthy.with_label_values(none).set(healthy);
    }
}

#[cfg(test)]
mod tests;
