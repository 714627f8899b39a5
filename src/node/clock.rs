//! The node's clock: the only place that turns real time into the arguments of the machine.
//!
//! Monotonic time counts from the start of the process, not of the node, so that several nodes in one
//! process (a devnet) share one axis. Wall time is used for block times, logs and people.

use crate::consensus::input::Now;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Microseconds on the monotonic clock.
#[must_use]
pub fn monotonic_us() -> u64 {
    micros(ORIGIN.elapsed())
}

/// The instant of a monotonic time, for timed waits.
#[must_use]
pub fn instant_of(monotonic_us: u64) -> Instant {
    *ORIGIN + Duration::from_micros(monotonic_us)
}

/// Milliseconds since 1970; 0 before.
#[must_use]
pub fn wall_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Both at once.
#[must_use]
pub fn now() -> Now {
    Now { monotonic_us: monotonic_us(), wall_ms: wall_ms() }
}

/// A duration in whole microseconds.
#[must_use]
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
