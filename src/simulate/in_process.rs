//! A transport without sockets: the platform is asked directly, and only waits on tokio's clock, so that a test in virtual
//! time lives through weeks in a moment. Never retries and never hides a fault.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderValue};
use jiff::Timestamp;

use super::dice::{Dice, Stream};
use super::faults::Fault;
use super::platform::{Answer, Asked, Platform};
use crate::transport::{Reply, Request, Transport, TransportError};

/// Tells the world's time.
pub type NowFn = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What an exporter reads at the most, unless a test says otherwise.
const BODY_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The transport. Clones share everything.
#[derive(Clone)]
pub struct InProcess {
    platform: Arc<Mutex<Platform>>,
    now: NowFn,
    credential: Arc<Mutex<String>>,
    version: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
    latency: (Duration, Duration),
    timeout: Duration,
}

impl InProcess {
    /// A transport to this platform, with the platform's token, latencies of 20 to 200 ms and a time-out of 30 s.
    #[must_use]
    pub fn new(platform: Arc<Mutex<Platform>>, now: NowFn) -> Self {
        let token = lock(&platform).token().to_owned();
        Self {
            platform,
            now,
            credential: Arc::new(Mutex::new(token)),
            version: Arc::new(AtomicU64::new(1)),
            sent: Arc::new(AtomicU64::new(0)),
            latency: (Duration::from_millis(20), Duration::from_millis(200)),
            timeout: Duration::from_secs(30),
        }
    }

    /// The same with other latencies (least, most) and another time-out.
    #[must_use]
    pub fn with_timing(mut self, latency: (Duration, Duration), timeout: Duration) -> Self {
        self.latency = latency;
        self.timeout = timeout;
        self
    }

    /// Another credential, as when a token file changes.
    pub fn set_token(&self, token: &str) {
        token.clone_into(&mut lock(&self.credential));
        self.version.fetch_add(1, Ordering::Relaxed);
    }

    /// The platform.
    pub fn platform(&self) -> MutexGuard<'_, Platform> {
        lock(&self.platform)
    }

    fn asked(&self, request: &Request) -> Asked {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_str(&format!("Bearer {}", lock(&self.credential))) {
            headers.insert(AUTHORIZATION, value);
        }
        Asked {
            method: request.method().to_owned(),
            path: format!("{}{}", self.platform().base_path(), request.path()),
            query: request
                .query()
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
            headers,
            body: request.body().unwrap_or_default().to_owned().into(),
        }
    }

    fn latency(&self) -> Duration {
        let number = self.sent.fetch_add(1, Ordering::Relaxed);
        let mut dice = Dice::new(self.platform().options().seed, Stream::Latency, number);
        let (low, high) = (super::run::millis(self.latency.0), super::run::millis(self.latency.1));
        Duration::from_millis(dice.between(low, high + 1).unsigned_abs())
    }

    async fn exchange(&self, request: &Request) -> Result<Reply, TransportError> {
        let latency = self.latency();
        // Half of the way there, half of it back: the world may move in between.
        tokio::time::sleep(latency / 2).await;
        let asked = self.asked(request);
        let now = (self.now)();
        let Answer {
            status,
            headers,
            body,
            fault,
        } = self.platform().answer(now, &asked);
        let broken = |what: &str| Err(TransportError::Connection(what.to_owned()));
        match fault {
            Some(Fault::Stall | Fault::SlowBody) => {
                tokio::time::sleep(self.timeout).await;
                Err(TransportError::Timeout {
                    seconds: self.timeout.as_secs(),
                })
            }
            Some(Fault::Reset) => broken("the connection was reset"),
            Some(Fault::Truncated) => broken("the connection closed before the answer was complete"),
            Some(Fault::HugeBody | Fault::GzipBomb) => Err(TransportError::TooLarge { limit: BODY_BYTES_MAX }),
            _ => {
                tokio::time::sleep(latency / 2).await;
                Ok(Reply { status, headers, body })
            }
        }
    }
}

impl Transport for InProcess {
    async fn send(&self, request: &Request) -> Result<Reply, TransportError> {
        let _flight = Flight::begin(&self.platform, (self.now)());
        self.exchange(request).await
    }

    async fn credential_version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }
}

/// A request that is under way, until it is answered or dropped.
pub(super) struct Flight {
    platform: Arc<Mutex<Platform>>,
}

impl Flight {
    pub(super) fn begin(platform: &Arc<Mutex<Platform>>, now: Timestamp) -> Self {
        lock(platform).begin(now);
        Self {
            platform: Arc::clone(platform),
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        lock(&self.platform).end();
    }
}

/// A panic elsewhere leaves the world as it was; its test reports the panic itself.
pub(super) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
