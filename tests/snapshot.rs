//! A ledger of many outputs, taken as a snapshot over real sockets on loopback, and how long it takes.
//!
//! `MASTERNODE_SNAPSHOT_OUTPUTS=1000000 cargo test --release --test snapshot -- --nocapture` prints the figures
//! of docs/performance.md; without the variable it is a small one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

use masternode::ledger::genesis::{Founder, Genesis};
use masternode::ledger::set_hash::SetHash;
use masternode::ledger::snapshot::registry_bytes;
use masternode::ledger::store::{Store, StoreOptions};
use masternode::network::router::Recipients;
use masternode::network::{Bootstrap, Identity, Network, NetworkEvent, NetworkOptions};
use masternode::node::snapshots::fetch::{Fetch, Target};
use masternode::node::snapshots::maker::{Due, make};
use masternode::node::snapshots::peers::{Peers, Wire};
use masternode::node::snapshots::plan::Patience;
use masternode::node::snapshots::shelf::{Shelf, ShelfLimits};
use masternode::node::snapshots::swap::swap_in;
use masternode::node::snapshots::trail::{Anchor, Trail};
use masternode::primitives::amount::Amount;
use masternode::primitives::block::Header;
use masternode::primitives::certificate::Qc;
use masternode::primitives::chain::NetworkKind;
use masternode::primitives::hash::{Domain, KeyHash, Txid, era_tag, hash};
use masternode::primitives::keys::SecretKey;
use masternode::primitives::message::Message;
use masternode::primitives::params::Params;
use masternode::primitives::tier::Tier;
use masternode::primitives::transaction::{OutPoint, Utxo};
use masternode::primitives::trusted::TrustedHeader;
use masternode::primitives::vote::{Step, vote_digest};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Nodes that keep the snapshot.
const SERVERS: u8 = 2;

fn outputs_wanted() -> u64 {
    std::env::var("MASTERNODE_SNAPSHOT_OUTPUTS").map_or(20_000, |text| text.parse().expect("a number"))
}

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn genesis() -> Genesis {
    let founder = |seed: u8| {
        let hash = key(seed).public().key_hash();
        let (name, vote_key) = (format!("node-{seed}"), key(seed).public());
        Founder { name, vote_key, tier: Tier::Bronze, owner: hash, payout: hash }
    };
    Genesis {
        network: NetworkKind::Devnet,
        name: "snapshot".to_owned(),
        time_ms: 1_000_000,
        params: Params::of(NetworkKind::Devnet),
        masternodes: (1..=4).map(founder).collect(),
        allocations: Vec::new(),
    }
}

/// So many outputs, ascending.
fn outputs(count: u64) -> Vec<(OutPoint, Utxo)> {
    let output = |number: u64| {
        let txid = Txid(hash(Domain::TXID, &[&number.to_le_bytes()]));
        let value = Amount::from_units(1_000 + number).unwrap();
        (OutPoint { txid, index: 0 }, Utxo { value, key_hash: KeyHash(txid.0), height: 1 })
    };
    let mut outputs: Vec<_> = (0..count).map(output).collect();
    outputs.sort_by_key(|(outpoint, _)| *outpoint);
    outputs
}

/// A header of a state with these outputs, and a certificate of all masternodes for it.
fn decided(genesis: &Genesis, outputs: &[(OutPoint, Utxo)]) -> (Header, Qc) {
    let mut sum = SetHash::new();
    outputs.iter().for_each(|(outpoint, utxo)| sum.add(outpoint, utxo));
    let state = genesis.state();
    let header = Header {
        height: 1000,
        previous: state.block,
        utxo_hash: sum.digest(),
        utxo_count: outputs.len() as u64,
        supply: Amount::checked_sum(outputs.iter().map(|(_, utxo)| utxo.value)).unwrap(),
        ..state.header
    };
    let tag = era_tag(genesis.chain_id(), header.height, header.previous);
    let digest = vote_digest(tag, 0, Step::Precommit, Some(header.id()));
    let members = state.committee.indices().zip(state.committee.members());
    let votes = members.map(|(voter, member)| {
        let signer = (1..=4).map(key).find(|key| key.public() == member.vote_key).unwrap();
        (voter, signer.sign(&digest))
    });
    let qc = Qc::new(0, Step::Precommit, header.id(), votes.collect());
    (header, qc)
}

