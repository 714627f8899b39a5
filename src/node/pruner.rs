//! Removes the transactions of old blocks while the node runs, if that is wanted: a step at a time, with
//! pauses, so that the database is free for the next block.

use crate::ledger::store::Store;
use crate::node::halt::Halt;
use crate::node::tasks::{Stopper, thread};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Pause between two steps while there is more to remove: it takes a small share of a disk.
const STEP_PAUSE: Duration = Duration::from_millis(50);
/// Pause when nothing is left to remove: a fraction of an era.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// How often it is looked whether the node stops.
const STOP_LOOK: Duration = Duration::from_millis(50);
/// How much less this thread counts than those that vote.
const NICE: i32 = 10;

/// Starts the thread that keeps the transactions of the newest `blocks` blocks of a store, which is given
/// back; none when all are kept (0). What it writes counts as much as a block: the node halts when it fails.
///
/// # Errors
/// When the system has no thread to give.
pub fn start(
    store: Arc<Store>,
    blocks: u64,
    halt: &Arc<Halt>,
    stopper: &Stopper,
) -> std::io::Result<Arc<Store>> {
    if blocks == 0 {
        return Ok(store);
    }
    let (weak, halt, stopping) = (Arc::downgrade(&store), Arc::clone(halt), stopper.clone());
    // It lets go of the store between two steps, so nobody waits for its end.
    thread(stopper, "prune", move || run(&weak, blocks, &halt, &stopping))?;
    Ok(store)
}

fn run(store: &Weak<Store>, blocks: u64, halt: &Halt, stopper: &Stopper) {
    let _as_it_was = rustix::process::nice(NICE);
    while !stopper.ordered().is_cancelled() && !halt.is_set() {
        let Some(open) = store.upgrade() else { return };
        let Some(pause) = step(&open, blocks, halt) else { return };
        drop(open);
        let mut left = pause;
        while !left.is_zero() && !stopper.ordered().is_cancelled() {
            let part = left.min(STOP_LOOK);
            std::thread::sleep(part);
            left = left.saturating_sub(part);
        }
    }
}

/// Removes some; how long to wait then, `None` when the node was halted.
fn step(store: &Store, blocks: u64, halt: &Halt) -> Option<Duration> {
    let keep_from = store.height().saturating_add(1).saturating_sub(blocks);
    match store.prune(keep_from) {
        Ok(true) => Some(STEP_PAUSE),
        Ok(false) => Some(LOOK_PAUSE),
        Err(error) if error.is_full() => {
            // A full disk stops the votes by itself; old blocks can wait.
            tracing::warn!(%error, "old blocks cannot be pruned now");
            Some(LOOK_PAUSE)
        }
        Err(error) => {
            halt.set(format!("old blocks were not pruned: {error}"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::apply::BlockWrite;
    use crate::ledger::store::StoreOptions;
    use crate::ledger::tests::{extend, genesis_with};
    use crate::node::hub;

    #[test]
    fn a_write_of_pruning_that_fails_halts_the_node() {
        let (dir, genesis) = (tempfile::tempdir().unwrap(), genesis_with(1));
        let store = Store::open(dir.path(), &genesis, StoreOptions { cache_bytes: 4 << 20 }).unwrap();
        let ledger = store.load().unwrap();
        for _ in 0..3 {
            let (block, qc, diff) = extend(&ledger, vec![]);
            store.commit(&BlockWrite { block: Arc::new(block), qc, diff: Arc::new(diff) }).unwrap();
        }
        let halt = Halt::new(hub::tests::hub());
        assert_eq!(step(&store, 2, &halt), Some(LOOK_PAUSE));
        store.fail_syncs();
        assert_eq!(step(&store, 1, &halt), None);
        assert!(halt.is_set());
    }
}
