//! The operator's terminal: raw mode and alternate screen while the console runs, restored after.
//!
//! Reads and writes go through a description of our own, opened non-blocking, so that a stalled or
//! dead terminal can neither block nor spin the console, and the shell's description is left alone.
//! A panic of the console's thread restores the terminal before its message; a panic of any other
//! thread (a node task whose panic is caught) must not touch it and goes to the log.

use crate::console::encode::encode;
use crate::console::state::State;
use crate::console::view::view;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

/// A write that makes no progress for this long means the terminal is gone.
pub const STALL: Duration = Duration::from_secs(5);
/// How often a stalled write looks whether the console has to go.
const STALL_STEP: Duration = Duration::from_millis(100);
/// How long restoring may take.
const RESTORE_STALL: Duration = Duration::from_millis(500);
/// Alternate screen, no cursor, bracketed paste.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l\x1b[?2004h\x1b[0m\x1b[2J";
const LEAVE: &[u8] = b"\x1b[?2026l\x1b[0m\x1b[?2004l\x1b[?25h\x1b[?1049l";
/// Synchronized output: the terminal shows a frame at once or not at all.
const FRAME_BEGIN: &[u8] = b"\x1b[?2026h";
const FRAME_END: &[u8] = b"\x1b[?2026l";
const CLEAR: &[u8] = b"\x1b[0m\x1b[2J";
/// Assumed where the terminal does not know its size (a bare serial line says 0×0).
const SIZE_UNKNOWN: (u16, u16) = (80, 24);

/// Why the terminal cannot be used any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    #[error("the terminal was closed")]
    Closed,
    #[error("the terminal took nothing for {} s", STALL.as_secs())]
    Stalled,
    #[error("the terminal failed: {0}")]
    Failed(String),
    /// The console was told to end while the terminal was stalled.
    #[error("the console was told to end")]
    Told,
}

/// A terminal that cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("standard output is not a terminal")]
    NotATerminal,
    #[error("cannot set up the terminal ({step}): {reason}")]
    Setup { step: &'static str, reason: Errno },
}

/// The terminal while the console has it.
#[derive(Debug)]
pub struct Terminal {
    guard: Arc<Guard>,
    told: Arc<AtomicBool>,
    painted: Buffer,
    clear: bool,
    /// Bytes written so far.
    pub written: u64,
}

#[derive(Debug)]
struct Guard {
    fd: OwnedFd,
    saved: Termios,
    restored: AtomicBool,
}

impl Terminal {
    /// Takes over the terminal of standard output.
    ///
    /// # Errors
    /// [`OpenError`] when there is none.
    pub fn open(told: Arc<AtomicBool>) -> Result<Self, OpenError> {
        let output = rustix::stdio::stdout();
        if !rustix::termios::isatty(output) {
            return Err(OpenError::NotATerminal);
        }
        let setup = |step| move |reason| OpenError::Setup { step, reason };
        let path = rustix::termios::ttyname(output, Vec::new()).map_err(setup("name"))?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path.as_c_str(), flags, Mode::empty())
            .or_else(|_| rustix::fs::open("/dev/tty", flags, Mode::empty()))
            .map_err(setup("open"))?;
        Self::on(fd, told)
    }

    /// Takes over an open, non-blocking terminal.
    ///
    /// # Errors
    /// [`OpenError::Setup`].
    pub fn on(fd: OwnedFd, told: Arc<AtomicBool>) -> Result<Self, OpenError> {
        let setup = |step| move |reason| OpenError::Setup { step, reason };
        let saved = rustix::termios::tcgetattr(&fd).map_err(setup("read settings"))?;
        let mut raw = saved.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(&fd, OptionalActions::Now, &raw).map_err(setup("raw mode"))?;
        let guard = Arc::new(Guard { fd, saved, restored: AtomicBool::new(false) });
        hook_panics(&guard);
        let mut terminal = Self { guard, told, painted: Buffer::empty(Rect::ZERO), clear: true, written: 0 };
        // A terminal that is already dead shows in the first frame.
        let _ = terminal.write(ENTER);
        Ok(terminal)
    }

    /// Columns and rows.
    pub fn size(&self) -> (u16, u16) {
        match rustix::termios::tcgetwinsize(&self.guard.fd) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col, size.ws_row),
            _ => SIZE_UNKNOWN,
        }
    }

    /// Waits for input.
    ///
    /// # Errors
    /// [`Lost`] when the terminal was closed.
    pub fn wait(&self, timeout: Duration) -> Result<bool, Lost> {
        self.guard.poll(PollFlags::IN, timeout)
    }

    /// Reads what was typed; 0 bytes when nothing was.
    ///
    /// # Errors
    /// [`Lost`] when the terminal was closed.
    pub fn read(&self, bytes: &mut [u8]) -> Result<usize, Lost> {
        match rustix::io::read(&self.guard.fd, bytes) {
            Ok(0) => Err(Lost::Closed),
            Ok(length) => Ok(length),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(Errno::IO | Errno::NXIO) => Err(Lost::Closed),
            Err(error) => Err(Lost::Failed(error.to_string())),
        }
    }

    /// Gives the terminal back, stops this process as Ctrl-Z in a shell does, and takes the terminal again when it goes
    /// on. Only for a process without a node.
    pub fn suspend(&mut self) {
        self.guard.restore();
        // To this thread, which must not go on before it has stopped. The system ignores it where no shell could wake
        // the process again.
        let _ = signal_hook::low_level::raise(signal_hook::consts::SIGTSTP);
        self.guard.restored.store(false, Ordering::SeqCst);
        let mut raw = self.guard.saved.clone();
        raw.make_raw();
        let _ = rustix::termios::tcsetattr(&self.guard.fd, OptionalActions::Now, &raw);
        let _ = self.write(ENTER);
        self.clear = true;
    }

    /// Hands `text` to the clipboard of the terminal (OSC 52), which may refuse it. A terminal that is gone shows in the
    /// next frame.
    pub fn copy(&mut self, text: &str) {
        let sequence = format!("\x1b]52;c;{}\x07", base64(text.as_bytes()));
        let _ = self.write(sequence.as_bytes());
    }

    /// Paint everything in the next frame.
    pub fn forget(&mut self) {
        self.clear = true;
    }

    /// Paints the state: what differs from the last frame, in one write.
    ///
    /// # Errors
    /// [`Lost`].
    pub fn paint(&mut self, state: &State) -> Result<(), Lost> {
        self.paint_with(|area, frame| view(state, area, frame))
    }

    /// Paints what `draw` puts into a buffer of the terminal's size.
    ///
    /// # Errors
    /// As [`Terminal::paint`].
    pub fn paint_with(&mut self, draw: impl FnOnce(Rect, &mut Buffer)) -> Result<(), Lost> {
        let (width, height) = self.size();
        let area = Rect { x: 0, y: 0, width, height };
        let mut frame = Buffer::empty(area);
        draw(area, &mut frame);
        let bytes = self.frame_bytes(&frame);
        self.painted = frame;
        self.clear = false;
        if bytes.is_empty() { Ok(()) } else { self.write(&bytes) }
    }

    fn frame_bytes(&mut self, frame: &Buffer) -> Vec<u8> {
        let clear = self.clear || self.painted.area != frame.area;
        if clear {
            self.painted = Buffer::empty(frame.area);
        }
        let changes = self.painted.diff(frame);
        if changes.is_empty() && !clear {
            return Vec::new();
        }
        let mut bytes = FRAME_BEGIN.to_vec();
        if clear {
            bytes.extend_from_slice(CLEAR);
        }
        encode(changes, &mut bytes);
        bytes.extend_from_slice(FRAME_END);
        bytes
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        self.written = self.written.saturating_add(bytes.len() as u64);
        self.guard.write(bytes, STALL, &self.told)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The hook stays: without its guard it only passes on to the one before.
        self.guard.restore();
    }
}

