//! The folder of the snapshots this node keeps for others: one folder a snapshot, named by its height.
//!
//! A snapshot is written to `HEIGHT.new`, synced and renamed, so a folder with a bare number is whole and
//! anything else is the rest of an interruption and removed at the start. Oldest first, what exceeds the
//! number kept or the disk budget is removed. Everything read back is compared with digests kept beside it:
//! a bad sector must not make this node tell lies. Memory: 32 bytes a part.
//!
//! Everything here can be made again, so damage costs the snapshot and nothing else. Absent: what a
//! snapshot means, see [`ledger::snapshot`](crate::ledger::snapshot).

use crate::durable::{WriteError, sync_folder, write_whole};
use crate::ledger::snapshot::{Manifest, OUTPUT_BYTES, OUTPUTS_PER_CHUNK, REGISTRY_PART_BYTES};
use crate::node::snapshots::PAGE_BYTES;
use crate::primitives::certificate::Qc;
use crate::primitives::encoding::{Decode, Encode, decode_stored, encode};
use crate::primitives::hash::Hash;
use crate::primitives::message::SnapshotOffer;
use parking_lot::RwLock;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files of a snapshot: the encoded manifest, all parts one after the other, and what both are checked
/// against.
const MANIFEST_FILE: &str = "manifest";
const PARTS_FILE: &str = "parts";
const INDEX_FILE: &str = "index";
/// Ending of a folder that is being written.
const UNFINISHED: &str = "new";
/// Most folders looked at in the shelf: whatever else lies there is left alone.
const FOLDERS_MAX: usize = 1024;

/// Why a snapshot cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    #[error("cannot {action} `{path}`: {source}; the node goes on without this snapshot, check space and permissions", path = path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("the snapshot in `{path}` is damaged: {what}; it is removed, and the next one replaces it", path = path.display())]
    Damaged { path: PathBuf, what: &'static str },
    #[error(
        "a snapshot of {needed} bytes does not fit the {budget} bytes that snapshot_bytes_max in [storage] allows: raise \
         it, or set snapshots_kept = 0"
    )]
    OverBudget { needed: u64, budget: u64 },
}

impl From<WriteError> for ShelfError {
    fn from(WriteError { action, path, source }: WriteError) -> Self {
        Self::Io { action, path, source }
    }
}

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct ShelfLimits {
    /// Most snapshots; 0 for none.
    pub kept: usize,
    /// Most bytes on disk.
    pub bytes_max: u64,
}

/// What the files of a snapshot are checked against.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct Index {
    offer: SnapshotOffer,
    registry_bytes: u64,
    outputs: u64,
    /// Digest of each page of the manifest and of each part.
    pages: Vec<Hash>,
    parts: Vec<Hash>,
}

/// A snapshot that is whole.
#[derive(Debug)]
pub struct Kept {
    folder: PathBuf,
    index: Index,
    manifest: File,
    parts: File,
}

