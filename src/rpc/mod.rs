//! How programs talk to a running node: the control socket in its data directory.
//!
//! [`Backend`] is what the node offers; this module knows nothing else of it. [`control`] serves the
//! socket, [`stream`] its long answers, [`client`] speaks to it. Deliberately absent so far: JSON-RPC over HTTP.

pub mod client;
pub mod control;
pub mod stream;

use crate::light::bundle::ProofBundle;
use crate::primitives::clean::CleanText;
use crate::primitives::hash::Txid;
use crate::rpc::stream::ArchiveRequest;
use crate::telemetry::snapshot::Snapshot;
use std::io::Write;
use std::sync::Arc;

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

    /// Asks the node to stop in order; returns at once.
    fn stop(&self, reason: CleanText);
}
