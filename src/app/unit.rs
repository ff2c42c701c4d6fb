//! One source at work: what it was made from, its poller, and where that is told of another configuration.
//! Never decides what is made (`reload` does), never asks a platform itself.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::keep;
use super::publish::{Beginning, Member};
use super::view::SourceView;
use super::{dice, wall};
use crate::config::{Fingerprint, SourceConfig};
use crate::metrics::own::{LedgerOwn, Own, SourceInfo, SourceOwn, Throttle};
use crate::model::{ActiveState, ErrorCode, Notice, RoundResult};
use crate::poll::{self, Desk, Gate, Message, Observer, Orders, Poller, Wall, budget, retry};
use crate::sources::empirical::Empirical;
use crate::sources::sample_platform::SamplePlatform;
use crate::sources::{self, Kind, MemoryError, Progress};
use crate::status::{Shared, SourceStatus};
use crate::store::ledger::{Identity, Ledger, Unreadable};
use crate::store::{Limits, SourceSpec, SourceState};
use crate::transport::http::HttpTransport;

/// Finished runs are remembered for this much longer than they are asked about, so that nothing is forgotten while
/// upstream still returns it.
const RETENTION_MARGIN: Duration = Duration::from_secs(3 * 86_400);

/// The Sample Platform tells no error code and has fewer states.
const SAMPLE_PLATFORM_ERRORS: &[ErrorCode] = &[ErrorCode::Unknown];
const SAMPLE_PLATFORM_STATES: &[ActiveState] = &[ActiveState::Queued, ActiveState::Started];

/// What is kept on disk, and where it is told how that goes.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) ledger: Arc<Ledger>,
    pub(super) own: LedgerOwn,
}

/// A source that is ready to be polled. Everything that can go wrong has gone well, and nobody has seen anything of it.
pub(super) struct Draft {
    pub(super) config: SourceConfig,
    pub(super) poller: AnyPoller,
    pub(super) number: usize,
    ca: Option<Fingerprint>,
    own: SourceOwn,
    view: SourceView,
    /// Where it begins.
    begins: SourceState,
    /// Why what is kept of it cannot be used, if that is so. `None`: nothing is kept.
    kept: Option<Option<Unreadable>>,
}

impl Draft {
    /// From its configuration, where a former process, or the same source before it was removed, has left it.
    /// `ca`: of the certificate authority's file, before it is read.
    pub(super) fn of(
        config: SourceConfig,
        ca: Option<Fingerprint>,
        number: usize,
        own: &Own,
        kept: Option<&Kept>,
    ) -> anyhow::Result<Self> {
        let transport = HttpTransport::new(config.transport.clone())?;
        let own = own.prepare(&config.name, &info(&config));
        let status = Shared::new(SourceStatus::new(&config.name, wall(), config.poll.stale_after));
        let view = SourceView::new(&config, status.clone(), own.clone());
        let wall: Wall = Arc::new(wall);
        let parts = poll::Parts {
            index: number,
            name: config.name.clone(),
            settings: config.poll.clone(),
            wall: Arc::clone(&wall),
            dice: dice(),
            observer: Box::new(Metered(own.clone())),
            status,
        };
        let mut poller = AnyPoller::new(config.source.clone(), transport, parts);
        let spec = spec(&config);
        let (mut begins, mut recovered) = (None, None);
        if let Some(Kept { ledger, .. }) = kept {
            poller.keep_memory();
            let remember = |memory: &[u8]| poller.restore(memory);
            let found = keep::recover(ledger, &identity(&config), spec.clone(), remember)
                .context("state.directory: reading what is kept of it")?;
            (begins, recovered) = (found.state, Some(found.unreadable));
        }
        Ok(Self {
            begins: begins.unwrap_or_else(|| SourceState::new(spec)),
            kept: recovered,
            config,
            poller,
            number,
            ca,
            own,
            view,
        })
    }

    /// The source appears. Its poller is to be started when the store knows it.
    pub(super) fn appear(self) -> (Unit, AnyPoller, Beginning) {
        self.own.appear(&info(&self.config));
        let as_of = self.begins.as_of();
        let is_restored = as_of > Timestamp::MIN;
        let source = &*self.config.name;
        if is_restored {
            self.own.restored(as_of);
            self.view.restored(as_of);
            tracing::info!(source, %as_of, "restored from the ledger");
        } else if let Some(None) = self.kept {
            tracing::info!(source, "not in the ledger: what is finished now is its baseline");
        }
        if self.kept.is_some() {
            self.own.found_in_ledger(is_restored);
        }
        let beginning = Beginning {
            state: Box::new(self.begins),
            unreadable: self.kept.flatten(),
        };
        let unit = Unit {
            number: self.number,
            desk: self.poller.desk(),
            config: self.config,
            ca: self.ca,
            own: self.own,
            view: self.view,
            gate: None,
        };
        (unit, self.poller, beginning)
    }
}

