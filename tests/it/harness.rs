//! What the tests of the shipped binary have in common: simulated platforms on real loopback sockets, the binary as a child
//! process, a client and a parser. Nothing here has a fixed port, and nothing waits without a deadline.
//!
//! Every simulated platform judges its client: when one is dropped, a broken rule (a method, a path, the budget, a pause,
//! two requests at once) fails the test that used it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tempfile::TempDir;
use testrun_exporter::simulate::{Limit, Platform, WorldOptions, serve};
use testrun_exporter::sources::Kind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// The longest that a test waits for what must happen. Far above what it takes: the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// A scrape is answered at once, whatever upstream does. The bound is generous because many tests share the processor.
pub(crate) const SCRAPE_MAX: Duration = Duration::from_secs(2);
/// What the tests' sources promise to stay below; the simulators hold them to it.
const REQUESTS_PER_MINUTE: u32 = 6000;
const BURST: u32 = 100;
/// Results that are not there when they are first asked for are asked for again a minute later: too long for a test.
const ABOVE_THE_WORLDS_LAG: &str = "    cases: { analytics_lag: 3s }\n";

/// The wall clock: the binary's data are of today, so the worlds are too.
#[expect(clippy::disallowed_methods, reason = "a test of a real process lives in real time")]
pub(crate) fn wall() -> Timestamp {
    Timestamp::now()
}

/// Waits until a condition gives a value.
pub(crate) async fn wait_for<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = look().await {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        sleep(LOOK).await;
    }
}

/// A small world that ends within seconds: history, then runs that differ in all that a counter can show.
pub(crate) fn short_world(kind: Kind, seed: u64) -> WorldOptions {
    WorldOptions {
        cases: 12,
        runs_before: 20,
        history: Duration::from_hours(5 * 24),
        runs_after: Some(15),
        run_interval: Duration::from_millis(500),
        run_duration: Duration::from_secs(2),
        queue_wait: Duration::from_secs(1),
        analytics_lag: (Duration::from_millis(100), Duration::from_secs(2)),
        errors: 0.15,
        cancels: 0.1,
        reruns: 0.2,
        nulls: 0.1,
        ..WorldOptions::new(kind, seed, wall())
    }
}

/// A world where nothing happens any more, and whose last runs tell of every case.
pub(crate) fn quiet_world(kind: Kind) -> WorldOptions {
    WorldOptions {
        runs_after: Some(0),
        errors: 0.0,
        cancels: 0.0,
        reruns: 0.0,
        ..short_world(kind, 7)
    }
}

/// A simulated platform that listens.
pub(crate) struct Upstream {
    pub(crate) kind: Kind,
    platform: Arc<Mutex<Platform>>,
    address: SocketAddr,
    running: CancellationToken,
}

impl Upstream {
    pub(crate) async fn start(options: WorldOptions, kind: Kind, token: &str) -> Self {
        let mut platform = Platform::new(kind, options, token);
        platform.set_limit(Some(Limit::per_minute(REQUESTS_PER_MINUTE)));
        platform.expect_budget(f64::from(REQUESTS_PER_MINUTE), BURST);
        let platform = Arc::new(Mutex::new(platform));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (address, running) = (listener.local_addr().unwrap(), CancellationToken::new());
        tokio::spawn(serve(listener, Arc::clone(&platform), Arc::new(wall), running.clone()));
        Self {
            kind,
            platform,
            address,
            running,
        }
    }

    /// A platform of a world where nothing happens.
    pub(crate) async fn quiet(kind: Kind, token: &str) -> Self {
        Self::start(quiet_world(kind), kind, token).await
    }

    /// Its state. Not to be held over an await: it answers nothing meanwhile.
    pub(crate) fn platform(&self) -> MutexGuard<'_, Platform> {
        self.platform.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://{}{}", self.address, self.platform().base_path())
    }

    /// How many requests it has been asked.
    pub(crate) fn requests(&self) -> usize {
        self.platform().journal().entries().len()
    }

    /// When the run list was first answered: what finished before is the baseline.
    pub(crate) fn first_met(&self) -> Timestamp {
        let platform = self.platform();
        let mut entries = platform.journal().entries().iter();
        entries.find(|entry| entry.status == 200).unwrap().at
    }

    /// This platform as a source of a configuration. `more` are further lines of YAML, each with its indent of four.
    pub(crate) fn source(&self, name: &str, credential: &str, more: &str) -> String {
        let mut yaml = format!(
            "  {name}:\n    kind: {}\n    base_url: {}\n    {credential}\n    poll_interval: 1s\n    \
             rate_limit: {{ requests_per_minute: {REQUESTS_PER_MINUTE}, burst: {BURST} }}\n{more}",
            self.kind.label(),
            self.base_url(),
        );
        if self.kind == Kind::Empirical {
            yaml.push_str(ABOVE_THE_WORLDS_LAG);
        }
        yaml
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.running.cancel();
        let platform = self.platform();
        if !std::thread::panicking() {
            assert_eq!(platform.violations(), [] as [String; 0], "the exporter broke a rule");
        }
    }
}

