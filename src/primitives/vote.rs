//! Votes (protocol §2): batches of the fast path, single votes of the checkpoint rounds.

use crate::primitives::committee::VoterIndex;
use crate::primitives::encoding::{Decode, Encode};
use crate::primitives::hash::{BlockId, Domain, EraTag, Hash, Txid, hash};
use crate::primitives::keys::Signature;
use crate::primitives::merkle::{Phase, path, root};

/// One voter's Prepare and Commit votes since its last batch. The batches of a voter in an era are
/// its stream, numbered 0, 1, 2, ...
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct VoteBatch {
    /// Era the votes count in.
    pub era_tag: EraTag,
    /// Index of the voter in the committee of the era.
    pub voter: VoterIndex,
    /// Number in the voter's stream.
    pub sequence: u32,
    /// Whether the voter is frozen: nothing of its stream follows.
    pub last: bool,
    /// First-phase votes.
    pub prepares: Vec<Txid>,
    /// Second-phase votes.
    pub commits: Vec<Txid>,
    /// The voter's signature over [`VoteBatch::digest`].
    pub signature: Signature,
}

/// The digest a batch or a proof out of it is signed with.
#[must_use]
pub fn batch_digest(
    era_tag: EraTag,
    voter: VoterIndex,
    sequence: u32,
    last: bool,
    counts: [u32; 2],
    roots: [Hash; 2],
) -> Hash {
    let [prepare_count, commit_count] = counts;
    let [prepare_root, commit_root] = roots;
    hash(
        Domain::BATCH,
        &[
            era_tag.bytes(),
            &voter.to_le_bytes(),
            &sequence.to_le_bytes(),
            &[u8::from(last)],
            &prepare_count.to_le_bytes(),
            &commit_count.to_le_bytes(),
            &prepare_root.0,
            &commit_root.0,
        ],
    )
}

fn count(list: &[Txid]) -> u32 {
    u32::try_from(list.len()).unwrap_or(u32::MAX)
}

impl VoteBatch {
    /// What is signed: the header of the batch with the counts and roots of both lists.
    #[must_use]
    pub fn digest(&self) -> Hash {
        batch_digest(
            self.era_tag,
            self.voter,
            self.sequence,
            self.last,
            [count(&self.prepares), count(&self.commits)],
            [root(Phase::Prepare, &self.prepares), root(Phase::Commit, &self.commits)],
        )
    }

    /// The single vote for `txid` out of this batch, provable by itself.
    #[must_use]
    pub fn proof(&self, phase: Phase, txid: &Txid) -> Option<VoteProof> {
        let (list, other_phase, other) = match phase {
            Phase::Prepare => (&self.prepares, Phase::Commit, &self.commits),
            Phase::Commit => (&self.commits, Phase::Prepare, &self.prepares),
            Phase::Body => return None,
        };
        let index = list.iter().position(|id| id == txid)?;
        Some(VoteProof {
            voter: self.voter,
            sequence: self.sequence,
            last: self.last,
            prepare_count: count(&self.prepares),
            commit_count: count(&self.commits),
            other_root: root(other_phase, other),
            index: u32::try_from(index).ok()?,
            path: path(phase, list, index)?,
            signature: self.signature,
        })
    }
}

/// A single vote out of a batch; counts like the batch.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct VoteProof {
    /// Index of the voter.
    pub voter: VoterIndex,
    /// Number of the batch in the voter's stream.
    pub sequence: u32,
    /// Whether the batch is the voter's last.
    pub last: bool,
    /// Prepares in the batch.
    pub prepare_count: u32,
    /// Commits in the batch.
    pub commit_count: u32,
    /// Root of the list that does not hold this vote.
    pub other_root: Hash,
    /// Place of the vote in its list.
    pub index: u32,
    /// Merkle siblings from the vote up.
    pub path: Vec<Hash>,
    /// The voter's signature over the batch.
    pub signature: Signature,
}

impl VoteProof {
    /// The digest the voter must have signed for this to be its `phase` vote for `txid` in the era;
    /// `None` when the path has the wrong shape.
    #[must_use]
    pub fn digest(&self, era_tag: EraTag, phase: Phase, txid: &Txid) -> Option<Hash> {
        use crate::primitives::merkle::root_of_path;
        let own_count = match phase {
            Phase::Prepare => self.prepare_count,
            Phase::Commit => self.commit_count,
            Phase::Body => return None,
        };
        let own = root_of_path(phase, txid, self.index, own_count, &self.path)?;
        let roots = if phase == Phase::Prepare { [own, self.other_root] } else { [self.other_root, own] };
        let counts = [self.prepare_count, self.commit_count];
        Some(batch_digest(era_tag, self.voter, self.sequence, self.last, counts, roots))
    }
}

/// The two votes of a checkpoint round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Step {
    /// First vote of a round.
    Prevote,
    /// Second vote of a round; a quorum decides.
    Precommit,
}

/// One vote of a checkpoint round.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Vote {
    /// Era, and with it the height.
    pub era_tag: EraTag,
    /// Round.
    pub round: u32,
    /// Which of the two votes.
    pub step: Step,
    /// The block, or `None` for nil.
    pub block: Option<BlockId>,
    /// Index of the voter.
    pub voter: VoterIndex,
    /// The voter's signature over [`vote_digest`].
    pub signature: Signature,
}

/// What a checkpoint vote signs. The voter is named by its key.
#[must_use]
pub fn vote_digest(era_tag: EraTag, round: u32, step: Step, block: Option<BlockId>) -> Hash {
    let step = match step {
        Step::Prevote => 0u8,
        Step::Precommit => 1,
    };
    let (tag, id) = match block {
        Some(id) => (1u8, id),
        None => (0, BlockId::default()),
    };
    hash(Domain::VOTE, &[era_tag.bytes(), &round.to_le_bytes(), &[step, tag], id.bytes()])
}

impl Vote {
    /// What is signed.
    #[must_use]
    pub fn digest(&self) -> Hash {
        vote_digest(self.era_tag, self.round, self.step, self.block)
    }
}
