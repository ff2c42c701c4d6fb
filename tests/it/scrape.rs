//! The shipped binary's expositions in the hands of those who read them: curl, gzip, Python, Node, promtool, Prometheus.
//! They need these programs, and some of a minute, so they are asked for: `cargo test --test it scrape -- --ignored`.

#![allow(clippy::unwrap_used, reason = "a test, its helpers included")]
#![allow(clippy::disallowed_methods, reason = "programs that are waited for run in real time")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// `testrun-exporter demo` on a port of its own.
struct Demo {
    process: Child,
    url: String,
}

impl Demo {
    fn start() -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_testrun-exporter"))
            .args([
                "demo",
                "--web.listen-address",
                "127.0.0.1:0",
                "--web.created-timestamps",
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let url = lines
            .map_while(Result::ok)
            .find_map(|line| Some(line.trim().strip_prefix("metrics")?.trim().to_owned()))
            .expect("it says where its metrics are");
        let demo = Self { process, url };
        until("the demo is ready", || {
            demo.get(&[]).contains("testrun_case_results_total{")
        });
        demo
    }

    /// What curl writes to its standard output.
    fn get(&self, arguments: &[&str]) -> String {
        String::from_utf8(run("curl", &[&["-s", &self.url], arguments].concat(), b"")).unwrap()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A program's output; it must succeed.
fn run(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // From a thread: a program may write before it has read all.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.is_empty(),
        "{program} {arguments:?}: {said}"
    );
    output.stdout
}

/// Looks again and again, for two minutes at most.
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(120), "in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(200));
    }
}

const OPEN_METRICS: &str = "Accept: application/openmetrics-text;version=1.0.0";

#[test]
#[ignore = "needs curl, gzip, python3, node and promtool"]
fn every_reader_of_gzip_reads_the_same_member() {
    let demo = Demo::start();
    for accept in ["Accept: */*", OPEN_METRICS] {
        let text = demo.get(&["--compressed", "-H", accept]);
        assert!(text.len() > 50_000 && text.ends_with('\n'));
        let gzip = run(
            "curl",
            &["-s", &demo.url, "-H", accept, "-H", "Accept-Encoding: gzip"],
            b"",
        );
        assert!(gzip.len() * 4 < text.len(), "{} of {}", gzip.len(), text.len());
        let read = run("gzip", &["-dc"], &gzip);
        let python = "import sys,gzip,zlib; data=sys.stdin.buffer.read(); one=zlib.decompressobj(31); text=one.decompress(data); \
                      assert one.eof and not one.unused_data and text==gzip.decompress(data); sys.stdout.buffer.write(text)";
        assert!(run("python3", &["-c", python], &gzip) == read);
        let node = "process.stdout.write(require('zlib').gunzipSync(require('fs').readFileSync(0)))";
        assert!(run("node", &["-e", node], &gzip) == read);
        if accept != OPEN_METRICS {
            run("promtool", &["check", "metrics"], &read);
        }
    }
}

#[test]
#[ignore = "needs curl, and python3 with prometheus_client"]
fn the_python_clients_parser_reads_our_open_metrics() {
    let demo = Demo::start();
    let text = demo.get(&["-H", OPEN_METRICS]);
    let python = "import sys; from prometheus_client.openmetrics.parser import text_string_to_metric_families as read; \
                  families=list(read(sys.stdin.read())); \
                  print(len(families), sum(family.type=='info' for family in families), \
                  *sorted({sample.name for family in families for sample in family.samples if sample.name.endswith('_created')}))";
    let families = String::from_utf8(run("python3", &["-c", python], text.as_bytes())).unwrap();
    let words: Vec<_> = families.trim().split(' ').collect();
    assert!(
        words[0].parse::<usize>().unwrap() >= 40 && words[1].parse::<usize>().unwrap() >= 3,
        "{families}"
    );
    let of_platforms = [
        "case_duration_seconds",
        "case_results",
        "case_retries",
        "run_cases",
        "run_duration_seconds",
        "run_errors",
        "run_queue_duration_seconds",
        "runs",
    ];
    assert_eq!(
        words[2..],
        of_platforms.map(|family| format!("testrun_{family}_created"))
    );
}

/// A Prometheus that scrapes the demo every second.
struct Prometheus {
    process: Child,
    api: String,
    _directory: tempfile::TempDir,
}

impl Prometheus {
    fn start(target: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("prometheus.yml");
        let host = target.strip_prefix("http://").unwrap().split('/').next().unwrap();
        let text = format!(
            "scrape_configs: [{{job_name: demo, scrape_interval: 1s, scrape_timeout: 1s, static_configs: [{{targets: ['{host}']}}]}}]"
        );
        std::fs::write(&config, text).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.path().join("data").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--enable-feature=exemplar-storage")
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            process,
            api: format!("http://127.0.0.1:{port}/api/v1"),
            _directory: directory,
        }
    }

    /// The data of an answer; nothing while it cannot be asked.
    fn ask(&self, query: &str) -> serde_json::Value {
        let output = Command::new("curl")
            .args(["-s", "-G", &format!("{}/{query}", self.api)])
            .output()
            .unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        answer["data"].clone()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
#[ignore = "needs curl and prometheus, and runs of the simulated platforms that finish meanwhile"]
fn a_real_prometheus_finds_the_run_behind_a_count() {
    let demo = Demo::start();
    let prometheus = Prometheus::start(&demo.url);
    until("Prometheus has scraped", || {
        prometheus.ask("query?query=up")["result"][0]["value"][1] == "1"
    });
    let exemplars = |query: &str| {
        let answer = prometheus.ask(&format!("query_exemplars?query={query}&start=0&end=9999999999"));
        answer.as_array().cloned().unwrap_or_default()
    };
    for family in [
        "testrun_runs_total",
        "testrun_case_results_total",
        "testrun_run_duration_seconds_bucket",
    ] {
        until(family, || !exemplars(family).is_empty());
        let found = exemplars(family);
        let run = &found[0]["exemplars"][0]["labels"]["run_id"];
        assert!(run.as_str().is_some_and(|run| run.parse::<u64>().is_ok()), "{found:?}");
    }
    let health = prometheus.ask("targets");
    assert_eq!(health["activeTargets"][0]["lastError"], "", "{health}");
}
