//! Seven daemons of the real binary, founded with its own commands, killed and started again.
//!
//! Payments come from a node of this process that only observes: it joins the network as any other and
//! hands on what is submitted to it.

use crate::program::{PATIENCE, daemon, found, free_ports, status, succeeds, until};
use masternode::config::{BootstrapPeer, Config};
use masternode::ledger::genesis::Genesis;
use masternode::node::handle::NodeHandle;
use masternode::node::start::{NodeOptions, start};
use masternode::primitives::address::Address;
use masternode::primitives::amount::Amount;
use masternode::primitives::chain::NetworkKind;
use masternode::primitives::keys::SecretKey;
use masternode::primitives::transaction::{OutPoint, TxOutput};
use masternode::wallet::builder::{Coin, Payment, build_from_all};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

const NODES: usize = 7;
const NAMES: [&str; NODES] = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf"];
/// Coins for payments, one each.
const COINS: usize = 64;

/// The daemons; whatever happens, none outlives the test.
struct Daemons {
    root: tempfile::TempDir,
    ports: Vec<u16>,
    running: Vec<Option<Child>>,
}

impl Drop for Daemons {
    fn drop(&mut self) {
        for child in self.running.iter_mut().flatten() {
            let _already_gone = child.kill();
            let _already_gone = child.wait();
        }
    }
}

impl Daemons {
    fn found(payer: &SecretKey) -> Self {
        let root = tempfile::tempdir().unwrap();
        let ports = free_ports(NODES);
        let address = Address { network: NetworkKind::Devnet, key_hash: payer.public().key_hash() };
        found(root.path(), &NAMES, &ports, &vec![format!("{address}=10"); COINS], 1000);
        Self { root, ports, running: (0..NODES).map(|_| None).collect() }
    }

    fn dir(&self, index: usize) -> PathBuf {
        self.root.path().join(NAMES[index])
    }

    fn text(&self, index: usize) -> String {
        self.dir(index).to_str().unwrap().to_owned()
    }

    fn others(&self, index: usize) -> Vec<BootstrapPeer> {
        let peer = |port: &u16| BootstrapPeer { key: None, host: "127.0.0.1".to_owned(), port: *port };
        self.ports
            .iter()
            .filter(|port| **port != self.ports.get(index).copied().unwrap_or(0))
            .map(peer)
            .collect()
    }

    fn start(&mut self, index: usize) {
        self.running[index] = Some(daemon(&self.dir(index)).spawn().unwrap());
    }

    /// `kill -9`.
    fn kill(&mut self, index: usize) {
        let mut child = self.running[index].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn status(&self, index: usize) -> Option<Value> {
        status(&self.dir(index))
    }

    #[track_caller]
    fn until_state(&self, index: usize, state: &str) -> Value {
        until(&format!("{} is {state}", NAMES[index]), || {
            self.status(index).filter(|status| status["state"]["state"] == state)
        })
    }

    fn height(&self, index: usize) -> u64 {
        self.status(index).map_or(0, |status| status["chain"]["height"].as_u64().unwrap())
    }

    fn finals(&self, index: usize) -> u64 {
        self.status(index).map_or(0, |status| status["finality"]["total"].as_u64().unwrap())
    }
}

/// A node of this process that holds no vote key.
struct Observer {
    runtime: tokio::runtime::Runtime,
    node: NodeHandle,
    genesis: Genesis,
    payer: SecretKey,
    coins: Vec<(OutPoint, Amount)>,
}

impl Observer {
    fn join(daemons: &Daemons, payer: SecretKey) -> Self {
        let text = std::fs::read_to_string(daemons.root.path().join("genesis.toml")).unwrap();
        let genesis = Genesis::parse(&text, "genesis.toml").unwrap();
        let mut config = Config::defaults(NetworkKind::Devnet);
        config.name = "observer".to_owned();
        config.data_dir = daemons.root.path().join("observer");
        config.p2p.listen = "127.0.0.1:0".parse().unwrap();
        config.p2p.bootstrap = daemons.others(NODES);
        config.consensus.era_ms = 1000;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let network_key = SecretKey::from_seed(&[77; 32]);
        let options = NodeOptions { config, genesis: genesis.clone(), network_key, vote_key: None };
        let node = runtime.block_on(start(options)).unwrap();
        // A transaction is relayed when it is accepted, to whoever is connected then.
        until("the observer is connected to every daemon", || {
            let peers = &node.snapshot().peers;
            (peers.inbound + peers.outbound >= NODES as u64).then_some(())
        });
        let unspent = node.ledger().unspent_of(&payer.public().key_hash(), COINS);
        let coins = unspent.into_iter().map(|(outpoint, utxo)| (outpoint, utxo.value)).collect();
        Self { runtime, node, genesis, payer, coins }
    }

