//! What operators do to the data of a node beside running it: back up, restore, export and import blocks,
//! look for faults. Works on files and through the control socket; the commands only choose and tell.
//!
//! Nothing of the operator's is ever deleted: what makes room is renamed, and only unfinished work of the
//! same run is removed.

pub mod backup;
pub mod blocks;
pub mod doctor;
pub mod files;
pub mod logs;
pub mod manifest;
pub mod restore;

use crate::archive::ArchiveError;
use crate::ledger::store::folder::StoreError;
use crate::node::data_dir::DataDirError;
use crate::node::instance::InstanceError;
use crate::rpc::client::ClientError;
use std::io;
use std::path::{Path, PathBuf};

/// Why a tool did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// Data or configuration is at fault, and trying again changes nothing.
    #[error("{0}")]
    Refused(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Instance(#[from] InstanceError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{}: cannot {action}: {source}: check path, owner, free space and disk, and try again", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl ToolError {
    /// Exit status of the program: 78 when data or configuration have to be put right first, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Store(error) | Self::Archive(ArchiveError::Store(error)) if error.may_pass() => 1,
            Self::Archive(
                ArchiveError::Io { .. } | ArchiveError::Range { .. } | ArchiveError::Interrupted(_),
            )
            | Self::DataDir(DataDirError::Io { .. })
            | Self::Instance(InstanceError::Io { .. })
            | Self::Failed(_)
            | Self::Client(_)
            | Self::Io { .. } => 1,
            _ => 78,
        }
    }

    /// A fault of the file system.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// How far a tool has come, for whoever waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done, in words that follow the name of the command.
    pub doing: &'static str,
    /// Block reached, and the last one if it is known.
    pub height: u64,
    /// The last one, if it is known.
    pub to: Option<u64>,
    /// Bytes read or written.
    pub bytes: u64,
}

/// Takes progress; called often.
pub type Tell<'a> = &'a mut dyn FnMut(Progress);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_full_or_fails_may_be_tried_again_and_damage_may_not() {
        let (file, reason) = (PathBuf::from("/data/db"), String::from("why"));
        let errors = || {
            [
                (StoreError::Full { file: file.clone(), reason: reason.clone() }, 1),
                (StoreError::Unavailable { file: file.clone(), reason: reason.clone() }, 1),
                (StoreError::Unsynced { file: file.clone(), reason: reason.clone() }, 1),
                (StoreError::corrupt(&file, "why"), 78),
            ]
        };
        for (error, code) in errors() {
            assert_eq!(ToolError::from(error).exit_code(), code);
        }
        for (error, code) in errors() {
            assert_eq!(ToolError::from(ArchiveError::from(error)).exit_code(), code);
        }
    }
}
