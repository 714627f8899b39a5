//! Every change of standing, in the smallest network that shows it (protocol §10, safe start).

use super::*;
use crate::consensus::standing::{Nonce, Stage};
use crate::primitives::masternode::MasternodeStatus;
use crate::primitives::special::{Resume, Special};

const OLD: Nonce = [1; 32];
const NEW: Nonce = [2; 32];

fn lost() -> Start {
    Start::Lost { reason: "the vote log is missing".to_owned(), tried: Vec::new(), nonce: NEW }
}

fn whole() -> Start {
    Start::Whole { since: vec![None], nonce: NEW }
}

/// Whether the node signed something.
fn signed(outputs: &[Output]) -> bool {
    outputs.iter().any(|output| {
        matches!(
            output,
            Output::Persist { record: Record::OwnBatch(_) | Record::Vote(_) | Record::Proposal(_), .. }
        )
    })
}

fn resume_in(outputs: &[Output]) -> Option<Transaction> {
    outputs.iter().find_map(|output| match output {
        Output::Send { message: Message::Transaction(transaction), .. }
            if transaction.kind == TransactionKind::Resume =>
        {
            Some(transaction.clone())
        }
        _ => None,
    })
}

/// A `Resume` of `node`'s entry, as another process with its key makes it.
fn resume_of(at: &Node, node: u8, nonce: Nonce) -> Transaction {
    let entry = at.host.masternode_of(&vote_key(node).public()).unwrap();
    let special = |signature| {
        Special::Resume(Resume {
            validator: entry.id,
            sequence: entry.sequence + 1,
            vote_key: vote_key(node).public(),
            nonce,
            new_vote_key: None,
            signature,
        })
    };
    let blank = special(Signature([0; 64]));
    let mut transaction = Transaction {
        version: TRANSACTION_VERSION,
        kind: TransactionKind::Resume,
        expiry: at.machine.context.height + 5,
        inputs: Vec::new(),
        outputs: Vec::new(),
        payload: blank.encode().1,
    };
    let digest = transaction.authorisation_digest(at.host.chain(), &blank);
    transaction.payload = special(vote_key(node).sign(&digest)).encode().1;
    transaction
}

impl Node {
    /// The next block is decided by these nodes without this one's doing, and pulled from node 1.
    fn decided(&mut self, by: &[u8], transactions: Vec<Transaction>) -> Vec<Output> {
        let (context, tip) = (self.machine.era(), self.host.tip());
        let sealed = transactions.into_iter().map(SealedTransaction::new).collect();
        let proposer = context.committee.member(self.index_of(by[0])).unwrap().id;
        let block = self.host.build(proposer, tip.time_ms + 1000, tip.commit, sealed).unwrap();
        let digest = vote_digest(context.era_tag, 0, Step::Precommit, Some(block.id()));
        let votes = by.iter().map(|node| (self.index_of(*node), vote_key(*node).sign(&digest)));
        let qc = Qc::new(
            0,
            Step::Precommit,
            block.id(),
            votes.collect::<std::collections::BTreeMap<_, _>>().into_iter().collect(),
        );
        let block = Verified { value: (block, qc), era: context.era_tag };
        self.step(Input::Decided { from: peer(1), block })
    }

    fn hear_from(&mut self, node: u8) -> Vec<Output> {
        self.connect(node);
        self.receive(node, self.status())
    }

    fn stage(&self) -> Stage {
        match self.machine.standing() {
            Standing::Resuming { stage, .. } => stage,
            other => panic!("{other:?}"),
        }
    }

    fn signs_a_payment(&mut self, coin: usize) -> bool {
        let payment = self.payment(coin);
        signed(&self.submit(payment))
    }
}

#[test]
fn nothing_is_signed_before_a_quorum_was_heard_at_the_own_height_and_observers_are_no_part_of_it() {
    let mut node = Node::with(0, whole());
    node.step(Input::PeerUp { peer: peer(9), vote_key: None });
    node.receive(9, node.status());
    node.hear_from(1);
    assert_eq!(node.machine.standing(), Standing::Listening { heard_weight: 2, quorum_weight: 3 });
    assert!(!node.signs_a_payment(0));
    let outputs = node.hear_from(2);
    let may = outputs.iter().position(|output| matches!(output, Output::Sign { since: None, next: NEW }));
    let first = outputs.iter().position(|output| signed(std::slice::from_ref(output)));
    assert!(may.unwrap() < first.unwrap(), "the payment that waited is voted for, after the word of it");
}

