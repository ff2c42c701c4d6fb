//! The whole way, from a platform's socket to a scrape: when a world has come to rest, every number is the platform's own.

use jiff::Timestamp;
use testrun_exporter::model::{CaseOutcome, ErrorCode, RunOutcome};
use testrun_exporter::simulate::{Truth, WorldOptions};
use testrun_exporter::sources::{BranchRule, Branches, Kind};

use crate::harness::{Exporter, Files, Samples, Upstream, output, program, short_world, wait_for, wall};

/// The truth about a platform, under the labels of the default configuration.
pub(crate) fn truth(upstream: &Upstream) -> Truth {
    let rules = ["main", "master"].map(|name| BranchRule::Exact(name.to_owned()));
    let branches = Branches::new(rules.to_vec());
    let first_met = upstream.first_met();
    let mut platform = upstream.platform();
    platform.advance(wall());
    platform.truth(first_met, |branch| branches.label(branch).to_string())
}

/// Waits until nothing will happen in this world any more.
pub(crate) async fn at_rest(upstream: &Upstream) {
    wait_for("the world comes to rest", async || {
        upstream.platform().settled(wall()).then_some(())
    })
    .await;
}

/// Everything that is wrong, for people; empty if every number is right.
pub(crate) fn differences(samples: &Samples, source: &str, kind: Kind, truth: &Truth) -> String {
    let mut comparison = Comparison {
        samples,
        source,
        wrong: String::new(),
    };
    comparison.runs(kind, truth);
    comparison.cases(truth);
    for (environment, counts) in &truth.errors {
        for (code, count) in ErrorCode::ALL.iter().zip(counts).filter(|(_, count)| **count > 0) {
            let labels = [("environment", environment.as_str()), ("error_code", code.label())];
            comparison.count("testrun_run_errors_total", &labels, *count);
        }
    }
    comparison.wrong
}

struct Comparison<'a> {
    samples: &'a Samples,
    source: &'a str,
    wrong: String,
}

