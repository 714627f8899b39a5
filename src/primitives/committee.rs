//! The committee of a height (protocol §1): who votes with which weight, and what makes a quorum.

use crate::primitives::encoding::{Decode, Encode};
use crate::primitives::hash::{Domain, Hash, KeyHash, MasternodeId, hash};
use crate::primitives::keys::PublicKey;
use crate::primitives::merkle::root_of_leaves;

/// Index of a member in its committee.
pub type VoterIndex = u16;

/// Fewest masternodes consensus works with; with fewer the node says so and waits.
pub const COMMITTEE_MIN: usize = 3;

/// Most members of a committee; above it votes would need aggregation or sampling.
pub const COMMITTEE_MAX: usize = 200;

/// One voting masternode.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Member {
    /// Registry identity, the committee's sort key.
    pub id: MasternodeId,
    /// The key that signs votes.
    pub vote_key: PublicKey,
    /// Voting weight, at least 1.
    pub weight: u64,
    /// Where rewards go.
    pub payout: KeyHash,
    /// Name given at registration, at most 64 bytes.
    pub name: String,
}

/// The members of one height ordered by id, with their total weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committee {
    members: Vec<Member>,
    total: u64,
    stride: u64,
}

impl Committee {
    /// The committee of `members`, sorted by id. Weights must add up to at most 2^32 and there must
    /// be at most [`COMMITTEE_MAX`] members; the registry guarantees both.
    #[must_use]
    pub fn new(mut members: Vec<Member>) -> Self {
        members.sort_by_key(|member| member.id);
        let total = members.iter().map(|member| member.weight).sum();
        Self { members, total, stride: stride(total) }
    }

    /// The members in index order.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Number of members.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody votes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The member with this index.
    #[must_use]
    pub fn member(&self, index: VoterIndex) -> Option<&Member> {
        self.members.get(usize::from(index))
    }

    /// Weight of a member, 0 for an unknown index.
    #[must_use]
    pub fn weight(&self, index: VoterIndex) -> u64 {
        self.member(index).map_or(0, |member| member.weight)
    }

    /// Index of the member that votes with `key`.
    #[must_use]
    pub fn index_of(&self, key: &PublicKey) -> Option<VoterIndex> {
        let position = self.members.iter().position(|member| member.vote_key == *key)?;
        VoterIndex::try_from(position).ok()
    }

    /// All indices.
    pub fn indices(&self) -> std::ops::Range<VoterIndex> {
        0..VoterIndex::try_from(self.members.len()).unwrap_or(VoterIndex::MAX)
    }

    /// `W`: the total weight.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// `Q = floor(2 W / 3) + 1`: two quorums share more than any tolerated Byzantine weight.
    #[must_use]
    pub fn quorum(&self) -> u64 {
        quorum_of(self.total)
    }

    /// `A = floor((W - 1) / 3) + 1`: the least weight certain to contain an honest validator.
    #[must_use]
    pub fn honest_weight(&self) -> u64 {
        self.total.saturating_sub(1) / 3 + 1
    }

    /// Proposer of (height, round): `x = (h + r) * s mod W` in the cumulative weights, where `s` is
    /// the largest integer `<= 0.618 W` coprime to `W`; exactly fair by weight over `W` turns.
    #[must_use]
    pub fn proposer(&self, height: u64, round: u32) -> Option<VoterIndex> {
        let total = u128::from(self.total.max(1));
        let turn = (u128::from(height) + u128::from(round)) * u128::from(self.stride) % total;
        let mut upper = 0u128;
        self.indices().zip(&self.members).find_map(|(index, member)| {
            upper += u128::from(member.weight);
            (turn < upper).then_some(index)
        })
    }

    /// `committee_root` of the header: binds index, id, vote key and weight of every member, their number
    /// and the total weight. Names and payouts are the registry's (`registry_root`). Cost: two hashes a
    /// member.
    #[must_use]
    pub fn root(&self) -> Hash {
        committee_root(self.total, u32::from(self.indices().end), root_of_leaves(self.leaves()))
    }

    /// The leaves of the tree under [`Committee::root`], in index order.
    #[must_use]
    pub fn leaves(&self) -> Vec<Hash> {
        let members = self.indices().zip(&self.members);
        members
            .map(|(index, member)| member_leaf(index, member.id, &member.vote_key, member.weight))
            .collect()
    }
}

/// `Q` of a committee of this total weight.
#[must_use]
pub fn quorum_of(total: u64) -> u64 {
    u64::try_from(u128::from(total) * 2 / 3).unwrap_or(u64::MAX).saturating_add(1)
}

/// Leaf of one member under a committee root: `H(index, id, vote key, weight)`.
#[must_use]
pub fn member_leaf(index: VoterIndex, id: MasternodeId, vote_key: &PublicKey, weight: u64) -> Hash {
    hash(Domain::MEMBER, &[&index.to_le_bytes(), id.bytes(), &vote_key.0, &weight.to_le_bytes()])
}

/// A committee root from its parts: `H(W, number of members, Merkle root over the member leaves)`.
#[must_use]
pub fn committee_root(total: u64, count: u32, members_root: Hash) -> Hash {
    hash(Domain::COMMITTEE, &[&total.to_le_bytes(), &count.to_le_bytes(), &members_root.0])
}

fn stride(total: u64) -> u64 {
    let most = u64::try_from(u128::from(total) * 618 / 1000).unwrap_or(1);
    (1..=most).rev().find(|step| gcd(*step, total) == 1).unwrap_or(1)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
