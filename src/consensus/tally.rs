//! Weight per subject, each voter counted once.

use crate::primitives::committee::{COMMITTEE_MAX, VoterIndex};

const WORDS: usize = COMMITTEE_MAX.div_ceil(64);

/// Distinct voters and their weight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    voters: [u64; WORDS],
    weight: u64,
}

impl Tally {
    /// Counts a voter; whether it was new. Cost: O(1).
    pub(super) fn add(&mut self, voter: VoterIndex, weight: u64) -> bool {
        let Some(word) = self.voters.get_mut(usize::from(voter / 64)) else { return false };
        let bit = 1u64 << (voter % 64);
        if *word & bit != 0 {
            return false;
        }
        *word |= bit;
        self.weight += weight;
        true
    }

    /// Counts weight again that counts already: a planted fault.
    pub(super) fn add_again(&mut self, weight: u64) {
        self.weight += weight;
    }

    /// Weight of the voters counted.
    pub(super) fn weight(&self) -> u64 {
        self.weight
    }
}
