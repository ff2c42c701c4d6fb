//! A source's state as bytes and back. All or nothing: what cannot be read whole is refused.
//! Never touches a disk (`ledger` does), never decides when to keep.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::release::Released;
use super::snapshot::Histogram;
use super::source_state::{Appendix, Beginnings, RUN_DURATION_BOUNDS, RUN_QUEUE_BOUNDS, SourceSpec, SourceState};

/// Room for a state's bytes from the start; what is not used of it is never touched. For as much glibc asks the system, and
/// gives it back when it is freed; what is smaller, however large, it learns to keep, and a process would stay as large for
/// good as it was while it wrote its ledger.
const KEEP_BYTES: usize = (32 << 20) + (1 << 20);

/// The bytes are not a state of this version.
#[derive(Debug, thiserror::Error)]
#[error("the kept state cannot be read")]
pub struct KeepError(#[from] postcard::Error);

impl SourceState {
    /// Everything that outlives the process, as of now. Meant for the moment at which a round has ended and its snapshot is
    /// built but not yet shown: then it holds that round and nothing of the next one.
    ///
    /// # Errors
    /// None that the types allow.
    pub fn keep(&self) -> Result<Vec<u8>, KeepError> {
        Ok(postcard::to_extend(
            &(self, self.appendix(), self.beginnings()),
            Vec::with_capacity(KEEP_BYTES),
        )?)
    }

    /// The rows whose counts have been shown since the last round ended, to be kept beside the state of that moment.
    ///
    /// # Errors
    /// None that the types allow.
    pub fn keep_released(&self) -> Result<Vec<u8>, KeepError> {
        Ok(postcard::to_stdvec(self.released())?)
    }

    /// What [`Self::keep`] and [`Self::keep_released`] gave, under the configuration of now.
    ///
    /// # Errors
    /// The bytes are not what they gave.
    pub fn restored(spec: SourceSpec, state: &[u8], released: &[u8]) -> Result<Self, KeepError> {
        let (mut restored, rest): (Self, _) = postcard::take_from_bytes(state)?;
        let (appendix, rest): (Appendix<'_>, _) = next(rest)?;
        // What a later version has put behind these is its own.
        let (beginnings, _): (Beginnings, _) = next(rest)?;
        let released: Vec<Released> = postcard::from_bytes(released)?;
        restored.reopen(spec, appendix, beginnings, released);
        Ok(restored)
    }
}

/// What stands next, and what follows it. Nothing, if whoever wrote this did not know of it.
fn next<'a, T: Default + Deserialize<'a>>(bytes: &'a [u8]) -> Result<(T, &'a [u8]), postcard::Error> {
    if bytes.is_empty() {
        return Ok((T::default(), bytes));
    }
    postcard::take_from_bytes(bytes)
}

pub(super) fn histogram<S: Serializer>(histogram: &Histogram, serializer: S) -> Result<S::Ok, S::Error> {
    (&histogram.counts, histogram.sum, &histogram.counted).serialize(serializer)
}

pub(super) fn run_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Histogram, D::Error> {
    with_bounds(RUN_DURATION_BOUNDS, deserializer)
}

pub(super) fn run_queue<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Histogram, D::Error> {
    with_bounds(RUN_QUEUE_BOUNDS, deserializer)
}

fn with_bounds<'de, D: Deserializer<'de>>(bounds: &'static [f64], deserializer: D) -> Result<Histogram, D::Error> {
    let (counts, sum, counted) = Deserialize::deserialize(deserializer)?;
    Histogram::kept(bounds, counts, sum, counted).ok_or_else(|| D::Error::custom("a histogram with other bounds"))
}