/// A configuration file in a directory of its own.
pub(crate) struct Files {
    directory: TempDir,
}

impl Files {
    pub(crate) fn new(sources: &[String]) -> Self {
        let files = Self {
            directory: TempDir::new().unwrap(),
        };
        let sources = sources.concat();
        files.write(
            "config.yaml",
            &format!("web: {{ listen_address: '127.0.0.1:0' }}\nsources:\n{sources}"),
        );
        files
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes as careful tools do: whoever reads sees the old content or the new one.
    pub(crate) fn write(&self, name: &str, content: &str) {
        let draft = self.path("draft");
        fs::write(&draft, content).unwrap();
        fs::rename(draft, self.path(name)).unwrap();
    }

    pub(crate) fn config(&self) -> String {
        format!("--config.file={}", self.path("config.yaml").display())
    }

    pub(crate) fn root(&self) -> &Path {
        self.directory.path()
    }
}

/// The shipped binary, with nothing of this process's environment.
pub(crate) fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_testrun-exporter"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

/// How a command ended and what it has written.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command to its end, without keeping the simulated platforms from answering.
pub(crate) async fn output(mut command: Command) -> Ended {
    let run = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = timeout(PATIENCE, run).await.expect("the command ends").unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// A program that runs until it is dropped. Its output goes to files, so that it never waits for a reader.
pub(crate) struct Process {
    child: Child,
    directory: TempDir,
}

impl Process {
    pub(crate) fn start(mut command: Command) -> Self {
        let directory = TempDir::new().unwrap();
        let file = |name| File::create(directory.path().join(name)).unwrap();
        let child = command.stdout(file("stdout")).stderr(file("stderr")).spawn().unwrap();
        Self { child, directory }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn stdout(&self) -> String {
        self.read("stdout")
    }

    pub(crate) fn log(&self) -> String {
        self.read("stderr")
    }

    fn read(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.directory.path().join(name)).unwrap()).into_owned()
    }

    /// Sends a signal by its name without SIG.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.id();
        // The shell's own `kill`: a small system has no other.
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -{name} {id}")])
            .status()
            .unwrap();
        assert!(sent.success(), "SIG{name} to {id}");
    }

    /// Waits for the end.
    pub(crate) async fn ended(&mut self, within: Duration) -> ExitStatus {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "still running after {within:?}\n{}",
                self.log()
            );
            sleep(LOOK).await;
        }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of process {}\n{}", self.child.id(), self.log());
        }
    }
}

/// The daemon, listening.
pub(crate) struct Exporter {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
}

impl Exporter {
    pub(crate) async fn start(files: &Files) -> Self {
        Self::start_with(program(&[&files.config(), "--log.level=debug"])).await
    }

    /// The address is read from the log: the port is the system's choice.
    pub(crate) async fn start_with(command: Command) -> Self {
        let mut process = Process::start(command);
        let address = wait_for("the exporter says where it listens", async || {
            assert!(process.is_running(), "it ended instead:\n{}", process.log());
            let log = process.log();
            let line = log.lines().find(|line| line.contains("msg=listening"))?;
            let word = line.split(' ').find_map(|word| word.strip_prefix("address="))?;
            Some(word.parse().unwrap())
        })
        .await;
        Self { process, address }
    }

    pub(crate) async fn get(&self, path: &str) -> Page {
        get(self.address, path).await
    }

    /// Scrapes, and holds the exporter to its promise that a scrape never waits.
    pub(crate) async fn scrape(&self) -> Samples {
        let since = Instant::now();
        let page = self.get("/metrics").await;
        assert!(since.elapsed() < SCRAPE_MAX, "a scrape took {:?}", since.elapsed());
        assert_eq!(page.status, 200);
        Samples::parse(&page.body)
    }

    /// Scrapes until the samples fulfil a condition.
    pub(crate) async fn wait_until(&self, what: &str, fulfilled: impl Fn(&Samples) -> bool) -> Samples {
        wait_for(what, async || {
            let samples = self.scrape().await;
            fulfilled(&samples).then_some(samples)
        })
        .await
    }

    /// Waits for so many further rounds of a source with this result.
    pub(crate) async fn rounds(&self, source: &str, result: &str, more: u32) -> Samples {
        let before = self.scrape().await.rounds(source, result);
        let what = format!("{more} more rounds of {source} with result {result}");
        self.wait_until(&what, |samples| {
            samples.rounds(source, result) >= before + f64::from(more)
        })
        .await
    }

