//! Decided blocks for peers that are behind, read off the engine; and the thread that stores them.
//!
//! A block is served from memory until the store has it, then from the store.

use crate::consensus::trust::HEADERS_MAX;
use crate::ledger::apply::BlockWrite;
use crate::ledger::store::Store;
use crate::ledger::store::folder::StoreError;
use crate::network::Network;
use crate::node::halt::Halt;
use crate::node::served::budget::Rate;
use crate::node::served::{Desk, Limits, Send, Served, behind_by, send_by};
use crate::node::snapshots::maker::Clerk;
use crate::node::space::{Space, Writer};
use crate::primitives::block::{Block, Header, Outline};
use crate::primitives::certificate::Qc;
use crate::primitives::hash::Txid;
use crate::primitives::message::Message;
use crate::primitives::transaction::Transaction;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;

/// What one peer may ask for (protocol §8); it needs few blocks at a time.
const LIMITS: Limits = Limits { of_peer_max: 4, rate: Rate { bytes: 16 << 20, burst_bytes: 32 << 20 } };
/// Most blocks in one write of the database.
const WRITE_BLOCKS_MAX: usize = 64;
/// Most bytes of transactions in them, unless one block has more: what a write takes of memory, twice.
const WRITE_BYTES_MAX: u64 = 16 << 20;
/// Bytes of bodies in one answer; well below the largest frame.
pub const PAGE_BYTES: u64 = 1 << 20;

/// Decided blocks that the store does not have yet; bounded by the queues in front of it.
#[derive(Debug, Default)]
pub struct RecentBlocks(Mutex<VecDeque<(Arc<Block>, Qc)>>);

impl RecentBlocks {
    /// Adds a decided block.
    pub fn add(&self, block: Arc<Block>, qc: Qc) {
        self.0.lock().push_back((block, qc));
    }

    /// Drops what the store has.
    pub fn stored(&self, height: u64) {
        self.0.lock().retain(|(block, _)| block.header.height > height);
    }

    /// The block of a height.
    #[must_use]
    pub fn find(&self, height: u64) -> Option<(Arc<Block>, Qc)> {
        self.0.lock().iter().find(|(block, _)| block.header.height == height).cloned()
    }

    /// Height and body of a transaction in one of them.
    #[must_use]
    pub fn transaction(&self, txid: &Txid) -> Option<(u64, Transaction)> {
        self.0.lock().iter().find_map(|(block, _)| {
            let at = block.transactions.binary_search_by_key(txid, |transaction| transaction.id()).ok()?;
            block.transactions.get(at).map(|found| (block.header.height, found.body().clone()))
        })
    }
}

/// The store thread: stores blocks in order until the effects are gone, all that wait in one write. A full
/// disk is waited out; after any other failure nothing is stored any more. The vote log keeps what is not
/// stored.
pub fn store_blocks(
    blocks: &Receiver<BlockWrite>,
    store: &Arc<Store>,
    durable: &AtomicU64,
    recent: &RecentBlocks,
    (halt, space): (&Halt, &Space),
    snapshots: &Clerk,
) {
    let mut next = None;
    while let Some(first) = next.take().or_else(|| blocks.recv().ok()) {
        let writes = gather(first, blocks, &mut next, |write| snapshots.is_due(&write.diff.header));
        let Some(last) = writes.last().filter(|_| !halt.is_set()) else { continue };
        let height = last.diff.header.height;
        match commit(store, &writes, space) {
            Ok(()) => {
                durable.store(height, Ordering::Release);
                recent.stored(height);
                snapshots.stored(last, || Ok(Box::new(store.scan()?)));
            }
            Err(error) => halt.set(format!("block {height} was not stored: {error}")),
        }
    }
}

