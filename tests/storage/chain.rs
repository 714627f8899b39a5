//! A chain in which every block follows from the state before it, so that whatever a process had stored
//! can be compared with what must have been there. Blocks are of all sizes, from empty to hundreds of
//! payments.

use masternode::ledger::Ledger;
use masternode::ledger::apply::{BlockDiff, Contents, outcome};
use masternode::ledger::genesis::{Allocation, Founder, Genesis};
use masternode::primitives::amount::Amount;
use masternode::primitives::block::Block;
use masternode::primitives::certificate::Qc;
use masternode::primitives::chain::NetworkKind;
use masternode::primitives::hash::{BlockId, era_tag};
use masternode::primitives::keys::{SecretKey, Signature};
use masternode::primitives::params::Params;
use masternode::primitives::tier::Tier;
use masternode::primitives::transaction::{
    OutPoint, SealedTransaction, SharedTransaction, Transaction, TransactionKind, TxInput, TxOutput, Utxo,
};
use masternode::primitives::vote::{Step, vote_digest};
use std::collections::BTreeMap;

const FOUNDERS: u8 = 4;
/// Coins at the start.
const COINS: usize = 400;
/// Most coins: beyond it payments join more than they split.
const COINS_MAX: usize = 1_500;

/// Key of a founder; 100 owns the coins.
pub fn key(number: u8) -> SecretKey {
    SecretKey::from_seed(&[number; 32])
}

pub fn genesis() -> Genesis {
    let founder = |number: u8| {
        let hash = key(number).public().key_hash();
        let (name, vote_key) = (format!("node-{number}"), key(number).public());
        Founder { name, vote_key, tier: Tier::Bronze, owner: hash, payout: hash }
    };
    let owner = key(100).public().key_hash();
    let coin = Allocation { key_hash: owner, amount: Amount::from_time(100).unwrap() };
    Genesis {
        network: NetworkKind::Devnet,
        name: "storage".to_owned(),
        time_ms: 1_000_000,
        params: Params::of(NetworkKind::Devnet),
        masternodes: (1..=FOUNDERS).map(founder).collect(),
        allocations: vec![coin; COINS],
    }
}

/// How many payments are in the block of a height.
fn payments_at(height: u64) -> usize {
    match height {
        _ if height.is_multiple_of(29) => 300,
        _ if height.is_multiple_of(7) => 60,
        _ if height.is_multiple_of(5) => 0,
        _ => 3,
    }
}

/// Unsigned: the ledger does not look at signatures.
fn payment(height: u64, inputs: &[(OutPoint, Utxo)], outputs: u64) -> SharedTransaction {
    let public_key = key(100).public();
    let sum: u64 = inputs.iter().map(|(_, utxo)| utxo.value.units()).sum();
    let rest = sum - 5_000;
    let each = rest / outputs;
    let output =
        |value| TxOutput { value: Amount::from_units(value).unwrap(), key_hash: public_key.key_hash() };
    let input = |outpoint| TxInput { outpoint, public_key, signature: Signature([0; 64]) };
    SealedTransaction::new(Transaction {
        version: 1,
        kind: TransactionKind::Payment,
        expiry: height + 10,
        inputs: inputs.iter().map(|(outpoint, _)| input(*outpoint)).collect(),
        outputs: (0..outputs)
            .map(|number| output(if number == 0 { rest - each * (outputs - 1) } else { each }))
            .collect(),
        payload: Vec::new(),
    })
}

/// The next block with its certificate and its effect.
pub fn next_block(ledger: &Ledger) -> (Block, Qc, BlockDiff) {
    let tip = ledger.tip();
    let height = tip.header.height + 1;
    let owner = key(100).public().key_hash();
    let mut coins = BTreeMap::new();
    ledger.for_each(|outpoint, utxo| {
        if utxo.key_hash == owner && utxo.value.units() > 100_000 {
            coins.insert(*outpoint, *utxo);
        }
    });
    let (taken, outputs) = if coins.len() > COINS_MAX { (3, 1) } else { (1, 2) };
    let coins: Vec<(OutPoint, Utxo)> = coins.into_iter().take(taken * payments_at(height)).collect();
    let mut transactions: Vec<SharedTransaction> =
        coins.chunks(taken).map(|inputs| payment(height, inputs, outputs)).collect();
    transactions.sort_by_key(|transaction| transaction.id());
    let contents = Contents {
        proposer: tip.next_committee.members()[0].id,
        time_ms: tip.header.time_ms + 1000,
        last_commit: tip.commit.as_ref(),
        transactions: &transactions,
    };
    let diff = outcome(&tip, ledger.params(), &contents, &|outpoint| ledger.utxo(outpoint)).unwrap();
    let digest =
        vote_digest(era_tag(ledger.chain(), height, tip.block), 0, Step::Precommit, Some(diff.block));
    let votes = tip.next_committee.indices().zip(tip.next_committee.members()).map(|(voter, member)| {
        let signer = (1..=FOUNDERS).map(key).find(|key| key.public() == member.vote_key).unwrap();
        (voter, signer.sign(&digest))
    });
    let qc = Qc::new(0, Step::Precommit, diff.block, votes.collect());
    let block = Block { header: diff.header.clone(), last_commit: tip.commit.clone(), transactions };
    (block, qc, diff)
}

/// What must be at each height, computed as far as somebody has asked.
pub struct Reference {
    ledger: Ledger,
    blocks: Vec<BlockId>,
}

impl Reference {
    pub fn new() -> Self {
        let ledger = Ledger::in_memory(&genesis());
        let blocks = vec![ledger.tip().block];
        Self { ledger, blocks }
    }

    pub fn block(&mut self, height: u64) -> BlockId {
        let height = usize::try_from(height).unwrap();
        while self.blocks.len() <= height {
            let (_, qc, diff) = next_block(&self.ledger);
            self.ledger.apply(&diff, qc).unwrap();
            self.blocks.push(diff.block);
        }
        self.blocks[height]
    }
}
