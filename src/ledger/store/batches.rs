//! What one write changes, tree by tree.

use crate::ledger::apply::{BlockWrite, State};
use crate::ledger::registry::Registry;
use crate::ledger::store::records::{
    BlockRecord, CHUNK_BYTES, FIRST_KEY, REGISTRY_PLACE, RegistryRecord, Stream, TIP_KEY, TipRecord,
    chunk_key, committee_key, outpoint_key, place_key, place_value, seal, utxo_value,
};
use crate::primitives::committee::Committee;
use crate::primitives::encoding::encode;
use crate::primitives::hash::Txid;
use crate::primitives::transaction::{OutPoint, Transaction, Utxo};
use sled::IVec;
use std::collections::HashMap;

/// Key and new value of a change; no value for a removal.
pub type Change = (IVec, Option<IVec>);

/// Changes of one tree, in the order in which they are made; of several of one key the last one counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes(Vec<Change>);

impl Changes {
    /// Sets a value.
    pub fn insert(&mut self, key: impl AsRef<[u8]>, value: impl Into<IVec>) {
        self.0.push((IVec::from(key.as_ref()), Some(value.into())));
    }

    /// Removes a key with its value.
    pub fn remove(&mut self, key: impl AsRef<[u8]>) {
        self.0.push((IVec::from(key.as_ref()), None));
    }

    /// Leaves one change a key, ascending: neighbours share most of their way through the tree.
    pub fn settle(&mut self) {
        self.0.sort_by(|(one, _), (other, _)| one.cmp(other));
        // The one kept is the first of equals, the one that counts the last.
        self.0.reverse();
        self.0.dedup_by(|(one, _), (other, _)| one == other);
        self.0.reverse();
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// One after the other.
    pub fn iter(&self) -> std::slice::Iter<'_, Change> {
        self.0.iter()
    }
}

impl IntoIterator for Changes {
    type Item = Change;
    type IntoIter = std::vec::IntoIter<Change>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// All changes of one write, tree by tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batches {
    pub meta: Changes,
    pub utxos: Changes,
    pub chunks: Changes,
    pub places: Changes,
}

impl Batches {
    /// The trees, always in this order.
    pub fn all(&self) -> [&Changes; 4] {
        [&self.meta, &self.utxos, &self.chunks, &self.places]
    }

    /// As [`Batches::all`].
    pub fn all_mut(&mut self) -> [&mut Changes; 4] {
        [&mut self.meta, &mut self.utxos, &mut self.chunks, &mut self.places]
    }

    /// The first state of a chain.
    pub fn of_genesis(state: State, utxos: &[(OutPoint, Utxo)]) -> Self {
        let mut batches = Self::default();
        for (outpoint, utxo) in utxos {
            batches.utxos.insert(outpoint_key(outpoint), utxo_value(outpoint, utxo).as_slice());
        }
        batches.meta.insert(FIRST_KEY, seal(FIRST_KEY, &encode(&1u64)));
        batches.registry(&state.registry, &state.committee, 0);
        batches.committee(1, &state.next_committee);
        let record = BlockRecord { header: state.header, last_commit: None, commit: None, transactions: 0 };
        batches.record(&record);
        batches
    }

    /// The state after a block whose transactions are not kept, without its unspent outputs.
    pub fn of_state(state: &State) -> Self {
        let mut batches = Self::default();
        let height = state.header.height;
        batches.registry(&state.registry, &state.committee, 0);
        batches.committee(height, &state.committee);
        batches.committee(height.saturating_add(1), &state.next_committee);
        batches.record(&BlockRecord {
            header: state.header.clone(),
            last_commit: None,
            commit: state.commit.clone(),
            transactions: state.transactions,
        });
        batches
    }

