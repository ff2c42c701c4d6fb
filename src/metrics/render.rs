//! A snapshot as text: every family of the platforms' data, in the catalog's order, series sorted, in both formats.
//! Never computes a value, never sees a clock. Keeps what it rendered last, so that a change costs what has changed.
//!
//! Series are sorted by source, environment, branch and case; the members of a closed set stand in the set's own order.
//! What grows with the number of cases is rendered in blocks of rows; the rest is small and rendered anew each time, and
//! kept where it reads as before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use crate::health::Health;
use crate::metrics::blocks::{Column, Row, Table};
use crate::metrics::catalog::{self, Family};
use crate::metrics::exposition::{Assembly, Content, Exposition, Packer, Part, Segment, Stretch};
use crate::metrics::text::{Exemplar, Format, Page, Samples, push_head, push_identity_label, push_text_label};
use crate::model::{CaseInfo, CaseOutcome, Group, Name, RunOutcome, Verdict};
use crate::store::{CaseRow, CountedRun, GroupRow, Histogram, Snapshot, SnoozeRow, SourceSnapshot};

/// Small families are compressed together, in pieces of about this size.
const SMALL_BYTES: usize = 16 * 1024;

/// The text of a snapshot.
#[derive(Debug, Clone)]
pub struct Rendered {
    /// The snapshot's generation.
    pub generation: u64,
    /// In the text format 0.0.4.
    pub text: Exposition,
    /// In OpenMetrics.
    pub open_metrics: Exposition,
    /// Series by family, as in the text format; families without any left out.
    pub series: Vec<(&'static str, u64)>,
}

impl Rendered {
    /// The exposition in a format.
    #[must_use]
    pub fn exposition(&self, format: Format) -> &Exposition {
        match format {
            Format::Text => &self.text,
            Format::OpenMetrics => &self.open_metrics,
        }
    }
}

/// Renders one snapshot after the other.
#[derive(Debug, Default)]
pub struct Renderer {
    packer: Packer,
    sources: BTreeMap<Name, Tables>,
    /// By format.
    last: [Last; Format::ALL.len()],
}

/// What the last exposition of a format was put together from, beside the tables.
#[derive(Debug, Default)]
struct Last {
    exposition: Option<Exposition>,
    /// The pieces of small families, in their order.
    small: Vec<Small>,
}

/// Some small families, or a family's head.
#[derive(Debug, Default)]
struct Small {
    text: Bytes,
    segment: Segment,
    stretch: Stretch,
}

/// What is kept of one source.
#[derive(Debug)]
struct Tables {
    shown: Arc<SourceSnapshot>,
    labels: Arc<str>,
    cases: Table,
    infos: Table,
}

impl Tables {
    fn updated(known: Option<Self>, source: &Arc<SourceSnapshot>) -> Self {
        let (mut cases, mut infos, shown) = match known {
            Some(known) if Arc::ptr_eq(&known.shown, source) => return known,
            Some(known) => (known.cases, known.infos, Some(known.shown)),
            None => (Table::default(), Table::default(), None),
        };
        let mut labels = String::new();
        push_identity_label(&mut labels, "source", &source.source);
        let (old_cases, old_infos) = shown
            .as_ref()
            .map_or((&[][..], &[][..]), |shown| (&shown.cases, &shown.case_infos));
        cases.update(old_cases, &source.cases);
        infos.update(old_infos, &source.case_infos);
        Self {
            cases,
            infos,
            labels: labels.into(),
            shown: Arc::clone(source),
        }
    }
}

impl Renderer {
    /// Renders a snapshot, and compresses it in both formats. Its rows are sorted as [`SourceSnapshot`] says.
    pub fn render(&mut self, snapshot: &Snapshot) -> Rendered {
        self.render_for(snapshot, &Format::ALL)
    }

    /// Renders a snapshot in both formats, and compresses it in these: that is most of the work.
    pub fn render_for(&mut self, snapshot: &Snapshot, packed: &[Format]) -> Rendered {
        let mut known = std::mem::take(&mut self.sources);
        for source in &snapshot.sources {
            let name = source.source.clone();
            let tables = Tables::updated(known.remove(&name), source);
            self.sources.insert(name, tables);
        }
        // What is compressed comes first: what it has written need not be written again for the other one.
        let (text, open_metrics, series);
        if packed.contains(&Format::Text) || !packed.contains(&Format::OpenMetrics) {
            (text, series) = self.assemble(Format::Text, packed);
            (open_metrics, _) = self.assemble(Format::OpenMetrics, packed);
        } else {
            (open_metrics, _) = self.assemble(Format::OpenMetrics, packed);
            (text, series) = self.assemble(Format::Text, packed);
        }
        for tables in self.sources.values_mut() {
            tables.cases.written();
            tables.infos.written();
        }
        Rendered {
            generation: snapshot.generation,
            text,
            open_metrics,
            series,
        }
    }

