//! Log records as the console and the log files hold them.

use crate::primitives::clean::CleanText;
use serde::{Deserialize, Serialize};

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
