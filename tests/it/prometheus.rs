//! Real Prometheus servers scrape the shipped binary on simulated platforms: what they have stored is what happened.
//!
//! The servers are the one that `PATH` finds and one in each directory that `TESTRUN_PROMETHEUS_DIRS` lists (separated by
//! colons; the programs may be below `usr/bin`). `tests/scripts/install-prometheus.sh` brings two.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use testrun_exporter::model::RunOutcome;
use testrun_exporter::simulate::{Truth, WorldOptions};
use testrun_exporter::sources::Kind;

use crate::certificates::Authority;
use crate::counters::{COUNTED, LABELS, Scrapes};
use crate::crash::crash_watched;
use crate::harness::{Exporter, Files, Process, Upstream, ask, get, program, short_world, wait_for};
use crate::numbers::{all_right, at_rest, truth};
use crate::web::hash;

/// A Prometheus that can be started.
#[derive(Debug)]
pub(crate) struct Installed {
    prometheus: PathBuf,
    pub(crate) promtool: PathBuf,
}

/// Every Prometheus that this machine offers. A directory that is named and holds none fails the test.
pub(crate) fn installed() -> Vec<Installed> {
    let variable = |name: &str| std::env::var_os(name).unwrap_or_default();
    let path = variable("PATH");
    let in_path = std::env::split_paths(&path).find(|directory| directory.join("prometheus").is_file());
    let named = variable("TESTRUN_PROMETHEUS_DIRS");
    let named = std::env::split_paths(&named).filter(|directory| !directory.as_os_str().is_empty());
    let found: Vec<Installed> = in_path
        .into_iter()
        .chain(named)
        .map(|directory| programs(&directory))
        .collect();
    assert!(
        !found.is_empty(),
        "no Prometheus: tests/scripts/install-prometheus.sh DIRECTORY brings two"
    );
    found
}

fn programs(directory: &Path) -> Installed {
    let below = directory.join("usr/bin");
    let place = if below.is_dir() { below } else { directory.to_owned() };
    let installed = Installed {
        prometheus: place.join("prometheus"),
        promtool: place.join("promtool"),
    };
    for program in [&installed.prometheus, &installed.promtool] {
        assert!(program.is_file(), "{} is missing", program.display());
    }
    installed
}

/// A Prometheus that runs.
struct Prometheus {
    process: Process,
    address: SocketAddr,
    _files: Files,
}

impl Prometheus {
    /// `more` are further lines of the scrape configuration, each with its indent of four; `files` stand beside it.
    async fn start(
        installed: &Installed,
        target: SocketAddr,
        interval: &str,
        more: &str,
        beside: &[(&str, &str)],
        flags: &[&str],
    ) -> Self {
        let files = Files::new(&[]);
        let yaml = format!(
            "global: {{ scrape_interval: {interval}, scrape_timeout: {interval} }}\nscrape_configs:\n  - job_name: testruns\n    \
             static_configs: [{{ targets: ['{target}'] }}]\n{more}"
        );
        for (name, content) in beside {
            files.write(name, content);
        }
        files.write("prometheus.yml", &yaml);
        let mut command = Command::new(&installed.prometheus);
        command
            .current_dir(files.root())
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .args(["--web.listen-address=127.0.0.1:0", "--log.level=debug"])
            .args(flags)
            .stdin(Stdio::null());
        let mut process = Process::start(command);
        let address = wait_for("Prometheus says where it listens", async || {
            let log = process.log();
            assert!(process.is_running(), "{log}");
            let line = log.lines().find(|line| line.contains("Listening on"))?;
            let word = line.split(' ').find_map(|word| word.strip_prefix("address="))?;
            Some(word.parse().unwrap())
        })
        .await;
        wait_for("Prometheus is ready", async || {
            (get(address, "/-/ready").await.status == 200).then_some(())
        })
        .await;
        Self {
            process,
            address,
            _files: files,
        }
    }

    /// The result of an instant query.
    async fn query(&self, expression: &str) -> Vec<Value> {
        let query: String = url::form_urlencoded::byte_serialize(expression.as_bytes()).collect();
        let page = get(self.address, &format!("/api/v1/query?query={query}")).await;
        let answer: Value = serde_json::from_str(&page.body).unwrap_or_default();
        match answer["data"]["result"].as_array() {
            Some(result) => result.clone(),
            None => panic!("{expression}: {} {}", page.status, page.body),
        }
    }

