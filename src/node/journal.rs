//! The vote log: every record the machine wants durable, synced before anything after it takes effect.
//!
//! Directory `journal/`, one segment a height, named by the height it was begun at. A segment is a
//! header (magic, chain, height, checksum) and frames; a frame is one group of records that shared one
//! `fdatasync`: marker, length, BLAKE3 over segment height, offset and payload, payload. Frame k+1 is
//! written only when frame k is on disk, so after a crash at most the last frame is incomplete: it is
//! cut off at open, and nothing that depended on it was sent. Incomplete means that bytes are missing:
//! the file ends in it, or a sector of it was never written and reads as zeros. Any other bad frame, and
//! one with a good frame after it, is damage and is refused with file, offset and remedy. After an
//! orderly stop nothing can be incomplete ([`Journal::open_closed`]).
//!
//! A failed write or sync poisons the journal until the next open: after a failed `fsync` the kernel
//! may have dropped the pages, so trying again would report a success that is none. But for a full
//! disk: the group is kept, what was written of it is cut off, and all of it is written again.
//!
//! Deliberately absent: compaction (segments below the durable store height are deleted whole) and any
//! reading while running.

use crate::consensus::output::Record;
use crate::durable::{WriteError, is_no_space, sync_folder};
use crate::primitives::encoding::{decode_stored, encode};
use crate::primitives::hash::{ChainId, Domain, Hash, hash};
use std::collections::VecDeque;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Most bytes of one group; a group is closed when it has reached this.
pub const GROUP_BYTES: usize = 16 << 20;
/// Most bytes of one segment. A height that does not end adds less than 10 MB an hour.
const SEGMENT_BYTES_MAX: u64 = 2 << 30;
const MAGIC: [u8; 8] = *b"TMNJRNL1";
const MARKER: [u8; 4] = [0xf5, b'g', b'r', 0x9e];
const HEADER_LEN: usize = 8 + 32 + 8 + 32;
const FRAME_LEN: usize = 4 + 4 + 32;
const EXTENSION: &str = "log";
/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;
/// Zeros at the end of a sector from which on it counts as not written whole: more than a signature or a
/// hash ends with, and a write that lacks less is refused as damage, which costs a start some eras.
const HOLE_BYTES: usize = 16;

/// Why the vote log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The system refused an operation: full disk, bad disk, permissions.
    #[error(
        "cannot {action} `{path}`: {source}; nothing more is signed, free or replace the disk and restart"
    )]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Bytes that were once synced are no longer what was written.
    #[error(
        "vote log `{path}` is damaged at byte {offset}: {reason}; a masternode sets it aside and goes on without it, \
         otherwise move the folder `{folder}` away",
        folder = path.parent().unwrap_or(path).display()
    )]
    Damaged { path: PathBuf, offset: u64, reason: String },
    /// The log belongs to another network.
    #[error(
        "vote log `{path}` is of chain {found}, this node is of {expected}: use the genesis.toml it was made with, \
         or another data directory"
    )]
    Foreign { path: PathBuf, found: ChainId, expected: ChainId },
    /// A name in the directory that no journal wrote.
    #[error("`{path}` does not belong into the vote log: move it away")]
    Stray { path: PathBuf },
    /// The height does not end and its log has reached the bound.
    #[error(
        "vote log `{path}` has reached {bytes} bytes in one height: nothing more is signed; see in `masternode status` \
         who keeps the others from deciding it, and start again when they have"
    )]
    Full { path: PathBuf, bytes: u64 },
    /// An earlier failure.
    #[error(
        "vote log `{path}` failed before and is closed: put right what the log of the node says of it, and start again"
    )]
    Poisoned { path: PathBuf },
}

impl JournalError {
    /// Whether it ends when there is space on the disk again; the same may be tried again then.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_no_space(source))
    }
}

impl From<WriteError> for JournalError {
    fn from(WriteError { action, path, source }: WriteError) -> Self {
        Self::Io { action, path, source }
    }
}

/// Where a log ends: height of its newest segment and bytes in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnd {
    /// Height of the newest segment.
    pub height: u64,
    /// Bytes in it.
    pub bytes: u64,
}