/// A source that is polled.
pub(super) struct Unit {
    pub(super) config: SourceConfig,
    pub(super) view: SourceView,
    pub(super) number: usize,
    pub(super) desk: AnyDesk,
    own: SourceOwn,
    ca: Option<Fingerprint>,
    /// What its poller leaves when it has ended.
    pub(super) gate: Option<oneshot::Receiver<Gate>>,
}

impl Unit {
    pub(super) fn own(&self) -> &SourceOwn {
        &self.own
    }

    /// What another configuration means for it. `ca`: of its certificate authority's file.
    pub(super) fn difference(&self, next: &SourceConfig, ca: Option<Fingerprint>) -> Difference {
        match difference(&self.config, next) {
            Difference::Same if self.ca != ca => Difference::Changed {
                connection: true,
                reading: false,
            },
            Difference::Changed { reading, .. } if self.ca != ca => Difference::Changed {
                connection: true,
                reading,
            },
            difference => difference,
        }
    }

    /// Its place in the store's new list. `begins`: if it begins there.
    pub(super) fn member(&self, begins: Option<Beginning>) -> Member {
        Member {
            unit: self.number,
            spec: spec(&self.config),
            begins,
            identity: identity(&self.config),
            own: self.own.clone(),
            lookback: span(self.config.source.lookback),
            stale_after: span(self.config.poll.stale_after),
        }
    }

    /// Goes on under another configuration.
    pub(super) fn change(&mut self, change: Changed) {
        let Changed {
            config,
            ca,
            transport,
            reading,
        } = change;
        let reading = reading.then(|| config.source.clone());
        self.desk.change(config.poll.clone(), transport, reading);
        self.own.paced(config.poll.interval, config.poll.stale_after);
        self.view.changed(&config);
        self.config = config;
        self.ca = ca;
    }

    /// Disappears. Its poller may be in the middle of a request, but nothing is heard of it any more.
    pub(super) fn leave(self) -> Former {
        self.desk.leave();
        self.own.vanish();
        Former {
            config: self.config,
            gate: Leaving::Polling(self.gate),
        }
    }
}

/// What a source that goes on gets.
pub(super) struct Changed {
    config: SourceConfig,
    ca: Option<Fingerprint>,
    transport: Option<HttpTransport>,
    reading: bool,
}

impl Changed {
    pub(super) fn of(
        config: SourceConfig,
        ca: Option<Fingerprint>,
        connection: bool,
        reading: bool,
    ) -> anyhow::Result<Self> {
        let transport = connection
            .then(|| HttpTransport::new(config.transport.clone()))
            .transpose()?;
        Ok(Self {
            config,
            ca,
            transport,
            reading,
        })
    }
}

/// A source that is gone. Its gate stays until it is worth nothing, for whoever asks the same server next.
pub(super) struct Former {
    pub(super) config: SourceConfig,
    gate: Leaving,
}

enum Leaving {
    Polling(Option<oneshot::Receiver<Gate>>),
    Over(Box<Gate>),
}

impl Former {
    /// Whether its gate could still hold a successor back.
    pub(super) fn matters(&mut self) -> bool {
        if let Leaving::Polling(receiver) = &mut self.gate {
            match receiver.as_mut().map(oneshot::Receiver::try_recv) {
                Some(Ok(gate)) => self.gate = Leaving::Over(Box::new(gate)),
                Some(Err(oneshot::error::TryRecvError::Empty)) => return true,
                Some(Err(oneshot::error::TryRecvError::Closed)) | None => return false,
            }
        }
        match &self.gate {
            Leaving::Over(gate) => !gate.is_rested(),
            Leaving::Polling(_) => true,
        }
    }

    /// Its gate, when its last request is over.
    pub(super) async fn gate(self) -> Option<Gate> {
        match self.gate {
            Leaving::Over(gate) => Some(*gate),
            Leaving::Polling(receiver) => receiver?.await.ok(),
        }
    }
}