async fn network(
    seed: u8,
    genesis: &Genesis,
    dial: &[SocketAddr],
) -> (Network, mpsc::Receiver<NetworkEvent>) {
    let mut options = NetworkOptions::new("127.0.0.1:0".parse().unwrap());
    options.bootstrap =
        dial.iter().map(|address| Bootstrap { key: None, address: address.to_string() }).collect();
    let identity = Identity {
        network_key: key(seed),
        vote_key: None,
        chain: genesis.chain_id(),
        name: format!("node-{seed}"),
        agent: "test/1".to_owned(),
    };
    let (events, received) = mpsc::channel(1024);
    let network = Network::start(options, identity, Arc::new(AtomicU64::new(1000)), events).await.unwrap();
    (network, received)
}

/// A node that does nothing but answer from its shelf.
async fn serve(seed: u8, genesis: &Genesis, shelf: Arc<Shelf>) -> SocketAddr {
    let (network, mut received) = network(seed, genesis, &[]).await;
    let address = network.local_address();
    tokio::spawn(async move {
        while let Some(event) = received.recv().await {
            let NetworkEvent::Message { peer, message } = event else { continue };
            let answer = match message {
                Message::GetSnapshots => Message::Snapshots(shelf.offers()),
                Message::GetSnapshotManifest { manifest, page } => {
                    let bytes = shelf.find(manifest).unwrap().page(page).unwrap().unwrap();
                    Message::SnapshotManifest { manifest, page, bytes }
                }
                Message::GetSnapshotPart { manifest, part } => {
                    let bytes = shelf.find(manifest).unwrap().part(part).unwrap().unwrap();
                    Message::SnapshotPart { manifest, part, bytes }
                }
                _ => continue,
            };
            network.send(Recipients::Peer(peer), &answer);
        }
    });
    address
}

fn shelf(folder: &Path, genesis: &Genesis, count: u64) -> (Arc<Shelf>, Header) {
    let shelf = Shelf::open(folder.to_owned(), ShelfLimits { kept: 1, bytes_max: 1 << 40 }).unwrap();
    let outputs = outputs(count);
    let (header, commit) = decided(genesis, &outputs);
    let state = genesis.state();
    let due = Due {
        header: header.clone(),
        commit,
        committee: state.committee,
        registry: registry_bytes(&state.registry),
        outputs: Box::new(outputs.into_iter().map(Ok)),
    };
    let begun = Instant::now();
    let offer = make(&shelf, due, &|| false).unwrap();
    println!(
        "made a snapshot of {count} outputs, {} MB, in {:.2?}",
        offer.bytes / 1_000_000,
        begun.elapsed()
    );
    (Arc::new(shelf), header)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_comes_over_real_sockets_from_two_peers_and_loads() {
    let (dir, genesis, count) = (tempfile::tempdir().unwrap(), genesis(), outputs_wanted());
    let (shelf, header) = shelf(&dir.path().join("shelf"), &genesis, count);
    let mut servers = Vec::new();
    for seed in 0..SERVERS {
        servers.push(serve(100 + seed, &genesis, Arc::clone(&shelf)).await);
    }
    let begun = Instant::now();
    let (network, received) = network(99, &genesis, &servers).await;
    let wire: Arc<dyn Wire> = Arc::new(network);
    let mut peers = Peers::new(wire, received, CancellationToken::new());
    let chain = genesis.chain_id();
    let trusted = TrustedHeader { height: header.height, id: header.id() };
    let fetch = Fetch {
        peers: &mut peers,
        trail: Trail::new(chain, u64::MAX, Anchor::Block(trusted), Patience::NORMAL),
        target: Target {
            chain,
            params: genesis.params.clone(),
            folder: dir.path().join("incoming"),
            options: StoreOptions { cache_bytes: 256 << 20 },
            patience: Patience::NORMAL,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
        },
        progress: &|_| {},
    };
    let filled = fetch.run().await.unwrap();
    let fetched = begun.elapsed();
    let database = dir.path().join("db");
    swap_in(&filled.folder, &database).unwrap();
    let store = Store::open(&database, &genesis, StoreOptions { cache_bytes: 128 << 20 }).unwrap();
    let opened = begun.elapsed();
    let ledger = store.load().unwrap();
    assert_eq!((ledger.tip().header.clone(), store.first_block().unwrap()), (header, 1001));
    println!(
        "{count} outputs by snapshot: fetched, checked and stored after {fetched:.2?}, opened after {opened:.2?}, \
         counted and ready after {:.2?}",
        begun.elapsed()
    );
}
