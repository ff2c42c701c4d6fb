//! The composition root: builds every room from a configuration, wires them, waits for signals. The only reader of the
//! wall clock and of entropy. Never decides anything that a room could decide.

mod demo;
#[cfg(test)]
mod fixtures;
pub mod keep;
pub mod publish;
mod reload;
mod unit;
mod view;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::keep::Keeper;
use self::publish::{Publication, Publisher};
use self::reload::{ASKED_MAX, Reloader, Team};
use self::unit::{Draft, Kept};
use self::view::AppView;
use crate::cli::{REVISION, RUSTC_VERSION};
use crate::config::{Config, WebSettings};
use crate::metrics::Format;
use crate::metrics::ends::Ends;
use crate::metrics::own::{BuildInfo, Own};
use crate::metrics::render::render;
use crate::model::RoundResult;
use crate::poll::{self, Message};
use crate::status::{Trouble, Troubles};
use crate::store::ledger::{Directory, Ledger};
use crate::store::{Next, Store};
use crate::web::{self, access::Access};

pub use demo::{demo, simulate};
pub use reload::Origin;

/// Updates that wait for the store. A poller that is ahead of it by so much waits.
const UPDATES_MAX: usize = 64;

/// Running answers and rounds have this long to end after a stop was asked for; then the process ends all the same.
const STOP_WITHIN: Duration = Duration::from_secs(5);

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

/// The daemon. `origin`: where its configuration can be read anew.
///
/// # Errors
/// It cannot start, or it fails while running.
pub async fn run(config: Config, origin: Origin) -> anyhow::Result<ExitCode> {
    let address = config.web.listen_address;
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address}"))?;
    run_on(listener, config, Some(origin), CancellationToken::new()).await
}

