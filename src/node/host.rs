//! Ledger and pool behind the consensus machine's [`Host`].
//!
//! Deterministic: equal calls give equal answers, whatever hash seeds, clocks and disks do; the
//! simulation drives the machine with this same type. A block's effect is computed once, when it is
//! built or validated, and kept by block id until its commit. Absent: disk; a node takes what has to
//! be stored from the [`WriteQueue`].

use crate::consensus::host::{BlockFault, Host, Registered, Tip};
use crate::ledger::Ledger;
use crate::ledger::apply::{BlockDiff, BlockError, BlockWrite, Contents, State, outcome, valid_block};
use crate::ledger::registry::Entry;
use crate::ledger::specials::check_special;
use crate::ledger::validate::{Rules, check_transaction};
use crate::pool::Pool;
use crate::primitives::amount::Amount;
use crate::primitives::block::{Block, last_commit_root, tx_root};
use crate::primitives::certificate::Qc;
use crate::primitives::hash::{BlockId, ChainId, MasternodeId, Txid};
use crate::primitives::keys::PublicKey;
use crate::primitives::params::Params;
use crate::primitives::rejection::Rejection;
use crate::primitives::transaction::{OutPoint, SealedTransaction, SharedTransaction, TxStatus, Utxo};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;

/// Candidates of one height whose effect is kept; one a round, and few rounds fail. A full mainnet
/// body makes about 10 MB of it.
const OUTCOMES_MAX: usize = 4;
/// Decided blocks not yet taken for the store. The driver takes each right after the step that
/// decided it, so more than this means nobody takes them.
const WRITES_MAX: usize = 256;

/// Decided blocks in order of height, on their way to the store.
#[derive(Debug, Default)]
pub struct WriteQueue(Mutex<VecDeque<BlockWrite>>);

impl WriteQueue {
    /// Takes the oldest block.
    #[must_use]
    pub fn pop(&self) -> Option<BlockWrite> {
        self.0.lock().pop_front()
    }

    /// How many blocks wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn push(&self, write: BlockWrite) -> Result<(), BlockFault> {
        let mut queue = self.0.lock();
        if queue.len() >= WRITES_MAX {
            let text = format!("{WRITES_MAX} decided blocks wait for the database: it does not keep up");
            return Err(BlockFault(text));
        }
        queue.push_back(write);
        Ok(())
    }
}

/// Ledger and pool of one node as its machine sees them.
#[derive(Debug)]
pub struct ChainHost {
    ledger: Arc<Ledger>,
    pool: Arc<Pool>,
    outcomes: Mutex<VecDeque<Arc<BlockDiff>>>,
    writes: Option<Arc<WriteQueue>>,
    /// Time of the latest input that carried one; ages rejections of a block's rivals.
    latest_us: u64,
}

impl ChainHost {
    /// A host over a ledger and a pool that nobody else writes to; nothing is stored.
    #[must_use]
    pub fn new(ledger: Arc<Ledger>, pool: Arc<Pool>) -> Self {
        Self { ledger, pool, outcomes: Mutex::default(), writes: None, latest_us: 0 }
    }

    /// As [`ChainHost::new`], with a queue that receives every decided block for the store.
    #[must_use]
    pub fn with_writes(ledger: Arc<Ledger>, pool: Arc<Pool>) -> (Self, Arc<WriteQueue>) {
        let queue = Arc::new(WriteQueue::default());
        let host = Self { writes: Some(Arc::clone(&queue)), ..Self::new(ledger, pool) };
        (host, queue)
    }

    /// The ledger.
    #[must_use]
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// The pool.
    #[must_use]
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    fn keep(&self, diff: Arc<BlockDiff>) {
        let mut outcomes = self.outcomes.lock();
        outcomes.push_back(diff);
        if outcomes.len() > OUTCOMES_MAX {
            outcomes.pop_front();
        }
    }

    /// Drops special transactions that the registry forbids now: theirs is a change already made, a
    /// name taken, a masternode gone.
    fn drop_outdated_specials(&self) {
        let tip = self.ledger.tip();
        for transaction in self.pool.specials() {
            let next = tip.header.height + 1;
            if let Err(reason) = check_special(&tip.registry, self.ledger.params(), next, &transaction) {
                self.pool.reject(&transaction.id(), &reason, self.latest_us);
            }
        }
    }

