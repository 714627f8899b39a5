//! Names of what a node keeps in its data directory beside the files its configuration names. Each is used by
//! whoever writes it and by the tools, which tell them from what is not of a masternode.
//!
//! Absent: names that are written in one place alone (`instance`, `sign_floor`), which stand there.

/// The database.
pub const DATABASE: &str = "db";
/// The vote log.
pub const JOURNAL: &str = "journal";
/// The vote log of a node without a vote key in a directory that has signed: that log must stay as it is.
pub const JOURNAL_UNSIGNED: &str = "journal-unsigned";
/// Snapshots kept for others.
pub const SNAPSHOTS: &str = "snapshots";
/// Log files.
pub const LOGS: &str = "logs";
/// What operators have ordered.
pub const AUDIT_LOG: &str = "audit.log";
/// The control socket.
pub const CONTROL_SOCKET: &str = "control.sock";
/// The file whose lock says that a node uses the directory.
pub const LOCK: &str = "LOCK";
/// Addresses of other nodes.
pub const PEERS: &str = "peers";
/// Peers that are not let in.
pub const BANS: &str = "bans";
