//! All unspent outputs as they were after one block, while further blocks are stored.
//!
//! A [`Scan`] begins at the stored height and shows exactly the outputs unspent then, ascending, whatever
//! is stored meanwhile. The database itself changes under it, so it is put right twice: an output made
//! later carries a greater height and is left out; an output spent later was noted for every open scan
//! before its block was written, and is put back in. What lies behind a scan is not noted for it.
//!
//! Memory of a scan: one page of [`PAGE_OUTPUTS`], and the outputs spent since it began that it has not
//! reached; when those are more than [`SPENT_MAX`] it ends with an error rather than grow. Nothing waits
//! for a scan and no block is held up by one. Absent: the rest of the state, which the header of
//! [`Scan::height`] commits to.

use crate::ledger::apply::BlockDiff;
use crate::ledger::store::Store;
use crate::ledger::store::folder::StoreError;
use crate::ledger::store::records::{outpoint_key, parse_utxo};
use crate::primitives::transaction::{OutPoint, Utxo};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Outputs read at once.
const PAGE_OUTPUTS: usize = 1024;
/// Most outputs noted for one scan: 25 MB. Few in the tests of this crate.
const SPENT_MAX: usize = if cfg!(test) { 500 } else { 200_000 };
/// Most scans at a time.
const SCANS_MAX: usize = 16;

/// Key of an output in the database; sorts as the outputs do.
type Key = [u8; 22];

/// The open scans of a store.
#[derive(Debug, Default)]
pub struct Scans(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    open: BTreeMap<u64, Progress>,
    /// The blocks being written.
    writing: Vec<Arc<BlockDiff>>,
}

/// What is known of one scan outside of it.
#[derive(Debug)]
struct Progress {
    height: u64,
    /// The last key it has passed.
    cursor: Option<Key>,
    /// Spent since it began, and not yet passed.
    spent: BTreeMap<Key, (OutPoint, Utxo)>,
    overtaken: bool,
}

impl Progress {
    fn note_all(&mut self, diffs: &[Arc<BlockDiff>]) {
        for diff in diffs {
            if !self.overtaken {
                self.note(diff);
            }
        }
    }

    fn note(&mut self, diff: &BlockDiff) {
        for (outpoint, utxo) in &diff.spent {
            let key = outpoint_key(outpoint);
            if utxo.height <= self.height && self.cursor.is_none_or(|cursor| key > cursor) {
                self.spent.insert(key, (*outpoint, *utxo));
            }
        }
        if self.spent.len() > SPENT_MAX {
            self.overtaken = true;
            self.spent.clear();
        }
    }
}

impl Scans {
    /// Blocks are about to be written; before anything of them can be seen.
    pub fn begin(&self, diffs: Vec<Arc<BlockDiff>>) {
        let mut inner = self.0.lock();
        for scan in inner.open.values_mut() {
            scan.note_all(&diffs);
        }
        inner.writing = diffs;
    }

    /// They were written, or it is known that they were not: scans that begin now begin at `height`.
    pub fn end(&self, stored: &AtomicU64, height: u64) {
        let mut inner = self.0.lock();
        inner.writing.clear();
        stored.store(height, Ordering::Release);
    }

    /// Height of the last block being written.
    pub fn reaches(&self) -> Option<u64> {
        self.0.lock().writing.last().map(|diff| diff.header.height)
    }

    fn open(&self, stored: &AtomicU64) -> Option<(u64, u64)> {
        let mut inner = self.0.lock();
        if inner.open.len() >= SCANS_MAX {
            return None;
        }
        let height = stored.load(Ordering::Acquire);
        let mut progress = Progress { height, cursor: None, spent: BTreeMap::new(), overtaken: false };
        progress.note_all(&inner.writing);
        let id = inner.next;
        inner.next += 1;
        inner.open.insert(id, progress);
        Some((id, height))
    }

    fn close(&self, id: u64) {
        self.0.lock().open.remove(&id);
    }

