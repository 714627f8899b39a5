//! Logs printed for pipes: what passes a filter, of several files in the order of their times, and what is
//! added afterwards.

use crate::primitives::clean::CleanText;
use crate::telemetry::log::LogRecord;
use crate::tools::ToolError;
use crate::tools::logs::files::{Found, LINE_BYTES_MAX, fault, find, is_packed, named, read_line, reader};
use crate::tools::logs::filter::Filter;
use crate::tools::logs::line::{Head, head, record};
use crate::tools::logs::time::rfc3339;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// How often growing files are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// Growing files that are watched, the newest.
const WATCHED_MAX: usize = 256;
/// What a file may hold of before it was last written, because clocks differ.
const CLOCKS_MS: u64 = 60_000;

/// How lines are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As they are.
    Raw,
    /// Made safe for a terminal.
    Clean,
    /// One JSON object a record.
    Json,
}

/// What is printed and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// What passes.
    pub filter: Filter,
    /// How it is printed.
    pub form: Form,
    /// Whether to go on with what is added, until told to stop.
    pub follow: bool,
    /// Milliseconds since 1970.
    pub now_ms: u64,
}

/// Prints what passes, until the end or, following, until `is_over`. That nobody reads any more is an end, not
/// an error.
///
/// # Errors
/// [`ToolError`], naming the file.
pub fn print(
    paths: &[PathBuf],
    options: &Options,
    out: &mut dyn Write,
    is_over: &dyn Fn() -> bool,
) -> Result<(), ToolError> {
    let mut printer = Printer { options, out, gone: false };
    let mut watch = Watch::default();
    let found = find(paths, options.now_ms)?;
    if options.follow {
        // Before they are read: what is added meanwhile is read with the rest.
        watch.look(paths)?;
    }
    let mut merge =
        Merge::new(found.into_iter().filter(|file| is_of_interest(&file.path, options)).collect());
    while !printer.gone && !is_over() {
        let Some((line, head)) = merge.next(options.now_ms, &mut watch)? else { break };
        printer.offer(&line, head)?;
    }
    printer.flush()?;
    while options.follow && !printer.gone && !is_over() {
        watch.drain(&mut printer)?;
        printer.flush()?;
        std::thread::sleep(LOOK);
        watch.look(paths)?;
    }
    Ok(())
}

/// Whether a file was written since the earliest time wanted.
fn is_of_interest(path: &Path, options: &Options) -> bool {
    let Some(since_ms) = options.filter.since_ms() else { return true };
    let written = std::fs::metadata(path).and_then(|metadata| metadata.modified());
    let Ok(age) = written.map(|time| time.duration_since(UNIX_EPOCH).unwrap_or_default()) else {
        return true;
    };
    u64::try_from(age.as_millis()).unwrap_or(u64::MAX).saturating_add(CLOCKS_MS) >= since_ms
}

struct Printer<'a> {
    options: &'a Options,
    out: &'a mut dyn Write,
    /// Whether nobody reads any more.
    gone: bool,
}

impl Printer<'_> {
    fn offer(&mut self, line: &[u8], head: Head) -> Result<(), ToolError> {
        let now_ms = self.options.now_ms;
        if !self.options.filter.passes(line, head, now_ms) {
            return Ok(());
        }
        let written = match self.options.form {
            Form::Raw => self.out.write_all(line).and_then(|()| self.out.write_all(b"\n")),
            Form::Clean => {
                writeln!(self.out, "{}", CleanText::limited(&String::from_utf8_lossy(line), LINE_BYTES_MAX))
            }
            Form::Json => writeln!(self.out, "{}", as_json(&record(line, head, now_ms))),
        };
        self.judge(written)
    }

    fn flush(&mut self) -> Result<(), ToolError> {
        let flushed = self.out.flush();
        self.judge(flushed)
    }

    fn judge(&mut self, result: io::Result<()>) -> Result<(), ToolError> {
        match result {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.gone = true,
            Err(error) => return Err(ToolError::Failed(format!("the output cannot be written: {error}"))),
            Ok(()) => {}
        }
        Ok(())
    }
}

/// A record as `logs --json` prints it; stable.
fn as_json(record: &LogRecord) -> Value {
    let fields: Map<String, Value> =
        record.fields.iter().map(|(name, value)| (name.to_string(), Value::from(value.as_str()))).collect();
    json!({
        "time": rfc3339(record.time_ms),
        "time_ms": record.time_ms,
        "level": record.level.name(),
        "target": record.target.as_str(),
        "message": record.message.as_str(),
        "fields": fields,
    })
}

/// A file being read, at a line.
struct Source {
    path: PathBuf,
    reader: BufReader<Box<dyn Read + Send>>,
    line: Vec<u8>,
    head: Head,
}

impl Source {
    /// Reads the next line; false at the end.
    fn advance(&mut self, now_ms: u64) -> Result<bool, ToolError> {
        let path = &self.path;
        if !read_line(&mut self.reader, &mut self.line).map_err(fault("read", path))? {
            return Ok(false);
        }
        self.head = head(&self.line, now_ms).or(self.head);
        Ok(true)
    }

