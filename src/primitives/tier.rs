//! Tiers of masternodes: what is locked and how much the vote counts.

use crate::primitives::amount::{Amount, UNITS_PER_TIME};
use crate::primitives::encoding::{Decode, Encode};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a masternode has locked, and how much its vote counts.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// 1,000 TIME, weight 1.
    Bronze,
    /// 10,000 TIME, weight 10.
    Silver,
    /// 100,000 TIME, weight 100.
    Gold,
}

impl Tier {
    /// All tiers, lightest first.
    pub const ALL: [Self; 3] = [Self::Bronze, Self::Silver, Self::Gold];

    /// The name in genesis files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bronze => "bronze",
            Self::Silver => "silver",
            Self::Gold => "gold",
        }
    }

    /// Voting weight: one for each 1,000 TIME.
    #[must_use]
    pub const fn weight(self) -> u64 {
        match self {
            Self::Bronze => 1,
            Self::Silver => 10,
            Self::Gold => 100,
        }
    }

    /// What is locked.
    #[must_use]
    pub fn collateral(self) -> Amount {
        Amount::from_units(self.weight() * 1000 * UNITS_PER_TIME).unwrap_or(Amount::MAX)
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collateral_follows_the_weight() {
        let collateral: Vec<String> = Tier::ALL.iter().map(|tier| tier.collateral().to_string()).collect();
        assert_eq!(collateral, ["1000", "10000", "100000"]);
    }
}