    /// Waits until there has been a round of a source with this result, perhaps long ago.
    pub(crate) async fn had_round(&self, source: &str, result: &str) -> Samples {
        let what = format!("a round of {source} with result {result}");
        self.wait_until(&what, |samples| samples.rounds(source, result) > 0.0)
            .await
    }

    pub(crate) async fn wait_for_log(&self, words: &str) {
        wait_for(&format!("{words:?} in the log"), async || {
            self.process.log().contains(words).then_some(())
        })
        .await;
    }
}

/// An HTTP answer.
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// One GET.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Page {
    ask(address, &format!("GET {path}"), "").await
}

/// One request. HTTP/1.0, so that the body ends with the connection and needs no decoding. `headers`: whole lines.
pub(crate) async fn ask(address: SocketAddr, method_and_path: &str, headers: &str) -> Page {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{method_and_path} HTTP/1.0\r\nHost: {address}\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    };
    let answer = timeout(PATIENCE, exchange).await.expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Page {
        status,
        body: body.to_owned(),
    }
}

pub(crate) type Labels = BTreeMap<String, String>;

/// An exposition, read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Samples(BTreeMap<(String, Labels), f64>);

impl Samples {
    /// Reads the text format; fails the test at anything that is not in it, and at a series that is told twice.
    pub(crate) fn parse(text: &str) -> Self {
        let mut samples = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (name, labels, value) = parse_line(line).unwrap_or_else(|| panic!("not a sample: {line}"));
            let told = samples.insert((name, labels), value);
            assert!(told.is_none(), "told twice: {line}");
        }
        Self(samples)
    }

    /// The series of this name with (at least) these labels.
    pub(crate) fn of<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = (&'a Labels, f64)> {
        self.0
            .iter()
            .filter(move |((known, _), _)| known == name)
            .map(|((_, known), value)| (known, *value))
            .filter(move |(known, _)| {
                labels
                    .iter()
                    .all(|(key, value)| known.get(*key).is_some_and(|known| known == value))
            })
    }

    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.of(name, labels).map(|(_, value)| value).sum()
    }

    /// The one series of this name with these labels.
    pub(crate) fn one(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut found = self.of(name, labels);
        let value = found.next()?.1;
        assert!(found.next().is_none(), "more than one {name} with {labels:?}");
        Some(value)
    }

    pub(crate) fn up(&self, source: &str) -> Option<f64> {
        self.one("testrun_up", &[("source", source)])
    }

    /// How many rounds of a source have ended with this result.
    pub(crate) fn rounds(&self, source: &str, result: &str) -> f64 {
        let labels = [("source", source), ("result", result)];
        self.sum("testrun_exporter_rounds_total", &labels)
    }

    /// What upstream told, without the exporter's own health: the part that must not change while upstream is away.
    pub(crate) fn data(&self, source: &str) -> Self {
        let is_data =
            |name: &str| name.starts_with("testrun_") && !name.starts_with("testrun_exporter_") && name != "testrun_up";
        let of_source = |labels: &Labels| labels.get("source").is_some_and(|known| known == source);
        let mut data = self.0.clone();
        data.retain(|(name, labels), _| is_data(name) && of_source(labels));
        Self(data)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// What differs, for people.
    pub(crate) fn difference(&self, other: &Self) -> String {
        let mut text = String::new();
        for (key, value) in &self.0 {
            if other.0.get(key) != Some(value) {
                let _ = writeln!(text, "{key:?}: {value} and {:?}", other.0.get(key));
            }
        }
        for (key, value) in &other.0 {
            if !self.0.contains_key(key) {
                let _ = writeln!(text, "{key:?}: nothing and {value}");
            }
        }
        text
    }
}

fn parse_line(line: &str) -> Option<(String, Labels, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Labels::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (label, value) = rest.split_once("=\"")?;
            let (value, after) = parse_label_value(value)?;
            labels.insert(label.to_owned(), value);
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let value = match rest.strip_prefix(' ')? {
        "+Inf" => f64::INFINITY,
        value => value.parse().ok()?,
    };
    Some((name.to_owned(), labels, value))
}

/// The value up to its closing quote, and what follows that.
fn parse_label_value(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((place, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[place + 1..])),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

#[test]
fn the_parser_reads_labels_with_everything_that_is_escaped() {
    let samples = Samples::parse("# HELP a b\na 1\nb{c=\"d \\\"e\\\", \\\\ f}\\n\",g=\"\"} +Inf\n");
    assert_eq!(samples.one("a", &[]), Some(1.0));
    assert_eq!(
        samples.one("b", &[("c", "d \"e\", \\ f}\n"), ("g", "")]),
        Some(f64::INFINITY)
    );
}