/// What a log held when it was opened.
#[derive(Debug, Default)]
pub struct Recovered {
    /// All records with the height of their log, in order.
    pub records: Vec<(u64, Record)>,
    /// The segment whose incomplete last group was cut off, and how many bytes went.
    pub repaired: Option<(PathBuf, u64)>,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    /// Greatest height of a record in it.
    last_height: u64,
}

/// The open log.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    chain: ChainId,
    /// Oldest first; the last one is being written.
    segments: VecDeque<Segment>,
    height: u64,
    file: File,
    length: u64,
    /// The frame being gathered, header included.
    group: Vec<u8>,
    group_height: u64,
    /// Bytes beyond `length` may be in the file, from a write that found no space.
    unfinished: bool,
    poisoned: bool,
}

impl Journal {
    /// Opens the log in `directory`, making it if absent (then its first segment is of `height`), and
    /// repairs an incomplete last group.
    ///
    /// # Errors
    /// [`JournalError`]; the node must not sign then.
    pub fn open(directory: &Path, chain: ChainId, height: u64) -> Result<(Self, Recovered), JournalError> {
        Self::open_as(directory, chain, height, true)
    }

    /// As [`Journal::open`], of a log that was closed in order: an incomplete group is damage.
    ///
    /// # Errors
    /// [`JournalError`]; the node must not sign then.
    pub fn open_closed(
        directory: &Path,
        chain: ChainId,
        height: u64,
    ) -> Result<(Self, Recovered), JournalError> {
        Self::open_as(directory, chain, height, false)
    }

    fn open_as(
        directory: &Path,
        chain: ChainId,
        height: u64,
        repairs: bool,
    ) -> Result<(Self, Recovered), JournalError> {
        make_directory(directory)?;
        let mut recovered = Recovered::default();
        let mut segments = VecDeque::new();
        let found = list(directory)?;
        let newest = found.last().map(|(height, _)| *height);
        for (segment_height, path) in found {
            let repairs = repairs && newest == Some(segment_height);
            let last_height = recover(&path, chain, segment_height, repairs, &mut recovered)?;
            segments.push_back(Segment { path, last_height });
        }
        let height = newest.unwrap_or(height);
        if segments.is_empty() {
            let path = create_segment(directory, chain, height)?;
            segments.push_back(Segment { path, last_height: height });
        }
        let path = segments.back().map(|segment| segment.path.clone()).unwrap_or_default();
        let file = OpenOptions::new().append(true).open(&path).map_err(|source| JournalError::Io {
            action: "open",
            path: path.clone(),
            source,
        })?;
        let length = file
            .metadata()
            .map_err(|source| JournalError::Io { action: "measure", path: path.clone(), source })?
            .len();
        let mut journal = Self {
            directory: directory.to_owned(),
            chain,
            segments,
            height,
            file,
            length,
            group: Vec::new(),
            group_height: 0,
            unfinished: false,
            poisoned: false,
        };
        journal.clear_group();
        Ok((journal, recovered))
    }

    /// Heights of the oldest and the newest segment in `directory`, by their names; `None` when there
    /// are none. Changes nothing.
    ///
    /// # Errors
    /// [`JournalError`] when the directory cannot be listed or holds something else.
    pub fn heights(directory: &Path) -> Result<Option<(u64, u64)>, JournalError> {
        if !directory.is_dir() {
            return Ok(None);
        }
        let found = list(directory)?;
        Ok(found.first().zip(found.last()).map(|(oldest, newest)| (oldest.0, newest.0)))
    }

    /// Where the log in `directory` ends, by its files; `None` when there is none. Changes nothing.
    ///
    /// # Errors
    /// [`JournalError`] when the directory cannot be listed or holds something else.
    pub fn found_end(directory: &Path) -> Result<Option<LogEnd>, JournalError> {
        if !directory.is_dir() {
            return Ok(None);
        }
        let Some((height, path)) = list(directory)?.pop() else { return Ok(None) };
        let io = |source| JournalError::Io { action: "measure", path: path.clone(), source };
        let bytes = std::fs::metadata(&path).map_err(io)?.len();
        Ok(Some(LogEnd { height, bytes }))
    }

