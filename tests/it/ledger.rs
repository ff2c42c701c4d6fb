//! The ledger in virtual time: the real poller, publisher, keeper and ledger on a world that lives on, and a disk that fails
//! and dies at every operation. Whatever dies when, no counter runs backwards and in the end each equals the truth.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use testrun_exporter::app::keep::{Keeper, recover};
use testrun_exporter::app::publish::{Beginning, Change, Member, Publication, Publisher};
use testrun_exporter::health;
use testrun_exporter::metrics::Format;
use testrun_exporter::metrics::own::{BuildInfo, Own, SourceInfo, SourceOwn};
use testrun_exporter::metrics::render::Rendered;
use testrun_exporter::model::{ActiveState, ErrorCode, Name, Notice, RoundResult};
use testrun_exporter::poll::{self, Observer, Poller, Wall, budget, retry};
use testrun_exporter::simulate::{InProcess, Platform, WorldOptions};
use testrun_exporter::sources::empirical::Empirical;
use testrun_exporter::sources::sample_platform::SamplePlatform;
use testrun_exporter::sources::{Discovery, Kind, Progress, Settings, Source};
use testrun_exporter::status::{Shared, SourceStatus, Troubles};
use testrun_exporter::store::ledger::{Disk, Identity, Ledger, SCHEMA};
use testrun_exporter::store::{Limits, SourceSpec, SourceState};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::counters::{Samples, Scrapes, counters};
use crate::exam;

const START: &str = "2026-11-01T00:00:00Z";
const SOURCE: &str = "exam";
const LOOKBACK: Duration = Duration::from_secs(30 * 86_400);

/// A disk in memory that keeps apart what was flushed and what was not.
#[derive(Clone, Default)]
struct SimulatedDisk(Arc<Mutex<Platter>>);

/// What a file holds, and whether it would survive the machine's power.
type File = (Vec<u8>, bool);

#[derive(Default)]
struct Platter {
    /// What is read, by name.
    files: BTreeMap<String, File>,
    /// Renames that the directory has not been flushed after: the name, and what it stood for before.
    renamed: Vec<(String, Option<File>)>,
    operations: usize,
    /// The process dies in this operation.
    dies_at: Option<usize>,
    dead: bool,
    /// How likely an operation fails.
    fails: f64,
    dice: Option<StdRng>,
}

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    /// What was written is there, flushed or not.
    Killed,
    /// What was not flushed is there, or torn, or not there.
    PowerLost,
}

impl Platter {
    fn dice(&mut self) -> f64 {
        self.dice.get_or_insert_with(|| StdRng::seed_from_u64(1)).random()
    }

    /// Before each operation: an error, or how much of it is still done.
    fn operate(&mut self) -> io::Result<f64> {
        self.operations += 1;
        if self.dead {
            return Err(io::Error::other("the process is dead"));
        }
        if self.dies_at == Some(self.operations) {
            self.dead = true;
            return Ok(self.dice());
        }
        let fails = self.fails;
        if fails > 0.0 && self.dice() < fails {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(1.0)
    }

    fn done(&self) -> io::Result<()> {
        if self.dead {
            Err(io::Error::other("the process is dead"))
        } else {
            Ok(())
        }
    }

    /// The next process finds what this end has left.
    fn restart(&mut self, end: End) {
        if end == End::PowerLost {
            // The newest rename is undone first, as far back as the dice say.
            while !self.renamed.is_empty() && self.dice() < 0.5 {
                if let Some((name, before)) = self.renamed.pop() {
                    match before {
                        Some(before) => drop(self.files.insert(name, before)),
                        None => drop(self.files.remove(&name)),
                    }
                }
            }
            let names: Vec<String> = self.files.keys().cloned().collect();
            for name in names {
                let part = self.dice();
                if let Some((content, flushed)) = self.files.get_mut(&name).filter(|(_, flushed)| !flushed) {
                    #[expect(
                        clippy::cast_possible_truncation,
                        clippy::cast_sign_loss,
                        reason = "part of a length"
                    )]
                    #[expect(clippy::cast_precision_loss, reason = "part of a length")]
                    content.truncate((content.len() as f64 * part) as usize);
                    *flushed = true;
                }
            }
        }
        self.renamed.clear();
        self.dead = false;
        self.dies_at = None;
    }
}

impl SimulatedDisk {
    fn with<R>(&self, act: impl FnOnce(&mut Platter) -> R) -> R {
        act(&mut self.0.lock().unwrap())
    }
}

