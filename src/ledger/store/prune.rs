//! Old blocks without their transactions: what is removed, in steps that hold nobody up.
//!
//! Of a pruned block stay header, both certificates and the committee for good, and where each of its
//! transactions was, so that a question for one is answered with the reason. Ids and bodies go. The record of
//! the first whole block is raised in the same write that removes the first of a block's bytes; what a crash
//! leaves behind of it is removed by the next step.

use crate::ledger::store::Store;
use crate::ledger::store::batches::Batches;
use crate::ledger::store::folder::StoreError;
use crate::ledger::store::records::{FIRST_KEY, Stream, chunk_key, seal};
use crate::primitives::encoding::encode;

/// Chunks removed in one step: 5 MB. Few in the tests of this crate.
const STEP_CHUNKS: usize = if cfg!(test) { 100 } else { 1024 };
/// Chunks looked at in one step.
const STEP_LOOKS: usize = 4096;

impl Store {
    /// Removes some of the transactions of blocks below `keep_from`; whether more are left. One durable write
    /// of a few milliseconds; blocks are stored between two steps.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn prune(&self, keep_from: u64) -> Result<bool, StoreError> {
        let first = self.first_block()?;
        // What a step before may have left of the last block it reached.
        let left = chunk_key(first.saturating_sub(1), Stream::Ids, 0);
        let left = left..chunk_key(first.saturating_sub(1), Stream::Registry, 0);
        let left = self.call(|trees| Ok(trees.chunks.range(left).next().transpose()?.is_some()))?;
        let keep_from = keep_from.min(self.height().saturating_add(1)).max(first);
        if first == keep_from && !left {
            return Ok(false);
        }
        let mut batches = Batches::default();
        let from = chunk_key(first.saturating_sub(1), Stream::Record, 0);
        let to = chunk_key(keep_from, Stream::Record, 0);
        let (reached, ended) = self.call(|trees| {
            let (mut removed, mut looks, mut reached) = (0, 0, first);
            for entry in trees.chunks.range(from..to) {
                let (key, _) = entry?;
                let Some((height, rest)) = key.split_first_chunk::<8>() else { continue };
                let pruned = [Stream::Ids, Stream::Ends, Stream::Bodies].map(|stream| stream as u8);
                reached = reached.max(u64::from_be_bytes(*height).saturating_add(1));
                looks += 1;
                if rest.first().is_some_and(|stream| pruned.contains(stream)) {
                    batches.chunks.remove(&key);
                    removed += 1;
                }
                if removed >= STEP_CHUNKS || looks >= STEP_LOOKS {
                    return Ok((reached, false));
                }
            }
            Ok((keep_from, true))
        })?;
        let reached = reached.min(keep_from);
        batches.meta.insert(FIRST_KEY, seal(FIRST_KEY, &encode(&reached)));
        let _one_at_a_time = self.writing.lock();
        self.write(batches)?;
        Ok(!ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Ledger;
    use crate::ledger::apply::BlockWrite;
    use crate::ledger::genesis::Genesis;
    use crate::ledger::store::StoreOptions;
    use crate::ledger::tests::{extend, funds, genesis_with, sealed};
    use std::path::Path;
    use std::sync::Arc;

    fn open(dir: &Path, genesis: &Genesis) -> Store {
        Store::open(dir, genesis, StoreOptions { cache_bytes: 4 << 20 }).unwrap()
    }

    fn extended(
        store: &Store,
        ledger: &Ledger,
        blocks: &[Vec<(crate::primitives::transaction::OutPoint, crate::primitives::transaction::Utxo)>],
    ) {
        for spends in blocks {
            let spends = spends.iter().map(|fund| sealed(fund, 5000, 0)).collect();
            let (block, qc, diff) = extend(ledger, spends);
            store.commit(&BlockWrite { block: Arc::new(block), qc, diff: Arc::new(diff) }).unwrap();
        }
    }

    #[test]
    fn transactions_of_old_blocks_go_and_everything_else_stays() {
        let (dir, genesis) = (tempfile::tempdir().unwrap(), genesis_with(60));
        let store = open(dir.path(), &genesis);
        let ledger = store.load().unwrap();
        let blocks: Vec<_> = funds(&genesis).chunks(6).map(<[_]>::to_vec).collect();
        extended(&store, &ledger, &blocks);
        let before: Vec<_> = (1..=10).map(|height| store.outline(height).unwrap().unwrap()).collect();
        assert!(!store.prune(1).unwrap());
        while store.prune(8).unwrap() {}
        drop(store);
        let store = open(dir.path(), &genesis);
        assert_eq!(store.first_block().unwrap(), 8);
        for (height, (outline, qc)) in (1u64..).zip(&before) {
            assert_eq!(store.certified(height).unwrap(), Some((outline.header.clone(), qc.clone())));
            assert!(store.committee(height).unwrap().is_some());
            let kept = height >= 8;
            assert_eq!(store.outline(height).unwrap().is_some(), kept, "{height}");
            assert_eq!(!store.bodies(height, 0, u64::MAX).unwrap().is_empty(), kept);
            match store.transaction(&outline.txids[0]) {
                Ok(Some((found, _))) => assert!(kept && found == height),
                Err(StoreError::NotKept { height: told, first: 8, .. }) => assert!(!kept && told == height),
                other => panic!("{other:?} at {height}"),
            }
        }
        // Nothing of it is left, and the state and what comes after are as before.
        let left = store.call(|trees| {
            let pruned = trees.chunks.range(chunk_key(1, Stream::Record, 0)..chunk_key(8, Stream::Record, 0));
            Ok(pruned.filter(|entry| (1..=3).contains(&entry.as_ref().unwrap().0[8])).count())
        });
        assert_eq!(left.unwrap(), 0);
        let loaded = store.load().unwrap();
        assert_eq!(loaded.recount().unwrap(), ledger.recount().unwrap());
        extended(&store, &loaded, &[vec![]]);
        assert!(!store.prune(8).unwrap());
        while store.prune(u64::MAX).unwrap() {}
        assert_eq!(store.first_block().unwrap(), 12, "never above the next block");
    }

    #[test]
    fn a_block_pruned_while_it_is_read_is_not_kept_and_no_damage() {
        let (dir, genesis) = (tempfile::tempdir().unwrap(), genesis_with(12));
        let store = open(dir.path(), &genesis);
        let ledger = store.load().unwrap();
        let blocks: Vec<_> = funds(&genesis).chunks(6).map(<[_]>::to_vec).collect();
        extended(&store, &ledger, &blocks);
        let (outline, _) = store.outline(1).unwrap().unwrap();
        while store.prune(2).unwrap() {}
        // As if the first block had been asked for before and is read only now.
        let not_kept = |result: Result<(), StoreError>| {
            assert!(matches!(result, Err(StoreError::NotKept { height: 1, first: 2 })), "{result:?}");
        };
        not_kept(store.read_outline(1).map(drop));
        not_kept(store.read_bodies(1, 0, u64::MAX).map(drop));
        not_kept(store.transaction(&outline.txids[0]).map(drop));
        extended(&store, &ledger, &[vec![]]);
        // What is missing of a block that is kept is damage, and nothing is written any more.
        store.call(|trees| Ok(trees.chunks.remove(chunk_key(2, Stream::Ids, 0))?)).unwrap();
        assert!(store.outline(2).unwrap_err().is_corrupt());
        assert!(store.prune(3).is_err());
    }

    #[test]
    fn a_step_is_bounded_and_what_it_leaves_of_a_block_goes_with_the_next() {
        let (dir, genesis) = (tempfile::tempdir().unwrap(), genesis_with(12_000));
        let store = open(dir.path(), &genesis);
        let ledger = store.load().unwrap();
        let blocks: Vec<_> = funds(&genesis).chunks(6000).map(<[_]>::to_vec).collect();
        extended(&store, &ledger, &blocks);
        let chunks = || store.call(|trees| Ok(trees.chunks.len())).unwrap();
        let (mut before, mut steps) = (chunks(), 0);
        loop {
            let more = store.prune(3).unwrap();
            let now = chunks();
            assert!(before - now <= STEP_CHUNKS);
            (before, steps) = (now, steps + 1);
            if !more {
                break;
            }
            // Whatever the step, what is declared whole is whole.
            let first = store.first_block().unwrap();
            assert!(first > 2 || store.outline(first).unwrap().is_some());
        }
        assert!(steps > 1 && before < 40, "{steps} steps, {before} chunks");
    }
}