/// See the module.
#[derive(Debug)]
pub struct Shelf {
    folder: PathBuf,
    limits: ShelfLimits,
    /// Newest first.
    kept: RwLock<Vec<Arc<Kept>>>,
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ShelfError {
    let path = path.to_owned();
    move |source| ShelfError::Io { action, path, source }
}

impl Shelf {
    /// Opens the shelf in `folder`, removing what an interruption left and what exceeds the limits. The
    /// folder is made when the first snapshot is.
    ///
    /// # Errors
    /// [`ShelfError::Io`] when the folder cannot be listed.
    pub fn open(folder: PathBuf, limits: ShelfLimits) -> Result<Self, ShelfError> {
        let mut kept = Vec::new();
        for path in folders(&folder)? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            match (name.parse::<u64>(), name.strip_suffix(UNFINISHED)) {
                (Ok(height), _) => match Kept::open(&path, height) {
                    Ok(snapshot) => kept.push(Arc::new(snapshot)),
                    Err(error) => {
                        tracing::warn!(%error, "a snapshot is not usable");
                        remove(&path);
                    }
                },
                (_, Some(_)) => remove(&path),
                // Not ours.
                _ => {}
            }
        }
        kept.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.offer().height));
        let shelf = Self { folder, limits, kept: RwLock::new(kept) };
        shelf.make_room(0, shelf.limits.kept, 0);
        Ok(shelf)
    }

    /// A shelf that keeps nothing.
    #[must_use]
    pub fn unused(folder: PathBuf) -> Self {
        Self { folder, limits: ShelfLimits { kept: 0, bytes_max: 0 }, kept: RwLock::default() }
    }

    /// Whether snapshots are kept at all.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.limits.kept > 0
    }

    /// What is kept, newest first.
    #[must_use]
    pub fn offers(&self) -> Vec<SnapshotOffer> {
        self.kept.read().iter().map(|kept| kept.offer().clone()).collect()
    }

    /// The snapshot whose manifest has this digest.
    #[must_use]
    pub fn find(&self, manifest: Hash) -> Option<Arc<Kept>> {
        self.kept.read().iter().find(|kept| kept.offer().manifest == manifest).cloned()
    }

    /// Removes a snapshot that turned out to be damaged.
    pub fn discard(&self, snapshot: &Kept) {
        self.kept.write().retain(|kept| kept.folder != snapshot.folder);
        remove(&snapshot.folder);
    }

    /// Begins a snapshot of about so many bytes, removing older ones for which there is no room beside it,
    /// but not the newest: it is served until the new one is whole.
    ///
    /// # Errors
    /// [`ShelfError`].
    pub fn begin(&self, height: u64, needed: u64) -> Result<Draft, ShelfError> {
        let budget = self.limits.bytes_max;
        if needed > budget {
            return Err(ShelfError::OverBudget { needed, budget });
        }
        self.make_room(needed, self.limits.kept, 1);
        let folder = self.folder.join(format!("{height}.{UNFINISHED}"));
        remove(&folder);
        std::fs::create_dir_all(&folder).map_err(io_error("create", &folder))?;
        let path = folder.join(PARTS_FILE);
        let parts = File::create(&path).map_err(io_error("create", &path))?;
        Ok(Draft { height, folder, parts: BufWriter::new(parts), digests: Vec::new(), bytes: 0 })
    }

    /// Puts a finished snapshot on the shelf, durably.
    ///
    /// # Errors
    /// [`ShelfError`].
    pub fn finish(&self, draft: Draft, manifest: &Manifest, commit: Qc) -> Result<SnapshotOffer, ShelfError> {
        let target = self.folder.join(draft.height.to_string());
        let (height, unfinished) = (draft.height, draft.folder.clone());
        let offer = draft.complete(manifest, commit)?;
        remove(&target);
        std::fs::rename(&unfinished, &target).map_err(io_error("rename", &unfinished))?;
        sync_folder(&self.folder)?;
        let snapshot = Arc::new(Kept::open(&target, height)?);
        {
            let mut kept = self.kept.write();
            kept.retain(|other| other.offer().height != height);
            kept.insert(0, snapshot);
            kept.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.offer().height));
        }
        self.make_room(0, self.limits.kept, 0);
        Ok(offer)
    }

    /// Removes the oldest until at most `count` are left and `needed` more bytes fit, but leaves `least`.
    fn make_room(&self, needed: u64, count: usize, least: usize) {
        let mut kept = self.kept.write();
        loop {
            let bytes = kept.iter().fold(needed, |sum, snapshot| sum.saturating_add(snapshot.bytes()));
            if kept.len() <= least || kept.len() <= count && bytes <= self.limits.bytes_max {
                return;
            }
            let Some(oldest) = kept.pop() else { return };
            remove(&oldest.folder);
        }
    }
}

/// A snapshot being written. Dropped unfinished it stays as what the next start removes.
#[derive(Debug)]
pub struct Draft {
    height: u64,
    folder: PathBuf,
    parts: BufWriter<File>,
    digests: Vec<Hash>,
    bytes: u64,
}

impl Draft {
    /// Appends the next part.
    ///
    /// # Errors
    /// [`ShelfError::Io`].
    pub fn part(&mut self, bytes: &[u8]) -> Result<(), ShelfError> {
        self.digests.push(digest(bytes));
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        self.parts.write_all(bytes).map_err(io_error("write", &self.folder.join(PARTS_FILE)))
    }

    /// Removes what was written.
    pub fn abandon(self) {
        let folder = self.folder.clone();
        drop(self);
        remove(&folder);
    }

    fn complete(self, manifest: &Manifest, commit: Qc) -> Result<SnapshotOffer, ShelfError> {
        let Self { folder, parts, digests, bytes, .. } = self;
        let path = folder.join(PARTS_FILE);
        let parts = parts.into_inner().map_err(|error| io_error("write", &path)(error.into_error()))?;
        parts.sync_all().map_err(io_error("sync", &path))?;
        let encoded = encode(manifest);
        let offer = SnapshotOffer {
            height: manifest.header.height,
            block: manifest.header.id(),
            manifest: manifest.id(),
            manifest_bytes: encoded.len() as u64,
            bytes,
            commit,
        };
        let index = Index {
            offer: offer.clone(),
            registry_bytes: manifest.registry_bytes,
            outputs: manifest.header.utxo_count,
            pages: encoded.chunks(PAGE_BYTES).map(digest).collect(),
            parts: digests,
        };
        write_whole(&folder.join(MANIFEST_FILE), |_| Ok(&encoded))?;
        let index = encode(&index);
        let sealed: Vec<u8> = digest(&index).0.into_iter().chain(index).collect();
        write_whole(&folder.join(INDEX_FILE), |_| Ok(sealed))?;
        Ok(offer)
    }
}

