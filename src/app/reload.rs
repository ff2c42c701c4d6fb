//! From one configuration to the next while everything runs: what stays, what changes, what comes and what goes.
//! A start is a reload from nothing. Never takes over a part of a configuration: everything that can fail is tried before
//! anything changes.
//!
//! A source whose configuration is the same notices nothing. One that is changed goes on with its memory, its counters and
//! its gate: it learns of the change at its desk, between two requests. One that comes begins with a baseline, or where its
//! ledger ends, but behind the gate of whoever left the same server last: no reload is a way round a pause.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::publish::Change;
use super::unit::{AnyDesk, AnyPoller, Changed, Difference, Draft, Former, Kept, Unit};
use super::view::SourceView;
use super::wall;
use crate::config::{Config, Fingerprint, Problems, SourceConfig, Watch};
use crate::logging::Volume;
use crate::metrics::own::Own;
use crate::poll::{Gate, Message};

/// How often the configuration's files are looked at: soon enough for a person who waits for it, and reading a few small
/// files costs nothing. A change is taken when two looks have found the same.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A configuration that changes under each of so many readings is not read.
const READINGS_MAX: usize = 3;

/// Gates of sources that are gone. Those that are worth nothing any more go first; who removes more sources than this within
/// an hour, and takes them back, gets fresh gates for the rest.
const FORMER_MAX: usize = 1_000;

/// What may be asked for by HTTP at once.
pub(super) const ASKED_MAX: usize = 8;

/// Somebody asks for a reload, and is told what has come of it.
pub(super) type Asked = oneshot::Sender<Result<String, String>>;

/// Where the configuration comes from.
pub struct Origin {
    /// Its file, if there is one.
    pub file: Option<PathBuf>,
    /// Of the file before it was read.
    pub read_from: Fingerprint,
    /// Reads it anew, from all its origins.
    pub load: Box<dyn Fn() -> Result<Config, Problems> + Send + Sync>,
    /// Where the level of the log is changed.
    pub volume: Volume,
}

/// How a new configuration relates to the sources that run.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    /// By the new configuration's order.
    steps: Vec<Step>,
    /// Which of the running ones are gone.
    gone: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The running source at this place goes on.
    Keep(usize),
    /// The running source at this place goes on under another configuration.
    Change {
        place: usize,
        connection: bool,
        reading: bool,
    },
    /// It is new.
    Add,
}

fn plan<T>(
    running: &[T],
    next: &[SourceConfig],
    name: impl Fn(&T) -> &str,
    difference: impl Fn(&T, &SourceConfig) -> Difference,
) -> Plan {
    let places: HashMap<&str, usize> = running
        .iter()
        .enumerate()
        .map(|(place, unit)| (name(unit), place))
        .collect();
    let steps: Vec<_> = next
        .iter()
        .map(|config| match places.get(&*config.name) {
            Some(&place) => match difference(&running[place], config) {
                Difference::Same => Step::Keep(place),
                Difference::Changed { connection, reading } => Step::Change {
                    place,
                    connection,
                    reading,
                },
                Difference::Another => Step::Add,
            },
            None => Step::Add,
        })
        .collect();
    let stays = |place: usize| {
        steps.iter().any(|step| match step {
            Step::Keep(kept) | Step::Change { place: kept, .. } => *kept == place,
            Step::Add => false,
        })
    };
    let gone = (0..running.len()).filter(|place| !stays(*place)).collect();
    Plan { steps, gone }
}

/// A step with all that it needs.
enum Prepared {
    Keep(usize),
    Change(usize, Box<Changed>),
    Add(Box<Draft>),
}

/// What a reload has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Summary {
    added: usize,
    removed: usize,
    changed: usize,
    unchanged: usize,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            added,
            removed,
            changed,
            unchanged,
        } = self;
        write!(
            f,
            "sources: {added} added, {removed} removed, {changed} changed, {unchanged} unchanged"
        )
    }
}

/// The sources as people see them.
pub(super) type Views = Arc<ArcSwap<Vec<SourceView>>>;

