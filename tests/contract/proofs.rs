//! Proofs for others (protocol §9): what is accepted, that every bit of them counts, their encoding.

use crate::encoding::golden_value;
use crate::samples::{amount, chain, key, transaction, txid};
use masternode::light::block::{BlockProof, CertifiedHeader, Link};
use masternode::light::bundle::{Proof, ProofBundle};
use masternode::light::claim::FinalityClaim;
use masternode::light::client::LightClient;
use masternode::light::finality::FinalityProof;
use masternode::light::members::MemberProof;
use masternode::light::{BUNDLE_BYTES_MAX, ProofError};
use masternode::primitives::block::{HEADER_VERSION, Header, tx_root};
use masternode::primitives::certificate::Qc;
use masternode::primitives::chain::NetworkKind;
use masternode::primitives::committee::{Committee, Member, committee_root};
use masternode::primitives::encoding::{decode, encode};
use masternode::primitives::hash::{BlockId, ChainId, Hash, KeyHash, MasternodeId, Txid, era_tag};
use masternode::primitives::keys::{Signature, verify_batch};
use masternode::primitives::params::Params;
use masternode::primitives::transaction::SealedTransaction;
use masternode::primitives::trusted::TrustedHeader;
use masternode::primitives::vote::{Step, VoteBatch, vote_digest};
use proptest::prelude::*;
use std::sync::Arc;

/// Trust period of a devnet: twenty minutes.
const TRUST_MS: u64 = 1_200_000;
const GENESIS_MS: u64 = 1_800_000_000_000;
/// A minute after the last header of these tests.
const NOW_MS: u64 = GENESIS_MS + 160_000;

fn params() -> Params {
    Params::of(NetworkKind::Devnet)
}

/// Members `numbers`, each with its number as weight, and the key of that number.
fn committee(numbers: std::ops::RangeInclusive<u8>) -> Committee {
    let member = |number: u8| Member {
        id: MasternodeId(Hash([number; 32])),
        vote_key: key(number).public(),
        weight: u64::from(number),
        payout: KeyHash(Hash([0x50; 32])),
        name: format!("node-{number}"),
    };
    Committee::new(numbers.map(member).collect())
}

fn header(height: u64, committees: [&Committee; 2], txids: &[Txid]) -> Header {
    Header {
        version: HEADER_VERSION,
        height,
        previous: BlockId(Hash([0xb0; 32])),
        time_ms: GENESIS_MS + 10_000 * height,
        proposer: MasternodeId(Hash([4; 32])),
        tx_root: tx_root(txids),
        tx_count: u32::try_from(txids.len()).unwrap(),
        body_bytes: 77,
        last_commit_root: Hash([0x1c; 32]),
        utxo_hash: Hash([0x0f; 32]),
        utxo_count: 42,
        supply: amount(1_000_000),
        registry_root: Hash([0x2e; 32]),
        committee_root: committees[0].root(),
        next_committee_root: committees[1].root(),
        params_root: params().root(),
    }
}

fn key_of(committee: &Committee, voter: u16) -> masternode::primitives::keys::SecretKey {
    key(committee.members()[usize::from(voter)].id.bytes()[0])
}

/// The batch in which a voter commit-votes the payment, among `others` and some prepares.
fn batch(header: &Header, committee: &Committee, voter: u16, others: u8) -> Arc<VoteBatch> {
    let payment = transaction().id();
    let mut commits: Vec<Txid> = (0..others).map(txid).collect();
    commits.insert(usize::from(voter) % (commits.len() + 1), payment);
    let mut batch = VoteBatch {
        era_tag: era_tag(chain(), header.height + 1, header.id()),
        voter,
        sequence: 3 + u32::from(voter),
        last: voter.is_multiple_of(2),
        prepares: (0..voter % 3).map(|n| txid(100 + n.to_le_bytes()[0])).collect(),
        commits,
        signature: Signature([0; 64]),
    };
    batch.signature = key_of(committee, voter).sign(&batch.digest());
    Arc::new(batch)
}

