//! Zeros first: a counter that nobody has seen at 0 loses its first events to `increase()`, so a new row is served at 0
//! until somebody has seen that. Decides when the truth is shown; never what it is.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::snapshot::{CaseRow, GroupRow};
use crate::model::{ErrorCode, Group, Name};

/// How long zeros wait for a scrape. Prometheus scrapes at least once a minute in nearly every installation; where nobody
/// does, nobody loses anything.
pub const ZEROS_SECONDS_MAX: i64 = 60;

/// When a row was first published, at 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Zeros {
    pub(super) generation: u64,
    pub(super) at: Timestamp,
}

impl Zeros {
    /// Whether the truth may follow. Every generation since the first one shows the zeros, so a scrape of any of them will do.
    pub(super) fn are_over(self, now: Timestamp, scraped: u64) -> bool {
        scraped >= self.generation || now.duration_since(self.at) >= SignedDuration::from_secs(ZEROS_SECONDS_MAX)
    }

    /// When they are over if nobody scrapes.
    pub(super) fn end(self) -> Timestamp {
        self.at
            .checked_add(SignedDuration::from_secs(ZEROS_SECONDS_MAX))
            .unwrap_or(Timestamp::MAX)
    }
}

/// What of a row has been shown. A ledger keeps only whether its counts were: zeros are shown anew by the next process,
/// because nobody knows whether they were taken from the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "bool", from = "bool")]
pub(super) enum Shown {
    /// Nothing.
    Never,
    /// Its zeros.
    Zeros(Zeros),
    /// Its counts; from then on they never lag.
    Truth,
}

impl From<Shown> for bool {
    fn from(shown: Shown) -> Self {
        shown == Shown::Truth
    }
}

impl From<bool> for Shown {
    fn from(counts_were: bool) -> Self {
        if counts_were { Self::Truth } else { Self::Never }
    }
}

impl Shown {
    /// The row is in the snapshot of `generation`. `Some`: it is to be shown at 0.
    pub(super) fn show(&mut self, now: Timestamp, generation: u64, scraped: u64) -> Option<Zeros> {
        match *self {
            Self::Never => {
                let zeros = Zeros { generation, at: now };
                *self = Self::Zeros(zeros);
                Some(zeros)
            }
            Self::Zeros(zeros) if !zeros.are_over(now, scraped) => Some(zeros),
            Self::Zeros(_) | Self::Truth => {
                *self = Self::Truth;
                None
            }
        }
    }

    /// The row is not in the snapshot. Zeros that nobody has taken while they were there do not count as seen.
    pub(super) fn leave_out(&mut self) {
        if matches!(self, Self::Zeros(_)) {
            *self = Self::Never;
        }
    }
}

/// A row's truth as of the last complete round, while its zeros are shown.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) since: Zeros,
    pub(super) truth: Truth,
}

/// A row whose zeros were shown, and whose counts have followed them since the last round.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Released {
    Group(Group),
    Errors(Name),
    Case(Group, Name),
}

impl From<&Truth> for Released {
    fn from(truth: &Truth) -> Self {
        match truth {
            Truth::Group { row, .. } => Self::Group(row.group.clone()),
            Truth::Errors { environment, .. } => Self::Errors(environment.clone()),
            Truth::Case { row, .. } => Self::Case(row.group.clone(), row.case.clone()),
        }
    }
}

/// With its place in the published snapshot.
#[derive(Debug, Clone)]
pub(super) enum Truth {
    Group {
        place: usize,
        row: Box<GroupRow>,
    },
    Errors {
        environment: Name,
        counts: [u64; ErrorCode::COUNT],
    },
    Case {
        place: usize,
        row: Box<CaseRow>,
    },
}
