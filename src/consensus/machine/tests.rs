//! Single rules of the machine, each in the smallest network that shows it. Whole runs under faults are
//! the simulation's (`tests/simulation`).

mod evidence;
mod offences;
mod specials;
mod standing;

use super::*;
use crate::ledger::Ledger;
use crate::ledger::genesis::{Allocation, Founder, Genesis};
use crate::node::host::ChainHost;
use crate::pool::{Pool, PoolLimits};
use crate::primitives::amount::Amount;
use crate::primitives::chain::NetworkKind;
use crate::primitives::keys::{PublicKey, SecretKey};
use crate::primitives::params::Params;
use crate::primitives::tier::Tier;
use crate::primitives::transaction::{
    OutPoint, SealedTransaction, TRANSACTION_VERSION, Transaction, TransactionKind, TxInput, TxOutput,
};
use crate::primitives::vote::{Step, Vote, VoteBatch, vote_digest};
use std::sync::Arc;

mod causes;
mod locks;
mod trust;

const MEMBERS: u8 = 4;
const MS: u64 = 1000;

fn vote_key(node: u8) -> SecretKey {
    SecretKey::from_seed(&[node + 1; 32])
}

fn peer(node: u8) -> PeerId {
    PeerId(PublicKey([node + 100; 32]))
}

fn payer() -> SecretKey {
    SecretKey::from_seed(&[77; 32])
}

fn genesis() -> Genesis {
    let founder = |node: u8| Founder {
        name: format!("node {node}"),
        vote_key: vote_key(node).public(),
        tier: Tier::Bronze,
        owner: vote_key(node).public().key_hash(),
        payout: vote_key(node).public().key_hash(),
    };
    let allocation =
        |_| Allocation { key_hash: payer().public().key_hash(), amount: Amount::from_time(10).unwrap() };
    Genesis {
        network: NetworkKind::Devnet,
        name: "rules".to_owned(),
        time_ms: 1_700_000_000_000,
        params: Params::of(NetworkKind::Devnet),
        masternodes: (0..MEMBERS).map(founder).collect(),
        allocations: (0..4).map(allocation).collect(),
    }
}

/// One machine with its state, fed by hand.
struct Node {
    machine: Machine,
    host: ChainHost,
    now_us: u64,
}

impl Node {
    /// A node that has heard a quorum and signs.
    fn new(node: u8) -> Self {
        let mut signing = Self::unstarted(node);
        signing.step(Input::Start);
        signing.hear_all(node);
        signing
    }

    /// All others were heard to have nothing of this era, and are not connected.
    fn hear_all(&mut self, node: u8) -> Vec<Output> {
        for other in (0..MEMBERS).filter(|other| *other != node) {
            let voter = self.index_of(other);
            self.machine.key_watch.heard.insert(voter);
        }
        self.machine.begin_if_heard(&mut self.host);
        assert_eq!(self.machine.standing(), Standing::Signing);
        self.step(Input::Wake)
    }

    /// A node with a whole log that has not started.
    fn unstarted(node: u8) -> Self {
        Self::on(&genesis(), node)
    }

    /// The same on the chain of another genesis.
    fn on(genesis: &Genesis, node: u8) -> Self {
        Self::made(genesis, node, Start::Whole { since: vec![None], nonce: [9; 32] })
    }

    /// A node that has just started.
    fn with(node: u8, start: Start) -> Self {
        let mut started = Self::made(&genesis(), node, start);
        started.step(Input::Start);
        started
    }

    fn made(genesis: &Genesis, node: u8, start: Start) -> Self {
        let pool = Arc::new(Pool::new(PoolLimits::default()));
        let host = ChainHost::new(Arc::new(Ledger::in_memory(genesis)), pool);
        let signer: Box<dyn Signer> = Box::new(vote_key(node));
        let machine = Machine::new(Some(signer), Timing::of(NetworkKind::Devnet), &host, start);
        Self { machine, host, now_us: MS }
    }