    /// Where it ends, if everything staged is durable and nothing has failed.
    #[must_use]
    pub fn end(&self) -> Option<LogEnd> {
        let whole = !self.poisoned && !self.unfinished && self.staged_bytes() == 0;
        whole.then_some(LogEnd { height: self.height, bytes: self.length })
    }

    /// Height of the newest segment: this node may have signed in it.
    #[must_use]
    pub fn height(&self) -> u64 {
        self.height
    }

    /// Bytes in the newest segment.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        self.length
    }

    /// Bytes staged and not yet durable.
    #[must_use]
    pub fn staged_bytes(&self) -> usize {
        self.group.len().saturating_sub(FRAME_LEN)
    }

    /// Adds a record to the group. In memory only.
    pub fn stage(&mut self, height: u64, record: &Record) {
        let bytes = encode(&(height, record));
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.group.extend_from_slice(&length.to_le_bytes());
        self.group.extend_from_slice(&bytes);
        self.group_height = self.group_height.max(height);
    }

    /// Writes the group and syncs it; on return every staged record is durable. One `fdatasync`,
    /// 4 ms on the disks measured.
    ///
    /// # Errors
    /// [`JournalError`]: nothing staged may be relied on, and the journal is closed, unless
    /// [`JournalError::is_full`]: then it may be tried again.
    pub fn commit(&mut self) -> Result<(), JournalError> {
        if self.poisoned {
            return Err(JournalError::Poisoned { path: self.directory.clone() });
        }
        let result = self.write_group();
        self.poisoned = result.as_ref().is_err_and(|error| !error.is_full());
        result
    }

    fn write_group(&mut self) -> Result<(), JournalError> {
        if self.staged_bytes() == 0 {
            return Ok(());
        }
        let path = self.segments.back().map(|segment| segment.path.clone()).unwrap_or_default();
        if self.length > SEGMENT_BYTES_MAX {
            return Err(JournalError::Full { path, bytes: self.length });
        }
        let check = frame_check(self.height, self.length, self.group.get(FRAME_LEN..).unwrap_or_default());
        let length = u32::try_from(self.staged_bytes()).unwrap_or(u32::MAX);
        let head = [&MARKER[..], &length.to_le_bytes(), &check.0].concat();
        if let Some(place) = self.group.get_mut(..FRAME_LEN) {
            place.copy_from_slice(&head);
        }
        let io = |action| {
            let path = path.clone();
            move |source| JournalError::Io { action, path, source }
        };
        if self.unfinished {
            self.file.set_len(self.length).map_err(io("cut"))?;
        }
        self.unfinished = true;
        self.file.write_all(&self.group).map_err(io("write"))?;
        self.file.sync_data().map_err(io("sync"))?;
        self.unfinished = false;
        self.length += self.group.len() as u64;
        let height = self.group_height;
        if let Some(segment) = self.segments.back_mut() {
            segment.last_height = segment.last_height.max(height);
        }
        self.clear_group();
        Ok(())
    }

    /// Begins the segment of `height` (the group must be committed) and deletes segments with nothing
    /// above `durable_height`, the height up to which the store holds every block.
    ///
    /// # Errors
    /// [`JournalError`]; the journal is closed then, unless [`JournalError::is_full`].
    pub fn next_height(&mut self, height: u64, durable_height: u64) -> Result<(), JournalError> {
        if self.poisoned {
            return Err(JournalError::Poisoned { path: self.directory.clone() });
        }
        let result = self.roll(height, durable_height);
        self.poisoned = result.as_ref().is_err_and(|error| !error.is_full());
        result
    }

    fn roll(&mut self, height: u64, durable_height: u64) -> Result<(), JournalError> {
        if height > self.height {
            let path = create_segment(&self.directory, self.chain, height)?;
            self.file = OpenOptions::new().append(true).open(&path).map_err(|source| JournalError::Io {
                action: "open",
                path: path.clone(),
                source,
            })?;
            self.length = HEADER_LEN as u64;
            self.height = height;
            self.segments.push_back(Segment { path, last_height: height });
        }
        while self.segments.len() > 1 {
            let Some(oldest) = self.segments.pop_front_if(|segment| segment.last_height <= durable_height)
            else {
                break;
            };
            std::fs::remove_file(&oldest.path).map_err(|source| JournalError::Io {
                action: "delete",
                path: oldest.path,
                source,
            })?;
        }
        Ok(())
    }

    fn clear_group(&mut self) {
        // One candidate block may have made it large; what stays is the size of a busy tick.
        self.group.clear();
        self.group.shrink_to(1 << 20);
        self.group.resize(FRAME_LEN, 0);
        self.group_height = 0;
    }
}

