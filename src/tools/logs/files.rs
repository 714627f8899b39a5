//! The files of a log: which there are, in which order, and their bytes, unpacked where they are packed.

use crate::primitives::clean::CleanText;
use crate::tools::ToolError;
use crate::tools::logs::line::head;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Most files read as one log.
const FILES_MAX: usize = 4096;
/// Bytes a packed file may unpack to: what is more is more likely a trap than a log.
pub const UNPACKED_BYTES_MAX: u64 = 8 << 30;
/// Lines at the beginning of a file among which its first time is looked for.
const FIRST_LINES: usize = 64;
/// Bytes of a line that are looked at; what is longer is cut.
pub const LINE_BYTES_MAX: usize = 256 << 10;

/// How the bytes of a file are packed, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    Plain,
    Gzip,
    Zstd,
}

fn packing(file: &File) -> io::Result<Packing> {
    let mut magic = [0; 4];
    let length = file.read_at(&mut magic, 0)?;
    Ok(match magic.get(..length).unwrap_or_default() {
        [0x1f, 0x8b, ..] => Packing::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd] => Packing::Zstd,
        _ => Packing::Plain,
    })
}

/// Whether a file has to be unpacked, and so does not grow.
///
/// # Errors
/// What the system says.
pub fn is_packed(path: &Path) -> io::Result<bool> {
    Ok(packing(&File::open(path)?)? != Packing::Plain)
}

/// A failure with the file it is about.
pub fn fault(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ToolError {
    let path = path.to_owned();
    move |source| ToolError::Io { action, path, source }
}

/// A file of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it is.
    pub path: PathBuf,
    /// The first time in it, 0 without one.
    pub first_ms: u64,
}

/// The files that paths name: of a folder those that are logs by name.
///
/// # Errors
/// [`ToolError::Io`] for what cannot be read, [`ToolError::Failed`] for too many.
pub fn named(paths: &[PathBuf]) -> Result<Vec<PathBuf>, ToolError> {
    let mut found = Vec::new();
    for path in paths {
        let metadata = std::fs::metadata(path).map_err(fault("read", path))?;
        if !metadata.is_dir() {
            found.push(path.clone());
            continue;
        }
        for entry in std::fs::read_dir(path).map_err(fault("list", path))? {
            let file = entry.map_err(fault("list", path))?.path();
            if is_log(&file) && file.is_file() {
                found.push(file);
            }
        }
    }
    if found.len() > FILES_MAX {
        return Err(ToolError::Failed(format!("more than {FILES_MAX} log files: name fewer")));
    }
    Ok(found)
}

/// The files that paths name, in the order of the times in them: of a folder those that are logs by name.
///
/// # Errors
/// [`ToolError::Io`] for what cannot be opened, [`ToolError::Failed`] when there is nothing, or too much.
pub fn find(paths: &[PathBuf], now_ms: u64) -> Result<Vec<Found>, ToolError> {
    let found = named(paths)?;
    if found.is_empty() {
        let names: Vec<String> =
            paths.iter().map(|path| CleanText::new(&path.display().to_string()).to_string()).collect();
        let places = names.join(", ");
        return Err(ToolError::Failed(format!("no log files in {places}: name a file or another folder")));
    }
    let mut ordered = Vec::new();
    for path in found {
        let first_ms = first_time(&path, now_ms)?;
        ordered.push((first_ms.unwrap_or(0), path));
    }
    ordered.sort();
    ordered.dedup();
    Ok(ordered.into_iter().map(|(first_ms, path)| Found { path, first_ms }).collect())
}

/// Whether a file is a log by its name: `x.log`, `x.log.3`, `x.jsonl`, packed or not.
#[must_use]
pub fn is_log(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
    let name = [".gz", ".zst"].into_iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    let number = name.rsplit_once('.').filter(|(_, last)| last.bytes().all(|byte| byte.is_ascii_digit()));
    let name = number.map_or(name, |(name, _)| name);
    [".log", ".jsonl", ".json"].into_iter().any(|end| name.len() > end.len() && name.ends_with(end))
}

