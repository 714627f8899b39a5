//! What a call into sled can end with, panics included, and which [`StoreError`] that is.

use crate::ledger::store::containment::contained;
use crate::ledger::store::folder::StoreError;
use std::io;
use std::path::Path;

/// What a call into sled can end with.
#[derive(Debug)]
pub enum Failure {
    Sled(sled::Error),
    Io(io::Error),
    /// A sync failed: what it was about may or may not be on the medium, whatever the reason was, and
    /// trying again would not tell.
    Sync(io::Error),
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
    pub fn at(self, dir: &Path) -> StoreError {
        match self {
            Self::Store(error) => error,
            Self::Io(error) | Self::Sled(sled::Error::Io(error)) => {
                if error.to_string().contains("could not acquire lock") {
                    return StoreError::InUse { file: dir.to_owned() };
                }
                StoreError::io(dir, &error)
            }
            Self::Sync(error) => StoreError::Unsynced { file: dir.to_owned(), reason: error.to_string() },
            Self::Sled(error) => StoreError::corrupt(&dir.join("db"), error.to_string()),
        }
    }
}

/// Runs `work`, turning a panic inside sled into [`StoreError::Corrupt`].
pub fn guarded<T>(dir: &Path, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, StoreError> {
    match contained(work) {
        Ok(result) => result.map_err(|failure| failure.at(dir)),
        Err(text) => {
            Err(StoreError::corrupt(&dir.join("db"), format!("the database library gave up: {text}")))
        }
    }
}
