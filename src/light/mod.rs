//! Proofs and the light client (protocol §9): what one needs to check a payment with nothing but a
//! trusted header.
//!
//! [`finality::FinalityProof`] shows that a payment is final in the running era, [`block::BlockProof`]
//! that it is in a decided block, [`client::LightClient`] follows headers from a trusted one, and
//! [`bundle::ProofBundle`] is all of it as one file. Every encoding is canonical and carries nothing a
//! verifier does not check: a proof with any bit changed is refused. Pure: the time and the way signatures
//! are checked are arguments. Absent: finding proofs, which is the node's.

pub mod block;
pub mod bundle;
pub mod claim;
pub mod client;
pub mod finality;
pub mod members;

use crate::primitives::hash::{BlockId, ChainId, Hash};
use crate::primitives::keys::{Checker, SignatureCheck};

/// Most bytes of an encoded proof bundle that are read or written: a 100 KB transaction, ten headers
/// with 200 signers each, and room to spare; as hexadecimal it still fits a frame of the control socket.
pub const BUNDLE_BYTES_MAX: usize = 480 << 10;

/// Why a proof proves nothing, naming the field at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Not a file of this kind, or one cut short.
    #[error("not a proof bundle: {0}: get the file again with `masternode proof get`")]
    NotABundle(String),
    /// A field that does not fit the others.
    #[error("{field}: {reason}: the proof was altered or made by faulty software, get it again")]
    Malformed { field: &'static str, reason: String },
    /// A header that is not the trusted one.
    #[error(
        "header {height} of the proof has the id {found}, expected {expected}: it is of another history, or the trusted header was mistyped"
    )]
    OtherHeader { height: u64, found: BlockId, expected: BlockId },
    /// A bundle for another trusted header.
    #[error(
        "the proof begins at header {found}, the trusted one is {trusted}: get it again with `masternode proof get --trusted {trusted}:ID`"
    )]
    OtherStart { found: u64, trusted: u64 },
    /// Members that do not belong to the committee the header names.
    #[error("members: they lead to the committee root {found}, header {height} names {expected}")]
    OtherCommittee { height: u64, found: Hash, expected: Hash },
    /// Too few votes.
    #[error("votes carry weight {weight}, a quorum is {quorum}")]
    TooLight { weight: u64, quorum: u64 },
    /// A signature that does not verify.
    #[error(
        "signature of committee member {voter} is not valid: the vote is not for this, or of another chain"
    )]
    BadSignature { voter: u16 },
    /// A proof for another chain than the verifier's.
    #[error("the proof is of chain {found}, expected {expected}")]
    OtherChain { found: ChainId, expected: ChainId },
    /// The trusted header is too old to trust what its committee signs.
    #[error(
        "header {height} is older than the trust period (its time is {time_ms}, now is {now_ms}, the period {trust_ms}, in milliseconds): its committee may have left with its stake, use a newer trusted header"
    )]
    Expired { height: u64, time_ms: u64, now_ms: u64, trust_ms: u64 },
    /// The committee changed too much between two headers.
    #[error(
        "the signers of header {to} carry no more than a third of the committee that header {from} names: a header between them is needed"
    )]
    NeedsIntermediate { from: u64, to: u64 },
    /// A header that does not follow the newest verified one.
    #[error("header {height} does not follow the verified header {verified}")]
    NotNewer { height: u64, verified: u64 },
    /// A finality proof of an era that has ended.
    #[error(
        "the finality proof is of era {era}, which ended: the newest verified header is {verified}; ask for a block proof"
    )]
    Stale { era: u64, verified: u64 },
}

impl ProofError {
    /// A fault in a field.
    fn malformed(field: &'static str, reason: impl Into<String>) -> Self {
        Self::Malformed { field, reason: reason.into() }
    }
}

/// Checks all signatures; the voters are in the order of the checks.
fn check_signatures(
    voters: impl Iterator<Item = u16>,
    checks: &[SignatureCheck],
    checker: Checker<'_>,
) -> Result<(), ProofError> {
    let answers = checker(checks);
    let mut voters = voters.zip(answers.iter().copied().chain(std::iter::repeat(false)));
    match voters.find(|(_, valid)| !*valid) {
        Some((voter, _)) => Err(ProofError::BadSignature { voter }),
        None => Ok(()),
    }
}