/// The first time in a file.
fn first_time(path: &Path, now_ms: u64) -> Result<Option<u64>, ToolError> {
    let mut reader = reader(path)?;
    let mut line = Vec::new();
    for _ in 0..FIRST_LINES {
        if !read_line(&mut reader, &mut line).map_err(fault("read", path))? {
            break;
        }
        if let Some(ms) = head(&line, now_ms).time_ms {
            return Ok(Some(ms));
        }
    }
    Ok(None)
}

/// The bytes of a file one after the other, unpacked.
///
/// # Errors
/// [`ToolError::Io`].
pub fn reader(path: &Path) -> Result<BufReader<Box<dyn Read + Send>>, ToolError> {
    let file = File::open(path).map_err(fault("open", path))?;
    let unpacking: Box<dyn Read + Send> = match packing(&file).map_err(fault("read", path))? {
        Packing::Plain => Box::new(file),
        Packing::Gzip => {
            Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(file)).take(UNPACKED_BYTES_MAX))
        }
        Packing::Zstd => {
            let decoder = zstd::stream::read::Decoder::new(file).map_err(fault("unpack", path))?;
            Box::new(decoder.take(UNPACKED_BYTES_MAX))
        }
    };
    Ok(BufReader::with_capacity(256 << 10, unpacking))
}

/// The next line without its end; false at the end of the file. Of a longer line than [`LINE_BYTES_MAX`] the
/// rest is dropped.
pub fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let mut any = false;
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            return Ok(any);
        }
        any = true;
        let (length, ended) = match memchr::memchr(b'\n', bytes) {
            Some(at) => (at + 1, true),
            None => (bytes.len(), false),
        };
        let room = LINE_BYTES_MAX.saturating_sub(line.len());
        let text = bytes.get(..length - usize::from(ended)).unwrap_or_default();
        line.extend_from_slice(text.get(..room.min(text.len())).unwrap_or_default());
        reader.consume(length);
        if ended {
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            return Ok(true);
        }
    }
}

/// A file whose bytes can be read anywhere: a packed one is unpacked into a file without a name.
#[derive(Debug)]
pub struct Opened {
    /// Where it was.
    pub path: PathBuf,
    file: File,
    /// Device and inode, to see that the name means another file now; `None` for an unpacked one, which does
    /// not grow.
    identity: Option<(u64, u64)>,
}

impl Opened {
    /// Opens a file; unpacking takes as long as it takes.
    ///
    /// # Errors
    /// [`ToolError`].
    pub fn open(path: &Path) -> Result<Self, ToolError> {
        let file = File::open(path).map_err(fault("open", path))?;
        if packing(&file).map_err(fault("read", path))? == Packing::Plain {
            let metadata = file.metadata().map_err(fault("read", path))?;
            let identity = Some((metadata.dev(), metadata.ino()));
            return Ok(Self { path: path.to_owned(), file, identity });
        }
        let mut unpacked = tempfile::tempfile().map_err(fault("make room to unpack", path))?;
        let written = io::copy(&mut reader(path)?, &mut unpacked).map_err(fault("unpack", path))?;
        unpacked.flush().map_err(fault("unpack", path))?;
        if written >= UNPACKED_BYTES_MAX {
            let name = CleanText::new(&path.display().to_string());
            let reason =
                format!("{name}: unpacks to more than {} GiB: unpack it by hand", UNPACKED_BYTES_MAX >> 30);
            return Err(ToolError::Failed(reason));
        }
        Ok(Self { path: path.to_owned(), file: unpacked, identity: None })
    }

