//! Which directory on which machine has signed, and under which `Resume` (protocol §10, safe start).
//!
//! The file `instance` in the data directory names where it was written: the machine, the inodes of the
//! directory and its own, and when both were made, if the file system tells. A copy of the directory, restored
//! from a backup or made beside the original, shows it: its files were made anew, later, even where one has
//! got the same inode again, as an archive unpacked in its old place may. Not seen is what keeps all of that: a
//! snapshot of the file system that is put back (btrfs, ZFS, LVM) and a clone of a virtual machine.
//! It also holds what the vote log of this directory is whole since, and the
//! numbers drawn for a `Resume`, durable before one of them is sent.
//!
//! Written whole: temporary file, sync, rename (which keeps the inode), sync of the directory. The device
//! number is not compared: it may change with every boot. Deliberately absent: any secret.

use crate::consensus::standing::{Nonce, Start};
use crate::durable::{WriteError, is_no_space, write_whole};
use crate::primitives::hash::ChainId;
use crate::primitives::keys::PublicKey;
use serde::{Deserialize, Serialize};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Name of the file in the data directory.
pub const INSTANCE_FILE_NAME: &str = "instance";
/// Most numbers drawn in earlier lives that are remembered; a `Resume` of an older one has expired.
const DRAWN_MAX: usize = 8;
const MACHINE_ID: &str = "/etc/machine-id";
const NONE: &str = "none";

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// The system refused an operation.
    #[error("cannot {action} `{path}`: {source}; nothing is signed, free or replace the disk and restart")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The directory was signed in with another key.
    #[error(
        "`{path}` says that this directory is of vote key {bound}, keys/vote.key holds {given}: put the right key \
         back, or start with an empty data directory for a new masternode"
    )]
    OtherKey { path: PathBuf, bound: PublicKey, given: PublicKey },
    /// The directory is of another network.
    #[error(
        "`{path}` says that this directory is of chain {bound}, genesis.toml founds {given}: use the genesis.toml it \
         was made with, or another data directory"
    )]
    OtherChain { path: PathBuf, bound: ChainId, given: ChainId },
}

impl From<WriteError> for InstanceError {
    fn from(WriteError { action, path, source }: WriteError) -> Self {
        Self::Io { action, path, source }
    }
}

impl InstanceError {
    /// Whether it ends when there is space on the disk again.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_no_space(source))
    }
}

/// What the vote log of a directory holds everything since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Since {
    /// Nothing was ever signed from here.
    Never,
    /// The registration of the key.
    Registration,
    /// The block with the `Resume` that carries this number.
    Resume(Nonce),
    /// It is not whole, for this reason.
    Lost(String),
}

/// The file, as it is to be.
#[derive(Debug)]
pub struct Instance {
    path: PathBuf,
    chain: ChainId,
    vote_key: PublicKey,
    since: Since,
    drawn: Vec<Nonce>,
}

/// What was found in a directory.
#[derive(Debug)]
pub enum Finding {
    /// No file.
    Absent,
    /// The file, where it was written.
    Intact { since: Since, drawn: Vec<Nonce> },
    /// The file was written elsewhere, or cannot be read; in words.
    Unusable(String),
}

/// The text of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    chain: ChainId,
    vote_key: PublicKey,
    machine: String,
    directory_inode: u64,
    file_inode: u64,
    /// When directory and file were made; absent where the file system does not say, and in older files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    directory_made: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file_made: Option<String>,
    signs_since: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    lost: String,
    drawn: Vec<String>,
}

const HEAD: &str = "# Written by the masternode at each start. It holds for this file in this place only: a copy of the data\n\
                    # directory is known by it, and does not sign before the chain lets it (docs/operating.md).\n";

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InstanceError {
    let path = path.to_owned();
    move |source| InstanceError::Io { action, path, source }
}

