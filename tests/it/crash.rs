//! The shipped binary, killed with SIGKILL at random moments on simulated platforms that live on: no counter that anybody
//! has scraped ever runs backwards, and in the end each equals the truth.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use testrun_exporter::simulate::{self, NowFn, Platform, Truth, WorldOptions};
use testrun_exporter::sources::Kind;
use tokio_util::sync::CancellationToken;

use crate::counters::Scrapes;

/// Far more than a slow machine needs; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(120);

#[expect(clippy::disallowed_methods, reason = "real sockets live in real time")]
fn wall() -> Timestamp {
    Timestamp::now()
}

#[expect(clippy::disallowed_methods, reason = "real sockets live in real time")]
fn clock() -> Instant {
    Instant::now()
}

#[expect(
    clippy::disallowed_methods,
    reason = "between two looks at another process, or until it is killed"
)]
fn pause(length: Duration) {
    std::thread::sleep(length);
}

/// Two worlds on real sockets. They stand still until they are let go.
struct Worlds {
    platforms: Vec<(Kind, Arc<Mutex<Platform>>, String)>,
    start: Timestamp,
    released: Arc<AtomicBool>,
    _runtime: tokio::runtime::Runtime,
}

impl Worlds {
    fn new(seed: u64) -> Self {
        let (start, released) = (wall(), Arc::new(AtomicBool::new(false)));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let platforms = [Kind::Empirical, Kind::SamplePlatform].map(|kind| {
            let options = WorldOptions {
                cases: 12,
                runs_before: 20,
                run_interval: Duration::from_millis(700),
                run_duration: Duration::from_millis(1_500),
                queue_wait: Duration::from_millis(300),
                analytics_lag: (Duration::ZERO, Duration::from_millis(500)),
                ..WorldOptions::new(kind, seed, start)
            };
            let platform = Arc::new(Mutex::new(Platform::new(kind, options, "spci_secret")));
            platform.lock().unwrap().set_limit(None);
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            let base = platform.lock().unwrap().base_path();
            let url = format!("http://{}{base}", listener.local_addr().unwrap());
            let (served, released) = (Arc::clone(&platform), Arc::clone(&released));
            let now: NowFn = Arc::new(move || if released.load(Ordering::SeqCst) { wall() } else { start });
            runtime.spawn(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                simulate::serve(listener, served, now, CancellationToken::new()).await
            });
            (kind, platform, url)
        });
        Self {
            platforms: platforms.into(),
            start,
            released,
            _runtime: runtime,
        }
    }

    fn truth(&self, place: usize) -> (Kind, Truth) {
        let (kind, platform, _) = &self.platforms[place];
        let mut platform = platform.lock().unwrap();
        platform.advance(wall());
        let label = |branch: Option<&str>| match branch {
            Some(name @ ("main" | "master")) => name.to_owned(),
            _ => "__other__".to_owned(),
        };
        (*kind, platform.truth(self.start, label))
    }

    /// What is not counted as it should be.
    fn wrong(&self, scrapes: &Scrapes) -> Vec<String> {
        let wrong = |place| {
            let (kind, truth) = self.truth(place);
            scrapes.differences(&truth, kind.label(), kind)
        };
        (0..self.platforms.len()).flat_map(wrong).collect()
    }

    /// Whether a first scrape shows that both have been met, and written to the ledger.
    fn are_kept(&self, text: &str) -> bool {
        count(text, "testrun_exporter_ledger_last_write_timestamp_seconds{", "") == self.platforms.len()
    }

    fn come_to_rest(&self) {
        for (_, platform, _) in &self.platforms {
            platform.lock().unwrap().stop_creating_runs_at(wall());
        }
    }

    fn settled(&self) -> bool {
        let settled = |(_, platform, _): &(_, Arc<Mutex<Platform>>, _)| platform.lock().unwrap().settled(wall());
        self.platforms.iter().all(settled)
    }

    fn configuration(&self, directory: &Path) -> PathBuf {
        let mut text = format!(
            "state: {{ directory: {} }}\nsources:\n",
            directory.join("state").display()
        );
        for (kind, _, url) in &self.platforms {
            let kind_word = kind.label();
            let lag = if *kind == Kind::Empirical {
                "analytics_lag: 1s"
            } else {
                "max: 1000"
            };
            text += &format!(
                "  {kind_word}:\n    kind: {kind_word}\n    base_url: {url}\n    token: spci_secret\n    poll_interval: 1s\n    \
                 rate_limit: {{ requests_per_minute: 6000, burst: 1000 }}\n    cases: {{ {lag} }}\n"
            );
        }
        let path = directory.join("config.yaml");
        std::fs::write(&path, text).unwrap();
        path
    }
}

/// The shipped binary.
struct Exporter {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Exporter {
    fn start(config: &Path, address: SocketAddr, path: &Path) -> Self {
        let log = std::fs::File::options().create(true).append(true).open(path).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_testrun-exporter"))
            .env_clear()
            .arg("--config.file")
            .arg(config)
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self {
            child,
            address,
            log: path.to_owned(),
        }
    }

