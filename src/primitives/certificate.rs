//! Certificates: votes of quorum weight for one thing (protocol §1, §2).

use crate::primitives::committee::{Committee, VoterIndex};
use crate::primitives::encoding::{Decode, Encode};
use crate::primitives::hash::{BlockId, EraTag, Txid};
use crate::primitives::keys::{Signature, SignatureCheck};
use crate::primitives::merkle::Phase;
use crate::primitives::vote::{Step, VoteProof, vote_digest};

/// Votes of a quorum for one block in one round: a POL (prevotes) or a commit certificate
/// (precommits).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Qc {
    /// Round of the votes.
    pub round: u32,
    /// Which vote of the round.
    pub step: Step,
    /// The block voted for.
    pub block: BlockId,
    /// Bit `i % 8` of byte `i / 8` is set for voter `i`; no trailing zero bytes.
    pub bitmap: Vec<u8>,
    /// One signature a set bit, in index order.
    pub signatures: Vec<Signature>,
}

/// Votes of a quorum for one transaction in one phase: `P(h,T)` or the finality proof `F(h,T)`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Certificate {
    /// The transaction.
    pub txid: Txid,
    /// Prepare or Commit.
    pub phase: Phase,
    /// Votes of distinct voters.
    pub proofs: Vec<VoteProof>,
}

/// Why a certificate proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    #[error("certificate is malformed: {0}")]
    Malformed(&'static str),
    #[error("certificate carries weight {weight}, a quorum is {quorum}")]
    TooLight { weight: u64, quorum: u64 },
    #[error("signature of voter {0} is not valid")]
    BadSignature(VoterIndex),
}

impl Qc {
    /// Gathers votes into a certificate; `votes` in any order, one a voter.
    #[must_use]
    pub fn new(round: u32, step: Step, block: BlockId, mut votes: Vec<(VoterIndex, Signature)>) -> Self {
        votes.sort_by_key(|(voter, _)| *voter);
        let width = votes.last().map_or(0, |(voter, _)| usize::from(*voter) / 8 + 1);
        let mut bitmap = vec![0u8; width];
        for (voter, _) in &votes {
            if let Some(byte) = bitmap.get_mut(usize::from(*voter) / 8) {
                *byte |= 1 << (voter % 8);
            }
        }
        let signatures = votes.into_iter().map(|(_, signature)| signature).collect();
        Self { round, step, block, bitmap, signatures }
    }

    /// The voters with their signatures; `None` when bitmap and signatures do not match.
    #[must_use]
    pub fn votes(&self) -> Option<Vec<(VoterIndex, Signature)>> {
        if self.bitmap.last() == Some(&0) || self.bitmap.len() > usize::from(VoterIndex::MAX) / 8 {
            return None;
        }
        let voters: Vec<VoterIndex> = (0..)
            .zip(&self.bitmap)
            .flat_map(|(byte, bits): (VoterIndex, _)| {
                (0..8).filter(move |bit| bits & (1u8 << bit) != 0).map(move |bit| byte * 8 + bit)
            })
            .collect();
        (voters.len() == self.signatures.len())
            .then(|| voters.into_iter().zip(self.signatures.iter().copied()).collect())
    }

    /// Checks form and weight and returns the signatures that remain to be verified.
    ///
    /// # Errors
    /// [`CertificateError`] when it is malformed, names a non-member or is below quorum.
    pub fn checks(
        &self,
        era_tag: EraTag,
        committee: &Committee,
    ) -> Result<Vec<SignatureCheck>, CertificateError> {
        let votes =
            self.votes().ok_or(CertificateError::Malformed("bitmap does not match the signatures"))?;
        let digest = vote_digest(era_tag, self.round, self.step, Some(self.block));
        let mut weight = 0;
        let mut checks = Vec::with_capacity(votes.len());
        for (voter, signature) in votes {
            let member =
                committee.member(voter).ok_or(CertificateError::Malformed("voter outside the committee"))?;
            weight += member.weight;
            checks.push(SignatureCheck { key: member.vote_key, digest, signature });
        }
        enough(weight, committee)?;
        Ok(checks)
    }
}

impl Certificate {
    /// Checks form, distinct voters and weight, and returns the signatures that remain to be verified.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn checks(
        &self,
        era_tag: EraTag,
        committee: &Committee,
    ) -> Result<Vec<SignatureCheck>, CertificateError> {
        let mut seen = std::collections::BTreeSet::new();
        let mut weight = 0;
        let mut checks = Vec::with_capacity(self.proofs.len());
        for proof in &self.proofs {
            let member = committee
                .member(proof.voter)
                .ok_or(CertificateError::Malformed("voter outside the committee"))?;
            if !seen.insert(proof.voter) {
                return Err(CertificateError::Malformed("a voter appears twice"));
            }
            let digest = proof
                .digest(era_tag, self.phase, &self.txid)
                .ok_or(CertificateError::Malformed("merkle path of the wrong shape"))?;
            weight += member.weight;
            checks.push(SignatureCheck { key: member.vote_key, digest, signature: proof.signature });
        }
        enough(weight, committee)?;
        Ok(checks)
    }
}

fn enough(weight: u64, committee: &Committee) -> Result<(), CertificateError> {
    let quorum = committee.quorum();
    if weight >= quorum { Ok(()) } else { Err(CertificateError::TooLight { weight, quorum }) }
}
