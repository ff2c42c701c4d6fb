//! A simulated platform: a world behind an API with tokens, limits, faults and a journal. One value, no I/O: a request
//! and the time go in, an answer comes out. Transports and servers carry it over; they decide nothing.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::faults::{Fault, FaultPlan, When};
use super::journal::{Entry, Journal};
use super::limits::{Limit, Limiter, Verdict};
use super::options::WorldOptions;
use super::run::millis;
use super::truth::Truth;
use super::world::World;
use super::{empirical, sample_platform, wire};
use crate::model::RunId;
use crate::sources::Kind;

/// What the Sample Platform's server adds to its answers.
const SAMPLE_PLATFORM_HEADERS: [(&str, &str); 6] = [
    ("server", "gunicorn"),
    ("strict-transport-security", "max-age=31536000; includeSubDomains"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("vary", "Cookie"),
];

/// A request as a server sees it.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// `GET`, `POST`.
    pub method: String,
    /// The whole path.
    pub path: String,
    /// The decoded query.
    pub query: Vec<(String, String)>,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Asked {
    /// The first value of a query parameter.
    pub(super) fn param(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// What a platform answers, and how the way to the reader breaks it.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// Only faults that break the answer; the others are answers already.
    pub fault: Option<Fault>,
}

/// What an endpoint says, before headers and faults.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) status: u16,
    /// JSON.
    pub(super) body: Vec<u8>,
    /// What a reader knows who has read it.
    pub(super) served: Vec<Served>,
}

impl Page {
    pub(super) fn new(status: u16, body: &impl Serialize) -> Self {
        Self {
            status,
            body: wire::text(body),
            served: vec![],
        }
    }

    /// An answer that was found.
    pub(super) fn found(body: &impl Serialize, served: Vec<Served>) -> Self {
        Self {
            served,
            ..Self::new(200, body)
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Served {
    /// The run itself.
    Run(RunId),
    /// A case's result in it.
    Case(RunId, usize),
}

/// An endpoint that exists.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route<'a> {
    pub(super) method: &'static str,
    pub(super) template: &'static str,
    /// Query parameters that it documents.
    pub(super) params: &'static [&'static str],
    /// The id in the path, not yet checked.
    pub(super) id: &'a str,
}

/// One platform and all that it knows.
#[derive(Debug)]
pub struct Platform {
    world: World,
    token: String,
    forbidden: bool,
    limiter: Option<Limiter>,
    faults: FaultPlan,
    redirect_to: String,
    down: bool,
    paused_until: i64,
    journal: Journal,
    requests: u64,
}

impl Platform {
    /// A platform of this kind, with a world of these options, that knows this one token.
    #[must_use]
    pub fn new(kind: Kind, options: WorldOptions, token: &str) -> Self {
        let limit = (kind == Kind::SamplePlatform).then(|| Limiter::new(Limit::per_minute(120)));
        Self {
            world: World::new(kind, options),
            token: token.to_owned(),
            forbidden: false,
            limiter: limit,
            faults: FaultPlan::none(),
            redirect_to: "http://127.0.0.1:9/elsewhere".to_owned(),
            down: false,
            paused_until: 0,
            journal: Journal::default(),
            requests: 0,
        }
    }

    /// Which platform it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.world.kind
    }

    /// What decides its world.
    #[must_use]
    pub fn options(&self) -> &WorldOptions {
        &self.world.options
    }

    /// What the base URL adds to the origin.
    #[must_use]
    pub fn base_path(&self) -> &'static str {
        match self.world.kind {
            Kind::Empirical => "",
            Kind::SamplePlatform => "/api/v1",
        }
    }

    /// The token that is right now.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Makes another token the right one; the old one gets 401.
    pub fn rotate_token(&mut self, token: &str) {
        token.clone_into(&mut self.token);
    }

    /// Whether every request gets 403 from now on.
    pub fn set_forbidden(&mut self, forbidden: bool) {
        self.forbidden = forbidden;
    }

    /// Another rate limit, or none.
    pub fn set_limit(&mut self, limit: Option<Limit>) {
        self.limiter = limit.map(Limiter::new);
    }

    /// Other faults.
    pub fn set_faults(&mut self, faults: FaultPlan) {
        self.faults = faults;
    }

    /// One more scripted fault.
    pub fn script_fault(&mut self, when: When, fault: Fault) {
        self.faults.script(when, fault);
    }

    /// Where [`Fault::RedirectOffOrigin`] leads.
    pub fn set_redirect_to(&mut self, url: &str) {
        url.clone_into(&mut self.redirect_to);
    }

    /// An outage: no connection to anything, until it is over.
    pub fn set_down(&mut self, down: bool) {
        self.down = down;
    }

    /// 429 for everything, for so long.
    pub fn pause(&mut self, now: Timestamp, duration: Duration) {
        self.paused_until = now.as_millisecond() + millis(duration);
    }

    /// From now on, more than this many requests in any 60 s is a violation.
    pub fn expect_budget(&mut self, requests_per_minute: f64, burst: u32) {
        self.journal.expect_budget(requests_per_minute, burst);
    }

    /// The client is a new process: pauses announced to the old one are not held against it.
    pub fn client_restarted(&mut self) {
        self.journal.forget_promises();
    }

    /// The requests so far.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The rules that the client has broken.
    #[must_use]
    pub fn violations(&self) -> &[String] {
        self.journal.violations()
    }

    /// Moves the world on.
    pub fn advance(&mut self, now: Timestamp) {
        self.world.advance(now);
    }

    /// No run is created later than this, so that the world comes to rest.
    pub fn stop_creating_runs_at(&mut self, at: Timestamp) {
        self.world.stop_creating_at(at);
    }

    /// Empties the list of requests, for tests that watch their memory. What was broken stays noted.
    pub fn forget_requests(&mut self) {
        self.journal.forget_entries();
    }

    /// Whether nothing is unfinished, none of it still unknown to the analytics, and nothing will be created.
    pub fn settled(&mut self, now: Timestamp) -> bool {
        self.world.advance(now);
        self.world.is_settled()
    }

    /// What a reader must have counted by now who read the run list for the first time at `first_met`, and the gauges.
    /// `label` gives a branch its label. Counts are of results that upstream tells by now.
    #[must_use]
    pub fn truth(&self, first_met: Timestamp, label: impl Fn(Option<&str>) -> String) -> Truth {
        Truth::of(&self.world, first_met, label)
    }

    pub(super) fn begin(&mut self, now: Timestamp) {
        self.journal.begin(now.as_millisecond());
    }

    pub(super) fn end(&mut self) {
        self.journal.end();
    }

    /// Answers a request that arrives now.
    pub fn answer(&mut self, now: Timestamp, asked: &Asked) -> Answer {
        self.world.advance(now);
        self.requests += 1;
        let time = now.as_millisecond();
        let route = self.route(&asked.path);
        self.journal.arrive(time, &asked.path);
        self.judge(time, asked, route.as_ref());
        let endpoint = route.as_ref().map_or("", |route| route.template);
        let answer = self.decide(time, asked, route.as_ref());
        let sent = !matches!(answer.fault, Some(Fault::Reset | Fault::Stall));
        self.journal.record(Entry {
            at: now,
            method: asked.method.clone(),
            path: asked.path.clone(),
            query: asked.query.clone(),
            endpoint,
            status: if sent { answer.status } else { 0 },
        });
        if sent {
            self.note_pause(time, &answer.headers);
        }
        answer
    }

    fn route<'a>(&self, path: &'a str) -> Option<Route<'a>> {
        match self.world.kind {
            Kind::Empirical => empirical::route(path),
            Kind::SamplePlatform => sample_platform::route(path),
        }
    }

    /// The client's conduct, apart from its timing.
    fn judge(&mut self, now: i64, asked: &Asked, route: Option<&Route<'_>>) {
        let Asked { method, path, .. } = asked;
        let Some(route) = route else {
            self.journal
                .violate(now, &format!("{method} {path} is not a known route"));
            return;
        };
        if method != route.method {
            self.journal
                .violate(now, &format!("{method} {path} instead of {}", route.method));
        }
        for (name, _) in &asked.query {
            if !route.params.contains(&name.as_str()) {
                self.journal.violate(now, &format!("{path} has no parameter {name}"));
            }
        }
        if asked.query.iter().any(|(_, value)| value.contains(&self.token)) {
            self.journal.violate(now, "the token is in the query");
        }
    }

    fn decide(&mut self, now: i64, asked: &Asked, route: Option<&Route<'_>>) -> Answer {
        let endpoint = route.map_or("", |route| route.template);
        if self.down {
            return self.broken(Fault::Reset);
        }
        let Some(route) = route else {
            return self.error(None, 404, "Resource not found.");
        };
        let fault = self.faults.pick(self.world.options.seed, self.requests, endpoint);
        let valid = self.has_token(asked);
        let bucket = if valid { "token" } else { "ip" };
        let mut verdict = self.limiter.as_mut().map(|limiter| limiter.take(bucket, now));
        if now < self.paused_until {
            let reset = self.paused_until.div_euclid(1000);
            let retry_after = (reset - now.div_euclid(1000)).max(1);
            let limit = verdict.map_or(120, |verdict| verdict.limit);
            verdict = Some(Verdict {
                allowed: false,
                limit,
                remaining: 0,
                reset,
                retry_after,
            });
        }
        if let Some(refused) = verdict.filter(|verdict| !verdict.allowed) {
            return self.too_many(refused);
        }
        if let Some(fault) = fault {
            return self.faulty(verdict.as_ref(), fault);
        }
        if !valid {
            return self.error(verdict.as_ref(), 401, "Bearer token is missing, expired, or invalid.");
        }
        if self.forbidden {
            return self.error(
                verdict.as_ref(),
                403,
                "Token lacks the required scopes for this operation.",
            );
        }
        if asked.method != route.method {
            return self.error(None, 405, "The method is not allowed for the requested URL.");
        }
        let page = match self.world.kind {
            Kind::Empirical => empirical::answer(&self.world, route, asked),
            Kind::SamplePlatform => sample_platform::answer(&self.world, route, asked),
        };
        self.note_served(&page.served);
        self.send_text(verdict.as_ref(), page.status, page.body)
    }

    fn has_token(&self, asked: &Asked) -> bool {
        let header = asked
            .headers
            .get(http::header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("");
        let (scheme, token) = header.split_once(' ').unwrap_or(("", ""));
        scheme.eq_ignore_ascii_case("bearer") && token.trim() == self.token
    }

    fn note_served(&mut self, served: &[Served]) {
        let now = self.world.now;
        for what in served {
            match *what {
                Served::Run(id) => {
                    if let Some(run) = self.world.find_mut(id) {
                        run.note_served_run(now);
                    }
                }
                Served::Case(id, case) => {
                    if let Some(run) = self.world.find_mut(id) {
                        run.note_served_case(case, now);
                    }
                }
            }
        }
    }

    /// What the answer's headers have asked the client to wait for.
    fn note_pause(&mut self, now: i64, headers: &HeaderMap) {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let number = |name: &str| text(name).and_then(|text| text.parse::<i64>().ok());
        let date = || text("retry-after").and_then(|text| httpdate::parse_http_date(text).ok());
        let told = number("retry-after").map(|seconds| now + seconds.saturating_mul(1000));
        let told = told.or_else(|| Timestamp::try_from(date()?).ok().map(Timestamp::as_millisecond));
        if let Some(until) = told {
            // Nobody needs to believe in more than an hour.
            self.journal.announce_pause(until.min(now + 3_600_000));
        }
        // Where several workers count separately, "none left" is true of one of them only.
        let alone = self.limiter.as_ref().is_some_and(|limiter| limiter.limit.workers <= 1);
        if alone && number("x-ratelimit-remaining") == Some(0) {
            self.journal
                .announce_pause(number("x-ratelimit-reset").unwrap_or(0) * 1000);
        }
    }

    fn too_many(&self, verdict: Verdict) -> Answer {
        let (limit, seconds) = (verdict.limit, verdict.retry_after);
        let message = format!("Rate limit exceeded. Retry after {seconds} seconds.");
        let body = match self.world.kind {
            Kind::Empirical => json!({"data": null, "error": {"message": message}}),
            Kind::SamplePlatform => {
                json!({"code": "rate_limited", "details": {"limit": limit, "retry_after": seconds, "window": "60s"}, "message": message})
            }
        };
        let mut answer = self.send(Some(&verdict), 429, &body);
        answer.headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        answer
    }

    fn faulty(&self, verdict: Option<&Verdict>, fault: Fault) -> Answer {
        match fault {
            Fault::Status { code, retry_after } => {
                let mut answer = self.error(verdict, code, "An unexpected error occurred.");
                if let Some(value) = retry_after.and_then(|text| HeaderValue::from_str(&text).ok()) {
                    answer.headers.insert(RETRY_AFTER, value);
                }
                answer
            }
            Fault::NotJson => {
                let mut answer = self.send(verdict, 200, &Value::Null);
                answer
                    .headers
                    .insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
                answer.body =
                    Bytes::from_static(b"<!doctype html><title>Sign in</title><p>Sign in to this network.</p>\n");
                answer
            }
            Fault::WrongShape => self.send(
                verdict,
                200,
                &json!({"data": {"unexpected": [1, "two", null]}, "pagination": "none"}),
            ),
            Fault::RedirectOffOrigin => {
                let mut answer = self.send(verdict, 302, &json!({}));
                if let Ok(value) = HeaderValue::from_str(&self.redirect_to) {
                    answer.headers.insert(LOCATION, value);
                }
                answer
            }
            breaking => {
                let body = json!({"data": [], "meta": {}, "pagination": {"limit": 50, "next_offset": null, "offset": 0, "total": 0}});
                Answer {
                    fault: Some(breaking),
                    ..self.send(verdict, 200, &body)
                }
            }
        }
    }

    fn broken(&self, fault: Fault) -> Answer {
        Answer {
            fault: Some(fault),
            ..self.send(None, 503, &Value::Null)
        }
    }

    fn error(&self, verdict: Option<&Verdict>, status: u16, message: &str) -> Answer {
        let body = match self.world.kind {
            Kind::Empirical => empirical::error(message),
            Kind::SamplePlatform => sample_platform::error(status, message),
        };
        self.send(verdict, status, &body)
    }

    fn send(&self, verdict: Option<&Verdict>, status: u16, body: &Value) -> Answer {
        self.send_text(verdict, status, wire::text(body))
    }

    fn send_text(&self, verdict: Option<&Verdict>, status: u16, mut body: Vec<u8>) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(verdict) = verdict {
            headers.insert(
                HeaderName::from_static("x-ratelimit-limit"),
                HeaderValue::from(verdict.limit),
            );
            headers.insert(
                HeaderName::from_static("x-ratelimit-remaining"),
                HeaderValue::from(verdict.remaining),
            );
            headers.insert(
                HeaderName::from_static("x-ratelimit-reset"),
                HeaderValue::from(verdict.reset),
            );
        }
        if self.world.kind == Kind::SamplePlatform {
            for (name, value) in SAMPLE_PLATFORM_HEADERS {
                headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
        }
        body.push(b'\n');
        Answer {
            status,
            headers,
            body: body.into(),
            fault: None,
        }
    }
}
