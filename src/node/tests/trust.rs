//! A node that is new in an old network, over real sockets: a chain that only old keys signed is refused,
//! the one with the trusted block is adopted.

use super::*;
use crate::consensus::host::Host as _;
use crate::ledger::Ledger;
use crate::network::router::Recipients;
use crate::network::{Bootstrap, Identity, Network, NetworkEvent, NetworkOptions};
use crate::node::host::ChainHost;
use crate::pool::{Pool, PoolLimits};
use crate::primitives::block::Block;
use crate::primitives::certificate::Qc;
use crate::primitives::hash::era_tag;
use crate::primitives::message::{Message, PeerId, Status};
use crate::primitives::trusted::TrustedHeader;
use crate::primitives::vote::vote_digest;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::mpsc;

type Chain = Vec<(Block, Qc)>;

/// Blocks signed by the founders, the first at `first_ms`, each a second after the one before.
fn chain(genesis: &Genesis, blocks: usize, first_ms: u64) -> Chain {
    let ledger = Arc::new(Ledger::in_memory(genesis));
    let mut host = ChainHost::new(ledger, Arc::new(Pool::new(PoolLimits::default())));
    let mut made = Vec::new();
    for number in 0..blocks {
        let tip = host.tip();
        let time_ms = first_ms + 1000 * number as u64;
        let proposer = tip.next_committee.members()[0].id;
        let block = host.build(proposer, time_ms, tip.commit, Vec::new()).unwrap();
        let tag = era_tag(genesis.chain_id(), tip.height + 1, tip.block);
        let digest = vote_digest(tag, 0, Step::Precommit, Some(block.id()));
        let founders = (0..genesis.masternodes.len()).map(|number| key(1, number));
        let votes: BTreeMap<u16, Signature> = founders
            .filter_map(|key| Some((tip.next_committee.index_of(&key.public())?, key.sign(&digest))))
            .collect();
        let qc = Qc::new(0, Step::Precommit, block.id(), votes.into_iter().collect());
        host.commit(&Arc::new(block.clone()), &qc).unwrap();
        made.push((block, qc));
    }
    made
}

fn trusted(chain: &Chain) -> TrustedHeader {
    let (block, _) = chain.last().unwrap();
    TrustedHeader { height: block.header.height, id: block.id() }
}

/// Answers as a node that has this chain would.
fn answer(chain: &Chain, request: Message) -> Option<Message> {
    let at = |height: u64| chain.get(usize::try_from(height).ok()?.checked_sub(1)?);
    match request {
        Message::Status(_) => {
            let (last, _) = chain.last()?;
            Some(Message::Status(Status {
                height: last.header.height + 1,
                previous: last.id(),
                round: 0,
                has_proposal: false,
                prevotes: Vec::new(),
                precommits: Vec::new(),
                stream_heads: Vec::new(),
            }))
        }
        Message::GetBlock { height } => {
            let (block, qc) = at(height)?;
            Some(Message::Block { outline: block.outline(), qc: qc.clone() })
        }
        Message::GetHeaders { last, count } => {
            let first = (last + 1).saturating_sub(u64::from(count)).max(1);
            Some(Message::Headers((first..=last).filter_map(|h| Some(at(h)?.0.header.clone())).collect()))
        }
        _ => None,
    }
}

/// A peer with this chain that does nothing but answer.
async fn server(cluster: &Cluster, number: usize, of: usize, chain: Chain) -> PeerId {
    let mut options = NetworkOptions::new(cluster.addresses[number]);
    options.bootstrap = vec![Bootstrap { key: None, address: cluster.addresses[of].to_string() }];
    let identity = Identity {
        network_key: key(2, number),
        vote_key: None,
        chain: cluster.genesis.chain_id(),
        name: format!("server{number}"),
        agent: "test/1".to_owned(),
    };
    let (events, mut received) = mpsc::channel(64);
    let network = Network::start(options, identity, Arc::new(AtomicU64::new(0)), events).await.unwrap();
    let own = network.own();
    tokio::spawn(async move {
        while let Some(event) = received.recv().await {
            if let NetworkEvent::Message { peer, message } = event
                && let Some(answer) = answer(&chain, message)
            {
                network.send(Recipients::Peer(peer), &answer);
            }
        }
    });
    own
}

fn reason(node: &NodeHandle) -> Option<String> {
    match &node.snapshot().state {
        NodeState::NeedsTrustedBlock { reason } => Some(reason.to_string()),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_range_chain_signed_by_old_keys_is_refused_and_the_one_with_the_trusted_block_is_adopted() {
    let mut cluster = Cluster::new(4);
    cluster.genesis.time_ms = 1_700_000_000_000;
    let now_ms = clock::wall_ms() - 10_000;
    let (right, forged) = (chain(&cluster.genesis, 5, now_ms), chain(&cluster.genesis, 7, now_ms - 1));

    // Without a trusted block nothing is adopted, and that is said.
    let liar = server(&cluster, 1, 0, forged.clone()).await;
    let node = cluster.start(0).await;
    let mut events = node.subscribe();
    until(&node, "asking for a trusted block", |node| reason(node).is_some()).await;
    assert!(reason(&node).unwrap().contains("[sync] trusted_block"));
    let snapshot = node.snapshot();
    assert!(snapshot.alerts.iter().any(|alert| alert.text.as_str().contains("--trusted-block")));
    let told = std::iter::from_fn(|| events.try_next());
    assert!(told.into_iter().any(
        |event| matches!(&event.kind, EventKind::State { state } if state.as_str() == "NEEDS TRUSTED BLOCK")
    ));
    assert_eq!(height(&node), 0);
    cluster.stop(0).await;

    // With one the liar is named, and the chain that leads there is adopted from whoever has it.
    let mut options = cluster.options(0);
    options.config.sync.trusted_block = Some(trusted(&right));
    let node = start(options).await.unwrap();
    until(&node, "naming who has another block", |node| {
        reason(node).is_some_and(|text| text.contains(&liar.0.short()))
    })
    .await;
    assert_eq!(height(&node), 0);
    server(&cluster, 2, 0, right.clone()).await;
    until(&node, "the right chain", |node| height(node) == 5).await;
    assert_eq!(node.ledger().tip().block, trusted(&right).id);
    node.stop("seen");
    node.stopped().await;

    // A trusted block that the database contradicts is refused with both ids.
    let mut options = cluster.options(0);
    let wrong = TrustedHeader { height: 3, id: forged[2].0.id() };
    options.config.sync.trusted_block = Some(wrong);
    let error = start(options).await.unwrap_err();
    assert_eq!(error.exit_code(), 78);
    for part in [wrong.to_string(), right[2].0.id().to_string(), "[sync]".to_owned()] {
        assert!(error.to_string().contains(&part), "{error}");
    }
}
