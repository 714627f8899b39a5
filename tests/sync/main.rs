//! How fast a new node catches up: a chain of blocks full of payments, three nodes that have it, and one
//! that has not. Real sockets, real databases, all in this process.
//!
//! ```text
//! cargo test --release --test sync -- --nocapture
//! MASTERNODE_SYNC_BLOCKS=100 MASTERNODE_SYNC_PAYMENTS=5000 cargo test --release --test sync -- --nocapture
//! ```
//!
//! As the program on a mainnet: its allocator, its cache (`MASTERNODE_SYNC_CACHE` in MiB, 128). An output is spent
//! `MASTERNODE_SYNC_AGE` blocks after it was made (1).
//! Arrival at the right block is asserted, figures are printed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use masternode::config::{BootstrapPeer, Config};
use masternode::consensus::host::Host as _;
use masternode::ledger::Ledger;
use masternode::ledger::genesis::{Allocation, Founder, Genesis};
use masternode::ledger::store::{Store, StoreOptions};
use masternode::node::handle::NodeHandle;
use masternode::node::host::ChainHost;
use masternode::node::start::{NodeOptions, start};
use masternode::pool::{Pool, PoolLimits};
use masternode::primitives::amount::Amount;
use masternode::primitives::certificate::Qc;
use masternode::primitives::chain::NetworkKind;
use masternode::primitives::hash::{BlockId, era_tag};
use masternode::primitives::keys::{SecretKey, Signature};
use masternode::primitives::params::Params;
use masternode::primitives::tier::Tier;
use masternode::primitives::transaction::{
    OutPoint, SealedTransaction, SharedTransaction, TRANSACTION_VERSION, Transaction, TransactionKind,
    TxInput, TxOutput, Utxo,
};
use masternode::primitives::vote::{Step, vote_digest};
use masternode::telemetry::event::EventKind;
use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// As the program has.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Nodes that have the chain.
const SERVERS: usize = 3;
/// Far above what anything here needs.
const PATIENCE: Duration = Duration::from_secs(600);

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

fn key(kind: u8, number: usize) -> SecretKey {
    let mut seed = [kind; 32];
    seed[0] = u8::try_from(number).unwrap();
    SecretKey::from_seed(&seed)
}

fn payer() -> SecretKey {
    key(9, 0)
}

fn genesis(blocks: usize, coins: usize) -> Genesis {
    let founder = |number: usize| Founder {
        name: format!("node{number}"),
        vote_key: key(1, number).public(),
        tier: Tier::Bronze,
        owner: key(3, number).public().key_hash(),
        payout: key(3, number).public().key_hash(),
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let coin = Allocation { key_hash: payer().public().key_hash(), amount: Amount::from_time(10).unwrap() };
    Genesis {
        network: NetworkKind::Devnet,
        name: "sync".to_owned(),
        time_ms: u64::try_from(now.as_millis()).unwrap() - 1000 * (blocks as u64 + 2),
        params: Params::of(NetworkKind::Devnet),
        masternodes: (0..4).map(founder).collect(),
        allocations: vec![coin; coins],
    }
}

/// Pays a little from a coin to somebody and the rest back.
fn payment(genesis: &Genesis, outpoint: OutPoint, coin: &Utxo, expiry: u64) -> SharedTransaction {
    let owner = payer();
    let paid = Amount::from_units(10_000).unwrap();
    let rest = Amount::from_units(coin.value.units() - 12_000).unwrap();
    let mut payment = Transaction {
        version: TRANSACTION_VERSION,
        kind: TransactionKind::Payment,
        expiry,
        inputs: vec![TxInput { outpoint, public_key: owner.public(), signature: Signature([0; 64]) }],
        outputs: vec![
            TxOutput { value: rest, key_hash: owner.public().key_hash() },
            TxOutput { value: paid, key_hash: key(8, 1).public().key_hash() },
        ],
        payload: Vec::new(),
    };
    payment.sign(genesis.chain_id(), &owner);
    SealedTransaction::new(payment)
}

/// Makes a chain of full blocks in the database of `dir`; its last block.
fn make_chain(genesis: &Genesis, dir: &Path, blocks: usize, payments: usize) -> BlockId {
    std::fs::create_dir_all(dir).unwrap();
    let store = Store::open(&dir.join("db"), genesis, StoreOptions::default()).unwrap();
    let pool = Arc::new(Pool::new(PoolLimits::default()));
    let (mut host, writes) = ChainHost::with_writes(Arc::new(Ledger::in_memory(genesis)), pool);
    let own = payer().public().key_hash();
    let coins: Vec<(OutPoint, Utxo)> =
        genesis.utxos().into_iter().filter(|(_, utxo)| utxo.key_hash == own).collect();
    let mut waiting: VecDeque<Vec<(OutPoint, Utxo)>> = coins.chunks(payments).map(<[_]>::to_vec).collect();
    for _ in 0..blocks {
        let coins = waiting.pop_front().unwrap();
        let tip = host.tip();
        let height = tip.height + 1;
        let paid: Vec<SharedTransaction> =
            coins.iter().map(|(outpoint, coin)| payment(genesis, *outpoint, coin, height + 10)).collect();
        let proposer = tip.next_committee.members()[0].id;
        let block = host.build(proposer, tip.time_ms + 1000, tip.commit, paid.clone()).unwrap();
        let tag = era_tag(genesis.chain_id(), height, tip.block);
        let digest = vote_digest(tag, 0, Step::Precommit, Some(block.id()));
        let votes: BTreeMap<u16, Signature> = (0..4)
            .map(|number| key(1, number))
            .map(|key| (tip.next_committee.index_of(&key.public()).unwrap(), key.sign(&digest)))
            .collect();
        let qc = Qc::new(0, Step::Precommit, block.id(), votes.into_iter().collect());
        host.commit(&Arc::new(block), &qc).unwrap();
        store.commit(&writes.pop().unwrap()).unwrap();
        let change = paid.iter().map(|payment| OutPoint { txid: payment.id(), index: 0 });
        waiting.push_back(change.map(|outpoint| (outpoint, host.utxo(&outpoint).unwrap())).collect());
    }
    host.tip().block
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => {
                std::fs::copy(entry.path(), target).unwrap();
            }
        }
    }
}

