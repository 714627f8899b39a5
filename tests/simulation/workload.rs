//! The payments of a run: chained, with several inputs, in conflicting pairs, and invalid in each way.
//!
//! All are made before the run from the coins of genesis; who gets them when is part of the plan.

use crate::keys::Key;
use crate::random::Random;
use crate::scenario::Scenario;
use masternode::consensus::signer::Signer;
use masternode::primitives::amount::Amount;
use masternode::primitives::hash::{ChainId, Txid};
use masternode::primitives::keys::Signature;
use masternode::primitives::transaction::{
    OutPoint, SealedTransaction, SharedTransaction, TRANSACTION_VERSION, Transaction, TransactionKind,
    TxInput, TxOutput,
};
use std::collections::BTreeMap;

/// Keys that own money.
pub const OWNERS: usize = 6;

/// Above the greatest height any run reaches, below the most a payment may be ahead.
pub const EXPIRY: u64 = 900;

/// An output and who can spend it.
#[derive(Clone, Copy, Debug)]
pub struct Coin {
    pub outpoint: OutPoint,
    pub value: u64,
    pub owner: usize,
}

/// A payment and when it is handed to which nodes.
pub struct Submission {
    pub at_us: u64,
    pub transaction: SharedTransaction,
    pub nodes: Vec<usize>,
}

/// All payments of a run.
pub struct Workload {
    pub plan: Vec<Submission>,
    /// The ones that can be in a block, unless a conflicting one is.
    pub valid: BTreeMap<Txid, SharedTransaction>,
    /// Ids of the valid ones, parents before children.
    pub order: Vec<Txid>,
    /// Valid ones only Byzantine validators have.
    pub hidden: Vec<SharedTransaction>,
    /// The ones that never can.
    pub invalid: BTreeMap<Txid, &'static str>,
    /// Pairs that spend the same coin.
    pub conflicts: Vec<(Txid, Txid)>,
}

struct Maker<'a> {
    random: Random,
    chain: ChainId,
    owners: &'a [Key],
    coins: Vec<Coin>,
    made: Workload,
}

impl Workload {
    /// The payments of a scenario from the coins of genesis.
    pub fn new(
        scenario: &Scenario,
        random: Random,
        chain: ChainId,
        owners: &[Key],
        coins: Vec<Coin>,
    ) -> Self {
        let made = Self {
            plan: Vec::new(),
            valid: BTreeMap::new(),
            order: Vec::new(),
            hidden: Vec::new(),
            invalid: BTreeMap::new(),
            conflicts: Vec::new(),
        };
        let mut maker = Maker { random, chain, owners, coins, made };
        let nodes: Vec<usize> = (0..scenario.nodes()).collect();
        for _ in 0..2 {
            maker.hidden();
        }
        let mut at_us = 1000;
        for _ in 0..scenario.payments {
            at_us += maker.random.below(2 * scenario.paying_us() / scenario.payments as u64);
            match maker.random.below(100) {
                0..50 => maker.payment(at_us, &nodes),
                50..60 => maker.chain(at_us, &nodes),
                60..88 => maker.conflict(at_us, &nodes),
                _ => maker.invalid(at_us, &nodes),
            }
        }
        let mut made = maker.made;
        made.plan.truncate(scenario.payments_kept);
        let handed_in = |txid: &Txid| made.plan.iter().any(|planned| planned.transaction.id() == *txid);
        made.order.retain(handed_in);
        made
    }
}

