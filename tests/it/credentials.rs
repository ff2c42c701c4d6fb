//! Tokens: a rotated file is taken without a restart, and no token is ever shown to anybody but its platform.

use testrun_exporter::sources::Kind;

use crate::harness::{Exporter, Files, Samples, Upstream, output, program};

/// Words that occur nowhere else.
const WRONG: &str = "wrong-3f9c1b7ae2";
const FIRST: &str = "first-77d0e5a913";
const SECOND: &str = "second-b41c6f8d02";

/// Everything that the exporter shows to anybody.
async fn all_that_is_shown(exporter: &Exporter) -> String {
    let mut shown = exporter.process.log() + &exporter.process.stdout();
    for path in ["/", "/metrics", "/api/v1/status", "/-/ready", "/-/healthy", "/nothing"] {
        shown += &exporter.get(path).await.body;
    }
    shown
}

fn assert_hidden(shown: &str) {
    for token in [WRONG, FIRST, SECOND] {
        if let Some(place) = shown.find(token) {
            panic!(
                "a token is shown: {}",
                &shown[place.saturating_sub(200)..place + token.len()]
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_token_is_replaced_in_its_file_and_polling_goes_on_without_a_restart() {
    let upstream = Upstream::quiet(Kind::SamplePlatform, FIRST).await;
    let files = Files::new(&[upstream.source("it", "token_file: token", "")]);
    files.write("token", &format!("{WRONG}\n"));
    let exporter = Exporter::start_with(program(&[&files.config(), "--log.level=trace"])).await;
    let samples = exporter.had_round("it", "unauthorized").await;
    assert_eq!(samples.up("it"), Some(0.0));
    exporter.wait_for_log("the server answered 401").await;
    assert_hidden(&all_that_is_shown(&exporter).await);

    files.write("token", &format!("{FIRST}\n"));
    let samples = exporter.had_round("it", "success").await;
    assert_eq!(samples.up("it"), Some(1.0));
    assert!(samples.data("it").len() > 100);

    let refused = exporter.scrape().await.rounds("it", "unauthorized");
    upstream.platform().rotate_token(SECOND);
    let more = |samples: &Samples| samples.rounds("it", "unauthorized") > refused;
    exporter.wait_until("the old token is refused", more).await;
    files.write("token", SECOND);
    exporter.rounds("it", "success", 1).await;
    assert_hidden(&all_that_is_shown(&exporter).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_token_is_not_tried_again_and_again() {
    let upstream = Upstream::quiet(Kind::Empirical, FIRST).await;
    let files = Files::new(&[upstream.source("it", &format!("token: {WRONG}"), "")]);
    let exporter = Exporter::start(&files).await;
    exporter.had_round("it", "unauthorized").await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(upstream.requests(), 1, "no retry, and no next round within minutes");
    assert_hidden(&all_that_is_shown(&exporter).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_file_that_vanishes_is_named_and_does_not_end_the_process() {
    let upstream = Upstream::quiet(Kind::Empirical, FIRST).await;
    let files = Files::new(&[upstream.source("it", "token_file: token", "")]);
    files.write("token", FIRST);
    let exporter = Exporter::start(&files).await;
    exporter.had_round("it", "success").await;
    std::fs::remove_file(files.path("token")).unwrap();
    exporter.had_round("it", "unauthorized").await;
    let path = files.path("token").display().to_string();
    exporter.wait_for_log(&format!("token file {path}")).await;
    files.write("token", FIRST);
    exporter.rounds("it", "success", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_config_shows_no_token() {
    let upstream = Upstream::quiet(Kind::Empirical, FIRST).await;
    for more in ["", "    unknown_key: 1\n"] {
        let files = Files::new(&[upstream.source("it", &format!("token: {FIRST}"), more)]);
        let ended = output(program(&["check-config", &files.config()])).await;
        assert_hidden(&(ended.stdout + &ended.stderr));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_can_come_from_a_variable_that_the_configuration_names() {
    let upstream = Upstream::quiet(Kind::Empirical, FIRST).await;
    let files = Files::new(&[upstream.source("it", "token_env: SHOP_TOKEN", "")]);
    let mut command = program(&[&files.config(), "--log.level=trace"]);
    command.env("SHOP_TOKEN", FIRST);
    let exporter = Exporter::start_with(command).await;
    exporter.had_round("it", "success").await;
    assert_hidden(&all_that_is_shown(&exporter).await);
}
