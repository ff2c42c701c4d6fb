//! The counters of an exposition, as a Prometheus that scrapes throughout sees them, and what they must be in the end.

use std::collections::BTreeMap;

use testrun_exporter::model::{CaseOutcome, ErrorCode, RunOutcome};
use testrun_exporter::simulate::Truth;
use testrun_exporter::sources::Kind;

/// Series by name and labels, as they are written.
pub(crate) type Samples = BTreeMap<String, f64>;

/// The labels of these, in the order in which they are written.
pub(crate) const LABELS: [&str; 6] = ["source", "environment", "branch", "case", "outcome", "error_code"];

/// Every family that counts what a platform tells. Sums of seconds are left to where they can be compared exactly.
pub(crate) const COUNTED: [&str; 8] = [
    "testrun_runs_total",
    "testrun_run_cases_total",
    "testrun_run_errors_total",
    "testrun_run_duration_seconds_count",
    "testrun_run_queue_duration_seconds_count",
    "testrun_case_results_total",
    "testrun_case_retries_total",
    "testrun_case_duration_seconds_count",
];

/// The counters in a text.
pub(crate) fn counters(text: &str) -> Samples {
    text.lines()
        .filter(|line| {
            COUNTED
                .iter()
                .any(|name| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{')))
        })
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(series, value)| (series.to_owned(), value.parse().unwrap()))
        .collect()
}

/// All scrapes of a test: what was seen last of each series.
#[derive(Clone, Default)]
pub(crate) struct Scrapes {
    last: Samples,
    began: Samples,
    pub(crate) taken: usize,
}

impl Scrapes {
    /// Takes a scrape. No series runs backwards, however many processes have served it, and none begins above 0.
    pub(crate) fn take(&mut self, text: &str, when: &str) {
        self.taken += 1;
        for (series, value) in counters(text) {
            let before = self.last.get(&series).copied();
            assert!(before.is_some() || value == 0.0, "{when}: {series} begins at {value}");
            assert!(
                before.is_none_or(|before| value >= before),
                "{when}: {series} went from {before:?} to {value}"
            );
            self.last.insert(series, value);
        }
    }

    /// Takes a scrape of OpenMetrics in which counters tell when they began. What has counted anything began when it began,
    /// however many processes have served it.
    pub(crate) fn take_beginnings(&mut self, open_metrics: &str, when: &str) {
        for line in open_metrics.lines().filter(|line| line.contains("_created{")) {
            let (series, began) = line.rsplit_once(' ').unwrap();
            let began: f64 = began.parse().unwrap();
            let counters = ["_total{", "_count{"].map(|suffix| series.replacen("_created{", suffix, 1));
            let counted = counters.iter().find_map(|series| self.last.get(series));
            let before = self.began.insert(series.to_owned(), began).unwrap_or(began);
            assert!(
                before == began || before < began && counted == Some(&0.0),
                "{when}: {series} began at {before}, then at {began}, and counts {counted:?}"
            );
        }
    }

    /// How many have told when they began.
    pub(crate) fn beginnings(&self) -> usize {
        self.began.len()
    }

    /// Holds what was counted against the truth. Every series began at 0, so the last value is all that has happened.
    pub(crate) fn compare(&self, truth: &Truth, source: &str, kind: Kind) {
        let wrong = self.differences(truth, source, kind);
        let shown = &wrong[..wrong.len().min(30)];
        assert!(
            wrong.is_empty(),
            "{} counters are wrong:\n{}",
            wrong.len(),
            shown.join("\n")
        );
    }

    /// The same for cases of which most are counted together: what is counted of all cases of a group must be the truth.
    pub(crate) fn all_cases_together(self) -> Self {
        let last = together(&self.last);
        Self { last, ..self }
    }

    pub(crate) fn differences(&self, truth: &Truth, source: &str, kind: Kind) -> Vec<String> {
        let mut expected = expected(truth, source);
        if self.last.keys().any(|series| series.contains(ALL_CASES)) {
            expected = together(&expected);
        }
        // The Sample Platform's runs have no counts of their own: theirs are those of their results.
        let untold = |series: &str| {
            kind == Kind::SamplePlatform
                && series.starts_with("testrun_run_cases_total{")
                && (series.contains("\"skipped\"") || series.contains("\"unknown\""))
        };
        let own = format!("source=\"{source}\"");
        let series = expected.keys().chain(self.last.keys());
        let series = series.filter(|series| series.contains(&own) && !untold(series));
        let value = |samples: &Samples, series: &str| samples.get(series).copied().unwrap_or(0.0);
        let mut wrong: Vec<String> = series
            .filter(|series| value(&expected, series) != value(&self.last, series))
            .map(|series| {
                format!(
                    "{series}: expected {}, got {}",
                    value(&expected, series),
                    value(&self.last, series)
                )
            })
            .collect();
        wrong.dedup();
        wrong
    }

    /// How much was counted, so that a test knows that it has tested something.
    pub(crate) fn sum(&self, family: &str) -> f64 {
        let samples = self
            .last
            .iter()
            .filter(|(series, _)| series.split('{').next() == Some(family));
        samples.map(|(_, value)| value).sum()
    }
}

const ALL_CASES: &str = "case=*";

/// Sums over the label `case`.
fn together(samples: &Samples) -> Samples {
    let mut sums = Samples::new();
    for (series, value) in samples {
        let sum = match series.split_once("case=\"") {
            Some((before, after)) => {
                let after = after.split_once('"').map_or("", |(_, after)| after);
                format!("{before}{ALL_CASES}{after}")
            }
            None => series.clone(),
        };
        *sums.entry(sum).or_default() += value;
    }
    sums
}

fn expected(truth: &Truth, source: &str) -> Samples {
    let mut samples = Samples::new();
    #[expect(clippy::cast_precision_loss, reason = "a test counts less than 2^53")]
    let mut put = |name: &str, labels: &str, value: u64| {
        samples.insert(format!("{name}{{source=\"{source}\",{labels}}}"), value as f64);
    };
    for ((environment, branch), run) in &truth.runs {
        let group = format!("environment=\"{environment}\",branch=\"{branch}\"");
        for outcome in RunOutcome::ALL {
            let labels = format!("{group},outcome=\"{}\"", outcome.label());
            put("testrun_runs_total", &labels, run.runs[outcome.index()]);
        }
        for outcome in CaseOutcome::ALL {
            let labels = format!("{group},outcome=\"{}\"", outcome.label());
            put("testrun_run_cases_total", &labels, run.cases[outcome.index()]);
        }
        put("testrun_run_duration_seconds_count", &group, run.duration.count);
        put("testrun_run_queue_duration_seconds_count", &group, run.queue.count);
    }
    for (environment, errors) in &truth.errors {
        for code in ErrorCode::ALL {
            let labels = format!("environment=\"{environment}\",error_code=\"{}\"", code.label());
            put("testrun_run_errors_total", &labels, errors[code.index()]);
        }
    }
    for ((environment, branch, case), counted) in &truth.cases {
        let row = format!("environment=\"{environment}\",branch=\"{branch}\",case=\"{case}\"");
        for outcome in CaseOutcome::ALL {
            let labels = format!("{row},outcome=\"{}\"", outcome.label());
            put("testrun_case_results_total", &labels, counted.results[outcome.index()]);
        }
        put("testrun_case_retries_total", &row, counted.retries);
        put("testrun_case_duration_seconds_count", &row, counted.duration.count);
    }
    samples
}