/// All sources at work, and what a new one needs.
pub(super) struct Team {
    own: Own,
    kept: Option<Kept>,
    views: Views,
    updates: mpsc::Sender<Message>,
    changes: mpsc::Sender<Change>,
    pollers: TaskTracker,
    shutdown: CancellationToken,
    healthy: Arc<AtomicBool>,
    units: Vec<Unit>,
    former: Vec<Former>,
    series_budget: usize,
    next_number: usize,
}

impl Team {
    /// Nobody is at work yet. What pollers say goes to `updates`, what becomes of the sources to `changes`.
    pub(super) fn new(
        own: Own,
        kept: Option<Kept>,
        updates: mpsc::Sender<Message>,
        changes: mpsc::Sender<Change>,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            own,
            kept,
            views: Arc::default(),
            updates,
            changes,
            pollers: TaskTracker::new(),
            shutdown,
            healthy: Arc::new(AtomicBool::new(true)),
            units: Vec::new(),
            former: Vec::new(),
            series_budget: 0,
            next_number: 0,
        }
    }

    /// Its sources as people see them, now and later.
    pub(super) fn views(&self) -> Views {
        Arc::clone(&self.views)
    }

    /// Whether nobody has ended who should not have.
    pub(super) fn healthy(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.healthy)
    }

    /// The tasks, to be waited for.
    pub(super) fn pollers(&self) -> TaskTracker {
        self.pollers.clone()
    }

    /// Goes over to this configuration. When it returns, the new sources are shown (as far as they have a past) and the old
    /// ones are not.
    ///
    /// # Errors
    /// A source cannot be set up, or what is kept of it cannot be read: nothing has changed.
    pub(super) async fn adopt(&mut self, config: &Config) -> anyhow::Result<Summary> {
        let plan = plan(&self.units, &config.sources, |unit| &unit.config.name, Unit::difference);
        let prepared = self.prepare(&plan, config).await?;
        let mut summary = Summary {
            removed: plan.gone.len(),
            ..Summary::default()
        };
        let mut units: Vec<_> = std::mem::take(&mut self.units).into_iter().map(Some).collect();
        for place in &plan.gone {
            self.former.extend(units[*place].take().map(Unit::leave));
        }
        let (mut members, mut pollers) = (Vec::new(), Vec::new());
        for step in prepared {
            let (unit, begins) = match step {
                Prepared::Keep(place) => {
                    summary.unchanged += 1;
                    (units[place].take(), None)
                }
                Prepared::Change(place, changed) => {
                    summary.changed += 1;
                    let mut unit = units[place].take();
                    if let Some(unit) = &mut unit {
                        unit.change(*changed);
                    }
                    (unit, None)
                }
                Prepared::Add(draft) => {
                    summary.added += 1;
                    let (mut unit, poller, beginning) = draft.appear();
                    let before = self.predecessor(&unit.config);
                    let (leave, gate) = oneshot::channel();
                    unit.gate = Some(gate);
                    pollers.push((poller, unit.desk.clone(), before, leave));
                    (Some(unit), Some(beginning))
                }
            };
            // Each place is in one step only.
            let Some(unit) = unit else { continue };
            members.push(unit.member(begins));
            self.units.push(unit);
        }
        self.tidy();
        self.views
            .store(Arc::new(self.units.iter().map(|unit| unit.view.clone()).collect()));
        let noticed = summary.unchanged < members.len() || summary.removed > 0;
        if noticed || config.series_budget != self.series_budget {
            self.series_budget = config.series_budget;
            let (done, shown) = oneshot::channel();
            let change = Change {
                members,
                series_budget: config.series_budget,
                done,
            };
            let ended = "the store has ended";
            self.changes.send(change).await.ok().context(ended)?;
            shown.await.context(ended)?;
        }
        for (poller, desk, before, leave) in pollers {
            self.start(poller, desk, before, leave);
        }
        Ok(summary)
    }

    /// Everything that can fail. Certificates and ledgers are read away from the threads that serve.
    async fn prepare(&mut self, plan: &Plan, config: &Config) -> anyhow::Result<Vec<Prepared>> {
        let first = self.next_number;
        self.next_number += plan.steps.len();
        let steps: Vec<_> = plan.steps.iter().copied().zip(config.sources.clone()).collect();
        let (own, kept) = (self.own.clone(), self.kept.clone());
        let prepare = move || {
            let prepared = (first..).zip(steps).map(|(number, (step, source))| {
                let name = source.name.clone();
                let prepared = match step {
                    Step::Keep(place) => Ok(Prepared::Keep(place)),
                    Step::Change {
                        place,
                        connection,
                        reading,
                    } => Changed::of(source, connection, reading)
                        .map(|changed| Prepared::Change(place, Box::new(changed))),
                    Step::Add => {
                        Draft::of(source, number, &own, kept.as_ref()).map(|draft| Prepared::Add(Box::new(draft)))
                    }
                };
                prepared.with_context(|| format!("source {name}"))
            });
            prepared.collect()
        };
        tokio::task::spawn_blocking(prepare).await?
    }

    /// Whose gate a new source has to take: that of one that is gone and asked the same server, with the same token if
    /// there is such a one.
    fn predecessor(&mut self, config: &SourceConfig) -> Option<Former> {
        let server = config.transport.base_url.origin();
        let place = |token: bool| {
            self.former.iter().rposition(|former| {
                let transport = &former.config.transport;
                transport.base_url.origin() == server
                    && (!token || transport.credential.is(&config.transport.credential))
            })
        };
        let place = place(true).or_else(|| place(false))?;
        Some(self.former.remove(place))
    }

    fn tidy(&mut self) {
        self.former.retain_mut(Former::matters);
        let surplus = self.former.len().saturating_sub(FORMER_MAX);
        self.former.drain(..surplus);
    }

    fn start(&self, poller: AnyPoller, desk: AnyDesk, before: Option<Former>, leave: oneshot::Sender<Gate>) {
        let (updates, shutdown) = (self.updates.clone(), self.shutdown.clone());
        let watch = Guard {
            healthy: Arc::clone(&self.healthy),
            shutdown: shutdown.clone(),
            desk,
        };
        self.pollers.spawn(async move {
            let before = async {
                match before {
                    Some(before) => before.gate().await,
                    None => None,
                }
            };
            let gate = tokio::select! {
                biased;
                () = shutdown.cancelled() => None,
                gate = before => gate,
            };
            let gate = poller.run(gate, updates, shutdown).await;
            // Nobody waits for it any more when the process ends.
            let _ = leave.send(gate);
            drop(watch);
        });
    }
}

