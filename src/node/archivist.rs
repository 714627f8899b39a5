//! Reads archives of the chain off a running node for programs (backup, export), and recounts what it has
//! stored; one of these at a time.

use crate::archive::source::{Source, Wish};
use crate::ledger::genesis::Genesis;
use crate::ledger::set_hash::SetHash;
use crate::ledger::store::Store;
use crate::ledger::store::folder::StoreError;
use crate::node::clock;
use crate::node::tasks::Stopper;
use crate::primitives::amount::Amount;
use crate::rpc::Recounted;
use crate::rpc::stream::ArchiveRequest;
use parking_lot::Mutex;
use std::io::Write;
use std::sync::{Arc, Weak};
use tokio_util::sync::CancellationToken;

/// After so many outputs it is looked whether the node stops.
const STOP_EVERY: u64 = 1024;

/// See the module.
#[derive(Debug)]
pub struct Archivist {
    source: Source,
    store: Weak<Store>,
    stopping: CancellationToken,
    /// Held while something is read.
    busy: Mutex<()>,
}

impl Archivist {
    /// An archivist of an open store, which it does not keep open.
    #[must_use]
    pub fn new(store: &Arc<Store>, genesis: &Genesis, stopper: &Stopper) -> Self {
        let (source, stopping) = (Source::new(store, genesis), stopper.ordered().clone());
        Self { source, store: Arc::downgrade(store), stopping, busy: Mutex::new(()) }
    }

    /// Writes what is asked for; see [`Source::write`].
    ///
    /// # Errors
    /// For people.
    pub fn write(&self, request: ArchiveRequest, out: &mut dyn Write) -> Result<(), String> {
        let Some(_busy) = self.busy.try_lock() else {
            return Err("a backup, export or recount is under way: wait for its end".to_owned());
        };
        let ArchiveRequest { from, to, state } = request;
        let begun = std::time::Instant::now();
        let written = self.source.write(Wish { from, to, state }, clock::wall_ms(), out, "archive");
        let (head, _) = written.map_err(|error| error.to_string())?;
        let milliseconds = begun.elapsed().as_millis();
        tracing::info!(from = head.from, to = head.to, state, milliseconds, "archive of the chain read");
        Ok(())
    }

    /// Counts the stored outputs of the newest block anew, while others are stored, and compares them with
    /// its header.
    ///
    /// # Errors
    /// For people.
    pub fn recount(&self) -> Result<Recounted, String> {
        let Some(_busy) = self.busy.try_lock() else {
            return Err("a backup, export or recount is under way: wait for its end".to_owned());
        };
        let told = |error: StoreError| error.to_string();
        let store = self.store.upgrade().ok_or("the node is stopping")?;
        let (mut sum, mut outputs, mut supply) = (SetHash::new(), 0u64, Some(Amount::ZERO));
        let scan = store.scan().map_err(told)?;
        let height = scan.height();
        for output in scan {
            let (outpoint, utxo) = output.map_err(told)?;
            sum.add(&outpoint, &utxo);
            supply = supply.and_then(|sum| sum.checked_add(utxo.value));
            outputs += 1;
            if outputs.is_multiple_of(STOP_EVERY) && self.stopping.is_cancelled() {
                return Err("the node is stopping".to_owned());
            }
        }
        let header = store.header(height).map_err(told)?.ok_or("the newest block is not there")?;
        let state_hash = sum.digest();
        if (state_hash, outputs, supply) != (header.utxo_hash, header.utxo_count, Some(header.supply)) {
            return Err(format!(
                "{}: the {outputs} stored outputs have the state hash {state_hash}, block {height} says {}",
                store.dir().display(),
                header.utxo_hash
            ));
        }
        Ok(Recounted { height, state_hash, outputs })
    }
}
