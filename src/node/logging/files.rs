//! Log files: a new one each day and whenever one grows large, the oldest deleted beyond a total.
//!
//! The directory never holds much more than its limit, and what stays is always the newest. Only files
//! named as ours are counted or deleted.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tracing_appender::rolling::{RollingFileAppender, Rotation};

/// Log files are named `masternode.YYYY-MM-DD.log`, filled ones `masternode.YYYY-MM-DD.N.log`.
pub const FILE_PREFIX: &str = "masternode";
/// Their extension.
pub const FILE_SUFFIX: &str = "log";

/// A file is closed at this share of the total, so that deleting one leaves most of the history.
const FILES_IN_TOTAL: u64 = 8;

/// Most filled files of one day; beyond it the newest goes on growing.
const SEGMENTS_MAX: u32 = 10_000;

/// A writer to the newest file.
#[derive(Debug)]
pub struct CappedFiles {
    directory: PathBuf,
    newest: RollingFileAppender,
    total_bytes_max: u64,
    /// Bytes written since the directory was last looked at.
    unchecked_bytes: u64,
}

impl CappedFiles {
    /// Opens or makes today's file in `directory`, which is made when missing.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(directory: &Path, total_bytes_max: u64) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let newest = appender(directory)?;
        let mut files = Self { directory: directory.to_owned(), newest, total_bytes_max, unchecked_bytes: 0 };
        files.enforce()?;
        Ok(files)
    }

    fn file_bytes_max(&self) -> u64 {
        (self.total_bytes_max / FILES_IN_TOTAL).max(1)
    }

    /// Closes a file that is large enough, then deletes the oldest until the rest fits.
    fn enforce(&mut self) -> io::Result<()> {
        self.unchecked_bytes = 0;
        let mut files = log_files(&self.directory)?;
        if let Some((_, size, newest)) = files.last()
            && *size >= self.file_bytes_max()
            && let Some(filled) = free_name(newest)
        {
            std::fs::rename(newest, filled)?;
            self.newest = appender(&self.directory)?;
            files = log_files(&self.directory)?;
        }
        let mut total: u64 = files.iter().map(|(_, size, _)| size).sum();
        let rotated = files.len().saturating_sub(1);
        for (_, size, file) in files.iter().take(rotated) {
            if total <= self.total_bytes_max {
                break;
            }
            std::fs::remove_file(file)?;
            total = total.saturating_sub(*size);
        }
        Ok(())
    }
}

impl Write for CappedFiles {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.newest.write(bytes)?;
        self.unchecked_bytes += u64::try_from(written).unwrap_or(u64::MAX);
        if self.unchecked_bytes >= self.file_bytes_max() / 4 {
            self.enforce()?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.newest.flush()
    }
}

fn appender(directory: &Path) -> io::Result<RollingFileAppender> {
    RollingFileAppender::builder()
        .rotation(Rotation::DAILY)
        .filename_prefix(FILE_PREFIX)
        .filename_suffix(FILE_SUFFIX)
        .build(directory)
        .map_err(io::Error::other)
}

/// Our files, oldest first: day, then segments in order, then the file being written.
fn log_files(directory: &Path) -> io::Result<Vec<(SortKey, u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let Some(key) = sort_key(&path) else { continue };
        let Ok(metadata) = path.symlink_metadata() else { continue };
        if metadata.is_file() {
            files.push((key, metadata.len(), path));
        }
    }
    files.sort();
    Ok(files)
}

/// Day, then number of the segment; the file being written has none and comes last.
type SortKey = (String, u32);

fn sort_key(path: &Path) -> Option<SortKey> {
    let name = path.file_name()?.to_str()?;
    let middle = name.strip_prefix(FILE_PREFIX)?.strip_prefix('.')?.strip_suffix(FILE_SUFFIX)?;
    let middle = middle.strip_suffix('.')?;
    let (day, segment) = match middle.split_once('.') {
        Some((day, segment)) => (day, segment.parse().ok()?),
        None => (middle, u32::MAX),
    };
    let is_day = day.len() == 10 && day.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    is_day.then(|| (day.to_owned(), segment))
}

/// The next name for a filled file beside `current`, after all its like.
fn free_name(current: &Path) -> Option<PathBuf> {
    let (day, _) = sort_key(current)?;
    let directory = current.parent()?;
    let last = log_files(directory)
        .ok()?
        .into_iter()
        .filter(|((other, segment), _, _)| *other == day && *segment != u32::MAX)
        .map(|((_, segment), _, _)| segment)
        .max();
    let next = last.map_or(1, |last| last.saturating_add(1));
    (next <= SEGMENTS_MAX).then(|| directory.join(format!("{FILE_PREFIX}.{day}.{next}.{FILE_SUFFIX}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(directory: &Path) -> u64 {
        log_files(directory).unwrap().iter().map(|(_, size, _)| size).sum()
    }

    #[test]
    fn the_total_stays_near_its_limit_and_the_newest_lines_stay() {
        let directory = tempfile::tempdir().unwrap();
        let limit = 64 << 10;
        let stranger = directory.path().join("masternode.txt");
        std::fs::write(&stranger, vec![b'x'; 200 << 10]).unwrap();
        let mut files = CappedFiles::open(directory.path(), limit).unwrap();
        for number in 0..20_000 {
            files.write_all(format!("line {number:05}\n").as_bytes()).unwrap();
            if number % 500 == 0 {
                assert!(total(directory.path()) <= limit + limit / 16, "after {number} lines");
            }
        }
        assert!(total(directory.path()) > limit / 2, "history is kept up to the limit");
        let text: String = log_files(directory.path())
            .unwrap()
            .iter()
            .map(|(_, _, file)| std::fs::read_to_string(file).unwrap())
            .collect();
        let lines: Vec<&str> = text.lines().collect();
        let first = 20_000 - lines.len();
        let expected: Vec<String> = (first..20_000).map(|number| format!("line {number:05}")).collect();
        assert_eq!(lines, expected, "a gap-free tail in order");
        assert!(stranger.exists());
    }

    #[test]
    fn opening_deletes_the_oldest_days_first() {
        let directory = tempfile::tempdir().unwrap();
        for day in ["2001-01-01", "2001-01-02", "2001-01-03"] {
            std::fs::write(directory.path().join(format!("masternode.{day}.log")), vec![b'x'; 400]).unwrap();
        }
        let _files = CappedFiles::open(directory.path(), 1000).unwrap();
        assert!(!directory.path().join("masternode.2001-01-01.log").exists());
        assert!(directory.path().join("masternode.2001-01-02.log").exists());
    }
}
