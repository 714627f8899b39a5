//! Evidence (protocol §10): two signatures of one vote key that no validator following the rules makes.
//!
//! Evidence proves itself: it names the key and holds what the key signed. Who the key belongs to, and
//! whether it can still be punished, is the registry's to say. Absent: finding it, which is the
//! consensus machine's, and its effect, which is the ledger's.

use crate::primitives::encoding::{Decode, Encode};
use crate::primitives::hash::{BlockId, EraTag, Hash, MasternodeId, Txid};
use crate::primitives::keys::{PublicKey, Signature, SignatureCheck};
use crate::primitives::merkle::{Phase, root, root_of_path};
use crate::primitives::message::{Proposal, proposal_digest};
use crate::primitives::transaction::{OutPoint, Transaction};
use crate::primitives::vote::{Step, VoteBatch, VoteProof, batch_digest, vote_digest};

/// What a vote batch is signed over, without its lists.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BatchHead {
    /// Index of the voter, as signed.
    pub voter: u16,
    /// Number in the voter's stream.
    pub sequence: u32,
    /// Whether the voter said that nothing follows.
    pub last: bool,
    /// Prepares and Commits in the batch.
    pub counts: [u32; 2],
    /// Merkle roots of the Prepares and of the Commits.
    pub roots: [Hash; 2],
    /// The voter's signature.
    pub signature: Signature,
}

impl BatchHead {
    /// The head of a batch. Cost: two hashes a vote.
    #[must_use]
    pub fn of(batch: &VoteBatch) -> Self {
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        Self {
            voter: batch.voter,
            sequence: batch.sequence,
            last: batch.last,
            counts: [count(batch.prepares.len()), count(batch.commits.len())],
            roots: [root(Phase::Prepare, &batch.prepares), root(Phase::Commit, &batch.commits)],
            signature: batch.signature,
        }
    }

    /// The head of the batch that a single vote was taken from; `None` when the path has the wrong
    /// shape.
    #[must_use]
    pub fn of_proof(proof: &VoteProof, phase: Phase, txid: &Txid) -> Option<Self> {
        let counts = [proof.prepare_count, proof.commit_count];
        let (own_count, other) = match phase {
            Phase::Prepare => (proof.prepare_count, Phase::Commit),
            Phase::Commit => (proof.commit_count, Phase::Prepare),
            Phase::Body => return None,
        };
        let own = root_of_path(phase, txid, proof.index, own_count, &proof.path)?;
        let roots = if other == Phase::Commit { [own, proof.other_root] } else { [proof.other_root, own] };
        let (voter, sequence, last) = (proof.voter, proof.sequence, proof.last);
        Some(Self { voter, sequence, last, counts, roots, signature: proof.signature })
    }

    fn digest(&self, era_tag: EraTag) -> Hash {
        batch_digest(era_tag, self.voter, self.sequence, self.last, self.counts, self.roots)
    }
}

/// One proposal of a round, as signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ProposalHead {
    /// Round of the POL, -1 for a fresh block.
    pub valid_round: i32,
    /// The block.
    pub block: BlockId,
    /// The proposer's signature.
    pub signature: Signature,
}

impl ProposalHead {
    /// The head of a proposal. Cost: one hash.
    #[must_use]
    pub fn of(proposal: &Proposal) -> Self {
        let (valid_round, signature) = (proposal.valid_round, proposal.signature);
        Self { valid_round, block: proposal.outline.header.id(), signature }
    }
}

/// One checkpoint vote, as signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct VoteHead {
    /// The block, or `None` for nil.
    pub block: Option<BlockId>,
    /// The voter's signature.
    pub signature: Signature,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Offence {
    /// Two batches of one number, or a batch after the last one.
    Batches(BatchHead, BatchHead),
    /// Prepares, or Commits, for two transactions that spend one output, with both transactions.
    Payments {
        /// Prepare or Commit.
        phase: Phase,
        /// The vote for each transaction.
        votes: [VoteProof; 2],
        /// The transactions.
        transactions: Box<[Transaction; 2]>,
    },
    /// Two different votes of one round and step.
    Votes {
        /// Round.
        round: u32,
        /// Prevote or precommit.
        step: Step,
        /// The votes.
        votes: [VoteHead; 2],
    },
    /// Two different proposals of one round.
    Proposals {
        /// Round.
        round: u32,
        /// The proposals.
        proposals: [ProposalHead; 2],
    },
}

