//! Tests of the measurements.

use super::*;
use crate::primitives::block::{HEADER_VERSION, Header};
use crate::primitives::committee::Member;
use crate::primitives::hash::{BlockId, Hash, MasternodeId};
use crate::primitives::keys::{SecretKey, Signature};
use crate::primitives::vote::Step;
use crate::telemetry::cause::MissCause;
use crate::telemetry::snapshot::{MissInfo, SignMark};

const SECOND_US: u64 = 1_000_000;

fn committee(members: u8) -> Arc<Committee> {
    Arc::new(Committee::new((1..=members).map(member).collect()))
}

fn member(number: u8) -> Member {
    let vote_key = SecretKey::from_seed(&[number; 32]).public();
    Member {
        id: MasternodeId(Hash([number; 32])),
        vote_key,
        weight: u64::from(number),
        payout: vote_key.key_hash(),
        name: format!("node{number}"),
    }
}

fn block(height: u64, last_commit: Option<Qc>) -> Block {
    let header = Header {
        version: HEADER_VERSION,
        height,
        previous: BlockId::default(),
        time_ms: height,
        proposer: MasternodeId::default(),
        tx_root: Hash::default(),
        tx_count: 7,
        body_bytes: 900,
        last_commit_root: Hash::default(),
        utxo_hash: Hash::default(),
        utxo_count: 0,
        supply: Default::default(),
        registry_root: Hash::default(),
        committee_root: Hash::default(),
        next_committee_root: Hash::default(),
        params_root: Hash::default(),
    };
    Block { header, last_commit, transactions: Vec::new() }
}

fn signed_by(voters: &[VoterIndex]) -> Qc {
    let votes = voters.iter().map(|voter| (*voter, Signature([0; 64]))).collect();
    Qc::new(0, Step::Precommit, BlockId::default(), votes)
}

/// What a round waits for precommits.
const IN_TIME_US: u64 = 1000;

/// Who is not among the signers was silent, but for the fourth member, who was away.
fn decision<'a>(name: &'a CleanText, qc: &Qc) -> Decision<'a> {
    let signed: Vec<VoterIndex> = qc.votes().unwrap().into_iter().map(|(voter, _)| voter).collect();
    let cause = |voter| match voter {
        3 => MissCause::NotConnected { since_ms: 7 },
        _ => MissCause::Silent,
    };
    Decision {
        proposer: name,
        fees: 12,
        pause_us: Some(4000),
        absent: (0..4).filter(|voter| !signed.contains(voter)).map(|voter| (voter, cause(voter))).collect(),
        own: None,
        in_time_us: IN_TIME_US,
        state_hash: Hash::default(),
    }
}

fn decide(metrics: &Metrics, height: u64, qc: &Qc, last_commit: Option<Qc>) -> Option<Settled> {
    let name = CleanText::new("node1");
    metrics.checkpoint(&block(height, last_commit), qc, decision(&name, qc), committee(4), 100)
}

/// The names of a settled height with the codes of their causes.
fn missed(settled: Option<Settled>) -> Vec<(String, &'static str)> {
    let missed = settled.unwrap().missed.into_iter();
    missed.map(|missed| (missed.name.to_string(), missed.cause.code())).collect()
}

fn marks(metrics: &Metrics) -> Vec<Vec<SignMark>> {
    metrics.participation().1.into_iter().map(|member| member.marks.into_iter().collect()).collect()
}

#[test]
fn percentiles_forget_what_is_older_than_the_window() {
    let window = LatencyWindow::new(60 * SECOND_US);
    for latency_us in 1..=1000 {
        window.record(SECOND_US, latency_us);
    }
    let early = window.percentiles(2 * SECOND_US);
    assert_eq!(early.count, 1000);
    assert!((495..=505).contains(&early.p50_us), "p50 {} is off by more than 1 %", early.p50_us);
    assert!((985..=1000).contains(&early.p99_us), "p99 {} is off by more than 1 %", early.p99_us);
    window.record(65 * SECOND_US, 77);
    let later = window.percentiles(65 * SECOND_US);
    assert_eq!((later.count, later.p50_us, later.max_us), (1, 77, 77));
    assert_eq!(window.percentiles(1000 * SECOND_US), Percentiles::default());
}