    fn step(&mut self, input: Input) -> Vec<Output> {
        let now = Now { monotonic_us: self.now_us, wall_ms: 1_700_000_001_000 + self.now_us / MS };
        self.machine.step(&mut self.host, now, input)
    }

    fn wake_at(&mut self, now_us: u64) -> Vec<Output> {
        self.now_us = now_us;
        self.step(Input::Wake)
    }

    fn receive(&mut self, from: u8, message: Message) -> Vec<Output> {
        let message = Verified { value: message, era: self.machine.context.era_tag };
        self.step(Input::Message { from: peer(from), message })
    }

    fn submit(&mut self, transaction: Transaction) -> Vec<Output> {
        let value = SealedTransaction::new(transaction);
        let transaction = Verified { value, era: self.machine.context.era_tag };
        self.step(Input::Transaction { from: None, transaction })
    }

    fn connect(&mut self, node: u8) -> Vec<Output> {
        self.step(Input::PeerUp { peer: peer(node), vote_key: Some(vote_key(node).public()) })
    }

    /// What a peer says that has nothing of this era.
    fn status(&self) -> Message {
        let mut status = self.machine.status();
        status.stream_heads.fill(0);
        status.prevotes.fill(0);
        status.precommits.fill(0);
        Message::Status(status)
    }

    fn index_of(&self, node: u8) -> VoterIndex {
        self.machine.context.committee.index_of(&vote_key(node).public()).unwrap()
    }

    /// A signed vote of `node` for the present era.
    fn vote_of(&self, node: u8, round: u32, step: Step, block: Option<BlockId>) -> Message {
        let era_tag = self.machine.context.era_tag;
        let signature = vote_key(node).sign(&vote_digest(era_tag, round, step, block));
        Message::Vote(Vote { era_tag, round, step, block, voter: self.index_of(node), signature })
    }

    /// An empty signed batch of `node`.
    fn batch_of(&self, node: u8, sequence: u32, last: bool) -> Message {
        let mut batch = VoteBatch {
            era_tag: self.machine.context.era_tag,
            voter: self.index_of(node),
            sequence,
            last,
            prepares: Vec::new(),
            commits: Vec::new(),
            signature: Signature([0; 64]),
        };
        batch.signature = vote_key(node).sign(&batch.digest());
        Message::VoteBatch(batch)
    }

    fn payment(&self, coin: usize) -> Transaction {
        let key_hash = payer().public().key_hash();
        let mut coins: Vec<OutPoint> = genesis()
            .utxos()
            .into_iter()
            .filter(|(_, utxo)| utxo.key_hash == key_hash)
            .map(|(o, _)| o)
            .collect();
        coins.sort();
        let input =
            TxInput { outpoint: coins[coin], public_key: payer().public(), signature: Signature([0; 64]) };
        let mut payment = Transaction {
            version: TRANSACTION_VERSION,
            kind: TransactionKind::Payment,
            expiry: 50,
            inputs: vec![input],
            outputs: vec![TxOutput { value: Amount::from_time(9).unwrap(), key_hash }],
            payload: Vec::new(),
        };
        payment.sign(self.host.chain(), &payer());
        payment
    }
}

fn sent_to_all(outputs: &[Output]) -> Vec<&Message> {
    let mut sent = Vec::new();
    for output in outputs {
        if let Output::Send { to: Target::All, message } = output {
            sent.push(message);
        }
    }
    sent
}

/// What of the own key was seen from elsewhere.
fn elsewhere(outputs: &[Output]) -> Option<&str> {
    outputs.iter().find_map(|output| match output {
        Output::Notice(Notice::KeyElsewhere { what, .. }) => Some(what.as_str()),
        _ => None,
    })
}

fn halted(outputs: &[Output]) -> Option<&str> {
    outputs.iter().find_map(|output| match output {
        Output::Halt { reason } => Some(reason.as_str()),
        _ => None,
    })
}

