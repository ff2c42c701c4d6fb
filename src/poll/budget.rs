//! The gate in front of every request of a source: the user's own ceiling, and the server's word, which can only make it stricter.
//! Never sleeps, never reads a clock, never sends anything: it is told the time and answers at once.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use http::HeaderMap;
use jiff::Timestamp;

use super::Settings;

/// No server's word stops a source for longer: a broken or hostile number must not silence it for days. After that long,
/// one request asks again.
pub const PAUSE_MAX: Duration = Duration::from_secs(3600);
/// What an unreadable wait means, and a 429 that names none.
pub const PAUSE_UNREADABLE: Duration = Duration::from_secs(60);
/// Servers cut their waits to whole seconds, so the true one can be almost a second longer.
const SECOND_CUT_OFF: Duration = Duration::from_secs(1);
/// Jitter is a tenth of the wait, at most this much: enough to part clients that were stopped in the same second.
const JITTER_MAX: Duration = Duration::from_secs(1);
/// The longest pace that can be configured in effect: a request a day.
const PERIOD_MAX: Duration = Duration::from_secs(86_400);
/// The shortest: the arithmetic below counts nanoseconds, and a million requests a second is no ceiling any more.
const PERIOD_MIN: Duration = Duration::from_micros(1);
/// A whole burst refills within this; more would overflow the limiter's nanoseconds.
const BURST_SPAN_MAX: Duration = Duration::from_secs(365 * 86_400);
/// Where the limiter's clock stands still, in 146 years: its sums must not overflow.
const CLOCK_NANOS_MAX: u64 = u64::MAX / 4;
/// A wait is never shorter, so that a rounding error cannot make a loop spin.
const WAIT_MIN: Duration = Duration::from_millis(1);
/// A `RateLimit` field with more members than this is not from a server that means well.
const RATE_LIMIT_MEMBERS_MAX: usize = 32;

/// Of so many requests, one may ask again for what was read already.
const REQUESTS_PER_REREAD: f64 = 10.0;
/// The time over which that holds, whenever it begins.
const REREAD_SPAN: Duration = Duration::from_secs(3600);
/// A tenth of fewer requests is no request: a slower budget gets a longer span.
const REREADS_PER_SPAN_MIN: f64 = 2.0;

/// The part of the budget that may be spent on what was read before: in any hour at most a tenth of what the user's ceiling
/// lets through in an hour (or in the time of twenty requests, if that is longer), evenly spread.
#[derive(Debug)]
pub struct Tenth {
    /// Re-reads a second.
    pace: f64,
    /// How many may be saved up.
    most: f64,
    saved: f64,
    at: Duration,
}

impl Tenth {
    /// Nothing is saved up yet.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let a_second = settings.requests_per_minute / 60.0 / REQUESTS_PER_REREAD;
        let span = REREAD_SPAN.as_secs_f64().max(REREADS_PER_SPAN_MIN / a_second);
        let in_a_span = a_second * span;
        // What may be saved up comes on top of what accrues within a span: together they are the tenth.
        let most = (a_second * settings.interval.as_secs_f64())
            .min(in_a_span / 2.0)
            .floor()
            .max(1.0);
        Self {
            pace: (in_a_span - most) / span,
            most,
            saved: 0.0,
            at: Duration::ZERO,
        }
    }

    /// Takes whatever may be spent now. What is not spent is not given back: the next round has its own.
    pub fn take(&mut self, now: Duration) -> usize {
        self.accrue(now);
        let whole = self.saved.floor();
        self.saved -= whole;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a float's cast saturates"
        )]
        let whole = whole as usize;
        whole
    }

    /// Goes on from where another one is, at its own pace.
    pub fn inherit(&mut self, predecessor: &Self) {
        (self.saved, self.at) = (predecessor.saved.min(self.most), predecessor.at);
    }

    fn accrue(&mut self, now: Duration) {
        let seconds = now.saturating_sub(self.at).as_secs_f64();
        self.saved = (self.saved + seconds * self.pace).min(self.most);
        self.at = self.at.max(now);
    }
}

/// Why a request has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The user's own ceiling.
    Budget,
    /// The server named a wait, or refused with 429.
    RetryAfter,
    /// The server said that nothing remains.
    Quota,
}

impl Reason {
    /// The label value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Budget => "budget",
            Self::RetryAfter => "retry_after",
            Self::Quota => "quota",
        }
    }
}

/// The gate's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// One request may leave now; its permit is taken.
    Go,
    /// None may leave yet; nothing was taken.
    Wait {
        /// For how long, from now.
        for_: Duration,
        /// Why.
        reason: Reason,
    },
}

