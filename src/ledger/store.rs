//! The ledger on disk: the one file that names sled.
//!
//! What was measured of sled 0.34.7 shapes it: every block is one transaction over all trees; a flush
//! is followed by `sync_data` of the database file, as sled itself never syncs; every call runs inside
//! `catch_unwind`, as damaged files make sled panic; a marker file outside the database tells a new
//! folder from one whose database was lost; [`Store::load`] recounts the set hash. Damaged data is
//! reported with file and remedy and never repaired, emptied or deleted here.
//!
//! All calls block; they belong on a thread of their own. Absent: votes, which are the journal's.

mod batches;
pub mod containment;
pub mod folder;
mod records;
#[cfg(test)]
mod tests;

use crate::ledger::Ledger;
use crate::ledger::apply::{BlockWrite, State};
use crate::ledger::genesis::Genesis;
use crate::ledger::registry::Registry;
use crate::ledger::set_hash::SetHash;
use crate::ledger::store::batches::Batches;
use crate::ledger::store::containment::{contain_panics, contained};
use crate::ledger::store::folder::{StoreError, read_marker, sync_blobs, sync_folder, write_marker};
use crate::ledger::store::records::{
    BlockRecord, CHUNK_BYTES, FORMAT, REGISTRY_PLACE, RegistryRecord, Stream, TIP_KEY, TipRecord, chunk_key,
    committee_key, parse_committee_key, parse_place, parse_utxo, place_key, seal, stream_of, unseal,
};
use crate::primitives::amount::Amount;
use crate::primitives::block::{Header, Outline};
use crate::primitives::certificate::Qc;
use crate::primitives::committee::{Committee, Member};
use crate::primitives::encoding::{decode_stored, encode};
use crate::primitives::hash::{ChainId, Hash, Txid};
use crate::primitives::transaction::{OutPoint, Transaction, Utxo};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// One block is written at a time in a process. Until a write ends sled frees nothing of what it
/// replaced, about 100 MB for a block of 10,000 transactions; the nodes of a devnet share one process and
/// commit at the same moment.
static WRITING: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

/// Key of the chain id in the meta tree; its value is sealed.
const CHAIN_KEY: &[u8] = b"chain";

/// How often opening is tried while the file is locked, [`LOCKED_PAUSE`] apart: sled releases its lock on
/// a thread of its own some time after a store of this process was dropped.
const LOCKED_TRIES: u32 = 40;
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

/// An open database of one chain.
pub struct Store {
    dir: PathBuf,
    genesis: Genesis,
    /// There until the store is dropped.
    trees: Option<Trees>,
    height: AtomicU64,
    /// A call into sled panicked: its memory is not to be trusted any more.
    broken: AtomicBool,
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
        let trees = open_unlocked(dir, options)?;
        let mut store = Self {
            dir: dir.to_owned(),
            genesis: genesis.clone(),
            trees: Some(trees),
            height: AtomicU64::new(0),
            broken: AtomicBool::new(false),
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
        if format != FORMAT {
            return Err(StoreError::WrongFormat { file: self.dir.clone(), found: format.to_string() });
        }
        if found != chain {
            return Err(StoreError::WrongChain { file: self.dir.clone(), found, expected: chain });
        }
        if marked { Ok(()) } else { write_marker(&self.dir, chain) }
    }

