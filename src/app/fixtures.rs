//! What the tests of this room begin with. Nothing of it is in the program.

use std::time::Duration;

use crate::metrics::own::{BuildInfo, Own, SourceInfo};
use crate::store::{Limits, SourceSpec};

pub(super) fn own() -> Own {
    let build = BuildInfo {
        version: "1",
        revision: "2",
        rustc_version: "3",
    };
    Own::new(build).unwrap()
}

pub(super) fn info() -> SourceInfo {
    SourceInfo {
        kind: "empirical",
        base_url: "https://api.example.test/".parse().unwrap(),
        poll_interval: Duration::from_secs(60),
        stale_after: Duration::from_secs(900),
    }
}

pub(super) fn spec() -> SourceSpec {
    SourceSpec {
        name: "shop".into(),
        limits: Limits {
            cases_max: 10,
            retention: Duration::from_secs(86_400),
            series_ttl: Duration::from_secs(86_400),
        },
        ..SourceSpec::default()
    }
}
