//! All changes of one write in a file of their own, so that a write is there whole or not at all although
//! the trees are changed key by key.
//!
//! A write puts its changes into the file [`NAME`] beside the database, durably and by renaming, then changes
//! the trees, syncs them and removes the file. What finds the file when it opens the database changes the trees
//! again: the same changes a second time make no difference, and there is never more than the last write to
//! repeat, as each replaces the file of the one before. Sled's own transactions would do, at the price of
//! looking every key up first, of a random order, and of holding up every other caller of every database of the
//! process meanwhile.
//!
//! Layout: [`HEAD`], then for each tree the number of its changes (4 bytes) and each change: length of the key
//! (2), the key, length of the value plus one or 0 for a removal (4), the value; all little-endian; at the end
//! the BLAKE3 hash of everything before it.

use crate::durable::{WriteError, write_whole};
use crate::ledger::store::Trees;
use crate::ledger::store::batches::{Batches, Changes};
use crate::ledger::store::failure::{Failure, guarded};
use crate::ledger::store::folder::StoreError;
use std::io;
use std::path::{Path, PathBuf};

/// Name of the file in the folder of the database.
const NAME: &str = "redo";
/// What such a file begins with.
const HEAD: &[u8; 18] = b"masternode redo 1\n";
/// Bytes of the hash at its end.
const HASH_BYTES: usize = 32;
/// Largest file that is read: more than twice the largest block with all it changes.
const FILE_BYTES_MAX: u64 = 512 << 20;
/// From how many changes on a second thread takes its part of them.
const PARALLEL_FROM: usize = 512;

/// One atomic, durable write: on return it is on the medium, after an error all of it or nothing will be
/// there when the database has been opened again.
pub fn write(dir: &Path, trees: &Trees, mut batches: Batches) -> Result<(), Failure> {
    begin(dir, &mut batches)?;
    apply(dir, trees, batches)?;
    trees.sync(dir)?;
    remove(dir)
}

/// Makes the changes durable beside the database, one a key and ascending.
pub fn begin(dir: &Path, batches: &mut Batches) -> Result<(), Failure> {
    batches.all_mut().into_iter().for_each(Changes::settle);
    let bytes = encoded(batches)?;
    write_whole(&file_in(dir), |_| Ok(bytes)).map_err(refused)
}

/// Completes the write that was under way when the database was closed last, if there was one.
pub fn complete(dir: &Path, trees: &Trees) -> Result<(), Failure> {
    let file = file_in(dir);
    let bytes = match std::fs::metadata(&file) {
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => {
            return Err(StoreError::corrupt(&file, "larger than any write").into());
        }
        Ok(_) => std::fs::read(&file)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let damaged = || StoreError::corrupt(&file, "the changes of the last write fail their checksum");
    let batches = decoded(&bytes).ok_or_else(damaged)?;
    tracing::info!(event = "write_completed", file = %file.display(), "an interrupted write is completed");
    apply(dir, trees, batches)?;
    trees.sync(dir)?;
    remove(dir)
}

/// Changes the trees. What is below tells readers from what is above by the height and by the first whole block,
/// which is why the tree of these comes first: what is pruned is declared so before it goes.
pub fn apply(dir: &Path, trees: &Trees, batches: Batches) -> Result<(), Failure> {
    let Batches { meta, utxos, chunks, places } = batches;
    change(&trees.meta, meta)?;
    if utxos.len() + places.len() < PARALLEL_FROM {
        change(&trees.places, places)?;
        change(&trees.chunks, chunks)?;
        return change(&trees.utxos, utxos);
    }
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            guarded(dir, || {
                change(&trees.places, places)?;
                change(&trees.chunks, chunks)
            })
        });
        let own = change(&trees.utxos, utxos);
        let other = other.join().unwrap_or_else(|_| Err(StoreError::corrupt(dir, "a write broke off")));
        own.and(other.map_err(Failure::Store))
    })
}

fn change(tree: &sled::Tree, changes: Changes) -> Result<(), Failure> {
    for (key, value) in changes {
        match value {
            Some(value) => tree.insert(key, value)?,
            None => tree.remove(key)?,
        };
    }
    Ok(())
}

