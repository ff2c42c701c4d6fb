//! How many cases are asked for in one request, by what the server has refused and served.
//! Knows neither the cases nor how a refusal looks.
//!
//! A refusal may be the server's limit, one case whose answer is too large, or a bad moment: nothing in it tells which. So
//! a smaller size is never for good, and a limit that is real costs ever fewer requests to be found again.

/// So many full batches in a row are served before a larger one is tried again; twice as many after each try in vain.
const PATIENCE_MIN: u32 = 4;
const PATIENCE_MAX: u32 = 1024;

#[derive(Debug)]
pub(super) struct BatchSize {
    /// What is configured.
    most: usize,
    /// What is not exceeded for now.
    ceiling: usize,
    now: usize,
    /// The largest batch that was ever served.
    proven: usize,
    /// Full batches served in a row at the ceiling.
    served: u32,
    patience: u32,
    /// Whether the ceiling was raised, and nothing of that size was served since.
    is_trial: bool,
}

impl BatchSize {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            ceiling: most,
            now: most,
            proven: 0,
            served: 0,
            patience: PATIENCE_MIN,
            is_trial: false,
        }
    }

    pub(super) fn get(&self) -> usize {
        self.now
    }

    /// A batch of so many was not served. `lasting`: less of the same may be, and more may not.
    pub(super) fn refused(&mut self, len: usize, lasting: bool) {
        self.served = 0;
        if !lasting {
            self.now = (len / 2).max(1);
            return;
        }
        if std::mem::take(&mut self.is_trial) {
            self.patience = (self.patience * 2).min(PATIENCE_MAX);
        }
        if len > 1 {
            self.ceiling = len / 2;
        } else {
            // Nothing is smaller: it was this case, and not the size.
            self.ceiling = if self.proven > 1 { self.proven } else { self.most };
        }
        self.now = self.ceiling;
    }

    pub(super) fn served(&mut self, len: usize) {
        self.proven = self.proven.max(len);
        if self.now < self.ceiling {
            self.now = (self.now * 2).min(self.ceiling);
            return;
        }
        if len < self.now || self.ceiling == self.most {
            return;
        }
        if std::mem::take(&mut self.is_trial) {
            self.patience = PATIENCE_MIN;
        }
        self.served += 1;
        if self.served >= self.patience {
            self.served = 0;
            self.is_trial = true;
            self.ceiling = (self.ceiling * 2).min(self.most);
            self.now = self.ceiling;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_moment_is_forgotten() {
        let mut size = BatchSize::new(50);
        for len in [50, 25, 12] {
            assert_eq!(size.get(), len);
            size.refused(len, true);
        }
        let requests = (0..100).take_while(|_| {
            let len = size.get();
            size.served(len);
            len < 50
        });
        assert_eq!(requests.count(), 4 * PATIENCE_MIN as usize, "6, 12, 24, 48, 50");
    }

    #[test]
    fn a_limit_is_found_and_costs_ever_fewer_requests_to_be_found_again() {
        let mut size = BatchSize::new(50);
        let mut refused = Vec::new();
        for request in 0..10_000 {
            let len = size.get();
            if len > 20 {
                size.refused(len, true);
                refused.push(request);
            } else {
                size.served(len);
                assert!(len == 12, "{len}");
            }
        }
        let pauses: Vec<u32> = refused.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(pauses[..5], [1, 5, 9, 17, 33]);
        assert!(refused.len() < 25, "{refused:?}");
    }

    #[test]
    fn one_case_that_is_too_large_leaves_the_others_as_they_were() {
        let mut size = BatchSize::new(50);
        size.served(50);
        for len in [50, 25, 12, 6, 3, 1] {
            assert_eq!(size.get(), len);
            size.refused(len, true);
        }
        assert_eq!(size.get(), 50);
    }

    #[test]
    fn what_passes_by_itself_is_outgrown_at_once() {
        let mut size = BatchSize::new(50);
        size.refused(50, false);
        assert_eq!(size.get(), 25);
        size.served(25);
        assert_eq!(size.get(), 50);
    }

    #[test]
    fn batches_that_are_not_full_prove_nothing() {
        let mut size = BatchSize::new(50);
        size.refused(50, true);
        for _ in 0..100 {
            size.served(7);
        }
        assert_eq!(size.get(), 25);
    }
}