fn claim(header: &Header, committee: &Committee, others: u8) -> FinalityClaim {
    FinalityClaim {
        txid: transaction().id(),
        transaction: Some(SealedTransaction::new(transaction())),
        header: Arc::new(header.clone()),
        committee: Arc::new(committee.clone()),
        batches: committee.indices().map(|voter| batch(header, committee, voter, others)).collect(),
    }
}

/// Header 5 under members 1 to 5, and a payment final in era 6 by votes in batches of five to seven.
fn sample() -> (Header, FinalityProof) {
    let voters = committee(1..=5);
    let header = header(5, [&voters, &voters], &[]);
    let proof = claim(&header, &voters, 4).proof().unwrap();
    (header, proof)
}

fn verify(proof: &FinalityProof, header: &Header) -> Result<Txid, ProofError> {
    proof.verify(chain(), header.id(), &verify_batch).map(|shown| shown.txid)
}

fn certified(header: &Header, voters: &Committee) -> CertifiedHeader {
    let tag = era_tag(chain(), header.height, header.previous);
    let digest = vote_digest(tag, 2, Step::Precommit, Some(header.id()));
    let votes = voters.indices().map(|voter| (voter, key_of(voters, voter).sign(&digest))).collect();
    CertifiedHeader::new(header.clone(), &Qc::new(2, Step::Precommit, header.id(), votes), voters).unwrap()
}

fn link(header: &Header, voters: &Committee, former: &Committee) -> Link {
    Link::new(certified(header, voters), former).unwrap()
}

fn trusted(header: &Header) -> TrustedHeader {
    TrustedHeader { height: header.height, id: header.id() }
}

/// A finality proof that begins at header 2 of another committee: one link.
fn finality_bundle() -> (TrustedHeader, ProofBundle) {
    let (old, new) = (committee(1..=4), committee(2..=5));
    let (start, end) = (header(2, [&old, &old], &[]), header(9, [&new, &new], &[]));
    let proof = claim(&end, &new, 2).proof().unwrap();
    let links = vec![link(&end, &new, &old)];
    (
        trusted(&start),
        ProofBundle::new(chain(), params(), Some(start), links, Proof::Finality(Box::new(proof))),
    )
}

/// A block proof that begins two headers earlier.
fn block_bundle() -> (TrustedHeader, ProofBundle) {
    let (old, new) = (committee(1..=4), committee(2..=5));
    let txids = [txid(1), transaction().id(), txid(0xf0), txid(0xf1), txid(0xf2)];
    let start = header(2, [&old, &old], &[]);
    let middle = header(6, [&old, &new], &[]);
    let mut end = header(7, [&new, &new], &txids);
    end.previous = middle.id();
    let proof = BlockProof::new(transaction(), link(&end, &new, &new), &txids, 1).unwrap();
    let links = vec![link(&middle, &old, &old)];
    (trusted(&start), ProofBundle::new(chain(), params(), Some(start), links, Proof::Block(Box::new(proof))))
}

fn verify_bundle(bundle: &ProofBundle, trusted: TrustedHeader) -> Result<Txid, ProofError> {
    bundle.verify(trusted, NOW_MS, &verify_batch).map(|shown| shown.txid)
}

#[test]
fn both_proofs_and_both_bundles_have_their_golden_encoding() {
    let (_, finality) = sample();
    golden_value("finality-proof", &finality);
    let (start, bundle) = finality_bundle();
    assert_eq!(verify_bundle(&bundle, start), Ok(transaction().id()));
    golden_value("proof-bundle-finality", &bundle);
    let (start, bundle) = block_bundle();
    assert_eq!(verify_bundle(&bundle, start), Ok(transaction().id()));
    golden_value("proof-bundle-block", &bundle);
    let Proof::Block(proof) = &bundle.proof else { panic!("a block proof") };
    golden_value("block-proof", &**proof);
}