/// Makes a directory readable by its owner alone, if absent, and its name durable.
fn make_directory(path: &Path) -> Result<(), JournalError> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().mode(0o700).create(path).map_err(|source| JournalError::Io {
        action: "create",
        path: path.to_owned(),
        source,
    })?;
    Ok(sync_folder(path.parent().unwrap_or(path))?)
}

/// The segments, oldest first.
fn list(directory: &Path) -> Result<Vec<(u64, PathBuf)>, JournalError> {
    let io = |source| JournalError::Io { action: "list", path: directory.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let height = path
            .file_stem()
            .filter(|_| path.extension().is_some_and(|extension| extension == EXTENSION))
            .and_then(|stem| stem.to_str()?.parse().ok());
        match height {
            Some(height) => found.push((height, path)),
            None => return Err(JournalError::Stray { path }),
        }
    }
    found.sort();
    Ok(found)
}

fn segment_header(chain: ChainId, height: u64) -> Vec<u8> {
    let check = hash(Domain::JOURNAL, &[&MAGIC, chain.bytes(), &height.to_le_bytes()]);
    [&MAGIC[..], chain.bytes(), &height.to_le_bytes(), &check.0].concat()
}

fn frame_check(height: u64, offset: u64, payload: &[u8]) -> Hash {
    hash(Domain::JOURNAL, &[&height.to_le_bytes(), &offset.to_le_bytes(), payload])
}

fn create_segment(directory: &Path, chain: ChainId, height: u64) -> Result<PathBuf, JournalError> {
    let path = directory.join(format!("{height:020}.{EXTENSION}"));
    write_header(&path, chain, height)?;
    sync_folder(directory)?;
    Ok(path)
}

/// A segment with nothing but its header, durable: a group that has to be written again is all that
/// must be written again.
fn write_header(path: &Path, chain: ChainId, height: u64) -> Result<(), JournalError> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| {
            file.write_all(&segment_header(chain, height))?;
            file.sync_data()
        })
        .map_err(|source| JournalError::Io { action: "write", path: path.to_owned(), source })
}

/// Reads one segment into `recovered`; returns the greatest height in it. With `repairs` an incomplete
/// end is cut off.
fn recover(
    path: &Path,
    chain: ChainId,
    height: u64,
    repairs: bool,
    recovered: &mut Recovered,
) -> Result<u64, JournalError> {
    let io = |action| move |source| JournalError::Io { action, path: path.to_owned(), source };
    let bytes = std::fs::read(path).map_err(io("read"))?;
    let damaged = |offset, reason: String| JournalError::Damaged {
        path: path.to_owned(),
        offset: offset as u64,
        reason,
    };
    if bytes.get(..HEADER_LEN) != Some(&segment_header(chain, height)[..]) {
        if let Some(found) = foreign_chain(&bytes, height) {
            return Err(JournalError::Foreign { path: path.to_owned(), found, expected: chain });
        }
        // The header is synced before the first group is written: what a crash cuts off has nothing after it.
        if !repairs || bytes.len() > HEADER_LEN {
            return Err(damaged(0, "the header is not what was written".to_owned()));
        }
        write_header(path, chain, height)?;
        recovered.repaired = Some((path.to_owned(), bytes.len() as u64));
        return Ok(height);
    }
    let mut offset = HEADER_LEN;
    let mut last_height = height;
    while offset < bytes.len() {
        let Some(payload) = frame_at(&bytes, height, offset) else {
            if let Err(reason) = may_be_cut(&bytes, height, offset, repairs) {
                return Err(damaged(offset, reason.to_owned()));
            }
            OpenOptions::new()
                .write(true)
                .open(path)
                .and_then(|file| file.set_len(offset as u64).and_then(|()| file.sync_all()))
                .map_err(io("repair"))?;
            recovered.repaired = Some((path.to_owned(), (bytes.len() - offset) as u64));
            break;
        };
        for record in records(payload) {
            let (height, record) = record.map_err(|reason| damaged(offset, reason))?;
            last_height = last_height.max(height);
            recovered.records.push((height, record));
        }
        offset += FRAME_LEN + payload.len();
    }
    Ok(last_height)
}

