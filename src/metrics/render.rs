//! A snapshot as text: every family of the platforms' data, in the catalog's order, series sorted.
//! Never computes a value, never holds one between two calls, never sees a clock. Pure and in one pass.
//!
//! Series are sorted by source, environment, branch and case; the members of a closed set stand in the set's own order.
//! Another format (exemplars, compression) would be another writer beside `text`, over the same [`Prepared`] rows.

use std::collections::BTreeSet;
use std::ops::Range;

use bytes::Bytes;

use crate::metrics::catalog;
use crate::metrics::text::{Page, Samples, push_identity_label, push_text_label};
use crate::model::{CaseOutcome, Group, Name, RunOutcome};
use crate::store::{CaseRow, GroupRow, Snapshot, SourceSnapshot};

/// The text of a snapshot.
#[derive(Debug, Clone, Default)]
pub struct Rendered {
    /// The snapshot's generation.
    pub generation: u64,
    /// Whole families, each ending with a line feed. Empty if there is nothing to show.
    pub text: Bytes,
    /// Series by family, families without any left out.
    pub series: Vec<(&'static str, u64)>,
}

/// Renders a snapshot.
#[must_use]
pub fn render(snapshot: &Snapshot) -> Rendered {
    let mut sources: Vec<_> = snapshot.sources.iter().map(|source| Prepared::new(source)).collect();
    sources.sort_by(|a, b| a.source.source.cmp(&b.source.source));
    let mut page = Page::with_capacity(sources.iter().map(Prepared::text_bytes).sum());
    write_runs(&mut page, &sources);
    write_last_runs(&mut page, &sources);
    write_case_counts(&mut page, &sources);
    write_case_totals(&mut page, &sources);
    write_case_states(&mut page, &sources);
    write_bookkeeping(&mut page, &sources);
    let series = page.series().to_vec();
    Rendered {
        generation: snapshot.generation,
        text: Bytes::from(page.into_text()),
        series,
    }
}

/// One source with its rows sorted and their labels written: each label is escaped once, not once per family.
struct Prepared<'a> {
    source: &'a SourceSnapshot,
    labels: String,
    environments: Vec<(String, &'a Name)>,
    groups: Vec<(String, &'a GroupRow)>,
    cases: Vec<(Range<usize>, &'a CaseRow)>,
    /// The labels of all cases, end to end: one allocation instead of one per case.
    case_labels: String,
}

impl<'a> Prepared<'a> {
    fn new(source: &'a SourceSnapshot) -> Self {
        let mut labels = String::new();
        push_identity_label(&mut labels, "source", &source.source);

        let environments: BTreeSet<&Name> = (source.groups.iter().map(|row| &row.group.environment))
            .chain(source.runs_active.keys())
            .chain(source.run_errors.keys())
            .collect();
        let environments = environments
            .into_iter()
            .map(|name| (environment_labels(&labels, name), name))
            .collect();

        let mut groups: Vec<_> = source.groups.iter().collect();
        groups.sort_by(|a, b| a.group.cmp(&b.group));
        let groups = groups
            .into_iter()
            .map(|row| (group_labels(&labels, &row.group), row))
            .collect();

        let mut rows: Vec<_> = source.cases.iter().collect();
        rows.sort_by(|a, b| (&a.group, &a.case).cmp(&(&b.group, &b.case)));
        let mut case_labels = String::new();
        let mut cases = Vec::with_capacity(rows.len());
        // Sorted, so that the cases of a group stand together and its labels are written once.
        for same_group in rows.chunk_by(|a, b| a.group == b.group) {
            let prefix = group_labels(&labels, &same_group[0].group);
            for row in same_group {
                let start = case_labels.len();
                case_labels.push_str(&prefix);
                push_identity_label(&mut case_labels, "case", &row.case);
                cases.push((start..case_labels.len(), *row));
            }
        }
        Self {
            source,
            labels,
            environments,
            groups,
            cases,
            case_labels,
        }
    }

    /// A guess at the text's size that is seldom too small: growing a buffer of tens of megabytes copies it.
    fn text_bytes(&self) -> usize {
        const SERIES_PER_CASE: usize = 14;
        const SERIES_PER_GROUP: usize = 60;
        const BYTES_PER_SERIES_BESIDE_LABELS: usize = 64;
        let case_series = self.cases.len() * SERIES_PER_CASE;
        let group_series = self.groups.len() * SERIES_PER_GROUP;
        let labels = self.case_labels.len() * SERIES_PER_CASE + group_series * 64;
        (case_series + group_series) * BYTES_PER_SERIES_BESIDE_LABELS + labels + 16_384
    }

    fn cases(&self) -> impl Iterator<Item = (&str, &'a CaseRow)> {
        self.cases
            .iter()
            .map(|(labels, row)| (&self.case_labels[labels.clone()], *row))
    }
}

fn environment_labels(source_labels: &str, environment: &str) -> String {
    let mut labels = source_labels.to_owned();
    push_identity_label(&mut labels, "environment", environment);
    labels
}

fn group_labels(source_labels: &str, group: &Group) -> String {
    let mut labels = environment_labels(source_labels, &group.environment);
    push_identity_label(&mut labels, "branch", &group.branch);
    labels
}

fn groups<'p, 'a>(sources: &'p [Prepared<'a>]) -> impl Iterator<Item = (&'p str, &'a GroupRow)> {
    sources
        .iter()
        .flat_map(|source| source.groups.iter().map(|(labels, row)| (labels.as_str(), *row)))
}

fn cases<'p, 'a>(sources: &'p [Prepared<'a>]) -> impl Iterator<Item = (&'p str, &'a CaseRow)> {
    sources.iter().flat_map(Prepared::cases)
}

fn write_runs(page: &mut Page, sources: &[Prepared<'_>]) {
    page.family(&catalog::RUNS_TOTAL, |out| {
        for (labels, row) in groups(sources) {
            for outcome in RunOutcome::ALL {
                out.put_with(labels, "outcome", outcome.label(), row.runs[outcome.index()]);
            }
        }
    });
    page.family(&catalog::RUNS_ACTIVE, |out| {
        for source in sources {
            for (labels, environment) in &source.environments {
                let counts = source.source.runs_active.get(*environment);
                for state in source.source.active_states {
                    let count = counts.map_or(0, |counts| counts[state.index()]);
                    out.put_with(labels, "state", state.label(), count);
                }
            }
        }
    });
    page.family(&catalog::RUN_ERRORS_TOTAL, |out| {
        for source in sources {
            for (labels, environment) in &source.environments {
                let counts = source.source.run_errors.get(*environment);
                for code in source.source.error_codes {
                    let count = counts.map_or(0, |counts| counts[code.index()]);
                    out.put_with(labels, "error_code", code.label(), count);
                }
            }
        }
    });
    page.family(&catalog::RUN_DURATION_SECONDS, |out| {
        for (labels, GroupRow { duration, .. }) in groups(sources) {
            out.put_histogram(labels, duration.bounds, &duration.counts, duration.sum);
        }
    });
    page.family(&catalog::RUN_QUEUE_DURATION_SECONDS, |out| {
        for (labels, GroupRow { queue, .. }) in groups(sources) {
            out.put_histogram(labels, queue.bounds, &queue.counts, queue.sum);
        }
    });
    page.family(&catalog::RUN_CASES_TOTAL, |out| {
        for (labels, row) in groups(sources) {
            put_case_outcomes(out, labels, &row.cases);
        }
    });
}

fn put_case_outcomes(out: &mut Samples<'_>, labels: &str, counts: &[u64; CaseOutcome::COUNT]) {
    for outcome in CaseOutcome::ALL {
        out.put_with(labels, "outcome", outcome.label(), counts[outcome.index()]);
    }
}

fn write_last_runs(page: &mut Page, sources: &[Prepared<'_>]) {
    let last_runs = || groups(sources).filter_map(|(labels, row)| Some((labels, row.last.as_ref()?)));
    page.family(&catalog::LAST_RUN_OUTCOME, |out| {
        for (labels, run) in last_runs() {
            for outcome in RunOutcome::ALL {
                out.put_with(labels, "outcome", outcome.label(), u64::from(*outcome == run.outcome));
            }
        }
    });
    page.family(&catalog::LAST_RUN_TIMESTAMP_SECONDS, |out| {
        for (labels, run) in last_runs() {
            if let Some(ended) = run.ended {
                out.put(labels, ended);
            }
        }
    });
    page.family(&catalog::LAST_RUN_DURATION_SECONDS, |out| {
        for (labels, run) in last_runs() {
            if let Some(seconds) = run.duration_seconds {
                out.put(labels, seconds);
            }
        }
    });
    page.family(&catalog::LAST_RUN_CASES, |out| {
        for (labels, run) in last_runs() {
            for outcome in CaseOutcome::ALL {
                if let Some(count) = run.counts[outcome.index()] {
                    out.put_with(labels, "outcome", outcome.label(), count);
                }
            }
        }
    });
    page.family(&catalog::LAST_RUN_INFO, |out| {
        for (labels, run) in last_runs() {
            let mut labels = labels.to_owned();
            push_text_label(&mut labels, "run_id", &run.id.to_string());
            push_text_label(&mut labels, "commit", run.commit.as_deref().unwrap_or_default());
            push_text_label(&mut labels, "build_url", run.build_url.as_deref().unwrap_or_default());
            out.put(&labels, 1);
        }
    });
}

fn write_case_counts(page: &mut Page, sources: &[Prepared<'_>]) {
    page.family(&catalog::CASES, |out| {
        for source in sources {
            for (environment, counts) in &source.source.case_outcomes {
                put_case_outcomes(out, &environment_labels(&source.labels, environment), counts);
            }
        }
    });
    page.family(&catalog::CASE_INFO, |out| {
        for source in sources {
            let mut infos: Vec<_> = source.source.case_infos.iter().collect();
            infos.sort_by(|a, b| a.case.cmp(&b.case));
            for info in infos {
                let mut labels = source.labels.clone();
                push_identity_label(&mut labels, "case", &info.case);
                push_text_label(&mut labels, "name", &info.name);
                push_text_label(&mut labels, "suite", &info.suite);
                push_text_label(&mut labels, "file", &info.file);
                out.put(&labels, 1);
            }
        }
    });
}

fn write_case_totals(page: &mut Page, sources: &[Prepared<'_>]) {
    page.family(&catalog::CASE_RESULTS_TOTAL, |out| {
        for (labels, row) in cases(sources) {
            put_case_outcomes(out, labels, &row.results);
        }
    });
    page.family(&catalog::CASE_RETRIES_TOTAL, |out| {
        for (labels, row) in cases(sources) {
            out.put(labels, row.retries);
        }
    });
    page.family(&catalog::CASE_DURATION_SECONDS, |out| {
        for (labels, row) in cases(sources) {
            out.put_sum_and_count(labels, row.duration_sum, row.duration_count);
        }
    });
}

fn write_case_states(page: &mut Page, sources: &[Prepared<'_>]) {
    let last_results = || cases(sources).filter_map(|(labels, row)| Some((labels, row, row.last.as_ref()?)));
    page.family(&catalog::CASE_LAST_OUTCOME, |out| {
        for (labels, _, last) in last_results() {
            out.put_with(labels, "outcome", last.outcome.label(), 1);
        }
    });
    page.family(&catalog::CASE_LAST_RUN_TIMESTAMP_SECONDS, |out| {
        for (labels, _, last) in last_results() {
            if let Some(at) = last.at {
                out.put(labels, at);
            }
        }
    });
    page.family(&catalog::CASE_LAST_PASS_TIMESTAMP_SECONDS, |out| {
        for (labels, row) in cases(sources) {
            if let Some(at) = row.last_pass {
                out.put(labels, at);
            }
        }
    });
    page.family(&catalog::CASE_LAST_DURATION_SECONDS, |out| {
        for (labels, _, last) in last_results() {
            if let Some(seconds) = last.duration_seconds {
                out.put(labels, seconds);
            }
        }
    });
    page.family(&catalog::CASE_CONSECUTIVE_FAILURES, |out| {
        for (labels, row, _) in last_results() {
            out.put(labels, row.consecutive_failures);
        }
    });
}

fn write_bookkeeping(page: &mut Page, sources: &[Prepared<'_>]) {
    page.family(&catalog::SERIES_FOLDED, |out| {
        for source in sources {
            out.put(&source.labels, source.source.cases_left_out);
        }
    });
    // Last, because it counts what is above, in names' order like every other label.
    let mut series: Vec<_> = page.series().to_vec();
    series.retain(|(name, _)| *name != catalog::SERIES_FOLDED.name);
    series.sort_unstable();
    page.family(&catalog::SERIES, |out| {
        for (name, count) in series {
            out.put_with("", "family", name, count);
        }
    });
}

#[cfg(test)]
mod tests;