#[test]
fn a_payment_is_durable_with_its_body_before_the_vote_for_it_is_sent() {
    let mut node = Node::new(0);
    let outputs = node.submit(node.payment(0));
    let place = |wanted: fn(&Output) -> bool| outputs.iter().position(wanted).unwrap();
    let body = place(|o| matches!(o, Output::Persist { record: Record::Body(_), .. }));
    let batch = place(|o| matches!(o, Output::Persist { record: Record::OwnBatch(_), .. }));
    let sent = place(|o| matches!(o, Output::Send { message: Message::VoteBatch(_), .. }));
    assert!(body < batch && batch < sent, "order was body {body}, batch {batch}, send {sent}");
}

#[test]
fn what_was_accepted_alone_is_offered_to_a_peer_that_connects() {
    let mut node = Node::new(0);
    let payment = node.payment(0);
    node.submit(payment.clone());
    let offered = node.connect(1).into_iter().any(|output| {
        matches!(output, Output::Send { to: Target::Peer(to), message: Message::Transactions(bodies) }
            if to == peer(1) && bodies == vec![payment.clone()])
    });
    assert!(offered);
}

#[test]
fn one_payment_cannot_be_multiplied_by_asking_for_it_many_times() {
    let mut node = Node::new(0);
    node.connect(1);
    let payment = SealedTransaction::new(node.payment(0));
    node.submit(payment.body().clone());
    let bytes: u64 = (0..200)
        .flat_map(|_| node.receive(1, Message::GetTransactions(vec![payment.id(); 4096])))
        .map(|output| match output {
            Output::Send { message: Message::Transactions(bodies), .. } => {
                bodies.len() as u64 * payment.size()
            }
            _ => 0,
        })
        .sum();
    assert!(bytes > 0 && bytes <= 32 << 20, "{bytes} bytes were sent");
}

#[test]
fn weight_a_of_ended_streams_freezes_and_less_does_not() {
    let mut node = Node::new(0);
    node.receive(1, node.batch_of(1, 0, true));
    assert!(!node.machine.view().frozen, "one of four may be the faulty one");
    let outputs = node.receive(2, node.batch_of(2, 0, true));
    assert!(node.machine.view().frozen);
    let last =
        sent_to_all(&outputs).into_iter().any(|m| matches!(m, Message::VoteBatch(batch) if batch.last));
    assert!(last, "the last batch ends this node's stream");
}

/// Decision 0003: a split quorum of prevotes that arrives while the node still waits for the proposal
/// must not use up the prevote timer.
#[test]
fn a_round_ends_though_the_prevotes_were_split_before_the_node_voted() {
    let timing = Timing::of(NetworkKind::Devnet);
    let node_of_proposer = {
        let probe = Node::new(0);
        let proposer = probe.machine.context.committee.proposer(1, 0).unwrap();
        (0..MEMBERS).find(|node| probe.index_of(*node) == proposer).unwrap()
    };
    let others: Vec<u8> = (0..MEMBERS).filter(|node| *node != node_of_proposer).collect();
    let [me, left, right] = others[..] else { panic!("three others") };
    let mut node = Node::new(me);
    node.wake_at(timing.era_us + 2 * MS);
    assert!(node.machine.view().frozen);
    let block = Some(BlockId(crate::primitives::hash::Hash([9; 32])));
    node.receive(left, node.vote_of(left, 0, Step::Prevote, block));
    node.receive(right, node.vote_of(right, 0, Step::Prevote, None));
    node.receive(node_of_proposer, node.vote_of(node_of_proposer, 0, Step::Prevote, block));
    // The proposal never comes: nil after the propose timer, and nil again after the prevote timer.
    let frozen_us = node.now_us;
    let prevoted = node.wake_at(frozen_us + timing.propose_us + MS);
    let is_nil =
        |step| move |m: &&Message| matches!(m, Message::Vote(v) if v.step == step && v.block.is_none());
    assert!(sent_to_all(&prevoted).iter().any(is_nil(Step::Prevote)));
    let precommitted = node.wake_at(frozen_us + timing.propose_us + timing.prevote_us + 2 * MS);
    assert!(sent_to_all(&precommitted).iter().any(is_nil(Step::Precommit)), "the round would never end");
}