#[test]
fn a_status_that_shows_more_of_the_own_key_than_the_log_holds_is_not_heard() {
    let mut node = Node::with(0, whole());
    let me = usize::from(node.index_of(0));
    let Message::Status(honest) = node.status() else { panic!("a status") };
    let mut longer = honest.clone();
    longer.stream_heads[me] = 1;
    let mut voted = honest;
    voted.prevotes = vec![1 << me];
    for (peer, status) in [(1, longer), (2, voted)] {
        node.connect(peer);
        node.receive(peer, Message::Status(status));
    }
    node.hear_from(3);
    assert_eq!(node.machine.standing(), Standing::Listening { heard_weight: 2, quorum_weight: 3 });
    // The claim alone proves nothing; the message it speaks of does.
    node.receive(1, node.batch_of(0, 0, false));
    assert!(matches!(node.stage(), Stage::Sighted { height: 1, .. }));
}

#[test]
fn a_change_of_height_needs_a_quorum_heard_anew_and_what_was_said_of_it_before_counts() {
    let mut node = Node::with(0, whole());
    node.hear_from(1);
    let mut ahead = Node::with(0, whole());
    ahead.hear_from(1);
    ahead.decided(&[1, 2, 3], Vec::new());
    let next = ahead.status();
    node.connect(2);
    node.receive(2, next.clone());
    node.decided(&[1, 2, 3], Vec::new());
    assert_eq!(node.machine.standing(), Standing::Listening { heard_weight: 2, quorum_weight: 3 });
    node.receive(1, next);
    assert_eq!(node.machine.standing(), Standing::Signing);
}

#[test]
fn a_new_directory_signs_on_a_chain_that_has_not_begun_and_on_no_other() {
    let fresh = || Start::Fresh { tried: Vec::new(), nonce: NEW };
    let mut node = Node::with(0, fresh());
    node.hear_from(1);
    node.hear_from(2);
    assert_eq!(node.machine.standing(), Standing::Signing);
    let mut late = Node::with(0, fresh());
    late.hear_from(1);
    late.decided(&[1, 2, 3], Vec::new());
    late.hear_from(1);
    late.hear_from(2);
    assert!(
        matches!(late.machine.standing(), Standing::Resuming { reason, .. } if reason.contains("the chain has begun"))
    );
    assert!(!late.signs_a_payment(0));
}

#[test]
fn a_lost_log_is_made_good_by_a_resume_after_a_whole_era_without_a_sighting() {
    let mut node = Node::with(0, lost());
    node.hear_from(1);
    node.hear_from(2);
    assert_eq!(resume_in(&node.decided(&[1, 2, 3], Vec::new())), None, "the first era was not seen whole");
    let outputs = node.decided(&[1, 2, 3], Vec::new());
    let resume = resume_in(&outputs).expect("era 2 was quiet");
    assert_eq!(node.stage(), Stage::Submitted { height: 3 });
    assert!(!node.signs_a_payment(0));
    node.decided(&[1, 2, 3], vec![resume]);
    assert!(matches!(node.machine.standing(), Standing::Listening { .. }));
    node.hear_from(1);
    let outputs = node.hear_from(2);
    assert!(outputs.iter().any(|output| matches!(output, Output::Sign { since: Some(NEW), .. })));
    assert!(signed(&outputs), "the payment that waited");
}

#[test]
fn what_another_process_signed_before_the_block_that_lets_this_one_in_is_no_sighting() {
    let mut node = Node::with(0, lost());
    node.hear_from(1);
    node.decided(&[1, 2, 3], Vec::new());
    let resume = resume_in(&node.decided(&[1, 2, 3], Vec::new())).expect("era 2 was quiet");
    node.decided(&[0, 1, 2], vec![resume]);
    assert!(matches!(node.machine.standing(), Standing::Listening { .. }));
    assert_eq!(elsewhere(&node.decided(&[1, 2, 3], Vec::new())), None, "block 4 counts who signed block 3");
    assert!(matches!(node.machine.standing(), Standing::Listening { .. }));
    let outputs = node.decided(&[0, 1, 2], Vec::new());
    assert_eq!(elsewhere(&outputs), Some("a precommit for block 5"), "the other one goes on");
}

