//! Whether and when a failed request is sent again: pure rules and the count that they need.
//! Never sleeps, never sends, never overrides a pause: that is the gate's word, and it comes first.

use std::collections::VecDeque;
use std::time::Duration;

use crate::transport::{Reply, TransportError};

/// Sendings of one request, the first included. A poller's natural retry is its next round.
pub const ATTEMPTS_MAX: u32 = 3;
/// Retries in one round: a server that fails five times in a round is left alone until the next.
pub const RETRIES_PER_ROUND_MAX: u32 = 5;
/// Of this many requests in an hour, one may be a retry: retries must not feed what they suffer from.
pub const REQUESTS_PER_RETRY: u64 = 10;
/// The first backoff is drawn from [0, this), each further one from twice as much.
const BACKOFF_BASE: Duration = Duration::from_secs(1);
/// No backoff is longer, nor longer than the poll interval.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// How far back retries are weighed against requests.
const HOUR_MINUTES: u64 = 60;

/// Why a request is sent again: the closed set of label values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// 429.
    Throttled,
    /// 502.
    BadGateway,
    /// 503.
    Unavailable,
    /// 504.
    GatewayTimeout,
    /// No complete answer in time.
    Timeout,
    /// Name resolution, connection, TLS, or a connection that broke.
    Connection,
}

impl Reason {
    /// The label value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::BadGateway => "bad_gateway",
            Self::Unavailable => "unavailable",
            Self::GatewayTimeout => "gateway_timeout",
            Self::Timeout => "timeout",
            Self::Connection => "connection",
        }
    }

    /// Why this outcome may be tried again; `None` if it may not. A 500 is not among them: the same request would fail the
    /// same way, so the source looks for a way round it instead.
    #[must_use]
    pub fn of(outcome: &Result<Reply, TransportError>) -> Option<Self> {
        match outcome {
            Ok(reply) => match reply.status {
                429 => Some(Self::Throttled),
                502 => Some(Self::BadGateway),
                503 => Some(Self::Unavailable),
                504 => Some(Self::GatewayTimeout),
                _ => None,
            },
            Err(TransportError::Timeout { .. }) => Some(Self::Timeout),
            Err(TransportError::Connection(_)) => Some(Self::Connection),
            Err(TransportError::TooLarge { .. } | TransportError::Encoding(_) | TransportError::Credential(_)) => None,
        }
    }
}

/// Full jitter: anywhere between nothing and the exponential bound. `retry` counts from 0, `dice` is in [0, 1).
#[must_use]
pub fn backoff(retry: u32, interval: Duration, dice: f64) -> Duration {
    let bound = BACKOFF_BASE
        .saturating_mul(2_u32.saturating_pow(retry))
        .min(BACKOFF_MAX)
        .min(interval);
    bound.mul_f64(if dice.is_finite() { dice.clamp(0.0, 1.0) } else { 0.0 })
}

/// Requests and retries of the last hour, by the minute.
#[derive(Debug, Default)]
pub struct Hour {
    minutes: VecDeque<Minute>,
}

#[derive(Debug)]
struct Minute {
    number: u64,
    requests: u64,
    retries: u64,
}

impl Hour {
    /// A request leaves; a retry is one too.
    pub fn record_request(&mut self, now: Duration) {
        self.minute(now).requests += 1;
    }

    /// The request that leaves is a retry.
    pub fn record_retry(&mut self, now: Duration) {
        self.minute(now).retries += 1;
    }

    /// Whether one more retry now would be at most a tenth of the requests of the hour that ends now. The minute that the
    /// hour begins in counts for its retries but not for its requests, so that coarse minutes err on the strict side.
    #[must_use]
    pub fn admits_retry(&self, now: Duration) -> bool {
        let first = minute_of(now).saturating_sub(HOUR_MINUTES);
        let whole = if minute_of(now) < HOUR_MINUTES {
            first
        } else {
            first + 1
        };
        let requests: u64 = self
            .minutes
            .iter()
            .filter(|minute| minute.number >= whole)
            .map(|minute| minute.requests)
            .sum();
        let retries: u64 = self
            .minutes
            .iter()
            .filter(|minute| minute.number >= first)
            .map(|minute| minute.retries)
            .sum();
        (retries + 1).saturating_mul(REQUESTS_PER_RETRY) <= requests
    }

