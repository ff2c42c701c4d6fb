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
use tracing::level_filters::LevelFilter;

use super::publish::Change;
use super::unit::{AnyDesk, AnyPoller, Changed, Difference, Draft, Former, Kept, Unit, ca};
use super::view::SourceView;
use super::wall;
use crate::config::{Config, Fingerprint, Problems, SourceConfig, Watch};
use crate::logging::{LEVELS, Volume};
use crate::metrics::own::Own;
use crate::poll::{Gate, Message};
use crate::status::{Trouble, Troubles};

/// How often the configuration's files are looked at: soon enough for a person who waits for it, and reading a few small
/// files costs nothing. A change is taken when two looks have found the same.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A configuration that changes under each of so many readings is not read. It is read once more when it names other files
/// than before: only then is it known which ones have to stand still.
const READINGS_MAX: usize = 4;

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
    difference: impl Fn(&T, usize) -> Difference,
) -> Plan {
    let places: HashMap<&str, usize> = running
        .iter()
        .enumerate()
        .map(|(place, unit)| (name(unit), place))
        .collect();
    let steps: Vec<_> = next
        .iter()
        .enumerate()
        .map(|(at, config)| match places.get(&*config.name) {
            Some(&place) => match difference(&running[place], at) {
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
    /// From one to another.
    series_budget: Option<(usize, usize)>,
    level: Option<(LevelFilter, LevelFilter)>,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            added,
            removed,
            changed,
            unchanged,
            series_budget,
            level,
        } = self;
        write!(
            f,
            "sources: {added} added, {removed} removed, {changed} changed, {unchanged} unchanged"
        )?;
        if let Some((before, after)) = series_budget {
            write!(f, "; series_budget: {after} instead of {before}")?;
        }
        if let Some((before, after)) = level {
            let word = |level: &LevelFilter| {
                LEVELS
                    .iter()
                    .find(|(_, known)| known == level)
                    .map_or("", |known| known.0)
            };
            write!(f, "; log.level: {} instead of {}", word(after), word(before))?;
        }
        Ok(())
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
        let authorities = away(config.sources.clone(), |sources| {
            sources.iter().map(ca).collect::<Vec<_>>()
        })
        .await?;
        let plan = plan(
            &self.units,
            &config.sources,
            |unit| &unit.config.name,
            |unit, at| unit.difference(&config.sources[at], authorities[at]),
        );
        let prepared = self.prepare(&plan, config, authorities).await?;
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
    async fn prepare(
        &mut self,
        plan: &Plan,
        config: &Config,
        authorities: Vec<Option<Fingerprint>>,
    ) -> anyhow::Result<Vec<Prepared>> {
        let first = self.next_number;
        self.next_number += plan.steps.len();
        let sources = config.sources.clone().into_iter().zip(authorities);
        let steps: Vec<_> = plan.steps.iter().copied().zip(sources).collect();
        let (own, kept) = (self.own.clone(), self.kept.clone());
        let prepare = move |steps: Vec<(Step, (SourceConfig, Option<Fingerprint>))>| {
            let prepared = (first..).zip(steps).map(|(number, (step, (source, ca)))| {
                let name = source.name.clone();
                let prepared = match step {
                    Step::Keep(place) => Ok(Prepared::Keep(place)),
                    Step::Change {
                        place,
                        connection,
                        reading,
                    } => Changed::of(source, ca, connection, reading)
                        .map(|changed| Prepared::Change(place, Box::new(changed))),
                    Step::Add => {
                        Draft::of(source, ca, number, &own, kept.as_ref()).map(|draft| Prepared::Add(Box::new(draft)))
                    }
                };
                prepared.with_context(|| format!("source {name}"))
            });
            prepared.collect()
        };
        away(steps, prepare).await?
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
    troubles: Troubles,
    looked: Looked,
}

/// The files that are looked at, and what has been seen of them.
struct Looked {
    files: Vec<PathBuf>,
    watch: Watch,
}

impl Looked {
    /// They are as they were read.
    fn at(files: Vec<PathBuf>) -> Self {
        let watch = Watch::new(print(&files));
        Self { files, watch }
    }
}

impl Reloader {
    /// The team is at work under this configuration.
    pub(super) async fn new(team: Team, running: Config, origin: Option<Origin>, troubles: Troubles) -> Self {
        let origin = origin.map(Arc::new);
        let looked = match &origin {
            Some(origin) => away((Arc::clone(origin), origin.files(running.files())), first_look)
                .await
                .ok(),
            None => None,
        };
        Self {
            team,
            running,
            origin,
            troubles,
            looked: looked.unwrap_or_else(|| Looked::at(Vec::new())),
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
        if self.origin.is_none() {
            return false;
        }
        let found = away(self.looked.files.clone(), |files| print(&files)).await;
        found.is_ok_and(|found| self.looked.watch.look(found))
    }

    /// Reads the configuration anew and goes over to it, or says why not.
    async fn reload(&mut self) -> Result<String, String> {
        let outcome = self.try_reload().await;
        let now = wall();
        self.team.own.config_loaded(now, outcome.is_ok());
        self.troubles
            .note(Trouble::Configuration, now, outcome.as_ref().err().cloned());
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
        let files = self.looked.files.clone();
        let read = away((origin, files), |(origin, files)| read(&origin, files)).await;
        let Reading { config, looked } = read.map_err(|error| error.to_string())?;
        // It may name other files; and of one that is refused, any of them may be what has to be mended.
        self.looked = looked;
        let config = config?;
        let place = self
            .origin
            .as_ref()
            .and_then(|origin| Some(origin.file.as_ref()?.display().to_string()));
        let place = place.as_deref().unwrap_or("configuration");
        self.running
            .admits(&config, place)
            .map_err(|problems| problems.to_string())?;
        let mut summary = self.team.adopt(&config).await.map_err(|error| format!("{error:#}"))?;
        let (before, after) = (&self.running, &config);
        summary.series_budget = changed(before.series_budget, after.series_budget);
        summary.level = changed(before.log.level, after.log.level);
        if let Some(origin) = &self.origin {
            origin.volume.set(config.log.level);
        }
        self.running = config;
        Ok(summary)
    }
}

fn changed<T: PartialEq>(before: T, after: T) -> Option<(T, T)> {
    (before != after).then_some((before, after))
}

impl Origin {
    /// The configuration's files: its own, and those that it names.
    fn files<'a>(&self, named: impl Iterator<Item = &'a Path>) -> Vec<PathBuf> {
        self.file.clone().into_iter().chain(named.map(Path::to_owned)).collect()
    }
}

/// On a thread that may wait for a disk.
async fn away<T: Send + 'static, R: Send + 'static>(
    what: T,
    act: impl FnOnce(T) -> R + Send + 'static,
) -> Result<R, tokio::task::JoinError> {
    tokio::task::spawn_blocking(move || act(what)).await
}

fn print(files: &[PathBuf]) -> Fingerprint {
    Fingerprint::of(files.iter().map(PathBuf::as_path))
}

/// If the file has changed since it was read, it is as if it changed now.
fn first_look((origin, files): (Arc<Origin>, Vec<PathBuf>)) -> Looked {
    if Fingerprint::of(origin.file.as_deref()) == origin.read_from {
        Looked::at(files)
    } else {
        Looked {
            files,
            watch: Watch::new(origin.read_from),
        }
    }
}

/// A configuration, or what is wrong with it, and the files that it was read from.
struct Reading {
    config: Result<Config, String>,
    looked: Looked,
}

/// Reads the configuration while its files stay the same. `files`: those that it named when it was read last.
fn read(origin: &Origin, files: Vec<PathBuf>) -> Reading {
    let mut before = Looked::at(files);
    for _ in 0..READINGS_MAX {
        let config = (origin.load)();
        let files = match &config {
            Ok(config) => origin.files(config.files()),
            Err(problems) => origin.files(problems.files()),
        };
        let after = Looked::at(files);
        if after.watch == before.watch {
            let config = config.map_err(|problems| problems.to_string());
            return Reading { config, looked: after };
        }
        before = after;
    }
    let why = "the configuration's files change while they are read; expected some that stand still";
    Reading {
        config: Err(why.to_owned()),
        looked: before,
    }
}

#[cfg(test)]
mod tests;