impl Kept {
    fn open(folder: &Path, height: u64) -> Result<Self, ShelfError> {
        let damaged = |what| ShelfError::Damaged { path: folder.to_owned(), what };
        let path = folder.join(INDEX_FILE);
        let sealed = std::fs::read(&path).map_err(io_error("read", &path))?;
        let sealed = sealed.split_first_chunk::<32>();
        let (_, bytes) = sealed
            .filter(|(sum, bytes)| digest(bytes).0 == **sum)
            .ok_or_else(|| damaged("its index fails its checksum"))?;
        let index: Index = decode_stored(bytes).map_err(|_| damaged("its index is malformed"))?;
        let open = |name: &str| {
            let path = folder.join(name);
            File::open(&path).map_err(io_error("open", &path))
        };
        let kept = Self {
            folder: folder.to_owned(),
            index,
            manifest: open(MANIFEST_FILE)?,
            parts: open(PARTS_FILE)?,
        };
        let length = |file: &File| file.metadata().map(|found| found.len()).ok();
        let whole = kept.index.offer.height == height
            && length(&kept.manifest) == Some(kept.index.offer.manifest_bytes)
            && length(&kept.parts) == Some(kept.index.offer.bytes);
        if whole { Ok(kept) } else { Err(damaged("its files have not the length they were written with")) }
    }

    /// What peers are told of it.
    #[must_use]
    pub fn offer(&self) -> &SnapshotOffer {
        &self.index.offer
    }

    /// Bytes on disk, but for the index.
    fn bytes(&self) -> u64 {
        self.index.offer.bytes.saturating_add(self.index.offer.manifest_bytes)
    }

    /// A page of the manifest; `None` beyond the last.
    ///
    /// # Errors
    /// [`ShelfError`]; one that is damaged is to be [discarded](Shelf::discard).
    pub fn page(&self, page: u32) -> Result<Option<Vec<u8>>, ShelfError> {
        let Some(expected) = self.index.pages.get(page as usize) else { return Ok(None) };
        let from = u64::from(page) * PAGE_BYTES as u64;
        let length = self.index.offer.manifest_bytes.saturating_sub(from).min(PAGE_BYTES as u64);
        self.read(&self.manifest, from, length, *expected).map(Some)
    }

    /// A part; `None` beyond the last.
    ///
    /// # Errors
    /// As [`Kept::page`].
    pub fn part(&self, part: u32) -> Result<Option<Vec<u8>>, ShelfError> {
        let Some(expected) = self.index.parts.get(part as usize) else { return Ok(None) };
        let registry = self.index.registry_bytes.div_ceil(REGISTRY_PART_BYTES as u64);
        let (from, length) = match u64::from(part).checked_sub(registry) {
            None => {
                let from = u64::from(part) * REGISTRY_PART_BYTES as u64;
                (from, self.index.registry_bytes.saturating_sub(from).min(REGISTRY_PART_BYTES as u64))
            }
            Some(chunk) => {
                let each = (OUTPUTS_PER_CHUNK * OUTPUT_BYTES) as u64;
                let (from, all) =
                    (chunk.saturating_mul(each), self.index.outputs.saturating_mul(OUTPUT_BYTES as u64));
                (self.index.registry_bytes.saturating_add(from), all.saturating_sub(from).min(each))
            }
        };
        self.read(&self.parts, from, length, *expected).map(Some)
    }

    fn read(&self, file: &File, from: u64, length: u64, expected: Hash) -> Result<Vec<u8>, ShelfError> {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        file.read_exact_at(&mut bytes, from).map_err(io_error("read", &self.folder))?;
        if digest(&bytes) == expected {
            return Ok(bytes);
        }
        Err(ShelfError::Damaged { path: self.folder.clone(), what: "a part fails its checksum" })
    }
}

/// Checksum of what is on this disk; never leaves the node.
fn digest(bytes: &[u8]) -> Hash {
    Hash(*blake3::hash(bytes).as_bytes())
}

fn folders(folder: &Path) -> Result<Vec<PathBuf>, ShelfError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error("list", folder)(error)),
    };
    Ok(entries.filter_map(Result::ok).map(|entry| entry.path()).take(FOLDERS_MAX).collect())
}

/// Removes a snapshot's folder; one that stays is tried again at the next start.
fn remove(folder: &Path) {
    match std::fs::remove_dir_all(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(folder = %folder.display(), %error, "a snapshot was not removed"),
    }
}

#[cfg(test)]
#[path = "shelf_tests.rs"]
mod tests;