    /// Decided blocks, one after the other, and their effect; `registry_chunks` hold the registry before them.
    /// An output that one of them creates and another spends is never written.
    pub fn of_blocks(writes: &[&BlockWrite], registry_chunks: u32) -> Self {
        let mut batches = Self::default();
        let mut created: HashMap<OutPoint, Utxo> = HashMap::new();
        for write in writes {
            batches.block(write);
            for (outpoint, _) in &write.diff.spent {
                if created.remove(outpoint).is_none() {
                    batches.utxos.remove(outpoint_key(outpoint));
                }
            }
            created.extend(write.diff.created.iter().copied());
        }
        for (outpoint, utxo) in &created {
            batches.utxos.insert(outpoint_key(outpoint), utxo_value(outpoint, utxo).as_slice());
        }
        if let Some(last) = writes.last() {
            batches.registry(&last.diff.registry, &last.diff.committee, registry_chunks);
        }
        batches
    }

    /// What is kept of a block for good.
    fn block(&mut self, BlockWrite { block, qc, diff }: &BlockWrite) {
        let height = diff.header.height;
        self.record(&BlockRecord {
            header: diff.header.clone(),
            last_commit: block.last_commit.clone(),
            commit: Some(qc.clone()),
            transactions: diff.transactions,
        });
        if diff.header.next_committee_root != diff.header.committee_root {
            self.committee(height.saturating_add(1), &diff.next_committee);
        }
        self.ids(height, block.transactions.iter().map(|transaction| transaction.id()));
        self.bodies(height, block.transactions.iter().map(|transaction| transaction.body()));
    }

    /// The ids of a block's transactions, in their order, and where each is found.
    pub(super) fn ids(&mut self, height: u64, txids: impl Iterator<Item = Txid>) {
        let mut ids = Vec::new();
        for (txid, index) in txids.zip(0u32..) {
            ids.extend_from_slice(txid.bytes());
            self.places.insert(place_key(&txid), place_value(height, index).as_slice());
        }
        self.stream(height, Stream::Ids, &ids);
    }

    /// The transactions of a block, and where each ends.
    pub(super) fn bodies<'a>(
        &mut self,
        height: u64,
        transactions: impl Iterator<Item = &'a Transaction>,
    ) -> usize {
        let (mut ends, mut bodies) = (Vec::new(), Vec::new());
        for transaction in transactions {
            bodies.extend_from_slice(&encode(transaction));
            // A body has at most 32 MiB, so its length fits.
            ends.extend_from_slice(&u32::try_from(bodies.len()).unwrap_or(u32::MAX).to_le_bytes());
        }
        self.stream(height, Stream::Ends, &ends);
        self.stream(height, Stream::Bodies, &bodies);
        bodies.len()
    }

    /// The record of a block, and that it is the last one.
    pub(super) fn record(&mut self, record: &BlockRecord) {
        let (height, block) = (record.header.height, record.header.id());
        self.stream(height, Stream::Record, &encode(record));
        self.meta.insert(TIP_KEY, seal(TIP_KEY, &encode(&TipRecord { height, block })));
    }

    /// The masternodes after the block, in place of those that filled `before` chunks.
    pub(super) fn registry(&mut self, registry: &Registry, committee: &Committee, before: u32) {
        let record = RegistryRecord { parts: registry.parts(), committee: committee.members().to_vec() };
        let bytes = encode(&record);
        self.stream(REGISTRY_PLACE, Stream::Registry, &bytes);
        let now = u32::try_from(bytes.len().div_ceil(CHUNK_BYTES)).unwrap_or(u32::MAX);
        for number in now..before {
            self.chunks.remove(chunk_key(REGISTRY_PLACE, Stream::Registry, number));
        }
    }

    /// The committee of `height`, which is another than before: kept for good, for proofs.
    pub(super) fn committee(&mut self, height: u64, committee: &Committee) {
        self.stream(height, Stream::Committee, &encode(&committee.members().to_vec()));
        let key = committee_key(height);
        self.meta.insert(key, seal(&key, &[]));
    }

    fn stream(&mut self, height: u64, stream: Stream, bytes: &[u8]) {
        for (chunk, number) in bytes.chunks(CHUNK_BYTES).zip(0u32..) {
            let key = chunk_key(height, stream, number);
            self.chunks.insert(key, seal(&key, chunk));
        }
    }
}
