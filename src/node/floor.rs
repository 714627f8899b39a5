//! The sign floor: the greatest height this masternode may have signed in, in a file of its own.
//!
//! The database and the vote log can go back in time together (a restored backup, a cloned disk, a
//! disk that lied about a sync); this file is written before anything of a new height is sent, so a
//! start that finds it ahead of both knows that votes may be missing from the log and must not sign.
//! Nothing was ever sent above the floor, so signing is safe again once the chain has passed it.
//!
//! It also names the vote key that has signed: the log of one key says nothing of what another has signed,
//! so a data directory whose vote key was replaced is refused. A floor without a key (of an observer, or
//! written by hand) is bound by the first masternode that starts on it.
//!
//! Written whole: temporary file, sync, rename, sync of the directory.

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
    #[error(
        "`{path}` is damaged: it must hold a line `height = N`, N being the greatest height this masternode may \
         have signed in; write it anew with a height that is surely not too low"
    )]
    Damaged { path: PathBuf },
    /// The chain is there and the floor is not.
    #[error(
        "`{path}` is missing while the database is at height {height}: nobody knows how far this masternode has \
         signed; write `height = N` to it, N being the greatest height the network may have reached by now"
    )]
    Missing { path: PathBuf, height: u64 },
    /// The directory was signed in with another key.
    #[error(
        "`{path}` and the vote log beside it are of vote key {bound}, keys/vote.key holds {given}: put the right \
         key back, or start with an empty data directory for a new masternode"
    )]
    OtherKey { path: PathBuf, bound: PublicKey, given: PublicKey },
}

/// The log and the database are behind what this masternode has signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "database at height {store}, vote log at {journal}, sign floor {floor}: not voting. Files of this masternode \
     have gone back in time; it follows the chain without signing, and may vote again when it is restarted at \
     height {floor} or above"
)]
pub struct BehindFloor {
    /// Height of the newest block in the database.
    pub store: u64,
    /// Height of the vote log.
    pub journal: u64,
    /// The floor.
    pub floor: u64,
}

/// The log begins after the height that the database could take it up at: its votes are still there, but
/// cannot be replayed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "database at height {store}, vote log from height {oldest} to {newest}: not voting. The database is behind the \
     vote log, which stays in `journal` untouched; this masternode follows the chain without signing, and may vote \
     again when it is restarted at height {safe} or above"
)]
pub struct BehindLog {
    /// Height of the newest block in the database.
    pub store: u64,
    /// Heights of the oldest and the newest segment.
    pub oldest: u64,
    pub newest: u64,
    /// From here on the log can be taken up, or is not needed any more.
    pub safe: u64,
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

    /// Whether a database at `store` can take up a log with segments from `oldest` to `newest`.
    ///
    /// # Errors
    /// [`BehindLog`] when heights between them are missing.
    pub fn check_log(&self, store: u64, oldest: u64, newest: u64) -> Result<(), BehindLog> {
        if oldest <= store.saturating_add(1) {
            return Ok(());
        }
        // A log that reaches the floor is whole: taken up, it tells all that was signed, as after a crash.
        let safe = self.height.filter(|floor| *floor > newest).unwrap_or(oldest.saturating_sub(1));
        Err(BehindLog { store, oldest, newest, safe })
    }

    /// Whether a node with its database at `store` and its log at `journal` may sign.
    ///
    /// # Errors
    /// [`FloorError::Missing`] when the file is gone and the chain is not new.
    pub fn check(&self, store: u64, journal: u64) -> Result<Result<(), BehindFloor>, FloorError> {
        match self.height {
            None if store > 0 => Err(FloorError::Missing { path: self.path.clone(), height: store }),
            Some(floor) if floor > store && floor > journal => Ok(Err(BehindFloor { store, journal, floor })),
            _ => Ok(Ok(())),
        }
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
    /// `None` for a node that must not sign: the floor stays where signing ended.
    floor: Option<SignFloor>,
}

/// Why the vote log stopped working.
#[derive(Debug, thiserror::Error)]
pub enum VoteLogError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Floor(#[from] FloorError),
}

impl VoteLog {
    /// A log to be written from now on; raises the floor, if there is one, to its height.
    ///
    /// # Errors
    /// [`VoteLogError`].
    pub fn new(journal: Journal, floor: Option<SignFloor>, height: u64) -> Result<Self, VoteLogError> {
        let mut log = Self { journal, floor };
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
        if let Some(floor) = &mut self.floor {
            floor.raise(height)?;
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
    fn a_floor_ahead_of_log_and_database_forbids_signing_and_names_all_three() {
        let root = tempfile::tempdir().unwrap();
        let mut floor = SignFloor::read(root.path(), None).unwrap();
        floor.raise(1311).unwrap();
        let refused = floor.check(1204, 1205).unwrap().unwrap_err();
        let text = refused.to_string();
        for number in ["1204", "1205", "1311"] {
            assert!(text.contains(number), "{text}");
        }
        assert_eq!(floor.check(1310, 1311).unwrap(), Ok(()), "the log of the height is there");
        assert_eq!(floor.check(1311, 1200).unwrap(), Ok(()), "the height is decided, its log is not needed");
    }

    #[test]
    fn a_log_that_begins_above_the_database_is_not_taken_up() {
        let root = tempfile::tempdir().unwrap();
        let mut floor = SignFloor::read(root.path(), None).unwrap();
        floor.raise(32).unwrap();
        assert_eq!(floor.check_log(30, 31, 32), Ok(()));
        let text = floor.check_log(29, 31, 32).unwrap_err().to_string();
        assert!(text.contains("restarted at height 30"), "{text}");
        let text = floor.check_log(29, 31, 31).unwrap_err().to_string();
        for part in ["database at height 29", "from height 31 to 31", "restarted at height 32"] {
            assert!(text.contains(part), "{text}");
        }
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
    fn a_missing_floor_is_fine_for_a_new_chain_only() {
        let root = tempfile::tempdir().unwrap();
        let floor = SignFloor::read(root.path(), None).unwrap();
        assert_eq!(floor.check(0, 1).unwrap(), Ok(()));
        let error = floor.check(3, 4).unwrap_err().to_string();
        assert!(error.contains("sign_floor") && error.contains("height 3"), "{error}");
    }

    #[test]
    fn a_damaged_floor_is_refused_with_its_name_and_the_remedy() {
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
        let mut log = VoteLog::new(journal, Some(SignFloor::read(root.path(), None).unwrap()), 4).unwrap();
        assert_eq!(SignFloor::read(root.path(), None).unwrap().height, Some(4));
        log.next_height(5, 4).unwrap();
        assert_eq!(SignFloor::read(root.path(), None).unwrap().height, Some(5));
        let (journal, _) = Journal::open(&root.path().join("journal"), chain, 1).unwrap();
        assert_eq!(journal.height(), 5);
    }
}