    /// The kept effect of a block on the present tip.
    fn kept(&self, block: BlockId, tip: &State) -> Option<Arc<BlockDiff>> {
        let outcomes = self.outcomes.lock();
        outcomes.iter().find(|diff| diff.block == block && diff.header.previous == tip.block).cloned()
    }

    /// The effect of a block, from memory or computed; either way its contents match its header.
    fn effect(&self, block: &Block) -> Result<Arc<BlockDiff>, BlockFault> {
        let tip = self.ledger.tip();
        if let Some(diff) = self.kept(block.id(), &tip) {
            let ids: Vec<Txid> = block.transactions.iter().map(|transaction| transaction.id()).collect();
            let commit = last_commit_root(block.last_commit.as_ref());
            if tx_root(&ids) == diff.header.tx_root && commit == diff.header.last_commit_root {
                return Ok(diff);
            }
        }
        let utxo = |outpoint: &OutPoint| self.ledger.utxo(outpoint);
        let diff = valid_block(&tip, self.ledger.params(), block, &utxo).map_err(fault)?;
        let diff = Arc::new(diff);
        self.keep(Arc::clone(&diff));
        Ok(diff)
    }
}

fn fault(error: BlockError) -> BlockFault {
    BlockFault(error.to_string())
}

fn registered(entry: &Entry) -> Registered {
    Registered {
        id: entry.id,
        name: entry.name.clone(),
        vote_key: entry.vote_key,
        former_keys: entry.former_keys.iter().map(|former| former.key).collect(),
        status: entry.status,
        sequence: entry.sequence,
        resumed: entry.resumed.map(|last| (last.height, last.nonce)),
        collateral: entry.collateral,
        weight: entry.tier.weight(),
    }
}

impl Host for ChainHost {
    fn chain(&self) -> ChainId {
        self.ledger.chain()
    }

    fn params(&self) -> &Params {
        self.ledger.params()
    }

    fn tip(&self) -> Tip {
        let state = self.ledger.tip();
        Tip {
            header: Arc::new(state.header.clone()),
            height: state.header.height,
            block: state.block,
            parent: if state.header.height == 0 { BlockId::default() } else { state.header.previous },
            time_ms: state.header.time_ms,
            commit: state.commit.clone(),
            committee: Arc::clone(&state.committee),
            next_committee: Arc::clone(&state.next_committee),
        }
    }

    fn utxo(&self, outpoint: &OutPoint) -> Option<Utxo> {
        self.ledger.utxo(outpoint)
    }

    fn registered(&self, id: &MasternodeId) -> Option<Registered> {
        self.ledger.tip().registry.entry(*id).map(registered)
    }

    fn masternode_of(&self, vote_key: &PublicKey) -> Option<Registered> {
        self.ledger.tip().registry.voting_with(vote_key).map(registered)
    }

    fn check_transaction(
        &self,
        transaction: &SealedTransaction,
        resolve: &dyn Fn(&OutPoint) -> Option<Utxo>,
    ) -> Result<Amount, Rejection> {
        let tip = self.ledger.tip();
        let (params, height) = (self.ledger.params(), tip.header.height + 1);
        check_transaction(&Rules { params, height, registry: &tip.registry }, transaction, resolve)
    }

    fn build(
        &self,
        proposer: MasternodeId,
        time_ms: u64,
        commit: Option<Qc>,
        mut transactions: Vec<SharedTransaction>,
    ) -> Result<Block, BlockFault> {
        transactions.sort_unstable_by_key(|transaction| transaction.id());
        let contents =
            Contents { proposer, time_ms, last_commit: commit.as_ref(), transactions: &transactions };
        let utxo = |outpoint: &OutPoint| self.ledger.utxo(outpoint);
        let diff = outcome(&self.ledger.tip(), self.ledger.params(), &contents, &utxo).map_err(fault)?;
        let header = diff.header.clone();
        self.keep(Arc::new(diff));
        Ok(Block { header, last_commit: commit, transactions })
    }

    fn validate(&self, block: &Block) -> Result<(), BlockFault> {
        self.effect(block).map(|_| ())
    }

    fn commit(&mut self, block: &Arc<Block>, qc: &Qc) -> Result<(), BlockFault> {
        let diff = self.effect(block)?;
        if let Some(queue) = &self.writes {
            let write = BlockWrite { block: Arc::clone(block), qc: qc.clone(), diff: Arc::clone(&diff) };
            queue.push(write)?;
        }
        self.ledger.apply(&diff, qc.clone()).map_err(|error| BlockFault(error.to_string()))?;
        self.pool.remove_for_block(block, block.header.height, self.latest_us);
        self.drop_outdated_specials();
        // All other candidates were of this height.
        self.outcomes.lock().clear();
        Ok(())
    }

