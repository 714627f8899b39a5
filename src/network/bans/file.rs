//! The file of the bans: one a line, as JSON, so that an operator can read it. Replaced whole, bounded, and a damaged
//! one costs only the lines that are damaged: a node is not kept from starting by whom it does not want to meet.

use crate::durable::{WriteError, write_whole};
use crate::network::bans::table::{BANS_MAX, Ban};
use std::io::{self, Read as _};
use std::path::Path;

/// Largest file read, in bytes: every ban at its longest.
const FILE_MAX: u64 = 16 * 1024 * BANS_MAX as u64;

/// Reads the bans; none when there is no file or it cannot be read, which is told in the log.
#[must_use]
pub fn load(file: &Path) -> Vec<Ban> {
    let mut text = Vec::new();
    let read = std::fs::File::open(file).and_then(|open| open.take(FILE_MAX).read_to_end(&mut text));
    match read {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "the bans cannot be read: going on without them");
            return Vec::new();
        }
    }
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (mut bans, mut bad) = (Vec::new(), 0usize);
    for line in lines.take(BANS_MAX) {
        match serde_json::from_str(line) {
            Ok(ban) => bans.push(ban),
            Err(_) => bad += 1,
        }
    }
    if bad > 0 {
        tracing::warn!(file = %file.display(), lines = bad, "lines of the file of bans make no sense and are left out");
    }
    bans
}

/// Writes the bans so that a crash leaves the old file or the new one. Two syncs.
///
/// # Errors
/// [`WriteError`] naming the file.
pub fn save(file: &Path, bans: &[Ban]) -> Result<(), WriteError> {
    write_whole(file, |_| {
        let mut text = String::from(
            "# Bans, written by the node; `masternode listbanned` shows them, `unban` lifts them.\n",
        );
        for ban in bans {
            text.push_str(&serde_json::to_string(ban)?);
            text.push('\n');
        }
        Ok(text)
    })
}
