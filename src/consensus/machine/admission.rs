//! Transactions on their way in: `on Tx(T)` of protocol §4.1.

use super::Machine;
use super::pulls::Want;
use crate::consensus::cause::Gap;
use crate::consensus::host::Host;
use crate::consensus::output::{Output, Target};
use crate::primitives::amount::Amount;
use crate::primitives::hash::Txid;
use crate::primitives::message::{Message, PeerId};
use crate::primitives::rejection::Rejection;
use crate::primitives::transaction::{OutPoint, SharedTransaction, TxStatus, Utxo};

impl Machine {
    /// A transaction with valid signatures arrived.
    pub(super) fn on_transaction(
        &mut self,
        host: &mut dyn Host,
        from: Option<PeerId>,
        transaction: &SharedTransaction,
    ) {
        let id = transaction.id();
        self.pulls.done(Want::Body(id));
        self.fill_candidates(transaction);
        let voted = self.era.ballots.contains_key(&id);
        match self.admit(host, from, transaction) {
            Ok(()) => {}
            Err(Rejection::AlreadyKnown) if from.is_some() => {}
            Err(reason) => {
                if reason != Rejection::AlreadyKnown {
                    self.era.gaps.not_prepared(id, Gap::of_rejection(&reason));
                    host.reject(&id, &reason, self.now.monotonic_us);
                }
                self.outputs.push(Output::Rejected { txid: id, from, reason });
            }
        }
        if voted {
            self.find_rivals(host, transaction);
            self.on_body_of_voted(host, transaction);
        }
    }

    /// The pool's part: check, admit, relay, vote.
    fn admit(
        &mut self,
        host: &mut dyn Host,
        from: Option<PeerId>,
        transaction: &SharedTransaction,
    ) -> Result<(), Rejection> {
        let id = transaction.id();
        if self.is_in_last_block(&id) {
            return Err(Rejection::AlreadyKnown);
        }
        // A copy of what is in the pool already must not drop it there.
        if host.body(&id).is_none()
            && let Some(conflict) = self.certified_conflict(transaction)
        {
            return Err(conflict);
        }
        let fee = match self.check_in_pool(host, transaction) {
            Err(Rejection::UnknownInput { .. }) if from.is_some() => {
                self.era.gaps.not_prepared(id, Gap::Parent);
                return host.admit_orphan(SharedTransaction::clone(transaction), self.now.monotonic_us);
            }
            checked => checked?,
        };
        host.admit(SharedTransaction::clone(transaction), fee, self.now.monotonic_us)?;
        self.announce(from, transaction, fee);
        self.adopt_children(host, id);
        self.prepare_with_children(host, id);
        Ok(())
    }

    /// Tells the driver and the peers of a transaction just admitted.
    fn announce(&mut self, from: Option<PeerId>, transaction: &SharedTransaction, fee: Amount) {
        let (txid, size) = (transaction.id(), transaction.size());
        self.outputs.push(Output::Accepted { txid, from, size, fee });
        let to = from.map_or(Target::All, Target::AllExcept);
        self.send(to, Message::Transaction(transaction.body().clone()));
    }

    /// Moves transactions that waited for `parent` from the orphans into the pool.
    pub(super) fn adopt_children(&mut self, host: &mut dyn Host, parent: Txid) {
        let mut parents = vec![parent];
        while let Some(parent) = parents.pop() {
            for child in host.children(&parent) {
                let Ok(fee) = self.check_in_pool(host, &child) else { continue };
                let id = child.id();
                // Already admitted ones are refused here as known.
                if host.admit(SharedTransaction::clone(&child), fee, self.now.monotonic_us).is_ok() {
                    self.announce(None, &child, fee);
                    parents.push(id);
                }
            }
        }
    }

    /// Checks against the ledger and everything in the pool.
    fn check_in_pool(&self, host: &dyn Host, transaction: &SharedTransaction) -> Result<Amount, Rejection> {
        host.check_transaction(transaction, &|outpoint| {
            host.utxo(outpoint).or_else(|| self.pool_output(host, outpoint))
        })
    }

