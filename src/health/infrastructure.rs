//! Which runs say nothing about their cases, because what they ran on was broken and not what they tested.
//! Looks at the tallies of the runs of one group; never at a single case.
//!
//! A run that ended in an error is one. So is a run in which many failed at once: of at least `min_results` decisive results more
//! than `failed_share`, in at least two suites, suddenly (the newest earlier run with as many results failed at most `sudden_share`
//! times as large a share), and briefly. When as many as `believed_after` such runs follow each other, it is what they tested that is broken,
//! and all of them are believed.

/// What counts as a mass failure.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// A run with fewer decisive results is too small to tell.
    pub min_results: u32,
    /// Up to this share of failures a run is believed.
    pub failed_share: f64,
    /// How much of its share of failures the run before may have had at the most.
    pub sudden_share: f64,
    /// With so many mass failures in a row all of them are believed.
    pub believed_after: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            min_results: 10,
            failed_share: 0.5,
            sudden_share: 0.5,
            believed_after: 3,
        }
    }
}

/// How a run went, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunTally {
    /// Whether it ended in an error.
    pub errored: bool,
    /// Results that passed or failed.
    pub decisive: u32,
    /// Results that failed.
    pub failed: u32,
    /// Suites of the failures, as far as it matters whether there are two. A case of no known suite is one by itself.
    pub failed_suites: u32,
}

impl RunTally {
    /// Whether so many failed that it is not to be believed, if they are of several suites and it came suddenly.
    #[must_use]
    pub fn is_mass(&self, settings: &Settings) -> bool {
        !self.errored && self.decisive >= settings.min_results.max(1) && self.share() > settings.failed_share
    }

    fn share(&self) -> f64 {
        f64::from(self.failed) / f64::from(self.decisive.max(1))
    }
}

/// For each run of a group, oldest first, whether it says nothing about its cases.
#[must_use]
pub fn spoilt(runs: &[RunTally], settings: &Settings) -> Vec<bool> {
    let mut spoilt: Vec<_> = runs.iter().map(|run| run.errored).collect();
    // The share of failures of the last run that was believed, and the mass failures since.
    let mut usual: Option<f64> = None;
    let mut row: Vec<usize> = Vec::new();
    for (place, run) in runs.iter().enumerate() {
        if run.errored || run.decisive < settings.min_results.max(1) {
            continue;
        }
        let share = run.share();
        let sudden = usual.is_some_and(|usual| usual <= share * settings.sudden_share);
        if !run.is_mass(settings) || run.failed_suites < 2 || !sudden {
            row.clear();
            usual = Some(share);
            continue;
        }
        row.push(place);
        if row.len() < settings.believed_after {
            spoilt[place] = true;
            continue;
        }
        for believed in row.drain(..) {
            spoilt[believed] = false;
        }
        usual = Some(share);
    }
    spoilt
}
