//! What the machine tells of votes and rounds that are missing.

use super::*;
use crate::consensus::cause::{Absence, Gap, OwnAbsence, StallReason};
use crate::primitives::message::{Proposal, Status};

const TIMING: Timing = Timing::of(NetworkKind::Devnet);

/// The node that proposes in round 0 of height 1, and the others.
fn proposer() -> (u8, [u8; 3]) {
    let probe = Node::new(0);
    let first = probe.machine.context.committee.proposer(1, 0).unwrap();
    let node = (0..MEMBERS).find(|node| probe.index_of(*node) == first).unwrap();
    let others: Vec<u8> = (0..MEMBERS).filter(|other| *other != node).collect();
    (node, others.try_into().unwrap())
}

fn notices(outputs: &[Output]) -> Vec<&Notice> {
    let mut notices = Vec::new();
    for output in outputs {
        if let Output::Notice(notice) = output {
            notices.push(notice);
        }
    }
    notices
}

fn attendance(outputs: &[Output]) -> (Vec<(VoterIndex, Absence)>, Option<OwnAbsence>) {
    let found = notices(outputs).into_iter().find_map(|notice| match notice {
        Notice::Attendance { height: 1, absent, own } => Some((absent.clone(), own.clone())),
        _ => None,
    });
    found.unwrap()
}

/// Step, reason and who is missing of the only stalled round told.
fn stall(outputs: &[Output]) -> (Option<Step>, StallReason, Vec<(VoterIndex, Absence)>) {
    let found = notices(outputs).into_iter().filter_map(|notice| match notice {
        Notice::RoundStalled { step, reason, missing, .. } => Some((*step, reason.clone(), missing.clone())),
        _ => None,
    });
    let found: Vec<_> = found.collect();
    let [only] = found.as_slice() else { panic!("not one stalled round: {found:?}") };
    only.clone()
}

impl Node {
    /// Two others end their streams, so this node freezes; as proposer it proposes.
    fn freeze_with(&mut self, voters: &[u8]) {
        for voter in voters {
            self.receive(*voter, self.batch_of(*voter, 0, true));
        }
        assert!(self.machine.view().frozen);
    }

    fn proposed(&self) -> Proposal {
        self.machine.checkpoint.rounds.find(0).and_then(|round| round.proposal.clone()).unwrap()
    }

    fn votes(&mut self, step: Step, block: Option<BlockId>, voters: &[u8]) -> Vec<Output> {
        voters.iter().flat_map(|voter| self.receive(*voter, self.vote_of(*voter, 0, step, block))).collect()
    }

    fn away(&mut self, node: u8) {
        self.step(Input::PeerDown { peer: peer(node) });
    }
}

/// A proposer that decides height 1 with the first two others; `before` sets the stage for the third.
fn decided_without_the_third(before: impl Fn(&mut Node, u8)) -> (Node, u8, Absence) {
    let (number, [left, right, third]) = proposer();
    let mut node = Node::new(number);
    for other in [left, right, third] {
        node.connect(other);
    }
    node.now_us += 7;
    node.freeze_with(&[left, right]);
    node.wake_at(node.now_us + TIMING.grace_us);
    let block = Some(node.proposed().outline.header.id());
    before(&mut node, third);
    node.votes(Step::Prevote, block, &[left, right]);
    let (voter, outputs) = (node.index_of(third), node.votes(Step::Precommit, block, &[left, right]));
    let (absent, own) = attendance(&outputs);
    assert_eq!(own, None, "this node signed");
    let [(absentee, absence)] = absent.as_slice() else { panic!("not one absent: {absent:?}") };
    assert_eq!(*absentee, voter);
    (node, third, *absence)
}