impl Offence {
    /// Stable name for logs and people.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Batches(..) => "two vote batches that exclude each other",
            Self::Payments { phase: Phase::Prepare, .. } => "prepares for two payments of one output",
            Self::Payments { .. } => "commits for two payments of one output",
            Self::Votes { step: Step::Prevote, .. } => "two prevotes of one round",
            Self::Votes { step: Step::Precommit, .. } => "two precommits of one round",
            Self::Proposals { .. } => "two proposals of one round",
        }
    }
}

/// Proof that a masternode signed what excludes each other.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Evidence {
    /// Whose key it is.
    pub offender: MasternodeId,
    /// The key that signed.
    pub vote_key: PublicKey,
    /// The era both signatures are of.
    pub era_tag: EraTag,
    /// What was signed.
    pub offence: Offence,
}

/// Why something is no evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoOffence {
    #[error("both signatures are of the same statement")]
    Same,
    #[error("the batches have different numbers and none is after the last one")]
    Compatible,
    #[error("the votes are not for the attached transactions")]
    NotVotedFor,
    #[error("the attached transactions spend no output in common")]
    NoConflict,
    #[error("the phase is neither Prepare nor Commit")]
    NoPhase,
}

impl Evidence {
    /// Checks that the two statements exclude each other and returns the signatures that remain to be
    /// verified.
    ///
    /// # Errors
    /// [`NoOffence`].
    pub fn checks(&self) -> Result<Vec<SignatureCheck>, NoOffence> {
        let era_tag = self.era_tag;
        let signed: [(Hash, Signature); 2] = match &self.offence {
            Offence::Batches(first, second) => {
                let continued = |last: &BatchHead, after: &BatchHead| {
                    last.last && after.sequence > last.sequence && last.voter == after.voter
                };
                let one_number = first.sequence == second.sequence && first.voter == second.voter;
                if !one_number && !continued(first, second) && !continued(second, first) {
                    return Err(NoOffence::Compatible);
                }
                [first, second].map(|head| (head.digest(era_tag), head.signature))
            }
            Offence::Payments { phase, votes, transactions } => {
                payment_statements(era_tag, *phase, votes, transactions)?
            }
            Offence::Votes { round, step, votes } => {
                votes.map(|vote| (vote_digest(era_tag, *round, *step, vote.block), vote.signature))
            }
            Offence::Proposals { round, proposals } => proposals.map(|proposal| {
                let digest = proposal_digest(era_tag, *round, proposal.valid_round, proposal.block);
                (digest, proposal.signature)
            }),
        };
        let [(first, _), (second, _)] = &signed;
        // Both votes for two payments may stand in one batch, which is one statement and an offence.
        if first == second && !matches!(self.offence, Offence::Payments { .. }) {
            return Err(NoOffence::Same);
        }
        let check = |(digest, signature)| SignatureCheck { key: self.vote_key, digest, signature };
        Ok(signed.map(check).to_vec())
    }
}

