//! What a finality proof is made of, by reference: cheap to carry with every final payment.

use crate::light::finality::FinalityProof;
use crate::light::members::{MemberProof, fewest};
use crate::primitives::block::Header;
use crate::primitives::committee::Committee;
use crate::primitives::hash::Txid;
use crate::primitives::merkle::Phase;
use crate::primitives::transaction::SharedTransaction;
use crate::primitives::vote::VoteBatch;
use std::sync::Arc;

/// A payment that is final, with the batches that made it so.
#[derive(Clone, Debug)]
pub struct FinalityClaim {
    /// The payment.
    pub txid: Txid,
    /// Its body, if the node held it when it became final.
    pub transaction: Option<SharedTransaction>,
    /// Header of the block before the era.
    pub header: Arc<Header>,
    /// Committee of the era.
    pub committee: Arc<Committee>,
    /// A batch of each voter of a quorum that holds its Commit vote for the payment.
    pub batches: Vec<Arc<VoteBatch>>,
}

impl FinalityClaim {
    /// The proof for others, with as few votes as make a quorum; `None` without the body, with that of
    /// another transaction, or when the batches are no quorum. Cost: hashes the batches it takes.
    #[must_use]
    pub fn proof(&self) -> Option<FinalityProof> {
        let transaction = self.transaction.as_ref().filter(|transaction| transaction.id() == self.txid)?;
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
