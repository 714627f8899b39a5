//! The pool as the console shows it. Counts are atomics; the lists take the index for a short copy.

use crate::pool::Pool;
use crate::primitives::amount::Amount;
use crate::primitives::clean::CleanText;
use crate::primitives::hash::Txid;
use crate::primitives::transaction::TxStatus;
use crate::telemetry::snapshot::{PoolEntryInfo, PoolInfo, RejectionInfo};
use std::sync::atomic::Ordering;

/// Entries in a snapshot: more than a tall terminal shows.
const ENTRIES_SHOWN_MAX: usize = 256;
/// Rejections in a snapshot.
const REJECTIONS_SHOWN_MAX: usize = 64;

impl Pool {
    /// The picture of this moment; `now_us` on the node's monotonic clock.
    #[must_use]
    pub fn pool_info(&self, now_us: u64) -> PoolInfo {
        let status = |status| self.counters.of(status).load(Ordering::Relaxed);
        let (newest, fee_histogram) = {
            let index = self.index.lock();
            let newest: Vec<Txid> = index.arrivals.values().rev().take(ENTRIES_SHOWN_MAX).copied().collect();
            (newest, index.fee_histogram())
        };
        let rejected = self.memory.rejections_by_code();
        PoolInfo {
            transactions: self.len(),
            bytes: self.bytes(),
            transactions_max: self.limits.transactions_max as u64,
            bytes_max: self.limits.bytes_max,
            pending: status(TxStatus::Pending),
            prepared: status(TxStatus::Prepared),
            certified: status(TxStatus::Certified),
            finalised: status(TxStatus::Final),
            orphans: self.orphans(),
            added: self.counters.added.load(Ordering::Relaxed),
            evicted: self.counters.evicted.load(Ordering::Relaxed),
            rejected: rejected.into_iter().map(|(code, count)| (CleanText::new(code), count)).collect(),
            fee_histogram,
            entries: newest.iter().filter_map(|txid| self.entry_info(txid, now_us)).collect(),
            rejections: self.rejection_infos(now_us),
        }
    }

    fn entry_info(&self, txid: &Txid, now_us: u64) -> Option<PoolEntryInfo> {
        let entry = self.entries.get(txid)?;
        let body = entry.transaction.body();
        Some(PoolEntryInfo {
            txid: *txid,
            status: entry.status,
            size: entry.transaction.size(),
            fee: entry.fee.units(),
            inputs: u32::try_from(body.inputs.len()).unwrap_or(u32::MAX),
            outputs: u32::try_from(body.outputs.len()).unwrap_or(u32::MAX),
            value: Amount::checked_sum(body.outputs.iter().map(|output| output.value)).unwrap_or(Amount::MAX),
            age_ms: now_us.saturating_sub(entry.first_seen_us) / 1000,
        })
    }

    fn rejection_infos(&self, now_us: u64) -> Vec<RejectionInfo> {
        self.memory
            .newest_rejections(REJECTIONS_SHOWN_MAX)
            .into_iter()
            .map(|(txid, refused)| RejectionInfo {
                txid,
                code: CleanText::new(refused.reason.code()),
                reason: CleanText::new(&refused.reason.to_string()),
                age_ms: now_us.saturating_sub(refused.at_us) / 1000,
            })
            .collect()
    }
}
