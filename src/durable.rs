//! Small files that are there whole or not at all, whenever the power fails: temporary file, sync,
//! rename, sync of the folder. All are readable by their owner alone.
//!
//! Absent: anything that is written in place or grows; see the vote log and the store.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// What the system refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{path}`: {source}")]
pub struct WriteError {
    /// Which operation, as in "cannot sync".
    pub action: &'static str,
    /// File or folder it was about.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Puts a file in the place of `path`, readable by its owner alone. `content` is asked for the contents with
/// the open file, whose inode the file keeps. Two syncs. After an error the old file or the new one is
/// there, each whole; trying again is safe.
///
/// # Errors
/// [`WriteError`].
pub fn write_whole<T: AsRef<[u8]>>(
    path: &Path,
    content: impl FnOnce(&File) -> io::Result<T>,
) -> Result<(), WriteError> {
    replace(path, content, true)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    sync_folder(folder.unwrap_or(Path::new(".")))
}

/// As [`write_whole`] without any sync: whole when the process is killed, but not when the power fails. For what
/// is checked when it is read and can be had again.
///
/// # Errors
/// [`WriteError`].
pub fn write_unsynced(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    replace(path, |_| Ok(bytes), false)
}

fn replace<T: AsRef<[u8]>>(
    path: &Path,
    content: impl FnOnce(&File) -> io::Result<T>,
    synced: bool,
) -> Result<(), WriteError> {
    let temporary = path.with_extension("new");
    let at = |action, path: &Path| {
        let path = path.to_owned();
        move |source| WriteError { action, path, source }
    };
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&temporary).map_err(at("create", &temporary))?;
    // One that was left there may be open to others.
    file.set_permissions(Permissions::from_mode(0o600)).map_err(at("make private", &temporary))?;
    let content = content(&file).map_err(at("write", &temporary))?;
    file.write_all(content.as_ref()).map_err(at("write", &temporary))?;
    if synced {
        file.sync_all().map_err(at("sync", &temporary))?;
    }
    std::fs::rename(&temporary, path).map_err(at("replace", path))
}

/// Makes the names in a folder durable: files made, renamed or removed in it.
///
/// # Errors
/// [`WriteError`].
pub fn sync_folder(folder: &Path) -> Result<(), WriteError> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|source| WriteError { action: "sync", path: folder.to_owned(), source })
}

/// Whether an operation failed for want of space, so that it may succeed later.
#[must_use]
pub fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn a_file_is_replaced_whole_keeps_the_inode_it_was_asked_with_and_is_private() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("instance");
        let mut inode = 0;
        for text in ["one", "two, longer"] {
            write_whole(&path, |file| {
                inode = file.metadata()?.ino();
                Ok(text.to_owned())
            })
            .unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
            let metadata = std::fs::metadata(&path).unwrap();
            assert_eq!((metadata.ino(), metadata.permissions().mode() & 0o777), (inode, 0o600));
        }
        // Bytes that are no text, where a kill has left a file that others may read.
        std::fs::write(root.path().join("instance.new"), "left").unwrap();
        std::fs::set_permissions(root.path().join("instance.new"), Permissions::from_mode(0o644)).unwrap();
        write_unsynced(&path, &[0xff, 0]).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), [0xff, 0]);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_names_the_place() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("instance");
        std::fs::write(&path, "old").unwrap();
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let error = write_whole(&path, |_| Err::<String, _>(full())).unwrap_err();
        assert!(is_no_space(&error.source) && error.to_string().contains("instance.new"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        assert!(write_whole(&root.path().join("absent/file"), |_| Ok(String::new())).is_err());
    }
}