impl Comparison<'_> {
    fn value(&mut self, name: &str, labels: &[(&str, &str)], expected: Option<f64>) {
        let labels = [&[("source", self.source)], labels].concat();
        let got = self.samples.one(name, &labels);
        // Sums of seconds may differ in their last bits.
        let equal = match (expected, got) {
            (Some(expected), Some(got)) => (expected - got).abs() < 1e-6,
            (expected, got) => expected == got,
        };
        if !equal {
            self.wrong += &format!("{name}{labels:?}: expected {expected:?}, got {got:?}\n");
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a test's counts are small")]
    fn count(&mut self, name: &str, labels: &[(&str, &str)], expected: u64) {
        self.value(name, labels, Some(expected as f64));
    }

    fn runs(&mut self, kind: Kind, truth: &Truth) {
        for ((environment, branch), group) in &truth.runs {
            let of_group = [("environment", environment.as_str()), ("branch", branch.as_str())];
            let with = |outcome| [of_group[0], of_group[1], ("outcome", outcome)];
            for outcome in RunOutcome::ALL {
                let label = outcome.label();
                self.count("testrun_runs_total", &with(label), group.runs[outcome.index()]);
                let last = group.last.map(|last| f64::from(u8::from(last.outcome == *outcome)));
                self.value("testrun_last_run_outcome", &with(label), last);
            }
            for outcome in CaseOutcome::ALL {
                // The Sample Platform's runs tell no counts of their own; what their results cannot say is not compared.
                let told = !matches!(outcome, CaseOutcome::Skipped | CaseOutcome::Unknown);
                if told || kind == Kind::Empirical {
                    let count = group.cases[outcome.index()];
                    self.count("testrun_run_cases_total", &with(outcome.label()), count);
                }
            }
            self.count("testrun_run_duration_seconds_count", &of_group, group.duration.count);
            self.value(
                "testrun_run_duration_seconds_sum",
                &of_group,
                Some(group.duration.seconds()),
            );
            self.count("testrun_run_queue_duration_seconds_count", &of_group, group.queue.count);
            self.value(
                "testrun_run_queue_duration_seconds_sum",
                &of_group,
                Some(group.queue.seconds()),
            );
            let ended = group.last.map(|last| seconds(last.ended));
            self.value("testrun_last_run_timestamp_seconds", &of_group, ended);
        }
    }

    fn cases(&mut self, truth: &Truth) {
        for ((environment, branch, case), truth) in &truth.cases {
            let of_case = [
                ("environment", environment.as_str()),
                ("branch", branch.as_str()),
                ("case", case.as_str()),
            ];
            let with = |outcome| [of_case[0], of_case[1], of_case[2], ("outcome", outcome)];
            let known = self.samples.of("testrun_case_results_total", &of_case).next().is_some();
            if !known && truth.results == [0; CaseOutcome::COUNT] {
                // Of what finished long before the first meeting, the newest runs are read: nothing was counted, so
                // nothing is lost.
                continue;
            }
            for outcome in CaseOutcome::ALL {
                let count = truth.results[outcome.index()];
                self.count("testrun_case_results_total", &with(outcome.label()), count);
            }
            self.count("testrun_case_retries_total", &of_case, truth.retries);
            self.count("testrun_case_duration_seconds_count", &of_case, truth.duration.count);
            self.value(
                "testrun_case_duration_seconds_sum",
                &of_case,
                Some(truth.duration.seconds()),
            );
            if let Some(last) = truth.last {
                self.count("testrun_case_last_outcome", &with(last.label()), 1);
            }
            self.count("testrun_case_consecutive_failures", &of_case, truth.streak);
            self.value(
                "testrun_case_last_pass_timestamp_seconds",
                &of_case,
                truth.last_pass.map(seconds),
            );
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52 ms")]
fn seconds(millis: i64) -> f64 {
    millis as f64 / 1000.0
}

/// Waits until every number of a source is right. The last differences are shown if that never happens.
pub(crate) async fn all_right(exporter: &Exporter, upstream: &Upstream, source: &str) {
    let last = std::cell::RefCell::new(String::new());
    let right = wait_for("every number is the platform's own", async || {
        let samples = exporter.scrape().await;
        *last.borrow_mut() = differences(&samples, source, upstream.kind, &truth(upstream));
        last.borrow().is_empty().then_some(())
    });
    if tokio::time::timeout(crate::harness::PATIENCE / 2, right).await.is_err() {
        panic!("{source} is still wrong:\n{}", last.borrow());
    }
}

async fn sources(worlds: [WorldOptions; 2]) -> ([Upstream; 2], Files) {
    let [empirical, sample] = worlds;
    let empirical = Upstream::start(empirical, Kind::Empirical, "token-e").await;
    let sample = Upstream::start(sample, Kind::SamplePlatform, "token-s").await;
    let files = Files::new(&[
        empirical.source("shop", "token: token-e", ""),
        sample.source("media", "token: token-s", ""),
    ]);
    ([empirical, sample], files)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_worlds_are_at_rest_every_number_is_the_platforms_own_and_stays_so() {
    let worlds = [short_world(Kind::Empirical, 1), short_world(Kind::SamplePlatform, 2)];
    let ([empirical, sample], files) = sources(worlds).await;
    let exporter = Exporter::start(&files).await;
    at_rest(&empirical).await;
    at_rest(&sample).await;
    all_right(&exporter, &empirical, "shop").await;
    all_right(&exporter, &sample, "media").await;
    assert!(truth(&empirical).counted >= 15 && truth(&sample).counted >= 15);

    let before = exporter.scrape().await;
    exporter.rounds("shop", "success", 3).await;
    let after = exporter.rounds("media", "success", 3).await;
    for source in ["shop", "media"] {
        let (before, after) = (before.data(source), after.data(source));
        assert!(before == after, "it moved:\n{}", before.difference(&after));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_source_costs_one_request_a_round() {
    let worlds = [Kind::Empirical, Kind::SamplePlatform].map(crate::harness::quiet_world);
    let ([empirical, sample], files) = sources(worlds).await;
    let exporter = Exporter::start(&files).await;
    exporter.rounds("shop", "success", 2).await;
    exporter.rounds("media", "success", 2).await;
    for (upstream, source) in [(&empirical, "shop"), (&sample, "media")] {
        let (before, from) = (rounds(&exporter.scrape().await, source), upstream.requests());
        let after = exporter.rounds(source, "success", 4).await;
        let asked = upstream.requests() - from;
        // A round that was under way at either look may have sent its one request.
        let rounds = rounds(&after, source) - before;
        assert!(asked <= rounds + 1, "{source}: {asked} requests in {rounds} rounds");
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count of rounds"
)]
fn rounds(samples: &Samples, source: &str) -> usize {
    samples.sum("testrun_exporter_rounds_total", &[("source", source)]) as usize
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_start_at_zero_whatever_the_platform_already_holds() {
    let worlds = [Kind::Empirical, Kind::SamplePlatform].map(crate::harness::quiet_world);
    let (upstreams, files) = sources(worlds).await;
    let exporter = Exporter::start(&files).await;
    exporter.rounds("shop", "success", 2).await;
    let samples = exporter.rounds("media", "success", 2).await;
    for name in [
        "testrun_runs_total",
        "testrun_case_results_total",
        "testrun_run_cases_total",
    ] {
        for source in ["shop", "media"] {
            let labels = [("source", source)];
            assert!(
                samples.of(name, &labels).count() > 0,
                "{name} of {source} is pre-created"
            );
            assert_eq!(samples.sum(name, &labels), 0.0, "{name} of {source}");
        }
    }
    for (upstream, source) in upstreams.iter().zip(["shop", "media"]) {
        assert_eq!(differences(&samples, source, upstream.kind, &truth(upstream)), "");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_prints_one_whole_round_and_ends_well() {
    let worlds = [Kind::Empirical, Kind::SamplePlatform].map(crate::harness::quiet_world);
    let (upstreams, files) = sources(worlds).await;
    let ended = output(program(&["once", &files.config()])).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let samples = Samples::parse(&ended.stdout);
    for (upstream, source) in upstreams.iter().zip(["shop", "media"]) {
        assert_eq!(samples.up(source), Some(1.0));
        assert_eq!(differences(&samples, source, upstream.kind, &truth(upstream)), "");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_ends_badly_if_a_source_fails_and_still_prints_the_other_ones_data() {
    let worlds = [Kind::Empirical, Kind::SamplePlatform].map(crate::harness::quiet_world);
    let ([empirical, sample], files) = sources(worlds).await;
    empirical.platform().set_down(true);
    let ended = output(program(&["once", &files.config()])).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let samples = Samples::parse(&ended.stdout);
    assert_eq!((samples.up("shop"), samples.up("media")), (Some(0.0), Some(1.0)));
    assert_eq!(samples.data("shop").len(), 1, "nothing but testrun_source_info");
    assert_eq!(differences(&samples, "media", sample.kind, &truth(&sample)), "");
    assert!(
        ended.stderr.contains("source=shop") && ended.stderr.contains("result=unreachable"),
        "{}",
        ended.stderr
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_sample_carries_a_timestamp_and_events_are_told_in_seconds_of_today() {
    let worlds = [Kind::Empirical, Kind::SamplePlatform].map(crate::harness::quiet_world);
    let (_upstreams, files) = sources(worlds).await;
    let ended = output(program(&["once", &files.config()])).await;
    let samples = Samples::parse(&ended.stdout);
    let now = seconds(Timestamp::as_millisecond(wall()));
    let mut seen = 0;
    for (labels, at) in samples.of("testrun_last_run_timestamp_seconds", &[]) {
        assert!((now - 6.0 * 86_400.0..now).contains(&at), "{labels:?}: {at}");
        seen += 1;
    }
    assert!(seen > 2);
}
