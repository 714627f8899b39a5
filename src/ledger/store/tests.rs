//! What must hold of the database: durability across reopening, all or nothing, and an error naming
//! file and remedy for everything that is wrong with the folder.

use super::*;
use crate::ledger::Ledger;
use crate::ledger::registry::Registry;
use crate::ledger::store::records::{CHUNK_BYTES, RegistryRecord, outpoint_key, utxo_value};
use crate::ledger::tests::{commit_of, extend, funds, genesis_with, key, next_block, pay, sealed, units};
use crate::primitives::committee::Committee;
use crate::primitives::hash::Txid;
use crate::primitives::transaction::{OutPoint, SealedTransaction, SharedTransaction};
use std::sync::Arc;

const OPTIONS: StoreOptions = StoreOptions { cache_bytes: 4 << 20 };

fn open(dir: &Path, genesis: &Genesis) -> Result<Store, StoreError> {
    Store::open(dir, genesis, OPTIONS)
}

/// Applies a block of `transactions` to the ledger and returns what the store has to commit.
fn write_of(ledger: &Ledger, transactions: Vec<SharedTransaction>) -> BlockWrite {
    let (block, qc, diff) = extend(ledger, transactions);
    BlockWrite { block: Arc::new(block), qc, diff: Arc::new(diff) }
}

/// A store with blocks 1 to `count`, each spending one fund.
fn filled(dir: &Path, genesis: &Genesis, count: usize) -> (Ledger, Vec<BlockWrite>) {
    let store = open(dir, genesis).unwrap();
    let ledger = store.load().unwrap();
    let writes: Vec<BlockWrite> = funds(genesis)
        .iter()
        .take(count)
        .map(|fund| write_of(&ledger, vec![sealed(fund, 5000, 0)]))
        .collect();
    writes.iter().for_each(|write| store.commit(write).unwrap());
    (ledger, writes)
}

impl Store {
    /// From now on its syncs fail, with an error of the system, until it is given another handle.
    pub(crate) fn fail_syncs(&self) {
        self.trees.write().as_mut().unwrap().file = File::open("/dev/null").unwrap();
    }
}

fn same_state(left: &Ledger, right: &Ledger) {
    let (left_tip, right_tip) = (left.tip(), right.tip());
    assert_eq!(left_tip.header, right_tip.header);
    assert_eq!(left_tip.commit, right_tip.commit);
    assert_eq!(left_tip.transactions, right_tip.transactions);
    assert_eq!(left.recount().unwrap(), right.recount().unwrap());
}

#[test]
fn a_new_database_holds_the_genesis_state() {
    let (dir, genesis) = (tempfile::tempdir().unwrap(), genesis_with(3));
    let store = open(dir.path(), &genesis).unwrap();
    same_state(&store.load().unwrap(), &Ledger::in_memory(&genesis));
    assert_eq!(store.height(), 0);
    assert_eq!(store.header(0).unwrap().unwrap(), genesis.state().header);
    assert_eq!(store.outline(0).unwrap(), None);
    assert_eq!(store.header(1).unwrap(), None);
}

#[test]
fn everything_is_there_after_reopening() {
    let (dir, genesis) = (tempfile::tempdir().unwrap(), genesis_with(5));
    let (ledger, writes) = filled(dir.path(), &genesis, 5);
    let store = open(dir.path(), &genesis).unwrap();
    assert_eq!(store.height(), 5);
    same_state(&store.load().unwrap(), &ledger);
    assert_eq!(store.recount().unwrap(), ledger.recount().unwrap());
    for write in &writes {
        let height = write.diff.header.height;
        assert_eq!(store.outline(height).unwrap(), Some((write.block.outline(), write.qc.clone())));
        let transaction = &write.block.transactions[0];
        let found = store.transaction(&transaction.id()).unwrap();
        assert_eq!(found, Some((height, transaction.body().clone())));
    }
    assert_eq!(store.transaction(&Txid::default()).unwrap(), None);
    assert_eq!(store.outline(6).unwrap(), None);
    // And it goes on from there.
    let loaded = store.load().unwrap();
    let write = write_of(&loaded, vec![]);
    store.commit(&write).unwrap();
    assert_eq!(store.height(), 6);
}

