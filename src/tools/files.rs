//! Files that appear whole or not at all: made under another name beside their place, synced, renamed.

use crate::durable::sync_folder;
use crate::tools::ToolError;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// A folder or file in the making; removed when it is dropped unfinished.
#[derive(Debug)]
pub struct Staging {
    temporary: PathBuf,
    target: PathBuf,
    done: bool,
}

impl Staging {
    /// Begins the folder `target`, which must be absent or empty.
    ///
    /// # Errors
    /// [`ToolError`].
    pub fn folder(target: &Path) -> Result<Self, ToolError> {
        let taken = |what: &str| {
            ToolError::Failed(format!("{}: {what}: name a folder that does not exist yet", target.display()))
        };
        match std::fs::read_dir(target) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(taken("there is something in it already, and nothing is overwritten"));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Err(taken("is a file")),
            Err(error) => return Err(ToolError::io("be read", target)(error)),
        }
        let staging = Self::beside(target)?;
        let made = DirBuilder::new().mode(0o700).create(&staging.temporary);
        made.map_err(ToolError::io("be made", &staging.temporary))?;
        Ok(staging)
    }

    /// Begins the file `target`, which must be absent.
    ///
    /// # Errors
    /// [`ToolError`].
    pub fn file(target: &Path) -> Result<(Self, File), ToolError> {
        if std::fs::symlink_metadata(target).is_ok() {
            let text =
                format!("{}: already there and never overwritten: name another file", target.display());
            return Err(ToolError::Failed(text));
        }
        let staging = Self::beside(target)?;
        let file = create_new(&staging.temporary)?;
        Ok((staging, file))
    }

    fn beside(target: &Path) -> Result<Self, ToolError> {
        let target = std::path::absolute(target).map_err(ToolError::io("be found", target))?;
        let Some(name) = target.file_name() else {
            return Err(ToolError::Failed(format!("{}: has no name", target.display())));
        };
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".partial-{}", std::process::id()));
        Ok(Self { temporary: target.with_file_name(hidden), target, done: false })
    }

    /// Where to work.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Gives the finished work its name, durably. Its files are synced already.
    ///
    /// # Errors
    /// [`ToolError::Io`].
    pub fn finish(mut self) -> Result<(), ToolError> {
        sync(&self.temporary)?;
        std::fs::rename(&self.temporary, &self.target).map_err(ToolError::io("be made", &self.target))?;
        self.done = true;
        sync(self.target.parent().unwrap_or(Path::new("/")))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let removed = match self.temporary.is_dir() {
            true => std::fs::remove_dir_all(&self.temporary),
            false => std::fs::remove_file(&self.temporary),
        };
        if let Err(error) = removed
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %self.temporary.display(), "unfinished work was left behind");
        }
    }
}

/// Syncs a folder, or a file.
///
/// # Errors
/// [`ToolError::Io`].
pub fn sync(path: &Path) -> Result<(), ToolError> {
    sync_folder(path).map_err(|error| ToolError::io("be synced", path)(error.source))
}

/// Makes a file for its owner alone, which must not exist.
///
/// # Errors
/// [`ToolError::Io`].
pub fn create_new(path: &Path) -> Result<File, ToolError> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    opened.map_err(ToolError::io("be made", path))
}

/// Writes a small new file and syncs it.
///
/// # Errors
/// [`ToolError::Io`].
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<(), ToolError> {
    let mut file = create_new(path)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(ToolError::io("be written", path))
}

/// Reads a file of at most `bytes_max`.
///
/// # Errors
/// [`ToolError`].
pub fn read_small(path: &Path, bytes_max: u64) -> Result<Vec<u8>, ToolError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(bytes_max + 1).read_to_end(&mut bytes));
    read.map_err(ToolError::io("be read", path))?;
    if bytes.len() as u64 > bytes_max {
        let text = format!("{}: is larger than the {bytes_max} bytes it may have", path.display());
        return Err(ToolError::Refused(text));
    }
    Ok(bytes)
}

/// Opens a file to be read from the disk instead of from what the system remembers of its writing.
///
/// # Errors
/// [`ToolError::Io`].
pub fn open_afresh(path: &Path) -> Result<File, ToolError> {
    let file = File::open(path).map_err(ToolError::io("be read", path))?;
    // Where the system does not support it, what it remembers is read.
    let _as_it_is = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    Ok(file)
}

/// Counts and hashes what passes through it.
#[derive(Debug)]
pub struct Hashing<T> {
    inner: T,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl<T> Hashing<T> {
    /// Around a reader or a writer.
    pub fn new(inner: T) -> Self {
        Self { inner, hasher: blake3::Hasher::new(), bytes: 0 }
    }

    /// Bytes passed, their BLAKE3 hash in hexadecimal, and what was inside.
    pub fn finish(self) -> (u64, String, T) {
        (self.bytes, self.hasher.finalize().to_hex().to_string(), self.inner)
    }

    /// Bytes passed so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn pass(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
    }
}

impl<T: Read> Read for Hashing<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(bytes)?;
        self.pass(bytes.get(..read).unwrap_or_default());
        Ok(read)
    }
}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.pass(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
