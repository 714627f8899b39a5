//! Whose blocks a node adopts that was away for longer than the trust period.

use super::*;
use crate::consensus::machine::trust::MAKING_MS;
use crate::consensus::trust::{Distrust, Route, RouteFault};
use crate::primitives::block::Header;
use crate::primitives::message::{Proposal, proposal_digest};

/// Twenty-one minutes: the trust period of a devnet and one more.
const LATER_US: u64 = 21 * 60 * 1_000_000;

/// A block of a chain the founders signed, with what a pull of it gives.
type Decided = Verified<(Block, Qc)>;

/// Blocks on the genesis, the first `first_ms` after it and each a second after the one before. Whoever
/// has the founders' keys can make them: the true chain and a false one differ by their times only.
fn chain(blocks: usize, first_ms: u64) -> Vec<Decided> {
    let mut maker = Node::new(0);
    let mut made = Vec::new();
    for number in 0..blocks {
        let (context, tip) = (maker.machine.era(), maker.host.tip());
        let proposer = context.committee.member(0).unwrap().id;
        let time_ms = if number == 0 { tip.time_ms + first_ms } else { tip.time_ms + 1000 };
        let block = maker.host.build(proposer, time_ms, tip.commit, Vec::new()).unwrap();
        let digest = vote_digest(context.era_tag, 0, Step::Precommit, Some(block.id()));
        let voters: std::collections::BTreeMap<VoterIndex, Signature> =
            (0..3).map(|node| (maker.index_of(node), vote_key(node).sign(&digest))).collect();
        let qc = Qc::new(0, Step::Precommit, block.id(), voters.into_iter().collect());
        let decided = Verified { value: (block, qc), era: context.era_tag };
        maker.step(Input::Decided { from: peer(1), block: decided.clone() });
        made.push(decided);
    }
    made
}

fn header(block: &Decided) -> Header {
    block.get().0.header.clone()
}

fn trusted(block: &Decided) -> TrustedHeader {
    TrustedHeader { height: header(block).height, id: header(block).id() }
}

impl Node {
    /// A node whose tip, the genesis, is older than the trust period.
    fn long_away(trusted: Option<TrustedHeader>) -> Self {
        let mut node = Self::unstarted(0);
        node.machine = node.machine.trusting(trusted);
        node.now_us = LATER_US;
        node.step(Input::Start);
        node
    }

    /// `node` says that it decides `height`.
    fn claims(&mut self, node: u8, height: u64) -> Vec<Output> {
        let Message::Status(mut status) = self.status() else { panic!("a status") };
        status.height = height;
        self.connect(node);
        self.receive(node, Message::Status(status))
    }

    fn pulled(&mut self, from: u8, block: &Decided) -> Vec<Output> {
        self.step(Input::Decided { from: peer(from), block: block.clone() })
    }

    fn height(&self) -> u64 {
        self.host.tip().height
    }

    fn why(&self) -> Option<Distrust> {
        self.machine.view().untrusted.map(|untrusted| untrusted.why)
    }
}

fn pulls(outputs: &[Output]) -> bool {
    outputs.iter().any(|output| matches!(output, Output::PullBlock { .. }))
}

fn blamed(outputs: &[Output]) -> Vec<PeerId> {
    let peer = |output: &Output| match output {
        Output::Misbehaved { peer, .. } => Some(*peer),
        _ => None,
    };
    outputs.iter().filter_map(peer).collect()
}

/// The route that `node` asked for, filled from `chain`.
fn route(outputs: &[Output], chain: &[Decided]) -> Result<Route, RouteFault> {
    let asked = outputs.iter().find_map(|output| match output {
        Output::PullRoute { tip, trusted, oldest_ms, .. } => Route::new(*tip, *trusted, *oldest_ms),
        _ => None,
    });
    let mut route = asked.expect("it asks for the headers first");
    while let Some((last, count)) = route.wanted() {
        let wanted = |header: &Header| header.height <= last && header.height + u64::from(count) > last;
        let page: Vec<Header> = chain.iter().map(header).filter(wanted).collect();
        route.take(&page)?;
    }
    Ok(route)
}

