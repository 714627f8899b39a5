//! The batches of one voter in one era (protocol §2), within the limits of protocol §8.

use crate::primitives::hash::Txid;
use crate::primitives::keys::Signature;
use crate::primitives::merkle::Phase;
use crate::primitives::vote::{VoteBatch, VoteProof};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most batches of one voter in an era. An honest voter sends about one a tick, some hundreds.
pub(super) const BATCHES_MAX: u32 = 16_384;

/// Most second versions of batches kept of a voter that equivocates: they are evidence and their
/// votes count, but they must not fill the memory.
const VARIANTS_MAX: usize = 32;

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Insertion {
    /// New: count its votes.
    New,
    /// Held already.
    Duplicate,
    /// The voter signed this batch too, and the two exclude each other; the votes still count.
    Equivocation(Arc<VoteBatch>),
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
    variant_prepares: usize,
    variant_commits: usize,
}

impl Stream {
    /// Takes a batch in; `votes_max` bounds the prepares of the era, commits get twice that.
    pub(super) fn insert(&mut self, batch: &Arc<VoteBatch>, votes_max: usize) -> Insertion {
        if batch.sequence >= BATCHES_MAX {
            return Insertion::Excess;
        }
        if let Some(held) = self.batches.get(&batch.sequence) {
            if same_statement(held, batch) {
                return Insertion::Duplicate;
            }
            let held = Arc::clone(held);
            return self.insert_variant(batch, held, votes_max);
        }
        if let Some(last) = self.last_below(batch.sequence) {
            return self.insert_variant(batch, last, votes_max);
        }
        if !self.within_limits(batch, votes_max) {
            return Insertion::Excess;
        }
        let later = self.batches.range(batch.sequence..).next().filter(|_| batch.last);
        let later = later.map(|(_, later)| Arc::clone(later));
        self.batches.insert(batch.sequence, Arc::clone(batch));
        if batch.last {
            self.last = Some(batch.sequence);
        }
        while self.batches.contains_key(&self.head) {
            self.head += 1;
        }
        later.map_or(Insertion::New, Insertion::Equivocation)
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

    /// Second versions have an allowance of their own, equal to the first, so that equivocating buys
    /// no memory.
    fn insert_variant(
        &mut self,
        batch: &Arc<VoteBatch>,
        excluded: Arc<VoteBatch>,
        votes_max: usize,
    ) -> Insertion {
        if self.variants.iter().any(|variant| same_statement(variant, batch)) {
            return Insertion::Duplicate;
        }
        let prepares = self.variant_prepares + batch.prepares.len();
        let commits = self.variant_commits + batch.commits.len();
        if self.variants.len() >= VARIANTS_MAX || prepares > votes_max || commits > 2 * votes_max {
            return Insertion::Excess;
        }
        (self.variant_prepares, self.variant_commits) = (prepares, commits);
        self.variants.push(Arc::clone(batch));
        Insertion::Equivocation(excluded)
    }

    /// The batch with which the voter said that none of `sequence` exists.
    fn last_below(&self, sequence: u32) -> Option<Arc<VoteBatch>> {
        let last = self.last.filter(|last| *last < sequence)?;
        self.batches.get(&last).cloned()
    }

    /// A batch held that excludes another one of the same voter, known by its number and signature
    /// alone. Equal signatures are taken for the same batch.
    pub(super) fn excluded_by(
        &self,
        sequence: u32,
        last: bool,
        signature: &Signature,
    ) -> Option<Arc<VoteBatch>> {
        match self.batches.get(&sequence) {
            Some(held) if held.signature != *signature => Some(Arc::clone(held)),
            Some(_) => None,
            None => self.last_below(sequence).or_else(|| {
                let (_, later) = self.batches.range(sequence..).next().filter(|_| last)?;
                Some(Arc::clone(later))
            }),
        }
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

    /// The vote for `txid`, provable by itself. Cost: linear in the stream; for evidence only.
    pub(super) fn vote_for(&self, phase: Phase, txid: &Txid) -> Option<VoteProof> {
        self.batches().find_map(|batch| batch.proof(phase, txid))
    }

    /// The batch in which the voter prepared `txid`. Cost: linear in the stream; for pulls only.
    pub(super) fn prepared_in(&self, txid: &Txid) -> Option<&Arc<VoteBatch>> {
        self.batches().find(|batch| batch.prepares.contains(txid))
    }
}

/// Whether two batches of one voter say the same. A signer may sign one statement in
/// several ways; that is no offence.
fn same_statement(one: &VoteBatch, other: &VoteBatch) -> bool {
    one.sequence == other.sequence
        && one.last == other.last
        && one.prepares == other.prepares
        && one.commits == other.commits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::hash::{EraTag, Hash};

    fn batch(sequence: u32, last: bool, prepares: u8) -> Arc<VoteBatch> {
        let prepares = (0..prepares).map(|n| Txid(Hash([n; 32]))).collect();
        let (era_tag, signature) = (EraTag::default(), Signature([0; 64]));
        Arc::new(VoteBatch { era_tag, voter: 0, sequence, last, prepares, commits: Vec::new(), signature })
    }

    #[test]
    fn a_stream_is_complete_only_without_gaps_up_to_its_last_batch() {
        let mut stream = Stream::default();
        assert_eq!(stream.insert(&batch(0, false, 1), 100), Insertion::New);
        assert_eq!(stream.insert(&batch(2, true, 1), 100), Insertion::New);
        assert!(stream.has_ended() && !stream.is_complete());
        assert_eq!(stream.head(), 1);
        assert_eq!(stream.insert(&batch(1, false, 1), 100), Insertion::New);
        assert!(stream.is_complete());
        assert_eq!(stream.head(), 3);
    }

    #[test]
    fn a_second_batch_of_one_number_and_a_batch_after_the_last_are_equivocations() {
        let mut stream = Stream::default();
        stream.insert(&batch(0, false, 1), 100);
        assert_eq!(stream.insert(&batch(0, false, 1), 100), Insertion::Duplicate);
        assert!(matches!(stream.insert(&batch(0, false, 2), 100), Insertion::Equivocation(_)));
        assert_eq!(stream.insert(&batch(0, false, 2), 100), Insertion::Duplicate);
        stream.insert(&batch(1, true, 0), 100);
        assert!(matches!(stream.insert(&batch(2, false, 1), 100), Insertion::Equivocation(_)));
    }

    #[test]
    fn a_last_batch_below_one_already_seen_is_an_equivocation() {
        let mut stream = Stream::default();
        stream.insert(&batch(3, false, 1), 100);
        assert!(matches!(stream.insert(&batch(2, true, 1), 100), Insertion::Equivocation(_)));
    }

    #[test]
    fn votes_beyond_the_budget_and_endless_variants_are_dropped() {
        let mut stream = Stream::default();
        assert_eq!(stream.insert(&batch(0, false, 8), 10), Insertion::New);
        assert_eq!(stream.insert(&batch(1, false, 8), 10), Insertion::Excess);
        assert_eq!(stream.insert(&batch(BATCHES_MAX, false, 0), 10), Insertion::Excess);
        let kept =
            (9..200).filter(|n| stream.insert(&batch(0, false, *n), 100_000) != Insertion::Excess).count();
        assert_eq!(kept, VARIANTS_MAX);
        let mut stream = Stream::default();
        stream.insert(&batch(0, false, 0), 100);
        let kept =
            (60..200).filter(|n| stream.insert(&batch(0, false, *n), 100) != Insertion::Excess).count();
        assert_eq!(kept, 1, "second versions share one more budget");
    }
}