    /// Whether nothing of it counts any more.
    #[must_use]
    pub fn is_over(&self, now: Duration) -> bool {
        let first = minute_of(now).saturating_sub(HOUR_MINUTES);
        self.minutes.back().is_none_or(|newest| newest.number < first)
    }

    fn minute(&mut self, now: Duration) -> &mut Minute {
        let number = minute_of(now);
        while self
            .minutes
            .front()
            .is_some_and(|oldest| oldest.number + HOUR_MINUTES < number)
        {
            self.minutes.pop_front();
        }
        // Time that runs backwards is booked on the newest minute.
        if self.minutes.back().is_none_or(|newest| newest.number < number) {
            self.minutes.push_back(Minute {
                number,
                requests: 0,
                retries: 0,
            });
        }
        let newest = self.minutes.len() - 1;
        &mut self.minutes[newest]
    }
}

fn minute_of(now: Duration) -> u64 {
    now.as_secs() / 60
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn backoff_doubles_its_bound_and_stops_at_thirty_seconds_or_the_interval() {
        let check = |retry, interval, expected: Duration| assert_eq!(backoff(retry, seconds(interval), 1.0), expected);
        check(0, 60, seconds(1));
        check(1, 60, seconds(2));
        check(4, 60, seconds(16));
        check(5, 60, seconds(30));
        check(u32::MAX, 60, seconds(30));
        check(5, 10, seconds(10));
        assert_eq!(backoff(3, seconds(60), 0.0), Duration::ZERO);
        assert_eq!(backoff(3, seconds(60), f64::NAN), Duration::ZERO);
    }

    #[test]
    fn only_a_refusal_for_now_a_gateway_and_the_network_are_tried_again() {
        let reply = |status| {
            Ok(Reply {
                status,
                headers: http::HeaderMap::new(),
                body: bytes::Bytes::new(),
            })
        };
        let retried: Vec<u16> = (100..600)
            .filter(|status| Reason::of(&reply(*status)).is_some())
            .collect();
        assert_eq!(retried, [429, 502, 503, 504]);
        assert_eq!(
            Reason::of(&Err(TransportError::Timeout { seconds: 1 })),
            Some(Reason::Timeout)
        );
        assert_eq!(
            Reason::of(&Err(TransportError::Connection(String::new()))),
            Some(Reason::Connection)
        );
        assert_eq!(Reason::of(&Err(TransportError::TooLarge { limit: 1 })), None);
        assert_eq!(Reason::of(&Err(TransportError::Encoding(String::new()))), None);
        assert_eq!(Reason::of(&Err(TransportError::Credential(String::new()))), None);
    }

    #[test]
    fn the_tenth_request_earns_the_first_retry_and_an_hour_forgets_it() {
        let mut hour = Hour::default();
        for _ in 0..9 {
            hour.record_request(seconds(0));
        }
        assert!(!hour.admits_retry(seconds(1)), "nine requests do not");
        hour.record_request(seconds(1));
        assert!(hour.admits_retry(seconds(1)), "ten do");
        hour.record_request(seconds(2));
        hour.record_retry(seconds(2));
        assert!(!hour.admits_retry(seconds(2)), "but only one");
        assert!(
            !hour.admits_retry(seconds(3700)),
            "an hour later the requests no longer count"
        );
    }

    proptest! {
        #[test]
        fn in_the_hour_before_any_retry_at_most_a_tenth_of_the_requests_were_retries(
            steps in prop::collection::vec((0_u64..200, any::<bool>()), 1..1500),
        ) {
            let (mut hour, mut now) = (Hour::default(), 0);
            let (mut requests, mut retries) = (Vec::new(), Vec::new());
            for (pause, failed) in steps {
                now += pause;
                hour.record_request(seconds(now));
                requests.push(now);
                if failed && hour.admits_retry(seconds(now)) {
                    hour.record_request(seconds(now));
                    hour.record_retry(seconds(now));
                    requests.push(now);
                    retries.push(now);
                    let recent = |times: &[u64]| times.iter().filter(|at| **at + 3600 > now).count();
                    prop_assert!(recent(&retries) * 10 <= recent(&requests));
                }
                prop_assert!(hour.minutes.len() <= 61);
            }
        }
    }
}
