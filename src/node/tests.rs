//! Nodes as wholes: real sockets, real stores and journals, several in one process.

mod evidence;
mod masternodes;
mod relay;
pub(super) mod servers;
mod snapshots;
mod sync;
mod trust;

use crate::config::{BootstrapPeer, Config};
use crate::consensus::output::Record;
use crate::ledger::genesis::{Allocation, Founder, Genesis};
use crate::node::clock;
use crate::node::handle::{NodeHandle, SubmitError};
use crate::node::instance::{Instance, Since};
use crate::node::journal::Journal;
use crate::node::start::{NodeError, NodeOptions, start};
use crate::primitives::amount::{Amount, UNITS_PER_TIME};
use crate::primitives::chain::NetworkKind;
use crate::primitives::hash::{BlockId, EraTag, Hash, Txid};
use crate::primitives::keys::{SecretKey, Signature};
use crate::primitives::params::Params;
use crate::primitives::rejection::Rejection;
use crate::primitives::tier::Tier;
use crate::primitives::transaction::{Transaction, TxOutput, TxStatus};
use crate::primitives::vote::{Step, Vote};
use crate::telemetry::cause::{MissCause, StallReason};
use crate::telemetry::event::EventKind;
use crate::telemetry::snapshot::{MissInfo, NodeState, SignMark, Snapshot};
use crate::wallet::builder::{Coin, Payment, build};
use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A founded network of which some nodes run.
struct Cluster {
    root: tempfile::TempDir,
    genesis: Genesis,
    addresses: Vec<SocketAddr>,
    running: Vec<Option<NodeHandle>>,
}

pub(super) fn key(kind: u8, number: usize) -> SecretKey {
    let mut seed = [kind; 32];
    seed[0] = u8::try_from(number).unwrap();
    SecretKey::from_seed(&seed)
}

/// Owns the only allocations.
fn payer() -> SecretKey {
    key(9, 0)
}

pub(super) fn genesis(nodes: usize) -> Genesis {
    let founders = (0..nodes).map(|number| Founder {
        name: format!("node{}", number + 1),
        vote_key: key(1, number).public(),
        tier: Tier::Bronze,
        owner: key(3, number).public().key_hash(),
        payout: key(3, number).public().key_hash(),
    });
    let coin = Allocation {
        key_hash: payer().public().key_hash(),
        amount: Amount::from_units(10 * UNITS_PER_TIME).unwrap(),
    };
    let genesis = Genesis {
        network: NetworkKind::Devnet,
        name: "test".to_owned(),
        // Within the trust period: whoever joins late needs no trusted block.
        time_ms: clock::wall_ms() - 1000,
        params: Params::of(NetworkKind::Devnet),
        masternodes: founders.collect(),
        allocations: vec![coin; 64],
    };
    genesis.check().unwrap();
    genesis
}

impl Cluster {
    fn new(nodes: usize) -> Self {
        // Shown when a test fails; whichever test comes first installs it for all.
        let _ = tracing_subscriber::fmt().with_test_writer().try_init();
        // Held together, so that all are different; free again before the nodes listen.
        let sockets: Vec<_> = (0..nodes).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let addresses = sockets.iter().map(|socket| socket.local_addr().unwrap()).collect();
        let root = tempfile::tempdir().unwrap();
        Self { root, genesis: genesis(nodes), addresses, running: vec![None; nodes] }
    }

    fn options(&self, number: usize) -> NodeOptions {
        let mut config = Config::defaults(NetworkKind::Devnet);
        config.name = format!("node{}", number + 1);
        config.data_dir = self.root.path().join(format!("n{}", number + 1));
        config.p2p.listen = self.addresses[number];
        config.p2p.bootstrap = self
            .addresses
            .iter()
            .filter(|address| **address != self.addresses[number])
            .map(|address| BootstrapPeer { key: None, host: "127.0.0.1".to_owned(), port: address.port() })
            .collect();
        config.storage.cache_bytes = 8 << 20;
        config.consensus.era_ms = 600;
        NodeOptions {
            config,
            genesis: self.genesis.clone(),
            network_key: key(2, number),
            vote_key: Some(key(1, number)),
        }
    }

