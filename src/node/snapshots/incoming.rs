//! A snapshot on its way in: its parts on disk, and the database they fill.
//!
//! Every part is checked before it is written and again when it is found at a start, so nothing here has to
//! be synced and nothing found is believed: an interruption costs the parts that were not written, and the
//! database, which is filled anew from the files. One snapshot at a time; the files of another are removed.
//! Memory: one part for each thread at work.

use crate::durable::{WriteError, write_unsynced};
use crate::ledger::apply::State;
use crate::ledger::snapshot::{Checked, Manifest, SnapshotError, outputs};
use crate::ledger::store::StoreOptions;
use crate::ledger::store::folder::StoreError;
use crate::ledger::store::import::Import;
use crate::primitives::amount::Amount;
use crate::primitives::certificate::Qc;
use crate::primitives::hash::{ChainId, Hash};
use crate::primitives::params::Params;
use crate::primitives::transaction::OutPoint;
use parking_lot::Mutex;
use std::io;
use std::path::{Path, PathBuf};

/// Folder of the parts in the data directory.
pub const INCOMING_FOLDER: &str = "snapshot-incoming";
/// Folder of the database being filled.
const DATABASE_FOLDER: &str = "db";
const MANIFEST_FILE: &str = "manifest";

/// Why a snapshot did not become a database.
#[derive(Debug, thiserror::Error)]
pub enum IncomingError {
    /// The snapshot is at fault.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The manifest lied in a way that shows only when all parts are there.
    #[error("the snapshot's parts fit its manifest and not its header: {0}")]
    Lie(&'static str),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot {action} `{path}`: {source}; check space and permissions", path = path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

impl From<WriteError> for IncomingError {
    fn from(WriteError { action, path, source }: WriteError) -> Self {
        Self::Io { action, path, source }
    }
}

impl IncomingError {
    /// Whether whoever offered the snapshot is at fault, and not this machine.
    #[must_use]
    pub fn is_lie(&self) -> bool {
        matches!(self, Self::Snapshot(_) | Self::Lie(_))
    }
}

/// What is remembered of a part that is here.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// First and last output; `None` for the registry.
    range: Option<(OutPoint, OutPoint)>,
    value: Amount,
}

/// See the module. Shared by the threads that check parts.
pub struct Incoming {
    folder: PathBuf,
    checked: Checked,
    import: Import,
    seen: Mutex<Vec<Option<Seen>>>,
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IncomingError {
    let path = path.to_owned();
    move |source| IncomingError::Io { action, path, source }
}

/// The digest of the manifest whose parts an interruption has left in `folder`, if any.
#[must_use]
pub fn left_behind(folder: &Path, params: &Params) -> Option<Hash> {
    let bytes = std::fs::read(folder.join(MANIFEST_FILE)).ok()?;
    Some(Manifest::from_bytes(&bytes).ok()?.check(params).ok()?.id())
}

/// The manifest in `folder`, if it is the one of this digest.
#[must_use]
pub fn manifest_left(folder: &Path, id: Hash, params: &Params) -> Option<Checked> {
    let bytes = std::fs::read(folder.join(MANIFEST_FILE)).ok()?;
    let checked = Manifest::from_bytes(&bytes).ok()?.check(params).ok()?;
    (checked.id() == id).then_some(checked)
}

/// Removes whatever an interrupted fetch has left in `folder`.
///
/// # Errors
/// [`IncomingError::Io`].
pub fn clear(folder: &Path) -> Result<(), IncomingError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", folder)(error)),
        _ => Ok(()),
    }
}

impl Incoming {
    /// Begins, or goes on with, the snapshot of `checked` in `folder`.
    ///
    /// # Errors
    /// [`IncomingError::Io`] or [`IncomingError::Store`].
    pub fn open(
        folder: &Path,
        checked: Checked,
        params: &Params,
        options: StoreOptions,
    ) -> Result<Self, IncomingError> {
        if left_behind(folder, params) != Some(checked.id()) {
            clear(folder)?;
            std::fs::create_dir_all(folder).map_err(io_error("create", folder))?;
            let bytes = crate::primitives::encoding::encode(checked.manifest());
            write_unsynced(&folder.join(MANIFEST_FILE), &bytes)?;
        }
        let import = Import::begin(&folder.join(DATABASE_FOLDER), options)?;
        let (parts, _) = checked.parts();
        let seen = Mutex::new(vec![None; parts as usize]);
        Ok(Self { folder: folder.to_owned(), checked, import, seen })
    }

