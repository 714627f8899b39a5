//! Puts a database that was filled from a snapshot in the place of one that has no blocks yet.
//!
//! The filled one is whole and synced before anything is moved. It is moved beside its place first; from then
//! on a start completes the exchange, whatever was interrupted. What makes way has no block, so it is removed.

use crate::ledger::store::folder::MARKER;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Ending of a filled database on its way.
const READY: &str = "snapshot";

fn ready_path(database: &Path) -> PathBuf {
    database.with_extension(READY)
}

/// Moves the database in `filled` to `database`.
///
/// # Errors
/// What the system says; the next start completes what has begun.
pub fn swap_in(filled: &Path, database: &Path) -> io::Result<()> {
    let ready = ready_path(database);
    remove(&ready)?;
    std::fs::rename(filled, &ready)?;
    sync_parent(database)?;
    complete(database)?;
    Ok(())
}

/// Completes an interrupted exchange; whether there was one.
///
/// # Errors
/// What the system says.
pub fn complete(database: &Path) -> io::Result<bool> {
    let ready = ready_path(database);
    if !ready.join(MARKER).exists() {
        return Ok(false);
    }
    remove(database)?;
    std::fs::rename(&ready, database)?;
    sync_parent(database)?;
    Ok(true)
}

fn remove(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
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
            assert_eq!(complete(&old).unwrap(), step != 0);
            assert_eq!(std::fs::read_to_string(old.join(MARKER)).unwrap(), "new", "step {step}");
            assert!(!ready.exists() && !complete(&old).unwrap());
        }
    }

    #[test]
    fn a_database_without_a_marker_is_not_taken() {
        let root = tempfile::tempdir().unwrap();
        let old = root.path().join("db");
        database(&old, "old");
        std::fs::create_dir_all(root.path().join("db.snapshot")).unwrap();
        assert!(!complete(&old).unwrap());
        assert_eq!(std::fs::read_to_string(old.join(MARKER)).unwrap(), "old");
    }
}
