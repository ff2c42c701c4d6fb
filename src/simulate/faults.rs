//! What can go wrong between a platform and its reader, on demand or at a seeded rate.

use super::dice::{Dice, Stream};

/// One way to fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// This status with an error body, and this text as `Retry-After`, readable or not.
    Status {
        /// The status.
        code: u16,
        /// The raw header.
        retry_after: Option<String>,
    },
    /// The connection breaks before an answer.
    Reset,
    /// No answer ever comes.
    Stall,
    /// The body ends too early.
    Truncated,
    /// A page of HTML with status 200, as captive proxies send.
    NotJson,
    /// The body drips so slowly that it is never complete in time.
    SlowBody,
    /// A body of far more bytes than anybody should read.
    HugeBody,
    /// A small compressed body that inflates to more than 64 MiB.
    GzipBomb,
    /// A redirect to another origin, which must never see the token.
    RedirectOffOrigin,
    /// JSON with status 200 that is not what the platform documents.
    WrongShape,
}

impl Fault {
    /// This status, without `Retry-After`.
    #[must_use]
    pub const fn status(code: u16) -> Self {
        Self::Status {
            code,
            retry_after: None,
        }
    }

    /// Whether the reader gets no whole answer; the other faults are answers.
    #[must_use]
    pub const fn breaks_answer(&self) -> bool {
        matches!(
            self,
            Self::Reset | Self::Stall | Self::Truncated | Self::SlowBody | Self::HugeBody | Self::GzipBomb
        )
    }
}

/// Which requests a fault hits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// The request of this number, from 1, counted since the platform began.
    Request(u64),
    /// The next so many requests.
    Next(u32),
    /// The next so many requests of this route template.
    Endpoint(String, u32),
}

/// Scripted faults, and a rate of random ones.
#[derive(Debug, Clone, Default)]
pub struct FaultPlan {
    scripted: Vec<(When, Fault)>,
    rate: f64,
    kinds: Vec<Fault>,
}

impl FaultPlan {
    /// No faults.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Random faults: each request is hit with this probability, by one of these kinds.
    #[must_use]
    pub fn random(rate: f64, kinds: Vec<Fault>) -> Self {
        Self {
            scripted: vec![],
            rate,
            kinds,
        }
    }

    /// Adds a scripted fault.
    pub fn script(&mut self, when: When, fault: Fault) {
        self.scripted.push((when, fault));
    }

    /// The fault of this request, if any. Scripted ones go first and are used up.
    pub(super) fn pick(&mut self, seed: u64, number: u64, endpoint: &str) -> Option<Fault> {
        let place = self.scripted.iter().position(|(when, _)| match when {
            When::Request(wanted) => *wanted == number,
            When::Next(left) => *left > 0,
            When::Endpoint(template, left) => template == endpoint && *left > 0,
        });
        if let Some((when, fault)) = place.and_then(|place| self.scripted.get_mut(place)) {
            if let When::Next(left) | When::Endpoint(_, left) = when {
                *left -= 1;
            }
            return Some(fault.clone());
        }
        let mut dice = Dice::new(seed, Stream::Fault, number);
        if self.kinds.is_empty() || !dice.chance(self.rate) {
            return None;
        }
        self.kinds.get(dice.index(self.kinds.len())).cloned()
    }
}
