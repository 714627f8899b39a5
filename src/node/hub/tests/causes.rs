//! Missed votes, stalled rounds and votes for payments, as people are told of them.

use super::*;
use crate::consensus::cause::{Absence, Gap, OwnAbsence, StallReason as Stall};
use crate::primitives::committee::VoterIndex;
use crate::telemetry::cause::{MissCause, PaymentGap, StallReason};

fn attended(height: u64, absent: Vec<(VoterIndex, Absence)>, own: Option<OwnAbsence>) -> Output {
    Output::Notice(Notice::Attendance { height, absent, own })
}

/// The next block, with the precommits `held` in its last commit.
fn block_after(height: u64, held: &[VoterIndex]) -> Arc<Block> {
    let votes = held.iter().map(|voter| (*voter, Signature([0; 64]))).collect();
    let last_commit = Some(Qc::new(0, Step::Precommit, BlockId::default(), votes));
    Arc::new(Block { last_commit, ..Block::clone(&block(height, Vec::new())) })
}

/// The misses told among these events, by name.
fn told_missed(events: &[Arc<Event>]) -> Vec<(String, MissCause)> {
    let told = events.iter().filter_map(|event| match &event.kind {
        EventKind::VotesMissed { missed, .. } => Some(missed.clone()),
        _ => None,
    });
    told.flatten().map(|missed| (missed.name.to_string(), missed.cause)).collect()
}

#[test]
fn a_missed_vote_is_told_once_with_its_cause_when_the_next_height_is_decided() {
    let hub = hub();
    let mut subscription = hub.subscribe();
    let away = Absence::NotConnected { since_us: Some(at(10).monotonic_us) };
    hub.observe(at(100), &[attended(1, vec![(3, away)], None), committed(&block(1, Vec::new()))]);
    assert_eq!(told_missed(&drain(&mut subscription)), [], "it may still come");
    hub.observe(at(900), &[attended(2, vec![(3, away)], None), committed(&block_after(2, &[0, 1, 2]))]);
    let delta = MissCause::NotConnected { since_ms: 90 };
    assert_eq!(told_missed(&drain(&mut subscription)), [("delta".to_owned(), delta.clone())]);
    hub.report(at(900), view(3, [true; 4]), Vec::new());
    let snapshot = refresh(&hub, at(901));
    let member = snapshot.members.last().unwrap();
    assert_eq!(member.last_miss.as_ref().map(|miss| (miss.height, miss.cause.clone())), Some((1, delta)));
    assert_eq!(member.misses, [(CleanText::new("not-connected"), 1)]);
    assert_eq!(member.signed, [SignMark::Absent, SignMark::Absent]);
}

#[test]
fn a_vote_that_comes_in_time_or_with_the_next_block_is_not_missed() {
    let hub = hub();
    let mut subscription = hub.subscribe();
    let absent = vec![(2, Absence::Silent), (3, Absence::Silent)];
    hub.observe(at(100), &[attended(1, absent, None), committed(&block(1, Vec::new()))]);
    let late = |voter, late_us| Output::Notice(Notice::LatePrecommit { height: 1, voter, late_us });
    hub.observe(at(101), &[late(3, 1000)]);
    hub.observe(at(900), &[attended(2, Vec::new(), None), committed(&block_after(2, &[0, 1, 2]))]);
    assert_eq!(told_missed(&drain(&mut subscription)), []);
}

#[test]
fn this_node_tells_its_own_cause() {
    for (own, cause) in [
        (OwnAbsence::NotSigning, MissCause::NotSigning),
        (OwnAbsence::Behind { best: 9 }, MissCause::Syncing { height: 9 }),
        (
            OwnAbsence::NoQuorum { connected: 2, quorum: 3 },
            MissCause::NoQuorum { connected_weight: 2, quorum_weight: 3 },
        ),
        (OwnAbsence::NotFrozen { era_us: 700_000 }, MissCause::NotFrozen { era_ms: Some(700) }),
        (
            OwnAbsence::NoProposal { round: 1, proposer: 2 },
            MissCause::NoProposal { round: 1, proposer: CleanText::new("charlie") },
        ),
        (
            OwnAbsence::NoBodies { round: 1, missing: 7, asked: Some(1) },
            MissCause::NoBody { round: 1, missing: 7, asked: Some(CleanText::new("bravo")) },
        ),
        (
            OwnAbsence::Refused { round: 1, reason: "no \u{1b}".to_owned() },
            MissCause::Refused { round: 1, reason: CleanText::new("no \u{1b}") },
        ),
        (
            OwnAbsence::NoPrevoteQuorum { round: 1, heard: 2, quorum: 3 },
            MissCause::NoPrevoteQuorum { round: 1, heard_weight: 2, quorum_weight: 3 },
        ),
    ] {
        let hub = hub();
        let mut subscription = hub.subscribe();
        let others = [1, 2, 3].map(|voter| (voter, Signature([0; 64]))).to_vec();
        let first = block(1, Vec::new());
        let qc = Qc::new(0, Step::Precommit, first.id(), others);
        hub.observe(
            at(1),
            &[attended(1, Vec::new(), Some(own)), Output::Committed { block: first, qc, next: committee() }],
        );
        hub.observe(at(2), &[committed(&block_after(2, &[1, 2, 3]))]);
        assert_eq!(told_missed(&drain(&mut subscription)), [("alpha".to_owned(), cause)]);
    }
}

