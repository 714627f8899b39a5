//! The ledger on disk: the one file that names sled.
//!
//! What was measured of sled 0.34.7 shapes it: a write keeps its changes in a file until they are in all
//! trees ([`redo`]), as sled's transactions are slow and hold up all readers; a flush is followed by
//! `sync_data` of the database file, as sled itself never syncs; every call runs inside `catch_unwind`, as
//! damaged files make sled panic; a marker file outside the database tells a new folder from one whose
//! database was lost; [`Store::load`] recounts the set hash; an index that sled was writing when it was killed
//! is put aside before sled takes it for a whole one. Damaged data is reported with file and remedy and never
//! repaired, emptied or deleted here.
//!
//! All calls block; they belong on a thread of their own. Absent: votes, which are the journal's.

mod batches;
pub mod containment;
mod failure;
pub mod folder;
pub mod import;
pub mod install;
mod loading;
mod migrate;
mod prune;
mod reading;
mod records;
mod redo;
pub mod scan;
#[cfg(test)]
mod tests;
pub mod view;

use crate::durable::sync_folder;
use crate::ledger::apply::BlockWrite;
use crate::ledger::genesis::Genesis;
use crate::ledger::store::batches::Batches;
use crate::ledger::store::containment::contain_panics;
use crate::ledger::store::failure::{Failure, guarded};
use crate::ledger::store::folder::{StoreError, read_marker, sync_blobs, write_marker};
use crate::ledger::store::records::{
    FORMAT, OLDEST_FORMAT, REGISTRY_PLACE, Stream, TIP_KEY, TipRecord, chunk_key, seal, stream_of, unseal,
};
use crate::ledger::store::scan::Scans;
use crate::primitives::encoding::{decode_stored, encode};
use crate::primitives::hash::ChainId;
use parking_lot::{Mutex, RwLock};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Key of the chain id in the meta tree; its value is sealed.
const CHAIN_KEY: &[u8] = b"chain";

/// How often opening is tried while the file is locked, [`LOCKED_PAUSE`] apart: sled releases its lock on
/// a thread of its own some time after a store of this process was dropped.
const LOCKED_TRIES: u32 = 40;
/// Where an index goes that sled was writing when it was killed.
const UNFINISHED_NAME: &str = "unfinished-index";
/// Pause between two tries.
const LOCKED_PAUSE: std::time::Duration = std::time::Duration::from_millis(25);

/// Local settings of a store.
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// Memory sled may use for pages; the process takes two to three times that.
    pub cache_bytes: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { cache_bytes: 64 << 20 }
    }
}

/// The trees and the handle to sync the file below them.
struct Trees {
    db: sled::Db,
    meta: sled::Tree,
    utxos: sled::Tree,
    chunks: sled::Tree,
    places: sled::Tree,
    file: File,
}

impl Trees {
    /// Makes durable what was changed.
    fn sync(&self, dir: &Path) -> Result<(), Failure> {
        self.db.flush()?;
        self.file.sync_data().map_err(Failure::Sync)?;
        sync_blobs(dir).map_err(Failure::Sync)
    }
}

/// Why nothing is read or written any more until the next start.
#[derive(Debug)]
enum GivenUp {
    /// A call into sled panicked or found damage: its memory is not to be trusted any more.
    Damaged,
    /// A sync failed. The system tells it once and takes the lost pages for written; a later write would be
    /// synced, and what it rests on would be missing.
    Unsynced(String),
}

/// An open database of one chain.
pub struct Store {
    dir: PathBuf,
    genesis: Genesis,
    options: StoreOptions,
    /// There until the store is dropped, but for the moment in which it is opened again.
    trees: RwLock<Option<Trees>>,
    height: AtomicU64,
    /// Held by the one who writes.
    writing: Mutex<()>,
    scans: Scans,
    given_up: OnceLock<GivenUp>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({} at height {})", self.dir.display(), self.height())
    }
}

