//! The odds: how often a case flakes, and whether it is broken now, from a small model of both.
//! Never decides anything. One pass over the results for each of a few flake rates; nothing is iterated until it converges.
//!
//! The model. A case flakes at a rate `f`: a first attempt does not pass, though what it tests works. Which `f` is not known; a Beta
//! prior says that most cases have one near 0 and a few a large one. What it tests works or is broken. A commit breaks what worked
//! with [`BREAKS`], repairs what was broken with [`REPAIRS`], and between results of one commit nothing changes; a result whose commit is not
//! known may be of a new one. What is broken fails, but for [`PASSES_BROKEN`]. A failure that goes on likely has the signature of the
//! one before, a new one likely another, a flake either.
//!
//! For each of [`NODES`] rates the forward pass gives the likelihood of all results with the case working, and with it broken, at
//! the end. Weighed by the prior they give the odds of being broken now, and the mean of `f`.

use super::Observation;
use crate::model::CaseOutcome;

/// Flake rates that are tried, from [`RATE_MIN`] to [`RATE_MAX`] in even steps of their logarithm. Twice as many change the third digit.
const NODES: usize = 16;
const RATE_MIN: f64 = 0.000_3;
const RATE_MAX: f64 = 0.7;

/// The Beta prior of the flake rate: half of all cases flake in less than one of a thousand results, one in eight in more than
/// one of ten; on average one result in 26.
const PRIOR: (f64, f64) = (0.12, 3.0);

/// How likely a new commit breaks a case that works: one case in 300.
const BREAKS: f64 = 0.003;

/// How likely a new commit repairs one that is broken.
const REPAIRS: f64 = 0.2;

/// How likely a case is broken before its first known result.
const BROKEN_AT_FIRST: f64 = 0.05;

/// How likely a broken case passes nevertheless.
const PASSES_BROKEN: f64 = 0.01;

/// How likely a flake fails once more when it is retried at once: what disturbed it may still be there.
const RETRY_FAILS: f64 = 0.3;

/// Retries beyond these tell nothing new.
const RETRIES_MAX: u32 = 4;

/// How likely a failure has the signature of the known one before: while a break goes on, when one begins, and as a flake.
const SAME_BROKEN: f64 = 0.95;
const SAME_NEW: f64 = 0.3;
const SAME_FLAKE: f64 = 0.5;

/// What the results say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Odds {
    /// The mean of the flake rate.
    pub(super) flake: f64,
    /// How likely the case is broken now.
    pub(super) broken: f64,
}

/// One flake rate, and how likely the results are with it, times its prior, with the case working and broken in the end.
#[derive(Debug, Clone, Copy)]
struct Node {
    rate: f64,
    works: f64,
    broken: f64,
}

/// How likely one result is, by what happened to the case.
struct Likelihood {
    works: f64,
    breaks: f64,
    stays_broken: f64,
}

/// Weighs decisive results, oldest first.
pub(super) fn weigh(results: &[&Observation]) -> Odds {
    let mut nodes = prior();
    let mut signature = 0;
    let mut commit = None;
    for (place, result) in results.iter().enumerate() {
        let may_change = place > 0 && (result.commit.is_none() || result.commit != commit);
        let (breaks, repairs) = if may_change { (BREAKS, REPAIRS) } else { (0.0, 0.0) };
        let mut largest = 0.0_f64;
        for node in &mut nodes {
            let likely = likelihood(result, signature, node.rate);
            let works = node.works * (1.0 - breaks) + node.broken * repairs;
            let broken = node.works * breaks * likely.breaks + node.broken * (1.0 - repairs) * likely.stays_broken;
            node.works = works * likely.works;
            node.broken = broken;
            largest = largest.max(node.works).max(node.broken);
        }
        // Many results make small numbers: only their proportions matter. No likelihood is 0, so neither is the largest.
        for node in &mut nodes {
            node.works /= largest;
            node.broken /= largest;
        }
        commit = result.commit;
        if result.outcome.is_failure() && result.signature != 0 {
            signature = result.signature;
        }
    }
    let mut odds = Odds {
        flake: 0.0,
        broken: 0.0,
    };
    let mut all = 0.0;
    for Node { rate, works, broken } in nodes {
        all += works + broken;
        odds.flake += rate * (works + broken);
        odds.broken += broken;
    }
    Odds {
        flake: odds.flake / all,
        broken: odds.broken / all,
    }
}

/// The nodes before any result. Where the rates stand in even steps of their logarithm, the Beta density becomes
/// `f^a (1-f)^(b-1)`; what is below the first node is its own, in closed form.
fn prior() -> [Node; NODES] {
    let (a, b) = PRIOR;
    let steps = f64::from(u32::try_from(NODES - 1).unwrap_or(1));
    let step = (RATE_MAX / RATE_MIN).ln() / steps;
    let mut nodes = [Node {
        rate: 0.0,
        works: 0.0,
        broken: 0.0,
    }; NODES];
    for (node, place) in nodes.iter_mut().zip(0_u32..) {
        let rate = RATE_MIN * (f64::from(place) * step).exp();
        let below = if place == 0 { RATE_MIN.powf(a) / a } else { 0.0 };
        let weight = rate.powf(a) * (1.0 - rate).powf(b - 1.0) * step + below;
        *node = Node {
            rate,
            works: weight * (1.0 - BROKEN_AT_FIRST),
            broken: weight * BROKEN_AT_FIRST,
        };
    }
    nodes
}

/// How likely a result is at a flake rate; `before` is the signature of the last failure that had one.
fn likelihood(result: &Observation, before: u64, rate: f64) -> Likelihood {
    let retries = i32::try_from(result.retries.min(RETRIES_MAX)).unwrap_or(0);
    if result.outcome.is_failure() {
        let same = |same: f64| match (before, result.signature) {
            (0, _) | (_, 0) => 1.0,
            (before, now) if before == now => same,
            _ => 1.0 - same,
        };
        return Likelihood {
            works: rate * RETRY_FAILS.powi(retries) * same(SAME_FLAKE),
            breaks: (1.0 - PASSES_BROKEN) * same(SAME_NEW),
            stays_broken: (1.0 - PASSES_BROKEN) * same(SAME_BROKEN),
        };
    }
    let (works, broken) = if result.outcome == CaseOutcome::Flaky {
        (rate * (1.0 - RETRY_FAILS), PASSES_BROKEN)
    } else {
        (1.0 - rate, PASSES_BROKEN)
    };
    Likelihood {
        works,
        breaks: broken,
        stays_broken: broken,
    }
}
