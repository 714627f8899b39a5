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
//! After an orderly stop it also says where the vote log ended, so that a log cut short or changed while
//! the node was down is told from one that a crash left incomplete. That line goes before the log is
//! written again. The last line is a checksum, and the first one says so, for a file that was cut short ends
//! without it and may still look like one. Neither is needed in a file written by hand, or was in those of older
//! programs.

use crate::consensus::standing::Nonce;
use crate::durable::{WriteError, is_no_space, write_whole};
use crate::node::instance::{Instance, InstanceError};
use crate::node::journal::{Journal, JournalError, LogEnd};
use crate::primitives::hash::{Domain, hash};
use crate::primitives::keys::PublicKey;
use std::io;
use std::path::{Path, PathBuf};

/// Name of the file in the data directory.
pub const FLOOR_FILE_NAME: &str = "sign_floor";
/// First line of a file that must have a checksum.
const CHECKED_HEAD: &str =
    "# Its last line is a checksum of the others; to write it by hand, leave one line alone: height = N\n";
const HEIGHT_PREFIX: &str = "height = ";
const KEY_PREFIX: &str = "vote_key = ";
const END_PREFIX: &str = "log_end = ";
const CHECK_PREFIX: &str = "check = ";
/// Digits of the checksum: damage, not forgery, is what it is against.
const CHECK_DIGITS: usize = 16;

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
        "`{path}` is damaged: {reason}; a masternode sets it aside and asks the chain to be let back, otherwise move the \
         file away"
    )]
    Damaged { path: PathBuf, reason: &'static str },
    /// The directory was signed in with another key.
    #[error(
        "`{path}` and the vote log beside it are of vote key {bound}, keys/vote.key holds {given}: put the right \
         key back, or start with an empty data directory for a new masternode"
    )]
    OtherKey { path: PathBuf, bound: PublicKey, given: PublicKey },
}

impl FloorError {
    /// Whether it ends when there is space on the disk again.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_no_space(source))
    }
}

impl From<WriteError> for FloorError {
    fn from(WriteError { action, path, source }: WriteError) -> Self {
        Self::Io { action, path, source }
    }
}

/// What the file says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Content {
    height: u64,
    vote_key: Option<PublicKey>,
    log_end: Option<LogEnd>,
}

/// The file, with what it says.
#[derive(Debug)]
pub struct SignFloor {
    path: PathBuf,
    /// As the file has it; `None` without a file.
    written: Option<Content>,
    /// Key that signs, or has signed.
    vote_key: Option<PublicKey>,
}

impl SignFloor {
    /// Reads the floor in `data_dir` for a node that votes with `given`, or not at all.
    ///
    /// # Errors
    /// [`FloorError`]; [`FloorError::OtherKey`] when another key has signed in this directory.
    pub fn read(data_dir: &Path, given: Option<PublicKey>) -> Result<Self, FloorError> {
        let path = data_dir.join(FLOOR_FILE_NAME);
        let written = match std::fs::read_to_string(&path) {
            Ok(text) => match parse(&text) {
                Ok(content) => Some(content),
                Err(reason) => return Err(FloorError::Damaged { path, reason }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(FloorError::Damaged { path, reason: NO_HEIGHT });
            }
            Err(source) => return Err(FloorError::Io { action: "read", path, source }),
        };
        match (written.and_then(|content| content.vote_key), given) {
            (Some(bound), Some(given)) if bound != given => Err(FloorError::OtherKey { path, bound, given }),
            (bound, _) => Ok(Self { path, written, vote_key: bound.or(given) }),
        }
    }

    /// Whether some key has signed, or was about to sign, in this directory.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.written.is_some_and(|content| content.vote_key.is_some())
    }

    /// The floor as the file says it; `None` without a file.
    #[must_use]
    pub fn height(&self) -> Option<u64> {
        self.written.map(|content| content.height)
    }

    /// Where the vote log ended when the node was stopped in order; `None` after a crash.
    #[must_use]
    pub fn log_end(&self) -> Option<LogEnd> {
        self.written.and_then(|content| content.log_end)
    }

    /// A floor without a file.
    #[must_use]
    pub fn absent(data_dir: &Path, given: Option<PublicKey>) -> Self {
        Self { path: data_dir.join(FLOOR_FILE_NAME), written: None, vote_key: given }
    }

    /// Puts the floor at `height` even if that is lower: what was signed before does not count any more.
    ///
    /// # Errors
    /// [`FloorError::Io`]: nothing may be sent.
    pub fn restart(&mut self, height: u64) -> Result<(), FloorError> {
        self.write(Content { height, vote_key: self.vote_key, log_end: None })
    }

    /// Raises the floor to `height` and binds it to the vote key, durably. Two syncs; nothing when the
    /// file says so already.
    ///
    /// # Errors
    /// [`FloorError::Io`]: nothing of `height` may be sent.
    pub fn raise(&mut self, height: u64) -> Result<(), FloorError> {
        let height = self.height().map_or(height, |floor| floor.max(height));
        self.write(Content { height, vote_key: self.vote_key, log_end: None })
    }