/// A genesis whose block of large transactions fills many chunks.
fn large_block(genesis: &Genesis) -> (Ledger, BlockWrite) {
    let ledger = Ledger::in_memory(genesis);
    let transactions = funds(genesis)
        .into_iter()
        .zip(1u64..)
        .map(|((outpoint, utxo), n)| {
            let mut body = pay(outpoint, utxo.value, 100_000, 0);
            let output = crate::primitives::transaction::TxOutput {
                value: units(1000),
                key_hash: key(7).public().key_hash(),
            };
            body.outputs[0].value = units(body.outputs[0].value.units() - 1_000_000);
            // Sizes differ, so that chunk and transaction bounds fall everywhere.
            body.outputs.extend(std::iter::repeat_n(output, usize::try_from(n * 7 % 900).unwrap()));
            SealedTransaction::new(body)
        })
        .collect();
    let write = write_of(&ledger, transactions);
    (ledger, write)
}

#[test]
fn bodies_come_back_in_order_from_any_index_within_the_bound() {
    let (dir, genesis) = (tempfile::tempdir().unwrap(), genesis_with(200));
    let (ledger, write) = large_block(&genesis);
    let store = open(dir.path(), &genesis).unwrap();
    store.commit(&write).unwrap();
    same_state(&store.load().unwrap(), &ledger);
    let all: Vec<_> = write.block.transactions.iter().map(|transaction| transaction.body().clone()).collect();
    assert!(write.diff.header.body_bytes > 1 << 20, "many chunks are exercised");
    assert_eq!(store.bodies(1, 0, u64::MAX).unwrap(), all);
    for from in [1u32, 17, 199] {
        assert_eq!(store.bodies(1, from, u64::MAX).unwrap(), all[from as usize..]);
    }
    assert_eq!(store.bodies(1, 200, u64::MAX).unwrap(), []);
    assert_eq!(store.bodies(2, 0, u64::MAX).unwrap(), []);
    assert_eq!(store.bodies(1, 5, 0).unwrap(), all[5..6], "one at least");
    let mut from = 0;
    while from < all.len() {
        let part = store.bodies(1, u32::try_from(from).unwrap(), 100_000).unwrap();
        let bytes: usize = part.iter().map(|body| encode(body).len()).sum();
        assert!(!part.is_empty() && bytes <= 100_000);
        assert_eq!(part, all[from..from + part.len()]);
        from += part.len();
    }
    assert!(
        std::fs::read_dir(dir.path().join("blobs")).unwrap().next().is_none(),
        "nothing spilled into files"
    );
}

#[test]
fn storing_a_block_again_changes_nothing() {
    let (dir, genesis) = (tempfile::tempdir().unwrap(), genesis_with(3));
    let (ledger, writes) = filled(dir.path(), &genesis, 3);
    let store = open(dir.path(), &genesis).unwrap();
    writes.iter().for_each(|write| store.commit(write).unwrap());
    assert_eq!(store.height(), 3);
    same_state(&store.load().unwrap(), &ledger);
}

#[test]
fn blocks_stored_together_are_as_if_stored_one_by_one() {
    let genesis = genesis_with(4);
    let ledger = Ledger::in_memory(&genesis);
    let first = sealed(&funds(&genesis)[0], 5000, 0);
    let mut writes = vec![write_of(&ledger, vec![first.clone()])];
    // Spends what the block before created, so that one output comes and goes between.
    let between = OutPoint { txid: first.id(), index: 0 };
    let second = sealed(&(between, ledger.utxo(&between).unwrap()), 5000, 0);
    writes.push(write_of(&ledger, vec![second, sealed(&funds(&genesis)[1], 5000, 0)]));
    writes.push(write_of(&ledger, vec![]));
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let together = Arc::new(open(dirs[0].path(), &genesis).unwrap());
    let one_by_one = open(dirs[1].path(), &genesis).unwrap();
    let scan = together.scan().unwrap();
    together.commit_all(&writes).unwrap();
    writes.iter().for_each(|write| one_by_one.commit(write).unwrap());
    assert_eq!(scan.filter(|output| output.is_ok()).count(), genesis.utxos().len(), "as it was before");
    let everything = |store: &Store| {
        let all = |tree: &sled::Tree| tree.iter().map(|entry| entry.unwrap()).collect::<Vec<_>>();
        store.call(|trees| Ok([&trees.meta, &trees.utxos, &trees.chunks, &trees.places].map(all))).unwrap()
    };
    assert_eq!(everything(&together), everything(&one_by_one));
    same_state(&together.load().unwrap(), &ledger);
    // What is stored already is passed over, what does not follow is refused with all the rest.
    let next = [write_of(&ledger, vec![]), write_of(&ledger, vec![])];
    assert!(together.commit_all(&[next[0].clone(), writes[0].clone(), next[0].clone()]).is_err());
    assert_eq!(together.height(), 3);
    together.commit_all(&[writes[2].clone(), next[0].clone(), next[1].clone()]).unwrap();
    assert_eq!(together.height(), 5);
    same_state(&together.load().unwrap(), &ledger);
}

