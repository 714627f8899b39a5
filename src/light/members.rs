//! Some members of a committee with the proof that they are in it.

use crate::light::ProofError;
use crate::primitives::committee::{Committee, VoterIndex, committee_root, member_leaf};
use crate::primitives::encoding::{Decode, Encode};
use crate::primitives::hash::{Hash, MasternodeId};
use crate::primitives::keys::PublicKey;
use crate::primitives::merkle::{multi_path, root_of_multi_path};

/// A committee member as its root binds it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ProvenMember {
    /// Index in the committee.
    pub index: VoterIndex,
    /// Registry identity.
    pub id: MasternodeId,
    /// The key that signs votes.
    pub vote_key: PublicKey,
    /// Voting weight.
    pub weight: u64,
}

/// Members of one committee with a Merkle multi-proof to its root.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MemberProof {
    /// `W`: total weight of the committee.
    pub total: u64,
    /// Number of members of the committee.
    pub count: u16,
    /// The members proven, by strictly ascending index.
    pub members: Vec<ProvenMember>,
    /// What [`root_of_multi_path`] needs beside the members.
    pub siblings: Vec<Hash>,
}

impl MemberProof {
    /// Proves the members at `indices`, strictly ascending; `None` when there is none or one is not in the
    /// committee. Cost: O(committee).
    #[must_use]
    pub fn new(committee: &Committee, indices: &[VoterIndex]) -> Option<Self> {
        let proven = |index: &VoterIndex| {
            let member = committee.member(*index)?;
            let (id, vote_key, weight) = (member.id, member.vote_key, member.weight);
            Some(ProvenMember { index: *index, id, vote_key, weight })
        };
        let places: Vec<u32> = indices.iter().map(|index| u32::from(*index)).collect();
        Some(Self {
            total: committee.total(),
            count: u16::try_from(committee.len()).ok()?,
            members: indices.iter().map(proven).collect::<Option<_>>()?,
            siblings: multi_path(&committee.leaves(), &places)?,
        })
    }

    /// Checks that these are members of the committee with this root, which header `height` names. After
    /// it weights, total and count are those of that committee and no member counts twice.
    ///
    /// # Errors
    /// [`ProofError::Malformed`] for another shape, [`ProofError::OtherCommittee`] for another root.
    pub fn check(&self, expected: Hash, height: u64) -> Result<(), ProofError> {
        let leaf = |member: &ProvenMember| {
            let digest = member_leaf(member.index, member.id, &member.vote_key, member.weight);
            (u32::from(member.index), digest)
        };
        let leaves: Vec<(u32, Hash)> = self.members.iter().map(leaf).collect();
        let members_root = root_of_multi_path(&leaves, u32::from(self.count), &self.siblings)
            .ok_or_else(|| ProofError::malformed("members", "the Merkle multi-proof has the wrong shape"))?;
        let found = committee_root(self.total, u32::from(self.count), members_root);
        if found == expected { Ok(()) } else { Err(ProofError::OtherCommittee { height, found, expected }) }
    }

    /// Weight of the proven members.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.members.iter().fold(0, |sum: u64, member| sum.saturating_add(member.weight))
    }

    /// Their indices, in order.
    pub fn voters(&self) -> impl Iterator<Item = VoterIndex> + '_ {
        self.members.iter().map(|member| member.index)
    }
}

/// The fewest of `voters` that reach `least` weight, heaviest first, as ascending indices; `None` when all
/// of them do not.
#[must_use]
pub fn fewest(
    committee: &Committee,
    voters: impl IntoIterator<Item = VoterIndex>,
    least: u64,
) -> Option<Vec<VoterIndex>> {
    let mut by_weight: Vec<VoterIndex> = voters.into_iter().collect();
    by_weight.sort_by_key(|voter| (std::cmp::Reverse(committee.weight(*voter)), *voter));
    let (mut chosen, mut weight) = (Vec::new(), 0u64);
    for voter in by_weight {
        if weight >= least {
            break;
        }
        weight = weight.saturating_add(committee.weight(voter));
        chosen.push(voter);
    }
    chosen.sort_unstable();
    (weight >= least).then_some(chosen)
}
