//! Reads archives of the chain off a running node for programs (backup, export), one at a time.

use crate::archive::source::{Source, Wish};
use crate::ledger::genesis::Genesis;
use crate::ledger::store::Store;
use crate::node::clock;
use crate::rpc::stream::ArchiveRequest;
use parking_lot::Mutex;
use std::io::Write;
use std::sync::Arc;

/// See the module.
#[derive(Debug)]
pub struct Archivist {
    source: Source,
    /// Held while one is read.
    busy: Mutex<()>,
}

impl Archivist {
    /// An archivist of an open store, which it does not keep open.
    #[must_use]
    pub fn new(store: &Arc<Store>, genesis: &Genesis) -> Self {
        Self { source: Source::new(store, genesis), busy: Mutex::new(()) }
    }

    /// Writes what is asked for; see [`Source::write`].
    ///
    /// # Errors
    /// For people.
    pub fn write(&self, request: ArchiveRequest, out: &mut dyn Write) -> Result<(), String> {
        let Some(_busy) = self.busy.try_lock() else {
            return Err("another backup or export is under way: wait for its end".to_owned());
        };
        let ArchiveRequest { from, to, state } = request;
        let begun = std::time::Instant::now();
        let written = self.source.write(Wish { from, to, state }, clock::wall_ms(), out, "archive");
        let (head, _) = written.map_err(|error| error.to_string())?;
        let milliseconds = begun.elapsed().as_millis();
        tracing::info!(from = head.from, to = head.to, state, milliseconds, "archive of the chain read");
        Ok(())
    }
}