#[test]
fn an_own_precommit_that_waited_for_the_disk_is_told_with_the_measured_sync() {
    let hub = hub();
    let mut subscription = hub.subscribe();
    let cast = |at_us| {
        Output::Notice(Notice::Cast {
            height: 1,
            round: 0,
            step: Step::Precommit,
            block: Some(BlockId::default()),
            at_us,
        })
    };
    hub.log_synced(2_400_000);
    hub.observe(at(2500), &[cast(at(0).monotonic_us)]);
    hub.observe(at(2501), &[attended(1, Vec::new(), None), committed(&block(1, Vec::new()))]);
    hub.observe(at(9000), &[committed(&block_after(2, &[1, 2, 3]))]);
    let disk = MissCause::Disk { waited_ms: 2500, sync_ms: 2400 };
    assert_eq!(told_missed(&drain(&mut subscription)), [("alpha".to_owned(), disk)]);
}

fn stalled(round: u32, reason: Stall, missing: Vec<(VoterIndex, Absence)>) -> Output {
    let (step, heard, quorum) = (Some(Step::Prevote), 2, 3);
    Output::Notice(Notice::RoundStalled { height: 7, round, step, reason, missing, heard, quorum })
}

#[test]
fn a_stalled_round_names_the_missing_weight_and_repeats_are_told_ever_more_seldom() {
    let hub = hub();
    let mut subscription = hub.subscribe();
    let missing = vec![(3, Absence::NotConnected { since_us: None }), (2, Absence::Silent)];
    for round in 0..9 {
        hub.observe(at(u64::from(round)), &[stalled(round, Stall::NoQuorum, missing.clone())]);
    }
    let told: Vec<_> = drain(&mut subscription)
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::RoundStalled(stall) => Some(stall.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(told.iter().map(|stall| stall.repeats).collect::<Vec<_>>(), [0, 1, 2, 4, 8]);
    let text = told[0].to_string();
    assert_eq!(
        text,
        "no quorum heard; weight 2 missing: delta (not connected for 0 ms), charlie (connected but silent)"
    );
    assert_eq!((told[0].missing_weight, told[0].heard_weight, told[0].quorum_weight), (2, 2, 3));
    hub.observe(at(20), &[stalled(9, Stall::NoQuorum, vec![(2, Absence::Silent)])]);
    assert_eq!(drain(&mut subscription).len(), 1, "somebody else is missing: that is news");
    hub.report(at(21), view(7, [true; 4]), Vec::new());
    let stall = refresh(&hub, at(21)).consensus.stall.clone().unwrap();
    assert_eq!((stall.height, stall.round, stall.reason), (7, 9, StallReason::NoQuorum));
    hub.observe(at(30), &[committed(&block(7, Vec::new()))]);
    assert_eq!(refresh(&hub, at(31)).consensus.stall, None, "it is decided");
}

#[test]
fn a_chain_that_stands_tells_why_in_its_alert() {
    let hub = hub();
    hub.enter(Phase::Running);
    hub.report(at(1), view(7, [true; 4]), Vec::new());
    hub.observe(at(2), &[stalled(0, Stall::NoQuorum, vec![(3, Absence::Silent)])]);
    let alerts = refresh(&hub, at(16_000)).alerts.clone();
    let [alert] = alerts.as_slice() else { panic!("not one alert: {alerts:?}") };
    let end = "prevote of round 0: no quorum heard; weight 1 missing: delta (connected but silent)";
    assert!(alert.text.as_str().ends_with(end), "{}", alert.text);
}

#[test]
fn missed_votes_for_payments_are_one_event_an_era_and_none_while_catching_up() {
    let hub = hub();
    let mut subscription = hub.subscribe();
    let gap = |gap, count| (gap, count, payment(1).id());
    let missed =
        |height, prepares, commits| Output::Notice(Notice::PaymentVotesMissed { height, prepares, commits });
    hub.observe(at(1), &[missed(1, vec![gap(Gap::Behind, 40)], vec![])]);
    assert_eq!(drain(&mut subscription).len(), 0);
    hub.observe(at(2), &[missed(2, vec![gap(Gap::Frozen, 3)], vec![gap(Gap::NoBody, 1)])]);
    let events = drain(&mut subscription);
    let [event] = events.as_slice() else { panic!("not one event: {events:?}") };
    assert!(matches!(&event.kind, EventKind::PaymentVotesMissed { height: 2, .. }), "{event:?}");
    let prepares = vec![(PaymentGap::Syncing, 40), (PaymentGap::Frozen, 3)];
    assert_eq!(hub.metrics.payment_gaps(), [prepares, vec![(PaymentGap::NoBody, 1)]]);
}
