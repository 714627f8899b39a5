//! Makes a snapshot of every so many blocks on a thread of its own, while the node goes on.
//!
//! The store thread hands over the block it has just stored, with a scan of the outputs unspent then; the
//! maker walks through it, one chunk in memory at a time, and compares count and sum with the header before
//! the snapshot is put on the shelf. One at a time: a block that falls due meanwhile is passed over.
//! A snapshot that cannot be made costs a line in the log and nothing else.

use crate::ledger::apply::BlockWrite;
use crate::ledger::set_hash::SetHash;
use crate::ledger::snapshot::{
    Manifest, OUTPUT_BYTES, OUTPUTS_PER_CHUNK, REGISTRY_PART_BYTES, registry_bytes, write_output,
};
use crate::ledger::store::folder::StoreError;
use crate::node::clock;
use crate::node::snapshots::shelf::{Draft, Shelf, ShelfError};
use crate::primitives::block::Header;
use crate::primitives::certificate::Qc;
use crate::primitives::committee::Committee;
use crate::primitives::message::SnapshotOffer;
use crate::primitives::transaction::{OutPoint, Utxo};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

/// Age of a block, by its own time, above which no snapshot of it is made: the node is catching up, and the
/// next one will be worth more.
const BLOCK_AGE_MAX_MS: u64 = 10 * 60 * 1000;
/// Outputs between two looks at whether the node stops: some 10 ms.
const STOP_OUTPUTS: usize = 2048;

/// Why no snapshot was made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "the {found} unspent outputs in the database are not the {expected} of header {height}: stop the node and restore \
         a backup, or start with an empty database"
    )]
    OtherState { height: u64, found: u64, expected: u64 },
    #[error("the node is stopping")]
    Stopping,
}

/// The outputs unspent after one block, ascending.
pub type Outputs = Box<dyn Iterator<Item = Result<(OutPoint, Utxo), StoreError>> + Send>;

/// A block to make a snapshot of.
pub struct Due {
    pub header: Header,
    pub commit: Qc,
    /// The committee that decided it.
    pub committee: Arc<Committee>,
    /// The encoded registry after it.
    pub registry: Vec<u8>,
    pub outputs: Outputs,
}

/// Where the store thread reports its blocks.
pub struct Clerk {
    due: SyncSender<Due>,
    every: u64,
}

/// The thread's end.
pub struct Maker {
    due: Receiver<Due>,
    shelf: Arc<Shelf>,
    stopping: Box<dyn Fn() -> bool + Send>,
}

/// A maker of snapshots every so many blocks, and where blocks are reported to it.
#[must_use]
pub fn maker(shelf: Arc<Shelf>, every: u64, stopping: Box<dyn Fn() -> bool + Send>) -> (Clerk, Maker) {
    // None waits: what is not taken at once would be a scan that holds what blocks spend.
    let (due, taken) = sync_channel(0);
    let every = if shelf.is_used() { every } else { 0 };
    (Clerk { due, every }, Maker { due: taken, shelf, stopping })
}

impl Clerk {
    /// Whether a snapshot is due after this block.
    #[must_use]
    pub fn is_due(&self, header: &Header) -> bool {
        let young = header.time_ms.saturating_add(BLOCK_AGE_MAX_MS) >= clock::wall_ms();
        header.height.checked_rem(self.every) == Some(0) && young
    }

    /// The block has been stored; `scan` begins at it. Never waits.
    pub fn stored(&self, write: &BlockWrite, scan: impl FnOnce() -> Result<Outputs, StoreError>) {
        let header = &write.diff.header;
        if !self.is_due(header) {
            return;
        }
        let outputs = match scan() {
            Ok(outputs) => outputs,
            Err(error) => {
                tracing::warn!(height = header.height, %error, "no snapshot of this block");
                return;
            }
        };
        let due = Due {
            header: header.clone(),
            commit: write.qc.clone(),
            committee: Arc::clone(&write.diff.committee),
            registry: registry_bytes(&write.diff.registry),
            outputs,
        };
        if self.due.try_send(due).is_err() {
            tracing::warn!(
                height = header.height,
                "no snapshot of this block: the last one is still being made"
            );
        }
    }
}

impl Maker {
    /// Makes snapshots until no more blocks are stored.
    pub fn run(self) {
        while let Ok(due) = self.due.recv() {
            let (height, begun) = (due.header.height, Instant::now());
            match make(&self.shelf, due, &*self.stopping) {
                Ok(offer) => tracing::info!(
                    event = "snapshot-made",
                    height,
                    bytes = offer.bytes,
                    milliseconds = begun.elapsed().as_millis(),
                    "snapshot made"
                ),
                Err(MakeError::Stopping) => {}
                Err(error) => tracing::warn!(event = "snapshot-failed", height, %error, "no snapshot"),
            }
        }
    }
}

/// Makes one snapshot and puts it on the shelf. Cost: about 5 µs an output, one chunk of memory.
///
/// # Errors
/// [`MakeError`].
pub fn make(shelf: &Shelf, due: Due, stopping: &dyn Fn() -> bool) -> Result<SnapshotOffer, MakeError> {
    let outputs = due.header.utxo_count.saturating_mul(OUTPUT_BYTES as u64);
    let needed = outputs.saturating_add(due.registry.len() as u64);
    let mut draft = shelf.begin(due.header.height, needed)?;
    match fill(&mut draft, due, stopping) {
        Ok((manifest, commit)) => Ok(shelf.finish(draft, &manifest, commit)?),
        Err(error) => {
            draft.abandon();
            Err(error)
        }
    }
}

/// A chunk being gathered.
struct Chunks {
    bytes: Vec<u8>,
    sum: SetHash,
    whole: SetHash,
    sums: Vec<u8>,
}

impl Chunks {
    fn end(&mut self, draft: &mut Draft) -> Result<(), ShelfError> {
        draft.part(&self.bytes)?;
        self.bytes.clear();
        let sum = std::mem::take(&mut self.sum);
        self.whole.combine(&sum);
        self.sums.extend_from_slice(&sum.to_bytes());
        Ok(())
    }
}

fn fill(draft: &mut Draft, due: Due, stopping: &dyn Fn() -> bool) -> Result<(Manifest, Qc), MakeError> {
    let Due { header, commit, committee, registry, outputs } = due;
    for part in registry.chunks(REGISTRY_PART_BYTES) {
        draft.part(part)?;
    }
    let mut chunks = Chunks {
        bytes: Vec::with_capacity(OUTPUTS_PER_CHUNK * OUTPUT_BYTES),
        sum: SetHash::new(),
        whole: SetHash::new(),
        sums: Vec::new(),
    };
    let mut found = 0u64;
    for (output, number) in outputs.zip(0usize..) {
        let (outpoint, utxo) = output?;
        write_output(&mut chunks.bytes, &outpoint, &utxo);
        chunks.sum.add(&outpoint, &utxo);
        found += 1;
        if chunks.bytes.len() >= OUTPUTS_PER_CHUNK * OUTPUT_BYTES {
            chunks.end(draft)?;
        }
        if number.is_multiple_of(STOP_OUTPUTS) && stopping() {
            return Err(MakeError::Stopping);
        }
    }
    if !chunks.bytes.is_empty() {
        chunks.end(draft)?;
    }
    let (height, expected) = (header.height, header.utxo_count);
    if found != expected || chunks.whole.digest() != header.utxo_hash {
        return Err(MakeError::OtherState { height, found, expected });
    }
    Ok((Manifest::of(header, &committee, &registry, chunks.sums), commit))
}

#[cfg(test)]
#[path = "maker_tests.rs"]
pub(crate) mod tests;
