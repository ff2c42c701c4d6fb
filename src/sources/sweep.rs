//! The slow re-read: which of the things that were read long ago is next, so that edits upstream are noticed at last.
//! Knows neither what a thing is nor what reading it costs.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Finished runs are read again until they are so old. Reports are accepted and runs restarted within a day or two; an
/// edit of something older is history.
pub(super) const WINDOW: SignedDuration = SignedDuration::from_hours(3 * 24);

/// Recent runs are read again at most so often, however many requests there would be for it.
pub(super) const RUNS_PAUSE: SignedDuration = SignedDuration::from_hours(1);

/// The same for the histories of all cases: they tell only what a run's own counts have not told already.
pub(super) const HISTORIES_PAUSE: SignedDuration = SignedDuration::from_hours(6);

/// A walk over everything, again and again, with a pause from start to start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Sweep<K> {
    /// What was read last; nothing between two walks.
    at: Option<K>,
    #[serde(with = "crate::packed")]
    began: Option<Timestamp>,
}

impl<K> Default for Sweep<K> {
    fn default() -> Self {
        Self { at: None, began: None }
    }
}

impl<K> Sweep<K> {
    /// Everything has just been read.
    pub(super) fn rest(&mut self, now: Timestamp) {
        *self = Self {
            at: None,
            began: Some(now),
        };
    }

    /// What is to be read next. `after` names what follows, or what is first.
    pub(super) fn next<T>(
        &mut self,
        now: Timestamp,
        pause: SignedDuration,
        after: impl Fn(Option<&K>) -> Option<T>,
    ) -> Option<T> {
        if let Some(next) = self.at.as_ref().and_then(|at| after(Some(at))) {
            return Some(next);
        }
        self.at = None;
        let is_over = self.began.is_none_or(|began| now.duration_since(began) >= pause);
        is_over.then(|| after(None)).flatten()
    }

    /// This was read, or is not to be had.
    pub(super) fn passed(&mut self, key: K, now: Timestamp) {
        if self.at.is_none() {
            self.began = Some(now);
        }
        self.at = Some(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_comes_once_in_a_pause_and_a_walk_goes_on_where_it_was() {
        let at = |minutes: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes);
        let pause = SignedDuration::from_mins(60);
        let mut sweep = Sweep::default();
        let mut read = Vec::new();
        for minute in 0..180 {
            let next = sweep.next(at(minute), pause, |last: Option<&u32>| {
                (1..=3).rev().find(|key| last.is_none_or(|last| key < last))
            });
            if let Some(key) = next {
                sweep.passed(key, at(minute));
                read.push((minute, key));
            }
            // As a process that starts again between any two steps.
            let kept = postcard::to_stdvec(&sweep).unwrap();
            sweep = postcard::from_bytes(&kept).unwrap();
        }
        let walks = [0, 60, 120].map(|from| [(from, 3), (from + 1, 2), (from + 2, 1)]);
        assert_eq!(read, walks.concat());
    }

    #[test]
    fn a_walk_that_takes_longer_than_the_pause_is_followed_by_the_next_one() {
        let at = |minutes: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes);
        let mut sweep = Sweep::default();
        let mut read = Vec::new();
        for minute in 0..8 {
            let next = sweep.next(at(minute), SignedDuration::from_mins(2), |last: Option<&u32>| {
                (1..=3).find(|key| last.is_none_or(|last| key > last))
            });
            if let Some(key) = next {
                sweep.passed(key, at(minute));
                read.push(key);
            }
        }
        assert_eq!(read, [1, 2, 3, 1, 2, 3, 1, 2]);
    }
}
