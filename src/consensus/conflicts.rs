//! What is remembered to see that one key signed two things that exclude each other (protocol §10):
//! votes by their place, and payments that spend the same output.
//!
//! Both are bounded; what does not fit is not watched. Absent: judging, which is the machine's.

use crate::primitives::committee::VoterIndex;
use crate::primitives::evidence::VoteHead;
use crate::primitives::hash::Txid;
use crate::primitives::transaction::{OutPoint, SharedTransaction};
use crate::primitives::vote::Step;
use std::collections::{BTreeMap, BTreeSet};

/// Most votes in a book: both steps of 66 rounds of a full committee are 26,400.
const VOTES_MAX: usize = 32_768;

/// Most payments watched because they have rivals, and their bytes: they are in the pool mostly, so
/// this is about what pool and era have let go.
const CONTESTED_MAX: usize = 16_384;
const CONTESTED_BYTES_MAX: u64 = 32 << 20;

/// Most payments watched for one output. Honest voters prepare one of them each, and a voter that
/// prepared two is not looked at again.
const RIVALS_MAX: usize = 16;

/// Votes of rounds by their place.
#[derive(Clone, Debug, Default)]
pub(super) struct VoteBook {
    votes: BTreeMap<(u32, Step, VoterIndex), VoteHead>,
}

impl VoteBook {
    /// Notes a vote; the one already noted for the same place, if that is for something else.
    pub(super) fn note(
        &mut self,
        round: u32,
        step: Step,
        voter: VoterIndex,
        vote: VoteHead,
    ) -> Option<VoteHead> {
        let room = self.votes.len() < VOTES_MAX;
        match self.votes.get(&(round, step, voter)) {
            Some(held) => (held.block != vote.block).then_some(*held),
            None => {
                if room {
                    self.votes.insert((round, step, voter), vote);
                }
                None
            }
        }
    }
}

/// Payments with votes that have rivals.
#[derive(Clone, Debug, Default)]
pub(super) struct Contested {
    by_outpoint: BTreeMap<OutPoint, Vec<Txid>>,
    bodies: BTreeMap<Txid, SharedTransaction>,
    bytes: u64,
}

impl Contested {
    /// Notes that `transaction` is one of several that spend `outpoint`.
    pub(super) fn add(&mut self, outpoint: OutPoint, transaction: &SharedTransaction) {
        let id = transaction.id();
        let known = self.bodies.contains_key(&id);
        let bytes = self.bytes.saturating_add(transaction.size());
        if !known && (self.bodies.len() >= CONTESTED_MAX || bytes > CONTESTED_BYTES_MAX) {
            return;
        }
        let rivals = self.by_outpoint.entry(outpoint).or_default();
        if rivals.len() >= RIVALS_MAX || rivals.contains(&id) {
            return;
        }
        rivals.push(id);
        if !known {
            self.bytes = bytes;
            self.bodies.insert(id, SharedTransaction::clone(transaction));
        }
    }

    /// Whether nothing is contested, as in most eras.
    pub(super) fn is_empty(&self) -> bool {
        self.bodies.is_empty()
    }

    /// The body of a contested payment.
    pub(super) fn body(&self, txid: &Txid) -> Option<&SharedTransaction> {
        self.bodies.get(txid)
    }

    /// The payments watched for an output.
    pub(super) fn spenders(&self, outpoint: &OutPoint) -> &[Txid] {
        self.by_outpoint.get(outpoint).map_or(&[], Vec::as_slice)
    }

    /// The payments that share an output with `txid`.
    pub(super) fn rivals(&self, txid: &Txid) -> BTreeSet<Txid> {
        let Some(body) = self.bodies.get(txid) else { return BTreeSet::new() };
        body.spends()
            .flat_map(|outpoint| self.spenders(&outpoint).to_vec())
            .filter(|rival| rival != txid)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::hash::{BlockId, Hash};
    use crate::primitives::keys::{PublicKey, Signature};
    use crate::primitives::transaction::{
        SealedTransaction, TRANSACTION_VERSION, Transaction, TransactionKind, TxInput,
    };

    fn spending(outputs: &[u32], expiry: u64) -> SharedTransaction {
        let input = |index: &u32| TxInput {
            outpoint: OutPoint { txid: Txid::default(), index: *index },
            public_key: PublicKey([0; 32]),
            signature: Signature([0; 64]),
        };
        SealedTransaction::new(Transaction {
            version: TRANSACTION_VERSION,
            kind: TransactionKind::Payment,
            expiry,
            inputs: outputs.iter().map(input).collect(),
            outputs: Vec::new(),
            payload: Vec::new(),
        })
    }

    #[test]
    fn a_book_tells_a_second_vote_of_a_place_and_keeps_the_first() {
        let vote = |n: u8| VoteHead { block: Some(BlockId(Hash([n; 32]))), signature: Signature([n; 64]) };
        let mut book = VoteBook::default();
        assert_eq!(book.note(0, Step::Prevote, 1, vote(1)), None);
        assert_eq!(book.note(0, Step::Prevote, 1, vote(1)), None, "the same vote again");
        assert_eq!(book.note(0, Step::Precommit, 1, vote(2)), None, "another step");
        assert_eq!(book.note(1, Step::Prevote, 1, vote(2)), None, "another round");
        assert_eq!(book.note(0, Step::Prevote, 2, vote(2)), None, "another voter");
        assert_eq!(book.note(0, Step::Prevote, 1, vote(2)), Some(vote(1)));
        assert_eq!(book.note(0, Step::Prevote, 1, vote(3)), Some(vote(1)));
    }

    #[test]
    fn a_book_is_bounded() {
        let mut book = VoteBook::default();
        for round in 0..40_000 {
            book.note(round, Step::Prevote, 0, VoteHead { block: None, signature: Signature([0; 64]) });
        }
        assert_eq!(book.votes.len(), VOTES_MAX);
    }

    #[test]
    fn rivals_are_those_that_share_an_output() {
        let (a, b, c) = (spending(&[0], 1), spending(&[0, 1], 1), spending(&[1], 1));
        let mut contested = Contested::default();
        let outpoint = |index| OutPoint { txid: Txid::default(), index };
        for transaction in [&a, &b, &b] {
            contested.add(outpoint(0), transaction);
        }
        for transaction in [&b, &c] {
            contested.add(outpoint(1), transaction);
        }
        assert_eq!(contested.rivals(&b.id()), BTreeSet::from([a.id(), c.id()]));
        assert_eq!(contested.rivals(&a.id()), BTreeSet::from([b.id()]));
        assert_eq!(contested.bytes, a.size() + b.size() + c.size(), "a body counts once");
    }

    #[test]
    fn a_flood_of_rivals_is_bounded() {
        let mut contested = Contested::default();
        for expiry in 0..100 {
            contested.add(OutPoint { txid: Txid::default(), index: 0 }, &spending(&[0], expiry));
        }
        assert_eq!(contested.bodies.len(), RIVALS_MAX);
    }
}
