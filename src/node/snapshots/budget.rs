//! How many bytes a second each peer may be sent. Pure: time is an argument.
//!
//! A bucket a peer, full after [`BURST_BYTES`]; an answer is paid for after it was sent and may overdraw, so
//! a peer that asked for more waits longer. Peers whose buckets are full are forgotten: the table holds no
//! more than were answered within the last two seconds.

use crate::primitives::message::PeerId;
use std::collections::BTreeMap;
use std::time::Duration;

/// Bytes a second to one peer.
pub const RATE_BYTES: u64 = 64 << 20;
/// Bytes at once to one peer.
pub const BURST_BYTES: u64 = 64 << 20;

/// What each peer has used, as the time at which its bucket is full again.
#[derive(Debug, Default)]
pub struct Budget(BTreeMap<PeerId, u64>);

/// Microseconds in which so many bytes are earned.
fn earned_in_us(bytes: u64) -> u64 {
    bytes.saturating_mul(1_000_000) / RATE_BYTES
}

impl Budget {
    /// How long a peer has to wait for its next answer.
    #[must_use]
    pub fn wait(&self, peer: &PeerId, now_us: u64) -> Duration {
        let full_us = self.0.get(peer).copied().unwrap_or(0);
        let latest_us = now_us.saturating_add(earned_in_us(BURST_BYTES));
        Duration::from_micros(full_us.saturating_sub(latest_us))
    }

    /// A peer was sent so many bytes.
    pub fn spend(&mut self, peer: PeerId, bytes: u64, now_us: u64) {
        self.0.retain(|_, full_us| *full_us > now_us);
        let full_us = self.0.entry(peer).or_insert(now_us);
        *full_us = full_us.saturating_add(earned_in_us(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::keys::PublicKey;

    const SECOND: u64 = 1_000_000;

    fn peer(seed: u8) -> PeerId {
        PeerId(PublicKey([seed; 32]))
    }

    #[test]
    fn a_peer_gets_its_burst_at_once_and_then_its_rate() {
        let mut budget = Budget::default();
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
        let mut budget = Budget::default();
        budget.spend(peer(1), 1, 10 * SECOND);
        budget.spend(peer(2), BURST_BYTES + RATE_BYTES, 100 * SECOND);
        assert_eq!(budget.0.len(), 1);
        assert_eq!(budget.wait(&peer(2), 100 * SECOND), Duration::from_secs(1));
    }
}