#[test]
fn an_era_with_a_sighting_is_not_quiet_and_the_next_one_without_is() {
    let mut node = Node::with(0, lost());
    node.hear_from(1);
    node.decided(&[1, 2, 3], Vec::new());
    node.receive(1, node.batch_of(0, 0, true));
    assert_eq!(resume_in(&node.decided(&[1, 2, 3], Vec::new())), None);
    assert!(matches!(node.stage(), Stage::Sighted { height: 2, .. }));
    assert!(resume_in(&node.decided(&[1, 2, 3], Vec::new())).is_some());
}

#[test]
fn blocks_that_are_caught_up_with_are_no_eras_that_were_watched() {
    let mut node = Node::with(0, lost());
    let mut ahead = Node::with(0, lost());
    ahead.hear_from(1);
    (0..5).for_each(|_| drop(ahead.decided(&[1, 2, 3], Vec::new())));
    node.connect(1);
    node.receive(1, ahead.status());
    for _ in 0..4 {
        assert_eq!(resume_in(&node.decided(&[1, 2, 3], Vec::new())), None);
    }
}

#[test]
fn a_certificate_that_counts_an_own_vote_the_log_lacks_shows_that_the_log_is_old() {
    let mut node = Node::new(0);
    node.connect(1);
    let outputs = node.decided(&[0, 1, 2], Vec::new());
    assert_eq!(elsewhere(&outputs), Some("a precommit for block 1"));
    assert!(!node.signs_a_payment(0));
    let mut good = Node::new(0);
    good.connect(1);
    assert_eq!(elsewhere(&good.decided(&[1, 2, 3], Vec::new())), None);
}

#[test]
fn after_the_resume_of_another_process_nothing_is_signed_and_block_and_height_are_told() {
    let mut node = Node::new(0);
    node.hear_from(1);
    node.hear_from(2);
    assert!(node.signs_a_payment(0));
    let foreign = resume_of(&node, 0, OLD);
    node.decided(&[1, 2, 3], vec![foreign]);
    let block = node.host.tip().block;
    assert_eq!(node.machine.standing(), Standing::Displaced { height: 1, block });
    node.hear_from(1);
    node.hear_from(2);
    assert!(!node.signs_a_payment(1));
    let outputs = node.wake_at(node.now_us + 60_000_000);
    assert!(!signed(&outputs) && halted(&outputs).is_none());
    // It follows.
    node.decided(&[1, 2, 3], Vec::new());
    assert_eq!(node.machine.view().height, 3);
}

/// The registry after a `Resume` with `nonce` in block 1, and a machine that starts on it.
fn restarted_after(nonce: Nonce, start: Start) -> Node {
    let mut before = Node::with(0, lost());
    before.connect(1);
    let resume = resume_of(&before, 0, nonce);
    before.decided(&[1, 2, 3], vec![resume]);
    let signer: Box<dyn Signer> = Box::new(vote_key(0));
    let machine = Machine::new(Some(signer), Timing::of(NetworkKind::Devnet), &before.host, start);
    let mut node = Node { machine, host: before.host, now_us: before.now_us };
    node.step(Input::Start);
    node
}

#[test]
fn a_resume_that_took_effect_while_the_node_was_down_is_known_by_its_number() {
    let mut own = restarted_after(OLD, Start::Lost { reason: "lost".into(), tried: vec![OLD], nonce: NEW });
    assert!(matches!(own.machine.standing(), Standing::Listening { .. }));
    own.hear_from(1);
    let outputs = own.hear_from(2);
    assert!(outputs.iter().any(|output| matches!(output, Output::Sign { since: Some(OLD), .. })));
    let whole = restarted_after(OLD, Start::Whole { since: vec![Some(OLD)], nonce: NEW });
    assert!(matches!(whole.machine.standing(), Standing::Listening { .. }));
    for start in [Start::Whole { since: vec![None], nonce: NEW }, lost()] {
        let foreign = restarted_after(OLD, start);
        assert!(matches!(foreign.machine.standing(), Standing::Resuming { .. }));
    }
}

#[test]
fn the_next_resume_waits_for_the_interval_of_the_chain() {
    let mut node = restarted_after(OLD, lost());
    node.connect(1);
    node.decided(&[1, 2, 3], Vec::new());
    node.decided(&[1, 2, 3], Vec::new());
    let height = 1 + node.host.params().resume_interval_blocks;
    assert_eq!(node.stage(), Stage::NotBefore { height });
    let entry = node.host.masternode_of(&vote_key(0).public()).unwrap();
    assert_eq!(entry.status, MasternodeStatus::Active);
}

