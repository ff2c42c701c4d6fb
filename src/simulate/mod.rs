//! The two platforms as values: worlds that live, answer as the real servers do, and know the truth about themselves.
//! Used by `demo`, `simulate`, tests and benchmarks; never by the daemon on real platforms. Nothing here reads a clock or
//! throws ambient dice: the time is an argument, and every draw comes from the world's seed.

mod case;
mod dice;
mod empirical;
mod faults;
mod in_process;
mod journal;
mod limits;
mod options;
mod platform;
mod run;
mod sample_platform;
mod serve;
mod trap;
mod truth;
mod wire;
mod world;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod odd_tests;
#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::Timestamp;

pub use faults::{Fault, FaultPlan, When};
pub use in_process::{InProcess, NowFn};
pub use journal::{Entry, Journal};
pub use limits::Limit;
pub use options::WorldOptions;
pub use platform::{Answer, Asked, Platform};
pub use serve::serve;
pub use trap::Trap;
pub use truth::{CaseTruth, LastRun, RunTruth, SnoozeTruth, Sum, Truth};

/// The world's time for a real time, when the world runs `speed` times as fast. Upstream's times must not lie in the
/// future of whoever reads them against the real clock: a world on the real clock uses a speed of 1 and short runs.
#[must_use]
pub fn clock(real_start: Timestamp, world_start: Timestamp, speed: f64, real_now: Timestamp) -> Timestamp {
    let elapsed = real_now.duration_since(real_start).as_secs_f64().max(0.0);
    let scaled = Duration::try_from_secs_f64(elapsed * speed).unwrap_or_default();
    world_start.saturating_add(scaled).unwrap_or(Timestamp::MAX)
}