#[test]
fn a_block_that_does_not_follow_is_refused() {
    let (dir, genesis) = (tempfile::tempdir().unwrap(), genesis_with(3));
    let (ledger, _) = filled(dir.path(), &genesis, 1);
    let store = open(dir.path(), &genesis).unwrap();
    let other = Ledger::in_memory(&genesis);
    let rival = write_of(&other, vec![sealed(&funds(&genesis)[2], 9000, 0)]);
    assert!(store.commit(&rival).unwrap_err().to_string().contains("another block"));
    let _next = write_of(&ledger, vec![]);
    let after = write_of(&ledger, vec![]);
    assert!(store.commit(&after).unwrap_err().to_string().contains("blocks between are missing"));
    assert_eq!(store.height(), 1);
}

#[test]
fn another_genesis_is_refused_and_the_data_left_alone() {
    let (dir, genesis) = (tempfile::tempdir().unwrap(), genesis_with(3));
    let (ledger, _) = filled(dir.path(), &genesis, 2);
    let error = open(dir.path(), &genesis_with(4)).unwrap_err();
    assert!(
        matches!(&error, StoreError::WrongChain { expected, .. } if *expected == genesis_with(4).chain_id())
    );
    assert!(error.to_string().contains("another data directory"));
    // Also when only the database itself knows the chain.
    std::fs::remove_file(dir.path().join("CHAIN")).unwrap();
    let error = open(dir.path(), &genesis_with(4)).unwrap_err();
    assert!(matches!(error, StoreError::WrongChain { .. }), "{error}");
    same_state(&open(dir.path(), &genesis).unwrap().load().unwrap(), &ledger);
}

#[test]
fn two_openings_at_once_are_refused() {
    let (dir, genesis) = (tempfile::tempdir().unwrap(), genesis_with(1));
    let _first = open(dir.path(), &genesis).unwrap();
    assert!(matches!(open(dir.path(), &genesis), Err(StoreError::InUse { .. })));
}

#[test]
fn a_lost_database_is_not_taken_for_a_new_one() {
    let (dir, genesis) = (tempfile::tempdir().unwrap(), genesis_with(2));
    filled(dir.path(), &genesis, 2);
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && path.file_name().unwrap() != "CHAIN" {
            std::fs::remove_file(path).unwrap();
        }
    }
    let error = open(dir.path(), &genesis).unwrap_err();
    assert!(error.is_corrupt() && error.to_string().contains("missing beside its marker"), "{error}");
    // An empty file in its place is no better.
    std::fs::write(dir.path().join("db"), []).unwrap();
    let error = open(dir.path(), &genesis).unwrap_err();
    assert!(error.is_corrupt(), "{error}");
}

#[test]
fn a_garbled_marker_names_its_file() {
    let (dir, genesis) = (tempfile::tempdir().unwrap(), genesis_with(1));
    drop(open(dir.path(), &genesis).unwrap());
    let marker = dir.path().join("CHAIN");
    std::fs::write(&marker, "\u{1b}[2J").unwrap();
    let error = open(dir.path(), &genesis).unwrap_err();
    assert!(error.is_corrupt() && error.to_string().contains("CHAIN"), "{error}");
    let text = format!("timecoin masternode database\nformat 9\nchain {}\n", genesis.chain_id());
    std::fs::write(&marker, text).unwrap();
    assert!(matches!(open(dir.path(), &genesis), Err(StoreError::WrongFormat { .. })));
}