    /// The one value of a query, if there is one.
    async fn value(&self, expression: &str) -> Option<f64> {
        let result = self.query(expression).await;
        assert!(result.len() < 2, "{expression}: {result:?}");
        number(&result.first()?["value"])
    }

    async fn wait_for(&self, expression: &str, expected: Option<f64>) {
        wait_for(&format!("{expression} is {expected:?}"), async || {
            (self.value(expression).await == expected).then_some(())
        })
        .await;
    }
}

/// The number of a pair of a time and a number.
fn number(sample: &Value) -> Option<f64> {
    sample[1].as_str()?.parse().ok()
}

/// A world whose first runs end after the first scrape: a Prometheus needs seconds for that, whatever its interval is.
fn late_world(kind: Kind) -> WorldOptions {
    WorldOptions {
        run_duration: Duration::from_secs(9),
        ..short_world(kind, 11)
    }
}

/// What Prometheus has stored of the runs: from the first sample to the last, each group's whole story.
async fn assert_stored(prometheus: &Prometheus, source: &str, truth: &Truth) {
    for ((environment, branch), group) in &truth.runs {
        for outcome in RunOutcome::ALL {
            let expected = group.runs[outcome.index()];
            let series = format!(
                "testrun_runs_total{{source=\"{source}\",environment=\"{environment}\",branch=\"{branch}\",outcome=\"{}\"}}",
                outcome.label()
            );
            let stored = prometheus.query(&format!("{series}[1h]")).await;
            let values = stored[0]["values"].as_array().unwrap();
            let (first, last) = (number(&values[0]), number(&values[values.len() - 1]));
            #[expect(clippy::cast_precision_loss, reason = "a test's counts are small")]
            let expected = expected as f64;
            assert_eq!((first, last), (Some(0.0), Some(expected)), "{series}");
            let increase = prometheus.value(&format!("increase({series}[1h])")).await.unwrap();
            assert_eq!(increase > 0.0, expected > 0.0, "increase of {series}: {increase}");
        }
    }
}

/// Where the exporter says that a counter began, there is a 0, or, in a server that knows no better, a series that says so.
async fn assert_beginnings(exporter: &Exporter, prometheus: &Prometheus) {
    let open_metrics = "Accept: application/openmetrics-text; version=1.0.0\r\n";
    let page = ask(exporter.address, "GET /metrics", open_metrics).await;
    let mut checked = 0;
    for line in page
        .body
        .lines()
        .filter(|line| line.starts_with("testrun_runs_created{"))
    {
        let (series, created) = line.rsplit_once(' ').unwrap();
        let created: f64 = created.parse().unwrap();
        let said = prometheus.value(series).await;
        let counter = series.replacen("_created", "_total", 1);
        let stored = prometheus.query(&format!("{counter}[1h]")).await;
        let first = &stored[0]["values"][0];
        let is_zero = first[0].as_f64() == Some(created) && number(first) == Some(0.0);
        assert!(said == Some(created) || is_zero, "{line}: {said:?}, {first}");
        checked += 1;
    }
    assert!(checked > 0, "{}", page.body);
}

/// Prometheus took every sample and had nothing to say about them.
async fn assert_taken_whole(prometheus: &Prometheus) {
    let dropped = "scrape_samples_scraped != scrape_samples_post_metric_relabeling";
    assert_eq!(prometheus.query(dropped).await, [] as [Value; 0]);
    assert_eq!(prometheus.value("min_over_time(up[1h])").await, Some(1.0));
    let log = prometheus.process.log();
    // A beginning that it has stored already is told again with each scrape; it says so each time, and passes it over.
    let lines = log.lines().filter(|line| !line.contains("Error when appending CT"));
    let log: String = lines.flat_map(|line| [line, "\n"]).collect();
    for words in [
        "duplicate",
        "out of order",
        "out-of-order",
        "out of bounds",
        "Append failed",
        "Error on ingesting",
    ] {
        assert!(!log.contains(words), "{words:?} in the log:\n{log}");
    }
}

