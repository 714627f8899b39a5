//! How a registered masternode stands (protocol §10).

use crate::primitives::encoding::{Decode, Encode};
use std::fmt;

/// How a registered masternode stands. Times are those of block headers, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum MasternodeStatus {
    /// Votes, if its weight puts it into the committee.
    Active,
    /// Signed too few blocks; votes again after a `Resume`.
    Jailed,
    /// Left; its collateral stays locked and it can still be punished for a time.
    Unbonding {
        /// Time of the block it left with.
        since_ms: u64,
    },
    /// Convicted; its keys never vote again.
    Tombstoned {
        /// Time of the block with the evidence.
        since_ms: u64,
    },
}

impl MasternodeStatus {
    /// Name for people and files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Jailed => "jailed",
            Self::Unbonding { .. } => "unbonding",
            Self::Tombstoned { .. } => "tombstoned",
        }
    }

    /// Whether it belongs to the registered weight: it votes, or may again.
    #[must_use]
    pub const fn is_bonded(self) -> bool {
        matches!(self, Self::Active | Self::Jailed)
    }
}

impl fmt::Display for MasternodeStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