    fn time_ms(&self) -> u64 {
        self.head.time_ms.unwrap_or(0)
    }
}

/// Lines of several files in the order of their times; those of one file stay in theirs. A file is opened when
/// its first time has come.
struct Merge {
    /// The next one last.
    waiting: Vec<Found>,
    open: Vec<Source>,
}

impl Merge {
    fn new(mut waiting: Vec<Found>) -> Self {
        waiting.reverse();
        Self { waiting, open: Vec::new() }
    }

    fn next(&mut self, now_ms: u64, watch: &mut Watch) -> Result<Option<(Vec<u8>, Head)>, ToolError> {
        loop {
            let earliest = self.open.iter().map(Source::time_ms).min();
            let due = |next: &Found| earliest.is_none_or(|earliest| next.first_ms <= earliest);
            let Some(next) = self.waiting.pop_if(|next| due(next)) else { break };
            let reader = watch.reader_of(&next.path)?;
            let mut source = Source { path: next.path, reader, line: Vec::new(), head: Head::default() };
            if source.advance(now_ms)? {
                self.open.push(source);
            }
        }
        let first = (0..self.open.len()).min_by_key(|at| self.open.get(*at).map(Source::time_ms));
        let Some(source) = first.and_then(|at| self.open.get_mut(at)) else { return Ok(None) };
        let taken = (source.line.clone(), source.head);
        if !source.advance(now_ms)?
            && let Some(at) = first
        {
            // The others keep their order, which decides between equal times.
            self.open.remove(at);
        }
        Ok(Some(taken))
    }
}

/// A file that may grow.
struct Watched {
    file: File,
    /// Up to where its lines were printed.
    at: u64,
    /// Of the last line.
    head: Head,
}

/// Where the last whole line ends: the rest is printed when it has become one.
fn whole_up_to(file: &File, length: u64) -> u64 {
    let from = length.saturating_sub(LINE_BYTES_MAX as u64);
    let mut tail = vec![0; LINE_BYTES_MAX];
    let read = file.read_at(&mut tail, from).unwrap_or(0);
    match memchr::memrchr(b'\n', tail.get(..read).unwrap_or_default()) {
        Some(last) => from + last as u64 + 1,
        None if from == 0 => 0,
        None => length,
    }
}

/// Files that may grow, by device and inode, so that a rotated one is known again.
#[derive(Default)]
struct Watch {
    files: HashMap<(u64, u64), Watched>,
    /// Whether those that appear now are new, and so are printed from their beginning.
    began: bool,
}

impl Watch {
    /// Takes in files that are new.
    fn look(&mut self, paths: &[PathBuf]) -> Result<(), ToolError> {
        let mut there = Vec::new();
        // A name may be gone for a moment while a log is rotated.
        for path in paths.iter().filter_map(|path| named(std::slice::from_ref(path)).ok()).flatten() {
            let Ok(metadata) = std::fs::metadata(&path) else { continue };
            there.push((metadata.mtime(), (metadata.dev(), metadata.ino()), metadata.len(), path));
        }
        there.sort_by(|one, other| other.cmp(one));
        there.truncate(WATCHED_MAX);
        for (_, identity, length, path) in &there {
            if self.files.contains_key(identity) || is_packed(path).unwrap_or(true) {
                continue;
            }
            let Ok(file) = File::open(path) else { continue };
            let at = if self.began { 0 } else { whole_up_to(&file, *length) };
            self.files.insert(*identity, Watched { file, at, head: Head::default() });
        }
        self.began = true;
        let listed = |identity: &(u64, u64)| there.iter().any(|(_, one, ..)| one == identity);
        // What has no name any more is read to its end first.
        self.files.retain(|identity, watched| {
            listed(identity) || watched.file.metadata().is_ok_and(|metadata| metadata.len() > watched.at)
        });
        Ok(())
    }

