//! Which faults are the peer's own doing (docs/decisions/0011).
//!
//! An honest node checks every signature before it passes anything on, so what does not verify was made by whoever
//! sent it, as long as the check rests on nothing but the message: an era tag names chain, height and block before, and
//! with them the committee. What rests on which block this node takes for decided weighs nothing.

use crate::consensus::verify::Fault;
use crate::network::bans::offence::{Charge, Offence};
use crate::primitives::hash::Txid;
use crate::primitives::message::Message;
use crate::primitives::rejection::Rejection;

/// What is remembered of a message while it is checked; taking it costs a copy of some bytes.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    kind: &'static str,
    bytes: [u8; 16],
    height: Option<u64>,
    offence: Offence,
}

/// The mark of a message: first bytes of the signature in it, or of the digest it is about.
#[must_use]
pub fn mark(message: &Message) -> Mark {
    let first = |bytes: &[u8]| bytes.first_chunk::<16>().copied().unwrap_or_default();
    let (bytes, height) = match message {
        Message::VoteBatch(batch) => (first(&batch.signature.0), None),
        Message::Proposal(proposal) => (first(&proposal.signature.0), Some(proposal.outline.header.height)),
        Message::Vote(vote) => (first(&vote.signature.0), None),
        Message::Pol { era_tag, .. } => (first(era_tag.bytes()), None),
        Message::Commit { height, qc } => (first(qc.block.bytes()), Some(*height)),
        Message::Certificate { certificate, .. } => (first(certificate.txid.bytes()), None),
        Message::Candidate { outline, .. } => {
            (first(outline.header.previous.bytes()), Some(outline.header.height))
        }
        Message::Stream(batches) => {
            (batches.first().map(|batch| first(&batch.signature.0)).unwrap_or_default(), None)
        }
        _ => ([0; 16], None),
    };
    // A commit names no era: it is checked against the block this node takes for the one before.
    let offence = match message {
        Message::Commit { .. } => Offence::Disagreement,
        Message::Transactions(_) => Offence::BadTransaction,
        _ => Offence::BadSignature,
    };
    Mark { kind: message.name(), bytes, height, offence }
}

/// The charge for a message that did not verify.
#[must_use]
pub fn of_message(mark: Mark, fault: &Fault) -> Charge {
    let charge = Charge::new(mark.offence, mark.kind, &fault.to_string());
    let charge = if mark.bytes == [0; 16] { charge } else { charge.sample(&mark.bytes) };
    match mark.height {
        Some(height) => charge.height(height),
        None => charge,
    }
}

/// The charge for a transaction that did not verify.
#[must_use]
pub fn of_transaction(txid: &Txid, reason: &Rejection) -> Charge {
    let what = format!("transaction {}: {reason}", txid.short());
    Charge::new(Offence::BadTransaction, "transaction", &what).sample(txid.bytes())
}

/// The charge for the outline of a pulled block that did not verify.
#[must_use]
pub fn of_outline(height: u64, fault: &Fault) -> Charge {
    // One that follows another block than the last one here: who is wrong is not known.
    let offence =
        if matches!(fault, Fault::NotNext(_)) { Offence::Disagreement } else { Offence::FalseBlock };
    Charge::new(offence, "block", &fault.to_string()).height(height)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::verify::Fault;
    use crate::primitives::certificate::Qc;
    use crate::primitives::hash::{BlockId, EraTag};
    use crate::primitives::keys::Signature;
    use crate::primitives::vote::{Step, Vote};

    #[test]
    fn a_false_signature_counts_with_its_first_bytes_as_evidence() {
        let vote = Vote {
            era_tag: EraTag::default(),
            round: 0,
            step: Step::Prevote,
            block: None,
            voter: 0,
            signature: Signature([0xab; 64]),
        };
        let charge = of_message(mark(&Message::Vote(vote)), &Fault::BadSignature("vote"));
        assert_eq!(charge.offence, Offence::BadSignature);
        assert_eq!(
            charge.evidence().as_str(),
            format!("vote with an invalid signature; vote {}", "ab".repeat(16))
        );
    }

    #[test]
    fn what_rests_on_the_chain_of_this_node_weighs_nothing() {
        let qc = Qc {
            round: 0,
            step: Step::Precommit,
            block: BlockId::default(),
            bitmap: Vec::new(),
            signatures: Vec::new(),
        };
        let commit = of_message(mark(&Message::Commit { height: 7, qc }), &Fault::BadSignature("commit"));
        let beside = of_outline(7, &Fault::NotNext("block"));
        for charge in [commit, beside] {
            assert_eq!((charge.offence, charge.offence.weight()), (Offence::Disagreement, 0.0));
            assert!(charge.evidence().as_str().ends_with("at height 7"));
        }
        assert_eq!(of_outline(7, &Fault::BadSignature("block")).offence, Offence::FalseBlock);
    }
}
