//! What a finality proof is made of, by reference: cheap to carry with every final payment.

use crate::light::finality::FinalityProof;
use crate::light::members::{MemberProof, fewest};
use crate::primitives::block::Header;
use crate::primitives::committee::Committee;
use crate::primitives::hash::Txid;
use crate::primitives::merkle::Phase;
use crate::primitives::transaction::SealedTransaction;
use crate::primitives::vote::VoteBatch;
use std::sync::Arc;

/// A payment that is final, with the batches that made it so.
#[derive(Clone, Debug)]
pub struct FinalityClaim {
    /// The payment.
    pub txid: Txid,
    /// Header of the block before the era.
    pub header: Arc<Header>,
    /// Committee of the era.
    pub committee: Arc<Committee>,
    /// A batch of each voter of a quorum that holds its Commit vote for the payment.
    pub batches: Vec<Arc<VoteBatch>>,
}

impl FinalityClaim {
    /// The proof for others, with as few votes as make a quorum; `transaction` is the body of the payment.
    /// `None` when it is another transaction or the batches are no quorum. Cost: hashes the batches.
    #[must_use]
    pub fn proof(&self, transaction: &SealedTransaction) -> Option<FinalityProof> {
        if transaction.id() != self.txid {
            return None;
        }
        let voters = self.batches.iter().map(|batch| batch.voter);
        let chosen = fewest(&self.committee, voters, self.committee.quorum())?;
        let votes = chosen.iter().map(|voter| {
            let batch = self.batches.iter().find(|batch| batch.voter == *voter)?;
            batch.proof(Phase::Commit, &self.txid)
        });
        let votes = votes.collect::<Option<Vec<_>>>()?;
        let members = MemberProof::new(&self.committee, &chosen)?;
        Some(FinalityProof::new(transaction.body().clone(), (*self.header).clone(), members, votes))
    }
}