    /// The vote log is about to be written: it ends somewhere else from now on. Durable.
    ///
    /// # Errors
    /// [`FloorError::Io`]: the log must not be written.
    pub fn reopen_log(&mut self) -> Result<(), FloorError> {
        self.written.map_or(Ok(()), |content| self.write(Content { log_end: None, ..content }))
    }

    /// The vote log was closed in order and ends here.
    ///
    /// # Errors
    /// [`FloorError::Io`]; the next start then takes the log as a crash left it.
    pub fn close_log(&mut self, end: LogEnd) -> Result<(), FloorError> {
        self.written.map_or(Ok(()), |content| self.write(Content { log_end: Some(end), ..content }))
    }

    fn write(&mut self, content: Content) -> Result<(), FloorError> {
        if self.written == Some(content) {
            return Ok(());
        }
        write_whole(&self.path, |_| Ok(text_of(&content)))?;
        self.written = Some(content);
        Ok(())
    }
}

fn check_of(lines: &str) -> String {
    hash(Domain::FLOOR, &[lines.as_bytes()]).to_string().chars().take(CHECK_DIGITS).collect()
}

fn text_of(content: &Content) -> String {
    let mut text = format!("{CHECKED_HEAD}{HEIGHT_PREFIX}{}\n", content.height);
    if let Some(key) = content.vote_key {
        text += &format!("{KEY_PREFIX}{key}\n");
    }
    if let Some(end) = content.log_end {
        text += &format!("{END_PREFIX}{} {}\n", end.height, end.bytes);
    }
    let check = check_of(&text);
    text + CHECK_PREFIX + &check + "\n"
}

const NO_HEIGHT: &str = "it must hold a line `height = N`";
const NO_CHECK: &str = "its last line, `check = ..`, is missing: the file was cut short (by hand, write one line alone, \
                        `height = N`)";
const BAD_CHECK: &str = "its last line, `check = ..`, does not fit the others (when changed by hand, take out all lines but \
                         `height = N`)";

/// What a floor file says, or what is wrong with it.
fn parse(text: &str) -> Result<Content, &'static str> {
    let checked = text.strip_prefix(CHECKED_HEAD);
    let body = checked.unwrap_or(text);
    let mut lines: Vec<&str> = body.trim_end().lines().map(str::trim_end).collect();
    match lines.last().and_then(|line| line.strip_prefix(CHECK_PREFIX)) {
        Some(check) => {
            let before = text.rsplit_once(CHECK_PREFIX).map_or("", |(before, _)| before);
            if check != check_of(before) {
                return Err(BAD_CHECK);
            }
            lines.pop();
        }
        None if checked.is_some() => return Err(NO_CHECK),
        None => {}
    }
    content_of(&lines).ok_or(NO_HEIGHT)
}

fn content_of(lines: &[&str]) -> Option<Content> {
    let mut lines = lines.iter().copied().peekable();
    let height = lines.next()?.strip_prefix(HEIGHT_PREFIX)?.parse().ok()?;
    let mut after =
        |prefix| lines.next_if(|line| line.starts_with(prefix)).and_then(|line| line.strip_prefix(prefix));
    let vote_key = after(KEY_PREFIX).map(|key| key.parse().map_err(|_| ())).transpose().ok()?;
    let log_end = match after(END_PREFIX) {
        Some(end) => {
            let (height, bytes) = end.split_once(' ')?;
            Some(LogEnd { height: height.parse().ok()?, bytes: bytes.parse().ok()? })
        }
        None => None,
    };
    lines.next().is_none().then_some(Content { height, vote_key, log_end })
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

impl VoteLogError {
    /// Whether it ends when there is space on the disk again, so that the same may be tried again.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Journal(error) => error.is_full(),
            Self::Floor(error) => error.is_full(),
            Self::Instance(error) => error.is_full(),
        }
    }
}

impl VoteLog {
    /// Notes where the log ends, for the next start to compare with; nothing is written to it after this.
    /// A log that has failed, or holds something that was not committed, is left as it is.
    ///
    /// # Errors
    /// [`VoteLogError`]; the next start then takes the log as a crash leaves it.
    pub fn close(&mut self) -> Result<(), VoteLogError> {
        match (&mut self.floor, self.journal.end()) {
            (Some(floor), Some(end)) => Ok(floor.close_log(end)?),
            _ => Ok(()),
        }
    }

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
        if let Some(floor) = &mut log.floor {
            floor.reopen_log()?;
        }
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
    use crate::primitives::certificate::Qc;
    use crate::primitives::hash::{BlockId, ChainId, Hash};
    use crate::primitives::vote::Step;