async fn node(genesis: &Genesis, root: &Path, number: usize, addresses: &[SocketAddr]) -> NodeHandle {
    let mut config = Config::defaults(NetworkKind::Devnet);
    config.name = format!("node{number}");
    config.data_dir = root.join(format!("n{number}"));
    config.p2p.listen = addresses[number];
    config.storage.cache_bytes = (setting("MASTERNODE_SYNC_CACHE", 128) as u64) << 20;
    let others = addresses.iter().filter(|address| **address != addresses[number]);
    config.p2p.bootstrap = others
        .map(|address| BootstrapPeer { key: None, host: "127.0.0.1".to_owned(), port: address.port() })
        .collect();
    let options =
        NodeOptions { config, genesis: genesis.clone(), network_key: key(2, number), vote_key: None };
    start(options).await.unwrap()
}

/// Processor time of this process so far, in seconds.
fn processor_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_node_catches_up_from_three_others() {
    let blocks = setting("MASTERNODE_SYNC_BLOCKS", 12);
    let payments = setting("MASTERNODE_SYNC_PAYMENTS", 100);
    if std::env::var_os("MASTERNODE_SYNC_LOG").is_some() {
        tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    }
    let genesis = genesis(blocks, payments * setting("MASTERNODE_SYNC_AGE", 1));
    let root = tempfile::tempdir().unwrap();
    let (of_chain, dir) = (genesis.clone(), root.path().join("n0"));
    let last =
        tokio::task::spawn_blocking(move || make_chain(&of_chain, &dir, blocks, payments)).await.unwrap();
    for number in 1..SERVERS {
        copy_folder(&root.path().join("n0"), &root.path().join(format!("n{number}")));
    }
    // Held together, so that all are different; free again before the nodes listen.
    let sockets: Vec<_> = (0..=SERVERS).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let addresses: Vec<_> = sockets.iter().map(|socket| socket.local_addr().unwrap()).collect();
    drop(sockets);
    let mut servers = Vec::new();
    for number in 0..SERVERS {
        servers.push(node(&genesis, root.path(), number, &addresses).await);
    }
    let (begun, used) = (Instant::now(), processor_s());
    let new = node(&genesis, root.path(), SERVERS, &addresses).await;
    let mut events = new.subscribe();
    let mut told = Vec::new();
    let arriving = async {
        while new.ledger().tip().header.height < blocks as u64 {
            if let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(20), events.next()).await {
                match &event.kind {
                    EventKind::Sync(sync) => println!("{sync:?}"),
                    EventKind::Alert { text, .. } => told.push(text.to_string()),
                    EventKind::PeerDisconnected { peer, reason, .. } => {
                        panic!("{peer} was disconnected: {reason}")
                    }
                    _ => {}
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, arriving).await.unwrap();
    let (applied, processor) = (begun.elapsed().as_secs_f64(), processor_s() - used);
    while new.snapshot().chain.store_lag > 0 || new.snapshot().chain.height < blocks as u64 {
        tokio::time::timeout(PATIENCE, events.next()).await.unwrap();
    }
    let stored = begun.elapsed().as_secs_f64();
    assert_eq!(new.ledger().tip().block, last);
    new.ledger().recount().unwrap();
    let blamed: Vec<&String> = told.iter().filter(|text| text.starts_with("peer ")).collect();
    assert!(blamed.is_empty(), "honest peers are named: {blamed:?}");
    // Nobody was slowed down, charged or banned for it at either end.
    for node in servers.iter().chain([&new]) {
        let peers = node.snapshot().peers.clone();
        assert_eq!((peers.throttled, peers.offences, peers.bans), (0, 0, 0), "{}", node.snapshot().node.name);
    }
    let total = blocks * payments;
    println!(
        "{blocks} blocks, {total} payments: applied in {applied:.2} s ({:.0} a second), on disk in {stored:.2} s ({:.0} a \
         second), {processor:.2} s of processor time in all four nodes",
        total as f64 / applied,
        total as f64 / stored,
    );
    for node in servers.iter().chain([&new]) {
        node.stop("done");
        assert_eq!(node.stopped().await.code, 0);
    }
}
