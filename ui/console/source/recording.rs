//! What an attached console was sent, in a file, and played again at its own pace or faster: for training, and to show others
//! what happened. A recording holds what the console shows, so addresses of peers too.
//!
//! The file begins with [`MAGIC`] and a line that names the node; each frame follows with its time (milliseconds since
//! 1970, 8 bytes, big-endian), its length (4 bytes) and its bytes. One that was cut off is played up to there.

use crate::console::source::target::{Closer, Stream};
use masternode::primitives::clean::CleanText;
use masternode::rpc::control::FRAME_BYTES_MAX;
use masternode::rpc::mirror::Host;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// First line of a recording.
pub const MAGIC: &str = "masternode-recording 1";
/// Most bytes recorded; some days of a quiet node.
const BYTES_MAX: u64 = 1 << 30;
/// Longest first lines read.
const LINE_MAX: u64 = 1_000;
/// How often a wait for the next frame looks whether it is still wanted.
const STEP: Duration = Duration::from_millis(50);
/// Longest wait for a frame: who recorded was away meanwhile.
const GAP_MS_MAX: u64 = 5_000;

/// Writes a recording.
#[derive(Debug)]
pub struct Recorder {
    file: BufWriter<File>,
    written: u64,
}

impl Recorder {
    /// Makes the file, which must not be there, for its owner alone.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(path: &Path, node: &str) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let mut file = BufWriter::new(file);
        writeln!(file, "{MAGIC}\n{}", CleanText::limited(node, 64))?;
        Ok(Self { file, written: 0 })
    }

    /// Adds a frame that came now. The first one that cannot be written ends the recording, not the console.
    pub fn add(&mut self, frame: &[u8]) {
        if self.written >= BYTES_MAX {
            return;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        let head = [&now.to_be_bytes()[..], &length.to_be_bytes()[..]].concat();
        let written = self.file.write_all(&head).and_then(|()| self.file.write_all(frame));
        match written.and_then(|()| self.file.flush()) {
            Ok(()) => self.written += (head.len() + frame.len()) as u64,
            Err(_) => self.written = BYTES_MAX,
        }
    }
}

/// Where a recording is played at: the time of its last frame, and whether it is still wanted.
#[derive(Clone, Debug, Default)]
pub struct Playing {
    pub now_ms: Arc<AtomicU64>,
    pub over: Arc<AtomicBool>,
}

struct Player {
    file: BufReader<File>,
    speed: f64,
    playing: Playing,
    /// When the last frame was due, and its time.
    last: Option<(Instant, u64)>,
    frame: io::Cursor<Vec<u8>>,
}

/// Opens a recording as a stream that a console is attached to.
///
/// # Errors
/// When it cannot be read or is none.
pub fn open(path: &Path, speed: f64, playing: &Playing) -> io::Result<(Stream, Host)> {
    let mut file = BufReader::new(File::open(path)?);
    let mut lines = [String::new(), String::new()];
    for line in &mut lines {
        file.by_ref().take(LINE_MAX).read_line(line)?;
    }
    let [magic, name] = lines;
    if magic.trim_end() != MAGIC {
        return Err(io::Error::other(format!(
            "it does not begin with `{MAGIC}`: it is no recording of this version"
        )));
    }
    let player =
        Player { file, speed, playing: playing.clone(), last: None, frame: io::Cursor::new(Vec::new()) };
    let host = Host { name: CleanText::limited(name.trim_end(), 64), pid: 0, operate: false };
    let closer = Closer::Recording(Arc::clone(&playing.over));
    Ok((Stream { reader: Box::new(player), writer: Box::new(io::sink()), closer }, host))
}

impl Player {
    fn next(&mut self) -> io::Result<()> {
        let ended = |_| io::Error::other("the recording has ended");
        let (mut time, mut length) = ([0; 8], [0; 4]);
        self.file.read_exact(&mut time).map_err(ended)?;
        self.file.read_exact(&mut length).map_err(ended)?;
        let size = u32::from_be_bytes(length) as usize;
        if size > FRAME_BYTES_MAX {
            return Err(io::Error::other("the recording is damaged: a frame is too long"));
        }
        let mut frame = length.to_vec();
        frame.resize(4 + size, 0);
        self.file.read_exact(frame.get_mut(4..).unwrap_or_default()).map_err(ended)?;
        let time = u64::from_be_bytes(time);
        let due = match self.last {
            None => Instant::now(),
            Some((at, before)) => {
                let gap = time.saturating_sub(before).min(GAP_MS_MAX);
                at + Duration::from_millis(gap).div_f64(self.speed)
            }
        };
        while Instant::now() < due {
            if self.playing.over.load(Ordering::Relaxed) {
                return Err(io::Error::other("the recording was closed"));
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()).min(STEP));
        }
        self.last = Some((due, time));
        self.playing.now_ms.store(time, Ordering::Relaxed);
        self.frame = io::Cursor::new(frame);
        Ok(())
    }
}

impl Read for Player {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.frame.position() >= self.frame.get_ref().len() as u64 {
            self.next()?;
        }
        self.frame.read(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use masternode::rpc::mirror::read_frame;

    #[test]
    fn what_was_recorded_is_played_and_a_cut_file_up_to_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        let mut recorder = Recorder::create(&path, "north\u{1b}[31m").unwrap();
        recorder.add(b"one");
        recorder.add(b"");
        recorder.add(b"three");
        drop(recorder);
        assert!(Recorder::create(&path, "north").is_err(), "nothing is overwritten");
        let whole = std::fs::read(&path).unwrap();
        for (cut, expected) in [(0, &["one", "", "three"][..]), (1, &["one", ""][..])] {
            std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            let playing = Playing::default();
            let (mut stream, host) = open(&path, 1000.0, &playing).unwrap();
            assert!(!host.name.as_str().contains('\u{1b}') && !host.operate);
            for frame in expected {
                assert_eq!(read_frame(&mut stream.reader).unwrap(), frame.as_bytes());
            }
            let end = read_frame(&mut stream.reader).unwrap_err().to_string();
            assert!(end.contains("has ended"), "{end}");
            assert!(playing.now_ms.load(Ordering::Relaxed) > 0);
        }
        std::fs::write(&path, "something else\n").unwrap();
        assert!(open(&path, 1.0, &Playing::default()).is_err());
    }
}