/// Every value that differs from `bytes` in one bit.
fn each_bit_flipped(bytes: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> + '_ {
    (0..bytes.len() * 8).map(|bit| {
        let mut altered = bytes.to_vec();
        altered[bit / 8] ^= 1 << (bit % 8);
        (bit, altered)
    })
}

#[test]
fn a_finality_proof_with_any_one_bit_changed_is_refused() {
    let (header, proof) = sample();
    assert_eq!(verify(&proof, &header), Ok(transaction().id()));
    assert!(proof.votes.len() >= 3 && proof.votes.iter().all(|vote| vote.commit_count > 1));
    let bytes = encode(&proof);
    for (bit, altered) in each_bit_flipped(&bytes) {
        if let Ok(proof) = decode::<FinalityProof, BUNDLE_BYTES_MAX>(&altered) {
            assert!(verify(&proof, &header).is_err(), "bit {bit} of {}", bytes.len() * 8);
        }
    }
}

#[test]
fn a_bundle_with_any_one_bit_changed_is_refused() {
    for (start, bundle) in [finality_bundle(), block_bundle()] {
        let bytes = bundle.to_bytes();
        assert_eq!(ProofBundle::from_bytes(&bytes), Ok(bundle));
        for (bit, altered) in each_bit_flipped(&bytes) {
            let verdict = ProofBundle::from_bytes(&altered).and_then(|bundle| verify_bundle(&bundle, start));
            assert!(verdict.is_err(), "bit {bit} of {}", bytes.len() * 8);
        }
    }
}

#[test]
fn a_proof_holds_as_few_votes_as_make_a_quorum_and_each_of_them_counts() {
    // Weights 5 and 4 and 3 of 15 exceed two thirds; 5 and 4 do not.
    let (header, proof) = sample();
    assert_eq!(proof.members.voters().collect::<Vec<_>>(), [2, 3, 4]);
    let voters = committee(1..=5);
    let few = FinalityClaim {
        batches: claim(&header, &voters, 4).batches[..4].to_vec(),
        ..claim(&header, &voters, 4)
    };
    assert!(few.proof().is_none(), "weights 1 to 4 are no quorum");
    let mut other = transaction();
    other.expiry += 1;
    let transaction = Some(SealedTransaction::new(other));
    assert!(FinalityClaim { transaction, ..claim(&header, &voters, 4) }.proof().is_none());
    assert!(FinalityClaim { transaction: None, ..claim(&header, &voters, 4) }.proof().is_none());
}

/// The proof of these voters, whether they are a quorum or not.
fn proof_of(header: &Header, voters: &Committee, chosen: &[u16]) -> FinalityProof {
    use masternode::primitives::merkle::Phase;
    let votes = chosen
        .iter()
        .map(|voter| batch(header, voters, *voter, 4).proof(Phase::Commit, &transaction().id()).unwrap());
    let members = MemberProof::new(voters, chosen).unwrap();
    FinalityProof::new(transaction(), header.clone(), members, votes.collect())
}

#[test]
fn too_little_weight_and_a_voter_twice_prove_nothing() {
    let voters = committee(1..=5);
    let header = header(5, [&voters, &voters], &[]);
    assert!(verify(&proof_of(&header, &voters, &[1, 3, 4]), &header).is_ok());
    let light = verify(&proof_of(&header, &voters, &[0, 3, 4]), &header);
    assert_eq!(light, Err(ProofError::TooLight { weight: 10, quorum: 11 }));

    let mut twice = proof_of(&header, &voters, &[3, 4]);
    twice.members.members.push(twice.members.members[1].clone());
    twice.votes.push(twice.votes[1].clone());
    let extra = twice.hashes[twice.hashes.len() / 2..].to_vec();
    twice.hashes.extend(extra);
    assert!(matches!(verify(&twice, &header), Err(ProofError::Malformed { field: "members", .. })));

    let mut heavier = proof_of(&header, &voters, &[0, 3, 4]);
    heavier.members.members[0].weight += 1;
    assert!(matches!(verify(&heavier, &header), Err(ProofError::OtherCommittee { .. })));
    let mut smaller = proof_of(&header, &voters, &[0, 3, 4]);
    smaller.members.total -= 1;
    assert!(matches!(verify(&smaller, &header), Err(ProofError::OtherCommittee { .. })));
}

