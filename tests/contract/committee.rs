//! Quorums, proposers and certificates (protocol §1, §2, §4.2).

use crate::samples;
use masternode::primitives::certificate::{Certificate, CertificateError, Qc};
use masternode::primitives::committee::{Committee, Member};
use masternode::primitives::hash::{Hash, KeyHash, MasternodeId};
use masternode::primitives::keys::{PublicKey, verify_batch};
use masternode::primitives::merkle::Phase;
use proptest::prelude::*;

fn weighted(weights: &[u64]) -> Committee {
    let member = |(number, weight): (usize, &u64)| {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_be_bytes());
        Member {
            id: MasternodeId(Hash(id)),
            vote_key: PublicKey(id),
            weight: *weight,
            payout: KeyHash::default(),
            name: String::new(),
        }
    };
    Committee::new(weights.iter().enumerate().map(member).collect())
}

#[test]
fn quorum_and_honest_weight_are_those_of_the_protocol() {
    for (total, quorum, honest) in [
        (1, 1, 1),
        (2, 2, 1),
        (3, 3, 1),
        (4, 3, 2),
        (5, 4, 2),
        (6, 5, 2),
        (7, 5, 3),
        (9, 7, 3),
        (10, 7, 4),
        (100, 67, 34),
    ] {
        let committee = weighted(&vec![1; total]);
        assert_eq!((committee.quorum(), committee.honest_weight()), (quorum, honest), "W = {total}");
    }
}

#[test]
fn members_are_ordered_by_identity_and_found_by_key() {
    let members: Vec<Member> = samples::committee().members().iter().rev().cloned().collect();
    let committee = Committee::new(members);
    assert_eq!(committee, samples::committee());
    assert_eq!(committee.index_of(&samples::key(3).public()), Some(2));
    assert_eq!(committee.index_of(&samples::key(7).public()), None);
    assert_eq!((committee.weight(3), committee.weight(4), committee.total()), (4, 0, 10));
}

#[test]
fn the_next_round_has_another_proposer_in_a_committee_of_equals() {
    for size in 3..40 {
        let committee = weighted(&vec![1; size]);
        for height in 0..50 {
            assert_ne!(committee.proposer(height, 0), committee.proposer(height, 1), "{size} members");
        }
    }
    assert_eq!(weighted(&[]).proposer(3, 0), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn two_quorums_share_more_than_the_tolerated_weight(weights in prop::collection::vec(1u64..1000, 1..200)) {
        let committee = weighted(&weights);
        let (total, quorum) = (committee.total(), committee.quorum());
        let tolerated = (total - 1) / 3;
        prop_assert!(2 * quorum > total + tolerated);
        prop_assert!(total - tolerated >= quorum, "the honest reach it alone");
        prop_assert_eq!(committee.honest_weight(), tolerated + 1);
    }

    #[test]
    fn every_member_proposes_by_its_weight_in_w_turns(weights in prop::collection::vec(1u64..12, 1..12), start in any::<u32>()) {
        let committee = weighted(&weights);
        let mut turns = vec![0u64; weights.len()];
        for turn in 0..committee.total() {
            let proposer = committee.proposer(u64::from(start) + turn, 0).unwrap();
            turns[usize::from(proposer)] += 1;
        }
        prop_assert_eq!(turns, weights);
        prop_assert_eq!(committee.proposer(5, 2), committee.proposer(7, 0), "height and round count alike");
    }

    #[test]
    fn a_certificate_gives_back_the_voters_it_was_made_of(voters in prop::collection::btree_set(0u16..200, 0..200)) {
        let signature = samples::batch(0).signature;
        let qc = Qc { round: 0, ..Qc::new(0, masternode::primitives::vote::Step::Prevote, samples::header().id(),
            voters.iter().rev().map(|voter| (*voter, signature)).collect()) };
        let back: Vec<u16> = qc.votes().unwrap().into_iter().map(|(voter, _)| voter).collect();
        prop_assert_eq!(back, voters.into_iter().collect::<Vec<_>>());
        prop_assert_ne!(qc.bitmap.last(), Some(&0));
    }
}

fn refused<T>(result: Result<T, CertificateError>) -> CertificateError {
    result.map(|_| ()).unwrap_err()
}

#[test]
fn a_commit_certificate_needs_quorum_weight_of_members_and_good_signatures() {
    let (committee, tag) = (samples::committee(), samples::tag());
    let checks = samples::qc(&[1, 2, 3]).checks(tag, &committee).unwrap();
    assert!(verify_batch(&checks).into_iter().all(|valid| valid));
    // 3 + 4 of 10 is a quorum, 1 + 2 + 3 is not.
    assert!(samples::qc(&[2, 3]).checks(tag, &committee).is_ok());
    let light = refused(samples::qc(&[0, 1, 2]).checks(tag, &committee));
    assert_eq!(light, CertificateError::TooLight { weight: 6, quorum: 7 });

    let mut stranger = samples::qc(&[2, 3]);
    stranger.bitmap = vec![0b0001_1000];
    assert!(matches!(refused(stranger.checks(tag, &committee)), CertificateError::Malformed(_)));
    let mut padded = samples::qc(&[2, 3]);
    padded.bitmap.push(0);
    assert!(
        matches!(refused(padded.checks(tag, &committee)), CertificateError::Malformed(_)),
        "two encodings"
    );
    let mut short = samples::qc(&[2, 3]);
    short.signatures.pop();
    assert!(matches!(refused(short.checks(tag, &committee)), CertificateError::Malformed(_)));

    let mut other_round = samples::qc(&[2, 3]);
    other_round.round += 1;
    let checks = other_round.checks(tag, &committee).unwrap();
    assert!(verify_batch(&checks).into_iter().all(|valid| !valid));
}

#[test]
fn a_payment_certificate_counts_each_member_once_and_only_its_own_vote() {
    let (committee, tag) = (samples::committee(), samples::tag());
    let good = samples::certificate(&[2, 3]);
    let checks = good.checks(tag, &committee).unwrap();
    assert!(verify_batch(&checks).into_iter().all(|valid| valid));

    let twice = samples::certificate(&[3, 3]);
    assert!(matches!(refused(twice.checks(tag, &committee)), CertificateError::Malformed(_)));
    let light = samples::certificate(&[0, 1]);
    assert!(matches!(
        refused(light.checks(tag, &committee)),
        CertificateError::TooLight { weight: 3, quorum: 7 }
    ));

    // The same votes for another transaction or phase, or another era: signatures over something else.
    let forged = [
        (Certificate { txid: samples::txid(9), ..good.clone() }, tag),
        (good.clone(), masternode::primitives::hash::EraTag(Hash([1; 32]))),
    ];
    for (certificate, tag) in forged {
        let checks = certificate.checks(tag, &committee).unwrap();
        assert!(verify_batch(&checks).into_iter().all(|valid| !valid));
    }
    let commit = Certificate { phase: Phase::Commit, ..good.clone() };
    assert!(matches!(refused(commit.checks(tag, &committee)), CertificateError::Malformed(_)));
    let mut bent = good;
    bent.proofs[0].path.pop();
    assert!(matches!(refused(bent.checks(tag, &committee)), CertificateError::Malformed(_)));
}
