//! The composition root: builds every room from a configuration, wires them, waits for signals. The only reader of the
//! wall clock and of entropy. Never decides anything that a room could decide.

mod demo;
pub mod keep;
pub mod publish;
mod view;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::keep::Keeper;
use self::publish::{Publication, Publisher};
use self::view::{AppView, SourceView};
use crate::cli::{REVISION, RUSTC_VERSION};
use crate::config::{Config, SourceConfig, WebSettings};
use crate::metrics::Format;
use crate::metrics::ends::Ends;
use crate::metrics::own::{BuildInfo, Own, SourceInfo, SourceOwn, Throttle};
use crate::metrics::render::render;
use crate::model::{ActiveState, ErrorCode, Notice, RoundResult};
use crate::poll::{self, Message, Observer, Poller, Wall, budget, retry};
use crate::sources::empirical::Empirical;
use crate::sources::sample_platform::SamplePlatform;
use crate::sources::{Kind, MemoryError, Progress};
use crate::status::{Shared, SourceStatus};
use crate::store::ledger::{Directory, Identity, Ledger};
use crate::store::{Limits, SourceSpec, Store};
use crate::transport::http::HttpTransport;
use crate::web::{self, access::Access};

pub use demo::{demo, simulate};

/// Updates that wait for the store. A poller that is ahead of it by so much waits.
const UPDATES_MAX: usize = 64;

/// Running answers and rounds have this long to end after a stop was asked for; then the process ends all the same.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Finished runs are remembered for this much longer than they are asked about, so that nothing is forgotten while
/// upstream still returns it.
const RETENTION_MARGIN: Duration = Duration::from_secs(3 * 86_400);

/// The Sample Platform tells no error code and has fewer states.
const SAMPLE_PLATFORM_ERRORS: &[ErrorCode] = &[ErrorCode::Unknown];
const SAMPLE_PLATFORM_STATES: &[ActiveState] = &[ActiveState::Queued, ActiveState::Started];

/// The wall clock.
#[expect(clippy::disallowed_methods, reason = "this is the one place where wall time is read")]
fn wall() -> Timestamp {
    Timestamp::now()
}

/// Dice for jitter.
fn dice() -> poll::Dice {
    use rand::RngExt as _;
    #[expect(clippy::disallowed_methods, reason = "this is the one place where entropy is read")]
    Box::new(|| rand::rng().random::<f64>())
}

/// The daemon.
///
/// # Errors
/// It cannot start, or it fails while running.
pub async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let address = config.web.listen_address;
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address}"))?;
    run_on(listener, config, CancellationToken::new()).await
}

/// The daemon on a listener, until a signal or `shutdown`.
async fn run_on(listener: TcpListener, config: Config, shutdown: CancellationToken) -> anyhow::Result<ExitCode> {
    let mut parts = Parts::of(&config)?;
    let mut store = Store::new(parts.specs.clone(), config.series_budget);
    let keeper = match &config.state.directory {
        Some(directory) => Some(parts.recover(directory, &config, &mut store)?),
        None => None,
    };
    let healthy = Arc::new(AtomicBool::new(true));
    let publication = Arc::new(Publication::default());
    let pollers = TaskTracker::new();
    let (sender, updates) = mpsc::channel(UPDATES_MAX);
    for poller in std::mem::take(&mut parts.pollers) {
        let (sender, shutdown, healthy) = (sender.clone(), shutdown.clone(), Arc::clone(&healthy));
        pollers.spawn(async move {
            let watch = Watch {
                healthy,
                shutdown: shutdown.clone(),
            };
            poller.run(sender, shutdown).await;
            drop(watch);
        });
    }
    drop(sender);
    let publisher = Publisher {
        store,
        keeper,
        owns: parts.owns,
        lookback: config
            .sources
            .iter()
            .map(|source| span(source.source.lookback))
            .collect(),
        stale_after: config
            .sources
            .iter()
            .map(|source| span(source.poll.stale_after))
            .collect(),
        publication: Arc::clone(&publication),
        renderer: Arc::default(),
        wall: Arc::new(wall),
    };
    let publisher = publisher.reopened().await;
    let publisher = tokio::spawn(publisher.run(updates));
    let access = access(&config.web, &parts.own)?;
    let view = AppView {
        publication,
        ends: Ends::new(parts.own),
        sources: parts.views,
        healthy,
        wall,
    };
    let web = web::Settings {
        telemetry_path: config.web.telemetry_path.clone(),
        access,
    };
    tracing::info!(address = %listener.local_addr()?, sources = config.sources.len(), version = env!("CARGO_PKG_VERSION"), "listening");
    let server = tokio::spawn(web::serve(listener, Arc::new(view), web, shutdown.clone()));
    let stop = shutdown.clone();
    tokio::select! {
        result = signals() => result?,
        () = shutdown.cancelled() => {}
    }
    stop.cancel();
    pollers.close();
    let ended = tokio::time::timeout(STOP_WITHIN, async {
        pollers.wait().await;
        let published = publisher.await;
        (published, server.await)
    });
    tokio::select! {
        ended = ended => {
            if let Ok((published, served)) = ended {
                published.context("the store ended early")?;
                served.context("the web server ended early")?.context("the web server failed")?;
            }
        }
        second = signals() => second?,
    }
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// TLS and passwords, if there is a file for them.
fn access(web: &WebSettings, own: &Own) -> anyhow::Result<Option<Arc<Access>>> {
    let Some(path) = &web.config_file else {
        return Ok(None);
    };
    let own = own.clone();
    let told = Box::new(move |is_good| own.web_config_loaded(wall(), is_good));
    let opened = Access::open(path, told).map_err(|problems| {
        let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}: {}", path.display(), problems.join("; "))
    });
    Ok(Some(Arc::new(opened?)))
}