    /// Submits a payment; whether it is final here within `patience`.
    fn pays(&mut self, patience: Duration) -> bool {
        let (outpoint, value) = self.coins.pop().expect("enough coins");
        let output =
            TxOutput { value: Amount::from_time(1).unwrap(), key_hash: self.payer.public().key_hash() };
        let payment = Payment {
            outputs: vec![output],
            change_to: self.payer.public().key_hash(),
            expiry: self.node.ledger().tip().header.height + 90,
            fee_per_byte: 2,
        };
        let coin = Coin { outpoint, value, key: &self.payer };
        let chain = self.genesis.chain_id();
        let built = build_from_all(chain, &self.genesis.params, &[coin], &payment).unwrap();
        self.runtime.block_on(async {
            let txid = self.node.submit(built.transaction).await.unwrap();
            match tokio::time::timeout(patience, self.node.wait_final(txid)).await {
                Ok(outcome) => outcome.map(|()| true).unwrap(),
                Err(_) => false,
            }
        })
    }
}

fn missing(status: &Value) -> Vec<String> {
    let names = status["state"]["missing"].as_array().unwrap();
    names.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

#[test]
fn seven_daemons_survive_the_loss_of_two_stop_at_three_and_go_on_by_themselves() {
    let payer = SecretKey::from_seed(&[42; 32]);
    let mut daemons = Daemons::found(&payer);
    (0..NODES).for_each(|index| daemons.start(index));
    for index in 0..NODES {
        daemons.until_state(index, "signing");
    }
    let mut observer = Observer::join(&daemons, payer);
    assert!(observer.pays(PATIENCE), "seven of seven finalise");

    // Any two die: the rest keep finalising and deciding.
    daemons.kill(1);
    daemons.kill(5);
    assert!(observer.pays(PATIENCE), "five of seven finalise");
    let height = daemons.height(0);
    until("five of seven decide", || (daemons.height(0) > height + 1).then_some(()));

    // They come back, catch up and vote again.
    daemons.start(1);
    daemons.start(5);
    let height = daemons.height(0);
    for index in [1, 5] {
        daemons.until_state(index, "signing");
        until("it has caught up", || (daemons.height(index) >= height).then_some(()));
        until("its votes are sent", || {
            assert!(observer.pays(PATIENCE));
            let status = daemons.status(index)?;
            (status["consensus"]["votes_sent"].as_u64()? > 0).then_some(())
        });
    }

    // Three die: nothing finalises, and every survivor says why.
    for index in [0, 2, 4] {
        daemons.kill(index);
    }
    for index in [1, 3, 5, 6] {
        let status = daemons.until_state(index, "waiting-for-quorum");
        assert_eq!(status["state"]["connected_weight"].as_u64(), Some(4));
        let mut names = missing(&status);
        names.sort();
        assert_eq!(names, ["alpha", "charlie", "echo"]);
        let shown = succeeds(&["status", "--plain", "--data-dir", &daemons.text(index)]);
        assert!(shown.contains("WAITING FOR QUORUM 4/5"), "{shown}");
    }
    let (finals, height) = (daemons.finals(3), daemons.height(3));
    assert!(!observer.pays(Duration::from_secs(5)), "four of seven finalise nothing");
    assert_eq!((daemons.finals(3), daemons.height(3)), (finals, height));

    // One comes back: the network goes on by itself, with the payment that waited.
    daemons.start(2);
    until("the payment that waited is final", || (daemons.finals(3) > finals).then_some(()));
    until("five of seven decide again", || (daemons.height(3) > height).then_some(()));
    assert!(observer.pays(PATIENCE), "five of seven finalise again");

    // Stopped in order, each exits with 0.
    for index in [1, 2, 3, 5, 6] {
        succeeds(&["stop", "--data-dir", &daemons.text(index)]);
        let exit =
            until("the daemon is gone", || daemons.running[index].as_mut().unwrap().try_wait().unwrap());
        assert_eq!(exit.code(), Some(0), "{}", NAMES[index]);
    }
    observer.node.stop("the test is over");
    let exit = observer.runtime.block_on(observer.node.stopped());
    assert_eq!(exit.code, 0, "{}", exit.reason);
}