#[test]
fn another_committee_era_chain_or_phase_proves_nothing() {
    let (known, proof) = sample();
    let strangers = committee(2..=6);
    let other = header(5, [&strangers, &strangers], &[]);
    let foreign = claim(&other, &strangers, 4).proof().unwrap();
    assert!(verify(&foreign, &other).is_ok());
    assert!(matches!(verify(&foreign, &known), Err(ProofError::OtherHeader { .. })));
    let grafted = FinalityProof { header: known.clone(), ..foreign };
    assert!(matches!(verify(&grafted, &known), Err(ProofError::OtherCommittee { .. })));

    let voters = committee(1..=5);
    let later = header(6, [&voters, &voters], &[]);
    let moved = FinalityProof { header: later.clone(), ..proof.clone() };
    assert!(matches!(verify(&moved, &later), Err(ProofError::BadSignature { .. })));

    let elsewhere = proof.verify(ChainId(Hash([1; 32])), known.id(), &verify_batch);
    assert!(matches!(elsewhere, Err(ProofError::BadSignature { .. })));

    let mut prepared = claim(&known, &voters, 4);
    for batch in &mut prepared.batches {
        let mut swapped = (**batch).clone();
        std::mem::swap(&mut swapped.prepares, &mut swapped.commits);
        swapped.signature = key_of(&voters, swapped.voter).sign(&swapped.digest());
        *batch = Arc::new(swapped);
    }
    assert!(prepared.proof().is_none(), "prepares are no commits");
}

#[test]
fn surplus_and_missing_hashes_are_refused() {
    let (header, proof) = sample();
    let altered = |change: &dyn Fn(&mut FinalityProof)| {
        let mut altered = proof.clone();
        change(&mut altered);
        verify(&altered, &header)
    };
    let malformed = |verdict| matches!(verdict, Err(ProofError::Malformed { .. }));
    assert!(malformed(altered(&|proof| proof.hashes.push(Hash::default()))));
    assert!(malformed(altered(&|proof| proof.hashes.truncate(proof.hashes.len() - 1))));
    assert!(malformed(altered(&|proof| proof.members.siblings.push(Hash::default()))));
    assert!(malformed(altered(&|proof| proof.members.siblings.truncate(proof.members.siblings.len() - 1))));
    assert!(malformed(altered(&|proof| proof.votes.truncate(proof.votes.len() - 1))));
    assert!(malformed(altered(&|proof| proof.members.members.clear())));
    assert!(malformed(altered(&|proof| proof.members.members.swap(0, 1))));
}

fn client(header: &Header) -> LightClient {
    LightClient::new(chain(), TRUST_MS, header.clone())
}

#[test]
fn a_finality_proof_counts_only_in_the_era_after_the_newest_header_and_while_that_is_fresh() {
    let (known, proof) = sample();
    let voters = committee(1..=5);
    let mut verifier = client(&known);
    assert!(verifier.finality(&proof, NOW_MS, &verify_batch).is_ok());
    let last_ms = known.time_ms + TRUST_MS - 1;
    assert!(verifier.finality(&proof, last_ms, &verify_batch).is_ok());
    let late = verifier.finality(&proof, last_ms + 1, &verify_batch);
    assert!(matches!(late, Err(ProofError::Expired { height: 5, .. })), "{late:?}");

    let mut next = header(6, [&voters, &voters], &[]);
    next.previous = known.id();
    verifier.accept(&link(&next, &voters, &voters), NOW_MS, &verify_batch).unwrap();
    let stale = verifier.finality(&proof, NOW_MS, &verify_batch);
    assert_eq!(stale, Err(ProofError::Stale { era: 6, verified: 6 }));
    let early = client(&header(4, [&voters, &voters], &[])).finality(&proof, NOW_MS, &verify_batch);
    assert!(matches!(early, Err(ProofError::OtherHeader { .. })));
}