/// Looks for the file of `vote_key` in `data_dir`.
///
/// # Errors
/// [`InstanceError`]: the directory belongs to another key or network, or the disk refuses.
pub fn find(data_dir: &Path, chain: ChainId, vote_key: PublicKey) -> Result<Finding, InstanceError> {
    let path = data_dir.join(INSTANCE_FILE_NAME);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Finding::Absent),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => String::new(),
        Err(error) => return Err(io_error("read", &path)(error)),
    };
    let Ok(content) = toml::from_str::<Content>(&text) else {
        return Ok(Finding::Unusable(format!("`{}` is damaged", path.display())));
    };
    if content.vote_key != vote_key {
        return Err(InstanceError::OtherKey { path, bound: content.vote_key, given: vote_key });
    }
    if content.chain != chain {
        return Err(InstanceError::OtherChain { path, bound: content.chain, given: chain });
    }
    if let Some(text) = moved(&content, data_dir, &path)? {
        return Ok(Finding::Unusable(text));
    }
    let since = match content.signs_since.as_str() {
        "never" => Some(Since::Never),
        "registration" => Some(Since::Registration),
        "lost" => Some(Since::Lost(content.lost.clone())),
        nonce => parse_nonce(nonce).map(Since::Resume),
    };
    let drawn: Option<Vec<Nonce>> = content.drawn.iter().map(|nonce| parse_nonce(nonce)).collect();
    match (since, drawn) {
        (Some(since), Some(drawn)) => Ok(Finding::Intact { since, drawn }),
        _ => Ok(Finding::Unusable(format!("`{}` is damaged", path.display()))),
    }
}

/// What shows that the file does not lie where it was written, in words.
fn moved(content: &Content, data_dir: &Path, path: &Path) -> Result<Option<String>, InstanceError> {
    let directory = std::fs::metadata(data_dir).map_err(io_error("look at", data_dir))?;
    let file = std::fs::metadata(path).map_err(io_error("look at", path))?;
    let inode = |inode: u64| Some(inode.to_string());
    let compared = [
        ("machine id", Some(content.machine.clone()), Some(machine_id())),
        ("inode of the directory", inode(content.directory_inode), inode(directory.ino())),
        ("inode of the file `instance`", inode(content.file_inode), inode(file.ino())),
        ("time the directory was made", content.directory_made.clone(), made(&directory)),
        ("time the file `instance` was made", content.file_made.clone(), made(&file)),
    ];
    // What one of the two does not know cannot be compared.
    let differs = compared.into_iter().find_map(|(what, was, is)| {
        let (was, is) = was.zip(is)?;
        (was != is).then_some((what, was, is))
    });
    Ok(differs.map(|(what, was, is)| {
        format!("this data directory is a copy of another one: the {what} was {was} and is {is}")
    }))
}

/// When a file was made, in seconds since 1970, if the file system tells.
fn made(metadata: &Metadata) -> Option<String> {
    let since = metadata.created().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(format!("{}.{:09}", since.as_secs(), since.subsec_nanos()))
}

fn machine_id() -> String {
    let read = std::fs::read_to_string(MACHINE_ID).unwrap_or_default();
    let id: String = read.trim().chars().take(64).collect();
    if id.is_empty() { NONE.to_owned() } else { id }
}

fn parse_nonce(text: &str) -> Option<Nonce> {
    hex::decode(text).ok()?.try_into().ok()
}

impl Instance {
    /// The file of a start: `since` as found or judged, `drawn` the numbers of earlier lives since then,
    /// and a new one. Durable when this returns; with what the machine has to know.
    ///
    /// # Errors
    /// [`InstanceError::Io`]: nothing may be signed.
    pub fn begin(
        data_dir: &Path,
        chain: ChainId,
        vote_key: PublicKey,
        since: Since,
        mut drawn: Vec<Nonce>,
    ) -> Result<(Self, Start), InstanceError> {
        let nonce: Nonce = rand::random();
        drawn.drain(..drawn.len().saturating_sub(DRAWN_MAX - 1));
        let tried = drawn.clone();
        drawn.push(nonce);
        let start = match since.clone() {
            Since::Never => Start::Fresh { tried, nonce },
            Since::Lost(reason) => Start::Lost { reason, tried, nonce },
            Since::Registration => Start::Whole { since: whole_since(None, tried), nonce },
            Since::Resume(last) => Start::Whole { since: whole_since(Some(last), tried), nonce },
        };
        let instance = Self { path: data_dir.join(INSTANCE_FILE_NAME), chain, vote_key, since, drawn };
        instance.write()?;
        Ok((instance, start))
    }

