//! A database filled with the state after one block instead of with all blocks up to it.
//!
//! It grows in a folder of its own and has neither chain id nor marker before [`Import::finish`] has synced
//! the rest, so an import that was cut short is never taken for a database; the next one begins anew. The
//! first block such a database holds whole is the one after the state. Absent: any check of the state; the
//! caller has made it, and [`Store::load`](crate::ledger::store::Store::load) recounts.

use crate::durable::sync_folder;
use crate::ledger::apply::State;
use crate::ledger::store::batches::Batches;
use crate::ledger::store::containment::contain_panics;
use crate::ledger::store::failure::guarded;
use crate::ledger::store::folder::{StoreError, write_marker};
use crate::ledger::store::records::{FIRST_KEY, FORMAT, outpoint_key, seal, utxo_value};
use crate::ledger::store::redo;
use crate::ledger::store::{CHAIN_KEY, StoreOptions, Trees, open_unlocked};
use crate::primitives::encoding::encode;
use crate::primitives::transaction::{OutPoint, Utxo};
use std::io;
use std::path::{Path, PathBuf};

/// A database that is being filled.
pub struct Import {
    dir: PathBuf,
    trees: Trees,
}

impl Import {
    /// Begins in `dir`, removing what an import before has left there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn begin(dir: &Path, options: StoreOptions) -> Result<Self, StoreError> {
        contain_panics();
        match std::fs::remove_dir_all(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::io(dir, &error));
            }
            _ => {}
        }
        std::fs::create_dir_all(dir).map_err(|error| StoreError::io(dir, &error))?;
        Ok(Self { dir: dir.to_owned(), trees: open_unlocked(dir, options)? })
    }

    /// Adds unspent outputs; several threads may. Cost: about 4 µs an output.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn add(&self, outputs: impl Iterator<Item = (OutPoint, Utxo)>) -> Result<(), StoreError> {
        guarded(&self.dir, || {
            for (outpoint, utxo) in outputs {
                self.trees.utxos.insert(outpoint_key(&outpoint), utxo_value(&outpoint, &utxo).as_slice())?;
            }
            Ok(())
        })
    }

    /// Completes the database with everything but the outputs, and makes it durable.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn finish(self, state: &State) -> Result<(), StoreError> {
        let Self { dir, trees } = self;
        let height = state.header.height;
        let mut batches = Batches::of_state(state);
        let first = encode(&height.saturating_add(1));
        batches.meta.insert(FIRST_KEY, seal(FIRST_KEY, &first));
        batches.meta.insert(CHAIN_KEY, seal(CHAIN_KEY, &encode(&(state.chain, FORMAT))));
        guarded(&dir, || {
            redo::apply(&dir, &trees, batches)?;
            trees.sync(&dir)?;
            drop(trees);
            Ok(())
        })?;
        sync_folder(&dir).map_err(|error| StoreError::io(&error.path, &error.source))?;
        write_marker(&dir, state.chain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Ledger;
    use crate::ledger::apply::BlockWrite;
    use crate::ledger::store::Store;
    use crate::ledger::tests::{extend, funds, genesis_with, sealed};
    use std::sync::Arc;

    const OPTIONS: StoreOptions = StoreOptions { cache_bytes: 4 << 20 };

    fn outputs(ledger: &Ledger) -> Vec<(OutPoint, Utxo)> {
        let mut outputs = Vec::new();
        ledger.for_each(|outpoint, utxo| outputs.push((*outpoint, *utxo)));
        outputs.sort_by_key(|(outpoint, _)| *outpoint);
        outputs
    }

    #[test]
    fn an_imported_state_loads_goes_on_and_knows_where_its_blocks_begin() {
        let (dir, genesis) = (tempfile::tempdir().unwrap(), genesis_with(500));
        let ledger = Ledger::in_memory(&genesis);
        let funds = funds(&genesis);
        for fund in &funds[..3] {
            extend(&ledger, vec![sealed(fund, 5000, 0)]);
        }
        let tip = ledger.tip();
        let import = Import::begin(dir.path(), OPTIONS).unwrap();
        import.add(outputs(&ledger).into_iter()).unwrap();
        import.finish(&tip).unwrap();
        let store = Store::open(dir.path(), &genesis, OPTIONS).unwrap();
        let loaded = store.load().unwrap();
        let same = loaded.tip();
        assert_eq!(
            (&same.header, &same.registry, &same.committee),
            (&tip.header, &tip.registry, &tip.committee)
        );
        assert_eq!((&same.commit, &same.next_committee), (&tip.commit, &tip.next_committee));
        assert_eq!((store.height(), store.first_block().unwrap()), (3, 4));
        assert_eq!(store.header(3).unwrap().as_ref(), Some(&tip.header));
        assert_eq!(store.certified(3).unwrap(), Some((tip.header.clone(), tip.commit.clone().unwrap())));
        // Not kept, which is no damage.
        for height in 0..=3 {
            assert!(
                store.outline(height).unwrap().is_none() && store.bodies(height, 0, 99).unwrap().is_empty()
            );
        }
        assert!(store.header(2).unwrap().is_none() && store.committee(2).unwrap().is_none());
        assert_eq!(store.committee(3).unwrap().map(|found| found.root()), Some(tip.committee.root()));
        assert_eq!(store.committee(4).unwrap().map(|found| found.root()), Some(tip.next_committee.root()));
        let (block, qc, diff) = extend(&loaded, vec![sealed(&funds[3], 5000, 0)]);
        store.commit(&BlockWrite { block: Arc::new(block), qc, diff: Arc::new(diff) }).unwrap();
        assert!(store.outline(4).unwrap().is_some() && store.outline(3).unwrap().is_none());
        drop(store);
        let again = Store::open(dir.path(), &genesis, OPTIONS).unwrap();
        assert_eq!((again.load().unwrap().tip().header.height, again.first_block().unwrap()), (4, 4));
    }

    #[test]
    fn an_import_cut_short_is_no_database_and_the_next_one_begins_anew() {
        let (dir, genesis) = (tempfile::tempdir().unwrap(), genesis_with(500));
        let ledger = Ledger::in_memory(&genesis);
        extend(&ledger, vec![]);
        let all = outputs(&ledger);
        for kept in [1, all.len()] {
            let import = Import::begin(dir.path(), OPTIONS).unwrap();
            import.add(all.iter().take(kept).copied()).unwrap();
            drop(import);
            assert!(Store::open(dir.path(), &genesis, OPTIONS).is_err());
        }
        // The one output too many of the import before is not there.
        let import = Import::begin(dir.path(), OPTIONS).unwrap();
        import.add(all.into_iter()).unwrap();
        import.finish(&ledger.tip()).unwrap();
        Store::open(dir.path(), &genesis, OPTIONS).unwrap().load().unwrap();
    }

    #[test]
    fn a_state_with_an_output_missing_or_too_many_does_not_load() {
        let genesis = genesis_with(5);
        let ledger = Ledger::in_memory(&genesis);
        let (block, _, _) = extend(&ledger, vec![]);
        let mut extra = outputs(&ledger)[0];
        extra.0.index += 7;
        for change in [-1, 1] {
            let dir = tempfile::tempdir().unwrap();
            let import = Import::begin(dir.path(), OPTIONS).unwrap();
            let mut all = outputs(&ledger);
            if change < 0 {
                all.truncate(all.len() - 1);
            } else {
                all.push(extra);
            }
            import.add(all.into_iter()).unwrap();
            import.finish(&ledger.tip()).unwrap();
            let error = Store::open(dir.path(), &genesis, OPTIONS).unwrap().load().unwrap_err();
            assert!(error.is_corrupt(), "{error} at height {}", block.header.height);
        }
    }
}