/// The chain of a well-formed header that is not of this chain.
fn foreign_chain(bytes: &[u8], height: u64) -> Option<ChainId> {
    let chain = ChainId(Hash(*bytes.get(8..)?.first_chunk()?));
    (bytes.get(..HEADER_LEN)? == segment_header(chain, height)).then_some(chain)
}

/// The payload of the good frame at `offset`.
fn frame_at(bytes: &[u8], height: u64, offset: usize) -> Option<&[u8]> {
    let rest = bytes.get(offset..)?.strip_prefix(&MARKER)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (check, rest) = rest.split_first_chunk::<32>()?;
    let payload = rest.get(..u32::from_le_bytes(*length) as usize)?;
    (frame_check(height, offset as u64, payload).0 == *check).then_some(payload)
}

/// Whether the bad frame at `offset` is what a crash leaves of the last group, or why it is not.
fn may_be_cut(bytes: &[u8], height: u64, offset: usize, repairs: bool) -> Result<(), &'static str> {
    if !repairs {
        return Err("a group fails its checksum, although the node was stopped in order");
    }
    if next_frame(bytes, height, offset).is_some() {
        return Err("a group fails its checksum and is not the last one");
    }
    let rest = bytes.get(offset..).unwrap_or_default();
    let Some((head, payload)) = rest.split_at_checked(FRAME_LEN) else { return Ok(()) };
    let length = head.get(4..8).and_then(|length| length.try_into().ok()).map_or(0, u32::from_le_bytes);
    let ends_early = head.starts_with(&MARKER) && length as usize > payload.len();
    // With another length in its head the same bytes would be the whole group.
    let is_whole = head.get(8..) == Some(&frame_check(height, offset as u64, payload).0[..]);
    if !is_whole && (ends_early || has_hole(rest, offset)) {
        return Ok(());
    }
    Err("the last group fails its checksum, and nothing of it is missing")
}

/// Whether part of a sector of `frame`, which lies at `offset` of the file, reads as never written.
fn has_hole(frame: &[u8], offset: usize) -> bool {
    let (mut from, mut rest) = (offset, frame);
    while !rest.is_empty() {
        let (sector, after) = rest.split_at(rest.len().min(SECTOR_BYTES - from % SECTOR_BYTES));
        if sector.iter().rev().take_while(|byte| **byte == 0).count() >= HOLE_BYTES.min(sector.len()) {
            return true;
        }
        from += sector.len();
        rest = after;
    }
    false
}

/// Offset of the first good frame after `offset`.
fn next_frame(bytes: &[u8], height: u64, offset: usize) -> Option<usize> {
    (offset + 1..bytes.len().saturating_sub(FRAME_LEN)).find(|at| frame_at(bytes, height, *at).is_some())
}

/// The records of a payload.
fn records(mut payload: &[u8]) -> impl Iterator<Item = Result<(u64, Record), String>> + '_ {
    std::iter::from_fn(move || {
        if payload.is_empty() {
            return None;
        }
        let split = payload
            .split_first_chunk::<4>()
            .and_then(|(length, rest)| rest.split_at_checked(u32::from_le_bytes(*length) as usize));
        let Some((record, rest)) = split else {
            payload = &[];
            return Some(Err("a record is longer than its group".to_owned()));
        };
        payload = rest;
        Some(decode_stored(record).map_err(|error| error.to_string()))
    })
}

#[cfg(test)]
mod tests;