    fn assemble(&mut self, format: Format, packed: &[Format]) -> (Exposition, Vec<(&'static str, u64)>) {
        let Last { exposition, mut small } = std::mem::take(&mut self.last[format as usize]);
        let was_packed = exposition.as_ref().is_some_and(|last| last.packed().is_some());
        let packer = packed.contains(&format).then_some(&mut self.packer);
        if was_packed && packer.is_none() {
            for Small { segment, stretch, .. } in &mut small {
                segment.unpack();
                stretch.unpack();
            }
            for tables in self.sources.values_mut() {
                tables.cases.unpack(format);
                tables.infos.unpack(format);
            }
        }
        let mut writer = Writer {
            format,
            known_small: small.into_iter(),
            small: Vec::new(),
            assembly: Assembly::new(format, packer),
            series: Vec::new(),
        };
        let sources: Vec<_> = self.sources.values().map(|tables| tables.shown.clone()).collect();
        let sources: Vec<_> = sources.iter().map(|source| Prepared::new(source)).collect();
        writer.small_families(|page| {
            write_runs(page, &sources);
            write_last_runs(page, &sources);
            write_case_counts(page, &sources);
            write_snoozes(page, &sources);
        });
        writer.columns::<CaseInfo>(&mut self.sources, |tables| &mut tables.infos);
        writer.columns::<CaseRow>(&mut self.sources, |tables| &mut tables.cases);
        let series = writer.series.clone();
        writer.small_families(|page| write_bookkeeping(page, &sources, series));
        let Writer {
            small,
            assembly,
            series,
            ..
        } = writer;
        let exposition = assembly.finish(exposition.as_ref());
        self.last[format as usize] = Last {
            exposition: Some(exposition.clone()),
            small,
        };
        (exposition, series)
    }
}

/// Renders a snapshot once.
#[must_use]
pub fn render(snapshot: &Snapshot) -> Rendered {
    Renderer::default().render(snapshot)
}

/// One format's exposition being written, small families and columns in turn.
struct Writer<'a> {
    format: Format,
    known_small: std::vec::IntoIter<Small>,
    small: Vec<Small>,
    assembly: Assembly<'a>,
    series: Vec<(&'static str, u64)>,
}

impl Writer<'_> {
    fn small_families(&mut self, write: impl FnOnce(&mut Page)) {
        let mut page = Page::new(self.format);
        write(&mut page);
        self.series.extend_from_slice(page.series());
        let text = page.into_text();
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let cut = rest.as_bytes().iter().skip(SMALL_BYTES).position(|byte| *byte == b'\n');
            let (piece, after) = rest.split_at(cut.map_or(rest.len(), |place| SMALL_BYTES + place + 1));
            self.small_text(piece);
            rest = after;
        }
    }

    /// Texts are compared with those in the same places last time: which families there are seldom changes.
    fn small_text(&mut self, text: &str) {
        let known = self.known_small.next().filter(|known| known.text == text.as_bytes());
        let mut small = known.unwrap_or_else(|| Small {
            text: Bytes::copy_from_slice(text.as_bytes()),
            ..Small::default()
        });
        let part = Part {
            segment: &mut small.segment,
            twin: None,
            is_twin: false,
            serial: 0,
            write: |out: &mut String| {
                out.push_str(text);
                0
            },
        };
        self.assembly.push_content(Content::Kept(small.text.clone()));
        self.assembly.push(&mut small.stretch, std::iter::once(part));
        self.small.push(small);
    }

    fn columns<R: Row<Shown = SourceSnapshot>>(
        &mut self,
        sources: &mut BTreeMap<Name, Tables>,
        table: impl Fn(&mut Tables) -> &mut Table,
    ) {
        for (place, Column { family, .. }) in R::COLUMNS.iter().enumerate() {
            let mark = self.assembly.mark();
            let mut head = String::new();
            push_head(&mut head, family, self.format);
            self.small_text(&head);
            let mut series = 0;
            for tables in sources.values_mut() {
                let (shown, labels) = (Arc::clone(&tables.shown), Arc::clone(&tables.labels));
                series += table(tables).push::<R>(place, self.format, &shown, &labels, &mut self.assembly);
            }
            if series > 0 {
                self.series.push((family.name, series));
            } else {
                self.assembly.take_back(mark);
            }
        }
    }
}

