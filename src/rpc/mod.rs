//! How programs talk to a running node: the control socket in its data directory.
//!
//! [`Backend`] is what the node offers; this module knows nothing else of it. [`control`] serves the
//! socket, [`stream`] its long answers, [`attach`] what a console is sent, [`mirror`] what it makes of
//! that, [`client`] speaks to it. Deliberately absent so far: JSON-RPC over HTTP.

pub mod attach;
pub mod client;
pub mod control;
pub mod mirror;
pub mod stream;

use crate::light::bundle::ProofBundle;
use crate::primitives::clean::CleanText;
use crate::primitives::hash::{Hash, Txid};
use crate::rpc::stream::ArchiveRequest;
use crate::telemetry::bans::BanInfo;
use crate::telemetry::event::Event;
use crate::telemetry::log::LogPage;
use crate::telemetry::snapshot::Snapshot;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::sync::Arc;
use tokio::sync::broadcast::Receiver;

/// What was counted and found right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recounted {
    /// The block.
    pub height: u64,
    /// `utxo_hash` of its header.
    pub state_hash: Hash,
    /// Unspent outputs after it.
    pub outputs: u64,
}

/// What came of an order to ban.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanOutcome {
    pub ban: BanInfo,
    /// Connections ended by it.
    pub disconnected: u64,
    /// Of those, with members of the committee.
    pub members: u64,
}

/// What a node offers to programs. Implemented by the node; no call waits for its engine.
pub trait Backend: Send + Sync + 'static {
    /// The whole picture, at most a quarter of a second old.
    fn snapshot(&self) -> Arc<Snapshot>;

    /// All events from now on; a slow receiver loses the oldest and is told how many.
    fn events(&self) -> Receiver<Arc<Event>>;

    /// What happened lately, oldest first, some hundred events; none of the pool and no log records.
    fn history(&self) -> Vec<Arc<Event>>;

    /// The number the next log record will have.
    fn log_number(&self) -> u64;

    /// At most `max` log records of this node, from number `from` on.
    fn logs(&self, from: u64, max: usize) -> LogPage;

    /// The newest `max` records of WARN and above of this node, which outlive the others.
    fn warnings(&self, max: usize) -> LogPage;

    /// The proof that a transaction is final, from the header at height `trusted` on; the error says why
    /// there is none. Blocks: reads the database.
    ///
    /// # Errors
    /// For people.
    fn proof(&self, txid: &Txid, trusted: Option<u64>) -> Result<ProofBundle, String>;

    /// Writes an archive of the chain to `out`; the error says why it is not complete. Blocks for as long as
    /// that takes, so it belongs on a thread of its own; one at a time.
    ///
    /// # Errors
    /// For people.
    fn archive(&self, request: ArchiveRequest, out: &mut dyn Write) -> Result<(), String>;

    /// Counts the stored outputs anew and compares them with the header of their block. Blocks for as long as
    /// that takes: about 5 µs an output.
    ///
    /// # Errors
    /// For people: what disagrees, or why it could not be counted.
    fn recount(&self) -> Result<Recounted, String>;

    /// Bans a peer by its key or addresses by themselves, for so many seconds; the error says why not. Blocks: writes
    /// a file.
    ///
    /// # Errors
    /// For people.
    fn ban(&self, whom: &str, length_s: u64, reason: &str) -> Result<BanOutcome, String>;

    /// Lifts the bans of a peer or an address, or `all`, and forgets scores and back-offs. Blocks: writes a file.
    ///
    /// # Errors
    /// For people.
    fn unban(&self, whom: &str) -> Result<Vec<BanInfo>, String>;

    /// All bans, the newest first.
    ///
    /// # Errors
    /// For people.
    fn bans(&self) -> Result<Vec<BanInfo>, String>;

    /// Notes an order, who gave it and what came of it. Blocks: writes a file.
    fn note(&self, by: &str, order: &str, outcome: &str);

    /// Asks the node to stop in order; returns at once.
    fn stop(&self, reason: CleanText);
}