    async fn start(&mut self, number: usize) -> NodeHandle {
        // While the node was down its port may have gone to a socket of another test for a moment.
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        let handle = loop {
            match start(self.options(number)).await {
                Ok(handle) => break handle,
                Err(error)
                    if tokio::time::Instant::now() < deadline
                        && format!("{error:?}").contains("AddrInUse") =>
                {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => panic!("{error:?}"),
            }
        };
        self.running[number] = Some(handle.clone());
        handle
    }

    async fn stop(&mut self, number: usize) {
        let handle = self.running[number].take().unwrap();
        handle.stop("the test says so");
        let exit = handle.stopped().await;
        assert_eq!((exit.code, exit.reason.as_str()), (0, "the test says so"));
    }

    async fn stop_all(&mut self) {
        for number in 0..self.running.len() {
            if self.running[number].is_some() {
                self.stop(number).await;
            }
        }
    }

    /// A payment of the coin of this number to somebody.
    fn payment(&self, coin: usize) -> Transaction {
        payment(&self.genesis, coin)
    }
}

/// A payment of the coin of this number to somebody.
pub(super) fn payment(genesis: &Genesis, coin: usize) -> Transaction {
    let owner = payer();
    let of_owner = genesis.utxos().into_iter().filter(|(_, utxo)| utxo.key_hash == owner.public().key_hash());
    let mut coins: Vec<_> = of_owner.collect();
    coins.sort_by_key(|(outpoint, _)| *outpoint);
    let (outpoint, utxo) = coins[coin];
    let coin = Coin { outpoint, value: utxo.value, key: &owner };
    let payment = Payment {
        outputs: vec![TxOutput {
            value: Amount::from_units(UNITS_PER_TIME).unwrap(),
            key_hash: key(8, 1).public().key_hash(),
        }],
        change_to: owner.public().key_hash(),
        expiry: 90,
        fee_per_byte: 2,
    };
    build(genesis.chain_id(), &genesis.params, &[coin], &payment).unwrap().transaction
}

const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something is true of a node, looking again at each of its events.
async fn until(node: &NodeHandle, what: &str, condition: impl Fn(&NodeHandle) -> bool) {
    let mut events = node.subscribe();
    let looking = async {
        while !condition(node) {
            // Nodes publish many events a second while they run; the period covers those that do not.
            let _ = tokio::time::timeout(Duration::from_millis(100), events.next()).await;
        }
    };
    if tokio::time::timeout(PATIENCE, looking).await.is_err() {
        panic!("not in {PATIENCE:?}: {what}; {:?}", node.snapshot().state);
    }
}

fn height(node: &NodeHandle) -> u64 {
    node.ledger().tip().header.height
}

fn is_signing(node: &NodeHandle) -> bool {
    matches!(node.snapshot().state, NodeState::Signing)
}

async fn finalised(submitted_at: &NodeHandle, at: &[&NodeHandle], payment: Transaction) -> Txid {
    let txid = submitted_at.submit(payment).await.unwrap();
    for node in at {
        tokio::time::timeout(PATIENCE, node.wait_final(txid)).await.unwrap().unwrap();
    }
    txid
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_nodes_finalise_a_payment_and_agree_on_the_blocks() {
    let mut cluster = Cluster::new(4);
    let mut nodes = Vec::new();
    for number in 0..4 {
        nodes.push(cluster.start(number).await);
    }
    for node in &nodes {
        until(node, "signing", is_signing).await;
    }
    let all: Vec<&NodeHandle> = nodes.iter().collect();
    let txid = finalised(&nodes[0], &all, cluster.payment(0)).await;
    for node in &nodes {
        until(node, "in a block", |node| {
            node.tx_status(&txid).is_some_and(|state| state.status == TxStatus::Confirmed)
        })
        .await;
        node.ledger().recount().unwrap();
    }
    let reached = nodes.iter().map(height).max().unwrap();
    for node in &nodes {
        until(node, "the same height", |node| height(node) >= reached + 2).await;
    }
    cluster.stop_all().await;
    let stored: Vec<_> = nodes.iter().map(height).collect();
    let least = *stored.iter().min().unwrap();
    assert!(least >= 2, "{stored:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_of_four_go_on_and_the_fourth_catches_up_when_it_is_back() {
    let mut cluster = Cluster::new(4);
    for number in 0..4 {
        cluster.start(number).await;
    }
    let first = cluster.running[0].clone().unwrap();
    until(&first, "two blocks", |node| height(node) >= 2).await;
    cluster.stop(3).await;
    let left_at = height(&first);
    let txid = finalised(&first, &[&first], cluster.payment(1)).await;
    until(&first, "three more blocks", |node| height(node) >= left_at + 3).await;
    let back = cluster.start(3).await;
    until(&back, "signing again", |node| is_signing(node) && height(node) >= left_at + 3).await;
    until(&back, "the payment it missed", |node| node.tx_status(&txid).is_some()).await;
    let payment = finalised(&back, &[&back, &first], cluster.payment(2)).await;
    until(&back, "in a block", |node| {
        node.tx_status(&payment).is_some_and(|state| state.status == TxStatus::Confirmed)
    })
    .await;
    back.ledger().recount().unwrap();
    cluster.stop_all().await;
}

/// What `node` tells from now on, until it has told of a missed vote and of a stalled round that
/// both concern `name`, with the causes.
async fn blamed(node: &NodeHandle, name: &str) -> (MissCause, StallReason) {
    let mut events = node.subscribe();
    let (mut miss, mut stall) = (None, None);
    let listening = async move {
        while miss.is_none() || stall.is_none() {
            let event = events.next().await.unwrap();
            match &event.kind {
                EventKind::VotesMissed { missed, .. } => {
                    let of_it = missed.iter().find(|missed| missed.name.as_str() == name);
                    // What it missed while it was leaving has other causes.
                    let gone = of_it.filter(|missed| matches!(missed.cause, MissCause::NotConnected { .. }));
                    miss = miss.take().or(gone.map(|missed| missed.cause.clone()));
                }
                EventKind::RoundStalled(told) => match &told.reason {
                    StallReason::NoProposal { proposer, .. } if proposer.as_str() == name => {
                        assert_eq!(told.missing.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), [name]);
                        assert_eq!(told.step.as_str(), "propose");
                        stall = Some(told.reason.clone());
                    }
                    _ => {}
                },
                _ => {}
            }
        }
        (miss.unwrap(), stall.unwrap())
    };
    tokio::time::timeout(PATIENCE, listening).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stopped_is_named_as_not_connected_for_its_votes_and_for_its_turns() {
    let mut cluster = Cluster::new(4);
    for number in 0..4 {
        cluster.start(number).await;
    }
    let left: Vec<NodeHandle> = cluster.running.iter().take(3).flatten().cloned().collect();
    for node in &left {
        until(node, "two blocks", |node| height(node) >= 2).await;
    }
    cluster.stop(3).await;
    for node in &left {
        until(node, "the loss of the connection", |node| {
            node.snapshot().members.iter().any(|member| member.name.as_str() == "node4" && !member.connected)
        })
        .await;
    }
    let (first, second, third) =
        tokio::join!(blamed(&left[0], "node4"), blamed(&left[1], "node4"), blamed(&left[2], "node4"));
    for (miss, stall) in [first, second, third] {
        assert!(matches!(miss, MissCause::NotConnected { .. }), "{miss:?}");
        let StallReason::NoProposal { why, .. } = &stall else { panic!("{stall:?}") };
        assert!(matches!(why, MissCause::NotConnected { .. }), "{why:?}");
    }
    for node in &left {
        let told = |snapshot: &Snapshot| {
            let member =
                snapshot.members.iter().find(|member| member.name.as_str() == "node4").unwrap().clone();
            let counted =
                member.misses.iter().any(|(code, count)| code.as_str() == "not-connected" && *count > 0);
            counted
                && matches!(member.last_miss, Some(MissInfo { cause: MissCause::NotConnected { .. }, .. }))
        };
        until(node, "the cause in the snapshot", |node| told(&node.snapshot())).await;
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_four_wait_for_a_quorum_and_go_on_by_themselves_with_a_third() {
    let mut cluster = Cluster::new(4);
    let first = cluster.start(0).await;
    let second = cluster.start(1).await;
    for node in [&first, &second] {
        until(node, "waiting for two", |node| {
            let snapshot = node.snapshot();
            let NodeState::WaitingForQuorum { connected_weight: 2, missing, .. } = &snapshot.state else {
                return false;
            };
            missing.iter().map(|name| name.as_str()).collect::<Vec<_>>() == ["node3", "node4"]
                || missing.len() == 2
        })
        .await;
        assert_eq!(node.snapshot().state.label(), "WAITING FOR QUORUM 2/3");
        assert_eq!(height(node), 0);
    }
    let txid = first.submit(cluster.payment(3)).await.unwrap();
    cluster.start(2).await;
    for node in [&first, &second] {
        tokio::time::timeout(PATIENCE, node.wait_final(txid)).await.unwrap().unwrap();
        until(node, "blocks", |node| height(node) >= 1).await;
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_stopped_at_once_go_on_where_they_were() {
    let mut cluster = Cluster::new(4);
    for number in 0..4 {
        cluster.start(number).await;
    }
    let first = cluster.running[0].clone().unwrap();
    until(&first, "a block", |node| height(node) >= 1).await;
    let txid = finalised(&first, &[&first], cluster.payment(4)).await;
    cluster.stop_all().await;
    let reached = height(&first);
    for number in 0..4 {
        cluster.start(number).await;
    }
    let first = cluster.running[0].clone().unwrap();
    assert!(height(&first) >= reached, "decided blocks come back from store and journal");
    until(&first, "the payment that was final before", |node| {
        node.tx_status(&txid).is_some_and(|state| state.status == TxStatus::Confirmed)
            || height(node) > reached + 1
    })
    .await;
    let spent = cluster.payment(4).inputs[0].outpoint;
    assert_eq!(first.ledger().utxo(&spent), None, "what was final is in a block after the restart");
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_submissions_get_their_own_errors() {
    let mut cluster = Cluster::new(4);
    let node = cluster.start(0).await;
    let mut forged = cluster.payment(5);
    forged.inputs[0].signature = Signature([1; 64]);
    let refused = |result: Result<Txid, SubmitError>| match result.unwrap_err() {
        SubmitError::Rejected(reason) => reason,
        SubmitError::Stopping => panic!("it runs"),
    };
    assert_eq!(refused(node.submit(forged).await), Rejection::BadSignature { index: 0 });
    let good = cluster.payment(6);
    node.submit(good.clone()).await.unwrap();
    assert_eq!(refused(node.submit(good).await), Rejection::AlreadyKnown);
    cluster.stop_all().await;
    let after = node.submit(cluster.payment(7)).await;
    assert_eq!(after, Err(SubmitError::Stopping));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_node_on_the_same_directory_is_refused_and_the_first_one_unharmed() {
    let mut cluster = Cluster::new(4);
    let node = cluster.start(0).await;
    let error = start(cluster.options(0)).await.unwrap_err();
    assert!(matches!(error, NodeError::DataDir(_)), "{error}");
    assert_eq!(error.exit_code(), 78);
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    node.submit(cluster.payment(8)).await.unwrap();
    cluster.stop_all().await;
}

/// Waits until a node that must not sign gives this reason.
async fn explains(node: &NodeHandle, part: &str) {
    until(node, part, |node| match &node.snapshot().state {
        NodeState::NotSigning { reason, .. } => reason.as_str().contains(part),
        _ => false,
    })
    .await;
    let snapshot = node.snapshot();
    assert!(snapshot.alerts.iter().any(|alert| alert.text.as_str().contains(part)), "{:?}", snapshot.alerts);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_with_traces_of_use_and_no_instance_file_signs_after_a_resume() {
    let mut cluster = Cluster::new(4);
    std::fs::create_dir(cluster.root.path().join("n1")).unwrap();
    std::fs::write(cluster.root.path().join("n1/sign_floor"), "height = 4\n").unwrap();
    for number in 0..4 {
        cluster.start(number).await;
    }
    let node = cluster.running[0].clone().unwrap();
    explains(&node, "the file `instance` is missing").await;
    until(&node, "signing by way of the chain", is_signing).await;
    cluster.stop(0).await;
    let again = cluster.start(0).await;
    until(&again, "signing with its own log", is_signing).await;
    let resumed = again.ledger().tip().registry.voting_with(&key(1, 0).public()).unwrap().sequence;
    assert_eq!(resumed, 1, "once was enough");
    cluster.stop_all().await;
}

/// Every file of a folder with its bytes.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.map(|file| (file.clone(), std::fs::read(file).unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_its_database_keeps_its_old_vote_log_and_signs_after_a_resume() {
    let mut cluster = Cluster::new(4);
    let dir = cluster.root.path().join("n1");
    for number in 0..4 {
        cluster.start(number).await;
    }
    let lost = cluster.running[0].clone().unwrap();
    until(&lost, "three blocks", |node| height(node) >= 3).await;
    cluster.stop(0).await;
    let (oldest, newest) = Journal::heights(&dir.join("journal")).unwrap().unwrap();
    assert!(oldest > 1, "a log from the first height on could be replayed");
    let names = |folder: &Path| -> Vec<Vec<u8>> { contents(folder).into_values().collect() };
    let votes = names(&dir.join("journal"));
    // What the message for a damaged database says.
    std::fs::rename(dir.join("db"), dir.join("db.bad")).unwrap();
    let follower = cluster.start(0).await;
    let said = format!("the database is at height 0 and the vote log goes from height {oldest} to {newest}");
    explains(&follower, &said).await;
    assert_eq!(follower.snapshot().consensus.votes_sent, 0);
    assert_eq!(names(&dir.join("journal.old-1")), votes);
    until(&follower, "signing by way of the chain", is_signing).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_vote_key_in_a_directory_that_has_signed_is_refused_with_both_keys() {
    let mut cluster = Cluster::new(4);
    cluster.start(0).await;
    cluster.stop(0).await;
    let other = NodeOptions { vote_key: Some(key(1, 1)), ..cluster.options(0) };
    let error = start(other).await.unwrap_err();
    assert_eq!(error.exit_code(), 78, "{error}");
    for part in
        [key(1, 0).public().to_string(), key(1, 1).public().to_string(), "empty data directory".into()]
    {
        assert!(error.to_string().contains(&part), "{error}");
    }
    // Without a vote key it may follow, and leaves alone what the key has signed.
    let journal = cluster.root.path().join("n1/journal");
    let votes = contents(&journal);
    let observer = start(NodeOptions { vote_key: None, ..cluster.options(0) }).await.unwrap();
    observer.stop("seen");
    observer.stopped().await;
    assert_eq!(contents(&journal), votes);
    cluster.start(0).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vote_log_of_another_history_is_set_aside_and_named() {
    let mut cluster = Cluster::new(4);
    let dir = cluster.root.path().join("n1");
    let (journal, chain) = (dir.join("journal"), cluster.genesis.chain_id());
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("sign_floor"), "height = 1\n").unwrap();
    Instance::begin(&dir, chain, key(1, 0).public(), Since::Registration, Vec::new()).unwrap();
    let (mut log, _) = Journal::open(&journal, chain, 1).unwrap();
    let vote = Vote {
        era_tag: EraTag(Hash([1; 32])),
        round: 0,
        step: Step::Prevote,
        block: Some(BlockId(Hash([2; 32]))),
        voter: 0,
        signature: Signature([6; 64]),
    };
    log.stage(1, &Record::Vote(vote));
    log.commit().unwrap();
    drop(log);
    let votes = contents(&journal).into_values().next().unwrap();
    let node = cluster.start(0).await;
    cluster.start(1).await;
    cluster.start(2).await;
    cluster.start(3).await;
    explains(&node, "of another history").await;
    assert_eq!(contents(&dir.join("journal.old-1")).into_values().next().unwrap(), votes);
    cluster.stop_all().await;
}
