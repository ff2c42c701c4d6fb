//! Reloading, as an operator meets it: signals, HTTP, files that change under a running process. The platforms are the
//! witnesses: whom a reload does not concern is not asked once more for it, and who was told to wait waits.

use std::os::unix::fs::symlink;
use std::time::Duration;

use testrun_exporter::simulate::{Fault, When};
use testrun_exporter::sources::Kind;
use tokio::time::{Instant, sleep};

use crate::harness::{Exporter, Files, Page, Samples, Upstream, ask, program, short_world, wait_for};
use crate::numbers::{all_right, at_rest};

const HEAD: &str = "web: { listen_address: '127.0.0.1:0', enable_lifecycle: true }\n";
const TOKEN: &str = "token: secret-5d1f9a";

/// A running process and the file that it was started with.
struct Scene {
    files: Files,
    exporter: Exporter,
}

impl Scene {
    async fn of(sources: &[String]) -> Self {
        Self::with(HEAD, sources).await
    }

    async fn with(head: &str, sources: &[String]) -> Self {
        let files = Files::new(&[]);
        let scene = |files, exporter| Self { files, exporter };
        write(&files, head, sources);
        let exporter = Exporter::start(&files).await;
        scene(files, exporter)
    }

    /// Another file, and a request to read it.
    async fn post(&self, head: &str, sources: &[String]) -> Page {
        write(&self.files, head, sources);
        self.ask().await
    }

    async fn ask(&self) -> Page {
        ask(self.exporter.address, "POST /-/reload", "").await
    }

    async fn reload(&self, sources: &[String], expected: &str) {
        let page = self.post(HEAD, sources).await;
        assert_eq!(
            page.body,
            format!("configuration reloaded: sources: {expected}\n"),
            "{}",
            self.exporter.process.log()
        );
        assert_eq!(page.status, 200);
    }

    /// How many log lines hold these words.
    fn said(&self, words: &str) -> usize {
        self.exporter
            .process
            .log()
            .lines()
            .filter(|line| line.contains(words))
            .count()
    }
}

fn write(files: &Files, head: &str, sources: &[String]) {
    files.write("config.yaml", &format!("{head}sources:\n{}", sources.concat()));
}

