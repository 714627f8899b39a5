//! Tests of the server: what peers get, and what they do not.

use super::*;
use crate::ledger::snapshot::Manifest;
use crate::light::block::Link;
use crate::node::blocks::RecentBlocks;
use crate::node::snapshots::maker::tests::{Chain, LIMITS};
use crate::pool::{Pool, PoolLimits};
use crate::primitives::encoding::decode_stored;
use crate::primitives::keys::PublicKey;
use crate::primitives::message::PeerId;
use std::sync::mpsc::{Receiver, Sender, channel};

fn peer(seed: u8) -> PeerId {
    PeerId(PublicKey([seed; 32]))
}

/// A server without a queue over a chain of so many blocks with a snapshot of the last one.
pub fn server_over(dir: &std::path::Path, allocations: usize, blocks: usize) -> (SnapshotServer, Chain) {
    let shelf = Arc::new(Shelf::open(dir.join("snapshots"), LIMITS).unwrap());
    let mut chain = Chain::new(dir, allocations);
    (1..blocks).for_each(|_| drop(chain.extend()));
    chain.snapshot(&shelf);
    let ledger = Arc::new(chain.store.load().unwrap());
    let (pool, recent) = (Arc::new(Pool::new(PoolLimits::default())), Arc::new(RecentBlocks::default()));
    let prover = Prover::new(&ledger, &pool, &recent, &chain.store);
    (SnapshotServer::sending(shelf, Arc::new(prover), Box::new(|_, _| {})).1, chain)
}

/// A server over a chain of `blocks` blocks with a snapshot of the last one, and what it sends.
fn serving(
    dir: &std::path::Path,
    blocks: usize,
) -> (Desk, SnapshotServer, Receiver<(PeerId, Message)>, Chain) {
    let shelf = Arc::new(Shelf::open(dir.join("snapshots"), LIMITS).unwrap());
    let mut chain = Chain::new(dir, 30);
    (1..blocks).for_each(|_| drop(chain.extend()));
    chain.snapshot(&shelf);
    let ledger = Arc::new(chain.store.load().unwrap());
    let pool = Arc::new(Pool::new(PoolLimits::default()));
    let recent = Arc::new(RecentBlocks::default());
    let prover = Prover::new(&ledger, &pool, &recent, &chain.store);
    let (sender, sent): (Sender<(PeerId, Message)>, _) = channel();
    let send = move |peer, message: &Message| sender.send((peer, message.clone())).unwrap();
    let (desk, server) = SnapshotServer::sending(shelf, Arc::new(prover), Box::new(send));
    (desk, server, sent, chain)
}

fn answer(server: &SnapshotServer, request: Message) -> Message {
    server.answer(&request).unwrap()
}

#[test]
fn a_peer_gets_offers_manifest_and_parts_and_emptiness_for_what_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (_, server, _, chain) = serving(dir.path(), 2);
    let Message::Snapshots(offers) = answer(&server, Message::GetSnapshots) else { panic!("offers") };
    let [offer] = &offers[..] else { panic!("one offer") };
    assert_eq!((offer.height, offer.block), (2, chain.ledger.tip().block));
    let manifest = offer.manifest;
    let page = |page| match answer(&server, Message::GetSnapshotManifest { manifest, page }) {
        Message::SnapshotManifest { bytes, .. } => bytes,
        other => panic!("{other:?}"),
    };
    let checked = Manifest::from_bytes(&page(0)).unwrap().check(&chain.genesis.params).unwrap();
    assert!(page(1).is_empty() && page(u32::MAX).is_empty());
    let part = |manifest, part| match answer(&server, Message::GetSnapshotPart { manifest, part }) {
        Message::SnapshotPart { bytes, .. } => bytes,
        other => panic!("{other:?}"),
    };
    checked.check_part(1, &part(manifest, 1)).unwrap();
    assert!(part(manifest, 2).is_empty() && part(Hash([1; 32]), 1).is_empty());
    let parts = dir.path().join("snapshots/2/parts");
    let mut bytes = std::fs::read(&parts).unwrap();
    bytes.fill(0);
    std::fs::write(&parts, bytes).unwrap();
    assert!(part(manifest, 1).is_empty(), "damage is not handed on");
    assert_eq!(answer(&server, Message::GetSnapshots), Message::Snapshots(Vec::new()));
}

#[test]
fn the_links_lead_a_light_client_to_the_header() {
    use crate::light::client::LightClient;
    use crate::primitives::keys::verify_batch;
    let dir = tempfile::tempdir().unwrap();
    let (_, server, _, chain) = serving(dir.path(), 3);
    let genesis = chain.genesis.state().header;
    let mut client = LightClient::new(chain.genesis.chain_id(), 1_000_000, genesis);
    let Message::Links { from: 0, links } = answer(&server, Message::GetLinks { from: 0, to: 3 }) else {
        panic!("links")
    };
    for link in links {
        let link: Link = decode_stored(&link).unwrap();
        client.accept(&link, 1_001_000, &verify_batch).unwrap();
    }
    assert_eq!(client.newest().id(), chain.ledger.tip().block);
    for (from, to) in [(3, 3), (2, 1), (0, 9), (9, 10)] {
        let none = Message::Links { from, links: Vec::new() };
        assert_eq!(answer(&server, Message::GetLinks { from, to }), none);
    }
}

#[test]
fn a_peer_has_eight_requests_answered_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let (desk, server, sent, _chain) = serving(dir.path(), 1);
    for _ in 0..100 {
        desk.ask(peer(1), Message::GetSnapshots);
    }
    desk.ask(peer(2), Message::GetLinks { from: 0, to: 1 });
    drop(desk);
    server.run();
    let sent: Vec<_> = sent.try_iter().map(|(to, _)| to).collect();
    assert_eq!(sent, [vec![peer(1); 8], vec![peer(2)]].concat());
}
