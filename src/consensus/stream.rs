//! The batches of one voter in one era (protocol §2), within the limits of protocol §8.

use crate::primitives::hash::Txid;
use crate::primitives::vote::VoteBatch;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most batches of one voter in an era. An honest voter sends about one a tick, some hundreds.
pub(super) const BATCHES_MAX: u32 = 16_384;

/// Most second versions of batches kept of a voter that equivocates: they are evidence and their
/// votes count, but they must not fill the memory.
const VARIANTS_MAX: usize = 32;

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Insertion {
    /// New: count its votes.
    New,
    /// Held already.
    Duplicate,
    /// The voter signed two things that exclude each other; the votes still count.
    Equivocation(&'static str),
    /// Beyond the limits of an honest voter: dropped unread.
    Excess,
}

/// The batches held of one voter.
#[derive(Clone, Debug, Default)]
pub(super) struct Stream {
    batches: BTreeMap<u32, Arc<VoteBatch>>,
    variants: Vec<Arc<VoteBatch>>,
    head: u32,
    last: Option<u32>,
    prepares: usize,
    commits: usize,
}

impl Stream {
    /// Takes a batch in; `votes_max` bounds the prepares of the era, commits get twice that.
    pub(super) fn insert(&mut self, batch: &Arc<VoteBatch>, votes_max: usize) -> Insertion {
        if batch.sequence >= BATCHES_MAX {
            return Insertion::Excess;
        }
        if let Some(held) = self.batches.get(&batch.sequence) {
            if **held == **batch || self.variants.iter().any(|variant| **variant == **batch) {
                return Insertion::Duplicate;
            }
            return self.insert_variant(batch, "two batches with one sequence number");
        }
        if self.last.is_some_and(|last| batch.sequence > last) {
            return self.insert_variant(batch, "a batch after the last one");
        }
        if !self.within_limits(batch, votes_max) {
            return Insertion::Excess;
        }
        self.batches.insert(batch.sequence, Arc::clone(batch));
        let precedes_known = batch.last && self.batches.range(batch.sequence + 1..).next().is_some();
        if batch.last {
            self.last = Some(batch.sequence);
        }
        while self.batches.contains_key(&self.head) {
            self.head += 1;
        }
        if precedes_known { Insertion::Equivocation("a batch after the last one") } else { Insertion::New }
    }

    fn within_limits(&mut self, batch: &VoteBatch, votes_max: usize) -> bool {
        let prepares = self.prepares + batch.prepares.len();
        let commits = self.commits + batch.commits.len();
        if prepares > votes_max || commits > 2 * votes_max {
            return false;
        }
        (self.prepares, self.commits) = (prepares, commits);
        true
    }

    fn insert_variant(&mut self, batch: &Arc<VoteBatch>, what: &'static str) -> Insertion {
        if self.variants.iter().any(|variant| **variant == **batch) {
            return Insertion::Duplicate;
        }
        if self.variants.len() >= VARIANTS_MAX {
            return Insertion::Excess;
        }
        self.variants.push(Arc::clone(batch));
        Insertion::Equivocation(what)
    }

    /// Number of batches held without a gap.
    pub(super) fn head(&self) -> u32 {
        self.head
    }

    /// Whether every batch up to the voter's last one is held.
    pub(super) fn is_complete(&self) -> bool {
        self.last.is_some_and(|last| self.head > last)
    }

    /// Whether the voter is known to have frozen.
    pub(super) fn has_ended(&self) -> bool {
        self.last.is_some()
    }

    /// All batches held, by number, then second versions.
    pub(super) fn batches(&self) -> impl Iterator<Item = &Arc<VoteBatch>> {
        self.batches.values().chain(&self.variants)
    }

    /// Batches from a number on, in order.
    pub(super) fn from(&self, sequence: u32) -> impl Iterator<Item = &Arc<VoteBatch>> {
        self.batches.range(sequence..).map(|(_, batch)| batch)
    }

    /// The batch with this number.
    pub(super) fn batch(&self, sequence: u32) -> Option<&Arc<VoteBatch>> {
        self.batches.get(&sequence)
    }

    /// The batch in which the voter prepared `txid`. Cost: linear in the stream; for pulls only.
    pub(super) fn prepared_in(&self, txid: &Txid) -> Option<&Arc<VoteBatch>> {
        self.batches().find(|batch| batch.prepares.contains(txid))
    }
}
