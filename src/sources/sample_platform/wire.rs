//! The Sample Platform's replies as they come over the wire. Private to this source: none of these types leaves it.

use serde::Deserialize;

use crate::sources::loose::{Number, Object, Rows, Text, Texts};

/// Every list comes in the same envelope.
#[derive(Debug, Deserialize)]
#[serde(default, bound(deserialize = "T: Deserialize<'de>"))]
pub(super) struct Page<T> {
    pub(super) data: Rows<T>,
    pub(super) pagination: Object<Pagination>,
}

impl<T> Default for Page<T> {
    fn default() -> Self {
        Self {
            data: Rows::default(),
            pagination: Object::default(),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Pagination {
    pub(super) total: Number,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RunRow {
    pub(super) run_id: Text,
    pub(super) status: Text,
    pub(super) platform: Text,
    pub(super) branch: Text,
    pub(super) commit_sha: Text,
    pub(super) github_link: Text,
    pub(super) created_at: Text,
    pub(super) started_at: Text,
    pub(super) completed_at: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Summary {
    pub(super) run_id: Text,
    pub(super) pass_count: Number,
    pub(super) fail_count: Number,
    pub(super) skipped_count: Number,
    pub(super) missing_output_count: Number,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ResultRow {
    pub(super) regression_test_id: Text,
    pub(super) sample_id: Text,
    pub(super) sample_name: Text,
    pub(super) status: Text,
    pub(super) exit_code: Number,
    pub(super) expected_rc: Number,
    pub(super) runtime_ms: Number,
    pub(super) command: Text,
    pub(super) categories: Texts,
    pub(super) outputs: Rows<Output>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Output {
    pub(super) output_id: Text,
    pub(super) status: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct HistoryRow {
    pub(super) run_id: Text,
    pub(super) regression_test_id: Text,
    pub(super) status: Text,
    pub(super) tested_at: Text,
    pub(super) failure_signature: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SampleRow {
    pub(super) sample_id: Text,
    pub(super) original_name: Text,
    pub(super) tags: Texts,
    pub(super) regression_test_count: Number,
}