    /// Writes the genesis state, then the marker: a crash between the two is repaired at the next start.
    fn found(&self, chain: ChainId) -> Result<(), StoreError> {
        let mut batches = Batches::of_genesis(self.genesis.state(), &self.genesis.utxos());
        batches.meta.insert(CHAIN_KEY, seal(CHAIN_KEY, &encode(&(chain, FORMAT))));
        self.write(&batches)?;
        sync_folder(&self.dir)?;
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

    /// The whole ledger, its set hash recounted and compared with the last header. Cost: a pass over all
    /// outputs, about 5 µs each.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when anything disagrees.
    pub fn load(&self) -> Result<Ledger, StoreError> {
        let tip = self.call(|trees| read_tip(&self.dir, trees))?;
        let record = self
            .record(tip.height)?
            .filter(|record| record.header.id() == tip.block && record.header.height == tip.height)
            .ok_or_else(|| {
                StoreError::corrupt(&self.dir, format!("block {} is not the recorded tip", tip.height))
            })?;
        let header = record.header;
        let (registry, committee) = self.registry()?;
        let next_committee = registry.committee();
        let same = header.registry_root == registry.root()
            && header.committee_root == committee.root()
            && header.next_committee_root == next_committee.root()
            && header.params_root == self.genesis.params.root();
        if !same {
            return Err(StoreError::corrupt(
                &self.dir,
                "the last header names another registry, committee or parameters",
            ));
        }
        let (utxos, set_hash) = self.call(|trees| read_utxos(&self.dir, &trees.utxos))?;
        let state = State {
            chain: self.genesis.chain_id(),
            block: tip.block,
            commit: record.commit,
            set_hash,
            registry: Arc::new(registry),
            committee: Arc::new(committee),
            next_committee: Arc::new(next_committee),
            transactions: record.transactions,
            header,
        };
        check_sums(&self.dir, &state, &utxos)?;
        Ok(Ledger::from_parts(&self.genesis, state, utxos))
    }

    /// Stores a decided block: all of it or nothing, durable on return. A block already stored is left as
    /// it is. One caller at a time.
    ///
    /// # Errors
    /// [`StoreError`]; after one that is not [`StoreError::NotNext`] the block may or may not be stored.
    pub fn commit(&self, write: &BlockWrite) -> Result<(), StoreError> {
        let (height, stored) = (write.diff.header.height, self.height());
        if height <= stored {
            let known = self.record(height)?.map(|record| record.header.id());
            if known == Some(write.diff.block) {
                return Ok(());
            }
            let reason =
                format!("another block {known:?} is stored at this height, not {}", write.diff.block);
            return Err(StoreError::NotNext { height, stored, reason });
        }
        if height != stored + 1 {
            let reason = "blocks between are missing".to_owned();
            return Err(StoreError::NotNext { height, stored, reason });
        }
        let _one_at_a_time = WRITING.lock();
        let registry = chunk_key(REGISTRY_PLACE, Stream::Registry, 0);
        let chunks = self.call(|trees| Ok(trees.chunks.scan_prefix(stream_of(&registry)).keys().count()))?;
        let chunks = u32::try_from(chunks).unwrap_or(u32::MAX);
        self.write(&Batches::of_block(&write.block, &write.qc, &write.diff, chunks))?;
        self.height.store(height, Ordering::Release);
        Ok(())
    }

    /// One atomic, durable write.
    fn write(&self, batches: &Batches) -> Result<(), StoreError> {
        use sled::Transactional as _;
        self.call(|trees| {
            let all = (&trees.meta, &trees.utxos, &trees.chunks, &trees.places);
            let done = all.transaction(|(meta, utxos, chunks, places)| {
                meta.apply_batch(&batches.meta)?;
                utxos.apply_batch(&batches.utxos)?;
                chunks.apply_batch(&batches.chunks)?;
                places.apply_batch(&batches.places)?;
                Ok::<(), sled::transaction::ConflictableTransactionError<()>>(())
            });
            match done {
                Ok(()) => {}
                Err(sled::transaction::TransactionError::Storage(error)) => return Err(error.into()),
                // The closure above never aborts.
                Err(sled::transaction::TransactionError::Abort(())) => {}
            }
            trees.db.flush()?;
            trees.file.sync_data()?;
            sync_blobs(&self.dir)?;
            Ok(())
        })
    }

    /// The header at a height.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn header(&self, height: u64) -> Result<Option<Header>, StoreError> {
        Ok(self.record(height)?.map(|record| record.header))
    }