fn file_in(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

/// The name may come back when the power fails: then the same changes are made again.
fn remove(dir: &Path) -> Result<(), Failure> {
    Ok(std::fs::remove_file(file_in(dir))?)
}

fn refused(error: WriteError) -> Failure {
    match error.action {
        "sync" => Failure::Sync(error.source),
        _ => Failure::Io(error.source),
    }
}

fn encoded(batches: &Batches) -> Result<Vec<u8>, Failure> {
    let too_long = || io::Error::other("a key, a value or a write is longer than its length field can tell");
    let mut bytes = HEAD.to_vec();
    for changes in batches.all() {
        let count = u32::try_from(changes.len()).map_err(|_| too_long())?;
        bytes.extend_from_slice(&count.to_le_bytes());
        for (key, value) in changes.iter() {
            let length = u16::try_from(key.len()).map_err(|_| too_long())?;
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(key);
            let length = value.as_ref().map_or(Some(0), |value| value.len().checked_add(1));
            let length = length.and_then(|length| u32::try_from(length).ok()).ok_or_else(too_long)?;
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(value.as_deref().unwrap_or_default());
        }
    }
    bytes.extend_from_slice(blake3::hash(&bytes).as_bytes());
    Ok(bytes)
}

/// `None` for anything but what [`encoded`] makes.
fn decoded(bytes: &[u8]) -> Option<Batches> {
    let (content, hash) = bytes.split_last_chunk::<HASH_BYTES>()?;
    if blake3::hash(content) != *hash {
        return None;
    }
    let mut rest = content.strip_prefix(HEAD)?;
    let mut batches = Batches::default();
    for changes in batches.all_mut() {
        let count = u32::from_le_bytes(*taken(&mut rest)?);
        for _ in 0..count {
            let length = u16::from_le_bytes(*taken(&mut rest)?);
            let key = part(&mut rest, usize::from(length))?;
            let length = u32::from_le_bytes(*taken(&mut rest)?);
            match usize::try_from(length).ok()?.checked_sub(1) {
                Some(length) => changes.insert(key, part(&mut rest, length)?),
                None => changes.remove(key),
            }
        }
    }
    rest.is_empty().then_some(batches)
}

fn taken<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (first, later) = rest.split_first_chunk::<N>()?;
    *rest = later;
    Some(first)
}

