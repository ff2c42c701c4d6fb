//! The only writer of what the platforms' numbers are: drops what it has seen, counts the rest, publishes immutable snapshots.
//! Never asks a platform, never knows that pollers exist, never sees a clock (it is told the time), never renders.

mod snapshot;

pub use snapshot::{CaseRow, GroupRow, Histogram, LastResult, Snapshot, SourceSnapshot};