    /// A whole scrape, if it answers.
    fn scrape(&self) -> Option<String> {
        let mut stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let length = head
            .lines()
            .find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-length: ")
                    .map(str::to_owned)
            })
            .expect("the whole text is there before it is sent");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        // A process that dies while it answers leaves a part, which Prometheus throws away.
        (body.len() == length.parse::<usize>().unwrap()).then(|| body.to_owned())
    }

    /// Asks again and again until a scrape is as it should be.
    fn until(&mut self, what: &str, mut done: impl FnMut(&str) -> bool) {
        let began = clock();
        while !self.scrape().is_some_and(|text| done(&text)) {
            let ended = self.child.try_wait().unwrap();
            if ended.is_some() || began.elapsed() > PATIENCE {
                let log = std::fs::read_to_string(&self.log).unwrap();
                let last: Vec<&str> = log.lines().rev().take(20).collect();
                panic!(
                    "not {what} (ended: {ended:?}); its last words, newest first:\n{}",
                    last.join("\n")
                );
            }
            pause(Duration::from_millis(50));
        }
    }

    /// SIGKILL.
    fn kill(mut self) {
        self.child.kill().unwrap();
        assert_eq!(self.child.wait().unwrap().signal(), Some(9), "it was still alive");
    }

    /// SIGTERM, which it obeys at once.
    fn terminate(mut self) {
        let began = clock();
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Two worlds, and a process on them that is killed so many times at random moments. Until they have come to rest, and when
/// they have, every counter that was seen is the truth. `watch` begins to scrape at an address, `live` lets a length of time go by
/// with a process that runs, and `seen` gives what has been seen so far.
fn course<W>(
    kills: usize,
    seed: u64,
    watch: impl FnOnce(SocketAddr) -> W,
    mut live: impl FnMut(&mut W, &Exporter, Duration, &str),
    seen: impl Fn(&W) -> Scrapes,
) -> W {
    let worlds = Worlds::new(seed);
    let directory = tempfile::tempdir().unwrap();
    let (config, address) = (worlds.configuration(directory.path()), free_address());
    let log = directory.path().join("log");
    let mut dice = StdRng::seed_from_u64(seed);
    let mut exporter = Exporter::start(&config, address, &log);
    exporter.until("both worlds are met, and kept", |text| worlds.are_kept(text));
    let mut watcher = watch(address);
    worlds.released.store(true, Ordering::SeqCst);
    for kill in 1..=kills {
        let life = Duration::from_millis(dice.random_range(20..2_500));
        live(&mut watcher, &exporter, life, &format!("before kill {kill}"));
        exporter.kill();
        pause(Duration::from_millis(dice.random_range(0..300)));
        exporter = Exporter::start(&config, address, &log);
    }
    worlds.come_to_rest();
    let began = clock();
    loop {
        let wrong = worlds.wrong(&seen(&watcher));
        if wrong.is_empty() && worlds.settled() {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "after {kills} kills:\n{}", wrong.join("\n"));
        live(
            &mut watcher,
            &exporter,
            Duration::from_millis(500),
            "after the last kill",
        );
    }
    live(&mut watcher, &exporter, Duration::from_secs(4), "at rest");
    assert_eq!(
        worlds.wrong(&seen(&watcher)),
        [] as [String; 0],
        "nor is anything counted again"
    );
    exporter.terminate();
    watcher
}

/// A dozen kills need no more than the test's own scrapes.
fn crash(kills: usize, seed: u64) {
    let mut dice = StdRng::seed_from_u64(!seed);
    let live = |scrapes: &mut Scrapes, exporter: &Exporter, life: Duration, when: &str| {
        let began = clock();
        while began.elapsed() < life {
            if let Some(text) = exporter.scrape() {
                scrapes.take(&text, when);
                let anew = count(&text, "testrun_exporter_ledger_restored{", " 0");
                assert!(anew == 0 || when == "before kill 1", "{when}: the past is lost");
            }
            pause(Duration::from_millis(dice.random_range(1..40)));
        }
    };
    let scrapes = course(kills, seed, |_| Scrapes::default(), live, Scrapes::clone);
    assert!(
        scrapes.sum("testrun_case_results_total") > 50.0,
        "there was something to count"
    );
}

/// The same while somebody else scrapes, and nobody but him: `watch` is told where, and `seen` gives what has
/// been seen so far.
pub(crate) fn crash_watched<W>(
    kills: usize,
    seed: u64,
    watch: impl FnOnce(SocketAddr) -> W,
    seen: impl Fn(&W) -> Scrapes,
) -> W {
    course(kills, seed, watch, |_, _, life, _| pause(life), seen)
}

fn count(text: &str, prefix: &str, suffix: &str) -> usize {
    text.lines()
        .filter(|line| line.starts_with(prefix) && line.ends_with(suffix))
        .count()
}

#[test]
fn a_dozen_kills_at_random_moments_cost_nothing() {
    crash(12, 1);
}

#[test]
fn a_second_process_on_the_same_directory_refuses() {
    let worlds = Worlds::new(3);
    let directory = tempfile::tempdir().unwrap();
    let config = worlds.configuration(directory.path());
    let mut first = Exporter::start(&config, free_address(), &directory.path().join("first"));
    first.until("it serves", |_| true);
    let log = directory.path().join("second");
    let mut second = Exporter::start(&config, free_address(), &log);
    assert_eq!(second.child.wait().unwrap().code(), Some(1));
    let told = std::fs::read_to_string(log).unwrap();
    assert!(told.contains("another process is using it"), "{told}");
    first.terminate();
}
