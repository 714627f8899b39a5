//! Tells how far a long command has come: a line on the standard error every few seconds.

use crate::commands::output;
use masternode::tools::Progress;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// Time between two lines; what takes less says nothing.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// What was told last.
#[derive(Debug)]
pub struct Teller {
    command: &'static str,
    last: Instant,
}

impl Teller {
    /// For a command of this name.
    pub fn new(command: &'static str) -> Self {
        Self { command, last: Instant::now() }
    }

    /// Tells, if it is time.
    pub fn tell(&mut self, progress: Progress) {
        if self.last.elapsed() < TELL_EVERY {
            return;
        }
        self.last = Instant::now();
        output::note(&text(self.command, progress));
    }
}

fn text(command: &str, progress: Progress) -> String {
    let mut text = format!("{command}: {}", progress.doing);
    if progress.height > 0 {
        let _ = write!(text, ", block {}", progress.height);
    }
    if let Some(to) = progress.to {
        let _ = write!(text, " of {to}");
    }
    let _ = write!(text, ", {} MB", progress.bytes / 1_000_000);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_done_and_how_far_it_is() {
        let progress = Progress { doing: "reading", height: 0, to: None, bytes: 12_300_000 };
        assert_eq!(text("backup", progress), "backup: reading, 12 MB");
        let progress = Progress { doing: "checking", height: 7, to: Some(9), bytes: 0 };
        assert_eq!(text("import", progress), "import: checking, block 7 of 9, 0 MB");
    }
}