#[test]
fn a_chain_that_stood_still_goes_on_though_its_last_block_is_old() {
    let mut node = Node::long_away(None);
    assert!(pulls(&node.claims(1, 2)), "one block ahead is what every node is late by at times");
    let chain = chain(1, LATER_US / MS);
    node.pulled(1, &chain[0]);
    assert_eq!((node.height(), node.why()), (1, None));
}

#[test]
fn a_node_that_was_not_away_for_long_follows_without_a_trusted_block() {
    let chain = chain(2, 1000);
    let mut node = Node::unstarted(0);
    node.step(Input::Start);
    node.claims(1, 900);
    for block in &chain {
        node.pulled(1, block);
    }
    assert_eq!(node.height(), 2);
}

#[test]
fn after_a_long_absence_a_chain_of_signatures_alone_is_not_adopted_and_the_remedy_is_named() {
    let chain = chain(3, LATER_US / MS);
    let mut node = Node::long_away(None);
    assert!(pulls(&node.claims(1, 4)), "the claim has to be proved");
    assert_eq!(node.why(), None);
    node.pulled(1, &chain[0]);
    assert_eq!((node.height(), node.why()), (0, Some(Distrust::NoneSet)));
    let text = node.machine.view().untrusted.unwrap().explanation();
    for part in ["20 minutes", "trusted_block", "--trusted-block", "HEIGHT:ID", "keeps what it has"] {
        assert!(text.contains(part), "{text}");
    }
    // Nor bit by bit, when whoever is ahead hides how far.
    assert!(!pulls(&node.claims(1, 4)));
    node.step(Input::PeerDown { peer: peer(1) });
    node.claims(2, 2);
    node.pulled(2, &chain[0]);
    assert_eq!(node.height(), 0);
    assert!(node.why().is_some(), "it has been proved and stays so");
}

#[test]
fn a_clock_that_is_put_right_ends_the_wait_for_a_trusted_block() {
    let chain = chain(1, 1000);
    let mut node = Node::long_away(None);
    node.claims(1, 4);
    node.pulled(1, &chain[0]);
    assert!(node.why().is_some());
    node.now_us = MS;
    node.step(Input::Wake);
    assert_eq!(node.why(), None);
    node.pulled(1, &chain[0]);
    assert_eq!(node.height(), 1);
}

#[test]
fn a_claim_that_nobody_proves_stops_a_chain_that_stood_still_for_a_moment_only() {
    let chain = chain(1, LATER_US / MS);
    let mut node = Node::long_away(None);
    node.claims(3, 1_000_000);
    node.claims(1, 2);
    node.pulled(1, &chain[0]);
    assert_eq!((node.height(), node.why()), (0, None), "whoever claims it may be honest");
    node.now_us += 9_000_000;
    node.pulled(1, &chain[0]);
    assert_eq!(node.height(), 0);
    node.now_us += 2_000_000;
    node.pulled(1, &chain[0]);
    assert_eq!(node.height(), 1);
}

#[test]
fn with_a_trusted_block_only_the_chain_that_leads_to_it_is_adopted() {
    let (right, forged) = (chain(3, LATER_US / MS), chain(3, LATER_US / MS - 5));
    let mut node = Node::long_away(Some(trusted(&right[2])));
    let asked = node.claims(1, 4);
    assert!(!pulls(&asked), "nothing before the way is known");
    node.pulled(1, &right[0]);
    assert_eq!(node.height(), 0);
    let route = route(&asked, &right).unwrap();
    assert!(pulls(&node.step(Input::Route { from: peer(1), route: Ok(route) })));
    node.claims(2, 4);
    assert_eq!(blamed(&node.pulled(2, &forged[0])), [peer(2)]);
    assert_eq!(node.height(), 0);
    for block in &right {
        assert_eq!(blamed(&node.pulled(1, block)), []);
    }
    assert_eq!((node.height(), node.why()), (3, None));
}