    fn admit(&mut self, transaction: SharedTransaction, fee: Amount, now_us: u64) -> Result<(), Rejection> {
        self.latest_us = now_us;
        self.pool.insert(transaction, fee, now_us).map(|_| ())
    }

    fn admit_orphan(&mut self, transaction: SharedTransaction, now_us: u64) -> Result<(), Rejection> {
        self.latest_us = now_us;
        self.pool.insert_orphan(transaction, now_us)
    }

    fn body(&self, txid: &Txid) -> Option<SharedTransaction> {
        self.pool.body(txid)
    }

    fn spenders(&self, outpoint: &OutPoint) -> Vec<Txid> {
        self.pool.spenders(outpoint)
    }

    fn children(&self, txid: &Txid) -> Vec<SharedTransaction> {
        self.pool.children(txid)
    }

    fn pending(&self) -> Vec<SharedTransaction> {
        self.pool.pending()
    }

    fn pin(&mut self, txid: &Txid) {
        self.pool.pin(txid);
    }

    fn set_status(&mut self, txid: &Txid, status: TxStatus, now_us: u64) {
        self.latest_us = now_us;
        self.pool.set_status(txid, status);
    }

    fn reject(&mut self, txid: &Txid, reason: &Rejection, now_us: u64) {
        self.latest_us = now_us;
        self.pool.reject(txid, reason, now_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::genesis::Genesis;
    use crate::ledger::tests::{commit_of, funds, genesis_with, proposer, sealed};
    use crate::pool::PoolLimits;

    fn host(genesis: &Genesis) -> (ChainHost, Arc<WriteQueue>) {
        let ledger = Arc::new(Ledger::in_memory(genesis));
        ChainHost::with_writes(ledger, Arc::new(Pool::new(PoolLimits::default())))
    }

    fn admit(host: &mut ChainHost, transaction: &SharedTransaction) {
        let fee = host.check_transaction(transaction, &|outpoint| host.utxo(outpoint)).unwrap();
        host.admit(SharedTransaction::clone(transaction), fee, 7).unwrap();
    }

    fn build(host: &ChainHost, transactions: Vec<SharedTransaction>) -> Block {
        let tip = host.tip();
        host.build(proposer(host.ledger()), tip.time_ms + 1, tip.commit, transactions).unwrap()
    }

    fn commit(host: &mut ChainHost, block: &Block) -> Qc {
        let qc = commit_of(host.chain(), &block.header, host.ledger());
        host.commit(&Arc::new(block.clone()), &qc).unwrap();
        qc
    }

    #[test]
    fn a_built_block_is_valid_elsewhere_and_leads_both_to_one_state() {
        let genesis = genesis_with(4);
        let ((mut builder, _), (mut other, _)) = (host(&genesis), host(&genesis));
        for height in 1..=4 {
            let fund = funds(&genesis)[height - 1];
            let block = build(&builder, vec![sealed(&fund, 5000, 0)]);
            other.validate(&block).unwrap();
            builder.validate(&block).unwrap();
            let qc = commit(&mut builder, &block);
            other.commit(&Arc::new(block.clone()), &qc).unwrap();
            assert_eq!(builder.ledger().tip().header, other.ledger().tip().header);
            assert_eq!(other.tip().block, block.id());
            assert_eq!(other.tip().commit, Some(qc));
            other.ledger().recount().unwrap();
        }
    }

    #[test]
    fn a_committed_block_empties_the_pool_and_reaches_the_store_queue_in_order() {
        let genesis = genesis_with(3);
        let (mut host, queue) = host(&genesis);
        let [a, b, _] = funds(&genesis)[..] else { panic!("three funds") };
        let (kept, rival, winner) = (sealed(&b, 5000, 0), sealed(&a, 5000, 1), sealed(&a, 6000, 2));
        for transaction in [&kept, &rival, &winner] {
            admit(&mut host, transaction);
        }
        host.pin(&kept.id());
        let first = build(&host, vec![winner.clone()]);
        commit(&mut host, &first);
        assert_eq!(host.pending().iter().map(|left| left.id()).collect::<Vec<_>>(), [kept.id()]);
        assert_eq!(host.pool().state(&winner.id(), 0).unwrap().status, TxStatus::Confirmed);
        assert_eq!(host.pool().state(&rival.id(), 0).unwrap().status, TxStatus::Rejected);
        let second = build(&host, vec![kept]);
        commit(&mut host, &second);
        let stored: Vec<BlockId> = std::iter::from_fn(|| queue.pop()).map(|write| write.diff.block).collect();
        assert_eq!(stored, [first.id(), second.id()]);
    }

    #[test]
    fn specials_that_the_new_registry_forbids_leave_the_pool_and_others_stay() {
        use crate::ledger::tests::key;
        use crate::wallet::special::{Change, Changes, unbond, update};
        let genesis = crate::ledger::genesis::Genesis {
            masternodes: (1..=5).map(crate::ledger::tests::founder).collect(),
            ..genesis_with(0)
        };
        let (mut host, _) = host(&genesis);
        let change = |host: &ChainHost, seed: u8| {
            let entry = host.masternode_of(&key(seed).public()).unwrap();
            Change { validator: entry.id, sequence: entry.sequence + 1, expiry: 50 }
        };
        let payout = Some(key(9).public().key_hash());
        let chain = host.chain();
        let first = update(chain, change(&host, 1), &key(1), &Changes::default());
        let second = update(chain, change(&host, 1), &key(1), &Changes { payout, ..Changes::default() });
        let (leaving, waiting) =
            (unbond(chain, change(&host, 2), &key(2)), unbond(chain, change(&host, 3), &key(3)));
        let sealed = [&first, &second, &leaving, &waiting].map(|body| SealedTransaction::new(body.clone()));
        sealed.iter().for_each(|transaction| admit(&mut host, transaction));
        let block = build(&host, vec![sealed[0].clone()]);
        commit(&mut host, &block);
        let left: Vec<Txid> = host.pending().iter().map(|left| left.id()).collect();
        assert_eq!(left, [leaving.id(), waiting.id()]);
        let reason = host.pool().state(&second.id(), 0).unwrap().rejection.unwrap();
        assert_eq!(reason.code(), "wrong-sequence");
        // One of five may leave; then the other still may not be one too many.
        let block = build(&host, vec![sealed[2].clone()]);
        commit(&mut host, &block);
        assert_eq!(host.pending().len(), 1, "four are active: one more may go");
        let block = build(&host, vec![sealed[3].clone()]);
        commit(&mut host, &block);
        assert_eq!((host.tip().next_committee.len(), host.pending().len()), (3, 0));
    }

    #[test]
    fn a_known_header_with_other_contents_is_refused() {
        let genesis = genesis_with(2);
        let (host, _) = host(&genesis);
        let block = build(&host, vec![sealed(&funds(&genesis)[0], 5000, 0)]);
        host.validate(&block).unwrap();
        let swapped = Block { transactions: vec![sealed(&funds(&genesis)[1], 5000, 0)], ..block.clone() };
        assert_eq!(swapped.id(), block.id());
        assert!(host.validate(&swapped).unwrap_err().0.contains("tx_root"));
        let emptied = Block { transactions: vec![], ..block };
        assert!(host.validate(&emptied).is_err());
    }

    #[test]
    fn a_block_of_the_height_before_is_refused() {
        let genesis = genesis_with(2);
        let (mut host, queue) = host(&genesis);
        let (block, rival) = (build(&host, vec![]), build(&host, vec![sealed(&funds(&genesis)[0], 5000, 0)]));
        let qc = commit(&mut host, &block);
        assert!(host.validate(&rival).is_err());
        assert!(host.commit(&Arc::new(rival), &qc).is_err());
        assert_eq!((host.tip().height, queue.len()), (1, 1));
    }

    #[test]
    fn a_queue_nobody_empties_stops_the_host_before_it_changes() {
        let genesis = genesis_with(0);
        let (mut host, queue) = host(&genesis);
        for _ in 0..WRITES_MAX {
            let block = build(&host, vec![]);
            commit(&mut host, &block);
        }
        let block = build(&host, vec![]);
        let qc = commit_of(host.chain(), &block.header, host.ledger());
        assert!(host.commit(&Arc::new(block.clone()), &qc).is_err());
        assert_eq!(host.tip().height, WRITES_MAX as u64);
        assert!(queue.pop().is_some());
        host.commit(&Arc::new(block), &qc).unwrap();
    }
}