    /// A reader of what was there when the file was looked at; all of it when it is not watched.
    fn reader_of(&self, path: &Path) -> Result<BufReader<Box<dyn Read + Send>>, ToolError> {
        let identity = std::fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()));
        let watched = identity.ok().and_then(|identity| self.files.get(&identity));
        match watched.and_then(|watched| Some((watched.file.try_clone().ok()?, watched.at))) {
            Some((file, at)) => Ok(BufReader::new(Box::new(file.take(at)))),
            None => reader(path),
        }
    }

    /// Prints whole lines that were added.
    fn drain(&mut self, printer: &mut Printer<'_>) -> Result<(), ToolError> {
        for watched in self.files.values_mut() {
            let length = watched.file.metadata().map_or(0, |metadata| metadata.len());
            if length < watched.at {
                // Cut off by a rotation that copies.
                watched.at = 0;
            }
            while !printer.gone && watched.at < length {
                let mut bytes = vec![0; LINE_BYTES_MAX];
                let read = match watched.file.read_at(&mut bytes, watched.at) {
                    Ok(read) => read,
                    Err(error) => return Err(ToolError::Failed(format!("a log cannot be read: {error}"))),
                };
                bytes.truncate(read);
                let whole = match memchr::memrchr(b'\n', &bytes) {
                    Some(last) => last + 1,
                    // A line that is not whole yet, unless it is longer than any.
                    None if read < LINE_BYTES_MAX => break,
                    None => read,
                };
                let text = bytes.get(..whole).unwrap_or_default();
                for line in text.strip_suffix(b"\n").unwrap_or(text).split(|byte| *byte == b'\n') {
                    let line = line.strip_suffix(b"\r").unwrap_or(line);
                    watched.head = head(line, printer.options.now_ms).or(watched.head);
                    printer.offer(line, watched.head)?;
                }
                watched.at += whole as u64;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    const NOW: u64 = 1_795_413_662_000;

    fn options(filter: &str, form: Form) -> Options {
        Options { filter: Filter::parse(filter, NOW).unwrap(), form, follow: false, now_ms: NOW }
    }

    fn printed(paths: &[PathBuf], options: &Options) -> String {
        let mut out = Vec::new();
        print(paths, options, &mut out, &|| false).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_of_several_files_are_merged_by_time_and_those_without_stay_behind_theirs() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("a.log", "2026-11-23T06:00:01Z INFO a1\n  more of a1\n2026-11-23T06:00:03Z WARN a3\n");
        write(
            "b.log",
            "2026-11-23T06:00:02Z ERROR b2\n2026-11-23T06:00:03Z INFO b3\n2026-11-23T06:00:04Z INFO b4",
        );
        let all = printed(&[folder.path().to_owned()], &options("", Form::Raw));
        let order: Vec<&str> = all.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
        assert_eq!(order, ["a1", "a1", "b2", "a3", "b3", "b4"]);
        assert_eq!(
            printed(&[folder.path().to_owned()], &options("level:warn", Form::Raw)).lines().count(),
            2
        );
    }

    #[test]
    fn records_are_printed_as_json_and_clean_for_a_terminal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        std::fs::write(&path, "2026-11-23T06:01:02.5Z  WARN masternode::x: \u{1b}[31mslow height=7\n")
            .unwrap();
        let json: Value =
            serde_json::from_str(&printed(std::slice::from_ref(&path), &options("", Form::Json))).unwrap();
        let expected = json!({
            "time": "2026-11-23T06:01:02.500Z", "time_ms": NOW + 500, "level": "WARN", "target": "masternode::x",
            "message": "\\u{1b}[31mslow", "fields": {"height": "7"}
        });
        assert_eq!(json, expected);
        let clean = printed(std::slice::from_ref(&path), &options("", Form::Clean));
        assert!(!clean.contains('\u{1b}') && clean.contains("\\u{1b}[31mslow"), "{clean}");
        assert!(printed(&[path], &options("", Form::Raw)).contains('\u{1b}'));
    }

    #[test]
    fn a_reader_that_goes_away_ends_it_quietly() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("x.log"), "a\nb\n").unwrap();
        let options = Options { follow: true, ..options("", Form::Raw) };
        print(&[folder.path().to_owned()], &options, &mut Gone, &|| false).unwrap();
    }

    /// Gives away what it is given.
    struct Lines(Sender<String>, Vec<u8>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.extend_from_slice(bytes);
            while let Some(at) = self.1.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.1.drain(..=at).collect();
                let told = self.0.send(String::from_utf8_lossy(&line).trim().to_owned());
                told.map_err(|_| io::ErrorKind::BrokenPipe)?;
            }
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[track_caller]
    fn expect(lines: &Receiver<String>, expected: &str) {
        let patience = Duration::from_secs(60);
        assert_eq!(lines.recv_timeout(patience).unwrap(), expected);
    }

    #[test]
    fn what_is_added_is_printed_also_when_the_log_is_rotated_cut_or_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        let options = Options { follow: true, ..options("", Form::Raw) };
        let (sender, lines) = channel();
        let append = |path: &Path, text: &str| {
            let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        for paths in [vec![folder.path().to_owned()], vec![path.clone()]] {
            std::fs::write(&path, "one\ntw").unwrap();
            let over = std::sync::atomic::AtomicBool::new(false);
            std::thread::scope(|scope| {
                let is_over = || over.load(std::sync::atomic::Ordering::Relaxed);
                let out = Lines(sender.clone(), Vec::new());
                let options = &options;
                let paths = &paths;
                let printer = scope.spawn(move || {
                    let mut out = out;
                    print(paths, options, &mut out, &is_over)
                });
                expect(&lines, "one");
                append(&path, "o\nth");
                expect(&lines, "two");
                append(&path, "ree\n");
                expect(&lines, "three");
                std::fs::rename(&path, folder.path().join("x.log.1")).unwrap();
                append(&path, "four\n");
                expect(&lines, "four");
                std::fs::write(&path, "5\n").unwrap();
                expect(&lines, "5");
                over.store(true, std::sync::atomic::Ordering::Relaxed);
                printer.join().unwrap().unwrap();
            });
            std::fs::remove_file(folder.path().join("x.log.1")).unwrap();
        }
    }
}
