//! The whole state read at the start, and checked against the last header.

use crate::ledger::Ledger;
use crate::ledger::apply::State;
use crate::ledger::registry::Registry;
use crate::ledger::set_hash::SetHash;
use crate::ledger::store::failure::Failure;
use crate::ledger::store::folder::StoreError;
use crate::ledger::store::records::{REGISTRY_PLACE, RegistryRecord, Stream, parse_utxo};
use crate::ledger::store::{Store, read_tip};
use crate::primitives::amount::Amount;
use crate::primitives::committee::Committee;
use crate::primitives::encoding::decode_stored;
use crate::primitives::transaction::{OutPoint, Utxo};
use std::path::Path;
use std::sync::Arc;

impl Store {
    pub(super) fn malformed_output(&self) -> StoreError {
        malformed(self.dir())
    }

    /// The whole ledger, its set hash recounted and compared with the last header. Cost: a pass over all
    /// outputs, about 5 µs each.
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
        let (utxos, set_hash) = self.call(|trees| read_utxos(&self.dir, &trees.utxos))?;
        let state = State {
            chain: self.genesis.chain_id(),
            block: tip.block,
            commit: record.commit,
            set_hash,
            registry: Arc::new(registry),
            committee: Arc::new(committee),
            next_committee: Arc::new(next_committee),
            transactions: record.transactions,
            header,
        };
        check_sums(&self.dir, &state, &utxos)?;
        Ok(Ledger::from_parts(&self.genesis, state, utxos))
    }

    /// The masternodes after the last block, and the committee of that block.
    pub(super) fn registry(&self) -> Result<(Registry, Committee), StoreError> {
        let damaged = || StoreError::corrupt(&self.dir, "the registry is incomplete or fails its checksum");
        let bytes = self.whole(REGISTRY_PLACE, Stream::Registry, damaged)?;
        let record: RegistryRecord = decode_stored(&bytes).map_err(|_| damaged())?;
        Ok((Registry::from_parts(record.parts), Committee::new(record.committee)))
    }
}

/// Unspent outputs as read from disk, with their set hash.
type Unspent = (Vec<(OutPoint, Utxo)>, SetHash);

fn read_utxos(dir: &Path, tree: &sled::Tree) -> Result<Unspent, Failure> {
    let (mut utxos, mut set_hash) = (Vec::new(), SetHash::new());
    for entry in tree {
        let (key, value) = entry?;
        let Some((outpoint, utxo)) = parse_utxo(&key, &value) else {
            return Err(StoreError::corrupt(dir, "an unspent output is malformed").into());
        };
        set_hash.add(&outpoint, &utxo);
        utxos.push((outpoint, utxo));
    }
    Ok((utxos, set_hash))
}

/// Compares number, sum and set hash of the outputs read with the header.
fn check_sums(dir: &Path, state: &State, utxos: &[(OutPoint, Utxo)]) -> Result<(), StoreError> {
    let header = &state.header;
    let sum = Amount::checked_sum(utxos.iter().map(|(_, utxo)| utxo.value));
    let right = utxos.len() as u64 == header.utxo_count
        && sum == Some(header.supply)
        && state.set_hash.digest() == header.utxo_hash;
    if right {
        return Ok(());
    }
    let reason = format!(
        "{} unspent outputs do not have the state hash {} of block {}",
        utxos.len(),
        header.utxo_hash,
        header.height
    );
    Err(StoreError::corrupt(dir, reason))
}

fn malformed(dir: &Path) -> StoreError {
    StoreError::corrupt(dir, "an unspent output is malformed")
}