#[test]
fn rates_count_full_seconds_and_quiet_ones_are_zero() {
    let rates = RateHistory::new(10 * SECOND_US);
    rates.record(10 * SECOND_US + 5, 3);
    rates.record(10 * SECOND_US + 900_000, 4);
    rates.record(12 * SECOND_US, 9);
    assert_eq!(rates.history(12 * SECOND_US + 1), [7, 0]);
    assert_eq!(rates.history(13 * SECOND_US), [7, 0, 9]);
    assert_eq!(rates.history(500 * SECOND_US), [0; RATE_BUCKETS]);
}

#[test]
fn finality_runs_from_the_first_sight_and_each_payment_is_measured_once() {
    let metrics = Metrics::new(committee(4), 0);
    let txid = Txid(Hash([9; 32]));
    metrics.transaction_seen(txid, 1000);
    metrics.transaction_seen(txid, 5000);
    assert_eq!(metrics.transaction_final(&txid, 8000), Some(7000));
    assert_eq!(metrics.transaction_final(&Txid::default(), 8000), None, "never seen, so no latency");
    assert_eq!(metrics.final_total.load(Ordering::Relaxed), 2);
    assert_eq!(metrics.finality.percentiles(8000).count, 1);
}

#[test]
fn first_sights_are_bounded() {
    let metrics = Metrics::new(committee(4), 0);
    for number in 0..3 * FIRST_SIGHTS_MAX as u64 {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_le_bytes());
        metrics.transaction_seen(Txid(Hash(id)), number);
    }
    let sights = metrics.first_sights.lock();
    assert!(sights.young.len() + sights.old.len() <= 2 * FIRST_SIGHTS_MAX);
}

#[test]
fn a_checkpoint_marks_signers_those_who_missed_it_and_those_who_were_away() {
    let metrics = Metrics::new(committee(4), 0);
    decide(&metrics, 1, &signed_by(&[0, 1]), None);
    use SignMark::{Absent, Late, Missed, Signed};
    assert_eq!(marks(&metrics), [[Signed], [Signed], [Missed], [Absent]]);
    metrics.late_precommit(1, 2, IN_TIME_US + 1);
    metrics.late_precommit(1, 3, IN_TIME_US);
    metrics.late_precommit(7, 2, 0);
    assert_eq!(marks(&metrics), [[Signed], [Signed], [Late], [Signed]]);
    let (_, _, checkpoints) = metrics.participation();
    let newest = checkpoints.last().expect("one was decided");
    assert_eq!((newest.signed_weight, newest.total_weight), (1 + 2 + 4, 10));
    assert_eq!((newest.transactions, newest.bytes, newest.fees), (7, 900, 12));
    assert_eq!(newest.pause_ms, Some(4.0));
}

#[test]
fn a_precommit_that_the_next_block_carries_counts_as_signed() {
    let metrics = Metrics::new(committee(4), 0);
    assert_eq!(decide(&metrics, 1, &signed_by(&[0, 1]), None), None);
    let settled = decide(&metrics, 2, &signed_by(&[0, 1, 2]), Some(signed_by(&[0, 1, 3])));
    use SignMark::{Absent, Missed, Signed};
    assert_eq!(marks(&metrics), [[Signed, Signed], [Signed, Signed], [Missed, Signed], [Signed, Absent]]);
    assert_eq!(missed(settled), [("node3".to_owned(), "silent")]);
}

#[test]
fn a_miss_is_counted_once_when_the_next_block_settles_it_with_its_last_cause() {
    let metrics = Metrics::new(committee(4), 0);
    decide(&metrics, 1, &signed_by(&[0, 1]), None);
    metrics.late_precommit(1, 2, 312_000);
    let settled = decide(&metrics, 2, &signed_by(&[0, 1, 2]), Some(signed_by(&[0, 1, 2])));
    let expected = [("node3".to_owned(), "late"), ("node4".to_owned(), "not-connected")];
    assert_eq!(missed(settled), expected, "late is late, though the next block carries it");
    let (_, members, _) = metrics.participation();
    let late = MissInfo { height: 1, cause: MissCause::Late { by_ms: 312 } };
    assert_eq!(members[2].last_miss, Some(late));
    assert_eq!(members[3].misses, BTreeMap::from([("not-connected", 1)]));
    assert_eq!(members[0].last_miss, None);
    decide(&metrics, 3, &signed_by(&[0, 1, 2]), Some(signed_by(&[0, 1, 2])));
    let (_, members, _) = metrics.participation();
    assert_eq!(members[3].misses, BTreeMap::from([("not-connected", 2)]));
}