impl Disk for SimulatedDisk {
    fn read(&self, file: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.with(|platter| platter.files.get(file).map(|(content, _)| content.clone())))
    }

    fn write(&self, file: &str, content: &[&[u8]]) -> io::Result<()> {
        let content = content.concat();
        self.with(|platter| {
            let part = platter.operate();
            // A full disk takes the beginning.
            let part = part.as_ref().copied().unwrap_or(0.3);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "part of a length"
            )]
            #[expect(clippy::cast_precision_loss, reason = "part of a length")]
            let written = content[..(content.len() as f64 * part) as usize].to_vec();
            platter.files.insert(file.to_owned(), (written, false));
            if part < 1.0 {
                Err(io::Error::from(io::ErrorKind::StorageFull))
            } else {
                platter.done()
            }
        })
    }

    fn sync(&self, file: &str) -> io::Result<()> {
        self.with(|platter| {
            if platter.operate()? > 0.5
                && let Some((_, flushed)) = platter.files.get_mut(file)
            {
                *flushed = true;
            }
            platter.done()
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.with(|platter| {
            if platter.operate()? > 0.5
                && let Some(content) = platter.files.remove(from)
            {
                let before = platter.files.insert(to.to_owned(), content);
                platter.renamed.push((to.to_owned(), before));
            }
            platter.done()
        })
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.with(|platter| {
            if platter.operate()? > 0.5 {
                platter.renamed.clear();
            }
            platter.done()
        })
    }
}

/// Notes when the round began that was the first to succeed.
struct Watch {
    began: Timestamp,
    first: Arc<Mutex<Option<Timestamp>>>,
}

impl Observer for Watch {
    fn request_sent(&mut self, _endpoint: &'static str, _code: &str, _seconds: f64) {}
    fn retried(&mut self, _reason: retry::Reason) {}
    fn throttled(&mut self, _reason: budget::Reason, _seconds: f64) {}
    fn rate_limit_told(&mut self, _told: budget::Told) {}
    fn round_started(&mut self, at: Timestamp) {
        self.began = at;
    }
    fn round_ended(&mut self, result: RoundResult, _at: Timestamp, _seconds: f64) {
        if result == RoundResult::Success {
            self.first.lock().unwrap().get_or_insert(self.began);
        }
    }
    fn progress(&mut self, _progress: Progress) {}
    fn notice(&mut self, _notice: &Notice) {}
}

fn settings(kind: Kind) -> Settings {
    let discovery = match kind {
        Kind::Empirical => Discovery::RunDetails,
        Kind::SamplePlatform => Discovery::Runs,
    };
    Settings {
        lookback: LOOKBACK,
        ..exam::settings(kind, discovery)
    }
}

/// A process: everything of the daemon between the transport and the web server.
struct Process {
    publication: Arc<Publication>,
    own: Own,
    first: Arc<Mutex<Option<Timestamp>>>,
    restored: bool,
    tasks: JoinSet<()>,
}

impl Process {
    async fn start(kind: Kind, transport: InProcess, disk: &SimulatedDisk, wall: &Wall, budget: usize) -> Self {
        match kind {
            Kind::Empirical => {
                Self::start_with(kind, Empirical::new(settings(kind)), transport, disk, wall, budget).await
            }
            Kind::SamplePlatform => {
                Self::start_with(kind, SamplePlatform::new(settings(kind)), transport, disk, wall, budget).await
            }
        }
    }

    async fn start_with(
        kind: Kind,
        source: impl Source,
        transport: InProcess,
        disk: &SimulatedDisk,
        wall: &Wall,
        series_budget: usize,
    ) -> Self {
        let (first, pace) = (Arc::default(), Duration::from_secs(60));
        let parts = poll::Parts {
            index: 0,
            name: SOURCE.into(),
            settings: poll::Settings {
                interval: pace,
                stale_after: pace * 15,
                requests_per_minute: 6_000.0,
                burst: 600,
            },
            wall: Arc::clone(wall),
            dice: Box::new(|| 0.5),
            observer: Box::new(Watch {
                began: Timestamp::MIN,
                first: Arc::clone(&first),
            }),
            status: Shared::new(SourceStatus::new(SOURCE, wall(), pace)),
        };
        let mut poller = Poller::new(source, transport, parts);
        poller.keep_memory();
        let spec = SourceSpec {
            name: Name::from(SOURCE),
            error_codes: ErrorCode::ALL,
            active_states: ActiveState::ALL,
            limits: Limits {
                cases_max: 10_000,
                retention: LOOKBACK + pace,
                series_ttl: LOOKBACK,
            },
            promotion: None,
            health: health::Settings::default(),
            created_timestamps: true,
        };
        let (own, source_own) = own();
        let ledger = Arc::new(Ledger::new(disk.clone()));
        let remember = |memory: &[u8]| poller.restore(memory);
        let recovered = recover(&ledger, &identity(kind), spec.clone(), remember).unwrap();
        let restored = recovered.state.is_some();
        source_own.found_in_ledger(restored);
        let publication = Arc::new(Publication::default());
        let keeper = Keeper::new(ledger, own.ledger(), Troubles::default());
        let publisher = Publisher::new(Some(keeper), Arc::clone(&publication), Arc::clone(wall));
        let member = Member {
            unit: 0,
            begins: Some(Beginning {
                state: Box::new(recovered.state.unwrap_or_else(|| SourceState::new(spec.clone()))),
                unreadable: recovered.unreadable,
            }),
            spec,
            identity: identity(kind),
            own: source_own,
            lookback: SignedDuration::try_from(LOOKBACK).unwrap(),
            stale_after: SignedDuration::from_hours(10),
        };
        let (sender, updates) = mpsc::channel(64);
        let mut tasks = JoinSet::new();
        let (changer, changes) = mpsc::channel(1);
        tasks.spawn(publisher.run(updates, changes));
        let (done, shown) = oneshot::channel();
        let change = Change {
            members: vec![member],
            series_budget,
            done,
        };
        assert!(changer.send(change).await.is_ok());
        shown.await.unwrap();
        tasks.spawn(async move { drop(poller.run(sender, CancellationToken::new()).await) });
        Self {
            publication,
            own,
            first,
            restored,
            tasks,
        }
    }

    fn text(&self) -> String {
        let rendered = self.publication.rendered.load();
        self.publication.scraped(rendered.generation);
        String::from_utf8(rendered.text.to_text()).unwrap()
    }

    fn open_metrics(&self) -> String {
        String::from_utf8(self.publication.rendered.load().open_metrics.to_text()).unwrap()
    }

    /// A value of the exporter's own metrics.
    fn own_value(&self, name: &str, now: Timestamp) -> Option<f64> {
        let text = self.own.render(now, Format::Text);
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.rsplit_once(' ')?.1.parse().ok()
    }
}

fn own() -> (Own, SourceOwn) {
    let own = Own::new(BuildInfo {
        version: "0",
        revision: "",
        rustc_version: "",
    })
    .unwrap();
    let source = own.source(
        SOURCE,
        &SourceInfo {
            kind: "",
            base_url: "https://exam.test".parse().unwrap(),
            poll_interval: Duration::from_secs(60),
            stale_after: Duration::from_secs(900),
        },
    );
    (own, source)
}

fn identity(kind: Kind) -> Identity {
    Identity {
        name: SOURCE.to_owned(),
        kind: kind.label(),
        base_url: "https://exam.test/".to_owned(),
    }
}

/// What goes wrong in a world.
#[derive(Debug, Clone, Copy)]
struct Trouble {
    kind: Kind,
    seed: u64,
    /// Mean seconds between two kills at a random moment.
    kills: Option<f64>,
    /// The process dies in each of its disk operations in turn: first in the first, the next one in the second...
    dies_in_turn: bool,
    end: End,
    /// How likely a disk operation fails, in every other quarter of an hour.
    fails: f64,
    /// Room for the cases' series.
    series_budget: usize,
}

async fn live_through(trouble: Trouble) {
    let Trouble { kind, seed, .. } = trouble;
    let start: Timestamp = START.parse().unwrap();
    let origin = tokio::time::Instant::now();
    let wall: Wall = Arc::new(move || start + SignedDuration::try_from(origin.elapsed()).unwrap());
    let options = WorldOptions {
        cases: 12,
        runs_before: 20,
        runs_after: Some(60),
        // What was served counts as read, and may be edited from then on: with a reader that dies nobody knows the truth.
        late_edits: 0.0,
        restarts: 0.0,
        ..WorldOptions::exam(kind, seed, start)
    };
    let platform = Arc::new(Mutex::new(Platform::new(kind, options, "secret")));
    platform.lock().unwrap().set_limit(None);
    let transport = InProcess::new(Arc::clone(&platform), Arc::clone(&wall));
    let disk = SimulatedDisk::default();
    let mut dice = StdRng::seed_from_u64(seed);
    disk.with(|platter| platter.dice = Some(StdRng::seed_from_u64(seed + 1_000)));
    let (mut scrapes, mut met, mut quiet, mut deaths) = (Scrapes::default(), None, 0, 0_usize);
    let mut process = Process::start(kind, transport.clone(), &disk, &wall, trouble.series_budget).await;
    for second in 0_u64.. {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let dead = disk.with(|platter| platter.dead);
        if second % 15 == 0 && !dead {
            let when = format!("{trouble:?}, second {second}, {deaths} deaths");
            scrapes.take(&process.text(), &when);
            if second % 300 == 0 {
                scrapes.take_beginnings(&process.open_metrics(), &when);
            }
        }
        if met.is_none() {
            // Until something is kept nothing can be taken back. The first publication shows that there is a source.
            if process.publication.rendered.load().generation <= 1 {
                continue;
            }
            met = *process.first.lock().unwrap();
            disk.with(|platter| platter.dies_at = trouble.dies_in_turn.then_some(platter.operations + 1));
        }
        let settled = platform.lock().unwrap().settled(wall());
        let fails = if settled || second / 900 % 2 == 0 {
            0.0
        } else {
            trouble.fails
        };
        disk.with(|platter| platter.fails = fails);
        let killed = !settled && trouble.kills.is_some_and(|mean| dice.random::<f64>() < 1.0 / mean);
        if dead || killed {
            deaths += 1;
            process.tasks.shutdown().await;
            tokio::time::sleep(Duration::from_secs(dice.random_range(0..900))).await;
            disk.with(|platter| {
                platter.restart(trouble.end);
                let next = platter.operations + 1 + deaths % 8;
                platter.dies_at = (trouble.dies_in_turn && !settled).then_some(next);
            });
            process = Process::start(kind, transport.clone(), &disk, &wall, trouble.series_budget).await;
            assert!(process.restored, "{trouble:?}: death {deaths} has cost the past");
        }
        quiet = if settled && !dead { quiet + 1 } else { 0 };
        // Long enough for every result that the analytics will ever show to be asked for, and for held counts to be shown.
        if quiet > 4 * 3_600 {
            break;
        }
    }
    let label = exam::branches();
    let truth = platform
        .lock()
        .unwrap()
        .truth(met.unwrap(), |branch| label.label(branch).to_string());
    eprintln!(
        "{trouble:?}: {deaths} deaths, {} scrapes, {} runs counted",
        scrapes.taken, truth.counted
    );
    if trouble.series_budget < usize::MAX {
        let folded = process.text();
        assert!(folded.contains("case=\"__other__\""), "there is less room than cases");
        scrapes = scrapes.all_cases_together();
    }
    assert!(scrapes.beginnings() > 20, "counters tell when they began");
    scrapes.compare(&truth, SOURCE, kind);
    assert!(truth.counted > 30 && scrapes.sum("testrun_case_results_total") > 100.0);
    assert!(deaths > 5 || trouble.kills.is_none() && !trouble.dies_in_turn);
    assert_eq!(process.own_value("testrun_exporter_ledger_healthy", wall()), Some(1.0));
    assert_eq!(platform.lock().unwrap().violations(), [] as [String; 0]);
}

const CALM: Trouble = Trouble {
    kind: Kind::Empirical,
    seed: 1,
    kills: None,
    dies_in_turn: false,
    end: End::Killed,
    fails: 0.0,
    series_budget: usize::MAX,
};

/// A world without trouble, and a process on it that has kept something.
struct Scene {
    kind: Kind,
    disk: SimulatedDisk,
    wall: Wall,
    transport: InProcess,
    process: Process,
}

impl Scene {
    async fn new(kind: Kind) -> Self {
        let start: Timestamp = START.parse().unwrap();
        let origin = tokio::time::Instant::now();
        let wall: Wall = Arc::new(move || start + SignedDuration::try_from(origin.elapsed()).unwrap());
        let options = WorldOptions {
            cases: 5,
            runs_before: 10,
            late_edits: 0.0,
            restarts: 0.0,
            ..WorldOptions::exam(kind, 5, start)
        };
        let platform = Arc::new(Mutex::new(Platform::new(kind, options, "secret")));
        platform.lock().unwrap().set_limit(None);
        let transport = InProcess::new(Arc::clone(&platform), Arc::clone(&wall));
        let disk = SimulatedDisk::default();
        let process = Process::start(kind, transport.clone(), &disk, &wall, usize::MAX).await;
        Self {
            kind,
            disk,
            wall,
            transport,
            process,
        }
    }

    /// Lives on, with a scrape every 15 seconds. Gives the last one.
    async fn live(&self, minutes: u64) -> String {
        let mut text = String::new();
        for _ in 0..minutes * 4 {
            tokio::time::sleep(Duration::from_secs(15)).await;
            text = self.process.text();
        }
        text
    }

    async fn restart(&mut self) {
        self.process.tasks.shutdown().await;
        self.process = Process::start(self.kind, self.transport.clone(), &self.disk, &self.wall, usize::MAX).await;
    }

    fn own_value(&self, name: &str) -> Option<f64> {
        self.process.own_value(name, (self.wall)())
    }
}

#[tokio::test(start_paused = true)]
async fn on_a_full_disk_gauges_go_on_and_counters_stand_still_until_they_catch_up() {
    let scene = Scene::new(Kind::Empirical).await;
    let before = scene.live(60).await;
    scene.disk.with(|platter| platter.fails = 1.0);
    let during = scene.live(60).await;
    assert_eq!(
        counters(&during),
        counters(&before),
        "nothing is shown that a crash could take back"
    );
    let last = |text: &str| {
        let lines = text
            .lines()
            .filter(|line| line.starts_with("testrun_last_run_timestamp_seconds{"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_ne!(last(&during), last(&before));
    assert_eq!(scene.own_value("testrun_exporter_ledger_healthy"), Some(0.0));
    assert!(scene.own_value("testrun_exporter_ledger_write_failures_total").unwrap() > 60.0);
    scene.disk.with(|platter| platter.fails = 0.0);
    let after = scene.live(2).await;
    assert!(counters(&after).values().sum::<f64>() > 1.2 * counters(&before).values().sum::<f64>());
    assert_eq!(scene.own_value("testrun_exporter_ledger_healthy"), Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_set_aside_and_a_new_baseline_is_kept() {
    for damage in [&b""[..], b"something else", b"tr-ledgr\xff\0\0\0"] {
        let mut scene = Scene::new(Kind::SamplePlatform).await;
        scene.live(30).await;
        scene.process.tasks.shutdown().await;
        let file = format!("{SOURCE}.ledger");
        scene
            .disk
            .with(|platter| platter.files.insert(file.clone(), (damage.to_vec(), true)));
        scene.restart().await;
        assert!(!scene.process.restored);
        assert_eq!(scene.own_value("testrun_exporter_ledger_restored{"), Some(0.0));
        assert_eq!(scene.own_value("testrun_exporter_ledger_set_aside_total{"), Some(1.0));
        let aside = scene.disk.with(|platter| {
            let mut files = platter.files.iter();
            let aside = files.find(|(name, _)| name.starts_with(&format!("{file}.unreadable-")));
            aside.map(|(_, (content, _))| content.clone())
        });
        assert_eq!(aside.as_deref(), Some(damage), "it is left for people");
        scene.live(30).await;
        scene.restart().await;
        assert!(scene.process.restored, "the new baseline is kept");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_restart_shows_first_is_what_was_shown_last() {
    for kind in [Kind::Empirical, Kind::SamplePlatform] {
        let mut scene = Scene::new(kind).await;
        scene.live(90).await;
        let before = scene.process.publication.rendered.load_full();
        scene.restart().await;
        let after = scene.process.publication.rendered.load_full();
        for format in Format::ALL {
            let text = |rendered: &Rendered| String::from_utf8(rendered.exposition(format).to_text()).unwrap();
            assert_eq!(text(&after), text(&before));
        }
        let exemplars = String::from_utf8(after.open_metrics.to_text()).unwrap();
        assert!(exemplars.contains(" # {"), "the runs that moved counts last are kept");
    }
}

#[tokio::test(start_paused = true)]
async fn what_fell_out_of_the_lookback_is_said_to_be_lost() {
    let mut scene = Scene::new(Kind::Empirical).await;
    scene.live(30).await;
    scene.process.tasks.shutdown().await;
    tokio::time::sleep(LOOKBACK + Duration::from_secs(3_600)).await;
    scene.restart().await;
    scene.live(5).await;
    let lost = scene.own_value("testrun_exporter_lost_seconds_total{").unwrap();
    assert!((3_500.0..3_800.0).contains(&lost), "{lost}");
}

/// By name, the schema. What is added without a new one has a fixture of its own.
const FIXTURES: [(&str, u32); 3] = [("v1", 1), ("v2", 2), ("v2-begun", 2)];

fn fixture(name: &str, kind: Kind, extension: &str) -> std::path::PathBuf {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ledger");
    directory.join(format!("{name}-{}.{extension}", kind.label()))
}

fn as_lines(samples: &Samples) -> String {
    samples
        .iter()
        .map(|(series, value)| format!("{series} {value}\n"))
        .collect()
}

/// When counters began, as a scrape tells it.
fn beginnings(open_metrics: &str) -> String {
    let mut lines: Vec<_> = open_metrics.lines().filter(|line| line.contains("_created{")).collect();
    lines.sort_unstable();
    lines.iter().flat_map(|line| [*line, "\n"]).collect()
}

#[tokio::test(start_paused = true)]
async fn a_ledger_of_every_schema_is_read_for_good() {
    let kinds = [Kind::Empirical, Kind::SamplePlatform];
    assert_eq!(FIXTURES.last().map(|(_, schema)| *schema), Some(SCHEMA));
    for ((name, schema), kind) in FIXTURES
        .into_iter()
        .flat_map(|fixture| kinds.map(|kind| (fixture, kind)))
    {
        let mut scene = Scene::new(kind).await;
        scene.process.tasks.shutdown().await;
        let kept = std::fs::read(fixture(name, kind, "ledger")).unwrap();
        assert_eq!(kept[8..12], schema.to_le_bytes());
        scene
            .disk
            .with(|platter| platter.files.insert(format!("{SOURCE}.ledger"), (kept, true)));
        scene.restart().await;
        let expected = std::fs::read_to_string(fixture(name, kind, "counters")).unwrap();
        assert!(scene.process.restored);
        assert_eq!(as_lines(&counters(&scene.process.text())), expected);
        // Those that did not know of beginnings have no such file.
        let expected = std::fs::read_to_string(fixture(name, kind, "created")).unwrap_or_default();
        assert_eq!(expected.is_empty(), !name.contains("begun"));
        assert_eq!(beginnings(&scene.process.open_metrics()), expected);
    }
}

/// Only ever run when something new is kept and has a name in the list, and never to overwrite the fixture of an old one.
#[tokio::test(start_paused = true)]
#[ignore = "writes the fixtures of the newest ledger"]
async fn write_the_fixtures_of_the_newest_ledger() {
    let (name, _) = FIXTURES[FIXTURES.len() - 1];
    for kind in [Kind::Empirical, Kind::SamplePlatform] {
        let scene = Scene::new(kind).await;
        let text = scene.live(60).await;
        let kept = scene
            .disk
            .with(|platter| platter.files[&format!("{SOURCE}.ledger")].0.clone());
        std::fs::create_dir_all(fixture(name, kind, "ledger").parent().unwrap()).unwrap();
        std::fs::write(fixture(name, kind, "ledger"), kept).unwrap();
        std::fs::write(fixture(name, kind, "counters"), as_lines(&counters(&text))).unwrap();
        std::fs::write(
            fixture(name, kind, "created"),
            beginnings(&scene.process.open_metrics()),
        )
        .unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn killed_at_random_moments_nothing_is_lost_and_nothing_counted_twice() {
    for kind in [Kind::Empirical, Kind::SamplePlatform] {
        for seed in 1..=3 {
            live_through(Trouble {
                kind,
                seed,
                kills: Some(400.0),
                ..CALM
            })
            .await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn dying_in_every_disk_operation_in_turn_costs_nothing() {
    for kind in [Kind::Empirical, Kind::SamplePlatform] {
        for end in [End::Killed, End::PowerLost] {
            live_through(Trouble {
                kind,
                seed: 11,
                dies_in_turn: true,
                end,
                ..CALM
            })
            .await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_now_and_then_costs_nothing_even_if_the_process_dies_meanwhile() {
    for kind in [Kind::Empirical, Kind::SamplePlatform] {
        for (seed, fails) in [(21, 0.3), (22, 1.0)] {
            live_through(Trouble {
                kind,
                seed,
                kills: Some(600.0),
                end: End::PowerLost,
                fails,
                ..CALM
            })
            .await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn with_room_for_few_cases_nothing_is_lost_and_nothing_counted_twice_either() {
    for kind in [Kind::Empirical, Kind::SamplePlatform] {
        for (seed, series_budget, fails) in [(31, 60, 0.0), (32, 150, 0.3), (33, 260, 1.0)] {
            live_through(Trouble {
                kind,
                seed,
                kills: Some(500.0),
                end: End::PowerLost,
                fails,
                series_budget,
                ..CALM
            })
            .await;
        }
    }
}