    /// From here on the log is whole since the `Resume` with `since`, or the registration; `next` is the
    /// number of the next `Resume` of this life. Durable when this returns.
    ///
    /// # Errors
    /// [`InstanceError::Io`]: nothing may be signed.
    pub fn signs(&mut self, since: Option<Nonce>, next: Nonce) -> Result<(), InstanceError> {
        self.since = since.map_or(Since::Registration, Since::Resume);
        self.drawn = vec![next];
        self.write()
    }

    fn write(&self) -> Result<(), InstanceError> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        let directory = std::fs::metadata(directory).map_err(io_error("look at", directory))?;
        Ok(write_whole(&self.path, |file| self.text(&directory, &file.metadata()?))?)
    }

    fn text(&self, directory: &Metadata, file: &Metadata) -> io::Result<String> {
        let (signs_since, lost) = match &self.since {
            Since::Never => ("never".to_owned(), String::new()),
            Since::Registration => ("registration".to_owned(), String::new()),
            Since::Resume(nonce) => (hex::encode(nonce), String::new()),
            Since::Lost(reason) => ("lost".to_owned(), reason.clone()),
        };
        let content = Content {
            chain: self.chain,
            vote_key: self.vote_key,
            machine: machine_id(),
            directory_inode: directory.ino(),
            file_inode: file.ino(),
            directory_made: made(directory),
            file_made: made(file),
            signs_since,
            lost,
            drawn: self.drawn.iter().map(hex::encode).collect(),
        };
        let text = toml::to_string(&content).map_err(io::Error::other)?;
        Ok(format!("{HEAD}{text}"))
    }
}

