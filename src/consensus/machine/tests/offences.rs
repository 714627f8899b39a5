//! What becomes evidence, and what does not. Every message passes the real signature check.

use super::*;
use crate::consensus::verify::{verify_decided, verify_real};
use crate::primitives::block::Block;
use crate::primitives::certificate::Certificate;
use crate::primitives::evidence::{Evidence, Offence};
use crate::primitives::hash::Hash;
use crate::primitives::keys::verify_batch;
use crate::primitives::merkle::Phase;
use crate::primitives::message::Proposal;

const A: Option<BlockId> = Some(BlockId(Hash([9; 32])));
const B: Option<BlockId> = Some(BlockId(Hash([8; 32])));

impl Node {
    /// Feeds a message as a node does: signatures checked first, what is handed back checked again.
    pub(super) fn hear(&mut self, from: u8, message: Message) -> Vec<Output> {
        let mut outputs = Vec::new();
        let mut waiting = vec![message];
        while let Some(message) = waiting.pop() {
            let checked = verify_real(vec![message], &self.machine.era()).remove(0).unwrap();
            for output in self.step(Input::Message { from: peer(from), message: checked }) {
                match output {
                    Output::Replay(messages) => waiting.extend(messages.into_iter().map(|(_, m)| m)),
                    output => outputs.push(output),
                }
            }
        }
        outputs
    }

    pub(super) fn batch(&self, node: u8, sequence: u32, last: bool, prepares: &[&Transaction]) -> VoteBatch {
        self.batch_with(node, sequence, last, prepares, &[])
    }

    pub(super) fn batch_with(
        &self,
        node: u8,
        sequence: u32,
        last: bool,
        prepares: &[&Transaction],
        commits: &[&Transaction],
    ) -> VoteBatch {
        let mut batch = VoteBatch {
            era_tag: self.machine.context.era_tag,
            voter: self.index_of(node),
            sequence,
            last,
            prepares: prepares.iter().map(|payment| payment.id()).collect(),
            commits: commits.iter().map(|payment| payment.id()).collect(),
            signature: Signature([0; 64]),
        };
        batch.signature = vote_key(node).sign(&batch.digest());
        batch
    }

    pub(super) fn qc(&self, round: u32, step: Step, block: Option<BlockId>, nodes: &[u8]) -> Qc {
        let votes = nodes.iter().map(|node| match self.vote_of(*node, round, step, block) {
            Message::Vote(vote) => (vote.voter, vote.signature),
            other => panic!("{other:?}"),
        });
        Qc::new(round, step, block.unwrap(), votes.collect())
    }

    pub(super) fn proposer_of(&self, round: u32) -> u8 {
        let height = self.machine.context.height;
        let proposer = self.machine.context.committee.proposer(height, round).unwrap();
        (0..MEMBERS).find(|node| self.index_of(*node) == proposer).unwrap()
    }

    /// A valid block without transactions of the present height; `later_ms` makes it another one.
    pub(super) fn block(&self, later_ms: u64) -> Block {
        let proposer = self.machine.context.committee.members()[0].id;
        let tip = self.host.tip();
        self.host.build(proposer, tip.time_ms + 1 + later_ms, tip.commit, Vec::new()).unwrap()
    }

    fn proposal(&self, round: u32, block: &Block) -> Message {
        let era_tag = self.machine.context.era_tag;
        let signature = Signature([0; 64]);
        let mut proposal =
            Proposal { era_tag, round, valid_round: -1, outline: block.outline(), pol: None, signature };
        proposal.signature = vote_key(self.proposer_of(round)).sign(&proposal.digest());
        Message::Proposal(proposal)
    }

    /// The decision of the present height arrives as a block with its certificate.
    pub(super) fn decide(&mut self, block: &Block, qc: Qc) -> Vec<Output> {
        let checked = verify_decided(block.clone(), qc, &self.machine.era(), &verify_batch).unwrap();
        self.step(Input::Decided { from: peer(1), block: checked })
    }

