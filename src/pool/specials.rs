//! Special transactions in the pool: few, mostly free, and needed by the chain itself. They have a
//! space of their own that no payment competes for, come before all payments, evidence first, and
//! leave when they are included, expire or no longer fit the registry, which the ledger tells.

use crate::pool::index::Index;
use crate::pool::{CANDIDATES_MAX, Pool};
use crate::primitives::hash::Txid;
use crate::primitives::rejection::Rejection;
use crate::primitives::special::unbonding_lock;
use crate::primitives::transaction::{SealedTransaction, SharedTransaction, TransactionKind};
use std::sync::atomic::Ordering;

/// Most bytes of special transactions: four of the largest evidence, or some thousand others.
pub const SPECIAL_BYTES_MAX: u64 = 1 << 20;

/// Whether a transaction proves an offence.
pub(super) fn is_evidence(transaction: &SealedTransaction) -> bool {
    transaction.body().kind == TransactionKind::Evidence
}

impl Pool {
    /// Encoded bytes of the special transactions; reads one atomic.
    #[must_use]
    pub fn special_bytes(&self) -> u64 {
        self.counters.special_bytes.load(Ordering::Relaxed)
    }

    /// Number of special transactions; reads one atomic.
    #[must_use]
    pub fn specials_len(&self) -> u64 {
        self.counters.specials.load(Ordering::Relaxed)
    }

    /// The special transactions, evidence first, then in order of arrival.
    #[must_use]
    pub fn specials(&self) -> Vec<SharedTransaction> {
        self.index.lock().specials().cloned().collect()
    }

    /// Whether the newcomer would be the third claimant of something. Evidence counts apart, so that
    /// nobody keeps it out by changing the entry it is about; unbondings may be many, as one a block is
    /// taken.
    pub(super) fn third_claim(&self, index: &Index, newcomer: &SealedTransaction) -> Option<Rejection> {
        let shared = newcomer.is_special().then(unbonding_lock);
        let evidence = is_evidence(newcomer);
        let same_class = |txid: &&Txid| {
            self.entries.get(*txid).is_some_and(|entry| is_evidence(&entry.transaction) == evidence)
        };
        newcomer.claims().filter(|claim| Some(*claim) != shared).find_map(|outpoint| {
            let mut rivals = index.claimants(&outpoint).iter().filter(same_class);
            let first = rivals.next()?;
            let is_third = rivals.count() + 1 >= CANDIDATES_MAX;
            is_third.then_some(Rejection::Conflict { outpoint, by: *first })
        })
    }

    /// The special transactions that have to leave for a special newcomer: the latest, and for evidence
    /// only, which displaces all others.
    pub(super) fn make_special_room(
        &self,
        index: &Index,
        newcomer: &SealedTransaction,
    ) -> Result<Vec<Txid>, Rejection> {
        let (mut bytes, mut victims) = (self.special_bytes() + newcomer.size(), Vec::new());
        let displaceable = |other: &&SharedTransaction| is_evidence(newcomer) && !is_evidence(other);
        for other in index.specials().rev().filter(displaceable) {
            if bytes <= SPECIAL_BYTES_MAX {
                break;
            }
            bytes -= other.size();
            victims.push(other.id());
        }
        if bytes <= SPECIAL_BYTES_MAX {
            Ok(victims)
        } else {
            Err(Rejection::TooManySpecials { max: SPECIAL_BYTES_MAX })
        }
    }
}

#[cfg(test)]
#[path = "specials_tests.rs"]
mod tests;
