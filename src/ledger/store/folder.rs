//! The folder around the database: its marker, its stray files, and what its faults are called.
//!
//! The marker is written once, after the database was founded and synced. A folder with a marker whose
//! database is empty has lost its data, which sled itself would not notice.

use crate::durable::{is_no_space, write_whole};
use crate::ledger::store::records::{FORMAT, OLDEST_FORMAT};
use crate::primitives::clean::CleanText;
use crate::primitives::hash::ChainId;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Name of the marker beside the database.
pub const MARKER: &str = "CHAIN";
/// First line of the marker.
const MARKER_HEAD: &str = "timecoin masternode database";

/// How to do without the database. The node itself sets a vote log aside that does not go on from what it
/// begins with; one that does holds all that was signed.
const START_ANEW: &str = "move the folder db away, leave keys, journal and sign_floor in place, and start: the \
                          chain comes from the other nodes again, and this one votes as soon as its vote log goes \
                          on from there, or else when the chain has let it back, which it asks for by itself";

/// What went wrong with the database, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The data belongs elsewhere: a fault of the configuration.
    #[error(
        "{}: this database is of chain {found}, the genesis is of {expected}: use the genesis.toml it was \
         made with, or another data directory", file.display()
    )]
    WrongChain { file: PathBuf, found: ChainId, expected: ChainId },
    /// Written by another version. Nothing was changed.
    #[error(
        "{}: database format {found}, this program reads {OLDEST_FORMAT} to {FORMAT} and has changed nothing: use the \
         program version that wrote it, or {START_ANEW}", file.display()
    )]
    WrongFormat { file: PathBuf, found: String },
    /// Written by an older version, and not to be migrated on this occasion. Nothing was changed.
    #[error(
        "{}: database format {found}, a start of this program brings it to {FORMAT} for good, and only reading it would, \
         too: copy the folder if you want it as it is, start the node once, and try again", file.display()
    )]
    OlderFormat { file: PathBuf, found: u32 },
    /// What is asked for was pruned, or lies before the snapshot the database began with.
    #[error(
        "the transactions of block {height} are not kept here, only those from block {first} on: ask a node that keeps \
         them (storage.prune_blocks = 0)"
    )]
    NotKept { height: u64, first: u64 },
    /// A block that cannot follow what is stored: a fault of the caller.
    #[error("block {height} does not follow the stored height {stored}: {reason}")]
    NotNext { height: u64, stored: u64, reason: String },
    /// Another process holds it.
    #[error("{}: in use by another process: stop that one, or use another data directory", file.display())]
    InUse { file: PathBuf },
    /// The system refuses; may pass.
    #[error("{}: {reason}: check free space and permissions, then start again", file.display())]
    Unavailable { file: PathBuf, reason: String },
    /// A sync failed, for whatever reason: what was written last may or may not be on the medium, and a sync
    /// that succeeds later would not tell.
    #[error(
        "{}: syncing failed: {reason}: what was written last may be lost, so nothing more is written: look for the \
         disk in the system's log, replace it or free space, and start again", file.display()
    )]
    Unsynced { file: PathBuf, reason: String },
    /// There is no space left; passes when some is made, see [`Store::reopen`](crate::ledger::store::Store::reopen).
    #[error("{}: {reason}: no space is left on the disk, or the quota is used up: free some", file.display())]
    Full { file: PathBuf, reason: String },
    /// The data is damaged.
    #[error(
        "{}: damaged: {reason}: restore a backup of the folder db, or a copy of that of another stopped masternode of \
         this network, or {START_ANEW}", file.display()
    )]
    Corrupt { file: PathBuf, reason: String },
}

impl StoreError {
    /// Whether the data is damaged, so that nothing read from it may be used.
    #[must_use]
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Self::Corrupt { .. })
    }

    /// Whether it ends when there is space on the disk again.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    /// Whether the system is at fault, not the data, so that trying again later may help.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Unsynced { .. } | Self::Full { .. })
    }

    /// Damage of `file`.
    pub fn corrupt(file: &Path, reason: impl Into<String>) -> Self {
        Self::Corrupt { file: file.to_owned(), reason: reason.into() }
    }

    /// A fault of the file system under `file`.
    pub fn io(file: &Path, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                Self::corrupt(file, error.to_string())
            }
            _ if is_no_space(error) => Self::Full { file: file.to_owned(), reason: error.to_string() },
            _ => Self::Unavailable { file: file.to_owned(), reason: error.to_string() },
        }
    }
}

/// Refuses a database of a version this program does not know, by its marker alone: nothing is opened,
/// locked or written.
///
/// # Errors
/// [`StoreError::WrongFormat`].
pub fn refuse_unknown_format(dir: &Path) -> Result<(), StoreError> {
    match read_marker(dir, ChainId::default()) {
        Err(error @ StoreError::WrongFormat { .. }) => Err(error),
        // Told by whoever opens it.
        _ => Ok(()),
    }
}

/// Refuses a database of any other version than the present one, by its marker alone, for those that are to
/// read and not to change: opening an older one would migrate it.
///
/// # Errors
/// [`StoreError::WrongFormat`] or [`StoreError::OlderFormat`].
pub fn refuse_other_format(dir: &Path) -> Result<(), StoreError> {
    refuse_unknown_format(dir)?;
    let text = std::fs::read_to_string(dir.join(MARKER)).unwrap_or_default();
    let found = text.lines().nth(1).and_then(|line| line.strip_prefix("format ")?.parse::<u32>().ok());
    match found {
        Some(found) if found < FORMAT => Err(StoreError::OlderFormat { file: dir.to_owned(), found }),
        _ => Ok(()),
    }
}

/// Whether the folder holds a marker, which then has to be of a known format and of this chain.
pub fn read_marker(dir: &Path, chain: ChainId) -> Result<bool, StoreError> {
    let file = dir.join(MARKER);
    let text = match std::fs::read(&file) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(StoreError::io(&file, &error)),
    };
    let mut lines = text.lines();
    let (head, format, found) = (lines.next(), lines.next(), lines.next());
    let format = format.and_then(|line| line.strip_prefix("format "));
    let found = found.and_then(|line| line.strip_prefix("chain ")).and_then(|id| id.parse().ok());
    let (Some(MARKER_HEAD), Some(format), Some(found)) = (head, format, found) else {
        return Err(StoreError::corrupt(&file, "not a database marker"));
    };
    if !format.parse().is_ok_and(|format| (OLDEST_FORMAT..=FORMAT).contains(&format)) {
        let found = CleanText::limited(format, 20).to_string();
        return Err(StoreError::WrongFormat { file, found });
    }
    if found == chain { Ok(true) } else { Err(StoreError::WrongChain { file, found, expected: chain }) }
}

/// Writes the marker durably: whole or not at all.
pub fn write_marker(dir: &Path, chain: ChainId) -> Result<(), StoreError> {
    let text = format!("{MARKER_HEAD}\nformat {FORMAT}\nchain {chain}\n");
    write_whole(&dir.join(MARKER), |_| Ok(text)).map_err(|error| StoreError::io(&error.path, &error.source))
}

/// Syncs values that sled put into files of their own. Chunks are sized so that there are none; this
/// keeps power safety if that ever fails. Cost: reading an empty folder.
pub fn sync_blobs(dir: &Path) -> io::Result<()> {
    let folder = dir.join("blobs");
    let mut any = false;
    for entry in std::fs::read_dir(&folder)? {
        any = true;
        match File::open(entry?.path()) {
            Ok(file) => file.sync_data()?,
            // Sled removes files whose value was overwritten.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    if any { File::open(&folder)?.sync_all() } else { Ok(()) }
}
