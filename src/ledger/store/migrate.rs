//! From older formats of the database to the present one, one version a step.
//!
//! The marker outside the database names the newer format before the first step begins, so an older program
//! refuses the folder without touching it from then on. Each step is one durable write that also
//! writes the version it leads to: a crash at any point leaves the version before or the one after, and the
//! next start goes on from there. A newer format is refused by the marker before anything is opened.
//!
//! A step that has to change more than one write holds must itself be of steps that may be repeated;
//! there is none so far.

use crate::ledger::store::batches::Batches;
use crate::ledger::store::folder::{StoreError, write_marker};
use crate::ledger::store::records::{FIRST_KEY, FORMAT, OLDEST_FORMAT, seal};
use crate::ledger::store::{CHAIN_KEY, Store};
use crate::primitives::encoding::encode;
use crate::primitives::hash::ChainId;

/// What changes from one version to the next.
type Step = fn(&Store, &mut Batches) -> Result<(), StoreError>;

/// The step from [`OLDEST_FORMAT`], the one from the version after it, and so on.
const STEPS: [Step; (FORMAT - OLDEST_FORMAT) as usize] = [first_block_is_recorded, writes_may_be_unfinished];

impl Store {
    /// Brings a database of version `found` to the present one.
    ///
    /// # Errors
    /// [`StoreError`]; the database is of some version in between then, and the next try goes on.
    pub(super) fn migrate(&self, chain: ChainId, found: u32) -> Result<(), StoreError> {
        write_marker(self.dir(), chain)?;
        for (from, step) in (OLDEST_FORMAT..).zip(STEPS).filter(|(from, _)| *from >= found) {
            let to = from.saturating_add(1);
            let mut batches = Batches::default();
            step(self, &mut batches)?;
            batches.meta.insert(CHAIN_KEY, seal(CHAIN_KEY, &encode(&(chain, to))));
            self.write(batches)?;
            tracing::info!(event = "migrated", from, to, "database brought to a newer format");
        }
        Ok(())
    }
}

/// Format 4 always says which block is the first one kept whole; before, a database that held all blocks
/// said nothing.
fn first_block_is_recorded(store: &Store, batches: &mut Batches) -> Result<(), StoreError> {
    if store.call(|trees| Ok(trees.meta.get(FIRST_KEY)?))?.is_none() {
        batches.meta.insert(FIRST_KEY, seal(FIRST_KEY, &encode(&1u64)));
    }
    Ok(())
}

/// From format 5 on the last write may have to be completed when the database is opened, which an older
/// program would not do.
fn writes_may_be_unfinished(_: &Store, _: &mut Batches) -> Result<(), StoreError> {
    Ok(())
}
