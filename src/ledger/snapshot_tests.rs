//! Tests of manifests and parts: an honest snapshot is taken, and each way of lying is refused.

use super::*;
use crate::ledger::Ledger;
use crate::ledger::genesis::Genesis;
use crate::ledger::tests::{extend, funds, genesis_with, key, sealed};
use crate::primitives::keys::verify_batch;

/// A ledger at height 2 with all its outputs in order, its registry and a certificate.
struct Chain {
    genesis: Genesis,
    ledger: Ledger,
    outputs: Vec<(OutPoint, Utxo)>,
    registry: Vec<u8>,
}

fn chain(allocations: usize) -> Chain {
    let genesis = genesis_with(allocations);
    let ledger = Ledger::in_memory(&genesis);
    extend(&ledger, vec![sealed(&funds(&genesis)[0], 5000, 0)]);
    extend(&ledger, vec![]);
    let mut outputs = Vec::new();
    ledger.for_each(|outpoint, utxo| outputs.push((*outpoint, *utxo)));
    outputs.sort_by_key(|(outpoint, _)| *outpoint);
    let registry = registry_bytes(&ledger.tip().registry);
    Chain { genesis, ledger, outputs, registry }
}

impl Chain {
    fn chunks(&self) -> Vec<Vec<u8>> {
        let bytes = |outputs: &[(OutPoint, Utxo)]| {
            let mut chunk = Vec::new();
            outputs.iter().for_each(|(outpoint, utxo)| write_output(&mut chunk, outpoint, utxo));
            chunk
        };
        self.outputs.chunks(OUTPUTS_PER_CHUNK).map(bytes).collect()
    }

    fn sums(&self) -> Vec<SetHash> {
        let sum = |outputs: &[(OutPoint, Utxo)]| {
            let mut sum = SetHash::new();
            outputs.iter().for_each(|(outpoint, utxo)| sum.add(outpoint, utxo));
            sum
        };
        self.outputs.chunks(OUTPUTS_PER_CHUNK).map(sum).collect()
    }

    fn with_sums(&self, sums: &[SetHash]) -> Manifest {
        let tip = self.ledger.tip();
        let sums = sums.iter().flat_map(SetHash::to_bytes).collect();
        Manifest::of(tip.header.clone(), &tip.committee, &self.registry, sums)
    }

    fn manifest(&self) -> Manifest {
        self.with_sums(&self.sums())
    }

    fn checked(&self) -> Checked {
        self.manifest().check(&self.genesis.params).unwrap()
    }

    fn refused(&self, change: impl FnOnce(&mut Manifest)) -> String {
        let mut manifest = self.manifest();
        change(&mut manifest);
        manifest.check(&self.genesis.params).unwrap_err().to_string()
    }
}

#[test]
fn an_honest_snapshot_passes_every_check_and_leads_to_the_same_state() {
    let chain = chain(9000);
    let manifest = Manifest::from_bytes(&encode(&chain.manifest())).unwrap();
    let checked = manifest.check(&chain.genesis.params).unwrap();
    assert_eq!(checked.parts(), (3, 1));
    let chunks = chain.chunks();
    assert_eq!(chunks.len(), 2);
    checked.check_part(0, &chain.registry).unwrap();
    for (part, chunk) in (1..).zip(&chunks) {
        checked.check_part(part, chunk).unwrap();
        assert_eq!(checked.part_bytes(part), Some(chunk.len()));
    }
    let bytes: usize = chunks.iter().map(Vec::len).sum::<usize>() + chain.registry.len();
    assert_eq!(checked.bytes(), bytes as u64);
    let tip = chain.ledger.tip();
    let commit = tip.commit.clone().unwrap();
    checked.check_commit(tip.chain, &commit, &verify_batch).unwrap();
    let registry = checked.registry(&chain.registry).unwrap();
    let state = checked.state(tip.chain, registry, commit);
    let expected = (&tip.header, tip.block, &tip.set_hash, &tip.registry, &tip.committee);
    assert_eq!((&state.header, state.block, &state.set_hash, &state.registry, &state.committee), expected);
    assert_eq!((&state.next_committee, &state.commit), (&tip.next_committee, &tip.commit));
    let read: Vec<_> = chunks.iter().flat_map(|chunk| outputs(chunk)).map(Option::unwrap).collect();
    assert_eq!(read, chain.outputs);
}