/// A name is shared by whoever uses it, so that two are mostly one, which is known without reading them.
fn same_name(one: &Name, other: &Name) -> bool {
    Arc::ptr_eq(one, other) || one == other
}

impl Row for CaseRow {
    type Shown = SourceSnapshot;

    fn rows(shown: &SourceSnapshot) -> &[Self] {
        &shown.cases
    }

    fn is_before(&self, other: &Self) -> bool {
        (&self.group, &self.case) < (&other.group, &other.case)
    }

    fn is_like(&self, other: &Self) -> bool {
        // All of it, so that nothing is forgotten when there is more.
        let Self {
            group: Group { environment, branch },
            case,
            counts,
            came_back_at: _,
            last,
            last_pass,
            consecutive_failures,
            snoozed,
            failing_since,
            health,
            counted,
            created,
        } = self;
        let same_health = |(a, b): (&Option<Arc<Health>>, &Option<Arc<Health>>)| match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
            (None, None) => true,
            _ => false,
        };
        let same_run = |(a, b): (&Option<Arc<CountedRun>>, &Option<Arc<CountedRun>>)| match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
            (None, None) => true,
            _ => false,
        };
        same_name(case, &other.case)
            && counts == &other.counts
            && last == &other.last
            && (last_pass, consecutive_failures, snoozed)
                == (&other.last_pass, &other.consecutive_failures, &other.snoozed)
            && (failing_since, created) == (&other.failing_since, &other.created)
            && same_health((health, &other.health))
            && same_name(environment, &other.group.environment)
            && same_name(branch, &other.group.branch)
            && counted.iter().zip(&other.counted).all(same_run)
    }

    fn with_labels(rows: &[Self], source_labels: &str, mut use_labels: impl FnMut(&str)) {
        let mut labels = String::new();
        // Sorted, so that the cases of a group stand together and its labels are written once.
        for same_group in rows.chunk_by(|a, b| a.group == b.group) {
            let prefix = group_labels(source_labels, &same_group[0].group);
            for row in same_group {
                labels.clone_from(&prefix);
                push_identity_label(&mut labels, "case", &row.case);
                use_labels(&labels);
            }
        }
    }

    const COLUMNS: &'static [Column<Self>] = &[
        Column {
            // There may be exemplars.
            varies: |_| true,
            ..column(&catalog::CASE_RESULTS_TOTAL, |out, labels, row| {
                for outcome in CaseOutcome::ALL {
                    let by = row.counted[outcome.index()].as_deref().map(|run| exemplar(run, 1.0));
                    let (extra, count) = (("outcome", outcome.label()), row.counts.results[outcome.index()]);
                    out.put_counted(labels, extra, count, by);
                    out.put_created(labels, &[extra], row.created);
                }
            })
        },
        Column {
            varies: tell_created,
            ..column(&catalog::CASE_RETRIES_TOTAL, |out, labels, row| {
                out.put(labels, row.counts.retries);
                out.put_created(labels, &[], row.created);
            })
        },
        Column {
            varies: tell_created,
            ..column(&catalog::CASE_DURATION_SECONDS, |out, labels, row| {
                out.put_sum_and_count(labels, row.counts.duration_sum, row.counts.duration_count);
                out.put_created(labels, &[], row.created);
            })
        },
        column(&catalog::CASE_LAST_OUTCOME, |out, labels, row| {
            if let Some(last) = &row.last {
                out.put_with(labels, "outcome", last.outcome.label(), 1);
            }
        }),
        column(&catalog::CASE_LAST_RUN_TIMESTAMP_SECONDS, |out, labels, row| {
            if let Some(at) = row.last.as_ref().and_then(|last| last.at) {
                out.put(labels, at);
            }
        }),
        column(&catalog::CASE_LAST_PASS_TIMESTAMP_SECONDS, |out, labels, row| {
            if let Some(at) = row.last_pass {
                out.put(labels, at);
            }
        }),
        column(&catalog::CASE_LAST_DURATION_SECONDS, |out, labels, row| {
            if let Some(seconds) = row.last.as_ref().and_then(|last| last.duration_seconds) {
                out.put(labels, seconds);
            }
        }),
        column(&catalog::CASE_CONSECUTIVE_FAILURES, |out, labels, row| {
            if row.last.is_some() {
                out.put(labels, row.consecutive_failures);
            }
        }),
        column(&catalog::CASE_SNOOZED, |out, labels, row| {
            if row.snoozed {
                out.put(labels, 1);
            }
        }),
        column(&catalog::CASE_FAILING_SINCE_TIMESTAMP_SECONDS, |out, labels, row| {
            if let Some(since) = row.failing_since {
                out.put(labels, since);
            }
        }),
        column(&catalog::CASE_VERDICT, |out, labels, row| {
            if let Some(health) = &row.health {
                out.put_with(labels, "verdict", health.verdict.label(), 1);
            }
        }),
        column(&catalog::CASE_FLAKE_PROBABILITY, |out, labels, row| {
            if let Some(odds) = row.health.as_ref().and_then(|health| health.flake_probability) {
                out.put(labels, odds);
            }
        }),
        column(&catalog::CASE_REGRESSION_PROBABILITY, |out, labels, row| {
            if let Some(odds) = row.health.as_ref().and_then(|health| health.regression_probability) {
                out.put(labels, odds);
            }
        }),
        column(&catalog::CASE_STREAK_COMMITS, |out, labels, row| {
            if let Some(health) = row.health.as_ref().filter(|_| row.consecutive_failures > 0) {
                out.put(labels, u64::from(health.streak_commits));
            }
        }),
        column(&catalog::CASE_STREAK_SIGNATURES, |out, labels, row| {
            put_unless_zero(out, labels, row, |health| u64::from(health.streak_signatures));
        }),
        column(&catalog::CASE_WINDOW_RESULTS, |out, labels, row| {
            let Some(health) = &row.health else { return };
            let window = health.window_size.to_string();
            for outcome in CaseOutcome::ALL {
                let count = health.window[outcome.index()];
                if count > 0 {
                    let extra = [("outcome", outcome.label()), ("window", &window)];
                    out.put_with_all(labels, &extra, u64::from(count));
                }
            }
        }),
        column(&catalog::CASE_WINDOW_RETRIES, |out, labels, row| {
            put_unless_zero(out, labels, row, |health| health.window_retries);
        }),
        column(&catalog::CASE_FLIPS, |out, labels, row| {
            put_unless_zero(out, labels, row, |health| u64::from(health.flips));
        }),
        column(&catalog::CASE_CONTRADICTORY_COMMITS, |out, labels, row| {
            put_unless_zero(out, labels, row, |health| u64::from(health.contradictory_commits));
        }),
    ];
}

