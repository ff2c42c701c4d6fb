//! Walking a newest-first list by offset: pages shrink where the server cannot serve one, and one bad row is stepped over.
//! Knows nothing of what the rows mean.

use crate::model::RunId;

/// Page sizes, each a divisor of the one before, so that an offset reached with one is the start of a page of the next.
const SIZES: [usize; 5] = [100, 50, 25, 5, 1];

/// How many rows a walk steps over before the server counts as broken: each costs a handful of requests.
const SKIPS_MAX: usize = 3;

/// A walk over one list.
#[derive(Debug, Clone)]
pub(super) struct Pager {
    offset: usize,
    rung: usize,
    largest: usize,
    skipped: usize,
    /// How many rows from the top are known to be served.
    clean: Option<usize>,
    answered: bool,
}

impl Pager {
    /// Begins at the newest row, with pages of up to `size` rows.
    pub(super) fn new(size: usize) -> Self {
        let rung = SIZES.iter().position(|s| *s <= size).unwrap_or(SIZES.len() - 1);
        Self {
            offset: 0,
            rung,
            largest: rung,
            skipped: 0,
            clean: None,
            answered: false,
        }
    }

    /// The same, with a first page of no more than `first` rows: those are known to be served.
    pub(super) fn cautious(size: usize, first: Option<usize>) -> Self {
        let first = first.map_or(size, |rows| rows.min(size));
        Self {
            rung: Self::new(first).rung,
            ..Self::new(size)
        }
    }

    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    pub(super) fn limit(&self) -> usize {
        SIZES[self.rung]
    }

    /// For platforms that count pages from 1.
    pub(super) fn page(&self) -> usize {
        self.offset / self.limit() + 1
    }

    /// The page was served: goes to the next one, with larger pages again where the offset allows it.
    pub(super) fn advance(&mut self) {
        self.answered = true;
        self.offset += self.limit();
        while self.rung > self.largest && self.offset.is_multiple_of(SIZES[self.rung - 1]) {
            self.rung -= 1;
        }
    }

    /// The page was not served. `Some(true)`: a row was stepped over, `Some(false)`: a smaller page is worth a try,
    /// `None`: this is not one bad row.
    pub(super) fn shrink(&mut self) -> Option<bool> {
        if self.rung + 1 < SIZES.len() {
            // A server that is simply down shall not be asked five times: at the top, one row tells.
            self.rung = if self.answered { self.rung + 1 } else { SIZES.len() - 1 };
            return Some(false);
        }
        if self.skipped == SKIPS_MAX || !self.answered && self.offset > 0 {
            return None;
        }
        self.clean.get_or_insert(self.offset);
        self.skipped += 1;
        self.offset += 1;
        Some(true)
    }

    /// How many rows were stepped over: what was read is not all there is.
    pub(super) fn skipped(&self) -> usize {
        self.skipped
    }

    /// The largest page size that the rows known to be served from the top allow; for the next walk's first page.
    pub(super) fn clean_size(&self) -> Option<usize> {
        self.clean
            .filter(|rows| *rows > 0)
            .and_then(|rows| SIZES.iter().copied().find(|size| *size <= rows))
    }
}

/// Newest first: once a page ends with a run of an earlier whole walk, which reached up to `walked_to`, everything behind
/// it is known. A page in another order is known only if all of it is.
pub(super) fn known_from_here(ids: &[RunId], walked_to: Option<RunId>) -> bool {
    let Some(walked_to) = walked_to else { return false };
    if ids.is_sorted_by(|a, b| a >= b) {
        ids.last().is_some_and(|id| *id <= walked_to)
    } else {
        ids.iter().all(|id| *id <= walked_to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks a list of `rows` rows of which `bad` cannot be served; the requests as text, and what was read.
    fn walk(size: usize, rows: usize, bad: &[usize]) -> (String, Vec<usize>, Option<usize>) {
        let mut pager = Pager::new(size);
        let (mut log, mut read) = (Vec::new(), Vec::new());
        while pager.offset() < rows {
            let (from, to) = (pager.offset(), (pager.offset() + pager.limit()).min(rows));
            log.push(format!("{}@{}", pager.limit(), from));
            assert_eq!(
                (pager.page() - 1) * pager.limit(),
                from,
                "every offset is the start of a page"
            );
            if bad.iter().any(|row| (from..to).contains(row)) {
                if pager.shrink().is_none() {
                    log.push("gave up".into());
                    break;
                }
            } else {
                read.extend(from..to);
                pager.advance();
            }
        }
        (log.join(" "), read, pager.clean_size())
    }

    #[test]
    fn whole_pages_are_read_in_order() {
        assert_eq!(
            walk(50, 120, &[]),
            ("50@0 50@50 50@100".into(), (0..120).collect(), None)
        );
    }

    #[test]
    fn one_bad_row_is_stepped_over_and_everything_else_is_read() {
        let (log, read, clean) = walk(50, 60, &[7]);
        assert_eq!(read, (0..60).filter(|row| *row != 7).collect::<Vec<_>>(), "{log}");
        assert_eq!(
            clean,
            Some(5),
            "the next walk begins with a page that stays clear of it"
        );
    }

    #[test]
    fn a_bad_first_row_is_stepped_over() {
        let (log, read, clean) = walk(100, 30, &[0]);
        assert_eq!(read, (1..30).collect::<Vec<_>>(), "{log}");
        assert_eq!(clean, None);
    }

    #[test]
    fn a_server_that_is_down_costs_three_requests() {
        let (log, read, _) = walk(100, 300, &(0..300).collect::<Vec<_>>());
        assert_eq!((log.as_str(), read.len()), ("100@0 1@0 1@1 gave up", 0));
    }

    #[test]
    fn too_many_bad_rows_end_the_walk() {
        let (log, _, _) = walk(5, 50, &[1, 3, 5, 7, 9]);
        assert!(log.ends_with("gave up"), "{log}");
    }
}