/// A stop that the server asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// From the reply on.
    pub for_: Duration,
    /// Why.
    pub reason: Reason,
}

/// One moment, in both kinds of time.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Since the gate was built.
    pub monotonic: Duration,
    /// What the calendar says, for a server's absolute times.
    pub wall: Timestamp,
}

/// What the server has told about its own limit. A field is absent until a header has said it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Told {
    /// Requests in its window.
    pub limit: Option<f64>,
    /// How many of them are left.
    pub remaining: Option<f64>,
    /// When the window ends, in epoch seconds.
    pub reset: Option<f64>,
}

/// The limiter's clock: it shows what [`Budget::admit`] was told last.
#[derive(Debug, Default)]
struct Hand(AtomicU64);

impl Clock for Hand {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

/// The gate.
#[derive(Debug)]
pub struct Budget {
    limiter: RateLimiter<NotKeyed, InMemoryState, Hand, NoOpMiddleware<Duration>>,
    /// How long one permit takes to come back.
    period: Duration,
    burst: NonZeroU32,
    /// When all permits are back. The limiter knows this too, but does not tell.
    full_at: Duration,
    paused: Option<(Duration, Reason)>,
    told: Told,
}

impl Budget {
    /// A gate at time zero, with a full burst.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let period = Duration::try_from_secs_f64(60.0 / settings.requests_per_minute)
            .unwrap_or(PERIOD_MAX)
            .clamp(PERIOD_MIN, PERIOD_MAX);
        let burst_max = u32::try_from(BURST_SPAN_MAX.as_nanos() / period.as_nanos()).unwrap_or(u32::MAX);
        let burst = NonZeroU32::new(settings.burst.min(burst_max)).unwrap_or(NonZeroU32::MIN);
        // `with_period` refuses a period of zero only, which the bound above excludes.
        let quota = Quota::with_period(period)
            .unwrap_or(Quota::per_hour(NonZeroU32::MIN))
            .allow_burst(burst);
        Self {
            limiter: RateLimiter::direct_with_clock(quota, Hand::default()),
            period,
            burst,
            full_at: Duration::ZERO,
            paused: None,
            told: Told::default(),
        }
    }

    /// Whether a request may leave now. A pause is asked before a permit is taken, so that waiting costs none.
    pub fn admit(&mut self, now: Duration) -> Admission {
        if let Some(Pause { for_, reason }) = self.pause(now) {
            return Admission::Wait { for_, reason };
        }
        self.paused = None;
        match self.admit_at(now) {
            Ok(()) => Admission::Go,
            Err(for_) => Admission::Wait {
                for_,
                reason: Reason::Budget,
            },
        }
    }

    /// Takes a permit of the user's ceiling, or says how long there is none.
    fn admit_at(&mut self, now: Duration) -> Result<(), Duration> {
        let nanos = u64::try_from(now.as_nanos())
            .unwrap_or(CLOCK_NANOS_MAX)
            .min(CLOCK_NANOS_MAX);
        self.limiter.clock().0.fetch_max(nanos, Ordering::Relaxed);
        let now = self.limiter.clock().now();
        match self.limiter.check() {
            Ok(()) => {
                self.full_at = self.full_at.max(now).saturating_add(self.period);
                Ok(())
            }
            Err(not_yet) => Err(not_yet.wait_time_from(now).max(WAIT_MIN)),
        }
    }

    /// How many requests the user's ceiling lets leave at once now, whatever the server has said.
    #[must_use]
    pub fn at_once(&self, now: Duration) -> u32 {
        let missing = self
            .full_at
            .saturating_sub(now)
            .as_nanos()
            .div_ceil(self.period.as_nanos());
        self.burst
            .get()
            .saturating_sub(u32::try_from(missing).unwrap_or(u32::MAX))
    }

    /// The server's stop that is in force now.
    #[must_use]
    pub fn pause(&self, now: Duration) -> Option<Pause> {
        let (until, reason) = self.paused?;
        let for_ = until.checked_sub(now).filter(|left| !left.is_zero())?.max(WAIT_MIN);
        Some(Pause { for_, reason })
    }

    /// Reads what a reply says about limits, whatever its status; `jitter` is in [0, 1). Gives the stop that this reply
    /// asked for. A stop in force is never shortened by a later, shorter word.
    pub fn observe(&mut self, status: u16, headers: &HeaderMap, now: Moment, jitter: f64) -> Option<Pause> {
        let server_now = date_of(headers).unwrap_or(now.wall);
        let words = Words::read(headers, server_now);
        if status < 500 {
            // An application that fails before its limiter has run can send another client's numbers along.
            words.tell(&mut self.told, now.wall);
        }
        let (wait, reason) = words.wait(status, retry_after(headers, server_now))?;
        let for_ = lengthened(wait, jitter);
        let until = now.monotonic.saturating_add(for_);
        if self.paused.is_none_or(|(standing, _)| standing < until) {
            self.paused = Some((until, reason));
        }
        Some(Pause { for_, reason })
    }

