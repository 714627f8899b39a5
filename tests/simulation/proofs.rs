//! Obligation 6: what an honest node calls final, a light client accepts that knows nothing but the
//! header before the era.

use crate::keys::checker;
use crate::oracle::{Broken, broken};
use crate::world::World;
use masternode::light::BUNDLE_BYTES_MAX;
use masternode::light::claim::FinalityClaim;
use masternode::light::client::LightClient;
use masternode::light::finality::FinalityProof;
use masternode::primitives::block::Header;
use masternode::primitives::encoding::{decode, encode};
use masternode::primitives::hash::Txid;

impl World {
    /// The proof of a `Final` output, sent as bytes to a light client that trusts the oracle's header.
    pub fn check_proof(&mut self, height: u64, txid: &Txid, claim: &FinalityClaim) -> Result<(), Broken> {
        if claim.transaction.is_none() {
            // Final by the votes of others before the body came.
            self.oracle.coverage.finals_without_body += 1;
            return Ok(());
        }
        let Some(proof) = claim.proof() else {
            return broken("proof", format!("{txid:?} is final at {height} and the batches do not prove it"));
        };
        let bytes = encode(&proof);
        let proof: FinalityProof = decode::<_, BUNDLE_BYTES_MAX>(&bytes).expect("what was encoded");
        // Unknown only while everyone who decided it went down before telling so.
        let Some(header) = self.header_before(height) else { return Ok(()) };
        let now_ms = header.time_ms;
        let client = LightClient::new(self.chain.id, 1, header);
        match client.finality(&proof, now_ms, &checker(self.scenario.real_keys)) {
            Ok(shown) if shown.txid == *txid && shown.height == height => {
                self.oracle.coverage.finality_proofs += 1;
                Ok(())
            }
            Ok(shown) => broken("proof", format!("{txid:?} at {height} is proven to be {shown:?}")),
            Err(error) => {
                broken("proof", format!("{txid:?} is final at {height}, a light client says: {error}"))
            }
        }
    }

    fn header_before(&self, height: u64) -> Option<Header> {
        match usize::try_from(height).expect("small").checked_sub(2) {
            Some(index) => self.oracle.chain.get(index).map(|block| block.header.clone()),
            None => Some(self.chain.header.clone()),
        }
    }
}
