//! The process as an operator meets it: commands, exit codes, signals.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use testrun_exporter::simulate::{Fault, FaultPlan};
use testrun_exporter::sources::Kind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use crate::certificates::{Authority, client_config};
use crate::harness::{Exporter, Files, Process, Samples, Upstream, get, output, program, wait_for};

/// A stop takes no longer, whatever upstream and clients are doing. The second is for a busy machine.
const STOP_MAX: Duration = Duration::from_secs(5 + 1);

/// The daemon in the middle of a request that is never answered and would be waited for a long time.
async fn stalled() -> (Upstream, Exporter) {
    let upstream = Upstream::quiet(Kind::Empirical, "token").await;
    upstream
        .platform()
        .set_faults(FaultPlan::random(1.0, vec![Fault::Stall]));
    let files = Files::new(&[upstream.source("it", "token: token", "    request_timeout: 10m\n")]);
    let exporter = Exporter::start(&files).await;
    wait_for("the first request", async || (upstream.requests() > 0).then_some(())).await;
    (upstream, exporter)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_and_sigint_stop_it_well_and_soon_while_upstream_stalls() {
    for signal in ["TERM", "INT"] {
        let (_upstream, mut exporter) = stalled().await;
        exporter.process.signal(signal);
        let status = exporter.process.ended(STOP_MAX).await;
        assert_eq!(status.code(), Some(0), "after SIG{signal}");
        let log = exporter.process.log();
        assert!(
            log.contains(&format!("signal=SIG{signal}")) && log.contains("msg=stopped"),
            "{log}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_finishes_its_request_does_not_delay_the_stop() {
    let (_upstream, mut exporter) = stalled().await;
    let mut client = TcpStream::connect(exporter.address).await.unwrap();
    client.write_all(b"GET /metrics HTTP/1.1\r\nHost: ").await.unwrap();
    exporter.scrape().await;
    exporter.process.signal("TERM");
    let status = exporter.process.ended(STOP_MAX).await;
    assert_eq!(status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_stops_it_at_once() {
    let (_upstream, mut exporter) = stalled().await;
    let mut client = TcpStream::connect(exporter.address).await.unwrap();
    client.write_all(b"GET /metrics HTTP/1.1\r\nHost: ").await.unwrap();
    exporter.scrape().await;
    exporter.process.signal("TERM");
    exporter.wait_for_log("signal=SIGTERM").await;
    assert!(exporter.process.is_running(), "it gives the client some time");
    exporter.process.signal("TERM");
    // Far less than the time that the client would have.
    let status = exporter.process.ended(Duration::from_secs(2)).await;
    assert_eq!(status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_does_not_end_it() {
    let upstream = Upstream::quiet(Kind::SamplePlatform, "token").await;
    let files = Files::new(&[upstream.source("it", "token: token", "")]);
    let mut exporter = Exporter::start(&files).await;
    exporter.rounds("it", "success", 1).await;
    exporter.process.signal("HUP");
    exporter.wait_for_log("SIGHUP").await;
    exporter.rounds("it", "success", 2).await;
    assert!(exporter.process.is_running());
}

#[tokio::test]
async fn check_config_says_what_each_source_is() {
    let upstream = Upstream::quiet(Kind::Empirical, "token").await;
    let files = Files::new(&[upstream.source("shop", "token: token", "")]);
    let ended = output(program(&["check-config", &files.config()])).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let expected = format!("shop: empirical at {}", upstream.base_url());
    assert!(ended.stdout.starts_with(&expected), "{}", ended.stdout);
    assert_eq!(ended.stdout.lines().count(), 1);
    assert_eq!(ended.stderr, "");
    assert_eq!(upstream.requests(), 0, "nobody was asked");
}

#[tokio::test]
async fn check_config_refuses_a_ledger_that_the_daemon_would_refuse_and_makes_none() {
    let source = "  a: { kind: empirical, base_url: 'https://a.example', token: secret-5d1f9a }\n";
    let files = Files::new(&[]);
    for (directory, code) in [("config.yaml", 2), ("state", 0), ("config.yaml/state", 2)] {
        files.write(
            "config.yaml",
            &format!("state: {{ directory: {directory} }}\nsources:\n{source}"),
        );
        let ended = output(program(&["check-config", &files.config()])).await;
        assert_eq!(ended.code, Some(code), "{directory}: {}", ended.stderr);
        if code == 2 {
            let config = files.path("config.yaml").display().to_string();
            let expected = format!(
                "{config}: state.directory {}: it cannot be used",
                files.path(directory).display()
            );
            assert!(ended.stderr.starts_with(&expected), "{}", ended.stderr);
        }
    }
    assert!(!files.path("state").exists());
}

#[tokio::test]
async fn commands_that_read_no_configuration_refuse_one() {
    let files = Files::new(&[]);
    for command in ["demo", "simulate"] {
        let ended = output(program(&[command, &files.config()])).await;
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        assert!(
            ended.stderr.contains("expected it without --config.file"),
            "{}",
            ended.stderr
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_without_news_is_worth_no_line_but_for_who_debugs() {
    let upstream = Upstream::quiet(Kind::SamplePlatform, "token").await;
    let files = Files::new(&[upstream.source("it", "token: token", "")]);
    for level in ["debug", "info"] {
        let exporter = Exporter::start_with(program(&[&files.config(), &format!("--log.level={level}")])).await;
        exporter.rounds("it", "success", 4).await;
        let log = exporter.process.log();
        let rounds = log.lines().filter(|line| line.contains("msg=\"round complete"));
        let (idle, others): (Vec<&str>, Vec<&str>) = rounds.partition(|line| line.contains("nothing new"));
        assert_eq!(idle.is_empty(), level == "info", "{log}");
        assert!(idle.iter().all(|line| line.contains("level=debug")), "{log}");
        assert!(
            !others.is_empty() && others.iter().all(|line| line.contains("level=info")),
            "{log}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_a_clients_certificate_is_refused_is_told_to_who_debugs_and_once_for_a_crowd() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = authority.server();
    let files = Files::new(&["  a: { kind: empirical, base_url: 'https://127.0.0.1:1', token: token }\n".to_owned()]);
    files.write("server.crt", &server.certificate);
    files.write("server.key", &server.key);
    files.write("ca.crt", &authority.pem());
    let tls = "cert_file: server.crt, key_file: server.key, client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.crt";
    files.write("web.yml", &format!("tls_server_config: {{ {tls} }}\n"));
    let web = format!("--web.config.file={}", files.path("web.yml").display());
    let exporter = Exporter::start_with(program(&[&files.config(), &web, "--log.level=debug"])).await;
    let stranger = other.client(&["stranger.example"]);
    let client = client_config(&authority, Some(&stranger), rustls::ALL_VERSIONS, &[]);
    for _ in 0..20 {
        let stream = TcpStream::connect(exporter.address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
        if let Ok(mut stream) = TlsConnector::from(Arc::clone(&client)).connect(name, stream).await {
            let _ = stream.read(&mut [0]).await;
        }
    }
    exporter.wait_for_log("a client's certificate is refused").await;
    let log = exporter.process.log();
    let told: Vec<_> = log
        .lines()
        .filter(|line| line.contains("certificate is refused"))
        .collect();
    assert!(told.len() < 10, "{log}");
    assert!(
        told.iter()
            .all(|line| line.contains("level=debug") && line.contains("address=127.0.0.1")),
        "{log}"
    );
}

/// What is wrong with the process itself, as the status tells it, if the landing page tells it too: `what` and `since`.
async fn problem(exporter: &Exporter, trouble: &str, heading: &str) -> Option<(String, String)> {
    let status: Value = serde_json::from_str(&exporter.get("/api/v1/status").await.body).unwrap();
    let page = exporter.get("/").await.body;
    let problems = status["problems"].as_array().unwrap();
    let problem = problems.iter().find(|problem| problem["trouble"] == trouble)?;
    assert_eq!(problems.len(), 1, "{status}");
    let text = |key: &str| problem[key].as_str().unwrap().to_owned();
    let what = text("what");
    let mut escaped = what.replace('&', "&amp;");
    for (character, entity) in [('<', "&lt;"), ('>', "&gt;"), ('"', "&quot;"), ('\'', "&#39;")] {
        escaped = escaped.replace(character, entity);
    }
    let shown = page.contains(heading) && escaped.lines().all(|line| page.contains(line));
    shown.then(|| (what, text("since")))
}

async fn no_problem(exporter: &Exporter) -> Option<()> {
    let status: Value = serde_json::from_str(&exporter.get("/api/v1/status").await.body).unwrap();
    let page = exporter.get("/").await.body;
    let is_shown = page.contains("not written") || page.contains(">refused<");
    (status["problems"] == json!([]) && !is_shown).then_some(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_that_cannot_be_written_is_shown_to_people_until_it_can() {
    let upstream = Upstream::quiet(Kind::SamplePlatform, "token").await;
    let files = Files::new(&[]);
    let source = upstream.source("it", "token: token", "");
    files.write(
        "config.yaml",
        &format!("web: {{ listen_address: '127.0.0.1:0' }}\nstate: {{ directory: state }}\nsources:\n{source}"),
    );
    let exporter = Exporter::start(&files).await;
    exporter.rounds("it", "success", 1).await;
    assert_eq!(no_problem(&exporter).await, Some(()));
    // Whoever the test runs as: nobody can write in a directory that is not there.
    std::fs::rename(files.path("state"), files.path("away")).unwrap();
    let told = async || problem(&exporter, "ledger", "<h2>Ledger <span>not written</span></h2>").await;
    let (what, since) = wait_for("the ledger's trouble", told).await;
    assert!(what.starts_with("source it: "), "{what}");
    let samples = exporter.rounds("it", "success", 1).await;
    assert_eq!(samples.one("testrun_exporter_ledger_healthy", &[]), Some(0.0));
    assert_eq!(
        told().await,
        Some((what, since)),
        "it is the same trouble all the while"
    );
    std::fs::rename(files.path("away"), files.path("state")).unwrap();
    wait_for("the end of it", async || no_problem(&exporter).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_web_configuration_that_is_refused_is_shown_to_people_until_it_is_mended() {
    let upstream = Upstream::quiet(Kind::SamplePlatform, "token").await;
    let files = Files::new(&[upstream.source("it", "token: token", "")]);
    files.write("web.yml", "{}\n");
    let web = format!("--web.config.file={}", files.path("web.yml").display());
    let exporter = Exporter::start_with(program(&[&files.config(), &web])).await;
    exporter.rounds("it", "success", 1).await;
    assert_eq!(no_problem(&exporter).await, Some(()));
    files.write("web.yml", "basic_auth_users: { prometheus: secret-5d1f9a }\n");
    let heading = "<h2>Web configuration <span>refused</span></h2>";
    let told = async || problem(&exporter, "web_configuration", heading).await;
    let (what, _) = wait_for("the web configuration's trouble", told).await;
    assert!(what.contains("web.yml") && what.contains("basic_auth_users"), "{what}");
    assert!(!what.contains("secret-5d1f9a"), "{what}");
    files.write("web.yml", "{}\n");
    wait_for("the end of it", async || no_problem(&exporter).await).await;
}

#[tokio::test]
async fn check_config_tells_what_the_web_configuration_warns_of() {
    let files = Files::new(&[]);
    let sources = "sources: { shop: { kind: empirical, base_url: 'https://api.empirical.run', token: x } }\n";
    files.write("config.yaml", &format!("web: {{ config_file: web.yml }}\n{sources}"));
    files.write("web.yml", "tls_server_config: { min_version: TLS10 }\n");
    let ended = output(program(&["check-config", &files.config()])).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let expected = "web.yml: warning: tls_server_config.min_version: the oldest version that is spoken here is TLS12";
    assert!(ended.stderr.contains(expected), "{}", ended.stderr);
}

#[tokio::test]
async fn every_problem_of_a_configuration_is_one_line_with_its_file_and_path() {
    let files = Files::new(&[]);
    let sources = "  shop: { kind: empirical, base_url: 'https://api.empirical.run', token: x, polling: 60s }\n  \
                   media: { kind: sample_platform, base_url: 'http://example.com', token: x, lookback: 1s }\n";
    files.write("config.yaml", &format!("sources:\n{sources}"));
    for command in ["check-config", "run", "once"] {
        let ended = output(program(&[command, &files.config()])).await;
        assert_eq!(ended.code, Some(2), "{command}: {}", ended.stderr);
        let file = files.path("config.yaml").display().to_string();
        for path in [
            "sources.shop.polling",
            "sources.media.base_url",
            "sources.media.lookback",
        ] {
            let of_path: Vec<_> = ended.stderr.lines().filter(|line| line.contains(path)).collect();
            assert_eq!(of_path.len(), 1, "{command}, {path}: {}", ended.stderr);
            assert!(of_path[0].contains(&file), "{}", of_path[0]);
        }
        assert_eq!(ended.stdout, "", "{command}");
    }
}

#[tokio::test]
async fn a_bad_command_line_ends_with_2_and_a_question_with_0() {
    let missing = ["--config.file", "/nonexistent/config.yaml"];
    let wrong: [(&[&str], &str); 5] = [
        (&["--config.fil=x"], "--config.fil"),
        (&["poll"], "poll"),
        (&["simulate", "--seed=x"], "--seed"),
        (&["run"], "--config.file"),
        (&missing, "/nonexistent/config.yaml"),
    ];
    for (arguments, named) in wrong {
        let ended = output(program(arguments)).await;
        assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(named), "{arguments:?}: {}", ended.stderr);
    }
    for question in ["--help", "--version"] {
        let ended = output(program(&[question])).await;
        assert_eq!(ended.code, Some(0), "{question}");
        assert!(ended.stdout.contains(env!("CARGO_PKG_VERSION")) || question == "--help");
    }
}

#[tokio::test]
async fn an_address_in_use_is_named_and_ends_it_with_1() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let upstream = Upstream::quiet(Kind::Empirical, "token").await;
    let files = Files::new(&[upstream.source("it", "token: token", "")]);
    let listen = format!("--web.listen-address={address}");
    for arguments in [vec!["run", &files.config(), &listen], vec!["demo", &listen]] {
        let ended = output(program(&arguments)).await;
        assert_eq!(ended.code, Some(1), "{arguments:?}: {}", ended.stderr);
        let words = format!("listening on {address}: Address already in use");
        assert!(ended.stderr.contains(&words), "{}", ended.stderr);
    }
    assert_eq!(upstream.requests(), 0, "nobody was asked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_says_where_to_look_and_two_platforms_are_there() {
    let demo = Exporter::start_with(program(&["demo", "--web.listen-address=127.0.0.1:0"])).await;
    let base = format!("http://{}", demo.address);
    let said = wait_for("where to look", async || {
        let said = demo.process.stdout();
        said.contains("Ctrl-C").then_some(said)
    })
    .await;
    for words in [format!("metrics  {base}/metrics"), format!("status   {base}/\n")] {
        assert!(said.contains(&words), "{words:?} in {said}");
    }
    let samples = demo
        .wait_until("both platforms are up", |samples| {
            ["empirical", "sample_platform"]
                .iter()
                .all(|source| samples.up(source) == Some(1.0))
        })
        .await;
    for source in ["empirical", "sample_platform"] {
        assert!(samples.of("testrun_runs_total", &[("source", source)]).count() > 0);
    }
    let shown = demo.wait_until("snoozes and tags", |samples| {
        samples.of("testrun_case_snoozed", &[]).count() > 0
            && samples.of("testrun_case_info", &[("tags", "critical,smoke")]).count() > 0
    });
    let snoozes = shown.await.sum("testrun_snoozes_active", &[("source", "empirical")]);
    assert_eq!(snoozes, 2.0, "the third is over");
    assert_eq!(demo.get("/-/ready").await.status, 200);
    let page = demo.get("/").await;
    assert!(page.body.contains("<dt>Gate</dt>"), "{}", page.body);
    assert!(
        page.body.contains("sample_platform") && page.body.contains("/metrics"),
        "{}",
        page.body
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_simulated_platforms_alone_can_be_read_with_what_they_print() {
    let mut simulated = Process::start(program(&["simulate", "--listen=127.0.0.1:0", "--seed=3"]));
    let said = wait_for("the simulated platforms", async || {
        let said = simulated.stdout();
        said.contains("Ctrl-C").then_some(said)
    })
    .await;
    let values = |key: &str| -> Vec<String> {
        let lines = said.lines().filter_map(|line| line.trim().strip_prefix(key));
        lines.map(|value| value.trim().to_owned()).collect()
    };
    let (urls, tokens) = (values("base_url:"), values("token:"));
    let source = |name: &str, kind: Kind, index: usize| {
        let (kind, url, token) = (kind.label(), &urls[index], &tokens[index]);
        format!("  {name}: {{ kind: {kind}, base_url: '{url}', token: '{token}' }}\n")
    };
    let files = Files::new(&[source("a", Kind::Empirical, 0), source("b", Kind::SamplePlatform, 1)]);
    let ended = output(program(&["once", &files.config()])).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let samples = Samples::parse(&ended.stdout);
    assert_eq!((samples.up("a"), samples.up("b")), (Some(1.0), Some(1.0)));

    let truths = values("truth:");
    for truth in &truths {
        let (address, path) = truth.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let page = get(address.parse().unwrap(), &format!("/{path}")).await;
        let truth: Value = serde_json::from_str(&page.body).unwrap();
        assert_eq!(truth["violations"], json!([]), "{truth}");
    }
    assert_eq!(truths.len(), 2);
    simulated.signal("TERM");
    assert_eq!(simulated.ended(STOP_MAX).await.code(), Some(0));
}