fn part<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (first, later) = rest.split_at_checked(length)?;
    *rest = later;
    Some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::write_unsynced;
    use crate::ledger::Ledger;
    use crate::ledger::apply::BlockWrite;
    use crate::ledger::genesis::Genesis;
    use crate::ledger::store::{Store, StoreOptions};
    use crate::ledger::tests::{extend, funds, genesis_with, sealed};
    use sled::IVec;
    use std::sync::Arc;

    const OPTIONS: StoreOptions = StoreOptions { cache_bytes: 4 << 20 };

    fn store(dir: &Path, genesis: &Genesis) -> (Store, Ledger) {
        let store = Store::open(dir, genesis, OPTIONS).unwrap();
        let ledger = store.load().unwrap();
        (store, ledger)
    }

    /// A block with many payments that is not stored yet, and its changes.
    fn next_block(ledger: &Ledger, genesis: &Genesis) -> (BlockWrite, Batches) {
        let payments = funds(genesis).iter().map(|fund| sealed(fund, 5000, 0)).collect();
        let (block, qc, diff) = extend(ledger, payments);
        let write = BlockWrite { block: Arc::new(block), qc, diff: Arc::new(diff) };
        let mut batches = Batches::of_blocks(&[&write], 1);
        batches.all_mut().into_iter().for_each(Changes::settle);
        (write, batches)
    }

    #[test]
    fn a_file_of_changes_is_read_as_it_was_written_and_any_flipped_bit_or_cut_is_noticed() {
        let mut batches = Batches::default();
        batches.meta.insert([7; 3], b"value".as_slice());
        batches.utxos.remove([1; 22]);
        batches.chunks.insert([2; 13], Vec::new());
        batches.places.insert([3; 20], vec![9; 300]);
        let bytes = encoded(&batches).unwrap();
        assert_eq!(decoded(&bytes), Some(batches));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decoded(&flipped), None, "bit {bit}");
        }
        (0..bytes.len()).for_each(|length| assert_eq!(decoded(&bytes[..length]), None, "{length} bytes"));
        // With a hash that fits: a count and lengths that go beyond the end, and something after it.
        for content in [[HEAD.as_slice(), &[255; 60]].concat(), [HEAD.as_slice(), &[0; 17]].concat()] {
            let hash = blake3::hash(&content);
            assert_eq!(decoded(&[&content, hash.as_bytes().as_slice()].concat()), None);
        }
    }

    #[test]
    fn of_several_changes_of_a_key_the_last_one_counts_and_keys_ascend() {
        let mut changes = Changes::default();
        changes.insert([2], b"first".as_slice());
        changes.insert([1], b"one".as_slice());
        changes.remove([2]);
        changes.remove([3]);
        changes.insert([3], b"last".as_slice());
        changes.settle();
        let left: Vec<_> = changes.into_iter().map(|(key, value)| (key[0], value)).collect();
        assert_eq!(left, [(1, Some(IVec::from(b"one"))), (2, None), (3, Some(IVec::from(b"last")))]);
    }

    #[test]
    fn a_write_that_was_cut_short_anywhere_in_the_trees_is_completed_by_the_next_opening() {
        let genesis = genesis_with(PARALLEL_FROM);
        for part in 0..=5 {
            let dir = tempfile::tempdir().unwrap();
            let (store, ledger) = store(dir.path(), &genesis);
            let (write, batches) = next_block(&ledger, &genesis);
            write_unsynced(&file_in(dir.path()), &encoded(&batches).unwrap()).unwrap();
            // Of each tree a part, as if the process had been killed there.
            let cut = batches.all().map(|changes| {
                let mut cut = Changes::default();
                for (key, value) in changes.iter().take(changes.len() * part / 5) {
                    match value {
                        Some(value) => cut.insert(key, value.clone()),
                        None => cut.remove(key),
                    }
                }
                cut
            });
            let [meta, utxos, chunks, places] = cut;
            store.call(|trees| apply(dir.path(), trees, Batches { meta, utxos, chunks, places })).unwrap();
            drop(store);
            let (store, loaded) = self::store(dir.path(), &genesis);
            assert_eq!(store.height(), 1, "with {part} fifths");
            assert_eq!(loaded.recount().unwrap(), ledger.recount().unwrap());
            let first = &write.block.transactions[0];
            assert_eq!(store.transaction(&first.id()).unwrap(), Some((1, first.body().clone())));
            assert!(!file_in(dir.path()).exists());
            // Stored already, whoever brings it again.
            store.commit(&write).unwrap();
        }
    }

    #[test]
    fn a_damaged_file_of_changes_is_named_and_nothing_is_changed() {
        let (dir, genesis) = (tempfile::tempdir().unwrap(), genesis_with(3));
        let (store, ledger) = store(dir.path(), &genesis);
        let (_, batches) = next_block(&ledger, &genesis);
        drop(store);
        let mut bytes = encoded(&batches).unwrap();
        bytes[40] ^= 1;
        write_unsynced(&file_in(dir.path()), &bytes).unwrap();
        let error = Store::open(dir.path(), &genesis, OPTIONS).unwrap_err();
        assert!(error.is_corrupt() && error.to_string().contains("redo: damaged"), "{error}");
        assert_eq!(std::fs::read(file_in(dir.path())).unwrap(), bytes);
        std::fs::File::create(file_in(dir.path())).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
        let error = Store::open(dir.path(), &genesis, OPTIONS).unwrap_err();
        assert!(error.is_corrupt() && error.to_string().contains("larger than any write"), "{error}");
    }

    #[test]
    fn what_is_being_written_is_not_told_before_it_is_whole() {
        let (dir, genesis) = (tempfile::tempdir().unwrap(), genesis_with(PARALLEL_FROM));
        let (store, ledger) = store(dir.path(), &genesis);
        let (write, batches) = next_block(&ledger, &genesis);
        store.call(|trees| apply(dir.path(), trees, batches)).unwrap();
        assert_eq!(store.header(1).unwrap(), None);
        assert!(store.outline(1).unwrap().is_none() && store.bodies(1, 0, u64::MAX).unwrap().is_empty());
        assert_eq!(store.transaction(&write.block.transactions[0].id()).unwrap(), None);
        assert_eq!(store.committee_change_after(1).unwrap(), None);
    }
}
