//! The whole state read at the start, and checked against the last header; and the same check alone.
//!
//! All cores count together, each its own ranges of keys: the set hash does not depend on the order.

use crate::ledger::apply::State;
use crate::ledger::registry::Registry;
use crate::ledger::set_hash::SetHash;
use crate::ledger::store::folder::StoreError;
use crate::ledger::store::records::{REGISTRY_PLACE, RegistryRecord, Stream, parse_utxo};
use crate::ledger::store::{Store, read_tip};
use crate::ledger::{Ledger, Recount};
use crate::primitives::amount::Amount;
use crate::primitives::block::Header;
use crate::primitives::committee::Committee;
use crate::primitives::encoding::decode_stored;
use crate::primitives::transaction::{OutPoint, Utxo};
use dashmap::DashMap;
use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

/// Most threads that count: the database is read by all of them.
const COUNTERS_MAX: usize = 8;
/// Most outputs for which room is made before they are read: what a header says is checked only then.
const OUTPUTS_EXPECTED_MAX: usize = 1 << 24;

impl Store {
    pub(super) fn malformed_output(&self) -> StoreError {
        malformed(self.dir())
    }

    /// The whole ledger, its set hash recounted and compared with the last header. Cost: a pass over all
    /// outputs, about 2 µs each on two cores.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when anything disagrees.
    pub fn load(&self) -> Result<Ledger, StoreError> {
        let tip = self.call(|trees| read_tip(&self.dir, trees))?;
        let record = self
            .record(tip.height)?
            .filter(|record| record.header.id() == tip.block && record.header.height == tip.height)
            .ok_or_else(|| {
                StoreError::corrupt(&self.dir, format!("block {} is not the recorded tip", tip.height))
            })?;
        let header = record.header;
        let (registry, committee) = self.registry()?;
        let next_committee = registry.committee();
        let same = header.registry_root == registry.root()
            && header.committee_root == committee.root()
            && header.next_committee_root == next_committee.root()
            && header.params_root == self.genesis.params.root();
        if !same {
            return Err(StoreError::corrupt(
                &self.dir,
                "the last header names another registry, committee or parameters",
            ));
        }
        let count = usize::try_from(header.utxo_count).unwrap_or(0).min(OUTPUTS_EXPECTED_MAX);
        let utxos = DashMap::with_capacity(count);
        let sums = self.count(&|outpoint, utxo| {
            utxos.insert(outpoint, utxo);
        })?;
        self.compare(&header, &sums)?;
        let state = State {
            chain: self.genesis.chain_id(),
            block: tip.block,
            commit: record.commit,
            set_hash: sums.set_hash,
            registry: Arc::new(registry),
            committee: Arc::new(committee),
            next_committee: Arc::new(next_committee),
            transactions: record.transactions,
            header,
        };
        Ok(Ledger::from_map(&self.genesis, state, utxos))
    }

    /// Counts all outputs in the database and compares number, sum and set hash with the last header. For
    /// a store that nobody writes to; of one in use, [`Store::scan`] shows the outputs of one block. Memory
    /// does not depend on their number. Cost: a pass over all outputs, about 2 µs each on two cores.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when they are not what the chain committed to.
    pub fn recount(&self) -> Result<Recount, StoreError> {
        let height = self.height();
        let header = self.header(height)?.ok_or_else(|| {
            StoreError::corrupt(&self.dir, format!("the header of block {height} is missing"))
        })?;
        let sums = self.count(&|_, _| {})?;
        self.compare(&header, &sums)?;
        let utxo_hash = sums.set_hash.digest();
        Ok(Recount { height, utxo_hash, utxo_count: sums.count, supply: header.supply })
    }

    /// Shows every output once to `visit`, in no order, on all cores, and adds them up.
    fn count(&self, visit: &(impl Fn(OutPoint, Utxo) + Sync)) -> Result<Sums, StoreError> {
        let next = AtomicU16::new(0);
        let work = || -> Result<Sums, StoreError> {
            let mut sums = Sums::default();
            while let Ok(part) = u8::try_from(next.fetch_add(1, Ordering::Relaxed)) {
                self.call(|trees| {
                    for entry in trees.utxos.scan_prefix([part]) {
                        let (key, value) = entry?;
                        let output = parse_utxo(&key, &value);
                        let (outpoint, utxo) = output.ok_or_else(|| self.malformed_output())?;
                        sums.add(&outpoint, &utxo);
                        visit(outpoint, utxo);
                    }
                    Ok(())
                })?;
            }
            Ok(sums)
        };
        let others = std::thread::available_parallelism().map_or(1, NonZero::get).min(COUNTERS_MAX) - 1;
        std::thread::scope(|scope| {
            let others: Vec<_> = (0..others).map(|_| scope.spawn(work)).collect();
            let mut sums = work()?;
            for other in others {
                let counted = other.join();
                let failed = || StoreError::corrupt(&self.dir, "a count of the outputs broke off");
                sums.combine(&counted.map_err(|_| failed())??);
            }
            Ok(sums)
        })
    }

    /// Compares number, sum and set hash of the outputs with the header.
    fn compare(&self, header: &Header, sums: &Sums) -> Result<(), StoreError> {
        let right = sums.count == header.utxo_count
            && sums.supply == Some(header.supply)
            && sums.set_hash.digest() == header.utxo_hash;
        if right {
            return Ok(());
        }
        let reason = format!(
            "{} unspent outputs do not have the state hash {} of block {}",
            sums.count, header.utxo_hash, header.height
        );
        Err(StoreError::corrupt(&self.dir, reason))
    }

    /// The masternodes after the last block, and the committee of that block.
    pub(super) fn registry(&self) -> Result<(Registry, Committee), StoreError> {
        let damaged = || StoreError::corrupt(&self.dir, "the registry is incomplete or fails its checksum");
        let bytes = self.whole(REGISTRY_PLACE, Stream::Registry, damaged)?;
        let record: RegistryRecord = decode_stored(&bytes).map_err(|_| damaged())?;
        Ok((Registry::from_parts(record.parts), Committee::new(record.committee)))
    }
}

/// Number, sum and set hash of outputs.
struct Sums {
    set_hash: SetHash,
    count: u64,
    /// `None` when it is more than there can be.
    supply: Option<Amount>,
}

impl Default for Sums {
    fn default() -> Self {
        Self { set_hash: SetHash::new(), count: 0, supply: Some(Amount::ZERO) }
    }
}

impl Sums {
    fn add(&mut self, outpoint: &OutPoint, utxo: &Utxo) {
        self.set_hash.add(outpoint, utxo);
        self.count += 1;
        self.supply = self.supply.and_then(|sum| sum.checked_add(utxo.value));
    }

    fn combine(&mut self, other: &Self) {
        self.set_hash.combine(&other.set_hash);
        self.count += other.count;
        self.supply = self.supply.zip(other.supply).and_then(|(one, two)| one.checked_add(two));
    }
}

fn malformed(dir: &Path) -> StoreError {
    StoreError::corrupt(dir, "an unspent output is malformed")
}
