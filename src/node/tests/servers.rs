//! Peers made by hand: each has a chain and answers as a node would, or as a liar.

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
use crate::primitives::transaction::SealedTransaction;
use crate::primitives::vote::vote_digest;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::mpsc;

pub(in crate::node) type Chain = Vec<(Block, Qc)>;

/// Blocks of these transactions signed by the founders, the first at `first_ms`, each a second after the
/// one before.
pub(in crate::node) fn chain(genesis: &Genesis, first_ms: u64, blocks: Vec<Vec<Transaction>>) -> Chain {
    let ledger = Arc::new(Ledger::in_memory(genesis));
    let mut host = ChainHost::new(ledger, Arc::new(Pool::new(PoolLimits::default())));
    let mut made = Vec::new();
    for (number, transactions) in blocks.into_iter().enumerate() {
        let tip = host.tip();
        let time_ms = first_ms + 1000 * number as u64;
        let proposer = tip.next_committee.members()[0].id;
        let block = host
            .build(
                proposer,
                time_ms,
                tip.commit,
                transactions.into_iter().map(SealedTransaction::new).collect(),
            )
            .unwrap();
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

/// Answers as a node that has this chain would.
pub(in crate::node) fn answer(chain: &Chain, request: &Message) -> Option<Message> {
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
            let (block, qc) = at(*height)?;
            Some(Message::Block { outline: block.outline(), qc: qc.clone() })
        }
        Message::GetHeaders { last, count } => {
            let first = (last + 1).saturating_sub(u64::from(*count)).max(1);
            Some(Message::Headers((first..=*last).filter_map(|h| Some(at(h)?.0.header.clone())).collect()))
        }
        Message::GetBlockBodies { height, from } => {
            let bodies = at(*height)?.0.transactions.iter().skip(*from as usize);
            let transactions = bodies.map(|transaction| transaction.body().clone()).collect();
            Some(Message::BlockBodies { height: *height, from: *from, transactions })
        }
        _ => None,
    }
}

/// A peer with this chain that does nothing but answer.
pub(super) async fn server(cluster: &Cluster, number: usize, of: usize, chain: Chain) -> PeerId {
    hand_made(cluster, number, of, move |request| answer(&chain, request)).await
}

/// A peer that sends these answers to node `of`.
pub(super) async fn hand_made(
    cluster: &Cluster,
    number: usize,
    of: usize,
    answer: impl Fn(&Message) -> Option<Message> + Send + 'static,
) -> PeerId {
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
                && let Some(answer) = answer(&message)
            {
                network.send(Recipients::Peer(peer), &answer);
            }
        }
    });
    own
}