/// `created`: counters tell when they began, and a server that can take that for a 0 does.
async fn is_scraped_by(installed: &Installed, created: bool) {
    let empirical = Upstream::start(late_world(Kind::Empirical), Kind::Empirical, "token-e").await;
    let sample = Upstream::start(late_world(Kind::SamplePlatform), Kind::SamplePlatform, "token-s").await;
    let more = "    stale_after: 10s\n";
    let files = Files::new(&[
        empirical.source("shop", "token: token-e", more),
        sample.source("media", "token: token-s", more),
    ]);
    let config = files.config();
    let mut flags = vec![config.as_str()];
    flags.extend(created.then_some("--web.created-timestamps"));
    let exporter = Exporter::start_with(program(&flags)).await;
    let features: &[&str] = if created {
        &["--enable-feature=created-timestamp-zero-ingestion"]
    } else {
        &[]
    };
    let prometheus = Prometheus::start(installed, exporter.address, "1s", "", &[], features).await;
    prometheus.wait_for("up", Some(1.0)).await;
    for (upstream, source) in [(&empirical, "shop"), (&sample, "media")] {
        // Only Prometheus scrapes meanwhile: a new group's zeros wait for one scrape, whoever makes it.
        at_rest(upstream).await;
        let counted = truth(upstream).counted;
        #[expect(clippy::cast_precision_loss, reason = "a test's counts are small")]
        let counted = counted as f64;
        let query = format!("sum(testrun_runs_total{{source=\"{source}\"}})");
        prometheus.wait_for(&query, Some(counted)).await;
        assert_stored(&prometheus, source, &truth(upstream)).await;
    }
    assert_taken_whole(&prometheus).await;
    all_right(&exporter, &empirical, "shop").await;
    all_right(&exporter, &sample, "media").await;
    if created {
        assert_beginnings(&exporter, &prometheus).await;
    }

    // A source whose data are too old takes them back: the series end at once, not after five minutes.
    empirical.platform().set_down(true);
    let gone = "count(testrun_runs_total{source=\"shop\"})";
    prometheus.wait_for(gone, None).await;
    prometheus.wait_for("testrun_up{source=\"shop\"}", Some(0.0)).await;
    prometheus.wait_for("testrun_up{source=\"media\"}", Some(1.0)).await;
    assert!(
        !prometheus
            .query("testrun_runs_total{source=\"media\"}")
            .await
            .is_empty()
    );
    empirical.platform().set_down(false);
    prometheus.wait_for("testrun_up{source=\"shop\"}", Some(1.0)).await;
    assert_taken_whole(&prometheus).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Prometheus: see CONTRIBUTING"]
async fn every_installed_prometheus_stores_what_happened() {
    for installed in installed() {
        eprintln!("with {}", installed.prometheus.display());
        is_scraped_by(&installed, false).await;
        is_scraped_by(&installed, true).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Prometheus: see CONTRIBUTING"]
async fn promtool_finds_nothing_to_say_about_the_exposition() {
    let kinds = [Kind::Empirical, Kind::SamplePlatform];
    let [empirical, sample] = [
        Upstream::start(short_world(kinds[0], 12), kinds[0], "token-e").await,
        Upstream::start(short_world(kinds[1], 13), kinds[1], "token-s").await,
    ];
    let files = Files::new(&[
        empirical.source("shop", "token: token-e", ""),
        sample.source("media", "token: token-s", ""),
    ]);
    let exporter = Exporter::start(&files).await;
    at_rest(&empirical).await;
    all_right(&exporter, &empirical, "shop").await;
    let body = exporter.get("/metrics").await.body;
    for Installed { promtool, .. } in installed() {
        let mut check = Command::new(&promtool);
        check.args(["check", "metrics"]).stdin(Stdio::piped());
        let mut child = check.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr);
        assert!(
            ended.status.success() && said.is_empty(),
            "{}: {said}",
            promtool.display()
        );
    }
}

/// Every counter that a Prometheus has stored, sample by sample.
async fn stored(prometheus: &Prometheus) -> Scrapes {
    let names = COUNTED.join("|");
    let mut scrapes = Scrapes::default();
    for series in prometheus.query(&format!("{{__name__=~\"{names}\"}}[1h]")).await {
        let labels = &series["metric"];
        let name = labels["__name__"].as_str().unwrap();
        let labels = LABELS
            .iter()
            .filter_map(|label| Some(format!("{label}=\"{}\"", labels[*label].as_str()?)));
        let line = format!("{name}{{{}}}", labels.collect::<Vec<_>>().join(","));
        for sample in series["values"].as_array().unwrap() {
            scrapes.take(
                &format!("{line} {}", number(sample).unwrap()),
                &format!("in Prometheus at {}", sample[0]),
            );
        }
    }
    scrapes
}

/// `increase()` over all there is: what has happened, stretched by what Prometheus documents: at most 1.1 times the mean distance
/// of samples at both ends.
async fn assert_increases(prometheus: &Prometheus) {
    let mut checked = 0;
    for name in ["testrun_runs_total", "testrun_case_results_total"] {
        let increases = prometheus.query(&format!("increase({name}[1h])")).await;
        for series in prometheus.query(&format!("{name}[1h]")).await {
            let values = series["values"].as_array().unwrap();
            let (first, last) = (&values[0], &values[values.len() - 1]);
            let happened = number(last).unwrap() - number(first).unwrap();
            let mut labels = series["metric"].clone();
            labels.as_object_mut().unwrap().remove("__name__");
            let increase = increases.iter().find(|increase| increase["metric"] == labels).unwrap();
            let increase = number(&increase["value"]).unwrap();
            #[expect(clippy::cast_precision_loss, reason = "an hour of samples")]
            let stretch = 1.0 + 2.2 / (values.len() - 1) as f64;
            assert!(
                (happened..=happened * stretch + 1e-9).contains(&increase),
                "{labels}: {happened} happened, increase() says {increase} of {} samples",
                values.len()
            );
            checked += usize::from(happened > 0.0);
        }
    }
    assert!(checked > 50, "{checked} series moved");
}

#[test]
#[ignore = "needs Prometheus: see CONTRIBUTING"]
fn a_prometheus_that_scrapes_through_two_hundred_kills_has_stored_what_happened() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let installed = installed().pop().unwrap();
    let watch = |target| {
        runtime.block_on(async {
            let prometheus = Prometheus::start(&installed, target, "200ms", "", &[], &[]).await;
            prometheus.wait_for("up", Some(1.0)).await;
            prometheus
        })
    };
    let prometheus = crash_watched(200, 2, watch, |prometheus| runtime.block_on(stored(prometheus)));
    runtime.block_on(assert_increases(&prometheus));
}

/// Over TLS with a client certificate and a password, while certificate and password change.
async fn is_scraped_in_private(installed: &Installed) {
    let authority = Authority::new();
    let (server, client) = (authority.server(), authority.client(&["prometheus.example"]));
    let upstream = Upstream::quiet(Kind::Empirical, "token").await;
    let files = Files::new(&[upstream.source("shop", "token: token", "")]);
    files.write("server.crt", &server.certificate);
    files.write("server.key", &server.key);
    files.write("ca.crt", &authority.pem());
    let web = |password: &str| {
        format!(
            "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n  client_ca_file: ca.crt\n  \
             client_auth_type: RequireAndVerifyClientCert\n  client_allowed_sans: [prometheus.example]\n\
             basic_auth_users: {{ prometheus: '{}' }}\n",
            hash(password, 10)
        )
    };
    files.write("web.yml", &web("secret"));
    let option = format!("--web.config.file={}", files.path("web.yml").display());
    let exporter = Exporter::start_with(program(&[&files.config(), &option])).await;
    let more = "    scheme: https\n    tls_config: { ca_file: ca.crt, cert_file: client.crt, key_file: client.key }\n    \
                basic_auth: { username: prometheus, password_file: password }\n";
    let ca = authority.pem();
    let beside = [
        ("ca.crt", &*ca),
        ("client.crt", &*client.certificate),
        ("client.key", &*client.key),
        ("password", "secret"),
    ];
    let prometheus = Prometheus::start(installed, exporter.address, "1s", more, &beside, &[]).await;
    prometheus.wait_for("up", Some(1.0)).await;
    let current = "testrun_exporter_web_config_last_reload_successful";
    prometheus.wait_for(current, Some(1.0)).await;

    // Another certificate: nobody notices.
    let next = authority.server();
    files.write("server.key", &next.key);
    files.write("server.crt", &next.certificate);
    exporter.wait_for_log("has changed and is in use").await;
    prometheus.wait_for("min_over_time(up[1h])", Some(1.0)).await;
    // Another password: Prometheus is refused, until it is the right one again.
    files.write("web.yml", &web("another"));
    prometheus.wait_for("up", Some(0.0)).await;
    files.write("web.yml", &web("secret"));
    prometheus.wait_for("up", Some(1.0)).await;
    prometheus.wait_for(current, Some(1.0)).await;
    let log = exporter.process.log();
    assert!(!log.contains("secret") && !log.contains("$2"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Prometheus: see CONTRIBUTING"]
async fn every_installed_prometheus_scrapes_over_tls_with_a_certificate_and_a_password() {
    for installed in installed() {
        eprintln!("with {}", installed.prometheus.display());
        is_scraped_in_private(&installed).await;
    }
}