    /// A decided block without bodies, and its certificate; `None` above the stored height and for
    /// genesis, which has none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn outline(&self, height: u64) -> Result<Option<(Outline, Qc)>, StoreError> {
        let Some(record) = self.record(height)? else { return Ok(None) };
        let Some(commit) = record.commit else { return Ok(None) };
        let length = u64::from(record.header.tx_count) * 32;
        let bytes = self.range(height, Stream::Ids, 0, length)?;
        let txids = bytes.as_chunks::<32>().0.iter().map(|id| Txid(Hash(*id))).collect();
        Ok(Some((Outline { header: record.header, last_commit: record.last_commit, txids }, commit)))
    }

    /// Bodies of a decided block from index `from` on, in block order: as many as fit `bytes_max`, but
    /// one at least unless there are no more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn bodies(&self, height: u64, from: u32, bytes_max: u64) -> Result<Vec<Transaction>, StoreError> {
        let Some(record) = self.record(height)? else { return Ok(Vec::new()) };
        if from >= record.header.tx_count {
            return Ok(Vec::new());
        }
        let ends = self.ends(height, from, record.header.tx_count)?;
        let Some((start, ends)) = ends.split_first() else { return Ok(Vec::new()) };
        let fitting = ends.iter().take_while(|end| *end - start <= bytes_max).count().max(1);
        let ends: Vec<u64> = ends.iter().take(fitting).copied().collect();
        let bytes = self.range(height, Stream::Bodies, *start, ends.last().copied().unwrap_or(*start))?;
        let mut from = 0usize;
        let mut bodies = Vec::with_capacity(ends.len());
        for end in ends {
            let to = usize::try_from(end - start).unwrap_or(usize::MAX);
            let body = bytes.get(from..to).and_then(|bytes| decode_stored(bytes).ok()).ok_or_else(|| {
                StoreError::corrupt(&self.dir, format!("a transaction of block {height} does not decode"))
            })?;
            bodies.push(body);
            from = to;
        }
        Ok(bodies)
    }

    /// Start of transaction `from` and ends of it and all that follow, within the bodies.
    fn ends(&self, height: u64, from: u32, count: u32) -> Result<Vec<u64>, StoreError> {
        let first = u64::from(from.saturating_sub(1)) * 4;
        let bytes = self.range(height, Stream::Ends, first, u64::from(count) * 4)?;
        let ends = bytes.as_chunks::<4>().0.iter().map(|end| u64::from(u32::from_le_bytes(*end)));
        let ends: Vec<u64> =
            if from == 0 { std::iter::once(0).chain(ends).collect() } else { ends.collect() };
        if ends.is_sorted() {
            return Ok(ends);
        }
        Err(StoreError::corrupt(&self.dir, format!("the index of block {height} is out of order")))
    }

    /// A transaction in a decided block, with its height.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn transaction(&self, txid: &Txid) -> Result<Option<(u64, Transaction)>, StoreError> {
        let Some(value) = self.call(|trees| Ok(trees.places.get(place_key(txid))?))? else { return Ok(None) };
        let (height, index) = parse_place(&value).ok_or_else(|| {
            StoreError::corrupt(&self.dir, format!("the place of transaction {txid} is malformed"))
        })?;
        let body = self.bodies(height, index, 0)?.into_iter().next();
        body.filter(|body| body.id() == *txid).map(|body| Some((height, body))).ok_or_else(|| {
            StoreError::corrupt(&self.dir, format!("transaction {txid} is not in block {height}"))
        })
    }

    fn record(&self, height: u64) -> Result<Option<BlockRecord>, StoreError> {
        let bytes = self.whole(height, Stream::Record, || damaged_block(&self.dir, height))?;
        if bytes.is_empty() {
            return Ok(None);
        }
        decode_stored(&bytes).map(Some).map_err(|_| damaged_block(&self.dir, height))
    }

    /// The committee of a height; `None` above the one after the last block.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn committee(&self, height: u64) -> Result<Option<Committee>, StoreError> {
        if height > self.height().saturating_add(1) {
            return Ok(None);
        }
        let damaged = || StoreError::corrupt(&self.dir, "a committee is incomplete or fails its checksum");
        let changed = self.call(|trees| {
            let last = trees.meta.range(committee_key(0)..=committee_key(height)).next_back().transpose()?;
            let Some((key, sealed)) = last else { return Ok(None) };
            let height = unseal(&key, &sealed).and_then(|_| parse_committee_key(&key));
            Ok(Some(height.ok_or_else(damaged)?))
        })?;
        let Some(changed) = changed else { return Ok(None) };
        let bytes = self.whole(changed, Stream::Committee, damaged)?;
        let members: Vec<Member> = decode_stored(&bytes).map_err(|_| damaged())?;
        Ok(Some(Committee::new(members)))
    }

    /// The masternodes after the last block, and the committee of that block.
    fn registry(&self) -> Result<(Registry, Committee), StoreError> {
        let damaged = || StoreError::corrupt(&self.dir, "the registry is incomplete or fails its checksum");
        let bytes = self.whole(REGISTRY_PLACE, Stream::Registry, damaged)?;
        let record: RegistryRecord = decode_stored(&bytes).map_err(|_| damaged())?;
        Ok((Registry::from_parts(record.parts), Committee::new(record.committee)))
    }

    /// All bytes of a stream whose length is not kept; empty if there is none.
    fn whole(
        &self,
        height: u64,
        stream: Stream,
        damaged: impl Fn() -> StoreError,
    ) -> Result<Vec<u8>, StoreError> {
        self.call(|trees| {
            let mut bytes = Vec::new();
            let first = chunk_key(height, stream, 0);
            for (entry, number) in trees.chunks.scan_prefix(stream_of(&first)).zip(0u32..) {
                let (key, sealed) = entry?;
                let payload = unseal(&key, &sealed).filter(|_| *key == chunk_key(height, stream, number));
                bytes.extend_from_slice(payload.ok_or_else(&damaged)?);
            }
            Ok(bytes)
        })
    }

    /// Bytes `from..to` of a stream.
    fn range(&self, height: u64, stream: Stream, from: u64, to: u64) -> Result<Vec<u8>, StoreError> {
        let chunk = CHUNK_BYTES as u64;
        let bytes = self.call(|trees| {
            let mut bytes = Vec::new();
            for number in from / chunk..to.div_ceil(chunk) {
                let key = chunk_key(height, stream, u32::try_from(number).unwrap_or(u32::MAX));
                let sealed = trees.chunks.get(key)?;
                let payload = sealed.as_ref().and_then(|sealed| unseal(&key, sealed));
                bytes.extend_from_slice(payload.ok_or_else(|| damaged_block(&self.dir, height))?);
            }
            Ok(bytes)
        })?;
        let skip = usize::try_from(from % chunk).unwrap_or(0);
        let length = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
        let part = bytes.get(skip..skip.saturating_add(length)).map(<[u8]>::to_vec);
        part.ok_or_else(|| damaged_block(&self.dir, height))
    }

    /// Runs `work` on the trees with panics contained.
    fn call<T>(&self, work: impl FnOnce(&Trees) -> Result<T, Failure>) -> Result<T, StoreError> {
        if self.broken.load(Ordering::Acquire) {
            return Err(StoreError::corrupt(&self.dir, "the database failed before and was given up"));
        }
        let Some(trees) = &self.trees else {
            return Err(StoreError::Unavailable { file: self.dir.clone(), reason: "closed".to_owned() });
        };
        let result = guarded(&self.dir, || work(trees));
        if result.as_ref().is_err_and(StoreError::is_corrupt) {
            self.broken.store(true, Ordering::Release);
        }
        result
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let Some(trees) = self.trees.take() else { return };
        if self.broken.load(Ordering::Acquire) {
            // Sled's destructor would run on damaged state. The process is about to stop: leak it.
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

/// What a call into sled can end with.
enum Failure {
    Sled(sled::Error),
    Io(io::Error),
    Store(StoreError),
}

impl From<sled::Error> for Failure {
    fn from(error: sled::Error) -> Self {
        Self::Sled(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Failure {
    fn at(self, dir: &Path) -> StoreError {
        match self {
            Self::Store(error) => error,
            Self::Io(error) | Self::Sled(sled::Error::Io(error)) => {
                if error.to_string().contains("could not acquire lock") {
                    return StoreError::InUse { file: dir.to_owned() };
                }
                StoreError::io(dir, &error)
            }
            Self::Sled(error) => StoreError::corrupt(&dir.join("db"), error.to_string()),
        }
    }
}

/// Runs `work`, turning a panic inside sled into [`StoreError::Corrupt`].
fn guarded<T>(dir: &Path, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, StoreError> {
    match contained(work) {
        Ok(result) => result.map_err(|failure| failure.at(dir)),
        Err(text) => {
            Err(StoreError::corrupt(&dir.join("db"), format!("the database library gave up: {text}")))
        }
    }
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
    // No background flusher: `write` flushes and syncs every block itself.
    let config = sled::Config::new().path(dir).cache_capacity(options.cache_bytes).flush_every_ms(None);
    let db = config.open()?;
    Ok(Trees {
        meta: db.open_tree("meta")?,
        utxos: db.open_tree("utxos")?,
        chunks: db.open_tree("chunks")?,
        places: db.open_tree("places")?,
        file: File::open(dir.join("db"))?,
        db,
    })
}

fn read_tip(dir: &Path, trees: &Trees) -> Result<TipRecord, Failure> {
    let sealed = trees.meta.get(TIP_KEY)?;
    let bytes = sealed.as_ref().and_then(|sealed| unseal(TIP_KEY, sealed));
    let tip = bytes.and_then(|bytes| decode_stored(bytes).ok());
    Ok(tip.ok_or_else(|| StoreError::corrupt(dir, "the record of the last block is missing or damaged"))?)
}

/// Unspent outputs as read from disk, with their set hash.
type Unspent = (Vec<(OutPoint, Utxo)>, SetHash);

fn read_utxos(dir: &Path, tree: &sled::Tree) -> Result<Unspent, Failure> {
    let (mut utxos, mut set_hash) = (Vec::new(), SetHash::new());
    for entry in tree {
        let (key, value) = entry?;
        let Some((outpoint, utxo)) = parse_utxo(&key, &value) else {
            return Err(StoreError::corrupt(dir, "an unspent output is malformed").into());
        };
        set_hash.add(&outpoint, &utxo);
        utxos.push((outpoint, utxo));
    }
    Ok((utxos, set_hash))
}

/// Compares number, sum and set hash of the outputs read with the header.
fn check_sums(dir: &Path, state: &State, utxos: &[(OutPoint, Utxo)]) -> Result<(), StoreError> {
    let header = &state.header;
    let sum = Amount::checked_sum(utxos.iter().map(|(_, utxo)| utxo.value));
    let right = utxos.len() as u64 == header.utxo_count
        && sum == Some(header.supply)
        && state.set_hash.digest() == header.utxo_hash;
    if right {
        return Ok(());
    }
    let reason = format!(
        "{} unspent outputs do not have the state hash {} of block {}",
        utxos.len(),
        header.utxo_hash,
        header.height
    );
    Err(StoreError::corrupt(dir, reason))
}

fn damaged_block(dir: &Path, height: u64) -> StoreError {
    StoreError::corrupt(dir, format!("block {height} is incomplete or fails its checksum"))
}
