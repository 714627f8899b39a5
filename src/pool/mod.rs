//! The pool: transactions that are not yet in a block, and what became of those that were.
//!
//! One concurrent structure. Bodies and states are in a sharded map that readers use without waiting
//! for the writer; counts and bytes are atomics. Order, spenders and memory are behind one mutex
//! ([`index`]) taken by the single writer and, for the length of a copy, by lists for the screen.
//!
//! Invariants: nothing is claimed by more than [`CANDIDATES_MAX`] unless certified ones come on top,
//! evidence and unbondings counted as in [`specials`];
//! capacity holds at all times except that voted (pinned) transactions are never evicted; the same
//! calls lead to the same pool, whatever the hash seeds. Absent: validity, which is the ledger's.

mod eviction;
mod index;
mod memory;
mod metrics;
pub mod specials;
#[cfg(test)]
mod tests;

use crate::pool::index::{Index, Rank, SpecialRank};
use crate::pool::memory::Memory;
use crate::primitives::amount::Amount;
use crate::primitives::block::Block;
use crate::primitives::hash::Txid;
use crate::primitives::rejection::Rejection;
use crate::primitives::transaction::{OutPoint, SharedTransaction, TxStatus};
use dashmap::DashMap;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

/// Transactions of the pool that may claim the same: the first seen and one rival, so that a
/// conflict is known; more would only be a flood (protocol §8).
pub const CANDIDATES_MAX: usize = 2;

/// Bounds of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    /// Most transactions, orphans not counted.
    pub transactions_max: usize,
    /// Most encoded bytes of those.
    pub bytes_max: u64,
    /// Most transactions waiting for unknown inputs.
    pub orphans_max: usize,
    /// Most encoded bytes of those.
    pub orphan_bytes_max: u64,
}

impl Default for PoolLimits {
    /// Room for two full mainnet eras at every validator; orphans a twentieth of it.
    fn default() -> Self {
        Self { transactions_max: 50_000, bytes_max: 32 << 20, orphans_max: 2_500, orphan_bytes_max: 2 << 20 }
    }
}

/// How far one transaction has come, for RPC and console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxState {
    /// The state.
    pub status: TxStatus,
    /// When this node first saw it, on its monotonic clock in µs; `None` once it has left the pool.
    pub first_seen_us: Option<u64>,
    /// Height of its block, if confirmed recently.
    pub height: Option<u64>,
    /// Why it was refused or dropped.
    pub rejection: Option<Rejection>,
    /// Whether it waits for unknown inputs.
    pub orphan: bool,
}

/// One transaction of the pool.
#[derive(Clone, Debug)]
struct Entry {
    transaction: SharedTransaction,
    /// Zero for orphans, whose inputs are unknown.
    fee: Amount,
    first_seen_us: u64,
    status: TxStatus,
    orphan: bool,
    /// Place in the order of arrival.
    arrival: u64,
}

impl Entry {
    fn rank(&self) -> Rank {
        Rank::new(self.transaction.id(), self.fee, self.transaction.size())
    }

    fn special_rank(&self) -> SpecialRank {
        (!specials::is_evidence(&self.transaction), self.arrival)
    }
}

/// Counts that readers take without a lock.
#[derive(Debug, Default)]
struct Counters {
    transactions: AtomicU64,
    bytes: AtomicU64,
    /// Those of `transactions` and `bytes` that are special.
    specials: AtomicU64,
    special_bytes: AtomicU64,
    orphans: AtomicU64,
    orphan_bytes: AtomicU64,
    added: AtomicU64,
    evicted: AtomicU64,
    /// Transactions of the pool by status, orphans excepted.
    by_status: [AtomicU64; 6],
}

impl Counters {
    fn of(&self, status: TxStatus) -> &AtomicU64 {
        let [pending, prepared, certified, finalised, confirmed, rejected] = &self.by_status;
        match status {
            TxStatus::Pending => pending,
            TxStatus::Prepared => prepared,
            TxStatus::Certified => certified,
            TxStatus::Final => finalised,
            TxStatus::Confirmed => confirmed,
            TxStatus::Rejected => rejected,
        }
    }
}

/// The pool of one node.
#[derive(Debug)]
pub struct Pool {
    limits: PoolLimits,
    entries: DashMap<Txid, Entry>,
    counters: Counters,
    index: Mutex<Index>,
    memory: Memory,
}

