//! What votes weigh in the current committee, and the faults that can be planted in a machine.

use super::Machine;
use crate::consensus::host::Host;
use crate::consensus::planted::Bug;
use crate::consensus::tally::Tally;
use crate::primitives::committee::{Committee, VoterIndex};
use crate::primitives::hash::BlockId;
use std::sync::Arc;

impl Machine {
    /// Plants a fault, for tests of the tests.
    #[cfg(feature = "planted-bugs")]
    pub fn plant(&mut self, bug: Bug) {
        std::sync::Arc::make_mut(&mut self.context).planted = crate::consensus::planted::Planted::of(bug);
    }

    /// Whether a fault was planted; `false` in every build but that of the tests.
    pub(super) fn has_bug(&self, bug: Bug) -> bool {
        self.context.planted.has(bug)
    }

    /// The committee of the era to enter, unless a fault keeps the one before.
    pub(super) fn next_committee(&self, next: &Arc<Committee>) -> Arc<Committee> {
        let before = &self.context.committee;
        let shrinks = next.len() < before.len() && self.has_bug(Bug::LeaversStillVote);
        let keeps = shrinks || self.has_bug(Bug::CommitteeOfLastHeight);
        Arc::clone(if keeps { before } else { next })
    }

    /// Weight of a voter in the current committee.
    pub(super) fn weight(&self, voter: VoterIndex) -> u64 {
        if self.has_bug(Bug::CountsHeads) {
            return 1;
        }
        self.context.committee.weight(voter)
    }

    /// `Q` of the current committee.
    pub(super) fn quorum(&self) -> u64 {
        let committee = &self.context.committee;
        if self.has_bug(Bug::CountsHeads) {
            return u64::try_from(committee.len()).unwrap_or(u64::MAX) * 2 / 3 + 1;
        }
        committee.quorum() - u64::from(self.has_bug(Bug::QuorumOffByOne))
    }

    /// The lock a proposal is judged against.
    pub(super) fn lock_of_rounds(&self) -> Option<(BlockId, u32)> {
        self.checkpoint.locked.filter(|_| !self.has_bug(Bug::ForgottenLock))
    }

    /// Room of an own block, unless the fault of small blocks is planted.
    pub(super) fn room_at_most(&self, host: &dyn Host, bytes: u64) -> u64 {
        if self.has_bug(Bug::SmallBlocks) { host.params().era_bytes / 4 } else { bytes }
    }

    /// Whether votes on payments may still be cast.
    pub(super) fn is_voting_open(&self) -> bool {
        !self.era.frozen || self.has_bug(Bug::VotesAfterLast)
    }
}

/// Counts a voter in a tally; whether it was new. `again` is the fault of counting repeated votes.
pub(super) fn tally_once(tally: &mut Tally, voter: VoterIndex, weight: u64, again: bool) -> bool {
    let new = tally.add(voter, weight);
    if again && !new {
        tally.add_again(weight);
    }
    new
}
