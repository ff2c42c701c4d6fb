//! Empirical's replies as they come over the wire. Private to this source: none of these types leaves it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::sources::loose::{Number, Object, Rows, Text, Texts};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RunList {
    pub(super) data: Object<RunListData>,
    pub(super) pagination: Object<Pagination>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RunListData {
    pub(super) project: Object<Project>,
    pub(super) test_runs: Object<RunItems>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RunItems {
    pub(super) items: Rows<RunRow>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Project {
    pub(super) slug: Text,
    pub(super) name: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Pagination {
    pub(super) total: Number,
    pub(super) total_pages: Number,
}

/// A row of the list of runs, and the run in its details: the list leaves out some fields, old rows leave out more.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RunRow {
    pub(super) id: Text,
    pub(super) state: Text,
    pub(super) error_code: Text,
    pub(super) success_count: Number,
    pub(super) failed_count: Number,
    pub(super) skipped_count: Number,
    pub(super) flaky_count: Number,
    pub(super) failed_count_after_snoozing: Number,
    pub(super) duration: Number,
    pub(super) test_run_branch: Text,
    pub(super) environment_slug: Text,
    pub(super) environment_id: Text,
    pub(super) build_url: Text,
    pub(super) commit: Text,
    pub(super) test_run_head_sha: Text,
    pub(super) created_at: Text,
    pub(super) run_started_at: Text,
    pub(super) run_ended_at: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RunDetails {
    pub(super) data: Object<RunDetailsData>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RunDetailsData {
    pub(super) test_run: Object<RunDetailsBody>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RunDetailsBody {
    pub(super) test_run: Object<RunRow>,
    pub(super) flattened_summary_details: Rows<CaseRow>,
}

/// The same without the cases, of which there may be megabytes.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RunDetailsOnly {
    pub(super) data: Object<RunDetailsOnlyData>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RunDetailsOnlyData {
    pub(super) test_run: Object<RunDetailsOnlyBody>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RunDetailsOnlyBody {
    pub(super) test_run: Object<RunRow>,
}

/// One case in a run's details. Undocumented beyond its being there.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct CaseRow {
    pub(super) pw_test_id: Text,
    pub(super) status: Text,
    pub(super) nesting: Texts,
}

#[derive(Debug, Serialize)]
pub(super) struct HistoryQuery<'a> {
    pub(super) test_case_ids: &'a [String],
    pub(super) days: u64,
    pub(super) limit_per_test_case: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct History {
    pub(super) data: Object<HistoryData>,
    pub(super) meta: Object<HistoryMeta>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct HistoryData {
    pub(super) history_by_test_case_id: Histories,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct HistoryMeta {
    pub(super) truncated_test_case_ids: Texts,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct HistoryRow {
    pub(super) timestamp: Text,
    pub(super) status: Text,
    pub(super) test_run_id: Text,
    pub(super) environment_id: Text,
    pub(super) executed_at: Text,
    pub(super) duration_total: Number,
    pub(super) retries: Number,
}

#[derive(Debug, Serialize)]
pub(super) struct LastPassQuery<'a> {
    pub(super) test_case_id: &'a str,
    pub(super) days: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct LastPasses {
    pub(super) data: Rows<LastPassRow>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct LastPassRow {
    pub(super) environment_id: Text,
    pub(super) test_run_id: Text,
    pub(super) executed_at: Number,
}

/// Both listings of cases: the analytics' and the registry's, which name the same things differently.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct CaseList {
    pub(super) data: Object<CaseListData>,
    pub(super) pagination: Object<Pagination>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct CaseListData {
    pub(super) test_cases: Rows<ListedCase>,
    pub(super) summary: Object<CaseListSummary>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct CaseListSummary {
    pub(super) total_test_cases: Number,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ListedCase {
    pub(super) test_case_id: Text,
    pub(super) id: Text,
    pub(super) test_name: Text,
    pub(super) name: Text,
    pub(super) file_path: Text,
    pub(super) suites: Texts,
    pub(super) tags: Texts,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SnoozeList {
    pub(super) data: Object<SnoozeListData>,
    pub(super) pagination: Object<Pagination>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SnoozeListData {
    pub(super) snoozes: Rows<SnoozeRow>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SnoozeRow {
    pub(super) test_ids: Texts,
    pub(super) snooze_until: Text,
    pub(super) scoped_to_environment_id: Text,
}

/// By case id. Nobody is asked for more than a batch of them.
#[derive(Debug, Default)]
pub(super) struct Histories(pub(super) Option<BTreeMap<String, Rows<HistoryRow>>>);

const HISTORIES_MAX: usize = 1_000;

impl<'de> Deserialize<'de> for Histories {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Histories;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("histories by case id")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Histories, A::Error> {
                let mut histories = BTreeMap::new();
                while let Some((id, rows)) = map.next_entry()? {
                    if histories.len() == HISTORIES_MAX {
                        return Err(serde::de::Error::custom("too many cases"));
                    }
                    histories.insert(id, rows);
                }
                Ok(Histories(Some(histories)))
            }
            fn visit_unit<E>(self) -> Result<Histories, E> {
                Ok(Histories(None))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