fn tell_created(rows: &[CaseRow]) -> bool {
    rows.iter().any(|row| row.created.is_some())
}

/// Most cases have none of most things, and a series that says so says nothing.
fn put_unless_zero(out: &mut Samples<'_>, labels: &str, row: &CaseRow, count: impl Fn(&Health) -> u64) {
    if let Some(count) = row.health.as_deref().map(count).filter(|count| *count > 0) {
        out.put(labels, count);
    }
}

impl Row for CaseInfo {
    type Shown = SourceSnapshot;

    fn rows(shown: &SourceSnapshot) -> &[Self] {
        &shown.case_infos
    }

    fn is_before(&self, other: &Self) -> bool {
        self.case < other.case
    }

    fn is_like(&self, other: &Self) -> bool {
        self == other
    }

    fn with_labels(rows: &[Self], source_labels: &str, mut use_labels: impl FnMut(&str)) {
        let mut labels = String::new();
        for row in rows {
            source_labels.clone_into(&mut labels);
            push_identity_label(&mut labels, "case", &row.case);
            push_text_label(&mut labels, "name", &row.name);
            push_text_label(&mut labels, "suite", &row.suite);
            push_text_label(&mut labels, "file", &row.file);
            push_text_label(&mut labels, "tags", row.tags.as_deref().unwrap_or_default());
            use_labels(&labels);
        }
    }

    const COLUMNS: &'static [Column<Self>] = &[column(&catalog::CASE_INFO, |out, labels, _| out.put(labels, 1))];
}

const fn column<R>(family: &'static Family, write: fn(&mut Samples<'_>, &str, &R)) -> Column<R> {
    Column {
        family,
        varies: |_| false,
        write,
    }
}

fn exemplar(by: &CountedRun, value: f64) -> Exemplar<'_> {
    Exemplar {
        run: by.run,
        url: by.url.as_deref(),
        at: by.at,
        value,
    }
}

