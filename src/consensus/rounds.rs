//! Votes of the checkpoint rounds of one height, within the limits of protocol §8.

use crate::primitives::certificate::Qc;
use crate::primitives::committee::{Committee, VoterIndex};
use crate::primitives::evidence::{ProposalHead, VoteHead};
use crate::primitives::hash::BlockId;
use crate::primitives::keys::Signature;
use crate::primitives::message::Proposal;
use crate::primitives::vote::{Step, Vote};
use std::collections::BTreeMap;

/// Rounds kept below the current one. A quorum that old can only be completed by a peer that is
/// decided anyway, and it answers with the decided block.
pub(super) const ROUNDS_KEPT: u32 = 64;

/// The votes of one step of one round, one a voter.
#[derive(Clone, Debug, Default)]
pub(super) struct VoteSet {
    votes: BTreeMap<VoterIndex, (Option<BlockId>, Signature)>,
    weights: BTreeMap<Option<BlockId>, u64>,
    total: u64,
}

impl VoteSet {
    fn add(&mut self, vote: &Vote, weight: u64) -> Addition {
        match self.votes.get(&vote.voter) {
            Some((block, _)) if *block == vote.block => Addition::Known,
            Some(_) => Addition::Conflict,
            None => {
                self.votes.insert(vote.voter, (vote.block, vote.signature));
                *self.weights.entry(vote.block).or_default() += weight;
                self.total += weight;
                Addition::New
            }
        }
    }

    /// Weight of all votes.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// What a quorum voted for: `Some(None)` is nil.
    pub(super) fn quorum(&self, quorum: u64) -> Option<Option<BlockId>> {
        self.weights.iter().find(|(_, weight)| **weight >= quorum).map(|(block, _)| *block)
    }

    /// The voters with their votes.
    pub(super) fn votes(&self) -> &BTreeMap<VoterIndex, (Option<BlockId>, Signature)> {
        &self.votes
    }

    /// Weight for each block and nil, the most first.
    pub(super) fn split(&self) -> Vec<(Option<BlockId>, u64)> {
        let mut split: Vec<_> = self.weights.iter().map(|(block, weight)| (*block, *weight)).collect();
        split.sort_by_key(|(_, weight)| std::cmp::Reverse(*weight));
        split
    }

    /// One bit a voter, as in a [`Qc`].
    pub(super) fn bitmap(&self) -> Vec<u8> {
        let width = self.votes.keys().next_back().map_or(0, |voter| usize::from(*voter) / 8 + 1);
        let mut bitmap = vec![0u8; width];
        for voter in self.votes.keys() {
            if let Some(byte) = bitmap.get_mut(usize::from(*voter) / 8) {
                *byte |= 1 << (voter % 8);
            }
        }
        bitmap
    }

    /// The votes for `block` as a certificate.
    pub(super) fn certificate(&self, round: u32, step: Step, block: BlockId) -> Qc {
        let votes = self.votes.iter().filter(|(_, (voted, _))| *voted == Some(block));
        Qc::new(round, step, block, votes.map(|(voter, (_, signature))| (*voter, *signature)).collect())
    }
}

/// What became of a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Addition {
    New,
    Known,
    /// The signer signed something else for the same place, which is held.
    Conflict,
    /// Of a round that is not kept.
    Ignored,
}

/// One round.
#[derive(Clone, Debug, Default)]
pub(super) struct Round {
    pub(super) proposal: Option<Proposal>,
    pub(super) prevotes: VoteSet,
    pub(super) precommits: VoteSet,
    /// A prevote quorum of this round that arrived as a certificate.
    pub(super) pol: Option<Qc>,
    /// The prevote quorum of this round was acted on.
    pub(super) pol_used: bool,
    pub(super) prevote_timer_armed: bool,
    pub(super) precommit_timer_armed: bool,
}

impl Round {
    /// What a quorum prevoted, by single votes or by certificate.
    pub(super) fn polled(&self, quorum: u64) -> Option<Option<BlockId>> {
        self.prevotes.quorum(quorum).or_else(|| self.pol.as_ref().map(|pol| Some(pol.block)))
    }

    /// The prevote quorum for `block` as a certificate; the caller knows that there is one.
    pub(super) fn pol_for(&self, number: u32, block: BlockId) -> Qc {
        let arrived = self.pol.clone().filter(|pol| pol.block == block);
        arrived.unwrap_or_else(|| self.prevotes.certificate(number, Step::Prevote, block))
    }