/// Opens and loads a damaged copy: a state that really existed, or an error with file and remedy; never
/// a panic, never an empty chain.
fn judge_damage(dir: &Path, genesis: &Genesis, ids: &[crate::primitives::hash::BlockId]) -> bool {
    match open(dir, genesis).and_then(|store| store.load()) {
        Ok(ledger) => {
            ledger.recount().unwrap();
            assert!(ids.contains(&ledger.tip().block), "a state that never was");
            false
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains(dir.to_str().unwrap()), "{text}");
            assert!(
                text.contains("restore a backup of the folder db") || text.contains("check free space"),
                "{text}"
            );
            true
        }
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

#[test]
fn flipped_bits_and_truncation_end_in_an_error_or_a_true_state() {
    let (dir, genesis) = (tempfile::tempdir().unwrap(), genesis_with(40));
    let (_, writes) = filled(dir.path(), &genesis, 20);
    let mut ids: Vec<_> = writes.iter().map(|write| write.diff.block).collect();
    ids.push(genesis.state().block);
    let length = std::fs::metadata(dir.path().join("db")).unwrap().len();
    let mut refused = 0;
    for trial in 0..24u64 {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(dir.path(), copy.path());
        let file = copy.path().join("db");
        let mut bytes = std::fs::read(&file).unwrap();
        // Where data is: the file is allocated in segments, most of them empty in a small database.
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64;
        let at = usize::try_from(used * (2 * trial + 1) / 48).unwrap();
        if trial % 3 == 0 {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << (trial % 8);
        }
        assert!(bytes.len() as u64 <= length);
        std::fs::write(&file, bytes).unwrap();
        refused += u32::from(judge_damage(copy.path(), &genesis, &ids));
    }
    assert!(refused > 0, "some of the damage is noticed");
}

#[test]
fn a_changed_output_is_noticed_although_the_database_is_intact() {
    let (dir, genesis) = (tempfile::tempdir().unwrap(), genesis_with(2));
    {
        let store = open(dir.path(), &genesis).unwrap();
        let (outpoint, mut utxo) = funds(&genesis)[0];
        utxo.value = units(5);
        let mut batches = Batches::default();
        batches.utxos.insert(outpoint_key(&outpoint).as_slice(), utxo_value(&outpoint, &utxo).as_slice());
        store.write(batches).unwrap();
    }
    let store = open(dir.path(), &genesis).unwrap();
    for error in [store.recount().unwrap_err(), store.load().unwrap_err()] {
        assert!(error.is_corrupt() && error.to_string().contains("state hash"), "{error}");
    }
}

/// A store of sixty masternodes, one of which has left, with the ledger beside it.
fn departed(dir: &Path) -> (Genesis, Store, Ledger) {
    let masternodes = (1..=60).map(crate::ledger::tests::founder).collect();
    let genesis = Genesis { masternodes, ..genesis_with(2) };
    let store = open(dir, &genesis).unwrap();
    let ledger = store.load().unwrap();
    let leaving = ledger.tip().registry.voting_with(&key(9).public()).unwrap().id;
    let change = crate::wallet::special::Change { validator: leaving, sequence: 1, expiry: 50 };
    let unbonding = crate::wallet::special::unbond(ledger.chain(), change, &key(9));
    store.commit(&write_of(&ledger, vec![SealedTransaction::new(unbonding)])).unwrap();
    (genesis, store, ledger)
}

#[test]
fn the_registry_and_the_committee_of_the_last_block_are_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let (genesis, store, ledger) = departed(dir.path());
    drop(store);
    let store = open(dir.path(), &genesis).unwrap();
    let loaded = store.load().unwrap();
    same_state(&loaded, &ledger);
    let (found, expected) = (loaded.tip(), ledger.tip());
    assert_eq!((found.committee.len(), found.next_committee.len()), (60, 59));
    assert_eq!(*found.registry, *expected.registry);
    // The next block is checked against the committee that decided the last one.
    store.commit(&write_of(&loaded, vec![])).unwrap();
    same_state(&store.load().unwrap(), &loaded);
}

#[test]
fn a_shorter_registry_leaves_nothing_of_the_longer_one_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (_, store, ledger) = departed(dir.path());
    let tip = ledger.tip();
    let long = crate::primitives::encoding::encode(&RegistryRecord {
        parts: tip.registry.parts(),
        committee: tip.committee.members().to_vec(),
    });
    assert!(long.len() > 2 * CHUNK_BYTES, "several chunks are exercised");
    let mut diff = (*write_of(&ledger, vec![]).diff).clone();
    let few = tip.registry.entries().take(3).cloned().collect();
    diff.registry = Arc::new(Registry::new(few));
    diff.committee = Arc::new(diff.registry.committee());
    let write = write_of(&Ledger::from_parts(&genesis_with(0), (*tip).clone(), vec![]), vec![]);
    store.commit(&BlockWrite { diff: Arc::new(diff.clone()), ..write }).unwrap();
    let (registry, committee) = store.registry().unwrap();
    assert_eq!((&registry, committee), (&*diff.registry, (*diff.committee).clone()));
    let error = store.load().unwrap_err();
    assert!(error.is_corrupt() && error.to_string().contains("another registry"), "{error}");
}