    /// Puts back into `page`, which goes up to `last` or to the end, what was spent meanwhile.
    fn complete(&self, id: u64, last: Option<Key>, page: &mut BTreeMap<Key, (OutPoint, Utxo)>) -> bool {
        let mut inner = self.0.lock();
        let Some(scan) = inner.open.get_mut(&id).filter(|scan| !scan.overtaken) else { return false };
        let later = match last {
            Some(last) => {
                let mut later = scan.spent.split_off(&last);
                if let Some(output) = later.remove(&last) {
                    scan.spent.insert(last, output);
                }
                later
            }
            None => BTreeMap::new(),
        };
        page.append(&mut std::mem::replace(&mut scan.spent, later));
        scan.cursor = last.or(Some([u8::MAX; 22]));
        true
    }
}

/// All unspent outputs after one block, ascending. Keeps the database open.
#[derive(Debug)]
pub struct Scan {
    store: Arc<Store>,
    id: u64,
    height: u64,
    cursor: Option<Key>,
    page: VecDeque<(OutPoint, Utxo)>,
    done: bool,
}

impl Store {
    /// Begins a scan of all outputs unspent after the block stored last. Cost: about 2 µs an output when it
    /// is walked through.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when too many scans are open.
    pub fn scan(self: &Arc<Self>) -> Result<Scan, StoreError> {
        let opened = self.scans.open(&self.height);
        let (id, height) = opened.ok_or_else(|| StoreError::Unavailable {
            file: self.dir.clone(),
            reason: format!("{SCANS_MAX} scans of the unspent outputs run already"),
        })?;
        let (page, cursor) = (VecDeque::new(), None);
        Ok(Scan { store: Arc::clone(self), id, height, cursor, page, done: false })
    }
}

impl Scan {
    /// The block whose outputs these are: its header holds their number, sum and set hash.
    #[must_use]
    pub fn height(&self) -> u64 {
        self.height
    }

    fn read_page(&mut self) -> Result<(), StoreError> {
        let from = self.cursor.map_or(Bound::Unbounded, Bound::Excluded);
        let (mut page, mut read, mut last) = (BTreeMap::new(), 0usize, None);
        self.store.call(|trees| {
            for entry in trees.utxos.range::<Key, _>((from, Bound::Unbounded)).take(PAGE_OUTPUTS) {
                let (key, value) = entry?;
                let output = parse_utxo(&key, &value);
                let (outpoint, utxo) = output.ok_or_else(|| self.store.malformed_output())?;
                let key = outpoint_key(&outpoint);
                (read, last) = (read + 1, Some(key));
                if utxo.height <= self.height {
                    page.insert(key, (outpoint, utxo));
                }
            }
            Ok(())
        })?;
        // Read before what was noted: an output is in one of the two.
        let last = last.filter(|_| read == PAGE_OUTPUTS);
        if !self.store.scans.complete(self.id, last, &mut page) {
            let reason = format!("more than {SPENT_MAX} outputs were spent during a scan: begin another");
            return Err(StoreError::Unavailable { file: self.store.dir.clone(), reason });
        }
        (self.cursor, self.done) = (last, last.is_none());
        self.page = page.into_values().collect();
        Ok(())
    }
}

impl Iterator for Scan {
    type Item = Result<(OutPoint, Utxo), StoreError>;

    /// The next output; after an error nothing more.
    fn next(&mut self) -> Option<Self::Item> {
        while self.page.is_empty() && !self.done {
            if let Err(error) = self.read_page() {
                self.done = true;
                return Some(Err(error));
            }
        }
        self.page.pop_front().map(Ok)
    }
}

