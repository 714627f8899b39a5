//! Removes the transactions of old blocks while the node runs, if that is wanted: a step at a time, with
//! pauses, so that the database is free for the next block.

use crate::ledger::store::Store;
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
/// back; none when all are kept (0).
///
/// # Errors
/// When the system has no thread to give.
pub fn start(store: Arc<Store>, blocks: u64, stopper: &Stopper) -> std::io::Result<Arc<Store>> {
    if blocks == 0 {
        return Ok(store);
    }
    let (weak, stopping) = (Arc::downgrade(&store), stopper.clone());
    // It lets go of the store between two steps, so nobody waits for its end.
    thread(stopper, "prune", move || run(&weak, blocks, &stopping))?;
    Ok(store)
}

fn run(store: &Weak<Store>, blocks: u64, stopper: &Stopper) {
    let _as_it_was = rustix::process::nice(NICE);
    while !stopper.ordered().is_cancelled() {
        let Some(open) = store.upgrade() else { return };
        let keep_from = open.height().saturating_add(1).saturating_sub(blocks);
        let pause = match open.prune(keep_from) {
            Ok(true) => STEP_PAUSE,
            Ok(false) => LOOK_PAUSE,
            Err(error) => {
                // A disk that is full or gone stops the votes by itself; old blocks can wait.
                tracing::warn!(%error, "old blocks cannot be pruned now");
                LOOK_PAUSE
            }
        };
        drop(open);
        let mut left = pause;
        while !left.is_zero() && !stopper.ordered().is_cancelled() {
            let part = left.min(STOP_LOOK);
            std::thread::sleep(part);
            left = left.saturating_sub(part);
        }
    }
}