/// What another configuration means for a source of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Difference {
    /// Nothing.
    Same,
    /// It goes on with what it knows.
    Changed {
        /// How it is reached is another.
        connection: bool,
        /// How it is read is another.
        reading: bool,
    },
    /// It is another project, or another platform: what is known says nothing of it.
    Another,
}

pub(super) fn difference(now: &SourceConfig, next: &SourceConfig) -> Difference {
    if identity(now) != identity(next) {
        return Difference::Another;
    }
    // Expressions cannot be compared, but what they were made from is shown. No token is: those are compared by themselves.
    let connection = format!("{:?}", now.transport) != format!("{:?}", next.transport)
        || !now.transport.credential.is(&next.transport.credential);
    let reading = format!("{:?}", now.source) != format!("{:?}", next.source);
    let shown = now.promotion != next.promotion
        || now.health != next.health
        || now.created_timestamps != next.created_timestamps;
    if connection || reading || shown || now.poll != next.poll {
        Difference::Changed { connection, reading }
    } else {
        Difference::Same
    }
}

/// Which past belongs to a source: that of its name, as long as it is the same project of the same platform.
pub(super) fn identity(source: &SourceConfig) -> Identity {
    let transport = &source.transport;
    let mut place = transport.base_url.clone();
    // A configured URL has no fragment.
    match (transport.project_id, &transport.project_slug) {
        (None, None) => {}
        (id, slug) => {
            let id = id.map(|id| id.to_string()).unwrap_or_default();
            place.set_fragment(Some(&format!("{id}/{}", slug.as_deref().unwrap_or_default())));
        }
    }
    Identity {
        name: source.name.to_string(),
        kind: source.source.kind.label(),
        base_url: place.to_string(),
    }
}

/// Of the source's certificate authority. Reads a file.
pub(super) fn ca(source: &SourceConfig) -> Option<Fingerprint> {
    let file: Option<&Path> = source.transport.ca_file.as_deref();
    file.map(|file| Fingerprint::of([file]))
}

fn info(source: &SourceConfig) -> SourceInfo {
    SourceInfo {
        kind: source.source.kind.label(),
        base_url: source.transport.base_url.clone(),
        poll_interval: source.poll.interval,
        stale_after: source.poll.stale_after,
    }
}

/// The store knows a case for as long as a run that it has seen it in; by then the source may track another one in its
/// place. `cases.max` bounds what is asked for, and this what a year of renaming may cost in memory.
const CASES_MARGIN: usize = 4;

/// What the store must know of a source before it has told anything.
fn spec(source: &SourceConfig) -> SourceSpec {
    let (error_codes, active_states) = match source.source.kind {
        Kind::Empirical => (ErrorCode::ALL, ActiveState::ALL),
        Kind::SamplePlatform => (SAMPLE_PLATFORM_ERRORS, SAMPLE_PLATFORM_STATES),
    };
    let retention = source.source.lookback + RETENTION_MARGIN;
    let limits = Limits {
        cases_max: source.source.cases.max.saturating_mul(CASES_MARGIN),
        retention,
        series_ttl: source.source.series_ttl,
    };
    SourceSpec {
        name: source.name.clone(),
        error_codes,
        active_states,
        limits,
        promotion: source.promotion.clone(),
        health: source.health.clone(),
        created_timestamps: source.created_timestamps,
    }
}