impl Store {
    /// Opens the database in `dir`, making it from the genesis when there is none.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is changed when the folder holds anything but an intact database of this
    /// chain.
    pub fn open(dir: &Path, genesis: &Genesis, options: StoreOptions) -> Result<Self, StoreError> {
        contain_panics();
        std::fs::create_dir_all(dir).map_err(|error| StoreError::io(dir, &error))?;
        let chain = genesis.chain_id();
        let marked = read_marker(dir, chain)?;
        if marked && !dir.join("db").exists() {
            return Err(StoreError::corrupt(
                dir,
                "the database file `db` is missing beside its marker `CHAIN`",
            ));
        }
        let trees = open_whole(dir, options)?;
        let mut store = Self {
            dir: dir.to_owned(),
            genesis: genesis.clone(),
            options,
            trees: RwLock::new(Some(trees)),
            height: AtomicU64::new(0),
            writing: Mutex::new(()),
            scans: Scans::default(),
            given_up: OnceLock::new(),
        };
        store.check_identity(chain, marked)?;
        let tip = store.call(|trees| read_tip(dir, trees))?;
        *store.height.get_mut() = tip.height;
        Ok(store)
    }

    /// Compares the stored chain id, or founds the database if it is new.
    fn check_identity(&self, chain: ChainId, marked: bool) -> Result<(), StoreError> {
        let found = self.call(|trees| Ok(trees.meta.get(CHAIN_KEY)?))?;
        let Some(sealed) = found else {
            let empty = self.call(|trees| {
                Ok(trees.meta.is_empty() && trees.utxos.is_empty() && trees.chunks.is_empty())
            })?;
            if marked || !empty {
                return Err(StoreError::corrupt(&self.dir, "the database has lost its contents"));
            }
            return self.found(chain);
        };
        let bytes = unseal(CHAIN_KEY, &sealed)
            .ok_or_else(|| StoreError::corrupt(&self.dir, "the chain id fails its checksum"))?;
        let (found, format) = decode_stored::<(ChainId, u32)>(bytes)
            .map_err(|error| StoreError::corrupt(&self.dir, format!("the chain id: {error}")))?;
        if !(OLDEST_FORMAT..=FORMAT).contains(&format) {
            return Err(StoreError::WrongFormat { file: self.dir.clone(), found: format.to_string() });
        }
        if found != chain {
            return Err(StoreError::WrongChain { file: self.dir.clone(), found, expected: chain });
        }
        if format < FORMAT {
            return self.migrate(chain, format);
        }
        if marked { Ok(()) } else { write_marker(&self.dir, chain) }
    }

    /// Writes the genesis state, then the marker: a crash between the two is repaired at the next start.
    fn found(&self, chain: ChainId) -> Result<(), StoreError> {
        let mut batches = Batches::of_genesis(self.genesis.state(), &self.genesis.utxos());
        batches.meta.insert(CHAIN_KEY, seal(CHAIN_KEY, &encode(&(chain, FORMAT))));
        self.write(batches)?;
        let folders = [Some(self.dir.as_path()), self.dir.parent()];
        for folder in folders.into_iter().flatten().filter(|folder| !folder.as_os_str().is_empty()) {
            sync_folder(folder).map_err(|error| StoreError::io(&error.path, &error.source))?;
        }
        write_marker(&self.dir, chain)
    }

    /// Height of the last stored block.
    #[must_use]
    pub fn height(&self) -> u64 {
        self.height.load(Ordering::Acquire)
    }