#[test]
fn every_byte_of_a_chunk_counts() {
    let chain = chain(2);
    let checked = chain.checked();
    let chunk = chain.chunks().remove(0);
    checked.check_part(1, &chunk).unwrap();
    for at in 0..chunk.len() {
        for bit in 0..8 {
            let mut changed = chunk.clone();
            changed[at] ^= 1 << bit;
            assert!(checked.check_part(1, &changed).is_err(), "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn every_byte_of_the_registry_counts() {
    let chain = chain(1);
    let checked = chain.checked();
    for at in 0..chain.registry.len() {
        let mut changed = chain.registry.clone();
        changed[at] ^= 1;
        assert!(checked.check_part(0, &changed).is_err(), "byte {at}");
    }
}

#[test]
fn a_chunk_cut_short_repeated_reordered_or_of_another_place_is_refused() {
    let chain = chain(9000);
    let checked = chain.checked();
    let [first, second] = &chain.chunks()[..] else { panic!("two chunks") };
    for cut in [0, 1, OUTPUT_BYTES, second.len() - OUTPUT_BYTES, second.len() - 1] {
        assert!(checked.check_part(2, &second[..cut]).is_err(), "{cut} bytes");
    }
    let mut longer = second.clone();
    longer.extend_from_slice(&second[..OUTPUT_BYTES]);
    assert!(checked.check_part(2, &longer).is_err());
    assert!(checked.check_part(1, second).is_err() && checked.check_part(2, first).is_err());
    assert!(checked.check_part(3, second).is_err(), "a part beyond the last");
    // The sum does not depend on the order, so the order is checked by itself.
    let mut swapped = second.clone();
    swapped.rotate_left(OUTPUT_BYTES);
    let error = checked.check_part(2, &swapped).unwrap_err().to_string();
    assert!(error.contains("order"), "{error}");
}

#[test]
fn a_manifest_may_lie_about_single_sums_only_and_then_no_honest_chunk_fits() {
    let chain = chain(9000);
    let mut sums = chain.sums();
    let (outpoint, utxo) = chain.outputs[0];
    sums[0].remove(&outpoint, &utxo);
    let error = chain.with_sums(&sums).check(&chain.genesis.params).unwrap_err().to_string();
    assert!(error.contains("sum over all chunks"), "{error}");
    sums[1].add(&outpoint, &utxo);
    let lying = chain.with_sums(&sums).check(&chain.genesis.params).unwrap();
    assert_ne!(lying.id(), chain.checked().id());
    for (part, chunk) in (1..).zip(chain.chunks()) {
        assert!(lying.check_part(part, &chunk).is_err());
    }
}

#[test]
fn a_manifest_of_another_shape_state_committee_or_chain_is_refused() {
    let chain = chain(2);
    assert!(chain.refused(|manifest| manifest.version = 2).contains("version"));
    assert!(chain.refused(|manifest| manifest.registry_bytes += 1 << 20).contains("registry"));
    assert!(chain.refused(|manifest| manifest.registry_bytes = u64::MAX).contains("registry"));
    assert!(chain.refused(|manifest| manifest.registry.push(Hash::default())).contains("registry"));
    assert!(chain.refused(|manifest| manifest.sums.push(0)).contains("one sum"));
    assert!(chain.refused(|manifest| manifest.sums.clear()).contains("one sum"));
    assert!(chain.refused(|manifest| manifest.sums[7] ^= 1).contains("sum over all"));
    assert!(chain.refused(|manifest| manifest.header.utxo_count = u64::MAX).contains("one sum"));
    assert!(chain.refused(|manifest| manifest.header.utxo_hash = Hash::default()).contains("sum over all"));
    assert!(chain.refused(|manifest| manifest.committee[0].weight += 1).contains("committee"));
    assert!(chain.refused(|manifest| manifest.committee[0].weight = u64::MAX).contains("committee"));
    assert!(chain.refused(|manifest| manifest.committee[0].vote_key = key(9).public()).contains("committee"));
    assert!(chain.refused(|manifest| manifest.committee.clear()).contains("committee"));
    assert!(chain.refused(|manifest| manifest.committee.swap(0, 1)).contains("committee"));
    let mut params = chain.genesis.params.clone();
    params.dust = crate::ledger::tests::units(1);
    assert!(chain.manifest().check(&params).unwrap_err().to_string().contains("parameters"));
    for cut in [0, 1, 100] {
        let bytes = encode(&chain.manifest());
        assert!(Manifest::from_bytes(&bytes[..bytes.len() - 1 - cut]).is_err());
    }
}

#[test]
fn another_registry_is_refused_even_if_its_manifest_describes_it() {
    let chain = chain(2);
    let tip = chain.ledger.tip();
    let (mut entries, keys) = tip.registry.parts();
    entries.pop();
    let lie = registry_bytes(&Registry::from_parts((entries, keys)));
    let sums = chain.sums().iter().flat_map(SetHash::to_bytes).collect();
    let manifest = Manifest::of(tip.header.clone(), &tip.committee, &lie, sums);
    let checked = manifest.check(&chain.genesis.params).unwrap();
    checked.check_part(0, &lie).unwrap();
    assert!(checked.registry(&lie).unwrap_err().to_string().contains("registry"));
    assert!(checked.registry(&lie[..9]).is_err());
}

#[test]
fn a_certificate_of_another_block_or_of_too_few_or_forged_is_refused() {
    let chain = chain(2);
    let (checked, tip) = (chain.checked(), chain.ledger.tip());
    let commit = tip.commit.clone().unwrap();
    let check = |commit: &Qc| checked.check_commit(tip.chain, commit, &verify_batch);
    check(&commit).unwrap();
    let other = extend(&chain.ledger, vec![]).1;
    assert!(check(&other).is_err());
    let votes = commit.votes().unwrap();
    let few = Qc::new(0, Step::Precommit, commit.block, votes[..2].to_vec());
    assert!(matches!(check(&few), Err(SnapshotError::Commit(_))));
    let prevotes = Qc { step: Step::Prevote, ..commit.clone() };
    assert!(check(&prevotes).is_err());
    let mut forged = votes.clone();
    forged[0].1 = forged[1].1;
    let forged = Qc::new(0, Step::Precommit, commit.block, forged.into_iter().collect());
    assert_eq!(check(&forged), Err(SnapshotError::BadSignature));
    let elsewhere = checked.check_commit(ChainId(Hash([9; 32])), &commit, &verify_batch);
    assert_eq!(elsewhere, Err(SnapshotError::BadSignature));
}
