//! What a machine owes to its log and what it holds in memory, for tests and measurement.

use super::Machine;
use crate::primitives::hash::{BlockId, Txid};
use crate::primitives::transaction::OutPoint;
use std::collections::{BTreeMap, BTreeSet};

/// What the log of the current height must restore exactly (protocol §3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DurableState {
    /// Height being decided.
    pub height: u64,
    /// Whether the last batch of the era was signed, or a message of a round.
    pub frozen: bool,
    /// Number of the next batch of the own stream.
    pub next_sequence: u32,
    /// Inputs of everything prepared in the era.
    pub locks: BTreeMap<OutPoint, Txid>,
    /// `CV`: everything commit-voted in the era.
    pub commit_voted: BTreeSet<Txid>,
    /// Block and round of the lock of the rounds.
    pub locked: Option<(BlockId, u32)>,
}

/// How much a machine holds; protocol §8 bounds each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Pulls under way.
    pub pulls: usize,
    /// Bytes of messages kept for the next era, of all peers.
    pub future_bytes: usize,
    /// Blocks that may be decided at this height.
    pub candidates: usize,
    /// Rounds of which anything is known.
    pub rounds: usize,
    /// Most batches held of one voter, second versions excluded.
    pub batches: usize,
    /// Most second versions of batches held of one voter.
    pub variants: usize,
    /// Payments voted on in the era.
    pub ballots: usize,
    /// Bodies kept for the era.
    pub bodies: usize,
}

impl Machine {
    /// What the log must restore. Cost: O(votes of the era).
    #[must_use]
    pub fn durable_state(&self) -> DurableState {
        DurableState {
            height: self.context.height,
            frozen: self.era.frozen,
            next_sequence: self.era.next_sequence,
            locks: self.era.locks.clone(),
            commit_voted: self.era.commit_voted.clone(),
            locked: self.checkpoint.locked,
        }
    }

    /// How much is held. Cost: O(committee + rounds).
    #[must_use]
    pub fn memory(&self) -> Memory {
        let streams = &self.era.streams;
        Memory {
            pulls: self.pulls.len(),
            future_bytes: self.future.bytes(),
            candidates: self.checkpoint.candidates.len(),
            rounds: self.checkpoint.rounds.iter().count(),
            batches: streams.iter().map(|stream| stream.sizes().0).max().unwrap_or(0),
            variants: streams.iter().map(|stream| stream.sizes().1).max().unwrap_or(0),
            ballots: self.era.ballots.len(),
            bodies: self.era.bodies.len(),
        }
    }
}