#[test]
fn a_vote_of_the_own_key_that_the_log_does_not_hold_stops_signing() {
    let mut node = Node::new(0);
    node.connect(1);
    let outputs = node.receive(1, node.vote_of(0, 0, Step::Prevote, None));
    assert!(elsewhere(&outputs).unwrap().contains("prevote of round 0"));
    assert_eq!(halted(&outputs), None, "it follows the chain");
    let outputs = node.submit(node.payment(0));
    assert!(!outputs.iter().any(|output| matches!(output, Output::Persist { .. })), "it still votes");
}

#[test]
fn a_batch_of_the_own_key_that_the_log_does_not_hold_stops_signing() {
    let mut node = Node::new(0);
    let outputs = node.receive(1, node.batch_of(0, 1, false));
    assert!(elsewhere(&outputs).unwrap().contains("vote batch 1"));
    assert!(matches!(node.machine.standing(), Standing::Resuming { .. }));
}

#[test]
fn an_own_old_vote_sent_back_halts_nobody() {
    let timing = Timing::of(NetworkKind::Devnet);
    let mut node = Node::new(0);
    node.wake_at(timing.era_us + 2 * MS);
    let own = node.vote_of(0, 0, Step::Prevote, None);
    let vote_and_skip = node.wake_at(node.now_us + timing.propose_us + MS);
    assert!(sent_to_all(&vote_and_skip).contains(&&own), "the proposer of round 0 is silent");
    for voter in [1, 2] {
        node.receive(voter, node.vote_of(voter, 500, Step::Prevote, None));
    }
    assert_eq!(node.machine.view().round, 500);
    assert_eq!(elsewhere(&node.receive(1, own)), None);
    assert_eq!(node.machine.standing(), Standing::Signing);
}

#[test]
fn messages_of_the_next_era_are_kept_within_a_bound() {
    let mut node = Node::new(0);
    node.connect(1);
    let mut batch = match node.batch_of(1, 0, false) {
        Message::VoteBatch(batch) => batch,
        other => panic!("{other:?}"),
    };
    batch.era_tag = EraTag(crate::primitives::hash::Hash([5; 32]));
    batch.prepares = vec![Txid::default(); 10_000];
    for sequence in 0..20 {
        batch.sequence = sequence;
        node.receive(1, Message::VoteBatch(batch.clone()));
    }
    let kept = node.machine.future.take(batch.era_tag);
    assert_eq!(kept.len(), 3, "a mebibyte of batches of 320 kB");
}

#[test]
fn of_peers_that_do_not_vote_little_is_kept_for_the_next_era_and_its_memory_counts() {
    let mut node = Node::new(0);
    let stranger = PeerId(PublicKey([7; 32]));
    node.step(Input::PeerUp { peer: stranger, vote_key: None });
    let era_tag = EraTag(crate::primitives::hash::Hash([5; 32]));
    for round in 0..10_000 {
        let vote = Vote { era_tag, round, ..vote_of_nobody() };
        let message = Verified { value: Message::Vote(vote), era: node.machine.context.era_tag };
        node.step(Input::Message { from: stranger, message });
    }
    assert!(node.machine.future.bytes() <= 64 << 10);
    let kept = node.machine.future.take(era_tag).len();
    assert!((50..=64 * 1024 / std::mem::size_of::<Message>()).contains(&kept), "{kept}");
}

fn vote_of_nobody() -> Vote {
    Vote {
        era_tag: EraTag::default(),
        round: 0,
        step: Step::Prevote,
        block: None,
        voter: 0,
        signature: crate::primitives::keys::Signature([0; 64]),
    }
}