/// The daemon on a listener, until a signal or `shutdown`.
async fn run_on(
    listener: TcpListener,
    config: Config,
    origin: Option<Origin>,
    shutdown: CancellationToken,
) -> anyhow::Result<ExitCode> {
    // From here on it does not end the process.
    let hangup = signal(SignalKind::hangup())?;
    let own = own()?;
    own.config_loaded(wall(), true);
    let kept = match &config.state.directory {
        Some(directory) => Some(Kept {
            ledger: Arc::new(Ledger::new(Directory::take(directory)?)),
            own: own.ledger(),
        }),
        None => None,
    };
    let publication = Arc::new(Publication::default());
    let (sender, updates) = mpsc::channel(UPDATES_MAX);
    let (changer, changes) = mpsc::channel(1);
    let troubles = Troubles::default();
    let keeper = kept
        .clone()
        .map(|kept| Keeper::new(kept.ledger, kept.own, troubles.clone()));
    let publisher = Publisher::new(keeper, Arc::clone(&publication), Arc::new(wall));
    let publisher = tokio::spawn(publisher.run(updates, changes));
    let mut team = Team::new(own.clone(), kept, sender, changer, shutdown.clone());
    team.adopt(&config).await?;
    let access = access(&config.web, &own, &troubles)?;
    let (ask, asked) = mpsc::channel(ASKED_MAX);
    let view = AppView::new(
        publication,
        Ends::new(own),
        team.views(),
        team.healthy(),
        ask,
        troubles.clone(),
    );
    let web = web::Settings {
        telemetry_path: config.web.telemetry_path.clone(),
        access,
        enable_lifecycle: config.web.enable_lifecycle,
    };
    tracing::info!(address = %listener.local_addr()?, sources = config.sources.len(), version = env!("CARGO_PKG_VERSION"), "listening");
    let view = Arc::new(view);
    let (fresh, stopped) = (Arc::clone(&view), shutdown.clone());
    tokio::spawn(async move { stopped.run_until_cancelled(fresh.keep_fresh()).await });
    let server = tokio::spawn(web::serve(listener, view, web, shutdown.clone()));
    let pollers = team.pollers();
    let reloader = tokio::spawn(Reloader::new(team, config, origin, troubles).await.run(asked, hangup));
    let stop = shutdown.clone();
    tokio::select! {
        result = signals() => result?,
        () = shutdown.cancelled() => {}
    }
    stop.cancel();
    let ended = tokio::time::timeout(STOP_WITHIN, async {
        let reloaded = reloader.await;
        pollers.close();
        pollers.wait().await;
        let published = publisher.await;
        (reloaded, published, server.await)
    });
    tokio::select! {
        ended = ended => {
            if let Ok((reloaded, published, served)) = ended {
                reloaded.context("the reloader ended early")?;
                published.context("the store ended early")?;
                served.context("the web server ended early")?.context("the web server failed")?;
            }
        }
        second = signals() => second?,
    }
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Whether the ledger's directory can be used, without touching it.
///
/// # Errors
/// [`run`] would not start.
pub fn check_directory(config: &Config) -> anyhow::Result<()> {
    if let Some(directory) = &config.state.directory {
        Directory::check(directory)?;
    }
    Ok(())
}

/// TLS and passwords, if there is a file for them.
fn access(web: &WebSettings, own: &Own, troubles: &Troubles) -> anyhow::Result<Option<Arc<Access>>> {
    let Some(path) = &web.config_file else {
        return Ok(None);
    };
    let (own, troubles) = (own.clone(), troubles.clone());
    let told = Box::new(move |wrong: Option<String>| {
        own.web_config_loaded(wall(), wrong.is_none());
        troubles.note(Trouble::WebConfiguration, wall(), wrong);
    });
    let opened = Access::open(path, told).map_err(|problems| {
        let problems: Vec<_> = problems.iter().map(|problem| problem.shown_in(path)).collect();
        anyhow::anyhow!("{}", problems.join("; "))
    });
    Ok(Some(Arc::new(opened?)))
}

fn own() -> anyhow::Result<Own> {
    let version = env!("CARGO_PKG_VERSION");
    Ok(Own::new(BuildInfo {
        version,
        revision: REVISION,
        rustc_version: RUSTC_VERSION,
    })?)
}

/// Waits for the signal to stop.
async fn signals() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let name = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tracing::info!(signal = name, "stopping");
    Ok(())
}

/// One complete round of each source, then the exposition on standard output. It keeps nothing and reads no ledger: it must
/// neither disturb a daemon on the same configuration nor count what that daemon counts.
///
/// # Errors
/// It cannot start, or its output is closed.
pub async fn once(config: Config) -> anyhow::Result<ExitCode> {
    use std::io::Write as _;

    let own = own()?;
    own.config_loaded(wall(), true);
    let shutdown = CancellationToken::new();
    let (sender, mut updates) = mpsc::channel(UPDATES_MAX);
    let (mut owns, mut states, mut rounds) = (Vec::new(), Vec::new(), Vec::new());
    for (number, source) in config.sources.into_iter().enumerate() {
        let name = source.name.clone();
        let draft = Draft::of(source, None, number, &own, None).with_context(|| format!("source {name}"))?;
        let (unit, mut poller, beginning) = draft.appear();
        owns.push(unit.own().clone());
        states.push(Next::New(beginning.state));
        let (sender, shutdown) = (sender.clone(), shutdown.clone());
        rounds.push(tokio::spawn(async move { poller.one_round(sender, shutdown).await }));
    }
    drop(sender);
    let mut store = Store::new(Vec::new(), 0);
    store.reconfigure(states, config.series_budget, wall());
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
        publish::tell_projects(&owns, source);
    }
    let mut out = std::io::stdout().lock();
    out.write_all(&render(&snapshot).text.to_text())?;
    out.write_all(own.render(wall(), Format::Text).as_bytes())?;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Where a listener is, as an address that a client on this machine can use.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        SocketAddr::from(([127, 0, 0, 1], address.port()))
    } else {
        address
    }
}