#[test]
fn a_damaged_chunk_is_noticed_by_its_checksum() {
    let (dir, genesis) = (tempfile::tempdir().unwrap(), genesis_with(2));
    filled(dir.path(), &genesis, 2);
    let store = open(dir.path(), &genesis).unwrap();
    let key = chunk_key(1, Stream::Bodies, 0);
    // The chunk of another block under this key: a valid checksum in the wrong place.
    let trees = store.trees.read();
    let trees = trees.as_ref().unwrap();
    let other = trees.chunks.get(chunk_key(2, Stream::Bodies, 0)).unwrap().unwrap();
    trees.chunks.insert(key, other).unwrap();
    let error = store.bodies(1, 0, u64::MAX).unwrap_err();
    assert!(error.is_corrupt() && error.to_string().contains("block 1"), "{error}");
}

#[test]
fn a_write_that_was_cut_short_anywhere_in_the_database_file_is_completed_or_was_never_begun() {
    // The files as they are after the flush of block 2 and in the middle of writing block 3: a copy taken
    // while the store is open, cut at every length between the two.
    let (dir, genesis) = (tempfile::tempdir().unwrap(), genesis_with(3));
    let store = open(dir.path(), &genesis).unwrap();
    let ledger = store.load().unwrap();
    let snapshot = |store: &Store| {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(store.dir(), copy.path());
        copy
    };
    for fund in &funds(&genesis)[..2] {
        store.commit(&write_of(&ledger, vec![sealed(fund, 5000, 0)])).unwrap();
    }
    let before = snapshot(&store);
    let second = ledger.tip().block;
    let write = write_of(&ledger, vec![sealed(&funds(&genesis)[2], 5000, 0)]);
    store.commit(&write).unwrap();
    let after = snapshot(&store);
    let third = ledger.tip().block;
    let old = std::fs::read(before.path().join("db")).unwrap();
    let new = std::fs::read(after.path().join("db")).unwrap();
    let changed: Vec<usize> =
        (0..new.len()).filter(|at| old.get(*at).copied().unwrap_or(0) != new[*at]).collect();
    for part in 0..=8 {
        let kept = changed.len() * part / 8;
        let mut torn = old.clone();
        torn.resize(new.len(), 0);
        changed[..kept].iter().for_each(|at| torn[*at] = new[*at]);
        let copy = snapshot(&store);
        std::fs::write(copy.path().join("db"), torn).unwrap();
        redo::begin(copy.path(), &mut Batches::of_blocks(&[&write], 1)).unwrap();
        let reopened = open(copy.path(), &genesis).unwrap();
        assert_eq!(reopened.load().unwrap().tip().block, third, "torn at {part}/8");
    }
    // The file of changes is not there by its name before all of it is.
    redo::begin(before.path(), &mut Batches::of_blocks(&[&write], 1)).unwrap();
    std::fs::rename(before.path().join("redo"), before.path().join("redo.new")).unwrap();
    assert_eq!(open(before.path(), &genesis).unwrap().load().unwrap().tip().block, second);
}

#[test]
fn a_failed_call_leaves_the_store_closed_for_good() {
    let (dir, genesis) = (tempfile::tempdir().unwrap(), genesis_with(1));
    let store = open(dir.path(), &genesis).unwrap();
    let error = store.call::<()>(|_| panic!("as sled does")).unwrap_err();
    assert!(error.is_corrupt() && error.to_string().contains("as sled does"), "{error}");
    assert!(store.load().unwrap_err().to_string().contains("given up"));
    let (block, diff) = next_block(&Ledger::in_memory(&genesis), vec![]).unwrap();
    let qc = commit_of(genesis.chain_id(), &block.header, &Ledger::in_memory(&genesis));
    let write = BlockWrite { block: Arc::new(block), qc, diff: Arc::new(diff) };
    assert!(store.commit(&write).is_err());
}