    /// Another payment of the same coin.
    fn rival_of(&self, payment: &Transaction) -> Transaction {
        let mut rival = payment.clone();
        rival.expiry += 1;
        rival.sign(self.host.chain(), &payer());
        rival
    }
}

/// What was proved, each proof checked.
pub(super) fn proved(outputs: &[Output]) -> Vec<Evidence> {
    let mut found = Vec::new();
    for output in outputs {
        if let Output::Notice(Notice::Equivocation { evidence, .. }) = output {
            let checks = evidence.checks().unwrap();
            assert!(verify_batch(&checks).iter().all(|valid| *valid), "{evidence:?}");
            found.push((**evidence).clone());
        }
    }
    found
}

/// The one proof, which must be against `node`.
fn proved_of(node: u8, outputs: &[Output]) -> Offence {
    let found = proved(outputs);
    let [evidence] = found.as_slice() else { panic!("not one proof: {found:?}") };
    assert_eq!(evidence.vote_key, vote_key(node).public());
    evidence.offence.clone()
}

/// The records among the outputs: the log.
pub(super) fn log_of(outputs: &[Output]) -> Vec<(u64, Record)> {
    let mut log = Vec::new();
    for output in outputs {
        if let Output::Persist { height, record } = output {
            log.push((*height, record.clone()));
        }
    }
    log
}

/// Node 0, connected to all others.
pub(super) fn start() -> Node {
    let mut node = Node::new(0);
    for other in 1..MEMBERS {
        node.connect(other);
    }
    node
}

#[test]
fn two_votes_of_one_round_and_step_are_proved_once() {
    let mut node = start();
    assert_eq!(proved(&node.hear(1, node.vote_of(1, 0, Step::Prevote, A))), []);
    assert_eq!(proved(&node.hear(2, node.vote_of(1, 0, Step::Prevote, A))), [], "the same vote again");
    assert_eq!(proved(&node.hear(1, node.vote_of(1, 0, Step::Precommit, None))), [], "another step");
    assert_eq!(proved(&node.hear(1, node.vote_of(1, 1, Step::Prevote, None))), [], "another round");
    let offence = proved_of(1, &node.hear(1, node.vote_of(1, 0, Step::Prevote, None)));
    assert!(matches!(offence, Offence::Votes { round: 0, step: Step::Prevote, .. }));
    assert_eq!(proved(&node.hear(1, node.vote_of(1, 0, Step::Prevote, B))), [], "once an era");
}

#[test]
fn the_votes_in_a_prevote_quorum_count_as_single_ones() {
    let mut node = start();
    node.hear(1, node.vote_of(1, 0, Step::Prevote, None));
    let era_tag = node.machine.context.era_tag;
    let qc = node.qc(0, Step::Prevote, A, &[1, 2, 3]);
    proved_of(1, &node.hear(2, Message::Pol { era_tag, qc }));
    proved_of(2, &node.hear(2, node.vote_of(2, 0, Step::Prevote, B)));
}