/// One source with what the small families need sorted and its labels written: each label is escaped once.
struct Prepared<'a> {
    source: &'a SourceSnapshot,
    labels: String,
    environments: Vec<(String, &'a Name)>,
    groups: Vec<(String, &'a GroupRow)>,
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
        Self {
            source,
            labels,
            environments,
            groups,
        }
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

fn write_runs(page: &mut Page, sources: &[Prepared<'_>]) {
    page.family(&catalog::RUNS_TOTAL, |out| {
        for (labels, row) in groups(sources) {
            for outcome in RunOutcome::ALL {
                let by = row.counted[outcome.index()].as_deref().map(|run| exemplar(run, 1.0));
                let extra = ("outcome", outcome.label());
                out.put_counted(labels, extra, row.runs[outcome.index()], by);
                out.put_created(labels, &[extra], row.created);
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
                let errors = source.source.run_errors.get(*environment);
                for code in source.source.error_codes {
                    let extra = ("error_code", code.label());
                    out.put_with(
                        labels,
                        extra.0,
                        extra.1,
                        errors.map_or(0, |errors| errors.counts[code.index()]),
                    );
                    out.put_created(labels, &[extra], errors.and_then(|errors| errors.created));
                }
            }
        }
    });
    page.family(&catalog::RUN_DURATION_SECONDS, |out| {
        for (labels, GroupRow { duration, created, .. }) in groups(sources) {
            put_histogram(out, labels, duration, *created);
        }
    });
    page.family(&catalog::RUN_QUEUE_DURATION_SECONDS, |out| {
        for (labels, GroupRow { queue, created, .. }) in groups(sources) {
            put_histogram(out, labels, queue, *created);
        }
    });
    page.family(&catalog::RUN_CASES_TOTAL, |out| {
        for (labels, row) in groups(sources) {
            for outcome in CaseOutcome::ALL {
                let extra = ("outcome", outcome.label());
                out.put_with(labels, extra.0, extra.1, row.cases[outcome.index()]);
                out.put_created(labels, &[extra], row.created);
            }
        }
    });
}

fn put_histogram(out: &mut Samples<'_>, labels: &str, histogram: &Histogram, created: Option<Timestamp>) {
    let mut below = 0;
    let bounds = histogram.bounds.iter().copied().chain([f64::INFINITY]);
    for ((bound, count), by) in bounds.zip(&histogram.counts).zip(&histogram.counted) {
        below += count;
        out.put_bucket(
            labels,
            bound,
            below,
            by.as_ref().map(|(run, value)| exemplar(run, *value)),
        );
    }
    out.put_sum_and_count(labels, histogram.sum, below);
    out.put_created(labels, &[], created);
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
    page.family(&catalog::LAST_RUN_CASES_FAILED_AFTER_SNOOZE, |out| {
        for (labels, row) in groups(sources) {
            if let Some(failed) = row.failed_after_snooze {
                out.put(labels, failed);
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
                let labels = environment_labels(&source.labels, environment);
                for (outcome, counts) in CaseOutcome::ALL.iter().zip(counts) {
                    for (verdict, count) in Verdict::ALL.iter().zip(counts) {
                        let extra = [("outcome", outcome.label()), ("verdict", verdict.label())];
                        out.put_with_all(&labels, &extra, *count);
                    }
                }
            }
        }
    });
}

fn write_snoozes(page: &mut Page, sources: &[Prepared<'_>]) {
    let rows = || {
        let of_source = |source: &'_ Prepared<'_>| -> Vec<(String, SnoozeRow)> {
            let rows = source.source.snoozes.iter();
            rows.map(|(environment, row)| (environment_labels(&source.labels, environment), row.clone()))
                .collect()
        };
        sources.iter().flat_map(of_source)
    };
    page.family(&catalog::SNOOZES_ACTIVE, |out| {
        for (labels, row) in rows() {
            out.put(&labels, row.active);
        }
    });
    page.family(&catalog::SNOOZED_CASES, |out| {
        for (labels, row) in rows() {
            if let Some(cases) = row.cases {
                out.put(&labels, cases);
            }
        }
    });
    page.family(&catalog::SNOOZE_NEXT_EXPIRY_TIMESTAMP_SECONDS, |out| {
        for (labels, row) in rows() {
            if let Some(at) = row.next_expiry {
                out.put(&labels, at);
            }
        }
    });
}

fn write_bookkeeping(page: &mut Page, sources: &[Prepared<'_>], mut series: Vec<(&'static str, u64)>) {
    page.family(&catalog::SERIES_FOLDED, |out| {
        for source in sources {
            out.put(&source.labels, source.source.cases_folded);
        }
    });
    // Last, because it counts what is above, in names' order like every other label.
    series.sort_unstable();
    page.family(&catalog::SERIES, |out| {
        for (name, count) in series {
            out.put_with("", "family", name, count);
        }
    });
}

#[cfg(test)]
mod tests;
