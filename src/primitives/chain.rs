//! Which network a value belongs to.

use crate::primitives::encoding::{Decode, Encode};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The kind of network; sets address prefixes, ports and default parameters. Which network it really
/// is, is the [`ChainId`](crate::primitives::hash::ChainId): the hash of its genesis.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum NetworkKind {
    Mainnet,
    Testnet,
    Devnet,
}

impl NetworkKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Mainnet, Self::Testnet, Self::Devnet];

    /// The name in configuration and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mainnet => "mainnet",
            Self::Testnet => "testnet",
            Self::Devnet => "devnet",
        }
    }

    /// The default UDP port for peers; RPC uses the next one.
    #[must_use]
    pub const fn p2p_port(self) -> u16 {
        match self {
            Self::Mainnet => 24_000,
            Self::Testnet => 24_100,
            Self::Devnet => 24_200,
        }
    }
}

impl fmt::Display for NetworkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text that names no network.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a network: use mainnet, testnet or devnet")]
pub struct ParseNetworkError(String);

impl std::str::FromStr for NetworkKind {
    type Err = ParseNetworkError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| ParseNetworkError(text.chars().take(80).collect()))
    }
}