fn has(samples: &Samples, source: &str) -> bool {
    [
        "testrun_up",
        "testrun_source_info",
        "testrun_exporter_rounds_total",
        "testrun_runs_total",
    ]
    .iter()
    .any(|name| samples.of(name, &[("source", source)]).count() > 0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_come_and_go_by_sighup_and_the_others_notice_nothing() {
    let [a, b, c] = [
        Upstream::quiet(Kind::Empirical, "secret-5d1f9a").await,
        Upstream::quiet(Kind::SamplePlatform, "secret-5d1f9a").await,
        Upstream::quiet(Kind::SamplePlatform, "secret-5d1f9a").await,
    ];
    let [first, second, third] = [
        a.source("a", TOKEN, ""),
        b.source("b", TOKEN, ""),
        c.source("c", TOKEN, ""),
    ];
    let scene = Scene::of(&[first.clone(), second.clone()]).await;
    let exporter = &scene.exporter;
    exporter.had_round("a", "success").await;
    let before = exporter.rounds("b", "success", 2).await;
    assert!(has(&before, "a") && !has(&before, "c"));
    assert_eq!(exporter.get("/-/ready").await.status, 200);

    write(&scene.files, HEAD, &[second.clone(), third]);
    exporter.process.signal("HUP");
    exporter
        .wait_for_log("1 added, 1 removed, 0 changed, 1 unchanged")
        .await;
    let asked = a.requests();
    let after = exporter.scrape().await;
    assert!(!has(&after, "a"), "its series are gone at once");
    assert!(after.up("c").is_some());
    assert!(after.rounds("b", "success") >= before.rounds("b", "success"));
    let (data, same) = (before.data("b"), after.data("b"));
    assert!(data == same, "{}", data.difference(&same));
    let samples = exporter.had_round("c", "success").await;
    assert!(samples.data("c").len() > 100);
    exporter.rounds("b", "success", 1).await;
    assert_eq!(a.requests(), asked, "who is gone is asked no more");
    let status = exporter.get("/api/v1/status").await.body;
    assert!(
        !status.contains("\"source\":\"a\"") && status.contains("\"source\":\"c\""),
        "{status}"
    );

    // And back: without a ledger, with a new baseline.
    scene
        .reload(&[first, second], "1 added, 1 removed, 0 changed, 1 unchanged")
        .await;
    exporter.had_round("a", "success").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_reloads_cost_the_platforms_no_request() {
    let [a, b] = [
        Upstream::quiet(Kind::SamplePlatform, "secret-5d1f9a").await,
        Upstream::quiet(Kind::SamplePlatform, "secret-5d1f9a").await,
    ];
    let changed = |number: u32| a.source("a", TOKEN, &format!("    stale_after: {}s\n", 900 + number));
    let same = b.source("b", TOKEN, "");
    let scene = Scene::of(&[changed(0), same.clone()]).await;
    scene.exporter.rounds("a", "success", 3).await;
    scene.exporter.rounds("b", "success", 3).await;
    let (began, before) = (Instant::now(), [a.requests(), b.requests()]);
    for number in 1..=100 {
        let sources = [changed(number), same.clone()];
        scene
            .reload(&sources, "0 added, 0 removed, 1 changed, 1 unchanged")
            .await;
    }
    let asked = [a.requests() - before[0], b.requests() - before[1]];
    // One request a round, a round a second.
    let rounds = usize::try_from(began.elapsed().as_secs()).unwrap() + 2;
    assert!(
        asked.iter().all(|asked| *asked <= rounds),
        "{asked:?} in {rounds} rounds"
    );
    scene.exporter.rounds("a", "success", 1).await;
    scene.exporter.rounds("b", "success", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reload_is_a_way_round_a_pause() {
    let upstream = Upstream::quiet(Kind::SamplePlatform, "secret-5d1f9a").await;
    let scene = Scene::of(&[upstream.source("it", TOKEN, "")]).await;
    scene.exporter.rounds("it", "success", 2).await;
    let retry_after = Some("600".to_owned());
    let fault = Fault::Status { code: 429, retry_after };
    upstream.platform().script_fault(When::Next(1), fault);
    scene.exporter.had_round("it", "throttled").await;
    let asked = upstream.requests();

    let same = "0 added, 0 removed, 0 changed, 1 unchanged";
    scene.reload(&[upstream.source("it", TOKEN, "")], same).await;
    let another = "0 added, 0 removed, 1 changed, 0 unchanged";
    let more = "    stale_after: 1h\n    request_timeout: 7s\n    lookback: 20d\n";
    scene.reload(&[upstream.source("it", TOKEN, more)], another).await;
    let renamed = "1 added, 1 removed, 0 changed, 0 unchanged";
    scene.reload(&[upstream.source("new", TOKEN, more)], renamed).await;
    let other = Upstream::quiet(Kind::Empirical, "secret-5d1f9a").await;
    scene.reload(&[other.source("other", TOKEN, "")], renamed).await;
    scene.exporter.had_round("other", "success").await;
    scene.reload(&[upstream.source("it", TOKEN, "")], renamed).await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(upstream.requests(), asked, "ten minutes are not over");
    let status = scene.exporter.get("/api/v1/status").await.body;
    assert!(status.contains("\"reason\":\"retry_after\""), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_file_changes_nothing_and_says_why() {
    let upstream = Upstream::quiet(Kind::SamplePlatform, "secret-5d1f9a").await;
    let good = upstream.source("it", TOKEN, "");
    let scene = Scene::of(std::slice::from_ref(&good)).await;
    let exporter = &scene.exporter;
    let before = exporter.rounds("it", "success", 1).await;
    let successful = |samples: &Samples| samples.one("testrun_exporter_config_last_reload_successful", &[]);
    let when = |samples: &Samples| samples.one("testrun_exporter_config_last_reload_success_timestamp_seconds", &[]);
    assert_eq!(successful(&before), Some(1.0));

    let bad = format!("{good}    polling: 1s\n    lookback: 1s\n");
    let cases = [
        (HEAD, bad, vec!["sources.it.polling", "sources.it.lookback"]),
        ("", "  it: [".to_owned(), vec!["not readable as YAML"]),
        (
            "web: { listen_address: '127.0.0.1:1', enable_lifecycle: true }\n",
            good.clone(),
            vec!["config.yaml: web.listen_address: this cannot change"],
        ),
        (
            HEAD,
            format!("{good}    ca_file: config.yaml\n"),
            vec!["source it: certificate authority file"],
        ),
    ];
    for (head, sources, expected) in cases {
        let page = scene.post(head, &[sources]).await;
        assert_eq!(page.status, 500, "{}", page.body);
        for words in expected {
            assert!(page.body.contains(words), "{words} is not in {}", page.body);
            exporter.wait_for_log(words).await;
        }
        assert!(!page.body.contains("secret-5d1f9a"), "{}", page.body);
        let failed = |samples: &Samples| successful(samples) == Some(0.0);
        let samples = exporter.wait_until("the failure shows", failed).await;
        let problem = page.body.lines().nth(1).unwrap();
        let landing = exporter.get("/").await.body;
        assert!(
            landing.contains("The former one stays in use; first noticed"),
            "{landing}"
        );
        let status: serde_json::Value = serde_json::from_str(&exporter.get("/api/v1/status").await.body).unwrap();
        assert_eq!(status["problems"][0]["trouble"], "configuration");
        assert!(
            status["problems"][0]["what"].as_str().unwrap().starts_with(problem),
            "{status}"
        );
        assert_eq!(when(&samples), when(&before));
        let (data, same) = (before.data("it"), samples.data("it"));
        assert!(data == same, "{}", data.difference(&same));
    }
    assert!(!exporter.process.log().contains("secret-5d1f9a"));
    exporter.rounds("it", "success", 1).await;
    scene
        .reload(&[good], "0 added, 0 removed, 0 changed, 1 unchanged")
        .await;
    let status = exporter.get("/api/v1/status").await.body;
    assert!(status.contains("\"problems\":[]"), "{status}");
    let succeeded = |samples: &Samples| successful(samples) == Some(1.0);
    let samples = exporter.wait_until("the success shows", succeeded).await;
    assert!(when(&samples) > when(&before));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_may_not_ask_is_refused() {
    let upstream = Upstream::quiet(Kind::SamplePlatform, "secret-5d1f9a").await;
    let source = upstream.source("it", TOKEN, "");
    let scene = Scene::of(std::slice::from_ref(&source)).await;
    let address = scene.exporter.address;
    let cross = "Origin: http://evil.example\r\nSec-Fetch-Site: cross-site\r\n";
    assert_eq!(ask(address, "POST /-/reload", cross).await.status, 403);
    assert_eq!(ask(address, "GET /-/reload", "").await.status, 405);
    assert_eq!(
        ask(address, "POST /-/reload", "Content-Length: 3\r\n\r\nabc")
            .await
            .status,
        400
    );
    assert_eq!(scene.said("reloading"), 0);
    let same = format!("Origin: http://{address}\r\n");
    assert_eq!(ask(address, "PUT /-/reload", &same).await.status, 200);

    let files = Files::new(&[source]);
    let exporter = Exporter::start(&files).await;
    let page = ask(exporter.address, "POST /-/reload", "").await;
    assert_eq!(page.status, 403);
    assert!(page.body.contains("--web.enable-lifecycle"), "{}", page.body);
    let mut command = program(&[&files.config(), "--web.enable-lifecycle"]);
    command.env("TESTRUN_EXPORTER_SERIES_BUDGET", "50000");
    let exporter = Exporter::start_with(command).await;
    assert_eq!(ask(exporter.address, "POST /-/reload", "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_changes_is_taken_by_itself_once_it_is_whole() {
    let [a, b] = [
        Upstream::quiet(Kind::SamplePlatform, "secret-5d1f9a").await,
        Upstream::quiet(Kind::SamplePlatform, "secret-5d1f9a").await,
    ];
    let [a, b] = [a.source("a", TOKEN, ""), b.source("b", TOKEN, "")];
    let scene = Scene::of(std::slice::from_ref(&a)).await;
    let exporter = &scene.exporter;
    exporter.had_round("a", "success").await;
    // As an editor that truncates and dies.
    let whole = format!("{HEAD}sources:\n{a}{b}");
    std::fs::write(scene.files.path("config.yaml"), &whole[..whole.len() - 60]).unwrap();
    let failed = |samples: &Samples| samples.one("testrun_exporter_config_last_reload_successful", &[]) == Some(0.0);
    let samples = exporter.wait_until("the torn file is refused", failed).await;
    assert!(has(&samples, "a") && !has(&samples, "b"));
    std::fs::write(scene.files.path("config.yaml"), &whole).unwrap();
    exporter.had_round("b", "success").await;
    exporter
        .wait_until("it is no longer refused", |samples| !failed(samples))
        .await;
    write(&scene.files, HEAD, &[b]);
    exporter.wait_until("a goes", |samples| !has(samples, "a")).await;
    assert_eq!(scene.said("its files have changed"), 3);
    assert_eq!(scene.said("configuration reloaded"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_mends_a_file_that_a_refused_configuration_names_need_not_ask_again() {
    let [a, b] = [
        Upstream::quiet(Kind::SamplePlatform, "secret-5d1f9a").await,
        Upstream::quiet(Kind::SamplePlatform, "secret-5d1f9a").await,
    ];
    let first = a.source("a", TOKEN, "");
    let scene = Scene::of(std::slice::from_ref(&first)).await;
    scene.exporter.had_round("a", "success").await;
    let refused = |samples: &Samples| samples.one("testrun_exporter_config_last_reload_successful", &[]) == Some(0.0);
    let second = b.source("b", "token_file: secrets/b", "    ca_file: authority.pem\n");
    let head = format!("{HEAD}series_budget: 90000\n");
    let page = scene.post(&head, &[first, second]).await;
    assert_eq!(page.status, 500);
    assert!(page.body.contains("sources.b.token_file"), "{}", page.body);
    std::fs::create_dir(scene.files.path("secrets")).unwrap();
    scene.files.write("secrets/b", "secret-5d1f9a\n");
    // The next thing that is wrong, found because the token is there.
    scene.files.write("authority.pem", "no certificate");
    scene
        .exporter
        .wait_for_log("source b: certificate authority file")
        .await;
    assert!(refused(&scene.exporter.scrape().await));
    let authority = crate::certificates::Authority::new();
    scene.files.write("authority.pem", &authority.pem());
    let samples = scene.exporter.had_round("b", "success").await;
    assert!(!refused(&samples));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mounted_configuration_is_taken_when_its_link_is_swapped() {
    let [a, b] = [
        Upstream::quiet(Kind::SamplePlatform, "secret-5d1f9a").await,
        Upstream::quiet(Kind::SamplePlatform, "secret-5d1f9a").await,
    ];
    let files = Files::new(&[]);
    std::fs::remove_file(files.path("config.yaml")).unwrap();
    for (directory, source) in [("..1", &a), ("..2", &b)] {
        std::fs::create_dir(files.path(directory)).unwrap();
        let source = source.source("it", TOKEN, "");
        files.write(
            &format!("{directory}/config.yaml"),
            &format!("{HEAD}sources:\n{source}"),
        );
    }
    symlink("..1", files.path("..data")).unwrap();
    symlink("..data/config.yaml", files.path("config.yaml")).unwrap();
    let exporter = Exporter::start(&files).await;
    exporter.had_round("it", "success").await;
    symlink("..2", files.path("..data_tmp")).unwrap();
    std::fs::rename(files.path("..data_tmp"), files.path("..data")).unwrap();
    wait_for("the other platform is asked", async || (b.requests() > 0).then_some(())).await;
    exporter.wait_for_log("1 added, 1 removed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_comes_does_not_take_readiness_away_and_the_log_level_changes() {
    let [a, b] = [
        Upstream::quiet(Kind::SamplePlatform, "secret-5d1f9a").await,
        Upstream::quiet(Kind::SamplePlatform, "secret-5d1f9a").await,
    ];
    let files = Files::new(&[]);
    let first = a.source("a", TOKEN, "");
    // At this level every round is a line.
    write(
        &files,
        &format!("{HEAD}log: {{ level: debug }}\n"),
        std::slice::from_ref(&first),
    );
    let exporter = Exporter::start_with(program(&[&files.config()])).await;
    exporter.had_round("a", "success").await;
    assert_eq!(exporter.get("/-/ready").await.status, 200);
    b.platform()
        .set_faults(testrun_exporter::simulate::FaultPlan::random(1.0, vec![Fault::Stall]));
    let second = b.source("b", TOKEN, "    request_timeout: 10m\n");
    let scene = Scene { files, exporter };
    let head = format!("{HEAD}log: {{ level: error }}\nseries_budget: 5000\n");
    let page = scene.post(&head, &[first, second]).await;
    assert_eq!(
        page.body,
        "configuration reloaded: sources: 1 added, 0 removed, 0 changed, 1 unchanged; \
         series_budget: 5000 instead of 100000; log.level: error instead of debug\n"
    );
    let said = scene.said("round complete");
    wait_for("the new source is asked", async || (b.requests() > 0).then_some(())).await;
    assert_eq!(scene.exporter.get("/-/ready").await.status, 200, "ready for good");
    scene.exporter.rounds("a", "success", 2).await;
    assert_eq!(scene.said("round complete"), said, "no longer worth a line");
    assert_eq!(scene.exporter.get("/-/healthy").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_that_is_refused_leaves_every_ledger_where_it_is() {
    let [a, b, c] = [
        Upstream::quiet(Kind::SamplePlatform, "secret-5d1f9a").await,
        Upstream::quiet(Kind::SamplePlatform, "secret-5d1f9a").await,
        Upstream::quiet(Kind::SamplePlatform, "secret-5d1f9a").await,
    ];
    let files = Files::new(&[]);
    let head = format!("{HEAD}state: {{ directory: state }}\n");
    let first = a.source("a", TOKEN, "");
    write(&files, &head, std::slice::from_ref(&first));
    let exporter = Exporter::start(&files).await;
    exporter.had_round("a", "success").await;
    let scene = Scene { files, exporter };
    let lying = || {
        let names = std::fs::read_dir(scene.files.path("state")).unwrap();
        let mut names: Vec<_> = names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.ends_with(".new"))
            .collect();
        names.sort();
        names
    };
    std::fs::write(scene.files.path("state/b.ledger"), "somebody's notes").unwrap();
    // The name of the one with the other one's platform, a file that is no ledger, and at last what is refused.
    let moved = b.source("a", TOKEN, "");
    let new = c.source("b", TOKEN, "");
    let bad = a.source("c", TOKEN, "    ca_file: config.yaml\n");
    let page = scene.post(&head, &[moved.clone(), new.clone(), bad]).await;
    assert_eq!(page.status, 500, "{}", page.body);
    assert!(page.body.contains("source c: certificate"), "{}", page.body);
    assert_eq!(lying(), ["a.ledger", "b.ledger", "lock"]);
    let notes = std::fs::read_to_string(scene.files.path("state/b.ledger")).unwrap();
    assert_eq!(notes, "somebody's notes");
    assert_eq!(scene.said("set aside"), 0);
    assert_eq!(scene.said("not in the ledger"), 1, "of a, at the start");

    let page = scene.post(&head, &[moved, new]).await;
    assert_eq!(page.status, 200, "{}", page.body);
    let aside: Vec<_> = lying().into_iter().filter(|name| name.contains("unreadable")).collect();
    assert_eq!(aside.len(), 2, "{aside:?}");
    let samples = scene.exporter.had_round("a", "success").await;
    for (source, reason) in [("a", "other_source"), ("b", "foreign")] {
        let labels = [("source", source), ("reason", reason)];
        assert_eq!(
            samples.one("testrun_exporter_ledger_set_aside_total", &labels),
            Some(1.0)
        );
    }
    scene.exporter.had_round("b", "success").await;
}

/// Worlds that live on while the configuration changes all the time; in the end every number is the platform's own.
async fn counts_right_through_reloads(ledger: bool) {
    let worlds = [
        Upstream::start(short_world(Kind::Empirical, 21), Kind::Empirical, "secret-5d1f9a").await,
        Upstream::start(
            short_world(Kind::SamplePlatform, 22),
            Kind::SamplePlatform,
            "secret-5d1f9a",
        )
        .await,
    ];
    let files = Files::new(&[]);
    let state = files.path("state").display().to_string();
    let head = if ledger {
        format!("{HEAD}state: {{ directory: '{state}' }}\n")
    } else {
        HEAD.to_owned()
    };
    let names = ["empirical", "sample"];
    let sources = |number: u32| -> Vec<String> {
        let more = [
            "",
            "    request_timeout: 20s\n",
            "    stale_after: 1h\n    lookback: 20d\n",
            "    lookback: 40d\n    response_bytes_max: 1000000\n",
        ];
        let more = more[number as usize % more.len()];
        let there = |place: u32| !ledger || number % 7 != place;
        let all = worlds.iter().zip(names).zip(0_u32..);
        let there = all.filter(|(_, place)| there(*place));
        there
            .map(|((world, name), _)| world.source(name, TOKEN, more))
            .collect()
    };
    write(&files, &head, &sources(5));
    let exporter = Exporter::start(&files).await;
    let scene = Scene { files, exporter };
    for name in names {
        scene.exporter.had_round(name, "success").await;
    }
    let mut number = 2;
    loop {
        let settled = worlds
            .iter()
            .all(|world| world.platform().settled(crate::harness::wall()));
        let page = scene.post(&head, &sources(number)).await;
        assert_eq!(page.status, 200, "{}", page.body);
        if settled && number % 7 > 1 {
            break;
        }
        number += 1;
        sleep(Duration::from_millis(400)).await;
    }
    for (world, name) in worlds.iter().zip(names) {
        at_rest(world).await;
        all_right(&scene.exporter, world, name).await;
    }
    assert!(number > 12, "{number} reloads");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_go_on_through_reloads_that_change_how_sources_are_read() {
    counts_right_through_reloads(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_ledger_a_source_that_went_comes_back_where_it_was() {
    counts_right_through_reloads(true).await;
}
