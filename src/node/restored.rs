//! The note that a data directory was restored from a backup: whatever else is found in it, the vote log
//! counts as lost (protocol §10, safe start).
//!
//! `masternode restore` writes the file before it puts the database in its place. The first start with a
//! vote key takes it up: the file goes when the new `instance` says durably that the log is lost. So no
//! crash in between makes the directory look like a new or a whole one.

use crate::durable::{sync_folder, write_whole};
use crate::node::instance::{self, Finding, InstanceError};
use crate::primitives::clean::CleanText;
use crate::primitives::hash::ChainId;
use crate::primitives::keys::PublicKey;
use std::io;
use std::path::Path;

/// Name of the file in the data directory.
pub const NOTE_FILE_NAME: &str = "restored";
/// Most characters of the note that are told.
const NOTE_CHARS_MAX: usize = 300;

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InstanceError {
    let path = path.to_owned();
    move |source| InstanceError::Io { action, path, source }
}

/// Writes the note, durably.
///
/// # Errors
/// [`InstanceError::Io`].
pub fn write(data_dir: &Path, note: &str) -> Result<(), InstanceError> {
    Ok(write_whole(&data_dir.join(NOTE_FILE_NAME), |_| Ok(format!("{note}\n")))?)
}

/// What is known of the vote log of a directory: as [`instance::find`], unless the directory was restored.
///
/// # Errors
/// [`InstanceError`].
pub fn find(data_dir: &Path, chain: ChainId, vote_key: PublicKey) -> Result<Finding, InstanceError> {
    let found = instance::find(data_dir, chain, vote_key)?;
    let path = data_dir.join(NOTE_FILE_NAME);
    match std::fs::read(&path) {
        Ok(note) => {
            let note = CleanText::limited(String::from_utf8_lossy(&note).trim(), NOTE_CHARS_MAX);
            Ok(Finding::Unusable(format!("this data directory was restored from a backup: {note}")))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(found),
        Err(error) => Err(io_error("read", &path)(error)),
    }
}

/// The directory has a new `instance`: the note has served. It stays while there is none.
///
/// # Errors
/// [`InstanceError::Io`].
pub fn taken_up(data_dir: &Path) -> Result<(), InstanceError> {
    let path = data_dir.join(NOTE_FILE_NAME);
    match std::fs::remove_file(&path) {
        Ok(()) => Ok(sync_folder(data_dir)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error("remove", &path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::standing::Start;
    use crate::node::instance::{Instance, Since};
    use crate::node::traces::{Judgement, Traces};
    use crate::primitives::hash::Hash;

    const CHAIN: ChainId = ChainId(Hash([1; 32]));
    const KEY: PublicKey = PublicKey([2; 32]);

    fn judged(dir: &Path) -> Judgement {
        let finding = find(dir, CHAIN, KEY).unwrap();
        Traces { finding, floor: Ok(None), log: None, closed: None, stored: 0 }.judge()
    }

    #[test]
    fn the_log_of_a_restored_directory_counts_as_lost_until_the_instance_says_so() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(judged(root.path()).since, Since::Never);
        // Even where nothing else would tell: at height 0, and beside an instance that is whole.
        for whole in [false, true] {
            if whole {
                Instance::begin(root.path(), CHAIN, KEY, Since::Registration, vec![]).unwrap();
            }
            write(root.path(), "made at height 7").unwrap();
            let Judgement { since, drawn, log_is_useless } = judged(root.path());
            let Since::Lost(reason) = since.clone() else { panic!("{since:?}") };
            assert!(reason.contains("restored") && reason.contains("height 7") && log_is_useless, "{reason}");
            let (_, start) = Instance::begin(root.path(), CHAIN, KEY, since, drawn).unwrap();
            assert!(matches!(start, Start::Lost { .. }));
            taken_up(root.path()).unwrap();
            taken_up(root.path()).unwrap();
            assert!(matches!(judged(root.path()).since, Since::Lost(_)));
        }
    }
}
