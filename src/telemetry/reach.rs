//! Whether others can dial this node.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Fewest peers that must have tried in vain for the port to count as closed: one may be wrong, or lie.
const TRIED_MIN: u32 = 2;

/// What peers have found that were asked to dial this node back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReachInfo {
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// UDP port that was dialled.
    pub port: u16,
    /// How many came through, of those that tried.
    pub reached: u32,
    pub tried: u32,
}

impl ReachInfo {
    /// Nobody came through, and several tried.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.reached == 0 && self.tried >= TRIED_MIN
    }

    /// More have failed than come through.
    #[must_use]
    pub fn is_doubtful(&self) -> bool {
        self.tried >= TRIED_MIN && 2 * self.reached < self.tried
    }
}

impl fmt::Display for ReachInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { port, reached, tried, .. } = self;
        if *reached == 0 {
            write!(
                f,
                "port {port}/udp is not reachable from {tried} of {tried} peers: forward it or open the firewall"
            )
        } else {
            write!(f, "port {port}/udp is reachable from {reached} of {tried} peers")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_port_is_told_from_one_that_some_reach() {
        let found = |reached, tried| ReachInfo { time_ms: 1, port: 24000, reached, tried };
        let closed = found(0, 5);
        assert!(closed.is_closed() && closed.is_doubtful());
        assert_eq!(
            closed.to_string(),
            "port 24000/udp is not reachable from 5 of 5 peers: forward it or open the firewall"
        );
        assert_eq!(found(4, 5).to_string(), "port 24000/udp is reachable from 4 of 5 peers");
        assert!(!found(4, 5).is_doubtful() && found(1, 5).is_doubtful() && !found(1, 5).is_closed());
        assert!(!found(0, 1).is_closed(), "one peer may be wrong");
    }
}