#[test]
fn a_peer_with_another_block_at_the_trusted_height_is_named_and_the_next_one_is_asked() {
    let (right, forged) = (chain(3, LATER_US / MS), chain(3, LATER_US / MS - 5));
    let mut node = Node::long_away(Some(trusted(&right[2])));
    let fault = route(&node.claims(2, 4), &forged).unwrap_err();
    node.step(Input::Route { from: peer(2), route: Err(fault) });
    let (trusted, found) = (trusted(&right[2]), header(&forged[2]).id());
    assert_eq!(node.why(), Some(Distrust::OtherBlock { trusted, found, peer: peer(2) }));
    let text = node.machine.view().untrusted.unwrap().explanation();
    for part in [&trusted.to_string(), &found.to_string(), &peer(2).0.short()] {
        assert!(text.contains(part), "{text}");
    }
    let route = route(&node.claims(1, 4), &right).unwrap();
    node.step(Input::Route { from: peer(1), route: Ok(route) });
    node.pulled(1, &right[0]);
    assert_eq!((node.height(), node.why()), (1, None));
}

#[test]
fn a_trusted_block_that_is_old_itself_or_behind_is_no_remedy_and_that_is_said() {
    let old = chain(2, 1000);
    let mut node = Node::long_away(Some(trusted(&old[1])));
    let asked = node.claims(1, 3);
    let fault = route(&asked, &old).unwrap_err();
    assert!(matches!(fault, RouteFault::TooOld { .. }));
    let after = node.step(Input::Route { from: peer(1), route: Err(fault) });
    assert!(!pulls(&after));
    assert!(matches!(node.why(), Some(Distrust::TooOld { .. })));
    node.pulled(1, &old[0]);
    assert_eq!(node.height(), 0);

    let genesis = node.machine.tip_id();
    let mut node = Node::long_away(Some(genesis));
    node.claims(1, 3);
    node.pulled(1, &old[0]);
    assert_eq!((node.height(), node.why()), (0, Some(Distrust::Passed(genesis))));
}

#[test]
fn a_node_that_followed_a_false_chain_stops_when_the_trusted_block_follows_from_another() {
    let (right, forged) = (chain(3, LATER_US / MS), chain(1, 1000));
    let mut node = Node::unstarted(0);
    node.machine = node.machine.trusting(Some(trusted(&right[2])));
    node.step(Input::Start);
    node.claims(1, 2);
    node.pulled(1, &forged[0]);
    assert_eq!(node.height(), 1);
    node.now_us = LATER_US;
    let fault = route(&node.claims(1, 4), &right).unwrap_err();
    let outputs = node.step(Input::Route { from: peer(1), route: Err(fault) });
    let reason = halted(&outputs).unwrap();
    for part in [header(&right[0]).id(), header(&forged[0]).id()] {
        assert!(reason.contains(&part.to_string()), "{reason}");
    }
}

#[test]
fn another_block_at_the_trusted_height_is_refused_whoever_signed_it() {
    let (right, forged) = (chain(1, 1000), chain(1, 2000));
    let mut node = Node::unstarted(0);
    node.machine = node.machine.trusting(Some(trusted(&right[0])));
    node.step(Input::Start);
    node.claims(1, 2);
    let outputs = node.pulled(1, &forged[0]);
    let reason = halted(&outputs).unwrap();
    let (expected, found) = (trusted(&right[0]).to_string(), header(&forged[0]).id().to_string());
    for part in [&expected, &found, &peer(1).0.short(), "other operators"] {
        assert!(reason.contains(part), "{reason}");
    }
    assert_eq!(node.height(), 0);
}

#[test]
fn headers_that_do_not_follow_from_the_trusted_one_are_no_route() {
    let right = chain(5, LATER_US / MS);
    let tip = Node::unstarted(0).machine.tip_id();
    let headers: Vec<Header> = right.iter().map(header).collect();
    let route = || Route::new(tip, trusted(&right[4]), 0).unwrap();
    assert_eq!(route().wanted(), Some((5, 5)));
    let mut whole = route();
    assert_eq!(whole.take(&headers[3..]), Err(RouteFault::Invalid), "all that was asked for or none");
    whole.take(&headers).unwrap();
    assert_eq!(whole.wanted(), None);
    assert_eq!(whole.into_ids().unwrap(), headers.iter().map(Header::id).collect::<Vec<_>>());
    assert_eq!(route().into_ids(), None);
    let mut changed = headers.clone();
    changed[2].time_ms += 1;
    let invalid = [&changed[..], &headers[..4], &[], &[headers.clone(), headers.clone()].concat()];
    for page in invalid {
        assert_eq!(route().take(page), Err(RouteFault::Invalid));
    }
    let elsewhere = TrustedHeader { id: header(&right[0]).id(), ..tip };
    let mut forks = Route::new(elsewhere, trusted(&right[4]), 0).unwrap();
    assert_eq!(forks.take(&headers), Err(RouteFault::Forks { found: tip.id }));
    assert_eq!(Route::new(trusted(&right[4]), trusted(&right[4]), 0), None);
}