#[test]
fn headers_are_followed_while_enough_of_the_known_committee_signs() {
    let (old, new, far) = (committee(1..=4), committee(2..=5), committee(4..=8));
    let start = header(2, [&old, &old], &[]);
    let middle = header(9, [&new, &far], &[]);
    let end = header(12, [&far, &far], &[]);

    // The heaviest three that certify the last header were all unknown at the first.
    assert!(Link::new(certified(&end, &far), &old).is_none());
    let unconnected = Link { certified: certified(&end, &far), overlap: None };
    let jump = client(&start).accept(&unconnected, NOW_MS, &verify_batch);
    assert_eq!(jump, Err(ProofError::NeedsIntermediate { from: 2, to: 12 }));

    let mut verifier = client(&start);
    verifier.accept(&link(&middle, &new, &old), NOW_MS, &verify_batch).unwrap();
    verifier.accept(&link(&end, &far, &far), NOW_MS, &verify_batch).unwrap();
    assert_eq!(verifier.newest(), &end);
    let back = verifier.accept(&link(&middle, &new, &old), NOW_MS, &verify_batch);
    assert_eq!(back, Err(ProofError::NotNewer { height: 9, verified: 12 }));
    let expired = client(&start).accept(&link(&middle, &new, &old), start.time_ms + TRUST_MS, &verify_batch);
    assert!(matches!(expired, Err(ProofError::Expired { .. })));
}

#[test]
fn a_third_of_the_known_committee_is_not_enough_and_nobody_counts_who_did_not_sign() {
    // Of weights 1 to 5 (15 in all), exactly 5 is a third.
    let old = committee(1..=5);
    let new = committee(5..=9);
    let (start, end) = (header(2, [&old, &old], &[]), header(9, [&new, &new], &[]));
    let mut all = certified(&end, &new);
    let tag = era_tag(chain(), 9, end.previous);
    let digest = vote_digest(tag, 2, Step::Precommit, Some(end.id()));
    let everyone: Vec<u16> = new.indices().collect();
    all.members = MemberProof::new(&new, &everyone).unwrap();
    all.signatures = everyone.iter().map(|voter| key_of(&new, *voter).sign(&digest)).collect();
    assert!(Link::new(all.clone(), &old).is_none());
    let attempt = |overlap: &[u16]| {
        let overlap = MemberProof::new(&old, overlap);
        client(&start).accept(&Link { certified: all.clone(), overlap }, NOW_MS, &verify_batch)
    };
    assert_eq!(attempt(&[4]), Err(ProofError::NeedsIntermediate { from: 2, to: 9 }));
    assert!(matches!(attempt(&[3, 4]), Err(ProofError::Malformed { field: "overlap", .. })));

    // With member 4 in the new committee it is more than a third.
    let new = committee(4..=9);
    let end = header(9, [&new, &new], &[]);
    let everyone: Vec<u16> = new.indices().collect();
    let digest = vote_digest(tag, 2, Step::Precommit, Some(end.id()));
    let all = CertifiedHeader {
        header: end,
        round: 2,
        members: MemberProof::new(&new, &everyone).unwrap(),
        signatures: everyone.iter().map(|voter| key_of(&new, *voter).sign(&digest)).collect(),
    };
    client(&start).accept(&Link::new(all, &old).unwrap(), NOW_MS, &verify_batch).unwrap();
}