/// A poller that ends before the process does is a bug: the liveness probe must see it.
struct Watch {
    healthy: Arc<AtomicBool>,
    shutdown: CancellationToken,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.shutdown.is_cancelled() {
            self.healthy.store(false, std::sync::atomic::Ordering::Relaxed);
            tracing::error!("a poller has ended; the process reports itself unhealthy");
        }
    }
}

/// Waits for the signal to stop. SIGHUP must not end the process; configuration is read at the start only.
async fn signals() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            _ = hangup.recv() => {
                tracing::warn!("SIGHUP: this version cannot reload its configuration while running; restart it");
                continue;
            }
        };
        tracing::info!(signal = name, "stopping");
        return Ok(());
    }
}

/// One complete round of each source, then the exposition on standard output. It keeps nothing and reads no ledger: it must
/// neither disturb a daemon on the same configuration nor count what that daemon counts.
///
/// # Errors
/// It cannot start, or its output is closed.
pub async fn once(config: Config) -> anyhow::Result<ExitCode> {
    use std::io::Write as _;

    let mut parts = Parts::of(&config)?;
    let shutdown = CancellationToken::new();
    let (sender, mut updates) = mpsc::channel(UPDATES_MAX);
    let rounds: Vec<_> = std::mem::take(&mut parts.pollers)
        .into_iter()
        .map(|mut poller| {
            let (sender, shutdown) = (sender.clone(), shutdown.clone());
            tokio::spawn(async move { poller.one_round(sender, shutdown).await })
        })
        .collect();
    drop(sender);
    let mut store = Store::new(parts.specs, config.series_budget);
    let mut snapshot = None;
    while let Some(Message { source, update, .. }) = updates.recv().await {
        snapshot = store.update(source, update, wall(), 0).or(snapshot);
    }
    let mut failed = false;
    for round in rounds {
        failed |= round.await.context("a round ended early")? != Some(RoundResult::Success);
    }
    let snapshot = snapshot.unwrap_or_default();
    for source in &snapshot.sources {
        publish::tell_projects(&parts.owns, source);
    }
    let mut out = std::io::stdout().lock();
    out.write_all(&render(&snapshot).text.to_text())?;
    out.write_all(parts.own.render(wall(), Format::Text).as_bytes())?;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Everything that is made from a configuration.
struct Parts {
    own: Own,
    owns: Vec<SourceOwn>,
    specs: Vec<SourceSpec>,
    views: Vec<SourceView>,
    pollers: Vec<AnyPoller>,
}

impl Parts {
    fn of(config: &Config) -> anyhow::Result<Self> {
        let version = env!("CARGO_PKG_VERSION");
        let own = Own::new(BuildInfo {
            version,
            revision: REVISION,
            rustc_version: RUSTC_VERSION,
        })?;
        own.config_loaded(wall(), true);
        let mut parts = Self {
            own,
            owns: vec![],
            specs: vec![],
            views: vec![],
            pollers: vec![],
        };
        for (index, source) in config.sources.iter().enumerate() {
            parts
                .add(index, source)
                .with_context(|| format!("source {}", source.name))?;
        }
        Ok(parts)
    }

    /// Takes the ledger's directory and puts every source where a former process left it. The files of sources that are no
    /// longer configured stay where they are: such a source may come back.
    fn recover(&mut self, directory: &Path, config: &Config, store: &mut Store) -> anyhow::Result<Keeper> {
        let mut keeper = Keeper::new(Ledger::new(Directory::take(directory)?), self.own.ledger());
        for (index, source) in config.sources.iter().enumerate() {
            let identity = Identity {
                name: source.name.to_string(),
                kind: source.source.kind.label(),
                base_url: source.transport.base_url.to_string(),
            };
            let poller = &mut self.pollers[index];
            poller.keep_memory();
            let as_of = keeper
                .recover(identity, store, |memory| poller.restore(memory), wall())
                .with_context(|| {
                    format!(
                        "state.directory {}: reading what is kept of {}",
                        directory.display(),
                        source.name
                    )
                })?;
            if let Some(as_of) = as_of {
                self.owns[index].restored(as_of);
                self.views[index].restored(as_of);
            }
        }
        Ok(keeper)
    }

    fn add(&mut self, index: usize, source: &SourceConfig) -> anyhow::Result<()> {
        let kind = source.source.kind;
        let info = SourceInfo {
            kind: kind.label(),
            base_url: source.transport.base_url.clone(),
            poll_interval: source.poll.interval,
            stale_after: source.poll.stale_after,
        };
        let own = self.own.source(&source.name, &info);
        let status = Shared::new(SourceStatus::new(&source.name, wall(), source.poll.stale_after));
        self.views.push(SourceView::new(source, status.clone()));
        self.specs.push(spec(source));
        let transport = HttpTransport::new(source.transport.clone())?;
        let wall: Wall = Arc::new(wall);
        let parts = poll::Parts {
            index,
            name: source.name.clone(),
            settings: source.poll.clone(),
            wall,
            dice: dice(),
            observer: Box::new(Metered(own.clone())),
            status,
        };
        self.owns.push(own);
        self.pollers.push(match kind {
            Kind::Empirical => AnyPoller::Empirical(Box::new(Poller::new(
                Empirical::new(source.source.clone()),
                transport,
                parts,
            ))),
            Kind::SamplePlatform => {
                let platform = SamplePlatform::new(source.source.clone());
                AnyPoller::SamplePlatform(Box::new(Poller::new(platform, transport, parts)))
            }
        });
        Ok(())
    }
}

/// What the store must know of a source before it has told anything.
fn spec(source: &SourceConfig) -> SourceSpec {
    let (error_codes, active_states) = match source.source.kind {
        Kind::Empirical => (ErrorCode::ALL, ActiveState::ALL),
        Kind::SamplePlatform => (SAMPLE_PLATFORM_ERRORS, SAMPLE_PLATFORM_STATES),
    };
    let retention = source.source.lookback + RETENTION_MARGIN;
    let limits = Limits {
        cases_max: source.source.cases.max,
        retention,
    };
    SourceSpec {
        name: source.name.clone(),
        error_codes,
        active_states,
        limits,
    }
}

fn span(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

/// A poller of either platform.
enum AnyPoller {
    Empirical(Box<Poller<Empirical, HttpTransport>>),
    SamplePlatform(Box<Poller<SamplePlatform, HttpTransport>>),
}

impl AnyPoller {
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

    async fn run(self, updates: mpsc::Sender<Message>, shutdown: CancellationToken) {
        match self {
            Self::Empirical(poller) => drop(poller.run(updates, shutdown).await),
            Self::SamplePlatform(poller) => drop(poller.run(updates, shutdown).await),
        }
    }

    async fn one_round(&mut self, updates: mpsc::Sender<Message>, shutdown: CancellationToken) -> Option<RoundResult> {
        match self {
            Self::Empirical(poller) => poller.one_round(&updates, &shutdown).await,
            Self::SamplePlatform(poller) => poller.one_round(&updates, &shutdown).await,
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
        self.0.rate_limit_told(
            told.limit.map(whole),
            told.remaining.map(whole),
            told.reset.and_then(time),
        );
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
        match notice {
            Notice::UnknownValue { field } => self.0.unknown_value(field),
            Notice::HistoryTruncated { cases } => self.0.history_truncated(*cases),
            Notice::RowSkipped { endpoint, .. } => self.0.row_skipped(endpoint),
            Notice::NoCases { .. } | Notice::Advice(_) => {}
        }
    }
}

/// Where a listener is, as an address that a client on this machine can use.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        SocketAddr::from(([127, 0, 0, 1], address.port()))
    } else {
        address
    }
}