    #[test]
    fn the_floor_is_read_back_and_never_sinks() {
        let root = tempfile::tempdir().unwrap();
        let mut floor = SignFloor::read(root.path(), None).unwrap();
        floor.raise(7).unwrap();
        floor.raise(5).unwrap();
        assert_eq!(SignFloor::read(root.path(), None).unwrap().height(), Some(7));
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
            assert!(floor.is_bound() && floor.height() == Some(7));
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
            "height = 1\nlog_end = 1",
            "height = 1\ncheck = 0123456789abcdef",
        ];
        for text in broken {
            std::fs::write(root.path().join(FLOOR_FILE_NAME), text).unwrap();
            let error = SignFloor::read(root.path(), None).unwrap_err().to_string();
            assert!(error.contains("sign_floor") && error.contains("height = N"), "{error}");
            assert_eq!(error.contains("`check = ..`"), text.contains("check"), "{error}");
        }
    }

    #[test]
    fn a_floor_cut_short_anywhere_is_damaged_and_one_of_an_older_program_is_read() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(FLOOR_FILE_NAME);
        SignFloor::read(root.path(), Some(PublicKey([1; 32]))).unwrap().raise(1311).unwrap();
        let whole = std::fs::read_to_string(&path).unwrap();
        // But for the line feed at the end.
        for cut in 0..whole.len() - 1 {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let read = SignFloor::read(root.path(), None);
            assert!(matches!(read, Err(FloorError::Damaged { .. })), "cut at {cut}: {read:?}");
        }
        std::fs::write(&path, whole.replace("1311", "1312")).unwrap();
        let error = SignFloor::read(root.path(), None).unwrap_err().to_string();
        assert!(error.contains("`check = ..`") && error.contains("by hand"), "{error}");
        let key = PublicKey([1; 32]);
        let older = format!("height = 12\nvote_key = {key}\n");
        std::fs::write(&path, format!("{older}check = {}\n", check_of(&older))).unwrap();
        let floor = SignFloor::read(root.path(), Some(key)).unwrap();
        assert!(floor.height() == Some(12) && floor.is_bound());
    }

    #[test]
    fn no_digit_of_a_floor_can_change_unnoticed_and_one_written_by_hand_is_read() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(FLOOR_FILE_NAME);
        let mut floor = SignFloor::read(root.path(), Some(PublicKey([1; 32]))).unwrap();
        floor.raise(7).unwrap();
        floor.close_log(LogEnd { height: 7, bytes: 4711 }).unwrap();
        let whole = std::fs::read(&path).unwrap();
        // But for the line feed at the end.
        for at in 0..whole.len() - 1 {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                std::fs::write(&path, &bytes).unwrap();
                assert!(matches!(SignFloor::read(root.path(), None), Err(FloorError::Damaged { .. })));
            }
        }
        std::fs::write(&path, "height = 9\n").unwrap();
        assert_eq!(SignFloor::read(root.path(), None).unwrap().height(), Some(9));
    }

    #[test]
    fn where_the_log_ended_is_told_after_an_orderly_stop_only() {
        use crate::node::effects::Log as _;
        let root = tempfile::tempdir().unwrap();
        let (chain, folder) = (ChainId(Hash([1; 32])), root.path().join("journal"));
        let open = || {
            let (journal, _) = Journal::open(&folder, chain, 4).unwrap();
            VoteLog::new(journal, Some(SignFloor::read(root.path(), None).unwrap()), None, 4).unwrap()
        };
        let told = || SignFloor::read(root.path(), None).unwrap().log_end();
        let mut log = open();
        assert_eq!(told(), None);
        log.next_height(5, 3).unwrap();
        log.close().unwrap();
        assert_eq!(told(), Journal::found_end(&folder).unwrap());
        assert_eq!(told().map(|end| end.height), Some(5));
        drop(log);
        let mut log = open();
        assert_eq!(told(), None, "before anything is written");
        let qc = Qc::new(0, Step::Precommit, BlockId::default(), Vec::new());
        log.journal.stage(5, &crate::consensus::output::Record::Decided(qc));
        log.close().unwrap();
        assert_eq!(told(), None, "something was not written");
    }

    #[test]
    fn the_floor_is_at_the_height_of_the_log_before_anything_of_it_is_sent() {
        use crate::node::effects::Log as _;
        let root = tempfile::tempdir().unwrap();
        let chain = ChainId(Hash([1; 32]));
        let (journal, _) = Journal::open(&root.path().join("journal"), chain, 4).unwrap();
        let mut log =
            VoteLog::new(journal, Some(SignFloor::read(root.path(), None).unwrap()), None, 4).unwrap();
        assert_eq!(SignFloor::read(root.path(), None).unwrap().height(), Some(4));
        log.next_height(5, 4).unwrap();
        assert_eq!(SignFloor::read(root.path(), None).unwrap().height(), Some(5));
        // What was signed before a resume does not count any more, however high it was.
        SignFloor::read(root.path(), None).unwrap().raise(90).unwrap();
        log.floor = Some(SignFloor::read(root.path(), None).unwrap());
        log.sign(None, [1; 32]).unwrap();
        assert_eq!(SignFloor::read(root.path(), None).unwrap().height(), Some(90));
        log.sign(Some([0; 32]), [1; 32]).unwrap();
        assert_eq!(SignFloor::read(root.path(), None).unwrap().height(), Some(5));
        let (journal, _) = Journal::open(&root.path().join("journal"), chain, 1).unwrap();
        assert_eq!(journal.height(), 5);
    }
}
