//! Catching up from several peers of which some lie and one is silent.

use super::servers::{Chain, answer, chain, hand_made, server};
use super::*;
use crate::primitives::message::{Message, PeerId};

/// Twelve blocks, five payments in each of the first ten.
fn full_chain(cluster: &Cluster) -> Chain {
    let payments = |block: usize| match block {
        0..10 => (0..5).map(|number| cluster.payment(5 * block + number)).collect(),
        _ => Vec::new(),
    };
    chain(&cluster.genesis, cluster.genesis.time_ms + 100, (0..12).map(payments).collect())
}

/// What an event says of a peer.
fn said_of(kind: &EventKind, peer: PeerId) -> Option<String> {
    match kind {
        EventKind::Alert { text, .. } if text.as_str().contains(&format!("peer {} ", peer.0.short())) => {
            Some(text.to_string())
        }
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn liars_and_a_silent_peer_are_named_and_the_node_arrives_from_whoever_is_honest() {
    let mut cluster = Cluster::new(5);
    let whole = full_chain(&cluster);
    let node = cluster.start(0).await;
    let mut events = node.subscribe();

    let of_bodies = whole.clone();
    let wrong_body = hand_made(&cluster, 1, 0, move |request| match answer(&of_bodies, request)? {
        Message::BlockBodies { height, from, mut transactions } => {
            transactions.iter_mut().for_each(|transaction| transaction.expiry += 1);
            Some(Message::BlockBodies { height, from, transactions })
        }
        other => Some(other),
    });
    let of_certificates = whole.clone();
    let wrong_certificate =
        hand_made(&cluster, 2, 0, move |request| match answer(&of_certificates, request)? {
            Message::Block { outline, mut qc } => {
                qc.signatures.iter_mut().for_each(|signature| *signature = Signature([7; 64]));
                Some(Message::Block { outline, qc })
            }
            other => Some(other),
        });
    let of_silent = whole.clone();
    let silent = hand_made(&cluster, 3, 0, move |request| {
        answer(&of_silent, request).filter(|answer| matches!(answer, Message::Status(_)))
    });
    let (wrong_body, wrong_certificate, silent) = (wrong_body.await, wrong_certificate.await, silent.await);
    let expected = [
        (wrong_body, "not the one of the block"),
        (wrong_certificate, "signature"),
        (silent, "did not send block"),
    ];

    let mut told: Vec<EventKind> = Vec::new();
    let named = |told: &[EventKind]| {
        expected.iter().all(|(peer, what)| {
            told.iter().any(|kind| said_of(kind, *peer).is_some_and(|text| text.contains(what)))
        })
    };
    let listening = async {
        while !named(&told) {
            told.push(events.next().await.unwrap().kind.clone());
        }
    };
    if tokio::time::timeout(PATIENCE, listening).await.is_err() {
        panic!("not named: {told:?}");
    }
    let honest = server(&cluster, 4, 0, whole.clone()).await;
    until(&node, "the last block", |node| height(node) == 12).await;
    assert_eq!(node.ledger().tip().block, whole[11].0.id());
    node.ledger().recount().unwrap();
    told.extend(std::iter::from_fn(|| events.try_next()).map(|event| event.kind.clone()));
    assert!(told.iter().all(|kind| said_of(kind, honest).is_none()), "an honest peer is named");
    assert_eq!(node.snapshot().peers.throttled, 0, "answers were asked for");
    until(&node, "the end of the phase", |node| node.snapshot().sync.is_none()).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_is_told_while_it_stands_still_and_ends_when_nobody_is_ahead_any_more() {
    let mut cluster = Cluster::new(4);
    let whole = full_chain(&cluster);
    let node = cluster.start(0).await;
    let mut events = node.subscribe();
    // It has five of the twelve blocks it says it has.
    let half = whole.clone();
    let peer = hand_made(&cluster, 1, 0, move |request| match request {
        Message::GetBlock { height } if *height > 5 => None,
        request => answer(&half, request),
    })
    .await;
    until(&node, "half of the way", |node| {
        let snapshot = node.snapshot();
        matches!(snapshot.state, NodeState::Syncing { height: 5, target: 12 })
            && snapshot.sync.as_ref().is_some_and(|sync| sync.height == 5 && sync.target == 12)
    })
    .await;
    let sync = node.snapshot().sync.clone().unwrap();
    assert_eq!(sync.peers.iter().map(|peer| peer.id.clone()).collect::<Vec<_>>(), [peer.to_string()]);
    assert!(std::iter::from_fn(|| events.try_next()).any(|event| matches!(&event.kind, EventKind::Sync(_))));
    // Others go on where it stopped.
    server(&cluster, 2, 0, whole).await;
    until(&node, "the last block", |node| height(node) == 12).await;
    until(&node, "the end of the phase", |node| node.snapshot().sync.is_none()).await;
    cluster.stop_all().await;
}
