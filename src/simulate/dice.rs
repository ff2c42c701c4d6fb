//! Seeded dice: one independent stream for each thing that is drawn, so that a draw never depends on when it was asked for.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

/// What a stream of draws is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stream {
    Case = 1,
    Gap = 2,
    Run = 3,
    Restart = 4,
    Edit = 5,
    Fault = 6,
    Latency = 7,
    Odd = 8,
    Tie = 9,
    Duplicate = 10,
    Show = 11,
    Snooze = 12,
}

/// A stream of draws.
#[derive(Debug)]
pub(super) struct Dice(Xoshiro256PlusPlus);

/// Spreads a number over all 64 bits, so that neighbouring seeds give unrelated streams.
pub(super) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Dice {
    pub(super) fn new(seed: u64, stream: Stream, index: u64) -> Self {
        let seed = mix(mix(seed ^ mix(stream as u64)).wrapping_add(index));
        Self(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.0.random_bool(probability.clamp(0.0, 1.0))
    }

    /// A number in `[low, high)`; `low` if the range is empty.
    pub(super) fn between(&mut self, low: i64, high: i64) -> i64 {
        if high <= low {
            low
        } else {
            self.0.random_range(low..high)
        }
    }

    pub(super) fn index(&mut self, len: usize) -> usize {
        if len == 0 { 0 } else { self.0.random_range(0..len) }
    }

    pub(super) fn fraction(&mut self, low: f64, high: f64) -> f64 {
        if high <= low {
            low
        } else {
            self.0.random_range(low..high)
        }
    }

    /// An exponentially distributed waiting time, cut at four times its mean so that no wait outlasts a test.
    pub(super) fn wait(&mut self, mean: i64) -> i64 {
        let draw = -(1.0 - self.0.random::<f64>()).ln();
        scale(mean, draw.min(4.0))
    }

    /// One of the items, as likely as its weight says.
    pub(super) fn weighted(&mut self, items: &[(String, u32)]) -> String {
        let total: u32 = items.iter().map(|(_, weight)| weight).sum();
        let mut draw = self.between(0, i64::from(total));
        for (name, weight) in items {
            draw -= i64::from(*weight);
            if draw < 0 {
                return name.clone();
            }
        }
        items.first().map(|(name, _)| name.clone()).unwrap_or_default()
    }
}

/// A whole number of milliseconds times a factor.
pub(super) fn scale(milliseconds: i64, factor: f64) -> i64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "times of tests are far below 2^52 ms"
    )]
    let scaled = (milliseconds as f64 * factor) as i64;
    scaled
}