#[test]
fn each_way_to_be_absent_from_a_decision_is_told_apart() {
    let absence = |before: fn(&mut Node, u8)| decided_without_the_third(before).2;
    assert_eq!(absence(|_, _| {}), Absence::Silent);
    let left = absence(|node, third| {
        node.now_us += 5;
        node.away(third);
    });
    assert_eq!(left, Absence::NotConnected { since_us: Some(MS + 7 + TIMING.grace_us + 5) });
    let not_frozen = absence(|node, third| drop(node.receive(third, node.batch_of(third, 0, false))));
    assert_eq!(not_frozen, Absence::NotFrozen);
    let no_vote = absence(|node, third| drop(node.receive(third, node.batch_of(third, 0, true))));
    assert_eq!(no_vote, Absence::NoVote);
    let nil = absence(|node, third| drop(node.votes(Step::Prevote, None, &[third])));
    assert_eq!(nil, Absence::VotedNil { round: 0, step: Step::Prevote });
    let other = absence(|node, third| {
        node.votes(Step::Precommit, Some(BlockId(crate::primitives::hash::Hash([9; 32]))), &[third]);
    });
    assert_eq!(other, Absence::VotedOther { round: 0, step: Step::Precommit });
    let ahead = absence(|node, third| {
        node.receive(third, node.vote_of(third, 3, Step::Prevote, None));
    });
    assert_eq!(ahead, Absence::OtherRound { round: 3 });
    let prevoted = absence(|node, third| {
        node.votes(Step::Prevote, Some(node.proposed().outline.header.id()), &[third]);
    });
    assert_eq!(prevoted, Absence::NoPrecommit { round: 0 });
}

#[test]
fn a_member_that_says_it_is_lower_is_behind_and_one_never_seen_is_not_connected() {
    let (mut node, third, _) = decided_without_the_third(|_, _| {});
    let status = Status {
        height: 1,
        previous: BlockId::default(),
        round: 0,
        has_proposal: false,
        prevotes: Vec::new(),
        precommits: Vec::new(),
        stream_heads: Vec::new(),
    };
    node.receive(third, Message::Status(status));
    assert_eq!(node.machine.absence_of(node.index_of(third), 0), Absence::Behind { height: 1 });
    let alone = Node::new(0);
    assert_eq!(alone.machine.absence_of(alone.index_of(1), 0), Absence::NotConnected { since_us: None });
}

#[test]
fn a_late_precommit_says_how_late_it_is() {
    let (mut node, third, _) = decided_without_the_third(|_, _| {});
    let (tag, block) = {
        let last = node.machine.last_commit.as_ref().unwrap();
        (last.era_tag, Some(last.id))
    };
    node.now_us += 312 * MS;
    let signature = vote_key(third).sign(&vote_digest(tag, 0, Step::Precommit, block));
    let voter = node.index_of(third);
    let vote = Vote { era_tag: tag, round: 0, step: Step::Precommit, block, voter, signature };
    let outputs = node.receive(third, Message::Vote(vote));
    let late = Notice::LatePrecommit { height: 1, voter, late_us: 312 * MS };
    assert!(notices(&outputs).contains(&&late), "{outputs:?}");
}

/// A node that does not propose, connected to `connected` of the others (the proposer is the last), and
/// frozen by its own timer.
fn frozen_member(connected: usize) -> (Node, [u8; 3]) {
    let (proposer, [me, left, right]) = proposer();
    let mut node = Node::new(me);
    for other in [left, right, proposer].into_iter().take(connected) {
        node.connect(other);
    }
    node.wake_at(TIMING.era_us + 2 * MS);
    (node, [left, right, proposer])
}

/// Others decide the block `proposed` elsewhere, with the proposer's own vote; what this node says of
/// itself.
fn own_cause_when_others_decide(node: &mut Node, voters: [u8; 3], block: Option<BlockId>) -> OwnAbsence {
    let outputs = node.votes(Step::Precommit, block, &voters);
    attendance(&outputs).1.unwrap()
}

