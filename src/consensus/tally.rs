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

    /// Whether a voter was counted.
    pub(super) fn contains(&self, voter: VoterIndex) -> bool {
        self.voters.get(usize::from(voter / 64)).is_some_and(|word| word & (1 << (voter % 64)) != 0)
    }

    /// The voters counted, ascending.
    pub(super) fn voters(&self) -> impl Iterator<Item = VoterIndex> + use<> {
        bits(self.voters)
    }

    /// The voters counted here and in `other`, ascending.
    pub(super) fn common(&self, other: &Self) -> impl Iterator<Item = VoterIndex> + use<> {
        let mut both = self.voters;
        for (word, mask) in both.iter_mut().zip(other.voters) {
            *word &= mask;
        }
        bits(both)
    }

    /// Weight of the voters counted.
    pub(super) fn weight(&self) -> u64 {
        self.weight
    }
}

fn bits(words: [u64; WORDS]) -> impl Iterator<Item = VoterIndex> {
    (0..).step_by(64).zip(words).flat_map(|(first, word): (VoterIndex, u64)| {
        (0..64).filter(move |bit| word & (1 << bit) != 0).map(move |bit| first + bit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voters_are_counted_once_and_found_again() {
        let (mut one, mut other) = (Tally::default(), Tally::default());
        for voter in [0, 63, 64, 199, 63] {
            one.add(voter, 2);
        }
        for voter in [1, 63, 199] {
            other.add(voter, 2);
        }
        assert_eq!((one.weight(), one.contains(64), one.contains(65)), (8, true, false));
        assert_eq!(one.voters().collect::<Vec<_>>(), [0, 63, 64, 199]);
        assert_eq!(one.common(&other).collect::<Vec<_>>(), [63, 199]);
    }
}
