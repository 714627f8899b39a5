//! Log records as the console and the log files hold them.

use crate::primitives::clean::CleanText;
use serde::{Deserialize, Serialize};

/// Field of a record that names its node, where several nodes share a process.
pub const NODE_FIELD: &str = "node";

/// Severity, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

impl LogLevel {
    /// Upper-case name of at most five letters.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trace => "TRACE",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        }
    }
}

/// One structured log record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRecord {
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// Severity.
    pub level: LogLevel,
    /// Module that logged it.
    pub target: CleanText,
    /// The message.
    pub message: CleanText,
    /// Further fields in order.
    pub fields: Vec<(CleanText, CleanText)>,
}

impl LogRecord {
    /// The node it is of, where several nodes share a process; `None` is of the process.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        let owner = self.fields.iter().find(|(name, _)| name.as_str() == NODE_FIELD);
        owner.map(|(_, node)| node.as_str())
    }
}

/// Records after a number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPage {
    /// The records with their numbers, oldest first.
    pub records: Vec<(u64, LogRecord)>,
    /// The number to ask from next time.
    pub next: u64,
    /// Records asked for that the ring no longer holds.
    pub skipped: u64,
}