    /// The votes of a step.
    pub(super) fn votes(&self, step: Step) -> &VoteSet {
        match step {
            Step::Prevote => &self.prevotes,
            Step::Precommit => &self.precommits,
        }
    }
}

/// All rounds of a height.
#[derive(Clone, Debug, Default)]
pub(super) struct Rounds {
    rounds: BTreeMap<u32, Round>,
}

impl Rounds {
    /// A round, if anything is known of it.
    pub(super) fn find(&self, round: u32) -> Option<&Round> {
        self.rounds.get(&round)
    }

    /// What is held of a voter for a step of a round.
    pub(super) fn vote_of(&self, round: u32, step: Step, voter: VoterIndex) -> Option<VoteHead> {
        let (block, signature) = *self.find(round)?.votes(step).votes().get(&voter)?;
        Some(VoteHead { block, signature })
    }

    /// What the proposer of a round signed.
    pub(super) fn proposal_of(&self, round: u32) -> Option<ProposalHead> {
        self.find(round)?.proposal.as_ref().map(ProposalHead::of)
    }

    /// A round, made when new.
    pub(super) fn at(&mut self, round: u32) -> &mut Round {
        self.rounds.entry(round).or_default()
    }

    /// All rounds known, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Round)> {
        self.rounds.iter().map(|(number, round)| (*number, round))
    }

    /// All votes held.
    pub(super) fn votes(&self) -> impl Iterator<Item = (u32, Step, VoterIndex, VoteHead)> {
        self.rounds.iter().flat_map(|(number, round)| {
            [Step::Prevote, Step::Precommit].into_iter().flat_map(move |step| {
                let votes = round.votes(step).votes().iter();
                votes.map(move |(voter, (block, signature))| {
                    (*number, step, *voter, VoteHead { block: *block, signature: *signature })
                })
            })
        })
    }

    /// Adds a vote: any of rounds up to `current + 1`; beyond that only a voter's highest round.
    pub(super) fn add_vote(&mut self, vote: &Vote, weight: u64, current: u32) -> Addition {
        if self.has_forgotten(vote.round, current) {
            return Addition::Ignored;
        }
        if vote.round > current.saturating_add(1) {
            if self.highest_round_of(vote.voter).is_some_and(|highest| highest > vote.round) {
                return Addition::Ignored;
            }
            self.forget_between(vote.voter, current.saturating_add(1), vote.round, weight);
        }
        let round = self.at(vote.round);
        match vote.step {
            Step::Prevote => round.prevotes.add(vote, weight),
            Step::Precommit => round.precommits.add(vote, weight),
        }
    }

    /// Keeps a proposal, one a round, for rounds up to `current + 1` or the highest known one.
    pub(super) fn add_proposal(&mut self, proposal: Proposal, current: u32) -> Addition {
        let number = proposal.round;
        if number < current {
            return Addition::Ignored;
        }
        if number > current.saturating_add(1) {
            // Of the rounds far ahead only the highest proposal is kept.
            let far = self.rounds.range(current.saturating_add(2)..);
            if far.clone().any(|(other, round)| *other > number && round.proposal.is_some()) {
                return Addition::Ignored;
            }
            for (_, round) in self.rounds.range_mut(current.saturating_add(2)..number) {
                round.proposal = None;
            }
            self.drop_empty();
        }
        let round = self.at(number);
        match &round.proposal {
            None => {
                round.proposal = Some(proposal);
                Addition::New
            }
            Some(held) if held.digest() == proposal.digest() => Addition::Known,
            Some(_) => Addition::Conflict,
        }
    }

    /// The greatest round above `current` in or above which voters of at least `least` weight were
    /// heard.
    pub(super) fn reached_by(&self, committee: &Committee, current: u32, least: u64) -> Option<u32> {
        let mut seen = std::collections::BTreeSet::new();
        let mut weight = 0;
        for (number, round) in self.rounds.range(current.saturating_add(1)..).rev() {
            for voter in round.prevotes.votes.keys().chain(round.precommits.votes.keys()) {
                if seen.insert(*voter) {
                    weight += committee.weight(*voter);
                }
            }
            if weight >= least {
                return Some(*number);
            }
        }
        None
    }

    /// Whether a round is too old to be kept, so that nothing is known of it.
    pub(super) fn has_forgotten(&self, round: u32, current: u32) -> bool {
        round < current.saturating_sub(ROUNDS_KEPT)
    }

    /// Forgets rounds too old to matter.
    pub(super) fn prune(&mut self, current: u32) {
        self.rounds = self.rounds.split_off(&current.saturating_sub(ROUNDS_KEPT));
    }

    /// The highest round in which a voter was heard.
    pub(super) fn highest_round_of(&self, voter: VoterIndex) -> Option<u32> {
        let voted = |round: &Round| {
            round.prevotes.votes.contains_key(&voter) || round.precommits.votes.contains_key(&voter)
        };
        self.rounds.iter().rev().find(|(_, round)| voted(round)).map(|(number, _)| *number)
    }

    fn forget_between(&mut self, voter: VoterIndex, low: u32, high: u32, weight: u64) {
        for (_, round) in self.rounds.range_mut(low.saturating_add(1)..high) {
            for set in [&mut round.prevotes, &mut round.precommits] {
                if let Some((block, _)) = set.votes.remove(&voter) {
                    set.total -= weight;
                    if let Some(sum) = set.weights.get_mut(&block) {
                        *sum -= weight;
                    }
                    set.weights.retain(|_, sum| *sum > 0);
                }
            }
        }
        self.drop_empty();
    }

    fn drop_empty(&mut self) {
        self.rounds.retain(|_, round| {
            round.proposal.is_some()
                || round.pol.is_some()
                || round.prevotes.total > 0
                || round.precommits.total > 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::hash::{EraTag, Hash, KeyHash, MasternodeId};
    use crate::primitives::keys::PublicKey;

    const BLOCK: BlockId = BlockId(Hash([7; 32]));

    fn committee() -> Committee {
        let member = |n: u8| crate::primitives::committee::Member {
            id: MasternodeId(Hash([n; 32])),
            vote_key: PublicKey([n; 32]),
            weight: 1,
            payout: KeyHash::default(),
            name: String::new(),
        };
        Committee::new((0..4).map(member).collect())
    }

    fn vote(voter: VoterIndex, round: u32, block: Option<BlockId>) -> Vote {
        let (era_tag, signature) = (EraTag::default(), Signature([0; 64]));
        Vote { era_tag, round, step: Step::Prevote, block, voter, signature }
    }

    #[test]
    fn a_second_vote_of_a_voter_changes_nothing() {
        let mut rounds = Rounds::default();
        assert_eq!(rounds.add_vote(&vote(0, 0, Some(BLOCK)), 1, 0), Addition::New);
        assert_eq!(rounds.add_vote(&vote(0, 0, Some(BLOCK)), 1, 0), Addition::Known);
        assert_eq!(rounds.add_vote(&vote(0, 0, None), 1, 0), Addition::Conflict);
        assert_eq!(rounds.at(0).prevotes.total(), 1);
        assert_eq!(rounds.at(0).prevotes.quorum(1), Some(Some(BLOCK)));
    }

    #[test]
    fn votes_split_over_blocks_and_nil_are_no_quorum_together() {
        let mut rounds = Rounds::default();
        for (voter, block) in [(0, Some(BLOCK)), (1, Some(BLOCK)), (2, None)] {
            rounds.add_vote(&vote(voter, 0, block), 1, 0);
        }
        assert_eq!(rounds.at(0).prevotes.total(), 3);
        assert_eq!(rounds.at(0).prevotes.quorum(3), None);
        rounds.add_vote(&vote(3, 0, Some(BLOCK)), 1, 0);
        assert_eq!(rounds.at(0).prevotes.quorum(3), Some(Some(BLOCK)));
    }

    #[test]
    fn far_ahead_only_the_highest_round_of_a_voter_is_kept() {
        let mut rounds = Rounds::default();
        for round in 2..10_000 {
            rounds.add_vote(&vote(0, round, None), 1, 0);
        }
        assert_eq!(rounds.iter().count(), 1);
        assert_eq!(rounds.add_vote(&vote(0, 50, None), 1, 0), Addition::Ignored);
        assert_eq!(rounds.find(9_999).map(|round| round.prevotes.total()), Some(1));
    }

    #[test]
    fn a_round_is_reached_by_voters_of_it_and_of_later_ones() {
        let mut rounds = Rounds::default();
        rounds.add_vote(&vote(0, 5, None), 1, 0);
        assert_eq!(rounds.reached_by(&committee(), 0, 2), None);
        rounds.add_vote(&vote(0, 6, None), 1, 0);
        assert_eq!(rounds.reached_by(&committee(), 0, 2), None, "one voter counts once");
        rounds.add_vote(&vote(1, 3, None), 1, 0);
        assert_eq!(rounds.reached_by(&committee(), 0, 2), Some(3));
    }
}