/// The first block and those that wait behind it, up to one after which something is `due`, as far as they
/// fit one write; the one that does not fit goes to `next`.
fn gather(
    first: BlockWrite,
    blocks: &Receiver<BlockWrite>,
    next: &mut Option<BlockWrite>,
    due: impl Fn(&BlockWrite) -> bool,
) -> Vec<BlockWrite> {
    let mut bytes = first.block.header.body_bytes;
    let mut writes = vec![first];
    while writes.len() < WRITE_BLOCKS_MAX
        && !writes.last().is_some_and(&due)
        && let Ok(write) = blocks.try_recv()
    {
        bytes += write.block.header.body_bytes;
        if bytes > WRITE_BYTES_MAX {
            *next = Some(write);
            break;
        }
        writes.push(write);
    }
    writes
}

fn commit(store: &Store, writes: &[BlockWrite], space: &Space) -> Result<(), StoreError> {
    let mut result = store.commit_all(writes);
    while let Err(error) = &result
        && error.is_full()
        && space.wait(Writer::Store, error.to_string())
    {
        result = store.reopen().and_then(|()| store.commit_all(writes));
    }
    if result.is_ok() {
        space.found(Writer::Store);
    }
    result
}

/// Answers requests for decided blocks, on a thread of its own.
pub struct BlockServer {
    served: Served,
    store: Arc<Store>,
    recent: Arc<RecentBlocks>,
}

impl BlockServer {
    /// A server whose answers go to `send`, and where its requests go.
    #[must_use]
    pub fn new(store: Arc<Store>, recent: Arc<RecentBlocks>, send: Send) -> (Desk, Self) {
        let (desk, served) = Served::new(LIMITS, send);
        (desk, Self { served, store, recent })
    }

    /// A server over a network: no answer is made for whoever does not read those it was sent.
    #[must_use]
    pub fn over(network: &Arc<Network>, store: &Arc<Store>, recent: &Arc<RecentBlocks>) -> (Desk, Self) {
        let (desk, server) = Self::new(Arc::clone(store), Arc::clone(recent), send_by(network));
        (desk, Self { served: server.served.unless(behind_by(network)), ..server })
    }

    /// Answers until nobody asks any more.
    pub fn run(&self) {
        self.served.run(|request| self.answer(request));
    }

    /// `None` for what this node does not have.
    fn answer(&self, request: &Message) -> Option<Message> {
        match request {
            Message::GetBlock { height } => match self.outline(*height) {
                Some((outline, qc)) => Some(Message::Block { outline, qc }),
                None => self.not_kept(*height),
            },
            Message::GetBlockBodies { height, from } => {
                if let Some(not_kept) = self.not_kept(*height) {
                    return Some(not_kept);
                }
                let transactions = self.bodies(*height, *from)?;
                if transactions.is_empty() {
                    // Pruned a moment ago, or there is nothing to be asked for.
                    return self.not_kept(*height);
                }
                Some(Message::BlockBodies { height: *height, from: *from, transactions })
            }
            Message::GetHeaders { last, count } => Some(Message::Headers(self.headers(*last, *count))),
            _ => None,
        }
    }

    /// What whoever asks for a block of before the snapshot this node began with is told.
    fn not_kept(&self, height: u64) -> Option<Message> {
        let oldest = self.store.first_block().ok()?;
        (height < oldest).then_some(Message::BlockNotKept { height, oldest })
    }

    /// Headers up to `last`, ascending: none when one of them is not here.
    fn headers(&self, last: u64, count: u16) -> Vec<Header> {
        let count = u64::from(count.min(HEADERS_MAX));
        let header = |height: u64| match self.recent.find(height) {
            Some((block, _)) => Some(block.header.clone()),
            None => self.store.header(height).unwrap_or_else(|error| {
                tracing::error!(height, %error, "a stored header cannot be read");
                None
            }),
        };
        let first = last.saturating_sub(count.saturating_sub(1)).max(1);
        (first..=last).map(header).collect::<Option<_>>().unwrap_or_default()
    }