/// What a block did to the pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// In the block and known here before, in block order.
    pub included: Vec<Txid>,
    /// Dropped with the reason, ascending by id.
    pub dropped: Vec<(Txid, Rejection)>,
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(limits: PoolLimits) -> Self {
        Self {
            limits,
            entries: DashMap::new(),
            counters: Counters::default(),
            index: Mutex::new(Index::default()),
            memory: Memory::default(),
        }
    }

    /// Number of transactions, orphans not counted; reads one atomic.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.counters.transactions.load(Ordering::Relaxed)
    }

    /// Whether no transaction is here, orphans not counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Encoded bytes of the transactions, orphans not counted; reads one atomic.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.counters.bytes.load(Ordering::Relaxed)
    }

    /// Number of orphans; reads one atomic.
    #[must_use]
    pub fn orphans(&self) -> u64 {
        self.counters.orphans.load(Ordering::Relaxed)
    }

    /// Whether the transaction is here, orphans included.
    #[must_use]
    pub fn contains(&self, txid: &Txid) -> bool {
        self.entries.contains_key(txid)
    }

    /// Body of a transaction of the pool, orphans included.
    #[must_use]
    pub fn body(&self, txid: &Txid) -> Option<SharedTransaction> {
        self.entries.get(txid).map(|entry| entry.transaction.clone())
    }

    /// How far a transaction has come; `None` when it is neither here nor remembered. Rejections are
    /// remembered for a limited time, `now_us` on the node's monotonic clock.
    #[must_use]
    pub fn state(&self, txid: &Txid, now_us: u64) -> Option<TxState> {
        if let Some(entry) = self.entries.get(txid) {
            return Some(TxState {
                status: entry.status,
                first_seen_us: Some(entry.first_seen_us),
                height: None,
                rejection: None,
                orphan: entry.orphan,
            });
        }
        let gone = |status, height, rejection| TxState {
            status,
            first_seen_us: None,
            height,
            rejection,
            orphan: false,
        };
        if let Some(height) = self.memory.confirmed(txid) {
            return Some(gone(TxStatus::Confirmed, Some(height), None));
        }
        self.memory.rejection(txid, now_us).map(|reason| gone(TxStatus::Rejected, None, Some(reason)))
    }

    /// When this node first saw a transaction of the pool, in µs on its monotonic clock.
    #[must_use]
    pub fn first_seen_us(&self, txid: &Txid) -> Option<u64> {
        self.entries.get(txid).map(|entry| entry.first_seen_us)
    }

    /// Why a transaction was refused, if that is remembered. Only a reason that is not
    /// [temporary](Rejection::is_temporary) will be the same next time.
    #[must_use]
    pub fn rejection(&self, txid: &Txid, now_us: u64) -> Option<Rejection> {
        self.memory.rejection(txid, now_us)
    }

    /// Height of the block a transaction recently went into.
    #[must_use]
    pub fn confirmed_height(&self, txid: &Txid) -> Option<u64> {
        self.memory.confirmed(txid)
    }

    /// Transactions of the pool that spend an output, orphans not counted, in order of arrival.
    #[must_use]
    pub fn spenders(&self, outpoint: &OutPoint) -> Vec<Txid> {
        self.index.lock().claimants(outpoint).to_vec()
    }

    /// Transactions of the pool that spend an output of `txid`, ascending by id, orphans included.
    #[must_use]
    pub fn children(&self, txid: &Txid) -> Vec<SharedTransaction> {
        let ids = self.index.lock().children(txid);
        ids.iter().filter_map(|id| self.body(id)).collect()
    }

    /// All transactions: special ones, evidence first, then in order of arrival; payments, highest fee
    /// rate first, ties by ascending id; orphans, whose fee is unknown, at the end by ascending id.
    #[must_use]
    pub fn pending(&self) -> Vec<SharedTransaction> {
        self.index.lock().in_order()
    }

    /// Puts a checked transaction into the pool; an orphan of the same id becomes an ordinary one.
    /// Returns the transactions evicted for it.
    ///
    /// # Errors
    /// [`Rejection::AlreadyKnown`], [`Rejection::Conflict`] as the third to claim something unless
    /// the transaction is known to be certified, [`Rejection::PoolFull`],
    /// [`Rejection::TooManySpecials`]. Nothing changed then.
    pub fn insert(
        &self,
        transaction: SharedTransaction,
        fee: Amount,
        now_us: u64,
    ) -> Result<Vec<Txid>, Rejection> {
        let txid = transaction.id();
        let known = self.entries.get(&txid).map(|entry| (entry.orphan, entry.first_seen_us));
        if let Some((false, _)) = known {
            return Err(Rejection::AlreadyKnown);
        }
        let mut index = self.index.lock();
        let expected = index.expected.get(&txid).copied();
        if expected.is_none()
            && let Some(conflict) = self.third_claim(&index, &transaction)
        {
            return Err(conflict);
        }
        let victims = if transaction.is_special() {
            self.make_special_room(&index, &transaction)?
        } else {
            self.make_room(&index, &transaction, fee)?
        };
        if known.is_some() {
            self.take(&mut index, &txid);
        }
        for victim in &victims {
            self.drop_entry(&mut index, victim, Rejection::Evicted, now_us);
        }
        self.counters.evicted.fetch_add(victims.len() as u64, Ordering::Relaxed);
        self.counters.added.fetch_add(1, Ordering::Relaxed);
        index.expected.remove(&txid);
        self.memory.forget_rejection(&txid);
        let entry = Entry {
            transaction,
            fee,
            first_seen_us: known.map_or(now_us, |(_, first_seen_us)| first_seen_us),
            status: expected.unwrap_or(TxStatus::Pending),
            orphan: false,
            arrival: index.next_arrival(),
        };
        let rank = entry.rank();
        self.put(&mut index, entry);
        if expected.is_some() {
            index.pin(rank);
        }
        Ok(victims)
    }

    /// Keeps a transaction whose inputs are not all known. Older orphans than
    /// [`ORPHAN_TTL_US`](memory::ORPHAN_TTL_US) make room.
    ///
    /// # Errors
    /// [`Rejection::AlreadyKnown`], [`Rejection::TooManyOrphans`].
    pub fn insert_orphan(&self, transaction: SharedTransaction, now_us: u64) -> Result<(), Rejection> {
        let txid = transaction.id();
        if self.contains(&txid) {
            return Err(Rejection::AlreadyKnown);
        }
        let mut index = self.index.lock();
        let too_many = |pool: &Self| {
            let bytes = pool.counters.orphan_bytes.load(Ordering::Relaxed) + transaction.size();
            pool.orphans() >= pool.limits.orphans_max as u64 || bytes > pool.limits.orphan_bytes_max
        };
        while too_many(self) {
            let stale = index.oldest_orphan().filter(|oldest| {
                let seen_us = self.first_seen_us(oldest).unwrap_or(0);
                now_us.saturating_sub(seen_us) >= memory::ORPHAN_TTL_US
            });
            let Some(stale) = stale else { return Err(Rejection::TooManyOrphans) };
            self.drop_entry(&mut index, &stale, Rejection::TooManyOrphans, now_us);
        }
        let entry = Entry {
            transaction,
            fee: Amount::ZERO,
            first_seen_us: now_us,
            status: TxStatus::Pending,
            orphan: true,
            arrival: index.next_arrival(),
        };
        self.put(&mut index, entry);
        Ok(())
    }

    /// Keeps a transaction from eviction until the next block: this node has voted for it in the era.
    pub fn pin(&self, txid: &Txid) {
        let rank = self.entries.get(txid).filter(|entry| !entry.orphan).map(|entry| entry.rank());
        if let Some(rank) = rank {
            self.index.lock().pin(rank);
        }
    }

    /// Records how far a transaction has come; certified and final ones are pinned. For one whose body
    /// or inputs are not here yet, certified and final are remembered until the next block, so that it
    /// is admitted even as a third spender. Confirmed and rejected come with their block or reason
    /// ([`Pool::remove_for_block`], [`Pool::reject`]) and are ignored here.
    pub fn set_status(&self, txid: &Txid, status: TxStatus) {
        let voted = matches!(status, TxStatus::Certified | TxStatus::Final);
        match self.entries.get(txid).map(|entry| entry.orphan) {
            Some(false) if !matches!(status, TxStatus::Confirmed | TxStatus::Rejected) => {
                self.change_status(txid, status);
                if voted {
                    self.pin(txid);
                }
            }
            Some(true) | None if voted => self.index.lock().expect(*txid, status),
            _ => {}
        }
    }

    fn change_status(&self, txid: &Txid, status: TxStatus) {
        if let Some(mut entry) = self.entries.get_mut(txid) {
            self.counters.of(entry.status).fetch_sub(1, Ordering::Relaxed);
            self.counters.of(status).fetch_add(1, Ordering::Relaxed);
            entry.status = status;
        }
    }

    /// Drops a transaction for good, with what spends its outputs, and remembers why. Being known
    /// already is no reason to drop, and a confirmed transaction stays confirmed.
    pub fn reject(&self, txid: &Txid, reason: &Rejection, now_us: u64) {
        if *reason == Rejection::AlreadyKnown || self.memory.confirmed(txid).is_some() {
            return;
        }
        let mut index = self.index.lock();
        if self.contains(txid) {
            self.drop_with_descendants(&mut index, txid, reason, now_us, &mut Vec::new());
        } else {
            self.memory.remember_rejection(*txid, reason.clone(), now_us);
        }
    }

    /// What a decided block does to the pool: its transactions leave as confirmed, those that spend
    /// what it spends or have expired leave as rejected, with their descendants. Special transactions
    /// that the new registry forbids are for the caller to [`Pool::reject`]. Votes belong to the era that ended, so the others are pending again and no longer pinned.
    pub fn remove_for_block(&self, block: &Block, height: u64, now_us: u64) -> Removed {
        let mut index = self.index.lock();
        let mut removed = Removed::default();
        for transaction in &block.transactions {
            let txid = transaction.id();
            if self.take(&mut index, &txid).is_some() {
                removed.included.push(txid);
            }
            self.memory.remember_confirmed(txid, height);
        }
        for transaction in &block.transactions {
            for outpoint in transaction.spends() {
                let reason = Rejection::Conflict { outpoint, by: transaction.id() };
                for rival in index.all_spenders(&outpoint) {
                    self.drop_with_descendants(&mut index, &rival, &reason, now_us, &mut removed.dropped);
                }
            }
        }
        for (expiry, txid) in index.expired(height) {
            let reason = Rejection::Expired { expiry, height: height + 1 };
            self.drop_with_descendants(&mut index, &txid, &reason, now_us, &mut removed.dropped);
        }
        for rank in index.end_era() {
            self.change_status(&rank.txid, TxStatus::Pending);
        }
        removed.dropped.sort_by_key(|(txid, _)| *txid);
        removed
    }

    /// Drops an entry and, as their inputs will never be known, everything that spends its outputs.
    fn drop_with_descendants(
        &self,
        index: &mut Index,
        txid: &Txid,
        reason: &Rejection,
        now_us: u64,
        dropped: &mut Vec<(Txid, Rejection)>,
    ) {
        let mut waiting = vec![(*txid, reason.clone())];
        let mut seen = BTreeSet::new();
        while let Some((txid, reason)) = waiting.pop() {
            if !seen.insert(txid) {
                continue;
            }
            for (child, outpoint) in index.children_with_inputs(&txid) {
                waiting.push((child, Rejection::UnknownInput { outpoint }));
            }
            if self.drop_entry(index, &txid, reason.clone(), now_us) {
                dropped.push((txid, reason));
            }
        }
    }

    /// Drops one entry and remembers why; whether it was here.
    fn drop_entry(&self, index: &mut Index, txid: &Txid, reason: Rejection, now_us: u64) -> bool {
        let was_here = self.take(index, txid).is_some();
        self.memory.remember_rejection(*txid, reason, now_us);
        was_here
    }

    /// Adds an entry to map, index and counters.
    fn put(&self, index: &mut Index, entry: Entry) {
        let size = entry.transaction.size();
        if entry.orphan {
            self.counters.orphans.fetch_add(1, Ordering::Relaxed);
            self.counters.orphan_bytes.fetch_add(size, Ordering::Relaxed);
        } else {
            self.counters.transactions.fetch_add(1, Ordering::Relaxed);
            self.counters.bytes.fetch_add(size, Ordering::Relaxed);
            self.counters.of(entry.status).fetch_add(1, Ordering::Relaxed);
            if entry.transaction.is_special() {
                self.counters.specials.fetch_add(1, Ordering::Relaxed);
                self.counters.special_bytes.fetch_add(size, Ordering::Relaxed);
            }
        }
        index.add(&entry);
        self.entries.insert(entry.transaction.id(), entry);
    }

    /// Takes an entry out of map, index and counters.
    fn take(&self, index: &mut Index, txid: &Txid) -> Option<Entry> {
        let (_, entry) = self.entries.remove(txid)?;
        let size = entry.transaction.size();
        if entry.orphan {
            self.counters.orphans.fetch_sub(1, Ordering::Relaxed);
            self.counters.orphan_bytes.fetch_sub(size, Ordering::Relaxed);
        } else {
            self.counters.transactions.fetch_sub(1, Ordering::Relaxed);
            self.counters.bytes.fetch_sub(size, Ordering::Relaxed);
            self.counters.of(entry.status).fetch_sub(1, Ordering::Relaxed);
            if entry.transaction.is_special() {
                self.counters.specials.fetch_sub(1, Ordering::Relaxed);
                self.counters.special_bytes.fetch_sub(size, Ordering::Relaxed);
            }
        }
        index.remove(&entry);
        Some(entry)
    }
}
