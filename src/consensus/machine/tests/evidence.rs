//! From an offence to a conviction.

use super::offences::start;
use super::*;
use crate::consensus::standing::Standing;
use crate::consensus::standing::Start;
use crate::primitives::masternode::MasternodeStatus;

/// Evidence transactions that are sent to all.
fn handed_in(outputs: &[Output]) -> Vec<Transaction> {
    let mut found = Vec::new();
    for output in outputs {
        if let Output::Send { to: Target::All, message: Message::Transaction(transaction) } = output
            && transaction.kind == TransactionKind::Evidence
        {
            found.push(transaction.clone());
        }
    }
    found
}

fn convicted(outputs: &[Output]) -> Vec<(&str, bool)> {
    let mut found = Vec::new();
    for output in outputs {
        if let Output::Notice(Notice::Convicted { name, own, .. }) = output {
            found.push((name.as_str(), *own));
        }
    }
    found
}

impl Node {
    /// Lets node 1 prevote twice.
    fn see_offence(&mut self) -> Vec<Output> {
        let mut outputs = self.hear(1, self.vote_of(1, 0, Step::Prevote, None));
        let block = Some(BlockId(crate::primitives::hash::Hash([9; 32])));
        outputs.extend(self.hear(1, self.vote_of(1, 0, Step::Prevote, block)));
        outputs
    }

    /// Decides a block of everything in the pool that is evidence, or of nothing.
    fn decide_next(&mut self, with_pool: bool) -> Vec<Output> {
        let tip = self.host.tip();
        let committee = Arc::clone(&self.machine.context.committee);
        let all = self.host.pending().into_iter().filter(|_| with_pool).collect();
        let block = self.host.build(committee.members()[0].id, tip.time_ms + 1, tip.commit, all).unwrap();
        let voters = (0..MEMBERS).filter(|node| committee.index_of(&vote_key(*node).public()).is_some());
        let voters: Vec<u8> = voters.collect();
        self.decide(&block, self.qc(0, Step::Precommit, Some(block.id()), &voters))
    }

    fn status_of(&self, node: u8) -> MasternodeStatus {
        self.host.masternode_of(&vote_key(node).public()).unwrap().status
    }
}

#[test]
fn an_offence_is_handed_in_once_relayed_and_convicts_with_the_next_block() {
    let (mut node, mut other) = (start(), Node::new(2));
    other.connect(3);
    let sent = handed_in(&node.see_offence());
    let [transaction] = sent.as_slice() else { panic!("not one transaction: {sent:?}") };
    assert!(handed_in(&node.wake_at(node.now_us + 5_000 * MS)).is_empty(), "it waits in the pool");
    let relayed = other.hear(3, Message::Transaction(transaction.clone()));
    let is_relay = |output: &Output| {
        matches!(output, Output::Send { to: Target::AllExcept(_), message: Message::Transaction(sent) }
            if sent == transaction)
    };
    assert!(relayed.iter().any(is_relay));
    assert!(handed_in(&other.see_offence()).is_empty(), "somebody handed it in before");
    for witness in [&mut node, &mut other] {
        let outputs = witness.decide_next(true);
        assert_eq!(convicted(&outputs), [("node 1", false)]);
        assert!(matches!(witness.status_of(1), MasternodeStatus::Tombstoned { .. }));
        assert_eq!(witness.machine.context.committee.len(), 3);
        assert!(handed_in(&outputs).is_empty());
        assert!(handed_in(&witness.decide_next(true)).is_empty(), "nothing is left to do");
    }
}

#[test]
fn evidence_that_no_proposer_takes_is_handed_in_again_when_it_has_expired() {
    let mut node = start();
    let first = handed_in(&node.see_offence()).remove(0);
    let mut again = Vec::new();
    while node.machine.context.height <= first.expiry + 1 {
        again.extend(handed_in(&node.decide_next(false)));
    }
    let [second] = again.as_slice() else { panic!("not once more: {}", again.len()) };
    assert_eq!(second.payload, first.payload);
    assert!(second.expiry > first.expiry);
    node.decide_next(true);
    assert!(matches!(node.status_of(1), MasternodeStatus::Tombstoned { .. }));
}

#[test]
fn the_same_two_statements_make_the_same_transaction_at_every_node() {
    let (mut node, mut other) = (start(), Node::new(3));
    other.connect(2);
    let first = handed_in(&node.see_offence());
    let block = Some(BlockId(crate::primitives::hash::Hash([9; 32])));
    other.hear(1, other.vote_of(1, 0, Step::Prevote, block));
    let second = handed_in(&other.hear(1, other.vote_of(1, 0, Step::Prevote, None)));
    assert_eq!(first, second);
}

/// A start with a whole log.
fn whole() -> Start {
    Start::Whole { since: vec![None], nonce: [9; 32] }
}

#[test]
fn a_node_that_must_not_sign_and_an_observer_hand_evidence_in_too() {
    let mut silenced = start();
    let own = silenced.vote_of(0, 0, Step::Prevote, None);
    silenced.hear(3, own);
    assert!(matches!(silenced.machine.standing(), Standing::Resuming { .. }));
    assert_eq!(handed_in(&silenced.see_offence()).len(), 1);
    let mut observer = Node::unstarted(0);
    observer.machine = Machine::new(None, Timing::of(NetworkKind::Devnet), &observer.host, whole());
    observer.step(Input::Start);
    assert_eq!(handed_in(&observer.see_offence()).len(), 1);
}

#[test]
fn a_masternode_is_told_that_it_is_convicted_and_again_after_a_restart() {
    let mut witness = start();
    let transaction = handed_in(&witness.see_offence()).remove(0);
    let mut convict = Node::new(1);
    convict.connect(0);
    convict.hear(0, Message::Transaction(transaction));
    assert_eq!(convicted(&convict.decide_next(true)), [("node 1", true)]);
    assert_eq!(convict.machine.me, None, "it votes no more");
    let signer: Box<dyn Signer> = Box::new(vote_key(1));
    convict.machine = Machine::new(Some(signer), Timing::of(NetworkKind::Devnet), &convict.host, whole());
    assert_eq!(convicted(&convict.step(Input::Start)), [("node 1", true)]);
}