/// A poller that ends before it is told to is a bug: the liveness probe must see it.
struct Guard {
    healthy: Arc<AtomicBool>,
    shutdown: CancellationToken,
    desk: AnyDesk,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.shutdown.is_cancelled() && !self.desk.has_left() {
            self.healthy.store(false, std::sync::atomic::Ordering::Relaxed);
            tracing::error!("a poller has ended; the process reports itself unhealthy");
        }
    }
}

/// Waits for reasons to reload, and does it.
pub(super) struct Reloader {
    team: Team,
    running: Config,
    origin: Option<Arc<Origin>>,
    watch: Option<Watch>,
}

impl Reloader {
    /// The team is at work under this configuration.
    pub(super) fn new(team: Team, running: Config, origin: Option<Origin>) -> Self {
        let watch = origin.as_ref().map(|origin| {
            // If the file has changed since it was read, it is as if it changed now.
            if Fingerprint::of(origin.file.as_deref()) == origin.read_from {
                Watch::new(of_all(origin, &running))
            } else {
                Watch::new(origin.read_from)
            }
        });
        Self {
            team,
            running,
            origin: origin.map(Arc::new),
            watch,
        }
    }

    /// Until the process stops.
    pub(super) async fn run(mut self, mut asked: mpsc::Receiver<Asked>, mut hangup: Signal) {
        let shutdown = self.team.shutdown.clone();
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let asked = async {
                tokio::select! {
                    Some(()) = hangup.recv() => {
                        tracing::info!(signal = "SIGHUP", "reloading the configuration");
                        let _ = self.reload().await;
                    }
                    Some(asked) = asked.recv() => {
                        tracing::info!("reloading the configuration: asked for by HTTP");
                        // Who has asked may have gone.
                        let _ = asked.send(self.reload().await);
                    }
                    _ = look.tick() => if self.has_changed().await {
                        tracing::info!("reloading the configuration: its files have changed");
                        let _ = self.reload().await;
                    },
                }
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = asked => {}
            }
        }
    }

    async fn has_changed(&mut self) -> bool {
        let (Some(origin), Some(watch)) = (self.origin.clone(), &mut self.watch) else {
            return false;
        };
        let files = files(&origin, &self.running);
        let found = tokio::task::spawn_blocking(move || Fingerprint::of(files.iter().map(PathBuf::as_path))).await;
        found.is_ok_and(|found| watch.look(found))
    }

    /// Reads the configuration anew and goes over to it, or says why not.
    async fn reload(&mut self) -> Result<String, String> {
        let outcome = self.try_reload().await;
        self.team.own.config_loaded(wall(), outcome.is_ok());
        match outcome {
            Ok(summary) => {
                tracing::info!(%summary, "configuration reloaded");
                Ok(format!("configuration reloaded: {summary}"))
            }
            Err(problems) => {
                for problem in problems.lines() {
                    tracing::error!(problem, "configuration not reloaded: the former one stays");
                }
                Err(format!("configuration not reloaded, the former one stays:\n{problems}"))
            }
        }
    }

    async fn try_reload(&mut self) -> Result<Summary, String> {
        let Some(origin) = self.origin.clone() else {
            return Err("there is no configuration that could be read anew".to_owned());
        };
        let files = files(&origin, &self.running);
        let read = tokio::task::spawn_blocking(move || read(&origin, &files)).await;
        let (tried, config) = read.map_err(|error| error.to_string())?;
        if let Some(watch) = &mut self.watch {
            watch.tried(tried);
        }
        let (config, read_from) = config?;
        self.running.admits(&config).map_err(|problems| problems.to_string())?;
        let summary = self.team.adopt(&config).await.map_err(|error| format!("{error:#}"))?;
        if let Some(origin) = &self.origin {
            origin.volume.set(config.log.level);
        }
        // The new configuration may name other files.
        self.watch = Some(Watch::new(read_from));
        self.running = config;
        Ok(summary)
    }
}

