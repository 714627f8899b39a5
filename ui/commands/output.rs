//! The one place that writes to the standard streams outside the console.

use crate::commands::{Failure, Outcome};
use std::io::Write as _;
use std::process::ExitCode;

/// Exit status for refused configuration, data or keys (`EX_CONFIG` of sysexits.h). A service manager
/// must not restart on it.
const REFUSED: u8 = 78;
const USAGE: u8 = 2;

/// Writes `text` to the standard output. A reader that has gone (`masternode .. | head`) is no failure.
///
/// # Errors
/// When the output cannot be written for another reason, such as a full disk.
pub fn write(text: &str) -> Outcome {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::Failed(format!("cannot write to the standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Passes bytes on to the standard output as they come, until there are no more or nobody reads.
pub fn pass_on(mut from: impl std::io::Read) {
    let mut stdout = std::io::stdout().lock();
    let mut bytes = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        let part = bytes.get(..length).unwrap_or_default();
        if stdout.write_all(part).and_then(|()| stdout.flush()).is_err() {
            return;
        }
    }
}

/// Writes `text` to the standard error; a closed one is no reason to stop.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Tells why a command failed and gives its exit status.
pub fn failure(failure: &Failure) -> ExitCode {
    note(&format!("masternode: {failure}"));
    match failure {
        Failure::Failed(_) => ExitCode::FAILURE,
        Failure::Usage(_) => ExitCode::from(USAGE),
        Failure::Refused(_) => ExitCode::from(REFUSED),
    }
}
