//! Who leaves a full pool: the lowest fee rate, of equal ones the larger id, with all that spends its
//! outputs. Never a transaction this node has voted for, nor an ancestor of the newcomer.

use crate::pool::Pool;
use crate::pool::index::{Index, Rank};
use crate::primitives::amount::Amount;
use crate::primitives::hash::Txid;
use crate::primitives::rejection::Rejection;
use crate::primitives::transaction::SealedTransaction;
use std::collections::BTreeSet;

/// Most descendants dropped with one victim; a longer chain is passed over, so that one insertion
/// costs a bounded time.
const FAMILY_MAX: usize = 64;
/// Most victims looked at for one newcomer, for the same reason. The largest transaction is some 500
/// times the smallest.
const VICTIMS_MAX: usize = 1024;

impl Pool {
    /// The transactions that have to leave for the newcomer to fit; none when there is room.
    pub(super) fn make_room(
        &self,
        index: &Index,
        newcomer: &SealedTransaction,
        fee: Amount,
    ) -> Result<Vec<Txid>, Rejection> {
        let rank = Rank::new(newcomer.id(), fee, newcomer.size());
        let full = || Rejection::PoolFull {
            rate: rank.rate(),
            lowest: index.worst().map_or(0, |worst| worst.rate()),
        };
        let fits = |count: usize, bytes: u64| {
            // Special transactions have their own space.
            let payments = self.len().saturating_sub(self.specials_len());
            let used = self.bytes().saturating_sub(self.special_bytes());
            let left = payments.saturating_sub(count as u64) < self.limits.transactions_max as u64;
            left && used.saturating_sub(bytes) + newcomer.size() <= self.limits.bytes_max
        };
        if newcomer.size() > self.limits.bytes_max {
            return Err(full());
        }
        let parents: BTreeSet<Txid> = newcomer.spends().map(|outpoint| outpoint.txid).collect();
        let (mut victims, mut bytes) = (BTreeSet::new(), 0);
        for worst in index.worst_first().take(VICTIMS_MAX) {
            if fits(victims.len(), bytes) {
                break;
            }
            // A rate that only equals the worst does not displace it: there would be no end to it.
            if rank.rate() <= worst.rate() {
                return Err(full());
            }
            let Some(family) = self.family(index, worst.txid, &parents) else { continue };
            for (txid, size) in family {
                if victims.insert(txid) {
                    bytes += size;
                }
            }
        }
        if fits(victims.len(), bytes) { Ok(victims.into_iter().collect()) } else { Err(full()) }
    }

    /// A transaction with all its descendants and their sizes; `None` when one of them has to stay or
    /// they are too many.
    fn family(&self, index: &Index, root: Txid, stay: &BTreeSet<Txid>) -> Option<Vec<(Txid, u64)>> {
        let (mut waiting, mut seen, mut family) = (vec![root], BTreeSet::new(), Vec::new());
        while let Some(txid) = waiting.pop() {
            if !seen.insert(txid) {
                continue;
            }
            let (rank, size, orphan) = self
                .entries
                .get(&txid)
                .map(|entry| (entry.rank(), entry.transaction.size(), entry.orphan))?;
            if orphan {
                // It waits for inputs anyway and does not count.
                continue;
            }
            if stay.contains(&txid) || !index.is_evictable(&rank) || family.len() >= FAMILY_MAX {
                return None;
            }
            family.push((txid, size));
            waiting.extend(index.children(&txid));
        }
        Some(family)
    }
}
