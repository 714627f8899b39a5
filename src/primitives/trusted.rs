//! A block that is trusted because somebody said so: what light clients and nodes that were away begin
//! from.

use crate::primitives::hash::{BlockId, ParseHexError};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A header to trust: its height for people, its id for the check. Written `HEIGHT:ID`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustedHeader {
    /// Its height.
    pub height: u64,
    /// Its id.
    pub id: BlockId,
}

/// A text that names no header.
#[derive(Debug, thiserror::Error)]
pub enum ParseTrustedError {
    #[error("`{0}` is not HEIGHT:ID, as in 42:9f86d0..., with the 64 hexadecimal digits of the block id")]
    Form(String),
    #[error("the block id {0}")]
    Id(#[from] ParseHexError),
}

impl fmt::Display for TrustedHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.height, self.id)
    }
}

impl std::str::FromStr for TrustedHeader {
    type Err = ParseTrustedError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || ParseTrustedError::Form(text.chars().take(100).collect());
        let (height, id) = text.split_once(':').ok_or_else(form)?;
        Ok(Self { height: height.parse().map_err(|_| form())?, id: id.parse()? })
    }
}

impl Serialize for TrustedHeader {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TrustedHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
