//! A ban as people and programs see it.

use crate::primitives::clean::CleanText;
use serde::{Deserialize, Serialize};

/// Who is kept out, until when and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanInfo {
    /// Network key in hexadecimal, or an address with its prefix.
    pub subject: CleanText,
    /// Milliseconds since 1970.
    pub since_ms: u64,
    /// Milliseconds since 1970.
    pub until_ms: u64,
    /// Ordered by the node itself, not by its operator.
    pub automatic: bool,
    pub reason: CleanText,
    /// The last offence: what was wrong, kind of message, first bytes, height; empty for an order of the operator.
    pub evidence: CleanText,
    /// Where a banned key was seen last.
    pub address: Option<CleanText>,
}
