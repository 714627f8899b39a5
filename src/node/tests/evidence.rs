//! What becomes of a masternode that signs twice, over real sockets.

use super::*;
use crate::network::router::Recipients;
use crate::network::{Bootstrap, Identity, Network, NetworkOptions};
use crate::primitives::hash::era_tag;
use crate::primitives::masternode::MasternodeStatus;
use crate::primitives::message::Message;
use crate::primitives::vote::vote_digest;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::mpsc;

/// A network connection that speaks for a masternode and answers nothing.
async fn hand_made_peer(cluster: &Cluster, number: usize, listen: SocketAddr) -> Network {
    let mut options = NetworkOptions::new(listen);
    let running = (0..cluster.addresses.len()).filter(|other| *other != number);
    let address = |other: usize| Bootstrap { key: None, address: cluster.addresses[other].to_string() };
    options.bootstrap = running.map(address).collect();
    let identity = Identity {
        network_key: key(2, number),
        vote_key: Some(key(1, number)),
        chain: cluster.genesis.chain_id(),
        name: "twofold".to_owned(),
        agent: "test/1".to_owned(),
    };
    let (events, mut received) = mpsc::channel(64);
    tokio::spawn(async move { while received.recv().await.is_some() {} });
    Network::start(options, identity, Arc::new(AtomicU64::new(0)), events).await.unwrap()
}

/// Two prevotes of masternode `number` for round 0 of the era `node` is in.
fn two_votes(cluster: &Cluster, node: &NodeHandle, number: usize) -> Option<[Message; 2]> {
    let tip = node.ledger().tip();
    let tag = era_tag(cluster.genesis.chain_id(), tip.header.height + 1, tip.block);
    let voter = tip.next_committee.index_of(&key(1, number).public())?;
    let vote = |block| {
        let signature = key(1, number).sign(&vote_digest(tag, 0, Step::Prevote, block));
        Message::Vote(Vote { era_tag: tag, round: 0, step: Step::Prevote, block, voter, signature })
    };
    Some([vote(None), vote(Some(BlockId(Hash([7; 32]))))])
}

fn status_of(node: &NodeHandle, number: usize) -> MasternodeStatus {
    let tip = node.ledger().tip();
    tip.registry.voting_with(&key(1, number).public()).unwrap().status
}

fn collateral_of(node: &NodeHandle, number: usize) -> Amount {
    let tip = node.ledger().tip();
    let outpoint = tip.registry.voting_with(&key(1, number).public()).unwrap().collateral;
    node.ledger().utxo(&outpoint).unwrap().value
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_masternode_that_signs_twice_is_convicted_everywhere_and_the_chain_goes_on() {
    let mut cluster = Cluster::new(4);
    let mut nodes = Vec::new();
    for number in 0..3 {
        nodes.push(cluster.start(number).await);
    }
    let peer = hand_made_peer(&cluster, 3, cluster.addresses[3]).await;
    until(&nodes[0], "a block", |node| height(node) >= 1).await;
    let before = collateral_of(&nodes[0], 3);
    // An era may end between reading and hearing, so it goes on until somebody has seen both.
    until(&nodes[0], "the conviction", |node| {
        if let Some(votes) = two_votes(&cluster, node, 3) {
            votes.iter().for_each(|vote| peer.send(Recipients::All, vote));
        }
        matches!(status_of(node, 3), MasternodeStatus::Tombstoned { .. })
    })
    .await;
    for node in &nodes {
        until(node, "the conviction at every node", |node| {
            matches!(status_of(node, 3), MasternodeStatus::Tombstoned { .. })
        })
        .await;
        assert_eq!(collateral_of(node, 3).units(), before.units() / 10 * 9);
        assert_eq!(node.ledger().tip().next_committee.len(), 3);
        node.ledger().recount().unwrap();
    }
    let alerted = |node: &NodeHandle| {
        let snapshot = node.snapshot();
        snapshot
            .alerts
            .iter()
            .any(|alert| alert.text.as_str().contains("masternode node4 signed two prevotes"))
    };
    until(&nodes[0], "an alert at the node that saw both", |_| nodes.iter().any(alerted)).await;
    let refs: Vec<&NodeHandle> = nodes.iter().collect();
    finalised(&nodes[1], &refs, cluster.payment(1)).await;
    let convicted_at = height(&nodes[0]);
    until(&nodes[0], "two more blocks", |node| height(node) >= convicted_at + 2).await;
    cluster.stop_all().await;
}
