//! Orders over the pool: by fee rate, by claim, by spent output, by expiry, by arrival; pins; fee histogram.
//!
//! Invariant: every list names exactly the entries of the pool's map. Only ordered collections are
//! iterated, so equal calls give equal answers. Kept by [`Pool`](crate::pool::Pool) alone.

use crate::pool::Entry;
use crate::primitives::amount::Amount;
use crate::primitives::hash::Txid;
use crate::primitives::transaction::{OutPoint, SharedTransaction, TxStatus};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Most transactions remembered as certified before their body came; an era certifies fewer.
const EXPECTED_MAX: usize = 100_000;

/// Place in the pool: highest fee rate first, ties by ascending id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    rate: Reverse<u64>,
    pub txid: Txid,
}

impl Rank {
    pub fn new(txid: Txid, fee: Amount, size: u64) -> Self {
        let rate = u128::from(fee.units()) * 1000 / u128::from(size.max(1));
        Self { rate: Reverse(u64::try_from(rate).unwrap_or(u64::MAX)), txid }
    }

    /// Fee in units per 1000 bytes.
    pub fn rate(self) -> u64 {
        self.rate.0
    }

    /// Bucket of the fee histogram: 0 is below 1 unit per 1000 bytes, n from 2^(n-1).
    fn bucket(self) -> usize {
        usize::try_from(u64::BITS - self.rate().leading_zeros()).unwrap_or(0)
    }
}

/// Place of a special transaction: evidence first, then by arrival.
pub type SpecialRank = (bool, u64);

#[derive(Debug, Default)]
pub struct Index {
    /// Special transactions, which pay no rate and are never ranked.
    specials: BTreeMap<SpecialRank, SharedTransaction>,
    ranked: BTreeMap<Rank, SharedTransaction>,
    /// Those of `ranked` that may be evicted.
    evictable: BTreeSet<Rank>,
    /// The others of `ranked`.
    pinned: BTreeSet<Rank>,
    orphans: BTreeMap<Txid, SharedTransaction>,
    orphan_arrivals: BTreeMap<u64, Txid>,
    /// Ordinary entries by what they claim.
    claimants: HashMap<OutPoint, Vec<Txid>>,
    /// All entries by the transaction they spend from, with the outpoint, orphans included.
    descent: BTreeSet<(OutPoint, Txid)>,
    expiries: BTreeSet<(u64, Txid)>,
    pub arrivals: BTreeMap<u64, Txid>,
    arrival: u64,
    /// Certified without a body, with the status to take when it comes.
    pub expected: BTreeMap<Txid, TxStatus>,
    histogram: BTreeMap<usize, u64>,
}

impl Index {
    pub fn next_arrival(&mut self) -> u64 {
        self.arrival += 1;
        self.arrival
    }

    pub fn add(&mut self, entry: &Entry) {
        let (txid, rank) = (entry.transaction.id(), entry.rank());
        if entry.orphan {
            self.orphans.insert(txid, entry.transaction.clone());
            self.orphan_arrivals.insert(entry.arrival, txid);
        } else if entry.transaction.is_special() {
            self.specials.insert(entry.special_rank(), entry.transaction.clone());
            self.add_ordinary(entry);
        } else {
            self.ranked.insert(rank, entry.transaction.clone());
            self.evictable.insert(rank);
            *self.histogram.entry(rank.bucket()).or_default() += 1;
            self.add_ordinary(entry);
        }
        self.descent.extend(entry.transaction.spends().map(|outpoint| (outpoint, txid)));
        self.expiries.insert((entry.transaction.body().expiry, txid));
    }

    fn add_ordinary(&mut self, entry: &Entry) {
        let txid = entry.transaction.id();
        self.arrivals.insert(entry.arrival, txid);
        for claim in entry.transaction.claims() {
            self.claimants.entry(claim).or_default().push(txid);
        }
    }

    pub fn remove(&mut self, entry: &Entry) {
        let (txid, rank) = (entry.transaction.id(), entry.rank());
        if entry.orphan {
            self.orphans.remove(&txid);
            self.orphan_arrivals.remove(&entry.arrival);
        } else if entry.transaction.is_special() {
            self.specials.remove(&entry.special_rank());
            self.remove_ordinary(entry);
        } else {
            self.ranked.remove(&rank);
            self.evictable.remove(&rank);
            self.pinned.remove(&rank);
            if let Some(count) = self.histogram.get_mut(&rank.bucket()) {
                *count -= 1;
            }
            self.remove_ordinary(entry);
        }
        for outpoint in entry.transaction.spends() {
            self.descent.remove(&(outpoint, txid));
        }
        self.expiries.remove(&(entry.transaction.body().expiry, txid));
    }