fn span(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

/// A poller of either platform.
pub(super) enum AnyPoller {
    Empirical(Box<Poller<Empirical, HttpTransport>>),
    SamplePlatform(Box<Poller<SamplePlatform, HttpTransport>>),
}

impl AnyPoller {
    fn new(settings: sources::Settings, transport: HttpTransport, parts: poll::Parts) -> Self {
        match settings.kind {
            Kind::Empirical => Self::Empirical(Box::new(Poller::new(Empirical::new(settings), transport, parts))),
            Kind::SamplePlatform => {
                Self::SamplePlatform(Box::new(Poller::new(SamplePlatform::new(settings), transport, parts)))
            }
        }
    }

    fn keep_memory(&mut self) {
        match self {
            Self::Empirical(poller) => poller.keep_memory(),
            Self::SamplePlatform(poller) => poller.keep_memory(),
        }
    }

    fn restore(&mut self, memory: &[u8]) -> Result<(), MemoryError> {
        match self {
            Self::Empirical(poller) => poller.restore(memory),
            Self::SamplePlatform(poller) => poller.restore(memory),
        }
    }

    fn desk(&self) -> AnyDesk {
        match self {
            Self::Empirical(poller) => AnyDesk::Empirical(poller.desk()),
            Self::SamplePlatform(poller) => AnyDesk::SamplePlatform(poller.desk()),
        }
    }

    /// Polls until it is stopped; `gate` is that of the poller before it.
    pub(super) async fn run(
        self,
        gate: Option<Gate>,
        updates: mpsc::Sender<Message>,
        shutdown: CancellationToken,
    ) -> Gate {
        match (self, gate) {
            (Self::Empirical(poller), None) => poller.run(updates, shutdown).await.into_gate(),
            (Self::Empirical(poller), Some(gate)) => poller.succeed(gate).run(updates, shutdown).await.into_gate(),
            (Self::SamplePlatform(poller), None) => poller.run(updates, shutdown).await.into_gate(),
            (Self::SamplePlatform(poller), Some(gate)) => poller.succeed(gate).run(updates, shutdown).await.into_gate(),
        }
    }

    pub(super) async fn one_round(
        &mut self,
        updates: mpsc::Sender<Message>,
        shutdown: CancellationToken,
    ) -> Option<RoundResult> {
        match self {
            Self::Empirical(poller) => poller.one_round(&updates, &shutdown).await,
            Self::SamplePlatform(poller) => poller.one_round(&updates, &shutdown).await,
        }
    }
}

/// Where a poller of either platform is told something.
#[derive(Clone)]
pub(super) enum AnyDesk {
    Empirical(Desk<Empirical, HttpTransport>),
    SamplePlatform(Desk<SamplePlatform, HttpTransport>),
}

impl AnyDesk {
    fn change(&self, settings: poll::Settings, transport: Option<HttpTransport>, reading: Option<sources::Settings>) {
        match self {
            Self::Empirical(desk) => desk.change(Orders {
                settings,
                transport,
                source: reading.map(Empirical::new),
            }),
            Self::SamplePlatform(desk) => desk.change(Orders {
                settings,
                transport,
                source: reading.map(SamplePlatform::new),
            }),
        }
    }

    fn leave(&self) {
        match self {
            Self::Empirical(desk) => desk.leave(),
            Self::SamplePlatform(desk) => desk.leave(),
        }
    }

    pub(super) fn has_left(&self) -> bool {
        match self {
            Self::Empirical(desk) => desk.has_left(),
            Self::SamplePlatform(desk) => desk.has_left(),
        }
    }
}

/// What polling costs, as the exporter's own metrics.
struct Metered(SourceOwn);

impl Observer for Metered {
    fn request_sent(&mut self, endpoint: &'static str, code: &str, seconds: f64) {
        self.0.request_sent(endpoint, code, seconds);
    }

    fn retried(&mut self, reason: retry::Reason) {
        self.0.retried(reason.label());
    }

    fn throttled(&mut self, reason: budget::Reason, seconds: f64) {
        let reason = match reason {
            budget::Reason::Budget => Throttle::Budget,
            budget::Reason::RetryAfter => Throttle::RetryAfter,
            budget::Reason::Quota => Throttle::Quota,
        };
        self.0.throttled(reason, seconds);
    }

    fn rate_limit_told(&mut self, told: budget::Told) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a float's cast saturates"
        )]
        let whole = |value: f64| value as u64;
        #[expect(clippy::cast_possible_truncation, reason = "a float's cast saturates")]
        let time = |value: f64| Timestamp::from_second(value as i64).ok();
        let (limit, remaining) = (told.limit.map(whole), told.remaining.map(whole));
        self.0.rate_limit_told(limit, remaining, told.reset.and_then(time));
    }

    fn round_started(&mut self, at: Timestamp) {
        self.0.round_started(at);
    }

    fn round_ended(&mut self, result: RoundResult, at: Timestamp, seconds: f64) {
        self.0.round_ended(result, at, seconds);
    }

    fn progress(&mut self, progress: Progress) {
        self.0.progress(progress.cases_tracked, progress.oldest_refresh);
    }

    fn notice(&mut self, notice: &Notice) {
        let own = &self.0;
        match notice {
            Notice::UnknownValue { field } => own.unknown_value(field),
            Notice::HistoryTruncated { cases } => own.history_truncated(*cases),
            Notice::CasesRefused { cases, .. } => own.cases_refused(*cases),
            Notice::RowSkipped { endpoint, .. } => own.row_skipped(endpoint),
            Notice::NoCases { .. } | Notice::Advice(_) => {}
        }
    }
}