    /// The folder of the database.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Bytes the database takes on disk.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn size_on_disk(&self) -> Result<u64, StoreError> {
        self.call(|trees| Ok(trees.db.size_on_disk()?))
    }

    /// Stores a decided block: all of it or nothing, durable on return. A block already stored is left as
    /// it is. One caller at a time.
    ///
    /// # Errors
    /// [`StoreError`]; after one that is not [`StoreError::NotNext`] the block may or may not be stored.
    pub fn commit(&self, write: &BlockWrite) -> Result<(), StoreError> {
        self.commit_all(std::slice::from_ref(write))
    }

    /// Stores decided blocks, one after the other, in one write: all of them or none. As [`Store::commit`] for
    /// each otherwise; several cost one sync, and nothing for outputs that are created and spent in between.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn commit_all(&self, writes: &[BlockWrite]) -> Result<(), StoreError> {
        let mut new = Vec::with_capacity(writes.len());
        for write in writes {
            let (height, stored) = (write.diff.header.height, self.height());
            if height <= stored {
                self.check_stored(write, stored)?;
            } else if height != stored.saturating_add(1).saturating_add(new.len() as u64) {
                let reason = "blocks between are missing".to_owned();
                return Err(StoreError::NotNext { height, stored, reason });
            } else {
                new.push(write);
            }
        }
        let Some(last) = new.last().map(|write| write.diff.header.height) else { return Ok(()) };
        let _one_at_a_time = self.writing.lock();
        let registry = chunk_key(REGISTRY_PLACE, Stream::Registry, 0);
        let chunks = self.call(|trees| Ok(trees.chunks.scan_prefix(stream_of(&registry)).keys().count()))?;
        let chunks = u32::try_from(chunks).unwrap_or(u32::MAX);
        self.scans.begin(new.iter().map(|write| Arc::clone(&write.diff)).collect());
        self.write(Batches::of_blocks(&new, chunks))?;
        self.scans.end(&self.height, last);
        Ok(())
    }

    fn check_stored(&self, write: &BlockWrite, stored: u64) -> Result<(), StoreError> {
        let height = write.diff.header.height;
        let known = self.record(height)?.map(|record| record.header.id());
        if known == Some(write.diff.block) {
            return Ok(());
        }
        let reason = format!("another block {known:?} is stored at this height, not {}", write.diff.block);
        Err(StoreError::NotNext { height, stored, reason })
    }

    /// One atomic, durable write. Others may see a part of it meanwhile.
    fn write(&self, batches: Batches) -> Result<(), StoreError> {
        self.call(|trees| redo::write(&self.dir, trees, batches))
    }

    /// Closes the database and opens it again: after a failed write sled refuses everything, until then.
    /// Whether the block that failed is stored is told by [`Store::height`]. Readers fail meanwhile.
    ///
    /// # Errors
    /// [`StoreError`]; the store is closed then, and may be opened again later unless a sync failed.
    pub fn reopen(&self) -> Result<(), StoreError> {
        self.refuse_given_up()?;
        self.noting_faults(self.open_again())
    }

    fn open_again(&self) -> Result<(), StoreError> {
        let mut place = self.trees.write();
        if let Some(old) = place.take() {
            guarded(&self.dir, || {
                drop(old);
                Ok(())
            })?;
        }
        let trees = open_whole(&self.dir, self.options)?;
        let stored = self.height();
        let tip = guarded(&self.dir, || {
            trees.file.sync_data().map_err(Failure::Sync)?;
            read_tip(&self.dir, &trees)
        })?;
        if tip.height != stored && Some(tip.height) != self.scans.reaches() {
            let reason = format!("after a failed write it is at height {}, before at {stored}", tip.height);
            return Err(StoreError::corrupt(&self.dir, reason));
        }
        *place = Some(trees);
        self.scans.end(&self.height, tip.height);
        Ok(())
    }

    /// Runs `work` on the trees with panics contained.
    fn call<T>(&self, work: impl FnOnce(&Trees) -> Result<T, Failure>) -> Result<T, StoreError> {
        self.refuse_given_up()?;
        let trees = self.trees.read();
        let Some(trees) = trees.as_ref() else {
            // Only what ran out of space is opened again, and stays closed until that succeeds.
            let reason = "closed until there is space to open it again".to_owned();
            return Err(StoreError::Full { file: self.dir.clone(), reason });
        };
        self.noting_faults(guarded(&self.dir, || work(trees)))
    }

    fn refuse_given_up(&self) -> Result<(), StoreError> {
        match self.given_up.get() {
            None => Ok(()),
            Some(GivenUp::Damaged) => {
                Err(StoreError::corrupt(&self.dir, "the database failed before and was given up"))
            }
            Some(GivenUp::Unsynced(reason)) => {
                Err(StoreError::Unsynced { file: self.dir.clone(), reason: reason.clone() })
            }
        }
    }

    /// Gives the database up on a fault after which nothing it says or takes can be relied on.
    fn noting_faults<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        match &result {
            Err(StoreError::Corrupt { .. }) => drop(self.given_up.set(GivenUp::Damaged)),
            Err(StoreError::Unsynced { reason, .. }) => {
                drop(self.given_up.set(GivenUp::Unsynced(reason.clone())));
            }
            _ => {}
        }
        result
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let Some(trees) = self.trees.get_mut().take() else { return };
        if self.given_up.get().is_some() {
            // Sled's destructor would run on damaged state, or write on. The process is about to stop: leak it.
            Box::leak(Box::new(trees));
            return;
        }
        let ended = guarded(&self.dir, || {
            drop(trees);
            Ok(())
        });
        if let Err(error) = ended {
            tracing::error!(%error, "the database did not close");
        }
    }
}

