//! Snapshots of the state (protocol §7): made every so many blocks, kept on a shelf, served to peers, and
//! fetched by a node that begins far behind.
//!
//! In reading order: `shelf` (the folder of those kept), `maker` (makes one while the node goes on),
//! `server` (what peers get of them); then `peers`, `trail` (the header of a snapshot), `plan` (which
//! part of whom), `incoming` (parts on disk), `fetch`, `swap` and
//! `begin`. What a snapshot is and how it is checked stands in
//! [`ledger::snapshot`](crate::ledger::snapshot).

use crate::config::Config;
use crate::network::Network;
use crate::node::prover::Prover;
use crate::node::served::Desk;
use crate::node::snapshots::maker::Clerk;
use crate::node::snapshots::server::SnapshotServer;
use crate::node::snapshots::shelf::{Shelf, ShelfLimits};
use crate::node::tasks::{Ended, Stopper, thread};
use std::io;
use std::sync::Arc;

pub mod begin;
pub mod fetch;
pub mod incoming;
pub mod maker;
pub mod peers;
pub mod plan;
pub mod server;
pub mod shelf;
pub mod swap;
pub mod trail;

/// Bytes of a page of a manifest but the last.
pub const PAGE_BYTES: usize = 512 << 10;

/// What makes and serves snapshots in a running node.
pub struct Serving {
    /// Takes requests of peers.
    pub desk: Desk,
    /// Is told of every block that was stored.
    pub clerk: Clerk,
    /// End once desk and clerk are gone.
    pub threads: Vec<Ended>,
}

/// Opens the shelf and starts the threads that make and serve snapshots. A shelf that cannot be read costs
/// the snapshots, not the node.
///
/// # Errors
/// When the system has no thread to give.
pub fn serve(
    config: &Config,
    stopper: &Stopper,
    prover: &Arc<Prover>,
    network: &Arc<Network>,
) -> io::Result<Serving> {
    let kept = usize::try_from(config.storage.snapshots_kept).unwrap_or(0);
    let limits = ShelfLimits { kept, bytes_max: config.storage.snapshot_bytes_max };
    let folder = config.snapshots_path();
    let shelf = Shelf::open(folder.clone(), limits).unwrap_or_else(|error| {
        tracing::warn!(%error, "no snapshots are kept");
        Shelf::unused(folder)
    });
    let shelf = Arc::new(shelf);
    let stopping = stopper.ordered().clone();
    let stopping = Box::new(move || stopping.is_cancelled());
    let (clerk, maker) = maker::maker(Arc::clone(&shelf), config.storage.snapshot_blocks, stopping);
    let (desk, server) = SnapshotServer::new(shelf, Arc::clone(prover), network);
    let threads = vec![
        thread(stopper, "make-snapshots", move || maker.run())?,
        thread(stopper, "serve-snapshots", move || server.run())?,
    ];
    Ok(Serving { desk, clerk, threads })
}
