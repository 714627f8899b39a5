//! The coins of the devnet's payer: which outputs it may spend, whether final or still under way.
//!
//! Pure bookkeeping. A coin leaves the purse when a payment that spends it is made and comes back
//! only if that payment is refused; the outputs of a payment are *unsettled* until it is final, and
//! spending one of those makes a chained payment.

use masternode::primitives::amount::Amount;
use masternode::primitives::hash::Txid;
use masternode::primitives::transaction::{OutPoint, SealedTransaction};
use std::collections::{HashMap, VecDeque};

/// Parents looked at for an unsettled coin before giving up.
const PARENTS_TRIED_MAX: usize = 64;

/// An output the payer may spend with one of its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coin {
    /// The output.
    pub outpoint: OutPoint,
    /// Its value.
    pub value: Amount,
    /// Which of the payer's keys it is locked to.
    pub key: usize,
}

/// What is left of the outputs of a payment under way, and the node that has it for certain.
#[derive(Debug)]
struct UnderWay {
    node: usize,
    coins: Vec<Coin>,
}

/// All coins of the payer.
#[derive(Debug, Default)]
pub struct Purse {
    settled: VecDeque<Coin>,
    unsettled: HashMap<Txid, UnderWay>,
    /// Accepted payments under way, oldest first; those that are settled are skipped when met.
    under_way: VecDeque<Txid>,
}

impl Purse {
    /// Adds a coin that is final.
    pub fn add(&mut self, coin: Coin) {
        self.settled.push_back(coin);
    }

    /// Takes the coin that has been final longest.
    pub fn take(&mut self) -> Option<Coin> {
        self.settled.pop_front()
    }

    /// Takes an output of the newest payment that is not final, with the node that payment was given
    /// to: another may not know it yet.
    pub fn take_unsettled(&mut self) -> Option<(usize, Coin)> {
        for _ in 0..PARENTS_TRIED_MAX {
            let newest = *self.under_way.back()?;
            let parent = self.unsettled.get_mut(&newest);
            match parent.and_then(|parent| Some((parent.node, parent.coins.pop()?))) {
                Some(found) => return Some(found),
                // Final, refused, or nothing left to spend.
                None => self.under_way.pop_back(),
            };
        }
        None
    }

    /// Notes a payment under way to `node`; `keys` are the payer's keys its outputs are locked to.
    pub fn sent(&mut self, payment: &SealedTransaction, node: usize, keys: &[usize]) {
        let txid = payment.id();
        let coins = payment.body().outputs.iter().zip(0u32..).zip(keys).map(|((output, index), key)| Coin {
            outpoint: OutPoint { txid, index },
            value: output.value,
            key: *key,
        });
        self.unsettled.insert(txid, UnderWay { node, coins: coins.collect() });
    }

    /// The node has taken the payment: from now on it may be chained to.
    pub fn accepted(&mut self, txid: Txid) {
        if self.unsettled.contains_key(&txid) {
            self.under_way.push_back(txid);
        }
        // Settled payments at the old end would gather there.
        while self.under_way.front().is_some_and(|oldest| !self.unsettled.contains_key(oldest)) {
            self.under_way.pop_front();
        }
    }

    /// A payment is final: what is left of its outputs is too.
    pub fn settle(&mut self, txid: &Txid) {
        self.settled.extend(self.unsettled.remove(txid).into_iter().flat_map(|parent| parent.coins));
    }

    /// A payment was refused: its outputs do not exist.
    pub fn forget(&mut self, txid: &Txid) {
        self.unsettled.remove(txid);
    }

    /// Number of final coins.
    pub fn len(&self) -> usize {
        self.settled.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use masternode::primitives::hash::{Hash, KeyHash};
    use masternode::primitives::transaction::{
        SharedTransaction, TRANSACTION_VERSION, Transaction, TransactionKind, TxOutput,
    };

    fn payment(number: u64, outputs: u64) -> SharedTransaction {
        let output = |value| TxOutput {
            value: Amount::from_units(value).unwrap_or_default(),
            key_hash: KeyHash(Hash([0; 32])),
        };
        SealedTransaction::new(Transaction {
            version: TRANSACTION_VERSION,
            kind: TransactionKind::Payment,
            expiry: number,
            inputs: Vec::new(),
            outputs: (1..=outputs).map(output).collect(),
            payload: Vec::new(),
        })
    }

    #[test]
    fn outputs_are_spendable_as_chained_until_final_and_as_settled_afterwards() {
        let mut purse = Purse::default();
        let first = payment(1, 3);
        purse.sent(&first, 3, &[0, 1, 2]);
        assert_eq!((purse.len(), purse.take()), (0, None));
        assert_eq!(purse.take_unsettled(), None, "the node may not have it yet");
        purse.accepted(first.id());
        let (node, coin) = purse.take_unsettled().expect("an output under way");
        assert_eq!((node, coin.outpoint.txid, coin.outpoint.index, coin.key), (3, first.id(), 2, 2));
        purse.settle(&first.id());
        assert_eq!(purse.take_unsettled(), None);
        let left: Vec<u32> = std::iter::from_fn(|| purse.take()).map(|coin| coin.outpoint.index).collect();
        assert_eq!(left, [0, 1], "the one spent while under way is not offered again");
    }

    #[test]
    fn the_newest_payment_is_chained_first_and_a_refused_one_never() {
        let mut purse = Purse::default();
        let (old, new) = (payment(1, 1), payment(2, 1));
        purse.sent(&old, 0, &[0]);
        purse.sent(&new, 0, &[0]);
        purse.accepted(old.id());
        purse.accepted(new.id());
        purse.forget(&new.id());
        assert_eq!(purse.take_unsettled().map(|(_, coin)| coin.outpoint.txid), Some(old.id()));
        assert_eq!(purse.take_unsettled(), None);
    }

    #[test]
    fn settled_payments_do_not_gather() {
        let mut purse = Purse::default();
        for number in 0..1000 {
            let payment = payment(number, 1);
            purse.sent(&payment, 0, &[0]);
            purse.accepted(payment.id());
            purse.settle(&payment.id());
        }
        assert_eq!(purse.len(), 1000);
        assert!(purse.under_way.len() <= 1, "{} settled payments are kept", purse.under_way.len());
    }
}
