//! Tests of the measurements.

use super::*;
use crate::primitives::block::{HEADER_VERSION, Header};
use crate::primitives::committee::Member;
use crate::primitives::hash::{BlockId, Hash, MasternodeId};
use crate::primitives::keys::{SecretKey, Signature};
use crate::primitives::vote::Step;

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

fn decide(metrics: &Metrics, height: u64, qc: &Qc, last_commit: Option<Qc>, now_us: u64) {
    let name = CleanText::new("node1");
    let decision = Decision {
        proposer: &name,
        fees: 12,
        pause_us: Some(4000),
        connected: &[true, true, true, false],
        state_hash: Hash::default(),
    };
    metrics.checkpoint(&block(height, last_commit), qc, decision, committee(4), now_us);
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
    decide(&metrics, 1, &signed_by(&[0, 1]), None, 100);
    use SignMark::{Absent, Late, Missed, Signed};
    assert_eq!(marks(&metrics), [[Signed], [Signed], [Missed], [Absent]]);
    metrics.late_precommit(1, 2, 1000, 100 + 1001);
    metrics.late_precommit(1, 3, 1000, 100 + 1000);
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
    decide(&metrics, 1, &signed_by(&[0, 1]), None, 100);
    decide(&metrics, 2, &signed_by(&[0, 1, 2]), Some(signed_by(&[0, 1, 3])), 200);
    use SignMark::{Absent, Missed, Signed};
    assert_eq!(marks(&metrics), [[Signed, Signed], [Signed, Signed], [Missed, Signed], [Signed, Absent]]);
}

#[test]
fn statistics_follow_a_member_when_the_committee_changes() {
    let metrics = Metrics::new(committee(3), 0);
    metrics.votes_counted(2, 40, false, 50);
    let name = CleanText::new("node1");
    let decision =
        Decision { proposer: &name, fees: 0, pause_us: None, connected: &[], state_hash: Hash::default() };
    let next = Arc::new(Committee::new(vec![member(3), member(4)]));
    metrics.checkpoint(&block(1, None), &signed_by(&[0, 1, 2]), decision, next, 100);
    let (_, members, checkpoints) = metrics.participation();
    assert_eq!(checkpoints.first().and_then(|first| first.pause_ms), None);
    let seen: Vec<_> = members.iter().map(|m| (m.votes, m.last_vote_us, m.marks.back().copied())).collect();
    assert_eq!(seen, [(40, Some(50), Some(SignMark::Signed)), (0, None, Some(SignMark::Absent))]);
}