fn payment_statements(
    era_tag: EraTag,
    phase: Phase,
    votes: &[VoteProof; 2],
    transactions: &[Transaction; 2],
) -> Result<[(Hash, Signature); 2], NoOffence> {
    if phase == Phase::Body {
        return Err(NoOffence::NoPhase);
    }
    let [first, second] = transactions;
    let ids = [first.id(), second.id()];
    if ids[0] == ids[1] {
        return Err(NoOffence::Same);
    }
    let spent: std::collections::BTreeSet<OutPoint> =
        first.inputs.iter().map(|input| input.outpoint).collect();
    if !second.inputs.iter().any(|input| spent.contains(&input.outpoint)) {
        return Err(NoOffence::NoConflict);
    }
    let [a, b] = votes;
    let digest = |vote: &VoteProof, id| vote.digest(era_tag, phase, id).ok_or(NoOffence::NotVotedFor);
    Ok([(digest(a, &ids[0])?, a.signature), (digest(b, &ids[1])?, b.signature)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::keys::SecretKey;
    use crate::primitives::transaction::{TRANSACTION_VERSION, TransactionKind, TxInput};

    const TAG: EraTag = EraTag(Hash([3; 32]));

    fn key() -> SecretKey {
        SecretKey::from_seed(&[5; 32])
    }

    fn batch(sequence: u32, last: bool, prepares: Vec<Txid>) -> VoteBatch {
        let signature = Signature([0; 64]);
        let mut batch =
            VoteBatch { era_tag: TAG, voter: 2, sequence, last, prepares, commits: Vec::new(), signature };
        batch.signature = key().sign(&batch.digest());
        batch
    }

    fn evidence(offence: Offence) -> Evidence {
        Evidence { offender: MasternodeId(Hash([9; 32])), vote_key: key().public(), era_tag: TAG, offence }
    }

    fn proven(offence: Offence) -> Result<bool, NoOffence> {
        let checks = evidence(offence).checks()?;
        Ok(checks.iter().all(|check| check.key.verify(&check.digest, &check.signature)))
    }

    fn transaction(outpoint: u32, expiry: u64) -> Transaction {
        let outpoint = OutPoint { txid: Txid::default(), index: outpoint };
        let input = TxInput { outpoint, public_key: key().public(), signature: Signature([0; 64]) };
        Transaction {
            version: TRANSACTION_VERSION,
            kind: TransactionKind::Payment,
            expiry,
            inputs: vec![input],
            outputs: Vec::new(),
            payload: Vec::new(),
        }
    }

    #[test]
    fn two_batches_of_one_number_or_one_after_the_last_are_an_offence() {
        let head = |sequence, last, n: u8| BatchHead::of(&batch(sequence, last, vec![Txid(Hash([n; 32]))]));
        assert_eq!(proven(Offence::Batches(head(1, false, 1), head(1, false, 2))), Ok(true));
        assert_eq!(proven(Offence::Batches(head(1, true, 1), head(2, false, 2))), Ok(true));
        assert_eq!(proven(Offence::Batches(head(5, false, 1), head(2, true, 2))), Ok(true));
        let same = Offence::Batches(head(1, false, 1), head(1, false, 1));
        assert_eq!(proven(same), Err(NoOffence::Same));
        let next = Offence::Batches(head(1, false, 1), head(2, true, 2));
        assert_eq!(proven(next), Err(NoOffence::Compatible));
    }

    #[test]
    fn a_signature_of_another_key_does_not_prove_anything() {
        let first = BatchHead::of(&batch(1, false, vec![]));
        let mut forged = BatchHead::of(&batch(1, false, vec![Txid::default()]));
        forged.signature = SecretKey::from_seed(&[6; 32]).sign(&forged.digest(TAG));
        assert_eq!(proven(Offence::Batches(first, forged)), Ok(false));
    }

    #[test]
    fn votes_for_two_payments_of_one_output_are_an_offence_even_in_one_batch() {
        let (a, b, other) = (transaction(0, 1), transaction(0, 2), transaction(1, 1));
        let whole = batch(0, false, vec![a.id(), b.id(), other.id()]);
        let vote = |transaction: &Transaction| whole.proof(Phase::Prepare, &transaction.id()).unwrap();
        let offence = |one: &Transaction, two: &Transaction, phase| Offence::Payments {
            phase,
            votes: [vote(one), vote(two)],
            transactions: Box::new([one.clone(), two.clone()]),
        };
        assert_eq!(proven(offence(&a, &b, Phase::Prepare)), Ok(true));
        assert_eq!(proven(offence(&a, &other, Phase::Prepare)), Err(NoOffence::NoConflict));
        assert_eq!(proven(offence(&a, &a, Phase::Prepare)), Err(NoOffence::Same));
        assert_eq!(proven(offence(&a, &b, Phase::Body)), Err(NoOffence::NoPhase));
        // Prepares are no Commits: the signature is over something else.
        assert_ne!(proven(offence(&a, &b, Phase::Commit)), Ok(true));
    }

    #[test]
    fn two_votes_or_proposals_of_one_round_are_an_offence() {
        let vote = |block| {
            let signature = key().sign(&vote_digest(TAG, 4, Step::Precommit, block));
            VoteHead { block, signature }
        };
        let votes = |a, b| Offence::Votes { round: 4, step: Step::Precommit, votes: [vote(a), vote(b)] };
        assert_eq!(proven(votes(None, Some(BlockId::default()))), Ok(true));
        assert_eq!(proven(votes(None, None)), Err(NoOffence::Same));
        let proposal = |valid_round| {
            let digest = proposal_digest(TAG, 4, valid_round, BlockId::default());
            ProposalHead { valid_round, block: BlockId::default(), signature: key().sign(&digest) }
        };
        let proposals = |a, b| Offence::Proposals { round: 4, proposals: [proposal(a), proposal(b)] };
        assert_eq!(proven(proposals(-1, 2)), Ok(true));
        assert_eq!(proven(proposals(2, 2)), Err(NoOffence::Same));
    }
}
