//! What a proposer of a later round knows before it proposes (protocol §4.2, `heard_locks`).

use super::*;

impl Node {
    fn turn_of(round: u32) -> u8 {
        let any = Node::unstarted(0);
        let proposer = any.machine.context.committee.proposer(1, round).unwrap();
        (0..MEMBERS).find(|node| any.index_of(*node) == proposer).unwrap()
    }

    /// An empty block of round `round`'s proposer.
    fn empty_block_of(&self, round: u32) -> Outline {
        let voter = self.machine.context.committee.proposer(1, round).unwrap();
        let id = self.machine.context.committee.member(voter).unwrap().id;
        let time_ms = self.host.tip().time_ms + 1 + u64::from(round);
        self.host.build(id, time_ms, None, Vec::new()).unwrap().outline()
    }

    fn pol_of(&self, round: u32, block: BlockId, voters: [u8; 3]) -> Message {
        let votes = voters.map(|node| match self.vote_of(node, round, Step::Prevote, Some(block)) {
            Message::Vote(vote) => (vote.voter, vote.signature),
            _ => unreachable!("a vote"),
        });
        let era_tag = self.machine.context.era_tag;
        Message::Pol { era_tag, qc: Qc::new(round, Step::Prevote, block, votes.to_vec()) }
    }
}

fn proposed(outputs: &[Output]) -> Option<(i32, BlockId)> {
    sent_to_all(outputs).into_iter().find_map(|message| match message {
        Message::Proposal(proposal) => Some((proposal.valid_round, proposal.outline.header.id())),
        _ => None,
    })
}

/// The proposer of round 2 as it enters that round, with all streams complete.
fn entering_round_2() -> (Node, Vec<u8>, Vec<Output>) {
    let me = Node::turn_of(2);
    let others: Vec<u8> = (0..MEMBERS).filter(|node| *node != me).collect();
    let mut node = Node::new(me);
    for other in &others {
        node.connect(*other);
        node.receive(*other, node.batch_of(*other, 0, true));
    }
    node.receive(others[0], node.vote_of(others[0], 2, Step::Prevote, None));
    let outputs = node.receive(others[1], node.vote_of(others[1], 2, Step::Prevote, None));
    assert_eq!(node.machine.view().round, 2);
    (node, others, outputs)
}

#[test]
fn a_proposer_of_a_later_round_waits_for_the_locks_of_others_and_takes_the_newest() {
    let (mut node, others, outputs) = entering_round_2();
    let voters = [others[0], others[1], others[2]];
    assert_eq!(proposed(&outputs), None, "others may be locked");
    let (old, new) = (node.empty_block_of(0), node.empty_block_of(1));
    for (round, outline) in [(0, &old), (1, &new)] {
        let era_tag = node.machine.context.era_tag;
        let block = outline.header.id();
        let before = node.receive(others[0], node.pol_of(round, block, voters));
        assert_eq!(proposed(&before), None, "the block is not here yet");
        let answer = Message::Candidate { era_tag, outline: outline.clone() };
        let outputs = node.receive(others[0], answer);
        let due = (round == 1).then_some((1, block));
        assert_eq!(proposed(&outputs), due, "only a quorum of the round before cannot be outdone");
    }
}

#[test]
fn a_proposer_of_a_later_round_that_hears_of_no_lock_builds_when_the_grace_has_passed() {
    let (mut node, _, _) = entering_round_2();
    let grace_us = Timing::of(NetworkKind::Devnet).grace_us;
    let begun_us = node.now_us;
    assert_eq!(proposed(&node.wake_at(begun_us + grace_us - 1)), None);
    assert_eq!(proposed(&node.wake_at(begun_us + grace_us)).map(|(valid_round, _)| valid_round), Some(-1));
}