    /// Bytes in it now.
    ///
    /// # Errors
    /// What the system says.
    pub fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Bytes from a place on, at most so many.
    ///
    /// # Errors
    /// What the system says.
    pub fn read_at(&self, from: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; bytes_max];
        let mut length = 0;
        while let Some(rest) = bytes.get_mut(length..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, from + length as u64) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(length);
        Ok(bytes)
    }

    /// Whether its name means another file by now: the log was rotated.
    #[must_use]
    pub fn was_replaced(&self) -> bool {
        let now = std::fs::metadata(&self.path).map(|metadata| (metadata.dev(), metadata.ino()));
        self.identity.is_some_and(|identity| now.is_ok_and(|now| now != identity))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &Path) -> Vec<String> {
        let mut reader = reader(path).unwrap();
        let (mut line, mut lines) = (Vec::new(), Vec::new());
        while read_line(&mut reader, &mut line).unwrap() {
            lines.push(String::from_utf8_lossy(&line).into_owned());
        }
        lines
    }

    fn gzipped(text: &str) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(text.as_bytes()).unwrap();
        packer.finish().unwrap()
    }

    #[test]
    fn files_of_a_folder_come_in_the_order_of_their_times_packed_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
        write("b.log", b"no time\n2026-11-23T03:00:00Z INFO third\n");
        write("a.log.2.gz", &gzipped("2026-11-23T01:00:00Z INFO first\n"));
        write(
            "z.log.1.zst",
            &zstd::stream::encode_all(&b"2026-11-23T02:00:00Z INFO second\n"[..], 1).unwrap(),
        );
        write("notes.txt", b"2026-11-23T00:00:00Z INFO not a log\n");
        std::fs::create_dir(folder.path().join("sub.log")).unwrap();
        let found = find(&[folder.path().to_owned()], 0).unwrap();
        let found: Vec<PathBuf> = found.into_iter().map(|found| found.path).collect();
        let names: Vec<_> = found.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a.log.2.gz", "z.log.1.zst", "b.log"]);
        assert_eq!(lines(&found[1]), ["2026-11-23T02:00:00Z INFO second"]);
        for path in &found {
            let opened = Opened::open(path).unwrap();
            let length = usize::try_from(opened.length().unwrap()).unwrap();
            let bytes = opened.read_at(0, length + 9).unwrap();
            assert_eq!(String::from_utf8(bytes).unwrap().lines().collect::<Vec<_>>(), lines(path));
        }
        let error = find(&[folder.path().join("sub.log")], 0).unwrap_err();
        assert!(error.to_string().contains("no log files in"), "{error}");
        let error = find(&[folder.path().join("missing")], 0).unwrap_err().to_string();
        assert!(error.contains("missing") && error.contains("cannot read"), "{error}");
    }

    #[test]
    fn packed_files_of_several_parts_are_read_whole_and_broken_ones_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log.gz");
        std::fs::write(&path, [gzipped("one\n"), gzipped("two\n")].concat()).unwrap();
        assert_eq!(lines(&path), ["one", "two"]);
        let mut cut = gzipped(&"a line\n".repeat(1000));
        cut.truncate(cut.len() / 2);
        std::fs::write(&path, cut).unwrap();
        assert!(Opened::open(&path).unwrap_err().to_string().contains("x.log.gz: cannot unpack"));
    }

    #[test]
    fn lines_end_at_any_line_end_and_are_bounded() {
        let mut input = BufReader::with_capacity(7, &b"one\r\ntwo\n\nthe last"[..]);
        let (mut line, mut found) = (Vec::new(), Vec::new());
        while read_line(&mut input, &mut line).unwrap() {
            found.push(String::from_utf8(line.clone()).unwrap());
        }
        assert_eq!(found, ["one", "two", "", "the last"]);
        let long = [vec![b'x'; LINE_BYTES_MAX + 5], b"\nnext".to_vec()].concat();
        let mut input = BufReader::new(&long[..]);
        assert!(read_line(&mut input, &mut line).unwrap() && line.len() == LINE_BYTES_MAX);
        assert!(read_line(&mut input, &mut line).unwrap() && line == b"next");
    }

    #[test]
    fn a_file_that_was_moved_away_is_noticed_when_another_has_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        std::fs::write(&path, "old").unwrap();
        let opened = Opened::open(&path).unwrap();
        assert!(!opened.was_replaced());
        std::fs::rename(&path, folder.path().join("x.log.1")).unwrap();
        assert!(!opened.was_replaced(), "nothing has its name yet");
        std::fs::write(&path, "new").unwrap();
        assert!(opened.was_replaced());
        assert_eq!(opened.read_at(0, 9).unwrap(), b"old");
    }

    #[test]
    fn logs_are_known_by_name() {
        for (name, expected) in [
            ("masternode.2026-11-23.log", true),
            ("masternode.2026-11-23.4.log", true),
            ("x.log.17.gz", true),
            ("x.jsonl.zst", true),
            (".log", false),
            ("log", false),
            ("x.log.old", false),
            ("x.gz", false),
        ] {
            assert_eq!(is_log(Path::new(name)), expected, "{name}");
        }
    }
}