/// The block of the proposer of round 0 is pulled, with the precommits of these; what is told then.
fn pulled(node: &mut Node, signers: &[u8]) -> (Vec<(VoterIndex, Absence)>, Option<OwnAbsence>) {
    let Outline { header, last_commit, .. } = proposal().outline;
    let block = Block { header, last_commit, transactions: Vec::new() };
    let votes = signers.iter().map(|signer| (node.index_of(*signer), Signature([0; 64]))).collect();
    let qc = Qc::new(0, Step::Precommit, block.id(), votes);
    let block = Verified { value: (block, qc), era: node.machine.context.era_tag };
    attendance(&node.step(Input::Decided { from: peer(signers[0]), block }))
}

fn member_in_the_era() -> (Node, [u8; 3]) {
    let (proposer, [me, left, right]) = proposer();
    let mut node = Node::new(me);
    for other in [left, right, proposer] {
        node.connect(other);
    }
    node.now_us += 700 * MS;
    (node, [left, right, proposer])
}

#[test]
fn who_signed_what_was_caught_up_is_not_known_and_this_node_had_not_frozen() {
    let (mut node, [left, right, proposer]) = member_in_the_era();
    let absent = node.index_of(right);
    let (others, own) = pulled(&mut node, &[left, proposer]);
    assert_eq!(others, [(absent, Absence::Unobserved)]);
    assert_eq!(own, Some(OwnAbsence::NotFrozen { era_us: 700 * MS }));
}

#[test]
fn a_node_that_others_have_left_behind_says_so() {
    let (mut node, others) = member_in_the_era();
    node.machine.peers.find(&peer(others[0])).unwrap().height = 5;
    assert_eq!(pulled(&mut node, &others).1, Some(OwnAbsence::Behind { best: 5 }));
    assert!(node.machine.checkpoint.watch.entered_behind, "height 2 too is entered behind the others");
}

#[test]
fn a_node_that_heard_too_few_prevotes_says_so() {
    let (mut node, [left, right, proposer]) = frozen_member(3);
    node.receive(proposer, Message::Proposal(proposal()));
    node.votes(Step::Prevote, None, &[left, right]);
    let outputs = node.wake_at(node.now_us + TIMING.prevote_us + MS);
    assert!(matches!(stall(&outputs), (Some(Step::Prevote), StallReason::Split { .. }, _)), "{outputs:?}");
    let committee = &node.machine.context.committee;
    let (heard, quorum) = (3 * committee.weight(0), committee.quorum());
    let own = pulled(&mut node, &[left, right, proposer]).1;
    assert_eq!(own, Some(OwnAbsence::NoPrevoteQuorum { round: 0, heard, quorum }));
}

/// The proposal of the proposer of round 0, and its batches that make it ready.
fn proposal() -> Proposal {
    let (number, [left, right, _]) = proposer();
    let mut node = Node::new(number);
    node.freeze_with(&[left, right]);
    node.wake_at(node.now_us + TIMING.grace_us);
    node.proposed()
}

#[test]
fn a_round_without_a_proposal_names_its_proposer_and_is_the_own_cause() {
    let (mut node, others) = frozen_member(2);
    let proposer = node.index_of(others[2]);
    let outputs = node.wake_at(node.now_us + TIMING.propose_us + MS);
    let absence = Absence::NotConnected { since_us: None };
    let reason = StallReason::NoProposal { proposer, absence };
    assert_eq!(stall(&outputs), (None, reason, vec![(proposer, absence)]));
    let proposal = proposal();
    let block = Some(proposal.outline.header.id());
    node.receive(others[2], Message::Proposal(proposal));
    assert_eq!(
        own_cause_when_others_decide(&mut node, others, block),
        OwnAbsence::NoProposal { round: 0, proposer }
    );
}

#[test]
fn without_a_connected_quorum_that_is_the_own_cause() {
    let (mut node, others) = frozen_member(1);
    let proposal = proposal();
    let block = Some(proposal.outline.header.id());
    node.wake_at(node.now_us + TIMING.propose_us + MS);
    node.receive(others[2], Message::Proposal(proposal));
    let quorum = node.machine.context.committee.quorum();
    let connected = node.machine.context.committee.weight(0) * 2;
    assert_eq!(
        own_cause_when_others_decide(&mut node, others, block),
        OwnAbsence::NoQuorum { connected, quorum }
    );
}