    /// What the server has told so far.
    #[must_use]
    pub fn told(&self) -> Told {
        self.told
    }

    /// Takes over from the gate that this one replaces, which began at the same moment: the server's word, and what is
    /// there to be spent. Never more than was there before, so that no sequence of reloads makes a fresh burst.
    pub fn inherit(&mut self, predecessor: Self, now: Duration) {
        if (self.period, self.burst) == (predecessor.period, predecessor.burst) {
            *self = predecessor;
            return;
        }
        self.paused = predecessor.paused;
        self.told = predecessor.told;
        let owed = predecessor.full_at.saturating_sub(now).as_secs_f64() / predecessor.period.as_secs_f64();
        let there = (f64::from(predecessor.burst.get()) - owed).clamp(0.0, f64::from(self.burst.get()));
        self.spend(f64::from(self.burst.get()) - there, now);
    }

    /// Books so many permits, parts of them included, as taken by now: whole ones, a little earlier.
    fn spend(&mut self, permits: f64, now: Duration) {
        let part = permits.ceil() - permits;
        let at = now.saturating_sub(self.period.mul_f64(part));
        let mut left = permits;
        while left > 0.0 && self.admit_at(at).is_ok() {
            left -= 1.0;
        }
    }

    /// Whether nothing is owed and nothing paused.
    #[must_use]
    pub fn is_rested(&self, now: Duration) -> bool {
        self.pause(now).is_none() && self.full_at <= now
    }
}

/// A server's wait, bounded, plus the second that it may have cut off, plus jitter.
fn lengthened(wait: Duration, jitter: f64) -> Duration {
    let firm = wait.min(PAUSE_MAX) + SECOND_CUT_OFF;
    let dice = if jitter.is_finite() {
        jitter.clamp(0.0, 1.0)
    } else {
        0.0
    };
    firm + (firm / 10).min(JITTER_MAX).mul_f64(dice)
}

/// The longest wait of all `Retry-After` fields; `None` without one.
fn retry_after(headers: &HeaderMap, server_now: Timestamp) -> Option<Duration> {
    let read = |value: &http::HeaderValue| {
        let text = value.to_str().ok()?.trim();
        match digits(text) {
            Some(seconds) => Some(Duration::from_secs(seconds)),
            None => http_date(text).map(|at| after(server_now, at).unwrap_or(Duration::ZERO)),
        }
    };
    headers
        .get_all("retry-after")
        .iter()
        .map(|value| read(value).unwrap_or(PAUSE_UNREADABLE))
        .max()
}

/// The limit fields of one reply, the tightest where several speak.
#[derive(Debug, Default)]
struct Words {
    limit: Option<u64>,
    remaining: Option<u64>,
    /// When the window that binds ends; `Past` is told apart because a stale number must not stop anything.
    reset: Option<Reset>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reset {
    Past(i64),
    In(Duration),
}

impl Words {
    fn read(headers: &HeaderMap, server_now: Timestamp) -> Self {
        let mut words = Self::default();
        for (limit, remaining, reset) in [
            ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"),
            ("ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"),
        ] {
            words.tighten(Self {
                limit: numbers(headers, limit).min(),
                remaining: numbers(headers, remaining).min(),
                reset: numbers(headers, reset).map(|number| reset_of(number, server_now)).max(),
            });
        }
        for (remaining, seconds) in rate_limit(headers) {
            let reset = seconds.map(|seconds| Reset::In(Duration::from_secs(seconds)));
            words.tighten(Self {
                limit: None,
                remaining: Some(remaining),
                reset,
            });
        }
        words
    }

    /// Takes the other's word if it leaves fewer requests, or as few for longer.
    fn tighten(&mut self, other: Self) {
        self.limit = self.limit.into_iter().chain(other.limit).min();
        let tighter = match (self.remaining, other.remaining) {
            (Some(ours), Some(theirs)) if ours == theirs => other.reset > self.reset,
            (Some(ours), Some(theirs)) => theirs < ours,
            (None, Some(_)) => true,
            (Some(_), None) => false,
            (None, None) => other.reset > self.reset,
        };
        if tighter {
            self.remaining = other.remaining;
            self.reset = other.reset;
        }
    }