#[test]
fn the_next_header_must_name_the_announced_committee_and_the_block_before() {
    let (old, new) = (committee(1..=4), committee(2..=5));
    let start = header(2, [&old, &old], &[]);
    let mut next = header(3, [&new, &new], &[]);
    next.previous = start.id();
    let other = client(&start).accept(&link(&next, &new, &old), NOW_MS, &verify_batch);
    assert!(matches!(other, Err(ProofError::OtherCommittee { height: 2, .. })), "{other:?}");
    let mut next = header(3, [&old, &new], &[]);
    let unlinked = client(&start).accept(&link(&next, &old, &old), NOW_MS, &verify_batch);
    assert!(matches!(unlinked, Err(ProofError::OtherHeader { height: 2, .. })));
    next.previous = start.id();
    client(&start).accept(&link(&next, &old, &old), NOW_MS, &verify_batch).unwrap();
    next.time_ms = start.time_ms;
    let early = client(&start).accept(&link(&next, &old, &old), NOW_MS, &verify_batch);
    assert!(matches!(early, Err(ProofError::Malformed { field: "header", .. })));
}

#[test]
fn a_certificate_below_quorum_or_of_another_chain_makes_no_header() {
    let voters = committee(1..=5);
    let (start, end) = (header(2, [&voters, &voters], &[]), header(9, [&voters, &voters], &[]));
    let good = certified(&end, &voters);
    let mut light = good.clone();
    light.members = MemberProof::new(&voters, &[2, 4]).unwrap();
    light.signatures = vec![good.signatures[0], good.signatures[2]];
    let verdict = client(&start).accept(&Link { certified: light, overlap: None }, NOW_MS, &verify_batch);
    assert_eq!(verdict, Err(ProofError::TooLight { weight: 8, quorum: 11 }));
    let mut foreign = LightClient::new(ChainId(Hash([1; 32])), TRUST_MS, start.clone());
    let verdict = foreign.accept(&Link { certified: good, overlap: None }, NOW_MS, &verify_batch);
    assert_eq!(verdict, Err(ProofError::BadSignature { voter: 2 }));
}

#[test]
fn a_block_proof_counts_for_the_trusted_header_itself_and_for_later_ones_only_with_its_place() {
    let (_, bundle) = block_bundle();
    let Proof::Block(proof) = &bundle.proof else { panic!("a block proof") };
    let own = &proof.link.certified.header;
    // The trust period does not matter to who trusts the very header.
    let shown = client(own).block(proof, u64::MAX, &verify_batch).unwrap();
    assert_eq!((shown.txid, shown.height), (transaction().id(), 7));
    let mut elsewhere = proof.clone();
    elsewhere.index = 2;
    assert!(client(own).block(&elsewhere, NOW_MS, &verify_batch).is_err());
    let mut other = proof.clone();
    other.transaction.expiry += 1;
    assert!(client(own).block(&other, NOW_MS, &verify_batch).is_err());
}

#[test]
fn a_bundle_says_when_it_is_for_another_header_or_too_late() {
    let (start, bundle) = finality_bundle();
    let mistyped = TrustedHeader { id: BlockId(Hash([7; 32])), ..start };
    assert!(matches!(verify_bundle(&bundle, mistyped), Err(ProofError::OtherHeader { height: 2, .. })));
    let other = TrustedHeader { height: 3, ..start };
    assert_eq!(verify_bundle(&bundle, other), Err(ProofError::OtherStart { found: 2, trusted: 3 }));
    let later = TrustedHeader { height: 10, ..start };
    assert_eq!(verify_bundle(&bundle, later), Err(ProofError::Stale { era: 10, verified: 10 }));
    let expired = bundle.verify(start, NOW_MS + TRUST_MS, &verify_batch);
    assert!(matches!(expired, Err(ProofError::Expired { height: 2, .. })));
    assert!(matches!(ProofBundle::from_bytes(b"# not a proof"), Err(ProofError::NotABundle(_))));
    let huge = vec![0; BUNDLE_BYTES_MAX + 1];
    assert!(matches!(ProofBundle::from_bytes(&huge), Err(ProofError::NotABundle(_))));
}

#[test]
fn a_trusted_header_is_written_as_height_and_id() {
    let (start, _) = finality_bundle();
    assert_eq!(start.to_string().parse::<TrustedHeader>().unwrap(), start);
    for wrong in ["", "7", "7:", "x:00", ":00", "7:zz", "-1:00"] {
        let error = wrong.parse::<TrustedHeader>().unwrap_err().to_string();
        assert!(error.contains('`'), "{error}");
    }
}

