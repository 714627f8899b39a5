//! How programs talk to a running node: the control socket in its data directory.
//!
//! [`Backend`] is what the node offers; this module knows nothing else of it. [`control`] serves the
//! socket, [`stream`] its long answers, [`client`] speaks to it. Deliberately absent so far: JSON-RPC over HTTP.

pub mod client;
pub mod control;
pub mod stream;

use crate::light::bundle::ProofBundle;
use crate::primitives::clean::CleanText;
use crate::primitives::hash::{Hash, Txid};
use crate::rpc::stream::ArchiveRequest;
use crate::telemetry::bans::BanInfo;
use crate::telemetry::snapshot::Snapshot;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::sync::Arc;

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

    /// Asks the node to stop in order; returns at once.
    fn stop(&self, reason: CleanText);
}