/// Opens the trees as the last write left them, or as it was to leave them.
fn open_whole(dir: &Path, options: StoreOptions) -> Result<Trees, StoreError> {
    let trees = open_unlocked(dir, options)?;
    guarded(dir, || redo::complete(dir, &trees))?;
    Ok(trees)
}

/// Opens the trees, waiting for a lock that is about to go.
fn open_unlocked(dir: &Path, options: StoreOptions) -> Result<Trees, StoreError> {
    for _ in 1..LOCKED_TRIES {
        match guarded(dir, || open_trees(dir, options)) {
            Err(StoreError::InUse { .. }) => std::thread::sleep(LOCKED_PAUSE),
            result => return result,
        }
    }
    guarded(dir, || open_trees(dir, options))
}

fn open_trees(dir: &Path, options: StoreOptions) -> Result<Trees, Failure> {
    prepare(dir)?;
    // No background flusher: `write` flushes and syncs every block itself.
    let config = sled::Config::new().path(dir).cache_capacity(options.cache_bytes).flush_every_ms(None);
    let db = config.open()?;
    sync_files(dir).map_err(Failure::Sync)?;
    Ok(Trees {
        meta: db.open_tree("meta")?,
        utxos: db.open_tree("utxos")?,
        chunks: db.open_tree("chunks")?,
        places: db.open_tree("places")?,
        file: File::open(dir.join("db"))?,
        db,
    })
}

/// Readies the folder for sled. It takes an index it was writing when it was killed for a whole one, and
/// writes that index from what it reads, which a crash may have left to the system alone.
fn prepare(dir: &Path) -> Result<(), Failure> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "generating") {
            // One place for all of them: they hold nothing, the log does.
            std::fs::rename(&path, dir.join(UNFINISHED_NAME))?;
        }
    }
    match File::open(dir.join("db")) {
        Ok(file) => Ok(file.sync_data().map_err(Failure::Sync)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Syncs the files beside the database file that sled writes when it opens, its settings above all: it
/// opens nothing when they are torn.
fn sync_files(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            File::open(entry.path())?.sync_data()?;
        }
    }
    File::open(dir)?.sync_all()
}

fn read_tip(dir: &Path, trees: &Trees) -> Result<TipRecord, Failure> {
    let sealed = trees.meta.get(TIP_KEY)?;
    let bytes = sealed.as_ref().and_then(|sealed| unseal(TIP_KEY, sealed));
    let tip = bytes.and_then(|bytes| decode_stored(bytes).ok());
    Ok(tip.ok_or_else(|| StoreError::corrupt(dir, "the record of the last block is missing or damaged"))?)
}