#[test]
fn the_votes_in_a_commit_certificate_count_as_single_ones() {
    let mut node = start();
    node.hear(1, node.vote_of(1, 3, Step::Precommit, None));
    let commit = |node: &Node, block| {
        let qc = node.qc(3, Step::Precommit, block, &[1, 2, 3]);
        Message::Commit { height: 1, qc }
    };
    proved_of(1, &node.hear(2, commit(&node, A)));
    // Two certificates for one height: the rest of both signed twice.
    let found = proved(&node.hear(2, commit(&node, B)));
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn two_proposals_of_one_round_are_proved_also_when_the_round_is_over() {
    let timing = Timing::of(NetworkKind::Devnet);
    let mut node = start();
    let proposer = node.proposer_of(1);
    assert_ne!(proposer, 0, "the test needs a proposer that is not this node");
    node.wake_at(timing.era_us + 2 * MS);
    let (one, other) = (node.block(0), node.block(1));
    node.hear(proposer, node.proposal(1, &one));
    assert_eq!(proved(&node.hear(proposer, node.proposal(1, &one))), [], "the same proposal again");
    for voter in [1, 2] {
        node.hear(voter, node.vote_of(voter, 5, Step::Prevote, None));
    }
    assert_eq!(node.machine.view().round, 5);
    let offence = proved_of(proposer, &node.hear(proposer, node.proposal(1, &other)));
    assert!(matches!(offence, Offence::Proposals { round: 1, .. }));
}

#[test]
fn batches_that_exclude_each_other_are_proved() {
    let with = |batches: &[(u32, bool, usize)]| {
        let mut node = start();
        let outputs = batches.iter().flat_map(|(sequence, last, coin)| {
            let batch = node.batch(1, *sequence, *last, &[&node.payment(*coin)]);
            node.hear(1, Message::VoteBatch(batch))
        });
        outputs.collect::<Vec<_>>()
    };
    assert!(
        matches!(proved_of(1, &with(&[(0, false, 0), (0, false, 1)])), Offence::Batches(..)),
        "two of a number"
    );
    assert!(
        matches!(proved_of(1, &with(&[(0, true, 0), (1, false, 1)])), Offence::Batches(..)),
        "after the last"
    );
    assert!(
        matches!(proved_of(1, &with(&[(2, false, 0), (1, true, 1)])), Offence::Batches(..)),
        "last too early"
    );
    assert_eq!(proved(&with(&[(0, false, 0), (0, false, 0), (2, true, 2), (1, false, 1), (2, true, 2)])), []);
    // Later versions are more of the same.
    assert_eq!(proved(&with(&[(0, false, 0), (0, false, 1), (0, false, 2), (0, true, 3)])).len(), 1);
}

#[test]
fn prepares_for_two_payments_of_one_coin_are_proved_in_whatever_order_things_arrive() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Part {
        Body,
        Rival,
        Votes,
        VotesForRival,
        Both,
    }
    use Part::{Body, Both, Rival, Votes, VotesForRival};
    let orders = [
        [Body, Rival, Votes, VotesForRival],
        [Body, Votes, Rival, VotesForRival],
        [Body, Votes, VotesForRival, Rival],
        [Votes, VotesForRival, Rival, Body],
        [Votes, Body, VotesForRival, Rival],
        [VotesForRival, Rival, Votes, Body],
        [Body, Rival, Both, Both],
        [Both, Body, Rival, Rival],
    ];
    for order in orders {
        for (phase, voter) in [(Phase::Prepare, 1), (Phase::Commit, 2)] {
            let mut node = start();
            let payment = node.payment(0);
            let rival = node.rival_of(&payment);
            let votes = |node: &Node, sequence, of: &[&Transaction]| {
                Message::VoteBatch(match phase {
                    Phase::Prepare => node.batch_with(voter, sequence, false, of, &[]),
                    _ => node.batch_with(voter, sequence, false, &[], of),
                })
            };
            let outputs: Vec<Output> = order
                .into_iter()
                .flat_map(|part| match part {
                    Body => node.hear(3, Message::Transactions(vec![payment.clone()])),
                    Rival => node.hear(3, Message::Transactions(vec![rival.clone()])),
                    Votes => node.hear(voter, votes(&node, 0, &[&payment])),
                    VotesForRival => node.hear(voter, votes(&node, 1, &[&rival])),
                    Both => node.hear(voter, votes(&node, 0, &[&payment, &rival])),
                })
                .collect();
            let offence = proved_of(voter, &outputs);
            assert!(matches!(offence, Offence::Payments { phase: of, .. } if of == phase), "{order:?}");
        }
    }
}

