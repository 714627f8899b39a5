//! What a network does with payments that must not be: double spends and faulty ones.

use crate::founding::{Founded, Plan, found};
use masternode::node::clock;
use masternode::node::handle::{NodeHandle, SubmitError};
use masternode::node::hub::FateKind;
use masternode::node::start::{NodeOptions, start};
use masternode::primitives::amount::Amount;
use masternode::primitives::hash::{Hash, KeyHash, Txid};
use masternode::primitives::keys::{SecretKey, Signature};
use masternode::primitives::transaction::{
    OutPoint, TRANSACTION_VERSION, Transaction, TransactionKind, TxInput, TxOutput, Utxo,
};
use masternode::telemetry::snapshot::NodeState;
use masternode::wallet::keystore;
use std::collections::HashSet;
use std::time::Duration;

/// Far above what anything here needs, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Three or more nodes in this process with the faucet's only coin.
pub struct Network {
    pub root: tempfile::TempDir,
    pub founded: Founded,
    pub nodes: Vec<NodeHandle>,
}

impl Network {
    pub async fn start(nodes: usize, era: Duration) -> Self {
        let root = tempfile::tempdir().unwrap();
        let plan = Plan {
            root: root.path().join("devnet"),
            nodes,
            // Near the end of the range there is no room, so free ports are taken.
            base_port: u16::MAX,
            era,
            latency: Duration::ZERO,
            time_ms: clock::wall_ms(),
        };
        let founded = found(&plan).unwrap();
        let mut network = Self { root, founded, nodes: Vec::new() };
        for config in &network.founded.configs {
            let options = NodeOptions {
                vote_key: Some(keystore::load(&config.vote_key_path(), None).unwrap()),
                network_key: keystore::load(&config.network_key_path(), None).unwrap(),
                config: config.clone(),
                genesis: network.founded.genesis.clone(),
            };
            network.nodes.push(start(options).await.unwrap());
        }
        for node in &network.nodes {
            let signing = async {
                while node.snapshot().state != NodeState::Signing {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(PATIENCE, signing).await.expect("every node signs");
        }
        network
    }

    fn faucet(&self) -> &SecretKey {
        &self.founded.faucet
    }

    pub fn coin(&self) -> (OutPoint, Utxo) {
        self.nodes[0].ledger().unspent_of(&self.faucet().public().key_hash(), 1)[0]
    }

    /// A good payment of the faucet's coin to `receiver`, not signed.
    pub fn unsigned(&self, receiver: u8) -> Transaction {
        let (outpoint, utxo) = self.coin();
        let value = utxo.value.checked_sub(Amount::from_units(1000).unwrap()).unwrap();
        Transaction {
            version: TRANSACTION_VERSION,
            kind: TransactionKind::Payment,
            expiry: self.nodes[0].ledger().tip().header.height + 20,
            inputs: vec![self.input(outpoint)],
            outputs: vec![TxOutput { value, key_hash: KeyHash(Hash([receiver; 32])) }],
            payload: Vec::new(),
        }
    }

    fn input(&self, outpoint: OutPoint) -> TxInput {
        TxInput { outpoint, public_key: self.faucet().public(), signature: Signature([0; 64]) }
    }

    pub fn signed(&self, mut transaction: Transaction) -> Transaction {
        transaction.sign(self.founded.genesis.chain_id(), self.faucet());
        transaction
    }

    pub async fn stop(self) {
        for node in &self.nodes {
            node.stop("the test is over");
        }
        for node in &self.nodes {
            assert_eq!(node.stopped().await.code, 0);
        }
    }
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn of_two_payments_of_one_coin_at_two_nodes_one_is_in_a_block_at_most_an_era_later_and_never_both_final() {
    runtime().block_on(async {
        let network = Network::start(4, Duration::from_secs(1)).await;
        let mut fates: Vec<_> = network.nodes.iter().map(NodeHandle::fates).collect();
        let rivals = [1, 2].map(|receiver| network.signed(network.unsigned(receiver)));
        let ids: Vec<Txid> = rivals.iter().map(Transaction::id).collect();
        let [left, right] = rivals;
        let height = network.nodes[0].ledger().tip().header.height;
        let (first, second) = tokio::join!(network.nodes[0].submit(left), network.nodes[2].submit(right));
        assert!(first.is_ok() || second.is_ok(), "{first:?} {second:?}");
        // The era they were submitted in ends with block height + 1 (or the next, if a block was just
        // being decided), the one after with the block after that.
        let last_height = height + 3;
        let (mut finals, mut in_blocks) = (HashSet::new(), HashSet::new());
        for fates in &mut fates {
            let mut found = None;
            let watching = async {
                loop {
                    match &fates.recv().await.unwrap().kind {
                        FateKind::Final { txids, .. } => {
                            finals.extend(txids.iter().copied().filter(|txid| ids.contains(txid)));
                        }
                        FateKind::Block { block } => {
                            let height = block.header.height;
                            for id in
                                block.transactions.iter().map(|tx| tx.id()).filter(|id| ids.contains(id))
                            {
                                assert_eq!(found.replace(height), None, "two of the pair are in blocks");
                                in_blocks.insert(id);
                            }
                            if height >= last_height {
                                return;
                            }
                        }
                        FateKind::Rejected { .. } => {}
                    }
                }
            };
            tokio::time::timeout(PATIENCE, watching).await.expect("blocks are decided");
            assert!(found.is_some(), "none of the pair is in a block up to {last_height}");
        }
        assert_eq!(in_blocks.len(), 1, "all nodes have the same one");
        assert!(finals.is_subset(&in_blocks), "final {finals:?}, in blocks {in_blocks:?}");
        network.stop().await;
    });
}

#[test]
fn every_kind_of_invalid_payment_gets_its_own_error() {
    runtime().block_on(async {
        let network = Network::start(3, Duration::from_secs(30)).await;
        let (outpoint, utxo) = network.coin();
        let receiver = KeyHash(Hash([7; 32]));
        let output = |units| TxOutput { value: Amount::from_units(units).unwrap(), key_hash: receiver };
        let with = |change: &dyn Fn(&mut Transaction)| {
            let mut transaction = network.unsigned(1);
            change(&mut transaction);
            network.signed(transaction)
        };
        let unknown = OutPoint { txid: Txid(Hash([1; 32])), index: 9 };
        let mut forged = with(&|_| {});
        forged.inputs[0].signature = Signature([3; 64]);
        let stranger = SecretKey::from_seed(&[5; 32]);
        let mut stolen = network.unsigned(1);
        stolen.inputs[0].public_key = stranger.public();
        stolen.sign(network.founded.genesis.chain_id(), &stranger);
        let cases: Vec<(&str, Transaction)> = vec![
            ("bad-signature", forged),
            ("wrong-key", stolen),
            ("unknown-input", with(&|tx| tx.inputs = vec![network.input(unknown)])),
            ("overspend", with(&|tx| tx.outputs[0].value = utxo.value.checked_add(utxo.value).unwrap())),
            ("zero-output", with(&|tx| tx.outputs.push(output(0)))),
            ("dust-output", with(&|tx| tx.outputs.push(output(1)))),
            ("duplicate-input", with(&|tx| tx.inputs.push(network.input(outpoint)))),
            ("expired", with(&|tx| tx.expiry = 0)),
            ("expiry-too-far", with(&|tx| tx.expiry = 1_000_000)),
            ("oversized", with(&|tx| tx.outputs = vec![output(1000); 3000])),
            ("fee-too-low", with(&|tx| tx.outputs[0].value = utxo.value)),
            ("no-outputs", with(&|tx| tx.outputs.clear())),
            ("no-inputs", with(&|tx| tx.inputs.clear())),
            ("unexpected-payload", with(&|tx| tx.payload = vec![1])),
            ("unknown-version", with(&|tx| tx.version = 9)),
        ];
        for (code, transaction) in cases {
            match network.nodes[1].submit(transaction).await {
                Err(SubmitError::Rejected(reason)) => assert_eq!(reason.code(), code, "{reason}"),
                other => panic!("{code}: {other:?}"),
            }
        }
        // The coin is as good as before.
        let good = with(&|_| {});
        let txid = network.nodes[1].submit(good).await.unwrap();
        let waiting = network.nodes[1].wait_final(txid);
        tokio::time::timeout(PATIENCE, waiting).await.expect("final in time").unwrap();
        network.stop().await;
    });
}