impl Drop for Scan {
    fn drop(&mut self) {
        self.store.scans.close(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Ledger;
    use crate::ledger::apply::BlockWrite;
    use crate::ledger::genesis::Genesis;
    use crate::ledger::set_hash::SetHash;
    use crate::ledger::store::StoreOptions;
    use crate::ledger::tests::{extend, funds, genesis_with, sealed};

    fn store(dir: &std::path::Path, genesis: &Genesis) -> (Arc<Store>, Ledger) {
        let store = Store::open(dir, genesis, StoreOptions { cache_bytes: 4 << 20 }).unwrap();
        let ledger = store.load().unwrap();
        (Arc::new(store), ledger)
    }

    /// Stores a block that spends these.
    fn spend(store: &Store, ledger: &Ledger, outputs: &[(OutPoint, Utxo)]) {
        let (block, qc, diff) =
            extend(ledger, outputs.iter().map(|output| sealed(output, 5000, 0)).collect());
        store.commit(&BlockWrite { block: Arc::new(block), qc, diff: Arc::new(diff) }).unwrap();
    }

    fn outputs(ledger: &Ledger) -> Vec<(OutPoint, Utxo)> {
        let mut all = BTreeMap::new();
        ledger.for_each(|outpoint, utxo| {
            all.insert(*outpoint, *utxo);
        });
        all.into_iter().collect()
    }

    #[test]
    fn a_scan_shows_the_outputs_of_its_block_whatever_is_stored_while_it_is_walked_through() {
        let (dir, genesis) = (tempfile::tempdir().unwrap(), genesis_with(3 * PAGE_OUTPUTS));
        let (store, ledger) = store(dir.path(), &genesis);
        let funds = funds(&genesis);
        spend(&store, &ledger, &funds[..50]);
        let before = outputs(&ledger);
        let mut scan = store.scan().unwrap();
        assert_eq!(scan.height(), 1);
        let mut seen: Vec<_> = scan.by_ref().take(10).map(Result::unwrap).collect();
        // On all pages, also the one being read; the outputs made go everywhere as well.
        for part in funds[50..].chunks(PAGE_OUTPUTS).map(|part| &part[..100]) {
            spend(&store, &ledger, part);
            seen.extend(scan.by_ref().take(PAGE_OUTPUTS / 2).map(Result::unwrap));
        }
        seen.extend(scan.by_ref().map(Result::unwrap));
        assert_eq!(seen.len(), before.len());
        assert!(seen == before, "the outputs of the block, in order");
        let (now, later): (Vec<_>, _) =
            (store.scan().unwrap().map(Result::unwrap).collect(), outputs(&ledger));
        assert!(now == later, "a scan begun afterwards shows the outputs of now");
    }

    #[test]
    fn scans_beside_a_writer_have_the_set_hash_of_their_header() {
        let (dir, genesis) = (tempfile::tempdir().unwrap(), genesis_with(1500));
        let (store, ledger) = store(dir.path(), &genesis);
        let funds = funds(&genesis);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| funds.chunks(40).for_each(|part| spend(&store, &ledger, part)));
            let mut heights = std::collections::BTreeSet::new();
            while !writer.is_finished() || heights.is_empty() {
                let mut sum = SetHash::new();
                let scan = store.scan().unwrap();
                let height = scan.height();
                // One that was overtaken says so.
                let walked = scan.map(|output| output.map(|(outpoint, utxo)| sum.add(&outpoint, &utxo)));
                if walked.collect::<Result<Vec<()>, _>>().is_ok() {
                    let header = store.header(height).unwrap().unwrap();
                    assert_eq!(sum.digest(), header.utxo_hash, "at height {height}");
                    heights.insert(height);
                }
            }
        });
    }

    #[test]
    fn a_scan_that_stands_still_ends_with_an_error_and_room_is_made_for_others() {
        let (dir, genesis) = (tempfile::tempdir().unwrap(), genesis_with(SPENT_MAX + 1));
        let (store, ledger) = store(dir.path(), &genesis);
        let mut scans: Vec<Scan> = (0..SCANS_MAX).map(|_| store.scan().unwrap()).collect();
        assert!(store.scan().unwrap_err().to_string().contains("scans"));
        spend(&store, &ledger, &funds(&genesis));
        let error = scans[0].next().unwrap().unwrap_err();
        assert!(error.to_string().contains("begin another"), "{error}");
        assert!(scans[0].next().is_none());
        drop(scans);
        assert_eq!(store.scan().unwrap().count(), outputs(&ledger).len());
    }
}