#[test]
fn rival_payments_prepared_by_different_voters_are_no_offence() {
    let mut node = start();
    let payment = node.payment(0);
    let rival = node.rival_of(&payment);
    let mut outputs = node.submit(payment.clone());
    outputs.extend(node.hear(3, Message::Transaction(rival.clone())));
    outputs.extend(node.hear(1, Message::VoteBatch(node.batch(1, 0, false, &[&payment]))));
    outputs.extend(node.hear(2, Message::VoteBatch(node.batch(2, 0, false, &[&rival]))));
    outputs.extend(node.hear(3, Message::VoteBatch(node.batch(3, 0, false, &[&rival]))));
    // A commit of one and a prepare of the other may both be honest: a certificate came in between.
    outputs.extend(node.hear(1, Message::VoteBatch(node.batch_with(1, 1, false, &[], &[&rival]))));
    assert_eq!(proved(&outputs), []);
}

fn certificate(node: &Node, payment: &Transaction, voters: &[(u8, u32)]) -> Message {
    let proof = |(voter, sequence): &(u8, u32)| {
        node.batch(*voter, *sequence, false, &[payment]).proof(Phase::Prepare, &payment.id()).unwrap()
    };
    let proofs = voters.iter().map(proof).collect();
    let certificate = Certificate { txid: payment.id(), phase: Phase::Prepare, proofs };
    Message::Certificate { era_tag: node.machine.context.era_tag, certificate }
}

#[test]
fn a_vote_in_a_pulled_certificate_names_its_batch() {
    let mut node = start();
    let (payment, other) = (node.payment(0), node.payment(1));
    node.hear(1, Message::VoteBatch(node.batch(1, 0, false, &[&other])));
    node.hear(2, Message::VoteBatch(node.batch(2, 0, false, &[&payment])));
    let outputs = node.hear(3, certificate(&node, &payment, &[(1, 0), (2, 0), (3, 0)]));
    assert!(matches!(proved_of(1, &outputs), Offence::Batches(..)));
}

#[test]
fn a_vote_in_a_pulled_certificate_counts_against_votes_for_rivals() {
    let mut node = start();
    let payment = node.payment(0);
    let rival = node.rival_of(&payment);
    node.submit(payment.clone());
    node.hear(3, Message::Transaction(rival.clone()));
    node.hear(1, Message::VoteBatch(node.batch(1, 0, false, &[&rival])));
    let outputs = node.hear(3, certificate(&node, &payment, &[(1, 1), (2, 0), (3, 0)]));
    assert!(matches!(proved_of(1, &outputs), Offence::Payments { .. }));
    // And the other way round: the certificate is what is held.
    let outputs = node.hear(2, Message::VoteBatch(node.batch(2, 1, false, &[&rival])));
    assert!(matches!(proved_of(2, &outputs), Offence::Payments { .. }));
}

#[test]
fn two_certified_payments_of_one_coin_stop_the_node_with_the_names_of_the_faulty() {
    let mut node = start();
    let payment = node.payment(0);
    let rival = node.rival_of(&payment);
    node.submit(payment.clone());
    node.hear(3, Message::Transaction(rival.clone()));
    let mut outputs = Vec::new();
    for voter in 1..MEMBERS {
        outputs.extend(node.hear(voter, Message::VoteBatch(node.batch(voter, 0, false, &[&payment]))));
    }
    outputs.extend(node.wake_at(node.now_us + 50 * MS));
    assert_eq!(halted(&outputs), None);
    for voter in 1..MEMBERS {
        outputs.extend(node.hear(voter, Message::VoteBatch(node.batch(voter, 1, false, &[&rival]))));
    }
    let found = proved(&outputs);
    assert_eq!(found.len(), 3, "{found:?}");
    let reason = halted(&outputs).unwrap();
    for name in ["node 1", "node 2", "node 3"] {
        assert!(reason.contains(name), "{reason}");
    }
}

