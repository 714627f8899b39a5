//! A log file in blocks: each can be read without those before it, as a line belongs to the block it begins in.

use crate::tools::logs::files::{LINE_BYTES_MAX, Opened};
use crate::tools::logs::line::{Head, head};

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 64 << 10;
/// Bytes looked at before a block for what its first lines go on from.
const CARRIED_BYTES: usize = 16 << 10;

/// Where a line begins. Later lines are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Number of the file.
    pub file: usize,
    /// Bytes from its beginning.
    pub offset: u64,
}

/// A line that passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Where it is.
    pub place: Place,
    /// Its time and level, or those of the line it goes on from.
    pub head: Head,
    /// Its bytes, without the end.
    pub bytes: Vec<u8>,
}

/// Blocks in so many bytes.
#[must_use]
pub fn blocks_of(length: u64) -> usize {
    usize::try_from(length.div_ceil(BLOCK_BYTES as u64)).unwrap_or(usize::MAX)
}

/// The lines that begin in a block of the first `length` bytes; none when they cannot be read, as of a file
/// that was cut meanwhile.
pub fn block_lines(opened: &Opened, block: usize, length: u64, now_ms: u64) -> Vec<Line> {
    let start = (block * BLOCK_BYTES) as u64;
    // With the byte before, which tells whether a line begins right here.
    let from = start.saturating_sub(1);
    let end = length.min(start + BLOCK_BYTES as u64);
    let Ok(wanted) = usize::try_from(end.saturating_sub(from)) else { return Vec::new() };
    let mut bytes = opened.read_at(from, wanted).unwrap_or_default();
    if bytes.last() != Some(&b'\n') && end < length {
        let rest = usize::try_from(length - end).unwrap_or(usize::MAX).min(LINE_BYTES_MAX);
        let rest = opened.read_at(end, rest).unwrap_or_default();
        let line_end = memchr::memchr(b'\n', &rest).map_or(rest.len(), |at| at + 1);
        bytes.extend_from_slice(rest.get(..line_end).unwrap_or_default());
    }
    let mut at = match (block, memchr::memchr(b'\n', &bytes)) {
        (0, _) => 0,
        (_, Some(first)) => first + 1,
        (_, None) => return Vec::new(),
    };
    let mut lines = Vec::with_capacity(bytes.len() / 128);
    let mut before = None;
    while at < bytes.len() && from + (at as u64) < end {
        let rest = bytes.get(at..).unwrap_or_default();
        let taken = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        let line = rest.get(..taken.min(LINE_BYTES_MAX)).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let own = head(line, now_ms);
        let needs_carried = before.is_none() && own == Head::default();
        let last = if needs_carried { carried(opened, start, now_ms) } else { before.unwrap_or_default() };
        let head = own.or(last);
        before = Some(head);
        let place = Place { file: 0, offset: from + at as u64 };
        lines.push(Line { place, head, bytes: line.to_vec() });
        at += taken + 1;
    }
    lines
}

/// The head of the last line with one before a place.
fn carried(opened: &Opened, start: u64, now_ms: u64) -> Head {
    let from = start.saturating_sub(CARRIED_BYTES as u64);
    let length = usize::try_from(start - from).unwrap_or(0);
    let bytes = opened.read_at(from, length).unwrap_or_default();
    let heads = bytes.split(|byte| *byte == b'\n').rev().map(|line| head(line, now_ms));
    heads.into_iter().find(|head| head.time_ms.is_some()).unwrap_or_default()
}