impl Guard {
    fn poll(&self, wanted: PollFlags, timeout: Duration) -> Result<bool, Lost> {
        let timeout = Timespec::try_from(timeout).unwrap_or_default();
        let mut polled = [PollFd::new(&self.fd, wanted)];
        match poll(&mut polled, Some(&timeout)) {
            Ok(0) | Err(Errno::INTR | Errno::AGAIN) => return Ok(false),
            Ok(_) => {}
            Err(error) => return Err(Lost::Failed(error.to_string())),
        }
        let seen = polled.first().map_or_else(PollFlags::empty, PollFd::revents);
        if seen.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
            return Err(Lost::Closed);
        }
        Ok(seen.intersects(wanted))
    }

    fn write(&self, bytes: &[u8], stall: Duration, told: &AtomicBool) -> Result<(), Lost> {
        let mut rest = bytes;
        let mut progress = Instant::now();
        while !rest.is_empty() {
            match rustix::io::write(&self.fd, rest) {
                Ok(length) => {
                    rest = rest.get(length..).unwrap_or_default();
                    progress = Instant::now();
                }
                Err(Errno::AGAIN) => {
                    if progress.elapsed() >= stall {
                        return Err(Lost::Stalled);
                    }
                    if told.load(Ordering::Relaxed) {
                        return Err(Lost::Told);
                    }
                    self.poll(PollFlags::OUT, STALL_STEP.min(stall))?;
                }
                Err(Errno::INTR) => {}
                Err(Errno::IO | Errno::NXIO | Errno::PIPE) => return Err(Lost::Closed),
                Err(error) => return Err(Lost::Failed(error.to_string())),
            }
        }
        Ok(())
    }

    /// Gives the terminal back, once, as far as it still takes anything.
    fn restore(&self) {
        if self.restored.swap(true, Ordering::SeqCst) {
            return;
        }
        let _ = self.write(LEAVE, RESTORE_STALL, &AtomicBool::new(false));
        let _ = rustix::termios::tcsetattr(&self.fd, OptionalActions::Now, &self.saved);
    }
}

/// `bytes` as terminals take them (RFC 4648).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for part in bytes.chunks(3) {
        let at = |index: usize| u32::from(part.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) & 63;
            let shown = DIGITS.get(value as usize).copied().unwrap_or(b'=');
            text.push(if digit <= part.len() { char::from(shown) } else { '=' });
        }
    }
    text
}

/// Whether a panic of `panicking` is the console's own.
fn is_own_panic(console: ThreadId, panicking: ThreadId) -> bool {
    console == panicking
}

fn hook_panics(guard: &Arc<Guard>) {
    let console = std::thread::current().id();
    let guard = Arc::downgrade(guard);
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let live = guard.upgrade().filter(|guard| !guard.restored.load(Ordering::SeqCst));
        match live {
            Some(guard) if is_own_panic(console, std::thread::current().id()) => {
                guard.restore();
                previous(info);
            }
            // The default hook would write its message into the middle of the screen.
            Some(_) => tracing::error!(panic = %info, "a task panicked"),
            None => previous(info),
        }
    }));
}

#[cfg(test)]
#[path = "terminal_tests.rs"]
mod tests;
