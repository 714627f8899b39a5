//! The ledger: the set of unspent outputs as a concurrent map, and the end of the chain beside it.
//!
//! One writer (the engine, through [`Ledger::apply`]) and any number of readers that never wait for
//! it: look-ups are O(1) in a sharded map, the tip is one atomically swapped pointer, so a reader
//! sees a whole tip or the next whole tip. While a block is applied a reader may meet outputs of
//! either side of it; readers that need one consistent picture use [`Ledger::recount`], which notices
//! and repeats. Durable state is [`store`]'s; this map is always rebuilt from it.
//!
//! Absent: validity rules ([`validate`], [`apply`]) and the pool.

pub mod apply;
pub mod attendance;
pub mod genesis;
pub mod planted;
pub mod registry;
pub mod rewards;
pub mod set_hash;
pub mod snapshot;
pub mod specials;
pub mod store;
pub mod validate;

use crate::ledger::apply::{BlockDiff, State};
use crate::ledger::genesis::Genesis;
use crate::ledger::set_hash::SetHash;
use crate::primitives::amount::Amount;
use crate::primitives::certificate::Qc;
use crate::primitives::chain::NetworkKind;
use crate::primitives::hash::{BlockId, ChainId, Hash, KeyHash};
use crate::primitives::params::Params;
use crate::primitives::transaction::{OutPoint, Utxo};
use arc_swap::ArcSwap;
use dashmap::DashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How often [`Ledger::recount`] starts over when a block is applied meanwhile.
const RECOUNT_TRIES: usize = 8;

/// Why the ledger refuses a change or fails a check.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// A diff that does not continue the tip: a fault of the caller.
    #[error("block {block} follows block {previous}, the tip is {tip} at height {height}")]
    NotNext { block: BlockId, previous: BlockId, tip: BlockId, height: u64 },
    /// The set of unspent outputs is not the one the header commits to.
    #[error(
        "at height {height} the {field} of the unspent outputs is {found}, the header says {expected}: \
         restore a backup or synchronise again"
    )]
    Mismatch { height: u64, field: &'static str, found: String, expected: String },
    /// Blocks came in faster than the outputs can be counted.
    #[error("the ledger changed during each of {RECOUNT_TRIES} counts: try again")]
    Busy,
}

/// Count, sum and set hash over all unspent outputs, as counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recount {
    /// Height it was counted at.
    pub height: u64,
    /// Digest of the set hash.
    pub utxo_hash: Hash,
    /// Number of outputs.
    pub utxo_count: u64,
    /// Sum of their values.
    pub supply: Amount,
}

/// The applied chain state of one node.
#[derive(Debug)]
pub struct Ledger {
    chain: ChainId,
    network: NetworkKind,
    params: Params,
    utxos: DashMap<OutPoint, Utxo>,
    tip: ArcSwap<State>,
    /// Even when at rest, odd while a block is applied; grows with each.
    version: AtomicU64,
}

impl Ledger {
    /// A ledger that starts at the genesis and lives in memory only.
    #[must_use]
    pub fn in_memory(genesis: &Genesis) -> Self {
        Self::from_parts(genesis, genesis.state(), genesis.utxos())
    }

    /// A ledger at `state` with these unspent outputs; [`Ledger::recount`] tells whether they belong
    /// together.
    #[must_use]
    pub fn from_parts(
        genesis: &Genesis,
        state: State,
        utxos: impl IntoIterator<Item = (OutPoint, Utxo)>,
    ) -> Self {
        Self::from_map(genesis, state, utxos.into_iter().collect())
    }

    fn from_map(genesis: &Genesis, state: State, utxos: DashMap<OutPoint, Utxo>) -> Self {
        Self {
            chain: state.chain,
            network: genesis.network,
            params: genesis.params.clone(),
            utxos,
            tip: ArcSwap::from_pointee(state),
            version: AtomicU64::new(0),
        }
    }

    /// The chain.
    #[must_use]
    pub fn chain(&self) -> ChainId {
        self.chain
    }

    /// The kind of network.
    #[must_use]
    pub fn network(&self) -> NetworkKind {
        self.network
    }

    /// Plants a fault in the registry, for tests of the tests.
    #[cfg(feature = "planted-bugs")]
    pub fn plant(&self, bug: planted::Bug) {
        let tip = self.tip();
        let mut registry = (*tip.registry).clone();
        registry.planted = planted::Planted::of(bug);
        self.tip.store(Arc::new(State { registry: Arc::new(registry), ..(*tip).clone() }));
    }