#[test]
fn while_a_process_with_the_same_key_is_connected_a_whole_era_is_listened_to() {
    let mut node = Node::with(0, whole());
    let told = node.step(Input::PeerUp { peer: peer(8), vote_key: Some(vote_key(0).public()) });
    assert!(
        told.iter().any(
            |output| matches!(output, Output::Notice(Notice::SameKey { peer: twin }) if *twin == peer(8))
        )
    );
    node.hear_from(1);
    node.hear_from(2);
    assert!(matches!(node.machine.standing(), Standing::Listening { .. }));
    for _ in 0..2 {
        node.decided(&[1, 2, 3], Vec::new());
        node.hear_from(1);
        node.hear_from(2);
    }
    assert_eq!(node.machine.standing(), Standing::Signing);
}

#[test]
fn a_key_that_a_connected_process_holds_is_taken_over_after_three_quiet_eras_in_a_row() {
    let mut node = Node::with(0, lost());
    node.connect(1);
    node.step(Input::PeerUp { peer: peer(8), vote_key: Some(vote_key(0).public()) });
    let era = |node: &mut Node, voters: &[u8]| resume_in(&node.decided(voters, Vec::new())).is_some();
    // The first one was not entered with the others.
    assert!(!era(&mut node, &[1, 2, 3]));
    assert!(!era(&mut node, &[1, 2, 3]) && !era(&mut node, &[1, 2, 3]));
    // One in which it is counted begins the row anew, after the one whose block tells of it.
    assert!(!era(&mut node, &[0, 1, 2]) && !era(&mut node, &[1, 2, 3]));
    assert!(!era(&mut node, &[1, 2, 3]) && !era(&mut node, &[1, 2, 3]));
    assert!(era(&mut node, &[1, 2, 3]));
}

#[test]
fn a_node_held_back_signs_nothing_follows_and_signs_again_when_it_has_heard_a_quorum() {
    let mut node = Node::with(0, whole());
    node.hear_from(1);
    node.hear_from(2);
    assert_eq!(node.machine.standing(), Standing::Signing);
    assert!(node.signs_a_payment(0));
    let full = || Input::Hold { reason: Some("the disk is full".to_owned()) };
    node.step(full());
    assert_eq!(node.machine.standing(), Standing::Held { reason: "the disk is full".to_owned() });
    assert!(!node.signs_a_payment(1));
    node.receive(1, node.status());
    node.receive(2, node.status());
    assert!(matches!(node.machine.standing(), Standing::Held { .. }), "whoever is heard");
    assert!(!signed(&node.decided(&[1, 2, 3], Vec::new())));
    assert_eq!(node.machine.era().height, 2, "it follows the chain");
    let outputs = node.step(Input::Hold { reason: None });
    assert!(!signed(&outputs));
    assert_eq!(node.machine.standing(), Standing::Listening { heard_weight: 1, quorum_weight: 3 });
    node.receive(1, node.status());
    let outputs = node.receive(2, node.status());
    assert_eq!(node.machine.standing(), Standing::Signing);
    assert!(outputs.iter().any(|output| matches!(output, Output::Sign { .. })));
    assert!(signed(&outputs), "the payment that waited");
}

#[test]
fn a_node_held_back_within_an_era_keeps_its_locks_and_its_place_in_its_stream() {
    let mut node = Node::with(0, whole());
    node.hear_from(1);
    node.hear_from(2);
    assert!(node.signs_a_payment(0));
    let (head, locks) = (node.machine.view().stream_heads, node.machine.era.next_sequence);
    node.step(Input::Hold { reason: Some("the disk is full".to_owned()) });
    node.receive(1, node.status());
    node.receive(2, node.status());
    let outputs = node.step(Input::Hold { reason: None });
    assert_eq!(node.machine.standing(), Standing::Signing);
    assert_eq!((node.machine.view().stream_heads, node.machine.era.next_sequence), (head, locks));
    assert!(!signed(&outputs), "what was signed is sent again, not signed again");
    // A rival of the payment that was prepared before.
    let mut rival = node.payment(0);
    rival.outputs[0].value = Amount::from_time(8).unwrap();
    rival.sign(node.host.chain(), &payer());
    assert!(!signed(&node.submit(rival)));
}