#[test]
fn bodies_that_do_not_come_are_counted_with_whom_they_were_asked_of() {
    let (mut node, others) = frozen_member(3);
    let proposer = node.index_of(others[2]);
    let mut proposal = proposal();
    let payment = SealedTransaction::new(node.payment(0));
    proposal.outline.txids = vec![payment.id()];
    node.receive(others[2], Message::Proposal(proposal));
    node.wake_at(node.now_us + MS);
    let outputs = node.wake_at(node.now_us + TIMING.propose_us);
    let reason = StallReason::NoBodies { proposer, missing: 1, asked: Some(proposer) };
    assert_eq!(stall(&outputs), (None, reason, Vec::new()));
    let own = node.machine.checkpoint.watch.own_nil.clone();
    let bodies = OwnAbsence::NoBodies { round: 0, missing: 1, asked: Some(proposer) };
    assert_eq!(own, Some((0, bodies)));
}

#[test]
fn a_refused_proposal_is_the_reason_of_the_round_and_the_own_cause() {
    let (mut node, others) = frozen_member(3);
    let mut proposal = proposal();
    proposal.outline.header.time_ms = 1;
    node.receive(others[2], Message::Proposal(proposal));
    node.votes(Step::Precommit, None, &others);
    let outputs = node.wake_at(node.now_us + TIMING.precommit_us + MS);
    let (step, reason, missing) = stall(&outputs);
    let StallReason::Refused { reason } = reason else { panic!("{reason:?}") };
    assert_eq!(step, Some(Step::Precommit));
    assert!(!reason.is_empty());
    let own = node.machine.checkpoint.watch.own_nil.clone();
    assert_eq!(own, Some((0, OwnAbsence::Refused { round: 0, reason })));
    assert_eq!(missing, [(node.machine.me.unwrap(), Absence::NotSigning)]);
}

#[test]
fn split_votes_are_told_with_their_weights() {
    let (mut node, [left, right, proposer]) = frozen_member(3);
    let block = Some(BlockId(crate::primitives::hash::Hash([9; 32])));
    node.votes(Step::Precommit, block, &[left, right]);
    node.votes(Step::Precommit, None, &[proposer]);
    let outputs = node.wake_at(node.now_us + TIMING.precommit_us + MS);
    let weight = node.machine.context.committee.weight(0);
    let (_, reason, _) = stall(&outputs);
    assert_eq!(reason, StallReason::Split { votes: vec![(block, 2 * weight), (None, weight)] });
}

#[test]
fn a_round_that_waits_for_a_quorum_is_told_ever_more_seldom() {
    let (mut node, [left, ..]) = frozen_member(1);
    let proposer = node.machine.current_proposer().unwrap();
    node.wake_at(node.now_us + TIMING.propose_us + MS);
    let mut told = Vec::new();
    for second in 0..64 {
        for notice in notices(&node.wake_at(node.now_us + TIMING.status_us)) {
            if let Notice::RoundStalled { step, reason: StallReason::NoQuorum, missing, heard, .. } = notice {
                told.push((second, *step, missing.clone(), *heard));
            }
        }
    }
    assert!((5..=8).contains(&told.len()), "told {} times in 64 s", told.len());
    let (_, step, missing, heard) = &told[0];
    assert_eq!((*step, *heard), (Some(Step::Prevote), node.machine.context.committee.weight(0)));
    let silent = (node.index_of(left), Absence::Silent);
    assert!(missing.contains(&silent) && missing.len() == 3, "{missing:?}");
    assert!(missing.contains(&(proposer, Absence::NotConnected { since_us: None })), "{missing:?}");
}

