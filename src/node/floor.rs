//! The sign floor: the greatest height this masternode may have signed in, in a file of its own.
//!
//! The database and the vote log can go back in time together (a restored backup, a disk that lied about
//! a sync); this file is written before anything of a new height is sent, so a start that finds it ahead
//! of both knows that votes may be missing from the log (see [`traces`](crate::node::traces)).
//!
//! It also names the vote key that has signed: the log of one key says nothing of what another has signed,
//! so a data directory whose vote key was replaced is refused. A floor without a key (of an observer, or
//! written by hand) is bound by the first masternode that starts on it.
//!
//! Written whole: temporary file, sync, rename, sync of the directory.

use crate::consensus::standing::Nonce;
use crate::node::instance::{Instance, InstanceError};
use crate::node::journal::{Journal, JournalError};
use crate::primitives::keys::PublicKey;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Name of the file in the data directory.
pub const FLOOR_FILE_NAME: &str = "sign_floor";
const HEIGHT_PREFIX: &str = "height = ";
const KEY_PREFIX: &str = "vote_key = ";

/// Why the floor cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FloorError {
    /// The system refused an operation.
    #[error(
        "cannot {action} `{path}`: {source}; nothing more is signed, free or replace the disk and restart"
    )]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The file holds something else.
    #[error("`{path}` is damaged: it must hold a line `height = N`")]
    Damaged { path: PathBuf },
    /// The directory was signed in with another key.
    #[error(
        "`{path}` and the vote log beside it are of vote key {bound}, keys/vote.key holds {given}: put the right \
         key back, or start with an empty data directory for a new masternode"
    )]
    OtherKey { path: PathBuf, bound: PublicKey, given: PublicKey },
}

/// The file, with what it says.
#[derive(Debug)]
pub struct SignFloor {
    path: PathBuf,
    height: Option<u64>,
    /// Key the file is bound to, and whether the file says so already.
    vote_key: Option<PublicKey>,
    is_bound: bool,
}