    /// `Retry-After` wins. Without it, nothing remaining stops until the reset, and a refusal does so in any case.
    fn wait(&self, status: u16, retry_after: Option<Duration>) -> Option<(Duration, Reason)> {
        if let Some(wait) = retry_after {
            return Some((wait, Reason::RetryAfter));
        }
        match self.reset {
            Some(Reset::In(wait)) if self.remaining == Some(0) || status == 429 => Some((wait, Reason::Quota)),
            _ if status == 429 => Some((PAUSE_UNREADABLE, Reason::RetryAfter)),
            _ => None,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "for gauges, which are floats")]
    fn tell(&self, told: &mut Told, wall: Timestamp) {
        told.limit = self.limit.map(|limit| limit as f64).or(told.limit);
        told.remaining = self.remaining.map(|remaining| remaining as f64).or(told.remaining);
        told.reset = match self.reset {
            Some(Reset::Past(epoch)) => Some(epoch as f64),
            Some(Reset::In(wait)) => Some(wall.as_second() as f64 + wait.as_secs_f64()),
            None => told.reset,
        };
    }
}

/// A reset is epoch milliseconds, epoch seconds or seconds from now, depending on the vendor; its size tells.
fn reset_of(number: u64, server_now: Timestamp) -> Reset {
    let epoch_millis = match number {
        1_000_000_000_001.. => i64::try_from(number).unwrap_or(i64::MAX),
        1_000_000_001.. => i64::try_from(number).unwrap_or(i64::MAX).saturating_mul(1000),
        seconds => return Reset::In(Duration::from_secs(seconds)),
    };
    let left = epoch_millis.saturating_sub(server_now.as_second().saturating_mul(1000));
    match u64::try_from(left) {
        Ok(left) => Reset::In(Duration::from_millis(left)),
        Err(_) => Reset::Past(epoch_millis / 1000),
    }
}

/// All readable numbers of a field. A quota policy behind the number (`100;w=60`) is passed over.
fn numbers<'h>(headers: &'h HeaderMap, name: &'static str) -> impl Iterator<Item = u64> + 'h {
    let first = |text: &str| text.split([',', ';']).next().map(str::trim).and_then(digits);
    headers
        .get_all(name)
        .iter()
        .filter_map(move |value| value.to_str().ok().and_then(first))
}

/// `1*DIGIT`, without sign, point or space; a number too large is the largest.
fn digits(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().unwrap_or(u64::MAX))
}

/// The reply's own date, against which its other dates are measured: the two clocks may differ.
fn date_of(headers: &HeaderMap) -> Option<Timestamp> {
    http_date(headers.get("date")?.to_str().ok()?.trim())
}

fn http_date(text: &str) -> Option<Timestamp> {
    let at = httpdate::parse_http_date(text).ok()?;
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    Timestamp::from_second(i64::try_from(seconds).ok()?).ok()
}

/// How long after `now` something is; `None` if it is not.
fn after(now: Timestamp, at: Timestamp) -> Option<Duration> {
    Duration::try_from(at.duration_since(now)).ok()
}

/// The members (`r`, `t`) of the IETF `RateLimit` list. A field that is malformed anywhere says nothing.
fn rate_limit(headers: &HeaderMap) -> Vec<(u64, Option<u64>)> {
    let mut members = Vec::new();
    for value in headers.get_all("ratelimit") {
        let Some(line) = value.to_str().ok().and_then(rate_limit_line) else {
            return Vec::new();
        };
        members.extend(line);
        if members.len() > RATE_LIMIT_MEMBERS_MAX {
            return Vec::new();
        }
    }
    members
}

fn rate_limit_line(line: &str) -> Option<Vec<(u64, Option<u64>)>> {
    unquoted(line, b',')?.into_iter().map(rate_limit_member).collect()
}

/// `"name";r=50;t=30`
fn rate_limit_member(member: &str) -> Option<(u64, Option<u64>)> {
    let parts = unquoted(member, b';')?;
    let (name, parameters) = parts.split_first()?;
    if name.is_empty() {
        return None;
    }
    let (mut remaining, mut seconds) = (None, None);
    for parameter in parameters {
        match parameter.split_once('=') {
            Some(("r", number)) => remaining = Some(digits(number)?),
            Some(("t", number)) => seconds = Some(digits(number)?),
            Some(("", _)) => return None,
            // Another parameter, or one without a value: none of our business.
            _ if parameter.is_empty() => return None,
            _ => {}
        }
    }
    Some((remaining?, seconds))
}

/// Splits at a separator outside of quoted strings; `None` if a quote is left open.
fn unquoted(text: &str, separator: u8) -> Option<Vec<&str>> {
    let (mut parts, mut begin, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if byte == separator && !quoted => {
                parts.push(text.get(begin..at)?.trim());
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text.get(begin..)?.trim());
    (!quoted).then_some(parts)
}

#[cfg(test)]
mod tests;