#[test]
fn a_committee_root_binds_number_weight_and_every_member_in_its_place() {
    let base = committee(1..=4);
    let root = base.root();
    assert_ne!(root, committee(1..=5).root());
    let changed = |change: &dyn Fn(&mut Member)| {
        let mut members = base.members().to_vec();
        change(&mut members[2]);
        Committee::new(members).root()
    };
    assert_ne!(changed(&|member| member.weight += 1), root);
    assert_ne!(changed(&|member| member.vote_key = key(9).public()), root);
    assert_ne!(changed(&|member| member.id.0.0[31] ^= 1), root);
    // Bound by the registry root instead.
    assert_eq!(changed(&|member| member.name.push('x')), root);
    assert_eq!(changed(&|member| member.payout = KeyHash::default()), root);
    let members = masternode::primitives::merkle::root_of_leaves(base.leaves());
    assert_eq!(committee_root(10, 4, members), root);
    assert_ne!(committee_root(10, 5, members), root);
    assert_ne!(committee_root(11, 4, members), root);
}

/// Size of the proof for the transfer of the samples, of `size` voters of equal weight with `prepares`
/// and `commits` votes in each batch.
fn proof_bytes(size: u8, prepares: u64, commits: u64) -> usize {
    let mut members = committee(1..=size).members().to_vec();
    members.iter_mut().for_each(|member| member.weight = 1);
    let voters = Committee::new(members);
    let header = header(5, [&voters, &voters], &[]);
    let number = |n: u64| Txid(Hash(*blake3::hash(&n.to_le_bytes()).as_bytes()));
    let mut claim = claim(&header, &voters, 0);
    for batch in &mut claim.batches {
        let mut large = (**batch).clone();
        large.prepares = (0..prepares).map(number).collect();
        large.commits.extend((1..commits).map(number));
        large.signature = key_of(&voters, large.voter).sign(&large.digest());
        *batch = Arc::new(large);
    }
    let proof = claim.proof().unwrap();
    assert!(verify(&proof, &header).is_ok());
    encode(&proof).len()
}

#[test]
fn the_sizes_in_the_protocol_are_those_of_the_encoding() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/protocol.md")).unwrap();
    for (size, prepares, commits) in [(4, 0, 1), (4, 1000, 1000), (100, 0, 1), (100, 1000, 1000)] {
        let row = format!("| {size} | {prepares} | {commits} | {} |", proof_bytes(size, prepares, commits));
        assert!(text.contains(&row), "not in docs/protocol.md: {row}");
    }
    let transfer = format!("a payment of {} bytes", encode(&transaction()).len());
    assert!(text.contains(&transfer), "not in docs/protocol.md: {transfer}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_proof_verifies_exactly_when_its_voters_are_a_quorum(
        size in 3u8..12,
        picks in prop::collection::vec(any::<bool>(), 12),
        others in 0u8..9,
    ) {
        let voters = committee(1..=size);
        let header = header(5, [&voters, &voters], &[]);
        let chosen: Vec<u16> = voters.indices().filter(|voter| picks[usize::from(*voter)]).collect();
        let weight: u64 = chosen.iter().map(|voter| voters.weight(*voter)).sum();
        let whole = claim(&header, &voters, others);
        let batches = chosen.iter().map(|voter| Arc::clone(&whole.batches[usize::from(*voter)])).collect();
        let proof = FinalityClaim { batches, ..whole }.proof();
        prop_assert_eq!(proof.is_some(), weight >= voters.quorum());
        if let Some(proof) = proof {
            prop_assert!(verify(&proof, &header).is_ok());
        }
        if !chosen.is_empty() {
            let forced = verify(&proof_of(&header, &voters, &chosen), &header);
            prop_assert_eq!(forced.is_ok(), weight >= voters.quorum());
        }
    }
}