#[test]
fn a_decided_block_without_a_final_payment_stops_the_node() {
    let mut node = start();
    let payment = node.payment(0);
    node.submit(payment.clone());
    for voter in 1..MEMBERS {
        let batch = node.batch_with(voter, 0, true, &[&payment], &[&payment]);
        node.hear(voter, Message::VoteBatch(batch));
    }
    let block = node.block(0);
    for voter in 1..MEMBERS {
        node.hear(voter, node.vote_of(voter, 0, Step::Prevote, Some(block.id())));
    }
    let outputs = node.decide(&block, node.qc(0, Step::Precommit, Some(block.id()), &[1, 2, 3]));
    let reason = halted(&outputs).unwrap();
    assert!(reason.contains("without transaction") && reason.contains("node 3"), "{reason}");
    assert!(!outputs.iter().any(|output| matches!(output, Output::Committed { .. })));
}

#[test]
fn late_votes_against_the_decision_are_held_against_what_was_kept() {
    let mut node = start();
    let block = node.block(0);
    node.hear(1, node.vote_of(1, 0, Step::Prevote, A));
    let late_prevote = node.vote_of(1, 0, Step::Prevote, B);
    let late_precommit = node.vote_of(2, 0, Step::Precommit, None);
    let harmless =
        [node.vote_of(3, 0, Step::Precommit, Some(block.id())), node.vote_of(2, 1, Step::Prevote, None)];
    assert_eq!(proved(&node.decide(&block, node.qc(0, Step::Precommit, Some(block.id()), &[1, 2, 3]))), []);
    assert_eq!(node.machine.context.height, 2);
    proved_of(1, &node.hear(1, late_prevote));
    proved_of(2, &node.hear(2, late_precommit));
    for vote in harmless {
        assert_eq!(proved(&node.hear(3, vote)), []);
    }
}

#[test]
fn the_last_commit_of_a_proposal_is_held_against_votes_of_the_height_before() {
    let mut node = start();
    let block = node.block(0);
    // Decided by 0, 2 and 3 while 1 was seen to precommit nil; then a block tells that it did both.
    node.hear(1, node.vote_of(1, 0, Step::Precommit, None));
    let other_qc = node.qc(0, Step::Precommit, Some(block.id()), &[1, 2, 3]);
    let qc = node.qc(0, Step::Precommit, Some(block.id()), &[0, 2, 3]);
    assert_eq!(proved(&node.decide(&block, qc)), []);
    let proposer = node.machine.context.committee.members()[0].id;
    let tip = node.host.tip();
    let next = node.host.build(proposer, tip.time_ms + 1, Some(other_qc), Vec::new()).unwrap();
    let from = (0..3).find(|round| node.proposer_of(*round) != 0).unwrap();
    proved_of(1, &node.hear(1, node.proposal(from, &next)));
}

#[test]
fn a_commit_certificate_for_another_block_of_a_decided_height_stops_the_node_and_proves_who_forked() {
    let mut node = start();
    let block = node.block(0);
    let fork = Message::Commit { height: 1, qc: node.qc(0, Step::Precommit, A, &[1, 2, 3]) };
    let same = Message::Commit { height: 1, qc: node.qc(0, Step::Precommit, Some(block.id()), &[1, 2, 3]) };
    node.decide(&block, node.qc(0, Step::Precommit, Some(block.id()), &[0, 1, 2]));
    assert_eq!(halted(&node.hear(1, same)), None);
    let outputs = node.hear(1, fork);
    let found = proved(&outputs);
    // 3 precommitted only the other block as far as is known here.
    assert_eq!(found.len(), 2, "{found:?}");
    let reason = halted(&outputs).unwrap();
    assert!(reason.contains("both carry a commit quorum") && reason.contains("node 1, node 2"), "{reason}");
}

#[test]
fn a_peer_that_decided_another_block_is_sent_what_was_decided_here() {
    let mut node = start();
    let block = node.block(0);
    node.decide(&block, node.qc(0, Step::Precommit, Some(block.id()), &[1, 2, 3]));
    let mut status = node.machine.status();
    status.previous = BlockId(Hash([3; 32]));
    let outputs = node.hear(1, Message::Status(status));
    let sent = outputs.iter().any(|output| {
        matches!(output, Output::Send { to: Target::Peer(to), message: Message::Commit { height: 1, .. } }
            if *to == peer(1))
    });
    assert!(sent, "the other side could not prove who voted for both");
}

