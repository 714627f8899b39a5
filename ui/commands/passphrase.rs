//! Asks for passphrases on the terminal, without showing what is typed.
//!
//! The terminal is put into a mode where every key arrives alone, Ctrl-C included, so that whatever
//! ends the question also restores it.

use crate::commands::Failure;
use masternode::config::Config;
use masternode::wallet::keystore::{self, Passphrase};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use std::fs::{File, OpenOptions};
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;
use zeroize::Zeroizing;

/// Longest passphrase taken from the terminal, in bytes.
const TYPED_BYTES_MAX: usize = 1024;

/// The passphrase for `files`: none when no file is encrypted, else as configured, else asked for on
/// the terminal if there is one and `ask` allows.
///
/// # Errors
/// [`Failure::Refused`] naming the file and the remedy.
pub fn for_keys(config: &Config, files: &[PathBuf], ask: bool) -> Result<Option<Passphrase>, Failure> {
    let mut encrypted = None;
    for file in files {
        if keystore::inspect(file).map_err(Failure::refused)?.1 {
            encrypted = Some(file);
        }
    }
    let Some(file) = encrypted else { return Ok(None) };
    let given = Passphrase::given(config.passphrase_path().as_deref()).map_err(Failure::refused)?;
    if given.is_some() || !ask || !std::io::stdin().is_terminal() {
        return Ok(given);
    }
    typed(&format!("Passphrase of {}: ", file.display())).map(Some)
}

/// Asks twice for a new passphrase until both agree.
///
/// # Errors
/// [`Failure`] when it is too short or the terminal goes away.
pub fn chosen() -> Result<Passphrase, Failure> {
    loop {
        let first = typed("Passphrase for the new keys (at least 8 characters): ")?;
        first.check_strength().map_err(Failure::refused)?;
        if typed("Once more: ")?.matches(&first) {
            return Ok(first);
        }
        crate::commands::output::note("The two differ.");
    }
}

/// One line from the terminal, unseen.
fn typed(question: &str) -> Result<Passphrase, Failure> {
    let failed = |error: std::io::Error| Failure::Failed(format!("cannot ask on the terminal: {error}"));
    let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(failed)?;
    terminal.write_all(question.as_bytes()).map_err(failed)?;
    let quiet = Quiet::enter(terminal.try_clone().map_err(failed)?).map_err(failed)?;
    let line = read_line(&mut terminal);
    drop(quiet);
    terminal.write_all(b"\n").map_err(failed)?;
    line.map_err(failed)?.ok_or_else(|| Failure::Failed("cancelled".to_owned()))
}

/// The line typed; `None` when it was cancelled.
fn read_line(terminal: &mut File) -> std::io::Result<Option<Passphrase>> {
    let mut line = Zeroizing::new(Vec::with_capacity(TYPED_BYTES_MAX));
    let mut byte = [0];
    loop {
        if terminal.read(&mut byte)? == 0 {
            return Ok(None);
        }
        match byte {
            [b'\r' | b'\n'] => break,
            [0x03 | 0x04] => return Ok(None),
            [0x08 | 0x7f] => {
                // Backspace takes a whole character.
                while line.pop().is_some_and(|last| last & 0b1100_0000 == 0b1000_0000) {}
            }
            [0x15] => line.clear(),
            [byte] if line.len() < TYPED_BYTES_MAX => line.push(byte),
            _ => {}
        }
    }
    let text = std::str::from_utf8(&line).map_err(|error| std::io::Error::other(error.to_string()))?;
    Ok(Some(Passphrase::new(text.to_owned())))
}

/// A terminal that shows nothing; as it was when dropped.
struct Quiet {
    terminal: File,
    before: Termios,
}

impl Quiet {
    fn enter(terminal: File) -> std::io::Result<Self> {
        let before = tcgetattr(&terminal)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        // Reads return as soon as one byte is there.
        quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
        quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&terminal, OptionalActions::Flush, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, OptionalActions::Flush, &self.before);
    }
}