    /// Consensus parameters of the next block.
    #[must_use]
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The end of the chain, whole. Never waits for a writer.
    #[must_use]
    pub fn tip(&self) -> Arc<State> {
        self.tip.load_full()
    }

    /// An unspent output; O(1), takes one shard of the map for the time of a copy.
    #[must_use]
    pub fn utxo(&self, outpoint: &OutPoint) -> Option<Utxo> {
        self.utxos.get(outpoint).map(|utxo| *utxo)
    }

    /// Applies what a decided block changes. One caller at a time.
    ///
    /// # Errors
    /// [`LedgerError::NotNext`] when `diff` was computed on another tip; nothing changed then.
    pub fn apply(&self, diff: &BlockDiff, commit: Qc) -> Result<(), LedgerError> {
        let tip = self.tip();
        if diff.header.previous != tip.block {
            return Err(LedgerError::NotNext {
                block: diff.block,
                previous: diff.header.previous,
                tip: tip.block,
                height: tip.header.height,
            });
        }
        self.version.fetch_add(1, Ordering::AcqRel);
        for (outpoint, _) in &diff.spent {
            self.utxos.remove(outpoint);
        }
        for (outpoint, utxo) in &diff.created {
            self.utxos.insert(*outpoint, *utxo);
        }
        self.tip.store(Arc::new(State {
            chain: tip.chain,
            header: diff.header.clone(),
            block: diff.block,
            commit: Some(commit),
            set_hash: diff.set_hash.clone(),
            registry: Arc::clone(&diff.registry),
            committee: Arc::clone(&diff.committee),
            next_committee: Arc::clone(&diff.next_committee),
            transactions: diff.transactions,
        }));
        self.version.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Visits every unspent output, in no particular order, holding one shard at a time.
    pub fn for_each(&self, mut visit: impl FnMut(&OutPoint, &Utxo)) {
        for entry in &self.utxos {
            visit(entry.key(), entry.value());
        }
    }

    /// Outputs locked to a key, ascending, at most `limit`. Cost: a pass over all outputs.
    #[must_use]
    pub fn unspent_of(&self, key_hash: &KeyHash, limit: usize) -> Vec<(OutPoint, Utxo)> {
        let mut found = std::collections::BTreeMap::new();
        self.for_each(|outpoint, utxo| {
            if utxo.key_hash == *key_hash {
                found.insert(*outpoint, *utxo);
                if found.len() > limit {
                    found.pop_last();
                }
            }
        });
        found.into_iter().collect()
    }

    /// Counts all outputs anew and compares hash, number and sum with the tip's header. Cost: a pass
    /// over all outputs, about 2.5 µs each; run it off the engine.
    ///
    /// # Errors
    /// [`LedgerError::Mismatch`] when the state is not what the chain committed to,
    /// [`LedgerError::Busy`] when blocks kept coming.
    pub fn recount(&self) -> Result<Recount, LedgerError> {
        for _ in 0..RECOUNT_TRIES {
            let version = self.version.load(Ordering::Acquire);
            let tip = self.tip();
            let (mut set_hash, mut count, mut supply) = (SetHash::new(), 0u64, Some(Amount::ZERO));
            self.for_each(|outpoint, utxo| {
                set_hash.add(outpoint, utxo);
                count += 1;
                supply = supply.and_then(|sum| sum.checked_add(utxo.value));
            });
            if version.is_multiple_of(2) && self.version.load(Ordering::Acquire) == version {
                return compare(&tip, set_hash.digest(), count, supply);
            }
            std::thread::yield_now();
        }
        Err(LedgerError::Busy)
    }
}

fn compare(
    tip: &State,
    utxo_hash: Hash,
    utxo_count: u64,
    supply: Option<Amount>,
) -> Result<Recount, LedgerError> {
    let header = &tip.header;
    let mismatch = |field, found: String, expected: String| LedgerError::Mismatch {
        height: header.height,
        field,
        found,
        expected,
    };
    if utxo_count != header.utxo_count {
        return Err(mismatch("number", utxo_count.to_string(), header.utxo_count.to_string()));
    }
    let supply = supply
        .filter(|sum| *sum == header.supply)
        .ok_or_else(|| mismatch("sum", format!("{supply:?}"), header.supply.to_string()))?;
    if utxo_hash != header.utxo_hash {
        return Err(mismatch("set hash", utxo_hash.to_string(), header.utxo_hash.to_string()));
    }
    Ok(Recount { height: header.height, utxo_hash, utxo_count, supply })
}

#[cfg(test)]
pub(crate) mod tests;