#[test]
fn votes_of_two_eras_exclude_nothing() {
    let mut node = start();
    let payment = node.payment(0);
    let rival = node.rival_of(&payment);
    node.submit(payment.clone());
    node.hear(3, Message::Transaction(rival.clone()));
    let mut outputs = node.hear(1, Message::VoteBatch(node.batch(1, 0, true, &[&payment])));
    outputs.extend(node.hear(1, node.vote_of(1, 0, Step::Prevote, None)));
    let block = node.block(0);
    outputs.extend(node.decide(&block, node.qc(0, Step::Precommit, Some(block.id()), &[1, 2, 3])));
    outputs.extend(node.hear(1, Message::VoteBatch(node.batch(1, 0, true, &[&rival]))));
    outputs.extend(node.hear(1, node.vote_of(1, 0, Step::Prevote, A)));
    assert_eq!(proved(&outputs), []);
}

#[test]
fn an_honest_restart_is_no_offence() {
    let timing = Timing::of(NetworkKind::Devnet);
    let (mut node, mut witness) = (Node::unstarted(1), start());
    let mut outputs = node.step(Input::Start);
    outputs.extend(node.hear_all(1));
    let payment = node.payment(0);
    outputs.extend(node.submit(payment));
    outputs.extend(node.wake_at(timing.era_us + 2 * MS));
    outputs.extend(node.wake_at(node.now_us + timing.propose_us + timing.prevote_us));
    let mut again = Node::unstarted(1);
    again.machine.restore(&mut again.host, log_of(&outputs)).unwrap();
    outputs.extend(again.step(Input::Start));
    outputs.extend(again.hear_all(1));
    outputs.extend(again.wake_at(timing.era_us + timing.propose_us * 4));
    let mut signed = 0;
    for output in outputs {
        if let Output::Send { to: Target::All, message } = output {
            signed += u32::from(matches!(message, Message::VoteBatch(_) | Message::Vote(_)));
            assert_eq!(proved(&witness.hear(1, message)), []);
        }
    }
    assert!(signed >= 6, "{signed} signed messages are too few to show anything");
}

#[test]
fn an_offence_in_the_log_is_told_after_the_start() {
    let mut node = Node::unstarted(0);
    let mut outputs = node.step(Input::Start);
    outputs.extend(node.hear_all(0));
    let payment = node.payment(0);
    outputs.extend(node.submit(payment));
    for (voter, coin) in [(1, 0), (1, 1), (2, 0), (3, 0)] {
        let batch = node.batch(voter, 0, false, &[&node.payment(coin)]);
        outputs.extend(node.hear(voter, Message::VoteBatch(batch)));
    }
    outputs.extend(node.wake_at(50 * MS));
    let offence = proved_of(1, &outputs);
    let mut again = Node::unstarted(0);
    again.machine.restore(&mut again.host, log_of(&outputs)).unwrap();
    assert_eq!(proved_of(1, &again.step(Input::Start)), offence);
}

#[test]
fn every_batch_in_the_log_is_held_after_a_restart_whatever_the_limits_of_a_voter() {
    let node = Node::unstarted(0);
    let batch = |sequence: u32| {
        let id = |n: u32| {
            Txid(crate::primitives::hash::hash(
                crate::primitives::hash::Domain::PEER,
                &[&sequence.to_le_bytes(), &n.to_le_bytes()],
            ))
        };
        let mut batch = node.batch(1, sequence, false, &[]);
        batch.prepares = (0..16_384).map(id).collect();
        batch.signature = vote_key(1).sign(&batch.digest());
        (1, Record::PeerBatch(batch))
    };
    let mut again = Node::unstarted(0);
    assert!(again.machine.era.votes_max < 2 * 16_384);
    again.machine.restore(&mut again.host, vec![batch(0), batch(1)]).unwrap();
    let voter = usize::from(again.index_of(1));
    assert_eq!(again.machine.view().stream_heads[voter], 2);
}