fn whole_since(last: Option<Nonce>, tried: Vec<Nonce>) -> Vec<Option<Nonce>> {
    std::iter::once(last).chain(tried.into_iter().map(Some)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::hash::Hash;

    const CHAIN: ChainId = ChainId(Hash([1; 32]));
    const KEY: PublicKey = PublicKey([2; 32]);

    fn begin(dir: &Path, since: Since, drawn: Vec<Nonce>) -> (Instance, Start) {
        Instance::begin(dir, CHAIN, KEY, since, drawn).unwrap()
    }

    #[track_caller]
    fn intact(dir: &Path) -> (Since, Vec<Nonce>) {
        match find(dir, CHAIN, KEY).unwrap() {
            Finding::Intact { since, drawn } => (since, drawn),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn unusable(dir: &Path) -> String {
        match find(dir, CHAIN, KEY).unwrap() {
            Finding::Unusable(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_new_number_is_drawn_and_on_disk_at_each_start_and_known_in_the_next() {
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(find(root.path(), CHAIN, KEY), Ok(Finding::Absent)));
        let (_, first) = begin(root.path(), Since::Lost("moved".to_owned()), Vec::new());
        let Start::Lost { nonce: first, tried, .. } = first else { panic!("{first:?}") };
        assert_eq!((tried, intact(root.path())), (vec![], (Since::Lost("moved".to_owned()), vec![first])));
        let (since, drawn) = intact(root.path());
        let (mut instance, second) = begin(root.path(), since, drawn);
        let Start::Lost { nonce: second, tried, .. } = second else { panic!("{second:?}") };
        assert!(first != second && tried == vec![first]);
        instance.signs(Some(second), [9; 32]).unwrap();
        assert_eq!(intact(root.path()), (Since::Resume(second), vec![[9; 32]]));
        let (since, drawn) = intact(root.path());
        let (_, third) = begin(root.path(), since, drawn);
        let Start::Whole { since, .. } = third else { panic!("{third:?}") };
        assert_eq!(since, [Some(second), Some([9; 32])]);
    }

    #[test]
    fn so_many_starts_without_a_resume_do_not_make_the_file_grow() {
        let root = tempfile::tempdir().unwrap();
        let mut drawn = Vec::new();
        for _ in 0..3 * DRAWN_MAX {
            begin(root.path(), Since::Never, drawn);
            drawn = intact(root.path()).1;
        }
        assert_eq!(drawn.len(), DRAWN_MAX);
    }

    #[test]
    fn a_copy_of_the_directory_or_of_the_file_names_what_differs() {
        let root = tempfile::tempdir().unwrap();
        let (original, copy) = (root.path().join("a"), root.path().join("b"));
        std::fs::create_dir(&original).unwrap();
        std::fs::create_dir(&copy).unwrap();
        begin(&original, Since::Registration, Vec::new());
        std::fs::copy(original.join(INSTANCE_FILE_NAME), copy.join(INSTANCE_FILE_NAME)).unwrap();
        let inode = |path: &Path| std::fs::metadata(path).unwrap().ino().to_string();
        let said = unusable(&copy);
        for part in ["inode of the directory", &inode(&original), &inode(&copy)] {
            assert!(said.contains(part), "{said}");
        }
        // Restored in place: the directory is the same, the file is another.
        let file = original.join(INSTANCE_FILE_NAME);
        std::fs::rename(&file, original.join("kept")).unwrap();
        std::fs::copy(original.join("kept"), &file).unwrap();
        assert!(unusable(&original).contains("inode of the file"));
        std::fs::rename(original.join("kept"), &file).unwrap();
        assert_eq!(intact(&original).0, Since::Registration);
    }

    #[test]
    fn an_inode_that_was_given_again_is_told_by_the_time_it_was_made_and_older_files_are_read() {
        let root = tempfile::tempdir().unwrap();
        begin(root.path(), Since::Registration, Vec::new());
        let path = root.path().join(INSTANCE_FILE_NAME);
        let text = std::fs::read_to_string(&path).unwrap();
        // As an archive unpacked in place leaves it: written in place here, so the inodes are the same.
        for (key, what) in
            [("directory_made", "time the directory was made"), ("file_made", "`instance` was made")]
        {
            let line = |line: &&str| line.starts_with(key);
            let Some(found) = text.lines().find(line) else {
                // The file system does not tell.
                assert!(made(&std::fs::metadata(&path).unwrap()).is_none());
                continue;
            };
            std::fs::write(&path, text.replace(found, &format!("{key} = \"1700000000.000000001\""))).unwrap();
            let said = unusable(root.path());
            assert!(said.contains(what) && said.contains("1700000000.000000001"), "{said}");
        }
        let older = text.lines().filter(|line| !line.contains("_made = "));
        std::fs::write(&path, older.map(|line| format!("{line}\n")).collect::<String>()).unwrap();
        assert_eq!(intact(root.path()).0, Since::Registration);
    }

    #[test]
    fn a_damaged_file_is_no_reason_to_sign_and_another_key_or_chain_is_refused() {
        let root = tempfile::tempdir().unwrap();
        for text in ["", "chain = 1", "\0\0\0"] {
            std::fs::write(root.path().join(INSTANCE_FILE_NAME), text).unwrap();
            assert!(unusable(root.path()).contains("instance` is damaged"));
        }
        begin(root.path(), Since::Never, Vec::new());
        let other = find(root.path(), CHAIN, PublicKey([3; 32])).unwrap_err().to_string();
        assert!(
            other.contains(&PublicKey([3; 32]).to_string()) && other.contains("right key back"),
            "{other}"
        );
        let other = find(root.path(), ChainId(Hash([3; 32])), KEY).unwrap_err().to_string();
        assert!(other.contains("genesis.toml"), "{other}");
    }
}