    fn outline(&self, height: u64) -> Option<(Outline, Qc)> {
        if let Some((block, qc)) = self.recent.find(height) {
            return Some((block.outline(), qc));
        }
        match self.store.outline(height) {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(height, %error, "a stored block cannot be read");
                None
            }
        }
    }

    fn bodies(&self, height: u64, from: u32) -> Option<Vec<Transaction>> {
        if let Some((block, _)) = self.recent.find(height) {
            return Some(page(&block, from));
        }
        match self.store.bodies(height, from, PAGE_BYTES) {
            Ok(bodies) => Some(bodies),
            Err(error) => {
                tracing::error!(height, from, %error, "stored transactions cannot be read");
                None
            }
        }
    }
}

/// Bodies from an index on, at least one unless there are no more.
fn page(block: &Block, from: u32) -> Vec<Transaction> {
    let mut bytes = 0;
    let rest = block.transactions.get(from as usize..).unwrap_or_default().iter();
    rest.take_while(|transaction| {
        let first = bytes == 0;
        bytes += transaction.size();
        first || bytes <= PAGE_BYTES
    })
    .map(|transaction| transaction.body().clone())
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Ledger;
    use crate::ledger::tests::{extend, genesis_with};
    use std::sync::mpsc::sync_channel;

    #[test]
    fn blocks_that_wait_are_written_together_up_to_one_after_which_a_snapshot_is_due() {
        let ledger = Ledger::in_memory(&genesis_with(1));
        let (queue, blocks) = sync_channel(8);
        for _ in 0..6 {
            let (block, qc, diff) = extend(&ledger, Vec::new());
            queue.send(BlockWrite { block: Arc::new(block), qc, diff: Arc::new(diff) }).unwrap();
        }
        let mut next = None;
        let heights = |next: &mut Option<BlockWrite>| {
            let first = next.take().or_else(|| blocks.try_recv().ok()).unwrap();
            let due = |write: &BlockWrite| write.diff.header.height == 4;
            let writes = gather(first, &blocks, next, due);
            writes.iter().map(|write| write.diff.header.height).collect::<Vec<_>>()
        };
        assert_eq!(heights(&mut next), [1, 2, 3, 4]);
        assert_eq!(heights(&mut next), [5, 6]);
        assert!(next.is_none());
    }

    #[test]
    fn a_peer_is_sent_its_share_of_bytes_and_others_are_answered_meanwhile() {
        use crate::ledger::store::StoreOptions;
        use crate::primitives::keys::PublicKey;
        use crate::primitives::message::PeerId;
        let dir = tempfile::tempdir().unwrap();
        let genesis = genesis_with(1);
        let store = Store::open(dir.path(), &genesis, StoreOptions { cache_bytes: 4 << 20 }).unwrap();
        let (block, qc, _) = extend(&Ledger::in_memory(&genesis), Vec::new());
        let recent = Arc::new(RecentBlocks::default());
        recent.add(Arc::new(block), qc);
        let (sender, sent) = std::sync::mpsc::channel();
        let send = Box::new(move |peer, answer: &Message| sender.send((peer, answer.clone())).unwrap());
        let (desk, server) = BlockServer::new(Arc::new(store), recent, send);
        let peer = |seed| PeerId(PublicKey([seed; 32]));
        (0..100).for_each(|_| desk.ask(peer(1), Message::GetBlock { height: 1 }));
        desk.ask(peer(2), Message::GetHeaders { last: 1, count: 1 });
        drop(desk);
        server.run();
        let sent: Vec<_> = sent.try_iter().collect();
        assert_eq!(sent.iter().filter(|(to, _)| *to == peer(1)).count(), LIMITS.of_peer_max as usize);
        assert!(
            matches!(&sent[..], [.., (to, Message::Headers(headers))] if *to == peer(2) && headers.len() == 1)
        );
        // What the protocol says of it.
        assert_eq!((LIMITS.rate.bytes, LIMITS.rate.burst_bytes), (16 << 20, 32 << 20));
    }
}
