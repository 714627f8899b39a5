//! Tests of what only shows when all parts of a snapshot are there.

use super::*;
use crate::ledger::set_hash::SetHash;
use crate::ledger::snapshot::write_output;
use crate::ledger::store::Store;
use crate::node::snapshots::maker::tests::Chain;
use crate::primitives::transaction::Utxo;

const OPTIONS: StoreOptions = StoreOptions { cache_bytes: 4 << 20 };

/// A chain whose outputs fill two chunks, and those outputs.
fn chain(dir: &Path) -> (Chain, Vec<(OutPoint, Utxo)>) {
    let mut chain = Chain::new(dir, 9000);
    chain.extend();
    let outputs = chain.scan().unwrap().map(Result::unwrap).collect();
    (chain, outputs)
}

/// A manifest over these chunks, whatever they are, and their bytes.
fn manifest(chain: &Chain, chunks: &[&[(OutPoint, Utxo)]]) -> (Manifest, Vec<Vec<u8>>) {
    let tip = chain.ledger.tip();
    let mut parts = vec![crate::ledger::snapshot::registry_bytes(&tip.registry)];
    let mut sums = Vec::new();
    for chunk in chunks {
        let (mut sum, mut bytes) = (SetHash::new(), Vec::new());
        for (outpoint, utxo) in *chunk {
            sum.add(outpoint, utxo);
            write_output(&mut bytes, outpoint, utxo);
        }
        sums.extend(sum.to_bytes());
        parts.push(bytes);
    }
    (Manifest::of(tip.header.clone(), &tip.committee, &parts[0], sums), parts)
}

fn import(dir: &Path, chain: &Chain, chunks: &[&[(OutPoint, Utxo)]]) -> Result<PathBuf, IncomingError> {
    let (manifest, parts) = manifest(chain, chunks);
    let checked = manifest.check(&chain.genesis.params).unwrap();
    let incoming = Incoming::open(&dir.join("in"), checked, &chain.genesis.params, OPTIONS)?;
    for (part, bytes) in (0..).zip(&parts) {
        incoming.accept(part, bytes)?;
    }
    let commit = chain.ledger.tip().commit.clone().unwrap();
    incoming.finish(chain.genesis.chain_id(), commit)
}

#[test]
fn parts_in_order_make_a_database() {
    let dir = tempfile::tempdir().unwrap();
    let (chain, outputs) = chain(dir.path());
    let database = import(dir.path(), &chain, &[&outputs[..8192], &outputs[8192..]]).unwrap();
    let store = Store::open(&database, &chain.genesis, OPTIONS).unwrap();
    assert_eq!(store.load().unwrap().tip().header, chain.ledger.tip().header);
}

#[test]
fn chunks_that_fit_the_header_together_and_overlap_or_are_out_of_order_are_a_lie() {
    let dir = tempfile::tempdir().unwrap();
    let (chain, outputs) = chain(dir.path());
    // The first chunk takes the end of the set, the second what is left: all there, each in order.
    let split = outputs.len() - 8192;
    let error = import(dir.path(), &chain, &[&outputs[split..], &outputs[..split]]).unwrap_err();
    assert!(error.is_lie() && error.to_string().contains("order"), "{error}");
    assert!(!dir.path().join("in/db/CHAIN").exists());
}

#[test]
fn a_part_that_is_missing_at_the_end_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (chain, outputs) = chain(dir.path());
    let (manifest, parts) = manifest(&chain, &[&outputs[..8192], &outputs[8192..]]);
    let checked = manifest.check(&chain.genesis.params).unwrap();
    let incoming = Incoming::open(&dir.path().join("in"), checked, &chain.genesis.params, OPTIONS).unwrap();
    incoming.accept(0, &parts[0]).unwrap();
    incoming.accept(2, &parts[2]).unwrap();
    let commit = chain.ledger.tip().commit.clone().unwrap();
    let error = incoming.finish(chain.genesis.chain_id(), commit).unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
}

#[test]
fn the_parts_of_another_snapshot_make_room() {
    let dir = tempfile::tempdir().unwrap();
    let (mut chain, outputs) = chain(dir.path());
    let folder = dir.path().join("in");
    let (first, parts) = manifest(&chain, &[&outputs[..8192], &outputs[8192..]]);
    let params = chain.genesis.params.clone();
    let checked = first.check(&params).unwrap();
    let incoming = Incoming::open(&folder, checked.clone(), &params, OPTIONS).unwrap();
    incoming.accept(0, &parts[0]).unwrap();
    drop(incoming);
    assert_eq!(left_behind(&folder, &params), Some(checked.id()));
    assert_eq!(manifest_left(&folder, checked.id(), &params).map(|left| left.id()), Some(checked.id()));
    let again = Incoming::open(&folder, checked, &params, OPTIONS).unwrap();
    assert!(again.is_left(0) && !again.is_left(1));
    again.resume(0).unwrap();
    drop(again);
    chain.extend();
    let outputs: Vec<_> = chain.scan().unwrap().map(Result::unwrap).collect();
    let (second, _) = manifest(&chain, &[&outputs[..8192], &outputs[8192..]]);
    let other = Incoming::open(&folder, second.check(&params).unwrap(), &params, OPTIONS).unwrap();
    assert!(!other.is_left(0));
}