#[test]
fn the_committee_of_every_height_is_kept() {
    let (dir, genesis) = (tempfile::tempdir().unwrap(), genesis_with(2));
    let (ledger, mut writes) = filled(dir.path(), &genesis, 1);
    let first = Committee::clone(&ledger.tip().next_committee);
    let second = Committee::new(first.members()[1..].to_vec());
    let mut write = write_of(&ledger, Vec::new());
    let mut diff = write.diff.as_ref().clone();
    diff.next_committee = Arc::new(second.clone());
    diff.header.next_committee_root = second.root();
    write.diff = Arc::new(diff);
    writes.push(write);
    let store = open(dir.path(), &genesis).unwrap();
    store.commit(&writes[1]).unwrap();
    drop(store);
    let store = open(dir.path(), &genesis).unwrap();
    let kept = |height| store.committee(height).unwrap();
    assert_eq!((kept(1), kept(2)), (Some(first.clone()), Some(first)));
    assert_eq!((kept(3), kept(4)), (Some(second), None));
}

#[test]
fn a_store_opened_again_goes_on_and_a_scan_with_it() {
    let (dir, genesis) = (tempfile::tempdir().unwrap(), genesis_with(3));
    let store = Arc::new(open(dir.path(), &genesis).unwrap());
    let ledger = store.load().unwrap();
    store.commit(&write_of(&ledger, vec![sealed(&funds(&genesis)[0], 5000, 0)])).unwrap();
    let mut scan = store.scan().unwrap();
    store.reopen().unwrap();
    assert_eq!(store.height(), 1);
    store.commit(&write_of(&ledger, vec![sealed(&funds(&genesis)[1], 5000, 0)])).unwrap();
    assert_eq!(scan.by_ref().filter(|output| output.is_ok()).count(), 4 + 3 + 1 + 1);
    same_state(&store.load().unwrap(), &ledger);
}

#[test]
fn an_index_that_was_being_written_when_the_process_died_is_put_aside() {
    let (dir, genesis) = (tempfile::tempdir().unwrap(), genesis_with(3));
    let (ledger, _) = filled(dir.path(), &genesis, 3);
    std::fs::write(dir.path().join("snap.00FFFFFFFFFFFFFF.generating"), b"half").unwrap();
    same_state(&open(dir.path(), &genesis).unwrap().load().unwrap(), &ledger);
    assert_eq!(std::fs::read(dir.path().join(UNFINISHED_NAME)).unwrap(), b"half");
}

#[test]
fn a_view_is_of_one_block_while_others_are_stored() {
    let (dir, genesis) = (tempfile::tempdir().unwrap(), genesis_with(3));
    let store = Arc::new(open(dir.path(), &genesis).unwrap());
    let ledger = store.load().unwrap();
    std::thread::scope(|scope| {
        // Each block changes who was present, so each rewrites the masternodes.
        let writer = scope.spawn(|| (0..60).for_each(|_| store.commit(&write_of(&ledger, vec![])).unwrap()));
        while !writer.is_finished() {
            let view = store.view().unwrap();
            assert_eq!(view.registry.root(), view.header.registry_root);
            assert_eq!(view.outputs.height(), view.header.height);
        }
    });
    assert_eq!(store.view().unwrap().header.height, 60);
}

#[test]
fn after_a_failed_sync_nothing_is_stored_any_more_though_a_later_sync_would_succeed() {
    for by_pruning in [false, true] {
        let (dir, genesis) = (tempfile::tempdir().unwrap(), genesis_with(4));
        let ledger = filled(dir.path(), &genesis, 2).0;
        let store = open(dir.path(), &genesis).unwrap();
        let write = write_of(&ledger, vec![sealed(&funds(&genesis)[2], 5000, 0)]);
        store.fail_syncs();
        let failed = if by_pruning { store.prune(2).map(drop) } else { store.commit(&write) }.unwrap_err();
        let text = failed.to_string();
        assert!(matches!(failed, StoreError::Unsynced { .. }) && failed.may_pass(), "{text}");
        assert!(text.contains(&dir.path().display().to_string()) && text.contains("start again"), "{text}");
        // The system has told the error, and the next sync of the same file says nothing of it.
        store.trees.write().as_mut().unwrap().file = File::open(dir.path().join("db")).unwrap();
        for refused in [store.commit(&write), store.prune(2).map(drop), store.reopen(), store.commit(&write)]
        {
            assert!(matches!(refused, Err(StoreError::Unsynced { .. })), "{refused:?}");
        }
        assert_eq!(store.height(), 2);
    }
}
