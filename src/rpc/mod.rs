//! How programs talk to a running node: the control socket in its data directory.
//!
//! [`Backend`] is what the node offers; this module knows nothing else of it. [`control`] serves the
//! socket, [`client`] speaks to it. Deliberately absent so far: JSON-RPC over HTTP.

pub mod client;
pub mod control;

use crate::light::bundle::ProofBundle;
use crate::primitives::clean::CleanText;
use crate::primitives::hash::Txid;
use crate::telemetry::snapshot::Snapshot;
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

    /// Asks the node to stop in order; returns at once.
    fn stop(&self, reason: CleanText);
}