    fn pool_output(&self, host: &dyn Host, outpoint: &OutPoint) -> Option<Utxo> {
        output_of(&self.find_body(host, &outpoint.txid)?, outpoint, self.context.height)
    }

    /// A quorum already prepared something that spends one of its inputs: it can never be final in
    /// this era, and will be settled by the next block.
    fn certified_conflict(&self, transaction: &SharedTransaction) -> Option<Rejection> {
        let id = transaction.id();
        transaction.spends().find_map(|outpoint| {
            let by = *self.era.certified_spends.get(&outpoint)?;
            (by != id).then_some(Rejection::Conflict { outpoint, by })
        })
    }

    /// A body that votes rest on: keep it whatever the pool says, and go on where it was missing.
    fn on_body_of_voted(&mut self, host: &mut dyn Host, transaction: &SharedTransaction) {
        let id = transaction.id();
        let Some(ballot) = self.era.ballots.get(&id) else { return };
        let status = if ballot.is_final { TxStatus::Final } else { TxStatus::Certified };
        if ballot.certified {
            self.mark(host, &id, status);
            self.on_certified_body(host, transaction);
            for child in host.children(&id) {
                self.prepare_with_children(host, child.id());
            }
        }
        self.commit_vote_with_children(host, id);
    }

    /// Body of a transaction from wherever this node holds it.
    pub(super) fn find_body(&self, host: &dyn Host, txid: &Txid) -> Option<SharedTransaction> {
        self.era.bodies.get(txid).cloned().or_else(|| host.body(txid))
    }

    /// Keeps the body of a certified transaction and marks what it spends.
    pub(super) fn on_certified_body(&mut self, host: &mut dyn Host, transaction: &SharedTransaction) {
        self.era.keep_body(transaction);
        host.pin(&transaction.id());
        for outpoint in transaction.spends() {
            self.era.certified_spends.insert(outpoint, transaction.id());
        }
    }

    /// Whether the block before holds it: a late copy is no news.
    fn is_in_last_block(&self, txid: &Txid) -> bool {
        self.last_commit.as_ref().and_then(|last| last.block.as_ref()).is_some_and(|block| {
            block.transactions.binary_search_by_key(txid, |transaction| transaction.id()).is_ok()
        })
    }

    /// Votes anew for what the pool holds, of a conflicting pair the smaller txid first.
    pub(super) fn prepare_pending(&mut self, host: &mut dyn Host) {
        let pending = host.pending();
        for transaction in &pending {
            if let Ok(fee) = self.check_in_pool(host, transaction) {
                let admitted =
                    host.admit(SharedTransaction::clone(transaction), fee, self.now.monotonic_us).is_ok();
                if admitted {
                    self.announce(None, transaction, fee);
                    self.adopt_children(host, transaction.id());
                }
            }
        }
        let mut smallest = std::collections::BTreeMap::<OutPoint, Txid>::new();
        for transaction in &pending {
            for outpoint in transaction.spends() {
                let first = smallest.entry(outpoint).or_insert(transaction.id());
                *first = (*first).min(transaction.id());
            }
        }
        let wins = |transaction: &&SharedTransaction| {
            transaction.spends().all(|outpoint| smallest.get(&outpoint) == Some(&transaction.id()))
        };
        let (first, second): (Vec<_>, Vec<_>) = pending.iter().partition(wins);
        for transaction in first.into_iter().chain(second) {
            self.prepare_with_children(host, transaction.id());
        }
    }

    /// Records how far a transaction has come.
    pub(super) fn mark(&self, host: &mut dyn Host, txid: &Txid, status: TxStatus) {
        host.set_status(txid, status, self.now.monotonic_us);
    }
}

/// The output `outpoint` names of a payment not yet in a block. What a special transaction makes can be
/// spent from the next block on only (protocol §1).
pub(super) fn output_of(parent: &SharedTransaction, outpoint: &OutPoint, height: u64) -> Option<Utxo> {
    if parent.is_special() {
        return None;
    }
    let index = usize::try_from(outpoint.index).ok()?;
    let output = parent.body().outputs.get(index)?;
    Some(Utxo { value: output.value, key_hash: output.key_hash, height })
}
