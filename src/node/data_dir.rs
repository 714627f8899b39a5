//! The data directory: made readable by its owner alone, and used by one node at a time.

use rustix::fs::{FlockOperation, flock};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another node holds the lock.
    #[error(
        "another masternode uses {dir} (process {pid}): open its console with `masternode attach --data-dir {dir}`, or stop it \
         with `masternode stop --data-dir {dir}`",
        dir = dir.display()
    )]
    InUse { dir: PathBuf, pid: String },
    /// The system refused.
    #[error("cannot {action} {path}: {source}; check the owner and the permissions of the data directory", path = path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The lock on a data directory; free again when dropped, or when the process ends however it ends.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

/// Makes the directory if it is absent (mode 0700) and takes its lock, `LOCK`.
///
/// # Errors
/// [`DataDirError`].
pub fn lock(dir: &Path, lock: &Path) -> Result<DirLock, DataDirError> {
    let io = |action, path: &Path| {
        let path = path.to_owned();
        move |source| DataDirError::Io { action, path, source }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io("create", dir))?;
    let mode = std::fs::metadata(dir).map_err(io("look at", dir))?.permissions().mode();
    if mode & 0o077 != 0 {
        let private = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(dir, private).map_err(io("make private", dir))?;
        tracing::warn!(dir = %dir.display(), "the data directory was open to other users and is private now");
    }
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(lock)
        .map_err(io("open", lock))?;
    if let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if error != rustix::io::Errno::WOULDBLOCK {
            return Err(io("lock", lock)(error.into()));
        }
        let mut holder = String::new();
        // Who holds it is for people only.
        let pid = match file.read_to_string(&mut holder) {
            Ok(_) if !holder.trim().is_empty() => holder.trim().chars().take(20).collect(),
            _ => "unknown".to_owned(),
        };
        return Err(DataDirError::InUse { dir: dir.to_owned(), pid });
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(io("write", lock))?;
    Ok(DirLock { _file: file })
}

/// Whether a node holds the lock now. A node lets go of it last, after its port and its database.
#[must_use]
pub fn is_locked(lock: &Path) -> bool {
    let Ok(file) = File::open(lock) else { return false };
    // Shared, so that two that ask do not see each other; let go of at once.
    flock(&file, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_in_use_is_refused_with_the_process_and_free_again_afterwards() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a/b");
        let held = lock(&dir, &dir.join("LOCK")).unwrap();
        let error = lock(&dir, &dir.join("LOCK")).unwrap_err();
        assert!(matches!(error, DataDirError::InUse { .. }));
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        assert!(is_locked(&dir.join("LOCK")));
        drop(held);
        assert!(!is_locked(&dir.join("LOCK")) && !is_locked(&dir.join("absent")));
        lock(&dir, &dir.join("LOCK")).unwrap();
    }

    #[test]
    fn the_directory_is_private_even_if_it_was_not() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("data");
        std::fs::create_dir(&dir).unwrap();
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
        let _held = lock(&dir, &dir.join("LOCK")).unwrap();
        assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