impl SignFloor {
    /// Reads the floor in `data_dir` for a node that votes with `given`, or not at all.
    ///
    /// # Errors
    /// [`FloorError`]; [`FloorError::OtherKey`] when another key has signed in this directory.
    pub fn read(data_dir: &Path, given: Option<PublicKey>) -> Result<Self, FloorError> {
        let path = data_dir.join(FLOOR_FILE_NAME);
        let (height, bound) = match std::fs::read_to_string(&path) {
            Ok(text) => match parse(&text) {
                Some((height, bound)) => (Some(height), bound),
                None => return Err(FloorError::Damaged { path }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => (None, None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(FloorError::Damaged { path });
            }
            Err(source) => return Err(FloorError::Io { action: "read", path, source }),
        };
        match (bound, given) {
            (Some(bound), Some(given)) if bound != given => Err(FloorError::OtherKey { path, bound, given }),
            _ => Ok(Self { path, height, vote_key: bound.or(given), is_bound: bound.is_some() }),
        }
    }

    /// Whether some key has signed, or was about to sign, in this directory.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.is_bound
    }

    /// The floor as the file says it; `None` without a file.
    #[must_use]
    pub fn height(&self) -> Option<u64> {
        self.height
    }

    /// A floor without a file.
    #[must_use]
    pub fn absent(data_dir: &Path, given: Option<PublicKey>) -> Self {
        Self { path: data_dir.join(FLOOR_FILE_NAME), height: None, vote_key: given, is_bound: false }
    }

    /// Puts the floor at `height` even if that is lower: what was signed before does not count any more.
    ///
    /// # Errors
    /// [`FloorError::Io`]: nothing may be sent.
    pub fn restart(&mut self, height: u64) -> Result<(), FloorError> {
        if self.height == Some(height) {
            return Ok(());
        }
        self.height = None;
        self.raise(height)
    }

    /// Raises the floor to `height` and binds it to the vote key, durably. Two syncs; nothing when the
    /// file says so already.
    ///
    /// # Errors
    /// [`FloorError::Io`]: nothing of `height` may be sent.
    pub fn raise(&mut self, height: u64) -> Result<(), FloorError> {
        let height = self.height.map_or(height, |floor| floor.max(height));
        if self.height == Some(height) && self.is_bound == self.vote_key.is_some() {
            return Ok(());
        }
        let temporary = self.path.with_extension("new");
        let io = |action| {
            let path = self.path.clone();
            move |source| FloorError::Io { action, path, source }
        };
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(io("create"))?;
        let key = self.vote_key.map_or_else(String::new, |key| format!("{KEY_PREFIX}{key}\n"));
        write!(file, "{HEIGHT_PREFIX}{height}\n{key}").map_err(io("write"))?;
        file.sync_all().map_err(io("sync"))?;
        std::fs::rename(&temporary, &self.path).map_err(io("replace"))?;
        let directory = self.path.parent().unwrap_or(Path::new("."));
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(io("sync"))?;
        self.height = Some(height);
        self.is_bound = self.vote_key.is_some();
        Ok(())
    }
}

/// The height and, if there is one, the key of a floor file.
fn parse(text: &str) -> Option<(u64, Option<PublicKey>)> {
    let mut lines = text.trim_end().lines();
    let height = lines.next()?.trim_end().strip_prefix(HEIGHT_PREFIX)?.parse().ok()?;
    let key = match lines.next() {
        Some(line) => Some(line.strip_prefix(KEY_PREFIX)?.parse().ok()?),
        None => None,
    };
    lines.next().is_none().then_some((height, key))
}

/// Vote log and floor together: what has to be durable before anything is sent.
#[derive(Debug)]
pub struct VoteLog {
    journal: Journal,
    /// `None` for a node without a vote key in a directory that has signed: the floor stays where
    /// signing ended.
    floor: Option<SignFloor>,
    /// `None` without a vote key.
    instance: Option<Instance>,
    height: u64,
}

/// Why the vote log stopped working.
#[derive(Debug, thiserror::Error)]
pub enum VoteLogError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Floor(#[from] FloorError),
    #[error(transparent)]
    Instance(#[from] InstanceError),
}

impl VoteLog {
    /// A log to be written from now on; raises the floor, if there is one, to its height.
    ///
    /// # Errors
    /// [`VoteLogError`].
    pub fn new(
        journal: Journal,
        floor: Option<SignFloor>,
        instance: Option<Instance>,
        height: u64,
    ) -> Result<Self, VoteLogError> {
        let mut log = Self { journal, floor, instance, height };
        crate::node::effects::Log::next_height(&mut log, height, 0)?;
        Ok(log)
    }
}

impl crate::node::effects::Log for VoteLog {
    fn stage(&mut self, height: u64, record: &crate::consensus::output::Record) {
        self.journal.stage(height, record);
    }

    fn staged_bytes(&self) -> usize {
        self.journal.staged_bytes()
    }

    fn commit(&mut self) -> Result<(), VoteLogError> {
        Ok(self.journal.commit()?)
    }

    fn next_height(&mut self, height: u64, durable_height: u64) -> Result<(), VoteLogError> {
        self.journal.next_height(height, durable_height)?;
        self.height = height;
        if let Some(floor) = &mut self.floor {
            floor.raise(height)?;
        }
        Ok(())
    }

    fn sign(&mut self, since: Option<Nonce>, next: Nonce) -> Result<(), VoteLogError> {
        if let (Some(floor), Some(_)) = (&mut self.floor, since) {
            floor.restart(self.height)?;
        }
        if let Some(instance) = &mut self.instance {
            instance.signs(since, next)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::hash::{ChainId, Hash};

    #[test]
    fn the_floor_is_read_back_and_never_sinks() {
        let root = tempfile::tempdir().unwrap();
        let mut floor = SignFloor::read(root.path(), None).unwrap();
        floor.raise(7).unwrap();
        floor.raise(5).unwrap();
        assert_eq!(SignFloor::read(root.path(), None).unwrap().height, Some(7));
    }

    #[test]
    fn a_floor_is_bound_to_the_first_vote_key_and_refuses_any_other() {
        let root = tempfile::tempdir().unwrap();
        let [one, other] = [[1; 32], [2; 32]].map(PublicKey);
        SignFloor::read(root.path(), None).unwrap().raise(7).unwrap();
        let mut floor = SignFloor::read(root.path(), Some(one)).unwrap();
        assert!(!floor.is_bound());
        // The height alone would be nothing to write.
        floor.raise(7).unwrap();
        let error = SignFloor::read(root.path(), Some(other)).unwrap_err();
        assert!(matches!(error, FloorError::OtherKey { .. }));
        for part in [one.to_string(), other.to_string(), "put the right key back".to_owned()] {
            assert!(error.to_string().contains(&part), "{error}");
        }
        for given in [None, Some(one)] {
            let floor = SignFloor::read(root.path(), given).unwrap();
            assert!(floor.is_bound() && floor.height == Some(7));
        }
    }

    #[test]
    fn a_damaged_floor_is_told_with_its_name_and_what_it_must_hold() {
        let root = tempfile::tempdir().unwrap();
        let broken = [
            "",
            "height = ",
            "height = 1x",
            "\0\0\0\0",
            "12",
            "height = 1\nvote_key = 12",
            "height = 1\n\n2",
        ];
        for text in broken {
            std::fs::write(root.path().join(FLOOR_FILE_NAME), text).unwrap();
            let error = SignFloor::read(root.path(), None).unwrap_err().to_string();
            assert!(error.contains("sign_floor") && error.contains("height = N"), "{error}");
        }
    }

    #[test]
    fn the_floor_is_at_the_height_of_the_log_before_anything_of_it_is_sent() {
        use crate::node::effects::Log as _;
        let root = tempfile::tempdir().unwrap();
        let chain = ChainId(Hash([1; 32]));
        let (journal, _) = Journal::open(&root.path().join("journal"), chain, 4).unwrap();
        let mut log =
            VoteLog::new(journal, Some(SignFloor::read(root.path(), None).unwrap()), None, 4).unwrap();
        assert_eq!(SignFloor::read(root.path(), None).unwrap().height, Some(4));
        log.next_height(5, 4).unwrap();
        assert_eq!(SignFloor::read(root.path(), None).unwrap().height, Some(5));
        // What was signed before a resume does not count any more, however high it was.
        SignFloor::read(root.path(), None).unwrap().raise(90).unwrap();
        log.floor = Some(SignFloor::read(root.path(), None).unwrap());
        log.sign(None, [1; 32]).unwrap();
        assert_eq!(SignFloor::read(root.path(), None).unwrap().height, Some(90));
        log.sign(Some([0; 32]), [1; 32]).unwrap();
        assert_eq!(SignFloor::read(root.path(), None).unwrap().height, Some(5));
        let (journal, _) = Journal::open(&root.path().join("journal"), chain, 1).unwrap();
        assert_eq!(journal.height(), 5);
    }
}