/// What the next block, which holds the precommits `held`, shows of this node's own precommit.
fn own_cause(waited_us: u64, sync_us: u64, held: &[VoterIndex]) -> Vec<(String, MissCause)> {
    let (metrics, name, qc) =
        (Metrics::new(committee(4), 0), CleanText::new("node1"), signed_by(&[0, 1, 2, 3]));
    let own = Some((0, Some(OwnPrecommit { waited_us, sync_us })));
    let decision = Decision { own, ..decision(&name, &qc) };
    metrics.checkpoint(&block(1, None), &qc, decision, committee(4), 100);
    let settled = decide(&metrics, 2, &qc, Some(signed_by(held)));
    settled.unwrap().missed.into_iter().map(|missed| (missed.name.to_string(), missed.cause)).collect()
}

#[test]
fn an_own_precommit_that_the_next_block_lacks_waited_for_the_disk_or_was_left_out() {
    assert_eq!(own_cause(900_000, 800_000, &[0, 1, 2]), [], "it is in the block, however slow the disk");
    let own = |cause| [("node1".to_owned(), cause)];
    let disk = MissCause::Disk { waited_ms: 900, sync_ms: 800 };
    assert_eq!(own_cause(900_000, 800_000, &[1, 2, 3]), own(disk));
    assert_eq!(own_cause(900_000, 4_000, &[1, 2, 3]), own(MissCause::Late { by_ms: 900 }), "not the disk");
    assert_eq!(own_cause(IN_TIME_US, IN_TIME_US, &[1, 2, 3]), own(MissCause::LeftOut), "it was in time");
}

#[test]
fn votes_for_payments_that_were_not_cast_are_counted_by_cause() {
    let metrics = Metrics::new(committee(4), 0);
    let gap = |cause, count| GapCount { cause, count, example: Txid::default() };
    metrics.payment_votes_missed(&[gap(PaymentGap::Frozen, 2)], &[gap(PaymentGap::NoBody, 1)]);
    metrics.payment_votes_missed(&[gap(PaymentGap::Frozen, 3), gap(PaymentGap::Conflict, 1)], &[]);
    let prepares = vec![(PaymentGap::Frozen, 5), (PaymentGap::Conflict, 1)];
    assert_eq!(metrics.payment_gaps(), [prepares, vec![(PaymentGap::NoBody, 1)]]);
}

#[test]
fn statistics_follow_a_member_when_the_committee_changes() {
    let metrics = Metrics::new(committee(3), 0);
    metrics.votes_counted(2, 40, false, 50);
    let (name, qc) = (CleanText::new("node1"), signed_by(&[0, 1]));
    let decision =
        Decision { pause_us: None, absent: BTreeMap::from([(2, MissCause::Silent)]), ..decision(&name, &qc) };
    let next = Arc::new(Committee::new(vec![member(3), member(4)]));
    metrics.checkpoint(&block(1, None), &qc, decision, next, 100);
    let (_, members, checkpoints) = metrics.participation();
    assert_eq!(checkpoints.first().and_then(|first| first.pause_ms), None);
    let seen: Vec<_> = members.iter().map(|m| (m.votes, m.last_vote_us, m.marks.back().copied())).collect();
    assert_eq!(seen, [(40, Some(50), Some(SignMark::Missed)), (0, None, Some(SignMark::Absent))]);
    metrics.late_precommit(1, 2, 1);
    let (_, members, _) = metrics.participation();
    let seen: Vec<_> = members.iter().map(|m| m.marks.back().copied()).collect();
    assert_eq!(seen, [Some(SignMark::Signed), Some(SignMark::Absent)], "the third is the first by now");
}
