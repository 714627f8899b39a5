//! The finality proof `F(h,T)` for those who did not see the votes (protocol §9).

use crate::light::members::MemberProof;
use crate::light::{ProofError, check_signatures};
use crate::primitives::block::Header;
use crate::primitives::committee::quorum_of;
use crate::primitives::encoding::{Decode, Encode};
use crate::primitives::hash::{BlockId, ChainId, Hash, Txid, era_tag};
use crate::primitives::keys::{Checker, Signature, SignatureCheck};
use crate::primitives::merkle::{Phase, path_length};
use crate::primitives::transaction::Transaction;
use crate::primitives::vote::VoteProof;

/// A Commit vote out of a batch, without its hashes, which are in one list for all votes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CommitVote {
    /// Number of the batch in the voter's stream.
    pub sequence: u32,
    /// Whether the batch is the voter's last.
    pub last: bool,
    /// Prepares in the batch.
    pub prepare_count: u32,
    /// Commits in the batch.
    pub commit_count: u32,
    /// Place of the vote among the commits.
    pub index: u32,
    /// The voter's signature over the batch.
    pub signature: Signature,
}

/// Proof that a quorum of the era after `header` commit-voted a payment.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FinalityProof {
    /// The payment.
    pub transaction: Transaction,
    /// Header of the block before the era: names its committee and its history.
    pub header: Header,
    /// The voters.
    pub members: MemberProof,
    /// Their votes, in the order of the members.
    pub votes: Vec<CommitVote>,
    /// For each vote in turn: the root of its batch's prepares if there are any, then the Merkle path of
    /// the vote from the leaf up. Their number follows from the counts, which are signed.
    pub hashes: Vec<Hash>,
}

/// What a valid proof shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The payment.
    pub txid: Txid,
    /// Era in which it became final, or height of the block it is in.
    pub height: u64,
    /// Weight of the votes in the proof.
    pub weight: u64,
    /// Total weight of the committee.
    pub total: u64,
}

impl FinalityProof {
    /// The proof of these votes, one a member and in that order.
    #[must_use]
    pub fn new(
        transaction: Transaction,
        header: Header,
        members: MemberProof,
        votes: Vec<VoteProof>,
    ) -> Self {
        let mut hashes = Vec::new();
        let mut compact = |vote: VoteProof| {
            if vote.prepare_count > 0 {
                hashes.push(vote.other_root);
            }
            hashes.extend(vote.path);
            CommitVote {
                sequence: vote.sequence,
                last: vote.last,
                prepare_count: vote.prepare_count,
                commit_count: vote.commit_count,
                index: vote.index,
                signature: vote.signature,
            }
        };
        let votes = votes.into_iter().map(&mut compact).collect();
        Self { transaction, header, members, votes, hashes }
    }

    /// The era the proof is of.
    #[must_use]
    pub fn era(&self) -> u64 {
        self.header.height.saturating_add(1)
    }

    /// Checks everything against a header the caller trusts to be of `chain`: that the header is that one,
    /// the voters are distinct members of the committee it names, each signed this very payment in this
    /// era, and they are a quorum. Whether the era is still running is not asked here
    /// ([`LightClient::finality`](crate::light::client::LightClient::finality) does). Cost: two hashes and
    /// a signature a vote.
    ///
    /// # Errors
    /// [`ProofError`] naming what is at fault.
    pub fn verify(
        &self,
        chain: ChainId,
        trusted: BlockId,
        checker: Checker<'_>,
    ) -> Result<Shown, ProofError> {
        let found = self.header.id();
        if found != trusted {
            return Err(ProofError::OtherHeader { height: self.header.height, found, expected: trusted });
        }
        self.members.check(self.header.next_committee_root, self.header.height)?;
        let txid = self.transaction.id();
        let checks = self.signatures(chain, found, &txid)?;
        let (weight, total) = (self.members.weight(), self.members.total);
        let quorum = quorum_of(total);
        if weight < quorum {
            return Err(ProofError::TooLight { weight, quorum });
        }
        check_signatures(self.members.voters(), &checks, checker)?;
        Ok(Shown { txid, height: self.era(), weight, total })
    }

    /// What each voter must have signed.
    fn signatures(
        &self,
        chain: ChainId,
        header: BlockId,
        txid: &Txid,
    ) -> Result<Vec<SignatureCheck>, ProofError> {
        if self.votes.len() != self.members.members.len() {
            return Err(ProofError::malformed("votes", "not one a member"));
        }
        let tag = era_tag(chain, self.era(), header);
        let mut hashes = self.hashes.iter().copied();
        let mut checks = Vec::with_capacity(self.votes.len());
        for (member, vote) in self.members.members.iter().zip(&self.votes) {
            let digest = vote
                .with_hashes(member.index, &mut hashes)
                .and_then(|vote| vote.digest(tag, Phase::Commit, txid))
                .ok_or_else(|| ProofError::malformed("hashes", "not those the votes need"))?;
            checks.push(SignatureCheck { key: member.vote_key, digest, signature: vote.signature });
        }
        if hashes.next().is_some() {
            return Err(ProofError::malformed("hashes", "more than the votes need"));
        }
        Ok(checks)
    }
}

impl CommitVote {
    /// The whole vote, taking its hashes from the front of the list.
    fn with_hashes(&self, voter: u16, hashes: &mut impl Iterator<Item = Hash>) -> Option<VoteProof> {
        let length = path_length(self.index, self.commit_count)?;
        Some(VoteProof {
            voter,
            sequence: self.sequence,
            last: self.last,
            prepare_count: self.prepare_count,
            commit_count: self.commit_count,
            // The root of an empty list is the zero hash.
            other_root: if self.prepare_count > 0 { hashes.next()? } else { Hash::default() },
            index: self.index,
            path: hashes.take(length).collect(),
            signature: self.signature,
        })
    }
}
