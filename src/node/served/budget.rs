//! How many bytes a second each peer may be sent. Pure: time is an argument.
//!
//! A bucket a peer; an answer is paid for after it was sent and may overdraw, so
//! a peer that asked for more waits longer. Peers whose buckets are full are forgotten: the table holds only
//! those that were answered of late.

use crate::primitives::message::PeerId;
use std::collections::BTreeMap;
use std::time::Duration;

/// What one peer may be sent.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Bytes a second, more than none.
    pub bytes: u64,
    /// Bytes at once.
    pub burst_bytes: u64,
}

/// What each peer has used, as the time at which its bucket is full again.
#[derive(Debug)]
pub struct Budget {
    rate: Rate,
    full_us: BTreeMap<PeerId, u64>,
}

impl Budget {
    /// Nothing is used.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self { rate, full_us: BTreeMap::new() }
    }

    /// Microseconds in which so many bytes are earned.
    fn earned_in_us(&self, bytes: u64) -> u64 {
        bytes.saturating_mul(1_000_000) / self.rate.bytes.max(1)
    }

    /// How long a peer has to wait for its next answer.
    #[must_use]
    pub fn wait(&self, peer: &PeerId, now_us: u64) -> Duration {
        let full_us = self.full_us.get(peer).copied().unwrap_or(0);
        let latest_us = now_us.saturating_add(self.earned_in_us(self.rate.burst_bytes));
        Duration::from_micros(full_us.saturating_sub(latest_us))
    }

    /// A peer was sent so many bytes.
    pub fn spend(&mut self, peer: PeerId, bytes: u64, now_us: u64) {
        let earned_us = self.earned_in_us(bytes);
        self.full_us.retain(|_, full_us| *full_us > now_us);
        let full_us = self.full_us.entry(peer).or_insert(now_us);
        *full_us = full_us.saturating_add(earned_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::keys::PublicKey;

    const SECOND: u64 = 1_000_000;
    const RATE_BYTES: u64 = 64 << 20;
    const BURST_BYTES: u64 = 64 << 20;
    const RATE: Rate = Rate { bytes: RATE_BYTES, burst_bytes: BURST_BYTES };

    fn peer(seed: u8) -> PeerId {
        PeerId(PublicKey([seed; 32]))
    }

    #[test]
    fn a_peer_gets_its_burst_at_once_and_then_its_rate() {
        let mut budget = Budget::new(RATE);
        let now = 0;
        budget.spend(peer(1), BURST_BYTES, now);
        assert_eq!(budget.wait(&peer(1), now), Duration::ZERO);
        budget.spend(peer(1), RATE_BYTES / 2, now);
        assert_eq!(budget.wait(&peer(1), now), Duration::from_millis(500));
        assert_eq!(budget.wait(&peer(1), now + SECOND), Duration::ZERO);
        assert_eq!(budget.wait(&peer(2), now), Duration::ZERO, "another peer's budget is its own");
    }

    #[test]
    fn a_peer_that_was_silent_earns_no_more_than_a_burst_and_is_forgotten() {
        let mut budget = Budget::new(RATE);
        budget.spend(peer(1), 1, 10 * SECOND);
        budget.spend(peer(2), BURST_BYTES + RATE_BYTES, 100 * SECOND);
        assert_eq!(budget.full_us.len(), 1);
        assert_eq!(budget.wait(&peer(2), 100 * SECOND), Duration::from_secs(1));
    }
}
