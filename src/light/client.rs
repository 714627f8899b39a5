//! Following headers from a trusted one (protocol §9).

use crate::light::ProofError;
use crate::light::block::{BlockProof, Link};
use crate::light::finality::{FinalityProof, Shown};
use crate::primitives::block::Header;
use crate::primitives::hash::{BlockId, ChainId};
use crate::primitives::keys::Checker;

/// A verifier that holds one header it trusts and moves it forward.
#[derive(Clone, Debug)]
pub struct LightClient {
    chain: ChainId,
    trust_ms: u64,
    newest: Header,
    newest_id: BlockId,
}

impl LightClient {
    /// A client that trusts `header` to be of `chain` as long as it is not older than `trust_ms`, which must
    /// be less than the unbonding period of the network.
    #[must_use]
    pub fn new(chain: ChainId, trust_ms: u64, header: Header) -> Self {
        let newest_id = header.id();
        Self { chain, trust_ms, newest: header, newest_id }
    }

    /// The newest verified header.
    #[must_use]
    pub fn newest(&self) -> &Header {
        &self.newest
    }

    /// Verifies a header above the newest one and makes it the newest. `now_ms` is milliseconds since 1970.
    ///
    /// # Errors
    /// [`ProofError::NeedsIntermediate`]: accept a header between the two first (bisect); every other error
    /// is a fault of the link or of the trusted header. Nothing changes then.
    pub fn accept(&mut self, link: &Link, now_ms: u64, checker: Checker<'_>) -> Result<(), ProofError> {
        let header = &link.certified.header;
        self.check_age(now_ms)?;
        if header.height <= self.newest.height {
            return Err(ProofError::NotNewer { height: header.height, verified: self.newest.height });
        }
        let adjacent = header.height == self.newest.height + 1;
        if adjacent && header.previous != self.newest_id {
            let (found, expected) = (header.previous, self.newest_id);
            return Err(ProofError::OtherHeader { height: self.newest.height, found, expected });
        }
        if header.time_ms <= self.newest.time_ms {
            return Err(ProofError::malformed("header", "its time is not later than that of the one before"));
        }
        link.check_overlap(&self.newest)?;
        link.certified.check(self.chain, checker)?;
        self.newest = header.clone();
        self.newest_id = header.id();
        Ok(())
    }

    /// Verifies that a payment is final. A proof of era h counts only while header h-1 is the newest verified
    /// one and within the trust period: once era h is over the payment is in block h, and keys that voted then
    /// may have been retired and sold.
    ///
    /// # Errors
    /// [`ProofError::Stale`] for an era that ended, other errors for a faulty proof.
    pub fn finality(
        &self,
        proof: &FinalityProof,
        now_ms: u64,
        checker: Checker<'_>,
    ) -> Result<Shown, ProofError> {
        if proof.header.height < self.newest.height {
            return Err(ProofError::Stale { era: proof.era(), verified: self.newest.height });
        }
        self.check_age(now_ms)?;
        proof.verify(self.chain, self.newest_id, checker)
    }

    /// Verifies that a transaction is in a block, of the newest verified header or a later one, which becomes
    /// the newest.
    ///
    /// # Errors
    /// As [`LightClient::accept`].
    pub fn block(
        &mut self,
        proof: &BlockProof,
        now_ms: u64,
        checker: Checker<'_>,
    ) -> Result<Shown, ProofError> {
        let shown = proof.check_inclusion()?;
        let certified = &proof.link.certified;
        if certified.header.id() == self.newest_id {
            if proof.link.overlap.is_some() {
                return Err(ProofError::malformed("overlap", "there though the header is the trusted one"));
            }
            certified.check(self.chain, checker)?;
        } else {
            self.accept(&proof.link, now_ms, checker)?;
        }
        Ok(shown)
    }

    fn check_age(&self, now_ms: u64) -> Result<(), ProofError> {
        let (time_ms, trust_ms) = (self.newest.time_ms, self.trust_ms);
        if time_ms.saturating_add(trust_ms) > now_ms {
            return Ok(());
        }
        Err(ProofError::Expired { height: self.newest.height, time_ms, now_ms, trust_ms })
    }
}
