//! Certified headers, the links between them, and the proof that a transaction is in a block.

use crate::light::finality::Shown;
use crate::light::members::{MemberProof, fewest};
use crate::light::{ProofError, check_signatures};
use crate::primitives::block::{HEADER_VERSION, Header};
use crate::primitives::certificate::Qc;
use crate::primitives::committee::{Committee, VoterIndex, quorum_of};
use crate::primitives::encoding::{Decode, Encode};
use crate::primitives::hash::{ChainId, Hash, Txid, era_tag};
use crate::primitives::keys::{Checker, Signature, SignatureCheck};
use crate::primitives::merkle::{Phase, path, root_of_path};
use crate::primitives::transaction::Transaction;
use crate::primitives::vote::{Step, vote_digest};
use std::collections::BTreeMap;

/// A header with a commit certificate of the committee it names.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CertifiedHeader {
    /// The header.
    pub header: Header,
    /// Round of the precommits.
    pub round: u32,
    /// Who precommitted, proven against the header's `committee_root`.
    pub members: MemberProof,
    /// Their precommits for the header, in the order of the members.
    pub signatures: Vec<Signature>,
}

/// A certified header with what connects it to the trusted one before.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Link {
    /// The header to accept.
    pub certified: CertifiedHeader,
    /// Members of the committee after the trusted header, more than a third of its weight, whose keys are
    /// among the signers. There exactly when that committee is not the one of the new header.
    pub overlap: Option<MemberProof>,
}

/// Proof that a transaction is in a decided block.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BlockProof {
    /// The transaction.
    pub transaction: Transaction,
    /// Header of the block with its certificate.
    pub link: Link,
    /// Place of the transaction in the block.
    pub index: u32,
    /// Merkle path from the transaction up to `tx_root`.
    pub path: Vec<Hash>,
}

impl CertifiedHeader {
    /// The header with the fewest votes of its certificate that make a quorum of its committee; `None` when
    /// certificate or committee are not the header's. Cost: O(committee) hashes.
    #[must_use]
    pub fn new(header: Header, qc: &Qc, committee: &Committee) -> Option<Self> {
        let votes: BTreeMap<VoterIndex, Signature> = qc.votes()?.into_iter().collect();
        if qc.block != header.id() || qc.step != Step::Precommit || committee.root() != header.committee_root
        {
            return None;
        }
        let chosen = fewest(committee, votes.keys().copied(), committee.quorum())?;
        let signatures = chosen.iter().map(|voter| votes.get(voter).copied()).collect::<Option<_>>()?;
        Some(Self { header, round: qc.round, members: MemberProof::new(committee, &chosen)?, signatures })
    }

    /// Checks that a quorum of the committee the header itself names precommitted it. Who that committee is,
    /// is for the caller to know: see [`LightClient::accept`](crate::light::client::LightClient::accept).
    ///
    /// # Errors
    /// [`ProofError`] naming what is at fault.
    pub fn check(&self, chain: ChainId, checker: Checker<'_>) -> Result<(), ProofError> {
        let (header, members) = (&self.header, &self.members);
        if header.version != HEADER_VERSION {
            return Err(ProofError::malformed("header", format!("version {} is not known", header.version)));
        }
        members.check(header.committee_root, header.height)?;
        if self.signatures.len() != members.members.len() {
            return Err(ProofError::malformed("signatures", "not one a member"));
        }
        let (weight, quorum) = (members.weight(), quorum_of(members.total));
        if weight < quorum {
            return Err(ProofError::TooLight { weight, quorum });
        }
        let tag = era_tag(chain, header.height, header.previous);
        let digest = vote_digest(tag, self.round, Step::Precommit, Some(header.id()));
        let checks: Vec<SignatureCheck> = members
            .members
            .iter()
            .zip(&self.signatures)
            .map(|(member, signature)| SignatureCheck { key: member.vote_key, digest, signature: *signature })
            .collect();
        check_signatures(members.voters(), &checks, checker)
    }

    /// Whether the member with this key signed.
    fn signed_by(&self, key: &crate::primitives::keys::PublicKey) -> bool {
        self.members.members.iter().any(|member| member.vote_key == *key)
    }
}

impl Link {
    /// Connects a certified header to one whose next committee is `former`; `None` when the signers carry no
    /// more than a third of it, so that a header between is needed.
    #[must_use]
    pub fn new(certified: CertifiedHeader, former: &Committee) -> Option<Self> {
        if former.root() == certified.header.committee_root {
            return Some(Self { certified, overlap: None });
        }
        let signed = |voter: &VoterIndex| {
            former.member(*voter).is_some_and(|member| certified.signed_by(&member.vote_key))
        };
        let chosen = fewest(former, former.indices().filter(signed), former.total() / 3 + 1)?;
        let overlap = MemberProof::new(former, &chosen)?;
        Some(Self { certified, overlap: Some(overlap) })
    }

    /// Checks the connection to `trusted`: the committee is the one it names, or more than a third of that
    /// one signed.
    ///
    /// # Errors
    /// [`ProofError::NeedsIntermediate`] when they are too few, other errors for a faulty proof.
    pub(super) fn check_overlap(&self, trusted: &Header) -> Result<(), ProofError> {
        let (from, to) = (trusted.height, self.certified.header.height);
        let same = trusted.next_committee_root == self.certified.header.committee_root;
        let overlap = match &self.overlap {
            None if same => return Ok(()),
            None => return Err(ProofError::NeedsIntermediate { from, to }),
            Some(_) if same => {
                return Err(ProofError::malformed("overlap", "there though the committee did not change"));
            }
            Some(overlap) => overlap,
        };
        if to == from.saturating_add(1) {
            let (found, expected) = (self.certified.header.committee_root, trusted.next_committee_root);
            return Err(ProofError::OtherCommittee { height: from, found, expected });
        }
        overlap.check(trusted.next_committee_root, from)?;
        if !overlap.members.iter().all(|member| self.certified.signed_by(&member.vote_key)) {
            return Err(ProofError::malformed("overlap", "a member that did not sign the header"));
        }
        if overlap.weight() <= overlap.total / 3 {
            return Err(ProofError::NeedsIntermediate { from, to });
        }
        Ok(())
    }
}

impl BlockProof {
    /// The proof for the transaction at `index` of a block with these ids.
    #[must_use]
    pub fn new(transaction: Transaction, link: Link, txids: &[Txid], index: u32) -> Option<Self> {
        let path = path(Phase::Body, txids, usize::try_from(index).ok()?)?;
        Some(Self { transaction, link, index, path })
    }

    /// Checks that the transaction is in the block of the header. Whether the header is to be trusted is not
    /// asked here ([`LightClient::block`](crate::light::client::LightClient::block) does).
    ///
    /// # Errors
    /// [`ProofError::Malformed`].
    pub(super) fn check_inclusion(&self) -> Result<Shown, ProofError> {
        let certified = &self.link.certified;
        let (header, txid) = (&certified.header, self.transaction.id());
        let found = root_of_path(Phase::Body, &txid, self.index, header.tx_count, &self.path);
        if found != Some(header.tx_root) {
            return Err(ProofError::malformed("path", "it does not lead from the transaction to the block"));
        }
        let (weight, total) = (certified.members.weight(), certified.members.total);
        Ok(Shown { txid, height: header.height, weight, total })
    }
}