    /// What is being fetched.
    #[must_use]
    pub fn checked(&self) -> &Checked {
        &self.checked
    }

    /// Whether a file of the part lies here; it may hold anything.
    #[must_use]
    pub fn is_left(&self, part: u32) -> bool {
        self.path(part).exists()
    }

    /// Takes a part that was left here, if it is the part; then it need not be fetched.
    ///
    /// # Errors
    /// [`IncomingError`]; with one that [is a lie](IncomingError::is_lie) the file was removed.
    pub fn resume(&self, part: u32) -> Result<(), IncomingError> {
        let path = self.path(part);
        let bytes = std::fs::read(&path).map_err(io_error("read", &path))?;
        if let Err(error) = self.checked.check_part(part, &bytes) {
            std::fs::remove_file(&path).map_err(io_error("remove", &path))?;
            return Err(error.into());
        }
        self.take(part, &bytes)
    }

    /// Checks a part that arrived, keeps it and puts it into the database. Blocks; about 6 µs an output.
    ///
    /// # Errors
    /// [`IncomingError`].
    pub fn accept(&self, part: u32, bytes: &[u8]) -> Result<(), IncomingError> {
        self.checked.check_part(part, bytes)?;
        write_unsynced(&self.path(part), bytes)?;
        self.take(part, bytes)
    }

    fn take(&self, part: u32, bytes: &[u8]) -> Result<(), IncomingError> {
        let (_, registry) = self.checked.parts();
        let mut seen = Seen { range: None, value: Amount::ZERO };
        if part >= registry {
            let all = || outputs(bytes).flatten();
            let sum = Amount::checked_sum(all().map(|(_, utxo)| utxo.value));
            seen.value = sum.ok_or(IncomingError::Lie("a part holds more money than there can be"))?;
            let (first, last) = (all().next(), all().last());
            seen.range = first.zip(last).map(|((first, _), (last, _))| (first, last));
            self.import.add(all())?;
        }
        if let Some(place) = self.seen.lock().get_mut(part as usize) {
            *place = Some(seen);
        }
        Ok(())
    }

    /// Completes the database when every part is here; where it is.
    ///
    /// # Errors
    /// [`IncomingError`].
    pub fn finish(self, chain: ChainId, commit: Qc) -> Result<PathBuf, IncomingError> {
        self.check_whole()?;
        let state = self.state(chain, commit)?;
        self.import.finish(&state)?;
        Ok(self.folder.join(DATABASE_FOLDER))
    }

    /// What only shows when all parts are there: their order, and the money in them.
    fn check_whole(&self) -> Result<(), IncomingError> {
        let seen = self.seen.lock();
        let mut last: Option<OutPoint> = None;
        let mut values = Vec::with_capacity(seen.len());
        for part in seen.iter() {
            let Some(part) = part else { return Err(IncomingError::Lie("a part is missing")) };
            values.push(part.value);
            if let Some((first, end)) = part.range {
                if last.is_some_and(|last| last >= first) {
                    return Err(IncomingError::Lie("its parts are not in ascending order"));
                }
                last = Some(end);
            }
        }
        if Amount::checked_sum(values) == Some(self.checked.header().supply) {
            return Ok(());
        }
        Err(IncomingError::Lie("the money in it is not the supply"))
    }

    /// The state without the outputs.
    fn state(&self, chain: ChainId, commit: Qc) -> Result<State, IncomingError> {
        let (_, parts) = self.checked.parts();
        let mut bytes = Vec::new();
        for part in 0..parts {
            let path = self.path(part);
            bytes.extend(std::fs::read(&path).map_err(io_error("read", &path))?);
        }
        let registry = self.checked.registry(&bytes)?;
        Ok(self.checked.state(chain, registry, commit))
    }

    fn path(&self, part: u32) -> PathBuf {
        self.folder.join(format!("part-{part}"))
    }
}

#[cfg(test)]
#[path = "incoming_tests.rs"]
mod tests;
