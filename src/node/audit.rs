//! The audit trail: what operators ordered, by whom, and what came of it; a line of JSON each in `audit.log` in the data
//! directory, and a record of the log with `event="audit"`.
//!
//! The file is moved to `audit.log.1` when it is full, and the one before it goes. A line that cannot be written is no
//! reason to refuse an order: it may be the one that frees the disk.

use crate::config::names::AUDIT_LOG;
use crate::primitives::clean::CleanText;
use parking_lot::Mutex;
use serde::Serialize;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Bytes of a file, some thousand orders.
const BYTES_MAX: u64 = 1 << 20;

/// One writer at a time in a process; a directory has one process.
static WRITING: Mutex<()> = Mutex::new(());

/// An order and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// Who gave it.
    pub by: CleanText,
    pub order: CleanText,
    /// `done`, or why not.
    pub outcome: CleanText,
}

/// Notes an order, in the file and in the log. Blocks: writes a file.
pub fn note(data_dir: &Path, entry: &Entry) {
    tracing::info!(
        event = "audit",
        by = entry.by.as_str(),
        order = entry.order.as_str(),
        outcome = entry.outcome.as_str(),
        "order"
    );
    if let Err(error) = append(data_dir, entry) {
        tracing::warn!(%error, file = %data_dir.join(AUDIT_LOG).display(), "the order was not noted");
    }
}

fn append(data_dir: &Path, entry: &Entry) -> io::Result<()> {
    let path = data_dir.join(AUDIT_LOG);
    let mut line = serde_json::to_vec(entry)?;
    line.push(b'\n');
    let _alone = WRITING.lock();
    if std::fs::metadata(&path).is_ok_and(|file| file.len() >= BYTES_MAX) {
        std::fs::rename(&path, data_dir.join(format!("{AUDIT_LOG}.1")))?;
    }
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
    file.write_all(&line)?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_kept_in_order_and_the_file_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let entry = |time_ms| Entry {
            time_ms,
            by: "user 0".into(),
            order: CleanText::new(&"x".repeat(4000)),
            outcome: "done".into(),
        };
        for time_ms in 0..600 {
            note(dir.path(), &entry(time_ms));
        }
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        let all = read("audit.log.1") + &read(AUDIT_LOG);
        let lines: Vec<serde_json::Value> =
            all.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.last().unwrap()["time_ms"], 599);
        let times: Vec<u64> = lines.iter().map(|line| line["time_ms"].as_u64().unwrap()).collect();
        assert!(times.is_sorted() && times.len() > 250);
        for name in [AUDIT_LOG, "audit.log.1"] {
            assert!(dir.path().join(name).metadata().unwrap().len() < BYTES_MAX + 5000);
        }
    }
}