impl Maker<'_> {
    /// Takes up to `most` coins, the newest more often so that payments chain.
    fn take(&mut self, most: u64) -> Vec<Coin> {
        let count = self.random.between(1, most);
        (0..count)
            .filter_map(|_| {
                let len = self.coins.len();
                let newest = len > 0 && self.random.chance(400);
                let index = if newest { len - 1 } else { self.random.index(len) };
                (len > 0).then(|| self.coins.swap_remove(index))
            })
            .collect()
    }

    fn build(&mut self, coins: &[Coin], fee: u64, outputs: u64) -> Transaction {
        let total: u64 = coins.iter().map(|coin| coin.value).sum();
        let share = total.saturating_sub(fee) / outputs;
        let key = |owner: usize| self.owners[owner].public();
        let inputs = coins
            .iter()
            .map(|coin| TxInput {
                outpoint: coin.outpoint,
                public_key: key(coin.owner),
                signature: Signature([0; 64]),
            })
            .collect();
        let outputs = (0..outputs)
            .map(|_| {
                let owner = self.random.index(OWNERS);
                let value = Amount::from_units(share).expect("a share of what exists");
                TxOutput { value, key_hash: self.owners[owner].public().key_hash() }
            })
            .collect();
        Transaction {
            version: TRANSACTION_VERSION,
            kind: TransactionKind::Payment,
            expiry: EXPIRY,
            inputs,
            outputs,
            payload: Vec::new(),
        }
    }

    fn seal(&self, mut transaction: Transaction) -> SharedTransaction {
        let digest = transaction.spend_digest(self.chain);
        for input in &mut transaction.inputs {
            if let Some(owner) = self.owners.iter().find(|key| key.public() == input.public_key) {
                input.signature = owner.sign(&digest);
            }
        }
        SealedTransaction::new(transaction)
    }

    /// Makes a valid payment of these coins and hands it in.
    fn pay(&mut self, coins: &[Coin], at_us: u64, nodes: Vec<usize>) -> SharedTransaction {
        let fee = 3000 + self.random.below(5000);
        let outputs = self.random.between(1, 3);
        let body = self.build(coins, fee, outputs);
        let transaction = self.seal(body);
        self.made.valid.insert(transaction.id(), transaction.clone());
        self.made.order.push(transaction.id());
        self.made.plan.push(Submission { at_us, transaction: transaction.clone(), nodes });
        transaction
    }

    fn outputs(&self, transaction: &SharedTransaction) -> Vec<Coin> {
        let owner = |hash| self.owners.iter().position(|key| key.public().key_hash() == hash);
        transaction
            .creates(0)
            .filter_map(|(outpoint, utxo)| {
                Some(Coin { outpoint, value: utxo.value.units(), owner: owner(utxo.key_hash)? })
            })
            .filter(|coin| coin.value > 100_000)
            .collect()
    }

    fn some(&mut self, nodes: &[usize], most: u64) -> Vec<usize> {
        let mut chosen = nodes.to_vec();
        self.random.shuffle(&mut chosen);
        chosen.truncate(usize::try_from(self.random.between(1, most)).expect("a few"));
        chosen
    }

    fn payment(&mut self, at_us: u64, nodes: &[usize]) {
        let coins = self.take(3);
        if !coins.is_empty() {
            let to = self.some(nodes, 3);
            let transaction = self.pay(&coins, at_us, to);
            let made = self.outputs(&transaction);
            self.coins.extend(made);
        }
    }

    /// A payment, one of its output, one of that: handed in together, in any order.
    fn chain(&mut self, at_us: u64, nodes: &[usize]) {
        let mut coins = self.take(1);
        for _ in 0..3 {
            if coins.is_empty() {
                return;
            }
            let to = self.some(nodes, 3);
            let delay = self.random.below(30_000);
            let transaction = self.pay(&coins, at_us + delay, to);
            let mut made = self.outputs(&transaction);
            coins = made.drain(..1.min(made.len())).collect();
            self.coins.extend(made);
        }
        self.coins.extend(coins);
    }

    /// Two payments of one coin at the same moment to different nodes, perhaps with a child each.
    fn conflict(&mut self, at_us: u64, nodes: &[usize]) {
        let coins = self.take(2);
        let Some(shared) = coins.first().copied() else { return };
        let mut order = nodes.to_vec();
        self.random.shuffle(&mut order);
        let cut = self.random.index(order.len() - 1) + 1;
        let second = order.split_off(cut);
        let first = self.pay(&coins, at_us, order);
        let other = self.pay(&[shared], at_us, second);
        if first.id() == other.id() {
            return;
        }
        self.made.conflicts.push((first.id(), other.id()));
        for parent in [first, other] {
            let coin = self.outputs(&parent).first().copied();
            if let Some(coin) = coin.filter(|_| self.random.chance(300)) {
                let to = self.some(nodes, 2);
                self.pay(&[coin], at_us + 5000, to);
            }
        }
    }

    /// A payment nobody is given but the liars. It spends coins that stay available to others.
    fn hidden(&mut self) {
        let coins = self.take(1);
        if coins.is_empty() {
            return;
        }
        let body = self.build(&coins, 5000, 2);
        let transaction = self.seal(body);
        self.made.valid.insert(transaction.id(), transaction.clone());
        self.made.hidden.push(transaction);
        self.coins.extend(coins);
    }

    /// A payment that is wrong in one way. It spends coins that stay available to valid ones.
    fn invalid(&mut self, at_us: u64, nodes: &[usize]) {
        let coins = self.take(1);
        let Some(coin) = coins.first().copied() else { return };
        let mut body = self.build(&coins, 4000, 2);
        let kind = match self.random.below(7) {
            0 => {
                body.inputs[0].outpoint.index += 77;
                "unknown input"
            }
            1 => {
                body.outputs[0].value = Amount::from_units(coin.value * 2).expect("within range");
                "overspend"
            }
            2 => {
                body.outputs[0].value = Amount::ZERO;
                "zero output"
            }
            3 => {
                body.inputs.push(body.inputs[0]);
                "duplicate input"
            }
            4 => {
                body.expiry = 0;
                "expired"
            }
            5 => {
                body.inputs[0].public_key = self.owners[(coin.owner + 1) % OWNERS].public();
                "wrong key"
            }
            _ => "bad signature",
        };
        let transaction = if kind == "bad signature" {
            let mut body = self.seal(body).body().clone();
            body.inputs[0].signature.0[3] ^= 1;
            SealedTransaction::new(body)
        } else {
            self.seal(body)
        };
        self.made.invalid.insert(transaction.id(), kind);
        let to = self.some(nodes, 3);
        self.made.plan.push(Submission { at_us, transaction, nodes: to });
        self.coins.extend(coins);
    }
}