impl Node {
    /// The three others precommit this block, before the eyes of this node.
    fn precommitted(&mut self, block: &Decided) {
        for voter in 1..MEMBERS {
            self.receive(voter, self.vote_of(voter, 0, Step::Precommit, Some(header(block).id())));
        }
    }

    /// The proposer of a round proposes it, before the eyes of this node.
    fn proposed_to(&mut self, block: &Decided) {
        let (era_tag, id) = (self.machine.context.era_tag, header(block).id());
        let proposer = |round| self.machine.context.committee.proposer(1, round);
        let node = |round| (1..MEMBERS).find(|node| Some(self.index_of(*node)) == proposer(round));
        let (round, node) = (0..9).find_map(|round| Some((round, node(round)?))).unwrap();
        let signature = vote_key(node).sign(&proposal_digest(era_tag, round, -1, id));
        let outline = block.get().0.outline();
        let proposal = Proposal { era_tag, round, valid_round: -1, outline, pol: None, signature };
        self.receive(node, Message::Proposal(proposal));
    }
}

#[test]
fn a_block_that_is_made_now_is_no_proof_of_a_chain_that_went_on() {
    // A network begins again after the trust period; somebody says it is far ahead and serves what the others
    // have just proposed or precommitted, before or after that is here.
    let seen: [fn(&mut Node, &Decided); 2] = [Node::precommitted, Node::proposed_to];
    for (seen, first) in seen.into_iter().flat_map(|seen| [(seen, true), (seen, false)]) {
        let made = chain(1, LATER_US / MS);
        let mut node = Node::long_away(None);
        node.claims(3, 4);
        if first {
            seen(&mut node, &made[0]);
        }
        node.pulled(3, &made[0]);
        if !first {
            assert_eq!(node.why(), Some(Distrust::NoneSet), "it may be of a chain that went on");
            seen(&mut node, &made[0]);
        }
        assert_eq!((node.height(), node.why()), (0, None));
        node.now_us += 11_000_000;
        node.step(Input::Wake);
        assert_eq!(node.why(), None);
        node.claims(1, 2);
        node.pulled(1, &made[0]);
        assert_eq!(node.height(), 1);
    }
}

#[test]
fn old_votes_that_are_sent_again_do_not_take_the_proof_away() {
    // Younger than the trust period, but nobody needs so long to make a block.
    for time_ms in [1000, LATER_US / MS - MAKING_MS - 1000] {
        let old = chain(1, time_ms);
        let mut node = Node::long_away(None);
        node.claims(1, 4);
        node.precommitted(&old[0]);
        node.pulled(1, &old[0]);
        assert_eq!((node.height(), node.why()), (0, Some(Distrust::NoneSet)));
        node.now_us += 11_000_000;
        node.step(Input::Wake);
        node.pulled(1, &old[0]);
        assert_eq!(node.height(), 0);
    }
}

#[test]
fn saying_often_that_it_is_ahead_gets_nobody_pulled_from_more_often() {
    let mut node = Node::new(0);
    assert!(pulls(&node.claims(1, 4)));
    let Message::Status(mut status) = node.status() else { panic!("a status") };
    status.height = 5;
    let mut count = 0;
    for _ in 0..100 {
        node.now_us += 10 * MS;
        count += usize::from(pulls(&node.receive(1, Message::Status(status.clone()))));
    }
    assert_eq!(count, 4, "in a second");
}