/// The configuration's files: its own, and those that it names.
fn files(origin: &Origin, config: &Config) -> Vec<PathBuf> {
    let named = config.files().map(Path::to_owned);
    origin.file.clone().into_iter().chain(named).collect()
}

fn of_all(origin: &Origin, config: &Config) -> Fingerprint {
    Fingerprint::of(files(origin, config).iter().map(PathBuf::as_path))
}

/// A configuration, and what its files held.
type Reading = Result<(Config, Fingerprint), String>;

/// Reads the configuration while its file stays the same. Beside it: what the former configuration's files held.
fn read(origin: &Origin, former: &[PathBuf]) -> (Fingerprint, Reading) {
    let file = || Fingerprint::of(origin.file.as_deref());
    let mut tried = Fingerprint::of(former.iter().map(PathBuf::as_path));
    for _ in 0..READINGS_MAX {
        let before = file();
        tried = Fingerprint::of(former.iter().map(PathBuf::as_path));
        let config = (origin.load)();
        let config = config.map(|config| {
            let read_from = of_all(origin, &config);
            (config, read_from)
        });
        if file() == before {
            return (tried, config.map_err(|problems| problems.to_string()));
        }
    }
    let why = "the configuration file changes while it is read; expected one that stands still";
    (tried, Err(why.to_owned()))
}

#[cfg(test)]
mod tests;
