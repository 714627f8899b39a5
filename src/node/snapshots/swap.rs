//! Puts a database that was filled from a snapshot in the place of one that has no blocks yet.
//!
//! The filled one is whole and synced before anything is moved. It is moved beside its place first; from then
//! on whoever opens the database completes the exchange before, whatever was interrupted. What makes way in the
//! run that has fetched the snapshot has no block, so it is removed; what is found there later may be anything,
//! and is renamed.

use crate::durable::sync_folder;
use crate::ledger::store::folder::MARKER;
use crate::node::traces;
use std::io;
use std::path::{Path, PathBuf};

/// Name of a filled database on its way, beside its place.
pub const READY_NAME: &str = "db.snapshot";

/// What became of an interrupted exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// There was none.
    None,
    /// It is complete, and nothing was in the way.
    Done,
    /// It is complete; what was in its place has this name now.
    SetAside(PathBuf),
}

/// Whether a filled database waits for the place of `database`.
#[must_use]
pub fn is_waiting(database: &Path) -> bool {
    ready_path(database).join(MARKER).exists()
}

fn ready_path(database: &Path) -> PathBuf {
    database.with_file_name(READY_NAME)
}

/// Moves the database in `filled` to `database`, which has no block.
///
/// # Errors
/// What the system says; the next start completes what has begun.
pub fn swap_in(filled: &Path, database: &Path) -> io::Result<()> {
    let ready = ready_path(database);
    remove(&ready)?;
    std::fs::rename(filled, &ready)?;
    sync_parent(database)?;
    remove(database)?;
    place(&ready, database)
}

/// Completes an interrupted exchange. The data directory has to be locked.
///
/// # Errors
/// What the system says; trying again is safe.
pub fn complete(database: &Path) -> io::Result<Exchange> {
    if !is_waiting(database) {
        return Ok(Exchange::None);
    }
    let aside = match std::fs::symlink_metadata(database) {
        Ok(_) => Exchange::SetAside(traces::set_aside(database)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Exchange::Done,
        Err(error) => return Err(error),
    };
    place(&ready_path(database), database)?;
    Ok(aside)
}

fn place(ready: &Path, database: &Path) -> io::Result<()> {
    std::fs::rename(ready, database)?;
    sync_parent(database)
}

fn remove(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    sync_folder(path.parent().unwrap_or(Path::new("."))).map_err(|error| error.source)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(path: &Path, name: &str) {
        std::fs::create_dir_all(path).unwrap();
        std::fs::write(path.join(MARKER), name).unwrap();
    }

    #[test]
    fn an_exchange_that_was_interrupted_anywhere_is_completed() {
        for step in 0..4 {
            let root = tempfile::tempdir().unwrap();
            let (old, ready) = (root.path().join("db"), root.path().join("db.snapshot"));
            database(&old, "old");
            let filled = root.path().join("filled");
            database(&filled, "new");
            match step {
                // The power goes before, after the first rename, in the removal, and after it.
                0 => swap_in(&filled, &old).unwrap(),
                1 => std::fs::rename(&filled, &ready).unwrap(),
                2 => {
                    std::fs::rename(&filled, &ready).unwrap();
                    std::fs::remove_file(old.join(MARKER)).unwrap();
                }
                _ => {
                    std::fs::rename(&filled, &ready).unwrap();
                    std::fs::remove_dir_all(&old).unwrap();
                }
            }
            let aside = root.path().join("db.old-1");
            let expected = match step {
                0 => Exchange::None,
                1 | 2 => Exchange::SetAside(aside.clone()),
                _ => Exchange::Done,
            };
            assert_eq!(complete(&old).unwrap(), expected, "step {step}");
            assert_eq!(std::fs::read_to_string(old.join(MARKER)).unwrap(), "new", "step {step}");
            assert!(!ready.exists() && complete(&old).unwrap() == Exchange::None);
            assert_eq!(aside.exists(), matches!(step, 1 | 2), "step {step}");
        }
    }

    #[test]
    fn what_came_into_the_place_since_the_interruption_is_kept_whole() {
        let root = tempfile::tempdir().unwrap();
        let (old, filled) = (root.path().join("db"), root.path().join("db.snapshot"));
        database(&filled, "fetched");
        // An operator has put a database of theirs there meanwhile.
        database(&old, "restored");
        assert!(is_waiting(&old));
        assert!(matches!(complete(&old).unwrap(), Exchange::SetAside(_)));
        assert!(!is_waiting(&old));
        let kept = root.path().join("db.old-1");
        assert_eq!(std::fs::read_to_string(kept.join(MARKER)).unwrap(), "restored");
        assert_eq!(std::fs::read_to_string(old.join(MARKER)).unwrap(), "fetched");
    }

    #[test]
    fn a_database_without_a_marker_is_not_taken() {
        let root = tempfile::tempdir().unwrap();
        let old = root.path().join("db");
        database(&old, "old");
        std::fs::create_dir_all(root.path().join("db.snapshot")).unwrap();
        assert_eq!(complete(&old).unwrap(), Exchange::None);
        assert_eq!(std::fs::read_to_string(old.join(MARKER)).unwrap(), "old");
    }
}