    fn remove_ordinary(&mut self, entry: &Entry) {
        let txid = entry.transaction.id();
        self.arrivals.remove(&entry.arrival);
        for claim in entry.transaction.claims() {
            if let Some(list) = self.claimants.get_mut(&claim) {
                list.retain(|claimant| *claimant != txid);
                if list.is_empty() {
                    self.claimants.remove(&claim);
                }
            }
        }
    }

    /// Ordinary entries that claim the same, in order of arrival: spenders of an output, or special
    /// transactions that exclude each other.
    pub fn claimants(&self, claim: &OutPoint) -> &[Txid] {
        self.claimants.get(claim).map_or(&[], Vec::as_slice)
    }

    /// Special transactions in order.
    pub fn specials(&self) -> impl DoubleEndedIterator<Item = &SharedTransaction> {
        self.specials.values()
    }

    /// Spenders ascending by id, orphans included.
    pub fn all_spenders(&self, outpoint: &OutPoint) -> Vec<Txid> {
        let (first, last) = (Txid::default(), largest_id());
        self.descent.range((*outpoint, first)..=(*outpoint, last)).map(|(_, txid)| *txid).collect()
    }

    /// Those that spend an output of `txid`, with that output, by output.
    pub fn children_with_inputs(&self, txid: &Txid) -> Vec<(Txid, OutPoint)> {
        let from = (OutPoint { txid: *txid, index: 0 }, Txid::default());
        let to = (OutPoint { txid: *txid, index: u32::MAX }, largest_id());
        self.descent.range(from..=to).map(|(outpoint, child)| (*child, *outpoint)).collect()
    }

    /// Those that spend an output of `txid`, ascending, each once.
    pub fn children(&self, txid: &Txid) -> BTreeSet<Txid> {
        self.children_with_inputs(txid).into_iter().map(|(child, _)| child).collect()
    }

    pub fn in_order(&self) -> Vec<SharedTransaction> {
        self.specials.values().chain(self.ranked.values()).chain(self.orphans.values()).cloned().collect()
    }

    /// Evictable entries, worst first: lowest rate, then largest id.
    pub fn worst_first(&self) -> impl Iterator<Item = Rank> + '_ {
        self.evictable.iter().rev().copied()
    }

    /// Rank of the worst entry, pinned or not.
    pub fn worst(&self) -> Option<Rank> {
        self.ranked.last_key_value().map(|(rank, _)| *rank)
    }

    /// Takes an entry out of the order of eviction.
    pub fn pin(&mut self, rank: Rank) {
        if self.evictable.remove(&rank) {
            self.pinned.insert(rank);
        }
    }

    pub fn is_evictable(&self, rank: &Rank) -> bool {
        self.evictable.contains(rank)
    }

    /// Remembers a certified transaction whose body is unknown.
    pub fn expect(&mut self, txid: Txid, status: TxStatus) {
        if self.expected.len() < EXPECTED_MAX || self.expected.contains_key(&txid) {
            self.expected.insert(txid, status);
        }
    }

    pub fn oldest_orphan(&self) -> Option<Txid> {
        self.orphan_arrivals.first_key_value().map(|(_, txid)| *txid)
    }

    /// Entries that no block above `height` may include, soonest expiry first.
    pub fn expired(&self, height: u64) -> Vec<(u64, Txid)> {
        self.expiries.range(..=(height, largest_id())).copied().collect()
    }

    /// Forgets pins and expectations; returns what was pinned.
    pub fn end_era(&mut self) -> BTreeSet<Rank> {
        self.expected.clear();
        self.evictable.extend(self.pinned.iter().copied());
        std::mem::take(&mut self.pinned)
    }

    /// (lower bound in units per 1000 bytes, transactions) of every bucket that is not empty.
    pub fn fee_histogram(&self) -> Vec<(u64, u64)> {
        let lower = |bucket: usize| match bucket.checked_sub(1) {
            Some(power) => 1u64.checked_shl(u32::try_from(power).unwrap_or(u32::MAX)).unwrap_or(u64::MAX),
            None => 0,
        };
        self.histogram
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(bucket, count)| (lower(*bucket), *count))
            .collect()
    }
}

fn largest_id() -> Txid {
    Txid(crate::primitives::hash::Hash([0xff; 32]))
}