#[test]
fn a_proposer_that_cannot_build_names_the_streams_it_waits_for() {
    let (number, [left, right, third]) = proposer();
    let mut node = Node::new(number);
    node.connect(left);
    node.receive(left, node.batch_of(left, 0, true));
    node.wake_at(TIMING.era_us + 2 * MS);
    let outputs = node.wake_at(node.now_us + TIMING.propose_us + MS);
    let (step, reason, missing) = stall(&outputs);
    let mut waits: Vec<VoterIndex> = [right, third].map(|other| node.index_of(other)).to_vec();
    waits.sort_unstable();
    assert_eq!((step, reason), (None, StallReason::NotReady { incomplete: waits.clone(), fault: None }));
    assert_eq!(missing.into_iter().map(|(voter, _)| voter).collect::<Vec<_>>(), waits);
}

#[test]
fn rounds_of_others_are_told_before_this_node_follows() {
    let (mut node, others) = frozen_member(3);
    let mut outputs = Vec::new();
    for other in [others[0], others[1]] {
        outputs.extend(node.receive(other, node.vote_of(other, 4, Step::Prevote, None)));
    }
    assert_eq!(stall(&outputs).1, StallReason::Overtaken { round: 4 });
}

// Votes for payments ---------------------------------------------------------------------------------

/// Causes with their numbers.
type Gaps = Vec<(Gap, u32)>;

/// A block of these payments is decided by certificate; what this node says of its votes for them.
fn payment_gaps(node: &mut Node, payments: &[SharedTransaction]) -> (Gaps, Gaps) {
    let mut transactions = payments.to_vec();
    transactions.sort_by_key(|transaction| transaction.id());
    let mut block = Block { header: proposal().outline.header, last_commit: None, transactions };
    block.header.tx_count = 0;
    node.machine.notice_payment_votes(&node.host, &block);
    let outputs = std::mem::take(&mut node.machine.outputs);
    let told = notices(&outputs).into_iter().find_map(|notice| match notice {
        Notice::PaymentVotesMissed { prepares, commits, .. } => {
            let counts =
                |gaps: &[(Gap, u32, Txid)]| gaps.iter().map(|(gap, count, _)| (*gap, *count)).collect();
            Some((counts(prepares), counts(commits)))
        }
        _ => None,
    });
    told.unwrap_or_default()
}

#[test]
fn a_payment_this_node_voted_for_is_no_gap() {
    let mut node = Node::new(0);
    let payment = SealedTransaction::new(node.payment(0));
    node.submit(payment.body().clone());
    node.wake_at(TIMING.era_us + 2 * MS);
    assert_eq!(payment_gaps(&mut node, &[payment]), (vec![], vec![]));
}

#[test]
fn payments_without_this_nodes_vote_are_counted_by_cause() {
    let mut node = Node::new(0);
    let voted = node.payment(0);
    let mut rival = voted.clone();
    rival.outputs[0].value = Amount::from_time(8).unwrap();
    rival.sign(node.host.chain(), &payer());
    node.submit(voted);
    node.submit(rival.clone());
    node.wake_at(TIMING.era_us + 2 * MS);
    let late = node.payment(1);
    node.submit(late.clone());
    let unseen = node.payment(2);
    let payments = [rival, late, unseen].map(SealedTransaction::new);
    let (prepares, commits) = payment_gaps(&mut node, &payments);
    assert_eq!(prepares, [(Gap::Frozen, 1), (Gap::NoBody, 1), (Gap::Conflict, 1)]);
    assert_eq!(commits, [], "none of them was certified here");
}

#[test]
fn a_certified_payment_whose_body_is_missing_is_a_commit_gap() {
    let mut node = Node::new(0);
    let payment = SealedTransaction::new(node.payment(0));
    for other in 1..MEMBERS {
        let Message::VoteBatch(mut batch) = node.batch_of(other, 0, false) else { unreachable!() };
        batch.prepares = vec![payment.id()];
        batch.signature = vote_key(other).sign(&batch.digest());
        node.receive(other, Message::VoteBatch(batch));
    }
    node.wake_at(TIMING.era_us + 2 * MS);
    let gaps = payment_gaps(&mut node, &[payment]);
    assert_eq!(gaps, (vec![(Gap::NoBody, 1)], vec![(Gap::NoBody, 1)]));
}
