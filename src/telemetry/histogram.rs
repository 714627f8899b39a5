//! Percentiles of a latency over a sliding window.

use serde::{Deserialize, Serialize};

/// Summary of a set of durations in microseconds; all zero with `count` 0 when nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Percentiles {
    /// How many were measured.
    pub count: u64,
    pub p50_us: u64,
    pub p95_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
}
